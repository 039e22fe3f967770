"""The console's files, as they were built, and what browsers may load on its pages."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles

from captions.config.function_environments import ApiSettings
from captions_api.access import gateway_context

BUILT = Path(__file__).resolve().parents[1] / "console"
SCOPE = "openid"
"""With any other scope beside it, Cognito leaves out of ID tokens the attribute that limits people to prefixes."""
_NOT_BUILT = "The console is not built; the API is served under /v1. `make console` builds it.\n"


class _Hashed(StaticFiles):
    """Files that have a hash of what they hold in their names: they never change."""

    def file_response(self, *arguments: Any, **named: Any) -> Response:
        response = super().file_response(*arguments, **named)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def install(app: FastAPI, settings: ApiSettings) -> None:
    """Serve the console's page at /, its files under /static, and at /config.json what it has to know before."""
    folder = Path(settings.console_dir) if settings.console_dir else BUILT
    page = folder / "index.html"
    fresh = {"Cache-Control": "no-cache"}

    @app.get("/", include_in_schema=False)
    def index(request: Request) -> Response:
        if not page.is_file():
            return Response(_NOT_BUILT, media_type="text/plain")
        # With its prefix, as a stage's address may be opened with or without a slash at its end.
        content = page.read_text(encoding="utf-8").replace('"static/', f'"{_prefix(request)}static/')
        return HTMLResponse(content, headers=fresh)

    @app.get("/config.json", include_in_schema=False)
    def configuration() -> Response:
        return JSONResponse({"sign_in": _sign_in(settings), "search": bool(settings.search_function)}, headers=fresh)

    if (folder / "static").is_dir():
        app.mount("/static", GZipMiddleware(_Hashed(directory=folder / "static")))


def _prefix(request: Request) -> str:
    """Return what the page's own files are below: "/live/" on a stage of API Gateway, "" at the top of a host."""
    path = f"{gateway_context(request.headers).get('path', '')}".rstrip("/")
    return f"{path}/" if re.fullmatch(r"(/[\w.~-]+)+", path, re.ASCII) else ""


def _sign_in(settings: ApiSettings) -> dict[str, Any] | None:
    """Return what a public client of OAuth needs, and nothing that is secret; None where nobody signs in."""
    if settings.sign_in_client_id is None:
        return None
    return {
        "issuer": settings.sign_in_issuer,
        "url": settings.sign_in_url,
        "client_id": settings.sign_in_client_id,
        "scope": SCOPE,
    }


def media_origin(settings: ApiSettings) -> str:
    """Return where presigned URLs lead, as a Content-Security-Policy names it."""
    if settings.aws_endpoint_url:
        parts = urlsplit(settings.aws_endpoint_url)
        return f"{parts.scheme}://{parts.netloc}"
    region = os.environ.get("AWS_REGION", "us-east-1")
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    if "." in settings.media_bucket:
        return f"https://s3.{region}.{domain}"
    return f"https://{settings.media_bucket}.s3.{region}.{domain}"


def security_headers(settings: ApiSettings) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers of every answer: nothing is run or loaded but from here, and media from the bucket."""
    media = media_origin(settings)
    sign_in = f" {settings.sign_in_url}" if settings.sign_in_url else ""
    policy = "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "font-src 'self'",
            "manifest-src 'self'",
            f"img-src 'self' blob: data: {media}",
            f"media-src 'self' blob: {media}",
            f"connect-src 'self' {media}{sign_in}",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    headers = {
        "content-security-policy": policy,
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
    return tuple((name.encode(), value.encode()) for name, value in headers.items())
