"""What Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs, CronJobs, autoscalers and budgets are refused for.

Each case is a change of a good object and the complaint about it: upstream's message, without the kind and the name.
"""

from typing import Any

import pytest
from clusters import Cluster, refused

from fastkube.errors import ApiError

LABELS = {"app": "a"}
POD = {"containers": [{"name": "c", "image": "img:1"}]}
TEMPLATE = {"metadata": {"labels": LABELS}, "spec": POD}
JOB = {"template": {"spec": {**POD, "restartPolicy": "Never"}}}
INDEXED = {"completionMode": "Indexed", "completions": 3}
CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 5}}}
GOOD = {
    "deployments.apps": {"selector": {"matchLabels": LABELS}, "template": TEMPLATE},
    "replicasets.apps": {"selector": {"matchLabels": LABELS}, "template": TEMPLATE},
    "statefulsets.apps": {"selector": {"matchLabels": LABELS}, "template": TEMPLATE, "serviceName": "s"},
    "daemonsets.apps": {"selector": {"matchLabels": LABELS}, "template": TEMPLATE},
    "replicationcontrollers": {"template": TEMPLATE},
    "jobs.batch": JOB,
    "cronjobs.batch": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": JOB}},
    "horizontalpodautoscalers.autoscaling": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
        "maxReplicas": 5,
    },
    "poddisruptionbudgets.policy": {"selector": {"matchLabels": LABELS}},
}
DEPLOY, SETS, STATEFUL, DAEMON, CONTROLLER, JOBS, CRON, SCALER, BUDGET = GOOD


def made(resource: str, name: str = "a", **spec: Any) -> dict[str, Any]:
    version = "v2" if resource == SCALER else "v1"
    group = resource.partition(".")[2]
    whole = {"metadata": {"name": name}, "spec": {**GOOD[resource], **spec}}
    return {**whole, "apiVersion": f"{group}/{version}"} if group else whole


async def complaint(cluster: Cluster, resource: str, obj: dict[str, Any]) -> str:
    try:
        await cluster.create(resource, obj, version="v2" if resource == SCALER else "v1")
    except ApiError as error:
        assert error.code == 422
        return error.message.partition(" is invalid: ")[2]
    return ""


