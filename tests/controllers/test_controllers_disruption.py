"""PodDisruptionBudgets: how many Pods may go, for each form of budget and each kind of Pod."""

from __future__ import annotations

from typing import Any

import pytest
from kubeobjects import NOW, answer, asked, deleting, flat, obj, pod, status_of, writes

from fastkube.clock import rfc3339
from fastkube.controllers.actions import Fail, Patch, Requeue, Tell
from fastkube.controllers.disruption import Scale, TargetView, View, reconcile

Object = dict[str, Any]


def budget(status: Object | None = None, **spec: Any) -> Object:
    selector = {"matchLabels": {"app": "web"}}
    made = obj("PodDisruptionBudget", "web", "policy/v1", spec={"selector": selector, **spec})
    return {**made, "status": status} if status else made


def look(made: Object, pods: list[Object], scales: list[Scale] | None = None, **more: Any) -> View:
    fields: Object = {"unmanaged": False, "unknown": "", **more}
    return View(made, pods, scales or [], fields["unmanaged"], fields["unknown"], NOW)


def numbers(actions: Any) -> tuple[int, int, int, int]:
    """(healthy, desired, expected, allowed)"""
    status = status_of(actions)
    assert status is not None
    return tuple(status[key] for key in ("currentHealthy", "desiredHealthy", "expectedPods", "disruptionsAllowed"))  # type: ignore[return-value]


def told(actions: Any) -> list[str]:
    return [action.reason for action in flat(actions) if isinstance(action, Tell)]


@pytest.mark.parametrize(
    ("spec", "healthy", "replicas", "expected"),
    [
        ({"minAvailable": 2}, 3, None, (3, 2, 3, 1)),
        ({"minAvailable": 3}, 3, None, (3, 3, 3, 0)),
        ({"minAvailable": 5}, 3, None, (3, 5, 3, 0)),
        ({"minAvailable": "50%"}, 3, 5, (3, 3, 5, 0)),
        ({"minAvailable": "0%"}, 3, 3, (3, 0, 3, 3)),
        ({"maxUnavailable": 1}, 3, 3, (3, 2, 3, 1)),
        ({"maxUnavailable": 1}, 2, 3, (2, 2, 3, 0)),
        ({"maxUnavailable": 7}, 3, 3, (3, 0, 3, 3)),
        ({"maxUnavailable": "30%"}, 4, 4, (4, 2, 4, 2)),
        ({}, 2, None, (2, 1, 2, 1)),
    ],
)
def test_the_number_of_evictions_allowed(
    spec: Object, healthy: int, replicas: int | None, expected: tuple[int, int, int, int]
) -> None:
    scales = [] if replicas is None else [Scale("u", replicas)]
    actions = reconcile(look(budget(**spec), [pod(f"p{index}") for index in range(healthy)], scales))
    assert numbers(actions) == expected
    (condition,) = (status_of(actions) or {})["conditions"]
    state = ("SufficientPods", "True") if expected[3] else ("InsufficientPods", "False")
    assert (condition["type"], condition["reason"], condition["status"]) == ("DisruptionAllowed", *state)


def test_pods_that_go_or_are_not_ready_are_not_healthy() -> None:
    pods = [pod("a"), pod("b", ready=False), deleting(pod("c"))]
    assert numbers(reconcile(look(budget(minAvailable=1), pods))) == (1, 1, 3, 0)


def test_a_budget_without_pods_allows_nothing() -> None:
    actions = reconcile(look(budget(maxUnavailable=1), []))
    assert numbers(actions) == (0, 0, 0, 0)
    assert told(actions) == ["NoPods"]


def test_an_evicted_pod_counts_as_gone_until_its_time_is_over() -> None:
    status = {"disruptedPods": {"a": rfc3339(NOW - 20), "b": rfc3339(NOW - 200), "gone": rfc3339(NOW)}}
    made = budget(status, minAvailable=1)
    actions = reconcile(look(made, [pod("a"), pod("b"), pod("c")]))
    assert numbers(actions) == (2, 1, 3, 1)
    assert (status_of(actions) or {})["disruptedPods"] == {"a": rfc3339(NOW - 20)}
    assert told(actions) == ["NotDeleted"]
    assert [action.after_s for action in flat(actions) if isinstance(action, Requeue)] == [100.0]


def test_pods_without_a_controller_are_left_out_of_a_share_and_told() -> None:
    actions = reconcile(look(budget(maxUnavailable=1), [pod("a")], unmanaged=True))
    assert numbers(actions) == (1, 0, 0, 0)
    (event,) = [action for action in actions if isinstance(action, Tell)]
    assert event.reason == "UnmanagedPods"
    assert "&LabelSelector{MatchLabels:map[string]string{app: web,}," in event.message


def test_nothing_is_allowed_where_the_wanted_number_is_unknown() -> None:
    made = budget(
        {"currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2, "disruptionsAllowed": 1}, minAvailable="1%"
    )
    actions = reconcile(look(made, [pod("a")], unknown="a"))
    assert numbers(actions) == (2, 1, 2, 0)
    (condition,) = (status_of(actions) or {})["conditions"]
    assert (condition["reason"], condition["message"]) == ("SyncFailed", 'found no controllers for pod "a"')
    assert told(actions) == ["CalculateExpectedPodCountFailed"]
    assert isinstance(actions[-1], Fail)


def test_a_custom_controller_is_asked_for_its_scale() -> None:
    view = look(
        budget(maxUnavailable=1), [pod("a"), pod("b")], [Scale("u", None, "/apis/x/v1/namespaces/d/ys/y/scale")]
    )
    (path,) = asked(reconcile(view))
    assert numbers(reconcile(answer(view, {path: {"spec": {"replicas": 2}}}))) == (2, 1, 2, 1)


def test_a_status_that_is_right_is_not_written() -> None:
    made = budget(minAvailable=1)
    pods = [pod("a"), pod("b")]
    made["status"] = status_of(reconcile(look(made, pods)))
    assert writes(reconcile(look(made, pods))) == []


@pytest.mark.parametrize(("ago_s", "expected"), [(30, "later"), (130, "no longer")])
def test_a_pod_that_was_to_be_disrupted_and_is_still_there(ago_s: float, expected: str) -> None:
    made = pod("a")
    made["status"]["conditions"].append(
        {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": rfc3339(NOW - ago_s)}
    )
    (action,) = reconcile(TargetView(made, NOW))
    if expected == "later":
        assert isinstance(action, Requeue)
        assert action.after_s == 90
    else:
        assert isinstance(action, Patch)
        assert action.body["status"]["conditions"][0]["status"] == "False"
