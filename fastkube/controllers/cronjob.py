"""CronJobs: a Job each time the schedule says so, at most one for each time, and a history of those that are done."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from email.utils import format_datetime
from functools import partial
from typing import Any, NamedTuple

from fastkube.api import cron
from fastkube.api.meta import controller_of, owner_reference
from fastkube.client.resource import object_path
from fastkube.clock import rfc3339
from fastkube.controllers.actions import GONE, Action, Ask, Create, Delete, Requeue, Tell, status_update
from fastkube.controllers.common import (
    Object,
    Objects,
    condition,
    controlled_by,
    is_terminating,
    seconds,
)
from fastkube.controllers.job import JOBS
from fastkube.controllers.runner import Context, Controller, Watch
from fastkube.errors import ApiError

CRONJOBS = "batch/v1/cronjobs"

SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"
MISSED_MAX = 100
SLACK_S = 0.1
"""Looked at a little after the time, so that it is not a little before."""


class View(NamedTuple):
    cronjob: Object
    jobs: Objects
    named: Any
    """Which Job has a name, whoever's it is."""
    now: float
    live: dict[str, Any] = {}  # noqa: RUF012 - never changed, only replaced


def view(context: Context, key: str) -> View | None:
    caches = context.caches
    cronjob = caches.by_key(CRONJOBS, key)
    if cronjob is None:
        return None
    metadata = cronjob["metadata"]
    jobs = caches.index(JOBS, "controller", metadata["uid"])
    return View(cronjob, jobs, partial(caches.get, JOBS, metadata["namespace"]), context.now)


def reconcile(view: View) -> Sequence[Action]:
    return _Attempt(view).run()


def _outcome(job: Object) -> str:
    for kind in ("Complete", "Failed"):
        found = condition(job, kind)
        if found is not None and found["status"] == "True":
            return kind
    return ""


