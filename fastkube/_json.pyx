"""Stored msgpack to JSON, without Python objects.

What may stand in a value, and where its revision goes, stands in `_codec.pyx`. Strings are UTF-8 already and are
copied, escaped where JSON demands it.

Written in Cython's pure-Python syntax; runs interpreted under FASTKUBE_PURE=1 with equal results.
"""

import array
import struct

import cython

from fastkube._codec import DEPTH_MAX, KINDS, RECORD_HEAD_BYTES

if cython.compiled:
    from cython.cimports.cpython.bytearray import PyByteArray_AS_STRING
    from cython.cimports.cpython.bytes import PyBytes_AS_STRING
    from cython.cimports.fastkube._codec import _Reader
    from cython.cimports.libc.string import memcmp, memcpy
else:
    from fastkube._codec import _Reader

COMPILED = cython.compiled

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
_KIND = cython.declare(bytes, b"kind")
_API_VERSION = cython.declare(bytes, b"apiVersion")
_VERSION_START = cython.declare(bytes, b'"resourceVersion":"')
_RECORD_HEAD = cython.declare(cython.Py_ssize_t, RECORD_HEAD_BYTES)
_VERSION_AT = cython.declare(cython.Py_ssize_t, 8)
_DEPTH = cython.declare(cython.int, DEPTH_MAX)

_NATURAL = cython.declare(cython.int, KINDS.index("natural"))
_NEGATIVE = cython.declare(cython.int, KINDS.index("negative"))
_DOUBLE = cython.declare(cython.int, KINDS.index("double"))
_STRING = cython.declare(cython.int, KINDS.index("string"))
_ARRAY = cython.declare(cython.int, KINDS.index("array"))
_MAP = cython.declare(cython.int, KINDS.index("map"))

_IN_MAP = cython.declare(cython.int, 1)
_NOT_FIRST = cython.declare(cython.int, 2)

# Eight bytes at once: each byte's lowest and highest bit
_LOW_BITS = cython.declare(cython.ulonglong, 0x0101010101010101)
_HIGH_BITS = cython.declare(cython.ulonglong, 0x8080808080808080)

# Room that is there whenever a turn of the loop begins, and after each string: for separators, brackets and numbers
_TURN = cython.declare(cython.Py_ssize_t, 64)

_WORDS = cython.declare(tuple, (b"null", b"false", b"true"))

# Samples: how many of a writer, of how many nodes, and what a node may be
_SAMPLES_MAX = cython.declare(cython.Py_ssize_t, 4)
_NODES_MAX = cython.declare(cython.Py_ssize_t, 2048)
_NONE = cython.declare(cython.Py_ssize_t, -1)
_KEYED = cython.declare(cython.int, 1)
_FIXED = cython.declare(cython.int, 2)


# ---------------------------------------------------------------- bytes


@cython.cfunc
@cython.exceptval(check=False)
def _common(
    left: bytes, at: cython.Py_ssize_t, right: bytes, start: cython.Py_ssize_t, most: cython.Py_ssize_t
) -> cython.Py_ssize_t:
    """How many bytes two values have in common from there on, up to `most`, which both have."""
    done: cython.Py_ssize_t = 0
    if cython.compiled:
        some: cython.p_char = PyBytes_AS_STRING(left) + at
        others: cython.p_char = PyBytes_AS_STRING(right) + start
        while most - done >= 32 and memcmp(some + done, others + done, 32) == 0:
            done += 32
        while most - done >= 8 and memcmp(some + done, others + done, 8) == 0:
            done += 8
        while done < most and some[done] == others[done]:
            done += 1
        return done
    while most - done >= 32 and left[at + done : at + done + 32] == right[start + done : start + done + 32]:
        done += 32
    while done < most and left[at + done] == right[start + done]:
        done += 1
    return done


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


# ---------------------------------------------------------------- writing JSON


