"""What a kubelet would write: the status of a Pod that runs, has ended well or has failed; the status of a ready node.

Pure functions over dicts. Times are RFC 3339 texts. Source: the PodStatus and NodeStatus that a 1.36 kubelet reports.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

Object = dict[str, Any]


def condition(kind: str, status: str, now: str, reason: str = "") -> Object:
    made = {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": now}
    if reason:
        made["reason"] = reason
    return made


@lru_cache(maxsize=4096)
def image_id(image: str) -> str:
    return f"{image.partition('@')[0].rpartition(':')[0] or image}@sha256:{hashlib.sha256(image.encode()).hexdigest()}"


def container_id(uid: str, container: str, restarts: int) -> str:
    seed = f"{uid}/{container}/{restarts}"
    return "containerd://" + hashlib.sha256(seed.encode()).hexdigest()


def _container(pod: Object, container: Object, state: Object, ready: bool, started: bool) -> Object:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": image_id(container["image"]),
        "containerID": container_id(pod["metadata"].get("uid", ""), container["name"], 0),
        "restartCount": 0,
        "ready": ready,
        "started": started,
        "lastState": {},
        "state": state,
        **resources_given(pod, container),
    }


def resources_given(pod: Object, container: Object) -> Object:
    """What a container has, as far as its status tells already; what it asks for otherwise."""
    name, told = container["name"], pod.get("status") or {}
    for kind in ("containerStatuses", "initContainerStatuses"):
        for each in told.get(kind) or ():
            if each["name"] == name and "resources" in each:
                return {key: each[key] for key in ("resources", "allocatedResources") if key in each}
    return resources_asked(container)


def resources_asked(container: Object) -> Object:
    """What the status of a container says of it when it has all that it asks for."""
    resources = container.get("resources") or {}
    requests = resources.get("requests")
    return {"resources": resources, "allocatedResources": requests} if requests else {"resources": resources}


def _ended(pod: Object, container: Object, now: str, code: int, started_at: str) -> Object:
    return {
        "terminated": {
            "exitCode": code,
            "reason": "Completed" if code == 0 else "Error",
            "startedAt": started_at,
            "finishedAt": now,
            "containerID": container_id(pod["metadata"].get("uid", ""), container["name"], 0),
        }
    }


def _always_restarts(container: Object) -> bool:
    return container.get("restartPolicy") == "Always"


@lru_cache(maxsize=64)
def _running_conditions(ready: bool, generation: int, now: str) -> list[Object]:
    """Of all Pods that start in the same second; not to be changed."""
    conditions = [
        condition(kind, "True", now)
        for kind in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    ]
    if not ready:
        conditions[2] = condition("Ready", "False", now, "ReadinessGatesNotReady")
    for each in conditions:
        each["observedGeneration"] = generation
    return conditions


def running(pod: Object, now: str, host_ip: str, pod_ip: str) -> Object:
    """All containers run and are ready; init containers have ended, sidecars go on."""
    spec, generation = pod["spec"], pod["metadata"].get("generation", 1)
    ready = True
    if gates := [gate["conditionType"] for gate in spec.get("readinessGates") or ()]:
        present = {each["type"]: each.get("status") for each in pod.get("status", {}).get("conditions") or ()}
        ready = all(present.get(gate) == "True" for gate in gates)
    alive = {"running": {"startedAt": now}}
    status: Object = {
        "observedGeneration": generation,
        "phase": "Running",
        "conditions": _running_conditions(ready, generation, now),
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        "podIP": pod_ip,
        "podIPs": [{"ip": pod_ip}],
        "startTime": now,
        "containerStatuses": [_container(pod, each, alive, True, True) for each in spec["containers"]],
    }
    if spec.get("ephemeralContainers"):
        status |= ephemeral(pod, now)
    if spec.get("initContainers"):
        status["initContainerStatuses"] = [
            _container(pod, each, alive, True, True)
            if _always_restarts(each)
            else _container(pod, each, _ended(pod, each, now, 0, now), True, False)
            for each in spec["initContainers"]
        ]
    return status


def awaits_ephemeral(pod: Object) -> bool:
    """Whether a running Pod has ephemeral containers (kubectl debug) that have not been started."""
    wanted = pod["spec"].get("ephemeralContainers")
    if not wanted:
        return False
    status = pod.get("status") or {}
    return status.get("phase") == "Running" and len(wanted) > len(status.get("ephemeralContainerStatuses") or ())


def ephemeral(pod: Object, now: str) -> Object:
    """Ephemeral containers that have not been started run; the status of the others stays."""
    present = {each["name"]: each for each in (pod.get("status") or {}).get("ephemeralContainerStatuses") or ()}
    alive = {"running": {"startedAt": now}}
    return {
        "ephemeralContainerStatuses": [
            present.get(each["name"]) or _container(pod, each, alive, False, False)
            for each in pod["spec"]["ephemeralContainers"]
        ]
    }


def ended(pod: Object, now: str, failed: bool) -> Object:
    """Every container has ended, well or (the first) with exit code 1."""
    spec, present = pod["spec"], pod.get("status", {})
    started_at = present.get("startTime") or now
    reason = "PodFailed" if failed else "PodCompleted"
    conditions = [
        condition("PodReadyToStartContainers", "False", now),
        condition("Initialized", "True", started_at, "" if failed else reason),
        condition("Ready", "False", now, reason),
        condition("ContainersReady", "False", now, reason),
        condition("PodScheduled", "True", started_at),
    ]
    statuses = []
    for number, each in enumerate(spec["containers"]):
        code = 1 if failed and number == 0 else 0
        statuses.append(_container(pod, each, _ended(pod, each, now, code, started_at), False, False))
    status = {
        "phase": "Failed" if failed else "Succeeded",
        "conditions": conditions,
        "containerStatuses": statuses,
    }
    if spec.get("ephemeralContainers"):
        status["ephemeralContainerStatuses"] = [
            _container(pod, each, _ended(pod, each, now, 0, started_at), False, False)
            for each in spec["ephemeralContainers"]
        ]
    if spec.get("initContainers"):
        status["initContainerStatuses"] = [
            _container(pod, each, _ended(pod, each, now, 0, started_at), True, False) for each in spec["initContainers"]
        ]
    return status


def node_conditions(now: str) -> list[Object]:
    """The four conditions of a healthy node."""
    healthy = (
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    )
    return [
        {
            "type": kind,
            "status": status,
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
            "reason": reason,
            "message": message,
        }
        for kind, status, reason, message in healthy
    ]
