"""Requests that are odd but plausible, and what kube-apiserver answers: its code, its reason, its words."""

from __future__ import annotations

import re
from typing import Any

import pytest
import pytest_asyncio
from apis import Api, running
from pytest import TempPathFactory

JSON, MERGE = "application/json-patch+json", "application/merge-patch+json"
STRATEGIC, APPLY = "application/strategic-merge-patch+json", "application/apply-patch+yaml"
MAPS = "/api/v1/namespaces/default/configmaps"
MAIN_SCHEME = "pkg/api/legacyscheme/scheme.go:30"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: TempPathFactory) -> Any:
    async with running(tmp_path_factory.mktemp("odd")) as started:
        await started.create(MAPS, {"metadata": {"name": "a"}, "data": {"x": "1"}})
        yield started


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def ask(api: Api, method: str, path: str, body: str, media: str = "application/json") -> tuple[int, str, str]:
    response = await api.request(method, path, body.encode(), headers={"Content-Type": media})
    told = response.json
    return response.status, told.get("reason", ""), told.get("message", "")


CREATES = [
    ("Pod", "v1", "converting (v1.Pod) to (core.ConfigMap): unknown conversion"),
    ("Deployment", "apps/v1", "converting (v1.Deployment) to (core.ConfigMap): unknown conversion"),
    ("Odd", "v1", f'no kind "Odd" is registered for version "v1" in scheme "{MAIN_SCHEME}"'),
    ("ConfigMap", "v2", f'no kind "ConfigMap" is registered for version "v2" in scheme "{MAIN_SCHEME}"'),
    ("ConfigMap", "a/v1", f'no kind "ConfigMap" is registered for version "a/v1" in scheme "{MAIN_SCHEME}"'),
]


@pytest.mark.parametrize(
    ("kind", "version", "told"), CREATES, ids=[f"{kind} {version}" for kind, version, _ in CREATES]
)
async def test_a_body_of_another_kind(api: Api, kind: str, version: str, told: str) -> None:
    body = f'{{"kind":"{kind}","apiVersion":"{version}","metadata":{{"name":"b"}}}}'
    short = version.rpartition("/")[2]
    expected = (400, "BadRequest", f'{kind} in version "{short}" cannot be handled as a ConfigMap: {told}')
    assert await ask(api, "POST", MAPS, body) == expected
    assert await ask(api, "PUT", f"{MAPS}/a", body) == expected


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('{"kind":5}', "json: cannot unmarshal number into Go struct field .kind of type string"),
        ('{"apiVersion":[]}', "json: cannot unmarshal array into Go struct field .apiVersion of type string"),
    ],
)
async def test_a_kind_that_is_no_text(api: Api, body: str, told: str) -> None:
    unrecognized = "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind"
    expected = f"{unrecognized}; json parse error: {told} ({body})"
    assert await ask(api, "POST", MAPS, body) == (400, "BadRequest", expected)


PATCHES = [
    (JSON, "", "error decoding patch: unexpected end of JSON input"),
    (JSON, "{}", "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"),
    (JSON, '[{"op":"add","path":1}]',
     "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.path of type string"),
    (MERGE, "", "error decoding patch: unexpected end of JSON input"),
    (MERGE, "null", "Invalid JSON Patch"),
    (MERGE, "[]", "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"),
    (STRATEGIC, "", "unexpected end of JSON input"),
    (STRATEGIC, "[]", "json: cannot unmarshal array into Go value of type map[string]interface {}"),
]  # fmt: skip


@pytest.mark.parametrize(("media", "body", "told"), PATCHES)
async def test_bodies_that_are_no_patches(api: Api, media: str, body: str, told: str) -> None:
    assert await ask(api, "PATCH", f"{MAPS}/a", body, media) == (400, "BadRequest", told)
    missing = await ask(api, "PATCH", f"{MAPS}/missing", body, media)
    assert missing == (404, "NotFound", 'configmaps "missing" not found')  # which is looked at first


