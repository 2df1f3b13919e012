"""gRPC over one HTTP/2 connection: as much of both as a client of etcd needs.

    call      HEADERS, DATA (END_STREAM)            one request, one answer
    stream    HEADERS, DATA, DATA, ...              both sides send as long as they like (watch, keepalive)

Why not grpcio: the requests of one turn of the loop leave in one write, an answer is read where it arrives, and neither
takes a thread or a copy. Rules:
 1. Our SETTINGS allow no dynamic table to the other side's HPACK, so a header block means the same wherever it comes;
    the few that etcd ever sends are decoded once.
 2. Flow control is kept both ways. What may not be sent yet waits in its stream; what has arrived is granted again when
    half of a window is used up.
 3. A call that fails says whether it may have been done: `Refused` was not, `Broken` is not known.
 4. A connection that is silent for long is asked (PING) and given up when it does not answer.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast
from urllib.parse import unquote

from fastkube._hpack import HeaderReader
from fastkube.store import grpc

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _ACK = 1, 1
_END_HEADERS, _PADDED, _PRIORITY = 4, 8, 32
_CANCEL = b"\x00\x00\x00\x08"

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WINDOW = (1 << 24) - 1  # of each stream; the largest answer that comes without another grant
_CONNECTION_WINDOW = (1 << 30) - 1
_DEFAULT_WINDOW = 65535
_MAX_FRAME = 1 << 20
_SETTING = struct.Struct(">HI")
_U32 = struct.Struct(">I")

_PING_AFTER_S = 30.0
_PING_TIMEOUT_S = 10.0


class GrpcError(Exception):
    """The other side answered with a status that is not OK."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Refused(Exception):
    """It was not sent, or not looked at: it may be sent again, to anybody."""


class Broken(Exception):
    """The connection ended before the answer: whether it was done is not known."""


class Receiver(Protocol):
    """Whoever waits on a stream."""

    def message(self, body: bytes) -> None: ...

    def ended(self, error: Exception | None) -> None: ...


class _Stream:
    __slots__ = ("buffer", "closing", "consumed", "number", "receiver", "waiting", "window")

    def __init__(self, number: int, receiver: Receiver, window: int) -> None:
        self.number = number
        self.receiver = receiver
        self.window = window
        self.waiting = bytearray()  # what the windows do not let go
        self.closing = False  # nothing follows `waiting`
        self.buffer = bytearray()  # the beginning of a message
        self.consumed = 0


class _Answer:
    """The receiver of a call."""

    __slots__ = ("body", "future")

    def __init__(self, future: asyncio.Future[bytes]) -> None:
        self.future = future
        self.body: bytes | None = None

    def message(self, body: bytes) -> None:
        self.body = body

    def ended(self, error: Exception | None) -> None:
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        elif self.body is None:
            self.future.set_exception(GrpcError(grpc.UNKNOWN, "the call ended without an answer"))
        else:
            self.future.set_result(self.body)


