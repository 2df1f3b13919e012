"""The frontends of one server, seen from the process that writes: started with it, replaced when one dies."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

log = logging.getLogger(__name__)

_START_TIMEOUT_S = 30.0
_END_TIMEOUT_S = 3.0
_PAUSE_S = 1.0
"""Between the death of a frontend and its successor: one that cannot live shall not keep the machine busy."""


class Frontends:
    """Processes that are told `order` on their standard input, and end with it."""

    def __init__(self, count: int, order: dict[str, Any]) -> None:
        self._order = json.dumps(order).encode() + b"\n"
        self._count = count
        self._processes: set[asyncio.subprocess.Process] = set()
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Returns when all of them serve. Raises ValueError when one does not come up."""
        started = await asyncio.gather(*(self._spawn() for _ in range(self._count)))
        self._keepers = [asyncio.create_task(self._keep(process)) for process in started]

    async def _spawn(self) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        words = (sys.executable, "-m", "fastkube", "frontend")
        process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, start_new_session=True)
        self._processes.add(process)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(self._order)
        try:
            line = await asyncio.wait_for(process.stdout.readline(), _START_TIMEOUT_S)
        except TimeoutError:
            line = b""
        if not line:
            await self._end(process)
            raise ValueError("a frontend did not start; what it said stands above")
        return process

    async def _keep(self, process: asyncio.subprocess.Process) -> None:
        while True:
            status = await process.wait()
            self._processes.discard(process)
            log.error("a frontend ended with exit status %d; it is replaced", status)
            await asyncio.sleep(_PAUSE_S)
            try:
                process = await self._spawn()
            except ValueError as problem:
                log.error("%s", problem)

    async def stop(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*map(self._end, tuple(self._processes)))

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Close its standard input, which ends it; what does not end by that is killed."""
        self._processes.discard(process)
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _END_TIMEOUT_S)
        except TimeoutError:
            process.kill()
            await process.wait()
