"""NetworkPolicies."""

from __future__ import annotations

from fastkube.registry.strategy import Object, Strategy


class NetworkPolicyStrategy(Strategy):
    has_status = False

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        if not spec.get("policyTypes"):
            spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
        for direction in ("ingress", "egress"):
            for rule in spec.get(direction) or ():
                for port in rule.get("ports") or ():
                    if port.get("protocol") is None:
                        port["protocol"] = "TCP"


STRATEGIES: dict[tuple[str, str], Strategy] = {("networking.k8s.io", "networkpolicies"): NetworkPolicyStrategy()}
