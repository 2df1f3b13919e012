"""Finished Jobs are deleted ttlSecondsAfterFinished after their end, with their Pods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastkube.controllers.actions import GONE, Action, Delete, Requeue
from fastkube.controllers.common import Object, condition_is, is_terminating, seconds
from fastkube.controllers.job import JOBS
from fastkube.controllers.runner import Context, Controller, Watch


class View(NamedTuple):
    job: Object
    now: float


def view(context: Context, key: str) -> View | None:
    job = context.caches.by_key(JOBS, key)
    return View(job, context.now) if job is not None and _expires(job) else None


def _expires(job: Object) -> bool:
    finished = condition_is(job, "Complete") or condition_is(job, "Failed")
    return finished and job["spec"].get("ttlSecondsAfterFinished") is not None and not is_terminating(job)


def _finish_time(job: Object) -> float:
    ends = [known for known in job["status"]["conditions"] if known["type"] in ("Complete", "Failed")]
    return min(seconds(known["lastTransitionTime"]) for known in ends if known["status"] == "True")


def reconcile(view: View) -> Sequence[Action]:
    job = view.job
    left = _finish_time(job) + job["spec"]["ttlSecondsAfterFinished"] - view.now
    if left > 0:
        return [Requeue(left)]
    # the TTL may have been changed in this moment: only the Job as it is known may go
    revision = job["metadata"]["resourceVersion"]
    return [Delete(JOBS, job, propagation="Foreground", resource_version=revision, ignore=GONE)]


CONTROLLER = Controller(
    name="ttl-after-finished-controller",
    watches=(Watch(JOBS),),
    view=view,
    reconcile=reconcile,
    workers="concurrent_ttl_after_finished_syncs",
)
