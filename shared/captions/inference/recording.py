"""Answers about recordings and video, whichever way a model takes them.

What the first model of the chain takes as it is goes to it in one call. Otherwise sound is cut at pauses and converted
(`captions.media.recordings`), each part is asked about by itself, several side by side, and the answers are joined with
their times moved; video becomes key frames and the words of its soundtrack, in one request to a model of pictures.

A part that was answered is kept at once (`inference.part_store`), with its calls. If another one fails, or time is up,
the whole fails with that error, and the next delivery asks for what is missing only.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from captions import media
from captions.gateway import (
    DeadlineExceeded,
    Gateway,
    GatewayError,
    Media,
    NoCapableModel,
    Refused,
    Request,
    Unacceptable,
    fits,
)
from captions.gateway.catalogue import Model
from captions.inference import escalation
from captions.inference.candidate import Candidate, restored, stored
from captions.inference.escalation import Answered, Asking, Content
from captions.inference.merging import joined
from captions.media import recordings as sounds
from captions.media.decoder import DecoderStopped
from captions.routing.routes import Chains
from captions.tasks import TASKS, Ask, Heard, Output, Reading, Seen, prompt

LONGEST_PART_S = 600.0
"""No part plays for longer, whatever a model takes: one answer has room for its words, and no more is lost with it."""
PARTS_AT_ONCE = 4
"""Parts of one recording that are asked about side by side."""
LEAST_SECONDS = 10.0
"""With less time left than this no part is begun."""
FRAMES = 8
"""Key frames of a video that are sent at the most."""
FRAME_SIDE = 768
"""Pixels of a key frame's longest side."""
POSTER_SIDE = 320
"""Pixels of a poster's longest side."""
POSTER_BYTES = 12_000
"""Of a poster at the most: it stands in its record, and each list that shows the video reads it."""
POSTER_WORK_S = 10.0
"""Seconds of processor time for a poster of a video that a model took whole."""
_DATA_PARTS = frozenset({"input_audio", "audio_url_data", "audio_transcriptions"})
_CONTEXT_CHARACTERS = 900
_CONTEXT_VALUES = 16
"""Room for what is said in a video, in the pieces that a prompt quotes (captions.tasks.quoting)."""
_CUTTING = "3"
"""Changes whenever other parts come out of the same recording."""
_WORST: tuple[type[GatewayError], ...] = (Refused, Unacceptable, NoCapableModel)


async def answer(
    call: Asking, ask: Ask, recording: Content, chains: Chains, *, hearing: Chains, seeing: Chains, seen: Seen
) -> Answered:
    """Return the answer to an ask about a recording or a video.

    Args:
        call: what the calls share.
        ask: what is asked.
        recording: the sound or video.
        chains: the models to ask, as the upload is routed.
        hearing: the models that write down what is said in a video, where it is not taken whole.
        seeing: the models of pictures that get a video's key frames, after those of `chains` that take pictures.
        seen: what is known of the recording.

    Raises:
        GatewayError: there is no answer.
        MediaError: the recording cannot be decoded, or plays for too long.
    """
    answered = await _answered(call, ask, recording, chains, hearing, seeing, seen)
    if recording.whole.kind != "video" or answered.poster is not None:
        return answered
    return replace(answered, poster=await asyncio.to_thread(_poster, recording.data, call.deadline))


async def _answered(
    call: Asking, ask: Ask, recording: Content, chains: Chains, hearing: Chains, seeing: Chains, seen: Seen
) -> Answered:
    refused: GatewayError | None = None
    if whole(call.gateway, ask, recording, chains) and await asyncio.to_thread(_heard_alike, call, recording):
        try:
            return await escalation.answer(call, ask, (recording.whole,), chains, seen)
        except (Unacceptable, NoCapableModel) as error:
            refused = error  # in another form it may be taken
    try:
        if TASKS[ask.task].needs == "video":
            return await _film(call, ask, recording, chains, hearing, seeing, seen)
        return await _parts(call, ask, recording, chains, seen)
    except NoCapableModel as error:
        raise refused or error from error


