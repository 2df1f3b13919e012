"""Scripted Pods in time: what a kubelet would report, second by second."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from fastkube.clock import rfc3339
from fastkube.nodes.script import Outcome, Script
from fastkube.nodes.script_words import ScriptError, is_scripted

Object = dict[str, Any]
BEGAN = 1_700_000_000.0


class Run:
    """A Pod whose script is followed from wake-up to wake-up; times are seconds since its begin."""

    def __init__(self, annotations: dict[str, str], **spec: Any) -> None:
        told = {f"fastkube.io/{name}": text for name, text in annotations.items()}
        metadata = {"name": "web", "namespace": "n", "uid": "u1", "annotations": told}
        self.pod: Object = {"metadata": metadata, "spec": {"containers": [{"name": "a", "image": "a:1"}], **spec}}
        self.script = Script(self.pod, BEGAN)
        self.now = 0.0
        self.events: list[str] = []
        self.outcome = self._sync()

    def _sync(self) -> Outcome:
        outcome = self.script.sync(self.pod, BEGAN + self.now, "10.0.0.2", "172.16.0.1")
        self.pod["status"] = outcome.status
        self.events += [f"{self.now:g} {each.reason}: {each.message}" for each in outcome.events]
        return outcome

    def to(self, seconds: float) -> Run:
        while self.now + self.outcome.again_s <= seconds:
            assert self.outcome.again_s > 0
            self.now += self.outcome.again_s
            self.outcome = self._sync()
        self.now = seconds
        self.outcome = self._sync()
        return self

    def container(self, name: str = "a") -> Object:
        status = self.pod["status"]
        both = [*status.get("initContainerStatuses", ()), *status["containerStatuses"]]
        found: Object = next(each for each in both if each["name"] == name)
        return found

    def state(self, name: str = "a") -> str:
        """As kubectl's STATUS column would say it, with restarts and readiness."""
        found = self.container(name)
        (kind, about), *_ = found["state"].items()
        word = kind if kind == "running" else about["reason"]
        ready = " ready" if found["ready"] else ""
        return f"{word} {found['restartCount']}{ready}"

    @property
    def phase(self) -> str:
        return str(self.pod["status"]["phase"])

    def condition(self, kind: str) -> Object:
        found: Object = next(each for each in self.pod["status"]["conditions"] if each["type"] == kind)
        return found


def test_an_image_is_pulled_then_the_container_is_created_and_started() -> None:
    run = Run({"pull": "5s"})
    assert (run.phase, run.state()) == ("Pending", "ContainerCreating 0")
    assert run.condition("Ready")["message"] == "containers with unready status: [a]"
    run.to(5)
    assert (run.phase, run.state()) == ("Running", "running 0 ready")
    assert run.events == [
        '0 Pulling: Pulling image "a:1"',
        '5 Pulled: Successfully pulled image "a:1" in 5s (5s including waiting). Image size: 10485760 bytes.',
        "5 Created: Container created",
        "5 Started: Container started",
    ]
    assert run.outcome.again_s == math.inf
    assert run.condition("Ready")["lastTransitionTime"] == rfc3339(BEGAN + 5)
    assert run.condition("PodScheduled")["lastTransitionTime"] == rfc3339(BEGAN)


def test_restarts_back_off_ten_seconds_doubled_to_five_minutes() -> None:
    run = Run({"exit": "1 after 2s"})
    starts = []
    for _ in range(2500):
        run.to(run.now + 0.5)
        starts.append(run.container()["restartCount"])
    began = [starts.index(count) * 0.5 + 0.5 for count in range(1, max(starts) + 1)]
    pauses = [later - earlier - 2 for earlier, later in itertools.pairwise(began)]
    assert began[0] == 2.0
    assert pauses[:7] == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]


def test_a_container_in_back_off_says_so() -> None:
    run = Run({"exit": "3 after 2s"}).to(5)
    assert (run.phase, run.state()) == ("Running", "CrashLoopBackOff 1")
    waiting = run.container()["state"]["waiting"]
    assert waiting["message"] == "back-off 10s restarting failed container=a pod=web_n(u1)"
    assert run.container()["lastState"]["terminated"]["exitCode"] == 3
    assert "4 BackOff: Back-off restarting failed container a in pod web_n(u1)" in run.events
    run.to(14)
    assert run.state() == "running 2 ready"
    assert '14 Pulled: Container image "a:1" already present on machine' in run.events


