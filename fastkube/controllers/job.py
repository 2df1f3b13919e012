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
from typing import Any, NamedTuple

from fastkube.api.meta import controller_of
from fastkube.clock import rfc3339
from fastkube.controllers import job_indexes, job_policy
from fastkube.controllers.actions import Action, Requeue, Tell, Together, status_update
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
    seconds,
    set_condition,
)
from fastkube.controllers.job_count import Count, failures
from fastkube.controllers.job_pods import creation, deletion, indexed_template, is_tracked, untrack
from fastkube.controllers.pod_topics import ADOPTABLE, OWNED
from fastkube.controllers.runner import Context, Controller, Watch
from fastkube.errors import ApiError

JOBS = "batch/v1/jobs"

MANAGER = "kubernetes.io/job-controller"
BURST = 500
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
        return [Together([untrack(pod) for pod in view.pods])]
    job = view.job
    if job["spec"].get("managedBy", MANAGER) != MANAGER:
        return ()
    if _outcome(job) is not None:
        left = [pod for pod in view.owned if is_tracked(pod)]
        return [Together([untrack(pod) for pod in left])] if left else ()
    claimed = claim(PODS, job, JOBS, view.owned, view.orphans, view.live, finalizers=(TRACKING_FINALIZER,))
    if claimed.asks:
        return claimed.asks
    attempt = _Attempt(job, claimed.objects, view.now)
    return [*claimed.actions, *attempt.run()]


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
        self.completions: int | None = self.spec.get("completions")
        self.count = Count(job, pods)
        self.indexed = self.count.indexed

    # -- the order of an attempt -----------------------------------------------------------------------------------

    def run(self) -> list[Action]:
        self._start()
        self.count.count()
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

    # -- the outcome -----------------------------------------------------------------------------------------------

    def _target(self) -> Object | None:
        """The outcome, if it is decided already or by what has failed or succeeded since."""
        for kind in ("SuccessCriteriaMet", "FailureTarget"):
            if condition_is(self.job, kind):
                return condition(self.job, kind)
        if message := job_policy.fail_job_message(self.job, self.pods):
            return self._decided("FailureTarget", "PodFailurePolicy", message)
        limit = self.spec.get("backoffLimit", 6)
        if self.count.failed > limit or job_policy.exceeds_backoff_by_restarts(self.job, self.pods):
            message = "Job has reached the specified backoff limit"
            return self._decided("FailureTarget", "BackoffLimitExceeded", message)
        if self._past_deadline():
            message = "Job was active longer than specified deadline"
            return self._decided("FailureTarget", "DeadlineExceeded", message)
        most = self.spec.get("maxFailedIndexes")
        if self.count.per_index and most is not None and len(self.count.failed_indexes) > most:
            message = "Job has exceeded the specified maximal number of failed indexes"
            return self._decided("FailureTarget", "MaxFailedIndexesExceeded", message)
        if (
            self.indexed
            and (rule := job_policy.matched_success_rule(self.job, self.count.succeeded_indexes)) is not None
        ):
            return self._decided("SuccessCriteriaMet", "SuccessPolicy", f"Matched rules at index {rule}")
        return None

    def _completed(self) -> Object | None:
        """The outcome when nothing is left to do."""
        if self.active_after:
            return None
        if self.completions is None:
            complete = self.count.succeeded > 0
        else:
            complete = self.count.succeeded + len(self.count.failed_indexes) >= self.completions
        if not complete:
            return None
        if self.count.failed_indexes:
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
            self.work.append(Together([deletion(self.job, pod) for pod in self.active]))
            self.terminating = [*self.terminating, *self.active]
            self.active_after = 0
        self.count.fail_the_rest()
        if self.terminating or self.count.open:
            return
        kind = "Complete" if outcome["type"] == "SuccessCriteriaMet" else "Failed"
        final = self._decided(kind, outcome["reason"], outcome["message"])
        self.conditions = set_condition(self.conditions, final)
        if kind == "Complete":
            self.status["completionTime"] = rfc3339(self.now)
            self.tells.append(Tell(self.job, "Normal", "Completed", "Job completed"))
        else:
            self.tells.append(Tell(self.job, "Warning", outcome["reason"], outcome["message"]))

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
            self.work.append(Together([untrack(pod) for pod in surplus]))
            self.work.append(Together([deletion(self.job, pod) for pod in surplus]))
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
            return len(self.active) if self.count.succeeded else parallelism
        return max(0, min(parallelism, self.completions - self.count.succeeded))

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
            creations = [creation(self.job, template, prefix) for template, prefix in templates]
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
        ended = [pod for pod in self.pods if phase(pod) == "Failed" or (is_tracked(pod) and self._has_failed(pod))]
        since = [at for pod in ended if (at := job_policy.finished_at(pod, self.now)) > last_success]
        return job_policy.backoff_left(len(since), max(since, default=0.0), self.now)

    def _has_failed(self, pod: Object) -> bool:
        return job_policy.has_failed(self.job, pod)

    def _indexed_templates(self, missing: int) -> list[tuple[Object, str]]:
        taken = (
            {job_indexes.index_of(pod) for pod in self.active}
            | self.count.succeeded_indexes
            | self.count.failed_indexes
        )
        if job_policy.replaces_failed_only(self.job):
            taken |= {job_indexes.index_of(pod) for pod in self.terminating}
        resting: set[int] = set()
        if self.count.per_index:
            for index, pod in self.count.held.items():
                left = self._index_backoff_left(pod)
                if left > 0:
                    self.requeues.append(left)
                    resting.add(index)
        elif (left := self._backoff_left()) > 0:
            self.requeues.append(left)
            return []
        indexes = job_indexes.pending(taken | resting, missing, self.completions or 0)
        name = self.job["metadata"]["name"]
        return [
            (indexed_template(self.job, index, self._failure_counts(index)), f"{name}-{index}-") for index in indexes
        ]

    def _failure_counts(self, index: int) -> job_policy.FailureCounts | None:
        if not self.count.per_index:
            return None
        pod = self.count.held.get(index)
        return job_policy.FailureCounts(0, 0) if pod is None else job_policy.failure_counts(self.job, pod)

    def _index_backoff_left(self, pod: Object) -> float:
        return job_policy.backoff_left(failures(self.job, pod), job_policy.finished_at(pod, self.now), self.now)

    # -- status ----------------------------------------------------------------------------------------------------

    def _finish(self, outcome: Object | None) -> list[Action]:
        """Pods are made and deleted, then the status is written, then finalizers go: step 2 after step 1."""
        self._set_count("active", self.active_after)
        staying = [pod for pod in self.active if pod["metadata"]["uid"] not in self.leaving]
        self.status["ready"] = sum(map(is_ready, staying)) if self.active_after else 0
        self.status["terminating"] = len(self.terminating)
        for key, total in self.count.totals.items():
            self._set_count(key, total)
        if self.indexed:
            self._set_count("succeeded", len(self.count.succeeded_indexes))
            self._set_text("completedIndexes", job_indexes.render(self.count.succeeded_indexes))
            if self.count.per_index:
                self.status["failedIndexes"] = job_indexes.render(self.count.failed_indexes)
        self.status["uncountedTerminatedPods"] = {key: uids for key, uids in self.count.uncounted.items() if uids}
        if self.conditions:
            self.status["conditions"] = self.conditions
        released = self.count.ended
        if is_terminating(self.job):
            released = [pod for pod in self.pods if is_tracked(pod)]
        actions = [*self.work]
        if self.status != (self.job.get("status") or {}):
            actions.append(status_update(JOBS, self.job, self.status, then=lambda _: self.tells))
        if released:
            actions.append(Together([untrack(pod) for pod in released]))
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


_of_job = controlled_by_or_matching("Job", JOBS)


def _keys(caches: Caches, pod: Object) -> Iterable[str]:
    if controller_of(pod) is None and is_tracked(pod):
        return (*_of_job(caches, pod), f"{_ORPHAN}{pod['metadata']['namespace']}/{pod['metadata']['name']}")
    return _of_job(caches, pod)


CONTROLLER = Controller(
    name="job-controller",
    watches=(
        Watch(JOBS, indexes=("namespace",)),
        Watch(PODS, _keys, ("controller", "orphan", "tracked-job"), about=(OWNED["Job"] | ADOPTABLE,)),
    ),
    view=view,
    reconcile=reconcile,
    workers="concurrent_job_syncs",
)
