"""Each operation of the API as a value: what is sent, and what its answer is read as. Both clients send these."""

from __future__ import annotations

import random
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from captions_client import models
from captions_client.errors import UnexpectedAnswerError, problem_of

Answer = TypeVar("Answer")

MAX_WAIT_SECONDS = 30.0
"""Longest wait before another try, whatever `Retry-After` says."""
_TEMPORARY = frozenset({408, 429, 500, 502, 503, 504})


CostsBy = Literal["day", "model", "tier", "task", "prefix"]


class Filters(TypedDict, total=False):
    """What a list is asked for; docs/openapi.json says what each means."""

    state: str | list[str]
    prefix: str
    kind: str
    category: str
    model: str
    task: str
    reviewed: bool
    max_confidence: float
    cell: str
    copy_of: str
    q: str
    order: Literal["newest", "confidence"]
    days: int
    limit: int
    cursor: str
    since: str


class SearchFilters(TypedDict, total=False):
    """What captions are looked for in; days (UTC) are ISO 8601."""

    prefix: str
    category: str
    tag: str
    since: str
    until: str
    by: str
    limit: int
    cursor: str


class AskingPicture(TypedDict, total=False):
    """What is asked about a picture, and under which key it is stored."""

    key: str
    task: str
    style: str
    language: str
    question: str


class Asking(AskingPicture, total=False):
    """What is asked about an upload; `context` is what is known of it, such as its title."""

    context: dict[str, str]


class Versioned(Protocol):
    """An asset as it was read: whole, or in a list."""

    @property
    def id(self) -> str: ...

    @property
    def etag(self) -> str: ...


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """One request. `reads` is a model, str or bytes; None where nothing is answered."""

    method: Literal["GET", "POST", "PATCH"]
    path: str
    reads: type[Answer] | None
    places: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    body: BaseModel | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def request(self) -> dict[str, Any]:
        """Return what httpx takes; every write has an Idempotency-Key, which all its tries share."""
        headers = dict(self.headers)
        content = None
        if self.method != "GET":
            headers["Idempotency-Key"] = secrets.token_hex(16)
        if self.body is not None:
            headers["Content-Type"] = "application/json"
            content = self.body.model_dump_json(exclude_none=True).encode()
        return {
            "method": self.method,
            "url": self.path.format(**{name: quote(value, safe="") for name, value in self.places.items()}),
            "params": {name: value for name, value in self.query.items() if value is not None},
            "headers": headers,
            "content": content,
        }

    def read(self, answer: httpx.Response) -> Answer:
        """Return what was answered; raises ProblemError, UnexpectedAnswerError."""
        if not answer.is_success:
            if answer.status_code < 400:
                raise UnexpectedAnswerError(f"{answer.status_code} from {answer.url.host}: redirects are not followed")
            raise problem_of(answer)
        read: Any = None
        if self.reads is str:
            read = answer.text
        elif self.reads is bytes:
            read = answer.content
        elif self.reads is not None:
            assert issubclass(self.reads, BaseModel)
            try:
                read = self.reads.model_validate_json(answer.content)
            except ValidationError as error:
                raise UnexpectedAnswerError(f"{answer.url.path} answered no {self.reads.__name__}: {error}") from error
        return read  # type: ignore[no-any-return]


def bearer(token: str | None) -> dict[str, str]:
    """Return the header of a token, without the line's end that a file may have behind it.

    Raises ValueError, which does not quote it, for one that no header can hold.
    """
    if not (kept := (token or "").strip()):
        return {}
    if not (kept.isascii() and kept.isprintable()):
        raise ValueError("the token has characters that no header can hold")
    return {"Authorization": f"Bearer {kept}"}


def etag_of_part(answer: httpx.Response) -> str:
    """Return what the bucket calls a part that it stored."""
    if (etag := answer.headers.get("ETag")) is None:
        raise UnexpectedAnswerError(f"{answer.url.host} stored a part and gave no ETag")
    return str(etag)


def link_of_part(links: models.PartLinks, number: int) -> str:
    """Return where a part is sent to."""
    if (url := links.urls.get(str(number))) is None:
        raise UnexpectedAnswerError(f"the API gave no link for part {number}")
    return url


def next_page(asked: str | None, page: models.Assets) -> str | None:
    """Return the cursor of the page after one that was asked for by a cursor; None: it was the last."""
    if page.cursor is not None and page.cursor == asked:
        raise UnexpectedAnswerError("the list goes on with the page that it is at")
    return page.cursor


def wait_before_retry(tries: int, retries: int, answer: httpx.Response | None) -> float | None:
    """Return the seconds to wait before another try; None if there is none. No answer: the connection failed."""
    if tries > retries:
        return None
    if answer is not None and answer.status_code not in _TEMPORARY:
        # Sent again while the first is still being worked on.
        under_way = answer.status_code == 409 and problem_of(answer).type == "/problems/under-way"
        if not under_way:
            return None
    after = answer.headers.get("Retry-After", "") if answer is not None else ""
    least = float(after) if after.isdigit() else 0.0
    return min(MAX_WAIT_SECONDS, least + random.uniform(0, 0.25 * 2**tries))  # noqa: S311 - jitter


