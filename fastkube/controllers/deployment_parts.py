"""What a Deployment and its ReplicaSets say of themselves: numbers, annotations, templates."""

from __future__ import annotations

from typing import NamedTuple

from fastkube.api.meta import owner_reference
from fastkube.controllers.common import Object, Objects, int_or_percent, template_hash

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
_OWN_ANNOTATIONS = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        REVISION_HISTORY,
        DESIRED,
        MAXIMUM,
        "deprecated.deployment.rollback.to",
    }
)
_HISTORY_CHARS_MAX = 2000


def strategy_of(deployment: Object) -> str:
    return str((deployment["spec"].get("strategy") or {}).get("type") or "RollingUpdate")


def replicas_of(obj: Object) -> int:
    replicas = obj["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def counted(rs: Object, field: str) -> int:
    return int((rs.get("status") or {}).get(field) or 0)


def annotation_of(obj: Object, name: str) -> str:
    return str((obj["metadata"].get("annotations") or {}).get(name, ""))


def annotated_number(obj: Object, name: str) -> int | None:
    text = annotation_of(obj, name)
    return int(text) if text.isdigit() else None


def revision_of(rs: Object) -> int:
    return annotated_number(rs, REVISION) or 0


def age(obj: Object) -> tuple[str, str]:
    return obj["metadata"]["creationTimestamp"], obj["metadata"]["name"]


def inherited(deployment: Object) -> dict[str, str]:
    """The annotations that a ReplicaSet has from its Deployment."""
    given = deployment["metadata"].get("annotations") or {}
    return {key: value for key, value in given.items() if key not in _OWN_ANNOTATIONS}


def same_template(left: Object, right: Object) -> bool:
    """Equal but for the label which tells templates apart."""
    return without_hash(left) == without_hash(right)


def without_hash(template: Object) -> Object:
    metadata = template.get("metadata") or {}
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != HASH_LABEL}
    rest = {key: value for key, value in metadata.items() if key not in ("labels", "creationTimestamp")}
    return {"metadata": {**rest, "labels": labels}, "spec": template["spec"]}


class Limits(NamedTuple):
    """How far a rolling update may leave the wanted number."""

    surge: int
    unavailable: int


def limits(deployment: Object) -> Limits:
    """maxSurge (rounded up) and maxUnavailable (down, but one where both would be none) as numbers of Pods."""
    replicas = replicas_of(deployment)
    if strategy_of(deployment) != "RollingUpdate":
        return Limits(0, 0)
    rolling = (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    surge = int_or_percent(rolling.get("maxSurge", "25%"), replicas, round_up=True)
    unavailable = int_or_percent(rolling.get("maxUnavailable", "25%"), replicas, round_up=False)
    if not surge and not unavailable:
        unavailable = 1
    return Limits(surge, min(unavailable, replicas))


def replicaset_of(deployment: Object, collisions: int) -> Object:
    """The ReplicaSet of the current template, without Pods as yet."""
    spec = deployment["spec"]
    template = spec["template"]
    digest = template_hash(without_hash(template), collisions)
    metadata = template.get("metadata") or {}
    labels = {**(metadata.get("labels") or {}), HASH_LABEL: digest}
    selector = {
        **spec["selector"],
        "matchLabels": {**(spec["selector"].get("matchLabels") or {}), HASH_LABEL: digest},
    }
    made = {
        "replicas": 0,
        "selector": selector,
        "template": {**template, "metadata": {**metadata, "labels": labels}},
    }
    if spec.get("minReadySeconds"):
        made["minReadySeconds"] = spec["minReadySeconds"]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{deployment['metadata']['name']}-{digest}",
            "namespace": deployment["metadata"]["namespace"],
            "labels": labels,
            "ownerReferences": [owner_reference(deployment)],
        },
        "spec": made,
    }


# ---------------------------------------------------------------- sizes


def proportional_sizes(deployment: Object, active: Objects, wanted: int, surge: int) -> list[tuple[Object, int]]:
    """Each active ReplicaSet with its share in the wanted number and the surge: as large in proportion as before."""
    allowed = wanted + surge if wanted > 0 else 0
    to_add = allowed - sum(replicas_of(rs) for rs in active)
    # the larger first; among equals the newer gains and the older loses
    ordered = sorted(active, key=age, reverse=to_add > 0)
    ordered.sort(key=replicas_of, reverse=True)
    sizes: list[int] = []
    added = 0
    for rs in ordered:
        whole = annotated_number(rs, MAXIMUM) or counted(deployment, "replicas")
        share = _share(replicas_of(rs), whole, allowed, to_add - added)
        sizes.append(replicas_of(rs) + share)
        added += share
    sizes[0] = max(0, sizes[0] + to_add - added)  # what rounding left over
    return list(zip(ordered, sizes, strict=True))


def _share(size: int, whole: int, allowed: int, left: int) -> int:
    """What a ReplicaSet that had `size` of `whole` Pods gets of the `left` ones (fewer than none: gives up)."""
    if not size or not left:
        return 0
    if not allowed:
        share = -size
    elif not whole:
        return 0
    else:
        share = _rounded(size * allowed / whole) - size
    return min(share, left) if left > 0 else max(share, left)


def longer_history(history: str, revision: int) -> str:
    """The revisions a ReplicaSet had before; the first ones go when the text gets too long."""
    parts = [*history.split(","), str(revision)] if history else [str(revision)]
    while len(",".join(parts)) > _HISTORY_CHARS_MAX:
        parts.pop(0)
    return ",".join(parts)


def _rounded(number: float) -> int:
    """To the nearest, halves away from zero."""
    return int(number + 0.5) if number >= 0 else -int(-number + 0.5)
