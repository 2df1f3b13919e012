"""PATCH: one patch body made into a build for `Registry.modify`, which applies it to the latest state.

A patch acts on what a GET of the same path and version would answer (resourceVersion included), and its result is read
as a PUT body would be: unknown fields, wrong types, the name. Only a resourceVersion which the patch itself changes is
a claim about the version it was made from; without one a patch never conflicts, it is applied again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack

from fastkube import errors
from fastkube.api import codec
from fastkube.api import patch as patches
from fastkube.api.schema import Schema, in_go_order
from fastkube.api.strategic import go_text
from fastkube.errors import ApiError
from fastkube.registry import applying, decoding, facets
from fastkube.registry.answers import Stored
from fastkube.registry.strategy import Call, Object
from fastkube.registry.updating import Draft, check_name

if TYPE_CHECKING:
    from fastkube.registry.changes import Change
    from fastkube.registry.facets import Facet
    from fastkube.registry.registry import Registry
    from fastkube.registry.updating import Build
    from fastkube.store import Item

JSON = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

Apply = Callable[[Object], Object]
"""What a patch does to an object (which it may change)."""


async def patch(
    registry: Registry, call: Call, content_type: str, body: bytes, change: Change | None = None
) -> tuple[Stored, bool]:
    """The patched object, and whether it was created (only apply does). Raises 400, 415 and 422 for bad patches.
    `change`: what may be learned from it."""
    kind = content_type.partition(";")[0].strip().lower()
    facet = facets.facet_of(registry, call)
    if kind == APPLY:
        return await applying.apply(registry, call, facet, body, change)
    build = _build(call, facet, _read_patch(call, facet, kind, body))
    return facet.answer(call, await registry.modify(call, build, facet.rules, change)), False


class Patch(NamedTuple):
    """`apply` does it, as often as it is called. `shown` is what a complaint about the result quotes: the patch as
    text, or (None) the patched object, in which `touched` tells of the parts that the patch reaches: {field: parts}.
    """

    apply: Apply
    shown: Callable[[], str] | None
    touched: Callable[[], Any]


def _read_patch(call: Call, facet: Facet, kind: str, body: bytes) -> Patch:
    """It is decoded once, when there is an object to apply it to."""
    if kind not in (JSON, MERGE, STRATEGIC) or (kind == STRATEGIC and call.rtype.custom):
        raise ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type", details={})
    read = cache(partial(_decode, call, kind, body))
    if kind == JSON:
        return Patch(lambda obj: patches.json_patch(obj, read()), None, lambda: patches.json_patch_reach(read()))
    if kind == MERGE:
        strict = call.field_validation != "Ignore"
        return Patch(lambda obj: patches.merge_patch(obj, read(), strict=strict), None, read)
    shape = decoding.schema_of(call.rtype, facet.group, facet.version, facet.kind)
    return Patch(lambda obj: patches.strategic_merge_patch(obj, read(), shape), lambda: go_text(read()), dict)


def _decode(call: Call, kind: str, body: bytes) -> Any:
    """The patch itself; what strict decoding finds in it is kept for `decoding.fit`. Raises 400."""
    strict = call.field_validation != "Ignore"
    try:
        patch, duplicates = codec.decode_patch(body)
    except ValueError as fault:
        if kind == MERGE and not strict:
            raise errors.bad_request(patches.BAD_MERGE_PATCH) from None
        prefix = "error decoding patch: " if strict and kind != STRATEGIC else ""
        raise errors.bad_request(f"{prefix}{fault}") from None
    if kind == STRATEGIC and patch is None:
        return {}
    if kind == JSON and strict:
        duplicates = [f"json patch {told}" for told in duplicates] + patches.json_patch_faults(patch)
    call.faults += duplicates
    return patch


def _build(call: Call, facet: Facet, patch: Patch) -> Build:
    shown = patch.shown
    warned = len(call.warnings)
    schema = decoding.schema_of(call.rtype, facet.group, facet.version, facet.kind)

    def build(old: Object, item: Item) -> Draft:
        del call.warnings[warned:]  # an attempt that came too late has warned of the same things
        patched = patch.apply(facet.body(call, msgpack.unpackb(item.value), item.mod_revision))
        if not isinstance(patched, dict):
            raise errors.bad_request(f"the patch leaves a {type(patched).__name__} of the object")
        try:
            decoding.check_patched_kind(
                call, patched, facet.group, facet.version, facet.kind, ignored=shown is not None
            )
            decoding.fit(call, patched, schema)
        except decoding.Unreadable as problem:
            fault = (patches.restore_fault(schema, patched) if shown else "") or str(problem)
            if shown and fault.startswith("illegal base64"):
                fault = f"error decoding from json: {fault}"
            told = shown() if shown else _as_go_patched(call, facet, item, patch, schema)
            raise patches.undecodable(told, fault) from None
        metadata = patched.setdefault("metadata", {})
        check_name(call, metadata)
        claimed = metadata.pop("resourceVersion", "")
        return facet.accept(call, item, patched, claimed)

    return build


def _as_go_patched(call: Call, facet: Facet, item: Item, patch: Patch, schema: Schema) -> str:
    """The patched object as upstream quotes it: what the patch does not reach in the order of Go's structs, objects
    that it reaches by the alphabet."""
    before = facet.body(call, msgpack.unpackb(item.value), item.mod_revision)
    after = patch.apply(facet.body(call, msgpack.unpackb(item.value), item.mod_revision))
    if call.rtype.custom and facet.take is None:  # upstream has no struct for it: all is in the order of the alphabet
        return json.dumps(after, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
    return json.dumps(_ordered(before, after, patch.touched(), schema), separators=(",", ":"), ensure_ascii=False)


def _ordered(before: Any, after: Any, touched: Any, schema: Schema | None) -> Any:
    if not (isinstance(touched, dict) and isinstance(before, dict) and isinstance(after, dict)):
        return after if touched is None else _sorted(after)  # the patch put it there; a merge patch sorts it
    ordered = {}
    for key in sorted(after):
        inner = schema.field(key) if schema else None
        if key in touched:
            ordered[key] = _ordered(before.get(key), after[key], touched[key], inner)
        else:
            ordered[key] = in_go_order(after[key], inner)
    return ordered


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
