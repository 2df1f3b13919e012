"""In-place resize: what a running Pod asks for anew is given to it, or put off until its node has room.

As a 1.36 kubelet: an admission with the Pod itself left out decides; what does not fit is told by the condition
PodResizePending and tried again when a Pod has left the node. Containers are not restarted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import orjson

from fastkube.client import Client
from fastkube.clock import Clock, rfc3339
from fastkube.errors import ApiError
from fastkube.nodes import admission
from fastkube.nodes.admission import Demands, Load
from fastkube.nodes.lifecycle import RETRY_S, Lifecycle
from fastkube.nodes.members import PODS, FleetNode, FleetPod
from fastkube.nodes.status import resources_asked

log = logging.getLogger(__name__)
Object = dict[str, Any]

PENDING = "PodResizePending"
DEFERRED = "Deferred"


def awaits_resize(obj: Object) -> bool:
    """Whether a running Pod's spec has changed since its status was told; not every change is a resize."""
    told, metadata = obj.get("status") or {}, obj["metadata"]
    seen = told.get("observedGeneration")
    return (
        seen is not None
        and seen < metadata.get("generation", 0)
        and told.get("phase") == "Running"
        and not metadata.get("deletionTimestamp")
    )


class Resizing:
    """Works on the loads of the nodes that admission keeps."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        lifecycle: Lifecycle,
        pods: Mapping[str, FleetPod],
        demands: Demands,
        loads: dict[str, Load],
    ) -> None:
        self._client, self._clock, self._lifecycle = client, clock, lifecycle
        self._pods, self._demands, self._loads = pods, demands, loads
        self._deferred: dict[str, dict[str, tuple[FleetNode, Object]]] = {}

    def look(self, pod: FleetPod, node: FleetNode, obj: Object) -> None:
        """Give an admitted Pod what it asks for now, if that is something else and fits."""
        demand, load = self._demands.of(obj), self._loads[pod.node]
        waiting = self._deferred.get(pod.node, {})
        waiting.pop(pod.uid, None)
        if demand is pod.demand or pod.demand is None:
            return
        load.give_back(pod.demand)
        refused = admission.refusals(obj, demand, node.about, load)
        if refused:
            load.take(pod.demand)
            self._deferred.setdefault(pod.node, waiting)[pod.uid] = node, obj
            self._lifecycle.start(self._put_off(pod, obj, refused[0].message))
        else:
            load.take(demand)
            pod.demand = demand
            self._lifecycle.start(self._resize(pod, obj))

    def retry(self, name: str) -> None:
        """A Pod has left the node: those that wait are looked at again, in the order in which they were put off."""
        for uid, (node, obj) in list(self._deferred.pop(name, {}).items()):
            pod = self._pods.get(uid)
            if pod is not None and pod.demand is not None:
                self.look(pod, node, obj)

    async def _resize(self, pod: FleetPod, obj: Object) -> None:
        """All of it at once: started, done, told."""
        told = {name: _given(obj, name) for name in ("containerStatuses", "initContainerStatuses")}
        told = {name: states for name, states in told.items() if states}
        await self._write(pod, obj, {**told, "conditions": [{"type": PENDING, "$patch": "delete"}]})
        for reason, text in (("ResizeStarted", "Pod resize started"), ("ResizeCompleted", "Pod resize completed")):
            await self._tell(obj, "Normal", reason, text, "")

    async def _put_off(self, pod: FleetPod, obj: Object, message: str) -> None:
        pending = (each for each in obj["status"].get("conditions") or () if each.get("type") == PENDING)
        before: Object = next(pending, {})
        condition = {
            "type": PENDING,
            "status": "True",
            "reason": DEFERRED,
            "message": message,
            "lastTransitionTime": before.get("lastTransitionTime") or rfc3339(self._clock.time()),
            "observedGeneration": obj["metadata"].get("generation", 1),
        }
        await self._write(pod, obj, {"conditions": [condition]})
        if before.get("observedGeneration") != condition["observedGeneration"]:
            await self._tell(obj, "Warning", "ResizeDeferred", "Pod resize Deferred", message)

    async def _tell(self, obj: Object, kind: str, reason: str, text: str, error: str) -> None:
        summary: Object = {}
        for field in ("initContainers", "containers"):
            if obj["spec"].get(field):
                asked = (
                    {"name": each["name"], "resources": each.get("resources") or {}} for each in obj["spec"][field]
                )
                summary[field] = list(asked)
        summary["generation"] = obj["metadata"].get("generation", 1)
        if error:
            summary["error"] = error
        about = {"apiVersion": "v1", "kind": "Pod", **obj}
        await self._lifecycle.event(about, kind, reason, f"{text}: {orjson.dumps(summary).decode()}")

    async def _write(self, pod: FleetPod, obj: Object, told: Object) -> None:
        metadata = obj["metadata"]
        body = {
            "metadata": {"uid": metadata["uid"]},
            "status": {"observedGeneration": metadata.get("generation", 1), **told},
        }
        while self._pods.get(pod.uid) is pod:
            try:
                async with self._lifecycle.slots:
                    await self._client.patch(
                        PODS, metadata["name"], body, metadata["namespace"], kind="strategic", subresource="status",
                        brief=True,
                    )  # fmt: skip
                return
            except ApiError as error:
                if error.reason in ("NotFound", "Conflict"):  # the Pod is gone
                    return
                log.warning("resize of pod %s: %s", pod.uid, error.message)
                await self._clock.sleep(RETRY_S)


def _given(obj: Object, field: str) -> list[Object]:
    """The statuses of containers with the resources that these have from now on."""
    asked = {each["name"]: resources_asked(each) for each in obj["spec"].get(field.replace("Statuses", "s")) or ()}
    plain = ({key: value for key, value in each.items() if key != "allocatedResources"}
             for each in obj["status"].get(field) or ())  # fmt: skip
    return [{**each, **asked.get(each["name"], {})} for each in plain]
