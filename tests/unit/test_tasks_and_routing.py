"""What models are asked, what is kept of their answers, and who shares a caption with whom."""

import pytest

from captions.jobs import MAX_DELAY_SECONDS, backoff
from captions.records import spent
from captions.routing import route, scope, tenant
from captions.settings import IntakeSettings
from captions.tasks import CAPTION, TRANSCRIBE, clean
from captions.uploads import ObjectVersion

SETTINGS = IntakeSettings(
    captions_table="c", fingerprints_table="f", uploads_queue_url="u", image_queue_url="i", audio_queue_url="a",
    event_bus_name="b",
)  # fmt: skip


def version(key: str, bucket: str = "media") -> ObjectVersion:
    return ObjectVersion(bucket=bucket, key=key, sequencer="0" * 64)


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("  A dog. ", "A dog."),
        ("```\nA dog.\n```", "A dog."),
        ("```text\nA dog.\n```", "A dog."),
        ('"A dog."', "A dog."),
        ("“A dog.”", "A dog."),
        ("Caption: A dog.", "A dog."),
        ('"Stop" says a sign; "go" another.', '"Stop" says a sign; "go" another.'),
        ('"Stop" and "go"', '"Stop" and "go"'),
        ("A\x1b[31m dog\x00.", "A [31m dog ."),
        ("One line.\nAnother.", "One line.\nAnother."),
        ("", ""),
    ],
)
def test_answers_are_taken_out_of_their_wrapping(answer: str, kept: str) -> None:
    assert clean(answer) == kept


def test_another_prompt_is_another_version() -> None:
    assert CAPTION.version != TRANSCRIBE.version
    assert CAPTION.version == CAPTION.version
    assert CAPTION.prompt("pt-BR")[0].endswith("BCP-47 tag pt-BR.")


def test_each_kind_has_its_queue_and_video_none_yet() -> None:
    assert {kind: found and found.queue_url for kind in ("image", "animation", "document", "audio", "video")
            for found in [route(kind, SETTINGS)]} == {
        "image": "i", "animation": "i", "document": "i", "audio": "a", "video": None,
    }  # fmt: skip


def test_a_tenant_is_a_bucket_or_as_many_segments_as_configured() -> None:
    assert tenant(version("a/b/c.jpg"), 0) == "media"
    assert tenant(version("a/b/c.jpg"), 1) == "media/a"
    assert tenant(version("a/b/c.jpg"), 9) == "media/a/b"
    assert tenant(version("c.jpg"), 1) == "media"


def test_scopes_cannot_be_forged_by_names() -> None:
    deep = SETTINGS.model_copy(update={"tenant_prefix_segments": 1})
    forged = scope(version("x|caption#1/a.jpg"), CAPTION, "p1", deep)
    assert forged.count("|") == 3
    assert "#" not in forged
    assert scope(version("x%7C/a.jpg"), CAPTION, "p1", deep) != scope(version("x|/a.jpg"), CAPTION, "p1", deep)


def test_everything_that_changes_a_caption_changes_the_scope() -> None:
    one = version("a.jpg")
    scopes = {
        scope(one, CAPTION, "p1", SETTINGS),
        scope(one, CAPTION, "p2", SETTINGS),
        scope(one, TRANSCRIBE, "p1", SETTINGS),
        scope(one, CAPTION, "p1", SETTINGS.model_copy(update={"language": "de"})),
        scope(version("a.jpg", bucket="other"), CAPTION, "p1", SETTINGS),
    }
    assert len(scopes) == 5


def test_costs_add_up_exactly_and_one_unknown_makes_the_sum_unknown() -> None:
    assert spent(()) == "0"
    assert spent(({"cost": "0.1"}, {"cost": "0.2"})) == "0.3"
    assert spent(({"cost": "0.1"}, {"outcome": "timeout"})) is None


def test_backoff_grows_is_never_near_zero_and_stays_within_what_a_queue_delays() -> None:
    for attempt in range(200):
        delay = backoff(attempt)
        assert min(MAX_DELAY_SECONDS, 4 * 2**attempt) / 2 <= delay <= min(MAX_DELAY_SECONDS, 4 * 2**attempt)


def test_a_time_that_many_are_asked_for_is_kept_and_spread() -> None:
    delays = [backoff(0, at_least=60.0) for _ in range(200)]

    assert all(60.0 <= delay <= 75.0 for delay in delays)
    assert max(delays) - min(delays) > 5.0
    assert backoff(0, at_least=10_000.0) == MAX_DELAY_SECONDS
