"""The near-duplicate index on moto: throughput against brute force over the same hashes, and what every way costs.

    python benchmarks/index.py --json FILE [--hashes 200] [--lookups 40] [--photo FILE]

moto keeps its tables in one process behind a lock and goes through all items for every query, so its throughput bounds
what tests can do; DynamoDB's does not depend on how much a table holds. Both ways must answer the same. Calls and
request units are counted from the calls really made.
"""

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path
from random import Random
from typing import Any

import boto3
import numpy as np
from moto import mock_aws

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from captions.fingerprint import RADIUS, hamming
from captions.near_duplicates import Neighbours, protocol
from captions.near_duplicates.protocol import Announcement
from captions.uploads.version import ObjectVersion, pad_sequencer
from support.capacity import Meter, item_size
from support.journeys import measured
from support.pipeline import REGION, locked

PHOTO = Path(__file__).parents[1] / "cli" / "captions_cli" / "demo_media" / "casa-mila.jpg"
SCOPE = "benchmark"


def table() -> Any:
    client = locked(boto3.client("dynamodb", region_name=REGION), threading.RLock())
    client.create_table(
        TableName="fingerprints",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
    )
    return client


def announcement(number: int, phash: bytes) -> Announcement:
    upload = ObjectVersion(bucket="b", key=str(number), sequencer=pad_sequencer("1"))
    return Announcement(protocol.claim_id(SCOPE, upload), SCOPE, upload, (f"b:{number:064}",), phash, None)


def throughput(hashes: int, lookups: int) -> dict[str, Any]:
    random = Random(0)
    stored = [announcement(number, random.randbytes(32)) for number in range(hashes)]
    asked = []
    for number in range(lookups):
        near = int.from_bytes(random.choice(stored).phash or b"", "big")
        for bit in random.sample(range(256), random.choice((0, 3, 8, 10, 11, 40))):
            near ^= 1 << bit
        asked.append(announcement(hashes + number, near.to_bytes(32, "big")))
    with mock_aws():
        client = table()
        neighbours = Neighbours(client, "fingerprints")
        start = time.perf_counter()
        for me in stored:
            neighbours.take(protocol.Publish(me, 1))
        published = time.perf_counter() - start
        start = time.perf_counter()
        matches = [neighbours.take(protocol.Scan(me, "near", consistent=True)) for me in asked]
        indexed = time.perf_counter() - start
        calls = Meter(client)
        with calls.measuring() as bill:
            for me in asked[:20]:
                neighbours.take(protocol.Scan(me, "near", consistent=True))
    start = time.perf_counter()
    forced = [
        frozenset(me.id for me in stored if hamming(me.phash or b"", asker.phash or b"") <= RADIUS) for asker in asked
    ]
    python = time.perf_counter() - start
    matrix = np.frombuffer(b"".join(me.phash or b"" for me in stored), np.uint8).reshape(hashes, 32)
    start = time.perf_counter()
    vectorised = [
        np.flatnonzero(np.bitwise_count(matrix ^ np.frombuffer(asker.phash or b"", np.uint8)).sum(axis=1) <= RADIUS)
        for asker in asked
    ]
    vectors = time.perf_counter() - start
    if matches != forced or list(map(len, matches)) != list(map(len, vectorised)):
        raise SystemExit("the index and brute force differ")
    return {
        "hashes": hashes,
        "lookups": lookups,
        "found": sum(map(len, matches)),
        "equal_to_brute_force": True,
        "publications_per_s": round(hashes / published, 1),
        "lookups_per_s": round(lookups / indexed, 1),
        "brute_force_lookups_per_s": round(lookups / python, 1),
        "brute_force_numpy_lookups_per_s": round(lookups / vectors, 1),
        "calls_per_lookup": {name: count / min(20, lookups) for name, count in bill.calls.items()},
        "hashes_compared_per_lookup": {"index": "those that share a band", "brute_force": hashes},
    }


def costs(photo: bytes) -> dict[str, Any]:
    with mock_aws():
        client = table()
        bills = measured(client, "fingerprints", photo)
        items = client.scan(TableName="fingerprints")["Items"]
    sizes: dict[str, list[int]] = {}
    for item in items:
        name = "posting" if not item["pk"]["S"].startswith("c#") else item["sk"]["S"].partition("#")[0]
        sizes.setdefault({"f": "follower"}.get(name, name), []).append(item_size(item))
    return {
        "item_bytes": {name: {"least": min(each), "most": max(each)} for name, each in sizes.items()},
        "ways": {
            name: {
                "calls": dict(bill.calls),
                "read": bill.read,
                "written": bill.written,
                "dollars_per_million": round(bill.dollars_per_million, 3),
            }
            for name, bill in bills.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--hashes", type=int, default=200)
    parser.add_argument("--lookups", type=int, default=40)
    parser.add_argument("--photo", type=Path, default=PHOTO)
    arguments = parser.parse_args()
    os.environ.update(AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="testing")
    report = {
        "throughput": throughput(arguments.hashes, arguments.lookups),
        "costs": costs(arguments.photo.read_bytes()),
    }
    arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    speed = report["throughput"]
    print(
        f"{speed['hashes']} hashes: {speed['lookups_per_s']} lookups/s on moto, brute force"
        f" {speed['brute_force_lookups_per_s']}/s in Python and {speed['brute_force_numpy_lookups_per_s']}/s in numpy;"
        f" {speed['calls_per_lookup']} calls a lookup; the answers are equal"
    )
    print(f"{'':28}{'calls':>6}{'read':>7}{'write':>7}{'$/million':>11}")
    for name, bill in report["costs"]["ways"].items():
        print(
            f"{name:28}{sum(bill['calls'].values()):6}{bill['read']:7.1f}{bill['written']:7}"
            f"{bill['dollars_per_million']:11.2f}"
        )
    print(report["costs"]["item_bytes"])


if __name__ == "__main__":
    main()
