"""The segments in S3: which there are stands in one object, the manifest, that is only ever replaced as it was read.

Segments are never changed. One that was replaced stays for an hour after it left the manifest, for those who still read
it. SQLite reads a large one in place, block by block (S3's ranged GETs); a small one is read whole.
"""

import json
import random
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from threading import Lock
from typing import Any

import apsw

from captions.search.segments import READ_ONLY, Built, IndexSegment

BLOCK_BYTES = 262_144
"""Read at once: twice as much takes hardly longer to come, and the next page is mostly in it."""
CACHED_BLOCKS = 512
TRIES = 20
LONGEST_REST_SECONDS = 0.3
KEPT_SECONDS = 3_600.0
"""How long a segment is kept that left the manifest."""
ORPHANED_SECONDS = 86_400.0
"""How old a segment is that never came into the manifest, and never will."""
MANIFEST = "words/manifest.json"
SEGMENTS = "words/segments/"


class ContentionError(RuntimeError):
    """Others changed the manifest again and again; the change is to be made once more, later."""


@dataclass(frozen=True)
class SegmentEntry:
    """A segment in the manifest."""

    name: str
    rows: int
    size: int
    low: int
    high: int
    gone: int
    made_at: float
    purged_at: float
    """Epoch seconds; what was gone by then has left no words in it."""
    audited_at: float
    common: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """Which segments there are, and how far the index was compared with the table."""

    segments: tuple[SegmentEntry, ...] = ()
    checked_until: float = 0.0
    """Epoch seconds; whatever ended before that is in the index, or on its queue."""
    edits_until: float = 0.0
    """Epoch seconds; what came to an age of `index.EDIT_AGES_SECONDS` before that was compared with its record."""
    dropped: tuple[tuple[str, float], ...] = ()
    """Segments that were replaced, and when (epoch seconds); they are still to be removed."""
    etag: str | None = field(default=None, compare=False)

    @classmethod
    def read(cls, body: bytes, etag: str) -> "Manifest":
        """Read what `written` wrote."""
        reported = json.loads(body)
        entries = tuple(SegmentEntry(**{**entry, "common": tuple(entry["common"])}) for entry in reported["segments"])
        dropped = tuple((name, at) for name, at in reported["dropped"])
        return cls(entries, reported["checked_until"], reported.get("edits_until", 0.0), dropped, etag)

    def written(self) -> bytes:
        """Return the manifest as JSON."""
        return json.dumps({**asdict(self), "etag": None}, separators=(",", ":")).encode()


class SegmentStore:
    """The words' index in a bucket; `s3` is a boto3 client. Safe to share between threads."""

    def __init__(self, s3: Any, bucket: str, *, now: Callable[[], float] = time.time) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._now = now
        self._blocks = _Blocks(s3, bucket)
        self._vfs = _SegmentVfs(f"segments-{uuid.uuid4().hex}", self._blocks)

    @property
    def fetched(self) -> int:
        """How many blocks were read from S3 so far."""
        return self._blocks.fetched

    def manifest(self) -> Manifest:
        """Read the manifest; an empty one where there is none."""
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=MANIFEST)
        except self._s3.exceptions.NoSuchKey:
            return Manifest()
        return Manifest.read(answer["Body"].read(), answer["ETag"])

    def change(self, make: Callable[[Manifest], Manifest | None]) -> Manifest | None:
        """Replace the manifest by what `make` makes of it, again if others were faster; None: it wants no change.

        Raises ContentionError.
        """
        from botocore.exceptions import ClientError

        for _ in range(TRIES):
            seen = self.manifest()
            wanted = make(seen)
            if wanted is None:
                return None
            condition = {"IfMatch": seen.etag} if seen.etag else {"IfNoneMatch": "*"}
            try:
                self._s3.put_object(Bucket=self._bucket, Key=MANIFEST, Body=wanted.written(), **condition)
            except ClientError as error:
                if error.response["Error"]["Code"] not in ("PreconditionFailed", "ConditionalRequestConflict"):
                    raise
                time.sleep(random.uniform(0, LONGEST_REST_SECONDS))  # noqa: S311 - spreads tries, no secret
            else:
                return wanted
        raise ContentionError("others change the manifest all the time")

    def put(self, built: Built, *, audited_at: float | None = None, purged_at: float) -> SegmentEntry:
        """Store a new segment, which nobody reads until its entry stands in the manifest."""
        now = self._now()
        entry = SegmentEntry(
            name=f"{int(now * 1000):013d}-{uuid.uuid4().hex}.sqlite",
            rows=built.rows,
            size=len(built.content),
            low=built.low,
            high=built.high,
            gone=built.gone,
            made_at=now,
            purged_at=purged_at,
            audited_at=now if audited_at is None else audited_at,
            common=built.common,
        )
        self._s3.put_object(Bucket=self._bucket, Key=SEGMENTS + entry.name, Body=built.content)
        return entry

    def add(self, entry: SegmentEntry) -> None:
        """Put a segment into the manifest. Raises ContentionError."""

        def added(seen: Manifest) -> Manifest | None:
            # botocore repeats a write whose reply was lost: the manifest has changed then, and by this.
            there = any(other.name == entry.name for other in seen.segments)
            return None if there else replace(seen, segments=(*seen.segments, entry))

        self.change(added)

    def swap(self, old: Sequence[SegmentEntry], new: Sequence[SegmentEntry]) -> bool:
        """Put segments in the place of others; False if one of these is not there any more. Raises ContentionError."""
        names, now = {entry.name for entry in old}, self._now()
        kept_names = {entry.name for entry in new}  # of which only what is noted of them changes

        def swapped(seen: Manifest) -> Manifest | None:
            kept = tuple(entry for entry in seen.segments if entry.name not in names)
            if len(kept) + len(names) != len(seen.segments):
                return None
            dropped = ((name, now) for name in sorted(names - kept_names))
            return replace(seen, segments=(*kept, *new), dropped=(*seen.dropped, *dropped))

        # Where the reply to a write was lost, which botocore repeats, what it put is there.
        return self.change(swapped) is not None or (bool(new) and set(new) <= set(self.manifest().segments))

    @contextmanager
    def opened(self, entry: SegmentEntry) -> Iterator[IndexSegment]:
        """Open a segment for reading, in this thread. Raises the S3 client's NoSuchKey when it is gone."""
        self._blocks.size(entry.name, entry.size)
        with IndexSegment(
            apsw.Connection(f"file:{entry.name}?immutable=1", flags=READ_ONLY, vfs=self._vfs.named)
        ) as segment:
            yield segment

    def collect_garbage(self) -> int:
        """Remove what was replaced an hour ago, and what a writer that died left behind a day ago; return how many."""
        now, seen = self._now(), self.manifest()
        old = {name for name, at in seen.dropped if now - at > KEPT_SECONDS}
        known = {name for name, _ in seen.dropped} | {entry.name for entry in seen.segments}
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=SEGMENTS):
            names = (hits["Key"].removeprefix(SEGMENTS) for hits in page.get("Contents", []))
            old |= {name for name in names if name not in known and now - _made_at(name, now) > ORPHANED_SECONDS}
        for name in old:
            self._s3.delete_object(Bucket=self._bucket, Key=SEGMENTS + name)
        if old:
            self.change(
                lambda now_seen: replace(
                    now_seen, dropped=tuple(segment for segment in now_seen.dropped if segment[0] not in old)
                )
            )
        return len(old)


