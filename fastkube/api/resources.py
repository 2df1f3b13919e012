"""What Pods ask for and nodes have, as whole numbers: cpu in thousandths, everything else in units.

The sums are upstream's (component-helpers, resource.PodRequests):
  * containers run together: their requests add up, and so do those of sidecars (restartable init containers);
  * an init container runs beside the sidecars started before it; the Pod needs the greatest of these moments;
  * requests of the Pod itself (spec.resources) replace the sum, for cpu, memory and huge pages; overhead comes on top;
  * a container that was resized in place counts the most of what it asks for, was promised and has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from fastkube.api import quantity

Object = dict[str, Any]
Nanos = dict[str, int]

CPU, MEMORY, EPHEMERAL_STORAGE, PODS = "cpu", "memory", "ephemeral-storage", "pods"

NONZERO_CPU_MILLI = 100
NONZERO_MEMORY_BYTES = 200 * 1024 * 1024
"""What a container without a request counts for in scores: otherwise such Pods would pile up on one node."""

_MILLI, _UNIT = 10**6, 10**9
_NONZERO_NANOS = {CPU: NONZERO_CPU_MILLI * _MILLI, MEMORY: NONZERO_MEMORY_BYTES * _UNIT}


def is_scalar(resource: str) -> bool:
    """Whether upstream counts a resource beside cpu, memory, storage and Pods."""
    return "/" in resource or resource.startswith(("hugepages-", "attachable-volumes-"))


def is_extended(resource: str) -> bool:
    """A resource of somebody's own: `example.com/gpu`, but nothing under kubernetes.io."""
    return "/" in resource and "kubernetes.io/" not in resource and not resource.startswith("requests.")


def is_device(resource: str) -> bool:
    """A resource that a DeviceClass can stand for."""
    return is_extended(resource) or resource.startswith("deviceclass.resource.kubernetes.io/")


def amount(resource: str, nanos: int) -> int:
    """Nanos as a whole number in the resource's own unit, rounded up."""
    return -(-nanos // (_MILLI if resource == CPU else _UNIT))


def parse_list(resources: Mapping[str, Any] | None) -> dict[str, int]:
    """A ResourceList as whole numbers; resources that nobody schedules by are left out."""
    return _whole(_nanos(resources))


def _whole(resources: Nanos) -> dict[str, int]:
    return {
        name: amount(name, value)
        for name, value in resources.items()
        if name in (CPU, MEMORY, EPHEMERAL_STORAGE, PODS) or is_scalar(name)
    }


def _nanos(resources: Mapping[str, Any] | None) -> Nanos:
    return {name: quantity.parse(str(text)).nanos for name, text in (resources or {}).items()}


def _add(total: Nanos, more: Nanos) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


def _raise_to(total: Nanos, floor: Nanos) -> None:
    for name, value in floor.items():
        if value > total.get(name, -1):
            total[name] = value


def _container(container: Object, status: Object | None, infeasible: bool, missing: Nanos) -> Nanos:
    """One container's requests; `missing` are taken for resources that it does not name."""
    requests = _nanos((container.get("resources") or {}).get("requests"))
    if status is not None:
        promised = _nanos(status.get("allocatedResources"))
        actual = _nanos((status.get("resources") or {}).get("requests"))
        if infeasible and actual:
            requests = {}
        _raise_to(requests, actual)
        _raise_to(requests, promised)
    for name, value in missing.items():
        requests.setdefault(name, value)
    return requests


def _is_infeasible(status: Object) -> bool:
    """A pending resize that the node can never grant."""
    return any(
        condition.get("type") == "PodResizePending" and condition.get("reason") == "Infeasible"
        for condition in status.get("conditions") or ()
    )


def _sum(spec: Object, status: Object, missing: Nanos) -> Nanos:
    states = {
        each.get("name"): each
        for field in ("containerStatuses", "initContainerStatuses")
        for each in status.get(field) or ()
    }
    infeasible = bool(states) and _is_infeasible(status)
    total: Nanos = {}
    for container in spec.get("containers") or ():
        _add(total, _container(container, states.get(container.get("name")), infeasible, missing))
    sidecars: Nanos = {}
    peak: Nanos = {}
    for container in spec.get("initContainers") or ():
        restarts = container.get("restartPolicy") == "Always"
        state = states.get(container.get("name")) if restarts else None
        requests = _container(container, state, infeasible, missing)
        if restarts:
            _add(total, requests)
            _add(sidecars, requests)
            _raise_to(peak, sidecars)
        else:
            _add(requests, sidecars)
            _raise_to(peak, requests)
    _raise_to(total, peak)
    own = _nanos((spec.get("resources") or {}).get("requests"))
    total.update({name: value for name, value in own.items() if name in (CPU, MEMORY) or name.startswith("hugepages-")})
    _add(total, _nanos(spec.get("overhead")))
    return total


def requests_of(spec: Object, status: Object) -> dict[str, int]:
    """What must fit on a node."""
    return _whole(_sum(spec, status, {}))


def nonzero_requests_of(spec: Object, status: Object) -> tuple[int, int]:
    """(cpu in thousandths, memory in bytes) for scores, with defaults for containers that ask for none."""
    own = (spec.get("resources") or {}).get("requests") or {}
    missing = {name: value for name, value in _NONZERO_NANOS.items() if name not in own}
    total = _sum(spec, status, missing)
    return amount(CPU, total.get(CPU, 0)), amount(MEMORY, total.get(MEMORY, 0))


def resized(spec: Object, status: Object) -> list[Any]:
    """The parts of a status that change what a Pod counts for: empty for a Pod that was never resized."""
    requests = {
        each.get("name"): (each.get("resources") or {}).get("requests") or {}
        for each in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    }
    states: Iterable[Object] = (
        *(status.get("containerStatuses") or ()),
        *(status.get("initContainerStatuses") or ()),
    )
    told = []
    for state in states:
        asked = requests.get(state.get("name"), {})
        actual = (state.get("resources") or {}).get("requests") or asked
        promised = state.get("allocatedResources") or asked
        if actual != asked or promised != asked:
            told.append((state.get("name"), actual, promised))
    if told:
        told.append(("infeasible", _is_infeasible(status), None))
    return told


# ---------------------------------------------------------------- ports of the host


ANY_IP = "0.0.0.0"


class HostPort(NamedTuple):
    ip: str
    protocol: str
    port: int


def host_ports(spec: Object) -> Iterable[HostPort]:
    """Of containers and sidecars; other init containers are gone when it matters."""
    sidecars = [each for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"]
    for container in (*(spec.get("containers") or ()), *sidecars):
        for port in container.get("ports") or ():
            if port.get("hostPort"):
                yield HostPort(port.get("hostIP") or ANY_IP, port.get("protocol") or "TCP", int(port["hostPort"]))


def ports_conflict(one: HostPort, other: HostPort) -> bool:
    """Whether two Pods on one node could not both have these."""
    if (one.protocol, one.port) != (other.protocol, other.port):
        return False
    return one.ip == other.ip or ANY_IP in (one.ip, other.ip)
