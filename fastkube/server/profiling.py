"""/debug/pprof: where the server spends its time and what its threads do, by py-spy from outside of the process.

    /debug/pprof/                            what there is
    /debug/pprof/profile?seconds=30          samples of all threads: speedscope's JSON, or &format=flamegraph (SVG), raw
    /debug/pprof/goroutine?debug=2           the stack of each thread, now
    /debug/pprof/cmdline                     the command line

Go's paths and parameters, not its format: a Python process has none of Go's profiles. Sampling costs the server nothing
but the time that a sample stops it; it is off with --profiling=false, and needs the package py-spy (extra `profile`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fastkube import errors
from fastkube.errors import ApiError
from fastkube.server.answer import Answer
from fastkube.server.calls import no_such_path
from fastkube.server.media import JSON, TEXT

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from fastkube.server.request import Request

_ROOT = "/debug/pprof"
_SECONDS_DEFAULT, _SECONDS_MAX = 30, 600
_FORMATS = {"speedscope": JSON, "flamegraph": b"image/svg+xml", "raw": TEXT}
_GRACE_S = 15.0
_PR_SET_PTRACER, _ANY = 0x59616D61, ctypes.c_ulong(-1)

_INDEX = (
    "<html><head><title>/debug/pprof/</title></head><body><ul>"
    '<li><a href="profile?seconds=10&format=flamegraph">profile</a>'
    '<li><a href="goroutine?debug=2">goroutine</a><li><a href="cmdline">cmdline</a></ul></body></html>\n'
)


def profiles(request: Request) -> Answer | Awaitable[Answer]:
    """Raises 400 for wrong parameters, 405, 501 where py-spy is missing."""
    path = request.info.path
    if request.method not in ("GET", "HEAD"):
        raise errors.method_not_allowed()
    if path == _ROOT:
        return Answer(301, b"", b"", b"Location: /debug/pprof/\r\n")
    name = path.removeprefix(_ROOT + "/")
    if not name:
        return Answer(200, _INDEX.encode(), b"text/html; charset=utf-8")
    if name == "cmdline":
        return Answer(200, "\0".join(sys.orig_argv).encode(), TEXT)
    if name == "goroutine":
        return _stacks()
    if name == "profile":
        return _profile(request)
    return no_such_path()


async def _stacks() -> Answer:
    return Answer(200, await _py_spy("dump", timeout_s=_GRACE_S), TEXT)


async def _profile(request: Request) -> Answer:
    seconds, form = _parameters(request.query)
    with tempfile.TemporaryDirectory(prefix="fastkube-profile-") as folder:
        file = Path(folder) / "profile"
        words = ("record", "--format", form, "--duration", str(seconds), "--threads", "--output", str(file))
        request.deadline += seconds + _GRACE_S  # it takes as long as was asked for
        await _py_spy(*words, timeout_s=seconds + _GRACE_S)
        body = await asyncio.to_thread(file.read_bytes)
    return Answer(200, body, _FORMATS[form])


def _parameters(query: dict[str, str]) -> tuple[int, str]:
    text, form = query.get("seconds") or str(_SECONDS_DEFAULT), query.get("format") or "speedscope"
    if not text.isdigit() or not 0 < int(text) <= _SECONDS_MAX:
        raise errors.bad_request(f"seconds: a number from 1 to {_SECONDS_MAX} is expected")
    if form not in _FORMATS:
        raise errors.bad_request(f"format: one of {', '.join(_FORMATS)} is expected")
    return int(text), form


async def _py_spy(*words: str, timeout_s: float) -> bytes:
    """What py-spy prints about this process; raises 501 where there is none and 500 when it may not look."""
    program = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if program is None:
        raise ApiError(501, "NotImplemented", "profiles need py-spy: pip install 'fastkube[profile]'")
    _let_in()
    process = await asyncio.create_subprocess_exec(
        program, *words, "--pid", str(os.getpid()),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(timeout_s):
            told, problem = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise
    if process.returncode:
        lines = problem.decode(errors="replace").strip().splitlines()
        raise errors.internal(f"py-spy failed: {lines[-1] if lines else process.returncode}")
    return told


def _let_in() -> None:
    """Linux may let only parents look into a process (yama): any other one of the same user may from now on."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANY, 0, 0, 0)
