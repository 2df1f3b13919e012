"""Jobs: one attempt at a time, for each documented behaviour."""

from __future__ import annotations

from typing import Any

import pytest
from kubeobjects import NOW, deleting, flat, obj, pod, status_of, writes

from fastkube.clock import rfc3339
from fastkube.controllers import job_indexes
from fastkube.controllers.actions import Create, Delete, Patch, Requeue, Tell
from fastkube.controllers.caches import TRACKING_FINALIZER
from fastkube.controllers.job import OrphanView, View, reconcile
from fastkube.errors import ApiError

Object = dict[str, Any]


def job(**spec: Any) -> Object:
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]},
    }
    status = spec.pop("status", {})
    selector = {"matchLabels": {"app": "web"}}
    spec = {"parallelism": 1, "completions": 1, "backoffLimit": 6, "selector": selector, "template": template, **spec}
    return obj("Job", "work", "batch/v1", spec=spec, status=status)


def ended(
    name: str, owner: Object, phase: str, *, code: int = 0, ago_s: float = 50, index: int = -1, **more: Any
) -> Object:
    made = tracked(name, owner, phase=phase, index=index, **more)
    finished = {"exitCode": code, "finishedAt": rfc3339(NOW - ago_s)}
    made["status"]["containerStatuses"] = [{"name": "c", "restartCount": 0, "state": {"terminated": finished}}]
    return made


def tracked(
    name: str, owner: Object, *, index: int = -1, annotations: dict[str, str] | None = None, **more: Any
) -> Object:
    made = pod(name, owner, **more)
    made["metadata"]["finalizers"] = [TRACKING_FINALIZER]
    made["metadata"]["annotations"] = {**(annotations or {})}
    if index >= 0:
        made["metadata"]["annotations"][job_indexes.INDEX] = str(index)
    return made


def untracked(made: Object) -> Object:
    metadata = {key: value for key, value in made["metadata"].items() if key != "finalizers"}
    return {**made, "metadata": metadata}


def look(owner: Object, *pods: Object) -> Any:
    return reconcile(View(owner, list(pods), [], NOW))


def conditions(actions: Any) -> dict[str, str]:
    status = status_of(actions) or {}
    return {known["type"]: known["reason"] for known in status.get("conditions", ()) if known["status"] == "True"}


def untracking(actions: Any) -> list[str]:
    return sorted(patch.obj["metadata"]["name"] for patch in writes(actions, Patch))


# ---------------------------------------------------------------- Pods


@pytest.mark.parametrize(
    ("parallelism", "completions", "active", "succeeded", "created", "deleted"),
    [
        (2, 5, 0, 0, 2, 0),
        (2, 5, 1, 0, 1, 0),
        (2, 5, 1, 3, 1, 0),  # no more than are still needed
        (2, 5, 1, 4, 0, 0),
        (1, 5, 3, 0, 0, 2),  # parallelism was lowered
        (0, 5, 2, 0, 0, 2),
        (3, None, 0, 0, 3, 0),
        (3, None, 2, 1, 0, 0),  # a work queue: after the first success none is made
        (2000, 2000, 0, 0, 500, 0),
    ],
)
def test_the_number_of_pods(
    parallelism: int, completions: int | None, active: int, succeeded: int, created: int, deleted: int
) -> None:
    owner = job(parallelism=parallelism, completions=completions, status={"succeeded": succeeded})
    actions = look(owner, *(tracked(f"p{number}", owner) for number in range(active)))
    assert len(writes(actions, Create)) == created
    assert len(writes(actions, Delete)) == deleted
    status = status_of(actions)
    assert status is not None
    assert status.get("active", 0) == active + created - deleted


def test_a_new_job_starts_and_makes_pods_that_are_tracked() -> None:
    actions = look(job())
    (create,) = writes(actions, Create)
    assert create.obj["metadata"]["generateName"] == "work-"
    assert create.obj["metadata"]["finalizers"] == [TRACKING_FINALIZER]
    assert status_of(actions) == {
        "startTime": rfc3339(NOW),
        "active": 1,
        "ready": 0,
        "terminating": 0,
        "uncountedTerminatedPods": {},
    }


def test_a_refused_pod_leaves_the_rest_of_the_status_true() -> None:
    (together, *_) = look(job())
    status = status_of(together.otherwise(ApiError(403, "Forbidden", "quota")))
    assert status is not None
    assert "active" not in status
    assert status["startTime"] == rfc3339(NOW)


# ---------------------------------------------------------------- counting once


def test_success_is_recorded_then_released_then_counted() -> None:
    owner = job(status={"startTime": rfc3339(NOW - 100), "active": 1})
    done = ended("p", owner, "Succeeded")
    actions = look(owner, done)
    status = status_of(actions)
    assert status is not None
    assert status["uncountedTerminatedPods"] == {"succeeded": [done["metadata"]["uid"]]}
    assert "succeeded" not in status
    assert conditions(actions) == {"SuccessCriteriaMet": "CompletionsReached"}
    assert untracking(actions) == ["p"]

    owner["status"] = status
    actions = look(owner, done)  # the finalizer is still there: it is removed again, and nothing is counted
    assert status_of(actions) is None
    assert untracking(actions) == ["p"]

    actions = look(owner, untracked(done))
    status = status_of(actions)
    assert status is not None
    assert status["succeeded"] == 1
    assert status["uncountedTerminatedPods"] == {}
    assert status["completionTime"] == rfc3339(NOW)
    assert conditions(actions) == {"SuccessCriteriaMet": "CompletionsReached", "Complete": "CompletionsReached"}

    owner["status"] = status
    assert look(owner, untracked(done)) == ()


