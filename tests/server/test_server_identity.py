"""Users that others vouch for: issuers of tokens, a token webhook; and authorization by a webhook."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from apis import ADMIN, ALICE, Api, running, settings_in
from peers import TokenIssuer, hook, issuer

from fastkube.api.catalog import Catalog
from fastkube.clock import RealClock
from fastkube.server.authn_config import identities
from fastkube.server.authz_config import authorizer_of
from fastkube.store import Store

SELF = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


async def whoami(api: Api, token: str) -> Any:
    """The user of a token; None if it is refused."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    response = await api.request("POST", SELF, body, token=token)
    assert response.status in (201, 401), response.body
    return response.json["status"]["userInfo"] if response.status == 201 else None


@pytest.fixture
async def tokens(tmp_path: Path) -> AsyncIterator[TokenIssuer]:
    async with issuer(tmp_path / "issuer") as made:
        yield made


def claims(tokens: TokenIssuer, **more: Any) -> dict[str, Any]:
    now = int(time.time())
    return {"iss": tokens.url, "aud": "me", "sub": "jane", "exp": now + 600, "iat": now, "groups": ["a", "b"], **more}


# ---------------------------------------------------------------- OpenID Connect by flags


def flags(tokens: TokenIssuer, **more: Any) -> dict[str, Any]:
    return {"oidc_issuer_url": tokens.url, "oidc_client_id": "me", "oidc_ca_file": tokens.ca_file, **more}


async def test_a_token_of_the_issuer_names_its_user(tokens: TokenIssuer, tmp_path: Path):
    more = {"oidc_groups_claim": "groups", "oidc_groups_prefix": "oidc:", "oidc_required_claim": ("hd=example.com",)}
    async with running(tmp_path / "api", **flags(tokens, **more)) as api:
        user = await whoami(api, tokens.token(claims(tokens, hd="example.com")))
        assert user["username"] == f"{tokens.url}#jane"
        assert user["groups"] == ["oidc:a", "oidc:b", "system:authenticated"]
        assert (await whoami(api, ADMIN))["username"] == "admin"
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}}
        review["spec"] = {"token": tokens.token(claims(tokens, hd="example.com", sub="joe"))}
        answer = await api.create("/apis/authentication.k8s.io/v1/tokenreviews", review)
        assert answer["status"]["authenticated"] and answer["status"]["user"]["username"].endswith("#joe")


async def test_groups_may_be_told_by_another_place(tokens: TokenIssuer, tmp_path: Path):
    source = {"endpoint": f"{tokens.url}/claims", "access_token": "key"}
    more = {"_claim_names": {"groups": "src"}, "_claim_sources": {"src": source}}
    good = claims(tokens, **more)
    del good["groups"]
    async with running(tmp_path / "api", **flags(tokens, oidc_groups_claim="groups")) as api:
        tokens.held = tokens.token(claims(tokens, groups=["far"]))
        user = await whoami(api, tokens.token(good))
        assert user["groups"] == ["far", "system:authenticated"]
        assert tokens.credentials == ["Bearer key"]
        own = {**good, "groups": ["near"]}  # what the token says itself needs no asking
        assert (await whoami(api, tokens.token(own)))["groups"] == ["near", "system:authenticated"]
        elsewhere = {**good, "sub": "joe", "_claim_names": {"other": "src"}}
        assert (await whoami(api, tokens.token(elsewhere)))["groups"] == ["system:authenticated"]


