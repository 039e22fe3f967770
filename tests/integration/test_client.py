"""The client on the real API: what it uploads, waits for, edits and iterates over, on a loop and without."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from werkzeug.formparser import parse_form_data

from captions.records.record import Result
from captions.uploads.version import ObjectVersion, pad_sequencer
from captions_client import (
    AsyncClient,
    ChangedMeanwhileError,
    Client,
    EtagNeededError,
    NotFoundError,
    NotSignedInError,
    StorageError,
    Uploaded,
    WaitTimeoutError,
)  # fmt: skip
from support.api import HOST, Api, api_on, path_of
from support.pipeline import BUCKET, aws_for_the_pipeline

URL = f"http://{HOST}"


class Waiting(httpx.BaseTransport):
    """The application, for a client that waits."""

    def __init__(self, app: Any) -> None:
        self.asgi = httpx.ASGITransport(app, raise_app_exceptions=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def answered() -> httpx.Response:
            request.stream = httpx.ByteStream(request.read())
            answer = await self.asgi.handle_async_request(request)
            return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())

        return asyncio.run(answered())


class Bucket(httpx.MockTransport):
    """S3's side of presigned forms and links, on moto; `refuses` is what it answers next."""

    def __init__(self, s3: Any) -> None:
        self.s3, self.refuses, self.sent = s3, list[int](), list[int]()
        super().__init__(self.take)

    def take(self, request: httpx.Request) -> httpx.Response:
        body = request.read()
        self.sent.append(len(body))
        if self.refuses:
            return httpx.Response(self.refuses.pop(), text="<Error><Code>EntityTooLarge</Code></Error>")
        if request.method == "PUT":
            query = request.url.params
            part = {"PartNumber": int(query["partNumber"]), "UploadId": query["uploadId"], "Body": body}
            key = request.url.path.removeprefix("/")
            answer = self.s3.upload_part(Bucket=BUCKET, Key=key, **part)
            return httpx.Response(200, headers={"ETag": answer["ETag"]})
        environ = {"REQUEST_METHOD": "POST", "CONTENT_TYPE": request.headers["Content-Type"],
                   "CONTENT_LENGTH": str(len(body)), "wsgi.input": BytesIO(body)}  # fmt: skip
        _, fields, files = parse_form_data(environ)
        answer = self.s3.put_object(Bucket=BUCKET, Key=fields["key"], Body=files["file"].read())
        return httpx.Response(204, headers={"x-amz-version-id": answer["VersionId"]})

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return self.take(request)


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with aws_for_the_pipeline() as aws, api_on(aws) as made:
        yield made


@pytest.fixture
def bucket(api: Api) -> Bucket:
    return Bucket(api.aws.s3)


@pytest.fixture
def client(api: Api, bucket: Bucket) -> Iterator[Client]:
    with Client(URL, token="all", transport=Waiting(api.client.app), storage_transport=bucket) as made:
        yield made


def of_many(api: Api, prefix: str) -> None:
    for number in range(5):
        api.captioned(f"{prefix}{number}.jpg")


def test_a_list_is_iterated_over_to_its_end(api: Api, client: Client) -> None:
    of_many(api, "many/")
    keys = [each.key for each in client.iterate(prefix="many/", limit=2, state=["captioned", "failed"])]
    assert keys == [f"many/{number}.jpg" for number in (4, 3, 2, 1, 0)]
    assert [each.key for each in client.iterate(prefix="none/")] == []


def test_the_later_of_two_editors_is_told_and_loses_nothing(api: Api, client: Client) -> None:
    record = api.captioned("edited.jpg")
    mine = client.get(path_of(record).rpartition("/")[2])
    theirs = client.edit(mine, "theirs")
    with pytest.raises(ChangedMeanwhileError) as raised:
        client.edit(mine, "mine")
    assert raised.value.etag == theirs.etag
    edited = client.edit(mine, "mine, having read theirs", etag=raised.value.etag, language="en-GB")
    assert (edited.text, edited.source) == ("mine, having read theirs", "human")
    assert client.undo(edited).text == "theirs"
    with pytest.raises(EtagNeededError):
        client.edit(mine.id, "blind")
    with pytest.raises(NotFoundError):
        client.get("bm8va2V5")


