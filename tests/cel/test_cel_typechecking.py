"""The type checker of admission policies. What is expected was compared with upstream's TypeChecker."""

from __future__ import annotations

from typing import Any

import pytest

from fastkube.api.catalog import Catalog
from fastkube.cel.typechecking import expression_warnings

CATALOG = Catalog.builtin()
Object = dict[str, Any]


def rule(group: str, version: str, *resources: str) -> Object:
    return {"apiGroups": [group], "apiVersions": [version], "resources": list(resources), "operations": ["*"]}


def policy(*validations: Object, rules: list[Object], **spec: Any) -> Object:
    return {"spec": {"matchConstraints": {"resourceRules": rules}, "validations": list(validations), **spec}}


def told(expression: str, *rules: Object, definitions: tuple[Object, ...] = (), **spec: Any) -> str:
    checked = policy({"expression": expression}, rules=list(rules), **spec)
    found = expression_warnings(checked, CATALOG, definitions)
    return found[0]["warning"] if found else ""


PODS, DEPLOYMENTS = rule("", "v1", "pods"), rule("apps", "v1", "deployments")

FITTING = [
    ("object.spec.replicas > 1 || oldObject.spec.replicas > 1", DEPLOYMENTS),
    ("object.spec.template.spec.containers.all(c, c.image == 'x')", DEPLOYMENTS),
    ("object.metadata.creationTimestamp < timestamp('2020-01-01T00:00:00Z')", PODS),
    ("object.spec.containers[0].livenessProbe.httpGet.port == 8080", PODS),
    ("authorizer.group('').resource('pods').check('get').allowed() && request.userInfo.username == 'a'", PODS),
    ("dyn(object.spec).foo == 1", PODS),
    ("object.?spec.?hostNetwork.orValue(false)", PODS),
    ("object.data['x'] == b'y'", rule("", "v1", "secrets")),
    ("object.x", rule("*", "v1", "deployments")),
    ("object.x", rule("apps", "v1", "*", "deployments/scale")),
    ("object.x", rule("none.example.com", "v1", "things")),
]


@pytest.mark.parametrize(("expression", "about"), FITTING)
def test_what_fits_is_not_told_of(expression: str, about: Object) -> None:
    assert told(expression, about) == ""


MISFITS = [
    ("object.foo == 1", DEPLOYMENTS, "1:7: undefined field 'foo'"),
    ("object.spec.replicas > '1'", DEPLOYMENTS,
     "1:22: found no matching overload for '_>_' applied to '(int, string)'"),
    ("has(object.spec.nope)", PODS, "1:4: undefined field 'nope'"),
    ("object.spec.nodeName == 5", PODS, "1:22: found no matching overload for '_==_' applied to '(string, int)'"),
    ("object.metadata.creationTimestamp == 'x'", PODS,
     "1:35: found no matching overload for '_==_' applied to '(timestamp, string)'"),
    ("object.spec.containers[0].resources.limits['cpu'] == '1'", PODS, "1:36: undefined field 'limits'"),
    ("authorizer.requestResource.check('get').allowed()", PODS,
     "1:11: unexpected failed resolution of 'kubernetes.authorization.Authorizer'"),
]  # fmt: skip


@pytest.mark.parametrize(("expression", "about", "problem"), MISFITS)
def test_what_does_not_fit(expression: str, about: Object, problem: str) -> None:
    kind = "apps/v1, Kind=Deployment" if about is DEPLOYMENTS else "/v1, Kind=Pod"
    line, column, _ = problem.split(":")[:3]
    dots = "." * (int(column) - 1)
    assert told(expression, about) == f"{kind}: ERROR: <input>:{problem}\n | {expression}\n | {dots}^\n"
    assert line == "1"


def test_each_expression_is_checked_with_each_kind_in_their_order() -> None:
    rules = [rule("apps", "v1", "replicasets", "deployments"), PODS]
    validations = [
        {"expression": "true", "messageExpression": "object.spec.replicas + 'x'"},
        {"expression": "object.spec.replicas > 1"},
    ]
    found = expression_warnings(policy(*validations, rules=rules), CATALOG, ())
    assert [each["fieldRef"] for each in found] == [
        "spec.validations[0].messageExpression",
        "spec.validations[1].expression",
    ]
    kinds = [line.partition(":")[0] for line in found[0]["warning"].split("\n") if "Kind=" in line]
    assert kinds == ["/v1, Kind=Pod", "apps/v1, Kind=Deployment", "apps/v1, Kind=ReplicaSet"]
    assert found[1]["warning"].count("ERROR") == 1


def test_variables_have_the_types_of_their_expressions() -> None:
    variables = [{"name": "x", "expression": "object.spec.replicas"}, {"name": "y", "expression": "object.nope"}]
    assert "'(int, string)'" in told("variables.x > '1'", DEPLOYMENTS, variables=variables)
    assert told("variables.y == 'a'", DEPLOYMENTS, variables=variables) == ""
    assert "undefined field 'z'" in told("variables.z", DEPLOYMENTS, variables=variables)


def test_parameters_have_the_type_of_their_kind() -> None:
    maps = {"apiVersion": "v1", "kind": "ConfigMap"}
    assert "'(string, int)'" in told("params.data.x == 1", DEPLOYMENTS, paramKind=maps)
    unknown = {"apiVersion": "example.com/v1", "kind": "Nope"}
    assert told("params.data.x == 1", DEPLOYMENTS, paramKind=unknown) == ""


def test_custom_kinds_have_the_types_of_their_schemas() -> None:
    shape = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}
    version = {"name": "v1", "served": True, "schema": {"openAPIV3Schema": shape}}
    names = {"plural": "widgets", "kind": "Widget"}
    definition = {"spec": {"group": "example.com", "names": names, "versions": [version]}}
    about = rule("example.com", "v1", "widgets")
    assert told("object.spec.size > 1 && object.metadata.name != ''", about, definitions=(definition,)) == ""
    found = told("object.spec.size > 'x'", about, definitions=(definition,))
    assert found.startswith("example.com/v1, Kind=Widget: ERROR: <input>:1:18: found no matching overload for '_>_'")
