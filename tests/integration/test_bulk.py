"""The bulk lane: from an upload that can wait to its caption from a batch, whatever goes wrong on the way."""

import asyncio
import io
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

import openai
import pytest
from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID
from PIL import Image

from captions import control_table, telemetry
from captions.bulk import lane, protocol
from captions.bulk.batch_table import BatchLine, Waiting, WaitingCount
from captions.bulk.protocol import Batch
from captions.cost import Cost
from captions.gateway import Budgets, ControlTable
from captions.gateway.batch_api import BatchApi, BatchCallError, result_lines
from captions.pipeline.caption import STORING_SECONDS, Worker
from captions.records.record import Record
from captions.records.spending import calls_of, spending
from captions_cli.local.model_endpoint import LocalEndpoint
from support.bulk import CATALOGUE, GATHER_SECONDS, MODEL, BulkShop, Killed, Killer, bulk_shop, noise
from support.pipeline import Aws, Dedupe


@pytest.fixture
def endpoint() -> Iterator[LocalEndpoint]:
    with LocalEndpoint(latency_scale=0.0, catalogue=CATALOGUE) as running:
        yield running


@pytest.fixture
def bulk(aws: Aws, dedupe: Dedupe, endpoint: LocalEndpoint) -> BulkShop:
    return bulk_shop(aws, dedupe, endpoint)


def uploads(bulk: BulkShop, number: int = 3) -> list[str]:
    keys = [f"{n}.png" for n in range(number)]
    assert [bulk.upload(key, noise(n)) for n, key in enumerate(keys)] == ["queued"] * number
    return keys


def records(bulk: BulkShop, keys: list[str]) -> list[Record]:
    return [bulk.dedupe.record(key) for key in keys]


def all_captioned_and_paid_for_once(bulk: BulkShop, keys: list[str]) -> None:
    assert [record.state for record in records(bulk, keys)] == ["captioned"] * len(keys)
    payments = bulk.payments()
    assert (len(payments), set(payments.values())) == (len(keys), {1})
    assert bulk.kept() == []
    assert bulk.lane.table.waiting() == []


def test_misses_are_gathered_sent_as_one_batch_and_handed_out_like_any_answer(bulk: BulkShop) -> None:
    keys = uploads(bulk)
    assert bulk.shop.jobs() == []
    assert bulk.gather() == ["gathered"] * 3
    assert bulk.lane.table.count_waiting() == WaitingCount(3, complete=True, since=bulk.dedupe.clock())
    assert bulk.look() is not None
    assert bulk.batches() == []  # they may yet become more
    ran = bulk.look(GATHER_SECONDS)
    assert ran is not None
    assert (ran.formed, ran.submitted, ran.waiting) == (1, 1, 0)
    bulk.settle()
    all_captioned_and_paid_for_once(bulk, keys)
    assert len({call["batch"] for call in bulk.shop.paid()}) == 1
    (batch,) = bulk.lane.table.recent(bulk.dedupe.clock())
    total = spending(records(bulk, keys), "day")[1]
    assert (batch.taken, batch.spent, batch.saved) == (3, total.cost, total.saved_by_batches)
    assert batch.saved == batch.spent != Cost()  # half the price
    for record in records(bulk, keys):
        assert record.provenance is not None
        (attempt,) = record.provenance.attempts
        assert (attempt["lane"], attempt["role"], attempt["outcome"]) == ("bulk", "first", "ok")
        assert attempt["batch"] == batch.id
        # Half of the catalogue's prices.
        model = CATALOGUE.models[attempt["model"]]
        assert model.input_price is not None
        assert model.output_price is not None
        full = (
            attempt["prompt_tokens"] * model.input_price + attempt["completion_tokens"] * model.output_price
        ) / 10**6
        assert Decimal(str(record.provenance.cost)) * 2 == full
    assert sorted(bulk.dedupe.aws.heard()) == [("Caption.Completed", key) for key in keys]


