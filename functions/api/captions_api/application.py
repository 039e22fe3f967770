"""Joins the application: routes, errors, and the door before them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from captions.config.function_environments import ApiSettings
from captions_api import console, problems
from captions_api.access import Authorizer, Caller, Door, GatewayAuthorizer, Tokens
from captions_api.repeated_writes import RepeatedWrites
from captions_api.routes import again, assets, operation, review, search, streaming, uploads
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
    _describe(app)
    problems.install(app)
    for subject in (assets, search, again, review, uploads, streaming, operation):
        app.include_router(subject.router, prefix="/v1")

    console.install(app, services.settings)

    @app.get("/healthz", include_in_schema=False)
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return app


def _describe(app: FastAPI) -> None:
    """Have the OpenAPI document name problems as what every error is, and nothing else."""
    written = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = written()
            shapes = document["components"]["schemas"]
            shapes["ProblemDetails"] = problems.ProblemDetails.model_json_schema()
            for name in ("HTTPValidationError", "ValidationError"):
                shapes.pop(name, None)
            shapes["NamedAsset"] = streaming.NamedAsset.model_json_schema()
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign] # as FastAPI has it ("Extending OpenAPI")


def create(
    services: Services, *, tokens: Mapping[str, Caller] | None = None, hosts: frozenset[str] = frozenset()
) -> ASGIApp:
    """Return the application as it is served: behind API Gateway's authorizer, or, with `tokens`, on `hosts`."""
    known = Tokens(tokens) if tokens is not None else None
    settings = services.settings
    authorizer: Authorizer = known if known is not None else GatewayAuthorizer(settings.sign_in_client_id)
    app = RepeatedWrites(api(services), services.own, services.tenant, streams=frozenset({"/v1/captions:stream"}))
    people = known is None and settings.api_authorizer == "cognito"
    return Door(app, authorizer, known, hosts, console.security_headers(settings), open_console=people)


def document() -> dict[str, Any]:
    """Return the OpenAPI document, without a stack."""
    names = [name for name, about in ApiSettings.model_fields.items() if about.is_required()]
    settings = ApiSettings.model_validate(dict.fromkeys(names, "-"))
    return api(Services(settings, clients=lambda service: None)).openapi()
