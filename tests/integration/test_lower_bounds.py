"""Models without a published price: the account holds what is known, once, whatever happens to an upload."""

from decimal import Decimal
from typing import Any

import pytest

from captions.config.policy import load
from captions.cost import Cost
from captions.gateway.catalogue import load as catalogue
from captions.queues import Revisit
from captions.records.attempts import CallLedger
from captions.records.record import Record
from captions.records.spending import spending
from support.worker import Workshop

MODEL = "Qwen/Qwen3-VL-8B-Instruct"


@pytest.fixture
def unpriced(shop: Workshop) -> Workshop:
    """Pictures go to a model whose output price alone is published."""
    shop.worker.policies = lambda: load(f'[tiers.easy]\nmodels = ["{MODEL}"]\n[tiers.hard]\nmodels = ["{MODEL}"]\n')
    return shop


def account(shop: Workshop, late: list[dict[str, Any]]) -> None:
    """Account for calls that came too late."""
    ledger = CallLedger()
    ledger.add(late)
    shop.dedupe.records.account(shop.dedupe.record("a.jpg").upload, ledger)


def captioned(shop: Workshop, key: str, data: bytes) -> Record:
    shop.dedupe.upload(key, data)
    (job,) = shop.jobs()
    assert shop.run(job) == "captioned"
    return shop.dedupe.record(key)


def bound(shop: Workshop) -> Cost:
    """What the endpoint's own log says was used, at the prices that are published."""
    asked = shop.paid()
    price = catalogue().model(MODEL).output_price
    assert price is not None
    written = sum(int(call["completion_tokens"]) for call in asked)
    tokens = sum(int(call["prompt_tokens"]) for call in asked)
    return Cost(dollars=written * price / 1_000_000, unpriced_tokens=tokens)


def accounted(*records: Record) -> Cost:
    return spending(records, "day")[1].cost


def test_a_record_holds_the_dollars_that_are_known_and_the_tokens_that_lack_a_price(
    unpriced: Workshop, photo: bytes
) -> None:
    provenance = captioned(unpriced, "a.jpg", photo).provenance
    assert provenance is not None
    assert provenance.cost is None
    assert provenance.spent == provenance.answer_spent == bound(unpriced)
    assert bound(unpriced).dollars > 0 < bound(unpriced).unpriced_tokens


def test_a_copy_tells_what_it_saved(unpriced: Workshop, photo: bytes) -> None:
    captioned(unpriced, "a.jpg", photo)
    assert unpriced.dedupe.upload("copy.jpg", photo) == "hit"
    copy = unpriced.dedupe.record("copy.jpg").provenance
    assert copy is not None
    assert (copy.spared, copy.spent) == (bound(unpriced), Cost())


def test_replaced_and_recaptioned_versions_keep_their_bounds_once(
    unpriced: Workshop, photo: bytes, other_photo: bytes
) -> None:
    shop = unpriced
    first = captioned(shop, "a.jpg", photo)
    shop.dedupe.clock.at += 60
    wish = Revisit(upload=first.upload, reason="recaption", mode="force", seen=first.updated_at)
    for _ in range(2):  # delivered twice
        shop.dedupe.intake.handle(wish)
    job = shop.jobs()[0]
    before = bound(shop)
    assert [shop.run(job) for _ in range(2)] == ["captioned", "settled"]
    again = shop.dedupe.record("a.jpg")
    assert again.provenance is not None
    assert again.provenance.answer_spent == bound(shop) - before
    assert accounted(again) == bound(shop)

    event = shop.dedupe.aws.put("a.jpg", other_photo)
    for _ in range(2):
        shop.dedupe.deliver(event)
    job = shop.jobs()[0]
    assert [shop.run(job) for _ in range(2)] == ["captioned", "settled"]
    deletion = shop.dedupe.aws.delete("a.jpg")
    for _ in range(2):
        shop.dedupe.deliver(deletion)
    assert accounted(shop.dedupe.record("a.jpg")) == bound(shop)


def test_calls_that_came_too_late_add_their_tokens_once(unpriced: Workshop, photo: bytes) -> None:
    unpriced.dedupe.upload("a.jpg", photo)
    spent = Cost(dollars=Decimal("0.01"), unpriced_tokens=700)
    late: list[dict[str, Any]] = [
        {"model": MODEL, "endpoint": "e", "started_at": "2026-01-01T00:00:00.000+00:00", **spent.fields()},
        {"model": MODEL, "endpoint": "e", "started_at": "2026-01-01T00:00:01.000+00:00", "outcome": "timeout"},
    ]
    for _ in range(2):
        account(unpriced, late)
    assert accounted(unpriced.dedupe.record("a.jpg")) == spent + Cost(uncounted_calls=1)


def test_sums_that_were_written_before_tokens_were_counted_read_as_calls_of_unknown_cost(
    unpriced: Workshop, photo: bytes
) -> None:
    unpriced.dedupe.upload("a.jpg", photo)
    unpriced.dedupe.aws.dynamodb.update_item(
        TableName="captions",
        Key={"asset": {"S": "media/a.jpg"}},
        UpdateExpression="SET superseded_cost = :dollars, superseded_calls = :three, superseded_unknown = :two",
        ExpressionAttributeValues={":dollars": {"N": "0.5"}, ":three": {"N": "3"}, ":two": {"N": "2"}},
    )
    record = unpriced.dedupe.record("a.jpg")
    assert accounted(record) == Cost(dollars=Decimal("0.5"), uncounted_calls=2)
    late = [{"model": MODEL, "started_at": "2026", **Cost(unpriced_tokens=9).fields()}]
    account(unpriced, late)
    record = unpriced.dedupe.record("a.jpg")
    assert accounted(record) == Cost(dollars=Decimal("0.5"), unpriced_tokens=9, uncounted_calls=2)
