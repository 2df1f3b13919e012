"""Small controllers that keep something in order: protection, aggregation, quotas."""

from __future__ import annotations

from typing import Any

import pytest
from kubeobjects import NOW, answer, asked, deleting, flat, obj, owned_by, pod, status_of, writes

from fastkube.clock import rfc3339
from fastkube.controllers import (
    clusterrole_aggregation,
    endpointslicemirroring,
    ephemeral_volume,
    node_ipam,
    node_ttl,
    protection,
    resourcequota,
    service_cidr,
)
from fastkube.controllers.actions import Delete, Fail, Requeue, Tell
from fastkube.controllers.common import PODS
from fastkube.controllers.options import ControllerManagerOptions
from fastkube.controllers.services import SERVICES
from fastkube.controllers.statefulset import CLAIMS

Object = dict[str, Any]

# ---------------------------------------------------------------- protection


def claim(**metadata: Any) -> Object:
    return obj("PersistentVolumeClaim", "data", spec={}, **{f"m_{key}": value for key, value in metadata.items()})


def held(thing: Object, used: bool, path: str = "") -> protection.View:
    return protection.View(CLAIMS, thing, protection.CLAIM_FINALIZER, used, path)


def test_a_finalizer_protects_and_is_put_once() -> None:
    (patch,) = writes(protection.reconcile(held(claim(finalizers=["mine"]), used=False)))
    assert patch.body["metadata"]["finalizers"] == ["mine", "kubernetes.io/pvc-protection"]
    assert protection.reconcile(held(claim(finalizers=["kubernetes.io/pvc-protection"]), used=False)) == ()


def test_what_is_in_use_stays() -> None:
    gone = deleting(claim(finalizers=["kubernetes.io/pvc-protection"]))
    assert protection.reconcile(held(gone, used=True)) == ()


@pytest.mark.parametrize(
    ("phase", "node", "marked", "kept"),
    [
        ("Running", "n1", False, True),
        ("Succeeded", "n1", False, False),
        ("Pending", "", False, True),
        ("Pending", "", True, False),
        ("Running", "n1", True, True),
    ],
)
def test_the_server_is_asked_before_a_claim_is_let_go(phase: str, node: str, marked: bool, kept: bool) -> None:
    view = held(deleting(claim(finalizers=["kubernetes.io/pvc-protection"])), used=False, path="/pods")
    assert asked(protection.reconcile(view)) == ["/pods"]
    user = pod("p", phase=phase, node=node)
    user["spec"]["volumes"] = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
    user = deleting(user) if marked else user
    done = writes(protection.reconcile(answer(view, {"/pods": {"items": [user]}})))
    assert bool(done) is not kept


# ---------------------------------------------------------------- aggregated ClusterRoles


def role(name: str, rules: list[Object] | None = None, *, selects: Object | None = None, **labels: str) -> Object:
    made = obj("ClusterRole", name, "rbac.authorization.k8s.io/v1", namespace="", rules=rules, m_labels=labels)
    if selects:
        made["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": selects}]}
    return made


def rule(*verbs: str) -> Object:
    return {"verbs": list(verbs), "apiGroups": [""], "resources": ["pods"]}


def test_aggregated_rules_are_those_of_the_selected_roles_each_once() -> None:
    whole = role("whole", selects={"add": "true"})
    others = [
        role("a", [rule("get")], add="true"),
        role("b", [rule("get"), rule("list")], add="true"),
        role("c", [rule("x")]),
    ]
    (apply,) = writes(clusterrole_aggregation.reconcile(clusterrole_aggregation.View(whole, others)))
    assert apply.body["rules"] == [rule("get"), rule("list")]
    assert (apply.kind, apply.field_manager, apply.force) == ("apply", "clusterrole-aggregation-controller", True)
    whole["rules"] = apply.body["rules"]
    assert clusterrole_aggregation.reconcile(clusterrole_aggregation.View(whole, others)) == ()


# ---------------------------------------------------------------- quotas


def quota(hard: Object, status: Object | None = None, **spec: Any) -> Object:
    made = obj("ResourceQuota", "q", spec={"hard": hard, **spec})
    return {**made, "status": status} if status else made


def counted(made: Object, pods: list[Object] | None = None, **counts: str) -> resourcequota.View:
    paths = {name.replace("_", "/"): path for name, path in counts.items()}
    return resourcequota.View(made, {PODS: pods or [], SERVICES: [], CLAIMS: []}, paths, NOW)


def asking(name: str, cpu: str = "", **more: Any) -> Object:
    made = pod(name, **more)
    made["spec"]["containers"] = [{"name": "c", "resources": {"requests": {"cpu": cpu}} if cpu else {}}]
    return made


