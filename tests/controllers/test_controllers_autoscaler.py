"""HorizontalPodAutoscalers: what each metric asks for, what limits it, and what is told."""

from __future__ import annotations

from typing import Any

import pytest
from kubeobjects import NOW, asked, deleting, flat, obj, pod, status_of, writes

from fastkube.client.discovery import ApiResource, Discovery
from fastkube.client.resource import Resource
from fastkube.clock import rfc3339
from fastkube.controllers.actions import Discover, Remember, Requeue, Tell, Update
from fastkube.controllers.autoscaling_behavior import Change, Limits, Memory, Recommendation, limit, remember, stabilize
from fastkube.controllers.autoscaling_metrics import Sample, Unknown
from fastkube.controllers.autoscaling_replicas import Timing, Tolerances, by_average, by_share, by_utilization, by_value
from fastkube.controllers.horizontal_pod_autoscaler import Past, View, reconcile
from fastkube.controllers.options import ControllerManagerOptions
from fastkube.errors import ApiError

Object = dict[str, Any]

TIMING = Timing(NOW, 300.0, 30.0)
TOLERANCES = Tolerances(0.1, 0.1)


def worker(name: str, cpu: str = "1", *, started_s: float = 1000, **more: Any) -> Object:
    made = pod(name, **more)
    made["spec"]["containers"] = [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]
    made["status"]["startTime"] = rfc3339(NOW - started_s)
    return made


def used(*milli: int) -> dict[str, Sample]:
    return {f"p{index}": Sample(value, NOW - 10, 30.0) for index, value in enumerate(milli) if value >= 0}


def workers(count: int, **more: Any) -> list[Object]:
    return [worker(f"p{index}", **more) for index in range(count)]


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("usage", "target", "expected"),
    [
        ((300, 500, 700), 30, 5),
        ((300, 500, 700), 50, 3),
        ((300, 500, 700), 53, 3),
        ((100, 100, 100), 50, 1),
        ((500, 500, 500), 45, 4),
        ((500, 500, 500), 46, 3),
        ((2000, 2000, 2000), 100, 6),
    ],
)
def test_utilization_is_brought_to_its_target(usage: tuple[int, ...], target: int, expected: int) -> None:
    proposal = by_utilization(3, workers(3), used(*usage), target, "cpu", "", TOLERANCES, TIMING)
    assert proposal.replicas == expected
    assert proposal.utilization == sum(usage) // 30


@pytest.mark.parametrize(
    ("pods", "usage", "expected"),
    [
        # one that is not measured uses nothing on the way up, all it may on the way down
        (workers(4), (1000, 1000, 1000, -1), 6),
        (workers(4), (100, 100, 100, -1), 3),
        (workers(3), (600, 600, -1), 3),
        # one that is not ready uses nothing on the way up
        ([*workers(2), worker("p2", phase="Pending")], (1000, 1000, -1), 4),
        ([*workers(2), worker("p2", ready=False, started_s=10)], (1000, 1000, 9000), 4),
        # and is left out on the way down
        ([*workers(2), worker("p2", phase="Pending")], (100, 100, -1), 1),
        # those that go do not count at all
        ([*workers(2), deleting(worker("p2"))], (1000, 1000, 9000), 4),
        ([*workers(2), worker("p2", phase="Failed")], (1000, 1000, 9000), 4),
    ],
)
def test_pods_of_which_little_is_known(pods: list[Object], usage: tuple[int, ...], expected: int) -> None:
    assert by_utilization(len(pods), pods, used(*usage), 50, "cpu", "", TOLERANCES, TIMING).replicas == expected


@pytest.mark.parametrize(
    ("started_s", "ready", "ready_s", "counts"),
    [
        (1000, True, 500, True),
        (100, True, 50, True),
        (100, True, 20, False),  # measured, in part, before it was ready
        (100, False, 50, False),
        (1000, False, 500, True),  # was ready once
        (1000, False, 980, False),  # has never been
    ],
)
def test_the_cpu_of_a_starting_pod_does_not_count(started_s: float, ready: bool, ready_s: float, counts: bool) -> None:
    pods = [worker("p0"), worker("p1", started_s=started_s, ready=ready, ready_s=ready_s)]
    proposal = by_average(2, pods, used(100, 9900), 100, "cpu", TOLERANCES, TIMING)
    assert (proposal.average == 5000) is counts


