"""What answers are worth, by measures whose values are known from elsewhere."""

import random
from pathlib import Path
from typing import Any

import pytest

from captions_cli.evaluate import intervals, scores
from captions_cli.evaluate.cider import CiderD
from captions_cli.evaluate.labels import Item, LabelledPoint, Measure

REFERENCES = (
    ("A dog runs on the grass.", "A brown dog is running across a field"),
    ("Two red buses stand in a street",),
    ("A man holds a blue umbrella in the rain", "A person with an umbrella"),
    ("A cat sleeps on a red sofa",),
)


def item(measure: Measure, **truth: Any) -> Item:
    return Item(Path("a.png"), "a.png", measure, "test", **truth)


def judged(about: Item, output: dict[str, Any] | None, similarity: float | None = None) -> dict[str, float]:
    parts = scores.parts(about, output, CiderD(REFERENCES), similarity)
    return {name: round(value / of, 6) if of else 0.0 for name, (value, of) in parts.items()}


def answered(text: str, **data: Any) -> dict[str, Any]:
    return {"text": text, "data": data}


@pytest.mark.parametrize(
    ("place", "caption", "value"),
    # Of the scorer in pycocoevalcap 1.2, to which the words were given as they are taken here.
    [
        (0, "A dog runs across the grass", 2.5841507727190436),
        (1, "Two red buses stand in a street", 10.0),
        (2, "A red red red umbrella", 0.5834305987791749),
        (3, "nothing like it at all", 0.0),
    ],
)
def test_cider_d_is_that_of_the_coco_evaluation(place: int, caption: str, value: float) -> None:
    assert CiderD(REFERENCES).score(caption, REFERENCES[place]) == pytest.approx(value, abs=1e-9)


def test_captions_are_worth_their_meaning_and_their_words() -> None:
    about = item("caption", texts=REFERENCES[1])
    assert judged(about, answered("Two red buses stand in a street"), 1.0) == {
        "cider_d": 10.0,
        "cider_d_of_1": 1.0,
        "similarity": 1.0,
    }
    assert judged(about, None) == {"cider_d": 0.0, "cider_d_of_1": 0.0, "similarity": 0.0}
    assert "similarity" not in judged(about, answered("A bus"))


def test_every_letter_of_a_page_counts_and_line_ends_do_not() -> None:
    about = item("text", texts=("Invoice 17\nTotal  $999.00",))
    assert judged(about, answered("Invoice 17 Total $999.00"))["character_accuracy"] == 1.0
    wrong = judged(about, answered("invoice 17 Total $999.00"))
    assert wrong["cer"] == pytest.approx(1 / 24, abs=1e-6)
    assert wrong["wer"] == pytest.approx(1 / 4)
    assert judged(about, None) == {"cer": 1.0, "wer": 1.0, "character_accuracy": 0.0, "word_accuracy": 0.0}
    assert judged(about, answered("x" * 500))["character_accuracy"] == 0.0


def test_speech_is_judged_by_words_without_the_writers_choices() -> None:
    about = item("transcript", texts=("Good morning, Mr. Bell!",))
    assert judged(about, answered("good morning mr bell", speech=True))["wer"] == 0.0
    assert judged(about, answered("Good evening, Mr. Bell.", speech=True))["wer"] == pytest.approx(0.25)
    assert judged(about, answered("A horn is heard.", speech=False))["wer"] == 1.0


def test_speech_without_spaces_between_words_is_judged_by_letters() -> None:
    result = judged(item("transcript", texts=("今日は良い天気です",)), answered("今日は悪い天気です", speech=True))
    assert result["word_accuracy"] == pytest.approx(1 - 1 / 9, abs=1e-6)
    assert "wer" not in result


def test_where_nothing_is_said_nothing_is_to_be_heard() -> None:
    about = item("transcript", texts=("",))
    assert judged(about, answered("Wind.", speech=False))["word_accuracy"] == 1.0
    assert judged(about, answered("Thank you.", speech=True))["word_accuracy"] == 0.0


def test_anls_finds_phrases_in_a_scene_and_leaves_out_what_is_not_alike() -> None:
    about = item("scene_text", texts=("STOP", "Main Street"))
    assert judged(about, answered("Signs: stop, and Main Streat beside it"))["anls"] == pytest.approx(
        ((1 - 1 / 5) + (1 - 1 / 11)) / 2
    )
    assert judged(about, answered("nothing at all"))["anls"] == 0.0
    assert judged(item("scene_text", texts=("出口",)), answered("駅の出口はこちら"))["anls"] == 1.0


