"""The schemas of a definition: structural, with valid defaults, and rules that compile and stay within their cost."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from fastkube.api import field, jsonschema
from fastkube.api import schema as api_schema
from fastkube.api.jsonschema import NOTHING
from fastkube.api.meta import copy_of
from fastkube.cel import cost
from fastkube.errors import Cause
from fastkube.registry.custom import defaults, fieldpaths, rules, structure

Object = dict[str, Any]

_RULE_COST_MAX = 10_000_000
_SCHEMA_COST_MAX = 100_000_000
_REQUEST_MAX = 3 * 1024 * 1024
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_META = frozenset(("metadata", "kind", "apiVersion"))
_REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")

_UNSUPPORTED = (
    ("id", "id is not supported"),
    ("additionalItems", "additionalItems is not supported"),
    ("patternProperties", "patternProperties is not supported"),
    ("definitions", "definitions is not supported"),
    ("dependencies", "dependencies is not supported"),
    ("$ref", "$ref is not supported"),
)

_ROOT_FIELDS = (
    "Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern "
    "MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields "
    "XValidations"
)
_WITH_STATUS = "at the root of the schema if the status subresource is enabled"
_AT_ROOT = frozenset(
    (
        *(name[0].lower() + name[1:] for name in _ROOT_FIELDS.split()),
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    )
)

_has_newlines = re.compile(r"[\n\r]").search


class Before(NamedTuple):
    """What an update need not be stricter about than the definition it replaces: schemas that do not change."""

    schemas: dict[str, Any]

    @classmethod
    def of(cls, old: Object | None) -> Before:
        versions = ((old or {}).get("spec") or {}).get("versions") or ()
        return cls({each.get("name", ""): (each.get("schema") or {}).get("openAPIV3Schema") for each in versions})

    def knows(self, schema: Object, version: str) -> bool:
        return bool(self.schemas) and (
            self.schemas.get(version) == schema if version else all(each == schema for each in self.schemas.values())
        )


def any_default(spec: Object) -> bool:
    return any(
        defaults.has_defaults((each.get("schema") or {}).get("openAPIV3Schema")) for each in spec.get("versions") or ()
    )


def judge(validation: Object | None, path: str, status: bool, before: Before, version: str) -> list[Cause]:
    """The complaints about a version's schema (`validation` is what holds openAPIV3Schema)."""
    schema = (validation or {}).get("openAPIV3Schema")
    if schema is None:
        return []
    path = f"{path}.openAPIV3Schema"
    found = _root_faults(schema, path) if status else []
    if schema.get("nullable"):
        found.append(field.forbidden(f"{path}.nullable", "nullable cannot be true at the root"))
    known = before.knows(schema, version)
    told: list[Cause] = []
    broken = _speaks_of_unsupported(schema)
    if not known and not broken:
        told = structure.judge(schema, path) or default_faults(schema, path, root=True)
    costs = None if told or broken else _Costs()
    judging = _Judging(costs, suppress=known)
    judging.visit(schema, path, _Place(root=True, context=_Context(1) if costs is not None else None))
    found += told + judging.found + judging.rule_faults
    if costs is not None:
        found += costs.faults(path)
    return found


def _speaks_of_unsupported(schema: Any) -> bool:
    """Whether a schema has parts that no structural schema can have, which are complained about by themselves."""
    if isinstance(schema, list):
        return any(map(_speaks_of_unsupported, schema))
    if not isinstance(schema, dict):
        return False
    if any(schema.get(name) for name, _ in _UNSUPPORTED) or isinstance(schema.get("items"), list):
        return True
    if schema.get("x-kubernetes-preserve-unknown-fields") is False:
        return True
    parts = [schema.get(name) for name in ("items", "additionalProperties", "not", "allOf", "anyOf", "oneOf")]
    return any(map(_speaks_of_unsupported, [*parts, *(schema.get("properties") or {}).values()]))


def _root_faults(schema: Object, path: str) -> list[Cause]:
    """With the status subresource the root may hold nothing that would be lost when status is judged alone."""
    for name, value in schema.items():
        if value in (None, False, "", [], {}):
            continue
        if name == "type":
            if value != "object":
                told = f'only "object" is allowed as the type {_WITH_STATUS}'
                return [field.invalid(f"{path}.type", value, told)]
        elif name not in _AT_ROOT:
            told = f"only [{_ROOT_FIELDS}] fields are allowed {_WITH_STATUS}"
            return [field.invalid(path, field.struct(schema), told)]
    return []


