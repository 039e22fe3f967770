"""The unified endpoint: one call to whichever model of a chain answers, within a deadline, at a known cost.

* `calls` holds the gateway itself; `exchange` what goes in and comes out; `errors` how a call can fail.
* `fallback` decides which model is next, `breakers` which may be called, `budgets` what may be spent.
* `bodies` makes requests, `answers` judges responses, `costs` prices them, `keys` holds the keys.
* `control` shares circuits and spending between sandboxes, on DynamoDB.
"""

from captions.gateway.api_keys import Keys, parse_secret
from captions.gateway.breakers import BreakerPolicy, Breakers, BreakerStore, SharedCircuit
from captions.gateway.budgets import EVERYTHING, Budgets, BudgetStore, Reservation, RetryBudget
from captions.gateway.client import Gateway, RetryPolicy
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
