"""Scalars that have a form of their own inside a JSON string: times, base64, quantities. Each function takes what JSON
held and gives the canonical text; it raises ValueError in the words of the Go packages that upstream decodes them with.
"""

from __future__ import annotations

import binascii
import datetime
import re
from typing import Any

from fastkube._schema import WrongType, describe
from fastkube.api import quantity as quantities

_RFC3339 = "2006-01-02T15:04:05Z07:00"
_MICRO = "2006-01-02T15:04:05.000000Z07:00"
_ZERO = "0001-01-01T00:00:00Z"

_is_canonical_time = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII).fullmatch
_is_canonical_micro = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII).fullmatch

_PARTS = (  # what Go's layout consists of: its name there, its pattern here, and the range it must be in
    ("2006", re.compile(r"\d{4}", re.ASCII), None),
    ("-", re.compile("-"), None),
    ("01", re.compile(r"\d\d", re.ASCII), ("month", 1, 12)),
    ("-", re.compile("-"), None),
    ("02", re.compile(r"\d\d", re.ASCII), ("day", 1, 31)),
    ("T", re.compile("T"), None),
    ("15", re.compile(r"\d\d", re.ASCII), ("hour", 0, 23)),
    (":", re.compile(":"), None),
    ("04", re.compile(r"\d\d", re.ASCII), ("minute", 0, 59)),
    (":", re.compile(":"), None),
    ("05", re.compile(r"\d\d", re.ASCII), ("second", 0, 59)),
)
_FRACTION = ("", re.compile(r"([.,]\d+)?", re.ASCII), None)
_SIX_DIGITS = (".000000", re.compile(r"\.\d{6}(?!\d)", re.ASCII), None)
_ZONE = ("Z07:00", re.compile(r"Z|[+-]\d\d:\d\d", re.ASCII), None)


def time(value: Any) -> str | None:
    """metav1.Time: RFC 3339 in UTC with whole seconds; None for the zero time."""
    text = _text(value)
    if _is_canonical_time(text) and _is_date(text):
        return text if text != _ZERO else None
    moment = _moment(text, _RFC3339, (*_PARTS, _FRACTION, _ZONE))
    return _drop_zero(moment.replace(microsecond=0).strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0"))


def micro_time(value: Any) -> str | None:
    """metav1.MicroTime: RFC 3339 in UTC with exactly six digits of a second; None for the zero time."""
    text = _text(value)
    if _is_canonical_micro(text) and _is_date(text):
        return text if not text.startswith(_ZERO[:-1] + ".000000") else None
    moment = _moment(text, _MICRO, (*_PARTS, _SIX_DIGITS, _ZONE))
    return _drop_zero(moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0"))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise WrongType(describe(value), "string")
    return value


def _drop_zero(text: str) -> str | None:
    return None if text.startswith(_ZERO[:-1]) else text


def _is_date(text: str) -> bool:
    try:
        datetime.datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _quoted(text: str) -> str:
    """As Go's time package quotes what it could not read: bytes outside of printable ASCII in hexadecimal."""
    told = text.replace("\\", "\\\\").replace('"', '\\"')
    plain = (each if " " <= each < "\x7f" else "".join(f"\\x{byte:02x}" for byte in each.encode()) for each in told)
    return f'"{"".join(plain)}"'


def _moment(text: str, layout: str, parts: tuple[tuple[str, re.Pattern[str], Any], ...]) -> datetime.datetime:
    """Read a time as Go's time.Parse does, for the sake of its error messages."""
    rest = text
    for name, pattern, limits in parts:
        match = pattern.match(rest)
        if match is None:
            raise ValueError(
                f"parsing time {_quoted(text)} as {_quoted(layout)}: cannot parse {_quoted(rest)} as {_quoted(name)}"
            )
        if limits and not limits[1] <= int(match.group()) <= limits[2]:
            raise ValueError(f"parsing time {_quoted(text)}: {limits[0]} out of range")
        rest = rest[match.end() :]
    if rest:
        raise ValueError(f"parsing time {_quoted(text)}: extra text: {_quoted(rest)}")
    try:
        return datetime.datetime.fromisoformat(text.replace(",", ".")).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"parsing time {_quoted(text)}: day out of range") from None


def quantity(value: Any) -> str:
    """resource.Quantity: the canonical text of a string or number."""
    if type(value) is str:
        return quantities.canonical(value.strip())
    if type(value) is int:
        return quantities.canonical(str(value))
    if type(value) is float:
        return quantities.canonical(str(int(value)) if value.is_integer() else repr(value))
    raise quantities.QuantityError(quantities.FORMAT_FAULT)


def base64(value: Any) -> str:
    """A []byte: standard base64 with padding; line breaks are taken and dropped."""
    if not isinstance(value, str):
        raise WrongType(describe(value), "[]uint8")
    text = value.replace("\n", "").replace("\r", "") if "\n" in value or "\r" in value else value
    try:
        canonical = binascii.b2a_base64(binascii.a2b_base64(text, strict_mode=True), newline=False).decode()
    except (binascii.Error, ValueError):
        raise ValueError(f"illegal base64 data at input byte {_fault(value)}") from None
    return value if canonical == value else canonical


_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")


def _fault(text: str) -> int:
    """Where Go's decoder gives up on a text that is not base64."""
    in_quantum = 0
    position = 0
    while position < len(text):
        char = text[position]
        if char in _BASE64:
            in_quantum = (in_quantum + 1) % 4
        elif char == "=" and in_quantum >= 2:
            return _padding_fault(text, position + 1, in_quantum)
        elif char not in "\r\n":
            return position
        position += 1
    return len(text) - in_quantum


def _padding_fault(text: str, position: int, in_quantum: int) -> int:
    while position < len(text) and text[position] in "\r\n":
        position += 1
    if in_quantum == 2:
        if position == len(text):
            return position
        if text[position] != "=":
            return position - 1
        position += 1
    while position < len(text) and text[position] in "\r\n":
        position += 1
    return position