# ---------------------------------------------------------------- defaults


def _without_metadata(schema: Any, value: Any) -> Any:
    """A default without the metadata of embedded resources: what is unknown there is dropped, and no fault."""
    if isinstance(value, list) and isinstance(schema, dict):
        return [_without_metadata(schema.get("items"), each) for each in value]
    if not isinstance(value, dict) or not isinstance(schema, dict):
        return value
    properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
    embedded = schema.get("x-kubernetes-embedded-resource")
    return {
        key: _without_metadata(properties.get(key, more), each)
        for key, each in value.items()
        if not (embedded and key == "metadata")
    }


def default_faults(schema: Object, path: str, *, root: bool = False, in_meta: bool = False) -> list[Cause]:
    """Defaults must be what their own schema takes, with nothing in them that would be pruned."""
    found: list[Cause] = []
    if schema.get("default") is not None and not root:
        found += _one_default(schema, f"{path}.default", in_meta)
    embedded = bool(schema.get("x-kubernetes-embedded-resource"))
    if isinstance(schema.get("items"), dict):
        found += default_faults(schema["items"], f"{path}.items")
    for key, each in sorted((schema.get("properties") or {}).items()):
        if root and key in _META:
            continue
        found += default_faults(each, f"{path}.properties[{key}]", in_meta=in_meta or (embedded and key == "metadata"))
    if isinstance(schema.get("additionalProperties"), dict):
        found += default_faults(schema["additionalProperties"], f"{path}.additionalProperties")
    return found


def _one_default(schema: Object, path: str, in_meta: bool) -> list[Cause]:
    value = copy_of(schema["default"])
    if isinstance(value, dict | list):
        shape = api_schema.from_openapi({"type": "object", "properties": {"value": schema}})
        holder = {"value": value}
        try:
            api_schema.walk(shape, holder)
            unknown = api_schema.walk(shape, {"value": _without_metadata(schema, copy_of(schema["default"]))})
        except ValueError as problem:
            return [field.invalid(path, schema["default"], f"must result in valid metadata: {problem}")]
        if unknown and not in_meta:
            return [field.invalid(path, schema["default"], "must not have unknown fields")]
        defaults.complete({"properties": {"value": schema}})(holder)
        value = holder["value"]
    check, lists = jsonschema.compile(schema), jsonschema.list_faults(schema)
    found = jsonschema.causes(check(value, NOTHING), path) if check is not None else []
    found += jsonschema.causes(lists(value, NOTHING), path) if lists is not None else []
    if not found and (compiled := rules.compile_below(schema)):
        found += rules.judge(compiled, value, path=path)
    return found


# ---------------------------------------------------------------- costs


class _Costs:
    """What all rules of a schema may cost together."""

    def __init__(self) -> None:
        self.total = 0
        self.expensive: list[tuple[int, str]] = []

    def observe(self, path: str, amount: int) -> None:
        self.total = min(cost.UNKNOWN, self.total + amount)
        if amount > _RULE_COST_MAX // 10:
            self.expensive.append((amount, path))
            self.expensive = sorted(self.expensive, key=lambda each: -each[0])[:4]

    def faults(self, path: str) -> list[Cause]:
        if self.total <= _SCHEMA_COST_MAX:
            return []
        told = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
        found = [field.forbidden(place, told) for _, place in self.expensive]
        whole = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
        return [*found, field.forbidden(path, _exceeds(whole, self.total, _SCHEMA_COST_MAX))]


def _exceeds(what: str, amount: int, limit: int) -> str:
    factor = amount / limit
    shown = "more than 100x" if factor > 100 else f"{factor:f}x" if factor < 1.5 else f"{factor:.1f}x"
    return (
        f"{what} exceeds budget by factor of {shown} (try simplifying the rule, or adding maxItems, maxProperties, and "
        "maxLength where arrays, maps, and strings are declared)"
    )


