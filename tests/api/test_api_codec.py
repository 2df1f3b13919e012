"""Bodies in and out: what is read, what is refused and in which words, lists and watch frames."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastkube.api import codec, gojson, yaml
from fastkube.errors import ApiError

Object = dict[str, Any]


def refused(body: bytes, media: str = codec.JSON) -> ApiError:
    with pytest.raises(ApiError) as found:
        codec.decode(body, media, "ConfigMap")
    return found.value


# ---------------------------------------------------------------- JSON in

PREFIX = (
    "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: "
)
TYPE_META = 'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"{", "unexpected end of JSON input ({)"),
        (b"", "unexpected end of JSON input (<empty>)"),
        (b"  ", "unexpected end of JSON input (2020)"),
        (b"[]", f"json: cannot unmarshal array into Go value of type {TYPE_META} (5b5d)"),
        (b'"x"', f"json: cannot unmarshal string into Go value of type {TYPE_META} (227822)"),
        (b"1", f"json: cannot unmarshal number into Go value of type {TYPE_META} (31)"),
        (b"true", f"json: cannot unmarshal bool into Go value of type {TYPE_META} (74727565)"),
        (
            b'{"apiVersion":"v1","kind":"ConfigMap"} trailing',
            'invalid character \'t\' after top-level value ({"apiVersion":"v1","kind":"Con ...)',
        ),
    ],
)
def test_bodies_that_are_no_object(body: bytes, complaint: str) -> None:
    error = refused(body)
    assert (error.code, error.reason) == (400, "BadRequest")
    assert error.message == PREFIX + complaint


@pytest.mark.parametrize("body", [b"null", b"{}", b" {} \n"])
def test_null_is_an_empty_object(body: bytes) -> None:
    assert codec.decode(body) == {}


FAULTS = {
    "tru": "unexpected end of JSON input",
    "trux": "invalid character 'x' in literal true (expecting 'e')",
    "nope": "invalid character 'o' in literal null (expecting 'u')",
    "False": "invalid character 'F' looking for beginning of value",
    '{"a" 1}': "invalid character '1' after object key",
    '{"a":1 "b"}': "invalid character '\"' after object key:value pair",
    "{'a':1}": "invalid character '\\'' looking for beginning of object key string",
    "{a:1}": "invalid character 'a' looking for beginning of object key string",
    '{"a":1,}': "invalid character '}' looking for beginning of object key string",
    '{"a":}': "invalid character '}' looking for beginning of value",
    "[1 2]": "invalid character '2' after array element",
    "[1,]": "invalid character ']' looking for beginning of value",
    "[1}": "invalid character '}' after array element",
    "01": "invalid character '1' after top-level value",
    "-": "unexpected end of JSON input",
    "-x": "invalid character 'x' in numeric literal",
    "1.": "unexpected end of JSON input",
    "1.x": "invalid character 'x' after decimal point in numeric literal",
    "1e": "unexpected end of JSON input",
    "1ex": "invalid character 'x' in exponent of numeric literal",
    "+1": "invalid character '+' looking for beginning of value",
    "NaN": "invalid character 'N' looking for beginning of value",
    '"a\nb"': "invalid character '\\n' in string literal",
    '"a': "unexpected end of JSON input",
    r'"\x"': "invalid character 'x' in string escape code",
    r'"\u12g4"': "invalid character 'g' in \\u hexadecimal character escape",
    "\ufeff{}": "invalid character 'ï' looking for beginning of value",
    "[" * 20000: "exceeded max depth",
}


@pytest.mark.parametrize(("text", "fault"), FAULTS.items(), ids=[text[:12] for text in FAULTS])
def test_faults_are_told_in_the_words_of_go(text: str, fault: str) -> None:
    assert gojson.fault(text.encode()) == fault
    with pytest.raises(ValueError) as found:
        codec.decode_patch(text.encode())
    assert str(found.value) == fault


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=15,
)


@given(value=JSON_VALUES, indent=st.none() | st.integers(0, 2))
@settings(max_examples=150, deadline=None)
def test_what_is_json_has_no_fault(value: Any, indent: int | None) -> None:
    assert gojson.fault(json.dumps(value, indent=indent).encode()) is None


@given(body=st.binary(max_size=40) | st.text('[]{}:,"\\ntrue0-1.e ', max_size=12).map(str.encode))
@settings(max_examples=500, deadline=None)
def test_a_text_has_a_fault_or_can_be_read(body: bytes) -> None:
    if gojson.fault(body) is None:
        gojson.parse(body)
    else:
        with pytest.raises(ValueError):
            codec.decode_patch(body)


def test_texts_that_only_go_takes() -> None:
    assert codec.decode(b'{"a":"\\ud800x","b":"\xff","c":"\\ud83d\\ude00"}') == {
        "a": "\ufffdx",
        "b": "\ufffd",
        "c": "😀",
    }
    deep = codec.decode(b'{"a":' * 1500 + b"1" + b"}" * 1500) if sys_takes_depth(1500) else {"a": {}}
    assert isinstance(deep["a"], dict)


def sys_takes_depth(depth: int) -> bool:
    try:
        json.loads("[" * depth + "]" * depth)
    except RecursionError:
        return False
    return True


# ---------------------------------------------------------------- duplicate keys


def test_duplicates_are_told_in_document_order_and_the_last_one_wins() -> None:
    told: list[str] = []
    body = b'{"kind":"C","metadata":{"name":"a","name":"b"},"data":{"k":"1","k":"2"},"data":{"z":"3"}}'
    assert codec.decode(body, duplicates=told) == {"kind": "C", "metadata": {"name": "b"}, "data": {"z": "3"}}
    assert told == ['duplicate field "metadata.name"', 'duplicate field "data.k"', 'duplicate field "data"']


def test_objects_that_come_twice_add_up_where_go_reads_into_structs() -> None:
    body = b'{"data":{"k":"1","k":"2"},"a":{"b":{"c":1}},"a":{"b":{"d":[1]}},"a":{"e":null},"data":{"z":"3"}}'
    found = codec.decode(body, duplicates=[], merges=True)
    assert found == {"data": {"k": "2", "z": "3"}, "a": {"b": {"c": 1, "d": [1]}, "e": None}}


def test_duplicates_in_lists() -> None:
    told: list[str] = []
    codec.decode(b'{"spec":{"containers":[{"a":1},{"image":"i","image":"j"}]}}', duplicates=told)
    assert told == ['duplicate field "spec.containers[1].image"']


@given(value=st.dictionaries(st.text(), JSON_VALUES))
@settings(max_examples=100, deadline=None)
def test_objects_without_duplicates_have_none(value: Object) -> None:
    told: list[str] = []
    codec.decode(json.dumps(value).encode(), duplicates=told)
    assert told == []


def test_patches_tell_of_duplicates_too() -> None:
    assert codec.decode_patch(b'[{"op":"add","op":"test"}]') == ([{"op": "test"}], ['duplicate field "[0].op"'])


# ---------------------------------------------------------------- YAML


def test_yaml_means_what_upstream_reads() -> None:
    text = b"""
