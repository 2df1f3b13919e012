"""Durable writes beside the event loop, without a thread of ours where the kernel lends its own.

A thread that syncs must get the interpreter's lock twice, once to begin and once to tell; beside a busy loop that takes
up to a switch interval (5 ms) each time. Linux does it by itself and tells by an eventfd, which the loop watches like a
socket: two system calls, and nobody waits for a lock. There are two ways, of which each file system gets the first that
it takes:

    direct    whole blocks go to the device past the page cache (O_DIRECT), and are durable (RWF_DSYNC) when it tells
    through   the loop copies the bytes to the page cache, and the kernel's threads sync the file (FDSYNC, since 4.18)

The direct one leaves out the kernel's thread that would have to wake, find the page and wait for it: measured, a third
of the time of a lone write (240 instead of 340 us). The block in which a record begins has the end of the one before,
which is written once more, as the page cache would do it.

Where there is no such kernel (another system, or a sandbox without the calls) a thread does it; and where this process
runs at a real-time priority, which the kernel's threads would not share.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
import mmap
import os
import platform
import struct
import threading
from typing import NamedTuple

from fastkube.store.disk import BLOCK_BYTES, Appender, RealFolder, write_all
from fastkube.store.work import Done

log = logging.getLogger(__name__)


class _Calls(NamedTuple):
    """Numbers of the system calls; the C library has no functions for them."""

    io_setup: int
    io_destroy: int
    io_getevents: int
    io_submit: int


_CALLS = {"x86_64": _Calls(206, 207, 208, 209), "aarch64": _Calls(0, 1, 4, 2)}
_PWRITE, _FDSYNC = 1, 3
_RESFD = 1
_BUFFER_BYTES = 256 << 10
_IOCB = struct.Struct(
    "<QIiHhIQQqQII"
)  # data, key, rw flags, operation, priority, file, buffer, length, offset, -, flags
_EVENT = struct.Struct("<QQqq")  # data, iocb, result, result 2


def appender(folder: RealFolder) -> Appender:
    """The kernel's own, or else a thread."""
    try:
        return KernelAppender(folder)
    except OSError as error:
        log.info("syncs are done by a thread: %s", error)
        return ThreadAppender(folder)


class ThreadAppender:
    """O_DSYNC writes in a thread. The loop waits until the thread has begun, which then had the interpreter's lock."""

    def __init__(self, folder: RealFolder) -> None:
        self._folder = folder
        self._loop = asyncio.get_running_loop()
        self._next: tuple[str, int, bytes, Done] | None = None
        self._go, self._begun = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._begun.acquire()
        self._thread = threading.Thread(target=self._run, name="store-log", daemon=True)
        self._thread.start()

    def write(self, name: str, offset: int, data: bytes, done: Done) -> None:
        self._next = name, offset, data, done
        self._go.release()
        self._begun.acquire()

    def _run(self) -> None:
        while True:
            self._go.acquire()
            if self._next is None:
                return
            name, offset, data, done = self._next
            error: Exception | None = None
            self._begun.release()
            try:
                self._folder.write(name, offset, data)
            except OSError as failure:
                error = failure
            self._loop.call_soon_threadsafe(done, error)

    def close(self) -> None:
        self._next = None
        self._go.release()
        self._thread.join()


