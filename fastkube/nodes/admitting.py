"""Pods are admitted to the nodes of the fleet, or fail: admission.py asked and its answers carried out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from fastkube.client import Client, Resource
from fastkube.clock import Clock, rfc3339
from fastkube.errors import ApiError
from fastkube.nodes import admission, status
from fastkube.nodes.admission import Demands, Load, NoRoomError, Refusal
from fastkube.nodes.lifecycle import RETRY_S, Lifecycle
from fastkube.nodes.members import PODS, FleetNode, FleetPod
from fastkube.nodes.resizing import Resizing, awaits_resize

log = logging.getLogger(__name__)
Object = dict[str, Any]

NODES = Resource("", "v1", "nodes")


class Admission:
    """`go_on` is called for a Pod that had to wait for its admission; `names` finds a Pod's names by its uid."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        lifecycle: Lifecycle,
        pods: Mapping[str, FleetPod],
        *,
        go_on: Callable[[FleetPod, Object], None],
        names: Callable[[str], Object | None],
    ) -> None:
        self._client, self._clock, self._lifecycle = client, clock, lifecycle
        self._pods, self._go_on, self._names = pods, go_on, names
        self._demands = Demands()
        self._loads: dict[str, Load] = {}
        self._early: list[FleetPod] | None = []
        self._resizing = Resizing(client, clock, lifecycle, pods, self._demands, self._loads)

    def begin(self) -> None:
        """All Pods are known now: those that have not run yet are admitted in the order in which they were made."""
        early, self._early = self._early or [], None
        early.sort(key=lambda pod: str((pod.awaited or {}).get("metadata", {}).get("creationTimestamp", "")))
        for pod in early:
            obj, pod.awaited = pod.awaited, None
            if obj is not None and self._pods.get(pod.uid) is pod:
                self._go_on(pod, obj)

    def admits(self, pod: FleetPod, node: FleetNode, obj: Object) -> bool:
        """Whether the Pod's life goes on now. If not, the node is looked at anew, and it goes on later or fails."""
        told = obj.get("status") or {}
        if told.get("phase") in admission.OVER:
            self.leave(pod)
            return True
        if pod.demand is not None:
            if awaits_resize(obj):
                self._resizing.look(pod, node, obj)
            return True
        metadata = obj["metadata"]
        if metadata.get("deletionTimestamp") or admission.MIRROR in (metadata.get("annotations") or ()):
            pod.awaited = None
            return True
        if pod.awaited is not None:
            pod.awaited = obj
            return False
        if told.get("podIP") or told.get("startTime"):  # it has been admitted before this process was there
            self._take(pod, obj)
            return True
        if self._early is not None:
            pod.awaited = obj
            self._early.append(pod)
            return False
        if not self._refusals(pod, node.about, obj):
            self._take(pod, obj)
            return True
        pod.awaited = obj
        self._lifecycle.start(self._look_again(pod))
        return False

    def leave(self, pod: FleetPod) -> None:
        """The Pod has ended or is gone: what it took is free."""
        if pod.demand is None:
            return
        load = self._loads[pod.node]
        load.give_back(pod.demand)
        pod.demand = None
        if load.empty:
            del self._loads[pod.node]
        self._resizing.retry(pod.node)

    def _take(self, pod: FleetPod, obj: Object) -> None:
        pod.demand = self._demands.of(obj)
        self._loads.setdefault(pod.node, Load()).take(pod.demand)

    def _refusals(self, pod: FleetPod, node: Object, obj: Object) -> list[Refusal]:
        return admission.refusals(obj, self._demands.of(obj), node, self._loads.get(pod.node) or Load())

    async def _look_again(self, pod: FleetPod) -> None:
        """What is known of the node may be behind: decide on the node that the server has."""
        while pod.awaited is not None and self._pods.get(pod.uid) is pod:
            try:
                async with self._lifecycle.slots:
                    node = await self._client.get(NODES, pod.node)
                    if await self._decided(pod, {"status": {}, **node}):
                        return
            except ApiError as error:
                if error.reason in ("NotFound", "Conflict"):  # the node or the Pod is gone
                    return
                log.warning("admission of pod %s: %s", pod.uid, error.message)
                await self._clock.sleep(RETRY_S)

    async def _decided(self, pod: FleetPod, node: Object) -> bool:
        """Whether that was it; False when Pods had to go first."""
        obj = pod.awaited
        if obj is None:
            return True
        refused = self._refusals(pod, node, obj)
        demand = self._demands.of(obj)
        if refused and demand.critical:
            others = [each for each in refused if each.short is None]
            if not others:
                return await self._make_room(pod, obj, refused)
            refused = others
        if refused:
            await self._fail(obj, refused[0])
            return True
        self._take(pod, obj)
        pod.awaited = None
        self._go_on(pod, obj)
        return True

    async def _make_room(self, pod: FleetPod, obj: Object, refused: list[Refusal]) -> bool:
        present = [
            (each.uid, each.demand)
            for each in self._pods.values()
            if each.node == pod.node and each.demand is not None
        ]  # fmt: skip
        shortages = [each.short for each in refused if each.short is not None]
        try:
            going = admission.victims(self._demands.of(obj), present, shortages)
        except NoRoomError as error:
            told = "Unexpected error while attempting to recover from admission failure: preemption: "
            told += f"error finding a set of pods to preempt: {error}"
            await self._fail(obj, Refusal(admission.UNEXPECTED, told))
            return True
        for uid in going:
            await self._preempt(self._pods[uid])
        return False

    async def _preempt(self, pod: FleetPod) -> None:
        """End a Pod in favour of a critical one."""
        names = self._names(pod.uid)
        if names is not None:
            namespace = names["metadata"]["namespace"]
            try:
                victim = await self._client.get(PODS, names["metadata"]["name"], namespace)
                if victim["metadata"]["uid"] == pod.uid:
                    await self._end(pod, victim)
            except ApiError as error:
                if error.reason not in ("NotFound", "Conflict"):
                    raise
        self.leave(pod)

    async def _end(self, pod: FleetPod, victim: Object) -> None:
        pod.turn += 1
        now = rfc3339(self._clock.time())
        about = {"apiVersion": "v1", "kind": "Pod", **victim}
        await self._lifecycle.event(about, "Warning", admission.PREEMPTING, admission.PREEMPTED)
        told = status.ended(victim, now, True)
        disrupted = status.condition("DisruptionTarget", "True", now, "TerminationByKubelet")
        disrupted["message"] = "Pod was preempted by Kubelet to accommodate a critical pod."
        told |= {"reason": admission.PREEMPTING, "message": admission.PREEMPTED}
        told["conditions"] = [*told["conditions"], disrupted]
        await self._write(victim, told)

    async def _fail(self, obj: Object, refusal: Refusal) -> None:
        about = {"apiVersion": "v1", "kind": "Pod", **obj}
        await self._lifecycle.event(about, "Warning", refusal.reason, refusal.message)
        started = (obj.get("status") or {}).get("startTime") or rfc3339(self._clock.time())
        told = {
            "phase": "Failed",
            "reason": refusal.reason,
            "message": f"Pod was rejected: {refusal.message}",
            "startTime": started,
            "observedGeneration": obj["metadata"].get("generation", 1),
        }
        await self._write(obj, told)

    async def _write(self, obj: Object, told: Object) -> None:
        metadata = obj["metadata"]
        body = {"metadata": {"uid": metadata["uid"]}, "status": told}
        await self._client.patch(
            PODS, metadata["name"], body, metadata["namespace"], kind="strategic", subresource="status", brief=True
        )
