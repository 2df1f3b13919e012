"""StatefulSets and the ControllerRevisions in which they and DaemonSets keep their history."""

from __future__ import annotations

from fastkube.api import field
from fastkube.api.meta import validate_annotations, validate_labels
from fastkube.api.names import dns1123_label
from fastkube.errors import Cause
from fastkube.registry.strategies import checks, workloads
from fastkube.registry.strategies.checks import Errors, Object, fields_non_negative
from fastkube.registry.strategies.claims import claim_spec, claim_warnings
from fastkube.registry.strategies.go_values import shown
from fastkube.registry.strategies.pod_defaults import default_claim_spec
from fastkube.registry.strategies.pod_templates import default_template, validate_template
from fastkube.registry.strategies.workloads import WorkloadStrategy
from fastkube.registry.strategy import Call, Strategy

_MUTABLE = (
    "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
)  # fmt: skip
_NEGATIVE_LIMIT = (
    "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
)
_STATUS_PARTS = ("readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas")


class StatefulSetStrategy(WorkloadStrategy):
    metadata_checks = ("update",)
    names_pods = False

    def validate_name(self, name: str, prefix: bool) -> list[str]:
        return dns1123_label(name, prefix)

    def default(self, obj: Object) -> None:
        spec: Object = obj.setdefault("spec", {})
        default_template(spec)
        if not spec.get("podManagementPolicy"):
            spec["podManagementPolicy"] = "OrderedReady"
        strategy: Object = spec.setdefault("updateStrategy", {})
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
            strategy.setdefault("rollingUpdate", {})
        if strategy["type"] == "RollingUpdate" and strategy.get("rollingUpdate") is not None:
            strategy["rollingUpdate"].setdefault("partition", 0)
        retention: Object = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
        for key in ("whenDeleted", "whenScaled"):
            if not retention.get(key):
                retention[key] = "Retain"
        spec.setdefault("replicas", 1)
        spec.setdefault("revisionHistoryLimit", 10)
        for claim in spec.get("volumeClaimTemplates") or ():
            _default_claim(claim)

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        super().prepare_for_create(call, obj)
        _drop_max_unavailable(obj["spec"])

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        super().prepare_for_update(call, new, old)
        _drop_max_unavailable(new["spec"])

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        _stateful_set_spec(errs, obj["spec"], is_new=True)
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        now, was = new["spec"], old["spec"]
        _stateful_set_spec(errs, now, is_new=False)
        fixed = (now.keys() | was.keys()).difference(_MUTABLE)
        if any(not checks.equal(now.get(key), was.get(key)) for key in fixed):
            *most, last = (f"'{key}'" for key in _MUTABLE)
            problem = f"updates to statefulset spec for fields other than {', '.join(most)} and {last} are forbidden"
            errs.append(field.forbidden("spec", problem))
        return errs

    def check_status(self, errs: Errors, status: Object) -> None:
        workloads.non_negative_status(errs, status, "replicas", *_STATUS_PARTS, "observedGeneration", "collisionCount")
        workloads.within_replicas(errs, status, *_STATUS_PARTS)
        workloads.available_within_ready(errs, status, "status.readyReplicas")

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        told = super().warnings(call, obj, old)
        if call.subresource == "status":
            return told
        for number, claim in enumerate(obj["spec"].get("volumeClaimTemplates") or ()):
            told += claim_warnings(f"spec.volumeClaimTemplates[{number}].Spec", claim["spec"])
        if obj["spec"]["revisionHistoryLimit"] < 0:
            told.append(_NEGATIVE_LIMIT)
        return told


