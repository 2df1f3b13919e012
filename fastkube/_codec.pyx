"""Encoded objects without Python objects: what can be read off or changed in the bytes of stored msgpack.

Stored values are msgpack maps with string keys, without metadata.resourceVersion; answers carry it. So every way out
takes the revision and puts it first into `metadata`. Nothing here decodes more than it was asked for. How they become
JSON stands in `_json.pyx`.

Accepted msgpack: nil, booleans, integers, floats, strings, arrays and maps whose keys are strings, nested at most
DEPTH_MAX deep; anything else is a ValueError. Strings are UTF-8 already and are copied, escaped where JSON demands it.
Every read is checked against the end of the value: one cut short is a ValueError, never a read beyond it.

Written in Cython's pure-Python syntax; runs interpreted under FASTKUBE_PURE=1 with equal results.
"""

import struct

import cython
import msgpack

COMPILED = cython.compiled

RECORD_HEAD_BYTES = 32
"""Before the value of a record as the store keeps it: four numbers, the second of them its revision."""
_RECORD_HEAD = cython.declare(cython.Py_ssize_t, 32)

DEPTH_MAX = 1024
_DEPTH = cython.declare(cython.int, 1024)

_METADATA = cython.declare(bytes, b"metadata")
_LABELS = cython.declare(bytes, b"labels")
_MANAGED_FIELDS = cython.declare(bytes, b"managedFields")
_KIND = cython.declare(bytes, b"kind")
_API_VERSION = cython.declare(bytes, b"apiVersion")
_VERSION_KEY = cython.declare(bytes, msgpack.packb("resourceVersion"))

KINDS = ("nil", "false", "true", "natural", "negative", "double", "string", "array", "map")
"""What `step` may find, by number."""
_NIL = cython.declare(cython.int, 0)
_FALSE = cython.declare(cython.int, 1)
_TRUE = cython.declare(cython.int, 2)
_NATURAL = cython.declare(cython.int, 3)
_NEGATIVE = cython.declare(cython.int, 4)
_DOUBLE = cython.declare(cython.int, 5)
_STRING = cython.declare(cython.int, 6)
_ARRAY = cython.declare(cython.int, 7)
_MAP = cython.declare(cython.int, 8)

_read_double = struct.Struct(">d").unpack_from
_read_float = struct.Struct(">f").unpack_from


# ---------------------------------------------------------------- reading msgpack