def test_averages_values_and_shares() -> None:
    assert by_average(2, workers(2), used(2000, 4000), 1000, "", TOLERANCES, TIMING).replicas == 6
    assert by_value(2, workers(2), 3000, 1000, TOLERANCES).replicas == 6
    assert by_value(2, workers(2), 1050, 1000, TOLERANCES).replicas == 2
    assert by_value(0, [], 2500, 1000, TOLERANCES).replicas == 3
    assert by_share(2, 3000, 1000, TOLERANCES) == (3, 1500, 0)
    assert by_share(3, 3100, 1000, TOLERANCES).replicas == 3


bare = worker("p0")
bare["spec"]["containers"] = []


@pytest.mark.parametrize(
    ("pods", "usage", "why"),
    [
        ([], (), "no pods returned by selector while calculating replica count"),
        (workers(1), (), "did not receive metrics for targeted pods (pods might be unready)"),
        ([bare], (100,), "no metrics returned matched known pods"),
    ],
)
def test_what_cannot_be_computed_is_told(pods: list[Object], usage: tuple[int, ...], why: str) -> None:
    with pytest.raises(Unknown) as caught:
        by_utilization(1, pods, used(*usage), 50, "cpu", "", TOLERANCES, TIMING)
    assert str(caught.value) == why


# ---------------------------------------------------------------- rates

UP = {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": []}


def policy(kind: str, value: int, period_s: int = 60) -> Object:
    return {"type": kind, "value": value, "periodSeconds": period_s}


def behavior(up: Object | None = None, down: Object | None = None) -> Object:
    plain = {"selectPolicy": "Max", "policies": [policy("Percent", 100)]}
    return {"scaleUp": {**plain, **(up or {})}, "scaleDown": {**plain, **(down or {})}}


def limits(current: int, least: int = 1, most: int = 100) -> Limits:
    return Limits(current, least, most, NOW, 300.0)


@pytest.mark.parametrize(
    ("current", "desired", "rules", "expected"),
    [
        (1, 9, None, (4, "ScaleUpLimit")),
        (5, 50, None, (10, "ScaleUpLimit")),
        (60, 110, None, (100, "TooManyReplicas")),
        (5, 0, None, (1, "TooFewReplicas")),
        (5, 7, None, (7, "DesiredWithinRange")),
        (5, 50, behavior(), (10, "ScaleUpLimit")),
        (5, 50, behavior({"policies": [policy("Pods", 8), policy("Percent", 100)]}), (13, "ScaleUpLimit")),
        (
            5,
            50,
            behavior({"policies": [policy("Pods", 8), policy("Percent", 10)], "selectPolicy": "Min"}),
            (6, "ScaleUpLimit"),
        ),
        (5, 50, behavior({"selectPolicy": "Disabled"}), (5, "ScaleUpLimit")),
        (9, 1, behavior(None, {"policies": [policy("Pods", 2)]}), (7, "ScaleDownLimit")),
        (9, 1, behavior(None, {"policies": [policy("Percent", 10)]}), (8, "ScaleDownLimit")),
        (9, 1, behavior(None, {"selectPolicy": "Disabled"}), (9, "ScaleDownLimit")),
        (9, 0, behavior(), (1, "TooFewReplicas")),
    ],
)
def test_rates_and_limits(current: int, desired: int, rules: Object | None, expected: tuple[int, str]) -> None:
    told = limit(desired, rules, Memory(), limits(current))
    assert (told.replicas, told.reason) == expected


def test_what_was_done_within_the_period_counts() -> None:
    rules = behavior({"policies": [policy("Pods", 4)]})
    past = Memory(ups=(Change(NOW - 100, 50), Change(NOW - 30, 3)))
    assert limit(50, rules, past, limits(10)).replicas == 11


@pytest.mark.parametrize(
    ("desired", "recommended", "rules", "expected"),
    [
        (2, [(8, 100)], None, (8, "ScaleDownStabilized")),
        (2, [(8, 400)], None, (2, "ReadyForNewScale")),
        (2, [(8, 100)], behavior(None, {"stabilizationWindowSeconds": 60}), (2, "ReadyForNewScale")),
        (2, [(8, 50)], behavior(None, {"stabilizationWindowSeconds": 60}), (5, "ScaleDownStabilized")),
        (9, [(6, 50)], behavior({"stabilizationWindowSeconds": 60}), (6, "ScaleUpStabilized")),
        (9, [(6, 50)], behavior(), (9, "ReadyForNewScale")),
    ],
)
def test_recommendations_are_stabilized(
    desired: int, recommended: list[tuple[int, float]], rules: Object | None, expected: tuple[int, str]
) -> None:
    past = Memory(tuple(Recommendation(NOW - ago_s, replicas) for replicas, ago_s in recommended))
    told = stabilize(desired, rules, past, limits(5))
    assert (told.replicas, told.reason) == expected


def test_what_is_too_old_is_forgotten() -> None:
    past = Memory((Recommendation(NOW - 400, 9), Recommendation(NOW - 10, 8)), (Change(NOW - 70, 1),), ())
    kept = remember(past, 7, 5, 6, behavior(), limits(5))
    assert [each.replicas for each in kept.recommendations] == [8, 7]
    assert kept.ups == (Change(NOW, 1),)


# ---------------------------------------------------------------- whole attempts

DEPLOYMENTS = ApiResource(Resource("apps", "v1", "deployments"), "Deployment", True, frozenset(), True)
SCALE_PATH = "/apis/apps/v1/namespaces/default/deployments/web/scale"
CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}


