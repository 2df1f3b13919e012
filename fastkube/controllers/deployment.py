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

from fastkube.api.meta import controller_of
from fastkube.client import object_key
from fastkube.controllers.actions import GONE, Action, Create, Delete, Requeue, Tell, Update, status_update
from fastkube.controllers.caches import Caches
from fastkube.controllers.common import (
    PODS,
    Object,
    Objects,
    claim,
    controlled_by_or_matching,
    is_finished,
    is_terminating,
    phase,
)
from fastkube.controllers.deployment_parts import (
    DESIRED,
    MAXIMUM,
    REVISION,
    REVISION_HISTORY,
    age,
    annotated_number,
    annotation_of,
    counted,
    inherited,
    limits,
    longer_history,
    proportional_sizes,
    replicas_of,
    replicaset_of,
    revision_of,
    same_template,
    strategy_of,
)
from fastkube.controllers.deployment_progress import NO_LIMIT, PROGRESSING, Progress
from fastkube.controllers.pod_topics import OWNED, PHASE
from fastkube.controllers.replicaset import REPLICASETS
from fastkube.controllers.runner import Context, Controller, Watch
from fastkube.errors import ApiError

DEPLOYMENTS = "apps/v1/deployments"


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
    if strategy_of(deployment) == "Recreate":
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


# ---------------------------------------------------------------- the attempt


