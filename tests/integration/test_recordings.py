"""Long and odd recordings and video end as one answer, from as many calls as it takes, each paid once."""

import io
import struct
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captions.gateway import Endpoint, Gateway
from captions.gateway.catalogue import load
from captions.media import decoder, recordings
from captions.queues import Job
from captions.records.record import Record
from captions.records.spending import spending
from captions.subtitles import Cue, webvtt
from captions_cli.local.model_endpoint import LocalEndpoint
from support.pipeline import Aws, Dedupe
from support.recordings import (
    AUDIO,
    PHRASE,
    VIDEO,
    encoded,
    film,
    recorded,
    samples,
    silence,
    spoken,
)
from support.worker import Workshop, workshop

OMNI = "Qwen/Qwen3-Omni-30B-A3B-Instruct"
WHISPER = "whisper-1"
# Time enough for each answer: the local model recognises speech on this machine's own processor.
SHORT = "".join(f'[models."{name}"]\nlongest_audio = 8.0\ntimeouts.audio = 120.0\n' for name in (OMNI, WHISPER))
TALK = encoded(spoken(PHRASE, PHRASE, PHRASE, pauses=4.0))
"""Three times the same words ("in being comparatively modern"), at seconds 0, 5.9 and 11.8."""


@pytest.fixture
def shop(aws: Aws, dedupe: Dedupe, hearer: LocalEndpoint) -> Workshop:
    return workshop(aws, dedupe, hearer)


def hearing(shop: Workshop, *models: str, override: str = SHORT) -> Workshop:
    """Give the workshop's worker these models for sound, and a catalogue in which one call holds 20 seconds."""
    shop.worker.settings = shop.worker.settings.model_copy(update={"audio_models": models})
    shop.worker.gateway = Gateway(
        endpoints=[Endpoint(shop.endpoint.url)], keys=lambda fresh: "a key", catalogue=load(override)
    )
    return shop


def job(shop: Workshop, name: str, data: bytes, **metadata: Any) -> Job:
    assert shop.dedupe.upload(name, data, **metadata) == "queued"
    (result,) = shop.jobs()
    return result


def transcribed(shop: Workshop, name: str, data: bytes, **metadata: Any) -> Record:
    assert shop.run(job(shop, name, data, **metadata)) == "captioned"
    return shop.dedupe.record(name)


def kept(shop: Workshop) -> list[dict[str, Any]]:
    """What the control table holds of recordings."""
    items = shop.dedupe.aws.dynamodb.scan(TableName="control")["Items"]
    return [item for item in items if item["pk"]["S"].startswith("recording#")]


def test_a_long_recording_is_one_transcript_with_times_from_its_start(shop: Workshop) -> None:
    record = transcribed(hearing(shop, WHISPER, OMNI), "talk.wav", TALK)
    assert record.result is not None
    data = record.result.data
    assert [request["path"] for request in shop.paid()] == ["/v1/audio/transcriptions"] * len(data["parts"])
    assert len(data["parts"]) == 3
    starts = [segment["start_s"] for segment in data["segments"]]
    assert starts == sorted(starts)
    assert starts == pytest.approx([0.0, 5.9, 11.8], abs=0.7)
    for part in data["parts"]:
        inside = [segment for segment in data["segments"] if part["start_s"] <= segment["start_s"] < part["end_s"]]
        assert inside
        assert all(item["end_s"] <= part["end_s"] for item in inside)
    assert record.result.text.replace("\n", " ") == " ".join(segment["text"] for segment in data["segments"])
    assert record.result.text.count("\n") == len(data["parts"]) - 1
    assert record.result.language == "en"


def test_every_part_is_in_the_provenance_and_its_cost_in_the_sum(shop: Workshop) -> None:
    record = transcribed(hearing(shop, WHISPER), "talk.wav", TALK)
    provenance, result = record.provenance, record.result
    assert provenance is not None
    assert result is not None
    assert [attempt["outcome"] for attempt in provenance.attempts] == ["ok"] * len(result.data["parts"])
    reported = [Decimal(request["cost"]) for request in shop.paid()]
    assert provenance.cost is not None
    assert Decimal(provenance.cost) == sum(reported)
    assert provenance.model == WHISPER
    assert kept(shop) == []


