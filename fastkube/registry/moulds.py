"""Pods come by the thousand and differ in nothing but their names: such a one is cast, not made.

    body ─ before ─ name ─ after ─▶ mould, by (namespace, writer, before, after) ─▶ Cast: stored bytes, answer

A mould is what the registry has made of one request, with holes for what is new in every object: its name, uid and
time, and the suffix of the volume that ServiceAccount admission makes up. It is used only where the long way, from
decoding to validation, would give the same bytes:

 1. A body fits a mould only if it is, but for the value of metadata.name, byte for byte the one that the mould was made
    from; and whatever else the result depends on is the same: kind, version, namespace, writer, options, format.
 2. Of a name nothing follows but where it stands: it stands in the result once, the strategy says that nothing else
    looks at it (`casts`), and only names are taken that are DNS labels, which nobody refuses or warns about.
 3. Admission says by `constancy` whether it would do the same again: as long as nothing that it looks at has changed.
    A request that is audited, or a dry run, goes the long way.
 4. What a hole holds stands in the result exactly as often as in the fields that it is known from; a body in which the
    same text stands for something else makes no mould.

A mould is made when a body comes for the second time: most come once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgpack

from fastkube._casts import NAME, TIME, UID, VERSION, VOLUME, Cast, Form, Mould, packed, part
from fastkube.api import codec, meta
from fastkube.errors import ApiError
from fastkube.registry.strategies.pod_shapes import ACCESS_VOLUME, access_volume

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastkube.registry.strategy import Call, Object, Strategy

_BODY_MAX_BYTES = 16 * 1024
_MOULDS_MAX = 512
_SEEN_MAX = 8192

_REVISION = (1 << 63) - 1
"""Stands for the revision that the object will have."""

unpack: Callable[[bytes], Any] = msgpack.unpackb

_Key = tuple[tuple[str, ...], bytes, bytes]


def _form(whole: bytes, holes: Mapping[bytes, int]) -> Form:
    """`holes`: what stands in `whole` at each hole, and which of them it is."""
    pieces = re.split(b"(%b)" % b"|".join(map(re.escape, holes)), whole)
    return Form(tuple(pieces[::2]), bytes(holes[text] for text in pieces[1::2]))


class Lesson:
    """A request that goes the long way, and of which a mould may be made."""

    __slots__ = ("_after", "_before", "_call", "_constancy", "_key", "_media", "_moulds", "_name", "_told")

    def __init__(self, moulds: Moulds, call: Call, media: str, key: _Key, name: bytes, constancy: int) -> None:
        self._moulds = moulds
        self._call = call
        self._media = media
        self._key = key
        _, self._before, self._after = key
        self._name = name
        self._constancy = constancy
        self._told = len(call.warnings)

    def learn(self, value: bytes, stamp: str) -> None:
        """`value` is what was made of it. Leaves a mould if rules 2 to 4 hold."""
        if self._moulds.constancy(self._call) != self._constancy or self._moulds.has(self._key, self._constancy):
            return
        obj = unpack(value)
        if self._is_by_shape(obj):
            mould = self._mould_of(value, obj, stamp)
            if mould is not None:
                self._moulds.keep(self._key, mould)

    def _sent(self, name: bytes) -> Object:
        """The body with that name in its place; {} for one that cannot be read."""
        body = self._before + name + self._after
        try:
            sent = codec.decode(body, self._media, self._call.rtype.kind, [], merges=True)
        except ApiError:
            return {}
        return sent if isinstance(sent.get("metadata"), dict) else {}

    def _is_by_shape(self, obj: Object) -> bool:
        """Whether the name is what it was taken for, and nothing looks at it."""
        if not self._moulds.strategies[self._call.rtype.resource].casts(obj):
            return False
        name = self._name
        sent = self._sent(name)
        if not name:
            return bool(sent and sent["metadata"].get("generateName") and not sent["metadata"].get("name"))
        other = name[:-1] + (b"1" if name.endswith(b"0") else b"0")
        renamed = self._sent(other)
        if not renamed or renamed["metadata"].get("name") != other.decode():
            return False
        renamed["metadata"]["name"] = name.decode()
        return renamed == sent

    def _mould_of(self, value: bytes, obj: Object, stamp: str) -> Mould | None:
        """None where rule 4 does not hold."""
        metadata = obj["metadata"]
        name, uid, time = metadata["name"].encode(), metadata["uid"].encode(), stamp.encode()
        times = [metadata["creationTimestamp"], *(entry.get("time") for entry in metadata.get("managedFields") or ())]
        counts = {name: 1, uid: 1, time: len(times)}
        holes = {name: NAME, uid: UID, time: TIME}
        volume = ""
        if ACCESS_VOLUME.encode() not in self._before + self._after:
            volume, count = access_volume(obj)
            if volume:
                counts[volume.encode()] = count
                holes[volume.encode()] = VOLUME
        shown = codec.value_to_json(value, _REVISION)
        found = [(value.count(text), shown.count(text)) for text in counts]
        told = self._call.warnings[self._told :]
        if (
            found != [(count, count) for count in counts.values()]
            or times.count(stamp) != len(times)
            or shown.count(b"%d" % _REVISION) != 1
            or any(metadata["name"] in warning for warning in told)
        ):
            return None
        stored_form = _form(value, {packed(name) if text is name else text: hole for text, hole in holes.items()})
        shown_form = _form(shown, {**holes, b"%d" % _REVISION: VERSION})
        prefix = self._call.rtype.key(self._call.namespace, "")
        base = "" if self._name else metadata["generateName"]
        made_up = ACCESS_VOLUME.encode() if volume else b""
        return Mould(self._constancy, prefix, base, stored_form, shown_form, told, made_up)


class Moulds:
    """The moulds of one registry."""

    def __init__(self, strategies: Mapping[str, Strategy], constancy: Callable[[Call], int | None]) -> None:
        """`strategies` of the kinds of the core group that may be cast, by resource; `constancy` is admission's."""
        self.strategies = strategies
        self.constancy = constancy
        self._seen: set[int] = set()
        self._moulds: dict[_Key, Mould] = {}

    def cast(self, call: Call, media: str, body: bytes, stamp: str) -> Cast | Lesson | None:
        """The object of this body, if there is a mould; a lesson if one is to be made. `stamp` is now."""
        rtype = call.rtype
        if (
            rtype.resource not in self.strategies
            or rtype.group
            or call.subresource
            or call.dry_run
            or call.annotations is not None
            or len(body) > _BODY_MAX_BYTES
        ):
            return None
        key, name = _read(call, media, body)
        constancy = self.constancy(call)
        mould = self._moulds.get(key)
        if mould is not None and mould.constancy == constancy:
            call.warnings += mould.warnings
            return _cast(mould, name, stamp)
        if constancy is None or not self._comes_again(key):
            return None
        return Lesson(self, call, media, key, name, constancy)

    def recast(self, call: Call, media: str, body: bytes, stamp: str) -> Cast | None:
        """`cast` for a call that was cast before, and only if there is nothing to warn about."""
        key, name = _read(call, media, body)
        mould = self._moulds.get(key)
        if mould is None or mould.warnings or mould.constancy != self.constancy(call):
            return None
        return _cast(mould, name, stamp)

    def _comes_again(self, key: _Key) -> bool:
        seen = hash(key)
        if seen in self._seen:
            return True
        if len(self._seen) >= _SEEN_MAX:
            self._seen.clear()
        self._seen.add(seen)
        return False

    def has(self, key: _Key, constancy: int) -> bool:
        """Whether there is a mould already: requests that come together all begin without."""
        mould = self._moulds.get(key)
        return mould is not None and mould.constancy == constancy

    def keep(self, key: _Key, mould: Mould) -> None:
        if len(self._moulds) >= _MOULDS_MAX:
            self._moulds.clear()
        self._moulds[key] = mould


def _read(call: Call, media: str, body: bytes) -> tuple[_Key, bytes]:
    """The key of the mould that a body would fit, and the name that is in it; b"" where the server makes it up."""
    about = (call.rtype.resource, call.version, call.namespace, call.field_manager, call.field_validation, media)
    return part(about, body, media == codec.MSGPACK)


def _cast(mould: Mould, name: bytes, stamp: str) -> Cast:
    cast = Cast(mould, name, stamp.encode())
    if not name:
        rename(cast)
    return cast


def rename(cast: Cast) -> bool:
    """Another name, where the server makes it up; False where it does not."""
    if not cast.base:
        return False
    cast.name = meta.generate_name(cast.base).encode()
    return True
