"""Lists of assets, one asset, and people's verdicts, over HTTP."""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from captions_api.ids import id_of

from captions.records.record import SHARDS, Likeness
from support.api import Api, api_on, keys, path_of
from support.pipeline import BUCKET, aws_for_the_pipeline


@pytest.fixture
def api() -> Iterator[Api]:
    with aws_for_the_pipeline() as aws, api_on(aws) as made:
        yield made


def test_assets_are_listed_newest_first_what_is_on_its_way_before(api: Api) -> None:
    for name in ("a", "b", "c"):
        api.captioned(f"photos/{name}.jpg")
    api.received("photos/on-its-way.jpg")
    assert keys(api.get("/v1/assets")) == [
        "photos/on-its-way.jpg", "photos/c.jpg", "photos/b.jpg", "photos/a.jpg",
    ]  # fmt: skip


def test_pages_join_without_gaps_or_repetitions_over_many_days(api: Api) -> None:
    made = []
    for number in range(23):
        made.append(api.captioned(f"{number}.jpg").key)
        api.now[0] += 0.3 * 86_400
    listed: list[str] = []
    cursor = ""
    while True:
        page = api.get(f"/v1/assets?limit=4{cursor}")
        listed += keys(page)
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
        api.now[0] += 4.5 * 3_600  # whatever the time, some page is asked for in a day's last hour, or on the next day
    assert listed == made[::-1]


def test_a_cursor_belongs_to_its_list_and_to_its_caller(api: Api) -> None:
    for number in range(4):
        api.captioned(f"photos/{number}.jpg")
    cursor = api.get("/v1/assets?limit=2")["cursor"]
    assert api.call("GET", f"/v1/assets?limit=3&cursor={cursor}").status_code == 200
    for path, token in (
        (f"/v1/assets?limit=2&kind=image&cursor={cursor}", "all"),
        (f"/v1/assets?limit=2&cursor={cursor}", "photos"),
        (f"/v1/assets?limit=2&cursor={cursor[:-2]}xx", "all"),
        ("/v1/assets?limit=2&cursor=e30", "all"),
    ):
        answer = api.call("GET", path, token=token)
        assert (answer.status_code, answer.json()["type"]) == (400, "/problems/bad-cursor")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("state=failed", ["scans/failed.jpg"]),
        ("state=captioned&kind=image", ["photos/dog.jpg", "photos/cat.jpg", "scans/page.png"]),
        ("prefix=scans/", ["scans/failed.jpg", "scans/page.png"]),
        ("category=document", ["scans/page.png"]),
        ("model=Qwen3-VL-32B", ["scans/page.png"]),
        ("task=ocr", ["scans/page.png"]),
        ("reviewed=true", ["photos/dog.jpg"]),
        ("reviewed=false&state=captioned", ["photos/cat.jpg", "scans/page.png"]),
        ("max_confidence=0.3", ["photos/cat.jpg"]),
        ("q=DOG", ["photos/dog.jpg"]),
        ("q=pet", ["photos/cat.jpg"]),
        ("order=confidence", ["photos/cat.jpg", "scans/page.png"]),
        ("order=confidence&category=document", ["scans/page.png"]),
        ("state=deleted", []),
    ],
)
def test_lists_are_filtered(api: Api, query: str, expected: list[str]) -> None:
    about: dict[str, Any] = {"category": "document", "model": "Qwen3-VL-32B", "task": "ocr", "confidence": 0.9}
    api.captioned("scans/page.png", "an invoice", **about)
    api.captioned("photos/cat.jpg", "a cat", confidence=0.2, tags=("pet",))
    api.services.reviews.accept(api.captioned("photos/dog.jpg", "a dog"), now=api.now[0])
    api.failed("scans/failed.jpg")
    assert keys(api.get(f"/v1/assets?{query}")) == expected


