"""Pods by the PodGroup that they belong to (spec.schedulingGroup): how many there are, and which have a node."""

from __future__ import annotations

from fastkube.scheduler.pods import GroupId, PodInfo

PODGROUPS = "scheduling.k8s.io/v1alpha2/podgroups"


class PodGroup:
    """The Pods of a group by uid: `known` are all that have not ended, `placed` those with a node, assumed ones too."""

    __slots__ = ("known", "placed")

    def __init__(self) -> None:
        self.known: dict[str, PodInfo] = {}
        self.placed: dict[str, PodInfo] = {}

    def unplaced(self) -> list[PodInfo]:
        return [pod for uid, pod in self.known.items() if uid not in self.placed]


class PodGroups:
    """All groups that have any Pods."""

    def __init__(self) -> None:
        self._groups: dict[GroupId, PodGroup] = {}

    def get(self, group: GroupId) -> PodGroup:
        return self._groups.get(group) or PodGroup()

    def seen(self, pod: PodInfo) -> None:
        """A Pod exists, with or without a node."""
        if pod.group is not None:
            self._groups.setdefault(pod.group, PodGroup()).known[pod.uid] = pod

    def gone(self, pod: PodInfo) -> None:
        """A Pod has ended, or was deleted."""
        if pod.group is not None and pod.group in self._groups:
            self._groups[pod.group].known.pop(pod.uid, None)
            self._drop_if_empty(pod.group)

    def placed(self, pod: PodInfo) -> None:
        if pod.group is not None:
            self._groups.setdefault(pod.group, PodGroup()).placed[pod.uid] = pod

    def displaced(self, pod: PodInfo) -> None:
        if pod.group is not None and pod.group in self._groups:
            self._groups[pod.group].placed.pop(pod.uid, None)
            self._drop_if_empty(pod.group)

    def _drop_if_empty(self, group: GroupId) -> None:
        if not self._groups[group].known and not self._groups[group].placed:
            del self._groups[group]
