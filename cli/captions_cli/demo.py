"""The demo: real uploads to the whole stack on this machine, followed live, judged at the end."""

import json
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from captions.cost import Cost
from captions.records.record import Record
from captions_cli import background, loopback
from captions_cli.demo_doors import DemoDoors, DoorsSeen
from captions_cli.demo_uploads import DemoUpload, uploads
from captions_cli.errors import CommandError, ExitCode
from captions_cli.stack import Stack, connect_local
from captions_cli.uploading import NotSent, Planned, Sent, send
from captions_cli.watching import SeenUpload, UploadWatch

PRICED_MODELS = {"ImageModels": "GPT-4o,Qwen/Qwen3-VL-32B-Instruct"}
"""Template parameters of the demo: it asks a model first whose prices are published, to have costs to show."""
REAL_ENDPOINT = {"Bulk": "off"}
"""Of a demo on an endpoint of the user's: it may have no batches, or take a day for one."""
ANSWERED = frozenset({"ok", "unfit"})
"""Outcomes of calls that a model answered, whatever became of the answer."""
WAVE_SECONDS = 120.0
"""How long one wave may take before the demo gives up on it."""


@dataclass(frozen=True)
class DemoOutcome:
    """How one upload of the demo ended; `record` is None when the pipeline never wrote any."""

    upload: DemoUpload
    record: Record | None
    problem: str | None = None
    """Why it could not be uploaded, or that it did not end."""


@dataclass(frozen=True)
class Report:
    """What the demo saw. `paid` are the endpoint's answered calls; None when a real endpoint was asked."""

    outcomes: Sequence[DemoOutcome]
    paid: Sequence[Mapping[str, Any]] | None
    seconds: float
    starting_seconds: float
    console_url: str | None = None
    """Where the uploads can be looked at, if the stack was kept."""
    doors: DoorsSeen = field(default_factory=DoorsSeen)

    @property
    def problems(self) -> list[str]:
        """What is not as it must be, one sentence each."""
        return [
            *_judge_each(self.outcomes),
            *_judge_pictures(self.outcomes),
            *_judge_calls(self.outcomes, self.paid),
            *self.doors.problems,
        ]

    @property
    def costs(self) -> list[Cost]:
        """What each caption that was paid for cost, as far as it is known."""
        return self._amounts("model", "spent")

    @property
    def savings(self) -> list[Cost]:
        """What each copied caption had cost once already, as far as it is known."""
        return self._amounts("cache", "spared")

    def _amounts(self, source: str, field: Literal["spent", "spared"]) -> list[Cost]:
        records = (outcome.record for outcome in self.outcomes if outcome.record and outcome.record.source == source)
        return [getattr(record.provenance, field, None) or Cost(uncounted_calls=1) for record in records]


class Audience:
    """What is shown while the demo runs; this one shows nothing."""

    def say(self, text: str) -> None:
        """Something happened that is about no single upload."""

    def wave(self, number: int, sent: Sequence[DemoUpload]) -> None:
        """A wave is about to be uploaded."""

    def seen(self, changed: Sequence[str], seen: Mapping[str, SeenUpload]) -> None:
        """The records were read."""


def run(
    settings: background.LocalSettings,
    directory: Path,
    audience: Audience,
    *,
    real_endpoint: bool,
    keep: bool = False,
) -> Report:
    """Start a local stack of the demo's own, upload every wave to it, wait, and end it unless it is to be kept.

    Its state and logs are in `directory`. `real_endpoint` tells that a model endpoint of the user's answers instead of
    the local one, whose request log is then no witness. Raises CommandError when the stack does not start, or another
    demo runs in the same directory.
    """
    began, ended = time.monotonic(), False
    state = background.start(directory, settings, progress=audience.say)
    started = time.monotonic()
    try:
        stack = connect_local(state)
        with DemoDoors(stack, settings.parameters) as doors:
            outcomes = upload_and_wait(stack, uploads(), audience)
            seen = doors.look([outcome.record for outcome in outcomes if outcome.record and not outcome.problem])
        paid = None if real_endpoint else paid_calls(state.model_endpoint_url)
        ended = True
    finally:
        if not (keep and ended):
            background.stop(directory)
    return Report(
        outcomes,
        paid,
        seconds=time.monotonic() - began,
        starting_seconds=started - began,
        console_url=state.console_url if keep else None,
        doors=seen,
    )


def upload_and_wait(stack: Stack, planned: Sequence[DemoUpload], audience: Audience) -> list[DemoOutcome]:
    """Upload wave after wave, each once the one before has ended but for what can wait: that is waited for at last."""
    watch = UploadWatch(stack, [])
    can_wait = {upload.key for upload in planned if upload.waits}
    later: list[Sent] = []
    failures: dict[str, str] = {}
    for number in sorted({upload.wave for upload in planned}):
        wave = [upload for upload in planned if upload.wave == number]
        audience.wave(number, wave)
        for answer in _send(stack, wave):
            if isinstance(answer, NotSent):
                failures[answer.key] = answer.why
            elif answer.key in can_wait:
                later.append(answer)
            else:
                watch.add([answer])
        watch.until_ended(WAVE_SECONDS, audience.seen)
    watch.add(later)
    watch.until_ended(WAVE_SECONDS, audience.seen)
    return [_outcome(upload, watch.seen.get(upload.key), failures.get(upload.key)) for upload in planned]


