"""A watch: events in the server's order, from one position on, until the server or the caller ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from fastkube.client import codec as codecs
from fastkube.client.codec import WatchEvent
from fastkube.client.transport import Stream, Transport, TransportError
from fastkube.errors import ApiError

IDLE_MAX_S = 660.0
"""Servers end a watch after ten minutes at most and send bookmarks each minute: longer silence is a dead peer."""

INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class WatchLost(ApiError):
    """The connection broke; watch again from the last resourceVersion that was seen."""

    def __init__(self, message: str) -> None:
        super().__init__(503, "ServiceUnavailable", message)


class Watch:
    """An asynchronous iterator of events, and a context manager which closes it. Connects when first read.

    Ends when the server ends it in order; raises ApiError for a refusal or an ERROR event, WatchLost when it breaks.
    """

    def __init__(
        self, transport: Transport, head: Callable[[], str], *, timeout_s: float, shared: bool = False
    ) -> None:
        self._transport = transport
        self._head = head
        self._timeout_s = timeout_s
        self._shared = shared
        self._stream: Stream | None = None
        self._ready: list[WatchEvent] = []
        self._rest = b""
        self._split: codecs.Splitter = codecs.json_lines
        self._failure: ApiError | None = None
        self._ended = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._ended = True
        if self._stream is not None:
            self._stream.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchEvent:
        if not self._ready:
            self._ready = await self.batch()
            if not self._ready:
                raise StopAsyncIteration
            self._ready.reverse()
        return self._ready.pop()

    async def batch(self) -> list[WatchEvent]:
        """All events that are there, at least one; [] at the end. What a busy reader uses instead of iterating."""
        while True:
            if self._failure is not None:
                self.close()
                raise self._failure
            if self._ended:
                return []
            try:
                data = await self._read()
            except TransportError as error:
                self.close()
                raise WatchLost(str(error)) from error
            if not data:
                self.close()
                return []
            events = self._decode(data)
            if events:
                return events

    async def connect(self) -> None:
        """Open the watch now: its refusal is raised here rather than at the first event."""
        if self._stream is not None:
            return
        try:
            stream = await self._transport.stream(self._head(), self._timeout_s)
            self._stream = stream
            if stream.status != 200:
                body = await stream.read_all(self._timeout_s)
                self.close()
                raise codecs.error_from(stream.status, stream.headers, body)
        except TransportError as error:
            self.close()
            raise WatchLost(str(error)) from error
        self._split = codecs.framing(stream.headers.get("content-type", ""), shared=self._shared)

    async def _read(self) -> bytes:
        await self.connect()
        assert self._stream is not None
        return await self._stream.read(IDLE_MAX_S)

    def _decode(self, data: bytes) -> list[WatchEvent]:
        try:
            events, self._rest = self._split(self._rest + data if self._rest else data)
        except codecs.FrameError as error:
            self.close()
            raise ApiError(500, "InternalError", str(error)) from error
        for index, (kind, told) in enumerate(events):
            if kind == "ERROR":
                self._failure = ApiError.from_status(told)
                return events[:index]
        return events
