"""The scheduling queue: who is next, who waits for what, and that nothing is lost on the way."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from schedobjects import ZONE, node, pod, spread

from fastkube.clock import ManualClock
from fastkube.scheduler.events import ASSIGNED_POD, NODE, WILDCARD, Action, ClusterEvent, pod_actions
from fastkube.scheduler.offline import OfflineScheduler
from fastkube.scheduler.pods import PodInfo
from fastkube.scheduler.queue import QueuedPod, SchedulingQueue, self_event

Object = dict[str, Any]


class Bench:
    """A queue with a clock that is moved by hand."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock(1_000_000.0)
        self.scheduler = OfflineScheduler([node("n")])
        self.moves: list[tuple[str, str]] = []
        self.queue = SchedulingQueue(
            self.scheduler.profiles,
            self.clock,
            moved=lambda event, queue: self.moves.append((event, queue)),
            **options,
        )

    def parse(self, obj: Object) -> PodInfo:
        return self.scheduler.cache.parse(obj)

    def add(self, name: str, **more: Any) -> PodInfo:
        made = self.parse(pod(name, **more))
        self.queue.add(made)
        return made

    def wait(self, seconds: float) -> None:
        asyncio.run(self.clock.advance(seconds))

    def pop(self) -> QueuedPod:
        found = self.queue.pop_nowait()
        assert found is not None
        return found

    def names(self) -> list[str]:
        """All that can be popped now, in order."""
        found = []
        while (queued := self.queue.pop_nowait()) is not None:
            found.append(queued.pod.name)
            self.queue.done(queued.pod.uid)
        return found

    def refuse(self, *plugins: str) -> QueuedPod:
        queued = self.pop()
        self.queue.add_unschedulable(queued, plugins)
        return queued

    def counts(self) -> tuple[int, ...]:
        """active, backoff, unschedulable, gated"""
        return tuple(self.queue.counts().values())


@pytest.fixture
def bench() -> Bench:
    return Bench()


def grown(cpu: str) -> ClusterEvent:
    """A node had a cpu and has more now."""
    before, after = (node("n", allocatable={"cpu": each}) for each in ("1", cpu))
    return ClusterEvent(NODE, Action.UPDATE_NODE_ALLOCATABLE, before, after)


def test_priority_first_then_who_came_first(bench: Bench) -> None:
    for name, priority in (("a", 0), ("b", 10), ("c", 0), ("d", 10)):
        bench.add(name, priority=priority)
        bench.wait(1)
    assert bench.names() == ["b", "d", "a", "c"]


def test_a_pod_is_added_once(bench: Bench) -> None:
    made = bench.add("a")
    bench.queue.add(made)
    assert bench.names() == ["a"]


def test_an_event_that_can_help_wakes_and_others_do_not(bench: Bench) -> None:
    bench.add("big", requests={"cpu": "8"})
    bench.refuse("NodeResourcesFit")
    assert bench.counts() == (0, 0, 1, 0)
    bench.queue.move_all(grown("4"))  # still too small
    bench.queue.move_all(ClusterEvent(NODE, Action.UPDATE_NODE_LABEL, node("n"), node("n", {"a": "b"})))
    assert bench.counts() == (0, 0, 1, 0)
    bench.queue.move_all(grown("8"))
    assert bench.counts() == (0, 1, 0, 0)
    assert bench.moves[-1] == ("NodeUpdate", "backoff")


def test_one_of_the_plugins_that_refused_is_enough(bench: Bench) -> None:
    bench.add("p", requests={"cpu": "8"}, nodeSelector={"disk": "ssd"})
    bench.refuse("NodeResourcesFit", "NodeAffinity")
    bench.queue.move_all(ClusterEvent(NODE, Action.UPDATE_NODE_LABEL, node("n"), node("n", {"disk": "ssd"})))
    assert bench.counts() == (0, 1, 0, 0)


