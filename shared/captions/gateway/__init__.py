"""The unified endpoint: one call to whichever model of a chain answers, within a deadline, at a known cost.

* `client` holds the gateway itself; `types` what goes in and comes out; `errors` how a call can fail.
* `fallback` decides which model is next, `breakers` which may be called, `budgets` what may be spent.
* `requests` makes requests, `responses` judges what comes back, `pricing` prices it, `api_keys` holds the keys.
* `shared_state` shares circuits and spending between sandboxes, on DynamoDB.

What calls models is imported when it is first used: openai takes longer to load than all of `captions ls`, which reads
the catalogue alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from captions.control_table import EVERYTHING
from captions.endpoint_secret import parse_secret
from captions.gateway.api_keys import Keys
from captions.gateway.breakers import BreakerPolicy, Breakers, BreakerStore, SharedCircuit
from captions.gateway.budgets import Budgets, BudgetStore, Reservation, RetryBudget
from captions.gateway.error_class import ErrorClass
from captions.gateway.errors import (
    AccountProblem,
    BudgetSpent,
    CircuitsOpen,
    DeadlineExceeded,
    Exhausted,
    GatewayError,
    NoCapableModel,
    Refused,
    Unacceptable,
)
from captions.gateway.requests import fits
from captions.gateway.shared_state import ControlTable
from captions.gateway.types import Attempt, Completion, Endpoint, Media, Request, Segment, StreamEvent, Usage

if TYPE_CHECKING:
    from captions.gateway.call import RetryPolicy
    from captions.gateway.client import Gateway

__all__ = [
    "EVERYTHING",
    "AccountProblem",
    "Attempt",
    "BreakerPolicy",
    "BreakerStore",
    "Breakers",
    "BudgetSpent",
    "BudgetStore",
    "Budgets",
    "CircuitsOpen",
    "Completion",
    "ControlTable",
    "DeadlineExceeded",
    "Endpoint",
    "ErrorClass",
    "Exhausted",
    "Gateway",
    "GatewayError",
    "Keys",
    "Media",
    "NoCapableModel",
    "Refused",
    "Request",
    "Reservation",
    "RetryBudget",
    "RetryPolicy",
    "Segment",
    "SharedCircuit",
    "StreamEvent",
    "Unacceptable",
    "Usage",
    "fits",
    "parse_secret",
]

_WHERE = {"Gateway": "client", "RetryPolicy": "call"}


if not TYPE_CHECKING:  # or a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _WHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"captions.gateway.{_WHERE[name]}"), name)
