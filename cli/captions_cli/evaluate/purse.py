"""The limit of what an evaluation may cost, and its account."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal

from captions.cost import Cost
from captions.gateway import EVERYTHING, Budgets, BudgetSpent, Request, Reservation, RetryBudget, RetryPolicy
from captions.gateway.catalogue import Model
from captions_cli.evaluate.journal import Journal

_GROWTH = RetryPolicy().longest_growth
"""How much longer than the first an answer may be that is asked for again because it was cut short."""


class Purse(Budgets):
    """A limit over a whole evaluation, however often it is run: the most a call can cost is set aside before it.

    Where the rest does not hold that much, a call waits for those under way; when there are none it is not made. A
    second try of the same models, which only `retries` grants, needs room of its own.
    """

    def __init__(self, journal: Journal, limit: Decimal | None) -> None:
        super().__init__({}, _Unused())
        self.retries: RetryBudget = _Retries(self)
        self.short = False
        """Whether a second try was wanted and could not be paid for."""
        self._journal = journal
        self._limit = limit
        self._open: dict[str, Decimal] = {}
        self._again: list[str] = []
        self._number = 0
        self._changed = asyncio.Condition()

    async def reserve(self, request: Request, models: Sequence[Model]) -> Reservation:
        """Set aside what the request takes if every model is asked once.

        Raises:
            BudgetSpent: the limit leaves no room.
        """
        most = sum((self._most(request, [model]) for model in models), Decimal(0))
        async with self._changed:
            await self._changed.wait_for(lambda: self._fits(most) or not self._open)
            if not self._fits(most):
                left = max(Decimal(0), (self._limit or Decimal(0)) - self._journal.spent)
                raise BudgetSpent(f"a call may cost ${most:.4f}, and ${left:.4f} are left", scope="--max-cost")
            reservation = Reservation(datetime.now(UTC).date().isoformat(), (EVERYTHING,), most)
            self._journal.reserve(reservation.id, most)
            self._open[reservation.id] = most
        return reservation

    async def settle(self, reservation: Reservation | None, spent: Cost) -> None:
        """Replace it by what was spent; where that is not known in full it stays."""
        if reservation is None:
            return
        async with self._changed:
            most = self._open.pop(reservation.id, None)
            if most is not None:
                known = spent.exact is not None
                self._journal.settle(reservation.id, spent.dollars if known else max(most, spent.dollars), known=known)
            if not self._open:
                for name in self._again:
                    self._journal.settle(name, Decimal(0), known=True)
                self._again.clear()
            self._changed.notify_all()

    def again(self) -> bool:
        """Set aside what the dearest call under way takes once more, with a longer answer; False: there is no room."""
        most = max(self._open.values(), default=Decimal(0)) * _GROWTH
        if not self._fits(most):
            self.short = True
            return False
        self._number += 1
        name = f"again-{self._number}-{next(iter(self._open), '')}"
        self._journal.reserve(name, most)
        self._again.append(name)
        return True

    def _fits(self, dollars: Decimal) -> bool:
        return self._limit is None or self._journal.spent + dollars <= self._limit


class _Retries(RetryBudget):
    """Retries as the gateway allows them, as long as they can be paid for."""

    def __init__(self, purse: Purse) -> None:
        super().__init__()
        self._purse = purse

    def take(self) -> bool:
        return super().take() and self._purse.again()


class _Unused:
    """No other process shares the sums."""

    def reserve(self, reservation: Reservation, limits: Mapping[str, Decimal]) -> str | None:
        return None

    def settle(self, reservation: Reservation, spent: Decimal) -> None:
        return None
