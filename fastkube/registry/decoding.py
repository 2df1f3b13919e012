"""From what a client sent to the object that is stored: apiVersion and kind, schema, field validation, version.

    sent dict → right apiVersion and kind → schema walk (types, unknown fields) → storage version

`fieldValidation` decides about unknown and duplicate fields: Strict refuses them, Warn (the default) tells, Ignore
drops them silently. Wrong types are always refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastkube import errors
from fastkube._schema import describe
from fastkube.api import codec, conversion, field, gojson, schema
from fastkube.api.catalog import api_version, split_api_version

if TYPE_CHECKING:
    from fastkube.api.catalog import ResourceType
    from fastkube.registry.strategy import Call, Object


class Unreadable(Exception):
    """The body does not fit its schema; the text says how, in Go's words."""


def decode(call: Call, obj: Object) -> Object:
    """The object of a request for the resource itself, in its storage version. Raises 400."""
    rtype = call.rtype
    return to_storage(call, read(call, obj, rtype.group, call.version, rtype.kind))


def read(call: Call, obj: Object, group: str, version: str, kind: str) -> Object:
    """The body of a request as an object of this kind: what a subresource takes (Scale, Eviction, Binding)."""
    if call.rtype.custom and kind == call.rtype.kind:
        _check_custom_kind(group, kind, obj)
    obj = _typed(obj, group, version, kind)
    try:
        fit(call, obj, schema_of(call.rtype, group, version, kind))
    except Unreadable as problem:
        raise errors.bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {problem}') from None
    obj.setdefault("metadata", {})
    return obj


def _check_custom_kind(group: str, kind: str, obj: Object) -> None:
    """Upstream reads a custom object whatever its kind is, and lets validation refuse it."""
    given = obj.get("kind")
    if isinstance(given, str) and given and given != kind:
        metadata = obj.get("metadata")
        name = metadata.get("name") or "" if isinstance(metadata, dict) else ""
        raise errors.invalid(group, given, name, [field.invalid("kind", given, f"must be {kind}")])


def schema_of(rtype: ResourceType, group: str, version: str, kind: str) -> schema.Schema:
    """The schema of a custom type hangs on the type itself; all others are in the generated tables."""
    if rtype.custom and kind == rtype.kind:
        custom: schema.Schema = rtype.extra["schemas"][version]
        return custom
    return schema.load(api_version(group, version), kind)


def fit(call: Call, obj: Object, shape: schema.Schema) -> None:
    """Prunes what the schema does not know and normalises the rest, in place. Raises Unreadable."""
    try:
        if shape.embedded:
            _check_custom_metadata(obj)
        faults = schema.walk(shape, obj)
    except ValueError as problem:
        if shape.embedded and isinstance(problem, schema.WrongType) and problem.path[:1] == ["metadata"]:
            del problem.path[0]  # upstream reads the metadata of a custom object by itself
        elif not shape.embedded and isinstance(problem, schema.WrongType):
            problem = schema.parse_fault(shape, obj) or problem
        raise Unreadable(str(problem)) from None
    call.has_empties = schema.met_empty() or call.has_empties
    if shape.complete is not None:
        shape.complete(obj)
    if call.faults:
        faults = call.faults + faults if call.rtype.custom else gojson.in_order(call.faults, faults)
    if faults and call.field_validation != "Ignore":
        if call.field_validation == "Strict":
            raise Unreadable("strict decoding error: " + ", ".join(faults))
        call.warnings += faults


def _check_custom_metadata(obj: Object) -> None:
    metadata = obj.get("metadata")
    if metadata is None:
        obj.pop("metadata", None)
    elif not isinstance(metadata, dict):
        raise schema.WrongType(describe(metadata), "v1.ObjectMeta")


def nullify(call: Call, obj: Object) -> None:
    """Null for the empty lists of a body which are stored so; its sender owns them, so call it when that is noted."""
    if call.has_empties and not call.rtype.custom:
        schema.nullify(schema.load(obj["apiVersion"], obj["kind"]), obj)


def to_storage(call: Call, obj: Object) -> Object:
    """From the version of the request to the one that is stored."""
    stored = call.rtype.storage_api_version
    return obj if obj["apiVersion"] == stored else conversion.convert(call.rtype, obj, stored)


