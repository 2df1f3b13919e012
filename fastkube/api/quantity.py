"""Resource quantities ("1500m", "1Gi", "2e3"): exact parsing, arithmetic and the text that upstream writes.

Rules:
  1. A quantity is a whole number of nanos (10^-9 units) and the family of suffixes it is written with. Digits finer
     than a nano are rounded up (away from zero), so whoever asks for something gets something. No floats anywhere.
  2. The canonical text has no fraction, the greatest suffix that loses nothing, and a sign only when negative.
  3. Upstream keeps a text that looks canonical as it was written ("+5", "1E3", "1.500" stay); `canonical` does so too,
     so that an object reads the same from both servers.
  4. A binary quantity below 1Ki or with a fraction is written in decimal form.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

_NANO = 9
_UNIT = 10**_NANO
_MILLI = 10**6  # nanos in a milli
_BINARY_MAX = (2**63 - 1) * _UNIT
_EXPONENT_MAX = 255  # the powers of ten that are taken; upstream takes 32 bits of them and overflows
_FAST_DIGITS = 18  # digits that upstream keeps in an int64

_DECIMAL_SUFFIXES = {
    "n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18,
}  # fmt: skip
_BINARY_SUFFIXES = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL_BY_EXPONENT = {exponent: suffix for suffix, exponent in _DECIMAL_SUFFIXES.items()}
_BINARY_BY_POWER = ("", *_BINARY_SUFFIXES)

_split = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([eEinumkKMGTP]*[-+]?[0-9]*)", re.ASCII).fullmatch
_is_integer = re.compile(r"[+-]?[0-9]+", re.ASCII).fullmatch

FORMAT_FAULT = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
NUMBER_FAULT = "unable to parse numeric part of quantity"
SUFFIX_FAULT = "unable to parse quantity's suffix"


class QuantityError(ValueError):
    """The text is no quantity; the message is upstream's."""


class Format(Enum):
    DECIMAL_SI = "DecimalSI"
    BINARY_SI = "BinarySI"
    DECIMAL_EXPONENT = "DecimalExponent"


