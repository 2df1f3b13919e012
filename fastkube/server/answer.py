"""How an answer gets onto the wire: head and body are one `bytes` and one write.

aiohttp's connection asks three things of a response: `prepare`, `write_eof` and `keep_alive`. An `Answer` gives just
these, because building a `web.Response` (header multidict, cookies, compression checks) costs more than the rest of a
small request. Streams (watches, long lists) write for themselves and end with a `Streamed`.
"""

from __future__ import annotations

import asyncio
import http
import zlib
from typing import TYPE_CHECKING

from fastkube.server.media import JSON

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest

    from fastkube.server.request import Request

GZIP_MIN_BYTES = 128 * 1024
"""Shorter answers are not compressed: it would cost more time than it saves."""

_GZIP_LEVEL = 1
_GZIP_INLINE_MAX_BYTES = 1024 * 1024
"""Longer answers are compressed in a thread."""
GZIP_WBITS = 31

SEND_TIMEOUT_S = 60.0
"""A client that takes nothing of what waits for it is cut off after this time."""

_DRAIN_BYTES = 256 * 1024
"""After an answer of this size the next request of the connection waits until the client has taken most of it."""

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus}
_UNKNOWN_PHRASE = "Unknown"


def status_line(code: int) -> bytes:
    return STATUS_LINES.get(code) or f"HTTP/1.1 {code} {_UNKNOWN_PHRASE}\r\n".encode()


NO_CACHE = b"Cache-Control: no-cache, private\r\n"


class Answer:
    """A whole response. `headers` are further header lines, each with its line end."""

    __slots__ = ("body", "cache", "code", "compressible", "data", "headers", "http", "keep_alive", "media", "prepared")

    http: BaseRequest

    def __init__(self, code: int, body: bytes, media: bytes = JSON, headers: bytes = b"") -> None:
        self.code = code
        self.body = body
        self.media = media
        self.headers = headers
        self.keep_alive = True
        self.cache = NO_CACHE
        self.compressible = True
        self.data = b""
        self.prepared = False

    def seal(self, request: Request, date: bytes) -> None:
        """Renders the response for its request."""
        body = self.body
        length = b"Content-Length: %d\r\n\r\n" % len(body)
        head = render_head(request, self.code, self.media, self.headers, date, self.keep_alive, self.cache)
        self.data = head + length if request.method == "HEAD" else b"".join((head, length, body))

    async def prepare(self, http: BaseRequest) -> None:
        transport = http.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self.http = http
        self.prepared = True
        transport.write(self.data)

    async def write_eof(self) -> None:
        if len(self.data) > _DRAIN_BYTES:
            await drain(self.http)


async def drain(http: BaseRequest) -> None:
    """Wait until the client has taken most of what was written; cuts off one that takes nothing."""
    try:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await http.writer.drain()
    except TimeoutError:
        if http.transport is not None:
            http.transport.abort()
        raise ConnectionResetError("the client takes nothing") from None


def render_head(
    request: Request, code: int, media: bytes, headers: bytes, date: bytes, keep_alive: bool, cache: bytes = NO_CACHE
) -> bytes:
    """The head of a response but for what says how long it is, and the empty line."""
    head = [status_line(code), b"Audit-Id: ", request.audit_id.encode("latin-1"), b"\r\n", cache]
    if media:
        head += (b"Content-Type: ", media, b"\r\n")
    if headers:
        head.append(headers)
    if request.flow:
        head.append(request.flow)
    if request.warnings:
        head.append(warning_lines(request.warnings))
    if not keep_alive:
        head.append(b"Connection: close\r\n")
    head += (b"Date: ", date, b"\r\n")
    return b"".join(head)


class Streamed:
    """Stands for a response that was written already."""

    __slots__ = ("code", "keep_alive", "prepared")

    def __init__(self, code: int, keep_alive: bool) -> None:
        self.code = code
        self.keep_alive = keep_alive
        self.prepared = True

    async def prepare(self, http: BaseRequest) -> None:
        """There is nothing left to write."""

    async def write_eof(self) -> None:
        """There is nothing left to write."""


def warning_lines(warnings: list[str]) -> bytes:
    """`Warning: 299 - "text"` for each distinct text; control characters would break the header and are left out."""
    lines = []
    for text in dict.fromkeys(warnings):
        clean = "".join(character for character in text if character.isprintable())
        quoted = clean.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'Warning: 299 - "{quoted}"\r\n'.encode())
    return b"".join(lines)


async def gzipped(body: bytes) -> bytes:
    """The body compressed; longer ones without holding up the loop."""
    if len(body) <= _GZIP_INLINE_MAX_BYTES:
        return _gzip(body)
    return await asyncio.to_thread(_gzip, body)


def _gzip(body: bytes) -> bytes:
    return zlib.compress(body, _GZIP_LEVEL, wbits=GZIP_WBITS)


def takes_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header names gzip."""
    return any(term.split(";")[0].strip() == "gzip" for term in accept_encoding.split(","))


def chunk(data: bytes) -> bytes:
    """One chunk of the chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
