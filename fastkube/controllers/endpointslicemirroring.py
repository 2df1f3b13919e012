"""EndpointSlice mirroring: Endpoints which somebody writes for a Service without selector, as EndpointSlices."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from fastkube.client import object_key
from fastkube.controllers.actions import GONE, Action, Delete, Tell, Together
from fastkube.controllers.common import Object, Objects, is_terminating
from fastkube.controllers.endpoints import ENDPOINTS
from fastkube.controllers.runner import Context, Controller, Watch
from fastkube.controllers.services import SERVICES, TRIGGER_TIME
from fastkube.controllers.slices import MANAGED_BY, SERVICE_NAME, SLICES, Group, Plan, Target, identity, port_key
from fastkube.errors import ApiError

MANAGER = "endpointslicemirroring-controller.k8s.io"
SKIP = "endpointslice.kubernetes.io/skip-mirror"
_LEADER = "control-plane.alpha.kubernetes.io/leader"
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class View(NamedTuple):
    endpoints: Object | None
    """None where nothing is to be mirrored."""
    slices: Objects
    addresses_max: int


def view(context: Context, key: str) -> View | None:
    caches = context.caches
    endpoints, service = caches.by_key(ENDPOINTS, key), caches.by_key(SERVICES, key)
    slices = [found for found in caches.index(SLICES, "service", key) if _is_ours(found) and not is_terminating(found)]
    if endpoints is None or service is None or service["spec"].get("selector") or not _wants_mirror(endpoints):
        endpoints = None
    if endpoints is None and not slices:
        return None
    return View(endpoints, slices, context.options.mirroring_max_endpoints_per_subset)


def _wants_mirror(endpoints: Object) -> bool:
    metadata = endpoints["metadata"]
    skipped = (metadata.get("labels") or {}).get(SKIP) == "true"
    return not skipped and _LEADER not in (metadata.get("annotations") or {})


def _is_ours(found: Object) -> bool:
    return (found["metadata"].get("labels") or {}).get(MANAGED_BY) == MANAGER


class Mirrored(NamedTuple):
    """What the subsets hold: {family: {port set: group}}; how many addresses are no IPs, or too many."""

    groups: dict[str, dict[str, Group]]
    invalid: int
    skipped: int


def reconcile(view: View) -> Sequence[Action]:
    endpoints = view.endpoints
    if endpoints is None:
        return [Together([Delete(SLICES, found, ignore=GONE) for found in view.slices])]
    mirrored = _mirror(endpoints, view.addresses_max)
    actions: list[Action] = []
    for family, groups in mirrored.groups.items():
        slices = [found for found in view.slices if found["addressType"] == family]
        actions += Plan(_target(endpoints, family), groups, slices).actions()
    told: list[Action] = []
    if mirrored.invalid:
        message = f"Skipped {mirrored.invalid} invalid IP addresses when mirroring to EndpointSlices"
        told.append(Tell(endpoints, "Warning", "InvalidIPAddress", message))
    if mirrored.skipped:
        limit = f"A max of {view.addresses_max} addresses can be mirrored to EndpointSlices per Endpoints subset."
        message = f"{limit} {mirrored.skipped} addresses were skipped"
        told.append(Tell(endpoints, "Warning", "TooManyAddressesToMirror", message))
    return [*told, Together(actions)] if actions else told


def _mirror(endpoints: Object, addresses_max: int) -> Mirrored:
    groups: dict[str, dict[str, Group]] = {"IPv4": {}, "IPv6": {}}
    invalid = skipped = 0
    for subset in endpoints.get("subsets") or ():
        ports = [_port(port) for port in subset.get("ports") or ()]
        given = [(address, True) for address in subset.get("addresses") or ()]
        given += [(address, False) for address in subset.get("notReadyAddresses") or ()]
        skipped += max(0, len(given) - addresses_max)
        for address, ready in given[:addresses_max]:
            family = _family(address["ip"])
            if not family:
                invalid += 1
                continue
            group = groups[family].setdefault(port_key(ports), Group(ports, {}))
            endpoint = _endpoint(address, ready)
            group.endpoints[identity(endpoint)] = endpoint
    return Mirrored(groups, invalid, skipped)


def _family(ip: str) -> str:
    """IPv4 or IPv6; "" for what is no address."""
    try:
        return f"IPv{ipaddress.ip_address(ip).version}"
    except ValueError:
        return ""


def _endpoint(address: Object, ready: bool) -> Object:
    made: Object = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
    for key in ("hostname", "targetRef", "nodeName"):
        if address.get(key):
            made[key] = address[key]
    return made


def _port(port: Object) -> Object:
    made = {"name": port.get("name", ""), "port": port["port"], "protocol": port.get("protocol", "TCP")}
    return {**made, "appProtocol": port["appProtocol"]} if port.get("appProtocol") else made


def _target(endpoints: Object, family: str) -> Target:
    metadata = endpoints["metadata"]
    labels = {**(metadata.get("labels") or {}), SERVICE_NAME: metadata["name"], MANAGED_BY: MANAGER}
    given = metadata.get("annotations") or {}
    annotations = {key: value for key, value in given.items() if key not in (TRIGGER_TIME, _LAST_APPLIED)}
    owner = {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata}
    return Target(owner, family, labels, annotations, _SLICE_MAX, False, partial(_failed, endpoints))


_SLICE_MAX = 1000


def _failed(endpoints: Object, what: str, error: ApiError) -> Sequence[Action]:
    message = f"Error updating EndpointSlices for Endpoints {object_key(endpoints)}: {error.message}"
    return [Tell(endpoints, "Warning", f"FailedTo{what}EndpointSlices", message)]


def _service_of_slice(_caches: object, found: Object) -> Sequence[str]:
    name = (found["metadata"].get("labels") or {}).get(SERVICE_NAME)
    return (f"{found['metadata']['namespace']}/{name}",) if name and _is_ours(found) else ()


def _selector_changed(old: Object, new: Object) -> bool:
    return bool(old["spec"].get("selector")) != bool(new["spec"].get("selector"))


CONTROLLER = Controller(
    name="endpointslice-mirroring-controller",
    component="endpoint-slice-mirroring-controller",
    watches=(
        Watch(ENDPOINTS),
        Watch(SERVICES, changed=_selector_changed),  # of the same name as their Endpoints
        Watch(SLICES, _service_of_slice, ("service",)),
    ),
    view=view,
    reconcile=reconcile,
    workers="mirroring_concurrent_service_endpoint_syncs",
)
