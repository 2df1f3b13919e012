"""KubeSchedulerConfiguration: what is refused, in upstream's words, and what a profile comes to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastkube.scheduler import config as configs
from fastkube.scheduler.config_fields import ConfigError
from fastkube.scheduler.offline import OfflineScheduler
from fastkube.scheduler.options import SchedulerOptions, election_options
from fastkube.scheduler.profile import known_plugins, resolve

Object = dict[str, Any]


def parse(**fields: Any) -> configs.SchedulerConfig:
    return configs.parse({"apiVersion": configs.API_VERSION, "kind": configs.KIND, **fields})


def with_args(plugin: str, **args: Any) -> Object:
    return {"profiles": [{"pluginConfig": [{"name": plugin, "args": args}]}]}


ARGS = "profiles[0].pluginConfig[0].args"
REFUSED = [
    ({"parallelism": 0}, "parallelism: Invalid value: 0: should be an integer value greater than zero"),
    ({"percentageOfNodesToScore": 101}, "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]"),
    ({"podInitialBackoffSeconds": 0}, "podInitialBackoffSeconds: Invalid value: 0: must be greater than 0"),
    (
        {"podInitialBackoffSeconds": 20},
        "podMaxBackoffSeconds: Invalid value: 10: must be greater than or equal to PodInitialBackoffSeconds",
    ),
    (
        {"leaderElection": {"resourceLock": "configmaps"}},
        'leaderElection.resourceLock: Invalid value: "configmaps": resourceLock value must be "leases"',
    ),
    (
        {"leaderElection": {"leaseDuration": "5s", "renewDeadline": "1m10s"}},
        'leaderElection.leaseDuration: Invalid value: "1m10s": LeaseDuration must be greater than RenewDeadline',
    ),
    (
        with_args("DynamicResources", filterTimeout="-1s"),
        f'{ARGS}.filterTimeout: Invalid value: "-1s": must be zero or positive',
    ),
    (
        with_args("DynamicResources", bindingTimeout="1ms"),
        f'{ARGS}.bindingTimeout: Invalid value: "1ms": must be at least 1 second',
    ),
    (
        {"clientConnection": {"contentType": "text/plain"}},
        'clientConnection.contentType: Unsupported value: "text/plain": supported values: "application/json", '
        '"application/vnd.kubernetes.protobuf", "application/msgpack"',
    ),
    ({"clientConnection": {"burst": -1}}, "clientConnection.burst: Invalid value: -1: must be non-negative"),
    (
        {"profiles": [{"schedulerName": "a"}, {"schedulerName": "a"}]},
        'profiles[1].schedulerName: Duplicate value: "profiles[0].schedulerName"',
    ),
    (
        {"profiles": [{"plugins": {"filter": {"enabled": [{"name": "EBSLimits"}]}}}]},
        'profiles[0].plugins.filter.enabled[0]: Invalid value: "EBSLimits": was invalid in version '
        '"kubescheduler.config.k8s.io/v1" (KubeSchedulerConfiguration is version "kubescheduler.config.k8s.io/v1")',
    ),
    (
        {"profiles": [{"pluginConfig": [{"name": "NodeAffinity"}, {"name": "NodeAffinity"}]}]},
        'profiles[0].pluginConfig[1]: Duplicate value: "NodeAffinity"',
    ),
    (
        {
            "profiles": [
                {"schedulerName": "a"},
                {"schedulerName": "b", "plugins": {"queueSort": {"enabled": [{"name": "PrioritySort"}]}}},
            ]
        },
        'profiles[1].plugins.queueSort: Invalid value: {"Enabled":[{"Name":"PrioritySort","Weight":0}],'
        '"Disabled":null}: must be the same for all profiles',
    ),
    (
        {
            "profiles": [
                {"schedulerName": "a", "plugins": {"queueSort": {"disabled": [{"name": "*"}]}}},
                {"schedulerName": "b"},
            ]
        },
        'profiles[1].plugins.queueSort: Invalid value: {"Enabled":null,"Disabled":null}: '
        "must be the same for all profiles",
    ),
    (
        {"profiles": [{"plugins": {"queueSort": {"enabled": [{"name": "PrioritySort"}, {"name": "PrioritySort"}]}}}]},
        "profiles[0].plugins.queueSort.Enabled: Invalid value: 2: only one queue sort plugin can be enabled",
    ),
    (
        {"profiles": [{"schedulerName": "a"}, {}]},
        "profiles[1].schedulerName: Required value",
    ),
    (
        {"profiles": [{"schedulerName": "a"}, {"schedulerName": "a"}, {"schedulerName": "a"}]},
        '[profiles[1].schedulerName: Duplicate value: "profiles[0].schedulerName", '
        'profiles[2].schedulerName: Duplicate value: "profiles[1].schedulerName"]',
    ),
    (
        {"leaderElection": {"leaseDuration": "10s"}},
        'leaderElection.leaseDuration: Invalid value: "10s": LeaseDuration must be greater than RenewDeadline',
    ),
    (
        {"leaderElection": {"retryPeriod": "-90s"}},
        'leaderElection.retryPeriod: Invalid value: "-1m30s": must be greater than zero',
    ),
    (
        with_args("DynamicResources", bindingTimeout="0.5s"),
        f'{ARGS}.bindingTimeout: Invalid value: "500ms": must be at least 1 second',
    ),
    (
        {"extenders": [{"urlPrefix": "http://x", "prioritizeVerb": "p"}]},
        "extenders[0].weight: Invalid value: 0: must have a positive weight applied to it",
    ),
    (
        {"extenders": [{"bindVerb": "b"}, {"bindVerb": "b"}]},
        'extenders: Invalid value: "found 2 extenders implementing bind": only one extender can implement bind',
    ),
    (
        {"extenders": [{"managedResources": [{"name": "example.com/a"}, {"name": "example.com/a"}]}]},
        'extenders[0].managedResources[1].name: Invalid value: "example.com/a": '
        "duplicate extender managed resource name",
    ),
    (
        {"extenders": [{"managedResources": [{"name": "cpu"}]}]},
        'extenders[0].managedResources[0].name: Invalid value: "cpu": is an invalid extended resource name',
    ),
    (
        with_args("DefaultPreemption", minCandidateNodesPercentage=0, minCandidateNodesAbsolute=0),
        f"[{ARGS}.minCandidateNodesPercentage: Invalid value: 0: cannot be zero at the same time as "
        f"minCandidateNodesAbsolute, {ARGS}.minCandidateNodesAbsolute: Invalid value: 0: cannot be zero at the same "
        "time as minCandidateNodesPercentage]",
    ),
    (
        with_args("InterPodAffinity", hardPodAffinityWeight=101),
        f"{ARGS}.hardPodAffinityWeight: Invalid value: 101: not in valid range [0, 100]",
    ),
    (
        with_args("NodeResourcesBalancedAllocation", resources=[{"name": "cpu", "weight": 2}, {"name": "cpu"}]),
        f'[{ARGS}.resources[0].weight: Invalid value: 2: must be 1, {ARGS}.resources[1].name: Duplicate value: "cpu"]',
    ),
    (
        with_args("PodTopologySpread", defaultConstraints=[{"maxSkew": 1, "topologyKey": "z"}]),
        f'[{ARGS}.defaultingType: Invalid value: "System": when .defaultConstraints are not empty, '
        f"{ARGS}.defaultConstraints[0].whenUnsatisfiable: Required value: can not be empty]",
    ),
    (
        with_args(
            "PodTopologySpread",
            defaultingType="List",
            defaultConstraints=[
                {"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway"},
                {"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}},
            ],
        ),
        f"[{ARGS}.defaultConstraints[1].maxSkew: Invalid value: 0: not in valid range (0, inf), "
        f"{ARGS}.defaultConstraints[1].labelSelector: Forbidden: constraint must not define a selector, as they "
        f'deduced for each pod, {ARGS}.defaultConstraints[1]: Duplicate value: "{{z, ScheduleAnyway}}"]',
    ),
    (
        with_args("VolumeBinding", bindTimeoutSeconds=-1),
        f"{ARGS}.bindTimeoutSeconds: Invalid value: -1: invalid BindTimeoutSeconds, should not be a negative value",
    ),
    ({"parallel": 1}, 'strict decoding error: unknown field "parallel"'),
    (
        {"profiles": [{"plugins": {"filters": {}}}]},
        'strict decoding error: unknown field "profiles[0].plugins.filters"',
    ),
    (
        with_args("NodeResourcesFit", scoringStrategy={"kind": "x"}),
        "strict decoding error: decoding .profiles[0].pluginConfig[0]: strict decoding error: decoding args for plugin "
        'NodeResourcesFit: strict decoding error: unknown field "scoringStrategy.kind"',
    ),
    (
        {"parallelism": "16"},
        "json: cannot unmarshal string into Go struct field KubeSchedulerConfiguration.parallelism of type int32",
    ),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_refused_and_how(fields: Object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(**fields)
    assert str(caught.value) == message


FIT = [
    (
        {"scoringStrategy": {"type": "Best"}},
        'scoringStrategy.type: Unsupported value: "Best": supported values: "LeastAllocated", "MostAllocated", '
        '"RequestedToCapacityRatio"',
    ),
    (
        {"scoringStrategy": {"resources": [{"name": "cpu", "weight": 101}, {"name": "memory", "weight": 0}]}},
        '[scoringStrategy.type: Unsupported value: "": supported values: "LeastAllocated", "MostAllocated", '
        '"RequestedToCapacityRatio", scoringStrategy.resources[0].weight: Invalid value: 101: resource weight of cpu '
        "not in valid range (0, 100]]",
    ),
    (
        {
            "scoringStrategy": {
                "type": "RequestedToCapacityRatio",
                "requestedToCapacityRatio": {
                    "shape": [{"utilization": 50, "score": 11}, {"utilization": 50, "score": 0}]
                },
            }
        },
        "[scoringStrategy.requestedToCapacityRatio.shape[1].utilization: Invalid value: 50: values must be sorted in "
        "increasing order, scoringStrategy.requestedToCapacityRatio.shape[0].score: Invalid value: 11: not in valid "
        "range [0, 10]]",
    ),
    (
        {"scoringStrategy": {"type": "RequestedToCapacityRatio"}},
        "scoringStrategy.requestedToCapacityRatio: Required value: must be specified when type is "
        "RequestedToCapacityRatio",
    ),
    (
        {"scoringStrategy": {"type": "RequestedToCapacityRatio", "requestedToCapacityRatio": {}}},
        "scoringStrategy.requestedToCapacityRatio.shape: Required value: at least one point must be specified",
    ),
    (
        {"scoringStrategy": {"type": "MostAllocated", "requestedToCapacityRatio": {}}},
        "scoringStrategy.requestedToCapacityRatio: Forbidden: must be nil when type is not RequestedToCapacityRatio",
    ),
    (
        {"ignoredResourceGroups": ["a.b/c"]},
        "ignoredResourceGroups[0]: Invalid value: \"a.b/c\": resource group name can't contain '/'",
    ),
]


@pytest.mark.parametrize(("args", "message"), FIT, ids=range(len(FIT)))
def test_arguments_of_the_fit_are_checked_when_the_plugin_is_made(args: Object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        OfflineScheduler((), parse(**with_args("NodeResourcesFit", **args)))
    assert str(caught.value) == f'initializing plugin "NodeResourcesFit": {message}'


def test_a_duration_or_weight_of_nothing_is_the_default() -> None:
    told = parse(
        leaderElection={"leaseDuration": "0s", "renewDeadline": "0", "retryPeriod": "0s"},
        **with_args("NodeResourcesBalancedAllocation", resources=[{"name": "cpu", "weight": 0}]),
    )
    assert told.leader_election == configs.LeaderElectionConfig()
    assert told.profiles[0].scheduler_name == "default-scheduler"


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("apiVersion: v1\nkind: Pod\n")
    with pytest.raises(ConfigError, match='no kind "Pod" is registered for version "v1"'):
        configs.load(path)


UNUSABLE = [
    ({"filter": {"enabled": [{"name": "Nobody"}]}}, 'FilterPlugin "Nobody" does not exist'),
    (
        {"filter": {"enabled": [{"name": "PrioritySort"}]}},
        'plugin "PrioritySort" does not extend FilterPlugin plugin',
    ),
    (
        {"bind": {"disabled": [{"name": "*"}]}},
        'at least one bind plugin is needed for profile with scheduler name "default-scheduler"',
    ),
    (
        {"queueSort": {"disabled": [{"name": "*"}]}},
        'only one queue sort plugin required for profile with scheduler name "default-scheduler", but got 0',
    ),
    (
        {"multiPoint": {"enabled": [{"name": "GangScheduling"}]}},
        'initializing plugin "GangScheduling": the feature gate GangScheduling is off',
    ),
]


@pytest.mark.parametrize(("plugins", "message"), UNUSABLE, ids=range(len(UNUSABLE)))
def test_profiles_that_cannot_work_are_refused(plugins: Object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        OfflineScheduler((), parse(profiles=[{"plugins": plugins}]))
    assert str(caught.value) == message


def test_a_plugin_at_one_point_comes_before_those_of_multi_point() -> None:
    told = parse(
        profiles=[
            {
                "plugins": {
                    "multiPoint": {"disabled": [{"name": "ImageLocality"}]},
                    "score": {
                        "enabled": [{"name": "NodeAffinity", "weight": 7}],
                        "disabled": [{"name": "TaintToleration"}],
                    },
                }
            }
        ]
    )
    points = resolve(told.profiles[0].plugins, known_plugins())
    assert points["score"] == [
        ("NodeAffinity", 7),
        ("NodeResourcesFit", 1),
        ("VolumeBinding", 1),
        ("PodTopologySpread", 2),
        ("InterPodAffinity", 2),
        ("DynamicResources", 2),
        ("NodeResourcesBalancedAllocation", 1),
    ]
    assert "TaintToleration" in dict(points["filter"])


def test_resources_that_extenders_manage_alone_need_not_fit() -> None:
    managed = [{"name": "example.com/foo", "ignoredByScheduler": True}, {"name": "example.com/bar"}]
    told = parse(extenders=[{"urlPrefix": "http://127.0.0.1:1", "managedResources": managed}])
    assert told.profiles[0].args["NodeResourcesFit"]["ignoredResources"] == ["example.com/foo"]


def test_flags_win_over_the_leader_election_of_the_file() -> None:
    told = parse(leaderElection={"leaseDuration": "30s", "resourceName": "mine", "leaderElect": False})
    options = election_options(SchedulerOptions(leader_elect_lease_duration_s=20.0), told.leader_election)
    assert (options.leader_elect, options.leader_elect_lease_duration_s) == (False, 20.0)
    assert options.leader_elect_resource_name == "mine"
    assert election_options(SchedulerOptions(), None).leader_elect_resource_name == "kube-scheduler"
