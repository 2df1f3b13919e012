"""JSON patch and JSON merge patch: the RFCs' own examples, refusals, and agreement with another implementation."""

import copy

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastkube.api.patch import json_patch, json_patch_faults, merge_patch, undecodable
from fastkube.errors import ApiError


def op(name, path, **more):
    return {"op": name, "path": path, **({"from": more.pop("source")} if "source" in more else {}), **more}


@pytest.mark.parametrize(
    ("doc", "operations", "expected"),
    [
        ({"foo": "bar"}, [op("add", "/baz", value="qux")], {"foo": "bar", "baz": "qux"}),
        ({"foo": ["a", "c"]}, [op("add", "/foo/1", value="b")], {"foo": ["a", "b", "c"]}),
        ({"foo": ["a"]}, [op("add", "/foo/-", value="b")], {"foo": ["a", "b"]}),
        ({"foo": ["a"]}, [op("add", "/foo/1", value="b")], {"foo": ["a", "b"]}),
        ({"foo": ["a", "b"]}, [op("remove", "/foo/-1")], {"foo": ["a"]}),
        ({"baz": 1, "foo": 2}, [op("remove", "/baz")], {"foo": 2}),
        ({"foo": ["a", "b"]}, [op("remove", "/foo/0")], {"foo": ["b"]}),
        ({"baz": 1}, [op("replace", "/baz", value=None)], {"baz": None}),
        ({"a": {"b": 1}, "c": {}}, [op("move", "/c/d", source="/a/b")], {"a": {}, "c": {"d": 1}}),
        ({"foo": [1, 2, 3]}, [op("move", "/foo/2", source="/foo/0")], {"foo": [2, 3, 1]}),
        (
            {"a": {"b": [1]}},
            [op("copy", "/c", source="/a/b"), op("add", "/c/-", value=2)],
            {"a": {"b": [1]}, "c": [1, 2]},
        ),
        ({"a/b": {"m~n": 1}}, [op("replace", "/a~1b/m~0n", value=2)], {"a/b": {"m~n": 2}}),
        ({"a": 1}, [op("test", "/a", value=1), op("test", "/none", value=None)], {"a": 1}),
        ({"a": 1}, [op("replace", "", value={"b": 2})], {"b": 2}),
        ({"": 1}, [op("replace", "/", value=2)], {"": 2}),
        # what upstream's library does beyond the RFC
        ({"a": 1}, [op("replace", "/b", value=2)], {"a": 1, "b": 2}),
        ({"a": 1}, [op("add", "/b")], {"a": 1, "b": None}),
        ({"a": {}}, [op("copy", "/b", source="/a/none")], {"a": {}, "b": None}),
        ({"a": [1]}, [op("add", "/a/-1", value=2)], {"a": [1, 2]}),
        ({"a": [1]}, [op("add", "/a/+0", value=2)], {"a": [2, 1]}),
        ({"a": 1}, [op("add", "odd/b", value=2)], {"a": 1, "b": 2}),
        ({"a": 1}, None, {"a": 1}),
    ],
)
def test_json_patch(doc, operations, expected):
    assert json_patch(doc, operations) == expected


@pytest.mark.parametrize(
    "operation",
    [
        op("replace", "/metadata/labels/x", value="2"),
        op("remove", "/none"),
        op("add", "/none/x", value=1),
        op("add", "/list/3", value=1),
        op("add", "/list/x", value=1),
        op("add", "/a/b", value=1),
        op("add", "a", value=1),
        op("add", "", value={}),
        op("remove", ""),
        op("copy", "", source="/a"),
        op("copy", "/x", source=""),
        op("move", "/x", source="/none"),
        op("replace", "", value=1),
        op("replace", "/list/1", value=1),
        op("remove", "/list/ 0"),
        op("remove", "/list/0_0"),
        op("test", "/a", value=2),
        op("test", "/a", value=True),
        op("test", "/a", value=1.0),
        op("test", "/a/b", value=None),
        op("test", "/none/b", value=None),
        op("move", "/map/x/y", source="/map"),
        op("odd", "/a"),
        {"path": "/a"},
    ],
)
def test_operations_that_do_not_fit_are_rejected(operation):
    with pytest.raises(ApiError) as caught:
        json_patch({"a": 1, "list": [1], "map": {}}, [operation])
    assert (caught.value.code, caught.value.reason) == (422, "Invalid")
    assert caught.value.message == "the server rejected our request due to an error in our request"
    assert caught.value.to_status()["details"] == {}


