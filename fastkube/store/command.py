"""The commands that change the store, and `apply`, which alone carries them out.

Rules:
 1. `apply` is deterministic: the same commands in the same order on the same state give the same state and the same
    results on every replica. It reads no clock, draws no number and does no I/O but its LMDB transaction.
 2. Conditions are decided here, inside the transaction that writes, and nowhere before.
 3. A command either holds whole or changes nothing: whatever can refuse it is looked at before its first change.
 4. A refusal is a result (a StoreError that is returned, not raised): the commands beside it in the batch go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from fastkube.store.errors import (
    Compacted,
    FutureRevision,
    KeyExists,
    KeyMissing,
    LeaseExists,
    LeaseNotFound,
    RevisionMismatch,
    StoreError,
)
from fastkube.store.mvcc import Reading, Writing
from fastkube.store.ops import (
    ABSENT,
    ANY,
    KEEP,
    Compare,
    Delete,
    DeleteResponse,
    Put,
    PutResponse,
    Range,
    RangeResult,
    Response,
    Retire,
    Txn,
    TxnResult,
    Write,
)
from fastkube.store.records import Deleted, Item

_NO_VERSION = Item(b"", b"", 0, 0, 0, 0)


class GrantLease(NamedTuple):
    lease: int
    ttl_s: int


class RevokeLease(NamedTuple):
    """Deletes the attached keys in one revision."""

    lease: int


class CheckpointLease(NamedTuple):
    """What is left of a lease's time, for a server that leads later; 0: all of it again."""

    lease: int
    left_s: int


class Compact(NamedTuple):
    revision: int


class SetMembers(NamedTuple):
    """Who replicates this store: the configuration of consensus and what is known of each member, both packed."""

    packed: bytes


class Change(NamedTuple):
    """One change of another store; `value` None is a delete."""

    revision: int
    key: bytes
    value: bytes | None


class Mirrored(NamedTuple):
    """What the store that this one is a copy of has done, in its order, up to `revision`."""

    changes: tuple[Change, ...]
    revision: int


Command: TypeAlias = Write | Retire | Txn | GrantLease | RevokeLease | CheckpointLease | Compact | SetMembers | Mirrored
Result: TypeAlias = int | Deleted | TxnResult | StoreError
"""A revision, unless the command says more (a delete, a transaction) or was refused."""


def apply(store: Writing, command: Command) -> Result:
    """Carry one command out."""
    return _APPLY[type(command)](store, command)


def _write(store: Writing, write: Write) -> Result:
    key, value, expected, lease = write
    if lease and not store.has_lease(lease):
        return LeaseNotFound(lease)
    if value is None:
        return _delete_one(store, key, expected)
    if expected == ABSENT:
        if store.insert(key, value, lease):
            return store.close_revision()
        found = store.get(key)
        assert found is not None
        return KeyExists(found)
    prev = store.get(key)
    if expected != ANY and (prev is None or prev.mod_revision != expected):
        return RevisionMismatch(key, prev)
    store.put(key, value, lease, prev)
    return store.close_revision()


def _delete_one(store: Writing, key: bytes, expected: int) -> Result:
    prev = store.get(key)
    if prev is None:
        return KeyMissing(key)
    if expected not in (ANY, prev.mod_revision):
        return RevisionMismatch(key, prev)
    store.delete(prev)
    return Deleted(*prev, store.close_revision())


def _retire(store: Writing, command: Retire) -> Result:
    key, value, expected = command
    prev = store.get(key)
    if prev is None:
        return KeyMissing(key)
    if prev.mod_revision != expected:
        return RevisionMismatch(key, prev)
    last = store.retire(prev, value)
    return Deleted(*last, store.revision)


class _Decided(NamedTuple):
    """A transaction whose compares were looked at: the branch to go, and what has to hold of its operations."""

    succeeded: bool
    steps: list[Put | Delete | Range | _Decided]


def _decide(store: Reading, txn: Txn) -> _Decided:
    succeeded = all(_holds(store, compare) for compare in txn.compares)
    branch = txn.success if succeeded else txn.failure
    return _Decided(succeeded, [_decide(store, op) if isinstance(op, Txn) else op for op in branch])


def _txn(store: Writing, txn: Txn) -> Result:
    decided = _decide(store, txn)
    refusal = _put_refusal(store, decided) or _range_refusal(store, decided)
    if refusal is not None:
        return refusal
    responses = [_respond(store, step) for step in decided.steps]
    return TxnResult(decided.succeeded, store.close_revision(), responses)


def read_txn(store: Reading, txn: Txn) -> TxnResult:
    """A transaction that cannot change anything, answered by a view. Raises what `apply` would return."""
    decided = _decide(store, txn)
    refusal = _range_refusal(store, decided)
    if refusal is not None:
        raise refusal
    return _read(store, decided)


def _read(store: Reading, decided: _Decided) -> TxnResult:
    responses: list[Response] = []
    for step in decided.steps:
        if isinstance(step, _Decided):
            responses.append(_read(store, step))
        elif isinstance(step, Range):
            responses.append(_range(store, step))
    return TxnResult(decided.succeeded, store.revision, responses)


