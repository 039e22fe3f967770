"""The secret that holds the endpoints' keys."""

import json
from collections.abc import Mapping


def parse_secret(text: str) -> Mapping[str, str]:
    """Return the keys a secret's text holds: one key, or a JSON object from base URL (or "default") to key."""
    text = text.strip()
    if text.startswith("{"):
        try:
            document = json.loads(text)
        except ValueError:
            document = None
        if isinstance(document, dict) and all(isinstance(value, str) for value in document.values()):
            return {url.rstrip("/"): key for url, key in document.items()}
    return {"default": text}