def test_a_copy_waits_for_the_batch_and_the_claim_holds_all_the_while(bulk: BulkShop) -> None:
    uploads(bulk, 1)
    bulk.gather()
    bulk.dedupe.clock.at += 20 * 3_600
    assert bulk.dedupe.upload("copy.png", noise(0)) == "waiting"
    due = bulk.dedupe.record("copy.png")
    assert [record.asset for shard in range(8) for record in bulk.dedupe.records.due(shard, bulk.dedupe.clock())] == []
    assert due.state == "waiting"
    bulk.settle()
    copy = bulk.dedupe.record("copy.png")
    assert (copy.state, copy.source) == ("captioned", "cache")
    assert sum(bulk.payments().values()) == 1


def test_a_picture_that_is_like_one_in_the_same_batch_is_not_in_it(bulk: BulkShop, photo: bytes) -> None:
    with Image.open(io.BytesIO(photo)) as image:
        out = io.BytesIO()
        image.resize((image.width // 2, image.height // 2)).save(out, "JPEG", quality=85)
    pictures = {"first.jpg": photo, "smaller.jpg": out.getvalue(), "same.jpg": photo}
    assert [bulk.upload(key, data) for key, data in pictures.items()] == ["queued", "waiting", "waiting"]
    bulk.settle()
    all_records = records(bulk, list(pictures))
    assert [record.state for record in all_records] == ["captioned"] * 3
    assert [record.source for record in all_records] == ["model", "cache", "cache"]
    (batch,) = bulk.batches()
    assert (batch.lines, sum(bulk.payments().values())) == (1, 1)


def test_functions_whose_clocks_differ_by_ten_minutes_create_a_batch_once(
    bulk: BulkShop, endpoint: LocalEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = uploads(bulk)
    bulk.gather()
    own, clock = bulk.lane.worker, bulk.dedupe.clock
    ahead = Worker(
        settings=own.settings, records=own.records, objects=own.objects, neighbours=own.neighbours, queues=own.queues,
        notifier=own.notifier, gateway=own.gateway, now=lambda: clock() + 600, progress=own.progress,
    )  # fmt: skip
    api = BatchApi(lambda fresh: "a key", [endpoint.url])
    other = lane.BulkLane(bulk.lane.settings, ahead, bulk.lane.table, api, CATALOGUE)
    create, looks = bulk.lane.api.create, list[lane.Ran | None]()

    async def overtaken(*arguments: Any) -> str:
        """Another function looks after the batches between two calls of this one, whose lease it takes for over."""
        looks.append(await other.run(deadline=time.monotonic() + 120))
        return await create(*arguments)

    monkeypatch.setattr(bulk.lane.api, "create", overtaken)
    bulk.look(GATHER_SECONDS)
    assert [look is not None for look in looks] == [True]
    monkeypatch.setattr(bulk.lane.api, "create", create)
    bulk.settle()
    all_captioned_and_paid_for_once(bulk, keys)


def kept_at_once(Bucket: str, Key: str, Body: bytes) -> None:
    """Put an object where moto keeps it."""
    get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"].put_object(Bucket, Key, Body)


@pytest.mark.deep
def test_a_batch_of_more_lines_than_a_page_of_s3_or_dynamodb_is_kept_read_and_removed(
    bulk: BulkShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads(bulk, 1)
    (job,) = bulk.queued()
    table, dynamodb = bulk.lane.table, bulk.dedupe.aws.dynamodb
    names = [f"line-{number:04}" for number in range(1_100)]
    with monkeypatch.context() as patch:  # for the number's sake alone, without a call of S3 for each
        patch.setattr(bulk.dedupe.aws.s3, "put_object", kept_at_once)
        for number, name in enumerate(names):
            table.keep(BatchLine(name, job, 9e9), f"request {number} {'x' * 1_000}".encode())
    puts = [
        table.waiting_put(Waiting(name * 60, MODEL, "https://e/v1", 1_020, float(number), 9e9))["Item"]
        for number, name in enumerate(names)
    ]
    for first in range(0, len(puts), 25):
        items = [{"PutRequest": {"Item": item}} for item in puts[first : first + 25]]
        dynamodb.batch_write_item(RequestItems={"control": items})
    waiting = [replace(line, line=line.line[:9]) for line in table.waiting()]
    assert [line.line for line in waiting] == names
    batch = Batch("b", "formed", MODEL, "https://e/v1", len(names), 1, 9e9, 1.0)
    assert table.form(batch, waiting)
    assert [line.line for line in table.lines_of(batch)] == names
    assert [request.split()[1] for request in table.requests(names)] == [str(n).encode() for n in range(1_100)]
    table.detach(replace(line, line=line.line * 60) for line in waiting)
    assert table.waiting() == []
    table.discard(batch, names)
    assert bulk.kept() == []


def test_a_rule_of_the_policy_sends_what_it_is_about_to_the_lane(
    aws: Aws, dedupe: Dedupe, endpoint: LocalEndpoint
) -> None:
    from captions.config import policy

    bulk = bulk_shop(aws, dedupe, endpoint)
    rules = policy.load('[[rules]]\nprefix = "archive/"\nlane = "bulk"')
    dedupe.intake.policies = lambda: rules
    assert dedupe.upload("archive/a.png", noise(1)) == "queued"
    assert dedupe.upload("b.png", noise(2)) == "queued"
    assert [job.upload.key for job in bulk.queued()] == ["archive/a.png"]
    assert [job.upload.key for job in bulk.shop.jobs()] == ["b.png"]


def test_a_model_that_takes_no_batches_is_asked_the_ordinary_way(bulk: BulkShop) -> None:
    bulk.lane.worker.gateway._catalogue = CATALOGUE.model_copy(  # as another catalogue says
        update={"models": {n: m.model_copy(update={"batch_factor": None}) for n, m in CATALOGUE.models.items()}}
    )
    keys = uploads(bulk, 1)
    assert bulk.gather() == ["ordinary"]
    assert bulk.shop.run_all(bulk.shop.jobs()) == ["captioned"]
    all_captioned_and_paid_for_once(bulk, keys)


def test_lines_that_are_lost_go_the_ordinary_way_and_doubled_ones_change_nothing(
    bulk: BulkShop, endpoint: LocalEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "CHUNK", 1)  # one that comes twice comes in two chunks
    endpoint.set_faults([{"fault": "lost_line", "times": 1}, {"fault": "doubled_line"}])
    keys = uploads(bulk)
    bulk.settle()
    all_captioned_and_paid_for_once(bulk, keys)
    assert bulk.endings == {"captioned": 1}
    calls = [call for record in records(bulk, keys) for call in calls_of(record) if call.get("lane") == "bulk"]
    answered = [call for call in calls if call["outcome"] == "ok"]
    (batch,) = bulk.batches()
    assert (len(calls), len(answered)) == (3, 2)
    assert batch.spent == Cost.sum(map(Cost.of_call, answered))
    assert sorted(bulk.dedupe.aws.heard()).count(("Caption.Completed", keys[0])) == 1


def test_lines_of_others_in_the_results_change_nothing_and_are_logged_once_with_their_number(
    bulk: BulkShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "CHUNK", 1)
    logged = list[tuple[str, dict[str, Any]]]()
    foreign = [(f"somebody's-{n}", {"custom_id": f"somebody's-{n}"}) for n in range(40)]
    monkeypatch.setattr("captions.bulk.lane.result_lines", lambda path: (*foreign, *result_lines(path)))
    monkeypatch.setattr(telemetry.logger(), "warning", lambda event, **fields: logged.append((event, fields)))
    keys = uploads(bulk)
    bulk.settle()
    all_captioned_and_paid_for_once(bulk, keys)
    (batch,) = bulk.batches()
    assert logged == [("batch_lines_unknown", {"batch": batch.id, "lines": 40})]


def test_a_batch_that_expires_half_done_is_paid_for_by_halves(bulk: BulkShop, endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "batch_expired"}])
    keys = uploads(bulk, 4)
    bulk.settle()
    all_captioned_and_paid_for_once(bulk, keys)
    assert Counter(call["batch"] is None for call in bulk.shop.paid()) == {True: 2, False: 2}
    assert [batch.reason for batch in bulk.batches()] == ["expired"]


def test_a_batch_that_fails_its_validation_costs_nothing(bulk: BulkShop, endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "batch_failed"}])
    keys = uploads(bulk)
    bulk.settle()
    all_captioned_and_paid_for_once(bulk, keys)
    assert all(call["batch"] is None for call in bulk.shop.paid())
    assert "parseable" in (bulk.batches()[0].reason or "")


