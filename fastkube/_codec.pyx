"""Encoded objects without Python objects: stored msgpack to JSON, and what can be read off or changed in the bytes.

Stored values are msgpack maps with string keys, without metadata.resourceVersion; answers carry it. So every way out of
here takes the revision and puts it first into `metadata`. Nothing here decodes more than it was asked for.

Accepted msgpack: nil, booleans, integers, floats, strings, arrays and maps whose keys are strings, nested at most
DEPTH_MAX deep; anything else is a ValueError. Strings are UTF-8 already and are copied, escaped where JSON demands it.
Every read is checked against the end of the value: one cut short is a ValueError, never a read beyond it.

Written in Cython's pure-Python syntax; runs interpreted under FASTKUBE_PURE=1 with equal results.
"""

import array
import struct

import cython
import msgpack

if cython.compiled:
    from cython.cimports.cpython.bytearray import PyByteArray_AS_STRING
    from cython.cimports.cpython.bytes import PyBytes_AS_STRING
    from cython.cimports.libc.string import memcmp, memcpy

COMPILED = cython.compiled

DEPTH_MAX = 1024
_DEPTH = cython.declare(cython.int, 1024)

_read_double = struct.Struct(">d").unpack_from
_read_float = struct.Struct(">f").unpack_from

_HEX = cython.declare(bytes, b"0123456789abcdef")
# What follows the backslash for each byte that JSON escapes: a letter, `u` for \u00XX, or 0 for none
_ESCAPES = cython.declare(
    bytes,
    bytes(
        {8: 98, 9: 116, 10: 110, 12: 102, 13: 114, 34: 34, 92: 92}.get(code, 117 if code < 32 else 0)
        for code in range(256)
    ),
)
_METADATA = cython.declare(bytes, b"metadata")
_LABELS = cython.declare(bytes, b"labels")
_MANAGED_FIELDS = cython.declare(bytes, b"managedFields")
_KIND = cython.declare(bytes, b"kind")
_API_VERSION = cython.declare(bytes, b"apiVersion")
_VERSION_START = cython.declare(bytes, b'"resourceVersion":"')
_VERSION_KEY = cython.declare(bytes, msgpack.packb("resourceVersion"))

_NIL = cython.declare(cython.int, 0)
_FALSE = cython.declare(cython.int, 1)
_TRUE = cython.declare(cython.int, 2)
_NATURAL = cython.declare(cython.int, 3)
_NEGATIVE = cython.declare(cython.int, 4)
_DOUBLE = cython.declare(cython.int, 5)
_STRING = cython.declare(cython.int, 6)
_ARRAY = cython.declare(cython.int, 7)
_MAP = cython.declare(cython.int, 8)

_IN_MAP = cython.declare(cython.int, 1)
_NOT_FIRST = cython.declare(cython.int, 2)

# Eight bytes at once: each byte's lowest and highest bit
_LOW_BITS = cython.declare(cython.ulonglong, 0x0101010101010101)
_HIGH_BITS = cython.declare(cython.ulonglong, 0x8080808080808080)

# Room that is there whenever a turn of the loop begins, and after each string: for separators, brackets and numbers
_TURN = cython.declare(cython.Py_ssize_t, 64)

_WORDS = cython.declare(tuple, (b"null", b"false", b"true"))

# Of a sample the parts this deep are known, and so many of them
_PARTS_DEPTH = cython.declare(cython.int, 8)
_PARTS_MAX = cython.declare(cython.Py_ssize_t, 512)
_NONE = cython.declare(cython.Py_ssize_t, -1)
_COPIED = cython.declare(cython.Py_ssize_t, -2)

# What `_transcode` does with the sample
_ALONE = cython.declare(cython.int, 0)
_TAKING = cython.declare(cython.int, 1)
_COPYING = cython.declare(cython.int, 2)


# ---------------------------------------------------------------- bytes


@cython.cfunc
@cython.exceptval(check=False)
def _same(
    left: bytes, at: cython.Py_ssize_t, right: bytes, start: cython.Py_ssize_t, length: cython.Py_ssize_t
) -> cython.bint:
    """Whether `length` bytes of two values are the same; both have as many."""
    if cython.compiled:
        some: cython.p_char = PyBytes_AS_STRING(left)
        others: cython.p_char = PyBytes_AS_STRING(right)
        return memcmp(some + at, others + start, length) == 0
    return left[at : at + length] == right[start : start + length]


