"""The strategy of every custom kind: parametrised by its schemas, otherwise like any built-in one's.

Which rules hold is decided by the version of the request, whose schema judges the object. With the status subresource
status is written through it alone; without it, it is a field like any other and raises the generation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from fastkube.api import conversion, field, jsonschema
from fastkube.api.jsonschema import NOTHING
from fastkube.api.strategic import go_text, go_type
from fastkube.errors import Cause
from fastkube.registry.custom import rules
from fastkube.registry.custom.embedded import embedded_faults
from fastkube.registry.strategy import Call, Object, Strategy

_INT32_MAX = 2**31 - 1
_KNOWN_FINALIZERS = frozenset(("orphan", "foregroundDeletion", "kubernetes"))
_NOT_CHECKED = field.invalid(
    jsonschema.NOWHERE,
    None,
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete "
    "validation",
)


class VersionRules:
    """What one version of a kind asks of its objects; `load` gives its schema, compiled when the first is written."""

    def __init__(self, load: Callable[[], Object], status: bool, scale: dict[str, str]) -> None:
        self._load = load
        self.status = status
        self.scale = scale

    @cached_property
    def schema(self) -> Object:
        return self._load()

    @cached_property
    def values(self) -> jsonschema.Check | None:
        return jsonschema.compile(self.schema)

    @cached_property
    def lists(self) -> jsonschema.Check | None:
        return jsonschema.list_faults(self.schema)

    @cached_property
    def rules(self) -> rules.Rules | None:
        return rules.compile(self.schema)

    @cached_property
    def embedded(self) -> jsonschema.Check | None:
        return embedded_faults(self.schema)

    @cached_property
    def status_values(self) -> jsonschema.Check | None:
        return jsonschema.compile((self.schema.get("properties") or {}).get("status") or {})

    def judge(
        self, new: Object, old: Any = NOTHING, *, status_only: bool = False, blocked: bool = False
    ) -> list[Cause]:
        """Every complaint about an object, or about what is new in it. `status_only`: of the values that of status;
        `blocked`: its metadata is such that rules are not asked."""
        if status_only:
            found = self._judge_status(new.get("status", NOTHING), old.get("status", NOTHING))
        else:
            found = jsonschema.causes(self.values(new, old)) if self.values is not None else []
        if self.scale:
            found += _scale_faults(self.scale, new, status_only)
        if self.embedded is not None:
            found += jsonschema.causes(self.embedded(new, NOTHING))
        if self.lists is not None and (old is NOTHING or not self.lists(old, NOTHING)):
            found += jsonschema.causes(self.lists(new, NOTHING))
        if self.rules is not None:
            if blocked or jsonschema.is_blocking(found):
                found.append(_NOT_CHECKED)
            else:
                found += rules.judge(self.rules, new, old)
        return found

    def _judge_status(self, new: Any, old: Any) -> list[Cause]:
        """Status is judged by itself: texts name places below it."""
        if self.status_values is None or new is NOTHING:
            return []
        return jsonschema.causes(self.status_values(new, old), "status")


def _scale_faults(scale: dict[str, str], obj: Object, status_only: bool) -> list[Cause]:
    found: list[Cause] = []
    for path in (
        (scale["statusReplicasPath"],) if status_only else (scale["specReplicasPath"], scale["statusReplicasPath"])
    ):
        value, fault = _nested(obj, path, int)
        if fault:
            found.append(field.invalid(path, 0, fault))
        elif value is not None and value < 0:
            found.append(field.invalid(path, value, "should be a non-negative integer"))
        elif value is not None and value > _INT32_MAX:
            found.append(field.invalid(path, value, f"should be less than or equal to {_INT32_MAX}"))
    if selector := scale.get("labelSelectorPath"):
        _, fault = _nested(obj, selector, str)
        if fault:
            found.append(field.invalid(selector, "", fault))
    return found


def _nested(obj: Object, path: str, wanted: type[int] | type[str]) -> tuple[Any, str]:
    """What stands at a path such as `.spec.replicas` (None: nothing), and why it cannot be had."""
    value: Any = obj
    reached = ""
    for key in path.removeprefix(".").split("."):
        reached += f".{key}"
        if value is None:
            return None, ""
        if not isinstance(value, dict):
            return None, _not_had(reached, value, "map[string]interface{}")
        if key not in value:
            return None, ""
        value = value[key]
    if type(value) is not wanted:
        return None, _not_had(reached, value, "int64" if wanted is int else "string")
    return value, ""


def _not_had(path: str, value: Any, wanted: str) -> str:
    return f"{path} accessor error: {go_text(value)} is of the type {go_type(value)}, expected {wanted}"


def _as_asked(call: Call, obj: Object) -> Object:
    """The object in the version of the request: without a webhook that differs in nothing that is judged."""
    rtype = call.rtype
    return conversion.convert(rtype, obj, rtype.api_version(call.version)) if rtype.by_webhook else obj


class CustomStrategy(Strategy):
    """`versions` are the rules of each version, `has_status` that of the storage version."""

    allow_unconditional_update = False

    def __init__(self, versions: dict[str, VersionRules], storage: str) -> None:
        self._versions = versions
        self.has_status = versions[storage].status

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        if self._versions[call.version].status:
            obj.pop("status", None)

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        if self._versions[call.version].status:
            if "status" in old:
                new["status"] = old["status"]
            else:
                new.pop("status", None)

    def prepare_for_status_update(self, call: Call, new: Object, old: Object) -> None:
        """Only status changes, and who manages it."""
        managed = new["metadata"].get("managedFields")
        new["metadata"] = dict(old["metadata"])
        if managed:
            new["metadata"]["managedFields"] = managed
        super().prepare_for_status_update(call, new, old)

    def spec_changed(self, new: Object, old: Object) -> bool:
        """Any change but that of metadata (and of status, where it is written apart)."""
        apart = ("metadata", "status") if self.has_status else ("metadata",)
        return any(new.get(key, NOTHING) != old.get(key, NOTHING) for key in {*new, *old} if key not in apart)

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        nameless = not obj["metadata"].get("name")
        return self._versions[call.version].judge(_as_asked(call, obj), blocked=nameless)

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        return self._versions[call.version].judge(_as_asked(call, new), _as_asked(call, old))

    def validate_status_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        return self._versions[call.version].judge(_as_asked(call, new), _as_asked(call, old), status_only=True)

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        finalizers = obj["metadata"].get("finalizers")
        if not finalizers:
            return []
        before = (old["metadata"].get("finalizers") or ()) if old is not None else ()
        return [
            f'metadata.finalizers: "{name}": prefer a domain-qualified finalizer name including a path (/) to avoid '
            "accidental conflicts with other finalizer writers"
            for name in finalizers
            if name not in before and "/" not in name and name not in _KNOWN_FINALIZERS
        ]
