"""Values judged by the schemas of custom kinds, as upstream's fork of go-openapi's validator judges them.

    check = compile(schema)
    check(value, old)  →  [[path, complaint], ...], or None if there is nothing to tell

Schemas are compiled to closures once; a check builds paths and texts only where there is something to tell: a
complaint is a function of the path at which it stands, and each level puts its own part in front.

`old` is what stood in the value's place before an update (`NOTHING` on a create, and where list items cannot be
matched). What has not changed is not judged: an object stored under a laxer schema may be updated as long as its
faults are not touched.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fastkube.api import field, regex, string_formats
from fastkube.errors import Cause

NOTHING: Any = object()

Complain = Callable[[str], Cause]
Fault = list[Any]
"""[path below the value, Complain]"""
Check = Callable[[Any, Any], "list[Fault] | None"]
Judge = Callable[[Any], "Complain | None"]
"""One rule about a value of one JSON type."""

_BLOCKING = frozenset(("FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid"))


NOWHERE = "<nil>"
"""How upstream prints the path of a whole object, and of complaints that it tells without a place."""


def causes(faults: list[Fault] | None, base: str = "") -> list[Cause]:
    """The faults of a value, with their paths below `base`; "" is a whole object. Texts name places in the value."""
    return [_placed(make(path.removeprefix(".")), base) for path, make in faults or ()]


def _placed(cause: Cause, base: str) -> Cause:
    if cause.field in ("", NOWHERE):
        return cause._replace(field=base or NOWHERE)
    if not base:
        return cause
    return cause._replace(field=base + cause.field if cause.field.startswith("[") else f"{base}.{cause.field}")


def is_blocking(found: list[Cause]) -> bool:
    """Whether faults of these kinds keep an object's rules from being evaluated."""
    return any(cause.reason in _BLOCKING for cause in found)


# ---------------------------------------------------------------- types


def type_name(value: Any) -> str:
    """JSON's name of a value's type; whole numbers are integers even with a point."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    if isinstance(value, dict):
        return "object"
    return "array" if isinstance(value, list) else "null"


def show_number(value: float) -> str:
    """A float64 as Go's %v prints it."""
    if isinstance(value, int) or value.is_integer():
        whole = int(value)
        if abs(whole) < 10**6 or (abs(whole) < 10**21 and len(str(abs(whole)).rstrip("0")) > 15):
            return str(whole)
    text = repr(float(value))
    if "e" not in text and 1e-4 <= abs(value) < 1e6:
        return text
    mantissa, _, exponent = f"{float(value):e}".partition("e")
    for digits in range(17):
        mantissa, _, exponent = f"{float(value):.{digits}e}".partition("e")
        if float(f"{mantissa}e{exponent}") == value:
            break
    return f"{mantissa}e{exponent}"


def _of_type(wanted: tuple[str, ...], given: str) -> Complain:
    def complain(path: str) -> Cause:
        told = f"{path} in body must be of type {','.join(wanted)}: {field.quote(given)}"
        return field.type_invalid(path, given, told)

    return complain


def _invalid(value: Any, told: str) -> Complain:
    return lambda path: field.invalid(path, value, f"{path} in body {told}")


def _elsewhere(told: Callable[[str], str]) -> Complain:
    """Complaints which upstream tells without a place."""
    return lambda path: field.invalid(NOWHERE, "", told(path))


# ---------------------------------------------------------------- strings and numbers


def _string_judges(schema: dict[str, Any]) -> list[Judge]:
    judges: list[Judge] = []
    longest, shortest, pattern = schema.get("maxLength"), schema.get("minLength"), schema.get("pattern")
    if longest is not None:
        judges.append(lambda value: None if len(value) <= longest else lambda path: field.too_long(path, longest))
    if shortest is not None:
        told = f"should be at least {shortest} chars long"
        judges.append(lambda value: None if len(value) >= shortest else _invalid(value, told))
    if pattern:
        search = regex.compile(pattern).matches
        judges.append(lambda value: None if search(value) else _invalid(value, f"should match '{pattern}'"))
    form = schema.get("format", "")
    if len(judges) > 1:
        judges = [_first(tuple(judges))]
    name = string_formats.normalized(form)
    if name:
        judges.append(lambda value: None if string_formats.is_valid(name, value) else _of_format(form, value))
    return judges


