"""StatefulSets: Pods with stable names and volumes, made, updated and removed in the order of their ordinals.

An attempt goes through the replicas from the lowest ordinal, then through those beyond the wanted number from the
highest, then through the update from the highest. With OrderedReady it does one thing and ends; the next attempt
follows when that Pod is running and ready. Pods have fixed names, so there can never be two of one ordinal.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from fastkube.api.meta import controller_of, owner_reference
from fastkube.controllers.actions import (
    EXISTS,
    GONE,
    Action,
    Create,
    Delete,
    Patch,
    Requeue,
    Tell,
    Together,
    status_update,
)
from fastkube.controllers.common import (
    PODS,
    Object,
    Objects,
    available_in,
    claim,
    controlled_by,
    controlled_by_or_matching,
    int_or_percent,
    is_ready,
    is_terminating,
    phase,
    pod_from_template,
)
from fastkube.controllers.pod_topics import ADOPTABLE, OWNED
from fastkube.controllers.revisions import HASH, POD_HASH, REVISIONS, History, cleanup, history, template_of
from fastkube.controllers.runner import Context, Controller, Watch
from fastkube.errors import ApiError

STATEFULSETS = "apps/v1/statefulsets"
CLAIMS = "v1/persistentvolumeclaims"

POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"


class View(NamedTuple):
    statefulset: Object
    owned: Objects
    orphans: Objects
    revisions: Objects
    claims: dict[str, Object]
    """The PersistentVolumeClaims that its Pods use or will use, by name."""
    named_revision: Any
    now: float
    live: dict[str, Any] = {}  # noqa: RUF012 - never changed, only replaced
    orphan_revisions: Sequence[Object] = ()


def view(context: Context, key: str) -> View | None:
    caches = context.caches
    statefulset = caches.by_key(STATEFULSETS, key)
    if statefulset is None:
        return None
    metadata = statefulset["metadata"]
    owned = caches.index(PODS, "controller", metadata["uid"])
    ordinals = {*_wanted_ordinals(statefulset), *(_ordinal(statefulset, pod["metadata"]["name"]) for pod in owned)}
    claims: dict[str, Object] = {}
    for ordinal in ordinals - {-1}:
        for name in _claim_names(statefulset, ordinal).values():
            found = caches.get(CLAIMS, metadata["namespace"], name)
            if found is not None:
                claims[name] = found
    return View(
        statefulset,
        owned,
        caches.index(PODS, "orphan", metadata["namespace"]),
        caches.index(REVISIONS, "controller", metadata["uid"]),
        claims,
        partial(caches.get, REVISIONS, metadata["namespace"]),
        context.now,
        orphan_revisions=caches.index(REVISIONS, "orphan", metadata["namespace"]),
    )


def reconcile(view: View) -> Sequence[Action]:
    statefulset = view.statefulset

    def is_member(pod: Object) -> bool:
        return _ordinal(statefulset, pod["metadata"]["name"]) >= 0

    claimed = claim(PODS, statefulset, STATEFULSETS, view.owned, view.orphans, view.live, accepts=is_member)
    if claimed.asks:
        return claimed.asks
    revisions = claim(REVISIONS, statefulset, STATEFULSETS, view.revisions, view.orphan_revisions, view.live)
    if revisions.asks:
        return revisions.asks
    past = history(STATEFULSETS, statefulset, revisions.objects, HASH, view.named_revision)
    if past.collided:
        return past.actions
    attempt = _Attempt(view, claimed.objects, past)
    return [*claimed.actions, *revisions.actions, *past.actions, *attempt.run()]


# ---------------------------------------------------------------- names


def _replicas(statefulset: Object) -> int:
    replicas = statefulset["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def _first(statefulset: Object) -> int:
    return int((statefulset["spec"].get("ordinals") or {}).get("start") or 0)


def _wanted_ordinals(statefulset: Object) -> range:
    return range(_first(statefulset), _first(statefulset) + _replicas(statefulset))


def _ordinal(statefulset: Object, pod_name: str) -> int:
    """-1 for a name that is none of this StatefulSet's."""
    parent, _, number = pod_name.rpartition("-")
    if parent != statefulset["metadata"]["name"] or not number.isdigit() or str(int(number)) != number:
        return -1
    return int(number)


def _claim_names(statefulset: Object, ordinal: int) -> dict[str, str]:
    """{name of the volume: name of the claim}."""
    templates = statefulset["spec"].get("volumeClaimTemplates") or ()
    name = statefulset["metadata"]["name"]
    return {each["metadata"]["name"]: f"{each['metadata']['name']}-{name}-{ordinal}" for each in templates}


# ---------------------------------------------------------------- the attempt


