"""Wraps the messages in s3/, jobs/ and garbage/ into the SQS batches that the functions are invoked with.

python events/batches.py            write dedupe/, caption/ and transcribe/ again
python events/batches.py --check    say which of their files are not what would be written; exit 1 if any
"""

from __future__ import annotations

import hashlib
import json
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EVENTS = Path(__file__).resolve().parent
QUEUES = {"dedupe": "UploadsQueue", "caption": "ImageQueue", "transcribe": "AudioQueue"}

JOB_BATCHES = {
    "caption/image.json": ["jobs/image.json"],
    "caption/image-versioned.json": ["jobs/image-versioned.json"],
    "caption/batch.json": ["jobs/image.json", "jobs/animation.json", "jobs/image-deferred.json"],
    "caption/batch-with-garbage.json": ["garbage/not-json.txt", "jobs/image.json", "garbage/job-without-claim.json"],
    "transcribe/audio.json": ["jobs/audio.json"],
    "transcribe/batch.json": ["jobs/audio.json", "jobs/audio-wav.json"],
    "transcribe/batch-with-garbage.json": ["garbage/cut-off.txt", "jobs/audio.json"],
    "dedupe/revisit-sweep.json": ["jobs/revisit-sweep.json"],
    "dedupe/revisit-redrive.json": ["jobs/revisit-redrive.json"],
    "dedupe/batch.json": ["s3/created-put.json", "s3/created-copy.json", "s3/created-post.json"],
    "dedupe/batch-out-of-order.json": ["s3/deleted-marker.json", "s3/created-overwrite.json", "s3/created-put.json"],
    "dedupe/batch-twice.json": ["s3/created-put.json", "s3/created-put.json"],
    "dedupe/batch-with-garbage.json": [
        "s3/created-put-unversioned.json",
        "garbage/not-json.txt",
        "garbage/cut-off.txt",
        "garbage/list.json",
        "garbage/null.json",
        "garbage/other-source.json",
        "garbage/without-key.json",
        "garbage/sequencer.json",
        "s3/test-event.json",
    ],
}


def batches() -> dict[str, list[str]]:
    """Return the messages of every batch, both as paths below this folder; each S3 event has a batch of its own."""
    single = {f"dedupe/{path.name}": [f"s3/{path.name}"] for path in sorted((EVENTS / "s3").glob("*.json"))}
    return single | JOB_BATCHES


def body(message: str) -> str:
    """Return a message as it stands on a queue: JSON in one line, anything else as it is."""
    text = (EVENTS / message).read_text(encoding="utf-8")
    if message.endswith(".json"):
        return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
    return text


def batch(function: str, bodies: Sequence[str]) -> dict[str, Any]:
    """Return the event Lambda hands a function for these bodies (AWS Lambda developer guide, "Using Lambda with SQS").

    Message ids follow from the position and the body, so that the files do not change when they are written again.
    """
    return {
        "Records": [
            {
                "messageId": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{position} {text}")),
                "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a...",
                "body": text,
                "attributes": {
                    "ApproximateReceiveCount": "1",
                    "SentTimestamp": "1795339800000",
                    "SenderId": "AIDAIENQZJOLO23YVJ4VO",
                    "ApproximateFirstReceiveTimestamp": "1795339800010",
                },
                "messageAttributes": {},
                "md5OfBody": hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(),
                "eventSource": "aws:sqs",
                "eventSourceARN": f"arn:aws:sqs:us-east-1:123456789012:media-captions-{QUEUES[function]}-EXAMPLE",
                "awsRegion": "us-east-1",
            }
            for position, text in enumerate(bodies)
        ]
    }


def text_of(path: str, messages: Sequence[str]) -> str:
    """Return what the file of a batch holds."""
    event = batch(path.split("/")[0], [body(message) for message in messages])
    return json.dumps(event, indent=2, ensure_ascii=False) + "\n"


def stale() -> list[str]:
    """Return the batch files that are missing, differ from what would be written, or should not be there."""
    wanted = batches()
    there = {f"{folder}/{path.name}" for folder in QUEUES for path in (EVENTS / folder).glob("*.json")}
    changed = {
        path
        for path in wanted.keys() & there
        if (EVENTS / path).read_text(encoding="utf-8") != text_of(path, wanted[path])
    }
    return sorted(changed | (wanted.keys() ^ there))


def main() -> int:
    if "--check" in sys.argv[1:]:
        outdated = stale()
        print("\n".join(outdated) or "the batches are what the messages say")
        return int(bool(outdated))
    for path, messages in batches().items():
        (EVENTS / path).parent.mkdir(exist_ok=True)
        (EVENTS / path).write_text(text_of(path, messages), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
