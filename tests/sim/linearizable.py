"""Whether a history of concurrent operations on registers can be put in one order that explains every answer.

The search of Wing and Gong with Lowe's memory of what was tried, as in Knossos and Porcupine: at each point one of the
operations that no finished one precedes is chosen to have happened; a dead end is left, and a set of operations with
the value that they led to is not tried twice. Keys are independent, so each is searched alone.
"""

from __future__ import annotations

from typing import NamedTuple

UNKNOWN = object()


class Operation(NamedTuple):
    """`returned` None: the answer never came, so it happened at any later time or never.

    read        result: the value found, None for nothing
    put         argument: the value
    swap        argument: (expected value, value); result: None if it was done, else (the value found,)
    """

    key: bytes
    kind: str
    argument: object
    result: object
    invoked: float
    returned: float | None


def step(value: object, operation: Operation) -> tuple[bool, object]:
    """(whether the answer fits, the value afterwards)."""
    known = operation.returned is not None
    if operation.kind == "read":
        return not known or operation.result == value, value
    if operation.kind == "put":
        return True, operation.argument
    expected, new = operation.argument  # type: ignore[misc]
    if value == expected:
        return not known or operation.result is None, new
    return not known or operation.result == (value,), value


def explain(history: list[Operation]) -> str:
    """ "" if the history is linearizable, else what is wrong."""
    by_key: dict[bytes, list[Operation]] = {}
    for operation in history:
        by_key.setdefault(operation.key, []).append(operation)
    for key, operations in by_key.items():
        if not _is_linearizable(operations):
            told = "\n".join(str(tuple(one)) for one in sorted(operations, key=lambda one: one.invoked))
            return f"no order explains the operations on {key!r}:\n{told}"
    return ""


def _is_linearizable(operations: list[Operation]) -> bool:
    """Behind are `base` operations that returned, of those that follow the ones in `mask`, and `used` open ones."""
    closed = sorted((one for one in operations if one.returned is not None), key=lambda one: one.invoked)
    # Whatever never returned is taken only where it has an effect: a read that was not answered says nothing.
    opened = [one for one in operations if one.returned is None and one.kind != "read"]
    tried: set[tuple[int, int, int, object]] = set()
    stack: list[tuple[int, int, int, object]] = [(0, 0, 0, None)]
    while stack:
        state = stack.pop()
        if state in tried:
            continue
        tried.add(state)
        base, mask, used, value = state
        if base == len(closed):
            return True
        limit, candidates = _candidates(closed, base, mask)
        for place, one in enumerate(opened):
            if not used >> place & 1 and one.invoked <= limit:
                _, after = step(value, one)
                if after != value:
                    stack.append((base, mask, used | 1 << place, after))
        for place in reversed(candidates):
            fits, after = step(value, closed[place])
            if fits:
                stack.append((*_done(base, mask, place), used, after))
    return False


def _candidates(closed: list[Operation], base: int, mask: int) -> tuple[float, list[int]]:
    """Those that may come next: none of the others returned before they were invoked. And when the first returned."""
    limit, found = float("inf"), []
    for place in range(base, len(closed)):
        one = closed[place]
        if one.invoked > limit:
            break
        if not mask >> (place - base) & 1 and one.returned is not None:
            found.append(place)
            limit = min(limit, one.returned)
    return limit, found


def _done(base: int, mask: int, place: int) -> tuple[int, int]:
    mask |= 1 << (place - base)
    while mask & 1:
        mask >>= 1
        base += 1
    return base, mask
