"""ServiceAccounts: every active namespace has one named default."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fastkube.controllers.actions import EXISTS, Action, Create
from fastkube.controllers.caches import Caches
from fastkube.controllers.common import Object, is_terminating
from fastkube.controllers.runner import Context, Controller, Keys, Watch

NAMESPACES = "v1/namespaces"
SERVICE_ACCOUNTS = "v1/serviceaccounts"

DEFAULT = "default"


class View(NamedTuple):
    namespace: Object
    present: bool


def view(context: Context, key: str) -> View | None:
    namespace = context.caches.by_key(NAMESPACES, key)
    if namespace is None:
        return None
    return View(namespace, context.caches.get(SERVICE_ACCOUNTS, key, DEFAULT) is not None)


def reconcile(view: View) -> Sequence[Action]:
    if view.present or is_terminating(view.namespace):
        return ()
    metadata = {"name": DEFAULT, "namespace": view.namespace["metadata"]["name"]}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    return [Create(SERVICE_ACCOUNTS, account, ignore=EXISTS)]


def namespace_of(name: str) -> Keys:
    """Keys: the namespace of an object of that name."""

    def keys(_caches: Caches, obj: Object) -> Iterable[str]:
        return (obj["metadata"]["namespace"],) if obj["metadata"]["name"] == name else ()

    return keys


CONTROLLER = Controller(
    name="serviceaccount-controller",
    watches=(Watch(NAMESPACES), Watch(SERVICE_ACCOUNTS, namespace_of(DEFAULT))),
    view=view,
    reconcile=reconcile,
    workers="concurrent_serviceaccount_syncs",
)
