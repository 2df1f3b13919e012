"""Jobs and CronJobs (upstream: pkg/apis/batch/v1/defaults.go, pkg/registry/batch)."""

from __future__ import annotations

from fastkube.registry.strategies.checks import INT32_MAX, Object
from fastkube.registry.strategies.pod_templates import default_template, drop_switched_off
from fastkube.registry.strategies.workloads import WorkloadStrategy
from fastkube.registry.strategy import Call, Strategy

_JOB_NAME = ("job-name", "batch.kubernetes.io/job-name")
CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
_CONTROLLER_UID = ("controller-uid", CONTROLLER_UID)


def default_job_spec(spec: Object) -> None:
    """The spec of a Job, but not that in the template of a CronJob."""
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    if "backoffLimit" not in spec:
        spec["backoffLimit"] = 6 if spec.get("backoffLimitPerIndex") is None else INT32_MAX
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    policy = spec.get("podFailurePolicy")
    for rule in (policy or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            if not pattern.get("status"):
                pattern["status"] = "True"
    spec.setdefault("manualSelector", False)
    spec.setdefault("podReplacementPolicy", "TerminatingOrFailed" if policy is None else "Failed")


class JobStrategy(WorkloadStrategy):
    def default(self, obj: Object) -> None:
        spec: Object = obj.setdefault("spec", {})
        default_template(spec)
        default_job_spec(spec)
        labels = spec["template"]["metadata"].get("labels")
        if labels and not obj["metadata"].get("labels"):
            obj["metadata"]["labels"] = labels  # the same labels, not a copy: what the selector adds goes to both

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        if not obj["spec"]["manualSelector"]:
            _generate_selector(obj)
        super().prepare_for_create(call, obj)


def _generate_selector(job: Object) -> None:
    """Pods of a Job are told by its uid, which their labels hold."""
    metadata, spec = job["metadata"], job["spec"]
    labels: dict[str, str] = spec["template"]["metadata"].setdefault("labels", {})
    uid = metadata["uid"]
    renamed = labels.get(CONTROLLER_UID) == uid  # an earlier attempt, whose generated name was taken
    for key in _JOB_NAME:
        if renamed or key not in labels:
            labels[key] = metadata.get("name") or ""
    for key in _CONTROLLER_UID:
        labels.setdefault(key, uid)
    selector: Object = spec.setdefault("selector", {})
    selector.setdefault("matchLabels", {}).setdefault(CONTROLLER_UID, uid)
    if not metadata.get("labels"):
        metadata["labels"] = labels


class CronJobStrategy(Strategy):
    def default(self, obj: Object) -> None:
        spec: Object = obj.setdefault("spec", {})
        if not spec.get("concurrencyPolicy"):
            spec["concurrencyPolicy"] = "Allow"
        spec.setdefault("suspend", False)
        spec.setdefault("successfulJobsHistoryLimit", 3)
        spec.setdefault("failedJobsHistoryLimit", 1)
        job: Object = spec.setdefault("jobTemplate", {})
        job.setdefault("metadata", {})
        default_template(job.setdefault("spec", {}))

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        super().prepare_for_create(call, obj)
        drop_switched_off(obj["spec"]["jobTemplate"]["spec"]["template"]["spec"])

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        super().prepare_for_update(call, new, old)
        drop_switched_off(new["spec"]["jobTemplate"]["spec"]["template"]["spec"])


STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("batch", "jobs"): JobStrategy(),
    ("batch", "cronjobs"): CronJobStrategy(),
}