def test_subtitles_show_words_when_they_are_said(shop: Workshop) -> None:
    record = transcribed(hearing(shop, WHISPER), "talk.wav", TALK)
    assert record.result is not None
    first, second, third = webvtt(Cue(**segment) for segment in record.result.data["segments"]).split("\n\n")[1:]
    assert [cue[:9] for cue in (first, second, third)] == ["00:00:00.", "00:00:05.", "00:00:11."]
    assert all(cue.strip().endswith("modern") for cue in (first, second, third))


def test_a_chat_gives_each_part_its_words_and_the_part_its_time(shop: Workshop) -> None:
    record = transcribed(hearing(shop, OMNI), "talk.wav", TALK)
    assert record.result is not None
    assert {request["path"] for request in shop.paid()} == {"/v1/chat/completions"}
    data = record.result.data
    assert data["segments"][0]["start_s"] == pytest.approx(0.0, abs=1.0)
    assert data["segments"][-1]["end_s"] <= data["parts"][-1]["end_s"]


def test_nobody_is_paid_for_listening_to_silence(shop: Workshop) -> None:
    quiet = encoded(np.concatenate([samples(PHRASE), silence(18.0)]))
    record = transcribed(hearing(shop, WHISPER), "quiet.wav", quiet)
    assert record.result is not None
    assert len(record.result.data["parts"]) >= 3
    assert len(shop.paid()) == 1
    assert "modern" in record.result.text


def test_a_recording_of_nothing_but_silence_is_asked_about_once(shop: Workshop) -> None:
    record = transcribed(hearing(shop, OMNI), "silence.wav", encoded(silence(20.0)))
    assert record.result is not None
    assert len(shop.paid()) == 1
    assert not record.result.data["speech"]


def test_a_second_delivery_pays_for_the_missing_parts_alone(shop: Workshop) -> None:
    hearing(shop, WHISPER)
    work = job(shop, "talk.wav", TALK)
    shop.endpoint.set_faults([{"fault": "rate_limited", "retry_after": 600, "skip": 1, "times": 1}])
    assert shop.run(work) == "deferred"
    halfway = shop.dedupe.record("talk.wav")
    answered = len(shop.paid())
    assert len(kept(shop)) == answered >= 1
    assert halfway.result is None
    assert "rate_limited" in [attempt["outcome"] for attempt in halfway.attempts]

    shop.endpoint.set_faults([])
    hearing(shop, WHISPER)
    shop.dedupe.clock.at += 900.0
    assert shop.run(work) == "captioned"
    record = shop.dedupe.record("talk.wav")
    assert record.result is not None
    assert record.provenance is not None
    heard = [request["media_sha256"] for request in shop.paid()]
    assert len(heard) == len(set(heard)) == len(record.result.data["parts"])
    outcomes = [attempt["outcome"] for attempt in record.provenance.attempts]
    assert outcomes.count("ok") == len(heard)
    assert Decimal(record.provenance.cost or "nan") == sum(Decimal(request["cost"]) for request in shop.paid())
    assert kept(shop) == []


def test_a_worker_that_dies_with_every_part_paid_for_leaves_nothing_to_pay(shop: Workshop) -> None:
    hearing(shop, WHISPER)
    work = job(shop, "talk.wav", TALK)
    records = shop.worker.records

    class Dying(type(records)):  # type: ignore[misc]
        def finish(self, *args: Any, **named: Any) -> Any:
            raise ConnectionError("the sandbox is gone")

    shop.worker.records = Dying(shop.dedupe.aws.dynamodb, "captions")
    (ending,) = shop.run_all([work])
    assert isinstance(ending, ConnectionError)
    paid = len(shop.paid())
    shop.worker.records = records
    shop.dedupe.clock.at += 900.0
    assert shop.run(work) == "captioned"
    assert len(shop.paid()) == paid
    provenance = shop.dedupe.record("talk.wav").provenance
    assert provenance is not None
    assert [attempt["outcome"] for attempt in provenance.attempts] == ["ok"] * paid


