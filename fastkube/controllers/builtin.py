"""All controllers, by upstream's names for --controllers, in the order in which they start."""

from __future__ import annotations

from fastkube.controllers import (
    deployment,
    endpoints,
    endpointslice,
    replicaset,
    root_ca,
    serviceaccount,
)
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
    )
}
