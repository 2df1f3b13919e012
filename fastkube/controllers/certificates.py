"""CertificateSigningRequests: kubelets' own are approved, approved ones are signed, old ones are removed.

Source: "Certificates and Certificate Signing Requests" in the Kubernetes documentation: the four signers of
kube-controller-manager, what each of them accepts, and how long requests are kept.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fastkube.clock import rfc3339
from fastkube.controllers.actions import GONE, Action, Delete, Fail, Requeue, Review, Update, status_update
from fastkube.controllers.common import Object, condition_is, seconds
from fastkube.controllers.runner import Context, Controller, Watch
from fastkube.controllers.signing import CertificateAuthority

if TYPE_CHECKING:
    from cryptography import x509

REQUESTS = "certificates.k8s.io/v1/certificatesigningrequests"
REVIEWS = "authorization.k8s.io/v1/subjectaccessreviews"

CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
LEGACY = "kubernetes.io/legacy-unknown"

NODES_GROUP = "system:nodes"
NODE_PREFIX = "system:node:"


class Subject(NamedTuple):
    """What a request asks to be certified."""

    common_name: str
    organizations: list[str]
    names: dict[str, list[Any]]
    """Alternative names by kind: dns, email, ip, uri."""


class Refused(Exception):
    """A signer does not sign this."""


def parse(csr: Object) -> x509.CertificateSigningRequest:
    """Raises Refused for what is no request."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_csr(base64.b64decode(csr["spec"]["request"]))
    except (ValueError, binascii.Error) as error:
        raise Refused(f"unable to parse csr {csr['metadata']['name']!r}: {error}") from None


def subject_of(request: x509.CertificateSigningRequest) -> Subject:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    common = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    organizations = [str(found.value) for found in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    kinds: dict[str, Any] = {
        "dns": x509.DNSName,
        "email": x509.RFC822Name,
        "ip": x509.IPAddress,
        "uri": x509.UniformResourceIdentifier,
    }
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = {kind: list(names.get_values_for_type(of)) for kind, of in kinds.items()}
    except x509.ExtensionNotFound:
        found = {kind: [] for kind in kinds}
    return Subject(str(common[0].value) if common else "", organizations, found)


# ---------------------------------------------------------------- what signers accept

_CLIENT_USAGES = ["client auth", "digital signature", "key encipherment"]
_SERVING_USAGES = ["digital signature", "key encipherment", "server auth"]
_CLIENT_MAY = frozenset({"signing", "digital signature", "key encipherment", "client auth"})


def check_kubelet_client(subject: Subject, usages: set[str]) -> None:
    """What the certificate of a kubelet as a client must be like; raises Refused."""
    _check_organization(subject)
    _check_no(subject, "dns", "email", "ip", "uri")
    _check_node(subject)
    _check_usages(usages, _CLIENT_USAGES)


def check_kubelet_serving(subject: Subject, usages: set[str]) -> None:
    """What the certificate of a kubelet as a server must be like; raises Refused."""
    _check_organization(subject)
    if not subject.names["dns"] and not subject.names["ip"]:
        raise Refused("DNS or IP subjectAltName is required")
    _check_no(subject, "email", "uri")
    _check_usages(usages, _SERVING_USAGES)
    _check_node(subject)


def check_client(_subject: Subject, usages: set[str]) -> None:
    if "client auth" not in usages or not usages <= _CLIENT_MAY:
        raise Refused(f"invalid usages for client certificate: {_listed(sorted(usages))}")


def check_nothing(_subject: Subject, _usages: set[str]) -> None:
    """The legacy signer takes what an approver took."""


def _check_organization(subject: Subject) -> None:
    if subject.organizations != [NODES_GROUP]:
        raise Refused("subject organization is not system:nodes")


def _check_node(subject: Subject) -> None:
    if not subject.common_name.startswith(NODE_PREFIX):
        raise Refused("subject common name does not begin with system:node: ")


def _check_no(subject: Subject, *kinds: str) -> None:
    told = {"dns": "DNS", "email": "email", "ip": "IP", "uri": "URI"}
    for kind in kinds:
        if subject.names[kind]:
            raise Refused(f"{told[kind]} subjectAltNames are not allowed")


def _check_usages(usages: set[str], wanted: list[str]) -> None:
    """Keys that cannot encipher (elliptic curves) need not ask for it."""
    if usages != set(wanted) and usages != set(wanted) - {"key encipherment"}:
        raise Refused(f"usages did not match {_listed(wanted)}")


def _listed(words: list[str]) -> str:
    return f"[{' '.join(words)}]"


SIGNERS: dict[str, Callable[[Subject, set[str]], None]] = {
    CLIENT: check_client,
    KUBELET_CLIENT: check_kubelet_client,
    KUBELET_SERVING: check_kubelet_serving,
    LEGACY: check_nothing,
}


def _decided(csr: Object) -> bool:
    return condition_is(csr, "Approved") or condition_is(csr, "Denied")


def _made(kind: str, reason: str, message: str, now: float) -> Object:
    at = rfc3339(now)
    told = {"reason": reason, "message": message, "lastUpdateTime": at, "lastTransitionTime": at}
    return {"type": kind, "status": "True", **told}


def _with_condition(csr: Object, new: Object) -> Object:
    status = csr.get("status") or {}
    return {**status, "conditions": [*(status.get("conditions") or ()), new]}


# ---------------------------------------------------------------- approving


class ApprovingView(NamedTuple):
    csr: Object
    now: float
    live: dict[str, Any] = {}  # noqa: RUF012 - never changed, only replaced


def view_approving(context: Context, key: str) -> ApprovingView | None:
    csr = context.caches.by_key(REQUESTS, key)
    if csr is None or csr["spec"]["signerName"] != KUBELET_CLIENT or (csr.get("status") or {}).get("certificate"):
        return None
    return None if _decided(csr) else ApprovingView(csr, context.now)


def approve(view: ApprovingView) -> Sequence[Action]:
    """A kubelet's certificate for itself, and one for any node, where the requester may have it."""
    csr = view.csr
    try:
        subject = subject_of(parse(csr))
        check_kubelet_client(subject, set(csr["spec"].get("usages") or ()))
    except Refused:
        return ()  # a person may still decide
    own = csr["spec"].get("username") == subject.common_name
    for subresource, message in _RECOGNIZED[0 if own else 1 :]:
        review = Review(subresource, REVIEWS, _review(csr, subresource))
        if subresource not in view.live:
            return [review]
        if view.live[subresource]["status"].get("allowed"):
            approved = _with_condition(csr, _made("Approved", "AutoApproved", message, view.now))
            return [Update(REQUESTS, {**csr, "status": approved}, subresource="approval", ignore=GONE)]
    name = csr["metadata"]["name"]
    return [Fail(f"recognized csr {name!r} as {sorted(view.live)} but subject access review was not approved")]


_RECOGNIZED = (
    ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."),
    ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."),
)


def _review(csr: Object, subresource: str) -> Object:
    spec = csr["spec"]
    asked: Object = {
        "user": spec.get("username", ""),
        "uid": spec.get("uid", ""),
        "groups": spec.get("groups") or [],
        "resourceAttributes": {
            "group": "certificates.k8s.io",
            "resource": "certificatesigningrequests",
            "verb": "create",
            "subresource": subresource,
            "version": "*",
        },
    }
    if spec.get("extra"):
        asked["extra"] = spec["extra"]
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}, "spec": asked}


