"""ResourceQuotas: what the objects of a namespace use, counted anew whenever use may have fallen or limits changed.

Use that grows with creations is written by admission, together with the object (server/admission/quota.py). Of Pods,
Services and claims the copies are counted; how many there are of anything else the server is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from fastkube.api import quantity
from fastkube.api.amounts import Amounts, add
from fastkube.api.quota import counted, evaluator_of, matches
from fastkube.client import object_key
from fastkube.client.resource import Resource, collection_path, parse
from fastkube.controllers.actions import GONE, Action, Ask, status_update
from fastkube.controllers.caches import Caches
from fastkube.controllers.common import PODS, Object, Objects, is_finished
from fastkube.controllers.pod_topics import PHASE
from fastkube.controllers.runner import Context, Controller, Watch
from fastkube.controllers.services import SERVICES
from fastkube.controllers.statefulset import CLAIMS

QUOTAS = "v1/resourcequotas"

_MEASURED = (PODS, SERVICES, CLAIMS)


class View(NamedTuple):
    quota: Object
    objects: dict[str, Objects]
    """Those of the namespace, by resource, whose kind uses more than a place in a count."""
    counts: dict[str, str]
    """Where to ask for the number of others: {name in the quota: path}."""
    now: float
    live: dict[str, Any] = {}  # noqa: RUF012 - never changed, only replaced


def view(context: Context, key: str) -> View | None:
    caches = context.caches
    quota = caches.by_key(QUOTAS, key)
    if quota is None:
        return None
    namespace = quota["metadata"]["namespace"]
    objects = {resource: caches.index(resource, "namespace", namespace) for resource in _MEASURED}
    return View(quota, objects, _counts(context, quota, namespace), context.now)


def _counts(context: Context, quota: Object, namespace: str) -> dict[str, str]:
    served = {(found.resource.group, found.resource.plural): found for found in context.facts.discovery.preferred()}
    paths: dict[str, str] = {}
    for name in quota["spec"].get("hard") or ():
        target = counted(name)
        found = served.get(target) if target is not None else None
        if found is not None and found.namespaced and str(found.resource) not in _MEASURED:
            paths[name] = f"{collection_path(found.resource, namespace)}?limit=1"
    return paths


def reconcile(view: View) -> Sequence[Action]:
    scoped = "scopes" in view.quota["spec"] or "scopeSelector" in view.quota["spec"]
    if not scoped and (unknown := [path for path in view.counts.values() if path not in view.live]):
        return [Ask(path, metadata_only=True) for path in dict.fromkeys(unknown)]
    limits: Amounts = view.quota["spec"].get("hard") or {}
    status = view.quota.get("status") or {}
    used = {name: amount for name, amount in (status.get("used") or {}).items() if name in limits}
    for resource, objects in view.objects.items():
        used |= _measure(view, resource, objects, limits)
    for name, path in view.counts.items():
        used[name] = "0" if scoped else str(_number(view.live[path]))
    if status.get("hard") == limits and _same(used, status.get("used")):
        return ()
    return [status_update(QUOTAS, view.quota, {"hard": limits, "used": used}, ignore=GONE)]


def _measure(view: View, resource: str, objects: Objects, limits: Amounts) -> Amounts:
    """What the objects of one kind use of what is limited; nothing is told as 0."""
    kind: Resource = parse(resource)
    evaluator = evaluator_of(kind.group, kind.plural)
    names = [name for name in limits if evaluator.concerns(name)]
    total: Amounts = dict.fromkeys(names, "0")
    if names:
        for obj in objects:
            if matches(view.quota, obj, evaluator):
                usage = evaluator.usage(obj, view.now)
                total = add(total, {name: amount for name, amount in usage.items() if name in total})
    return total


def _number(listed: Object | None) -> int:
    """How many objects a list with a limit of one stands for."""
    if listed is None:
        return 0
    return len(listed.get("items") or ()) + int(listed["metadata"].get("remainingItemCount") or 0)


def _same(left: Amounts, right: Amounts | None) -> bool:
    if right is None or left.keys() != right.keys():
        return False
    return all(quantity.cmp(amount, right[name]) == 0 for name, amount in left.items())


def _quotas_of(caches: Caches, obj: Object) -> Iterable[str]:
    namespace = obj["metadata"].get("namespace")
    return [object_key(quota) for quota in caches.index(QUOTAS, "namespace", namespace)] if namespace else ()


def _limits_changed(old: Object, new: Object) -> bool:
    return bool(old["spec"] != new["spec"] or (new.get("status") or {}).get("hard") != new["spec"].get("hard"))


def _ended(old: Object, new: Object) -> bool:
    return is_finished(old) != is_finished(new)


def _respecified(old: Object, new: Object) -> bool:
    return bool(old["spec"] != new["spec"])


def _resized(old: Object, new: Object) -> bool:
    return bool(old["spec"] != new["spec"] or old.get("status") != new.get("status"))


CONTROLLER = Controller(
    name="resourcequota-controller",
    watches=(
        Watch(QUOTAS, indexes=("namespace",), changed=_limits_changed),
        Watch(PODS, _quotas_of, ("namespace",), changed=_ended, additions=False, about=(PHASE,)),
        Watch(SERVICES, _quotas_of, ("namespace",), changed=_respecified, additions=False),
        Watch(CLAIMS, _quotas_of, ("namespace",), changed=_resized, additions=False),
    ),
    any_deletion=_quotas_of,
    view=view,
    reconcile=reconcile,
    workers="concurrent_resource_quota_syncs",
    resync="resource_quota_sync_period_s",
)
