"""Options of the scheduler: upstream's kube-scheduler flags, by the same names and with the same meaning."""

from __future__ import annotations

from dataclasses import dataclass

from fastkube.config import option


@dataclass(frozen=True)
class SchedulerOptions:
    """What `fastkube scheduler` (and `up`) runs the scheduler with."""

    config: str = option("", "File with a KubeSchedulerConfiguration (v1).", metavar="FILE", flag="scheduler-config")
    pod_max_in_unschedulable_pods_duration_s: float = option(
        300.0,
        "How long a Pod may stay unschedulable before it is tried again without cause.",
        flag="pod-max-in-unschedulable-pods-duration",
    )
    bindings_in_flight: int = option(64, "Bindings that wait for the API server at a time.")
    scheduler_seed: int = option(0, "Seed of the choice among equal nodes; 0 takes a new one at each start.")