@pytest.mark.parametrize(
    ("held", "more", "told"),
    [
        ({}, {"_claim_sources": {"other": {}}}, "id token _claim_names contained a source src missing"),
        ({}, {"_claim_names": 7}, "oidc: error parsing distributed claim names"),
        ({"groups": ["far"], "aud": "you"}, {}, "verify distributed claim token: oidc: expected audience"),
        ({"groups": ["far"], "exp": 1}, {}, "verify distributed claim token: oidc: token is expired"),
        ({"groups": None}, {}, "did not contain claim: groups"),
        (None, {}, 'while getting distributed claim "groups"'),
    ],
)
async def test_groups_that_cannot_be_had(
    tokens: TokenIssuer, tmp_path: Path, held: dict[str, Any] | None, more: dict[str, Any], told: str
):
    if held is not None:
        tokens.held = tokens.token({key: value for key, value in claims(tokens, **held).items() if value is not None})
    sources = {"_claim_names": {"groups": "src"}, "_claim_sources": {"src": {"endpoint": f"{tokens.url}/claims"}}}
    bad = {key: value for key, value in claims(tokens, **{**sources, **more}).items() if key != "groups"}
    async with running(tmp_path / "api", **flags(tokens, oidc_groups_claim="groups")) as api:
        review = {"spec": {"token": tokens.token(bad)}}
        answer = await api.create("/apis/authentication.k8s.io/v1/tokenreviews", review)
        assert "could not expand distributed claims" in answer["status"]["error"]
        assert told in answer["status"]["error"]


async def test_tokens_that_are_no_good(tokens: TokenIssuer, tmp_path: Path):
    past = int(time.time()) - 10
    async with running(tmp_path / "api", **flags(tokens, oidc_required_claim=("hd=example.com",))) as api:
        good = claims(tokens, hd="example.com")
        assert await whoami(api, tokens.token(good)) is not None
        for bad in (
            {**good, "exp": past}, {**good, "aud": "you"}, {**good, "nbf": past + 3600}, {**good, "hd": "other.com"},
            {**good, "iss": "https://127.0.0.1:1"}, {**good, "sub": 5}, {**good, "exp": None},
        ):  # fmt: skip
            assert await whoami(api, tokens.token(bad)) is None, bad
        assert await whoami(api, tokens.token(good, "none")) is None
        assert await whoami(api, tokens.token(good, "ES256", "ec")) is None  # RS256 alone, unless told otherwise
        head, body, signature = tokens.token(good).split(".")
        assert await whoami(api, f"{head}.{body}.{signature[:-4]}AAAA") is None
        assert await whoami(api, "a.b.c") is None


@pytest.mark.parametrize(
    ("options", "more", "name"),
    [
        ({"oidc_username_prefix": "-"}, {}, "jane"),
        ({"oidc_username_prefix": "x:"}, {}, "x:jane"),
        ({"oidc_username_claim": "email"}, {"email": "j@example.com", "email_verified": True}, "j@example.com"),
        ({"oidc_username_claim": "email"}, {"email": "j@example.com", "email_verified": False}, None),
        ({"oidc_signing_algs": ("PS256",)}, {}, None),
    ],
)
async def test_names_of_users(tokens: TokenIssuer, tmp_path: Path, options: dict, more: dict, name: str | None):
    async with running(tmp_path / "api", **flags(tokens, **options)) as api:
        user = await whoami(api, tokens.token(claims(tokens, **more)))
        assert (user and user["username"]) == name


async def test_keys_are_fetched_again_when_a_token_names_a_new_one(tokens: TokenIssuer, tmp_path: Path):
    tokens.published = ["ec"]
    async with running(tmp_path / "api", **flags(tokens, oidc_signing_algs=("RS256", "ES256", "PS256"))) as api:
        assert await whoami(api, tokens.token(claims(tokens), "ES256", "ec")) is not None
        fetches = tokens.fetches
        assert await whoami(api, tokens.token(claims(tokens), "PS256")) is None
        assert tokens.fetches == fetches  # not again so soon


# ---------------------------------------------------------------- AuthenticationConfiguration


def configuration(folder: Path, **document: Any) -> str:
    folder.mkdir(exist_ok=True)
    path = folder / "authentication.yaml"
    base = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration"}
    path.write_text(json.dumps({**base, **document}))
    return str(path)