# ---------------------------------------------------------------- signing


class SigningView(NamedTuple):
    csr: Object
    authority: CertificateAuthority
    longest_s: float
    now: float


def view_signing(context: Context, key: str) -> SigningView | None:
    csr = context.caches.by_key(REQUESTS, key)
    if csr is None or csr["spec"]["signerName"] not in SIGNERS or (csr.get("status") or {}).get("certificate"):
        return None
    if not condition_is(csr, "Approved") or condition_is(csr, "Denied") or condition_is(csr, "Failed"):
        return None
    authority = context.facts.signers.certificates
    if authority is None:
        return None
    return SigningView(csr, authority, context.options.cluster_signing_duration_s, context.now)


def sign(view: SigningView) -> Sequence[Action]:
    csr = view.csr
    usages = csr["spec"].get("usages") or []
    asked_s = csr["spec"].get("expirationSeconds")
    ttl_s = view.longest_s if asked_s is None else min(float(asked_s), view.longest_s)
    try:
        request = parse(csr)
        SIGNERS[csr["spec"]["signerName"]](subject_of(request), set(usages))
        certificate = view.authority.sign(request, usages, ttl_s, view.now)
    except Refused as error:
        failed = _made("Failed", "SignerValidationFailure", str(error), view.now)
        return [status_update(REQUESTS, csr, _with_condition(csr, failed), ignore=GONE)]
    except ValueError as error:
        return [Fail(f"error auto signing csr: {error}")]
    encoded = base64.b64encode(certificate.encode()).decode()
    return [status_update(REQUESTS, csr, {**(csr.get("status") or {}), "certificate": encoded}, ignore=GONE)]


# ---------------------------------------------------------------- cleaning

KEPT_S = {"Approved": 3600.0, "Denied": 3600.0, "Failed": 3600.0}
PENDING_KEPT_S = 24 * 3600.0


class CleaningView(NamedTuple):
    csr: Object
    now: float


def view_cleaning(context: Context, key: str) -> CleaningView | None:
    csr = context.caches.by_key(REQUESTS, key)
    return None if csr is None else CleaningView(csr, context.now)


def clean(view: CleaningView) -> Sequence[Action]:
    """Decided requests are kept for an hour and open ones for a day; issued ones no longer than what they hold."""
    csr = view.csr
    status = csr.get("status") or {}
    ends: list[float] = []
    for found in status.get("conditions") or ():
        changed = found.get("lastUpdateTime") or found.get("lastTransitionTime")
        if found["type"] in KEPT_S and changed:
            ends.append(seconds(changed) + KEPT_S[found["type"]])
    if not status.get("conditions"):
        ends.append(seconds(csr["metadata"]["creationTimestamp"]) + PENDING_KEPT_S)
    if (expiry := _expiry(status.get("certificate"))) is not None:
        ends.append(expiry)
    left = min(ends, default=PENDING_KEPT_S + view.now) - view.now
    return [Requeue(left)] if left > 0 else [Delete(REQUESTS, csr, ignore=GONE)]


def _expiry(certificate: str | None) -> float | None:
    if not certificate:
        return None
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(base64.b64decode(certificate))
    except (ValueError, binascii.Error):
        return None
    return found.not_valid_after_utc.timestamp()


CONTROLLERS = (
    Controller(
        name="certificatesigningrequest-approving-controller",
        watches=(Watch(REQUESTS),),
        view=view_approving,
        reconcile=approve,
    ),
    Controller(
        name="certificatesigningrequest-signing-controller",
        watches=(Watch(REQUESTS),),
        view=view_signing,
        reconcile=sign,
    ),
    Controller(
        name="certificatesigningrequest-cleaner-controller",
        watches=(Watch(REQUESTS),),
        view=view_cleaning,
        reconcile=clean,
    ),
)