def _asset(asset: Versioned | str) -> dict[str, str]:
    return {"id": asset if isinstance(asset, str) else asset.id}


def _etag(asset: Versioned | str, etag: str | None) -> dict[str, str]:
    given = etag if etag is not None or isinstance(asset, str) else asset.etag
    return {} if given is None else {"If-Match": given}


def get_asset(id: str) -> Call[models.Asset]:
    return Call("GET", "/v1/assets/{id}", models.Asset, _asset(id))


def list_assets(**filters: Unpack[Filters]) -> Call[models.Assets]:
    return Call("GET", "/v1/assets", models.Assets, query=filters)


def edit_asset(
    asset: Versioned | str, text: str, language: str | None = None, etag: str | None = None
) -> Call[models.Asset]:
    words = models.EditedCaption(text=text, language=language)
    return Call("PATCH", "/v1/assets/{id}", models.Asset, _asset(asset), body=words, headers=_etag(asset, etag))


def accept_asset(asset: Versioned | str, etag: str | None = None) -> Call[models.Asset]:
    return Call("POST", "/v1/assets/{id}/accept", models.Asset, _asset(asset), headers=_etag(asset, etag))


def undo_asset(asset: Versioned | str, etag: str | None = None) -> Call[models.Asset]:
    return Call("POST", "/v1/assets/{id}/undo", models.Asset, _asset(asset), headers=_etag(asset, etag))


def open_asset(id: str) -> Call[models.Opened]:
    return Call("POST", "/v1/assets/{id}/open", models.Opened, _asset(id))


def close_asset(id: str) -> Call[None]:
    return Call("POST", "/v1/assets/{id}/close", None, _asset(id))


def get_track(id: str, form: Literal["vtt", "srt"] = "vtt") -> Call[str]:
    return Call("GET", "/v1/assets/{id}/tracks/captions.{form}", str, {**_asset(id), "form": form})


def get_thumbnail(id: str) -> Call[bytes]:
    return Call("GET", "/v1/assets/{id}/thumbnail", bytes, _asset(id))


def recaption_asset(
    id: str, dry_run: bool = True, mode: Literal["force", "stale"] = "force", max_cost: str | None = None
) -> Call[models.Recaptioned]:
    order = models.RecaptionOrder(dry_run=dry_run, mode=mode, max_cost=max_cost)
    return Call("POST", "/v1/assets/{id}/recaption", models.Recaptioned, _asset(id), body=order)


def redrive_asset(id: str) -> Call[models.Queued]:
    return Call("POST", "/v1/assets/{id}/redrive", models.Queued, _asset(id))


def review(
    order: Literal["confidence", "category", "random"] | None = None,
    category: str | None = None,
    n: int | None = None,
    cursor: str | None = None,
    seed: str | None = None,
) -> Call[models.ReviewQueue]:
    return Call("GET", "/v1/review", models.ReviewQueue, query=dict(locals()))


def search(words: str, **filters: Unpack[SearchFilters]) -> Call[models.FoundAssets]:
    return Call("GET", "/v1/search", models.FoundAssets, query={"q": words, **filters})


def new_upload(wanted: models.NewUpload) -> Call[models.Form]:
    return Call("POST", "/v1/uploads", models.Form, body=wanted)


def begin_parts(wanted: models.NewUpload) -> Call[models.Parts]:
    return Call("POST", "/v1/uploads/multipart", models.Parts, body=wanted)


def links_of_parts(upload: str, numbers: list[int]) -> Call[models.PartLinks]:
    body = models.WantedParts(upload=upload, numbers=numbers)
    return Call("POST", "/v1/uploads/multipart/parts", models.PartLinks, body=body)


def complete_parts(upload: str, etags: Mapping[int, str]) -> Call[models.Stored]:
    parts = [models.SentPart(number=number, etag=etag) for number, etag in etags.items()]
    body = models.SentParts(upload=upload, parts=parts)
    return Call("POST", "/v1/uploads/multipart/complete", models.Stored, body=body)


def abort_parts(upload: str) -> Call[None]:
    return Call("POST", "/v1/uploads/multipart/abort", None, body=models.BegunUpload(upload=upload))


def status() -> Call[models.Status]:
    return Call("GET", "/v1/status", models.Status)


def catalogue() -> Call[models.Models]:
    return Call("GET", "/v1/models", models.Models)


def costs(
    by: CostsBy | None = None, days: int | None = None, baseline: str | None = None, cursor: str | None = None
) -> Call[models.Costs]:
    return Call("GET", "/v1/costs", models.Costs, query=dict(locals()))


def quality(days: int | None = None) -> Call[models.QualityReport]:
    return Call("GET", "/v1/quality", models.QualityReport, query=dict(locals()))


STREAM = Call[None]("POST", "/v1/captions:stream", None)
"""Answered with events, which `events` reads; only its refusals are read by the call."""
