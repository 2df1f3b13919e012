"""Durable writes beside the event loop, without a thread of ours where the kernel lends its own.

A thread that syncs must get the interpreter's lock twice, once to begin and once to tell; beside a busy loop that takes
up to a switch interval (5 ms) each time. Linux syncs a file on its own threads and tells by an eventfd, which the loop
watches like a socket (IOCB_CMD_FDSYNC of the kernel's asynchronous I/O, since 4.18): two system calls of a microsecond,
and nobody waits for a lock. The bytes themselves are written by the loop, which is a copy to the page cache.

Where there is no such kernel (another system, or a sandbox without the calls) a thread does it; and where this process
runs at a real-time priority, which the kernel's threads would not share.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
import os
import platform
import struct
import threading
from typing import NamedTuple

from fastkube.store.disk import Appender, RealFolder, write_all
from fastkube.store.work import Done

log = logging.getLogger(__name__)


class _Calls(NamedTuple):
    """Numbers of the system calls; the C library has no functions for them."""

    io_setup: int
    io_destroy: int
    io_getevents: int
    io_submit: int


_CALLS = {"x86_64": _Calls(206, 207, 208, 209), "aarch64": _Calls(0, 1, 4, 2)}
_FDSYNC = 3
_RESFD = 1
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
        self._done: Done | None = None
        try:
            self._try()
        except BaseException:
            self._release()
            raise
        self._loop.add_reader(self._told, self._on_told)

    def _try(self) -> None:
        """One sync of nothing: some kernels know the call and not this operation."""
        probe = os.open(self._folder.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._submit(probe)
            self._call(self._calls.io_getevents, self._context, 1, 1, self._event, None)
            self._result()
            os.read(self._told, 8)
        finally:
            os.close(probe)

    def write(self, name: str, offset: int, data: bytes, done: Done) -> None:
        try:
            write_all(self._open(name), offset, data)
            self._submit(self._file)
        except OSError as error:
            self._loop.call_soon(done, error)
        else:
            self._done = done

    def _open(self, name: str) -> int:
        if name != self._name:
            self._close_file()
            self._file = os.open(self._folder.path / name, os.O_WRONLY | os.O_CLOEXEC)
            self._name = name
        return self._file

    def _submit(self, file: int) -> None:
        _IOCB.pack_into(self._block, 0, 0, 0, 0, _FDSYNC, 0, file, 0, 0, 0, 0, _RESFD, self._told)
        self._call(self._calls.io_submit, self._context, 1, self._blocks)

    def _on_told(self) -> None:
        os.read(self._told, 8)
        done, self._done = self._done, None
        assert done is not None
        try:
            self._call(self._calls.io_getevents, self._context, 1, 1, self._event, None)
            self._result()
        except OSError as error:
            done(error)
        else:
            done(None)

    def _result(self) -> None:
        result = _EVENT.unpack(self._event)[2]
        if result < 0:
            raise OSError(-result, os.strerror(-result))

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
