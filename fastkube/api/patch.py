"""JSON patch (RFC 6902), JSON merge patch (RFC 7396) and the errors that all patches share.

Rules:
  1. The object is consumed: it is changed in place and returned. The caller has just decoded it from the store.
  2. The patch is never changed and shares nothing with the result, so a patch that lost a race can be applied again.
  3. Every refusal is an ApiError with upstream's code and words.

The strategic merge patch stands in fastkube.api.strategic and is offered here under its name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastkube._fields import clone
from fastkube.api import field
from fastkube.api.strategic import go_text, restore_fault, strategic_merge_patch
from fastkube.errors import ApiError, bad_request, invalid, too_large

__all__ = [
    "clone",
    "go_text",
    "json_patch",
    "merge_patch",
    "rejected",
    "restore_fault",
    "strategic_merge_patch",
    "undecodable",
]

_OPERATIONS_MAX = 10_000


def rejected() -> ApiError:
    """A well-formed patch that does not fit the object: a failed test, a path that is not there."""
    return ApiError(422, "Invalid", "the server rejected our request due to an error in our request", details={})


def undecodable(shown: str, problem: str) -> ApiError:
    """What a patch made is no object of its kind. `shown` is the patched object as JSON, or for strategic patches the
    patch as `go_text` prints it; `problem` is the decoder's."""
    return invalid("", "", "", [field.invalid("patch", shown, problem)])


# ---------------------------------------------------------------- JSON merge patch


def merge_patch(obj: dict[str, Any], patch: Any) -> dict[str, Any]:
    """RFC 7396: maps are merged, null removes, all else replaces."""
    if not isinstance(patch, dict):
        problem = f"json: cannot unmarshal {_go_kind(patch)} into Go value of type map[string]interface {{}}"
        raise bad_request(f"error decoding patch: {problem}")
    _merge(obj, patch)
    return obj


def _merge(target: dict[str, Any], patch: dict[str, Any]) -> None:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            part = target.get(key)
            if not isinstance(part, dict):
                part = target[key] = {}
            _merge(part, value)
        else:
            target[key] = clone(value)


def _go_kind(value: Any) -> str:
    """What Go's JSON decoder calls a value that it did not expect."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list):
        return "array"
    if isinstance(value, dict):
        return "object"
    return "number" if value is not None else "null"


# ---------------------------------------------------------------- JSON patch


class _Misfit(Exception):
    """An operation does not fit the document."""


def json_patch(obj: dict[str, Any], operations: Any) -> Any:
    """RFC 6902; all operations or an error. Indices may be negative, as with upstream's library."""
    _check_operations(operations)
    root = {"": obj}
    try:
        for operation in operations:
            act = _ACTIONS.get(operation.get("op", ""))
            if act is None:
                raise _Misfit
            act(root, operation)
    except _Misfit:
        raise rejected() from None
    return root[""]


def _check_operations(operations: Any) -> None:
    if not isinstance(operations, list):
        raise bad_request(f"json: cannot unmarshal {_go_kind(operations)} into Go value of type jsonpatch.Patch")
    for operation in operations:
        if not isinstance(operation, dict):
            kind = _go_kind(operation)
            raise bad_request(f"json: cannot unmarshal {kind} into Go value of type jsonpatch.Operation")
    if len(operations) > _OPERATIONS_MAX:
        told = f"The allowed maximum operations in a JSON patch is {_OPERATIONS_MAX}, got {len(operations)}"
        raise too_large(f"Request entity too large: {told}")


def _pointer(operation: dict[str, Any], key: str = "path") -> list[str]:
    """The parts of a JSON pointer; the first is "", the key of the document in its holder."""
    text = operation.get(key)
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise _Misfit
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")]


def _value(operation: dict[str, Any]) -> Any:
    if "value" not in operation:
        raise _Misfit
    return clone(operation["value"])


def _index(items: list[Any], key: str, end: int) -> int:
    """The place that a pointer's part means in a list whose valid indices are below `end`."""
    try:
        place = int(key)
    except ValueError:
        raise _Misfit from None
    if place < 0:
        place += len(items)
    if not 0 <= place < end:
        raise _Misfit
    return place


def _get(holder: Any, key: str) -> Any:
    if isinstance(holder, dict) and key in holder:
        return holder[key]
    if isinstance(holder, list):
        return holder[_index(holder, key, len(holder))]
    raise _Misfit


def _holder(root: dict[str, Any], parts: list[str]) -> Any:
    """What holds the last part of a path."""
    found: Any = root
    for part in parts[:-1]:
        found = _get(found, part)
    return found


def _put(root: dict[str, Any], parts: list[str], value: Any) -> None:
    """Add: sets a key of a map, inserts into a list; `-` is the end of the list."""
    holder, key = _holder(root, parts), parts[-1]
    if isinstance(holder, dict):
        holder[key] = value
    elif isinstance(holder, list):
        holder.insert(len(holder) if key == "-" else _index(holder, key, len(holder) + 1), value)
    else:
        raise _Misfit


def _take(root: dict[str, Any], parts: list[str]) -> Any:
    """Remove, and give what was there."""
    holder, key = _holder(root, parts), parts[-1]
    found = _get(holder, key)
    if isinstance(holder, list):
        del holder[_index(holder, key, len(holder))]
    else:
        del holder[key]
    return found


def _add(root: dict[str, Any], operation: dict[str, Any]) -> None:
    _put(root, _pointer(operation), _value(operation))


def _remove(root: dict[str, Any], operation: dict[str, Any]) -> None:
    _take(root, _pointer(operation))


def _replace(root: dict[str, Any], operation: dict[str, Any]) -> None:
    parts = _pointer(operation)
    holder, key = _holder(root, parts), parts[-1]
    _get(holder, key)
    holder[_index(holder, key, len(holder)) if isinstance(holder, list) else key] = _value(operation)


def _move(root: dict[str, Any], operation: dict[str, Any]) -> None:
    source, target = _pointer(operation, "from"), _pointer(operation)
    if target[: len(source)] == source and len(target) > len(source):
        raise _Misfit  # into itself
    _put(root, target, _take(root, source))


def _copy(root: dict[str, Any], operation: dict[str, Any]) -> None:
    source = _pointer(operation, "from")
    _put(root, _pointer(operation), clone(_get(_holder(root, source), source[-1])))


def _test(root: dict[str, Any], operation: dict[str, Any]) -> None:
    parts, wanted = _pointer(operation), operation.get("value")
    try:
        found = _get(_holder(root, parts), parts[-1])
    except _Misfit:
        if wanted is None:  # what is absent counts as null
            return
        raise
    if not _same(found, wanted):
        raise _Misfit


def _same(left: Any, right: Any) -> bool:
    """Equality of JSON data: unlike Python's, true is not 1."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


_ACTIONS: dict[str, Callable[[dict[str, Any], dict[str, Any]], None]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}
