"""The options of leader election, by the names of upstream's flags."""

from __future__ import annotations

from dataclasses import dataclass

from fastkube.config import option

JITTER = 1.2
"""Candidates wait up to this much longer than the retry period, so that they do not all ask at once."""


@dataclass(frozen=True)
class LeaderElectionOptions:
    """The `--leader-elect*` options of upstream's components, with their defaults."""

    leader_elect: bool = option(True, "Work only while holding a Lease, so that several instances may be started.")
    leader_elect_lease_duration_s: float = option(
        15.0, "How long candidates wait after the last renewal they saw before they take leadership over."
    )
    leader_elect_renew_deadline_s: float = option(
        10.0, "How long the leader tries to renew before it stops leading; less than the lease duration."
    )
    leader_elect_retry_period_s: float = option(2.0, "Pause between tries to take or renew leadership.")
    leader_elect_resource_name: str = option("", "Name of the Lease; by default that of the component.")
    leader_elect_resource_namespace: str = option("kube-system", "Namespace of the Lease.")

    def __post_init__(self) -> None:
        if self.leader_elect_lease_duration_s <= self.leader_elect_renew_deadline_s:
            raise ValueError("leader-elect-lease-duration must be greater than leader-elect-renew-deadline")
        if self.leader_elect_renew_deadline_s <= JITTER * self.leader_elect_retry_period_s:
            raise ValueError("leader-elect-renew-deadline must be greater than 1.2 times leader-elect-retry-period")
