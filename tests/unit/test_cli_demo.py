"""The demo's uploads are what they claim, and its judgement lets nothing wrong pass."""

import functools
import hashlib
import io
import json
import tomllib
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from standardwebhooks import Webhook

from captions import fingerprint, media
from captions.records.record import Provenance, Reason, Record, Result
from captions_cli import demo_doors, demo_uploads, demo_view, rendering
from captions_cli.demo import DemoOutcome, Report
from captions_cli.demo_uploads import DemoUpload
from captions_cli.demo_view import as_json, totals
from captions_cli.local.model_endpoint import eyes

uploads = functools.cache(demo_uploads.uploads)
"""Made when the first test asks: every worker imports this module, and making them takes a second."""
UNFIT = ["cut-off.jpg", "empty.jpg", "shopping-list.jpg"]
MEDIA = Path(demo_uploads.__file__).parent / "demo_media"


def named(key: str) -> DemoUpload:
    return next(upload for upload in uploads() if upload.key == key)


def test_there_are_enough_uploads_in_two_waves_with_keys_of_their_own() -> None:
    assert len(uploads()) >= 16
    assert {upload.wave for upload in uploads()} == {1, 2}
    assert len({upload.key for upload in uploads()}) == len(uploads())


@pytest.mark.slow
def test_they_are_the_same_bytes_each_time() -> None:
    again = demo_uploads.uploads()

    assert [hashlib.sha256(upload.body).digest() for upload in again] == [
        hashlib.sha256(upload.body).digest() for upload in uploads()
    ]


def test_they_are_of_the_kinds_they_are_named() -> None:
    kinds = {upload.key: media.sniff(upload.body) for upload in uploads() if upload.picture}

    assert kinds["casa-mila.heic"].media_type == "image/heic"
    assert kinds["web/colosseum.avif"].media_type == "image/avif"
    assert kinds["rabbit.gif"].kind == "animation"
    assert {kinds["speech.wav"].kind, kinds["speech.mp3"].kind} == {"audio"}
    assert media.sniff(named("clip.webm").body).kind == "video"
    with Image.open(io.BytesIO(named("avatar.png").body)) as image:
        assert image.getchannel("A").getextrema() == (0, 255)
    with Image.open(io.BytesIO(named("colosseum-turned.jpg").body)) as image:
        assert image.width < image.height
        assert image.getexif()[0x0112] == 6


@pytest.mark.parametrize("key", UNFIT)
def test_unfit_files_are_refused_for_the_reason_expected(key: str) -> None:
    with pytest.raises(media.MediaError) as refused:
        media.inspect(named(key).body)

    assert refused.value.code in named(key).codes


def test_no_other_file_is_unfit() -> None:
    assert [upload.key for upload in uploads() if upload.codes] == UNFIT


def test_the_copies_differ_in_bytes_wherever_they_are_not_meant_to_be_the_same() -> None:
    bodies = defaultdict(list)
    for upload in uploads():
        bodies[hashlib.sha256(upload.body).hexdigest()].append(upload.key)

    assert [keys for keys in bodies.values() if len(keys) > 1] == [
        ["tea gardens (été) #1.jpg", "copies/tea-gardens.jpg"]
    ]


def test_uploads_of_one_picture_match_and_those_of_two_do_not() -> None:
    prints = {
        upload.key: fingerprint.fingerprint_audio(upload.body)
        if upload.kind in ("audio", "video")
        else fingerprint.fingerprint_image(upload.body)
        for upload in uploads()
        if upload.picture
    }
    first: dict[str | None, str] = {}
    for upload in (upload for upload in uploads() if upload.picture):
        exemplar = first.setdefault(upload.picture, upload.key)
        for picture, key in first.items():
            matched = same(prints[upload.key], prints[key])
            assert matched == (picture == upload.picture), f"{upload.key} and {key}, exemplar {exemplar}"


def same(a: fingerprint.Fingerprint, b: fingerprint.Fingerprint) -> bool:
    if set(a.exact) & set(b.exact):
        return True
    if a.phash is None or b.phash is None or a.evidence is None or b.evidence is None:
        return False
    near = fingerprint.hamming(a.phash, b.phash) <= fingerprint.RADIUS
    return near and fingerprint.same_picture(a.evidence, b.evidence, "strict")


def test_every_file_of_the_demo_is_in_its_notice() -> None:
    notice = (MEDIA / "NOTICE.md").read_text(encoding="utf-8")

    assert [path.name for path in sorted(MEDIA.iterdir()) if f"| {path.name} |" not in notice] == ["NOTICE.md"]


def test_the_media_is_small_and_none_of_it_is_among_the_tests_media() -> None:
    others = [path for path in (Path(__file__).parents[1] / "media").rglob("*") if path.is_file()]
    theirs = {hashlib.sha256(path.read_bytes()).digest(): path.name for path in others}
    ours = [path for path in MEDIA.iterdir() if path.is_file()]

    assert [path.name for path in ours if hashlib.sha256(path.read_bytes()).digest() in theirs] == []
    assert sum(path.stat().st_size for path in ours) <= 3_000_000
    assert sum(path.stat().st_size for path in (*ours, *others)) <= 8_000_000


