"""bbolt's file, the one that etcd keeps its data in: written whole from its beginning, and read.

    page 0, 1      meta: where the root is, how many pages there are, a checksum; the valid one of the later transaction
    page 2         free pages: none in a file that was just written; any page where etcd keeps no list of them
    then           leaves and branches of B+trees, a tree for each bucket; the root's leaf names the buckets

A page is a head (number, flags, count of elements, pages that follow because it is larger than one), the elements, and
what they point at. Leaves have keys with values, branches the first key of each page below. A small bucket lies in the
value of its name, as a page without a number.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

PAGE_BYTES = 4096

_MAGIC = 0xED0CDAED
_VERSION = 2
_BRANCH, _LEAF, _META, _FREE = 0x01, 0x02, 0x04, 0x10
_IS_BUCKET = 0x01

_HEAD = struct.Struct("<QHHI")
_META_BODY = struct.Struct(
    "<IIIIQQQQQ"
)  # magic, version, page size, flags, root, its sequence, free, pages, transaction
_SUM = struct.Struct("<Q")
_LEAF_ELEMENT = struct.Struct("<IIII")  # flags, where from here, bytes of the key and of the value
_BRANCH_ELEMENT = struct.Struct("<IIQ")  # where from here, bytes of the key, page
_BUCKET = struct.Struct("<QQ")  # root page (0: it follows), sequence

Pair = tuple[bytes, bytes]


class Malformed(ValueError):
    """Not a file of bbolt, or a damaged one."""


def is_bolt(head: bytes) -> bool:
    """By a file's first bytes."""
    return len(head) >= 24 and head[16:20] == struct.pack("<I", _MAGIC)


def _checksum(data: bytes) -> int:
    """FNV-1a of 64 bits."""
    found = 0xCBF29CE484222325
    for code in data:
        found = (found ^ code) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return found


# ---------------------------------------------------------------- writing