def test_ten_minutes_of_running_forgive_the_past() -> None:
    run = Run({"exit": "1 after 11m"}).to(661)
    assert run.state() == "running 1 ready"
    run.to(1321)
    assert run.state() == "running 2 ready"


def test_a_container_that_exits_a_number_of_times_runs_on() -> None:
    run = Run({"exit": "1 after 1s times 2"}).to(600)
    assert (run.phase, run.state()) == ("Running", "running 2 ready")


@pytest.mark.parametrize(
    ("policy", "code", "phase", "state"),
    [
        ("Never", 0, "Succeeded", "Completed 0"),
        ("Never", 2, "Failed", "Error 0"),
        ("OnFailure", 0, "Succeeded", "Completed 0"),
        ("OnFailure", 2, "Running", "CrashLoopBackOff 1"),
        ("Always", 0, "Running", "CrashLoopBackOff 1"),
    ],
)
def test_restart_policy(policy: str, code: int, phase: str, state: str) -> None:
    run = Run({"exit": f"{code} after 1s"}, restartPolicy=policy).to(5)
    assert (run.phase, run.state()) == (phase, state)
    if phase in ("Succeeded", "Failed"):
        assert run.condition("Ready")["reason"] == ("PodCompleted" if phase == "Succeeded" else "PodFailed")
        assert run.outcome.again_s == math.inf


def test_images_that_cannot_be_pulled() -> None:
    run = Run({"pull": "fail"})
    assert (run.phase, run.state()) == ("Pending", "ImagePullBackOff 0")
    assert run.container()["state"]["waiting"]["message"].startswith('Back-off pulling image "a:1": ErrImagePull: ')
    assert [each.split(": ")[0] for each in run.events] == [
        "0 Pulling", "0 Failed", "0 Failed", "0 BackOff", "0 Failed"
    ]  # fmt: skip
    assert run.events[2] == "0 Failed: Error: ErrImagePull"
    run.to(29)
    assert sum("Pulling:" in each for each in run.events) == 2
    run = Run({"pull": "fail 2"}).to(29.9)
    assert run.state() == "ImagePullBackOff 0"
    assert run.to(30).state() == "running 0 ready"


INIT = [{"name": "first", "image": "i:1"}, {"name": "side", "image": "s:1", "restartPolicy": "Always"}]


def test_init_containers_run_one_after_the_other_and_sidecars_stay() -> None:
    script = {"exit.first": "0 after 2s", "startup.side": "pass after 3s", "exit.a": "0 after 1s"}
    run = Run(script, initContainers=INIT, restartPolicy="Never")
    assert [run.state(name) for name in ("first", "side", "a")] == [
        "running 0", "PodInitializing 0", "PodInitializing 0"
    ]  # fmt: skip
    assert run.condition("Initialized")["reason"] == "ContainersNotInitialized"
    assert run.condition("Initialized")["message"] == "containers with incomplete status: [first side]"
    run.to(2)
    assert [run.state(name) for name in ("first", "side", "a")] == [
        "Completed 0 ready", "running 0", "PodInitializing 0"
    ]  # fmt: skip
    run.to(5)
    assert [run.state(name) for name in ("side", "a")] == ["running 0 ready", "running 0 ready"]
    assert (run.phase, run.condition("Initialized")["status"]) == ("Running", "True")
    run.to(6)
    assert (run.phase, run.state("side")) == ("Succeeded", "Completed 0")


def test_an_init_container_that_fails() -> None:
    run = Run({"exit.first": "1"}, initContainers=INIT[:1], restartPolicy="Never").to(1)
    assert (run.phase, run.state("first"), run.state("a")) == ("Failed", "Error 0", "PodInitializing 0")
    run = Run({"exit.first": "1 times 1"}, initContainers=INIT[:1]).to(1)
    assert (run.phase, run.state("first"), run.state("a")) == ("Running", "Completed 1 ready", "running 0 ready")


