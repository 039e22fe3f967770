"""Faults of the AWS APIs on demand: throttling, errors inside a service, answers lost after the work was done."""

from __future__ import annotations

import fnmatch
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from captions_cli.local.aws.limits import refusal

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

    from captions_cli.local.aws.server import AwsCall, Forward

# The code and HTTP status of each service's throttling (botocore's service models and its list of throttling codes).
_THROTTLED: Mapping[str, tuple[str, int]] = {
    "dynamodb": ("ProvisionedThroughputExceededException", 400),
    "sqs": ("RequestThrottled", 403),
    "s3": ("SlowDown", 503),
    "events": ("ThrottlingException", 400),
    "secretsmanager": ("ThrottlingException", 400),
    "ssm": ("ThrottlingException", 400),
}
MESSAGE = "The request was made to fail."


@dataclass(frozen=True)
class AwsFault:
    """One fault and the calls it strikes; an absent condition always holds."""

    service: str
    """As it signs requests: dynamodb, sqs, s3, events."""
    action: str = "*"
    """Glob on the operation, such as `Send*`; S3's operations have no name and match `*` only."""
    probability: float = 1.0
    for_s: float | None = None
    """Seconds from when it was set."""
    code: str = ""
    """The error's code; empty: the service's throttling."""
    status: int = 0
    """The HTTP status; 0: that of the service's throttling."""
    lost_answer: bool = False
    """The call has its effect, and its caller gets an error inside the service (500)."""

    def __post_init__(self) -> None:
        if not self.code and self.service not in _THROTTLED:
            raise ValueError(f"no throttling is known of {self.service}: name a code")


class AwsFaults:
    """An interceptor of the local stack (`LocalStack(interceptors=[faults])`) that makes calls fail as told.

    The stack's own pump and event router do not pass it, as AWS's pollers do not use their customers' quotas.
    """

    def __init__(self, seed: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._random = random.Random(seed)
        self._clock = clock
        self._guard = threading.Lock()
        self._faults: tuple[tuple[AwsFault, float], ...] = ()
        self.struck: Counter[str] = Counter()
        """Calls that failed so far, by `service.action`."""

    def set(self, faults: Iterable[AwsFault]) -> None:
        """Replace all faults."""
        now = self._clock()
        with self._guard:
            self._faults = tuple((fault, now) for fault in faults)

    def clear(self) -> None:
        """Remove all faults."""
        self.set(())

    def __call__(self, call: AwsCall, forward: Forward) -> Response:
        """Answer a call that a fault strikes; pass on the others."""
        if not self._faults or (fault := self._struck(call)) is None:
            return forward(call)
        if fault.lost_answer:
            forward(call)
            return refusal(call, fault.code or "InternalServerError", fault.status or 500, MESSAGE)
        code, status = _THROTTLED.get(call.service, ("", 400))
        return refusal(call, fault.code or code, fault.status or status, MESSAGE)

    def _struck(self, call: AwsCall) -> AwsFault | None:
        now, action = self._clock(), call.action
        with self._guard:
            for fault, set_at in self._faults:
                if (
                    fault.service == call.service
                    and fnmatch.fnmatchcase(action, fault.action)
                    and (fault.for_s is None or now - set_at < fault.for_s)
                    and self._random.random() < fault.probability
                ):
                    self.struck[f"{call.service}.{action or call.environ.get('REQUEST_METHOD', '')}"] += 1
                    return fault
        return None