def test_objects_match_by_stem_synonym_and_head_each_once() -> None:
    about = item("objects", objects=(("dog", "puppy"), ("dining table",), ("man",)), language="en")
    named = [{"name": "Two brown puppies"}, {"name": "table"}, {"name": "men's hat"}, {"name": "dog"}]
    assert judged(about, answered("", objects=named)) == {
        "precision": 0.25, "recall": pytest.approx(1 / 3, abs=1e-6), "f1": pytest.approx(2 / 7, abs=1e-6)
    }  # fmt: skip
    french = item("objects", objects=(("chien",),), language="fr")
    assert judged(french, answered("", objects=[{"name": "chiens noirs"}]))["f1"] == 1.0


def test_chart_values_are_matched_by_series_and_label() -> None:
    points = (
        LabelledPoint("North", "2019", 100.0),
        LabelledPoint("North", "2020", 50.0),
        LabelledPoint("South", "2019", 10.0),
    )
    series = [
        {"name": "south", "points": [{"x": "2019.0", "y": 10.0}]},
        {"name": "North", "points": [{"x": "2019", "y": 104.0}, {"x": "2021", "y": 50.0}]},
    ]
    result = judged(item("chart", points=points), answered("", series=series))
    assert result["relative_error"] == pytest.approx((0.04 + 1 + 0) / 3, abs=1e-6)
    assert result["within_5_percent"] == pytest.approx(2 / 3, abs=1e-6)
    assert result["values_f1"] == pytest.approx(2 * 1.96 / 6, abs=1e-6)


def test_a_chart_of_one_series_needs_no_name_and_a_flood_of_values_does_not_pay() -> None:
    about = item("chart", points=(LabelledPoint("", "a", 2.0), LabelledPoint("", "b", 0.0)))
    exact: list[dict[str, Any]] = [{"name": "whatever", "points": [{"x": "A", "y": 2}, {"x": "b", "y": 0}]}]
    assert judged(about, answered("", series=exact))["values_f1"] == 1.0
    flood = [{"name": "", "points": [*exact[0]["points"], *({"x": str(x), "y": 1} for x in range(96))]}]
    assert judged(about, answered("", series=flood))["values_f1"] == pytest.approx(0.04)
    assert judged(about, None)["values_f1"] == 0.0


def test_code_is_compared_as_it_is_kept_and_has_to_parse() -> None:
    about = item("code", texts=("```python\nx = 1\ny = 2\n```",), programming_language="python")
    assert judged(about, answered("x = 1\ny = 2", parsed=True)) == {"edit_similarity": 1.0, "parse_rate": 1.0}
    assert judged(about, answered("x = 1\ny = (2", parsed=False)) == {
        "edit_similarity": pytest.approx(11 / 12, abs=1e-6),
        "parse_rate": 0.0,
    }
    assert judged(about, None) == {"edit_similarity": 0.0, "parse_rate": 0.0}


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    random.seed(5)
    covered = 0
    for number in range(200):
        test = [(float(random.random() < 0.7), 1.0) for _ in range(100)]
        result = intervals.of({f"{number}": test})
        assert result is not None
        assert result.low is not None
        assert result.high is not None
        covered += result.low <= 0.7 <= result.high
    assert 0.90 <= covered / 200 <= 0.99


def test_a_difference_that_all_items_share_is_told_though_the_items_vary() -> None:
    random.seed(6)
    hard = [random.random() * 0.9 for _ in range(40)]
    first = {"a": [(value + 0.03, 1.0) for value in hard]}
    second = {"a": [(value, 1.0) for value in hard]}
    apart = intervals.difference(first, second)
    assert apart is not None
    assert apart.low == pytest.approx(0.03)
    single = intervals.of(second)
    assert single is not None
    assert single.low is not None
    assert single.high is not None
    assert single.high - single.low > 0.1


def test_of_few_items_no_interval_is_given() -> None:
    result = intervals.of({"a": [(1.0, 1.0)] * 9})
    assert result is not None
    assert (result.value, result.low) == (1.0, None)


def test_each_test_weighs_the_same_in_the_mean_however_many_items_it_has() -> None:
    result = intervals.of({"a": [(1.0, 1.0)] * 30, "b": [(0.0, 1.0)] * 10})
    assert result is not None
    assert result.value == 0.5