@pytest.mark.parametrize(
    ("media", "body"), [(JSON, "null"), (JSON, "[]"), (STRATEGIC, "null"), (STRATEGIC, "{}"), (MERGE, "{}")]
)
async def test_patches_of_nothing(api: Api, media: str, body: str) -> None:
    before = await api.get(f"{MAPS}/a")
    response = await api.request("PATCH", f"{MAPS}/a", body.encode(), headers={"Content-Type": media})
    assert (response.status, response.json) == (200, before)


async def test_what_is_not_validated_is_told_less_of(api: Api) -> None:
    path = f"{MAPS}/a?fieldValidation=Ignore"
    assert (await ask(api, "PATCH", path, "", MERGE))[2] == "Invalid JSON Patch"
    assert (await ask(api, "PATCH", path, "x", JSON))[2] == "invalid character 'x' looking for beginning of value"
    assert (await ask(api, "PATCH", path, "{}", JSON))[2].endswith("into Go value of type jsonpatch.Patch")


async def test_unknown_fields_of_a_json_patch(api: Api) -> None:
    body = b'[{"op":"test","path":"/data/x","value":"1","odd":2}]'
    response = await api.request("PATCH", f"{MAPS}/a", body, headers={"Content-Type": JSON})
    assert response.headers.getall("Warning") == ['299 - "json patch unknown field \\"[0].odd\\""']
    response = await api.request("PATCH", f"{MAPS}/a?fieldValidation=Strict", body, headers={"Content-Type": JSON})
    assert response.status == 422
    assert response.json["message"].endswith('strict decoding error: json patch unknown field "[0].odd"')


@pytest.mark.parametrize("patch", ['{"kind":"Pod"}', '{"apiVersion":"v2"}', '{"kind":"Pod","apiVersion":"v1"}'])
async def test_a_patch_does_not_change_the_kind(api: Api, patch: str) -> None:
    before = await api.get(f"{MAPS}/a")
    assert await ask(api, "PATCH", f"{MAPS}/a", patch, STRATEGIC) == (200, "", "")
    code, reason, message = await ask(api, "PATCH", f"{MAPS}/a", patch, MERGE)
    assert (code, reason) == (422, "Invalid")
    kind = "converting (v1.Pod) to (core.ConfigMap): unknown conversion"
    version = f'no kind "ConfigMap" is registered for version "v2" in scheme "{MAIN_SCHEME}"'
    assert message.endswith(version if "v2" in patch else kind)
    assert await api.get(f"{MAPS}/a") == before


async def test_a_patch_without_kind_or_version(api: Api) -> None:
    assert await ask(api, "PATCH", f"{MAPS}/a", '{"kind":null}', MERGE) == (200, "", "")
    code, _, message = await ask(api, "PATCH", f"{MAPS}/a", '{"apiVersion":null}', MERGE)
    undeterminable = "the name of the object (a based on URL) was undeterminable: name must be provided"
    assert (code, message) == (400, undeterminable)
    code, _, message = await ask(api, "PATCH", f"{MAPS}/a", '{"kind":5}', MERGE)
    assert code == 422 and message.endswith("json: cannot unmarshal number into Go struct field .kind of type string")


DELETES = [
    ("[", "couldn't get version/kind; json parse error: unexpected end of JSON input"),
    ('{"gracePeriodSeconds":"x"}',
     "json: cannot unmarshal string into Go struct field DeleteOptions.gracePeriodSeconds of type int64"),
    ('{"kind":"Pod","apiVersion":"v1"}', 'no kind "Pod" is registered for version "v1" in scheme '
     '"pkg/apis/meta/internalversion/scheme/register.go:27"'),
]  # fmt: skip


@pytest.mark.parametrize(("body", "told"), DELETES)
async def test_bodies_that_are_no_delete_options(api: Api, body: str, told: str) -> None:
    assert await ask(api, "DELETE", f"{MAPS}/a", body) == (400, "BadRequest", told)
    assert await ask(api, "DELETE", MAPS, body) == (400, "BadRequest", told)


