"""The console's files, as they were built, and what browsers may load on its pages."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from captions.config.environment import ApiSettings

BUILT = Path(__file__).resolve().parents[1] / "console"
_NOT_BUILT = "The console is not built; the API is served under /v1. `make console` builds it.\n"


def install(app: FastAPI, settings: ApiSettings) -> None:
    """Serve the console's page at /, and its files under /static."""
    folder = Path(settings.console_dir) if settings.console_dir else BUILT
    page = folder / "index.html"

    @app.get("/", include_in_schema=False)
    def index() -> Response:
        if not page.is_file():
            return Response(_NOT_BUILT, media_type="text/plain")
        return FileResponse(page, headers={"Cache-Control": "no-cache"})

    if (folder / "static").is_dir():
        app.mount("/static", StaticFiles(directory=folder / "static"))


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
    policy = "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "font-src 'self'",
            "manifest-src 'self'",
            f"img-src 'self' blob: data: {media}",
            f"media-src 'self' blob: {media}",
            f"connect-src 'self' {media}",
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