class Writer:
    """`bucket` for each, by rising name, then `close`; nothing but a page or a level of branches is held in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._pages = 3
        self._buckets: list[Pair] = []
        file.write(bytes(3 * PAGE_BYTES))

    def bucket(self, name: bytes, pairs: Iterable[Pair]) -> None:
        """`pairs` by rising key."""
        root = self._tree(pairs, 0)
        value = _BUCKET.pack(root, 0) if root else _BUCKET.pack(0, 0) + _HEAD.pack(0, _LEAF, 0, 0)
        self._buckets.append((name, value))

    def close(self) -> None:
        root = self._tree(self._buckets, _IS_BUCKET)
        self._file.seek(0)
        for number in range(2):
            body = _META_BODY.pack(_MAGIC, _VERSION, PAGE_BYTES, 0, root, 0, 2, self._pages, number)
            meta = _HEAD.pack(number, _META, 0, 0) + body + _SUM.pack(_checksum(body))
            self._file.write(meta.ljust(PAGE_BYTES, b"\x00"))
        self._file.write(_HEAD.pack(2, _FREE, 0, 0))
        self._file.flush()

    def _tree(self, pairs: Iterable[Pair], flags: int) -> int:
        """Its root page; 0 if there is nothing in it."""
        level = [(page[0][0], self._leaf(page, flags)) for page in _pages_of(pairs)]
        while len(level) > 1:
            level = [(page[0][0], self._branch(page)) for page in _branches_of(level)]
        return level[0][1] if level else 0

    def _leaf(self, page: list[Pair], flags: int) -> int:
        elements, data = bytearray(), bytearray()
        for number, (key, value) in enumerate(page):
            at = (len(page) - number) * _LEAF_ELEMENT.size + len(data)
            elements += _LEAF_ELEMENT.pack(flags, at, len(key), len(value))
            data += key + value
        return self._write(_LEAF, len(page), bytes(elements + data))

    def _branch(self, page: list[tuple[bytes, int]]) -> int:
        elements, data = bytearray(), bytearray()
        for number, (key, below) in enumerate(page):
            at = (len(page) - number) * _BRANCH_ELEMENT.size + len(data)
            elements += _BRANCH_ELEMENT.pack(at, len(key), below)
            data += key
        return self._write(_BRANCH, len(page), bytes(elements + data))

    def _write(self, flags: int, count: int, body: bytes) -> int:
        number = self._pages
        pages = -(-(_HEAD.size + len(body)) // PAGE_BYTES)
        head = _HEAD.pack(number, flags, count, pages - 1)
        self._file.write((head + body).ljust(pages * PAGE_BYTES, b"\x00"))
        self._pages += pages
        return number


def _pages_of(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    """As many as a page takes; one alone where it is larger than a page."""
    page: list[Pair] = []
    room = PAGE_BYTES - _HEAD.size
    for key, value in pairs:
        size = _LEAF_ELEMENT.size + len(key) + len(value)
        if page and size > room:
            yield page
            page, room = [], PAGE_BYTES - _HEAD.size
        page.append((key, value))
        room -= size
    if page:
        yield page


def _branches_of(level: list[tuple[bytes, int]]) -> Iterator[list[tuple[bytes, int]]]:
    """As many as a page takes, and two at least: each level is shorter than the one below."""
    page: list[tuple[bytes, int]] = []
    room = PAGE_BYTES - _HEAD.size
    for key, below in level:
        size = _BRANCH_ELEMENT.size + len(key)
        if len(page) > 1 and size > room:
            yield page
            page, room = [], PAGE_BYTES - _HEAD.size
        page.append((key, below))
        room -= size
    if page:
        yield page


# ---------------------------------------------------------------- reading


class _Meta(NamedTuple):
    page_bytes: int
    root: int
    pages: int
    transaction: int


class Reader:
    """A file that nobody writes. Raises Malformed wherever something is not as it must be."""

    def __init__(self, file: BinaryIO) -> None:
        try:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as problem:
            raise Malformed("the file is empty") from problem
        found = [meta for size in (4096, 8192, 16384, 32768, 65536) for at in (0, size) if (meta := self._meta(at))]
        if not found:
            raise Malformed("it has no valid meta page")
        self._chosen = max(found, key=lambda meta: meta.transaction)
        if len(self._map) < self._chosen.pages * self._chosen.page_bytes:
            raise Malformed("the file is cut off")
        self._roots = dict(self._pairs(self._chosen.root, _IS_BUCKET))

    def bucket(self, name: bytes) -> Iterator[Pair]:
        """What is in it, by rising key; nothing if there is no such bucket."""
        value = self._roots.get(name)
        if value is None:
            return
        root, _ = _BUCKET.unpack_from(value)
        if root:
            yield from self._pairs(root, 0)
        else:
            yield from self._elements(value, _BUCKET.size, 0)

    def close(self) -> None:
        self._map.close()

    def _meta(self, at: int) -> _Meta | None:
        end = at + _HEAD.size + _META_BODY.size
        if len(self._map) < end + _SUM.size:
            return None
        body = self._map[at + _HEAD.size : end]
        magic, version, size, _, root, _, _, pages, transaction = _META_BODY.unpack(body)
        if magic != _MAGIC or version != _VERSION or _SUM.unpack_from(self._map, end)[0] != _checksum(body):
            return None
        return _Meta(size, root, pages, transaction)

    def _pairs(self, page: int, flags: int, depth: int = 0) -> Iterator[Pair]:
        if not 1 < page < self._chosen.pages or depth > 64:
            raise Malformed(f"page {page} cannot be part of a tree")
        at = page * self._chosen.page_bytes
        number, kind, count, _ = _HEAD.unpack_from(self._map, at)
        if number != page:
            raise Malformed(f"page {page} says that it is page {number}")
        if kind == _LEAF:
            yield from self._elements(self._map, at, flags)
        elif kind == _BRANCH:
            for place in range(count):
                _, _, below = _BRANCH_ELEMENT.unpack_from(self._map, at + _HEAD.size + place * _BRANCH_ELEMENT.size)
                yield from self._pairs(below, flags, depth + 1)
        else:
            raise Malformed(f"page {page} is neither a leaf nor a branch: {kind:#x}")

    def _elements(self, data: bytes | mmap.mmap, at: int, flags: int) -> Iterator[Pair]:
        count = _HEAD.unpack_from(data, at)[2]
        for place in range(at + _HEAD.size, at + _HEAD.size + count * _LEAF_ELEMENT.size, _LEAF_ELEMENT.size):
            told, distance, key_bytes, value_bytes = _LEAF_ELEMENT.unpack_from(data, place)
            start = place + distance
            if told != flags or start + key_bytes + value_bytes > len(data):
                raise Malformed(f"the element at byte {place} is damaged")
            key_end = start + key_bytes
            yield data[start:key_end], data[key_end : key_end + value_bytes]
