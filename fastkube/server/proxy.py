"""A reverse proxy: one request over a connection of its own to whoever stands behind a path (a kubelet, an aggregated
API server, a Pod), its answer passed on byte for byte as it comes, upgrades (WebSocket, SPDY) too.

The backend is told to close its connection after the answer, and so is the client: where an answer ends is then plain
on either side, whatever framing it has, and a stream costs no more than two buffers. An upgraded connection is a tunnel
until either side ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from fastkube.errors import ApiError
from fastkube.server.answer import Answer, Streamed, status_line
from fastkube.server.calls import read_body
from fastkube.server.media import TEXT

if TYPE_CHECKING:
    from fastkube.server.app import ApiServer
    from fastkube.server.request import Request

_CONNECT_TIMEOUT_S = 10.0
_HEAD_TIMEOUT_S = 60.0
_REDIRECTED = b"the backend attempted to redirect this request, which is not permitted"
_HEAD_MAX_BYTES = 256 * 1024
_READ_BYTES = 64 * 1024
_TUNNEL_BYTES_MAX = 1024 * 1024
"""What a backend may be behind with; a client that sends more has to wait."""

_HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
_NOT_PASSED_ON = _HOP_BY_HOP | {"host", "authorization", "content-length", "expect"}
"""Request headers that are the client's business with this server, or said anew."""


class Backend(NamedTuple):
    """Where to connect. `server_name` is whose certificate is expected, with TLS."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    server_name: str = ""

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


async def proxy(
    server: ApiServer,
    request: Request,
    backend: Backend,
    target: str,
    headers: Iterable[tuple[str, str]] = (),
    *,
    unreachable: Callable[[str], Exception],
    refused: Callable[[int, str], ApiError] | None = None,
    hidden: Callable[[str], bool] = lambda name: False,
    connect_timeout_s: float = _CONNECT_TIMEOUT_S,
    redirects: bool = True,
) -> Answer | Streamed:
    """Sends the request to `target` (path and query) of the backend and its answer to the client.

    `headers` are added to the client's own, which lose its credentials and those that `hidden` names (in lower case):
    what the backend believes because this server says it. `unreachable` makes the error for a backend
    that cannot be spoken to, from Go's words for what happened; `refused` the one for a backend that answers with an
    error of its own (status and text), which otherwise is passed on as it is. Without `redirects` those of the backend
    are answered by 502.
    """
    body = b"" if request.method in ("GET", "HEAD") else await read_body(request)
    upgrade = request.headers.get("Upgrade", "") if "upgrade" in request.headers.get("Connection", "").lower() else ""
    sent = [*((name, value) for name, value in request.headers.items() if not hidden(name.lower())), *headers]
    head = _request_head(request, backend, target, sent, len(body), upgrade)
    reader, writer = await _connect(backend, connect_timeout_s, unreachable)
    end = writer.transport.abort
    server.tunnels.add(end)
    request.connection.on_lost = end
    try:
        writer.write(head + body)
        try:
            async with asyncio.timeout(_HEAD_TIMEOUT_S):
                raw = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, TimeoutError) as error:
            raise unreachable("EOF" if isinstance(error, asyncio.IncompleteReadError) else str(error)) from None
        code, answer = _answer_head(request, raw)
        if refused is not None and code >= 400:
            raise refused(code, (await reader.read(_READ_BYTES)).decode(errors="replace").strip())
        if not redirects and 300 <= code < 400 and b"\r\nlocation:" in raw.lower():
            return Answer(502, _REDIRECTED, TEXT)
        request.streaming = True
        if request.connection.transport is None:
            return Streamed(499, False)
        request.connection.transport.write(answer)
        if code == 101:
            request.connection.upgrade(_Tunnel(request, writer).send)
        await _pass_on(request, reader)
        return Streamed(code, False)
    finally:
        server.tunnels.discard(end)
        request.connection.on_lost = None
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _request_head(
    request: Request, backend: Backend, target: str, headers: Iterable[tuple[str, str]], length: int, upgrade: str
) -> bytes:
    lines = [f"{request.method} {target} HTTP/1.1", f"Host: {backend.server_name or backend.address}"]
    lines += [f"{name}: {value}" for name, value in headers if name.lower() not in _NOT_PASSED_ON]
    if length or request.method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {length}")
    lines += [f"Upgrade: {upgrade}", "Connection: Upgrade"] if upgrade else ["Connection: close"]
    return "\r\n".join((*lines, "\r\n")).encode("utf-8", "surrogateescape")


async def _connect(
    backend: Backend, timeout_s: float, unreachable: Callable[[str], Exception]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.open_connection(
                backend.host,
                backend.port,
                ssl=backend.tls,
                server_hostname=(backend.server_name or backend.host) if backend.tls else None,
                limit=_HEAD_MAX_BYTES,
            )
    except TimeoutError:
        raise unreachable(f"dial tcp {backend.address}: i/o timeout") from None
    except ConnectionRefusedError:
        raise unreachable(f"dial tcp {backend.address}: connect: connection refused") from None
    except ssl.SSLCertVerificationError as error:
        raise unreachable(f"tls: failed to verify certificate: x509: {error.verify_message}") from None
    except (OSError, ssl.SSLError) as error:
        raise unreachable(f"dial tcp {backend.address}: {error.strerror or error}") from None


def _answer_head(request: Request, raw: bytes) -> tuple[int, bytes]:
    """The backend's code, and its head as the client gets it: as it came, but for what concerns one connection only."""
    first, *lines = raw[:-4].split(b"\r\n")
    words = first.split(b" ", 2)
    code = int(words[1]) if len(words) > 1 and words[1].isdigit() else 502
    head = [status_line(code), b"Audit-Id: ", request.audit_id.encode("latin-1"), b"\r\n"]
    for line in lines:
        name = line.partition(b":")[0].strip().lower()
        framing = name == b"transfer-encoding" or (code == 101 and name in (b"upgrade", b"connection"))
        if framing or (name.decode("latin-1") not in _HOP_BY_HOP and name != b"audit-id"):
            head += (line, b"\r\n")
    head.append(b"\r\n" if code == 101 else b"Connection: close\r\n\r\n")
    return code, b"".join(head)


async def _pass_on(request: Request, reader: asyncio.StreamReader) -> None:
    """The rest of the answer, until either side ends it."""
    with contextlib.suppress(OSError):
        while data := await reader.read(_READ_BYTES):
            transport = request.connection.transport
            if transport is None or transport.is_closing():
                return
            transport.write(data)
            await request.connection.drain()


class _Tunnel:
    """The way from the client to the backend after an upgrade; it holds the client up when the backend is slow."""

    def __init__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self._request = request
        self._writer = writer
        self._draining: asyncio.Task[None] | None = None

    def send(self, data: bytes) -> None:
        if self._writer.is_closing():
            return
        self._writer.write(data)
        if self._writer.transport.get_write_buffer_size() > _TUNNEL_BYTES_MAX and self._draining is None:
            self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        transport = self._request.connection.transport
        if transport is not None:
            transport.pause_reading()
        with contextlib.suppress(OSError):
            await self._writer.drain()
        if transport is not None and not transport.is_closing():
            transport.resume_reading()
        self._draining = None
