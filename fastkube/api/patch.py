"""JSON patch (RFC 6902), JSON merge patch (RFC 7396) and the errors that all patches share.

Rules:
  1. The object is consumed: it is changed in place and returned. The caller has just decoded it from the store.
  2. The patch is never changed and shares nothing with the result, so a patch that lost a race can be applied again.
  3. Every refusal is an ApiError with upstream's code and words.
  4. Where upstream's library differs from the RFCs, so do these: a key that is absent counts as null (it can be
     replaced and copied), nulls inside a merge patch's lists are dropped from their maps.

The strategic merge patch stands in fastkube.api.strategic and is offered here under its name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from fastkube._fields import clone
from fastkube.api import field
from fastkube.api.strategic import go_text, restore_fault, strategic_merge_patch
from fastkube.errors import ApiError, bad_request, invalid, too_large

__all__ = [
    "clone",
    "go_text",
    "json_patch",
    "json_patch_faults",
    "merge_patch",
    "rejected",
    "restore_fault",
    "strategic_merge_patch",
    "undecodable",
]

_OPERATIONS_MAX = 10_000
_COPIED_MAX_BYTES = 3 * 1024 * 1024
"""What all copies of one patch may come to: each can double what is there."""

BAD_MERGE_PATCH = "Invalid JSON Patch"


def rejected() -> ApiError:
    """A well-formed patch that does not fit the object: a failed test, a path that is not there."""
    return ApiError(422, "Invalid", "the server rejected our request due to an error in our request", details={})


def undecodable(shown: str, problem: str) -> ApiError:
    """What a patch made is no object of its kind. `shown` is the patched object as JSON, or for strategic patches the
    patch as `go_text` prints it; `problem` is the decoder's."""
    return invalid("", "", "", [field.invalid("patch", shown, problem)])


# ---------------------------------------------------------------- JSON merge patch


def merge_patch(obj: dict[str, Any], patch: Any, *, strict: bool = True) -> dict[str, Any]:
    """RFC 7396: maps are merged, null removes, all else replaces. `strict`: fields are validated, and so is the patch
    before it is applied, which tells more of what it is."""
    if patch is None or (not isinstance(patch, dict) and not strict):
        raise bad_request(BAD_MERGE_PATCH)
    if not isinstance(patch, dict):
        problem = f"json: cannot unmarshal {_go_kind(patch)} into Go value of type map[string]interface {{}}"
        raise bad_request(f"error decoding patch: {problem}")
    _merge(obj, patch)
    return obj


def _merge(target: dict[str, Any], patch: dict[str, Any]) -> None:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
            continue
        part = target.get(key)
        if isinstance(part, dict):
            if isinstance(value, dict):
                _merge(part, value)
            else:
                target[key] = clone(value)
        else:
            target[key] = _without_nulls(value)


def _without_nulls(value: Any) -> Any:
    """A copy of the value whose maps have no nulls; those in lists stay."""
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value


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


class _Document:
    """What is patched, and how much of it was copied."""

    __slots__ = ("copied", "root")

    def __init__(self, root: Any) -> None:
        self.root = root
        self.copied = 0


def json_patch(obj: dict[str, Any], operations: Any) -> Any:
    """RFC 6902; all operations or an error. Indices may be negative, as with upstream's library."""
    document = _Document(obj)
    try:
        for operation in _checked(operations):
            act = _ACTIONS.get((operation or {}).get("op", ""))
            if act is None:
                raise _Misfit
            act(document, operation)
    except _Misfit:
        raise rejected() from None
    return document.root


def json_patch_faults(operations: Any) -> list[str]:
    """Fields that no operation has, in the words of strict decoding. Raises 400 for what is no list of operations."""
    told = _misread(operations, "[]handlers.jsonPatchOp", list)
    if told:
        raise bad_request(f"error decoding patch: {told}")
    faults: list[str] = []
    for number, operation in enumerate(operations or ()):
        told = _misread(operation, "handlers.jsonPatchOp", dict)
        for key, value in (operation or {}).items() if not told else ():
            if key in ("op", "path", "from"):
                told = told or _misread(value, "string", str, f"Go struct field jsonPatchOp.{key}")
            elif key != "value":
                faults.append(f'json patch unknown field "[{number}].{key}"')
        if told:
            raise bad_request(f"error decoding patch: {told}")
    return faults


def _misread(value: Any, wanted: str, kind: type, place: str = "Go value") -> str:
    """What Go says of a value that is of another type; "" for a good one."""
    if value is None or isinstance(value, kind):
        return ""
    return f"json: cannot unmarshal {_go_kind(value)} into {place} of type {wanted}"


