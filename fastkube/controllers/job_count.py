"""How the Pods of a Job are counted, each exactly once; why that takes three steps stands in job.py."""

from __future__ import annotations

from fastkube.controllers import job_indexes, job_policy
from fastkube.controllers.common import Object, Objects, is_active, phase
from fastkube.controllers.job_pods import is_tracked

UNCOUNTED_MAX = 500


class Count:
    """What has succeeded and failed, with what has ended since the last attempt."""

    def __init__(self, job: Object, pods: Objects) -> None:
        status = job.get("status") or {}
        spec = job["spec"]
        self.job = job
        self.pods = pods
        self.indexed = spec.get("completionMode") == "Indexed"
        self.per_index = self.indexed and spec.get("backoffLimitPerIndex") is not None
        self.completions: int = spec.get("completions") or 0
        self.totals: dict[str, int] = {key: int(status.get(key) or 0) for key in ("succeeded", "failed")}
        uncounted = status.get("uncountedTerminatedPods") or {}
        self.uncounted = {key: list(uncounted.get(key) or ()) for key in ("succeeded", "failed")}
        self.ended: Objects = []
        """Pods whose end is recorded, or need not be: they lose their finalizers."""
        self.succeeded_indexes: set[int] = set()
        self.failed_indexes: set[int] = set()
        self.held: dict[int, Object] = {}
        """The failed Pod of each index that is to be tried again."""
        self._unrecorded = {"succeeded": 0, "failed": 0}

    def count(self) -> None:
        """Step 3 for the Pods whose finalizers are gone, then step 1 for those that have ended since."""
        tracked = {pod["metadata"]["uid"] for pod in self.pods if is_tracked(pod)}
        for key, total in self.totals.items():
            done = [uid for uid in self.uncounted[key] if uid not in tracked]
            if done:
                self.uncounted[key] = [uid for uid in self.uncounted[key] if uid in tracked]
                self.totals[key] = total + len(done)
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
            if uid in counted or self._counts(pod, succeeded=succeeded):
                self.ended.append(pod)

    def _counts(self, pod: Object, *, succeeded: bool) -> bool:
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
            self._unrecorded[key] += 1
            return False
        self.uncounted[key].append(pod["metadata"]["uid"])
        return True

    def _count_indexes(self) -> None:
        status = self.job.get("status") or {}
        completions = self.completions
        self.succeeded_indexes = job_indexes.parse(status.get("completedIndexes"), completions)
        self.failed_indexes = job_indexes.parse(status.get("failedIndexes"), completions)
        for pod in self.pods:
            index = job_indexes.index_of(pod)
            if not 0 <= index < completions or not is_tracked(pod):
                continue
            if phase(pod) == "Succeeded":
                self.succeeded_indexes.add(index)
            elif self.per_index and job_policy.index_has_failed(self.job, pod):
                self.failed_indexes.add(index)
        if self.per_index:
            self._hold_failed()

    def _hold_failed(self) -> None:
        """The last failed Pod of each index that is to be tried again keeps its finalizer until it is replaced."""
        running = {job_indexes.index_of(pod) for pod in self.pods if is_active(pod)}
        for pod in self.pods:
            index = job_indexes.index_of(pod)
            if index in running or index in self.failed_indexes or index in self.succeeded_indexes:
                continue
            if is_tracked(pod) and job_policy.has_failed(self.job, pod):
                known = self.held.get(index)
                if known is None or failures(self.job, pod) > failures(self.job, known):
                    self.held[index] = pod

    @property
    def succeeded(self) -> int:
        if self.indexed:
            return len(self.succeeded_indexes)
        recorded = self.totals["succeeded"] + len(self.uncounted["succeeded"])
        return recorded + self._unrecorded["succeeded"]

    @property
    def failed(self) -> int:
        held = sum(job_policy.counts_as_failure(self.job, pod) for pod in self.held.values())
        recorded = self.totals["failed"] + len(self.uncounted["failed"])
        return recorded + self._unrecorded["failed"] + held

    @property
    def open(self) -> bool:
        """Whether steps are left to do."""
        return any(self.uncounted.values()) or bool(self.ended) or any(self._unrecorded.values())

    def fail_the_rest(self) -> None:
        """Once the outcome is decided nothing is waited for or tried again: what has not succeeded has failed."""
        known = {pod["metadata"]["uid"] for pod in self.ended}
        self.held = {}
        for pod in self.pods:
            uid = pod["metadata"]["uid"]
            if is_tracked(pod) and uid not in known and not (self.indexed and phase(pod) == "Succeeded"):
                if phase(pod) == "Succeeded" or not job_policy.counts_as_failure(self.job, pod):
                    continue  # waits for its turn, or does not count
                if self._record(pod, "failed"):
                    self.ended.append(pod)


def failures(job: Object, pod: Object) -> int:
    """How often the index of a Pod has failed, the Pod included."""
    return sum(job_policy.failure_counts(job, pod))
