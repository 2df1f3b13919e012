"""Header blocks of HTTP/2 (HPACK, RFC 7541), as their reader has them: a table that both sides keep alike.

Written in Cython's pure-Python syntax; runs interpreted under FASTKUBE_PURE=1 with equal results.
"""

import cython

COMPILED = cython.compiled

TABLE_BYTES = 4096
"""Of the dynamic table, as long as a peer is told nothing else."""

_ENTRY_BYTES = cython.declare(cython.int, 32)  # that each entry counts beside its name and value
_NUMBER_MAX = cython.declare(cython.int, 1 << 24)
_END_OF_STRING = cython.declare(cython.int, 256)
_CODE_BITS_MAX = cython.declare(cython.int, 30)

# Bits of each symbol's code, the end of a string last. Codes of one length are consecutive (RFC 7541, appendix B).
_HUFFMAN_BITS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b080606060505050606060606"
    "060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e060f050605060506060605070706060605"
    "06070605050607070707070f0b0e0d1c14161414161616171617171717171817181816171817171717151617161717181615141616171715"
    "1716161815161717151516151716171714161616171616171a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b"
    "14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a1e"
)

_STATIC_TEXT = (
    ":authority|:method=GET|:method=POST|:path=/|:path=/index.html|:scheme=http|:scheme=https|:status=200|"
    ":status=204|:status=206|:status=304|:status=400|:status=404|:status=500|accept-charset|"
    "accept-encoding=gzip, deflate|accept-language|accept-ranges|accept|access-control-allow-origin|age|"
    "allow|authorization|cache-control|content-disposition|content-encoding|content-language|content-length|"
    "content-location|content-range|content-type|cookie|date|etag|expect|expires|from|host|if-match|"
    "if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|link|location|max-forwards|"
    "proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|server|set-cookie|"
    "strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate"
)


class MalformedBlock(ValueError):
    """A header block that no peer may send; the connection's table is lost with it."""


def _static_entries():
    """The static table; its first entry is number 1."""
    words = [word.partition("=") for word in _STATIC_TEXT.split("|")]
    return [None, *((name.encode(), value.encode()) for name, _, value in words)]


def _code_ranges():
    """For each length in bits: the first code, the place of its symbol, and how many codes there are."""
    symbols = sorted(range(257), key=lambda symbol: (_HUFFMAN_BITS[symbol], symbol))
    first, place, ranges = 0, 0, [(0, 0, 0)]
    for bits in range(1, 31):
        count = sum(1 for each in _HUFFMAN_BITS if each == bits)
        first <<= 1
        ranges.append((first, place, count))
        first += count
        place += count
    return symbols, ranges


_STATIC = cython.declare(list, _static_entries())
_STATIC_ENTRIES = cython.declare(cython.int, 61)
_SYMBOLS, _RANGES = _code_ranges()


