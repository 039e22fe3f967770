"""Uploads: forms and links with which a browser sends media to the bucket itself."""

from __future__ import annotations

import math
import re
import secrets
from email.header import Header as MailHeader
from typing import Annotated, Any

from botocore.exceptions import ClientError
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from captions.config.policy import is_language
from captions.routing.routes import METADATA_PREFIX
from captions.tasks import TASKS
from captions_api import ids
from captions_api.access import Caller
from captions_api.dependencies import Serving, Who
from captions_api.problems import Refusal
from captions_api.services import LINK_SECONDS, Services
from captions_api.views import ApiShape

router = APIRouter(tags=["uploads"])

MOST_KEY_BYTES = 1_024
MOST_METADATA_BYTES = 2_048
"""Of all user metadata of an object (Amazon S3 user guide, "Working with object metadata")."""
PART_BYTES = 16 * 1_048_576
MOST_PARTS = 10_000
MOST_FORM_BYTES = 5 * 1_073_741_824
"""What one request may send; anything larger goes in parts (Amazon S3 user guide, "Uploading objects")."""
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,80}")
_NOT_IN_XML = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\ufffe\\uffff]")
_CONTEXT_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")


class NewUpload(BaseModel):
    """A file that is to be uploaded, and what is asked about it."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field("", max_length=1_024, description="The file's name; its key is made of it.")
    key: str | None = Field(None, max_length=1_024, description="The whole key, in place of one made of the name.")
    size: int = Field(ge=1, description="Bytes.")
    media_type: str = Field("application/octet-stream", max_length=150)
    task: str | None = Field(None, max_length=40)
    style: str | None = Field(None, max_length=40)
    language: str | None = Field(None, max_length=80)
    question: str | None = Field(None, max_length=500)
    context: dict[str, str] = Field(default_factory=dict, description="Title, description and the like, as data.")


class Form(ApiShape):
    """A form that sends the file by POST, its field `file` last."""

    id: str
    key: str
    url: str
    fields: dict[str, str]


class Parts(ApiShape):
    """A large upload that was begun: so many parts of `part_size` bytes, the last one shorter."""

    id: str
    key: str
    upload: str = Field(description="What the other calls about it take.")
    part_size: int
    parts: int


class PartLinks(ApiShape):
    """Where each part is sent by PUT; each answers with an ETag, which the end takes."""

    urls: dict[int, str]


class WantedParts(BaseModel):
    """The parts to be sent next."""

    upload: str = Field(max_length=4_000)
    numbers: Annotated[list[Annotated[int, Field(ge=1, le=MOST_PARTS)]], Field(min_length=1, max_length=100)]


class SentPart(BaseModel):
    """A part that was sent."""

    number: int = Field(ge=1, le=MOST_PARTS)
    etag: str = Field(min_length=1, max_length=100)


class SentParts(BaseModel):
    """All parts of an upload."""

    upload: str = Field(max_length=4_000)
    parts: Annotated[list[SentPart], Field(min_length=1, max_length=MOST_PARTS)]


class BegunUpload(BaseModel):
    """A large upload that was begun."""

    upload: str = Field(max_length=4_000)


class Stored(ApiShape):
    """An object that now is in the bucket."""

    id: str
    key: str
    version_id: str | None = Field(None, description="null where the bucket keeps no versions.")


@router.post("/uploads", status_code=201, summary="Upload a file")
def new_upload(stack: Serving, who: Who, wanted: NewUpload) -> Form:
    """Return a form, good for five minutes, with which a file of this size and type can be sent to the bucket."""
    key, metadata = key_of(who, wanted), metadata_of(wanted)
    _sized(stack, wanted, MOST_FORM_BYTES)
    fields = {"Content-Type": wanted.media_type, **{f"x-amz-meta-{name}": text for name, text in metadata.items()}}
    form = stack.clients("s3").generate_presigned_post(
        stack.bucket,
        key,
        Fields=dict(fields),
        Conditions=[
            *({name: text} for name, text in fields.items()),
            ["content-length-range", wanted.size, wanted.size],
        ],
        ExpiresIn=LINK_SECONDS,
    )
    return Form(id=ids.id_of(f"{stack.bucket}/{key}"), key=key, url=form["url"], fields=form["fields"])


@router.post("/uploads/multipart", status_code=201, summary="Begin a large upload")
def begin_parts(stack: Serving, who: Who, wanted: NewUpload) -> Parts:
    """Begin an upload in parts; what is neither ended nor aborted is removed after three days."""
    key, metadata = key_of(who, wanted), metadata_of(wanted)
    _sized(stack, wanted, PART_BYTES * MOST_PARTS)
    if _NOT_IN_XML.search(key):
        # S3 begins it, and says so in XML that nobody can read.
        raise Refusal(422, "invalid", "key: with such characters it cannot be uploaded in parts")
    begun = stack.clients("s3").create_multipart_upload(
        Bucket=stack.bucket, Key=key, ContentType=wanted.media_type, Metadata=metadata
    )
    return Parts(
        id=ids.id_of(f"{stack.bucket}/{key}"),
        key=key,
        upload=stack.seal.seal({"key": key, "id": begun["UploadId"]}, _purpose(who)),
        part_size=PART_BYTES,
        parts=math.ceil(wanted.size / PART_BYTES),
    )


@router.post("/uploads/multipart/parts", summary="Get links for parts")
def links_of_parts(stack: Serving, who: Who, wanted: WantedParts) -> PartLinks:
    """Return links, good for five minutes, to which parts are sent by PUT."""
    begun, s3 = _begun(stack, who, wanted.upload), stack.clients("s3")
    request = {"Bucket": stack.bucket, "Key": begun["key"], "UploadId": begun["id"]}
    return PartLinks(
        urls={
            number: s3.generate_presigned_url(
                "upload_part", Params={**request, "PartNumber": number}, ExpiresIn=LINK_SECONDS
            )
            for number in wanted.numbers
        }
    )


@router.post("/uploads/multipart/complete", summary="End a large upload")
def complete_parts(stack: Serving, who: Who, sent: SentParts) -> Stored:
    """Put the parts together; 409 where S3 does not have them."""
    begun = _begun(stack, who, sent.upload)
    parts = [
        {"PartNumber": part.number, "ETag": part.etag} for part in sorted(sent.parts, key=lambda part: part.number)
    ]
    try:
        answer = stack.clients("s3").complete_multipart_upload(
            Bucket=stack.bucket, Key=begun["key"], UploadId=begun["id"], MultipartUpload={"Parts": parts}
        )
    except ClientError as error:
        raise _not_as_said(error) from error
    version = answer.get("VersionId")
    return Stored(
        id=ids.id_of(f"{stack.bucket}/{begun['key']}"),
        key=begun["key"],
        version_id=None if version == "null" else version,
    )


@router.post("/uploads/multipart/abort", status_code=204, summary="Give a large upload up")
def abort_parts(stack: Serving, who: Who, upload: BegunUpload) -> None:
    """Remove the parts that were sent."""
    begun = _begun(stack, who, upload.upload)
    try:
        stack.clients("s3").abort_multipart_upload(Bucket=stack.bucket, Key=begun["key"], UploadId=begun["id"])
    except ClientError as error:
        raise _not_as_said(error) from error


def _purpose(caller: Caller) -> str:
    return f"upload {caller.name}"


def _begun(stack: Services, caller: Caller, upload: str) -> dict[str, str]:
    """Return the key and the id of an upload in parts; raises Refusal (400, 403)."""
    begun: dict[str, str] = stack.seal.unseal(upload, _purpose(caller))
    _own(caller, begun["key"])  # they may be limited to fewer prefixes than when it began
    return begun


def _own(caller: Caller, key: str) -> None:
    if not caller.may(key):
        raise Refusal(403, "not-yours", "this key is not under a prefix of yours")


def _not_as_said(error: ClientError) -> Exception:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    if status >= 500 or status == 403:
        return error
    return Refusal(409, "parts", f"S3 does not have these parts: {error.response.get('Error', {}).get('Code', '')}")


def key_of(caller: Caller, wanted: NewUpload) -> str:
    """Return the key of an upload; raises Refusal (403, 422)."""
    if wanted.key is not None:
        key = wanted.key
        _own(caller, key)
    else:
        name = wanted.name.replace("\\", "/").rpartition("/")[2].strip()
        name = "upload" if name in ("", ".", "..") else name
        beginning = "uploads/" if "" in caller.prefixes else caller.prefixes[0] if caller.prefixes else None
        if beginning is None:
            raise Refusal(403, "not-yours", "there is no prefix of yours to upload to")
        room = MOST_KEY_BYTES - len(beginning.encode()) - 11
        key = f"{beginning}{secrets.token_hex(5)}/{name.encode()[-room:].decode(errors='ignore')}"
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise Refusal(422, "invalid", "key: it is no text in UTF-8") from None
    # A form's key may name the file it comes with; then it would be another than was asked for.
    if not 1 <= size <= MOST_KEY_BYTES or "\x00" in key or "${filename}" in key:
        raise Refusal(422, "invalid", f"key: it has 1 to {MOST_KEY_BYTES} bytes in UTF-8, none of them zero")
    if not {".", ".."}.isdisjoint(key.split("/")):
        raise Refusal(422, "invalid", "key: no part of it is . or .., which browsers take out of a link's path")
    return key


def metadata_of(wanted: NewUpload) -> dict[str, str]:
    """Return what is asked about an upload, as its user metadata; raises Refusal (422)."""
    if wanted.task is not None and wanted.task not in TASKS:
        raise Refusal(422, "invalid", f"task: tasks are {', '.join(TASKS)}")
    if wanted.language is not None and not is_language(wanted.language):
        raise Refusal(422, "invalid", "language: it is no BCP 47 language tag")
    if not _MEDIA_TYPE.fullmatch(wanted.media_type):
        raise Refusal(422, "invalid", "media_type: it is no media type")
    asked: dict[str, Any] = {name: getattr(wanted, name) for name in ("task", "style", "language", "question")}
    for name, text in wanted.context.items():
        if not _CONTEXT_NAME.fullmatch(name):
            raise Refusal(422, "invalid", "context: names have small letters, digits and hyphens")
        asked[f"context-{name}"] = text
    metadata = {f"{METADATA_PREFIX}{name}": _encoded(text) for name, text in asked.items() if text and text.strip()}
    if sum(len(name) + len(text) for name, text in metadata.items()) > MOST_METADATA_BYTES:
        raise Refusal(422, "invalid", f"context: all that is asked takes more than {MOST_METADATA_BYTES} bytes")
    return metadata


def _encoded(text: str) -> str:
    """Return a metadata value in ASCII, as S3 itself wraps others (RFC 2047)."""
    plain = " ".join(text.encode("utf-8", "replace").decode().split())
    return plain if plain.isascii() and plain.isprintable() else MailHeader(plain, "utf-8", maxlinelen=10_000).encode()


def _sized(stack: Services, wanted: NewUpload, most: int) -> None:
    limits = stack.settings
    largest = max(limits.max_image_bytes, limits.max_audio_bytes, limits.max_video_bytes)
    if wanted.size > min(most, largest):
        raise Refusal(413, "too-large", f"it may have {min(most, largest):,} bytes", most=min(most, largest))
