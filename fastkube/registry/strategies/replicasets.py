"""ReplicaSets and their predecessors, ReplicationControllers."""

from __future__ import annotations

from fastkube.registry.strategies.checks import Object
from fastkube.registry.strategies.pod_templates import default_template
from fastkube.registry.strategies.workloads import WorkloadStrategy
from fastkube.registry.strategy import Strategy


class ReplicaSetStrategy(WorkloadStrategy):
    def default(self, obj: Object) -> None:
        spec: Object = obj.setdefault("spec", {})
        default_template(spec)
        spec.setdefault("replicas", 1)


class ReplicationControllerStrategy(WorkloadStrategy):
    def default(self, obj: Object) -> None:
        """Without labels and selector those of the template serve."""
        spec: Object = obj.setdefault("spec", {})
        labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
        if labels:
            if not spec.get("selector"):
                spec["selector"] = dict(labels)
            if not obj["metadata"].get("labels"):
                obj["metadata"]["labels"] = dict(labels)
        spec.setdefault("replicas", 1)
        if spec.get("template") is not None:
            default_template(spec)


STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("apps", "replicasets"): ReplicaSetStrategy(),
    ("", "replicationcontrollers"): ReplicationControllerStrategy(),
}
