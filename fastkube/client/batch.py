"""Writes that share a request: what is written while others are under way goes out together.

A write that comes alone is sent at once, as an ordinary request: it costs no time to wait for company. While
`_FLIGHTS_MAX` requests are on their way, what comes makes up the next batch, so its size follows the load as that of a
group commit does. A request that takes long no longer counts: it may wait for a webhook, and others shall not wait for
it. Each write has its own result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

import msgpack

from fastkube.client.codec import MSGPACK
from fastkube.client.transport import Response
from fastkube.errors import ApiError

BATCH_PATH = "/fastkube/v1/batch"

_WRITES_MAX = 256
_BYTES_MAX = 4 * 1024 * 1024
_FLIGHTS_MAX = 4
_SLOW_S = 0.1
_REFUSED = (404, 405, 415)
"""Answers of a server that takes no batches."""


class Write(NamedTuple):
    """A request to be. `brief`: its answer is not needed when it succeeds."""

    method: str
    target: str
    media: str
    body: bytes
    brief: bool


Outcome = Response | BaseException | None
"""The answer to a write, or why there is none; None: it has to be sent alone."""

_Waiting = tuple[Write, Callable[[Outcome], None]]


class Batcher:
    """Joins the writes of one client. `send` takes one of them, `send_many` the body of a batch."""

    def __init__(
        self, send: Callable[[Write], Awaitable[Response]], send_many: Callable[[bytes], Awaitable[Response]]
    ) -> None:
        self._send = send
        self._send_many = send_many
        self._waiting: list[_Waiting] = []
        self._flights: set[asyncio.Task[None]] = set()
        self._refused = False

    @property
    def busy(self) -> bool:
        """Whether a write is waiting or on its way."""
        return bool(self._waiting or self._flights)

    async def write(self, write: Write) -> Response:
        """The answer to a write. Raises what sending it alone would."""
        if self.is_for_one(write):
            return await self._send(write)
        answer: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()
        self.write_nowait(write, partial(_settle, answer))
        return await answer or await self._send(write)

    def is_for_one(self, write: Write) -> bool:
        """Whether it has to be sent alone: the server takes no batches, or it is too large for one."""
        return self._refused or len(write.body) > _BYTES_MAX

    def write_nowait(self, write: Write, landed: Callable[[Outcome], None]) -> None:
        """Join a write to the others; `landed` is called later, and must not raise."""
        self._waiting.append((write, landed))
        if len(self._waiting) == 1 and len(self._flights) < _FLIGHTS_MAX:
            asyncio.get_running_loop().call_soon(self._depart)

    def _depart(self) -> None:
        """Send what waits, as far as there is room for flights."""
        while self._waiting and len(self._flights) < _FLIGHTS_MAX:
            flight = asyncio.ensure_future(self._fly(self._take()))
            self._flights.add(flight)
            asyncio.get_running_loop().call_later(_SLOW_S, self._gone, flight)
            flight.add_done_callback(self._gone)

    def _gone(self, flight: asyncio.Task[None]) -> None:
        """It has landed, or takes too long to be waited for."""
        if flight in self._flights:
            self._flights.discard(flight)
            self._depart()

    def _take(self) -> list[_Waiting]:
        size = count = 0
        for write, _ in self._waiting:
            size += len(write.body)
            if count == _WRITES_MAX or (count and size > _BYTES_MAX):
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    async def _fly(self, batch: list[_Waiting]) -> None:
        try:
            if len(batch) == 1:
                results: list[Response | None] = [await self._send(batch[0][0])]
            else:
                results = await self._fly_together(batch)
        except ApiError as error:
            for _, landed in batch:
                landed(_again(error))
            return
        except BaseException as error:
            for _, landed in batch:
                landed(error)
            raise
        for (_, landed), result in zip(batch, results, strict=True):
            landed(result)

    async def _fly_together(self, batch: list[_Waiting]) -> list[Response | None]:
        response = await self._send_many(msgpack.packb([write for write, _ in batch]))
        if response.status == 200:
            return [_response(*result) for result in msgpack.unpackb(response.body)]
        self._refused = response.status in _REFUSED
        return [None] * len(batch)


def _settle(answer: asyncio.Future[Response | None], outcome: Outcome) -> None:
    if answer.done():
        return
    if outcome is None or isinstance(outcome, Response):
        answer.set_result(outcome)
    elif isinstance(outcome, ApiError):
        answer.set_exception(outcome)
    else:
        answer.cancel()


def _response(code: int, body: bytes, warnings: list[str]) -> Response | None:
    """What a request of its own would have got; None when the server says that it is to be tried again."""
    if code == 429 or code >= 500:
        details = msgpack.unpackb(body).get("details") or {}
        if details.get("retryAfterSeconds"):
            return None
    return Response(code, {"content-type": MSGPACK}, body or _EMPTY)


def _again(error: ApiError) -> ApiError:
    """The same error for another caller: an exception instance carries the traceback of one."""
    again = error.__class__.__new__(error.__class__)
    again.args = error.args
    again.__dict__.update(error.__dict__)
    again.__cause__ = error.__cause__
    return again


_EMPTY: bytes = msgpack.packb({})
