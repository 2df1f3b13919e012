"""A process that begins with what this one has imported: a start is imports, and so they are made once for both.

    worker = Forked("components", work)        before any event loop and any thread
    worker.write(order); line = await worker.readline()      its standard input and output

`work` reads its standard input and ends with it, which is when this process ends at the latest.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


class Forked:
    """`work` runs in a process of its own, in a session of its own, so that Ctrl-C reaches this one alone."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        """`name` is what ps calls it; what `work` raises is told on standard error."""
        theirs_in, self._inbox = os.pipe()
        self._outbox, theirs_out = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        gc.freeze()  # what both share stays as it is in memory
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._inbox)
            os.close(self._outbox)
            _become(name, theirs_in, theirs_out, work)
        os.close(theirs_in)
        os.close(theirs_out)
        self.returncode: int | None = None
        self._reader: asyncio.StreamReader | None = None
        self._ended: asyncio.Event | None = None

    def write(self, line: bytes) -> None:
        """The whole of it at once: a pipe takes 64 KiB without anybody reading."""
        with contextlib.suppress(BrokenPipeError):  # it has ended, which the caller learns from `readline`
            while line:
                line = line[os.write(self._inbox, line) :]

    async def readline(self) -> bytes:
        """Empty when it has ended."""
        if self._reader is None:
            self._reader = reader = asyncio.StreamReader()
            pipe = os.fdopen(self._outbox, "rb", buffering=0)
            loop = asyncio.get_running_loop()
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        return await self._reader.readline()

    async def wait(self) -> int:
        """Its exit status, when it has ended."""
        if self._ended is None:
            self._ended = asyncio.Event()
            handle = os.pidfd_open(self.pid)
            asyncio.get_running_loop().add_reader(handle, self._reap, handle)
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def _reap(self, handle: int) -> None:
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._close()
        assert self._ended is not None
        self._ended.set()

    async def end(self, grace_s: float) -> None:
        """Close its standard input, which ends it; what does not end by that is killed."""
        self._close()
        try:
            await asyncio.wait_for(self.wait(), grace_s)
        except TimeoutError:
            os.kill(self.pid, signal.SIGKILL)
            await self.wait()

    def _close(self) -> None:
        if self._inbox >= 0:
            os.close(self._inbox)
            self._inbox = -1


def _become(name: str, given: int, told: int, work: Callable[[], None]) -> NoReturn:
    status = 1
    try:
        os.setsid()
        os.dup2(given, 0)
        os.dup2(told, 1)
        for number in (given, told):
            os.close(number)
        Path("/proc/self/comm").write_text(name)
        work()
        status = 0
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(status)
