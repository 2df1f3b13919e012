"""--admission-control-config-file: what it says to PodSecurity, EventRateLimit, ResourceQuota and webhooks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from apis import ALICE, running

from fastkube.clock import RealClock
from fastkube.server.admission.configuration import Configurations
from fastkube.server.admission.hook_users import HookUsers

POD = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
PODS = "/api/v1/namespaces/default/pods"


def config(directory: Path, **documents: Any) -> str:
    directory.mkdir(exist_ok=True)
    file = directory / "admission.yaml"
    plugins = [{"name": name, "configuration": document} for name, document in documents.items()]
    head = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration"}
    file.write_text(json.dumps({**head, "plugins": plugins}))
    return str(file)


def security(**more: Any) -> dict[str, Any]:
    return {"apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration", **more}


async def test_pod_security_has_defaults_and_exemptions(tmp_path: Path) -> None:
    document = security(
        defaults={"enforce": "baseline", "enforce-version": "latest"},
        exemptions={"usernames": ["alice"], "namespaces": ["free"], "runtimeClasses": ["sandbox"]},
    )
    host = {"metadata": {"name": "p"}, "spec": {"hostNetwork": True, "containers": POD["spec"]["containers"]}}
    async with running(tmp_path / "s", admission_control_config_file=config(tmp_path, PodSecurity=document)) as api:
        answer = await api.request("POST", PODS, host)
        assert answer.status == 403
        assert answer.json["message"] == (
            'pods "p" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)'
        )
        free = {"metadata": {"name": "free", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
        made = await api.request("POST", "/api/v1/namespaces", free)
        assert made.headers["Warning"] == (
            '299 - "namespace \\"free\\" is exempt from Pod Security, and the policy (enforce=restricted:latest) will '
            'be ignored"'
        )
        await api.create("/api/v1/namespaces/free/pods", host)
        open_ = {"metadata": {"name": "open", "labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}
        await api.create("/api/v1/namespaces", open_)
        await api.create("/api/v1/namespaces/open/pods", host)
        answer = await api.request("POST", PODS, host, token=ALICE)
        assert "PodSecurity" not in answer.json["message"]
        classes = "/apis/node.k8s.io/v1/runtimeclasses"
        await api.create(classes, {"metadata": {"name": "sandbox"}, "handler": "h"})
        await api.create(PODS, {**host, "spec": {**host["spec"], "runtimeClassName": "sandbox"}})


async def test_events_are_limited(tmp_path: Path) -> None:
    limits = [{"type": "Namespace", "qps": 1, "burst": 2}, {"type": "User", "qps": 100, "burst": 100}]
    document = {"apiVersion": "eventratelimit.admission.k8s.io/v1alpha1", "kind": "Configuration", "limits": limits}
    options = {
        "enable_admission_plugins": ("EventRateLimit",),
        "admission_control_config_file": config(tmp_path, EventRateLimit=document),
    }
    event = {"involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "reason": "r"}
    async with running(tmp_path / "s", **options) as api:
        codes = []
        for number in range(4):
            body = {"metadata": {"name": f"e{number}"}, **event}
            answer = await api.request("POST", "/api/v1/namespaces/default/events", body)
            codes.append(answer.status)
        assert codes[:2] == [201, 201] and codes[3] == 429
        assert answer.json["reason"] == "TooManyRequests"
        assert answer.json["message"] == "limit reached on type Namespace for key default"


async def test_what_is_limited_needs_a_quota(tmp_path: Path) -> None:
    scope = {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}
    document = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "ResourceQuotaConfiguration",
        "limitedResources": [
            {"resource": "persistentvolumeclaims", "matchContains": ["gold.storageclass"]},
            {"resource": "pods", "matchScopes": [scope]},
        ],
    }
    claim = {
        "metadata": {"name": "c"},
        "spec": {
            "storageClassName": "gold",
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    claims = "/api/v1/namespaces/default/persistentvolumeclaims"
    async with running(tmp_path / "s", admission_control_config_file=config(tmp_path, ResourceQuota=document)) as api:
        answer = await api.request("POST", claims, claim)
        gold = "gold.storageclass.storage.k8s.io"
        assert answer.json["message"] == (
            f'persistentvolumeclaims "c" is forbidden: insufficient quota to consume: {gold}/persistentvolumeclaims,'
            f"{gold}/requests.storage"
        )
        await api.create(claims, {**claim, "spec": {**claim["spec"], "storageClassName": "lead"}})
        classes = "/apis/scheduling.k8s.io/v1/priorityclasses"
        await api.create(classes, {"metadata": {"name": "high"}, "value": 1})
        answer = await api.request("POST", PODS, {**POD, "spec": {**POD["spec"], "priorityClassName": "high"}})
        assert "insufficient quota to match these scopes: [{PriorityClass In [high]}]" in answer.json["message"]
        await api.create(PODS, POD)


@pytest.mark.parametrize(
    ("documents", "told"),
    [
        (
            {"PodSecurity": security(defaults={"enforce": "open"})},
            'defaults.enforce: Invalid value: "open": must be one of privileged, baseline, restricted',
        ),
        (
            {"PodSecurity": security(exemptions={"usernames": ["", "a", "a"]})},
            '[exemptions.usernames[0]: Invalid value: "": username must not be empty, exemptions.usernames[2]: '
            'Duplicate value: "a"]',
        ),
        ({"PodSecurity": {"kind": "X", "apiVersion": "v1"}}, 'no kind "X" is registered for version "v1"'),
        ({"LimitRanger": {"kind": "X"}}, "LimitRanger takes no configuration"),
        (
            {
                "ValidatingAdmissionWebhook": {
                    "apiVersion": "apiserver.config.k8s.io/v1",
                    "kind": "WebhookAdmissionConfiguration",
                    "kubeConfigFile": "relative",
                }
            },
            'kubeConfigFile: Invalid value: "relative": must be an absolute file path',
        ),
    ],
)
async def test_configurations_that_cannot_be(tmp_path: Path, documents: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError) as caught:
        async with running(tmp_path / "s", admission_control_config_file=config(tmp_path, **documents)):
            pass
    assert told in str(caught.value)


def test_a_configuration_may_be_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(json.dumps(security()))
    head = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration"}
    (tmp_path / "a.yaml").write_text(json.dumps({**head, "plugins": [{"name": "PodSecurity", "path": "own.yaml"}]}))
    kind = ("PodSecurityConfiguration", "pod-security.admission.config.k8s.io", ("v1",))
    assert Configurations.load(str(tmp_path / "a.yaml")).of("PodSecurity", *kind) == security()


def test_webhooks_are_shown_the_user_for_their_host(tmp_path: Path) -> None:
    names = ("hook.ns.svc", "*.ns.svc", "hook.example.com:8443", "*", "me")
    users = [{"name": name, "user": {"token": f"for {name}"}} for name in names]
    contexts = [{"name": "c", "context": {"user": "me", "cluster": ""}}]
    file = tmp_path / "kubeconfig"
    for last, others in (("for *", users), ("for me", [one for one in users if one["name"] != "*"])):
        file.write_text(json.dumps({"users": others, "contexts": contexts, "current-context": "c"}))
        known = HookUsers(str(file), RealClock())
        told = [
            (known.for_host(host, port) or pytest.fail("nobody")).tokens.token()
            for host, port in (
                ("hook.ns.svc", 443),
                ("other.ns.svc", 443),
                ("hook.example.com", 8443),
                ("hook.example.com", 443),
            )
        ]
        assert told == ["for hook.ns.svc", "for *.ns.svc", "for hook.example.com:8443", last]