def right(upload: DemoUpload, source: str) -> DemoOutcome:
    facts: dict[str, Any] = {"asset": f"b/{upload.key}", "bucket": "b", "key": upload.key, "sequencer": "0" * 64}
    if upload.picture is None:
        code = upload.codes[0] if upload.codes else "unsupported"
        reason = Reason(code=code, message="because")
        return DemoOutcome(upload, Record(**facts, state="rejected", reason=reason))
    result = Result(text=f"about {upload.picture}", language="en", task="caption")
    money = {"cost": "0.002"} if source == "model" else {"cost": "0", "saved": "0.002"}
    provenance = Provenance(model="GPT-4o", reported_model="local/PP-OCRv6", **money)
    return DemoOutcome(upload, Record(**facts, state="captioned", source=source, result=result, provenance=provenance))


def all_right() -> list[DemoOutcome]:
    seen: set[str | None] = set()
    outcomes = []
    for upload in uploads():
        outcomes.append(right(upload, "cache" if upload.picture in seen else "model"))
        seen.add(upload.picture)
    return outcomes


def all_calls() -> list[Mapping[str, Any]]:
    pictures = {(upload.kind, upload.picture) for upload in uploads() if upload.picture}
    return [{"kind": kind, "media_sha256": picture, "outcome": "ok"} for kind, picture in pictures]


def report(outcomes: Sequence[DemoOutcome], paid: Sequence[Mapping[str, Any]] | None = None) -> Report:
    return Report(outcomes, all_calls() if paid is None else paid, seconds=20.0, starting_seconds=5.0)


def with_record(key: str, **changes: Any) -> list[DemoOutcome]:
    return [
        replace(outcome, record=outcome.record.model_copy(update=changes))
        if outcome.upload.key == key and outcome.record
        else outcome
        for outcome in all_right()
    ]


def test_a_run_in_which_everything_is_right_has_no_problems() -> None:
    fine = report(all_right())

    assert fine.problems == []
    assert totals(fine) == [
        "29 uploads: 26 captioned, 3 rejected",
        "16 captions were paid for: $0.032000, simulated; the endpoint's own log has 16 answered calls",
        "10 uploads took the caption of the same content, saving $0.020000, simulated",
        "20.0 s in all, 5.0 s of them to start the stack",
        "small local models gave these answers (PP-OCRv6 16) at the simulated prices of the models that were asked: "
        "no money was spent; CAPTIONS_ENDPOINT_URL puts a real endpoint in their place",
        "everything ended as it must",
    ]
    reported = as_json(fine)
    assert (reported["paid"], reported["cost"], reported["reused"], reported["saved"]) == (16, "0.032", 10, "0.020")
    assert reported["problems"] == []


class Kept:
    """What the demo tells its stack, instead of one."""

    def __init__(self) -> None:
        self.parameters: dict[str, str] = {}
        self.secret = ""

    def client(self, service: str) -> "Kept":
        return self

    def nested(self, stack: str, output: str) -> str:
        return output

    def put_parameter(self, *, Name: str, Value: str, **_: Any) -> None:
        self.parameters[Name] = Value

    def put_secret_value(self, *, SecretString: str, **_: Any) -> None:
        (self.secret,) = json.loads(SecretString)["demo"]


def post(url: str, event: Mapping[str, Any], secret: str) -> int:
    body, now = json.dumps(event), datetime.now(UTC)
    signature = Webhook(secret).sign("1", now, body)
    headers = {"webhook-id": "1", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body.encode(), headers), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_webhook_that_is_missing_or_signed_by_another_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_doors, "WAIT_SECONDS", 0)
    stack: Any = Kept()
    records = [outcome.record for outcome in all_right()[:1] if outcome.record]
    with demo_doors.DemoDoors(stack, {"Webhooks": demo_doors.WEBHOOKS}) as doors:
        url = tomllib.loads(stack.parameters[demo_doors.WEBHOOKS])["endpoints"]["demo"]["url"]
        event = {"data": {"asset": records[0].asset, "state": records[0].state}}
        assert [problem.partition(":")[0] for problem in doors.look(records).problems] == ["webhooks"]
        assert post(url, event, stack.secret) == 204
        assert (doors.look(records).problems, len(doors.look(records).lines)) == ((), 1)
        assert post(url, event, "whsec_" + "A" * 32) == 401
        wrong = doors.look(records)
    assert wrong.problems == ("webhooks: 1 requests had no valid signature",)
    assert tomllib.loads(stack.parameters[demo_doors.WEBHOOKS])["endpoints"]["demo"]["paused"]
    assert wrong.problems[0] in replace(report(all_right()), doors=wrong).problems
    with demo_doors.DemoDoors(stack, {"Webhooks": "/mine"}) as doors:
        assert doors.look(records) == demo_doors.DoorsSeen()


