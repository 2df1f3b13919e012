"""What the kinds that run Pods from a template share: Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs."""

from __future__ import annotations

from fastkube.api import field
from fastkube.api.names import dns1123_label
from fastkube.api.selectors import LabelSelector, from_object, validate_label_selector
from fastkube.errors import Cause
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.checks import Errors, Object, fields_non_negative, selector_shown
from fastkube.registry.strategies.pod_templates import drop_switched_off, template_warnings
from fastkube.registry.strategy import Call, Strategy

NO_MATCH = "`selector` does not match template `labels`"
_NO_MORE_THAN_REPLICAS = "cannot be greater than status.replicas"


class WorkloadStrategy(Strategy):
    """A kind whose pod template is `spec.template`."""

    names_pods = True
    """The object's name goes into the host names of its Pods, so one that is no DNS label is warned about."""

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        self.reset_status(obj)
        drop_switched_off(call, obj["spec"]["template"]["spec"])

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        super().prepare_for_update(call, new, old)
        drop_switched_off(call, new["spec"]["template"]["spec"])

    def validate_status_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        self.check_status(errs, new.get("status") or {})
        collisions_kept(errs, new, old)
        return errs

    def check_status(self, errs: Errors, status: Object) -> None:
        """Complaints about a status by itself."""

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        if is_same_generation(obj, old):
            return []
        told = name_warnings(obj) if old is None and self.names_pods else []
        return told + template_warnings("spec.template", obj["spec"]["template"])


def is_same_generation(obj: Object, old: Object | None) -> bool:
    """Upstream warns about what was changed only."""
    return old is not None and obj["metadata"].get("generation") == old["metadata"].get("generation")


def name_warnings(obj: Object) -> list[str]:
    found = dns1123_label(obj["metadata"].get("name") or "")
    if not found:
        return []
    surprise = "this is used in Pod names and hostnames, which can result in surprising behavior"
    return [f"metadata.name: {surprise}; a DNS label is recommended: [{' '.join(found)}]"]


# ---------------------------------------------------------------- selectors


def as_selector(selector: Object | None) -> LabelSelector | None:
    """The selector if it can be used; none selects nothing."""
    return None if validate_label_selector(selector, "") else from_object(selector)


def required_selector(errs: Errors, selector: Object | None, empty: str) -> None:
    """`empty` is the complaint about one that would select everything."""
    if selector is None:
        errs.append(field.required("spec.selector"))
        return
    errs += validate_label_selector(selector, "spec.selector")
    if is_empty(selector):
        errs.append(field.invalid("spec.selector", selector_shown(selector), empty))


def is_empty(selector: Object) -> bool:
    return not selector.get("matchLabels") and not selector.get("matchExpressions")


def selects_template(errs: Errors, selector: LabelSelector, path: str, template: Object) -> None:
    """Whatever makes the Pods must find them again."""
    labels = (template.get("metadata") or {}).get("labels")
    if not selector.matches(labels or {}):
        errs.append(field.invalid(f"{path}.metadata.labels", labels, NO_MATCH))


def runs_forever(errs: Errors, path: str, template: Object, kind: str) -> None:
    """Pods that are replaced for ever restart for ever."""
    spec = template.get("spec") or {}
    policy = spec.get("restartPolicy") or ""
    if policy != "Always":
        errs.append(field.not_supported(f"{path}.spec.restartPolicy", policy, ("Always",)))
    if spec.get("activeDeadlineSeconds") is not None:
        problem = f"activeDeadlineSeconds in {kind} is not Supported"
        errs.append(field.forbidden(f"{path}.spec.activeDeadlineSeconds", problem))


# ---------------------------------------------------------------- status


def non_negative_status(errs: Errors, status: Object, *keys: str) -> None:
    fields_non_negative(errs, "status", status, *keys)


def within_replicas(errs: Errors, status: Object, *keys: str) -> None:
    """No part of the Pods is larger than all of them."""
    replicas = status.get("replicas") or 0
    for key in keys:
        count = status.get(key) or 0
        if count > replicas:
            errs.append(field.invalid(f"status.{key}", count, _NO_MORE_THAN_REPLICAS))


def available_within_ready(errs: Errors, status: Object, ready: str = "readyReplicas") -> None:
    available = status.get("availableReplicas") or 0
    if available > (status.get("readyReplicas") or 0):
        errs.append(field.invalid("status.availableReplicas", available, f"cannot be greater than {ready}"))


def collisions_kept(errs: Errors, new: Object, old: Object) -> None:
    """The count of hash collisions never falls."""
    before = (old.get("status") or {}).get("collisionCount")
    now = (new.get("status") or {}).get("collisionCount")
    if before is not None and (now is None or now < before):
        errs.append(field.invalid("status.collisionCount", now or 0, "cannot be decremented"))


def rolling_amounts(errs: Errors, path: str, rolling: Object) -> None:
    for key in ("maxUnavailable", "maxSurge"):
        checks.int_or_percent(errs, f"{path}.{key}", rolling[key])
