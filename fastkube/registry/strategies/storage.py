"""The kinds of storage.k8s.io."""

from __future__ import annotations

from typing import Any

from fastkube.registry.strategy import Object, Strategy


class StorageClassStrategy(Strategy):
    has_generation = False
    has_status = False

    def default(self, obj: Object) -> None:
        if not obj.get("reclaimPolicy"):
            obj["reclaimPolicy"] = "Delete"
        if not obj.get("volumeBindingMode"):
            obj["volumeBindingMode"] = "Immediate"


_CSI_DRIVER_DEFAULTS: tuple[tuple[str, Any], ...] = (
    ("attachRequired", True),
    ("podInfoOnMount", False),
    ("storageCapacity", False),
    ("fsGroupPolicy", "ReadWriteOnceWithFSType"),
    ("requiresRepublish", False),
)


class CSIDriverStrategy(Strategy):
    has_generation = False
    has_status = False

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        for key, value in _CSI_DRIVER_DEFAULTS:
            if spec.get(key) is None:
                spec[key] = value
        if not spec.get("volumeLifecycleModes"):
            spec["volumeLifecycleModes"] = ["Persistent"]


STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("storage.k8s.io", "storageclasses"): StorageClassStrategy(),
    ("storage.k8s.io", "csidrivers"): CSIDriverStrategy(),
}
