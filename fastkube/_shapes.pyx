"""Shapes: encoded text with holes where it may differ from text that means the same but for what stands there.

    {"metadata":{"name":"pod-1"},"status":{"podIP":"10.0.0.7"}}
    ─▶ {"metadata":{"name":"○"},"status":{"podIP":"○"}}    and what stood there: pod-1, 10.0.0.7

`of_msgpack` takes stored values apart and `of_json` request bodies; `Form.fill` puts a stored value together again.
Where holes are is told by a Place: made of a dict by key (bytes), whose values are the places inside (through lists as
well) or what must stand there for a hole, one of the kinds below. Anything else that stands there is part of the shape,
so two texts of one shape differ in nothing but well-formed contents of the same kind.

A content is its kind's family (one byte: only within a family are contents compared) and the text.
Under the key ANY is what holds for all other keys, under FOREIGN for those that are not Kubernetes' own.
In the sets of fields (FIELDS) items that are known by a uid, an address or a network have it in their key: the first of
a map is a hole too. Where NOTHING may stand the text has no shape.

A request body (`strict`) may write what is stored in several ways: one that writes the content of a hole in another way
than it is stored has no shape, since nobody could tell whether the two are the same.

Written in Cython's pure-Python syntax; runs interpreted under FASTKUBE_PURE=1 with equal results.
"""

import cython

COMPILED = cython.compiled

ANY = b"*"
FOREIGN = b"+"

NAME, LABEL, NODE, UID, TIME, MICRO_TIME, ADDRESS, TEXT = range(1, 9)
NUMBER, GENERATION, VERSION, ACCESS, PREFIX, FIELDS, NOTHING, NETWORK = range(9, 17)

_NAME = cython.declare(cython.int, 1)
_LABEL = cython.declare(cython.int, 2)
_NODE = cython.declare(cython.int, 3)
_UID = cython.declare(cython.int, 4)
_TIME = cython.declare(cython.int, 5)
_MICRO_TIME = cython.declare(cython.int, 6)
_ADDRESS = cython.declare(cython.int, 7)
_TEXT = cython.declare(cython.int, 8)
_NUMBER = cython.declare(cython.int, 9)
_GENERATION = cython.declare(cython.int, 10)
_VERSION = cython.declare(cython.int, 11)
_ACCESS = cython.declare(cython.int, 12)
_PREFIX = cython.declare(cython.int, 13)
_FIELDS = cython.declare(cython.int, 14)
_NOTHING = cython.declare(cython.int, 15)
_NETWORK = cython.declare(cython.int, 16)

FAMILIES = (b"", b"n", b"n", b"o", b"u", b"t", b"m", b"i", b"x", b"d", b"g", b"r", b"v", b"p", b"", b"", b"k")
_FAMILIES = cython.declare(tuple, FAMILIES)
_TIMES = cython.declare(bytes, b"tm")

_ANY = cython.declare(bytes, ANY)
_FOREIGN = cython.declare(bytes, FOREIGN)
_OWN_KEYS = cython.declare(bytes, b"k8s.io")
_OWN_KEYS_TOO = cython.declare(bytes, b"kubernetes.io")
_BY_UID = cython.declare(bytes, b'k:{"uid":"')
_BY_ADDRESS = cython.declare(bytes, b'k:{"ip":"')
_BY_END = cython.declare(bytes, b'"}')
_BY_NETWORK = cython.declare(bytes, b'v:"')
_BY_NETWORK_END = cython.declare(bytes, b'"')
_NETWORK_END = cython.declare(bytes, b".0/24")
_ACCESS_START = cython.declare(bytes, b"kube-api-access-")

# What stands for a hole in a shape: nothing in msgpack begins so
_MARK = cython.declare(bytes, b"\xc1")
_KEY_MARK = cython.declare(bytes, b"\xc1k")
# and in JSON: a byte that must not stand in a string
_JSON_MARK = cython.declare(bytes, b"\x01")

# The heads of strings by their length
_HEADS = cython.declare(
    tuple, tuple(bytes((0xA0 | length,)) if length < 32 else bytes((0xD9, length)) for length in range(256))
)

