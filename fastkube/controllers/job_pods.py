"""The Pods of a Job as they are made, told of, and let go."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from fastkube.controllers import job_indexes, job_policy
from fastkube.controllers.actions import GONE, Action, Create, Delete, Patch, Tell
from fastkube.controllers.caches import TRACKING_FINALIZER
from fastkube.controllers.common import PODS, Object, pod_from_template
from fastkube.errors import ApiError


def is_tracked(pod: Object) -> bool:
    return TRACKING_FINALIZER in (pod["metadata"].get("finalizers") or ())


def untrack(pod: Object) -> Patch:
    body = {"metadata": {"$deleteFromPrimitiveList/finalizers": [TRACKING_FINALIZER]}}
    return Patch(PODS, pod, body=body, kind="strategic", ignore=GONE)


def indexed_template(job: Object, index: int, counts: job_policy.FailureCounts | None) -> Object:
    """The template for one index, which the Pod can read from its name, a label, an annotation and a variable.

    `counts`: how often the index has failed, where that is limited.
    """
    template = job["spec"]["template"]
    metadata, spec = template.get("metadata") or {}, template["spec"]
    told = {job_indexes.INDEX: str(index)}
    annotations = {**(metadata.get("annotations") or {}), **told}
    if counts is not None:
        annotations[job_policy.FAILURE_COUNT] = str(counts.counted)
        if counts.ignored:
            annotations[job_policy.IGNORED_COUNT] = str(counts.ignored)
    spec = {**spec, "hostname": f"{job['metadata']['name']}-{index}"}
    for key in ("initContainers", "containers"):
        if spec.get(key):
            spec[key] = [_with_index_variable(container) for container in spec[key]]
    labels = {**(metadata.get("labels") or {}), **told}
    return {"metadata": {**metadata, "labels": labels, "annotations": annotations}, "spec": spec}


def _with_index_variable(container: Object) -> Object:
    env = container.get("env") or []
    if any(entry["name"] == "JOB_COMPLETION_INDEX" for entry in env):
        return container
    path = f"metadata.labels['{job_indexes.INDEX}']"
    variable = {"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": {"fieldPath": path}}}
    return {**container, "env": [*env, variable]}


def creation(job: Object, template: Object, prefix: str) -> Create:
    """Make a Pod that waits to be counted."""
    pod = pod_from_template(template, job, prefix=prefix)
    finalizers = pod["metadata"].get("finalizers") or []
    pod["metadata"]["finalizers"] = [*finalizers, TRACKING_FINALIZER]
    return Create(PODS, pod, then=partial(_tell_created, job), otherwise=partial(_tell_refused, job))


def _tell_created(job: Object, made: Object) -> Sequence[Action]:
    return [Tell(job, "Normal", "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")]


def _tell_refused(job: Object, error: ApiError) -> Sequence[Action]:
    return [Tell(job, "Warning", "FailedCreate", f"Error creating: {error.message}")]


def deletion(job: Object, pod: Object) -> Delete:
    """Delete a Pod, and tell it on the Job."""
    name = pod["metadata"]["name"]
    return Delete(
        PODS,
        pod,
        ignore=GONE,
        then=lambda _: [Tell(job, "Normal", "SuccessfulDelete", f"Deleted pod: {name}")],
        otherwise=lambda error: [Tell(job, "Warning", "FailedDelete", f"Error deleting: {error.message}")],
    )