def test_a_batch_whose_creation_was_never_answered_is_found_by_its_file(
    bulk: BulkShop, endpoint: LocalEndpoint
) -> None:
    endpoint.set_faults([{"fault": "batch_unconfirmed", "times": 1}])
    keys = uploads(bulk)
    bulk.gather()
    bulk.look(GATHER_SECONDS)
    assert [batch.state for batch in bulk.batches()] == ["submitting"]
    bulk.settle()
    all_captioned_and_paid_for_once(bulk, keys)
    assert {call["batch"] is None for call in bulk.shop.paid()} == {False}


def test_a_batch_that_does_not_end_is_cancelled_at_its_deadline(bulk: BulkShop, endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "batch_stuck"}])
    keys = uploads(bulk, 2)
    bulk.gather()
    bulk.look(GATHER_SECONDS)
    assert bulk.dedupe.upload("copy.png", noise(0)) == "waiting"
    bulk.dedupe.clock.at += bulk.lane.settings.bulk_patience_seconds
    bulk.settle()
    all_captioned_and_paid_for_once(bulk, keys)
    assert bulk.dedupe.record("copy.png").source == "cache"
    assert [batch.reason for batch in bulk.batches()] == ["cancelled"]


def test_what_a_check_rejects_is_repaired_by_a_worker_and_its_first_cost_stays(
    bulk: BulkShop, endpoint: LocalEndpoint
) -> None:
    endpoint.set_faults([{"fault": "answer", "text": "I see " + "a cat and " * 60, "times": 1}])
    keys = uploads(bulk, 1)
    bulk.settle()
    (record,) = records(bulk, keys)
    assert record.state == "captioned"
    assert record.provenance is not None
    lanes = [(attempt.get("lane"), attempt["role"]) for attempt in record.provenance.attempts]
    assert lanes[0] == ("bulk", "first")
    assert {lane for lane, _ in lanes[1:]} == {None}
    assert "first" not in [role for _, role in lanes[1:]]  # the batch's answer is gone on from, not asked for again
    costs = [Decimal(str(attempt["cost"])) for attempt in record.provenance.attempts if attempt.get("cost")]
    assert all(cost > 0 for cost in costs)


