"""What must be equal in every sandbox, computed by threads that all come first; run by tests/unit/test_identity.py.

    python tests/golden/identities.py 50 10            # a line for each different answer of a process
    python tests/golden/identities.py > tests/golden/identities.json  # after a change of prompt, policy or models

Nothing of the product is loaded before: each process is a cold sandbox whose first uploads come all at once.
"""

import hashlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import langcodes  # noqa: F401 - each child would load it for itself, which takes longer than all else
import numpy as np  # noqa: F401
import pydantic
import pydantic.json_schema  # noqa: F401

MEDIA = Path(__file__).parents[1] / "media"
PICTURES = ("odd/webp_named.jpg", "odd/otters.heic")


def identities() -> dict[str, Any]:
    """What decides on the scope of an upload and on what is asked of which models."""
    from captions.config import policy
    from captions.fingerprint import HASH_VERSION, fingerprint_image
    from captions.gateway import catalogue
    from captions.media import inspect
    from captions.picture_class import classify
    from captions.tasks import TASKS, Ask

    asks = {name: Ask(task=name, question="Who speaks?" if name == "audio_qa" else "") for name in TASKS}
    asks |= {f"caption {style}": Ask(task="caption", style=style) for style in ("concise", "descriptive")}
    asks["caption custom"] = Ask(task="caption", style="custom", template="Say what {title} shows.")
    asks["alt_text ja"] = Ask(task="alt_text", language="ja", context={"title": "Käfer & Co."})
    asks["caption tags"] = Ask(task="caption", vocabulary={"dog": ("hound",), "cat": ()})
    pictures = {}
    for name in PICTURES:
        seen = inspect((MEDIA / name).read_bytes())
        assert seen.picture is not None
        fingerprint, looks = fingerprint_image(seen), classify(seen.picture)
        assert fingerprint.phash is not None
        assert fingerprint.evidence is not None
        pictures[name] = [fingerprint.phash.hex(), looks.category, _digest([fingerprint.evidence.hex()])]
    return {
        "asks": {name: ask.identity for name, ask in asks.items()},
        "hash version": HASH_VERSION,
        "pictures": pictures,
        "policy": _digest(policy.load().model_dump()),
        "catalogue": _digest(catalogue.load().model_dump()),
    }


def _digest(values: Any) -> str:
    text = json.dumps(
        values, sort_keys=True, default=lambda item: sorted(item) if isinstance(item, frozenset) else str(item)
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def answers(threads: int) -> set[str]:
    """What so many threads say that all come first."""
    result, barrier = [], threading.Barrier(threads)

    def work() -> None:
        barrier.wait()
        try:
            result.append(json.dumps(identities(), sort_keys=True))
        except BaseException as error:
            result.append(json.dumps(repr(error)))

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return set(result)


def main(processes: int, threads: int) -> None:
    """Print each different answer of every process on a line of its own."""
    sys.setswitchinterval(1e-4)
    for _ in range(processes):
        reading, writing = os.pipe()
        if os.fork() == 0:
            with os.fdopen(writing, "w") as lines:
                lines.writelines(f"{answer}\n" for answer in sorted(answers(threads)))
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as lines:
            sys.stdout.write(lines.read())
        os.wait()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(*map(int, sys.argv[1:]))
    else:
        print(json.dumps(identities(), indent=1, sort_keys=True, ensure_ascii=False))
