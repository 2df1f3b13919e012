"""The protobuf form: known bytes, round trips of every kind on both builds, frames, and malformed bodies."""

from __future__ import annotations

import copy
import datetime
from typing import Any

import msgpack
import pytest
from api_builds import builds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastkube import _protobuf
from fastkube.api import protobuf, schema
from fastkube.api.generated import table

BUILDS = builds("_protobuf")
Object = dict[str, Any]

KINDS = sorted(
    (f"{group}/{version}" if group else version, kind)
    for row in table("schemas").values()
    for group, version, kind in row.get("kinds", ())
    if row.get("fields", {}).get("metadata", "").startswith("@meta.v1.ObjectMeta")
)


def round_trip(obj: Object) -> Object:
    """The object over the wire and through the walk that every body goes through."""
    back = protobuf.decode(protobuf.encode(obj))
    assert schema.walk(schema.load(obj["apiVersion"], obj["kind"]), back) == []
    return back


# ---------------------------------------------------------------- known bytes


def test_the_bytes_of_a_small_object() -> None:
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"y": "2", "x": "1"}}
    assert protobuf.encode(obj) == (
        b"k8s\x00"
        b"\x0a\x0f\x0a\x02v1\x12\x09ConfigMap"  # typeMeta
        b"\x12\x15"  # raw
        b"\x0a\x03\x0a\x01a"  # metadata.name
        b"\x12\x06\x0a\x01x\x12\x011\x12\x06\x0a\x01y\x12\x012"  # data, by key
        b"\x1a\x00\x22\x00"  # contentEncoding, contentType
    )


def fields_of(kind: str, **fields: Any) -> bytes:
    """The message of a ConfigMap-like object without its envelope."""
    whole = protobuf.encode({"apiVersion": kind.split()[0], "kind": kind.split()[1], **fields})
    start = whole.index(b"\x12", 4 + 2 + whole[5])
    return whole[start + 2 : -4]


@pytest.mark.parametrize(
    ("kind", "fields", "wire"),
    [
        ("v1 ConfigMap", {"immutable": True}, b"\x20\x01"),
        ("v1 ConfigMap", {"immutable": False}, b"\x20\x00"),
        ("v1 Secret", {"data": {"k": "AP8="}}, b"\x12\x07\x0a\x01k\x12\x02\x00\xff"),
        ("v1 ConfigMap", {"metadata": {"creationTimestamp": "1970-01-01T00:01:00Z"}}, b"\x0a\x04\x42\x02\x08\x3c"),
        ("v1 Service", {"spec": {"ports": [{"targetPort": "http"}]}}, b"\x12\x0c\x0a\x0a\x22\x08\x08\x01\x1a\x04http"),
        ("v1 Service", {"spec": {"ports": [{"targetPort": 80}]}}, b"\x12\x08\x0a\x06\x22\x04\x08\x00\x10\x50"),
        ("v1 ResourceQuota", {"spec": {"hard": {"cpu": "1"}}}, b"\x12\x0c\x0a\x0a\x0a\x03cpu\x12\x03\x0a\x011"),
        ("v1 Pod", {"spec": {"priority": -1}}, b"\x12\x0c\xc8\x01" + b"\xff" * 9 + b"\x01"),
        (
            "v1 Pod",
            {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}},
            b"\x12\x09\x0a\x07\x0a\x01v\x12\x02\x12\x00",
        ),
        ("apps/v1 ControllerRevision", {"data": {"a": 1}}, b"\x12\x09\x0a\x07" + b'{"a":1}'),
        (
            "coordination.k8s.io/v1 Lease",
            {"spec": {"renewTime": "1970-01-01T00:00:01.000002Z"}},
            b"\x12\x07\x22\x05\x08\x01\x10\xd0\x0f",
        ),
    ],
)
def test_the_bytes_of_each_type(kind: str, fields: Object, wire: bytes) -> None:
    assert fields_of(kind, **fields) == wire


# ---------------------------------------------------------------- round trips