@pytest.mark.parametrize("fault", ["refusal", "rate_limited", "truncated"])
def test_a_line_that_fails_goes_the_ordinary_way_with_its_call_in_the_ledger(
    bulk: BulkShop, endpoint: LocalEndpoint, fault: str
) -> None:
    endpoint.set_faults([{"fault": fault, "times": 1}])
    keys = uploads(bulk, 1)
    bulk.settle()
    (record,) = records(bulk, keys)
    assert record.state == "captioned"
    assert record.provenance is not None
    first, *rest = record.provenance.attempts
    assert first["lane"] == "bulk"
    assert first["outcome"] != "ok"
    assert [attempt["outcome"] for attempt in rest] == ["ok"]


def test_a_job_delivered_again_finds_its_upload_entrusted(bulk: BulkShop) -> None:
    uploads(bulk, 1)
    jobs = bulk.queued()
    assert bulk.gather(jobs + jobs) == ["gathered", "entrusted"]
    bulk.settle()
    assert bulk.gather(jobs) == ["settled"]
    assert sum(bulk.payments().values()) == 1


def test_what_a_killed_gatherer_held_is_soon_free(bulk: BulkShop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def killed(*_: object) -> NoReturn:
        raise Killed

    keys = uploads(bulk, 1)
    jobs = bulk.queued()
    with monkeypatch.context() as patched:
        patched.setattr(bulk.lane, "_entrust", killed)
        with pytest.raises(Killed):
            asyncio.run(bulk.lane.gather(jobs[0], deadline=time.monotonic() + 300))
    (held,) = records(bulk, keys)
    assert held.lease_until is not None
    assert bulk.dedupe.clock() < held.lease_until <= bulk.dedupe.clock() + lane.GATHERING_SECONDS + STORING_SECONDS
    assert bulk.gather(jobs) == ["busy"]
    bulk.dedupe.clock.at = float(held.lease_until) + 1
    assert bulk.gather(jobs) == ["gathered"]


def test_uploads_overwritten_or_deleted_while_they_wait(bulk: BulkShop) -> None:
    keys = uploads(bulk)
    bulk.gather()
    bulk.upload(keys[0], noise(10))
    bulk.dedupe.deliver(bulk.dedupe.aws.delete(keys[1]))
    bulk.settle()
    states = [record.state for record in records(bulk, keys)]
    assert states == ["captioned", "deleted", "captioned"]
    overwritten, deleted, _ = records(bulk, keys)
    assert overwritten.superseded_calls == deleted.superseded_calls == 1
    assert set(bulk.payments().values()) == {1}
    assert sum(bulk.payments().values()) == 4


@pytest.mark.deep
def test_limits_of_size_and_number_split_what_waits(
    aws: Aws, dedupe: Dedupe, endpoint: LocalEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk = bulk_shop(aws, dedupe, endpoint, bulk_max_requests=2)
    download, on_disk = bulk.lane.api.download, list[str]()

    async def downloaded(base_url: str, file_id: str, to: Path) -> None:
        on_disk.extend(path.name for path in to.parent.iterdir())
        await download(base_url, file_id, to)

    monkeypatch.setattr(bulk.lane.api, "download", downloaded)
    keys = uploads(bulk, 5)
    bulk.gather()
    ran = bulk.look()
    assert ran is not None
    assert (ran.formed, ran.waiting) == (2, 1)  # the full ones do not wait
    bulk.settle()
    assert sorted(batch.lines for batch in bulk.batches()) == [1, 2, 2]
    assert on_disk == []  # one batch's results at a time
    all_captioned_and_paid_for_once(bulk, keys)


def test_lines_that_nobody_looked_at_for_a_day_go_the_ordinary_way_and_take_no_others_along(bulk: BulkShop) -> None:
    uploads(bulk, 1)
    bulk.gather()
    bulk.dedupe.clock.at += bulk.lane.settings.bulk_patience_seconds
    bulk.upload("late.png", noise(7))
    bulk.gather()
    bulk.settle()
    all_captioned_and_paid_for_once(bulk, ["0.png", "late.png"])
    assert sorted(batch.reason or "" for batch in bulk.batches()) == ["", "not submitted in time"]


def test_an_upload_whose_lease_ended_is_gathered_again_and_paid_for_once(bulk: BulkShop) -> None:
    uploads(bulk, 1)
    bulk.gather()
    bulk.dedupe.clock.at += bulk.lane.settings.bulk_patience_seconds + protocol.HANDING_SECONDS + 1
    record = bulk.dedupe.record("0.png")
    bulk.dedupe.deliver({"type": "revisit", "reason": "sweep", "upload": record.upload.model_dump()})
    assert bulk.gather() == ["gathered"]
    bulk.settle()
    all_captioned_and_paid_for_once(bulk, ["0.png"])


def test_two_looks_at_once_are_one(bulk: BulkShop) -> None:
    now = bulk.dedupe.clock()
    assert bulk.lane.table.take_over(now, now + 300)
    assert bulk.look() is None
    assert bulk.look(301) is not None


def test_copies_of_an_upload_that_went_whose_line_failed_are_captioned(bulk: BulkShop, endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "refusal", "times": 1}])
    uploads(bulk, 1)
    bulk.gather()
    assert bulk.dedupe.upload("copy.png", noise(0)) == "waiting"
    bulk.dedupe.deliver(bulk.dedupe.aws.delete("0.png"))
    bulk.settle()
    for revisit in bulk.dedupe.aws.receive(bulk.dedupe.aws.uploads_queue):
        bulk.dedupe.deliver(revisit)
    bulk.settle()
    assert [record.state for record in records(bulk, ["0.png", "copy.png"])] == ["deleted", "captioned"]


