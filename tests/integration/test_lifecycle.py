"""Every transition of a record, tried from every state on DynamoDB: `captions.records.lifecycle` tells the truth."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

import pytest

from captions.aws.dynamodb import to_item
from captions.cost import Cost
from captions.records import lifecycle
from captions.records.attempts import paid
from captions.records.lifecycle import TRANSITIONS, Need, Transition
from captions.records.record import PENDING, ClaimRef, Draft, Human, Provenance, Reason, Record, Result, State
from captions.records.table import ChangedMeanwhileError, Records
from captions.timestamps import timestamp
from captions.uploads.version import ObjectVersion, pad_sequencer, taken_before_its_event
from support.pipeline import captions_table_without_indexes

ASSET, NOW, MINE = "media/a.jpg", 1_800_000_000.0, 1_800_000_100.0
VERSION = ObjectVersion(bucket="media", key="a.jpg", sequencer=pad_sequencer("05"), etag="e", size=9)
NEWER = VERSION.model_copy(update={"sequencer": pad_sequencer("06")})
CALL = {"model": "m", "outcome": "ok", "cost": "0.5", "started_at": "2026-01-01T00:00:00Z"}
REASON = Reason(code="broken", message="it broke")
RESULT = Result(text="A barn", language="en", task="caption", confidence=0.75)
PROVENANCE = Provenance(model="m", **paid([CALL]))
CLAIM = ClaimRef(id="claim", generation=2)
EARLIER = "2026-01-01T00:00:00.000000Z"


@pytest.fixture(scope="module")
def dynamodb() -> Iterator[Any]:
    with captions_table_without_indexes() as client:
        yield client


def item_in(state: State, way: Transition) -> dict[str, Any]:
    """A record that has everything a record can have, and whatever a transition needs."""
    words = Human(sequencer=VERSION.sequencer if "words about this version" in way.needs else pad_sequencer("04"))
    item = {
        **VERSION.model_dump(),
        "asset": ASSET,
        "version_id": "v1",
        "state": state,
        "received_at": EARLIER,
        "updated_at": EARLIER,
        "completed_at": EARLIER,
        "activity": "pending#9",
        "activity_at": EARLIER,
        "attention": "failed#9",
        "attention_rank": EARLIER,
        "kind": "video",
        "media_type": "video/mp4",
        "source": "cache",
        "result": {"text": "Before", "language": "de", "task": "caption"},
        "suggestion": {"result": {"text": "Beside", "language": "de", "task": "caption"}},
        "provenance": {"model": "earlier", "cost": "1"},
        "attempts": [CALL | {"model": "earlier"}],
        "claim": {"id": "before", "generation": 1},
        "content": ["sha256:before"],
        "reason": {"code": "before", "message": "before"},
        "draft": Draft(sequencer="s", claim="c", identity="i").model_dump_json(),
        "lease_until": MINE if "this worker at it" in way.needs else NOW - 1,
        "sweeps": 3,
        "begun": 4,
        "human": words.model_dump(),
        "recaption": {"mode": "force", "at": EARLIER} if "first caption" not in way.needs else None,
        **dict.fromkeys((*lifecycle.PAID, *lifecycle.SUPERSEDED), 7),
        "superseded_ids": ["04:earlier"],
        "paid_ids": None if "no calls of others" in way.needs else ["05:before"],
    }
    return to_item(item)


def without_recaption(record: Record) -> Record:
    return record.model_copy(update={"recaption": None})


TAKEN: Mapping[str, Callable[[Records, Record], object]] = {
    "accept": lambda records, record: records.accept(NEWER, now=NOW, due=NOW),
    "delete": lambda records, record: records.delete(NEWER, now=NOW),
    "reopen": lambda records, record: records.reopen(record, now=NOW, due=NOW),
    "recaption": lambda records, record: records.recaption(record, "stale", now=NOW, due=NOW),
    "queue": lambda records, record: records.progress(
        VERSION, "queued", now=NOW, due=NOW, kind="image", media_type="image/png", claim=CLAIM, content=["sha256:now"]
    ),
    "wait": lambda records, record: records.progress(VERSION, "waiting", now=NOW, due=NOW, kind="image"),
    "begin": lambda records, record: records.begin(VERSION, now=NOW, lease_until=MINE),
    "note": lambda records, record: records.note(
        VERSION, MINE, now=NOW, attempts=[CALL], draft=Draft(sequencer="t", claim="c", identity="i")
    ),
    "release": lambda records, record: records.release(VERSION, MINE, now=NOW, due=NOW, attempts=[CALL], reason=REASON),
    "entrust": lambda records, record: records.entrust(
        VERSION, MINE, now=NOW, until=NOW + 60, beside={"TableName": "captions", "Item": {"asset": {"S": "beside"}}}
    ),
    "postpone": lambda records, record: records.postpone(record, due=NOW),
    "vanish": lambda records, record: records.finish(VERSION, "deleted", now=NOW, reason=REASON),
    "give up": lambda records, record: records.finish(
        VERSION, "blocked", now=NOW, reason=REASON, provenance=PROVENANCE, kind="image"
    ),
    "keep": lambda records, record: records.finish(VERSION, "failed", now=NOW, reason=REASON, provenance=PROVENANCE),
    "answer": lambda records, record: records.finish(
        VERSION, "captioned", now=NOW, source="model", result=RESULT, provenance=PROVENANCE, kind="image", claim=CLAIM
    ),
    "suggest": lambda records, record: records.finish(
        VERSION, "captioned", now=NOW, source="model", result=RESULT, provenance=PROVENANCE
    ),
    "identify": lambda records, record: records.identify(
        VERSION, kind="image", media_type="image/png", content=["sha256:now"]
    ),
    "index": lambda records, record: records.index(record),
    "stall": lambda records, record: records.end_stalled(without_recaption(record), now=NOW, reason=REASON),
}


def reviewed(way: Transition) -> Callable[[Records, Record], object]:
    """Take a way that people take, with all that it may set."""
    places = {"completed_at", "activity", "activity_at", "attention", "attention_rank", "updated_at", "source"}
    values: dict[str, Any] = {
        **{name: timestamp(NOW) for name in places},
        "source": "human",
        "result": RESULT.model_dump(),
        "suggestion": {"result": RESULT.model_dump()},
        "human": Human(sequencer=VERSION.sequencer).model_dump(),
        "reason": REASON.model_dump(),
        "state": way.ends[-1] if way.ends else None,
    }
    given = {name: value for name, value in values.items() if name in way.sets | {"state"}}
    return lambda records, record: records.review(record, way, given, ())


def take(way: Transition, dynamodb: Any, record: Record) -> None:
    records = Records(dynamodb, "captions")
    try:
        TAKEN.get(way.name, reviewed(way))(records, record)
    except ChangedMeanwhileError:
        assert way.name not in TAKEN


def stored(dynamodb: Any) -> dict[str, Any]:
    item: dict[str, Any] = dynamodb.get_item(TableName="captions", Key={"asset": {"S": ASSET}})["Item"]
    return item


def assert_taken(way: Transition, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    assert after["state"] in ([{"S": state} for state in way.ends] or [before["state"]])
    changed = {name for name, value in after.items() if value != before.get(name)}
    may_change = way.sets | {"state", *lifecycle.PAID, lifecycle.PAID_IDS, *(name for name, _ in way.adds + way.joins)}
    assert changed
    assert changed <= may_change | ({way.counts} if way.counts else set())
    calls = way.clears & {"attempts", "provenance"} or changed & {"attempts", "provenance"}
    clears = way.clears | ({*lifecycle.PAID, lifecycle.PAID_IDS} if calls else set())
    assert before.keys() - after.keys() == (clears & before.keys()) - after.keys()


@pytest.mark.parametrize(
    ("way", "state"),
    [pytest.param(way, state, id=f"{way.name} from {state}") for way in TRANSITIONS for state in get_args(State)],
)
def test_a_transition_starts_sets_and_clears_what_the_table_says(dynamodb: Any, way: Transition, state: State) -> None:
    before = item_in(state, way)
    dynamodb.put_item(TableName="captions", Item=before)
    take(way, dynamodb, Record.from_item(before))
    if way.starts and state not in way.starts:
        assert stored(dynamodb) == before
    else:
        assert_taken(way, before, stored(dynamodb))


BREAKS: Mapping[Need, dict[str, Any]] = {
    "newer version": {"sequencer": NEWER.sequencer},
    "no version taken before its event": {"sequencer": taken_before_its_event(), "version_id": ""},
    "unchanged since it was read": {"updated_at": timestamp(NOW)},
    "no worker at it": {"lease_until": NOW + 1},
    "this worker at it": {"lease_until": MINE + 1},
    "first caption": {"recaption": {"mode": "force", "at": EARLIER}},
    "another caption": {"recaption": None},
    "no words about this version": {"human": Human(sequencer=VERSION.sequencer).model_dump()},
    "words about this version": {"human": Human(sequencer=pad_sequencer("04")).model_dump()},
    "no calls of others": {"paid_ids": ["05:others"]},
}
OTHERWISE = {
    (lifecycle.GIVE_UP, "first caption"): lifecycle.KEEP,
    (lifecycle.KEEP, "another caption"): lifecycle.GIVE_UP,
    (lifecycle.ANSWER, "no words about this version"): lifecycle.SUGGEST,
    (lifecycle.SUGGEST, "words about this version"): lifecycle.ANSWER,
    **{(way, "no calls of others"): way for way in TRANSITIONS},
}
"""Which of an end's two ways is taken where the first one is not open; others' calls are taken along."""


@pytest.mark.parametrize(
    ("way", "need"),
    [pytest.param(way, need, id=f"{way.name}, not {need}") for way in TRANSITIONS for need in way.needs],
)
def test_a_transition_waits_for_all_that_it_needs(dynamodb: Any, way: Transition, need: Need) -> None:
    item = item_in((way.starts or PENDING)[0], way)
    broken = {name: value for name, value in item.items() if name not in BREAKS[need]} | to_item(BREAKS[need])
    dynamodb.put_item(TableName="captions", Item=broken)
    take(way, dynamodb, Record.from_item(item))
    other = OTHERWISE.get((way, need))
    if other is None:
        assert stored(dynamodb) == broken
    else:
        assert_taken(other, broken, stored(dynamodb))


@pytest.mark.parametrize("way", [way for way in TRANSITIONS if way.starts], ids=lambda way: way.name)
def test_a_transition_is_open_to_the_version_it_was_decided_on(dynamodb: Any, way: Transition) -> None:
    item = item_in(way.starts[0], way)
    other = item | to_item({"sequencer": NEWER.sequencer})
    dynamodb.put_item(TableName="captions", Item=other)
    take(way, dynamodb, Record.from_item(item))
    assert stored(dynamodb) == other


def test_a_way_takes_nothing_that_it_does_not_name() -> None:
    for way in TRANSITIONS:
        with pytest.raises(ValueError, match=way.name):
            way.given({"unheard_of": 1, "state": way.ends[0] if way.ends else None})
    with pytest.raises(ValueError, match="give up"):
        lifecycle.GIVE_UP.given({"state": "captioned"})


def test_what_another_version_had_cost_is_added_up_when_it_is_replaced(dynamodb: Any) -> None:
    dynamodb.put_item(TableName="captions", Item=item_in("captioned", lifecycle.ACCEPT))
    take(lifecycle.ACCEPT, dynamodb, Record.from_item(item_in("captioned", lifecycle.ACCEPT)))
    record = Record.from_item(stored(dynamodb))
    assert record.superseded == Cost(dollars=record.superseded_cost or 0, unpriced_tokens=14)
    assert record.superseded_cost == record.superseded_calls == 14
    assert (record.paid_ids, record.superseded_ids) == ((), ("04:earlier", "05:before"))
