"""What the store keeps and how it lies on disk.

Five LMDB databases, all in one file and so in one transaction (DESIGN.md shows them at work):

    current     key                              → header, value              the newest version of each live key
    history     escaped key, NUL, revision       → header, value, until       versions superseded or deleted at `until`
    log         revision                         → operations                 what each revision changed, without values
    leases      lease id                         → time to live, and what was left of it when that was last written
    lease_keys  lease id, key                    → nothing                    keys that go when the lease goes
    meta        b"format", b"state"              → the format's name; revision, applied index, compacted
                b"members", b"installed"         → who replicates the store; the last snapshot that replaced it
                b"copy"                          → there where revisions are etcd's (external/)

Numbers in keys are big-endian, so that LMDB's byte order is their order. A key inside a history key has its NULs
escaped: revisions begin with a zero byte, so all versions of a key lie together and keys keep their order. A run of n
NULs is NUL and one byte: n where the key ends, 256 - n where it goes on (the longer the run, the less the key); more
than 127 are NUL 0x80, and the rest as a run of its own.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

FORMAT = b"fastkube-store/1"

PUT = 0
DELETE = 1

HEADER = struct.Struct("<QQQq")  # create revision, mod revision, version, lease
UNTIL = struct.Struct("<Q")  # the revision that ended a superseded version, behind its value
STATE = struct.Struct("<QQQ")  # revision, applied index, compacted
TTL = struct.Struct("<Q")  # seconds
LOG_OP = struct.Struct("<BQH")  # type, mod revision of the version before (0: none), length of the key behind it
U64 = struct.Struct(">Q")
I64 = struct.Struct(">q")

MAX_KEY_BYTES = 500  # LMDB takes 511; a history key needs nine more than its key
MAX_VALUE_BYTES = 16 << 20

FIRST_REVISION = 1  # of an empty store, as etcd has it: the first write is revision 2

_NUL = b"\x00"
_RUN_MAX = 127
_RUNS = re.compile(rb"\x00+")
_ESCAPED_RUNS = re.compile(rb"\x00(.)", re.DOTALL)
_HEADER_BYTES = HEADER.size
_MOD_AT = 8
_new = tuple.__new__


class Item(NamedTuple):
    """One version of one key."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int


class Deleted(NamedTuple):
    """The version that a delete ended, and the revision of the delete."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int
    delete_revision: int


class Event(NamedTuple):
    """One change of one key. A DELETE has an empty value, and zero for what only a version has."""

    type: int
    key: bytes
    value: bytes
    revision: int
    create_revision: int
    version: int
    lease: int
    prev: Item | None


class LogOp(NamedTuple):
    """One operation of a revision as the log has it: enough to find the versions before and after."""

    type: int
    prev_revision: int
    key: bytes


class State(NamedTuple):
    """Where the store stands; written in the same transaction as the data it speaks of."""

    revision: int
    applied: int
    compacted: int


def item(key: bytes, raw: bytes) -> Item:
    """An entry of `current`."""
    create, mod, version, lease = HEADER.unpack_from(raw)
    return _new(Item, (key, raw[_HEADER_BYTES:], create, mod, version, lease))


def record(item: Item) -> bytes:
    """An item as it lies in `current`."""
    return HEADER.pack(item.create_revision, item.mod_revision, item.version, item.lease) + item.value


def value_of(raw: bytes) -> tuple[bytes, int]:
    """Value and mod revision of an entry of `current`."""
    return raw[_HEADER_BYTES:], UNTIL.unpack_from(raw, _MOD_AT)[0]


def past_item(key: bytes, raw: bytes) -> Item:
    """An entry of `history`."""
    create, mod, version, lease = HEADER.unpack_from(raw)
    return _new(Item, (key, raw[_HEADER_BYTES : -UNTIL.size], create, mod, version, lease))


def until(raw: bytes) -> int:
    """When the version in a history entry ended."""
    revision: int = UNTIL.unpack_from(raw, len(raw) - UNTIL.size)[0]
    return revision


def escape(key: bytes) -> bytes:
    return _RUNS.sub(_escaped_run, key) if _NUL in key else key


def _escaped_run(run: re.Match[bytes]) -> bytes:
    whole, rest = divmod(run.end() - run.start() - 1, _RUN_MAX)
    last = rest + 1 if run.end() == len(run.string) else 0xFF - rest
    return b"\x00\x80" * whole + bytes((0, last))


def _run(escaped: re.Match[bytes]) -> bytes:
    code = escaped[1][0]
    return bytes(code if code < 0x80 else _RUN_MAX if code == 0x80 else 0x100 - code)


def history_key(key: bytes, revision: int) -> bytes:
    return escape(key) + _NUL + U64.pack(revision)


def split_history_key(encoded: bytes) -> tuple[bytes, int]:
    key = encoded[: -U64.size - 1]
    if _NUL in key:
        key = _ESCAPED_RUNS.sub(_run, key)
    return key, U64.unpack_from(encoded, len(encoded) - U64.size)[0]


def log_op(kind: int, prev_revision: int, key: bytes) -> bytes:
    return LOG_OP.pack(kind, prev_revision, len(key)) + key


def log_ops(raw: bytes) -> list[LogOp]:
    """The operations of a log entry, in their order."""
    ops = []
    at = 0
    while at < len(raw):
        kind, prev_revision, length = LOG_OP.unpack_from(raw, at)
        at += LOG_OP.size
        ops.append(LogOp(kind, prev_revision, raw[at : at + length]))
        at += length
    return ops
