"""Times as text."""

from datetime import UTC, datetime


def timestamp(epoch: float) -> str:
    """ISO 8601 in UTC with microseconds, so that text sorts as time."""
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