def whole(gateway: Gateway, ask: Ask, recording: Content, chains: Chains) -> bool:
    """Tell whether the first model of the chain that understands the recording takes it as it is."""
    item = recording.whole
    if item.kind != TASKS[ask.task].needs:
        return False  # what is asked is about the sound of a video
    models = _able(gateway, ask, item.kind, chains)
    if not models:
        return False
    first = models[0]
    longest = first.longest(item.kind)
    if longest is not None and (item.duration_s is None or item.duration_s > longest):
        return False  # how long it plays is found out by decoding it
    asked = prompt(ask)
    request = Request(asked.instructions, asked.text, (item,), transcription=TASKS[ask.task].transcribes)
    return first.accepts(item.kind, item.media_type) and _plain(item) and fits(request, first)


def _heard_alike(call: Asking, recording: Content) -> bool:
    """Tell whether a server that mixes channels as it likes hears what people hear; what we cannot decode, it may."""
    try:
        with sounds.Decoder(recording.data) as decoder:
            return decoder.heard_alike(until=call.deadline)
    except media.MediaError:
        return True
    except TimeoutError:
        raise DeadlineExceeded("the time given to the call ran out while sound was decoded") from None


def _able(gateway: Gateway, ask: Ask, kind: Any, chains: Chains) -> list[Model]:
    return [model for model in gateway.able(kind, chains.models) if model.chats or TASKS[ask.task].transcribes]


_PLAIN_WAVES = frozenset({1, 3, 6, 7, 0xFFFE})
"""PCM, floats, A-law, mu-law and what spells its format out (RFC 2361): what servers read that say they take WAV."""


def _plain(item: Media) -> bool:
    """Tell a WAV file with ordinary samples from one that is the envelope of a codec, such as GSM."""
    if item.media_type != "audio/wav" or item.data is None:
        return True
    at = item.data.find(b"fmt ", 12, 4_096)
    return at < 0 or int.from_bytes(item.data[at + 8 : at + 10], "little") in _PLAIN_WAVES


# --- sound in parts -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """How a recording is cut for these models, and what names everything that the parts' answers depend on."""

    chains: Chains
    encoding: sounds.Encoding
    longest_s: float
    key: str


@dataclass(frozen=True)
class _Part:
    """One answered part: when it plays, what it was answered, and the calls that took."""

    heard: Heard
    answered: Answered
    calls: tuple[Mapping[str, Any], ...]

    @classmethod
    def silent(cls, ask: Ask) -> Output:
        """Return what is said of a part in which nothing can be heard: no model is asked about silence."""
        return Output(text="", language=ask.language, data=dict(TASKS[ask.task].silence))


def _planned(call: Asking, ask: Ask, chains: Chains) -> _Plan:
    """Return how to cut for every model of the chain that hears, so that each can stand in for another.

    Raises:
        NoCapableModel: none does, or none that takes an encoding there is.
    """
    models = [model for model in _able(call.gateway, ask, "audio", chains) if model.takes & _DATA_PARTS]
    encoding = sounds.encoding_for(lambda media_type: all(model.accepts("audio", media_type) for model in models))
    if encoding is None or not models:
        models = models[:1]
        encoding = sounds.encoding_for(lambda media_type: any(model.accepts("audio", media_type) for model in models))
    if encoding is None:
        raise NoCapableModel("no model of the chain takes sound in parts")
    asked = prompt(ask)
    text = len((asked.instructions + asked.text).encode())
    longest_s = min(
        LONGEST_PART_S,
        *(
            sounds.longest_part(encoding, max_bytes=_room(model, ask, text), longest_s=model.longest_audio)
            for model in models
        ),
    )
    names = tuple(model.name for model in models)
    named = json.dumps([_CUTTING, ask.identity, encoding.container, encoding.codec, round(longest_s, 3)])
    return _Plan(
        chains=replace(chains, models=names, higher=tuple(name for name in chains.higher if name in names)),
        encoding=encoding,
        longest_s=longest_s,
        key=hashlib.sha256(named.encode()).hexdigest()[:16],
    )


def _room(model: Model, ask: Ask, text_bytes: int) -> int:
    """Return the bytes of sound that fit into a model's body: as a file of its own, or in base64 beside the prompt."""
    if TASKS[ask.task].transcribes and "audio_transcriptions" in model.takes:
        return model.max_body - 4_096
    return (model.max_body - 2 * text_bytes - 8_192) * 3 // 4


