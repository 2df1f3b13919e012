"""What several controllers need to know about Pods, owners, conditions and templates: pure functions over dicts."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cmp_to_key, lru_cache
from typing import Any, NamedTuple

import orjson

from fastkube.api import selectors
from fastkube.api.meta import controller_of, owner_reference
from fastkube.api.selectors import LabelSelector
from fastkube.client import object_key
from fastkube.client.resource import object_path, parse
from fastkube.clock import rfc3339
from fastkube.controllers.actions import GONE, Action, Ask, Patch
from fastkube.controllers.caches import Caches
from fastkube.controllers.runner import Keys

Object = dict[str, Any]
Objects = list[Object]

PODS = "v1/pods"

_SAFE_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


@lru_cache(maxsize=65536)
def seconds(timestamp: str) -> float:
    """Seconds since the epoch of an RFC 3339 time as the server writes it."""
    return datetime.fromisoformat(timestamp).timestamp()


# ---------------------------------------------------------------- names and hashes


def safe_encode(text: str) -> str:
    """`text` in letters which cannot form words: what upstream makes name suffixes from."""
    return "".join(_SAFE_ALPHABET[ord(char) % len(_SAFE_ALPHABET)] for char in text)


def template_hash(template: Object, collisions: int = 0) -> str:
    """A short name suffix for a Pod template; another one for each number of `collisions` of names."""
    data = orjson.dumps(template, option=orjson.OPT_SORT_KEYS)
    digest = hashlib.blake2b(data, digest_size=4, salt=collisions.to_bytes(8, "big")).digest()
    return safe_encode(str(int.from_bytes(digest, "big")))


# ---------------------------------------------------------------- conditions


def condition(obj: Object, kind: str) -> Object | None:
    """The condition of that type in an object's status."""
    for found in (obj.get("status") or {}).get("conditions") or ():
        if found["type"] == kind:
            return found  # type: ignore[no-any-return]
    return None


def condition_is(obj: Object, kind: str, status: str = "True") -> bool:
    found = condition(obj, kind)
    return found is not None and found.get("status") == status


def set_condition(conditions: Sequence[Object], new: Object) -> Objects:
    """The list with `new` in the place of the one of its type, or at the end."""
    if not any(known["type"] == new["type"] for known in conditions):
        return [*conditions, new]
    return [new if known["type"] == new["type"] else known for known in conditions]


def make_condition(kind: str, status: str, reason: str, message: str, now: float) -> Object:
    """A condition that changed now."""
    made: Object = {"type": kind, "status": status, "lastTransitionTime": rfc3339(now)}
    if reason:
        made["reason"] = reason
    if message:
        made["message"] = message
    return made


# ---------------------------------------------------------------- Pods


def phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase") or "")


def is_terminating(obj: Object) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def is_finished(pod: Object) -> bool:
    return phase(pod) in ("Succeeded", "Failed")


def is_active(pod: Object) -> bool:
    """Neither finished nor being deleted: what counts against the wanted number."""
    return not is_finished(pod) and not is_terminating(pod)


def is_ready(pod: Object) -> bool:
    return condition_is(pod, "Ready")


def ready_since(pod: Object) -> float | None:
    """When the Pod became ready, in seconds; None if it is not."""
    found = condition(pod, "Ready")
    if found is None or found.get("status") != "True":
        return None
    since = found.get("lastTransitionTime")
    return seconds(since) if since else 0.0


def available_in(pod: Object, min_ready_s: int, now: float) -> float | None:
    """Seconds until the Pod is available (0: it is), None while it is not ready."""
    since = ready_since(pod)
    if since is None:
        return None
    return max(0.0, since + min_ready_s - now) if min_ready_s else 0.0


def restarts(pod: Object) -> int:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return max((status.get("restartCount", 0) for status in statuses), default=0)


_PHASE_ORDER = {"Pending": 0, "Unknown": 1, "": 1, "Running": 2}


class _Rank(NamedTuple):
    """What the order of deletion looks at, least first."""

    bound: bool
    phase: int
    ready: bool
    cost: int
    company: int
    ready_at: float
    restarts: int
    made_at: float
    uid: str


