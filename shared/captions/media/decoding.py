"""What FFmpeg (PyAV) does with recordings and video; runs in the decoder's process alone (`captions.media.decoder`).

Whatever is decoded is bounded in memory (a part at a time), in length and in processor time; demuxers that open further
files or addresses are not let in. Nothing here trusts what a header says of a length.
"""

from __future__ import annotations

import io
import math
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from captions.media import chained, channels, reference_frames
from captions.media.errors import MediaError
from captions.media.recordings import RATE, SILENCE, Encoding, Facts, KeyFrame, Part

Samples = NDArray[np.int16]

_FRAME = RATE // 50
_PAUSE_FRAMES = 25
"""Half a second: so long the quietest place is to be, so that a pause between sentences wins over one in a word."""
_CLOSE_FRAMES = 5
_FLOOR = 10.0
"""Mean square of a sample (-80 dBFS) below which sound is equally silent."""
_SILENT = 32_768**2 * SILENCE
_SLACK = 1.26
"""One decibel: how much louder a place may be than the quietest one and still belong to the same pause."""
_FULLEST = 0.9
"""The share of the longest part that a recording is divided by, so that a pause can be looked for around each cut."""

# Demuxers that read one file and nothing else: playlists and the like open further files and URLs by themselves.
_CONTAINERS = ",".join(
    ("wav", "w64", "mp3", "flac", "ogg", "mov", "matroska", "webm", "aac", "amr", "asf", "avi", "aiff", "caf", "au",
     "mpeg", "mpegts", "mpegvideo", "flv", "gsm", "ac3", "eac3", "ape", "wv", "tta", "dts", "dtshd", "mlp", "truehd",
     "mpc", "mpc8", "dsf", "voc", "rm", "mxf", "dv", "ivf", "h264", "hevc", "wtv", "sox")
)  # fmt: skip
_OPTIONS = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "none", "max_streams": "64"}
_DAMAGE = (av.error.FFmpegError, ValueError, IndexError)
"""What PyAV raises of damaged packets, and at the end of what has more streams there than at its beginning."""
_RATES = range(4_000, 384_001)
_CHANNELS = range(1, 33)
_TRACKS = 8
_GAP_S, _LONGEST_GAP_S = 0.25, 3_600.0
_TIMED = ("mov", "matroska")
"""Seconds without sound that are a pause of the recorder, in formats that state the time of each packet."""
_LEVEL_BLOCK = 30 * RATE // _FRAME * _FRAME

_THUMBNAIL = (16, 16)
_BLANK = 3.0
"""Standard deviation of the luma (of 255) below which a frame shows nothing."""
_SAME = 5.0
"""Mean difference of two thumbnails' luma (of 255) below which a frame shows nothing new."""
_CANDIDATES_PER_FRAME = 4
_FRAMES_TO_A_MOMENT = 300
_SHORT_S = 120.0
"""Of a video that is decoded from its beginning on, should seeking find few pictures."""


def facts(file: io.FileIO) -> Facts:
    """Return what a recording holds; see `Decoder.facts`."""
    with _open(file) as container:
        pictures = _pictures(container)
        return Facts(
            duration_s=_duration_s(container),
            sound=_sound(container) is not None,
            pictures=pictures is not None,
            width=pictures.codec_context.width if pictures is not None else 0,
            height=pictures.codec_context.height if pictures is not None else 0,
        )


def heard_alike(file: io.FileIO, *, work_s: float, until: float) -> bool:
    """Tell whether whoever mixes a recording's channels hears all of it; see `Decoder.heard_alike`."""
    budget = _Budget(work_s, until)
    if len(chained.links(file)) > 1 or _track(file, _Budget(work_s / 4, until)):
        return False
    with _open(file) as container:
        stream = _sound(container)
        if stream is None or stream.codec_context.channels == 1:
            return True
        return not any(altered for *_, altered in channels.mixed(_frames(container, stream, budget)))


