"""What a caller may ask of the store, and the answers: etcd's transaction in named tuples of bytes and numbers."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from fastkube.store.errors import DuplicateKey, InvalidRequest
from fastkube.store.records import MAX_KEY_BYTES, MAX_VALUE_BYTES, Item, escape

ANY = -1
"""As a write's expected revision: whatever is there, or nothing."""
ABSENT = 0
"""As a write's expected revision: the key must not exist."""

KEEP = -1
"""As a put's lease: the one that the key has."""

TO_THE_END = b"\x00"
"""As the end of a range: every key from its start, as in etcd."""


class Compare(NamedTuple):
    """A condition on one key, or on every key of [key, end). `target` is create, mod, version, value or lease.

    A key that does not exist has zero for every number, and its value equals nothing, as in etcd.
    """

    key: bytes
    target: str
    op: str
    value: int | bytes
    end: bytes | None = None


class Put(NamedTuple):
    """`value` None and `lease` KEEP leave what the key has; then it must exist (KeyMissing)."""

    key: bytes
    value: bytes | None
    lease: int = 0

    @property
    def keeps(self) -> bool:
        return self.value is None or self.lease == KEEP


class Delete(NamedTuple):
    """Deletes one key, or every key of [key, end)."""

    key: bytes
    end: bytes | None = None


class Range(NamedTuple):
    """Reads one key, or [key, end), as the transaction has left it so far or at an older revision."""

    key: bytes
    end: bytes | None = None
    revision: int = 0
    limit: int = 0
    reverse: bool = False
    keys_only: bool = False
    count_only: bool = False


class Txn(NamedTuple):
    """etcd's transaction: all compares hold → success, else failure; either branch is one revision.

    Inside another one it is an operation. All compares are decided before anything is changed, also the inner ones.
    """

    compares: tuple[Compare, ...]
    success: tuple[Op, ...]
    failure: tuple[Op, ...] = ()


Op: TypeAlias = Put | Delete | Range | Txn


class Write(NamedTuple):
    """One write with one condition. `value` None deletes; `expected` is ANY, ABSENT or a mod revision."""

    key: bytes
    value: bytes | None
    expected: int = ANY
    lease: int = 0


class Retire(NamedTuple):
    """A last version over the one of revision `expected`, and its end: two revisions, so that watches tell of both."""

    key: bytes
    value: bytes
    expected: int


class PutResponse(NamedTuple):
    prev: Item | None
    revision: int


class DeleteResponse(NamedTuple):
    deleted: list[Item]
    revision: int


class RangeResult(NamedTuple):
    """`count` is the number of keys in the whole range; `more` says that `limit` left some out."""

    items: list[Item]
    more: bool
    count: int  # type: ignore[assignment]  # etcd's name for it, over tuple's method
    revision: int


class TxnResult(NamedTuple):
    succeeded: bool
    revision: int
    responses: list[Response]


Response: TypeAlias = PutResponse | DeleteResponse | RangeResult | TxnResult


_TARGETS = {"create": int, "mod": int, "version": int, "lease": int, "value": bytes}
_OPERATORS = frozenset(("=", "!=", "<", ">"))


def single_key_end(key: bytes) -> bytes:
    """The end of the range that holds only `key`."""
    return key + b"\x00"


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range that holds every key with this prefix."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes((stripped[-1] + 1,)) if stripped else TO_THE_END


# What `apply` gets is sound in type and size: an exception inside it would stop the store, here it stops the caller.


def check_key(key: bytes) -> None:
    if key.__class__ is not bytes:
        raise InvalidRequest(f"key is {type(key).__name__}, not bytes")
    if not key:
        raise InvalidRequest("key is not provided")
    if len(key) > MAX_KEY_BYTES or (0 in key and len(escape(key)) > MAX_KEY_BYTES):
        raise InvalidRequest(f"key of {len(key)} bytes is too long (at most {MAX_KEY_BYTES})")


def check_value(value: bytes) -> None:
    if value.__class__ is not bytes:
        raise InvalidRequest(f"value is {type(value).__name__}, not bytes")
    if len(value) > MAX_VALUE_BYTES:
        raise InvalidRequest(f"value of {len(value)} bytes is too large (at most {MAX_VALUE_BYTES})")


