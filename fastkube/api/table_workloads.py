"""Cells of Pods and of the kinds that run and scale them."""

from __future__ import annotations

from typing import NamedTuple

from fastkube.api import meta
from fastkube.api.catalog import split_api_version
from fastkube.api.table_text import (
    NONE,
    UNKNOWN,
    UNSET,
    Cell,
    Object,
    Printer,
    age,
    condition,
    containers,
    human_duration,
    labels,
    name,
    selector,
    shortened,
    since,
)
from fastkube.clock import parse_rfc3339

# ---------------------------------------------------------------- Pods


def pod(obj: Object, now: float) -> list[Cell]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    progress = _progress(spec, status)
    restarts = str(progress.restarts)
    if progress.restarts and progress.last_restart:
        restarts = f"{progress.restarts} ({since(progress.last_restart, now)} ago)"
    ips = status.get("podIPs") or ()
    return [
        name(obj),
        f"{progress.ready}/{progress.total}",
        _word(obj, progress.word),
        restarts,
        age(obj, now),
        (ips[0].get("ip") if ips else "") or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        _readiness_gates(obj),
    ]


def pod_conditions(obj: Object) -> list[Object]:
    """What a Pod's row says of its end, for clients that hide finished rows."""
    phase = (obj.get("status") or {}).get("phase", "")
    told = {"Succeeded": "The pod has completed successfully.", "Failed": "The pod failed."}.get(phase)
    return [{"type": "Completed", "status": "True", "reason": phase, "message": told}] if told else []


class _Progress(NamedTuple):
    """What the containers' states come to. `last_restart` is when a container ended before its last start."""

    word: str
    ready: int
    total: int
    restarts: int
    last_restart: str


def _word(obj: Object, word: str) -> str:
    """The status column: the progress, unless the Pod is being deleted."""
    if not obj["metadata"].get("deletionTimestamp"):
        return word
    status = obj.get("status") or {}
    if status.get("reason") == "NodeLost":
        return "Unknown"
    return word if status.get("phase") in ("Succeeded", "Failed") else "Terminating"


def _progress(spec: Object, status: Object) -> _Progress:
    word = status.get("reason") or status.get("phase") or ""
    if any(
        each.get("type") == "PodScheduled" and each.get("reason") == "SchedulingGated"
        for each in status.get("conditions") or ()
    ):
        word = "SchedulingGated"
    init_specs = spec.get("initContainers") or ()
    sidecars = {each["name"] for each in init_specs if each.get("restartPolicy") == "Always"}
    total = len(spec.get("containers") or ()) + len(sidecars)
    init_statuses: list[Object] = status.get("initContainerStatuses") or []
    init_word, ready, reached = _init_progress(init_statuses, sidecars, len(init_specs))
    if init_word and not _has_true(status, "Initialized"):
        restarts, last = _restarts(init_statuses[:reached])
        return _Progress(init_word, ready, total, restarts, last)
    container_statuses = status.get("containerStatuses") or ()
    running = sum(1 for each in container_statuses if _is_running(each))
    word = init_word or word
    for each in reversed(container_statuses):
        word = _state_word(each) or word
    if word == "Completed" and running:
        word = "Running" if _has_true(status, "Ready") else "NotReady"
    counted = [each for each in init_statuses[:reached] if each.get("name") in sidecars]
    restarts, last = _restarts([*counted, *container_statuses])
    return _Progress(word, ready + running, total, restarts, last)


def _init_progress(statuses: list[Object], sidecars: set[str], count: int) -> tuple[str, int, int]:
    """(word of the first init container that is not done, ready sidecars before it, how many were looked at)."""
    ready = 0
    for number, each in enumerate(statuses):
        state = each.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting") or {}
        if ended is not None and not ended.get("exitCode"):
            continue
        if each.get("name") in sidecars and each.get("started"):
            ready += bool(each.get("ready"))
            continue
        if ended is not None:
            word = f"Init:{_end_word(ended)}"
        elif waiting.get("reason") not in (None, "", "PodInitializing"):
            word = f"Init:{waiting['reason']}"
        else:
            word = f"Init:{number}/{count}"
        return word, ready, number + 1
    return "", ready, len(statuses)


