"""Scripted Pods: containers are pulled, start in order, pass or fail probes, exit and are restarted as a kubelet does.

What happens to them is said by annotations (script_words.py). `Script.sync` is called again and again: it moves what is
due, and says what the Pod's status and events are by now and when to look again. What it remembers between calls is
this process' own; after a restart it goes on from the status.
Source: the container states, back-off and event texts of a 1.36 kubelet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fastkube.clock import go_duration, parse_rfc3339, rfc3339
from fastkube.nodes.script_words import FOREVER, exit_of, fails_after, probe_of, pull_of, stop_after_s
from fastkube.nodes.status import condition, container_id, image_id, resources_given

Object = dict[str, Any]

BACKOFF_S, BACKOFF_MAX_S, BACKOFF_RESET_S = 10.0, 300.0, 600.0


class Event(NamedTuple):
    """`container` is its kind of list and its name: `containers`, `a`."""

    type: str
    reason: str
    message: str
    container: tuple[str, str]

    @property
    def field(self) -> str:
        kind, name = self.container
        return f"spec.{kind}{{{name}}}"


class Outcome(NamedTuple):
    """`status` as it is by now; look again after `again_s` (infinity: when the Pod changes); `over`: it can go."""

    status: Object
    events: list[Event]
    again_s: float
    over: bool = False


# ---------------------------------------------------------------- one container


@dataclass(slots=True)
class _Container:
    """`state` is waiting, pulling, unpulled, running, crashed or ended; `since` when it became so."""

    kind: str
    spec: Object
    init: bool
    state: str = "waiting"
    since: float = 0.0
    pull_failures: int = 0
    pulled: bool = False
    restarts: int = 0
    step: int = 0
    """How many times in a row the back-off has been doubled."""
    started_at: float = 0.0
    ended_at: float = 0.0
    code: int = 0
    reason: str = ""
    last: Object = field(default_factory=dict)
    unhealthy: bool = False

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def sidecar(self) -> bool:
        return self.init and self.spec.get("restartPolicy") == "Always"


class Script:
    """The run of one Pod's containers. `ip` and `host_ip` go into its status."""

    def __init__(self, pod: Object, now: float) -> None:
        spec = pod["spec"]
        self._began = self._now = now
        self._uid: str = pod["metadata"]["uid"]
        self._containers = [
            _Container(kind, each, kind == "initContainers", since=now)
            for kind in ("initContainers", "containers")
            for each in spec.get(kind) or ()
        ]
        self._events: list[Event] = []
        self._stopping = False
        self._resume(pod, now)

    def _resume(self, pod: Object, now: float) -> None:
        """Take up where the status says that it was."""
        status = pod.get("status") or {}
        if start := status.get("startTime"):
            self._began = parse_rfc3339(start)
        present = {
            each["name"]: each
            for kind in ("initContainerStatuses", "containerStatuses")
            for each in status.get(kind) or ()
        }
        for container in self._containers:
            found = present.get(container.name)
            state = (found or {}).get("state") or {}
            if found is None or "waiting" in state or not state:
                continue
            container.restarts, container.last = found.get("restartCount", 0), found.get("lastState") or {}
            container.step, container.pulled = container.restarts, True
            about = state.get("running") or state["terminated"]
            container.started_at = container.since = parse_rfc3339(about["startedAt"])
            container.state = "running"
            if "terminated" in state:
                container.ended_at = container.since = parse_rfc3339(about["finishedAt"])
                container.code, container.reason, container.state = about["exitCode"], about.get("reason", ""), "ended"

    # -- time goes on ------------------------------------------------------------------------------------------------

    def sync(self, pod: Object, now: float, ip: str, host_ip: str) -> Outcome:
        """Raises ScriptError."""
        self._events, self._now = [], now
        if pod["metadata"].get("deletionTimestamp"):
            again_s = self._stop(pod, now)
            over = all(each.state not in ("running", "pulling") for each in self._containers)
        else:
            again_s, over = self._go_on(pod, now), False
        return Outcome(self._status(pod, now, ip, host_ip), self._events, again_s, over)

    def _go_on(self, pod: Object, now: float) -> float:
        """Move every container that may move, init containers one after the other, until nothing is due."""
        while True:
            again_s, moved = FOREVER, False
            for container in self._runnable(pod):
                before = (container.state, container.restarts, container.pulled)
                due = self._move(pod, container, now)
                moved |= before != (container.state, container.restarts, container.pulled)
                again_s = min(again_s, due - now)
            if self._finished(pod):
                self._end_sidecars(now)
                return FOREVER
            if not moved:
                return again_s

    def _runnable(self, pod: Object) -> list[_Container]:
        """The containers whose turn has come: all before the first init container that is not through, and that."""
        found: list[_Container] = []
        for container in self._containers:
            if not container.init and not all(self._through(pod, each) for each in self._containers if each.init):
                break
            found.append(container)
            if container.init and not self._through(pod, container):
                break
        return found

    def _through(self, pod: Object, container: _Container) -> bool:
        """Whether an init container lets the next one begin."""
        if container.sidecar:
            return container.state == "running" and self._is_started(pod, container)
        return container.state == "ended" and container.code == 0

    def _is_started(self, pod: Object, container: _Container) -> bool:
        """Whether the startup probe has passed; without a script for it there is none."""
        probe = probe_of(pod, "startup", container.name)
        if probe.first and probe.after_s == FOREVER:
            return True
        return not probe.first and self._now - container.started_at >= probe.after_s

    def _move(self, pod: Object, container: _Container, now: float) -> float:
        """One step, if it is due; returns when the next one is."""
        if container.state == "waiting":
            return self._start_or_pull(pod, container, now)
        if container.state == "pulling":
            due = container.since + pull_of(pod, container.name).seconds
            if due > now:
                return due
            return self._pulled(pod, container, now)
        if container.state == "unpulled":
            due = container.since + _backoff_s(container.pull_failures)
            if due > now:
                return due
            container.state, container.since = "waiting", now
            return now
        if container.state == "running":
            return self._run(pod, container, now)
        if container.state == "crashed":
            due = container.ended_at + _backoff_s(container.step)
            if due > now:
                return due
            self._restart(container, now)
            return now
        return FOREVER

    def _start_or_pull(self, pod: Object, container: _Container, now: float) -> float:
        if container.pulled:
            self._start(container, now)
            return now
        image = container.spec["image"]
        self._tell(container, "Normal", "Pulling", f'Pulling image "{image}"')
        pull = pull_of(pod, container.name)
        if container.pull_failures < pull.failures:
            container.pull_failures += 1
            container.state, container.since = "unpulled", now
            self._tell(container, "Warning", "Failed", f'Failed to pull image "{image}": {_pull_error(image)}')
            self._tell(container, "Warning", "Failed", "Error: ErrImagePull")
            self._tell(container, "Normal", "BackOff", f'Back-off pulling image "{image}"')
            self._tell(container, "Warning", "Failed", "Error: ImagePullBackOff")
            return now + _backoff_s(container.pull_failures)
        container.state, container.since = "pulling", now
        return now + pull.seconds

    def _pulled(self, pod: Object, container: _Container, now: float) -> float:
        image, took = container.spec["image"], go_duration(now - container.since)
        told = f'Successfully pulled image "{image}" in {took} ({took} including waiting). Image size: 10485760 bytes.'
        self._tell(container, "Normal", "Pulled", told)
        container.pulled = True
        self._start(container, now)
        return now

    def _start(self, container: _Container, now: float) -> None:
        self._tell(container, "Normal", "Created", "Container created")
        self._tell(container, "Normal", "Started", "Container started")
        container.state, container.since, container.started_at, container.unhealthy = "running", now, now, False

    def _run(self, pod: Object, container: _Container, now: float) -> float:
        """Watch a running container: it exits, or a probe fails."""
        age_s = now - container.started_at
        exit_ = exit_of(pod, container.name, container.init and not container.sidecar, container.restarts)
        kills = {part: fails_after(pod, part, container.spec) for part in ("startup", "liveness")}
        readiness = probe_of(pod, "readiness", container.name)
        if age_s >= exit_.after_s:
            self._exit(pod, container, now, exit_.code)
            return now
        for part, kill_s in kills.items():
            if age_s >= kill_s:
                self._tell(container, "Warning", "Unhealthy", f"{part.capitalize()} probe failed: as scripted")
                told = f"Container {container.name} failed {part} probe, will be restarted"
                self._tell(container, "Normal", "Killing", told)
                self._exit(pod, container, now, 137)
                return now
        if not readiness.holds(age_s) and not container.unhealthy:
            self._tell(container, "Warning", "Unhealthy", "Readiness probe failed: as scripted")
        container.unhealthy = not readiness.holds(age_s)
        turns = (exit_.after_s, *kills.values(), probe_of(pod, "startup", container.name).after_s, readiness.after_s)
        return container.started_at + min((turn for turn in turns if turn > age_s), default=FOREVER)

    def _exit(self, pod: Object, container: _Container, now: float, code: int) -> None:
        container.ended_at, container.code, container.since = now, code, now
        container.reason = "Completed" if code == 0 else "Error"
        if now - container.started_at >= BACKOFF_RESET_S:
            container.step = 0
        if not self._restarts(pod, container):
            container.state = "ended"
            return
        container.state = "crashed"
        if container.step:
            self._tell(container, "Warning", "BackOff", f"Back-off restarting failed container {container.name} in pod "
                       f"{_full_name(pod)}")  # fmt: skip

    def _restarts(self, pod: Object, container: _Container) -> bool:
        policy = pod["spec"].get("restartPolicy", "Always")
        if container.sidecar:
            return True
        if container.init:
            return container.code != 0 and policy != "Never"
        return policy == "Always" or (policy == "OnFailure" and container.code != 0)

    def _restart(self, container: _Container, now: float) -> None:
        container.last = {"terminated": self._terminated(container)}
        container.restarts += 1
        container.step += 1
        container.state, container.since = "waiting", now
        self._tell(
            container, "Normal", "Pulled", f'Container image "{container.spec["image"]}" already present on machine'
        )
        self._start(container, now)

    def _finished(self, pod: Object) -> bool:
        """No container will run any more."""
        if any(each.init and not each.sidecar and each.state == "ended" and each.code for each in self._containers):
            return True
        return all(each.state == "ended" for each in self._containers if not each.init)

    def _end_sidecars(self, now: float) -> None:
        for container in self._containers:
            if container.state in ("running", "crashed") and container.sidecar:
                container.state, container.code, container.reason, container.ended_at = "ended", 0, "Completed", now

    # -- the end -----------------------------------------------------------------------------------------------------

    def _stop(self, pod: Object, now: float) -> float:
        """Containers end by themselves after their time, or are killed when grace is over."""
        metadata = pod["metadata"]
        over_at = parse_rfc3339(metadata["deletionTimestamp"])
        asked_at = over_at - (metadata.get("deletionGracePeriodSeconds") or 0)
        wanted_s = stop_after_s(pod)
        ends = []
        for container in self._containers:
            if container.state != "running":
                continue
            if not self._stopping:
                self._tell(container, "Normal", "Killing", f"Stopping container {container.name}")
            hook = ((container.spec.get("lifecycle") or {}).get("preStop") or {}).get("sleep") or {}
            ends_at = asked_at + hook.get("seconds", 0) + wanted_s
            if now >= min(ends_at, over_at):
                container.state, container.ended_at = "ended", now
                container.code, container.reason = (0, "Completed") if ends_at <= over_at else (137, "Error")
            else:
                ends.append(min(ends_at, over_at) - now)
        self._stopping = True
        return min(ends, default=FOREVER)

    # -- what is told ------------------------------------------------------------------------------------------------

    def _tell(self, container: _Container, kind: str, reason: str, message: str) -> None:
        self._events.append(Event(kind, reason, message, (container.kind, container.name)))

    def _terminated(self, container: _Container) -> Object:
        return {
            "exitCode": container.code,
            "reason": container.reason,
            "startedAt": rfc3339(container.started_at),
            "finishedAt": rfc3339(container.ended_at),
            "containerID": container_id(self._uid, container.name, container.restarts),
        }

    def _state(self, pod: Object, container: _Container) -> Object:
        image = container.spec["image"]
        if container.state == "running":
            return {"running": {"startedAt": rfc3339(container.started_at)}}
        if container.state == "ended":
            return {"terminated": self._terminated(container)}
        if container.state == "unpulled":
            told = f'Back-off pulling image "{image}": ErrImagePull: {_pull_error(image)}'
            return {"waiting": {"reason": "ImagePullBackOff", "message": told}}
        if container.state == "crashed":
            told = f"back-off {go_duration(_backoff_s(container.step))} restarting failed container={container.name} "
            return {"waiting": {"reason": "CrashLoopBackOff", "message": f"{told}pod={_full_name(pod)}"}}
        initializing = any(each.init for each in self._containers)
        return {"waiting": {"reason": "PodInitializing" if initializing else "ContainerCreating"}}

    def _container_status(self, pod: Object, container: _Container, now: float) -> Object:
        running = container.state == "running"
        started = running and self._is_started(pod, container)
        age_s = now - container.started_at
        ready = started and probe_of(pod, "readiness", container.name).holds(age_s)
        if container.init and not container.sidecar:
            ready = container.state == "ended" and container.code == 0
        known = container.pulled
        last = container.last
        if container.state == "crashed":
            last = {"terminated": self._terminated(container)}
        ran = container.started_at > 0
        return {
            "name": container.name,
            "image": container.spec["image"],
            "imageID": image_id(container.spec["image"]) if known else "",
            **({"containerID": container_id(self._uid, container.name, container.restarts)} if ran else {}),
            "restartCount": container.restarts,
            "ready": ready,
            "started": started,
            "lastState": last,
            "state": self._state(pod, container),
            **resources_given(pod, container.spec),
        }

    def _status(self, pod: Object, now: float, ip: str, host_ip: str) -> Object:
        spec = pod["spec"]
        told: dict[str, list[Object]] = {"initContainers": [], "containers": []}
        for container in self._containers:
            told[container.kind].append(self._container_status(pod, container, now))
        mains = [each for each in self._containers if not each.init]
        initialized = all(self._through(pod, each) or (each.state == "ended" and each.code == 0)
                          for each in self._containers if each.init)  # fmt: skip
        phase = self._phase(mains)
        status: Object = {
            "observedGeneration": pod["metadata"].get("generation", 1),
            "phase": phase,
            "conditions": self._conditions(pod, told, initialized, phase),
            "hostIP": host_ip,
            "hostIPs": [{"ip": host_ip}],
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "startTime": rfc3339(self._began),
            "containerStatuses": told["containers"],
        }
        if spec.get("initContainers"):
            status["initContainerStatuses"] = told["initContainers"]
        return status

    def _phase(self, mains: list[_Container]) -> str:
        if any(each.init and not each.sidecar and each.state == "ended" and each.code for each in self._containers):
            return "Failed"
        if all(each.state == "ended" for each in mains):
            return "Failed" if any(each.code for each in mains) else "Succeeded"
        if any(each.state in ("running", "crashed", "ended") for each in mains):
            return "Running"
        return "Pending"

    def _conditions(self, pod: Object, told: dict[str, list[Object]], initialized: bool, phase: str) -> list[Object]:
        """Those that have not changed keep the time of their last transition."""
        over = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase, "")
        unready = [each["name"] for each in told["containers"] if not each["ready"]]
        incomplete = [each["name"] for each in told.get("initContainers", ()) if not each["ready"]]
        now, generation = rfc3339(self._now), pod["metadata"].get("generation", 1)
        present = {each["type"]: each for each in (pod.get("status") or {}).get("conditions") or ()}
        gates = [each["conditionType"] for each in pod["spec"].get("readinessGates") or ()]
        gated = [gate for gate in gates if (present.get(gate) or {}).get("status") != "True"]
        unready_message = f"containers with unready status: [{' '.join(unready)}]"
        told_unready = (over, "") if over else ("ContainersNotReady", unready_message)
        waiting = ("ContainersNotInitialized", f"containers with incomplete status: [{' '.join(incomplete)}]")
        ready = not unready and not over
        facts = (
            ("PodReadyToStartContainers", not over, ("", "")),
            ("Initialized", initialized, ("", "") if initialized else waiting),
            ("Ready", ready and not gated, ("ReadinessGatesNotReady", "") if ready and gated else told_unready),
            ("ContainersReady", ready, told_unready),
            ("PodScheduled", True, ("", "")),
        )
        made = []
        for kind, holds, (reason, message) in facts:
            found = condition(kind, "True" if holds else "False", now, "" if holds else reason)
            if message and not holds:
                found["message"] = message
            old = present.get(kind)
            if old is not None and old["status"] == found["status"]:
                found["lastTransitionTime"] = old["lastTransitionTime"]
            found["observedGeneration"] = generation
            made.append(found)
        return made


def _backoff_s(step: int) -> float:
    """The first restart is at once, the next ones after 10 s, 20 s, 40 s and so on."""
    return 0.0 if step == 0 else min(BACKOFF_S * 2.0 ** (step - 1), BACKOFF_MAX_S)


def _full_name(pod: Object) -> str:
    metadata = pod["metadata"]
    return f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"


def _pull_error(image: str) -> str:
    return f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": {image}: not found'
