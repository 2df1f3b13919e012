"""The cores under the endpoint, against other implementations: HPACK's encoder, and protobuf's wire format by hand."""

from __future__ import annotations

import struct
from typing import Any

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastkube._hpack import HeaderReader, MalformedBlock
from fastkube._http2 import PREFACE, Connection, Fault, Stream
from fastkube._messages import Shape
from fastkube.store import Item

_FIELDS = st.lists(
    st.tuples(st.sampled_from([b":path", b"te", b"grpc-timeout", b"x-any"]), st.binary(max_size=80)), max_size=8
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(_FIELDS, st.booleans(), st.sampled_from([0, 64, 4096])), max_size=12))
def test_header_blocks_are_read_as_they_were_written(blocks: list[tuple[list[tuple[bytes, bytes]], bool, int]]) -> None:
    writer, reader = hpack.Encoder(), HeaderReader()
    for fields, coded, table in blocks:
        writer.header_table_size = table
        assert reader.read(writer.encode(fields, huffman=coded)) == fields


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=64))
def test_any_bytes_are_a_header_block_or_malformed(block: bytes) -> None:
    reader = HeaderReader()
    try:
        fields = reader.read(block)
    except MalformedBlock:
        return
    assert all(type(name) is bytes and type(value) is bytes for name, value in fields)


_PLAIN = Shape(Item, [(1, "bytes"), (5, "bytes"), (2, "int"), (3, "int"), (4, "int"), (6, "int")])
_NESTED = Shape(tuple, [(1, [_PLAIN]), (2, "uint"), (3, "bool"), (4, "string"), (64, _PLAIN), (5, ["int"])])
_INT = st.integers(-(1 << 63), (1 << 63) - 1)
_ITEMS = st.builds(Item, st.binary(max_size=300), st.binary(max_size=9), _INT, _INT, _INT, _INT)


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(
        st.lists(_ITEMS, max_size=4),
        st.integers(0, (1 << 64) - 1),
        st.booleans(),
        st.text(max_size=9),
        st.none() | _ITEMS,
        st.lists(_INT, max_size=3),
    )
)
def test_messages_come_back_as_they_were(values: tuple[Any, ...]) -> None:
    assert _NESTED.decode(_NESTED.encode(values)) == values


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\x0a\x05a", "unexpected EOF"),
        (b"\x0a", "unexpected EOF"),
        (b"\x08\x01", "wrong wireType = 0 for field 1"),
        (b"\x12\x00", "wrong wireType = 2 for field 2"),
        (b"\x10" + b"\xff" * 9 + b"\x7f", "integer overflow"),
        (b"\x00\x00", "illegal tag 0"),
        (b"\x7b", "illegal wireType 3"),
    ],
)
def test_malformed_messages_are_refused(data: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        _PLAIN.decode(data)


def test_unknown_fields_are_skipped_and_packed_numbers_read() -> None:
    assert _PLAIN.decode(b"\x78\x01\x7a\x01x\x7d1234\x79" + b"8" * 8 + b"\x0a\x01k").key == b"k"
    assert _NESTED.decode(b"\x2a\x03\x01\x02\x03")[5] == [1, 2, 3]


class _Peer:
    """A connection and what it was told; answers each message with itself, twice."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.connection = Connection(self._message, self._end, self._reset, lambda _: None, 1 << 20)
        self.out = b""

    def feed(self, data: bytes) -> None:
        try:
            self.connection.feed(data)
        finally:
            self.out += self.connection.take()

    def _message(self, stream: Stream, message: bytes) -> None:
        self.told.append((stream.id, stream.path, message))
        self.connection.send(stream, message * 2)

    def _end(self, stream: Stream) -> None:
        self.told.append((stream.id, "end"))
        self.connection.finish(stream)

    def _reset(self, stream: Stream) -> None:
        self.told.append((stream.id, "reset"))


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def request(encoder: hpack.Encoder, stream: int, messages: list[bytes]) -> bytes:
    """Headers in two frames, padded data in pieces that end anywhere."""
    fields = [(":method", "POST"), (":path", f"/a/{stream}"), ("content-type", "application/grpc")]
    block = encoder.encode(fields)
    data = b"".join(b"\x00" + struct.pack(">I", len(each)) + each for each in messages)
    frames = frame(1, 0, stream, block[:5]) + frame(9, 4, stream, block[5:])
    for at in range(0, len(data), 7):
        frames += frame(0, 8, stream, b"\x02" + data[at : at + 7] + b"\x00\x00")
    return frames + frame(0, 1, stream, b"")


@pytest.mark.parametrize("step", [1, 2, 9, 100, 10_000])
def test_frames_mean_the_same_in_whatever_pieces_they_come(step: int) -> None:
    encoder, peer = hpack.Encoder(), _Peer()
    sent = PREFACE + frame(4, 0, 0, b"") + request(encoder, 1, [b"one", b"", b"three"])
    sent += request(encoder, 3, [b"x" * 50])
    sent += frame(6, 0, 0, b"8 bytes.")
    for at in range(0, len(sent), step):
        peer.feed(sent[at : at + step])
    first = [(1, b"/a/1", each) for each in (b"one", b"", b"three")]
    assert peer.told == [*first, (1, "end"), (3, b"/a/3", b"x" * 50), (3, "end")]
    assert frame(6, 1, 0, b"8 bytes.") in peer.out and frame(4, 1, 0, b"") in peer.out
    assert peer.connection.streams == {}


def test_what_the_windows_hold_back_follows_when_they_open() -> None:
    encoder, peer = hpack.Encoder(), _Peer()
    peer.feed(PREFACE + frame(4, 0, 0, struct.pack(">HI", 4, 10)) + request(encoder, 1, [b"y" * 20]))
    assert data_of(peer.out, 1) == b"\x00\x00\x00\x00\x28yyyyy"
    assert 1 in peer.connection.streams
    for _ in range(4):
        peer.feed(frame(8, 0, 1, struct.pack(">I", 10)))
    assert data_of(peer.out, 1) == b"\x00\x00\x00\x00\x28" + b"y" * 40
    assert peer.connection.streams == {}, "its trailers were sent last"


def test_resets_and_windows_that_are_too_large() -> None:
    encoder, peer = hpack.Encoder(), _Peer()
    peer.feed(PREFACE + request(encoder, 1, [b"z" * 70_000])[:-9])
    peer.feed(frame(3, 0, 1, struct.pack(">I", 8)))
    assert peer.told[-1] == (1, "reset")
    peer.feed(frame(8, 0, 0, struct.pack(">I", (1 << 31) - 1)))  # nothing is left of the first one: it just fits
    with pytest.raises(Fault, match="the window is too large"):
        peer.feed(frame(8, 0, 0, struct.pack(">I", 1)))
    assert b"the window is too large" in peer.out


def data_of(out: bytes, wanted: int) -> bytes:
    found, at = b"", 0
    while at < len(out):
        length, kind = int.from_bytes(out[at : at + 3], "big"), out[at + 3]
        stream = int.from_bytes(out[at + 5 : at + 9], "big")
        if kind == 0 and stream == wanted:
            found += out[at + 9 : at + 9 + length]
        at += 9 + length
    return found
