"""Indexes of an indexed Job in text form: `1,3-5,7`, increasing, each below the number of completions."""

from __future__ import annotations

import re

from fastkube.api.field import quote

_is_integer = re.compile(r"[+-]?[0-9]+", re.ASCII).fullmatch


def count(text: str, completions: int) -> int:
    """How many indexes are named. Raises ValueError in upstream's words."""
    total, last = 0, None
    for part in text.split(",") if text else ():
        first, end = _interval(part, completions)
        if last is not None and last >= first:
            raise ValueError(f"non-increasing order, previous: {last}, current: {first}")
        total += end - first + 1
        last = end
    return total


def _interval(text: str, completions: int) -> tuple[int, int]:
    parts = text.split("-")
    if len(parts) > 2:
        rule = "violates the requirement that an index interval can have at most two parts separated by '-'"
        raise ValueError(f"the fragment {quote(text)} {rule}")
    first, *rest = (_index(part, completions) for part in parts)
    if not rest:
        return first, first
    if first >= rest[0]:
        raise ValueError(f"non-increasing order, previous: {first}, current: {rest[0]}")
    return first, rest[0]


def _index(text: str, completions: int) -> int:
    if not _is_integer(text):
        raise ValueError(f"cannot convert string to integer for index: {quote(text)}")
    if int(text) >= completions:
        raise ValueError(f"too large index: {quote(text)}")
    return int(text)


def overlap(some: str, others: str, completions: int) -> int | None:
    """The first index that both name; parts that are no intervals are passed over."""
    left, right = _intervals(some, completions), _intervals(others, completions)
    here = there = 0
    while here < len(left) and there < len(right):
        (first, last), (begin, end) = left[here], right[there]
        if first <= end and begin <= last:
            return max(first, begin)
        if first <= begin:
            here += 1
        else:
            there += 1
    return None


def _intervals(text: str, completions: int) -> list[tuple[int, int]]:
    found = []
    for part in text.split(",") if text else ():
        try:
            found.append(_interval(part, completions))
        except ValueError:
            continue
    return found
