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
    # Reads that never returned say nothing.
    operations = [one for one in operations if one.returned is not None or one.kind != "read"]
    operations.sort(key=lambda one: one.invoked)
    finished = sum(1 << place for place, one in enumerate(operations) if one.returned is not None)
    tried: set[tuple[int, object]] = set()
    stack: list[tuple[int, object]] = [(0, None)]
    while stack:
        done, value = stack.pop()
        if done & finished == finished:
            return True
        if (done, value) in tried:
            continue
        tried.add((done, value))
        # Whatever was invoked after the first return among those left cannot come next.
        limit = min(
            one.returned for place, one in enumerate(operations) if not done >> place & 1 and one.returned is not None
        )
        for place, one in enumerate(operations):
            if one.invoked > limit:
                break
            if not done >> place & 1:
                fits, after = step(value, one)
                if fits:
                    stack.append((done | 1 << place, after))
    return False