def test_a_result_that_cannot_be_handed_out_keeps_no_other_from_its_end(
    bulk: BulkShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = uploads(bulk)
    bulk.gather()
    store = bulk.lane.worker.store

    async def fails(delivery: Any, *others: Any) -> Any:
        if delivery.job.upload.key == keys[1]:
            raise RuntimeError("for good")
        return await store(delivery, *others)

    monkeypatch.setattr(bulk.lane.worker, "store", fails)
    bulk.settle()
    all_ended = records(bulk, keys)
    assert [record.state for record in all_ended] == ["captioned"] * 3
    assert sorted(bulk.payments().values()) == [1, 1, 2]
    assert all_ended[1].provenance is not None
    # What the batch's answer cost was not kept: it is unknown, not nothing.
    assert all_ended[1].provenance.spent is not None
    assert all_ended[1].provenance.spent.uncounted_calls == 1
    assert [batch.state for batch in bulk.batches()] == ["closed"]


def test_results_that_fail_together_are_handed_out_once_what_ails_them_is_over(
    bulk: BulkShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captions.bulk.lane.MOST_FAILED", 1)
    keys = uploads(bulk)
    bulk.gather()
    with monkeypatch.context() as patch:

        async def fails(*given: Any) -> Any:
            raise RuntimeError("for now")

        patch.setattr(bulk.lane.worker, "store", fails)
        for _ in range(20):
            bulk.look(GATHER_SECONDS)
            if bulk.batches()[0].state == "ended":
                break
    assert bulk.batches()[0].taken == 0
    bulk.settle()
    all_captioned_and_paid_for_once(bulk, keys)


def test_batches_of_an_endpoint_that_hangs_let_those_of_others_go_first(
    bulk: BulkShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, asked = bulk.dedupe.clock(), list[str]()
    for name, endpoint in (("1", "https://hangs/v1"), ("2", "https://hangs/v1"), ("3", "https://sound/v1")):
        submitted = Batch(name, "submitted", MODEL, endpoint, 1, 1, now + 9e4 + int(name), now, remote_id=name)
        assert bulk.lane.table.form(submitted, [])

    async def retrieve(base_url: str, batch: str) -> NoReturn:
        asked.append(batch)
        raise BatchCallError("later", "for now")

    monkeypatch.setattr(bulk.lane.api, "retrieve", retrieve)
    assert bulk.look() is not None
    assert asked == ["1", "3", "2"]


def test_a_batch_that_cannot_begin_keeps_no_other_from_its_results(
    bulk: BulkShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = uploads(bulk)
    bulk.gather()
    bulk.look(GATHER_SECONDS)
    now = bulk.dedupe.clock()
    broken = Batch("broken", "formed", MODEL, "https://e/v1", 1, 1, now + 9e3, now)
    assert bulk.lane.table.form(broken, [])
    lines_of = bulk.lane.table.lines_of

    def unreadable(batch: Batch) -> Any:
        if batch.id == "broken":
            raise RuntimeError("no list")
        return lines_of(batch)

    monkeypatch.setattr(bulk.lane.table, "lines_of", unreadable)
    for _ in range(6):
        bulk.look(GATHER_SECONDS)
    assert [record.state for record in records(bulk, keys)] == ["captioned"] * 3


def test_a_model_that_left_the_catalogue_meanwhile_has_answered_at_an_unknown_price(bulk: BulkShop) -> None:
    keys = uploads(bulk, 1)
    bulk.gather()
    bulk.submit()
    bulk.lane.catalogue = CATALOGUE.model_copy(update={"models": {}})
    bulk.settle()
    all_captioned_and_paid_for_once(bulk, keys)
    (record,) = records(bulk, keys)
    assert record.provenance is not None
    assert record.provenance.spent is not None
    assert record.provenance.spent.unpriced_tokens > 0


def test_a_batch_costs_the_part_of_the_prices_that_it_began_at(bulk: BulkShop) -> None:
    """Who takes the factor from the catalogue, so that no further batch is made, has those under way at half price."""
    keys = uploads(bulk, 1)
    bulk.gather()
    bulk.submit()
    models = {name: model.model_copy(update={"batch_factor": None}) for name, model in CATALOGUE.models.items()}
    bulk.lane.catalogue = CATALOGUE.model_copy(update={"models": models})
    bulk.settle()
    (record,) = records(bulk, keys)
    (paid,) = bulk.shop.paid()
    assert record.provenance is not None
    assert Decimal(str(record.provenance.cost)) == Decimal(str(paid["cost"]))


@pytest.mark.deep
@pytest.mark.parametrize("status", ["completed", "SUCCEEDED"])
def test_a_batch_that_names_its_results_late_or_its_end_otherwise_is_not_paid_for_again(
    bulk: BulkShop, endpoint: LocalEndpoint, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    from captions_cli.local.model_endpoint.batches import StoredBatch

    card, named_from = StoredBatch.card, 3
    asked: list[str] = []

    def late(self: StoredBatch) -> dict[str, Any]:
        shown = card(self)
        if shown["status"] == "completed":
            asked.append(status)
            shown |= {"status": status} | ({} if len(asked) > named_from else {"output_file_id": None})
        return shown

    monkeypatch.setattr(StoredBatch, "card", late)
    keys = uploads(bulk, 2)
    bulk.gather()
    bulk.look(GATHER_SECONDS)
    if status != "completed":  # nobody knows that word: what is there at the deadline is taken
        client = openai.OpenAI(base_url=endpoint.url, api_key="a key")
        until = time.monotonic() + 60
        while client.batches.list().data[0].status != status:
            assert time.monotonic() < until, "the endpoint does not end the batch"
            time.sleep(0.02)
        bulk.dedupe.clock.at += bulk.lane.settings.bulk_patience_seconds
    bulk.settle()
    assert len(asked) > named_from
    all_captioned_and_paid_for_once(bulk, keys)


def test_a_line_that_is_lost_may_have_been_billed(bulk: BulkShop, endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "lost_line", "times": 1}])
    keys = uploads(bulk, 1)
    bulk.settle()
    (record,) = records(bulk, keys)
    assert record.provenance is not None
    lost, answered = record.provenance.attempts
    assert (lost["lane"], lost["outcome"], lost["cost_at_least"]["uncounted_calls"]) == ("bulk", "timeout", 1)
    assert answered["outcome"] == "ok"


def test_the_endpoint_keeps_no_file_of_a_batch_that_is_over(bulk: BulkShop, endpoint: LocalEndpoint) -> None:
    uploads(bulk)
    bulk.settle()
    client = openai.OpenAI(base_url=endpoint.url, api_key="a key")
    assert [batch.status for batch in client.batches.list().data] == ["completed"]
    assert client.files.list().data == []


def test_an_endpoint_that_takes_too_long_about_one_batch_keeps_no_other_waiting(
    aws: Aws, dedupe: Dedupe, endpoint: LocalEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk = bulk_shop(aws, dedupe, endpoint, bulk_max_requests=1)
    keys = uploads(bulk, 2)
    bulk.gather()
    with monkeypatch.context() as patch:
        upload, asked = bulk.lane.api.upload, list[str]()

        async def hangs_once(*given: Any) -> str:
            asked.append("")
            if len(asked) == 1:
                try:
                    await asyncio.sleep(3_600)
                finally:  # a busy machine must not make the other one late
                    bulk.lane._deadline = time.monotonic() + 100
            return await upload(*given)

        patch.setattr(bulk.lane.api, "upload", hangs_once)
        patch.setattr("captions.bulk.lane.CLOSING_SECONDS", 117.0)  # of 120: three are left
        bulk.look(GATHER_SECONDS)
    hung, other = sorted(bulk.batches(), key=lambda batch: batch.state != "ready")
    assert (hung.state, other.state == "ready") == ("ready", False)
    bulk.settle()
    all_captioned_and_paid_for_once(bulk, keys)


def test_what_was_set_aside_for_an_upload_that_went_is_replaced_by_what_it_cost(bulk: BulkShop) -> None:
    table = ControlTable(bulk.dedupe.aws.dynamodb, "control")
    budgets = Budgets({"*": Decimal(5)}, table, now=lambda: datetime.fromtimestamp(bulk.dedupe.clock(), UTC))
    bulk.lane.worker.gateway._budgets = budgets
    uploads(bulk, 2)
    bulk.gather()
    day = budgets._now().date().isoformat()
    key = control_table.budget("*", day)

    def counted() -> Decimal:
        item = bulk.dedupe.aws.dynamodb.get_item(TableName="control", Key=key)["Item"]
        return Decimal(item["dollars"]["N"])

    aside = counted()
    bulk.dedupe.deliver(bulk.dedupe.aws.delete("0.png"))
    bulk.settle()
    assert counted() == sum(Decimal(str(call["cost"])) for call in bulk.shop.paid()) < aside


def test_an_endpoint_that_is_down_is_waited_for(bulk: BulkShop, endpoint: LocalEndpoint, monkeypatch: Any) -> None:
    keys = uploads(bulk, 1)
    bulk.gather()
    with monkeypatch.context() as patch:
        patch.setattr(bulk.lane.api, "_client", lambda url: pytest.fail("no call"))
        patch.setattr("captions.gateway.api_keys.KeyRing.key", _no_key)
        bulk.look(GATHER_SECONDS)
    assert [batch.state for batch in bulk.batches()] == ["ready"]
    bulk.settle()
    all_captioned_and_paid_for_once(bulk, keys)


async def _no_key(self: Any, base_url: str) -> str:
    from captions.gateway import AccountProblem

    raise AccountProblem("the key cannot be read")


@pytest.mark.deep
def test_a_look_that_is_killed_anywhere_pays_for_nothing_twice(bulk: BulkShop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before or after every fourth of its calls of AWS and of the endpoint, from forming a batch to its end."""
    killer = Killer(bulk, monkeypatch)
    keys: list[str] = []
    killed = True
    while killed:
        keys.append(f"kill-{len(keys)}.png")
        bulk.upload(keys[-1], noise(100 + len(keys)))
        bulk.gather()
        killer.aim(4 * len(keys) - 3 + len(keys) % 4, "before" if len(keys) % 2 else "after")
        killed = to_its_end(bulk, killer)
    assert len(keys) > 8
    for record in records(bulk, keys):
        if record.state != "captioned":  # released, and killed before its job was sent: the sweep's to find
            assert record.lane == "now"
            bulk.dedupe.clock.at += protocol.HANDING_SECONDS
            bulk.dedupe.deliver({"type": "revisit", "reason": "sweep", "upload": record.upload.model_dump()})
    bulk.shop.run_all(bulk.shop.jobs())
    all_captioned_and_paid_for_once(bulk, keys)


def to_its_end(bulk: BulkShop, killer: Killer) -> bool:
    """Look until no batch is open; answers whether a look was killed."""
    killed = False
    for _ in range(40):
        try:
            ran = killer.look(GATHER_SECONDS)
        except Killed:
            killed = True
            bulk.dedupe.clock.at += 200  # until the killed one's lease is over
            continue
        bulk.shop.run_all(bulk.shop.jobs())
        if ran is not None and not ran.open and not ran.waiting:
            for revisit in bulk.dedupe.aws.receive(bulk.dedupe.aws.uploads_queue):
                bulk.dedupe.deliver(revisit)
            return killed
    pytest.fail(f"still open: {bulk.batches()}")
