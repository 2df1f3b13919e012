"""Extended resources that device classes stand for: a Pod asks for `example.com/gpu: 2`, and gets two devices.

A DeviceClass stands for the resource that its extendedResourceName names, and always for
deviceclass.resource.kubernetes.io/NAME. Where a node does not offer the resource itself (by a device plugin), the
scheduler writes a ResourceClaim for the Pod. Its requests are by container and resource; what containers that end
before others start have taken serves those others as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from fastkube.api import quantity
from fastkube.scheduler.dra.catalog import CLASSES, EXTENDED_ANNOTATION
from fastkube.scheduler.pods import PodInfo

Object = dict[str, Any]

IMPLICIT_PREFIX = "deviceclass.resource.kubernetes.io/"
UNNAMED = "<extended-resources>"
"""The name of a claim that is not written yet."""


class ExtendedClasses:
    """Resource → its DeviceClass; `changed` is called when that is another one than before."""

    def __init__(self, lister: Callable[[str], Any], changed: Callable[[], None]) -> None:
        self._lister = lister(CLASSES)
        self._classes: dict[str, Object] = {}
        self._changed = changed
        self._lister.add_handler(self._take, lambda _, new: self._take(new), self._forget)
        self._known: dict[str, Object] = {}

    def get(self, resource: str) -> Object | None:
        return self._classes.get(resource)

    def any_of(self, resources: Iterable[str]) -> bool:
        return bool(self._classes) and any(each in self._classes for each in resources)

    def _take(self, obj: Object) -> None:
        self._known[obj["metadata"]["name"]] = obj
        self._refresh()

    def _forget(self, obj: Object) -> None:
        self._known.pop(obj["metadata"]["name"], None)
        self._refresh()

    def _refresh(self) -> None:
        """Of classes for the same resource the newest counts, and the first by name of those."""
        before, self._classes = self._classes, {}
        by_name = sorted(self._known.values(), key=lambda obj: obj["metadata"]["name"], reverse=True)
        for obj in sorted(by_name, key=lambda obj: obj["metadata"].get("creationTimestamp") or ""):
            self._classes[IMPLICIT_PREFIX + obj["metadata"]["name"]] = obj
            if obj["spec"].get("extendedResourceName"):
                self._classes[obj["spec"]["extendedResourceName"]] = obj
        if _names(before) != _names(self._classes):
            self._changed()


def _names(classes: Mapping[str, Object]) -> dict[str, str]:
    return {resource: obj["metadata"]["name"] for resource, obj in classes.items()}


class Variant(NamedTuple):
    """The claim of a Pod for some of its extended resources, and which request serves which container's resource."""

    obj: Object
    mappings: list[Object]


def claim_for(pod: PodInfo, resources: Iterable[str], classes: ExtendedClasses) -> Variant:
    """The claim as it would be written, under a name and uid that no real one has."""
    requests: list[Object] = []
    mappings: list[Object] = []
    for resource in sorted(resources):
        found = classes.get(resource)
        if found is not None:
            asked = _Requests(pod, resource, found["metadata"]["name"])
            requests += asked.requests
            mappings += asked.mappings
    metadata = {
        "namespace": pod.namespace,
        "name": UNNAMED,
        "generateName": f"{pod.name}-extended-resources-",
        "uid": f"{UNNAMED} {pod.uid}",
        "annotations": {EXTENDED_ANNOTATION: "true"},
        "ownerReferences": [
            {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid, "controller": True}
        ],
    }  # fmt: skip
    requests.sort(key=lambda each: str(each["name"]))
    obj = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": metadata,
        "spec": {"devices": {"requests": requests}},
    }
    return Variant(obj, mappings)


class _Requests:
    """The requests of a Pod's containers for one resource."""

    def __init__(self, pod: PodInfo, resource: str, class_name: str) -> None:
        spec = pod.pod["spec"]
        first: list[Object] = spec.get("initContainers") or []
        self._containers = [*first, *spec["containers"]]
        self._resource = resource
        self._class_name = class_name
        self.mappings: list[Object] = []
        short = [place for place, each in enumerate(first) if each.get("restartPolicy") != "Always"]
        lasting: list[Object | None] = [
            None if place in short else self._ask(place, []) for place in range(len(self._containers))
        ]
        most = self._ask_short(short, lasting)
        self.requests = [each for each in (most, *lasting) if each is not None]

    def _ask_short(self, short: list[int], lasting: list[Object | None]) -> Object | None:
        """Containers that end before the next one starts share the greatest of their requests."""
        begin, asked = len(self.mappings), []
        for place in short:
            request = self._ask(place, lasting[place:])
            if request is not None:
                asked.append(request)
        if not asked:
            return None
        most = max(asked, key=lambda each: int(each["exactly"]["count"]))
        names = {each["name"] for each in asked}
        for mapping in self.mappings[begin:]:
            if mapping["requestName"] in names:
                mapping["requestName"] = most["name"]
        return most

    def _ask(self, place: int, reusable: Iterable[Object | None]) -> Object | None:
        """The request of one container beyond what it can use of others'; None when it needs none."""
        container = self._containers[place]
        requests = (container.get("resources") or {}).get("requests") or {}
        wanted = quantity.value(str(requests.get(self._resource, "0")))
        if not wanted:
            return None
        for other in reusable:
            if other is not None:
                wanted -= int(other["exactly"]["count"])
                self._map(container, other["name"])
                if wanted <= 0:
                    return None
        name = f"container-{place}-request-{sorted(requests).index(self._resource)}"
        self._map(container, name)
        exactly = {"deviceClassName": self._class_name, "allocationMode": "ExactCount", "count": wanted}
        return {"name": name, "exactly": exactly}

    def _map(self, container: Object, request: str) -> None:
        self.mappings.append(
            {"containerName": container["name"], "resourceName": self._resource, "requestName": request}
        )
