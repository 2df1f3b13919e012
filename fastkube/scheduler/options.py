"""Options of the scheduler: upstream's kube-scheduler flags, by the same names and with the same meaning."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastkube.client.leader_options import LeaderElectionOptions
from fastkube.config import option

if TYPE_CHECKING:
    from fastkube.client.client import Codec
    from fastkube.scheduler.config import LeaderElectionConfig

LEASE = "kube-scheduler"
CONTENT_TYPES: dict[str, Codec] = {
    "application/json": "json",
    "application/vnd.kubernetes.protobuf": "protobuf",
    "application/msgpack": "msgpack",
}
"""What an API server can be spoken to in."""


@dataclass(frozen=True)
class SchedulerOptions(LeaderElectionOptions):
    """What `fastkube scheduler` (and `up`) runs the scheduler with."""

    config: str = option("", "File with a KubeSchedulerConfiguration (v1).", metavar="FILE", flag="scheduler-config")
    pod_max_in_unschedulable_pods_duration_s: float = option(
        300.0,
        "How long a Pod may stay unschedulable before it is tried again without cause.",
        flag="pod-max-in-unschedulable-pods-duration",
    )
    feature_gates: tuple[str, ...] = option((), "Feature gates of Kubernetes, as Name=true; all are off without.")
    bindings_in_flight: int = option(256, "Bindings that wait for the API server at a time.")
    scheduler_seed: int = option(0, "Seed of the choice among equal nodes; 0 takes a new one at each start.")
    scheduler_metrics_address: str = option(
        "", "HOST:PORT of an HTTP endpoint with /metrics, /healthz, /livez and /readyz; none when empty."
    )


def election_options(options: SchedulerOptions, config: LeaderElectionConfig | None) -> LeaderElectionOptions:
    """The configuration's leader election, where flags do not say otherwise; raises ValueError."""
    told = {each.name: getattr(options, each.name) for each in dataclasses.fields(LeaderElectionOptions)}
    told["leader_elect_resource_name"] = told["leader_elect_resource_name"] or LEASE
    if config is None:
        return LeaderElectionOptions(**told)
    flags = {each.name: told[each.name] for each in dataclasses.fields(LeaderElectionOptions)
             if getattr(options, each.name) != each.default}  # fmt: skip
    configured = {
        "leader_elect": config.leader_elect,
        "leader_elect_lease_duration_s": config.lease_duration_s,
        "leader_elect_renew_deadline_s": config.renew_deadline_s,
        "leader_elect_retry_period_s": config.retry_period_s,
        "leader_elect_resource_name": config.resource_name,
        "leader_elect_resource_namespace": config.resource_namespace,
    }
    return LeaderElectionOptions(**{**configured, **flags})
