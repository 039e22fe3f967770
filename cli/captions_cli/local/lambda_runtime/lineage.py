"""How often each function was invoked in one chain of requests, as Lambda counts it to end recursive loops.

botocore sends a function's trace header on with what the function sends, and SQS keeps it with the message. Lambda
invokes a function 16 times in one chain and no more, unless its RecursiveLoop is Allow. Where SQS brought the event,
the message stays on the queue until its receives are used up (AWS Lambda developer guide, "Use Lambda recursive loop
detection to prevent infinite loops"; AWS Compute Blog, "Detecting and stopping recursive loops in Lambda functions").
"""

import hashlib
import re
from collections.abc import Iterable, Mapping

MOST_INVOCATIONS = 16
_LINEAGE = re.compile(r"(?:^|;)\s*lineage=([^;]*)", re.IGNORECASE)


def counts(trace_header: str) -> dict[str, int]:
    """Read how often which function (by its short hash) was invoked in the chain that the header is of."""
    written = _LINEAGE.search(trace_header)
    hops: dict[str, int] = {}
    for part in written[1].split("|") if written else ():
        name, _, number = part.partition(":")
        if number.isdigit():
            hops[name] = int(number)
    return hops


def ended(trace_header: str, function_arn: str) -> bool:
    """Whether the function was invoked as often in this chain as it may be."""
    return counts(trace_header).get(_short(function_arn), 0) >= MOST_INVOCATIONS


def advanced(trace_headers: Iterable[str], function_arn: str) -> str:
    """The lineage of one invocation of the function with messages of these chains: of each count the highest."""
    highest: dict[str, int] = {}
    for header in trace_headers:
        for name, number in counts(header).items():
            highest[name] = max(highest.get(name, 0), number)
    own = _short(function_arn)
    return _written(highest | {own: highest.get(own, 0) + 1})


def _written(hops: Mapping[str, int]) -> str:
    return "|".join(f"{name}:{number}" for name, number in sorted(hops.items()))


def _short(function_arn: str) -> str:
    return hashlib.sha256(function_arn.encode()).hexdigest()[:8]
