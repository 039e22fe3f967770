"""Two budgets: how many retries the gateway allows itself, and how many dollars it may spend in a day."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Protocol

from captions.control_table import ASSUMED_PRICE, EVERYTHING
from captions.cost import Cost
from captions.gateway.catalogue import Model
from captions.gateway.errors import BudgetSpent
from captions.gateway.requests import least_tokens
from captions.gateway.types import Request

_ASSUMED_S = 600.0
"""How long a sound of unknown length is taken to be where a model is billed by time: the longest part that is sent."""


class RetryBudget:
    """A bucket of retries that calls fill and retries empty, so that retries never multiply an outage.

    Falling back to another model is not a retry; calling a model a second time for the same request is. Each call adds
    `per_call` retries, up to `burst`; the scheme is Finagle's (https://twitter.github.io/finagle/guide/Clients.html).
    """

    def __init__(self, *, per_call: float = 0.2, burst: float = 20.0) -> None:
        self._per_call = per_call
        self._burst = burst
        self._left = burst

    def called(self) -> None:
        """Count a call."""
        self._left = min(self._burst, self._left + self._per_call)

    def take(self) -> bool:
        """Take one retry if there is one."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


@dataclass(frozen=True)
class Reservation:
    """Dollars set aside for one call, on a day (UTC, ISO) against some scopes.

    `id` tells it from every other of the day: a write whose reply was lost is done again, and must count once.
    """

    day: str
    scopes: tuple[str, ...]
    dollars: Decimal
    id: str = field(default_factory=lambda: secrets.token_hex(6))


class BudgetStore(Protocol):
    """Where the sums are kept that all sandboxes share. The methods block, and are called in threads."""

    def reserve(self, reservation: Reservation, limits: Mapping[str, Decimal]) -> str | None:
        """Add the dollars to each scope's sum of that day, all or none; return a scope whose limit forbids it.

        A reservation that stands already is not added again.
        """

    def settle(self, reservation: Reservation, spent: Decimal) -> None:
        """Replace the dollars set aside by those really spent; once, however often it is called."""


class Budgets:
    """Spending limits in dollars a day (UTC), reserved before a call and settled after it.

    `limits` maps a scope to its limit: `*` for everything, and any name that requests carry in `budget_scopes` (a key
    prefix, say). A call without a limited scope costs no write.

    A price that is not published cannot be reserved. Then `assumed_price` stands in, in dollars per million tokens, for
    the reservation and for the settlement too: the dollars that are known, and the tokens without a price at that one.
    Where a call was cut off, so that nobody knows its tokens, what was set aside stands, or what is known if that is
    more. An unknown cost is never taken as nothing.
    A sandbox that dies between the two leaves its reservation standing until the day ends, so a limit may stop calls a
    little early but is never overrun by them.
    """

    def __init__(
        self,
        limits: Mapping[str, Decimal],
        store: BudgetStore,
        *,
        assumed_price: Decimal = ASSUMED_PRICE,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._limits = dict(limits)
        self._store = store
        self._assumed_price = assumed_price
        self._now = now

    async def reserve(self, request: Request, models: Sequence[Model]) -> Reservation | None:
        """Set aside what the dearest of these models would take for the request; None if no limit concerns it.

        Raises:
            BudgetSpent: a limit leaves no room, or the sums cannot be reached.
        """
        scopes = tuple(scope for scope in dict.fromkeys((EVERYTHING, *request.budget_scopes)) if scope in self._limits)
        if not scopes:
            return None
        now = self._now()
        reservation = Reservation(now.date().isoformat(), scopes, self._most(request, models))
        limits = {scope: self._limits[scope] for scope in scopes}
        try:
            spent = await asyncio.to_thread(self._store.reserve, reservation, limits)
        except Exception as error:
            # Whatever the store's client raises: not knowing what was spent is no leave to spend more.
            raise BudgetSpent("the spending limits cannot be reached", scope=scopes[0], retry_after_s=30.0) from error
        if spent is not None:
            raise BudgetSpent(
                f"the spending limit {spent!r} of ${self._limits[spent]} a day is used up on {reservation.day}",
                scope=spent,
                retry_after_s=_until_midnight_s(now),
            )
        return reservation

    async def settle(self, reservation: Reservation | None, spent: Cost) -> None:
        """Replace the reservation by what the call cost, its tokens without a price at the assumed one."""
        if reservation is None:
            return
        dollars = spent.assumed(self._assumed_price)
        if spent.uncounted_calls:
            dollars = max(reservation.dollars, dollars)
        await asyncio.to_thread(self._store.settle, reservation, dollars)

    def _most(self, request: Request, models: Sequence[Model]) -> Decimal:
        prompt = 2 * least_tokens(request) + sum(3_200 for medium in request.media if medium.kind == "image")
        most = Decimal(0)
        for model in models:
            if model.minute_price is not None:
                most = max(most, model.minute_price * Decimal(str(request.duration_s or _ASSUMED_S)) / 60)
                continue
            into = model.input_price if model.input_price is not None else self._assumed_price
            out = model.output_price if model.output_price is not None else self._assumed_price
            most = max(most, (into * prompt + out * request.max_tokens) / Decimal(1_000_000))
        return most


def _until_midnight_s(now: datetime) -> float:
    tomorrow = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (tomorrow - now).total_seconds()
