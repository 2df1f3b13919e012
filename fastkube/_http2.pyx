"""HTTP/2 (RFC 9113) and gRPC's framing on it, as a server speaks them: bytes in, calls out; no I/O.

    data ─feed→ frames → header blocks (HPACK, RFC 7541) → Stream → gRPC messages → on_message, on_end, on_reset
    reply, send, finish, refuse → frames, held back by the windows of stream and connection → take → data

Rules:
  1. Whatever a peer does wrong to the connection is a `Fault`: the caller writes what `take` has (a GOAWAY) and closes.
     What concerns one stream alone resets that stream.
  2. What is sent on a stream leaves in its order; trailers come last. `queued` says how much its window holds back, and
     `on_writable` is called when nothing is any more: whoever produces much waits for that.
  3. Header tables: the peer's is kept as RFC 7541 says. Of our own, two entries are used, and none if the peer wants it
     so: an answer's headers and a good end are then one byte or two each.
  4. A gRPC message is a flag, four bytes of length, and the message. Compressed ones are refused.

Written in Cython's pure-Python syntax; runs interpreted under FASTKUBE_PURE=1 with equal results.
"""

import struct

import cython

from fastkube._hpack import TABLE_BYTES, HeaderReader, MalformedBlock

COMPILED = cython.compiled

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_DATA = cython.declare(cython.int, 0)
_HEADERS = cython.declare(cython.int, 1)
_PRIORITY = cython.declare(cython.int, 2)
_RST_STREAM = cython.declare(cython.int, 3)
_SETTINGS = cython.declare(cython.int, 4)
_PUSH_PROMISE = cython.declare(cython.int, 5)
_PING = cython.declare(cython.int, 6)
_GOAWAY = cython.declare(cython.int, 7)
_WINDOW_UPDATE = cython.declare(cython.int, 8)
_CONTINUATION = cython.declare(cython.int, 9)

_END_STREAM = cython.declare(cython.int, 0x1)  # of SETTINGS and PING: ACK
_END_HEADERS = cython.declare(cython.int, 0x4)
_PADDED = cython.declare(cython.int, 0x8)
_WITH_PRIORITY = cython.declare(cython.int, 0x20)

NO_ERROR = 0
PROTOCOL_ERROR = 1
FLOW_CONTROL_ERROR = 3
FRAME_SIZE_ERROR = 6
REFUSED_STREAM = 7
COMPRESSION_ERROR = 9
ENHANCE_YOUR_CALM = 11

_FRAME_MAX = cython.declare(cython.int, 16384)  # the least that a peer may ask us to take, and all that we do
_WINDOW = cython.declare(cython.longlong, 65535)  # that every stream and connection begins with
_STREAM_WINDOW = cython.declare(cython.longlong, 1 << 20)  # that we give
_CONNECTION_WINDOW = cython.declare(cython.longlong, 16 << 20)
_WINDOW_MAX = cython.declare(cython.longlong, (1 << 31) - 1)
_BLOCK_MAX = cython.declare(cython.int, 65536)
STREAMS_MAX = 65536
_STREAMS_MAX = cython.declare(cython.int, 65536)

_frame = struct.Struct(">HBBBI").pack  # a frame's head: length in three bytes, type, flags, stream
_u32 = struct.Struct(">I").pack
_setting = struct.Struct(">HI").pack
_settings = struct.Struct(">HI").iter_unpack
_message_head = struct.Struct(">BI").pack

# Our two entries of the peer's table. First they are added to it, from then on an index names each (rule 3).
_OPEN_PLAIN = b"\x88\x0f\x10\x10application/grpc"
_OPEN_ADDED = b"\x88\x5f\x10application/grpc"
_OPEN_KNOWN = b"\x88\xbf"
_GOOD_PLAIN = b"\x00\x0bgrpc-status\x010"
_GOOD_ADDED = b"\x40\x0bgrpc-status\x010"
_GOOD_KNOWN = b"\xbe"