async def test_a_body_overrides_the_query_of_a_delete(api: Api) -> None:
    path = f"{MAPS}/a?propagationPolicy=Odd"
    assert (await ask(api, "DELETE", path, ""))[0] == 422
    code, _, message = await ask(api, "DELETE", path, '{"dryRun":["Odd"],"propagationPolicy":"None"}')
    assert code == 422 and [part.partition(":")[0] for part in message.partition("[")[2].split(", ")][:1] == [
        "propagationPolicy"
    ]
    assert 'dryRun: Unsupported value: ["Odd"]: supported values: "All"' in message
    assert (await ask(api, "DELETE", path, '{"dryRun":["All"],"apiVersion":"v2"}'))[0] == 200


NAMESPACED = "/api/v1/namespaces/default"
REVISION = {"metadata": {"name": "a"}, "revision": 1}
CLASS = "/apis/node.k8s.io/v1/runtimeclasses"
REVIEWS = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews"
LIMIT = {"type": "Odd kind"}

INVALID: list[tuple[str, dict[str, Any], int, str]] = [
    (f"{NAMESPACED}/services", {"spec": {"ports": [{"port": 80}]}}, 422,
     'Service "" is invalid: metadata.name: Required value: name or generateName is required'),
    ("/apis/apps/v1/namespaces/default/controllerrevisions", {**REVISION, "data": 1}, 422,
     'ControllerRevision.apps "a" is invalid: data: Required value: data must be a valid JSON object'),
    (CLASS, {"metadata": {"name": "a"}}, 422,
     'RuntimeClass.node.k8s.io "a" is invalid: handler: Required value'),
    ("/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": "a"}, "value": 1, "preemptionPolicy": ""}, 422,
     'PriorityClass.scheduling.k8s.io "a" is invalid: preemptionPolicy: Required value'),
    ("/apis/networking.k8s.io/v1/ingressclasses",
     {"metadata": {"name": "a"}, "spec": {"controller": "e.com/x", "parameters": {"kind": "A"}}}, 422,
     'IngressClass.networking.k8s.io "a" is invalid: spec.parameters.name: Required value'),
    ("/apis/storage.k8s.io/v1/csinodes",
     {"metadata": {"name": "a"}, "spec": {"drivers": [{"name": "a", "nodeID": "b", "topologyKeys": ["-1"]}, {}]}}, 422,
     'CSINode.storage.k8s.io "a" is invalid: [spec.drivers[0]: Invalid value: "-1": name part must consist of '
     "alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  "
     "or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]'), "
     "spec.drivers[1].name: Required value, spec.drivers[1].nodeID: Required value]"),
    ("/apis/policy/v1/namespaces/default/poddisruptionbudgets", {"spec": {"maxUnavailable": -1}}, 422,
     'PodDisruptionBudget.policy "" is invalid: spec.maxUnavailable: Invalid value: -1: must be greater than or equal '
     "to 0"),
    ("/apis/policy/v1/namespaces/default/poddisruptionbudgets", {"metadata": {"name": "a/b"}}, 422,
     "PodDisruptionBudget.policy \"a/b\" is invalid: metadata.name: Invalid value: \"a/b\": may not contain '/'"),
    ("/apis/policy/v1/namespaces/default/poddisruptionbudgets", {"metadata": {"name": "A*"}}, 201, ""),
    (f"{NAMESPACED}/limitranges", {"spec": {}}, 201, ""),
    (REVIEWS, {"metadata": {"namespace": "other"}, "spec": {"user": "a"}}, 400,
     "the namespace of the provided object does not match the namespace sent on the request"),
    (REVIEWS, {"spec": {"user": "a", "resourceAttributes": {"namespace": "default", "verb": "get"}}}, 201, ""),
    (f"{NAMESPACED}/pods/p/binding", {"target": {"name": "n"}}, 400,
     "name in URL does not match name in Binding object"),
    (f"{NAMESPACED}/pods/p/binding", {"metadata": {"name": "p"}, "target": {"kind": "Odd"}}, 500,
     '[target.kind: Unsupported value: "Odd": supported values: "Node", "<empty>", target.name: Required value]'),
    (f"{NAMESPACED}/bindings", {"target": {"name": "n"}}, 400, "Name parameter required."),
    (f"{NAMESPACED}/bindings", {"metadata": {"name": "a/b"}, "target": {"name": "n"}}, 400,
     "Name parameter invalid: \"a/b\": may not contain '/'"),
    (f"{NAMESPACED}/pods/p/eviction", {}, 400, "name in URL does not match name in Eviction object"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "code", "told"), INVALID)
