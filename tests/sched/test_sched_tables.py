"""Plugins and their arguments, case by case as upstream's documentation has them."""

from __future__ import annotations

from typing import Any

import pytest
from schedobjects import HOST, ZONE, expression, node, pod, spread

from fastkube.api import resources
from fastkube.scheduler import config as configs
from fastkube.scheduler.explain import explain
from fastkube.scheduler.offline import OfflineScheduler

Object = dict[str, Any]


def container(**more: Any) -> Object:
    """`more`: requests as cpu="1"; `always=True` makes a sidecar of an init container."""
    always = {"restartPolicy": "Always"} if more.pop("always", False) else {}
    return {"name": "c", "resources": {"requests": more}, **always}


def spec(*containers: Object, init: tuple[Object, ...] = (), **more: Any) -> Object:
    return {"containers": list(containers), "initContainers": list(init), **more}


SIDECAR = container(cpu="1", always=True)
REQUESTS = [
    ("containers add up", spec(container(cpu="1"), container(cpu="500m", memory="1Ki")), {"cpu": 1500, "memory": 1024}),
    (
        "the greatest init container",
        spec(container(cpu="1"), init=(container(cpu="3"), container(cpu="2"))),
        {"cpu": 3000},
    ),
    ("a sidecar runs beside", spec(container(cpu="1"), init=(container(cpu="2", always=True),)), {"cpu": 3000}),
    (
        "an init container beside earlier sidecars only",
        spec(container(cpu="1"), init=(SIDECAR, container(cpu="5"), container(cpu="9", always=True))),
        {"cpu": 11000},
    ),
    (
        "an init container that outweighs all",
        spec(container(cpu="1"), init=(SIDECAR, container(cpu="5"))),
        {"cpu": 6000},
    ),
    ("overhead comes on top", spec(container(cpu="1"), overhead={"cpu": "250m"}), {"cpu": 1250}),
    (
        "requests of the Pod replace the sum",
        spec(container(cpu="1", memory="1Ki"), resources={"requests": {"cpu": "3"}}, overhead={"cpu": "1"}),
        {"cpu": 4000, "memory": 1024},
    ),
    (
        "but not of extended resources",
        spec(container(**{"example.com/x": "1"}), resources={"requests": {"cpu": "1"}}),
        {"cpu": 1000, "example.com/x": 1},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("told", "expected"), [each[1:] for each in REQUESTS], ids=[each[0] for each in REQUESTS])
def test_what_a_pod_requests(told: Object, expected: dict[str, int]) -> None:
    assert resources.requests_of(told, {}) == expected


def test_scores_take_defaults_for_what_is_not_requested() -> None:
    assert resources.nonzero_requests_of(spec(container(), container(cpu="1")), {}) == (1100, 2 * 200 * 2**20)
    own = {"requests": {"cpu": "2"}}
    assert resources.nonzero_requests_of(spec(container(), container(), resources=own), {}) == (2000, 2 * 200 * 2**20)


def profile(plugin: str, **args: Any) -> configs.SchedulerConfig:
    told = [{"pluginConfig": [{"name": plugin, "args": args}]}]
    return configs.parse({"apiVersion": configs.API_VERSION, "kind": configs.KIND, "profiles": told})


def score(config: configs.SchedulerConfig, plugin: str, objects: list[Object], wanted: Object) -> dict[str, int]:
    """Node → score of a plugin, its weight applied."""
    scheduler = OfflineScheduler(objects, config)
    told = explain(scheduler, scheduler.cache.parse(wanted))
    return {each.node: each.scores[plugin] for each in told.verdicts if not each.reasons}


LINE = [{"utilization": 0, "score": 0}, {"utilization": 100, "score": 10}]
STRATEGIES = [
    ({"type": "LeastAllocated"}, 50),
    ({"type": "MostAllocated"}, 50),
    ({"type": "LeastAllocated", "resources": [{"name": "cpu", "weight": 1}]}, 25),
    ({"type": "MostAllocated", "resources": [{"name": "cpu", "weight": 3}, {"name": "memory", "weight": 1}]}, 62),
    # as on the page "Resource Bin Packing": (75 * 5 + 25 * 1 + 75 * 3) / 9
    (
        {
            "type": "RequestedToCapacityRatio",
            "resources": [{"name": "example.com/foo", "weight": 5}, {"name": "memory"}, {"name": "cpu", "weight": 3}],
            "requestedToCapacityRatio": {"shape": LINE},
        },
        69,
    ),
]


@pytest.mark.parametrize(("strategy", "expected"), STRATEGIES, ids=range(len(STRATEGIES)))
def test_strategies_of_node_resources_fit(strategy: Object, expected: int) -> None:
    """cpu is 75 % in use with the Pod, memory 25 %, foo 75 %."""
    has = {"cpu": "8", "memory": "1Gi", "example.com/foo": "4"}
    running = pod(node="n", requests={"cpu": "4", "memory": "128Mi", "example.com/foo": "1"})
    wanted = pod(requests={"cpu": "2", "memory": "128Mi", "example.com/foo": "2"})
    config = profile("NodeResourcesFit", scoringStrategy=strategy)
    assert score(config, "NodeResourcesFit", [node("n", allocatable=has), running], wanted) == {"n": expected}


def decide(config: configs.SchedulerConfig, objects: list[Object], wanted: Object) -> tuple[str, str]:
    scheduler = OfflineScheduler(objects, config)
    decision = scheduler.decide(scheduler.cache.parse(wanted))
    return decision.node, decision.message


def test_added_affinity_counts_for_all_pods_of_the_profile() -> None:
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression("pool", "In", "batch")]}]}
    config = profile("NodeAffinity", addedAffinity={"requiredDuringSchedulingIgnoredDuringExecution": terms})
    nodes = [node("n1"), node("n2", {"pool": "batch"})]
    assert decide(config, nodes, pod()) == ("n2", "")
    assert decide(config, nodes, pod(nodeSelector={HOST: "n1"}))[1] == (
        "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, "
        "1 node(s) didn't match scheduler-enforced node affinity."
    )


