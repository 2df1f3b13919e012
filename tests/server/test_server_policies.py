"""Admission policies: what they are asked with, what they refuse, warn of, note, and change."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from apis import Api, running, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

GROUP = "/apis/admissionregistration.k8s.io"
MAPS = "/api/v1/namespaces/default/configmaps"
Object = dict[str, Any]

CONFIG_MAPS = {
    "resourceRules": [
        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}
    ]
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Api, Path]]:
    folder = tmp_path_factory.mktemp("policies")
    policy, log = folder / "policy.yaml", folder / "audit.log"
    policy.write_text("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n")
    async with running(folder / "api", audit_policy_file=str(policy), audit_log_path=str(log)) as api:
        yield api, log


@pytest.fixture
def api(served: tuple[Api, Path]) -> Api:
    return served[0]


@asynccontextmanager
async def made(api: Api, *objects: tuple[str, Object]) -> AsyncIterator[None]:
    done = []
    try:
        for path, obj in objects:
            await api.create(path, obj)
            done.append(f"{path}/{obj['metadata']['name']}")
        yield
    finally:
        for path in reversed(done):
            await api.delete(path)


def validating(*validations: Object | str, name: str = "p", bound: Object | None = None, **spec: Any) -> Any:
    """A ValidatingAdmissionPolicy of config maps and its binding."""
    listed = [{"expression": each} if isinstance(each, str) else each for each in validations]
    policy = {"metadata": {"name": name}, "spec": {"matchConstraints": CONFIG_MAPS, "validations": listed, **spec}}
    binding = {
        "metadata": {"name": f"{name}-b"},
        "spec": {"policyName": name, "validationActions": ["Deny"], **(bound or {})},
    }
    path = f"{GROUP}/v1/validatingadmissionpolic"
    return (f"{path}ies", policy), (f"{path}ybindings", binding)


def mutating(*expressions: str, name: str = "m", bound: Object | None = None, **spec: Any) -> Any:
    """A MutatingAdmissionPolicy of config maps and its binding."""
    mutations = []
    for text in expressions:
        kind, key = ("ApplyConfiguration", "applyConfiguration") if "Object{" in text else ("JSONPatch", "jsonPatch")
        mutations.append({"patchType": kind, key: {"expression": text}})
    whole = {"matchConstraints": CONFIG_MAPS, "mutations": mutations, "reinvocationPolicy": "Never", **spec}
    policy = {"metadata": {"name": name}, "spec": whole}
    binding = {"metadata": {"name": f"{name}-b"}, "spec": {"policyName": name, **(bound or {})}}
    path = f"{GROUP}/v1/mutatingadmissionpolic"
    return (f"{path}ies", policy), (f"{path}ybindings", binding)


def config_map(name: str = "a", data: Object | None = None, **metadata: Any) -> Object:
    return {"metadata": {"name": name, **metadata}, "data": {"k": "v"} if data is None else data}


async def tried(api: Api, obj: Object | None = None) -> tuple[int, str]:
    """The status and the end of the message of a config map that is created for trial only."""
    response = await api.request("POST", f"{MAPS}?dryRun=All", obj or config_map())
    return response.status, response.json.get("message", "").rpartition("denied request: ")[2]


async def trial(api: Api, obj: Object | None = None) -> Object:
    made: Object = await api.create(f"{MAPS}?dryRun=All", obj or config_map())
    return made


PARAMS = {"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}


# ---------------------------------------------------------------- validating


async def test_a_policy_without_binding_does_nothing(api: Api):
    policy, binding = validating("false")
    async with made(api, policy):
        assert (await tried(api))[0] == 201
        async with made(api, binding):
            assert (await tried(api))[0] == 422
        assert (await tried(api))[0] == 201


async def test_a_refusal_tells_policy_binding_and_expression(api: Api):
    async with made(api, *validating(" object.data.k == 'w' ")):
        response = await api.request("POST", MAPS, config_map())
    text = "ValidatingAdmissionPolicy 'p' with binding 'p-b' denied request: failed expression: object.data.k == 'w'"
    assert response.status == 422
    assert response.json["message"] == f'configmaps "a" is forbidden: {text}'
    assert response.json["reason"] == "Invalid"
    assert response.json["details"] == {"name": "a", "kind": "configmaps", "causes": [{"message": text}]}


@pytest.mark.parametrize(("reason", "code"), [("Forbidden", 403), ("RequestEntityTooLarge", 413), ("Invalid", 422)])
async def test_the_reason_of_a_check_decides_the_code(api: Api, reason: str, code: int):
    async with made(api, *validating({"expression": "false", "reason": reason, "message": "so"})):
        assert await tried(api) == (code, "so")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("'no ' + object.metadata.name", "no a"),
        ("'  '", "fallback"),
        ("object.data.missing + ''", "fallback"),
        ("'two\\nlines'", "fallback"),
    ],
)
async def test_a_message_expression_falls_back_to_the_message(api: Api, message: str, expected: str):
    check = {"expression": "false", "message": "fallback", "messageExpression": message}
    async with made(api, *validating(check)):
        assert (await tried(api))[1] == expected


async def test_variables_are_worked_out_in_terms_of_those_before(api: Api):
    variables = [
        {"name": "k", "expression": "object.data.k"},
        {"name": "long", "expression": "variables.k.size() > 3"},
        {"name": "unused", "expression": "object.data.nothing"},
    ]
    check = {"expression": "!variables.long", "messageExpression": "'too long: ' + string(variables.k)"}
    async with made(api, *validating(check, variables=variables)):
        assert (await tried(api))[0] == 201
        assert (await tried(api, config_map(data={"k": "longer"})))[1] == "too long: longer"


async def test_an_error_in_an_expression_fails_the_check_as_the_policy_says(api: Api):
    async with made(api, *validating("object.data.x == 'y'")):
        status, text = await tried(api)
    assert (status, text) == (422, "expression 'object.data.x == 'y'' resulted in error: no such key: x")
    async with made(api, *validating("object.data.x == 'y'", failurePolicy="Ignore")):
        assert (await tried(api))[0] == 201
    async with made(api, *validating("false", failurePolicy="Ignore")):
        assert (await tried(api))[0] == 422


async def test_conditions_narrow_what_is_checked(api: Api):
    conditions = [{"name": "c", "expression": "object.metadata.name.startsWith('a')"}]
    async with made(api, *validating("false", matchConditions=conditions)):
        assert (await tried(api))[0] == 422
        assert (await tried(api, config_map("b")))[0] == 201


async def test_constraints_of_policy_and_binding_both_hold(api: Api):
    selected = {**CONFIG_MAPS, "objectSelector": {"matchLabels": {"checked": "yes"}}}
    excluded = {
        "matchResources": {"excludeResourceRules": [{**CONFIG_MAPS["resourceRules"][0], "resourceNames": ["x"]}]}
    }
    async with made(api, *validating("false", matchConstraints=selected, bound=excluded)):
        assert (await tried(api))[0] == 201
        assert (await tried(api, config_map(labels={"checked": "yes"})))[0] == 422
        assert (await tried(api, config_map("x", labels={"checked": "yes"})))[0] == 201


async def test_request_namespace_and_authorizer_are_known(api: Api):
    checks = (
        "request.operation == 'CREATE' && request.kind.kind == 'ConfigMap' && request.dryRun",
        "request.userInfo.username == 'admin'",
        "oldObject == null",
        "namespaceObject.metadata.name == 'default'",
        "authorizer.group('').resource('pods').namespace('default').check('create').allowed()",
        "authorizer.requestResource.check('create').allowed()",
    )
    async with made(api, *validating(*checks)):
        assert await tried(api) == (201, "")


async def test_updates_and_deletions_see_the_old_object(api: Api):
    rules = {"resourceRules": [{**CONFIG_MAPS["resourceRules"][0], "operations": ["UPDATE", "DELETE"]}]}
    check = (
        "request.operation == 'DELETE' ? object == null && oldObject.data.k == 'w' : object.data.k != oldObject.data.k"
    )
    await api.create(MAPS, config_map("u"))
    async with made(api, *validating(check, matchConstraints=rules)):
        assert (await api.request("DELETE", f"{MAPS}/u")).status == 422
        assert (await api.request("PUT", f"{MAPS}/u", config_map("u"))).status == 422
        assert (await api.request("PUT", f"{MAPS}/u", config_map("u", {"k": "w"}))).status == 200
        assert (await api.request("DELETE", f"{MAPS}/u")).status == 200


async def test_policies_are_never_asked_about_policies(api: Api):
    rules = {"resourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}]}
    async with made(api, *validating("false", matchConstraints=rules)):
        assert (await tried(api))[0] == 422
        other = {"metadata": {"name": "w"}, "webhooks": []}
        assert (await api.request("POST", f"{GROUP}/v1/validatingwebhookconfigurations", other)).status == 201
        assert (await api.request("DELETE", f"{GROUP}/v1/validatingwebhookconfigurations/w")).status == 200


async def test_warn_and_audit_let_a_request_pass(served: tuple[Api, Path]):
    api, log = served
    check = {"expression": "object.data.k == 'w'", "message": "bad k"}
    notes = [{"key": "seen", "valueExpression": "'k is ' + string(object.data.k)"}]
    bound = {"validationActions": ["Warn", "Audit"]}
    async with made(api, *validating(check, bound=bound, auditAnnotations=notes)):
        response = await api.request("POST", f"{MAPS}?dryRun=All", config_map("noted"))
    assert response.status == 201
    text = "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p-b': bad k"
    assert response.headers.getall("Warning") == [f'299 - "{text}"']
    await until(lambda: '"name":"noted"' in log.read_text())
    annotations = [json.loads(line).get("annotations", {}) for line in log.read_text().splitlines()]
    (noted,) = [each for each in annotations if "p/seen" in each]
    assert noted["p/seen"] == "k is v"
    assert json.loads(noted["validation.policy.admission.k8s.io/validation_failure"]) == [
        {"message": "bad k", "policy": "p", "binding": "p-b", "expressionIndex": 0, **bound}
    ]


class TestParams:
    async def test_a_policy_is_asked_once_for_each_parameter(self, api: Api):
        limits = [(MAPS, config_map(f"limit-{size}", {"max": size}, labels={"limit": "yes"})) for size in ("3", "5")]
        check = {
            "expression": "object.data.k.size() <= int(params.data.max)",
            "messageExpression": "'over ' + string(params.data.max)",
        }
        bound = {
            "paramRef": {"selector": {"matchLabels": {"limit": "yes"}}, "parameterNotFoundAction": "Deny"},
        }
        conditions = [{"name": "others", "expression": "!object.metadata.name.startsWith('limit')"}]
        policy = validating(check, bound=bound, matchConditions=conditions, **PARAMS)
        async with made(api, *limits, *policy):
            assert await tried(api, config_map(data={"k": "abc"})) == (201, "")
            assert (await tried(api, config_map(data={"k": "abcd"})))[1] == "over 3"
            assert (await tried(api, config_map(data={"k": "abcdef"})))[1] == "over 3"

    @pytest.mark.parametrize(
        ("action", "expected"),
        [
            ("Allow", (201, "")),
            (
                "Deny",
                (
                    422,
                    "failed to configure binding: no params found for policy binding with `Deny` "
                    "parameterNotFoundAction",
                ),
            ),
        ],
    )
    async def test_a_binding_says_what_a_missing_parameter_means(
        self, api: Api, action: str, expected: tuple[int, str]
    ):
        reference = {"name": "none", "namespace": "default", "parameterNotFoundAction": action}
        async with made(api, *validating("false", bound={"paramRef": reference}, **PARAMS)):
            assert await tried(api) == expected

    async def test_params_are_null_without_a_reference(self, api: Api):
        async with made(api, *validating("params == null", **PARAMS)):
            assert await tried(api) == (201, "")

    async def test_null_has_no_fields(self, api: Api):
        async with made(api, *validating("params.data.x == '1'", **PARAMS)):
            status, text = await tried(api)
        assert (status, text.endswith("resulted in error: no such key: data")) == (422, True)

    async def test_an_unknown_kind_of_parameters(self, api: Api):
        reference = {"name": "x", "parameterNotFoundAction": "Deny"}
        kind = {"apiVersion": "example.com/v1", "kind": "Limit"}
        async with made(api, *validating("true", bound={"paramRef": reference}, paramKind=kind)):
            status, text = await tried(api)
        assert status == 422
        assert text.endswith("failed to find resource referenced by paramKind: 'example.com/v1, Kind=Limit'")


async def test_checks_are_counted(api: Api):
    async with made(api, *validating("false", name="counted")):
        await tried(api)
    text = (await api.request("GET", "/metrics")).body.decode()
    (line,) = [
        line
        for line in text.splitlines()
        if line.startswith("apiserver_validating_admission_policy_check_total") and '"counted"' in line
    ]
    assert 'enforcement_action="deny"' in line and 'error_type="no_error"' in line and line.endswith(" 1")


# ---------------------------------------------------------------- mutating


async def test_a_configuration_is_laid_over_the_object(api: Api):
    text = "Object{metadata: Object.metadata{labels: {'team': request.userInfo.username}}, data: {'x': 'y'}}"
    async with made(api, *mutating(text)):
        made_map = await trial(api, config_map(labels={"own": "yes"}))
    assert made_map["metadata"]["labels"] == {"own": "yes", "team": "admin"}
    assert made_map["data"] == {"k": "v", "x": "y"}


async def test_a_json_patch_changes_the_object(api: Api):
    text = """[
        JSONPatch{op: 'test', path: '/data/k', value: 'v'},
        JSONPatch{op: 'replace', path: '/data/k', value: object.data.k + '!'},
        JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('a.b'), value: 'c'},
        JSONPatch{op: 'add', path: '/metadata/labels', value: {'l': 'yes'}}
    ]"""
    async with made(api, *mutating(text)):
        changed = await trial(api)
        assert changed["data"] == {"k": "v!", "a.b": "c"}
        assert changed["metadata"]["labels"] == {"l": "yes"}
        assert (await trial(api, config_map(data={"k": "w"})))["data"] == {"k": "w"}, "the test fails: no change"


async def test_mutations_see_what_those_before_made(api: Api):
    first = "Object{data: {'n': 'one'}}"
    second = "[JSONPatch{op: 'replace', path: '/data/n', value: object.data.n + ' two'}]"
    async with made(api, *mutating(first, second)):
        assert (await trial(api))["data"]["n"] == "one two"


async def test_a_policy_is_asked_again_after_others_if_it_wants(api: Api):
    again = "Object{data: {'seen': has(object.data.later) ? 'later' : 'nothing'}}"
    for wish, seen in (("IfNeeded", "later"), ("Never", "nothing")):
        early = mutating(again, name="a", reinvocationPolicy=wish)
        async with made(api, *early, *mutating("Object{data: {'later': 'yes'}}", name="b")):
            assert (await trial(api))["data"]["seen"] == seen


async def test_variables_conditions_and_params_of_mutations(api: Api):
    spec = {
        **PARAMS,
        "variables": [{"name": "label", "expression": "params.data.label"}],
        "matchConditions": [{"name": "c", "expression": "object.metadata.name == 'a'"}],
    }
    bound = {"paramRef": {"name": "par", "namespace": "default", "parameterNotFoundAction": "Deny"}}
    text = "Object{metadata: Object.metadata{labels: {'from': string(variables.label)}}}"
    async with made(api, (MAPS, config_map("par", {"label": "params"})), *mutating(text, bound=bound, **spec)):
        assert (await trial(api))["metadata"]["labels"] == {"from": "params"}
        assert "labels" not in (await trial(api, config_map("b")))["metadata"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Object{metadata: Object.metadata{finalizers: ['a/b']}, data: {'k': object.data.none}}",
            "resulted in error: no such key: none",
        ),
        (
            "[JSONPatch{op: 'remove', path: '/data/none'}]",
            "JSON Patch: error in remove for path: '/data/none': Unable to remove nonexistent key: none: missing value",
        ),
        (
            "[JSONPatch{op: 'add', path: '/none/x', value: 'y'}]",
            'JSON Patch: add operation does not apply: doc is missing path: "/none/x": missing value',
        ),
        (
            "[JSONPatch{op: 'move', path: '/data/x', from: '/data/none'}]",
            "JSON Patch: error in move for path: 'none': Unable to remove nonexistent key: none: missing value",
        ),
        ("[JSONPatch{op: 'odd', path: '/data/x'}]", "JSON Patch: Unexpected kind: odd"),
        ("Object{metadata: Object.spec{name: 'x'}}", 'unexpected type name "Object.spec", expected "Object.metadata"'),
    ],
)
async def test_a_mutation_that_cannot_be_made_refuses_the_request(api: Api, text: str, expected: str):
    async with made(api, *mutating(text)):
        response = await api.request("POST", f"{MAPS}?dryRun=All", config_map())
        assert response.status in (403, 422)
        assert response.json["message"].startswith("policy 'm' with binding 'm-b' denied request: ")
        assert expected in response.json["message"]
    async with made(api, *mutating(text, failurePolicy="Ignore")):
        assert (await trial(api))["data"] == {"k": "v"}


@pytest.mark.parametrize("failure_policy", ["Fail", "Ignore"])
@pytest.mark.parametrize(
    ("patch", "told"),
    [
        ("path: '/data', value: 5", "json: cannot unmarshal number into Go struct field ConfigMap.data of type "
         "map[string]string"),
        ("path: '/immutable', value: 'x'", "json: cannot unmarshal string into Go struct field ConfigMap.immutable of "
         "type bool"),
        ("path: '/odd', value: 1", 'strict decoding error: unknown field "odd"'),
    ],
)  # fmt: skip
async def test_a_json_patch_that_leaves_no_object_of_its_kind(api: Api, patch: str, told: str, failure_policy: str):
    async with made(api, *mutating(f"[JSONPatch{{op: 'add', {patch}}}]", failurePolicy=failure_policy)):
        response = await api.request("POST", f"{MAPS}?dryRun=All", config_map())
    assert (response.status, response.json["reason"]) == (500, "InternalError")
    assert response.json["message"] == f"Internal error occurred: {told}"


async def test_atomic_lists_cannot_be_configured(api: Api):
    pods = {"resourceRules": [{**CONFIG_MAPS["resourceRules"][0], "resources": ["pods"]}]}
    text = "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'c', command: ['x']}]}}"
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    path = "/api/v1/namespaces/default/pods?dryRun=All"
    async with made(api, *mutating(text, matchConstraints=pods)):
        response = await api.request("POST", path, pod)
    told = "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.containers.command"
    assert response.json["message"].endswith(told)
    text = "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'c', image: 'j'}]}}"
    async with made(api, *mutating(text, matchConstraints=pods)):
        response = await api.request("POST", path, pod)
    assert [each["image"] for each in response.json["spec"]["containers"]] == ["j"]


async def test_validation_sees_what_mutation_made(api: Api):
    async with made(api, *mutating("Object{data: {'x': 'y'}}"), *validating("object.data.x == 'y'")):
        assert await tried(api) == (201, "")