def _first(judges: tuple[Judge, ...]) -> Judge:
    """Of the rules about a text the first that is broken is told."""

    def judge(value: Any) -> Complain | None:
        for each in judges:
            told = each(value)
            if told is not None:
                return told
        return None

    return judge


def _of_format(form: str, value: str) -> Complain:
    def complain(path: str) -> Cause:
        told = f"{path} in body must be of type {form}: {field.quote(value)}"
        return field.type_invalid(path, value, told)

    return complain


_RANGES = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}


def _number_judges(schema: dict[str, Any]) -> list[Judge]:
    judges: list[Judge] = []
    if schema.get("type") == "integer":
        judges.append(_whole_judge(schema.get("format", "")))
    elif schema.get("type") == "number" and schema.get("format") == "float":
        judges.append(_float_judge)
    factor = schema.get("multipleOf")
    if factor is not None:
        told = f"should be a multiple of {show_number(factor)}"
        judges.append(lambda value: None if _is_multiple(value, factor) else _invalid(value, told))
    most, least = schema.get("maximum"), schema.get("minimum")
    if most is not None:
        below = bool(schema.get("exclusiveMaximum"))
        most_told = f"should be less than {'' if below else 'or equal to '}{show_number(most)}"
        judges.append(
            lambda value: None if value < most or (value == most and not below) else _invalid(value, most_told)
        )
    if least is not None:
        above = bool(schema.get("exclusiveMinimum"))
        least_told = f"should be greater than {'' if above else 'or equal to '}{show_number(least)}"
        judges.append(
            lambda value: None if value > least or (value == least and not above) else _invalid(value, least_told)
        )
    return judges


_FLOAT_END = 2.0**128 - 2.0**103
"""From here on a number is rounded to no float32."""


def _float_judge(value: Any) -> Complain | None:
    if -_FLOAT_END < value < _FLOAT_END:
        return None
    return _elsewhere(lambda path: f"Checked value must be of type number with format float in {path}")


def _whole_judge(form: str) -> Judge:
    low, high = _RANGES.get(form, _RANGES["int64"])
    what = f"with format {form}" if form in _RANGES else "(default format)"

    def judge(value: Any) -> Complain | None:
        if (isinstance(value, int) or value.is_integer()) and low <= value <= high:
            return None
        return _elsewhere(lambda path: f"Checked value must be of type integer {what} in {path}")

    return judge


def _is_multiple(value: float, factor: float) -> bool:
    if isinstance(value, int) and isinstance(factor, int):
        return value % factor == 0 if factor else False
    ratio = value / factor
    return math.isfinite(ratio) and abs(ratio - round(ratio)) < 1e-9 * max(1.0, abs(ratio))


# ---------------------------------------------------------------- enumerations