def test_nothing_says_that_a_model_answered_which_did_not() -> None:
    cells = [cell.plain for cell in demo_view._cells(right(named("osprey.jpg"), "model"))]

    assert "local/PP-OCRv6" in cells
    assert "$0.002000 simulated" in cells
    assert not any("GPT-4o" in cell for cell in cells)
    real = with_record("osprey.jpg", provenance=Provenance(model="GPT-4o", reported_model="gpt-4o-2024", cost="0.002"))
    assert real[0].record is not None
    row = rendering.row(rendering.summary(real[0].record))
    assert [cell.plain for cell in row][3:6:2] == ["gpt-4o-2024", "$0.002000"]


def test_missing_eyes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert demo_view.NO_EYES not in totals(report(all_right()))
    monkeypatch.setattr(eyes, "missing", lambda: ("rapidocr",))
    assert demo_view.NO_EYES in totals(report(all_right()))


def test_a_price_that_is_not_known_is_never_shown_as_nothing() -> None:
    some = report(with_record("speech.wav", provenance=Provenance(model="Qwen")))
    none = report([right(named("speech.wav"), "model")])
    (outcome,) = none.outcomes
    assert outcome.record is not None
    only = replace(outcome, record=outcome.record.model_copy(update={"provenance": None}))

    assert "16 captions were paid for: \u2265 $0.030000 + 1 unknown" in totals(some)[1]
    assert "1 captions were paid for: unknown" in totals(report([only]))[1]


def test_an_upload_in_another_state_is_a_problem() -> None:
    wrong = with_record("osprey.jpg", state="failed", reason=Reason(code="exhausted", message="every model failed"))

    assert "osprey.jpg is failed (every model failed), not captioned" in report(wrong).problems


def test_a_rejection_without_a_reason_or_for_another_one_is_a_problem() -> None:
    assert report(with_record("empty.jpg", reason=None)).problems == ["empty.jpg is rejected without a reason"]
    other = Reason(code="too_large", message="too large")
    assert report(with_record("empty.jpg", reason=other)).problems == [
        "empty.jpg is rejected as too_large, not as empty"
    ]


def test_a_copy_that_was_paid_for_is_a_problem() -> None:
    assert report(with_record("osprey.webp", source="model")).problems == [
        "osprey: 2 of its 5 uploads were paid for, not one (osprey.jpg, osprey.webp)"
    ]


def test_a_later_copy_paid_for_instead_of_the_earlier_ones_is_a_problem() -> None:
    wrong = [
        replace(outcome, record=outcome.record.model_copy(update={"source": source}))
        if outcome.record
        and (source := {"casa-mila.heic": "cache", "web/casa-mila.jpg": "model"}.get(outcome.upload.key))
        else outcome
        for outcome in all_right()
    ]

    assert report(wrong).problems == [
        "casa mila: web/casa-mila.jpg was paid for, although an earlier upload was captioned"
    ]


def test_a_copy_with_another_caption_is_a_problem() -> None:
    other = Result(text="something else", language="en", task="caption")

    assert report(with_record("osprey.webp", result=other)).problems == [
        "osprey: its uploads have 2 different captions"
    ]


def test_two_pictures_that_share_one_caption_are_a_problem() -> None:
    """The false match that matters: an invoice that got the caption of another."""
    assert report(with_record("invoice-b.png", source="cache")).problems == [
        "invoice b: 0 of its 1 uploads were paid for, not one (none)"
    ]


def test_an_upload_that_never_ended_or_never_arrived_is_a_problem() -> None:
    first, *others = all_right()
    lost = replace(first, record=None, problem="was still on its way when time ran out")

    assert "osprey.jpg was still on its way when time ran out" in report([lost, *others]).problems


def test_calls_that_the_records_do_not_know_of_are_a_problem() -> None:
    extra = [*all_calls(), {"kind": "image", "media_sha256": "osprey", "outcome": "ok"}]

    assert report(all_right(), extra).problems == [
        "the endpoint answered 14 image calls, not 13",
    ]
    twice = [
        {**call, "media_sha256": "osprey"} if call["media_sha256"] == "colosseum" else call for call in all_calls()
    ]
    assert report(all_right(), twice).problems == ["the endpoint was paid for 12 different image contents, not 13"]
    repair = {"role": "repair", "outcome": "ok"}
    repaired = with_record("osprey.jpg", provenance=Provenance(model="GPT-4o", cost="0.002", attempts=(repair,)))
    assert report(repaired, extra).problems == []
    assert report(all_right(), []).problems == [
        "the endpoint answered 0 image calls, not 13",
        "the endpoint answered 0 audio calls, not 2",
        "the endpoint answered 0 video calls, not 1",
    ]
    assert Report(all_right(), None, 1.0, 1.0).problems == []


def test_a_caption_of_no_words_or_no_model_is_a_problem() -> None:
    blank = Result(text="  ", language="en", task="caption")

    assert report(with_record("cityscape.jpg", result=blank)).problems == ["cityscape.jpg is captioned with no text"]
    assert report(with_record("cityscape.jpg", provenance=None)).problems == [
        "cityscape.jpg does not tell which model captioned it"
    ]
