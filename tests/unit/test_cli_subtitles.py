"""`captions get --format`: the words of an upload by themselves, as text or with times."""

import pytest
from typer.testing import CliRunner

from captions.records.record import Record, Result
from captions_cli.errors import CommandError, ExitCode
from captions_cli.main import app
from captions_cli.subtitles import words

SEGMENTS = [
    {"start_s": 0.5, "end_s": 2.0, "text": "Good evening.", "speaker": None},
    {"start_s": 3_661.25, "end_s": 3_663.0, "text": "Good night & <bye>.", "speaker": "Speaker 1"},
]


def record(**data: object) -> Record:
    result = Result(text="Good evening. Good night.", language="en", task="transcribe", data=dict(data))
    return Record(
        asset="media/talk.mp3", bucket="media", key="talk.mp3", sequencer="1", state="captioned", result=result
    )


def test_subtitles_have_the_times_of_the_whole_recording() -> None:
    vtt = words(record(segments=SEGMENTS), "vtt")
    assert vtt.startswith("WEBVTT\n\n00:00:00.500 --> 00:00:02.000\nGood evening.\n")
    assert "01:01:01.250 --> 01:01:03.000\n<v Speaker 1>Good night &amp; &lt;bye&gt;." in vtt
    srt = words(record(segments=SEGMENTS), "srt")
    assert srt.startswith("1\n00:00:00,500 --> 00:00:02,000\nGood evening.\n")
    assert "2\n01:01:01,250 --> 01:01:03,000\nSpeaker 1: Good night & <bye>." in srt


def test_text_is_the_text_alone() -> None:
    assert words(record(), "text") == "Good evening. Good night.\n"


@pytest.mark.parametrize("data", [{}, {"segments": []}, {"segments": [{"start_s": None, "end_s": None, "text": "a"}]}])
def test_without_times_there_are_no_subtitles_and_that_is_said(data: dict[str, object]) -> None:
    with pytest.raises(CommandError, match="has no words with times") as raised:
        words(record(**data), "vtt")
    assert raised.value.exit_code == ExitCode.NOT_CAPTIONED


def test_an_upload_without_an_answer_has_no_words() -> None:
    failed = record().model_copy(update={"state": "failed", "result": None})
    with pytest.raises(CommandError, match=r"talk\.mp3 has no text: it is failed"):
        words(failed, "text")


def test_another_format_is_a_wrong_command_line() -> None:
    assert CliRunner().invoke(app, ["get", "talk.mp3", "--format", "pdf"]).exit_code == ExitCode.USAGE
