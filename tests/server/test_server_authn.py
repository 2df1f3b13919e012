"""Who asks: tokens, certificates, proxies, service accounts, impersonation."""

from __future__ import annotations

import base64
import json
import ssl
import time
from pathlib import Path

import aiohttp
import pytest
from apis import ADMIN, ALICE, Api, running

from fastkube.server import authn as authentication
from fastkube.server.authn import read_token_file

REVIEWS = "/apis/authentication.k8s.io/v1"
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"


async def whoami(api: Api, **more) -> dict:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    return (await api.create(f"{REVIEWS}/selfsubjectreviews", body, **more))["status"]["userInfo"]


async def test_static_tokens(api: Api) -> None:
    assert await whoami(api) == {
        "username": "admin",
        "uid": "admin",
        "groups": ["system:masters", "system:authenticated"],
    }
    assert (await whoami(api, token=ALICE))["groups"] == ["dev", "system:authenticated"]
    assert (await whoami(api, token="component-token"))["username"] == "system:kube-scheduler"


@pytest.mark.parametrize("header", ["Bearer nope", "Bearer a.b.c", "bearer eyJ.eyJ.x", "Bearer " + "x" * 5000])
async def test_wrong_tokens_are_never_anonymous(api: Api, header: str) -> None:
    response = await api.request("GET", "/healthz", token="", headers={"Authorization": header})
    assert (response.status, response.json["message"]) == (401, "Unauthorized")


async def test_anonymous(api: Api, tmp_path: Path) -> None:
    assert (await api.request("GET", "/version", token="")).status == 200
    refused = await api.request("GET", "/api", token="")
    assert refused.json["message"] == 'forbidden: User "system:anonymous" cannot get path "/api"'
    basic = await api.request("GET", "/version", token="", headers={"Authorization": "Basic eDp5"})
    assert basic.status == 200, "other schemes are not ours to judge"
    async with running(tmp_path / "closed", anonymous_auth=False) as closed:
        assert (await closed.request("GET", "/version", token="")).status == 401


def test_token_files_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text('t1,u1,1\n\nt2,u2,2,"a, b",more\n')
    users = read_token_file(file)
    assert (users["t1"].name, users["t1"].groups, users["t2"].groups) == ("u1", (), ("a", "b"))
    file.write_text("t1,u1\n")
    with pytest.raises(ValueError, match="tokens:1: a line needs at least"):
        read_token_file(file)


# ---------------------------------------------------------------- certificates


def _client_context(directory: Path, cert: str = "", key: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(directory / "pki" / "ca.crt"))
    if cert:
        context.load_cert_chain(directory / "pki" / cert, directory / "pki" / key)
    return context


async def _whoami_over_tls(url: str, context: ssl.SSLContext, headers: dict[str, str] | None = None) -> dict:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}{REVIEWS}/selfsubjectreviews", json=body, ssl=context, headers=headers) as response,
    ):
        return await response.json()


async def test_client_certificates(tmp_path: Path) -> None:
    async with running(tmp_path, secure_port=0) as api:
        url = api.server.url
        assert url.startswith("https://127.0.0.1:")
        named = await _whoami_over_tls(url, _client_context(tmp_path, "admin.crt", "admin.key"))
        user = named["status"]["userInfo"]
        assert (user["username"], user["groups"]) == ("kubernetes-admin", ["system:masters", "system:authenticated"])
        assert user["extra"]["authentication.kubernetes.io/credential-id"][0].startswith("X509SHA256=")
        nobody = await _whoami_over_tls(url, _client_context(tmp_path))
        assert nobody["code"] == 403
        by_token = {"Authorization": f"Bearer {ALICE}"}
        alice = await _whoami_over_tls(url, _client_context(tmp_path), by_token)
        assert alice["status"]["userInfo"]["username"] == "alice"


async def test_a_kubeconfig_is_enough_to_connect(tmp_path: Path) -> None:
    from fastkube.client import Client

    async with running(tmp_path, secure_port=0) as api:
        path = tmp_path / "kubeconfig"
        api.server.write_kubeconfig(path)
        assert path.stat().st_mode & 0o777 == 0o600
        async with Client.from_kubeconfig(path) as client:
            assert (await client.get("v1/namespaces", name="default"))["metadata"]["name"] == "default"


