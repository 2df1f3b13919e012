"""AdmissionReviews: what a webhook is sent, and what its answer means.

v1 and v1beta1 differ in strictness alone: a v1 answer must carry its own kind and the request's uid, and its patches
their type.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, NamedTuple

from fastkube.api import meta
from fastkube.api.field import quote
from fastkube.errors import ApiError

if TYPE_CHECKING:
    from fastkube.registry.strategy import Object
    from fastkube.server.admission.requests import Attempt, Target

VERSIONS = ("v1", "v1beta1")
_GROUP = "admission.k8s.io"
_KIND = "AdmissionReview"


class BadAnswer(Exception):
    """An answer that does not follow the protocol; the text is upstream's."""


class Verdict(NamedTuple):
    """What a webhook has decided. `result` is a Status, `patch` is JSON in bytes."""

    allowed: bool
    patch: bytes = b""
    patch_type: str = ""
    result: Object | None = None
    warnings: tuple[str, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()


def make(attempt: Attempt, target: Target, versions: list[str]) -> Object:
    """The review in the first version that the webhook and this server both know."""
    version = next(version for version in versions if version in VERSIONS)
    obj, old = attempt.shown(target.api_version)
    request = {"uid": meta.new_uid(), **attempt.request(target), "object": obj, "oldObject": old}
    return {"kind": _KIND, "apiVersion": f"{_GROUP}/{version}", "request": request}


def read(review: Object, answer: Any, *, mutating: bool) -> Verdict:
    """Raises BadAnswer."""
    strict = review["apiVersion"].endswith("/v1")
    answer = answer if isinstance(answer, dict) else {}
    if strict and (answer.get("apiVersion"), answer.get("kind")) != (review["apiVersion"], _KIND):
        group, _, version = str(answer.get("apiVersion") or "").rpartition("/")
        given = f"{group}/{version}, Kind={answer.get('kind') or ''}"
        raise BadAnswer(f"expected webhook response of {review['apiVersion']}, Kind={_KIND}, got {given}")
    response = answer.get("response")
    if not isinstance(response, dict):
        raise BadAnswer("webhook response was absent")
    if strict and response.get("uid") != review["request"]["uid"]:
        wanted, given = quote(review["request"]["uid"]), quote(str(response.get("uid") or ""))
        raise BadAnswer(f"expected response.uid={wanted}, got {given}")
    patch, patch_type = _patch(response), response.get("patchType")
    if strict:
        _check_patch(patch, patch_type, mutating)
    result = response.get("status")
    return Verdict(
        response.get("allowed") is True,
        patch if mutating else b"",
        (patch_type or "JSONPatch") if patch else "",
        result if isinstance(result, dict) else None,
        tuple(map(str, response.get("warnings") or ())),
        tuple((str(key), str(value)) for key, value in (response.get("auditAnnotations") or {}).items()),
    )


def _patch(response: Object) -> bytes:
    try:
        return base64.b64decode(response.get("patch") or "", validate=True)
    except (binascii.Error, TypeError, ValueError) as problem:
        raise BadAnswer(f"illegal base64 data in response.patch: {problem}") from None


def _check_patch(patch: bytes, patch_type: str | None, mutating: bool) -> None:
    if not mutating:
        if patch:
            raise BadAnswer("validating webhook may not return response.patch")
        if patch_type is not None:
            raise BadAnswer("validating webhook may not return response.patchType")
    elif patch and patch_type is None:
        raise BadAnswer("webhook returned response.patch but not response.patchType")
    elif not patch and patch_type is not None:
        raise BadAnswer("webhook returned response.patchType but not response.patch")
    elif patch_type == "":
        raise BadAnswer('webhook returned invalid response.patchType of ""')


def denial(name: str, result: Object | None) -> ApiError:
    """The refusal that a webhook's Status makes: never a success, and always with who refused."""
    result = result or {}
    code = result.get("code") or 0
    by = f"admission webhook {quote(name)} denied the request"
    why, reason = result.get("message") or "", result.get("reason") or ""
    message = f"{by}: {why or reason}" if why or reason else f"{by} without explanation"
    return ApiError(code if code >= 400 else 400, reason, message, details=result.get("details"))