def cut(
    file: io.FileIO,
    encoding: Encoding,
    *,
    longest_s: float,
    wanted: Callable[[int], bool],
    total_s: float,
    work_s: float,
    until: float,
) -> Iterator[Part]:
    """Yield the sound of a recording in parts; see `Decoder.cut`. Take all parts in one thread."""
    limit = max(_FRAME * 2 * _PAUSE_FRAMES, int(longest_s * RATE))
    budget = _Budget(work_s, until)
    links = chained.links(file)
    track = _track(links[0], _Budget(work_s / 4, until))
    with _open(links[0]) as container:
        stream = _sound(container, track)
        if stream is None:
            raise MediaError("broken", "the recording holds no sound of a known codec")
        first, last = _window(_duration_s(container) if len(links) == 1 else None, limit)
        index, begun, pending, held = 0, 0, [], 0
        offset_s: float | None = None
        further = (_decoded_link(link, budget) for link in links[1:])
        for moment, piece in chain(_decoded(container, stream, budget), chain.from_iterable(further)):
            offset_s = moment if offset_s is None else offset_s
            pending.append(piece)
            held += len(piece)
            if begun + held > total_s * RATE:
                message = f"the recording plays for longer than {_hours(total_s)}, the most that is taken"
                raise MediaError("too_large", message)
            while held > last:
                samples = np.concatenate(pending)
                at, pause_db = _quietest(samples[:last], first)
                yield _part(index, begun, samples[:at], offset_s, encoding, wanted, pause_db)
                samples = samples[at:].copy()
                index, begun, pending, held = index + 1, begun + at, [samples], len(samples)
        if held == 0 and index == 0:
            raise MediaError("broken", "the recording holds no sound that can be decoded")
        if held:
            yield _part(index, begun, np.concatenate(pending), offset_s or 0.0, encoding, wanted, None)


def key_frames(
    file: io.FileIO,
    count: int,
    *,
    longest_side: int,
    max_pixels: int,
    max_kept_pixels: int,
    work_s: float,
    until: float,
) -> list[KeyFrame]:
    """Return at most `count` pictures of a video; see `Decoder.key_frames`."""
    budget = _Budget(work_s, until, clock=time.process_time)
    with _open(file) as container:
        stream = _affordable(_pictures(container), max_pixels, max_kept_pixels)
        duration_s, slots = _duration_s(container), reference_frames.SLOTS.get(stream.codec_context.name, 0)
        pixels = stream.codec_context.width * stream.codec_context.height
        moments = _moments(duration_s, count * _CANDIDATES_PER_FRAME)
        seen = _seen(container, stream, moments, budget, longest_side)
    if max(seen, default=0.0) <= moments[0]:
        # Browsers that record, and whoever streams, cannot tell the length; some headers tell one that is not true, or
        # the time of the end, of what begins later than at 0.
        with _open(file) as container:
            measured_s = _measured_s(container, _pictures(container), budget)
        if measured_s is not None and (duration_s is None or measured_s < duration_s / 2):
            duration_s, moments = measured_s, _moments(measured_s, count * _CANDIDATES_PER_FRAME)
            with _open(file) as container:
                stream = _affordable(_pictures(container), max_pixels, max_kept_pixels)
                seen |= _seen(container, stream, moments, budget, longest_side)
    enough = seen and pixels * (slots + 1) > max_kept_pixels
    if len(seen) < min(count, len(moments)) and len(moments) > 1 and not enough:
        # Few key frames, far apart: decode up to each moment instead.
        try:
            with _open(file) as container:  # again: a decoder that began with key frames alone stays so (dav1d)
                stream = _affordable(_pictures(container), max_pixels, max_kept_pixels)
                seen |= _seen(container, stream, _moments(duration_s, count), budget, longest_side, exactly=True)
        except (MediaError, MemoryError):
            if not seen:
                raise  # else the key frames are enough
        half_s = (duration_s or 0.0) / 2
        if len(seen) < 2 or max(seen) < half_s or (len(seen) < count and 2 * half_s <= _SHORT_S):
            # A transport stream is sought through by time alone: behind its only key frame nothing can be decoded. Nor
            # is what comes long after the only one of a call that a browser recorded.
            with _open(file) as container:
                stream = _affordable(_pictures(container), max_pixels, max_kept_pixels)
                seen |= _passed(container, stream, _moments(duration_s, count), budget, longest_side)
    if not seen:
        raise MediaError("broken", "no picture of the video can be decoded")
    return [_jpeg(at_s, picture) for at_s, picture in _most_different(sorted(seen.items(), key=_at), count)]


