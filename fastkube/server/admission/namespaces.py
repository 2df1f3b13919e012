"""NamespaceLifecycle: nothing is written into a namespace that is not there, nothing new into one that is going."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastkube import errors
from fastkube.server.admission.plugin import CREATE, DELETE, UPDATE, Identity, Plugin, forbid

if TYPE_CHECKING:
    from fastkube.errors import ApiError
    from fastkube.registry.strategy import Call, Object
    from fastkube.server.admission.lookup import Lookups

_IMMORTAL = frozenset(("default", "kube-system", "kube-public"))
_ACCESS_REVIEWS = frozenset((("authorization.k8s.io", "localsubjectaccessreviews"),))


class NamespaceLifecycle(Plugin):
    name = "NamespaceLifecycle"
    mutates = True  # upstream asks it in the mutating phase, so that its refusals come before those of validation
    by_shape = True

    def __init__(self, lookups: Lookups) -> None:
        self._namespaces = lookups.namespaces

    def handles(self, target: Identity, operation: str) -> bool:
        if target[:2] == ("", "namespaces"):
            return operation == DELETE
        return operation in (CREATE, UPDATE) and target[:2] not in _ACCESS_REVIEWS

    def mutate(self, call: Call, obj: Object, old: Object | None) -> None:
        if call.rtype.resource == "namespaces" and not call.rtype.group:
            if call.name in _IMMORTAL:
                raise forbid(call, None, "this namespace may not be deleted")
            return
        if not call.namespace:
            return
        namespace = self._namespaces.get("", call.namespace)
        if namespace is None:
            raise errors.not_found("", "namespaces", call.namespace)
        if old is None and namespace["status"].get("phase") == "Terminating":
            raise _terminating(call, obj)


def _terminating(call: Call, obj: Object) -> ApiError:
    namespace = call.namespace
    why = f"unable to create new content in namespace {namespace} because it is being terminated"
    error = forbid(call, obj, why)
    cause = {
        "reason": "NamespaceTerminating",
        "message": f"namespace {namespace} is being terminated",
        "field": "metadata.namespace",
    }
    error.details = {**(error.details or {}), "causes": [cause]}
    return error
