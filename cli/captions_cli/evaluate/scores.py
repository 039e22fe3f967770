"""How good one answer is: standard measures, each as a sum and what it is to be divided by.

The value of a test is the sum over its answers divided by the sum of the divisors: an error rate weighs long texts more
than short ones, as is usual; a mean has 1 as each divisor.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from captions.tasks import languages
from captions_cli.evaluate import cider
from captions_cli.evaluate.labels import Item, LabelledPoint, Measure

if TYPE_CHECKING:
    from snowballstemmer import Stemmer

ScoreParts = Mapping[str, tuple[float, float]]
"""By measure: a sum and its divisor."""

MAIN: Mapping[Measure, str] = {
    "objects": "f1",
    "text": "character_accuracy",
    "scene_text": "anls",
    "chart": "values_f1",
    "code": "edit_similarity",
    "transcript": "word_accuracy",
}
"""The measure that stands for a test, 0 to 1; captions have `similarity`, or `cider_d` where that is not to be had."""
ANLS_FROM = 0.5
"""Below this similarity a text counts as not read (Biten et al., "Scene Text Visual Question Answering", ICCV 2019)."""
CLOSE = 0.05
"""The relative error up to which a chart's value is right (Masry et al., "ChartQA", ACL Findings 2022)."""
_NAMES_ALIKE = 0.5
_LABELS_ALIKE = 0.8
_UNSPACED = frozenset({"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"})
_HEAD_FIRST = frozenset({"ca", "es", "fr", "it", "pt", "ro"})
"""Languages whose nouns stand before what is said of them: "chien noir" names a "chien"."""
_SNOWBALL = {
    "ar": "arabic", "ca": "catalan", "da": "danish", "de": "german", "el": "greek", "en": "english", "es": "spanish",
    "eu": "basque", "fi": "finnish", "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian", "hy": "armenian",
    "id": "indonesian", "it": "italian", "lt": "lithuanian", "nb": "norwegian", "ne": "nepali", "nl": "dutch",
    "no": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "sv": "swedish",
    "ta": "tamil", "tr": "turkish",
}  # fmt: skip
"""The stemmers by primary language; names in other languages are compared as they are."""
_MARKS = re.compile(r"[^\w\s]|_")


def parts(item: Item, output: Mapping[str, Any] | None, corpus: cider.CiderD, similarity: float | None) -> ScoreParts:
    """Return the measures of an answer; `output` None: there was none that can be used, which is worth nothing.

    `similarity` is that of a caption to the nearest expected one, by the endpoint's embeddings; None: not known.
    """
    text = str(output["text"]) if output is not None else ""
    data = output["data"] if output is not None else {}
    match item.measure:
        case "caption" | "alt_text":
            known = {} if similarity is None and output is not None else {"similarity": (similarity or 0.0, 1.0)}
            value = corpus.score(text, item.texts)
            return {"cider_d": (value, 1.0), "cider_d_of_1": (min(1.0, value), 1.0), **known}
        case "objects":
            return _objects(
                [str(thing["name"]) for thing in data.get("objects", ())], item.objects, item.language or "en"
            )
        case "text":
            return _letters(item.texts[0], text)
        case "scene_text":
            return {"anls": (sum(_anls(phrase, text) for phrase in item.texts), float(len(item.texts) or 1))}
        case "chart":
            return _values(item.points, data.get("series", ()))
        case "code":
            return _code(
                item.texts[0], text, data.get("parsed"), item.programming_language, answered=output is not None
            )
        case "transcript":
            return _speech(item.texts[0], text if data.get("speech", True) else "")


def main(measure: Measure, *, similarity: bool) -> str:
    """Return the name of the measure that stands for a test."""
    return MAIN.get(measure) or ("similarity" if similarity else "cider_d_of_1")


def _letters(expected: str, given: str) -> ScoreParts:
    """Every letter counts, in its case; line ends and the width of gaps do not."""
    return _errors(_spaced(expected), _spaced(given))


def _speech(expected: str, given: str) -> ScoreParts:
    """Case and punctuation are the writer's choice, not the speaker's."""
    expected, given = (_spaced(_MARKS.sub(" ", text).casefold()) for text in (expected, given))
    errors = dict(_errors(expected, given))
    if _unspaced(expected):
        # Between whose words no spaces are, letters are counted.
        errors["word_accuracy"] = errors["character_accuracy"]
        del errors["wer"]
    return errors


def _errors(expected: str, given: str) -> ScoreParts:
    import jiwer

    if not expected:
        # Nothing was to be found: every word that was is an error.
        wrong = float(len(given.split()))
        right = (0.0 if given else 1.0, 1.0)
        return {
            "wer": (wrong, 1.0),
            "cer": (float(len(given)), 1.0),
            "word_accuracy": right,
            "character_accuracy": right,
        }
    measures: dict[str, tuple[float, float]] = {}
    for name, accuracy, count in (
        ("wer", "word_accuracy", jiwer.process_words(expected, given)),
        ("cer", "character_accuracy", jiwer.process_characters(expected, given)),
    ):
        length = float(count.hits + count.substitutions + count.deletions)
        wrong = float(count.substitutions + count.deletions + count.insertions)
        measures |= {name: (wrong, length), accuracy: (max(0.0, length - wrong), length)}
    return measures


def _anls(expected: str, given: str) -> float:
    """Return how far a phrase is found in a text: in the stretch of as many words that is most like it."""
    from rapidfuzz.distance import Levenshtein

    phrase = _spaced(expected).casefold()
    given_words = _spaced(given).casefold().split()
    size = len(phrase.split())
    stretches = [" ".join(given_words[at : at + size]) for at in range(max(1, len(given_words) - size + 1))]
    if _unspaced(phrase):
        joined = "".join(given_words)
        stretches = [joined[at : at + len(phrase)] for at in range(max(1, len(joined) - len(phrase) + 1))]
    best = max((Levenshtein.normalized_similarity(phrase, stretch) for stretch in stretches), default=0.0)
    return best if best >= ANLS_FROM else 0.0