@cython.final
@cython.cclass
class HeaderReader:
    """`read` gives the fields of one block after the other."""

    _table = cython.declare(list)  # the newest entry last
    _bytes = cython.declare(cython.int)
    _limit = cython.declare(cython.int)
    _block = cython.declare(bytes)
    _at = cython.declare(cython.Py_ssize_t)
    _end = cython.declare(cython.Py_ssize_t)

    def __init__(self):
        self._table = []
        self._bytes = 0
        self._limit = TABLE_BYTES
        self._block = b""
        self._at = 0
        self._end = 0

    def read(self, block: bytes):
        """[(name, value), ...]. Raises MalformedBlock."""
        fields: list = []
        code: cython.uchar
        self._block = block
        self._at = 0
        self._end = len(block)
        while self._at < self._end:
            code = block[self._at]
            if code & 0x80:
                fields.append(self._entry(self._number(7)))
            elif code & 0x40:
                field = self._literal(6)
                fields.append(field)
                self._add(field)
            elif code & 0x20:
                if fields:
                    raise MalformedBlock("the table's size changes behind the first field")
                self._resize(self._number(5))
            else:  # with the bit that says "never indexed" or without
                fields.append(self._literal(4))
        return fields

    @cython.cfunc
    def _entry(self, index: cython.int):
        size: cython.int = len(self._table)
        if index == 0 or index > _STATIC_ENTRIES + size:
            raise MalformedBlock(f"there is no header {index}")
        if index <= _STATIC_ENTRIES:
            return _STATIC[index]
        return self._table[size - (index - _STATIC_ENTRIES)]

    @cython.cfunc
    def _literal(self, prefix: cython.int):
        index: cython.int = self._number(prefix)
        name = self._entry(index)[0] if index else self._string()
        return name, self._string()

    @cython.cfunc
    def _add(self, field: tuple):
        size: cython.int = _ENTRY_BYTES + len(field[0]) + len(field[1])
        if size > self._limit:
            self._table.clear()
            self._bytes = 0
            return
        self._shrink(self._limit - size)
        self._table.append(field)
        self._bytes += size

    @cython.cfunc
    def _resize(self, limit: cython.int):
        if limit > TABLE_BYTES:
            raise MalformedBlock("the table may not be that large")
        self._limit = limit
        self._shrink(limit)

    @cython.cfunc
    def _shrink(self, limit: cython.int):
        """Drop the oldest entries until the table has no more than `limit` bytes."""
        count: cython.int = 0
        while self._bytes > limit:
            name, value = self._table[count]
            self._bytes -= _ENTRY_BYTES + len(name) + len(value)
            count += 1
        if count:
            del self._table[:count]

    @cython.cfunc
    @cython.exceptval(-1)
    def _number(self, prefix: cython.int) -> cython.int:
        """An integer whose first bits are in the byte at hand (section 5.1)."""
        if self._at >= self._end:
            raise MalformedBlock("the block is cut off")
        mask: cython.int = (1 << prefix) - 1
        number: cython.int = self._block[self._at] & mask
        self._at += 1
        if number < mask:
            return number
        shift: cython.int = 0
        code: cython.int = 0x80
        while code & 0x80:
            if self._at >= self._end:
                raise MalformedBlock("the block is cut off")
            code = self._block[self._at]
            self._at += 1
            if shift > 21:
                raise MalformedBlock("a number is too large")
            number += (code & 0x7F) << shift
            shift += 7
        if number > _NUMBER_MAX:
            raise MalformedBlock("a number is too large")
        return number

    @cython.cfunc
    def _string(self):
        if self._at >= self._end:
            raise MalformedBlock("the block is cut off")
        coded: cython.bint = self._block[self._at] >= 0x80
        length: cython.int = self._number(7)
        start: cython.Py_ssize_t = self._at
        if length > self._end - start:
            raise MalformedBlock("the block is cut off")
        self._at = start + length
        text = self._block[start : start + length]
        return _from_huffman(text) if coded else text


def _from_huffman(coded: bytes) -> bytes:
    """Section 5.2. Raises MalformedBlock."""
    text = bytearray()
    code: cython.int = 0
    bits: cython.int = 0
    index: cython.Py_ssize_t
    bit: cython.int
    byte: cython.int
    first: cython.int
    place: cython.int
    count: cython.int
    for index in range(len(coded)):
        byte = coded[index]
        for bit in range(7, -1, -1):
            code = code << 1 | (byte >> bit & 1)
            bits += 1
            if bits > _CODE_BITS_MAX:
                raise MalformedBlock("a string has no such code")
            first, place, count = _RANGES[bits]
            if code - first < count:
                symbol = _SYMBOLS[place + code - first]
                if symbol == _END_OF_STRING:
                    raise MalformedBlock("a string ends inside")
                text.append(symbol)
                code = bits = 0
    if bits > 7 or code != (1 << bits) - 1:
        raise MalformedBlock("a string is badly padded")
    return bytes(text)