@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact amount. Compare `nanos`; two quantities are equal when their formats are too."""

    nanos: int
    format: Format = Format.DECIMAL_SI

    def __str__(self) -> str:
        if not self.nanos:
            return "0"
        if self.format is Format.BINARY_SI:
            whole, fraction = divmod(abs(self.nanos), _UNIT)
            if whole >= 1024 and not fraction:
                return _binary_text(whole, self.nanos < 0)
            return _decimal_text(self.nanos, Format.DECIMAL_SI)
        return _decimal_text(self.nanos, self.format)

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos + other.nanos, self.format if self.nanos else other.format)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos - other.nanos, self.format if self.nanos else other.format)

    @property
    def value(self) -> int:
        """Whole units, rounded up away from zero."""
        return _round_up(self.nanos, _UNIT)

    @property
    def milli(self) -> int:
        """Thousandths, rounded up away from zero."""
        return _round_up(self.nanos, _MILLI)


def _round_up(amount: int, unit: int) -> int:
    rounded = -(-abs(amount) // unit)
    return rounded if amount >= 0 else -rounded


def _power_of_ten(exponent: int) -> int:
    return int(10**exponent)  # int(): the type of ** depends on the sign of the exponent


def _binary_text(whole: int, negative: bool) -> str:
    power = 0
    while whole % 1024 == 0 and power < len(_BINARY_BY_POWER) - 1:
        whole //= 1024
        power += 1
    return f"{'-' if negative else ''}{whole}{_BINARY_BY_POWER[power]}"


def _decimal_text(nanos: int, form: Format) -> str:
    mantissa, exponent = nanos, -_NANO
    most = 18 if form is Format.DECIMAL_SI else _EXPONENT_MAX + _NANO
    while mantissa % 1000 == 0 and exponent < most:
        mantissa //= 1000
        exponent += 3
    if form is Format.DECIMAL_SI:
        return f"{mantissa}{_DECIMAL_BY_EXPONENT[exponent]}"
    return f"{mantissa}e{exponent}" if exponent else str(mantissa)


class _Scanned:
    """A text taken apart: the digits, where the point is, the suffix, and whether upstream's int64 path takes it."""

    __slots__ = ("digits", "fast", "format", "negative", "power", "scale")

    def __init__(self, text: str) -> None:
        match = _split(text)
        if not text or match is None:
            raise QuantityError(FORMAT_FAULT)
        sign, whole, fraction, suffix = match.group(1), match.group(2).lstrip("0"), match.group(3) or "", match.group(4)
        self.negative = sign == "-"
        self.digits = (whole or "0") + fraction
        self.power = 0
        self.scale = -len(fraction)
        self.format = Format.DECIMAL_SI
        room = _FAST_DIGITS - len(self.digits)
        if suffix in _DECIMAL_SUFFIXES:
            self.scale += _DECIMAL_SUFFIXES[suffix]
        elif suffix in _BINARY_SUFFIXES:
            self.format = Format.BINARY_SI
            self.power = _BINARY_SUFFIXES[suffix]
            room = -1 if fraction else 14 - len(self.digits) - self.power * 3 // 10
        else:
            self.format = Format.DECIMAL_EXPONENT
            self.scale += _exponent(suffix)
        self.fast = room >= 0 and self.scale >= -_NANO

    def nanos(self) -> int:
        """The amount in nanos, rounded up and capped as upstream does."""
        try:
            number = int(self.digits)
        except ValueError as error:  # Python refuses to convert absurdly many digits
            raise QuantityError(NUMBER_FAULT) from error
        number <<= self.power
        shift = self.scale + _NANO
        amount = number * _power_of_ten(shift) if shift >= 0 else _round_up(number, _power_of_ten(-shift))
        if self.format is Format.BINARY_SI:
            amount = min(amount, _BINARY_MAX)
        return -amount if self.negative else amount

    def looks_canonical(self) -> bool:
        """Upstream's quick test, after which it never rewrites the text."""
        if not self.fast:
            return False
        if self.format is Format.BINARY_SI:
            return int(self.digits) & 7 != 0
        return self.scale % 3 == 0 and not self.digits.endswith("000") and self.digits[0] != "0"


def _exponent(suffix: str) -> int:
    if suffix[0] not in "eE" or not _is_integer(suffix[1:]):
        raise QuantityError(SUFFIX_FAULT)
    if len(suffix) > 10 or abs(int(suffix[1:])) > _EXPONENT_MAX:
        raise QuantityError(SUFFIX_FAULT)
    return int(suffix[1:])


@lru_cache(maxsize=4096)
def parse(text: str) -> Quantity:
    """The exact amount; raises QuantityError."""
    scanned = _Scanned(text)
    amount = scanned.nanos()
    if scanned.format is Format.BINARY_SI and not scanned.fast and 0 < abs(amount) < _UNIT:
        return Quantity(amount, Format.DECIMAL_SI)
    return Quantity(amount, scanned.format)


@lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """The text that upstream answers for a field of type Quantity; raises QuantityError."""
    text = text.strip()
    if text == "0" or _Scanned(text).looks_canonical():
        return text
    return str(parse(text))


@lru_cache(maxsize=4096)
def canonical_milli(text: str) -> str:
    """The text that upstream answers in a resource list (limits, requests, capacity, hard, ...): amounts finer than
    a milli are rounded up to it; raises QuantityError."""
    told = canonical(text)
    amount = parse(told)
    if amount.nanos % _MILLI:
        return str(Quantity(amount.milli * _MILLI, amount.format))
    return told


def milli(text: str) -> int:
    """Thousandths, rounded up away from zero: CPU."""
    return parse(text).milli


def value(text: str) -> int:
    """Whole units, rounded up away from zero: bytes and counts."""
    return parse(text).value


def add(left: str, right: str) -> str:
    """The canonical text of the sum, in the format of `left` unless that is zero."""
    return str(parse(left) + parse(right))


def sub(left: str, right: str) -> str:
    return str(parse(left) - parse(right))


def cmp(left: str, right: str) -> int:
    """-1, 0 or 1."""
    difference = parse(left).nanos - parse(right).nanos
    return (difference > 0) - (difference < 0)