async def test_an_authenticating_proxy_names_the_user(tmp_path: Path) -> None:
    from fastkube.server import pki

    other = pki.prepare(tmp_path / "proxy", ["x"], time.time())
    options = {"requestheader_client_ca_file": str(other.ca_cert), "requestheader_allowed_names": ("kubernetes-admin",)}
    async with running(tmp_path, secure_port=0, **options) as api:
        context = _client_context(tmp_path)
        context.load_cert_chain(other.admin_cert, other.admin_key)
        headers = {"X-Remote-User": "zoe", "X-Remote-Group": "g1", "X-Remote-Extra-Scopes": "s"}
        user = (await _whoami_over_tls(api.server.url, context, headers))["status"]["userInfo"]
        assert user == {"username": "zoe", "groups": ["g1", "system:authenticated"], "extra": {"scopes": ["s"]}}
        nobody = await _whoami_over_tls(api.server.url, context)
        assert nobody["code"] == 403, "the proxy's certificate is nobody's by itself"
        direct = _client_context(tmp_path, "admin.crt", "admin.key")
        user = (await _whoami_over_tls(api.server.url, direct, headers))["status"]["userInfo"]
        assert user["username"] == "kubernetes-admin", "others' headers count for nothing"


# ---------------------------------------------------------------- service accounts


async def _account_token(api: Api, **spec) -> str:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    return (await api.create(f"{ACCOUNTS}/robot/token", body))["status"]["token"]


def _part(token: str, index: int) -> dict:
    text = token.split(".")[index]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


async def test_service_account_tokens(api: Api) -> None:
    account = await api.create(ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}})
    token = await _account_token(api)
    claims = _part(token, 1)
    assert claims["sub"] == "system:serviceaccount:default:robot"
    assert claims["iss"] == "https://kubernetes.default.svc"
    assert claims["exp"] - claims["iat"] == 3600
    user = await whoami(api, token=token)
    assert user["username"] == "system:serviceaccount:default:robot"
    assert user["uid"] == account["metadata"]["uid"]
    assert user["groups"] == ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]
    assert user["extra"] == {"authentication.kubernetes.io/credential-id": [f"JTI={claims['jti']}"]}
    head, body, signature = token.split(".")
    altered = json.dumps({**claims, "sub": "system:serviceaccount:default:other"}).encode()
    forged = ".".join((head, base64.urlsafe_b64encode(altered).rstrip(b"=").decode(), signature))
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none"}).encode()).rstrip(b"=").decode()
    for wrong in (forged, f"{none}.{body}.", f"{head}.{body}.", f"{head}.{body}.AAAA", token + "x"):
        assert (await api.request("GET", "/version", token=wrong)).status == 401


async def test_tokens_end_with_what_they_are_bound_to(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "_RECHECK_S", 0.0)
    await api.create(ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}})
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "type": "Opaque"}
    await api.create("/api/v1/namespaces/default/secrets", secret)
    bound = await _account_token(api, boundObjectRef={"kind": "Secret", "apiVersion": "v1", "name": "s"})
    free = await _account_token(api)
    for token in (bound, free):
        assert (await api.request("GET", "/version", token=token)).status == 200
    await api.delete("/api/v1/namespaces/default/secrets/s")
    assert (await api.request("GET", "/version", token=bound)).status == 401
    assert (await api.request("GET", "/version", token=free)).status == 200
    await api.delete(f"{ACCOUNTS}/robot")
    await api.create(ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}})
    assert (await api.request("GET", "/version", token=free)).status == 401, "another account of the same name"


async def test_audiences_and_token_reviews(api: Api) -> None:
    await api.create(ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}})
    foreign = await _account_token(api, audiences=["vault"])
    assert (await api.request("GET", "/version", token=foreign)).status == 401

    async def review(token: str, *audiences: str) -> dict:
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
        spec = {"token": token, **({"audiences": list(audiences)} if audiences else {})}
        return (await api.create(f"{REVIEWS}/tokenreviews", {**body, "spec": spec}))["status"]

    status = await review(foreign, "vault", "else")
    assert (status["authenticated"], status["audiences"]) == (True, ["vault"])
    assert status["user"]["username"] == "system:serviceaccount:default:robot"
    assert "authenticated" not in await review(foreign)
    assert (await review(ADMIN))["user"]["username"] == "admin"
    assert "authenticated" not in await review("nope")
    empty = await api.request("POST", f"{REVIEWS}/tokenreviews", {"kind": "TokenReview"})
    assert empty.status == 400


async def test_the_issuer_can_be_discovered(api: Api) -> None:
    await api.create(ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}})
    document = await api.request("GET", "/.well-known/openid-configuration")
    assert document.json["issuer"] == "https://kubernetes.default.svc"
    assert document.headers["Cache-Control"] == "public, max-age=3600"
    keys = await api.request("GET", "/openid/v1/jwks", headers={"Accept": "application/jwk-set+json"})
    assert keys.headers["Content-Type"] == "application/jwk-set+json"
    assert keys.json["keys"][0]["kid"] == _part(await _account_token(api), 0)["kid"]
    assert (await api.request("GET", "/openid/v1/jwks")).status == 406