@cython.final
@cython.cclass
class _Reader:
    """A position in a value. `step` reads one head: `number` is then the integer (for a negative one, what is below
    -1), or the length of a string in bytes, of an array in items, of a map in pairs; a string's bytes come next.

    Other cores read with it too: _codec.pxd says what they see of it.
    """

    def __init__(self, source: bytes, at: cython.Py_ssize_t = 0):
        self.source = source
        self.parts = None
        self.at = at
        self.end = len(source)
        self.number = 0

    @cython.cfunc
    @cython.exceptval(-1)
    def step(self) -> cython.int:
        if self.at >= self.end:
            raise _cut_short()
        head: cython.uchar = self.source[self.at]
        self.at += 1
        if head < 0x80:
            self.number = head
            return _NATURAL
        if head < 0x90:
            self.number = head & 15
            return _MAP
        if head < 0xA0:
            self.number = head & 15
            return _ARRAY
        if head < 0xC0:
            return self._string(head & 31)
        if head >= 0xE0:
            self.number = 0xFF - head
            return _NEGATIVE
        return self._long_head(head)

    @cython.cfunc
    @cython.exceptval(-1)
    def _long_head(self, head: cython.uchar) -> cython.int:
        if head == 0xC0:
            return _NIL
        if head in (0xC2, 0xC3):
            return _FALSE if head == 0xC2 else _TRUE
        if 0xCC <= head <= 0xCF:
            self._big_endian(1 << (head - 0xCC))
            return _NATURAL
        if 0xD0 <= head <= 0xD3:
            return self._signed(1 << (head - 0xD0))
        if 0xD9 <= head <= 0xDB:
            self._big_endian(1 << (head - 0xD9))
            return self._string(self.number)
        if 0xDC <= head <= 0xDD:
            self._big_endian(2 << (head - 0xDC))
            return _ARRAY
        if 0xDE <= head <= 0xDF:
            self._big_endian(2 << (head - 0xDE))
            return _MAP
        if head in (0xCA, 0xCB):
            self.number = 4 if head == 0xCA else 8
            if self.at + cython.cast(cython.Py_ssize_t, self.number) > self.end:
                raise _cut_short()
            return _DOUBLE
        raise ValueError(f"a stored value holds the msgpack type {head:#04x}, which no object has")

    @cython.cfunc
    @cython.exceptval(-1)
    def _big_endian(self, width: cython.int) -> cython.int:
        if self.at + width > self.end:
            raise _cut_short()
        number: cython.ulonglong = 0
        index: cython.int
        for index in range(width):
            number = (number << 8) | self.source[self.at + index]
        self.at += width
        self.number = number
        return 0

    @cython.cfunc
    @cython.exceptval(check=True)
    def little_endian(self) -> cython.ulonglong:
        """The next eight bytes, as the store writes numbers."""
        if self.at + 8 > self.end:
            raise _cut_short()
        number: cython.ulonglong = 0
        index: cython.int
        for index in range(7, -1, -1):
            number = (number << 8) | self.source[self.at + index]
        return number

    @cython.cfunc
    @cython.exceptval(-1)
    def _signed(self, width: cython.int) -> cython.int:
        self._big_endian(width)
        if self.number >> (8 * width - 1) == 0:
            return _NATURAL
        # all ones minus the number is what is below -1, in any width
        ones: cython.ulonglong = 0xFFFFFFFFFFFFFFFF >> (64 - 8 * width)
        self.number = ones - self.number
        return _NEGATIVE

    @cython.cfunc
    @cython.exceptval(-1)
    def _string(self, length: cython.ulonglong) -> cython.int:
        if length > cython.cast(cython.ulonglong, self.end - self.at):
            raise _cut_short()
        self.number = length
        return _STRING

    @cython.cfunc
    @cython.exceptval(-1)
    def key(self) -> cython.Py_ssize_t:
        """Read a key's head: the length of the key, whose bytes come next."""
        if self.step() != _STRING:
            raise ValueError("a stored value has a key which is no string")
        return self.number

    @cython.cfunc
    @cython.exceptval(check=False)
    def is_next(self, length: cython.Py_ssize_t, text: bytes) -> cython.bint:
        """Whether the next `length` bytes are this text."""
        if length != len(text):
            return False
        index: cython.Py_ssize_t
        for index in range(length):  # noqa: SIM110  (a generator would not compile to a C loop)
            if self.source[self.at + index] != text[index]:
                return False
        return True

    @cython.cfunc
    @cython.exceptval(check=False)
    def is_small(self) -> cython.bint:
        """Whether a map or array of at most 15 comes next."""
        return self.at < self.end and 0x80 <= self.source[self.at] < 0xA0

    @cython.cfunc
    @cython.exceptval(-1)
    def skip(self) -> cython.int:
        """Pass over one value."""
        values: cython.ulonglong = 1
        kind: cython.int
        while values > 0:
            values -= 1
            kind = self.step()
            if kind == _STRING or kind == _DOUBLE:  # noqa: SIM109
                self.at += self.number
            elif kind == _ARRAY:
                values += self.number
            elif kind == _MAP:
                values += 2 * self.number
        return 0

    @cython.cfunc
    @cython.exceptval(check=True)
    def find(self, key: bytes) -> cython.bint:
        """With the position at a map: go to the value under a key. False if it is no map or has no such key."""
        pairs: cython.ulonglong
        length: cython.Py_ssize_t
        found: cython.bint
        if self.step() != _MAP:
            return False
        pairs = self.number
        while pairs > 0:
            pairs -= 1
            length = self.key()
            found = self.is_next(length, key)
            self.at += length
            if found:
                return True
            self.skip()
        return False

    @cython.cfunc
    def text(self, length: cython.Py_ssize_t):
        """The next bytes as a str."""
        start: cython.Py_ssize_t = self.at
        self.at += length
        return self.source[start : self.at].decode("utf-8", "surrogatepass")


def _cut_short():
    return ValueError("a stored value ends too early")


def _too_deep():
    return ValueError("a stored value is nested too deeply")


def extract(value: bytes, path: tuple):
    """What stands at a path of keys (bytes) in an encoded object, decoded; None if there is nothing."""
    reader = _Reader(value)
    for key in path:
        if not reader.find(key):
            return None
    start: cython.Py_ssize_t = reader.at
    reader.skip()
    return msgpack.unpackb(value[start : reader.at], unicode_errors="surrogatepass")


def matches(value: bytes, path: tuple, text: bytes) -> bool:
    """Whether what stands at a path reads as `text`: nothing and null as the empty string, others as in JSON."""
    return _matches(_Reader(value), path, text)