AT_LEAST_0 = "must be greater than or equal to 0"
CASES: list[tuple[str, dict[str, Any], str]] = [
    # ---- Deployment
    (DEPLOY, {"replicas": -1}, f"spec.replicas: Invalid value: -1: {AT_LEAST_0}"),
    (DEPLOY, {"selector": {}}, "spec.selector: Invalid value: {}: empty selector is invalid for deployment"),
    (
        DEPLOY,
        {"selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["a b"]}]}},
        '[spec.selector.matchExpressions[0].values[0]: Invalid value: "a b": a valid label must be an empty string or '
        "consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
        "(e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
        "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?'), spec.selector: Invalid value: "
        '{"matchExpressions":[{"key":"app","operator":"In","values":["a b"]}]}: invalid label selector]',
    ),
    (
        DEPLOY,
        {"strategy": {"rollingUpdate": {"maxUnavailable": "0%", "maxSurge": 0}}},
        'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0',
    ),
    (
        DEPLOY,
        {"template": {"metadata": {"labels": LABELS}, "spec": {**POD, "activeDeadlineSeconds": 1}}},
        "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
    ),
    # ---- ReplicaSet, ReplicationController
    (SETS, {"selector": {}}, "spec.selector: Invalid value: {}: empty selector is invalid for deployment"),
    (
        CONTROLLER,
        {"selector": {"app": "b"}},
        'spec.template.metadata.labels: Invalid value: {"app":"a"}: `selector` does not match template `labels`',
    ),
    (CONTROLLER, {"template": None}, "[spec.selector: Required value, spec.template: Required value]"),
    # ---- StatefulSet
    (
        STATEFUL,
        {"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}},
        'spec.updateStrategy.rollingUpdate: Invalid value: {"Partition":1,"MaxUnavailable":null}: '
        "only allowed for updateStrategy 'RollingUpdate'",
    ),
    (
        STATEFUL,
        {"template": {"metadata": {"labels": LABELS}, "spec": {"containers": []}}},
        "spec.template.spec.containers: Required value",
    ),
    (
        STATEFUL,
        {"volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]},
        "spec.volumeClaimTemplates[0].spec.resources[storage]: Required value",
    ),
    # ---- DaemonSet
    (DAEMON, {"selector": {}}, "spec.selector: Invalid value: {}: empty selector is invalid for daemonset"),
    (
        DAEMON,
        {"updateStrategy": {"rollingUpdate": {"maxSurge": "101%", "maxUnavailable": 0}}},
        'spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: "101%": must not be greater than 100%',
    ),
    # ---- Job
    (
        JOBS,
        {"maxFailedIndexes": 1, **INDEXED},
        "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
    ),
    (
        JOBS,
        {"completionMode": "Indexed", "parallelism": 1},
        "spec.completions: Required value: when completion mode is Indexed",
    ),
    (
        JOBS,
        {**INDEXED, "completions": 200_000, "parallelism": 20_000, "backoffLimitPerIndex": 1},
        "[spec.maxFailedIndexes: Required value: must be specified when completions is above 100000, spec.parallelism: "
        "Invalid value: 20000: must be less than or equal to 10000 when completions are above 100000 and used with "
        "backoff limit per index]",
    ),
    (
        JOBS,
        {"successPolicy": {"rules": [{"succeededCount": 1}]}},
        'spec.successPolicy: Invalid value: {"Rules":[{"SucceededIndexes":null,"SucceededCount":1}]}: '
        "requires indexed completion mode",
    ),
    (
        JOBS,
        {**INDEXED, "successPolicy": {"rules": [{"succeededIndexes": "1,0"}, {"succeededIndexes": "0-9"}, {}]}},
        '[spec.successPolicy.rules[0].succeededIndexes: Invalid value: "1,0": error parsing succeededIndexes: '
        "non-increasing order, previous: 1, current: 0, spec.successPolicy.rules[1].succeededIndexes: Invalid value: "
        '"0-9": error parsing succeededIndexes: too large index: "9", spec.successPolicy.rules[2]: Required value: '
        "at least one of succeededCount or succeededIndexes must be specified]",
    ),
    (
        JOBS,
        {**INDEXED, "successPolicy": {"rules": [{"succeededIndexes": "0-1", "succeededCount": 3}]}},
        "spec.successPolicy.rules[0].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of "
        "indexes in the specified succeededIndexes field)",
    ),
    (
        JOBS,
        {"podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": {"values": [2, 1, 1]}}, {}]}},
        '[spec.podFailurePolicy.rules[0].onExitCodes.operator: Required value: valid values: ["In" "NotIn"], '
        "spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Duplicate value: 1, "
        "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,1,1]: must be ordered, "
        "spec.podFailurePolicy.rules[1].action: Required value: valid values: "
        '["Count" "FailIndex" "FailJob" "Ignore"], '
        "spec.podFailurePolicy.rules[1]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required]",
    ),
    (
        JOBS,
        {"managedBy": "acme.io/a b"},
        'spec.managedBy: Invalid value: "a b": Invalid path (regex used for validation is '
        "'[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')",
    ),
    (
        JOBS,
        {"podFailurePolicy": {"rules": []}, "podReplacementPolicy": "TerminatingOrFailed"},
        'spec.podReplacementPolicy: Unsupported value: "TerminatingOrFailed": supported values: "Failed"',
    ),
    # ---- CronJob
    (CRON, {"schedule": ""}, "spec.schedule: Required value"),
    (
        CRON,
        {"schedule": "* * * *"},
        'spec.schedule: Invalid value: "* * * *": expected exactly 5 fields, found 4: [* * * *]',
    ),
    (
        CRON,
        {"schedule": "61 * * * *"},
        'spec.schedule: Invalid value: "61 * * * *": end of range (61) above maximum (59): 61',
    ),
    (
        CRON,
        {"schedule": "*/x * * * *"},
        'spec.schedule: Invalid value: "*/x * * * *": failed to parse int from x: '
        'strconv.Atoi: parsing "x": invalid syntax',
    ),
    (CRON, {"schedule": "@often"}, 'spec.schedule: Invalid value: "@often": unrecognized descriptor: @often'),
    (
        CRON,
        {"schedule": "CRON_TZ=UTC * * * * *"},
        'spec.schedule: Invalid value: "CRON_TZ=UTC * * * * *": cannot use '
        "TZ or CRON_TZ in schedule, use timeZone field instead",
    ),
    (CRON, {"timeZone": "Mars/Base"}, 'spec.timeZone: Invalid value: "Mars/Base": unknown time zone Mars/Base'),
    (
        CRON,
        {"concurrencyPolicy": "Odd"},
        'spec.concurrencyPolicy: Unsupported value: "Odd": supported values: "Allow", "Forbid", "Replace"',
    ),
    (
        CRON,
        {"jobTemplate": {"spec": {**JOB, "selector": {"matchLabels": LABELS}, "manualSelector": True}}},
        '[spec.jobTemplate.spec.selector: Invalid value: {"matchLabels":{"app":"a"}}: `selector` will be '
        "auto-generated, spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: "
        '"nil", "false"]',
    ),
    # ---- HorizontalPodAutoscaler
    (
        SCALER,
        {"scaleTargetRef": {"kind": "Deployment", "name": "d"}},
        'spec.scaleTargetRef.apiVersion: Invalid value: "": apiVersion must specify API group',
    ),
    (
        SCALER,
        {"metrics": [{**CPU, "pods": {"metric": {"name": "m"}, "target": {"type": "Odd"}}}]},
        '[spec.metrics[0].pods.target.type: Invalid value: "Odd": must be either Utilization, Value, or AverageValue, '
        "spec.metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue, "
        "spec.metrics[0].pods: Forbidden: must populate the given metric source only]",
    ),
    (
        SCALER,
        {"behavior": {"scaleUp": {"policies": [{"type": "Odd", "value": 1, "periodSeconds": 1801}]}}},
        '[spec.behavior.scaleUp.policies[0].type: Unsupported value: "Odd": supported values: "Percent", "Pods", '
        "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800]",
    ),
    # ---- PodDisruptionBudget
    (
        BUDGET,
        {"minAvailable": 1, "maxUnavailable": "1%"},
        'spec: Invalid value: {"MinAvailable":1,"Selector":{"matchLabels":{"app":"a"}},"MaxUnavailable":"1%",'
        '"UnhealthyPodEvictionPolicy":null}: minAvailable and maxUnavailable cannot be both set',
    ),
    (BUDGET, {"minAvailable": "101%"}, 'spec.minAvailable: Invalid value: "101%": must not be greater than 100%'),
    (
        BUDGET,
        {"unhealthyPodEvictionPolicy": "Odd"},
        'spec.unhealthyPodEvictionPolicy: Unsupported value: "Odd": supported values: "AlwaysAllow", "IfHealthyBudget"',
    ),
]


