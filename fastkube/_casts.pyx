"""What new objects are cast from (registry/moulds.py), and what is made up for each: names, uids and numbers.

    body ─ before ─ name ─ after ─▶ Mould, by (what is asked for, before, after) ─▶ Cast: stored bytes, answer

A mould's two forms, of what is stored and of what is shown, are encoded text with holes; a cast fills them.

Written in Cython's pure-Python syntax; runs interpreted under FASTKUBE_PURE=1 with equal results.
"""

import os

import cython

if cython.compiled:
    from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
    from cython.cimports.libc.string import memcpy

COMPILED = cython.compiled

NAME, UID, TIME, VOLUME, VERSION = range(5)
"""The holes."""

_KEY_IN_JSON = cython.declare(bytes, b'"name":')
_KEY_IN_MSGPACK = cython.declare(bytes, b"\xa4name")
_MADE_UP = cython.declare(bytes, b"generateName")
_LABEL_MAX = cython.declare(cython.Py_ssize_t, 63)
_LENGTHS = cython.declare(list, [bytes((0xA0 | n,)) if n < 32 else bytes((0xD9, n)) for n in range(64)])
_EMPTY = cython.declare(bytes, b"")

_DIGITS = cython.declare(bytes, b"0123456789abcdef")
_VARIANTS = cython.declare(bytes, b"89ab")
_ALPHABET = cython.declare(bytes, b"bcdfghjklmnpqrstvwxz2456789")  # no vowels and no look-alikes: they spell no words
_LETTERS = cython.declare(cython.uint, 27)
_SUFFIX_BYTES = cython.declare(cython.int, 5)
_UID_BYTES = cython.declare(cython.int, 36)
_NUMBER_BYTES = cython.declare(cython.int, 12)

# ---------------------------------------------------------------- what is made up

_POOL_BYTES = cython.declare(cython.Py_ssize_t, 2048)
_pool = cython.declare(bytes, b"")
_drawn = cython.declare(cython.Py_ssize_t, 0)


def _forget():
    """A child process must not make up what its parent does."""
    global _pool, _drawn
    _pool, _drawn = b"", 0


os.register_at_fork(after_in_child=_forget)


@cython.cfunc
def _draw(count: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """Where in the pool so many new random bytes begin. Asking the kernel costs more than what is done with them."""
    global _pool, _drawn
    if _drawn + count > len(_pool):
        _pool, _drawn = os.urandom(_POOL_BYTES), 0
    at: cython.Py_ssize_t = _drawn
    _drawn += count
    return at


@cython.ccall
def new_uid() -> bytes:
    """A random UUID (version 4)."""
    at: cython.Py_ssize_t = _draw(16)
    room: bytearray = bytearray(_UID_BYTES)
    pool: bytes = _pool
    place: cython.Py_ssize_t = 0
    index: cython.Py_ssize_t
    code: cython.uint
    for index in range(16):
        code = pool[at + index]
        if index == 4 or index == 6 or index == 8 or index == 10:
            room[place] = 45
            place += 1
        room[place] = _DIGITS[code >> 4]
        room[place + 1] = _DIGITS[code & 15]
        place += 2
    room[14] = 52
    room[19] = _VARIANTS[pool[at + 8] >> 4 & 3]
    return bytes(room)


@cython.ccall
def suffix() -> bytes:
    """Five random letters and digits, for the end of a name."""
    at: cython.Py_ssize_t = _draw(4)
    pool: bytes = _pool
    number: cython.ulonglong = 0
    index: cython.Py_ssize_t
    for index in range(4):
        number = number << 8 | pool[at + index]
    number = number * (27 * 27 * 27 * 27 * 27) >> 32
    room: bytearray = bytearray(_SUFFIX_BYTES)
    for index in range(_SUFFIX_BYTES):
        room[index] = _ALPHABET[number % _LETTERS]
        number //= _LETTERS
    return bytes(room)


@cython.final
@cython.cclass
class Numbers:
    """Identifiers that begin alike and end in twelve hexadecimal digits, which count."""

    _start = cython.declare(bytes)
    _next = cython.declare(cython.ulonglong)

    def __init__(self, start: bytes, first: int):
        self._start = start
        self._next = first

    def draw(self) -> bytes:
        """The next one."""
        number: cython.ulonglong = self._next
        self._next += 1
        room: bytearray = bytearray(_NUMBER_BYTES)
        index: cython.Py_ssize_t
        for index in range(_NUMBER_BYTES - 1, -1, -1):
            room[index] = _DIGITS[number & 15]
            number >>= 4
        return self._start + bytes(room)


# ---------------------------------------------------------------- moulds and casts


@cython.final
@cython.cclass
class Form:
    """Encoded text with holes between its pieces, each of which is one of those above."""

    _pieces = cython.declare(tuple)
    _holes = cython.declare(bytes)
    _bytes = cython.declare(cython.Py_ssize_t)

    def __init__(self, pieces: tuple, holes: bytes):
        self._pieces = pieces
        self._holes = holes
        self._bytes = sum([len(piece) for piece in pieces])

    @cython.ccall
    def fill(self, contents: tuple) -> bytes:
        """The whole; `contents` in the order of the kinds of holes."""
        pieces: tuple = self._pieces
        holes: bytes = self._holes
        index: cython.Py_ssize_t
        content: bytes
        piece: bytes
        if cython.compiled:
            size: cython.Py_ssize_t = self._bytes
            for index in range(len(holes)):
                content = contents[holes[index]]
                size += PyBytes_GET_SIZE(content)
            whole: bytes = PyBytes_FromStringAndSize(cython.NULL, size)
            to: cython.p_char = PyBytes_AS_STRING(whole)
            for index in range(len(holes)):
                piece = pieces[index]
                memcpy(to, PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))
                to += PyBytes_GET_SIZE(piece)
                content = contents[holes[index]]
                memcpy(to, PyBytes_AS_STRING(content), PyBytes_GET_SIZE(content))
                to += PyBytes_GET_SIZE(content)
            piece = pieces[len(holes)]
            memcpy(to, PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))
            return whole
        parts = [pieces[0]]
        for index in range(len(holes)):
            parts += (contents[holes[index]], pieces[index + 1])
        return b"".join(parts)


