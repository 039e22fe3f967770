"""The near-duplicate index and its claims on DynamoDB, as moto plays it."""

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from captions.fingerprint import RADIUS, Fingerprint, Resemblance, bands, fingerprint_image, hamming
from captions.fingerprint.comparison import Strictness
from captions.near_duplicates import Contended, Follow, Hit, Lead, Neighbours, index, protocol
from captions.near_duplicates.protocol import Announcement, Claim
from captions.uploads.version import ObjectVersion, pad_sequencer
from support.claims import Outcome, Store, World
from support.journeys import cropped
from support.pipeline import MEDIA, Clock, aws_in_this_process, client_of, locked

TABLE = "fingerprints"
HASH = bytes(range(32))
EXAMPLES = itertools.count()


@pytest.fixture(scope="module")
def shared_client() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch, aws_in_this_process():
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        client = new_client()
        make_table(client, TABLE)
        yield client


@pytest.fixture
def client(shared_client: Any) -> Any:
    """A client of one's own, which may be tampered with."""
    return new_client()


def new_client() -> Any:
    return locked(client_of("dynamodb"), LOCK)


def make_table(client: Any, name: str) -> str:
    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
    )
    return name


def new_table(client: Any) -> str:
    """A table for one example of a property; moto goes through all of a table for every query."""
    return make_table(client, f"example-{next(EXAMPLES)}")


LOCK = threading.RLock()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def neighbours(client: Any, clock: Clock) -> Neighbours:
    return Neighbours(client, TABLE, now=clock, sleep=lambda seconds: None, evidence=showing())


@pytest.fixture
def scope(request: pytest.FixtureRequest) -> str:
    return str(request.node.nodeid)


def showing(*fingerprints: Fingerprint) -> Callable[[Claim], bytes | None]:
    """What objects with these fingerprints show, and any other the same thing."""
    shown = {fingerprint.exact: fingerprint.evidence for fingerprint in fingerprints}
    return lambda claim: shown.get(claim.exact, b"evidence")


def tamper(client: Any, change: Callable[[Callable[..., Any], str, dict[str, Any]], Any]) -> None:
    call = client._make_api_call
    client._make_api_call = lambda operation, arguments: change(call, operation, arguments)


def flipped(phash: bytes, *bits: int) -> bytes:
    value = int.from_bytes(phash, "big")
    for bit in set(bits):
        value ^= 1 << bit
    return value.to_bytes(32, "big")


def upload(key: str) -> ObjectVersion:
    return ObjectVersion(bucket="media", key=key, sequencer=pad_sequencer("1"))


def announced(scope: str, key: str, phash: bytes | None = HASH, exact: tuple[str, ...] | None = None) -> Announcement:
    about = upload(key)
    evidence = b"evidence" if phash is not None else None
    return Announcement(protocol.claim_id(scope, about), scope, about, exact or (f"b:{key}",), phash, evidence)


def matches(neighbours: Neighbours, me: Announcement, by: Any = "all") -> frozenset[str]:
    ids: frozenset[str] = neighbours.take(protocol.Scan(me, by, consistent=True))
    return ids


def claim_of(neighbours: Neighbours, me: Announcement) -> Claim:
    (claim,) = neighbours.take(protocol.Read((me.id,)))
    return claim  # type: ignore[no-any-return]


# -- the lookup ----------------------------------------------------------------------------------------------

BAND_STARTS = (*range(0, 184, 23), 184, 208, 232)
"""The lowest bit of each band, from the last band to the first."""

near_and_far = st.one_of(
    st.sets(st.integers(0, 255), max_size=RADIUS + 3),
    st.lists(st.integers(0, 22), min_size=9, max_size=11).map(
        # One bit in each of as many bands: the hardest case for an index of bands.
        lambda offsets: {start + offset for start, offset in zip(BAND_STARTS, offsets, strict=False)}
    ),
    st.sets(st.integers(0, 255), min_size=60, max_size=200),
)


