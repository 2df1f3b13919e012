"""Server-side apply: PATCH with a configuration, of which the applier then owns every field that it names.

The merging, the ownership and the conflicts are fastkube.api.apply's; here it meets the store. An apply to a name that
does not exist creates the object; otherwise it is an update like any other, tried again when somebody was faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack

from fastkube import errors
from fastkube.api import apply as merging
from fastkube.api import codec
from fastkube.api.patch import restore_fault
from fastkube.errors import ApiError
from fastkube.registry import decoding, ownership, scale
from fastkube.registry.answers import Stored
from fastkube.registry.strategy import Call, Object
from fastkube.registry.updating import Draft, check_name

if TYPE_CHECKING:
    from fastkube.registry.changes import Change
    from fastkube.registry.facets import Facet
    from fastkube.registry.registry import Registry
    from fastkube.store import Item

_ATTEMPTS_MAX = 8


async def apply(
    registry: Registry, call: Call, facet: Facet, body: bytes, change: Change | None
) -> tuple[Stored, bool]:
    """The object, and whether it was created. Raises 400, 409 for conflicts, 422, 500 for a misfit configuration.
    `change`: what may be learned from it."""
    config, duplicates = _read(call, body)
    call.now = call.now or registry.clock.time()
    key = call.rtype.key(call.namespace, call.name)

    def build(old: Object, item: Item) -> Draft:
        merged = _merge(registry, call, facet, config, _live(call, facet, item), duplicates)
        claimed = merging.metadata_of(config).get("resourceVersion") or str(item.mod_revision)
        return facet.accept(call, item, merged, claimed, applied=True)

    for _ in range(_ATTEMPTS_MAX):
        exists = registry.store.get(key) is not None
        try:
            if exists or call.subresource:
                return facet.answer(call, await registry.modify(call, build, facet.rules, change)), False
            _check_unborn(call, config)
            new = decoding.to_storage(call, _merge(registry, call, facet, config, None, duplicates))
            return await registry.create_decoded(call, new, managed=True), True
        except ApiError as error:
            came_or_went = error.reason == ("NotFound" if exists else "AlreadyExists")
            if not came_or_went or (registry.store.get(key) is not None) == exists:
                raise
    raise errors.conflict(call.rtype.group, call.rtype.resource, call.name, errors.MODIFIED)


def _read(call: Call, body: bytes) -> tuple[Object, list[str]]:
    """The configuration, and what strict decoding complains about."""
    plain = codec.plain_object(body)
    config, duplicates = (plain, []) if plain is not None else _read_yaml(body)
    if not isinstance(config, dict):
        what = {str: "string", bool: "bool", list: "array"}.get(type(config), "number")
        problem = f"json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
        raise errors.bad_request(f"error decoding YAML: error unmarshaling JSON: while decoding JSON: {problem}")
    namespace = merging.metadata_of(config).get("namespace")
    if namespace and call.rtype.namespaced and namespace != call.namespace:
        problem = "the namespace of the provided object does not match the namespace sent on the request"
        raise errors.bad_request(problem)
    return config, duplicates


def _read_yaml(body: bytes) -> tuple[Any, list[str]]:
    from fastkube.api import yaml

    try:
        config, duplicates = yaml.load(body)
    except yaml.YamlError as fault:
        raise errors.bad_request(f"error decoding YAML: {fault}") from None
    return ({} if config is None else config), duplicates


def _check_unborn(call: Call, config: Object) -> None:
    """A configuration that names a uid is about an object that was there already."""
    uid = merging.metadata_of(config).get("uid")
    if uid:
        problem = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        raise errors.conflict(call.rtype.group, call.rtype.resource, call.name, problem)


def _live(call: Call, facet: Facet, item: Item) -> Object:
    """What a GET in the version of the request shows, with who manages it."""
    obj: Object = msgpack.unpackb(item.value)
    return decoding.from_storage(call, obj) if facet.take is None else scale.with_entries(call, obj)


def _merge(
    registry: Registry, call: Call, facet: Facet, config: Object, live: Object | None, duplicates: list[str]
) -> Object:
    """The live object with the configuration applied, fit to its schema."""
    schema = decoding.schema_of(call.rtype, facet.group, facet.version, facet.kind)
    if facet.take is None:
        writer = ownership.writer_of(call, registry.strategy(call.rtype))
    else:
        writer = ownership.scale_writer(call)
    versions = ownership.Versions(call.rtype)
    result = merging.apply(live, config, schema, writer, kind=facet.kind, force=call.force, versions=versions)
    if duplicates and call.field_validation == "Strict":
        told = "\n  ".join(("yaml: unmarshal errors:", *duplicates))
        raise errors.bad_request(f"error strict decoding YAML: error converting YAML to JSON: {told}")
    if call.field_validation == "Warn":
        call.warnings += [each for each in duplicates if each not in call.warnings]
    merged = result.obj
    try:
        decoding.fit(call, merged, schema)
    except decoding.Unreadable as problem:
        if call.rtype.custom or (call.field_validation == "Strict" and str(problem).startswith("strict ")):
            raise ApiError(500, "", str(problem)) from None
        raise merging.unconvertible(config, restore_fault(schema, result.obj) or str(problem)) from None
    metadata = merged.setdefault("metadata", {})
    check_name(call, metadata)
    metadata.pop("resourceVersion", None)
    return merged
