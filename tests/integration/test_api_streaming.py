"""A picture in, its caption out as it is written: paid for once, stored like an upload's, whoever goes away."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

import captions_client as client
from captions.pipeline.caption import Worker
from captions.pipeline.streaming import Event, HeldObjects, MainText, Streaming
from captions.records.record import Reason, Record, Result
from captions.uploads.version import Upload, pad_sequencer, taken_before_its_event
from support.api import HOST, Api, api_on, path_of
from support.pipeline import BUCKET
from support.worker import Workshop


@pytest.fixture
def api(shop: Workshop) -> Iterator[Api]:
    with api_on(shop.dedupe.aws) as made:
        made.services.intake = lambda: shop.dedupe.intake
        made.services.worker = lambda: shop.worker
        yield made


def stream(api: Api, **body: Any) -> list[tuple[str, Any]]:
    """The events of a stream, in order."""
    answer = api.call("POST", "/v1/captions:stream", **body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = []
    for block in answer.text.strip().split("\n\n"):
        name, data = block.split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events


def stored(shop: Workshop, key: str, photo: bytes) -> Upload:
    answer = shop.dedupe.aws.s3.put_object(Bucket=BUCKET, Key=key, Body=photo)
    return Upload(
        bucket=BUCKET,
        key=key,
        version_id=answer["VersionId"],
        sequencer=taken_before_its_event(),
        etag=answer["ETag"].strip('"'),
        size=len(photo),
    )


def run(shop: Workshop, act: Callable[[Streaming], Any]) -> Any:
    """Run something with a Streaming on a loop of its own, to its end."""
    aws = shop.dedupe.aws

    async def whole() -> Any:
        streaming = Streaming(shop.dedupe.intake, lambda: shop.worker, aws.s3, aws.sqs)
        try:
            return await act(streaming)
        finally:
            await streaming.flush()
            await shop.worker.gateway.aclose()

    return asyncio.run(whole())


async def every(events: AsyncIterator[Event]) -> list[Event]:
    return [event async for event in events]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if event.kind == "delta")


def test_a_new_picture_is_captioned_word_by_word_and_stored_like_an_upload(
    api: Api, shop: Workshop, photo: bytes
) -> None:
    events = stream(api, files={"file": ("garden.jpg", photo)}, data={"language": "en"})
    names = [name for name, _ in events]
    assert names[0] == "delta"
    assert names[-1] == "done"
    done = events[-1][1]
    text = "".join(data["text"] for name, data in events if name == "delta")
    assert len(names) > 3
    assert done["asset"]["text"].startswith(text.strip()[:40])
    assert done["usage"]["completion_tokens"] > 0
    assert done["cost"] == done["asset"]["cost"]
    shown = api.get(f"/v1/assets/{done['asset']['id']}")
    assert (shown["state"], shown["source"]) == ("captioned", "model")
    assert shown["key"].endswith("garden.jpg")
    assert shop.dedupe.aws.heard() == [("Caption.Completed", shown["key"])]
    assert len(shop.paid()) == 1
    assert shop.jobs() == []


def test_two_pictures_sent_under_one_name_at_once_are_not_mixed_up(
    shop: Workshop, photo: bytes, other_photo: bytes
) -> None:
    """In a bucket without versions, where nothing but its content tells one from the other."""
    objects = HeldObjects(shop.dedupe.aws.s3)
    sent = {data: stored(shop, "a.jpg", data).model_copy(update={"version_id": None}) for data in (photo, other_photo)}
    for data, upload in sent.items():
        objects.hold(upload, data, {})
    assert [objects.read(upload) for upload in sent.values()] == [photo, other_photo]
    objects.drop(sent[other_photo])
    assert objects.read(sent[photo]) == photo


def test_the_event_of_a_streamed_picture_changes_nothing(shop: Workshop, photo: bytes) -> None:
    upload = stored(shop, "a.jpg", photo)
    run(shop, lambda streaming: every(streaming.caption(upload, photo, {})))
    before = shop.dedupe.record("a.jpg")
    assert before.state == "captioned"
    event = shop.dedupe.aws.event("Object Created", "a.jpg", upload.version_id or "", size=upload.size)
    assert shop.dedupe.deliver(event) == "superseded"
    assert shop.dedupe.record("a.jpg") == before
    assert shop.dedupe.upload("a.jpg", b"another") != "superseded"


@pytest.mark.parametrize("begun", ["received", "queued"])
def test_a_stream_overtakes_the_event_of_its_object_and_pays_once(shop: Workshop, photo: bytes, begun: str) -> None:
    upload, intake = stored(shop, "a.jpg", photo), shop.dedupe.intake
    known = upload.model_copy(update={"sequencer": pad_sequencer("0055AED6DCD90281E5")})
    if begun == "queued":
        intake.handle(known, until=time.monotonic() + 60)
    else:
        intake.records.accept(known, now=time.time(), due=time.time() + 60)

    events = run(shop, lambda streaming: every(streaming.caption(upload, photo, {})))
    assert {event.kind for event in events[:-1]} == {"delta"}
    assert (events[-1].kind, events[-1].record.state) == ("done", "captioned")
    assert text_of(events) == events[-1].record.result.text
    # The pipeline's own job finds that all is done.
    assert [shop.run(job) for job in shop.jobs()] == (["settled"] if begun == "queued" else [])
    assert len(shop.paid()) == 1


def test_a_worker_that_is_quicker_than_the_stream_is_watched(shop: Workshop, photo: bytes) -> None:
    upload, records = stored(shop, "a.jpg", photo), shop.dedupe.intake.records
    known = upload.model_copy(update={"sequencer": pad_sequencer("0055AED6DCD90281E5")})
    shop.dedupe.intake.handle(known, until=time.monotonic() + 60)
    clock = shop.dedupe.clock
    records.begin(known, now=clock(), lease_until=clock() + 60)

    async def watch(streaming: Streaming) -> list[Event]:
        events: list[Event] = []
        async for event in streaming.caption(upload, photo, {}):
            if not events:
                result = Result(text="A garden.", language="en", task="caption")
                records.finish(known, "captioned", now=time.time(), source="model", result=result)
            events.append(event)
        return events

    events = run(shop, watch)
    assert [event.kind for event in events] == ["waiting", "done"]
    done = events[-1]
    assert done.record.result.text == "A garden."


@pytest.mark.parametrize("state", ["captioned", "blocked"])
def test_the_end_of_a_worker_that_the_stream_found_at_work_is_reported(
    shop: Workshop, photo: bytes, state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was `deferred`, an end that says the upload goes on, of one that had ended."""
    upload, records = stored(shop, "a.jpg", photo), shop.dedupe.intake.records
    known = upload.model_copy(update={"sequencer": pad_sequencer("0055AED6DCD90281E5")})
    shop.dedupe.intake.handle(known, until=time.monotonic() + 60)
    clock = shop.dedupe.clock
    records.begin(known, now=clock(), lease_until=clock() + 60)

    async def ended_meanwhile(*_: object) -> None:
        result = Result(text="A garden.", language="en", task="caption") if state == "captioned" else None
        reason = Reason(code="refused", message="no") if state == "blocked" else None
        records.finish(known, state, now=time.time(), source="model" if result else None, result=result, reason=reason)

    monkeypatch.setattr(Worker, "send_later", ended_meanwhile)
    events = run(shop, lambda streaming: every(streaming.caption(upload, photo, {})))
    assert [event.kind for event in events] == ["done" if state == "captioned" else "ended"]
    assert events[-1].record.state == state