def test_pods_that_run_are_summed_up() -> None:
    made = quota({"pods": "5", "requests.cpu": "2", "limits.memory": "1Gi"})
    pods = [asking("a", "100m"), asking("b", "1"), asking("done", "1", phase="Succeeded")]
    status = status_of(resourcequota.reconcile(counted(made, pods)))
    assert status == {
        "hard": {"pods": "5", "requests.cpu": "2", "limits.memory": "1Gi"},
        "used": {"pods": "2", "requests.cpu": "1100m", "limits.memory": "0"},
    }


def test_scopes_choose_the_pods() -> None:
    made = quota({"pods": "5"}, scopes=["BestEffort"])
    status = status_of(resourcequota.reconcile(counted(made, [asking("a", "1"), asking("b")])))
    assert status is not None
    assert status["used"] == {"pods": "1"}


def test_other_objects_are_counted_by_the_server() -> None:
    view = counted(quota({"count/deployments.apps": "3"}), **{"count_deployments.apps": "/deployments?limit=1"})
    (path,) = asked(resourcequota.reconcile(view))
    listed = {"metadata": {"remainingItemCount": 4}, "items": [{}]}
    status = status_of(resourcequota.reconcile(answer(view, {path: listed})))
    assert status is not None
    assert status["used"] == {"count/deployments.apps": "5"}


def test_a_count_that_is_right_is_not_written_and_a_limit_that_is_gone_is_dropped() -> None:
    right = {"hard": {"pods": "1"}, "used": {"pods": "1"}}
    assert resourcequota.reconcile(counted(quota({"pods": "1"}, right), [asking("a")])) == ()
    old = {"hard": {"pods": "1", "services": "1"}, "used": {"pods": "1", "services": "0"}}
    assert status_of(resourcequota.reconcile(counted(quota({"pods": "1"}, old), [asking("a")]))) == right


# ---------------------------------------------------------------- nodes


@pytest.mark.parametrize(
    ("nodes", "present", "wanted"),
    [
        (1, None, "0"),
        (95, "0", None),
        (95, "15", None),
        (101, "0", "15"),
        (89, "15", "0"),
        (5000, "0", "300"),
        (1900, "300", None),
        (10, "rubbish", "0"),
    ],
)
def test_the_ttl_of_nodes_rises_with_their_number(nodes: int, present: str | None, wanted: str | None) -> None:
    node = obj("Node", "n", namespace="", m_annotations={node_ttl.TTL: present} if present else {})
    patches = writes(node_ttl.reconcile(node_ttl.View(node, nodes)))
    assert [patch.body["metadata"]["annotations"][node_ttl.TTL] for patch in patches] == ([wanted] if wanted else [])


def test_a_node_gets_a_range_of_each_family() -> None:
    node = obj("Node", "n", namespace="", spec={})
    (patch,) = writes(node_ipam.reconcile(node_ipam.View(node, ["10.244.3.0/24", "fd00::/64"], 2)))
    assert patch.body["spec"] == {"podCIDR": "10.244.3.0/24", "podCIDRs": ["10.244.3.0/24", "fd00::/64"]}
    told, failed = node_ipam.reconcile(node_ipam.View(node, [], 1))
    assert isinstance(told, Tell) and told.reason == "CIDRNotAvailable" and isinstance(failed, Fail)


def test_ranges_are_given_out_from_where_the_last_ended() -> None:
    (pool,) = node_ipam.pools_of(ControllerManagerOptions(cluster_cidr="10.244.0.0/22", node_cidr_mask_size=24))
    assert list(pool.ranges(3)) == ["10.244.3.0/24", "10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"]


@pytest.mark.parametrize("cidr", ["", "nonsense", "10.0.0.0/28", "10.0.0.0/8,10.1.0.0/16"])
def test_cluster_cidrs_that_cannot_be_used_are_refused(cidr: str) -> None:
    with pytest.raises(ValueError, match="cidr"):
        node_ipam.pools_of(ControllerManagerOptions(cluster_cidr=cidr))


# ---------------------------------------------------------------- ephemeral volumes


def with_volume() -> Object:
    made = pod("p")
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    made["spec"]["volumes"] = [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]
    return made


def test_a_claim_is_made_for_an_ephemeral_volume_and_owned_by_the_pod() -> None:
    made = with_volume()
    (create,) = writes(ephemeral_volume.reconcile(ephemeral_volume.View(made, {})))
    assert create.obj["metadata"]["name"] == "p-scratch" and create.obj["metadata"]["labels"] == {"a": "b"}
    assert create.obj["metadata"]["ownerReferences"] == owned_by(made)
    assert ephemeral_volume.reconcile(ephemeral_volume.View(made, {"p-scratch": create.obj})) == []


