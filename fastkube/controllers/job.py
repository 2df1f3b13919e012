"""Jobs: Pods until enough have succeeded, each counted exactly once.

How a Pod is counted once, though the controller may die at any moment (KEP-2307): a Pod carries a finalizer until its
end is recorded. (1) The uid of an ended Pod is written into status.uncountedTerminatedPods. (2) Its finalizer is
removed. (3) The uid is taken out again and the count raised, in one write. An attempt does the steps that are due;
what it writes brings the next attempt about. Indexed Jobs record the index instead, which is a set and cannot be
counted twice.

Ends in two steps, too: SuccessCriteriaMet or FailureTarget decides the outcome and the other Pods are deleted; Complete
or Failed follows when all Pods have ended and are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from fastkube.api.meta import controller_of
from fastkube.clock import rfc3339
from fastkube.controllers import job_indexes, job_policy
from fastkube.controllers.actions import GONE, Action, Create, Delete, Patch, Requeue, Tell, Together, status_update
from fastkube.controllers.caches import TRACKING_FINALIZER, Caches
from fastkube.controllers.common import (
    PODS,
    Object,
    Objects,
    claim,
    condition,
    condition_is,
    controlled_by_or_matching,
    deletion_order,
    is_active,
    is_finished,
    is_ready,
    is_terminating,
    phase,
    pod_from_template,
    seconds,
    set_condition,
)
from fastkube.controllers.runner import Context, Controller, Watch
from fastkube.errors import ApiError

JOBS = "batch/v1/jobs"

MANAGER = "kubernetes.io/job-controller"
BURST = 500
UNCOUNTED_MAX = 500
_ORPHAN = "orphan:"


class View(NamedTuple):
    job: Object
    owned: Objects
    orphans: Objects
    now: float
    live: dict[str, Any] = {}  # noqa: RUF012 - never changed, only replaced


class OrphanView(NamedTuple):
    """Pods which wait for a Job that will not count them any more."""

    pods: Objects


def view(context: Context, key: str) -> View | OrphanView | None:
    caches = context.caches
    if key.startswith(_ORPHAN):
        pod = caches.by_key(PODS, key.removeprefix(_ORPHAN))
        return OrphanView([pod]) if pod is not None and controller_of(pod) is None else None
    job = caches.by_key(JOBS, key)
    tracked = caches.index(PODS, "tracked-job", key)
    uid = job["metadata"]["uid"] if job is not None else None
    strays = [pod for pod in tracked if (controller_of(pod) or {}).get("uid") != uid]
    if job is None or strays:
        return OrphanView(strays) if strays else None
    owned = caches.index(PODS, "controller", job["metadata"]["uid"])
    return View(job, owned, caches.index(PODS, "orphan", job["metadata"]["namespace"]), context.now)


def reconcile(view: View | OrphanView) -> Sequence[Action]:
    if isinstance(view, OrphanView):
        return [Together([_untrack(pod) for pod in view.pods])]
    job = view.job
    if job["spec"].get("managedBy", MANAGER) != MANAGER:
        return ()
    if _outcome(job) is not None:
        left = [pod for pod in view.owned if _is_tracked(pod)]
        return [Together([_untrack(pod) for pod in left])] if left else ()
    claimed = claim(PODS, job, JOBS, view.owned, view.orphans, view.live, finalizers=(TRACKING_FINALIZER,))
    if claimed.asks:
        return claimed.asks
    attempt = _Attempt(job, claimed.objects, view.now)
    return [*claimed.actions, *attempt.run()]


def _is_tracked(pod: Object) -> bool:
    return TRACKING_FINALIZER in (pod["metadata"].get("finalizers") or ())


def _untrack(pod: Object) -> Patch:
    body = {"metadata": {"$deleteFromPrimitiveList/finalizers": [TRACKING_FINALIZER]}}
    return Patch(PODS, pod, body=body, kind="strategic", ignore=GONE)


def _outcome(job: Object) -> Object | None:
    """The final condition of a Job."""
    for kind in ("Complete", "Failed"):
        found = condition(job, kind)
        if found is not None and found["status"] == "True":
            return found
    return None


class _Attempt:
    """The working state of one reconcile of an unfinished Job."""

    def __init__(self, job: Object, pods: Objects, now: float) -> None:
        self.job = job
        self.spec = job["spec"]
        self.now = now
        self.pods = pods
        self.active = [pod for pod in pods if is_active(pod)]
        self.terminating = [pod for pod in pods if is_terminating(pod) and not is_finished(pod)]
        self.status: Object = dict(job.get("status") or {})
        self.conditions: Objects = list(self.status.get("conditions") or ())
        self.requeues: list[float] = []
        self.tells: list[Action] = []
        self.work: list[Action] = []
        self.active_after = len(self.active)
        self.leaving: set[str] = set()
        self.indexed = self.spec.get("completionMode") == "Indexed"
        self.completions: int | None = self.spec.get("completions")
        uncounted = self.status.get("uncountedTerminatedPods") or {}
        self.ended: Objects = []
        self.unrecorded = {"succeeded": 0, "failed": 0}
        self.uncounted = {key: list(uncounted.get(key) or ()) for key in ("succeeded", "failed")}
        self.succeeded_indexes: set[int] = set()
        self.failed_indexes: set[int] = set()
        self.held: dict[int, Object] = {}

    # -- the order of an attempt -----------------------------------------------------------------------------------

    def run(self) -> list[Action]:
        self._start()
        self._count_ended()
        outcome = self._target()
        if outcome is None and not is_terminating(self.job):
            self._manage()
            outcome = self._completed()
            if outcome is None:
                self._note_suspension()
        if outcome is not None:
            self._close(outcome)
        return self._finish(outcome)

    def _start(self) -> None:
        """A Job starts when it is first seen unsuspended; its deadline counts from there."""
        if not self.status.get("startTime") and not self._suspended:
            self.status["startTime"] = rfc3339(self.now)

    @property
    def _suspended(self) -> bool:
        return bool(self.spec.get("suspend"))

    @property
    def _per_index(self) -> bool:
        return self.indexed and self.spec.get("backoffLimitPerIndex") is not None

    # -- counting --------------------------------------------------------------------------------------------------

    def _count_ended(self) -> None:
        """Step 3 for the Pods whose finalizers are gone, then step 1 for those that have ended since."""
        tracked = {pod["metadata"]["uid"] for pod in self.pods if _is_tracked(pod)}
        for key in ("succeeded", "failed"):
            done = [uid for uid in self.uncounted[key] if uid not in tracked]
            if done:
                self.uncounted[key] = [uid for uid in self.uncounted[key] if uid in tracked]
                self.status[key] = self.status.get(key, 0) + len(done)
        if self.indexed:
            self._count_indexes()
        counted = {*self.uncounted["succeeded"], *self.uncounted["failed"]}
        for pod in self.pods:
            uid = pod["metadata"]["uid"]
            if uid not in tracked:
                continue
            succeeded, failed = phase(pod) == "Succeeded", job_policy.has_failed(self.job, pod)
            if not (succeeded or failed):
                continue
            if uid in counted or self._count(pod, succeeded=succeeded):
                self.ended.append(pod)

    def _count(self, pod: Object, *, succeeded: bool) -> bool:
        """Note the end of a Pod; False if its finalizer has to stay for now."""
        index = job_indexes.index_of(pod)
        if succeeded and self.indexed:
            return True  # its index is recorded
        if not succeeded and self.held.get(index) is pod:
            return False
        if not succeeded and not job_policy.counts_as_failure(self.job, pod):
            return True
        return self._record(pod, "succeeded" if succeeded else "failed")

    def _record(self, pod: Object, key: str) -> bool:
        """Step 1; False when so many are recorded already that this one has to wait, though it counts."""
        if len(self.uncounted["succeeded"]) + len(self.uncounted["failed"]) >= UNCOUNTED_MAX:
            self.unrecorded[key] += 1
            return False
        self.uncounted[key].append(pod["metadata"]["uid"])
        return True

    def _count_indexes(self) -> None:
        completions = self.completions or 0
        self.succeeded_indexes = job_indexes.parse(self.status.get("completedIndexes"), completions)
        self.failed_indexes = job_indexes.parse(self.status.get("failedIndexes"), completions)
        for pod in self.pods:
            index = job_indexes.index_of(pod)
            if not 0 <= index < completions or not _is_tracked(pod):
                continue
            if phase(pod) == "Succeeded":
                self.succeeded_indexes.add(index)
            elif self._per_index and job_policy.index_has_failed(self.job, pod):
                self.failed_indexes.add(index)
        if self._per_index:
            self._hold_failed()

    def _hold_failed(self) -> None:
        """The last failed Pod of each index that is to be tried again keeps its finalizer until it is replaced."""
        running = {job_indexes.index_of(pod) for pod in self.active}
        for pod in self.pods:
            index = job_indexes.index_of(pod)
            if index in running or index in self.failed_indexes or index in self.succeeded_indexes:
                continue
            if _is_tracked(pod) and job_policy.has_failed(self.job, pod):
                known = self.held.get(index)
                if known is None or _failures(self.job, pod) > _failures(self.job, known):
                    self.held[index] = pod

    @property
    def _succeeded(self) -> int:
        if self.indexed:
            return len(self.succeeded_indexes)
        recorded = int(self.status.get("succeeded", 0)) + len(self.uncounted["succeeded"])
        return recorded + self.unrecorded["succeeded"]

    @property
    def _failed(self) -> int:
        held = sum(job_policy.counts_as_failure(self.job, pod) for pod in self.held.values())
        recorded = int(self.status.get("failed", 0)) + len(self.uncounted["failed"])
        return recorded + self.unrecorded["failed"] + held

    # -- the outcome -----------------------------------------------------------------------------------------------

    def _target(self) -> Object | None:
        """The outcome, if it is decided already or by what has failed or succeeded since."""
        for kind in ("SuccessCriteriaMet", "FailureTarget"):
            if condition_is(self.job, kind):
                return condition(self.job, kind)
        if message := job_policy.fail_job_message(self.job, self.pods):
            return self._decided("FailureTarget", "PodFailurePolicy", message)
        limit = self.spec.get("backoffLimit", 6)
        if self._failed > limit or job_policy.exceeds_backoff_by_restarts(self.job, self.pods):
            message = "Job has reached the specified backoff limit"
            return self._decided("FailureTarget", "BackoffLimitExceeded", message)
        if self._past_deadline():
            message = "Job was active longer than specified deadline"
            return self._decided("FailureTarget", "DeadlineExceeded", message)
        most = self.spec.get("maxFailedIndexes")
        if self._per_index and most is not None and len(self.failed_indexes) > most:
            message = "Job has exceeded the specified maximal number of failed indexes"
            return self._decided("FailureTarget", "MaxFailedIndexesExceeded", message)
        if self.indexed and (rule := job_policy.matched_success_rule(self.job, self.succeeded_indexes)) is not None:
            return self._decided("SuccessCriteriaMet", "SuccessPolicy", f"Matched rules at index {rule}")
        return None

    def _completed(self) -> Object | None:
        """The outcome when nothing is left to do."""
        if self.active_after:
            return None
        if self.completions is None:
            complete = self._succeeded > 0
        else:
            complete = self._succeeded + len(self.failed_indexes) >= self.completions
        if not complete:
            return None
        if self.failed_indexes:
            return self._decided("FailureTarget", "FailedIndexes", "Job has failed indexes")
        message = "Reached expected number of succeeded pods"
        return self._decided("SuccessCriteriaMet", "CompletionsReached", message)

    def _decided(self, kind: str, reason: str, message: str) -> Object:
        return {
            "type": kind,
            "status": "True",
            "lastProbeTime": rfc3339(self.now),
            "lastTransitionTime": rfc3339(self.now),
            "reason": reason,
            "message": message,
        }

    def _past_deadline(self) -> bool:
        limit = self.spec.get("activeDeadlineSeconds")
        if limit is None or self._suspended or not self.status.get("startTime"):
            return False
        left = seconds(self.status["startTime"]) + limit - self.now
        if left > 0:
            self.requeues.append(left)
        return bool(left <= 0)

    def _close(self, outcome: Object) -> None:
        """The outcome is decided: what still runs is deleted; when all has ended and is counted the Job is finished."""
        self.conditions = set_condition(self.conditions, outcome)
        if self.active:
            self.work.append(Together([self._delete(pod) for pod in self.active]))
            self.terminating = [*self.terminating, *self.active]
            self.active_after = 0
        self._fail_the_rest()
        if self.terminating or any(self.uncounted.values()) or self.ended or any(self.unrecorded.values()):
            return
        kind = "Complete" if outcome["type"] == "SuccessCriteriaMet" else "Failed"
        final = self._decided(kind, outcome["reason"], outcome["message"])
        self.conditions = set_condition(self.conditions, final)
        if kind == "Complete":
            self.status["completionTime"] = rfc3339(self.now)
            self.tells.append(Tell(self.job, "Normal", "Completed", "Job completed"))
        else:
            self.tells.append(Tell(self.job, "Warning", outcome["reason"], outcome["message"]))

    def _fail_the_rest(self) -> None:
        """Once the outcome is decided nothing is waited for or tried again: what has not succeeded has failed."""
        known = {pod["metadata"]["uid"] for pod in self.ended}
        self.held = {}
        for pod in self.pods:
            uid = pod["metadata"]["uid"]
            if _is_tracked(pod) and uid not in known and not (self.indexed and phase(pod) == "Succeeded"):
                if phase(pod) == "Succeeded" or not job_policy.counts_as_failure(self.job, pod):
                    continue  # waits for its turn, or does not count
                if self._record(pod, "failed"):
                    self.ended.append(pod)

    def _note_suspension(self) -> None:
        known = condition(self.job, "Suspended")
        if self._suspended and (known is None or known["status"] != "True"):
            told = {**self._decided("Suspended", "JobSuspended", "Job suspended")}
            self.tells.append(Tell(self.job, "Normal", "Suspended", "Job suspended"))
        elif not self._suspended and known is not None and known["status"] == "True":
            told = {**self._decided("Suspended", "JobResumed", "Job resumed"), "status": "False"}
            self.tells.append(Tell(self.job, "Normal", "Resumed", "Job resumed"))
            self.status["startTime"] = rfc3339(self.now)
        else:
            return
        self.conditions = set_condition(self.conditions, told)

    # -- Pods ------------------------------------------------------------------------------------------------------

    def _manage(self) -> None:
        """Bring the number of running Pods to what is wanted."""
        wanted = 0 if self._suspended else self._wanted()
        surplus = self._surplus(len(self.active) - wanted)
        if surplus:
            # not failures of the Job: these lose their finalizers first, so that nobody counts them
            self.work.append(Together([_untrack(pod) for pod in surplus]))
            self.work.append(Together([self._delete(pod) for pod in surplus]))
            self.active_after -= len(surplus)
            self.leaving = {pod["metadata"]["uid"] for pod in surplus}
            self.terminating = [*self.terminating, *surplus]
            return
        if self._suspended:
            return
        awaited = len(self.terminating) if job_policy.replaces_failed_only(self.job) else 0
        missing = min(wanted - awaited - len(self.active), BURST)
        if missing > 0:
            self._create(missing)

    def _wanted(self) -> int:
        parallelism = int(self.spec.get("parallelism", 1))
        if self.completions is None:
            # a work queue: once one has succeeded no more are made
            return len(self.active) if self._succeeded else parallelism
        return max(0, min(parallelism, self.completions - self._succeeded))

    def _surplus(self, at_least: int) -> Objects:
        """Pods too many: of Indexed Jobs first those without an index of their own, then in the order of deletion."""
        chosen: Objects = []
        rest = self.active
        if self.indexed:
            seen: set[int] = set()
            rest = []
            for pod in sorted(self.active, key=lambda pod: pod["metadata"]["creationTimestamp"]):
                index = job_indexes.index_of(pod)
                if index in seen or not 0 <= index < (self.completions or 0):
                    chosen.append(pod)
                else:
                    seen.add(index)
                    rest.append(pod)
            rest.sort(key=job_indexes.index_of, reverse=True)
        missing = at_least - len(chosen)
        if missing > 0:
            ordered = rest if self.indexed else deletion_order(rest, {}, self.now)
            chosen += ordered[:missing]
        return chosen[:BURST]

    def _create(self, missing: int) -> None:
        if self.indexed:
            templates = self._indexed_templates(missing)
        else:
            left = self._backoff_left()
            if left > 0:
                self.requeues.append(left)
                return
            templates = [(self.spec["template"], f"{self.job['metadata']['name']}-")] * missing
        if templates:
            creations = [self._creation(template, prefix) for template, prefix in templates]
            self.work.append(Together(creations, slow_start=True, otherwise=self._refused))
            self.active_after += len(creations)

    def _refused(self, _error: ApiError) -> Sequence[Action]:
        """The status is written though no Pods could be made: with those that there are."""
        status = {**self.status, "active": len(self.active)}
        if not self.active:
            del status["active"]
        return [status_update(JOBS, self.job, status)] if status != (self.job.get("status") or {}) else ()

    def _backoff_left(self) -> float:
        """Failures since the last success count; the Pods are still there, so nothing need be remembered."""
        last_success = max(
            (job_policy.finished_at(pod, self.now) for pod in self.pods if phase(pod) == "Succeeded"), default=0.0
        )
        ended = [pod for pod in self.pods if phase(pod) == "Failed" or (_is_tracked(pod) and self._has_failed(pod))]
        failures = [at for pod in ended if (at := job_policy.finished_at(pod, self.now)) > last_success]
        return job_policy.backoff_left(len(failures), max(failures, default=0.0), self.now)

    def _has_failed(self, pod: Object) -> bool:
        return job_policy.has_failed(self.job, pod)

    def _indexed_templates(self, missing: int) -> list[tuple[Object, str]]:
        taken = {job_indexes.index_of(pod) for pod in self.active} | self.succeeded_indexes | self.failed_indexes
        if job_policy.replaces_failed_only(self.job):
            taken |= {job_indexes.index_of(pod) for pod in self.terminating}
        resting: set[int] = set()
        if self._per_index:
            for index, pod in self.held.items():
                left = self._index_backoff_left(pod)
                if left > 0:
                    self.requeues.append(left)
                    resting.add(index)
        elif (left := self._backoff_left()) > 0:
            self.requeues.append(left)
            return []
        indexes = job_indexes.pending(taken | resting, missing, self.completions or 0)
        name = self.job["metadata"]["name"]
        return [(self._indexed_template(index), f"{name}-{index}-") for index in indexes]

    def _index_backoff_left(self, pod: Object) -> float:
        failures = _failures(self.job, pod)
        return job_policy.backoff_left(failures, job_policy.finished_at(pod, self.now), self.now)

    def _indexed_template(self, index: int) -> Object:
        """The template for one index, which the Pod can read from its name, a label, an annotation and a variable."""
        template = self.spec["template"]
        metadata, spec = template.get("metadata") or {}, template["spec"]
        told = {job_indexes.INDEX: str(index)}
        annotations = {**(metadata.get("annotations") or {}), **told}
        if self._per_index:
            counts = job_policy.FailureCounts(0, 0)
            if index in self.held:
                counts = job_policy.failure_counts(self.job, self.held[index])
            annotations[job_policy.FAILURE_COUNT] = str(counts.counted)
            if counts.ignored:
                annotations[job_policy.IGNORED_COUNT] = str(counts.ignored)
        spec = {**spec, "hostname": f"{self.job['metadata']['name']}-{index}"}
        for key in ("initContainers", "containers"):
            if spec.get(key):
                spec[key] = [_with_index_variable(container) for container in spec[key]]
        labels = {**(metadata.get("labels") or {}), **told}
        return {"metadata": {**metadata, "labels": labels, "annotations": annotations}, "spec": spec}

    def _creation(self, template: Object, prefix: str) -> Create:
        pod = pod_from_template(template, self.job, prefix=prefix)
        finalizers = pod["metadata"].get("finalizers") or []
        pod["metadata"]["finalizers"] = [*finalizers, TRACKING_FINALIZER]
        return Create(PODS, pod, then=partial(_tell_created, self.job), otherwise=partial(_tell_refused, self.job))

    def _delete(self, pod: Object) -> Delete:
        name = pod["metadata"]["name"]
        return Delete(
            PODS,
            pod,
            ignore=GONE,
            then=lambda _: [Tell(self.job, "Normal", "SuccessfulDelete", f"Deleted pod: {name}")],
            otherwise=lambda error: [Tell(self.job, "Warning", "FailedDelete", f"Error deleting: {error.message}")],
        )

    # -- status ----------------------------------------------------------------------------------------------------

    def _finish(self, outcome: Object | None) -> list[Action]:
        """Pods are made and deleted, then the status is written, then finalizers go: step 2 after step 1."""
        self._set_count("active", self.active_after)
        staying = [pod for pod in self.active if pod["metadata"]["uid"] not in self.leaving]
        self.status["ready"] = sum(map(is_ready, staying)) if self.active_after else 0
        self.status["terminating"] = len(self.terminating)
        if self.indexed:
            self._set_count("succeeded", len(self.succeeded_indexes))
            self._set_text("completedIndexes", job_indexes.render(self.succeeded_indexes))
            if self._per_index:
                self.status["failedIndexes"] = job_indexes.render(self.failed_indexes)
        self.status["uncountedTerminatedPods"] = {key: uids for key, uids in self.uncounted.items() if uids}
        if self.conditions:
            self.status["conditions"] = self.conditions
        released = self.ended
        if is_terminating(self.job):
            released = [pod for pod in self.pods if _is_tracked(pod)]
        actions = [*self.work]
        if self.status != (self.job.get("status") or {}):
            actions.append(status_update(JOBS, self.job, self.status, then=lambda _: self.tells))
        if released:
            actions.append(Together([_untrack(pod) for pod in released]))
        if self.requeues and outcome is None:
            actions.append(Requeue(min(self.requeues)))
        return actions

    def _set_count(self, key: str, count: int) -> None:
        if count:
            self.status[key] = count
        else:
            self.status.pop(key, None)

    def _set_text(self, key: str, text: str) -> None:
        if text:
            self.status[key] = text
        else:
            self.status.pop(key, None)


def _failures(job: Object, pod: Object) -> int:
    return sum(job_policy.failure_counts(job, pod))


def _with_index_variable(container: Object) -> Object:
    env = container.get("env") or []
    if any(entry["name"] == "JOB_COMPLETION_INDEX" for entry in env):
        return container
    path = f"metadata.labels['{job_indexes.INDEX}']"
    variable = {"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": {"fieldPath": path}}}
    return {**container, "env": [*env, variable]}


def _tell_created(job: Object, made: Object) -> Sequence[Action]:
    return [Tell(job, "Normal", "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")]


def _tell_refused(job: Object, error: ApiError) -> Sequence[Action]:
    return [Tell(job, "Warning", "FailedCreate", f"Error creating: {error.message}")]


_of_job = controlled_by_or_matching("Job", JOBS)


def _keys(caches: Caches, pod: Object) -> Iterable[str]:
    if controller_of(pod) is None and _is_tracked(pod):
        return (*_of_job(caches, pod), f"{_ORPHAN}{pod['metadata']['namespace']}/{pod['metadata']['name']}")
    return _of_job(caches, pod)


CONTROLLER = Controller(
    name="job-controller",
    watches=(
        Watch(JOBS, indexes=("namespace",)),
        Watch(PODS, _keys, ("controller", "orphan", "tracked-job")),
    ),
    view=view,
    reconcile=reconcile,
    workers="concurrent_job_syncs",
)
