"""Watches over WebSocket (RFC 6455), for browsers: each event is one message.

Events are written as ready-made frames, which unlike a client's are not masked, so that a group of watchers can share
them. Of what a client sends only pings and the end matter; messages are read and ignored.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from fastkube import errors
from fastkube.server.answer import Streamed
from fastkube.server.streams import Framing

if TYPE_CHECKING:
    from fastkube.server.request import Request
    from fastkube.server.streams import Watcher

_TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
_BINARY_PROTOCOL = "binary.k8s.io"
_CLOSE_TIMEOUT_S = 2.0
_ACCEPT_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_KEY_BYTES = 16
_MESSAGE_MAX_BYTES = 64 * 1024
"""A watch takes no messages; whoever sends longer ones all the same is cut off."""

_NORMAL_END = (1000).to_bytes(2, "big")


def is_websocket(request: Request) -> bool:
    return "websocket" in request.headers.get("Upgrade", "").lower()


def frame(data: bytes, opcode: int = _TEXT) -> bytes:
    """One unmasked, unfragmented WebSocket frame (RFC 6455, section 5.2)."""
    size = len(data)
    if size < 126:
        return bytes((opcode, size)) + data
    if size < 65536:
        return bytes((opcode, 126)) + size.to_bytes(2, "big") + data
    return bytes((opcode, 127)) + size.to_bytes(8, "big") + data


TEXT_FRAMES = Framing("websocket", frame, None, b"")
BINARY_FRAMES = Framing("websocket-binary", lambda data: frame(data, _BINARY), None, b"")


class _Frames:
    """Cuts what a client sends into its frames."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """(opcode, payload) of the frames that are whole. Raises ValueError for what is none, or too long."""
        self._data += data
        found = []
        while (one := self._next()) is not None:
            found.append(one)
        return found

    def _next(self) -> tuple[int, bytes] | None:
        data = self._data
        if len(data) < 2:
            return None
        length, at = data[1] & 0x7F, 2
        if not data[1] & 0x80:
            raise ValueError("a client's frame must be masked")
        if length >= 126:
            at = 4 if length == 126 else 10
            length = int.from_bytes(data[2:at], "big") if len(data) >= at else 0
        if length > _MESSAGE_MAX_BYTES:
            raise ValueError("a frame that is too long")
        end = at + 4 + length
        if len(data) < end:
            return None
        mask, payload = data[at : at + 4], data[at + 4 : end]
        self._data = data[end:]
        return data[0] & 0x0F, bytes(byte ^ mask[index & 3] for index, byte in enumerate(payload))


async def serve_websocket(
    request: Request, make: Callable[[Framing], Watcher], run: Callable[[Watcher], Awaitable[None]]
) -> Streamed:
    """Makes the handshake and runs the watch until either side ends it. Raises 400 for a broken handshake."""
    connection = request.connection
    transport = connection.transport
    head, binary = _handshake(request)
    if transport is None:
        raise ConnectionResetError("the client has gone")
    transport.write(head)
    request.streaming = True
    watcher = make(BINARY_FRAMES if binary else TEXT_FRAMES)
    connection.watcher = watcher
    frames, closed = _Frames(), asyncio.Event()

    def receive(data: bytes) -> None:
        try:
            for opcode, payload in frames.feed(data):
                if opcode == _PING & 0x0F:
                    transport.write(frame(payload[:125], _PONG))
                elif opcode == _CLOSE & 0x0F:
                    closed.set()
                    watcher.end()
        except ValueError:
            watcher.cut()

    connection.upgrade(receive)
    try:
        await run(watcher)
    finally:
        connection.watcher = None
    if watcher.clean:
        transport.write(frame(_NORMAL_END, _CLOSE))
        try:
            await asyncio.wait_for(closed.wait(), _CLOSE_TIMEOUT_S)
        except TimeoutError:
            connection.abort()
    return Streamed(101, False)


def _handshake(request: Request) -> tuple[bytes, bool]:
    """The answer to the client's handshake, and whether it wants binary frames."""
    headers = request.headers
    key = headers.get("Sec-WebSocket-Key", "")
    try:
        key_bytes = len(base64.b64decode(key, validate=True))
    except binascii.Error:
        key_bytes = 0
    if key_bytes != _KEY_BYTES or headers.get("Sec-WebSocket-Version") != "13":
        raise errors.bad_request("not a WebSocket handshake of version 13")
    accept = base64.b64encode(hashlib.sha1(key.encode() + _ACCEPT_KEY, usedforsecurity=False).digest())
    lines = [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"]
    lines.append(b"Sec-WebSocket-Accept: " + accept + b"\r\n")
    offered = [protocol.strip() for protocol in headers.get("Sec-WebSocket-Protocol", "").split(",")]
    binary = _BINARY_PROTOCOL in offered
    if binary:
        lines.append(b"Sec-WebSocket-Protocol: " + _BINARY_PROTOCOL.encode() + b"\r\n")
    return b"".join((*lines, b"\r\n")), binary
