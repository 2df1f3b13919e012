"""What the status of a Job may become. A rule is asked only when what it is about has changed, so that a status which
breaks one already does not block what has nothing to do with it."""

from __future__ import annotations

from typing import NamedTuple

from fastkube.api import field
from fastkube.registry.strategies import checks, indexes
from fastkube.registry.strategies.checks import Errors, Object, fields_non_negative
from fastkube.registry.strategies.go_values import shown

_COMPLETED, _FAILED = "status.completedIndexes", "status.failedIndexes"


class _Job(NamedTuple):
    """A Job's status with its conditions that are True."""

    spec: Object
    status: Object
    conditions: frozenset[str]

    @property
    def complete(self) -> bool:
        return "Complete" in self.conditions

    @property
    def failed(self) -> bool:
        return "Failed" in self.conditions

    @property
    def finished(self) -> bool:
        return self.complete or self.failed

    def count(self, key: str) -> int:
        number: int = self.status.get(key) or 0
        return number


def _read(obj: Object, status: str = "True") -> _Job:
    told = obj.get("status") or {}
    conditions = frozenset(
        each.get("type") or "" for each in told.get("conditions") or () if each.get("status") == status
    )
    return _Job(obj["spec"], told, conditions)


def job_status_update(errs: Errors, new: Object, old: Object) -> None:
    now, was = _read(new), _read(old)
    _by_itself(errs, now.status)
    _conditions_and_times(errs, now, was)
    _finished(errs, now, was)
    _indexes(errs, now, was)
    _counts(errs, now, was)
    _success_criteria(errs, now)
    _transition(errs, now, was, resumes="Suspended" in was.conditions and "Suspended" in _read(new, "False").conditions)


def _changed(now: _Job, was: _Job, key: str) -> bool:
    return not checks.equal(now.status.get(key) or None, was.status.get(key) or None)


def _toggled(now: _Job, was: _Job, *conditions: str) -> bool:
    return any((name in now.conditions) != (name in was.conditions) for name in conditions)


def _unfit(errs: Errors, problem: str) -> None:
    errs.append(field.unfit("status.conditions", problem))


def _by_itself(errs: Errors, status: Object) -> None:
    fields_non_negative(errs, "status", status, "active", "succeeded", "failed", "ready", "terminating")
    seen: set[str] = set()
    for key in ("succeeded", "failed"):
        for number, uid in enumerate((status.get("uncountedTerminatedPods") or {}).get(key) or ()):
            path = f"status.uncountedTerminatedPods.{key}[{number}]"
            if not uid:
                errs.append(field.invalid(path, uid, "must not be empty"))
            elif uid in seen:
                errs.append(field.duplicate(path, uid))
            seen.add(uid)


