"""What models are asked, what is kept of their answers, and who shares a caption with whom."""

from decimal import Decimal

import pytest

from captions.config.environment import IntakeSettings
from captions.config.policy import KINDS, load
from captions.cost import Cost
from captions.near_duplicates.scope import scope_of, tenant
from captions.queues import MAX_DELAY_SECONDS, backoff
from captions.records.attempts import paid
from captions.routing.routes import route
from captions.tasks import Ask, clean
from captions.uploads.version import ObjectVersion

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


def test_each_kind_has_its_task_and_queue() -> None:
    policy = load()
    result = {kind: route("a", kind, policy, SETTINGS) for kind in KINDS}
    assert {kind: (item.task.name, item.queue_url) for kind, item in result.items() if item} == {
        "image": ("caption", "i"), "animation": ("caption", "i"), "document": ("caption", "i"),
        "audio": ("transcribe", "a"), "video": ("video", "a"),
    }  # fmt: skip


def test_a_tenant_is_a_bucket_or_as_many_segments_as_configured() -> None:
    assert tenant(version("a/b/c.jpg"), 0) == "media"
    assert tenant(version("a/b/c.jpg"), 1) == "media/a"
    assert tenant(version("a/b/c.jpg"), 9) == "media/a/b"
    assert tenant(version("c.jpg"), 1) == "media"


def test_scopes_cannot_be_forged_by_names() -> None:
    deep = SETTINGS.model_copy(update={"tenant_prefix_segments": 1})
    identity = Ask(task="caption").identity
    forged = scope_of(version("x|caption#1/a.jpg"), identity, "p1", deep)
    assert forged.count("|") == 2
    assert "#" not in forged
    assert scope_of(version("x%7C/a.jpg"), identity, "p1", deep) != scope_of(version("x|/a.jpg"), identity, "p1", deep)


def test_everything_that_changes_a_caption_changes_the_scope() -> None:
    item = version("a.jpg")
    asks = [
        Ask(task="caption"),
        Ask(task="alt_text"),
        Ask(task="caption", language="de"),
        Ask(task="caption", style="concise"),
        Ask(task="caption", style="custom", template="Like a poem."),
        Ask(task="caption", context={"title": "Our stand at the fair"}),
        Ask(task="caption", vocabulary={"dog": ("hound",)}),
        Ask(task="audio_qa", question="Who speaks?"),
        Ask(task="audio_qa", question="How many speak?"),
    ]
    scopes = {scope_of(item, ask.identity, "p1", SETTINGS) for ask in asks}
    scopes |= {scope_of(item, asks[0].identity, "p2", SETTINGS)}
    scopes |= {scope_of(version("a.jpg", bucket="other"), asks[0].identity, "p1", SETTINGS)}
    assert len(scopes) == len(asks) + 2


def test_costs_add_up_exactly_and_one_unknown_makes_the_sum_unknown() -> None:
    assert paid(())["cost"] == "0"
    assert paid(({"cost": "0.1"}, {"cost": "0.2"}))["cost"] == "0.3"
    cut_off = paid(({"cost": "0.1"}, {"outcome": "timeout"}))
    assert (cut_off["cost"], cut_off["cost_at_least"]) == (None, Cost(dollars=Decimal("0.1"), uncounted_calls=1))


def test_an_outage_of_six_hours_puts_a_job_back_no_more_than_thirty_times() -> None:
    for _ in range(100):
        waited, hops = 0.0, 0
        while waited < 6 * 3_600:
            waited, hops = waited + backoff(hops), hops + 1
        assert hops <= 31  # 24, were each as long as SQS allows


def test_backoff_grows_is_never_near_zero_and_stays_within_what_a_queue_delays() -> None:
    for attempt in range(200):
        delay = backoff(attempt)
        assert min(MAX_DELAY_SECONDS, 4 * 3**attempt) / 2 <= delay <= min(MAX_DELAY_SECONDS, 4 * 3**attempt)


def test_a_time_that_many_are_asked_for_is_kept_and_spread() -> None:
    delays = [backoff(0, at_least=60.0) for _ in range(200)]

    assert all(60.0 <= delay <= 75.0 for delay in delays)
    assert max(delays) - min(delays) > 5.0
    assert backoff(0, at_least=10_000.0) == MAX_DELAY_SECONDS


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("EN", "en"),
        ("pt-br", "pt-BR"),
        ("ZH-HANT-tw", "zh-Hant-TW"),
        ("de-ch-1996", "de-CH-1996"),
        ("en-X-TWAIN", "en-x-twain"),
    ],
)
def test_one_language_is_one_scope_however_its_tag_is_written(asked: str, meant: str) -> None:
    assert Ask(task="caption", language=asked).identity == Ask(task="caption", language=meant).identity
    assert Ask(task="caption", language=asked).language == meant