def _put_refusal(store: Reading, decided: _Decided) -> StoreError | None:
    for step in decided.steps:
        refusal: StoreError | None = None
        if isinstance(step, Put):
            if step.keeps and store.get(step.key) is None:
                refusal = KeyMissing(step.key)
            elif step.lease > 0 and not store.has_lease(step.lease):
                refusal = LeaseNotFound(step.lease)
        elif isinstance(step, _Decided):
            refusal = _put_refusal(store, step)
        if refusal is not None:
            return refusal
    return None


def _range_refusal(store: Reading, decided: _Decided) -> StoreError | None:
    for step in decided.steps:
        refusal: StoreError | None = None
        if isinstance(step, Range) and step.revision:
            try:
                store.check_revision(step.revision)
            except StoreError as found:
                refusal = found
        elif isinstance(step, _Decided):
            refusal = _range_refusal(store, step)
        if refusal is not None:
            return refusal
    return None


def _respond(store: Writing, step: Put | Delete | Range | _Decided) -> Response:
    if isinstance(step, Put):
        return PutResponse(_put(store, step), store.revision + 1)
    if isinstance(step, Delete):
        return DeleteResponse(_delete_range(store, step), store.seen_revision)
    if isinstance(step, Range):
        return _range(store, step)._replace(revision=store.seen_revision)
    responses = [_respond(store, inner) for inner in step.steps]
    return TxnResult(step.succeeded, store.seen_revision, responses)


def _put(store: Writing, op: Put) -> Item | None:
    """The version that was replaced."""
    prev = store.get(op.key)
    value, lease = op.value, op.lease
    if op.keeps:
        kept = prev or _NO_VERSION  # deleted by this very transaction: then there is nothing to keep
        value = kept.value if value is None else value
        lease = kept.lease if lease == KEEP else lease
    assert value is not None
    store.put(op.key, value, lease, prev)
    return prev


def _delete_range(store: Writing, op: Delete) -> list[Item]:
    if op.end is None:
        found = store.get(op.key)
        doomed = [] if found is None else [found]
    else:
        doomed = list(store.items(op.key, op.end))
    for item in doomed:
        store.delete(item)
    return doomed


def _range(store: Reading, op: Range) -> RangeResult:
    key, end, revision, limit, reverse, keys_only, count_only = op
    return store.range(
        key, end, revision=revision, limit=limit, reverse=reverse, keys_only=keys_only, count_only=count_only
    )


_VALUES: dict[str, Callable[[Item], int | bytes]] = {
    "create": lambda item: item.create_revision,
    "mod": lambda item: item.mod_revision,
    "version": lambda item: item.version,
    "lease": lambda item: item.lease,
    "value": lambda item: item.value,
}
_ORDER: dict[str, tuple[int, ...]] = {"=": (0,), "!=": (-1, 1), "<": (-1,), ">": (1,)}


def _holds(store: Reading, compare: Compare) -> bool:
    if compare.end is None:
        return _holds_for(compare, store.get(compare.key))
    found = list(store.items(compare.key, compare.end))
    if not found:
        return _holds_for(compare, None)
    return all(_holds_for(compare, item) for item in found)


def _holds_for(compare: Compare, item: Item | None) -> bool:
    if item is None:
        if compare.target == "value":
            return False  # etcd: no value is equal to, unequal to, less or more than any other
        found: int | bytes = 0
    else:
        found = _VALUES[compare.target](item)
    wanted = compare.value
    order = (found > wanted) - (found < wanted)  # type: ignore[operator]
    return order in _ORDER[compare.op]


def _grant_lease(store: Writing, command: GrantLease) -> Result:
    if store.has_lease(command.lease):
        return LeaseExists(command.lease)
    store.grant_lease(command.lease, command.ttl_s)
    return store.revision


def _revoke_lease(store: Writing, command: RevokeLease) -> Result:
    if not store.has_lease(command.lease):
        return LeaseNotFound(command.lease)
    for key in store.lease_keys(command.lease):
        item = store.get(key)
        if item is not None:
            store.delete(item)
    store.drop_lease(command.lease)
    return store.close_revision()


def _checkpoint_lease(store: Writing, command: CheckpointLease) -> Result:
    if not store.has_lease(command.lease):
        return LeaseNotFound(command.lease)
    store.checkpoint_lease(command.lease, command.left_s)
    return store.revision


def _set_members(store: Writing, command: SetMembers) -> Result:
    store.set_members(command.packed)
    return store.revision


def _mirrored(store: Writing, command: Mirrored) -> Result:
    """Revisions are the other store's, so they have gaps here where it changed what is not copied."""
    for revision, key, value in command.changes:
        if revision != store.revision + 1:
            store.close_revision()
            store.advance(revision - 1)
        prev = store.get(key)
        if value is not None:
            store.put(key, value, 0, prev)
        elif prev is not None:
            store.delete(prev)
    store.close_revision()
    store.advance(command.revision)
    return store.revision


def _compact(store: Writing, command: Compact) -> Result:
    if command.revision > store.revision:
        return FutureRevision(store.revision)
    if command.revision <= store.compacted:
        return Compacted(store.compacted)
    store.compact(command.revision)
    return store.revision


_APPLY: dict[type, Callable[..., Result]] = {
    Write: _write,
    Retire: _retire,
    Txn: _txn,
    GrantLease: _grant_lease,
    RevokeLease: _revoke_lease,
    CheckpointLease: _checkpoint_lease,
    Compact: _compact,
    SetMembers: _set_members,
    Mirrored: _mirrored,
}