async def test_what_is_refused(cluster: Cluster):
    found = [await complaint(cluster, resource, made(resource, **spec)) for resource, spec, _ in CASES]
    assert found == [expected for *_, expected in CASES]


async def test_good_ones_pass(cluster: Cluster):
    assert [await complaint(cluster, resource, made(resource)) for resource in GOOD] == [""] * len(GOOD)


async def test_names_that_pods_cannot_have(cluster: Cluster):
    assert "must not contain dots" in await complaint(cluster, STATEFUL, made(STATEFUL, "a.b"))
    assert await complaint(cluster, CRON, made(CRON, "a" * 53)) == (
        f'metadata.name: Invalid value: "{"a" * 53}": must be no more than 52 characters'
    )
    long = "a" * 62
    assert f"will not able to create pod with invalid DNS label: {long}-2" in await complaint(
        cluster, JOBS, made(JOBS, long, **INDEXED)
    )
    assert await complaint(cluster, DEPLOY, made(DEPLOY, "a.b")) == ""
    assert cluster.warnings[0].startswith("metadata.name: this is used in Pod names and hostnames")


# ---------------------------------------------------------------- updates


@pytest.mark.parametrize("resource", [DEPLOY, SETS, DAEMON])
async def test_selectors_are_for_ever(cluster: Cluster, resource: str):
    await cluster.create(resource, made(resource))
    labels = {"app": "b"}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}}
    async with refused(422, message='spec.selector: Invalid value: {"matchLabels":{"app":"b"}}: field is immutable'):
        await cluster.patch(resource, "a", {"spec": spec})


async def test_little_of_a_statefulset_may_change(cluster: Cluster):
    await cluster.create(STATEFUL, made(STATEFUL))
    await cluster.patch(STATEFUL, "a", {"spec": {"replicas": 3, "revisionHistoryLimit": 1, "minReadySeconds": 1}})
    problem = (
        "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
        "'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are "
        "forbidden"
    )
    async with refused(422, message=problem):
        await cluster.patch(STATEFUL, "a", {"spec": {"serviceName": "t"}})


