"""ReplicationControllers: ReplicaSets of the core group, with a plain map as selector."""

from __future__ import annotations

from fastkube.controllers.common import PODS, controlled_by_or_matching
from fastkube.controllers.pod_topics import REPLICA_TOPICS
from fastkube.controllers.replicaset import View, reconcile, view_of
from fastkube.controllers.runner import Context, Controller, Watch

REPLICATION_CONTROLLERS = "v1/replicationcontrollers"


def view(context: Context, key: str) -> View | None:
    return view_of(REPLICATION_CONTROLLERS, context, key)


CONTROLLER = Controller(
    name="replicationcontroller-controller",
    component="replication-controller",
    watches=(
        Watch(REPLICATION_CONTROLLERS, indexes=("namespace", "controller")),
        Watch(
            PODS,
            controlled_by_or_matching("ReplicationController", REPLICATION_CONTROLLERS),
            ("controller", "orphan"),
            about=REPLICA_TOPICS["ReplicationController"],
        ),
    ),
    view=view,
    reconcile=reconcile,
    workers="concurrent_rc_syncs",
)
