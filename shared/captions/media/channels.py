"""Several channels become one without anything in them being lost.

A mean of two channels of opposite phase is silence, though people hear them well: so it is where one wire of a
microphone was swapped. And of channels without a usual place FFmpeg leaves some out of its mix, or refuses to mix.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from captions.media.errors import MediaError
from captions.media.recordings import RATE, SILENCE

Wide = NDArray[np.float32]
"""Samples between -1 and 1, a row for each channel."""

_GROUP_S = 0.25
_MOST_VALUES = 1_000_000
"""Seconds, and samples of all channels together, that are decided about at once."""
_LOST, _BACK = 8.0, 2.0
"""How many times less power than of one channel alone (9 dB) a mix has that was cancelled out, and from when on (3 dB)
it is taken again. The mean of two channels without anything in common has half the power of either."""
_STAY = 4.0
"""How many times the power of the channel that is heard another one must have to be heard instead."""
_MIXED_WHOLE = frozenset(
    ("stereo", "2 channels", "downmix", "2.1", "3.0", "3.0(back)", "3.1", "3.1.2", "4.0", "4.1", "quad", "quad(side)",
     "5.0", "5.0(side)", "5.1", "5.1(side)", "5.1.2", "5.1.2(back)", "6.0", "6.0(front)", "hexagonal", "6.1",
     "6.1(back)", "6.1(front)", "7.0", "7.0(front)", "7.1", "7.1(wide)", "7.1(wide-side)", "7.1.2")
)  # fmt: skip
"""Layouts of which FFmpeg's mix leaves out no channel but that of low frequencies, as it does with others."""
_LOW = frozenset({"LFE", "LFE2"})
_PLANES = 7
"""Channels of a frame that PyAV reads when each stands by itself; beyond, it reads past their end."""

Moment = tuple[float, Any, bool]


def mixed(frames: Iterator[tuple[float, Any]]) -> Iterator[Moment]:
    """Yield frames whose every mix is what people hear: as they are, where their own mix is.

    Each comes with its second, and with whether it was altered. Only where the mix of a quarter of a second loses what
    one channel holds, all channels become that one; channels without places become their mean.
    """
    mixer: _Mixer | None = None
    for at_s, frame in frames:
        form = frame.format.name, frame.layout.name, frame.sample_rate
        if mixer is None or mixer.form != form:
            if mixer is not None:
                yield from mixer.rest()
            mixer = _Mixer(frame, form)
        yield from mixer.taken(at_s, frame)
    if mixer is not None:
        yield from mixer.rest()


