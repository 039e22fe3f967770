"""The chat-completions wire format: what a request holds, and the shapes answers and errors are sent in.

Shapes follow the OpenAI API reference (https://platform.openai.com/docs/api-reference/chat), with the parts that
self-hosted servers added to it: `audio_url` and `video_url` (vLLM, SGLang).
"""

from __future__ import annotations

import binascii
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

RequestKind = Literal["text", "image", "audio", "video"]
MediaKind = Literal["image", "audio", "video"]

_PART_KINDS: Mapping[str, MediaKind] = {
    "image_url": "image",
    "input_audio": "audio",
    "audio_url": "audio",
    "video_url": "video",
}
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
# Four characters to a token is OpenAI's rule of thumb for English text.
_CHARACTERS_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4


class ApiError(Exception):
    """A request that is answered with an error: `status` is the HTTP status, the rest fills the error object."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        error_type: str = "invalid_request_error",
        code: str | int | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.error_type = error_type
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the error in OpenAI's shape."""
        return {
            "error": {"message": self.message, "type": self.error_type, "param": self.param, "code": self.code},
        }


@dataclass(frozen=True)
class MediaPart:
    """One picture, sound or film of a request, as it was sent."""

    kind: MediaKind
    part: str
    """The content part's type: `image_url`, `input_audio`, `audio_url` or `video_url`."""
    media_type: str | None
    """The MIME type a data URI names, or `audio/<format>` of an `input_audio` part; None where nothing was named."""
    data: bytes | None
    url: str | None
    prefix: str = ""
    """What stood before the base64 text: `data:image/png;base64,`, `data:;base64,`, or nothing."""

    @cached_property
    def sha256(self) -> str:
        """Return the hex SHA-256 of the bytes, or of the URL where the part holds a URL."""
        return hashlib.sha256(self.data if self.data is not None else (self.url or "").encode()).hexdigest()


@dataclass(frozen=True)
class ChatCall:
    """A parsed chat completion request."""

    model: str
    system: str
    user: str
    media: tuple[MediaPart, ...]
    stream: bool
    include_usage: bool
    max_tokens: int | None
    choices: int
    response_format: dict[str, Any] | None
    logprobs: bool
    """Whether the probabilities of the answer's tokens are asked for."""
    message_tokens: tuple[tuple[str, int], ...] = field(repr=False)
    """Per message its digest and its text tokens, in order: what the prompt cache is keyed by."""

    @property
    def kind(self) -> RequestKind:
        """Return the richest modality of the request: video, audio, image or text."""
        kinds = {part.kind for part in self.media}
        order: tuple[MediaKind, ...] = ("video", "audio", "image")
        return next((kind for kind in order if kind in kinds), "text")

    @property
    def text_tokens(self) -> int:
        """Return the tokens of all text in the request."""
        return sum(tokens for _, tokens in self.message_tokens)