TEXTS = st.text(max_size=6)
TIMES = st.datetimes(min_value=datetime.datetime(2, 1, 1)).map(lambda t: t.replace(microsecond=0))
SCALARS = {
    "s": TEXTS,
    "b": st.booleans(),
    "i": st.integers(-(2**31), 2**31 - 1),
    "l": st.integers(-(2**63), 2**63 - 1),
    "d": st.floats(allow_nan=False, allow_infinity=False),
    "y": st.sampled_from(["", "AA==", "aGVsbG8="]),
    "t": TIMES.map(lambda t: t.strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")),
    "u": TIMES.map(lambda t: t.strftime("%Y-%m-%dT%H:%M:%S.000123Z").rjust(27, "0")),
    "q": st.sampled_from(["1", "100m", "1Gi", "0"]),
    "x": st.integers(-(2**31), 2**31 - 1) | TEXTS,
    "j": st.dictionaries(TEXTS, TEXTS | st.integers(-5, 5) | st.none(), min_size=1, max_size=3),
    "f": st.dictionaries(TEXTS, st.just({}), min_size=1, max_size=3),
}


def values(code: str, depth: int) -> st.SearchStrategy[Any]:
    """Values for a type in the notation of the generated schemas, nested not too deeply."""
    letter, rest = code[0], code[1:]
    if letter == "@":
        return objects(rest, depth)
    if letter == "[":
        return st.lists(values(rest, depth), max_size=2)
    if letter == "{":
        return st.dictionaries(TEXTS, values(rest, depth), max_size=2)
    if rest:  # a schema, or a list, a bool or strings
        other = {"A": st.lists(values(rest, depth), max_size=2), "B": st.booleans(), "S": st.lists(TEXTS, max_size=2)}
        return values(rest, depth) | other[letter]
    return SCALARS[letter]


def objects(name: str, depth: int = 3) -> st.SearchStrategy[Object]:
    fields = table("schemas")[name].get("fields", {}) if depth else {}
    made = {}
    for field, told in fields.items():
        code = (told if isinstance(told, str) else told[0]).rstrip("*!0")
        if field not in ("apiVersion", "kind"):
            made[field] = values(code, depth - 1)
            if code[0] == "[":
                made[field] = st.lists(values(code[1:], depth - 1), min_size=1, max_size=2)  # empty ones are not sent
        elif not table("schemas")[name].get("kinds"):  # of a kind itself they are not on the wire
            made[field] = TEXTS
    return st.fixed_dictionaries({}, optional=made)


@pytest.mark.parametrize(("api_version", "kind"), KINDS)
@given(data=st.data())
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_kind_comes_back_as_it_was(api_version: str, kind: str, data: st.DataObject) -> None:
    name = schema.load(api_version, kind).struct_name
    obj = {"apiVersion": api_version, "kind": kind, **data.draw(objects(name))}
    schema.walk(schema.load(api_version, kind), obj)
    schema.nullify(schema.load(api_version, kind), obj)
    assert round_trip(copy.deepcopy(obj)) == obj


@given(obj=objects("core.v1.Pod", 4))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_both_builds_make_the_same_bytes_and_read_them_alike(obj: Object) -> None:
    schema.walk(schema.load("v1", "Pod"), obj)
    encoded = []
    for module in BUILDS.values():
        message = twin(module, "core.v1.Pod")
        wire = module.Encoder(8).encode(message, obj)
        encoded.append((wire, module.decode(message, wire)))
    assert all(one == encoded[0] for one in encoded)


TWINS: dict[tuple[str, str], Any] = {}
FIELD_KINDS = {1: "string", 2: "bytes", 3: "bool", 4: "int", 5: "double", 6: "message", 7: "map", 8: "inline", 9: "raw"}
SHAPES = ["", "quantity", "time", "microTime", "intOrString", "json", "items", "orList", "orBool"]


def twin(module: Any, name: str) -> Any:
    """The same message made of the classes of another build."""
    key = (module.__name__, name)
    if key not in TWINS:
        told = protobuf.message(name)
        fields = told.fields.values
        load = lambda: [twin_field(module, field) for field in fields()]  # noqa: E731
        TWINS[key] = module.Message(name, load, SHAPES[told.shape])
    return TWINS[key]


def twin_field(module: Any, field: Any) -> Any:
    inner = twin(module, field.message.name) if field.message is not None else None
    values_of = twin_field(module, field.values) if field.values is not None else None
    return module.Field(field.name, field.number, FIELD_KINDS[field.kind], field.repeated, inner, values_of)


def test_what_other_writers_write_is_read() -> None:
    """Empty fields of all kinds, unknown fields, packed numbers, a field that comes twice."""
    pod = (
        b"\x0a\x07\x0a\x01a\x42\x00\x6a\x00"  # metadata: a name, no creationTimestamp, one empty ownerReference
        b"\x12\x10\x1a\x00\x1a\x06Always"  # spec: restartPolicy twice
        b"\x72\x04\x22\x02\x01\x02"  # securityContext.supplementalGroups, packed
        b"\xfa\x3f\x03new\xf8\x3f\x05\xf9\x3f12345678\xfd\x3f1234"  # fields that nobody knows
    )
    meta = b"\x0a\x09\x0a\x02v1\x12\x03Pod"
    body = b"k8s\x00" + meta + b"\x12" + bytes([len(pod)]) + pod
    obj = protobuf.decode(body)
    assert obj["metadata"] == {"name": "a", "creationTimestamp": None, "ownerReferences": [{}]}
    assert obj["spec"] == {"restartPolicy": "Always", "securityContext": {"supplementalGroups": [1, 2]}}


def test_a_map_entry_may_lack_its_key_or_value() -> None:
    quota = protobuf.message("core.v1.ResourceQuotaSpec")
    assert _protobuf.decode(quota, b"\x0a\x03\x0a\x01a\x0a\x05\x12\x03\x0a\x011") == {"hard": {"a": "0", "": "1"}}
    assert _protobuf.decode(protobuf.message("core.v1.Secret"), b"\x12\x00") == {"data": {"": ""}}


# ---------------------------------------------------------------- lists and frames


def stored(name: str) -> tuple[bytes, int]:
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": name * 50}}
    return msgpack.packb(obj), len(name) + 100


@pytest.mark.parametrize("count", [0, 1, 500])
def test_lists(count: int) -> None:
    items = [stored(f"n{number}") for number in range(count)]
    body = protobuf.list_of("ConfigMapList", "v1", items, {"resourceVersion": "9", "continue": "c"})
    told = protobuf.decode(body)
    assert (told["apiVersion"], told["kind"]) == ("v1", "ConfigMapList")
    assert told["metadata"] == {"resourceVersion": "9", "continue": "c"}
    found = [(item["metadata"]["name"], item["metadata"]["resourceVersion"]) for item in told.get("items", [])]
    assert found == [(f"n{number}", str(len(f"n{number}") + 100)) for number in range(count)]
    assert all("kind" not in item for item in told.get("items", []))


def test_one_stored_value() -> None:
    told = protobuf.decode(protobuf.value(*stored("a")))
    assert told["metadata"] == {"name": "a", "resourceVersion": "101"}


def test_watch_events_are_bare_messages_around_whole_objects() -> None:
    obj = protobuf.value(*stored("a"))
    frame = protobuf.event("ADDED", obj)
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert frame[4:11] == b"\x0a\x05ADDED"
    assert frame.endswith(obj)


def test_kinds_without_this_form_are_named() -> None:
    assert protobuf.has_form("v1", "Pod") and protobuf.has_form("meta.k8s.io/v1", "PartialObjectMetadataList")
    assert not protobuf.has_form("meta.k8s.io/v1", "Table")
    with pytest.raises(protobuf.ProtobufError, match=r'^no kind "Widget" is registered for version "example.com/v1"$'):
        protobuf.encode({"apiVersion": "example.com/v1", "kind": "Widget"})


# ---------------------------------------------------------------- malformed


@pytest.mark.parametrize(
    "raw",
    [
        b"\x0a",  # no length
        b"\x0a\x05a",  # cut short
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # absurd length
        b"\xff" * 11,  # varint too long
        b"\x0b\x00",  # a group
        b"\x08\x01",  # metadata is no number
        b"\x12\x03\x0a\x05a",  # a map entry cut short
        b"\x0f",  # no such wire type
        b"\x02\x00",  # field 0
    ],
)
def test_malformed_messages_are_refused(raw: bytes) -> None:
    body = b"k8s\x00\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12" + bytes([len(raw)]) + raw
    with pytest.raises(ValueError):
        protobuf.decode(body)


def test_what_is_no_envelope_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected prefix \[107 56 115 0\]"):
        protobuf.decode(b"{}")


def test_depth_has_a_limit() -> None:
    props: Object = {}
    for _ in range(300):
        props = {"not": props}
    versions = [{"name": "v1", "schema": {"openAPIV3Schema": props}}]
    body = protobuf.encode(
        {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "spec": {"versions": versions}}
    )
    with pytest.raises(ValueError, match="nested too deeply"):
        protobuf.decode(body)


@given(raw=st.binary(max_size=80))
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_never_do_more_than_raise(raw: bytes) -> None:
    outcomes = []
    for module in BUILDS.values():
        try:
            outcomes.append(module.decode(twin(module, "core.v1.Pod"), raw))
        except ValueError as error:
            outcomes.append(str(error))
    assert all(str(one) == str(outcomes[0]) for one in outcomes)
