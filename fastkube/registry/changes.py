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
 3. A plan has foretold one change that went the long way before it is believed.

A plan is made when a change of its kind comes for the second time: most come once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from fastkube import _shapes
from fastkube._shapes import Form, Place, Shapeless
from fastkube.api import codec
from fastkube.registry.strategies import places

if TYPE_CHECKING:
    from fastkube.registry.strategy import Call
    from fastkube.store import Item

_BODY_MAX_BYTES = 16 * 1024
_VALUE_MAX_BYTES = 64 * 1024
"""Larger objects may come near a limit on all that they hold."""

_PLANS_MAX = 1024
_SEEN_MAX = 8192
_UPDATE = "UPDATE"

_SUBRESOURCES = ("", "status")
_READERS: dict[str, Callable[[bytes, Place], tuple[bytes, list[bytes]]]] = {
    codec.JSON: _shapes.of_json,
    codec.MSGPACK: lambda body, where: _shapes.of_msgpack(body, where, True),
    "application/merge-patch+json": _shapes.of_json,
    "application/strategic-merge-patch+json": _shapes.of_json,
    "application/apply-patch+yaml": _shapes.of_json,
}
"""How bodies are taken apart, by their media type."""

_About = tuple[str, ...]
_Key = tuple[_About, bytes, bytes, bytes]


class _Plan:
    __slots__ = ("constancy", "form", "is_proven", "warnings")

    def __init__(self, constancy: int, form: Form, warnings: list[str]) -> None:
        self.constancy = constancy
        self.form = form
        self.warnings = warnings
        self.is_proven = False


class _Case(NamedTuple):
    """A change of one version of an object, which no plan foretells."""

    key: _Key
    contents: list[bytes]
    constancy: int


class Change:
    """One request that changes an object: `foretell` what it makes of a version, or `learn` from what was made."""

    __slots__ = ("_about", "_asked", "_body", "_call", "_case", "_changes", "_place", "_stamp", "_told")

    def __init__(
        self, changes: Changes, call: Call, about: _About, where: Place, body: tuple[bytes, list[bytes]], stamp: str
    ) -> None:
        self._changes = changes
        self._call = call
        self._about = about
        self._place = where
        self._body = body
        self._stamp = b"t" + stamp.encode()
        self._asked = 0
        self._case: _Case | None = None
        self._told = len(call.warnings)

    def foretell(self, item: Item) -> bytes | None:
        """The value that the change makes of this one; None if it has to go the long way (asked again too)."""
        if item.mod_revision == self._asked:
            return None
        self._asked, self._case = item.mod_revision, None
        call, changes = self._call, self._changes
        constancy = changes.constancy(call, _UPDATE)
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
        plan = changes.plans.get(key)
        if plan is not None and plan.is_proven and plan.constancy == constancy:
            call.warnings[self._told :] = plan.warnings
            self._asked = 0
            return plan.form.fill(contents)
        self._case = _Case(key, contents, constancy)
        return None

    def learn(self, value: bytes) -> None:
        """The version that was asked about last has become this one."""
        case = self._case
        if case is None or self._changes.constancy(self._call, _UPDATE) != case.constancy:
            return
        self._changes.learn(case, self._place, value, self._call.warnings[self._told :])


class Changes:
    """The plans of one registry."""

    def __init__(self, constancy: Callable[[Call, str], int | None]) -> None:
        """`constancy` is admission's."""
        self.constancy = constancy
        self.plans: dict[_Key, _Plan] = {}
        self._seen: set[int] = set()
        self._refuted: set[int] = set()

    def begin(self, call: Call, media: str, body: bytes, stamp: str) -> Change | None:
        """The change that a request asks for; None for one that is not like any other. `stamp` is now."""
        rtype = call.rtype
        where = places.PLACES.get((rtype.group, rtype.resource))
        read = _READERS.get(media)
        if (
            where is None
            or read is None
            or call.subresource not in _SUBRESOURCES
            or call.dry_run
            or call.annotations is not None
            or len(body) > _BODY_MAX_BYTES
            or rtype.custom
            or rtype.stale
            or rtype.api_version(call.version) != rtype.storage_api_version
        ):
            return None
        try:
            sent = read(body, places.BODIES[rtype.group, rtype.resource])
        except Shapeless:
            return None
        return Change(self, call, _about(call, media), where, sent, stamp)

    def begin_binding(self, call: Call, body: bytes, stamp: str) -> Change | None:
        """The same for a Binding, as admission leaves it, in msgpack."""
        if call.dry_run or call.annotations is not None or len(body) > _BODY_MAX_BYTES:
            return None
        try:
            sent = _shapes.of_msgpack(body, places.BINDING, True)
        except Shapeless:
            return None
        return Change(self, call, _about(call, codec.MSGPACK), places.PLACES["", "pods"], sent, stamp)

    def learn(self, case: _Case, where: Place, value: bytes, warnings: list[str]) -> None:
        plan = self.plans.get(case.key)
        if plan is None or plan.constancy != case.constancy:
            if hash(case.key) in self._refuted or not self._comes_again(case.key):
                return
            if len(self.plans) >= _PLANS_MAX:
                self.plans.clear()
            try:
                form = Form(value, where, case.contents)
            except Shapeless:
                return
            self.plans[case.key] = _Plan(case.constancy, form, warnings)
        elif plan.form.fill(case.contents) == value and plan.warnings == warnings:
            plan.is_proven = True
        else:
            del self.plans[case.key]
            self._remember(self._refuted, case.key)

    def _comes_again(self, key: _Key) -> bool:
        if hash(key) in self._seen:
            return True
        self._remember(self._seen, key)
        return False

    @staticmethod
    def _remember(kept: set[int], key: _Key) -> None:
        if len(kept) >= _SEEN_MAX:
            kept.clear()
        kept.add(hash(key))


def _about(call: Call, media: str) -> _About:
    """What the result depends on besides body and object."""
    rtype = call.rtype
    options = (call.field_manager, call.field_validation, "force" if call.force else "")
    return (rtype.group, rtype.resource, call.subresource, call.version, call.verb, media, *options)
