"""The simulated fleet: registers nodes, keeps their leases, and lives the life of the Pods bound to them.

A node belongs to the fleet when it carries the label `fastkube.io/simulated=true`: the fleet makes `--nodes` of them,
and takes up any other that a user makes with kubectl; deleting one ends it. Everything goes through the API server.

Costs are kept from growing with the number of nodes that do nothing: leases are renewed in slices that share
a request, evenly over the interval, by one task; a Pod waits in one heap with all others; nothing runs per node or Pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import ipaddress
import itertools
import logging
import math
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from fastkube.client import Client, Informer, object_key
from fastkube.clock import Clock, rfc3339, rfc3339_micro
from fastkube.errors import ApiError
from fastkube.nodes import stages, status
from fastkube.nodes.kubelet import Kubelet
from fastkube.nodes.options import FleetOptions

log = logging.getLogger(__name__)
Object = dict[str, Any]

SIMULATED = "fastkube.io/simulated"
LEASES = "coordination.k8s.io/v1/leases"
LEASE_NAMESPACE = "kube-node-lease"
STATUS_INTERVAL_S = 300.0
"""How often a node that has not changed reports its status: the kubelet's own nodeStatusReportFrequency."""
CONCURRENCY = 256
RETRY_S = 0.5
RENEWED_TOGETHER = 256
"""So many leases are renewed at a time: as many as share a request, which the server takes as one write."""


@dataclass(slots=True)
class _Node:
    name: str
    address: str
    pod_network: int  # the first address of the node's /24 of Pod IPs
    free: deque[int]  # host parts that no Pod of the node has; the longest unused first
    lease_revision: str = ""
    status_due: float = 0.0


@dataclass(slots=True)
class _Pod:
    """A Pod that waits for its stage. `ip` stays reserved until the Pod is gone."""

    uid: str
    node: str
    ip: int | None = None
    turn: int = 0  # rises with every change of the Pod, so that a stage chosen for an older state is dropped


