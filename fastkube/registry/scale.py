"""The scale subresource: the replicas of any scalable kind, seen as an autoscaling/v1 Scale.

Custom kinds say by JSON paths where their replicas and selector are; the built-in ones all keep them in
`spec.replicas`, `status.replicas` and `spec.selector`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastkube import errors
from fastkube.api import apply, field, schema, selectors
from fastkube.registry import ownership
from fastkube.registry.strategy import Call, Object

if TYPE_CHECKING:
    from fastkube.api.catalog import ResourceType

_VERSION = "autoscaling/v1"
_KEPT = ("name", "namespace", "uid", "creationTimestamp")

_DEFAULT_PATHS = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": "",
}


def show(call: Call, obj: Object) -> Object:
    """The Scale of an object, without resourceVersion."""
    rtype = call.rtype
    paths = _paths(call)
    metadata = obj["metadata"]
    status: Object = {"replicas": _at(obj, paths["statusReplicasPath"]) or 0}
    selector = _selector(rtype, obj, paths["labelSelectorPath"])
    if selector:
        status["selector"] = selector
    spec: Object = {}
    replicas = _at(obj, paths["specReplicasPath"])
    if replicas:
        spec["replicas"] = replicas
    return {
        "kind": "Scale",
        "apiVersion": _VERSION,
        "metadata": {key: metadata[key] for key in _KEPT if key in metadata},
        "spec": spec,
        "status": status,
    }


def take(call: Call, old: Object, scale: Object, applied: bool) -> Object:
    """`old` with the replicas of the Scale. Raises 409 for another uid and 422 for a negative number."""
    rtype = call.rtype
    path = _paths(call)["specReplicasPath"]
    before = with_entries(call, old)
    uid = scale["metadata"].get("uid")
    if uid and uid != old["metadata"]["uid"]:
        problem = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old['metadata']['uid']}"
        raise errors.conflict(rtype.storage_group, f"{rtype.resource}/scale", call.name, problem)
    replicas = (scale.get("spec") or {}).get("replicas") or 0
    causes = field.non_negative("spec.replicas", replicas) if not rtype.custom else []  # these judge it as a whole
    if causes:
        raise errors.invalid("autoscaling", "Scale", call.name, causes)
    _put(old, path, replicas)
    if applied:
        entries = scale["metadata"].get("managedFields") or []
    else:
        entries = apply.updated(before, scale, schema.load(_VERSION, "Scale"), ownership.scale_writer(call))
    ownership.set_scaled(call, old, entries, path)
    return old


def set_replicas(call: Call, obj: Object, replicas: int) -> None:
    """What admission made of a Scale, in the object that it scales."""
    _put(obj, _paths(call)["specReplicasPath"], replicas)


def with_entries(call: Call, obj: Object) -> Object:
    """The Scale of an object with its managedFields, which no answer shows."""
    shown = show(call, obj)
    entries = ownership.scale_entries(call, obj, _paths(call)["specReplicasPath"])
    if entries:
        shown["metadata"]["managedFields"] = entries
    return shown


def _paths(call: Call) -> dict[str, str]:
    if not call.rtype.custom:
        return _DEFAULT_PATHS
    custom: dict[str, str] = call.rtype.extra["scale"][call.version]
    return {**_DEFAULT_PATHS, **custom}


def _at(obj: Object, path: str) -> Any:
    found: Any = obj
    for key in path.split(".")[1:]:
        if not isinstance(found, dict):
            return None
        found = found.get(key)
    return found


def _put(obj: Object, path: str, value: Any) -> None:
    *parents, last = path.split(".")[1:]
    for key in parents:
        obj = obj.setdefault(key, {})
    obj[last] = value


def _selector(rtype: ResourceType, obj: Object, path: str) -> str:
    """The selector in text form: of a custom kind it is that already."""
    if rtype.custom:
        return (_at(obj, path) or "") if path else ""
    selector = obj["spec"].get("selector")
    if rtype.resource == "replicationcontrollers":
        return str(selectors.from_labels(selector))
    return str(selectors.from_object(selector)) if selector else ""
