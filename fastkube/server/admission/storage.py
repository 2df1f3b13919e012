"""Plugins about storage and ingress classes: the default ones, protection of what is in use, growing claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastkube.api import meta, quantity
from fastkube.server.admission.plugin import CREATE, UPDATE, Identity, Plugin, forbid

if TYPE_CHECKING:
    from fastkube.registry.strategy import Call, Object
    from fastkube.server.admission.lookup import Lookups, Mirror

_CLAIM: Identity = ("", "persistentvolumeclaims", "")
_INGRESS: Identity = ("networking.k8s.io", "ingresses", "")

_BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
_DEFAULT_STORAGE = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
_DEFAULT_INGRESS = ("ingressclass.kubernetes.io/is-default-class",)
_INGRESS_CLASS = "kubernetes.io/ingress.class"


def _default_class(classes: Mirror, annotations: tuple[str, ...]) -> str:
    """The newest class that is marked as the default one; among equally old ones the first by name."""
    marked = []
    for name, kept in classes.of("").items():
        metadata = kept.obj["metadata"]
        given = metadata.get("annotations") or {}
        if any(given.get(key) == "true" for key in annotations):
            marked.append((metadata["creationTimestamp"], name))
    if not marked:
        return ""
    newest = max(created for created, _ in marked)
    return min(name for created, name in marked if created == newest)


class DefaultStorageClass(Plugin):
    """A claim that names no class gets the default one; an empty name means none."""

    name = "DefaultStorageClass"
    mutates = True

    def __init__(self, lookups: Lookups) -> None:
        self._classes = lookups.storage_classes

    def handles(self, target: Identity, operation: str) -> bool:
        return target == _CLAIM and operation == CREATE

    def mutate(self, call: Call, obj: Object, old: Object | None) -> None:
        spec = obj.setdefault("spec", {})
        if spec.get("storageClassName") is not None or _BETA_CLASS in (obj["metadata"].get("annotations") or ()):
            return
        name = _default_class(self._classes, _DEFAULT_STORAGE)
        if name:
            spec["storageClassName"] = name


class DefaultIngressClass(Plugin):
    """An ingress that names no class gets the default one."""

    name = "DefaultIngressClass"
    mutates = True

    def __init__(self, lookups: Lookups) -> None:
        self._classes = lookups.ingress_classes

    def handles(self, target: Identity, operation: str) -> bool:
        return target == _INGRESS and operation == CREATE

    def mutate(self, call: Call, obj: Object, old: Object | None) -> None:
        spec = obj.setdefault("spec", {})
        if spec.get("ingressClassName") is not None or _INGRESS_CLASS in (obj["metadata"].get("annotations") or ()):
            return
        name = _default_class(self._classes, _DEFAULT_INGRESS)
        if name:
            spec["ingressClassName"] = name


_FINALIZERS: dict[Identity, str] = {
    ("", "persistentvolumes", ""): "kubernetes.io/pv-protection",
    _CLAIM: "kubernetes.io/pvc-protection",
    ("storage.k8s.io", "volumeattributesclasses", ""): "kubernetes.io/vac-protection",
}


class StorageObjectInUseProtection(Plugin):
    """Finalizers keep volumes and claims from vanishing while they are used."""

    name = "StorageObjectInUseProtection"
    mutates = True

    def handles(self, target: Identity, operation: str) -> bool:
        return target in _FINALIZERS and operation == CREATE

    def mutate(self, call: Call, obj: Object, old: Object | None) -> None:
        meta.add_finalizer(obj, _FINALIZERS[call.rtype.group, call.rtype.resource, ""])


class PersistentVolumeClaimResize(Plugin):
    """A claim may grow if it is bound and its class allows it."""

    name = "PersistentVolumeClaimResize"
    validates = True

    def __init__(self, lookups: Lookups) -> None:
        self._classes = lookups.storage_classes

    def handles(self, target: Identity, operation: str) -> bool:
        return target == _CLAIM and operation == UPDATE

    def validate(self, call: Call, obj: Object, old: Object | None) -> None:
        assert old is not None
        if quantity.cmp(_size(obj), _size(old)) <= 0:
            return
        if (old.get("status") or {}).get("phase") != "Bound":
            raise forbid(call, obj, "Only bound persistent volume claims can be expanded")
        name = _class_of(obj)
        found = self._classes.get("", name) if name and name == _class_of(old) else None
        if found is None or not found.get("allowVolumeExpansion"):
            why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must"
            raise forbid(call, obj, f"{why} support resize")


def _size(claim: Object) -> str:
    requests = (claim["spec"].get("resources") or {}).get("requests") or {}
    size: str = requests.get("storage", "0")
    return size


def _class_of(claim: Object) -> str:
    annotations = claim["metadata"].get("annotations") or {}
    return annotations.get(_BETA_CLASS) or claim["spec"].get("storageClassName") or ""