class _Attempt:
    """The working state of one reconcile: copies of what changes, and the actions that follow from it."""

    def __init__(self, view: View, replicasets: Objects) -> None:
        self.deployment = view.deployment
        self.name = view.deployment["metadata"]["name"]
        self.pods = view.pods
        self._now = view.now
        self._name_taken = view.named
        self.actions: list[Action] = []
        self.replicas = replicas_of(self.deployment)
        self.limits = limits(self.deployment)
        self.progress = Progress(self.deployment, view.now)
        self.revision = annotation_of(self.deployment, REVISION)
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
        for rs in sorted(replicasets, key=age):
            if self.new is None and same_template(rs["spec"]["template"], template):
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
        before = replicas_of(rs)
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
        self.progress.note_pause()
        if self.deployment["spec"].get("paused"):
            self._sync_new(create=False)
            self._spread()
            self._clean_up()
            self._finish(progress=False)
        elif self._is_being_scaled():
            self._sync_new(create=False)
            self._spread()
            self._finish(progress=False)
        elif strategy_of(self.deployment) == "Recreate":
            self._recreate()
        else:
            self._roll()

    def _is_being_scaled(self) -> bool:
        """Whether an active ReplicaSet still carries another wanted number than the Deployment."""
        for rs in self.all:
            if replicas_of(rs) > 0:
                desired = annotated_number(rs, DESIRED)
                if desired is not None and desired != self.replicas:
                    return True
        return False

    def _finish(self, *, progress: bool) -> None:
        for uid, rs in self._changed.items():
            self.actions.append(Update(REPLICASETS, rs, then=partial(_tell, self._tells.get(uid, []))))
        status = self._status()
        if progress:
            self.progress.judge(status, self.new, made_new=self._made_new)
            self.progress.copy_failure([*([self.new] if self.new is not None else []), *self.old])
        if self.progress.conditions:
            status["conditions"] = self.progress.conditions
        metadata = self.deployment["metadata"]
        if self.revision != annotation_of(self.deployment, REVISION):
            metadata = {**metadata, "annotations": {**(metadata.get("annotations") or {}), REVISION: self.revision}}
        changed = {**self.deployment, "metadata": metadata, "status": status}
        if changed != self.deployment:
            self.actions.append(status_update(DEPLOYMENTS, changed, status))
        elif progress and (again := self.progress.deadline_check(status)) is not None:
            self.actions.append(Requeue(again))

    def _status(self) -> Object:
        return self.progress.status(self.new, self.all)

    # -- 1. the new ReplicaSet -------------------------------------------------------------------------------------

    def _sync_new(self, *, create: bool) -> bool:
        """False when the attempt cannot go on."""
        revision = max((revision_of(rs) for rs in self.old), default=0) + 1
        if self.new is not None:
            self._sync_annotations(self.new, revision)
            self.revision = annotation_of(self.new, REVISION)
            if self.progress.has_deadline() and self.progress.get(PROGRESSING) is None:
                message = f'Found new replica set "{self.new["metadata"]["name"]}"'
                self.progress.set(PROGRESSING, "True", "FoundNewReplicaSet", message)
            return True
        if not create:
            return True
        return self._make_new(revision)

    def _sync_annotations(self, rs: Object, revision: int) -> None:
        """The Deployment's annotations, its minReadySeconds and a revision after all others."""
        annotations = {**(rs["metadata"].get("annotations") or {}), **inherited(self.deployment)}
        before = revision_of(rs)
        if before < revision:
            annotations[REVISION] = str(revision)
            if before:
                annotations[REVISION_HISTORY] = longer_history(annotations.get(REVISION_HISTORY, ""), before)
        min_ready_s = self.deployment["spec"].get("minReadySeconds", 0)
        if (
            annotations != (rs["metadata"].get("annotations") or {})
            or rs["spec"].get("minReadySeconds", 0) != min_ready_s
        ):
            metadata = {**rs["metadata"], "annotations": annotations}
            self._change(rs, {**rs, "metadata": metadata, "spec": {**rs["spec"], "minReadySeconds": min_ready_s}})

    def _make_new(self, revision: int) -> bool:
        rs = replicaset_of(self.deployment, self.progress.collisions or 0)
        name = rs["metadata"]["name"]
        if self._name_taken(name) is not None:
            # another template with the same hash: the next attempt, with one more collision, gets another name
            status = {**(self.deployment.get("status") or {}), "collisionCount": (self.progress.collisions or 0) + 1}
            self.actions.append(status_update(DEPLOYMENTS, self.deployment, status))
            return False
        self._size(rs, revision)
        size = replicas_of(rs)
        tells: list[Action] = []
        if size:
            message = f"Scaled up replica set {name} from 0 to {size}"
            tells = [Tell(self.deployment, "Normal", "ScalingReplicaSet", message)]
        self.actions.append(Create(REPLICASETS, rs, then=partial(_tell, tells), otherwise=self._creation_failed))
        self.revision = str(revision)
        if self.progress.has_deadline():
            self.progress.set(PROGRESSING, "True", "NewReplicaSetCreated", f'Created new replica set "{name}"')
        self.new = rs
        self._made_new = True
        return True

    def _size(self, rs: Object, revision: int) -> None:
        """Its first number of replicas, and its annotations."""
        rs["spec"]["replicas"] = self._next_size(rs, [*self.old, rs])
        rs["metadata"]["annotations"] = {
            **inherited(self.deployment),
            REVISION: str(revision),
            DESIRED: str(self.replicas),
            MAXIMUM: str(self.replicas + self.limits.surge),
        }

    def _creation_failed(self, error: ApiError) -> Sequence[Action]:
        """Tell it, in Progressing too. A name that exists is dealt with when the cache knows whose it is."""
        if error.reason == "AlreadyExists":
            return ()
        assert self.new is not None
        message = f'Failed to create new replica set "{self.new["metadata"]["name"]}": {error.message}'
        tell = Tell(self.deployment, "Warning", "ReplicaSetCreateError", message)
        progress = Progress(self.deployment, self._now)
        if not progress.has_deadline():
            return [tell]
        progress.set(PROGRESSING, "False", "ReplicaSetCreateError", message)
        status = self.deployment.get("status") or {}
        if progress.conditions == status.get("conditions"):
            return [tell]
        return [tell, status_update(DEPLOYMENTS, self.deployment, {**status, "conditions": progress.conditions})]

    # -- 2. scaling ------------------------------------------------------------------------------------------------

    def _spread(self) -> None:
        """Bring the ReplicaSets to the wanted number without going on with the rollout."""
        active = [rs for rs in self.all if replicas_of(rs) > 0]
        if len(active) <= 1:
            latest = active[0] if active else self.new or max(self.old, key=age, default=None)
            if latest is not None:
                self._scale(latest, self.replicas)
            return
        if self._is_saturated():
            for rs in [rs for rs in self.old if replicas_of(rs) > 0]:
                self._scale(rs, 0)
            return
        if strategy_of(self.deployment) == "RollingUpdate":
            self._spread_in_proportion(active)

    def _is_saturated(self) -> bool:
        """Whether the new ReplicaSet has taken over completely."""
        if self.new is None:
            return False
        told = annotated_number(self.new, DESIRED)
        return replicas_of(self.new) == told == counted(self.new, "availableReplicas") == self.replicas

    def _spread_in_proportion(self, active: Objects) -> None:
        for rs, size in proportional_sizes(self.deployment, active, self.replicas, self.limits.surge):
            self._scale(rs, size)

    # -- 2. rollouts -----------------------------------------------------------------------------------------------

    def _next_size(self, new: Object, everything: Objects) -> int:
        """How large the new ReplicaSet may be now: the surge bounds all of them together."""
        size = replicas_of(new)
        if strategy_of(self.deployment) != "RollingUpdate":
            return self.replicas
        free = self.replicas + self.limits.surge - sum(replicas_of(rs) for rs in everything)
        return size if free <= 0 else size + min(free, self.replicas - size)

    def _roll(self) -> None:
        if not self._sync_new(create=True):
            return
        if self._made_new:
            self._finish(progress=True)
            return
        new = self.new
        assert new is not None
        size = self.replicas if replicas_of(new) > self.replicas else self._next_size(new, self.all)
        if not self._scale(new, size) and not self._roll_down() and self.progress.is_complete(self._status()):
            self._clean_up()
        self._finish(progress=True)

    def _roll_down(self) -> bool:
        """Take Pods from the old ReplicaSets: unhealthy ones first, then as far as availability allows."""
        old_total = sum(replicas_of(rs) for rs in self.old)
        if not old_total or self.new is None:
            return False
        least = self.replicas - self.limits.unavailable
        missing = replicas_of(self.new) - counted(self.new, "availableReplicas")
        allowed = old_total + replicas_of(self.new) - least - missing
        if allowed <= 0:
            return False
        taken = self._take_unhealthy(allowed)
        surplus = sum(counted(rs, "availableReplicas") for rs in self.all) - least
        return taken + self._take_available(surplus) > 0

    def _take_unhealthy(self, allowed: int) -> int:
        taken = 0
        for rs in sorted(self.old, key=age):
            unhealthy = replicas_of(rs) - counted(rs, "availableReplicas")
            count = min(allowed - taken, unhealthy)
            if count > 0:
                self._scale(rs, replicas_of(rs) - count)
                taken += count
        return taken

    def _take_available(self, surplus: int) -> int:
        taken = 0
        for rs in sorted(self.old, key=age):
            count = min(surplus - taken, replicas_of(rs))
            if count > 0:
                self._scale(rs, replicas_of(rs) - count)
                taken += count
        return taken

    def _recreate(self) -> None:
        self._sync_new(create=False)
        stopped = [self._scale(rs, 0) for rs in self.old if replicas_of(rs) > 0]
        if any(stopped) or self._old_pods_run():
            self._finish(progress=True)
            return
        if self.new is None:
            if not self._sync_new(create=True):
                return
        elif not self._scale(self.new, self.replicas) and self.progress.is_complete(self._status()):
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
        if limit is None or limit == NO_LIMIT:
            return
        candidates = sorted(
            (rs for rs in self.old if not is_terminating(rs)), key=lambda rs: (revision_of(rs), age(rs))
        )
        for rs in candidates[: max(0, len(candidates) - limit)]:
            stale = rs["metadata"].get("generation", 0) > counted(rs, "observedGeneration")
            if not (counted(rs, "replicas") or replicas_of(rs) or stale):
                self.actions.append(Delete(REPLICASETS, rs, ignore=GONE))


def _tell(tells: list[Action], _answer: Object) -> Sequence[Action]:
    return tells


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
    if deployment is None or strategy_of(deployment) != "Recreate":
        return ()
    return (object_key(deployment),)


def _phase_changed(old: Object, new: Object) -> bool:
    return phase(old) != phase(new)


CONTROLLER = Controller(
    name="deployment-controller",
    watches=(
        Watch(DEPLOYMENTS, indexes=("namespace",)),
        Watch(REPLICASETS, controlled_by_or_matching("Deployment", DEPLOYMENTS), ("controller", "orphan")),
        Watch(PODS, _recreating, ("controller",), changed=_phase_changed, about=(OWNED["ReplicaSet"], PHASE)),
    ),
    view=view,
    reconcile=reconcile,
    workers="concurrent_deployment_syncs",
)
