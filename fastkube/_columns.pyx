"""Columns of node state: arrays with a value for each slot, and masks, ints with a bit for each.

What the scheduler's cores (fastkube/_sched.pyx, fastkube/_scores.pyx) and its plugins do with whole columns at a time.
"""

from __future__ import annotations

from array import array

import cython

COMPILED: bool = cython.compiled

CODES_MAX = 254


def zeros(typecode: str, length: int) -> array:
    return array(typecode, bytes(array(typecode).itemsize * length))


def grown(old: object, typecode: str, length: int, fill: int) -> array:
    """A longer copy; memoryviews cannot be resized in place."""
    new = array(typecode, memoryview(old).tolist())  # type: ignore[arg-type]
    new.extend(array(typecode, [fill]) * (length - len(new)))
    return new


def widened(
    old: cython.longlong[::1],
    old_capacity: cython.Py_ssize_t,
    old_width: cython.Py_ssize_t,
    capacity: cython.Py_ssize_t,
    width: cython.Py_ssize_t,
) -> array:
    """A copy with room for more nodes and columns, each value at its column and node."""
    column: cython.Py_ssize_t
    node: cython.Py_ssize_t
    new = zeros("q", capacity * width)
    view: cython.longlong[::1] = new
    for column in range(old_width):
        for node in range(old_capacity):
            view[column * capacity + node] = old[column * old_capacity + node]
    return new


def mark(codes: cython.uchar[::1], mask: int, code: int) -> None:
    """Put `code` at the slots of a mask where there is 0."""
    slot: cython.Py_ssize_t
    value: cython.uchar = code
    if not 0 < code <= CODES_MAX:
        raise ValueError(f"a code is from 1 to {CODES_MAX}, not {code}")
    if mask < 0 or mask >> len(codes):
        raise ValueError("the mask names nodes that do not exist")
    bits: bytes = mask.to_bytes((len(codes) + 7) // 8, "little")
    for slot in range(len(codes)):
        if codes[slot] == 0 and bits[slot >> 3] >> (slot & 7) & 1:
            codes[slot] = value


def expand(mask: int, length: int) -> array:
    """A mask as a byte for each of `length` slots."""
    out = zeros("B", length)
    mark(out, mask, 1)
    return out


def add_where(values: cython.longlong[::1], mask: int, amount: cython.longlong) -> None:
    """Add `amount` to the values of the slots in a mask."""
    slot: cython.Py_ssize_t
    length: int = mask.bit_length()
    if mask < 0 or length > len(values):
        raise ValueError("the mask names nodes that do not exist")
    bits: bytes = mask.to_bytes((length + 7) // 8, "little")
    for slot in range(len(bits) * 8):
        if bits[slot >> 3] >> (slot & 7) & 1:
            values[slot] += amount


def among(verdicts: cython.uint[::1], wanted: list[int], slots: array) -> array:
    """Of the slots (a byte for each) those whose verdict is one of the wanted ones; `slots` is changed."""
    view: cython.uchar[::1] = slots
    slot: cython.Py_ssize_t
    last: cython.uint = 0
    found: cython.uchar = 0 in wanted
    if len(view) != len(verdicts):
        raise ValueError("there must be a byte for each verdict")
    for slot in range(len(view)):
        if view[slot]:
            if verdicts[slot] != last:
                last = verdicts[slot]
                found = last in wanted
            view[slot] = found
    return slots


def marked(slots: cython.uchar[::1]) -> int:
    """How many slots have a byte of 1; there are no others but 0."""
    k: cython.Py_ssize_t
    total: cython.Py_ssize_t = 0
    for k in range(len(slots)):
        total += slots[k]
    return total


def lowest(values: cython.longlong[::1]) -> int:
    """The least of the values, at most 0."""
    k: cython.Py_ssize_t
    least: cython.longlong = 0
    for k in range(len(values)):
        if values[k] < least:
            least = values[k]
    return least
