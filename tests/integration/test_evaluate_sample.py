"""`captions evaluate sample`: people's words become the truth of a set."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from captions.records.listing import Listing
from captions.records.record import Record
from captions.records.reviews import Reviews
from captions_cli.commands.options import Globals
from captions_cli.evaluate import labels
from captions_cli.main import app
from support.pipeline import BUCKET
from support.worker import Workshop


class _Stack:
    """The tables and the bucket that the pipeline's parts stand on in these tests."""

    bucket = BUCKET

    def __init__(self, shop: Workshop) -> None:
        self.listing = Listing(shop.dedupe.aws.dynamodb, "captions")
        self._clients = {"dynamodb": shop.dedupe.aws.dynamodb, "s3": shop.dedupe.aws.s3}

    def client(self, service: str) -> Any:
        return self._clients[service]


@pytest.fixture
def reviewed(shop: Workshop, photo: bytes, other_photo: bytes, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """Three captioned uploads: one that a person put into words, one that a person accepted, one that nobody saw."""
    monkeypatch.setattr(Globals, "stack", lambda self: _Stack(shop))
    shop.dedupe.clock.at = time.time()  # by which the command looks back
    speech = (Path(__file__).parents[2] / "cli/captions_cli/demo_media/block-books.wav").read_bytes()
    files = {"in/../a&b.jpg": photo, "b.jpg": other_photo, "c.wav": speech}
    for key, data in files.items():
        shop.dedupe.upload(key, data, metadata={"caption-context-title": "At the fair"} if key != "c.wav" else {})
    assert shop.run_all(shop.jobs()) == ["captioned"] * 3
    reviews = Reviews(shop.dedupe.aws.dynamodb, "captions", "control")
    now = shop.dedupe.clock()
    reviews.edit(shop.dedupe.record("in/../a&b.jpg"), "A house by Gaudí.", now=now + 1, language="en")
    reviews.accept(shop.dedupe.record("b.jpg"), now=now + 1)
    return shop


def sample(*words: str) -> Result:
    return CliRunner().invoke(app, ["evaluate", "sample", "--days", "2", *words])


@pytest.mark.deep
def test_peoples_words_are_the_truth_of_the_set(reviewed: Workshop, photo: bytes, tmp_path: Path) -> None:
    ran = sample(str(tmp_path / "set"))
    assert ran.exit_code == 0, ran.stderr
    assert "1 of 1 uploads" in ran.stderr
    (item,) = labels.read(tmp_path / "set")
    assert (item.measure, item.texts, item.language) == ("caption", ("A house by Gaudí.",), "en")
    assert item.context == {"title": "At the fair"}
    assert item.path.read_bytes() == photo
    assert item.path.parent == (tmp_path / "set" / "media").resolve()


@pytest.mark.deep
def test_captions_that_were_accepted_are_taken_where_that_is_wanted(reviewed: Workshop, tmp_path: Path) -> None:
    ran = sample(str(tmp_path / "set"), "--accepted", "-o", "json")
    assert json.loads(ran.stdout) | {"folder": ""} == {"folder": "", "fitting": 2, "drawn": 2, "gone": 0}
    texts = {item.texts[0] for item in labels.read(tmp_path / "set")}
    record: Record = reviewed.dedupe.record("b.jpg")
    assert record.result is not None
    assert texts == {"A house by Gaudí.", record.result.text}


def test_the_same_seed_draws_the_same_and_what_is_gone_is_said(reviewed: Workshop, tmp_path: Path) -> None:
    names = []
    for folder in ("one", "two"):
        assert sample(str(tmp_path / folder), "--accepted", "--n", "1", "--seed", "4").exit_code == 0
        names.append([item.name for item in labels.read(tmp_path / folder)])
    assert names[0] == names[1]
    record = reviewed.dedupe.record("in/../a&b.jpg")
    reviewed.dedupe.aws.s3.delete_object(Bucket=BUCKET, Key=record.key, VersionId=record.version_id)
    ran = sample(str(tmp_path / "three"))
    assert ran.exit_code == 1
    assert "1 could not be read any more" in ran.stderr


def test_a_folder_with_something_in_it_is_left_alone(reviewed: Workshop, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    ran = sample(str(tmp_path))
    assert ran.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
