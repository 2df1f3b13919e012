"""Policies of Jobs: which failures of Pods count, when a Job has failed or succeeded early, how long to back off."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from fastkube.controllers import job_indexes
from fastkube.controllers.common import Object, Objects, condition, is_terminating, phase, seconds

FAILURE_COUNT = "batch.kubernetes.io/job-index-failure-count"
IGNORED_COUNT = "batch.kubernetes.io/job-index-ignored-failure-count"

BACKOFF_S = 10.0
BACKOFF_MAX_S = 600.0


class Verdict(NamedTuple):
    """What the podFailurePolicy says of a failed Pod: FailJob, FailIndex, Ignore, Count; "" where no rule matches."""

    action: str
    message: str = ""


def judge(job: Object, pod: Object) -> Verdict:
    """The first rule that matches decides."""
    policy = job["spec"].get("podFailurePolicy")
    if not policy:
        return Verdict("")
    key = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    for number, rule in enumerate(policy.get("rules") or ()):
        action = rule["action"]
        if codes := rule.get("onExitCodes"):
            for container, code in _exit_codes(pod, codes):
                message = (
                    f"Container {container} for pod {key} failed with exit code {code} "
                    f"matching {action} rule at index {number}"
                )
                return Verdict(action, message)
        for pattern in rule.get("onPodConditions") or ():
            if _has_condition(pod, pattern):
                message = f"Pod {key} has condition {pattern['type']} matching {action} rule at index {number}"
                return Verdict(action, message)
    return Verdict("")


def _exit_codes(pod: Object, rule: Object) -> Iterable[tuple[str, int]]:
    """The containers whose exit matches; a zero is no failure and matches nothing."""
    status = pod.get("status") or {}
    wanted = rule.get("containerName")
    values = rule.get("values") or ()
    for found in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        if wanted and found["name"] != wanted:
            continue
        ended = (found.get("state") or {}).get("terminated")
        if ended is None or not ended.get("exitCode"):
            continue
        listed = ended["exitCode"] in values
        if listed == (rule.get("operator", "In") == "In"):
            yield found["name"], ended["exitCode"]


def _has_condition(pod: Object, pattern: Object) -> bool:
    found = condition(pod, pattern["type"])
    return found is not None and found.get("status") == (pattern.get("status") or "True")


# ---------------------------------------------------------------- failed Pods


def replaces_failed_only(job: Object) -> bool:
    """podReplacementPolicy Failed: a Pod in deletion is replaced only once it has ended."""
    return bool(job["spec"].get("podReplacementPolicy") == "Failed")


def has_failed(job: Object, pod: Object) -> bool:
    """A Pod in deletion counts as failed at once, unless the Job waits for its end."""
    if phase(pod) == "Failed":
        return True
    if replaces_failed_only(job):
        return False
    return is_terminating(pod) and phase(pod) != "Succeeded"


def counts_as_failure(job: Object, pod: Object) -> bool:
    return judge(job, pod).action != "Ignore"


def fail_job_message(job: Object, pods: Objects) -> str:
    """Why the podFailurePolicy ends the Job; "" if it does not."""
    if not job["spec"].get("podFailurePolicy"):
        return ""
    for pod in pods:
        if has_failed(job, pod):
            verdict = judge(job, pod)
            if verdict.action == "FailJob":
                return verdict.message
    return ""


def exceeds_backoff_by_restarts(job: Object, pods: Objects) -> bool:
    """With restartPolicy OnFailure it is restarts of containers that count against the back-off limit."""
    template = job["spec"]["template"]["spec"]
    if template.get("restartPolicy") != "OnFailure":
        return False
    total = 0
    for pod in pods:
        if phase(pod) in ("Running", "Pending"):
            status = pod.get("status") or {}
            for key in ("initContainerStatuses", "containerStatuses"):
                total += sum(found.get("restartCount", 0) for found in status.get(key) or ())
    limit = job["spec"].get("backoffLimit", 6)
    return total > 0 if limit == 0 else total >= limit


# ---------------------------------------------------------------- single indexes


def _count(pod: Object, annotation: str) -> int:
    text = (pod["metadata"].get("annotations") or {}).get(annotation, "")
    return int(text) if text.isdigit() else 0


class FailureCounts(NamedTuple):
    """How often an index has failed, including the given Pod: in earnest and ignored."""

    counted: int
    ignored: int


def failure_counts(job: Object, pod: Object) -> FailureCounts:
    counted, ignored = _count(pod, FAILURE_COUNT), _count(pod, IGNORED_COUNT)
    if counts_as_failure(job, pod):
        return FailureCounts(counted + 1, ignored)
    return FailureCounts(counted, ignored + 1)


def index_has_failed(job: Object, pod: Object) -> bool:
    """Whether a Pod's failure is the last that its index may have."""
    if not has_failed(job, pod):
        return False
    if judge(job, pod).action == "FailIndex":
        return True
    return failure_counts(job, pod).counted > int(job["spec"]["backoffLimitPerIndex"])


def matched_success_rule(job: Object, succeeded: set[int]) -> int | None:
    """The number of the first rule of the successPolicy that is fulfilled."""
    completions = job["spec"].get("completions") or 0
    for number, rule in enumerate((job["spec"].get("successPolicy") or {}).get("rules") or ()):
        wanted = rule.get("succeededIndexes")
        counted = succeeded & job_indexes.parse(wanted, completions) if wanted else succeeded
        needed = rule.get("succeededCount")
        if needed is None:
            needed = len(job_indexes.parse(wanted, completions))
        if len(counted) >= needed:
            return number
    return None


# ---------------------------------------------------------------- back-off


def finished_at(pod: Object, now: float) -> float:
    """When a Pod ended: its last container, else its deletion, else what its conditions tell."""
    status = pod.get("status") or {}
    times = []
    for key in ("initContainerStatuses", "containerStatuses"):
        for found in status.get(key) or ():
            ended: Any = (found.get("state") or {}).get("terminated") or {}
            if ended.get("finishedAt"):
                times.append(seconds(ended["finishedAt"]))
    if times:
        return max(times)
    if is_terminating(pod):
        grace = pod["metadata"].get("deletionGracePeriodSeconds") or 0
        return seconds(pod["metadata"]["deletionTimestamp"]) - float(grace)
    ready = condition(pod, "Ready")
    if ready is not None and ready.get("lastTransitionTime"):
        return seconds(ready["lastTransitionTime"])
    return now


def backoff_left(failures: int, last_failure: float, now: float) -> float:
    """Seconds until a replacement may be made: 10 s after the first failure, doubling up to ten minutes."""
    if failures <= 0:
        return 0.0
    delay = min(BACKOFF_S * float(2 ** min(failures - 1, 30)), BACKOFF_MAX_S)
    return max(0.0, last_failure + delay - now)
