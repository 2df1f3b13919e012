"""EndpointSlices: the endpoints of each Service, in slices of limited size for each address family and set of ports."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from fastkube.client import object_key
from fastkube.controllers.actions import GONE, Action, Delete, Tell, Together
from fastkube.controllers.caches import Caches
from fastkube.controllers.common import PODS, Object, Objects, is_ready, is_terminating
from fastkube.controllers.runner import Context, Controller, Watch
from fastkube.controllers.services import (
    HEADLESS_LABEL,
    POD_TOPICS,
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
from fastkube.controllers.slices import MANAGED_BY, SERVICE_NAME, SLICES, Group, Plan, Target, identity, port_key
from fastkube.controllers.topology_hints import ZONE, Impossible, spread, zone_ratios
from fastkube.errors import ApiError

NODES = "v1/nodes"

MANAGER = "endpointslice-controller.k8s.io"
TOPOLOGY_MODE = "service.kubernetes.io/topology-mode"
_OWN_LABELS = frozenset({SERVICE_NAME, MANAGED_BY, HEADLESS_LABEL})


class View(NamedTuple):
    service: Object
    slices: Objects
    pods: Objects
    zones: dict[str, str]
    """The zone of each node that a Pod runs on, where it has one."""
    endpoints_max: int
    nodes: Objects
    """All, where the Service asks for hints that depend on them."""


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
    nodes = caches.list(NODES) if _wants_shares(service) else []
    return View(service, slices, pods, zones, context.options.max_endpoints_per_slice, nodes)


def _wants_shares(service: Object) -> bool:
    """Whether endpoints are to be shared out among zones."""
    return str((service["metadata"].get("annotations") or {}).get(TOPOLOGY_MODE)).lower() == "auto"


def _is_ours(found: Object) -> bool:
    return (found["metadata"].get("labels") or {}).get(MANAGED_BY) == MANAGER


def reconcile(view: View) -> Sequence[Action]:
    service = view.service
    families = [str(family) for family in service["spec"].get("ipFamilies") or ["IPv4"]]
    strange = [found for found in view.slices if found["addressType"] not in families]
    actions: list[Action] = [Delete(SLICES, found, ignore=GONE) for found in strange]
    labels = _labels(service)
    told: list[Action] = []
    annotations = {TRIGGER_TIME: trigger_time(service, view.pods)}
    for family in families:
        slices = [found for found in view.slices if found["addressType"] == family and not is_terminating(found)]
        target = Target(service, family, labels, annotations, view.endpoints_max, True, partial(_failed, service))
        groups = _desired(view, family)
        if _wants_shares(service):
            told += _share_out(view, family, groups)
        actions += Plan(target, groups, slices).actions()
    return [*told, Together(actions)] if actions else (told or ())


def _labels(service: Object) -> dict[str, str]:
    """The Service's labels, and those by which its slices are found."""
    given = service["metadata"].get("labels") or {}
    labels = {key: value for key, value in given.items() if key not in _OWN_LABELS}
    if is_headless(service):
        labels[HEADLESS_LABEL] = ""
    return {**labels, SERVICE_NAME: service["metadata"]["name"], MANAGED_BY: MANAGER}


def _failed(service: Object, what: str, error: ApiError) -> Sequence[Action]:
    message = f"Error updating Endpoint Slices for Service {object_key(service)}: {error.message}"
    return [Tell(service, "Warning", f"FailedTo{what}EndpointSlices", message)]


# ---------------------------------------------------------------- endpoints


def _desired(view: View, family: str) -> dict[str, Group]:
    """The endpoints of one address family, by port set."""
    service = view.service
    groups: dict[str, Group] = {}
    for pod in view.pods:
        if not takes_part(pod, with_terminating=True):
            continue
        addresses = [ip for ip in pod_ips(pod) if is_ipv6(ip) == (family == "IPv6")]
        if not addresses:
            continue
        ports = endpoint_ports(service, pod)
        group = groups.setdefault(port_key(ports), Group(ports, {}))
        endpoint = _endpoint(view, pod, addresses[0])
        group.endpoints[identity(endpoint)] = endpoint
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


def _share_out(view: View, family: str, groups: dict[str, Group]) -> list[Action]:
    """Give the ready endpoints hints for zones, in place; events when that begins to work, or cannot be done."""
    ready = [
        endpoint
        for _, group in sorted(groups.items())
        for _, endpoint in sorted(group.endpoints.items())
        if endpoint["conditions"]["ready"]
    ]
    service = view.service
    hinted = any("hints" in endpoint for found in view.slices for endpoint in found.get("endpoints") or ())
    try:
        zones = spread(ready, zone_ratios(view.nodes))
    except Impossible as error:
        return [Tell(service, "Warning", "TopologyAwareHintsDisabled", f"{error}, addressType: {family}")]
    for endpoint, zone in zip(ready, zones, strict=True):
        endpoint["hints"] = {"forZones": [{"name": zone}]}
    if hinted:
        return []
    message = f"Topology Aware Hints has been enabled, addressType: {family}"
    return [Tell(service, "Normal", "TopologyAwareHintsEnabled", message)]


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
        Watch(SERVICES, indexes=("selecting", "selector-term")),
        Watch(PODS, services_of_pod, ("namespace", "node"), changed=pod_matters, about=POD_TOPICS),
        Watch(SLICES, _service_of_slice, ("service",)),
        Watch(NODES, _services_on_node, changed=_zone_changed),
    ),
    view=view,
    reconcile=reconcile,
    workers="concurrent_service_endpoint_syncs",
)
