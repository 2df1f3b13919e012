"""Tables: columns of every kind, cells as upstream's printers make them, partial objects, columns of custom kinds."""

import dataclasses

import pytest

from fastkube.api import table
from fastkube.api.catalog import Catalog
from fastkube.api.table_text import human_duration
from fastkube.clock import parse_rfc3339

CATALOG = Catalog.builtin()
NOW = parse_rfc3339("2026-01-01T01:00:00Z")
MADE = "2026-01-01T00:00:00Z"


def cells(kind, obj, api_version="v1", **metadata):
    rtype = CATALOG.by_kind(api_version, kind)
    whole = {"kind": kind, "metadata": {"name": "a", "creationTimestamp": MADE, **metadata}, **obj}
    return table.cells(rtype, rtype.versions[0], whole, NOW)


def pod(status, spec=None, **metadata):
    return cells("Pod", {"spec": spec or {"containers": [{"name": "c"}]}, "status": status}, **metadata)[1:4]


def container(state=None, **more):
    return {"name": "c", "ready": False, "restartCount": 0, "state": state or {}, **more}


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (-5, "<invalid>"),
        (-1.5, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125.9, "2m5s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 61, "3h1m"),
        (8 * 3600 + 1800, "8h"),
        (48 * 3600, "2d"),
        (49 * 3600, "2d1h"),
        (8 * 86400, "8d"),
        (729 * 86400, "729d"),
        (730 * 86400, "2y"),
        (731 * 86400, "2y1d"),
        (9 * 365 * 86400, "9y"),
    ],
)
def test_durations_for_people(seconds, told):
    assert human_duration(seconds) == told


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ({"phase": "Pending"}, ["0/1", "Pending", "0"]),
        ({"phase": "Failed", "reason": "Evicted"}, ["0/1", "Evicted", "0"]),
        (
            {"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]},
            ["0/1", "SchedulingGated", "0"],
        ),
        (
            {"phase": "Running", "containerStatuses": [container({"running": {}}, ready=True)]},
            ["1/1", "Running", "0"],
        ),
        (
            {"phase": "Pending", "containerStatuses": [container({"waiting": {"reason": "ImagePullBackOff"}})]},
            ["0/1", "ImagePullBackOff", "0"],
        ),
        (
            {"phase": "Succeeded", "containerStatuses": [container({"terminated": {"reason": "Completed"}})]},
            ["0/1", "Completed", "0"],
        ),
        (
            {"phase": "Running", "containerStatuses": [container({"terminated": {"exitCode": 1, "signal": 9}})]},
            ["0/1", "Signal:9", "0"],
        ),
        (
            {"phase": "Running", "containerStatuses": [container({"terminated": {"exitCode": 3}})]},
            ["0/1", "ExitCode:3", "0"],
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [
                    container(
                        {"running": {}},
                        ready=True,
                        restartCount=2,
                        lastState={"terminated": {"finishedAt": "2026-01-01T00:55:00Z"}},
                    )
                ],
            },
            ["1/1", "Running", "2 (5m ago)"],
        ),
        (
            {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [
                    container({"terminated": {"reason": "Completed"}}),
                    container({"running": {}}, ready=True),
                ],
            },
            ["1/1", "Running", "0"],
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [
                    container({"terminated": {"reason": "Completed"}}),
                    container({"running": {}}, ready=True),
                ],
            },
            ["1/1", "NotReady", "0"],
        ),
    ],
)
def test_the_status_of_a_pod(status, told):
    assert pod(status) == told


INIT = {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]}


