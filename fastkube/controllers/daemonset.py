"""DaemonSets: one Pod on each node that fits, replaced node by node when the template changes.

A Pod is bound to its node by an affinity to the node's name, so that it is the scheduler which places it. While a
rolling update with maxSurge goes on a node may have two: the old one until the new one is available.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from fastkube.api.placement import node_matches, untolerated
from fastkube.client import object_key
from fastkube.controllers.actions import Action, Create, Requeue, Tell, Together, status_update
from fastkube.controllers.caches import Caches
from fastkube.controllers.common import (
    PODS,
    Object,
    Objects,
    available_in,
    claim,
    controlled_by_or_matching,
    int_or_percent,
    is_ready,
    is_terminating,
    phase,
    pod_from_template,
    seconds,
)
from fastkube.controllers.pod_topics import ADOPTABLE, OWNED
from fastkube.controllers.replicaset import delete_pod
from fastkube.controllers.revisions import POD_HASH, REVISIONS, History, cleanup, history
from fastkube.controllers.runner import Context, Controller, Watch

DAEMONSETS = "apps/v1/daemonsets"
NODES = "v1/nodes"

BURST = 250
FAILURE_BACKOFF_S = 1.0
GENERATION_LABEL = "pod-template-generation"
GENERATION_ANNOTATION = "deprecated.daemonset.template.generation"
_TOLERATIONS = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
_HOST_NETWORK_TOLERATION = ("node.kubernetes.io/network-unavailable", "NoSchedule")


class View(NamedTuple):
    daemonset: Object
    owned: Objects
    orphans: Objects
    revisions: Objects
    nodes: Objects
    named_revision: Any
    now: float
    live: dict[str, Any] = {}  # noqa: RUF012 - never changed, only replaced
    orphan_revisions: Sequence[Object] = ()


def view(context: Context, key: str) -> View | None:
    caches = context.caches
    daemonset = caches.by_key(DAEMONSETS, key)
    if daemonset is None:
        return None
    metadata = daemonset["metadata"]
    return View(
        daemonset,
        caches.index(PODS, "controller", metadata["uid"]),
        caches.index(PODS, "orphan", metadata["namespace"]),
        caches.index(REVISIONS, "controller", metadata["uid"]),
        sorted(caches.list(NODES), key=lambda node: str(node["metadata"]["name"])),
        partial(caches.get, REVISIONS, metadata["namespace"]),
        context.now,
        orphan_revisions=caches.index(REVISIONS, "orphan", metadata["namespace"]),
    )


def reconcile(view: View) -> Sequence[Action]:
    daemonset = view.daemonset
    if daemonset["spec"].get("selector") == {}:
        message = "This daemon set is selecting all pods. A non-empty selector is required."
        return [Tell(daemonset, "Warning", "SelectingAll", message)]
    claimed = claim(PODS, daemonset, DAEMONSETS, view.owned, view.orphans, view.live)
    if claimed.asks:
        return claimed.asks
    revisions = claim(REVISIONS, daemonset, DAEMONSETS, view.revisions, view.orphan_revisions, view.live)
    if revisions.asks:
        return revisions.asks
    past = history(DAEMONSETS, daemonset, revisions.objects, POD_HASH, view.named_revision)
    if past.collided:
        return past.actions
    attempt = _Attempt(view, claimed.objects, past)
    return [*claimed.actions, *revisions.actions, *past.actions, *attempt.run()]


# ---------------------------------------------------------------- nodes


class Fit(NamedTuple):
    """Whether a node should get a Pod, and whether one that is there may stay."""

    should_run: bool
    may_stay: bool


def fit(daemonset: Object, node: Object) -> Fit:
    spec = daemonset["spec"]["template"]["spec"]
    if spec.get("nodeName") and spec["nodeName"] != node["metadata"]["name"]:
        return Fit(False, False)
    if not node_matches(node, spec):
        return Fit(False, False)
    taints = node["spec"].get("taints") or ()
    tolerations = _tolerations(spec)
    if untolerated(taints, tolerations, ("NoExecute",)) is not None:
        return Fit(False, False)
    return Fit(untolerated(taints, tolerations, ("NoSchedule",)) is None, True)


def _tolerations(spec: Object) -> Objects:
    """Those of the template, and of what troubles a node but must not keep its daemons away."""
    added = [*_TOLERATIONS, _HOST_NETWORK_TOLERATION] if spec.get("hostNetwork") else list(_TOLERATIONS)
    given: Objects = list(spec.get("tolerations") or ())
    for key, effect in added:
        made = {"key": key, "operator": "Exists", "effect": effect}
        given = [known for known in given if (known.get("key"), known.get("effect")) != (key, effect)]
        given.append(made)
    return given


def target_node(pod: Object) -> str:
    """The node that a Pod runs on, or is meant for; "" if that cannot be told."""
    if pod["spec"].get("nodeName"):
        return str(pod["spec"]["nodeName"])
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            if field["key"] == "metadata.name" and field["operator"] == "In" and len(field["values"]) == 1:
                return str(field["values"][0])
    return ""


def _bound_to(spec: Object, node: str) -> Object:
    """The affinity of a template, in each of whose terms the node is named."""
    field = [{"key": "metadata.name", "operator": "In", "values": [node]}]
    affinity = spec.get("affinity") or {}
    node_affinity = affinity.get("nodeAffinity") or {}
    required = node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = [{**term, "matchFields": field} for term in required.get("nodeSelectorTerms") or ()]
    selector = {"nodeSelectorTerms": terms or [{"matchFields": field}]}
    return {**affinity, "nodeAffinity": {**node_affinity, "requiredDuringSchedulingIgnoredDuringExecution": selector}}


# ---------------------------------------------------------------- the attempt


class _Attempt:
    def __init__(self, view: View, pods: Objects, past: History) -> None:
        self.daemonset = view.daemonset
        self.spec = view.daemonset["spec"]
        self.now = view.now
        self.past = past
        self.pods = pods
        self.nodes = view.nodes
        self.hash = past.update["metadata"]["labels"][POD_HASH]
        self.min_ready_s = self.spec.get("minReadySeconds", 0)
        self.fits = {node["metadata"]["name"]: fit(self.daemonset, node) for node in view.nodes}
        self.by_node: dict[str, Objects] = {}
        for pod in pods:
            self.by_node.setdefault(target_node(pod), []).append(pod)
        self.create: list[str] = []
        self.delete: Objects = []
        self.tells: list[Action] = []
        self.pauses: list[float] = []

    def run(self) -> list[Action]:
        if not is_terminating(self.daemonset):
            self._manage()
            if not self.create and not self.delete and self._strategy() == "RollingUpdate":
                self._roll()
        actions: list[Action] = [*self.tells]
        if self.delete:
            actions.append(Together([delete_pod(self.daemonset, pod) for pod in self.delete[:BURST]]))
        if self.create:
            actions.append(Together([self._creation(node) for node in self.create[:BURST]], slow_start=True))
        status = self._status()
        if status != (self.daemonset.get("status") or {}):
            actions.append(status_update(DAEMONSETS, self.daemonset, status))
        actions += cleanup(self.daemonset, self.past.revisions, self._live_revisions())
        if self.pauses:
            actions.append(Requeue(min(self.pauses)))
        return actions

    def _strategy(self) -> str:
        return str((self.spec.get("updateStrategy") or {}).get("type") or "RollingUpdate")

    def _rolling(self) -> tuple[int, int]:
        """(maxSurge, maxUnavailable) as numbers of nodes."""
        wanted = sum(each.should_run for each in self.fits.values())
        rolling = (self.spec.get("updateStrategy") or {}).get("rollingUpdate") or {}
        if self._strategy() != "RollingUpdate":
            return 0, 0
        surge = int_or_percent(rolling.get("maxSurge") or 0, wanted, round_up=True)
        unavailable = int_or_percent(rolling.get("maxUnavailable", 1), wanted, round_up=True)
        return surge, unavailable if surge or unavailable else 1

    # -- one Pod a node --------------------------------------------------------------------------------------------

    def _manage(self) -> None:
        surge, _ = self._rolling()
        for node, (should_run, may_stay) in self.fits.items():
            pods = self.by_node.get(node, [])
            if should_run and not pods:
                self.create.append(node)
            elif may_stay:
                self._keep_one(node, pods, surging=surge > 0, should_run=should_run)
            else:
                self.delete += [pod for pod in pods if not is_terminating(pod)]
        for node, pods in self.by_node.items():
            if node not in self.fits:
                # bound ones are the Pod collector's; what no node will ever take is removed here
                self.delete += [pod for pod in pods if not pod["spec"].get("nodeName") and not is_terminating(pod)]

    def _keep_one(self, node: str, pods: Objects, *, surging: bool, should_run: bool) -> None:
        running: Objects = []
        ended = 0
        for pod in pods:
            if is_terminating(pod):
                continue
            if phase(pod) in ("Failed", "Succeeded"):
                ended += self._remove_ended(node, pod)
            else:
                running.append(pod)
        if not running and ended and ended == len(pods) and should_run:
            return  # its replacement comes when it is gone
        running.sort(key=lambda pod: (pod["metadata"]["creationTimestamp"], not pod["spec"].get("nodeName")))
        if not surging:
            self.delete += running[1:]
        else:
            self._keep_old_and_new(running)

    def _remove_ended(self, node: str, pod: Object) -> bool:
        key = object_key(pod)
        if phase(pod) == "Failed":
            left = seconds(pod["metadata"]["creationTimestamp"]) + FAILURE_BACKOFF_S - self.now
            if left > 0:
                self.pauses.append(left)
                return False
            message = f"Found failed daemon pod {key} on node {node}, will try to kill it"
            self.tells.append(Tell(self.daemonset, "Warning", "FailedDaemonPod", message))
        else:
            message = f"Found succeeded daemon pod {key} on node {node}, will try to delete it"
            self.tells.append(Tell(self.daemonset, "Normal", "SucceededDaemonPod", message))
        self.delete.append(pod)
        return True

    def _keep_old_and_new(self, running: Objects) -> None:
        """While surging: the oldest of the new template, and the oldest old one as long as it is needed."""
        new = [pod for pod in running if self._is_new(pod)]
        old = [pod for pod in running if not self._is_new(pod)]
        self.delete += [*new[1:], *old[1:]]
        if new and old and (not self._is_available(old[0]) or self._is_available(new[0])):
            self.delete.append(old[0])

    # -- rolling update --------------------------------------------------------------------------------------------

    def _roll(self) -> None:
        surge, unavailable = self._rolling()
        if surge:
            self._roll_by_surge(surge)
        else:
            self._roll_by_deletion(unavailable)

    def _roll_by_deletion(self, allowed: int) -> None:
        broken: Objects = []
        candidates: Objects = []
        missing = 0
        for node, (should_run, _) in self.fits.items():
            pods = [pod for pod in self.by_node.get(node, []) if not is_terminating(pod)]
            if not pods:
                missing += should_run
                continue
            pod = pods[0]
            if self._is_new(pod):
                missing += not self._is_available(pod)
            elif self._is_available(pod):
                candidates.append(pod)
            else:
                missing += 1
                broken.append(pod)
        self.delete += [*broken, *candidates[: max(0, allowed - missing)]]

    def _roll_by_surge(self, allowed: int) -> None:
        urgent: list[str] = []
        candidates: list[str] = []
        surging = 0
        for node, (should_run, _) in self.fits.items():
            if not should_run:
                continue
            pods = [pod for pod in self.by_node.get(node, []) if not is_terminating(pod)]
            new = [pod for pod in pods if self._is_new(pod)]
            old = [pod for pod in pods if not self._is_new(pod)]
            if new:
                surging += bool(old) and not self._is_available(new[0])
            elif old:
                (candidates if self._is_available(old[0]) else urgent).append(node)
        self.create += [*urgent, *candidates[: max(0, allowed - surging)]]

    # -- Pods ------------------------------------------------------------------------------------------------------

    def _is_new(self, pod: Object) -> bool:
        labels = pod["metadata"].get("labels") or {}
        return bool(labels.get(POD_HASH) == self.hash)

    def _is_available(self, pod: Object) -> bool:
        left = available_in(pod, self.min_ready_s, self.now)
        if left:
            self.pauses.append(left)
        return left == 0

    def _creation(self, node: str) -> Create:
        pod = pod_from_template(self.spec["template"], self.daemonset, prefix=f"{self.daemonset['metadata']['name']}-")
        labels = {**(pod["metadata"].get("labels") or {}), POD_HASH: self.hash}
        generation = (self.daemonset["metadata"].get("annotations") or {}).get(GENERATION_ANNOTATION)
        if generation:
            labels[GENERATION_LABEL] = generation
        pod["metadata"]["labels"] = labels
        spec = pod["spec"]
        pod["spec"] = {**spec, "affinity": _bound_to(spec, node), "tolerations": _tolerations(spec)}
        daemonset = self.daemonset
        return Create(
            PODS,
            pod,
            then=lambda made: [
                Tell(daemonset, "Normal", "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")
            ],
            otherwise=lambda error: [Tell(daemonset, "Warning", "FailedCreate", f"Error creating: {error.message}")],
        )

    # -- status ----------------------------------------------------------------------------------------------------

    def _status(self) -> Object:
        desired = current = misscheduled = ready = updated = available = 0
        for node, (should_run, _) in self.fits.items():
            pods = self.by_node.get(node, [])
            if not should_run:
                misscheduled += bool(pods)
                continue
            desired += 1
            if not pods:
                continue
            current += 1
            oldest = min(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
            if any(is_ready(pod) and not is_terminating(pod) for pod in pods):
                ready += 1
                available += any(self._is_available(pod) for pod in pods if not is_terminating(pod))
            updated += self._is_new(oldest)
        given = self.daemonset.get("status") or {}
        counts = {
            "updatedNumberScheduled": updated,
            "numberAvailable": available,
            "numberUnavailable": desired - available,
            "observedGeneration": self.daemonset["metadata"].get("generation", 0),
        }
        status: Object = {key: value for key, value in counts.items() if value}
        status |= {
            "currentNumberScheduled": current,
            "numberMisscheduled": misscheduled,
            "desiredNumberScheduled": desired,
            "numberReady": ready,
        }
        for key in ("collisionCount", "conditions"):
            if given.get(key):
                status[key] = given[key]
        return status

    def _live_revisions(self) -> set[str]:
        hashes = {(pod["metadata"].get("labels") or {}).get(POD_HASH) for pod in self.pods} | {self.hash}
        return {
            revision["metadata"]["name"]
            for revision in self.past.revisions
            if (revision["metadata"].get("labels") or {}).get(POD_HASH) in hashes
        }


# ---------------------------------------------------------------- wiring


def _all(caches: Caches, _node: Object) -> Iterable[str]:
    return [object_key(daemonset) for daemonset in caches.list(DAEMONSETS)]


def _placement_changed(old: Object, new: Object) -> bool:
    return any(
        left != right
        for left, right in (
            (old["metadata"].get("labels"), new["metadata"].get("labels")),
            (old["spec"].get("taints"), new["spec"].get("taints")),
        )
    )


CONTROLLER = Controller(
    name="daemonset-controller",
    watches=(
        Watch(DAEMONSETS, indexes=("namespace",)),
        Watch(
            PODS,
            controlled_by_or_matching("DaemonSet", DAEMONSETS),
            ("controller", "orphan"),
            about=(OWNED["DaemonSet"] | ADOPTABLE,),
        ),
        Watch(REVISIONS, controlled_by_or_matching("DaemonSet", DAEMONSETS), ("controller", "orphan")),
        Watch(NODES, _all, changed=_placement_changed),
    ),
    view=view,
    reconcile=reconcile,
    workers="concurrent_daemonset_syncs",
)
