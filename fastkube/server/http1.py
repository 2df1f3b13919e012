"""HTTP/1.1 as bytes: the head of a request, and bodies of known and of unknown length (RFC 9112).

Clients send the same header lines with every request, so what was read off a block of them is kept by its bytes: the
common request costs one look-up. What is ambiguous is refused: two lengths, a length beside chunks, folded lines,
spaces before the colon.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

HEAD_MAX_BYTES = 256 * 1024
"""Of request line and header lines together: long label selectors and tokens must fit."""

_HEADERS_MAX = 256
_KNOWN_MAX = 2048
_KNOWN_MAX_BYTES = 4096
_CHUNK_LINE_MAX_BYTES = 4096
_CHUNKED = -1

_is_request_line = re.compile(rb"([!#$%&*+.^_`|~0-9A-Za-z'-]+) ([^\x00-\x20\x7f]+) HTTP/1\.([01])").fullmatch
_is_name = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_is_length = re.compile(rb"[0-9]{1,18}").fullmatch
_is_size = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?").fullmatch


class BadHttp(Exception):
    """What was sent is no HTTP; the connection cannot go on."""


class Headers:
    """Header fields by name, whatever its case; a name may have several values."""

    __slots__ = ("_fields", "_first")

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self._fields = fields
        self._first: dict[str, str] = {}
        for name, value in fields:
            self._first.setdefault(name.lower(), value)
            self._first.setdefault(name, value)

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of the field."""
        found = self._first.get(name)
        return found if found is not None else self._first.get(name.lower(), default)

    def getall(self, name: str, default: list[str] | tuple[str, ...] = ()) -> list[str] | tuple[str, ...]:
        """All values of the field, in their order."""
        wanted = name.lower()
        return [value for key, value in self._fields if key.lower() == wanted] or default

    def items(self) -> Iterator[tuple[str, str]]:
        return iter(self._fields)

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None


class Fields(NamedTuple):
    """Header lines, and what they say about the message. `length` is that of the body; `chunked` leaves it open."""

    headers: Headers
    length: int
    chunked: bool
    close: bool
    keep: bool
    expects: bool


class Head(NamedTuple):
    """The head of a request. `minor` is the version's: 1 of HTTP/1.1."""

    method: str
    target: str
    minor: int
    fields: Fields

    @property
    def keep_alive(self) -> bool:
        """Whether the client wants the connection to stay."""
        return not self.fields.close and (self.minor == 1 or self.fields.keep)


_known: dict[bytes, Fields] = {}


def parse_head(head: bytes) -> Head:
    """Reads a head, without the empty line that ends it. Raises BadHttp."""
    line, _, block = head.partition(b"\r\n")
    found = _is_request_line(line)
    if found is None:
        raise BadHttp("malformed request line")
    method, target, minor = found.groups()
    fields = _known.get(block)
    if fields is None:
        fields = _read_fields(block)
        if len(block) <= _KNOWN_MAX_BYTES:
            if len(_known) >= _KNOWN_MAX:
                _known.clear()
            _known[block] = fields
    return Head(method.decode("ascii"), target.decode("utf-8", "surrogateescape"), minor[0] - 48, fields)


def _read_fields(block: bytes) -> Fields:
    found: list[tuple[str, str]] = []
    if block:
        lines = block.split(b"\r\n")
        if len(lines) > _HEADERS_MAX:
            raise BadHttp("too many headers")
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not _is_name(name):
                raise BadHttp("malformed header")
            value = value.strip(b" \t")
            if b"\n" in value or b"\r" in value or b"\0" in value:
                raise BadHttp("malformed header value")
            found.append((name.decode("ascii"), value.decode("utf-8", "surrogateescape")))
    headers = Headers(found)
    connection = ",".join(headers.getall("Connection")).lower()
    terms = [term.strip() for term in connection.split(",")] if connection else []
    length = _length(headers)
    expects = (headers.get("Expect") or "").lower() == "100-continue"
    return Fields(headers, max(length, 0), length == _CHUNKED, "close" in terms, "keep-alive" in terms, expects)


def _length(headers: Headers) -> int:
    codings, lengths = headers.getall("Transfer-Encoding"), set(headers.getall("Content-Length"))
    if codings:
        if lengths or [coding.lower() for coding in codings] != ["chunked"]:
            raise BadHttp("malformed transfer coding")
        return _CHUNKED
    if not lengths:
        return 0
    text = lengths.pop()
    if lengths or not _is_length(text.encode("utf-8", "surrogateescape")):
        raise BadHttp("malformed length")
    return int(text)


class LengthBody:
    """Takes a body of known length."""

    __slots__ = ("_missing", "_pieces", "size")

    def __init__(self, length: int) -> None:
        self._missing = length
        self._pieces: list[bytes] = []
        self.size = length
        """Known bytes of the body: all of them, whether they have come or not."""

    @property
    def complete(self) -> bool:
        return not self._missing

    def feed(self, data: bytes) -> bytes:
        """Takes what belongs to the body; returns the rest."""
        piece = data[: self._missing]
        self._pieces.append(piece)
        self._missing -= len(piece)
        return data[len(piece) :]

    def take(self) -> bytes:
        """What has come so far."""
        body = b"".join(self._pieces)
        self._pieces = [body]
        return body

    def drop(self) -> None:
        """Nobody wants it any more: what comes is counted, not kept."""
        self._pieces = []


class ChunkedBody:
    """Takes a body in chunks; trailer fields are read and ignored."""

    __slots__ = ("_data", "_kept", "_left", "_pieces", "_state", "size")

    _SIZE, _DATA, _END, _TRAILER, _DONE = range(5)

    def __init__(self) -> None:
        self._state = self._SIZE
        self._data = b""
        self._left = 0
        self._kept = True
        self._pieces: list[bytes] = []
        self.size = 0
        """Bytes of the body that have come."""

    @property
    def complete(self) -> bool:
        return self._state == self._DONE

    def feed(self, data: bytes) -> bytes:
        """Takes what belongs to the body; returns the rest. Raises BadHttp."""
        self._data += data
        while self._state != self._DONE and self._step():
            pass
        if self._state != self._DONE:
            return b""
        rest, self._data = self._data, b""
        return rest

    def _step(self) -> bool:
        """One step of reading; False when more data is needed."""
        if self._state == self._DATA:
            piece = self._data[: self._left]
            self._data = self._data[len(piece) :]
            self._left -= len(piece)
            self.size += len(piece)
            if self._kept and piece:
                self._pieces.append(piece)
            if self._left:
                return False
            self._state = self._END
            return True
        line, end, rest = self._data.partition(b"\r\n")
        if not end:
            if len(line) > _CHUNK_LINE_MAX_BYTES:
                raise BadHttp("malformed chunk")
            return False
        self._data = rest
        self._read_line(line)
        return True

    def _read_line(self, line: bytes) -> None:
        if self._state == self._SIZE:
            found = _is_size(line)
            if found is None:
                raise BadHttp("malformed chunk")
            self._left = int(found[1], 16)
            self._state = self._DATA if self._left else self._TRAILER
        elif self._state == self._END:
            if line:
                raise BadHttp("malformed chunk")
            self._state = self._SIZE
        elif not line:
            self._state = self._DONE

    def take(self) -> bytes:
        """What has come so far."""
        body = b"".join(self._pieces)
        self._pieces = [body]
        return body

    def drop(self) -> None:
        """Nobody wants it any more: what comes is counted, not kept."""
        self._pieces = []
        self._kept = False
