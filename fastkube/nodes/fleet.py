"""The simulated fleet: registers nodes, keeps their leases, and lives the life of the Pods bound to them.

A node belongs to the fleet when it carries the label `fastkube.io/simulated=true` (or kwok's annotation
`kwok.x-k8s.io/node: fake`): the fleet makes `--nodes` of them, and takes up any other that a user makes with kubectl;
deleting one ends it. Everything goes through the API server.

Costs are kept from growing with the number of nodes that do nothing: leases are renewed in slices that share
a request, evenly over the interval, by one task; a Pod waits in one heap with all others; nothing runs per node or Pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import logging
import math
import random
import sys
from collections.abc import Coroutine
from typing import Any

from fastkube.client import Client, Feeds, Informer, object_key
from fastkube.client.discovery import ApiResource
from fastkube.clock import Clock, rfc3339, rfc3339_micro
from fastkube.errors import ApiError
from fastkube.nodes import stages, status, template_functions
from fastkube.nodes.admitting import NODES, Admission
from fastkube.nodes.kubelet import Kubelet
from fastkube.nodes.lifecycle import CONCURRENCY, Later, Lifecycle, Over, Subject
from fastkube.nodes.made import Made, made_nodes, node_address, node_object, subnet
from fastkube.nodes.members import PODS, FleetNode, FleetPod, slim_node
from fastkube.nodes.options import FleetOptions
from fastkube.nodes.script import Script
from fastkube.nodes.script_words import ScriptError, is_scripted

log = logging.getLogger(__name__)
Object = dict[str, Any]

LEASES = "coordination.k8s.io/v1/leases"
LEASE_NAMESPACE = "kube-node-lease"
STARTED = (
    ("Starting", "Starting kubelet."),
    ("NodeHasSufficientMemory", "Node {} status is now: NodeHasSufficientMemory"),
    ("NodeHasNoDiskPressure", "Node {} status is now: NodeHasNoDiskPressure"),
    ("NodeHasSufficientPID", "Node {} status is now: NodeHasSufficientPID"),
    ("NodeAllocatableEnforced", "Updated Node Allocatable limit across pods"),
    ("NodeReady", "Node {} status is now: NodeReady"),
)
"""What a kubelet tells when it starts. Made nodes start without: they would be six events each."""
STATUS_INTERVAL_S = 300.0
"""How often a node that has not changed reports its status: the kubelet's own nodeStatusReportFrequency."""
SERVED_POLL_S = 1.0
RENEWED_TOGETHER = 256
"""So many leases are renewed at a time: as many as share a request, which the server takes as one write."""