def _stateful_set_spec(errs: Errors, spec: Object, *, is_new: bool) -> None:
    """`is_new`: what cannot change is checked too."""
    policy = spec["podManagementPolicy"]
    if policy not in ("OrderedReady", "Parallel"):
        errs.append(field.invalid("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'"))
    _update_strategy(errs, "spec.updateStrategy", spec["updateStrategy"])
    retention = spec["persistentVolumeClaimRetentionPolicy"]
    for key in ("whenDeleted", "whenScaled"):
        checks.one_of(errs, f"spec.persistentVolumeClaimRetentionPolicy.{key}", retention[key], ("Retain", "Delete"))
    claims = spec.get("volumeClaimTemplates") or []
    if is_new:
        for number, claim in enumerate(claims):
            claim_spec(errs, f"spec.volumeClaimTemplates[{number}].spec", claim["spec"])
    fields_non_negative(errs, "spec", spec, "replicas", "minReadySeconds")
    if spec.get("ordinals") is not None:
        fields_non_negative(errs, "spec.ordinals", spec["ordinals"], "start")
    if is_new and spec.get("serviceName"):
        checks.label(errs, "spec.serviceName", spec["serviceName"])
    selector, template = spec.get("selector"), spec["template"]
    workloads.required_selector(errs, selector, "empty selector is invalid for statefulset")
    usable = workloads.as_selector(selector)
    if usable is None:
        errs.append(field.invalid("spec.selector", checks.selector_shown(selector), ""))
    else:
        workloads.selects_template(errs, usable, "spec.template", template)
        validate_template(errs, "spec.template", _of_members(template, claims))
        metadata = template["metadata"]  # upstream looks at these once more
        errs += validate_labels(metadata.get("labels") or {}, "spec.template.labels")
        errs += validate_annotations(metadata.get("annotations") or {}, "spec.template.annotations")
    workloads.runs_forever(errs, "spec.template", template, "StatefulSet")


def _of_members(template: Object, claims: list[Object]) -> Object:
    """The template of the Pods as they will be: each claim becomes a volume, in place of one of that name, and host
    names are theirs."""
    spec = template["spec"]
    if not (claims or spec.get("hostname") or spec.get("subdomain")):
        return template
    names = [claim["metadata"].get("name") or "" for claim in claims]
    volumes = [volume for volume in spec.get("volumes") or () if volume.get("name") not in names]
    volumes += [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in names]
    return {**template, "spec": {**spec, "volumes": volumes, "hostname": "", "subdomain": ""}}


def _update_strategy(errs: Errors, path: str, strategy: Object) -> None:
    kind, rolling = strategy["type"], strategy.get("rollingUpdate")
    if kind == "RollingUpdate":
        if rolling is not None:
            fields_non_negative(errs, f"{path}.rollingUpdate", rolling, "partition")
    elif kind != "OnDelete":
        value = shown("StatefulSetUpdateStrategy", strategy)
        errs.append(field.invalid(path, value, "must be 'RollingUpdate' or 'OnDelete'"))
    elif rolling is not None:
        value = shown("RollingUpdateStatefulSetStrategy", rolling)
        problem = "only allowed for updateStrategy 'RollingUpdate'"
        errs.append(field.invalid(f"{path}.rollingUpdate", value, problem))


def _default_claim(claim: Object) -> None:
    claim["apiVersion"], claim["kind"] = "v1", "PersistentVolumeClaim"
    claim.setdefault("metadata", {})
    default_claim_spec(claim.setdefault("spec", {}))
    status: Object = claim.setdefault("status", {})
    if not status.get("phase"):
        status["phase"] = "Pending"


def _drop_max_unavailable(spec: Object) -> None:
    """The field of a feature that is off by default in 1.36."""
    rolling = spec["updateStrategy"].get("rollingUpdate")
    if rolling:
        rolling.pop("maxUnavailable", None)


class ControllerRevisionStrategy(Strategy):
    has_status = False
    has_generation = False

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        checks.non_negative(errs, "revision", obj.get("revision"))
        if obj.get("data") is None:
            errs.append(field.required("data", "data is mandatory"))
        elif not isinstance(obj["data"], dict):
            errs.append(field.required("data", "data must be a valid JSON object"))
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        checks.non_negative(errs, "revision", new.get("revision"))
        checks.immutable(errs, "data", new.get("data"), old.get("data"))
        return errs


STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("apps", "statefulsets"): StatefulSetStrategy(),
    ("apps", "controllerrevisions"): ControllerRevisionStrategy(),
}
