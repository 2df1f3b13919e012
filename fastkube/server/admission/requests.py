"""One write as webhooks and policies see it: its attributes, and its objects in whichever version they ask for.

    storage version ── shown(version) ──→ what a webhook gets, with resourceVersion and without what is not set yet
                    ←─ replace(version) ─ what it made of it: fitted to the schema, defaulted, in place

What is written through a subresource may be of another kind: a Scale, a Binding, an Eviction, a TokenRequest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from fastkube.api import conversion, meta, schema
from fastkube.api.catalog import api_version
from fastkube.registry import decoding, scale
from fastkube.server.admission.plugin import CONNECT, CREATE, DELETE, UPDATE

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastkube.api.catalog import ResourceType
    from fastkube.registry.strategy import Call, Object

_OPTIONS = {CREATE: "CreateOptions", UPDATE: "UpdateOptions", DELETE: "DeleteOptions"}
_NOT_SET_YET = ("uid", "creationTimestamp")
_CONFIGURATIONS = "admissionregistration.k8s.io"


class Target(NamedTuple):
    """The resource and kind as which a request matches: its own, or an equivalent of them."""

    group: str
    version: str
    resource: str
    kind_group: str
    kind_version: str
    kind: str

    @property
    def api_version(self) -> str:
        return api_version(self.kind_group, self.kind_version)


class Attempt:
    """A request in admission. `obj` is what will be written, `old` what is there, each None where there is none.

    `is_early`: mutation is under way, before the server has set what only it may say. `default` fills in an object's
    defaults.
    """

    def __init__(
        self,
        call: Call,
        operation: str,
        obj: Object | None,
        old: Object | None,
        default: Callable[[ResourceType, Object], None],
        *,
        is_early: bool,
    ) -> None:
        self.call = call
        self.operation = operation
        self.obj = obj
        self.old = old
        self._default = default
        self._is_early = is_early and operation == CREATE
        self._shown: dict[str, tuple[Object | None, Object | None]] = {}
        rtype = call.rtype
        self.is_namespace = rtype.resource == "namespaces" and not rtype.group
        self.namespace = self._name() if self.is_namespace else call.namespace
        info = rtype.subresources.get(call.subresource) if call.subresource else None
        group, version, kind = rtype.group, call.version, rtype.kind
        if info is not None and info.kind != kind:
            kind = info.kind
            if info.version:
                group, version = info.group, info.version
        self._is_part = kind != rtype.kind
        self.target = Target(rtype.group, call.version, rtype.resource, group, version, kind)

    @property
    def name(self) -> str:
        return self._name()

    def _name(self) -> str:
        if self.call.verb == "deletecollection":  # the request named none of them
            return ""
        if self.call.name or self.obj is None:
            return self.call.name
        name: str = (self.obj.get("metadata") or {}).get("name") or ""
        return name

    @property
    def is_exempt(self) -> bool:
        """The configurations themselves are never intercepted: a bad one could not be repaired."""
        return self.call.rtype.group == _CONFIGURATIONS

    # ---------------------------------------------------------------- objects

    def shown(self, version: str) -> tuple[Object | None, Object | None]:
        """The new and the old object in an apiVersion; they share their parts with those of the request."""
        found = self._shown.get(version)
        if found is None:
            found = self._shown[version] = (self._show(self.obj, version, self._is_early), self._show_old(version))
        return found

    def _show_old(self, version: str) -> Object | None:
        return self._show(self.old, version, False)

    def _show(self, obj: Object | None, version: str, is_early: bool) -> Object | None:
        if obj is None:
            return None
        call = self.call
        if self._is_part and call.subresource == "scale":
            shown = scale.show(call, obj)
        elif self._is_part:
            shown = {"apiVersion": self.target.api_version, "kind": self.target.kind, **obj}
            if "metadata" in shown and call.namespace:
                shown["metadata"] = {"namespace": call.namespace, **(shown["metadata"] or {})}
        else:
            shown = conversion.convert(call.rtype, obj, version)
        if "metadata" not in shown:
            return shown  # options of a connection
        metadata = dict(shown["metadata"] or {})
        if is_early:
            for key in _NOT_SET_YET:
                metadata.pop(key, None)
        if call.revision:
            metadata["resourceVersion"] = str(call.revision)
        return {**shown, "metadata": metadata}

    def replace(self, version: str, changed: Object, *, strict: bool = False) -> bool:
        """Puts what a mutation made in the place of the new object; True if it differs. `changed` is used up.

        Raises ValueError when it is no object of its kind any more; `strict`: or has fields that its kind has not.
        """
        obj = self.obj
        assert obj is not None
        shown, _ = self.shown(version)
        assert shown is not None
        unknown = self._fit(version, changed)
        if unknown and strict and not self.call.rtype.custom:
            raise ValueError("strict decoding error: " + ", ".join(unknown))
        if changed == shown:
            return False
        self._shown.clear()
        if self._is_part and self.call.subresource == "scale":
            scale.set_replicas(self.call, obj, (changed.get("spec") or {}).get("replicas") or 0)
            return True
        if not self._is_part:
            changed = conversion.convert(self.call.rtype, changed, obj["apiVersion"])
            self._default(self.call.rtype, changed)
        self._overwrite(obj, changed)
        return True

    def _fit(self, version: str, changed: Object) -> list[str]:
        """The fields that the schema does not know, which are gone. Raises ValueError."""
        target = self.target
        group, _, short = version.rpartition("/")
        shape = decoding.schema_of(self.call.rtype, group, short, target.kind)
        return schema.walk(shape, changed)

    def _overwrite(self, obj: Object, changed: Object) -> None:
        """In place, since the registry holds on to the object and its metadata."""
        metadata = obj.setdefault("metadata", {})
        fresh = changed.pop("metadata", None) or {}
        fresh.pop("resourceVersion", None)
        if self._is_early:
            fresh |= {key: metadata[key] for key in _NOT_SET_YET if key in metadata}
        entries = metadata.get("managedFields")
        if fresh.get("managedFields") != entries and meta.validate_managed_fields(fresh.get("managedFields") or []):
            fresh["managedFields"] = entries
            self.call.warnings.append(_BAD_ENTRIES)
        metadata.clear()
        metadata |= fresh
        obj.clear()
        obj |= {"apiVersion": changed.pop("apiVersion"), "kind": changed.pop("kind"), "metadata": metadata, **changed}

    # ---------------------------------------------------------------- attributes

    def request(self, target: Target) -> Object:
        """The AdmissionRequest without its uid and objects; empty texts are left out, as Go does."""
        call, own = self.call, self.target
        told: Object = {
            "kind": _kind(target),
            "resource": _resource(target),
            "subResource": call.subresource,
            "requestKind": _kind(own),
            "requestResource": _resource(own),
            "requestSubResource": call.subresource,
            "name": self.name,
            "namespace": self.namespace,
            "operation": self.operation,
            "userInfo": _user(call),
            "dryRun": call.dry_run,
            "options": self._options(),
        }
        return {key: value for key, value in told.items() if value != ""}

    def _options(self) -> Object | None:
        if self.operation == CONNECT:
            return None
        call = self.call
        # also of a patch, which is an update by another name
        made: Object = {"kind": _OPTIONS[self.operation], "apiVersion": "meta.k8s.io/v1"}
        if self.operation == DELETE:
            return made | (call.delete_options or {})
        if call.dry_run:
            made["dryRun"] = ["All"]
        return made | {key: call.query[key] for key in ("fieldManager", "fieldValidation") if call.query.get(key)}


_BAD_ENTRIES = (
    ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating "
    "admission controller; please fix your requests"
)


def _kind(target: Target) -> Object:
    return {"group": target.kind_group, "version": target.kind_version, "kind": target.kind}


def _resource(target: Target) -> Object:
    return {"group": target.group, "version": target.version, "resource": target.resource}


def _user(call: Call) -> dict[str, Any]:
    user = call.user
    told: dict[str, Any] = {"username": user.name, "uid": user.uid, "groups": list(user.groups), "extra": user.extra}
    return {key: value for key, value in told.items() if value}