class _Attempt:
    def __init__(self, view: View, pods: Objects, past: History) -> None:
        self.set = view.statefulset
        self.spec = self.set["spec"]
        self.now = view.now
        self.claims = view.claims
        self.past = past
        self.pods = pods
        self.name = self.set["metadata"]["name"]
        self.ordered = self.spec.get("podManagementPolicy", "OrderedReady") != "Parallel"
        self.min_ready_s = self.spec.get("minReadySeconds", 0)
        self.actions: list[Action] = []
        self.pauses: list[float] = []
        self.update = past.update
        told = (self.set.get("status") or {}).get("currentRevision")
        names = {revision["metadata"]["name"]: revision for revision in past.revisions}
        self.current = names.get(told, self.update)
        self.by_ordinal: dict[int, Object] = {}
        for pod in pods:
            ordinal = _ordinal(self.set, pod["metadata"]["name"])
            if ordinal >= 0:
                self.by_ordinal[ordinal] = pod

    def run(self) -> list[Action]:
        status = self._status()
        if not is_terminating(self.set):
            self._manage()
        live = {self.current["metadata"]["name"], self.update["metadata"]["name"]}
        live |= {_revision_of(pod) for pod in self.pods}
        steps = list(self.actions)
        if status != (self.set.get("status") or {}):
            steps.append(status_update(STATEFULSETS, self.set, status))
        steps += cleanup(self.set, self.past.revisions, live)
        if self.pauses:
            steps.append(Requeue(min(self.pauses)))
        return steps

    def _manage(self) -> None:
        wanted = _wanted_ordinals(self.set)
        self._retain_claims()
        if not self._fill(wanted):
            return
        condemned = sorted((ordinal for ordinal in self.by_ordinal if ordinal not in wanted), reverse=True)
        if not self._shrink(condemned):
            return
        if (self.spec.get("updateStrategy") or {}).get("type") != "OnDelete":
            self._roll(wanted)

    # -- replicas --------------------------------------------------------------------------------------------------

    def _fill(self, wanted: range) -> bool:
        """False when the attempt has to end here."""
        together: list[Action] = []
        for ordinal in wanted:
            pod = self.by_ordinal.get(ordinal)
            if pod is None:
                together.append(self._creation(ordinal))
                if self.ordered:
                    break
                continue
            if phase(pod) in ("Failed", "Succeeded"):
                if not is_terminating(pod):
                    self._replace(pod)
                if self.ordered:
                    return False
                continue
            if phase(pod) == "Pending":
                self.actions += self._claim_creations(ordinal)
            if self.ordered and (is_terminating(pod) or not self._is_available(pod)):
                return False
            if patch := self._identity_patch(pod, ordinal):
                self.actions.append(patch)
        if not together:
            return True
        missing = [ordinal for ordinal in wanted if ordinal not in self.by_ordinal]
        for ordinal in missing[: len(together)]:
            self.actions += self._claim_creations(ordinal)
        self.actions.append(Together(together, slow_start=True))
        return False

    def _replace(self, pod: Object) -> None:
        reason = "RecreatingFailedPod" if phase(pod) == "Failed" else "RecreatingTerminatedPod"
        key = f"{pod['metadata']['namespace']}/{self.name}"
        what = "failed" if phase(pod) == "Failed" else "terminated"
        message = f"StatefulSet {key} is recreating {what} Pod {pod['metadata']['name']}"
        kind = "Warning" if phase(pod) == "Failed" else "Normal"
        self.actions += [Tell(self.set, kind, reason, message), self._deletion(pod)]  # type: ignore[arg-type]

    def _shrink(self, condemned: list[int]) -> bool:
        """Remove what is too much, the highest first; ordered, one at a time and only beside healthy ones."""
        unhealthy = [ordinal for ordinal, pod in self.by_ordinal.items() if not self._is_healthy(pod)]
        first_unhealthy = min(unhealthy, default=None)
        together: list[Action] = []
        for ordinal in condemned:
            pod = self.by_ordinal[ordinal]
            if is_terminating(pod):
                if self.ordered:
                    return False
                continue
            if self.ordered and not self._is_available(pod) and ordinal != first_unhealthy:
                return False
            together.append(self._deletion(pod))
            if self.ordered:
                break
        if together:
            self.actions.append(Together(together))
        return not condemned

    def _roll(self, wanted: range) -> None:
        """Replace Pods of other revisions, the highest first, as many at a time as may be unavailable."""
        rolling = (self.spec.get("updateStrategy") or {}).get("rollingUpdate") or {}
        least = rolling.get("partition") or 0
        allowed = max(1, int_or_percent(rolling.get("maxUnavailable") or 1, len(wanted), round_up=True))
        free = allowed - sum(not self._is_healthy(self.by_ordinal[ordinal]) for ordinal in wanted)
        for ordinal in reversed([ordinal for ordinal in wanted if ordinal >= least]):
            pod = self.by_ordinal[ordinal]
            outdated = _revision_of(pod) != self.update["metadata"]["name"]
            if outdated and not is_terminating(pod):
                if free <= 0 and (self._is_healthy(pod) or allowed > 1):
                    return
                self.actions.append(self._deletion(pod))
                free -= self._is_healthy(pod)
                if allowed == 1:
                    return
            elif not self._is_healthy(pod) and allowed == 1:
                return

    def _is_available(self, pod: Object) -> bool:
        """Running and ready for long enough."""
        if phase(pod) != "Running":
            return False
        left = available_in(pod, self.min_ready_s, self.now)
        if left:
            self.pauses.append(left)
        return left == 0

    def _is_healthy(self, pod: Object) -> bool:
        return not is_terminating(pod) and self._is_available(pod)

    # -- Pods ------------------------------------------------------------------------------------------------------

    def _creation(self, ordinal: int) -> Create:
        revision = self.current if self._needs_current(ordinal) else self.update
        name = f"{self.name}-{ordinal}"
        template = template_of(revision)
        pod = pod_from_template(template, self.set, name=name)
        pod["metadata"]["labels"] = {
            **(pod["metadata"].get("labels") or {}),
            POD_NAME: name,
            POD_INDEX: str(ordinal),
            POD_HASH: revision["metadata"]["name"],
        }
        pod["spec"] = {**template["spec"], "hostname": name, "subdomain": self.spec.get("serviceName", "")}
        if not pod["spec"]["subdomain"]:
            del pod["spec"]["subdomain"]
        self._mount_claims(pod, ordinal)
        return Create(
            PODS,
            pod,
            then=lambda _: [self._told("create", f"Pod {name}", "")],
            otherwise=lambda error: [self._told("create", f"Pod {name}", error.message)],
        )

    def _needs_current(self, ordinal: int) -> bool:
        """Whether a missing Pod is still to be made from the revision before the update."""
        strategy = self.spec.get("updateStrategy") or {}
        if strategy.get("type", "RollingUpdate") != "RollingUpdate":
            return False
        rolling = strategy.get("rollingUpdate")
        if rolling is None:
            return ordinal < _first(self.set) + int((self.set.get("status") or {}).get("currentReplicas") or 0)
        return ordinal < _first(self.set) + int(rolling.get("partition") or 0)

    def _mount_claims(self, pod: Object, ordinal: int) -> None:
        names = _claim_names(self.set, ordinal)
        if not names:
            return
        volumes: Objects = [
            {"name": volume, "persistentVolumeClaim": {"claimName": claim_name, "readOnly": False}}
            for volume, claim_name in names.items()
        ]
        volumes += [volume for volume in pod["spec"].get("volumes") or () if volume["name"] not in names]
        pod["spec"]["volumes"] = volumes

    def _identity_patch(self, pod: Object, ordinal: int) -> Patch | None:
        """A Pod keeps the labels that tell who it is."""
        labels = pod["metadata"].get("labels") or {}
        wanted = {POD_NAME: pod["metadata"]["name"], POD_INDEX: str(ordinal)}
        if wanted.items() <= labels.items() or is_terminating(pod):
            return None
        return Patch(PODS, pod, body={"metadata": {"labels": wanted}}, ignore=GONE)

    def _deletion(self, pod: Object) -> Delete:
        name = pod["metadata"]["name"]
        return Delete(
            PODS,
            pod,
            ignore=GONE,
            then=lambda _: [self._told("delete", f"Pod {name}", "")],
            otherwise=lambda error: [self._told("delete", f"Pod {name}", error.message)],
        )

    def _told(self, verb: str, what: str, failure: str) -> Tell:
        if failure:
            message = f"{verb} {what} in StatefulSet {self.name} failed error: {failure}"
            return Tell(self.set, "Warning", f"Failed{verb.title()}", message)
        return Tell(
            self.set, "Normal", f"Successful{verb.title()}", f"{verb} {what} in StatefulSet {self.name} successful"
        )

    # -- claims ----------------------------------------------------------------------------------------------------

    def _claim_creations(self, ordinal: int) -> list[Action]:
        names = _claim_names(self.set, ordinal)
        actions: list[Action] = []
        for template in self.spec.get("volumeClaimTemplates") or ():
            name = names[template["metadata"]["name"]]
            if name not in self.claims:
                actions.append(self._claim_creation(template, name, ordinal))
        return actions

    def _claim_creation(self, template: Object, name: str, ordinal: int) -> Create:
        given = template["metadata"]
        labels = {**(given.get("labels") or {}), **((self.spec.get("selector") or {}).get("matchLabels") or {})}
        metadata: Object = {"name": name, "namespace": self.set["metadata"]["namespace"], "labels": labels}
        if given.get("annotations"):
            metadata["annotations"] = given["annotations"]
        if self._policy("whenDeleted") == "Delete":
            metadata["ownerReferences"] = [owner_reference(self.set)]
        made = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": template["spec"]}
        what = f"Claim {name} Pod {self.name}-{ordinal}"

        def tell(failure: str) -> Sequence[Action]:
            if failure:
                message = f"create {what} in StatefulSet {self.name} failed error: {failure}"
                return [Tell(self.set, "Warning", "FailedCreate", message)]
            return [Tell(self.set, "Normal", "SuccessfulCreate", f"create {what} in StatefulSet {self.name} success")]

        def refused(error: ApiError) -> Sequence[Action]:
            return tell(error.message)

        return Create(CLAIMS, made, ignore=EXISTS, then=lambda _: tell(""), otherwise=refused)

    def _policy(self, when: str) -> str:
        return str((self.spec.get("persistentVolumeClaimRetentionPolicy") or {}).get(when) or "Retain")

    def _retain_claims(self) -> None:
        """Owner references make the garbage collector delete claims with the set, or with a Pod that is scaled down."""
        wanted = _wanted_ordinals(self.set)
        for ordinal, pod in self.by_ordinal.items():
            for name in _claim_names(self.set, ordinal).values():
                found = self.claims.get(name)
                if found is None:
                    continue
                owners = self._claim_owners(found, pod, scaled_down=ordinal not in wanted)
                if owners != (found["metadata"].get("ownerReferences") or []):
                    revision = found["metadata"]["resourceVersion"]
                    body = {"metadata": {"resourceVersion": revision, "ownerReferences": owners or None}}
                    self.actions.append(Patch(CLAIMS, found, body=body, ignore=GONE))

    def _claim_owners(self, found: Object, pod: Object, *, scaled_down: bool) -> Objects:
        present: Objects = found["metadata"].get("ownerReferences") or []
        own = {self.set["metadata"]["uid"], pod["metadata"]["uid"]}
        others = [ref for ref in present if ref["uid"] not in own]
        stranger = controller_of(found)
        if stranger is not None and stranger["uid"] not in own:
            return present  # somebody else controls it
        by_pod = self._policy("whenScaled") == "Delete" and scaled_down
        if by_pod:
            return [*others, owner_reference({"apiVersion": "v1", "kind": "Pod", "metadata": pod["metadata"]})]
        if self._policy("whenDeleted") == "Delete":
            return [*others, owner_reference(self.set)]
        return others

    # -- status ----------------------------------------------------------------------------------------------------

    def _status(self) -> Object:
        given = self.set.get("status") or {}
        update = self.update["metadata"]["name"]
        current = self.current["metadata"]["name"]
        pods = [pod for pod in self.by_ordinal.values() if phase(pod)]
        alive = [pod for pod in pods if not is_terminating(pod)]
        ready = [pod for pod in pods if phase(pod) == "Running" and is_ready(pod)]
        counts = {
            "observedGeneration": self.set["metadata"].get("generation", 0),
            "readyReplicas": len(ready),
            "currentReplicas": sum(_revision_of(pod) == current for pod in alive),
            "updatedReplicas": sum(_revision_of(pod) == update for pod in alive),
        }
        rolling = (self.spec.get("updateStrategy") or {}).get("type", "RollingUpdate") == "RollingUpdate"
        wanted = _replicas(self.set)
        if rolling and counts["updatedReplicas"] == wanted == counts["readyReplicas"] == len(pods):
            counts["currentReplicas"], current = counts["updatedReplicas"], update
        status: Object = {key: value for key, value in counts.items() if value}
        status["replicas"] = len(pods)
        status["availableReplicas"] = sum(available_in(pod, self.min_ready_s, self.now) == 0 for pod in ready)
        status["currentRevision"], status["updateRevision"] = current, update
        status["collisionCount"] = given.get("collisionCount", 0)
        if given.get("conditions"):
            status["conditions"] = given["conditions"]
        return status


def _revision_of(pod: Object) -> str:
    return str((pod["metadata"].get("labels") or {}).get(POD_HASH, ""))


CONTROLLER = Controller(
    name="statefulset-controller",
    watches=(
        Watch(STATEFULSETS, indexes=("namespace",)),
        Watch(
            PODS,
            controlled_by_or_matching("StatefulSet", STATEFULSETS),
            ("controller", "orphan"),
            about=(OWNED["StatefulSet"] | ADOPTABLE,),
        ),
        Watch(REVISIONS, controlled_by_or_matching("StatefulSet", STATEFULSETS), ("controller", "orphan")),
        Watch(CLAIMS, controlled_by("StatefulSet"), ("namespace",)),
    ),
    view=view,
    reconcile=reconcile,
    workers="concurrent_statefulset_syncs",
)