def _objects(named: Sequence[str], expected: Sequence[Sequence[str]], language: str) -> ScoreParts:
    """Each expected object may be named once, by any of its names, exactly or with something said of it."""
    open_names = list(dict.fromkeys(_stems(name, language) for name in named if name.strip()))
    answers = len(open_names)
    wanted = [[_stems(name, language) for name in names] for names in expected]
    right = 0
    for exact in (True, False):
        for names in list(wanted):
            match = next(
                (
                    open_name
                    for open_name in open_names
                    for name in names
                    if _names(open_name, name, language, exact=exact)
                ),
                None,
            )
            if match is not None:
                open_names.remove(match)
                wanted.remove(names)
                right += 1
    return {
        "f1": (2.0 * right, float(answers + len(expected)) or 1.0),
        "precision": (float(right), float(answers)),
        "recall": (float(right), float(len(expected))),
    }


def _names(given: tuple[str, ...], wanted: tuple[str, ...], language: str, *, exact: bool) -> bool:
    if exact or not wanted:
        return given == wanted
    first = languages.primary(language) in _HEAD_FIRST
    return (given[: len(wanted)] if first else given[-len(wanted) :]) == wanted


def _stems(name: str, language: str) -> tuple[str, ...]:
    stemmer = _stemmer(languages.primary(language))
    split = cider.words(name)
    return tuple(stemmer.stemWords(split) if stemmer is not None else split)


@cache
def _stemmer(language: str) -> Stemmer | None:
    import snowballstemmer

    name = _SNOWBALL.get(language)
    return snowballstemmer.stemmer(name) if name is not None else None


def _values(expected: Sequence[LabelledPoint], series: Sequence[Mapping[str, Any]]) -> ScoreParts:
    """Values are matched by series and label; a missing one is wrong altogether, and so is one too many.

    `values_f1` is the harmonic mean of precision and recall with 1 less the relative error as the worth of a match, as
    in DePlot's RMS (Liu et al., ACL Findings 2023).
    """
    given = [
        LabelledPoint(str(series_given.get("name", "")), str(point["x"]), float(point["y"]))
        for series_given in series
        for point in series_given.get("points", ())
        if point.get("y") is not None
    ]
    names = _paired_series(expected, given)
    points: dict[tuple[str, str], list[float]] = {}
    for point in given:
        points.setdefault((point.series, _label(point.x)), []).append(point.y)
    errors = []
    for point in expected:
        values = _points_of(points, names.get(point.series, point.series), point.x)
        errors.append(min(1.0, _relative(point.y, values.pop(0))) if values else 1.0)
    worth = sum(1.0 - error for error in errors)
    return {
        "values_f1": (2.0 * worth, float(len(expected) + len(given)) or 1.0),
        "relative_error": (sum(errors), float(len(errors))),
        "within_5_percent": (float(sum(error <= CLOSE for error in errors)), float(len(errors))),
    }


def _paired_series(expected: Sequence[LabelledPoint], given: Sequence[LabelledPoint]) -> dict[str, str]:
    """Return which series of the answer stands for which expected one: the most alike by name, each once."""
    from rapidfuzz import fuzz

    ours = list(dict.fromkeys(point.series for point in expected))
    theirs = list(dict.fromkeys(point.series for point in given))
    if len(ours) == len(theirs) == 1:
        return {ours[0]: theirs[0]}
    alike = sorted(
        ((fuzz.ratio(mine.casefold(), other.casefold()) / 100, mine, other) for mine in ours for other in theirs),
        key=lambda pair: -pair[0],
    )
    pairs: dict[str, str] = {}
    for ratio, mine, other in alike:
        if ratio >= _NAMES_ALIKE and mine not in pairs and other not in pairs.values():
            pairs[mine] = other
    return pairs


def _points_of(points: Mapping[tuple[str, str], list[float]], series: str, x: str) -> list[float]:
    from rapidfuzz import fuzz, process

    label = _label(x)
    if values := points.get((series, label)):
        return values
    labels = {key[1]: values for key, values in points.items() if key[0] == series and values and not _number(key[1])}
    closest = process.extractOne(label, list(labels), scorer=fuzz.ratio, score_cutoff=100 * _LABELS_ALIKE)
    return labels[closest[0]] if closest is not None and not _number(label) else []


def _label(x: str) -> str:
    bare = " ".join(x.split()).casefold()
    try:
        return f"{float(bare.replace(',', '')):g}"
    except ValueError:
        return bare


def _number(label: str) -> bool:
    return label.replace(".", "", 1).replace("-", "", 1).isdigit()


def _relative(expected: float, given: float) -> float:
    return abs(given - expected) / abs(expected) if expected else float(given != 0)


def _code(expected: str, given: str, parsed: bool | None, language: str, *, answered: bool) -> ScoreParts:
    from rapidfuzz.distance import Levenshtein

    from captions.tasks.kinds import code

    ours = code.processed(expected, language)
    measures = {"edit_similarity": (Levenshtein.normalized_similarity(ours.text, given) if answered else 0.0, 1.0)}
    if parsed is not None or (not answered and ours.parsed):
        measures["parse_rate"] = (float(bool(parsed)), 1.0)
    return measures


def _spaced(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _unspaced(text: str) -> bool:
    counts = languages.scripts(text)
    return bool(counts) and counts.most_common(1)[0][0] in _UNSPACED
