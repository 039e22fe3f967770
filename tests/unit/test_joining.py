"""The answers to a recording's parts become one, with every time counted from the start of the whole."""

import json
from typing import Any

from captions.inference.merging import MAX_BYTES, joined, within
from captions.subtitles import Cue, webvtt
from captions.tasks import Ask, Heard, Output, read


def heard(
    start: float, end: float, *sentences: str, times: bool = True, speaker: str | None = None, **more: Any
) -> Heard:
    step = (end - start) / max(1, len(sentences))
    segments = [
        {
            "start_s": place * step if times else None,
            "end_s": (place + 1) * step if times else None,
            "text": sentence,
            "speaker": speaker,
        }
        for place, sentence in enumerate(sentences)
    ]
    data = {"speech": bool(sentences), "segments": segments, "speakers": [], "sounds": ""} | more.pop("data", {})
    text = " ".join(sentences) or data["sounds"]
    return Heard(start, end, Output(**{"text": text, "language": "en", "data": data} | more), "a-model")


def test_texts_follow_each_other_and_times_count_from_the_start_of_the_whole() -> None:
    whole = joined("transcribe", [heard(0.0, 10.0, "One.", "Two."), heard(10.0, 14.0, "Three.", "Four.")])
    assert whole.text == "One. Two.\nThree. Four."
    assert [(segment["start_s"], segment["end_s"], segment["text"]) for segment in whole.data["segments"]] == [
        (0.0, 5.0, "One."),
        (5.0, 10.0, "Two."),
        (10.0, 12.0, "Three."),
        (12.0, 14.0, "Four."),
    ]
    assert [(part["start_s"], part["end_s"]) for part in whole.data["parts"]] == [(0.0, 10.0), (10.0, 14.0)]
    subtitles = webvtt(Cue(**segment) for segment in whole.data["segments"])
    assert "00:00:10.000 --> 00:00:12.000\nThree." in subtitles


def test_a_part_without_times_stands_for_itself() -> None:
    whole = joined("transcribe", [heard(0.0, 10.0, "One.", "Two."), heard(10.0, 70.0, "Three.", "Four.", times=False)])
    last = whole.data["segments"][-1]
    assert (last["start_s"], last["end_s"], last["text"]) == (10.0, 70.0, "Three. Four.")


def test_no_time_lies_beyond_its_part() -> None:
    late = heard(10.0, 20.0, "Late.")
    late.output.data["segments"][0] |= {"start_s": 3.0, "end_s": 99.0}
    assert joined("transcribe", [late]).data["segments"][0]["end_s"] == 20.0


def test_silence_adds_neither_words_nor_a_language() -> None:
    silence = Heard(10.0, 900.0, Output(text="", language="de", data={"speech": False, "segments": []}))
    whole = joined("transcribe", [heard(0.0, 10.0, "One."), silence, heard(900.0, 910.0, "Two.")])
    assert (whole.text, whole.language) == ("One.\nTwo.", "en")


def test_what_is_heard_where_nobody_speaks_is_no_part_of_a_transcript() -> None:
    music = heard(10.0, 20.0, data={"sounds": "Music plays."})
    whole = joined("transcribe", [heard(0.0, 10.0, "One."), music])
    assert whole.text == "One."
    assert whole.data["sounds"] == "Music plays."
    assert joined("transcribe", [music, music]).text == "Music plays."


def test_the_language_is_the_one_that_is_spoken_longest() -> None:
    whole = joined("transcribe", [heard(0.0, 10.0, "Hi."), heard(10.0, 40.0, "Guten Tag.", language="de")])
    assert whole.language == "de"


def test_speakers_are_numbered_anew_in_each_part_and_nobody_claims_who_is_who() -> None:
    first, second = (heard(at, at + 5.0, "Yes.", speaker="Speaker 1", data={"speakers": [{"speaker": "Speaker 1"}]})
                     for at in (0.0, 5.0))  # fmt: skip
    whole = joined("transcribe", [first, second])
    assert [segment["speaker"] for segment in whole.data["segments"]] == ["Speaker 1 (part 1)", "Speaker 1 (part 2)"]
    assert [segment["speaker"] for segment in joined("transcribe", [first]).data["segments"]] == ["Speaker 1"]


def test_the_worst_verdict_counts_and_confidence_is_weighed_by_time() -> None:
    parts = [
        heard(0.0, 30.0, "a", safety="safe", confidence=0.9),
        heard(30.0, 40.0, "b", safety="unsafe", confidence=0.5),
    ]
    whole = joined("transcribe", parts)
    assert (whole.safety, whole.confidence) == ("unsafe", 0.8)


def test_an_answer_is_what_the_parts_that_hold_it_say() -> None:
    def answered(start: float, text: str, answerable: bool) -> Heard:
        data = {"question": "Who?", "answerable": answerable, "evidence": "it is said" if answerable else ""}
        return Heard(start, start + 10.0, Output(text=text, language="en", data=data))

    whole = joined("audio_qa", [answered(0.0, "It is not said.", False), answered(10.0, "A captain.", True)])
    assert whole.text == "A captain."
    assert whole.data["answerable"]
    nowhere = joined("audio_qa", [answered(0.0, "It is not said.", False), answered(10.0, "It is not said.", False)])
    assert (nowhere.text, nowhere.data["answerable"]) == ("It is not said.", False)


def test_feelings_are_listed_on_with_times_of_the_whole() -> None:
    """As they are read: an answer's `start` is kept as `start_s`."""
    answer = {"emotion": "calm", "voices": [{"speaker": "Speaker 1", "emotion": "calm", "start": 1, "end": 2}]}
    output = read(Ask(task="emotion"), json.dumps(answer)).output
    assert output is not None
    voices = joined("emotion", [Heard(0.0, 10.0, output), Heard(10.0, 20.0, output)]).data["voices"]
    assert [(voice["start_s"], voice["end_s"]) for voice in voices] == [(1.0, 2.0), (11.0, 12.0)]


def test_hours_of_speech_fit_into_a_record() -> None:
    hour = [
        heard(at, at + 600.0, *(f"Sentence number {place} of this part." for place in range(150)))
        for at in range(0, 2 * 3_600, 600)
    ]
    whole = joined("transcribe", hour)
    assert len(json.dumps(whole.model_dump(), ensure_ascii=False).encode()) < 150_000
    segments = whole.data["segments"]
    assert 0 < len(segments) < 12 * 150
    assert " ".join(segment["text"] for segment in segments) == whole.text.replace("\n", " ")
    assert (segments[0]["start_s"], segments[-1]["end_s"]) == (0.0, 7_200.0)


def test_of_a_text_that_no_record_holds_the_end_is_left_out_and_that_is_said() -> None:
    endless = [heard(at, at + 600.0, *("x" * 60 for _ in range(500))) for at in range(0, 6_000, 600)]
    whole = joined("transcribe", endless)
    assert whole.data["truncated"] is True
    assert whole.data["segments"] == []
    assert len(json.dumps(whole.model_dump()).encode()) < 150_000
    assert len(whole.text) > 100_000


def test_segments_become_longer_only_as_far_as_is_needed() -> None:
    many = [{"start_s": float(at), "end_s": at + 1.0, "text": "word", "speaker": None} for at in range(100)]
    assert within(many, 1_000_000) == many
    fewer = within(many, 4_000)
    assert 10 < len(fewer) < 40
    assert max(item["end_s"] - item["start_s"] for item in fewer) <= 6.0
    assert within(many, 10) == []
    assert MAX_BYTES < 150_000
