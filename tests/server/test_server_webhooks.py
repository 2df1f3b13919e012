"""Admission webhooks: which requests they are asked about, what they are sent, what their answers do."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from apis import Api, running
from peers import certificate, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOOKS = "/apis/admissionregistration.k8s.io/v1"
MAPS = "/api/v1/namespaces/default/configmaps"
Respond = Callable[[dict[str, Any]], dict[str, Any]]


def allow(request: dict[str, Any]) -> dict[str, Any]:
    return {"allowed": True}


def deny(request: dict[str, Any]) -> dict[str, Any]:
    return {"allowed": False, "status": {"message": "no", "code": 418, "reason": "Teapot"}}


def patched(*operations: dict[str, Any]) -> Respond:
    text = base64.b64encode(json.dumps(operations).encode()).decode()
    return lambda request: {"allowed": True, "patch": text, "patchType": "JSONPatch"}


def labelled(key: str, value: str = "yes") -> Respond:
    """Adds a label, whether there are any or not."""

    def respond(request: dict[str, Any]) -> dict[str, Any]:
        labels = request["object"]["metadata"].get("labels") or {}
        return patched({"op": "add", "path": "/metadata/labels", "value": {**labels, key: value}})(request)

    return respond


class Hooks:
    """Webhooks by path on one HTTPS server; each records the requests that it was asked about."""

    def __init__(self, folder: Path) -> None:
        self.tls, ca_file = certificate(folder)
        self.bundle = base64.b64encode(Path(ca_file).read_bytes()).decode()
        self.url = ""
        self.respond: dict[str, Respond] = {}
        self.asked: dict[str, list[dict[str, Any]]] = {}
        self.reviews: list[dict[str, Any]] = []

    async def handle(self, request: web.Request) -> web.Response:
        review = await request.json()
        name = request.path.strip("/")
        self.reviews.append({**review, "query": request.query_string})
        self.asked.setdefault(name, []).append(review["request"])
        answer = self.respond[name](review["request"])
        if "text" in answer:
            return web.Response(text=answer["text"], status=answer.get("http", 200))
        if "raw" in answer:
            return web.json_response(answer["raw"], status=answer.get("http", 200))
        response = {"uid": review["request"]["uid"], **answer}
        return web.json_response({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response})

    def hook(self, name: str, respond: Respond, **more: Any) -> dict[str, Any]:
        self.respond[name] = respond
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}
        whole = {
            "name": f"{name}.example.com",
            "clientConfig": {"url": f"{self.url}/{name}", "caBundle": self.bundle},
            "rules": [rule],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }
        return {**whole, **more}

    def reset(self) -> None:
        self.asked.clear()
        self.reviews.clear()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Api, Hooks]]:
    folder = tmp_path_factory.mktemp("webhooks")
    hooks = Hooks(folder / "hooks")
    async with running(folder) as api, serving({"/{name}": hooks.handle}, hooks.tls) as url:
        hooks.url = url
        yield api, hooks


@asynccontextmanager
async def configured(api: Api, kind: str, *hooks: dict[str, Any]) -> AsyncIterator[None]:
    """While this configuration is there; `kind` is mutating or validating."""
    path = f"{HOOKS}/{kind}webhookconfigurations"
    await api.create(path, {"metadata": {"name": "w"}, "webhooks": list(hooks)})
    try:
        yield
    finally:
        await api.delete(f"{path}/w")


def config_map(name: str, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **metadata}, "data": {"k": "v"}}


async def refusal(api: Api, name: str, query: str = "", **metadata: Any) -> tuple[int, str]:
    response = await api.request("POST", MAPS + query, config_map(name, **metadata))
    return response.status, response.json.get("message", "")


# ---------------------------------------------------------------- what is sent


async def test_a_review_tells_everything_about_a_request(served: tuple[Api, Hooks]):
    api, hooks = served
    hooks.reset()
    async with configured(api, "validating", hooks.hook("see", allow)):
        await api.create(f"{MAPS}?fieldManager=me&dryRun=All", config_map("dry"))
        await api.create(MAPS, config_map("a"))
        await api.merge(f"{MAPS}/a", {"data": {"k": "w"}})
        await api.delete(f"{MAPS}/a")
    dry, created, changed, deleted = hooks.asked["see"]
    assert hooks.reviews[0]["query"] == "timeout=10s"
    kind, resource = {"group": "", "version": "v1", "kind": "ConfigMap"}, "configmaps"
    assert (dry["kind"], dry["requestKind"], dry["resource"]["resource"]) == (kind, kind, resource)
    assert dry["userInfo"] == {
        "username": "admin",
        "uid": "admin",
        "groups": ["system:masters", "system:authenticated"],
    }
    assert (dry["name"], dry["namespace"], dry["operation"], dry["dryRun"]) == ("dry", "default", "CREATE", True)
    options = {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "me", "dryRun": ["All"]}
    assert (dry["options"], dry["oldObject"]) == (options, None)
    assert created["object"]["metadata"]["uid"] and created["object"]["data"] == {"k": "v"}
    assert (changed["operation"], changed["options"]["kind"]) == ("UPDATE", "UpdateOptions")
    assert (changed["object"]["data"], changed["oldObject"]["data"]) == ({"k": "w"}, {"k": "v"})
    assert changed["oldObject"]["metadata"]["resourceVersion"]
    assert (deleted["operation"], deleted["object"], deleted["oldObject"]["data"]) == ("DELETE", None, {"k": "w"})


async def test_what_is_not_set_yet_is_not_shown_to_mutating_webhooks(served: tuple[Api, Hooks]):
    api, hooks = served
    hooks.reset()
    async with configured(api, "mutating", hooks.hook("see", allow)):
        await api.create(f"{MAPS}?dryRun=All", {**config_map(""), "metadata": {"generateName": "g-"}})
    (asked,) = hooks.asked["see"]
    assert "name" not in asked and not {"uid", "creationTimestamp", "name"} & set(asked["object"]["metadata"])


async def test_rules_see_equivalent_versions(served: tuple[Api, Hooks]):
    api, hooks = served
    hooks.reset()
    rule = {"apiGroups": ["autoscaling"], "apiVersions": ["v2"], "operations": ["CREATE"], "resources": ["*"]}
    exact = hooks.hook("exact", deny, rules=[rule], matchPolicy="Exact")
    async with configured(api, "validating", hooks.hook("same", allow, rules=[rule]), exact):
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
        spec = {"scaleTargetRef": target, "maxReplicas": 3}
        path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
        await api.create(path, {"metadata": {"name": "h"}, "spec": spec})
    (asked,) = hooks.asked["same"]
    assert (asked["kind"]["version"], asked["requestKind"]["version"]) == ("v2", "v1")
    assert asked["object"]["apiVersion"] == "autoscaling/v2" and asked["object"]["spec"]["metrics"]


async def test_subresources_are_asked_about_by_their_own_kind(served: tuple[Api, Hooks]):
    api, hooks = served
    hooks.reset()
    path = "/apis/apps/v1/namespaces/default/deployments"
    labels = {"app": "a"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    body = {"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": labels}, "template": template}}
    await api.create(path, body)
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments/*"]}
    replicas = patched({"op": "replace", "path": "/spec/replicas", "value": 7})
    async with configured(api, "mutating", hooks.hook("scale", replicas, rules=[{**rule, "scope": "Namespaced"}])):
        scaled = await api.merge(f"{path}/d/scale", {"spec": {"replicas": 2}})
    (asked,) = hooks.asked["scale"]
    assert (asked["kind"]["kind"], asked["subResource"], asked["object"]["spec"]) == ("Scale", "scale", {"replicas": 2})
    assert scaled["spec"] == {"replicas": 7}
    assert (await api.get(f"{path}/d"))["spec"]["replicas"] == 7


async def test_connections_are_asked_about(served: tuple[Api, Hooks]):
    api, hooks = served
    hooks.reset()
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CONNECT"], "resources": ["pods/exec"]}
    async with configured(api, "validating", hooks.hook("exec", deny, rules=[rule])):
        path = "/api/v1/namespaces/default/pods/p/exec?command=a&command=b&tty=true&container=c"
        response = await api.request("POST", path)
    (asked,) = hooks.asked["exec"]
    expected = {"kind": "PodExecOptions", "apiVersion": "v1", "tty": True, "container": "c", "command": ["a", "b"]}
    assert (response.status, asked["operation"], asked["name"]) == (418, "CONNECT", "p")
    assert (asked["object"], asked["options"]) == (expected, None)


# ---------------------------------------------------------------- which requests


async def test_selectors_and_conditions_choose(served: tuple[Api, Hooks]):
    api, hooks = served
    conditions = [{"name": "c", "expression": "!object.metadata.name.startsWith('skip')"}]
    choosing = {
        "objectSelector": {"matchLabels": {"guard": "on"}},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
        "matchConditions": conditions,
    }
    async with configured(api, "validating", hooks.hook("choose", deny, **choosing)):
        assert (await refusal(api, "a", "?dryRun=All"))[0] == 201
        assert (await refusal(api, "skip", "?dryRun=All", labels={"guard": "on"}))[0] == 201
        assert (await refusal(api, "a", "?dryRun=All", labels={"guard": "on"}))[0] == 418
        response = await api.request(
            "POST", "/api/v1/namespaces/kube-system/configmaps?dryRun=All", config_map("a", labels={"guard": "on"})
        )
        assert response.status == 201


async def test_a_condition_that_fails_refuses_unless_failures_are_ignored(served: tuple[Api, Hooks]):
    api, hooks = served
    conditions = [{"name": "c", "expression": "object.data.none == 'x'"}]
    async with configured(api, "validating", hooks.hook("cond", deny, matchConditions=conditions)):
        message = (
            "configmaps \"a\" is forbidden: expression 'object.data.none == 'x'' resulted in error: no such key: none"
        )
        assert await refusal(api, "a", "?dryRun=All") == (403, message)
    ignoring = hooks.hook("cond", deny, matchConditions=conditions, failurePolicy="Ignore")
    async with configured(api, "validating", ignoring):
        assert (await refusal(api, "a", "?dryRun=All"))[0] == 201


async def test_configurations_themselves_are_exempt(served: tuple[Api, Hooks]):
    api, hooks = served
    rule = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}
    async with configured(api, "validating", hooks.hook("all", deny, rules=[rule])):
        assert (await refusal(api, "a"))[0] == 418
    assert (await refusal(api, "a", "?dryRun=All"))[0] == 201


# ---------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("result", "code", "message"),
    [
        ({"message": "no", "code": 418}, 418, "denied the request: no"),
        ({"reason": "Because", "code": 200}, 400, "denied the request: Because"),
        (None, 400, "denied the request without explanation"),
    ],
)
async def test_refusals_name_the_webhook(served: tuple[Api, Hooks], result: Any, code: int, message: str):
    api, hooks = served
    answer = {"allowed": False} if result is None else {"allowed": False, "status": result}
    async with configured(api, "validating", hooks.hook("no", lambda request: answer)):
        told = await refusal(api, "a", "?dryRun=All")
        assert told == (code, f'admission webhook "no.example.com" {message}')


async def test_warnings_reach_the_client(served: tuple[Api, Hooks]):
    api, hooks = served
    async with configured(api, "validating", hooks.hook("warn", lambda request: {"allowed": True, "warnings": ["w!"]})):
        response = await api.request("POST", f"{MAPS}?dryRun=All", config_map("a"))
    assert response.headers.getall("Warning") == ['299 - "w!"']


async def test_patches_change_what_is_stored(served: tuple[Api, Hooks]):
    api, hooks = served
    hooks.reset()
    both = hooks.hook("one", labelled("one")), hooks.hook("two", labelled("two"))
    async with configured(api, "mutating", *both):
        made = await api.create(MAPS, config_map("patched"))
    assert made["metadata"]["labels"] == {"one": "yes", "two": "yes"}
    assert await api.get(f"{MAPS}/patched") == made
    assert hooks.asked["two"][0]["object"]["metadata"]["labels"] == {"one": "yes"}


async def test_what_a_patch_makes_is_defaulted(served: tuple[Api, Hooks]):
    api, hooks = served
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    container = {"name": "extra", "image": "img:latest", "unknown": 1}
    add = patched({"op": "add", "path": "/spec/containers/-", "value": container})
    async with configured(api, "mutating", hooks.hook("inject", add, rules=[rule])):
        spec = {"containers": [{"name": "c", "image": "img:1"}]}
        made = await api.create("/api/v1/namespaces/default/pods?dryRun=All", {"metadata": {"name": "p"}, "spec": spec})
    extra = made["spec"]["containers"][1]
    assert (extra["imagePullPolicy"], "unknown" in extra) == ("Always", False)


async def test_a_webhook_that_asks_for_it_is_asked_again_after_a_change(served: tuple[Api, Hooks]):
    api, hooks = served
    hooks.reset()
    listed = (
        hooks.hook("first", labelled("first"), reinvocationPolicy="IfNeeded"),
        hooks.hook("never", allow),
        hooks.hook("last", labelled("last")),
    )
    async with configured(api, "mutating", *listed):
        await api.create(f"{MAPS}?dryRun=All", config_map("a"))
    assert [len(hooks.asked[name]) for name in ("first", "never", "last")] == [2, 1, 1]
    assert hooks.asked["first"][1]["object"]["metadata"]["labels"] == {"first": "yes", "last": "yes"}


# ---------------------------------------------------------------- failures


async def test_many_long_warnings_are_cut_short(served: tuple[Api, Hooks]):
    api, hooks = served
    long = [f"{number:02}" + "y" * 300 for number in range(40)]
    async with configured(api, "validating", hooks.hook("loud", lambda request: {"allowed": True, "warnings": long})):
        answer = await api.request("POST", f"{MAPS}?dryRun=All", {"metadata": {"name": "a"}})
        assert answer.headers.getall("Warning") == [f'299 - "{text[:256]}"' for text in long[:16]]


async def test_a_patch_that_is_no_json(served: tuple[Api, Hooks]):
    api, hooks = served
    text = base64.b64encode(b"zzz").decode()
    answer = {"allowed": True, "patch": text, "patchType": "JSONPatch"}
    async with configured(api, "mutating", hooks.hook("bad", lambda request: answer)):
        assert await refusal(api, "a", "?dryRun=All") == (
            500,
            'Internal error occurred: failed calling webhook "bad.example.com": received undecodable patch in webhook '
            "response: invalid character 'z' looking for beginning of value",
        )


async def test_a_collection_is_deleted_without_names(served: tuple[Api, Hooks]):
    api, hooks = served
    await api.create(MAPS, {"metadata": {"name": "one", "labels": {"gone": "soon"}}})
    async with configured(api, "validating", hooks.hook("seen", allow)):
        await api.delete(f"{MAPS}?labelSelector=gone")
    (request,) = hooks.asked["seen"]
    assert request["operation"] == "DELETE" and "name" not in request
    assert request["oldObject"]["metadata"]["name"] == "one"


async def test_answers_that_are_none(served: tuple[Api, Hooks]):
    api, hooks = served
    patch = patched({"op": "remove", "path": "/data"})
    failed = 'Internal error occurred: failed calling webhook "bad.example.com": '
    cases: list[tuple[Respond, str]] = [
        (
            lambda request: {"raw": {}},
            "received invalid webhook response: expected webhook response of admission.k8s.io/v1, "
            "Kind=AdmissionReview, got /, Kind=",
        ),
        (patch, "received invalid webhook response: validating webhook may not return response.patch"),
        (lambda request: {"raw": {}, "http": 404}, "failed to call webhook: the server could not find the requested "
         "resource"),
        (lambda request: {"raw": "oops", "http": 500}, 'failed to call webhook: an error on the server ("unknown") '
         "has prevented the request from succeeding"),
        (lambda request: {"text": "oops", "http": 500}, 'failed to call webhook: an error on the server ("oops") '
         "has prevented the request from succeeding"),
        (lambda request: {"text": "not you", "http": 403}, "failed to call webhook: not you"),
        (lambda request: {"text": "", "http": 406}, "failed to call webhook: the server was unable to respond with a "
         "content type that the client supports"),
        (lambda request: {"text": ""}, "failed to call webhook: 0-length response with status code: 200 and content "
         "type: text/plain"),
        (lambda request: {"raw": {"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"}},
         "failed to call webhook: converting (v1beta1.AdmissionReview) to (v1.AdmissionReview): unknown conversion"),
        (lambda request: {"allowed": True, "uid": "x"}, "received invalid webhook response: expected response.uid="),
    ]  # fmt: skip
    for respond, message in cases:
        async with configured(api, "validating", hooks.hook("bad", respond)):
            code, told = await refusal(api, "a", "?dryRun=All")
        assert (code, told.startswith(failed + message)) == (500, True), told
    async with configured(api, "validating", hooks.hook("bad", cases[0][0], failurePolicy="Ignore")):
        assert (await refusal(api, "a", "?dryRun=All"))[0] == 201


async def test_an_unknown_authority_is_no_webhook(served: tuple[Api, Hooks], tmp_path: Path):
    api, hooks = served
    other = Hooks(tmp_path / "other")
    config = {"url": f"{hooks.url}/x", "caBundle": other.bundle}
    async with configured(api, "validating", hooks.hook("x", allow, clientConfig=config)):
        code, told = await refusal(api, "a", "?dryRun=All")
    problem = "tls: failed to verify certificate: x509: certificate signed by unknown authority"
    assert (code, told.endswith(f'failed to call webhook: Post "{hooks.url}/x?timeout=10s": {problem}')) == (500, True)


async def test_patches_that_do_not_fit_refuse(served: tuple[Api, Hooks]):
    api, hooks = served
    wrong = patched({"op": "add", "path": "/data", "value": 1})
    async with configured(api, "mutating", hooks.hook("wrong", wrong)):
        code, told = await refusal(api, "a", "?dryRun=All")
    assert (code, "cannot unmarshal number into Go struct field ConfigMap.data" in told) == (500, True), told


async def test_the_older_review_is_less_strict(served: tuple[Api, Hooks]):
    api, hooks = served
    hooks.reset()
    old = hooks.hook(
        "old", lambda request: {"raw": {"response": {"allowed": True}}}, admissionReviewVersions=["v1beta1"]
    )
    async with configured(api, "validating", old):
        assert (await refusal(api, "a", "?dryRun=All"))[0] == 201
    assert hooks.reviews[0]["apiVersion"] == "admission.k8s.io/v1beta1"


async def test_services_lead_to_webhooks(served: tuple[Api, Hooks]):
    api, hooks = served
    service = {"namespace": "default", "name": "hooks", "port": 8443, "path": "/svc"}
    hook = hooks.hook("svc", allow, clientConfig={"service": service, "caBundle": hooks.bundle})
    url = "https://hooks.default.svc:8443/svc?timeout=10s"
    async with configured(api, "validating", hook):
        _, told = await refusal(api, "a", "?dryRun=All")
        assert told.endswith(f'failed to call webhook: Post "{url}": service "hooks" not found')
        spec = {"ports": [{"port": 8443}]}
        await api.create("/api/v1/namespaces/default/services", {"metadata": {"name": "hooks"}, "spec": spec})
        _, told = await refusal(api, "a", "?dryRun=All")
        assert told.endswith(f'Post "{url}": no endpoints available for service "hooks"')


async def test_metrics_count_the_calls(served: tuple[Api, Hooks]):
    api, hooks = served
    async with configured(api, "validating", hooks.hook("counted", deny)):
        await refusal(api, "a", "?dryRun=All")
    page = (await api.request("GET", "/metrics")).body.decode()
    labels = 'name="counted.example.com",type="validating",operation="CREATE"'
    assert f'apiserver_admission_webhook_request_total{{{labels},code="418",rejected="true"}} 1' in page
    assert (
        f'apiserver_admission_webhook_rejection_count{{{labels},error_type="no_error",rejection_code="418"}} 1' in page
    )
