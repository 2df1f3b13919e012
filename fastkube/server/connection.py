"""One client connection: aiohttp's protocol with this server's limits, and what is known about the peer.

A connection is closed when it sends no whole request head within `HEADER_TIMEOUT_S`, when it stays idle longer than
`IDLE_TIMEOUT_S` between requests, or when its TLS handshake takes longer than `HANDSHAKE_TIMEOUT_S`.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMethod

from fastkube import errors
from fastkube.server.answer import Answer
from fastkube.server.media import TEXT
from fastkube.server.request import Request
from fastkube.server.status import status_answer

if TYPE_CHECKING:
    from fastkube.registry.strategy import UserInfo
    from fastkube.server.streams import Watcher

HEADER_TIMEOUT_S = 32.0
IDLE_TIMEOUT_S = 90.0
HANDSHAKE_TIMEOUT_S = 10.0

_LINE_MAX_BYTES = 256 * 1024
"""Longest request line and longest header: long label selectors and tokens must fit."""
_HEADERS_MAX = 256

_is_request_line = re.compile(r"'[!#$%&*+.^_`|~0-9A-Za-z-]+ \S+ HTTP/1\.[01]'").search
"""aiohttp knows only registered methods; the line which it quotes tells other ones from what is no HTTP at all."""

Handle = Callable[[web.BaseRequest], Awaitable[Any]]


class _ProtocolLog(logging.LoggerAdapter[logging.Logger]):
    """What aiohttp logs about broken HTTP is the client's fault, and no reason to fill the log."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        super().log(logging.DEBUG, msg, *args, **kwargs)


_LOG = _ProtocolLog(logging.getLogger(__name__), {})


class Connection(web.RequestHandler):
    """`certificate_user` is who the peer's client certificate says it is, once a request has asked."""

    __slots__ = ("busy", "certificate_user", "opened", "served", "watcher")

    def __init__(self, manager: HttpServer, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            manager,
            loop=loop,
            keepalive_timeout=IDLE_TIMEOUT_S,
            access_log=None,  # type: ignore[arg-type]  # None turns it off
            logger=_LOG,  # type: ignore[arg-type]  # an adapter is as good
            max_line_size=_LINE_MAX_BYTES,
            max_field_size=_LINE_MAX_BYTES,
            max_headers=_HEADERS_MAX,
            lingering_time=1.0,
            auto_decompress=False,
        )
        self.certificate_user: UserInfo | bool | None = False
        self.busy = False
        """Whether a request is under way."""
        self.opened = loop.time()
        self.served = False
        """Whether a whole request head has arrived yet."""
        self.watcher: Watcher | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        manager: Any = self._manager
        if len(manager.open) >= manager.connections_max:
            self.force_close()
        else:
            manager.open.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        manager: Any = self._manager
        if manager is not None:
            manager.open.discard(self)
        if self.watcher is not None:
            self.watcher.disconnected()
        super().connection_lost(exc)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> Any:
        """Answers what is not HTTP; always the last answer of its connection."""
        del status, message
        if isinstance(exc, BadHttpMethod) and _is_request_line(exc.message):
            answer = status_answer(errors.method_not_allowed())
        else:
            answer = Answer(400, b"400 Bad Request", TEXT)
        answer.keep_alive = False
        answer.seal(Request(request, self, 0.0), b"")
        return answer


class HttpServer(web.Server):
    """Makes connections and knows the open ones."""

    def __init__(self, handle: Handle, connections_max: int) -> None:
        super().__init__(handle)
        self.connections_max = connections_max
        self.open: set[Connection] = set()
        self.working = 0
        """Requests under way, watches included."""
        self._finished: asyncio.Future[None] | None = None

    def __call__(self) -> web.RequestHandler:
        return Connection(self, asyncio.get_running_loop())

    def close_silent(self, now: float) -> None:
        """Closes connections which have not managed to send one request head; called every few seconds."""
        silent = [one for one in self.open if not one.served and now - one.opened > HEADER_TIMEOUT_S]
        for connection in silent:
            connection.force_close()

    def close_idle(self) -> None:
        """Closes the connections which wait for a request."""
        for connection in [one for one in self.open if not one.busy]:
            connection.force_close()

    def begin(self, connection: Connection) -> None:
        """A request has arrived."""
        connection.served = connection.busy = True
        self.working += 1

    def end(self, connection: Connection) -> None:
        """Its answer is ready."""
        connection.busy = False
        self.working -= 1
        if not self.working and self._finished is not None and not self._finished.done():
            self._finished.set_result(None)

    async def finish(self, grace_s: float) -> None:
        """Wait until no request is under way, but not longer than `grace_s`."""
        if self.working:
            self._finished = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._finished,), timeout=grace_s)
