"""What moulds are found by, and what is made up for new objects."""

from __future__ import annotations

import re
import uuid

import pytest

from fastkube import _casts

_LABEL = rb"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_in_json = re.compile(rb'"name": ?"(%b)"' % _LABEL).search


@pytest.mark.parametrize(
    "body",
    [
        b'{"metadata":{"name":"pod-1"},"spec":{}}',
        b'{"metadata":{"name": "pod-1"},"spec":{}}',
        b'{"metadata":{"name":  "pod-1"},"spec":{"containers":[{"name":"c"}]}}',
        b'{"metadata":{"name":"Pod"},"spec":{"containers":[{"name":"c"}]}}',
        b'{"name":"a-","name":"-a","name":"","name":"a.b","name":"ok"}',
        b'{"name":"' + b"a" * 63 + b'"}',
        b'{"name":"' + b"a" * 64 + b'","x":"name"}',
        b'{"name":"cut',
        b'{"name":"cut-1',
        b'{"name":"',
        b'{"name":',
        b'{"name": ',
        b"{}",
        b"",
    ],
)
def test_the_name_in_json_is_the_first_that_is_a_label(body: bytes) -> None:
    found = _in_json(body)
    expected = (body[: found.start(1)], body[found.end(1) :], found[1]) if found else (body, b"", b"")
    (about, before, after), name = _casts.part(("pods",), body, False)
    assert about == ("pods",)
    assert (before, after, name) == expected


@pytest.mark.parametrize(
    ("packed", "name"),
    [
        (b"\x81\xa4name\xa5pod-1\x01", b"pod-1"),
        (b"\x82\xa4name\xa1a\xa1b\xa1c", b"a"),
        (b"\x82\xa4name\xa1aa", b"a"),  # what follows could be part of a name, and is not
        (b"\x81\xa4name\xa5pod--", b""),
        (b"\x81\xa4name\xa2pO", b""),
        (b"\x81\xa4name\xa5pod", b""),
        (b"\x81\xa4name\xa0", b""),
        (b"\x81\xa4name\xd9\x20" + b"a" * 32, b""),
        (b"\x81\xa4name", b""),
        (b"\x80", b""),
    ],
)
def test_the_name_in_msgpack_is_as_long_as_its_first_byte_tells(packed: bytes, name: bytes) -> None:
    (_, before, after), found = _casts.part((), packed, True)
    assert found == name
    assert before + found + after == packed


def test_a_body_whose_name_is_made_up_has_none() -> None:
    body = b'{"metadata":{"generateName":"web-"},"spec":{"containers":[{"name":"c"}]}}'
    assert _casts.part((), body, False) == (((), body, b""), b"")


def test_what_is_made_up_is_well_formed_and_never_the_same() -> None:
    uids = [_casts.new_uid().decode() for _ in range(1000)]
    assert len(set(uids)) == 1000
    assert all(str(uuid.UUID(uid)) == uid and uuid.UUID(uid).version == 4 for uid in uids)
    assert {uid[19] for uid in uids} == set("89ab")
    suffixes = [_casts.suffix() for _ in range(1000)]
    assert all(re.fullmatch(rb"[bcdfghjklmnpqrstvwxz2456789]{5}", suffix) for suffix in suffixes)
    assert {letter for suffix in suffixes for letter in suffix} == set(b"bcdfghjklmnpqrstvwxz2456789")
    numbers = _casts.Numbers(b"a-", 0xFFFFFFFFFFFE)
    assert [numbers.draw() for _ in range(2)] == [b"a-fffffffffffe", b"a-ffffffffffff"]


def test_a_form_is_filled_by_the_kinds_of_its_holes() -> None:
    form = _casts.Form((b"<", b"|", b"|", b">"), bytes((_casts.UID, _casts.NAME, _casts.UID)))
    assert form.fill((b"n" * 40, b"")) == b"<|" + b"n" * 40 + b"|>"
    assert _casts.Form((b"whole",), b"").fill(()) == b"whole"


@pytest.mark.parametrize("length", [1, 31, 32, 63])
def test_strings_are_packed_as_by_msgpack(length: int) -> None:
    import msgpack

    assert _casts.packed(b"a" * length) == msgpack.packb("a" * length)
