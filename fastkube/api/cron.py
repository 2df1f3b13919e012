"""Cron schedules: the five fields, names, steps, macros and @every that CronJobs take, and when they are due next.

Times are seconds since the epoch; fields are read in the schedule's time zone. An hour that a change to summer time
skips does not come; one that the change back repeats comes twice, as upstream's library has it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fastkube.api.field import quote
from fastkube.config import parse_duration

_MONTHS = {
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6,
    "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
}  # fmt: skip
_DAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_PANIC = "invalid schedule format: runtime error: slice bounds out of range [:-1]"
"""What upstream makes of a panic of the library, where there is nothing after a time zone."""

_EVERY = "@every "
_YEARS_MAX = 5
"""A schedule which does not come in so many years never comes (31 February)."""


class _Bounds(NamedTuple):
    low: int
    high: int
    names: dict[str, int]


_FIELDS = (
    _Bounds(0, 59, {}),
    _Bounds(0, 23, {}),
    _Bounds(1, 31, {}),
    _Bounds(1, 12, _MONTHS),
    _Bounds(0, 6, _DAYS),
)


class Field(NamedTuple):
    """The values of a field; `star`: it was left open."""

    values: frozenset[int]
    star: bool


@dataclass(frozen=True)
class Schedule:
    """A parsed schedule: `every_s`, or the five fields."""

    every_s: int
    fields: tuple[Field, ...]
    zone: tzinfo

    def next(self, after: float) -> float | None:
        """The first time after `after`; None if there is none in five years."""
        if self.every_s:
            return float(int(after)) + self.every_s
        return _search(self, after)


@lru_cache(maxsize=4096)
def parse(text: str, zone: str = "") -> Schedule:
    """Raises ValueError on what is no schedule, or no time zone, in the words of Go's cron library."""
    if not text:
        raise ValueError("empty spec string")
    place: tzinfo = time_zone(zone) if zone else UTC
    if text.startswith(("TZ=", "CRON_TZ=")):
        named, space, text = text.partition(" ")
        if not space:
            raise ValueError(_PANIC)
        place, text = _named_zone(named.partition("=")[2]), text.strip()
    if text.startswith(_EVERY):
        return Schedule(_every(text), (), place)
    if text.startswith("@") and text not in _MACROS:
        raise ValueError(f"unrecognized descriptor: {text}")
    parts = _MACROS.get(text, text).split()
    if len(parts) != len(_FIELDS):
        raise ValueError(f"expected exactly 5 fields, found {len(parts)}: [{' '.join(parts)}]")
    return Schedule(0, tuple(_field(part, bounds) for part, bounds in zip(parts, _FIELDS, strict=True)), place)


def time_zone(name: str) -> ZoneInfo:
    """Raises ValueError for one that is not known."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"unknown time zone {name}") from None


def _named_zone(name: str) -> tzinfo:
    try:
        return time_zone(name)
    except ValueError as error:
        raise ValueError(f"provided bad location {name}: {error}") from None


def _every(text: str) -> int:
    try:
        return max(1, int(parse_duration(text.removeprefix(_EVERY))))
    except ValueError as error:
        raise ValueError(f"failed to parse duration {text}: {error}") from None


def _field(text: str, bounds: _Bounds) -> Field:
    values: set[int] = set()
    star = False
    for part in filter(None, text.split(",")):
        found, open_ended = _range(part, bounds)
        values.update(found)
        star = star or open_ended
    return Field(frozenset(values), star)


def _range(text: str, bounds: _Bounds) -> tuple[range, bool]:
    """`*`, `a`, `a-b`, each with `/step`; `a/step` goes on to the end."""
    span, *steps = text.split("/")
    first_text, *rest = span.split("-")
    star = first_text in ("*", "?")
    if star:
        first, last = bounds.low, bounds.high
    else:
        first = last = _number(first_text, bounds)
        if len(rest) > 1:
            raise ValueError(f"too many hyphens: {text}")
        if rest:
            last = _number(rest[0], bounds)
    if len(steps) > 1:
        raise ValueError(f"too many slashes: {text}")
    step = _integer(steps[0]) if steps else 1
    if steps and not rest:
        last = bounds.high
    _check_range(text, first, last, step, bounds)
    return range(first, last + 1, step), star and step == 1


def _check_range(text: str, first: int, last: int, step: int, bounds: _Bounds) -> None:
    if first < bounds.low:
        raise ValueError(f"beginning of range ({first}) below minimum ({bounds.low}): {text}")
    if last > bounds.high:
        raise ValueError(f"end of range ({last}) above maximum ({bounds.high}): {text}")
    if first > last:
        raise ValueError(f"beginning of range ({first}) beyond end of range ({last}): {text}")
    if step == 0:
        raise ValueError(f"step of range should be a positive number: {text}")


def _number(text: str, bounds: _Bounds) -> int:
    named = bounds.names.get(text.lower())
    return _integer(text) if named is None else named


def _integer(text: str) -> int:
    if not re.fullmatch("[+-]?[0-9]+", text):
        problem = f"strconv.Atoi: parsing {quote(text)}: invalid syntax"
        raise ValueError(f"failed to parse int from {text}: {problem}")
    number = int(text)
    if number < 0:
        raise ValueError(f"negative number ({number}) not allowed: {text}")
    return number


def _search(schedule: Schedule, after: float) -> float | None:
    """From field to field: what does not match is advanced to the start of the next candidate."""
    minutes, hours, _, months, _ = schedule.fields
    zone = schedule.zone
    start = datetime.fromtimestamp(int(after) // 60 * 60, UTC) + timedelta(minutes=1)
    moment = start
    while moment.year <= start.year + _YEARS_MAX:
        local = moment.astimezone(zone)
        if local.month not in months.values:
            following = datetime(local.year + local.month // 12, local.month % 12 + 1, 1, tzinfo=zone)
        elif not _day_matches(schedule, local):
            midnight = datetime(local.year, local.month, local.day, tzinfo=zone)
            following = (midnight.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=zone)
        elif local.hour not in hours.values:
            # in absolute time, so that neither a skipped nor a repeated hour leads astray
            following = moment - timedelta(minutes=local.minute) + timedelta(hours=1)
        elif local.minute not in minutes.values:
            moment += timedelta(minutes=1)
            continue
        else:
            return moment.timestamp()
        moment = max(following.astimezone(UTC), moment + timedelta(minutes=1))
    return None


def _day_matches(schedule: Schedule, local: datetime) -> bool:
    """Where day of month and day of week are both given either suffices."""
    days, weekdays = schedule.fields[2], schedule.fields[4]
    by_day = local.day in days.values
    by_weekday = local.isoweekday() % 7 in weekdays.values
    return by_day and by_weekday if days.star or weekdays.star else by_day or by_weekday