@cython.cfunc
def _matches(reader: _Reader, path: tuple, text: bytes):
    for key in path:
        if not reader.find(key):
            return not text
    start: cython.Py_ssize_t = reader.at
    if reader.step() == _STRING:
        return bool(reader.is_next(reader.number, text))
    reader.at = start
    reader.skip()
    found = msgpack.unpackb(reader.source[start : reader.at], unicode_errors="surrogatepass")
    read = "" if found is None else str(found).lower() if isinstance(found, bool) else str(found)
    return text == read.encode("utf-8", "surrogatepass")


def labels(value: bytes):
    """metadata.labels of an encoded object as a dict, or None."""
    reader = _Reader(value)
    pairs: cython.ulonglong
    if not (reader.find(_METADATA) and reader.find(_LABELS)) or reader.step() != _MAP:
        return None
    found = {}
    pairs = reader.number
    while pairs > 0:
        pairs -= 1
        key = reader.text(reader.key())
        if reader.step() != _STRING:
            raise ValueError("a label is no string")
        found[key] = reader.text(reader.number)
    return found


def labels_part(value: bytes):
    """The bytes of metadata.labels of an encoded object: where two are the same, so are the labels. Or None."""
    return _labels_part(_Reader(value))


@cython.cfunc
def _labels_part(reader: _Reader):
    start: cython.Py_ssize_t
    if not (reader.find(_METADATA) and reader.find(_LABELS)):
        return None
    start = reader.at
    reader.skip()
    return reader.source[start : reader.at]


def with_labels(found: list, told: dict, judge) -> list:
    """Those of (key, record) whose labels are right: `told` knows of labels as they are stored, `judge` of values."""
    right = []
    for pair in found:
        record: bytes = pair[1]
        part = _labels_part(_Reader(record, _RECORD_HEAD))
        answer = told.get(part)
        if answer is None:
            answer = judge(record[_RECORD_HEAD:])
        if answer:
            right.append(pair)
    return right


def with_field(found: list, path: tuple, text: bytes, equal: bool) -> list:
    """Those of (key, record) at whose path stands (or does not stand) what reads as `text`."""
    return [pair for pair in found if _matches(_Reader(pair[1], _RECORD_HEAD), path, text) is equal]


def with_revision(value: bytes, revision: int) -> bytes:
    """The same msgpack with metadata.resourceVersion in it."""
    reader = _Reader(value)
    if not reader.find(_METADATA):
        return value
    start: cython.Py_ssize_t = reader.at
    if reader.step() != _MAP:
        return value
    pairs = int(reader.number) + 1
    head = bytes((0x80 | pairs,)) if pairs < 16 else b"\xde" + pairs.to_bytes(2, "big")
    text = b"%d" % revision
    return b"".join((value[:start], head, _VERSION_KEY, bytes((0xA0 | len(text),)), text, value[reader.at :]))


# ---------------------------------------------------------------- reading objects

# Short strings that were read lately, each in the slot of its hash: keys, and values which thousands of objects share
_SLOTS = cython.declare(cython.uint, 4096)
_SHORT = cython.declare(cython.Py_ssize_t, 32)
_slots = cython.declare(list, [(b"", "")] * 4096)

_WHOLE = cython.declare(cython.int, 0)
_META = cython.declare(cython.int, 1)
_PART = cython.declare(cython.int, 2)
_SHARED = cython.declare(cython.int, 3)

_SHARED_LEAST = cython.declare(cython.Py_ssize_t, 48)
_SHARED_MOST = cython.declare(cython.Py_ssize_t, 2048)
# Parts so many levels down are not looked for: each level is passed over before it is read
_SHARED_LEVELS = cython.declare(cython.int, 8)


@cython.final
@cython.cclass
class Parts:
    """Maps and arrays that were read lately, by their bytes: what is the same in many objects is decoded once, and kept
    once. Of the last `most` to twice as many is known; those that are read again stay."""

    _most = cython.declare(cython.Py_ssize_t)
    _young = cython.declare(dict)
    _old = cython.declare(dict)

    def __init__(self, most: int = 2048):
        self._most = most
        self._young = {}
        self._old = {}

    @cython.cfunc
    def find(self, piece: bytes):
        found = self._young.get(piece)
        if found is None:
            found = self._old.get(piece)
            if found is not None:
                self.add(piece, found)
        return found

    @cython.cfunc
    def add(self, piece: bytes, found):
        if len(self._young) >= self._most:
            self._old, self._young = self._young, {}
        self._young[piece] = found