class _Attempt:
    def __init__(self, view: View) -> None:
        self.view = view
        self.cronjob = view.cronjob
        self.spec = view.cronjob["spec"]
        self.now = view.now
        self.status: Object = dict(view.cronjob.get("status") or {})
        self.active: Objects = list(self.status.get("active") or ())
        self.actions: list[Action] = []
        self.creation: Create | None = None
        self.again: float | None = None

    def run(self) -> Sequence[Action]:
        if asks := self._asks():
            return asks
        self._follow_jobs()
        if not is_terminating(self.cronjob):
            if not self.spec.get("suspend"):
                self._start_if_due()
            self._trim_history()
        self._set_active()
        if self.creation is not None:
            self.actions.append(self.creation)  # the status is written with its answer
        elif self.status != (self.cronjob.get("status") or {}):
            self.actions.append(status_update(CRONJOBS, self.cronjob, self.status))
        if self.again is not None:
            self.actions.append(Requeue(self.again))
        return self.actions

    # -- the Jobs that there are -----------------------------------------------------------------------------------

    def _asks(self) -> list[Action]:
        """An active Job that the cache does not know may be newer than the cache."""
        known = {job["metadata"]["uid"] for job in self.view.jobs}
        namespace = self.cronjob["metadata"]["namespace"]
        paths = [object_path(JOBS, namespace, ref["name"]) for ref in self.active if ref["uid"] not in known]
        return [Ask(path) for path in paths if path not in self.view.live]

    def _follow_jobs(self) -> None:
        listed = {ref["uid"] for ref in self.active}
        present = set()
        for job in self.view.jobs:
            uid, name, outcome = job["metadata"]["uid"], job["metadata"]["name"], _outcome(job)
            present.add(uid)
            if uid in listed and outcome:
                self._drop(uid)
                self._tell("Normal", "SawCompletedJob", f"Saw completed job: {name}, condition: {outcome}")
            elif uid not in listed and not outcome:
                message = f"Saw a job that the controller did not create or forgot: {name}"
                self._tell("Warning", "UnexpectedJob", message)
            if outcome == "Complete":
                self._note_success(job)
        for ref in list(self.active):
            if ref["uid"] not in present:
                path = object_path(JOBS, self.cronjob["metadata"]["namespace"], ref["name"])
                fresh = self.view.live.get(path)
                if fresh is None or fresh["metadata"]["uid"] != ref["uid"]:
                    self._tell("Normal", "MissingJob", f"Active job went missing: {ref['name']}")
                    self._drop(ref["uid"])

    def _drop(self, uid: str) -> None:
        self.active = [ref for ref in self.active if ref["uid"] != uid]

    def _note_success(self, job: Object) -> None:
        ended = (job.get("status") or {}).get("completionTime")
        last = self.status.get("lastSuccessfulTime")
        if ended and (not last or seconds(ended) > seconds(last)):
            self.status["lastSuccessfulTime"] = ended

    def _set_active(self) -> None:
        if self.active:
            self.status["active"] = self.active
        else:
            self.status.pop("active", None)

    def _tell(self, kind: Any, reason: str, message: str) -> None:
        self.actions.append(Tell(self.cronjob, kind, reason, message))

    # -- starting --------------------------------------------------------------------------------------------------

    def _start_if_due(self) -> None:
        schedule = self._schedule()
        if schedule is None:
            return
        due, missed = _most_recent(self._since(self.spec.get("startingDeadlineSeconds")), self.now, schedule)
        following = schedule.next(self.now)
        if following is not None:
            self.again = following - self.now + SLACK_S
        if due is None:
            return
        if missed > MISSED_MAX:
            message = f"too many missed start times: {missed}. "
            message += "Set or decrease .spec.startingDeadlineSeconds or check clock skew"
            self._tell("Warning", "TooManyMissedTimes", message)
        deadline = self.spec.get("startingDeadlineSeconds")
        if deadline is not None and due + deadline < self.now:
            at = format_datetime(datetime.fromtimestamp(due, schedule.zone))
            self._tell("Warning", "MissSchedule", f"Missed scheduled time to start a job: {at}")
            return
        name = self._job_name(due)
        last = self.status.get("lastScheduleTime")
        if any(ref["name"] == name for ref in self.active) or (last and seconds(last) == due):
            return
        if not self._makes_way():
            return
        self._start(name, due, schedule)

    def _schedule(self) -> cron.Schedule | None:
        zone = self.spec.get("timeZone") or ""
        try:
            return cron.parse(self.spec["schedule"], zone)
        except ValueError as error:
            if zone and "time zone" in str(error):
                self._tell("Warning", "UnknownTimeZone", f'invalid timeZone: "{zone}": {error}')
            else:
                told = f"unparseable schedule: {self.spec['schedule']} : {error}"
                self._tell("Warning", "UnparseableCronJobSchedule", told)
            return None

    def _since(self, deadline: int | None) -> float:
        """From when on times count: the last that was served, as far as the deadline looks back."""
        last = self.status.get("lastScheduleTime") or self.cronjob["metadata"]["creationTimestamp"]
        return seconds(last) if deadline is None else max(seconds(last), self.now - deadline)

    def _makes_way(self) -> bool:
        """What the concurrency policy says while another Job runs."""
        policy = self.spec.get("concurrencyPolicy", "Allow")
        if not self.active or policy == "Allow":
            return True
        if policy == "Forbid":
            message = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self._tell("Normal", "JobAlreadyActive", message)
            return False
        jobs = {job["metadata"]["uid"]: job for job in self.view.jobs}
        for ref in list(self.active):
            if ref["uid"] in jobs:
                self.actions.append(self._deletion(jobs[ref["uid"]]))
            self._drop(ref["uid"])
        return True

    def _job_name(self, due: float) -> str:
        return f"{self.cronjob['metadata']['name']}-{int(due) // 60}"

    def _start(self, name: str, due: float, schedule: cron.Schedule) -> None:
        known = self.view.named(name)
        if known is not None:
            # made by an attempt that could not tell, or by somebody else, whose Job is left alone
            if (controller_of(known) or {}).get("uid") == self.cronjob["metadata"]["uid"]:
                self._started(known, due)
            return
        template = self.spec["jobTemplate"]
        given = template.get("metadata") or {}
        at = datetime.fromtimestamp(due, schedule.zone).isoformat().replace("+00:00", "Z")
        metadata: Object = {"name": name, "namespace": self.cronjob["metadata"]["namespace"]}
        if given.get("labels"):
            metadata["labels"] = given["labels"]
        metadata["annotations"] = {**(given.get("annotations") or {}), SCHEDULED_AT: at}
        metadata["ownerReferences"] = [owner_reference(self.cronjob)]
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]}
        self.creation = Create(JOBS, job, then=partial(self._created, due), otherwise=self._refused)

    def _created(self, due: float, job: Object) -> Sequence[Action]:
        """The status names the Job as the server made it."""
        self._started(job, due)
        self._set_active()
        tell = Tell(self.cronjob, "Normal", "SuccessfulCreate", f"Created job {job['metadata']['name']}")
        return [tell, status_update(CRONJOBS, self.cronjob, self.status)]

    def _started(self, job: Object, due: float) -> None:
        metadata = job["metadata"]
        ref = {"kind": "Job", "namespace": metadata["namespace"], "name": metadata["name"], "uid": metadata["uid"]}
        ref |= {"apiVersion": "batch/v1", "resourceVersion": metadata["resourceVersion"]}
        if not _outcome(job) and not any(known["uid"] == metadata["uid"] for known in self.active):
            self.active.append(ref)
        self.status["lastScheduleTime"] = rfc3339(due)

    def _refused(self, error: ApiError) -> Sequence[Action]:
        return [Tell(self.cronjob, "Warning", "FailedCreate", f"Error creating job: {error.message}")]

    # -- history ---------------------------------------------------------------------------------------------------

    def _trim_history(self) -> None:
        for outcome, key in (("Complete", "successfulJobsHistoryLimit"), ("Failed", "failedJobsHistoryLimit")):
            limit = self.spec.get(key)
            if limit is None:
                continue
            done = [job for job in self.view.jobs if _outcome(job) == outcome and not is_terminating(job)]
            done.sort(key=lambda job: ((job.get("status") or {}).get("startTime") or "", job["metadata"]["name"]))
            self.actions += [self._deletion(job) for job in done[: max(0, len(done) - limit)]]

    def _deletion(self, job: Object) -> Delete:
        name = job["metadata"]["name"]
        return Delete(
            JOBS,
            job,
            propagation="Background",
            ignore=GONE,
            then=lambda _: [Tell(self.cronjob, "Normal", "SuccessfulDelete", f"Deleted job {name}")],
            otherwise=lambda error: [
                Tell(self.cronjob, "Warning", "FailedDelete", f"Deleted job: {error.message}"),
            ],
        )


def _most_recent(earliest: float, now: float, schedule: cron.Schedule) -> tuple[float | None, int]:
    """The last time that is due, and about how many were since `earliest`; (None, 0) if none is."""
    first = schedule.next(earliest)
    if first is None or now < first:
        return None, 0
    second = schedule.next(first)
    if second is None or now < second:
        return first, 1
    gap = max(1, round(second - first))
    missed = int(now - first) // gap + 1
    # near the present, so that a year of missed minutes is not walked through
    start = first + (missed - 2) * gap
    latest: float | None = None
    candidate = schedule.next(start)
    while candidate is not None and candidate <= now:
        latest = candidate
        candidate = schedule.next(candidate)
    return latest if latest is not None else first, missed


CONTROLLER = Controller(
    name="cronjob-controller",
    watches=(Watch(CRONJOBS), Watch(JOBS, controlled_by("CronJob"), ("controller",))),
    view=view,
    reconcile=reconcile,
    workers="concurrent_cron_job_syncs",
)
