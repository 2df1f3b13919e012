"""Deployments: a ReplicaSet for each template, moved from old to new as the strategy says, with history and progress.

One attempt does, in this order:
  1. find the ReplicaSet of the current template, or make it; give it the next revision and the Deployment's annotations
  2. when paused or being scaled: spread the number of replicas over the ReplicaSets in proportion
     otherwise: the next step of the rollout (RollingUpdate or Recreate)
  3. remove ReplicaSets beyond the revision history limit, once the rollout is complete
  4. write the status, with the conditions Available, Progressing and ReplicaFailure
ReplicaSets are changed in the attempt's own copies first, and each is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from fastkube.api.meta import controller_of, owner_reference
from fastkube.client import object_key
from fastkube.clock import rfc3339
from fastkube.controllers.actions import GONE, Action, Create, Delete, Requeue, Tell, Update, status_update
from fastkube.controllers.caches import Caches
from fastkube.controllers.common import (
    PODS,
    Object,
    Objects,
    claim,
    condition,
    controlled_by_or_matching,
    int_or_percent,
    is_finished,
    is_terminating,
    phase,
    seconds,
    template_hash,
)
from fastkube.controllers.replicaset import REPLICASETS
from fastkube.controllers.runner import Context, Controller, Watch
from fastkube.errors import ApiError

DEPLOYMENTS = "apps/v1/deployments"

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
_OWN_ANNOTATIONS = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        REVISION_HISTORY,
        DESIRED,
        MAXIMUM,
        "deprecated.deployment.rollback.to",
    }
)
_HISTORY_CHARS_MAX = 2000
_NO_LIMIT = 2**31 - 1

AVAILABLE, PROGRESSING, REPLICA_FAILURE = "Available", "Progressing", "ReplicaFailure"


class View(NamedTuple):
    deployment: Object
    owned: Objects
    orphans: Objects
    pods: Objects
    """Pods of the owned ReplicaSets; only where the strategy is Recreate, which waits for them."""
    named: Callable[[str], Object | None]
    """Which ReplicaSet has a name, whoever's it is."""
    now: float
    live: dict[str, Any] = {}  # noqa: RUF012 - never changed, only replaced


def view(context: Context, key: str) -> View | None:
    caches = context.caches
    deployment = caches.by_key(DEPLOYMENTS, key)
    if deployment is None:
        return None
    metadata = deployment["metadata"]
    owned = caches.index(REPLICASETS, "controller", metadata["uid"])
    orphans = caches.index(REPLICASETS, "orphan", metadata["namespace"])
    pods: Objects = []
    if _strategy(deployment) == "Recreate":
        pods = [pod for rs in owned for pod in caches.index(PODS, "controller", rs["metadata"]["uid"])]
    named = partial(caches.get, REPLICASETS, metadata["namespace"])
    return View(deployment, owned, orphans, pods, named, context.now)


def reconcile(view: View) -> Sequence[Action]:
    deployment = view.deployment
    selector = deployment["spec"].get("selector")
    if selector == {}:
        message = "This deployment is selecting all pods. A non-empty selector is required."
        return [Tell(deployment, "Warning", "SelectingAll", message)]
    claimed = claim(REPLICASETS, deployment, DEPLOYMENTS, view.owned, view.orphans, view.live)
    if claimed.asks:
        return claimed.asks
    attempt = _Attempt(view, claimed.objects)
    attempt.actions = list(claimed.actions)
    attempt.run()
    return attempt.actions


# ---------------------------------------------------------------- reading


def _strategy(deployment: Object) -> str:
    return str((deployment["spec"].get("strategy") or {}).get("type") or "RollingUpdate")