def from_storage(call: Call, obj: Object) -> Object:
    """From the stored version to the one of the request."""
    rtype = call.rtype
    wanted = rtype.api_version(call.version)
    return obj if obj["apiVersion"] == wanted and not rtype.stale else conversion.convert(rtype, obj, wanted)


def check_patched_kind(call: Call, obj: Object, group: str, version: str, kind: str, *, ignored: bool) -> None:
    """What a patch made of apiVersion and kind: a strategic one does not change them (`ignored`), the result of others
    is read by what it says it is. Raises Unreadable, and 422 for a custom object."""
    wanted = api_version(group, version)
    if obj.get("apiVersion") == wanted and obj.get("kind") == kind:
        return
    if call.rtype.custom and kind == call.rtype.kind:
        _check_custom_kind(group, kind, obj)
        _check_custom_version(group, wanted, kind, obj)
    elif ignored:
        for key in ("apiVersion", "kind"):
            if isinstance(value := obj.get(key), int | float):
                what = "bool" if isinstance(value, bool) else "int64" if isinstance(value, int) else "float64"
                raise Unreadable(f"cannot convert {what} to string")
    else:
        if told := codec.type_meta_fault(obj):
            raise Unreadable(told)
        given_version, given_kind = obj.get("apiVersion"), obj.get("kind") or kind
        if not given_version:
            obj.pop("metadata", None)  # upstream takes it for the internal form, whose fields have other names
        elif (given_version, given_kind) != (wanted, kind):
            raise Unreadable(_other_kind(given_version, given_kind, group, kind))
    obj["apiVersion"], obj["kind"] = wanted, kind


def _check_custom_version(group: str, wanted: str, kind: str, obj: Object) -> None:
    given = obj.get("apiVersion")
    if isinstance(given, str) and given and given != wanted:
        metadata = obj.get("metadata")
        name = metadata.get("name") or "" if isinstance(metadata, dict) else ""
        raise errors.invalid(group, kind, name, [field.invalid("apiVersion", given, f"must be {wanted}")])


_SCHEMES = {
    "apiextensions.k8s.io": "pkg/apiserver/apiserver.go:55",
    "apiregistration.k8s.io": "pkg/apiserver/scheme/scheme.go:28",
}
"""Where upstream keeps its types, as its messages name the place."""

_MAIN_SCHEME = "pkg/api/legacyscheme/scheme.go:30"
_PACKAGES = {"": "core", "events.k8s.io": "core", "internal.apiserver.k8s.io": "apiserverinternal"}


def _other_kind(given_version: str, given_kind: str, group: str, kind: str) -> str:
    """Why an object of another kind cannot be read as this one."""
    scheme = _SCHEMES.get(group, _MAIN_SCHEME)
    given_group, version = split_api_version(given_version)
    known = schema.is_known(given_version, given_kind) and _SCHEMES.get(given_group, _MAIN_SCHEME) == scheme
    if not known:
        return f'no kind "{given_kind}" is registered for version "{given_version}" in scheme "{scheme}"'
    package = _PACKAGES.get(group) or group.partition(".")[0]
    return f"converting ({version}.{given_kind}) to ({package}.{kind}): unknown conversion"


def _typed(obj: Object, group: str, version: str, kind: str) -> Object:
    """The body with apiVersion and kind in front: those of the path where it has none; other ones are refused."""
    wanted = api_version(group, version)
    typed: Object = {"apiVersion": wanted, "kind": kind, **obj}
    given_version, given_kind = typed["apiVersion"], typed["kind"]
    if given_version == wanted and given_kind == kind:
        return typed
    other = given_kind and given_kind != kind
    if other or (given_version and given_version != wanted and not schema.is_known(str(given_version), kind)):
        given, shown = str(given_version), str(given_kind)
        problem = _other_kind(given, shown, group, kind)
        told = f'{shown} in version "{split_api_version(given)[1]}" cannot be handled as a {kind}: {problem}'
        raise errors.bad_request(told)
    if given_version and given_version != wanted:
        problem = f"the API version in the data ({given_version}) does not match the expected API version ({wanted})"
        raise errors.bad_request(problem)
    typed["apiVersion"], typed["kind"] = wanted, kind
    return typed