def same(one: Any, other: Any) -> bool:
    """Equality of JSON values: numbers by number, but never with booleans."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and len(one) == len(other)
            and all(key in other and same(each, other[key]) for key, each in one.items())
        )
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def _enum_judge(values: list[Any]) -> Judge:
    texts = frozenset(each for each in values if isinstance(each, str))
    shown = [each if isinstance(each, str) else field.show(each) for each in values]

    def judge(value: Any) -> Complain | None:
        if isinstance(value, str):
            if value in texts:
                return None
        elif any(same(value, each) for each in values):
            return None
        return lambda path: field.not_supported(path, value, shown)

    return judge


# ---------------------------------------------------------------- objects and lists


def _put_before(faults: list[Fault], part: str) -> list[Fault]:
    for fault in faults:
        fault[0] = part + fault[0]
    return faults


def _object_check(schema: dict[str, Any]) -> Check | None:
    properties = {key: made for key, each in (schema.get("properties") or {}).items() if (made := compile(each))}
    more = schema.get("additionalProperties")
    known = schema.get("properties") or {}
    rest = compile(more) if isinstance(more, dict) else None
    closed = more is False
    required: tuple[str, ...] = tuple(schema.get("required") or ())
    fewest, most = schema.get("minProperties"), schema.get("maxProperties")
    if not (properties or rest or closed or required or fewest is not None or most is not None):
        return None

    def check(value: dict[str, Any], old: Any) -> list[Fault] | None:
        counted = _count_fault(len(value), fewest, most, "properties")
        if counted is not None:
            return [["", counted]]
        found: dict[str, list[Fault]] | None = None
        before = old if type(old) is dict else None
        for key, each in value.items():
            judge = properties.get(key)
            if judge is None:
                if key in known:
                    continue
                if closed:
                    found = found or {}
                    found[key] = [["", _forbidden_property(key)]]
                    continue
                judge = rest
                if judge is None:
                    continue
            faults = judge(each, before.get(key, NOTHING) if before is not None else NOTHING)
            if faults:
                found = found or {}
                found[key] = _put_before(faults, "" if closed and key not in known else "." + key)
        missing = [key for key in required if key not in value]
        if found is None and not missing:
            return None
        told = [fault for key in sorted(found or ()) for fault in (found or {})[key]]
        return told + [["." + key, field.required] for key in missing]

    return check


def _forbidden_property(key: str) -> Complain:
    def complain(path: str) -> Cause:
        whole = f"{path}.{key}" if path else key
        return field.invalid(whole, "", f"{path}.{key} in body is a forbidden property")

    return complain


def _count_fault(count: int, fewest: int | None, most: int | None, what: str) -> Complain | None:
    if fewest is not None and count < fewest:
        told = f"should have at least {fewest} {what}"
        return lambda path: field.invalid(path, count, f"{path} in body {told}")
    if most is not None and count > most:
        return lambda path: field.too_many(path, count, most)
    return None


def _list_check(schema: dict[str, Any]) -> Check | None:
    items = schema.get("items")
    of_item = compile(items) if isinstance(items, dict) else None
    fewest, most = schema.get("minItems"), schema.get("maxItems")
    keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
    if schema.get("x-kubernetes-list-type") != "map":
        keys = ()
    if of_item is None and fewest is None and most is None:
        return None

    def check(value: list[Any], old: Any) -> list[Fault] | None:
        found: list[Fault] = []
        if of_item is not None:
            before = _by_keys(old, keys)
            for index, each in enumerate(value):
                faults = of_item(each, before.get(identity(each, keys), NOTHING) if before else NOTHING)
                if faults:
                    found += _put_before(faults, f"[{index}]")
        counted = _count_fault(len(value), fewest, most, "items")
        if counted is not None:
            found.append(["", counted])
        return found or None

    return check


def identity(item: Any, keys: tuple[str, ...]) -> tuple[Any, ...]:
    """What tells an item of a map list from the others."""
    if not isinstance(item, dict):
        return ()
    return tuple((type(found), found) for found in map(item.get, keys) if not isinstance(found, dict | list))


def _by_keys(old: Any, keys: tuple[str, ...]) -> dict[tuple[Any, ...], Any]:
    """The items of an old map list by their keys; nothing for lists whose items cannot be matched."""
    if not keys or not isinstance(old, list):
        return {}
    return {identity(item, keys): item for item in old}


# ---------------------------------------------------------------- junctors


def _junctor_checks(schema: dict[str, Any]) -> list[Check]:
    checks: list[Check] = []
    if every := schema.get("allOf"):
        checks.append(_all_of([_nested(each) for each in every]))
    if some := schema.get("anyOf"):
        checks.append(_any_of([_nested(each) for each in some]))
    if one := schema.get("oneOf"):
        checks.append(_one_of([_nested(each) for each in one]))
    if schema.get("not") is not None:
        checks.append(_not(_nested(schema["not"])))
    return checks


def _nested(schema: dict[str, Any]) -> Check:
    return compile(schema) or (lambda value, old: None)


def _any_of(alternatives: list[Check]) -> Check:
    def check(value: Any, old: Any) -> list[Fault] | None:
        best: list[Fault] | None = None
        for alternative in alternatives:
            faults = alternative(value, NOTHING)
            if not faults:
                return None
            best = best or faults
        told = _elsewhere(lambda path: f"{field.quote(path)} must validate at least one schema (anyOf)")
        return [["", told], *(best or ())]

    return check


def _one_of(alternatives: list[Check]) -> Check:
    def check(value: Any, old: Any) -> list[Fault] | None:
        best: list[Fault] | None = None
        valid = 0
        for alternative in alternatives:
            faults = alternative(value, NOTHING)
            if not faults:
                valid += 1
            elif not valid:
                best = best or faults
        if valid == 1:
            return None
        how = f"Found {valid} valid alternatives" if valid else "Found none valid"
        told = _elsewhere(lambda path: f"{field.quote(path)} must validate one and only one schema (oneOf). {how}")
        return [["", told], *((best or ()) if not valid else ())]

    return check


def _all_of(parts: list[Check]) -> Check:
    def check(value: Any, old: Any) -> list[Fault] | None:
        found: list[Fault] = []
        valid = 0
        for part in parts:
            faults = part(value, old)
            if faults:
                found += faults
            else:
                valid += 1
        if valid == len(parts):
            return None
        how = "" if valid else ". None validated"
        found.append(["", _elsewhere(lambda path: f"{field.quote(path)} must validate all the schemas (allOf){how}")])
        return found

    return check


def _not(part: Check) -> Check:
    def check(value: Any, old: Any) -> list[Fault] | None:
        if part(value, NOTHING):
            return None
        return [["", _elsewhere(lambda path: f"{field.quote(path)} must not validate the schema (not)")]]

    return check


# ---------------------------------------------------------------- whole schemas


def _types(schema: dict[str, Any]) -> tuple[str, ...]:
    if schema.get("x-kubernetes-int-or-string"):
        return ("integer", "string")
    return (schema["type"],) if schema.get("type") else ()


def _fits(wanted: tuple[str, ...], given: str) -> bool:
    return given in wanted or (given == "integer" and "number" in wanted)


def compile(schema: dict[str, Any]) -> Check | None:
    """The check of a schema; None if everything passes."""
    wanted = _types(schema)
    nullable = bool(schema.get("nullable"))
    strings, numbers = tuple(_string_judges(schema)), tuple(_number_judges(schema))
    junctors = tuple(_junctor_checks(schema))
    of_object, of_list = _object_check(schema), _list_check(schema)
    choice = _enum_judge(schema["enum"]) if schema.get("enum") else None
    if not (wanted or strings or numbers or junctors or of_object or of_list or choice):
        return None
    judges: dict[type, tuple[Judge, ...]] = {str: strings, int: numbers, float: numbers}
    expected = frozenset(kind for name in wanted for kind in _PYTHON.get(name, ()))

    def check(value: Any, old: Any) -> list[Fault] | None:
        if old is not NOTHING and same(value, old):
            return None
        kind = type(value)
        found: list[Fault] = []
        if wanted and kind not in expected:
            given = type_name(value)
            if value is None:
                if not nullable:
                    found.append(["", _of_type(wanted, given)])
            elif not _fits(wanted, given):
                found.append(["", _of_type(wanted, given)])
        if value is not None:
            for junctor in junctors:
                found += junctor(value, old) or ()
            for judge in judges.get(kind, ()):
                told = judge(value)
                if told is not None:
                    found.append(["", told])
            if kind is list and of_list is not None:
                found += of_list(value, old) or ()
        if choice is not None and (told := choice(value)) is not None and not (value is None and nullable):
            found.append(["", told])
        if kind is dict and of_object is not None:
            found += of_object(value, old) or ()
        return found or None

    if not (junctors or choice or of_list) and wanted == ("object",):
        return _plain_object(of_object, nullable)
    if not (junctors or choice or strings) and wanted == ("string",):
        return _plain_string(nullable)
    return check


_PYTHON: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "object": (dict,),
    "array": (list,),
}


def _plain_object(of_object: Check | None, nullable: bool) -> Check:
    """The common case, without detours: an object with nothing but fields."""

    def check(value: Any, old: Any) -> list[Fault] | None:
        if old is not NOTHING and same(value, old):
            return None
        if type(value) is dict:
            return of_object(value, old) if of_object is not None else None
        if value is None and nullable:
            return None
        return [["", _of_type(("object",), type_name(value))]]

    return check


def _plain_string(nullable: bool) -> Check:
    def check(value: Any, old: Any) -> list[Fault] | None:
        if type(value) is str or (value is None and nullable) or (old is not NOTHING and same(value, old)):
            return None
        return [["", _of_type(("string",), type_name(value))]]

    return check


# ---------------------------------------------------------------- list types


def list_faults(schema: dict[str, Any]) -> Check | None:
    """Tells of items that are there twice in sets and map lists; None if the schema has no such lists."""
    items = schema.get("items")
    of_item = list_faults(items) if isinstance(items, dict) else None
    kind = schema.get("x-kubernetes-list-type")
    keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
    fields = {key: made for key, each in (schema.get("properties") or {}).items() if (made := list_faults(each))}
    more = schema.get("additionalProperties")
    rest = list_faults(more) if isinstance(more, dict) else None
    if not (of_item or fields or rest or kind in ("set", "map")):
        return None

    def check(value: Any, old: Any) -> list[Fault] | None:
        found: list[Fault] = []
        if isinstance(value, list):
            if kind == "set":
                found += _set_faults(value)
            elif kind == "map":
                found += _map_faults(value, keys)
            for index, each in enumerate(value) if of_item is not None else ():
                found += _put_before(of_item(each, NOTHING) or [], f"[{index}]")  # type: ignore[misc]
        elif isinstance(value, dict):
            for key in sorted(value) if rest is not None else fields:
                judge = fields.get(key, rest)
                if key in value and judge is not None:
                    found += _put_before(judge(value[key], NOTHING) or [], f".{key}" if key in fields else f"[{key}]")
        return found or None

    return check


def _duplicate(index: int, shown: Any) -> Fault:
    return [f"[{index}]", lambda path: field.duplicate(path, shown)]


def _set_faults(values: list[Any]) -> list[Fault]:
    found: list[Fault] = []
    seen: list[Any] = []
    told: list[Any] = []
    texts: set[str] = set()
    for index, value in enumerate(values):
        again = value in texts if isinstance(value, str) else any(same(value, each) for each in seen)
        if again:
            if not any(same(value, each) for each in told):
                told.append(value)
                found.append(_duplicate(index, value))
        elif isinstance(value, str):
            texts.add(value)
        else:
            seen.append(value)
    return found


def _map_faults(values: list[Any], keys: tuple[str, ...]) -> list[Fault]:
    found: list[Fault] = []
    seen: set[Any] = set()
    told: set[Any] = set()
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            continue
        name = repr([(key, value.get(key)) for key in keys if key in value])
        if name in seen and name not in told:
            told.add(name)
            found.append(_duplicate(index, {key: value[key] for key in keys if key in value}))
        seen.add(name)
    return found