def test_a_pod_in_deletion_is_a_failure_unless_it_is_waited_for() -> None:
    owner = job()
    actions = look(owner, deleting(tracked("p", owner)))
    assert len(writes(actions, Create)) == 0  # it is backed off
    status = status_of(actions)
    assert status is not None
    assert len(status["uncountedTerminatedPods"]["failed"]) == 1
    owner = job(podReplacementPolicy="Failed")
    actions = look(owner, deleting(tracked("p", owner)))
    status = status_of(actions)
    assert status is not None
    assert status["uncountedTerminatedPods"] == {}
    assert status["terminating"] == 1
    assert writes(actions, Create) == []


def test_finalizers_of_pods_whose_job_is_gone_are_removed() -> None:
    actions = reconcile(OrphanView([tracked("p", job())]))
    assert untracking(actions) == ["p"]


def test_a_job_in_deletion_holds_no_pod_back() -> None:
    owner = deleting(job())
    actions = look(owner, tracked("a", owner), ended("b", owner, "Failed"))
    assert untracking(actions) == ["a", "b"]
    assert writes(actions, Create) == []


# ---------------------------------------------------------------- failure


@pytest.mark.parametrize(("failures", "ago_s", "created"), [(1, 5, 0), (1, 11, 1), (2, 15, 0), (2, 21, 1), (5, 100, 0)])
def test_replacements_back_off(failures: int, ago_s: float, created: int) -> None:
    owner = job()
    actions = look(owner, *(ended(f"p{number}", owner, "Failed", ago_s=ago_s) for number in range(failures)))
    assert len(writes(actions, Create)) == created
    assert any(isinstance(action, Requeue) for action in flat(actions)) != bool(created)


def test_more_failures_than_the_limit_fail_the_job_and_end_its_pods() -> None:
    owner = job(backoffLimit=1, parallelism=3, completions=3)
    running = tracked("run", owner)
    failed = [ended(f"p{number}", owner, "Failed") for number in range(2)]
    actions = look(owner, running, *failed)
    assert conditions(actions) == {"FailureTarget": "BackoffLimitExceeded"}
    assert [delete.obj["metadata"]["name"] for delete in writes(actions, Delete)] == ["run"]
    status = status_of(actions)
    assert status is not None
    owner["status"] = status
    actions = look(owner, deleting(running), *failed)
    assert "Failed" not in conditions(actions)
    actions = look(owner, *map(untracked, failed))
    status = status_of(actions)
    assert status is not None
    assert status["failed"] == 3
    assert conditions(actions) == {"FailureTarget": "BackoffLimitExceeded", "Failed": "BackoffLimitExceeded"}


def test_with_on_failure_restarts_count() -> None:
    owner = job(backoffLimit=3)
    owner["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure"
    assert conditions(look(owner, tracked("p", owner, restarts=2))) == {}
    assert conditions(look(owner, tracked("p", owner, restarts=3))) == {"FailureTarget": "BackoffLimitExceeded"}


def test_the_deadline_counts_from_the_start() -> None:
    owner = job(activeDeadlineSeconds=60, status={"startTime": rfc3339(NOW - 59)})
    actions = look(owner, tracked("p", owner))
    assert [action.after_s for action in flat(actions) if isinstance(action, Requeue)] == [1]
    owner = job(activeDeadlineSeconds=60, status={"startTime": rfc3339(NOW - 60)})
    actions = look(owner, tracked("p", owner))
    assert conditions(actions) == {"FailureTarget": "DeadlineExceeded"}
    assert len(writes(actions, Delete)) == 1


POLICY = {
    "rules": [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "Count", "onExitCodes": {"operator": "NotIn", "values": [1]}},
    ]
}


def test_a_failure_policy_may_fail_the_job_at_once() -> None:
    owner = job(podFailurePolicy=POLICY)
    actions = look(owner, ended("p", owner, "Failed", code=42))
    status = status_of(actions)
    assert status is not None
    assert status["conditions"][0]["message"] == (
        "Container c for pod default/p failed with exit code 42 matching FailJob rule at index 0"
    )
    assert conditions(actions) == {"FailureTarget": "PodFailurePolicy"}


def test_a_failure_policy_may_ignore_disruptions() -> None:
    owner = job(podFailurePolicy=POLICY, backoffLimit=0)
    disrupted = ended("p", owner, "Failed", code=1)
    disrupted["status"]["conditions"].append({"type": "DisruptionTarget", "status": "True"})
    actions = look(owner, disrupted)
    assert conditions(actions) == {}
    assert untracking(actions) == ["p"]


