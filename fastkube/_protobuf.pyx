"""Kubernetes objects (dicts as JSON has them) to and from the messages of their protobuf wire format, by tables.

A `Message` is one type of the wire: its fields with their numbers, or a SHAPE of its own where JSON shows a message as
something else (a quantity is a string, a time RFC 3339 text, an IntOrString either). Rules:
  1. What JSON leaves out is not written. Readers take a field that is not there as empty, so nothing is lost.
  2. What is on the wire is read, also when empty; the schema walk afterwards drops what JSON leaves out.
  3. Unknown fields are skipped. Anything malformed is a ValueError: a length beyond the end, a wrong wire type, depth.

The encoder writes from the end to the front: the length of a message is known when its head is to be written, so every
byte is written once. Fields come out by rising number and map entries by key, so equal objects make equal bytes.

Written in Cython's pure-Python syntax; runs interpreted under FASTKUBE_PURE=1 with equal results.
"""

import binascii
import datetime
import functools
import struct

import cython
import orjson

COMPILED = cython.compiled

DEPTH_MAX = 200
_DEPTH = cython.declare(cython.int, 200)

_STRING = cython.declare(cython.int, 1)
_BYTES = cython.declare(cython.int, 2)
_BOOL = cython.declare(cython.int, 3)
_INT = cython.declare(cython.int, 4)
_DOUBLE = cython.declare(cython.int, 5)
_MESSAGE = cython.declare(cython.int, 6)
_MAP = cython.declare(cython.int, 7)
_INLINE = cython.declare(cython.int, 8)
_RAW = cython.declare(cython.int, 9)

_KINDS = {
    "string": 1,
    "bytes": 2,  # base64 in JSON
    "bool": 3,
    "int": 4,
    "double": 5,
    "message": 6,
    "map": 7,
    "inline": 8,  # a message whose fields stand in its parent
    "raw": 9,  # bytes as they are
}

_PLAIN = cython.declare(cython.int, 0)
_QUANTITY = cython.declare(cython.int, 1)
_TIME = cython.declare(cython.int, 2)
_MICRO_TIME = cython.declare(cython.int, 3)
_INT_OR_STRING = cython.declare(cython.int, 4)
_JSON = cython.declare(cython.int, 5)
_ITEMS = cython.declare(cython.int, 6)
_OR_LIST = cython.declare(cython.int, 7)
_OR_BOOL = cython.declare(cython.int, 8)

_SHAPES = {
    "": 0,
    "quantity": 1,  # {string: 1}
    "time": 2,  # {seconds: 1, nanos: 2}
    "microTime": 3,  # the same
    "intOrString": 4,  # {type: 1, intVal: 2, strVal: 3}
    "json": 5,  # {raw: 1}, the text of any JSON
    "items": 6,  # {items: 1}, shown as the list itself
    "orList": 7,  # {schema: 1, list: 2}, shown as whichever is set
    "orBool": 8,  # {allows: 1, schema: 2}, likewise
}

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_ZERO_TIME = cython.declare(cython.longlong, -62135596800)  # the year 1: no time at all

_pack_double = struct.Struct("<d").pack
_read_double = struct.Struct("<d").unpack_from


@cython.final
@cython.cclass
class Field:
    """A field of a message; `message` is what a field of kind message, map (its values) or inline holds."""

    name = cython.declare(object, visibility="readonly")
    number = cython.declare(cython.int, visibility="readonly")
    kind = cython.declare(cython.int, visibility="readonly")
    repeated = cython.declare(cython.bint, visibility="readonly")
    message = cython.declare(object, visibility="readonly")
    values = cython.declare(object, visibility="readonly")

    def __init__(self, name, number, kind, repeated=False, message=None, values=None):
        """`values` is the Field (number 2) of a map's values."""
        self.name = name
        self.number = number
        self.kind = _KINDS[kind]
        self.repeated = repeated
        self.message = message
        self.values = values


@cython.final
@cython.cclass
class Message:
    """One type of the wire. `load` gives its fields when they are first needed (types may be recursive)."""

    name = cython.declare(object, visibility="readonly")
    shape = cython.declare(cython.int, visibility="readonly")
    _load = cython.declare(object)
    _fields = cython.declare(list)  # by falling number, the order in which they are written
    _by_number = cython.declare(dict)

    def __init__(self, name, load, shape=""):
        self.name = name
        self.shape = _SHAPES[shape]
        self._load = load
        self._fields = None
        self._by_number = None

    @property
    def fields(self):
        """The fields by name."""
        self._resolve()
        return {field.name: field for field in self._fields}

    @cython.cfunc
    def _resolve(self):
        if self._fields is None:
            self._fields = sorted(self._load(), key=lambda field: -field.number)
            self._by_number = {field.number: field for field in self._fields}