_UNIMPLEMENTED = 12
_INTERNAL = 13
_RESOURCE_EXHAUSTED = 8


class Fault(Exception):
    """The peer broke the protocol: `take` has the GOAWAY that tells it so, and the connection is over."""


@cython.final
@cython.cclass
class Stream:
    """One request and its answer. `context` is its user's; what is sent on a `closed` one goes nowhere."""

    id = cython.declare(cython.uint, visibility="readonly")
    path = cython.declare(bytes, visibility="readonly")
    headers = cython.declare(list, visibility="readonly")
    context = cython.declare(object, visibility="public")
    ended = cython.declare(cython.bint, visibility="readonly")  # by the peer: nothing more comes
    closed = cython.declare(cython.bint, visibility="readonly")
    _opened = cython.declare(cython.bint)  # our headers are sent
    _window = cython.declare(cython.longlong)  # how much may be sent
    _received = cython.declare(cython.longlong)  # since we last gave room for more
    _body = cython.declare(object)  # a message of which some is missing
    _queue = cython.declare(object)  # what the windows hold back
    _trailers = cython.declare(object)  # behind it

    def __init__(self, number, path, headers, window):
        self.id = number
        self.path = path
        self.headers = headers
        self.context = None
        self.ended = False
        self.closed = False
        self._opened = False
        self._window = window
        self._received = 0
        self._body = None
        self._queue = None
        self._trailers = None

    @property
    def queued(self):
        """Bytes that the windows hold back."""
        return len(self._queue) if self._queue is not None else 0


