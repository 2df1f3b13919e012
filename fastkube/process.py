"""What every process of fastkube is: an event loop until a signal, a collector that runs rarely, errors in one line."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NoReturn

from fastkube import COLLECTOR_THRESHOLDS

_VERBOSE = 4


def die(message: str) -> NoReturn:
    """Ends the process with one line that its user can act on."""
    print(f"fastkube: {message}", file=sys.stderr, flush=True)
    sys.exit(1)


def log_level(verbosity: int) -> None:
    """What `-v` asks for: warnings with 0, what happens from 1 on, everything from 4 on."""
    if not verbosity:
        return
    level = logging.INFO if verbosity < _VERBOSE else logging.DEBUG
    logging.basicConfig(level=level, format="%(levelname).1s %(asctime)s %(name)s: %(message)s")


def settled() -> None:
    """What the start has made lives as long as the process: the collector looks at what comes from now on."""
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)


def serve(start: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run until SIGTERM or SIGINT; errors as `mendable` has them."""
    import uvloop

    async def whole() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await start(stop)

    with mendable():
        uvloop.run(whole())


@contextlib.contextmanager
def mendable() -> Iterator[None]:
    """Errors that a user can mend are one line and the end of the process, others keep their traceback."""
    from fastkube.cluster import StartError

    try:
        yield
    except StartError as error:
        die(str(error))


async def until_stopped(stop: asyncio.Event, *works: asyncio.Future[Any]) -> None:
    """Returns when `stop` is set or one of `works` has ended, and raises what that failed with; the rest goes on."""
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait((stopping, *works), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    for work in works:
        if work.done():
            await work