def test_what_ends_is_shown_live(api: Api) -> None:
    api.captioned("before.jpg")
    api.now[0] += 60
    live = api.get("/v1/assets")["live"]
    on_its_way = api.received("moves.jpg")
    api.captioned("new.jpg")
    news = api.get(f"/v1/assets?since={live}")
    assert keys(news) == ["new.jpg", "moves.jpg"]
    assert [item["state"] for item in news["items"]] == ["captioned", on_its_way.state]


def test_however_much_ended_meanwhile_all_of_it_is_told_in_the_end(api: Api) -> None:
    live = api.get("/v1/assets")["live"]
    ended = []
    for day in range(4):  # the page was not looked at for days
        ended += [api.captioned(f"{day}/{number}.jpg").key for number in range(7)]
        api.now[0] += 86_400
    news: list[str] = []
    for _ in range(20):
        page = api.get(f"/v1/assets?limit=3&since={live}")
        news += keys(page)
        live = page["live"]
    assert news == ended


def test_a_name_is_searched_for_in_whatever_form_its_accents_are_written(api: Api) -> None:
    api.captioned("Cafe\u0301.jpg")
    api.captioned("tea.jpg", "a caf\u00e9")
    for asked in ("CAF\u00c9", "cafe\u0301"):
        assert keys(api.get("/v1/assets", params={"q": asked})) == ["tea.jpg", "Cafe\u0301.jpg"]


def test_partitions_of_the_next_day_are_looked_into_only_shortly_before_it_begins(api: Api) -> None:
    indexes: list[str | None] = []

    def note(params: dict[str, Any], **_: Any) -> None:
        indexes.append(params.get("IndexName"))

    api.aws.dynamodb.meta.events.register("provide-client-params.dynamodb.Query", note)
    api.now[0] += 2 * 86_400 - 1_800 - api.now[0] % 86_400  # half past eleven tomorrow
    live = api.get("/v1/assets")["live"]
    api.now[0] += 1_800 + 300
    ahead = api.captioned("ahead.jpg").key  # by a function whose clock is 35 minutes fast
    api.now[0] -= 1_800 + 240
    indexes.clear()
    assert keys(api.get(f"/v1/assets?since={live}")) == [ahead]
    assert indexes.count("activity") == 3 * SHARDS  # what is on its way, and two days
    api.now[0] += 12 * 3_600
    indexes.clear()
    live = api.get("/v1/assets")["live"]
    assert indexes.count("activity") == 4 * SHARDS  # what is on its way, and three days since the table was made
    indexes.clear()
    api.get(f"/v1/assets?since={live}")
    assert indexes.count("activity") == 2 * SHARDS


def test_one_asset_is_shown_with_all_that_is_known_of_it(api: Api) -> None:
    attempt = {
        "model": "GLM-4.6V", "endpoint": "e", "outcome": "ok", "status": 200, "latency_ms": 812, "prompt_tokens": 700,
        "completion_tokens": 90, "cost": "0.0001", "started_at": "2027-01-15T08:00:00.100Z", "role": "first",
    }  # fmt: skip
    record = api.captioned("photos/a.jpg", attempts=(attempt,), cost="0.0001", answered_at="2027-01-15T08:00:01Z")
    answer = api.call("GET", path_of(record))
    shown = answer.json()
    assert answer.headers["etag"] == shown["etag"]
    assert shown["text"] == shown["model_text"] == "a cat"
    assert shown["cost"] == {"dollars": "0.0001", "unpriced_tokens": 0, "uncounted_calls": 0, "exact": True}
    assert [(attempt["model"], attempt["latency_ms"], attempt["cost"]["dollars"]) for attempt in shown["attempts"]] == [
        ("GLM-4.6V", 812, "0.0001")
    ]
    assert {"received", "attempt", "answered", "ended"} == {item["what"] for item in shown["timeline"]}
    assert "X-Amz-Expires=300" in shown["media_url"]
    assert answer.headers["cache-control"] == "no-store"