@cython.cfunc
@cython.exceptval(check=False)
def _copy(
    into: bytearray, at: cython.Py_ssize_t, source: bytes, start: cython.Py_ssize_t, length: cython.Py_ssize_t
) -> cython.void:
    """For which the caller has made room."""
    if cython.compiled:
        there: cython.p_char = PyByteArray_AS_STRING(into)
        here: cython.p_char = PyBytes_AS_STRING(source)
        memcpy(there + at, here + start, length)
    else:
        into[at : at + length] = source[start : start + length]


@cython.cfunc
@cython.exceptval(check=False)
def _plain(
    source: bytes, start: cython.Py_ssize_t, stop: cython.Py_ssize_t, into: bytearray, at: cython.Py_ssize_t
) -> cython.Py_ssize_t:
    """Copies what needs no escape, from `start` up to the first byte that does; how many bytes that are.

    The caller has made room, for eight bytes more than that too.
    """
    index: cython.Py_ssize_t = start
    code: cython.uchar
    if cython.compiled:
        here: cython.p_uchar = cython.cast(cython.p_uchar, PyBytes_AS_STRING(source))
        there: cython.p_uchar = cython.cast(cython.p_uchar, PyByteArray_AS_STRING(into))
        eight: cython.ulonglong = 0
        quotes: cython.ulonglong
        slashes: cython.ulonglong
        there += at - start
        while stop - index >= 8:
            memcpy(cython.address(eight), here + index, 8)
            quotes = eight ^ (_LOW_BITS * 34)
            slashes = eight ^ (_LOW_BITS * 92)
            # Of a byte below 32, or one that the comparison made 0, the subtraction sets the highest bit
            if (
                ((eight - _LOW_BITS * 32) & ~eight)
                | ((quotes - _LOW_BITS) & ~quotes)
                | ((slashes - _LOW_BITS) & ~slashes)
            ) & _HIGH_BITS:
                break
            memcpy(there + index, cython.address(eight), 8)
            index += 8
        while index < stop:
            code = here[index]
            if code < 32 or code == 34 or code == 92:
                break
            there[index] = code
            index += 1
        return index - start
    while index < stop and _ESCAPES[source[index]] == 0:
        index += 1
    into[at : at + index - start] = source[start:index]
    return index - start


# ---------------------------------------------------------------- reading msgpack


@cython.final
@cython.cclass
class _Reader:
    """A position in a value. `step` reads one head: `number` is then the integer (for a negative one, what is below
    -1), or the length of a string in bytes, of an array in items, of a map in pairs; a string's bytes come next."""

    source = cython.declare(bytes)
    at = cython.declare(cython.Py_ssize_t)
    end = cython.declare(cython.Py_ssize_t)
    number = cython.declare(cython.ulonglong)
    parts = cython.declare(object)

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
    @cython.exceptval(check=True)
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
    reader = _Reader(value)
    for key in path:
        if not reader.find(key):
            return not text
    start: cython.Py_ssize_t = reader.at
    if reader.step() == _STRING:
        return bool(reader.is_next(reader.number, text))
    reader.at = start
    reader.skip()
    found = msgpack.unpackb(value[start : reader.at], unicode_errors="surrogatepass")
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
    reader = _Reader(value)
    start: cython.Py_ssize_t
    if not (reader.find(_METADATA) and reader.find(_LABELS)):
        return None
    start = reader.at
    reader.skip()
    return value[start : reader.at]


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


# ---------------------------------------------------------------- writing JSON


