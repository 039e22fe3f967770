"""An OpenAI-compatible model endpoint on this machine: real descriptions, the catalogue's latencies, faults on demand.

>>> with LocalEndpoint(latency_scale=0.0) as endpoint:
...     endpoint.set_faults([{"fault": "rate_limited", "times": 1, "retry_after": 2}])
...     endpoint.url.endswith("/v1")
True
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captions_cli.local.model_endpoint.faults import Fault
    from captions_cli.local.model_endpoint.running import LocalEndpoint

__all__ = ["Fault", "LocalEndpoint"]


def __getattr__(name: str) -> Any:
    # Late, because the worker processes import this package too and need neither server nor catalogue.
    if name == "Fault":
        from captions_cli.local.model_endpoint.faults import Fault

        return Fault
    if name == "LocalEndpoint":
        from captions_cli.local.model_endpoint.running import LocalEndpoint

        return LocalEndpoint
    raise AttributeError(name)
