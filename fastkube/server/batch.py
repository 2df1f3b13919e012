"""Many writes in one request, for fastkube's own components and whoever else writes much (docs/batch.md).

    POST /fastkube/v1/batch, application/msgpack, an array of at most WRITES_MAX writes:
        [method, target, content type, body, brief]
    answers 200 with an array of results in the same order:
        [code, body, [warning, ...]]

Each write is what a request of its own would be: authorized, admitted and answered alone, with its own Status when it
fails; whether the others succeed does not matter to it. They run side by side, so they share one commit and their order
is not told. A brief write that succeeds answers with an empty body. Reads and connections are not taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgpack
from aiohttp.http_writer import HttpVersion11
from multidict import CIMultiDict

from fastkube import errors
from fastkube.server.answer import Answer
from fastkube.server.calls import BODY_MAX_BYTES
from fastkube.server.connect import CONNECTING
from fastkube.server.media import MSGPACK
from fastkube.server.repeated_writes import GOES, WAITS, RepeatedWrites, Result
from fastkube.server.request import Request

if TYPE_CHECKING:
    from aiohttp.http_parser import RawRequestMessage

    from fastkube.server.app import ApiServer
    from fastkube.server.connection import Connection
    from fastkube.server.stages import Stage

BATCH_PATH = "/fastkube/v1/batch"

WRITES_MAX = 1024
BATCH_MAX_BYTES = 64 * 1024 * 1024
_TURN_WRITES = 32
"""Of all batches, in one turn of the loop: a millisecond or two, and no request that came alone waits longer."""
_METHODS = frozenset(("POST", "PUT", "PATCH", "DELETE"))
_PASSED_ON = ("User-Agent",)
"""Header fields of the batch that count for each of its writes; who asks is settled once for all."""

_MSGPACK = MSGPACK.decode()
_Write = tuple[str, str, str, bytes, bool]


class _Part:
    """Stands for the connection of one write: its body has come, and there is no socket of its own."""

    transport = None
    complete = True

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read_body(self, request: Request, max_bytes: int) -> bytes | None:
        return self._body if len(self._body) <= max_bytes else None

    def abort(self) -> None:
        """There is nothing to cut: a write of a batch never streams."""


class _Head(NamedTuple):
    """Stands for the head of one write."""

    method: str
    path: str
    headers: CIMultiDict[str]
    version: Any = HttpVersion11
    should_close: bool = False


async def handle_batch(server: ApiServer, request: Request, stages: tuple[Stage, ...]) -> Answer:
    """Raises 405, 413, 415 and 400 for what is no batch; everything else is the result of a write."""
    if request.method != "POST":
        raise errors.method_not_allowed()
    if request.headers.get("Content-Type", "") != _MSGPACK:
        raise errors.unsupported_media_type("a batch is application/msgpack")
    body = await request.connection.read_body(request, BATCH_MAX_BYTES)
    if body is None:
        raise errors.too_large(f"Request entity too large: limit is {BATCH_MAX_BYTES}")
    writes = _read(body)
    batch = _Batch(server, request, stages)
    repeated = server.repeats.batches.begin(request)
    results: list[Result | None] = [None] * len(writes)
    left: Sequence[int] = range(len(writes))
    try:
        while left:
            left = await _round(batch, repeated, writes, left, results)
    except BaseException:
        batch.cancel()
        raise
    return Answer(200, msgpack.packb(results), MSGPACK)


async def _round(
    batch: _Batch, repeated: RepeatedWrites, writes: list[_Write], left: Sequence[int], results: list[Result | None]
) -> list[int]:
    """Writes what can be written; the places of those that are to come again."""
    later: list[int] = []

    def begin(some: Sequence[int]) -> None:
        for at in some:
            verdict = repeated.take(at, writes[at], results)
            if verdict == GOES:
                batch.begin(at, writes[at], results)
            elif verdict == WAITS:
                later.append(at)

    if len(left) <= _TURN_WRITES:
        begin(left)
    else:
        for first in range(0, len(left), _TURN_WRITES):
            async with repeated.turn():
                begin(left[first : first + _TURN_WRITES])
    for at in await repeated.write(results):
        batch.begin(at, writes[at], results)
    await batch.finish(results)
    repeated.end_round()
    return later


class _Batch:
    """The writes of a batch under way: each is a request of its own, but for what the batch has in common."""

    def __init__(self, server: ApiServer, request: Request, stages: tuple[Stage, ...]) -> None:
        self._server = server
        self._request = request
        self._stages = stages
        self._headers: dict[str, CIMultiDict[str]] = {}
        self.waiting: list[tuple[int, asyncio.Task[Result]]] = []

    def begin(self, at: int, write: _Write, results: list[Result | None]) -> None:
        method, target, media, content, brief = write
        if media not in self._headers:
            self._headers[media] = _headers(self._request, media)
        server, head = self._server, cast("RawRequestMessage", _Head(method, target, self._headers[media]))
        one = Request(cast("Connection", _Part(content)), head, server.now())
        one.user, one.audit_id = self._request.user, self._request.audit_id
        rest = iter(self._stages)
        outcome = _begin(server, one, rest)
        if isinstance(outcome, Answer):
            results[at] = _result(server, one, outcome, brief)
        else:
            self.waiting.append((at, asyncio.ensure_future(_finish(server, one, outcome, rest, brief))))

    async def finish(self, results: list[Result | None]) -> None:
        """Waits for all that were begun."""
        for at, task in self.waiting:
            results[at] = await task
        self.waiting.clear()

    def cancel(self) -> None:
        for _, task in self.waiting:
            task.cancel()


def _read(body: bytes) -> list[_Write]:
    try:
        writes = msgpack.unpackb(body)
    except (ValueError, msgpack.UnpackException) as fault:
        raise errors.bad_request(f"a batch is a msgpack array: {fault}") from None
    if not isinstance(writes, list) or len(writes) > WRITES_MAX:
        raise errors.bad_request(f"a batch is an array of at most {WRITES_MAX} writes")
    for at, write in enumerate(writes):
        if not isinstance(write, list) or list(map(type, write)) != [str, str, str, bytes, bool]:
            raise errors.bad_request(f"write {at} is not [method, target, content type, body, brief]")
        if write[0] not in _METHODS:
            raise errors.bad_request(f"write {at}: a batch takes {', '.join(sorted(_METHODS))}")
    return writes


def _headers(request: Request, media: str) -> CIMultiDict[str]:
    """The header of a write: what the batch's own says that concerns it."""
    pairs = [(name, value) for name in _PASSED_ON if (value := request.headers.get(name))]
    pairs += [("Accept", _MSGPACK), ("Content-Type", media)]
    return CIMultiDict(pairs)


