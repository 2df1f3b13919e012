"""ObjectMeta: validation in upstream's words, names and uids that the server makes up, owners and finalizers.

All functions read plain dicts in wire form. Only `add_finalizer` and `remove_finalizer` change what they are given.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastkube import _casts
from fastkube.api import field
from fastkube.api.names import (
    NameCheck,
    dns1035_label,
    dns1123_label,
    dns1123_subdomain,
    is_label_key,
    is_label_value,
    label_key,
    label_value,
    path_segment,
)
from fastkube.errors import Cause

__all__ = [
    "NameCheck",
    "add_finalizer",
    "controller_of",
    "dns1035_label",
    "dns1123_label",
    "dns1123_subdomain",
    "generate_name",
    "label_key",
    "label_value",
    "new_uid",
    "owner_reference",
    "path_segment",
    "remove_finalizer",
    "validate_annotations",
    "validate_field_manager",
    "validate_labels",
    "validate_object_meta",
    "validate_object_meta_update",
]

Object = dict[str, Any]

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
_STANDARD_FINALIZERS = frozenset(("kubernetes", ORPHAN, FOREGROUND))

_ANNOTATIONS_MAX_BYTES = 256 * 1024
_FIELD_MANAGER_MAX_BYTES = 128
_SUBRESOURCE_MAX_BYTES = 256

_BASE_MAX_LENGTH = 63 - 5  # the suffix
_REF_ORDER = ("apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion")

# ---------------------------------------------------------------- what the server makes up


def generate_name(base: str) -> str:
    """`base` (a generateName) with a random suffix of 5, cut so that the whole fits into 63 characters."""
    return base[:_BASE_MAX_LENGTH] + _casts.suffix().decode()


def new_uid() -> str:
    """A random UUID (version 4)."""
    return _casts.new_uid().decode()


# ---------------------------------------------------------------- owners and finalizers


def controller_of(obj: Object) -> Object | None:
    """The owner reference of the controller that manages the object, if one does."""
    for ref in obj["metadata"].get("ownerReferences") or ():
        if ref.get("controller"):
            return ref  # type: ignore[no-any-return]
    return None


def drop_equal_owners(metadata: Object) -> list[str]:
    """Leaves one of each of the owner references; the warning about those that were there again, if any were."""
    owners = metadata["ownerReferences"] or ()
    if len(owners) < 2:
        return []
    kept: list[Object] = []
    again: list[str] = []
    for ref in owners:
        if ref in kept:
            again.append(ref.get("uid") or "")
        else:
            kept.append(ref)
    if not again:
        return []
    metadata["ownerReferences"] = kept
    told = "API server dedups owner references in 1.20+, and may reject such requests as early as 1.24"
    uids = ", ".join(dict.fromkeys(again))
    what = ".metadata.ownerReferences contains duplicate entries"
    return [f"{what}; {told}; please fix your requests; duplicate UID(s) observed: {uids}"]


def owner_reference(owner: Object, *, controller: bool = True) -> Object:
    """A reference to `owner` for its dependents; as a controller it blocks the foreground deletion of the owner."""
    ref = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    return {**ref, "controller": True, "blockOwnerDeletion": True} if controller else ref


def add_finalizer(obj: Object, finalizer: str) -> bool:
    """Whether the object changed."""
    finalizers = obj["metadata"].setdefault("finalizers", [])
    if finalizer in finalizers:
        return False
    finalizers.append(finalizer)
    return True


def remove_finalizer(obj: Object, finalizer: str) -> bool:
    """Whether the object changed; the field itself goes with its last item."""
    finalizers = obj["metadata"].get("finalizers") or []
    if finalizer not in finalizers:
        return False
    finalizers.remove(finalizer)
    if not finalizers:
        del obj["metadata"]["finalizers"]
    return True


# ---------------------------------------------------------------- validation


def validate_object_meta(
    obj: Object, namespaced: bool, name_check: NameCheck, *, kube_finalizers: bool = True
) -> list[Cause]:
    """Faults of a new object's metadata, after its name was generated.

    `kube_finalizers`: finalizers without a domain must be standard ones; true for built-in kinds, not for custom ones.
    """
    metadata = obj["metadata"]
    causes: list[Cause] = []
    base = metadata.get("generateName")
    if base:
        causes += [field.invalid("metadata.generateName", base, fault) for fault in name_check(base, True)]
    name = metadata.get("name")
    if name:
        causes += [field.invalid("metadata.name", name, fault) for fault in name_check(name, False)]
    else:
        causes.append(field.required("metadata.name", "name or generateName is required"))
    causes += _validate_namespace(metadata.get("namespace"), namespaced)
    generation = metadata.get("generation")
    if generation is not None:
        causes += field.non_negative("metadata.generation", generation)
    finalizers = metadata.get("finalizers") or []
    causes += _validate_common(metadata, finalizers)
    return causes + validate_kube_finalizers(finalizers) if kube_finalizers else causes


def validate_object_meta_update(new: Object, old: Object, *, kube_finalizers: bool = True) -> list[Cause]:
    """Faults of changed metadata (`kube_finalizers` as above). Whoever calls has already kept the old uid, creation and
    deletion times where the client left them out; `new` must carry a resourceVersion or have been refused before."""
    now, was = new["metadata"], old["metadata"]
    causes: list[Cause] = []
    if was.get("deletionTimestamp"):
        causes += _validate_no_new_finalizers(now.get("finalizers") or (), was.get("finalizers") or ())
    if (now.get("generation") or 0) < (was.get("generation") or 0):
        causes.append(field.invalid("metadata.generation", now.get("generation") or 0, "must not be decremented"))
    for key in ("name", "namespace", "uid"):
        if (now.get(key) or "") != (was.get(key) or ""):
            causes.append(field.invalid(f"metadata.{key}", now.get(key) or "", field.IMMUTABLE))
    for key in ("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
        if now.get(key) != was.get(key):
            causes.append(field.invalid(f"metadata.{key}", now.get(key), field.IMMUTABLE))
    causes += _validate_common(now, [])
    return causes + validate_kube_finalizers(now.get("finalizers") or []) if kube_finalizers else causes


def _validate_common(metadata: Object, finalizers: list[str]) -> list[Cause]:
    causes: list[Cause] = []
    if labels := metadata.get("labels"):
        causes += validate_labels(labels, "metadata.labels")
    if annotations := metadata.get("annotations"):
        causes += validate_annotations(annotations, "metadata.annotations")
    if owners := metadata.get("ownerReferences"):
        causes += _validate_owners(owners)
    if finalizers:
        causes += _validate_finalizers(finalizers)
    if managed := metadata.get("managedFields"):
        causes += validate_managed_fields(managed)
    return causes


def _validate_namespace(namespace: str | None, namespaced: bool) -> list[Cause]:
    path = "metadata.namespace"
    if not namespaced:
        return [field.forbidden(path, "not allowed on this type")] if namespace else []
    if not namespace:
        return [field.required(path)]
    return [field.invalid(path, namespace, fault) for fault in dns1123_label(namespace)]


def validate_labels(labels: dict[str, str], path: str) -> list[Cause]:
    causes: list[Cause] = []
    for key, value in labels.items():
        if not is_label_key(key):
            causes += [field.invalid(path, key, fault) for fault in label_key(key)]
        if not is_label_value(value):
            causes += [field.invalid(path, value, fault) for fault in label_value(value)]
    return causes


def validate_annotations(annotations: dict[str, str], path: str) -> list[Cause]:
    """Keys are label keys whose case does not matter; all keys and values together are limited to 256 KiB."""
    causes: list[Cause] = []
    size = 0
    for key, value in annotations.items():
        if not is_label_key(key):
            causes += [field.invalid(path, key, fault) for fault in label_key(key.lower())]
        size += len(key) + len(value)
    if size * 4 > _ANNOTATIONS_MAX_BYTES:  # characters are at most 4 bytes, so small ones need no encoding
        size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
        if size > _ANNOTATIONS_MAX_BYTES:
            causes.append(field.too_long(path, _ANNOTATIONS_MAX_BYTES))
    return causes


def _validate_owners(owners: list[Object]) -> list[Cause]:
    path = "metadata.ownerReferences"
    causes: list[Cause] = []
    first_controller = ""
    for ref in owners:
        causes += _validate_owner(ref, path)
        if not ref.get("controller"):
            continue
        controller = f"{ref.get('kind', '')}/{ref.get('name', '')}"
        if first_controller:
            all_refs = [dict(_ref_fields(each)) for each in owners]
            problem = (
                "Only one reference can have Controller set to true. "
                f'Found "true" in references for {first_controller} and {controller}'
            )
            causes.append(field.invalid(path, field.struct(all_refs), problem))
        first_controller = first_controller or controller
    return causes


def _validate_owner(ref: Object, path: str) -> list[Cause]:
    api_version, kind = ref.get("apiVersion") or "", ref.get("kind") or ""
    group, _, version = api_version.rpartition("/")
    causes: list[Cause] = []
    if "/" in group or not version:
        causes.append(field.invalid(f"{path}.apiVersion", api_version, "version must not be empty"))
    empty = [key for key in ("kind", "name", "uid") if not ref.get(key)]
    causes += [field.invalid(f"{path}.{key}", "", "must not be empty") for key in empty]
    if (group, version, kind) == ("", "v1", "Event"):
        shown = field.struct(dict(_ref_fields(ref)))
        causes.append(field.invalid(path, shown, "/v1, Kind=Event is disallowed from being an owner"))
    return causes


def _ref_fields(ref: Object) -> Iterable[tuple[str, Any]]:
    """The fields of an owner reference in Go's order; the first four are never left out."""
    for key in _REF_ORDER:
        if key in ref:
            yield key, ref[key]
        elif key in _REF_ORDER[:4]:
            yield key, ""