async def _parts(
    call: Asking, ask: Ask, recording: Content, chains: Chains, seen: Seen, *, silence_too: bool = True
) -> Answered:
    """Ask about the parts of a recording; `silence_too` asks about one part where nothing at all can be heard."""
    plan = _planned(call, ask, chains)
    known = await asyncio.to_thread(call.progress.read, recording.id, plan.key)
    run = _Run(call, ask, recording, plan, {index: _restored(values) for index, values in known.items()}, seen)
    await run.go()
    if not run.answers and run.quiet is not None and silence_too:
        await run.ask_about(run.quiet)
    run.settle()
    answers = [run.answers[index] for index in sorted(run.answers)]
    if not answers:
        raise NothingHeard
    if len(answers) == 1 and not run.silent:
        only = answers[0]
        output = joined(ask.task, [only.heard])
        return replace(only.answered, output=output)
    whole_of_it = sorted([*(part.heard for part in answers), *run.silent], key=lambda part: part.start_s)
    return _merged(ask, whole_of_it, answers, run.began)


class NothingHeard(Exception):
    """A soundtrack holds silence alone."""


class _Run:
    """One pass over a recording: parts are decoded, asked about, kept."""

    def __init__(
        self, call: Asking, ask: Ask, recording: Content, plan: _Plan, known: dict[int, _Part], seen: Seen
    ) -> None:
        self.answers: dict[int, _Part] = {}
        self.silent: list[Heard] = []
        self.quiet: sounds.Part | None = None
        self.began = time.monotonic()
        self._call, self._ask, self._recording, self._plan, self._seen = call, ask, recording, plan, seen
        self._known = known
        for part in known.values():
            call.ledger.add(part.calls)  # paid for by a delivery that may have crashed before its record held them
        self._failed: list[GatewayError] = []
        self._spoilt: media.MediaError | None = None
        self._slots = asyncio.Semaphore(PARTS_AT_ONCE)

    async def go(self) -> None:
        """Decode and ask until the recording ends, a part fails, or time is up."""
        asked: set[asyncio.Task[None]] = set()
        try:
            await self._decode(asked)
        except media.MediaError as error:
            self._spoilt = error
        except TimeoutError:
            self._failed.append(DeadlineExceeded("the time given to the call ran out while sound was decoded"))
        finally:
            if asked:
                await asyncio.wait(asked)
        for task in asked:
            task.result()

    async def _decode(self, asked: set[asyncio.Task[None]]) -> None:
        with await asyncio.to_thread(sounds.Decoder, self._recording.data) as decoder:
            await self._ask_about_parts(decoder, asked)

    async def _ask_about_parts(self, decoder: sounds.Decoder, asked: set[asyncio.Task[None]]) -> None:
        plan, until = self._plan, self._call.deadline
        facts = await asyncio.to_thread(partial(decoder.facts, until=until))
        if facts.duration_s is not None and facts.duration_s > 1.05 * sounds.TOTAL_S:
            raise media.MediaError("too_large", f"the recording plays for more than {sounds.TOTAL_S / 3_600:g} h")
        parts = decoder.cut(
            plan.encoding, longest_s=plan.longest_s, wanted=lambda index: index not in self._known, until=until
        )
        while not self._failed:
            await self._slots.acquire()
            self._slots.release()  # only waited for: a part that is asked about takes its own
            part = await asyncio.to_thread(_next, parts)
            if part is None:
                return
            if part.index in self._known:
                self.answers[part.index] = self._known[part.index]
            elif part.silent:
                self.quiet = self.quiet or part
                self.silent.append(Heard(part.start_s, part.end_s, _Part.silent(self._ask)))
            elif self._call.deadline - time.monotonic() < LEAST_SECONDS:
                self._failed.append(DeadlineExceeded("the time given to the call ran out before every part was asked"))
            else:
                asked.add(asyncio.create_task(self.ask_about(part)))
                await asyncio.sleep(0)

    async def ask_about(self, part: sounds.Part) -> None:
        """Ask about one part and keep its answer."""
        seconds = part.end_s - part.start_s
        item = Media("audio", part.media_type, part.data, duration_s=seconds)
        call = self._call.part()
        async with self._slots:
            try:
                about = self._seen.model_copy(update={"kind": "audio", "duration_s": seconds})
                answered = await escalation.answer(call, self._ask, (item,), self._plan.chains, about)
            except GatewayError as error:
                self._failed.append(error)
                await call.hold()
                return
        self.silent = [heard for heard in self.silent if heard.start_s != part.start_s]
        heard = Heard(part.start_s, part.end_s, answered.output, answered.completion.model)
        kept = self.answers[part.index] = _Part(heard, answered, call.ledger.made)
        if not await call.hold():
            self._failed.append(DeadlineExceeded("another delivery took the upload over"))
        await asyncio.to_thread(
            self._call.progress.write, self._recording.id, self._plan.key, part.index, _storable(kept)
        )

    def settle(self) -> None:
        """Raise what kept the recording from being answered."""
        if self._spoilt is not None:
            raise self._spoilt
        if not self._failed:
            return
        worst = next((error for kind in _WORST for error in self._failed if isinstance(error, kind)), self._failed[0])
        waits = [error.retry_after_s for error in self._failed if error.retry_after_s is not None]
        worst.retry_after_s = max(waits, default=worst.retry_after_s)
        raise worst