def test_what_was_captioned_before_is_a_hit(api: Api, shop: Workshop, photo: bytes) -> None:
    first = shop.captioned("first.jpg", photo)
    ((name, data),) = stream(api, files={"file": ("again.jpg", photo)})
    assert name == "hit"
    assert first.result is not None
    assert (data["asset"]["text"], data["asset"]["source"]) == (first.result.text, "cache")
    assert data["cost"]["dollars"] == "0"
    assert len(shop.paid()) == 1


def test_two_who_show_one_picture_pay_once(shop: Workshop, photo: bytes) -> None:
    uploads = [stored(shop, f"{number}.jpg", photo) for number in range(3)]

    async def all_at_once(streaming: Streaming) -> list[list[Event]]:
        return list(await asyncio.gather(*(every(streaming.caption(upload, photo, {})) for upload in uploads)))

    answers = run(shop, all_at_once)
    ends = sorted(events[-1].kind for events in answers)
    assert set(ends) <= {"done", "hit"}
    texts = {events[-1].record.result.text for events in answers}
    assert len(texts) == 1
    assert len(shop.paid()) == 1
    sources = sorted(str(shop.dedupe.record(f"{number}.jpg").source) for number in range(3))
    assert sources == ["cache", "cache", "model"]


def test_who_goes_away_in_the_middle_has_paid_for_an_answer_that_is_stored(shop: Workshop, photo: bytes) -> None:
    upload = stored(shop, "a.jpg", photo)

    async def leave(streaming: Streaming) -> Event:
        events = streaming.caption(upload, photo, {})
        first = await anext(events)
        await events.aclose()  # type: ignore[attr-defined] # it is a generator
        return first

    first = run(shop, leave)
    assert first.kind == "delta"
    record: Record = shop.dedupe.record("a.jpg")
    assert (record.state, record.source) == ("captioned", "model")
    assert len(shop.paid()) == 1
    answers = run(shop, lambda streaming: every(streaming.caption(stored(shop, "b.jpg", photo), photo, {})))
    assert [event.kind for event in answers] == ["hit"]


