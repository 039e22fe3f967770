"""The local endpoint's files and batches, asked by the real `openai` client over real HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import openai
import pytest

from captions.gateway.catalogue import load
from captions_cli.local.model_endpoint import LocalEndpoint
from integration.test_local_endpoint import client_of, messages, picture

MODEL = "GLM-4-Plus"
COLOURS = ("navy", "red", "green", "black")


@pytest.fixture
def endpoint() -> Iterator[LocalEndpoint]:
    with LocalEndpoint(latency_scale=0.0, report_cost=True) as running:
        yield running


@pytest.fixture
def client(endpoint: LocalEndpoint) -> Iterator[openai.OpenAI]:
    with client_of(endpoint) as made:
        yield made


def line(custom_id: str, colour: str = "navy", **changes: Any) -> dict[str, Any]:
    body = {"model": MODEL, "messages": messages(picture(colour)), "max_tokens": 200}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body, **changes}


def submit(client: openai.OpenAI, lines: list[dict[str, Any]]) -> Any:
    text = "\n".join(map(json.dumps, lines))
    stored = client.files.create(file=("batch.jsonl", text.encode()), purpose="batch")
    return client.batches.create(
        input_file_id=stored.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"ours": "1"}
    )


def ended(client: openai.OpenAI, batch: Any) -> Any:
    until = time.monotonic() + 30
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        assert time.monotonic() < until, batch.status
        time.sleep(0.02)
        batch = client.batches.retrieve(batch.id)
    return batch


def read(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    return [json.loads(text) for text in client.files.content(file_id).text.splitlines()] if file_id else []


def four(client: openai.OpenAI) -> Any:
    return ended(client, submit(client, [line(f"line-{n}", colour) for n, colour in enumerate(COLOURS)]))


def test_a_batch_answers_every_line_as_a_call_would_be_answered(client: openai.OpenAI, endpoint: LocalEndpoint) -> None:
    batch = four(client)
    assert (batch.status, batch.request_counts.completed, batch.error_file_id) == ("completed", 4, None)
    lines = read(client, batch.output_file_id)
    assert [answer["custom_id"] for answer in lines] == [f"line-{n}" for n in range(4)]
    asked = client.chat.completions.create(model=MODEL, messages=messages(picture("red")), max_tokens=200)  # type: ignore[arg-type]
    assert lines[1]["response"]["body"]["choices"][0]["message"]["content"] == asked.choices[0].message.content
    calls = endpoint.requests()
    assert [call["batch"] for call in calls] == [batch.id] * 4 + [None]
    # Half of what the same call costs by itself.
    assert Decimal(calls[1]["cost"]) * 2 >= Decimal(calls[4]["cost"]) > Decimal(calls[1]["cost"])


def test_batches_are_listed_with_what_they_were_created_with(client: openai.OpenAI) -> None:
    made = [submit(client, [line("one")]).id for _ in range(3)]
    first = client.batches.list(limit=2)
    assert ([batch.id for batch in first.data], first.has_more) == ([made[2], made[1]], True)
    assert [batch.id for batch in client.batches.list(limit=1)] == made[::-1]
    assert first.data[0].metadata == {"ours": "1"}


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([line("one"), line("one")], "duplicate_custom_id"),
        ([line("one", url="/v1/embeddings")], "mismatched_url"),
        ([line("one", body="text")], "missing_required_parameter"),
        ([line(""), line("two")], "missing_required_parameter"),
        ([line("one"), line("two", body={"model": "GPT-4o", "messages": []})], "model_mismatch"),
        ([], "empty_file"),
    ],
)
def test_a_file_that_is_none_of_a_batch_fails_the_whole_batch(
    client: openai.OpenAI, endpoint: LocalEndpoint, lines: list[dict[str, Any]], code: str
) -> None:
    batch = ended(client, submit(client, lines))
    assert (batch.status, batch.output_file_id) == ("failed", None)
    assert batch.errors.data[0].code == code
    assert endpoint.requests() == []  # nothing was worked at


def test_a_line_that_cannot_be_answered_stands_in_the_error_file(client: openai.OpenAI) -> None:
    wrong = {"model": MODEL, "messages": [{"role": "user", "content": [{"type": "hologram"}]}]}
    batch = ended(client, submit(client, [line("good"), line("bad", body=wrong)]))
    assert [answer["custom_id"] for answer in read(client, batch.output_file_id)] == ["good"]
    (bad,) = read(client, batch.error_file_id)
    assert (bad["custom_id"], bad["response"]["status_code"]) == ("bad", 400)


def test_a_model_that_takes_no_batches_answers_none(client: openai.OpenAI) -> None:
    body = {"model": "GLM-4.5V", "messages": messages(picture())}
    batch = ended(client, submit(client, [line("one", body=body)]))
    assert read(client, batch.error_file_id)[0]["response"]["body"]["error"]["code"] == "model_not_found"


def test_lines_are_lost_doubled_and_refused_on_demand(client: openai.OpenAI, endpoint: LocalEndpoint) -> None:
    endpoint.set_faults(
        [
            {"fault": "lost_line", "times": 1},
            {"fault": "doubled_line", "times": 1},
            {"fault": "rate_limited", "times": 1},
        ]
    )
    batch = four(client)
    assert [answer["custom_id"] for answer in read(client, batch.output_file_id)] == ["line-1", "line-1", "line-3"]
    assert [answer["custom_id"] for answer in read(client, batch.error_file_id)] == ["line-2"]
    assert [call["outcome"] for call in endpoint.requests()] == ["lost", "ok", "error", "ok"]


def test_faults_of_batches_strike_no_call(client: openai.OpenAI, endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "lost_line"}, {"fault": "doubled_line"}, {"fault": "batch_failed"}])
    asked = client.chat.completions.create(model=MODEL, messages=messages(picture()))  # type: ignore[arg-type]
    assert asked.choices[0].finish_reason == "stop"


def test_a_batch_expires_half_done_and_keeps_what_it_has(client: openai.OpenAI, endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "batch_expired"}])
    batch = four(client)
    assert (batch.status, len(endpoint.requests())) == ("expired", 2)
    assert [answer["custom_id"] for answer in read(client, batch.output_file_id)] == ["line-0", "line-1"]
    assert {answer["error"]["code"] for answer in read(client, batch.error_file_id)} == {"batch_expired"}


def test_a_batch_fails_its_validation_on_demand(client: openai.OpenAI, endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "batch_failed"}])
    assert (four(client).status, endpoint.requests()) == ("failed", [])


def test_a_stuck_batch_ends_when_it_is_cancelled(client: openai.OpenAI, endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "batch_stuck"}])
    batch = submit(client, [line("one")])
    time.sleep(0.1)
    assert client.batches.retrieve(batch.id).status == "in_progress"
    client.batches.cancel(batch.id)
    assert ended(client, batch).status == "cancelled"
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(batch.id)


def test_a_batch_may_stand_though_its_creation_was_never_answered(
    client: openai.OpenAI, endpoint: LocalEndpoint
) -> None:
    endpoint.set_faults([{"fault": "batch_unconfirmed", "times": 1}])
    with pytest.raises(openai.APIConnectionError):
        submit(client, [line("one")])
    (batch,) = client.batches.list().data
    assert ended(client, batch).status == "completed"


def test_what_is_not_there_is_said_so(client: openai.OpenAI) -> None:
    for call in (client.batches.retrieve, client.batches.cancel, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            call("nothing")
    with pytest.raises(openai.NotFoundError):
        client.batches.create(input_file_id="no", endpoint="/v1/chat/completions", completion_window="24h")
    stored = client.files.create(file=("x.jsonl", b"{}"), purpose="batch")
    with pytest.raises(openai.BadRequestError):
        client.batches.create(input_file_id=stored.id, endpoint="/v1/embeddings", completion_window="24h")
    assert client.files.retrieve(stored.id).bytes == 2
    assert client.files.delete(stored.id).deleted


def test_the_catalogue_says_which_model_takes_batches_and_at_what_price() -> None:
    catalogue = load()
    assert {name for name, model in catalogue.models.items() if model.batch_factor} == {"GPT-4o", "GLM-4-Plus"}
    half = catalogue.model("GPT-4o").in_batches()
    assert (half.input_price, half.output_price, half.cached_input_price) == (Decimal("1.25"), Decimal("5.00"), None)
    vllm = catalogue.dialects["vllm"].spoken_by(catalogue.model("GPT-4o"))
    assert vllm is not None
    assert vllm.batch_factor is None
