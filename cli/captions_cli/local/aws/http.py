"""A small HTTP/1.1 server with a thread per connection.

Python's own development servers close each connection after one answer, or parse headers with the e-mail package; here
a thousand small requests a second come from a handful of clients that keep their connections.
"""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import unquote_to_bytes

from captions_cli.local.errors import StackError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_MAX_LINE = 64 * 1024  # bytes; a presigned URL with a session token stays below 8 KiB
_PRESERVED_HEADER_NAMES = "moto.preserved_header_names"  # where moto looks for metadata names as they were sent


@dataclass(frozen=True)
class HttpAnswer:
    """What goes back over the connection. A HEAD request's `body` is left out, its headers are not."""

    status: str  # with its reason: "200 OK"
    headers: list[tuple[str, str]]
    body: bytes


Application = Callable[["WSGIEnvironment", bytes], HttpAnswer]


class HttpServer:
    """Calls `application` with the WSGI environment and the whole body of each request, one thread per connection."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._listener: socket.socket | None = None
        self._connections: set[socket.socket] = set()
        self._guard = threading.Lock()

    def start(self, bind: str, port: int) -> int:
        """Listen on `bind`:`port` (0: any free port); returns the port. Raises StackError if it is taken."""
        try:
            self._listener = socket.create_server((bind, port), backlog=256)
        except OSError as error:
            raise StackError(f"cannot listen on {bind}:{port}: {error.strerror or error}") from error
        threading.Thread(target=self._accept, args=(self._listener,), name="http-accept", daemon=True).start()
        return int(self._listener.getsockname()[1])

    def stop(self) -> None:
        """Close the port and every connection."""
        if self._listener is None:
            return
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept(); macOS raises, and wakes on close
        self._listener.close()
        with self._guard:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, address = listener.accept()
            except OSError:
                return
            # An answer leaves in one write, but large ones are cut: Nagle's delay would add 40 ms to the last piece.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._guard:
                self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection, address), name="http", daemon=True).start()

    def _serve(self, connection: socket.socket, address: Any) -> None:
        try:
            with connection, connection.makefile("rb", buffering=_MAX_LINE) as stream:
                while self._serve_one(connection, cast("BinaryIO", stream), address):
                    pass
        except (OSError, ValueError):
            pass  # the client went away, or does not speak HTTP
        finally:
            with self._guard:
                self._connections.discard(connection)

    def _serve_one(self, connection: socket.socket, stream: BinaryIO, address: Any) -> bool:
        line = stream.readline(_MAX_LINE)
        if not line:
            return False
        method, target, version = line.decode("latin-1").split()
        environ = _environ(method, target, version, stream, connection, address)
        if str(environ.get("HTTP_EXPECT", "")).lower() == "100-continue":
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = _body(environ, stream)
        environ["CONTENT_LENGTH"] = str(len(body))
        environ["wsgi.input"] = io.BytesIO(body)
        answer = self._application(environ, body)
        keep = version == "HTTP/1.1" and str(environ.get("HTTP_CONNECTION", "")).lower() != "close"
        connection.sendall(_serialised(answer, method, keep))
        return keep


def _environ(
    method: str, target: str, version: str, stream: BinaryIO, connection: socket.socket, address: Any
) -> WSGIEnvironment:
    path, _, query = target.partition("?")
    if path.startswith("http://"):  # absolute form, as proxies get it
        path = "/" + path.split("/", 3)[3] if path.count("/") > 2 else "/"
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "RAW_URI": target,
        "REQUEST_URI": target,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": version,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(connection.getsockname()[1]),
        "REMOTE_ADDR": address[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    preserved: dict[str, str] = {}
    while (line := stream.readline(_MAX_LINE)) not in (b"\r\n", b"\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        key = name.upper().replace("-", "_")
        if key not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
            key = f"HTTP_{key}"
        # WSGI folds x-amz-meta-a_b and x-amz-meta-a-b into one name; to S3 they are two.
        if "_" in name:
            if not name.lower().startswith("x-amz-meta-"):
                continue
            preserved[key] = name
        value = value.strip()
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    environ[_PRESERVED_HEADER_NAMES] = preserved
    return environ


def _body(environ: WSGIEnvironment, stream: BinaryIO) -> bytes:
    if "chunked" not in str(environ.pop("HTTP_TRANSFER_ENCODING", "")).lower():
        return _exactly(int(environ.get("CONTENT_LENGTH") or 0), stream)
    chunks: list[bytes] = []
    while size := int(stream.readline(_MAX_LINE).split(b";")[0], 16):
        chunks.append(_exactly(size, stream))
        stream.readline(_MAX_LINE)
    while stream.readline(_MAX_LINE) not in (b"\r\n", b"\n", b""):
        pass  # trailers
    return b"".join(chunks)


def _exactly(size: int, stream: BinaryIO) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise ConnectionError("the client went away in the middle of its request")
    return data


def _serialised(answer: HttpAnswer, method: str, keep: bool) -> bytes:
    lines = [f"HTTP/1.1 {answer.status}"]
    has_length = False
    for name, value in answer.headers:
        lowered = name.lower()
        if lowered in {"connection", "transfer-encoding"}:
            continue
        if lowered == "content-length":
            if method != "HEAD":
                continue
            has_length = True
        lines.append(f"{name}: {value}")
    if not has_length and not answer.status.startswith(("1", "204", "304")):
        lines.append(f"Content-Length: {len(answer.body)}")
    lines.append(f"Connection: {'keep-alive' if keep else 'close'}")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", errors="replace")
    return head if method == "HEAD" else head + answer.body
