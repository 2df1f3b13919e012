"""The TTL of Secrets and ConfigMaps on nodes: the more nodes there are, the longer kubelets keep what they read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from fastkube.controllers.actions import GONE, Action, Patch
from fastkube.controllers.common import Object
from fastkube.controllers.runner import Context, Controller, Watch

NODES = "v1/nodes"
TTL = "node.alpha.kubernetes.io/ttl"


class Step(NamedTuple):
    nodes_min: int
    nodes_max: float
    ttl_s: int


STEPS = (Step(0, 100, 0), Step(90, 500, 15), Step(450, 1000, 30), Step(900, 2000, 60), Step(1800, math.inf, 300))
"""They overlap, so that a number of nodes at a boundary does not change all nodes again and again."""


class View(NamedTuple):
    node: Object
    nodes: int


def view(context: Context, key: str) -> View | None:
    node = context.caches.by_key(NODES, key)
    return None if node is None else View(node, context.caches.count(NODES))


def reconcile(view: View) -> Sequence[Action]:
    node, count = view.node, view.nodes
    present = (node["metadata"].get("annotations") or {}).get(TTL)
    for step in STEPS:
        if present == str(step.ttl_s) and step.nodes_min <= count <= step.nodes_max:
            return ()
    wanted = next(step for step in STEPS if count <= step.nodes_max)
    body = {"metadata": {"annotations": {TTL: str(wanted.ttl_s)}}}
    return [Patch(NODES, node, body=body, kind="strategic", ignore=GONE)]


CONTROLLER = Controller(name="ttl-controller", watches=(Watch(NODES),), view=view, reconcile=reconcile, parallel=100)
