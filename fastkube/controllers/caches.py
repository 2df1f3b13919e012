"""What controllers read: the informers of one process, by resource, with the indexes that views need.

Every index is named and defined here, so that controllers share them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastkube.api.meta import controller_of
from fastkube.client import Informer, InformerFactory, object_key
from fastkube.client.feed import Transform
from fastkube.client.informer import Indexer
from fastkube.clock import Clock

Object = dict[str, Any]
Objects = list[Object]


def by_namespace(obj: Object) -> Iterable[str]:
    return (obj["metadata"].get("namespace", ""),)


def by_controller(obj: Object) -> Iterable[str]:
    """The uid of the controller which owns the object."""
    ref = controller_of(obj)
    return (ref["uid"],) if ref else ()


def by_orphanage(obj: Object) -> Iterable[str]:
    """The namespace of an object that no controller owns."""
    return () if controller_of(obj) else (obj["metadata"].get("namespace", ""),)


def by_node(obj: Object) -> Iterable[str]:
    """The node that a Pod is bound to; "" for none."""
    return (obj["spec"].get("nodeName", ""),)


def by_claim(obj: Object) -> Iterable[str]:
    """`namespace/name` of the PersistentVolumeClaims that a Pod uses."""
    namespace, pod = obj["metadata"]["namespace"], obj["metadata"]["name"]
    found = []
    for volume in obj["spec"].get("volumes") or ():
        if claim := volume.get("persistentVolumeClaim"):
            found.append(f"{namespace}/{claim['claimName']}")
        elif "ephemeral" in volume:
            found.append(f"{namespace}/{pod}-{volume['name']}")
    return found


def by_selector_term(obj: Object) -> Iterable[str]:
    """`namespace/key=value` of one term of a Service's selector: a Pod it selects has that label."""
    selector = obj["spec"].get("selector")
    if not selector:
        return ()
    key = min(selector)
    return (f"{obj['metadata']['namespace']}/{key}={selector[key]}",)


def by_selecting(obj: Object) -> Iterable[str]:
    """The namespace of a Service that has a selector."""
    return (obj["metadata"]["namespace"],) if obj["spec"].get("selector") else ()


def by_service(obj: Object) -> Iterable[str]:
    """`namespace/name` of the Service that an EndpointSlice belongs to."""
    name = (obj["metadata"].get("labels") or {}).get("kubernetes.io/service-name")
    return (f"{obj['metadata']['namespace']}/{name}",) if name else ()


def by_pod_cidr(obj: Object) -> Iterable[str]:
    """The ranges of Pod addresses that a Node has; "" for none."""
    spec = obj["spec"]
    return spec.get("podCIDRs") or (spec.get("podCIDR", ""),)


def by_service_account(obj: Object) -> Iterable[str]:
    """`namespace/name` of the ServiceAccount which a Secret holds a token of."""
    if obj.get("type") != "kubernetes.io/service-account-token":
        return ()
    metadata = obj["metadata"]
    name = (metadata.get("annotations") or {}).get("kubernetes.io/service-account.name")
    return (f"{metadata['namespace']}/{name}",) if name else ()


def by_attached_node(obj: Object) -> Iterable[str]:
    """The node of a VolumeAttachment."""
    return (obj["spec"]["nodeName"],)


def by_attached_volume(obj: Object) -> Iterable[str]:
    """The PersistentVolume of a VolumeAttachment."""
    name = obj["spec"]["source"].get("persistentVolumeName")
    return (name,) if name else ()


def by_pool(obj: Object) -> Iterable[str]:
    """`driver/pool` of a ResourceSlice."""
    spec = obj["spec"]
    return (f"{spec['driver']}/{spec['pool']['name']}",)


TRACKING_FINALIZER = "batch.kubernetes.io/job-tracking"


def by_tracked_job(obj: Object) -> Iterable[str]:
    """`namespace/name` of the Job which a Pod has still to be counted by."""
    if TRACKING_FINALIZER not in (obj["metadata"].get("finalizers") or ()):
        return ()
    ref = controller_of(obj)
    return (f"{obj['metadata']['namespace']}/{ref['name']}",) if ref and ref["kind"] == "Job" else ()