class KernelAppender:
    """Raises OSError when made where the kernel does not offer it."""

    def __init__(self, folder: RealFolder) -> None:
        calls = _CALLS.get(platform.machine())
        if platform.system() != "Linux" or calls is None:
            raise OSError(errno.ENOSYS, "no asynchronous syncs on this system")
        if os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
            raise OSError(errno.EPERM, "this process has a real-time priority")
        self._calls = calls
        self._folder = folder
        self._loop = asyncio.get_running_loop()
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        self._context = ctypes.c_ulong(0)
        self._call(calls.io_setup, 1, ctypes.byref(self._context))
        self._told = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._block = ctypes.create_string_buffer(_IOCB.size)
        self._blocks = (ctypes.c_void_p * 1)(ctypes.addressof(self._block))
        self._event = ctypes.create_string_buffer(_EVENT.size)
        self._name = ""
        self._file = -1
        self._is_direct = False
        self._make_buffer(_BUFFER_BYTES)
        self._last_block: tuple[int, bytes] | None = None
        """Where the last direct write ended, and what its last block has before that."""
        self._asked_bytes = 0
        self._done: Done | None = None
        try:
            self._try()
        except BaseException:
            self._release()
            raise
        self._loop.add_reader(self._told, self._on_told)

    def _try(self) -> None:
        """One sync of nothing: some kernels know the call and not this operation."""
        self._file = os.open(self._folder.path, os.O_RDONLY | os.O_CLOEXEC)
        self._submit(_FDSYNC)
        self._call(self._calls.io_getevents, self._context, 1, 1, self._event, None)
        self._result()
        os.read(self._told, 8)
        self._close_file()

    def write(self, name: str, offset: int, data: bytes, done: Done) -> None:
        try:
            self._open(name)
            if self._is_direct:
                self._write_blocks(offset, data)
            else:
                write_all(self._file, offset, data)
                self._submit(_FDSYNC)
        except OSError as error:
            self._last_block = None
            self._loop.call_soon(done, error)
        else:
            self._done = done

    def _open(self, name: str) -> None:
        if name == self._name:
            return
        self._close_file()
        path = self._folder.path / name
        self._is_direct, self._last_block = True, None
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_DIRECT)
            self._read_block(0)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._close_file()
            self._file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            self._is_direct = False
        self._name = name

    def _write_blocks(self, offset: int, data: bytes) -> None:
        """The blocks that the data touch; behind them, up to the end of the last block, is nothing (segments.py)."""
        start = offset & -BLOCK_BYTES
        before = self._before(start, offset)
        used = len(before) + len(data)
        size = -(-used // BLOCK_BYTES) * BLOCK_BYTES
        if size > len(self._buffer):
            self._make_buffer(size)
        buffer = self._buffer
        buffer[: len(before)] = before
        buffer[len(before) : used] = data
        buffer[used:size] = bytes(size - used)
        self._submit(_PWRITE, start, size)
        kept = used & -BLOCK_BYTES
        self._last_block = start + used, buffer[kept:used]

    def _before(self, start: int, offset: int) -> bytes:
        """What stands in the block of `offset` before it."""
        if self._last_block is not None and self._last_block[0] == offset:
            return self._last_block[1]
        return self._read_block(start)[: offset - start] if offset != start else b""

    def _read_block(self, start: int) -> bytes:
        os.preadv(self._file, [memoryview(self._buffer)[:BLOCK_BYTES]], start)
        return self._buffer[:BLOCK_BYTES]

    def _make_buffer(self, size: int) -> None:
        """Memory that begins with a page, as devices want it."""
        self._buffer = mmap.mmap(-1, size)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._buffer))

    def _submit(self, operation: int, offset: int = 0, size: int = 0) -> None:
        address, flags = (self._address, os.RWF_DSYNC) if size else (0, 0)
        _IOCB.pack_into(
            self._block, 0, 0, 0, flags, operation, 0, self._file, address, size, offset, 0, _RESFD, self._told
        )
        self._asked_bytes = size
        self._call(self._calls.io_submit, self._context, 1, self._blocks)

    def _on_told(self) -> None:
        os.read(self._told, 8)
        done, self._done = self._done, None
        assert done is not None
        try:
            self._call(self._calls.io_getevents, self._context, 1, 1, self._event, None)
            self._result()
        except OSError as error:
            self._last_block = None
            done(error)
        else:
            done(None)

    def _result(self) -> None:
        result = _EVENT.unpack(self._event)[2]
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        if result != self._asked_bytes:
            raise OSError(errno.EIO, f"{result} of {self._asked_bytes} bytes were written")

    def _call(self, *arguments: object) -> None:
        if self._syscall(*arguments) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def close(self) -> None:
        self._loop.remove_reader(self._told)
        self._release()

    def _release(self) -> None:
        self._call(self._calls.io_destroy, self._context)
        os.close(self._told)
        self._close_file()

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file, self._name = -1, ""
