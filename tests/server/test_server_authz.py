"""Who may do what: RBAC, the Node authorizer, escalation, and the reviews that ask about it."""

from __future__ import annotations

import timeit
from pathlib import Path

import pytest
from apis import ADMIN, ALICE, BOB, Api, running

from fastkube.registry.strategy import UserInfo
from fastkube.server.escalation import not_covered, show_rule
from fastkube.server.rbac import Rule
from fastkube.server.request import Attributes

GROUP = "rbac.authorization.k8s.io"
RBAC = f"/apis/{GROUP}/v1"
LOCAL = f"{RBAC}/namespaces/default"
REVIEWS = "/apis/authorization.k8s.io/v1"
MAPS = "/api/v1/namespaces/default/configmaps"


def role(name: str, *rules: dict, kind: str = "Role") -> dict:
    return {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": {"name": name}, "rules": list(rules)}


def binding(name: str, subject: dict, role_name: str, *, kind: str = "RoleBinding", role_kind: str = "Role") -> dict:
    reference = {"apiGroup": GROUP, "kind": role_kind, "name": role_name}
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": kind,
        "metadata": {"name": name},
        "roleRef": reference,
        "subjects": [subject],
    }


USER_ALICE = {"kind": "User", "name": "alice", "apiGroup": GROUP}
GROUP_OPS = {"kind": "Group", "name": "ops", "apiGroup": GROUP}
READ_MAPS = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}


# ---------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("rule", "attributes", "covered"),
    [
        ({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}, Attributes("get", "", "pods"), True),
        ({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}, Attributes("list", "", "pods"), False),
        ({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}, Attributes("get", "apps", "pods"), False),
        ({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}, Attributes("get", "", "pods", "log"), False),
        ({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]}, Attributes("get", "", "pods", "log"), True),
        ({"verbs": ["get"], "apiGroups": [""], "resources": ["*/log"]}, Attributes("get", "", "pods", "log"), True),
        ({"verbs": ["get"], "apiGroups": [""], "resources": ["*/log"]}, Attributes("get", "", "pods"), False),
        ({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, Attributes("x", "y", "z", "s"), True),
        ({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, Attributes("get", path="/healthz"), False),
        ({"verbs": ["get"], "nonResourceURLs": ["/healthz"]}, Attributes("get", path="/healthz"), True),
        ({"verbs": ["get"], "nonResourceURLs": ["/healthz"]}, Attributes("get", path="/healthz/x"), False),
        ({"verbs": ["get"], "nonResourceURLs": ["/api/*"]}, Attributes("get", path="/api/v1"), True),
        ({"verbs": ["get"], "nonResourceURLs": ["/api/*"]}, Attributes("get", path="/api"), False),
        ({"verbs": ["get"], "nonResourceURLs": ["*"]}, Attributes("get", path="/x"), True),
        ({"verbs": ["get"]}, Attributes("get", "", "pods"), False),
    ],
)
def test_rules(rule: dict, attributes: Attributes, covered: bool) -> None:
    assert Rule(rule, "").covers(attributes) is covered


async def test_a_change_counts_at_once(api: Api) -> None:
    async def may(token: str) -> bool:
        return (await api.request("GET", MAPS, token=token)).status == 200

    assert not await may(ALICE)
    await api.create(f"{LOCAL}/rolebindings", binding("b", USER_ALICE, "reader"))
    assert not await may(ALICE)
    await api.create(f"{LOCAL}/roles", role("reader", READ_MAPS))
    assert await may(ALICE)
    assert not await may(BOB)
    assert (await api.request("GET", "/api/v1/configmaps", token=ALICE)).status == 403
    await api.merge(f"{LOCAL}/rolebindings/b", {"subjects": [GROUP_OPS]})
    assert await may(BOB)
    assert not await may(ALICE)
    await api.delete(f"{LOCAL}/roles/reader")
    assert not await may(BOB)
    await api.create(f"{LOCAL}/roles", role("reader", READ_MAPS))
    assert await may(BOB)
    await api.delete(f"{LOCAL}/rolebindings/b")
    assert not await may(BOB)


