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

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from fastkube._fields import clone
from fastkube.api import field
from fastkube.api.field import quote
from fastkube.api.strategic import go_text, restore_fault, strategic_merge_patch
from fastkube.errors import ApiError, bad_request, invalid, too_large

__all__ = [
    "Misfit",
    "amend",
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


class Misfit(Exception):
    """An operation does not fit the document; the text says why, in the words of upstream's library."""


_MISSING = "missing value"


class _Document:
    """What is patched, and how much of it was copied."""

    __slots__ = ("copied", "root")

    def __init__(self, root: Any) -> None:
        self.root = root
        self.copied = 0


def json_patch(obj: dict[str, Any], operations: Any) -> Any:
    """RFC 6902; all operations or an error. Indices may be negative, as with upstream's library."""
    try:
        return amend(obj, operations)
    except Misfit:
        raise rejected() from None


def amend(obj: dict[str, Any], operations: Any) -> Any:
    """`json_patch` that says what does not fit: raises Misfit."""
    document = _Document(obj)
    for operation in _checked(operations):
        name = (operation or {}).get("op", "")
        act = _ACTIONS.get(name) if isinstance(name, str) else None
        if act is None:
            raise Misfit(f"Unexpected kind: {name if isinstance(name, str) else 'unknown'}")
        act(document, operation)
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
        raise Misfit(_MISSING)
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _index(items: list[Any], key: str, end: int) -> int:
    """The place that a pointer's part means in a list whose valid indices are below `end`."""
    digits = key[1:] if key[:1] in ("-", "+") else key
    if not (digits.isascii() and digits.isdigit()):
        raise Misfit(f"strconv.Atoi: parsing {quote(key)}: invalid syntax")
    if len(digits) > _INDEX_DIGITS_MAX:
        raise Misfit(f"strconv.Atoi: parsing {quote(key)}: value out of range")
    place = int(key)
    if place < 0:
        place += end
    if not 0 <= place < end:
        raise Misfit(f"Unable to access invalid index: {int(key)}: invalid index referenced")
    return place


_INDEX_DIGITS_MAX = 19


def _get(holder: Any, key: str) -> Any:
    return holder.get(key) if isinstance(holder, dict) else holder[_index(holder, key, len(holder))]


def _holder(root: Any, operation: dict[str, Any], told: str, key: str = "path") -> tuple[Any, str]:
    """The map or list that holds the last part of a path, and that part. `told`: what is wrong where there is none."""
    found: Any = root
    try:
        *parents, last = _pointer(operation, key)
        for part in parents:
            found = _get(found, part)
            if not isinstance(found, (dict, list)):
                raise Misfit(_MISSING)
    except Misfit:
        raise Misfit(f"{told.format(operation.get(key) or '')}: {_MISSING}") from None
    return found, last


def _put(holder: Any, key: str, value: Any) -> None:
    """Add: sets a key of a map, inserts into a list; `-` is the end of the list."""
    if isinstance(holder, dict):
        holder[key] = value
        return
    try:
        place = len(holder) if key == "-" else _index(holder, key, len(holder) + 1)
    except Misfit as problem:
        told = str(problem)
        raise Misfit(f"value was not a proper array index: '{key}': {told}" if "Atoi" in told else told) from None
    holder.insert(place, value)


def _take(holder: Any, key: str) -> Any:
    """Remove, and give what was there."""
    if isinstance(holder, list):
        return holder.pop(_index(holder, key, len(holder)))
    if key not in holder:
        raise Misfit(f"Unable to remove nonexistent key: {key}: {_MISSING}")
    return holder.pop(key)


@contextmanager
def _told(prefix: str) -> Iterator[None]:
    """Says of a misfit in which step it was met."""
    try:
        yield
    except Misfit as problem:
        raise Misfit(f"{prefix}: {problem}") from None


def _add(document: _Document, operation: dict[str, Any]) -> None:
    holder, key = _holder(document.root, operation, 'add operation does not apply: doc is missing path: "{}"')
    with _told(f"error in add for path: '{operation['path']}'"):
        _put(holder, key, clone(operation.get("value")))


def _remove(document: _Document, operation: dict[str, Any]) -> None:
    holder, key = _holder(document.root, operation, 'remove operation does not apply: doc is missing path: "{}"')
    with _told(f"error in remove for path: '{operation['path']}'"):
        _take(holder, key)


def _replace(document: _Document, operation: dict[str, Any]) -> None:
    value = clone(operation.get("value"))
    if operation.get("path") == "":
        if not isinstance(value, (dict, list)):
            raise Misfit("replace operation value must be object or array: %!w(<nil>)")
        document.root = value
        return
    holder, key = _holder(document.root, operation, "replace operation does not apply: doc is missing path: {}")
    try:
        holder[_index(holder, key, len(holder)) if isinstance(holder, list) else key] = value
    except Misfit:
        told = f"replace operation does not apply: doc is missing key: {operation['path']}"
        raise Misfit(f"{told}: {_MISSING}") from None


def _move(document: _Document, operation: dict[str, Any]) -> None:
    told = "move operation does not apply: doc is missing {} path: {{}}"
    holder, key = _holder(document.root, operation, told.format("from"), "from")
    with _told(f"error in move for path: '{key}'"):
        value = _take(holder, key)
    holder, key = _holder(document.root, operation, told.format("destination"))
    with _told(f"error in move for path: '{operation['path']}'"):
        _put(holder, key, value)


def _copy(document: _Document, operation: dict[str, Any]) -> None:
    told = "copy operation does not apply: doc is missing {} path: {{}}"
    holder, key = _holder(document.root, operation, told.format("from"), "from")
    with _told(f"error in copy for from: '{operation['from']}'"):
        value = clone(_get(holder, key))
    holder, key = _holder(document.root, operation, told.format("destination"))
    document.copied += len(orjson.dumps(value))
    if document.copied > _COPIED_MAX_BYTES:
        told = f"Unable to complete the copy, the accumulated size increase of copy is {document.copied}"
        raise Misfit(f"{told}, exceeding the limit {_COPIED_MAX_BYTES}")
    with _told("error while adding value during copy"):
        _put(holder, key, value)


def _test(document: _Document, operation: dict[str, Any]) -> None:
    path = operation.get("path")
    if path == "":
        found = document.root
    else:
        holder, key = _holder(document.root, operation, "test operation does not apply: is missing path: {}")
        with _told(f"error in test for path: '{path}'"):
            found = _get(holder, key)
    if not _same(found, operation.get("value")):
        raise Misfit(f"testing value {path} failed: test failed")


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