def autoscaler(*metrics: Object, status: Object | None = None, **spec: Any) -> Object:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    whole = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 10, "metrics": list(metrics or [CPU]), **spec}
    made = obj("HorizontalPodAutoscaler", "web", "autoscaling/v2", spec=whole)
    return {**made, "status": status} if status else made


def scale(replicas: int, selector: str = "app=web") -> Object:
    metadata = {"name": "web", "namespace": "default", "resourceVersion": "1"}
    status = {"replicas": replicas, "selector": selector}
    return {"kind": "Scale", "metadata": metadata, "spec": {"replicas": replicas}, "status": status}


class World:
    """Answers the questions of an attempt: the scale, and metrics by a part of their paths."""

    def __init__(self, current: Any, pods: list[Object], **answers: Any) -> None:
        self.current, self.pods, self.answers = current, pods, answers
        self.paths: list[str] = []

    def attempt(self, made: Object, past: Past = Past(), others: Object | None = None) -> list[Any]:  # noqa: B008
        options = ControllerManagerOptions()
        view = View(made, self.pods, past, others or {}, Discovery([DEPLOYMENTS], {}), options, NOW)
        actions = reconcile(view)
        while asked(actions):
            self.paths += asked(actions)
            view = view._replace(live={**view.live, **{path: self._answer(path) for path in asked(actions)}})
            actions = reconcile(view)
        done = []
        for action in actions:
            done.append(action)
            if isinstance(action, Update) and action.then is not None:
                done += action.then(action.obj)
        return flat(done)

    def _answer(self, path: str) -> Any:
        if path == SCALE_PATH:
            return self.current
        for part, answer in self.answers.items():
            if part in path:
                return answer
        return ApiError(404, "NotFound", "404 page not found")


def pod_metrics(*cpu: str) -> Object:
    items = [
        {
            "metadata": {"name": f"p{index}", "namespace": "default"},
            "timestamp": rfc3339(NOW),
            "window": "30s",
            "containers": [{"name": "c", "usage": {"cpu": amount}}],
        }
        for index, amount in enumerate(cpu)
    ]
    return {"items": items}


def conditions(actions: Any) -> dict[str, tuple[str, str]]:
    status = status_of(actions)
    assert status is not None
    return {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]}


