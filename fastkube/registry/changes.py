"""Changes come by the thousand and are alike but for names, times and addresses: such a one is foretold, not made.

    stored value ┐
    body         ├─ taken apart (_shapes.pyx) ─▶ plan, by (request, shapes, pattern) ─ contents ─▶ new value
    now, version ┘

A plan is what the registry has made of one change: a value with holes, each filled from one of the contents of the
value before, of the body, of the time and the version. It is used only where the long way, from decoding to
validation, would give the same bytes:

 1. The value before and the body have the same shapes, the same contents are the same and the times in the same order:
    nothing else about them can matter (strategies/places.py says why). Whatever else the result depends on is the same
    too: kind, subresource, version, writer, options, format of the body.
 2. Admission says by `constancy` whether it would do the same again. A kind with an attendant, a request that is
    audited, a dry run and an object that has to be written anew in any case go the long way.
 3. A plan has foretold one change that went the long way before it is believed (plans.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from fastkube import _shapes
from fastkube._shapes import Place, Shapeless
from fastkube.api import codec
from fastkube.registry.plans import About, Key, Plans, about
from fastkube.registry.strategies import places

if TYPE_CHECKING:
    from fastkube.api.catalog import ResourceType
    from fastkube.registry.strategy import Call
    from fastkube.store import Item

BODY_MAX_BYTES = 16 * 1024
_VALUE_MAX_BYTES = 64 * 1024
"""Larger objects may come near a limit on all that they hold."""

_NODE = _shapes.FAMILIES[_shapes.NODE]

_OPERATIONS = {"create": "CREATE"}
"""What admission takes a change for; most are updates."""

_SUBRESOURCES = ("", "status")
READERS: dict[str, Callable[[bytes, Place], tuple[bytes, list[bytes]]]] = {
    codec.JSON: _shapes.of_json,
    codec.MSGPACK: lambda body, where: _shapes.of_msgpack(body, where, True),
    "application/merge-patch+json": _shapes.of_json,
    "application/strategic-merge-patch+json": _shapes.of_json,
    "application/apply-patch+yaml": _shapes.of_json,
}
"""How bodies are taken apart, by their media type."""


def is_label(name: str) -> bool:
    """Whether a name is a DNS label, which stands in a path as it is."""
    return _shapes.fits(_shapes.LABEL, name.encode("utf-8", "surrogateescape"))


class _Case(NamedTuple):
    """A change of one version of an object, which no plan foretells."""

    key: Key
    contents: list[bytes]
    constancy: int


def may_be_like_others(call: Call, body: bytes) -> bool:
    """Whether what a plan cannot foretell is out of the question: dry runs, audit, custom kinds, other versions."""
    return not (
        call.dry_run
        or call.annotations is not None
        or len(body) > BODY_MAX_BYTES
        or call.rtype.custom
        or call.rtype.stale
        or call.version != places.BODY_VERSION
    )


class Change:
    """One request that changes an object: `foretell` what it makes of a version, or `learn` from what was made.

    `is_of_nothing`: there was no object to change."""

    __slots__ = (
        "_about",
        "_asked",
        "_body",
        "_call",
        "_case",
        "_changes",
        "_place",
        "_stamp",
        "_told",
        "is_of_nothing",
    )

    def __init__(
        self, changes: Changes, call: Call, about: About, where: Place, body: tuple[bytes, list[bytes]], stamp: str
    ) -> None:
        self._changes = changes
        self._call = call
        self._about = about
        self._place = where
        self._body = body
        self._stamp = b"t" + stamp.encode()
        self.is_of_nothing = False
        self._asked = 0
        self._case: _Case | None = None
        self._told = len(call.warnings)

    def foretell(self, item: Item) -> bytes | None:
        """The value that the change makes of this one; None if it has to go the long way (asked again too)."""
        if item.mod_revision == self._asked:
            return None
        self._asked, self._case = item.mod_revision, None
        call, changes = self._call, self._changes
        constancy = changes.constancy(call, _OPERATIONS.get(call.verb, "UPDATE"))
        if constancy is None or len(item.value) > _VALUE_MAX_BYTES:
            return None
        try:
            shape, contents = _shapes.of_msgpack(item.value, self._place)
        except Shapeless:
            return None
        body, sent = self._body
        contents = [self._stamp, b"r%d" % item.mod_revision, *sent, *contents]
        pattern = _shapes.pattern(contents)
        if pattern is None:
            return None
        key = (self._about, shape, body, pattern)
        plan = changes.plans.find(key, constancy)
        if plan is not None:
            call.warnings[self._told :] = plan.warnings
            self._asked = 0
            return plan.form.fill(contents)
        self._case = _Case(key, contents, constancy)
        return None

    @property
    def unknown(self) -> Key | None:
        """Of which plan there is none yet for the version that was asked about last."""
        return self._case.key if self._case is not None else None

    def learn(self, value: bytes) -> None:
        """The version that was asked about last has become this one."""
        case = self._case
        operation = _OPERATIONS.get(self._call.verb, "UPDATE")
        if case is None or self._changes.constancy(self._call, operation) != case.constancy:
            return
        told = self._call.warnings[self._told :]
        self._changes.plans.learn(case.key, case.constancy, self._place, case.contents, value, told)


class Changes:
    """Those of one registry."""

    def __init__(self, plans: Plans, constancy: Callable[[Call, str], int | None]) -> None:
        """`constancy` is admission's."""
        self.constancy = constancy
        self.plans = plans

    @staticmethod
    def knows(rtype: ResourceType) -> bool:
        """Whether any change of such objects may be like others."""
        return not rtype.custom and (rtype.group, rtype.resource) in places.STORED

    def begin(self, call: Call, media: str, body: bytes, stamp: str) -> Change | None:
        """The change that a request asks for; None for one that is not like any other. `stamp` is now."""
        rtype = call.rtype
        where = places.STORED.get((rtype.group, rtype.resource))
        read = READERS.get(media)
        if where is None or read is None or call.subresource not in _SUBRESOURCES or not may_be_like_others(call, body):
            return None
        try:
            sent = read(body, places.BODIES[rtype.group, rtype.resource])
        except Shapeless:
            return None
        return Change(self, call, about(call, media), where, sent, stamp)

    def begin_binding(
        self, call: Call, media: str, body: bytes, stamp: str, bearing: Callable[[Call, str], tuple[str, ...]]
    ) -> Change | None:
        """The same for a Binding of the Pod `call.name`. `bearing` is admission's."""
        read = READERS.get(media)
        if read is None or not may_be_like_others(call, body) or not is_label(call.name):
            return None
        try:
            shape, sent = read(body, places.BINDING)
        except Shapeless:
            return None
        nodes = [content[1:].decode() for content in sent if content.startswith(_NODE)]
        if len(nodes) != 1:
            return None
        told = (*about(call, media), *bearing(call, nodes[0]))
        sent = [b"n" + call.name.encode(), *sent]
        return Change(self, call, told, places.STORED["", "pods"], (shape, sent), stamp)