@pytest.mark.parametrize(
    ("statuses", "more", "told"),
    [
        ([{"name": "i", "state": {"running": {}}}], {}, ["0/2", "Init:0/2", "0"]),
        ([{"name": "i", "state": {"waiting": {"reason": "PodInitializing"}}}], {}, ["0/2", "Init:0/2", "0"]),
        ([{"name": "i", "state": {"waiting": {"reason": "ErrImagePull"}}}], {}, ["0/2", "Init:ErrImagePull", "0"]),
        (
            [{"name": "i", "restartCount": 1, "state": {"terminated": {"exitCode": 2}}}],
            {},
            ["0/2", "Init:ExitCode:2", "1"],
        ),
        (
            [{"name": "i", "state": {"terminated": {"exitCode": 2, "reason": "Error"}}}],
            {},
            ["0/2", "Init:Error", "0"],
        ),
        (
            [
                {"name": "i", "restartCount": 4, "state": {"terminated": {"exitCode": 0}}},
                {"name": "s", "restartCount": 1, "started": True, "ready": True, "state": {"running": {}}},
            ],
            {"containerStatuses": [container({"running": {}}, ready=True, restartCount=1)]},
            ["2/2", "Running", "2"],
        ),
    ],
)
def test_the_status_of_a_pod_that_initializes(statuses, more, told):
    assert pod({"phase": "Running", "initContainerStatuses": statuses, **more}, INIT) == told


def test_the_status_of_a_pod_that_is_deleted():
    gone = {"deletionTimestamp": MADE}
    assert pod({"phase": "Running"}, **gone)[1] == "Terminating"
    assert pod({"phase": "Succeeded"}, **gone)[1] == "Succeeded"
    assert pod({"phase": "Running", "reason": "NodeLost"}, **gone)[1] == "Unknown"


