"""What a fresh server holds, and what a server puts right when it starts again.

The objects are facts of kube-apiserver (fastkube/api/generated/bootstrap.json). What is missing is written, all in one
batch. Of what is there already only this is changed, as upstream does:

    roles and bindings    missing rules, subjects, labels and annotations are added, unless autoupdate is off
    flow schemas, levels  the spec is set back where their annotation allows it
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgpack

from fastkube.api import gates, meta
from fastkube.api.catalog import api_version
from fastkube.api.generated import table
from fastkube.clock import rfc3339
from fastkube.registry.allocators import first_address
from fastkube.registry.services import ip_address
from fastkube.store import ABSENT, KeyExists, RevisionMismatch, Write

if TYPE_CHECKING:
    from fastkube.api.catalog import ResourceType
    from fastkube.registry.registry import Registry
    from fastkube.registry.strategy import Object
    from fastkube.store import Item

_RBAC = "rbac.authorization.k8s.io"
_RBAC_AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
_APF = "flowcontrol.apiserver.k8s.io"
_APF_AUTOUPDATE = "apf.kubernetes.io/autoupdate-spec"

_OWN_WAY = frozenset(
    (
        ("", "endpoints"),
        ("", "services"),
        ("coordination.k8s.io", "leases"),
        ("discovery.k8s.io", "endpointslices"),
        ("networking.k8s.io", "ipaddresses"),
        ("networking.k8s.io", "servicecidrs"),
    )
)
"""Kinds whose objects depend on the server's addresses; `publish_address` and `_service_cidr` make them."""


def _rule(resources: tuple[str, ...], *verbs: str) -> Object:
    return {"apiGroups": ["scheduling.k8s.io"], "resources": [*resources], "verbs": [*verbs]}


_WORKLOAD_RULES = {
    "system:kube-scheduler": (
        _rule(("podgroups",), "get", "list", "watch"),
        _rule(("podgroups/status",), "patch", "update"),
    ),
    "system:aggregate-to-view": (_rule(("podgroups", "podgroups/status", "workloads"), "get", "list", "watch"),),
    "system:aggregate-to-edit": (
        _rule(("podgroups", "workloads"), "create", "delete", "deletecollection", "patch", "update"),
    ),
}
"""What these roles may do besides with the feature gate GenericWorkload."""


def _has_workloads(registry: Registry) -> bool:
    pods = registry.catalog.get("", "pods")
    return pods is not None and gates.GENERIC_WORKLOAD in pods.features


async def bootstrap(registry: Registry, service_cidr: str) -> None:
    """Writes what is missing. Raises ValueError for a CIDR that Services cannot have addresses of."""
    now = rfc3339(registry.clock.time())
    writes: list[Write] = []
    for rtype, obj in (*_defaults(registry, now), *_service_cidr(registry, service_cidr, now)):
        item = registry.store.get(_key(rtype, obj))
        write = _creation(registry, rtype, obj, now) if item is None else _correction(rtype, obj, item)
        if write is not None:
            writes.append(write)
    for result in await registry.store.write(writes):
        if isinstance(result, Exception) and not isinstance(result, RevisionMismatch | KeyExists):
            raise result  # those two: another server of this store was first


def _defaults(registry: Registry, now: str) -> Iterator[tuple[ResourceType, Object]]:
    """The objects that are the same for every server, as far as their kinds are served."""
    added = _WORKLOAD_RULES if _has_workloads(registry) else {}
    for name, entry in table("bootstrap").items():
        group, version, resource = ("", *name.split("/"))[-3:]
        rtype = registry.catalog.get(group, resource)
        if rtype is None or (group, resource) in _OWN_WAY:
            continue
        for item in entry["items"]:
            obj = {"apiVersion": api_version(group, version), "kind": entry["kind"], **item}
            if resource == "clusterroles" and item["metadata"]["name"] in added:
                obj["rules"] = [*obj["rules"], *added[item["metadata"]["name"]]]
            if obj["kind"] == "ConfigMap":
                obj["data"] = {"since": now[:10]}
            yield rtype, obj


def _service_cidr(registry: Registry, cidr: str, now: str) -> Iterator[tuple[ResourceType, Object]]:
    """The CIDR of Services, and the address in it that the Service `kubernetes` has."""
    message = "Kubernetes default Service CIDR is ready"
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": now, "reason": "", "message": message}
    kubernetes: Object = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [cidr]},
        "status": {"conditions": [ready]},
    }
    yield _rtype(registry, "networking.k8s.io", "servicecidrs"), kubernetes
    address = ip_address(first_address(cidr), "default", "kubernetes", now)
    yield _rtype(registry, "networking.k8s.io", "ipaddresses"), address


def _rtype(registry: Registry, group: str, resource: str) -> ResourceType:
    rtype = registry.catalog.get(group, resource)
    assert rtype is not None
    return rtype


def _key(rtype: ResourceType, obj: Object) -> bytes:
    metadata = obj["metadata"]
    return rtype.key(metadata.get("namespace", ""), metadata["name"])