@pytest.mark.deep
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(base=st.binary(min_size=32, max_size=32), flips=st.lists(near_and_far, min_size=1, max_size=8))
def test_a_lookup_finds_what_comparing_with_every_hash_would(client: Any, base: bytes, flips: list[set[int]]) -> None:
    scope = "brute force"
    neighbours = Neighbours(client, new_table(client), now=Clock())
    hashes = [flipped(base, *bits) for bits in flips]
    stored = [announced(scope, str(number), phash) for number, phash in enumerate(hashes)]
    for me in stored:
        neighbours.take(protocol.Publish(me, 1))
    for phash in (base, *hashes):
        expected = {me.id for me in stored if me.phash is not None and hamming(me.phash, phash) <= RADIUS}
        assert matches(neighbours, announced(scope, "looking", phash), "near") == expected


def test_exact_keys_are_found_whatever_the_hash(neighbours: Neighbours, scope: str) -> None:
    a = announced(scope, "a", HASH, ("b:1", "x:1"))
    neighbours.take(protocol.Publish(a, 1))
    assert matches(neighbours, announced(scope, "b", None, ("b:2", "x:1")), "exact") == {a.id}
    assert matches(neighbours, announced(scope, "c", flipped(HASH, *range(100)), ("x:1",)), "exact") == {a.id}
    assert matches(neighbours, announced(scope, "d", flipped(HASH, *range(100)), ("x:2",))) == frozenset()


# -- loose: crops are found by the hashes the picture would have if it were framed otherwise -----------------------


def test_a_crop_is_found_under_loose_alone(client: Any, clock: Clock, scope: str) -> None:
    photo = (MEDIA / "casa-mila.jpg").read_bytes()
    original, crop = fingerprint_image(photo), fingerprint_image(cropped(photo))
    assert hamming(original.phash or b"", crop.phash or b"") > RADIUS, "its own hash is out of reach"
    policy: Strictness
    for policy, first, second in (("loose", original, crop), ("loose", crop, original), ("strict", original, crop)):
        neighbours = Neighbours(client, TABLE, policy=policy, now=clock, evidence=showing(original, crop))
        case = f"{scope} {policy} {first is crop}"
        lead = neighbours.find_or_claim(case, upload("first"), first)
        assert isinstance(lead, Lead)
        assert neighbours.settle(lead.claim_id, lead.generation, "READY", {"text": "a house"}) == []
        answer = neighbours.find_or_claim(case, upload("second"), second)
        if policy == "loose":
            assert isinstance(answer, Hit)
            assert answer.claim.outcome == {"text": "a house"}
            assert answer.likeness is not None
            assert answer.likeness.way == "cropped"
        else:
            assert isinstance(answer, Lead)


def test_a_crop_follows_its_picture_while_that_is_captioned(client: Any, clock: Clock, scope: str) -> None:
    photo = (MEDIA / "casa-mila.jpg").read_bytes()
    original, crop = fingerprint_image(photo), fingerprint_image(cropped(photo))
    neighbours = Neighbours(client, TABLE, policy="loose", now=clock, evidence=showing(original))
    lead = neighbours.find_or_claim(scope, upload("photo"), original)
    assert isinstance(lead, Lead)
    assert neighbours.find_or_claim(scope, upload("crop"), crop) == Follow(lead.claim_id)
    assert neighbours.settle(lead.claim_id, lead.generation, "READY", {"text": "a house"}) == [upload("crop")]


def test_probes_that_reach_another_picture_give_it_no_caption(client: Any, clock: Clock, scope: str) -> None:
    """Its hash is what the crop's would be, its evidence is another picture's."""
    photo, other = ((MEDIA / name).read_bytes() for name in ("casa-mila.jpg", "perched-osprey.jpg"))
    crop = fingerprint_image(cropped(photo))
    disguised = replace(fingerprint_image(other), phash=crop.probes("loose")[0])
    neighbours = Neighbours(client, TABLE, policy="loose", now=clock, evidence=showing(disguised))
    assert isinstance(neighbours.find_or_claim(scope, upload("other"), disguised), Lead)
    assert isinstance(neighbours.find_or_claim(scope, upload("crop"), crop), Lead)


def test_nothing_is_shared_between_scopes(neighbours: Neighbours, scope: str) -> None:
    neighbours.take(protocol.Publish(announced(scope, "a", HASH, ("b:1",)), 1))
    assert matches(neighbours, announced(scope + " another", "b", HASH, ("b:1",))) == frozenset()


