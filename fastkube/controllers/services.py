"""What Endpoints and EndpointSlices have in common: which Pods stand behind a Service, and on which ports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fastkube.client import object_key
from fastkube.clock import rfc3339
from fastkube.controllers.caches import Caches
from fastkube.controllers.common import (
    PODS,
    Object,
    Objects,
    condition,
    is_finished,
    is_ready,
    is_terminating,
    seconds,
    selector_of,
)
from fastkube.controllers.pod_topics import ADDRESS, HEALTH, LABELLED, METADATA, PHASE, PLACED

SERVICES = "v1/services"

HEADLESS_LABEL = "service.kubernetes.io/headless"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"


def services_of_pod(caches: Caches, pod: Object) -> Iterable[str]:
    """Keys: the Services that select the Pod."""
    namespace, labels = pod["metadata"]["namespace"], pod["metadata"].get("labels") or {}
    if not caches.is_indexed(SERVICES, "selecting", namespace):
        return ()
    return [
        object_key(service)
        for key, value in labels.items()
        for service in caches.index(SERVICES, "selector-term", f"{namespace}/{key}={value}")
        if selector_of(service).matches(labels)
    ]


def pod_matters(old: Object, new: Object) -> bool:
    """Whether a change of a Pod can change an endpoint: its address, node, labels, readiness or life."""
    return _endpoint_facts(old) != _endpoint_facts(new)


POD_TOPICS = (LABELLED, PHASE | HEALTH | METADATA | PLACED | ADDRESS)


def _endpoint_facts(pod: Object) -> tuple[Any, ...]:
    status = pod.get("status") or {}
    return (
        status.get("phase"),
        status.get("podIPs"),
        is_ready(pod),
        is_terminating(pod),
        pod["metadata"].get("labels"),
        pod["spec"].get("nodeName"),
    )


def has_endpoints(service: Object) -> bool:
    """Services without selector have those which somebody else writes; external names have none."""
    return bool(service["spec"].get("selector")) and service["spec"].get("type") != "ExternalName"


def selected_pods(caches: Caches, service: Object) -> Objects:
    matches = selector_of(service).matches
    pods = caches.index(PODS, "namespace", service["metadata"]["namespace"])
    return [pod for pod in pods if matches(pod["metadata"].get("labels"))]


def takes_part(pod: Object, *, with_terminating: bool) -> bool:
    """Whether a Pod is an endpoint at all: it has an address and may still serve."""
    if is_finished(pod) or not pod_ips(pod):
        return False
    return with_terminating or not is_terminating(pod)


def pod_ips(pod: Object) -> list[str]:
    status = pod.get("status") or {}
    listed = [entry["ip"] for entry in status.get("podIPs") or () if entry.get("ip")]
    return listed or ([status["podIP"]] if status.get("podIP") else [])


def is_ipv6(address: str) -> bool:
    return ":" in address


def is_headless(service: Object) -> bool:
    return bool(service["spec"].get("clusterIP") == "None")


def publishes_not_ready(service: Object) -> bool:
    return bool(service["spec"].get("publishNotReadyAddresses"))


def hostname(service: Object, pod: Object) -> str:
    """The Pod's own name under the Service, where it asked for one."""
    spec = pod["spec"]
    if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
        return str(spec["hostname"])
    return ""


def target_ref(pod: Object) -> Object:
    metadata = pod["metadata"]
    return {"kind": "Pod", "namespace": metadata["namespace"], "name": metadata["name"], "uid": metadata["uid"]}


def endpoint_ports(service: Object, pod: Object) -> Objects:
    """The Service's ports as this Pod serves them; a named target port that the Pod has not is left out."""
    found: Objects = []
    for port in service["spec"].get("ports") or ():
        number = _target_port(port, pod)
        if number is None:
            continue
        made: Object = {"name": port.get("name", ""), "port": number, "protocol": port.get("protocol", "TCP")}
        if port.get("appProtocol"):
            made["appProtocol"] = port["appProtocol"]
        found.append(made)
    return found


def _target_port(port: Object, pod: Object) -> int | None:
    target = port.get("targetPort", port["port"])
    if isinstance(target, int):
        return target or int(port["port"])
    protocol = port.get("protocol", "TCP")
    spec = pod["spec"]
    sidecars = [made for made in spec.get("initContainers") or () if made.get("restartPolicy") == "Always"]
    for container in [*(spec.get("containers") or ()), *sidecars]:
        for entry in container.get("ports") or ():
            if entry.get("name") == target and entry.get("protocol", "TCP") == protocol:
                return int(entry["containerPort"])
    return None


def trigger_time(service: Object, pods: Sequence[Object]) -> str:
    """When what the endpoints tell last changed: a Pod's readiness, or else the Service's creation."""
    times = [seconds(service["metadata"]["creationTimestamp"])]
    for pod in pods:
        ready = condition(pod, "Ready")
        if ready is not None and ready.get("lastTransitionTime"):
            times.append(seconds(ready["lastTransitionTime"]))
    return rfc3339(max(times))
