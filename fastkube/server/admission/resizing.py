"""PodResizeValidator: a Pod on a node may not ask for more than that node could ever give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastkube.api.resources import CPU, MEMORY, parse_list, requests_of
from fastkube.server.admission.plugin import UPDATE, Identity, Plugin, forbid

if TYPE_CHECKING:
    from fastkube.errors import ApiError
    from fastkube.registry.strategy import Call, Object
    from fastkube.server.admission.lookup import Lookups

_RESIZE: Identity = ("", "pods", "resize")
_OS = "kubernetes.io/os"


class PodResizeValidator(Plugin):
    """What a resize asks for is measured by the spec alone: what the kubelet has granted so far does not count."""

    name = "PodResizeValidator"
    validates = True

    def __init__(self, lookups: Lookups) -> None:
        self._nodes = lookups.nodes

    def handles(self, target: Identity, operation: str) -> bool:
        return target == _RESIZE and operation == UPDATE

    def validate(self, call: Call, obj: Object, old: Object | None) -> None:
        spec = obj["spec"]
        place = spec.get("nodeName")
        if not place or old is None or spec == old["spec"]:
            return
        node = self._nodes.get("", place)
        if node is None:
            raise forbid(call, obj, f'node "{place}" not found')
        system = (node["metadata"].get("labels") or {}).get(_OS, "linux")
        if system != "linux":
            why = f'pod resize is only supported on linux nodes, node "{place}" is "{system}"'
            raise _refused(call, obj, why, "UnsupportedPlatform")
        asked = requests_of(spec, {})
        there = parse_list((node.get("status") or {}).get("allocatable"))
        short = [
            f"{resource}, requested: {asked.get(resource, 0)}, allocatable: {there.get(resource, 0)}"
            for resource in (CPU, MEMORY)
            if asked.get(resource, 0) > there.get(resource, 0)
        ]
        if short:
            why = f"node didn't have enough allocatable resources: {'; '.join(short)}"
            raise _refused(call, obj, why, "NodeCapacity")


def _refused(call: Call, obj: Object, why: str, reason: str) -> ApiError:
    """Told by a cause, too, that has no more than this reason."""
    refusal = forbid(call, obj, why)
    refusal.details = {**(refusal.details or {}), "causes": [{"reason": reason}]}
    return refusal
