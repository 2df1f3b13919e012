"""Eviction: a delete of a Pod that asks the Pod's disruption budget first.

Source: the Eviction API (policy/v1). In upstream's order:
  1. A Pod that runs no more, not yet, or is going away anyway disturbs no budget: it is deleted.
  2. More than one budget for a Pod is an error; none lets it go.
  3. A Pod that is not ready may go without using the budget up, where the budget's policy or its health allows that.
  4. Otherwise the budget's status must be up to date and allow one more disruption, which is then written down before
     the Pod is deleted, conditional on the budget's revision.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import msgpack

from fastkube import errors
from fastkube.api import selectors
from fastkube.errors import ApiError
from fastkube.registry import deletion, listing
from fastkube.registry.binding import SUCCESS
from fastkube.registry.deletion import DeleteOptions
from fastkube.registry.strategy import Call, Companions, Object
from fastkube.store import RevisionMismatch

if TYPE_CHECKING:
    from fastkube.registry.registry import Registry
    from fastkube.store import Item

_ATTEMPTS_MAX = 100
_DISRUPTED_PODS_MAX = 2000
_REFUSAL = "Cannot evict pod as it would violate the pod's disruption budget."
_TWO_BUDGETS = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."


class _Budget(NamedTuple):
    key: bytes
    item: Item
    obj: Object


async def evict(registry: Registry, call: Call, body: Object) -> Object:
    """Raises 404 without such a Pod, 429 when the budget does not allow it (yet), and what a delete raises."""
    metadata = body["metadata"]
    if metadata.get("name") != call.name:
        raise errors.bad_request("name in URL does not match name in Eviction object")
    options, dry_run = DeleteOptions.read(body.get("deleteOptions") or {})
    call.dry_run = call.dry_run or dry_run
    await registry.admission.mutate(call, body, None)
    await registry.admission.validate(call, body, None)
    key = call.rtype.key(call.namespace, call.name)
    for _ in range(_ATTEMPTS_MAX):
        item = registry.store.get(key)
        if item is None:
            raise errors.not_found("", "pods", call.name)
        pod: Object = msgpack.unpackb(item.value)
        try:
            pinned = await _ask_budget(registry, call, pod)
        except RevisionMismatch:
            continue
        try:
            return await _let_go(registry, call, key, item if pinned else None, options)
        except ApiError as error:
            if error.code == 409 and pinned and options.resource_version is None:
                continue  # the Pod changed since its budget was asked
            raise
    raise errors.timeout("couldn't update PodDisruptionBudget due to conflicts", 10)


async def _ask_budget(registry: Registry, call: Call, pod: Object) -> bool:
    """Uses the budget up by one where it has to. True: the verdict holds only for the Pod as it was read."""
    phase = (pod.get("status") or {}).get("phase")
    if phase in ("Succeeded", "Failed", "Pending") or "deletionTimestamp" in pod["metadata"]:
        return True
    budgets = _budgets_of(registry, call, pod)
    if len(budgets) > 1:
        raise ApiError(500, "", _TWO_BUDGETS)
    if not budgets:
        return False
    budget = budgets[0]
    if not _is_ready(pod) and _spares_unready(budget.obj):
        return True
    await _use_up(registry, call, budget)
    return False


def _budgets_of(registry: Registry, call: Call, pod: Object) -> list[_Budget]:
    rtype = registry.catalog.get("policy", "poddisruptionbudgets")
    assert rtype is not None
    keys = listing.key_range(rtype, call.namespace)
    labels = pod["metadata"].get("labels") or {}
    found: list[_Budget] = []
    for item in registry.store.range(keys.start, keys.end).items:
        budget: Object = msgpack.unpackb(item.value)
        selector = (budget.get("spec") or {}).get("selector")
        if selector is not None and selectors.from_object(selector).matches(labels):
            found.append(_Budget(item.key, item, budget))
    return found


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def _spares_unready(budget: Object) -> bool:
    """Whether a Pod that is not ready goes without counting as a disruption."""
    if (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    desired = status.get("desiredHealthy") or 0
    return desired > 0 and (status.get("currentHealthy") or 0) >= desired


async def _use_up(registry: Registry, call: Call, budget: _Budget) -> None:
    """Writes one disruption into the budget's status; 429 when there is none left, RevisionMismatch on a race."""
    metadata, status = budget.obj["metadata"], budget.obj.setdefault("status", {})
    name = metadata["name"]
    allowed = status.get("disruptionsAllowed") or 0
    if (status.get("observedGeneration") or 0) < (metadata.get("generation") or 0):
        raise _refused(f"The disruption budget {name} is still being processed by the server.", retry_after_s=10)
    if allowed < 0:
        raise errors.forbidden("policy", "poddisruptionbudget", name, "pdb disruptions allowed is negative")
    if len(status.get("disruptedPods") or ()) > _DISRUPTED_PODS_MAX:
        problem = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        raise errors.forbidden("policy", "poddisruptionbudget", name, problem)
    if allowed == 0:
        raise _refused(_why_none(name, status))
    status["disruptionsAllowed"] = allowed - 1
    if call.dry_run:
        return
    now = registry.timestamp(call)
    status["disruptedPods"] = {**(status.get("disruptedPods") or {}), call.name: now}
    _set_allowed_condition(status, now)
    await registry.store.update(budget.key, msgpack.packb(budget.obj), budget.item.mod_revision)


