"""One call while it runs: whose turn it is, what was tried, what that cost, and when to give up."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

from captions.cost import Cost
from captions.gateway.breakers import Admission, Blocked, Breakers, Observer
from captions.gateway.budgets import Reservation, RetryBudget
from captions.gateway.error_class import ErrorClass
from captions.gateway.errors import (
    AccountProblem,
    AttemptFailed,
    CircuitsOpen,
    DeadlineExceeded,
    Exhausted,
    GatewayError,
)
from captions.gateway.fallback import Plan, Target
from captions.gateway.pricing import cost_of
from captions.gateway.requests import MessageParts
from captions.gateway.responses import ModelAnswer
from captions.gateway.types import Attempt, CallReport, Completion, CostSource, Request, Usage


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how soon a model is called again for the same request. Times are in seconds."""

    tries: int = 3
    """Calls to one model for one request, at most."""
    first_delay_s: float = 0.25
    longest_delay_s: float = 5.0
    longest_wait_s: float = 5.0
    """How long a call waits in process for a Retry-After, if no other model can take it. Waiting is billed."""
    share_of_deadline: float = 2 / 3
    """What one attempt may take of the time that is left while another model could still take over."""
    truncated_growth: int = 2
    longest_growth: int = 4
    """A truncated text is asked for with `truncated_growth` times the tokens, up to `longest_growth` times."""


@dataclass(frozen=True)
class CallContext:
    """What all calls of a gateway share."""

    breakers: Breakers
    retries: RetryPolicy
    retry_budget: RetryBudget
    observe: Observer
    report: Callable[[CallReport], None] | None


class Turn:
    """One candidate's turn in a call, with the leave to call it."""

    def __init__(self, candidate: Target, admission: Admission, limit_s: float, request: Request) -> None:
        self.candidate = candidate
        self.key = ""
        self.key_renewed = False
        self.operation: Literal["chat", "transcription"] = "chat"
        self.timed_by = (request.kind, request.duration_s)
        self.began = time.monotonic()
        self.began_at = ""
        self._ends = self.began + limit_s
        self._admission: Admission | None = admission

    def begin(self) -> None:
        """Begin an attempt."""
        self.began = time.monotonic()
        self.began_at = datetime.now(UTC).isoformat(timespec="microseconds")

    def left(self) -> float:
        """Return the seconds that are left of the turn, at least a millisecond so that its end shows as a time-out."""
        return max(self._ends - time.monotonic(), 0.001)

    def overdue(self) -> float:
        """Return the seconds since the turn should have ended."""
        return time.monotonic() - self._ends

    def extend(self, seconds: float, deadline: float) -> None:
        """Give the turn back what the consumer of a stream took, but never beyond the call's deadline."""
        self._ends = min(self._ends + seconds, deadline)

    def answered(self, breakers: Breakers) -> None:
        """Tell the circuits of a success."""
        self._hand_back(breakers, None)

    def settle(self, breakers: Breakers, failure: AttemptFailed) -> None:
        """Tell the circuits of a failure that says something about model or endpoint."""
        if failure.error_class is ErrorClass.DEADLINE:
            return  # `admitted` abandons it
        self._hand_back(breakers, failure)

    def _hand_back(self, breakers: Breakers, failure: AttemptFailed | None) -> None:
        admission, self._admission = self._admission, None
        if admission is not None:
            breakers.settle(admission, self.candidate.model.name, failure)

    @contextlib.contextmanager
    def admitted(self, breakers: Breakers) -> Iterator[None]:
        """Abandon the admission if nothing settled it: the call was cancelled, or cut by its own deadline."""
        try:
            yield
        finally:
            admission, self._admission = self._admission, None
            if admission is not None:
                breakers.abandon(admission)


