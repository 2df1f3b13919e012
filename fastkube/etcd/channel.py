"""One stream of a peer, as a service that sends many messages on it sees it."""

from __future__ import annotations

import asyncio
from typing import Protocol

from fastkube._http2 import Connection, Stream

QUEUE_BYTES = 1 << 20
"""Held back for one stream before its producer waits, or goes back to the log."""


class Peer(Protocol):
    connection: Connection
    is_slow: bool

    def touch(self) -> None:
        """Something was sent: write it before this turn of the loop ends."""


class Handler(Protocol):
    """What a stream's messages and its end are told to."""

    def on_message(self, message: bytes) -> None: ...

    def on_end(self) -> None:
        """The peer sends no more; it may still read."""

    def close(self) -> None:
        """The stream is over; nothing can be sent."""


class Channel:
    def __init__(self, peer: Peer, stream: Stream) -> None:
        self._peer = peer
        self._stream = stream
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return self._stream.headers

    @property
    def closed(self) -> bool:
        return self._stream.closed

    @property
    def is_full(self) -> bool:
        """The peer does not keep up."""
        return self._peer.is_slow or self._stream.queued > QUEUE_BYTES

    async def writable(self) -> None:
        """Until the peer has taken what was sent, or is gone."""
        while self.is_full and not self.closed:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def on_writable(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def send(self, message: bytes) -> None:
        self._peer.connection.send(self._stream, message)
        self._peer.touch()

    def finish(self) -> None:
        self._peer.connection.finish(self._stream)
        self._peer.touch()

    def refuse(self, code: int, text: str) -> None:
        self._peer.connection.refuse(self._stream, code, text)
        self._peer.touch()
