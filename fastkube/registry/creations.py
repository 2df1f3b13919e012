"""New objects that are like one before but for names, times and texts, of whichever kind: foretold as changes are.

A plan (plans.py) makes the stored object of the contents of the body, the time, the uid and, for an apply, the name in
the path. Rules 1 to 3 of changes.py hold, with nothing as the value before. Pods, of which there are most, are cast in
moulds that need not look at their bodies (moulds.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgpack

from fastkube import _shapes
from fastkube._codec import extract
from fastkube._shapes import Shapeless
from fastkube.api import codec, meta
from fastkube.registry.changes import READERS, is_label, may_be_like_others
from fastkube.registry.plans import Key, Plans, about
from fastkube.registry.strategies import places

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastkube._shapes import Place
    from fastkube.registry.strategy import Call

_CREATE = "CREATE"
_NAME = (b"metadata", b"name")


class Foretold(NamedTuple):
    """A new object: `value` is what is stored."""

    key: bytes
    name: bytes
    value: bytes
    warnings: list[str]

    def json(self, revision: int) -> bytes:
        return codec.value_to_json(self.value, revision)


class Draft(NamedTuple):
    """A new object that goes the long way, and of which a plan may be made."""

    creations: Creations
    call: Call
    key: Key
    contents: list[bytes]
    constancy: int
    place: Place
    told: int

    def learn(self, value: bytes, stamp: str) -> None:
        """`value` is what was made of it."""
        creations, call = self.creations, self.call
        metadata = msgpack.unpackb(value)["metadata"]
        if (
            creations.constancy(call, _CREATE) != self.constancy
            or b"n" + metadata["name"].encode() not in self.contents
        ):
            return
        contents = [b"u" + metadata["uid"].encode(), *self.contents]
        creations.plans.learn(self.key, self.constancy, self.place, contents, value, call.warnings[self.told :])


class Creations:
    """Those of one registry."""

    def __init__(self, plans: Plans, constancy: Callable[[Call, str], int | None]) -> None:
        """`constancy` is admission's."""
        self.plans = plans
        self.constancy = constancy

    def begin(self, call: Call, media: str, body: bytes, stamp: str) -> Foretold | Draft | None:
        """The object of this body, if it can be foretold; a draft if something may be learned. `stamp` is now."""
        rtype = call.rtype
        kind = (rtype.group, rtype.resource)
        place, read = places.STORED.get(kind), READERS.get(media)
        if place is None or read is None or call.subresource or not may_be_like_others(call, body):
            return None
        try:
            shape, sent = read(body, places.BODIES[kind])
        except Shapeless:
            return None
        constancy = self.constancy(call, _CREATE)
        name = call.name.encode()
        if constancy is None or (name and not is_label(call.name)):
            return None
        contents = [b"t" + stamp.encode(), b"n" + name, *sent]
        pattern = _shapes.pattern(contents)
        if pattern is None:
            return None
        key = ((*about(call, media), call.namespace), b"", shape, pattern)  # a body need not name its namespace
        return self._foretell(call, key, contents, constancy, place)

    def _foretell(
        self, call: Call, key: Key, contents: list[bytes], constancy: int, place: Place
    ) -> Foretold | Draft | None:
        plan = self.plans.find(key, constancy)
        if plan is None:
            return Draft(self, call, key, contents, constancy, place, len(call.warnings))
        value = plan.form.fill([b"u" + meta.new_uid().encode(), *contents])
        name = extract(value, _NAME).encode()
        return Foretold(call.rtype.key(call.namespace, "") + name, name, value, plan.warnings)
