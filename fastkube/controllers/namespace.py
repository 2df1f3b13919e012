"""Namespaces: what is in a terminating namespace is deleted, and the namespace itself when nothing is left.

An attempt asks the server what it serves, then what is left of each resource; deletes that (Pods first, so that
nothing they need goes before them); and tells in conditions what is still in the way. When nothing is left, the
finalizer "kubernetes" is removed from spec, which lets the server remove the namespace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

from fastkube.client.discovery import ApiResource, Discovery
from fastkube.client.resource import collection_path
from fastkube.clock import rfc3339
from fastkube.controllers.actions import (
    GONE,
    Action,
    Ask,
    DeleteAll,
    Discover,
    Requeue,
    Together,
    Update,
    status_update,
)
from fastkube.controllers.caches import Caches
from fastkube.controllers.common import PODS, Object, Objects, condition, is_terminating
from fastkube.controllers.runner import Context, Controller, Watch
from fastkube.controllers.serviceaccount import NAMESPACES

FINALIZER = "kubernetes"
SAMPLE = 500
"""How many leftovers of a resource are looked at; their number is told by the server."""
LOOK_AGAIN_S = 0.2
LOOK_AGAIN_MAX_S = 15.0
_PODS = ("", "pods")


class View(NamedTuple):
    namespace: Object
    now: float
    live: dict[str, Any] = {}  # noqa: RUF012 - never changed, only replaced


def view(context: Context, key: str) -> View | None:
    namespace = context.caches.by_key(NAMESPACES, key)
    if namespace is None or not is_terminating(namespace):
        return None
    return View(namespace, context.now)


def reconcile(view: View) -> Sequence[Action]:
    namespace = view.namespace
    finalizers = namespace["spec"].get("finalizers") or []
    if FINALIZER not in finalizers:
        return ()
    if (namespace.get("status") or {}).get("phase") != "Terminating":
        status = {**(namespace.get("status") or {}), "phase": "Terminating"}
        return [status_update(NAMESPACES, namespace, status, ignore=GONE)]
    discovery: Discovery | None = view.live.get(Discover.KEY)
    if discovery is None:
        return [Discover()]
    name = namespace["metadata"]["name"]
    resources = [found for found in discovery.preferred("list", "delete") if found.namespaced]
    paths = {found: f"{collection_path(found.resource, name)}?{urlencode({'limit': SAMPLE})}" for found in resources}
    missing = [path for path in paths.values() if path not in view.live]
    if missing:
        return [Ask(path, metadata_only=True) for path in missing]
    survey = _Survey({found: view.live[path] for found, path in paths.items() if view.live[path] is not None})
    if not survey.left and not discovery.failed:
        return _finalize(view, survey, discovery)
    return _delete(view, survey, discovery)


class _Survey:
    """What is left in the namespace, by resource."""

    def __init__(self, lists: dict[ApiResource, Object]) -> None:
        self.left: dict[ApiResource, Objects] = {}
        self.counts: dict[ApiResource, int] = {}
        for found, answer in lists.items():
            items = answer.get("items") or []
            if items:
                self.left[found] = items
                self.counts[found] = len(items) + int(answer["metadata"].get("remainingItemCount") or 0)

    @property
    def pods(self) -> Objects:
        found = [items for known, items in self.left.items() if (known.resource.group, known.resource.plural) == _PODS]
        return found[0] if found else []

    def finalizers(self) -> Counter[str]:
        """How many objects each finalizer keeps."""
        return Counter(
            finalizer
            for items in self.left.values()
            for item in items
            for finalizer in item["metadata"].get("finalizers") or ()
        )


def _delete(view: View, survey: _Survey, discovery: Discovery) -> Sequence[Action]:
    """Delete what has not been told to go yet; Pods before everything else."""
    name = view.namespace["metadata"]["name"]
    deletions: list[Action] = []
    for found, items in survey.left.items():
        is_pods = (found.resource.group, found.resource.plural) == _PODS
        if survey.pods and not is_pods:
            continue
        if survey.counts[found] > len(items) or not all(map(is_terminating, items)):
            deletions.append(DeleteAll(str(found.resource), name))
    status = _status(view, survey, discovery)
    actions: list[Action] = [Together(deletions)] if deletions else []
    if status != view.namespace["status"]:
        actions.append(status_update(NAMESPACES, view.namespace, status, ignore=GONE))
    return [*actions, Requeue(_pause(survey))]


def _pause(survey: _Survey) -> float:
    """Soon, if nothing but deletion itself is in the way; else as long as the Pods' grace periods let expect."""
    grace = max((pod["metadata"].get("deletionGracePeriodSeconds") or 0 for pod in survey.pods), default=0)
    if survey.finalizers():
        return LOOK_AGAIN_MAX_S / 3
    return min(LOOK_AGAIN_MAX_S, max(LOOK_AGAIN_S, grace / 10))


