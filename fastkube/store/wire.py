"""Bytes on the way between servers and in the log: msgpack of tuples, a tag in front where a type must be told.

an entry's data    origin, incarnation, [(number, many, commands), ...]     what one server proposed in one turn
a frame            length (4 bytes, big-endian), kind, body                 transport.py
"""

from __future__ import annotations

import struct
from typing import Any

import msgpack

from fastkube._raftlog import ConfState, Entry, Message, Snapshot
from fastkube.store.command import (
    CheckpointLease,
    Command,
    Compact,
    GrantLease,
    RevokeLease,
    SetMembers,
)
from fastkube.store.ops import Compare, Delete, Op, Put, Range, Retire, Txn, Write

LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = 512 << 20

_COMMANDS: tuple[type, ...] = (Write, Txn, GrantLease, RevokeLease, Compact, CheckpointLease, SetMembers, Retire)
_COMMAND_TAGS = {command: tag for tag, command in enumerate(_COMMANDS)}
_OPS: tuple[type, ...] = (Put, Delete, Range, Txn)
_OP_TAGS = {op: tag for tag, op in enumerate(_OPS)}


def pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def unpack(data: bytes) -> Any:
    """Arrays come back as tuples. Raises ValueError for what is no msgpack."""
    return msgpack.unpackb(data, use_list=False, strict_map_key=False)


def command_to_wire(command: Command) -> tuple[Any, ...]:
    tag = _COMMAND_TAGS[type(command)]
    if isinstance(command, Txn):
        return (tag, *_txn_to_wire(command))
    return (tag, *command)


def command_from_wire(packed: tuple[Any, ...]) -> Command:
    kind = _COMMANDS[packed[0]]
    if kind is Txn:
        return _txn_from_wire(packed[1:])
    command: Command = kind(*packed[1:])
    return command


def _txn_to_wire(txn: Txn) -> tuple[Any, ...]:
    return txn.compares, *(tuple(map(_op_to_wire, branch)) for branch in (txn.success, txn.failure))


def _txn_from_wire(packed: tuple[Any, ...]) -> Txn:
    compares, success, failure = packed
    return Txn(
        tuple(Compare(*compare) for compare in compares),
        tuple(map(_op_from_wire, success)),
        tuple(map(_op_from_wire, failure)),
    )


def _op_to_wire(op: Op) -> tuple[Any, ...]:
    return _OP_TAGS[type(op)], *(_txn_to_wire(op) if isinstance(op, Txn) else op)


def _op_from_wire(packed: tuple[Any, ...]) -> Op:
    kind = _OPS[packed[0]]
    if kind is Txn:
        return _txn_from_wire(packed[1:])
    op: Op = kind(*packed[1:])
    return op


def entry_to_wire(entry: Entry) -> tuple[Any, ...]:
    return tuple(entry)


def entry_from_wire(packed: Any) -> Entry:
    return Entry(*packed)


def message_to_wire(message: Message) -> tuple[Any, ...]:
    return tuple(message)


def message_from_wire(packed: tuple[Any, ...]) -> Message:
    """NamedTuples pack as arrays, so that only their types must be put back."""
    message = Message(*packed)
    entries = tuple(Entry(*entry) for entry in message.entries)
    return message._replace(entries=entries, snapshot=snapshot_from_wire(message.snapshot))


def snapshot_from_wire(packed: Any) -> Snapshot | None:
    if packed is None:
        return None
    index, term, conf, data = packed
    return Snapshot(index, term, ConfState(*conf), data)


def frame(kind: int, body: Any) -> bytes:
    data = pack((kind, body))
    return LENGTH.pack(len(data)) + data
