"""What the store refuses, and why. Every refusal is a `StoreError`; the caller's own mistakes are also `ValueError`."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastkube.store.records import Item


DISK_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


class StoreError(Exception):
    """Base of everything the store raises on purpose."""


# A condition did not hold: the write was not done.


class KeyExists(StoreError):
    """A create of a key that is there; `item` is what is there."""

    def __init__(self, item: Item) -> None:
        super().__init__(f"key {item.key!r} exists at revision {item.mod_revision}")
        self.item = item


class KeyMissing(StoreError):
    """A delete of a key that is not there."""

    def __init__(self, key: bytes) -> None:
        super().__init__(f"key {key!r} does not exist")
        self.key = key


class RevisionMismatch(StoreError):
    """The key is not at the expected revision; `item` is what is there, None if nothing is."""

    def __init__(self, key: bytes, item: Item | None) -> None:
        found = f"is at revision {item.mod_revision}" if item else "does not exist"
        super().__init__(f"key {key!r} {found}")
        self.key = key
        self.item = item


class LeaseNotFound(StoreError):
    def __init__(self, lease: int) -> None:
        super().__init__(f"lease {lease} not found")
        self.lease = lease


class LeaseExists(StoreError):
    def __init__(self, lease: int) -> None:
        super().__init__(f"lease {lease} exists")
        self.lease = lease


# The revision asked for is not to be had.


class Compacted(StoreError):
    """`revision` is the compaction's: the oldest one that can still be read."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"required revision has been compacted (oldest is {revision})")
        self.revision = revision


class FutureRevision(StoreError):
    """`revision` is the store's own: the newest one that can be read."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"required revision is a future revision (newest is {revision})")
        self.revision = revision


# The request itself is wrong.


class InvalidRequest(StoreError, ValueError):
    """An empty or over-long key, an over-long value, a revision below zero."""


class DuplicateKey(InvalidRequest):
    """A transaction that would change one key twice, as etcd refuses it."""

    def __init__(self, key: bytes) -> None:
        super().__init__(f"duplicate key {key!r} in one transaction")
        self.key = key


# The store cannot serve.


class StoreUnavailable(StoreError):
    """Base of the refusals that are nobody's mistake; whether the write happened is stated by the subclass."""


class Overloaded(StoreUnavailable):
    """The queue of writes is full; nothing was written."""


class NoSpace(StoreUnavailable):
    """The disk or the size limit is full; nothing was written. Deletes and compaction are still tried."""


class StoreFailed(StoreUnavailable):
    """A commit failed for good (an I/O error): nothing of it was written, and no write is taken until a restart."""


class StoreClosed(StoreUnavailable):
    """The store was closed; a write that was still waiting may or may not have been done."""


class StoreLocked(StoreUnavailable):
    """Another process has this store open for writing."""


class CorruptStore(StoreError):
    """The files are damaged, or are not a fastkube store."""


def error_to_wire(error: StoreError) -> tuple[str, str, int]:
    """For a server that asked another one."""
    return type(error).__name__, str(error), getattr(error, "lease", 0)


def error_from_wire(name: str, text: str, lease: int) -> StoreError:
    if name == "LeaseNotFound":
        return LeaseNotFound(lease)
    known = {"InvalidRequest": InvalidRequest, "Overloaded": Overloaded, "NoSpace": NoSpace}
    return known.get(name, StoreUnavailable)(text)
