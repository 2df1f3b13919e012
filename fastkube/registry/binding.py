"""Binding a Pod to a node: the one write of the scheduler, so it touches nothing it need not.

Source: the Binding API (core/v1). The Pod gets spec.nodeName, the binding's annotations and labels, and the condition
PodScheduled; it is bound once and for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgpack

from fastkube import errors
from fastkube.api import field
from fastkube.api.names import path_segment
from fastkube.errors import ApiError
from fastkube.registry.strategy import Call, Object
from fastkube.store import RevisionMismatch

if TYPE_CHECKING:
    from fastkube.registry.changes import Change
    from fastkube.registry.registry import Registry
    from fastkube.store import Item

SUCCESS: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}

_ATTEMPTS_MAX = 100


def change_of(registry: Registry, call: Call, media: str, body: bytes) -> Change | None:
    """What a binding in this body changes about the Pod `call.name`; None for one that is not like any other."""
    return registry.changes.begin_binding(call, media, body, registry.timestamp(call), registry.admission.bearing)


async def bind(registry: Registry, call: Call, body: Object) -> Object:
    """Raises 404 without such a Pod and 409 when it cannot be bound (any more)."""
    if body["metadata"].get("name") != call.name:
        raise errors.bad_request("name in URL does not match name in Binding object")
    _check_target(body.get("target") or {})
    await registry.admission.mutate(call, body, None)
    await registry.admission.validate(call, body, None)
    pods = registry.catalog.get("", "pods")
    assert pods is not None
    key = pods.key(call.namespace, call.name)
    change = change_of(registry, call, *call.sent) if call.sent is not None else None
    for _ in range(_ATTEMPTS_MAX):
        item = registry.store.get(key)
        if item is None:
            raise errors.not_found("", "pods", call.name)
        foretold = change.foretell(item) if change is not None else None
        value = foretold or msgpack.packb(_bound(registry, call, item, body))
        if call.dry_run:
            return SUCCESS
        try:
            await registry.store.update(key, value, item.mod_revision)
        except RevisionMismatch:
            continue
        if change is not None and foretold is None:
            change.learn(value)
        return SUCCESS
    raise errors.conflict("", "pods/binding", call.name, errors.MODIFIED)


async def bind_listed(registry: Registry, call: Call, body: Object) -> Object:
    """The older way, a POST to the collection of bindings: the body says which Pod."""
    call.name = body["metadata"].get("name") or ""
    if not call.name:
        raise errors.bad_request("Name parameter required.")
    if faults := path_segment(call.name):
        raise errors.bad_request(f"Name parameter invalid: {field.quote(call.name)}: {';'.join(faults)}")
    return await bind(registry, call, body)


def _check_target(target: Object) -> None:
    """Upstream answers these as plain errors, so without a reason."""
    causes = []
    kind = target.get("kind")
    if kind not in (None, "", "Node"):
        causes.append(field.not_supported("target.kind", kind, ("Node", "<empty>")))
    if not target.get("name"):
        causes.append(field.required("target.name"))
    if causes:
        told = [f"{cause.field}: {cause.message}" for cause in causes]
        raise ApiError(500, "", told[0] if len(told) == 1 else f"[{', '.join(told)}]")


def _bound(registry: Registry, call: Call, item: Item, body: Object) -> Object:
    """The Pod as it is once bound; 409 when it is bound, gated or going away."""
    pod: Object = msgpack.unpackb(item.value)
    binding, metadata, spec = body["metadata"], pod["metadata"], pod["spec"]
    problem = ""
    if binding.get("uid") and binding["uid"] != metadata["uid"]:
        problem = f"Precondition failed: UID in precondition: {binding['uid']}, UID in object meta: {metadata['uid']}"
    elif binding.get("resourceVersion") and binding["resourceVersion"] != str(item.mod_revision):
        problem = errors.MODIFIED
    elif "deletionTimestamp" in metadata:
        problem = f"pod {call.name} is being deleted, cannot be assigned to a host"
    elif spec.get("nodeName"):
        problem = f'pod {call.name} is already assigned to node "{spec["nodeName"]}"'
    elif spec.get("schedulingGates"):
        problem = f"pod {call.name} has non-empty .spec.schedulingGates"
    if problem:
        raise errors.conflict("", "pods/binding", call.name, problem)
    spec["nodeName"] = body["target"]["name"]
    for key in ("annotations", "labels"):
        if binding.get(key):
            metadata[key] = {**(metadata.get(key) or {}), **binding[key]}
    status = pod.setdefault("status", {})
    status.pop("nominatedNodeName", None)  # where it might go is settled
    _mark_scheduled(status, registry.timestamp(call))
    return pod


def _mark_scheduled(status: Object, now: str) -> None:
    """Sets the condition PodScheduled; its transition time changes only with its status."""
    conditions: list[Object] = status.setdefault("conditions", [])
    scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
    for index, condition in enumerate(conditions):
        if condition.get("type") == "PodScheduled":
            if condition.get("status") == "True":
                scheduled["lastTransitionTime"] = condition.get("lastTransitionTime", now)
            conditions[index] = scheduled
            return
    conditions.append(scheduled)
