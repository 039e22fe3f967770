"""The body of a webhook: the completion event, bounded, with a link to the rest."""

from __future__ import annotations

import base64
import json
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

MAX_BODY_BYTES = 20_000
"""Receivers refuse large bodies, and Standard Webhooks advises against them: what is longer is read from the API."""


def asset_path(asset: str) -> str:
    """The API's path of an asset, whose id is its name in base64url without padding."""
    return "/v1/assets/" + base64.urlsafe_b64encode(asset.encode()).decode().rstrip("=")


def body_of(event_type: str, time: str, detail: Mapping[str, Any], api: str = "") -> str:
    """Return the body for an event, at most MAX_BODY_BYTES in UTF-8.

    `data` is the event's detail. Receivers order the events of one object by `data.sequencer`, then by `data.at`.
    `truncated` says that `data.text` is only the beginning; `url` has it all.
    """
    data = dict(detail) | {"url": api.rstrip("/") + asset_path(str(detail["asset"])), "truncated": False}
    body = {"type": event_type, "timestamp": time, "data": data}
    if _bytes(body) <= MAX_BODY_BYTES:
        return _json(body)
    data["truncated"] = True
    text = str(data.get("text") or "")
    data["text"] = ""
    room = MAX_BODY_BYTES - _bytes(body)
    if room < 0:  # only what somebody else put on the bus is so large without a caption
        data |= dict.fromkeys(set(data) - {"id", "asset", "sequencer", "url", "truncated"})
        return _json(body)
    kept = bisect_right(range(len(text) + 1), room, key=lambda length: _bytes(text[:length]) - 2) - 1
    data["text"] = text[:kept]
    return _json(body)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _bytes(value: Any) -> int:
    return len(_json(value).encode("utf-8", "surrogatepass"))