def test_expired_postings_are_passed_over_though_they_can_still_be_read(
    neighbours: Neighbours, clock: Clock, scope: str
) -> None:
    a, b = announced(scope, "a"), announced(scope, "b")
    neighbours.take(protocol.Publish(a, 1))
    clock.at += 90 * 86_400 - 1
    assert matches(neighbours, b) == {a.id}
    clock.at += 1
    assert matches(neighbours, b) == frozenset()


def test_an_expired_claim_is_passed_over_and_can_be_made_anew(neighbours: Neighbours, clock: Clock, scope: str) -> None:
    a, b = announced(scope, "a"), announced(scope, "b")
    neighbours.find_or_claim(scope, a.upload, Fingerprint(("b:1",)))
    clock.at += index.UNDECIDED_TTL_SECONDS + 1
    assert neighbours.find_or_claim(scope, b.upload, Fingerprint(("b:1",))) == Lead(b.id, 1)
    neighbours.settle(b.id, 1, "DEAD")
    assert neighbours.find_or_claim(scope, a.upload, Fingerprint(("b:1",))) == Lead(a.id, 1)


def test_postings_outlive_the_work_on_their_claim_however_short_exemplars_are_kept(
    client: Any, clock: Clock, scope: str
) -> None:
    neighbours = Neighbours(client, TABLE, now=clock, exemplar_ttl=60.0)
    a = announced(scope, "a")
    neighbours.take(protocol.Publish(a, 1))
    clock.at += 6 * 86_400
    assert matches(neighbours, announced(scope, "b")) == {a.id}


def two_items_a_page(call: Callable[..., Any], operation: str, arguments: dict[str, Any]) -> Any:
    return call(operation, {**arguments, "Limit": 2} if operation == "Query" else arguments)


def test_a_crowded_band_is_read_to_its_end(client: Any, clock: Clock, scope: str) -> None:
    capped: list[str] = []
    neighbours = Neighbours(client, TABLE, now=clock, on_capped=capped.append)
    # Far from what is looked for in all but the first band, so that only the last of them is near.
    far = [flipped(HASH, *range(number, 200)) for number in range(6)]
    stored = [announced(scope, str(number), phash) for number, phash in enumerate((*far, HASH))]
    for me in stored:
        neighbours.take(protocol.Publish(me, 1))
    tamper(client, two_items_a_page)
    assert matches(neighbours, announced(scope, "looking")) == {stored[-1].id}
    assert capped == []


def test_a_band_too_crowded_to_be_read_is_a_miss_that_is_counted(client: Any, clock: Clock, scope: str) -> None:
    capped: list[str] = []
    neighbours = Neighbours(client, TABLE, now=clock, on_capped=capped.append)
    crowd = sorted(
        (announced(scope, str(number), flipped(HASH, *range(number, 232))) for number in range(12)),
        key=lambda me: me.id,
    )
    # Near in the first band alone, and the last in it.
    twin = crowd[-1]._replace(phash=flipped(HASH, *BAND_STARTS[:-1]))
    for me in (*crowd[:-1], twin):
        neighbours.take(protocol.Publish(me, 1))
    me = announced(scope, "looking")
    assert matches(neighbours, me) == {twin.id}
    assert capped == []
    tamper(client, two_items_a_page)
    assert matches(neighbours, me) == frozenset()
    assert len(capped) == 1
    assert f"#h{bands(HASH)[0]}" in capped[0]


def test_a_copy_of_the_very_file_is_found_however_crowded_its_bands_are(client: Any, clock: Clock, scope: str) -> None:
    neighbours = Neighbours(client, TABLE, now=clock)
    a = announced(scope, "a")
    lead = neighbours.find_or_claim(scope, a.upload, Fingerprint(("b:1",), HASH, b"evidence"))
    assert isinstance(lead, Lead)
    neighbours.settle(lead.claim_id, lead.generation, "READY", {"text": "a house"})
    queried: list[str] = []

    def note(call: Callable[..., Any], operation: str, arguments: dict[str, Any]) -> Any:
        if operation == "Query":
            queried.append(arguments["ExpressionAttributeValues"][":pk"]["S"])
        return call(operation, arguments)

    tamper(client, note)
    hit = neighbours.find_or_claim(scope, upload("b"), Fingerprint(("b:1",), HASH, b"evidence"))
    assert isinstance(hit, Hit)
    assert hit.claim.outcome == {"text": "a house"}
    assert len(queried) == 1


