"""The strategy of each kind that differs from the generic one, by (group, resource): one visible dict."""

from __future__ import annotations

from fastkube.registry.strategy import Strategy

STRATEGIES: dict[tuple[str, str], Strategy] = {}
