"""Kubernetes' library authorizer: what the variable `authorizer` of a policy can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from fastkube.api import names
from fastkube.cel.errors import EvalError
from fastkube.cel.functions import Overload, method


class Decide(Protocol):
    """Decides on the attributes of a request (those of a SubjectAccessReview's spec): allowed, reason, error."""

    def __call__(self, attributes: dict[str, Any]) -> tuple[bool, str, str]: ...


@dataclass(frozen=True, slots=True)
class Authorizer:
    """What the variable `authorizer` is: asks whether the request's user may do something."""

    decide: Decide
    attributes: dict[str, Any]
    cel_type: str = "kubernetes.authorization.Authorizer"

    def step(self, kind: str, **more: Any) -> Authorizer:
        return Authorizer(self.decide, {**self.attributes, **more}, f"kubernetes.authorization.{kind}")


@dataclass(frozen=True, slots=True)
class Decision:
    allowed: bool
    reason: str
    error: str
    cel_type: ClassVar[str] = "kubernetes.authorization.Decision"


def _path(authorizer: Authorizer, path: str) -> Authorizer:
    if not path:
        raise EvalError("path must not be empty")
    return authorizer.step("PathCheck", path=path)


def _resource(check: Authorizer, resource: str) -> Authorizer:
    return check.step("ResourceCheck", resource=resource)


def _service_account(authorizer: Authorizer, namespace: str, name: str) -> Authorizer:
    if names.dns1123_subdomain(name):
        raise EvalError(f'Invalid service account name "{name}"')
    if names.dns1123_label(namespace):
        raise EvalError(f'Invalid service account namespace "{namespace}"')
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
    return authorizer.step("Authorizer", user=f"system:serviceaccount:{namespace}:{name}", groups=groups)


def _check(check: Authorizer, verb: str) -> Decision:
    return Decision(*check.decide({**check.attributes, "verb": verb}))


_A = "kubernetes.authorization"


def _narrowing(name: str) -> Overload:
    def call(check: Authorizer, value: str) -> Authorizer:
        return check.step("ResourceCheck", **{name: value})

    return method(name, f"{_A}.ResourceCheck, string -> {_A}.ResourceCheck", call)


OVERLOADS = (
    method("path", f"{_A}.Authorizer, string -> {_A}.PathCheck", _path),
    method("group", f"{_A}.Authorizer, string -> {_A}.GroupCheck", lambda a, group: a.step("GroupCheck", group=group)),
    method("serviceAccount", f"{_A}.Authorizer, string, string -> {_A}.Authorizer", _service_account),
    method("resource", f"{_A}.GroupCheck, string -> {_A}.ResourceCheck", _resource),
    *map(_narrowing, ("subresource", "namespace", "name", "fieldSelector", "labelSelector")),
    method("check", f"{_A}.PathCheck, string -> {_A}.Decision", _check),
    method("check", f"{_A}.ResourceCheck, string -> {_A}.Decision", _check),
    method("allowed", f"{_A}.Decision -> bool", lambda decision: decision.allowed),
    method("reason", f"{_A}.Decision -> string", lambda decision: decision.reason),
    method("errored", f"{_A}.Decision -> bool", lambda decision: bool(decision.error)),
    method("error", f"{_A}.Decision -> string", lambda decision: decision.error),
)