@pytest.mark.parametrize("settled", [True, False])
def test_of_a_form_filled_in_very_often_only_the_likeliest_are_compared(
    client: Any, clock: Clock, scope: str, settled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making evidence and comparing takes up to half a second: of hundreds it would take longer than dedupe may."""
    capped: list[str] = []
    read: list[str] = []
    compared: list[bytes] = []

    def shown(claim: Claim) -> bytes:
        read.append(claim.upload.key)
        return b"mine" if claim.upload.key == "twin" else claim.upload.key.encode()

    def alike(a: bytes, b: bytes, policy: Strictness) -> Resemblance | None:
        compared.append(b)
        return Resemblance("whole", 0.0, 1.0, 0.0, 1.0) if a == b else None

    monkeypatch.setattr(index, "resemblance", alike)
    neighbours = Neighbours(client, TABLE, now=clock, on_capped=capped.append, evidence=shown, sleep=lambda s: None)
    for number in range(3 * index.MOST_LIKELY):
        other = announced(scope, str(number), flipped(HASH, 3, 50, 100 + number))
        claim = neighbours.take(protocol.Create(other, clock() + 30))
        neighbours.take(protocol.Publish(other, 1))
        if settled:
            neighbours.take(protocol.Move(claim, "READY", 1, 0.0, 1, {"text": "another form"}))
    assert isinstance(neighbours.find_or_claim(scope, upload("new"), Fingerprint(("b:new",), HASH, b"new")), Lead)
    assert len(set(read)) == index.MOST_LIKELY
    assert len(compared) == index.MOST_LIKELY, "each is compared once, however often it is met"
    assert capped

    twin = announced(scope, "twin", flipped(HASH, 7))
    claim = neighbours.take(protocol.Create(twin, clock() + 30))
    neighbours.take(protocol.Publish(twin, 1))
    neighbours.take(protocol.Move(claim, "READY", 1, 0.0, 1, {"text": "this form"}))
    hit = neighbours.find_or_claim(scope, upload("copy"), Fingerprint(("b:copy",), HASH, b"mine"))
    assert isinstance(hit, Hit)
    assert hit.claim.outcome == {"text": "this form"}


# -- writes and reads that DynamoDB leaves half done ------------------------------------------------------------


def test_postings_that_were_not_processed_are_written_again(client: Any, clock: Clock, scope: str) -> None:
    pauses: list[float] = []
    neighbours = Neighbours(client, TABLE, now=clock, sleep=pauses.append)
    sizes: list[int] = []

    def throttled(call: Callable[..., Any], operation: str, arguments: dict[str, Any]) -> Any:
        if operation != "BatchWriteItem":
            return call(operation, arguments)
        requests = arguments["RequestItems"][TABLE]
        sizes.append(len(requests))
        call(operation, {"RequestItems": {TABLE: requests[:5]}})
        return {"UnprocessedItems": {TABLE: requests[5:]} if requests[5:] else {}}

    tamper(client, throttled)
    a = announced(scope, "a")
    neighbours.take(protocol.Publish(a, 1))
    assert sizes == [12, 7, 2]
    assert pauses == [0.1, 0.2]
    other = Neighbours(new_client(), TABLE, now=clock)
    for band in range(11):
        bits = [bit for bit in range(256) if bands(flipped(HASH, bit))[band] == bands(HASH)[band]]
        near = announced(scope, "near", flipped(HASH, *bits[:: len(bits) // 10][:10]))
        assert matches(other, near) == {a.id}


def test_items_that_were_not_read_are_asked_for_again(client: Any, clock: Clock, scope: str) -> None:
    pauses: list[float] = []
    neighbours = Neighbours(client, TABLE, now=clock, sleep=pauses.append)
    claims = [announced(scope, str(number)) for number in range(5)]
    for me in claims:
        neighbours.take(protocol.Create(me, clock.at + 30))
        neighbours.take(protocol.Publish(me, 1))

    def throttled(call: Callable[..., Any], operation: str, arguments: dict[str, Any]) -> Any:
        if operation != "BatchGetItem":
            return call(operation, arguments)
        keys = arguments["RequestItems"][TABLE]["Keys"]
        answer = call(operation, {"RequestItems": {TABLE: {"Keys": keys[:2], "ConsistentRead": True}}})
        return {**answer, "UnprocessedKeys": {TABLE: {"Keys": keys[2:]}} if keys[2:] else {}}

    tamper(client, throttled)
    ids = tuple(me.id for me in claims)
    assert [claim.id for claim in neighbours.take(protocol.Read(ids))] == list(ids)
    assert len(pauses) == 2


def test_more_claims_than_one_call_reads(neighbours: Neighbours, clock: Clock, scope: str) -> None:
    claims = [announced(scope, str(number)) for number in range(130)]
    for me in claims:
        neighbours.take(protocol.Create(me, clock.at + 30))
    ids = tuple(me.id for me in claims)
    assert [claim.id for claim in neighbours.take(protocol.Read(ids))] == list(ids)


# -- conditions -------------------------------------------------------------------------------------------------


def test_a_claim_is_made_once_and_shown_to_whoever_comes_second(
    neighbours: Neighbours, clock: Clock, scope: str
) -> None:
    me = announced(scope, "a")
    first = neighbours.take(protocol.Create(me, clock.at + 30.25))
    assert (first.state, first.generation, first.edition, first.lease_until) == ("OPEN", 1, 1, clock.at + 30.25)
    assert neighbours.take(protocol.Create(me, clock.at + 99)) == first


@pytest.mark.parametrize("changed", [{"state": "LEAD"}, {"generation": 2}, {"lease_until": 1.0}])
def test_a_claim_is_moved_only_from_where_it_was_seen(
    neighbours: Neighbours, clock: Clock, scope: str, changed: dict[str, Any]
) -> None:
    me = announced(scope, "a")
    seen = neighbours.take(protocol.Create(me, clock.at + 30))
    assert neighbours.take(protocol.Move(seen._replace(**changed), "DEAD", 7, 0.0, 1)) is False
    assert claim_of(neighbours, me) == seen
    assert neighbours.take(protocol.Move(seen, "LEAD", 3, clock.at + 900.5, 2)) is True
    moved = claim_of(neighbours, me)
    assert (moved.state, moved.generation, moved.lease_until, moved.edition) == ("LEAD", 3, clock.at + 900.5, 2)


def test_only_one_edition_is_withdrawn(neighbours: Neighbours, scope: str) -> None:
    a, b = announced(scope, "a"), announced(scope, "b")
    neighbours.take(protocol.Publish(a, 1))
    neighbours.take(protocol.Publish(a, 2))
    neighbours.take(protocol.Withdraw(a, 1))
    assert matches(neighbours, b) == {a.id}


def _plain(answer: Any) -> Any:
    return tuple(answer) if isinstance(answer, list) else answer


commands = st.lists(
    st.tuples(
        st.sampled_from(
            ["create", "move", "move", "publish", "withdraw", "scan", "read", "enlist", "dismiss", "followers", "wait"]
        ),
        st.integers(0, 2),
        st.integers(0, 2),
        st.integers(0, 5),
    ),
    min_size=5,
    max_size=30,
)  # fmt: skip


@pytest.mark.deep
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commands=commands)
def test_the_explored_store_answers_what_dynamodb_does(client: Any, commands: list[tuple[str, int, int, int]]) -> None:
    """The same steps through both: what is proven on the one holds for the other."""
    scope = "both stores"
    clock = Clock()
    neighbours = Neighbours(client, new_table(client), now=clock)
    store = Store(
        lambda me: (me.exact[-1:], () if me.phash is None else bands(me.phash)), lambda a, b: hamming(a, b) <= RADIUS
    )
    parties = [
        announced(scope, "a", HASH, ("b:a", "x:same")),
        announced(scope, "b", flipped(HASH, 0, 50, 100, 150, 200), ("b:b",)),
        announced(scope, "c", None, ("b:c", "x:same")),
    ]
    ids = tuple(me.id for me in parties)
    world, seen = World(), [neighbours.take(protocol.Create(parties[0], clock.at + 30))]
    world, _ = store.take(world, protocol.Create(parties[0], clock.at + 30), clock.at)
    for name, first, other, number in commands:
        me = parties[first]
        old = seen[-1 - number % len(seen)]
        state = get_args(protocol.ClaimState)[number]
        step: Any
        match name:
            case "create":
                step = protocol.Create(me, clock.at + 30)
            case "move":
                outcome = Outcome(text="a house", cost="0.1") if state == "READY" else None
                step = protocol.Move(old, state, old.generation + other, clock.at + number, other + 1, outcome)
            case "publish":
                step = protocol.Publish(me, other + 1)
            case "withdraw":
                step = protocol.Withdraw(me, other + 1)
            case "scan":
                step = protocol.Scan(me, ("exact", "near", "all")[other], consistent=True)
            case "read":
                step = protocol.Read(ids)
            case "enlist":
                step = protocol.Enlist(me.id, parties[other].upload)
            case "dismiss":
                step = protocol.Dismiss(me.id, parties[other].upload)
            case "followers":
                step = protocol.Followers(me.id)
            case _:
                clock.at += (0.5, 31, 86_400, 8 * 86_400, 89 * 86_400, 91 * 86_400)[number]
                continue
        world, expected = store.take(world, step, clock.at)
        answer = _plain(neighbours.take(step))
        if name == "followers":
            assert set(answer) == set(expected)
        else:
            assert answer == expected
        answers = answer if isinstance(answer, tuple) else (answer,)
        # A move goes by state, generation and lease; an outcome as a dictionary could not stand in the store's worlds.
        seen += [claim._replace(outcome=None) for claim in answers if isinstance(claim, Claim)]
    assert _plain(neighbours.take(protocol.Read(ids))) == store.take(world, protocol.Read(ids), clock.at)[1]


# -- for real, in threads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("near", [False, True])
def test_of_many_copies_at_once_one_leads_and_all_others_get_its_result(
    client: Any, scope: str, near: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "resemblance", lambda a, b, policy: Resemblance("whole", 0.0, 1.0, 0.0, 1.0))
    neighbours = Neighbours(client, TABLE, evidence=showing())
    copies = {
        f"copy {number}": Fingerprint(
            (f"b:{number}",) if near else ("b:same",), flipped(HASH, 3 * number, 255 - number), b"evidence"
        )
        for number in range(6)
    }
    together = threading.Barrier(len(copies))
    outcomes: dict[str, Any] = {}
    reported: set[str] = set()

    def run(key: str) -> None:
        together.wait()
        for _ in range(20):
            outcomes[key] = neighbours.find_or_claim(scope, upload(key), copies[key])
            if not isinstance(outcomes[key], Contended):
                break
        if isinstance(outcomes[key], Lead):
            lead = outcomes[key]
            assert neighbours.renew(lead.claim_id, lead.generation, 9e9)
            reported.update(
                each.key for each in neighbours.settle(lead.claim_id, lead.generation, "READY", {"by": key})
            )

    with ThreadPoolExecutor(len(copies)) as pool:
        list(pool.map(run, copies))
    leaders = [key for key, outcome in outcomes.items() if isinstance(outcome, Lead)]
    assert len(leaders) == 1
    for key, outcome in outcomes.items():
        match outcome:
            case Hit(claim):
                assert claim.outcome == {"by": leaders[0]}
            case Follow():
                assert key in reported
            case _:
                assert key == leaders[0]


def test_a_brighter_copy_on_white_ground_is_found_and_its_postings_go_with_it(
    neighbours: Neighbours, scope: str
) -> None:
    """Both hashes of a picture are posted, looked up and withdrawn; a band they share is posted once, with both."""
    shifted = flipped(HASH, *range(0, 40, 2))
    stored = announced(scope, "stored")._replace(brightened=shifted)
    neighbours.take(protocol.Create(stored, 0.0))
    neighbours.take(protocol.Publish(stored, 1))
    for phash in (HASH, shifted):
        looks = announced(scope, f"copy {phash.hex()}", phash=flipped(phash, 100, 150, 200))
        assert matches(neighbours, looks) == {stored.id}
    both = announced(scope, "another", phash=flipped(HASH, *range(60, 110)))._replace(brightened=shifted)
    assert matches(neighbours, both) == {stored.id}
    assert claim_of(neighbours, stored).hashes == (HASH, shifted)
    neighbours.take(protocol.Withdraw(stored, 1))
    assert matches(neighbours, both) == frozenset()
