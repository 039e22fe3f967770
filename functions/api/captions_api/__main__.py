"""`python -m captions_api`: serves the application, for Lambda Web Adapter or on one machine.

Behind the adapter the address is the adapter's (AWS_LWA_PORT); on one machine `--port 0` takes a free one. Where
it listens is printed as one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import threading

import uvicorn

from captions.config.function_environments import ApiSettings
from captions_api.access import Caller
from captions_api.application import create, document
from captions_api.services import Services

LOCAL_NAME = "local"


def main(arguments: list[str] | None = None) -> int:
    """Serve until the process is ended; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m captions_api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=int(os.environ.get("AWS_LWA_PORT", "8080")))
    parser.add_argument("--exit-with-parent", action="store_true", help="end when standard input does")
    parser.add_argument("--openapi", action="store_true", help="print the OpenAPI document, and serve nothing")
    options = parser.parse_args(arguments)
    if options.openapi:
        print(json.dumps(document(), indent=1, ensure_ascii=False))
        return 0
    settings = ApiSettings.from_env()
    listener = socket.create_server((options.host, options.port), backlog=128)
    port = listener.getsockname()[1]
    tokens: dict[str, Caller] | None = None
    if settings.api_authorizer == "token":
        if settings.api_token is None:
            print("API_TOKEN is needed where no authorizer of API Gateway's says who is calling", file=sys.stderr)
            return 2
        tokens = {settings.api_token: Caller(LOCAL_NAME)}
    shown = options.host if options.host not in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104 - compared, not bound
    hosts = frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]", shown))
    app = create(Services(settings), tokens=tokens, hosts=hosts)
    config = uvicorn.Config(
        app, access_log=False, log_level="warning", server_header=False, timeout_keep_alive=65, lifespan="off"
    )
    server = uvicorn.Server(config)
    if options.exit_with_parent:
        threading.Thread(target=_until_parent_ends, args=(server,), daemon=True).start()
    print(json.dumps({"url": f"http://{shown}:{port}"}), flush=True)
    server.run(sockets=[listener])
    return 0


def _until_parent_ends(server: uvicorn.Server) -> None:
    # Whoever started this holds the other end of standard input and never writes: it ends with them, however they end.
    while os.read(0, 1):
        pass
    server.should_exit = True


if __name__ == "__main__":
    sys.exit(main())