async def test_bootstrap_tokens(tmp_path: Path) -> None:
    async with running(tmp_path, enable_bootstrap_token_auth=True) as api:
        data = {
            "token-id": "abcdef",
            "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:workers",
            "expiration": "2999-01-01T00:00:00Z",
        }
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "bootstrap-token-abcdef"},
            "type": "bootstrap.kubernetes.io/token",
            "data": encoded,
        }
        await api.create("/api/v1/namespaces/kube-system/secrets", secret)
        user = await whoami(api, token="abcdef.0123456789abcdef")
        assert user["username"] == "system:bootstrap:abcdef"
        assert user["groups"] == ["system:bootstrappers", "system:bootstrappers:workers", "system:authenticated"]
        assert (await api.request("GET", "/version", token="abcdef.0123456789abcdee")).status == 401
        assert (await api.request("GET", "/version", token="zzzzzz.0123456789abcdef")).status == 401


async def test_browsers_send_tokens_as_a_subprotocol(api: Api) -> None:
    offered = "base64url.bearer.authorization.k8s.io." + base64.urlsafe_b64encode(ADMIN.encode()).decode().rstrip("=")
    path = "/api/v1/namespaces/default/configmaps?watch=1"
    async with api.session.ws_connect(api.url + path, protocols=(offered, "binary.k8s.io")) as ws:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
        await api.create("/api/v1/namespaces/default/configmaps", body)
        message = await ws.receive(5)
    assert (message.type, json.loads(message.data)["type"]) == (aiohttp.WSMsgType.BINARY, "ADDED")


# ---------------------------------------------------------------- impersonation


async def test_impersonation_takes_on_an_identity(api: Api) -> None:
    headers = {
        "Impersonate-User": "eve",
        "Impersonate-Group": "g1",
        "Impersonate-Extra-scopes": "s",
        "Impersonate-Uid": "7",
    }
    expected = {"username": "eve", "uid": "7", "groups": ["g1", "system:authenticated"], "extra": {"scopes": ["s"]}}
    assert await whoami(api, headers=headers) == expected
    account = await whoami(api, headers={"Impersonate-User": "system:serviceaccount:a:b"})
    assert account["groups"] == ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]
    anonymous = await api.request("GET", "/api", headers={"Impersonate-User": "system:anonymous"})
    assert "system:anonymous" in anonymous.json["message"]
    nobody = await api.request("GET", "/api", headers={"Impersonate-Group": "g"})
    assert (nobody.status, nobody.json["reason"]) == (400, "BadRequest")


async def _allow_alice(api: Api, name: str, rules: list[dict]) -> None:
    group = "rbac.authorization.k8s.io"
    base = f"/apis/{group}/v1"
    role = {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "User", "name": "alice", "apiGroup": group}],
    }
    await api.create(f"{base}/clusterroles", role)
    await api.create(f"{base}/clusterrolebindings", binding)


async def test_who_may_impersonate(api: Api) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    as_eve = {"Impersonate-User": "eve"}
    refused = await api.request("GET", path, token=ALICE, headers=as_eve)
    assert refused.json["message"].startswith(
        'configmaps is forbidden: User "alice" cannot impersonate-on:user-info:list resource "configmaps"'
    )
    users = {"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"], "resourceNames": ["eve"]}
    await _allow_alice(api, "legacy", [users])
    allowed = await api.request("GET", path, token=ALICE, headers=as_eve)
    assert 'User "eve" cannot list' in allowed.json["message"], "now it is eve who may not"
    other = await api.request("GET", path, token=ALICE, headers={"Impersonate-User": "mallory"})
    assert 'User "alice"' in other.json["message"]
    grouped = await api.request("GET", path, token=ALICE, headers={**as_eve, "Impersonate-Group": "system:masters"})
    assert grouped.status == 403


async def test_constrained_impersonation_is_for_named_verbs(api: Api) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    identity = {"apiGroups": ["authentication.k8s.io"], "resources": ["users"], "verbs": ["impersonate:user-info"]}
    action = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["impersonate-on:user-info:list"]}
    await _allow_alice(api, "constrained", [{**identity, "resourceNames": ["eve"]}, action])
    headers = {"Impersonate-User": "eve"}
    listed = await api.request("GET", path, token=ALICE, headers=headers)
    assert 'User "eve" cannot list' in listed.json["message"]
    deleted = await api.request("DELETE", f"{path}/a", token=ALICE, headers=headers)
    assert 'User "alice" cannot impersonate-on:user-info:delete' in deleted.json["message"]
    node = await api.request("GET", path, token=ALICE, headers={"Impersonate-User": "system:node:n"})
    assert "impersonate-on:arbitrary-node:list" in node.json["message"]


async def test_a_token_made_on_one_server_holds_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as api:
        await api.create(ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}})
        token = await _account_token(api)
    async with running(tmp_path) as api:
        assert (await whoami(api, token=token))["username"] == "system:serviceaccount:default:robot"