class Fleet:
    """`await run()` until cancelled. Raises stages.StageError for Stage files that cannot be used."""

    def __init__(self, client: Client, clock: Clock, options: FleetOptions, *, seed: int | None = None) -> None:
        self._client = client
        self._clock = clock
        self._options = options
        self._life = stages.Life(stages.load(options.stages), "Pod", seed)
        self._network = ipaddress.ip_network(options.pod_cidr)
        self._nodes: dict[str, _Node] = {}
        self._pods: dict[str, _Pod] = {}
        self._fresh: dict[str, Object] = {}
        self._due: list[tuple[float, int, str, int, stages.Stage, Object]] = []
        self._order = itertools.count()
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._tasks: set[asyncio.Task[None]] = set()
        self._kubelet: Kubelet
        self.ready = asyncio.Event()
        """Set when every made node is registered and the Pods are watched."""

    async def run(self) -> None:
        """Make the missing nodes, then keep everything alive."""
        nodes = Informer(self._client, "v1/nodes", label_selector=f"{SIMULATED}=true", transform=_slim_node)
        nodes.add_handler(self._node_added, None, self._node_deleted)
        pods = Informer(self._client, "v1/pods", field_selector="spec.nodeName!=", transform=self._keep_pod)
        pods.add_handler(self._pod_changed, lambda _, new: self._pod_changed(new), self._pod_deleted)
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            group.create_task(nodes.run())
            await nodes.synced.wait()
            ports = {_kubelet_port(node) for node in nodes.list()}
            self._kubelet = Kubelet(self._client, self._clock, next(iter(ports), 0))
            stack.push_async_callback(self._kubelet.close)
            for node in nodes.list():
                if _kubelet_port(node) != self._kubelet.port:
                    self._nodes[node["metadata"]["name"]].status_due = 0.0
            await self.resize(self._options.nodes)
            group.create_task(pods.run())
            group.create_task(self._live())
            group.create_task(self._renew())
            await pods.synced.wait()
            self.ready.set()
            if self._options.resource_metrics:
                await self._quietly(self._kubelet.metrics.register(self._kubelet.port))

    # -- nodes -------------------------------------------------------------------------------------------------------

    async def resize(self, count: int) -> None:
        """Have at least `count` made nodes; nodes beyond that are left alone (delete them with kubectl)."""
        missing = [number for number in range(count) if f"{self._options.node_name_prefix}{number}" not in self._nodes]
        for start in range(0, len(missing), CONCURRENCY):
            await asyncio.gather(*(self._make_node(number) for number in missing[start : start + CONCURRENCY]))

    async def _make_node(self, number: int) -> None:
        try:
            made = await self._client.create("v1/nodes", self._node_object(number))
        except ApiError as error:
            if error.reason == "AlreadyExists":
                log.warning("node %s%d exists and is not simulated", self._options.node_name_prefix, number)
                return
            raise
        self._node_added(made)

    def _node_object(self, number: int) -> Object:
        options, name = self._options, f"{self._options.node_name_prefix}{number}"
        now = rfc3339(self._clock.time())
        labels = {
            SIMULATED: "true",
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            "node.kubernetes.io/instance-type": "simulated",
        }
        if options.node_zones:
            labels["topology.kubernetes.io/zone"] = f"zone-{number % options.node_zones}"
            labels["topology.kubernetes.io/region"] = "region-0"
        capacity = {
            "cpu": options.node_cpu,
            "memory": options.node_memory,
            "ephemeral-storage": "1Ti",
            "hugepages-1Gi": "0",
            "hugepages-2Mi": "0",
            "pods": str(options.node_pods),
        }
        pod_cidr = str(ipaddress.ip_network((self._subnet(number), 24)))
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}},
            "spec": {"podCIDR": pod_cidr, "podCIDRs": [pod_cidr]},
            "status": {
                "capacity": capacity,
                "allocatable": capacity,
                "conditions": status.node_conditions(now),
                "addresses": _addresses(name, _node_address(number)),
                "daemonEndpoints": {"kubeletEndpoint": {"Port": self._kubelet.port}},
                "nodeInfo": {
                    "machineID": "",
                    "systemUUID": "",
                    "bootID": "",
                    "kernelVersion": "6.1.0-simulated",
                    "osImage": "fastkube simulated node",
                    "containerRuntimeVersion": "fastkube://0.1.0",
                    "kubeletVersion": "v1.36.2",
                    "kubeProxyVersion": "",
                    "operatingSystem": "linux",
                    "architecture": "amd64",
                },
            },
        }

    def _subnet(self, number: int) -> int:
        blocks = self._network.num_addresses // 256
        return int(self._network.network_address) + (number % blocks) * 256

    def _node_added(self, obj: Object) -> None:
        name = obj["metadata"]["name"]
        if name in self._nodes:
            return
        addresses = (obj.get("status") or {}).get("addresses") or ()
        address = next((each["address"] for each in addresses if each["type"] == "InternalIP"), "")
        cidr = (obj.get("spec") or {}).get("podCIDR")
        network = int(ipaddress.ip_network(cidr).network_address) if cidr else self._subnet(len(self._nodes))
        node = _Node(name, address or _node_address(len(self._nodes)), network, deque(range(2, 255)))
        self._nodes[name] = node
        if not cidr or not addresses or not _kubelet_port(obj):
            node.status_due = 0.0  # made by hand: its status comes with the next renewal
        else:
            node.status_due = self._clock.monotonic() + STATUS_INTERVAL_S

    def _node_deleted(self, obj: Object) -> None:
        self._nodes.pop(obj["metadata"]["name"], None)

    async def _renew(self) -> None:
        """Renew each node's lease once in a quarter of its duration, a slice of the nodes at a time."""
        interval_s = self._options.node_lease_duration_seconds / 4
        for number in itertools.count():
            slices = max(1, math.ceil(len(self._nodes) / RENEWED_TOGETHER))
            names = list(self._nodes)[number % slices :: slices]
            await asyncio.gather(*(self._quietly(self._renew_one(name)) for name in names))
            await self._clock.sleep(interval_s / slices)

    async def _renew_one(self, name: str) -> None:
        node = self._nodes.get(name)
        if node is None:
            return
        now = self._clock.time()
        spec = {
            "holderIdentity": name,
            "leaseDurationSeconds": self._options.node_lease_duration_seconds,
            "renewTime": rfc3339_micro(now),
        }
        metadata: Object = {"name": name, "namespace": LEASE_NAMESPACE}
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        try:
            if node.lease_revision:
                metadata["resourceVersion"] = node.lease_revision
                written = await self._client.update(LEASES, lease, LEASE_NAMESPACE)
            else:
                written = await self._client.create(LEASES, lease, LEASE_NAMESPACE)
        except ApiError as error:
            if error.reason == "NotFound":
                node.lease_revision = ""
            elif error.reason in ("AlreadyExists", "Conflict"):
                written = await self._client.get(LEASES, name, LEASE_NAMESPACE)
                node.lease_revision = written["metadata"]["resourceVersion"]
            else:
                raise
        else:
            node.lease_revision = written["metadata"]["resourceVersion"]
        if self._clock.monotonic() >= node.status_due:
            await self._report_node(node)

    async def _report_node(self, node: _Node) -> None:
        node.status_due = self._clock.monotonic() + STATUS_INTERVAL_S
        conditions = status.node_conditions(rfc3339(self._clock.time()))
        for condition in conditions:
            del condition["lastTransitionTime"]  # a strategic merge keeps the one that is there
        async with self._slots:
            body = {"status": {"conditions": conditions}}
            await self._client.patch("v1/nodes", node.name, body, kind="strategic", subresource="status", brief=True)

    # -- Pods --------------------------------------------------------------------------------------------------------

    def _keep_pod(self, obj: Object) -> Object:
        """The informer's transform: it keeps only what names the Pod; the whole is used up by the handler at once."""
        metadata = obj["metadata"]
        self._fresh[object_key(obj)] = obj
        names = ("name", "namespace", "uid", "resourceVersion")
        return {"metadata": {key: metadata[key] for key in names}}

    def _pod_changed(self, slim: Object) -> None:
        key = object_key(slim)
        obj = self._fresh.pop(key, None)
        if obj is None:
            return
        name = obj["spec"].get("nodeName", "")
        node = self._nodes.get(name)
        if node is None:
            return
        pod = self._pods.get(key)
        if pod is None or pod.uid != obj["metadata"]["uid"]:
            pod = self._pods[key] = _Pod(obj["metadata"]["uid"], name)
            self._reserve(node, pod, (obj.get("status") or {}).get("podIP"))
        pod.turn += 1
        stage = stages.START_EPHEMERAL if status.awaits_ephemeral(obj) else self._life.next_stage(obj)
        if stage is not None:
            due = self._clock.monotonic() + self._life.delay_s(stage, obj, self._clock.time())
            heapq.heappush(self._due, (due, next(self._order), key, pod.turn, stage, obj))
            self._wake.set()

    @staticmethod
    def _reserve(node: _Node, pod: _Pod, taken: str | None) -> None:
        """Remember the address that the Pod had before this process started."""
        if taken:
            host = int(ipaddress.ip_address(taken)) - node.pod_network
            if host in node.free:
                node.free.remove(host)
                pod.ip = host

    def _pod_deleted(self, slim: Object) -> None:
        key = object_key(slim)
        self._fresh.pop(key, None)
        pod = self._pods.pop(key, None)
        node = self._nodes.get(pod.node) if pod else None
        if pod and node and pod.ip is not None:
            node.free.append(pod.ip)

    async def _live(self) -> None:
        """Perform each stage when its time has come."""
        while True:
            now = self._clock.monotonic()
            while self._due and self._due[0][0] <= now:
                _, _, key, turn, stage, obj = heapq.heappop(self._due)
                pod = self._pods.get(key)
                if pod is not None and pod.turn == turn:
                    await self._slots.acquire()
                    self._start(self._perform(key, pod, stage, obj))
            self._wake.clear()
            if not self._due:
                await self._wake.wait()
            else:
                await self._sleep_or_wake(self._due[0][0] - now)

    async def _sleep_or_wake(self, seconds: float) -> None:
        sleeper = asyncio.ensure_future(self._clock.sleep(seconds))
        waker = asyncio.ensure_future(self._wake.wait())
        await asyncio.wait((sleeper, waker), return_when=asyncio.FIRST_COMPLETED)
        sleeper.cancel()
        waker.cancel()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _perform(self, key: str, pod: _Pod, stage: stages.Stage, obj: Object) -> None:
        """Holds one of the slots; gives it back."""
        try:
            await self._do(pod, stage, obj)
        except ApiError as error:
            if error.reason not in ("NotFound", "Conflict"):  # the Pod has changed: its event brings the next stage
                log.warning("pod %s, stage %s: %s", key, stage.name, error.message)
                again = self._clock.monotonic() + RETRY_S
                heapq.heappush(self._due, (again, next(self._order), key, pod.turn, stage, obj))
                self._wake.set()
        finally:
            self._slots.release()

    async def _do(self, pod: _Pod, stage: stages.Stage, obj: Object) -> None:
        metadata = obj["metadata"]
        name, namespace = metadata["name"], metadata["namespace"]
        if stage.event:
            await self._event(obj, stage.event)
        if stage.delete:
            await self._client.delete("v1/pods", name, namespace, grace_period_s=0, uid=pod.uid, brief=True)
            return
        if stage.status:
            node = self._nodes.get(pod.node)
            if node is None:  # deleted meanwhile; the Pod garbage collector takes its Pods
                return
            body = {"metadata": {"uid": pod.uid}, "status": self._status(node, pod, stage.status, obj)}
            await self._client.patch(
                "v1/pods", name, body, namespace, kind="strategic", subresource="status", brief=True
            )

    def _status(self, node: _Node, pod: _Pod, which: str, obj: Object) -> Object:
        now = rfc3339(self._clock.time())
        if which == stages.START_EPHEMERAL.status:
            return status.ephemeral(obj, now)
        if which != "running":
            return status.ended(obj, now, which == "failed")
        if obj["spec"].get("hostNetwork"):
            return status.running(obj, now, node.address, node.address)
        if pod.ip is None:
            pod.ip = node.free.popleft() if node.free else 1
        return status.running(obj, now, node.address, str(ipaddress.IPv4Address(node.pod_network + pod.ip)))

    async def _event(self, obj: Object, event: Object) -> None:
        metadata, now = obj["metadata"], rfc3339(self._clock.time())
        reference = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "namespace": metadata["namespace"]}
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": metadata["name"] + ".", "namespace": metadata["namespace"]},
            "involvedObject": {**reference, "uid": metadata["uid"]},
            "type": event.get("type", "Normal"),
            "reason": event.get("reason", ""),
            "message": event.get("message", ""),
            "source": {"component": "kubelet", "host": obj["spec"]["nodeName"]},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        await self._client.create("v1/events", body, metadata["namespace"], brief=True)

    @staticmethod
    async def _quietly(work: Coroutine[Any, Any, None]) -> None:
        """A renewal that fails is tried again at the next one; it must not stop the others."""
        try:
            await work
        except ApiError as error:
            log.warning("lease, node status or registration: %s", error.message)


def _slim_node(obj: Object) -> Object:
    names = ("name", "uid", "resourceVersion")
    return {
        "metadata": {key: obj["metadata"][key] for key in names},
        "spec": {"podCIDR": (obj.get("spec") or {}).get("podCIDR")},
        "status": {key: (obj.get("status") or {}).get(key) or {} for key in ("addresses", "daemonEndpoints")},
    }


def _kubelet_port(node: Object) -> int:
    endpoints = (node.get("status") or {}).get("daemonEndpoints") or {}
    port: int = (endpoints.get("kubeletEndpoint") or {}).get("Port") or 0
    return port


def _addresses(name: str, address: str) -> list[Object]:
    """Every simulated kubelet is on this machine, and told apart by its name."""
    kinds = {"InternalIP": address, "Hostname": name, "InternalDNS": f"{name}.localhost"}
    return [{"type": kind, "address": told} for kind, told in kinds.items()]


def _node_address(number: int) -> str:
    """Addresses from 172.16.0.1 up, one a node; nothing listens there."""
    return str(ipaddress.IPv4Address(int(ipaddress.IPv4Address("172.16.0.1")) + number))