def told(actions: Any) -> list[tuple[str, str]]:
    return [(action.reason, action.message) for action in actions if isinstance(action, Tell)]


def scaled_to(actions: Any) -> int | None:
    for action in writes(actions, Update):
        if action.subresource == "scale":
            return int(action.obj["spec"]["replicas"])
    return None


def test_an_attempt_scales_and_tells() -> None:
    world = World(scale(2), workers(2), **{"metrics.k8s.io": pod_metrics("900m", "900m")})
    actions = world.attempt(autoscaler())
    assert "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods?labelSelector=app%3Dweb" in world.paths
    assert scaled_to(actions) == 4
    reason = "cpu resource utilization (percentage of request) above target"
    assert told(actions) == [("SuccessfulRescale", f"New size: 4; reason: {reason}")]
    assert conditions(actions) == {
        "AbleToScale": ("True", "SucceededRescale"),
        "ScalingActive": ("True", "ValidMetricFound"),
        "ScalingLimited": ("False", "DesiredWithinRange"),
    }
    status = status_of(actions)
    assert status is not None
    assert (status["currentReplicas"], status["desiredReplicas"]) == (2, 4)
    current = {"averageUtilization": 90, "averageValue": "900m"}
    assert status["currentMetrics"] == [{"type": "Resource", "resource": {"name": "cpu", "current": current}}]
    assert [action.after_s for action in actions if isinstance(action, Requeue)] != []


def test_a_scale_down_waits_for_what_was_recommended_lately() -> None:
    world = World(scale(4), workers(4), **{"metrics.k8s.io": pod_metrics("100m", "100m", "100m", "100m")})
    first = world.attempt(autoscaler())
    assert scaled_to(first) is None
    assert conditions(first)["AbleToScale"] == ("True", "ScaleDownStabilized")
    (memory,) = {action.value for action in first if isinstance(action, Remember)}
    old = Past(Memory(tuple(each._replace(at=NOW - 301) for each in memory.memory.recommendations)))
    assert scaled_to(world.attempt(autoscaler(), old)) == 1


@pytest.mark.parametrize(
    ("replicas", "low", "high", "expected", "reason"),
    [
        (12, 1, 10, 10, "Current number of replicas above Spec.MaxReplicas"),
        (1, 3, 10, 3, "Current number of replicas below Spec.MinReplicas"),
    ],
)
def test_limits_come_before_metrics(replicas: int, low: int, high: int, expected: int, reason: str) -> None:
    actions = World(scale(replicas), []).attempt(autoscaler(minReplicas=low, maxReplicas=high))
    assert scaled_to(actions) == expected
    assert told(actions) == [("SuccessfulRescale", f"New size: {expected}; reason: {reason}")]


def test_a_target_of_no_replicas_is_left_alone() -> None:
    actions = World(scale(0), []).attempt(autoscaler())
    assert scaled_to(actions) is None
    assert conditions(actions)["ScalingActive"] == ("False", "ScalingDisabled")


def test_without_a_metrics_server_the_reason_is_told() -> None:
    actions = World(scale(2), workers(2)).attempt(autoscaler())
    why = (
        "failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource "
        "metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)"
    )
    invalid = f"invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: {why}"
    assert told(actions) == [("FailedGetResourceMetric", why), ("FailedComputeMetricsReplicas", invalid)]
    status = status_of(actions)
    assert status is not None
    assert conditions(actions)["ScalingActive"] == ("False", "FailedGetResourceMetric")
    assert status["conditions"][1]["message"] == f"the HPA was unable to compute the replica count: {why}"


EXTERNAL = {
    "type": "External",
    "external": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "10"}},
}


def test_the_largest_of_several_metrics_counts_and_a_failing_one_only_stops_a_scale_down() -> None:
    answers = {"external.metrics": {"items": [{"value": "30"}, {"value": "20"}]}}
    world = World(scale(2), workers(2), **answers)
    actions = world.attempt(autoscaler(CPU, EXTERNAL))
    assert scaled_to(actions) == 4  # five wanted, four allowed
    assert conditions(actions)["ScalingLimited"] == ("True", "ScaleUpLimit")
    few = World(scale(2), workers(2), **{"external.metrics": {"items": [{"value": "1"}]}})
    actions = few.attempt(autoscaler(CPU, EXTERNAL))
    assert scaled_to(actions) is None
    assert conditions(actions)["ScalingActive"] == ("False", "FailedGetResourceMetric")