def deletion_order(pods: Iterable[Object], company: dict[str, int], now: float) -> Objects:
    """Pods in the order in which a scale-down takes them; `company`: how many related Pods each node runs.

    Upstream's order: unbound, pending, not ready, cheaper by the annotation pod-deletion-cost, on fuller nodes, ready
    for less time, restarted more often, younger; times are compared by magnitude, so that ties are spread by uid.
    """

    def compare(left: _Rank, right: _Rank) -> int:
        return _compare(left, right, now)

    order = cmp_to_key(compare)
    return sorted(pods, key=lambda pod: order(_rank(pod, company)))


def _rank(pod: Object, company: dict[str, int]) -> _Rank:
    metadata = pod["metadata"]
    node = pod["spec"].get("nodeName") or ""
    since = ready_since(pod)
    cost = (metadata.get("annotations") or {}).get("controller.kubernetes.io/pod-deletion-cost", "0")
    return _Rank(
        bound=bool(node),
        phase=_PHASE_ORDER.get(phase(pod), 0),
        ready=since is not None,
        cost=int(cost) if cost.lstrip("-").isdigit() else 0,
        company=-company.get(node, 0),
        ready_at=since or 0.0,
        restarts=-restarts(pod),
        made_at=seconds(metadata["creationTimestamp"]),
        uid=metadata["uid"],
    )


def _compare(left: _Rank, right: _Rank, now: float) -> int:
    if left[:5] != right[:5]:
        return -1 if left[:5] < right[:5] else 1
    if left.ready and left.ready_at != right.ready_at:
        return _compare_ages(left.ready_at, right.ready_at, left.uid, right.uid, now)
    if left.restarts != right.restarts:
        return -1 if left.restarts < right.restarts else 1
    if left.made_at != right.made_at:
        return _compare_ages(left.made_at, right.made_at, left.uid, right.uid, now)
    return 0


def _compare_ages(left: float, right: float, left_uid: str, right_uid: str, now: float) -> int:
    """Younger first by powers of two; the uid decides within one."""
    difference = _magnitude(now - left) - _magnitude(now - right)
    return difference or (-1 if left_uid < right_uid else 1)


def _magnitude(age_s: float) -> int:
    return int(math.log2(age_s * 1e9)) if age_s > 0 else -1


def pod_from_template(template: Object, owner: Object, *, name: str = "", prefix: str = "") -> Object:
    """A Pod of `owner`, which controls it: named, or with a generated name from `prefix`."""
    metadata: Object = {"namespace": owner["metadata"]["namespace"]}
    if name:
        metadata["name"] = name
    else:
        metadata["generateName"] = prefix
    given = template.get("metadata") or {}
    for key in ("labels", "annotations", "finalizers"):
        if given.get(key):
            metadata[key] = given[key]
    metadata["ownerReferences"] = [owner_reference(owner)]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


# ---------------------------------------------------------------- owners: adoption and release


def controlled_by(kind: str) -> Keys:
    """Keys: the controller of the object, where it is of that kind."""

    def keys(_caches: Caches, obj: Object) -> Iterable[str]:
        ref = controller_of(obj)
        if ref is not None and ref["kind"] == kind:
            return (f"{obj['metadata']['namespace']}/{ref['name']}",)
        return ()

    return keys


def controlled_by_or_matching(kind: str, resource: str) -> Keys:
    """Keys: the controller of the object; of an orphan those of that resource which would adopt it."""

    def keys(caches: Caches, obj: Object) -> Iterable[str]:
        ref = controller_of(obj)
        if ref is not None:
            return (f"{obj['metadata']['namespace']}/{ref['name']}",) if ref["kind"] == kind else ()
        labels = obj["metadata"].get("labels")
        if not labels or is_terminating(obj):
            return ()
        namespace = obj["metadata"]["namespace"]
        if not caches.is_indexed(resource, "namespace", namespace):
            return ()
        candidates = caches.index(resource, "namespace", namespace)
        return [object_key(owner) for owner in candidates if selector_of(owner).matches(labels)]

    return keys


_MAP_SELECTORS = frozenset({"Service", "ReplicationController"})


@lru_cache(maxsize=16384)
def _label_selector(selector: bytes) -> LabelSelector:
    return selectors.from_object(orjson.loads(selector))


@lru_cache(maxsize=16384)
def _map_selector(selector: bytes) -> LabelSelector:
    return selectors.from_labels(orjson.loads(selector))


def selector_of(owner: Object) -> LabelSelector:
    """The compiled spec.selector of a workload or Service; an absent one matches nothing."""
    selector = owner["spec"].get("selector")
    if selector is None:
        return selectors.NOTHING
    parsed = _map_selector if owner["kind"] in _MAP_SELECTORS else _label_selector
    return parsed(orjson.dumps(selector))


