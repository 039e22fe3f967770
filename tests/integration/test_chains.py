"""How many calls of AWS wait for one another until an upload's end, and which are made side by side."""

import io
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captions.pipeline.looking import DECODERS
from support.pipeline import MEDIA, Dedupe, captioned, half_size

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import cost_model
from cost_model import ASSUMED, Taps, longest_chain

TRIES = 3
"""On a busy machine a call that is made beside another may begin after that ended: the shortest chain counts."""


def picture(number: int) -> bytes:
    with Image.open(MEDIA / "casa-mila.jpg") as photo:
        part = photo.convert("RGB").crop((40 * number, 0, 300 + 40 * number, 260))
    stream = io.BytesIO()
    part.save(stream, "JPEG", quality=90)
    return stream.getvalue()


@pytest.fixture
def taps(dedupe: Dedupe, monkeypatch: pytest.MonkeyPatch) -> Taps:
    monkeypatch.setattr(cost_model, "HELD_S", 0.1)
    aws = dedupe.aws
    return Taps({"dynamodb": aws.dynamodb, "s3": aws.s3, "sqs": aws.sqs, "events": aws.events})


def chain(dedupe: Dedupe, taps: Taps, key: str, data: bytes, ending: str) -> list[str]:
    """The longest chain of one upload."""
    event = dedupe.aws.put(key, data)
    ended, taken = taps.taken(lambda: dedupe.deliver(event))
    assert ended == ending
    return [call.name for call in longest_chain(taken.calls, lambda call: ASSUMED[call.service].typical)]


@pytest.mark.deep
def test_few_calls_wait_for_one_another(dedupe: Dedupe, taps: Taps) -> None:
    new, same, near = [], [], []
    for number in range(TRIES):
        data = picture(number)
        new.append(chain(dedupe, taps, f"{number}.jpg", data, "queued"))
        captioned(dedupe, f"{number}.jpg")
        same.append(chain(dedupe, taps, f"{number}-same.jpg", data, "hit"))
        near.append(chain(dedupe, taps, f"{number}-small.jpg", half_size(data), "hit"))
    assert min(map(len, new)) <= 9, new
    assert min(map(len, same)) <= 5, same
    assert min(map(len, near)) <= 7, "both objects are read once more, side by side"


def test_objects_are_read_while_their_records_are_written_and_decoders_are_taken(dedupe: Dedupe, photo: bytes) -> None:
    """Each call waits for all that are to go on beside it, of more uploads than can be decoded at once."""
    uploads = DECODERS + 2
    together = threading.Barrier(2 * uploads, timeout=30)
    call_s3, call_dynamodb = dedupe.aws.s3._make_api_call, dedupe.aws.dynamodb._make_api_call

    def reading(operation: str, arguments: dict[str, Any]) -> Any:
        if operation == "GetObject" and not passed:
            together.wait()
        return call_s3(operation, arguments)

    def accepting(operation: str, arguments: dict[str, Any]) -> Any:
        if operation == "UpdateItem" and arguments["TableName"] == "captions" and not passed:
            together.wait()
            passed.append(operation)
        return call_dynamodb(operation, arguments)

    passed: list[str] = []
    events = [dedupe.aws.put(f"{number}.jpg", photo) for number in range(uploads)]
    dedupe.aws.s3._make_api_call, dedupe.aws.dynamodb._make_api_call = reading, accepting
    endings: list[str] = []
    threads = [threading.Thread(target=lambda event=event: endings.append(dedupe.deliver(event))) for event in events]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(endings) == ["queued", *["waiting"] * (uploads - 1)]
