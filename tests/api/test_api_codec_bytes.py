"""The transcoder and the readers of encoded objects, on both builds."""

from __future__ import annotations

import contextlib
import math
from types import ModuleType
from typing import Any

import msgpack
import orjson
import pytest
from api_builds import builds
from hypothesis import given, settings
from hypothesis import strategies as st

BUILDS = builds("_codec")
WRITERS = {BUILDS[name]: module.Writer for name, module in builds("_json").items()}
COUNTERS = builds("_duplicates")
Object = dict[str, Any]


@pytest.fixture(params=BUILDS.values(), ids=BUILDS.keys())
def codec(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=20), max_leaves=40
)
OBJECTS = st.fixed_dictionaries(
    {"apiVersion": st.text(), "kind": st.text()},
    optional={"metadata": VALUES, "spec": VALUES, "status": VALUES, "data": VALUES},
)


def writer_of(codec: ModuleType, *arguments: Any, **options: Any) -> Any:
    """The writer of the same build."""
    return WRITERS[codec](*arguments, **options)


def to_json(codec: ModuleType, value: bytes, revision: int = 0, bare: bool = False) -> bytes:
    writer = writer_of(codec, 16)
    writer.value(value, revision, bare)
    taken: bytes = writer.take()
    return taken


def expected(obj: Object, revision: int, bare: bool = False) -> Object:
    """What `obj` should be on the wire."""
    made = {key: value for key, value in obj.items() if not (bare and key in ("apiVersion", "kind"))}
    if revision and isinstance(made.get("metadata"), dict):
        made["metadata"] = {"resourceVersion": str(revision), **made["metadata"]}
    return made


@pytest.mark.parametrize("name", BUILDS)
@given(obj=OBJECTS, revision=st.integers(0, 2**63 - 1), bare=st.booleans())
@settings(max_examples=150, deadline=None)
def test_json_says_what_the_stored_value_says(name: str, obj: Object, revision: int, bare: bool) -> None:
    text = to_json(BUILDS[name], msgpack.packb(obj), revision, bare)
    assert orjson.loads(text) == expected(obj, revision, bare)


@pytest.mark.parametrize("name", BUILDS)
@given(obj=OBJECTS)
@settings(max_examples=150, deadline=None)
def test_decoding_gives_what_was_encoded(name: str, obj: Object) -> None:
    codec, value = BUILDS[name], msgpack.packb(obj)
    assert codec.decode(value) == obj
    metadata = obj.get("metadata")
    if isinstance(metadata, dict):
        fuller = msgpack.packb({**obj, "metadata": {"managedFields": [{"manager": "a"}], **metadata}})
        assert codec.decode(fuller, managed_fields=False) == {
            **obj,
            "metadata": {key: part for key, part in metadata.items() if key != "managedFields"},
        }
    assert codec.decode(value, managed_fields=False).keys() == obj.keys()
    parts = codec.Parts(2)
    for _ in range(2):
        assert codec.decode(value, parts=parts) == obj


def test_only_the_managed_fields_of_the_object_itself_are_left_out(codec: ModuleType) -> None:
    inner = {"managedFields": 1, "metadata": {"managedFields": 2}}
    obj = {"managedFields": 3, "metadata": {"managedFields": 4, "labels": inner}, "spec": inner, "list": [inner]}
    left = {**obj, "metadata": {"labels": inner}}
    assert codec.decode(msgpack.packb(obj), managed_fields=False) == left


def test_equal_short_strings_of_different_objects_are_one(codec: ModuleType) -> None:
    first, second = (codec.decode(msgpack.packb({"phase": "Running", "n": number})) for number in (1, 2))
    assert first["phase"] is second["phase"]
    assert next(iter(first)) is next(iter(second))


