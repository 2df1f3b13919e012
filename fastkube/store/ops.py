"""What a caller may ask of the store, and the answers: etcd's transaction in named tuples of bytes and numbers."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from fastkube.store.errors import DuplicateKey, InvalidRequest
from fastkube.store.records import MAX_KEY_BYTES, MAX_VALUE_BYTES, Item

ANY = -1
"""As a write's expected revision: whatever is there, or nothing."""
ABSENT = 0
"""As a write's expected revision: the key must not exist."""

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
    key: bytes
    value: bytes
    lease: int = 0


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


Op: TypeAlias = Put | Delete | Range


class Write(NamedTuple):
    """One write with one condition. `value` None deletes; `expected` is ANY, ABSENT or a mod revision."""

    key: bytes
    value: bytes | None
    expected: int = ANY
    lease: int = 0


class PutResponse(NamedTuple):
    prev: Item | None
    revision: int


class DeleteResponse(NamedTuple):
    deleted: list[Item]


class RangeResult(NamedTuple):
    """`count` is the number of keys in the whole range; `more` says that `limit` left some out."""

    items: list[Item]
    more: bool
    count: int  # type: ignore[assignment]  # etcd's name for it, over tuple's method
    revision: int


Response: TypeAlias = PutResponse | DeleteResponse | RangeResult


class TxnResult(NamedTuple):
    succeeded: bool
    revision: int
    responses: list[Response]


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
    if len(key) + key.count(0) > MAX_KEY_BYTES:
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
    check_key(key)
    if expected != ANY:
        check_number(expected, "expected revision")
    if lease:
        check_number(lease, "lease")
    if value is None:
        return 0
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


def check_branch(ops: tuple[Op, ...]) -> None:
    """One branch of a transaction: sound keys, and no key changed twice."""
    for op in ops:
        check_key(op.key)
        if isinstance(op, Put):
            check_value(op.value)
            check_number(op.lease, "lease")
        elif isinstance(op, Range):
            check_number(op.revision, "revision")
            check_number(op.limit, "limit")
    put_keys: set[bytes] = set()
    for op in ops:
        if isinstance(op, Put):
            if op.key in put_keys:
                raise DuplicateKey(op.key)
            put_keys.add(op.key)
    for op in ops:
        if isinstance(op, Delete):
            for key in put_keys:
                if in_range(key, op.key, op.end):
                    raise DuplicateKey(key)


def in_range(key: bytes, start: bytes, end: bytes | None) -> bool:
    if end is None:
        return key == start
    return key >= start and (end == TO_THE_END or key < end)
