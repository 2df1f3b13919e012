"""The loops that macros are: over a list's items or a map's keys, with one variable or two."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fastkube.cel.ast import Fold
from fastkube.cel.errors import CostError, EvalError
from fastkube.cel.functions import NO_OVERLOAD

Slots = list[Any]
Code = Callable[[Slots], Any]
Steps = Callable[[Slots], Iterator[None]]


def make(node: Fold, over: Code, places: list[int], test: Code | None, result: Code | None, step: int) -> Code:
    """The code of a macro; `step` is what one turn of its loop costs."""
    steps = _pairs(over, places, step) if len(places) == 2 else _singles(over, places[0], step)
    match node.macro:
        case "all" if test is not None:
            return _deciding(steps, test, ending=False)
        case "exists" if test is not None:
            return _deciding(steps, test, ending=True)
        case "exists_one" if test is not None:
            return _exists_one(steps, test)
        case "filter" if test is not None:
            return _filter(steps, places[0], test)
    assert result is not None
    kept = steps if test is None else _tested(steps, test)
    if node.macro == "transformMap":
        return _keyed(kept, places[0], result)
    if node.macro == "transformMapEntry":
        return _entries(kept, result)
    return lambda slots: [result(slots) for _ in kept(slots)]


def _singles(over: Code, place: int, step: int) -> Steps:
    """One turn for each item of a list or key of a map."""

    def turns(slots: Slots) -> Iterator[None]:
        for item in _items(over(slots)):
            slots[0] -= step
            if slots[0] < 0:
                raise CostError
            slots[place] = item
            yield

    return turns


def _items(values: Any) -> Iterable[Any]:
    if isinstance(values, list | dict):
        return values
    raise EvalError(NO_OVERLOAD)


def _pairs(over: Code, places: list[int], step: int) -> Steps:
    """One turn for each index and item of a list, or key and value of a map."""
    first, second = places

    def turns(slots: Slots) -> Iterator[None]:
        values = _items(over(slots))
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            slots[0] -= step
            if slots[0] < 0:
                raise CostError
            slots[first] = key
            slots[second] = value
            yield

    return turns


def _deciding(steps: Steps, test: Code, ending: bool) -> Code:
    """`all` and `exists`: the first False (True) decides; an error counts only if nothing does."""

    def decide(slots: Slots) -> bool:
        failed: EvalError | None = None
        for _ in steps(slots):
            try:
                found = test(slots)
            except CostError:
                raise
            except EvalError as error:
                failed = failed or error
                continue
            if found is ending:
                return ending  # type: ignore[no-any-return]
            if type(found) is not bool:
                failed = failed or EvalError(NO_OVERLOAD)
        if failed is not None:
            raise failed
        return not ending

    return decide


def _is_true(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise EvalError(NO_OVERLOAD)


def _exists_one(steps: Steps, test: Code) -> Code:
    return lambda slots: sum(_is_true(test(slots)) for _ in steps(slots)) == 1


def _filter(steps: Steps, place: int, test: Code) -> Code:
    return lambda slots: [slots[place] for _ in steps(slots) if _is_true(test(slots))]


def _tested(steps: Steps, test: Code) -> Steps:
    def turns(slots: Slots) -> Iterator[None]:
        for _ in steps(slots):
            if _is_true(test(slots)):
                yield

    return turns


def _keyed(steps: Steps, key: int, result: Code) -> Code:
    def make_map(slots: Slots) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for _ in steps(slots):
            made[slots[key]] = result(slots)
        return made

    return make_map


def _entries(steps: Steps, result: Code) -> Code:
    def make_map(slots: Slots) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for _ in steps(slots):
            for key, value in result(slots).items():
                if key in made:
                    raise EvalError(f"insert failed: key '{key}' already exists")
                made[key] = value
        return made

    return make_map
