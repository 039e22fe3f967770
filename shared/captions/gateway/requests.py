"""The body of a chat completion, with each medium the way the model at hand takes it."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

from captions.gateway.catalogue import Model
from captions.gateway.types import Media, Request

ENVELOPE_BYTES = 2_048
"""Room for everything of a body that is neither text nor media: keys, quotes, parameters."""

TRANSCRIPTION = "audio_transcriptions"
"""The way of a sound that goes to /v1/audio/transcriptions, as a file of its own."""

# Tokens a medium takes at the least, so that a model is passed over only if its context is too small for certain.
# A picture of 1,568 pixels a side takes 2,401 tokens at Qwen3-VL (patches of 32 pixels), a small one far fewer; sound
# 12.5 a second at Qwen3-Omni; video at least a frame every two seconds.
_IMAGE_TOKENS = 64
_AUDIO_TOKENS_PER_S = 12.5
_VIDEO_TOKENS_PER_S = 32.0

# The format names of OpenAI's `input_audio` part, extended by the names servers took over from file suffixes.
_AUDIO_FORMATS = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "audio/flac": "flac",
    "audio/ogg": "ogg",
    "audio/mp4": "m4a",
    "audio/aac": "aac",
    "audio/webm": "webm",
}


def base64_length(size: int) -> int:
    """Return the characters that `size` bytes take in base64."""
    return (size + 2) // 3 * 4


def least_tokens(request: Request) -> int:
    """Return a lower bound of the prompt's tokens."""
    text = request.instructions + request.text
    tokens = len(text) / 6  # English runs at about four characters a token, and nothing above six for long
    for medium in request.media:
        if medium.kind == "image":
            tokens += _IMAGE_TOKENS
        elif medium.duration_s is not None:
            tokens += medium.duration_s * (_AUDIO_TOKENS_PER_S if medium.kind == "audio" else _VIDEO_TOKENS_PER_S)
    return int(tokens)


