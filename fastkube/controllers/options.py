"""Options of the controllers: upstream's kube-controller-manager flags, by the same names and with the same meaning.

The numbers of workers are higher than upstream's: a worker here is a task that waits for the server, not a thread, and
writes that are under way at the same time share requests and commits.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastkube.client.leader_options import LeaderElectionOptions
from fastkube.config import option

_WORKERS = 100


@dataclass(frozen=True)
class ControllerManagerOptions(LeaderElectionOptions):
    """What `fastkube controller-manager` (and `up`) runs its controllers with."""

    controllers: tuple[str, ...] = option(
        ("*",), "Controllers to run: * for all that are on by default, name for one, -name to leave one out."
    )

    concurrent_deployment_syncs: int = option(_WORKERS, "Deployments in work at a time.")
    concurrent_replicaset_syncs: int = option(_WORKERS, "ReplicaSets in work at a time.")
    concurrent_rc_syncs: int = option(_WORKERS, "ReplicationControllers in work at a time.")
    concurrent_statefulset_syncs: int = option(_WORKERS, "StatefulSets in work at a time.")
    concurrent_daemonset_syncs: int = option(_WORKERS, "DaemonSets in work at a time.")
    concurrent_job_syncs: int = option(_WORKERS, "Jobs in work at a time.")
    concurrent_cron_job_syncs: int = option(5, "CronJobs in work at a time.")
    concurrent_endpoint_syncs: int = option(_WORKERS, "Services whose Endpoints are in work at a time.")
    concurrent_service_endpoint_syncs: int = option(_WORKERS, "Services whose EndpointSlices are in work at a time.")
    mirroring_concurrent_service_endpoint_syncs: int = option(5, "Endpoints which are mirrored at a time.")
    concurrent_namespace_syncs: int = option(10, "Namespaces in deletion at a time.")
    concurrent_serviceaccount_syncs: int = option(_WORKERS, "Namespaces which get their ServiceAccount at a time.")
    concurrent_serviceaccount_token_syncs: int = option(5, "Secrets which get their token at a time.")
    concurrent_gc_syncs: int = option(_WORKERS, "Objects which the garbage collector deletes at a time.")
    concurrent_resource_quota_syncs: int = option(5, "ResourceQuotas in work at a time.")
    concurrent_ttl_after_finished_syncs: int = option(5, "Finished Jobs in work at a time.")
    concurrent_horizontal_pod_autoscaler_syncs: int = option(5, "HorizontalPodAutoscalers in work at a time.")
    concurrent_ephemeralvolume_syncs: int = option(5, "Pods with ephemeral volumes in work at a time.")
    concurrent_resourceclaim_syncs: int = option(5, "ResourceClaims in work at a time.")
    concurrent_disruption_syncs: int = option(5, "PodDisruptionBudgets in work at a time.")

    max_endpoints_per_slice: int = option(100, "How many endpoints an EndpointSlice holds, 1 to 1000.")
    mirroring_max_endpoints_per_subset: int = option(1000, "How many endpoints of a subset are mirrored, 1 to 1000.")

    node_monitor_period_s: float = option(5.0, "How often the health of all nodes is looked at.")
    node_monitor_grace_period_s: float = option(50.0, "How long a node may be silent before it is unhealthy.")
    node_startup_grace_period_s: float = option(60.0, "How long a new node may be silent before it is unhealthy.")
    node_eviction_rate: float = option(0.1, "Nodes a second which are tainted unreachable or not ready, in a zone.")
    secondary_node_eviction_rate: float = option(0.01, "The same in a large zone most of whose nodes are unhealthy.")
    large_cluster_size_threshold: int = option(50, "More nodes than this make a zone large.")
    unhealthy_zone_threshold: float = option(0.55, "Share of unhealthy nodes at which a zone is unhealthy.")

    terminated_pod_gc_threshold: int = option(12500, "Terminated Pods that are kept; 0 for no limit.")
    enable_garbage_collector: bool = option(True, "Delete objects whose owners are gone.")
    namespace_sync_period_s: float = option(300.0, "How often terminating namespaces are looked at again.")
    resource_quota_sync_period_s: float = option(300.0, "How often quota usage is counted anew.")

    horizontal_pod_autoscaler_sync_period_s: float = option(15.0, "How often the autoscaler looks at its metrics.")
    horizontal_pod_autoscaler_downscale_stabilization_s: float = option(
        300.0, "How long the autoscaler looks back for a higher recommendation before it scales down."
    )
    horizontal_pod_autoscaler_tolerance: float = option(0.1, "Change of the metric ratio that is not acted upon.")
    horizontal_pod_autoscaler_cpu_initialization_period_s: float = option(
        300.0, "Time after its start in which a Pod's CPU may be left out."
    )
    horizontal_pod_autoscaler_initial_readiness_delay_s: float = option(
        30.0, "Time after its start in which a change of readiness counts as the first one."
    )

    pvclaimbinder_sync_period_s: float = option(15.0, "How often volumes and claims are looked at again.")
    attach_detach_reconcile_sync_period_s: float = option(60.0, "How often attached volumes are looked at again.")

    allocate_node_cidrs: bool = option(False, "Give every node a Pod CIDR out of cluster-cidr.")
    cluster_cidr: str = option("", "Range of Pod IPs, out of which nodes get theirs.")
    node_cidr_mask_size: int = option(24, "Mask size of a node's Pod CIDR.")
    node_cidr_mask_size_ipv4: int = option(0, "The same for IPv4, where it differs; 0: it does not.")
    node_cidr_mask_size_ipv6: int = option(64, "Mask size of a node's IPv6 Pod CIDR.")
    service_cluster_ip_range: str = option("10.96.0.0/16", "Addresses of Services.", metavar="CIDR")

    root_ca_file: str = option("", "CA certificate for kube-root-ca.crt; by default that of the client's connection.")
    cluster_signing_cert_file: str = option("", "CA certificate which certificate signing requests are signed with.")
    cluster_signing_key_file: str = option("", "Key of that CA.")
    legacy_service_account_token_clean_up_period_s: float = option(
        8760 * 3600.0, "How long a token that was made for an account by itself may be unused before it goes."
    )
    service_account_private_key_file: str = option("", "RSA key that signs the tokens in Secrets.", metavar="FILE")
    cluster_signing_duration_s: float = option(8760 * 3600.0, "The longest validity of a signed certificate.")
