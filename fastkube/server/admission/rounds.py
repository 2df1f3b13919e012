"""Reinvocation: when a webhook or policy has changed an object, all mutating plugins run once more, so that those
before it see the change. Webhooks and policies themselves run again only if they ask for it (`IfNeeded`).

    1st round: everything that matches; whoever may be asked again is remembered
    2nd round: of those, whoever ran before a change
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

import msgpack

from fastkube.server.admission.plugin import Plugin

if TYPE_CHECKING:
    from fastkube.registry.strategy import Call, Object


class Round:
    """What one plugin remembers of a request."""

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds
        self._invoked: set[str] = set()
        self._due: set[str] = set()
        self._output = b""

    def begin(self, obj: Object) -> None:
        """In the second round, what other plugins have changed since the first counts too."""
        if self._rounds.is_again and msgpack.packb(obj) != self._output:
            self._require()

    def end(self, obj: Object) -> None:
        self._output = msgpack.packb(obj)

    def wants(self, uid: str) -> bool:
        """Whether this webhook or mutation is to be asked now."""
        return not self._rounds.is_again or uid in self._due

    def done(self, uid: str, *, changed: bool, may_again: bool) -> None:
        if changed:
            self._require()
            self._rounds.wanted = True
        if may_again:
            self._invoked.add(uid)

    def _require(self) -> None:
        self._due |= self._invoked
        self._invoked = set()


class Rounds:
    """The rounds of one request."""

    def __init__(self) -> None:
        self.is_again = False
        self.wanted = False
        self._of: dict[str, Round] = {}

    def of(self, plugin: str) -> Round:
        found = self._of.get(plugin)
        if found is None:
            found = self._of[plugin] = Round(self)
        return found


class DynamicMutator(Plugin):
    """A plugin whose mutations are configured through the API."""

    mutates = True

    def mutate_in(self, call: Call, obj: Object | None, old: Object | None, rounds: Rounds) -> Awaitable[None] | None:
        raise NotImplementedError
