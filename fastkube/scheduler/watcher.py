"""From the informers' handlers to the cache and the queue: what each change of an object means for scheduling."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from fastkube.client import Informer, InformerFactory
from fastkube.scheduler.binding import Binder
from fastkube.scheduler.cache import Cache
from fastkube.scheduler.events import (
    ASSIGNED_POD,
    CSI_DRIVER,
    CSI_NODE,
    CSI_STORAGE_CAPACITY,
    DEVICE_CLASS,
    NODE,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    POD_GROUP,
    RESOURCE_CLAIM,
    RESOURCE_SLICE,
    STORAGE_CLASS,
    UNSCHEDULED_POD,
    VOLUME_ATTACHMENT,
    Action,
    ClusterEvent,
    node_actions,
    pod_actions,
)
from fastkube.scheduler.podgroups import PODGROUPS
from fastkube.scheduler.pods import PodInfo
from fastkube.scheduler.profile import Profile
from fastkube.scheduler.queue import SchedulingQueue, self_event
from fastkube.scheduler.status import StatusWriter

log = logging.getLogger(__name__)

Object = dict[str, Any]

PODS = "v1/pods"
LIVE_PODS = "status.phase!=Succeeded,status.phase!=Failed"
"""Pods that have ended take nothing of a node."""
NODES = "v1/nodes"
NAMESPACES = "v1/namespaces"
WORKLOADS = ("v1/services", "v1/replicationcontrollers", "apps/v1/replicasets", "apps/v1/statefulsets")
"""What topology spreading takes its default selectors from."""


_OTHERS = {
    "v1/persistentvolumes": PERSISTENT_VOLUME,
    "v1/persistentvolumeclaims": PERSISTENT_VOLUME_CLAIM,
    "storage.k8s.io/v1/storageclasses": STORAGE_CLASS,
    "storage.k8s.io/v1/csinodes": CSI_NODE,
    "storage.k8s.io/v1/csidrivers": CSI_DRIVER,
    "storage.k8s.io/v1/csistoragecapacities": CSI_STORAGE_CAPACITY,
    "storage.k8s.io/v1/volumeattachments": VOLUME_ATTACHMENT,
    "resource.k8s.io/v1/resourceclaims": RESOURCE_CLAIM,
    "resource.k8s.io/v1/resourceslices": RESOURCE_SLICE,
    "resource.k8s.io/v1/deviceclasses": DEVICE_CLASS,
}
"""What only wakes Pods: plugins look it up when they need it."""


class Watcher:
    """Keeps cache and queue up to date. Every Pod is parsed once for each state that it is seen in."""

    def __init__(
        self,
        cache: Cache,
        queue: SchedulingQueue,
        profiles: Mapping[str, Profile],
        informers: InformerFactory,
        binder: Binder,
        status: StatusWriter,
    ) -> None:
        self._cache = cache
        self._queue = queue
        self._profiles = profiles
        self._informers = informers
        self._binder = binder
        self._status = status
        self._pending: dict[str, PodInfo] = {}

    def watch(self, workloads_changed: Callable[[], None], *, groups: bool = False) -> None:
        """Register all handlers; with `groups` those of PodGroups too."""
        informers = self._informers
        informers.informer(NODES).add_handler(self._node, lambda _, node: self._node(node), self._node_gone)
        informers.informer(NAMESPACES).add_handler(
            self._namespace, lambda _, namespace: self._namespace(namespace), self._namespace_gone
        )
        pods = informers.informer(PODS, field_selector=LIVE_PODS)
        pods.add_handler(self._pod, lambda _, pod: self._pod(pod), self._pod_gone)
        for resource in WORKLOADS:
            self._watch_workload(informers.informer(resource), workloads_changed)
        for resource, kind in _OTHERS.items():
            self._watch_other(informers.informer(resource), kind)
        if groups:
            self._watch_other(informers.informer(PODGROUPS), POD_GROUP)

    def _watch_other(self, informer: Informer, kind: str) -> None:
        informer.add_handler(
            lambda new: self._queue.move_all(ClusterEvent(kind, Action.ADD, None, new)),
            lambda old, new: self._queue.move_all(ClusterEvent(kind, Action.UPDATE_OTHER, old, new)),
            lambda old: self._queue.move_all(ClusterEvent(kind, Action.DELETE, old, None)),
        )

    @staticmethod
    def _watch_workload(informer: Informer, changed: Callable[[], None]) -> None:
        def update(old: Object, new: Object) -> None:
            if old["spec"].get("selector") != new["spec"].get("selector"):
                changed()

        informer.add_handler(lambda _: changed(), update, lambda _: changed())

    def pending(self, pod: PodInfo) -> PodInfo | None:
        """The latest state of a Pod, None when it needs no node any more."""
        return self._pending.get(pod.uid)

    # -- Pods ----------------------------------------------------------------------------------------------------------

    def _pod(self, obj: Object) -> None:
        if (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            self._pod_gone(obj)
            return
        if self._is_of_another(obj["spec"]):
            return
        try:
            uid = obj["metadata"]["uid"]
            pod = self._cache.parse(obj, self._pending.get(uid) or self._cache.pods.get(uid))
        except ValueError as error:
            log.error(
                "pod %s/%s cannot be scheduled: %s", obj["metadata"].get("namespace"), obj["metadata"]["name"], error
            )
            return
        self._cache.groups.seen(pod)
        if pod.node:
            self._assigned(pod)
        elif pod.spec.scheduler_name in self._profiles:
            self._unassigned(pod)

    def _is_of_another(self, spec: Object) -> bool:
        """Whether the Pod waits for another scheduler, and no group counts it."""
        waits = not spec.get("nodeName") and spec.get("schedulerName") not in self._profiles
        return waits and not spec.get("schedulingGroup")

    def _assigned(self, pod: PodInfo) -> None:
        if self._pending.pop(pod.uid, None) is not None:
            self._queue.remove(pod.uid)
            self._status.forget(pod.uid)
        was_assumed = pod.uid in self._cache.assumed
        old = None if was_assumed else self._cache.pods.get(pod.uid)
        self._cache.set_pod(pod)
        if old is None:
            self._queue.move_all(ClusterEvent(ASSIGNED_POD, Action.ADD, None, pod))
        elif actions := pod_actions(old, pod):
            self._queue.move_all(ClusterEvent(ASSIGNED_POD, actions, old, pod))

    def _unassigned(self, pod: PodInfo) -> None:
        old = self._pending.get(pod.uid)
        self._pending[pod.uid] = pod
        assumed = self._cache.assumed.get(pod.uid)
        if assumed is not None:
            return  # on its way to a node; if that fails the latest state goes back into the queue
        if pod.nominated:
            self._cache.nominate(pod, pod.nominated)
        elif old is not None and old.nominated:
            self._cache.denominate(pod.uid)
        if old is None:
            self._queue.add(pod)
            if pod.group is not None:
                self._queue.move_all(ClusterEvent(UNSCHEDULED_POD, Action.ADD, None, pod))
        else:
            self._queue.update(pod, self_event(pod_actions(old, pod), old, pod))

    def _pod_gone(self, obj: Object) -> None:
        uid = obj["metadata"]["uid"]
        pending = self._pending.pop(uid, None)
        self._status.forget(uid)
        if pending is not None:
            self._queue.remove(uid)
            waiting = self._binder.waiting.get(uid)
            if waiting is not None:
                waiting.reject("", "the pod was deleted")
        nominated = uid in self._cache.nominated
        group = self._cache.pods.get(uid) or pending
        if group is not None:
            self._cache.groups.gone(group)
        known = self._cache.remove_pod(uid)
        left = known or (pending if nominated else None)
        if left is not None:
            self._queue.move_all(ClusterEvent(ASSIGNED_POD, Action.DELETE, left, None))

    # -- nodes and namespaces ------------------------------------------------------------------------------------------

    def _node(self, node: Object) -> None:
        info = self._cache.infos.get(node["metadata"]["name"])
        old = info.node if info is not None and info.node else None
        actions = node_actions(self._cache.set_node(node))
        if actions:
            self._queue.move_all(ClusterEvent(NODE, actions, old, node))

    def _node_gone(self, node: Object) -> None:
        self._cache.remove_node(node["metadata"]["name"])
        self._queue.move_all(ClusterEvent(NODE, Action.DELETE, node, None))

    def _namespace(self, namespace: Object) -> None:
        metadata = namespace["metadata"]
        self._cache.tallies.set_namespace(metadata["name"], metadata.get("labels") or {})

    def _namespace_gone(self, namespace: Object) -> None:
        self._cache.tallies.set_namespace(namespace["metadata"]["name"], None)
