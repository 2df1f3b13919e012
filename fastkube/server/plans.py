"""What a plan for a request that repeats rests on, whatever it does: see repeats.py and repeated_creates.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from fastkube.server.app import ApiServer
    from fastkube.server.fair_queues import Level
    from fastkube.server.metrics import Series

_PLANS_MAX = 1024

_Key = TypeVar("_Key")
_Plan = TypeVar("_Plan")


def keep(plans: dict[_Key, _Plan], key: _Key, plan: _Plan) -> None:
    """Too many, and all are to be learned anew."""
    if len(plans) >= _PLANS_MAX:
        plans.clear()
    plans[key] = plan


class Rules:
    """What decides about every request: who may do what, and which resources there are."""

    __slots__ = ("catalog", "remotes", "rules")

    rules: int
    """Generation of the rules of authorization; and so on."""
    catalog: int
    remotes: object
    """The aggregated API servers: a new dict with every change."""

    def note(self, server: ApiServer) -> None:
        """Those of now."""
        self.rules, self.catalog = server.authorizer.generation, server.catalog.generation
        self.remotes = server.aggregator.remotes

    def stand(self, server: ApiServer) -> bool:
        """Whether they are as they were."""
        return (
            self.rules == server.authorizer.generation
            and self.catalog == server.catalog.generation
            and self.remotes is server.aggregator.remotes
        )


class Grounds(Rules):
    """What a plan was made under, and its answer's head."""

    __slots__ = ("flow", "head", "level", "series", "tail", "until")

    level: Level | None
    series: Series
    until: float
    """Wall time until which the credentials are good."""
    head: bytes
    """The answer's head up to the value of Audit-Id, and `tail` from there to the value of Date."""
    tail: bytes
    flow: int
    """Generation of the levels of flow control."""