def _affordable(stream: Any, max_pixels: int, max_kept_pixels: int) -> Any:
    """Return a stream of pictures whose decoding takes no more pixels than allowed, as far as its header tells."""
    if stream is None:
        raise MediaError("broken", "the video holds no moving pictures")
    context = stream.codec_context
    size, pixels = f"{context.width} x {context.height}", context.width * context.height
    if pixels > max_pixels:
        raise MediaError("bomb", f"the video has {size} pixels, more than are decoded")
    kept = reference_frames.declared(context.name, bytes(context.extradata or b""))
    if kept is not None and pixels * (kept + 1) > max_kept_pixels:
        raise MediaError("bomb", f"the video has its decoder keep {kept} frames of {size} pixels")
    context.options = {**context.options, "max_pixels": str(max_pixels)}
    return stream


# --- containers -----------------------------------------------------------------------------------------------------


def _open(file: io.RawIOBase) -> Any:
    file.seek(0)
    try:
        return av.open(file, container_options=_OPTIONS, metadata_errors="ignore")
    except MemoryError:  # which one of FFmpeg's errors is as well
        raise
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise MediaError("broken", "the recording's container cannot be read") from error


def _duration_s(container: Any) -> float | None:
    return container.duration / av.time_base if container.duration and container.duration > 0 else None


def _pictures(container: Any) -> Any:
    """Return the stream of moving pictures; a cover picture is none."""
    cover = av.stream.Disposition.attached_pic
    moving = (stream for stream in container.streams.video if not stream.disposition & cover)
    return next((stream for stream in moving if stream.codec_context is not None), None)


def _sound(container: Any, number: int = 0) -> Any:
    """Return the first stream of sound whose codec is known, or the one of that number among them.

    Of MP4 files those come first that are switched on, as players choose.
    """
    known = [stream for stream in container.streams.audio if stream.codec_context is not None]
    if container.format.name.startswith("mov"):  # of other files that have such a switch the digest does not tell it
        known.sort(key=lambda stream: not stream.disposition & av.stream.Disposition.default)
    return known[number] if number < len(known) else None


