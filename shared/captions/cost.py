"""What calls cost, as far as it is known: a lower bound in dollars, beside what no price or count is known of.

A cost that is known in full stands as decimal text in `cost`; of any other, `cost` is left out and
`cost_at_least` tells what is known. So is it with `answer_cost`, `saved` and `paid`.

    >>> Cost.read({"cost": "0.0001"}).exact
    Decimal('0.0001')
    >>> Cost(dollars=Decimal("0.000054"), unpriced_tokens=628).fields()
    {'cost_at_least': {'dollars': '0.000054', 'unpriced_tokens': 628}}
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, model_serializer

_MILLION = Decimal(1_000_000)


class Cost(BaseModel):
    """Dollars that were spent for certain, the tokens whose price is not known, and the calls nobody counted.

    A call that was cut off tells no tokens: it is one of `uncounted_calls`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    dollars: Annotated[Decimal, PlainSerializer(lambda dollars: format(dollars, "f"))] = Decimal(0)
    unpriced_tokens: int = Field(default=0, ge=0)
    uncounted_calls: int = Field(default=0, ge=0)

    @model_serializer(mode="wrap")
    def _without_zeros(self, serialize: Any) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if value != 0}

    @property
    def exact(self) -> Decimal | None:
        """The dollars, where they are all there is; else None."""
        return None if self.unpriced_tokens or self.uncounted_calls else self.dollars

    @property
    def known(self) -> bool:
        """Whether anything is known of it: dollars, or how many tokens want a price."""
        return bool(self.dollars or self.unpriced_tokens) or not self.uncounted_calls

    def assumed(self, per_million: Decimal) -> Decimal:
        """Return the dollars if a million of the tokens without a price cost this much."""
        return self.dollars + self.unpriced_tokens * per_million / _MILLION

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            dollars=self.dollars + other.dollars,
            unpriced_tokens=self.unpriced_tokens + other.unpriced_tokens,
            uncounted_calls=self.uncounted_calls + other.uncounted_calls,
        )

    def __sub__(self, part: "Cost") -> "Cost":
        """Return what is left without a part of it."""
        return Cost(
            dollars=self.dollars - part.dollars,
            unpriced_tokens=max(0, self.unpriced_tokens - part.unpriced_tokens),
            uncounted_calls=max(0, self.uncounted_calls - part.uncounted_calls),
        )

    @classmethod
    def of_call(cls, attempt: Mapping[str, Any]) -> Self:
        """Return what an attempt, or a sum of them, cost as records tell it."""
        return cls.read(attempt) or cls(uncounted_calls=1)

    @classmethod
    def sum(cls, costs: Iterable["Cost"]) -> "Cost":
        """Add up costs."""
        return sum(costs, cls())

    def pair(self, name: str = "cost") -> dict[str, Any]:
        """Return the text under `name` of a cost known in full, else the cost under `name`_at_least; one is None."""
        exact = self.exact
        bound = {f"{name}_at_least": self if exact is None else None}
        return {name: None if exact is None else format(exact, "f"), **bound}

    def fields(self, name: str = "cost") -> dict[str, Any]:
        """Return the exact cost, or what is known of it, as plain values."""
        if self.exact is not None:
            return {name: format(self.dollars, "f")}
        return {f"{name}_at_least": self.model_dump()}

    @classmethod
    def read(cls, values: Mapping[str, Any], name: str = "cost") -> Self | None:
        """Read what `fields` wrote; None where neither stands there."""
        if (exact := values.get(name)) is not None:
            return cls(dollars=Decimal(str(exact)))
        bound = values.get(f"{name}_at_least")
        return None if bound is None else cls.model_validate(bound)
