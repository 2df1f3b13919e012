"""EndpointSlices: the endpoints of each Service in slices of limited size, changed as little as possible.

For each address family and each set of ports (Pods may resolve a named port differently):
  1. endpoints that are gone leave their slice, changed ones are changed in place
  2. new ones fill slices that are written anyway, then one slice with room for all the rest, then new slices
  3. a slice that becomes empty goes, but for one, so that "none" can be told from "not yet looked at"
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from fastkube.api.meta import owner_reference
from fastkube.client import object_key
from fastkube.controllers.actions import GONE, Action, Create, Delete, Tell, Together, Update
from fastkube.controllers.caches import Caches
from fastkube.controllers.common import PODS, Object, Objects, is_ready, is_terminating
from fastkube.controllers.runner import Context, Controller, Watch
from fastkube.controllers.services import (
    HEADLESS_LABEL,
    SERVICES,
    TRIGGER_TIME,
    endpoint_ports,
    has_endpoints,
    hostname,
    is_headless,
    is_ipv6,
    pod_ips,
    pod_matters,
    publishes_not_ready,
    selected_pods,
    services_of_pod,
    takes_part,
    target_ref,
    trigger_time,
)
from fastkube.errors import ApiError

SLICES = "discovery.k8s.io/v1/endpointslices"
NODES = "v1/nodes"

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
TOPOLOGY_MODE = "service.kubernetes.io/topology-mode"
ZONE = "topology.kubernetes.io/zone"
_OWN_LABELS = frozenset({SERVICE_NAME, MANAGED_BY, HEADLESS_LABEL})


class View(NamedTuple):
    service: Object
    slices: Objects
    pods: Objects
    zones: dict[str, str]
    """The zone of each node that a Pod runs on, where it has one."""
    endpoints_max: int


def view(context: Context, key: str) -> View | None:
    caches = context.caches
    service = caches.by_key(SERVICES, key)
    if service is None or not has_endpoints(service):
        return None
    slices = [found for found in caches.index(SLICES, "service", key) if _is_ours(found)]
    pods = selected_pods(caches, service)
    zones: dict[str, str] = {}
    for name in {pod["spec"].get("nodeName") for pod in pods} - {None, ""}:
        node = caches.get(NODES, "", str(name))
        zone = (node["metadata"].get("labels") or {}).get(ZONE) if node is not None else None
        if zone:
            zones[str(name)] = zone
    return View(service, slices, pods, zones, context.options.max_endpoints_per_slice)


def _is_ours(found: Object) -> bool:
    return (found["metadata"].get("labels") or {}).get(MANAGED_BY) == MANAGER


def reconcile(view: View) -> Sequence[Action]:
    service = view.service
    families = [str(family) for family in service["spec"].get("ipFamilies") or ["IPv4"]]
    strange = [found for found in view.slices if found["addressType"] not in families]
    actions: list[Action] = [Delete(SLICES, found, ignore=GONE) for found in strange]
    labels = _labels(service)
    annotation = trigger_time(service, view.pods)
    for family in families:
        slices = [found for found in view.slices if found["addressType"] == family and not is_terminating(found)]
        plan = _Plan(view, family, slices, labels, annotation)
        actions += plan.actions()
    if not actions:
        return ()
    return [Together(actions)]


def _labels(service: Object) -> dict[str, str]:
    """The Service's labels, and those by which its slices are found."""
    given = service["metadata"].get("labels") or {}
    labels = {key: value for key, value in given.items() if key not in _OWN_LABELS}
    if is_headless(service):
        labels[HEADLESS_LABEL] = ""
    return {**labels, SERVICE_NAME: service["metadata"]["name"], MANAGED_BY: MANAGER}


# ---------------------------------------------------------------- endpoints


def _desired(view: View, family: str) -> dict[str, tuple[Objects, dict[str, Object]]]:
    """{port set: (ports, {endpoint identity: endpoint})} of one address family."""
    service = view.service
    groups: dict[str, tuple[Objects, dict[str, Object]]] = {}
    for pod in view.pods:
        if not takes_part(pod, with_terminating=True):
            continue
        addresses = [ip for ip in pod_ips(pod) if is_ipv6(ip) == (family == "IPv6")]
        if not addresses:
            continue
        ports = endpoint_ports(service, pod)
        group = groups.setdefault(_port_key(ports), (ports, {}))
        endpoint = _endpoint(view, pod, addresses[0])
        group[1][_identity(endpoint)] = endpoint
    return groups