class _Context(NamedTuple):
    """How often a schema's values may occur in one object; None where nothing bounds it."""

    cardinality: int | None

    def below(self, most: int | None) -> _Context:
        if self.cardinality is None or most is None:
            return _Context(None)
        return _Context(min(cost.UNKNOWN, self.cardinality * most))


# ---------------------------------------------------------------- every part of a schema


class _Place(NamedTuple):
    """Where in the whole a schema stands. `no_old`: the part above whose values cannot be matched with old ones."""

    root: bool = False
    context: _Context | None = None
    inside_meta: bool = False
    no_defaults: str | None = None
    no_old: str = ""


class _Judging:
    def __init__(self, costs: _Costs | None, *, suppress: bool) -> None:
        self.costs = costs
        self.suppress = suppress
        self.found: list[Cause] = []
        self.rule_faults: list[Cause] = []

    def complain(self, cause: Cause) -> None:
        self.found.append(cause)

    def visit(self, schema: Any, path: str, place: _Place) -> int:
        """Judges a schema and all below it; how many faults of schemas there were."""
        if not isinstance(schema, dict):
            return 0
        start = len(self.found)
        self.plain(schema, path, place)
        self.below(schema, path, place)
        self.extensions(schema, path)
        self.list_keys(schema, path)
        for index, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
            self.rule(schema, rule, f"{path}.x-kubernetes-validations[{index}]")
        faults = len(self.found) - start
        if schema.get("x-kubernetes-validations") and not faults and place.context is not None:
            self.compiled(schema, path, place)
        return faults

    def plain(self, schema: Object, path: str, place: _Place) -> None:
        kind = schema.get("type") or ""
        if kind and kind not in _TYPES:
            self.complain(field.not_supported(f"{path}.type", kind, _TYPES))
        if schema.get("default") is not None and place.no_defaults is not None:
            self.complain(field.forbidden(f"{path}.default", f"must not be set {place.no_defaults}".rstrip()))
        for name, told in _UNSUPPORTED:
            if schema.get(name):
                self.complain(field.forbidden(f"{path}.{name}", told))
        if kind == "null":
            told = "type cannot be set to null, use nullable as an alternative"
            self.complain(field.forbidden(f"{path}.type", told))
        if isinstance(schema.get("items"), list):
            self.complain(field.forbidden(f"{path}.items", "items must be a schema object and not an array"))
        if place.inside_meta and schema.get("x-kubernetes-embedded-resource"):
            told = "must not be used inside of resource meta"
            self.complain(field.forbidden(f"{path}.x-kubernetes-embedded-resource", told))
        if schema.get("uniqueItems"):
            told = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
            self.complain(field.forbidden(f"{path}.uniqueItems", told))

    def below(self, schema: Object, path: str, place: _Place) -> None:
        inner = place._replace(root=False)
        properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
        if more is not None:
            if properties and more is not True:
                told = "additionalProperties and properties are mutual exclusive"
                self.complain(field.forbidden(f"{path}.additionalProperties", told))
            self.visit(more, f"{path}.additionalProperties", self.values_place(schema, inner))
        for key, each in sorted(properties.items()):
            self.visit(each, f"{path}.properties[{key}]", self.property_place(schema, key, path, place))
        nested = inner._replace(context=None)
        if schema.get("not") is not None:
            self.visit(schema["not"], f"{path}.not", nested)
        for junctor in ("allOf", "oneOf", "anyOf"):
            for index, each in enumerate(schema.get(junctor) or ()):
                self.visit(each, f"{path}.{junctor}[{index}]", nested)
        items = schema.get("items")
        if items is not None:
            context = inner.context.below(schema.get("maxItems")) if inner.context is not None else None
            correlates = schema.get("x-kubernetes-list-type") == "map"
            items_place = inner._replace(context=context, no_old=inner.no_old or ("" if correlates else path))
            self.visit(items, f"{path}.items", items_place)

    def values_place(self, schema: Object, place: _Place) -> _Place:
        context = place.context.below(schema.get("maxProperties")) if place.context is not None else None
        why = "inside additionalProperties applying to object metadata" if place.inside_meta else place.no_defaults
        return place._replace(context=context, no_defaults=why)

    def property_place(self, schema: Object, key: str, path: str, place: _Place) -> _Place:
        made = place._replace(root=False)
        if schema.get("x-kubernetes-map-type") not in (None, "granular"):
            made = made._replace(no_old=made.no_old or path)
        if key in _META and (place.root or schema.get("x-kubernetes-embedded-resource")):
            made = made._replace(inside_meta=True)
            if place.root:
                made = made._replace(no_defaults=f"in top-level {key}")
        return made

    def extensions(self, schema: Object, path: str) -> None:
        kind = schema.get("type") or ""
        if schema.get("x-kubernetes-preserve-unknown-fields") is False:
            place = f"{path}.x-kubernetes-preserve-unknown-fields"
            self.complain(field.invalid(place, False, "must be true or undefined"))
        for name, of_type, allowed in (
            ("x-kubernetes-map-type", "object", ("atomic", "granular")),
            ("x-kubernetes-list-type", "array", ("atomic", "set", "map")),
        ):
            value = schema.get(name)
            if value is None:
                continue
            if kind != of_type:
                told = f"must be {of_type} if {name} is specified"
                at = f"{path}.type"
                self.complain(field.invalid(at, kind, told) if kind else field.required(at, told))
            elif value == "set" and isinstance(schema.get("items"), dict):
                self.set_items(schema["items"], path)
            if value not in allowed:
                self.complain(field.not_supported(f"{path}.{name}", value, allowed))

    def set_items(self, items: Object, path: str) -> None:
        told = "must be atomic as item of a list with x-kubernetes-list-type=set"
        list_type = items.get("x-kubernetes-list-type")
        if items.get("type") == "array" and list_type not in (None, "atomic"):
            self.complain(field.invalid(f"{path}.items.x-kubernetes-list-type", list_type, told))
        if items.get("type") == "object" and items.get("x-kubernetes-map-type") != "atomic":
            shown = list_type if list_type is not None else field.struct(None)
            self.complain(field.invalid(f"{path}.items.x-kubernetes-map-type", shown, told))

    def list_keys(self, schema: Object, path: str) -> None:
        keys, list_type = schema.get("x-kubernetes-list-map-keys") or [], schema.get("x-kubernetes-list-type")
        keys_path, items = f"{path}.x-kubernetes-list-map-keys", schema.get("items")
        if keys and list_type != "map":
            told, at = "must be map if x-kubernetes-list-map-keys is non-empty", f"{path}.x-kubernetes-list-type"
            self.complain(field.required(at, told) if list_type is None else field.invalid(at, list_type, told))
        if list_type == "map":
            if not keys:
                self.complain(field.required(keys_path, "must not be empty if x-kubernetes-list-type is map"))
            if items is None:
                told = "must have a schema if x-kubernetes-list-type is map"
                self.complain(field.required(f"{path}.items", told))
            elif isinstance(items, dict) and items.get("type") != "object":
                told = "must be object if parent array's x-kubernetes-list-type is map"
                self.complain(field.invalid(f"{path}.items.type", items.get("type") or "", told))
            elif isinstance(items, dict):
                self.map_keys(items, keys, path, keys_path)
        if isinstance(items, dict) and list_type in ("set", "map"):
            self.key_fields(items, keys if list_type == "map" else [], path, list_type)

    def map_keys(self, items: Object, keys: list[str], path: str, keys_path: str) -> None:
        properties = items.get("properties") or {}
        seen: set[str] = set()
        for key in keys:
            if key not in properties:
                self.complain(field.invalid(keys_path, keys, "entries must all be names of item properties"))
            elif properties[key].get("type") in ("array", "object"):
                told = "must be a scalar type if parent array's x-kubernetes-list-type is map"
                self.complain(field.invalid(f"{path}.items.properties[{key}].type", items.get("type"), told))
            if key in seen:
                self.complain(field.invalid(keys_path, keys, "must not contain duplicate entries"))
            seen.add(key)

    def key_fields(self, items: Object, keys: list[str], path: str, list_type: str) -> None:
        if items.get("nullable"):
            told = f"cannot be nullable when x-kubernetes-list-type is {list_type}"
            self.complain(field.forbidden(f"{path}.items.nullable", told))
        for key in keys:
            found = (items.get("properties") or {}).get(key)
            if found is None:
                continue
            at, told = f"{path}.items.properties[{key}]", "this property is in x-kubernetes-list-map-keys, so it"
            if key not in (items.get("required") or ()) and found.get("default") is None:
                self.complain(field.required(f"{at}.default", f"{told} must have a default or be a required property"))
            if found.get("nullable"):
                self.complain(field.forbidden(f"{at}.nullable", f"{told} cannot be nullable"))

    # ---------------------------------------------------------------- rules

    def rule(self, schema: Object, rule: Object, path: str) -> None:
        text, message = (rule.get("rule") or "").strip(), (rule.get("message") or "").strip()
        if not text:
            self.complain(field.required(f"{path}.rule", "rule is not specified"))
        elif rule.get("message") and not message:
            self.complain(field.invalid(f"{path}.message", rule["message"], "must be non-empty if specified"))
        elif _has_newlines(message):
            self.complain(field.invalid(f"{path}.message", rule["message"], "must not contain line breaks"))
        elif _has_newlines(text) and not message:
            told = "message must be specified if rule contains line breaks"
            self.complain(field.required(f"{path}.message", told))
        if rule.get("messageExpression") and not rule["messageExpression"].strip():
            told = "messageExpression must be non-empty if specified"
            self.complain(field.required(f"{path}.messageExpression", told))
        reason, place = rule.get("reason"), rule.get("fieldPath") or ""
        if reason is not None and reason not in _REASONS:
            self.complain(field.not_supported(f"{path}.reason", reason, _REASONS))
        if not place:
            return
        at = f"{path}.fieldPath"
        if not place.strip():
            self.complain(field.invalid(at, place, "must be non-empty if specified"))
        if _has_newlines(place):
            self.complain(field.invalid(at, place, "must not contain line breaks"))
        try:
            fieldpaths.parse(place, schema)
        except fieldpaths.PathError:
            self.complain(field.invalid(at, place, "must be a valid path"))

    def compiled(self, schema: Object, path: str, place: _Place) -> None:
        """Rules that compile, say what they should, and are not too expensive."""
        found = rules.Rules(schema, place.root, whole=False)
        for index, (rule, told) in enumerate(zip(found.own, schema["x-kubernetes-validations"], strict=True)):
            at = f"{path}.x-kubernetes-validations[{index}]"
            if rule.program is not None:
                self.cost(rule.program.tree, f"{at}.rule", "estimated rule cost", found.min_bytes, place)
            if rule.error:
                self.rule_faults.append(field.invalid(f"{at}.rule", _internal(told), rule.error))
            if rule.message_error:
                shown = field.invalid(f"{at}.messageExpression", _internal(told), rule.message_error)
                self.rule_faults.append(shown)
            elif rule.message_program is not None:
                what, tree = "estimated messageExpression cost", rule.message_program.tree
                self.cost(tree, f"{at}.messageExpression", what, None, place)
            if rule.uses_old and place.no_old:
                why = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {place.no_old}"
                self.rule_faults.append(field.invalid(f"{at}.rule", told.get("rule", ""), why))
            elif not rule.uses_old and told.get("optionalOldSelf") is not None:
                why = "may not be set if oldSelf is not used in rule"
                self.rule_faults.append(field.invalid(f"{at}.optionalOldSelf", told["optionalOldSelf"], why))

    def cost(self, tree: Any, path: str, what: str, min_bytes: int | None, place: _Place) -> None:
        assert self.costs is not None
        assert place.context is not None
        amount = cost.estimate(tree)
        if min_bytes is not None:
            times = place.context.cardinality
            if times is None:
                times = _REQUEST_MAX // (min_bytes + 1)
            amount = min(cost.UNKNOWN, amount * times)
        if amount > _RULE_COST_MAX and not self.suppress:
            self.rule_faults.append(field.forbidden(path, _exceeds(what, amount, _RULE_COST_MAX)))
        self.costs.observe(path, amount)


def _internal(rule: Object) -> field.Literal:
    """A rule as the internal type prints it."""
    return field.struct(
        {
            "Rule": rule.get("rule", ""),
            "Message": rule.get("message", ""),
            "MessageExpression": rule.get("messageExpression", ""),
            "Reason": rule.get("reason"),
            "FieldPath": rule.get("fieldPath", ""),
            "OptionalOldSelf": rule.get("optionalOldSelf"),
        }
    )
