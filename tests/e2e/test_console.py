"""The console in a real browser, on the local stack with its real API and functions."""

import base64
import io
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from captions_api.own_table import OwnTable
from PIL import Image

from captions import control_table
from captions.aws.dynamodb import to_item
from captions.bulk.batch_table import BatchTable
from captions.bulk.protocol import Batch
from captions.cost import Cost
from captions.quality.cells import Cell
from captions.timestamps import timestamp
from captions_cli.demo_uploads import media
from captions_cli.local import LocalStack
from captions_cli.local.child_server import ChildServer
from captions_cli.local.options import ModelOptions, WorkerOptions
from support.browser import SITE, WAIT_MS, browsing, chromium, complaints, findings, keep_screenshot
from support.sign_in import CLIENT_ID, Gateway, gateway, user_pool
from support.small_stack import eventually

pytestmark = pytest.mark.timeout(400)

ROOT = Path(__file__).parents[2]
PHOTOS = ("roman-colosseum.jpg", "tea-gardens.jpg", "singaporean-cityscape.jpg", "casa-mila.jpg")
HOSTILE_KEY = "evil/<img src=x onerror=alert(1)>\u202egpj.jpg"
HOSTILE_TEXT = "<script>alert(1)</script><b>bold</b> \u202edesrever\u202c \u0007 &amp; \u200bend"
LONG_KEY = "long/" + "k" * 1000 + ".jpg"
VIEWPORT: Any = {"width": 1440, "height": 900}
LOOK: dict[str, Any] = {"color_scheme": "light", "reduced_motion": "reduce"}


def id_of(stack: LocalStack, key: str) -> str:
    named = f"{stack.outputs['MediaBucketName']}/{key}".encode()
    return base64.urlsafe_b64encode(named).decode().rstrip("=")