def test_what_is_no_list_of_operations():
    with pytest.raises(ApiError, match=r"cannot unmarshal object into Go value of type jsonpatch\.Patch"):
        json_patch({}, {})
    with pytest.raises(ApiError, match=r"cannot unmarshal string into Go value of type jsonpatch\.Operation"):
        json_patch({}, ["x"])
    with pytest.raises(ApiError) as caught:
        json_patch({}, [op("test", "/a")] * 10_001)
    assert caught.value.code == 413
    assert caught.value.message.endswith("The allowed maximum operations in a JSON patch is 10000, got 10001")


def test_copies_cannot_grow_without_limit():
    doubled = [op("copy", f"/a/{number}", source="/a") for number in range(64)]
    with pytest.raises(ApiError) as caught:
        json_patch({"a": {"b": "x" * 100}}, doubled)
    assert caught.value.code == 422


@pytest.mark.parametrize(
    ("operations", "told"),
    [
        ({}, "json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"),
        ("x", "json: cannot unmarshal string into Go value of type []handlers.jsonPatchOp"),
        ([1], "json: cannot unmarshal number into Go value of type handlers.jsonPatchOp"),
        ([{"op": 1}], "json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string"),
        (
            [{"op": "add", "path": []}],
            "json: cannot unmarshal array into Go struct field jsonPatchOp.path of type string",
        ),
    ],
)
def test_what_is_no_json_patch(operations, told):
    with pytest.raises(ApiError) as caught:
        json_patch_faults(operations)
    assert (caught.value.code, caught.value.message) == (400, f"error decoding patch: {told}")


def test_unknown_fields_of_operations():
    assert json_patch_faults(None) == []
    operations = [op("add", "/a", value=1), op("add", "/b", value=1, source="/c", odd=1)]
    assert json_patch_faults(operations) == ['json patch unknown field "[1].odd"']


@pytest.mark.parametrize(
    ("doc", "patch", "expected"),
    [
        ({}, {"a": [{"b": None, "c": [None]}]}, {"a": [{"c": [None]}]}),
        ({"a": {}}, {"a": [{"b": None}]}, {"a": [{"b": None}]}),
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"a": "foo"}, {"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 1}}}),
    ],
)
def test_merge_patch(doc, patch, expected):
    assert merge_patch(doc, patch) == expected


@pytest.mark.parametrize(("patch", "kind"), [([], "array"), ("x", "string"), (1, "number"), (True, "bool")])
def test_a_merge_patch_must_be_a_map(patch, kind):
    with pytest.raises(ApiError, match=f"error decoding patch: json: cannot unmarshal {kind} into") as caught:
        merge_patch({}, patch)
    assert caught.value.code == 400


@pytest.mark.parametrize(("patch", "strict"), [(None, True), (None, False), ([], False), (1, False)])
def test_what_is_no_merge_patch_at_all(patch, strict):
    with pytest.raises(ApiError) as caught:
        merge_patch({}, patch, strict=strict)
    assert (caught.value.code, caught.value.message) == (400, "Invalid JSON Patch")


def test_results_that_are_no_objects_of_their_kind():
    error = undecodable("map[foo:1]", 'strict decoding error: unknown field "foo"')
    assert error.code == 422
    told = 'Invalid value: "map[foo:1]": strict decoding error: unknown field "foo"'
    assert error.message == f' "" is invalid: patch: {told}'
    assert error.to_status()["details"] == {
        "causes": [{"reason": "FieldValueInvalid", "message": told, "field": "patch"}]
    }


scalars = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=3))
keys = st.sampled_from(["a", "b", "c/d", "e~f"])
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=12
)
objects = st.dictionaries(keys, documents, max_size=4)
# a null within a list stays where the list replaces a map, and goes where it replaces a list: twice is not once there
plain_lists = st.lists(scalars, max_size=3)
merge_patches = st.dictionaries(
    keys,
    st.recursive(scalars | plain_lists, lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=12),
    max_size=4,
)


@given(objects, objects)
def test_a_difference_of_another_implementation_leads_to_the_target(source, target):
    operations = jsonpatch.make_patch(source, target).patch
    assert json_patch(copy.deepcopy(source), operations) == target


@given(objects, merge_patches)
def test_merging_twice_is_merging_once_and_the_patch_stays(doc, patch):
    before = copy.deepcopy(patch)
    once = merge_patch(copy.deepcopy(doc), patch)
    assert merge_patch(copy.deepcopy(once), patch) == once
    assert patch == before


@given(objects, objects)
def test_the_result_shares_nothing_with_the_patch(doc, patch):
    merged = merge_patch(copy.deepcopy(doc), patch)
    added = json_patch(copy.deepcopy(doc), [op("add", "/new", value=patch)])["new"]
    mutable = {id(each) for each in _containers(patch)}
    assert not mutable & {id(each) for each in (*_containers(merged), *_containers(added))}


def _containers(value):
    if isinstance(value, dict | list):
        yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from _containers(part)
