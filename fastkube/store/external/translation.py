"""How keys and values of the store are told to etcd; implemented by who knows objects (registry/upstream_form.py)."""

from __future__ import annotations

from typing import Protocol

from fastkube.store.ops import TO_THE_END, prefix_end, single_key_end


class Untranslatable(ValueError):
    """A value in etcd that is no object; the text says why."""


class Translation(Protocol):
    prefix: bytes
    """Of all keys in etcd."""

    def key(self, key: bytes) -> bytes:
        """The key in etcd, with its prefix; of a key's beginning its beginning."""

    def value(self, key: bytes, value: bytes) -> bytes:
        """What is written to etcd; `key` is the store's."""

    def key_back(self, key: bytes) -> bytes | None:
        """The store's key; None for one that holds nothing for us."""

    def value_back(self, key: bytes, value: bytes) -> bytes:
        """The store's value; `key` is the store's. Raises Untranslatable."""


def range_end(translation: Translation, start: bytes, end: bytes | None) -> bytes | None:
    """The end in etcd of a range that is one key, or all keys with a prefix. Raises ValueError for any other."""
    if end is None or end == single_key_end(start):
        return None
    if end == TO_THE_END or end != prefix_end(start):
        raise ValueError(f"the range from {start!r} to {end!r} is no prefix, and etcd's keys have another order")
    return prefix_end(translation.key(start))