def pictures(count: int) -> Iterator[bytes]:
    """Different pictures: parts of the demo's photos."""
    for index in range(count):
        with Image.open(io.BytesIO(media(PHOTOS[index % len(PHOTOS)]))) as photo:
            width, height = photo.width // 2, photo.height // 2
            left, top = [(0, 0), (width, 0), (0, height), (width, height)][index // len(PHOTOS)]
            part = photo.convert("RGB").crop((left, top, left + width, top + height))
        out = io.BytesIO()
        part.save(out, "JPEG", quality=90)
        yield out.getvalue()


class Site:
    """The stack and its API, as a program uses it."""

    def __init__(self, stack: LocalStack) -> None:
        assert stack.api is not None
        self.stack = stack
        self.url, self.token = stack.api.url, stack.api.token

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Ask the API; returns what it answers."""
        sent_headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json", **headers}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/v1/{path}", data, sent_headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    @contextmanager
    def faults(self, faults: list[dict[str, Any]]) -> Iterator[None]:
        """Have the model endpoint do as faults say, until the block ends."""
        url = self.stack.endpoint_url.removesuffix("/v1") + "/_local/faults"

        def put(value: Any) -> None:
            data = json.dumps(value).encode()
            headers = {"Content-Type": "application/json"}
            urllib.request.urlopen(urllib.request.Request(url, data, headers, method="PUT")).close()

        put(faults)
        try:
            yield
        finally:
            put([])

    def asset(self, key: str) -> Any:
        """What is known of an upload."""
        return self.call("GET", f"assets/{id_of(self.stack, key)}")

    def edit(self, key: str, text: str) -> Any:
        """Put words in a caption's place."""
        etag = self.asset(key)["etag"]
        return self.call("PATCH", f"assets/{id_of(self.stack, key)}", {"text": text}, **{"If-Match": etag})

    def put(self, files: dict[str, bytes]) -> None:
        """Upload files and wait until each has ended."""
        s3, bucket = self.stack.client("s3"), self.stack.outputs["MediaBucketName"]
        for key, body in files.items():
            s3.put_object(Bucket=bucket, Key=key, Body=body)

        def ended() -> bool:
            items = self.call("GET", "assets?limit=200")["items"]
            return set(files) <= {item["key"] for item in items if item["completed_at"]}

        eventually(ended, 120)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    chromium()
    directory = tmp_path_factory.mktemp("console")
    with LocalStack(
        ROOT / "template.yaml",
        state_dir=directory,
        serve_api=True,
        parameters={"Search": "words", "SearchDelaySeconds": "1"},
        model=ModelOptions(latency_scale=0.02),
        workers=WorkerOptions(maximum=1),  # of each function: there is more to look at than to work on
    ) as stack:
        site = Site(stack)
        files = {f"photos/{index:02}.jpg": body for index, body in enumerate(pictures(14))}
        whole = media("perched-osprey.jpg")
        site.put({**files, HOSTILE_KEY: whole, LONG_KEY: media("code-screenshot.png")})
        site.put({"speech.wav": media("block-books.wav"), "clip.webm": media("rabbit.webm"), "cut.jpg": whole[:20_000]})
        site.put({"copies/osprey.jpg": whole})
        site.edit(HOSTILE_KEY, HOSTILE_TEXT)
        yield site


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing() as browser:
        yield browser


def open_window(browser: Any) -> Any:
    """A window that nobody has used yet."""
    context = browser.new_context(**LOOK, viewport=VIEWPORT)
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.complaints = complaints(page)
    return page


def enter(browser: Any, site: Site) -> Any:
    """A person's own window, signed in with the address that `captions up` prints."""
    page = open_window(browser)
    page.goto(f"{site.url}/?token={site.token}")
    page.wait_for_selector("main h1")
    assert "token" not in page.url
    return page


@pytest.fixture(scope="module")
def window(browser: Any, site: Site) -> Iterator[Any]:
    """One window for all tests that need no second person: to open another takes as long as to load two pages."""
    page = enter(browser, site)
    yield page
    page.context.close()


@pytest.fixture
def looked_at(window: Any) -> Iterator[Any]:
    """The window as the last test left it, but for what that began to write."""
    window.complaints.clear()
    window.evaluate("sessionStorage.clear()")
    yield window
    assert window.complaints == []


@pytest.fixture
def page(window: Any) -> Iterator[Any]:
    """The console just loaded, at a page that asks the API for little; nothing is left of other tests."""
    window.evaluate("sessionStorage.clear(); localStorage.clear(); location.hash = '#/now'")
    window.emulate_media(**LOOK)
    window.set_viewport_size(VIEWPORT)
    window.complaints.clear()
    window.reload()
    window.wait_for_selector(".place")
    yield window
    window.unroute_all()
    assert window.complaints == []


def address(site: Site, name: str) -> str:
    """The hash of one of the console's pages."""
    return re.sub(r"\{(.+)\}", lambda key: id_of(site.stack, key[1]), PAGES[name][0])


def load(page: Any, site: Site, name: str) -> None:
    """Load the console at the address of one of its pages."""
    page.emulate_media(**LOOK)
    page.set_viewport_size(VIEWPORT)
    page.evaluate("hash => { location.hash = hash }", address(site, name))
    page.reload()
    page.wait_for_selector(PAGES[name][1])


def go(page: Any, hash: str, ready: str) -> None:
    """Follow a link within the console, and wait for what shows that it is there."""
    page.evaluate("hash => { location.hash = hash }", hash)
    page.wait_for_selector(ready)


def until(page: Any, holds: str) -> None:
    """Wait until an expression holds (the page's policy forbids Playwright's own way to do that)."""
    eventually(lambda: page.evaluate(holds), WAIT_MS / 1000)


def drop(page: Any, name: str, body: bytes, media_type: str = "image/jpeg") -> None:
    """Drag a file onto the page and let it go."""
    carried = page.evaluate_handle(
        """([name, text, type]) => {
            const data = new DataTransfer();
            data.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name, {type}));
            return data;
        }""",
        [name, base64.b64encode(body).decode(), media_type],
    )
    page.dispatch_event("main", "dragenter", {"dataTransfer": carried})
    page.wait_for_selector(".drop")
    page.dispatch_event("main", "drop", {"dataTransfer": carried})


def test_a_dropped_picture_goes_up_and_its_caption_arrives_by_itself(page: Any, site: Site) -> None:
    go(page, "#/", "a.card")
    page.evaluate("window.same = true")
    body = next(iter(pictures(1)))
    with Image.open(io.BytesIO(body)) as part:
        out = io.BytesIO()
        part.rotate(31, expand=True).save(out, "JPEG")
    drop(page, "dropped ☂.jpg", out.getvalue())
    card = page.locator("a.card", has_text="dropped ☂")
    card.wait_for()
    card.locator(".confidence").wait_for()
    assert page.evaluate("window.same"), "the page was loaded again"
    page.locator("main [role=status]", has_text="1 upload ended").wait_for(state="attached")
    key = card.locator(".name").text_content()
    asset = site.asset(key)
    assert asset["text"].startswith(card.locator(".said").text_content().rstrip("…")[:80])
    assert asset["media_type"] == "image/jpeg"
    keep_screenshot(page, "gallery")


def test_what_cannot_be_uploaded_says_so(page: Any) -> None:
    go(page, "#/", "a.card")
    drop(page, "empty.jpg", b"")
    page.locator(".toast.bad", has_text="empty.jpg was not uploaded").wait_for()
    # The API said no, which the browser notes; nothing else went wrong.
    page.complaints[:] = [text for text in page.complaints if "status of 422" not in text]


def test_an_old_address_tells_where_the_new_one_is(browser: Any, site: Site) -> None:
    context = browser.new_context()
    page = context.new_page()
    assert page.goto(f"{site.url}/?token=old").status == 401
    assert "captions console" in page.locator("main").inner_text()
    assert findings(page) == []
    context.close()


@pytest.mark.deep
def test_what_is_not_there_cannot_be_tried_again(page: Any, site: Site) -> None:
    go(page, f"#/asset/{id_of(site.stack, 'nothing.jpg')}", "text=There is no such asset.")
    assert page.get_by_role("button", name="Try again").count() == 0
    page.complaints[:] = [text for text in page.complaints if "status of 404" not in text]


def test_a_search_and_filters_narrow_the_gallery(page: Any) -> None:
    go(page, "#/", "a.card")
    page.keyboard.press("/")
    page.keyboard.type("speech.wav")
    until(page, "document.querySelectorAll('a.card').length === 1")
    assert "q=speech.wav" in page.url
    go(page, "#/?state=rejected", "a.card >> text=cut.jpg")
    assert page.locator("a.card").count() == 1
    go(page, "#/?q=nothing+has+this", "text=Nothing matches")


def test_captions_are_searched_by_their_words(page: Any, site: Site) -> None:
    eventually(lambda: HOSTILE_KEY in [item["key"] for item in site.call("GET", "search?q=bold")["items"]])
    go(page, "#/", "a.card")
    page.keyboard.press("g")
    page.keyboard.press("s")
    page.wait_for_selector("text=What is to be found?")
    page.keyboard.press("/")
    page.keyboard.type('"bold"')
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('a.card').length === 1")
    assert "gpj.jpg" in page.locator("a.card .name").text_content()
    page.locator("a.card").click()
    page.wait_for_selector("main h1")
    page.go_back()
    until(page, "document.querySelectorAll('a.card').length === 1")
    page.fill("input[name=prefix]", "photos/")
    page.fill("input[name=q]", "")
    page.click("main form button.primary")
    until(page, "document.querySelectorAll('a.card').length === 14")
    go(page, "#/search?q=zeppelin", "text=Nothing is like that")
    page.route("**/config.json", lambda route: route.fulfill(json={"sign_in": None, "search": False}))
    page.reload()
    page.wait_for_selector("text=captions up --parameter Search=words")
    assert page.locator("main input").count() == 0, "a search is offered that nothing answers"
    assert page.locator("main a", has_text="gallery").get_attribute("href") == "#/?q=zeppelin"


@pytest.mark.deep
def test_the_gallery_is_walked_through_with_the_keyboard(page: Any) -> None:
    go(page, "#/", "a.card")
    page.locator("a.card").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    focused = "document.activeElement.dataset.id"
    chosen = page.evaluate(focused)
    assert chosen
    page.keyboard.press("Enter")
    page.wait_for_selector(".asset h1")
    assert chosen in page.url
    page.keyboard.press("Escape")
    until(page, f"{focused} === '{chosen}'")


def test_a_recording_plays_and_its_transcript_follows(page: Any, site: Site) -> None:
    go(page, f"#/asset/{id_of(site.stack, 'speech.wav')}", "audio")
    until(page, "document.querySelector('audio').readyState >= 1")
    line = page.locator(".transcript li").first
    page.locator(".transcript button.time").first.press("Enter")
    until(page, "document.querySelector('.transcript li[aria-current=true]') !== null")
    assert line.get_attribute("aria-current") == "true"


def test_a_copy_is_shown_beside_what_it_was_copied_from(page: Any, site: Site) -> None:
    go(page, f"#/asset/{id_of(site.stack, 'copies/osprey.jpg')}", ".pair")
    assert "byte for byte" in page.locator(".pair").text_content()
    shown = "[...document.querySelectorAll('.pair img')].filter((one) => one.naturalWidth > 0).length === 2"
    until(page, shown)
    keep_screenshot(page, "asset")
    # And the other way: from the upload that was paid for to those that took its caption.
    page.locator(".pair figcaption a").press("Enter")
    page.locator(".pair figcaption", has_text="copies/osprey.jpg").wait_for()
    until(page, shown)
    assert "byte for byte" in page.locator(".pair [role=status]").text_content()
    keep_screenshot(page, "copies")


def test_two_editors_never_overwrite_each_other(browser: Any, page: Any, site: Site) -> None:
    key = "photos/13.jpg"
    other = enter(browser, site)
    for window in (page, other):
        go(window, f"#/asset/{id_of(site.stack, key)}", ".caption .big")
        window.keyboard.press("e")
        window.wait_for_selector(".editor textarea")
    page.locator("textarea").fill("Ada wrote this of the picture.")
    page.keyboard.press("Control+Enter")
    page.locator(".toast.good", has_text="Saved").wait_for()
    other.locator("textarea").fill("Ben wrote that of the picture.")
    other.keyboard.press("Control+Enter")
    conflict = other.locator(".conflict")
    conflict.wait_for()
    assert conflict.locator(".theirs").text_content() == "Ada wrote this of the picture."
    assert {entry.text_content() for entry in conflict.locator("ins").all()} >= {"Ben", "that"}
    assert other.locator("textarea").input_value() == "Ben wrote that of the picture."
    assert site.asset(key)["text"] == "Ada wrote this of the picture."
    assert findings(other) == []
    keep_screenshot(other, "conflict")
    other.keyboard.press("Control+Enter")
    other.locator(".toast.good", has_text="Saved").wait_for()
    assert site.asset(key)["text"] == "Ben wrote that of the picture."
    assert len(other.complaints) == 1
    assert "412" in other.complaints[0]
    other.context.close()


def test_words_are_about_the_caption_that_was_shown_as_they_were_begun(page: Any, site: Site) -> None:
    key = "photos/12.jpg"
    go(page, f"#/asset/{id_of(site.stack, key)}", ".caption .big")
    page.keyboard.press("e")
    page.wait_for_selector(".editor textarea")
    site.edit(key, "Ada was quicker.")
    with page.expect_response(lambda answer: answer.url.endswith(id_of(site.stack, key))):
        # As when its link has ended: the page reads the upload again under the open editor.
        page.locator(".picture img").dispatch_event("error")
    page.locator("textarea").fill("Ben wrote of what he saw.")
    page.keyboard.press("Control+Enter")
    page.locator(".conflict").wait_for()
    assert site.asset(key)["text"] == "Ada was quicker."
    assert "412" in page.complaints.pop()


def test_words_stay_while_another_caption_is_looked_at(page: Any) -> None:
    go(page, "#/review", ".judging button.primary:enabled")
    page.keyboard.press("e")
    page.locator("textarea").fill("Not yet saved.")
    strip = page.locator(".strip button")
    strip.nth(1).click()
    page.wait_for_selector(".judging button.primary:enabled")
    assert page.locator("textarea").count() == 0
    strip.nth(0).click()
    page.locator("textarea").wait_for()
    assert page.locator("textarea").input_value() == "Not yet saved."


def test_ten_captions_are_reviewed_without_a_mouse(page: Any, site: Site) -> None:
    go(page, "#/review", ".judging .big")
    seen: list[str] = []
    shown = "document.querySelector('.judging .name a').getAttribute('href').split('/').at(-1)"

    def next_one() -> str:
        """The id of what is shown, once that is another than before and can be judged."""
        until(page, f"!{json.dumps(seen)}.includes({shown})")
        page.wait_for_selector(".judging button.primary:enabled")
        seen.append(page.evaluate(shown))
        return seen[-1]

    def asset(id: str) -> Any:
        return site.call("GET", f"assets/{id}")

    def judged(count: int) -> None:
        page.locator(".judged", has_text=re.compile(rf"^{count} judged")).wait_for()

    # One key for each caption that is right: 30 a minute leave two seconds to look at each.
    for count in range(1, 9):
        key = next_one()
        page.keyboard.press("a")
        judged(count)
    key = next_one()
    before = asset(key)["text"]
    page.keyboard.press("e")
    page.wait_for_selector(".editor textarea:focus")  # a browser presses keys before the next frame is drawn
    page.keyboard.press("Control+A")
    page.keyboard.type("A person's words.")
    page.keyboard.press("Control+Enter")
    judged(9)
    assert before.split()[0] in page.locator(".difference").text_content()
    keep_screenshot(page, "review")
    page.keyboard.press("j")
    next_one()
    page.keyboard.press("a")
    judged(10)
    eventually(lambda: [asset(entry)["reviewed"] for entry in seen] == ["accepted"] * 8 + ["edited", "accepted"])
    assert asset(key)["text"] == "A person's words."
    # The last verdict is taken back, and then that on what is shown.
    page.keyboard.press("u")
    judged(9)
    until(page, f"{shown} === {json.dumps(seen[-1])}")
    page.keyboard.press("k")
    page.keyboard.press("u")
    judged(8)
    eventually(lambda: asset(key)["text"] == before)
    assert asset(seen[-1])["reviewed"] is None
    # A verdict is taken back though the API has not answered it yet.
    page.wait_for_selector(".judging button.primary:enabled")
    hasty = page.evaluate(shown)
    before_both = asset(hasty)["updated_at"]
    page.keyboard.press("a")
    page.keyboard.press("u")
    eventually(lambda: asset(hasty)["updated_at"] > before_both and asset(hasty)["reviewed"] is None)
    judged(8)


def test_what_is_being_written_outlives_a_page_that_is_loaded_again(page: Any) -> None:
    go(page, "#/review", ".judging button.primary:enabled")
    page.keyboard.press("j")
    page.wait_for_selector(".judging button.primary:enabled")
    name = page.locator(".judging .name").text_content()
    page.keyboard.press("e")
    page.locator("textarea").fill("Not yet saved.")
    page.reload()
    page.locator("textarea").wait_for()
    assert page.locator("textarea").input_value() == "Not yet saved."
    assert page.locator(".judging .name").text_content() == name
    page.locator("textarea").press("Escape")
    page.reload()
    page.wait_for_selector(".judging button.primary:enabled")
    assert page.locator("textarea").count() == 0


@pytest.mark.deep
def test_what_somebody_else_has_open_is_marked_in_review(page: Any, site: Site) -> None:
    items = site.call("GET", "review?n=50")["items"]
    dynamodb = site.stack.client("dynamodb")
    (table,) = [name for name in dynamodb.list_tables()["TableNames"] if re.search("-api$|ApiTable", name)]
    own = OwnTable(dynamodb, table)
    assets = [f"{item['bucket']}/{item['key']}" for item in items[:3]]
    for asset in assets:  # as another test's page, which is gone, may have left them
        own.close(asset, own.open(asset, "ada@example.org").by)
    own.open(assets[1], "ada@example.org")
    go(page, "#/review", ".judging button.primary:enabled")
    assert page.locator(".taken").count() == 0, "one's own is nobody else's"
    page.locator(".strip .mark.other").wait_for()
    page.keyboard.press("j")
    page.locator(".taken", has_text="ada@example.org has this open").wait_for()
    keep_screenshot(page, "review-open")
    # Who opens one that was read ahead, before this person comes to it, is marked as well.
    own.open(assets[2], "ben@example.org")
    page.keyboard.press("j")
    page.locator(".taken", has_text="ben@example.org has this open").wait_for()
    own.close(assets[1], "ada@example.org")
    own.close(assets[2], "ben@example.org")


@pytest.mark.deep
def test_a_sample_tells_how_much_it_can_say(page: Any) -> None:
    go(page, "#/review?order=random&seed=7", ".judging .big")
    assert re.search(r"sample of \d+ out of \d+ captions", page.locator(".note").text_content())
    first = page.locator(".judging .name").text_content()
    page.reload()
    page.wait_for_selector(".judging .big")
    assert page.locator(".judging .name").text_content() == first


@pytest.mark.deep
def test_what_people_edit_too_often_is_flagged_and_leads_to_its_pictures(page: Any, site: Site) -> None:
    cell = Cell("chart", "GLM-4.5V", "caption", "a-version")
    since = timestamp(time.time())
    counts = {cell.count("edited"): 30, cell.count("accepted"): 10}
    table = {"TableName": site.stack.outputs["ControlTableName"]}
    dynamodb = site.stack.client("dynamodb")
    dynamodb.put_item(**table, Item=control_table.verdicts_of_day(since[:10], "chart") | to_item(counts))
    dynamodb.put_item(**table, Item=control_table.flag(cell.id) | to_item({"since": since, **vars(cell)}))
    go(page, "#/quality", ".quality .flagged")
    row = page.locator(".quality .flagged")
    assert "75 %" in row.locator(".interval").text_content()
    assert "1 of " in page.locator(".summary").text_content()
    assert findings(page) == []
    keep_screenshot(page, "quality")
    row.locator("a").press("Enter")
    page.locator(".chosen", has_text="chart, GLM-4.5V, caption").wait_for()
    # No picture is behind these counts, which were made up; behind those of the fixture's edit there is one.
    page.wait_for_selector("text=Nothing matches")
    cells = site.call("GET", "quality")["cells"]
    asset = site.asset(HOSTILE_KEY)
    (real,) = [entry["id"] for entry in cells if entry["edited"] and entry["category"] == asset["category"]]
    go(page, f"#/?cell={real}", "a.card")
    assert any("RLOgpj.jpg" in name for name in page.locator("a.card .name").all_text_contents())
    page.click(".chosen button")
    page.locator(".chosen").wait_for(state="detached")


@pytest.mark.deep
def test_captioning_again_tells_its_cost_first(page: Any, site: Site) -> None:
    key = "photos/03.jpg"
    before = site.asset(key)["completed_at"]
    go(page, f"#/asset/{id_of(site.stack, key)}", ".caption .big")
    page.keyboard.press("r")
    offer = page.locator(".offer")
    offer.wait_for()
    assert "costs about" in offer.text_content()
    assert site.asset(key)["completed_at"] == before
    page.keyboard.press("r")
    page.locator(".toast.good", has_text="captioned again").wait_for()
    eventually(lambda: site.asset(key)["completed_at"] != before, 60)


@pytest.mark.deep
def test_a_caption_is_seen_as_it_is_written(page: Any, site: Site) -> None:
    go(page, "#/now", ".place")
    page.evaluate(
        """() => {
            window.lengths = [];
            new MutationObserver(() => {
                const length = document.querySelector('.answer .big')?.textContent.length ?? 0;
                if (length !== window.lengths.at(-1)) window.lengths.push(length);
            }).observe(document.querySelector('.answer'), {childList: true, subtree: true, characterData: true});
        }"""
    )
    # The event of an upload may be quicker than its stream: then the caption comes at once, as the pipeline ends it.
    for name in ("chelsea", "coffee", "teddy-bear", "beacon-street-sunset"):
        path = ROOT / "tests" / "media" / "photos" / f"{name}.jpg"
        page.evaluate("window.lengths = []")
        with site.faults([{"fault": "slow_drip", "delay_s": 0.1, "streamed": True}]):
            page.locator("input[type=file]").set_input_files(path)
            page.wait_for_selector(".answer.asked, .answer.writing")
            page.locator(".answer.done").wait_for()
        lengths = page.evaluate("lengths.filter((length) => length)")
        if len(lengths) > 3:
            break
    else:
        pytest.fail("no caption was seen as it was written")
    assert lengths == sorted(lengths)
    text = page.locator(".answer .big").text_content()
    assert "Written by" in page.locator(".answer .about").text_content()
    keep_screenshot(page, "now-done")
    # The same picture once more is known.
    page.locator("input[type=file]").set_input_files(path)
    page.locator(".answer .about", has_text="Copied from").wait_for()
    assert page.locator(".answer .big").text_content() == text


def test_hostile_names_and_texts_are_shown_for_what_they_are(page: Any, site: Site) -> None:
    go(page, f"#/asset/{id_of(site.stack, HOSTILE_KEY)}", ".caption .big")
    assert page.locator("h1").text_content() == "evil/<img src=x onerror=alert(1)>RLOgpj.jpg"
    shown = page.locator(".caption .big").text_content()
    assert shown == "<script>alert(1)</script><b>bold</b> RLOdesreverPDF U+0007 &amp; ZWSPend"
    assert page.locator("main script, main b >> text=bold").count() == 0
    assert {entry.text_content() for entry in page.locator(".caption .control").all()} >= {
        "RLO",
        "PDF",
        "U+0007",
        "ZWSP",
    }
    keep_screenshot(page, "hostile")
    go(page, f"#/asset/{id_of(site.stack, LONG_KEY)}", ".caption .big")
    assert page.locator("h1").text_content() == LONG_KEY
    for width in (1440, 360):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.deep
def test_a_transcript_of_a_million_characters_leaves_the_page_responsive(page: Any, site: Site) -> None:
    asset = site.asset("speech.wav")
    words = "word " * 200_000
    asset["result"]["text"] = asset["text"] = words
    asset["result"]["data"]["segments"] = [
        {"start_s": 2.0 * index, "end_s": 2.0 * index + 2, "text": words[:100], "speaker": "Speaker 1"}
        for index in range(10_000)
    ]
    page.route(re.compile(r"/v1/assets/[\w-]+$"), lambda route: route.fulfill(json=asset))
    go(page, f"#/asset/{asset['id']}", ".transcript li")
    # What is drawn is a small part of it, so that keys are answered.
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    assert page.evaluate("document.querySelector('main').textContent.length") < 200_000
    assert page.evaluate("document.querySelectorAll('main *').length") < 20_000
    page.get_by_role("button", name=re.compile("characters are left")).wait_for()


PAGES = {
    "gallery": ("#/", "a.card img"),
    "filters": ("#/?state=captioned", "#filters"),
    "asset": ("#/asset/{photos/02.jpg}", ".caption .big"),
    "copy": ("#/asset/{copies/osprey.jpg}", ".pair"),
    "speech": ("#/asset/{speech.wav}", ".transcript"),
    "video": ("#/asset/{clip.webm}", "video"),
    "rejected": ("#/asset/{cut.jpg}", ".reason"),
    "review": ("#/review", ".judging button.primary:enabled"),
    "editor": ("#/review", ".judging button.primary:enabled"),
    "costs": ("#/costs", ".cards"),
    "costs-by-model": ("#/costs?by=model", ".cards"),
    "quality": ("#/quality", "main .note"),
    "search": ("#/search?q=green", "a.card"),
    "live": ("#/live", ".tiles"),
    "now": ("#/now", ".place"),
    "keys": ("#/now", ".place"),
}


@pytest.mark.parametrize(
    "name", [n if n in ("gallery", "asset", "review") else pytest.param(n, marks=pytest.mark.deep) for n in PAGES]
)
def test_axe_finds_nothing(looked_at: Any, site: Site, name: str) -> None:
    page = looked_at
    for scheme, width in (("light", 1440), ("dark", 360)):
        if page.locator("dialog[open]").count():
            page.keyboard.press("Escape")
        page.emulate_media(**LOOK | {"color_scheme": scheme})
        page.set_viewport_size({"width": width, "height": 900})
        go(page, "#/nowhere", "text=There is no such page")  # so that all is drawn again, and what is waited for is new
        go(page, address(site, name), PAGES[name][1])
        if name == "keys":
            page.keyboard.press("?")
            page.wait_for_selector("dialog[open]")
        if name == "editor":
            page.keyboard.press("e")
            page.wait_for_selector(".editor textarea")
        assert findings(page) == [], f"{scheme}, {width} pixels wide"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{width} pixels are too few"
        keep_screenshot(page, f"{name}-{scheme}-{width}")


@pytest.mark.deep
def test_nothing_moves_for_those_who_asked_for_less_motion(looked_at: Any) -> None:
    moving = """() => {
        const spinner = document.querySelector('main').appendChild(document.createElement('span'));
        spinner.className = 'spinner';
        spinner.getBoundingClientRect();
        document.body.style.paddingLeft = '50px';
        document.body.getBoundingClientRect();
        const moving = document.getAnimations().map((each) => each.animationName ?? each.transitionProperty);
        spinner.remove();
        document.body.style.paddingLeft = '';
        return moving;
    }"""
    looked_at.emulate_media(reduced_motion="no-preference")
    assert "turn" in looked_at.evaluate(moving)
    looked_at.emulate_media(**LOOK)
    assert looked_at.evaluate(moving) == []


SPOKEN = {
    "gallery": (
        'heading "Gallery" [level=1]',
        'searchbox "Search captions, tags and names"',
        'button "Upload"',
        "status",
    ),
    "copy": ('heading "copies/osprey.jpg" [level=1]', 'img "This upload"', 'img "The upload its caption is from"'),
    "review": ('heading "Review" [level=1]', 'button "Accept a"', 'button "Edit e"', "status"),
    "costs": ('heading "Costs" [level=1]', 'combobox "Compare with"', 'columnheader "Saved by copies"', 'radio "Day"'),
    "quality": ('heading "Quality" [level=1]', 'columnheader "Share edited"', 'region "Edited share by category'),
    "live": ('heading "Live" [level=1]',),
}


@pytest.mark.deep
@pytest.mark.parametrize("name", SPOKEN)
def test_a_screen_reader_hears_what_is_there(looked_at: Any, site: Site, name: str) -> None:
    page = looked_at
    load(page, site, name)
    heard = page.locator("body").aria_snapshot()
    assert [line for line in SPOKEN[name] if line not in heard] == [], heard
    assert "navigation" in heard
    assert "main" in heard


def test_batches_are_seen_on_the_live_page_with_what_they_cost(page: Any, site: Site) -> None:
    s3, table = site.stack.client("s3"), site.stack.outputs["ControlTableName"]
    s3.create_bucket(Bucket="lines")
    batch = Batch("b" * 24, "ended", "GPT-4o", "https://e/v1", 3, 900, time.time() + 9e4, time.time(), taken=2)
    batch = replace(batch, gathered_at=time.time() - 90, spent=Cost(dollars=Decimal("0.5")), reason="expired")
    assert BatchTable(site.stack.client("dynamodb"), table, s3, "lines").form(batch, [])
    go(page, "#/live", ".tiles")
    tile = page.locator(".tile", has=page.get_by_role("heading", name="Batches"))
    shown = tile.locator("tbody tr").inner_text()
    assert [
        word for word in ("b" * 12, "GPT-4o", "expired", "2 of 3", "1 min ago", "$0.5") if word not in shown
    ] == [], shown


@pytest.mark.deep
def test_costs_are_compared_with_one_model_alone(page: Any) -> None:
    go(page, "#/costs", ".chart")
    assert page.locator(".chart text", has_text="tokens").count() == 1, "a bar alone is not written beside"
    go(page, "#/costs?by=tier", ".cards .figure")
    page.select_option("select >> nth=-1", "GPT-4o")
    card = page.locator(".figure", has_text="GPT-4o alone")
    card.locator("dd", has_text=re.compile(r"\$|tokens")).wait_for()  # its prices may not be published
    assert "baseline=GPT-4o" in page.url
    for part in ("Saved by copies", "Cost of falling back", "Paid"):
        page.locator(".figure dt", has_text=part).first.wait_for()
    page.locator(".note", has_text="simulated").wait_for()
    page.get_by_role("radio", name="Folder").check(force=True)
    page.locator("tbody th", has_text="photos/").wait_for()
    keep_screenshot(page, "costs-beside")


def test_the_page_allows_nothing_that_its_policy_need_not(site: Site) -> None:
    request = urllib.request.Request(f"{site.url}/", headers={"Authorization": f"Bearer {site.token}"})
    with urllib.request.urlopen(request) as answer:
        policy = answer.headers["Content-Security-Policy"]
        page = answer.read().decode()
    assert page == SITE.read_text()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert "unsafe" not in policy
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == "'self'"
    assert rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"


@pytest.fixture(scope="module")
def people(site: Site) -> Iterator[Gateway]:
    """The same stack's API as on AWS with `Api=cognito`: below a stage, behind an authorizer, beside a user pool."""
    function = site.stack.outputs["ApiFunctionName"]
    variables = site.stack.client("lambda").get_function_configuration(FunctionName=function)["Environment"][
        "Variables"
    ]
    with user_pool() as pool:
        environment = variables | {
            "API_AUTHORIZER": "cognito", "SIGN_IN_CLIENT_ID": CLIENT_ID, "SIGN_IN_ISSUER": pool.issuer,
            "SIGN_IN_URL": pool.url, "STACK_NAME": "", "AWS_ENDPOINT_URL": site.stack.aws_endpoint_url,
            "AWS_REGION": site.stack.region, "AWS_DEFAULT_REGION": site.stack.region, "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local", "PATH": os.environ["PATH"], "POWERTOOLS_TRACE_DISABLED": "true",
        }  # fmt: skip
        arguments = [sys.executable, "-P", "-m", "captions_api", "--port", "0", "--exit-with-parent"]
        api = ChildServer("the API", arguments, environment, site.stack.state_dir / "logs" / "people.log")
        try:
            with gateway(api.wait(), pool) as stage:
                yield stage
        finally:
            api.stop()


@pytest.fixture
def visitor(browser: Any, people: Gateway, site: Site) -> Iterator[Any]:
    """The window of somebody who has not signed in. No address and no log has a token in it."""
    pool = people.pool
    pool.people = {"ada": ("a long password", {"email": "ada@example.org", "custom:prefixes": "photos/"})}
    pool.lifetime_s, pool.twist, pool.back = 3600, {}, {}
    addresses: list[str] = []
    page = open_window(browser)
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(people.url)
    page.get_by_role("heading", name="Sign in").wait_for()
    yield page
    log = "".join(path.read_text(errors="replace") for path in (site.stack.state_dir / "logs").glob("*.log"))
    for token in pool.made:
        assert not [address for address in (*addresses, *people.seen, *pool.seen) if token in address]
        assert token not in log
    assert page.complaints == []
    page.context.close()


def sign_in(page: Any) -> None:
    """Press the button, and say who one is on the user pool's page."""
    page.get_by_role("button", name="Sign in").click()
    page.fill("input[name=username]", "ada")
    page.fill("input[name=password]", "a long password")
    page.click("button")


@pytest.mark.deep
def test_people_sign_in_and_see_what_is_theirs(visitor: Any, people: Gateway, site: Site) -> None:
    page = visitor
    for scheme, width in (("light", 1440), ("dark", 360)):
        page.emulate_media(**LOOK | {"color_scheme": scheme})
        page.set_viewport_size({"width": width, "height": 900})
        assert findings(page) == []
        keep_screenshot(page, f"sign-in-{scheme}-{width}")
    page.set_viewport_size({"width": 1440, "height": 900})
    page.evaluate("location.hash = '#/?q=photos'")
    sign_in(page)
    page.wait_for_selector("a.card img")
    assert page.url == f"{people.url}/#/?q=photos", "one comes back to where one was, without the code"
    until(page, "[...document.querySelectorAll('a.card img')].some((image) => image.naturalWidth > 0)")
    go(page, "#/", "a.card")
    names = page.locator("a.card .name").all_text_contents()
    assert names
    assert all(name.startswith("photos/") for name in names), "the claim that limits its owner counts"
    # Renewed without a word; the old refresh token is good for nothing.
    kept = page.evaluate("sessionStorage.getItem('captions-refresh')")
    page.reload()
    page.wait_for_selector("a.card")
    now = page.evaluate("sessionStorage.getItem('captions-refresh')")
    assert now != kept
    assert list(people.pool.refresh_tokens) == [now]
    assert page.evaluate("Object.values({...localStorage})") == []
    # A stream has the token too.
    go(page, "#/now", ".place")
    page.locator("input[type=file]").set_input_files(ROOT / "tests" / "media" / "photos" / "chelsea.jpg")
    page.locator(".answer.done").wait_for()
    page.get_by_role("button", name="Sign out, ada@example.org").click()
    page.get_by_role("heading", name="Sign in").wait_for()
    assert page.url == f"{people.url}/"
    assert people.pool.refresh_tokens == {}
    assert page.evaluate("sessionStorage.length") == 0


@pytest.mark.deep
def test_a_session_that_ends_loses_nothing_that_was_written(visitor: Any, people: Gateway, site: Site) -> None:
    page, key = visitor, "photos/05.jpg"
    people.pool.lifetime_s = 60  # renewed a minute before its end: by each request
    sign_in(page)
    page.wait_for_selector("a.card")
    go(page, f"#/asset/{id_of(site.stack, key)}", ".caption .big")
    page.keyboard.press("e")
    page.locator("textarea").fill("Written before the session ended.")
    people.pool.refresh_tokens.clear()
    page.keyboard.press("Control+Enter")
    dialog = page.get_by_role("dialog", name="Nobody is signed in")
    dialog.wait_for()
    assert "The session has ended" in dialog.text_content()
    assert findings(page) == []
    keep_screenshot(page, "session-ended")
    assert page.locator("textarea").input_value() == "Written before the session ended."
    site.edit(key, "Somebody else's words.")
    people.pool.lifetime_s = 3600
    sign_in(page)
    page.locator(".conflict .theirs", has_text="Somebody else's words.").wait_for()
    assert page.locator("textarea").input_value() == "Written before the session ended."
    page.locator("textarea").focus()
    page.keyboard.press("Control+Enter")
    page.locator(".toast.good", has_text="Saved").wait_for()
    assert site.asset(key)["text"] == "Written before the session ended."
    assert page.evaluate("Object.keys({...sessionStorage})") == ["captions-refresh"]
    page.complaints[:] = [text for text in page.complaints if "status of 400" not in text]  # what ended the session


FOREIGN = "no sign-in that was begun in this window"
REFUSED: tuple[tuple[dict[str, Any], dict[str, str], str], ...] = (
    ({"nonce": "another"}, {}, FOREIGN),
    ({"nonce": None}, {}, FOREIGN),
    ({"iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Other"}, {}, "of another user pool"),
    ({"aud": "another"}, {}, "of another application"),
    ({"exp": 1_000_000_000}, {}, "clock"),
    ({}, {"state": "another"}, FOREIGN),
    ({}, {"code": "used before"}, "was used before"),
    ({}, {"error": "access_denied"}, "let nobody in"),
)
"""What the pool says of its token, and leads back with; what the console says then."""


@pytest.mark.deep
def test_an_answer_that_is_not_to_this_sign_in_is_refused(visitor: Any, people: Gateway) -> None:
    # Nobody asked for these, which somebody else may have put into a link; nor do they lead anywhere else.
    for answer in ("code=stolen&state=x", "error=access_denied", "code=x&state=x&state=y"):
        visitor.goto(f"{people.url}/?{answer}&redirect_uri=https://evil.example/#https://evil.example/")
        visitor.locator("[role=alert]", has_text=FOREIGN).wait_for()
        assert visitor.url == f"{people.url}/#https://evil.example/"
    for twist, back, words in REFUSED:
        people.pool.twist, people.pool.back = twist, back
        sign_in(visitor)
        visitor.locator("[role=alert]", has_text=words).wait_for()
        assert visitor.url == f"{people.url}/"
        assert visitor.evaluate("sessionStorage.length") == 0
    people.pool.twist, people.pool.back = {}, {}
    sign_in(visitor)
    visitor.wait_for_selector("a.card")
    visitor.complaints[:] = [text for text in visitor.complaints if "status of 400" not in text]  # of the used code


def asked(people: Gateway, path: str, token: str = "", **headers: str) -> tuple[int, str]:
    """Ask without a browser; returns the status and the body."""
    given = {**({"Authorization": f"Bearer {token}"} if token else {}), **headers}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{people.url}{path}", headers=given), timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.deep
def test_only_a_token_of_this_pool_and_client_opens_more_than_the_pages(people: Gateway, site: Site) -> None:
    pool = people.pool
    assert asked(people, "/v1/assets", pool.token(**{"custom:prefixes": "photos/"}))[0] == 200
    with user_pool() as other:
        foreign = other.token(iss=pool.issuer)
    for token in (
        "", "x", foreign, pool.token(iss="https://evil.example"), pool.token(aud="another"), pool.token(exp=1),
        pool.token(aud=None, token_use="access", client_id=CLIENT_ID),
    ):  # fmt: skip
        assert asked(people, "/v1/assets", token)[0] == 401
    # The authorizer lets a token through that is none of ID: the function does not.
    status, body = asked(people, "/v1/assets", pool.token(token_use="access"))
    assert (status, json.loads(body)["type"]) == (401, "/problems/wrong-token")
    claims = json.dumps({"authorizer": {"claims": {"sub": "1", "aud": CLIENT_ID, "token_use": "id"}}})
    for path in ("/static/../v1/assets", "/static/%2e%2e/v1/assets", "/static/.%2E/healthz/../v1/assets"):
        status, body = asked(people, path, **{"X-Amzn-Request-Context": claims})
        assert status == 401, "what came by an open route is let no further"
    configuration = json.loads(asked(people, "/config.json")[1])["sign_in"]
    assert configuration == {"issuer": pool.issuer, "url": pool.url, "client_id": CLIENT_ID, "scope": "openid"}


@pytest.mark.deep
def test_a_code_is_worth_nothing_without_what_it_was_asked_with(people: Gateway, visitor: Any) -> None:
    visitor.get_by_role("button", name="Sign in").click()
    visitor.wait_for_selector("input[name=username]")
    pool = people.pool
    (address,) = [address for address in pool.seen if address.startswith("/oauth2/authorize")][-1:]
    code = "taken"
    pool.codes[code] = {**dict(parse_qsl(urlsplit(address).query)), "username": "ada"}
    given = {"grant_type": "authorization_code", "client_id": CLIENT_ID, "code": code, "code_verifier": "v" * 43,
             "redirect_uri": f"{people.url}/"}  # fmt: skip
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(f"{pool.url}/oauth2/token", urlencode(given).encode(), timeout=10)