def test_the_later_of_two_editors_is_told_and_overwrites_nothing(api: Api) -> None:
    record = api.captioned("a.jpg")
    seen = api.get(path_of(record))["etag"]
    first = api.call("PATCH", path_of(record), json={"text": "mine"}, headers={"If-Match": seen})
    second = api.call("PATCH", path_of(record), json={"text": "yours"}, headers={"If-Match": seen}, token="other")
    assert (first.status_code, second.status_code) == (200, 412)
    assert second.json()["etag"] == first.headers["etag"] == second.headers["etag"]
    assert api.get(path_of(record))["text"] == "mine"
    assert ("Caption.Edited", "a.jpg") in api.aws.heard()


@pytest.mark.parametrize("if_match", [None, "*"])
def test_nothing_is_written_without_saying_what_was_seen(api: Api, if_match: str | None) -> None:
    record = api.captioned("a.jpg")
    headers = {"If-Match": if_match} if if_match else {}
    for method, rest in (("PATCH", ""), ("POST", "/accept"), ("POST", "/undo")):
        answer = api.call(method, path_of(record, rest), json={"text": "x"}, headers=headers)
        assert answer.status_code == 428


def test_a_caption_is_accepted_edited_and_taken_back(api: Api) -> None:
    record = api.captioned("a.jpg")

    def do(method: str, rest: str = "", **more: Any) -> Any:
        seen = api.get(path_of(record))["etag"]
        answer = api.call(method, path_of(record, rest), headers={"If-Match": seen}, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert do("POST", "/accept")["reviewed"] == "accepted"
    edited = do("PATCH", json={"text": "ein Hund", "language": "de"})
    assert (edited["reviewed"], edited["text"], edited["language"]) == ("edited", "ein Hund", "de")
    assert (edited["model_text"], edited["source"]) == ("a cat", "human")
    assert do("POST", "/undo")["reviewed"] == "accepted"
    undone = do("POST", "/undo")
    assert (undone["reviewed"], undone["text"], undone["source"]) == (None, "a cat", "model")
    assert keys(api.get("/v1/assets?order=confidence")) == ["a.jpg"]


def test_what_somebody_else_has_open_is_marked(api: Api) -> None:
    record = api.captioned("a.jpg")
    mine, other = (api.call("POST", path_of(record, "/open"), token=token).json() for token in ("all", "other"))
    assert [(opened["by"], opened["yours"]) for opened in (mine, other)] == [("all", True), ("all", False)]
    assert api.get("/v1/assets", token="other")["items"][0]["opened_by"]["by"] == "all"
    assert api.get("/v1/assets")["items"][0]["opened_by"] is None, "one's own is nobody else's"
    assert api.call("POST", path_of(record, "/close"), token="other").status_code == 204
    assert api.get(path_of(record), token="other")["opened_by"] is not None
    assert api.get(path_of(record))["opened_by"] is None
    api.call("POST", path_of(record, "/close"))
    assert api.get(path_of(record), token="other")["opened_by"] is None
    api.call("POST", path_of(record, "/open"))
    api.now[0] += 121
    assert api.get("/v1/assets", token="other")["items"][0]["opened_by"] is None


def test_thumbnails_are_made_once(api: Api) -> None:
    from support.pipeline import MEDIA

    event = api.aws.put("a.jpg", (MEDIA / "tea-gardens.jpg").read_bytes())
    record = api.captioned("a.jpg")
    assert event["detail"]["bucket"]["name"] == BUCKET
    path = api.get(path_of(record))["thumbnail"]
    first = api.call("GET", path)
    assert (first.headers["content-type"], first.content[8:12]) == ("image/webp", b"WEBP")
    assert first.headers["cache-control"].startswith("private")
    api.aws.delete("a.jpg")
    assert api.call("GET", path).content == first.content


def test_a_video_is_shown_by_the_picture_that_its_worker_made(api: Api) -> None:
    video, other = api.captioned("a.mp4", kind="video", poster=b"WEBP"), api.captioned("b.mp4", kind="video")
    assert api.call("GET", api.get(path_of(video))["thumbnail"]).content == b"WEBP"
    assert api.get(path_of(other))["thumbnail"] is None
    api.records.delete(api.version("a.mp4"), now=api.now[0])
    assert api.call("GET", path_of(video, "/thumbnail")).status_code == 404


def test_subtitles_are_served_where_words_have_times(api: Api) -> None:
    text = [{"start_s": 0.5, "end_s": 2, "text": "Hello <b>", "speaker": None}]
    record = api.captioned("a.mp3", kind="audio", data={"segments": text}, task="transcribe")
    (vtt, srt) = api.get(path_of(record))["tracks"]
    assert "00:00:00.500 --> 00:00:02.000\nHello &lt;b&gt;" in api.call("GET", vtt["url"]).text
    assert api.call("GET", srt["url"]).text.startswith("1\n")
    assert api.call("GET", path_of(api.captioned("b.jpg"), "/tracks/captions.vtt")).status_code == 404


def test_an_asset_tells_which_uploads_took_its_caption_and_why(api: Api) -> None:
    first = api.captioned("photos/first.jpg")
    near = Likeness(
        kind="near", hash_distance=6, way="whole", luma=3.21, luma_limit=13.5, chroma=1.5, chroma_limit=18.0
    )
    copies = {
        name: api.captioned(name, source="cache", copied_from=first.asset, likeness=likeness, cost="0")
        for name, likeness in {
            "photos/exact.jpg": Likeness(kind="same_bytes", hash_distance=0),
            "photos/near.jpg": near,
            "scans/old.jpg": None,
            "photos/gone.jpg": near,
            "photos/again.jpg": near,
            "photos/edited.jpg": near,
        }.items()
    }
    api.records.delete(api.version("photos/gone.jpg"), now=api.now[0])
    api.captioned("photos/again.jpg", "another picture")
    api.services.reviews.edit(copies["photos/edited.jpg"], "my words", now=api.now[0])
    asset = api.get(path_of(first))
    assert [copy["key"] for copy in asset["copies"]] == [
        "photos/edited.jpg", "scans/old.jpg", "photos/near.jpg", "photos/exact.jpg",
    ]  # fmt: skip
    assert not asset["more_copies"]
    assert asset["copies"][1]["comparison"] is None
    assert asset["copies"][2]["comparison"] == {
        "kind": "near",
        "hash_distance": 6,
        "why": "the pictures look the same in every part that is compared: no part differs by more than 3.2 of 255 in"
        " brightness (limit 13.5) and 1.5 in colour (limit 18.0)",
    }
    # Who may see photos/ alone sees no other copy.
    own = api.get(path_of(first), token="photos")
    assert [copy["key"] for copy in own["copies"]] == ["photos/edited.jpg", "photos/near.jpg", "photos/exact.jpg"]
    copy = api.get(path_of(copies["photos/exact.jpg"]))
    assert [(event["what"], event["detail"]) for event in copy["timeline"]][-1] == (
        "copied",
        "another upload's caption",
    )
    origin = copy["copied_from"]
    assert (origin["key"], origin["comparison"]["kind"]) == ("photos/first.jpg", "same_bytes")
    listed, cursor = [], ""
    while True:
        page = api.get(f"/v1/assets?copy_of={id_of(first.asset)}&limit=1{cursor}")
        listed += keys(page)
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
    assert listed == [copy["key"] for copy in asset["copies"]]
    assert api.call("GET", f"/v1/assets?copy_of={id_of('media/scans/x.jpg')}", token="photos").status_code == 404
    for number in range(30):
        api.captioned(f"more/{number}.jpg", source="cache", copied_from=first.asset, cost="0")
    asset = api.get(path_of(first))
    assert (len(asset["copies"]), asset["more_copies"]) == (24, True)


def test_an_asset_is_shown_while_the_index_of_copies_is_being_built(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    made = api.captioned("photos/first.jpg")
    refusal: Any = {
        "Error": {"Code": "ValidationException", "Message": "Cannot read from backfilling global secondary index"}
    }

    def page(*_: Any, **__: Any) -> Any:
        raise ClientError(refusal, "Query")

    monkeypatch.setattr(api.services.listing, "page", page)
    asset = api.get(path_of(made))
    assert (asset["copies"], asset["more_copies"]) == ([], True)
