"""Deployments (upstream: pkg/apis/apps/v1/defaults.go, pkg/registry/apps/deployment, pkg/apis/apps/validation)."""

from __future__ import annotations

from fastkube.registry.strategies.checks import Object
from fastkube.registry.strategies.pod_templates import default_template
from fastkube.registry.strategies.workloads import WorkloadStrategy
from fastkube.registry.strategy import Strategy

_SHARE = "25%"


class DeploymentStrategy(WorkloadStrategy):
    def default(self, obj: Object) -> None:
        spec: Object = obj.setdefault("spec", {})
        default_template(spec)
        spec.setdefault("replicas", 1)
        strategy: Object = spec.setdefault("strategy", {})
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
        if strategy["type"] == "RollingUpdate":
            rolling: Object = strategy.setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", _SHARE)
            rolling.setdefault("maxSurge", _SHARE)
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault("progressDeadlineSeconds", 600)


STRATEGIES: dict[tuple[str, str], Strategy] = {("apps", "deployments"): DeploymentStrategy()}
