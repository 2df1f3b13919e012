"""All controllers, by upstream's names for --controllers, in the order in which they start."""

from __future__ import annotations

from fastkube.controllers import (
    attach_detach,
    bootstrap_tokens,
    certificates,
    clusterrole_aggregation,
    cronjob,
    daemonset,
    deployment,
    disruption,
    endpoints,
    endpointslice,
    endpointslicemirroring,
    ephemeral_volume,
    job,
    namespace,
    node_ipam,
    node_lifecycle,
    node_ttl,
    pod_gc,
    protection,
    replicaset,
    replicationcontroller,
    resourcequota,
    root_ca,
    service_cidr,
    serviceaccount,
    serviceaccount_tokens,
    simulated_storage,
    statefulset,
    taint_eviction,
    ttl_after_finished,
    volume_binder,
    volume_expander,
)
from fastkube.controllers.garbage_collector import GarbageCollector
from fastkube.controllers.runner import Controller, Engine

CONTROLLERS: dict[str, Controller | type[Engine]] = {
    part.name: part
    for part in (
        serviceaccount.CONTROLLER,
        root_ca.CONTROLLER,
        deployment.CONTROLLER,
        replicaset.CONTROLLER,
        endpoints.CONTROLLER,
        endpointslice.CONTROLLER,
        statefulset.CONTROLLER,
        daemonset.CONTROLLER,
        replicationcontroller.CONTROLLER,
        job.CONTROLLER,
        cronjob.CONTROLLER,
        ttl_after_finished.CONTROLLER,
        namespace.CONTROLLER,
        node_lifecycle.CONTROLLER,
        taint_eviction.CONTROLLER,
        pod_gc.CONTROLLER,
        disruption.CONTROLLER,
        resourcequota.CONTROLLER,
        clusterrole_aggregation.CONTROLLER,
        endpointslicemirroring.CONTROLLER,
        node_ttl.CONTROLLER,
        node_ipam.CONTROLLER,
        ephemeral_volume.CONTROLLER,
        serviceaccount_tokens.CONTROLLER,
        *bootstrap_tokens.CONTROLLERS,
        *certificates.CONTROLLERS,
        service_cidr.CONTROLLER,
        volume_binder.CONTROLLER,
        volume_expander.CONTROLLER,
        attach_detach.CONTROLLER,
        *protection.CONTROLLERS,
        simulated_storage.CONTROLLER,
        GarbageCollector,  # the last: of what nobody else reads it keeps metadata only
    )
}
