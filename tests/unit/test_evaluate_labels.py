"""What a labelled set may look like, and what is said of one that cannot be used."""

import json
from pathlib import Path

import pytest

from captions_cli.errors import CommandError
from captions_cli.evaluate import labels
from captions_cli.evaluate.labels import LabelledPoint


def folder(root: Path, text: str, name: str = "labels.jsonl") -> Path:
    for file in ("a.jpg", "b.jpg", "page.txt"):
        (root / file).write_text("Rechnung\nNr. 7", encoding="utf-8")
    (root / name).write_text(text, encoding="utf-8")
    return root


def rows(*given: object) -> str:
    return "\n".join(json.dumps(row) for row in given)


def test_csv_gathers_the_captions_of_a_file_and_splits_lists(tmp_path: Path) -> None:
    text = (
        "path,caption,objects,lang\na.jpg,A dog runs.,dog|puppy; ball,en\na.jpg,A dog plays.,,en\na.jpg,Ein Hund.,,de\n"
    )
    result = labels.read(folder(tmp_path, text, "labels.csv"))
    assert [(item.measure, item.language, item.texts, item.objects) for item in result] == [
        ("caption", "en", ("A dog runs.", "A dog plays."), ()),
        ("objects", "en", (), (("dog", "puppy"), ("ball",))),
        ("caption", "de", ("Ein Hund.",), ()),
    ]


def test_json_lines_say_what_is_written_drawn_and_said(tmp_path: Path) -> None:
    given = rows(
        {"path": "a.jpg", "text_file": "page.txt", "scene_text": ["Nr. 7"], "test": "scans"},
        {"path": "b.jpg", "chart": {"2019": 4, "2020": 5.5}},
        {"path": "b.jpg", "code": "x = 1", "programming_language": "python"},
        {"file": "a.jpg", "transcript": "Guten Tag", "language": "de"},
    )
    result = labels.read(folder(tmp_path, given))
    assert [(item.measure, item.task, item.test) for item in result] == [
        ("text", "ocr", "scans"),
        ("scene_text", "ocr", "scans"),
        ("chart", "chart", "charts"),
        ("code", "code", "code"),
        ("transcript", "transcribe", "transcription"),
    ]
    assert result[0].texts == ("Rechnung\nNr. 7",)
    assert result[2].points == (LabelledPoint("", "2019", 4.0), LabelledPoint("", "2020", 5.5))


def test_pages_of_different_scripts_are_different_tests(tmp_path: Path) -> None:
    given = rows({"path": "a.jpg", "text": "Guten Tag"}, {"path": "b.jpg", "text": "今日は世界"})
    assert [item.test for item in labels.read(folder(tmp_path, given))] == ["OCR LATIN", "OCR CJK"]


@pytest.mark.parametrize(
    "chart",
    [
        {"sold": {"Q1": 1, "Q2": 2}},
        {"series": [{"name": "sold", "points": [{"x": "Q1", "y": 1}, {"x": "Q2", "y": 2}]}]},
        [{"series": "sold", "x": "Q1", "y": 1}, {"series": "sold", "x": "Q2", "y": 2}],
    ],
)
def test_chart_data_comes_in_three_forms(chart: object, tmp_path: Path) -> None:
    (result,) = labels.read(folder(tmp_path, rows({"path": "a.jpg", "chart": chart})))
    assert result.points == (LabelledPoint("sold", "Q1", 1.0), LabelledPoint("sold", "Q2", 2.0))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"path": "../out.jpg", "caption": "x"}, "leads out of"),
        ({"path": "/etc/hostname", "caption": "x"}, "leads out of"),
        ({"path": "none.jpg", "caption": "x"}, "there is no file"),
        ({"path": "a.jpg"}, "nothing is said of"),
        ({"path": "a.jpg", "capton": "x"}, "'capton' is none of"),
        ({"path": "a.jpg", "caption": 7}, "caption is no text"),
        ({"path": "a.jpg", "chart": {"a": "much"}}, "is no number"),
        ({"path": "a.jpg", "chart": "{"}, "chart is no JSON"),
        ({"path": "a.jpg", "chart": {"series": [{"name": "x"}]}}, "chart data is"),
        ({"path": "a.jpg", "chart": {}}, "has no values"),
        ({"path": "a.jpg", "caption": "x", "language": "no language"}, "language tag"),
        ({"path": "a.jpg", "text_file": "../../etc/passwd"}, "leads out of"),
        ({"caption": "x"}, "there is no path"),
        ([], "no JSON object"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_by_its_line(row: object, why: str, tmp_path: Path) -> None:
    good = {"path": "a.jpg", "caption": "A dog."}
    with pytest.raises(CommandError, match="line 2") as reported:
        labels.read(folder(tmp_path, rows(good, row)))
    assert why in reported.value.message


def test_two_truths_about_one_page_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"line 2.*already"):
        labels.read(folder(tmp_path, rows({"path": "a.jpg", "text": "x"}, {"path": "a.jpg", "text": "y"})))


def test_a_folder_without_labels_or_with_two_files_of_them_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="it holds none"):
        labels.read(tmp_path)
    (tmp_path / "one.csv").touch()
    (tmp_path / "two.jsonl").touch()
    with pytest.raises(CommandError, match=r"2 of them \(one.csv, two.jsonl\)"):
        labels.read(tmp_path)


def test_a_larger_limit_takes_the_same_items_and_more(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(20)]
    for name in names:
        (tmp_path / name).touch()
    given = rows(*({"path": name, "caption": "x", "text": "y"} for name in names))
    items = labels.read(folder(tmp_path, given))
    few, more = (labels.chosen(items, limit=limit) for limit in (3, 8))
    assert (len(few), len(more)) == (6, 16)
    assert {(item.name, item.test) for item in few} < {(item.name, item.test) for item in more}
    assert {item.task for item in labels.chosen(items, tasks=["ocr"])} == {"ocr"}
    with pytest.raises(CommandError, match="no label is about 'music'"):
        labels.chosen(items, tasks=["music"])