@cython.final
@cython.cclass
class Writer:
    """A growing buffer that JSON is written into; `take` empties it for the next use. Not for two threads at once.

    With `sampling` one of the values is kept as a sample: where its parts begin and end (entries of maps, items of
    arrays, each with all that is in it), and the JSON of each. Objects of a list are much alike, so most parts of the
    others are compared, found to be the same bytes, and copied. A sample that no longer resembles what is written gives
    way to the next value.
    """

    _buffer = cython.declare(bytearray)
    _data = cython.declare(cython.uchar[::1])  # the same bytes
    _size = cython.declare(cython.Py_ssize_t)
    _used = cython.declare(cython.Py_ssize_t)
    # For each open container: how many values are left in it, and whether it is a map and has had one already
    _left = cython.declare(cython.ulonglong[::1])
    _state = cython.declare(cython.uchar[::1])
    _sampling = cython.declare(cython.bint)
    _sample = cython.declare(bytes)
    _sample_json = cython.declare(bytes)
    _sample_bare = cython.declare(cython.bint)
    # Of each part of the sample: where it lies, where its JSON lies, the next part beside it, and the first inside it.
    # One whose JSON is not to be copied has no length.
    _parts = cython.declare(cython.Py_ssize_t)
    _start = cython.declare(cython.longlong[::1])
    _end = cython.declare(cython.longlong[::1])
    _json_start = cython.declare(cython.longlong[::1])
    _json_end = cython.declare(cython.longlong[::1])
    _beside = cython.declare(cython.longlong[::1])
    _inside = cython.declare(cython.longlong[::1])
    # For each open container: the part that comes next in the sample (when copying) or came last (when taking it), and
    # the part that the container is
    _next = cython.declare(cython.longlong[::1])
    _open = cython.declare(cython.longlong[::1])
    _copied = cython.declare(cython.Py_ssize_t)

    def __init__(self, size: cython.Py_ssize_t = 65536, sampling: cython.bint = False):
        self._buffer = bytearray(size)
        self._data = self._buffer
        self._size = size
        self._used = 0
        self._left = array.array("Q", bytes(8 * (_DEPTH + 1)))
        self._state = bytearray(_DEPTH + 1)
        self._sampling = sampling
        self._sample = self._sample_json = b""
        self._sample_bare = False
        self._parts = self._copied = 0
        if sampling:
            self._start, self._end = _numbers(_PARTS_MAX), _numbers(_PARTS_MAX)
            self._json_start, self._json_end = _numbers(_PARTS_MAX), _numbers(_PARTS_MAX)
            self._beside, self._inside = _numbers(_PARTS_MAX), _numbers(_PARTS_MAX)
            self._next, self._open = _numbers(_DEPTH + 2), _numbers(_DEPTH + 2)

    def __len__(self):
        return self._used

    def take(self) -> bytes:
        """What was written since the last time."""
        taken = bytes(memoryview(self._buffer)[: self._used])
        self._used = 0
        return taken

    def raw(self, text: bytes):
        """Bytes that are JSON already."""
        self._raw(text)

    def value(
        self, value: bytes, revision: cython.ulonglong = 0, bare: cython.bint = False, comma: cython.bint = False
    ) -> int:
        """One stored object as JSON; `revision` 0 inserts none, `bare` leaves out its apiVersion and kind, `comma`
        stands before it. Returns how much was written since `take`. A value that cannot be read is a ValueError, and
        the writer is empty then.
        """
        self._value(_Reader(value), revision, bare, comma)
        return self._used

    @cython.cfunc
    @cython.exceptval(-1)
    def _value(self, reader: _Reader, revision: cython.ulonglong, bare: cython.bint, comma: cython.bint) -> cython.int:
        try:
            if comma:
                self._room(1)
                self._byte(44)
            if self._sampling:
                self._alike(reader, revision, bare)
            else:
                self._transcode(reader, revision, bare, _ALONE)
        except BaseException:
            self._used = self._parts = 0
            raise
        return 0

    def records(self, found: list, at: cython.Py_ssize_t, size: cython.Py_ssize_t, bare: bool, comma: bool) -> int:
        """The objects of (key, record) from `at` on, as `value` writes them, until `size` bytes are written; which is
        next. A record has 32 bytes before its value, the second eight of them its revision."""
        while at < len(found) and self._used < size:
            record: bytes = found[at][1]
            if len(record) < 32:
                raise _cut_short()
            revision: cython.ulonglong = int.from_bytes(record[8:16], "little")
            self._value(_Reader(record, 32), revision, bare, comma)
            at, comma = at + 1, True
        return at

    @cython.cfunc
    @cython.exceptval(-1)
    def _alike(self, reader: _Reader, revision: cython.ulonglong, bare: cython.bint) -> cython.int:
        """Write a value with the help of the sample, or as the sample."""
        begin: cython.Py_ssize_t = self._used
        if self._parts > 0 and self._sample_bare == bare:
            self._copied = 0
            self._transcode(reader, revision, bare, _COPYING)
            if 2 * self._copied < reader.end:
                self._parts = 0
            return 0
        self._parts = 0
        self._transcode(reader, revision, bare, _TAKING)
        self._sample, self._sample_bare = reader.source, bare
        self._sample_json = bytes(memoryview(self._buffer)[begin : self._used])
        return 0

    @cython.cfunc
    @cython.exceptval(-2)
    def _begin_part(self, depth: cython.int, at: cython.Py_ssize_t, json_at: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Note where a part of the sample begins; its number."""
        part: cython.Py_ssize_t = self._parts
        before: cython.Py_ssize_t = self._next[depth]
        if depth > _PARTS_DEPTH or part >= _PARTS_MAX:
            return _NONE
        self._parts = part + 1
        self._start[part] = self._end[part] = at
        self._json_start[part] = json_at
        self._beside[part] = self._inside[part] = _NONE
        if before != _NONE:
            self._beside[before] = part
        elif self._open[depth] != _NONE:
            self._inside[self._open[depth]] = part
        self._next[depth] = part
        return part

    @cython.cfunc
    @cython.exceptval(-3)
    def _find_part(self, depth: cython.int, reader: _Reader, state: cython.int) -> cython.Py_ssize_t:
        """The part of the sample that the next one of a container resembles: _COPIED if they are the same and its JSON
        is written, _NONE where it resembles none. In a map it has the same key, and may lie one place further on."""
        part: cython.Py_ssize_t = self._next[depth]
        comma: cython.bint = (state & _NOT_FIRST) != 0
        if part == _NONE:
            return _NONE
        if not self._copy_part(part, reader, comma):
            if not state & _IN_MAP or self._has_key(part, reader):
                self._next[depth] = self._beside[part]
                return part
            part = self._beside[part]
            if part == _NONE or not self._has_key(part, reader):
                return _NONE
            if not self._copy_part(part, reader, comma):
                self._next[depth] = self._beside[part]
                return part
        self._next[depth] = self._beside[part]
        return _COPIED

    @cython.cfunc
    @cython.exceptval(-1)
    def _has_key(self, part: cython.Py_ssize_t, reader: _Reader) -> cython.int:
        """Whether a part of the sample has the key that comes next."""
        start: cython.Py_ssize_t = reader.at
        size: cython.Py_ssize_t = reader.key()
        size += reader.at - start
        reader.at = start
        if size > len(self._sample) - self._start[part]:
            return 0
        return _same(reader.source, start, self._sample, self._start[part], size)

    @cython.cfunc
    @cython.exceptval(-1)
    def _copy_part(self, part: cython.Py_ssize_t, reader: _Reader, comma: cython.bint) -> cython.int:
        """Write what comes next by copying the JSON of a part, if it is the same; 1 if it is."""
        length: cython.Py_ssize_t = self._end[part] - self._start[part]
        json_length: cython.Py_ssize_t
        if length == 0 or length > reader.end - reader.at:
            return 0
        if not _same(reader.source, reader.at, self._sample, self._start[part], length):
            return 0
        json_length = self._json_end[part] - self._json_start[part]
        self._room(json_length + _TURN)
        if comma:
            self._byte(44)
        _copy(self._buffer, self._used, self._sample_json, self._json_start[part], json_length)
        self._used += json_length
        reader.at += length
        self._copied += length
        return 1

    @cython.cfunc
    @cython.exceptval(-1)
    def _room(self, wanted: cython.Py_ssize_t) -> cython.int:
        """Make sure that `wanted` more bytes fit."""
        if self._used + wanted > self._size:
            self._size = max(self._size * 2, self._used + wanted)
            grown = bytearray(self._size)
            grown[: self._used] = memoryview(self._buffer)[: self._used]
            self._buffer = grown
            self._data = grown
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _raw(self, text: bytes) -> cython.int:
        length: cython.Py_ssize_t = len(text)
        self._room(length)
        _copy(self._buffer, self._used, text, 0, length)
        self._used += length
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _byte(self, code: cython.uchar) -> cython.int:
        """One byte, for which the caller has made room."""
        self._data[self._used] = code
        self._used += 1
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _number(self, number: cython.ulonglong) -> cython.int:
        digits: cython.int = 1
        rest: cython.ulonglong = number
        at: cython.Py_ssize_t
        while rest >= 10:
            rest //= 10
            digits += 1
        self._room(digits)
        at = self._used + digits
        self._used = at
        while digits > 0:
            at -= 1
            digits -= 1
            self._data[at] = cython.cast(cython.uchar, 48 + number % 10)
            number //= 10
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _string(self, reader: _Reader, length: cython.Py_ssize_t) -> cython.int:
        """The next bytes of the reader as a JSON string."""
        if self._used + 6 * length + _TURN > self._size:
            self._room(6 * length + _TURN)
        source: bytes = reader.source
        escapes: bytes = _ESCAPES
        at: cython.Py_ssize_t = self._used
        index: cython.Py_ssize_t
        code: cython.uchar
        self._data[at] = 34
        at += 1
        index = reader.at
        stop: cython.Py_ssize_t = index + length
        while index < stop:
            plain: cython.Py_ssize_t = _plain(source, index, stop, self._buffer, at)
            index += plain
            at += plain
            if index < stop:
                code = source[index]
                index += 1
                self._data[at] = 92
                self._data[at + 1] = escapes[code]
                at += 2
                if escapes[code] == 117:
                    self._data[at] = 48
                    self._data[at + 1] = 48
                    self._data[at + 2] = _HEX[code >> 4]
                    self._data[at + 3] = _HEX[code & 15]
                    at += 4
        self._data[at] = 34
        self._used = at + 1
        reader.at += length
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _scalar(self, kind: cython.int, reader: _Reader) -> cython.int:
        if kind == _STRING:
            self._string(reader, reader.number)
        elif kind == _NATURAL:
            self._number(reader.number)
        elif kind == _NEGATIVE:
            self._byte(45)
            self._number(reader.number + 1)
        elif kind == _DOUBLE:
            self._double(reader)
        else:
            self._raw(_WORDS[kind])
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _double(self, reader: _Reader) -> cython.int:
        read = _read_double if reader.number == 8 else _read_float
        number = read(reader.source, reader.at)[0]
        reader.at += reader.number
        self._raw(b"null" if number != number or number in (_INFINITY, -_INFINITY) else repr(number).encode())
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _transcode(
        self, reader: _Reader, revision: cython.ulonglong, bare: cython.bint, sample: cython.int
    ) -> cython.int:
        """Each turn is one value, with its key if it stands in a map, or the end of a container."""
        begin: cython.Py_ssize_t = self._used
        start: cython.Py_ssize_t
        part: cython.Py_ssize_t = _NONE  # of the value to come: when copying what it resembles, when taking what it is
        depth: cython.int = 0
        state: cython.int
        kind: cython.int
        length: cython.Py_ssize_t
        metadata: cython.bint = False  # whether the value to come is the object's own metadata
        while True:
            if self._used + _TURN > self._size:
                self._room(_TURN)
            if depth > 0:
                state = self._state[depth]
                if self._left[depth] == 0:
                    self._byte(125 if state & _IN_MAP else 93)
                    if sample == _TAKING and self._open[depth] != _NONE:
                        self._end_part(self._open[depth], reader.at, begin)
                    depth -= 1
                    if depth == 0:
                        break
                    continue
                self._left[depth] -= 1
                start = reader.at
                if sample == _COPYING:
                    part = self._find_part(depth, reader, state)
                    if part == _COPIED:
                        self._state[depth] = state | _NOT_FIRST
                        continue
                if state & _IN_MAP:
                    length = reader.key()
                    if depth == 1:
                        if bare and (reader.is_next(length, _KIND) or reader.is_next(length, _API_VERSION)):
                            reader.at += length
                            reader.skip()
                            continue
                        metadata = reader.is_next(length, _METADATA)
                    if state & _NOT_FIRST:
                        self._byte(44)
                    if sample == _TAKING:
                        part = self._begin_part(depth, start, self._used - begin)
                    self._string(reader, length)
                    self._byte(58)
                else:
                    if state & _NOT_FIRST:
                        self._byte(44)
                    if sample == _TAKING:
                        part = self._begin_part(depth, start, self._used - begin)
                self._state[depth] = state | _NOT_FIRST
            kind = reader.step()
            if kind < _ARRAY:
                self._scalar(kind, reader)
                if sample == _TAKING and part != _NONE:
                    self._end_part(part, reader.at, begin)
                if depth == 0:
                    break
                continue
            depth += 1
            if depth > _DEPTH:
                raise _too_deep()
            self._left[depth] = reader.number
            self._state[depth] = _IN_MAP if kind == _MAP else 0
            self._byte(123 if kind == _MAP else 91)
            if sample != _ALONE:
                if depth == 1:
                    part = _NONE
                    self._next[1] = 0 if sample == _COPYING else _NONE
                else:
                    self._next[depth] = self._inside[part] if sample == _COPYING and part != _NONE else _NONE
                self._open[depth] = part
            if metadata:
                metadata = False
                if sample == _TAKING:
                    self._json_start[part] = _NONE  # it holds a revision
                if kind == _MAP and revision != 0:
                    self._raw(_VERSION_START)
                    self._number(revision)
                    self._byte(34)
                    self._state[depth] = _IN_MAP | _NOT_FIRST
        if reader.at != reader.end:
            raise ValueError("a stored value has something after its end")
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _end_part(self, part: cython.Py_ssize_t, at: cython.Py_ssize_t, begin: cython.Py_ssize_t) -> cython.int:
        if self._json_start[part] != _NONE:
            self._end[part] = at
        self._json_end[part] = self._used - begin
        return 0


def _numbers(count):
    return array.array("q", bytes(8 * count))


_INFINITY = float("inf")
