"""Strategic merge patch: a merge patch that knows which lists are sets or maps by key.

The schema says for each list whether it is merged (its patch strategy is `merge`) and by which key of its items; every
other list is replaced whole. Directives in the patch:

    {"$patch": "replace", ...}                  in a map: the rest takes the map's place; as an item: of the list's
    {"$patch": "delete"}                        in a map: empties it; as an item with the merge key: removes that item
    {"$retainKeys": ["a", "b"], "a": ...}       drops all other keys of the live map (unions, strategies)
    {"$setElementOrder/list": [...]}            the order of the merged list; the rest keeps its live order around it
    {"$deleteFromPrimitiveList/list": [...]}    values to remove from a list of scalars

A merged list holds the patch's items in the patch's order; those that only the server has keep their places among them
as well as can be: {live: a b c, patch: c x} gives (a b c x), because c, known to both, comes after a and b.
"""

from __future__ import annotations

import decimal
from collections.abc import Collection
from typing import Any, NamedTuple

from fastkube.api.schema import Schema
from fastkube.errors import ApiError, bad_request

Object = dict[str, Any]

_PATCH = "$patch"
_RETAIN_KEYS = "$retainKeys"
_ORDER = "$setElementOrder"
_DELETE = "$deleteFromPrimitiveList"


class _Place(NamedTuple):
    """How the value under a key is merged; `inner` is the schema of the map itself, or of the list's items."""

    inner: Schema | None
    strategies: Collection[str]
    merge_key: str


_UNKNOWN = _Place(None, (), "")


def strategic_merge_patch(obj: Object, patch: Any, schema: Schema) -> Object:
    """The patched object; `obj` is changed in place, `patch` is not. Raises ApiError: 400 for directives of a wrong
    form, 500 (upstream's choice) for items without merge key and unknown directives."""
    if not isinstance(patch, dict):
        kind = {list: "array", str: "string", bool: "bool"}.get(type(patch), "number")
        raise bad_request(f"json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}")
    return _merge_map(obj, patch, schema)


def _fault(message: str) -> ApiError:
    """Upstream lets these errors fall through as internal ones, without a reason."""
    return ApiError(500, "", message)


def _bad_type(expected: str, value: Any) -> ApiError:
    return _fault(f"expected a {expected}, but received a {go_type(value)}")


def _no_merge_key(item: Object, merge_key: str) -> ApiError:
    return _fault(f"map: {go_text(item)} does not contain declared merge key: {merge_key}")


def _bad_directive(directive: Any, holder: Object) -> ApiError:
    return _fault(f"unknown patch type: {go_text(directive)} in map: {go_text(holder)}")


def _place(schema: Schema | None, key: str) -> _Place:
    found = schema.field(key) if schema is not None else None
    if found is None:
        return _UNKNOWN
    return _Place(found.items if found.type == "array" else found, found.patch_strategies, found.patch_key)


# ---------------------------------------------------------------- maps


def _merge_map(live: Object, patch: Object, schema: Schema | None) -> Object:
    directive = patch.get(_PATCH)
    if _PATCH in patch:
        if directive == "replace":
            return {key: _fresh(value) for key, value in patch.items() if key != _PATCH}
        if directive == "delete":
            return {}
        raise _bad_directive(directive, patch)
    rest = dict(patch)
    if _RETAIN_KEYS in rest:
        _retain_keys(live, rest)
    for key in [key for key in rest if key.startswith(_ORDER)]:
        _merge_ordered(live, rest, key, schema)
    for key, value in rest.items():
        _merge_key(live, key, value, schema)
    return live


def _retain_keys(live: Object, rest: Object) -> None:
    """Drops the live keys that the directive does not name; those of the patch must all be named."""
    kept = rest.pop(_RETAIN_KEYS)
    if not isinstance(kept, list):
        raise bad_request("invalid patch format of retainKeys")
    for key, value in rest.items():
        if value is not None and not key.startswith((_DELETE, _ORDER)) and key not in kept:
            raise bad_request("invalid patch format of retainKeys")
    for key in [key for key in live if key not in kept]:
        del live[key]


def _merge_key(live: Object, key: str, value: Any, schema: Schema | None) -> None:
    """Merges one key of a patch into the live map."""
    deleting = key.startswith(_DELETE)
    if deleting:
        key = _target(key, _DELETE, "invalid patch format of primitive list")
    if value is None:
        live.pop(key, None)
        return
    current: Any = live.get(key)
    if key not in live or type(current) is not type(value):
        if not deleting:
            _set(live, key, value)
    elif isinstance(value, dict):
        place = _place(schema, key)
        live[key] = _fresh(value) if "replace" in place.strategies else _merge_map(current, value, place.inner)
    elif isinstance(value, list):
        place = _place(schema, key)
        if deleting:
            live[key] = _without(current, value)
        elif "merge" in place.strategies:
            live[key] = _merge_list(current, value, place)
        else:
            live[key] = _fresh(value)
    else:
        live[key] = value