@pytest.mark.parametrize("becomes", ["deleted", "overwritten"])
def test_parts_that_a_dead_worker_paid_for_are_accounted_though_their_recording_is_gone(
    shop: Workshop, becomes: str
) -> None:
    hearing(shop, WHISPER)
    work = job(shop, "talk.wav", TALK)

    class Dying(type(shop.worker.records)):  # type: ignore[misc]
        def finish(self, *args: Any, **named: Any) -> Any:
            raise ConnectionError("the sandbox is gone")

    shop.worker.records, records = Dying(shop.dedupe.aws.dynamodb, "captions"), shop.worker.records
    (ending,) = shop.run_all([work])
    assert isinstance(ending, ConnectionError)
    shop.worker.records = records
    if becomes == "deleted":
        shop.dedupe.deliver(shop.dedupe.aws.delete("talk.wav"))
    else:
        shop.dedupe.upload("talk.wav", encoded(spoken(PHRASE, PHRASE, pauses=6.0)))
    shop.dedupe.clock.at += 900.0
    assert shop.run(work) == "superseded"
    paid = [Decimal(request["cost"]) for request in shop.paid()]
    assert len(paid) == 3
    assert spending([shop.dedupe.record("talk.wav")], "day")[1].cost.exact == sum(paid)


def test_parts_of_an_overwritten_version_are_not_taken_for_the_new_one(shop: Workshop) -> None:
    hearing(shop, WHISPER)
    work = job(shop, "talk.wav", TALK)
    shop.endpoint.set_faults([{"fault": "rate_limited", "retry_after": 600, "skip": 1, "times": 1}])
    assert shop.run(work) == "deferred"
    shop.endpoint.set_faults([])
    hearing(shop, WHISPER)
    shop.jobs()
    before = len(shop.paid())
    record = transcribed(shop, "talk.wav", encoded(spoken(PHRASE, PHRASE, pauses=6.0)))
    assert record.result is not None
    assert len(shop.paid()) - before == len(record.result.data["parts"])
    assert record.result.text.count("modern") == 2


@pytest.mark.deep
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("memo.wma", encoded(samples(PHRASE), "asf", "wmav2")),
        ("memo.webm", encoded(samples(PHRASE), "webm", "libopus", 48_000)),
        ("memo.wav", encoded(samples(PHRASE), "wav", "adpcm_ms")),
        ("memo.caf", encoded(samples(PHRASE), "caf", "pcm_s16be")),
        ("memo.aiff", encoded(samples(PHRASE), "aiff", "pcm_s16be")),
    ],
    ids=["wma", "webm", "adpcm", "caf", "aiff"],
)
def test_formats_that_no_model_takes_are_converted_and_transcribed(shop: Workshop, name: str, data: bytes) -> None:
    record = transcribed(hearing(shop, OMNI), name, data)
    assert record.result is not None
    assert "comparatively" in record.result.text
    assert len(shop.paid()) == 1


def test_a_telephone_recording_is_converted(shop: Workshop) -> None:
    noise = b"#!AMR\n" + b"".join(b"\x3c" + np.random.default_rng(n).bytes(31) for n in range(50))
    record = transcribed(hearing(shop, OMNI), "call.amr", noise)
    assert record.media_type == "audio/amr"
    assert len(shop.paid()) == 1


def test_a_question_about_a_long_recording_is_asked_of_each_part(shop: Workshop) -> None:
    metadata = {"caption-task": "audio_qa", "caption-question": "What is read?"}
    record = transcribed(hearing(shop, OMNI), "talk.wav", TALK, metadata=metadata)
    assert record.result is not None
    assert record.result.task == "audio_qa"
    assert len(shop.paid()) == len(record.result.data["parts"]) >= 3


def test_what_plays_for_too_long_is_rejected_before_anything_is_paid(shop: Workshop) -> None:
    flac = bytearray(encoded(samples(TALK), "flac", "flac"))
    info = int.from_bytes(flac[18:26], "big") >> 36 << 36 | 20 * 3_600 * 16_000
    flac[18:26] = struct.pack(">Q", info)
    assert shop.run(job(hearing(shop, WHISPER), "day.flac", bytes(flac))) == "rejected"
    reason = shop.dedupe.record("day.flac").reason
    assert reason is not None
    assert reason.code == "too_large"
    assert shop.paid() == []


def test_what_cannot_be_decoded_is_rejected_with_a_reason(shop: Workshop) -> None:
    webm = bytearray((AUDIO / "lj_5.webm").read_bytes())
    at = webm.index(b"A_OPUS")
    webm[at : at + 6] = b"A_NONE"
    assert shop.run(job(hearing(shop, OMNI), "odd.webm", bytes(webm))) == "rejected"
    reason = shop.dedupe.record("odd.webm").reason
    assert reason is not None
    assert reason.code == "broken"


