"""Objects as kube-apiserver keeps them in etcd, so that either may go on with what the other has written.

    key     PREFIX/deployments/NAMESPACE/NAME: no group, but for custom kinds and two more; some older names remain
    value   JSON, or "k8s\\0" and protobuf; in a storage version that may differ from ours, which is then converted

Both forms are read, as by kube-apiserver; `media` says which is written. Without it that is JSON: it is what is stored
here, word for word, while the way through protobuf costs the schema walk of a request each time something changes.

What only fastkube keeps (a key for each node port) lies beside kube-apiserver's own record of the same, and is left
alone by it; each derives its own from the Services again when it starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack
import orjson

from fastkube import _json
from fastkube.api import conversion, protobuf, schema
from fastkube.api.catalog import Catalog, api_version
from fastkube.api.codec import JSON, PROTOBUF
from fastkube.store.external.translation import Untranslatable

if TYPE_CHECKING:
    from fastkube.api.catalog import ResourceType

_ROOT = b"/registry/"
_NODE_PORTS = b"ranges/servicenodeports/"
_OLDER_NAMES = {
    ("", "endpoints"): "services/endpoints",
    ("", "nodes"): "minions",
    ("", "replicationcontrollers"): "controllers",
    ("", "services"): "services/specs",
    ("networking.k8s.io", "ingresses"): "ingress",
}
_WITH_GROUP = frozenset(("apiextensions.k8s.io", "apiregistration.k8s.io"))


class UpstreamForm:
    """The `Translation` of stores on etcd. `prefix` has a slash on either side."""

    def __init__(self, catalog: Catalog, prefix: bytes, media: str = JSON) -> None:
        self.prefix = prefix
        self._media = media
        self._there: dict[bytes, bytes] = {}
        self._back: dict[bytes, tuple[bytes, ResourceType]] = {}
        self._writer = _json.Writer()
        for rtype in catalog.all():
            if rtype.custom or rtype.group != rtype.storage_group:
                continue
            ours, theirs = rtype.key_prefix.removeprefix(_ROOT), _name(rtype).encode() + b"/"
            self._there[ours] = theirs
            self._back[theirs] = (ours, rtype)

    # ---------------------------------------------------------------- keys

    def key(self, key: bytes) -> bytes:
        rest = key[len(_ROOT) :]
        first = rest.find(b"/") + 1
        found = self._there.get(rest[:first])
        if found is None:
            first = rest.find(b"/", first) + 1
            found = self._there.get(rest[:first])
        return self.prefix + rest if found is None else self.prefix + found + rest[first:]

    def key_back(self, key: bytes) -> bytes | None:
        if not key.startswith(self.prefix):
            return None
        rest = key[len(self.prefix) :]
        found = self._found(rest)
        if found is not None:
            theirs, ours = found
            return _ROOT + ours + rest[len(theirs) :]
        is_custom = b"." in rest[: rest.find(b"/") + 1]
        return _ROOT + rest if is_custom or rest.startswith(_NODE_PORTS) else None

    def _found(self, rest: bytes) -> tuple[bytes, bytes] | None:
        """How a key of a built-in kind begins, there and here."""
        first = rest.find(b"/") + 1
        for end in (first, rest.find(b"/", first) + 1):
            found = self._back.get(rest[:end])
            if found is not None:
                return rest[:end], found[0]
        return None

    # ---------------------------------------------------------------- values

    def value(self, key: bytes, value: bytes) -> bytes:
        if key.startswith(_ROOT + _NODE_PORTS):
            return value
        if self._media == PROTOBUF:
            obj = msgpack.unpackb(value)
            if protobuf.has_form(obj["apiVersion"], obj["kind"]):
                return protobuf.encode(obj)
        self._writer.value(value)
        return self._writer.take() + b"\n"

    def value_back(self, key: bytes, value: bytes) -> bytes:
        if key.startswith(_ROOT + _NODE_PORTS):
            return value
        try:
            obj = _read(value)
            rtype = self._type(key)
            if rtype is not None and obj["apiVersion"] != rtype.storage_api_version:
                obj = conversion.convert(rtype, obj, rtype.storage_api_version)
        except (ValueError, KeyError, TypeError) as problem:
            raise Untranslatable(f"{type(problem).__name__}: {problem}") from None
        packed: bytes = msgpack.packb(obj)
        return packed

    def _type(self, key: bytes) -> ResourceType | None:
        rest = key[len(_ROOT) :]
        first = rest.find(b"/") + 1
        for end in (first, rest.find(b"/", first) + 1):
            theirs = self._there.get(rest[:end])
            if theirs is not None:
                return self._back[theirs][1]
        return None


def storage_key(rtype: ResourceType, key: bytes) -> str:
    """Where kube-apiserver keeps what we keep at `key`, without its prefix."""
    return f"/{_name(rtype)}/{key[len(rtype.key_prefix) :].decode()}"


def _name(rtype: ResourceType) -> str:
    older = _OLDER_NAMES.get((rtype.group, rtype.resource))
    if older is not None:
        return older
    return f"{rtype.group}/{rtype.resource}" if rtype.custom or rtype.group in _WITH_GROUP else rtype.resource


def _read(value: bytes) -> dict[str, Any]:
    """Raises ValueError."""
    if not value.startswith(protobuf.MAGIC):
        obj = orjson.loads(value)
        if not isinstance(obj, dict) or not isinstance(obj.get("metadata"), dict):
            raise ValueError("it is no object with metadata")
        return obj
    obj = protobuf.decode(value)
    group, _, version = obj["apiVersion"].rpartition("/")
    shape = schema.load(api_version(group, version), obj["kind"])
    schema.walk(shape, obj)
    if shape.complete is not None:
        shape.complete(obj)
    return obj