def jwt(tokens: TokenIssuer, **more: Any) -> dict[str, Any]:
    ca = Path(tokens.ca_file).read_text()
    return {
        "issuer": {"url": tokens.url, "certificateAuthority": ca, "audiences": ["me"]},
        "claimMappings": {"username": {"claim": "sub", "prefix": ""}},
        **more,
    }


async def test_expressions_map_and_validate_claims(tokens: TokenIssuer, tmp_path: Path):
    entry = jwt(
        tokens,
        claimMappings={
            "username": {"expression": "claims.sub + ':' + claims.team"},
            "groups": {"expression": "claims.groups.map(g, 'g:' + g)"},
            "uid": {"claim": "sub"},
            "extra": [{"key": "example.com/team", "valueExpression": "claims.team"}],
        },
        claimValidationRules=[{"expression": "claims.team != 'none'", "message": "a team is needed"}],
        userValidationRules=[{"expression": "!user.username.startsWith('system:')", "message": "reserved"}],
    )
    async with running(tmp_path / "api", authentication_config=configuration(tmp_path, jwt=[entry])) as api:
        user = await whoami(api, tokens.token(claims(tokens, team="x"), "ES256", "ec"))
        assert user == {
            "username": "jane:x", "uid": "jane", "groups": ["g:a", "g:b", "system:authenticated"],
            "extra": {"example.com/team": ["x"]},
        }  # fmt: skip
        assert await whoami(api, tokens.token(claims(tokens, team="none"))) is None
        assert await whoami(api, tokens.token(claims(tokens, team="x", sub="system:node"))) is None
        assert await whoami(api, tokens.token(claims(tokens))) is None  # no such key: team


async def test_anonymous_requests_only_to_some_paths(tmp_path: Path):
    anonymous = {"enabled": True, "conditions": [{"path": "/livez"}]}
    async with running(tmp_path / "api", authentication_config=configuration(tmp_path, anonymous=anonymous)) as api:
        assert (await api.request("GET", "/livez", token="")).status == 200
        assert (await api.request("GET", "/readyz", token="")).status == 401
        assert (await api.request("GET", "/readyz")).status == 200


URL = "https://issuer.example.com"
GOOD = {"issuer": {"url": URL, "audiences": ["a"]}, "claimMappings": {"username": {"claim": "sub", "prefix": ""}}}


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"jwt": [{**GOOD, "issuer": {"audiences": ["a"]}}]}, "jwt[0].issuer.url: Required value: URL is required"),
        ({"jwt": [{**GOOD, "issuer": {"url": "http://x", "audiences": ["a"]}}]}, "URL scheme must be https"),
        ({"jwt": [{**GOOD, "issuer": {"url": URL}}]}, "jwt[0].issuer.audiences: Required value"),
        ({"jwt": [{**GOOD, "issuer": {"url": URL, "audiences": ["a", "b"]}}]}, "must be MatchAny for multiple"),
        ({"jwt": [GOOD, GOOD]}, "jwt[1].issuer.url: Duplicate value"),
        ({"jwt": [{**GOOD, "claimMappings": {}}]}, "claimMappings.username: Required value"),
        ({"jwt": [{**GOOD, "claimMappings": {"username": {"claim": "sub"}}}]}, "username.prefix: Required value"),
        ({"jwt": [{**GOOD, "claimMappings": {"username": {"expression": "claims."}}}]}, "compilation failed"),
        ({"jwt": [{**GOOD, "claimMappings": {"username": {"expression": "1"}}}]}, "must evaluate to string"),
        ({"jwt": [{**GOOD, "userValidationRules": [{"expression": "user.nme == ''"}]}]}, "undefined field 'nme'"),
        ({"jwt": [{**GOOD, "typo": 1}]}, 'unknown field "typo"'),
        ({"anonymous": {"enabled": False, "conditions": [{"path": "/x"}]}}, "enabled should be set to true"),
        ({"kind": "Other"}, "expected a document of kind AuthenticationConfiguration"),
    ],
)
def test_configurations_that_cannot_be(tmp_path: Path, document: dict[str, Any], problem: str):
    with pytest.raises(ValueError) as refusal:
        identities(settings_in(tmp_path, authentication_config=configuration(tmp_path, **document)))
    assert problem in str(refusal.value)