def _conditions_and_times(errs: Errors, now: _Job, was: _Job) -> None:
    status, path = now.status, "status.completionTime"
    start, completion = status.get("startTime"), status.get("completionTime")
    completes, completed_at = _toggled(now, was, "Complete"), _changed(now, was, "completionTime")
    target = "FailureTarget" in now.conditions
    if (completes or _toggled(now, was, "Failed")) and now.complete and now.failed:
        _unfit(errs, "cannot set Complete=True and Failed=true conditions")
    if (completes or _toggled(now, was, "FailureTarget")) and now.complete and target:
        _unfit(errs, "cannot set Complete=True and FailureTarget=true conditions")
    if (completes or completed_at) and completion is not None and not now.complete:
        problem = "cannot set completionTime when there is no Complete=True condition"
        errs.append(field.invalid(path, completion, problem))
    if (completes or completed_at) and completion is None and now.complete:
        errs.append(field.required(path, "completionTime is required for Complete jobs"))
    if (completed_at or _changed(now, was, "startTime")) and start and completion and completion < start:
        errs.append(field.invalid(path, completion, "must be equal to or after `startTime`"))
    if (_toggled(now, was, "Failed") or _changed(now, was, "failedIndexes")) and now.failed and not target:
        _unfit(errs, "cannot set Failed=True condition without the FailureTarget=true condition")
    met = "SuccessCriteriaMet" in now.conditions
    if (completes or _toggled(now, was, "SuccessCriteriaMet")) and now.complete and not met:
        _unfit(errs, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition")


def _finished(errs: Errors, now: _Job, was: _Job) -> None:
    if not now.finished:
        return
    finishes = now.finished != was.finished
    if (finishes or _changed(now, was, "active")) and now.count("active") > 0:
        errs.append(field.invalid("status.active", now.count("active"), "active>0 is invalid for finished job"))
    never_ran = now.spec.get("suspend") is True and now.spec.get("completions") == 0
    if (finishes or _changed(now, was, "startTime")) and not never_ran and now.status.get("startTime") is None:
        errs.append(field.required("status.startTime", "startTime is required for finished job"))
    uncounted = now.status.get("uncountedTerminatedPods") or {}
    if (finishes or _changed(now, was, "uncountedTerminatedPods")) and any(map(uncounted.get, uncounted)):
        value = shown("UncountedTerminatedPods", uncounted)
        errs.append(field.invalid("status.uncountedTerminatedPods", value, "must be empty for finished job"))


def _indexes(errs: Errors, now: _Job, was: _Job) -> None:
    completed, failed = now.status.get("completedIndexes") or "", now.status.get("failedIndexes")
    completions, per_index = now.spec.get("completions"), now.spec.get("backoffLimitPerIndex")
    completed_changed = _changed(now, was, "completedIndexes")
    failed_changed = failed != was.status.get("failedIndexes")
    if completed_changed and completions is not None:
        _format(errs, _COMPLETED, completed, completions)
    if failed_changed and completions is not None and per_index is not None and failed is not None:
        _format(errs, _FAILED, failed, completions)
    if completed_changed and completed and now.spec.get("completionMode") != "Indexed":
        problem = "cannot set non-empty completedIndexes when non-indexed completion mode"
        errs.append(field.invalid(_COMPLETED, completed, problem))
    if failed_changed and per_index is None and failed is not None:
        problem = "cannot set non-null failedIndexes when backoffLimitPerIndex is null"
        errs.append(field.invalid(_FAILED, failed, problem))
    if (completed_changed or failed_changed) and completions is not None and failed is not None:
        shared = indexes.overlap(completed, failed, completions)
        if shared is not None:
            problem = f"failedIndexes and completedIndexes overlap at index: {shared}"
            errs.append(field.invalid(_FAILED, failed, problem))


def _format(errs: Errors, path: str, text: str, completions: int) -> None:
    try:
        indexes.count(text, completions)
    except ValueError as error:
        errs.append(field.invalid(path, text, f"error parsing {path.removeprefix('status.')}: {error}"))


def _counts(errs: Errors, now: _Job, was: _Job) -> None:
    terminating, ready = now.count("terminating"), now.count("ready")
    if now.finished and terminating > 0 and (not was.finished or _changed(now, was, "terminating")):
        errs.append(field.invalid("status.terminating", terminating, "terminating>0 is invalid for finished job"))
    fits = now.status.get("ready") is None or ready <= now.count("active")
    if not fits and (_changed(now, was, "ready") or _changed(now, was, "active")):
        errs.append(field.invalid("status.ready", ready, "cannot set more ready pods than active"))


def _success_criteria(errs: Errors, now: _Job) -> None:
    met = "SuccessCriteriaMet" in now.conditions
    if met and now.failed:
        _unfit(errs, "cannot set SuccessCriteriaMet=True and Failed=true conditions")
    if met and "FailureTarget" in now.conditions:
        _unfit(errs, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions")
    if now.spec.get("successPolicy") is not None and not met and now.complete:
        _unfit(errs, "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True")


def _transition(errs: Errors, now: _Job, was: _Job, *, resumes: bool) -> None:
    """What never goes back."""
    for name in ("Failed", "Complete", "FailureTarget"):
        if name in was.conditions and name not in now.conditions:
            _unfit(errs, f"cannot disable the terminal {name}=True condition")
    elastic = now.spec.get("completionMode") == "Indexed" and now.spec.get("completions") == now.spec.get("parallelism")
    for key, fixed in (("failed", True), ("succeeded", not elastic)):
        if fixed and now.count(key) < was.count(key):
            errs.append(field.invalid(f"status.{key}", now.count(key), f"cannot decrease the {key} counter"))
    completion, before = now.status.get("completionTime"), was.status.get("completionTime")
    if completion is not None and before is not None and completion != before:
        errs.append(field.invalid("status.completionTime", completion, field.IMMUTABLE))
    started = was.status.get("startTime")
    if started is not None and now.status.get("startTime") != started and not now.spec.get("suspend") and not resumes:
        errs.append(field.required("status.startTime", "startTime cannot be removed for unsuspended job"))
    met, met_before = ("SuccessCriteriaMet" in each.conditions for each in (now, was))
    if met_before and not met:
        _unfit(errs, "cannot disable the SuccessCriteriaMet=True condition")
    if was.complete and not met_before and met:
        _unfit(errs, "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions")
