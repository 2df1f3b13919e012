"""Webhook configurations, admission policies and bindings: defaults and what is refused."""

from typing import Any

import pytest
from clusters import Cluster, refused

from fastkube.errors import ApiError

GROUP = "admissionregistration.k8s.io"
MUTATING, VALIDATING = f"mutatingwebhookconfigurations.{GROUP}", f"validatingwebhookconfigurations.{GROUP}"
POLICIES, BINDINGS = f"validatingadmissionpolicies.{GROUP}", f"validatingadmissionpolicybindings.{GROUP}"
MUTATIONS = f"mutatingadmissionpolicies.{GROUP}"
RULE = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}


def hook(**more: Any) -> dict[str, Any]:
    whole = {
        "name": "w.example.com",
        "clientConfig": {"url": "https://127.0.0.1/x"},
        "rules": [RULE],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    return {**whole, **more}


def hooks(*listed: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "a"}, "webhooks": list(listed)}


def policy(**spec: Any) -> dict[str, Any]:
    whole = {"matchConstraints": {"resourceRules": [RULE]}, "validations": [{"expression": "true"}], **spec}
    return {"metadata": {"name": "a"}, "spec": whole}


def mutation(**spec: Any) -> dict[str, Any]:
    patch = {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}}
    whole = {
        "matchConstraints": {"resourceRules": [RULE]},
        "mutations": [patch],
        "reinvocationPolicy": "Never",
        **spec,
    }
    return {"metadata": {"name": "a"}, "spec": whole}


async def test_defaults_of_webhooks(cluster: Cluster):
    made = await cluster.create(MUTATING, hooks(hook(clientConfig={"service": {"name": "s", "namespace": "n"}})))
    (found,) = made["webhooks"]
    assert made["metadata"]["generation"] == 1
    assert (found["failurePolicy"], found["matchPolicy"], found["reinvocationPolicy"]) == (
        "Fail",
        "Equivalent",
        "Never",
    )
    assert (found["namespaceSelector"], found["objectSelector"], found["timeoutSeconds"]) == ({}, {}, 10)
    assert (found["rules"][0]["scope"], found["clientConfig"]["service"]["port"]) == ("*", 443)


async def test_defaults_of_policies(cluster: Cluster):
    made = await cluster.create(POLICIES, {**policy(), "status": {"observedGeneration": 3}})
    assert (made["spec"]["failurePolicy"], made["status"]) == ("Fail", {})
    constraints = made["spec"]["matchConstraints"]
    assert (constraints["matchPolicy"], constraints["namespaceSelector"]) == ("Equivalent", {})
    assert "status" not in await cluster.create(MUTATIONS, mutation())