def decode(
    value: bytes,
    managed_fields: bool = True,
    parts: Parts = None,
    start: cython.Py_ssize_t = 0,
    end: cython.Py_ssize_t = -1,
):
    """An encoded object (the bytes from `start` to `end`) as Python objects; metadata.managedFields only if wanted.
    With `parts` it shares what it is made of with others that were read with them: nobody may change it.

    Most of the short strings that are equal, in whichever objects, are the same str: less is kept, and found faster.
    """
    reader = _Reader(value)
    reader.parts = parts
    reader.at = start
    reader.end = min(end, reader.end) if end >= 0 else reader.end
    try:
        found = _read(reader, _PART if managed_fields else _WHOLE, DEPTH_MAX)
    except RecursionError:  # the interpreter's own limit is lower
        raise _too_deep() from None
    if reader.at != reader.end:
        raise ValueError("a stored value has something after its end")
    return found


@cython.cfunc
def _read(reader: _Reader, where: cython.int, depth: cython.int):
    left: cython.ulonglong
    if where == _SHARED and depth > _DEPTH - _SHARED_LEVELS and reader.is_small():
        return _read_shared(reader, depth)
    kind: cython.int = reader.step()
    if kind == _STRING:
        return _text(reader, reader.number)
    if kind != _MAP and kind != _ARRAY:
        return _scalar(reader, kind)
    if depth == 0:
        raise _too_deep()
    left = reader.number
    if kind == _MAP:
        return _read_map(reader, left, where, depth)
    return _read_array(reader, left, _PART, depth)


@cython.cfunc
def _read_shared(reader: _Reader, depth: cython.int):
    """A small map or array, and what is in it, which may be among the parts."""
    start: cython.Py_ssize_t = reader.at
    reader.skip()
    length: cython.Py_ssize_t = reader.at - start
    worth: cython.bint = _SHARED_LEAST <= length <= _SHARED_MOST
    parts: Parts = reader.parts
    piece: bytes = b""
    if worth:
        piece = reader.source[start : reader.at]
        found = parts.find(piece)
        if found is not None:
            return found
    reader.at = start
    if reader.step() == _MAP:
        found = _read_map(reader, reader.number, _SHARED, depth)
    else:
        found = _read_array(reader, reader.number, _SHARED, depth)
    if worth:
        parts.add(piece, found)
    return found


@cython.cfunc
def _read_array(reader: _Reader, left: cython.ulonglong, where: cython.int, depth: cython.int):
    if depth == 0:
        raise _too_deep()
    items: list = []
    while left > 0:
        left -= 1
        items.append(_read(reader, where, depth - 1))
    return items


@cython.cfunc
def _read_map(reader: _Reader, pairs: cython.ulonglong, where: cython.int, depth: cython.int):
    length: cython.Py_ssize_t
    if depth == 0:
        raise _too_deep()
    part: cython.int = _PART if reader.parts is None else _SHARED
    found: dict = {}
    while pairs > 0:
        pairs -= 1
        length = reader.key()
        if where == _META and reader.is_next(length, _MANAGED_FIELDS):
            reader.at += length
            reader.skip()
            continue
        inner: cython.int = _META if where == _WHOLE and reader.is_next(length, _METADATA) else part
        key = _text(reader, length)
        found[key] = _read(reader, inner, depth - 1)
    return found


@cython.cfunc
def _scalar(reader: _Reader, kind: cython.int):
    if kind == _NIL:
        return None
    if kind == _TRUE or kind == _FALSE:  # noqa: SIM109
        return kind == _TRUE
    if kind == _NATURAL:
        return reader.number
    if kind == _NEGATIVE:
        return -1 - int(reader.number)
    start: cython.Py_ssize_t = reader.at
    reader.at += reader.number
    return (_read_float if reader.number == 4 else _read_double)(reader.source, start)[0]


@cython.cfunc
def _text(reader: _Reader, length: cython.Py_ssize_t):
    """The next bytes as a str."""
    if length > _SHORT:
        return reader.text(length)
    slot: cython.uint = 0
    index: cython.Py_ssize_t
    for index in range(length):
        slot = (slot * 31 + reader.source[reader.at + index]) & 0xFFFFFFF
    slot = (slot ^ (slot >> 12)) % _SLOTS
    known: tuple = _slots[slot]
    if reader.is_next(length, known[0]):
        reader.at += length
        return known[1]
    piece: bytes = reader.source[reader.at : reader.at + length]
    text = reader.text(length)
    _slots[slot] = (piece, text)
    return text
