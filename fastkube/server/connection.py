"""One client connection: aiohttp's parser reads requests one after the other, and each is answered with one write.

    data_received → aiohttp's HttpRequestParser (llhttp) → Request → the server's `serve`, in the same turn of the loop
    a body that is still to come arrives in the request's `payload`, which `read_body` waits for
    `answer` writes, and goes on with what has come meanwhile (pipelined requests wait their turn)

aiohttp's own RequestHandler would give every request to a task and build a response object for it, which costs more
than the rest of a small request. A connection is closed when it sends no whole request head within `HEADER_TIMEOUT_S`,
when it stays idle longer than `IDLE_TIMEOUT_S` between requests, when its TLS handshake takes longer than
`HANDSHAKE_TIMEOUT_S`, and when it takes nothing of what waits for it for `SEND_TIMEOUT_S`. No buffer grows without a
limit: a client that sends ahead more than `_WAITING_MAX` requests, or a body that nobody reads, has to wait.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError
from aiohttp.http_parser import HttpRequestParser
from aiohttp.streams import EMPTY_PAYLOAD

from fastkube import errors
from fastkube.server.request import Request
from fastkube.server.status import status_answer
from fastkube.server.tls import Tls

if TYPE_CHECKING:
    import ssl

    from aiohttp.http_parser import RawRequestMessage
    from aiohttp.streams import StreamReader

    from fastkube.registry.strategy import UserInfo
    from fastkube.server.repeats import Plans
    from fastkube.server.streams import Watcher

HEADER_TIMEOUT_S = 32.0
IDLE_TIMEOUT_S = 90.0
HANDSHAKE_TIMEOUT_S = 10.0

SEND_TIMEOUT_S = 60.0
"""A client that takes nothing of what waits for it is cut off after this time."""

_LINGER_S = 1.0
"""After the last answer what the client still sends is thrown away for so long: a reset could overtake the answer."""

_REFUSED_LINGER_S = 0.2
"""The same after what was no HTTP."""

_LAST_WRITES_S = 0.05
"""How long the last answers may take to leave when the server stops."""

_LINE_MAX_BYTES = 256 * 1024
"""Longest request line and longest header: long label selectors and tokens must fit."""

_HEADERS_MAX = 256
_BODY_BUFFER_BYTES = 256 * 1024
_WAITING_MAX = 64
_RECEIVE_BYTES = 256 * 1024

_NO_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request"
)

_NO_METHOD = (
    b"HTTP/1.1 405 Method Not Allowed\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b"
)

_is_request_line = re.compile(r"'[!#$%&*+.^_`|~0-9A-Za-z-]+ \S+ HTTP/1\.[01]'").search
"""aiohttp knows only registered methods; the line which it quotes tells other ones from what is no HTTP at all."""

Serve = Callable[[Request], None]

Shortcut = Callable[["Connection", "RawRequestMessage"], bytes | None]
"""Answers a request at once, if it can; b"": the answer is under way."""

Again = Callable[["Connection", bytes], bytes | None]
"""The same for a whole request that is not parsed yet, of a connection with plans."""

_HEAD_END = b"\r\n\r\n"


class Connection(BaseProtocol):
    """`certificate_user` is who the peer's client certificate says it is, once a request has asked."""

    __slots__ = (
        "_between", "_body", "_broken", "_closing", "_looping", "_manager", "_paused_at", "_payload", "_receive",
        "_tail", "_waiting", "busy", "certificate_user", "on_lost", "plans", "served", "since", "watcher", "whole",
    )  # fmt: skip

    def __init__(self, manager: HttpServer) -> None:
        parser = HttpRequestParser(
            self,
            manager.loop,
            _BODY_BUFFER_BYTES,
            max_line_size=_LINE_MAX_BYTES,
            max_headers=_HEADERS_MAX,
            max_field_size=_LINE_MAX_BYTES,
            auto_decompress=False,
        )
        super().__init__(manager.loop, parser)
        self._manager = manager
        self.certificate_user: UserInfo | bool | None = False
        self.plans: Plans | None = None
        """What is known of the requests that its client repeats (repeats.py)."""
        self.busy = False
        """Whether a request is under way."""
        self.served = False
        """Whether a whole request head has arrived yet."""
        self.since = manager.loop.time()
        """When it was opened, or its last answer given."""
        self.watcher: Watcher | None = None
        self.on_lost: Callable[[], None] | None = None
        """What a request under way wants done when the client goes."""
        self.whole: bytes | None = None
        """The request under way as it came, body and all, where nothing came with it."""
        self._between = True  # whether the parser is known to have taken whole requests, and nothing of a next one
        self._waiting: deque[tuple[RawRequestMessage, StreamReader]] = deque()
        self._body: bytes | None = None  # of the request under way, where it was looked at early
        self._payload: StreamReader | None = None  # of the request under way, while it may be incomplete
        self._broken: HttpProcessingError | None = None  # what came after the waiting requests is no HTTP
        self._looping = False  # in `_serve_waiting`
        self._closing = False
        self._paused_at = 0.0  # when the socket began to be full; 0: it is not
        self._receive: Callable[[bytes], None] | None = None  # who gets all that comes after an upgrade
        self._tail = b""  # what came with the request for that upgrade

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

    def connection_lost(self, exc: BaseException | None) -> None:
        self._manager.open.discard(self)
        payload = self._payload
        if payload is not None and not payload.is_eof():
            payload.set_exception(ConnectionResetError("the client has gone"))
        super().connection_lost(exc)
        if self.watcher is not None:
            self.watcher.disconnected()
        if self.on_lost is not None:
            self.on_lost()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._paused_at = self._manager.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._paused_at = 0.0
        self._serve_waiting()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """aiohttp's bodies ask for it when they end and when they are read; mostly nothing has stopped."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def data_received(self, data: bytes) -> None:
        if self._receive is not None:
            self._receive(data)
            return
        if self._closing or self._broken is not None:
            return
        alone = self._between and not (self.busy or self._waiting)
        if alone and self.plans is not None and not self._paused_at and self._took(self._manager.again(self, data)):
            return
        parser: Any = self._parser
        try:
            messages, self._upgraded, tail = parser.feed_data(data)
        except HttpProcessingError as problem:
            self._broken = problem
            messages, tail = (), b""
        body_bytes = _body_bytes(*messages[0]) if len(messages) == 1 else -1
        alone &= body_bytes == len(data) - data.find(_HEAD_END) - len(_HEAD_END)
        self.whole = data if alone else None
        # One request without a body, and the data end as its head does: whatever came before, no more has begun.
        self._between = alone or (not body_bytes and data.endswith(_HEAD_END))
        if messages:
            self._waiting.extend(messages)
        if self._upgraded:
            self._tail = tail
        if not self.busy:
            self._serve_waiting()
        elif len(self._waiting) > _WAITING_MAX and not self._buffer_paused:
            self._pause_reading_for_buffer()

    # ---------------------------------------------------------------- requests

    def _serve_waiting(self) -> None:
        """Serves the waiting requests until one is not answered at once."""
        if self._looping:
            return
        self._looping = True
        try:
            while self._waiting and not (self.busy or self._closing or self._paused_at):
                message, self._payload = self._waiting.popleft()
                self._body = None
                if self.plans is not None and self._took(self._manager.shortcut(self, message)):
                    continue
                self.busy = self.served = True
                self._manager.working += 1
                self._manager.serve(Request(self, message, self._manager.loop.time()))
        finally:
            self._looping = False
        if self._broken is not None and not (self._waiting or self.busy or self._closing):
            self._refuse(self._broken)
        elif self._buffer_paused and not self._waiting:
            self._resume_reading_for_buffer()

    def _took(self, data: bytes | None) -> bool:
        """Whether there is an answer without further ado (b"": it is under way)."""
        if data is None or self.transport is None:
            return False
        if data:
            self.transport.write(data)
            self.since = self._manager.loop.time()
        else:
            self.busy = self.served = True
            self._manager.working += 1
        return True

    def answer(self, data: bytes, keep_alive: bool) -> None:
        """Ends the request under way with an answer (b"": it was written already)."""
        self.busy = False
        self.since = self._manager.loop.time()
        self._manager.ended()
        transport = self.transport
        if transport is None:
            return
        if data:
            transport.write(data)
        if not keep_alive or not self.complete:
            self.close()
            return
        if (self._waiting or self._broken is not None) and not self._looping:
            self._manager.loop.call_soon(self._serve_waiting)

    def _refuse(self, problem: HttpProcessingError) -> None:
        """Answers what is not HTTP, or a method nobody knows; always the last answer of its connection."""
        if self.transport is None:
            return
        if isinstance(problem, BadHttpMethod) and _is_request_line(problem.message):
            body = status_answer(errors.method_not_allowed()).body
            self.transport.write(_NO_METHOD % (len(body), body))
        else:
            self.transport.write(_NO_HTTP)
        self._closing = True  # more of it may be under way
        self._manager.loop.call_later(_REFUSED_LINGER_S, self._close_now)

    # ---------------------------------------------------------------- for requests under way

    @property
    def complete(self) -> bool:
        """Whether the request under way has come as a whole."""
        return self._payload is None or self._payload.is_eof()

    def take_body(self, body: bytes) -> None:
        """That of the request which is not parsed."""
        self._payload, self._body = None, body

    def whole_body(self) -> bytes | None:
        """The body of the request if it has come, without waiting; `read_body` gives it once more."""
        payload = self._payload
        if self._body is None and payload is not None and payload.is_eof() and payload.exception() is None:
            self._body = payload.read_nowait()
        return self._body

    async def read_body(self, request: Request, max_bytes: int) -> bytes | None:
        """The whole body; None when it is longer than `max_bytes`. Raises 400 and ConnectionResetError."""
        body, payload = self._body, self._payload
        if body is None and payload is None:
            return b""
        if body is None and payload is not None and payload.is_eof():
            body = payload.read_nowait()
        if body is not None:
            return body if len(body) <= max_bytes else None
        assert payload is not None
        length = request.headers.get("Content-Length")
        if length is not None and int(length) > max_bytes:
            return None
        if request.headers.get("Expect", "").lower() == "100-continue" and self.transport is not None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await self._read(payload, max_bytes)

    async def _read(self, payload: StreamReader, max_bytes: int) -> bytes | None:
        pieces: list[bytes] = []
        size = 0
        while True:
            try:
                piece = await payload.readany()
            except (asyncio.CancelledError, ConnectionError):
                raise
            except Exception as problem:  # aiohttp's own errors about broken bodies have no common base
                raise errors.bad_request(f"the body cannot be read: {type(problem).__name__}") from None
            if not piece:
                return b"".join(pieces)
            size += len(piece)
            if size > max_bytes:
                return None
            pieces.append(piece)

    async def drain(self) -> None:
        """Wait until the client has taken most of what was written; raises ConnectionResetError when it is gone."""
        await self._drain_helper()
        if self.transport is None:
            raise ConnectionResetError("the client has gone")

    def upgrade(self, receive: Callable[[bytes], None]) -> None:
        """From now on every byte the client sends goes to `receive`."""
        self._upgraded = True
        self._receive = receive
        if self._tail:
            rest, self._tail = self._tail, b""
            receive(rest)

    # ---------------------------------------------------------------- ends

    def close(self) -> None:
        """Closes once what was written is sent; what still comes is thrown away meanwhile."""
        transport = self.transport
        if transport is None or self._closing:
            return
        self._closing = True
        if self.complete:
            transport.close()
            return
        self._resume_transport_reading()
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
            limit = IDLE_TIMEOUT_S if self.served else HEADER_TIMEOUT_S
            if now - self.since > limit:
                self.close()


def _body_bytes(message: RawRequestMessage, payload: StreamReader) -> int:
    """How long the body is that has come with its head; -1 where that is not known, or it has not come as a whole."""
    if payload is EMPTY_PAYLOAD:
        return 0
    return int(message.headers.get("Content-Length", -1)) if payload.is_eof() else -1


class _Receiver(asyncio.BufferedProtocol):
    """What the transport sees of a connection.

    All connections receive into one buffer, whose bytes are taken out at once: a protocol that is handed bytes costs an
    object of 256 KiB for each piece that TLS decrypts.
    """

    __slots__ = ("_buffer", "_receive", "connection")

    def __init__(self, connection: Connection, buffer: memoryview) -> None:
        self.connection = connection
        self._buffer = buffer
        self._receive = connection.data_received

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._receive(bytes(self._buffer[:nbytes]))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connection.connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self.connection.pause_writing()

    def resume_writing(self) -> None:
        self.connection.resume_writing()


class HttpServer:
    """Makes connections (it is their protocol factory) and knows the open ones."""

    def __init__(self, serve: Serve, connections_max: int, shortcut: Shortcut, again: Again) -> None:
        self.serve = serve
        self.shortcut = shortcut
        self.again = again
        self.loop = asyncio.get_running_loop()
        self.connections_max = connections_max
        self.open: set[Connection] = set()
        self._received = memoryview(bytearray(_RECEIVE_BYTES))
        self.working = 0
        """Requests under way, watches included."""
        self._finished: asyncio.Future[None] | None = None

    def __call__(self) -> _Receiver:
        return _Receiver(Connection(self), self._received)

    def over_tls(self, context: Callable[[], ssl.SSLContext]) -> Callable[[], Tls]:
        """The protocol factory of a listener that speaks TLS; each connection takes the context of its time."""
        return lambda: Tls(context(), lambda: Connection(self), self._received, HANDSHAKE_TIMEOUT_S)

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
