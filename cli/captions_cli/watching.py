"""Follows uploads until each has reached a terminal state."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from captions.records.record import Record
from captions_cli.stack import Stack
from captions_cli.uploading import Sent

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 2.0
PAUSE_GROWTH = 1.2
READS_PER_SECOND = 500
"""Records read at most, on the average: following thousands of uploads must not take the table's capacity."""


@dataclass(frozen=True)
class SeenUpload:
    """How far an upload has come.

    `record` is the newest one about this very version; None while there is none yet. `ending` is set once nothing more
    will happen to it: `terminal` (the record tells how), or `superseded` when the key meanwhile holds another version.
    """

    record: Record | None = None
    ending: Literal["terminal", "superseded"] | None = None


class UploadWatch:
    """Polls the captions table for uploads and remembers how far each has come."""

    def __init__(self, stack: Stack, sent: Sequence[Sent]) -> None:
        self._stack = stack
        self._records = stack.records
        self.seen: dict[str, SeenUpload] = {}
        self._sent: dict[str, Sent] = {}
        self.add(sent)

    def add(self, sent: Sequence[Sent]) -> None:
        """Follow more uploads; a key that is already followed is followed in its new version."""
        for upload in sent:
            self._sent[upload.key] = upload
            self.seen[upload.key] = SeenUpload()

    @property
    def pending(self) -> list[str]:
        """The keys that are still on their way."""
        return [key for key, seen in self.seen.items() if seen.ending is None]

    def poll(self) -> list[str]:
        """Read the pending uploads once; the keys of which something changed."""
        keys = {f"{self._stack.bucket}/{key}": key for key in self.pending}
        changed = []
        for record in self._records.read(keys):
            key = keys[record.asset]
            seen = self._judge(self._sent[key], record)
            if seen != self.seen[key]:
                self.seen[key] = seen
                changed.append(key)
        return changed

    def until_ended(self, timeout: float, on_poll: Callable[[list[str], Mapping[str, SeenUpload]], None]) -> bool:
        """Poll until every upload has ended; False when `timeout` seconds passed first.

        `on_poll` gets the keys that changed, and how far each upload has come, after every look.
        """
        deadline = time.monotonic() + timeout
        pause = FIRST_PAUSE_SECONDS
        while True:
            changed = self.poll()
            on_poll(changed, self.seen)
            if not self.pending:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            pause = FIRST_PAUSE_SECONDS if changed else min(LONGEST_PAUSE_SECONDS, pause * PAUSE_GROWTH)
            time.sleep(min(max(pause, len(self.pending) / READS_PER_SECOND), left))

    def _judge(self, sent: Sent, record: Record) -> SeenUpload:
        if sent.version_id is None or record.version_id == sent.version_id:
            return SeenUpload(record, "terminal" if record.terminal else None)
        # The record is about another version: an older one that ours will replace, or a newer one that replaced ours.
        return SeenUpload(None, "superseded" if self._replaced(sent) else None)

    def _replaced(self, sent: Sent) -> bool:
        from botocore.exceptions import ClientError

        try:
            head = self._stack.client("s3").head_object(Bucket=self._stack.bucket, Key=sent.key)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                return True
            raise
        return bool(head.get("VersionId") != sent.version_id)
