"""A picture in, its caption out as it is written: server-sent events (WHATWG HTML, "Server-sent events")."""

from __future__ import annotations

import asyncio
import json
import mimetypes
import secrets
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from captions import composition, telemetry
from captions.records.record import Record
from captions.uploads.version import Upload, taken_before_its_event
from captions_api import ids, views
from captions_api.access import Caller
from captions_api.dependencies import Serving, Who
from captions_api.problems import Refusal, not_there
from captions_api.routes.uploads import NewUpload, key_of, metadata_of
from captions_api.services import Services

if TYPE_CHECKING:
    from captions.pipeline.streaming import Event

router = APIRouter(tags=["streaming"])

MOST_BYTES = 4_400_000
"""Of a picture sent with the request: Lambda takes 6 MB, of which base64 uses a quarter (AWS Lambda, quotas). Larger
ones are uploaded first."""
_FORM_OVERHEAD = 20_000
_FIELDS = ("task", "style", "language", "question", "key", "name")
_PICTURES = frozenset(views.PICTURES)
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {"type": "string", "format": "binary", "description": "A picture."},
                    **{name: {"type": "string"} for name in _FIELDS},
                },
            }
        },
        "application/json": {"schema": {"$ref": "#/components/schemas/NamedAsset"}},
    },
}


class NamedAsset(BaseModel):
    """An asset that was uploaded before; one of both."""

    model_config = ConfigDict(extra="forbid")

    id: str | None = Field(None, max_length=1_500)
    key: str | None = Field(None, max_length=1_024)


@router.post(
    "/captions:stream",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "hit, waiting, delta, restart, done, error"}},
    openapi_extra={"requestBody": _BODY},
    summary="Caption a picture while it is watched",
)
async def stream_caption(stack: Serving, who: Who, request: Request) -> StreamingResponse:
    """Caption a picture: `hit` at once if its caption is known, else its words as they come, then `done`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        events = await _picture(stack, who, request)
    elif kind == "application/json":
        events = await _known(stack, who, request)
    else:
        raise Refusal(415, "media-type", "send a form with a `file`, or JSON with an `id` or a `key`")
    return StreamingResponse(_streamed(stack, who, events), media_type="text/event-stream", headers=_HEADERS)


async def _picture(stack: Services, who: Caller, request: Request) -> AsyncIterator[Event]:
    from captions.media import MediaError, sniff  # brings Pillow along

    data, fields = await _form(request)
    try:
        sniffed = sniff(data)
    except MediaError as error:
        raise Refusal(422, error.code, error.message) from error
    if sniffed.kind not in _PICTURES:
        raise Refusal(415, "not-a-picture", f"{sniffed.media_type} is no picture: upload it, then stream its asset")
    try:
        wanted = NewUpload(size=len(data), media_type=sniffed.media_type, **fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Refusal(422, "invalid", f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if wanted.key is None and not wanted.name:
        day = datetime.fromtimestamp(stack.now(), UTC).date().isoformat()
        extension = sniffed.media_type.partition("/")[2].partition("+")[0].removeprefix("x-")
        wanted = wanted.model_copy(update={"name": f"{day}-{secrets.token_hex(3)}.{extension}"})
    key, metadata = key_of(who, wanted), metadata_of(wanted)
    # What takes the upload is built before S3 has it: its own event may not find a cold process still loading.
    streaming = await asyncio.to_thread(stack.streaming)
    upload = await asyncio.to_thread(_stored, stack, key, data, sniffed.media_type, metadata)
    return streaming.caption(upload, data, metadata)


async def _form(request: Request) -> tuple[bytes, dict[str, str]]:
    """Read a form's picture and fields; raises Refusal (400, 413, 422)."""
    length = request.headers.get("content-length", "")
    if not length.isdigit() or int(length) > MOST_BYTES + _FORM_OVERHEAD:
        detail = f"a picture sent so may have {MOST_BYTES:,} bytes; upload larger ones, then stream their asset"
        raise Refusal(413, "too-large", detail, most=MOST_BYTES)
    try:
        async with request.form(max_files=1, max_fields=20) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise Refusal(422, "invalid", "file: the form has no picture")
            data = await file.read()
            fields = {name: value for name in _FIELDS if isinstance(value := form.get(name), str) and value}
            if file.filename and "name" not in fields:
                fields["name"] = file.filename
    except HTTPException as error:  # what Starlette makes of a broken form
        raise Refusal(400, "form", str(error.detail)) from error
    if len(data) > MOST_BYTES:
        raise Refusal(413, "too-large", f"a picture sent so may have {MOST_BYTES:,} bytes", most=MOST_BYTES)
    return data, fields


