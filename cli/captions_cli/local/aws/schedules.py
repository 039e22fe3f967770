"""EventBridge's schedule expressions: rate(...), cron(...) and at(...), in UTC.

https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-scheduled-rule-pattern.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from captions_cli.local.errors import StackError

_UNITS_S = {"minute": 60, "hour": 3600, "day": 86400}
_MONTHS = {
    name: i + 1
    for i, name in enumerate(["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"])
}
_DAYS = {name: i + 1 for i, name in enumerate(["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"])}  # Sunday is 1
_HORIZON = timedelta(days=366 * 5)

Next = Callable[[datetime], datetime | None]


def parse_schedule(expression: str) -> Next:
    """A function from a moment to the first one after it at which the schedule fires, or None if it never will.

    Raises StackError if the expression is none.
    """
    if match := re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", expression):
        interval = timedelta(seconds=int(match.group(1)) * _UNITS_S[match.group(2)])
        if interval:
            return lambda after: after + interval
    if match := re.fullmatch(r"at\((.+)\)", expression):
        moment = datetime.fromisoformat(match.group(1)).replace(tzinfo=UTC)
        return lambda after: moment if moment > after else None
    if match := re.fullmatch(r"cron\((\S+ \S+ \S+ \S+ \S+ \S+)\)", expression):
        return _cron(match.group(1).split(), expression)
    raise StackError(f"not a schedule expression: {expression}")


def _cron(fields: list[str], expression: str) -> Next:
    minutes = _numbers(fields[0], 0, 59, expression)
    hours = _numbers(fields[1], 0, 23, expression)
    months = _numbers(fields[3], 1, 12, expression, _MONTHS)
    years = _numbers(fields[5], 1970, 2199, expression)
    if "?" not in (fields[2], fields[4]):
        raise StackError(f"a schedule has '?' for day-of-month or day-of-week: {expression}")
    if re.search(r"L|W(?!ED)|#", f"{fields[2]} {fields[4]}"):
        raise StackError(f"the local stack does not do L, W and # in schedules: {expression}")
    days = None if fields[2] == "?" else _numbers(fields[2], 1, 31, expression)
    weekdays = None if fields[4] == "?" else _numbers(fields[4], 1, 7, expression, _DAYS)

    def next_after(after: datetime) -> datetime | None:
        moment = after.replace(second=0, microsecond=0) + timedelta(minutes=1)
        while moment < after + _HORIZON:
            day_fits = (days is None or moment.day in days) and (
                weekdays is None or moment.isoweekday() % 7 + 1 in weekdays
            )
            if moment.year not in years or moment.month not in months or not day_fits:
                moment = moment.replace(hour=0, minute=0) + timedelta(days=1)
            elif moment.hour not in hours:
                moment = moment.replace(minute=0) + timedelta(hours=1)
            elif moment.minute not in minutes:
                moment += timedelta(minutes=1)
            else:
                return moment
        return None

    return next_after


def _numbers(field: str, low: int, high: int, expression: str, names: dict[str, int] | None = None) -> frozenset[int]:
    def number(text: str) -> int:
        value = (names or {}).get(text.upper())
        value = int(text) if value is None else value
        if not low <= value <= high:
            raise ValueError(text)
        return value

    values: set[int] = set()
    try:
        for part in field.split(","):
            span, _, step = part.partition("/")
            first, _, last = span.partition("-")
            if span in {"*", "?"}:
                start, end = low, high
            elif last:
                start, end = number(first), number(last)
            else:
                start = number(first)
                end = high if step else start
            values.update(range(start, end + 1, int(step or 1)))
    except ValueError as error:
        raise StackError(f"not a schedule expression: {expression}") from error
    return frozenset(values)
