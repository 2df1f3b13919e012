"""Watches over WebSocket, for browsers: each event is one message.

aiohttp makes the handshake and reads what the client sends (closing, pings); events are written as ready-made frames,
which unlike a client's are not masked, so that a group of watchers can share them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from fastkube.server.answer import Streamed
from fastkube.server.streams import Framing

if TYPE_CHECKING:
    from fastkube.server.request import Request
    from fastkube.server.streams import Watcher

_TEXT, _BINARY = 0x81, 0x82
_BINARY_PROTOCOL = "binary.k8s.io"
_CLOSE_TIMEOUT_S = 2.0


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


async def serve_websocket(
    request: Request, make: Callable[[Framing], Watcher], run: Callable[[Watcher], Awaitable[None]]
) -> Streamed:
    """Makes the handshake and runs the watch until either side ends it."""
    socket = web.WebSocketResponse(protocols=(_BINARY_PROTOCOL,), compress=False, timeout=_CLOSE_TIMEOUT_S)
    await socket.prepare(request.http)
    request.streaming = True
    watcher = make(BINARY_FRAMES if socket.ws_protocol == _BINARY_PROTOCOL else TEXT_FRAMES)
    request.connection.watcher = watcher
    reading = asyncio.ensure_future(_read(socket, watcher))
    try:
        await run(watcher)
    finally:
        request.connection.watcher = None
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
    if watcher.clean:
        await socket.close()
    return Streamed(101, False)


async def _read(socket: web.WebSocketResponse, watcher: Watcher) -> None:
    """A watch takes no messages; only the end of the connection matters."""
    async for message in socket:
        if message.type in (WSMsgType.CLOSE, WSMsgType.ERROR):
            break
    watcher.end()
