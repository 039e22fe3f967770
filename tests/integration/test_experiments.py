"""Experiments: what is uploaded decides on its side, each side is asked its own way, and the record says which."""

import io
from typing import Any

import pytest
from PIL import Image, ImageEnhance

from captions.config.policy import Policy, load
from captions.fingerprint import fingerprint_image
from captions.records.record import Provenance, Record
from captions.records.reviews import Reviews
from captions.routing.experiments import arm_of
from captions_cli.recaptioning import stale
from support.worker import Workshop

PROMPT = '[experiments.short]\ntask = "caption"\nshare = {share}\ntemplate = "Six words at most, in {{language}}."\n'
EASY = '[routing]\nimage = "easy"\ncategory_from = 1.0\n'
MODEL = EASY + '[experiments.dear]\ntask = "caption"\nshare = {share}\ntier = "hard"\n'


def runs(shop: Workshop, override: str, **values: Any) -> Policy:
    policy = load(override.format(**values))
    shop.dedupe.intake.policies = shop.worker.policies = lambda: policy
    return policy


def drawn(data: bytes, name: str) -> float:
    """The share from which on a picture is in the variant."""
    content = fingerprint_image(data).content_key(near=True)
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if arm_of(name, middle, content).arm == "variant" else (middle, high)
    return high


def side(record: Record) -> tuple[str | None, str | None]:
    provenance = record.provenance or Provenance()
    return provenance.experiment, provenance.arm


