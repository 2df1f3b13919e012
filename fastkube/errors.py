"""Errors as Kubernetes words them: every refusal is an `ApiError`, and every `ApiError` is a Status object.

Source: the `metav1.Status` and `StatusReason` conventions of the Kubernetes API. The constructors below carry the
code, reason and message form of upstream's `apierrors`; callers never build a Status by hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class Cause(NamedTuple):
    """One field's complaint. `reason` is a CauseType (FieldValueRequired), `field` a path (spec.replicas)."""

    reason: str
    message: str
    field: str = ""

    def to_dict(self) -> dict[str, str]:
        pairs = (("reason", self.reason), ("message", self.message), ("field", self.field))
        return {key: value for key, value in pairs if value}


class ApiError(Exception):
    """A refusal with its HTTP status `code`, CamelCase `reason`, `message` for people and `details` for programs.

    An empty `reason` is left out of the Status, as upstream does for errors that it did not foresee. `metadata` is the
    Status' list metadata: the answer to an expired continue token carries a fresh one there.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = headers or {}
        self.metadata = metadata or {}

    def to_status(self) -> dict[str, Any]:
        """The Status object which answers the request."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata,
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        status["code"] = self.code
        return status

    @classmethod
    def from_status(cls, status: dict[str, Any]) -> ApiError:
        """The error a client raises for a failure Status that it received."""
        return cls(
            int(status.get("code") or 500),
            str(status.get("reason") or "Unknown"),
            str(status.get("message") or "unknown"),
            details=status.get("details"),
        )


def _details(group: str, resource: str, name: str = "", **more: Any) -> dict[str, Any]:
    fields = {"name": name, "group": group, "kind": resource, **more}
    return {key: value for key, value in fields.items() if value not in ("", None)}


def qualified(group: str, resource: str) -> str:
    """`deployments.apps`, or `pods` for the core group: how messages name a resource."""
    return f"{resource}.{group}" if group else resource


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(group: str, resource: str, name: str, why: str) -> ApiError:
    """`why` follows the colon: what the user may not do, or which admission rule refused."""
    what = qualified(group, resource) + (f' "{name}"' if name else "")
    return ApiError(403, "Forbidden", f"{what} is forbidden: {why}", details=_details(group, resource, name))


def not_found(group: str, resource: str, name: str) -> ApiError:
    message = f'{qualified(group, resource)} "{name}" not found'
    return ApiError(404, "NotFound", message, details=_details(group, resource, name))


def path_not_found() -> ApiError:
    """For a path that no resource or endpoint serves."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", details={})


def method_not_supported(group: str, resource: str, verb: str) -> ApiError:
    message = f'{verb} is not supported on resources of kind "{qualified(group, resource)}"'
    return ApiError(405, "MethodNotAllowed", message, details=_details(group, resource))


def method_not_allowed() -> ApiError:
    """For a method that a path does not take at all."""
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message, details={})


def not_acceptable(message: str) -> ApiError:
    return ApiError(406, "NotAcceptable", message)


def already_exists(group: str, resource: str, name: str) -> ApiError:
    message = f'{qualified(group, resource)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details=_details(group, resource, name))


def conflict(group: str, resource: str, name: str, why: str) -> ApiError:
    message = f'Operation cannot be fulfilled on {qualified(group, resource)} "{name}": {why}'
    return ApiError(409, "Conflict", message, details=_details(group, resource, name))


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def gone(message: str) -> ApiError:
    return ApiError(410, "Gone", message)


def expired(message: str) -> ApiError:
    """The resourceVersion or continue token points before the last compaction."""
    return ApiError(410, "Expired", message)


def too_large(message: str) -> ApiError:
    return ApiError(413, "RequestEntityTooLarge", message)


def unsupported_media_type(message: str) -> ApiError:
    return ApiError(415, "UnsupportedMediaType", message)


def invalid(group: str, kind: str, name: str, causes: Iterable[Cause]) -> ApiError:
    """422 with a cause for each field; `kind` is the Kind, not the resource, as upstream has it."""
    causes = list(causes)
    whole = f"{qualified(group, kind)} {_quoted(name)} is invalid"
    told: list[str] = []
    for cause in causes:
        text = f"{cause.field}: {cause.message}" if cause.field else cause.message
        if text not in told:
            told.append(text)
    joined = told[0] if len(told) == 1 else "[" + ", ".join(told) + "]"
    message = f"{whole}: {joined}" if told else whole
    details = _details(group, kind, name, causes=[cause.to_dict() for cause in causes] or None)
    return ApiError(422, "Invalid", message, details=details)


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def too_many_requests(message: str, retry_after_s: int = 1) -> ApiError:
    return ApiError(
        429,
        "TooManyRequests",
        message,
        details={"retryAfterSeconds": retry_after_s},
        headers={"Retry-After": str(retry_after_s)},
    )


def internal(message: str) -> ApiError:
    """`message` must hold no stack trace and no secret: it goes to the client."""
    return ApiError(
        500, "InternalError", f"Internal error occurred: {message}", details={"causes": [{"message": message}]}
    )


def unavailable(message: str) -> ApiError:
    return ApiError(503, "ServiceUnavailable", message)


def timeout(message: str, retry_after_s: int = 0) -> ApiError:
    details = {"retryAfterSeconds": retry_after_s} if retry_after_s else {}
    return ApiError(504, "Timeout", f"Timeout: {message}", details=details)
