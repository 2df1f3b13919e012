"""metrics.k8s.io of the simulated fleet: what `kubectl top` and autoscalers read, made from each container's usage.

    /apis/metrics.k8s.io/v1beta1/nodes[/NAME]
    /apis/metrics.k8s.io/v1beta1/[namespaces/NAMESPACE/]pods[/NAME]?labelSelector=...

It is served by the fleet's kubelet port and registered as an aggregated API, as metrics-server registers itself. Any
other APIService of that name, such as a real metrics-server's, is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastkube.api import quantity
from fastkube.client import Client
from fastkube.clock import Clock, rfc3339
from fastkube.errors import ApiError
from fastkube.nodes import answers
from fastkube.nodes.answers import Usage

Object = dict[str, Any]

GROUP, VERSION = "metrics.k8s.io", "v1beta1"
API_VERSION = f"{GROUP}/{VERSION}"
WINDOW = "30s"

_NAMESPACE, _SERVICE = "kube-system", "simulated-metrics"
_LABELS = {"app.kubernetes.io/managed-by": "fastkube"}
_RESOURCES = (("nodes", "NodeMetrics", False), ("pods", "PodMetrics", True))


def running(pod: Object) -> Iterator[tuple[str, Usage]]:
    """The usage of each running container."""
    for container in pod["spec"]["containers"]:
        status = answers.container_status(pod, container["name"]) or {}
        if "running" in (status.get("state") or {}):
            yield container["name"], answers.usage_of(pod, container)


def _usage(usage: Usage) -> Object:
    return {"cpu": f"{usage.cpu}n", "memory": f"{-(-usage.memory // 1024)}Ki"}


class ResourceMetrics:
    """Answers paths below /apis/metrics.k8s.io with objects; raises ApiError."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def register(self, port: int) -> None:
        """Tell the API server (of this machine) that the group is answered at this port."""
        name = f"{VERSION}.{GROUP}"
        try:
            present = await self._client.get("apiregistration.k8s.io/v1/apiservices", name)
            if (present["spec"].get("service") or {}).get("name") != _SERVICE:
                return
        except ApiError as error:
            if error.reason != "NotFound":
                raise
        metadata: Object = {"name": _SERVICE, "namespace": _NAMESPACE, "labels": _LABELS}
        service = {"type": "ExternalName", "externalName": "localhost"}
        spec = {
            "group": GROUP,
            "version": VERSION,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": True,
            "service": {"name": _SERVICE, "namespace": _NAMESPACE, "port": port},
        }
        await self._apply("v1/services", {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service})
        registration = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService"}
        metadata = {"name": name, "labels": _LABELS}
        await self._apply("apiregistration.k8s.io/v1/apiservices", {**registration, "metadata": metadata, "spec": spec})

    async def _apply(self, resource: str, obj: Object) -> None:
        metadata = obj["metadata"]
        await self._client.patch(
            resource,
            metadata["name"],
            obj,
            metadata.get("namespace", ""),
            kind="apply",
            field_manager="fastkube-nodes",
            force=True,
        )

    async def answer(self, path: str, query: Any) -> Object:
        """`path` without its slashes at the ends."""
        parts = path.split("/")[2:]
        if not parts:
            return _group()
        if parts[0] != VERSION:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        match parts[1:]:
            case []:
                return _resources()
            case ["nodes"]:
                return _list("NodeMetricsList", await self._nodes(query.get("labelSelector", "")))
            case ["nodes", name]:
                return await self._node(name)
            case ["pods"]:
                return _list("PodMetricsList", await self._pods("", query.get("labelSelector", "")))
            case ["namespaces", namespace, "pods"]:
                return _list("PodMetricsList", await self._pods(namespace, query.get("labelSelector", "")))
            case ["namespaces", namespace, "pods", name]:
                pod = await self._client.get("v1/pods", name, namespace)
                if not (containers := list(running(pod))):
                    told = f'podmetrics.{GROUP} "{namespace}/{name}" not found'
                    raise ApiError(404, "NotFound", told)
                return self._pod_metrics(pod, containers)
            case _:
                raise ApiError(404, "NotFound", "the server could not find the requested resource")

    async def _pods(self, namespace: str, selector: str) -> list[Object]:
        found = await self._client.list("v1/pods", namespace, label_selector=selector)
        return [self._pod_metrics(pod, containers) for pod in found["items"] if (containers := list(running(pod)))]

    def _pod_metrics(self, pod: Object, containers: list[tuple[str, Usage]]) -> Object:
        metadata = pod["metadata"]
        return {
            "kind": "PodMetrics",
            "apiVersion": API_VERSION,
            "metadata": self._metadata(metadata, metadata["namespace"]),
            "timestamp": rfc3339(self._clock.time()),
            "window": WINDOW,
            "containers": [{"name": name, "usage": _usage(usage)} for name, usage in containers],
        }

    def _metadata(self, metadata: Object, namespace: str = "") -> Object:
        told = {"name": metadata["name"], "creationTimestamp": rfc3339(self._clock.time())}
        if namespace:
            told["namespace"] = namespace
        if metadata.get("labels"):
            told["labels"] = metadata["labels"]
        return told

    async def _nodes(self, selector: str) -> list[Object]:
        nodes = await self._client.list("v1/nodes", label_selector=selector)
        used: dict[str, list[Usage]] = {}
        for pod in (await self._client.list("v1/pods", field_selector="spec.nodeName!="))["items"]:
            used.setdefault(pod["spec"]["nodeName"], []).extend(usage for _, usage in running(pod))
        return [self._node_metrics(node, used.get(node["metadata"]["name"], [])) for node in nodes["items"]]

    async def _node(self, name: str) -> Object:
        node = await self._client.get("v1/nodes", name)
        pods = await self._client.list("v1/pods", field_selector=f"spec.nodeName={name}")
        return self._node_metrics(node, [usage for pod in pods["items"] for _, usage in running(pod)])

    def _node_metrics(self, node: Object, used: list[Usage]) -> Object:
        """A node uses what its Pods use, and a hundredth of its own capacity."""
        capacity = (node.get("status") or {}).get("capacity") or {}
        idle_cpu = quantity.milli(capacity.get("cpu", "0")) * 10_000
        idle_memory = quantity.value(capacity.get("memory", "0")) // 100
        whole = Usage(idle_cpu + sum(each.cpu for each in used), idle_memory + sum(each.memory for each in used))
        return {
            "kind": "NodeMetrics",
            "apiVersion": API_VERSION,
            "metadata": self._metadata(node["metadata"]),
            "timestamp": rfc3339(self._clock.time()),
            "window": WINDOW,
            "usage": _usage(whole),
        }


def _list(kind: str, items: list[Object]) -> Object:
    return {"kind": kind, "apiVersion": API_VERSION, "metadata": {}, "items": items}


def _group() -> Object:
    version = {"groupVersion": API_VERSION, "version": VERSION}
    return {"kind": "APIGroup", "apiVersion": "v1", "name": GROUP, "versions": [version], "preferredVersion": version}


def _resources() -> Object:
    found = [
        {"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "list"]}
        for name, kind, namespaced in _RESOURCES
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION, "resources": found}
