"""Protobuf messages as tuples, by tables: what gRPC services ask and answer.

A `Shape` is one type of the wire: for each place in the tuple the number and kind of its field. Rules:
  1. What is zero, empty, False or None is not written, but for the elements of a repeated field. What is not there is
     read as that, and repeated fields as lists.
  2. Unknown fields are skipped. Anything malformed is a ValueError.
  3. The writer goes from the end to the front, so every byte is written once. Fields come out by rising number.

Written in Cython's pure-Python syntax; runs interpreted under FASTKUBE_PURE=1 with equal results.
"""

import cython

COMPILED = cython.compiled

_DEPTH = cython.declare(cython.int, 100)

_BYTES = cython.declare(cython.int, 1)
_STRING = cython.declare(cython.int, 2)
_INT = cython.declare(cython.int, 3)  # signed: int32, int64, enums
_UINT = cython.declare(cython.int, 4)
_BOOL = cython.declare(cython.int, 5)
_MESSAGE = cython.declare(cython.int, 6)

_KINDS = {"bytes": 1, "string": 2, "int": 3, "uint": 4, "bool": 5}
_ZEROES = {"bytes": b"", "string": "", "int": 0, "uint": 0, "bool": False}

_new = tuple.__new__


@cython.final
@cython.cclass
class _Field:
    number = cython.declare(cython.int)
    place = cython.declare(cython.int)
    kind = cython.declare(cython.int)
    repeated = cython.declare(cython.bint)
    shape = cython.declare(object)

    def __init__(self, place, number, kind, repeated):
        self.number = number
        self.place = place
        self.repeated = repeated
        self.shape = None if isinstance(kind, str) else kind
        self.kind = _KINDS[kind] if isinstance(kind, str) else 6


@cython.final
@cython.cclass
class Shape:
    """`make` is the tuple's class. `fields` has, for each place, (number, kind) or (number, [kind]) if it is repeated.

    A kind is a word of `_KINDS` or another Shape; `define` gives the fields later, for shapes that hold themselves.
    """

    make = cython.declare(object, visibility="readonly")
    _zeroes = cython.declare(list)
    _lists = cython.declare(list)  # places of repeated fields
    _falling = cython.declare(list)
    _by_number = cython.declare(dict)

    def __init__(self, make, fields=None):
        self.make = make
        if fields is not None:
            self.define(fields)

    def define(self, fields):
        self._zeroes = []
        self._lists = []
        found = []
        for place, (number, kind) in enumerate(fields):
            repeated = isinstance(kind, list)
            if repeated:
                kind = kind[0]
                self._lists.append(place)
            self._zeroes.append(_ZEROES[kind] if isinstance(kind, str) and not repeated else None)
            found.append(_Field(place, number, kind, repeated))
        self._by_number = {field_number(field): field for field in found}
        self._falling = sorted(found, key=field_number, reverse=True)

    def encode(self, values) -> bytes:
        return _Writer().whole(self, values)

    def decode(self, data: bytes):
        """A tuple of the shape's class. Raises ValueError."""
        return _read(self, data, 0, len(data), 0)


def field_number(field: _Field):
    return field.number


# ---------------------------------------------------------------- writing


@cython.final
@cython.cclass
class _Writer:
    """A buffer that is filled from its end."""

    _buffer = cython.declare(bytearray)
    _size = cython.declare(cython.Py_ssize_t)
    _at = cython.declare(cython.Py_ssize_t)  # where the bytes written so far begin

    def __init__(self):
        self._buffer = bytearray(512)
        self._size = 512
        self._at = 512

    @cython.cfunc
    def whole(self, shape: Shape, values):
        self._fields(shape, values)
        return bytes(self._buffer[self._at :])

    @cython.cfunc
    @cython.exceptval(-1)
    def _room(self, wanted: cython.Py_ssize_t) -> cython.int:
        if wanted <= self._at:
            return 0
        used: cython.Py_ssize_t = self._size - self._at
        size: cython.Py_ssize_t = max(2 * self._size, used + wanted)
        grown = bytearray(size)
        grown[size - used :] = self._buffer[self._at :]
        self._buffer = grown
        self._size = size
        self._at = size - used
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _varint(self, number: cython.ulonglong) -> cython.int:
        self._room(10)
        width: cython.int = 1
        rest: cython.ulonglong = number >> 7
        while rest:
            width += 1
            rest >>= 7
        self._at -= width
        at: cython.Py_ssize_t = self._at
        while number > 0x7F:
            self._buffer[at] = (number & 0x7F) | 0x80
            number >>= 7
            at += 1
        self._buffer[at] = number
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _delimited(self, number: cython.int, text: bytes) -> cython.int:
        length: cython.Py_ssize_t = len(text)
        self._room(length)
        self._at -= length
        self._buffer[self._at : self._at + length] = text
        self._varint(length)
        self._varint(number << 3 | 2)
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _fields(self, shape: Shape, values) -> cython.int:
        field: _Field
        for field in shape._falling:
            value = values[field.place]
            if field.repeated:
                if value:
                    for item in reversed(value):
                        self._field(field, item)
            elif value is not None and (value or field.kind == _MESSAGE):
                self._field(field, value)
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _field(self, field: _Field, value) -> cython.int:
        kind: cython.int = field.kind
        start: cython.Py_ssize_t
        if kind == _BYTES:
            self._delimited(field.number, value)
        elif kind == _MESSAGE:
            start = self._size - self._at
            self._fields(field.shape, value)
            self._varint(self._size - self._at - start)
            self._varint(field.number << 3 | 2)
        elif kind == _STRING:
            self._delimited(field.number, value.encode())
        else:
            self._varint(value if value >= 0 else value + 0x10000000000000000)
            self._varint(field.number << 3)
        return 0