class _Mixer:
    """Frames of one form, and which of their channels is heard."""

    def __init__(self, frame: Any, form: tuple[str, str, int]) -> None:
        self.form = form
        places = frame.layout.channels
        self._layout, self._count, self._rate = frame.layout, len(places), frame.sample_rate
        self._placed = frame.layout.name in _MIXED_WHOLE
        self._packing = None
        if frame.format.is_planar and self._count > _PLANES:
            self._packing = av.AudioResampler(format=frame.format.packed, layout=frame.layout, rate=frame.sample_rate)
        heard = [not self._placed or place.name not in _LOW for place in places]
        self._weights = (np.array(heard) / sum(heard)).astype(np.float32)
        self._chosen: int | None = None
        self._held: list[tuple[float, Any]] = []
        self._samples = 0

    def taken(self, at_s: float, frame: Any) -> Iterator[Moment]:
        """Take a frame, and yield those that are decided about."""
        frame = _finite(frame) if self.form[0] in ("flt", "dbl") else frame
        if self._count == 1:
            yield at_s, frame, False
            return
        try:
            self._held += [(at_s, packed) for packed in (self._packing.resample(frame) if self._packing else (frame,))]
        except (av.error.FFmpegError, ValueError) as error:
            raise MediaError("broken", f"sound in {self._layout.name} is not decoded") from error
        self._samples += frame.samples
        if self._samples >= min(_GROUP_S * self._rate, _MOST_VALUES / self._count):
            yield from self.rest()

    def rest(self) -> Iterator[Moment]:
        """Yield what is held."""
        held, self._held, self._samples = self._held, [], 0
        if not held:
            return
        values = [self._values(frame) for _, frame in held]
        self._choose(np.concatenate(values, axis=1))
        for (at_s, frame), piece in zip(held, values, strict=True):
            if self._chosen is None and self._placed:
                yield at_s, frame, False
            else:
                yield at_s, self._alike(frame, piece), True

    def _values(self, frame: Any) -> NDArray[Any]:
        """Return a frame's samples, a row for each channel."""
        values: NDArray[Any] = frame.to_ndarray()
        return values if frame.format.is_planar else values.reshape(-1, self._count).T

    def _choose(self, values: NDArray[Any]) -> None:
        """Choose the channel to be heard in place of the mix; none where the mix will do."""
        step = max(1, self._rate // RATE)
        whole = values.shape[1] // step * step
        slow = np.mean([_scaled(values[:, first:whole:step]) for first in range(step)], axis=0)
        mix = self._weights @ slow
        *powers, power = (_power(sound) for sound in (*slow, mix))
        loudest = int(np.argmax(powers))
        if _loudness(slow[loudest]) < SILENCE:
            return  # whichever is taken, nothing is heard
        chosen = self._chosen is not None
        bound = powers[loudest] / self._count**2 / (_BACK if chosen else _LOST)
        # Who speaks in one of many channels may be too faint in their mean.
        faint = not self._placed and _loudness(mix) < (10 * SILENCE if chosen else SILENCE)
        if power >= bound and not faint:
            self._chosen = None
        elif self._chosen is None or _STAY * powers[self._chosen] < powers[loudest]:
            self._chosen = loudest

    def _alike(self, frame: Any, values: NDArray[Any]) -> Any:
        """Return a frame all of whose channels are the chosen one; else the mean of them alone."""
        if self._placed and self._chosen is not None:
            values = np.repeat(values[self._chosen : self._chosen + 1], self._count, axis=0)
            packed = values if frame.format.is_planar else values.T.reshape(1, -1)
            out = av.AudioFrame.from_ndarray(np.ascontiguousarray(packed), frame.format.name, self._layout)
        else:
            scaled = _scaled(values)
            mono = self._weights @ scaled if self._chosen is None else scaled[self._chosen]
            out = av.AudioFrame.from_ndarray(np.ascontiguousarray(mono).reshape(1, -1), "flt", "mono")
        return _timed(out, frame)


def _finite(frame: Any) -> Any:
    """Return a frame of floats without those that are no number: resampling would spread them to their neighbours."""
    values = frame.to_ndarray()
    if np.isfinite(values).all():
        return frame
    finite = np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=-1.0)
    return _timed(av.AudioFrame.from_ndarray(finite, frame.format.name, frame.layout), frame)


def _timed(out: Any, frame: Any) -> Any:
    """Return a frame with the rate and time of another."""
    out.sample_rate, out.pts, out.time_base = frame.sample_rate, frame.pts, frame.time_base
    return out


def _scaled(values: NDArray[Any]) -> Wide:
    """Return samples of any width between -1 and 1."""
    wide: Wide = values.astype(np.float32)
    if values.dtype == np.uint8:
        wide -= 128
        wide /= 128
    elif values.dtype.kind == "i":
        wide *= np.float32(2.0 ** (1 - 8 * values.dtype.itemsize))
    return np.nan_to_num(wide, copy=False)


def _power(samples: Wide) -> float:
    """Return the mean square of the changes of sound: neither an offset nor hum makes up for speech that was lost."""
    return float(np.square(np.diff(samples)).mean()) if len(samples) > 1 else 0.0


def _loudness(samples: Wide) -> float:
    """Return the mean square of the loudest 20 ms."""
    frame = min(RATE // 50, max(1, len(samples)))
    whole = samples[: len(samples) // frame * frame].reshape(-1, frame)
    return float(np.square(whole).mean(axis=1).max(initial=0.0))