def _replicas(obj: Object) -> int:
    replicas = obj["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def _counted(rs: Object, field: str) -> int:
    return int((rs.get("status") or {}).get(field) or 0)


def _annotation(obj: Object, name: str) -> str:
    return str((obj["metadata"].get("annotations") or {}).get(name, ""))


def _annotated_number(obj: Object, name: str) -> int | None:
    text = _annotation(obj, name)
    return int(text) if text.isdigit() else None


def _revision(rs: Object) -> int:
    return _annotated_number(rs, REVISION) or 0


def _made(obj: Object) -> tuple[str, str]:
    return obj["metadata"]["creationTimestamp"], obj["metadata"]["name"]


def _same_template(left: Object, right: Object) -> bool:
    """Equal but for the label which tells templates apart."""
    return _without_hash(left) == _without_hash(right)


def _without_hash(template: Object) -> Object:
    metadata = template.get("metadata") or {}
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != HASH_LABEL}
    rest = {key: value for key, value in metadata.items() if key not in ("labels", "creationTimestamp")}
    return {"metadata": {**rest, "labels": labels}, "spec": template["spec"]}


class _Limits(NamedTuple):
    """How far a rolling update may leave the wanted number."""

    surge: int
    unavailable: int


def limits(deployment: Object) -> _Limits:
    """maxSurge (rounded up) and maxUnavailable (down, but one where both would be none) as numbers of Pods."""
    replicas = _replicas(deployment)
    if _strategy(deployment) != "RollingUpdate":
        return _Limits(0, 0)
    rolling = (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    surge = int_or_percent(rolling.get("maxSurge", "25%"), replicas, round_up=True)
    unavailable = int_or_percent(rolling.get("maxUnavailable", "25%"), replicas, round_up=False)
    if not surge and not unavailable:
        unavailable = 1
    return _Limits(surge, min(unavailable, replicas))


# ---------------------------------------------------------------- the attempt


class _Attempt:
    """The working state of one reconcile: copies of what changes, and the actions that follow from it."""

    def __init__(self, view: View, replicasets: Objects) -> None:
        self.deployment = view.deployment
        self.name = view.deployment["metadata"]["name"]
        self.now = view.now
        self.pods = view.pods
        self._name_taken = view.named
        self.actions: list[Action] = []
        self.replicas = _replicas(self.deployment)
        self.limits = limits(self.deployment)
        status = self.deployment.get("status") or {}
        self.conditions: Objects = list(status.get("conditions") or ())
        self.collisions = status.get("collisionCount")
        self.revision = _annotation(self.deployment, REVISION)
        self._changed: dict[str, Object] = {}
        self._tells: dict[str, list[Action]] = {}
        self._made_new = False
        self._split(replicasets)

    # -- the ReplicaSets -------------------------------------------------------------------------------------------

    def _split(self, replicasets: Objects) -> None:
        """The oldest ReplicaSet with the current template is the new one, all others are old."""
        template = self.deployment["spec"]["template"]
        self.new: Object | None = None
        self.old: Objects = []
        for rs in sorted(replicasets, key=_made):
            if self.new is None and _same_template(rs["spec"]["template"], template):
                self.new = rs
            else:
                self.old.append(rs)

    @property
    def all(self) -> Objects:
        return [*self.old, self.new] if self.new is not None else list(self.old)

    def _change(self, rs: Object, changed: Object) -> Object:
        """Take a new form of a ReplicaSet into the working state, to be written at the end."""
        uid = rs["metadata"]["uid"]
        self._changed[uid] = changed
        if self.new is not None and self.new["metadata"]["uid"] == uid:
            self.new = changed
        self.old = [changed if known["metadata"]["uid"] == uid else known for known in self.old]
        return changed

    def _scale(self, rs: Object, replicas: int) -> bool:
        """Whether the number of replicas changes; the annotations which tell the whole are kept up in any case."""
        before = _replicas(rs)
        totals = {DESIRED: str(self.replicas), MAXIMUM: str(self.replicas + self.limits.surge)}
        annotations = rs["metadata"].get("annotations") or {}
        if before == replicas and totals.items() <= annotations.items():
            return False
        metadata = {**rs["metadata"], "annotations": {**annotations, **totals}}
        self._change(rs, {**rs, "metadata": metadata, "spec": {**rs["spec"], "replicas": replicas}})
        if before == replicas:
            return False
        direction = "up" if before < replicas else "down"
        message = f"Scaled {direction} replica set {rs['metadata']['name']} from {before} to {replicas}"
        self._tells.setdefault(rs["metadata"]["uid"], []).append(
            Tell(self.deployment, "Normal", "ScalingReplicaSet", message)
        )
        return True

    # -- the order of an attempt -----------------------------------------------------------------------------------

    def run(self) -> None:
        if is_terminating(self.deployment):
            self._finish(progress=False)
            return
        self._note_pause()
        if self.deployment["spec"].get("paused"):
            self._sync_new(create=False)
            self._spread()
            self._clean_up()
            self._finish(progress=False)
        elif self._is_being_scaled():
            self._sync_new(create=False)
            self._spread()
            self._finish(progress=False)
        elif _strategy(self.deployment) == "Recreate":
            self._recreate()
        else:
            self._roll()

    def _is_being_scaled(self) -> bool:
        """Whether an active ReplicaSet still carries another wanted number than the Deployment."""
        for rs in self.all:
            if _replicas(rs) > 0:
                desired = _annotated_number(rs, DESIRED)
                if desired is not None and desired != self.replicas:
                    return True
        return False

    def _finish(self, *, progress: bool) -> None:
        for uid, rs in self._changed.items():
            self.actions.append(Update(REPLICASETS, rs, then=partial(_tell, self._tells.get(uid, []))))
        status = self._status()
        if progress:
            self._judge_progress(status)
            self._copy_failure()
        if self.conditions:
            status["conditions"] = self.conditions
        metadata = self.deployment["metadata"]
        if self.revision != _annotation(self.deployment, REVISION):
            metadata = {**metadata, "annotations": {**(metadata.get("annotations") or {}), REVISION: self.revision}}
        changed = {**self.deployment, "metadata": metadata, "status": status}
        if changed != self.deployment:
            self.actions.append(status_update(DEPLOYMENTS, changed, status))
        elif progress and (again := self._deadline_check(status)) is not None:
            self.actions.append(Requeue(again))

    # -- 1. the new ReplicaSet -------------------------------------------------------------------------------------

    def _sync_new(self, *, create: bool) -> bool:
        """False when the attempt cannot go on."""
        revision = max((_revision(rs) for rs in self.old), default=0) + 1
        if self.new is not None:
            self._sync_annotations(self.new, revision)
            self.revision = _annotation(self.new, REVISION)
            if self._has_deadline() and self._condition(PROGRESSING) is None:
                message = f'Found new replica set "{self.new["metadata"]["name"]}"'
                self._set(PROGRESSING, "True", "FoundNewReplicaSet", message)
            return True
        if not create:
            return True
        return self._make_new(revision)

    def _sync_annotations(self, rs: Object, revision: int) -> None:
        """The Deployment's annotations, its minReadySeconds and a revision after all others."""
        annotations = {**(rs["metadata"].get("annotations") or {}), **self._inherited()}
        before = _revision(rs)
        if before < revision:
            annotations[REVISION] = str(revision)
            if before:
                annotations[REVISION_HISTORY] = _longer_history(annotations.get(REVISION_HISTORY, ""), before)
        min_ready_s = self.deployment["spec"].get("minReadySeconds", 0)
        if (
            annotations != (rs["metadata"].get("annotations") or {})
            or rs["spec"].get("minReadySeconds", 0) != min_ready_s
        ):
            metadata = {**rs["metadata"], "annotations": annotations}
            self._change(rs, {**rs, "metadata": metadata, "spec": {**rs["spec"], "minReadySeconds": min_ready_s}})

    def _inherited(self) -> dict[str, str]:
        given = self.deployment["metadata"].get("annotations") or {}
        return {key: value for key, value in given.items() if key not in _OWN_ANNOTATIONS}

    def _make_new(self, revision: int) -> bool:
        rs = self._template_replicaset()
        name = rs["metadata"]["name"]
        if self._name_taken(name) is not None:
            # another template with the same hash: the next attempt, with one more collision, gets another name
            status = {**(self.deployment.get("status") or {}), "collisionCount": (self.collisions or 0) + 1}
            self.actions.append(status_update(DEPLOYMENTS, self.deployment, status))
            return False
        self._size(rs, revision)
        size = _replicas(rs)
        tells: list[Action] = []
        if size:
            message = f"Scaled up replica set {name} from 0 to {size}"
            tells = [Tell(self.deployment, "Normal", "ScalingReplicaSet", message)]
        self.actions.append(Create(REPLICASETS, rs, then=partial(_tell, tells), otherwise=self._creation_failed))
        self.revision = str(revision)
        if self._has_deadline():
            self._set(PROGRESSING, "True", "NewReplicaSetCreated", f'Created new replica set "{name}"')
        self.new = rs
        self._made_new = True
        return True

    def _template_replicaset(self) -> Object:
        spec = self.deployment["spec"]
        template = spec["template"]
        digest = template_hash(_without_hash(template), self.collisions or 0)
        metadata = template.get("metadata") or {}
        labels = {**(metadata.get("labels") or {}), HASH_LABEL: digest}
        selector = {
            **spec["selector"],
            "matchLabels": {**(spec["selector"].get("matchLabels") or {}), HASH_LABEL: digest},
        }
        made = {
            "replicas": 0,
            "selector": selector,
            "template": {**template, "metadata": {**metadata, "labels": labels}},
        }
        if spec.get("minReadySeconds"):
            made["minReadySeconds"] = spec["minReadySeconds"]
        return {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": f"{self.name}-{digest}",
                "namespace": self.deployment["metadata"]["namespace"],
                "labels": labels,
                "ownerReferences": [owner_reference(self.deployment)],
            },
            "spec": made,
        }

    def _size(self, rs: Object, revision: int) -> None:
        """Its first number of replicas, and its annotations."""
        rs["spec"]["replicas"] = self._next_size(rs, [*self.old, rs])
        rs["metadata"]["annotations"] = {
            **self._inherited(),
            REVISION: str(revision),
            DESIRED: str(self.replicas),
            MAXIMUM: str(self.replicas + self.limits.surge),
        }

    def _creation_failed(self, error: ApiError) -> Sequence[Action]:
        """Tell it in Progressing. A name that exists is dealt with when the cache knows whose it is."""
        status = dict(self.deployment.get("status") or {})
        if error.reason == "AlreadyExists" or not self._has_deadline():
            return ()
        self.conditions = list(status.get("conditions") or ())
        assert self.new is not None
        message = f'Failed to create new replica set "{self.new["metadata"]["name"]}": {error.message}'
        self._set(PROGRESSING, "False", "ReplicaSetCreateError", message)
        if self.conditions == status.get("conditions"):
            return ()
        return [status_update(DEPLOYMENTS, self.deployment, {**status, "conditions": self.conditions})]

    # -- 2. scaling ------------------------------------------------------------------------------------------------

    def _spread(self) -> None:
        """Bring the ReplicaSets to the wanted number without going on with the rollout."""
        active = [rs for rs in self.all if _replicas(rs) > 0]
        if len(active) <= 1:
            latest = active[0] if active else self.new or max(self.old, key=_made, default=None)
            if latest is not None:
                self._scale(latest, self.replicas)
            return
        if self._is_saturated():
            for rs in [rs for rs in self.old if _replicas(rs) > 0]:
                self._scale(rs, 0)
            return
        if _strategy(self.deployment) == "RollingUpdate":
            self._spread_in_proportion(active)

    def _is_saturated(self) -> bool:
        """Whether the new ReplicaSet has taken over completely."""
        if self.new is None:
            return False
        told = _annotated_number(self.new, DESIRED)
        return _replicas(self.new) == told == _counted(self.new, "availableReplicas") == self.replicas

    def _spread_in_proportion(self, active: Objects) -> None:
        allowed = self.replicas + self.limits.surge if self.replicas > 0 else 0
        to_add = allowed - sum(_replicas(rs) for rs in active)
        # the larger first; among equals the newer gains and the older loses
        ordered = sorted(active, key=_made, reverse=to_add > 0)
        ordered.sort(key=_replicas, reverse=True)
        sizes: list[int] = []
        added = 0
        for rs in ordered:
            share = self._proportion(rs, to_add, added)
            sizes.append(_replicas(rs) + share)
            added += share
        sizes[0] = max(0, sizes[0] + to_add - added)  # what rounding left over
        for rs, size in zip(ordered, sizes, strict=True):
            self._scale(rs, size)

    def _proportion(self, rs: Object, to_add: int, added: int) -> int:
        """The share of one ReplicaSet in `to_add` (of which `added` are given away)."""
        size = _replicas(rs)
        left = to_add - added
        if not size or not left:
            return 0
        if self.replicas == 0:
            share = -size
        else:
            whole = _annotated_number(rs, MAXIMUM) or _counted(self.deployment, "replicas")
            if not whole:
                return 0
            share = _round(size * (self.replicas + self.limits.surge) / whole) - size
        return min(share, left) if to_add > 0 else max(share, left)

    # -- 2. rollouts -----------------------------------------------------------------------------------------------

    def _next_size(self, new: Object, everything: Objects) -> int:
        """How large the new ReplicaSet may be now: the surge bounds all of them together."""
        size = _replicas(new)
        if _strategy(self.deployment) != "RollingUpdate":
            return self.replicas
        free = self.replicas + self.limits.surge - sum(_replicas(rs) for rs in everything)
        return size if free <= 0 else size + min(free, self.replicas - size)

    def _roll(self) -> None:
        if not self._sync_new(create=True):
            return
        if self._made_new:
            self._finish(progress=True)
            return
        new = self.new
        assert new is not None
        size = self.replicas if _replicas(new) > self.replicas else self._next_size(new, self.all)
        if not self._scale(new, size) and not self._roll_down() and self._is_complete(self._status()):
            self._clean_up()
        self._finish(progress=True)

    def _roll_down(self) -> bool:
        """Take Pods from the old ReplicaSets: unhealthy ones first, then as far as availability allows."""
        old_total = sum(_replicas(rs) for rs in self.old)
        if not old_total or self.new is None:
            return False
        least = self.replicas - self.limits.unavailable
        missing = _replicas(self.new) - _counted(self.new, "availableReplicas")
        allowed = old_total + _replicas(self.new) - least - missing
        if allowed <= 0:
            return False
        taken = self._take_unhealthy(allowed)
        surplus = sum(_counted(rs, "availableReplicas") for rs in self.all) - least
        return taken + self._take_available(surplus) > 0

    def _take_unhealthy(self, allowed: int) -> int:
        taken = 0
        for rs in sorted(self.old, key=_made):
            unhealthy = _replicas(rs) - _counted(rs, "availableReplicas")
            count = min(allowed - taken, unhealthy)
            if count > 0:
                self._scale(rs, _replicas(rs) - count)
                taken += count
        return taken

    def _take_available(self, surplus: int) -> int:
        taken = 0
        for rs in sorted(self.old, key=_made):
            count = min(surplus - taken, _replicas(rs))
            if count > 0:
                self._scale(rs, _replicas(rs) - count)
                taken += count
        return taken

    def _recreate(self) -> None:
        self._sync_new(create=False)
        stopped = [self._scale(rs, 0) for rs in self.old if _replicas(rs) > 0]
        if any(stopped) or self._old_pods_run():
            self._finish(progress=True)
            return
        if self.new is None:
            if not self._sync_new(create=True):
                return
        elif not self._scale(self.new, self.replicas) and self._is_complete(self._status()):
            self._clean_up()
        self._finish(progress=True)

    def _old_pods_run(self) -> bool:
        new_uid = self.new["metadata"]["uid"] if self.new is not None else ""
        for pod in self.pods:
            owner = controller_of(pod)
            if owner is not None and owner["uid"] != new_uid and not is_finished(pod):
                return True
        return False

    # -- 3. history ------------------------------------------------------------------------------------------------

    def _clean_up(self) -> None:
        """Delete the oldest revisions beyond the history limit, as far as they are empty."""
        limit = self.deployment["spec"].get("revisionHistoryLimit")
        if limit is None or limit == _NO_LIMIT:
            return
        candidates = sorted(
            (rs for rs in self.old if not is_terminating(rs)), key=lambda rs: (_revision(rs), _made(rs))
        )
        for rs in candidates[: max(0, len(candidates) - limit)]:
            stale = rs["metadata"].get("generation", 0) > _counted(rs, "observedGeneration")
            if not (_counted(rs, "replicas") or _replicas(rs) or stale):
                self.actions.append(Delete(REPLICASETS, rs, ignore=GONE))

    # -- 4. status -------------------------------------------------------------------------------------------------

    def _status(self) -> Object:
        """The counts, and the condition Available that follows from them; fields that are zero are left out."""
        everything = self.all
        available = sum(_counted(rs, "availableReplicas") for rs in everything)
        terminating = [rs["status"].get("terminatingReplicas") for rs in everything if rs.get("status")]
        counts = {
            "observedGeneration": self.deployment["metadata"].get("generation", 0),
            "replicas": sum(_counted(rs, "replicas") for rs in everything),
            "updatedReplicas": _counted(self.new, "replicas") if self.new is not None else 0,
            "readyReplicas": sum(_counted(rs, "readyReplicas") for rs in everything),
            "availableReplicas": available,
            "unavailableReplicas": max(0, sum(_replicas(rs) for rs in everything) - available),
        }
        status: Object = {key: value for key, value in counts.items() if value}
        if any(count is not None for count in terminating):
            status["terminatingReplicas"] = sum(count or 0 for count in terminating)
        if self.collisions is not None:
            status["collisionCount"] = self.collisions
        if available >= self.replicas - self.limits.unavailable:
            self._set(AVAILABLE, "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        else:
            message = "Deployment does not have minimum availability."
            self._set(AVAILABLE, "False", "MinimumReplicasUnavailable", message)
        return status

    def _is_complete(self, status: Object) -> bool:
        wanted = self.replicas
        fields = ("updatedReplicas", "replicas", "availableReplicas")
        return all(status.get(field, 0) == wanted for field in fields)

    def _judge_progress(self, status: Object) -> None:
        """The condition Progressing: complete, going on, or out of time."""
        if not self._has_deadline():
            self._drop(PROGRESSING)
            return
        was = condition(self.deployment, PROGRESSING)
        if (
            was is not None
            and was.get("reason") == "NewReplicaSetAvailable"
            and status.get("replicas", 0) == status.get("updatedReplicas", 0)
            and not self._made_new
        ):
            return
        what = f'ReplicaSet "{self.new["metadata"]["name"]}"' if self.new is not None else f'Deployment "{self.name}"'
        if self._is_complete(status):
            self._set(PROGRESSING, "True", "NewReplicaSetAvailable", f"{what} has successfully progressed.")
        elif self._has_progressed(status):
            self._renew(f"{what} is progressing.")
        elif self._is_out_of_time():
            self._set(PROGRESSING, "False", "ProgressDeadlineExceeded", f"{what} has timed out progressing.")

    def _has_progressed(self, status: Object) -> bool:
        was = self.deployment.get("status") or {}

        def grew(field: str) -> bool:
            return int(status.get(field, 0)) > int(was.get(field, 0))

        def old_pods(counts: Object) -> int:
            return int(counts.get("replicas", 0)) - int(counts.get("updatedReplicas", 0))

        more = grew("updatedReplicas") or grew("readyReplicas") or grew("availableReplicas")
        return more or old_pods(status) < old_pods(was)

    def _renew(self, message: str) -> None:
        """ReplicaSetUpdated with a new lastUpdateTime each time: the deadline counts from the last progress."""
        current = self._condition(PROGRESSING)
        renewed = self._condition_now(PROGRESSING, "True", "ReplicaSetUpdated", message)
        if current is not None and current["status"] == "True":
            renewed["lastTransitionTime"] = current["lastTransitionTime"]
        self._drop(PROGRESSING)
        self.conditions.append(renewed)

    def _deadline_s(self) -> int:
        return int(self.deployment["spec"].get("progressDeadlineSeconds") or 0)

    def _has_deadline(self) -> bool:
        limit = self.deployment["spec"].get("progressDeadlineSeconds")
        return limit is not None and limit != _NO_LIMIT

    def _is_out_of_time(self) -> bool:
        current = self._condition(PROGRESSING)
        if current is None or current["reason"] == "NewReplicaSetAvailable":
            return False
        if current["reason"] == "ProgressDeadlineExceeded":
            return True
        return seconds(current["lastUpdateTime"]) + self._deadline_s() < self.now

    def _deadline_check(self, status: Object) -> float | None:
        """Seconds until progress has to be looked at again, though nothing may change until then."""
        current = self._condition(PROGRESSING)
        if not self._has_deadline() or current is None or self._is_complete(status):
            return None
        if current["reason"] in ("ProgressDeadlineExceeded", "NewReplicaSetAvailable"):
            return None
        return max(1.0, seconds(current["lastUpdateTime"]) + self._deadline_s() - self.now + 1)

    def _copy_failure(self) -> None:
        """ReplicaFailure of the new ReplicaSet, or of any."""
        ordered = ([self.new] if self.new is not None else []) + self.old
        for rs in ordered:
            failure = condition(rs, REPLICA_FAILURE)
            if failure is not None:
                self._set(REPLICA_FAILURE, failure["status"], failure.get("reason", ""), failure.get("message", ""))
                return
        self._drop(REPLICA_FAILURE)

    def _note_pause(self) -> None:
        """A paused Deployment makes no progress, and is not to be blamed for it when it is resumed."""
        current = self._condition(PROGRESSING)
        if not self._has_deadline() or (current is not None and current["reason"] == "ProgressDeadlineExceeded"):
            return
        was_paused = current is not None and current["reason"] == "DeploymentPaused"
        paused = bool(self.deployment["spec"].get("paused"))
        if paused and not was_paused:
            self._set(PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused")
        elif was_paused and not paused:
            self._set(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed")

    def _condition(self, kind: str) -> Object | None:
        return next((known for known in self.conditions if known["type"] == kind), None)

    def _condition_now(self, kind: str, status: str, reason: str, message: str) -> Object:
        now = rfc3339(self.now)
        return {
            "type": kind,
            "status": status,
            "lastUpdateTime": now,
            "lastTransitionTime": now,
            "reason": reason,
            "message": message,
        }

    def _set(self, kind: str, status: str, reason: str, message: str) -> None:
        """Nothing changes while status and reason stay; a change goes to the end of the list."""
        current = self._condition(kind)
        if current is not None and current["status"] == status and current.get("reason") == reason:
            return
        changed = self._condition_now(kind, status, reason, message)
        if current is not None and current["status"] == status:
            changed["lastTransitionTime"] = current["lastTransitionTime"]
        self._drop(kind)
        self.conditions.append(changed)

    def _drop(self, kind: str) -> None:
        self.conditions = [known for known in self.conditions if known["type"] != kind]


def _tell(tells: list[Action], _answer: Object) -> Sequence[Action]:
    return tells


def _longer_history(history: str, revision: int) -> str:
    """The revisions a ReplicaSet had before; the first ones go when the text gets too long."""
    parts = [*history.split(","), str(revision)] if history else [str(revision)]
    while len(",".join(parts)) > _HISTORY_CHARS_MAX:
        parts.pop(0)
    return ",".join(parts)


def _round(number: float) -> int:
    """To the nearest, halves away from zero."""
    return int(number + 0.5) if number >= 0 else -int(-number + 0.5)


# ---------------------------------------------------------------- wiring


def _recreating(caches: Caches, pod: Object) -> Sequence[str]:
    """The Deployment of a Pod, where its strategy waits for Pods to end."""
    owner = controller_of(pod)
    if owner is None or owner["kind"] != "ReplicaSet":
        return ()
    rs = caches.get(REPLICASETS, pod["metadata"]["namespace"], owner["name"])
    owner = controller_of(rs) if rs is not None else None
    if owner is None or owner["kind"] != "Deployment":
        return ()
    deployment = caches.get(DEPLOYMENTS, pod["metadata"]["namespace"], owner["name"])
    if deployment is None or _strategy(deployment) != "Recreate":
        return ()
    return (object_key(deployment),)


def _phase_changed(old: Object, new: Object) -> bool:
    return phase(old) != phase(new)


CONTROLLER = Controller(
    name="deployment-controller",
    watches=(
        Watch(DEPLOYMENTS, indexes=("namespace",)),
        Watch(REPLICASETS, controlled_by_or_matching("Deployment", DEPLOYMENTS), ("controller", "orphan")),
        Watch(PODS, _recreating, ("controller",), changed=_phase_changed),
    ),
    view=view,
    reconcile=reconcile,
    workers="concurrent_deployment_syncs",
)
