"""CertificateSigningRequests: whose the request is, its approval and its certificate.

Upstream: validateCertificateSigningRequest and its three updates. The conditions Approved and Denied change through
/approval only, the certificate through /status only; neither is ever taken back.
"""

from __future__ import annotations

import base64
import re

from fastkube.api import field
from fastkube.api.names import dns1123_label, dns1123_subdomain, path_segment
from fastkube.clock import rfc3339
from fastkube.errors import Cause
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.checks import Errors
from fastkube.registry.strategies.go_values import list_diff
from fastkube.registry.strategies.key_pairs import certificate_fault, pem_blocks, request_fault
from fastkube.registry.strategy import Call, Object, Strategy

_LEGACY = "kubernetes.io/legacy-unknown"
_USAGES = (
    "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment",
    "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel",
    "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime",
    "server auth", "signing", "timestamping",
)  # fmt: skip
_EXPIRATION_MIN_S = 600
_DECISIONS = ("Approved", "Denied")
_PERMANENT = (*_DECISIONS, "Failed")
_IDENTITY = ("username", "uid", "groups", "extra")
_CONDITIONS = "status.conditions"


class CertificateSigningRequestStrategy(Strategy):
    has_generation = False

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        spec, user = obj["spec"], call.user
        for key in _IDENTITY:
            spec.pop(key, None)
        found = {"username": user.name, "uid": user.uid, "groups": list(user.groups), "extra": dict(user.extra)}
        spec.update({key: value for key, value in found.items() if value})
        obj["status"] = {}

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        super().prepare_for_update(call, new, old)
        new["spec"] = old["spec"]

    def prepare_for_status_update(self, call: Call, new: Object, old: Object) -> None:
        super().prepare_for_status_update(call, new, old)
        _set_times(call, new, old)

    def validate_name(self, name: str, prefix: bool) -> list[str]:
        return path_segment(name, prefix)

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        return _request(obj, {})

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        return _update(new, old)

    def validate_status_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        return _update(new, old, certificate=True)


def prepare_for_approval(call: Call, new: Object, old: Object) -> None:
    """Everything but the conditions is as it was; new conditions get their times."""
    conditions = _conditions(new)
    new["spec"] = old["spec"]
    new["status"] = {key: value for key, value in (old.get("status") or {}).items() if key != "conditions"}
    if conditions:
        new["status"]["conditions"] = conditions
    _set_times(call, new, old)


def validate_approval(call: Call, new: Object, old: Object) -> list[Cause]:
    return _update(new, old, approval=True)


def _conditions(obj: Object, kind: str = "") -> list[Object]:
    found: list[Object] = (obj.get("status") or {}).get("conditions") or []
    return [each for each in found if each.get("type") == kind] if kind else found


def _set_times(call: Call, new: Object, old: Object) -> None:
    now = rfc3339(call.now)
    known = {
        (each.get("type"), each.get("status")): each["lastTransitionTime"]
        for each in reversed(_conditions(old))
        if each.get("lastTransitionTime")
    }
    for condition in _conditions(new):
        if not condition.get("lastTransitionTime"):
            condition["lastTransitionTime"] = known.get((condition.get("type"), condition.get("status")), now)
        if not condition.get("lastUpdateTime"):
            condition["lastUpdateTime"] = now


# ---------------------------------------------------------------- validation


def _request(obj: Object, old: Object) -> Errors:
    """What the old object had may stay."""
    errs: Errors = []
    spec, before = obj["spec"], old.get("spec") or {}
    request = spec.get("request")
    fault = request_fault(base64.b64decode(request or ""))
    if fault is not None:
        errs.append(field.invalid("spec.request", request or None, fault))
    usages, known = spec.get("usages") or [], before.get("usages") or []
    if not usages and not (old and not known):
        errs.append(field.required("spec.usages"))
    if all(usage in _USAGES for usage in known):
        for number, usage in enumerate(usages):
            checks.one_of(errs, f"spec.usages[{number}]", usage, _USAGES)
    if len(set(known)) == len(known):
        errs += [
            field.duplicate(f"spec.usages[{number}]", usage)
            for number, usage in enumerate(usages)
            if usage in usages[:number]
        ]
    signer = spec.get("signerName") or ""
    if signer == _LEGACY and before.get("signerName") != _LEGACY:
        problem = "the legacy signerName is not allowed via this API version"
        errs.append(field.invalid("spec.signerName", signer, problem))
    else:
        signer_name(errs, "spec.signerName", signer)
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < _EXPIRATION_MIN_S:
        problem = f"may not specify a duration less than {_EXPIRATION_MIN_S} seconds (10 minutes)"
        errs.append(field.invalid("spec.expirationSeconds", seconds, problem))
    _check_conditions(errs, obj, old)
    _certificate(errs, obj, old)
    return errs


