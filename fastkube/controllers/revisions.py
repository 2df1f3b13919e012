"""ControllerRevisions: the history of Pod templates that StatefulSets and DaemonSets keep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from fastkube.api.meta import owner_reference
from fastkube.controllers.actions import GONE, Action, Create, Delete, Update, status_update
from fastkube.controllers.common import Object, Objects, template_hash

REVISIONS = "apps/v1/controllerrevisions"

HASH = "controller.kubernetes.io/hash"
POD_HASH = "controller-revision-hash"
"""The label of a Pod which names the revision it was made from."""


class History(NamedTuple):
    """`revisions` oldest first, with `update` (that of the present template) among them; `actions` make it so."""

    revisions: Objects
    update: Object
    actions: list[Action]
    collided: bool = False
    """The name is taken by another template: the owner's collisionCount has to rise first."""


def template_of(revision: Object) -> Object:
    """The Pod template that a revision keeps."""
    return {key: value for key, value in revision["data"]["spec"]["template"].items() if key != "$patch"}


def _data(owner: Object) -> Object:
    return {"spec": {"template": {**owner["spec"]["template"], "$patch": "replace"}}}


def _order(revision: Object) -> tuple[int, str, str]:
    metadata = revision["metadata"]
    return revision["revision"], metadata.get("creationTimestamp", ""), metadata["name"]


def history(
    resource: str, owner: Object, present: Iterable[Object], label: str, named: Callable[[str], Object | None]
) -> History:
    """Find the revision of the owner's template, renew it if it is an old one, or make it.

    `label` is the label that carries the hash; `named` finds a revision by name, whoever's it is.
    """
    revisions = sorted(present, key=_order)
    data = _data(owner)
    following = revisions[-1]["revision"] + 1 if revisions else 1
    equal = [revision for revision in revisions if revision["data"] == data]
    if equal and equal[-1] is revisions[-1]:
        return History(revisions, equal[-1], [])
    if equal:
        renewed = {**equal[-1], "revision": following}
        rest = [revision for revision in revisions if revision is not equal[-1]]
        return History([*rest, renewed], renewed, [Update(REVISIONS, renewed)])
    made = _made(owner, data, label, following)
    if named(made["metadata"]["name"]) is not None:
        collisions = ((owner.get("status") or {}).get("collisionCount") or 0) + 1
        status = {**(owner.get("status") or {}), "collisionCount": collisions}
        return History(revisions, made, [status_update(resource, owner, status)], collided=True)
    return History([*revisions, made], made, [Create(REVISIONS, made)])


def _made(owner: Object, data: Object, label: str, number: int) -> Object:
    collisions = (owner.get("status") or {}).get("collisionCount") or 0
    digest = template_hash(data, collisions)
    metadata = owner["metadata"]
    labels = (owner["spec"]["template"].get("metadata") or {}).get("labels") or {}
    made: Object = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": f"{metadata['name']}-{digest}",
            "namespace": metadata["namespace"],
            "labels": {**labels, label: digest},
            "ownerReferences": [owner_reference(owner)],
        },
        "data": data,
        "revision": number,
    }
    if metadata.get("annotations"):
        made["metadata"]["annotations"] = metadata["annotations"]
    return made


def cleanup(owner: Object, revisions: Sequence[Object], live: set[str]) -> list[Action]:
    """Delete the oldest revisions beyond the owner's limit that are not `live` (by name)."""
    limit = owner["spec"].get("revisionHistoryLimit")
    limit = 10 if limit is None else limit
    unused = [revision for revision in revisions if revision["metadata"]["name"] not in live]
    return [Delete(REVISIONS, revision, ignore=GONE) for revision in unused[: max(0, len(unused) - limit)]]
