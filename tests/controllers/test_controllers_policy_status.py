"""The status of ValidatingAdmissionPolicies."""

from __future__ import annotations

from typing import Any

from fastkube.controllers import validatingadmissionpolicy_status as controller
from fastkube.controllers.actions import Ask, Patch

Object = dict[str, Any]


def policy(expression: str, generation: int = 1, **status: Any) -> Object:
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["*"]}]
    spec = {"matchConstraints": {"resourceRules": rules}, "validations": [{"expression": expression}]}
    return {"metadata": {"name": "p", "generation": generation}, "spec": spec, "status": status}


def status_of(view: controller.View) -> Object:
    (ask,) = controller.reconcile(view)
    assert isinstance(ask, Ask)
    (patch,) = controller.reconcile(view._replace(live={ask.key: {"items": []}}))
    assert isinstance(patch, Patch) and (patch.kind, patch.subresource, patch.force) == ("apply", "status", True)
    status: Object = patch.body["status"]
    return status


def test_what_does_not_fit_is_told_in_the_status() -> None:
    status = status_of(controller.View(policy("object.nope", 3), {}))
    assert status["observedGeneration"] == 3
    (warning,) = status["typeChecking"]["expressionWarnings"]
    assert warning["fieldRef"] == "spec.validations[0].expression" and "undefined field 'nope'" in warning["warning"]


def test_what_fits_has_been_looked_at() -> None:
    assert status_of(controller.View(policy("has(object.spec)"), {})) == {"observedGeneration": 1, "typeChecking": {}}


def test_a_generation_is_looked_at_once() -> None:
    assert controller.reconcile(controller.View(policy("object.nope", 2, observedGeneration=2), {})) == ()
