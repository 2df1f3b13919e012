"""ResourceQuota: the objects of a namespace together may not use more than its quotas allow.

The new usage is written in the same transaction as the object itself, on the condition that the quota is still as it
was read: two requests can never both take what is left, and a create that fails uses nothing. Requests that count in
the same namespace take turns, since all but one of them would find the quota changed and have to begin again.

Usage that falls (deletions, Pods that end) is found by the resource quota controller, as is that of objects which were
there before the quota.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import msgpack

from fastkube.api import quantity
from fastkube.api.amounts import Amounts, add
from fastkube.api.quota import Evaluator, evaluator_of, hard, matches, rest
from fastkube.server.admission.configuration import Configurations, only
from fastkube.server.admission.plugin import CREATE, UPDATE, Identity, Plugin, forbid
from fastkube.store import Compare, Put

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from fastkube.registry.strategy import Call, Object
    from fastkube.server.admission.lookup import Kept, Lookups

_KIND = ("ResourceQuotaConfiguration", "apiserver.config.k8s.io", ("v1",))
_RESIZE: Identity = ("", "pods", "resize")


class _Charge(NamedTuple):
    """A quota that an object is counted in, and its usage with the object."""

    key: bytes
    revision: int
    quota: Object
    used: Amounts


class ResourceQuota(Plugin):
    name = "ResourceQuota"
    validates = True
    by_shape = True

    def __init__(self, lookups: Lookups, configurations: Configurations) -> None:
        """Raises ValueError for a configuration that cannot be."""
        document = configurations.of(self.name, *_KIND)
        self._limited = _limited(document) if document is not None else ()
        self._store = lookups.store
        self._quotas = lookups.quotas
        self._evaluators: dict[tuple[str, str], Evaluator] = {}
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def handles(self, target: Identity, operation: str) -> bool:
        if target == _RESIZE:
            return operation == UPDATE
        if target[2]:
            return False
        return operation == CREATE or (operation == UPDATE and self._evaluator(target).counts_updates)

    def by_more(self, namespace: str) -> bool:
        """A quota has to be charged, or there has to be one."""
        return bool(self._limited or self._quotas.of(namespace))

    def _evaluator(self, target: Identity) -> Evaluator:
        found = self._evaluators.get(target[:2])
        if found is None:
            found = self._evaluators[target[:2]] = evaluator_of(*target[:2])
        return found

    def validate(self, call: Call, obj: Object, old: Object | None) -> Awaitable[None] | None:
        if not call.namespace or not call.rtype.persisted:
            return None
        if self._limited:
            return self._take_turn(call, obj, old, self._evaluator((call.rtype.group, call.rtype.resource, "")))
        if not self._quotas.of(call.namespace):
            return None
        evaluator = self._evaluator((call.rtype.group, call.rtype.resource, ""))
        quotas = self._quotas.of(call.namespace).values()
        if not any(_concerned(kept.obj, evaluator) for kept in quotas):
            return None
        return self._take_turn(call, obj, old, evaluator)

    async def _take_turn(self, call: Call, obj: Object, old: Object | None, evaluator: Evaluator) -> None:
        """Checks and charges; the turn ends when the write is done (or given up)."""
        turn = self._turns.get(call.namespace)
        if turn is None:
            turn = self._turns[call.namespace] = asyncio.Lock()
        await turn.acquire()
        call.companions.finish.append(turn.release)
        charges = self._charges(call, obj, old, evaluator)
        if call.dry_run:
            return
        for charge in charges:
            quota = {**charge.quota, "status": {**charge.quota["status"], "used": charge.used}}
            call.companions.compares.append(Compare(charge.key, "mod", "=", charge.revision))
            call.companions.ops.append(Put(charge.key, msgpack.packb(quota)))

    def _charges(self, call: Call, obj: Object, old: Object | None, evaluator: Evaluator) -> list[_Charge]:
        """The quotas with their new usage. Raises 403 for what one of them does not allow."""
        concerned = [
            kept
            for _, kept in sorted(self._quotas.of(call.namespace).items())
            if _concerned(kept.obj, evaluator) and matches(kept.obj, obj, evaluator)
        ]
        for kept in concerned:
            _check_stated(call, obj, kept, evaluator)
        usage = evaluator.usage(obj, call.now)
        delta = rest(usage, evaluator.usage(old, call.now) if old is not None else {})
        if not delta:
            return []
        if self._limited:
            quotas = [kept.obj for kept in self._quotas.of(call.namespace).values()]
            covering = {name for kept in concerned for name in hard(kept.obj) if evaluator.concerns(name)}
            _check_covered(call, obj, self._limited, usage, covering, quotas, evaluator)
        charges = (_charge(call, obj, kept, delta) for kept in concerned)
        return [charge for charge in charges if charge is not None]


class _Limited(NamedTuple):
    """What may only be used under a quota that covers it: resources by parts of their names, and scopes."""

    group: str
    resource: str
    contains: tuple[str, ...]
    scopes: tuple[Object, ...]


def _limited(document: Object) -> tuple[_Limited, ...]:
    """The `limitedResources` of a ResourceQuotaConfiguration; raises ValueError."""
    only(document, "", "limitedResources")
    found = []
    for number, entry in enumerate(document.get("limitedResources") or ()):
        path = f"limitedResources[{number}]"
        only(entry, path, "apiGroup", "resource", "matchContains", "matchScopes")
        if not entry.get("resource"):
            raise ValueError(f"{path}.resource: Required value")
        contains, scopes = tuple(entry.get("matchContains") or ()), tuple(entry.get("matchScopes") or ())
        found.append(_Limited(entry.get("apiGroup") or "", entry["resource"], contains, scopes))
    return tuple(found)


def _check_covered(
    call: Call,
    obj: Object,
    limited: tuple[_Limited, ...],
    usage: Amounts,
    covering: set[str],
    quotas: list[Object],
    evaluator: Evaluator,
) -> None:
    """Raises 403 for what is limited and used without a quota for it."""
    rtype = call.rtype
    needed = {
        name
        for each in limited
        if (each.group, each.resource) == (rtype.group, rtype.resource)
        for name, amount in usage.items()
        if quantity.milli(amount) > 0 and any(part in name for part in each.contains)
    }
    if needed - covering:
        raise forbid(call, obj, f"insufficient quota to consume: {','.join(sorted(needed - covering))}")
    wanted = [scope for each in limited for scope in each.scopes if _is_in(obj, scope, evaluator)]
    given = [scope for quota in quotas for scope in _scopes_of(quota) if _is_in(obj, scope, evaluator)]
    uncovered = [scope for scope in wanted if scope["scopeName"] not in {one["scopeName"] for one in given}]
    if uncovered:
        told = " ".join(_scope_text(scope) for scope in uncovered)
        raise forbid(call, obj, f"insufficient quota to match these scopes: [{told}]")


def _is_in(obj: Object, scope: Object, evaluator: Evaluator) -> bool:
    return evaluator.in_scope(obj, scope["scopeName"], scope.get("operator") or "Exists", scope.get("values") or [])


def _scopes_of(quota: Object) -> list[Object]:
    spec = quota.get("spec") or {}
    named: list[Object] = [{"scopeName": name} for name in spec.get("scopes") or ()]
    return named + ((spec.get("scopeSelector") or {}).get("matchExpressions") or [])


def _scope_text(scope: Object) -> str:
    """As Go prints a ScopedResourceSelectorRequirement."""
    return f"{{{scope['scopeName']} {scope.get('operator') or ''} [{' '.join(scope.get('values') or ())}]}}"


def _concerned(quota: Object, evaluator: Evaluator) -> bool:
    return any(evaluator.concerns(name) for name in hard(quota))


def _check_stated(call: Call, obj: Object, kept: Kept, evaluator: Evaluator) -> None:
    name = kept.obj["metadata"]["name"]
    names = [resource for resource in hard(kept.obj) if evaluator.concerns(resource)]
    unstated = evaluator.unstated(obj, names)
    if unstated:
        raise forbid(call, obj, f"failed quota: {name}: {unstated}")
    used = kept.obj["status"].get("used") or {}
    unknown = sorted(resource for resource in names if resource not in used)
    if unknown:
        raise forbid(call, obj, f"status unknown for quota: {name}, resources: {','.join(unknown)}")


def _charge(call: Call, obj: Object, kept: Kept, delta: Amounts) -> _Charge | None:
    limits = hard(kept.obj)
    requested = {name: amount for name, amount in delta.items() if name in limits}
    if not requested:
        return None
    before: Amounts = kept.obj["status"].get("used") or {}
    used = add(before, requested)
    exceeded = sorted(name for name in requested if quantity.cmp(used[name], limits[name]) > 0)
    growing = [name for name in exceeded if quantity.milli(requested[name]) > 0]
    if growing:
        told = f"requested: {_told(requested, growing)}, used: {_told(before, growing)}"
        limited = f"limited: {_told(limits, growing)}"
        raise forbid(call, obj, f"exceeded quota: {kept.obj['metadata']['name']}, {told}, {limited}")
    return _Charge(kept.key, kept.revision, kept.obj, used)


def _told(amounts: Amounts, names: Iterable[str]) -> str:
    return ",".join(f"{name}={quantity.canonical(amounts.get(name, '0'))}" for name in names)
