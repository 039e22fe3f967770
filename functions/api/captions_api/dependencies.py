"""What routes are given: the services, and who is calling."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Request

from captions_api.access import Caller, caller_of
from captions_api.services import Services


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _caller(request: Request) -> Caller:
    return _services(request).tenant(caller_of(request.scope))


Serving = Annotated[Services, Depends(_services)]
Who = Annotated[Caller, Depends(_caller)]
IfMatch = Annotated[str | None, Header(description="The asset's etag as the caller saw it last.")]
