"""Objects inside of objects (x-kubernetes-embedded-resource): they have an apiVersion, a kind and valid metadata."""

from __future__ import annotations

from typing import Any

from fastkube.api import field, meta, names
from fastkube.api.jsonschema import NOTHING, Check, Fault
from fastkube.errors import Cause

Object = dict[str, Any]


def embedded_faults(schema: Object) -> Check | None:
    """Judges the embedded objects below a value; None if the schema has none."""
    fields = {key: made for key, each in (schema.get("properties") or {}).items() if (made := embedded_faults(each))}
    items, more = schema.get("items"), schema.get("additionalProperties")
    of_item = embedded_faults(items) if isinstance(items, dict) else None
    rest = embedded_faults(more) if isinstance(more, dict) else None
    here = bool(schema.get("x-kubernetes-embedded-resource"))
    if not (here or fields or of_item or rest):
        return None

    def check(value: Any, old: Any) -> list[Fault] | None:
        found: list[Fault] = []
        if isinstance(value, dict):
            if here:
                found += _faults(value)
            for key in sorted(value):
                judge = fields.get(key, rest)
                if judge is not None:
                    found += _put(judge(value[key], NOTHING), "." + key)
        elif isinstance(value, list) and of_item is not None:
            for index, item in enumerate(value):
                found += _put(of_item(item, NOTHING), f"[{index}]")
        return found or None

    return check


def _put(faults: list[Fault] | None, part: str) -> list[Fault]:
    for fault in faults or ():
        fault[0] = part + fault[0]
    return faults or []


def _faults(obj: Object) -> list[Fault]:
    found: list[Fault] = []
    for key in ("apiVersion", "kind"):
        value = obj.get(key)
        if value is None:
            found.append(["." + key, field.required])
        elif not isinstance(value, str):
            found.append(["." + key, _invalid(value, "must be a string")])
        elif not value:
            found.append(["." + key, _invalid(value, "must not be empty")])
    kind = obj.get("kind")
    if isinstance(kind, str) and kind and (told := names.dns1035_label(kind.lower())):
        shown = "may have mixed case, but should otherwise match: " + ",".join(told)
        found.append([".kind", _invalid(kind, shown)])
    api_version = obj.get("apiVersion")
    if isinstance(api_version, str) and api_version.count("/") > 1:
        found.append([".apiVersion", _invalid(api_version, f"unexpected GroupVersion string: {api_version}")])
    return found + _metadata_faults(obj.get("metadata"))


def _metadata_faults(metadata: Any) -> list[Fault]:
    if not isinstance(metadata, dict):
        return []
    named = {**metadata, "name": metadata.get("name") or "fakename"}
    judged = meta.validate_object_meta({"metadata": named}, bool(named.get("namespace")), meta.path_segment)
    return [["." + cause.field, _again(cause)] for cause in judged]


def _again(cause: Cause) -> Any:
    return lambda path: Cause(cause.reason, cause.message, path)


def _invalid(value: Any, told: str) -> Any:
    return lambda path: field.invalid(path, value, told)