CASES: list[tuple[str, dict[str, Any], str]] = [
    (VALIDATING, hooks(hook(name="")), "webhooks[0].name: Required value"),
    (VALIDATING, hooks(hook(), hook()), 'webhooks[1].name: Duplicate value: "w.example.com"'),
    (
        VALIDATING,
        hooks(hook(rules=[{**RULE, "operations": ["*", "CREATE"], "apiVersions": [""], "scope": "Odd"}])),
        '[webhooks[0].rules[0].operations: Invalid value: ["*","CREATE"]: if \'*\' is present, must not specify other '
        "operations, webhooks[0].rules[0].apiVersions[0]: Required value, webhooks[0].rules[0].scope: "
        'Unsupported value: "Odd": supported values: "*", "Cluster", "Namespaced"]',
    ),
    (
        VALIDATING,
        hooks(hook(rules=[{**RULE, "resources": ["pods/*", "pods/status", "*/scale", "x/scale"]}])),
        "[webhooks[0].rules[0].resources[1]: Invalid value: \"pods/status\": if 'pods/*' is present, must not specify "
        "pods/status, webhooks[0].rules[0].resources[3]: Invalid value: \"x/scale\": if '*/scale' is present, must not "
        "specify x/scale]",
    ),
    (
        VALIDATING,
        hooks(hook(clientConfig={"url": "https://u@h/x?a=b#c"})),
        '[webhooks[0].clientConfig.url: Invalid value: "u": user information is not permitted in the URL, '
        'webhooks[0].clientConfig.url: Invalid value: "c": fragments are not permitted in the URL, '
        'webhooks[0].clientConfig.url: Invalid value: "a=b": query parameters are not permitted in the URL]',
    ),
    (
        VALIDATING,
        hooks(hook(clientConfig={"service": {"name": "s", "namespace": "n", "port": 0, "path": "xy//z"}})),
        "[webhooks[0].clientConfig.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, "
        "inclusive, webhooks[0].clientConfig.service.path: Invalid value: \"xy//z\": must start with a '/', "
        'webhooks[0].clientConfig.service.path: Invalid value: "xy//z": segment[1] may not be empty]',
    ),
    (
        MUTATING,
        hooks(hook(matchConditions=[{"name": "a", "expression": "params.x"}])),
        'webhooks[0].matchConditions[0].expression: Invalid value: "params.x": compilation failed: ERROR: <input>:1:1: '
        "undeclared reference to 'params' (in container '')\n | params.x\n | ^",
    ),
    (POLICIES, policy(paramKind={"apiVersion": "a/b/c", "kind": "1"}), "spec.paramKind.apiVersion: Invalid value"),
    (
        POLICIES,
        policy(variables=[{"name": "n", "expression": "1"}], validations=[{"expression": "variables.n"}]),
        'spec.validations[0].expression: Invalid value: "variables.n": must evaluate to bool but got int',
    ),
    (
        POLICIES,
        policy(variables=[{"name": "b", "expression": "variables.a"}, {"name": "a", "expression": "1"}]),
        "undefined field 'a'",
    ),
    (
        POLICIES,
        policy(validations=[{"expression": "true", "messageExpression": "string(authorizer)"}]),
        "undeclared reference to 'authorizer'",
    ),
    (POLICIES, policy(auditAnnotations=[{"key": "k", "valueExpression": "''"}] * 2), 'Duplicate value: "k"'),
    (
        MUTATIONS,
        mutation(matchConstraints={"resourceRules": [{**RULE, "operations": ["DELETE"]}]}),
        'spec.matchConstraints.resourceRules.operations: Unsupported value: "DELETE": supported values: "*", '
        '"CONNECT", "CREATE", "UPDATE"',
    ),
    (
        MUTATIONS,
        mutation(mutations=[{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 1}]"}}]),
        "expected type of field 'op' is 'string' but provided type is 'int'",
    ),
]


async def test_what_is_refused(cluster: Cluster):
    for resource, obj, expected in CASES:
        with pytest.raises(ApiError) as caught:
            await cluster.create(resource, obj)
        assert (caught.value.code, expected in caught.value.message) == (422, True), caught.value.message


async def test_good_expressions_pass(cluster: Cluster):
    spec = {
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "variables": [{"name": "n", "expression": "size(object.spec.containers)"}],
        "validations": [{"expression": "variables.n < int(params.data.max) && request.operation == 'CREATE'"}],
        "matchConditions": [{"name": "a", "expression": "authorizer.requestResource.check('get').allowed()"}],
    }
    await cluster.create(POLICIES, policy(**spec))
    patch = "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'c'}]"
    await cluster.create(
        MUTATIONS, mutation(mutations=[{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}])
    )


async def test_generation_rises_with_the_webhooks_alone(cluster: Cluster):
    await cluster.create(VALIDATING, hooks(hook()))
    noted = await cluster.patch(VALIDATING, "a", {"metadata": {"annotations": {"k": "v"}}})
    assert noted["metadata"]["generation"] == 1
    changed = await cluster.patch(VALIDATING, "a", {"webhooks": [hook(timeoutSeconds=1)]})
    assert changed["metadata"]["generation"] == 2


async def test_bindings_say_what_is_done(cluster: Cluster):
    async with refused(422, message="spec.validationActions: Required value: at least one validation action"):
        await cluster.create(BINDINGS, {"metadata": {"name": "b"}, "spec": {"policyName": "a"}})
    spec = {"policyName": "a", "validationActions": ["Deny", "Deny"], "paramRef": {"name": "a/b"}}
    async with refused(422, message='spec.validationActions[1]: Duplicate value: "Deny"'):
        await cluster.create(BINDINGS, {"metadata": {"name": "b"}, "spec": spec})
