"""Servers of the standard library, in a thread of their own while they are needed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from socketserver import BaseServer
from typing import Any, TypeVar

Server = TypeVar("Server", bound=BaseServer)


class QuietHandler(BaseHTTPRequestHandler):
    """Answers requests, and writes nothing about them."""

    def log_message(self, *_: Any) -> None:
        pass

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status: int, body: bytes | str = b"", **headers: str) -> None:
        """Send an answer; in the names of headers, "_" stands for "-"."""
        content = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in (headers | {"Content_Length": str(len(content))}).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Serve until the block ends, which the thread notices at once: it looks only every half second by default."""
    with server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
