"""Errors as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from captions import telemetry
from captions.completion_events import NotDeliveredError

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2
"""How long a client is asked to wait while an AWS service does not answer."""
_SHOWN_ERRORS = 20
_TITLES = {
    400: "Bad request",
    401: "Not signed in",
    403: "Not allowed",
    404: "Not there",
    405: "Method not allowed",
    409: "Conflict",
    412: "Changed meanwhile",
    413: "Too large",
    415: "Unsupported media type",
    422: "Not acceptable",
    428: "If-Match is needed",
    429: "Too many requests",
    500: "Internal error",
    503: "Not available",
}


_NOT_SIGNED_IN = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Captions</title></head>
<body><main><h1>This address does not open the console</h1>
<p>Its token is missing, or not of the stack that is up now: each start makes a new one.</p>
<p><code>captions console</code> prints the address that does. If no stack is up, <code>captions up</code> starts one
and prints it.</p></main></body></html>
"""


class ProblemDetails(BaseModel):
    """What every error answers with; some have further members."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(
        description="A name of the problem, for programs: a relative URI.", examples=["/problems/changed"]
    )
    title: str
    status: int
    detail: str


class Refusal(Exception):
    """Ends a request with a problem; `code` becomes its type, `more` its further members."""

    def __init__(
        self, status: int, code: str, detail: str, *, headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers or {}
        self.more = more

    def body(self) -> dict[str, Any]:
        """Return the problem as its document."""
        return {
            "type": f"/problems/{self.code}",
            "title": _TITLES.get(self.status, "Error"),
            "status": self.status,
            "detail": self.detail,
            **self.more,
        }

    def response(self) -> JSONResponse:
        """Return the answer."""
        return JSONResponse(self.body(), self.status, self.headers, media_type=MEDIA_TYPE)


def not_signed_in_page() -> HTMLResponse:
    """Return what a browser is shown in place of a page, as its token is missing or old; 401, like the problem."""
    return HTMLResponse(_NOT_SIGNED_IN, 401, {"WWW-Authenticate": "Bearer", "Cache-Control": "no-store"})


def not_there() -> Refusal:
    """Return the problem of what does not exist, or is none of the caller's business: the same for both."""
    return Refusal(404, "not-there", "there is no such asset")


def install(app: FastAPI) -> None:
    """Answer every error of an application as a problem."""

    @app.exception_handler(Refusal)
    async def _(request: Request, problem: Refusal) -> JSONResponse:
        return problem.response()

    @app.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> JSONResponse:
        errors = [
            {"where": ".".join(str(part) for part in mistake["loc"]), "message": mistake["msg"]}
            for mistake in error.errors()[:_SHOWN_ERRORS]
        ]
        first = errors[0] if errors else {"where": "request", "message": "it cannot be read"}
        detail = f"{first['where']}: {first['message']}"
        return Refusal(422, "invalid", detail, errors=errors).response()

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "no-such-route", 405: "method-not-allowed"}.get(error.status_code, "request")
        return Refusal(error.status_code, code, str(error.detail), headers=dict(error.headers or {})).response()

    @app.exception_handler(BotoCoreError)
    async def _(request: Request, error: BotoCoreError) -> JSONResponse:
        return _unavailable(error)

    @app.exception_handler(ClientError)
    async def _(request: Request, error: ClientError) -> JSONResponse:
        return _unavailable(error)

    @app.exception_handler(NotDeliveredError)
    async def _(request: Request, error: NotDeliveredError) -> JSONResponse:
        return _unavailable(error)

    @app.exception_handler(Exception)
    async def _(request: Request, error: Exception) -> JSONResponse:
        telemetry.logger().error("request_failed", exc_info=error, method=request.method)
        telemetry.count("ApiError")
        return Refusal(500, "internal", "the request could not be handled; it was logged").response()


def _unavailable(error: Exception) -> JSONResponse:
    """What AWS refused or did not answer may be answered at another try; what it said is for the log alone."""
    telemetry.logger().warning("aws_call_failed", exc_info=error)
    telemetry.count("ApiUnavailable")
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return Refusal(
        503, "not-available", "a service behind the API did not answer; try again", headers=headers
    ).response()


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {
        "description": _TITLES[status],
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
    }
    for status in (400, 401, 403, 404, 405, 409, 412, 413, 415, 422, 428, 503)
}
"""What the OpenAPI document says of errors."""