def _end_word(ended: Object) -> str:
    if ended.get("reason"):
        return str(ended["reason"])
    return f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended.get('exitCode') or 0}"


def _state_word(status: Object) -> str:
    """Why a container waits or how it ended; nothing of one that runs."""
    state = status.get("state") or {}
    reason = (state.get("waiting") or {}).get("reason")
    if reason:
        return str(reason)
    ended = state.get("terminated")
    return _end_word(ended) if ended is not None else ""


def _is_running(status: Object) -> bool:
    state = status.get("state") or {}
    return bool(status.get("ready")) and state.get("running") is not None and not _state_word(status)


def _restarts(statuses: list[Object]) -> tuple[int, str]:
    """(sum of the restarts, when the last of them was)."""
    count, last = 0, ""
    for each in statuses:
        count += each.get("restartCount") or 0
        ended = (each.get("lastState") or {}).get("terminated") or {}
        last = max(last, ended.get("finishedAt") or "")
    return count, last


def _has_true(status: Object, kind: str) -> bool:
    found = condition({"status": status}, kind)
    return found is not None and found.get("status") == "True"


def _readiness_gates(obj: Object) -> str:
    gates = (obj.get("spec") or {}).get("readinessGates") or ()
    if not gates:
        return NONE
    met = sum(_has_true(obj.get("status") or {}, gate.get("conditionType", "")) for gate in gates)
    return f"{met}/{len(gates)}"


# ---------------------------------------------------------------- controllers of Pods


def pod_template(obj: Object, now: float) -> list[Cell]:
    template = obj.get("template") or {}
    return [name(obj), *containers(template), labels((template.get("metadata") or {}).get("labels"))]


def replica_set(obj: Object, now: float) -> list[Cell]:
    """A ReplicaSet, or a ReplicationController, whose selector is a plain map."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    told = spec.get("selector")
    return [
        name(obj),
        spec.get("replicas") or 0,
        status.get("replicas") or 0,
        status.get("readyReplicas") or 0,
        age(obj, now),
        *containers(spec.get("template")),
        labels(told) if obj.get("kind") == "ReplicationController" else selector(told),
    ]


def deployment(obj: Object, now: float) -> list[Cell]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    told = selector(spec.get("selector"))
    return [
        name(obj),
        f"{status.get('readyReplicas') or 0}/{spec.get('replicas') or 0}",
        status.get("updatedReplicas") or 0,
        status.get("availableReplicas") or 0,
        age(obj, now),
        *containers(spec.get("template")),
        "" if told == NONE else told,
    ]


def stateful_set(obj: Object, now: float) -> list[Cell]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    ready = f"{status.get('readyReplicas') or 0}/{spec.get('replicas') or 0}"
    return [name(obj), ready, age(obj, now), *containers(spec.get("template"))]


def daemon_set(obj: Object, now: float) -> list[Cell]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    template = spec.get("template") or {}
    counts = (
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    )
    return [
        name(obj),
        *(status.get(key) or 0 for key in counts),
        labels((template.get("spec") or {}).get("nodeSelector")),
        age(obj, now),
        *containers(template),
        selector(spec.get("selector")),
    ]


def job(obj: Object, now: float) -> list[Cell]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    return [
        name(obj),
        _job_word(obj),
        _completions(spec, status.get("succeeded") or 0),
        _job_duration(status, now),
        age(obj, now),
        *containers(spec.get("template")),
        selector(spec.get("selector")),
    ]


def _job_word(obj: Object) -> str:
    status = obj.get("status") or {}
    for kind in ("Complete", "Failed"):
        if _has_true(status, kind):
            return kind
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for kind in ("Suspended", "FailureTarget"):
        if _has_true(status, kind):
            return kind
    return "Running"


def _completions(spec: Object, succeeded: int) -> str:
    if spec.get("completions") is not None:
        return f"{succeeded}/{spec['completions']}"
    parallelism = spec.get("parallelism") or 0
    return f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"


def _job_duration(status: Object, now: float) -> str:
    start, end = status.get("startTime"), status.get("completionTime")
    if not start:
        return ""
    return human_duration((parse_rfc3339(end) if end else now) - parse_rfc3339(start))


def cron_job(obj: Object, now: float) -> list[Cell]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    job_spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    suspend = spec.get("suspend")
    last = status.get("lastScheduleTime")
    return [
        name(obj),
        spec.get("schedule", ""),
        spec.get("timeZone", NONE),
        UNSET if suspend is None else str(bool(suspend)),
        len(status.get("active") or ()),
        since(last, now) if last else NONE,
        age(obj, now),
        *containers(job_spec.get("template")),
        selector(job_spec.get("selector")),
    ]


def controller_revision(obj: Object, now: float) -> list[Cell]:
    owner = meta.controller_of(obj)
    told = NONE
    if owner is not None:
        group, _ = split_api_version(owner.get("apiVersion", ""))
        kind = f"{owner.get('kind', '')}.{group}" if group else owner.get("kind", "")
        told = f"{kind.lower()}/{owner.get('name', '')}"
    return [name(obj), told, obj.get("revision") or 0, age(obj, now)]


# ---------------------------------------------------------------- scaling and disruption


def scale(obj: Object, now: float) -> list[Cell]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    return [name(obj), spec.get("replicas") or 0, status.get("replicas") or 0, age(obj, now)]


def disruption_budget(obj: Object, now: float) -> list[Cell]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    limits = (str(spec[key]) if spec.get(key) is not None else "N/A" for key in ("minAvailable", "maxUnavailable"))
    return [name(obj), *limits, status.get("disruptionsAllowed") or 0, age(obj, now)]


def autoscaler(obj: Object, now: float) -> list[Cell]:
    """An autoscaling/v2 HorizontalPodAutoscaler, the stored form."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    target = spec.get("scaleTargetRef") or {}
    currents = status.get("currentMetrics") or []
    metrics = spec.get("metrics") or []
    told = [_metric(each, currents[at] if at < len(currents) else {}) for at, each in enumerate(metrics)]
    return [
        name(obj),
        f"{target.get('kind', '')}/{target.get('name', '')}",
        shortened(told, 2, ", ") or NONE,
        str(spec["minReplicas"]) if spec.get("minReplicas") is not None else UNSET,
        spec.get("maxReplicas") or 0,
        status.get("currentReplicas") or 0,
        age(obj, now),
    ]


