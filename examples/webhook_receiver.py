"""A receiver of webhooks: verifies who sent them, drops repetitions, keeps the newest of each object.

    pip install standardwebhooks
    WEBHOOK_SECRET=whsec_… python examples/webhook_receiver.py 8080

It answers at once and works afterwards; 2xx says that the event is kept, anything else asks for it once more. Put it
behind a server that speaks HTTPS.
"""

import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

MAX_BODY_BYTES = 100_000


class Store:
    """What has been received, in a database that survives a restart."""

    def __init__(self, path: str) -> None:
        self._path = path
        with self._transaction() as database:
            database.execute("CREATE TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY)")
            database.execute(
                "CREATE TABLE IF NOT EXISTS captions (asset TEXT PRIMARY KEY, version TEXT, state TEXT, text TEXT)"
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=5)) as database, database:
            database.execute("BEGIN IMMEDIATE")
            yield database

    def keep(self, event_id: str, data: dict[str, Any]) -> bool:
        """Keep an event unless it came before; one that is older than what is known of its object changes nothing."""
        # S3's sequencers are compared as text of one length; of one version the later update is the newer.
        version = f"{data['sequencer']:0<64} {data['updated_at']}"
        with self._transaction() as database:  # what is seen is kept as well, or neither
            if database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (event_id,)).rowcount == 0:
                return False
            database.execute(
                "INSERT INTO captions VALUES (?, ?, ?, ?) ON CONFLICT (asset) DO UPDATE SET"
                " version = excluded.version, state = excluded.state, text = excluded.text"
                " WHERE excluded.version > captions.version",
                (data["asset"], version, data["state"], data["text"]),
            )
        return True

    def caption(self, asset: str) -> tuple[str, str] | None:
        """The newest state and text that is known of an object."""
        with self._transaction() as database:
            query = "SELECT state, text FROM captions WHERE asset = ?"
            results: tuple[str, str] | None = database.execute(query, (asset,)).fetchone()
            return results


def receiver(secret: str, store: Store, port: int = 0) -> ThreadingHTTPServer:
    """Make the server; port 0 is any free one."""
    webhook = Webhook(secret)

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            if length > MAX_BODY_BYTES:
                return self.answer(413)
            body = self.rfile.read(length)
            try:
                event = webhook.verify(body, dict(self.headers))
            except WebhookVerificationError:
                return self.answer(401)
            if event["type"] != "Caption.Test":
                store.keep(self.headers["webhook-id"], event["data"])
            return self.answer(204)

        def answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keys and captions stay out of the log."""

    return ThreadingHTTPServer(("127.0.0.1", port), Receiver)


if __name__ == "__main__":
    server = receiver(os.environ["WEBHOOK_SECRET"], Store("captions.sqlite"), int(sys.argv[1]))
    print(json.dumps({"listening": server.server_address}))
    server.serve_forever()
