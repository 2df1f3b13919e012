"""MVCC on LMDB with etcd's semantics; knows nothing about Kubernetes. DESIGN.md beside this file says why it is so."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fastkube.store.errors import (
    Compacted,
    CorruptStore,
    DuplicateKey,
    FutureRevision,
    InvalidRequest,
    KeyExists,
    KeyMissing,
    LeaseExists,
    LeaseNotFound,
    NoSpace,
    Overloaded,
    RevisionMismatch,
    StoreClosed,
    StoreError,
    StoreFailed,
    StoreLocked,
    StoreUnavailable,
)
from fastkube.store.ops import (
    ABSENT,
    ANY,
    KEEP,
    TO_THE_END,
    Compare,
    Delete,
    DeleteResponse,
    Put,
    PutResponse,
    Range,
    RangeResult,
    Txn,
    TxnResult,
    Write,
    prefix_end,
)
from fastkube.store.options import ReplicationOptions
from fastkube.store.reader import StoreReader, Values
from fastkube.store.records import DELETE, PUT, Deleted, Event, Item
from fastkube.store.snapshot import BackupFailed, restore
from fastkube.store.store import LeaseInfo, Status, Store
from fastkube.store.watch import Subscription, Watcher

if TYPE_CHECKING:
    from fastkube.store.frontend import FrontendStore
    from fastkube.store.gateway import Gateway
    from fastkube.store.replication import Replication

_WHEN_ASKED_FOR = {"FrontendStore": "frontend", "Gateway": "gateway", "Replication": "replication"}
"""What a single server in a single process does without, and need not wait for at its start."""


def __getattr__(name: str) -> Any:
    if name not in _WHEN_ASKED_FOR:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHEN_ASKED_FOR[name]}"), name)


__all__ = [
    "ABSENT",
    "ANY",
    "DELETE",
    "KEEP",
    "PUT",
    "TO_THE_END",
    "BackupFailed",
    "Compacted",
    "Compare",
    "CorruptStore",
    "Delete",
    "DeleteResponse",
    "Deleted",
    "DuplicateKey",
    "Event",
    "FrontendStore",
    "FutureRevision",
    "Gateway",
    "InvalidRequest",
    "Item",
    "KeyExists",
    "KeyMissing",
    "LeaseExists",
    "LeaseInfo",
    "LeaseNotFound",
    "NoSpace",
    "Overloaded",
    "Put",
    "PutResponse",
    "Range",
    "RangeResult",
    "Replication",
    "ReplicationOptions",
    "RevisionMismatch",
    "Status",
    "Store",
    "StoreClosed",
    "StoreError",
    "StoreFailed",
    "StoreLocked",
    "StoreReader",
    "StoreUnavailable",
    "Subscription",
    "Txn",
    "TxnResult",
    "Values",
    "Watcher",
    "Write",
    "prefix_end",
    "restore",
]
