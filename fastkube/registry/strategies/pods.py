"""Pods and PodTemplates. The parts are in pod_defaults, pod_validation, pod_updates and pod_warnings."""

from __future__ import annotations

from fastkube.api.names import dns1123_label
from fastkube.clock import rfc3339
from fastkube.errors import Cause
from fastkube.registry.strategies import pod_resize, pod_security, pod_shapes, pod_updates, pod_validation
from fastkube.registry.strategies.checks import Errors, amount
from fastkube.registry.strategies.pod_containers import each
from fastkube.registry.strategies.pod_defaults import default_pod
from fastkube.registry.strategies.pod_scheduling import PREFERRED, REQUIRED
from fastkube.registry.strategies.pod_templates import (
    default_template,
    drop_switched_off,
    template_warnings,
    validate_template,
)
from fastkube.registry.strategies.pod_warnings import APP_ARMOR_FIELD, pod_warnings
from fastkube.registry.strategy import Call, Object, Strategy

_COMPUTE = ("cpu", "memory")


class PodStrategy(Strategy):
    kept_on_status = ("ownerReferences",)
    graceful = True
    grace_depends_on = (("spec", "nodeName"), ("spec", "terminationGracePeriodSeconds"), ("status", "phase"))

    def __init__(self) -> None:
        self._judged: tuple[Object, bytes | None] = (
            {},
            None,
        )  # the Pod validated last, and its shape if it has no fault

    def default(self, obj: Object) -> None:
        default_pod(obj)
        status = obj.get("status")
        if status:
            _settle_addresses(status)

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        spec = obj["spec"]
        given = (obj.get("status") or {}).get("qosClass")
        status: Object = {"phase": "Pending"}
        obj["status"] = status
        drop_switched_off(call, spec)
        if spec.get("schedulingGates"):
            status["conditions"] = [_gated_condition(call.now)]
        _apply_label_keys(spec, obj["metadata"].get("labels") or {})
        annotations = obj["metadata"].get("annotations")
        if annotations:
            _app_armor_from_annotations(call, spec, annotations)
        status["qosClass"] = given or qos_class(spec)

    def casts(self, obj: Object) -> bool:
        """An ephemeral volume's claim is named after the Pod."""
        return not any("ephemeral" in volume for volume in obj["spec"].get("volumes") or ())

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        super().prepare_for_update(call, new, old)
        drop_switched_off(call, new["spec"])

    def prepare_for_status_update(self, call: Call, new: Object, old: Object) -> None:
        super().prepare_for_status_update(call, new, old)
        status, before = new.setdefault("status", {}), old.get("status") or {}
        _drop_switched_off_status(status, before)
        _keep_status_parts(status, before)

    def grace_period_s(self, obj: Object, requested_s: int | None) -> int:
        """A Pod that no node runs, or that has ended, goes at once."""
        spec, phase = obj["spec"], (obj.get("status") or {}).get("phase")
        if not spec.get("nodeName") or phase in ("Failed", "Succeeded"):
            return 0
        grace: int = (spec.get("terminationGracePeriodSeconds") or 0) if requested_s is None else requested_s
        return 1 if grace < 0 else grace

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        shape = pod_shapes.shape_of(obj)
        errs: Errors = []
        if pod_shapes.warnings_of(shape) is None:
            pod_validation.new_pod(errs, obj)
        self._judged = (obj, None if errs else shape)
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        pod_updates.pod_update(errs, new, old)
        return errs

    def validate_status_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        pod_updates.pod_status_update(errs, new, old)
        return errs

    def validate_ephemeral_containers_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        pod_updates.ephemeral_containers_update(errs, new, old)
        return errs

    def validate_resize(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        before = (old.get("status") or {}).get("qosClass") or qos_class(old["spec"])
        pod_resize.resize(errs, new, old, before, qos_class(new["spec"]))
        return errs

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        if old is not None:
            return []
        told = []
        found = dns1123_label(obj["metadata"].get("name") or "")
        if found:
            told.append(
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; "
                f"a DNS label is recommended: [{' '.join(found)}]"
            )
        judged, shape = self._judged
        found_before = pod_shapes.warnings_of(shape) if judged is obj else None
        if found_before is None:
            found_before = pod_warnings("", obj["metadata"], obj["spec"])
            if judged is obj and shape is not None:
                pod_shapes.keep(shape, found_before)
        return told + found_before


def _settle_addresses(status: Object) -> None:
    """podIP and podIPs say the same; where they differ the older one counts."""
    address, addresses = status.get("podIP"), status.get("podIPs")
    if address and (not addresses or addresses[0].get("ip") != address):
        status["podIPs"] = [{"ip": address}]
    elif addresses and not address and addresses[0].get("ip"):
        status["podIP"] = addresses[0]["ip"]


def _gated_condition(now: float) -> Object:
    return {
        "type": "PodScheduled",
        "status": "False",
        "lastProbeTime": None,
        "lastTransitionTime": rfc3339(now),
        "reason": "SchedulingGated",
        "message": "Scheduling is blocked due to non-empty scheduling gates",
    }


_CONTAINER_STATUSES = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")


def _drop_switched_off_status(status: Object, old: Object) -> None:
    """Features that are off by default in 1.36: digests of image volumes, resources allocated by claims."""
    if "nodeAllocatableResourceClaimStatuses" not in old:
        status.pop("nodeAllocatableResourceClaimStatuses", None)
    for key in _CONTAINER_STATUSES:
        for container in status.get(key) or ():
            for mount in container.get("volumeMounts") or ():
                mount.pop("volumeStatus", None)


def _keep_status_parts(status: Object, old: Object) -> None:
    """What clients that do not know a field would otherwise clear."""
    for key in ("qosClass", "observedGeneration", "resourceClaimStatuses", "extendedResourceClaimStatus"):
        if not status.get(key) and old.get(key):
            status[key] = old[key]
    generations: dict[str, list[int]] = {}
    for condition in old.get("conditions") or ():
        generations.setdefault(condition.get("type") or "", []).append(condition.get("observedGeneration") or 0)
    for condition in status.get("conditions") or ():
        known = generations.get(condition.get("type") or "")
        before = known.pop(0) if known else 0
        if before and not condition.get("observedGeneration"):
            condition["observedGeneration"] = before


# ---------------------------------------------------------------- quality of service


def qos_class(spec: Object) -> str:
    """Guaranteed, Burstable or BestEffort, from cpu and memory of the pod or else of its containers."""
    of_pod = spec.get("resources")
    if of_pod:
        holders = [of_pod]
    else:
        holders = [
            container["resources"]
            for key in ("containers", "initContainers")
            for container in spec.get(key) or ()
            if container.get("resources")
        ]
    if not holders:
        return "BestEffort"
    requests: dict[str, int] = {}
    limits: dict[str, int] = {}
    limited = of_pod is not None or len(holders) == sum(len(spec.get(key) or ()) for key in _CONTAINERS)
    for resources in holders:
        _accumulate(requests, resources.get("requests"))
        limited &= _accumulate(limits, resources.get("limits")) == len(_COMPUTE)
    if not requests and not limits:
        return "BestEffort"
    if limited and requests == limits:
        return "Guaranteed"
    return "Burstable"


_CONTAINERS = ("containers", "initContainers")


def _accumulate(total: dict[str, int], amounts: dict[str, str] | None) -> int:
    """How many of the compute resources there are."""
    found = 0
    for name in _COMPUTE:
        nanos = amount((amounts or {}).get(name) or "0")
        if nanos > 0:
            total[name] = total.get(name, 0) + nanos
            found += 1
    return found


# ---------------------------------------------------------------- preparing


def _apply_label_keys(spec: Object, labels: dict[str, str]) -> None:
    """Selectors may name label keys whose values are those of the Pod itself: here they get them."""
    for constraint in spec.get("topologySpreadConstraints") or ():
        _extend_selector(constraint, "matchLabelKeys", "In", labels)
    affinity = spec.get("affinity")
    if not affinity:
        return
    for kind in ("podAffinity", "podAntiAffinity"):
        terms = affinity.get(kind) or {}
        listed = [term.get("podAffinityTerm") or {} for term in terms.get(PREFERRED) or ()]
        for term in (*listed, *(terms.get(REQUIRED) or ())):
            _extend_selector(term, "matchLabelKeys", "In", labels)
            _extend_selector(term, "mismatchLabelKeys", "NotIn", labels)


def _extend_selector(holder: Object, key: str, operator: str, labels: dict[str, str]) -> None:
    selector = holder.get("labelSelector")
    if selector is None:
        return
    for name in holder.get(key) or ():
        if name in labels:
            expression = {"key": name, "operator": operator, "values": [labels[name]]}
            selector.setdefault("matchExpressions", []).append(expression)


def _app_armor_from_annotations(call: Call, spec: Object, annotations: dict[str, str]) -> None:
    """The older annotation becomes the field, and is warned about."""
    if (spec.get("os") or {}).get("name") == "windows":
        return
    of_pod = (spec.get("securityContext") or {}).get("appArmorProfile")
    for container, _ in each(spec, ""):
        key = pod_security.APP_ARMOR + (container.get("name") or "")
        context = container.get("securityContext") or {}
        if key not in annotations or context.get("appArmorProfile") is not None:
            continue
        profile = pod_security.app_armor_profile(annotations[key])
        if profile == of_pod and profile is not None:
            continue
        if profile is not None:
            container["securityContext"] = {**context, "appArmorProfile": profile}
        call.warnings.append(f"metadata.annotations[{key}]: {APP_ARMOR_FIELD}")


# ---------------------------------------------------------------- templates as objects of their own


class PodTemplateStrategy(Strategy):
    metadata_checks = ("update",)
    has_status = False

    def default(self, obj: Object) -> None:
        default_template(obj)

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        drop_switched_off(call, obj["template"]["spec"])

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        drop_switched_off(call, new["template"]["spec"])

    def spec_changed(self, new: Object, old: Object) -> bool:
        return bool(new.get("template") != old.get("template"))

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        validate_template(errs, "template", obj["template"])
        return errs

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        return template_warnings("template", obj["template"])


STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("", "pods"): PodStrategy(),
    ("", "podtemplates"): PodTemplateStrategy(),
}
