"""What each built-in kind does differently, by (group, resource). A kind without an entry is wholly generic."""

from __future__ import annotations

from fastkube.registry.strategies import daemonsets, deployments, jobs, nodes, pods, replicasets, statefulsets
from fastkube.registry.strategy import Strategy

STRATEGIES: dict[tuple[str, str], Strategy] = {
    **pods.STRATEGIES,
    **deployments.STRATEGIES,
    **replicasets.STRATEGIES,
    **statefulsets.STRATEGIES,
    **daemonsets.STRATEGIES,
    **jobs.STRATEGIES,
    **nodes.STRATEGIES,
}