def _endpoint(view: View, pod: Object, address: str) -> Object:
    service = view.service
    serving, terminating = is_ready(pod), is_terminating(pod)
    ready = publishes_not_ready(service) or (serving and not terminating)
    made: Object = {
        "addresses": [address],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
    }
    if name := hostname(service, pod):
        made["hostname"] = name
    made["targetRef"] = target_ref(pod)
    if node := pod["spec"].get("nodeName"):
        made["nodeName"] = node
        if zone := view.zones.get(node):
            made["zone"] = zone
    if ready and (hints := _hints(service, made)):
        made["hints"] = hints
    return made


def _hints(service: Object, endpoint: Object) -> Object | None:
    """Where traffic is to be kept close, each endpoint is for its own zone, and its own node."""
    distribution = service["spec"].get("trafficDistribution")
    mode = (service["metadata"].get("annotations") or {}).get(TOPOLOGY_MODE, "Disabled")
    if not distribution or mode.lower() not in ("", "disabled"):
        return None
    hints: Object = {}
    if zone := endpoint.get("zone"):
        hints["forZones"] = [{"name": zone}]
    if distribution == "PreferSameNode" and endpoint.get("nodeName"):
        hints["forNodes"] = [{"name": endpoint["nodeName"]}]
    return hints or None


def _identity(endpoint: Object) -> str:
    """What makes two endpoints the same one, though their conditions may differ."""
    ref = endpoint.get("targetRef") or {}
    return f"{ref.get('uid')}/{','.join(endpoint['addresses'])}/{endpoint.get('hostname', '')}"


def _port_key(ports: Objects) -> str:
    """Equal for equal sets of ports, in whatever order and with or without defaults."""
    told = [(p.get("name") or "", p.get("port"), p.get("protocol") or "TCP", p.get("appProtocol") or "") for p in ports]
    return json.dumps(sorted(told, key=str))


# ---------------------------------------------------------------- slices


