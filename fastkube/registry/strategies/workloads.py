"""What the kinds that run Pods from a template share: Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs."""

from __future__ import annotations

from fastkube.registry.strategies.checks import Object
from fastkube.registry.strategies.pod_templates import drop_switched_off, template_warnings
from fastkube.registry.strategy import Call, Strategy


class WorkloadStrategy(Strategy):
    """A kind whose pod template is `spec.template`."""

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        self.reset_status(obj)
        drop_switched_off(obj["spec"]["template"]["spec"])

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        super().prepare_for_update(call, new, old)
        drop_switched_off(new["spec"]["template"]["spec"])

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        if old is not None and obj["metadata"].get("generation") == old["metadata"].get("generation"):
            return []
        return template_warnings("spec.template", obj["spec"]["template"])