@cython.final
@cython.cclass
class Mould:
    """What the registry has made of one body. `base` is its generateName where the server makes up the name, `volume`
    the start of the name of the volume that admission makes up; b"": it made none."""

    constancy = cython.declare(object, visibility="readonly")
    key_prefix = cython.declare(bytes, visibility="readonly")
    base = cython.declare(str, visibility="readonly")
    warnings = cython.declare(list, visibility="readonly")
    _stored = cython.declare(Form)
    _shown = cython.declare(Form)
    _volume = cython.declare(bytes)

    def __init__(
        self, constancy: int, key_prefix: bytes, base: str, stored: Form, shown: Form, warnings: list, volume: bytes
    ):
        self.constancy = constancy
        self.key_prefix = key_prefix
        self.base = base
        self.warnings = warnings
        self._stored = stored
        self._shown = shown
        self._volume = volume


@cython.final
@cython.cclass
class Cast:
    """A new object: `value` is what is stored, `json` what a client is shown. It has a name before either is asked."""

    base = cython.declare(str, visibility="readonly")
    name = cython.declare(bytes, visibility="public")
    _mould = cython.declare(Mould)
    _stamp = cython.declare(bytes)
    _uid = cython.declare(bytes)
    _volume = cython.declare(bytes)

    def __init__(self, mould: Mould, name: bytes, stamp: bytes):
        self._mould = mould
        self._stamp = stamp
        self._uid = new_uid()
        self._volume = mould._volume + suffix() if mould._volume else _EMPTY
        self.base = mould.base
        self.name = name

    @property
    def key(self) -> bytes:
        return self._mould.key_prefix + self.name

    @property
    def value(self) -> bytes:
        return self._mould._stored.fill((packed(self.name), self._uid, self._stamp, self._volume))

    def json(self, revision: int) -> bytes:
        return self._mould._shown.fill((self.name, self._uid, self._stamp, self._volume, b"%d" % revision))


@cython.ccall
def packed(name: bytes) -> bytes:
    """As msgpack has a string of at most 63 bytes."""
    first: bytes = _LENGTHS[len(name)]
    return first + name


@cython.ccall
def part(about: tuple, body: bytes, is_msgpack: cython.bint) -> tuple:
    """The key of the mould that a body would fit, and the name that is in it; b"" where the server makes it up."""
    start: cython.Py_ssize_t = -1
    stop: cython.Py_ssize_t
    if _MADE_UP not in body:
        start = _name_in_msgpack(body) if is_msgpack else _name_in_json(body)
    if start < 0:
        return (about, body, _EMPTY), _EMPTY
    stop = start + (body[start - 1] & 31) if is_msgpack else _label_end(body, start)
    return (about, body[:start], body[stop:]), body[start:stop]


@cython.cfunc
@cython.exceptval(check=False)
def _label_end(body: bytes, start: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """Where the DNS label ends that begins there; `start` if none does, or it is too long or ends in a dash."""
    stop: cython.Py_ssize_t = start
    last: cython.uchar = 45
    code: cython.uchar
    while stop < len(body):
        code = body[stop]
        if not (97 <= code <= 122 or 48 <= code <= 57 or (code == 45 and stop > start)):
            break
        last = code
        stop += 1
    return start if last == 45 or stop - start > _LABEL_MAX else stop


@cython.cfunc
def _name_in_json(body: bytes) -> cython.Py_ssize_t:
    """Where the first label that is a `name` begins; -1: there is none."""
    at: cython.Py_ssize_t = body.find(_KEY_IN_JSON)
    start: cython.Py_ssize_t
    stop: cython.Py_ssize_t
    while at >= 0:
        start = at + len(_KEY_IN_JSON)
        if start < len(body) and body[start] == 32:
            start += 1
        if start < len(body) and body[start] == 34:
            start += 1
            stop = _label_end(body, start)
            if start < stop < len(body) and body[stop] == 34:
                return start
        at = body.find(_KEY_IN_JSON, at + 1)
    return -1


@cython.cfunc
def _name_in_msgpack(body: bytes) -> cython.Py_ssize_t:
    """For names of less than 32 bytes: one byte in front of them tells the length, and is a part of the mould."""
    at: cython.Py_ssize_t = body.find(_KEY_IN_MSGPACK)
    if at < 0:
        return -1
    at += len(_KEY_IN_MSGPACK)
    if at >= len(body) or not 0xA0 < body[at] < 0xC0:
        return -1
    length: cython.Py_ssize_t = body[at] & 31
    return at + 1 if _is_label(body, at + 1, at + 1 + length) else -1


@cython.cfunc
def _is_label(body: bytes, start: cython.Py_ssize_t, stop: cython.Py_ssize_t) -> cython.bint:
    return stop <= len(body) and _label_end(body[:stop], start) == stop