def _next(parts: Iterator[sounds.Part]) -> sounds.Part | None:
    return next(parts, None)


def _merged(ask: Ask, parts: Sequence[Heard], answers: Sequence[_Part], began: float) -> Answered:
    """Return the answers to all parts as one."""
    output = joined(ask.task, parts)
    most = max(
        answers,
        key=lambda part: sum(answer.heard.seconds for answer in answers if answer.heard.model == part.heard.model),
    )
    seconds = sum(part.heard.seconds for part in answers) or 1.0
    candidates = [part.answered.kept for part in answers]
    sources = {candidate.completion.cost_source for candidate in candidates}
    problems = tuple(
        {problem.code: problem for candidate in candidates for problem in candidate.reading.problems}.values()
    )
    kept = Candidate(
        role="first",
        tier=most.answered.kept.tier,
        completion=replace(
            most.answered.completion,
            text=output.text,
            cost_source=sources.pop() if len(sources) == 1 else "unknown" if "unknown" in sources else "catalogue",
        ),
        reading=Reading(output, problems, any(candidate.reading.repaired for candidate in candidates)),
        score=sum(part.answered.kept.score * part.heard.seconds for part in answers) / seconds,
        confidence=sum(part.answered.kept.confidence * part.heard.seconds for part in answers) / seconds,
    )
    return Answered(
        output=output,
        kept=kept,
        candidates=(*candidates, kept),
        latency_ms=round((time.monotonic() - began) * 1000),
    )


def _storable(part: _Part) -> dict[str, Any]:
    kept = part.answered.kept
    # What a model said to the letter was read, and takes as much room again.
    answer = stored(replace(kept, completion=replace(kept.completion, text="")))
    return {"start_s": part.heard.start_s, "end_s": part.heard.end_s, "answer": answer, "calls": list(part.calls)}


def _restored(values: Mapping[str, Any]) -> _Part:
    candidate = restored(values["answer"])
    output = candidate.reading.output
    assert output is not None
    heard = Heard(values["start_s"], values["end_s"], output, candidate.completion.model)
    return _Part(heard, Answered(output, candidate, (candidate,), 0), tuple(values["calls"]))


# --- video ----------------------------------------------------------------------------------------------------------


