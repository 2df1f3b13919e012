"""What objects consist of: fields of new objects and configurations, comparing, merging, pruning, validation."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastkube.api import fieldsets, schema, typed
from fastkube.api.typed import compare, merged, pruned, type_of

POD = type_of(schema.load("v1", "Pod"))
SERVICE = type_of(schema.load("v1", "Service"))
CONFIG_MAP = type_of(schema.load("v1", "ConfigMap"))
CUSTOM = type_of(
    schema.from_openapi(
        {
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "properties": {
                        "size": {"type": "integer"},
                        "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                        "words": {"type": "array", "items": {"type": "string"}},
                        "ports": {
                            "type": "array",
                            "x-kubernetes-list-type": "map",
                            "x-kubernetes-list-map-keys": ["port", "protocol"],
                            "items": {
                                "type": "object",
                                "properties": {
                                    "port": {"type": "integer"},
                                    "protocol": {"type": "string", "default": "TCP"},
                                    "name": {"type": "string"},
                                },
                            },
                        },
                        "whole": {
                            "type": "object",
                            "x-kubernetes-map-type": "atomic",
                            "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                        },
                        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        "either": {"x-kubernetes-int-or-string": True},
                    },
                }
            },
        }
    )
)


def containers(*items):
    return {"spec": {"containers": list(items)}}


def test_a_new_object_sets_all_but_what_is_written_of_an_empty_one():
    obj = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {
            "type": "ClusterIP",
            "selector": {"app": "a"},
            "clusterIPs": ["10.0.0.1"],
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        },
        "status": {"loadBalancer": {}},
    }
    port = {".": {}, "f:port": {}, "f:protocol": {}, "f:targetPort": {}}
    assert typed.made(SERVICE, obj) == {
        "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
        "f:spec": {
            "f:type": {},
            "f:selector": {},
            "f:clusterIPs": {},
            "f:ports": {".": {}, 'k:{"port":80,"protocol":"TCP"}': port},
        },
    }


def test_lists_that_are_never_left_out_are_not_new_themselves():
    assert typed.made(POD, containers({"name": "c"})) == {
        "f:spec": {"f:containers": {'k:{"name":"c"}': {".": {}, "f:name": {}}}}
    }


def test_parts_of_custom_objects_are_new_themselves():
    obj = {"spec": {"tags": ["x"], "words": ["y"], "free": {"a": {"b": [1]}, "c": {}}, "whole": {"a": "1"}}}
    assert typed.made(CUSTOM, obj) == {
        "f:spec": {
            ".": {},
            "f:tags": {".": {}, 'v:"x"': {}},
            "f:words": {},
            "f:free": {".": {}, "f:a": {".": {}, "f:b": {}}, "f:c": {}},
            "f:whole": {},
        }
    }


@pytest.mark.parametrize(
    ("kind", "config", "fields"),
    [
        (CONFIG_MAP, {"data": {"x": "1"}}, {"f:data": {"f:x": {}}}),
        (CONFIG_MAP, {"data": {}}, {"f:data": {}}),
        (CONFIG_MAP, {"data": None}, {"f:data": {}}),
        (
            CONFIG_MAP,
            {"metadata": {"finalizers": ["e.com/f"]}},
            {"f:metadata": {"f:finalizers": {'v:"e.com/f"': {}}}},
        ),
        (
            CONFIG_MAP,
            {"metadata": {"ownerReferences": [{"uid": "u", "name": "n"}]}},
            {"f:metadata": {"f:ownerReferences": {'k:{"uid":"u"}': {}}}},
        ),
        (
            SERVICE,
            {"spec": {"ports": [{"port": 80}], "selector": {"a": "1"}}},
            {"f:spec": {"f:ports": {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:port": {}}}, "f:selector": {}}},
        ),
        (POD, {"spec": {"containers": []}}, {}),
        (POD, {"spec": {"tolerations": [], "replicas": None}}, {"f:spec": {"f:tolerations": {}, "f:replicas": {}}}),
        (
            POD,
            containers({"name": "c", "resources": {"limits": {"cpu": "1"}}}),
            {
                "f:spec": {
                    "f:containers": {
                        'k:{"name":"c"}': {".": {}, "f:name": {}, "f:resources": {"f:limits": {"f:cpu": {}}}}
                    }
                }
            },
        ),
        (
            CUSTOM,
            {"spec": {"ports": [{"port": 1}]}},
            {"f:spec": {"f:ports": {'k:{"port":1,"protocol":"TCP"}': {".": {}, "f:port": {}}}}},
        ),
        (
            CUSTOM,
            {"spec": {"labels": {"a": "b"}, "free": {"a": {"b": 1}}}},
            {"f:spec": {"f:labels": {"f:a": {}}, "f:free": {"f:a": {".": {}, "f:b": {}}}}},
        ),
    ],
)
def test_what_a_configuration_names(kind, config, fields):
    assert typed.applied(kind, config) == fields


@pytest.mark.parametrize(
    ("left", "right", "added", "modified", "removed"),
    [
        ({"data": {"x": "1"}}, {"data": {"x": "1", "y": "2"}}, {"f:data": {"f:y": {}}}, {}, {}),
        ({}, {"data": {"y": "2"}}, {"f:data": {".": {}, "f:y": {}}}, {}, {}),
        ({"data": {"x": "1"}}, {"data": {"x": "2"}}, {}, {"f:data": {"f:x": {}}}, {}),
        ({"data": {"x": "1"}}, {}, {}, {}, {"f:data": {".": {}, "f:x": {}}}),
        ({"data": {"x": "1"}}, {"data": None}, {}, {}, {"f:data": {"f:x": {}}}),
        ({"data": {}}, {"data": None}, {}, {"f:data": {}}, {}),
        ({"data": {"x": "1"}}, {"data": {"x": "1"}}, {}, {}, {}),
        (
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"finalizers": ["b", "c"]}},
            {"f:metadata": {"f:finalizers": {'v:"c"': {}}}},
            {},
            {"f:metadata": {"f:finalizers": {'v:"a"': {}}}},
        ),
    ],
)
def test_comparing(left, right, added, modified, removed):
    assert compare(CONFIG_MAP, left, right) == (added, modified, removed)


def test_items_given_twice_are_compared_as_one():
    one, two, three = ({"name": "c", "image": image} for image in "123")
    place = {"f:spec": {"f:containers": {'k:{"name":"c"}': {}}}}
    inner = {"f:spec": {"f:containers": {'k:{"name":"c"}': {".": {}, "f:name": {}, "f:image": {}}}}}
    assert compare(POD, containers(one, two), containers(one, three)) == ({}, place, {})
    assert compare(POD, containers(one, two), containers(two, two)) == ({}, place, {})
    assert compare(POD, containers(one, two), containers(one)) == (inner, {}, place)
    assert compare(POD, containers(one), containers(one, two)) == (place, {}, inner)
    assert typed.everything(POD, containers(one, two))["f:spec"]["f:containers"] == {".": {}, 'k:{"name":"c"}': {}}


def test_atomic_parts_are_compared_whole():
    left, right = ({"spec": {"whole": {"a": told, "b": "1"}, "words": [told]}} for told in "xy")
    assert compare(CUSTOM, left, right) == ({}, {"f:spec": {"f:whole": {}, "f:words": {}}}, {})


def test_parts_of_changing_shape():
    left, right = {"spec": {"free": {"a": {"b": 1}}}}, {"spec": {"free": {"a": [1]}}}
    assert compare(CUSTOM, left, right) == ({}, {"f:spec": {"f:free": {"f:a": {}}}}, {})
    assert compare(CUSTOM, left, {"spec": {"free": {"a": None}}}).removed == {
        "f:spec": {"f:free": {"f:a": {"f:b": {}}}}
    }


@pytest.mark.parametrize(
    ("kind", "live", "config", "result"),
    [
        (CONFIG_MAP, {"data": {"x": "1"}}, {"data": {"y": "2"}}, {"data": {"x": "1", "y": "2"}}),
        (CONFIG_MAP, {"data": {"x": "1"}}, {"data": None}, {"data": {"x": "1"}}),
        (CONFIG_MAP, {}, {"data": None}, {"data": None}),
        (CUSTOM, {"spec": {"whole": {"a": "1"}}}, {"spec": {"whole": {"b": "2"}}}, {"spec": {"whole": {"b": "2"}}}),
        (CUSTOM, {"spec": {"words": ["a"]}}, {"spec": {"words": ["b"]}}, {"spec": {"words": ["b"]}}),
        (CUSTOM, {"spec": {"tags": ["a", "b"]}}, {"spec": {"tags": ["c", "a"]}}, {"spec": {"tags": ["c", "a", "b"]}}),
        (CUSTOM, {"spec": {"size": 1}}, {"spec": {"size": None}}, {"spec": {"size": None}}),
        (
            CUSTOM,
            {"spec": {"ports": [{"port": 1, "protocol": "TCP", "name": "a"}]}},
            {"spec": {"ports": [{"port": 1, "name": "b"}, {"port": 1, "protocol": "UDP"}]}},
            {"spec": {"ports": [{"port": 1, "protocol": "TCP", "name": "b"}, {"port": 1, "protocol": "UDP"}]}},
        ),
        (
            CUSTOM,
            {"spec": {"free": {"a": {"x": 1}}}},
            {"spec": {"free": {"a": {"y": 2}}}},
            {"spec": {"free": {"a": {"x": 1, "y": 2}}}},
        ),
    ],
)
def test_merging(kind, live, config, result):
    assert merged(kind, live, config) == result


@pytest.mark.parametrize(
    ("value", "gone", "left"),
    [
        ({"data": {"x": "1", "y": "2"}}, {"f:data": {"f:x": {}}}, {"data": {"y": "2"}}),
        ({"data": {"x": "1"}, "a": 1}, {"f:data": {"f:x": {}}}, {"data": None, "a": 1}),
        ({"data": {"x": "1"}, "a": 1}, {"f:data": {}}, {"a": 1}),
        (
            {"metadata": {"finalizers": ["a", "b"]}},
            {"f:metadata": {"f:finalizers": {'v:"a"': {}}}},
            {"metadata": {"finalizers": ["b"]}},
        ),
        ({"data": {"x": "1"}}, {"f:data": {}}, None),
    ],
)
def test_pruning(value, gone, left):
    assert pruned(CONFIG_MAP, value, gone) == left


def test_sets_with_the_fields_above():
    fields = {"f:spec": {"f:containers": {'k:{"name":"c"}': {"f:image": {}}}}, "f:metadata": {"f:labels": {"f:a": {}}}}
    assert typed.with_named_fields(POD, fields) == {
        "f:spec": {".": {}, "f:containers": {".": {}, 'k:{"name":"c"}': {"f:image": {}}}},
        "f:metadata": {".": {}, "f:labels": {".": {}, "f:a": {}}},
    }


def test_sets_follow_a_changed_schema():
    fields = {"f:spec": {"f:whole": {"f:a": {}}, "f:words": {".": {}, 'v:"x"': {}}, "f:labels": {}, "f:tags": {}}}
    live = {"spec": {"labels": {"a": "b"}, "tags": ["t"]}}
    assert typed.reconciled(CUSTOM, fields, live) == {
        "f:spec": {
            "f:whole": {},
            "f:words": {},
            "f:labels": {".": {}, "f:a": {}},
            "f:tags": {".": {}, 'v:"t"': {}},
        }
    }


@pytest.mark.parametrize(
    ("kind", "config", "fault"),
    [
        (CONFIG_MAP, {"nope": 1}, (".nope", "field not declared in schema")),
        (CONFIG_MAP, {"data": {"k": 1}}, (".data.k", "expected string, got &value.valueUnstructured{Value:1}")),
        (
            CONFIG_MAP,
            {"data": {"k": {"a": ["x"]}}},
            (
                ".data.k",
                'expected string, got &value.valueUnstructured{Value:map[string]interface {}{"a":[]interface {}{"x"}}}',
            ),
        ),
        (CONFIG_MAP, {"data": ["x"]}, (".data", "expected map, got &{[x]}")),
        (CONFIG_MAP, {"immutable": "yes"}, (".immutable", "expected boolean, got &{yes}")),
        (POD, {"spec": {"containers": {"name": "c"}}}, (".spec.containers", "expected list, got &{map[name:c]}")),
        (POD, {"spec": {"priority": "x"}}, (".spec.priority", "expected numeric (int or float), got string")),
        (
            POD,
            containers({"name": "c", "nope": 1}),
            ('.spec.containers[name="c"].nope', "field not declared in schema"),
        ),
        (
            POD,
            containers({"image": "c"}, {"image": "d"}),
            (".spec.containers", 'duplicate entries for key [name=""]'),
        ),
        (
            POD,
            containers(None),
            (".spec.containers", "element 0: associative list with keys may not have a null element"),
        ),
        (
            POD,
            containers("c"),
            (".spec.containers", "element 0: associative list with keys may not have non-map elements"),
        ),
        (POD, containers({"name": "c"}, {"name": "c"}), (".spec.containers", 'duplicate entries for key [name="c"]')),
        (POD, {"spec": {"tolerations": [{"nope": 1}]}}, (".spec.tolerations[0].nope", "field not declared in schema")),
        (
            POD,
            containers({"name": "c", "resources": {"limits": {"cpu": {}}}}),
            ('.spec.containers[name="c"].resources.limits.cpu', "expected any scalar, got &{map[]}"),
        ),
        (
            CUSTOM,
            {"spec": {"tags": [{}]}},
            (".spec.tags", "element 0: associative list without keys has an element that's a map type"),
        ),
        (
            CUSTOM,
            {"spec": {"tags": [[]]}},
            (".spec.tags", "element 0: not supported: associative list with lists as elements"),
        ),
        (
            CUSTOM,
            {"spec": {"tags": [None]}},
            (".spec.tags", "element 0: associative list without keys has an element that's an explicit null"),
        ),
        (CUSTOM, {"spec": {"tags": ["a", "a"]}}, (".spec.tags", 'duplicate entries for key [="a"]')),
    ],
)
def test_faults_of_configurations(kind, config, fault):
    assert list(typed.faults(kind, config)) == [fault]
    assert not typed.fits(kind, config)


def test_good_configurations_have_no_faults():
    good = {"spec": {"either": "10%", "free": {"x": [{}]}, "size": None, "tags": ["a", "b"], "labels": {"a": "b"}}}
    assert list(typed.faults(CUSTOM, good)) == [] and typed.fits(CUSTOM, good)
    pod = {"metadata": {"creationTimestamp": None}, **containers({"name": "c", "resources": {"limits": {"cpu": 1}}})}
    assert list(typed.faults(POD, pod)) == [] and typed.fits(POD, pod)


names = st.lists(st.sampled_from("abcdef"), unique=True, max_size=6)
values = st.fixed_dictionaries(
    {},
    optional={
        "size": st.one_of(st.none(), st.integers(0, 3)),
        "tags": names.filter(bool),  # who applies an empty set or list by keys owns nothing
        "words": names,
        "ports": st.lists(
            st.fixed_dictionaries({"port": st.integers(1, 3)}, optional={"name": st.sampled_from("xy")}),
            unique_by=lambda port: port["port"],
            min_size=1,
        ),
        "whole": st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy")),
        "labels": st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy")),
        "free": st.dictionaries(
            st.sampled_from("ab"), st.one_of(st.integers(), st.dictionaries(st.just("c"), st.integers()))
        ),
    },
).map(lambda spec: {"spec": spec})


@given(values, values)
def test_the_configuration_wins_and_nothing_else_changes(live, config):
    before = copy.deepcopy(config)
    result = merged(CUSTOM, live, config)
    assert config == before
    assert merged(CUSTOM, result, config) == result
    change = compare(CUSTOM, live, result)
    named = typed.with_named_fields(CUSTOM, typed.applied(CUSTOM, config))
    touched = fieldsets.union(change.added, change.modified)
    for path in fieldsets.paths(touched):
        assert fieldsets.has(named, path) or fieldsets.has(named, path[:-1]), path
    assert change.removed == {}


@given(values, values)
def test_comparing_the_other_way_round_swaps_added_and_removed(left, right):
    there, back = compare(CUSTOM, left, right), compare(CUSTOM, right, left)
    assert (there.added, there.modified, there.removed) == (back.removed, back.modified, back.added)
    assert (there == ({}, {}, {})) == (_unordered(left) == _unordered(right))


def _unordered(value):
    spec = dict(value["spec"])
    for key, order in (("tags", str), ("ports", lambda port: port["port"])):
        if key in spec:
            spec[key] = sorted(spec[key], key=order)
    return spec


@given(values)
def test_pruning_all_leaves_nothing(value):
    everything = typed.everything(CUSTOM, value)
    del everything["."]
    assert pruned(CUSTOM, value, everything) is None
