"""What must never leave: keys and signatures into logs and records, requests to addresses that an upload names."""

import inspect
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image, PngImagePlugin

from captions import composition, telemetry
from captions.aws.clients import client
from captions.gateway import Breakers, Endpoint, Gateway
from captions.gateway.catalogue import load
from captions.uploads.s3_objects import Objects
from captions.uploads.version import ObjectVersion
from support.serving import QuietHandler, serving
from support.worker import AUDIO_MODELS, Workshop

KEY = "sk-very-secret-0123456789"
SIGNATURE = "X-Amz-Signature"


@dataclass
class Chatterbox:
    """An endpoint that fails and repeats all it was sent: headers, body, and so key and links."""

    url: str = ""
    status: int = 400
    bodies: list[dict[str, Any]] = field(default_factory=list)
    visits: list[str] = field(default_factory=list)


@pytest.fixture
def chatterbox() -> Iterator[Chatterbox]:
    result = Chatterbox()

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            body = self.body().decode()
            result.bodies.append(json.loads(body))
            text = f"cannot use {self.headers['Authorization']} for {body[-1500:]}"
            error = json.dumps({"error": {"message": text, "code": "bad"}})
            self.answer(result.status, error, Content_Type="application/json")

        def do_GET(self) -> None:
            result.visits.append(self.path)
            self.answer(404)

        do_HEAD = do_GET

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        result.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        yield result


@pytest.fixture
def talking(shop: Workshop, chatterbox: Chatterbox, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """The worker with the key, the links and the log of the deployed functions, at that endpoint."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    shop.worker.objects = Objects(inspect.unwrap(client)("s3"))
    shop.worker.gateway = Gateway(
        endpoints=[Endpoint(chatterbox.url)],
        keys=lambda fresh: KEY,
        # A body so small that the sound goes as a link.
        catalogue=load(
            f'[endpoints."{chatterbox.url}"]\ndialect = "vllm"\n[models."{AUDIO_MODELS[0]}"]\nmax_body = 40000'
        ),
        breakers=Breakers(observe=composition._observed),
        observe=composition._observed,
    )
    return shop


@pytest.mark.parametrize("status", [400, 401, 500])
def test_neither_key_nor_signature_is_logged_or_stored(
    talking: Workshop, speech: bytes, chatterbox: Chatterbox, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    chatterbox.status, shop = status, talking
    logged = io.StringIO()
    for handler in telemetry.logger().handlers:
        handler.setStream(logged)  # type: ignore[attr-defined]
    shop.dedupe.upload("a.wav", speech)
    (job,) = shop.jobs()
    shop.run(job, seconds=20.0)

    assert SIGNATURE in json.dumps(chatterbox.bodies), "no link was sent: the test shows nothing"
    record = shop.dedupe.record("a.wav").model_dump_json()
    words = logged.getvalue() + "".join(capfd.readouterr())
    assert "attempt_failed" in words
    # Of a refused key only the status is told.
    assert status == 401 or "cannot use" in words, "the endpoint's words are not logged at all: the test shows nothing"
    for text in (words, record):
        assert KEY not in text
        assert SIGNATURE not in text
        assert "X-Amz-Credential" not in text


def test_a_link_lives_as_long_as_its_attempt_and_leads_to_one_version(
    talking: Workshop, speech: bytes, chatterbox: Chatterbox
) -> None:
    shop = talking
    shop.dedupe.upload("a.wav", speech)
    (job,) = shop.jobs()
    shop.run(job, seconds=40.0)
    parts = [part for body in chatterbox.bodies for part in body["messages"][-1]["content"]]
    links = [part["audio_url"]["url"] for part in parts if "X-Amz" in part.get("audio_url", {}).get("url", "")]
    assert links
    for link in links:
        query = parse_qs(urlsplit(link).query)
        assert query["versionId"] == [job.upload.version_id]
        assert int(query["X-Amz-Expires"][0]) <= 35, "longer than the attempt had"


def test_there_is_no_link_to_an_object_without_a_version(shop: Workshop) -> None:
    upload = ObjectVersion(bucket="media", key="a.wav", sequencer="0" * 64)
    with pytest.raises(ValueError, match="no version"):
        shop.worker.objects.link(upload, 30)


def test_no_address_that_an_upload_names_is_visited(shop: Workshop, photo: bytes, chatterbox: Chatterbox) -> None:
    lure = chatterbox.url.removesuffix("/v1") + "/lure"
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Description", f"see {lure}/text")
    notes.add_itxt("XML:com.adobe.xmp", f'<x:xmpmeta><rdf:li rdf:resource="{lure}/xmp"/></x:xmpmeta>')
    picture = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = f"{lure}/exif"  # ImageDescription
    Image.open(io.BytesIO(photo)).convert("RGB").save(picture, "PNG", pnginfo=notes, exif=exif)

    aws = shop.dedupe.aws
    metadata = {"source": f"{lure}/metadata", "title": f"{lure}/title", "url": f"{lure}/url", "description": lure}
    svg = f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{lure}/svg"/></svg>'.encode()
    playlist = f"#EXTM3U\n#EXTINF:3,\n{lure}/segment.ts\n".encode()
    files = {"a.png": picture.getvalue(), "b.svg": svg, "c.m3u8": playlist, f"{lure}/d.png": picture.getvalue()}
    for key, data in files.items():
        event = aws.put(key, data)
        answer = aws.s3.put_object(
            Bucket="media", Key=key, Body=data, Metadata=metadata, WebsiteRedirectLocation=f"{lure}/x"
        )
        event["detail"]["object"]["version-id"] = answer["VersionId"]
        shop.dedupe.deliver(event)
    jobs = shop.jobs()
    assert jobs
    shop.run_all(jobs)
    assert chatterbox.visits == []


def test_the_lure_would_be_seen(chatterbox: Chatterbox) -> None:
    import urllib.error
    import urllib.request

    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(chatterbox.url.removesuffix("/v1") + "/lure")
    assert chatterbox.visits == ["/lure"]
