"""Writes that are sent twice, captions made once more, and what there is to review, over HTTP."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from captions_api.access import Caller
from captions_api.repeated_writes import REPLAYED
from captions_api.routes.review import margin_of_error

from captions.completion_events import NotDeliveredError
from captions.records.record import Record
from support.api import Api, api_on, keys, path_of
from support.pipeline import aws_for_the_pipeline


@pytest.fixture
def api() -> Iterator[Api]:
    with aws_for_the_pipeline() as aws, api_on(aws) as made:
        yield made


def test_a_write_that_is_sent_again_is_done_once_and_answered_the_same(api: Api) -> None:
    record = api.captioned("a.jpg")
    headers = {"If-Match": api.get(path_of(record))["etag"], "Idempotency-Key": "k1"}
    first = api.call("PATCH", path_of(record), json={"text": "mine"}, headers=headers)
    again = api.call("PATCH", path_of(record), json={"text": "mine"}, headers=headers)
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.content == again.content
    assert first.headers["etag"] == again.headers["etag"]
    assert (first.headers.get(REPLAYED), again.headers.get(REPLAYED)) == (None, "true")
    assert Counter(api.aws.heard())["Caption.Edited", "a.jpg"] == 1


def test_a_key_stands_for_one_request_of_one_caller(api: Api) -> None:
    for body in ({"name": "a.jpg", "size": 3}, {"name": "b.jpg", "size": 3}):
        answer = api.call("POST", "/v1/uploads", json=body, headers={"Idempotency-Key": "k"})
        assert answer.status_code == (201 if body["name"] == "a.jpg" else 422), answer.text
    other = api.call("POST", "/v1/uploads", json=body, headers={"Idempotency-Key": "k"}, token="other")
    assert other.status_code == 201
    assert api.call("POST", "/v1/uploads", json=body, headers={"Idempotency-Key": "x" * 300}).status_code == 400


def test_of_two_at_once_one_is_done(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    record = api.captioned("a.jpg")
    headers = {"If-Match": api.get(path_of(record))["etag"], "Idempotency-Key": "k"}
    begun, free = threading.Event(), threading.Event()
    accept = api.services.reviews.accept

    def slow(*given: object, **named: object) -> object:
        begun.set()
        free.wait(10)
        return accept(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(api.services.reviews, "accept", slow)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(api.call, "POST", path_of(record, "/accept"), headers=headers)
        assert begun.wait(10)
        second = api.call("POST", path_of(record, "/accept"), headers=headers)
        free.set()
        assert first.result().status_code == 200
    assert (second.status_code, second.json()["type"]) == (409, "/problems/under-way")


def test_who_may_see_less_now_is_not_answered_again(api: Api) -> None:
    mine, other = api.captioned("photos/a.jpg"), api.captioned("scans/b.jpg", "a secret")
    paths = [path_of(record, "/accept") for record in (mine, other)]
    more: list[dict[str, Any]] = [
        {"headers": {"If-Match": api.get(path_of(record))["etag"], "Idempotency-Key": record.key}}
        for record in (mine, other)
    ]
    begun = api.call("POST", "/v1/uploads/multipart", json={"key": "scans/c.jpg", "size": 3}).json()["upload"]
    parts = ("parts", {"upload": begun, "numbers": [1]}), ("complete", {"upload": begun, "parts": [
        {"number": 1, "etag": "x"}]}), ("abort", {"upload": begun})  # fmt: skip
    with api_on(api.aws, {"all": Caller("all", ("photos/",))}) as narrowed:
        assert narrowed.call("POST", paths[0], **more[0]).status_code == 200
        assert narrowed.call("POST", paths[0], **more[0]).headers[REPLAYED] == "true"
    assert api.call("POST", paths[0], **more[0]).headers[REPLAYED] == "true"  # who may see more now
    assert "a secret" in api.call("POST", paths[1], **more[1]).text
    with api_on(api.aws, {"all": Caller("all", ("photos/",))}) as narrowed:
        again = narrowed.call("POST", paths[1], **more[1])
        assert (again.status_code, again.json()["type"]) == (403, "/problems/not-yours")
        assert "secret" not in again.text
        for route, body in parts:
            assert narrowed.call("POST", f"/v1/uploads/multipart/{route}", json=body).status_code == 403, route


def test_what_failed_inside_may_be_sent_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object, **named: object) -> object:
        raise ValueError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(api.services.clients("s3"), "generate_presigned_post", broken)
        failed = api.call("POST", "/v1/uploads", json={"size": 3}, headers={"Idempotency-Key": "k"})
    assert failed.status_code == 500
    assert "broken" not in failed.text
    assert api.call("POST", "/v1/uploads", json={"size": 3}, headers={"Idempotency-Key": "k"}).status_code == 201


@pytest.mark.parametrize(
    ("method", "path", "body", "heard"),
    [("PATCH", "", {"text": " mine "}, "Caption.Edited"), ("POST", "/accept", None, "Caption.Accepted")],
)
def test_a_verdict_that_was_stored_and_not_published_is_published_by_the_next_try(
    api: Api, monkeypatch: pytest.MonkeyPatch, method: str, path: str, body: Any, heard: str
) -> None:
    record = api.captioned("a.jpg")
    headers = {"If-Match": api.get(path_of(record))["etag"]}

    def refused(record: Record) -> None:
        raise NotDeliveredError("throttled")

    with monkeypatch.context() as patch:
        patch.setattr(api.services.notifier, "reviewed", refused)
        assert api.call(method, path_of(record, path), json=body, headers=headers).status_code == 503
    assert api.call(method, path_of(record, path), json=body, headers=headers).status_code == 200
    assert (heard, "a.jpg") in api.aws.heard()
    others = {"text": "another's"}
    assert api.call("PATCH", path_of(record), json=others, headers=headers).status_code == 412


def test_an_undo_that_was_stored_and_not_published_is_published_by_the_next_try(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = path_of(api.captioned("a.jpg"))
    for text in ("one", "two"):
        api.call("PATCH", path, json={"text": text}, headers={"If-Match": api.get(path)["etag"]})
    headers = {"If-Match": api.get(path)["etag"], "Idempotency-Key": "undo"}

    def refused(record: Record) -> None:
        raise NotDeliveredError("throttled")

    with monkeypatch.context() as patch:
        patch.setattr(api.services.notifier, "undone", refused)
        assert api.call("POST", f"{path}/undo", headers=headers).status_code == 503
    api.aws.heard()
    # It is not taken for another undo, which would take the first words too.
    assert api.call("POST", f"{path}/undo", headers=headers).json()["text"] == "one"
    assert api.aws.heard() == [("Caption.Undone", "a.jpg")]
    api.call("POST", f"{path}/accept", headers={"If-Match": api.get(path)["etag"]})
    api.call("PATCH", path, json={"text": "three"}, headers={"If-Match": api.get(path)["etag"]})
    late = {"If-Match": headers["If-Match"], "Idempotency-Key": "late"}
    assert api.call("POST", f"{path}/undo", headers=late).status_code == 412


def test_an_undo_is_told_as_one_though_the_words_before_hold_again(api: Api) -> None:
    path = path_of(api.captioned("a.jpg"))
    for text in ("one", "two"):
        api.call("PATCH", path, json={"text": text}, headers={"If-Match": api.get(path)["etag"]})
    api.aws.heard()
    # An event of the first words would have the id that it had then, and receivers drop what they have.
    undone = api.call("POST", f"{path}/undo", headers={"If-Match": api.get(path)["etag"]}).json()
    assert (undone["text"], undone["reviewed"]) == ("one", "edited")
    assert api.aws.heard() == [("Caption.Undone", "a.jpg")]


def test_captioning_once_more_is_told_with_its_cost_and_done_when_asked(api: Api) -> None:
    attempt = {"model": "GLM-4.6V", "outcome": "ok", "prompt_tokens": 700, "completion_tokens": 90, "cost": "0.0001"}
    record = api.captioned("a.jpg", attempts=(attempt,), tier="easy")
    answer = api.call("POST", path_of(record, "/recaption"), json={}).json()
    assert answer["queued"] is False
    assert answer["cost"] is not None
    assert api.aws.receive(api.aws.uploads_queue) == []
    dear = api.call("POST", path_of(record, "/recaption"), json={"dry_run": False, "max_cost": "0.0000001"})
    assert (dear.status_code, dear.json()["type"]) == (409, "/problems/too-dear")
    assert api.call("POST", path_of(record, "/recaption"), json={"dry_run": False}).json()["queued"]
    (message,) = api.aws.receive(api.aws.uploads_queue)
    assert (message["reason"], message["mode"], message["seen"]) == ("recaption", "force", record.updated_at)


def test_what_failed_is_tried_again(api: Api) -> None:
    failed = api.failed("a.jpg")
    assert api.call("POST", path_of(failed, "/redrive")).json() == {"queued": True}
    (message,) = api.aws.receive(api.aws.uploads_queue)
    assert (message["reason"], message["seen"]) == ("redrive", failed.updated_at)
    captioned = api.captioned("b.jpg")
    assert api.call("POST", path_of(captioned, "/redrive")).status_code == 409
    assert api.call("POST", path_of(failed, "/recaption"), json={}).status_code == 409


def test_the_review_queue_begins_with_what_is_least_certain(api: Api) -> None:
    for key, confidence, category in (
        ("sure.jpg", 0.9, "photo"),
        ("unsure.jpg", 0.1, "document"),
        ("middling.jpg", 0.4, "photo"),
    ):
        api.captioned(key, confidence=confidence, category=category)
    api.services.reviews.accept(api.captioned("judged.jpg", confidence=0.05), now=api.now[0])
    assert keys(api.get("/v1/review")) == ["unsure.jpg", "middling.jpg", "sure.jpg"]
    assert keys(api.get("/v1/review?order=category")) == ["middling.jpg", "sure.jpg", "unsure.jpg"]
    assert keys(api.get("/v1/review?category=photo")) == ["middling.jpg", "sure.jpg"]
    first = api.get("/v1/review?n=2")
    assert keys(api.get(f"/v1/review?n=2&cursor={first['cursor']}")) == ["sure.jpg"]
    assert api.call("GET", "/v1/review?category=cats").status_code == 422


@pytest.mark.deep
def test_a_sample_is_drawn_by_its_seed_and_tells_its_margin_of_error(api: Api) -> None:
    for number in range(30):
        api.captioned(f"{number}.jpg")
    api.failed("failed.jpg")
    drawn = api.get("/v1/review?order=random&n=10&seed=one")
    assert len(set(keys(drawn))) == 10
    assert drawn["population"] == 30
    assert drawn["margin_of_error"] == margin_of_error(10, 30)
    assert api.get("/v1/review?order=random&n=10&seed=one") == drawn
    assert keys(api.get("/v1/review?order=random&n=10&seed=two")) != keys(drawn)
    # Whatever the seed, every caption is as likely to be in it.
    counts = Counter(key for seed in range(60) for key in keys(api.get(f"/v1/review?order=random&n=10&seed={seed}")))
    assert len(counts) == 30
    assert max(counts.values()) < 40


def test_a_margin_of_error_is_that_of_a_share() -> None:
    assert margin_of_error(500, None) == 0.0438
    assert margin_of_error(500, 500) == 0.0
    assert margin_of_error(0, 10) is None
    assert margin_of_error(500, 1_000_000) == pytest.approx(0.0438, abs=1e-4)


def test_a_form_sends_a_file_with_what_is_asked_about_it(api: Api) -> None:
    form = api.call(
        "POST",
        "/v1/uploads",
        json={
            "name": "d\\ir/Ü.jpg",
            "size": 3,
            "media_type": "image/jpeg",
            "task": "alt_text",
            "context": {"title": "Ü"},
        },
    ).json()
    assert form["key"].startswith("uploads/")
    assert form["key"].endswith("/Ü.jpg")
    assert form["fields"]["x-amz-meta-caption-task"] == "alt_text"
    assert form["fields"]["x-amz-meta-caption-context-title"].isascii()
    for wrong in (
        {"size": 0}, {"size": 10**12}, {"size": 3, "task": "juggle"}, {"size": 3, "language": "-"},
        {"size": 3, "media_type": "x"}, {"size": 3, "key": "${filename}"}, {"size": 3, "context": {"A B": "x"}},
        {"size": 3, "key": "a/../b.jpg"}, {"size": 3, "key": "./b.jpg"},
        {"size": 3, "key": "x" * 1_025}, {"size": 3, "context": {"title": "x" * 3_000}}, {"size": 3, "other": 1},
    ):  # fmt: skip
        assert api.call("POST", "/v1/uploads", json=wrong).status_code in (413, 422), wrong
    for name in ("..", "a/.", ""):
        assert api.call("POST", "/v1/uploads", json={"name": name, "size": 3}).json()["key"].endswith("/upload")


def test_a_large_file_of_a_long_key_is_uploaded_in_parts(api: Api) -> None:
    key = "".join(chr(0x1F300 + number) for number in range(256))
    begun = api.call("POST", "/v1/uploads/multipart", json={"key": key, "size": 20_000_000})
    answer = api.call("POST", "/v1/uploads/multipart/abort", json={"upload": begun.json()["upload"]})
    assert answer.status_code == 204, answer.text
    unreadable = {"key": "a\x01.mp4", "size": 20_000_000}
    assert api.call("POST", "/v1/uploads/multipart", json=unreadable).status_code == 422


def test_a_large_file_is_uploaded_in_parts(api: Api) -> None:
    begun = api.call("POST", "/v1/uploads/multipart", json={"key": "big.mp4", "size": 20_000_000}).json()
    assert (begun["parts"], begun["part_size"]) == (2, 16_777_216)
    upload = begun["upload"]
    links = api.call("POST", "/v1/uploads/multipart/parts", json={"upload": upload, "numbers": [1, 2]}).json()
    assert sorted(links["urls"]) == ["1", "2"]
    assert all("X-Amz-Expires=300" in url for url in links["urls"].values())
    assert api.call("POST", "/v1/uploads/multipart/abort", json={"upload": upload}, token="other").status_code == 400
    wrong = {"upload": upload, "parts": [{"number": 1, "etag": "x"}]}
    assert api.call("POST", "/v1/uploads/multipart/complete", json=wrong).status_code == 409
    uploads = api.aws.s3.list_multipart_uploads(Bucket="media")["Uploads"]
    sent = api.aws.s3.upload_part(
        Bucket="media", Key="big.mp4", UploadId=uploads[0]["UploadId"], PartNumber=1, Body=b"x" * 6_000_000
    )
    done = {"upload": upload, "parts": [{"number": 1, "etag": sent["ETag"]}]}
    assert api.call("POST", "/v1/uploads/multipart/complete", json=done).json()["key"] == "big.mp4"
    assert json.loads(api.call("POST", "/v1/uploads/multipart/abort", json={"upload": upload}).text or "{}") is not None
