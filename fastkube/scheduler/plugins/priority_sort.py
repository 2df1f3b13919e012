"""PrioritySort: Pods of higher priority first, and among equals the one that has waited longest."""

from __future__ import annotations

from fastkube.scheduler.framework import Plugin
from fastkube.scheduler.pods import PodInfo


class PrioritySort(Plugin):
    name = "PrioritySort"

    def sort_key(self, pod: PodInfo, timestamp: float) -> tuple[int, float]:
        """Pods with the lesser key come first."""
        return -pod.spec.priority, timestamp
