"""What plugins ask about other objects, answered from memory.

`Mirror` holds all objects of a small kind (namespaces, quotas, classes), decoded once for each change. `Memo` is for
kinds of which there may be very many (service accounts, nodes, Pods): one read of the store, and a decoding only when
the object has changed since it was last asked for. `Excerpts` are the little that is asked for again and again of very
many.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import msgpack

from fastkube._codec import extract
from fastkube.store import DELETE

if TYPE_CHECKING:
    from fastkube.api.catalog import Catalog, ResourceType
    from fastkube.registry.strategy import Object
    from fastkube.store import Event, Store

_TOPOLOGY_LABELS = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")

_MEMO_MAX = 4096


class Kept(NamedTuple):
    """A decoded object, its key and the revision it was written at. It must not be changed."""

    key: bytes
    revision: int
    obj: Object


class Mirror:
    """All objects of one kind, by namespace and name, as of the last commit."""

    def __init__(self, store: Store, rtype: ResourceType, on_change: Callable[[], None] | None = None) -> None:
        """`on_change` is called after each commit that changed any of the objects."""
        self._on_change = on_change
        self._prefix = rtype.key_prefix
        self._namespaced = rtype.namespaced
        self._by_namespace: dict[str, dict[str, Kept]] = {}
        end = self._prefix[:-1] + b"0"  # "0" follows "/"
        self._subscription = store.subscribe(self._prefix, end, self._on_events)
        for item in store.range(self._prefix, end).items:
            self._keep(item.key, item.value, item.mod_revision)

    def close(self) -> None:
        self._subscription.cancel()

    def of(self, namespace: str) -> dict[str, Kept]:
        """The objects of a namespace by name; of a cluster-wide kind all are in ""."""
        return self._by_namespace.get(namespace, _NONE)

    def sorted(self) -> list[Kept]:
        """All objects of a cluster-wide kind, by name."""
        found = self.of("")
        return [found[name] for name in sorted(found)]

    def get(self, namespace: str, name: str) -> Object | None:
        kept = self.of(namespace).get(name)
        return kept.obj if kept is not None else None

    def _on_events(self, events: list[Event], revision: int) -> None:
        for event in events:
            if event.type == DELETE:
                namespace, name = self._identity(event.key)
                self._by_namespace.get(namespace, {}).pop(name, None)
            else:
                self._keep(event.key, event.value, event.revision)
        if self._on_change is not None:
            self._on_change()

    def _keep(self, key: bytes, value: bytes, revision: int) -> None:
        namespace, name = self._identity(key)
        kept = Kept(key, revision, msgpack.unpackb(value))
        self._by_namespace.setdefault(namespace, {})[name] = kept

    def _identity(self, key: bytes) -> tuple[str, str]:
        text = key[len(self._prefix) :].decode()
        if not self._namespaced:
            return "", text
        namespace, _, name = text.partition("/")
        return namespace, name


_NONE: dict[str, Kept] = {}


class Memo:
    """The last objects asked for of one kind."""

    def __init__(self, store: Store, rtype: ResourceType, on_change: Callable[[], None] | None = None) -> None:
        """`on_change` is called after each commit that changed any object of the kind."""
        self._on_change = on_change
        self._store = store
        self._rtype = rtype
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self._hot: dict[tuple[str, str], Object] = {}
        """Objects that were asked for since the last change of any of the kind."""
        prefix = rtype.key_prefix
        self._subscription = store.subscribe(prefix, prefix[:-1] + b"0", self._on_events)

    def close(self) -> None:
        self._subscription.cancel()

    def _on_events(self, events: list[Event], revision: int) -> None:
        self._hot.clear()
        if self._on_change is not None:
            self._on_change()

    def get(self, namespace: str, name: str) -> Object | None:
        """The object as it is now; it must not be changed."""
        hot = self._hot.get((namespace, name))
        if hot is not None:
            return hot
        key = self._rtype.key(namespace, name)
        item = self._store.get(key)
        if item is None:
            self._kept.pop(key, None)
            return None
        kept = self._kept.get(key)
        if kept is None or kept.revision != item.mod_revision:
            kept = self._kept[key] = Kept(key, item.mod_revision, msgpack.unpackb(item.value))
            if len(self._kept) > _MEMO_MAX:
                self._kept.popitem(last=False)
        if len(self._hot) < _MEMO_MAX:
            self._hot[namespace, name] = kept.obj
        return kept.obj


class Excerpts:
    """What is asked of objects of a cluster-wide kind, found out once for each until it changes; it must be little."""

    def __init__(self, store: Store, rtype: ResourceType, excerpt: Callable[[bytes], tuple[str, ...]]) -> None:
        """`excerpt`: of a stored object."""
        self._store = store
        self._rtype = rtype
        self._excerpt = excerpt
        self._kept: dict[str, tuple[str, ...]] = {}
        prefix = self._prefix = rtype.key_prefix
        self._subscription = store.subscribe(prefix, prefix[:-1] + b"0", self._on_events)

    def close(self) -> None:
        self._subscription.cancel()

    def _on_events(self, events: list[Event], revision: int) -> None:
        for event in events:
            self._kept.pop(event.key[len(self._prefix) :].decode(), None)

    def get(self, name: str) -> tuple[str, ...]:
        """() of an object that is not there."""
        kept = self._kept.get(name)
        if kept is None:
            item = self._store.get(self._rtype.key("", name))
            if item is None:
                return ()
            kept = self._kept[name] = self._excerpt(item.value)
        return kept


def _topology_labels(node: bytes) -> tuple[str, ...]:
    labels = extract(node, (b"metadata", b"labels")) or {}
    return tuple(told for key in _TOPOLOGY_LABELS if key in labels for told in (key, labels[key]))


class Lookups:
    """One of each, shared by all plugins."""

    def __init__(self, store: Store, catalog: Catalog) -> None:
        mirror = self.mirror
        self._mirrors: list[Mirror] = []
        self.store = store
        self.catalog = catalog
        self.changes = 0
        """How often the objects have changed by which new Pods are completed and judged."""
        self.namespaces = mirror("", "namespaces", self._changed)
        self.limit_ranges = mirror("", "limitranges", self._changed)
        self.quotas = mirror("", "resourcequotas")
        self.priority_classes = mirror("scheduling.k8s.io", "priorityclasses", self._changed)
        self.runtime_classes = mirror("node.k8s.io", "runtimeclasses", self._changed)
        self.storage_classes = mirror("storage.k8s.io", "storageclasses")
        self.ingress_classes = mirror("networking.k8s.io", "ingressclasses")
        self.service_accounts = Memo(store, self.builtin("", "serviceaccounts"), self._changed)
        self.nodes = Memo(store, self.builtin("", "nodes"))
        self.pods = Memo(store, self.builtin("", "pods"))
        self.topology = Excerpts(store, self.builtin("", "nodes"), _topology_labels)
        """Of nodes the labels that tell zone and region: key, value, key, value."""
        self._memos = (self.service_accounts, self.nodes, self.pods, self.topology)

    def _changed(self) -> None:
        self.changes += 1

    def builtin(self, group: str, resource: str) -> ResourceType:
        rtype = self.catalog.get(group, resource)
        assert rtype is not None, f"{resource}.{group} is a built-in kind"
        return rtype

    def mirror(self, group: str, resource: str, on_change: Callable[[], None] | None = None) -> Mirror:
        """A mirror of a built-in kind, closed with the others."""
        made = Mirror(self.store, self.builtin(group, resource), on_change)
        self._mirrors.append(made)
        return made

    def close(self) -> None:
        for mirror in self._mirrors:
            mirror.close()
        for memo in self._memos:
            memo.close()
