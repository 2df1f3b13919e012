"""The scheduler's HTTP endpoint: metrics and health, for scrapers and probes on a trusted network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

HEAD_BYTES_MAX = 8192
READ_TIMEOUT_S = 10.0
_TEXT = "text/plain; charset=utf-8"
_METRICS = "text/plain; version=0.0.4; charset=utf-8"


class Endpoint:
    """Serves /metrics, /healthz, /livez and /readyz at `address` (HOST:PORT), a connection a request."""

    def __init__(self, address: str, metrics: Callable[[], str], is_ready: Callable[[], bool]) -> None:
        """Raises ValueError for an address that is none."""
        host, colon, port = address.rpartition(":")
        if not colon or not port.isdigit():
            raise ValueError(f"scheduler-metrics-address: {address!r} is not HOST:PORT")
        self._host, self._port = host.strip("[]"), int(port)
        self._metrics = metrics
        self._is_ready = is_ready
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port that is served, once started."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self._host, self._port, limit=HEAD_BYTES_MAX)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head.split(b"\r\n", 1)[0].decode("latin-1")))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that went away or spoke no HTTP: nothing is owed to it
        finally:
            writer.close()

    def _answer(self, request: str) -> bytes:
        method, _, rest = request.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method != "GET":
            return _response(405, _TEXT, "Method Not Allowed\n")
        if path == "/metrics":
            return _response(200, _METRICS, self._metrics())
        if path in ("/healthz", "/livez"):
            return _response(200, _TEXT, "ok")
        if path == "/readyz":
            return _response(200, _TEXT, "ok") if self._is_ready() else _response(500, _TEXT, "informers not synced\n")
        return _response(404, _TEXT, "404 page not found\n")


_PHRASES = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error"}


def _response(status: int, content_type: str, text: str) -> bytes:
    body = text.encode()
    head = f"HTTP/1.1 {status} {_PHRASES[status]}\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