class MessageParts:
    """The media of one request as message parts. What is dear to make (base64, links) is made once per request."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._base64: dict[int, str] = {}
        text = len(request.instructions.encode()) + len(request.text.encode())
        if request.response_format is not None:
            text += len(json.dumps(request.response_format))
        self._text_bytes = text + text // 8 + ENVELOPE_BYTES  # an eighth for escaped quotes and line ends

    def fit(self, model: Model) -> bool:
        """Tell whether some way the model takes media holds the whole request within its body."""
        return self._ways(model) is not None

    def body(self, model: Model, wire_name: str, *, max_tokens: int, stream: bool, seconds: float) -> dict[str, Any]:
        """Return the body to send. `wire_name` is what the endpoint calls the model, `seconds` how long links are good.

        Raises:
            ValueError: the request does not fit (ask `fit` first).
        """
        ways = self._ways(model)
        if ways is None:
            raise ValueError(f"the request does not fit into the body of {model.name}")
        request = self._request
        if TRANSCRIPTION in ways:
            raise ValueError(f"{model.name} is asked for a transcription, not in a chat")
        parts = [self._part(index, way, model, seconds) for index, way in enumerate(ways)]
        messages: list[dict[str, Any]] = []
        if request.instructions:
            messages.append({"role": "system", "content": request.instructions})
        content: Any = [*parts, {"type": "text", "text": request.text}] if parts else request.text
        messages.append({"role": "user", "content": content})
        body: dict[str, Any] = {
            "model": wire_name,
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": request.temperature,
        }
        if (form := _response_format(request, model)) is not None:
            body["response_format"] = form
        if model.logprobs:
            body["logprobs"] = True
        if stream:
            body["stream"] = True
            body["stream_options"] = {"include_usage": True}
        return body

    def form(self, model: Model, wire_name: str) -> dict[str, Any] | None:
        """Return the fields of a transcription's form, if that is how the model takes the request's sound."""
        if not self._request.transcription or self._ways(model) != [TRANSCRIPTION]:
            return None
        sound = self._request.media[0]
        fields: dict[str, Any] = {
            "model": wire_name,
            # Servers tell the format by the file's name.
            "file": (f"recording.{_audio_format(sound.media_type)}", sound.data, sound.media_type),
            "response_format": model.transcript_format,
            "temperature": 0.0,
        }
        if model.transcript_format == "verbose_json":
            fields["timestamp_granularities"] = ["segment"]
        return fields

    def _ways(self, model: Model) -> list[str] | None:
        """Return how each medium goes into the body: as data while that fits, else as a link; None if it does not."""
        room = model.max_body - self._text_bytes
        ways: list[str] = []
        for medium in self._request.media:
            for way, size in _ways_of(medium, model, self._request):
                if size <= room:
                    room -= size
                    ways.append(way)
                    break
            else:
                return None
        return ways if room >= 0 else None

    def _part(self, index: int, way: str, model: Model, seconds: float) -> dict[str, Any]:
        medium = self._request.media[index]
        kind = way.removesuffix("_data")
        if way == "input_audio":
            return {
                "type": "input_audio",
                "input_audio": {
                    "data": model.audio_data_prefix + self._encoded(index),
                    "format": _audio_format(medium.media_type),
                },
            }
        if way == "input_audio_url":
            return {
                "type": "input_audio",
                "input_audio": {
                    "data": self._link(index, seconds),
                    "format": _audio_format(medium.media_type),
                },
            }
        url = f"data:{medium.media_type};base64,{self._encoded(index)}" if way != kind else self._link(index, seconds)
        return {"type": kind, kind: {"url": url}}

    def _encoded(self, index: int) -> str:
        if index not in self._base64:
            data = self._request.media[index].data
            assert data is not None  # `_ways_of` offers data only where there is some
            self._base64[index] = b64encode(data).decode("ascii")
        return self._base64[index]

    def _link(self, index: int, seconds: float) -> str:
        make = self._request.media[index].url
        assert make is not None  # `_ways_of` offers a link only where one can be made
        return make(seconds)


def _response_format(request: Request, model: Model) -> dict[str, Any] | None:
    """Return the wanted form of the answer, weakened to what the model takes."""
    wanted = request.response_format
    if wanted is None or model.structured == "none":
        return None
    if wanted.get("type") != "json_schema" or model.structured == "json_schema":
        return dict(wanted)
    # Any JSON object may only be asked for where the prompt speaks of JSON; servers refuse it otherwise.
    mentioned = "json" in request.instructions.lower() or "json" in request.text.lower()
    return {"type": "json_object"} if mentioned else None


def fits(request: Request, model: Model) -> bool:
    """Tell whether some way the model takes media holds the whole request within its body."""
    return MessageParts(request).fit(model)


_LINK_BYTES = 2_048  # a presigned URL with a session token


def _audio_format(media_type: str) -> str:
    return _AUDIO_FORMATS.get(media_type, media_type.partition("/")[2])


def _ways_of(medium: Media, model: Model, request: Request) -> Iterator[tuple[str, int]]:
    """Yield the ways the model takes this medium with the bytes each adds to a body, data before links.

    A transcription comes before both: it alone gives times.
    """
    if TRANSCRIPTION in model.takes and request.transcription and len(request.media) == 1 and medium.data is not None:
        yield TRANSCRIPTION, len(medium.data) + ENVELOPE_BYTES
    if not model.chats:
        return
    as_data = {"image": ("image_url_data",), "audio": ("input_audio", "audio_url_data"), "video": ("video_url_data",)}
    as_link = {"image": ("image_url",), "audio": ("audio_url", "input_audio_url"), "video": ("video_url",)}
    if medium.data is not None:
        size = base64_length(len(medium.data)) + 128
        yield from ((way, size) for way in as_data[medium.kind] if way in model.takes)
    if medium.url is not None:
        yield from ((way, _LINK_BYTES) for way in as_link[medium.kind] if way in model.takes)