def _begin(server: ApiServer, one: Request, stages: Iterator[Stage]) -> Answer | Awaitable[Any]:
    """Takes a write as far as it goes without waiting; the first stage, which never waits, reads its path."""
    try:
        unread = next(stages)(server, one)
        if unread is not None:
            return unread
        if not one.info.is_resource or one.info.subresource in CONNECTING:
            raise errors.method_not_allowed()
        for stage in stages:
            outcome = stage(server, one)
            if outcome is not None:
                return outcome
    except Exception as failure:
        return _failed(server, one, failure)
    raise AssertionError("the last stage answers")


async def _finish(
    server: ApiServer, one: Request, outcome: Awaitable[Any], rest: Iterator[Stage], brief: bool
) -> Result:
    try:
        answer = await outcome
        while answer is None:  # a stage before the last had to wait
            answer = next(rest)(server, one)
            if answer is not None and not isinstance(answer, Answer):
                answer = await answer
    except Exception as failure:
        answer = _failed(server, one, failure)
    return _result(server, one, answer, brief)


def _failed(server: ApiServer, one: Request, failure: Exception) -> Answer:
    answer = server.failed(one, failure)
    if not isinstance(answer, Answer):  # a connection that broke: not this one's, it has none
        answer = cast(Answer, server.failed(one, errors.unavailable(str(failure))))
    return answer


def _result(server: ApiServer, one: Request, answer: Answer, brief: bool) -> Result:
    server.observe(one, answer)
    return answer.code, b"" if brief and answer.code < 400 else answer.body, one.warnings


assert BODY_MAX_BYTES < BATCH_MAX_BYTES
