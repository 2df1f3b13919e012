"""What a plan for a request that repeats rests on, whatever it does: see repeats.py and repeated_creates.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastkube.server.fair_queues import Level
    from fastkube.server.metrics import Series


class Grounds:
    """What a plan was made under, and its answer's head."""

    __slots__ = ("catalog", "flow", "head", "level", "remotes", "rules", "series", "tail", "until")

    level: Level | None
    series: Series
    until: float
    """Wall time until which the credentials are good."""
    head: bytes
    """The answer's head up to the value of Audit-Id, and `tail` from there to the value of Date."""
    tail: bytes
    rules: int
    """Generation of the rules of authorization; and so on."""
    flow: int
    catalog: int
    remotes: object
    """The aggregated API servers: a new dict with every change."""
