"""Alt texts: their length, and the long description beside them."""

from __future__ import annotations

from captions.tasks import checks
from captions.tasks.outputs import Problem
from captions.tasks.prompts import ALT_LIMIT, ALT_TARGET


def fitted(alt: str) -> tuple[str, Problem | None]:
    """Return an alt text within its limit, in one line, and the problem if it was longer than it should be."""
    alt = " ".join(alt.split())
    if len(alt) > ALT_LIMIT:
        message = f"The alt text had more than {ALT_LIMIT} characters."
        return checks.cut(alt, ALT_LIMIT), Problem(code="too_long", message=message, repairable=True, weight=0.2)
    if len(alt) > ALT_TARGET:
        message = f"The alt text has more than {ALT_TARGET} characters."
        return alt, Problem(code="long", message=message, weight=0.03)
    return alt, None