async def test_a_suspended_job_may_get_other_resources_and_nodes(cluster: Cluster):
    await cluster.create(JOBS, made(JOBS, suspend=True))
    container = {"name": "c", "image": "img:1", "resources": {"requests": {"cpu": "1"}}}
    template = {"spec": {"nodeSelector": {"zone": "a"}, "containers": [container]}}
    changed = await cluster.patch(JOBS, "a", {"spec": {"template": template}})
    assert changed["spec"]["template"]["spec"]["nodeSelector"] == {"zone": "a"}
    async with refused(422, message="field is immutable"):
        image = {"spec": {"template": {"spec": {"containers": [{**container, "image": "img:2"}]}}}}
        await cluster.patch(JOBS, "a", image)
    await cluster.patch(JOBS, "a", {"spec": {"suspend": False}})
    async with refused(422, message='spec.template: Invalid value: {"labels":'):
        await cluster.patch(JOBS, "a", {"spec": {"template": {"spec": {"nodeSelector": {"zone": "b"}}}}})


# ---------------------------------------------------------------- status


async def test_a_status_cannot_say_what_is_not_so(cluster: Cluster):
    await cluster.create(DEPLOY, made(DEPLOY))
    async with refused(422, message="status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"):
        await cluster.patch(f"{DEPLOY}/status", "a", {"status": {"replicas": 1, "readyReplicas": 2}})
    await cluster.patch(f"{DEPLOY}/status", "a", {"status": {"collisionCount": 2}})
    async with refused(422, message="status.collisionCount: Invalid value: 1: cannot be decremented"):
        await cluster.patch(f"{DEPLOY}/status", "a", {"status": {"collisionCount": 1}})
    await cluster.create(BUDGET, made(BUDGET))
    condition = {"type": "X", "status": "Maybe", "reason": "", "lastTransitionTime": "2020-01-01T00:00:00Z"}
    async with refused(422, message='status.conditions[0].status: Unsupported value: "Maybe"'):
        await cluster.patch(f"{BUDGET}/status", "a", {"status": {"conditions": [condition]}})


async def test_a_job_ends_in_order(cluster: Cluster):
    await cluster.create(JOBS, made(JOBS))
    start, end = "2020-01-01T00:00:00Z", "2020-01-01T01:00:00Z"
    complete = [{"type": kind, "status": "True"} for kind in ("SuccessCriteriaMet", "Complete")]
    path = f"{JOBS}/status"
    async with refused(422, message="status.completionTime: Required value: completionTime is required for Complete"):
        await cluster.patch(path, "a", {"status": {"startTime": start, "conditions": complete}})
    async with refused(422, message=f'"{start}": must be equal to or after `startTime`'):
        await cluster.patch(path, "a", {"status": {"startTime": end, "completionTime": start, "conditions": complete}})
    await cluster.patch(path, "a", {"status": {"startTime": start, "active": 1, "failed": 2}})
    async with refused(422, message="status.failed: Invalid value: 1: cannot decrease the failed counter"):
        await cluster.patch(path, "a", {"status": {"failed": 1}})
    async with refused(422, message="status.ready: Invalid value: 2: cannot set more ready pods than active"):
        await cluster.patch(path, "a", {"status": {"ready": 2}})
    ended = {"completionTime": end, "active": 0, "conditions": complete}
    await cluster.patch(path, "a", {"status": ended})
    async with refused(422, message="cannot disable the terminal Complete=True condition"):
        await cluster.patch(path, "a", {"status": {"conditions": complete[:1]}})


async def test_indexes_that_failed_did_not_complete(cluster: Cluster):
    await cluster.create(JOBS, made(JOBS, **{**INDEXED, "completions": 9, "backoffLimitPerIndex": 1}))
    async with refused(422, message="failedIndexes and completedIndexes overlap at index: 4"):
        status = {"completedIndexes": "0,3-5", "failedIndexes": "1,4,7"}
        await cluster.patch(f"{JOBS}/status", "a", {"status": status})


async def test_deleting_a_job_warns_of_its_pods(cluster: Cluster):
    await cluster.create(JOBS, made(JOBS))
    await cluster.delete(JOBS, "a")
    assert cluster.warnings[0].startswith("child pods are preserved by default when jobs are deleted")
    await cluster.create(JOBS, made(JOBS, "b"))
    await cluster.delete(JOBS, "b", {"propagationPolicy": "Background"})
    assert cluster.warnings == []
