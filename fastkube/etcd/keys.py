"""How etcd's keys lie in the store: behind a byte of their own, so that no Kubernetes object is among them.

Revisions, compaction, leases, the log and its replication are the store's, shared with everything else in it.
"""

from __future__ import annotations

from fastkube.etcd.refusals import key_too_long
from fastkube.store import TO_THE_END, Event, Item
from fastkube.store.records import MAX_KEY_BYTES, escape

PREFIX = b"\x01"
END = b"\x02"

KEY_BYTES_MAX = MAX_KEY_BYTES - 3
"""Of a key that is written: what LMDB takes, without PREFIX and what `_place` may have more. A run of NULs has two."""


def stored(key: bytes) -> bytes:
    """Of a key that is to be written. Raises Refusal."""
    if not _fits(key):
        raise key_too_long(len(key), KEY_BYTES_MAX)
    return PREFIX + key


def bounds(key: bytes, range_end: bytes) -> tuple[bytes, bytes | None]:
    """Where [key, range_end) lies; no end is the one key, a zero byte every key from `key` on."""
    start = PREFIX + _place(key)
    if not range_end:
        return start, None if _fits(key) else start
    if range_end == TO_THE_END:
        return start, END
    return start, PREFIX + _place(range_end)


def _fits(key: bytes) -> bool:
    return len(key) <= KEY_BYTES_MAX and len(escape(key)) <= KEY_BYTES_MAX


def _place(key: bytes) -> bytes:
    """A key that is longer than any in the store, cut to where it stands among them: its first byte too many."""
    if _fits(key):
        return key
    length = min(len(key), KEY_BYTES_MAX + 1)
    while not _fits(key[: length - 1]):
        length -= 1
    return key[:length]


def shown(item: Item) -> Item:
    return item._replace(key=item.key[1:])


def shown_all(items: list[Item]) -> list[Item]:
    return [Item(key[1:], value, create, mod, version, lease) for key, value, create, mod, version, lease in items]


def shown_event(event: Event, with_prev: bool) -> tuple[int, Item, Item | None]:
    kind, key, value, revision, create, version, lease, prev = event
    item = Item(key[1:], value, create, revision, version, lease)
    return kind, item, shown(prev) if with_prev and prev is not None else None