def test_somebody_elses_claim_is_not_taken() -> None:
    stranger = obj("PersistentVolumeClaim", "p-scratch")
    told, failed = ephemeral_volume.reconcile(ephemeral_volume.View(with_volume(), {"p-scratch": stranger}))
    assert isinstance(told, Tell) and isinstance(failed, Fail)
    assert told.message == (
        "ephemeral volume scratch: PVC default/p-scratch was not created for pod default/p (pod is not owner)"
    )


# ---------------------------------------------------------------- service CIDRs


def cidr(name: str = "extra", text: str = "10.1.0.0/24", **more: Any) -> Object:
    return obj("ServiceCIDR", name, "networking.k8s.io/v1", namespace="", spec={"cidrs": [text]}, **more)


def test_a_new_cidr_gets_a_finalizer_and_becomes_ready() -> None:
    finalizers, ready = writes(service_cidr.reconcile(service_cidr.View(cidr(), [], [], NOW)))
    assert finalizers.body["metadata"]["finalizers"] == [service_cidr.FINALIZER]
    assert ready.body["status"]["conditions"][0]["message"] == "Kubernetes Service CIDR is ready"


@pytest.mark.parametrize(
    ("addresses", "others", "ago_s", "expected"),
    [
        (["10.1.0.7"], [], 20, "Terminating"),
        (["10.1.0.7"], ["10.0.0.0/8"], 20, "released"),
        (["10.9.0.7"], [], 20, "released"),
        ([], [], 2, "waits"),
    ],
)
def test_a_cidr_stays_as_long_as_an_address_needs_it(
    addresses: list[str], others: list[str], ago_s: float, expected: str
) -> None:
    going = cidr(m_finalizers=[service_cidr.FINALIZER], m_deletionTimestamp=rfc3339(NOW - ago_s))
    view = service_cidr.View(going, [cidr("o", text) for text in others], addresses, NOW)
    (action,) = service_cidr.reconcile(view)
    if expected == "waits":
        assert isinstance(action, Requeue) and action.after_s == 8
    elif expected == "released":
        assert action.body["metadata"]["finalizers"] is None  # type: ignore[attr-defined]
    else:
        assert action.body["status"]["conditions"][0]["reason"] == expected  # type: ignore[attr-defined]


# ---------------------------------------------------------------- mirrored endpoints


def endpoints(*ips: str, ready: bool = True, **more: Any) -> Object:
    key = "addresses" if ready else "notReadyAddresses"
    subset = {key: [{"ip": ip} for ip in ips], "ports": [{"port": 80, "protocol": "TCP"}]}
    return obj("Endpoints", "legacy", subsets=[subset], **more)


def mirror(made: Object | None, slices: list[Object] | None = None, limit: int = 1000) -> list[Any]:
    return flat(endpointslicemirroring.reconcile(endpointslicemirroring.View(made, slices or [], limit)))


def test_endpoints_are_mirrored_by_address_family() -> None:
    made = endpoints("10.0.0.1", "fd00::1", "nonsense", m_labels={"l": "v"}, m_annotations={"a": "b"})
    told, *creates = mirror(made)
    assert told.reason == "InvalidIPAddress"
    assert [create.obj["addressType"] for create in creates] == ["IPv4", "IPv6"]
    metadata = creates[0].obj["metadata"]
    assert metadata["labels"] == {
        "l": "v",
        "kubernetes.io/service-name": "legacy",
        "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io",
    }
    assert metadata["annotations"] == {"a": "b"} and metadata["ownerReferences"][0]["kind"] == "Endpoints"
    assert creates[0].obj["endpoints"] == [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}]


def test_a_mirror_that_is_right_stays_and_one_without_a_model_goes() -> None:
    made = endpoints("10.0.0.1", ready=False)
    (create,) = mirror(made)
    present = {**create.obj, "metadata": {**create.obj["metadata"], "name": "legacy-x", "uid": "u"}}
    assert mirror(made, [present]) == []
    (delete,) = mirror(None, [present])
    assert isinstance(delete, Delete)


def test_only_so_many_addresses_are_mirrored() -> None:
    told, create = mirror(endpoints("10.0.0.1", "10.0.0.2", "10.0.0.3"), limit=2)
    assert told.message.endswith("per Endpoints subset. 1 addresses were skipped")
    assert len(create.obj["endpoints"]) == 2
