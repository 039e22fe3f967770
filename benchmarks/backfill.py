"""A backfill by the bulk lane: objects from before the stack, `captions reconcile --bulk`, and what it took and cost.

    python benchmarks/backfill.py --pictures 1200 --json backfill.json

Runs the real template on the local stack with the bulk lane's own schedule. The objects are put while the bucket
notifies nobody. Exits with 1 unless every picture is captioned and was paid for exactly once, in a batch.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from captions_cli.local import LocalStack
from captions_cli.local.options import ModelOptions
from captions_cli.main import app

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.bulk import noise  # noqa: E402 - of the tests, which are no package

PARAMETERS = {"Bulk": "batches", "BulkGatherSeconds": "20", "ImageModels": "GPT-4o"}


def captions(*words: str) -> Any:
    """Run a command of the CLI on the stack of CAPTIONS_HOME; return what it printed."""
    return json.loads(CliRunner().invoke(app, [*words, "--output", "json"]).stdout)


def states() -> Counter[str]:
    """Return how many uploads are in each state."""
    return Counter(captions("status")["uploads"])


def run(pictures: int, timeout: float) -> dict[str, Any]:
    """Caption so many pictures in batches; return the figures."""
    with (
        tempfile.TemporaryDirectory() as home,
        LocalStack(
            ROOT / "template.yaml",
            state_dir=Path(home),
            parameters=PARAMETERS,
            model=ModelOptions(latency_scale=0),
        ) as stack,
    ):
        os.environ["CAPTIONS_HOME"] = home
        (Path(home) / "stack.json").write_text(json.dumps(stack.state()))
        s3, bucket = stack.client("s3"), stack.outputs["MediaBucketName"]
        s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
        for number in range(pictures):
            s3.put_object(Bucket=bucket, Key=f"old/{number:05}.png", Body=noise(number))
        s3.put_bucket_notification_configuration(
            Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}}
        )
        began = time.monotonic()
        sent = captions("reconcile", "--bulk", "--prefix", "old/", "--older-than", "0")["sent"]
        reconciled_s = time.monotonic() - began
        while states()["captioned"] < pictures and time.monotonic() - began < timeout:
            time.sleep(5)
        captioned_s = time.monotonic() - began
        with urllib.request.urlopen(f"{stack.endpoint_url.removesuffix('/v1')}/_local/requests") as answer:
            log = json.load(answer)["requests"]
        paid = Counter(entry["media_sha256"] for entry in log if entry["outcome"] == "ok")
        total = captions("costs")["total"]
        return {
            "pictures": pictures,
            "sent": sent,
            "seconds_to_reconcile": round(reconciled_s, 1),
            "seconds_to_the_last_caption": round(captioned_s, 1),
            "states": {state: count for state, count in states().items() if count},
            "paid_once": sum(times == 1 for times in paid.values()),
            "paid_more_than_once": sum(times > 1 for times in paid.values()),
            "answers_in_batches": sum(entry["batch"] is not None for entry in log),
            "batches": len({entry["batch"] for entry in log} - {None}),
            "dollars": total["cost"],
            "dollars_saved_by_batches": total["saved_by_batches"],
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1_200)
    parser.add_argument("--timeout", type=float, default=1_800.0, help="seconds to wait for the last caption")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    figures = run(options.pictures, options.timeout)
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):32} {value}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    right = figures["states"] == {"captioned": options.pictures}
    return int(not (right and figures["paid_once"] == figures["answers_in_batches"] == options.pictures))


if __name__ == "__main__":
    sys.exit(main())