def test_default_constraints_of_the_profile_count_for_pods_without_any() -> None:
    constraint = {"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule"}
    config = profile("PodTopologySpread", defaultingType="List", defaultConstraints=[constraint])
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s", "namespace": "default"},
        "spec": {"selector": {"app": "a"}},
    }
    nodes = [node("n1", {ZONE: "z1"}), node("n2", {ZONE: "z2"}, unschedulable=True)]
    running = pod(node="n1", labels={"app": "a"})
    told = decide(config, [*nodes, service, running], pod(labels={"app": "a"}))[1]
    assert told == (
        "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) were unschedulable."
    )
    assert decide(config, [*nodes, service, running], pod(labels={"app": "b"})) == ("n1", "")
    own = [spread(ZONE, {"app": "a"}, skew=2)]
    assert (
        decide(config, [*nodes, service, running], pod(labels={"app": "a"}, topologySpreadConstraints=own))[0] == "n1"
    )


def test_match_label_keys_count_the_pods_of_one_revision() -> None:
    nodes = [node("n1", {ZONE: "z1"}), node("n2", {ZONE: "z2"})]
    old = [pod(node="n1", labels={"app": "a", "rev": "1"}) for _ in range(3)]
    constraint = spread(ZONE, {"app": "a"}, matchLabelKeys=["rev"])
    wanted = pod(labels={"app": "a", "rev": "2"}, topologySpreadConstraints=[constraint], nodeSelector={HOST: "n1"})
    plain = {**wanted, "spec": {**wanted["spec"], "topologySpreadConstraints": [spread(ZONE, {"app": "a"})]}}
    config = configs.SchedulerConfig()
    assert decide(config, [*nodes, *old], wanted)[0] == "n1"
    # node affinity leaves one zone only, so that the skew is 0 there
    assert decide(config, [*nodes, *old], plain)[0] == "n1"
    ignoring = spread(ZONE, {"app": "a"}, nodeAffinityPolicy="Ignore")
    plain["spec"]["topologySpreadConstraints"] = [ignoring]
    assert decide(config, [*nodes, *old], plain)[0] == ""


PORTS = [
    ({"hostPort": 80}, {"hostPort": 80}, False),
    ({"hostPort": 80}, {"hostPort": 81}, True),
    ({"hostPort": 80}, {"hostPort": 80, "protocol": "UDP"}, True),
    ({"hostPort": 80, "hostIP": "10.0.0.1"}, {"hostPort": 80, "hostIP": "10.0.0.2"}, True),
    ({"hostPort": 80, "hostIP": "10.0.0.1"}, {"hostPort": 80}, False),
    ({"hostPort": 80}, {"hostPort": 80, "hostIP": "10.0.0.1"}, False),
]


@pytest.mark.parametrize(("taken", "wanted", "free"), PORTS, ids=range(len(PORTS)))
def test_host_ports(taken: Object, wanted: Object, free: bool) -> None:
    running = pod(node="n", ports=[{"containerPort": 1, **taken}])
    told = decide(configs.SchedulerConfig(), [node("n"), running], pod(ports=[{"containerPort": 1, **wanted}]))
    message = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    assert told == (("n", "") if free else ("", message))


