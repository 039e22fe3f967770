"""Servers of the local stack in processes of their own."""

import os
import sys
from pathlib import Path

from captions_cli.local.child_server import ChildServer

TALKATIVE = """
import json, os, sys
print(json.dumps({"url": "http://127.0.0.1:1"}), flush=True)
for number in range(3_000):
    print(f"{number} " + "x" * 100)
print("all is said", file=sys.stderr, flush=True)
"""


def test_a_server_that_prints_more_than_a_pipe_holds_goes_on(tmp_path: Path) -> None:
    server = ChildServer("a server", [sys.executable, "-c", TALKATIVE], os.environ, tmp_path / "server.log")
    assert server.wait() == "http://127.0.0.1:1"
    os.waitid(os.P_PID, server.process, os.WEXITED | os.WNOWAIT)  # it ends by itself, or the test's time does
    server.stop()
    log = (tmp_path / "server.log").read_text()
    assert log.count("x" * 100) == 3_000
    assert "all is said" in log
