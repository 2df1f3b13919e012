"""One client connection: requests are read one after the other, and each is answered with one write.

    data_received → head whole? → Request → the server's `serve`, in the same turn of the loop
                  → body to come: fed to the request as it arrives (`read_body`)
    `answer` writes, and goes on with what has come meanwhile (pipelined requests wait their turn)

A connection is closed when it sends no whole request head within `HEADER_TIMEOUT_S`, when it stays idle longer than
`IDLE_TIMEOUT_S` between requests, when its TLS handshake takes longer than `HANDSHAKE_TIMEOUT_S`, and when it takes
nothing of what waits for it for `SEND_TIMEOUT_S`. No buffer grows without a limit: while a request is under way no more
than `_AHEAD_MAX_BYTES` are read beyond it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from fastkube import errors
from fastkube.server.http1 import HEAD_MAX_BYTES, BadHttp, ChunkedBody, LengthBody, parse_head
from fastkube.server.request import Request

if TYPE_CHECKING:
    from fastkube.registry.strategy import UserInfo
    from fastkube.server.streams import Watcher

HEADER_TIMEOUT_S = 32.0
IDLE_TIMEOUT_S = 90.0
HANDSHAKE_TIMEOUT_S = 10.0

SEND_TIMEOUT_S = 60.0
"""A client that takes nothing of what waits for it is cut off after this time."""

_LINGER_S = 1.0
"""After the last answer what the client still sends is thrown away for so long: a reset could overtake the answer."""

_LAST_WRITES_S = 0.05
"""How long the last answers may take to leave when the server stops."""

_AHEAD_MAX_BYTES = 256 * 1024
_NO_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request"
)

_SPACE = 32

Serve = Callable[[Request], None]


class Connection(asyncio.Protocol):
    """`certificate_user` is who the peer's client certificate says it is, once a request has asked."""

    __slots__ = (
        "_body", "_broken", "_buffer", "_closing", "_looping", "_manager", "_paused_at", "_reading", "_scanned",
        "_upgraded", "_waiter", "busy", "certificate_user", "served", "since", "transport", "watcher",
    )  # fmt: skip

    def __init__(self, manager: HttpServer) -> None:
        self._manager = manager
        self.transport: asyncio.Transport | None = None
        self.certificate_user: UserInfo | bool | None = False
        self.busy = False
        """Whether a request is under way."""
        self.served = False
        """Whether a whole request head has arrived yet."""
        self.since = manager.loop.time()
        """When it was opened, or its last answer given."""
        self.watcher: Watcher | None = None
        self._buffer = b""
        self._scanned = 0  # of the buffer, without finding the end of a head
        self._body: LengthBody | ChunkedBody | None = None  # of the request under way, while it is incomplete
        self._broken = False  # that body is malformed
        self._reading = True
        self._looping = False  # in `_read_requests`
        self._closing = False
        self._paused_at = 0.0  # when the socket began to be full; 0: it is not
        self._waiter: asyncio.Future[None] | None = None  # for room in the socket, or for more of a body
        self._upgraded: Callable[[bytes], None] | None = None

    # ---------------------------------------------------------------- what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        manager = self._manager
        if len(manager.open) >= manager.connections_max:
            self.transport.abort()
            return
        manager.open.add(self)
        peer = transport.get_extra_info("socket")
        if peer is not None and peer.family != socket.AF_UNIX:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        self._manager.open.discard(self)
        self.transport = None
        self._wake()
        if self.watcher is not None:
            self.watcher.disconnected()

    def pause_writing(self) -> None:
        self._paused_at = self._manager.loop.time()

    def resume_writing(self) -> None:
        self._paused_at = 0.0
        self._wake()
        if not self.busy and self._buffer:
            self._read_requests()

    def data_received(self, data: bytes) -> None:
        if self._upgraded is not None:
            self._upgraded(data)
            return
        if self._closing:
            return
        body = self._body
        if body is not None:
            self._feed(body, data)
            return
        self._buffer = self._buffer + data if self._buffer else data
        if not self.busy:
            self._read_requests()
        elif len(self._buffer) > _AHEAD_MAX_BYTES:
            self._pause_reading()

    def _feed(self, body: LengthBody | ChunkedBody, data: bytes) -> None:
        if self._broken:
            return
        try:
            self._buffer = body.feed(data)
        except BadHttp:
            self._broken = True
        if self._waiter is not None:
            self._wake()
        elif not body.complete:
            self._pause_reading()  # nobody reads the body yet

    # ---------------------------------------------------------------- requests

    def _read_requests(self) -> None:
        """Serves the requests in the buffer until one has to wait, for its answer or for the client."""
        self._looping = True
        try:
            while self._buffer and not (self.busy or self._closing or self._paused_at):
                buffer = self._buffer
                end = buffer.find(b"\r\n\r\n", self._scanned)
                if end < 0 and len(buffer) <= HEAD_MAX_BYTES and buffer[0] > _SPACE:
                    self._scanned = max(0, len(buffer) - 3)
                    return
                self._scanned = 0
                if end < 0 or end > HEAD_MAX_BYTES:
                    raise BadHttp("no request head")
                self._begin(Request(self, parse_head(buffer[:end]), self._manager.loop.time()), buffer[end + 4 :])
        except BadHttp:
            self._refuse()
        finally:
            self._looping = False

    def _begin(self, request: Request, rest: bytes) -> None:
        fields = request.head.fields
        if fields.chunked:
            body: LengthBody | ChunkedBody = ChunkedBody()
        elif fields.length > len(rest):
            body = LengthBody(fields.length)
        else:
            length = fields.length
            request.body = rest[:length]
            self._buffer = rest[length:]
            self._serve(request)
            return
        self._buffer = body.feed(rest)
        if body.complete:
            request.body = body.take()
        else:
            self._body, self._broken = body, False
        self._serve(request)

    def _serve(self, request: Request) -> None:
        self.busy = self.served = True
        manager = self._manager
        manager.working += 1
        manager.serve(request)

    def answer(self, data: bytes, keep_alive: bool) -> None:
        """Ends the request under way with an answer (b"": it was written already)."""
        self.busy = False
        self._manager.ended()
        transport = self.transport
        if transport is None:
            return
        if data:
            transport.write(data)
        if not keep_alive or self._body is not None:
            self.close()
            return
        self.since = self._manager.loop.time()
        if not self._reading:
            self._resume_reading()
        if self._buffer and not self._looping:
            self._manager.loop.call_soon(self._read_requests)

    def _refuse(self) -> None:
        """Answers what is not HTTP; always the last answer of its connection."""
        self._buffer = b""
        if self.transport is not None:
            self.transport.write(_NO_HTTP)
            self.close()

    # ---------------------------------------------------------------- for requests under way

    @property
    def complete(self) -> bool:
        """Whether the request under way has come as a whole."""
        return self._body is None

    async def read_body(self, request: Request, max_bytes: int) -> bytes | None:
        """The whole body; None when it is longer than `max_bytes`. Raises 400 and ConnectionResetError."""
        body = self._body
        if body is None:
            return request.body if len(request.body) <= max_bytes else None
        if body.size <= max_bytes and request.head.fields.expects and self.transport is not None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while body.size <= max_bytes:
            if body.complete:
                self._body = None
                request.body = body.take()
                return request.body
            self._resume_reading()
            await self._wait()
            if self._broken:
                raise errors.bad_request("the body cannot be read: malformed chunks")
        body.drop()
        return None

    async def drain(self) -> None:
        """Wait until the client has taken most of what was written; raises ConnectionResetError when it is gone."""
        while self._paused_at and self.transport is not None:
            await self._wait()
        if self.transport is None:
            raise ConnectionResetError("the client has gone")

    async def _wait(self) -> None:
        if self.transport is None:
            raise ConnectionResetError("the client has gone")
        self._waiter = self._manager.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def upgrade(self, receive: Callable[[bytes], None]) -> None:
        """From now on every byte the client sends goes to `receive`."""
        self._upgraded = receive
        if self._buffer:
            rest, self._buffer = self._buffer, b""
            receive(rest)

    # ---------------------------------------------------------------- ends

    def close(self) -> None:
        """Closes once what was written is sent; what still comes is thrown away meanwhile."""
        transport = self.transport
        if transport is None or self._closing:
            return
        self._closing = True
        if self._body is None:
            transport.close()
            return
        self._body = None
        self._resume_reading()
        self._manager.loop.call_later(_LINGER_S, self._close_now)

    def _close_now(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Cuts the connection at once."""
        self._closing = True
        if self.transport is not None:
            self.transport.abort()

    def sweep(self, now: float) -> None:
        """Ends a connection that is over one of its times."""
        if self._paused_at and now - self._paused_at > SEND_TIMEOUT_S:
            self.abort()
        elif not self.busy and not self._paused_at:
            limit = IDLE_TIMEOUT_S if self.served and not self._buffer else HEADER_TIMEOUT_S
            if now - self.since > limit:
                self.close()

    def _pause_reading(self) -> None:
        if self._reading and self.transport is not None:
            self._reading = False
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._reading and self.transport is not None:
            self._reading = True
            self.transport.resume_reading()


class HttpServer:
    """Makes connections (it is their protocol factory) and knows the open ones."""

    def __init__(self, serve: Serve, connections_max: int) -> None:
        self.serve = serve
        self.loop = asyncio.get_running_loop()
        self.connections_max = connections_max
        self.open: set[Connection] = set()
        self.working = 0
        """Requests under way, watches included."""
        self._finished: asyncio.Future[None] | None = None

    def __call__(self) -> Connection:
        return Connection(self)

    def sweep(self, now: float) -> None:
        """Ends the connections that are over their time; called every now and then."""
        for connection in tuple(self.open):
            connection.sweep(now)

    def close_idle(self) -> None:
        """Closes the connections which wait for a request."""
        for connection in tuple(self.open):
            if not connection.busy:
                connection.close()

    def ended(self) -> None:
        """A request was answered."""
        self.working -= 1
        if not self.working and self._finished is not None and not self._finished.done():
            self._finished.set_result(None)

    async def finish(self, grace_s: float) -> None:
        """Wait until no request is under way, but not longer than `grace_s`; then every connection is cut."""
        if self.working:
            self._finished = self.loop.create_future()
            await asyncio.wait((self._finished,), timeout=grace_s)
        for connection in tuple(self.open):
            connection.close()
        if self.open:
            await asyncio.sleep(_LAST_WRITES_S)
        for connection in tuple(self.open):
            connection.abort()
