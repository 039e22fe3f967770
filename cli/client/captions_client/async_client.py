"""The client for code on an event loop. `client.py`, for code that waits, is written from it by `make openapi`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Literal, Self, TypeVar, Unpack

import httpx

from captions_client import calls, models
from captions_client.async_waiting import aside, shielded, sleep
from captions_client.calls import (
    MAX_WAIT_SECONDS,
    Asking,
    AskingPicture,
    Call,
    CostsBy,
    Filters,
    SearchFilters,
    Versioned,
    wait_before_retry,
)
from captions_client.errors import (
    CaptionsError,
    ConnectionFailedError,
    NotAvailableError,
    NotFoundError,
    TooManyRequestsError,
    UnexpectedAnswerError,
    WaitTimeoutError,
)
from captions_client.events import Event, EventReader
from captions_client.media import (
    ONE_PART_BYTES,
    Media,
    Uploaded,
    form_request,
    opened,
    picture_form,
    stored,
    version_in,
)

Answer = TypeVar("Answer")

LEAST_SECONDS, LONGEST_SECONDS = 1.0, 30.0
"""Of each step of a call: to connect, to send, to answer."""
TIMEOUT = httpx.Timeout(LONGEST_SECONDS)
STREAM_TIMEOUT = httpx.Timeout(30.0, read=300.0)
"""Between two pieces of a stream: a model may take its time before the first word."""
STORAGE_TIMEOUT = httpx.Timeout(30.0, read=120.0, write=120.0)
ENDED = frozenset({"captioned", "rejected", "blocked", "failed", "deleted"})
UNDER_WAY = frozenset({"received", "queued", "waiting"})
_POLL_SECONDS = (0.25, 5.0)
"""Between two looks at an upload: the first wait, and the longest."""


def _ended(asset: models.Asset, version_id: str | None) -> bool:
    if version_id is not None and asset.version_id != version_id:
        return False  # what was under this key before
    # A later API may have states of its own.
    ended = asset.state in ENDED or (asset.state not in UNDER_WAY and asset.completed_at is not None)
    return ended and not asset.recaptioning


def _waited_for(uploaded: Uploaded | Versioned | str) -> tuple[str, str | None]:
    if isinstance(uploaded, str):
        return uploaded, None
    return uploaded.id, uploaded.version_id if isinstance(uploaded, Uploaded) else None


def _stream_request(about: dict[str, Any]) -> dict[str, Any]:
    return {"method": "POST", "url": calls.STREAM.path, "timeout": STREAM_TIMEOUT, **about}


class AsyncClient:
    """Calls the API of one stack, and waits.

    `base_url` is its address without `/v1`; `token` goes along as a bearer token, or `auth` signs requests, such as
    with Signature Version 4 where the API was deployed with `Api=iam`. What may be done again (reads; writes, under an
    Idempotency-Key) is tried up to `retries` times more where the API cannot be reached or says that it may help.
    Each method raises ProblemError by the type of its status, ConnectionFailedError and UnexpectedAnswerError.
    `transport` and `storage_transport` are httpx's, for proxies and tests. Threads may share a client.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        auth: httpx.Auth | None = None,
        retries: int = 4,
        transport: httpx.AsyncBaseTransport | None = None,
        storage_transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        headers = {"User-Agent": "captions-client", **calls.bearer(token)}
        self._retries = retries
        self._api = httpx.AsyncClient(
            base_url=base_url, headers=headers, auth=auth, timeout=TIMEOUT, transport=transport
        )
        # The bucket is somebody else: it gets neither the token nor the credentials.
        self._bucket = httpx.AsyncClient(timeout=STORAGE_TIMEOUT, transport=storage_transport)

    async def aclose(self) -> None:
        """Close its connections."""
        await self._api.aclose()
        await self._bucket.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _call(self, call: Call[Answer], until: float | None = None) -> Answer:
        return call.read(await self._send(self._api, call.request(), until))

    async def _send(
        self, http: httpx.AsyncClient, request: dict[str, Any], until: float | None = None
    ) -> httpx.Response:
        """Send a request, again where that may help, as long as it is not later than `until` (time.monotonic())."""
        tries = 0
        while True:
            tries += 1
            if until is not None:
                request["timeout"] = max(LEAST_SECONDS, min(LONGEST_SECONDS, until - time.monotonic()))
            try:
                answer, failure = await http.request(**request), None
            except (httpx.LocalProtocolError, httpx.UnsupportedProtocol) as error:
                # Nothing was sent. What is wrong with a header is not shown: it may be the token.
                raise ConnectionFailedError(f"the request cannot be sent: {type(error).__name__}") from None
            except httpx.DecodingError as error:
                raise UnexpectedAnswerError("the answer is not in the encoding that it says") from error
            except httpx.TransportError as error:
                answer, failure = None, error
            wait = wait_before_retry(tries, self._retries, answer)
            if wait is not None and (until is None or time.monotonic() + wait < until):
                await sleep(wait)
            elif answer is not None:
                return answer
            else:
                raise ConnectionFailedError(str(failure) or type(failure).__name__) from failure

    async def upload(
        self, media: Media, *, name: str | None = None, media_type: str | None = None, **asking: Unpack[Asking]
    ) -> Uploaded:
        """Upload a file into the bucket, whole or in parts; `wait` then waits for its caption.

        What is larger than 16 MiB is sent in parts and never held whole. Raises StorageError where the bucket refuses.
        """
        with opened(media, name, media_type, asking) as file:
            if file.wanted.size <= ONE_PART_BYTES:
                form = await self._call(calls.new_upload(file.wanted))
                answer = stored(await self._send(self._bucket, await aside(form_request, form, file)))
                return Uploaded(form.id, form.key, version_in(answer))
            begun = await self._call(calls.begin_parts(file.wanted))
            try:
                etags = {}
                for number in range(1, begun.parts + 1):
                    # A link each: they are good for five minutes.
                    url = calls.link_of_part(await self._call(calls.links_of_parts(begun.upload, [number])), number)
                    part = {"method": "PUT", "url": url, "content": await aside(file.part, number, begun.part_size)}
                    etags[number] = calls.etag_of_part(stored(await self._send(self._bucket, part)))
                whole = await self._call(calls.complete_parts(begun.upload, etags))
            except BaseException:
                with shielded(), suppress(CaptionsError):
                    await self._call(calls.abort_parts(begun.upload))
                raise
            return Uploaded(whole.id, whole.key, whole.version_id)

    async def wait(self, uploaded: Uploaded | Versioned | str, *, timeout: float = 600.0) -> models.Asset:  # noqa: ASYNC109 - as in `client`
        """Wait until an upload has ended, however it did: `state` says how.

        Raises WaitTimeoutError after `timeout` seconds; the upload goes on by itself.
        """
        id, version = _waited_for(uploaded)
        deadline, pause, state = time.monotonic() + timeout, _POLL_SECONDS[0], None
        while True:
            try:
                asset = await self._call(calls.get_asset(id), deadline)
                state = asset.state
                if _ended(asset, version):
                    return asset
            except NotFoundError:
                pass  # its event is on its way
            except (ConnectionFailedError, NotAvailableError, TooManyRequestsError) as error:
                if time.monotonic() + MAX_WAIT_SECONDS < deadline:
                    raise  # after all tries, and not for want of time
                raise WaitTimeoutError(id, state) from error
            if time.monotonic() + pause > deadline:
                raise WaitTimeoutError(id, state)
            await sleep(pause)
            pause = min(pause * 1.5, _POLL_SECONDS[1])

    async def stream(
        self,
        picture: Media | None = None,
        *,
        id: str | None = None,
        existing_key: str | None = None,
        name: str | None = None,
        media_type: str | None = None,
        **asking: Unpack[AskingPicture],
    ) -> AsyncIterator[Event]:
        """Caption a picture of up to 4.4 MB, or what was uploaded before, and yield the caption as it is written.

        The last event is Done. Closing the iterator closes the connection; the caption is written and stored all the
        same. Not tried again by itself. Raises ConnectionFailedError where the stream ends before Done.
        """
        if [picture, id, existing_key].count(None) != 2:
            raise ValueError("give a picture, an id or the key of what was uploaded before")
        if picture is None:
            about: dict[str, Any] = {"json": {"id": id} if id is not None else {"key": existing_key}}
        else:
            with opened(picture, name, media_type, asking) as media:
                about = await aside(picture_form, media)
        reader = EventReader()
        try:
            async with self._api.stream(**_stream_request(about)) as answer:
                if not answer.is_success:
                    await answer.aread()
                    calls.STREAM.read(answer)
                async for piece in answer.aiter_bytes():
                    for event in reader.feed(piece):
                        yield event
        except httpx.DecodingError as error:
            raise UnexpectedAnswerError("the stream is not in the encoding that it says") from error
        except httpx.TransportError as error:
            raise ConnectionFailedError(str(error) or type(error).__name__) from error
        if not reader.ended:
            raise ConnectionFailedError("the stream ended before the caption did")

    async def iterate(self, **filters: Unpack[Filters]) -> AsyncIterator[models.AssetSummary]:
        """Yield all assets of a list, newest first, a page at a time; `limit` is a page's size."""
        while True:
            page = await self.assets(**filters)
            for item in page.items:
                yield item
            cursor = calls.next_page(filters.get("cursor"), page)
            if cursor is None:
                return
            filters["cursor"] = cursor

    async def assets(self, **filters: Unpack[Filters]) -> models.Assets:
        """Return one page of assets, or, with `since` from an earlier page's `live`, what has happened since."""
        return await self._call(calls.list_assets(**filters))

    async def get(self, id: str) -> models.Asset:
        """Return everything known about an asset."""
        return await self._call(calls.get_asset(id))

    async def edit(
        self, asset: Versioned | str, text: str, *, language: str | None = None, etag: str | None = None
    ) -> models.Asset:
        """Put your words in a caption's place, which no model overwrites.

        Raises ChangedMeanwhileError where the asset is another than the one that was read. An id needs its `etag`.
        """
        return await self._call(calls.edit_asset(asset, text, language, etag))

    async def accept(self, asset: Versioned | str, *, etag: str | None = None) -> models.Asset:
        """Say that a caption is right. Raises ChangedMeanwhileError, as `edit` does."""
        return await self._call(calls.accept_asset(asset, etag))

    async def undo(self, asset: Versioned | str, *, etag: str | None = None) -> models.Asset:
        """Take the last `edit` or `accept` back. Raises ChangedMeanwhileError, as `edit` does."""
        return await self._call(calls.undo_asset(asset, etag))

    async def open(self, id: str) -> models.Opened:
        """Mark an asset as open in review for two minutes; returns who has it."""
        return await self._call(calls.open_asset(id))

    async def close_asset(self, id: str) -> None:
        """Mark an asset as closed in review."""
        await self._call(calls.close_asset(id))

    async def subtitles(self, id: str, form: Literal["vtt", "srt"] = "vtt") -> str:
        """Return a recording's words as WebVTT or SubRip."""
        return await self._call(calls.get_track(id, form))

    async def thumbnail(self, id: str) -> bytes:
        """Return a small picture of a picture, as WebP."""
        return await self._call(calls.get_thumbnail(id))

    async def recaption(
        self, id: str, *, dry_run: bool = True, mode: Literal["force", "stale"] = "force", max_cost: str | None = None
    ) -> models.Recaptioned:
        """Say what captioning an asset once more may cost, and, unless `dry_run`, have it done."""
        return await self._call(calls.recaption_asset(id, dry_run, mode, max_cost))

    async def redrive(self, id: str) -> models.Queued:
        """Send a failed or blocked upload on its way again."""
        return await self._call(calls.redrive_asset(id))

    async def review(
        self,
        *,
        order: Literal["confidence", "category", "random"] | None = None,
        category: str | None = None,
        n: int | None = None,
        cursor: str | None = None,
        seed: str | None = None,
    ) -> models.ReviewQueue:
        """Return captions that nobody has judged, the least certain first, or a random sample of all."""
        return await self._call(calls.review(order, category, n, cursor, seed))

    async def search(self, words: str, **filters: Unpack[SearchFilters]) -> models.FoundAssets:
        """Return a page of captions by their words, the newest first. NotFoundError: the stack keeps no index."""
        return await self._call(calls.search(words, **filters))

    async def status(self) -> models.Status:
        """Return queues, circuits, budgets, alarms and uploads by state."""
        return await self._call(calls.status())

    async def catalogue(self) -> models.Models:
        """Return the models and their prices."""
        return await self._call(calls.catalogue())

    async def costs(
        self, *, by: CostsBy | None = None, days: int | None = None, baseline: str | None = None
    ) -> models.Costs:
        """Return what models cost and the cache saved, of every upload of these days, 5,000 in a request.

        `baseline` is a model, to see what it alone would have cost.
        """
        answer = await self._call(calls.costs(by, days, baseline))
        while answer.cursor is not None:
            answer = await self._call(calls.costs(by, days, baseline, answer.cursor))
        return answer

    async def quality(self, *, days: int | None = None) -> models.QualityReport:
        """Return what people did with captions, by category, model and prompt."""
        return await self._call(calls.quality(days))
