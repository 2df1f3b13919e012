"""Request heads and bodies as bytes: what is read off them, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastkube.server.http1 import BadHttp, ChunkedBody, LengthBody, parse_head


def test_what_a_head_says() -> None:
    head = parse_head(b"POST /api/v1?a=b HTTP/1.1\r\nHost: x\r\nX-Group: a\r\nx-group:  b \r\nContent-Length: 12")
    assert (head.method, head.target, head.minor, head.keep_alive) == ("POST", "/api/v1?a=b", 1, True)
    headers = head.fields.headers
    assert headers.get("x-GROUP") == "a"
    assert headers.getall("X-Group") == ["a", "b"]
    assert headers.get("Nope", "none") == "none"
    assert (head.fields.length, head.fields.chunked) == (12, False)


@pytest.mark.parametrize(
    ("line", "header", "kept"),
    [
        (b"HTTP/1.1", b"Host: x", True),
        (b"HTTP/1.1", b"Connection: Close", False),
        (b"HTTP/1.1", b"Connection: upgrade, close", False),
        (b"HTTP/1.0", b"Host: x", False),
        (b"HTTP/1.0", b"Connection: keep-alive", True),
    ],
)
def test_which_connections_stay(line: bytes, header: bytes, kept: bool) -> None:
    assert parse_head(b"GET / " + line + b"\r\n" + header).keep_alive is kept


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/2.0",
        b"GET  / HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GET / HTTP/1.1\r\nno colon",
        b"GET / HTTP/1.1\r\nName : value",
        b"GET / HTTP/1.1\r\nA: b\r\n folded",
        b"GET / HTTP/1.1\r\nA: b\nC: d",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2",
        b"GET / HTTP/1.1\r\nContent-Length: +1",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 300 + b"A: b",
    ],
)
def test_what_is_ambiguous_or_malformed_is_refused(head: bytes) -> None:
    with pytest.raises(BadHttp):
        parse_head(head)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.integers(1, 9), st.binary(max_size=5))
def test_chunks_in_any_pieces(parts: list[bytes], step: int, rest: bytes) -> None:
    sent = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\nTrailer: t\r\n\r\n"
    body, left = ChunkedBody(), b""
    data = sent + rest
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        left += piece if body.complete else body.feed(piece)
    assert body.complete
    assert body.take() == b"".join(parts)
    assert left == rest


@pytest.mark.parametrize("sent", [b"x\r\n", b"-1\r\n", b"1\r\nab\r\n", b"\r\n", b"1" * 9000])
def test_broken_chunks(sent: bytes) -> None:
    with pytest.raises(BadHttp):
        ChunkedBody().feed(sent)


def test_a_body_of_known_length() -> None:
    body = LengthBody(4)
    assert body.feed(b"ab") == b""
    assert (body.complete, body.feed(b"cdGET"), body.complete, body.take()) == (False, b"GET", True, b"abcd")
