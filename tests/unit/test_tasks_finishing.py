"""Code, charts, subtitles, tags and languages: what is made of an answer after it was read."""

from typing import Any

import pytest

from captions.subtitles import Cue, srt, webvtt
from captions.tasks.checks import cut, estimated_tokens, names, repetition
from captions.tasks.kinds.chart import ChartAnswer, notes, problems, truncated
from captions.tasks.kinds.code import processed
from captions.tasks.languages import contradiction, guess, tag
from captions.tasks.reader import mapped, tidy

PYTHON = "def f(x):\n    return x + 1"


@pytest.mark.parametrize(
    ("text", "language", "kept", "parsed"),
    [
        (PYTHON, "python", PYTHON, True),
        (f"```python\n{PYTHON}\n```", "", PYTHON, True),
        (f"```py\n{PYTHON}", "", PYTHON, True),
        (f"Here it is:\n```Python\n{PYTHON}\n```\nDone.", "", PYTHON, True),
        ("\n".join(f"    {line}" for line in PYTHON.splitlines()), "Python", PYTHON, True),
        ("1  def f(x):\n2      return x + 1\n3  \n4  f(1)", "python", None, True),
        ("10 | import os\n11 | os.name\n12 | pass", "python", "import os\nos.name\npass", True),
        ("def f(x):\nreturn x", "python", "def f(x):\nreturn x", False),
        ("print 'old'", "python", "print 'old'", False),
        ('{"a": [1, 2]}', "JSON", '{"a": [1, 2]}', True),
        ('{"a": [1, 2}', "json", '{"a": [1, 2}', False),
        ("a = 1\n[b]\nc = 'x'", "toml", "a = 1\n[b]\nc = 'x'", True),
        ("a = \n", "toml", "a =", False),
        ("<a><b/></a>", "xml", "<a><b/></a>", True),
        ("<a><b></a>", "svg", "<a><b></a>", False),
        ('<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "xml", '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', None),
        ("let x = 1;", "javascript", "let x = 1;", None),
        ("", "python", "", None),
    ],
)
def test_code_is_unwrapped_and_parsed_where_it_can_be(
    text: str, language: str, kept: str | None, parsed: bool | None
) -> None:
    code = processed(text, language)
    assert code.parsed is parsed
    if kept is not None:
        assert code.text == kept
    assert (code.error is not None) == (parsed is False)
    assert bool(code.doubts) == (parsed is False)


def test_numbers_that_are_data_are_no_gutter() -> None:
    assert processed("1 a\n5 b\n9 c", "text").text == "1 a\n5 b\n9 c"
    assert processed("1 a\n2 b", "text").text == "1 a\n2 b"


def test_mixed_indentation_and_brackets_that_do_not_match_are_doubted() -> None:
    mixed = processed("if x:\n\ty = 1\n    z = 2", "python")
    assert mixed.text == "if x:\n    y = 1\n    z = 2"
    assert mixed.parsed is True
    assert "Tabs and spaces" in mixed.doubts[0]
    assert "2 of ( and 1 of )" in processed('f(g(")");', "javascript").doubts[0]
    assert processed("f(x);", "javascript", ("0 or O?",)).doubts == ("0 or O?",)


@pytest.mark.parametrize(
    "text", ["(" * 5_000, "-" * 50_000 + "1", "[" * 9_000 + "]" * 9_000, "\x00", "'\\N{x}'", "x" * 200_000]
)
@pytest.mark.parametrize("language", ["python", "json", "toml", "xml"])
def test_no_source_breaks_the_parsers(text: str, language: str) -> None:
    processed(text, language)


def chart(**changes: Any) -> ChartAnswer:
    answer = {
        "summary": "s", "chart_type": "bar",
        "y_axis": {"min": 0, "max": 40},
        "series": [{"name": "a", "points": [{"x": "1", "y": 10}, {"x": "2", "y": 20}, {"x": "3", "y": 30}]}],
    }  # fmt: skip
    return ChartAnswer.taken({**answer, **changes})


def contradictions(**changes: Any) -> set[str]:
    return {problem.code for problem in problems(chart(**changes))}


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({}, set()),
        ({"y_axis": {"min": 5, "max": 40}}, {"truncated_axis"}),
        ({"y_axis": {"min": 5, "max": 40}, "misleading": ["The axis does not start at zero."]}, set()),
        ({"y_axis": {"min": 5, "max": 40}, "chart_type": "line"}, set()),
        ({"y_axis": {"min": 1, "max": 40, "scale": "log"}}, set()),
        ({"y_axis": {"min": 0, "max": 15}}, {"outside_axis"}),
        ({"y_axis": {"min": 40, "max": 0}}, {"axis"}),
        ({"series": []}, {"no_data"}),
        ({"series": [], "chart_type": "none"}, set()),
        ({"chart_type": "pie", "y_axis": {}, "series": [{"points": [{"y": 60}, {"y": 55}]}]}, {"shares"}),
        ({"chart_type": "pie", "y_axis": {}, "series": [{"points": [{"y": 60}, {"y": 40}]}]}, set()),
        ({"chart_type": "pie", "y_axis": {}, "series": [{"points": [{"y": 600}, {"y": 900}]}]}, set()),
        ({"trends": ["Sales rise steadily."]}, set()),
        ({"trends": ["Sales decline from 30 to 10."]}, {"trend"}),
        ({"trends": ["Sales fall, then rise."]}, set()),
        ({"trends": ["Bananas are declining."],
          "series": [{"name": "apples", "points": [{"y": 1}, {"y": 2}, {"y": 3}]},
                     {"name": "bananas", "points": [{"y": 1}, {"y": 2}, {"y": 3}]}]}, {"trend"}),
    ],
)  # fmt: skip
def test_a_chart_is_held_against_itself(changes: dict[str, Any], codes: set[str]) -> None:
    assert contradictions(**changes) == codes


