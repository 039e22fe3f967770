"""Which side of an experiment an upload is on: decided by what it shows, so that its copies and later tries agree."""

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict

STEPS = 1 << 32


class Arm(BaseModel):
    """One side of an experiment: what holds without it (`control`), or what is tried (`variant`)."""

    model_config = ConfigDict(frozen=True)

    experiment: str
    arm: Literal["control", "variant"]


def arm_of(experiment: str, share: float, content: str) -> Arm:
    """Return the arm of an upload; `share` is that of the variant, `content` what its copies have in common.

    The name is in the digest, so that two experiments part the same uploads independently. A greater share keeps those
    that were in the variant already.
    """
    digest = hashlib.sha256(f"{experiment}\x00{content}".encode()).digest()
    drawn = int.from_bytes(digest[:4], "big")
    return Arm(experiment=experiment, arm="variant" if drawn < share * STEPS else "control")