@cython.final
@cython.cclass
class Connection:
    """One peer. Calls `on_message(stream, message)`, and `on_end`, `on_reset` and `on_writable` with the stream."""

    streams = cython.declare(dict, visibility="readonly")
    _on_message = cython.declare(object)
    _on_end = cython.declare(object)
    _on_reset = cython.declare(object)
    _on_writable = cython.declare(object)
    _message_max = cython.declare(cython.longlong)
    _reader = cython.declare(object)
    _rest = cython.declare(bytes)  # of a frame that is not whole yet
    _greeted = cython.declare(cython.bint)
    _out = cython.declare(object)
    _last = cython.declare(cython.uint)  # the newest stream of the peer
    _window = cython.declare(cython.longlong)
    _stream_window = cython.declare(cython.longlong)  # that a new stream begins with
    _frame_max = cython.declare(cython.longlong)
    _received = cython.declare(cython.longlong)
    _block = cython.declare(object)  # of headers whose end is still to come
    _block_stream = cython.declare(cython.uint)
    _block_ends = cython.declare(cython.bint)
    _may_add = cython.declare(cython.bint)
    _shrunk = cython.declare(cython.bint)  # the next header block has to say so
    _open_added = cython.declare(cython.bint)
    _good_added = cython.declare(cython.bint)

    def __init__(self, on_message, on_end, on_reset, on_writable, message_max):
        self.streams = {}
        self._on_message = on_message
        self._on_end = on_end
        self._on_reset = on_reset
        self._on_writable = on_writable
        self._message_max = message_max
        self._reader = HeaderReader()
        self._rest = b""
        self._greeted = False
        self._last = 0
        self._window = _WINDOW
        self._stream_window = _WINDOW
        self._frame_max = _FRAME_MAX
        self._received = 0
        self._block = None
        self._block_stream = 0
        self._block_ends = False
        self._may_add = True
        self._shrunk = False
        self._open_added = False
        self._good_added = False
        settings = _setting(3, STREAMS_MAX) + _setting(4, _STREAM_WINDOW)
        self._out = bytearray()
        self._emit(_SETTINGS, 0, 0, settings)
        self._emit(_WINDOW_UPDATE, 0, 0, _u32(_CONNECTION_WINDOW - _WINDOW))

    # ---------------------------------------------------------------- what comes in

    def feed(self, data: bytes):
        """Take what was read. Raises Fault."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at: cython.Py_ssize_t = 0
        size: cython.Py_ssize_t = len(data)
        length: cython.Py_ssize_t
        stream: cython.uint
        if not self._greeted:
            if size < 24:
                self._rest = data
                return
            if data[:24] != PREFACE:
                raise self._fault(PROTOCOL_ERROR, "the preface is wrong")
            self._greeted = True
            at = 24
        while size - at >= 9:
            length = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
            if length > _FRAME_MAX:
                raise self._fault(FRAME_SIZE_ERROR, "a frame is too large")
            if size - at - 9 < length:
                break
            stream = cython.cast(cython.uint, data[at + 5] & 0x7F) << 24 | data[at + 6] << 16 | data[at + 7] << 8
            stream |= data[at + 8]
            self._take_frame(data[at + 3], data[at + 4], stream, data, at + 9, at + 9 + length)
            at += 9 + length
        if at < size:
            self._rest = data[at:]

    def _fault(self, code, text):
        """The connection is over."""
        self._emit(_GOAWAY, 0, 0, _u32(self._last) + _u32(code) + text.encode())
        return Fault(text)

    @cython.cfunc
    @cython.exceptval(-1)
    def _take_frame(
        self,
        kind: cython.int,
        flags: cython.int,
        number: cython.uint,
        data: bytes,
        at: cython.Py_ssize_t,
        end: cython.Py_ssize_t,
    ) -> cython.int:
        if self._block is not None and (kind != _CONTINUATION or number != self._block_stream):
            raise self._fault(PROTOCOL_ERROR, "a header block is interrupted")
        if kind == _DATA:
            self._take_data(flags, number, data, at, end)
        elif kind == _HEADERS:
            self._take_headers(flags, number, data, at, end)
        elif kind == _WINDOW_UPDATE:
            self._take_window(number, data, at, end)
        elif kind == _PING:
            self._check(end - at == 8 and number == 0, FRAME_SIZE_ERROR, "a PING is malformed")
            if not flags & _END_STREAM:
                self._emit(_PING, _END_STREAM, 0, data[at:end])
        elif kind == _SETTINGS:
            self._take_settings(flags, number, data[at:end])
        elif kind == _RST_STREAM:
            self._check(end - at == 4 and number != 0, FRAME_SIZE_ERROR, "an RST_STREAM is malformed")
            self._check(number <= self._last, PROTOCOL_ERROR, "a stream is reset that was not opened")
            self._reset(number)
        elif kind == _CONTINUATION:
            self._check(self._block is not None, PROTOCOL_ERROR, "a CONTINUATION continues nothing")
            self._block += data[at:end]
            self._end_block(flags)
        elif kind == _PUSH_PROMISE:
            raise self._fault(PROTOCOL_ERROR, "a client pushes")
        return 0  # PRIORITY and GOAWAY say nothing that matters here; unknown kinds are to be ignored

    @cython.cfunc
    @cython.exceptval(-1)
    def _check(self, sound: cython.bint, code, text) -> cython.int:
        if not sound:
            raise self._fault(code, text)
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _padding(self, flags: cython.int, data: bytes, at: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.int:
        """Bytes of padding at the end; its length stands in the first byte."""
        if not flags & _PADDED:
            return 0
        self._check(at < end and data[at] < end - at, PROTOCOL_ERROR, "the padding is too long")
        return data[at]

    @cython.cfunc
    @cython.exceptval(-1)
    def _take_headers(
        self, flags: cython.int, number: cython.uint, data: bytes, at: cython.Py_ssize_t, end: cython.Py_ssize_t
    ) -> cython.int:
        self._check(number & 1 == 1, PROTOCOL_ERROR, "a client's streams have odd numbers")
        end -= self._padding(flags, data, at, end)
        if flags & _PADDED:
            at += 1
        if flags & _WITH_PRIORITY:
            at += 5
        self._check(at <= end, FRAME_SIZE_ERROR, "HEADERS are malformed")
        self._block = data[at:end]
        self._block_stream = number
        self._block_ends = flags & _END_STREAM
        return self._end_block(flags)

    @cython.cfunc
    @cython.exceptval(-1)
    def _end_block(self, flags: cython.int) -> cython.int:
        block: bytes = self._block
        self._check(len(block) <= _BLOCK_MAX, ENHANCE_YOUR_CALM, "the headers are too large")
        if not flags & _END_HEADERS:
            return 0
        self._block = None
        number: cython.uint = self._block_stream
        try:
            headers = self._reader.read(block)
        except MalformedBlock as problem:
            raise self._fault(COMPRESSION_ERROR, str(problem)) from None
        if number <= self._last:  # trailers, or of a stream that is over
            stream: Stream = self.streams.get(number)
            if stream is not None:
                self._check(self._block_ends, PROTOCOL_ERROR, "trailers do not end their stream")
                self._end(stream)
            return 0
        self._last = number
        if len(self.streams) >= _STREAMS_MAX:
            self._emit(_RST_STREAM, 0, number, _u32(REFUSED_STREAM))
            return 0
        self._open(number, headers)
        return 0

    @cython.cfunc
    def _open(self, number: cython.uint, headers: list):
        path = b""
        kind = b""
        for name, value in headers:
            if name == b":path":
                path = value
            elif name == b"content-type":
                kind = value
        stream: Stream = Stream(number, path, headers, self._stream_window)
        self.streams[number] = stream
        if not kind.startswith(b"application/grpc"):
            self._emit_block(_END_HEADERS | _END_STREAM, number, b"\x08\x03415")
            self._close(stream)
        elif self._block_ends:
            self._end(stream)

    @cython.cfunc
    @cython.exceptval(-1)
    def _take_data(
        self, flags: cython.int, number: cython.uint, data: bytes, at: cython.Py_ssize_t, end: cython.Py_ssize_t
    ) -> cython.int:
        size: cython.Py_ssize_t = end - at
        self._received += size
        if self._received > _CONNECTION_WINDOW // 2:
            self._emit(_WINDOW_UPDATE, 0, 0, _u32(self._received))
            self._received = 0
        stream: Stream = self.streams.get(number)
        if stream is None or stream.ended:
            self._check(0 < number <= self._last, PROTOCOL_ERROR, "data on a stream that was not opened")
            return 0
        end -= self._padding(flags, data, at, end)
        if flags & _PADDED:
            at += 1
        stream._received += size
        if stream._received > _STREAM_WINDOW // 2 and not flags & _END_STREAM:
            self._emit(_WINDOW_UPDATE, 0, number, _u32(stream._received))
            stream._received = 0
        if at < end:
            self._take_messages(stream, data, at, end)
        if flags & _END_STREAM and not stream.closed:
            self._end(stream)
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _take_messages(self, stream: Stream, data: bytes, at: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.int:
        """Every message that is whole; of the last one the beginning is kept."""
        size: cython.longlong
        if stream._body is not None:
            stream._body += data[at:end]
            if len(stream._body) < 5:
                return 0
            size = int.from_bytes(stream._body[1:5], "big")
            if len(stream._body) < 5 + size <= 5 + self._message_max:
                return 0
            data = bytes(stream._body)
            stream._body = None
            at = 0
            end = len(data)
        while end - at >= 5 and not stream.closed:
            size = cython.cast(cython.longlong, data[at + 1]) << 24 | data[at + 2] << 16 | data[at + 3] << 8
            size |= data[at + 4]
            if data[at]:
                self.refuse(stream, _UNIMPLEMENTED, "grpc: Decompressor is not installed for grpc-encoding")
                return 0
            if size > self._message_max:
                told = f"grpc: received message larger than max ({size} vs. {self._message_max})"
                self.refuse(stream, _RESOURCE_EXHAUSTED, told)
                return 0
            if end - at - 5 < size:
                break
            self._on_message(stream, data[at + 5 : at + 5 + size])
            at += 5 + size
        if at < end and not stream.closed:
            stream._body = bytearray(data[at:end])
        return 0

    @cython.cfunc
    def _end(self, stream: Stream):
        stream.ended = True
        if stream._body is not None:
            self.refuse(stream, _INTERNAL, "unexpected EOF")
        else:
            self._on_end(stream)

    @cython.cfunc
    @cython.exceptval(-1)
    def _take_window(
        self, number: cython.uint, data: bytes, at: cython.Py_ssize_t, end: cython.Py_ssize_t
    ) -> cython.int:
        self._check(end - at == 4, FRAME_SIZE_ERROR, "a WINDOW_UPDATE is malformed")
        more: cython.longlong = int.from_bytes(data[at:end], "big") & 0x7FFFFFFF
        stream: Stream
        if number == 0:
            self._check(more > 0, PROTOCOL_ERROR, "a WINDOW_UPDATE of nothing")
            self._window += more
            self._check(self._window <= _WINDOW_MAX, FLOW_CONTROL_ERROR, "the window is too large")
            for stream in list(self.streams.values()):
                if stream._queue is not None:
                    self._pump(stream)
            return 0
        stream = self.streams.get(number)
        if stream is not None:
            stream._window += more
            if more == 0 or stream._window > _WINDOW_MAX:
                self._emit(_RST_STREAM, 0, number, _u32(FLOW_CONTROL_ERROR if more else PROTOCOL_ERROR))
                self._reset(number)
            elif stream._queue is not None:
                self._pump(stream)
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _take_settings(self, flags: cython.int, number: cython.uint, payload: bytes) -> cython.int:
        self._check(number == 0 and len(payload) % 6 == 0, FRAME_SIZE_ERROR, "SETTINGS are malformed")
        if flags & _END_STREAM:
            return 0
        stream: Stream
        for name, value in _settings(payload):
            if name == 1:
                if value < TABLE_BYTES:
                    self._may_add = False
                    self._shrunk = True
            elif name == 4:
                self._check(value <= _WINDOW_MAX, FLOW_CONTROL_ERROR, "the window is too large")
                for stream in list(self.streams.values()):
                    stream._window += value - self._stream_window
                    if stream._queue is not None:
                        self._pump(stream)
                self._stream_window = value
            elif name == 5:
                self._check(_FRAME_MAX <= value < 1 << 24, PROTOCOL_ERROR, "a frame's size may not be that")
        self._emit(_SETTINGS, _END_STREAM, 0, b"")
        return 0

    @cython.cfunc
    def _reset(self, number: cython.uint):
        """The peer wants nothing more of it."""
        stream: Stream = self.streams.get(number)
        if stream is not None:
            self._close(stream)
            self._on_reset(stream)

    # ---------------------------------------------------------------- what goes out

    def take(self):
        """What is to be written."""
        out = bytes(self._out)
        self._out.clear()
        return out

    @property
    def pending(self):
        """Whether `take` has anything."""
        return len(self._out) > 0

    def reply(self, stream: Stream, message: bytes):
        """The one answer, and a good end."""
        self.send(stream, message)
        self.finish(stream)

    def send(self, stream: Stream, message: bytes):
        """One more message."""
        if stream.closed:
            return
        self._answer(stream)
        size: cython.Py_ssize_t = 5 + len(message)
        if stream._queue is None and size <= self._frame_max and size <= stream._window and size <= self._window:
            stream._window -= size
            self._window -= size
            self._out += _frame(size >> 8, size & 0xFF, _DATA, 0, stream.id)
            self._out += _message_head(0, size - 5)
            self._out += message
            return
        if stream._queue is None:
            stream._queue = bytearray()
        stream._queue += _message_head(0, size - 5)
        stream._queue += message
        self._pump(stream)

    def finish(self, stream: Stream):
        """A good end, behind all that was sent."""
        if stream.closed:
            return
        self._answer(stream)
        if not self._may_add or not self._open_added:
            self._trail(stream, _GOOD_PLAIN)
        elif self._good_added:
            self._trail(stream, _GOOD_KNOWN)
        elif stream._queue is not None:
            self._trail(stream, _GOOD_PLAIN)
        else:
            self._good_added = True
            self._trail(stream, _GOOD_ADDED)

    def refuse(self, stream: Stream, code, text):
        """Another end: gRPC's number of it, and why. What the windows hold back is not sent any more."""
        if stream.closed:
            return
        stream._queue = None
        told = _escaped(text)
        fields = b"\x00\x0bgrpc-status" + _plain_string(str(code).encode())
        if told:
            fields += b"\x00\x0cgrpc-message" + _plain_string(told)
        if stream._opened:
            self._trail(stream, fields)
            return
        stream._opened = True
        self._trail(stream, _OPEN_PLAIN + fields)

    def go_away(self):
        """No stream is taken any more."""
        self._emit(_GOAWAY, 0, 0, _u32(self._last) + _u32(NO_ERROR))

    @cython.cfunc
    def _answer(self, stream: Stream):
        """Our headers."""
        if stream._opened:
            return
        stream._opened = True
        if not self._may_add:
            block = _OPEN_PLAIN
        elif self._good_added:
            block = _OPEN_KNOWN
        elif self._open_added:
            block = _OPEN_PLAIN
        else:
            block = _OPEN_ADDED
            self._open_added = True
        self._emit_block(_END_HEADERS, stream.id, block)

    @cython.cfunc
    def _trail(self, stream: Stream, block: bytes):
        if stream._queue is not None:
            stream._trailers = block
            return
        self._emit_block(_END_HEADERS | _END_STREAM, stream.id, block)
        if not stream.ended:
            self._emit(_RST_STREAM, 0, stream.id, _u32(NO_ERROR))
        self._close(stream)

    @cython.cfunc
    def _close(self, stream: Stream):
        stream.closed = True
        stream._queue = None
        stream._body = None
        self.streams.pop(stream.id, None)

    @cython.cfunc
    def _pump(self, stream: Stream):
        """As much of the queue as the windows let through."""
        at: cython.longlong = 0
        size: cython.longlong = len(stream._queue)
        room: cython.longlong
        while at < size:
            room = min(size - at, self._frame_max, stream._window, self._window)
            if room <= 0:
                break
            self._emit(_DATA, 0, stream.id, stream._queue[at : at + room])
            stream._window -= room
            self._window -= room
            at += room
        if at < size:
            if at:
                del stream._queue[:at]
            return
        stream._queue = None
        if stream._trailers is not None:
            self._trail(stream, stream._trailers)
        else:
            self._on_writable(stream)

    @cython.cfunc
    def _emit_block(self, flags: cython.int, number: cython.uint, block: bytes):
        if self._shrunk:
            self._shrunk = False
            block = b"\x20" + block
        self._emit(_HEADERS, flags, number, block)

    @cython.cfunc
    def _emit(self, kind: cython.int, flags: cython.int, number: cython.uint, payload):
        size: cython.Py_ssize_t = len(payload)
        self._out += _frame(size >> 8, size & 0xFF, kind, flags, number)
        self._out += payload


def _plain_string(text: bytes) -> bytes:
    """A literal of HPACK, not coded."""
    if len(text) < 127:
        return bytes((len(text),)) + text
    number = bytearray((127,))
    rest: cython.int = len(text) - 127
    while rest > 127:
        number.append(rest & 127 | 128)
        rest >>= 7
    number.append(rest)
    return bytes(number) + text


def _escaped(text: str) -> bytes:
    """grpc-message: percent-encoded where it is not printable ASCII."""
    return b"".join(
        bytes((code,)) if 0x20 <= code <= 0x7E and code != 0x25 else b"%%%02X" % code for code in text.encode()
    )
