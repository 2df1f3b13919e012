"""The strategy of CustomResourceDefinition: defaults, the versions it has stored objects in, and its validation.

Upstream validates the internal form, where what all versions have in common stands at the top (`spec.validation`,
`spec.subresources`, `spec.additionalPrinterColumns`, `spec.selectableFields`); its paths are those of that form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fastkube.api import field, names
from fastkube.api.meta import copy_of
from fastkube.errors import Cause
from fastkube.registry.custom import columns, conversions, formats
from fastkube.registry.custom.conditions import is_true
from fastkube.registry.strategy import Call, Object, Strategy

if TYPE_CHECKING:
    from fastkube.registry.custom.schemas import Before

APPROVAL = "api-approved.kubernetes.io"
_APPROVAL_SEE = "see https://github.com/kubernetes/enhancements/pull/1111"
_NOTHING: Object = {}

LIFTED = {
    "schema": "validation",
    "subresources": "subresources",
    "additionalPrinterColumns": "additionalPrinterColumns",
    "selectableFields": "selectableFields",
}
"""What stands at the top when it is the same in all versions."""


class CustomResourceDefinitions(Strategy):
    metadata_checks = ("update",)
    kube_finalizers = False
    allow_unconditional_update = False

    def default(self, obj: Object) -> None:
        spec = obj.get("spec") or _NOTHING
        wanted = spec.get("names") or _NOTHING
        if kind := wanted.get("kind"):
            if not wanted.get("singular"):
                wanted["singular"] = kind.lower()
            if not wanted.get("listKind"):
                wanted["listKind"] = kind + "List"
        if not spec:
            return
        conversion = spec.setdefault("conversion", {"strategy": "None"})
        conversion.setdefault("strategy", "None")
        service = ((conversion.get("webhook") or _NOTHING).get("clientConfig") or _NOTHING).get("service")
        if service is not None:
            service.setdefault("port", 443)

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        self.reset_status(obj)
        _note_storage(obj)

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        new["status"] = copy_of(old.get("status") or {})
        _note_storage(new)

    def validate_name(self, name: str, prefix: bool) -> list[str]:
        return names.dns1123_subdomain(name, prefix)

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        return _name_faults(obj) + judge(obj, None)

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        return judge(new, old)

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        known = formats.unrecognized(old["spec"]) if old is not None else []
        found = [each for each in formats.unrecognized(obj["spec"]) if each not in known]
        return [f"unrecognized format {field.quote(each)}" for each in dict.fromkeys(found)]

    def validate_status_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        return _names_faults((new.get("status") or _NOTHING).get("acceptedNames") or _NOTHING, "status.acceptedNames")


STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("apiextensions.k8s.io", "customresourcedefinitions"): CustomResourceDefinitions(),
}


def _note_storage(crd: Object) -> None:
    """The storage version joins those that stored objects may be in."""
    status = crd["status"]
    stored = list(status.get("storedVersions") or ())
    for version in (crd.get("spec") or _NOTHING).get("versions") or ():
        if version.get("storage") and version["name"] not in stored:
            stored.append(version["name"])
        if version.get("storage"):
            break
    status["storedVersions"] = stored


# ---------------------------------------------------------------- the definition


def _name_faults(crd: Object) -> list[Cause]:
    spec = crd.get("spec") or _NOTHING
    wanted = f"{(spec.get('names') or _NOTHING).get('plural', '')}.{spec.get('group', '')}"
    name = crd["metadata"].get("name")
    given = (("generateName", crd["metadata"].get("generateName")), ("name", name))
    problem = 'must be spec.names.plural+"."+spec.group'
    return [field.invalid(f"metadata.{key}", told, problem) for key, told in given if told and told != wanted]


def judge(crd: Object, old: Object | None) -> list[Cause]:
    """Everything that is wrong with a definition; of an update, with what has changed."""
    spec = crd.get("spec") or {}
    found = _spec_faults(spec, old)
    if old is not None:
        found += _immutable_faults(spec, old)
    status = crd.get("status") or _NOTHING
    found += _names_faults(status.get("acceptedNames") or _NOTHING, "status.acceptedNames")
    found += _stored_faults(status.get("storedVersions") or [], spec.get("versions") or [])
    found += _approval_faults(crd, old)
    was_open = old is not None and (old.get("spec") or _NOTHING).get("preserveUnknownFields")
    if spec.get("preserveUnknownFields") and not was_open:
        told = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        found.append(field.invalid("spec.preserveUnknownFields", True, told))
    return found


def lift(spec: Object) -> tuple[Object, list[Object]]:
    """What all versions have in common, and the versions without it."""
    versions = [dict(each) for each in spec.get("versions") or ()]
    common: Object = {}
    for name, top in LIFTED.items():
        values = [each.get(name) for each in versions]
        if values and values[0] and all(each == values[0] for each in values):
            common[top] = values[0]
            for version in versions:
                del version[name]
    return common, versions


def _spec_faults(spec: Object, old: Object | None) -> list[Cause]:
    from fastkube.registry.custom import schemas  # with CEL, which a server without definitions does not need

    found: list[Cause] = []
    group = spec.get("group", "")
    if not group:
        found.append(field.required("spec.group"))
    elif told := names.dns1123_subdomain(group):
        found.append(field.invalid("spec.group", group, ",".join(told)))
    elif "." not in group:
        found.append(field.invalid("spec.group", group, "should be a domain with at least one dot"))
    found += one_of("spec.scope", spec.get("scope", ""), ("Cluster", "Namespaced"))
    common, versions = lift(spec)
    found += _schemas_required(common, versions)
    if schemas.any_default(spec) and spec.get("preserveUnknownFields"):
        why = "must be false in order to use defaults in the schema"
        found.append(field.invalid("spec.preserveUnknownFields", True, why))
    before = schemas.Before.of(old)
    for index, version in enumerate(versions):
        found += _version_faults(version, f"spec.versions[{index}]", common, before)
    found += _versions_faults(versions)
    wanted = spec.get("names") or _NOTHING
    found += [
        field.required(f"spec.names.{key}") for key in ("plural", "singular", "kind", "listKind") if not wanted.get(key)
    ]
    found += _names_faults(wanted, "spec.names")
    status_anywhere = any("status" in (each.get("subresources") or _NOTHING) for each in spec.get("versions") or ())
    found += schemas.judge(common.get("validation"), "spec.validation", status_anywhere, before, "")
    found += _subresources_faults(common.get("subresources"), "spec.subresources")
    found += columns.column_faults(common.get("additionalPrinterColumns"), "spec.additionalPrinterColumns")
    if fields := common.get("selectableFields"):
        found += _selectable_faults(fields, spec, "spec.selectableFields")
    return found + conversions.faults(spec.get("conversion"), "spec.conversion", any_bundle=_takes_any_bundle(old))


def _takes_any_bundle(old: Object | None) -> bool:
    if old is None or not is_true(old, "Established"):
        return True
    return not conversions.has_valid_bundle((old.get("spec") or _NOTHING).get("conversion") or _NOTHING)


def _schemas_required(common: Object, versions: list[Object]) -> list[Cause]:
    if (common.get("validation") or _NOTHING).get("openAPIV3Schema") is not None:
        return []
    return [
        field.required(f"spec.versions[{index}].schema.openAPIV3Schema")
        for index, version in enumerate(versions)
        if (version.get("schema") or _NOTHING).get("openAPIV3Schema") is None
    ]


def _version_faults(version: Object, path: str, common: Object, before: Before) -> list[Cause]:
    name = version.get("name", "")
    from fastkube.registry.custom import schemas

    told = names.dns1035_label(name)
    found = [field.invalid(f"{path}.name", name, ",".join(told))] if told else []
    found += _warning_faults(version, f"{path}.deprecationWarning")
    parts = version.get("subresources") or common.get("subresources") or _NOTHING
    found += schemas.judge(version.get("schema"), f"{path}.schema", "status" in parts, before, name)
    found += _subresources_faults(version.get("subresources"), f"{path}.subresources")
    found += columns.column_faults(version.get("additionalPrinterColumns"), f"{path}.additionalPrinterColumns")
    if fields := version.get("selectableFields"):
        schema = (version.get("schema") or common.get("validation") or _NOTHING).get("openAPIV3Schema")
        found += columns.selectable_faults(fields, schema, f"{path}.selectableFields")
    return found


def _selectable_faults(fields: list[Object], spec: Object, path: str) -> list[Cause]:
    schema = ((spec["versions"][0].get("schema")) or _NOTHING).get("openAPIV3Schema")
    return columns.selectable_faults(fields, schema, path)


def _warning_faults(version: Object, path: str) -> list[Cause]:
    warning = version.get("deprecationWarning")
    if warning is None:
        return []
    told: list[str] = []
    if not version.get("deprecated"):
        told.append("can only be set for deprecated versions")
    else:
        if len(warning.encode()) > 256:
            told.append("must be <= 256 characters long")
        if not warning:
            told.append("must not be an empty string")
        bad = next((index for index, char in enumerate(warning) if not (char.isprintable())), None)
        if bad is not None:
            told.append(f"must only contain printable UTF-8 characters; non-printable character found at index {bad}")
    return [field.invalid(path, warning, each) for each in told]


def _versions_faults(versions: list[Object]) -> list[Cause]:
    found: list[Cause] = []
    given = [each.get("name", "") for each in versions]
    if len(set(given)) != len(given):
        found.append(field.invalid("spec.versions", _internal(versions), "must contain unique version names"))
    if sum(bool(each.get("storage")) for each in versions) != 1:
        told = "must have exactly one version marked as storage version"
        found.append(field.invalid("spec.versions", _internal(versions) if versions else None, told))
    if versions and (told_of_first := names.dns1035_label(given[0])):  # the internal form names it at the top, too
        found.append(field.invalid("spec.version", given[0], ",".join(told_of_first)))
    return found


def _internal(versions: Iterable[Object]) -> field.Literal:
    """Versions as the internal type prints them."""
    keys = ("name", "served", "storage", "deprecated", "deprecationWarning", "schema", "subresources")
    empty = {"name": "", "served": False, "storage": False, "deprecated": False}
    return field.struct(
        [
            {
                key[0].upper() + key[1:]: version.get(key, empty.get(key))
                for key in (*keys, "additionalPrinterColumns", "selectableFields")
            }
            for version in versions
        ]
    )


def one_of(path: str, value: str, allowed: tuple[str, ...]) -> list[Cause]:
    if not value:
        return [field.required(path)]
    return [] if value in allowed else [field.not_supported(path, value, allowed)]


def _names_faults(given: Object, path: str) -> list[Cause]:
    found: list[Cause] = []
    mixed = "may have mixed case, but should otherwise match: "

    def check(key: str, value: str, prefix: str = "", lower: bool = False) -> None:
        told = names.dns1035_label(value.lower() if lower else value) if value else []
        if told:
            found.append(field.invalid(f"{path}.{key}", value, prefix + ",".join(told)))

    check("plural", given.get("plural", ""))
    check("singular", given.get("singular", ""))
    check("kind", given.get("kind", ""), mixed, lower=True)
    check("listKind", given.get("listKind", ""), mixed, lower=True)
    for index, name in enumerate(given.get("shortNames") or ()):
        check(f"shortNames[{index}]", name)
    if given.get("kind") and given.get("kind") == given.get("listKind"):
        found.append(field.invalid(f"{path}.listKind", given["listKind"], "kind and listKind may not be the same"))
    for index, name in enumerate(given.get("categories") or ()):
        check(f"categories[{index}]", name)
    return found


def _immutable_faults(spec: Object, old: Object) -> list[Cause]:
    """What stored objects and their paths depend on."""
    before = old.get("spec") or _NOTHING
    found: list[Cause] = []

    def fixed(path: str, new: Any, was: Any) -> None:
        if new != was:
            found.append(field.invalid(path, new or "", field.IMMUTABLE))

    given, were = spec.get("names") or _NOTHING, before.get("names") or _NOTHING
    if is_true(old, "Established"):
        fixed("spec.scope", spec.get("scope"), before.get("scope"))
        fixed("spec.names.kind", given.get("kind"), were.get("kind"))
    fixed("spec.group", spec.get("group"), before.get("group"))
    fixed("spec.names.plural", given.get("plural"), were.get("plural"))
    return found


def _stored_faults(stored: list[str], versions: list[Object]) -> list[Cause]:
    path = "status.storedVersions"
    if not stored:
        return [field.invalid(path, None, "must have at least one stored version")]
    given = [each.get("name", "") for each in versions]
    found = [
        field.invalid(path, stored, f"must have the storage version {each['name']}")
        for each in versions
        if each.get("storage") and each["name"] not in stored
    ]
    for index, name in enumerate(stored):
        if name not in given:
            told = (
                f"missing from spec.versions; {name} was previously a storage version, and must remain in "
                f"spec.versions until a storage migration ensures no data remains persisted in {name} and removes "
                f"{name} from status.storedVersions"
            )
            found.append(field.invalid(f"{path}[{index}]", name, told))
    return found


# ---------------------------------------------------------------- approval


def is_protected(group: str) -> bool:
    """Groups of the Kubernetes project itself, whose APIs are reviewed."""
    return group in ("k8s.io", "kubernetes.io") or group.endswith((".k8s.io", ".kubernetes.io"))


def approval(crd: Object) -> tuple[str, str]:
    """(missing, invalid, unapproved or approved; what is told about it)."""
    text = (crd["metadata"].get("annotations") or _NOTHING).get(APPROVAL, "")
    if not text:
        return "missing", f'protected groups must have approval annotation "{APPROVAL}", {_APPROVAL_SEE}'
    if text.startswith("unapproved"):
        return "unapproved", f"not approved: {field.quote(text)}"
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s]+\S*", text):
        return "approved", f"approved in {text}"
    told = f'protected groups must have approval annotation "{APPROVAL}" with either a URL or a reason starting with'
    return "invalid", f'{told} "unapproved", {_APPROVAL_SEE}'


def _approval_faults(crd: Object, old: Object | None) -> list[Cause]:
    if not is_protected((crd.get("spec") or _NOTHING).get("group", "")):
        return []
    state, told = approval(crd)
    if state in ("approved", "unapproved") or (old is not None and approval(old)[0] == state):
        return []
    path = f"metadata.annotations[{APPROVAL}]"
    if state == "missing":
        return [field.required(path, told)]
    return [field.invalid(path, crd["metadata"]["annotations"][APPROVAL], told)]


# ---------------------------------------------------------------- subresources


def _subresources_faults(parts: Object | None, path: str) -> list[Cause]:
    scale = (parts or _NOTHING).get("scale")
    if scale is None:
        return []
    found = _scale_path(scale, "specReplicasPath", path, ".spec")
    found += _scale_path(scale, "statusReplicasPath", path, ".status")
    selector = scale.get("labelSelectorPath")
    if selector:
        place = f"{path}.scale.labelSelectorPath"
        if selector[0] != ".":
            found.append(field.invalid(place, selector, "must be a simple json path starting with ."))
        elif not selector.startswith((".spec.", ".status.")):
            found.append(field.invalid(place, selector, "should be a json path under either .spec or .status"))
    return found


def _scale_path(scale: Object, key: str, path: str, under: str) -> list[Cause]:
    value, place = scale.get(key) or "", f"{path}.scale.{key}"
    if not value:
        return [field.required(place)]
    if value[0] != ".":
        return [field.invalid(place, value, "must be a simple json path starting with .")]
    if not value.startswith(under + "."):
        return [field.invalid(place, value, f"should be a json path under {under}")]
    return []
