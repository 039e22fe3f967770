"""Search by words on moto: what is found, and what becomes of the index while events and functions fail."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from captions.search.index import AUDIT_SECONDS, EDIT_AGES_SECONDS, PURGE_SECONDS, ended_at, text_of
from captions.search.searching import SearchQuery, WordsSearch
from captions.search.segment_store import KEPT_SECONDS, SEGMENTS, ContentionError, SegmentEntry, SegmentStore
from captions.search.segments import Row, build, number_of
from captions.search.words import QueryError
from support.pipeline import BUCKET, Aws
from support.search import INDEX, Library

LANGUAGES = {
    "en": "A dog on a beach, running.",
    "en2": "Two Dogs play at the beaches",
    "ja": "犬がビーチで走っている",
    "zh": "一只狗在海滩上奔跑",
    "fr": "Crème brûlée à Zürich",
    "th": "สุนัขบนชายหาด",
    "hi": "समुद्र तट पर कुत्ता",
    "ko": "해변의 개",
    "ar": "كَلْبٌ عَلَى الشَّاطِئِ",
    "ar2": "مدرسة قديمة",
    "fa": "کتاب فارسی",
    "ru": "Ёлка у моря",
    "da": "Smørrebrød på bordet",
    "half": "ﾋﾞｰﾁの犬",
}


@pytest.fixture
def library(aws: Aws) -> Library:
    return Library(aws)


def test_captions_are_found_in_any_language(library: Library) -> None:
    for key, text in LANGUAGES.items():
        library.caption(key, text)
    library.take(*LANGUAGES)
    asked = {
        "dog beach": ["en2", "en"],
        "DOGS": ["en2", "en"],
        '"dog on a beach"': ["en"],
        '"dog beach"': [],
        '"two dogs" beach': ["en2"],
        "dog -two": ["en"],
        'beach -"on a beach"': ["en2"],
        "bea*": ["en2", "en"],
        "犬": ["half", "ja"],
        "ビーチ": ["half", "ja"],
        '"犬がビーチ"': ["ja"],
        "海滩": ["zh"],
        "creme BRULEE zurich": ["fr"],
        "ชายหาด": ["th"],
        "कुत्ता": ["hi"],
        "해변": ["ko"],
        "الشاطئ": ["ar"],
        "مدرسه": ["ar2"],
        "كتاب فارسي": ["fa"],
        "елка": ["ru"],
        "smorrebrod": ["da"],
        "cat": [],
        "' OR 1=1 --": [],
    }
    assert {text: library.hits(text) for text in asked} == asked


def test_where_no_caption_has_every_word_those_with_most_of_them_are_shown(library: Library) -> None:
    for key, text in LANGUAGES.items():
        library.caption(key, text)
    library.take(*LANGUAGES)
    page = library.page("dog beach sunset")
    assert ([record.key for record in page.records], page.relaxed) == (["en2", "en"], True)
    assert not library.page("dog beach").relaxed
    assert library.hits("sunset zebra") == []


def test_results_are_filtered_by_prefix_category_tag_and_day(library: Library) -> None:
    about = {
        "team-a/2026/1.jpg": ("photo", ("Été", "sea"), 0),
        "team-a/2026/2.png": ("document", ("sea",), 1),
        "team-ab/3.jpg": ("photo", (), 2),
        "team-b/4.jpg": ("photo", ("SEA",), 3),
    }
    days = []
    for key, (category, tags, day) in about.items():
        library.now = 1_790_000_000.0 + day * 86_400
        days.append(datetime.fromtimestamp(library.now, UTC).date())
        library.caption(key, "The sea.", tags=tags, category=category)
        library.take(key)
    first, two, three, four = about
    assert library.hits("sea") == [four, three, two, first]
    assert library.hits("sea", prefix="team-a/") == [two, first]
    assert library.hits("sea", prefix="team-a") == [three, two, first]
    assert library.hits("sea", prefix="team-a/2026/1") == [first]
    assert library.hits("", prefix="team-b/") == [four]
    assert library.hits("sea", category="document") == [two]
    assert library.hits("sea", tag="sea") == [four, two, first]
    assert library.hits("ete") == [first]
    assert library.hits("", tag="ete") == [first]
    assert library.hits("sea", since=days[1], until=days[2]) == [three, two]
    assert library.hits("sea", until=days[0]) == [first]
    assert library.hits("sea", since=days[3] + timedelta(days=1)) == []
    for empty in ("", "!?", "-cat"):
        with pytest.raises(QueryError):
            library.page(empty)
    for wrong in ("x", "!!!", "WzAsMSxbXV0x", "Wy0xLDEsW11d"):
        with pytest.raises(QueryError):
            library.page("sea", cursor=wrong)


def test_pages_show_everything_once_across_segments(library: Library) -> None:
    keys = [f"{number:03}.jpg" for number in range(60)]
    for key in keys:
        library.caption(key, "The sea.")
        library.now -= 1.9  # several end within the same milliseconds
    for start in (0, 20, 40):
        library.take(*keys[start : start + 20])
    library.take(*keys[10:50])
    shown: list[str] = []
    cursor = None
    while True:
        page = library.page("sea", limit=7, cursor=cursor)
        shown += [record.key for record in page.records]
        cursor = page.cursor
        if cursor is None:
            break
        assert len(page.records) == 7
        if len(shown) == 21:
            assert library.tidy().merged
    assert shown == keys[::-1]


def test_edits_deletions_new_versions_and_verdicts_taken_back_reach_the_index(library: Library) -> None:
    record = library.caption("a.jpg", "A dog.")
    library.take("a.jpg")
    edited = library.reviews.edit(record, "My terrier.", now=library.now + 1)
    # What the index does not know yet is shown as it is, or not at all.
    assert (library.hits("dog"), library.hits("terrier")) == ([], [])
    library.take("a.jpg")
    assert (library.hits("dog"), library.hits("terrier")) == ([], ["a.jpg"])
    library.reviews.undo(edited, now=library.now + 2)
    library.take("a.jpg")
    assert (library.hits("dog"), library.hits("terrier")) == (["a.jpg"], [])
    library.upload("a.jpg")
    assert library.hits("dog") == []
    library.end("a.jpg", "A cat.")
    library.take("a.jpg")
    assert (library.hits("dog"), library.hits("cat")) == ([], ["a.jpg"])
    library.upload("a.jpg")
    library.end("a.jpg", None)
    library.take("a.jpg")
    assert library.hits("cat") == []
    library.caption("a.jpg", "A bird.")
    library.take("a.jpg")
    library.delete("a.jpg")
    assert library.hits("bird") == []


def test_a_caption_that_is_replaced_is_shown_once_and_until_then(library: Library) -> None:
    first = library.caption("a.jpg", "A dog.")
    library.caption("b.jpg", "A dog.")
    library.take("a.jpg", "b.jpg")
    library.now += 20
    assert library.records.recaption(first, "force", now=library.now, due=library.now) is not None
    assert library.hits("dog") == ["b.jpg", "a.jpg"]
    library.now += 20
    library.end("a.jpg", "A brown dog.")
    library.take("a.jpg")
    assert library.hits("dog") == ["a.jpg", "b.jpg"]
    assert library.hits("dog", limit=1, cursor=library.page("dog", limit=1).cursor) == ["b.jpg"]
    assert (
        library.page("dog", limit=2).cursor is None
        or library.hits("dog", limit=2, cursor=library.page("dog", limit=2).cursor) == []
    )


def segments(aws: Aws) -> bytes:
    hits = aws.s3.list_objects_v2(Bucket=INDEX, Prefix=SEGMENTS).get("Contents", [])
    return b"".join(aws.s3.get_object(Bucket=INDEX, Key=each["Key"])["Body"].read() for each in hits)


def test_what_is_deleted_leaves_no_words_in_the_bucket(library: Library, aws: Aws) -> None:
    for key in "abcd":
        library.caption(f"{key}.jpg", f"Secret word xylophone{key}.")
        library.take(f"{key}.jpg")
    assert library.tidy().merged
    library.delete("a.jpg")
    library.take("a.jpg")
    assert b"xylophonea" in segments(aws)
    library.now += PURGE_SECONDS + 7_200
    assert library.tidy().purged == 1
    library.now += KEPT_SECONDS + 1
    assert library.tidy().removed  # what it stood in before
    assert b"xylophonea" not in segments(aws)
    assert b"xylophoneb" in segments(aws)
    assert library.hits("word") == ["d.jpg", "c.jpg", "b.jpg"]
    # and once every segment was looked through, nobody remembers it
    for _ in range(8):
        library.now += PURGE_SECONDS + 7_200
        library.caption("e.jpg", "Another.")
        library.take("e.jpg")
        library.tidy()
    assert b"a.jpg" not in segments(aws)


def test_lost_updates_are_found_by_the_comparison_with_the_table(library: Library) -> None:
    library.tidy()
    library.caption("known.jpg", "A dog.")
    library.take("known.jpg")
    library.caption("lost.jpg", "A lost dog.")
    library.upload("rejected.jpg")
    library.end("rejected.jpg", None)
    assert library.tidy().missing == 0  # they may still stand on the queue
    library.now += 3_600
    assert library.tidy().missing == 1
    assert library.hits("dog") == ["lost.jpg", "known.jpg"]
    library.now += 3_600
    assert library.tidy().missing == 0
    # A second caption whose event is lost, within the hour that the first one is compared in.
    again = library.records.get(f"{BUCKET}/known.jpg")
    assert again is not None
    assert library.records.recaption(again, "force", now=library.now, due=library.now) is not None
    library.end("known.jpg", "A cat.")
    library.now += 3_600
    assert library.tidy().missing == 1
    assert library.hits("cat") == ["known.jpg"]


def test_captions_from_before_the_index_are_found_from_a_day_on(library: Library) -> None:
    library.caption("old.jpg", "A dog.")
    library.now += 30 * 86_400
    library.tidy()
    assert library.hits("dog") == []
    library.index.check_since(library.now - 31 * 86_400)
    assert library.tidy().missing == 1
    assert library.hits("dog") == ["old.jpg"]


def test_a_lost_deletion_is_found_by_the_comparison_with_the_table(library: Library) -> None:
    library.caption("deleted.jpg", "A dog.")
    library.take("deleted.jpg")
    library.now += 7_200
    library.tidy()
    library.delete("deleted.jpg")
    library.now += 3_600
    assert library.tidy().missing == 0  # no caption was
    gone = set()
    for entry in library.store.manifest().segments:
        with library.store.opened(entry) as segment:
            gone |= {each.asset for each in segment.gone()}
    assert gone == {f"{BUCKET}/deleted.jpg"}


@pytest.mark.parametrize("days", [0.2, *(pytest.param(days, marks=pytest.mark.deep) for days in (2.5, 8))])
def test_a_lost_edit_is_found_when_its_caption_is_a_day_three_or_nine_days_old(library: Library, days: float) -> None:
    library.upload("rejected.jpg")
    library.end("rejected.jpg", None)
    first = library.caption("edited.jpg", "A dog.")
    library.caption("same.jpg", "A dog.")
    library.take("edited.jpg", "same.jpg", "rejected.jpg")
    ended = library.now
    while library.now < ended + days * 86_400:
        library.now += 43_200
        assert library.tidy().missing == 0
    library.now = ended + days * 86_400
    library.reviews.edit(first, "My terrier.", now=library.now)  # its event is lost
    compared = next(age for age in EDIT_AGES_SECONDS if age > days * 86_400)
    library.now = ended + compared - 3_600
    assert library.tidy().missing == 0
    library.now = ended + compared + 3_600
    assert library.tidy().missing == 1
    assert (library.hits("terrier"), library.hits("dog")) == (["edited.jpg"], ["same.jpg"])
    library.now += 3_600
    assert library.tidy().missing == 0


def test_a_lost_edit_of_an_old_caption_is_found_once_a_month(library: Library, aws: Aws) -> None:
    edited = library.caption("edited.jpg", "A dog.")
    library.caption("deleted.jpg", "A dog.")
    library.caption("same.jpg", "A dog.")
    library.take("edited.jpg", "deleted.jpg", "same.jpg")
    library.reviews.edit(edited, "My terrier.", now=library.now + 1)
    library.delete("deleted.jpg")
    library.now += AUDIT_SECONDS + 3_600
    library.index.check_since(library.now - 3_600)
    assert library.tidy().missing == 2
    assert (library.hits("terrier"), library.hits("dog")) == (["edited.jpg"], ["same.jpg"])
    library.now += AUDIT_SECONDS
    library.compared()
    assert library.tidy().missing == 0


class Killed(BaseException):
    pass


def test_whoever_is_killed_half_way_leaves_an_index_that_answers(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.caption("a.jpg", "A dog.")

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(SegmentStore, "add", killed)  # the segment is stored, and in no manifest
        with pytest.raises(Killed):
            library.take("a.jpg")
    assert library.hits("dog") == []
    library.take("a.jpg")  # the message comes again
    library.take("a.jpg")
    assert library.hits("dog") == ["a.jpg"]
    library.take("a.jpg")
    with monkeypatch.context() as patch:
        patch.setattr(SegmentStore, "swap", killed)
        with pytest.raises(Killed):
            library.tidy()
    assert library.hits("dog") == ["a.jpg"]
    assert library.tidy().merged
    assert library.hits("dog") == ["a.jpg"]
    library.now += 2 * 86_400
    assert library.tidy().removed == 5
    assert library.hits("dog") == ["a.jpg"]


def test_of_two_who_write_at_once_both_are_read(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    library.caption("a.jpg", "A dog.")
    library.caption("b.jpg", "A dog.")
    real = SegmentStore.manifest
    others = ["b.jpg"]

    def beaten(store: SegmentStore) -> Any:
        seen = real(store)
        if others:
            library.take(others.pop())
        return seen

    monkeypatch.setattr(SegmentStore, "manifest", beaten)
    library.take("a.jpg")
    assert library.hits("dog") == ["b.jpg", "a.jpg"]
    monkeypatch.setattr(SegmentStore, "manifest", lambda store: replace(real(store), etag='"of another"'))
    monkeypatch.setattr("captions.search.segment_store.TRIES", 2)
    monkeypatch.setattr("captions.search.segment_store.LONGEST_REST_SECONDS", 0.0)
    with pytest.raises(ContentionError):
        library.take("a.jpg")


@pytest.mark.parametrize("steps", [20, pytest.param(120, marks=pytest.mark.deep)])
def test_whatever_the_order_the_last_version_wins(library: Library, steps: int) -> None:
    """Random histories of uploads; events come late, twice or never, tidyings in between."""
    chance = random.Random(5)
    keys = [f"{number}.jpg" for number in range(6)]
    truth: dict[str, str] = {}
    for step in range(steps):
        key = chance.choice(keys)
        happening = chance.random()
        if happening < 0.45 or key not in truth:
            truth[key] = chance.choice(("dog", "cat", "bird"))
            library.caption(key, f"A {truth[key]} number{step}.")
        elif happening < 0.65:
            record = library.records.get(f"{BUCKET}/{key}")
            assert record is not None
            truth[key] = chance.choice(("dog", "cat", "bird"))
            library.now += 1
            library.reviews.edit(record, f"My {truth[key]} number{step}.", now=library.now)
        elif happening < 0.8:
            library.delete(key)
            del truth[key]
        for late in keys:
            if chance.random() < 0.2:
                library.take(late)
        if chance.random() < 0.1:
            library.now += chance.choice((60, 7_200, 90_000))
            library.tidy()
        for word in ("dog", "cat", "bird"):
            wrong = set(library.hits(word, limit=100)) - {key for key, text in truth.items() if text == word}
            assert not wrong, (step, word)
    library.take(*keys)
    for _ in range(3):
        for word in ("dog", "cat", "bird"):
            assert sorted(library.hits(word)) == sorted(key for key, text in truth.items() if text == word)
        library.now += 90_000
        library.tidy()


def test_common_words_need_not_be_there(library: Library) -> None:
    keys = [f"{number}.jpg" for number in range(12)]
    for key in keys:
        library.caption(key, f"A thing on a table, thing{key[0]}.")
    library.caption("dog.jpg", "Dog and beach.")
    library.take(*keys, "dog.jpg")
    page = library.page("a dog on a beach")
    assert ([record.key for record in page.records], page.relaxed) == (["dog.jpg"], True)


def test_a_large_segment_is_read_in_parts(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captions.search.segment_store.BLOCK_BYTES", 8_192)
    record = library.caption("wanted.jpg", "Picture number123.")
    at, (words, tokens) = number_of(ended_at(record)), text_of(record)
    rows = [Row(record.asset, at, record.sequencer, record.updated_at, words, tokens)]
    rows += [
        Row(f"media/{n}.jpg", at + n * 1_000, "1", "2", f"picture of thing{n % 70} and {n}", "") for n in range(5_000)
    ]
    library.store.add(library.store.put(build(rows), purged_at=library.now))
    fresh = WordsSearch(SegmentStore(library.aws.s3, INDEX), library.records)
    assert fresh.search(SearchQuery(text="number123")).records == (record,)
    assert fresh.store.fetched * 8_192 < library.store.manifest().segments[0].size / 5


def test_a_search_stops_where_it_has_enough(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captions.search.searching.READERS", 2)
    monkeypatch.setattr("captions.search.searching.SLACK", 1)
    for number in range(6):
        library.now += 100
        library.caption(f"{number}.jpg", "A dog.")
        library.take(f"{number}.jpg")
    newest = sorted(library.store.manifest().segments, key=lambda entry: entry.low)
    opened = []
    real = SegmentStore.opened

    def watched(store: SegmentStore, entry: SegmentEntry) -> Any:
        opened.append(entry)
        return real(store, entry)

    monkeypatch.setattr(SegmentStore, "opened", watched)
    assert library.hits("dog", limit=1) == ["5.jpg"]
    assert {entry.name for entry in opened} == {entry.name for entry in newest[:2]}