apiVersion: v1
kind: ConfigMap
1: number
true: bool
when: 2020-01-01
clock: 22:30
octal: 017
new octal: 0o17
hex: 0x1f
under: 1_000
yes: y
no: off
float: 1.5
exp: 1e3
none: ~
empty:
text: "5"
version: 1.2.3
list: [a, 1]
anchor: &x {k: v}
alias: *x
merged: {<<: *x, j: w}
"""
    assert codec.decode(text, codec.YAML) == {
        "apiVersion": "v1", "kind": "ConfigMap", "1": "number", "true": True, "when": "2020-01-01", "clock": "22:30",
        "octal": 15, "new octal": 15, "hex": 31, "under": 1000, "false": False, "float": 1.5, "exp": 1000.0,
        "none": None, "empty": None, "text": "5", "version": "1.2.3", "list": ["a", 1], "anchor": {"k": "v"},
        "alias": {"k": "v"}, "merged": {"k": "v", "j": "w"},
    }  # fmt: skip


def test_yaml_tells_of_duplicates() -> None:
    told: list[str] = []
    assert codec.decode(b"a: 1\nb:\n  c: 1\n  c: 2\n", codec.YAML, "C", told) == {"a": 1, "b": {"c": 2}}
    assert told == ['line 4: key "c" already set in map']
    told.clear()
    codec.decode(b"n: 1\nno: 2\n5: x\n5: y\n", codec.YAML, "C", told)
    assert told == ["line 2: key false already set in map", "line 4: key 5 already set in map"]


@pytest.mark.parametrize("body", [b"a: [", b"a: b: c", b"\t- x", b"? [a]\n: b", b"\xff\xfe\x00"])
def test_what_is_no_yaml_is_refused(body: bytes) -> None:
    error = refused(body, codec.YAML)
    assert error.code == 400
    assert "error converting YAML to JSON" in error.message


def test_empty_yaml_is_an_empty_object_and_a_list_is_none() -> None:
    assert codec.decode(b"# nothing\n", codec.YAML) == {}
    assert "cannot unmarshal array" in refused(b"- a\n", codec.YAML).message


def test_aliases_share_nothing_and_have_a_limit() -> None:
    twice = codec.decode(b"a: &x {k: [1]}\nb: *x\n", codec.YAML)
    assert twice["a"] == twice["b"] and twice["a"]["k"] is not twice["b"]["k"]
    laughs = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9 if n else ['lol'] * 9)}]\n" for n in range(9))
    assert "excessive aliasing" in refused(laughs.encode(), codec.YAML).message
    assert "recursive" in refused(b"a: &a [*a]\n", codec.YAML).message


def test_only_the_first_document_counts() -> None:
    assert codec.decode(b"a: 1\n---\nb: 2\n", codec.YAML) == {"a": 1}


YAML_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])) | st.text("abcyn01-.:/~ \n")
YAML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | YAML_TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(YAML_TEXT, inner),
    max_leaves=12,
)


@given(value=st.dictionaries(st.sampled_from(["a", "b", "y", "null", "1"]), YAML_VALUES))
@settings(max_examples=200, deadline=None)
def test_written_yaml_reads_as_what_was_written(value: Object) -> None:
    assert yaml.load(codec.encode(value, codec.YAML)) == (value, [])


def test_yaml_has_the_form_of_upstream() -> None:
    obj = {"kind": "C", "apiVersion": "v1", "l": [{"b": "yes", "a": "1"}], "t": "one\ntwo\n", "e": {}, "n": []}
    assert codec.encode(obj, codec.YAML).decode() == (
        'apiVersion: v1\ne: {}\nkind: C\nl:\n- a: "1"\n  b: "yes"\n"n": []\nt: |\n  one\n  two\n'
    )


# ---------------------------------------------------------------- other formats


def test_msgpack() -> None:
    obj = {"kind": "ConfigMap", "data": {"k": "é"}}
    assert codec.decode(msgpack.packb(obj), codec.MSGPACK) == obj
    assert msgpack.unpackb(codec.encode(obj, codec.MSGPACK)) == obj
    for body in (b"\xc1", b"\x81", b"\x80\x80", b"\x81\xa1a\xd9\x02\xff\xff", b"\x91" * 5000):
        assert refused(body, codec.MSGPACK).code == 400


def test_protobuf() -> None:
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "é"}}
    assert codec.decode(codec.encode(obj, codec.PROTOBUF), codec.PROTOBUF) == obj
    error = refused(b"{}", codec.PROTOBUF)
    assert (error.code, error.message) == (
        400,
        "the object provided is unrecognized (must be of type ConfigMap): provided data does not appear to be a "
        "protobuf message, expected prefix [107 56 115 0] ({})",
    )


@pytest.mark.parametrize("content_type", ["", "application/json", "Application/JSON; charset=utf-8"])
def test_json_by_any_name(content_type: str) -> None:
    assert codec.decode(b'{"a":1}', content_type) == {"a": 1}


@pytest.mark.parametrize("content_type", ["text/plain", "application/cbor", "application/x-www-form-urlencoded"])
def test_an_unknown_format_is_415(content_type: str) -> None:
    error = refused(b"{}", content_type)
    assert (error.code, error.reason) == (415, "UnsupportedMediaType")
    assert error.message == (
        "the body of the request was in an unknown format - accepted media types include: "
        "application/json, application/yaml, application/vnd.kubernetes.protobuf"
    )
    with pytest.raises(ApiError):
        codec.encode({}, content_type)


# ---------------------------------------------------------------- stored values out


def stored(name: str, **more: Any) -> tuple[bytes, int]:
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **more}
    return msgpack.packb(obj), len(name) + 100


def with_version(value: tuple[bytes, int], *, bare: bool = False) -> Object:
    obj: Object = msgpack.unpackb(value[0])
    obj["metadata"]["resourceVersion"] = str(value[1])
    return {key: part for key, part in obj.items() if not bare or key not in ("apiVersion", "kind")}


def test_one_object() -> None:
    value = stored("a", data={"k": '"\u2028<>&'})
    assert orjson.loads(codec.value_to_json(*value)) == with_version(value)
    assert msgpack.unpackb(codec.value_to_msgpack(*value)) == with_version(value)


@pytest.mark.parametrize("count", [0, 1, 20, 3000])
def test_lists(count: int) -> None:
    items = [stored(f"n{number}", data={"k": "x" * 500}) for number in range(count)]
    meta = {"resourceVersion": "9", "continue": "c"}
    chunks = list(codec.list_to_json("ConfigMapList", "v1", iter(items), meta))
    head = {"kind": "ConfigMapList", "apiVersion": "v1", "metadata": meta}
    assert orjson.loads(b"".join(chunks)) == {**head, "items": [with_version(item, bare=True) for item in items]}
    assert max(map(len, chunks)) < 300_000
    whole = b"".join(codec.list_to_json("ConfigMapList", "v1", items, meta, bare=False))
    assert orjson.loads(whole)["items"] == [with_version(item) for item in items]
    packed = b"".join(codec.list_to_msgpack("ConfigMapList", "v1", iter(items), meta))
    assert msgpack.unpackb(packed) == {**head, "items": [with_version(item) for item in items]}


def test_watch_events() -> None:
    value = stored("a")
    line = codec.event_to_json("ADDED", *value)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert orjson.loads(line) == {"type": "ADDED", "object": with_version(value)}
    frame = codec.event_to_msgpack("DELETED", *value)
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert msgpack.unpackb(frame[4:]) == {"type": "DELETED", "object": with_version(value)}


def test_a_broken_value_does_not_spoil_the_next_answer() -> None:
    with pytest.raises(ValueError, match="stored value"):
        codec.event_to_json("ADDED", b"\x81\xa1", 1)
    value = stored("a")
    assert orjson.loads(codec.value_to_json(*value)) == with_version(value)
