"""Jobs and CronJobs (upstream: pkg/apis/batch/v1/defaults.go, pkg/registry/batch)."""

from __future__ import annotations

import re

from fastkube.api import cron, field
from fastkube.api.meta import validate_labels
from fastkube.errors import Cause
from fastkube.registry.strategies import checks, workloads
from fastkube.registry.strategies.checks import INT32_MAX, Errors, Object, fields_non_negative, selector_shown
from fastkube.registry.strategies.job_status import job_status_update
from fastkube.registry.strategies.job_validation import job, job_update, run_spec
from fastkube.registry.strategies.pod_templates import default_template, drop_switched_off, template_warnings
from fastkube.registry.strategies.workloads import WorkloadStrategy
from fastkube.registry.strategy import Call, Strategy

_JOB_NAME = ("job-name", "batch.kubernetes.io/job-name")
CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
_CONTROLLER_UID = ("controller-uid", CONTROLLER_UID)
_COMPLETIONS_SOFT_MAX, _PARALLELISM_SOFT_MAX = 100_000, 10_000
_MANY_INDEXES = (
    "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, "
    "Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
)
_CRON_NAME_MAX = 52  # eleven more are the time in the names of its Jobs
_CONCURRENCY = ("Allow", "Forbid", "Replace")
_is_zone_part = re.compile(r"[A-Za-z.\-_0-9+]{1,14}", re.ASCII).fullmatch


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

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        job(errs, obj)
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        job_update(errs, new, old)
        return errs

    def validate_status_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        job_status_update(errs, new, old)
        return errs

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        if workloads.is_same_generation(obj, old):
            return []
        told = workloads.name_warnings(obj) if old is None else []
        return told + _job_warnings("spec", obj["spec"])


def _job_warnings(path: str, spec: Object) -> list[str]:
    told = []
    many = (spec.get("completions") or 0) > _COMPLETIONS_SOFT_MAX
    if spec.get("completionMode") == "Indexed" and many and (spec.get("parallelism") or 0) > _PARALLELISM_SOFT_MAX:
        told.append(f"{path}: {_MANY_INDEXES}")
    return told + template_warnings(f"{path}.template", spec["template"])


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
    if not metadata.get("labels") and not validate_labels(labels, ""):  # bad ones the template is refused for
        metadata["labels"] = labels


class CronJobStrategy(Strategy):
    metadata_checks = ("update",)

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
        drop_switched_off(call, obj["spec"]["jobTemplate"]["spec"]["template"]["spec"])

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        super().prepare_for_update(call, new, old)
        drop_switched_off(call, new["spec"]["jobTemplate"]["spec"]["template"]["spec"])

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        _cron_job_spec(errs, obj["spec"], None)
        name = obj["metadata"].get("name") or ""
        if len(name.encode()) > _CRON_NAME_MAX:
            errs.append(field.invalid("metadata.name", name, f"must be no more than {_CRON_NAME_MAX} characters"))
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        _cron_job_spec(errs, new["spec"], old["spec"])
        return errs

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        if workloads.is_same_generation(obj, old):
            return []
        told = workloads.name_warnings(obj) if old is None else []
        return told + _job_warnings("spec.jobTemplate.spec", obj["spec"]["jobTemplate"]["spec"])


def _cron_job_spec(errs: Errors, spec: Object, old: Object | None) -> None:
    schedule, zone = spec.get("schedule") or "", spec.get("timeZone")
    if not schedule:
        errs.append(field.required("spec.schedule"))
    else:
        _schedule(errs, schedule, zone, with_zone=old is not None and "TZ" in (old.get("schedule") or ""))
    fields_non_negative(errs, "spec", spec, "startingDeadlineSeconds")
    if zone is not None and (old is None or old.get("timeZone") != zone):
        _time_zone(errs, zone)
    checks.one_of_required(errs, "spec.concurrencyPolicy", spec["concurrencyPolicy"], _CONCURRENCY)
    _job_template(errs, "spec.jobTemplate.spec", spec["jobTemplate"]["spec"])
    fields_non_negative(errs, "spec", spec, "successfulJobsHistoryLimit", "failedJobsHistoryLimit")


def _job_template(errs: Errors, path: str, spec: Object) -> None:
    run_spec(errs, path, spec)
    selector = spec.get("selector")
    if selector is not None:
        errs.append(field.invalid(f"{path}.selector", selector_shown(selector), "`selector` will be auto-generated"))
    if spec.get("manualSelector"):
        errs.append(field.not_supported(f"{path}.manualSelector", True, ("nil", "false")))


def _schedule(errs: Errors, schedule: str, zone: str | None, *, with_zone: bool) -> None:
    """`with_zone`: the old schedule named its time zone, which was once possible."""
    path = "spec.schedule"
    try:
        cron.parse(schedule)
    except ValueError as error:
        errs.append(field.invalid(path, schedule, str(error)))
    if "TZ" not in schedule:
        return
    if not with_zone:
        problem = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        errs.append(field.invalid(path, schedule, problem))
    elif zone is not None:
        problem = "cannot use both timeZone field and TZ or CRON_TZ in schedule"
        errs.append(field.invalid(path, schedule, problem))


def _time_zone(errs: Errors, zone: str) -> None:
    path = "spec.timeZone"
    if not zone:
        errs.append(field.invalid(path, zone, "timeZone must be nil or non-empty string"))
        return
    parts = zone.split("/")
    if any(part in (".", "..") or part.startswith("-") or not _is_zone_part(part) for part in parts):
        errs.append(field.invalid(path, zone, f"unknown time zone {zone}"))
        return
    if zone.lower() == "local":
        problem = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        errs.append(field.invalid(path, zone, problem))
    if zone not in ("Local", "UTC"):
        try:
            cron.time_zone(zone)
        except ValueError as error:
            errs.append(field.invalid(path, zone, str(error)))


STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("batch", "jobs"): JobStrategy(),
    ("batch", "cronjobs"): CronJobStrategy(),
}