@pytest.mark.parametrize("phase", [0.0, 0.4, 0.9])
def test_back_off_doubles_up_to_its_limit(bench: Bench, phase: float) -> None:
    """It ends with the window of a second that the end falls into."""
    bench.wait(phase)
    bench.add("p", requests={"cpu": "8"})
    for delay in (1, 2, 4, 8, 10, 10):
        bench.refuse("NodeResourcesFit")
        end = bench.clock.monotonic() // 1 + delay + 1
        bench.queue.move_all(grown("8"))
        bench.wait(end - bench.clock.monotonic() - 0.125)
        bench.queue.flush()
        assert bench.counts() == (0, 1, 0, 0)
        bench.wait(0.125)
        bench.queue.flush()
        assert bench.counts() == (1, 0, 0, 0)
        bench.wait(phase)


@pytest.mark.parametrize(
    ("story", "delay"),
    [
        ("r", 1), ("rr", 2), ("rrr", 4), ("e", 1), ("ee", 2), ("eee", 4), ("rre", 1), ("rree", 2), ("eeer", 1),
        ("rreer", 4), ("rer", 2), ("eeeree", 2), ("eeeee", 10), ("n", 1), ("nnn", 4), ("rrn", 1), ("nnr", 1),
    ],
)  # fmt: skip
def test_refusals_and_errors_in_a_row_are_counted_apart(bench: Bench, story: str, delay: int) -> None:
    """r: refused, e: broke on an error, n: there were no nodes. A refusal ends the row of errors."""
    made = bench.add("p", requests={"cpu": "8"})
    for each in story:
        queued = bench.queue.take(made.uid)
        assert queued is not None
        if each == "e":
            bench.queue.add_failed(queued)
        else:
            bench.queue.add_unschedulable(queued, ("NodeResourcesFit",) if each == "r" else ())
            bench.queue.move_all(grown("8"))
    bench.wait(delay + 0.5)
    bench.queue.flush()
    assert bench.counts() == (0, 1, 0, 0)
    bench.wait(0.5)
    bench.queue.flush()
    assert bench.counts() == (1, 0, 0, 0)


def test_within_a_window_of_back_offs_the_most_important_comes_first(bench: Bench) -> None:
    for name, priority in (("a", 0), ("b", 5), ("c", 9)):
        bench.add(name, requests={"cpu": "8"}, priority=priority)
    for wait in (0.25, 0.25, 0.75):
        bench.refuse("NodeResourcesFit")  # the last one, a, a window later
        bench.wait(wait)
    bench.add("d", requests={"cpu": "8"}, priority=99)
    bench.refuse("NodeResourcesFit")
    bench.queue.move_all(grown("8"))
    assert bench.names() == ["c", "b", "a", "d"]
    assert bench.moves.count(("PopFromBackoffQ", "active")) == 4


def test_back_off_can_be_switched_off() -> None:
    bench = Bench(max_backoff_s=0)
    bench.add("p", requests={"cpu": "8"})
    bench.refuse("NodeResourcesFit")
    bench.queue.move_all(grown("8"))
    assert bench.counts() == (1, 0, 0, 0)
    bench.queue.add_failed(bench.pop())
    assert bench.counts() == (1, 0, 0, 0)


def test_what_a_plugin_that_acts_on_its_own_has_brought_about_is_not_waited_for_again(bench: Bench) -> None:
    bench.add("p", requests={"cpu": "8"})
    bench.queue.add_unschedulable(bench.pop(), ("NodeResourcesFit",), pending=True)
    bench.queue.move_all(grown("8"))
    assert bench.counts() == (1, 0, 0, 0)
    bench.refuse("NodeResourcesFit")
    bench.queue.move_all(grown("8"))
    bench.wait(2.5)
    bench.queue.flush()
    assert bench.counts() == (0, 1, 0, 0)  # the attempt before counts


def test_refused_on_the_way_to_a_node_is_tried_again_without_an_event(bench: Bench) -> None:
    made = bench.add("p")
    queued = bench.pop()
    bench.queue.done(made.uid)
    bench.wait(5)
    bench.queue.add_unschedulable(queued, ("VolumeBinding",))
    assert bench.counts() == (0, 1, 0, 0)
    bench.wait(1)
    bench.queue.flush()
    assert bench.counts() == (0, 1, 0, 0)
    bench.wait(1)
    bench.queue.flush()
    assert bench.counts() == (1, 0, 0, 0)