# ---------------------------------------------------------------- webhooks


async def test_a_webhook_knows_tokens(tmp_path: Path):
    def respond(spec: dict[str, Any]) -> dict[str, Any]:
        if spec["token"] != "good":
            return {"authenticated": False}
        return {"authenticated": True, "user": {"username": "w", "uid": "7", "groups": ["g"], "extra": {"k": ["v"]}}}

    async with hook(respond) as webhook:
        options = {"authentication_token_webhook_config_file": webhook.kubeconfig(tmp_path)}
        async with running(tmp_path / "api", **options) as api:
            expected = {"username": "w", "uid": "7", "groups": ["g", "system:authenticated"], "extra": {"k": ["v"]}}
            assert await whoami(api, "good") == expected
            assert await whoami(api, "good") == expected
            assert await whoami(api, "bad") is None
            assert [review["spec"]["token"] for review in webhook.reviews] == ["good", "bad"]
            assert webhook.reviews[0]["apiVersion"] == "authentication.k8s.io/v1beta1"


def decided(spec: dict[str, Any]) -> dict[str, Any]:
    """Alice may list Secrets of `mine`, impersonate bob and approve; bob is denied everything."""
    if spec["user"] == "bob":
        return {"allowed": False, "denied": True, "reason": "not bob"}
    wanted = spec.get("resourceAttributes") or {}
    allowed = wanted.get("namespace") == "mine" or wanted.get("verb") in ("impersonate", "escalate", "create")
    return {"allowed": allowed, "reason": "by rule" if allowed else "no rule"}


async def test_a_webhook_allows_and_denies(tmp_path: Path):
    async with hook(decided) as webhook:
        options = {"authorization_webhook_config_file": webhook.kubeconfig(tmp_path)}
        async with running(tmp_path / "api", authorization_mode=("Webhook", "RBAC"), **options) as api:
            assert (await api.request("GET", "/api/v1/namespaces/mine/secrets", token=ALICE)).status == 200
            refused = await api.request("GET", "/api/v1/namespaces/other/secrets", token=ALICE)
            assert refused.status == 403 and refused.json["message"].endswith('in the namespace "other": no rule')
            for _ in range(3):
                await api.get("/api/v1/namespaces/mine/secrets", token=ALICE)
            asked = [review["spec"] for review in webhook.reviews]
            assert len(asked) == 2 and asked[0]["group"] == ["dev", "system:authenticated"]
            as_bob = {"Impersonate-User": "bob"}
            denied = await api.request("GET", "/api/v1/namespaces/mine/secrets", token=ALICE, headers=as_bob)
            assert denied.status == 403 and "not bob" in denied.json["message"]
            await api.get("/api/v1/nodes")  # system:masters are not asked about
            role = {"metadata": {"name": "r"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}
            await api.create("/apis/rbac.authorization.k8s.io/v1/clusterroles", role, token=ALICE)
            review = {"spec": {"user": "bob", "resourceAttributes": {"verb": "get", "resource": "pods"}}}
            answer = await api.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
            assert answer["status"] == {"allowed": False, "denied": True, "reason": "not bob"}
            rules = await api.create(
                "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", {"spec": {"namespace": "mine"}}, token=ALICE
            )
            assert rules["status"]["evaluationError"] == "webhook authorizer does not support user rule resolution"


def authorizers(folder: Path, *entries: dict[str, Any]) -> str:
    folder.mkdir(exist_ok=True)
    path = folder / "authorization.yaml"
    base = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration"}
    path.write_text(json.dumps({**base, "authorizers": list(entries)}))
    return str(path)


def webhook_entry(kubeconfig: str, **more: Any) -> dict[str, Any]:
    told = {
        "timeout": "3s", "authorizedTTL": "5m", "unauthorizedTTL": "30s", "subjectAccessReviewVersion": "v1",
        "failurePolicy": "Deny", "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": kubeconfig}, **more,
    }  # fmt: skip
    return {"type": "Webhook", "name": "hook", "webhook": told}