def _target(key: str, prefix: str, problem: str) -> str:
    """The list that a directive such as `$setElementOrder/ports` is about."""
    directive, slash, name = key.partition("/")
    if not slash or directive != prefix:
        raise bad_request(problem)
    return name


def _set(live: Object, key: str, value: Any) -> None:
    """A value that takes the place of nothing or of something of another type."""
    if isinstance(value, dict) and _PATCH in value:
        live.pop(key, None)
    else:
        live[key] = _fresh(value)


def _fresh(value: Any) -> Any:
    """A copy of a part of the patch that is new to the object: without nulls and without directives."""
    if isinstance(value, dict):
        return {
            key: _fresh(part)
            for key, part in value.items()
            if part is not None and not _is_directive(key) and not (isinstance(part, dict) and _PATCH in part)
        }
    if isinstance(value, list):
        return [_fresh(part) for part in value if not (isinstance(part, dict) and _PATCH in part)]
    return value


def _is_directive(key: str) -> bool:
    return key in (_PATCH, _RETAIN_KEYS) or key.startswith((_ORDER + "/", _DELETE + "/"))


# ---------------------------------------------------------------- lists


def _without(current: list[Any], gone: list[Any]) -> list[Any]:
    return [item for item in current if item not in gone]


def _merge_list(live: list[Any], patch: list[Any], place: _Place) -> list[Any]:
    """The merged list, in the order that the patch and the live list give it."""
    if not live and not patch:
        return live
    live, patch, merged = _merge_items(live, patch, place)
    return _arranged(merged, patch, live, place.merge_key)


def _merge_items(live: list[Any], patch: list[Any], place: _Place) -> tuple[list[Any], list[Any], list[Any]]:
    """(live items that stay, patch items that are no directives, all merged items)."""
    if not _holds_maps(live, patch):
        return live, patch, list(dict.fromkeys([*live, *patch]))
    key = place.merge_key
    if not key:
        raise _fault("cannot merge lists without merge key for type struct")
    live, patch = _apply_directives(live, patch, key)
    merged = list(live)
    places = {item.get(key): number for number, item in reversed(list(enumerate(merged)))}
    for item in patch:
        name = _name(item, key)
        number = places.get(name)
        if number is None:
            places[name] = len(merged)
            merged.append(_fresh(item))
        else:
            merged[number] = _merge_map(merged[number], item, place.inner)
    return live, patch, merged


def _holds_maps(*lists: list[Any]) -> bool:
    """Whether the items are maps; they must all be of one type, and no lists."""
    kind: type | None = None
    for items in lists:
        for item in items:
            if isinstance(item, list):
                message = "the server rejected our request due to an error in our request"
                raise ApiError(422, "Invalid", message, details={})
            if kind is not None and type(item) is not kind:
                told = " ".join(map(go_text, lists))
                raise _fault(f"list element types are not identical: [{told}]")
            kind = type(item)
    return kind is dict


def _apply_directives(live: list[Any], patch: list[Any], key: str) -> tuple[list[Any], list[Any]]:
    """Takes the items that are directives out of the patch, and what they delete or replace out of the live list."""
    plain: list[Any] = []
    replaced = False
    for item in patch:
        if _PATCH not in item:
            plain.append(item)
            continue
        directive = item[_PATCH]
        if directive == "delete":
            if key not in item:
                raise _no_merge_key(item, key)
            live = [other for other in live if other.get(key) != item[key]]
        elif directive == "replace":
            replaced = True
        elif directive == "merge":
            raise _fault("merging lists cannot yet be specified in the patch")
        else:
            raise _bad_directive(directive, item)
    return ([], plain) if replaced else (live, plain)


def _merge_ordered(live: Object, rest: Object, directive: str, schema: Schema | None) -> None:
    """Merges a list whose order the patch sets, and takes both the list and the directive out of the patch."""
    order = rest.pop(directive)
    if not isinstance(order, list):
        raise _bad_type("[]interface {}", order)
    key = _target(directive, _ORDER, "invalid patch format of setElementOrder list")
    place = _place(schema, key)
    current, changes = live.get(key), rest.pop(key, None)
    for value in (current, changes):
        if value is not None and not isinstance(value, list):
            raise _bad_type("[]interface {}", value)
    if current is None and changes is None:
        return
    _check_order(changes or [], order, place.merge_key)
    before = list(current or ())
    if current is not None and changes is not None and "merge" not in place.strategies:
        merged = _fresh(changes)
    else:
        merged = _merge_items(current or [], changes or [], place)[2]
    live[key] = _arranged(merged, order, before, place.merge_key)


def _check_order(changes: list[Any], order: list[Any], merge_key: str) -> None:
    """The items of the patch must stand in the order list too, in the same sequence."""
    if not order:
        return
    names = iter([_name(item, merge_key) for item in order])
    for item in changes:
        if isinstance(item, dict) and _PATCH in item:
            continue
        name = _name(item, merge_key)
        if not any(other == name for other in names):
            told = f"The order in patch list:\n{go_text(changes)}\n doesn't match {_ORDER} list:\n{go_text(order)}\n"
            raise _fault(told)