def test_an_error_does_not_let_a_pod_past_its_gate(bench: Bench) -> None:
    made = bench.add("p")
    queued = bench.pop()
    queued.pod = bench.parse({**made.pod, "spec": {**made.pod["spec"], "schedulingGates": [{"name": "a"}]}})
    bench.queue.add_failed(queued)
    assert bench.counts() == (0, 0, 0, 1)


def test_who_backs_off_is_better_than_nobody_but_not_after_an_error(bench: Bench) -> None:
    bench.add("refused", requests={"cpu": "8"})
    bench.refuse("NodeResourcesFit")
    bench.queue.move_all(grown("8"))
    assert bench.names() == ["refused"]
    bench.add("broken")
    bench.queue.add_failed(bench.pop())
    assert bench.names() == []
    bench.wait(2)
    bench.queue.flush()
    assert bench.names() == ["broken"]


def test_an_event_during_the_attempt_counts_as_if_it_had_come_after(bench: Bench) -> None:
    bench.add("big", requests={"cpu": "8"})
    queued = bench.pop()
    bench.queue.move_all(grown("8"))
    bench.queue.add_unschedulable(queued, ("NodeResourcesFit",))
    assert bench.counts() == (0, 1, 0, 0)
    assert bench.queue.remembered() == {}


def test_events_before_the_attempt_do_not_count(bench: Bench) -> None:
    bench.add("first")
    bench.add("big", requests={"cpu": "8"})
    first = bench.pop()
    bench.queue.move_all(grown("8"))
    second = bench.pop()
    bench.queue.add_unschedulable(second, ("NodeResourcesFit",))
    assert bench.counts() == (0, 0, 1, 0)
    bench.queue.done(first.pod.uid)


def test_nobody_waits_longer_than_five_minutes(bench: Bench) -> None:
    bench.add("p")
    bench.refuse("NodeAffinity")
    bench.wait(299)
    bench.queue.flush()
    assert bench.counts() == (0, 0, 1, 0)
    bench.wait(1)
    bench.queue.flush()
    assert bench.counts() == (1, 0, 0, 0)


def test_gates_let_nobody_through_until_the_last_is_gone(bench: Bench) -> None:
    made = bench.add("p", schedulingGates=[{"name": "a"}, {"name": "b"}])
    assert bench.counts() == (0, 0, 0, 1)
    bench.queue.move_all(ClusterEvent(WILDCARD, Action.ALL))
    assert bench.counts() == (0, 0, 0, 1)
    for gates in ([{"name": "b"}], []):
        changed = bench.parse({**made.pod, "spec": {**made.pod["spec"], "schedulingGates": gates}})
        bench.queue.update(changed, self_event(pod_actions(made, changed), made, changed))
        assert bench.counts() == ((0, 0, 0, 1) if gates else (1, 0, 0, 0))
        made = changed


@pytest.mark.parametrize("state", ["active", "in flight", "unschedulable", "backoff", "failed", "gated"])
def test_deletion_at_every_moment(bench: Bench, state: str) -> None:
    gates = {"schedulingGates": [{"name": "a"}]} if state == "gated" else {}
    made = bench.add("p", requests={"cpu": "8"}, **gates)
    if state == "in flight":
        bench.pop()
    elif state in ("unschedulable", "backoff"):
        bench.refuse("NodeResourcesFit")
    elif state == "failed":
        bench.queue.add_failed(bench.pop())
    if state == "backoff":
        bench.queue.move_all(grown("8"))
    assert bench.queue.remove(made.uid) is not None
    assert bench.queue.remove(made.uid) is None
    assert (len(bench.queue), bench.counts(), bench.names()) == (0, (0, 0, 0, 0), [])


def test_a_pod_that_asks_for_less_is_tried_again(bench: Bench) -> None:
    made = bench.add("p", requests={"cpu": "8"})
    bench.refuse("NodeResourcesFit")
    less = pod("p", requests={"cpu": "1"})
    less["metadata"] = made.pod["metadata"]
    changed = bench.parse(less)
    bench.queue.update(changed, self_event(pod_actions(made, changed), made, changed))
    assert bench.pop().pod is changed