class _Plan:
    """What to do with the slices of one address family of a Service."""

    def __init__(self, view: View, family: str, slices: Objects, labels: dict[str, str], annotation: str) -> None:
        self._view = view
        self._family = family
        self._labels = labels
        self._annotation = annotation
        self._slices = slices
        self._create: list[tuple[Objects, Objects]] = []
        self._update: Objects = []
        self._delete: Objects = []

    def actions(self) -> list[Action]:
        groups = _desired(self._view, self._family)
        by_ports: dict[str, Objects] = {}
        for found in self._slices:
            by_ports.setdefault(_port_key(found.get("ports") or []), []).append(found)
        for key in by_ports.keys() - groups.keys():
            self._delete += by_ports[key]
        for key, (ports, endpoints) in groups.items():
            self._fit(by_ports.get(key, []), ports, endpoints)
        self._keep_one()
        return self._written()

    def _fit(self, slices: Objects, ports: Objects, wanted: dict[str, Object]) -> None:
        """Steps 1 to 3 for one set of ports."""
        wanted = dict(wanted)
        dirty: Objects = []
        clean: Objects = []
        for found in slices:
            kept, changed = self._purge(found, wanted)
            if not kept:
                self._delete.append(found)
            elif changed or not self._has_labels(found):
                dirty.append({**found, "endpoints": kept})
            else:
                clean.append(found)
        new = list(wanted.values())
        limit = self._view.endpoints_max
        for found in sorted(dirty, key=lambda found: -len(found["endpoints"])):
            room = max(0, limit - len(found["endpoints"]))
            self._update.append({**found, "endpoints": [*found["endpoints"], *new[:room]]})
            new = new[room:]
        if new:
            new = self._fill_clean(clean, new)
        while new:
            self._create.append((ports, new[:limit]))
            new = new[limit:]

    def _purge(self, found: Object, wanted: dict[str, Object]) -> tuple[Objects, bool]:
        """The endpoints of a slice that stay, taken out of `wanted`, and whether anything changes."""
        kept: Objects = []
        changed = False
        present = found.get("endpoints") or []
        for endpoint in present:
            desired = wanted.pop(_identity(endpoint), None)
            if desired is not None:
                kept.append(desired)
                changed = changed or desired != endpoint
        return kept, changed or len(kept) != len(present)

    def _fill_clean(self, clean: Objects, new: Objects) -> Objects:
        """The fullest slice that has room for all takes them: one write, and no half-empty slices."""
        limit = self._view.endpoints_max
        fitting = [found for found in clean if len(found["endpoints"]) + len(new) % limit <= limit]
        if not fitting or not len(new) % limit:
            return new
        best = max(fitting, key=lambda found: len(found["endpoints"]))
        rest = len(new) % limit
        self._update.append({**best, "endpoints": [*best["endpoints"], *new[-rest:]]})
        return new[:-rest]

    def _keep_one(self) -> None:
        """A Service without endpoints has one empty slice."""
        left = len(self._slices) - len(self._delete)
        if left or self._create:
            return
        if self._delete:
            last = self._delete.pop()
            if last.get("endpoints") or last.get("ports") or not self._has_labels(last):
                self._update.append({**last, "endpoints": [], "ports": []})
        else:
            self._create.append(([], []))

    def _has_labels(self, found: Object) -> bool:
        return (found["metadata"].get("labels") or {}) == self._labels

    def _written(self) -> list[Action]:
        actions: list[Action] = []
        while self._create and self._delete:
            # a slice that would go is used again: one write instead of two
            ports, endpoints = self._create.pop()
            self._update.append({**self._delete.pop(), "ports": ports, "endpoints": endpoints})
        for ports, endpoints in self._create:
            actions.append(Create(SLICES, self._made(ports, endpoints), otherwise=self._failed("Create")))
        for found in self._update:
            metadata = {**found["metadata"], "labels": self._labels}
            metadata["annotations"] = {**(metadata.get("annotations") or {}), TRIGGER_TIME: self._annotation}
            actions.append(Update(SLICES, {**found, "metadata": metadata}, otherwise=self._failed("Update")))
        actions += [Delete(SLICES, found, ignore=GONE) for found in self._delete]
        return actions

    def _failed(self, what: str) -> Any:
        service = self._view.service

        def tell(error: ApiError) -> Sequence[Action]:
            message = f"Error updating Endpoint Slices for Service {object_key(service)}: {error.message}"
            return [Tell(service, "Warning", f"FailedTo{what}EndpointSlices", message)]

        return tell

    def _made(self, ports: Objects, endpoints: Objects) -> Object:
        metadata = self._view.service["metadata"]
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "generateName": f"{metadata['name']}-",
                "namespace": metadata["namespace"],
                "labels": self._labels,
                "annotations": {TRIGGER_TIME: self._annotation},
                "ownerReferences": [owner_reference(self._view.service)],
            },
            "addressType": self._family,
            "endpoints": endpoints,
            "ports": ports,
        }


def _service_of_slice(_caches: Caches, found: Object) -> Sequence[str]:
    name = (found["metadata"].get("labels") or {}).get(SERVICE_NAME)
    return (f"{found['metadata']['namespace']}/{name}",) if name and _is_ours(found) else ()


def _services_on_node(caches: Caches, node: Object) -> Sequence[str]:
    """The zone of a node is told in the endpoints on it."""
    pods = caches.index(PODS, "node", node["metadata"]["name"])
    return list({key for pod in pods for key in services_of_pod(caches, pod)})


def _zone_changed(old: Object, new: Object) -> bool:
    return (old["metadata"].get("labels") or {}).get(ZONE) != (new["metadata"].get("labels") or {}).get(ZONE)


CONTROLLER = Controller(
    name="endpointslice-controller",
    component="endpoint-slice-controller",
    watches=(
        Watch(SERVICES, indexes=("selector-term",)),
        Watch(PODS, services_of_pod, ("namespace", "node"), changed=pod_matters),
        Watch(SLICES, _service_of_slice, ("service",)),
        Watch(NODES, _services_on_node, changed=_zone_changed),
    ),
    view=view,
    reconcile=reconcile,
    workers="concurrent_service_endpoint_syncs",
)
