"""A lean HTTP/1.1 client: one request at a time on a connection, a pool of kept-alive connections, streams apart.

General HTTP libraries cost 200 us and more a request; a control plane's own components send thousands a second to a
server they know, so this module does only what an API server needs. The rules it obeys:

  1. A connection carries one exchange at a time. It goes back to the pool only when the whole answer has been read and
     neither side asked to close; a cancelled or expired exchange closes its connection.
  2. Every wait has an end: connecting, the place in the pool and the answer share the request's timeout, each read of a
     stream has its own.
  3. An error says whether the request may have reached the server (`sent`), so that callers know what they may repeat.
  4. A stream whose reader is slow stops reading from the socket at STREAM_BYTES_MAX; nothing grows without a limit.

Heads are read as RFC 9112 says; answers end by Content-Length, by chunks, or with the connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from typing import NamedTuple, Protocol

HEAD_BYTES_MAX = 64 * 1024
STREAM_BYTES_MAX = 4 * 1024 * 1024
CONNECT_TIMEOUT_S = 10.0
POOL_SIZE = 64

_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


class TransportError(Exception):
    """The exchange failed below HTTP. `sent`: the server may have received the request."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class Response(NamedTuple):
    """A whole answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Endpoint(NamedTuple):
    """Where the server is: a host and port, or the path of a Unix socket; TLS where `tls` is given."""

    host: str
    port: int
    unix_path: str = ""
    tls: ssl.SSLContext | None = None
    server_name: str = ""

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        if self.unix_path:
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def tls_context(ca: bytes | str = b"", *, verified: bool = True) -> ssl.SSLContext:
    """TLS as Go's clients have it: every certificate of `ca` (PEM; none: the system's) is trusted as it is, whether it
    is an authority or what the server shows itself. Raises ssl.SSLError and ValueError for what is no certificate."""
    text = ca.decode("ascii") if isinstance(ca, bytes) else ca
    if text or verified:
        context = ssl.create_default_context(cadata=text or None)
    else:  # without the system's, which take 25 ms to read
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Transport(Protocol):
    """What a Client sends through; `head` is the request line and headers without the empty line at the end."""

    @property
    def authority(self) -> str: ...

    @property
    def busy(self) -> bool:
        """Whether a request is under way (streams do not count)."""

    async def request(self, head: str, body: bytes, timeout_s: float) -> Response: ...

    async def stream(self, head: str, timeout_s: float) -> Stream: ...

    async def close(self) -> None: ...


class Stream:
    """An answer of unknown length which is read as it comes: a watch or a log."""

    def __init__(self, status: int, headers: dict[str, str], connection: _Connection) -> None:
        self.status = status
        self.headers = headers
        self._connection = connection
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._ended = False
        self._error: TransportError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False

    async def read(self, timeout_s: float) -> bytes:
        """Everything that has come since the last read, at least a byte; b"" once at the end.

        Raises TransportError when the connection broke or nothing came for `timeout_s`.
        """
        if not self._pieces and not self._ended:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._waiter
            except TimeoutError:
                self.close()
                raise TransportError(f"nothing was received for {timeout_s:g} seconds", sent=True) from None
            finally:
                self._waiter = None
        if self._pieces:
            data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
            self._bytes = 0
            if self._paused:
                self._paused = False
                self._connection.resume()
            return data
        if self._error is not None:
            raise self._error
        return b""

    async def read_all(self, timeout_s: float, bytes_max: int = STREAM_BYTES_MAX) -> bytes:
        """The rest of a short answer: that of a refused watch."""
        data = bytearray()
        while piece := await self.read(timeout_s):
            data += piece
            if len(data) > bytes_max:
                self.close()
                raise TransportError("the answer is too long", sent=True)
        return bytes(data)

    def close(self) -> None:
        """Give the connection up; a pending read ends."""
        self._ended = True
        self._connection.abort()
        self._wake()

    @property
    def ended(self) -> bool:
        return self._ended

    def feed(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._bytes += len(piece)
        if self._bytes > STREAM_BYTES_MAX and not self._paused:
            self._paused = True
            self._connection.pause()
        self._wake()

    def end(self, error: TransportError | None) -> None:
        if not self._ended:
            self._ended = True
            self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


_HEAD, _LENGTH, _CHUNK_SIZE, _CHUNK_DATA, _CHUNK_END, _TRAILERS, _UNTIL_CLOSE = range(7)


class _Connection(asyncio.Protocol):
    """One connection and the exchange it carries."""

    def __init__(self, pool: _Pool | None) -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Response] | None = None
        self._opened: asyncio.Future[Stream] | None = None
        self._stream: Stream | None = None
        self._state = _HEAD
        self._rest = b""
        self._left = 0
        self._status = 0
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self._reusable = True
        self.closed = False

    # -- the exchange ------------------------------------------------------------------------------------------------

    def ask(self, head: str, body: bytes) -> asyncio.Future[Response]:
        """Send a request; the future is its whole answer."""
        assert self._transport is not None
        self._begin()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(head.encode("latin-1") + b"\r\n\r\n" + body)
        return self._answer

    def open_stream(self, head: str) -> asyncio.Future[Stream]:
        """Send a request without a body; the future is there once the head of the answer is."""
        assert self._transport is not None
        self._begin()
        self._opened = asyncio.get_running_loop().create_future()
        self._transport.write(head.encode("latin-1") + b"\r\n\r\n")
        return self._opened

    def _begin(self) -> None:
        self._state = _HEAD
        self._rest = b""
        self._pieces = []
        self._reusable = True

    @property
    def reusable(self) -> bool:
        return self._reusable and not self.closed and self._transport is not None and not self._transport.is_closing()

    def abort(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # -- what asyncio calls ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                if hasattr(socket, option):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._state == _UNTIL_CLOSE and exc is None:
            self._finish()
        else:
            self._fail(str(exc) if exc else "the server closed the connection")
        if self._pool is not None:
            self._pool.lost(self)

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        try:
            self._receive(data)
        except ValueError as error:
            self._fail(f"malformed HTTP: {error}")
            self.abort()

    # -- reading an answer -------------------------------------------------------------------------------------------

    def _receive(self, data: bytes) -> None:
        if self._state == _HEAD:
            if self._rest:
                data = self._rest + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > HEAD_BYTES_MAX:
                    raise ValueError("the head of the answer is too long")
                self._rest = data
                return
            self._rest = b""
            rest = data[end + 4 :]
            if not self._read_head(data[:end].decode("latin-1")):
                if rest:
                    self._receive(rest)
                return
            data = rest
        if self._state == _LENGTH:
            self._read_length(data)
        elif self._state == _UNTIL_CLOSE:
            self._deliver(data)
        elif data:
            self._read_chunks(data)

    def _read_head(self, head: str) -> bool:
        """Take the head in; False for an interim (1xx) one, which another follows."""
        lines = head.split("\r\n")
        version, _, rest = lines[0].partition(" ")
        if not version.startswith("HTTP/1."):
            raise ValueError(f"not an HTTP/1 answer: {lines[0][:40]!r}")
        status = int(rest[:3])
        if self._answer is None and self._opened is None:
            raise ValueError("an answer nobody asked for")
        if 100 <= status < 200:
            return False
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise ValueError(f"a header line without a colon: {line[:40]!r}")
            headers[name.lower()] = value.strip()
        self._status, self._headers = status, headers
        self._reusable = headers.get("connection", "").lower() != "close" and version != "HTTP/1.0"
        self._choose_framing(status, headers)
        if self._opened is not None:
            self._stream = Stream(status, headers, self)
            if not self._opened.done():
                self._opened.set_result(self._stream)
        return True

    def _choose_framing(self, status: int, headers: dict[str, str]) -> None:
        length = headers.get("content-length")
        if status in (204, 304):
            self._state, self._left = _LENGTH, 0
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            self._state = _CHUNK_SIZE
        elif length is not None:
            if not length.isdigit():
                raise ValueError("Content-Length is not a number")
            self._state, self._left = _LENGTH, int(length)
        else:
            self._state, self._reusable = _UNTIL_CLOSE, False

    def _read_length(self, data: bytes) -> None:
        if len(data) > self._left:
            raise ValueError("more bytes than Content-Length says")
        if data:
            self._left -= len(data)
            self._deliver(data)
        if self._left == 0:
            self._finish()

    def _read_chunks(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        pieces: list[bytes] = []
        position, length = 0, len(data)
        finished = False
        while position < length:
            if self._state == _CHUNK_DATA:
                piece = data[position : position + self._left]
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if self._left == 0:
                    self._state = _CHUNK_END
                continue
            line_end = data.find(b"\r\n", position)
            if line_end < 0:
                if length - position > HEAD_BYTES_MAX:
                    raise ValueError("a chunk's head is too long")
                self._rest = data[position:]
                break
            line = data[position:line_end]
            position = line_end + 2
            if self._state == _CHUNK_END:
                if line:
                    raise ValueError("a chunk is longer than it says")
                self._state = _CHUNK_SIZE
            elif self._state == _CHUNK_SIZE:
                self._left = int(line.partition(b";")[0], 16)
                self._state = _CHUNK_DATA if self._left else _TRAILERS
            elif not line:
                finished = True
                break
        if pieces:
            self._deliver(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if finished:
            self._finish()

    def _deliver(self, piece: bytes) -> None:
        if not piece:
            return
        if self._stream is not None:
            self._stream.feed(piece)
        else:
            self._pieces.append(piece)

    def _finish(self) -> None:
        self._state = _HEAD
        if self._stream is not None:
            self._stream.end(None)
            self.abort()
            return
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            pieces = self._pieces
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            answer.set_result(Response(self._status, self._headers, body))

    def _fail(self, message: str) -> None:
        error = TransportError(message, sent=True)
        if self._stream is not None:
            self._stream.end(error)
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(error)
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(error)


class _Pool:
    """At most `size` connections for ordinary requests; those who wait are served in order."""

    def __init__(self, endpoint: Endpoint, size: int) -> None:
        self._endpoint = endpoint
        self._size = size
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._connecting = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self.closed = False

    def acquire_nowait(self) -> _Connection | None:
        """An idle connection, if there is one."""
        if self.closed:
            raise TransportError("the client is closed", sent=False)
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
        return None

    async def acquire(self) -> _Connection:
        while True:
            connection = self.acquire_nowait()
            if connection is not None:
                return connection
            if len(self._open) + self._connecting < self._size:
                return await self._connect()
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()  # it was our turn: pass it on
                raise

    async def _connect(self) -> _Connection:
        self._connecting += 1
        try:
            connection = await connect(self._endpoint, self)
        except BaseException:
            self._connecting -= 1
            self._wake_one()
            raise
        self._connecting -= 1
        self._open.add(connection)
        return connection

    def release(self, connection: _Connection) -> None:
        if connection.reusable and not self.closed:
            self._idle.append(connection)
        else:
            self._open.discard(connection)
            connection.abort()
        self._wake_one()

    def lost(self, connection: _Connection) -> None:
        if connection in self._open:
            self._open.discard(connection)
            self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def close(self) -> None:
        self.closed = True
        for connection in list(self._open):
            connection.abort()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


async def connect(endpoint: Endpoint, pool: _Pool | None = None) -> _Connection:
    """A new connection; TransportError with `sent` False when there is none to be had."""
    loop = asyncio.get_running_loop()
    tls = endpoint.tls
    server_name = (endpoint.server_name or endpoint.host) if tls else None
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            if endpoint.unix_path:
                _, connection = await loop.create_unix_connection(
                    lambda: _Connection(pool), endpoint.unix_path, ssl=tls, server_hostname=server_name
                )
            else:
                _, connection = await loop.create_connection(
                    lambda: _Connection(pool), endpoint.host, endpoint.port, ssl=tls, server_hostname=server_name
                )
    except TimeoutError:
        raise TransportError(f"connecting to {endpoint.authority} timed out", sent=False) from None
    except (OSError, ssl.SSLError) as error:
        raise TransportError(f"connecting to {endpoint.authority} failed: {error}", sent=False) from error
    return connection


class HttpTransport:
    """Requests over a pool of connections, and streams each over a connection of its own."""

    def __init__(self, endpoint: Endpoint, *, pool_size: int = POOL_SIZE) -> None:
        self._endpoint = endpoint
        self._pool = _Pool(endpoint, pool_size)
        self._streams: set[Stream] = set()
        self._asking = 0

    @property
    def authority(self) -> str:
        return self._endpoint.authority

    @property
    def busy(self) -> bool:
        return self._asking > 0

    async def request(self, head: str, body: bytes, timeout_s: float) -> Response:
        """Send and receive one whole exchange; raises TransportError."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        self._asking += 1
        try:
            connection = self._pool.acquire_nowait() or await self._acquire(timeout_s)
            answer = connection.ask(head, body)
            expiry = loop.call_at(deadline, _expire, answer, timeout_s)
            try:
                return await answer
            except BaseException:
                connection.abort()
                raise
            finally:
                expiry.cancel()
                self._pool.release(connection)
        finally:
            self._asking -= 1

    async def _acquire(self, timeout_s: float) -> _Connection:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._pool.acquire()
        except TimeoutError:
            raise TransportError(f"no connection was free for {timeout_s:g} seconds", sent=False) from None

    async def stream(self, head: str, timeout_s: float) -> Stream:
        """Send a request and return once the head of its answer is there; raises TransportError."""
        if self._pool.closed:
            raise TransportError("the client is closed", sent=False)
        connection = await connect(self._endpoint)
        try:
            async with asyncio.timeout(timeout_s):
                stream = await connection.open_stream(head)
        except TimeoutError:
            connection.abort()
            raise TransportError(f"no answer came within {timeout_s:g} seconds", sent=True) from None
        except BaseException:
            connection.abort()
            raise
        self._streams = {known for known in self._streams if not known.ended}
        self._streams.add(stream)
        return stream

    async def close(self) -> None:
        self._pool.close()
        for stream in self._streams:
            stream.close()
        await asyncio.sleep(0)  # aborted transports call connection_lost in the next turn


def _expire(answer: asyncio.Future[Response], timeout_s: float) -> None:
    if not answer.done():
        answer.set_exception(TransportError(f"no answer came within {timeout_s:g} seconds", sent=True))