def _finalize(view: View, survey: _Survey, discovery: Discovery) -> Sequence[Action]:
    namespace = view.namespace
    kept = [finalizer for finalizer in namespace["spec"]["finalizers"] if finalizer != FINALIZER]
    spec = {**namespace["spec"], "finalizers": kept}
    finalize = Update(NAMESPACES, {**namespace, "spec": spec}, subresource="finalize", ignore=GONE)
    if not kept and not (namespace["metadata"].get("finalizers") or []):
        return [finalize]
    # somebody else's finalizer keeps the namespace: it must not tell of contents that are gone
    status = _status(view, survey, discovery)
    return [finalize] if status == namespace["status"] else [status_update(NAMESPACES, namespace, status), finalize]


# ---------------------------------------------------------------- conditions


def _status(view: View, survey: _Survey, discovery: Discovery) -> Object:
    status = dict(view.namespace["status"])
    conditions = []
    for told in _conditions(survey, discovery):
        known = condition(view.namespace, told["type"])
        told["lastTransitionTime"] = rfc3339(view.now)
        if known is not None and all(known.get(key) == told[key] for key in ("status", "reason", "message")):
            told = known
        elif known is not None and known["status"] == told["status"]:
            told["lastTransitionTime"] = known["lastTransitionTime"]
        conditions.append(told)
    return {**status, "conditions": conditions}


def _conditions(survey: _Survey, discovery: Discovery) -> Objects:
    return [_discovered(discovery), _parsed(), _deleted(), _remaining(survey), _held(survey)]


def _told(kind: str, status: str, reason: str, message: str) -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def _discovered(discovery: Discovery) -> Object:
    kind = "NamespaceDeletionDiscoveryFailure"
    if not discovery.failed:
        return _told(kind, "False", "ResourcesDiscovered", "All resources successfully discovered")
    told = ", ".join(f"{group}: {why}" for group, why in sorted(discovery.failed.items()))
    message = f"Discovery failed for some groups, {len(discovery.failed)} failing: unable to retrieve the complete "
    return _told(kind, "True", "DiscoveryFailed", f"{message}list of server APIs: {told}")


def _parsed() -> Object:
    message = "All legacy kube types successfully parsed"
    return _told("NamespaceDeletionGroupVersionParsingFailure", "False", "ParsedGroupVersions", message)


def _deleted() -> Object:
    message = "All content successfully deleted, may be waiting on finalization"
    return _told("NamespaceDeletionContentFailure", "False", "ContentDeleted", message)


def _remaining(survey: _Survey) -> Object:
    kind = "NamespaceContentRemaining"
    if not survey.counts:
        return _told(kind, "False", "ContentRemoved", "All content successfully removed")
    counted = [
        f"{found.resource.plural}.{found.resource.group} has {count} resource instances"
        for found, count in survey.counts.items()
    ]
    return _told(kind, "True", "SomeResourcesRemain", f"Some resources are remaining: {', '.join(sorted(counted))}")


def _held(survey: _Survey) -> Object:
    kind = "NamespaceFinalizersRemaining"
    held = survey.finalizers()
    if not held:
        return _told(kind, "False", "ContentHasNoFinalizers", "All content-preserving finalizers finished")
    counted = [f"{finalizer} in {count} resource instances" for finalizer, count in sorted(held.items())]
    message = f"Some content in the namespace has finalizers remaining: {', '.join(counted)}"
    return _told(kind, "True", "SomeFinalizersRemain", message)


def _emptied(caches: Caches, pod: Object) -> Sequence[str]:
    """A terminating namespace whose last Pod has gone need not wait any longer."""
    name = pod["metadata"]["namespace"]
    namespace = caches.get(NAMESPACES, "", name)
    if namespace is None or not is_terminating(namespace) or caches.index(PODS, "namespace", name):
        return ()
    return (name,)


CONTROLLER = Controller(
    name="namespace-controller",
    watches=(Watch(NAMESPACES), Watch(PODS, _emptied, ("namespace",), additions=False, updates=False)),
    view=view,
    reconcile=reconcile,
    workers="concurrent_namespace_syncs",
)
