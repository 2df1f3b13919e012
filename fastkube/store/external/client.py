"""A client of etcd's API v3: calls go to one of the endpoints, and on to the next when that one is gone.

A call that was not sent is sent again, to whichever endpoint takes it, until its time is over. One that may have been
done is sent again only if that does no harm (`safe`: it reads); else its caller is told that it is not known.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastkube.store import grpc
from fastkube.store.errors import (
    InvalidRequest,
    LeaseExists,
    LeaseNotFound,
    NoSpace,
    Overloaded,
    StoreClosed,
    StoreError,
    StoreUnavailable,
)
from fastkube.store.external.http2 import Broken, Connection, GrpcError, Refused
from fastkube.store.external.messages import Body, Method, encode, read
from fastkube.store.external.options import Endpoint

CALL_TIMEOUT_S = 10.0
_CONNECT_TIMEOUT_S = 3.0
_RETRY_S = 0.1
_RETRY_MAX_S = 2.0


class _Untrusted(Refused):
    """No endpoint's certificate is valid: trying again would not help."""


class Client:
    """Everything is called on one loop."""

    def __init__(self, endpoints: Sequence[Endpoint], context: ssl.SSLContext | None) -> None:
        self._endpoints = list(endpoints)
        random.shuffle(self._endpoints)  # so that the servers of one cluster do not all ask the same member
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._tried = 0
        self._closed = False
        self.problem = ""
        """Why no endpoint can be reached; "" while one is."""

    def close(self) -> None:
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.close()

    # ---------------------------------------------------------------- calls

    def call(self, method: Method, body: Body, *, safe: bool = False) -> asyncio.Future[Any]:
        """The answer as a dict. Raises StoreError; a GrpcError where its caller knows better what it means."""
        packed = encode(method.request, body)
        connection = self._connection
        if connection is None or not connection.open:
            return asyncio.ensure_future(self._patiently(method, packed, safe))
        outer: asyncio.Future[Any] = self._loop.create_future()
        inner = connection.call(method.path, packed)
        timer = self._loop.call_later(CALL_TIMEOUT_S, inner.cancel)

        def done(finished: asyncio.Future[bytes]) -> None:
            timer.cancel()
            if outer.done():
                return
            if finished.cancelled():
                outer.set_exception(_timed_out())
                return
            problem = finished.exception()
            if problem is None:
                outer.set_result(read(method.response, finished.result()))
            elif isinstance(problem, Refused) or (safe and _is_passing(problem)):
                again = asyncio.ensure_future(self._patiently(method, packed, safe))
                again.add_done_callback(lambda later: _pass_on(later, outer))
            else:
                outer.set_exception(_error(problem))

        inner.add_done_callback(done)
        return outer

    async def _patiently(self, method: Method, packed: bytes, safe: bool) -> Any:
        """Waits for a connection, and tries again what may be tried again."""
        deadline = self._loop.time() + CALL_TIMEOUT_S
        pause_s = _RETRY_S
        while True:
            problem: Exception
            try:
                async with asyncio.timeout_at(deadline):
                    connection = await self._connected()
                    return read(method.response, await connection.call(method.path, packed))
            except TimeoutError:
                raise _timed_out(self.problem) from None
            except _Untrusted as untrusted:
                raise _error(untrusted) from None
            except Refused as refused:
                problem = refused
            except (Broken, GrpcError) as told:
                if not (safe and _is_passing(told)):
                    raise _error(told) from None
                problem = told
            if self._loop.time() + pause_s > deadline:
                raise _error(problem) from None
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _RETRY_MAX_S)

    async def stream(self, method: Method, first: Body) -> Streaming:
        """Begins a stream with a message. Raises StoreUnavailable."""
        try:
            connection = await self._connected()
            return Streaming(connection, method, first)
        except (Refused, Broken) as problem:
            raise _error(problem) from None

    # ---------------------------------------------------------------- the connection

    async def _connected(self) -> Connection:
        """Raises Refused when no endpoint can be reached now."""
        if self._closed:
            raise StoreClosed("the store is closed")
        if self._connection is not None and self._connection.open:
            return self._connection
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.ensure_future(self._connect())
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> Connection:
        untrusted = 0
        for _ in self._endpoints:
            endpoint = self._endpoints[self._tried % len(self._endpoints)]
            try:
                self._connection = await self._connect_to(endpoint)
                self.problem = ""
                return self._connection
            except (OSError, TimeoutError, Refused) as problem:
                self._tried += 1
                self.problem = f"connection to etcd at {endpoint}: {problem or type(problem).__name__}"
                untrusted += isinstance(problem, ssl.SSLCertVerificationError)
        raise (_Untrusted if untrusted == len(self._endpoints) else Refused)(self.problem)

    async def _connect_to(self, endpoint: Endpoint) -> Connection:
        connection = Connection(str(endpoint).encode(), endpoint.secure, self._on_lost)
        context = self._context if endpoint.secure else None
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            await self._loop.create_connection(lambda: connection, endpoint.host, endpoint.port, ssl=context)
            try:
                await asyncio.shield(connection.ready)
            except BaseException:
                connection.close()
                raise
        return connection

    def _on_lost(self) -> None:
        self._tried += 1


