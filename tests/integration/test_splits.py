"""What tells that the cache has split: exemplars that match each other, prompts that are not the same everywhere."""

import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import boto3
import pytest
from PIL import Image

from captions import media, telemetry
from captions.fingerprint import RADIUS, fingerprint_image, hamming
from captions.near_duplicates import Hit, Lead, Splits, protocol
from captions.near_duplicates.splits import IN_USE_SECONDS, NOTED_EVERY_SECONDS
from captions.tasks import Ask, prompts
from captions.uploads.version import ObjectVersion, pad_sequencer
from support.pipeline import REGION, Clock, Dedupe
from support.worker import Workshop

ASK = Ask(task="caption")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    monkeypatch.setattr(telemetry, "count", names.append)
    return names


def splits(dedupe: Dedupe) -> Splits:
    """What another sandbox, or `captions doctor`, has."""
    return Splits(dedupe.aws.dynamodb, "fingerprints", dedupe.clock)


def smaller(data: bytes, quality: int = 88) -> bytes:
    image, out = Image.open(io.BytesIO(data)), io.BytesIO()
    image.resize((image.width * 3 // 4, image.height * 3 // 4)).save(out, "JPEG", quality=quality)
    return out.getvalue()


def moved(dedupe: Dedupe, key: str, state: str, outcome: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """Move an upload's claim as no code of ours does, out of the index's sight or back; answers its outcome."""
    claim = dedupe.record(key).claim
    assert claim is not None
    (seen,) = dedupe.neighbours.take(protocol.Read((claim.id,)))
    move = protocol.Move(seen, state, seen.generation, 0.0, seen.edition, outcome or seen.outcome)  # type: ignore[arg-type]
    assert dedupe.neighbours.take(move)
    kept: Mapping[str, Any] = seen.outcome
    return kept


def test_two_exemplars_that_match_each_other_are_counted_and_kept_when_a_third_upload_meets_them(
    shop: Workshop, photo: bytes, counted: list[str]
) -> None:
    dedupe = shop.dedupe
    dedupe.upload("a.jpg", photo)
    assert shop.run(*shop.jobs()) == "captioned"
    outcome = moved(dedupe, "a.jpg", "YIELD")
    assert dedupe.upload("b.jpg", smaller(photo)) == "queued"
    assert shop.run(*shop.jobs()) == "captioned"
    moved(dedupe, "a.jpg", "READY", outcome)

    assert splits(dedupe).twins() == []
    assert dedupe.upload("c.jpg", smaller(photo, 75)) == "hit"

    assert counted.count("TwinExemplars") == 1
    (result,) = splits(dedupe).twins()
    assert sorted(result.assets) == ["media/a.jpg", "media/b.jpg"]
    assert dedupe.deliver(dedupe.aws.delete("a.jpg")) == "deleted"
    assert splits(dedupe).twins() == [], "one of the two is no exemplar any more"


def test_exemplars_that_only_a_third_upload_matches_are_none(dedupe: Dedupe, photo: bytes, counted: list[str]) -> None:
    result = fingerprint_image(media.inspect(photo))
    assert result.phash is not None
    between = int.from_bytes(result.phash, "big")
    ends = [(between ^ flipped).to_bytes(32, "big") for flipped in (0b111111, 0b111111 << 20)]
    assert hamming(*ends) > RADIUS

    dedupe.neighbours.evidence = lambda claim: result.evidence
    dedupe.neighbours.finer_evidence = None
    for number, phash in enumerate(ends):
        upload = ObjectVersion(
            bucket="media", key=f"{number}.jpg", version_id="1", sequencer=pad_sequencer(f"0{number}"), size=1
        )
        item = replace(result, exact=(f"b:{number}",), phash=phash)
        lead = dedupe.neighbours.find_or_claim("scope", upload, item)
        assert isinstance(lead, Lead)
        dedupe.neighbours.settle(lead.claim_id, lead.generation, "READY", {"by": number})
    third = ObjectVersion(bucket="media", key="3.jpg", version_id="1", sequencer=pad_sequencer("03"), size=1)
    hit = dedupe.neighbours.find_or_claim("scope", third, replace(result, exact=("b:3",)))

    assert isinstance(hit, Hit)
    assert len(hit.also) == 1
    assert dedupe.neighbours.twins(hit) == []


def test_two_prompt_versions_of_one_ask_are_counted_by_whoever_comes_second(
    dedupe: Dedupe, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    splits(dedupe).uses(ASK)
    splits(dedupe).uses(Ask(task="caption", language="de", context={"title": "A house"}))
    splits(dedupe).uses(Ask(task="caption", style="concise"))
    splits(dedupe).uses(Ask(task="caption", style="custom", template="Say what {title} shows."))
    splits(dedupe).uses(Ask(task="caption", style="custom", template="Name what {title} shows."))
    assert counted == []
    assert splits(dedupe).versions() == []

    good = ASK.version
    monkeypatch.setattr(prompts, "wording", lambda ask: "half of a shape")
    splits(dedupe).uses(ASK)

    assert counted == ["PromptVersionsDiffer"]
    (result,) = splits(dedupe).versions()
    assert (result.ask, set(result.versions)) == ("caption", {good, ASK.version})


def test_a_version_that_followed_another_is_alone_once_that_is_out_of_use(
    dedupe: Dedupe, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    splits(dedupe).uses(ASK)
    dedupe.clock.at += IN_USE_SECONDS
    monkeypatch.setattr(prompts, "wording", lambda ask: "after a deployment")
    splits(dedupe).uses(ASK)

    assert counted == []
    assert splits(dedupe).versions() == []


def test_a_sandbox_notes_what_it_uses_every_few_minutes_and_no_upload_depends_on_it() -> None:
    class Table:
        """A table that is out, and says how often it was asked."""

        asked = 0

        def update_item(self, **arguments: Any) -> None:
            self.asked += 1
            boto3.client("dynamodb", region_name=REGION, endpoint_url="http://127.0.0.1:9").update_item(**arguments)

    table, clock = Table(), Clock()
    item = Splits(table, "fingerprints", clock)
    item.uses(ASK)
    item.uses(ASK)
    assert table.asked == 1
    clock.at += NOTED_EVERY_SECONDS
    item.uses(ASK)
    assert table.asked == 2


def test_an_answer_to_another_prompt_than_dedupe_knew_is_counted_by_the_worker(
    shop: Workshop, photo: bytes, counted: list[str]
) -> None:
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    assert shop.run(job.model_copy(update={"prompt_version": "caption-of-half-a-shape"})) == "captioned"
    assert "PromptVersionsDiffer" in counted