_METRIC_FIELDS = {
    "External": "external",
    "Pods": "pods",
    "Object": "object",
    "Resource": "resource",
    "ContainerResource": "containerResource",
}


def _metric(spec: Object, status: Object) -> str:
    """`current/target` of one metric, with the resource's name where it is about one."""
    kind = spec.get("type", "")
    key = _METRIC_FIELDS.get(kind)
    if key is None:
        return "<unknown type>"
    told = spec.get(key) or {}
    target = told.get("target") or {}
    current = (status[key].get("current") or {}) if status.get(key) else None
    if kind in ("Resource", "ContainerResource"):
        return f"{told.get('name', '')}: {_resource_metric(target, current)}"
    if kind == "Pods":
        return f"{_amount(current, 'averageValue')}/{target.get('averageValue', '<nil>')}"
    if target.get("averageValue") is not None:
        now_at = _amount(current if current and current.get("averageValue") is not None else None, "averageValue")
        return f"{now_at}/{target['averageValue']} (avg)"
    return f"{_amount(current, 'value')}/{target.get('value', '<nil>')}"


def _resource_metric(target: Object, current: Object | None) -> str:
    if target.get("averageValue") is not None:
        return f"{_amount(current, 'averageValue')}/{target['averageValue']}"
    at = current.get("averageUtilization") if current else None
    aim = target.get("averageUtilization")
    return f"{UNKNOWN if at is None else f'{at}%'}/{'<auto>' if aim is None else f'{aim}%'}"


def _amount(current: Object | None, key: str) -> str:
    return UNKNOWN if current is None else str(current.get(key, "<nil>"))


PRINTERS: dict[str, Printer] = {
    "ControllerRevision": controller_revision,
    "CronJob": cron_job,
    "DaemonSet": daemon_set,
    "Deployment": deployment,
    "HorizontalPodAutoscaler": autoscaler,
    "Job": job,
    "Pod": pod,
    "PodDisruptionBudget": disruption_budget,
    "PodTemplate": pod_template,
    "ReplicaSet": replica_set,
    "ReplicationController": replica_set,
    "Scale": scale,
    "StatefulSet": stateful_set,
}
