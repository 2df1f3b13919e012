"""StatefulSets and the ControllerRevisions in which they and DaemonSets keep their history."""

from __future__ import annotations

from fastkube.registry.strategies.checks import Object
from fastkube.registry.strategies.pod_defaults import default_claim_spec
from fastkube.registry.strategies.pod_templates import default_template
from fastkube.registry.strategies.workloads import WorkloadStrategy
from fastkube.registry.strategy import Call, Strategy


class StatefulSetStrategy(WorkloadStrategy):
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


STRATEGIES: dict[tuple[str, str], Strategy] = {("apps", "statefulsets"): StatefulSetStrategy()}
