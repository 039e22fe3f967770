"""What a function does first and last while its modules load, in every cold start.

Loading makes many thousand objects that stay. Collecting garbage meanwhile looks through all of them several times, for
a tenth of the time that loading takes, and finds next to nothing. Pydantic looks for plugins in the metadata of all
packages; there are none. NumPy's linear algebra starts a thread for each further processor, which takes a seventh of
NumPy's own loading; the product multiplies no matrix that is large enough for two.

    from captions import cold_start  # isort: skip
    ...
    cold_start.over()  # the last statement of the module
"""

import gc
import os

gc.disable()
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def over() -> None:
    """Collect garbage from now on, but never look through what was loaded until now again."""
    gc.freeze()
    gc.enable()
