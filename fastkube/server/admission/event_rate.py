"""EventRateLimit: how many Events a second the server, a namespace, a user or a source may write."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastkube.api.field import quote
from fastkube.errors import ApiError
from fastkube.server.admission.configuration import Configurations, only
from fastkube.server.admission.plugin import CREATE, UPDATE, Identity, Plugin
from fastkube.server.token_bucket import TokenBucket

if TYPE_CHECKING:
    from fastkube.registry.strategy import Call, Object

_KIND = ("Configuration", "eventratelimit.admission.k8s.io", ("v1alpha1",))
_CACHE_SIZE = 4096
_EVENTS: tuple[Identity, ...] = (("", "events", ""), ("events.k8s.io", "events", ""))


class _Limit:
    """One entry of the configuration: a bucket for each key, the least lately used are forgotten."""

    def __init__(self, kind: str, qps: int, burst: int, size: int) -> None:
        self.kind = kind
        self._key = _KEYS[kind]
        self._qps, self._burst, self._size = qps, burst, size
        self._buckets: dict[str, TokenBucket] = {}

    def problem(self, call: Call, obj: Object, now: float) -> str:
        """ "" for an Event that is within the limit, which then is counted."""
        key = self._key(call, obj)
        bucket = self._buckets.pop(key, None) or TokenBucket(self._qps, self._burst, now)
        self._buckets[key] = bucket
        if len(self._buckets) > self._size:
            del self._buckets[next(iter(self._buckets))]
        return "" if bucket.take(now) else f"limit reached on type {self.kind} for key {key}"


def _source_and_object(call: Call, event: Object) -> str:
    source = event.get("source") or event.get("deprecatedSource") or {}
    about = event.get("involvedObject") or event.get("regarding") or {}
    parts = [source.get("component"), source.get("host")]
    parts += [about.get(key) for key in ("kind", "namespace", "name", "uid", "apiVersion")]
    return "".join(part or "" for part in parts)


_KEYS: dict[str, Callable[[Call, Object], str]] = {
    "Server": lambda call, event: "",
    "Namespace": lambda call, event: call.namespace,
    "User": lambda call, event: call.user.name,
    "SourceAndObject": _source_and_object,
}


class EventRateLimit(Plugin):
    name = "EventRateLimit"
    validates = True

    def __init__(self, configurations: Configurations, monotonic: Callable[[], float]) -> None:
        """Raises ValueError: without limits it cannot run."""
        document = configurations.of(self.name, *_KIND)
        if document is None:
            raise ValueError("EventRateLimit: limits must be given by --admission-control-config-file")
        only(document, "", "limits")
        limits = document.get("limits") or []
        if not limits:
            raise ValueError("limits: Invalid value: null: must not be empty")
        self._limits = [_limit(entry, f"limits[{number}]") for number, entry in enumerate(limits)]
        self._monotonic = monotonic

    def handles(self, target: Identity, operation: str) -> bool:
        return target in _EVENTS and operation in (CREATE, UPDATE)

    def validate(self, call: Call, obj: Object, old: Object | None) -> None:
        if call.dry_run:
            return
        now = self._monotonic()
        problems = [problem for limit in self._limits if (problem := limit.problem(call, obj, now))]
        if problems:
            told = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
            raise ApiError(429, "TooManyRequests", told)


def _limit(entry: Any, path: str) -> _Limit:
    only(entry, path, "type", "qps", "burst", "cacheSize")
    kind, size = str(entry.get("type") or ""), entry.get("cacheSize") or 0
    if kind not in _KEYS:
        known = ", ".join(quote(name) for name in sorted(_KEYS))
        raise ValueError(f"{path}.type: Unsupported value: {quote(kind)}: supported values: {known}")
    for field in ("burst", "qps"):
        if (entry.get(field) or 0) <= 0:
            raise ValueError(f"{path}.{field}: Invalid value: {entry.get(field) or 0}: must be positive")
    if size < 0 and kind != "Server":
        raise ValueError(f"{path}.cacheSize: Invalid value: {size}: must not be negative")
    return _Limit(kind, entry["qps"], entry["burst"], size or _CACHE_SIZE)
