"""Certificates and tokens: who gets which, what is refused, and when they go."""

from __future__ import annotations

import base64
import datetime
import ipaddress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from kubeobjects import NOW, answer, asked, obj, pod, status_of, writes

from fastkube.api.tokens import KeyRing, make_key
from fastkube.clock import rfc3339
from fastkube.controllers import bootstrap_tokens, certificates, legacy_tokens, serviceaccount_tokens
from fastkube.controllers.actions import Delete, Fail, Patch, Requeue, Review
from fastkube.controllers.signing import CertificateAuthority

Object = dict[str, Any]

CLIENT_USAGES = ["digital signature", "key encipherment", "client auth"]
SERVING_USAGES = ["digital signature", "server auth"]


def request_for(common: str = "system:node:n1", organization: str = "system:nodes", names: Any = ()) -> str:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if organization:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(parts))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(names)), critical=False)
    made = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()


def csr(signer: str, usages: list[str], request: str = "", conditions: Any = (), **spec: Any) -> Object:
    spec = {"signerName": signer, "usages": usages, "request": request or request_for(), "username": "joe", **spec}
    made = obj("CertificateSigningRequest", "c", "certificates.k8s.io/v1", namespace="", spec=spec)
    return {**made, "status": {"conditions": list(conditions)}} if conditions else made


def condition(kind: str, ago_s: float = 0) -> Object:
    return {"type": kind, "status": "True", "lastUpdateTime": rfc3339(NOW - ago_s)}


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
    start = datetime.datetime.fromtimestamp(NOW - 3600, datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=100))
        .sign(key, hashes.SHA256())
    )
    return CertificateAuthority(made, key)


# ---------------------------------------------------------------- approving


@pytest.mark.parametrize(
    ("username", "reviews"),
    [("system:node:n1", ["selfnodeclient", "nodeclient"]), ("system:bootstrap:abcdef", ["nodeclient"])],
)
def test_a_kubelets_own_certificate_is_approved_where_the_requester_may_have_it(
    username: str, reviews: list[str]
) -> None:
    view = certificates.ApprovingView(csr(certificates.KUBELET_CLIENT, CLIENT_USAGES, username=username), NOW)
    answers: Object = {}
    for name in reviews:
        (review,) = certificates.approve(answer(view, answers))
        assert isinstance(review, Review)
        assert review.obj["spec"]["resourceAttributes"]["subresource"] == review.key == name
        answers[name] = {"status": {"allowed": False}}
    assert isinstance(certificates.approve(answer(view, answers))[0], Fail)
    answers[reviews[-1]] = {"status": {"allowed": True}}
    (update,) = writes(certificates.approve(answer(view, answers)))
    assert update.subresource == "approval"
    (approved,) = update.obj["status"]["conditions"]
    assert (approved["type"], approved["reason"]) == ("Approved", "AutoApproved")


@pytest.mark.parametrize(
    "request_text",
    [request_for("joe"), request_for(organization=""), request_for(names=[x509.DNSName("n1")]), "bm90IGEgcmVxdWVzdA=="],
)
def test_other_requests_wait_for_a_person(request_text: str) -> None:
    view = certificates.ApprovingView(csr(certificates.KUBELET_CLIENT, CLIENT_USAGES, request_text), NOW)
    assert certificates.approve(view) == ()


# ---------------------------------------------------------------- signing

IP = [x509.IPAddress(ipaddress.ip_address("10.0.0.1"))]


@pytest.mark.parametrize(
    ("signer", "usages", "request_text", "refusal"),
    [
        (certificates.KUBELET_CLIENT, CLIENT_USAGES, request_for(), ""),
        (certificates.KUBELET_CLIENT, ["client auth", "digital signature"], request_for(), ""),
        (
            certificates.KUBELET_CLIENT,
            ["client auth"],
            request_for(),
            "usages did not match [client auth digital signature key encipherment]",
        ),
        (certificates.KUBELET_CLIENT, CLIENT_USAGES, request_for("joe"), "subject common name does not begin with"),
        (certificates.KUBELET_CLIENT, CLIENT_USAGES, request_for(names=IP), "IP subjectAltNames are not allowed"),
        (certificates.KUBELET_SERVING, SERVING_USAGES, request_for(names=IP), ""),
        (certificates.KUBELET_SERVING, SERVING_USAGES, request_for(), "DNS or IP subjectAltName is required"),
        (
            certificates.KUBELET_SERVING,
            SERVING_USAGES,
            request_for(organization="x", names=IP),
            "subject organization is not system:nodes",
        ),
        (certificates.CLIENT, ["client auth"], request_for("joe", "dev"), ""),
        (certificates.CLIENT, ["server auth"], request_for("joe"), "invalid usages for client certificate"),
        (certificates.LEGACY, ["server auth"], request_for("any", ""), ""),
    ],
)
def test_each_signer_signs_what_it_is_for(
    authority: CertificateAuthority, signer: str, usages: list[str], request_text: str, refusal: str
) -> None:
    made = csr(signer, usages, request_text, [condition("Approved")])
    status = status_of(certificates.sign(certificates.SigningView(made, authority, 3600.0, NOW)))
    assert status is not None
    if refusal:
        assert "certificate" not in status
        assert (status["conditions"][-1]["type"], status["conditions"][-1]["reason"]) == (
            "Failed",
            "SignerValidationFailure",
        )
        assert refusal in status["conditions"][-1]["message"]
    else:
        assert x509.load_pem_x509_certificate(base64.b64decode(status["certificate"]))


