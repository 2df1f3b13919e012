"""The root CA publisher: every active namespace has the ConfigMap kube-root-ca.crt with the API server's CA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastkube.controllers.actions import EXISTS, Action, Create, Update
from fastkube.controllers.common import Object, is_terminating
from fastkube.controllers.runner import Context, Controller, Watch
from fastkube.controllers.serviceaccount import NAMESPACES, namespace_of

CONFIG_MAPS = "v1/configmaps"

NAME = "kube-root-ca.crt"
KEY = "ca.crt"
DESCRIPTION = "kubernetes.io/description"
_TOLD = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of "
    "Kubernetes clusters."
)


class View(NamedTuple):
    namespace: Object
    present: Object | None
    ca: str
    """PEM; nothing is published where the server has none (plain HTTP)."""


def view(context: Context, key: str) -> View | None:
    namespace = context.caches.by_key(NAMESPACES, key)
    if namespace is None or not context.facts.root_ca:
        return None
    return View(namespace, context.caches.get(CONFIG_MAPS, key, NAME), context.facts.root_ca)


def reconcile(view: View) -> Sequence[Action]:
    if is_terminating(view.namespace):
        return ()
    data, present = {KEY: view.ca}, view.present
    if present is None:
        metadata: Object = {"name": NAME, "namespace": view.namespace["metadata"]["name"]}
        metadata["annotations"] = {DESCRIPTION: _TOLD}
        made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        return [Create(CONFIG_MAPS, made, ignore=EXISTS)]
    annotations = present["metadata"].get("annotations") or {}
    if present.get("data") == data and annotations.get(DESCRIPTION):
        return ()
    metadata = {**present["metadata"], "annotations": {**annotations, DESCRIPTION: _TOLD}}
    return [Update(CONFIG_MAPS, {**present, "metadata": metadata, "data": data})]


CONTROLLER = Controller(
    name="root-ca-certificate-publisher-controller",
    watches=(Watch(NAMESPACES), Watch(CONFIG_MAPS, namespace_of(NAME))),
    view=view,
    reconcile=reconcile,
    workers="concurrent_serviceaccount_syncs",
)
