"""Endpoints: the older form of what EndpointSlices tell, one object for each Service with a selector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from fastkube.api.meta import controller_of
from fastkube.controllers.actions import GONE, Action, Create, Delete, Tell, Update
from fastkube.controllers.common import PODS, Object, Objects, is_ready
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
from fastkube.errors import ApiError

ENDPOINTS = "v1/endpoints"

CAPACITY = 1000
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
MANAGED_BY = "endpoints.kubernetes.io/managed-by"
MANAGER = "endpoint-controller"
_LEADER = "control-plane.alpha.kubernetes.io/leader"


class View(NamedTuple):
    service: Object | None
    endpoints: Object | None
    pods: Objects


def view(context: Context, key: str) -> View | None:
    caches = context.caches
    service, endpoints = caches.by_key(SERVICES, key), caches.by_key(ENDPOINTS, key)
    if service is None:
        return View(None, endpoints, []) if endpoints is not None else None
    if not has_endpoints(service):
        return None
    return View(service, endpoints, selected_pods(caches, service))


def reconcile(view: View) -> Sequence[Action]:
    service, present = view.service, view.endpoints
    if service is None:
        return _without_service(present)
    subsets, truncated = _truncate(_subsets(service, view.pods))
    labels = {**(service["metadata"].get("labels") or {}), MANAGED_BY: MANAGER}
    if is_headless(service):
        labels[HEADLESS_LABEL] = ""
    else:
        labels.pop(HEADLESS_LABEL, None)
    annotations = dict((present["metadata"].get("annotations") or {}) if present is not None else {})
    was_truncated = annotations.pop(OVER_CAPACITY, None) == "truncated"
    if (
        present is not None
        and (present.get("subsets") or []) == subsets
        and (present["metadata"].get("labels") or {}) == labels
        and was_truncated == truncated
    ):
        return ()
    annotations[TRIGGER_TIME] = trigger_time(service, view.pods)
    if truncated:
        annotations[OVER_CAPACITY] = "truncated"
    return [_write(service, present, {"labels": labels, "annotations": annotations}, subsets)]


def _without_service(present: Object | None) -> Sequence[Action]:
    """Endpoints whose Service is gone go too, but for those that old leader elections use and unmanaged ones."""
    if present is None or _LEADER in (present["metadata"].get("annotations") or {}):
        return ()
    if (present["metadata"].get("labels") or {}).get(MANAGED_BY) != MANAGER or controller_of(present):
        return ()
    return [Delete(ENDPOINTS, present, ignore=GONE)]


def _write(service: Object, present: Object | None, metadata: Object, subsets: Objects) -> Action:
    namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]

    def failed(error: ApiError) -> Sequence[Action]:
        if present is None:
            message = f"Failed to create endpoint for service {namespace}/{name}: {error.message}"
            return [Tell(made, "Warning", "FailedToCreateEndpoint", message)]
        message = f"Failed to update endpoint {namespace}/{name}: {error.message}"
        return [Tell(made, "Warning", "FailedToUpdateEndpoint", message)]

    if present is None:
        metadata = {"name": name, "namespace": namespace, **metadata}
        made: Object = {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets}
        return Create(ENDPOINTS, made, otherwise=failed)
    made = {**present, "metadata": {**present["metadata"], **metadata}, "subsets": subsets}
    return Update(ENDPOINTS, made, otherwise=failed)


def _subsets(service: Object, pods: Objects) -> Objects:
    """Addresses with the same ports together, the ready apart from the others; all in a stable order."""
    even_not_ready = publishes_not_ready(service)
    by_address: dict[tuple[str, str], tuple[Object, bool, Objects]] = {}
    for pod in pods:
        ports = endpoint_ports(service, pod)
        if not takes_part(pod, with_terminating=even_not_ready) or (service["spec"].get("ports") and not ports):
            continue
        address = _address(service, pod)
        if address is not None:
            key = (address["ip"], pod["metadata"]["uid"])
            by_address[key] = (address, even_not_ready or is_ready(pod), ports)
    grouped: dict[tuple[tuple[str, int, str], ...], tuple[Objects, Objects, Objects]] = {}
    for _, (address, ready, ports) in sorted(by_address.items()):
        ports = sorted((_bare(port) for port in ports), key=lambda port: (port.get("name", ""), port["port"]))
        group = grouped.setdefault(tuple((p.get("name", ""), p["port"], p["protocol"]) for p in ports), (ports, [], []))
        group[1 if ready else 2].append(address)
    return [_subset(*group) for _, group in sorted(grouped.items())]


def _subset(ports: Objects, ready: Objects, not_ready: Objects) -> Object:
    parts = {"addresses": ready, "notReadyAddresses": not_ready, "ports": ports}
    return {key: part for key, part in parts.items() if part}


def _bare(port: Object) -> Object:
    """A port whose name is empty has none."""
    return port if port["name"] else {key: value for key, value in port.items() if key != "name"}


def _address(service: Object, pod: Object) -> Object | None:
    family = (service["spec"].get("ipFamilies") or ["IPv4"])[0]
    ip = next((ip for ip in pod_ips(pod) if is_ipv6(ip) == (family == "IPv6")), None)
    if ip is None:
        return None
    address: Object = {"ip": ip}
    if name := hostname(service, pod):
        address["hostname"] = name
    if node := pod["spec"].get("nodeName"):
        address["nodeName"] = node
    address["targetRef"] = target_ref(pod)
    return address


def _truncate(subsets: Objects) -> tuple[Objects, bool]:
    """At most CAPACITY addresses, ready ones first, spread over the subsets in proportion."""
    ready = sum(len(subset.get("addresses", ())) for subset in subsets)
    others = sum(len(subset.get("notReadyAddresses", ())) for subset in subsets)
    if ready + others <= CAPACITY:
        return subsets, False
    if ready > CAPACITY:
        kept = _share(subsets, "addresses", ready, CAPACITY)
        return [{key: part for key, part in subset.items() if key != "notReadyAddresses"} for subset in kept], True
    return _share(subsets, "notReadyAddresses", others, CAPACITY - ready), True


def _share(subsets: Objects, field: str, total: int, room: int) -> Objects:
    left = room
    shared: Objects = []
    for subset in subsets:
        addresses = subset.get(field, [])
        count = min(left, math.ceil(len(addresses) / total * room))
        left -= min(count, len(addresses))
        cut = {key: part for key, part in subset.items() if key != field}
        shared.append({**cut, field: addresses[:count]} if count else cut)
    return shared


CONTROLLER = Controller(
    name="endpoints-controller",
    component="endpoint-controller",
    watches=(
        Watch(SERVICES, indexes=("selecting", "selector-term")),
        Watch(PODS, services_of_pod, ("namespace",), changed=pod_matters, about=POD_TOPICS),
        Watch(ENDPOINTS),  # of the same name as their Service
    ),
    view=view,
    reconcile=reconcile,
    workers="concurrent_endpoint_syncs",
)
