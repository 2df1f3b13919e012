"""The algebra of field sets, against plain sets of paths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastkube import _fields
from fastkube.api import fieldsets
from fastkube.api.fieldsets import LEAF

elements = st.sampled_from(["f:a", "f:b", 'k:{"name":"c"}', 'v:"x"', "i:0"])
path_sets = st.sets(st.lists(elements, min_size=1, max_size=4).map(tuple), max_size=8)


def tree(paths):
    made = LEAF
    for path in paths:
        made = fieldsets.union(made, fieldsets.of_path(path))
    return made


def listed(fields):
    return set(fieldsets.paths(fields))


@given(path_sets, path_sets)
def test_sets_of_fields_behave_as_sets_of_paths(left, right):
    a, b = tree(left), tree(right)
    assert listed(a) == left
    assert listed(fieldsets.union(a, b)) == left | right
    assert listed(fieldsets.intersection(a, b)) == left & right
    assert listed(fieldsets.difference(a, b)) == left - right
    below = {path for path in left if any(path[: len(other)] == other for other in right)}
    assert listed(fieldsets.without(a, b)) == left - below
    assert all(fieldsets.has(a, path) == (path in left) for path in left | right)


@given(path_sets, path_sets)
def test_equal_sets_are_equal_trees(left, right):
    a, b = tree(left), tree(right)
    assert tree(left | right) == fieldsets.union(a, b) == fieldsets.union(b, a)
    assert tree(left - right) == fieldsets.difference(a, b)
    assert tree(left & right) == fieldsets.intersection(b, a)


@given(path_sets, path_sets)
def test_sets_are_never_changed(left, right):
    a, b = tree(left), tree(right)
    for operation in (fieldsets.union, fieldsets.intersection, fieldsets.difference, fieldsets.without):
        operation(a, b)
    assert (listed(a), listed(b), LEAF) == (left, right, {})


@given(path_sets)
def test_whatever_is_computed_is_well_formed(paths):
    assert fieldsets.is_well_formed(tree(paths))


@pytest.mark.parametrize(
    "fields", [None, [], {"a": {}}, {"f:a": None}, {"k:x": {}}, {"k:[]": {}}, {"i:x": {}}, {"v:": {}}, {"x:a": {}}]
)
def test_what_is_no_set(fields):
    assert not fieldsets.is_well_formed(fields)


def test_paths_are_written_as_in_messages():
    path = ("f:spec", "f:ports", 'k:{"port":80,"protocol":"TCP"}', "i:2", 'v:"a\\"b"')
    assert fieldsets.path_text(path) == '.spec.ports[port=80,protocol="TCP"][2][="a\\"b"]'


def test_paths_come_in_order():
    fields = {"f:b": {}, "f:a": {"f:z": {}}, 'v:"x"': {}, 'k:{"name":"c"}': {".": {}, "f:y": {}}}
    assert list(fieldsets.paths(fields)) == [
        ("f:b",),
        ('k:{"name":"c"}',),
        ('v:"x"',),
        ("f:a", "f:z"),
        ('k:{"name":"c"}', "f:y"),
    ]


@pytest.mark.parametrize("text", ["c", 'say "c"', "back\\slash", "ünï", "new\nline", ""])
def test_items_known_by_one_key(text):
    assert _fields.key_element("name", text) == _fields.keys_element({"name": text})