def by_owner(obj: Object) -> Iterable[str]:
    """The uids of all owners, of which one at most is a controller."""
    return [ref["uid"] for ref in obj["metadata"].get("ownerReferences") or ()]


INDEXERS: dict[str, Indexer] = {
    "namespace": by_namespace,
    "controller": by_controller,
    "orphan": by_orphanage,
    "owner": by_owner,
    "node": by_node,
    "claim": by_claim,
    "selecting": by_selecting,
    "selector-term": by_selector_term,
    "service": by_service,
    "tracked-job": by_tracked_job,
    "attached-node": by_attached_node,
    "attached-volume": by_attached_volume,
    "pod-cidr": by_pod_cidr,
    "pool": by_pool,
    "service-account": by_service_account,
}


class Caches:
    """The local copies. Objects are shared: nobody changes them."""

    def __init__(self, factory: InformerFactory) -> None:
        self._factory = factory
        self._informers: dict[str, Informer] = {}
        self._on_delete: list[Callable[[Object], None]] = []
        self._life: dict[tuple[str, Callable[[Object], object]], dict[str, float]] = {}

    def need(self, resource: str, indexes: Iterable[str] = (), transform: Transform | None = None) -> Informer:
        """The informer of a resource, with these indexes; `transform` if nobody has asked for it before."""
        informer = self._informers.get(resource)
        if informer is None:
            informer = self._informers[resource] = self._factory.informer(resource, transform=transform)
            for told in self._on_delete:
                informer.add_handler(None, None, told)
        for name in indexes:
            informer.add_indexer(name, INDEXERS[name])
        return informer

    def on_delete(self, told: Callable[[Object], None]) -> None:
        """Tell the deletion of every object of whichever resource is watched, now or later."""
        self._on_delete.append(told)
        for informer in self._informers.values():
            informer.add_handler(None, None, told)

    def note_life(self, resource: str, sign: Callable[[Object], object], clock: Clock) -> None:
        """Note when `sign` of an object was last seen to change, on the own clock: see `life`."""
        if (resource, sign) in self._life:
            return
        seen: dict[str, float] = {}
        self._life[resource, sign] = seen

        def note(obj: Object) -> None:
            seen[object_key(obj)] = clock.time()

        def compare(old: Object, new: Object) -> None:
            if sign(old) != sign(new):
                note(new)

        def drop(obj: Object) -> None:
            seen.pop(object_key(obj), None)

        self.need(resource).add_handler(note, compare, drop)

    def life(self, resource: str, sign: Callable[[Object], object]) -> Mapping[str, float]:
        """When `sign` of each object last changed, by key, as far as it was seen."""
        return self._life[resource, sign]

    async def forget(self, resource: str) -> None:
        """The resource is no longer served."""
        if self._informers.pop(resource, None) is not None:
            await self._factory.forget(resource)

    def has(self, resource: str) -> bool:
        return resource in self._informers

    def get(self, resource: str, namespace: str, name: str) -> Object | None:
        return self._informers[resource].get(namespace, name)

    def by_key(self, resource: str, key: str) -> Object | None:
        return self._informers[resource].by_key(key)

    def list(self, resource: str) -> Objects:
        return self._informers[resource].list()

    def count(self, resource: str) -> int:
        return len(self._informers[resource])

    def index(self, resource: str, name: str, key: str) -> Objects:
        return self._informers[resource].by_index(name, key)

    def is_indexed(self, resource: str, name: str, key: str) -> bool:
        """Whether there is any object of the resource which the index `name` has under `key`."""
        return self._informers[resource].is_indexed(name, key)

    def observe(self, resource: str, obj: Object) -> None:
        """Own writes are read at once; see Informer.observe."""
        informer = self._informers.get(resource)
        if informer is not None:
            informer.observe(obj)

    def observe_deleted(self, resource: str, obj: Object) -> None:
        informer = self._informers.get(resource)
        if informer is not None:
            informer.observe_deleted(obj)
