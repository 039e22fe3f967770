"""Joins the application: routes, errors, and the door before them."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI
from starlette.types import ASGIApp

from captions_api import console, problems
from captions_api.access import Authorizer, Caller, Door, Tokens, gateway_authorizer
from captions_api.routes import assets, operation, streaming, uploads
from captions_api.services import Services

VERSION = "1.0.0"


def api(services: Services) -> FastAPI:
    """Return the application without its door."""
    app = FastAPI(
        title="media-captions",
        version=VERSION,
        summary="Captions of uploaded media: lists, verdicts, uploads, costs.",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        responses=problems.RESPONSES,
    )
    app.state.services = services
    problems.install(app)
    for subject in (assets, uploads, streaming, operation):
        app.include_router(subject.router, prefix="/v1")

    console.install(app, services.settings)

    @app.get("/healthz", include_in_schema=False)
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return app


def create(
    services: Services, *, tokens: Mapping[str, Caller] | None = None, hosts: frozenset[str] = frozenset()
) -> ASGIApp:
    """Return the application as it is served: behind API Gateway's authorizer, or, with `tokens`, on `hosts`."""
    known = Tokens(tokens) if tokens is not None else None
    authorizer: Authorizer = known if known is not None else gateway_authorizer(services.access_rules)
    return Door(api(services), authorizer, known, hosts, console.security_headers(services.settings))