def _stored(stack: Services, key: str, data: bytes, media_type: str, metadata: Mapping[str, str]) -> Upload:
    """Put a picture into the bucket, as any upload is, and return its version, whose event has not come yet."""
    answer = stack.clients("s3").put_object(
        Bucket=stack.bucket, Key=key, Body=data, ContentType=media_type, Metadata=dict(metadata)
    )
    version = answer.get("VersionId")
    return Upload(
        bucket=stack.bucket,
        key=key,
        version_id=None if version in (None, "null") else version,
        sequencer=taken_before_its_event(),
        etag=answer["ETag"].strip('"'),
        size=len(data),
    )


async def _known(stack: Services, who: Caller, request: Request) -> AsyncIterator[Event]:
    """Return what becomes of an asset that was uploaded before."""
    from captions.pipeline.streaming import Event

    body = await request.body()
    try:
        named = NamedAsset.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Refusal(422, "invalid", f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}") from error
    if (named.id is None) == (named.key is None):
        raise Refusal(422, "invalid", "send an `id` or a `key`, and not both")
    if named.id is not None:
        given = named.id
    else:
        try:
            given = ids.id_of(f"{stack.bucket}/{named.key}")
        except UnicodeEncodeError:
            raise not_there() from None
    record = await asyncio.to_thread(stack.record, who, given)
    if not record.terminal:
        streaming = await asyncio.to_thread(stack.streaming)
        # Of what nobody has looked at yet, its name tells whether it is a picture.
        kind = record.kind or (mimetypes.guess_type(record.key)[0] or "").partition("/")[0]
        if kind in _PICTURES:
            return streaming.overtake(record)
        return streaming.watch(record.asset, record.sequencer)

    async def ended() -> AsyncIterator[Event]:
        yield Event("hit" if record.state == "captioned" else "ended", record=record)

    return ended()


async def _streamed(stack: Services, who: Caller, events: AsyncIterator[Event]) -> AsyncIterator[str]:
    """Write events as a stream; what fails on the way is its last event."""
    try:
        async for event in events:
            name, data = await asyncio.to_thread(_shown, stack, who, event)
            yield _written(name, data)
    except (ClientError, BotoCoreError):
        telemetry.logger().warning("aws_call_failed", exc_info=True)
        yield _written("error", Refusal(503, "not-available", "a service behind the API did not answer").body())
    except Exception:
        telemetry.logger().exception("stream_failed")
        telemetry.count("ApiError")
        yield _written("error", Refusal(500, "internal", "the request could not be handled; it was logged").body())
    finally:
        if stack.settings.otlp_endpoint is not None and (spans := composition.model_spans()) is not None:
            await asyncio.to_thread(spans.flush)


def _shown(stack: Services, who: Caller, event: Event) -> tuple[str, Mapping[str, Any]]:
    record = event.record
    match event.kind:
        case "waiting":
            return "waiting", {}
        case "delta":
            return "delta", {"text": event.text, "model": event.model}
        case "restart":
            return "restart", {"model": event.model}
        case "hit" | "done":
            assert record is not None
            shown = _asset(stack, record)
            return event.kind, {"asset": shown, "cost": shown["cost"], "usage": event.usage}
        case "deferred":
            about: dict[str, Any] = {"id": ids.id_of(record.asset)} if record is not None else {}
            detail = "no model can be had now; the upload goes on by itself, and its asset will tell"
            return "error", Refusal(503, "deferred", detail, **about).body()
        case "ended":
            if record is None:
                return "error", not_there().body()
            why = record.reason.message if record.reason else record.state
            about = {"id": ids.id_of(record.asset), "state": record.state}
            return "error", Refusal(409, record.reason.code if record.reason else record.state, why, **about).body()


def _asset(stack: Services, record: Record) -> dict[str, Any]:
    shown = views.asset(record, media_url=stack.link(record))
    return shown.model_dump(mode="json")


def _written(name: str, data: Mapping[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