def test_the_wide_columns_of_a_pod():
    spec = {"nodeName": "n", "readinessGates": [{"conditionType": "x"}, {"conditionType": "y"}]}
    status = {"podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "x", "status": "True"}]}
    assert cells("Pod", {"spec": spec, "status": status})[4:] == ["60m", "10.0.0.1", "n", "<none>", "1/2"]
    assert cells("Pod", {})[4:] == ["60m", "<none>", "<none>", "<none>", "<none>"]


TEMPLATE = {"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "j"}]}}
SELECTOR = {"matchLabels": {"app": "a"}}
LIMITED = {"nominalConcurrencyShares": 5, "limitResponse": {"type": "Queue", "queuing": {"queues": 3}}}
INGRESS = {"loadBalancer": {"ingress": [{"ip": "2.2.2.2"}, {"hostname": "lb"}]}}


@pytest.mark.parametrize(
    ("api_version", "kind", "obj", "told"),
    [
        ("v1", "ConfigMap", {"data": {"a": "1"}, "binaryData": {"b": ""}}, ["a", 2, "60m"]),
        ("v1", "Secret", {"type": "Opaque", "data": {"a": ""}}, ["a", "Opaque", 1, "60m"]),
        ("v1", "ServiceAccount", {}, ["a", "60m"]),
        ("v1", "LimitRange", {}, ["a", MADE]),
        ("v1", "Namespace", {"status": {"phase": "Active"}}, ["a", "Active", "60m"]),
        (
            "v1",
            "ResourceQuota",
            {"status": {"hard": {"pods": "2", "limits.cpu": "1", "cpu": "4"}, "used": {"pods": "1"}}},
            ["a", "cpu: 0/4, pods: 1/2", "limits.cpu: 0/1", "60m"],
        ),
        (
            "v1",
            "PodTemplate",
            {"template": {"metadata": {"labels": {"b": "2", "a": "1"}}, **TEMPLATE}},
            ["a", "c,d", "i,j", "a=1,b=2"],
        ),
        (
            "v1",
            "ReplicationController",
            {"spec": {"replicas": 2, "selector": {"app": "a"}, "template": TEMPLATE}, "status": {"replicas": 1}},
            ["a", 2, 1, 0, "60m", "c,d", "i,j", "app=a"],
        ),
        (
            "apps/v1",
            "ReplicaSet",
            {"spec": {"replicas": 2, "selector": SELECTOR}, "status": {"replicas": 2, "readyReplicas": 1}},
            ["a", 2, 2, 1, "60m", "", "", "app=a"],
        ),
        (
            "apps/v1",
            "Deployment",
            {
                "spec": {"replicas": 3, "selector": SELECTOR, "template": TEMPLATE},
                "status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1},
            },
            ["a", "1/3", 2, 1, "60m", "c,d", "i,j", "app=a"],
        ),
        (
            "apps/v1",
            "StatefulSet",
            {"spec": {"replicas": 3, "template": TEMPLATE}, "status": {}},
            ["a", "0/3", "60m", "c,d", "i,j"],
        ),
        (
            "apps/v1",
            "DaemonSet",
            {"spec": {"selector": SELECTOR, "template": TEMPLATE}, "status": {"numberReady": 1}},
            ["a", 0, 0, 1, 0, 0, "<none>", "60m", "c,d", "i,j", "app=a"],
        ),
        ("apps/v1", "ControllerRevision", {"revision": 2}, ["a", "<none>", 2, "60m"]),
        (
            "batch/v1",
            "Job",
            {
                "spec": {"completions": 2},
                "status": {"startTime": "2026-01-01T00:58:00Z", "succeeded": 1},
            },
            ["a", "Running", "1/2", "2m", "60m", "", "", "<none>"],
        ),
        (
            "batch/v1",
            "Job",
            {
                "spec": {"parallelism": 3},
                "status": {
                    "startTime": MADE,
                    "completionTime": "2026-01-01T00:00:05Z",
                    "conditions": [{"type": "Complete", "status": "True"}],
                },
            },
            ["a", "Complete", "0/1 of 3", "5s", "60m", "", "", "<none>"],
        ),
        (
            "batch/v1",
            "CronJob",
            {
                "spec": {"schedule": "* * * * *", "suspend": False, "jobTemplate": {"spec": {"template": TEMPLATE}}},
                "status": {"active": [{}], "lastScheduleTime": "2026-01-01T00:59:50Z"},
            },
            ["a", "* * * * *", "<none>", "False", 1, "10s", "60m", "c,d", "i,j", "<none>"],
        ),
        (
            "policy/v1",
            "PodDisruptionBudget",
            {"spec": {"maxUnavailable": "25%"}, "status": {"disruptionsAllowed": 1}},
            ["a", "N/A", "25%", 1, "60m"],
        ),
        (
            "v1",
            "Node",
            {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}},
            ["a", "NotReady", "<none>", "60m", "", "<none>", "<none>", "<unknown>", "<unknown>", "<unknown>"],
        ),
        (
            "v1",
            "Event",
            {
                "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec"},
                "source": {"component": "kubelet", "host": "n"},
                "reason": "R",
                "type": "Normal",
                "message": " M\n",
                "firstTimestamp": MADE,
                "lastTimestamp": "2026-01-01T00:59:00Z",
                "count": 3,
            },
            ["60s", "Normal", "R", "pod/p", "spec", "kubelet, n", "M", "60m", 3, "a"],
        ),
        (
            "v1",
            "Event",
            {
                "involvedObject": {"kind": "Pod"},
                "reportingComponent": "c",
                "eventTime": "2026-01-01T00:00:00.000000Z",
                "series": {"count": 4, "lastObservedTime": "2026-01-01T00:59:59.500000Z"},
            },
            ["0s", "", "", "pod", "", "c", "", "60m", 4, "a"],
        ),
        (
            "v1",
            "Service",
            {
                "spec": {
                    "type": "LoadBalancer",
                    "clusterIPs": ["10.0.0.1"],
                    "externalIPs": ["1.1.1.1"],
                    "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
                    "selector": {"app": "a"},
                },
                "status": INGRESS,
            },
            ["a", "LoadBalancer", "10.0.0.1", "2.2.2.2,lb,1.1.1.1", "80:30080/TCP,53/UDP", "60m", "app=a"],
        ),
        (
            "v1",
            "Service",
            {"spec": {"type": "LoadBalancer"}},
            ["a", "LoadBalancer", "<none>", "<pending>", "<none>", "60m", "<none>"],
        ),
        (
            "v1",
            "Service",
            {"spec": {"type": "ExternalName", "externalName": "e.com"}},
            ["a", "ExternalName", "<none>", "e.com", "<none>", "60m", "<none>"],
        ),
        (
            "v1",
            "Endpoints",
            {"subsets": [{"addresses": [{"ip": "1.1.1.1"}, {"ip": "::1"}], "ports": [{"port": 80}, {"port": 81}]}]},
            ["a", "1.1.1.1:80,[::1]:80,1.1.1.1:81 + 1 more...", "60m"],
        ),
        ("v1", "Endpoints", {"subsets": [{"addresses": [{"ip": "1.1.1.1"}]}]}, ["a", "1.1.1.1", "60m"]),
        ("v1", "Endpoints", {}, ["a", "<none>", "60m"]),
        (
            "discovery.k8s.io/v1",
            "EndpointSlice",
            {
                "addressType": "IPv4",
                "ports": [{"port": 80}, {"name": "x"}, {}],
                "endpoints": [{"addresses": ["1.1.1.1"]}],
            },
            ["a", "IPv4", "80,x,*", "1.1.1.1", "60m"],
        ),
        ("discovery.k8s.io/v1", "EndpointSlice", {"addressType": "IPv6"}, ["a", "IPv6", "<unset>", "<unset>", "60m"]),
        (
            "networking.k8s.io/v1",
            "Ingress",
            {"spec": {"rules": [{"host": h} for h in "abcd"], "tls": [{}]}, "status": INGRESS},
            ["a", "<none>", "a,b,c + 1 more...", "2.2.2.2,lb", "80, 443", "60m"],
        ),
        ("networking.k8s.io/v1", "Ingress", {"spec": {"rules": [{}]}}, ["a", "<none>", "*", "", "80", "60m"]),
        (
            "networking.k8s.io/v1",
            "IngressClass",
            {"spec": {"controller": "c", "parameters": {"apiGroup": "g.h", "kind": "P", "name": "n"}}},
            ["a", "c", "P.g.h/n", "60m"],
        ),
        ("networking.k8s.io/v1", "NetworkPolicy", {"spec": {"podSelector": {}}}, ["a", "<none>", "60m"]),
        ("networking.k8s.io/v1", "ServiceCIDR", {"spec": {"cidrs": ["a", "b"]}}, ["a", "a,b", "60m"]),
        (
            "networking.k8s.io/v1",
            "IPAddress",
            {"spec": {"parentRef": {"resource": "services", "namespace": "n", "name": "s"}}},
            ["a", "services/n/s", "60m"],
        ),
        (
            "v1",
            "PersistentVolume",
            {
                "spec": {
                    "capacity": {"storage": "1Gi"},
                    "accessModes": ["ReadOnlyMany", "ReadWriteOnce"],
                    "persistentVolumeReclaimPolicy": "Retain",
                    "claimRef": {"namespace": "x", "name": "y"},
                    "storageClassName": "s",
                    "volumeMode": "Filesystem",
                },
                "status": {"phase": "Bound"},
            },
            ["a", "1Gi", "RWO,ROX", "Retain", "Bound", "x/y", "s", "<unset>", "", "60m", "Filesystem"],
        ),
        (
            "v1",
            "PersistentVolumeClaim",
            {
                "spec": {"volumeName": "v", "volumeAttributesClassName": "g"},
                "status": {"phase": "Bound", "accessModes": ["ReadWriteOncePod"], "capacity": {"storage": "2Gi"}},
            },
            ["a", "Bound", "v", "2Gi", "RWOP", "", "g", "60m", "<unset>"],
        ),
        (
            "v1",
            "PersistentVolumeClaim",
            {"spec": {"accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Pending"}},
            ["a", "Pending", "", "", "", "", "<unset>", "60m", "<unset>"],
        ),
        (
            "storage.k8s.io/v1",
            "StorageClass",
            {"provisioner": "p", "allowVolumeExpansion": True},
            ["a", "p", "Delete", "Immediate", True, "60m"],
        ),
        (
            "storage.k8s.io/v1",
            "CSIDriver",
            {"spec": {"tokenRequests": [{"audience": "x"}], "volumeLifecycleModes": ["Persistent"]}},
            ["a", True, False, False, "x", False, "Persistent", "60m"],
        ),
        (
            "storage.k8s.io/v1",
            "VolumeAttachment",
            {"spec": {"attacher": "x", "nodeName": "n", "source": {"persistentVolumeName": "pv"}}},
            ["a", "x", "pv", "n", False, "60m"],
        ),
        (
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            {
                "roleRef": {"kind": "Role", "name": "r"},
                "subjects": [
                    {"kind": "User", "name": "u"},
                    {"kind": "User", "name": "v"},
                    {"kind": "Group", "name": "g"},
                    {"kind": "ServiceAccount", "name": "s", "namespace": "n"},
                ],
            },
            ["a", "Role/r", "60m", "u, v", "g", "n/s"],
        ),
        (
            "certificates.k8s.io/v1",
            "CertificateSigningRequest",
            {
                "spec": {"signerName": "s", "username": "u", "expirationSeconds": 3600},
                "status": {"conditions": [{"type": "Approved"}], "certificate": "x"},
            },
            ["a", "60m", "s", "u", "60m", "Approved,Issued"],
        ),
        (
            "apiregistration.k8s.io/v1",
            "APIService",
            {
                "spec": {"service": {"namespace": "n", "name": "s"}},
                "status": {"conditions": [{"type": "Available", "status": "False", "reason": "R"}]},
            },
            ["a", "n/s", "False (R)", "60m"],
        ),
        (
            "admissionregistration.k8s.io/v1",
            "ValidatingAdmissionPolicy",
            {"spec": {"validations": [{}], "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}},
            ["a", 1, "v1/ConfigMap", "60m"],
        ),
        (
            "admissionregistration.k8s.io/v1",
            "ValidatingAdmissionPolicyBinding",
            {"spec": {"policyName": "p", "paramRef": {"name": "n"}}},
            ["a", "p", "*/n", "60m"],
        ),
        (
            "admissionregistration.k8s.io/v1",
            "MutatingAdmissionPolicyBinding",
            {"spec": {"policyName": "p", "paramRef": {"selector": SELECTOR}}},
            [
                "a",
                "p",
                "&LabelSelector{MatchLabels:map[string]string{app: a,},MatchExpressions:[]LabelSelectorRequirement{},}",
                "60m",
            ],
        ),
        (
            "flowcontrol.apiserver.k8s.io/v1",
            "FlowSchema",
            {
                "spec": {"priorityLevelConfiguration": {"name": "p"}, "matchingPrecedence": 5},
                "status": {"conditions": [{"type": "Dangling", "status": "False"}]},
            },
            ["a", "p", 5, "<none>", "60m", "False"],
        ),
        (
            "flowcontrol.apiserver.k8s.io/v1",
            "PriorityLevelConfiguration",
            {"spec": {"type": "Limited", "limited": LIMITED}},
            ["a", "Limited", 5, 3, 0, 0, "60m"],
        ),
        (
            "scheduling.k8s.io/v1",
            "PriorityClass",
            {"value": 5, "preemptionPolicy": "Never"},
            ["a", 5, False, "60m", "Never"],
        ),
        ("coordination.k8s.io/v1", "Lease", {"spec": {"holderIdentity": "h"}}, ["a", "h", "60m"]),
        (
            "resource.k8s.io/v1",
            "ResourceClaim",
            {"status": {"allocation": {}, "reservedFor": [{}]}},
            ["a", "allocated,reserved", "60m"],
        ),
        (
            "resource.k8s.io/v1",
            "ResourceSlice",
            {"spec": {"nodeName": "n", "driver": "d", "pool": {"name": "p"}}},
            ["a", "n", "d", "p", "60m"],
        ),
    ],
)
def test_cells(api_version, kind, obj, told):
    assert cells(kind, obj, api_version) == told


def test_cells_that_depend_on_metadata():
    labels = {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/": "", "kubernetes.io/role": "db"}
    node = {"spec": {"unschedulable": True}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert cells("Node", node, labels=labels)[1:3] == ["Ready,SchedulingDisabled", "db,worker"]
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    assert cells("StorageClass", {}, "storage.k8s.io/v1", annotations=default)[0] == "a (default)"
    claim = {"spec": {"storageClassName": "new"}}
    annotations = {"volume.beta.kubernetes.io/storage-class": "old"}
    assert cells("PersistentVolumeClaim", claim, annotations=annotations)[5] == "old"
    assert cells("PersistentVolumeClaim", claim, deletionTimestamp=MADE)[1] == "Terminating"
    assert cells("ResourceClaim", {}, "resource.k8s.io/v1", deletionTimestamp=MADE)[1] == "deleted"
    assert cells("Job", {}, "batch/v1", deletionTimestamp=MADE)[1] == "Terminating"
    owners = [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "controller": True}]
    assert cells("ControllerRevision", {}, "apps/v1", ownerReferences=owners)[1] == "daemonset.apps/d"


def utilization(target, current=None):
    status = [{"type": "Resource", "resource": {"name": "cpu", "current": current}}] if current else []
    spec = {"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]}
    return cells("HorizontalPodAutoscaler", {"spec": spec, "status": {"currentMetrics": status}}, "autoscaling/v2")[2]


def test_the_targets_of_an_autoscaler():
    assert utilization({"averageUtilization": 60}) == "cpu: <unknown>/60%"
    assert utilization({"averageUtilization": 60}, {"averageUtilization": 35}) == "cpu: 35%/60%"
    assert utilization({}) == "cpu: <unknown>/<auto>"
    assert utilization({"averageValue": "1"}, {"averageValue": "500m"}) == "cpu: 500m/1"
    external = {"type": "External", "external": {"target": {"value": "5"}}}
    average = {"type": "Object", "object": {"target": {"averageValue": "5"}}}
    pods = {"type": "Pods", "pods": {"target": {"averageValue": "10"}}}
    spec = {
        "scaleTargetRef": {"kind": "Deployment", "name": "d"},
        "maxReplicas": 5,
        "metrics": [external, average, pods],
    }
    assert cells("HorizontalPodAutoscaler", {"spec": spec}, "autoscaling/v2") == [
        "a",
        "Deployment/d",
        "<unknown>/5, <unknown>/5 (avg) + 1 more...",
        "<unset>",
        5,
        0,
        "60m",
    ]


def test_objects_of_other_versions_have_the_same_cells():
    autoscalers = CATALOG.lookup("autoscaling", "v1", "horizontalpodautoscalers")
    spec = {
        "scaleTargetRef": {"kind": "Deployment", "name": "d"},
        "maxReplicas": 5,
        "targetCPUUtilizationPercentage": 60,
    }
    old = {"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"}, "spec": spec}
    assert table.cells(autoscalers, "v1", old, NOW)[2] == "cpu: <unknown>/60%"
    events = CATALOG.lookup("events.k8s.io", "v1", "events")
    new = {"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a"}, "regarding": {"kind": "Pod"}}
    assert table.cells(events, "v1", {**new, "note": "M"}, NOW)[3:7] == ["pod", "", "", "M"]


def test_what_only_has_metadata_has_cells_too():
    bare = {"metadata": {"resourceVersion": "9"}}
    for rtype in CATALOG.all():
        for version in rtype.columns:
            obj = {"apiVersion": rtype.api_version(version), "kind": rtype.kind, **bare}
            assert table.table(rtype, version, [obj], "None", now=NOW)["rows"][0]["object"] is None


def test_every_listed_kind_has_a_cell_for_each_column():
    empty = {"metadata": {"name": "a", "creationTimestamp": MADE}}
    for rtype in CATALOG.all():
        for version in rtype.columns:
            made = table.cells(rtype, version, {"kind": rtype.kind, **empty}, NOW)
            extra = 1 if rtype.kind == "IPAddress" else 0
            assert len(made) == len(table.columns(rtype, version)) + extra, rtype.kind
            assert made[-1 if rtype.kind == "Event" else 0] == "a"


CONFIG_MAPS = CATALOG.lookup("", "v1", "configmaps")
ITEM = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "a", "resourceVersion": "7", "creationTimestamp": MADE},
    "data": {"k": "v"},
}
PARTIAL = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": ITEM["metadata"]}


