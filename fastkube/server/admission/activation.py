"""What the expressions of admission see: the variables of fastkube.cel.admission, filled from a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastkube.cel.authorizer import Authorizer as CelAuthorizer
from fastkube.registry.strategy import UserInfo
from fastkube.server.request import Attributes

if TYPE_CHECKING:
    from fastkube.registry.strategy import Object
    from fastkube.server.admission.lookup import Mirror
    from fastkube.server.admission.requests import Attempt, Target
    from fastkube.server.authz import Authorizer

_NAMESPACE_METADATA = (
    "name", "generateName", "namespace", "labels", "annotations", "creationTimestamp", "deletionGracePeriodSeconds",
    "deletionTimestamp", "generation", "resourceVersion", "finalizers",
)  # fmt: skip


def bindings(attempt: Attempt, target: Target, authorizer: Authorizer, namespaces: Mirror) -> dict[str, Any]:
    """For one request, as what it matched."""
    obj, old = attempt.shown(target.api_version)
    asking = _asking(attempt, authorizer)
    call = attempt.call
    resource = asking.step(
        "ResourceCheck",
        group=call.rtype.group,
        resource=call.rtype.resource,
        subresource=call.subresource,
        namespace=attempt.namespace,
        name=attempt.name,
    )
    return {
        "object": obj,
        "oldObject": old,
        "request": attempt.request(target),
        "namespaceObject": _namespace(attempt, namespaces),
        "authorizer": asking,
        "authorizer.requestResource": resource,
    }


def _namespace(attempt: Attempt, namespaces: Mirror) -> Object | None:
    """What policies may know of the namespace of a request; nothing of that of a cluster-wide object."""
    found = namespaces.get("", attempt.namespace) if attempt.namespace and not attempt.is_namespace else None
    if found is None:
        return None
    metadata = found["metadata"]
    told = {key: metadata[key] for key in _NAMESPACE_METADATA if key in metadata}
    told["UID"] = metadata["uid"]
    return {"metadata": told, "spec": found.get("spec") or {}, "status": found.get("status") or {}}


def _asking(attempt: Attempt, authorizer: Authorizer) -> CelAuthorizer:
    user = attempt.call.user

    def decide(attributes: dict[str, Any]) -> tuple[bool, str, str]:
        who = UserInfo(attributes["user"], tuple(attributes["groups"])) if "user" in attributes else user
        path = attributes.get("path") or ""
        parts = {key: attributes.get(key) or "" for key in ("group", "resource", "subresource", "namespace", "name")}
        decision = authorizer.decide(who, Attributes(attributes["verb"], path=path, **({} if path else parts)))
        return decision.allowed, decision.reason, ""

    return CelAuthorizer(decide, {})