TOLERATIONS = [
    ("k=v:NoSchedule", {"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}, True),
    ("k=v:NoSchedule", {"key": "k", "value": "v"}, True),
    ("k=v:NoSchedule", {"key": "k", "operator": "Exists"}, True),
    ("k=v:NoSchedule", {"operator": "Exists"}, True),
    ("k=v:NoSchedule", {"key": "k", "value": "w"}, False),
    ("k=v:NoSchedule", {"key": "k", "operator": "Exists", "effect": "NoExecute"}, False),
    ("k:NoExecute", {"key": "k", "operator": "Exists", "effect": "NoExecute"}, True),
    ("k:PreferNoSchedule", {"key": "other"}, True),
]


@pytest.mark.parametrize(("taint", "toleration", "fits"), TOLERATIONS, ids=range(len(TOLERATIONS)))
def test_taints_and_tolerations(taint: str, toleration: Object, fits: bool) -> None:
    told = decide(configs.SchedulerConfig(), [node("n", taints=[taint])], pod(tolerations=[toleration]))
    assert told == (("n", "") if fits else ("", "0/1 nodes are available: 1 node(s) had untolerated taint(s)."))


RESTARTS_ALL = {"containers": [{"name": "c", "restartPolicyRules": [{"action": "RestartAllContainers"}]}]}
RESTARTS_ONE = {"containers": [{"name": "c", "restartPolicyRules": [{"action": "Restart"}]}]}
OWN_USERS: Object = {"hostNetwork": True, "hostUsers": False}
FEATURES = [
    (RESTARTS_ALL, "RestartAllContainersOnContainerExits"),
    (RESTARTS_ONE, ""),
    (OWN_USERS, "UserNamespacesHostNetworkSupport"),
    ({**OWN_USERS, "hostNetwork": False}, ""),
    ({"hostNetwork": True}, ""),
]


@pytest.mark.parametrize(("asks", "feature"), FEATURES, ids=range(len(FEATURES)))
def test_declared_features(asks: Object, feature: str) -> None:
    plain, declaring = node("plain"), node("declaring")
    plain["status"]["declaredFeatures"] = ["Other"]
    told = decide(configs.SchedulerConfig(), [plain], pod(**asks))
    refused = ("", "0/1 nodes are available: 1 node(s) didn't match Pod's required features.")
    assert told == (refused if feature else ("plain", ""))
    declaring["status"]["declaredFeatures"] = ["Other", feature]
    if feature:
        assert decide(configs.SchedulerConfig(), [plain, declaring], pod(**asks)) == ("declaring", "")


def test_a_node_that_begins_to_declare_a_feature_takes_pods_that_need_it() -> None:
    scheduler = OfflineScheduler([node("n")])
    wanted = scheduler.cache.parse(pod(**OWN_USERS))
    assert not scheduler.decide(wanted).node
    now = node("n")
    now["status"]["declaredFeatures"] = ["UserNamespacesHostNetworkSupport"]
    assert scheduler.cache.set_node(now).features
    assert scheduler.decide(wanted).node == "n"


RESIZES = [
    # (spec, what it has, what it was promised, why the resize waits): cpus that the Pod counts for
    ("never resized", "1", None, None, "", 1),
    ("as it asks for", "2", "2", "2", "", 2),
    ("more is asked for than is given", "3", "1", "1", "Deferred", 3),
    ("more is asked for than there is", "3", "1", "1", "Infeasible", 1),
    ("less is asked for than it has still", "1", "3", "1", "", 3),
    ("less is asked for than it was promised", "1", "1", "2", "", 2),
]


@pytest.mark.parametrize("sidecar", [False, True])
@pytest.mark.parametrize(("asked", "actual", "promised", "waits", "cpus"), [case[1:] for case in RESIZES],
                         ids=[case[0] for case in RESIZES])  # fmt: skip
def test_a_pod_that_is_resized_counts_for_the_most_that_it_may_have(
    asked: str, actual: str | None, promised: str | None, waits: str, cpus: int, sidecar: bool
) -> None:
    """Told by its status, at first or with a later change."""
    state: Object = {"name": "c", "state": {"running": {}}}
    if actual:
        state |= {"resources": {"requests": {"cpu": actual}}, "allocatedResources": {"cpu": promised}}
    conditions = [{"type": "PodResizePending", "status": "True", "reason": waits}] if waits else []
    running = pod("running", node="n", requests={"cpu": asked})
    running["metadata"]["generation"] = 2
    states = {"containerStatuses": [state]}
    if sidecar:
        running["spec"] |= spec(container() | {"name": "main"}, init=(container(cpu=asked, always=True),))
        states = {"containerStatuses": [{"name": "main"}], "initContainerStatuses": [state]}
    told = {**running, "status": {**states, "conditions": conditions}}
    scheduler = OfflineScheduler([node("n", allocatable={"cpu": "4"}), told])
    later = OfflineScheduler([node("n", allocatable={"cpu": "4"}), running])
    later.cache.set_pod(later.cache.parse(told, later.cache.pods[running["metadata"]["uid"]]))
    for each in (scheduler, later):
        assert each.decide(each.cache.parse(pod(requests={"cpu": str(4 - cpus)}))).node == "n"
        assert not each.decide(each.cache.parse(pod(requests={"cpu": f"{4 - cpus}001m"}))).node