async def test_objects_that_lack_something(api: Api, path: str, body: dict[str, Any], code: int, told: str) -> None:
    response = await api.request("POST", f"{path}?dryRun=All", body)
    assert (response.status, response.json.get("message", "")) == (code, told)


LISTS = [
    ("resourceVersion=x", 400, 'invalid resource version: resourceVersion: Invalid value: "x": strconv.ParseUint: '
     'parsing "x": invalid syntax'),
    ("continue=x", 400, "invalid continue token: continue key is not valid: illegal base64 data at input byte 0"),
    ("continue=eyJ2IjoieCJ9", 400,
     "invalid continue token: continue key is not valid: server does not recognize this encoded version x"),
    ("timeout=x", 400, 'invalid timeout specified in the request URL - time: invalid duration "x"'),
]  # fmt: skip


@pytest.mark.parametrize(("query", "code", "told"), LISTS)
async def test_lists_that_cannot_be(api: Api, query: str, code: int, told: str) -> None:
    response = await api.request("GET", f"{MAPS}?{query}")
    assert (response.status, response.json["message"]) == (code, told)


OBJECTS = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
STREAMS = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
ACCEPTS = [
    (f"{MAPS}/a", "text/html", f"406: Not Acceptable\n\nAvailable representations: {OBJECTS}"),
    (f"{MAPS}/a", "application/*", f"406: Not Acceptable\n\nAvailable representations: {OBJECTS}"),
    (MAPS, "text/html", f"406: Not Acceptable\n\nAvailable representations: {OBJECTS}, {STREAMS}"),
    ("/api/v1", "text/html", f"406: Not Acceptable\n\nAvailable representations: {OBJECTS}"),
    ("/version", "application/yaml", "406: Not Acceptable\n\nAvailable representations: application/json"),
    (f"{MAPS}?watch=1", "application/yaml", f"only the following media types are accepted: {STREAMS}"),
    (MAPS, "application/json;as=Odd;v=v1;g=meta.k8s.io", f"only the following media types are accepted: {OBJECTS}"),
]


@pytest.mark.parametrize(("path", "accept", "told"), ACCEPTS)
async def test_formats_that_nobody_has(api: Api, path: str, accept: str, told: str) -> None:
    response = await api.request("GET", path, headers={"Accept": accept})
    assert response.status == 406
    if response.headers["Content-Type"] == "application/json":
        assert response.json["message"] == told
    else:
        assert told.split(":")[0] in response.body.decode()


async def test_applies_that_are_none_and_names_that_are_taken(api: Api) -> None:
    problem = "json: cannot unmarshal array into Go value of type map[string]interface {}"
    told = await ask(api, "PATCH", f"{MAPS}/a?fieldManager=m", "[]", APPLY)
    expected = f"error decoding YAML: error unmarshaling JSON: while decoding JSON: {problem}"
    assert told == (400, "BadRequest", expected)
    twice = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"1","k":"2"}}'
    code, _, message = await ask(api, "PATCH", f"{MAPS}/a?fieldManager=m&fieldValidation=Strict", twice, APPLY)
    assert (code, message.split("\n")[1].strip()) == (400, 'line 1: key "k" already set in map')
    taken = 'configmaps "a" already exists, the server was not able to generate a unique name for the object'
    assert await ask(api, "POST", MAPS, '{"metadata":{"name":"a","generateName":"g-"}}') == (
        409, "AlreadyExists", taken
    )  # fmt: skip