def selector_text(selector: Object | None) -> str:
    """A selector as Go prints one in an event."""
    if selector is None:
        return "nil"
    labels = "".join(f"{key}: {value}," for key, value in sorted((selector.get("matchLabels") or {}).items()))
    terms = "".join(
        f"LabelSelectorRequirement{{Key:{term['key']},Operator:{term['operator']},"
        f"Values:[{' '.join(term.get('values') or ())}],}},"
        for term in selector.get("matchExpressions") or ()
    )
    listed = f"MatchExpressions:[]LabelSelectorRequirement{{{terms}}}"
    return f"&LabelSelector{{MatchLabels:map[string]string{{{labels}}},{listed},}}"


class Claimed(NamedTuple):
    """What an owner controls after adoption and release; `asks` first, if it must be known whether it may adopt."""

    objects: Objects
    actions: list[Action]
    asks: list[Action]


def claim(
    resource: str,
    owner: Object,
    owner_resource: str,
    owned: Iterable[Object],
    orphans: Iterable[Object],
    live: dict[str, Any],
    *,
    finalizers: Sequence[str] = (),
    accepts: Any = None,
) -> Claimed:
    """Keep what matches the selector, release what no longer does, adopt matching orphans.

    An owner that is being deleted neither adopts nor releases; before it adopts, the server is asked whether it is
    still there, since a cache may not know yet. `accepts` may refuse orphans for more reasons than their labels.
    """
    selector = selector_of(owner)
    deleting = is_terminating(owner)
    objects: Objects = []
    actions: list[Action] = []
    known: dict[int, bool] = {}  # by the ids of labels, which most Pods of a template share
    for obj in owned:
        labels = obj["metadata"].get("labels")
        matches = known.get(id(labels))
        if matches is None:
            matches = known[id(labels)] = selector.matches(labels)
        if matches:
            objects.append(obj)
        elif not deleting:
            actions.append(_release(resource, obj, owner))
    if deleting:
        return Claimed(objects, actions, [])
    wanted = [
        obj
        for obj in orphans
        if not is_terminating(obj)
        and selector.matches(obj["metadata"].get("labels"))
        and (accepts is None or accepts(obj))
    ]
    if wanted:
        metadata = owner["metadata"]
        path = object_path(owner_resource, metadata["namespace"], metadata["name"])
        if path not in live:
            return Claimed(objects, [], [Ask(path)])
        fresh = live[path]
        if fresh is None or fresh["metadata"]["uid"] != metadata["uid"] or is_terminating(fresh):
            return Claimed(objects, actions, [])
        actions += [_adopt(resource, obj, owner, finalizers) for obj in wanted]
        objects += wanted
    return Claimed(objects, actions, [])


def _adopt(resource: str, obj: Object, owner: Object, finalizers: Sequence[str]) -> Patch:
    metadata: Object = {"ownerReferences": [owner_reference(owner)], "uid": obj["metadata"]["uid"]}
    if finalizers:
        metadata["finalizers"] = list(finalizers)
    return Patch(resource, obj, body={"metadata": metadata}, kind="strategic", ignore=GONE)


def _release(resource: str, obj: Object, owner: Object) -> Patch:
    gone = {"$patch": "delete", "uid": owner["metadata"]["uid"]}
    body = {"metadata": {"uid": obj["metadata"]["uid"], "ownerReferences": [gone]}}
    # Invalid: the uid differs, so it is another object, or it has no owners left
    return Patch(resource, obj, body=body, kind="strategic", ignore=frozenset({"NotFound", "Invalid"}))


def same_group(api_version: str, resource: str) -> bool:
    """Whether an apiVersion is of the group of a resource, in whatever version."""
    return api_version.rpartition("/")[0] == parse(resource).group


# ---------------------------------------------------------------- numbers


def int_or_percent(value: int | str, total: int, *, round_up: bool) -> int:
    """The absolute number for a number or a percentage of `total`; raises ValueError on any other text."""
    if isinstance(value, int):
        return value
    if not value.endswith("%"):
        raise ValueError(f"invalid value for IntOrString: invalid type: string is not a percentage: {value!r}")
    share = int(value[:-1]) * total
    return -(-share // 100) if round_up else share // 100
