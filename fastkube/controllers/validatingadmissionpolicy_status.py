"""The status of ValidatingAdmissionPolicies: what the type checker says of each generation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from fastkube.api.catalog import Catalog
from fastkube.controllers.actions import GONE, Action, Ask, Patch
from fastkube.controllers.common import Object
from fastkube.controllers.runner import Context, Controller, Watch

NAME = "validatingadmissionpolicy-status-controller"
POLICIES = "admissionregistration.k8s.io/v1/validatingadmissionpolicies"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class View(NamedTuple):
    policy: Object
    live: dict[str, Any]


_builtin = cache(Catalog.builtin)


def view(context: Context, key: str) -> View | None:
    policy = context.caches.by_key(POLICIES, key)
    return None if policy is None else View(policy, {})


def reconcile(view: View) -> Sequence[Action]:
    policy, metadata = view.policy, view.policy["metadata"]
    generation = metadata["generation"]
    if generation <= (policy.get("status") or {}).get("observedGeneration", 0):
        return ()
    if DEFINITIONS not in view.live:
        return [Ask(DEFINITIONS)]
    from fastkube.cel.typechecking import expression_warnings  # CEL takes a while to load, and few have policies

    definitions = (view.live[DEFINITIONS] or {}).get("items") or ()
    warnings = expression_warnings(policy, _builtin(), definitions)
    checking = {"expressionWarnings": warnings} if warnings else {}
    body = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": metadata["name"]},
        "status": {"observedGeneration": generation, "typeChecking": checking},
    }
    apply = Patch(
        POLICIES, policy, body=body, kind="apply", subresource="status", field_manager=NAME, force=True, ignore=GONE
    )
    return [apply]


CONTROLLER = Controller(name=NAME, watches=(Watch(POLICIES),), view=view, reconcile=reconcile)