_DEPTH_MAX = cython.declare(cython.int, 64)
_TEXT_MAX = cython.declare(cython.Py_ssize_t, 1024)
_NAME_MAX = cython.declare(cython.Py_ssize_t, 253)
_LABEL_MAX = cython.declare(cython.Py_ssize_t, 63)
_CONTENTS_MAX = cython.declare(cython.Py_ssize_t, 200)
_NUMBER_MAX = cython.declare(cython.ulonglong, 0x7FFFFFFF)

_DAYS = cython.declare(bytes, bytes((0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)))


class Shapeless(ValueError):
    """Text that cannot be taken apart."""


# ---------------------------------------------------------------- what may stand in a hole


@cython.cfunc
@cython.exceptval(check=False)
def _fits(kind: cython.int, source: bytes, at: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.bint:
    """Whether this text is a well-formed and canonical content."""
    length: cython.Py_ssize_t = end - at
    if length < 1 or length > _TEXT_MAX:
        return False
    if kind == _TEXT:
        return _is_printable(source, at, end)
    if kind == _NAME or kind == _NODE:  # noqa: SIM109
        return length <= _NAME_MAX and _is_name(source, at, end, True)
    if kind == _LABEL:
        return length <= _LABEL_MAX and _is_name(source, at, end, False)
    if kind == _UID:
        return length == 36 and _is_uid(source, at, end)
    if kind == _TIME:
        return length == 20 and source[end - 1] == 90 and _is_time(source, at)
    if kind == _MICRO_TIME:
        return length == 27 and source[end - 1] == 90 and _is_micro_time(source, at)
    if kind == _ADDRESS:
        return length <= 15 and _is_address(source, at, end)
    if kind == _NETWORK:
        return 10 <= length <= 18 and _is_text(source, end - 5, _NETWORK_END) and _is_address(source, at, end - 3)
    if kind == _VERSION:
        return length <= 18 and source[at] != 48 and _are_digits(source, at, end)
    if kind == _PREFIX:
        return length <= _LABEL_MAX and source[end - 1] == 45 and _is_name(source, at, end - 1, False)
    if kind == _ACCESS:
        return length == 21 and _is_text(source, at, _ACCESS_START) and _is_name(source, at + 16, end, False)
    return False


@cython.cfunc
@cython.exceptval(check=False)
def _is_printable(source: bytes, at: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.bint:
    """Printable ASCII."""
    code: cython.uchar
    while at < end:
        code = source[at]
        if code < 32 or code > 126:
            return False
        at += 1
    return True


@cython.cfunc
@cython.exceptval(check=False)
def _is_name(source: bytes, at: cython.Py_ssize_t, end: cython.Py_ssize_t, dots: cython.bint) -> cython.bint:
    """A DNS label, or (`dots`) several."""
    code: cython.uchar
    inner: cython.bint = False  # whether a letter or digit was just before
    plain: cython.bint
    length: cython.Py_ssize_t = 0
    while at < end:
        code = source[at]
        plain = 97 <= code <= 122 or 48 <= code <= 57
        length += 1
        if code == 46:
            if not (dots and inner) or length > _LABEL_MAX:
                return False
            length = 0
        elif not plain and (code != 45 or length == 1):
            return False
        inner = plain
        at += 1
    return inner


@cython.cfunc
@cython.exceptval(check=False)
def _is_uid(source: bytes, at: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.bint:
    code: cython.uchar
    while at < end:
        code = source[at]
        if not (48 <= code <= 57 or 97 <= code <= 102 or code == 45):
            return False
        at += 1
    return True


@cython.cfunc
@cython.exceptval(check=False)
def _are_digits(source: bytes, at: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.bint:
    while at < end:
        if not 48 <= source[at] <= 57:
            return False
        at += 1
    return True


@cython.cfunc
@cython.exceptval(check=False)
def _two(source: bytes, at: cython.Py_ssize_t) -> cython.int:
    return (source[at] - 48) * 10 + source[at + 1] - 48


@cython.cfunc
@cython.exceptval(check=False)
def _is_leap(century: cython.int, year: cython.int) -> cython.bint:
    return year % 4 == 0 if year else century % 4 == 0


@cython.cfunc
@cython.exceptval(check=False)
def _is_time(source: bytes, at: cython.Py_ssize_t) -> cython.bint:
    """2026-11-28T04:18:58, which 19 bytes can be."""
    if not (
        _are_digits(source, at, at + 4)
        and source[at + 4] == 45
        and _are_digits(source, at + 5, at + 7)
        and source[at + 7] == 45
        and _are_digits(source, at + 8, at + 10)
        and source[at + 10] == 84
        and _are_digits(source, at + 11, at + 13)
        and source[at + 13] == 58
        and _are_digits(source, at + 14, at + 16)
        and source[at + 16] == 58
        and _are_digits(source, at + 17, at + 19)
    ):
        return False
    month: cython.int = _two(source, at + 5)
    day: cython.int = _two(source, at + 8)
    if source[at] == 48 or month < 1 or month > 12 or day < 1:
        return False
    if day > _DAYS[month] and not (month == 2 and day == 29 and _is_leap(_two(source, at), _two(source, at + 2))):
        return False
    return _two(source, at + 11) < 24 and _two(source, at + 14) < 60 and _two(source, at + 17) < 60


@cython.cfunc
@cython.exceptval(check=False)
def _is_micro_time(source: bytes, at: cython.Py_ssize_t) -> cython.bint:
    return _is_time(source, at) and source[at + 19] == 46 and _are_digits(source, at + 20, at + 26)


@cython.cfunc
@cython.exceptval(check=False)
def _is_address(source: bytes, at: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.bint:
    """IPv4 as it is written canonically."""
    dots: cython.int = 0
    number: cython.int = -1
    code: cython.uchar
    while at < end:
        code = source[at]
        if code == 46:
            if number < 0:
                return False
            dots += 1
            number = -1
        elif not 48 <= code <= 57 or number == 0:
            return False
        else:
            number = code - 48 if number < 0 else number * 10 + code - 48
            if number > 255:
                return False
        at += 1
    return dots == 3 and number >= 0


@cython.cfunc
@cython.exceptval(check=False)
def _is_text(source: bytes, at: cython.Py_ssize_t, text: bytes) -> cython.bint:
    """Whether this text, which there is room for, stands here."""
    index: cython.Py_ssize_t
    for index in range(len(text)):  # noqa: SIM110  (a generator would not compile to a C loop)
        if source[at + index] != text[index]:
            return False
    return True


# ---------------------------------------------------------------- places


@cython.final
@cython.cclass
class Place:
    """What may stand at one place: something of a `kind`, or (0) a map with places of its own."""

    kind = cython.declare(cython.int, visibility="readonly")
    names = cython.declare(list, visibility="readonly")
    inner = cython.declare(list, visibility="readonly")
    _any = cython.declare(object)
    _foreign = cython.declare(object)

    def __init__(self, told):
        """`told`: a kind, or a dict of places by key."""
        self.kind = 0 if isinstance(told, dict) else told
        self.names = []
        self.inner = []
        self._any = self._foreign = None
        if self.kind:
            return
        for key, value in told.items():
            place = Place(value)
            if key == _ANY:
                self._any = place
            elif key == _FOREIGN:
                self._foreign = place
            else:
                self.names.append(key)
                self.inner.append(place)

    @cython.cfunc
    def under(self, source: bytes, start: cython.Py_ssize_t, stop: cython.Py_ssize_t):
        """The place under the key that stands there, or None."""
        index: cython.Py_ssize_t
        name: bytes
        for index in range(len(self.names)):
            name = self.names[index]
            if len(name) == stop - start and _is_text(source, start, name):
                return self.inner[index]
        if self._foreign is None:
            return self._any
        key: bytes = _piece(source, start, stop)
        return None if _OWN_KEYS in key or _OWN_KEYS_TOO in key else self._foreign


@cython.cfunc
def _piece(source: bytes, start: cython.Py_ssize_t, stop: cython.Py_ssize_t) -> bytes:
    if cython.compiled:
        text: cython.p_char = source
        return text[start:stop]
    return source[start:stop]


# ---------------------------------------------------------------- taking apart


@cython.final
@cython.cclass
class _Splitter:
    """A position in a text. `pieces` is what was passed, with a mark for each hole; `copied` is up to where."""

    source = cython.declare(bytes)
    at = cython.declare(cython.Py_ssize_t)
    end = cython.declare(cython.Py_ssize_t)
    copied = cython.declare(cython.Py_ssize_t)
    number = cython.declare(cython.ulonglong)
    strict = cython.declare(cython.bint)
    pieces = cython.declare(list)
    contents = cython.declare(list)

    def __init__(self, source: bytes, strict: bool):
        self.source = source
        self.strict = strict
        self.at = 0
        self.end = len(source)
        self.copied = 0
        self.number = 0
        self.pieces = []
        self.contents = []

    @cython.cfunc
    @cython.exceptval(-1)
    def hole(
        self,
        start: cython.Py_ssize_t,
        text: cython.Py_ssize_t,
        stop: cython.Py_ssize_t,
        mark: bytes,
        family: bytes,
    ) -> cython.int:
        """What is from `start` to `stop` is a hole; its text begins at `text`."""
        self.pieces.append(_piece(self.source, self.copied, start))
        self.pieces.append(mark)
        self.contents.append(family + _piece(self.source, text, stop))
        self.copied = stop
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def stays(self, kind: cython.int, empty: cython.bint) -> cython.int:
        """A text that does not fit a hole of this kind is part of the shape, if it says nothing in another way."""
        if kind == _NOTHING or (
            self.strict and not empty and (kind in (_TIME, _MICRO_TIME, _ADDRESS, _VERSION, _NUMBER, _GENERATION))
        ):
            raise Shapeless("written in another way")
        return 0

    @cython.cfunc
    def done(self) -> list:
        self.pieces.append(_piece(self.source, self.copied, self.end))
        return self.pieces

    # ------------------------------------------------------------ msgpack

    @cython.cfunc
    @cython.exceptval(-1)
    def head(self) -> cython.int:
        """Read a head: 1 a string of `number` bytes, which come next; 2 an array, 3 a map, 4 a natural number; 0 else,
        with all of it passed."""
        if self.at >= self.end:
            raise Shapeless("cut short")
        code: cython.uchar = self.source[self.at]
        self.at += 1
        if code < 0x80:
            self.number = code
            return 4
        if code < 0x90:
            self.number = code & 15
            return 3
        if code < 0xA0:
            self.number = code & 15
            return 2
        if code < 0xC0:
            self.number = code & 31
            return self.text()
        if code >= 0xE0 or code == 0xC0 or code == 0xC2 or code == 0xC3:
            return 0
        if 0xD9 <= code <= 0xDB:
            self.wide(1 << (code - 0xD9))
            return self.text()
        if 0xDC <= code <= 0xDD:
            self.wide(2 << (code - 0xDC))
            return 2
        if 0xDE <= code <= 0xDF:
            self.wide(2 << (code - 0xDE))
            return 3
        if 0xCC <= code <= 0xCF:
            self.wide(1 << (code - 0xCC))
            return 4
        width: cython.int = 0
        if 0xD0 <= code <= 0xD3:
            width = 1 << (code - 0xD0)
        elif code == 0xCA or code == 0xCB:
            width = 4 << (code - 0xCA)
        if width == 0 or self.at + width > self.end:
            raise Shapeless("no value of an object")
        self.at += width
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def wide(self, width: cython.int) -> cython.int:
        if self.at + width > self.end:
            raise Shapeless("cut short")
        number: cython.ulonglong = 0
        index: cython.int
        for index in range(width):
            number = (number << 8) | self.source[self.at + index]
        self.at += width
        self.number = number
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def text(self) -> cython.int:
        if self.number > cython.cast(cython.ulonglong, self.end - self.at):
            raise Shapeless("cut short")
        return 1

    @cython.cfunc
    @cython.exceptval(-1)
    def skip(self) -> cython.int:
        """Pass one value."""
        left: cython.ulonglong = 1
        kind: cython.int
        while left > 0:
            left -= 1
            kind = self.head()
            if kind == 1:
                self.at += self.number
            elif kind == 2:
                left += self.number
            elif kind == 3:
                left += 2 * self.number
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def value(self, place: Place, depth: cython.int) -> cython.int:
        """One value at a place."""
        start: cython.Py_ssize_t = self.at
        code: cython.int = place.kind
        kind: cython.int = self.head()
        left: cython.ulonglong = self.number
        if depth > _DEPTH_MAX:
            raise Shapeless("too deep")
        if kind == 2 and code != _NOTHING:
            while left > 0:
                left -= 1
                self.value(place, depth + 1)
        elif kind == 3 and code != _NOTHING:
            self.map(place, left, depth)
        elif kind == 1:
            text: cython.Py_ssize_t = self.at
            self.at += self.number
            if code and _fits(code, self.source, text, self.at):
                self.hole(start, text, self.at, _MARK, _FAMILIES[code])
            else:
                self.stays(code, text == self.at)
        elif kind == 4 and (code in (_NUMBER, _GENERATION)) and 0 < left <= _NUMBER_MAX:
            self.pieces.append(_piece(self.source, self.copied, start))
            self.pieces.append(_MARK)
            self.contents.append(_FAMILIES[code] + b"%d" % left)
            self.copied = self.at
        else:
            self.stays(code, self.source[start] == 0xC0 or (kind == 4 and left == 0))
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def map(self, place: Place, left: cython.ulonglong, depth: cython.int) -> cython.int:
        fields: cython.bint = place.kind == _FIELDS
        known: cython.bint = False  # whether a key of this map is a hole already
        below = place
        while left > 0:
            left -= 1
            start: cython.Py_ssize_t = self.at
            if self.head() != 1:
                raise Shapeless("a key is no string")
            text: cython.Py_ssize_t = self.at
            self.at += self.number
            if fields:
                known = self.key(start, text, known)
            else:
                below = place.under(self.source, text, self.at) if place.kind == 0 else None
            if below is None:
                self.skip()
            else:
                self.value(below, depth + 1)
        return 0

    @cython.cfunc
    @cython.exceptval(check=True)
    def key(self, start: cython.Py_ssize_t, text: cython.Py_ssize_t, known: cython.bint) -> cython.bint:
        """A key of a set of fields, which may have a hole; whether one has."""
        length: cython.Py_ssize_t = self.at - text
        if length < 12 or (self.source[text] != 107 and self.source[text] != 118):
            return known
        prefix: bytes = _BY_UID
        ending: bytes = _BY_END
        code: cython.int = _UID
        if self.source[text] == 118:
            prefix, ending, code = _BY_NETWORK, _BY_NETWORK_END, _NETWORK
        elif not _is_text(self.source, text, _BY_UID):
            prefix, code = _BY_ADDRESS, _ADDRESS
        if not _is_text(self.source, text, prefix):
            return known
        first: cython.Py_ssize_t = text + len(prefix)
        last: cython.Py_ssize_t = self.at - len(ending)
        if known or not _is_text(self.source, last, ending) or not _fits(code, self.source, first, last):
            return known
        self.pieces.append(_piece(self.source, self.copied, start))
        self.pieces.append(_KEY_MARK + prefix)
        self.contents.append(_FAMILIES[code] + _piece(self.source, first, last))
        self.copied = self.at
        return True

    # ------------------------------------------------------------ JSON

    @cython.cfunc
    @cython.exceptval(-1)
    def blank(self) -> cython.int:
        """Pass white space; the byte that comes next."""
        while self.at < self.end:
            code: cython.uchar = self.source[self.at]
            if code != 32 and code != 10 and code != 13 and code != 9:
                return code
            self.at += 1
        raise Shapeless("cut short")

    @cython.cfunc
    @cython.exceptval(check=True)
    def quoted(self) -> cython.bint:
        """Pass a string, whose first quote was passed, but for its last quote; whether nothing in it is escaped."""
        plain: cython.bint = True
        while self.at < self.end:
            code: cython.uchar = self.source[self.at]
            if code == 34:
                return plain
            if code < 32:
                break
            if code == 92:
                plain = False
                self.at += 1
            self.at += 1
        raise Shapeless("no string")

    @cython.cfunc
    @cython.exceptval(-1)
    def json(self, place: Place, depth: cython.int) -> cython.int:
        """One value at a place."""
        code: cython.int = self.blank()
        if depth > _DEPTH_MAX:
            raise Shapeless("too deep")
        if code == 34:
            self.json_text(place.kind)
        elif place.kind == _NOTHING:
            raise Shapeless("nothing may stand here")
        elif code == 123:
            self.json_map(place, depth)
        elif code == 91:
            self.json_list(place, depth)
        else:
            self.json_scalar(place.kind)
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def json_text(self, kind: cython.int) -> cython.int:
        self.at += 1
        start: cython.Py_ssize_t = self.at
        plain: cython.bint = self.quoted()
        if kind:
            if not plain:
                raise Shapeless("written in another way")
            if _fits(kind, self.source, start, self.at):
                self.hole(start, start, self.at, _JSON_MARK, _FAMILIES[kind])
            else:
                self.stays(kind, start == self.at)
        self.at += 1
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def json_map(self, place: Place, depth: cython.int) -> cython.int:
        code: cython.int
        self.at += 1
        if self.blank() == 125:
            self.at += 1
            return 0
        while True:
            if self.blank() != 34:
                raise Shapeless("no key")
            self.at += 1
            start: cython.Py_ssize_t = self.at
            plain: cython.bint = self.quoted()
            if not plain or self.at == start or self.source[start] == 36:  # a directive looks at other places
                raise Shapeless("no plain key")
            below = place.under(self.source, start, self.at)
            self.at += 1
            if self.blank() != 58:
                raise Shapeless("no value")
            self.at += 1
            self.json(_NOWHERE if below is None else below, depth + 1)
            code = self.blank()
            self.at += 1
            if code == 125:
                return 0
            if code != 44:
                raise Shapeless("no map")

    @cython.cfunc
    @cython.exceptval(-1)
    def json_list(self, place: Place, depth: cython.int) -> cython.int:
        code: cython.int
        self.at += 1
        if self.blank() == 93:
            self.at += 1
            return 0
        while True:
            self.json(place, depth + 1)
            code = self.blank()
            self.at += 1
            if code == 93:
                return 0
            if code != 44:
                raise Shapeless("no list")

    @cython.cfunc
    @cython.exceptval(-1)
    def json_scalar(self, kind: cython.int) -> cython.int:
        """A number or a word, up to whatever cannot be part of one."""
        start: cython.Py_ssize_t = self.at
        while self.at < self.end:
            code: cython.uchar = self.source[self.at]
            if code == 44 or code == 125 or code == 93 or code <= 32:
                break
            self.at += 1
        if self.at == start:
            raise Shapeless("no value")
        if (
            (kind in (_NUMBER, _GENERATION))
            and self.at - start <= 9
            and self.source[start] != 48
            and _are_digits(self.source, start, self.at)
        ):
            self.hole(start, start, self.at, _JSON_MARK, _FAMILIES[kind])
        else:
            self.stays(kind, self.source[start] == 110 or (self.source[start] == 48 and self.at == start + 1))
        return 0


_NOWHERE = cython.declare(Place, Place({}))


def of_msgpack(value: bytes, place: Place, strict: bool = False) -> tuple:
    """(shape, contents) of a stored value, or (`strict`) of a body. Raises Shapeless for what is none."""
    splitter: _Splitter = _split(value, place, strict)
    return b"".join(splitter.done()), splitter.contents


@cython.cfunc
def _split(value: bytes, place: Place, strict: cython.bint) -> _Splitter:
    splitter = _Splitter(value, strict)
    splitter.value(place, 0)
    if splitter.at != splitter.end:
        raise Shapeless("something after the end")
    return splitter


def of_json(body: bytes, place: Place) -> tuple:
    """(shape, contents) of a body in JSON. Raises Shapeless for what cannot be taken apart."""
    splitter = _Splitter(body, True)
    splitter.json(place, 0)
    while splitter.at < splitter.end:
        if splitter.source[splitter.at] > 32:
            raise Shapeless("something after the end")
        splitter.at += 1
    return b"".join(splitter.done()), splitter.contents


def fits(kind: cython.int, text: bytes) -> bool:
    """Whether a text may stand in a hole of this kind."""
    return bool(_fits(kind, text, 0, len(text)))


# ---------------------------------------------------------------- comparing


def pattern(contents: list):
    """Which contents are the same, and in which order times are: all that anything may depend on that does not look at
    the contents themselves. None for too many."""
    first: dict = {}
    times: set = set()
    content: bytes
    if len(contents) > _CONTENTS_MAX:
        return None
    for content in contents:
        if content[0] == _TIMES[0] or content[0] == _TIMES[1]:
            times.add(content)
        elif content not in first:
            first[content] = len(first)
    count: cython.Py_ssize_t = len(first)
    for content in sorted(times):
        first[content] = count
        count += 1
    return bytes([first[content] for content in contents])


# ---------------------------------------------------------------- putting together


@cython.final
@cython.cclass
class Form:
    """A stored value with holes that are filled from contents."""

    _pieces = cython.declare(list)
    _marks = cython.declare(list)
    _sources = cython.declare(list)

    def __init__(self, value: bytes, place: Place, contents: list):
        """`value` is what was made of `contents`. What stands in its holes without being among these stays."""
        splitter: _Splitter = _split(value, place, False)
        parts: list = splitter.done()
        where: dict = {}
        index: cython.Py_ssize_t
        for index, content in enumerate(contents):
            where.setdefault(content, index)
        self._pieces = []
        self._marks = []
        self._sources = []
        piece: bytes = parts[0]
        for index, content in enumerate(splitter.contents):
            mark: bytes = parts[2 * index + 1]
            after: bytes = parts[2 * index + 2]
            source = _source(where, content)
            if source is None:
                filled: list = [piece]
                _fill(filled, mark, content)
                filled.append(after)
                piece = b"".join(filled)
            else:
                self._marks.append(mark)
                self._sources.append(source)
                self._pieces.append(piece)
                piece = after
        self._pieces.append(piece)

    def fill(self, contents: list) -> bytes:
        """The value with other contents in the same order."""
        out: list = [self._pieces[0]]
        index: cython.Py_ssize_t
        source: cython.Py_ssize_t
        content: bytes
        for index in range(len(self._marks)):
            source = self._sources[index]
            content = contents[source] if source >= 0 else _next(contents[-1 - source])
            _fill(out, self._marks[index], content)
            out.append(self._pieces[index + 1])
        return b"".join(out)


@cython.cfunc
def _source(where: dict, content: bytes):
    """The index of what a hole is filled from; -1 - index for the number after that; None if from nothing."""
    found = where.get(content)
    if found is None and content[0] == 103 and content != b"g1":
        before = where.get(b"g%d" % (int(content[1:]) - 1))
        return -1 - before if before is not None else None
    return found


@cython.cfunc
def _next(content: bytes) -> bytes:
    return b"g%d" % (int(content[1:]) + 1)


# ---------------------------------------------------------------- ends of objects


@cython.final
@cython.cclass
class End:
    """What an encoded object's metadata says of its end. `is_held`: it has finalizers; `deleted_at` None: it is not
    terminating, and has `grace_s` 0."""

    uid = cython.declare(str, visibility="readonly")
    is_held = cython.declare(cython.bint, visibility="readonly")
    deleted_at = cython.declare(object, visibility="readonly")
    grace_s = cython.declare(cython.ulonglong, visibility="readonly")
    _value = cython.declare(bytes)
    # Where metadata begins and ends, how many pairs it has, and where its pairs begin
    _start = cython.declare(cython.Py_ssize_t)
    _stop = cython.declare(cython.Py_ssize_t)
    _pairs = cython.declare(cython.ulonglong)
    _first = cython.declare(cython.Py_ssize_t)
    # Of deletionTimestamp, deletionGracePeriodSeconds and generation: where the value lies
    _spans = cython.declare(dict)
    _generation = cython.declare(cython.ulonglong)

    def __init__(self, value: bytes):
        """Raises Shapeless for what is no object."""
        self.uid = ""
        self.is_held = False
        self.deleted_at = None
        self.grace_s = self._generation = 0
        self._value = value
        self._spans = {}
        splitter = _Splitter(value, False)
        left: cython.ulonglong = self._enter(splitter)
        while left > 0:
            left -= 1
            if _key(splitter) == b"metadata":
                self._start = splitter.at
                self._pairs = self._enter(splitter)
                self._first = splitter.at
                self._read(splitter)
                self._stop = splitter.at
                return
            splitter.skip()
        raise Shapeless("no metadata")

    @cython.cfunc
    @cython.exceptval(check=True)
    def _enter(self, splitter: _Splitter) -> cython.ulonglong:
        if splitter.head() != 3:
            raise Shapeless("no map")
        return splitter.number

    @cython.cfunc
    @cython.exceptval(-1)
    def _read(self, splitter: _Splitter) -> cython.int:
        left: cython.ulonglong = self._pairs
        while left > 0:
            left -= 1
            key: bytes = _key(splitter)
            start: cython.Py_ssize_t = splitter.at
            kind: cython.int = splitter.head()
            number: cython.ulonglong = splitter.number if kind else 0
            text: cython.Py_ssize_t = splitter.at
            splitter.at = start
            splitter.skip()
            if key == b"finalizers":
                self.is_held = kind == 2 and number > 0
            elif key == b"uid" and kind == 1:
                self.uid = _piece(self._value, text, splitter.at).decode()
            elif key == b"deletionTimestamp" and kind == 1:
                self.deleted_at = _piece(self._value, text, splitter.at).decode()
                self._spans[key] = (start, splitter.at)
            elif key == b"deletionGracePeriodSeconds":
                self.grace_s = number if kind == 4 else 0
                self._spans[key] = (start, splitter.at)
            elif key == b"generation" and kind == 4 and number > 0:
                self._generation = number
                self._spans[key] = (start, splitter.at)
        return 0

    def terminating(self, deleted_at: bytes, grace_s: cython.ulonglong) -> bytes:
        """The object with this deletionTimestamp and grace period; its generation rises if it had none before."""
        told: list = [(b"deletionTimestamp", _HEADS[len(deleted_at)] + deleted_at)]
        told.append((b"deletionGracePeriodSeconds", _packed_number(grace_s)))
        if self.deleted_at is None and self._generation > 0:
            told.append((b"generation", _packed_number(self._generation + 1)))
        added: list = []
        changed: list = []
        for key, packed in told:
            span = self._spans.get(key)
            if span is None:
                added.append(_HEADS[len(key)] + key + packed)
            else:
                changed.append((span, packed))
        pairs: cython.ulonglong = self._pairs + len(added)
        out: list = [_piece(self._value, 0, self._start)]
        out.append(bytes((0x80 | pairs,)) if pairs < 16 else b"\xde" + int(pairs).to_bytes(2, "big"))
        at: cython.Py_ssize_t = self._first
        for span, packed in sorted(changed):
            out.append(_piece(self._value, at, span[0]))
            out.append(packed)
            at = span[1]
        out.append(_piece(self._value, at, self._stop))
        out += added
        out.append(_piece(self._value, self._stop, len(self._value)))
        return b"".join(out)


@cython.cfunc
def _key(splitter: _Splitter) -> bytes:
    """The key that comes next."""
    if splitter.head() != 1:
        raise Shapeless("a key is no string")
    start: cython.Py_ssize_t = splitter.at
    splitter.at += splitter.number
    return _piece(splitter.source, start, splitter.at)


@cython.cfunc
@cython.exceptval(-1)
def _fill(out: list, mark: bytes, content: bytes) -> cython.int:
    """Adds a content as msgpack has it."""
    family: cython.uchar = content[0]
    text: bytes = _piece(content, 1, len(content))
    if family == 100 or family == 103:
        out.append(_packed_number(int(text)))
        return 0
    if len(mark) > 1:
        text = mark[2:] + text + (_BY_NETWORK_END if mark[2] == 118 else _BY_END)
    length: cython.Py_ssize_t = len(text)
    out.append(_HEADS[length] if length < 256 else b"\xda" + length.to_bytes(2, "big"))
    out.append(text)
    return 0


@cython.cfunc
def _packed_number(number: cython.ulonglong) -> bytes:
    if number < 0x80:
        return bytes((number,))
    if number < 0x100:
        return bytes((0xCC, number))
    if number < 0x10000:
        return b"\xcd" + int(number).to_bytes(2, "big")
    return b"\xce" + int(number).to_bytes(4, "big")
