"""Shapes: text is taken apart and put together again, and only what has one canonical form stands in holes."""

from __future__ import annotations

import json
import re
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastkube import _shapes
from fastkube._shapes import Form, Place, Shapeless
from fastkube.api import names, scalars

_PLACES: dict[bytes, Any] = {
    b"metadata": {
        b"name": _shapes.LABEL,
        b"generation": _shapes.GENERATION,
        b"annotations": {_shapes.FOREIGN: _shapes.TEXT},
        b"managedFields": {b"time": _shapes.TIME, b"fieldsV1": _shapes.FIELDS},
    },
    b"ips": {b"ip": _shapes.ADDRESS},
    b"replicas": _shapes.NUMBER,
    b"nothing": _shapes.NOTHING,
}
PLACES = Place(_PLACES)

_texts = st.one_of(
    st.sampled_from(("a", "pod-1", "10.0.0.1", "2026-11-28T04:18:58Z", "é", "", 'k:{"ip":"10.0.0.1"}')),
    st.text('ab"\\é\n', max_size=4),
)
_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False), _texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(st.sampled_from([key.decode() for key in (*_PLACES, *_PLACES[b"metadata"])]), _texts), inner
        ),
    ),
    max_leaves=20,
)
_objects = st.dictionaries(st.sampled_from([key.decode() for key in _PLACES if key != b"nothing"]), _values)


@given(_objects)
def test_what_was_taken_apart_is_put_together(obj: Any) -> None:
    value = msgpack.packb(obj)
    try:
        contents = _shapes.of_msgpack(value, PLACES)[1]
    except Shapeless:
        return
    assert Form(value, PLACES, contents).fill(contents) == value
    assert Form(value, PLACES, []).fill([]) == value


@given(_objects)
def test_both_forms_have_the_same_contents(obj: Any) -> None:
    value, text = msgpack.packb(obj), json.dumps(obj, ensure_ascii=False).encode("utf-8", "surrogatepass")
    try:
        in_json = _shapes.of_json(text, PLACES)[1]
        assert in_json == _shapes.of_msgpack(value, PLACES, True)[1]
    except Shapeless:
        return
    assert in_json == _shapes.of_json(json.dumps(obj, ensure_ascii=False, indent=1).encode(), PLACES)[1]


def test_others_contents_make_the_other_value() -> None:
    def pod(name: str, ip: str, time: str, generation: int) -> dict[str, Any]:
        entry = {"time": time, "fieldsV1": {"f:ips": {".": {}, f'k:{{"ip":"{ip}"}}': {}}}}
        return {
            "metadata": {
                "name": name,
                "generation": generation,
                "managedFields": [entry],
                "annotations": {"x.k8s.io/a": "b"},
            },
            "ips": [{"ip": ip}],
        }

    first = msgpack.packb(pod("a", "10.0.0.1", "2026-11-28T04:18:58Z", 1))
    other = msgpack.packb(pod("pod-" + "b" * 40, "192.168.100.100", "2028-02-29T00:00:00Z", 70000))
    shape, contents = _shapes.of_msgpack(first, PLACES)
    other_shape, other_contents = _shapes.of_msgpack(other, PLACES)
    assert shape == other_shape
    assert Form(first, PLACES, contents).fill(other_contents) == other


def test_a_generation_may_be_the_next_one() -> None:
    value = msgpack.packb({"metadata": {"generation": 128}})
    assert Form(value, PLACES, [b"g127"]).fill([b"g255"]) == msgpack.packb({"metadata": {"generation": 256}})


@pytest.mark.parametrize("body", [
    b'{"ips":{"ip":"010.0.0.1"}}', b'{"ips":{"ip":"::1"}}', b'{"replicas":1.0}', b'{"replicas":"1"}',
    b'{"replicas":-1}', b'{"metadata":{"name":"\\u0061"}}',
    b'{"metadata":{"managedFields":[{"time":"2026-11-28T04:18:58.0Z"}]}}',
    b'{"metadata":{"managedFields":[{"time":"2026-02-29T04:18:58Z"}]}}', b'{"$patch":"delete"}', b'{"a\\u0062":1}',
    b'{"nothing":[]}', b'{"nothing":null}', b'{"nothing":1}', b'{"nothing":"x"}', b"{", b"", b'{"a":}', b'{"a" 1}',
    b'{"a":1}}', b'{"a":1,}', b'{"a":"\x01"}', b"[" * 100, b'{"a":"b', b'{"a":[1 2]}',
])  # fmt: skip
def test_bodies_without_a_shape(body: bytes) -> None:
    with pytest.raises(Shapeless):
        _shapes.of_json(body, PLACES)


@pytest.mark.parametrize(
    "value", [b"", b"\x81", b"\xa5abc", b"\xc1", b"\x80\x80", b"\x81\x01\x01", b"\xcb\x00", b"\xdf\xff\xff\xff\xff"]
)
def test_values_without_a_shape(value: bytes) -> None:
    with pytest.raises(Shapeless):
        _shapes.of_msgpack(value, PLACES)


def test_patterns_tell_equals_and_the_order_of_times() -> None:
    def pattern(*texts: str) -> bytes | None:
        return _shapes.pattern([text.encode() for text in texts])

    assert pattern("na", "nb", "na") == pattern("nb", "na", "nb") != pattern("na", "nb", "nb")
    assert pattern("t1", "t2") == pattern("t1", "t3") != pattern("t2", "t1")
    assert pattern("na", "xa") == pattern("na", "xb")
    assert pattern(*["na"] * 1000) is None


def _is_canonical(parse: Any, text: str) -> bool:
    try:
        return bool(parse(text) == text)
    except ValueError:
        return False


_TIMES = st.one_of(
    st.datetimes().map(lambda at: at.strftime("%Y-%m-%dT%H:%M:%SZ")),
    st.from_regex(
        re.compile(r"[0-3][09][02][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{6})?Z"),
        fullmatch=True,
    ),
)


@given(_TIMES)
def test_times_in_holes_are_as_they_are_stored(text: str) -> None:
    if _shapes.fits(_shapes.TIME, text.encode()):
        assert _is_canonical(scalars.time, text)
    if _shapes.fits(_shapes.MICRO_TIME, text.encode()):
        assert _is_canonical(scalars.micro_time, text)


@given(st.from_regex(r"[-.a-z0-9]{1,70}", fullmatch=True))
def test_names_in_holes_are_names(text: str) -> None:
    if _shapes.fits(_shapes.LABEL, text.encode()):
        assert not names.dns1123_label(text, False)
    if _shapes.fits(_shapes.NAME, text.encode()):
        assert not names.dns1123_subdomain(text, False)


@given(
    st.lists(st.one_of(st.integers(0, 300).map(str), st.just("00"), st.just("")), min_size=3, max_size=5).map(".".join)
)
def test_addresses_in_holes_are_addresses(text: str) -> None:
    import ipaddress

    def is_address() -> bool:
        try:
            return str(ipaddress.IPv4Address(text)) == text
        except ValueError:
            return False

    assert _shapes.fits(_shapes.ADDRESS, text.encode()) == is_address()
    assert _shapes.fits(_shapes.NETWORK, f"{text}/24".encode()) == (is_address() and text.endswith(".0"))
    assert not _shapes.fits(_shapes.NETWORK, text.encode())
