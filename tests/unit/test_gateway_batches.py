"""What lines of a batch's results mean, as the endpoints of the field write them, and what they cost."""

import asyncio
import json
import tracemalloc
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from captions.bulk.batch_table import BatchLine, WaitingCount
from captions.bulk.protocol import Batch
from captions.cost import Cost
from captions.gateway import Endpoint, Reservation
from captions.gateway.batch_api import BatchApi, BatchCallError, read_line, request_line, result_lines
from captions.gateway.catalogue import Model, first_in_batches, load
from captions.queues import Job
from captions.uploads.version import Upload, from_event
from captions_cli import bulk_lane, printing, rendering
from captions_cli.reconciling import Listed, Lost, event

MODEL = load().model("GPT-4o")
USAGE = {"prompt_tokens": 1_000, "completion_tokens": 100}


def completion(**changes: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "A cat."}, "finish_reason": "stop"}
    return {"id": "c", "object": "chat.completion", "model": "gpt-4o-x", "usage": USAGE, "choices": [choice | changes]}


def answered(body: Any, status: Any = 200, error: Any = None, model: Model = MODEL) -> Any:
    line = {"custom_id": "a", "response": {"status_code": status, "body": body}, "error": error}
    return read_line(line, model, Endpoint("https://e.example/v1"), "2026-01-01T00:00:00Z", "b1")


def test_an_answer_costs_a_batchs_part_of_the_catalogues_price() -> None:
    result = answered(completion())
    assert result.answer is not None
    assert (result.answer.text, result.answer.reported_model) == ("A cat.", "gpt-4o-x")
    # 1,000 tokens at $2.50 and 100 at $10 a million, halved.
    assert result.attempt.cost == Decimal("0.00175")
    kept = result.attempt.as_dict()
    assert (kept["lane"], kept["batch"], kept["saved"]) == ("bulk", "b1", "0.00175")
    stated = answered(completion() | {"usage": USAGE | {"cost": 0.0003}})
    assert (stated.attempt.cost, stated.cost_source) == (Decimal("0.0003"), "endpoint")
    assert stated.attempt.as_dict()["saved"] == "0.0032"
    unpriced = MODEL.model_copy(update={"output_price": None})
    part = answered(completion(), model=unpriced).attempt.saved
    assert part == Cost(dollars=Decimal("0.00125"), unpriced_tokens=100)
    assert answered(completion() | {"usage": USAGE | {"cost": 1}}, model=unpriced).attempt.saved == Cost(
        unpriced_tokens=100
    )


