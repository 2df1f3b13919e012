"""Ingresses and IngressClasses."""

from __future__ import annotations

from fastkube.registry.strategy import Object, Strategy


class IngressStrategy(Strategy):
    pass


class IngressClassStrategy(Strategy):
    has_status = False

    def default(self, obj: Object) -> None:
        parameters = (obj.get("spec") or {}).get("parameters")
        if parameters is not None and parameters.get("scope") is None:
            parameters["scope"] = "Cluster"


STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("networking.k8s.io", "ingresses"): IngressStrategy(),
    ("networking.k8s.io", "ingressclasses"): IngressClassStrategy(),
}