async def test_resource_names(api: Api) -> None:
    named = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"], "resourceNames": ["mine"]}
    await api.create(f"{LOCAL}/roles", role("named", named))
    await api.create(f"{LOCAL}/rolebindings", binding("b", USER_ALICE, "named"))
    for name in ("mine", "yours"):
        await api.create(MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
    paths = (f"{MAPS}/mine", f"{MAPS}/yours", MAPS, f"{MAPS}?fieldSelector=metadata.name%3Dmine")
    codes = [(await api.request("GET", path, token=ALICE)).status for path in paths]
    assert codes == [200, 403, 403, 200]


@pytest.mark.parametrize(
    ("method", "path", "what", "asked"),
    [
        ("GET", MAPS, "configmaps", 'list resource "configmaps" in API group "" in the namespace "default"'),
        (
            "DELETE",
            f"{MAPS}/a",
            'configmaps "a"',
            'delete resource "configmaps" in API group "" in the namespace "default"',
        ),
        ("GET", "/api/v1/nodes", "nodes", 'list resource "nodes" in API group "" at the cluster scope'),
        (
            "PATCH",
            "/apis/apps/v1/namespaces/a/deployments/d/scale",
            'deployments.apps "d"',
            'patch resource "deployments/scale" in API group "apps" in the namespace "a"',
        ),
        (
            "GET",
            "/apis/none.io/v1/things",
            "things.none.io",
            'list resource "things" in API group "none.io" at the cluster scope',
        ),
    ],
)
async def test_refusals_say_what_was_asked(api: Api, method: str, path: str, what: str, asked: str) -> None:
    response = await api.request(method, path, token=ALICE)
    assert response.status == 403
    assert response.json["message"] == f'{what} is forbidden: User "alice" cannot {asked}'
    metrics = await api.request("GET", "/metrics", token=ALICE)
    assert metrics.json["message"] == 'forbidden: User "alice" cannot get path "/metrics"'


async def test_missing_roles_are_told(api: Api) -> None:
    await api.create(f"{LOCAL}/rolebindings", binding("b", USER_ALICE, "ghost", role_kind="ClusterRole"))
    response = await api.request("GET", MAPS, token=ALICE)
    assert response.json["message"].endswith('RBAC: clusterrole.rbac.authorization.k8s.io "ghost" not found')


async def test_a_kept_decision_is_cheap(api: Api) -> None:
    user, attributes = UserInfo("alice", ("dev", "system:authenticated")), Attributes("list", "", "pods", "", "default")
    decide = api.server.authorizer.allows
    decide(user, attributes)
    best = min(timeit.repeat(lambda: decide(user, attributes), number=2000, repeat=5)) / 2000
    assert best < 20e-6  # it is about 0.3 us; this fails when the rules are gone through each time


async def test_always_allow(tmp_path: Path) -> None:
    async with running(tmp_path, authorization_mode=("AlwaysAllow",)) as api:
        assert (await api.request("GET", MAPS, token="")).status == 200


# ---------------------------------------------------------------- escalation


def test_what_is_not_covered() -> None:
    held = [READ_MAPS, {"apiGroups": ["apps"], "resources": ["*"], "verbs": ["*"], "resourceNames": ["x"]}]
    wanted = [
        {"apiGroups": [""], "resources": ["configmaps", "secrets"], "verbs": ["get", "watch"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"], "resourceNames": ["x", "y"]},
        {"nonResourceURLs": ["/metrics"], "verbs": ["get"]},
    ]
    assert [show_rule(rule) for rule in not_covered(held, wanted)] == [
        '{APIGroups:[""], Resources:["configmaps"], Verbs:["watch"]}',
        '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "watch"]}',
        '{APIGroups:["apps"], Resources:["deployments"], ResourceNames:["y"], Verbs:["get"]}',
        '{NonResourceURLs:["/metrics"], Verbs:["get"]}',
    ]


async def test_nobody_gives_what_they_do_not_have(api: Api) -> None:
    manage = {
        "apiGroups": [GROUP],
        "resources": ["roles", "rolebindings"],
        "verbs": ["create", "update", "patch", "get"],
    }
    await api.create(f"{LOCAL}/roles", role("manager", manage, READ_MAPS))
    await api.create(f"{LOCAL}/rolebindings", binding("b", USER_ALICE, "manager"))
    await api.create(f"{LOCAL}/roles", role("fine", READ_MAPS), token=ALICE)
    everything = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
    refused = await api.request("POST", f"{LOCAL}/roles", role("bad", everything), token=ALICE)
    assert refused.json["message"] == (
        'roles.rbac.authorization.k8s.io "bad" is forbidden: user "alice" (groups=["dev" "system:authenticated"]) is '
        "attempting to grant RBAC permissions not currently held:\n"
        '{APIGroups:["*"], Resources:["*"], Verbs:["*"]}'
    )
    patched = await api.request(
        "PATCH",
        f"{LOCAL}/roles/fine",
        {"rules": [everything]},
        token=ALICE,
        headers={"Content-Type": "application/merge-patch+json"},
    )
    assert patched.status == 403
    await api.create(f"{LOCAL}/rolebindings", binding("ok", USER_ALICE, "fine"), token=ALICE)
    admin = binding("esc", USER_ALICE, "cluster-admin", role_kind="ClusterRole")
    assert (await api.request("POST", f"{LOCAL}/rolebindings", admin, token=ALICE)).status == 403


# ---------------------------------------------------------------- nodes


def as_node(name: str) -> dict[str, str]:
    return {"Impersonate-User": f"system:node:{name}", "Impersonate-Group": "system:nodes"}


async def test_nodes_read_what_their_pods_need(api: Api) -> None:
    secrets = "/api/v1/namespaces/default/secrets"
    for name in ("volume", "env", "pull", "other"):
        await api.create(secrets, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque"})
    reference = {"name": "X", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}}
    spec = {
        "nodeName": "n1",
        "containers": [{"name": "c", "image": "i", "env": [reference]}],
        "volumes": [{"name": "s", "secret": {"secretName": "volume"}}],
        "imagePullSecrets": [{"name": "pull"}],
    }
    pods = "/api/v1/namespaces/default/pods"

    async def readable(node: str) -> list[str]:
        names = ("volume", "env", "pull", "other")
        codes = [(await api.request("GET", f"{secrets}/{name}", headers=as_node(node))).status for name in names]
        return [name for name, code in zip(names, codes, strict=True) if code == 200]

    assert await readable("n1") == []
    await api.create(pods, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
    assert await readable("n1") == ["volume", "env", "pull"]
    assert await readable("n2") == []
    refused = await api.request("GET", f"{secrets}/other", headers=as_node("n1"))
    assert refused.json["message"].endswith("no relationship found between node 'n1' and this object")
    listed = await api.request("GET", secrets, headers=as_node("n1"))
    assert listed.json["message"].endswith(": No Object name found")
    await api.request("DELETE", f"{pods}/p?gracePeriodSeconds=0")
    assert await readable("n1") == []


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/v1/nodes/n1", True),
        ("GET", "/api/v1/nodes/n2", False),
        ("GET", "/api/v1/nodes", False),
        ("GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dn1", True),
        ("GET", "/api/v1/pods", False),
        ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", True),
        ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2", False),
        ("GET", "/api/v1/services", True),
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1", True),
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2", False),
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/default/leases/n1", False),
        ("GET", "/apis/storage.k8s.io/v1/csinodes/n1", True),
        ("GET", "/apis/storage.k8s.io/v1/csinodes/n2", False),
        ("DELETE", "/api/v1/namespaces/default/configmaps/a", False),
        ("GET", "/apis/apps/v1/deployments", False),
    ],
)
async def test_nodes_keep_to_themselves(api: Api, method: str, path: str, allowed: bool) -> None:
    response = await api.request(method, path, headers=as_node("n1"))
    assert (response.status != 403) is allowed, response.body


# ---------------------------------------------------------------- reviews


async def test_access_reviews(api: Api) -> None:
    async def ask(kind: str, spec: dict, **more) -> dict:
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
        return (await api.create(f"{REVIEWS}/{kind.lower()}s", body, **more))["status"]

    wanted = {"resourceAttributes": {"verb": "list", "resource": "configmaps", "namespace": "default"}}
    assert await ask("SelfSubjectAccessReview", wanted) == {"allowed": True}
    assert await ask("SelfSubjectAccessReview", wanted, token=ALICE) == {"allowed": False}
    await api.create(f"{LOCAL}/roles", role("reader", READ_MAPS))
    await api.create(f"{LOCAL}/rolebindings", binding("b", GROUP_OPS, "reader"))
    reason = 'RBAC: allowed by RoleBinding "b/default" of Role "reader" to Group "ops"'
    assert await ask("SelfSubjectAccessReview", wanted, token=BOB) == {"allowed": True, "reason": reason}
    assert await ask("SubjectAccessReview", {**wanted, "groups": ["ops"]}) == {"allowed": True, "reason": reason}
    path = {"nonResourceAttributes": {"path": "/logs", "verb": "get"}}
    assert await ask("SubjectAccessReview", {**path, "user": "alice"}) == {"allowed": False}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "spec.resourceAttributes"),
        ({"resourceAttributes": {}, "nonResourceAttributes": {"path": "/x"}}, "spec.nonResourceAttributes"),
    ],
)
async def test_reviews_are_checked(api: Api, spec: dict, field: str) -> None:
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec}
    response = await api.request("POST", f"{REVIEWS}/selfsubjectaccessreviews", body)
    assert response.status == 422
    assert [cause["field"] for cause in response.json["details"]["causes"]] == [field]


async def test_rules_reviews_list_what_one_may_do(api: Api) -> None:
    await api.create(f"{LOCAL}/roles", role("reader", READ_MAPS))
    await api.create(f"{LOCAL}/rolebindings", binding("b", USER_ALICE, "reader"))
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "default"}}
    status = (await api.create(f"{REVIEWS}/selfsubjectrulesreviews", body, token=ALICE))["status"]
    assert READ_MAPS in status["resourceRules"]
    assert any("/healthz" in rule["nonResourceURLs"] for rule in status["nonResourceRules"])
    assert status["incomplete"] is False
    assert (await api.create(f"{REVIEWS}/selfsubjectrulesreviews", body, token=ADMIN))["status"]["resourceRules"]
