"""Timestamps and durations: their texts as Go reads and writes them, and their parts in a time zone."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from fastkube.cel.errors import EvalError
from fastkube.cel.functions import Overload, function, method
from fastkube.cel.values import SECOND_NS, Duration, Timestamp, duration, timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS_NS = {
    "ns": 1,
    "us": 1000,
    "µs": 1000,
    "μs": 1000,
    "ms": 10**6,
    "s": SECOND_NS,
    "m": 60 * SECOND_NS,
    "h": 3600 * SECOND_NS,
}
_span = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_moment = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
).fullmatch
_offset = re.compile(r"([+-]?)(\d\d):(\d\d)", re.ASCII).fullmatch


def parse_duration(text: str) -> Duration:
    """Go's time.ParseDuration; raises EvalError."""
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return Duration(0)
    total, at = 0, 0
    while at < len(rest):
        match = _span.match(rest, at)
        if match is None or not (match.group(1) or match.group(2)):
            break
        unit = _UNITS_NS[match.group(3)]
        fraction = match.group(2) or ""
        total += int(match.group(1) or 0) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)
        at = match.end()
    if not rest or at < len(rest):
        raise EvalError(f'time: invalid duration "{text}"')
    return duration(-total if text[0] == "-" else total)


def parse_timestamp(text: str) -> Timestamp:
    """RFC 3339, to the nanosecond; raises EvalError."""
    match = _moment(text)
    try:
        if match is None:
            raise ValueError
        year, month, day, hour, minute, second = map(int, match.groups()[:6])
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        whole = int((moment - _EPOCH).total_seconds())
    except ValueError:
        raise EvalError(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse') from None
    zone = match.group(8)
    if zone not in "Zz":
        sign = -1 if zone[0] == "-" else 1
        whole -= sign * (int(zone[1:3]) * 3600 + int(zone[4:6]) * 60)
    return timestamp(whole * SECOND_NS + int((match.group(7) or "").ljust(9, "0")))


def show_duration(value: Duration) -> str:
    """In seconds, with the fraction that is there: `90s`, `0.5s`."""
    whole, fraction = divmod(abs(int(value)), SECOND_NS)
    sign = "-" if value < 0 else ""
    return f"{sign}{whole}.{fraction:09}".rstrip("0") + "s" if fraction else f"{sign}{whole}s"


def show_timestamp(value: Timestamp) -> str:
    seconds, fraction = divmod(int(value), SECOND_NS)
    text = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    return f"{text}.{fraction:09}".rstrip("0") + "Z" if fraction else text + "Z"


@lru_cache(256)
def _zone(name: str) -> tzinfo:
    if name in ("", "UTC"):
        return UTC
    match = _offset(name)
    if match:
        sign = -1 if match.group(1) == "-" else 1
        return timezone(sign * timedelta(hours=int(match.group(2)), minutes=int(match.group(3))))
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise EvalError(f"unknown time zone {name}") from None


_PARTS: dict[str, Callable[[datetime], int]] = {
    "getFullYear": lambda at: at.year,
    "getMonth": lambda at: at.month - 1,
    "getDayOfYear": lambda at: at.timetuple().tm_yday - 1,
    "getDayOfMonth": lambda at: at.day - 1,
    "getDate": lambda at: at.day,
    "getDayOfWeek": lambda at: at.isoweekday() % 7,
    "getHours": lambda at: at.hour,
    "getMinutes": lambda at: at.minute,
    "getSeconds": lambda at: at.second,
    "getMilliseconds": lambda at: at.microsecond // 1000,
}


def _of_timestamp(name: str) -> tuple[Overload, Overload]:
    part = _PARTS[name]

    def in_zone(value: Timestamp, zone: str) -> int:
        return part(value.moment().astimezone(_zone(zone)))

    return (
        method(name, "timestamp -> int", lambda value: part(value.moment())),
        method(name, "timestamp, string -> int", in_zone),
    )


def _toward_zero(value: int, unit: int) -> int:
    return value // unit if value >= 0 else -(-value // unit)


OVERLOADS = (
    *(overload for name in _PARTS for overload in _of_timestamp(name)),
    method("getHours", "duration -> int", lambda value: _toward_zero(int(value), 3600 * SECOND_NS)),
    method("getMinutes", "duration -> int", lambda value: _toward_zero(int(value), 60 * SECOND_NS)),
    method("getSeconds", "duration -> int", lambda value: _toward_zero(int(value), SECOND_NS)),
    method("getMilliseconds", "duration -> int", lambda value: _toward_zero(int(value), 10**6) % 1000),
    function("duration", "string -> duration", parse_duration),
    function("duration", "duration -> duration", lambda value: value),
    function("duration", "int -> duration", lambda value: duration(value)),
    function("timestamp", "string -> timestamp", parse_timestamp),
    function("timestamp", "timestamp -> timestamp", lambda value: value),
    function("timestamp", "int -> timestamp", lambda value: timestamp(value * SECOND_NS)),
)
