"""Cron schedules, and the Jobs that come of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from kubeobjects import asked, deleting, flat, obj, owned_by, status_of, writes

from fastkube.api import cron
from fastkube.clock import rfc3339
from fastkube.controllers.actions import Create, Delete, Requeue, Tell
from fastkube.controllers.cronjob import View, reconcile

Object = dict[str, Any]


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        ("* * * * *", "2026-01-01T00:00:30", "2026-01-01T00:01:00"),
        ("*/15 * * * *", "2026-01-01T00:16:00", "2026-01-01T00:30:00"),
        ("0 0 * * *", "2026-01-01T00:00:00", "2026-01-02T00:00:00"),
        ("30 4 1 * *", "2026-01-02T00:00:00", "2026-02-01T04:30:00"),
        ("0 9-17/4 * * 1-5", "2026-01-02T18:00:00", "2026-01-05T09:00:00"),  # a Friday evening
        ("0 0 13 * 5", "2026-01-01T00:00:00", "2026-01-02T00:00:00"),  # the 13th or a Friday
        ("0 0 29 2 *", "2026-01-01T00:00:00", "2028-02-29T00:00:00"),
        ("0 0 1 jan,JUL ?", "2026-02-01T00:00:00", "2026-07-01T00:00:00"),
        ("5/20 * * * *", "2026-01-01T00:06:00", "2026-01-01T00:25:00"),
        ("@hourly", "2026-01-01T00:30:00", "2026-01-01T01:00:00"),
        ("@weekly", "2026-01-01T00:00:00", "2026-01-04T00:00:00"),
        ("@every 90s", "2026-01-01T00:00:10", "2026-01-01T00:01:40"),
        ("59 23 31 12 *", "2026-12-31T23:59:00", "2027-12-31T23:59:00"),
    ],
)
def test_when_a_schedule_is_due(schedule: str, after: str, expected: str) -> None:
    assert cron.parse(schedule).next(at(after)) == at(expected)


def test_a_day_that_never_comes() -> None:
    assert cron.parse("0 0 31 2 *").next(at("2026-01-01T00:00:00")) is None


def test_time_zones_and_changes_of_time() -> None:
    berlin = cron.parse("30 2 * * *", "Europe/Berlin")
    assert berlin.next(at("2026-01-01T00:00:00")) == at("2026-01-01T01:30:00")
    # 29 March 2026: the hour from two to three does not exist
    assert berlin.next(at("2026-03-28T12:00:00")) == at("2026-03-30T00:30:00")
    # 25 October 2026: it comes twice
    first = berlin.next(at("2026-10-24T12:00:00"))
    assert first == at("2026-10-25T00:30:00")
    assert berlin.next(first) == at("2026-10-25T01:30:00")


@pytest.mark.parametrize(
    "schedule",
    ["", "* * * *", "* * * * * *", "60 * * * *", "* * * * 7", "5-1 * * * *", "a * * * *", "@often", "*/0 * * * *"],
)
def test_what_is_no_schedule_is_refused(schedule: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        cron.parse(schedule)


# ---------------------------------------------------------------- CronJobs

START = at("2026-01-01T12:00:00")


def cronjob(schedule: str = "*/10 * * * *", status: Object | None = None, **spec: Any) -> Object:
    template = {"metadata": {"labels": {"l": "1"}, "annotations": {"a": "1"}}, "spec": {"template": {}}}
    spec = {"schedule": schedule, "concurrencyPolicy": "Allow", "jobTemplate": template, **spec}
    made = obj("CronJob", "tick", "batch/v1", spec=spec, status=status or {})
    made["metadata"]["creationTimestamp"] = rfc3339(START - 60)
    return made


def job(owner: Object, name: str, outcome: str = "", started: str = "") -> Object:
    conditions = [{"type": outcome, "status": "True"}] if outcome else []
    status = {"conditions": conditions, "startTime": started or "2026-01-01T00:00:00Z"}
    if outcome == "Complete":
        status["completionTime"] = "2026-01-01T12:05:00Z"
    return obj("Job", name, "batch/v1", status=status, m_ownerReferences=owned_by(owner))


def active(*jobs: Object) -> Object:
    return {"active": [{"name": each["metadata"]["name"], "uid": each["metadata"]["uid"]} for each in jobs]}


def look(owner: Object, now: float, *jobs: Object, live: Any = None) -> Any:
    known = {each["metadata"]["name"]: each for each in jobs}
    return reconcile(View(owner, list(jobs), known.get, now, live or {}))


def reasons(actions: Any) -> list[str]:
    return [action.reason for action in flat(actions) if isinstance(action, Tell)]


def test_a_job_is_made_when_it_is_due() -> None:
    owner = cronjob()
    assert writes(look(owner, START - 30)) == []
    actions = look(owner, START + 1)
    (create,) = writes(actions, Create)
    made = create.obj
    assert made["metadata"]["name"] == f"tick-{int(START) // 60}"
    assert made["metadata"]["annotations"] == {
        "a": "1",
        "batch.kubernetes.io/cronjob-scheduled-timestamp": "2026-01-01T12:00:00Z",
    }
    assert made["metadata"]["ownerReferences"] == owned_by(owner)
    assert [round(action.after_s) for action in actions if isinstance(action, Requeue)] == [599]
    kept = {**made, "metadata": {**made["metadata"], "uid": "j1", "resourceVersion": "9"}}
    tell, update = create.then(kept)
    assert tell.message == f"Created job {made['metadata']['name']}"
    status = update.obj["status"]
    assert status["lastScheduleTime"] == "2026-01-01T12:00:00Z"
    assert status["active"][0]["uid"] == "j1"


def test_the_same_time_is_served_once() -> None:
    owner = cronjob(status={"lastScheduleTime": rfc3339(START)})
    assert writes(look(owner, START + 30)) == []


def test_only_the_latest_missed_time_is_served() -> None:
    (create,) = writes(look(cronjob(), START + 3600 + 5), Create)
    assert create.obj["metadata"]["name"] == f"tick-{int(START + 3600) // 60}"


def test_many_missed_times_are_told() -> None:
    actions = look(cronjob("* * * * *"), START + 86400)
    assert "TooManyMissedTimes" in reasons(actions)
    assert len(writes(actions, Create)) == 1


def test_too_late_is_too_late() -> None:
    owner = cronjob("0 12 * * *", startingDeadlineSeconds=100)
    assert len(writes(look(owner, START + 99), Create)) == 1
    actions = look(owner, START + 101)
    assert writes(actions, Create) == []


def test_concurrency() -> None:
    running = job(cronjob(), "tick-1")
    allowed = cronjob(status=active(running))
    assert len(writes(look(allowed, START, running), Create)) == 1
    forbidden = cronjob(status=active(running), concurrencyPolicy="Forbid")
    actions = look(forbidden, START, running)
    assert writes(actions, Create) == []
    assert reasons(actions) == ["JobAlreadyActive"]
    replaced = cronjob(status=active(running), concurrencyPolicy="Replace")
    actions = look(replaced, START, running)
    assert [delete.obj["metadata"]["name"] for delete in writes(actions, Delete)] == ["tick-1"]
    assert len(writes(actions, Create)) == 1


def test_suspended_and_deleted_ones_start_nothing() -> None:
    assert writes(look(cronjob(suspend=True), START), Create) == []
    assert writes(look(deleting(cronjob()), START), Create) == []


def test_bad_schedules_are_told() -> None:
    assert reasons(look(cronjob("nonsense"), START)) == ["UnparseableCronJobSchedule"]
    assert reasons(look(cronjob(timeZone="Moon/Crater"), START)) == ["UnknownTimeZone"]


def test_completed_jobs_leave_the_list() -> None:
    owner = cronjob(suspend=True)
    done = job(owner, "tick-1", "Complete")
    owner["status"] = active(done)
    actions = look(owner, START, done)
    assert reasons(actions) == ["SawCompletedJob"]
    status = status_of(actions)
    assert status == {"lastSuccessfulTime": "2026-01-01T12:05:00Z"}


def test_active_jobs_that_are_gone_leave_the_list_when_the_server_says_so() -> None:
    owner = cronjob(suspend=True)
    lost = job(owner, "tick-1")
    owner["status"] = active(lost)
    (path,) = asked(look(owner, START))
    actions = look(owner, START, live={path: None})
    assert reasons(actions) == ["MissingJob"]
    assert status_of(actions) == {}
    assert status_of(look(owner, START, live={path: lost})) is None


def test_history_is_trimmed() -> None:
    owner = cronjob(suspend=True, successfulJobsHistoryLimit=1, failedJobsHistoryLimit=0)
    jobs = [job(owner, f"j{n}", "Complete", f"2026-01-01T0{n}:00:00Z") for n in (3, 1, 2)]
    failed = job(owner, "bad", "Failed")
    actions = look(owner, START, *jobs, failed)
    assert [delete.obj["metadata"]["name"] for delete in writes(actions, Delete)] == ["j1", "j2", "bad"]
    assert all(delete.propagation == "Background" for delete in writes(actions, Delete))