def count_tokens(text: str) -> int:
    """Estimate the tokens of `text`: a quarter of its characters, one for each CJK character; at least 1 if any."""
    if not text:
        return 0
    dense = 0 if text.isascii() else len(_CJK.findall(text))
    return max(1, dense + -(-(len(text) - dense) // _CHARACTERS_PER_TOKEN))


def clip_tokens(text: str, limit: int) -> str:
    """Return the longest prefix of whole words of `text` that counts at most `limit` tokens."""
    kept = text
    while count_tokens(kept) > limit:
        words = kept.rstrip()
        # What stands before the last word; rsplit() would leave out what is blank before the first, too.
        words = words.removesuffix(words.rsplit(maxsplit=1)[-1] if words else "").rstrip()
        kept = words or kept[: max(0, len(kept) - _CHARACTERS_PER_TOKEN)]
    return kept


def parse_chat(body: bytes) -> ChatCall:
    """Parse the body of POST /v1/chat/completions.

    Raises `ApiError` 400 for anything the API would not take: no JSON, a missing field, an unknown part, bad base64.
    """
    try:
        document = json.loads(body)
    except ValueError as error:
        raise ApiError(400, "We could not parse the JSON body of your request.") from error
    if not isinstance(document, dict):
        raise ApiError(400, "The JSON body of the request must be an object.")
    model = document.get("model")
    if not isinstance(model, str) or not model:
        raise ApiError(400, "you must provide a model parameter", param="model")
    messages = document.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "Invalid 'messages': expected a non-empty array of messages.", param="messages")
    system: list[str] = []
    user: list[str] = []
    media: list[MediaPart] = []
    counted: list[tuple[str, int]] = []
    for position, message in enumerate(messages):
        texts, parts = _message_parts(message, position)
        (system if message["role"] in {"system", "developer"} else user).extend(texts)
        media.extend(parts)
        text = "\n".join(texts)
        digest = hashlib.sha256(f"{message['role']}\0{text}".encode())
        for part in parts:
            digest.update(part.sha256.encode())
        counted.append((digest.hexdigest(), count_tokens(text) + _TOKENS_PER_MESSAGE))
    response_format = document.get("response_format")
    if response_format is not None and not isinstance(response_format, dict):
        raise ApiError(400, "Invalid 'response_format': expected an object.", param="response_format")
    stream_options = document.get("stream_options")
    return ChatCall(
        model=model,
        system="\n".join(system),
        user="\n".join(user),
        media=tuple(media),
        stream=bool(document.get("stream")),
        include_usage=isinstance(stream_options, dict) and bool(stream_options.get("include_usage")),
        max_tokens=_max_tokens(document),
        choices=_choices(document),
        response_format=response_format,
        logprobs=_logprobs(document),
        message_tokens=tuple(counted),
    )


def _max_tokens(document: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = document.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ApiError(400, f"Invalid '{name}': expected an integer of at least 1.", param=name)
        return value
    return None


def _logprobs(document: Mapping[str, Any]) -> bool:
    wanted = document.get("logprobs")
    if wanted is not None and not isinstance(wanted, bool):
        raise ApiError(400, "Invalid 'logprobs': expected a boolean.", param="logprobs")
    top = document.get("top_logprobs")
    if top is not None and (not isinstance(top, int) or isinstance(top, bool) or not 0 <= top <= 20 or not wanted):
        message = "Invalid 'top_logprobs': expected an integer from 0 to 20, beside 'logprobs': true."
        raise ApiError(400, message, param="top_logprobs")
    return bool(wanted)


def _choices(document: Mapping[str, Any]) -> int:
    value = document.get("n")
    if value is None:
        return 1
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 8:
        raise ApiError(400, "Invalid 'n': expected an integer from 1 to 8.", param="n")
    return value


def _message_parts(message: Any, position: int) -> tuple[list[str], list[MediaPart]]:
    where = f"messages[{position}]"
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ApiError(400, f"Invalid '{where}': expected an object with a role.", param=where)
    content = message.get("content")
    if content is None:
        return [], []
    if isinstance(content, str):
        return [content], []
    if not isinstance(content, list):
        raise ApiError(400, f"Invalid '{where}.content': expected a string or an array of parts.", param=where)
    texts: list[str] = []
    parts: list[MediaPart] = []
    for index, part in enumerate(content):
        place = f"{where}.content[{index}]"
        part_type = part.get("type") if isinstance(part, dict) else None
        if part_type == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif isinstance(part_type, str) and part_type in _PART_KINDS:
            parts.append(_media_part(part_type, part.get(part_type), place))
        else:
            raise ApiError(400, f"Invalid value for '{place}.type': {part_type!r} is not supported.", param=place)
    return texts, parts


def _media_part(part_type: str, value: Any, place: str) -> MediaPart:
    kind = _PART_KINDS[part_type]
    if not isinstance(value, dict):
        raise ApiError(400, f"Invalid '{place}.{part_type}': expected an object.", param=place)
    if part_type == "input_audio":
        data, audio_format = value.get("data"), value.get("format")
        if not isinstance(data, str) or not data:
            raise ApiError(400, f"Invalid '{place}.input_audio.data': expected base64 text.", param=place)
        media_type = f"audio/{audio_format}" if isinstance(audio_format, str) and audio_format else None
        if data.startswith(("http://", "https://")):
            return MediaPart(kind, part_type, media_type, None, data)  # DashScope takes a link in this place
        prefix, named, encoded = _split_data_uri(data) if data.startswith("data:") else ("", None, data)
        return MediaPart(kind, part_type, named or media_type, _base64(encoded, place), None, prefix)
    url = value.get("url")
    if not isinstance(url, str) or not url:
        raise ApiError(400, f"Invalid '{place}.{part_type}.url': expected a URL.", param=place)
    if url.startswith("data:"):
        prefix, named, encoded = _split_data_uri(url)
        return MediaPart(kind, part_type, named, _base64(encoded, place), None, prefix)
    if url.startswith(("http://", "https://")):
        return MediaPart(kind, part_type, None, None, url)
    raise ApiError(400, f"Invalid '{place}.{part_type}.url': expected a data URI or an http(s) URL.", param=place)


def _split_data_uri(uri: str) -> tuple[str, str | None, str]:
    comma = uri.find(",", 0, 256)
    if comma < 0 or not uri[:comma].endswith(";base64"):
        raise ApiError(400, "Invalid data URI: expected 'data:<media type>;base64,<data>'.")
    media_type = uri[len("data:") : comma - len(";base64")].split(";")[0].strip().lower()
    return uri[: comma + 1], media_type or None, uri[comma + 1 :]


def _base64(encoded: str, place: str) -> bytes:
    try:
        data = binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError as error:
        raise ApiError(400, f"Invalid base64 data in '{place}'.", param=place, code="invalid_base64") from error
    if not data:
        raise ApiError(400, f"The media in '{place}' is empty.", param=place)
    return data


@dataclass(frozen=True)
class CountedTokens:
    """The tokens of one call; `cached` are part of `prompt`, `reasoning` part of `completion`."""

    prompt: int
    completion: int
    cached: int = 0
    reasoning: int = 0
    cost: str | None = None

    def body(self) -> dict[str, Any]:
        """Return the usage object; `cost` only where one is reported, as a JSON number."""
        usage: dict[str, Any] = {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }
        if self.cost is not None:
            usage["cost"] = float(self.cost)
        return usage


@dataclass(frozen=True)
class ServerAnswer:
    """What a call is answered with, before it is put on the wire.

    There is no language model here that gives its tokens probabilities. The `logprobs` that are sent are the logarithm
    of `certainty`: how sure the measurement is that the answer rests on, the same for each of its tokens. A measurement
    that knows no such thing has no logprobs, as at a server that offers none.
    """

    id: str
    created: int
    model: str
    text: str | None
    finish_reason: str | None
    usage: CountedTokens
    choices: int = 1
    refusal: str | None = None
    reasoning: str | None = None
    logprobs: bool = False
    """Whether they were asked for."""
    certainty: float | None = None
    """0 to 1; None: not known."""

    def body(self) -> dict[str, Any]:
        """Return the whole `chat.completion` object."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text, "refusal": self.refusal}
        if self.reasoning is not None:
            message["reasoning_content"] = self.reasoning
        return {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [
                {
                    "index": index,
                    "message": message,
                    "logprobs": self._logprobs(self.text or ""),
                    "finish_reason": self.finish_reason,
                }
                for index in range(self.choices)
            ],
            "usage": self.usage.body(),
        }

    def chunks(self, *, include_usage: bool) -> list[dict[str, Any]]:
        """Return the `chat.completion.chunk` objects of a streamed answer, in order, without the closing [DONE]."""
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        if self.reasoning is not None:
            deltas.append({"reasoning_content": self.reasoning})
        if self.refusal is not None:
            deltas.append({"refusal": self.refusal})
        deltas.extend({"content": piece} for piece in split_deltas(self.text or ""))
        chunks = [self._chunk(index, delta, None) for delta in deltas for index in range(self.choices)]
        if self.finish_reason is not None:
            chunks.extend(self._chunk(index, {}, self.finish_reason) for index in range(self.choices))
        if include_usage:
            for chunk in chunks:
                chunk["usage"] = None
            chunks.append({**self._head(), "choices": [], "usage": self.usage.body()})
        return chunks

    def _head(self) -> dict[str, Any]:
        return {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model}

    def _chunk(self, index: int, delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
        logprobs = self._logprobs(delta.get("content", ""))
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return {**self._head(), "choices": [choice]}

    def _logprobs(self, text: str) -> dict[str, Any] | None:
        """Return what is reported about the tokens of a text, which are its words here."""
        if not self.logprobs or not self.certainty or not text:
            return None
        logprob = math.log(self.certainty)
        tokens = split_deltas(text, 1)
        return {
            "content": [
                {"token": token, "logprob": logprob, "bytes": list(token.encode()), "top_logprobs": []}
                for token in tokens
            ],
            "refusal": None,
        }


def split_deltas(text: str, words: int = 3) -> list[str]:
    """Cut `text` into deltas of a few words each that join to exactly `text`."""
    pieces = re.findall(r"\S+\s*|\s+", text)
    return ["".join(pieces[at : at + words]) for at in range(0, len(pieces), words)]


def sse(document: Mapping[str, Any]) -> bytes:
    """Encode one server-sent event."""
    return b"data: " + json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def has_text(chunk: Mapping[str, Any]) -> bool:
    """Tell whether a chunk of a streamed answer holds some of its text."""
    return any(choice["delta"].get("content") for choice in chunk["choices"])
