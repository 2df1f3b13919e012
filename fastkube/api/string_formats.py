"""The formats of strings that schemas of custom kinds name, checked as go-openapi's strfmt does.

A format is known by its name without dashes (`date-time` is `datetime`); unknown ones mean nothing.
"""

from __future__ import annotations

import binascii
import ipaddress
import re
from collections.abc import Callable
from datetime import date, datetime
from urllib.parse import urlsplit

from fastkube.api import names


def normalized(name: str) -> str:
    """The name a format is known by; "" if it is none that is checked."""
    plain = name.replace("-", "")
    if plain in _CHECKS:
        return plain
    return name if name in _CHECKS else ""


def is_valid(name: str, text: str) -> bool:
    """Whether a text is of a format (by its normalized name)."""
    return _CHECKS[name](text)


def _full(pattern: str, flags: int = re.ASCII) -> Callable[[str], bool]:
    compiled = re.compile(pattern, flags)
    return lambda text: compiled.fullmatch(text) is not None


def _is_uri(text: str) -> bool:
    if not text or re.search(r"[\x00-\x20\x7f]|%(?![0-9A-Fa-f]{2})", text):
        return False
    if not text.startswith("/") and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text):
        return False
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return not parts.scheme or bool(parts.netloc) or parts.path.startswith("/")


_is_address = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~\u0080-\uffff-]+@(\[[^\]\s]+\]|[^\s@<>()\[\]\\,;:\"]+)"
).fullmatch


def _is_email(text: str) -> bool:
    """An address as Go's mail.ParseAddress takes it, with or without a name before it."""
    match = re.fullmatch(r"\s*(?:\"[^\"]*\"|[^<>\",@]*)\s*<([^<>]+)>\s*", text)
    address = match.group(1) if match else text
    local = address.partition("@")[0]
    return bool(_is_address(address)) and ".." not in local and local[:1] != "." and local[-1:] != "."


_is_domain_label = re.compile(
    r"[a-zA-Z0-9\u0080-\U0010ffff]([a-zA-Z0-9\u0080-\U0010ffff_-]*[a-zA-Z0-9\u0080-\U0010ffff])?"
).fullmatch


def _is_hostname(text: str) -> bool:
    whole = text.removesuffix(".")
    return 0 < len(text) <= 255 and all(len(label) <= 63 and _is_domain_label(label) for label in whole.split("."))


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text


def _is_cidr(text: str) -> bool:
    address, slash, bits = text.partition("/")
    if not slash or not bits.isdecimal():
        return False
    return (_is_ipv4(address) and int(bits) <= 32) or (_is_ipv6(address) and int(bits) <= 128)


def _is_byte(text: str) -> bool:
    try:
        binascii.a2b_base64(text.replace("\n", "").replace("\r", ""), strict_mode=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII) is not None


_split_moment = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?([Zz]|[+-]\d\d:?\d\d)?", re.ASCII
).fullmatch


def _is_datetime(text: str) -> bool:
    match = _split_moment(text)
    if match is None:
        return False
    if not text[10].isspace() and match.group(6) is None and match.group(4) is None:
        return False
    try:
        hour, minute, second = int(match.group(2)), int(match.group(3)), int(match.group(4) or 0)
        datetime.fromisoformat(match.group(1)).replace(hour=hour, minute=minute, second=second)
    except ValueError:
        return False
    return True


_UNITS = (
    "ns|nano|nanosecond|us|µs|micro|microsecond|ms|milli|millisecond|s|sec|second|m|min|minute|h|hr|hour|d|day|w|wk|"
    "week"
)
_is_spelled_duration = _full(rf"(?:[0-9]+ *(?:{_UNITS})s?)", re.ASCII)
_is_go_duration = _full(r"[-+]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+|[-+]?0", re.ASCII)


def _is_duration(text: str) -> bool:
    return _is_go_duration(text) or _is_spelled_duration(text)


def _is_isbn10(text: str) -> bool:
    digits = text.replace("-", "").replace(" ", "")
    if not re.fullmatch(r"[0-9]{9}[0-9X]", digits, re.ASCII):
        return False
    return sum((index + 1) * (10 if char == "X" else int(char)) for index, char in enumerate(digits)) % 11 == 0


def _is_isbn13(text: str) -> bool:
    digits = text.replace("-", "").replace(" ", "")
    if not re.fullmatch(r"[0-9]{13}", digits, re.ASCII):
        return False
    return sum((1, 3)[index % 2] * int(char) for index, char in enumerate(digits)) % 10 == 0


_CARD = (
    r"(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])"
    r"[0-9]{11}|(?:2131|1800|35\d{3})\d{11}|6[27][0-9]{14})"
)


def _is_credit_card(text: str) -> bool:
    digits = re.sub(r"[^0-9]", "", text)
    if not re.fullmatch(_CARD, digits):
        return False
    doubled = [int(char) * (1 + index % 2) for index, char in enumerate(reversed(digits))]
    return sum(each - 9 if each > 9 else each for each in doubled) % 10 == 0


_BYTE_RANGE = r"(?:[01]?[0-9]{1,2}|2[0-4][0-9]|25[0-5])"
_UUID = "[0-9a-f]{8}-?[0-9a-f]{4}-?%s[0-9a-f]{3}-?%s[0-9a-f]{3}-?[0-9a-f]{12}"

_CHECKS: dict[str, Callable[[str], bool]] = {
    "bsonobjectid": _full(r"[0-9a-fA-F]{24}"),
    "uri": _is_uri,
    "email": _is_email,
    "hostname": _is_hostname,
    "ipv4": _is_ipv4,
    "ipv6": _is_ipv6,
    "cidr": _is_cidr,
    "mac": _full(
        r"(?:[0-9a-fA-F]{2}([:-])(?:[0-9a-fA-F]{2}\1){4}(?:[0-9a-fA-F]{2}\1[0-9a-fA-F]{2}\1)?[0-9a-fA-F]{2}|(?:[0-9a-fA-F]{4}\.){2,3}[0-9a-fA-F]{4})"
    ),
    "uuid": _full(_UUID % ("[0-9a-f]", "[0-9a-f]"), re.I),
    "uuid3": _full(_UUID % ("3", "[0-9a-f]"), re.I),
    "uuid4": _full(_UUID % ("4", "[89ab]"), re.I),
    "uuid5": _full(_UUID % ("5", "[89ab]"), re.I),
    "isbn": lambda text: _is_isbn10(text) or _is_isbn13(text),
    "isbn10": _is_isbn10,
    "isbn13": _is_isbn13,
    "creditcard": _is_credit_card,
    "ssn": _full(r"\d{3}[- ]?\d{2}[- ]?\d{4}"),
    "hexcolor": _full(r"#?(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6})"),
    "rgbcolor": _full(rf"rgb\(\s*{_BYTE_RANGE}\s*,\s*{_BYTE_RANGE}\s*,\s*{_BYTE_RANGE}\s*\)"),
    "byte": _is_byte,
    "password": lambda text: True,
    "date": _is_date,
    "duration": _is_duration,
    "datetime": _is_datetime,
    "k8s-short-name": lambda text: not names.dns1123_label(text),
    "k8s-long-name": lambda text: not names.dns1123_subdomain(text),
}
