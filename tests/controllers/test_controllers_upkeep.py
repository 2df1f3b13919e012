"""Small controllers that keep something in order: protection, aggregation, quotas."""

from __future__ import annotations

from typing import Any

import pytest
from kubeobjects import NOW, answer, asked, deleting, obj, pod, status_of, writes

from fastkube.controllers import clusterrole_aggregation, protection, resourcequota
from fastkube.controllers.common import PODS
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