class Fleet:
    """`await run()` until cancelled. Raises stages.StageError for Stage files that cannot be used."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        options: FleetOptions,
        *,
        seed: int | None = None,
        feeds: Feeds | None = None,
    ) -> None:
        """`feeds` are those of the process, where others follow Nodes and Pods too."""
        self._client = client
        self._feeds = feeds
        self._clock = clock
        self._options = options
        self._now: tuple[Subject, Object]
        self._random = random.Random(seed)
        functions = {**template_functions.functions(clock, self._random), **self._functions()}
        loaded = stages.load(options.stages, functions)
        self._life = stages.Life(loaded, "Pod", seed)
        self._node_life = stages.Life(loaded, "Node", seed)
        self._staged_nodes = any(stage.kind == "Node" for stage in loaded)
        others = {(stage.api_version, stage.kind) for stage in loaded} - {("v1", "Pod"), ("v1", "Node")}
        self._other_lives = {about: stages.Life(loaded, about[1], seed) for about in others}
        self._lifecycle = Lifecycle(client, clock, status_of=self._status_of, enter=self._enter, changed=self._changed)
        self._made = list(made_nodes(options))
        self._nodes: dict[str, FleetNode] = {}
        self._pods: dict[str, FleetPod] = {}  # by uid, as what is fresh
        self._fresh: dict[str, Object] = {}
        self._node_subjects: dict[str, Subject] = {}
        self._slots = self._lifecycle.slots
        self._admission = Admission(client, clock, self._lifecycle, self._pods, go_on=self._go_on, names=self._names_of)
        self._kubelet: Kubelet
        self._kept: Informer
        self.ready = asyncio.Event()
        """Set when every made node is registered and the Pods are watched."""

    async def run(self) -> None:
        """Make the missing nodes, then keep everything alive. Raises ValueError for nodes that the server refuses."""
        try:
            await self._run()
        except ExceptionGroup as group:
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from group
            raise

    async def _run(self) -> None:
        nodes = Informer(self._client, NODES, transform=self._keep_node, feeds=self._feeds)
        nodes.add_handler(self._node_changed, lambda _, new: self._node_changed(new), self._node_deleted)
        pods = self._kept = Informer(
            self._client, PODS, field_selector="spec.nodeName!=", transform=self._keep_pod, feeds=self._feeds
        )
        pods.add_handler(self._pod_changed, lambda _, new: self._pod_changed(new), self._pod_deleted)
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            group.create_task(nodes.run())
            await nodes.synced.wait()
            ours = [node for node in nodes.list() if node["metadata"]["name"] in self._nodes]
            ports = {node["port"] for node in ours}
            self._kubelet = Kubelet(self._client, self._clock, next(iter(ports), 0))
            stack.push_async_callback(self._kubelet.close)
            for node in ours:
                if node["port"] != self._kubelet.port:
                    self._nodes[node["metadata"]["name"]].status_due = 0.0
            await self._make_nodes()
            group.create_task(pods.run())
            group.create_task(self._lifecycle.run())
            for about, life in self._other_lives.items():
                group.create_task(self._follow(about, life))
            group.create_task(self._renew())
            await pods.synced.wait()
            self._admission.begin()
            self.ready.set()
            if self._options.resource_metrics:
                await self._quietly(self._kubelet.metrics.register(self._kubelet.port))

    # -- nodes -------------------------------------------------------------------------------------------------------

    async def _make_nodes(self) -> None:
        """Those that are missing; others of earlier starts are left alone (delete them with kubectl)."""
        missing = [made for made in self._made if made.name not in self._nodes]
        for start in range(0, len(missing), CONCURRENCY):
            await asyncio.gather(*(self._make_node(made) for made in missing[start : start + CONCURRENCY]))

    async def _make_node(self, made: Made) -> None:
        now = rfc3339(self._clock.time())
        node = node_object(made, self._options, now, self._kubelet.port, ready=not self._staged_nodes)
        try:
            written = await self._client.create(NODES, node)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise ValueError(f"node {made.name}: {error.message}") from error
            log.warning("node %s exists and is not simulated", made.name)
            return
        self._node_added(slim_node(written))

    def _node_added(self, slim: Object) -> None:
        name = slim["metadata"]["name"]
        if name in self._nodes:
            return
        cidr, place = slim["cidr"], len(self._nodes)
        network = int(ipaddress.ip_network(cidr).network_address) if cidr else subnet(self._options, place)
        node = FleetNode(name, slim["address"] or node_address(place), network, slim["about"])
        self._nodes[name] = node
        if not cidr or not slim["address"] or not slim["port"]:
            node.status_due = 0.0  # made by hand: its status comes with the next renewal
        else:
            # as kubelets do, not all at the same time
            node.status_due = self._clock.monotonic() + STATUS_INTERVAL_S * self._random.uniform(0.5, 1.0)

    def _node_deleted(self, obj: Object) -> None:
        self._nodes.pop(obj["metadata"]["name"], None)
        self._fresh.pop(obj["metadata"]["uid"], None)
        subject = self._node_subjects.pop(obj["metadata"]["name"], None)
        if subject is not None:
            subject.turn += 1

    def _keep_node(self, obj: Object, _kept: Object | None) -> Object:
        if self._staged_nodes:
            self._fresh[obj["metadata"]["uid"]] = obj
        return slim_node(obj)

    def _node_changed(self, slim: Object) -> None:
        metadata = slim["metadata"]
        obj = self._fresh.pop(metadata["uid"], None)
        if not metadata["simulated"]:
            return
        self._node_added(slim)
        node = self._nodes[metadata["name"]]
        node.about = slim["about"]
        if metadata["failed"] is not node.failed:
            node.failed = metadata["failed"]
            self._lifecycle.start(self._quietly(self._fall(node) if node.failed else self._rise(node, metadata)))
        if obj is None or node.failed:
            return
        subject = self._node_subjects.get(metadata["name"])
        if subject is None or subject.uid != metadata["uid"]:
            subject = self._node_subjects[metadata["name"]] = Subject(NODES, metadata["uid"])
        subject.turn += 1
        self._choose(subject, self._node_life, {"apiVersion": "v1", "kind": "Node", **obj})

    async def _fall(self, node: FleetNode) -> None:
        """The node is dead: what was to happen on it does not."""
        log.info("node %s fails", node.name)
        for subject in (*self._pods.values(), *filter(None, (self._node_subjects.get(node.name),))):
            if not isinstance(subject, FleetPod) or subject.node == node.name:
                subject.turn += 1

    async def _rise(self, node: FleetNode, metadata: Object) -> None:
        """The node is back: its kubelet starts, reports, and goes on with the Pods that are bound to it."""
        node.status_due = 0.0
        about = {"apiVersion": "v1", "kind": "Node", "metadata": {**metadata, "uid": node.name}}
        for reason, message in STARTED:
            await self._lifecycle.event(about, "Normal", reason, message.format(node.name))
        await self._renew_one(node.name)
        async for page in self._client.pages(PODS, field_selector=f"spec.nodeName={node.name}"):
            for item in page.get("items") or ():
                self._pod_changed(self._keep_pod({"apiVersion": "v1", "kind": "Pod", **item}, None))

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
        if node is None or node.failed:
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
        if self._clock.monotonic() >= node.status_due and not self._staged_nodes:
            await self._report_node(node)

    async def _report_node(self, node: FleetNode) -> None:
        node.status_due = self._clock.monotonic() + STATUS_INTERVAL_S
        conditions = status.node_conditions(rfc3339(self._clock.time()))
        for condition in conditions:
            del condition["lastTransitionTime"]  # a strategic merge keeps the one that is there
        async with self._slots:
            body = {"status": {"conditions": conditions}}
            await self._client.patch("v1/nodes", node.name, body, kind="strategic", subresource="status", brief=True)

    # -- Pods --------------------------------------------------------------------------------------------------------

    def _keep_pod(self, obj: Object, _kept: Object | None) -> Object:
        """The informer's transform: it keeps only what names the Pod; the whole is used up by the handler at once."""
        metadata = obj["metadata"]
        uid = metadata["uid"]
        self._fresh[uid] = obj
        namespace = sys.intern(metadata["namespace"])
        kept = {"name": metadata["name"], "namespace": namespace, "uid": uid}
        return {"metadata": {**kept, "resourceVersion": metadata["resourceVersion"]}}

    def _pod_changed(self, slim: Object) -> None:
        uid = slim["metadata"]["uid"]
        obj = self._fresh.pop(uid, None)
        if obj is None:
            return
        node = self._nodes.get(obj["spec"].get("nodeName", ""))
        if node is None:
            return
        pod = self._pods.get(uid)
        if pod is None:
            pod = self._pods[uid] = FleetPod(uid, node.name)
            pod.ip = node.reserve((obj.get("status") or {}).get("podIP"))
        pod.turn += 1
        self._go_on(pod, obj)

    def _go_on(self, pod: FleetPod, obj: Object) -> None:
        node = self._nodes.get(pod.node)
        if node is None or node.failed or not self._admission.admits(pod, node, obj):
            return
        if status.awaits_ephemeral(obj):
            self._lifecycle.put(pod, stages.START_EPHEMERAL, obj, 0.0)
        elif is_scripted(obj):
            self._lifecycle.put(pod, stages.SCRIPTED, obj, 0.0)
        else:
            self._choose(pod, self._life, obj)

    def _names_of(self, uid: str) -> Object | None:
        return next((each for each in self._kept.list() if each["metadata"]["uid"] == uid), None)

    def _pod_deleted(self, slim: Object) -> None:
        uid = slim["metadata"]["uid"]
        self._fresh.pop(uid, None)
        pod = self._pods.pop(uid, None)
        if pod is None:
            return
        pod.turn += 1
        self._admission.leave(pod)
        node = self._nodes.get(pod.node)
        if node and pod.ip is not None:
            node.give_back(pod.ip)

    # -- lives -------------------------------------------------------------------------------------------------------

    def _changed(self, subject: Subject, obj: Object) -> None:
        """What a Stage has made of an object, when the next one is not to wait for the watch."""
        subject.turn += 1
        if subject.resource == PODS:
            self._choose(subject, self._life, obj)
        elif subject.resource == NODES:
            self._choose(subject, self._node_life, obj)
        else:
            self._choose(subject, self._other_lives[subject.resource.api_version, obj["kind"]], obj)

    def _choose(self, subject: Subject, life: stages.Life, obj: Object) -> None:
        stage = life.next_stage(obj)
        if stage is not None:
            self._lifecycle.put(subject, stage, obj, life.delay_s(stage, obj, self._clock.time()))

    async def _served(self, api_version: str, kind: str) -> ApiResource:
        """Waits until the kind is served: its definition may come later."""
        told = False
        while True:
            try:
                return await self._lifecycle.resource_of(api_version, kind)
            except (stages.StageError, ApiError) as error:
                if not told:
                    log.warning("Stages for %s wait: %s", kind, error)
                told = True
            await asyncio.sleep(SERVED_POLL_S)

    async def _follow(self, about: tuple[str, str], life: stages.Life) -> None:
        """Objects of other kinds that Stages are for, wherever they are."""
        found = await self._served(*about)
        subjects: dict[str, Subject] = {}

        def changed(obj: Object) -> None:
            key, uid = object_key(obj), obj["metadata"]["uid"]
            subject = subjects.get(key)
            if subject is None or subject.uid != uid:
                subject = subjects[key] = Subject(found.resource, uid)
            subject.turn += 1
            self._choose(subject, life, {"apiVersion": about[0], "kind": about[1], **obj})

        def deleted(obj: Object) -> None:
            subject = subjects.pop(object_key(obj), None)
            if subject is not None:
                subject.turn += 1

        informer = Informer(self._client, found.resource, feeds=self._feeds)
        informer.add_handler(changed, lambda _, new: changed(new), deleted)
        await informer.run()

    # -- what templates may ask --------------------------------------------------------------------------------------

    def _enter(self, subject: Subject, obj: Object) -> None:
        self._now = subject, obj

    def _functions(self) -> dict[str, Any]:
        return {
            "NodeName": lambda: self._asked_node()[0],
            "NodeIP": lambda: self._asked_node()[1],
            "NodePort": lambda: self._kubelet.port,
            "NodeIPWith": self._address_of,
            "NodeIPs": lambda: _some(self._asked_node()[1]),
            "NodeIPsWith": lambda name: _some(self._address_of(name)),
            "PodIP": self._address_of_pod,
            "PodIPWith": lambda *words: self._address_of_pod(),
            "PodIPsWith": lambda *words: _some(self._address_of_pod()),
        }

    def _asked_node(self) -> tuple[str, str]:
        subject, obj = self._now
        name = obj["metadata"]["name"] if subject.resource == NODES else obj.get("spec", {}).get("nodeName", "")
        return name, self._address_of(name)

    def _address_of(self, name: str | None) -> str:
        node = self._nodes.get(name or "")
        return node.address if node else ""

    def _address_of_pod(self) -> str:
        subject, obj = self._now
        if not isinstance(subject, FleetPod):
            return ""
        node = self._nodes.get(subject.node)
        if node is None:
            return ""
        return node.address if obj["spec"].get("hostNetwork") else self._ip(node, subject)

    def _ip(self, node: FleetNode, pod: FleetPod) -> str:
        if pod.ip is None:
            pod.ip = node.take()
        return str(ipaddress.IPv4Address(node.pod_network + pod.ip))

    def _status_of(self, subject: Subject, which: str, obj: Object) -> Object | Later | Over:
        now = rfc3339(self._clock.time())
        if which == "ephemeral":
            return status.ephemeral(obj, now)
        node = self._nodes.get(subject.node) if isinstance(subject, FleetPod) else None
        if node is None or not isinstance(
            subject, FleetPod
        ):  # deleted meanwhile; the Pod garbage collector takes its Pods
            return Later(math.inf)
        if which in ("succeeded", "failed"):
            return status.ended(obj, now, which == "failed")
        address = node.address if obj["spec"].get("hostNetwork") else self._ip(node, subject)
        if which == "scripted":
            return self._scripted(subject, obj, address, node.address)
        return status.running(obj, now, node.address, address)

    def _scripted(self, pod: FleetPod, obj: Object, address: str, host: str) -> Object | Later | Over:
        now = self._clock.time()
        if pod.script is None:
            pod.script = Script(obj, now)
        try:
            outcome = pod.script.sync(obj, now, address, host)
        except ScriptError as error:
            raise stages.StageError(str(error)) from error
        for event in outcome.events:
            told = self._lifecycle.event(obj, event.type, event.reason, event.message, field=event.field)
            self._lifecycle.start(self._quietly(told))
        if outcome.status != pod.told:
            pod.told = outcome.status
            return outcome.status
        return Over() if outcome.over else Later(outcome.again_s)

    @staticmethod
    async def _quietly(work: Coroutine[Any, Any, None]) -> None:
        """A renewal that fails is tried again at the next one; it must not stop the others."""
        try:
            await work
        except ApiError as error:
            log.warning("lease, node status or registration: %s", error.message)


def _some(address: str) -> list[str]:
    return [address] if address else []