def _made_at(name: str, now: float) -> float:
    made, _, _ = name.partition("-")
    return int(made) / 1_000 if made.isdigit() else now


class _Blocks:
    """Blocks of segments, those lately used kept in memory; safe to share between threads."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._lock = Lock()
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self.fetched = 0

    def size(self, name: str, size: int | None = None) -> int:
        """Return how many bytes a segment has; `size` notes it."""
        if size is not None:
            self._sizes[name] = size
        return self._sizes[name]

    def read(self, name: str, amount: int, offset: int) -> bytes:
        """Return bytes of a segment."""
        first, last = offset // BLOCK_BYTES, (offset + amount - 1) // BLOCK_BYTES
        content = b"".join(self._block(name, number) for number in range(first, last + 1))
        return content[offset - first * BLOCK_BYTES :][:amount]

    def _block(self, name: str, number: int) -> bytes:
        with self._lock:
            if (name, number) in self._kept:
                self._kept.move_to_end((name, number))
                return self._kept[name, number]
        start = number * BLOCK_BYTES
        answer = self._s3.get_object(
            Bucket=self._bucket, Key=SEGMENTS + name, Range=f"bytes={start}-{start + BLOCK_BYTES - 1}"
        )
        content: bytes = answer["Body"].read()
        with self._lock:
            self.fetched += 1
            self._kept[name, number] = content
            while len(self._kept) > CACHED_BLOCKS:
                self._kept.popitem(last=False)
        return content


class _SegmentVfs(apsw.VFS):
    """Lets SQLite read segments by their names."""

    def __init__(self, name: str, blocks: _Blocks) -> None:
        super().__init__(name, "")
        self.named = name
        self._blocks = blocks

    def xOpen(self, name: Any, flags: list[int]) -> "_SegmentFile":  # type: ignore[override] # noqa: N802 - SQLite's name
        flags[1] = apsw.SQLITE_OPEN_READONLY
        return _SegmentFile(name.filename() if isinstance(name, apsw.URIFilename) else str(name), self._blocks)

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: N802
        return False  # no journals

    def xFullPathname(self, name: str) -> str:  # noqa: N802
        return name


class _SegmentFile:
    """A segment as SQLite reads it."""

    def __init__(self, name: str, blocks: _Blocks) -> None:
        self._name = name
        self._blocks = blocks

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        return self._blocks.read(self._name, amount, offset)

    def xFileSize(self) -> int:  # noqa: N802
        return self._blocks.size(self._name)

    def xClose(self) -> None:  # noqa: N802
        pass

    def xSectorSize(self) -> int:  # noqa: N802
        return 4_096

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return apsw.SQLITE_IOCAP_IMMUTABLE

    def xFileControl(self, operation: int, pointer: int) -> bool:  # noqa: N802
        return False

    def xLock(self, level: int) -> None:  # noqa: N802
        pass

    def xUnlock(self, level: int) -> None:  # noqa: N802
        pass

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False


def of_a_kind(entries: Iterable[SegmentEntry], fanout: int, most_rows: int) -> list[SegmentEntry] | None:
    """Return segments that are to become one: as many as `fanout` of about one size; None: there are none.

    Sizes double-count rows at most once a tier, so that a caption is written again as often as its index has tiers.
    """
    tiers: dict[int, list[SegmentEntry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.low):
        weight = max(1, entry.rows + entry.gone)
        if weight * 2 > most_rows:
            continue
        tier = 0
        while weight >= fanout:
            weight, tier = weight // fanout, tier + 1
        tiers.setdefault(tier, []).append(entry)
    for _, alike in sorted(tiers.items()):
        if len(alike) >= fanout:
            together: list[SegmentEntry] = []
            for entry in alike:
                if sum(each.rows for each in together) + entry.rows > most_rows:
                    break
                together.append(entry)
            if len(together) > 1:
                return together
    return None