def check_number(number: int, what: str) -> None:
    """A revision, a lease or a limit."""
    if not isinstance(number, int) or not 0 <= number < 1 << 63:
        raise InvalidRequest(f"{what} {number!r} is not a number from 0 to 2^63-1")


def check_write(write: Write) -> int:
    """Returns the size of the value."""
    key, value, expected, lease = write
    if key.__class__ is not bytes or not 0 < len(key) <= MAX_KEY_BYTES or 0 in key:
        check_key(key)  # says what is wrong, if anything is
    if expected.__class__ is not int or not ANY <= expected <= ABSENT:
        check_number(expected, "expected revision")
    if lease:
        check_number(lease, "lease")
    if value is None:
        return 0
    if value.__class__ is not bytes or len(value) > MAX_VALUE_BYTES:
        check_value(value)
    return len(value)


def check_compare(compare: Compare) -> None:
    if compare.target not in _TARGETS:
        raise InvalidRequest(f"compare target {compare.target!r} is none of {', '.join(_TARGETS)}")
    if compare.op not in _OPERATORS:
        raise InvalidRequest(f"compare operator {compare.op!r} is none of = != < >")
    if not isinstance(compare.value, _TARGETS[compare.target]):
        raise InvalidRequest(f"compare target {compare.target} takes {_TARGETS[compare.target].__name__}")
    check_key(compare.key)


def check_txn(txn: Txn) -> None:
    for compare in txn.compares:
        check_compare(compare)
    check_branch(txn.success)
    check_branch(txn.failure)


def check_branch(ops: tuple[Op, ...]) -> None:
    """One branch of a transaction: sound keys, and no key changed twice."""
    for op in ops:
        if isinstance(op, Txn):
            check_txn(op)
        else:
            _check_op(op)
    _changes(ops)


def _check_op(op: Put | Delete | Range) -> None:
    check_key(op.key)
    if isinstance(op, Put):
        if op.value is not None:
            check_value(op.value)
        if op.lease != KEEP:
            check_number(op.lease, "lease")
    elif isinstance(op, Range):
        check_number(op.revision, "revision")
        check_number(op.limit, "limit")


class _Changes(NamedTuple):
    puts: set[bytes]
    deletes: list[tuple[bytes, bytes | None]]


def _changes(ops: tuple[Op, ...]) -> _Changes:
    """What a branch may change. Raises DuplicateKey; the branches of an inner transaction do not meet each other."""
    puts: set[bytes] = set()
    deletes = [(op.key, op.end) for op in ops if isinstance(op, Delete)]
    for op in ops:
        if isinstance(op, Txn):
            inner = [_changes(branch) for branch in (op.success, op.failure)]
            for found in inner:
                _refuse_overlap(found.puts, puts, deletes)
                _refuse_overlap(puts, set(), found.deletes)
            for found in inner:
                puts |= found.puts
                deletes += found.deletes
        elif isinstance(op, Put):
            _refuse_overlap({op.key}, puts, deletes)
            puts.add(op.key)
    return _Changes(puts, deletes)


def _refuse_overlap(keys: set[bytes], puts: set[bytes], deletes: list[tuple[bytes, bytes | None]]) -> None:
    for key in keys:
        if key in puts or any(in_range(key, start, end) for start, end in deletes):
            raise DuplicateKey(key)


def values_bytes(ops: tuple[Op, ...]) -> int:
    """The size of all values that might be put."""
    return sum(
        values_bytes(op.success) + values_bytes(op.failure)
        if isinstance(op, Txn)
        else len(op.value or b"")
        if isinstance(op, Put)
        else 0
        for op in ops
    )


def only_reads(ops: tuple[Op, ...]) -> bool:
    return all(only_reads(op.success + op.failure) if isinstance(op, Txn) else isinstance(op, Range) for op in ops)


def in_range(key: bytes, start: bytes, end: bytes | None) -> bool:
    if end is None:
        return key == start
    return key >= start and (end == TO_THE_END or key < end)