async def test_a_finalizer_that_is_none_is_told_of_twice(api: Api) -> None:
    body = b'{"metadata":{"finalizers":["x"]}}'
    response = await api.request("PATCH", f"{MAPS}/a", body, headers={"Content-Type": MERGE})
    assert [cause["field"] for cause in response.json["details"]["causes"]] == ["metadata.finalizers[0]"] * 2


ROUTES = [
    ("GET", "/api/v1/proxy/nodes/n", 404),
    ("POST", "/api/v1/bindings", 404),
    ("GET", "/apis/authorization.k8s.io/v1/localsubjectaccessreviews", 404),
    ("GET", f"{NAMESPACED}/bindings", 405),
    ("PUT", "/apis/apps", 200),
    ("PUT", "/apis/apps/v1", 405),
    ("HEAD", "/version", 405),
    ("GET", f"{MAPS}?fieldSelector==", 200),
]


@pytest.mark.parametrize(("method", "path", "code"), ROUTES)
async def test_paths_and_methods(api: Api, method: str, path: str, code: int) -> None:
    assert (await api.request(method, path)).status == code


async def test_what_is_told_in_a_form_that_there_is_not(api: Api) -> None:
    table = "application/json;as=Table;v=v1;g=meta.k8s.io"
    response = await api.request("GET", f"{MAPS}?includeObject=Odd", headers={"Accept": table})
    problem = "includeObject: Invalid value: \"Odd\": must be 'Metadata', 'Object', 'None', or empty"
    assert (response.status, response.json["message"]) == (400, f"Unable to convert to Table as requested: {problem}")
    yaml_table = "application/yaml;as=Table;v=v1;g=meta.k8s.io"
    missing = await api.request("GET", f"{MAPS}/missing", headers={"Accept": yaml_table})
    assert (missing.status, missing.headers["Content-Type"]) == (404, "application/json")
    without = "/apis/apiregistration.k8s.io/v1/apiservices/v1.apps/status"
    assert (await api.request("GET", without, headers={"Accept": table})).status == 406
    both = await api.request("GET", without, headers={"Accept": f"{table},application/json"})
    assert (both.status, both.json["kind"]) == (200, "APIService")
    event = await api.request("GET", "/apis/events.k8s.io/v1/namespaces/default/events/missing")
    assert event.json["message"] == 'events.events.k8s.io "missing" not found'
    node = {"metadata": {"name": "n", "uid": "11111111-2222-3333-4444-555555555555"}}
    await api.create("/api/v1/nodes", {"metadata": {"name": "n"}})
    told = await api.request("PUT", "/api/v1/nodes/n", {"apiVersion": "v1", "kind": "Node", **node})
    assert told.status == 409 and "Key: /registry/minions/n, " in told.json["message"]
    code, _, message = await ask(api, "PATCH", f"{MAPS}/a", '{"binaryData":{"a":"!!"}}', STRATEGIC)
    assert code == 422 and message.endswith("error decoding from json: illegal base64 data at input byte 0")