@pytest.mark.parametrize(
    ("body", "status", "error", "outcome", "cost"),
    [
        ({"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}, 429, None, "rate_limited", "0"),
        ({"error": {"message": "no such model", "code": "model_not_found"}}, 404, None, "unavailable", "0"),
        (None, None, {"code": "batch_expired", "message": "not executed in time"}, "error_body", "0"),
        (completion(finish_reason="length"), 200, None, "truncated", "0.00175"),
        (completion(finish_reason="content_filter"), 200, None, "refused", "0.00175"),
        (completion(message={"role": "assistant", "content": None, "refusal": "no"}), 200, None, "refused", "0.00175"),
        (completion(message={"role": "assistant", "content": ""}), 200, None, "empty", "0.00175"),
        ({"choices": []}, 200, None, "garbled", None),
        ({"choices": "text", "usage": "much"}, 200, None, "garbled", None),
        ("text", 200, None, "error_body", None),
        (None, None, None, "error_body", None),  # neither an answer nor an error: nothing is known of what it cost
        (completion(), "200", None, "ok", "0.00175"),
    ],
)
def test_what_is_no_answer_is_a_failed_attempt_with_what_it_cost(
    body: Any, status: Any, error: Any, outcome: str, cost: str | None
) -> None:
    result = answered(body, status, error)
    assert result.attempt.outcome == outcome
    assert result.attempt.cost == (None if cost is None else Decimal(cost))
    saved = result.attempt.saved
    assert (saved is None) == (cost == "0")  # what is not billed saves nothing
    assert saved is None or saved.exact == (None if cost is None else Decimal(cost))
    assert (result.answer is None) == (outcome != "ok")


@pytest.mark.parametrize("line", [{}, {"response": None}, {"response": []}, {"error": "text"}, {"response": {}}])
def test_a_line_of_any_shape_is_an_attempt(line: dict[str, Any]) -> None:
    result = read_line(line, MODEL, Endpoint("https://e.example/v1"), "2026-01-01T00:00:00Z", "b1")
    assert result.answer is None
    assert result.attempt.outcome == "error_body"


def test_a_file_of_results_is_read_line_by_line_whatever_stands_in_it(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    deep = "[" * 100_000
    path.write_text(f'{{"custom_id": "a"}}\n\nno json\n[1]\n{{"custom_id": 7}}\n{deep}\n{{"custom_id": "b"}}')
    assert [line_id for line_id, _ in result_lines(path)] == ["a", "", "", "", "", "b"]


@pytest.mark.parametrize("status", [400, None])
def test_what_a_failed_line_says_can_be_stored_whatever_its_letters(status: int | None) -> None:
    error = {"message": "bad \ud83d letter"}
    attempt = answered({"error": error}, status, error).attempt
    assert attempt.detail == "bad \ufffd letter"


def test_a_file_that_ends_within_a_line_was_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text('{"custom_id": "a"}\n{"custom_id": "b", "resp')
    lines = result_lines(path)
    assert next(lines)[0] == "a"
    with pytest.raises(EOFError):
        next(lines)


def test_a_result_of_any_length_takes_little_memory_and_is_a_call_of_unknown_cost(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with path.open("w") as out:
        out.write('{"id": "r", "custom_id": "a-1-5", "response": {"status_code": 200, "body": {"x": "')
        for _ in range(60):
            out.write("x" * 1_000_000)
        out.write('"}}}\n{"custom_id": "b"}')
    tracemalloc.start()
    (long_id, long), (after, _) = result_lines(path)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    assert (long_id, after) == ("a-1-5", "b")
    attempt = read_line(long, MODEL, Endpoint("https://e.example/v1"), "2026-01-01T00:00:00Z", "b1").attempt
    assert (attempt.outcome, attempt.spent.uncounted_calls) == ("error_body", 1)


def test_bytes_that_are_no_text_spoil_a_character_of_an_answer_and_not_the_answer(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"custom_id": "a", "response": {"body": "caf\xe9"}}\n')
    assert list(result_lines(path)) == [("a", {"custom_id": "a", "response": {"body": "caf\ufffd"}})]


class Lister(BatchApi):
    """Lists batches in pages, and says nothing of whether there are more."""

    def __init__(self, pages: list[list[str]]) -> None:
        super().__init__(lambda fresh: "a key", [])
        self.pages = pages
        self.asked = 0

    async def _call(self, base_url: str, call: Any, **_: Any) -> Any:
        page = self.pages[min(self.asked, len(self.pages) - 1)]
        self.asked += 1
        noon = 1_767_268_800  # 2026-01-01, and a minute earlier for each number
        return SimpleNamespace(
            data=[
                SimpleNamespace(id=f"of-{file}", input_file_id=file, created_at=noon - 60 * int(file[2:]))
                for file in page
            ]
        )


def test_a_batch_is_looked_for_to_the_end_of_the_list() -> None:
    def remote_id(pages: list[list[str]], file: str) -> str | None:
        return asyncio.run(Lister(pages).find("https://e.example/v1", file))

    assert remote_id([["f-1"], ["f-2"], []], "f-2") == "of-f-2"
    assert remote_id([["f-1"], ["f-2"], []], "f-3") is None
    assert remote_id([["f-1"]], "f-3") is None  # the same page for ever
    pages = [[f"f-{100 * page + place}" for place in range(100)] for page in range(11)]
    with pytest.raises(BatchCallError) as error:
        remote_id(pages, "none")
    assert error.value.kind == "later"  # created again only where it certainly is not there
    lister = Lister(pages)
    assert asyncio.run(lister.find("https://e.example/v1", "none", "2026-01-01T12:00:00.000000Z")) is None
    assert lister.asked == 2  # the second page is of more than an hour before: all others are older
    with pytest.raises(BatchCallError):  # the oldest first: it would come at the end
        asyncio.run(
            Lister([page[::-1] for page in pages[::-1]]).find("https://e.example/v1", "none", "2026-02-01T12:00Z")
        )


@pytest.mark.parametrize(
    ("keys", "kind"),
    [({"default": "of another"}, "account"), ({"default": "x", "http://127.0.0.1:9/v1": "own"}, "down")],
)
def test_an_endpoint_that_is_no_longer_configured_gets_no_others_key(keys: dict[str, str], kind: str) -> None:
    api = BatchApi(lambda fresh: keys, ["https://new.example/v1"])
    with pytest.raises(BatchCallError) as error:
        asyncio.run(api.retrieve("http://127.0.0.1:9/v1", "b"))
    assert (error.value.kind, error.value.account) == ("later", kind == "account")


def test_a_request_is_one_line() -> None:
    text = request_line("a-1", {"model": "m", "messages": [{"role": "user", "content": "one\ntwo\u2028three"}]})
    assert b"\n" not in text
    assert json.loads(text)["url"] == "/v1/chat/completions"


def test_what_a_line_is_about_is_read_as_it_was_written() -> None:
    job = Job.model_validate(json.loads((Path(__file__).parents[2] / "events/jobs/image.json").read_text()))
    line = BatchLine("x-1", job, 1_800_000_000.125, Reservation("2026-01-01", ("*", "photos/"), Decimal("0.01"), "ab"))
    assert BatchLine.read(line.stored()) == line
    assert BatchLine.read(BatchLine("x-1", job, 5.0).stored()).reservation is None


def test_reconcile_tells_of_an_upload_that_can_wait() -> None:
    from datetime import UTC, datetime

    listed = Listed("a.jpg", "v", "etag", 3, datetime(2026, 1, 1, tzinfo=UTC), is_marker=False)
    lost = Lost("missing", listed, None)
    for bulk, lane in ((True, "bulk"), (False, None)):
        upload = from_event(event(lost, "media", "eu-west-1", bulk=bulk))
        assert isinstance(upload, Upload)
        assert upload.lane == lane


def test_batches_are_shown_with_what_they_cost_and_saved(capsys: pytest.CaptureFixture[str]) -> None:
    began = 1_800_000_000.0
    ended = Batch("a" * 24, "ended", "GPT-4o", "https://e/v1", 1_200, 9, began + 9e4, began, gathered_at=began)
    taken = replace(ended, taken=1_100, spent=Cost(dollars=Decimal(2)), saved=Cost(dollars=Decimal(1)))
    printing.print_table(rendering.batches([replace(ended, state="submitted", remote_id="batch_7"), taken]))
    first, second = (row.split() for row in capsys.readouterr().out.splitlines()[1:])
    assert first == ["a" * 12, "submitted", "GPT-4o", "1,200", "0", "2027-01-15T08:00", "2027-01-16T09:00", "batch_7"]
    assert second[3:7] == ["1,200", "1,100", "$2.00", "$1.00"]
    assert rendering.waiting_for_a_batch(WaitingCount(1_000, False, began)).startswith("at least 1,000 uploads wait")
    assert "no upload" in rendering.waiting_for_a_batch(WaitingCount(0, True, None))


def test_the_first_model_that_takes_batches_is_chosen_unless_it_costs_more_than_the_first() -> None:
    plain = MODEL.model_copy(update={"batch_factor": None})
    cheap = MODEL.model_copy(update={"input_price": Decimal("1.25"), "output_price": Decimal(5), "batch_factor": None})
    cheaper = cheap.model_copy(update={"output_price": Decimal("4.99")})
    unpriced = plain.model_copy(update={"input_price": None})
    assert first_in_batches([MODEL, plain]) == 0
    assert first_in_batches([plain, plain, MODEL]) == 2
    assert first_in_batches([cheap, MODEL]) == 1  # half of its price is no more
    assert first_in_batches([cheaper, MODEL]) is None
    assert first_in_batches([unpriced, MODEL]) is None
    assert first_in_batches([MODEL.model_copy(update={"input_price": None})]) == 0
    assert first_in_batches([MODEL.model_copy(update={"streaming_only": True}), plain]) is None
    assert first_in_batches([]) is None


def test_tiers_whose_first_model_takes_no_batches_are_named() -> None:
    from captions.config import policy

    rules = policy.load('[tiers.easy]\nmodels = ["GPT-4o"]\n[tiers.audio]\nmodels = ["GPT-4o", "GLM-4-Plus"]')
    ordinary = bulk_lane.without_batches(rules, load())
    assert not {"easy", "audio", "long"} & set(ordinary)
    assert ordinary["hard"] == "Qwen/Qwen3-VL-32B-Instruct"
