"""Writes of other processes: what goes over the Unix socket between a frontend's store and the one that writes.

Both ends send frames: 4 bytes of big-endian length and a msgpack array of messages, as many as one turn of the loop has
brought. A request is [number, operation, arguments], an answer [number, error, result]; answers come in any order.
Operations are those of the store's facade; commands, results and refusals are arrays that begin with their type. The
socket is its owner's alone (as the store's files are).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgpack

from fastkube.store import errors
from fastkube.store.errors import StoreError
from fastkube.store.ops import (
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
)
from fastkube.store.records import Deleted, Item

SOCKET_FILE = "writer.sock"

FRAME_MAX_BYTES = 512 << 20
_LENGTH_BYTES = 4

_TYPES: tuple[type, ...] = (
    Write, Txn, Compare, Put, Delete, Range, Item, Deleted, TxnResult, PutResponse, DeleteResponse, RangeResult,
)  # fmt: skip
_NUMBERS = {kind: number for number, kind in enumerate(_TYPES)}
_VALUE = len(_TYPES)  # something that is told as it is
_LIST = _VALUE + 1
_REFUSAL = _VALUE + 2

_REFUSED: dict[str, tuple[str, ...]] = {
    "KeyExists": ("item",),
    "KeyMissing": ("key",),
    "RevisionMismatch": ("key", "item"),
    "LeaseNotFound": ("lease",),
    "LeaseExists": ("lease",),
    "Compacted": ("revision",),
    "FutureRevision": ("revision",),
    "DuplicateKey": ("key",),
}
"""The arguments of each refusal's constructor; all others take a text."""


def encode(value: Any) -> Any:
    """A command, result, refusal or plain value as msgpack takes it."""
    number = _NUMBERS.get(value.__class__)
    if number is not None:
        return [number, *map(encode, value)]
    if isinstance(value, (list, tuple)):
        return [_LIST, *map(encode, value)]
    if isinstance(value, StoreError):
        name = type(value).__name__
        known = _REFUSED.get(name)
        arguments = [getattr(value, field) for field in known] if known else [str(value)]
        return [_REFUSAL, name, *map(encode, arguments)]
    return value


def decode(told: Any) -> Any:
    """The value that was encoded; lists are lists."""
    if not isinstance(told, list):
        return told
    number, *parts = told
    if number == _REFUSAL:
        name, *arguments = parts
        kind = getattr(errors, name)
        refusal: StoreError = kind(*map(decode, arguments))
        return refusal
    values = list(map(decode, parts))
    return values if number == _LIST else tuple.__new__(_TYPES[number], values)


class Framed(asyncio.Protocol):
    """One end of a connection. Messages are gathered for a turn of the loop and sent as one frame."""

    def __init__(self, on_message: Callable[[Any], None], on_lost: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._gathered: list[Any] = []

    @property
    def open(self) -> bool:
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._on_lost()

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        at = 0
        while len(received) - at >= _LENGTH_BYTES:
            begins = at + _LENGTH_BYTES
            length = int.from_bytes(received[at:begins], "big")
            if length > FRAME_MAX_BYTES:
                self.close()
                return
            if len(received) < begins + length:
                break
            at = begins + length
            for message in msgpack.unpackb(received[begins:at]):
                self._on_message(message)
        if at:
            del received[:at]

    def send(self, message: Any) -> None:
        if not self._gathered:
            self._loop.call_soon(self._flush)
        self._gathered.append(message)

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        if self._transport is not None:
            body: bytes = msgpack.packb(gathered)
            self._transport.write(len(body).to_bytes(_LENGTH_BYTES, "big") + body)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def socket_path(store: Path) -> str:
    """Where the writer of a store listens. A Unix socket's path may have no more than 107 bytes."""
    path = str(store / SOCKET_FILE)
    if len(path.encode()) > 107:
        raise errors.StoreError(f"{path}: the path is too long for a Unix socket; use a shorter --data-dir")
    return path
