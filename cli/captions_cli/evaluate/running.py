"""Asks what is not answered yet, several questions side by side, and stops in order."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from captions import media
from captions.gateway import (
    AccountProblem,
    BudgetSpent,
    Endpoint,
    Gateway,
    GatewayError,
    NoCapableModel,
    Refused,
    Unacceptable,
)
from captions.gateway.catalogue import Catalogue
from captions.inference import asking
from captions.inference.escalation import Answered, Asking, Content
from captions.pipeline.caption import UNUSABLE
from captions.records.attempts import CallLedger
from captions.timestamps import timestamp
from captions_cli.evaluate.journal import Journal, JournalDrafts
from captions_cli.evaluate.purse import Purse
from captions_cli.evaluate.questions import Question

AnswerState = Literal["answered", "refused", "unusable", "unable", "failed"]
PICTURE_SECONDS = 120.0
RECORDING_SECONDS = 800.0
"""What the caption and transcribe functions have for one upload (template.yaml), less the time for storing."""
TRIES = 3
"""How often a question is asked whose models cannot be reached for now."""
LONGEST_WAIT_S = 60.0


@dataclass
class Run:
    """How a run went; `stopped` and `account` say why it ended early."""

    states: Counter[str] = field(default_factory=Counter)
    unpaid: int = 0
    """Questions that the limit left no room for."""
    stopped: bool = False
    account: str | None = None


@dataclass(frozen=True)
class AskedModels:
    """Where models are asked."""

    urls: tuple[str, ...]
    keys: dict[str, str]
    catalogue: Catalogue


def run(
    questions: Sequence[Question],
    journal: Journal,
    models: AskedModels,
    *,
    limit: Decimal | None,
    side_by_side: int,
    ended: Callable[[Question], None],
) -> Run:
    """Ask every question that has no answer; `ended` is called with each that has one or needs none.

    After SIGINT or SIGTERM what was asked is waited for and nothing more is asked; a second one breaks off.
    """
    return asyncio.run(_run(questions, journal, models, limit, side_by_side, ended))


async def _run(
    questions: Sequence[Question],
    journal: Journal,
    models: AskedModels,
    limit: Decimal | None,
    side_by_side: int,
    ended: Callable[[Question], None],
) -> Run:
    purse = Purse(journal, limit)
    gateway = Gateway(
        endpoints=[Endpoint(url) for url in models.urls],
        keys=lambda force: models.keys,
        catalogue=models.catalogue,
        budgets=purse,
        retry_budget=purse.retries,
    )
    done = Run()
    waiting = iter(list({question.key: question for question in questions}.values()))
    decoding = asyncio.Semaphore(2)

    async def work() -> None:
        for question in waiting:  # shared: each question goes to one worker
            if journal.answered(question.key):
                ended(question)
                continue
            await _asked(question, gateway, journal, decoding, done, purse)
            ended(question)
            if done.stopped or done.account is not None:
                return

    workers = [asyncio.create_task(work()) for _ in range(side_by_side)]
    try:
        with _stopping(done, workers):
            await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        await gateway.aclose()
    return done


class _stopping:  # noqa: N801 - reads as the context it is
    def __init__(self, done: Run, workers: Sequence[asyncio.Task[None]]) -> None:
        self._done, self._workers = done, workers
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._stop)

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.remove_signal_handler(number)

    def _stop(self) -> None:
        if self._done.stopped:
            for worker in self._workers:
                worker.cancel()
        self._done.stopped = True


async def _asked(
    question: Question, gateway: Gateway, journal: Journal, decoding: asyncio.Semaphore, done: Run, purse: Purse
) -> None:
    for number in range(1, TRIES + 1):
        began, ledger = time.monotonic(), CallLedger()
        state: AnswerState
        facts: dict[str, Any]
        try:
            answered = await _answer(question, gateway, journal, decoding, ledger)
            state, facts = "answered", _facts(answered)
        except media.MediaError as error:
            state, facts = "unable", {"why": error.message}
        except BudgetSpent as error:
            done.unpaid += 1
            if ledger.made:
                journal.answer(question.key, state="failed", why=str(error), attempts=ledger.made)
            return
        except AccountProblem as error:
            done.account = str(error)
            journal.answer(question.key, state="failed", why=str(error), attempts=ledger.made)
            return
        except GatewayError as error:
            state, facts = _state(error, ledger), {"why": str(error)}
            if state == "unusable" and purse.short:
                # With what the limit did not leave, there might have been an answer.
                done.unpaid += 1
                journal.answer(question.key, state="failed", **facts, attempts=ledger.made)
                return
            if state == "failed" and number < TRIES and not done.stopped:
                journal.draft(question.key, identity="", asked=[], refused=[], answers=[], attempts=ledger.made)
                await asyncio.sleep(min(LONGEST_WAIT_S, error.retry_after_s or 2.0**number))
                continue
        facts.setdefault("latency_ms", round((time.monotonic() - began) * 1000))
        journal.answer(question.key, state=state, at=timestamp(time.time()), **facts, attempts=ledger.made)
        done.states[state] += 1
        return


async def _answer(
    question: Question, gateway: Gateway, journal: Journal, decoding: asyncio.Semaphore, ledger: CallLedger
) -> Answered:
    file, ask = question.file, question.ask
    async with decoding:
        data = await asyncio.to_thread(question.item.path.read_bytes)
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise media.MediaError("broken", "the file changed while the evaluation ran")
        item = await asyncio.to_thread(asking.payload, file.kind, file.media_type, data)
    rules = question.contender.rules
    recorded = file.kind in ("audio", "video")
    call = Asking(
        gateway,
        time.monotonic() + (RECORDING_SECONDS if recorded else PICTURE_SECONDS),
        ledger,
        drafts=JournalDrafts(journal, question.key, ask.identity, ledger),
        request_id=f"evaluate-{question.key}-{os.getpid()}",
    )
    about = asking.seen(file.kind, file.looks, item, rules)
    content = Content(question.key, item, data)
    return await asking.answer(call, question.item.name, file.kind, ask, content, question.chains, about, rules)


def _state(error: GatewayError, ledger: CallLedger) -> AnswerState:
    if isinstance(error, Refused):
        return "refused"
    if isinstance(error, NoCapableModel | Unacceptable):
        return "unable"
    outcomes = {call["outcome"] for call in ledger.made} - {"ok"}
    return "unusable" if outcomes and outcomes <= UNUSABLE else "failed"


def _facts(answered: Answered) -> dict[str, Any]:
    completion = answered.completion
    return {
        "output": answered.output.model_dump(mode="json"),
        "model": completion.model,
        "reported_model": completion.reported_model,
        "endpoint": completion.endpoint,
        "confidence": round(answered.confidence, 4),
        "problems": [problem.code for problem in answered.reading.problems],
        "repaired": answered.repaired,
        "escalated": answered.escalated,
        "latency_ms": answered.latency_ms,
    }
