"""What each built-in kind does differently, by (group, resource). A kind without an entry is wholly generic."""

from __future__ import annotations

from fastkube.registry.custom import definitions
from fastkube.registry.strategies import (
    autoscalers,
    budgets,
    config_data,
    daemonsets,
    deployments,
    endpoints,
    ingresses,
    jobs,
    limits,
    namespaces,
    network_policies,
    nodes,
    pods,
    policies,
    replicasets,
    scheduling,
    services,
    statefulsets,
    storage,
    volume_claims,
    volumes,
    webhooks,
)
from fastkube.registry.strategy import Strategy

STRATEGIES: dict[tuple[str, str], Strategy] = {
    **definitions.STRATEGIES,
    **pods.STRATEGIES,
    **deployments.STRATEGIES,
    **replicasets.STRATEGIES,
    **statefulsets.STRATEGIES,
    **daemonsets.STRATEGIES,
    **jobs.STRATEGIES,
    **namespaces.STRATEGIES,
    **nodes.STRATEGIES,
    **services.STRATEGIES,
    **config_data.STRATEGIES,
    **endpoints.STRATEGIES,
    **limits.STRATEGIES,
    **volumes.STRATEGIES,
    **volume_claims.STRATEGIES,
    **storage.STRATEGIES,
    **scheduling.STRATEGIES,
    **ingresses.STRATEGIES,
    **network_policies.STRATEGIES,
    **autoscalers.STRATEGIES,
    **budgets.STRATEGIES,
    **webhooks.STRATEGIES,
    **policies.STRATEGIES,
}