@functools.lru_cache(4096)
def _seconds(text):
    """(seconds, nanos) of an RFC 3339 time."""
    moment = datetime.datetime.fromisoformat(text) - _EPOCH
    return moment.days * 86400 + moment.seconds, moment.microseconds * 1000


@functools.lru_cache(4096)
def _time_text(seconds, nanos, micro):
    """RFC 3339 in UTC; ValueError for a year beyond 9999."""
    try:
        moment = _EPOCH + datetime.timedelta(seconds=seconds, microseconds=nanos // 1000 if micro else 0)
    except OverflowError:
        raise ValueError(f"proto: a time of {seconds} seconds is out of range") from None
    text = f"{moment.year:04}-{moment.month:02}-{moment.day:02}T{moment.hour:02}:{moment.minute:02}:{moment.second:02}"
    return f"{text}.{moment.microsecond:06}Z" if micro else text + "Z"


# ---------------------------------------------------------------- writing


@cython.final
@cython.cclass
class Encoder:
    """A buffer that is filled from its end. Kept and used again, but not by two threads at once."""

    _buffer = cython.declare(bytearray)
    _data = cython.declare(cython.uchar[::1])  # the same bytes
    _size = cython.declare(cython.Py_ssize_t)
    _at = cython.declare(cython.Py_ssize_t)  # where the bytes written so far begin

    def __init__(self, size: cython.Py_ssize_t = 65536):
        self._buffer = bytearray(size)
        self._data = self._buffer
        self._size = size
        self._at = size

    def encode(self, message: Message, obj) -> bytes:
        """The bytes of one message, without any envelope."""
        self._at = self._size
        self._message(message, obj)
        return bytes(memoryview(self._buffer)[self._at :])

    @cython.cfunc
    @cython.exceptval(-1)
    def _room(self, wanted: cython.Py_ssize_t) -> cython.int:
        if wanted <= self._at:
            return 0
        used: cython.Py_ssize_t = self._size - self._at
        size: cython.Py_ssize_t = max(2 * self._size, used + wanted)
        grown = bytearray(size)
        grown[size - used :] = memoryview(self._buffer)[self._at :]
        self._buffer = grown
        self._data = grown
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
            self._data[at] = cython.cast(cython.uchar, (number & 0x7F) | 0x80)
            number >>= 7
            at += 1
        self._data[at] = cython.cast(cython.uchar, number)
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _integer(self, value) -> cython.int:
        return self._varint(value if value >= 0 else value + 0x10000000000000000)

    @cython.cfunc
    @cython.exceptval(-1)
    def _bytes(self, text: bytes) -> cython.int:
        length: cython.Py_ssize_t = len(text)
        index: cython.Py_ssize_t
        self._room(length)
        self._at -= length
        for index in range(length):
            self._data[self._at + index] = text[index]
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _delimited(self, number: cython.int, text: bytes) -> cython.int:
        """A whole field of bytes."""
        self._bytes(text)
        self._varint(len(text))
        self._varint(number << 3 | 2)
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _message(self, message: Message, value) -> cython.int:
        if message.shape == _PLAIN:
            return self._fields(message, value)
        return self._shaped(message, value)

    @cython.cfunc
    @cython.exceptval(-1)
    def _fields(self, message: Message, obj: dict) -> cython.int:
        if message._fields is None:
            message._resolve()
        field: Field
        start: cython.Py_ssize_t
        for field in message._fields:
            if field.kind == _INLINE:
                start = self._size - self._at
                self._fields(field.message, obj)
                if self._size - self._at != start:
                    self._varint(self._size - self._at - start)
                    self._varint(field.number << 3 | 2)
                continue
            value = obj.get(field.name)
            if value is None:
                continue
            if field.repeated:
                for item in reversed(value):
                    self._field(field, item)
            elif field.kind == _MAP:
                self._map(field, value)
            else:
                self._field(field, value)
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _field(self, field: Field, value) -> cython.int:
        kind: cython.int = field.kind
        start: cython.Py_ssize_t
        if kind == _STRING:
            self._delimited(field.number, value.encode("utf-8", "surrogatepass"))
        elif kind == _MESSAGE:
            start = self._size - self._at
            self._message(field.message, value)
            self._varint(self._size - self._at - start)
            self._varint(field.number << 3 | 2)
        elif kind == _INT:
            self._integer(value)
            self._varint(field.number << 3)
        elif kind == _BOOL:
            self._varint(1 if value else 0)
            self._varint(field.number << 3)
        elif kind == _BYTES:
            self._delimited(field.number, binascii.a2b_base64(value))
        elif kind == _RAW:
            self._delimited(field.number, value)
        else:
            self._bytes(_pack_double(value))
            self._varint(field.number << 3 | 1)
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _map(self, field: Field, values: dict) -> cython.int:
        start: cython.Py_ssize_t
        for key in sorted(values, reverse=True):
            start = self._size - self._at
            value = values[key]
            if value is not None:
                self._field(field.values, value)
            self._delimited(1, key.encode("utf-8", "surrogatepass"))
            self._varint(self._size - self._at - start)
            self._varint(field.number << 3 | 2)
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _shaped(self, message: Message, value) -> cython.int:
        shape: cython.int = message.shape
        if shape == _QUANTITY:
            return self._delimited(1, value.encode())
        if shape == _INT_OR_STRING:
            if type(value) is str:
                self._delimited(3, value.encode("utf-8", "surrogatepass"))
                self._varint(1)
            else:
                self._integer(value)
                self._varint(2 << 3)
                self._varint(0)
            return self._varint(1 << 3)
        if shape == _TIME or shape == _MICRO_TIME:  # noqa: SIM109  (two comparisons of C ints)
            seconds, nanos = _seconds(value)
            if shape == _MICRO_TIME:
                self._integer(nanos)
                self._varint(2 << 3)
            self._integer(seconds)
            return self._varint(1 << 3)
        if shape == _JSON:
            return self._delimited(1, orjson.dumps(value))
        return self._choice(message, value)

    @cython.cfunc
    @cython.exceptval(-1)
    def _choice(self, message: Message, value) -> cython.int:
        """A list without its message, or one of two things."""
        message._resolve()
        one: Field = message._by_number[1]
        if message.shape == _ITEMS:
            for item in reversed(value):
                self._field(one, item)
            return 0
        two: Field = message._by_number[2]
        if message.shape == _OR_BOOL:
            if type(value) is dict:
                self._field(two, value)
            return self._field(one, value is not False)
        if type(value) is dict:
            return self._field(one, value)
        for item in reversed(value):
            self._field(two, item)
        return 0


# ---------------------------------------------------------------- reading


def decode(message: Message, source: bytes):
    """What the bytes of a message mean, as JSON has it. Raises ValueError for what is malformed."""
    return _Decoder(source).value(message, len(source), 0)


@cython.final
@cython.cclass
class _Decoder:
    source = cython.declare(bytes)
    at = cython.declare(cython.Py_ssize_t)

    def __init__(self, source: bytes):
        self.source = source
        self.at = 0

    @cython.cfunc
    @cython.exceptval(check=True)
    def varint(self, end: cython.Py_ssize_t) -> cython.ulonglong:
        number: cython.ulonglong = 0
        shift: cython.int = 0
        code: cython.uchar
        while True:
            if self.at >= end:
                raise ValueError("unexpected EOF")
            code = self.source[self.at]
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
        """A length and with it the end of what follows."""
        size: cython.ulonglong = self.varint(end)
        if size > cython.cast(cython.ulonglong, end - self.at):
            raise ValueError("unexpected EOF")
        return self.at + cython.cast(cython.Py_ssize_t, size)

    @cython.cfunc
    def text(self, end: cython.Py_ssize_t):
        start: cython.Py_ssize_t = self.at
        self.at = end
        return self.source[start:end].decode("utf-8", "replace")

    @cython.cfunc
    def integer(self, end: cython.Py_ssize_t):
        number: cython.ulonglong = self.varint(end)
        if number >> 63:
            return int(number) - 0x10000000000000000
        return number

    @cython.cfunc
    @cython.exceptval(-1)
    def skip(self, wire: cython.int, end: cython.Py_ssize_t) -> cython.int:
        if wire == 0:
            self.varint(end)
        elif wire == 2:
            self.at = self.length(end)
        elif wire == 1 or wire == 5:
            self.at += 8 if wire == 1 else 4
            if self.at > end:
                raise ValueError("unexpected EOF")
        else:
            raise ValueError(f"proto: illegal wireType {wire}")
        return 0

    @cython.cfunc
    def value(self, message: Message, end: cython.Py_ssize_t, depth: cython.int):
        """What the message from here to the end is in JSON."""
        if depth > _DEPTH:
            raise ValueError("proto: nested too deeply")
        obj: dict = {}
        if message.shape == _PLAIN:
            self.fields(message, end, obj, depth)
            return obj
        if message.shape == _TIME or message.shape == _MICRO_TIME:
            return self.time(message, end)
        self.fields(message, end, obj, depth)
        return self.shaped(message, obj)

    @cython.cfunc
    def shaped(self, message: Message, obj: dict):
        """A message that JSON shows as something else, out of its fields."""
        shape: cython.int = message.shape
        if shape == _QUANTITY:
            return obj.get("string", "0")
        if shape == _INT_OR_STRING:
            return obj.get("strVal", "") if obj.get("type", 0) == 1 else obj.get("intVal", 0)
        if shape == _JSON:
            raw = obj.get("raw", obj.get("Raw"))
            return orjson.loads(raw) if raw else None
        one: Field = message._by_number[1]
        if shape == _ITEMS:
            return obj.get(one.name, [])
        two: Field = message._by_number[2]
        if shape == _OR_BOOL:
            return obj[two.name] if two.name in obj else obj.get(one.name, False)
        return obj[one.name] if one.name in obj else obj.get(two.name, [])

    @cython.cfunc
    def time(self, message: Message, end: cython.Py_ssize_t):
        if self.at == end:
            return None
        obj: dict = {}
        self.fields(message, end, obj, 0)
        seconds = obj.get("seconds", 0)
        if seconds == _ZERO_TIME:
            return None
        return _time_text(seconds, obj.get("nanos", 0), message.shape == _MICRO_TIME)

    @cython.cfunc
    def fields(self, message: Message, end: cython.Py_ssize_t, obj: dict, depth: cython.int):
        if message._fields is None:
            message._resolve()
        field: Field
        tag: cython.ulonglong
        wire: cython.int
        while self.at < end:
            tag = self.varint(end)
            wire = tag & 7
            if tag >> 3 == 0 or tag >> 32:
                raise ValueError(f"proto: illegal tag {tag >> 3} (wire type {wire})")
            found = message._by_number.get(tag >> 3)
            if found is None:
                self.skip(wire, end)
                continue
            field = found
            if field.kind == _MAP:
                self.entry(field, wire, end, obj, depth)
            elif field.kind == _INLINE:
                self.check(field, wire, 2)
                self.fields(field.message, self.length(end), obj, depth + 1)
            elif not field.repeated:
                obj[field.name] = self.one(field, wire, end, depth)
            else:
                items: list = obj.setdefault(field.name, [])
                if wire == 2 and (field.kind == _INT or field.kind == _BOOL):
                    stop: cython.Py_ssize_t = self.length(end)
                    while self.at < stop:
                        items.append(self.one(field, 0, stop, depth))
                else:
                    items.append(self.one(field, wire, end, depth))

    @cython.cfunc
    @cython.exceptval(-1)
    def check(self, field: Field, wire: cython.int, wanted: cython.int) -> cython.int:
        if wire != wanted:
            raise ValueError(f"proto: wrong wireType = {wire} for field {field.name}")
        return 0

    @cython.cfunc
    def one(self, field: Field, wire: cython.int, end: cython.Py_ssize_t, depth: cython.int):
        kind: cython.int = field.kind
        start: cython.Py_ssize_t
        if kind == _STRING:
            self.check(field, wire, 2)
            return self.text(self.length(end))
        if kind == _MESSAGE:
            self.check(field, wire, 2)
            return self.value(field.message, self.length(end), depth + 1)
        if kind == _INT:
            self.check(field, wire, 0)
            return self.integer(end)
        if kind == _BOOL:
            self.check(field, wire, 0)
            return self.varint(end) != 0
        if kind == _BYTES or kind == _RAW:  # noqa: SIM109
            self.check(field, wire, 2)
            stop: cython.Py_ssize_t = self.length(end)
            start = self.at
            self.at = stop
            if kind == _RAW:
                return self.source[start:stop]
            return binascii.b2a_base64(self.source[start:stop], newline=False).decode()
        self.check(field, wire, 1)
        start = self.at
        self.skip(1, end)
        return _read_double(self.source, start)[0]

    @cython.cfunc
    def entry(self, field: Field, wire: cython.int, end: cython.Py_ssize_t, obj: dict, depth: cython.int):
        """One entry of a map: a message with a key and a value, either of which may be missing if empty."""
        self.check(field, wire, 2)
        stop: cython.Py_ssize_t = self.length(end)
        values: Field = field.values
        key = ""
        value = None
        tag: cython.ulonglong
        while self.at < stop:
            tag = self.varint(stop)
            if tag == 10:
                key = self.text(self.length(stop))
            elif tag >> 3 == 2:
                value = self.one(values, tag & 7, stop, depth)
            else:
                self.skip(tag & 7, stop)
        if value is None:
            value = self.value(values.message, stop, depth + 1) if values.kind == _MESSAGE else ""
        mapping: dict = obj.setdefault(field.name, {})
        mapping[key] = value