# ---------------------------------------------------------------- Indexed


def indexed(**spec: Any) -> Object:
    return job(completionMode="Indexed", **spec)


def test_indexed_pods_know_their_index() -> None:
    owner = indexed(parallelism=2, completions=3)
    creates = writes(look(owner), Create)
    assert [create.obj["metadata"]["generateName"] for create in creates] == ["work-0-", "work-1-"]
    made = creates[1].obj
    assert made["metadata"]["annotations"][job_indexes.INDEX] == "1"
    assert made["metadata"]["labels"][job_indexes.INDEX] == "1"
    assert made["spec"]["hostname"] == "work-1"
    (variable,) = made["spec"]["containers"][0]["env"]
    assert variable["name"] == "JOB_COMPLETION_INDEX"


def test_each_index_completes_once() -> None:
    owner = indexed(parallelism=3, completions=5, status={"completedIndexes": "1", "succeeded": 1})
    pods = [
        tracked("a", owner, index=0),
        ended("b", owner, "Succeeded", index=3),
        ended("c", owner, "Succeeded", index=1),  # again
        ended("d", owner, "Succeeded", index=7),  # out of range
    ]
    actions = look(owner, *pods)
    status = status_of(actions)
    assert status is not None
    assert (status["completedIndexes"], status["succeeded"]) == ("1,3", 2)
    assert [create.obj["metadata"]["generateName"] for create in writes(actions, Create)] == ["work-2-", "work-4-"]


def test_a_second_pod_of_an_index_is_removed() -> None:
    owner = indexed(parallelism=2, completions=2)
    actions = look(owner, tracked("a", owner, index=0, age_s=90), tracked("b", owner, index=0, age_s=80))
    assert [delete.obj["metadata"]["name"] for delete in writes(actions, Delete)] == ["b"]


def test_limits_per_index() -> None:
    owner = indexed(parallelism=3, completions=3, backoffLimit=2**31 - 1, backoffLimitPerIndex=1, maxFailedIndexes=1)
    first = ended("a", owner, "Failed", index=0, ago_s=20)
    actions = look(owner, first, tracked("b", owner, index=1), tracked("c", owner, index=2))
    assert untracking(actions) == []  # its replacement has to learn from it
    (create,) = writes(actions, Create)
    assert create.obj["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"] == "1"
    again = {"batch.kubernetes.io/job-index-failure-count": "1"}
    second = ended("d", owner, "Failed", index=0, annotations=again)
    actions = look(owner, first, second, tracked("b", owner, index=1), tracked("c", owner, index=2))
    status = status_of(actions)
    assert status is not None
    assert status["failedIndexes"] == "0"
    assert writes(actions, Create) == []
    third = ended("e", owner, "Failed", index=1, annotations=again)
    actions = look(owner, second, third, tracked("c", owner, index=2))
    assert conditions(actions) == {"FailureTarget": "MaxFailedIndexesExceeded"}


def test_a_success_policy_ends_the_job_early() -> None:
    policy = {"rules": [{"succeededIndexes": "0-1", "succeededCount": 1}]}
    owner = indexed(parallelism=3, completions=3, successPolicy=policy)
    actions = look(owner, ended("a", owner, "Succeeded", index=1), tracked("b", owner, index=2))
    assert conditions(actions) == {"SuccessCriteriaMet": "SuccessPolicy"}
    assert [delete.obj["metadata"]["name"] for delete in writes(actions, Delete)] == ["b"]


# ---------------------------------------------------------------- suspension


def test_suspending_removes_pods_without_counting_them() -> None:
    owner = job(suspend=True, status={"startTime": rfc3339(NOW - 5), "active": 1})
    actions = look(owner, tracked("p", owner))
    assert untracking(actions) == ["p"]
    assert len(writes(actions, Delete)) == 1
    assert conditions(actions) == {"Suspended": "JobSuspended"}
    status = status_of(actions)
    assert status is not None
    assert status["uncountedTerminatedPods"] == {}


def test_resuming_starts_the_clock_anew() -> None:
    suspended = {"type": "Suspended", "status": "True", "reason": "JobSuspended"}
    owner = job(status={"startTime": rfc3339(NOW - 500), "conditions": [suspended]})
    actions = look(owner)
    status = status_of(actions)
    assert status is not None
    assert status["startTime"] == rfc3339(NOW)
    assert status["conditions"][0]["status"] == "False"
    told = [tell for write in writes(actions) if write.then for tell in write.then({"metadata": {"name": "x"}})]
    assert "Resumed" in {tell.reason for tell in told if isinstance(tell, Tell)}


def test_a_job_of_another_manager_is_left_alone() -> None:
    assert look(job(managedBy="example.com/other")) == ()


@pytest.mark.parametrize(
    ("indexes", "text"), [([], ""), ([0], "0"), ([0, 1], "0,1"), ([0, 1, 2], "0-2"), ([5, 1, 3, 4, 7], "1,3-5,7")]
)
def test_index_sets_round_trip(indexes: list[int], text: str) -> None:
    assert job_indexes.render(indexes) == text
    assert job_indexes.parse(text, 10) == set(indexes)