@cython.final
@cython.cclass
class _Sample:
    """A value, its JSON, and its nodes: where each lies in both. A node is a value with its key, if it has one. They
    are in the order of the bytes, so each byte is of the last node that begins up to there: of its key or its head, or
    of what follows the head of a string or a number."""

    source = cython.declare(bytes)
    at = cython.declare(cython.Py_ssize_t)
    json = cython.declare(bytes)
    bare = cython.declare(cython.bint)
    # Where the revision stands in the JSON; _NONE: nowhere
    revision = cython.declare(cython.Py_ssize_t)
    revision_end = cython.declare(cython.Py_ssize_t)
    count = cython.declare(cython.Py_ssize_t)
    start = cython.declare(cython.int[::1])
    end = cython.declare(cython.int[::1])
    json_start = cython.declare(cython.int[::1])
    json_end = cython.declare(cython.int[::1])
    traits = cython.declare(cython.int[::1])

    def __init__(self, room: cython.Py_ssize_t):
        self.count = 0
        self.revision = self.revision_end = _NONE
        self.start, self.end = _numbers(room), _numbers(room)
        self.json_start, self.json_end, self.traits = _numbers(room), _numbers(room), _numbers(room)

    @cython.cfunc
    @cython.exceptval(-2)
    def begin(self, at: cython.Py_ssize_t, json_at: cython.Py_ssize_t, traits: cython.int) -> cython.Py_ssize_t:
        """Note where a node begins; its number."""
        node: cython.Py_ssize_t = self.count
        if node >= _NODES_MAX:
            return _NONE
        self.count = node + 1
        self.start[node] = at
        self.json_start[node] = json_at
        self.traits[node] = traits
        return node

    @cython.cfunc
    @cython.exceptval(-1)
    def finish(self, node: cython.Py_ssize_t, at: cython.Py_ssize_t, json_at: cython.Py_ssize_t) -> cython.int:
        if node != _NONE:
            self.end[node] = at
            self.json_end[node] = json_at
        return 0

    @cython.cfunc
    def trimmed(self):
        """The same with room for its nodes only; None where it has too many."""
        if self.count >= _NODES_MAX:
            return None
        sample: _Sample = _Sample(self.count)
        sample.count, sample.revision, sample.revision_end = self.count, self.revision, self.revision_end
        sample.start[:], sample.end[:] = self.start[: self.count], self.end[: self.count]
        sample.json_start[:], sample.json_end[:] = self.json_start[: self.count], self.json_end[: self.count]
        sample.traits[:] = self.traits[: self.count]
        return sample

    @cython.cfunc
    @cython.exceptval(-1)
    def node_of(self, at: cython.Py_ssize_t, low: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """The node that a byte is of; not one before `low`."""
        high: cython.Py_ssize_t = self.count
        middle: cython.Py_ssize_t
        while high - low > 1:
            middle = (low + high) >> 1
            if self.start[middle] <= at:
                low = middle
            else:
                high = middle
        return low


@cython.final
@cython.cclass
class Writer:
    """A growing buffer that JSON is written into; `take` empties it for the next use. Not for two threads at once.

    With `sampling` some of the values are kept as samples: objects of a kind are much alike. Another is compared with a
    sample, and the JSON of all that is the same is copied, up to the first byte that differs; the node of that byte is
    written from the object, and so on behind it. An object that is unlike all samples becomes the next one.
    """

    _buffer = cython.declare(bytearray)
    _data = cython.declare(cython.uchar[::1])  # the same bytes
    _size = cython.declare(cython.Py_ssize_t)
    _used = cython.declare(cython.Py_ssize_t)
    # For each open container: how many values are left in it, whether it is a map and has had one already, its node
    _left = cython.declare(cython.ulonglong[::1])
    _state = cython.declare(cython.uchar[::1])
    _open = cython.declare(cython.int[::1])
    _sampling = cython.declare(cython.bint)
    _samples = cython.declare(list)
    _likely = cython.declare(cython.Py_ssize_t)  # the sample that the last value was like

    def __init__(self, size: cython.Py_ssize_t = 65536, sampling: cython.bint = False):
        self._buffer = bytearray(size)
        self._data = self._buffer
        self._size = size
        self._used = 0
        self._left = array.array("Q", bytes(8 * (_DEPTH + 1)))
        self._state = bytearray(_DEPTH + 1)
        self._open = _numbers(_DEPTH + 1)
        self._sampling = sampling
        self._samples = []
        self._likely = 0

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
                self._transcode(reader, revision, bare, None)
            if reader.at != reader.end:
                raise ValueError("a stored value has something after its end")
        except BaseException:
            self._used = 0
            raise
        return 0

    def records(self, found: list, at: cython.Py_ssize_t, size: cython.Py_ssize_t, bare: bool, comma: bool) -> int:
        """The objects of (key, record) from `at` on, as `value` writes them, until `size` bytes are written; which is
        next."""
        reader: _Reader = _Reader(b"")
        revision: cython.ulonglong
        while at < len(found) and self._used < size:
            pair: tuple = found[at]
            reader.source = pair[1]
            reader.at, reader.end = _VERSION_AT, len(reader.source)
            revision = reader.little_endian()
            reader.at = _RECORD_HEAD
            self._value(reader, revision, bare, comma)
            at, comma = at + 1, True
        return at

    @cython.cfunc
    @cython.exceptval(-1)
    def _alike(self, reader: _Reader, revision: cython.ulonglong, bare: cython.bint) -> cython.int:
        """Write a value with the help of a sample, or as a sample."""
        begin: cython.Py_ssize_t = self._used
        at: cython.Py_ssize_t = reader.at
        count: cython.Py_ssize_t = len(self._samples)
        turn: cython.Py_ssize_t
        which: cython.Py_ssize_t
        for turn in range(count):
            which = (self._likely + turn) % count
            if self._follow(self._samples[which], reader, revision, bare):
                self._likely = which
                return 0
            self._used, reader.at = begin, at
        notes: _Sample = _notes
        notes.count, notes.revision = 0, _NONE
        self._transcode(reader, revision, bare, notes)
        sample: _Sample = notes.trimmed()
        if sample is not None:
            sample.source, sample.at, sample.bare = reader.source, at, bare
            sample.json = bytes(memoryview(self._buffer)[begin : self._used])
            self._keep(sample)
        return 0

    @cython.cfunc
    def _keep(self, sample: _Sample):
        """In the place of the one after that which was of use last, if there are enough."""
        if len(self._samples) < _SAMPLES_MAX:
            self._likely = len(self._samples)
            self._samples.append(sample)
        else:
            self._likely = (self._likely + 1) % _SAMPLES_MAX
            self._samples[self._likely] = sample

    @cython.cfunc
    @cython.exceptval(-1)
    def _follow(self, sample: _Sample, reader: _Reader, revision: cython.ulonglong, bare: cython.bint) -> cython.int:
        """Write a value that is like a sample; 0 if it is not, and what was written is to be thrown away."""
        here: cython.Py_ssize_t = sample.at
        end: cython.Py_ssize_t = sample.end[0]
        done: cython.Py_ssize_t = 0  # of the sample's JSON
        lost: cython.Py_ssize_t = 0  # of the sample, for what is inside differs
        node: cython.Py_ssize_t = 0
        same: cython.Py_ssize_t
        if sample.bare != bare or (sample.revision != _NONE) != (revision != 0):
            return 0
        while True:
            same = _common(sample.source, here, reader.source, reader.at, min(end - here, reader.end - reader.at))
            here += same
            reader.at += same
            if here == end:
                break
            node = sample.node_of(here, node)
            if here >= sample.end[node] or sample.traits[node] & _FIXED:
                return 0
            if node + 1 < sample.count and sample.start[node + 1] < sample.end[node]:
                lost += sample.end[node] - sample.start[node]
                if 4 * lost > end - sample.at:
                    return 0
            reader.at -= here - sample.start[node]
            self._copy_json(sample, done, sample.json_start[node], revision)
            if sample.traits[node] & _KEYED:
                self._string(reader, reader.key())
                self._byte(58)
            self._transcode(reader, 0, False, None)
            here = sample.end[node]
            done = sample.json_end[node]
        self._copy_json(sample, done, len(sample.json), revision)
        return 1

    @cython.cfunc
    @cython.exceptval(-1)
    def _copy_json(
        self, sample: _Sample, start: cython.Py_ssize_t, stop: cython.Py_ssize_t, revision: cython.ulonglong
    ) -> cython.int:
        """Copy from a sample's JSON, with another revision in the place of its own."""
        if start <= sample.revision < stop:
            self._copy_json(sample, start, sample.revision, 0)
            self._number(revision)
            start = sample.revision_end
        self._room(stop - start + _TURN)
        _copy(self._buffer, self._used, sample.json, start, stop - start)
        self._used += stop - start
        return 0

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
        self, reader: _Reader, revision: cython.ulonglong, bare: cython.bint, notes: _Sample | None
    ) -> cython.int:
        """Each turn is one value, with its key if it stands in a map, or the end of a container. `notes` are taken of
        the nodes."""
        begin: cython.Py_ssize_t = self._used
        start: cython.Py_ssize_t = reader.at
        node: cython.Py_ssize_t = _NONE  # the value to come
        depth: cython.int = 0
        state: cython.int = 0
        traits: cython.int = _FIXED
        kind: cython.int
        length: cython.Py_ssize_t = 0
        metadata: cython.bint = False  # whether the value to come is the object's own metadata
        typed: cython.bint
        while True:
            if self._used + _TURN > self._size:
                self._room(_TURN)
            if depth > 0:
                state = self._state[depth]
                if self._left[depth] == 0:
                    self._byte(125 if state & _IN_MAP else 93)
                    if notes is not None:
                        notes.finish(self._open[depth], reader.at, self._used - begin)
                    depth -= 1
                    if depth == 0:
                        break
                    continue
                self._left[depth] -= 1
                start, traits = reader.at, 0
                if state & _IN_MAP:
                    length, traits = reader.key(), _KEYED
                    if depth == 1:
                        typed = reader.is_next(length, _KIND) or reader.is_next(length, _API_VERSION)
                        if bare and typed:
                            reader.at += length
                            reader.skip()
                            continue
                        metadata = reader.is_next(length, _METADATA)
                        if typed or metadata:
                            traits = _FIXED
                if state & _NOT_FIRST:
                    self._byte(44)
                self._state[depth] = state | _NOT_FIRST
            if notes is not None:
                node = notes.begin(start, self._used - begin, traits)
            if depth > 0 and state & _IN_MAP:
                self._string(reader, length)
                self._byte(58)
            kind = reader.step()
            if kind < _ARRAY:
                self._scalar(kind, reader)
                if notes is not None:
                    notes.finish(node, reader.at, self._used - begin)
                if depth == 0:
                    break
                continue
            depth += 1
            if depth > _DEPTH:
                raise ValueError("a stored value is nested too deeply")
            self._left[depth] = reader.number
            self._state[depth] = _IN_MAP if kind == _MAP else 0
            self._open[depth] = node
            self._byte(123 if kind == _MAP else 91)
            if metadata:
                metadata = False
                if kind == _MAP and revision != 0:
                    self._raw(_VERSION_START)
                    if notes is not None:
                        notes.revision = self._used - begin
                    self._number(revision)
                    if notes is not None:
                        notes.revision_end = self._used - begin
                    self._byte(34)
                    self._state[depth] = _IN_MAP | _NOT_FIRST
        return 0


def _numbers(count):
    return array.array("i", bytes(4 * count))


_notes = cython.declare(_Sample, _Sample(_NODES_MAX))
_INFINITY = float("inf")
