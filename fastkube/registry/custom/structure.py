"""Whether a schema is structural: every field has one type, told in one place, outside of allOf, anyOf, oneOf and not.

Source: the Kubernetes documentation, "Specifying a structural schema". Complaints are sorted, as upstream sorts them.
"""

from __future__ import annotations

from typing import Any

from fastkube.api import field, regex
from fastkube.errors import Cause

Object = dict[str, Any]

ROOT, ITEM, FIELD = "at the root", "for specified array items", "for specified object fields"
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]
_JUNCTORS = ("anyOf", "allOf", "oneOf")

_FORBIDDEN_INSIDE = (
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("externalDocs", "must be undefined to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
    ("x-kubernetes-validations", "must be empty to be structural"),
)


def judge(schema: Object, path: str) -> list[Cause]:
    """Everything that keeps a schema from being structural."""
    found = _invariants(schema, ROOT, path) + _completeness(schema, schema, path, path)
    return sorted(found, key=lambda cause: f"{cause.field}: {cause.message}")


def _invariants(schema: Object, level: str, path: str) -> list[Cause]:
    found: list[Cause] = []
    kind, items = schema.get("type") or "", schema.get("items")
    if kind == "array" and items is None:
        found.append(field.required(f"{path}.items", "must be specified"))
    if isinstance(items, dict):
        found += _invariants(items, ITEM, f"{path}.items")
    for key, each in (schema.get("properties") or {}).items():
        found += _invariants(each, FIELD, f"{path}.properties[{key}]")
    more = schema.get("additionalProperties")
    if more is not None:
        if level == ROOT:
            found.append(field.forbidden(f"{path}.additionalProperties", "must not be used at the root"))
        if isinstance(more, dict):
            found += _invariants(more, FIELD, f"{path}.additionalProperties")
    found += _extensions(schema, path)
    found += _value_validation(schema, level, path)
    found += _type_faults(schema, level, path)
    return found + _metadata_faults(schema, level, path)


def _extensions(schema: Object, path: str) -> list[Cause]:
    if not schema.get("x-kubernetes-int-or-string"):
        return []
    told = "must be false if x-kubernetes-int-or-string is true"
    return [
        field.invalid(f"{path}.{name}", True, told)
        for name in ("x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource")
        if schema.get(name)
    ]


def _type_faults(schema: Object, level: str, path: str) -> list[Cause]:
    found: list[Cause] = []
    kind, embedded = schema.get("type") or "", bool(schema.get("x-kubernetes-embedded-resource"))
    preserves = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if embedded and kind != "object":
        told = "must be object if x-kubernetes-embedded-resource is true"
        found.append(field.invalid(f"{path}.type", kind, told) if kind else field.required(f"{path}.type", told))
    elif not kind and not schema.get("x-kubernetes-int-or-string") and not preserves:
        found.append(field.required(f"{path}.type", f"must not be empty {level}"))
    if embedded and schema.get("additionalProperties") is not None:
        told = "must not be used if x-kubernetes-embedded-resource is set"
        found.append(field.forbidden(f"{path}.additionalProperties", told))
    if level == ROOT and kind and kind != "object":
        found.append(field.invalid(f"{path}.type", kind, "must be object at the root"))
    if embedded and not preserves and not schema.get("properties"):
        told = (
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
        )
        found.append(field.required(f"{path}.properties", told))
    return found


def _metadata_faults(schema: Object, level: str, path: str) -> list[Cause]:
    """At the root and in embedded objects apiVersion, kind and metadata are what they always are."""
    found: list[Cause] = []
    whole = level == ROOT or bool(schema.get("x-kubernetes-embedded-resource"))
    properties = schema.get("properties") or {}
    for key in ("kind", "apiVersion"):
        kind = (properties.get(key) or {}).get("type") or ""
        if whole and key in properties and kind != "string":
            found.append(field.invalid(f"{path}.properties[{key}].type", kind, "must be string"))
    if "metadata" not in properties:
        return found
    metadata, place = properties["metadata"], f"{path}.properties[metadata]"
    kind = metadata.get("type") or ""
    if whole and kind != "object":
        found.append(field.invalid(f"{place}.type", kind, "must be object"))
    if level == ROOT:
        allowed = {"type", "properties", "default", "description", "title"}
        named = set(metadata.get("properties") or ())
        more = {key for key, value in metadata.items() if value not in (None, False, [], {})}
        if not named <= {"name", "generateName"} or not more <= allowed - {"description", "title"}:
            told = "must not specify anything other than name and generateName, but metadata is implicitly specified"
            found.append(field.forbidden(place, told))
    return found


def _value_validation(schema: Object, level: str, path: str, skip_any: bool = False) -> list[Cause]:
    found: list[Cause] = []
    plain_any = skip_any or schema.get("anyOf") == _INT_OR_STRING
    every = schema.get("allOf") or []
    first_plain = bool(every) and every[0].get("anyOf") == _INT_OR_STRING
    if not plain_any:
        for index, each in enumerate(schema.get("anyOf") or ()):
            found += _nested(each, level, f"{path}.anyOf[{index}]")
    for index, each in enumerate(every):
        found += _nested(each, level, f"{path}.allOf[{index}]", skip_any=first_plain and index == 0)
    for index, each in enumerate(schema.get("oneOf") or ()):
        found += _nested(each, level, f"{path}.oneOf[{index}]")
    if schema.get("not") is not None:
        found += _nested(schema["not"], level, f"{path}.not")
    if pattern := schema.get("pattern"):
        try:
            regex.compile(pattern)
        except regex.RegexError as problem:
            told = f"must be a valid regular expression, but isn't: {problem}"
            found.append(field.invalid(f"{path}.pattern", pattern, told))
    return found


def _nested(schema: Object, level: str, path: str, *, skip_any: bool = False) -> list[Cause]:
    """What stands below a junctor: value validation and nothing else."""
    found = _value_validation(schema, level, path, skip_any)
    if isinstance(schema.get("items"), dict):
        found += _nested(schema["items"], level, f"{path}.items")
    properties = schema.get("properties") or {}
    for key, each in properties.items():
        found += _nested(each, FIELD, f"{path}.properties[{key}]")
    for name, told in _FORBIDDEN_INSIDE:
        value = schema.get(name)
        if value or (name in ("additionalProperties", "default") and value is not None):
            found.append(field.forbidden(f"{path}.{name}", told))
    if "metadata" in properties:
        place = f"{path}.properties[metadata]"
        found.append(field.forbidden(place, "must not be specified in a nested context"))
    return found


def _completeness(validation: Object, schema: Object | None, schema_path: str, path: str) -> list[Cause]:
    """What a junctor speaks of must be specified outside of it too."""
    if schema is None:
        return [field.required(schema_path, f"because it is defined in {path}")]
    found: list[Cause] = []
    for junctor in _JUNCTORS:
        for index, each in enumerate(validation.get(junctor) or ()):
            found += _nested_completeness(each, schema, schema_path, f"{path}.{junctor}[{index}]")
    if validation.get("not") is not None:
        found += _nested_completeness(validation["not"], schema, schema_path, f"{path}.not")
    return found


def _nested_completeness(validation: Object, schema: Object, schema_path: str, path: str) -> list[Cause]:
    found = _completeness(validation, schema, schema_path, path)
    if isinstance(validation.get("items"), dict):
        items = schema.get("items")
        if isinstance(items, dict):
            found += _nested_completeness(validation["items"], items, f"{schema_path}.items", f"{path}.items")
        else:
            found.append(field.required(f"{schema_path}.items", f"because it is defined in {path}.items"))
    properties = schema.get("properties") or {}
    for key, each in (validation.get("properties") or {}).items():
        part = f".properties[{key}]"
        if key in properties:
            found += _nested_completeness(each, properties[key], schema_path + part, path + part)
        else:
            found.append(field.required(schema_path + part, f"because it is defined in {path}{part}"))
    return found