class _Budget:
    """What decoding may take: processor time of the thread that asks, and time until a moment."""

    def __init__(self, work_s: float, until: float, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._work_s = work_s
        self._ends = clock() + work_s
        self._until = until

    def check(self) -> None:
        if time.monotonic() >= self._until:
            raise TimeoutError("the time for decoding the recording is over")
        if self._clock() > self._ends:
            message = f"decoding the recording takes more than {self._work_s:g} s of processor time"
            raise MediaError("bomb", message)


# --- sound ----------------------------------------------------------------------------------------------------------


def _decoded(container: Any, stream: Any, budget: _Budget) -> Iterator[tuple[float, Samples]]:
    """Yield the sound of a stream as mono samples at `RATE`, each piece with the second the sound begins at.

    Where nothing was recorded for a while there is silence, so that what comes behind it keeps its time.
    """
    resampler, form, begins_s, ends_s = _resampler(), None, 0.0, 0.0
    ends_at_s = (_duration_s(container) or math.inf) if container.format.name.startswith(_TIMED) else 0.0
    for number, (at_s, frame, _) in enumerate(channels.mixed(_frames(container, stream, budget))):
        at_s = ends_s if math.isnan(at_s) else at_s
        if number == 0:
            begins_s = ends_s = at_s
        gap_s = at_s - ends_s if at_s <= ends_at_s and _GAP_S < at_s - ends_s < _LONGEST_GAP_S else 0.0
        if gap_s or (frame.format.name, frame.layout.name, frame.sample_rate) != form:
            # Joined files and broadcasts change their channels or rate; a resampler takes one form alone.
            yield from ((begins_s, piece) for piece in _rest(resampler))
            resampler, form = _resampler(), (frame.format.name, frame.layout.name, frame.sample_rate)
        for at in range(0, int(gap_s * RATE), _LEVEL_BLOCK):
            yield begins_s, np.zeros(min(_LEVEL_BLOCK, int(gap_s * RATE) - at), dtype=np.int16)
        ends_s = max(at_s, ends_s) + frame.samples / frame.sample_rate  # one time may stand for several pieces
        yield from ((begins_s, out.to_ndarray().reshape(-1)) for out in resampler.resample(frame))
    yield from ((begins_s, piece) for piece in _rest(resampler))


def _frames(container: Any, stream: Any, budget: _Budget) -> Iterator[tuple[float, Any]]:
    """Yield the sound of a stream as it is decoded, each piece with the second it begins at, NaN where it has none.

    What is damaged is left out: what comes behind it is worth having, too.
    """
    context = stream.codec_context
    if context.rate not in _RATES or context.channels not in _CHANNELS:
        raise MediaError("broken", f"sound of {context.channels} channels at {context.rate} Hz is not decoded")
    begins_s = (container.start_time or 0) / av.time_base
    packets = container.demux(stream)
    while True:
        budget.check()
        try:
            packet = next(packets, None)
            if packet is None:
                break
            for frame in packet.decode():
                if frame.sample_rate not in _RATES or frame.layout.nb_channels not in _CHANNELS:
                    raise ValueError("sound at an impossible rate")
                yield (math.nan if frame.time is None else max(0.0, frame.time - begins_s)), frame
        except MemoryError:
            raise
        except _DAMAGE:
            continue


def _track(file: io.RawIOBase, budget: _Budget) -> int:
    """Return the number of the first track in which something is heard, 0 where there is none in the time.

    Programs that record screens and calls keep one for each source, of which the first may be left empty.
    """
    for number in range(_TRACKS):
        with _open(file) as container:
            stream = _sound(container, number)
            if stream is None or _sound(container, 1) is None:
                return 0
            try:
                pieces = (piece.astype(np.float32) for _, piece in _decoded(container, stream, budget))
                if any(np.square(piece).mean() >= _SILENT for piece in pieces):
                    return number
            except MediaError as error:
                if error.code != "broken":
                    return 0
    return 0


def _decoded_link(file: io.RawIOBase, budget: _Budget) -> Iterator[tuple[float, Samples]]:
    """Yield the sound of a recording behind another in one file; nothing where it has none."""
    try:
        with _open(file) as container:
            if (stream := _sound(container)) is not None:
                yield from _decoded(container, stream, budget)
    except MediaError as error:
        if error.code != "broken":
            raise


def _resampler() -> Any:
    return av.AudioResampler(format="s16", layout="mono", rate=RATE)


def _rest(resampler: Any) -> list[Samples]:
    """Return the samples that a resampler still holds."""
    try:
        return [out.to_ndarray().reshape(-1) for out in resampler.resample(None)]
    except _DAMAGE:
        return []  # nothing was in it


def _window(duration_s: float | None, limit: int) -> tuple[int, int]:
    """Return between which samples of a part its end is looked for."""
    aim = 0.75 * limit
    if duration_s is not None and duration_s * RATE > limit:
        aim = duration_s * RATE / math.ceil(duration_s * RATE / (_FULLEST * limit))
    return int(0.75 * aim), limit if duration_s is None or duration_s * RATE <= limit else min(limit, int(1.25 * aim))


def _levels(samples: Samples) -> NDArray[np.float64]:
    """Return the mean square of every 20 ms, computed in blocks so that no wide copy of the whole is made."""
    whole = samples[: len(samples) // _FRAME * _FRAME]
    blocks = (whole[at : at + _LEVEL_BLOCK].astype(np.float32) for at in range(0, len(whole), _LEVEL_BLOCK))
    levels = [np.square(block).reshape(-1, _FRAME).mean(axis=1) for block in blocks]
    return np.concatenate(levels).astype(np.float64) if levels else np.zeros(1)


def _quietest(samples: Samples, first: int) -> tuple[int, float]:
    """Return where after `first` the samples are best cut, and how many decibels that lies below the loud places."""
    levels = np.maximum(_levels(samples), _FLOOR)
    start = first // _FRAME
    around = np.convolve(levels, np.ones(_PAUSE_FRAMES) / _PAUSE_FRAMES, mode="same")[start:-_PAUSE_FRAMES]
    quiet = around <= around.min() * _SLACK
    edges = np.flatnonzero(np.diff(np.concatenate(([False], quiet, [False])).astype(np.int8)))
    runs = edges.reshape(-1, 2)
    begin, end = runs[np.argmax(runs[:, 1] - runs[:, 0])]  # the longest of the quietest pauses
    middle = start + (int(begin) + int(end)) // 2
    # Within it, the quietest tenth of a second: at the edge of a short pause somebody still speaks.
    close = np.convolve(levels, np.ones(_CLOSE_FRAMES) / _CLOSE_FRAMES, mode="same")
    low, high = middle - _PAUSE_FRAMES // 2, middle + _PAUSE_FRAMES // 2 + 1
    least = np.flatnonzero(close[low:high] <= close[low:high].min() * _SLACK)
    at = low + int(least[len(least) // 2])
    below = 10 * math.log10(float(np.percentile(levels, 90)) / float(close[at]))
    return at * _FRAME + _FRAME // 2, below


def _part(
    index: int,
    begun: int,
    samples: Samples,
    offset_s: float,
    encoding: Encoding,
    wanted: Callable[[int], bool],
    pause_db: float | None,
) -> Part:
    silent = bool(_levels(samples).max() < _SILENT)
    return Part(
        index=index,
        start_s=round(offset_s + begun / RATE, 3),
        end_s=round(offset_s + (begun + len(samples)) / RATE, 3),
        media_type=encoding.media_type,
        data=_encoded(samples, encoding) if wanted(index) else None,
        silent=silent,
        pause_db=None if pause_db is None else round(pause_db, 1),
    )


def _encoded(samples: Samples, encoding: Encoding) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=encoding.container) as output:
        stream = output.add_stream(encoding.codec, rate=RATE, layout="mono")
        if encoding.effort is not None:
            stream.codec_context.options = {"compression_level": encoding.effort}
        if encoding.bit_rate is not None:
            stream.bit_rate = encoding.bit_rate
        for at in range(0, len(samples), RATE):
            frame = av.AudioFrame.from_ndarray(samples[at : at + RATE].reshape(1, -1), format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, at
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def _hours(seconds: float) -> str:
    return f"{seconds / 3_600:g} h" if seconds >= 3_600 else f"{seconds:g} s"


# --- pictures -------------------------------------------------------------------------------------------------------


def _at(moment: tuple[float, Any]) -> float:
    return moment[0]


def _moments(duration_s: float | None, count: int) -> list[float]:
    """Return evenly spread moments, none at the very beginning or end; only the first of what has no length."""
    return [duration_s * (place + 0.5) / count for place in range(count)] if duration_s else [0.0]


def _measured_s(container: Any, stream: Any, budget: _Budget) -> float | None:
    """Return the second at which the last packet of a stream is shown; by their number where none tells its time."""
    begins_s = (container.start_time or 0) / av.time_base
    last_s, packets = 0.0, 0
    try:
        for packet in container.demux(stream):
            packets += 1
            budget.check()
            if packet.pts is not None:
                last_s = max(last_s, float(packet.pts * packet.time_base) - begins_s)
    except (MediaError, MemoryError, *_DAMAGE):
        pass  # what was read until here is there
    return last_s or (packets / float(stream.average_rate) if stream.average_rate else None)


def _seen(
    container: Any,
    stream: Any,
    moments: Sequence[float],
    budget: _Budget,
    longest_side: int,
    *,
    exactly: bool = False,
) -> dict[float, Image.Image]:
    """Return pictures by the second they are shown at: the key frame before each moment, or the very moment's."""
    stream.codec_context.skip_frame = "DEFAULT" if exactly else "NONKEY"
    begins_s = (container.start_time or 0) / av.time_base
    seen: dict[float, Image.Image] = {}
    for moment in moments:
        try:
            if len(moments) > 1:
                container.seek(int((moment + begins_s) * av.time_base), backward=True)
            for number, frame in enumerate(container.decode(stream)):
                budget.check()
                shown_s = max(0.0, (frame.time or 0.0) - begins_s)
                if exactly and shown_s < moment and number < _FRAMES_TO_A_MOMENT:
                    continue
                if round(shown_s, 3) not in seen:
                    seen[round(shown_s, 3)] = _small(frame, longest_side)
                break
        except (MediaError, MemoryError):
            if seen:
                break  # what was found in the time and memory allowed is enough
            raise
        except _DAMAGE:
            continue  # a damaged stretch; other moments may do
    return seen


def _passed(
    container: Any, stream: Any, moments: Sequence[float], budget: _Budget, longest_side: int
) -> dict[float, Image.Image]:
    """Return the first picture from each moment on, by the second it is shown at, decoding all before the last."""
    begins_s = (container.start_time or 0) / av.time_base
    seen: dict[float, Image.Image] = {}
    try:
        for number, frame in enumerate(container.decode(stream)):
            budget.check()
            known = frame.time is not None or not stream.average_rate
            shown_s = max(0.0, (frame.time or 0.0) - begins_s) if known else number / float(stream.average_rate)
            if len(seen) == len(moments):
                break
            if not seen or shown_s >= moments[len(seen)]:
                seen.setdefault(round(shown_s, 3), _small(frame, longest_side))
    except (MediaError, MemoryError):
        return seen  # what was found in the time and memory allowed
    except _DAMAGE:
        return seen  # from here on it is damaged
    return seen


def _small(frame: Any, longest_side: int) -> Image.Image:
    """Return a frame as a picture no longer than allowed, the way up it is to be shown, on white where it is clear."""
    shrink = min(1.0, longest_side / max(frame.width, frame.height))
    width, height = max(1, round(frame.width * shrink)), max(1, round(frame.height * shrink))
    clear = any(component.is_alpha for component in frame.format.components)
    picture: Image.Image
    if clear:
        over = Image.fromarray(frame.reformat(width=width, height=height, format="rgba").to_ndarray())
        picture = Image.new("RGB", over.size, "white")
        picture.paste(over, mask=over.getchannel("A"))
        if picture.getcolors(1) is not None:  # white on white
            picture.paste((128, 128, 128), (0, 0, *over.size))
            picture.paste(over, mask=over.getchannel("A"))
    else:
        picture = frame.reformat(width=width, height=height, format="rgb24").to_image()
    matrix = frame.side_data.get("DISPLAYMATRIX")
    signs = tuple((value > 0) - (value < 0) for value in struct.unpack_from("<9i", bytes(matrix))) if matrix else ()
    if (mirrored := _MIRRORED.get((*signs[:2], *signs[3:5]))) is not None:
        return picture.transpose(mirrored)
    return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture


_MIRRORED = {
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}
"""By the signs of a display matrix (ISO/IEC 14496-12, 8.3.2): front cameras mirror, which no angle tells."""


def _most_different(candidates: Sequence[tuple[float, Image.Image]], count: int) -> list[tuple[float, Image.Image]]:
    """Return at most `count` of the pictures: each time the one most unlike those taken before, while it is unlike."""
    looks = [
        np.asarray(picture.convert("L").resize(_THUMBNAIL), dtype=np.float32).reshape(-1) for _, picture in candidates
    ]
    telling = [place for place, look in enumerate(looks) if look.std() >= _BLANK] or [0]
    taken = [telling[0]]
    while len(taken) < count:
        farthest, distance = max(
            ((place, min(float(np.abs(looks[place] - looks[other]).mean()) for other in taken)) for place in telling),
            key=lambda interval: interval[1],
        )
        if distance < _SAME:
            break
        taken.append(farthest)
    return [candidates[place] for place in sorted(taken)]


def _jpeg(at_s: float, picture: Image.Image) -> KeyFrame:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return KeyFrame(at_s, file.getvalue(), *picture.size)