# ---------------------------------------------------------------- reading


@cython.cfunc
def _read(shape: Shape, data: bytes, at: cython.Py_ssize_t, end: cython.Py_ssize_t, depth: cython.int):
    if depth > _DEPTH:
        raise ValueError("proto: exceeded maximum recursion depth")
    values: list = shape._zeroes.copy()
    for place in shape._lists:
        values[place] = []
    number: cython.ulonglong
    wire: cython.int
    kind: cython.int
    stop: cython.Py_ssize_t
    reader: _Reader = _Reader(data, at)
    field: _Field
    while reader.at < end:
        number = reader.varint(end)
        wire = number & 7
        field = shape._by_number.get(number >> 3)
        if field is None:
            reader.skip(number >> 3, wire, end)
            continue
        kind = field.kind
        if kind != _BYTES and kind != _STRING and kind != _MESSAGE:
            if wire == 2 and field.repeated:
                stop = reader.length(end)
                while reader.at < stop:
                    values[field.place].append(_number(kind, reader.varint(stop)))
                continue
            if wire != 0:
                raise ValueError(f"proto: wrong wireType = {wire} for field {number >> 3}")
            value = _number(kind, reader.varint(end))
        else:
            if wire != 2:
                raise ValueError(f"proto: wrong wireType = {wire} for field {number >> 3}")
            stop = reader.length(end)
            if kind == _BYTES:
                value = data[reader.at : stop]
            elif kind == _STRING:
                value = data[reader.at : stop].decode()
            else:
                value = _read(field.shape, data, reader.at, stop, depth + 1)
            reader.at = stop
        if field.repeated:
            values[field.place].append(value)
        else:
            values[field.place] = value
    return _new(shape.make, values)


@cython.cfunc
def _number(kind: cython.int, number: cython.ulonglong):
    if kind == _BOOL:
        return number != 0
    if kind == _INT and number >> 63:
        return int(number) - 0x10000000000000000
    return number


@cython.final
@cython.cclass
class _Reader:
    data = cython.declare(bytes)
    at = cython.declare(cython.Py_ssize_t)

    def __init__(self, data: bytes, at: cython.Py_ssize_t):
        self.data = data
        self.at = at

    @cython.cfunc
    @cython.exceptval(check=True)
    def varint(self, end: cython.Py_ssize_t) -> cython.ulonglong:
        number: cython.ulonglong = 0
        shift: cython.int = 0
        code: cython.uchar
        while True:
            if self.at >= end:
                raise ValueError("unexpected EOF")
            code = self.data[self.at]
            self.at += 1
            if shift == 63 and code > 1:
                raise ValueError("proto: integer overflow")
            number |= cython.cast(cython.ulonglong, code & 0x7F) << shift
            if code < 0x80:
                return number
            shift += 7

    @cython.cfunc
    @cython.exceptval(-1)
    def length(self, end: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Reads a length; where what follows ends."""
        size: cython.ulonglong = self.varint(end)
        if size > cython.cast(cython.ulonglong, end - self.at):
            raise ValueError("unexpected EOF")
        return self.at + cython.cast(cython.Py_ssize_t, size)

    @cython.cfunc
    @cython.exceptval(-1)
    def skip(self, number: cython.ulonglong, wire: cython.int, end: cython.Py_ssize_t) -> cython.int:
        if number == 0:
            raise ValueError("proto: illegal tag 0")
        if wire == 0:
            self.varint(end)
        elif wire == 2:
            self.at = self.length(end)
        elif wire == 5 or wire == 1:
            self.at += 4 if wire == 5 else 8
            if self.at > end:
                raise ValueError("unexpected EOF")
        else:
            raise ValueError(f"proto: illegal wireType {wire}")
        return 0