async def _film(
    call: Asking, ask: Ask, recording: Content, chains: Chains, hearing: Chains, seeing: Chains, seen: Seen
) -> Answered:
    """Ask about a video by its key frames and the words of its soundtrack, in one request."""
    film, frames = await _looked_at(call, recording)
    models = call.gateway.able("image", (*chains.models, *seeing.models))
    if not models:
        raise NoCapableModel("no model of the chain takes a video, or the pictures of one")
    speech = await _soundtrack(call, ask, recording, hearing, seen) if film.sound else None
    facts = _context_of(film, frames, speech)
    # First, as a prompt has room for so many values: what is known of the video itself is not crowded out.
    others = {name: value for name, value in ask.context.items() if name not in facts}
    asked = ask.model_copy(update={"context": {**facts, **others}})
    pictures = tuple(Media("image", "image/jpeg", frame.data) for frame in frames)
    chain = replace(chains, models=tuple(model.name for model in models), higher=seeing.higher)
    about = seen.model_copy(update={"duration_s": film.duration_s or seen.duration_s})
    answered = await escalation.answer(call, asked, pictures, chain, about)
    data = {**answered.output.data, "frames": [frame.at_s for frame in frames]}
    if speech is not None:
        # What was heard with its times, rather than what a model of pictures repeats of it.
        data["segments"] = speech.data.get("segments", [])
    output = answered.output.model_copy(update={"data": data})
    return replace(answered, output=output, poster=_small(frames))


def _poster(data: bytes, deadline: float) -> bytes | None:
    """Return a small picture of a video; None where none can be had: its answer is paid for, and counts."""
    until = min(deadline, time.monotonic() + 2 * POSTER_WORK_S)
    try:
        return _small(sounds.key_frames(data, 1, longest_side=FRAME_SIDE, work_s=POSTER_WORK_S, until=until))
    except (media.MediaError, TimeoutError, DecoderStopped):
        return None


def _small(frames: Sequence[sounds.KeyFrame]) -> bytes | None:
    """Return the frame in the middle as a poster."""
    frame = frames[len(frames) // 2].data
    try:
        return media.model_copy(frame, max_side=POSTER_SIDE, max_bytes=POSTER_BYTES, media_types=("image/webp",))[0]
    except media.MediaError:
        return None


async def _looked_at(call: Asking, recording: Content) -> tuple[sounds.Facts, list[sounds.KeyFrame]]:
    def look() -> tuple[sounds.Facts, list[sounds.KeyFrame]]:
        until = call.deadline - LEAST_SECONDS
        with sounds.Decoder(recording.data) as decoder:
            return decoder.facts(until=until), decoder.key_frames(FRAMES, longest_side=FRAME_SIDE, until=until)

    try:
        return await asyncio.to_thread(look)
    except TimeoutError:
        raise DeadlineExceeded("the time given to the call ran out while pictures were decoded") from None


async def _soundtrack(call: Asking, ask: Ask, recording: Content, hearing: Chains, seen: Seen) -> Output | None:
    """Return what is said in a video, None where nothing is or nobody can hear it."""
    try:
        heard = await _parts(
            call, Ask(task="transcribe", language=ask.language), recording, hearing, seen, silence_too=False
        )
    except (NothingHeard, NoCapableModel, media.MediaError):
        return None  # the pictures can be told all the same
    return heard.output


def _context_of(facts: sounds.Facts, frames: Sequence[sounds.KeyFrame], speech: Output | None) -> dict[str, str]:
    """Return what a model of pictures gets of the video beside its frames: data, quoted as such by the prompt."""
    length = f" of {facts.duration_s:.1f} s" if facts.duration_s else ""
    moments = ", ".join(f"{frame.at_s:.1f}" for frame in frames)
    context = {"frames": f"The pictures are frames of the video{length}, in order, shown at second {moments}."}
    if speech is None or not speech.text:
        return context | {"sound": "No sound of the video is known."}
    if not speech.data.get("speech"):
        return context | {"sound": f"Nobody speaks. {speech.text}"}
    pieces: list[str] = [""]
    for segment in speech.data.get("segments") or [{"text": speech.text}]:
        start = segment.get("start_s")
        words = f"[{start:.1f}] {segment['text']}" if start is not None else str(segment["text"])
        for at in range(0, len(words), _CONTEXT_CHARACTERS):
            piece = words[at : at + _CONTEXT_CHARACTERS]
            if len(pieces[-1]) + len(piece) < _CONTEXT_CHARACTERS:
                pieces[-1] = f"{pieces[-1]} {piece}".strip()
            else:
                pieces.append(piece)
    kept = [piece for piece in pieces if piece][:_CONTEXT_VALUES]
    return context | {f"said {number}": piece for number, piece in enumerate(kept, 1)}