def test_a_model_that_breaks_off_is_replaced_and_what_it_said_is_void(shop: Workshop, photo: bytes) -> None:
    shop.endpoint.set_faults(
        [{"fault": "cut_stream", "model": shop.worker.settings.image_models[0], "after_pieces": 9}]
    )
    upload = stored(shop, "a.jpg", photo)
    answers = run(shop, lambda streaming: every(streaming.caption(upload, photo, {})))
    assert answers[-1].kind == "done"
    assert answers[-1].record is not None
    assert answers[-1].record.provenance is not None
    assert answers[-1].record.provenance.model == shop.worker.settings.image_models[1]
    after = [index for index, event in enumerate(answers) if event.kind == "restart"]
    words = text_of(answers[after[-1] + 1 :] if after else answers)
    assert answers[-1].record.result is not None
    assert answers[-1].record.result.text.startswith(words.strip()[:30])


def test_an_asset_that_was_uploaded_is_streamed_by_its_name(
    api: Api, shop: Workshop, photo: bytes, other_photo: bytes
) -> None:
    record = shop.captioned("a.jpg", photo)
    assert [name for name, _ in stream(api, json={"key": "a.jpg"})] == ["hit"]
    assert [name for name, _ in stream(api, json={"id": path_of(record).rpartition("/")[2]})] == ["hit"]
    shop.dedupe.upload("b.jpg", other_photo)  # on its way, and then captioned by the pipeline
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(stream, api, json={"key": "b.jpg"})
        with api.witness.aside():
            for job in shop.jobs():
                shop.run(job)
        events = watching.result(timeout=60)
    assert events[-1][0] in ("done", "hit")
    assert api.call("POST", "/v1/captions:stream", json={"key": "a.jpg"}, token="photos").status_code == 404


def test_an_asset_on_its_way_is_streamed_word_by_word_and_paid_once(api: Api, shop: Workshop, photo: bytes) -> None:
    shop.dedupe.upload("b.jpg", photo)
    events = stream(api, json={"key": "b.jpg"})
    assert {name for name, _ in events[:-1]} == {"delta"}
    assert (events[-1][0], events[-1][1]["asset"]["state"]) == ("done", "captioned")
    assert [shop.run(job) for job in shop.jobs()] == ["settled"]
    assert len(shop.paid()) == 1