def _validate_finalizers(finalizers: list[str]) -> list[Cause]:
    path = "metadata.finalizers"
    causes = [field.invalid(path, name, fault) for name in finalizers for fault in label_key(name)]
    if ORPHAN in finalizers and FOREGROUND in finalizers:
        problem = f"finalizer {ORPHAN} and {FOREGROUND} cannot be both set"
        causes.append(field.invalid(path, finalizers, problem))
    return causes


def validate_kube_finalizers(finalizers: list[str]) -> list[Cause]:
    """Faults that built-in kinds find besides: a finalizer without a domain has to be a standard one."""
    problem = "name is neither a standard finalizer name nor is it fully qualified"
    return [
        field.invalid(field.at("metadata.finalizers", number), name, problem)
        for number, name in enumerate(finalizers)
        if "/" not in name and name not in _STANDARD_FINALIZERS
    ]


def _validate_no_new_finalizers(now: Iterable[str], was: Iterable[str]) -> list[Cause]:
    added = sorted(set(now) - set(was))
    if not added:
        return []
    listed = "[]string{" + ", ".join(map(field.quote, added)) + "}"
    problem = f"no new finalizers can be added if the object is being deleted, found new finalizers {listed}"
    return [field.forbidden("metadata.finalizers", problem)]


def validate_managed_fields(entries: list[Object]) -> list[Cause]:
    """Faults of metadata.managedFields."""
    causes: list[Cause] = []
    for number, entry in enumerate(entries):
        path = f"metadata.managedFields[{number}]"
        operation, fields_type = entry.get("operation") or "", entry.get("fieldsType") or ""
        if operation not in ("Apply", "Update"):
            causes.append(field.invalid(f"{path}.operation", operation, "must be `Apply` or `Update`"))
        if fields_type not in ("", "FieldsV1"):
            causes.append(field.invalid(f"{path}.fieldsType", fields_type, "must be `FieldsV1`"))
        causes += validate_field_manager(entry.get("manager") or "", f"{path}.manager")
        if len((entry.get("subresource") or "").encode()) > _SUBRESOURCE_MAX_BYTES:
            causes.append(field.too_long(f"{path}.subresource", _SUBRESOURCE_MAX_BYTES))
    return causes


def validate_field_manager(manager: str, path: str) -> list[Cause]:
    """A field manager's name: at most 128 bytes, all of them printable; "" stands for the default one."""
    if manager.isprintable() and len(manager) * 4 <= _FIELD_MANAGER_MAX_BYTES:
        return []
    causes: list[Cause] = []
    if len(manager.encode()) > _FIELD_MANAGER_MAX_BYTES:
        causes.append(field.too_long(path, _FIELD_MANAGER_MAX_BYTES))
    position = 0
    for char in manager:
        if not char.isprintable():
            problem = f"invalid character U+{ord(char):04X} (at position {position})"
            causes.append(field.invalid(path, manager, problem))
        position += len(char.encode())
    return causes


def copy_of(value: Any) -> Any:
    """A copy of plain data; several times faster than `copy.deepcopy`."""
    if isinstance(value, dict):
        return {key: copy_of(each) for key, each in value.items()}
    if isinstance(value, list):
        return [copy_of(each) for each in value]
    return value