def test_everything_else_is_answered_in_its_shape(api: Api, client: Client) -> None:
    record = api.captioned("shape.jpg")
    id = path_of(record).rpartition("/")[2]
    assert client.status().states["unreviewed"] > 0
    assert client.catalogue().models
    assert client.costs(by="day", days=2).rows is not None
    assert client.quality(days=2) is not None
    assert client.review(n=1).items
    assert client.open(id).by == "all"
    client.close_asset(id)
    assert client.recaption(id).queued is False
    assert client.recaption(id, dry_run=False, mode="stale").queued
    assert client.redrive(path_of(api.failed("failed.jpg")).rpartition("/")[2]).queued
    page = client.assets(limit=1)
    assert client.assets(since=page.live).cursor is None
    with pytest.raises(NotFoundError):
        client.subtitles(id)
    with (
        Client(URL, token="nobody", transport=Waiting(api.client.app)) as stranger,
        pytest.raises(NotSignedInError),
    ):
        stranger.status()


def end(api: Api, key: str, version: str | None) -> None:
    """What the pipeline does with an upload: its caption is there."""
    api.made += 1
    upload = ObjectVersion(
        bucket=BUCKET, key=key, sequencer=pad_sequencer(f"{api.made:08X}"), size=7, version_id=version
    )
    api.now[0] += 1
    api.records.accept(upload, now=api.now[0], due=api.now[0] + 60)
    record = api.records.get(upload.asset)
    assert record is not None
    result = Result(text=f"of {version}", language="en", task="caption")
    assert api.records.finish(record.upload, "captioned", now=api.now[0], source="model", result=result) is not None


def test_what_is_uploaded_is_in_the_bucket_and_waited_for_in_its_own_version(
    api: Api, client: Client, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "größe.jpg"
    path.write_bytes(b"first")
    uploaded = client.upload(path, key="wait/a.jpg", context={"title": "Größe"}, language="en")
    assert api.aws.s3.get_object(Bucket=BUCKET, Key=uploaded.key)["Body"].read() == b"first"
    with pytest.raises(WaitTimeoutError) as late:
        client.wait(uploaded, timeout=0)
    assert late.value.state is None
    end(api, uploaded.key, uploaded.version_id)
    assert client.wait(uploaded).text == f"of {uploaded.version_id}"
    with path.open("rb") as file:
        again = client.upload(file, key="wait/a.jpg")
    assert again.version_id != uploaded.version_id
    with pytest.raises(WaitTimeoutError):  # what was there before is no answer
        client.wait(again, timeout=0)
    monkeypatch.setattr("captions_client.client.sleep", lambda seconds: end(api, again.key, again.version_id))
    assert client.wait(again).version_id == again.version_id
    bucket.refuses = [400]
    with pytest.raises(StorageError, match="EntityTooLarge"):
        client.upload(path)
    bucket.refuses = [503]  # once, and then no more
    assert client.upload(path).version_id


def test_a_large_file_goes_in_parts_and_one_that_fails_leaves_none(api: Api, client: Client, bucket: Bucket) -> None:
    size = 2 * 16 * 1_048_576 + 5
    whole = bytes(bytearray(range(256)) * (size // 256 + 1))[:size]
    uploaded = client.upload(whole, name="long.wav", media_type="audio/wav")
    assert bucket.sent == [16 * 1_048_576, 16 * 1_048_576, 5]
    head = api.aws.s3.head_object(Bucket=BUCKET, Key=uploaded.key)
    assert (head["ContentLength"], head["VersionId"]) == (size, uploaded.version_id)
    bucket.refuses = [400]
    with pytest.raises(StorageError):
        client.upload(whole, name="long.wav")
    assert "Uploads" not in api.aws.s3.list_multipart_uploads(Bucket=BUCKET)


def on_a_loop(app: Any, bucket: Bucket, act: Callable[[AsyncClient], Awaitable[Any]]) -> Any:
    async def whole() -> Any:
        async with AsyncClient(URL, token="all", transport=httpx.ASGITransport(app), storage_transport=bucket) as made:
            return await act(made)

    return asyncio.run(whole())


async def every(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


def test_the_client_on_a_loop_does_the_same(api: Api, bucket: Bucket) -> None:
    of_many(api, "loop/")

    async def act(client: AsyncClient) -> None:
        keys = [each.key for each in await every(client.iterate(prefix="loop/", limit=3))]
        assert len(keys) == 5
        uploaded = await client.upload(b"some bytes", name="a.jpg")
        assert isinstance(uploaded, Uploaded)
        await asyncio.to_thread(end, api, uploaded.key, uploaded.version_id)
        asset = await client.wait(uploaded)
        assert (await client.accept(asset)).reviewed == "accepted"
        with pytest.raises(ChangedMeanwhileError):
            await client.edit(asset, "too late")
        bucket.refuses = [400]
        with pytest.raises(StorageError):
            await client.upload(bytes(17 * 1_048_576), name="b.wav")

    on_a_loop(api.client.app, bucket, act)
    assert "Uploads" not in api.aws.s3.list_multipart_uploads(Bucket=BUCKET)
