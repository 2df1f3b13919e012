"""Keys that a JSON text gives more than once: it has more of them than what was decoded from it.

Written in Cython's pure-Python syntax; runs interpreted under FASTKUBE_PURE=1 with equal results.
"""

import cython

COMPILED = cython.compiled


def count_keys(body: bytes) -> int:
    """How many keys the objects of a JSON text have: its colons outside of strings. The text must be valid."""
    total: cython.Py_ssize_t = 0
    at: cython.Py_ssize_t = 0
    end: cython.Py_ssize_t = len(body)
    code: cython.uchar
    while at < end:
        code = body[at]
        at += 1
        if code == 58:
            total += 1
        elif code == 34:
            while at < end:
                code = body[at]
                at += 1
                if code == 34:
                    break
                if code == 92:
                    at += 1
    return total


def count_entries(value) -> int:
    """How many keys the dicts inside a decoded value have."""
    return _entries(value)


@cython.cfunc
@cython.exceptval(-1)
def _entries(value) -> cython.Py_ssize_t:
    total: cython.Py_ssize_t = 0
    if type(value) is dict:
        mapping: dict = value
        total = len(mapping)
        for item in mapping.values():
            if type(item) is dict or type(item) is list:
                total += _entries(item)
    elif type(value) is list:
        items: list = value
        for item in items:
            if type(item) is dict or type(item) is list:
                total += _entries(item)
    return total