def paid_calls(model_endpoint_url: str) -> list[Mapping[str, Any]]:
    """Ask the local model endpoint which calls it answered: its own log, not what the pipeline believes.

    Raises CommandError when it does not answer.
    """
    url = model_endpoint_url.removesuffix("/").removesuffix("/v1") + "/_local/requests"
    try:
        with loopback.urlopen(urllib.request.Request(url), timeout=10) as answer:  # noqa: S310 - the local endpoint's
            log: list[Mapping[str, Any]] = json.load(answer)["requests"]
    except (OSError, ValueError, KeyError) as error:
        raise CommandError(f"the local endpoint does not tell its calls: {error}", ExitCode.UNREACHABLE) from error
    return [entry for entry in log if entry.get("outcome") == "ok" and entry.get("kind") is not None]


def _send(stack: Stack, wave: Sequence[DemoUpload]) -> list[Sent | NotSent]:
    with tempfile.TemporaryDirectory(prefix="captions-demo-files-") as name:
        files = []
        for index, upload in enumerate(wave):
            path = Path(name, str(index))
            path.write_bytes(upload.body)
            files.append(Planned(path, upload.key))
        return send(stack, files, lambda _: None)


def _outcome(upload: DemoUpload, seen: SeenUpload | None, failure: str | None) -> DemoOutcome:
    if failure is not None:
        return DemoOutcome(upload, None, f"could not be uploaded: {failure}")
    if seen is None or seen.ending is None:
        stuck = f" at {seen.record.state}" if seen and seen.record else ""
        return DemoOutcome(upload, seen.record if seen else None, f"was still on its way{stuck} when time ran out")
    return DemoOutcome(upload, seen.record)


def _judge_each(outcomes: Iterable[DemoOutcome]) -> list[str]:
    return [f"{outcome.upload.key} {problem}" for outcome in outcomes if (problem := _judge(outcome))]


def _judge(outcome: DemoOutcome) -> str | None:
    upload, record = outcome.upload, outcome.record
    if outcome.problem:
        return outcome.problem
    if record is None:
        return "was replaced by another version"
    if record.state != upload.state:
        why = f" ({record.reason.message})" if record.reason else ""
        return f"is {record.state}{why}, not {upload.state}"
    if upload.picture is None:
        return _judge_reason(upload, record)
    if record.source not in ("model", "cache"):
        return f"has its caption from {record.source or 'nowhere'}"
    if not (record.result and record.result.text.strip()):
        return "is captioned with no text"
    if not (record.provenance and record.provenance.model):
        return "does not tell which model captioned it"
    return None


def _judge_reason(upload: DemoUpload, record: Record) -> str | None:
    if not (record.reason and record.reason.message):
        return "is rejected without a reason"
    if upload.codes and record.reason.code not in upload.codes:
        return f"is rejected as {record.reason.code}, not as {' or '.join(upload.codes)}"
    if record.source is not None:
        return f"is rejected, yet has something from {record.source}"
    return None


def _judge_pictures(outcomes: Iterable[DemoOutcome]) -> list[str]:
    """Exactly one upload of each picture was paid for, in the first wave it was in; the others have its caption."""
    groups: dict[str, list[tuple[DemoUpload, Record]]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.upload.picture is not None and outcome.record is not None and outcome.record.state == "captioned":
            groups[outcome.upload.picture].append((outcome.upload, outcome.record))
    return [problem for picture, group in groups.items() for problem in _judge_picture(picture, group)]


def _judge_picture(picture: str, group: Sequence[tuple[DemoUpload, Record]]) -> list[str]:
    paid = [upload for upload, record in group if record.source == "model"]
    if len(paid) != 1:
        keys = ", ".join(upload.key for upload in paid)
        return [f"{picture}: {len(paid)} of its {len(group)} uploads were paid for, not one ({keys or 'none'})"]
    problems = []
    if paid[0].wave != min(upload.wave for upload, _ in group):
        problems.append(f"{picture}: {paid[0].key} was paid for, although an earlier upload was captioned")
    texts = {record.result.text for _, record in group if record.result}
    if len(texts) > 1:
        problems.append(f"{picture}: its uploads have {len(texts)} different captions")
    return problems


def _judge_calls(outcomes: Iterable[DemoOutcome], paid: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """The endpoint answered one call per distinct picture and recording, and one for each answer to be repaired."""
    if paid is None:
        return []
    outcomes = list(outcomes)
    problems = []
    for kind in ("image", "audio", "video"):
        wanted = len(
            {outcome.upload.picture for outcome in outcomes if outcome.upload.kind == kind and outcome.upload.picture}
        )
        repairs = sum(
            _repairs(outcome.record)
            for outcome in outcomes
            if outcome.upload.kind == kind and outcome.record is not None
        )
        calls = [call for call in paid if call["kind"] == kind]
        if len(calls) != wanted + repairs:
            problems.append(f"the endpoint answered {len(calls)} {kind} calls, not {wanted + repairs}")
        distinct = len({call.get("media_sha256") for call in calls})
        if calls and distinct != wanted:
            problems.append(f"the endpoint was paid for {distinct} different {kind} contents, not {wanted}")
    others = sorted({str(call["kind"]) for call in paid} - {"image", "audio", "video"})
    return [*problems, *(f"the endpoint answered {kind} calls, which nothing asked for" for kind in others)]


def _repairs(record: Record) -> int:
    attempts = record.provenance.attempts if record.provenance else ()
    return sum(attempt.get("role") == "repair" and attempt.get("outcome") in ANSWERED for attempt in attempts)
