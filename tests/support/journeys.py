"""What becomes of uploads in the near-duplicate index, each measured by the calls it makes."""

import io
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from PIL import Image

from captions.fingerprint import Fingerprint, fingerprint_image
from captions.near_duplicates import Follow, Hit, Lead, Neighbours
from captions.uploads.version import ObjectVersion, pad_sequencer
from support.capacity import Bill, Meter

OUTCOME = {
    "asset": "media/2026/11/a-photo-of-a-house.jpg",
    "result": {"text": "A house of waving stone under a blue sky. " * 6, "language": "en", "task": "caption"},
    "model": "provider/a-model-of-some-size",
    "reported_model": "a-model-of-some-size-2026-01-01",
    "endpoint": "https://models.example/v1",
    "prompt_version": "c1",
    "cost": "0.000213",
}
"""A result as the pipeline stores it, with a caption of 250 letters."""


def upload(key: str) -> ObjectVersion:
    return ObjectVersion(
        bucket="media",
        key=f"2026/11/{key}.jpg",
        version_id="v" * 32,
        sequencer=pad_sequencer("1"),
        etag="e" * 32,
        size=1,
    )


def near(fingerprint: Fingerprint, name: str) -> Fingerprint:
    """The fingerprint of a copy in other bytes, three bits away."""
    assert fingerprint.phash is not None
    phash = (int.from_bytes(fingerprint.phash, "big") ^ 0b10101).to_bytes(32, "big")
    return replace(fingerprint, exact=(f"b:{name:0<64}", f"x:{name:0<64}"), phash=phash)


def cropped(photo: bytes) -> bytes:
    """A photo without 1 % of its width and height at each side, as JPEG."""
    with Image.open(io.BytesIO(photo)) as whole:
        width, height = whole.size
        across, down = round(0.01 * width), round(0.01 * height)
        part = whole.convert("RGB").crop((across, down, width - across, height - down))
    stream = io.BytesIO()
    part.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def measured(client: Any, table: str, photo: bytes) -> dict[str, Bill]:
    """Take uploads of one picture each of the ways there are; answers what each way costs."""
    meter = Meter(client)
    objects: dict[tuple[str, ...], bytes | None] = {}
    """What the evidence of claims is made of, by their exact keys."""
    neighbours = Neighbours(client, table, evidence=lambda claim: objects[claim.exact])
    bills: dict[str, Bill] = {}
    scope = "media caption c1 en p1"
    fingerprint = fingerprint_image(photo)
    assert fingerprint.evidence is not None
    objects[fingerprint.exact] = fingerprint.evidence

    def bill(name: str, act: Callable[[], Any]) -> Any:
        with meter.measuring() as bills[name]:
            return act()

    lead = bill("new picture", lambda: neighbours.find_or_claim(scope, upload("a"), fingerprint))
    assert isinstance(lead, Lead)
    followed = bill(
        "copy while it is captioned", lambda: neighbours.find_or_claim(scope, upload("b"), near(fingerprint, "b"))
    )
    assert followed == Follow(lead.claim_id)
    soon = time.time() + 60
    bill("worker starts", lambda: neighbours.renew(lead.claim_id, lead.generation, 9e9, at_least=soon))
    bill("worker starts late", lambda: neighbours.renew(lead.claim_id, lead.generation, 9e9))
    followers = bill("result stored", lambda: neighbours.settle(lead.claim_id, lead.generation, "READY", OUTCOME))
    assert followers == [upload("b")]
    bill("each follower told", lambda: neighbours.dismiss(lead.claim_id, followers[0]))
    same = bill("copy, same bytes", lambda: neighbours.find_or_claim(scope, upload("c"), fingerprint))
    alike = bill("copy, other bytes", lambda: neighbours.find_or_claim(scope, upload("d"), near(fingerprint, "d")))
    assert isinstance(same, Hit)
    assert isinstance(alike, Hit)
    sound = Fingerprint((f"b:{'0':0<64}", f"p:{'0':0<64}"))
    bill("new sound", lambda: neighbours.find_or_claim(scope, upload("e"), sound))
    loose = Neighbours(client, table, policy="loose", evidence=lambda claim: objects[claim.exact])
    lead = bill("new picture, loose", lambda: loose.find_or_claim("loose", upload("f"), fingerprint))
    assert isinstance(lead, Lead)
    loose.settle(lead.claim_id, lead.generation, "READY", OUTCOME)
    crop = fingerprint_image(cropped(photo))
    assert isinstance(bill("crop, loose", lambda: loose.find_or_claim("loose", upload("g"), crop)), Hit)
    return bills