def _name(item: Any, merge_key: str) -> Any:
    """What identifies an item: the value of its merge key, or a scalar itself."""
    name = item
    if merge_key:
        if not isinstance(item, dict):
            raise _bad_type("map[string]interface {}", item)
        if merge_key not in item:
            raise _no_merge_key(item, merge_key)
        name = item[merge_key]
    if isinstance(name, (dict, list)):
        raise _bad_type("string", name)
    return name


def _arranged(merged: list[Any], order: list[Any], live: list[Any], merge_key: str) -> list[Any]:
    """The items that `order` names in its sequence, and the others in the live sequence, woven together: one of the
    others goes before the next ordered item only where the live list has it there."""
    rank = {_name(item, merge_key): number for number, item in reversed(list(enumerate(order)))}
    lived = {_name(item, merge_key): number for number, item in reversed(list(enumerate(live)))}
    named = [(_name(item, merge_key), item) for item in merged]
    right = sorted((pair for pair in named if pair[0] in rank), key=lambda pair: rank[pair[0]])
    left = sorted((pair for pair in named if pair[0] not in rank), key=lambda pair: lived.get(pair[0], len(lived)))
    woven: list[Any] = []
    waiting = iter(left)
    other = next(waiting, None)
    for name, item in right:
        while other is not None and name in lived and lived.get(other[0], len(lived)) < lived[name]:
            woven.append(other[1])
            other = next(waiting, None)
        woven.append(item)
    if other is not None:
        woven.append(other[1])
        woven.extend(item for _, item in waiting)
    return woven


# ---------------------------------------------------------------- words for results that are no objects of their kind


def restore_fault(schema: Schema, value: Any) -> str:
    """What Go says when it turns a patched map into a struct and a value does not fit: the first misfit, "" if none.
    A strategic patch goes through this conversion; all other bodies through JSON, whose words are the schema walk's."""
    if value is None or schema.type == "any":
        return ""
    if schema.parse is not None:
        try:
            schema.parse(value)
        except ValueError as error:
            return str(error)
        return ""
    if schema.type == "object":
        if not isinstance(value, dict):
            return f"cannot restore struct from: {_go_kind(value)}"
        known = ((inner, value[key]) for key, inner in schema.fields.items() if key in value)
        return next(filter(None, (restore_fault(inner, part) for inner, part in known)), "")
    if schema.type in ("map", "array"):
        name, kind = ("map", dict) if schema.type == "map" else ("slice", list)
        if not isinstance(value, kind):
            return f"cannot restore {name} from {_go_kind(value)}"
        parts = value.values() if isinstance(value, dict) else value
        return next(filter(None, (restore_fault(schema.items, part) for part in parts)), "") if schema.items else ""
    return _scalar_fault(schema, value)


def _scalar_fault(schema: Schema, value: Any) -> str:
    if schema.int_or_string and isinstance(value, (int, str)):
        return ""
    given = _go_kind(value)
    number = given in ("int64", "float64")
    wanted = _GO_KIND_OF[schema.code]
    if wanted == given or (number and schema.type == "number"):
        return ""
    if number and schema.type == "integer":
        return "" if float(value).is_integer() else f"cannot convert float64 to {schema.go_type}"
    if given == "int64" and schema.type == "string":
        return f"cannot convert int64 to {schema.go_type}"
    return f"unrecognized type: {wanted}"


_GO_KIND_OF = {"s": "string", "b": "bool", "i": "int32", "l": "int64", "d": "float64", "x": "struct"}
"""The kind of the Go type that a scalar of the notation in schema.py stands for."""


_GO_KINDS: dict[type, str] = {dict: "map", list: "slice", bool: "bool", int: "int64", float: "float64", str: "string"}


def _go_kind(value: Any) -> str:
    return _GO_KINDS[type(value)]


# ---------------------------------------------------------------- how Go prints JSON data


def go_text(value: Any) -> str:
    """JSON data as Go's %v prints it: `map[a:1 b:[x y]]`, keys sorted."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{go_text(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(go_text, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _go_float(value)
    return "<nil>" if value is None else str(value)


def _go_float(value: float) -> str:
    """%v of a float: the shortest digits that mean it, with an exponent from a million on."""
    digits = decimal.Decimal(repr(value)).normalize()
    if value == 0 or -4 <= digits.adjusted() < 6:
        return f"{digits:f}"
    mantissa, _, exponent = f"{digits:e}".partition("e")
    return f"{mantissa}e{int(exponent):+03d}"


def go_type(value: Any) -> str:
    """What Go's %T says of JSON data."""
    if isinstance(value, dict):
        return "map[string]interface {}"
    return "[]interface {}" if isinstance(value, list) else _GO_KINDS.get(type(value), "<nil>")