class Streaming:
    """A stream of messages both ways. Iterate over what comes; it ends by StoreUnavailable, never by itself."""

    def __init__(self, connection: Connection, method: Method, first: Body) -> None:
        self._method = method
        self._came: asyncio.Queue[Body | Exception] = asyncio.Queue()
        self._write, self.close = connection.stream(method.path, self)
        self.send(first)

    def send(self, body: Body) -> None:
        self._write(encode(self._method.request, body))

    def message(self, body: bytes) -> None:
        try:
            self._came.put_nowait(read(self._method.response, body))
        except ValueError as problem:
            self._came.put_nowait(GrpcError(grpc.UNAVAILABLE, str(problem)))

    def ended(self, error: Exception | None) -> None:
        self._came.put_nowait(error or Broken("the stream has ended"))

    async def __aiter__(self) -> AsyncIterator[Body]:
        while True:
            came = await self._came.get()
            if isinstance(came, Exception):
                raise _error(came)
            yield came


# ---------------------------------------------------------------- what went wrong


def _pass_on(finished: asyncio.Future[Any], to: asyncio.Future[Any]) -> None:
    if to.done():
        return
    if finished.cancelled():
        to.cancel()
    elif (problem := finished.exception()) is not None:
        to.set_exception(problem)
    else:
        to.set_result(finished.result())


def _is_passing(problem: BaseException) -> bool:
    """Whether the same call may do better in a moment."""
    return isinstance(problem, Broken) or (isinstance(problem, GrpcError) and problem.code == grpc.UNAVAILABLE)


def _timed_out(problem: str = "") -> StoreUnavailable:
    return StoreUnavailable(problem or "etcdserver: request timed out")


def _error(problem: BaseException) -> Exception:
    """What the store's callers know it as. GrpcErrors that depend on what was asked are left to whoever asked."""
    if not isinstance(problem, GrpcError):
        return StoreUnavailable(str(problem))
    code, message = problem.code, problem.message
    if code == grpc.RESOURCE_EXHAUSTED:
        return (NoSpace if "space exceeded" in message else Overloaded)(message)
    if code == grpc.INVALID_ARGUMENT:
        return InvalidRequest(message)
    if code == grpc.NOT_FOUND and "lease" in message:
        return LeaseNotFound(0)
    if code == grpc.FAILED_PRECONDITION and "lease already exists" in message:
        return LeaseExists(0)
    if "compacted" in message or "future revision" in message:
        return problem
    return StoreUnavailable(message)


def refusal_of(problem: BaseException) -> StoreError:
    """Of a failed call, for whoever asked for nothing that could be compacted."""
    return problem if isinstance(problem, StoreError) else StoreUnavailable(str(problem))
