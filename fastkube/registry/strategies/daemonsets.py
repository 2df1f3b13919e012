"""DaemonSets."""

from __future__ import annotations

from fastkube.registry.strategies.checks import Object
from fastkube.registry.strategies.pod_templates import default_template
from fastkube.registry.strategies.workloads import WorkloadStrategy
from fastkube.registry.strategy import Call, Strategy

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"


class DaemonSetStrategy(WorkloadStrategy):
    def default(self, obj: Object) -> None:
        spec: Object = obj.setdefault("spec", {})
        default_template(spec)
        strategy: Object = spec.setdefault("updateStrategy", {})
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
        if strategy["type"] == "RollingUpdate":
            rolling: Object = strategy.setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", 1)
            rolling.setdefault("maxSurge", 0)
        spec.setdefault("revisionHistoryLimit", 10)

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        super().prepare_for_create(call, obj)
        _set_template_generation(obj, max(_template_generation(obj), 1))

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        super().prepare_for_update(call, new, old)
        changed = new["spec"]["template"] != old["spec"]["template"]
        _set_template_generation(new, _template_generation(old) + changed)


def _template_generation(obj: Object) -> int:
    """How often the template has changed: a field of older versions, which apps/v1 shows as an annotation."""
    told = (obj["metadata"].get("annotations") or {}).get(TEMPLATE_GENERATION, "")
    return int(told) if told.isascii() and told.isdigit() else 0


def _set_template_generation(obj: Object, generation: int) -> None:
    obj["metadata"].setdefault("annotations", {})[TEMPLATE_GENERATION] = str(generation)


STRATEGIES: dict[tuple[str, str], Strategy] = {("apps", "daemonsets"): DaemonSetStrategy()}