def _checked(operations: Any) -> list[dict[str, Any]]:
    if told := _misread(operations, "jsonpatch.Patch", list):
        raise bad_request(told)
    found: list[dict[str, Any]] = operations or []
    for operation in found:
        if told := _misread(operation, "jsonpatch.Operation", dict):
            raise bad_request(told)
    if len(found) > _OPERATIONS_MAX:
        told = f"The allowed maximum operations in a JSON patch is {_OPERATIONS_MAX}, got {len(found)}"
        raise too_large(f"Request entity too large: {told}")
    return found


def json_patch_reach(operations: list[dict[str, Any]]) -> dict[str, Any]:
    """The parts of an object that the operations go through or to: {field: parts}, None where a path ends."""
    reach: dict[str, Any] = {}
    for operation in operations:
        for key in ("path", "from"):
            if key not in operation:
                continue
            place = reach
            *parents, last = _pointer(operation, key) or [""]
            for part in parents:
                place[part] = inner = place.get(part) or {}
                place = inner
            place.setdefault(last, None)
    return reach


def _pointer(operation: dict[str, Any], key: str = "path") -> list[str]:
    """The parts of a JSON pointer; what stands before its first slash means nothing."""
    text = operation.get(key)
    if not isinstance(text, str) or "/" not in text:
        raise _Misfit
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _index(items: list[Any], key: str, end: int) -> int:
    """The place that a pointer's part means in a list whose valid indices are below `end`."""
    digits = key[1:] if key[:1] in ("-", "+") else key
    if not (digits.isascii() and digits.isdigit()) or len(digits) > _INDEX_DIGITS_MAX:
        raise _Misfit
    place = int(key)
    if place < 0:
        place += end
    if not 0 <= place < end:
        raise _Misfit
    return place


_INDEX_DIGITS_MAX = 19


def _get(holder: Any, key: str) -> Any:
    return holder.get(key) if isinstance(holder, dict) else holder[_index(holder, key, len(holder))]


def _holder(root: Any, parts: list[str]) -> Any:
    """The map or list that holds the last part of a path."""
    found: Any = root
    for part in parts[:-1]:
        found = _get(found, part)
        if not isinstance(found, (dict, list)):
            raise _Misfit
    return found


def _put(root: Any, parts: list[str], value: Any) -> None:
    """Add: sets a key of a map, inserts into a list; `-` is the end of the list."""
    holder, key = _holder(root, parts), parts[-1]
    if isinstance(holder, dict):
        holder[key] = value
    else:
        holder.insert(len(holder) if key == "-" else _index(holder, key, len(holder) + 1), value)


def _take(root: Any, parts: list[str]) -> Any:
    """Remove, and give what was there."""
    holder, key = _holder(root, parts), parts[-1]
    if isinstance(holder, list):
        return holder.pop(_index(holder, key, len(holder)))
    if key not in holder:
        raise _Misfit
    return holder.pop(key)


def _add(document: _Document, operation: dict[str, Any]) -> None:
    _put(document.root, _pointer(operation), clone(operation.get("value")))


def _remove(document: _Document, operation: dict[str, Any]) -> None:
    _take(document.root, _pointer(operation))


def _replace(document: _Document, operation: dict[str, Any]) -> None:
    value = clone(operation.get("value"))
    if operation.get("path") == "":
        if not isinstance(value, (dict, list)):
            raise _Misfit
        document.root = value
        return
    parts = _pointer(operation)
    holder, key = _holder(document.root, parts), parts[-1]
    holder[_index(holder, key, len(holder)) if isinstance(holder, list) else key] = value


def _move(document: _Document, operation: dict[str, Any]) -> None:
    value = _take(document.root, _pointer(operation, "from"))
    _put(document.root, _pointer(operation), value)


def _copy(document: _Document, operation: dict[str, Any]) -> None:
    source, target = _pointer(operation, "from"), _pointer(operation)
    value = clone(_get(_holder(document.root, source), source[-1]))
    _holder(document.root, target)
    document.copied += len(orjson.dumps(value))
    if document.copied > _COPIED_MAX_BYTES:
        raise _Misfit
    _put(document.root, target, value)


def _test(document: _Document, operation: dict[str, Any]) -> None:
    if operation.get("path") == "":
        found = document.root
    else:
        parts = _pointer(operation)
        found = _get(_holder(document.root, parts), parts[-1])
    if not _same(found, operation.get("value")):
        raise _Misfit


def _same(left: Any, right: Any) -> bool:
    """Equality of JSON texts: true is not 1, nor is 1.0."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return type(left) is type(right) and bool(left == right)


_ACTIONS: dict[str, Callable[[_Document, dict[str, Any]], None]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}
