"""A transcript that came as such is read like an answer to the task: the same output, the same checks."""

import pytest

from captions.gateway import Segment
from captions.tasks import Ask, Seen
from captions.tasks.kinds.transcribe import transcript

ASK = Ask(task="transcribe", language="de")
SAID = (
    Segment(start_s=0.0, end_s=1.5, text="The quick brown fox"),
    Segment(start_s=1.5, end_s=3.0, text="jumps over the lazy dog."),
)


@pytest.mark.parametrize(("named", "tag"), [("english", "en"), ("en", "en"), ("English", "en"), (None, "en")])
def test_words_times_and_language_are_kept(named: str | None, tag: str) -> None:
    # Where the endpoint names no language, the words tell it.
    text = " ".join(segment.text for segment in SAID)
    reading = transcript(ASK, text, SAID, named, Seen(kind="audio", duration_s=3.0))
    assert reading.output is not None
    assert reading.output.text == text
    assert reading.output.language == tag
    assert [(segment["start_s"], segment["end_s"]) for segment in reading.output.data["segments"]] == [
        (0.0, 1.5),
        (1.5, 3.0),
    ]
    assert reading.problems == ()


def test_words_without_times_are_one_segment_without_times() -> None:
    reading = transcript(ASK, "Good evening.", (), "english")
    assert reading.output is not None
    (segment,) = reading.output.data["segments"]
    assert (segment["text"], segment["start_s"]) == ("Good evening.", None)


def test_without_words_the_text_is_empty_and_nobody_is_said_to_speak() -> None:
    reading = transcript(ASK, "  ")
    assert reading.output is not None
    assert (reading.output.text, reading.output.language, reading.output.data["speech"]) == ("", "und", False)


def test_more_words_than_can_be_spoken_are_doubted() -> None:
    reading = transcript(ASK, "word " * 200, (), "english", Seen(kind="audio", duration_s=4.0))
    assert "too_much_speech" in [problem.code for problem in reading.problems]


def test_a_name_that_is_no_language_is_not_kept() -> None:
    reading = transcript(ASK, "Good evening to all of you.", (), "klingon-ish")
    assert reading.output is not None
    assert reading.output.language in ("en", "und")


@pytest.mark.parametrize("segments", [(), (Segment(0.0, 1.0, "<|0.00|><|nospeech|>"),)])
def test_the_token_for_silence_is_silence(segments: tuple[Segment, ...]) -> None:
    output = transcript(ASK, "<|nospeech|><|endoftext|>", segments).output
    assert output is not None
    assert (output.text, output.data["speech"]) == ("", False)
