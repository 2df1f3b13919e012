"""PriorityClasses."""

from __future__ import annotations

from fastkube.registry.strategy import Object, Strategy


class PriorityClassStrategy(Strategy):
    has_status = False

    def default(self, obj: Object) -> None:
        if obj.get("preemptionPolicy") is None:
            obj["preemptionPolicy"] = "PreemptLowerPriority"

    def spec_changed(self, new: Object, old: Object) -> bool:
        return False


STRATEGIES: dict[tuple[str, str], Strategy] = {("scheduling.k8s.io", "priorityclasses"): PriorityClassStrategy()}
