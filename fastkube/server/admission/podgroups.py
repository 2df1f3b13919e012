"""New PodGroups: the template that one names exists, and a finalizer keeps the group while Pods belong to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastkube.api import meta
from fastkube.server.admission.plugin import CREATE, Identity, Plugin, forbid

if TYPE_CHECKING:
    from fastkube.registry.strategy import Call, Object
    from fastkube.server.admission.lookup import Lookups

_POD_GROUP: Identity = ("scheduling.k8s.io", "podgroups", "")


class PodGroupProtection(Plugin):
    """podgroup-protection-controller takes the finalizer away again."""

    name = "PodGroupProtection"
    mutates = True

    def handles(self, target: Identity, operation: str) -> bool:
        return target == _POD_GROUP and operation == CREATE

    def mutate(self, call: Call, obj: Object, old: Object | None) -> None:
        meta.add_finalizer(obj, "scheduling.k8s.io/podgroup-protection")


class PodGroupWorkloadExists(Plugin):
    """Does nothing where PodGroups are not served."""

    name = "PodGroupWorkloadExists"
    validates = True

    def __init__(self, lookups: Lookups) -> None:
        served = lookups.catalog.get("scheduling.k8s.io", "workloads") is not None
        self._workloads = lookups.mirror("scheduling.k8s.io", "workloads") if served else None

    def handles(self, target: Identity, operation: str) -> bool:
        return target == _POD_GROUP and operation == CREATE

    def validate(self, call: Call, obj: Object | None, old: Object | None) -> None:
        assert obj is not None
        wanted = (obj["spec"].get("podGroupTemplateRef") or {}).get("workload")
        if self._workloads is None or wanted is None:
            return
        name, template = wanted["workloadName"], wanted["podGroupTemplateName"]
        found = self._workloads.get(call.namespace, name)
        if found is None:
            raise forbid(call, obj, f'PodGroup rejected: Workload "{name}" not found')
        if found["metadata"].get("deletionTimestamp"):
            raise forbid(call, obj, f'PodGroup rejected: Workload "{name}" is being deleted')
        if not any(each.get("name") == template for each in found["spec"].get("podGroupTemplates") or ()):
            raise forbid(call, obj, f'PodGroup rejected: PodGroupTemplate "{template}" not found in Workload "{name}"')