def test_a_table_of_a_list():
    made = table.table(CONFIG_MAPS, "v1", [ITEM], now=NOW, metadata={"resourceVersion": "9"})
    assert {key: made[key] for key in ("kind", "apiVersion", "metadata", "rows")} == {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": "9"},
        "rows": [{"cells": ["a", 1, "60m"], "object": PARTIAL}],
    }
    assert [column["name"] for column in made["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert set(made["columnDefinitions"][0]) == {"name", "type", "format", "description", "priority"}


def test_a_table_of_one_object_in_a_watch():
    made = table.table(CONFIG_MAPS, "v1", [ITEM], now=NOW, headers=False, table_version="v1beta1")
    assert made["columnDefinitions"] is None
    assert made["metadata"] == {"resourceVersion": "7"}
    assert made["apiVersion"] == made["rows"][0]["object"]["apiVersion"] == "meta.k8s.io/v1beta1"


def test_what_a_row_includes():
    def included(**options):
        return table.table(CONFIG_MAPS, "v1", [ITEM], now=NOW, **options)["rows"][0]["object"]

    assert included(include="None") is None
    assert included(include="Object") == ITEM
    assert included(include="Object", objects=[{"other": "version"}]) == {"other": "version"}


def test_rows_of_finished_pods_say_so():
    pods = CATALOG.lookup("", "v1", "pods")
    item = {"kind": "Pod", "metadata": {"name": "a"}, "status": {"phase": "Failed"}}
    assert table.table(pods, "v1", [item], now=NOW)["rows"][0]["conditions"] == [
        {"type": "Completed", "status": "True", "reason": "Failed", "message": "The pod failed."}
    ]
    item["status"]["phase"] = "Running"
    assert "conditions" not in table.table(pods, "v1", [item], now=NOW)["rows"][0]


def test_flow_schemas_come_by_precedence():
    schemas = CATALOG.lookup("flowcontrol.apiserver.k8s.io", "v1", "flowschemas")
    items = [
        {"kind": "FlowSchema", "metadata": {"name": name}, "spec": {"matchingPrecedence": precedence}}
        for name, precedence in (("c", 9), ("b", 1), ("a", 1))
    ]
    rows = table.table(schemas, "v1", items, now=NOW, metadata={})["rows"]
    assert [row["cells"][0] for row in rows] == ["a", "b", "c"]


def test_a_scale_has_columns_of_its_own():
    deployments = CATALOG.lookup("apps", "v1", "deployments")
    scale = {"kind": "Scale", "metadata": {"name": "a"}, "spec": {"replicas": 3}, "status": {"replicas": 2}}
    made = table.table(deployments, "v1", [scale], now=NOW)
    assert made["rows"][0]["cells"] == ["a", 3, 2, "<unknown>"]
    assert [column["name"] for column in made["columnDefinitions"]] == ["Name", "Desired", "Available", "Age"]


def test_partial_objects():
    assert table.partial_metadata(ITEM) == PARTIAL
    made = table.partial_metadata_list([ITEM], {"resourceVersion": "9"})
    assert made == {
        "kind": "PartialObjectMetadataList",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": "9"},
        "items": [PARTIAL],
    }


def custom(columns):
    return dataclasses.replace(CONFIG_MAPS, kind="Widget", custom=True, columns={}, extra={"columns": {"v1": columns}})


WIDGET = {
    "kind": "Widget",
    "metadata": {"name": "w", "creationTimestamp": MADE},
    "spec": {"size": 3, "ratio": 2, "on": True, "tags": ["a", "b"], "when": "soon", "none": None},
}


@pytest.mark.parametrize(
    ("kind", "path", "cell"),
    [
        ("integer", ".spec.size", 3),
        ("integer", ".spec.on", None),
        ("number", ".spec.ratio", 2.0),
        ("number", ".spec.when", None),
        ("boolean", ".spec.on", True),
        ("boolean", ".spec.size", None),
        ("string", ".spec.size", "3"),
        ("string", ".spec.on", "true"),
        ("string", ".spec.tags", "[a b]"),
        ("string", ".spec.tags[*]", "a"),
        ("string", ".spec.none", "null"),
        ("string", ".spec.absent", None),
        ("date", ".metadata.creationTimestamp", "60m"),
        ("date", ".spec.when", "<invalid>"),
        ("date", ".spec.size", None),
    ],
)
def test_columns_of_custom_kinds(kind, path, cell):
    rtype = custom([{"name": "X", "type": kind, "jsonPath": path, "priority": 1}])
    assert table.cells(rtype, "v1", WIDGET, NOW) == ["w", cell]
    told = table.columns(rtype, "v1")
    assert [(column["name"], column["type"], column["priority"]) for column in told] == [
        ("Name", "string", 0),
        ("X", kind, 1),
    ]


def test_custom_kinds_without_columns_show_their_age():
    assert table.cells(custom([]), "v1", WIDGET, NOW) == ["w", "60m"]
    assert [column["name"] for column in table.columns(custom([]), "v1")] == ["Name", "Age"]
