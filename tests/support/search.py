"""An index of captions on moto, and captions in it."""

from __future__ import annotations

import importlib.util
import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from captions import composition
from captions.records.record import Provenance, Record, Result
from captions.records.reviews import Reviews
from captions.records.table import Records
from captions.search.fusion import Search
from captions.search.index import Tidied, WordsIndex
from captions.search.searching import SearchPage, SearchQuery, WordsSearch
from captions.search.segment_store import SegmentStore
from captions.uploads.version import Deletion, ObjectVersion, pad_sequencer
from support.pipeline import BUCKET, Aws

INDEX = "search-index"
START = 1_790_000_000.0


@dataclass
class Library:
    """Records, and the words' index that follows them; its clock is turned by hand."""

    aws: Aws
    fanout: int = 3
    now: float = START
    sequence: int = 0
    versions: dict[str, ObjectVersion] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.aws.s3.create_bucket(Bucket=INDEX)
        self.records = Records(self.aws.dynamodb, "captions")
        self.reviews = Reviews(self.aws.dynamodb, "captions", "control")
        self.store = SegmentStore(self.aws.s3, INDEX, now=self.clock)
        self.index = WordsIndex(self.store, self.records, now=self.clock, fanout=self.fanout)
        self.searching = WordsSearch(self.store, self.records)

    def clock(self) -> float:
        return self.now

    def upload(self, key: str) -> ObjectVersion:
        """An object is written; nobody has captioned it yet."""
        self.sequence, self.now = self.sequence + 1, self.now + 1
        version = ObjectVersion(bucket=BUCKET, key=key, sequencer=pad_sequencer(f"{self.sequence:016X}"))
        self.records.accept(version, now=self.now, due=self.now + 60)
        self.versions[key] = version
        return version

    def end(
        self, key: str, text: str | None, *, tags: Sequence[str] = (), category: str = "photo", **more: Any
    ) -> Record:
        """An upload ends, with a caption or without."""
        self.now += 1
        record = self.records.finish(
            self.versions[key],
            "rejected" if text is None else "captioned",
            now=self.now,
            source=None if text is None else "model",
            result=None if text is None else Result(text=text, language="en", task="caption", tags=tuple(tags), **more),
            provenance=Provenance(model="m", category=category),
            kind="image",
        )
        assert record is not None
        return record

    def caption(self, key: str, text: str, **about: Any) -> Record:
        """An object is written and captioned, which the index does not know yet."""
        self.upload(key)
        return self.end(key, text, **about)

    def delete(self, key: str) -> Record:
        self.sequence, self.now = self.sequence + 1, self.now + 1
        deletion = Deletion(bucket=BUCKET, key=key, sequencer=pad_sequencer(f"{self.sequence:016X}"), permanent=False)
        record = self.records.delete(deletion, now=self.now)
        assert record is not None
        return record

    def take(self, *keys: str) -> None:
        """The index learns of uploads."""
        self.index.take([f"{BUCKET}/{key}" for key in keys])

    def tidy(self) -> Tidied:
        return self.index.tidy(deadline=time.monotonic() + 60)

    def compared(self) -> None:
        """All but the last hour was compared with the table meanwhile; a month of that takes hundreds of queries."""
        until = self.now - 3_600
        self.store.change(lambda seen: replace(seen, checked_until=until, edits_until=until))

    def page(self, text: str = "", **about: Any) -> SearchPage:
        return self.searching.search(SearchQuery(text=text, **about))

    def hits(self, text: str = "", **about: Any) -> list[str]:
        """The keys of a search's first page."""
        return [record.key for record in self.page(text, **about).records]


class SearchFunction:
    """The search function's own handler behind the one call of Lambda's client that the API makes."""

    def __init__(self, library: Library) -> None:
        self.library = library
        path = Path(__file__).parents[2] / "functions" / "search" / "app.py"
        spec = importlib.util.spec_from_file_location("search_app", path)
        assert spec is not None
        assert spec.loader is not None
        self._app = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self._app)

    def invoke(self, *, FunctionName: str, Qualifier: str, Payload: bytes) -> dict[str, Any]:
        assert (FunctionName, Qualifier) == ("search", "live")
        both = Search(self.library.index, self.library.searching)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(composition, "search", lambda: both)
            try:
                answer = {"Payload": self._app.answer(json.loads(Payload)["search"])}
            except Exception as error:
                answer = {"Payload": {"errorType": type(error).__name__}, "FunctionError": "Unhandled"}
        return {**answer, "Payload": io.BytesIO(json.dumps(answer["Payload"]).encode())}
