"""Strategic merge patch: merge keys, directives, order, refusals, on the schema of a Deployment."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastkube.api import quantity, schema
from fastkube.api.strategic import go_text, restore_fault, strategic_merge_patch
from fastkube.errors import ApiError

POD = schema.struct("core.v1.PodTemplateSpec")


def patched(live, patch, shape=POD):
    before = copy.deepcopy(patch)
    result = strategic_merge_patch(copy.deepcopy(live), patch, shape)
    assert patch == before
    return result


def spec(live, patch):
    return patched({"spec": live}, {"spec": patch})["spec"]


def containers(live, patch):
    return spec({"containers": live}, {"containers": patch})["containers"]


def finalizers(live, **patch):
    patch = {
        key.replace("order", "$setElementOrder/finalizers").replace(
            "delete", "$deleteFromPrimitiveList/finalizers"
        ): value
        for key, value in patch.items()
    }
    return patched({"metadata": {"finalizers": live}}, {"metadata": patch})["metadata"].get("finalizers")


X = {"name": "x", "image": "x:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}
Y = {"name": "y", "image": "y:1"}


def test_lists_are_merged_by_key_in_the_order_of_the_patch():
    change = {"name": "x", "image": "x:2", "env": [{"name": "C", "value": "3"}, {"name": "A", "value": "9"}]}
    assert containers([X, Y], [change, {"name": "z", "image": "z:1"}]) == [
        {
            "name": "x",
            "image": "x:2",
            "env": [{"name": "C", "value": "3"}, {"name": "A", "value": "9"}, {"name": "B", "value": "2"}],
        },
        {"name": "z", "image": "z:1"},
        Y,
    ]


def test_numbers_serve_as_merge_keys():
    live = [{"name": "x", "ports": [{"containerPort": 80}, {"containerPort": 81}]}]
    change = [{"name": "x", "ports": [{"containerPort": 80, "name": "w"}, {"containerPort": 82}]}]
    assert containers(live, change)[0]["ports"] == [
        {"containerPort": 80, "name": "w"},
        {"containerPort": 82},
        {"containerPort": 81},
    ]


def test_items_are_deleted_by_directive():
    gone = [{"name": "x", "env": [{"name": "B", "$patch": "delete"}]}, {"name": "y", "$patch": "delete"}]
    assert containers([X, Y], gone) == [{"name": "x", "image": "x:1", "env": [{"name": "A", "value": "1"}]}]
    assert containers([X], [{"name": "none", "$patch": "delete"}]) == [X]


def test_replace_takes_the_place_of_a_list_or_a_map():
    assert containers([X, Y], [{"$patch": "replace"}, {"name": "q"}]) == [{"name": "q"}]
    live = {"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [X]}}
    patch = {"metadata": {"labels": {"$patch": "replace", "b": "2"}}, "spec": {"$patch": "replace", "volumes": []}}
    assert patched(live, patch) == {"metadata": {"labels": {"b": "2"}}, "spec": {"volumes": []}}
    assert patched(live, {"metadata": {"$patch": "delete"}})["metadata"] == {}


def test_a_new_map_with_a_directive_is_left_out():
    assert patched({"metadata": {}}, {"metadata": {"labels": {"$patch": "replace", "a": "1"}}}) == {"metadata": {}}
    assert spec({}, {"containers": [{"name": "y", "$patch": "delete"}, {"name": "x", "image": None}]}) == {
        "containers": [{"name": "x"}]
    }


def test_other_lists_and_maps_are_replaced_whole():
    assert spec({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]}) == {"tolerations": [{"key": "b"}]}
    live = [{"name": "c", "command": ["a", "b"]}]
    assert containers(live, [{"name": "c", "command": ["z"]}]) == [{"name": "c", "command": ["z"]}]
    budget = schema.load("policy/v1", "PodDisruptionBudget")
    live, patch = ({"spec": {"selector": {"matchLabels": {key: "1"}}}} for key in "ab")
    assert patched(live, patch, budget) == patch


def test_null_removes():
    assert spec({"containers": [X], "nodeName": "n"}, {"containers": None, "other": None}) == {"nodeName": "n"}


def test_retain_keys_drops_the_others():
    live = [{"name": "v", "emptyDir": {}}]
    change = [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]
    assert spec({"volumes": live}, {"volumes": change}) == {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}
    rolling = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    recreate = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    deployment = schema.load("apps/v1", "Deployment")
    assert patched(rolling, recreate, deployment) == {"spec": {"strategy": {"type": "Recreate"}}}
    new = [{"name": "w", "$retainKeys": ["name", "emptyDir"], "emptyDir": {}}]
    assert spec({"volumes": live}, {"volumes": new})["volumes"] == [{"name": "w", "emptyDir": {}}, *live]


def test_scalars_merge_as_sets():
    assert finalizers(["a", "b"], delete=["a"]) == ["b"]
    assert finalizers(["b"], finalizers=["c"]) == ["c", "b"]
    assert finalizers(["a", "b"], finalizers=["b"]) == ["a", "b"]
    assert finalizers(["a"], finalizers=None) is None
    assert finalizers(["a", "b", "c"], finalizers=["d"], delete=["b"]) == ["d", "a", "c"]


def test_the_order_of_a_list_can_be_set():
    assert finalizers(["b", "c"], order=["c", "b"]) == ["c", "b"]
    assert finalizers(["a", "b", "c"], order=["c", "b"]) == ["a", "c", "b"]
    assert finalizers(["a", "b"], order=["d", "b"], finalizers=["d"]) == ["d", "a", "b"]
    order = {
        "$setElementOrder/containers": [{"name": "y"}, {"name": "x"}],
        "containers": [{"name": "x", "image": "x:2"}],
    }
    assert [item["name"] for item in spec({"containers": [X, Y]}, order)["containers"]] == ["y", "x"]
    assert spec({}, {"$setElementOrder/containers": [{"name": "y"}]}) == {}


@pytest.mark.parametrize(
    ("patch", "code", "message"),
    [
        (
            {"spec": {"containers": [{"image": "no-name"}]}},
            500,
            "map: map[image:no-name] does not contain declared merge key: name",
        ),
        (
            {"spec": {"containers": [{"name": "x", "$patch": "odd"}]}},
            500,
            "unknown patch type: odd in map: map[$patch:odd name:x]",
        ),
        ({"spec": {"$patch": "odd"}}, 500, "unknown patch type: odd in map: map[$patch:odd]"),
        (
            {"spec": {"containers": [{"name": "x", "$patch": "merge"}]}},
            500,
            "merging lists cannot yet be specified in the patch",
        ),
        (
            {"spec": {"containers": [{"$patch": "delete"}]}},
            500,
            "map: map[$patch:delete] does not contain declared merge key: name",
        ),
        ({"spec": {"$retainKeys": ["other"], "nodeName": "n"}}, 400, "invalid patch format of retainKeys"),
        ({"spec": {"$retainKeys": "containers"}}, 400, "invalid patch format of retainKeys"),
        ({"spec": {"$deleteFromPrimitiveListX": []}}, 400, "invalid patch format of primitive list"),
        ({"spec": {"$setElementOrderX": []}}, 400, "invalid patch format of setElementOrder list"),
        (
            {"spec": {"$setElementOrder/containers": {}}},
            500,
            "expected a []interface {}, but received a map[string]interface {}",
        ),
        ({"spec": {"$setElementOrder/containers": [{}]}}, 500, "map: map[] does not contain declared merge key: name"),
        (
            {"spec": {"$setElementOrder/containers": ["x"]}},
            500,
            "expected a map[string]interface {}, but received a string",
        ),
        (
            {"spec": {"containers": [{"name": {"a": 1}}]}},
            500,
            "expected a string, but received a map[string]interface {}",
        ),
        ({"spec": {"containers": ["x"]}}, 500, "list element types are not identical: [[map[name:x]] [x]]"),
        (
            {"spec": {"containers": [[1]]}},
            422,
            "the server rejected our request due to an error in our request",
        ),
        (
            {"spec": {"$setElementOrder/containers": [{"name": "x"}], "containers": [{"name": "y"}]}},
            500,
            "The order in patch list:\n[map[name:y]]\n doesn't match $setElementOrder list:\n[map[name:x]]\n",
        ),
        ([], 400, "json: cannot unmarshal array into Go value of type map[string]interface {}"),
    ],
)
def test_refusals(patch, code, message):
    live = {"spec": {"containers": [{"name": "x"}]}}
    with pytest.raises(ApiError) as caught:
        strategic_merge_patch(live, patch, POD)
    assert (caught.value.code, caught.value.message) == (code, message)


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"containers": [{"name": "x", "ports": []}], "hostNetwork": True, "nodeName": None}, ""),
        ({"containers": {"name": "x"}}, "cannot restore slice from map"),
        ({"containers": ["x"]}, "cannot restore struct from: string"),
        ({"nodeSelector": ["x"]}, "cannot restore map from slice"),
        ({"priority": "x"}, "unrecognized type: int32"),
        ({"priority": 1.5}, "cannot convert float64 to int32"),
        ({"priority": 1.0}, ""),
        ({"nodeName": 1}, "cannot convert int64 to string"),
        ({"nodeName": True}, "unrecognized type: string"),
        ({"hostNetwork": "yes"}, "unrecognized type: bool"),
        ({"containers": [{"resources": {"limits": {"cpu": "1x"}}}]}, quantity.FORMAT_FAULT),
        ({"containers": [{"livenessProbe": {"httpGet": {"port": "http"}}}]}, ""),
    ],
)
def test_results_that_are_no_pods(spec, fault):
    assert restore_fault(POD, {"spec": spec, "unknown": 1}) == fault


def test_go_prints_maps_with_sorted_keys():
    assert go_text({"b": [1, "x", True, None], "a": {"c": 2.5}}) == "map[a:map[c:2.5] b:[1 x true <nil>]]"


@pytest.mark.parametrize(
    ("number", "told"),
    [(1.0, "1"), (0.0, "0"), (100000.0, "100000"), (1e6, "1e+06"), (1234567.8, "1.2345678e+06"), (1e-5, "1e-05")],
)
def test_go_prints_floats_with_an_exponent_from_a_million_on(number, told):
    assert go_text(number) == told


names = st.sampled_from("abcde")
lists = st.lists(names, unique=True, max_size=5)


def named(items):
    return [{"name": name} for name in items]


@given(lists, lists)
def test_a_merged_list_keeps_the_orders_of_patch_and_live_list(live, patch):
    merged = [item["name"] for item in containers(named(live), named(patch))]
    assert sorted(merged) == sorted({*live, *patch})
    assert [name for name in merged if name in patch] == patch
    assert [name for name in merged if name not in patch] == [name for name in live if name not in patch]
    assert merged == (finalizers(live, finalizers=patch) or [])


@given(lists, lists)
def test_patching_twice_is_patching_once(live, patch):
    once = containers(named(live), named(patch))
    assert containers(once, named(patch)) == once


@given(lists, lists)
def test_kubectls_patch_makes_the_list_it_was_computed_for(live, wanted):
    added = [name for name in wanted if name not in live]
    gone = [{"name": name, "$patch": "delete"} for name in live if name not in wanted]
    patch = {"$setElementOrder/containers": named(wanted), "containers": named(added) + gone}
    result = spec({"containers": named(live)}, patch)
    assert result.get("containers", []) == named(wanted)
