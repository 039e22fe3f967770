"""`captions evaluate` against an endpoint that plays models of different quality: charts whose values are known."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from captions.config import policy
from captions_cli.local.model_endpoint import LocalEndpoint
from captions_cli.main import app
from support import drawn

GOOD, BAD, TWIN, DEAF = "GPT-4o", "GLM-4-Plus", "deepseek-ai/DeepSeek-V4-Flash", "Qwen3-32B"
CHARTS = 14


@pytest.fixture(scope="module")
def charts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bar charts, each with the heights of its bars as shares of the highest."""
    folder = tmp_path_factory.mktemp("charts")
    chance = random.Random(7)
    rows = []
    for number in range(CHARTS):
        heights = [chance.randint(60, 340) for _ in range(5)]
        name = f"{number}.png"
        (folder / name).write_bytes(drawn.png(drawn.bar_chart(heights)))
        values = {f"bar {place}": height / max(heights) for place, height in enumerate(heights, start=1)}
        rows.append(json.dumps({"path": name, "chart": values}))
    (folder / "labels.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def endpoint() -> Iterator[LocalEndpoint]:
    with LocalEndpoint(latency_scale=0.0, quality={BAD: 0.6}) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(endpoint: LocalEndpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    endpoint.clear()
    monkeypatch.setenv("CAPTIONS_ENDPOINT_KEY", "sk-test")
    monkeypatch.setenv("CAPTIONS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def evaluate(endpoint: LocalEndpoint, labelled: Path, *more: str, code: int = 0) -> dict[str, Any]:
    words = ["evaluate", str(labelled), "--endpoint", endpoint.url, "--output", "json", *more]
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == code, ran.stderr + str(ran.exception)
    evaluate.said = ran.stderr  # type: ignore[attr-defined]
    return json.loads(ran.stdout) if ran.stdout else {}


def printed() -> str:
    return str(evaluate.said)  # type: ignore[attr-defined]


def test_the_better_model_wins_and_equal_ones_cannot_be_told_apart(endpoint: LocalEndpoint, charts: Path) -> None:
    result = evaluate(endpoint, charts, "--models", f"{BAD},{GOOD},{TWIN}")
    best, second, worst = result["contenders"]
    assert {best["name"], second["name"]} == {GOOD, TWIN}
    assert worst["name"] == BAD
    assert best["mean"]["value"] > 0.9
    assert worst["mean"]["high"] < best["mean"]["low"]
    assert [comparison["verdict"] for comparison in result["comparisons"]] == ["cannot be told", "better"]
    assert best["tests"]["charts"]["measures"]["relative_error"]["value"] < 0.05
    # Two of the three publish what they charge, and all of it is known.
    assert Decimal(best["dollars_per_1000"]["value"]) > 0
    assert best["latency_ms"]["answers"] == CHARTS


def test_run_again_it_pays_for_nothing_twice(endpoint: LocalEndpoint, charts: Path) -> None:
    first = evaluate(endpoint, charts, "--models", GOOD)
    paid = len(endpoint.requests())
    again = evaluate(endpoint, charts, "--models", GOOD)
    assert len(endpoint.requests()) == paid == CHARTS
    assert again == first
    assert f"{CHARTS} answered already" in printed()


@pytest.mark.deep
def test_killed_half_way_it_goes_on_where_it_was(charts: Path, tmp_path: Path) -> None:
    # Slow enough to be hit in the middle; the endpoint lives on when the evaluation dies.
    with LocalEndpoint(latency_scale=0.4) as endpoint:
        victim = _begun(charts, endpoint, tmp_path)
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
        before = _answers(tmp_path)
        assert 3 <= before < CHARTS
        result = evaluate(endpoint, charts, "--models", GOOD, "--results", "r.jsonl")
        assert result["contenders"][0]["states"] == {"answered": CHARTS}
        asked = Counter(request["media_sha256"] for request in endpoint.requests() if request["status"] == 200)
        # What was on its way when it died is asked once more; two were.
        assert sum(asked.values()) - CHARTS <= 2


def _begun(charts: Path, endpoint: LocalEndpoint, folder: Path) -> subprocess.Popen[bytes]:
    """Start an evaluation in a process of its own, and return it once it has three answers."""
    words = [sys.executable, "-m", "captions_cli.main", "evaluate", str(charts), "--endpoint", endpoint.url]
    words += ["--models", GOOD, "--side-by-side", "2", "--results", "r.jsonl"]
    begun = subprocess.Popen(words, cwd=folder, env={**os.environ, "CAPTIONS_ENDPOINT_KEY": "sk-test"})
    until = time.monotonic() + 60
    while not (folder / "r.jsonl").exists() or _answers(folder) < 3:
        assert time.monotonic() < until
        assert begun.poll() is None
        time.sleep(0.02)
    return begun


def _answers(folder: Path) -> int:
    return (folder / "r.jsonl").read_text(encoding="utf-8").count('"line":"answer"')


@pytest.mark.deep
def test_ctrl_c_waits_for_what_is_paid_and_goes_on_later(charts: Path, tmp_path: Path) -> None:
    with LocalEndpoint(latency_scale=0.4) as endpoint:
        stopped = _begun(charts, endpoint, tmp_path)
        stopped.send_signal(signal.SIGINT)
        assert stopped.wait(30) == 130
        before = _answers(tmp_path)
        assert before < CHARTS
        assert len(endpoint.requests()) == before
        evaluate(endpoint, charts, "--models", GOOD, "--results", "r.jsonl")
        assert len(endpoint.requests()) == CHARTS


def test_the_limit_holds_over_all_runs(endpoint: LocalEndpoint, charts: Path) -> None:
    limit = "0.07"
    result = evaluate(endpoint, charts, "--models", GOOD, "--max-cost", limit, "--side-by-side", "3", code=1)
    paid = [Decimal(request["cost"]) for request in endpoint.requests()]
    assert 0 < sum(paid) <= Decimal(limit)
    assert result["not_paid_for"] + len(paid) >= CHARTS
    assert "--max-cost leaves no room" in printed()
    evaluate(endpoint, charts, "--models", GOOD, "--max-cost", limit, code=1)
    assert sum(Decimal(request["cost"]) for request in endpoint.requests()) <= Decimal(limit)


def test_answers_that_are_cut_short_are_not_asked_again_beyond_the_limit(endpoint: LocalEndpoint, charts: Path) -> None:
    endpoint.set_faults([{"fault": "truncated"}])
    limit = "0.07"
    result = evaluate(endpoint, charts, "--models", GOOD, "--max-cost", limit, code=1)
    asked = endpoint.requests()
    assert asked
    assert set(result["contenders"][0]["states"]) <= {"failed", "not_asked"}
    assert sum(Decimal(item["cost"]) for item in asked) <= Decimal(limit)


def test_dry_run_says_what_it_would_cost_and_asks_nobody(endpoint: LocalEndpoint, charts: Path) -> None:
    result = evaluate(endpoint, charts, "--models", f"{GOOD},GLM-4.6V", "--dry-run")
    assert result["questions"] == 2 * CHARTS
    assert Decimal(result["expected_cost"]) > 0
    assert result["models_without_price"] == ["GLM-4.6V"]
    assert endpoint.requests() == []


def test_a_model_that_refuses_scores_nothing_and_one_that_cannot_see_is_not_scored(
    endpoint: LocalEndpoint, charts: Path
) -> None:
    endpoint.set_faults([{"fault": "refusal", "model": GOOD}])
    result = evaluate(endpoint, charts, "--models", f"{GOOD},{TWIN},{DEAF}")
    by_name = {contender["name"]: contender for contender in result["contenders"]}
    assert by_name[GOOD]["states"] == {"refused": CHARTS}
    assert by_name[GOOD]["refused_share"] == 1.0
    assert by_name[GOOD]["mean"]["value"] == 0.0
    assert by_name[DEAF]["states"] == {"unable": CHARTS}
    assert by_name[DEAF]["mean"] is None
    assert [comparison["verdict"] for comparison in result["comparisons"]] == ["better", "too few"]


def test_what_fails_for_now_is_asked_again_at_the_next_run(
    endpoint: LocalEndpoint, charts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captions_cli.evaluate.running.TRIES", 1)
    endpoint.set_faults([{"fault": "server_error"}])
    result = evaluate(endpoint, charts, "--models", GOOD, "--limit", "2", code=1)
    assert result["contenders"][0]["states"] == {"failed": 2}
    assert result["contenders"][0]["mean"] is None
    endpoint.clear()
    result = evaluate(endpoint, charts, "--models", GOOD, "--limit", "2")
    assert result["contenders"][0]["states"] == {"answered": 2}


def test_a_rejected_key_ends_it_at_once(charts: Path) -> None:
    with LocalEndpoint(latency_scale=0.0, keys=["sk-other"]) as endpoint:
        evaluate(endpoint, charts, "--models", GOOD, code=3)
        assert "takes no more calls" in printed()
        assert len(endpoint.requests()) <= 8


def test_two_policies_are_compared_and_what_is_asked_alike_is_paid_once(
    endpoint: LocalEndpoint, charts: Path, tmp_path: Path
) -> None:
    tiers = '[tiers.hard]\nmodels = ["{}"]\n'
    for name, text in {
        "bad": tiers.format(BAD),
        "good": tiers.format(GOOD),
        "same": tiers.format(GOOD) + '[tasks.caption]\nstyle = "concise"\n',
    }.items():
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
    words = [word for name in ("bad", "good", "same") for word in ("--policy", f"{name}.toml")]
    result = evaluate(endpoint, charts, *words)
    assert [contender["name"] for contender in result["contenders"]] == ["good", "same", "bad"]
    assert [comparison["verdict"] for comparison in result["comparisons"]] == ["cannot be told", "better"]
    answered = Counter(request["model"] for request in endpoint.requests())
    assert answered[GOOD] == CHARTS


def test_captions_are_compared_by_meaning_where_the_endpoint_has_embeddings(
    endpoint: LocalEndpoint, photo: bytes, tmp_path: Path
) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.jpg").write_bytes(photo)
    (tmp_path / "set" / "labels.csv").write_text("path,caption\na.jpg,A colour picture\n", encoding="utf-8")
    by_words = evaluate(endpoint, tmp_path / "set", "--models", GOOD)
    assert by_words["contenders"][0]["tests"]["captions"]["main"] == "cider_d_of_1"
    assert "by CIDEr-D alone" in printed()
    result = evaluate(endpoint, tmp_path / "set", "--models", GOOD, "--embedding-model", "words")
    about = result["contenders"][0]["tests"]["captions"]
    assert about["main"] == "similarity"
    assert 0 < about["score"]["value"] < 1
    assert result["contenders"][0]["states"] == {"answered": 1}


def test_a_file_that_is_no_media_is_left_out_with_its_reason(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no picture", encoding="utf-8")
    (tmp_path / "labels.csv").write_text("path,caption\na.jpg,A dog\n", encoding="utf-8")
    evaluate(endpoint, tmp_path, "--models", GOOD, code=2)
    assert "left out: a.jpg (caption)" in printed()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--models", "nobody"], "the catalogue has no model 'nobody'"),
        (["--models", GOOD, "--tasks", "music"], "no label is about 'music'"),
        (["--policy", "none.toml"], "cannot be read"),
        (["--models", GOOD, "--endpoint", "ftp://here"], "no base URL"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is_paid(
    more: list[str], why: str, endpoint: LocalEndpoint, charts: Path
) -> None:
    evaluate(endpoint, charts, *more, code=2)
    assert why in printed()
    assert endpoint.requests() == []


def test_results_of_another_endpoint_and_a_file_in_use_are_refused(
    endpoint: LocalEndpoint, charts: Path, tmp_path: Path
) -> None:
    evaluate(endpoint, charts, "--models", GOOD, "--limit", "1")
    with LocalEndpoint(latency_scale=0.0) as other:
        evaluate(other, charts, "--models", GOOD, "--limit", "1", code=2)
        assert "give another --results" in printed()
        assert other.requests() == []
    (tmp_path / "notes.jsonl").write_text('{"line": "shopping"}\n', encoding="utf-8")
    evaluate(endpoint, charts, "--models", GOOD, "--results", "notes.jsonl", code=2)
    assert "line 1, is none that an evaluation writes" in printed()
    assert (tmp_path / "notes.jsonl").read_text(encoding="utf-8") == '{"line": "shopping"}\n'


def test_the_table_tells_people_the_same(endpoint: LocalEndpoint, charts: Path) -> None:
    ran = CliRunner().invoke(app, ["evaluate", str(charts), "--endpoint", endpoint.url, "--models", f"{GOOD},{BAD}"])
    assert ran.exit_code == 0
    assert "$ per 1,000" in ran.stdout
    assert f"{GOOD} is better than {BAD}" in ran.stderr


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = (
    '"><script>alert(1)</script><img src="https://evil.example/x" onerror=alert(2)>{{ 7 * 7 }}\u202egnp.exe\x1b[2J'
)


def test_the_report_shows_the_worst_beside_the_truth_and_hostile_text_is_inert(
    endpoint: LocalEndpoint, charts: Path, tmp_path: Path
) -> None:
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    for number in range(12):
        (hostile / f"{number}.png").write_bytes((charts / f"{number}.png").read_bytes())
    rows = [{"path": f"{number}.png", "caption": f"{HOSTILE} {number}", "test": HOSTILE} for number in range(12)]
    (hostile / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    answer = json.dumps({"caption": f"A chart {HOSTILE} with bars of several heights", "visible_text": []})
    endpoint.set_faults([{"fault": "answer", "text": answer, "model": GOOD}])
    evaluate(endpoint, hostile, "--models", f"{GOOD},{BAD}", "--report", "report.html")
    page = _Page()
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page.feed(text)
    assert set(page.tags).isdisjoint({"script", "iframe", "object", "embed", "form", "a", "base", "link"})
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    links = [value for name, value in page.attributes if name in ("src", "href")]
    assert links
    assert all(value.startswith("data:image/jpeg;base64,") for value in links)
    assert "default-src 'none'" in dict(page.attributes)["content"] or "default-src 'none'" in text
    assert page.tags.count("article") == 20
    assert "alert(1)" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert {"svg", "circle", "small"} <= set(page.tags)  # ranges stand in an element of their own, not as its text
    assert "<small>" not in page.text


def test_the_proposed_policy_takes_the_cheapest_that_is_good_enough(
    endpoint: LocalEndpoint, charts: Path, tmp_path: Path
) -> None:
    names = f"{GOOD},{BAD},{TWIN}"
    result = evaluate(endpoint, charts, "--models", names, "--write-policy", "p.toml", "--within", "3")
    assert result["policy"]["first"] == {"chart": TWIN}  # as good as GPT-4o, and cheaper
    text = (tmp_path / "p.toml").read_text(encoding="utf-8")
    rules = policy.load(text)
    tier = rules.tier("a.png", "image", "chart", None)
    assert rules.tiers[tier].models[0] == TWIN
    assert set(rules.tiers[tier].models) == {GOOD, BAD, TWIN}
    (tmp_path / "p.toml").unlink()
    result = evaluate(endpoint, charts, "--models", names, "--write-policy", "p.toml", "--within", "90")
    assert result["policy"]["first"] == {"chart": BAD}
    rules = policy.load((tmp_path / "p.toml").read_text(encoding="utf-8"))
    higher = rules.step_up(rules.tier("a.png", "image", "chart", None))
    assert higher is not None
    assert rules.tiers[higher].models[0] in (GOOD, TWIN)
    evaluate(endpoint, charts, "--models", names, "--write-policy", "p.toml", code=2)
    assert "is there already" in printed()


def test_no_tier_is_proposed_on_few_answers_or_unknown_prices(
    endpoint: LocalEndpoint, charts: Path, tmp_path: Path
) -> None:
    few = evaluate(endpoint, charts, "--models", GOOD, "--limit", "3", "--write-policy", "p.toml")
    assert few["policy"]["first"] == {}
    assert "too few" in few["policy"]["undecided"]["chart"]
    assert not (tmp_path / "p.toml").exists()
    unpriced = evaluate(endpoint, charts, "--models", "GLM-4.6V", "--write-policy", "p.toml")
    assert "no price" in unpriced["policy"]["undecided"]["chart"]
