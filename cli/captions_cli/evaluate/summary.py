"""What an evaluation found, as plain values: the same for tables, JSON, the report and the proposed policy."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from captions_cli.evaluate import intervals, scores
from captions_cli.evaluate.cider import CiderD
from captions_cli.evaluate.intervals import Interval
from captions_cli.evaluate.journal import FINAL, Journal, totals
from captions_cli.evaluate.labels import Item
from captions_cli.evaluate.questions import Contender, Question
from captions_cli.evaluate.similarity import Pair

Similar = Callable[[Sequence[Pair]], Mapping[Pair, float]]
_MEANINGS = ("caption", "alt_text")
_NOT_TAKEN = frozenset({"refused", "unfit"})


@dataclass(frozen=True)
class JudgedAnswer:
    """One question with what came of it. `main` is the measure that counts; None: it is not answered yet."""

    question: Question
    test: str
    answer: Mapping[str, Any]
    attempts: Sequence[Mapping[str, Any]]
    parts: scores.ScoreParts | None
    main: str

    @property
    def state(self) -> str:
        """How it ended, `not_asked` where it was not."""
        return str(self.answer.get("state", "not_asked"))

    @property
    def score(self) -> tuple[float, float]:
        """What it adds to its test."""
        assert self.parts is not None
        return self.parts[self.main]

    @property
    def about(self) -> tuple[str, str, str | None]:
        """What it is that all contenders are asked."""
        item = self.question.item
        return item.name, item.measure, item.language


def judge(
    questions: Sequence[Question], items: Sequence[Item], journal: Journal, similar: Similar
) -> list[JudgedAnswer]:
    """Return every question with its measures; those that were not answered, or not finally, have none."""
    tests = _test_names(items)
    corpora: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for item in items:
        corpora[tests[_about(item)]].append(item.texts)
    ciders = {test: CiderD(texts) for test, texts in corpora.items()}
    texts = {
        question: Pair(answer["output"]["text"], question.item.texts)
        for question in questions
        if question.item.measure in _MEANINGS
        and (answer := journal.answers.get(question.key, {})).get("state") == "answered"
    }
    similarity = similar(list(texts.values())) if texts else {}
    by_meaning = bool(texts) and all(pair in similarity for pair in texts.values())
    answers = []
    for question in questions:
        answer = journal.answers.get(question.key, {})
        parts = None
        test = tests[_about(question.item)]
        if answer.get("state") in FINAL:
            near = similarity.get(texts[question]) if by_meaning and question in texts else None
            parts = scores.parts(question.item, answer.get("output"), ciders[test], near)
        main = scores.main(question.item.measure, similarity=by_meaning)
        answers.append(JudgedAnswer(question, test, answer, journal.attempts(question.key), parts, main))
    return answers


def summarise(judged: Sequence[JudgedAnswer], measured: Sequence[Contender]) -> dict[str, Any]:
    """Return the figures of each contender, the best first, and whether the others are worse for certain."""
    contenders = [
        _contender(contender, [each for each in judged if each.question.contender is contender])
        for contender in measured
    ]
    contenders.sort(
        key=lambda contender: (-contender["tests_scored"], -(contender["mean"]["value"] if contender["mean"] else -1.0))
    )
    return {"contenders": contenders, "comparisons": _comparisons(judged, [answer["name"] for answer in contenders])}


def scored(judged: Sequence[JudgedAnswer]) -> dict[str, list[JudgedAnswer]]:
    """Return by test what counts: without what is not answered yet, and without tests that a model cannot do at all."""
    tests: dict[str, list[JudgedAnswer]] = defaultdict(list)
    for answer in judged:
        if answer.parts is not None:
            tests[answer.test].append(answer)
    return {name: test for name, test in tests.items() if any(answer.state != "unable" for answer in test)}


def _contender(contender: Contender, judged: Sequence[JudgedAnswer]) -> dict[str, Any]:
    counted = scored(judged)
    answered = [answer for answer in judged if answer.state == "answered"]
    ended = [answer for test in counted.values() for answer in test]
    times = [float(answer.answer["latency_ms"]) for answer in answered]
    return {
        "name": contender.name,
        "model": contender.model,
        "mean": _shown(intervals.of({name: [answer.score for answer in test] for name, test in counted.items()})),
        "tests_scored": len(counted),
        "tests": {test: _test([answer for answer in judged if answer.test == test]) for test in _tests(judged)},
        "questions": len(judged),
        "states": dict(Counter(answer.state for answer in judged)),
        "refused_share": _share(answer.state == "refused" or _outcomes(answer) & _NOT_TAKEN for answer in ended),
        "repaired_share": _share(_roles(answer) & {"repair"} for answer in ended),
        "escalated_share": _share(_escalated(answer) for answer in ended),
        "latency_ms": {
            "p50": intervals.quantile(times, 0.5),
            "p99": intervals.quantile(times, 0.99),
            "answers": len(times),
        },
        "dollars_per_1000": _dollars(ended),
        "reported_models": sorted(
            {str(answer.answer["reported_model"]) for answer in answered if answer.answer["reported_model"]}
        ),
    }


def _test(judged: Sequence[JudgedAnswer]) -> dict[str, Any]:
    counted = next(iter(scored(judged).values()), [])
    names = list(dict.fromkeys(name for answer in counted for name in answer.parts or {}))
    measures = {
        name: intervals.of(
            {judged[0].test: [answer.parts[name] for answer in counted if answer.parts and name in answer.parts]}
        )
        for name in names
    }
    return {
        "main": judged[0].main,
        "score": _shown(measures.get(judged[0].main)),
        "measures": {name: _shown(value) for name, value in measures.items()},
        "questions": len(judged),
        "states": dict(Counter(answer.state for answer in judged)),
    }


def _comparisons(judged: Sequence[JudgedAnswer], names: Sequence[str]) -> list[dict[str, Any]]:
    by_name: dict[str, dict[tuple[str, str, str | None], JudgedAnswer]] = defaultdict(dict)
    for answer in judged:
        if answer.parts is not None:
            by_name[answer.question.contender.name][answer.about] = answer
    best, others = names[0], names[1:]
    return [_comparison(best, other, by_name[best], by_name[other]) for other in others]


def _comparison(
    first: str,
    second: str,
    ours: Mapping[tuple[str, str, str | None], JudgedAnswer],
    theirs: Mapping[tuple[str, str, str | None], JudgedAnswer],
) -> dict[str, Any]:
    shared = [about for about in ours if about in theirs]
    able = scored([ours[about] for about in shared]).keys() & scored([theirs[about] for about in shared]).keys()
    tests: tuple[dict[str, list[tuple[float, float]]], ...] = (defaultdict(list), defaultdict(list))
    for about in shared:
        if ours[about].test in able:
            tests[0][ours[about].test].append(ours[about].score)
            tests[1][ours[about].test].append(theirs[about].score)
    interval = intervals.difference(*tests)
    items = sum(map(len, tests[0].values()))
    if interval is None or interval.low is None or interval.high is None:
        verdict = "too few"
    elif interval.low > 0:
        verdict = "better"
    else:
        verdict = "worse" if interval.high < 0 else "cannot be told"
    return {"first": first, "second": second, "items": items, "difference": _shown(interval), "verdict": verdict}


def _dollars(judged: Sequence[JudgedAnswer]) -> dict[str, Any]:
    """Return dollars per 1,000 questions; where calls of unknown cost are among them, the sum is a lower bound."""
    costs = [totals(answer.attempts) for answer in judged]
    unknown = sum(number for _, number in costs)
    known = sum((dollars for dollars, _ in costs), Decimal(0))
    if not judged or (unknown and not known):
        return {"value": None, "low": None, "high": None, "at_least": False, "unknown_calls": unknown}
    interval = intervals.of({"cost": [(float(dollars), 1.0) for dollars, _ in costs]})
    assert interval is not None
    return {
        "value": format((1000 * known / len(judged)).normalize(), "f"),
        "low": None if interval.low is None else f"{1000 * interval.low:.6f}",
        "high": None if interval.high is None else f"{1000 * interval.high:.6f}",
        "at_least": bool(unknown),
        "unknown_calls": unknown,
    }


def _escalated(answer: JudgedAnswer) -> bool:
    """A model alone has nobody above it: then, whether the policy would have asked further."""
    if answer.question.contender.model is None:
        return "escalation" in _roles(answer)
    return (
        answer.state in ("refused", "unusable")
        or answer.answer.get("confidence", 1.0) < answer.question.chains.threshold
    )


def _roles(answer: JudgedAnswer) -> set[str]:
    return {str(attempt.get("role")) for attempt in answer.attempts}


def _outcomes(answer: JudgedAnswer) -> set[str]:
    return {str(attempt["outcome"]) for attempt in answer.attempts}


def _share(flags: Iterator[Any]) -> float | None:
    known = [bool(flag) for flag in flags]
    return sum(known) / len(known) if known else None


def _shown(interval: Interval | None) -> dict[str, float | None] | None:
    return None if interval is None else vars(interval)


def _tests(judged: Sequence[JudgedAnswer]) -> list[str]:
    return list(dict.fromkeys(answer.test for answer in judged))


def _about(item: Item) -> tuple[str, str, str | None]:
    return item.name, item.measure, item.language


def _test_names(items: Sequence[Item]) -> dict[tuple[str, str, str | None], str]:
    """Name tests so that none of them mixes measures."""
    measures: dict[str, set[str]] = defaultdict(set)
    for item in items:
        measures[item.test].add(item.measure)
    return {
        _about(item): item.test if len(measures[item.test]) == 1 else f"{item.test} ({item.measure})" for item in items
    }
