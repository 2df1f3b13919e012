"""TLS of a client's connection, over memory buffers.

    socket ─ bytes ─▶ Tls.buffer_updated ─▶ SSLObject ─ plain bytes ─▶ Connection.data_received
    Connection ─ transport.write ─▶ SSLObject ─ records ─▶ the socket's transport: one write for each answer

asyncio's and uvloop's own read until OpenSSL says that there is no more, by an exception that costs more than the
decryption of a small request; here that is known beforehand, from how much is left in the buffers.

A connection exists from the end of its handshake on, which has to come within `handshake_timeout_s`. A client that ends
its side is taken to have gone. Whatever OpenSSL does not like ends the connection, after the alert that says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastkube.server.connection import Connection

_RECORD_BYTES = 16 * 1024


class Tls(asyncio.BufferedProtocol):
    """What the socket's transport sees of a connection."""

    __slots__ = (
        "_connection",
        "_incoming",
        "_make",
        "_object",
        "_outgoing",
        "_received",
        "_socket",
        "_timer",
        "paused",
    )

    def __init__(
        self, context: ssl.SSLContext, make: Callable[[], Connection], received: memoryview, handshake_timeout_s: float
    ) -> None:
        """`received` is the buffer that all connections share: its bytes are taken out at once."""
        self._make = make
        self._connection: Connection | None = None
        self._received = received
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._socket: asyncio.Transport | None = None
        self._timer = asyncio.get_running_loop().call_later(handshake_timeout_s, self._give_up)
        self.paused = False
        """Whether the connection wants no more for now."""

    # ---------------------------------------------------------------- what the socket's transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._timer.cancel()
        self._socket = None
        if self._connection is not None:
            self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._connection is not None:
            self._connection.pause_writing()

    def resume_writing(self) -> None:
        if self._connection is not None:
            self._connection.resume_writing()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._received

    def buffer_updated(self, nbytes: int) -> None:
        self._incoming.write(self._received[:nbytes])
        try:
            if self._connection is None:
                self._shake_hands()
            else:
                self._read(self._connection)
        except ssl.SSLError:
            self._flush()  # the alert
            self._give_up()

    def _give_up(self) -> None:
        if self._socket is not None:
            if self._connection is None:
                self._socket.close()
            else:
                self._socket.abort()

    # ---------------------------------------------------------------- TLS

    def _shake_hands(self) -> None:
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        self._timer.cancel()
        self._flush()
        connection = self._connection = self._make()
        assert self._socket is not None
        connection.connection_made(TlsTransport(self, self._object, self._outgoing, self._socket))
        if self._incoming.pending:
            self._read(connection)

    def _read(self, connection: Connection) -> None:
        """Hands on all whole records that have come."""
        incoming, read, pending = self._incoming, self._object.read, self._object.pending
        while not self.paused:
            try:
                data = read(incoming.pending or _RECORD_BYTES)
            except ssl.SSLWantReadError:  # a record is still to come as a whole
                break
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                data = b""
            if not data:
                if self._socket is not None:
                    self._socket.close()
                return
            connection.data_received(data)
            if not (incoming.pending or pending()):
                break
        if self._outgoing.pending:
            self._flush()

    def read_on(self) -> None:
        """What came before the connection wanted no more."""
        if self._connection is not None and self._socket is not None and not self.paused:
            try:
                self._read(self._connection)
            except ssl.SSLError:
                self._give_up()

    def _flush(self) -> None:
        if self._socket is not None and self._outgoing.pending:
            self._socket.write(self._outgoing.read())


class TlsTransport(asyncio.Transport):
    """What a connection writes to."""

    __slots__ = ("_encrypt", "_object", "_outgoing", "_records", "_socket", "_tls", "_write")

    def __init__(self, tls: Tls, tls_object: ssl.SSLObject, outgoing: ssl.MemoryBIO, socket: asyncio.Transport) -> None:
        super().__init__()
        self._tls = tls
        self._object = tls_object
        self._outgoing = outgoing
        self._socket = socket
        self._encrypt, self._records, self._write = tls_object.write, outgoing.read, socket.write

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data:
            try:
                self._encrypt(data)
            except ssl.SSLError:  # it takes no more
                self._socket.abort()
            else:
                self._write(self._records())

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """All of them in one write, without joining them first."""
        try:
            for data in list_of_data:
                if data:
                    self._encrypt(data)
        except ssl.SSLError:
            self._socket.abort()
        else:
            self._write(self._records())

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._object if name == "ssl_object" else self._socket.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return self._socket.get_write_buffer_size()

    def pause_reading(self) -> None:
        if not self._tls.paused:
            self._tls.paused = True
            self._socket.pause_reading()

    def resume_reading(self) -> None:
        if self._tls.paused:
            self._tls.paused = False
            self._socket.resume_reading()
            asyncio.get_running_loop().call_soon(self._tls.read_on)

    def is_closing(self) -> bool:
        return self._socket.is_closing()

    def close(self) -> None:
        """Says good-bye; closes when what was written is sent."""
        if self._socket.is_closing():
            return
        with contextlib.suppress(ssl.SSLError):  # the client's own good-bye is not waited for
            self._object.unwrap()
        self._write(self._records())
        self._socket.close()

    def abort(self) -> None:
        self._socket.abort()