def _why_none(name: str, status: Object) -> str:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "DisruptionAllowed" and condition.get("reason") == "SyncFailed":
            why = f"because it failed sync: {condition.get('message', '')}"
            return f"The disruption budget {name} does not allow evicting pods currently {why}"
    desired, current = status.get("desiredHealthy") or 0, status.get("currentHealthy") or 0
    if current <= desired:
        return f"The disruption budget {name} needs {desired} healthy pods and has {current} currently"
    return f"The disruption budget {name} does not allow evicting pods currently"


def _refused(why: str, retry_after_s: int = 0) -> ApiError:
    error = errors.too_many_requests(_REFUSAL, retry_after_s)
    if not retry_after_s:
        error.headers = {}
    details: Object = {"causes": [{"reason": "DisruptionBudget", "message": why}]}
    if retry_after_s:
        details["retryAfterSeconds"] = retry_after_s
    error.details = details
    return error


def _set_allowed_condition(status: Object, now: str) -> None:
    """The condition DisruptionAllowed follows the number; its transition time only its status."""
    any_left = status["disruptionsAllowed"] > 0
    condition: Object = {
        "type": "DisruptionAllowed",
        "status": "True" if any_left else "False",
        "observedGeneration": status.get("observedGeneration") or 0,
        "lastTransitionTime": now,
        "reason": "SufficientPods" if any_left else "InsufficientPods",
        "message": "",
    }
    conditions: list[Object] = [*(status.get("conditions") or ())]
    for index, old in enumerate(conditions):
        if old.get("type") == "DisruptionAllowed":
            if old.get("status") == condition["status"]:
                condition["lastTransitionTime"] = old.get("lastTransitionTime", now)
            conditions[index] = condition
            break
    else:
        conditions.append(condition)
    status["conditions"] = conditions


async def _let_go(registry: Registry, call: Call, key: bytes, pinned: Item | None, options: DeleteOptions) -> Object:
    """Marks the Pod as disrupted and deletes it; where the verdict was for one version only, that version."""
    if pinned is not None and options.resource_version is None:
        options = replace(options, resource_version=str(pinned.mod_revision))
    if not call.dry_run and options.resource_version is None:
        await _mark_disrupted(registry, call, key)
    inner = replace(call, verb="evict", subresource="", companions=Companions())  # no delete that webhooks are told of
    await deletion.delete(registry, inner, options)
    return SUCCESS


async def _mark_disrupted(registry: Registry, call: Call, key: bytes) -> None:
    """Adds the condition DisruptionTarget, by which controllers tell a disruption from a failure."""
    for _ in range(_ATTEMPTS_MAX):
        item = registry.store.get(key)
        if item is None:
            return
        pod: Object = msgpack.unpackb(item.value)
        conditions: list[Object] = pod.setdefault("status", {}).setdefault("conditions", [])
        if any(each.get("type") == "DisruptionTarget" and each.get("status") == "True" for each in conditions):
            return
        target = {
            "type": "DisruptionTarget",
            "status": "True",
            "lastProbeTime": None,
            "lastTransitionTime": registry.timestamp(call),
            "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting",
        }
        conditions[:] = [each for each in conditions if each.get("type") != "DisruptionTarget"] + [target]
        try:
            await registry.store.update(key, msgpack.packb(pod), item.mod_revision)
        except RevisionMismatch:
            continue
        return