async def test_updates_that_are_refused(api: Api) -> None:
    """Each fault is told of once; some kinds are changed only by those who know which version they change."""
    roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles"
    role = {"metadata": {"name": "r"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}
    await api.create(roles, role)
    role["rules"] = [{"apiGroups": [""], "resources": ["pods"]}]
    refused = await api.request("PUT", f"{roles}/r", role)
    assert [cause["field"] for cause in refused.json["details"]["causes"]] == ["rules[0].verbs"]
    revisions = "/apis/apps/v1/namespaces/default/controllerrevisions"
    await api.create(revisions, {**REVISION, "data": {}})
    refused = await api.request("PUT", f"{revisions}/a", {**REVISION, "data": 1})
    assert [cause["message"] for cause in refused.json["details"]["causes"]] == ["Invalid value: 1: field is immutable"]
    group = "/apis/admissionregistration.k8s.io/v1"
    bindings = f"{group}/validatingadmissionpolicybindings"
    binding = {"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}}
    hooks = {"metadata": {"name": "h"}, "webhooks": []}
    for path, obj in ((bindings, binding), (f"{group}/validatingwebhookconfigurations", hooks)):
        await api.create(path, obj)
        refused = await api.request("PUT", f"{path}/{obj['metadata']['name']}", obj)
        assert (refused.status, refused.json["details"]["causes"][0]["field"]) == (422, "metadata.resourceVersion")


PODS = "/api/v1/namespaces/default/pods"


@pytest.mark.parametrize(
    ("rest", "told"),
    [
        ('"odd":1,"status":{"phase":"a","phase":"a"}', 'unknown field "odd", duplicate field "status.phase"'),
        ('"status":{"phase":"a","phase":"a"},"odd":1', 'duplicate field "status.phase", unknown field "odd"'),
        ('"Spec":{"a":1,"a":2},"spec":{"containers":[{"b":1,"name":"c","name":"d"}]}',
         'unknown field "Spec", unknown field "spec.containers[0].b", duplicate field "spec.containers[0].name"'),
        ('"spec":{"nodeName":"a","nodeName":"b","nodeName":"c"}', 'duplicate field "spec.nodeName"'),
    ],
)  # fmt: skip
async def test_strict_decoding_tells_in_the_order_of_the_document(api: Api, rest: str, told: str) -> None:
    body = f'{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"b"}},{rest}}}'
    prefix = 'Pod in version "v1" cannot be handled as a Pod: strict decoding error: '
    assert await ask(api, "POST", PODS + "?fieldValidation=Strict", body) == (400, "BadRequest", prefix + told)


async def test_a_list_that_comes_twice_is_read_over_the_first(api: Api) -> None:
    volumes = '"volumes":[{"name":"a","emptyDir":{}},{"name":"b"}],"volumes":[{"hostPath":{"path":"/"}}]'
    body = f'{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"b"}},"spec":{{{volumes}}}}}'
    status, _, told = await ask(api, "POST", PODS + "?fieldValidation=Ignore", body)
    assert status == 422
    assert "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type" in told
    assert "spec.volumes[1]" not in told


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ('{"overhead":{"cpu":"x"}}', "quantities must match the regular expression "
         "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
        ('{"containers":[{"name":"c","resources":{"limits":{"cpu":true}}}]}', "quantities must match the regular "
         "expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
    ],
)  # fmt: skip
async def test_an_apply_that_makes_no_object_says_of_which(api: Api, spec: str, told: str) -> None:
    body = f'{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"b"}},"spec":{spec}}}'
    prefix = "failed to convert new object (/b; /v1, Kind=Pod) to proper version: unable to convert unstructured object"
    expected = (500, "", f"{prefix} to /v1, Kind=Pod: {told}")
    assert await ask(api, "PATCH", f"{PODS}/b?fieldManager=m", body, APPLY) == expected


DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


async def test_a_scale_that_changes_nothing_splits_its_updaters_entry(api: Api) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    await api.create(f"{DEPLOYMENTS}?fieldManager=mk", {"metadata": {"name": "sc"}, "spec": spec})
    apply = '{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"sc"},"spec":{"replicas":3}}'
    owners = []
    for count, body, media in ((2, "", MERGE), (2, "", MERGE), (3, "", MERGE), (3, apply, APPLY), (4, "", MERGE)):
        patch = body or f'{{"spec":{{"replicas":{count}}}}}'
        assert (await ask(api, "PATCH", f"{DEPLOYMENTS}/sc/scale?fieldManager=x", patch, media))[0] == 200
        entries = (await api.get(f"{DEPLOYMENTS}/sc"))["metadata"]["managedFields"]
        named = [(each["manager"], each["operation"], set(each["fieldsV1"]["f:spec"])) for each in entries]
        owners.append([(who, how, "f:replicas" in fields, len(fields) > 1) for who, how, fields in named])
    rest = ("mk", "Update", False, True)
    assert owners == [
        [("mk", "Update", True, False), rest],
        [rest],
        [rest],
        [("x", "Apply", True, False), ("before-first-apply", "Update", True, False), rest],
        [("x", "Update", True, False), rest],
    ]


async def test_what_a_patch_made_is_quoted_in_the_order_of_gos_structs(api: Api) -> None:
    path = "/api/v1/namespaces/default/services"
    await api.create(path, {"metadata": {"name": "order"}, "spec": {"ports": [{"port": 80}]}})
    patch = '[{"op":"add","path":"/metadata/labels","value":5}]'
    status, _, told = await ask(api, "PATCH", f"{path}/order", patch, JSON)
    keys = re.findall(r'"(\w+)":', told.replace("\\", "").partition('"spec":{')[2])
    assert (status, keys[4:7]) == (422, ["clusterIP", "clusterIPs", "type"]), told


@pytest.mark.parametrize(("method", "body"), [("POST", '{"metadata":{"name":"n"}}'), ("DELETE", "")])
async def test_every_value_of_dry_run_counts(api: Api, method: str, body: str) -> None:
    path = MAPS if method == "POST" else f"{MAPS}/a"
    status, _, told = await ask(api, method, f"{path}?dryRun=All&dryRun=", body)
    kind = "CreateOptions" if method == "POST" else "DeleteOptions"
    expected = f'{kind}.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["All",""]: supported values: "All"'
    assert (status, told) == (422, expected)


async def test_a_review_is_about_no_object(api: Api) -> None:
    path = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews"
    body = '{"metadata":{"labels":{"l":"m"},"name":"n"},"spec":{"user":"u"}}'
    status, _, told = await ask(api, "POST", path, body)
    assert status == 422
    assert 'metadata: Invalid value: {"name":"n","namespace":"default","labels":{"l":"m"},"managedFields":[' in told
    assert told.endswith("}: must be empty except for namespace]")


async def test_the_body_of_a_delete_stands_for_its_query(api: Api) -> None:
    assert (await ask(api, "DELETE", f"{MAPS}/a?dryRun=None", '{"dryRun":["All"]}'))[0] == 200
    assert (await api.request("GET", f"{MAPS}/a")).status == 200


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ('{"name":5}', "/; v1, Kind=ConfigMap): .metadata.name: expected string, got "),
        ('{"name":"a","managedFields":"x"}', "/a; v1, Kind=ConfigMap): .metadata.managedFields: expected list, got "),
    ],
)
async def test_an_apply_whose_metadata_is_none(api: Api, metadata: str, told: str) -> None:
    body = f'{{"apiVersion":"v1","kind":"ConfigMap","metadata":{metadata}}}'
    status, _, message = await ask(api, "PATCH", f"{MAPS}/a?fieldManager=m", body, APPLY)
    assert (status, told.replace("; v1", "; /v1") in message) == (500, True), message


async def test_a_value_that_reads_itself_is_told_of_before_a_wrong_type(api: Api) -> None:
    body = '{"metadata":"x","spec":{"containers":[{"name":5,"resources":{"limits":{"cpu":"1x"}}}]}}'
    status, _, told = await ask(api, "POST", "/api/v1/namespaces/default/pods", body)
    assert (status, told.partition(": ")[2].partition(" '")[0]) == (400, "quantities must match the regular expression")
    status, _, told = await ask(api, "POST", "/api/v1/namespaces/default/pods", body.replace("1x", "1"))
    assert told.endswith("json: cannot unmarshal string into Go struct field Pod.metadata of type v1.ObjectMeta")