class GatewayCall:
    """What is known of one call while it runs."""

    def __init__(
        self, context: CallContext, request: Request, parts: MessageParts, plan: Plan, deadline: float
    ) -> None:
        self.request = request
        self.parts = parts
        self.plan = plan
        self.max_tokens = request.max_tokens
        self.attempts: list[Attempt] = []
        self.reservation: Reservation | None = None
        self._context = context
        self.deadline = deadline
        self._began = time.monotonic()
        self._round = 0
        self._waited = 0.0

    async def next(self) -> Turn:
        """Return the next turn, after a wait where one is due.

        Raises:
            GatewayError: there is none.
        """
        breakers = self._context.breakers
        while True:
            if self.left() <= 0:
                raise self.with_attempts(DeadlineExceeded("the time given to the call ran out"))
            candidates = self.plan.in_order()
            if not candidates:
                raise self.with_attempts(self.plan.last_error())
            for candidate in candidates:
                if candidate.tries > self._round:
                    continue
                admission = await breakers.admit(candidate.endpoint.base_url, candidate.model.name)
                if admission is not None:
                    return Turn(candidate, admission, self._limit_s(candidate, candidates), self.request)
            await self._pause(candidates)

    def _limit_s(self, candidate: Target, candidates: Sequence[Target]) -> float:
        """Return the seconds this attempt may take: the model's time-out, but with time left for another model."""
        left = self.left()
        timeout = candidate.model.timeout_s(self.request.kind, self.request.duration_s)
        if len(candidates) > 1:
            left *= self._context.retries.share_of_deadline
        return min(timeout, left)

    async def _pause(self, candidates: Sequence[Target]) -> None:
        """Wait for what can be waited for: a Retry-After that is short, or the delay before a retry.

        Raises:
            GatewayError: there is nothing to wait for.
        """
        context, policy = self._context, self._context.retries
        blocked = [context.breakers.blocked(c.endpoint.base_url, c.model.name) for c in candidates]
        if all(blocked):
            soonest = min((block for block in blocked if block), key=lambda block: block.wait_s)
            if not soonest.rate_limited or self._waited + soonest.wait_s > policy.longest_wait_s:
                raise self._given_up([block for block in blocked if block])
            delay = soonest.wait_s + random.uniform(0.0, 0.05)  # noqa: S311
            self._waited += delay
        else:
            most = min(policy.first_delay_s * 2.0**self._round, policy.longest_delay_s)
            delay = random.uniform(0.0, most)  # noqa: S311
        if delay >= self.left():
            raise self._given_up([block for block in blocked if block])
        if all(block or candidate.tries > self._round for block, candidate in zip(blocked, candidates, strict=True)):
            again = [c for c in candidates if c.tries > self._round]
            if again:
                if self._round + 1 >= policy.tries or not context.retry_budget.take():
                    raise self._given_up([block for block in blocked if block])
                self._round += 1
        await asyncio.sleep(delay)

    def _given_up(self, blocked: Sequence[Blocked]) -> GatewayError:
        # Whoever goes back to a queue for a probe's sake must not come back before it can have ended.
        wait_s = min((max(block.wait_s, 1.0) if block.probing else block.wait_s for block in blocked), default=None)
        if blocked and all(block.reason == "account" for block in blocked):
            error: GatewayError = AccountProblem("no endpoint is left that accepts the key and has credit")
        elif self.attempts:
            error = Exhausted("every model that can do the job failed")
        else:
            error = CircuitsOpen("every circuit is open")
        error.retry_after_s = wait_s
        return self.with_attempts(error)

    def with_attempts(self, error: GatewayError) -> GatewayError:
        """Return an error with the attempts made so far."""
        error.attempts = tuple(self.attempts)
        return error

    def spent(self) -> Cost:
        """Return what the attempts cost together."""
        return Cost.sum(attempt.spent for attempt in self.attempts)

    @contextlib.asynccontextmanager
    async def bounded(self) -> AsyncIterator[None]:
        """End what runs longer than the call may. Raises DeadlineExceeded."""
        try:
            async with asyncio.timeout(max(self.left(), 0.001)):
                yield
        except TimeoutError:
            raise self.with_attempts(DeadlineExceeded("the time given to the call ran out")) from None

    def left(self) -> float:
        """Return the seconds that are left of the call's time."""
        return self.deadline - time.monotonic()

    def record(
        self,
        turn: Turn,
        outcome: str,
        status: int | None,
        usage: Usage,
        stated: Decimal | None,
        *,
        failure: AttemptFailed | None = None,
        detail: str | None = None,
        answer: ModelAnswer | None = None,
    ) -> None:
        """Write down an attempt with its cost."""
        spent, _ = cost_of(usage, stated, turn.candidate.model)
        if spent.exact is None and failure is not None and _unbilled(failure):
            spent = Cost()
        attempt = Attempt(
            model=turn.candidate.model.name,
            endpoint=turn.candidate.endpoint.name,
            outcome=outcome,
            status=status,
            latency_ms=round((time.monotonic() - turn.began) * 1000),
            prompt_tokens=usage.prompt,
            completion_tokens=usage.completion,
            spent=spent,
            started_at=turn.began_at,
            detail=detail,
        )
        self.attempts.append(attempt)
        if self._context.report is not None:
            self._context.report(
                CallReport(
                    attempt=attempt,
                    operation=turn.operation,
                    provider=turn.candidate.model.provider,
                    base_url=turn.candidate.endpoint.base_url,
                    wire_name=turn.candidate.wire_name,
                    reported_model=answer.reported_model if answer is not None else None,
                    finish_reason=answer.finish_reason if answer is not None else None,
                )
            )
        if failure is not None:
            fields = attempt.as_dict() | {"request_id": self.request.request_id}
            self._context.observe("attempt_failed", fields)

    def completion(self, turn: Turn, answer: ModelAnswer) -> Completion:
        """Return the call's result."""
        cost, source = cost_of(answer.usage, answer.stated_cost, turn.candidate.model)
        known: CostSource = source
        return Completion(
            text=answer.text,
            model=turn.candidate.model.name,
            reported_model=answer.reported_model,
            endpoint=turn.candidate.endpoint.name,
            finish_reason=answer.finish_reason,
            usage=answer.usage,
            cost=cost.exact,
            spent=self.spent(),
            cost_source=known,
            latency_ms=round((time.monotonic() - self._began) * 1000),
            attempts=tuple(self.attempts),
            segments=answer.segments,
            language=answer.language,
            mean_logprob=answer.mean_logprob,
            transcribed=answer.transcribed,
        )


def _unbilled(failure: AttemptFailed) -> bool:
    if failure.error_class is ErrorClass.CONNECTION:
        return failure.unreachable
    return not failure.begun and failure.error_class.unbilled