PODS = {
    "type": "Pods",
    "pods": {"metric": {"name": "requests"}, "target": {"type": "AverageValue", "averageValue": "500m"}},
}
OBJECT = {
    "type": "Object",
    "object": {
        "describedObject": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "front"},
        "metric": {"name": "hits"},
        "target": {"type": "Value", "value": "10"},
    },
}


def test_custom_metrics_of_pods_and_objects() -> None:
    items = [{"describedObject": {"name": f"p{index}"}, "value": "1"} for index in range(2)]
    world = World(scale(2), workers(2), **{"v1beta2/namespaces/default/pods": {"items": items}})
    actions = world.attempt(autoscaler(PODS))
    assert scaled_to(actions) == 4
    status = status_of(actions)
    assert status is not None
    assert status["currentMetrics"][0]["pods"]["current"] == {"averageValue": "1"}
    path = "v1beta1/namespaces/default/deployments.apps/front/hits"  # an adapter that serves the older version only
    assert (
        scaled_to(World(scale(2), workers(2), **{path: {"items": [{"value": "15"}]}}).attempt(autoscaler(OBJECT))) == 3
    )


def test_a_container_is_looked_at_on_its_own() -> None:
    source = {"name": "cpu", "container": "c", "target": {"type": "Utilization", "averageUtilization": 50}}
    spec = {"type": "ContainerResource", "containerResource": source}
    world = World(scale(2), workers(2), **{"metrics.k8s.io": pod_metrics("1", "1")})
    assert scaled_to(world.attempt(autoscaler(spec))) == 4
    source = {**source, "container": "other"}
    actions = world.attempt(autoscaler({"type": "ContainerResource", "containerResource": source}))
    assert conditions(actions)["ScalingActive"] == ("False", "FailedGetContainerResourceMetric")


def test_a_tolerance_of_its_own() -> None:
    world = World(scale(2), workers(2), **{"metrics.k8s.io": pod_metrics("600m", "600m")})
    assert scaled_to(world.attempt(autoscaler())) == 3
    rules = behavior({"tolerance": "500m"})
    assert scaled_to(world.attempt(autoscaler(behavior=rules))) is None


@pytest.mark.parametrize(
    ("current", "condition", "reason"),
    [
        (ApiError(404, "NotFound", 'deployments.apps "web" not found'), "AbleToScale", "FailedGetScale"),
        (scale(2, ""), "ScalingActive", "InvalidSelector"),
        (scale(2, "a b c"), "ScalingActive", "InvalidSelector"),
    ],
)
def test_targets_that_cannot_be_scaled(current: Any, condition: str, reason: str) -> None:
    actions = World(current, workers(2)).attempt(autoscaler())
    assert conditions(actions)[condition] == ("False", reason)


def test_two_autoscalers_of_the_same_pods_do_nothing() -> None:
    actions = World(scale(2), workers(2)).attempt(autoscaler(), others={"rival": "app"})
    assert conditions(actions)["ScalingActive"] == ("False", "AmbiguousSelector")
    (first, _) = told(actions)
    assert first[1] == "pods by selector app=web are controlled by multiple HPAs: [{rival default} {web default}]"


def test_a_kind_that_is_not_known_is_looked_up_anew() -> None:
    made = autoscaler()
    made["spec"]["scaleTargetRef"] = {"apiVersion": "x.io/v1", "kind": "Thing", "name": "web"}
    view = View(made, [], Past(), {}, Discovery([], {}), ControllerManagerOptions(), NOW)
    assert isinstance(reconcile(view)[0], Discover)
    actions = reconcile(view._replace(live={Discover.KEY: Discovery([], {})}))
    assert conditions(actions)["AbleToScale"] == ("False", "FailedGetScale")
