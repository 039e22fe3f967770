"""The models that the endpoint serves: what they take, what they answer, how long that takes and what it costs."""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from captions.gateway.catalogue import Catalogue, ContentPart, Dialect, Latency, Modality, Model
from captions_cli.local.model_endpoint import faults as fault_kinds
from captions_cli.local.model_endpoint import prose, quality, structured
from captions_cli.local.model_endpoint.description import Description
from captions_cli.local.model_endpoint.faults import Fault
from captions_cli.local.model_endpoint.viewing import MediaReader
from captions_cli.local.model_endpoint.wire import (
    ApiError,
    ChatCall,
    CountedTokens,
    MediaPart,
    ServerAnswer,
    clip_tokens,
    count_tokens,
)
from captions_cli.local.model_endpoint.witness import Entry

# Where the catalogue knows no latency of its own: the middle of the field's measured figures (seconds).
_USUAL_LATENCY: Mapping[str, Latency] = {
    "text": Latency(p50=0.5, p99=1.5),
    "image": Latency(p50=0.7, p99=2.1),
    "audio": Latency(p50=3.1, p99=8.2),
    "video": Latency(p50=3.1, p99=8.2),
}
# The 99th percentile of the standard normal distribution.
_Z99 = 2.3263
# What vLLM caches prompts by: whole blocks of so many tokens.
_CACHE_BLOCK_TOKENS = 16
_CACHED_PREFIXES = 4096
_DEFAULT_MAX_TOKENS = 1024
_CREATED = 1_735_689_600
_FORMATS_NAMED_OTHERWISE = {
    "audio/mp3": "audio/mpeg",
    "audio/x-mp3": "audio/mpeg",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/x-flac": "audio/flac",
    "audio/opus": "audio/ogg",
    "audio/m4a": "audio/mp4",
    "audio/x-m4a": "audio/mp4",
    "image/jpg": "image/jpeg",
}
_PART_WITH_DATA: Mapping[str, ContentPart] = {
    "image_url": "image_url_data",
    "input_audio": "input_audio",
    "audio_url": "audio_url_data",
    "video_url": "video_url_data",
}
_PART_WITH_URL: Mapping[str, ContentPart] = {
    "image_url": "image_url",
    "input_audio": "input_audio_url",
    "audio_url": "audio_url",
    "video_url": "video_url",
}


@dataclass(frozen=True)
class Options:
    """How the endpoint behaves; everything has the value that suits a demo."""

    latency_scale: float = 1.0
    """Multiplies the catalogue's latencies; 0 answers as fast as it can."""
    seed: int = 0
    """Of the latencies and the faults' probabilities: the same calls in the same order give the same ones."""
    keys: frozenset[str] | None = None
    """The accepted keys; None accepts any that is not empty."""
    dialect: str = "openai"
    """A dialect of the catalogue: the server then takes what that kind of server takes, and errs as it does."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Catalogue name -> the name this server gives the model; with `only_named` it serves no other."""
    only_named: bool = False
    report_cost: bool = False
    """Put `usage.cost` (dollars) into answers where the model's prices are known."""
    assumed_input_price: Decimal | None = None
    """Dollars per million prompt tokens for models without a published price, so that their cost can be reported."""
    log: Path | None = None
    """Append every finished request to this file as a JSON line."""
    eyes: bool = False
    """Small models look at pictures, which are described from their pixels otherwise; see `eyes.missing`."""
    media_hosts: frozenset[str] = frozenset()
    """Hosts besides the loopback that media may be fetched from."""
    quality: Mapping[str, float] = field(default_factory=dict)
    """Catalogue name -> how much of what is seen the model tells rightly, 0 to 1; 1 for those that are not named."""
    batch_seconds: float = 2.0
    """How long a batch takes at the least, times `latency_scale`."""
    max_image_pixels: int = 50_000_000
    max_audio_s: float = 900.0
    speech_workers: int = 2


