"""Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs, CronJobs: defaults, what is prepared, what is refused."""

from typing import Any

import pytest
from clusters import Cluster

LABELS = {"app": "a"}


def template(labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    metadata = {"labels": LABELS if labels is None else labels}
    return {"metadata": metadata, "spec": {"containers": [{"name": "c", "image": "img:1"}], **spec}}


def workload(kind: str, name: str = "a", **spec: Any) -> dict[str, Any]:
    whole = {"selector": {"matchLabels": LABELS}, "template": template(), **spec}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": whole}


def job(name: str = "a", **spec: Any) -> dict[str, Any]:
    whole = {"template": template({}, restartPolicy="Never"), **spec}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": whole}


# ---------------------------------------------------------------- defaults


@pytest.mark.parametrize(
    ("resource", "kind", "defaults", "status"),
    [
        (
            "deployments.apps",
            "Deployment",
            {
                "replicas": 1,
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
                },
                "revisionHistoryLimit": 10,
                "progressDeadlineSeconds": 600,
            },
            {},
        ),
        ("replicasets.apps", "ReplicaSet", {"replicas": 1}, {"replicas": 0}),
        (
            "daemonsets.apps",
            "DaemonSet",
            {
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
                "revisionHistoryLimit": 10,
            },
            {"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0},
        ),
        (
            "statefulsets.apps",
            "StatefulSet",
            {
                "replicas": 1,
                "serviceName": "",
                "podManagementPolicy": "OrderedReady",
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
                "revisionHistoryLimit": 10,
            },
            {"replicas": 0, "availableReplicas": 0},
        ),
    ],
)
async def test_defaults_and_generation(cluster: Cluster, resource: str, kind: str, defaults: dict, status: dict):
    made = await cluster.create(resource, {**workload(kind), "status": {"replicas": 7}})
    spec = made["spec"]
    assert {key: spec[key] for key in spec if key not in ("selector", "template")} == defaults
    assert (made["metadata"]["generation"], made["status"]) == (1, status)
    pod = spec["template"]["spec"]
    assert (pod["restartPolicy"], pod["containers"][0]["imagePullPolicy"]) == ("Always", "IfNotPresent")
    changed = await cluster.patch(resource, "a", {"spec": {"minReadySeconds": 3}})
    assert changed["metadata"]["generation"] == 2
    noted = await cluster.patch(resource, "a", {"metadata": {"labels": {"k": "v"}}, "status": {"replicas": 5}})
    assert (noted["metadata"]["generation"], noted["status"]) == (2, status)
    told = await cluster.patch(f"{resource}/status", "a", {"spec": {"minReadySeconds": 9}})
    assert (told["metadata"]["generation"], told["spec"]["minReadySeconds"]) == (2, 3)


async def test_annotations_of_a_deployment_are_part_of_what_it_wants(cluster: Cluster):
    await cluster.create("deployments.apps", workload("Deployment"))
    changed = await cluster.patch("deployments.apps", "a", {"metadata": {"annotations": {"k": "v"}}})
    assert changed["metadata"]["generation"] == 2


async def test_a_daemonset_counts_the_changes_of_its_template(cluster: Cluster):
    resource, key = "daemonsets.apps", "deprecated.daemonset.template.generation"
    made = await cluster.create(resource, workload("DaemonSet"))
    assert made["metadata"]["annotations"] == {key: "1"}
    same = await cluster.patch(resource, "a", {"metadata": {"annotations": {key: "9"}}, "spec": {"minReadySeconds": 1}})
    assert same["metadata"]["annotations"] == {key: "1"}
    spec = {"template": {"spec": {"hostNetwork": True}}}
    changed = await cluster.patch(resource, "a", {"spec": spec})
    assert changed["metadata"]["annotations"] == {key: "2"}


async def test_claims_of_a_statefulset_are_whole_objects(cluster: Cluster):
    storage = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"metadata": {"name": "d"}, "spec": storage}
    rolling = {"rollingUpdate": {"maxUnavailable": 2}}
    made = await cluster.create(
        "statefulsets.apps", workload("StatefulSet", volumeClaimTemplates=[claim], updateStrategy=rolling)
    )
    (stored,) = made["spec"]["volumeClaimTemplates"]
    assert (stored["kind"], stored["apiVersion"]) == ("PersistentVolumeClaim", "v1")
    assert (stored["spec"]["volumeMode"], stored["status"]) == ("Filesystem", {"phase": "Pending"})
    assert made["spec"]["updateStrategy"]["rollingUpdate"] == {"partition": 0}


async def test_a_replication_controller_takes_labels_and_selector_from_its_template(cluster: Cluster):
    made = await cluster.create("replicationcontrollers", {"metadata": {"name": "a"}, "spec": {"template": template()}})
    assert (made["metadata"]["labels"], made["spec"]["selector"], made["spec"]["replicas"]) == (LABELS, LABELS, 1)


# ---------------------------------------------------------------- jobs


async def test_a_job_selects_its_pods_by_its_uid(cluster: Cluster):
    made = await cluster.create("jobs.batch", job())
    uid, prefix = made["metadata"]["uid"], "batch.kubernetes.io/"
    labels = {f"{prefix}controller-uid": uid, "controller-uid": uid, f"{prefix}job-name": "a", "job-name": "a"}
    assert made["spec"]["selector"] == {"matchLabels": {f"{prefix}controller-uid": uid}}
    assert made["spec"]["template"]["metadata"]["labels"] == labels == made["metadata"]["labels"]
    spec = {key: made["spec"][key] for key in made["spec"] if key not in ("selector", "template")}
    assert spec == {
        "parallelism": 1,
        "completions": 1,
        "backoffLimit": 6,
        "completionMode": "NonIndexed",
        "suspend": False,
        "manualSelector": False,
        "podReplacementPolicy": "TerminatingOrFailed",
    }


async def test_a_job_without_labels_has_those_of_its_template(cluster: Cluster):
    made = await cluster.create("jobs.batch", job(template=template(restartPolicy="Never")))
    assert made["metadata"]["labels"] == made["spec"]["template"]["metadata"]["labels"]
    labelled = job("b", template=template(restartPolicy="Never"))
    labelled["metadata"]["labels"] = {"own": "x"}
    assert (await cluster.create("jobs.batch", labelled))["metadata"]["labels"] == {"own": "x"}


async def test_defaults_of_a_job_depend_on_each_other(cluster: Cluster):
    pattern = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    spec = {"completionMode": "Indexed", "completions": 2, "backoffLimitPerIndex": 1}
    made = await cluster.create("jobs.batch", job(**spec, podFailurePolicy={"rules": [pattern]}))
    found = made["spec"]
    assert (found["backoffLimit"], found["podReplacementPolicy"], found["parallelism"]) == (2**31 - 1, "Failed", 1)
    assert found["podFailurePolicy"]["rules"][0]["onPodConditions"][0]["status"] == "True"


async def test_defaults_of_a_cronjob_leave_its_jobs_alone(cluster: Cluster):
    spec = {"schedule": "* * * * *", "jobTemplate": {"spec": job()["spec"]}}
    made = await cluster.create("cronjobs.batch", {"metadata": {"name": "a"}, "spec": spec})
    found = made["spec"]
    assert (found["concurrencyPolicy"], found["suspend"]) == ("Allow", False)
    assert (found["successfulJobsHistoryLimit"], found["failedJobsHistoryLimit"]) == (3, 1)
    assert set(found["jobTemplate"]["spec"]) == {"template"}
    assert found["jobTemplate"]["spec"]["template"]["spec"]["dnsPolicy"] == "ClusterFirst"
