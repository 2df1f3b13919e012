"""How an answer gets onto the wire: head and body are one `bytes` and one write.

Streams (watches, long lists) write for themselves and end with a `Streamed`.
"""

from __future__ import annotations

import asyncio
import http
import zlib
from typing import TYPE_CHECKING

from fastkube.server.media import JSON

if TYPE_CHECKING:
    from fastkube.server.request import Request

GZIP_MIN_BYTES = 128 * 1024
"""Shorter answers are not compressed: it would cost more time than it saves."""

_GZIP_LEVEL = 1
_GZIP_INLINE_MAX_BYTES = 1024 * 1024
"""Longer answers are compressed in a thread."""
GZIP_WBITS = 31

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus}
_UNKNOWN_PHRASE = "Unknown"


def status_line(code: int) -> bytes:
    return STATUS_LINES.get(code) or f"HTTP/1.1 {code} {_UNKNOWN_PHRASE}\r\n".encode()


NO_CACHE = b"Cache-Control: no-cache, private\r\n"


_WARNINGS_MAX, _WARNING_MAX = 4096, 256
"""Characters of all warnings of an answer together, and of one where they are more."""


class Answer:
    """A whole response. `headers` are further header lines, each with its line end."""

    __slots__ = ("body", "cache", "code", "compressible", "headers", "media")

    def __init__(self, code: int, body: bytes, media: bytes = JSON, headers: bytes = b"") -> None:
        self.code = code
        self.body = body
        self.media = media
        self.headers = headers
        self.cache = NO_CACHE
        self.compressible = True

    def rendered(self, request: Request, date: bytes, keep_alive: bool) -> bytes:
        """The response to its request, as it is written."""
        body = self.body
        head = render_head(request, self.code, self.media, self.headers, date, keep_alive, self.cache)
        length = b"Content-Length: %d\r\n\r\n" % len(body)
        return head + length if request.method == "HEAD" else b"".join((head, length, body))


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

    __slots__ = ("code", "keep_alive")

    def __init__(self, code: int, keep_alive: bool) -> None:
        self.code = code
        self.keep_alive = keep_alive


def warning_lines(warnings: list[str]) -> bytes:
    """`Warning: 299 - "text"` for each distinct text; control characters would break the header and are left out."""
    texts = list(dict.fromkeys(warnings))
    if sum(map(len, texts)) > _WARNINGS_MAX:
        texts = _cut_short(texts)
    lines = []
    for text in texts:
        clean = "".join(character for character in text if character.isprintable())
        quoted = clean.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'Warning: 299 - "{quoted}"\r\n'.encode())
    return b"".join(lines)


def _cut_short(texts: list[str]) -> list[str]:
    """Where they are too long together: each cut, and as many as there is room for."""
    kept, length = [], 0
    for text in texts:
        if length >= _WARNINGS_MAX:
            break
        kept.append(text[:_WARNING_MAX])
        length += len(kept[-1])
    return kept


async def gzipped(body: bytes) -> bytes:
    """The body compressed; longer ones without holding up the loop."""
    if len(body) <= _GZIP_INLINE_MAX_BYTES:
        return _gzip(body)
    return await asyncio.to_thread(_gzip, body)


def _gzip(body: bytes) -> bytes:
    return zlib.compress(body, _GZIP_LEVEL, wbits=GZIP_WBITS)


def takes_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header names gzip, and not as what is not to be used."""
    for term in accept_encoding.split(","):
        name, _, quality = term.replace(" ", "").partition(";q=")
        if name == "gzip":
            return quality.strip("0.") != "" or not quality
    return False


def chunk(data: bytes) -> bytes:
    """One chunk of the chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