_SIGNER_MAX = 253 + 1 + 253 + 1 + 63


def signer_name(errs: Errors, path: str, name: str) -> None:
    """A domain and a path: example.com/signer-name."""
    if not name:
        errs.append(field.required(path))
        return
    domain, _, rest = name.partition("/")
    if name.count("/") != 1:
        problem = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        errs.append(field.invalid(path, name, problem))
        return
    if len(domain) > 253:
        errs.append(field.too_long(path, 253))
    labels = domain.split(".")
    _labels(errs, path, domain, labels, dns1123_label)
    if len(labels) < 2:
        problem = "should be a domain with at least two segments separated by dots"
        errs.append(field.invalid(path, domain, problem))
    _labels(errs, path, rest, rest.split("."), dns1123_subdomain)
    if len(name) > _SIGNER_MAX:
        errs.append(field.too_long(path, _SIGNER_MAX))


def _labels(errs: Errors, path: str, text: str, labels: list[str], check: checks.TextCheck) -> None:
    """The faults of the first bad label."""
    bad = next((label for label in labels if check(label)), None)
    if bad is not None:
        told = f"validating label {field.quote(bad)}"
        errs += [field.invalid(path, text, f"{told}: {fault}") for fault in check(bad)]


def _check_conditions(errs: Errors, obj: Object, old: Object) -> None:
    kinds, before = ([each.get("type") or "" for each in _conditions(each)] for each in (obj, old))
    for number, condition in enumerate(_conditions(obj)):
        path, kind, status = f"{_CONDITIONS}[{number}]", kinds[number], condition.get("status") or ""
        if not kind and "" not in before:
            errs.append(field.required(f"{path}.type"))
        allowed = ("True",) if kind in _PERMANENT else ("False", "True", "Unknown")
        checks.one_of_required(errs, f"{path}.status", status, allowed)
        if kind in kinds[:number] and len(set(before)) == len(before):
            errs.append(field.duplicate(f"{path}.type", kind))
        if kind in _DECISIONS and not all(decision in before for decision in _DECISIONS):
            other = _DECISIONS[1 - _DECISIONS.index(kind)]
            if other in kinds[:number]:
                problem = "Approved and Denied conditions are mutually exclusive"
                errs.append(field.invalid(_CONDITIONS, kind, problem))


def _certificate(errs: Errors, obj: Object, old: Object) -> None:
    now, was = ((each.get("status") or {}).get("certificate") or "" for each in (obj, old))
    if not now or (was and _certificate_faults(was)):
        return
    fault = _certificate_faults(now)
    if fault is not None:
        errs.append(field.invalid("status.certificate", "<certificate data>", fault))


_HEADER = re.compile(rb"^-----BEGIN [^\n]*-----\r?\n[^\n:]+: ", re.MULTILINE)


def _certificate_faults(text: str) -> str | None:
    data = base64.b64decode(text)
    blocks = pem_blocks(data)
    for kind, body in blocks:
        if kind != "CERTIFICATE":
            return f"only CERTIFICATE PEM blocks are allowed, found {field.quote(kind)}"
        if _HEADER.search(data):
            return "no PEM block headers are permitted"
        fault = certificate_fault(body)
        if fault is not None:
            return fault
    return None if blocks else "must contain at least one CERTIFICATE PEM block"


# ---------------------------------------------------------------- updates


def _update(new: Object, old: Object, *, approval: bool = False, certificate: bool = False) -> Errors:
    errs = _request(new, old)
    for kind in _PERMANENT:
        if len(_conditions(new, kind)) < len(_conditions(old, kind)):
            problem = f"updates may not remove a condition of type {field.quote(kind)}"
            errs.append(field.forbidden(_CONDITIONS, problem))
    for kind in () if approval else _DECISIONS:
        now, was = _conditions(new, kind), _conditions(old, kind)
        if len(now) > len(was):
            errs.append(field.forbidden(_CONDITIONS, f"updates may not add a condition of type {field.quote(kind)}"))
        elif len(now) == len(was) and now != was:
            changed = list_diff("CertificateSigningRequestCondition", was, now)
            problem = f"updates may not modify a condition of type {field.quote(kind)}\n{changed}"
            errs.append(field.forbidden(_CONDITIONS, problem))
    issued, before = ((each.get("status") or {}).get("certificate") or "" for each in (new, old))
    if issued != before:
        if not certificate:
            errs.append(field.forbidden("status.certificate", "updates may not set certificate content"))
        elif before:
            problem = "updates may not modify existing certificate content"
            errs.append(field.forbidden("status.certificate", problem))
    return errs


STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("certificates.k8s.io", "certificatesigningrequests"): CertificateSigningRequestStrategy(),
}
