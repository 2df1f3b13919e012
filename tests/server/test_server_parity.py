"""What kube-apiserver answers at the edges: parameters of lists and watches, reviews, tokens, owners."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import pytest_asyncio
from apis import ADMIN, Api, running
from pytest import TempPathFactory

MAPS = "/api/v1/namespaces/default/configmaps"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/sa"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: TempPathFactory) -> Any:
    async with running(tmp_path_factory.mktemp("parity")) as started:
        for name in "abc":
            await started.create(MAPS, {"metadata": {"name": name}})
        await started.create("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "sa"}})
        yield started


pytestmark = pytest.mark.asyncio(loop_scope="module")


BAD_PARAMETERS = {
    "limit=": 'strconv.ParseInt: parsing "": invalid syntax',
    "watch=1&timeoutSeconds=": 'strconv.ParseInt: parsing "": invalid syntax',
    "timeout=5": 'invalid timeout specified in the request URL - time: missing unit in duration "5"',
    "limit=1&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MCwic3RhcnQiOiJhXHUwMDAwIn0": "invalid continue token: "
    "continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
    "limit=1&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NTAsInN0YXJ0IjoiIn0": "invalid continue token: "
    "continue key is not valid: encoded start key empty (version meta.k8s.io/v1)",
}


@pytest.mark.parametrize(("query", "told"), BAD_PARAMETERS.items(), ids=BAD_PARAMETERS)
async def test_a_parameter_that_does_not_parse(api: Api, query: str, told: str) -> None:
    response = await api.request("GET", f"{MAPS}?{query}")
    assert (response.status, response.json["message"]) == (400, told)


async def test_a_version_of_the_future_says_when_to_ask_again(api: Api) -> None:
    for path in (
        f"{MAPS}?resourceVersion=99999999",
        f"{MAPS}?resourceVersion=99999999&limit=1",
        f"{MAPS}/a?resourceVersion=99999999",
    ):
        response = await api.request("GET", path)
        assert response.status == 504
        assert response.headers["Retry-After"] == "1"
        assert response.json["details"]["retryAfterSeconds"] == 1


async def test_a_limit_holds_unless_any_version_will_do(api: Api) -> None:
    first = (await api.request("GET", f"{MAPS}?limit=1")).json["metadata"]
    exact = f"resourceVersion={first['resourceVersion']}&resourceVersionMatch=NotOlderThan"
    assert len((await api.request("GET", f"{MAPS}?limit=1&{exact}")).json["items"]) == 1
    rest = await api.request("GET", f"{MAPS}?limit=1&continue={first['continue']}&resourceVersion=0")
    assert len(rest.json["items"]) == 2
    assert "continue" not in rest.json["metadata"]


async def test_a_namespace_in_the_field_selector_bounds_the_pages(api: Api) -> None:
    await api.create("/api/v1/namespaces/kube-system/configmaps", {"metadata": {"name": "z"}})
    page = await api.request("GET", "/api/v1/configmaps?fieldSelector=metadata.namespace%3Ddefault&limit=3")
    assert len(page.json["items"]) == 3
    assert "continue" not in page.json["metadata"]


async def test_bookmarks_announce_the_end_of_the_present_state_unasked(api: Api) -> None:
    response = await api.request("GET", f"{MAPS}?watch=1&allowWatchBookmarks=true&timeoutSeconds=1")
    assert b'"k8s.io/initial-events-end":"true"' in response.body
    assert (await api.request("GET", f"{MAPS}?watch=1&timeoutSeconds=-1")).body == b""


async def test_equal_owners_are_one(api: Api) -> None:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}
    body = {"metadata": {"name": "owned", "ownerReferences": [owner, owner, {**owner, "controller": True}]}}
    response = await api.request("POST", f"{MAPS}?dryRun=All", body)
    assert response.json["metadata"]["ownerReferences"] == [owner, {**owner, "controller": True}]
    assert "duplicate UID(s) observed: u" in response.headers["Warning"]
    body["metadata"]["ownerReferences"] = [{**owner, "apiVersion": "a/b/c"}]
    assert (await api.request("POST", f"{MAPS}?dryRun=All", body)).status == 422


async def test_a_put_that_creates_takes_any_version(api: Api) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/new"
    body: Any = {"metadata": {"name": "new", "resourceVersion": "1"}}
    dry = await api.request("PUT", f"{path}?dryRun=All", body)
    assert (dry.status, dry.json["metadata"]["resourceVersion"]) == (201, "1")
    made = await api.request("PUT", path, body)
    assert made.status == 201
    assert made.json["metadata"]["resourceVersion"] != "1"
    dry = await api.request("POST", f"{MAPS}?dryRun=All", body)
    assert (dry.status, dry.json["metadata"]["resourceVersion"]) == (201, "1")


async def test_a_put_that_would_create_is_not_about_an_object_of_before(api: Api) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/gone"
    for query, prefix in (("", "/registry"), ("?dryRun=All", "")):
        response = await api.request("PUT", path + query, {"metadata": {"name": "gone", "uid": "u"}})
        told = (
            f"StorageError: invalid object, Code: 4, Key: {prefix}/leases/default/gone, ResourceVersion: 0, "
            "AdditionalErrorMsg: Precondition failed: UID in precondition: u, UID in object meta: "
        )
        assert (response.status, response.json["message"].partition(": ")[2]) == (409, told)
        response = await api.request("PUT", path + query, {"metadata": {"name": "gone", "resourceVersion": "x"}})
        assert response.status == 500
        assert response.json["message"] == 'strconv.ParseUint: parsing "x": invalid syntax'
    assert (await api.request("GET", path)).status == 404


async def test_what_is_asked_belongs_to_who_asks(api: Api) -> None:
    asked = {"spec": {"token": ADMIN}}
    review = await api.create(REVIEWS, asked)
    assert review["metadata"]["managedFields"][0]["fieldsV1"] == {"f:spec": {"f:token": {}}}
    request = await api.create(f"{ACCOUNT}/token", {})
    (entry,) = request["metadata"]["managedFields"]
    assert (entry["subresource"], entry["fieldsV1"]) == ("token", {"f:spec": {"f:expirationSeconds": {}}})


async def test_a_review_has_no_table(api: Api) -> None:
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
    for path, body in ((REVIEWS, {"spec": {"token": ADMIN}}), (f"{ACCOUNT}/token", {})):
        response = await api.request("POST", path, body, headers=accept)
        assert (response.status, response.json["apiVersion"]) == (201, "authentication.k8s.io/v1")


@pytest.mark.parametrize(
    ("bound", "told"),
    [
        ({}, "cannot bind token to object of type /, Kind="),
        ({"apiVersion": "v1", "kind": "Pod"}, "Name parameter required."),
    ],
)
async def test_a_token_bound_to_nothing(api: Api, bound: dict[str, str], told: str) -> None:
    response = await api.request("POST", f"{ACCOUNT}/token", {"spec": {"boundObjectRef": bound}})
    assert (response.status, response.json["message"]) == (400, told)


async def test_only_of_own_tokens_it_is_told_what_is_wrong(api: Api) -> None:
    token = (await api.create(f"{ACCOUNT}/token", {"spec": {"audiences": ["y", "x"]}}))["status"]["token"]
    told = {
        "nobody": "invalid bearer token",
        "a.b.c": "invalid bearer token",
        token[:-8] + "AAAAAAAA": "[invalid bearer token, go-jose/go-jose: error in cryptographic primitive]",
        token: '[invalid bearer token, token audiences ["y" "x"] is invalid for the target audiences '
        '["https://kubernetes.default.svc"]]',
    }
    for text, problem in told.items():
        assert (await api.create(REVIEWS, {"spec": {"token": text}}))["status"]["error"] == problem


async def test_a_space_before_the_bearer_token(api: Api) -> None:
    response = await api.request("GET", MAPS, headers={"Authorization": f"Bearer  {ADMIN}"})
    assert response.status == 403
    assert "extra space before the bearer token" in response.headers["Warning"]


async def test_a_connection_has_no_dry_run(api: Api) -> None:
    spec = {"containers": [{"name": "c", "image": "i"}]}
    await api.create("/api/v1/namespaces/default/pods", {"metadata": {"name": "p"}, "spec": spec})
    response = await api.request("POST", "/api/v1/namespaces/default/pods/p/exec?command=ls&dryRun=All")
    assert (response.status, response.json["message"]) == (400, "dryRun is not supported")


SELECTORS = {
    "both": ({"rawSelector": "a=b", "requirements": [{"key": "a", "operator": "In", "values": ["b"]}]}, 422),
    "neither": ({}, 422),
    "no key": ({"requirements": [{"key": "", "operator": "In", "values": ["b"]}]}, 422),
    "no values": ({"requirements": [{"key": "a", "operator": "In"}]}, 422),
    "values": ({"requirements": [{"key": "a", "operator": "Exists", "values": ["b"]}]}, 422),
    "another operator": ({"requirements": [{"key": "a", "operator": "X", "values": ["b"]}]}, 201),
    "unreadable": ({"rawSelector": "a in (b"}, 201),
}


@pytest.mark.parametrize(("selector", "status"), SELECTORS.values(), ids=SELECTORS)
@pytest.mark.parametrize("key", ["fieldSelector", "labelSelector"])
async def test_a_selector_that_an_authorizer_cannot_use(api: Api, key: str, selector: Any, status: int) -> None:
    asked = {"verb": "list", "resource": "pods", key: selector}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    response = await api.request("POST", path, {"spec": {"user": "a", "resourceAttributes": asked}})
    assert response.status == status
    at = f"spec.resourceAttributes.{key}"
    if status == 201:
        assert response.json["status"]["evaluationError"] == f"{at} ignored due to parse error"
    else:
        assert all(cause["field"].startswith(at) for cause in response.json["details"]["causes"])


async def test_discovery_in_protobuf(api: Api) -> None:
    for path in ("/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1"):
        response = await api.request("GET", path, headers={"Accept": "application/vnd.kubernetes.protobuf"})
        assert response.status == 200
        assert response.body.startswith(b"k8s\0")


async def test_a_user_namespace_relaxes_pod_security(api: Api) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "baseline"}
    await api.create("/api/v1/namespaces", {"metadata": {"name": "secure", "labels": labels}})
    container = {"name": "c", "image": "i", "securityContext": {"procMount": "Unmasked"}}
    body = {"metadata": {"name": "p"}, "spec": {"hostUsers": False, "containers": [container]}}
    path = "/api/v1/namespaces/secure/pods?dryRun=All"
    assert (await api.request("POST", path, body)).status == 201
    labels["pod-security.kubernetes.io/enforce-version"] = "v1.34"
    await api.create("/api/v1/namespaces", {"metadata": {"name": "older", "labels": labels}})
    assert (await api.request("POST", path.replace("secure", "older"), body)).status == 403


async def test_a_token_in_a_namespace_that_is_not_there(api: Api) -> None:
    response = await api.request("POST", "/api/v1/namespaces/gone/serviceaccounts/sa/token", {})
    assert (response.status, response.json["details"]["kind"]) == (404, "namespaces")


EDGES = {
    ("POST", "/apis"): 200,
    ("OPTIONS", "/apis/"): 200,
    ("PUT", "/apis/apps/"): 200,
    ("PUT", "/apis/apps/v1"): 405,
    ("PUT", "/apis/apps/v9"): 404,
    ("POST", "/api/v2"): 404,
    ("POST", "/api"): 405,
    ("POST", "/openapi/v3/apis"): 200,
    ("GET", "/version/x"): 404,
    ("PUT", f"{REVIEWS}/a"): 404,
    ("GET", "/api/v1/namespaces/default/bindings/a"): 404,
    ("GET", REVIEWS): 405,
}


@pytest.mark.parametrize(("asked", "status"), EDGES.items(), ids=map(" ".join, EDGES))
async def test_methods_of_documents_and_of_what_is_only_asked(api: Api, asked: tuple[str, str], status: int) -> None:
    response = await api.request(*asked)
    assert (response.status, response.headers["Content-Type"]) == (status, "application/json")


async def test_a_path_that_cannot_be_read_is_told_in_front_of_all_else(api: Api) -> None:
    for method, path in (("GET", "/api/v1/watch"), ("POST", "/apis/apps/v1/proxy")):
        response = await api.request(method, path)
        problem = f"unable to determine kind and namespace from url, {path}"
        told = f'Internal Server Error: "{path}": failed to create RequestInfo: {problem}\n'
        assert (response.status, response.body.decode()) == (500, told)
        assert "Cache-Control" not in response.headers


async def test_openapi_is_negotiated(api: Api) -> None:
    for path in ("/openapi/v2", "/openapi/v3/apis/apps/v1"):
        response = await api.request("GET", path)
        assert (response.status, response.headers["Vary"]) == (200, "Accept")
        refused = await api.request("GET", path, headers={"Accept": "text/plain"})
        assert (refused.status, refused.body, refused.headers["Vary"]) == (406, b"", "Accept")
    assert (await api.request("GET", "/openapi/v3")).status == 200
    assert (await api.request("GET", "/openapi/v3/")).status == 404


async def test_compression_that_the_client_does_not_want(api: Api) -> None:
    for accepted, encoding in (("gzip;q=0", None), ("br, gzip; q=0.5", "gzip"), ("br", None)):
        response = await api.request("GET", "/openapi/v2", headers={"Accept-Encoding": accepted})
        assert response.headers.get("Content-Encoding") == encoding


async def test_one_health_check_is_answered_without_a_word_on_sniffing(api: Api) -> None:
    assert "X-Content-Type-Options" in (await api.request("GET", "/livez")).headers
    assert "X-Content-Type-Options" not in (await api.request("GET", "/livez/ping")).headers


async def test_a_token_counts_from_where_the_list_begins(api: Api) -> None:
    def token(revision: int, start: str) -> str:
        document = {"v": "meta.k8s.io/v1", "rv": revision, "start": start}
        return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")

    async def names(query: str) -> tuple[list[str], bool]:
        page = (await api.request("GET", f"{MAPS}?limit=1&{query}")).json
        return [item["metadata"]["name"] for item in page["items"]], "continue" in page["metadata"]

    for start in ("a\0", "/a\0"):
        for revision in (-1, -7):
            assert await names(f"continue={token(revision, start)}") == (["b"], True)
    assert await names("fieldSelector=metadata.name%3Db") == (["b"], False)
    assert await names(f"fieldSelector=metadata.name%3Db&continue={token(-1, 'a')}") == (["b"], True)
    assert await names(f"fieldSelector=metadata.name%3Da&continue={token(-1, 'b')}") == ([], False)


async def test_a_version_that_is_none(api: Api) -> None:
    told = "unexpected GroupVersion string: a/b/c"
    body = {"apiVersion": "a/b/c", "kind": "DeleteOptions"}
    for path in (f"{MAPS}/gone", MAPS):
        response = await api.request("DELETE", path, body)
        assert (response.status, response.json["message"]) == (400, told)
    response = await api.request("POST", MAPS, {"apiVersion": "a/b/c", "kind": "ConfigMap"})
    assert response.status == 400
    assert response.json["message"].startswith(
        f"the object provided is unrecognized (must be of type ConfigMap): {told}"
    )
    merge = {"Content-Type": "application/merge-patch+json"}
    response = await api.request("PATCH", f"{MAPS}/a", {"apiVersion": "a/b/c"}, headers=merge)
    assert (response.status, response.json["message"].endswith(told)) == (422, True)


ACCOUNTS = {"a:b.c": True, "X:y": False, "a:B": False, "a.b:c": False, "a:b_c": False, "a:b:c": False}


@pytest.mark.parametrize(("account", "is_one"), ACCOUNTS.items(), ids=ACCOUNTS)
async def test_only_names_of_service_accounts_have_their_groups(api: Api, account: str, is_one: bool) -> None:
    headers = {"Impersonate-User": f"system:serviceaccount:{account}"}
    response = await api.request("POST", f"{REVIEWS[:-12]}selfsubjectreviews", {}, headers=headers)
    groups = response.json["status"]["userInfo"]["groups"]
    assert groups[-1] == "system:authenticated"
    assert ("system:serviceaccounts" in groups) is is_one


async def test_a_selector_of_aggregated_roles_is_refused_as_a_whole_too(api: Api) -> None:
    rule = {"clusterRoleSelectors": [{}, {"matchLabels": {"a b": "c"}}]}
    body = {"metadata": {"name": "x"}, "aggregationRule": rule}
    response = await api.request("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles?dryRun=All", body)
    at = "aggregationRule.clusterRoleSelectors[1]"
    key, whole = response.json["details"]["causes"]
    assert (response.status, key["field"]) == (422, f"{at}.matchLabels")
    assert whole == {
        "reason": "FieldValueInvalid", "message": "Invalid value: null: invalid label selector.", "field": at,
    }  # fmt: skip


async def test_a_list_is_checked_before_its_fields(api: Api) -> None:
    response = await api.request("GET", f"{MAPS}?fieldSelector=spec.nope%3D1&resourceVersionMatch=Exact")
    assert (response.status, response.json["details"]["kind"]) == (422, "ListOptions")
    response = await api.request("GET", f"{MAPS}?fieldSelector=spec.nope&resourceVersionMatch=Exact")
    assert (response.status, response.json["message"].partition(":")[0]) == (400, "invalid selector")


@pytest.mark.parametrize(("path", "rows"), [("/apis/rbac.authorization.k8s.io/v1/clusterroles", None), (MAPS, [])])
async def test_rows_of_a_table_of_nothing(api: Api, path: str, rows: list[Any] | None) -> None:
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    assert (await api.request("GET", f"{path}?labelSelector=none", headers=accept)).json["rows"] == rows


async def test_informers_are_part_of_readiness(api: Api) -> None:
    statuses = [(await api.request("GET", f"/{one}/informer-sync")).status for one in ("readyz", "livez", "healthz")]
    assert statuses == [200, 404, 404]


@pytest.mark.parametrize(
    ("path", "only"),
    [("/.well-known/openid-configuration", "application/json"), ("/openid/v1/jwks", "application/jwk-set+json")],
)
async def test_what_is_told_of_issuers_has_one_form(api: Api, path: str, only: str) -> None:
    assert (await api.request("GET", path, headers={"Accept": only})).status == 200
    refused = await api.request("GET", path, headers={"Accept": "text/html"})
    told = f"406: Not Acceptable\n\nAvailable representations: {only}"
    assert (refused.status, refused.json["message"]) == (406, told)


async def test_modes_of_a_driver_that_there_are_not(api: Api) -> None:
    path = "/apis/storage.k8s.io/v1/csidrivers"
    await api.create(path, {"metadata": {"name": "d"}})
    patch = {"spec": {"volumeLifecycleModes": ["Odd"]}}
    refused = await api.request("PATCH", f"{path}/d", patch, headers={"Content-Type": "application/merge-patch+json"})
    assert [cause["reason"] for cause in refused.json["details"]["causes"]] == [
        "FieldValueNotSupported", "FieldValueInvalid",
    ]  # fmt: skip


async def test_defaults_of_a_limit_range_count_for_the_pod_as_a_whole(api: Api) -> None:
    await api.create("/api/v1/namespaces", {"metadata": {"name": "ranged"}})
    limits = [{"type": "Container", "defaultRequest": {"memory": "1Gi"}}]
    await api.create("/api/v1/namespaces/ranged/limitranges", {"metadata": {"name": "r"}, "spec": {"limits": limits}})
    spec = {"containers": [{"name": "c", "image": "i"}], "resources": {"limits": {"cpu": "2"}}}
    made = await api.create("/api/v1/namespaces/ranged/pods", {"metadata": {"name": "p"}, "spec": spec})
    assert made["spec"]["resources"]["requests"] == {"cpu": "2", "memory": "1Gi"}