class Connection(asyncio.Protocol):
    """`lost` is called once when it is over."""

    def __init__(self, authority: bytes, secure: bool, lost: Callable[[], None]) -> None:
        self._scheme = b"\x87" if secure else b"\x86"
        self._authority = authority
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.open = False
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self._in = bytearray()
        self._out: list[bytes] = []
        self._streams: dict[int, _Stream] = {}
        self._next = 1
        self._headers: dict[bytes, bytes] = {}
        self._block = b""  # of a header block that is not complete
        self._block_flags = 0
        self._known: dict[bytes, dict[str, str]] = {}
        self._window = _DEFAULT_WINDOW
        self._stream_window = _DEFAULT_WINDOW
        self._frame_max = 16384
        self._consumed = 0
        self._heard_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    # ---------------------------------------------------------------- calls

    def call(self, path: bytes, body: bytes) -> asyncio.Future[bytes]:
        """The answer's body. Raises GrpcError, Refused, Broken; one that is cancelled is called off."""
        future: asyncio.Future[bytes] = self._loop.create_future()
        if not self.open:
            future.set_exception(Refused("the connection is closed"))
            return future
        stream = self._begin(path, _Answer(future))
        stream.closing = True
        self._queue(stream, body)
        future.add_done_callback(lambda done: self._called_off(stream) if done.cancelled() else None)
        return future

    def stream(self, path: bytes, receiver: Receiver) -> tuple[Callable[[bytes], None], Callable[[], None]]:
        """Begins a stream: what sends a message on it, and what calls it off. Raises Refused."""
        if not self.open:
            raise Refused("the connection is closed")
        stream = self._begin(path, receiver)
        return partial(self._queue, stream), partial(self._called_off, stream)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _called_off(self, stream: _Stream) -> None:
        if self._streams.pop(stream.number, None) is not None:
            self._send(_RST_STREAM, 0, stream.number, _CANCEL)

    def _begin(self, path: bytes, receiver: Receiver) -> _Stream:
        stream = self._streams[self._next] = _Stream(self._next, receiver, self._stream_window)
        self._next += 2
        headers = self._headers.get(path)
        if headers is None:
            headers = self._headers[path] = self._header_block(path)
        self._send(_HEADERS, _END_HEADERS, stream.number, headers)
        return stream

    def _header_block(self, path: bytes) -> bytes:
        """Literals without indexing: the other side keeps no state of ours either."""
        return b"".join(
            (
                b"\x83",  # :method POST
                self._scheme,
                b"\x04" + _text(path),
                b"\x01" + _text(self._authority),
                b"\x00" + _text(b"te") + _text(b"trailers"),
                b"\x0f\x10" + _text(b"application/grpc"),
                b"\x0f\x2b" + _text(b"fastkube"),
                b"\x00" + _text(b"hasleader") + _text(b"true"),  # a member without a leader says so
            )
        )

    # ---------------------------------------------------------------- out

    def _queue(self, stream: _Stream, body: bytes) -> None:
        stream.waiting += b"\x00" + _U32.pack(len(body)) + body
        self._drain(stream)

    def _drain(self, stream: _Stream) -> None:
        waiting = stream.waiting
        while waiting and stream.window > 0 and self._window > 0:
            size = min(len(waiting), stream.window, self._window, self._frame_max)
            last = stream.closing and size == len(waiting)
            self._send(_DATA, _END_STREAM if last else 0, stream.number, bytes(waiting[:size]))
            del waiting[:size]
            stream.window -= size
            self._window -= size

    def _send(self, kind: int, flags: int, number: int, body: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(_U32.pack(len(body) << 8 | kind) + bytes((flags,)) + _U32.pack(number) + body)

    def _flush(self) -> None:
        out, self._out = b"".join(self._out), []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(out)

    # ---------------------------------------------------------------- the protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.open = True
        settings = ((1, 0), (2, 0), (4, _WINDOW), (5, _MAX_FRAME))
        self._out.append(_PREFACE)
        self._loop.call_soon(self._flush)
        self._send(_SETTINGS, 0, 0, b"".join(_SETTING.pack(*each) for each in settings))
        self._send(_WINDOW_UPDATE, 0, 0, _U32.pack(_CONNECTION_WINDOW - _DEFAULT_WINDOW))
        self._timer = self._loop.call_later(_PING_AFTER_S, self._ping)

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        if self._timer is not None:
            self._timer.cancel()
        problem = Broken(f"the connection was lost{f': {error}' if error else ''}")
        if not self.ready.done():
            self.ready.set_exception(Refused(str(problem)))
        self._end_all(problem, 0)
        self._lost()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        buffer = self._in
        buffer += data
        at = 0
        while len(buffer) - at >= 9:
            head = _U32.unpack_from(buffer, at)[0]
            end = at + 9 + (head >> 8)
            if len(buffer) < end:
                break
            flags, number = buffer[at + 4], _U32.unpack_from(buffer, at + 5)[0] & 0x7FFFFFFF
            try:
                self._frame(head & 0xFF, flags, number, bytes(buffer[at + 9 : end]))
            except (ValueError, IndexError, struct.error):  # MalformedBlock among them
                self.close()  # it does not speak HTTP/2
                return
            at = end
        del buffer[:at]

    def _frame(self, kind: int, flags: int, number: int, body: bytes) -> None:
        if kind == _DATA:
            self._on_data(flags, number, body)
        elif kind in (_HEADERS, _CONTINUATION):
            self._on_headers(kind, flags, number, body)
        elif kind == _WINDOW_UPDATE:
            self._on_window(number, _U32.unpack(body)[0] & 0x7FFFFFFF)
        elif kind == _SETTINGS and not flags & _ACK:
            self._on_settings(body)
        elif kind == _PING and not flags & _ACK:
            self._send(_PING, _ACK, 0, body)
        elif kind == _RST_STREAM:
            stream = self._streams.pop(number, None)
            if stream is not None:
                code = _U32.unpack(body)[0]
                problem = f"the stream was reset (code {code})"
                stream.receiver.ended(Refused(problem) if code == 7 else Broken(problem))  # 7: REFUSED_STREAM
        elif kind == _GOAWAY:
            self.open = False  # nothing new; what was begun up to that number is answered
            self._end_all(Refused("the server is going away"), _U32.unpack_from(body)[0] & 0x7FFFFFFF)
            if not self._streams:
                self.close()

    def _on_settings(self, body: bytes) -> None:
        for setting, value in _SETTING.iter_unpack(body):
            if setting == 4:
                change, self._stream_window = value - self._stream_window, value
                for stream in tuple(self._streams.values()):
                    stream.window += change
                    self._drain(stream)
            elif setting == 5:
                self._frame_max = value
        self._send(_SETTINGS, _ACK, 0, b"")
        if not self.ready.done():
            self.ready.set_result(None)

    def _on_window(self, number: int, more: int) -> None:
        if number:
            stream = self._streams.get(number)
            if stream is not None:
                stream.window += more
                self._drain(stream)
            return
        self._window += more
        for stream in tuple(self._streams.values()):
            self._drain(stream)

    def _on_data(self, flags: int, number: int, body: bytes) -> None:
        self._consumed += len(body)
        if self._consumed > _CONNECTION_WINDOW // 2:
            self._send(_WINDOW_UPDATE, 0, 0, _U32.pack(self._consumed))
            self._consumed = 0
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.consumed += len(body)
        if stream.consumed > _WINDOW // 2:
            self._send(_WINDOW_UPDATE, 0, number, _U32.pack(stream.consumed))
            stream.consumed = 0
        if flags & _PADDED:
            body = body[1 : len(body) - body[0]]
        self._take(stream, body)
        if flags & _END_STREAM:
            self._end(number, GrpcError(grpc.UNKNOWN, "the call ended without a status"))

    def _take(self, stream: _Stream, body: bytes) -> None:
        """Hand on every message that is complete."""
        buffer = stream.buffer
        buffer += body
        at = 0
        while len(buffer) - at >= 5:
            if buffer[at]:
                raise ValueError("a compressed message, which was not asked for")
            end = at + 5 + _U32.unpack_from(buffer, at + 1)[0]
            if len(buffer) < end:
                break
            stream.receiver.message(bytes(buffer[at + 5 : end]))
            at = end
        del buffer[:at]

    def _on_headers(self, kind: int, flags: int, number: int, body: bytes) -> None:
        if kind == _HEADERS:
            if flags & _PADDED:
                body = body[1 : len(body) - body[0]]
            if flags & _PRIORITY:
                body = body[5:]
            self._block, self._block_flags = body, flags
        else:
            self._block += body
        if flags & _END_HEADERS and self._block_flags & _END_STREAM:
            self._end(number, _status(self._decoded(self._block)))
        elif flags & _END_HEADERS:
            self._check_answer(number, self._decoded(self._block))

    def _check_answer(self, number: int, headers: dict[str, str]) -> None:
        if headers.get(":status") != "200":  # a proxy's answer
            self._end(number, GrpcError(grpc.UNAVAILABLE, f"HTTP status {headers.get(':status')}"))

    def _decoded(self, block: bytes) -> dict[str, str]:
        found = self._known.get(block)
        if found is None:
            if len(self._known) >= 256:
                self._known.clear()
            headers = HeaderReader().read(block)
            found = self._known[block] = {name.decode(): value.decode() for name, value in headers}
        return found

    def _end(self, number: int, error: Exception | None) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None:
            stream.receiver.ended(error)
        if not self.open and not self._streams:
            self.close()

    def _end_all(self, error: Exception, above: int) -> None:
        for number in [one for one in self._streams if one > above]:
            self._streams.pop(number).receiver.ended(type(error)(*error.args))

    def _ping(self) -> None:
        silent_s = self._loop.time() - self._heard_at
        if silent_s >= _PING_AFTER_S + _PING_TIMEOUT_S:
            self.close()
            return
        if silent_s >= _PING_AFTER_S:
            self._send(_PING, 0, 0, b"fastkube")
            self._timer = self._loop.call_later(_PING_TIMEOUT_S, self._ping)
            return
        self._timer = self._loop.call_later(_PING_AFTER_S - silent_s, self._ping)


def _text(text: bytes) -> bytes:
    """A string of HPACK, not Huffman-coded."""
    size = len(text)
    if size < 127:
        return bytes((size,)) + text
    made, rest = bytearray((127,)), size - 127
    while rest >= 128:
        made.append(rest & 127 | 128)
        rest >>= 7
    made.append(rest)
    return bytes(made) + text


def _status(trailers: dict[str, Any]) -> GrpcError | None:
    code = int(trailers.get("grpc-status", grpc.UNKNOWN))
    return GrpcError(code, unquote(trailers.get("grpc-message", ""))) if code else None
