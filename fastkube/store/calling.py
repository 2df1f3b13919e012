"""Calls between members: what the leader alone can answer, such as a lease's time or a change of the membership."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fastkube._raft import LEADER, Raft
from fastkube.store.errors import StoreError, StoreUnavailable, error_from_wire, error_to_wire
from fastkube.store.parts import ANSWER, CALL, REQUEST_TIMEOUT_S, Transport, fail_all


class Calling:
    """`methods` are what this member answers while it leads."""

    def __init__(self, raft: Raft, transport: Transport) -> None:
        self._raft = raft
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._call_number = 0
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self.methods: dict[str, Callable[..., Awaitable[Any]]] = {}

    async def call(self, method: str, *arguments: Any) -> Any:
        """Have the leader do it. Raises what it raises, and StoreUnavailable when there is none."""
        raft = self._raft
        if raft.role == LEADER:
            return await asyncio.wait_for(self.methods[method](*arguments), REQUEST_TIMEOUT_S)
        if not raft.lead:
            raise StoreUnavailable("there is no leader")
        self._call_number += 1
        number = self._call_number
        future = self._calls[number] = self._loop.create_future()
        self._transport.send(raft.lead, CALL, (number, method, arguments))
        try:
            return await asyncio.wait_for(future, REQUEST_TIMEOUT_S)
        except TimeoutError:
            raise StoreUnavailable("request timed out: the leader did not answer") from None
        finally:
            self._calls.pop(number, None)

    async def on_call(self, sender: int, number: int, method: str, arguments: Any) -> None:
        try:
            if self._raft.role != LEADER:
                raise StoreUnavailable("not the leader")
            answer = (number, True, await self.methods[method](*arguments))
        except StoreError as refusal:
            answer = (number, False, error_to_wire(refusal))
        self._transport.send(sender, ANSWER, answer)

    def on_answer(self, number: int, well: bool, result: Any) -> None:
        future = self._calls.pop(number, None)
        if future is None or future.done():
            return
        if well:
            future.set_result(result)
        else:
            future.set_exception(error_from_wire(*result))

    def drop_all(self, error: StoreUnavailable) -> None:
        fail_all(list(self._calls.values()), error)
        self._calls.clear()