async def test_a_webhook_is_asked_only_about_what_its_conditions_say(tmp_path: Path):
    conditions = [
        {"expression": "has(request.resourceAttributes)"},
        {"expression": "request.resourceAttributes.namespace == 'mine'"},
    ]
    more = {"matchConditions": conditions, "matchConditionSubjectAccessReviewVersion": "v1"}
    async with hook(decided) as webhook:
        entry = webhook_entry(webhook.kubeconfig(tmp_path), **more)
        config = authorizers(tmp_path, entry, {"type": "RBAC", "name": "rbac"})
        async with running(tmp_path / "api", authorization_config=config) as api:
            assert (await api.request("GET", "/api/v1/namespaces/other/secrets", token=ALICE)).status == 403
            assert (await api.request("GET", "/version", token=ALICE)).status == 200
            assert webhook.reviews == []
            assert (await api.request("GET", "/api/v1/namespaces/mine/secrets", token=ALICE)).status == 200
            assert webhook.reviews[0]["spec"]["groups"] == ["dev", "system:authenticated"]


@pytest.mark.parametrize(("policy", "status"), [("Deny", 403), ("NoOpinion", 200)])
async def test_a_condition_that_fails_is_decided_by_the_failure_policy(tmp_path: Path, policy: str, status: int):
    conditions = [{"expression": "request.resourceAttributes.namespace == 'mine'"}]  # /version has none
    more = {"matchConditions": conditions, "matchConditionSubjectAccessReviewVersion": "v1", "failurePolicy": policy}
    async with hook(decided) as webhook:
        entry = webhook_entry(webhook.kubeconfig(tmp_path), **more)
        config = authorizers(tmp_path, entry, {"type": "RBAC", "name": "rbac"})
        async with running(tmp_path / "api", authorization_config=config) as api:
            assert (await api.request("GET", "/version", token=ALICE)).status == status


RBAC = {"type": "RBAC", "name": "rbac"}


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([], "authorizers: Required value"),
        ([{"type": "ABAC", "name": "x"}], "authorizers[0].type: Unsupported value"),
        ([{"type": "RBAC"}], "authorizers[0].name: Required value"),
        ([RBAC, RBAC], "authorizers[1]: Duplicate value"),
        ([{"type": "Webhook", "name": "x"}], "authorizers[0].webhook: Required value"),
        ([webhook_entry("/none", timeout="31s")], "must be > 0s and <= 30s"),
        ([webhook_entry("/none", failurePolicy="Maybe")], "failurePolicy: Unsupported value"),
        (
            [webhook_entry("/none", matchConditions=[{"expression": "true"}])],
            "SubjectAccessReviewVersion: Required value",
        ),
        ([webhook_entry("/none", connectionInfo={"type": "InClusterConfig"})], "not in a Pod"),
        ([webhook_entry("/none", connectionInfo={"type": "Telepathy"})], "connectionInfo.type: Unsupported value"),
        ([webhook_entry("/none")], "cannot be read"),
    ],
)
async def test_authorizers_that_cannot_be(tmp_path: Path, entries: list[dict[str, Any]], problem: str):
    settings = settings_in(tmp_path, authorization_config=authorizers(tmp_path, *entries))
    store = await Store.open(tmp_path / "store", sync=False)
    try:
        with pytest.raises(ValueError) as refusal:
            authorizer_of(settings, store, Catalog.builtin(), RealClock())
        assert problem in str(refusal.value)
    finally:
        await store.close()