def _creation(registry: Registry, rtype: ResourceType, obj: Object, now: str) -> Write:
    metadata = {"uid": meta.new_uid(), "creationTimestamp": now, **obj["metadata"]}
    if registry.strategy(rtype).has_generation:
        metadata["generation"] = 1
    new = {**obj, "metadata": metadata}
    conditions = (obj.get("status") or {}).get("conditions")
    if conditions:
        timed = [{"lastTransitionTime": now, **condition} for condition in conditions]
        new["status"] = {**obj["status"], "conditions": timed}
    return Write(_key(rtype, obj), msgpack.packb(new), ABSENT)


def _correction(rtype: ResourceType, default: Object, item: Item) -> Write | None:
    """What an existing object lacks of its default, if it may be corrected."""
    old: Object = msgpack.unpackb(item.value)
    annotations = old["metadata"].get("annotations") or {}
    if rtype.group == _RBAC and annotations.get(_RBAC_AUTOUPDATE) == "true":
        new = _completed(old, default)
    elif rtype.group == _APF and annotations.get(_APF_AUTOUPDATE) == "true" and old["spec"] != default["spec"]:
        metadata = {**old["metadata"], "generation": (old["metadata"].get("generation") or 0) + 1}
        new = {**old, "metadata": metadata, "spec": default["spec"]}
    else:
        return None
    return Write(item.key, msgpack.packb(new), item.mod_revision) if new != old else None


def _completed(old: Object, default: Object) -> Object:
    """A role or binding with all the rules, subjects, labels and annotations of its default."""
    new = {**old, "metadata": dict(old["metadata"])}
    for key in ("labels", "annotations"):
        if default["metadata"].get(key):
            new["metadata"][key] = {**default["metadata"][key], **(old["metadata"].get(key) or {})}
    for key in ("rules", "subjects"):
        present: list[Any] = old.get(key) or []
        missing = [each for each in default.get(key) or () if each not in present]
        if missing and "aggregationRule" not in default:
            new[key] = present + missing
    return new


async def publish_authentication(registry: Registry, data: dict[str, str]) -> None:
    """Makes the ConfigMap `extension-apiserver-authentication` say how aggregated API servers know who asks."""
    rtype = _rtype(registry, "", "configmaps")
    metadata = {"name": "extension-apiserver-authentication", "namespace": "kube-system"}
    await _put(registry, rtype, metadata, {"data": data}, rfc3339(registry.clock.time()))


# ---------------------------------------------------------------- the server's own Service

_PUBLISH_ATTEMPTS_MAX = 10


async def publish_address(registry: Registry, address: str, port: int, node_port: int = 0) -> None:
    """Makes the Service `kubernetes` lead to this server: its Endpoints and EndpointSlice name `address` and `port`.

    With a `node_port` it is reached by that port of every node, too."""
    now = rfc3339(registry.clock.time())
    end_port = {"name": "https", "port": port, "protocol": "TCP"}
    ready = {"addresses": [address], "conditions": {"ready": True}}
    for group, resource, content in (
        (
            "",
            "services",
            {"spec": _service_spec(_service_ip(registry), port, node_port), "status": {"loadBalancer": {}}},
        ),
        ("", "endpoints", {"subsets": [{"addresses": [{"ip": address}], "ports": [end_port]}]}),
        ("discovery.k8s.io", "endpointslices", {"addressType": "IPv4", "endpoints": [ready], "ports": [end_port]}),
    ):
        metadata = {"name": "kubernetes", "namespace": "default", "labels": _LABELS[resource]}
        await _put(registry, _rtype(registry, group, resource), metadata, content, now)


def _service_ip(registry: Registry) -> str:
    """The first address of the CIDR that was bootstrapped."""
    item = registry.store.get(_rtype(registry, "networking.k8s.io", "servicecidrs").key("", "kubernetes"))
    assert item is not None, "bootstrap comes first"
    return first_address(msgpack.unpackb(item.value)["spec"]["cidrs"][0])


_LABELS = {
    "services": {"component": "apiserver", "provider": "kubernetes"},
    "endpoints": {"endpointslice.kubernetes.io/skip-mirror": "true"},
    "endpointslices": {"kubernetes.io/service-name": "kubernetes"},
}


def _service_spec(service_ip: str, port: int, node_port: int) -> Object:
    external = {"externalTrafficPolicy": "Cluster"} if node_port else {}
    return {
        "ports": [
            {"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}
            | ({"nodePort": node_port} if node_port else {})
        ],
        "clusterIP": service_ip,
        "clusterIPs": [service_ip],
        "type": "NodePort" if node_port else "ClusterIP",
        **external,
        "sessionAffinity": "None",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "internalTrafficPolicy": "Cluster",
    }


async def _put(registry: Registry, rtype: ResourceType, metadata: Object, content: Object, now: str) -> None:
    """Creates an object, or sets its content where it differs."""
    key = rtype.key(metadata["namespace"], metadata["name"])
    for _ in range(_PUBLISH_ATTEMPTS_MAX):
        item = registry.store.get(key)
        if item is None:
            obj = {"apiVersion": rtype.storage_api_version, "kind": rtype.kind, "metadata": metadata, **content}
            write = _creation(registry, rtype, obj, now)
        else:
            old: Object = msgpack.unpackb(item.value)
            new = {**old, **content}
            if new == old:
                return
            write = Write(key, msgpack.packb(new), item.mod_revision)
        result = (await registry.store.write([write]))[0]
        if isinstance(result, RevisionMismatch | KeyExists):
            continue
        if isinstance(result, Exception):
            raise result
        return
