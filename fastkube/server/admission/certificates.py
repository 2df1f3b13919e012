"""Plugins about certificate signing requests: who may approve and sign, and for which subjects.

Approving and signing need a permission of their own: the verb `approve` or `sign` on the `signers` resource, for the
signer's name or for all of its domain (`example.com/*`).
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Protocol

from fastkube.server.admission.plugin import CREATE, UPDATE, Identity, Plugin, forbid

if TYPE_CHECKING:
    from fastkube.registry.strategy import Call, Object, UserInfo

_GROUP = "certificates.k8s.io"
_RESOURCE = "certificatesigningrequests"
_CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"
_MASTERS = "system:masters"


class Authorize(Protocol):
    """Whether the user may do this to a cluster-wide resource."""

    def __call__(self, user: UserInfo, verb: str, group: str, resource: str, name: str) -> bool: ...


def _may(authorize: Authorize, user: UserInfo, verb: str, signer: str) -> bool:
    domain = signer.partition("/")[0]
    return authorize(user, verb, _GROUP, "signers", signer) or authorize(user, verb, _GROUP, "signers", f"{domain}/*")


class CertificateApproval(Plugin):
    name = "CertificateApproval"
    validates = True

    def __init__(self, authorize: Authorize) -> None:
        self._authorize = authorize

    def handles(self, target: Identity, operation: str) -> bool:
        return target == (_GROUP, _RESOURCE, "approval") and operation == UPDATE

    def validate(self, call: Call, obj: Object, old: Object | None) -> None:
        assert old is not None
        signer = old["spec"].get("signerName") or ""
        if not _may(self._authorize, call.user, "approve", signer):
            raise forbid(call, obj, f'user not permitted to approve requests with signerName "{signer}"')


class CertificateSigning(Plugin):
    name = "CertificateSigning"
    validates = True

    def __init__(self, authorize: Authorize) -> None:
        self._authorize = authorize

    def handles(self, target: Identity, operation: str) -> bool:
        return target == (_GROUP, _RESOURCE, "status") and operation == UPDATE

    def validate(self, call: Call, obj: Object, old: Object | None) -> None:
        assert old is not None
        now, was = obj.get("status") or {}, old.get("status") or {}
        if all(now.get(key) == was.get(key) for key in ("certificate", "conditions")):
            return
        signer = old["spec"].get("signerName") or ""
        if not _may(self._authorize, call.user, "sign", signer):
            raise forbid(call, obj, f'user not permitted to sign requests with signerName "{signer}"')


class CertificateSubjectRestriction(Plugin):
    """Nobody gets a client certificate of the group system:masters by asking for one."""

    name = "CertificateSubjectRestriction"
    validates = True

    def handles(self, target: Identity, operation: str) -> bool:
        return target == (_GROUP, _RESOURCE, "") and operation == CREATE

    def validate(self, call: Call, obj: Object, old: Object | None) -> None:
        spec = obj["spec"]
        if spec.get("signerName") == _CLIENT_SIGNER and _MASTERS in _organizations(spec.get("request") or ""):
            raise forbid(call, obj, f"use of {_CLIENT_SIGNER} signer with {_MASTERS} group is not allowed")


def _organizations(request: str) -> list[str]:
    """The O attributes of the request's subject; validation has seen to it that it can be read."""
    from cryptography import x509  # most servers never see such a request

    parsed = x509.load_pem_x509_csr(base64.b64decode(request))
    return [str(each.value) for each in parsed.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)]
