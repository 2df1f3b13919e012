"""The writing process's door for frontends: their commands are queued with its own, and so share its commits."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastkube.store.errors import StoreError
from fastkube.store.frames import Framed, decode, encode, socket_path

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastkube.store.store import Store


class Gateway:
    """Serves the frontends of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._server: asyncio.AbstractServer | None = None
        self._connections: set[Framed] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._operations: dict[str, Callable[..., Awaitable[Any]]] = {
            "write": store.write,
            "create": store.create,
            "update": store.update,
            "delete": store.delete,
            "retire": store.retire,
            "txn": store.txn,
            "lease_grant": store.lease_grant,
            "lease_revoke": store.lease_revoke,
            "lease_keepalive": store.lease_keepalive,
            "lease_info": self._lease_info,
            "compact": self._compact,
            "read_barrier": self._read_barrier,
            "is_replicated": self._is_replicated,
            "status": self._status,
        }

    async def open(self) -> None:
        path = socket_path(self._store.path)
        _remove(path)  # of a process that was killed: the store's lock is ours
        before = os.umask(0o177)
        try:
            self._server = await asyncio.get_running_loop().create_unix_server(self._connect, path)
        finally:
            os.umask(before)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            for connection in tuple(self._connections):
                connection.close()
            for task in tuple(self._tasks):
                task.cancel()
            _remove(socket_path(self._store.path))

    def _connect(self) -> Framed:
        connection = Framed(lambda message: self._receive(connection, message), lambda: self._lost(connection))
        self._connections.add(connection)
        return connection

    def _lost(self, connection: Framed) -> None:
        self._connections.discard(connection)

    def _receive(self, connection: Framed, message: Any) -> None:
        number, name, arguments = message
        try:
            waiting = self._operations[name](*decode(arguments))
        except StoreError as refusal:
            connection.send([number, encode(refusal), None])
            return
        if isinstance(waiting, asyncio.Future):
            waiting.add_done_callback(lambda done: self._answer(connection, number, done))
        else:
            task = asyncio.ensure_future(waiting)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda done: self._answer(connection, number, done))

    def _answer(self, connection: Framed, number: int, done: asyncio.Future[Any]) -> None:
        if done.cancelled():
            return
        problem = done.exception()
        if problem is None:
            connection.send([number, None, encode(done.result())])
        elif isinstance(problem, StoreError):
            connection.send([number, encode(problem), None])
        else:
            connection.close()
            raise problem

    async def _lease_info(self, lease: int) -> list[Any]:
        return list(await self._store.lease_info(lease))

    async def _compact(self, revision: int, physical: bool) -> None:
        await self._store.compact(revision, physical=physical)

    async def _read_barrier(self) -> None:
        waiting = self._store.read_barrier()
        if waiting is not None:
            await waiting

    async def _is_replicated(self) -> bool:
        return self._store.consensus is not None

    async def _status(self) -> list[Any]:
        return list(self._store.status())


def _remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)