def reencoded(data: bytes) -> bytes:
    stream = io.BytesIO()
    with Image.open(io.BytesIO(data)) as picture:
        picture.convert("RGB").resize((picture.width // 2, picture.height // 2)).save(stream, "JPEG", quality=80)
    return stream.getvalue()


def asked(shop: Workshop) -> list[str]:
    return [str(request["model"]) for request in shop.paid()]


def test_each_side_is_asked_its_own_way_and_answers_of_one_are_never_the_others(shop: Workshop, photo: bytes) -> None:
    border = drawn(photo, "short")
    runs(shop, PROMPT, share=border / 2)
    control = shop.captioned("a.jpg", photo)
    assert side(control) == ("short", "control")
    assert shop.dedupe.upload("copy.jpg", reencoded(photo)) == "hit"
    assert side(shop.dedupe.record("copy.jpg")) == ("short", "control")
    # The share grows: the very same picture is in the variant now, and what the control said is no answer to it.
    runs(shop, PROMPT, share=(1 + border) / 2)
    variant = shop.captioned("b.jpg", photo)
    assert side(variant) == ("short", "variant")
    assert shop.dedupe.upload("copy-of-b.jpg", reencoded(photo)) == "hit"
    assert side(shop.dedupe.record("copy-of-b.jpg")) == ("short", "variant")
    assert control.provenance is not None
    assert variant.provenance is not None
    assert control.provenance.prompt_version != variant.provenance.prompt_version
    # Without the experiment the control's answer is what it always was.
    shop.dedupe.intake.policies = load
    assert shop.dedupe.upload("later.jpg", photo) == "hit"
    later = shop.dedupe.record("later.jpg").provenance
    assert later is not None
    assert later.copied_from == control.asset


def test_a_retry_and_a_caption_made_anew_stay_on_their_side(shop: Workshop, photo: bytes) -> None:
    runs(shop, PROMPT, share=(1 + drawn(photo, "short")) / 2)
    shop.endpoint.set_faults([{"fault": "answer", "text": "[1, 2"}])
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    assert shop.run(job) == "deferred"
    shop.endpoint.clear()
    (again,) = shop.jobs() or (job,)
    assert again.arm == job.arm
    assert shop.run(again) == "captioned"
    assert side(shop.dedupe.record("a.jpg")) == ("short", "variant")
    assert shop.recaption("a.jpg", "force") == "queued"
    (job,) = shop.jobs()
    assert shop.run(job) == "captioned"
    assert side(shop.dedupe.record("a.jpg")) == ("short", "variant")


def test_another_tier_is_asked_of_the_variant_alone(shop: Workshop, photo: bytes) -> None:
    border = drawn(photo, "dear")
    policy = runs(shop, MODEL, share=border / 2)
    control = shop.captioned("a.jpg", photo)
    runs(shop, MODEL, share=(1 + border) / 2)
    # One prompt: the picture has its caption already, and a copy of it counts for the side that gave it.
    assert shop.dedupe.upload("copy.jpg", photo) == "hit"
    assert side(shop.dedupe.record("copy.jpg")) == side(control) == ("dear", "control")
    assert shop.recaption("a.jpg", "force") == "queued"
    (job,) = shop.jobs()
    assert shop.run(job) == "captioned"
    variant = shop.dedupe.record("a.jpg")
    assert side(variant) == ("dear", "variant")
    assert [policy.tiers[name].models[0] for name in ("easy", "hard")] == asked(shop)
    assert variant.provenance is not None
    assert variant.provenance.tier == "hard"


def test_an_upload_that_both_sides_ask_alike_takes_no_part(shop: Workshop, photo: bytes) -> None:
    runs(shop, PROMPT, share=0.999)
    named = shop.captioned("named.jpg", photo, metadata={"caption-style": "concise"})
    assert side(named) == (None, None)
    runs(shop, MODEL.replace('image = "easy"', 'image = "hard"'), share=0.999)
    assert side(shop.captioned("hard.jpg", photo)) == (None, None)
    runs(shop, PROMPT + 'prefix = "shop/"\n', share=0.999)
    assert shop.dedupe.upload("elsewhere.jpg", photo) == "hit"


def test_an_experiment_that_ended_while_a_job_was_queued_marks_nothing(shop: Workshop, photo: bytes) -> None:
    runs(shop, MODEL, share=0.999)
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    assert job.arm is not None
    ended = load(EASY)
    shop.worker.policies = lambda: ended
    assert shop.run(job) == "captioned"
    record = shop.dedupe.record("a.jpg")
    assert side(record) == (None, None)
    assert record.provenance is not None
    assert record.provenance.tier == "easy"


def test_the_variants_caption_is_stale_once_the_experiment_has_ended(shop: Workshop, photo: bytes) -> None:
    running = runs(shop, PROMPT, share=(1 + drawn(photo, "short")) / 2)
    record = shop.captioned("a.jpg", photo)
    assert side(record) == ("short", "variant")
    assert stale(record, running) is None
    assert stale(record, load()) is not None


def test_a_verdict_notes_the_side_it_is_about(shop: Workshop, photo: bytes) -> None:
    runs(shop, PROMPT, share=(1 + drawn(photo, "short")) / 2)
    record = shop.captioned("a.jpg", photo)
    reviews = Reviews(shop.dedupe.aws.dynamodb, "captions", "control")
    accepted = reviews.accept(record, now=shop.dedupe.clock())
    assert accepted.human is not None
    assert accepted.human.judged is not None
    assert (accepted.human.judged.experiment, accepted.human.judged.arm) == ("short", "variant")


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_share_is_held_and_a_greater_share_keeps_who_is_in(share: float) -> None:
    contents = [f"{number:x}" for number in range(20_000)]
    arms = [arm_of("short", share, content).arm for content in contents]
    assert abs(arms.count("variant") / len(arms) - share) < 0.012  # four standard errors at half
    more = [arm_of("short", share + 0.2, content).arm for content in contents]
    assert all(after == "variant" for before, after in zip(arms, more, strict=True) if before == "variant")
    other = [arm_of("long", share, content).arm for content in contents]
    both = sum(item == two == "variant" for item, two in zip(arms, other, strict=True))
    assert abs(both / len(arms) - share**2) < 0.012


def test_copies_have_the_coarsest_part_of_their_hash_in_common(photo: bytes, other_photo: bytes) -> None:
    def key(data: bytes) -> str:
        return fingerprint_image(data).content_key(near=True)

    stream = io.BytesIO()
    with Image.open(io.BytesIO(photo)) as picture:
        ImageEnhance.Brightness(picture.convert("RGB")).enhance(1.1).save(stream, "WEBP", quality=60)
    assert key(photo) == key(reencoded(photo)) == key(stream.getvalue()) != key(other_photo)
    identical = {fingerprint_image(data).content_key(near=False) for data in (photo, reencoded(photo))}
    assert len(identical) == 2