def test_readiness_comes_and_goes() -> None:
    run = Run({"readiness": "pass after 5s"})
    assert run.state() == "running 0"
    assert run.condition("Ready")["reason"] == "ContainersNotReady"
    assert run.to(5).state() == "running 0 ready"
    run = Run({"readiness": "fail after 5s"})
    assert run.condition("Ready")["status"] == "True"
    run.to(5)
    assert (run.state(), run.condition("Ready")["status"]) == ("running 0", "False")
    assert "5 Unhealthy: Readiness probe failed: as scripted" in run.events
    assert Run({"readiness": "fail"}).to(1000).state() == "running 0"


def test_liveness_and_startup_probes_that_fail_restart() -> None:
    run = Run({"liveness": "fail after 30s"}).to(30)
    assert run.state() == "running 1 ready"
    assert run.container()["lastState"]["terminated"]["exitCode"] == 137
    assert "30 Killing: Container a failed liveness probe, will be restarted" in run.events
    probe = {"failureThreshold": 2, "periodSeconds": 5}
    run = Run({"startup": "fail"}, containers=[{"name": "a", "image": "a:1", "startupProbe": probe}])
    assert (run.state(), run.container()["started"]) == ("running 0", False)
    run.to(10)
    assert "10 Killing: Container a failed startup probe, will be restarted" in run.events
    run = Run({"startup": "pass after 4s"})
    assert (run.container()["started"], run.to(4).container()["started"]) == (False, True)


@pytest.mark.parametrize(
    ("stop_after", "hook_s", "ends_s", "code"), [("4s", 0, 4, 0), ("4s", 3, 7, 0), ("1h", 0, 10, 137), ("0s", 0, 0, 0)]
)
def test_a_deleted_pod_ends_in_its_time_or_is_killed(stop_after: str, hook_s: int, ends_s: int, code: int) -> None:
    container = {"name": "a", "image": "a:1", "lifecycle": {"preStop": {"sleep": {"seconds": hook_s}}}}
    run = Run({"stop-after": stop_after}, containers=[container]).to(100)
    run.pod["metadata"] |= {"deletionTimestamp": rfc3339(BEGAN + 110), "deletionGracePeriodSeconds": 10}
    if ends_s:
        run.to(100 + ends_s - 0.5)
        assert (run.state(), run.outcome.over) == ("running 0 ready", False)
    run.to(100 + ends_s)
    assert run.outcome.over
    assert run.container()["state"]["terminated"]["exitCode"] == code
    assert (
        run.events.count("100 Killing: Stopping container a") + run.events.count("100.5 Killing: Stopping container a")
        <= 1
    )


def test_after_a_restart_of_the_fleet_a_pod_goes_on_from_its_status() -> None:
    run = Run({"exit": "1 after 60s"}).to(65)
    assert run.state() == "running 1 ready"
    run.script = Script(run.pod, BEGAN + 100)
    run.to(100)
    assert run.state() == "running 1 ready"
    assert run.to(121).state() == "CrashLoopBackOff 1"


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ({"exit": "soon"}, "'soon' is not CODE"),
        ({"exit": "1 after never"}, "'never' is not a duration"),
        ({"readiness": "maybe"}, "'maybe' is not pass or fail"),
        ({"pull": "slowly"}, "'slowly' is not a duration"),
    ],
)
def test_what_is_no_script_is_told(annotations: dict[str, str], words: str) -> None:
    with pytest.raises(ScriptError, match=words):
        Run(annotations)


@pytest.mark.parametrize(
    ("name", "scripted"),
    [
        ("fastkube.io/exit", True),
        ("fastkube.io/readiness.web", True),
        ("fastkube.io/stop-after", True),
        ("fastkube.io/run-for", False),
        ("fastkube.io/logs", False),
        ("example.com/exit", False),
    ],
)
def test_which_pods_are_scripted(name: str, scripted: bool) -> None:
    assert is_scripted({"metadata": {"annotations": {name: "x"}}}) is scripted
    assert not is_scripted({"metadata": {}})