class ServedModels:
    """The catalogue's models as `options` have them served; `reader` says what media show."""

    def __init__(self, options: Options, catalogue: Catalogue, reader: MediaReader) -> None:
        self._options = options
        self._models = _served_models(catalogue, options)
        self._reader = reader
        self.largest_body = max((model.max_body for model in self._models.values() if model.chats), default=0)
        """Bytes of the largest request that any of them takes."""
        self._prefixes: OrderedDict[str, None] = OrderedDict()
        self._draws: dict[str, int] = {}

    def get(self, name: str) -> Model | None:
        """Return the model that is served under this name."""
        return self._models.get(name)

    def cards(self) -> dict[str, Any]:
        """Return the list that `GET /v1/models` answers."""
        return {"object": "list", "data": [self.card(name) for name in self._models]}

    def served(self, name: str) -> Model:
        """Return the model that is served under this name. Raises ApiError (404) where none is."""
        model = self._models.get(name)
        if model is None:
            raise fault_kinds.model_not_found(name)
        return model

    def card(self, name: str) -> dict[str, Any]:
        """Return what `GET /v1/models/{name}` answers. Raises ApiError as `served` does."""
        model = self.served(name)
        card: dict[str, Any] = {"id": name, "object": "model", "created": _CREATED, "owned_by": model.provider}
        if self._options.dialect == "openai":
            card["context_length"] = model.context
            pricing = {
                side: str((price / 1_000_000).normalize())
                for side, price in (("prompt", model.input_price), ("completion", model.output_price))
                if price is not None
            }
            card["pricing"] = pricing
        return card

    def _check(self, call: ChatCall, model: Model) -> None:
        if self._options.dialect == "ollama" and call.choices > 1:
            raise ApiError(400, "n is not supported", param="n")
        if not model.chats:
            raise ApiError(400, f"The model `{call.model}` does not answer chats.", code="unsupported_modality")
        if model.streaming_only and not call.stream:
            raise ApiError(400, "This model only support stream mode, please enable the stream parameter.")
        for part in call.media:
            if part.kind not in model.modalities:
                message = f"The model `{call.model}` does not support {part.kind} input."
                raise ApiError(400, message, code="unsupported_modality", param="messages")
            if not self._carries(part, model):
                how = "a URL" if part.data is None else "data"
                message = f"The model `{call.model}` does not take {part.kind} as {part.part} with {how}."
                raise ApiError(400, message, code="unsupported_content_part", param="messages")
            media_type = _FORMATS_NAMED_OTHERWISE.get(part.media_type or "", part.media_type)
            if media_type is not None and not model.accepts(part.kind, media_type):
                message = f"You uploaded an unsupported {part.kind}: {media_type}."
                raise ApiError(400, message, code=f"unsupported_{part.kind}_format", param="messages")
            wanted = model.audio_data_prefix
            if wanted and part.part == "input_audio" and part.data is not None and not part.prefix:
                raise ApiError(400, f"The audio data must start with '{wanted}'.", param="messages")

    async def described(self, part: MediaPart, model: Model) -> Description:
        """Return what a part of a call shows. Raises ApiError (400) where it plays for longer than the model takes."""
        described = await self._reader.describe(part)
        _check_length(model, part.kind, described)
        return described

    async def complete(
        self, call: ChatCall, model: Model, fault: Fault | None, entry: Entry, factor: Decimal = Decimal(1)
    ) -> ServerAnswer:
        """Return a model's answer to a call, as `fault` leaves it; `entry` notes it, `factor` is a batch's price.

        Raises:
            ApiError: the model does not take the call.
        """
        self._check(call, model)
        answer = await self._answer(call, model, entry, factor)
        if fault is not None:
            answer = fault_kinds.spoiled(answer, fault)
        usage = answer.usage
        entry.note(
            status=200,
            finish_reason=answer.finish_reason,
            prompt_tokens=usage.prompt,
            completion_tokens=usage.completion,
            cached_tokens=usage.cached,
            cost=self.price(model, usage, factor),
        )
        return answer

    async def _answer(self, call: ChatCall, model: Model, entry: Entry, factor: Decimal) -> ServerAnswer:
        described = [await self.described(part, model) for part in call.media]
        prompt = call.text_tokens + sum(description.tokens for description in described)
        wanted = call.max_tokens or min(_DEFAULT_MAX_TOKENS, model.context)
        if prompt + min(wanted, model.context // 2) > model.context:
            raise fault_kinds.context_too_long(model.context, prompt)
        text = "\n".join(description.text for description in described) if described else prose.condense(call.user)
        wanted_form = _wanted_form(call)
        if wanted_form is not None:
            text = structured.shaped(wanted_form, text, described, call.user)
        digests = "/".join(part.sha256 for part in call.media if part.data is not None)
        good = self._options.quality.get(call.model, 1.0)
        text = quality.worsened(text, good, f"{self._options.seed}/{call.model}/{digests or call.user}")
        finish = "stop"
        clipped = clip_tokens(text, wanted)
        if clipped != text:
            text, finish = clipped, "length"
        cached = self._cached_tokens(call, described)
        usage = CountedTokens(prompt=prompt, completion=count_tokens(text) * call.choices, cached=min(cached, prompt))
        if self._options.report_cost:
            cost = self.price(model, usage, factor)
            usage = CountedTokens(usage.prompt, usage.completion, usage.cached, usage.reasoning, cost)
        return ServerAnswer(
            id=f"chatcmpl-local-{entry.fields['id']:08d}",
            created=int(time.time()),
            model=_answered_by(described),
            text=text,
            finish_reason=finish,
            usage=usage,
            choices=call.choices,
            logprobs=call.logprobs,
            certainty=_certainty(described),
        )

    def latency(self, name: str, modality: Modality, model: Model, entry: Entry) -> float:
        """Draw the seconds this call takes: log-normal through the model's p50 and p99, times the scale."""
        if self._options.latency_scale <= 0:
            return 0.0
        latency = model.latency.get(modality) or _USUAL_LATENCY[modality]
        key = f"{name}/{entry.fields['client_request_id'] or entry.fields['media_sha256'] or ''}"
        nth = self._draws.get(key, 0)
        self._draws[key] = nth + 1
        return drawn_seconds(latency, f"{self._options.seed}/{key}/{nth}") * self._options.latency_scale

    def price(self, model: Model, usage: CountedTokens, factor: Decimal = Decimal(1)) -> str | None:
        """Return the dollars a call costs as decimal text, or None where a price it needs is not known.

        `factor` is a batch's part of the price.
        """
        input_price = model.input_price if model.input_price is not None else self._options.assumed_input_price
        if input_price is None or model.output_price is None:
            return None
        cached_price = model.cached_input_price if model.cached_input_price is not None else input_price
        dollars = (
            factor
            * (
                (usage.prompt - usage.cached) * input_price
                + usage.cached * cached_price
                + usage.completion * model.output_price
            )
            / 1_000_000
        )
        return format(dollars.normalize(), "f")

    def _carries(self, part: MediaPart, model: Model) -> bool:
        with_url, with_data = _PART_WITH_URL[part.part], _PART_WITH_DATA[part.part]
        if part.data is None:
            return with_url in model.takes
        if with_data in model.takes:
            return True
        # A server that fetches links reads data URIs as well, unless its dialect says otherwise.
        return self._options.dialect == "openai" and part.part != "input_audio" and with_url in model.takes

    def _cached_tokens(self, call: ChatCall, described: list[Description]) -> int:
        """Return how many leading prompt tokens an earlier call had too, in whole blocks of the prompt cache."""
        chain = hashlib.sha256(call.model.encode())
        media_tokens = sum(description.tokens for description in described)
        known = 0
        total = 0
        missed = False
        for position, (digest, tokens) in enumerate(call.message_tokens):
            chain.update(digest.encode())
            prefix = chain.hexdigest()
            last = position == len(call.message_tokens) - 1
            total += tokens + (media_tokens if last else 0)
            if prefix in self._prefixes and not missed:
                known = total
                self._prefixes.move_to_end(prefix)
            else:
                missed = True
                self._prefixes[prefix] = None
        while len(self._prefixes) > _CACHED_PREFIXES:
            self._prefixes.popitem(last=False)
        return known // _CACHE_BLOCK_TOKENS * _CACHE_BLOCK_TOKENS


def drawn_seconds(latency: Latency, seed: str) -> float:
    """Return seconds drawn from the log-normal distribution through a model's p50 and p99, never over its longest."""
    spread = math.log(latency.p99 / latency.p50) / _Z99
    drawn = latency.p50 * math.exp(spread * random.Random(seed).gauss(0.0, 1.0))  # noqa: S311
    return min(drawn, latency.longest or latency.p99 * 3)


def _served_models(catalogue: Catalogue, options: Options) -> dict[str, Model]:
    dialect: Dialect = catalogue.dialects[options.dialect]
    served: dict[str, Model] = {}
    for name, model in catalogue.models.items():
        if not model.enabled or (options.only_named and name not in options.names):
            continue
        spoken = dialect.spoken_by(model)
        if spoken is not None:
            served[options.names.get(name, name)] = spoken
    return served


def _check_length(model: Model, kind: Modality, media: Description) -> None:
    longest = model.longest(kind)
    # Re-encoding pads sound by a frame or two, which no server minds.
    if longest is not None and media.duration_s is not None and media.duration_s > longest + 0.5:
        raise ApiError(
            400, f"The {kind} is longer than {longest:g} seconds.", code=f"{kind}_too_long", param="messages"
        )


def _answered_by(described: Sequence[Description]) -> str:
    """Return what the answer's `model` says: what really looked, listened or wrote, whatever model was asked for."""
    names = dict.fromkeys(description.model for description in described)
    return f"local/{'+'.join(names) if names else prose.NAME}"


def _certainty(described: Sequence[Description]) -> float | None:
    """Return how sure the words of an answer are, 0 to 1: as sure as those heard least surely of what it is about.

    Of sound it is the mean posterior probability that the recogniser gives to its words. Pixels are measured, and their
    measures have no probability: of them, and of a text that is only condensed, it is not known.
    """
    known = [description.measured.get("confidence") for description in described]
    heard = [float(value) for value in known if isinstance(value, int | float)]
    return min(heard) if heard and len(heard) == len(known) else None


def _wanted_form(call: ChatCall) -> Mapping[str, Any] | None:
    """Return the shape of the answer: the schema that is given, or else what the instructions show in words."""
    given = call.response_format
    if given is not None and given.get("type") == "json_schema":
        return given
    return structured.told_in_words(call.system) or given