def test_a_truncated_axis_that_the_model_did_not_mention_is_called_out() -> None:
    cut_off = chart(y_axis={"min": "5 %", "max": "40 %"})
    assert truncated(cut_off)
    assert notes(cut_off) == ("The value axis begins at 5, not at zero.",)


SEGMENTS = [
    Cue(start_s=61.5, end_s=63.0, text="Second & <last>.\n\nStill it --> goes on.", speaker="Speaker <1>"),
    Cue(start_s=0.0, end_s=0.0, text="First."),
    Cue(start_s=5.0, end_s=6.0, text="   "),
    Cue(start_s=3_725.25, end_s=3_726.0, text="An hour later."),
]


def test_webvtt() -> None:
    assert webvtt(SEGMENTS) == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:00.500\nFirst.\n\n"
        "00:01:01.500 --> 00:01:03.000\n<v Speaker &lt;1&gt;>Second &amp; &lt;last&gt;.\nStill it --&gt; goes on.\n\n"
        "01:02:05.250 --> 01:02:06.000\nAn hour later.\n"
    )


def test_subrip() -> None:
    assert srt(SEGMENTS) == (
        "1\n00:00:00,000 --> 00:00:00,500\nFirst.\n\n"
        "2\n00:01:01,500 --> 00:01:03,000\nSpeaker <1>: Second & <last>.\nStill it -> goes on.\n\n"
        "3\n01:02:05,250 --> 01:02:06,000\nAn hour later.\n"
    )


def test_tags_have_one_form() -> None:
    assert tidy(["#Cat", " cat ", "sofa_bed", "", "a" * 41, "'Grey'", *map(str, range(40))])[:4] == (
        "cat", "sofa bed", "grey", "0",
    )  # fmt: skip
    assert len(tidy(map(str, range(40)))) == 20


def test_a_tag_stands_before_another_s_synonym() -> None:
    vocabulary = {"jaguar": ("car",), "car": ("automobile", "cars"), "big cat": ()}
    assert mapped(["Car", "AUTOMOBILES", "Big-Cat", "boat"], vocabulary) == (("car", "big cat"), ("boat",))


@pytest.mark.parametrize(
    ("value", "standard"),
    [("en", "en"), ("pt-br", "pt-BR"), ("zh_hans", "zh-Hans"), ("deu", "de"), (" fr ", "fr"), ("en-XYZW", None),
     ("english", None), ("xx", None), ("", None), ("e", None), ("x" * 500, None), ("de\n", "de"), ("日本語", None),
     ("i-klingon", "tlh"), ("und", "und")],
)  # fmt: skip
def test_language_tags_are_looked_up(value: str, standard: str | None) -> None:
    assert tag(value) == standard


@pytest.mark.parametrize(
    ("text", "language"),
    [("The cat is on the sofa and the dog is not.", "en"), ("猫がいます", "ja"), ("高兴认识你们", "zh"),
     ("안녕하세요", "ko"),
     ("Der Hund und die Katze sind auf dem Sofa.", "de"), ("Hm.", None), ("1234", None), ("OK computer", None)],
)  # fmt: skip
def test_a_language_is_guessed_only_where_the_text_tells_it(text: str, language: str | None) -> None:
    assert guess(text) == language


def test_short_texts_and_names_contradict_no_language() -> None:
    for text in ("OK", "BMW", "München, Straße", "iPhone 15 Pro", "42 %"):
        assert contradiction(text, "en") is None


@pytest.mark.parametrize(
    ("text", "characters", "kept"),
    [
        ("Short.", 10, "Short."),
        ("One sentence. Another one.", 20, "One sentence."),
        ("One sentence. Another one.", 26, "One sentence. Another one."),
        ("No end to this sentence at all", 15, "No end to this…"),
        ("一只猫坐在沙发上。它看着窗外。", 10, "一只猫坐在沙发上。"),
        ("x" * 50, 10, "x" * 9 + "…"),
        ("A. " + "word " * 20, 30, "A. word word word word word…"),
    ],
)
def test_a_text_is_cut_after_a_sentence_or_else_after_a_word(text: str, characters: int, kept: str) -> None:
    assert cut(text, characters) == kept


def test_tokens_are_estimated_by_script() -> None:
    assert estimated_tokens("word " * 100) == 125
    assert estimated_tokens("猫" * 100) == 100


def test_a_long_text_with_numbers_in_columns_is_no_loop() -> None:
    assert repetition("\n".join(f"{n} apples and {n} pears" for n in range(60))) is None


def test_german_nouns_are_no_names() -> None:
    assert names("Ein Hund läuft mit Anna Schmidt über die Wiese.", "de", ()) is None