def test_an_update_that_changes_nothing_of_note_wakes_nobody(bench: Bench) -> None:
    made = bench.add("p", requests={"cpu": "8"})
    bench.refuse("NodeResourcesFit")
    changed = bench.parse({**made.pod, "status": {"message": "x"}})
    bench.queue.update(changed, self_event(pod_actions(made, changed), made, changed))
    assert bench.counts() == (0, 0, 1, 0)


def test_a_pod_that_leaves_wakes_those_that_it_was_in_the_way_of(bench: Bench) -> None:
    bench.add("p", labels={"app": "a"}, topologySpreadConstraints=[spread(ZONE, {"app": "a"})])
    bench.refuse("PodTopologySpread")
    other = bench.parse(pod(labels={"app": "b"}, node="n"))
    bench.queue.move_all(ClusterEvent(ASSIGNED_POD, Action.DELETE, other, None))
    assert bench.counts() == (0, 0, 1, 0)
    same = bench.parse(pod(labels={"app": "a"}, node="n"))
    bench.queue.move_all(ClusterEvent(ASSIGNED_POD, Action.DELETE, same, None))
    assert bench.counts() == (0, 1, 0, 0)


def test_activation_does_not_wait(bench: Bench) -> None:
    made = bench.add("p")
    bench.refuse("NodeAffinity")
    bench.queue.activate([made.uid])
    assert bench.counts() == (1, 0, 0, 0)


def test_what_plugins_refused_is_counted(bench: Bench) -> None:
    for name in "ab":
        bench.add(name, requests={"cpu": "8"})
    bench.refuse("NodeAffinity", "NodeResourcesFit")
    bench.refuse("NodeAffinity")
    bench.add("gated", schedulingGates=[{"name": "a"}])
    assert bench.moves[-1] == ("UnscheduledPodAdd", "unschedulable")
    fit, affinity, gates = (
        (name, "default-scheduler") for name in ("NodeResourcesFit", "NodeAffinity", "SchedulingGates")
    )
    assert bench.queue.refused() == {affinity: 2, fit: 1, gates: 1}
    bench.queue.move_all(grown("8"))  # backs off, and still stands refused
    assert bench.queue.refused() == {affinity: 2, fit: 1, gates: 1}
    bench.pop()
    assert bench.queue.refused() == {affinity: 1, gates: 1}


@pytest.mark.parametrize("seed", range(30))
def test_every_pod_is_in_one_place_whatever_happens(seed: int) -> None:
    """Random operations against a list of those that were neither placed nor removed."""
    bench, draw = Bench(), random.Random(seed)
    alive: dict[str, PodInfo] = {}
    in_flight: dict[str, QueuedPod] = {}
    for step in range(300):
        match draw.randint(0, 7):
            case 0 | 1:
                gates = {"schedulingGates": [{"name": "g"}]} if draw.random() < 0.2 else {}
                made = bench.add(f"p{step}", requests={"cpu": draw.choice("28")}, priority=draw.randint(0, 2), **gates)
                alive[made.uid] = made
            case 2 | 3:
                if (queued := bench.queue.pop_nowait()) is not None:
                    in_flight[queued.pod.uid] = queued
            case 4 if in_flight:
                queued = in_flight.pop(draw.choice(list(in_flight)))
                how = draw.randint(0, 2)
                if how == 0:
                    bench.queue.done(queued.pod.uid)
                    del alive[queued.pod.uid]
                elif how == 1:
                    bench.queue.add_unschedulable(queued, draw.choice((("NodeResourcesFit",), ())))
                else:
                    bench.queue.add_failed(queued)
            case 5 if alive:
                uid = draw.choice(list(alive))
                bench.queue.remove(uid)
                in_flight.pop(uid, None)
                del alive[uid]
            case 6:
                bench.queue.move_all(grown(draw.choice("28")))
            case _:
                bench.wait(draw.choice((0.1, 1, 20, 400)))
                bench.queue.flush()
        assert sum(bench.counts()) + len(in_flight) == len(alive) == len(bench.queue)
    for queued in in_flight.values():
        bench.queue.done(queued.pod.uid)
    assert bench.queue.remembered() == {}