@pytest.mark.deep
@pytest.mark.parametrize(("name", "key"), [("_FRAMES_MEMORY", "large.avi"), ("_SOUND_MEMORY", "long.m4a")])
def test_what_fills_the_decoders_memory_is_rejected_and_its_neighbour_is_captioned(
    name: str, key: str, shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames of a large picture, and the index of many thousand packets: both are more than an allocator has left."""
    monkeypatch.setattr(recordings, name, {"_FRAMES_MEMORY": 4_000_000, "_SOUND_MEMORY": 0}[name])
    large = (
        film(COLOURS, size=(1_920, 1_080), container="avi")
        if key == "large.avi"
        else encoded(silence(3_000.0), "mp4", "aac")
    )
    hearing(shop, OMNI)
    jobs = [job(shop, key, large), job(shop, "phrase.wav", PHRASE)]
    assert shop.run_all(jobs) == ["rejected", "captioned"]
    reason = shop.dedupe.record(key).reason
    assert reason is not None
    assert (reason.code, reason.message) == ("bomb", "decoding the recording takes more memory than is allowed")


def test_a_decoder_that_is_stopped_from_outside_leaves_the_job_to_the_next_delivery(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = job(hearing(shop, WHISPER), "talk.wav", TALK)
    with monkeypatch.context() as patched:
        patched.setattr(decoder, "CHILD", "captions.media.no_such_module")
        (ending,) = shop.run_all([work])
    assert isinstance(ending, decoder.DecoderStopped)
    shop.dedupe.clock.at += 3_600
    assert shop.run(work) == "captioned"


def taking_data(*more: str) -> str:
    takes = '["image_url_data", "image_url", "input_audio", "audio_url", "video_url", "video_url_data"]'
    return "\n".join((f'[models."{OMNI}"]', f"takes = {takes}", *more))


def test_a_video_goes_to_a_model_that_takes_it_whole(shop: Workshop) -> None:
    record = transcribed(hearing(shop, OMNI, override=taking_data()), "rabbit.webm", VIDEO)
    assert record.kind == "video"
    assert record.result is not None
    assert record.result.task == "video"
    assert [request["kind"] for request in shop.paid()] == ["video"]
    assert "frames" not in record.result.data
    assert size_of(record.poster) == (320, 240)
    # A copy has its picture as well, and what is deleted has none.
    assert shop.dedupe.upload("copy.webm", VIDEO) == "hit"
    assert shop.dedupe.record("copy.webm").poster == record.poster
    shop.dedupe.deliver(shop.dedupe.aws.delete("rabbit.webm"))
    assert shop.dedupe.record("rabbit.webm").poster is None


def test_a_video_without_a_picture_that_can_be_decoded_is_captioned_all_the_same(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recordings, "key_frames", partial(recordings.key_frames, max_pixels=1))
    record = transcribed(hearing(shop, OMNI, override=taking_data()), "rabbit.webm", VIDEO)
    assert record.result is not None
    assert record.poster is None


def size_of(picture: bytes | None) -> tuple[int, int]:
    assert picture is not None
    with Image.open(io.BytesIO(picture)) as image:
        assert image.format == "WEBP"
        return image.size


COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (250, 250, 250)]


def test_a_video_that_no_model_takes_is_told_by_its_frames_and_its_words(shop: Workshop) -> None:
    avi = film(COLOURS, seconds_each=1.0, sound=samples(PHRASE), container="avi")
    record = transcribed(hearing(shop, OMNI), "talk.avi", avi)
    assert record.result is not None
    assert [request["kind"] for request in shop.paid()] == ["audio", "image"]
    data = record.result.data
    assert [int(at // 1.0) for at in data["frames"]] == [0, 1, 2, 3]
    assert size_of(record.poster) == (320, 180)
    assert "modern" in " ".join(segment["text"] for segment in data["segments"])
    assert record.provenance is not None
    assert len(record.provenance.attempts) == 2


def test_the_soundtrack_of_a_video_is_not_paid_for_again_when_its_pictures_fail(shop: Workshop) -> None:
    avi = film(COLOURS, seconds_each=1.0, sound=samples(PHRASE), container="avi")
    hearing(shop, OMNI)
    work = job(shop, "talk.avi", avi)
    shop.endpoint.set_faults([{"fault": "overloaded", "kind": "image"}])
    assert shop.run(work, seconds=30.0) == "deferred"
    shop.endpoint.set_faults([])
    hearing(shop, OMNI)
    shop.dedupe.clock.at += 900.0
    assert shop.run(work) == "captioned"
    assert [request["kind"] for request in shop.paid()] == ["audio", "image"]


def test_a_silent_video_is_told_by_its_frames_alone(shop: Workshop) -> None:
    record = transcribed(hearing(shop, OMNI), "silent.avi", film(COLOURS, container="avi"))
    assert record.result is not None
    assert [request["kind"] for request in shop.paid()] == ["image"]
    assert record.result.data["segments"] == []


def test_a_video_that_is_too_long_for_the_model_is_told_by_its_frames(shop: Workshop) -> None:
    override = taking_data("longest_video = 1.5", "longest_audio = 8.0")
    record = transcribed(hearing(shop, OMNI, override=override), "rabbit.webm", VIDEO)
    assert record.result is not None
    assert record.result.data["frames"]


def test_a_video_that_the_model_turns_down_is_told_by_its_frames(shop: Workshop) -> None:
    shop.endpoint.set_faults([{"fault": "bad_request", "kind": "video"}])
    record = transcribed(hearing(shop, OMNI, override=taking_data()), "rabbit.webm", VIDEO)
    assert record.result is not None
    assert record.provenance is not None
    assert record.result.data["frames"]
    assert record.provenance.attempts[0]["outcome"] == "ours"


def test_a_recording_that_the_model_turns_down_is_converted(shop: Workshop) -> None:
    shop.endpoint.set_faults([{"fault": "bad_request", "times": 1}])
    record = transcribed(hearing(shop, WHISPER), "memo.wav", PHRASE)
    assert record.result is not None
    assert record.provenance is not None
    assert "modern" in record.result.text
    assert [attempt["outcome"] for attempt in record.provenance.attempts] == ["ours", "ok"]


def test_channels_that_cancel_each_other_out_are_not_sent_to_who_mixes_them(shop: Workshop) -> None:
    words = samples(PHRASE) // 2
    record = transcribed(hearing(shop, WHISPER), "memo.wav", recorded(words, -words))
    assert record.result is not None
    assert "modern" in record.result.text


def test_a_video_whose_channels_cancel_each_other_out_is_told_by_its_words(shop: Workshop) -> None:
    words = samples(PHRASE) // 2
    video = film([(200, 30, 30), (30, 30, 200)], sound=np.stack([words, -words]))
    record = transcribed(hearing(shop, OMNI, override=taking_data()), "talk.mp4", video)
    assert record.result is not None
    assert "modern" in " ".join(segment["text"] for segment in record.result.data["segments"])


def test_refused_parts_end_the_recording_with_everything_that_was_paid(shop: Workshop) -> None:
    shop.endpoint.set_faults([{"fault": "refusal", "form": "error", "skip": 1}])
    assert shop.run(job(hearing(shop, WHISPER), "talk.wav", TALK)) == "blocked"
    record = shop.dedupe.record("talk.wav")
    assert record.provenance is not None
    assert [attempt["outcome"] for attempt in record.provenance.attempts].count("ok") == len(shop.paid()) == 1
    assert len(kept(shop)) == 1  # a redrive pays for the others alone


def test_what_is_said_in_a_video_can_be_asked_for_alone(shop: Workshop) -> None:
    avi = film(COLOURS, seconds_each=1.0, sound=samples(PHRASE), container="avi")
    record = transcribed(hearing(shop, WHISPER), "talk.avi", avi, metadata={"caption-task": "transcribe"})
    assert record.result is not None
    assert "modern" in record.result.text
    assert [request["path"] for request in shop.paid()] == ["/v1/audio/transcriptions"]


def test_two_recordings_in_one_batch_do_not_disturb_each_other(shop: Workshop) -> None:
    hearing(shop, WHISPER)
    jobs = [
        job(shop, "one.wav", TALK),
        job(shop, "two.wav", encoded(spoken(PHRASE, PHRASE, pauses=6.0))),
    ]
    assert shop.run_all(jobs) == ["captioned", "captioned"]
    two = shop.dedupe.record("two.wav").result
    assert two is not None
    assert two.text.count("modern") == 2


def test_with_too_little_time_left_no_part_is_begun(shop: Workshop) -> None:
    work = job(hearing(shop, WHISPER), "talk.wav", TALK)
    assert shop.run(work, seconds=14.0) == "deferred"
    waiting = shop.dedupe.record("talk.wav")
    assert waiting.reason is not None
    assert waiting.reason.code == "out_of_time"
    assert shop.paid() == []