def test_parts_that_are_the_same_are_one_object(codec: ModuleType) -> None:
    def read(name: str, parts: Any) -> Object:
        labels = {"app": "web", "pod-template-hash": "7889c646f6", "zone": "zone-1"}
        sources = [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token", "name": "x" * 40}}]
        volume = {"name": name, "projected": {"sources": sources, "long": "y" * 40}}
        obj = {"metadata": {"name": name, "labels": labels}, "spec": {"volumes": [volume], "short": {"a": 1}}}
        read: Object = codec.decode(msgpack.packb(obj), parts=parts)
        assert read == obj
        return read

    parts = codec.Parts(16)
    first, second = read("a", parts), read("b", parts)
    assert first["metadata"]["labels"] is second["metadata"]["labels"]
    assert first["spec"]["volumes"][0]["projected"] is second["spec"]["volumes"][0]["projected"]
    assert read("a", codec.Parts(16))["metadata"]["labels"] is not first["metadata"]["labels"]
    for number in range(100):
        again = read(f"c{number}", parts)
    assert again["metadata"]["labels"] is first["metadata"]["labels"], "what is read again is not forgotten"


@given(obj=OBJECTS, revision=st.integers(1, 2**63 - 1))
@settings(max_examples=100, deadline=None)
def test_both_builds_write_the_same_bytes(obj: Object, revision: int) -> None:
    value = msgpack.packb(obj)
    assert len({to_json(codec, value, revision) for codec in BUILDS.values()}) == 1
    assert len({codec.with_revision(value, revision) for codec in BUILDS.values()}) == 1


@given(text=st.text())
@settings(max_examples=200, deadline=None)
def test_strings_are_escaped_as_orjson_escapes(text: str) -> None:
    for codec in BUILDS.values():
        assert to_json(codec, msgpack.packb({"k": text})) == orjson.dumps({"k": text})


@pytest.mark.parametrize("number", [0, 9, 10, 127, 128, 255, 256, 65535, 65536, 2**32, 2**63, 2**64 - 1])
def test_every_width_of_integer(codec: ModuleType, number: int) -> None:
    signed = [-number, -number - 1] if number <= 2**63 - 1 else []
    for each in [number, *signed]:
        assert to_json(codec, msgpack.packb({"n": each})) == b'{"n":%d}' % each


@pytest.mark.parametrize("number", [0.5, -1.5, 1e300, 5e-324, math.pi])
def test_floats_of_both_widths(codec: ModuleType, number: float) -> None:
    assert orjson.loads(to_json(codec, msgpack.packb({"n": number}))) == {"n": number}
    single = msgpack.packb({"n": 0.25}, use_single_float=True)
    assert to_json(codec, single) == b'{"n":0.25}'


def test_what_json_has_no_number_for_is_null(codec: ModuleType) -> None:
    value = msgpack.packb([math.nan, math.inf, -math.inf])
    assert to_json(codec, value) == b"[null,null,null]"


@pytest.mark.parametrize("length", [0, 1, 31, 32, 255, 256, 65535, 65536, 300_000])
def test_every_length_of_string_list_and_map(codec: ModuleType, length: int) -> None:
    assert orjson.loads(to_json(codec, msgpack.packb({"s": "x" * length}))) == {"s": "x" * length}
    if length <= 70_000:
        numbers = list(range(length))
        assert orjson.loads(to_json(codec, msgpack.packb({"l": numbers}))) == {"l": numbers}
        mapping = {str(number): number for number in numbers}
        assert orjson.loads(to_json(codec, msgpack.packb({"m": mapping}))) == {"m": mapping}


def test_only_the_metadata_of_the_object_itself_gets_a_version(codec: ModuleType) -> None:
    obj: Object = {"metadata": {}, "spec": {"template": {"metadata": {"name": "x"}}}, "list": [{"metadata": {}}]}
    text = to_json(codec, msgpack.packb(obj), 7)
    assert text == (
        b'{"metadata":{"resourceVersion":"7"},"spec":{"template":{"metadata":{"name":"x"}}},"list":[{"metadata":{}}]}'
    )


@pytest.mark.parametrize("pairs", [0, 1, 14, 15, 16, 17, 300])
def test_a_version_goes_into_msgpack_of_any_size(codec: ModuleType, pairs: int) -> None:
    obj = {"kind": "X", "metadata": {str(number): number for number in range(pairs)}, "spec": {"metadata": {}}}
    made = msgpack.unpackb(codec.with_revision(msgpack.packb(obj), 123))
    assert made == expected(obj, 123)


def test_values_without_metadata_stay(codec: ModuleType) -> None:
    for obj in ({"kind": "X"}, {"metadata": None}, {"metadata": []}):
        value = msgpack.packb(obj)
        assert codec.with_revision(value, 5) == value
        assert orjson.loads(to_json(codec, value, 5)) == obj


BROKEN = {
    "empty": b"",
    "string cut short": b"\x81\xa5abc",
    "map cut short": b"\x82\xa1a\x01",
    "number cut short": b"\x81\xa1a\xcf\x00",
    "double cut short": b"\x81\xa1a\xcb\x00",
    "key is no string": b"\x81\x01\x01",
    "binary": b"\x81\xa1a\xc4\x01x",
    "extension": b"\x81\xa1a\xd4\x01x",
    "reserved": b"\xc1",
    "something after the end": b"\x80\x80",
    "string longer than memory": b"\x81\xa1a\xdb\xff\xff\xff\xffx",
}


@pytest.mark.parametrize("value", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_value_is_an_error_and_leaves_the_writer_empty(codec: ModuleType, value: bytes) -> None:
    writer = writer_of(codec)
    with pytest.raises(ValueError, match="a stored value"):
        writer.value(value, 1)
    assert len(writer) == 0 and writer.take() == b""
    with pytest.raises(ValueError, match="a stored value"):
        codec.decode(value)
    writer.value(msgpack.packb({}))
    assert writer.take() == b"{}"


def test_depth_has_a_limit(codec: ModuleType) -> None:
    def nested(depth: int) -> bytes:
        return b"\x91" * depth + b"\x01"

    assert to_json(codec, nested(codec.DEPTH_MAX)) == b"[" * codec.DEPTH_MAX + b"1" + b"]" * codec.DEPTH_MAX
    with pytest.raises(ValueError, match="nested too deeply"):
        to_json(codec, nested(codec.DEPTH_MAX + 1))
    with pytest.raises(ValueError, match="nested too deeply"):
        codec.decode(nested(codec.DEPTH_MAX + 1))


@given(value=st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_never_do_more_than_raise(value: bytes) -> None:
    outcomes = set()
    for codec in BUILDS.values():
        try:
            outcomes.add(to_json(codec, value, 3))
        except ValueError as error:
            outcomes.add(str(error))
        reads = ((codec.decode, ()), (codec.labels, ()), (codec.extract, ((b"a", b"b"),)), (codec.with_revision, (3,)))
        for read, more in reads:
            with contextlib.suppress(ValueError):
                read(value, *more)
    assert len(outcomes) == 1


def test_extract_reads_what_is_there(codec: ModuleType) -> None:
    obj = {"metadata": {"labels": {"a": "b"}}, "spec": {"n": 5, "l": [1, {"x": None}]}, "s": "text"}
    value = msgpack.packb(obj)
    assert codec.extract(value, (b"spec", b"l")) == [1, {"x": None}]
    assert codec.extract(value, (b"spec",)) == obj["spec"]
    assert codec.extract(value, ()) == obj
    assert codec.extract(value, (b"spec", b"none")) is None
    assert codec.extract(value, (b"s", b"n")) is None


def test_matches_compares_strings(codec: ModuleType) -> None:
    value = msgpack.packb({"spec": {"nodeName": "n1", "other": 5}})
    assert codec.matches(value, (b"spec", b"nodeName"), b"n1")
    assert not codec.matches(value, (b"spec", b"nodeName"), b"n")
    assert codec.matches(value, (b"spec", b"other"), b"5")
    assert codec.matches(value, (b"status", b"phase"), b"")
    assert not codec.matches(value, (b"status", b"phase"), b"Running")


def test_labels(codec: ModuleType) -> None:
    many = {f"key{number}": "é" * number for number in range(40)}
    assert codec.labels(msgpack.packb({"metadata": {"labels": many}})) == many
    assert codec.labels(msgpack.packb({"metadata": {"labels": {}}})) == {}
    for obj in ({}, {"metadata": {}}, {"metadata": {"labels": None}}):
        assert codec.labels(msgpack.packb(obj)) is None


@given(value=VALUES)
@settings(max_examples=150, deadline=None)
def test_a_text_without_duplicates_has_as_many_keys_as_its_objects(value: Any) -> None:
    text = orjson.dumps(value)
    for duplicates in COUNTERS.values():
        assert duplicates.count_keys(text) == duplicates.count_entries(orjson.loads(text))


@pytest.mark.parametrize("duplicates", COUNTERS.values(), ids=COUNTERS.keys())
def test_count_keys_sees_duplicates(duplicates: ModuleType) -> None:
    text = rb'{"a":{"b:\"":1,"b:\"":2},"a":[{"c":":"}]}'
    assert duplicates.count_keys(text) == 5
    assert duplicates.count_entries(orjson.loads(text)) == 2


# ---------------------------------------------------------------- what is like the value before


def in_a_row(codec: ModuleType, values: list[bytes], revision: int, bare: bool) -> list[bytes]:
    """Each value as a sampling writer writes it after those before it."""
    writer = writer_of(codec, 16, sampling=True)
    written = []
    for value in values:
        writer.value(value, revision, bare)
        written.append(writer.take())
    return written


CHANGES = st.lists(st.tuples(st.sampled_from(("metadata", "spec", "status", "data")), VALUES), max_size=6)


@pytest.mark.parametrize("name", BUILDS)
@given(obj=OBJECTS, changes=CHANGES, revision=st.integers(0, 2**63 - 1), bare=st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_came_before_is_not_seen(name: str, obj: Object, changes: list[Any], revision: int, bare: bool) -> None:
    codec = BUILDS[name]
    row = [obj, obj]
    for key, value in changes:
        row.append({**row[-1], key: value})
    values = [msgpack.packb(one) for one in row]
    assert in_a_row(codec, values, revision, bare) == [to_json(codec, value, revision, bare) for value in values]


def pod(number: int, **more: Any) -> Object:
    metadata = {"name": f"pod-{number}", "labels": {"app": "a", "number": str(number)}, "finalizers": ["x", "y"]}
    containers = [{"name": name, "image": "i", "env": [{"name": "N", "value": str(number)}]} for name in "abc"]
    spec = {"containers": containers, "restartPolicy": "Always", "tolerations": [{"key": "k"}] * 2}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": spec,
        "status": {"phase": "Pending"},
        **more,
    }


ROWS: dict[str, list[Object]] = {
    "names differ": [pod(number) for number in range(9)],
    "a key more": [pod(1), pod(1, spec={"aaa": 1, **pod(1)["spec"]}), pod(2)],
    "a key less": [pod(1), {key: value for key, value in pod(2).items() if key != "spec"}, pod(3)],
    "keys in another order": [pod(1), dict(reversed(pod(1).items())), pod(1)],
    "an item more and less": [pod(1, spec={"containers": [1] * count}) for count in (3, 5, 0, 3)],
    "other kinds between": [
        pod(1),
        {"kind": "X", "data": {"k": "v"}},
        pod(1),
        {"metadata": []},
        {"metadata": 1},
        pod(1),
    ],
    "more unlike ones than are kept": [{"metadata": {}, f"k{n % 7}": {f"x{n % 5}": [n] * n}} for n in range(40)],
    "strings of other lengths": [pod(1, status={"phase": "x" * (1 << n)}) for n in range(18)],
    "a prefix of a longer one": [{"a": "b" * 40, "c": 1}, {"a": "b" * 40}, {"a": "b" * 41, "c": 1}, {}],
    "more parts than are noted": [{"data": {f"k{n}": [{"v": 1}] * 9 for n in range(200)}, "z": z} for z in range(3)],
    "deeper than is noted": [{"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {"i": {"j": n}}}}}}}}}} for n in range(3)],
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
@pytest.mark.parametrize("bare", [False, True])
def test_values_in_a_row(codec: ModuleType, row: list[Object], bare: bool) -> None:
    written = in_a_row(codec, [msgpack.packb(obj) for obj in row], 7, bare)
    assert [orjson.loads(each) for each in written] == [expected(obj, 7, bare) for obj in row]


def test_a_broken_value_in_a_row_leaves_nothing_behind(codec: ModuleType) -> None:
    good = msgpack.packb(pod(1))
    for broken in (good[:-1], good[:40], good + b"\x01"):
        writer = writer_of(codec, sampling=True)
        for value in (good, broken, good, good):
            if value is broken:
                with pytest.raises(ValueError, match="a stored value"):
                    writer.value(value, 7)
                assert writer.take() == b""
            else:
                writer.value(value, 7)
                assert writer.take() == to_json(codec, good, 7)
