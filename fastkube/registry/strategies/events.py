"""Events, of the core group and of events.k8s.io: one kind with two names and two strictnesses.

Upstream: ValidateEventCreate, ValidateEventUpdate. Objects are in the core version here; `call.rtype` says by which
group the request came.
"""

from __future__ import annotations

from typing import Any

from fastkube.api import field
from fastkube.api.names import dns1123_subdomain, path_segment
from fastkube.errors import Cause
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.checks import Errors, equal
from fastkube.registry.strategies.go_values import shown
from fastkube.registry.strategy import Call, Object, Strategy

_TEXT_MAX = {"reportingInstance": 128, "action": 128, "reason": 128, "message": 1024}
_NO_MATCH = "does not match event.namespace"
_UNSET = "needs to be unset"


class EventStrategy(Strategy):
    metadata_checks = ()
    has_generation = False
    has_status = False
    allow_create_on_update = True
    expires = True

    def validate_name(self, name: str, prefix: bool) -> list[str]:
        return path_segment(name, prefix)

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        _common(errs, call, obj)
        if call.rtype.group:
            _strict(errs, obj)
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        _common(errs, call, new)
        if call.rtype.group:
            _changes(errs, new, old)
        return errs


def _common(errs: Errors, call: Call, event: Object) -> None:
    namespace = event["metadata"].get("namespace") or ""
    involved = (event.get("involvedObject") or {}).get("namespace") or ""
    if event.get("eventTime") is None:
        agrees = involved == namespace if involved else namespace in ("", "default")
        if not agrees:
            errs.append(field.invalid("involvedObject.namespace", involved, _NO_MATCH))
        return
    if not involved and namespace not in ("default", "kube-system"):
        errs.append(field.invalid("involvedObject.namespace", involved, _NO_MATCH))
    controller = event.get("reportingComponent") or ""
    path = "reportingController" if call.rtype.group else "reportingComponent"
    if not controller:
        errs.append(field.required(path))
    checks.qualified(errs, path, controller)
    for key, most in _TEXT_MAX.items():
        text = event.get(key) or ""
        if not text and key != "message":
            errs.append(field.required(key))
        if len(text.encode()) > most:
            errs.append(field.invalid(key, "", f"can have at most {most} characters"))


def _strict(errs: Errors, event: Object) -> None:
    """What events.k8s.io asks of new events."""
    base = event["metadata"].get("generateName") or ""
    errs += [field.invalid("metadata.generateName", base, fault) for fault in dns1123_subdomain(base, True) if base]
    checks.faults(errs, "metadata.name", event["metadata"].get("name") or "", dns1123_subdomain)
    _series(errs, event.get("series"))
    if event.get("eventTime") is None:
        errs.append(field.required("eventTime"))
    kind = event.get("type") or ""
    if kind not in ("Normal", "Warning"):
        errs.append(field.invalid("type", "", f"has invalid value: {kind}"))
    for key in ("firstTimestamp", "lastTimestamp", "count"):
        if event.get(key):
            errs.append(field.invalid(key, "", _UNSET))
    source = event.get("source") or {}
    if source.get("component") or source.get("host"):
        errs.append(field.invalid("source", "", _UNSET))


def _series(errs: Errors, series: Object | None) -> None:
    if series is None:
        return
    if (series.get("count") or 0) < 2:
        errs.append(field.invalid("series.count", "", "should be at least 2"))
    if series.get("lastObservedTime") is None:
        errs.append(field.required("series.lastObservedTime"))


_FIXED: tuple[tuple[str, str, Any], ...] = (
    # field, its name in the complaint, the struct it is or what it is when absent
    ("involvedObject", "involvedObject", "ObjectReference"),
    ("reason", "reason", ""),
    ("message", "message", ""),
    ("source", "source", "EventSource"),
    ("firstTimestamp", "firstTimestamp", None),
    ("lastTimestamp", "lastTimestamp", None),
    ("count", "count", 0),
    ("reason", "reason", ""),
    ("type", "type", ""),
    ("eventTime", "eventTime", None),
    ("action", "action", ""),
    ("related", "related", "ObjectReference"),
    ("reportingComponent", "reportingController", ""),
    ("reportingInstance", "reportingInstance", ""),
)


def _changes(errs: Errors, new: Object, old: Object) -> None:
    """Of an event of events.k8s.io only the series goes on."""
    if not equal(new.get("series"), old.get("series")):
        _series(errs, new.get("series"))
    for key, name, kind in _FIXED:
        value, before = new.get(key), old.get(key)
        if isinstance(kind, str) and kind:
            told = shown(kind, None if value is None and key == "related" else value or {})
            checks.immutable(errs, name, value, before, told)
        else:
            checks.immutable(errs, name, kind if value is None else value, kind if before is None else before)


STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("", "events"): EventStrategy(),
    ("events.k8s.io", "events"): EventStrategy(),
}