def test_what_cannot_be_captioned_says_so(api: Api, speech: bytes, photo: bytes) -> None:
    for status, body in (
        (415, {"files": {"file": ("a.wav", speech)}}),
        (422, {"files": {"file": ("a.txt", b"hello")}}),
        (422, {"files": {"other": ("a.jpg", photo)}}),
        (422, {"files": {"file": ("a.jpg", photo)}, "data": {"task": "juggle"}}),
        (413, {"files": {"file": ("a.jpg", photo + bytes(5_000_000))}}),
        (415, {"content": b"<xml/>", "headers": {"Content-Type": "text/xml"}}),
        (422, {"content": b"{", "headers": {"Content-Type": "application/json"}}),
        (422, {"json": {}}),
        (404, {"json": {"key": "nothing.jpg"}}),
        (400, {"content": b"--x", "headers": {"Content-Type": "multipart/form-data"}}),
    ):
        assert api.call("POST", "/v1/captions:stream", **body).status_code == status, body.keys()
    ((name, data),) = stream(api, files={"file": ("a.jpg", photo[:3000])})
    assert (name, data["status"], data["state"]) == ("error", 409, "rejected")


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ('{"caption": "A \\"red\\" barn\\nby a lake.", "tags": ["x"]}', 'A "red" barn\nby a lake.'),
        ('```json\n{"tags": [], "caption": "A barn"}\n```', "A barn"),
        ("A barn stands by a lake. " * 10, ""),  # may yet prove to be thoughts: it is shown once it was read
        ('The user wants a caption, say {"caption": "A wolf"}. </think>{"caption": "A barn"}', "A barn"),
        ('<think>Say {"caption": "A wolf"}? No.</think>\n\n{"caption": "A barn"}', "A barn"),
        ('[THINK]A barn?[/THINK]```json\n{"caption": "A barn"}\n```', "A barn"),
        ("<think>" + "A barn stands by a lake. " * 20, ""),
        ('{"caption": "<think>A wolf? No, a barn.</think>A barn"}', "A barn"),
        ('{"caption": "<think>A wolf? It may well be a barn by a lake."}', ""),
        ('{"caption": "\\u200b<think>A wolf? It may well be a barn by a lake.</think>A barn"}', "A barn"),
        ('{"caption": "{\\"caption\\": \\"A barn\\"}"}', ""),
        ('{"caption": "<3 is painted on a red barn by a lake in the evening"}',
         "<3 is painted on a red barn by a lake in the evening"),
        ('{"caption": "A \ud83d\ude42 barn"}', "A \U0001f642 barn"),
        ('{"caption": "A \ud83d barn"}', "A  barn"),
        ('{"caption": "A \\u001b[31mred\\u202e barn"}', "A  [31mred barn"),
    ],
)  # fmt: skip
def test_the_main_text_is_read_while_its_json_is_written(answer: str, shown: str) -> None:
    words = MainText("caption")
    assert "".join(words.add(letter) for letter in answer) == shown


def test_the_client_reads_the_stream_as_types(api: Api, photo: bytes) -> None:
    async def streamed() -> tuple[list[client.Event], list[client.Event], bytes]:
        transport = httpx.ASGITransport(api.client.app)
        async with client.AsyncClient(f"http://{HOST}", token="all", transport=transport) as made:
            first = [event async for event in made.stream(photo, name="garden.jpg", language="en")]
            assert isinstance(first[-1], client.Done)
            again = [event async for event in made.stream(id=first[-1].asset.id)]
            with pytest.raises(client.InvalidError, match="WAV"):
                _ = [event async for event in made.stream(b"RIFF\x04\0\0\0WAVE")]
            return first, again, await made.thumbnail(first[-1].asset.id)

    events, (known,), thumbnail = asyncio.run(streamed())
    assert isinstance(events[-1], client.Done)
    assert sum(isinstance(event, client.Delta) for event in events) > 3
    assert isinstance(known, client.Done)
    assert (known.asset.text, known.copied, events[-1].copied) == (events[-1].asset.text, True, False)
    assert thumbnail[:4] == b"RIFF"