@pytest.mark.parametrize(
    ("asked_s", "longest_s", "from_now_s"),
    [(None, 3600, 3600), (600, 3600, 600), (7200, 3600, 3600), (None, 86400, 86400 - 300), (None, 1e9, 8640000 - 3600)],
)
def test_a_certificate_lives_as_long_as_asked_but_no_longer_than_allowed(
    authority: CertificateAuthority, asked_s: int | None, longest_s: float, from_now_s: float
) -> None:
    more = {} if asked_s is None else {"expirationSeconds": asked_s}
    made = csr(certificates.KUBELET_SERVING, SERVING_USAGES, request_for(names=IP), [condition("Approved")], **more)
    status = status_of(certificates.sign(certificates.SigningView(made, authority, longest_s, NOW)))
    assert status is not None
    certificate = x509.load_pem_x509_certificate(base64.b64decode(status["certificate"]))
    assert certificate.not_valid_before_utc.timestamp() == NOW - 300
    assert certificate.not_valid_after_utc.timestamp() == NOW + from_now_s
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == IP
    extended = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(extended) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize(
    ("conditions", "age_s", "left_s"),
    [
        ([], 100, 24 * 3600 - 100),
        ([], 25 * 3600, 0),
        ([condition("Approved", 100)], 100, 3500),
        ([condition("Denied", 3700)], 4000, 0),
        ([condition("Failed", 3700)], 4000, 0),
    ],
)
def test_old_requests_go(conditions: list[Object], age_s: float, left_s: float) -> None:
    made = csr(certificates.CLIENT, ["client auth"], "eA==", conditions)
    made["metadata"]["creationTimestamp"] = rfc3339(NOW - age_s)
    (action,) = certificates.clean(certificates.CleaningView(made, NOW))
    assert isinstance(action, Requeue) == bool(left_s)
    assert isinstance(action, Delete) or (isinstance(action, Requeue) and action.after_s == left_s)


# ---------------------------------------------------------------- bootstrap tokens


def encoded(**data: str) -> dict[str, str]:
    return {key.replace("_", "-"): base64.b64encode(value.encode()).decode() for key, value in data.items()}


def bootstrap_token(name: str = "bootstrap-token-abcdef", **data: str) -> Object:
    data = {"token_id": "abcdef", "token_secret": "0123456789abcdef", "usage_bootstrap_signing": "true", **data}
    secret = obj("Secret", name, namespace="kube-system", data=encoded(**data))
    return {**secret, "type": "bootstrap.kubernetes.io/token"}


def cluster_info(**data: str) -> Object:
    return obj("ConfigMap", "cluster-info", namespace="kube-public", data={"kubeconfig": "content", **data})


def test_cluster_info_is_signed_by_each_token_and_nothing_else() -> None:
    info = cluster_info(**{"jws-kubeconfig-oldold": "x..y"})
    expired = bootstrap_token("bootstrap-token-expire", token_id="expire", expiration=rfc3339(NOW - 1))
    silent = bootstrap_token("bootstrap-token-silent", token_id="silent", usage_bootstrap_signing="false")
    wrong = bootstrap_token("bootstrap-token-other")
    (update,) = writes(bootstrap_tokens.sign(bootstrap_tokens.SigningView(info, [expired, silent, wrong], NOW)))
    assert update.obj["data"] == {"kubeconfig": "content"}
    (update,) = writes(bootstrap_tokens.sign(bootstrap_tokens.SigningView(info, [bootstrap_token()], NOW)))
    header, content, signature = update.obj["data"]["jws-kubeconfig-abcdef"].split(".")
    assert base64.urlsafe_b64decode(header + "==") == b'{"alg":"HS256","kid":"abcdef"}'
    assert (content, len(signature)) == ("", 43)
    assert bootstrap_tokens.sign(bootstrap_tokens.SigningView(update.obj, [bootstrap_token()], NOW)) == []


