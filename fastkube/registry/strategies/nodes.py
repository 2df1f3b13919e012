"""Nodes: a kubelet registers its node with the status it has."""

from __future__ import annotations

from fastkube.registry.strategy import Object, Strategy


class NodeStrategy(Strategy):
    has_generation = False

    def reset_status(self, obj: Object) -> None:
        """A new node keeps the status that it comes with."""


STRATEGIES: dict[tuple[str, str], Strategy] = {("", "nodes"): NodeStrategy()}
