"""Certificate signing requests: who asks, what is decided, what is issued."""

import base64
from typing import Any

import pytest
from clusters import ADMIN, Cluster, refused
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from fastkube.registry.strategies.key_pairs import pair_fault

CSRS = "certificatesigningrequests.certificates.k8s.io"
KEY = ed25519.Ed25519PrivateKey.generate()
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a")])
REQUEST = x509.CertificateSigningRequestBuilder().subject_name(NAME).sign(KEY, None)
PEM = REQUEST.public_bytes(serialization.Encoding.PEM)


def request(**spec: Any) -> dict[str, Any]:
    whole = {"request": base64.b64encode(PEM).decode(), "signerName": "e.com/s", "usages": ["client auth"], **spec}
    return {"metadata": {"name": "c"}, "spec": whole}


async def test_the_request_is_that_of_who_sends_it(cluster: Cluster):
    spec = (await cluster.create(CSRS, request(username="somebody", groups=["g"])))["spec"]
    assert (spec["username"], spec["groups"]) == (ADMIN.name, list(ADMIN.groups))


@pytest.mark.parametrize(
    ("signer", "problem"),
    [
        ("e.com", "must be a fully qualified domain and path"),
        ("com/s", "should be a domain with at least two segments separated by dots"),
        ("e.c_m/s", 'validating label \\"c_m\\"'),
        ("e.com/S", 'validating label \\"S\\"'),
    ],
)
async def test_a_signer_is_a_domain_and_a_path(cluster: Cluster, signer: str, problem: str):
    async with refused(422, "Invalid", problem.replace("\\", "")):
        await cluster.create(CSRS, request(signerName=signer))


async def test_a_request_must_be_signed_by_its_own_key(cluster: Cluster):
    broken = bytearray(REQUEST.public_bytes(serialization.Encoding.DER))
    broken[-1] ^= 1
    pem = b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.b64encode(broken) + b"\n-----END CERTIFICATE REQUEST-----\n"
    async with refused(422, "Invalid", "spec.request"):
        await cluster.create(CSRS, request(request=base64.b64encode(pem).decode()))


async def test_decisions_are_made_once_and_through_approval_only(cluster: Cluster):
    await cluster.create(CSRS, request())
    approved = {"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "R"}]}}
    async with refused(422, "Invalid", 'updates may not add a condition of type "Approved"'):
        await cluster.patch(f"{CSRS}/status", "c", approved)
    condition = (await cluster.patch(f"{CSRS}/approval", "c", approved))["status"]["conditions"][0]
    assert condition["lastUpdateTime"] == condition["lastTransitionTime"]
    both = {"status": {"conditions": [condition, {"type": "Denied", "status": "True"}]}}
    async with refused(422, "Invalid", "Approved and Denied conditions are mutually exclusive"):
        await cluster.patch(f"{CSRS}/approval", "c", both)
    async with refused(422, "Invalid", 'updates may not remove a condition of type "Approved"'):
        await cluster.patch(f"{CSRS}/approval", "c", {"status": {"conditions": []}})
    changed = {"status": {"conditions": [{**condition, "reason": "S"}]}}
    async with refused(422, "Invalid", '-  "Reason": "R",\n+  "Reason": "S",'):
        await cluster.patch(f"{CSRS}/status", "c", changed)


async def test_a_bad_certificate_is_not_taken(cluster: Cluster):
    await cluster.create(CSRS, request())
    for text, problem in (
        (b"nothing", "must contain at least one CERTIFICATE PEM block"),
        (PEM, 'only CERTIFICATE PEM blocks are allowed, found "CERTIFICATE REQUEST"'),
    ):
        async with refused(422, "Invalid", problem):
            issued = {"status": {"certificate": base64.b64encode(text).decode()}}
            await cluster.patch(f"{CSRS}/status", "c", issued)


def test_a_pair_that_is_none_is_told():
    key = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    junk = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    assert [pair_fault(b"", key), pair_fault(key, key), pair_fault(PEM, key), pair_fault(junk, key)] == [
        "tls: failed to find any PEM data in certificate input",
        "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may "
        "have been switched",
        'tls: failed to find "CERTIFICATE" PEM block in certificate input after skipping PEM blocks of the following '
        "types: [CERTIFICATE REQUEST]",
        "x509: malformed certificate",
    ]
    assert pair_fault(junk, b"") == "tls: failed to find any PEM data in key input"
    assert pair_fault(junk, junk) == "tls: found a certificate rather than a key in the PEM for the private key"


async def test_a_tls_secret_that_does_not_fit_together_is_warned_of(cluster: Cluster):
    data = {"tls.crt": "", "tls.key": ""}
    await cluster.create("secrets", {"metadata": {"name": "s"}, "type": "kubernetes.io/tls", "data": data})
    assert cluster.warnings == ["tls: failed to find any PEM data in certificate input"]