@pytest.mark.parametrize(("ends_s", "expected"), [(-1, Delete), (60, Requeue), (None, None)])
def test_tokens_go_when_their_time_is_over(ends_s: float | None, expected: type | None) -> None:
    secret = bootstrap_token(**({} if ends_s is None else {"expiration": rfc3339(NOW + ends_s)}))
    actions = bootstrap_tokens.clean(bootstrap_tokens.CleaningView(secret, NOW))
    assert [type(action) for action in actions] == ([] if expected is None else [expected])


# ---------------------------------------------------------------- tokens of accounts


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    path: Path = tmp_path_factory.mktemp("keys") / "sa.key"
    make_key(path)
    return KeyRing.load(path, ())


def token_secret(**annotations: str) -> Object:
    named = {serviceaccount_tokens.ACCOUNT_NAME: "robot", **annotations}
    return {**obj("Secret", "t", m_annotations=named), "type": serviceaccount_tokens.TOKEN_TYPE}


def test_a_secret_gets_a_token_that_has_no_end(keys: KeyRing) -> None:
    account = obj("ServiceAccount", "robot")
    view = serviceaccount_tokens.View(token_secret(), account, "CA", keys)
    (update,) = writes(serviceaccount_tokens.reconcile(view))
    data = {key: base64.b64decode(value).decode() for key, value in update.obj["data"].items()}
    assert (data["namespace"], data["ca.crt"]) == ("default", "CA")
    claims = keys.verify(data["token"], NOW + 1e9)
    assert (claims["iss"], claims["sub"]) == ("kubernetes/serviceaccount", "system:serviceaccount:default:robot")
    assert claims["kubernetes.io/serviceaccount/secret.name"] == "t"
    annotations = update.obj["metadata"]["annotations"]
    assert annotations[serviceaccount_tokens.ACCOUNT_UID] == account["metadata"]["uid"]
    assert serviceaccount_tokens.reconcile(view._replace(secret=update.obj)) == ()


@pytest.mark.parametrize(
    ("there", "uid", "expected"), [(False, "", Delete), (True, "another", Delete), (True, "", None)]
)
def test_a_secret_goes_with_its_account_once_the_server_says_so(
    keys: KeyRing, there: bool, uid: str, expected: type | None
) -> None:
    secret = token_secret(**({serviceaccount_tokens.ACCOUNT_UID: uid} if uid else {}))
    view = serviceaccount_tokens.View(secret, None, "", keys)
    (path,) = asked(serviceaccount_tokens.reconcile(view))
    live = obj("ServiceAccount", "robot") if there else None
    actions = serviceaccount_tokens.reconcile(answer(view, {path: live}))
    assert isinstance(actions[0], Delete) == (expected is Delete)


# ---------------------------------------------------------------- tokens of old

PERIOD_S = 30 * 86400.0


@pytest.mark.parametrize(
    ("labels", "tracked_days", "mounted", "expected"),
    [
        ({}, 40, False, "marked"),
        ({}, 20, False, "left"),
        ({}, None, False, "left"),
        ({}, 40, True, "left"),
        ({legacy_tokens.LAST_USED: rfc3339(NOW - 86400)[:10]}, 40, False, "left"),
        ({legacy_tokens.LAST_USED: rfc3339(NOW - 40 * 86400)[:10]}, 60, False, "marked"),
        ({legacy_tokens.INVALID_SINCE: rfc3339(NOW - 86400)[:10]}, 60, False, "left"),
        ({legacy_tokens.INVALID_SINCE: rfc3339(NOW - 40 * 86400)[:10]}, 80, False, "deleted"),
    ],
)
def test_tokens_of_old_that_nobody_uses_go_in_two_steps(
    labels: Object, tracked_days: int | None, mounted: bool, expected: str
) -> None:
    secret = token_secret()
    secret["metadata"]["labels"] = labels
    view = legacy_tokens.View([secret], PERIOD_S, NOW)
    tracking, pods = asked(legacy_tokens.reconcile(view))
    since = None if tracked_days is None else {"data": {"since": rfc3339(NOW - tracked_days * 86400)[:10]}}
    user = pod("p")
    user["spec"]["volumes"] = [{"name": "t", "secret": {"secretName": "t"}}] if mounted else []
    actions = legacy_tokens.reconcile(answer(view, {tracking: since, pods: {"items": [user]}}))
    assert [type(action) for action in writes(actions)] == {"left": [], "marked": [Patch], "deleted": [Delete]}[
        expected
    ]
