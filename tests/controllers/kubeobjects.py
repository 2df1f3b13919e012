"""Builders of objects as a server returns them, for the controllers' tests."""

from __future__ import annotations

import itertools
from typing import Any

from fastkube.clock import rfc3339
from fastkube.controllers.actions import Action, Ask, Together, Write

Object = dict[str, Any]

NOW = 1_800_000_000.0
_uids = itertools.count(1)


def obj(
    kind: str, name: str, api_version: str = "v1", namespace: str = "default", age_s: float = 100, **more: Any
) -> Object:
    """`more`: top-level fields, and fields of metadata by the prefix `m_`."""
    metadata: Object = {
        "name": name,
        "uid": f"uid-{next(_uids)}",
        "resourceVersion": "1",
        "generation": 1,
        "creationTimestamp": rfc3339(NOW - age_s),
    }
    if namespace:
        metadata["namespace"] = namespace
    for key in [key for key in more if key.startswith("m_")]:
        metadata[key.removeprefix("m_")] = more.pop(key)
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **more}


def owned_by(owner: Object) -> list[Object]:
    return [
        {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]


def template(image: str = "nginx", **labels: str) -> Object:
    return {"metadata": {"labels": labels or {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}


def pod(
    name: str,
    owner: Object | None = None,
    *,
    phase: str = "Running",
    ready: bool | None = None,
    ready_s: float = 50,
    node: str = "n1",
    labels: dict[str, str] | None = None,
    restarts: int = 0,
    **more: Any,
) -> Object:
    """A Pod which runs and has been ready for `ready_s`, unless said otherwise."""
    ready = phase == "Running" if ready is None else ready
    conditions = [
        {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": rfc3339(NOW - ready_s)}
    ]
    status: Object = {"phase": phase, "conditions": conditions}
    if restarts:
        status["containerStatuses"] = [{"name": "c", "restartCount": restarts}]
    made = obj("Pod", name, spec={"nodeName": node} if node else {}, status=status, **more)
    made["metadata"]["labels"] = {"app": "web"} if labels is None else labels
    if owner is not None:
        made["metadata"]["ownerReferences"] = owned_by(owner)
    return made


def deleting(thing: Object) -> Object:
    return {**thing, "metadata": {**thing["metadata"], "deletionTimestamp": rfc3339(NOW)}}


def flat(actions: Any) -> list[Action]:
    """The actions with those which go together in a row."""
    found: list[Action] = []
    for action in actions:
        found += action.actions if isinstance(action, Together) else [action]
    return found


def writes(actions: Any, kind: type[Write] = Write) -> list[Any]:
    return [action for action in flat(actions) if isinstance(action, kind)]


def status_of(actions: Any) -> Object | None:
    """The status that is written, if one is."""
    for action in writes(actions):
        if getattr(action, "subresource", "") == "status":
            status: Object = action.obj["status"]
            return status
    return None


def answer(view: Any, live: dict[str, Any]) -> Any:
    """The view after its questions were answered."""
    return view._replace(live=live)


def asked(actions: Any) -> list[str]:
    return [action.path for action in actions if isinstance(action, Ask)]
