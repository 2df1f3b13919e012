"""managedFields of every writer, and server-side apply: ownership, conflicts, removal, migration, scale."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastkube.api import apply as applying
from fastkube.api import schema
from fastkube.api.apply import SPEC, Writer, created, entries_after_scale, scale_entries, settled, updated
from fastkube.errors import ApiError

NOW = 1_767_225_600.0
THEN, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"
CONFIG_MAP = schema.load("v1", "ConfigMap")
DEPLOYMENT = schema.load("apps/v1", "Deployment")
POD = schema.load("v1", "Pod")


def writer(manager, api_version="v1", now=NOW, **more):
    return Writer(manager, api_version, now, **more)


def config_map(data=None, **metadata):
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", **metadata}}
    return {**obj, "data": data} if data is not None else obj


def entry(manager, fields, operation="Update", api_version="v1", time=THEN, subresource=None):
    told = {"manager": manager, "operation": operation, "apiVersion": api_version, "time": time}
    told |= {"fieldsType": "FieldsV1", "fieldsV1": fields}
    told |= {"subresource": subresource} if subresource else {}
    return {key: value for key, value in told.items() if value is not None}


def applied_entry(manager, fields, **more):
    return entry(manager, fields, "Apply", **more)


def managed(obj):
    return obj["metadata"].get("managedFields", [])


def run(live, config, manager="me", now=NOW, force=False, shape=CONFIG_MAP, kind="ConfigMap", **more):
    """The new object after an apply, as the registry would store it: without nulls."""
    result = applying.apply(
        live, config, shape, writer(manager, config["apiVersion"], now, **more), kind=kind, force=force
    )
    return {key: value for key, value in result.obj.items() if value is not None}


def conflict(live, config, **more):
    with pytest.raises(ApiError) as caught:
        run(live, config, **more)
    assert (caught.value.code, caught.value.reason) == (409, "Conflict")
    causes = [(cause["field"], cause["message"]) for cause in caught.value.details["causes"]]
    return caught.value.message, causes


# ---------------------------------------------------------------- create


def test_a_creator_manages_what_it_set():
    obj = config_map({"x": "1"}, uid="u", namespace="n", annotations={"k": "v"}, creationTimestamp=THEN)
    fields = {"f:data": {".": {}, "f:x": {}}, "f:metadata": {"f:annotations": {".": {}, "f:k": {}}}}
    assert created(obj, CONFIG_MAP, writer("golden")) == [entry("golden", fields)]


def test_a_creator_manages_no_status_and_no_names():
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {}, "status": {"phase": "Pending"}}
    assert created(pod, POD, writer("golden")) == []
    assert created(config_map(), CONFIG_MAP, writer("golden")) == []


def test_a_creator_of_a_custom_object_manages_its_parts():
    widget = {"apiVersion": "e.com/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": {"size": 1}}
    shape = schema.from_openapi(
        {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}
    )
    fields = {"f:spec": {".": {}, "f:size": {}}}
    assert created(widget, shape, writer("", "e.com/v1")) == [entry("unknown", fields, api_version="e.com/v1")]


def test_other_fields_can_be_ignored():
    ignored = {"f:data": {"f:secret": {}}}
    obj = config_map({"secret": "1", "x": "2"})
    assert created(obj, CONFIG_MAP, writer("me", ignored=ignored)) == [entry("me", {"f:data": {".": {}, "f:x": {}}})]


# ---------------------------------------------------------------- update


def with_entries(obj, *entries):
    return {**obj, "metadata": {**obj["metadata"], "managedFields": list(entries)}}


OLD = with_entries(config_map({"x": "1"}, uid="u"), entry("one", {"f:data": {".": {}, "f:x": {}}}))


def test_what_changes_goes_to_the_writer():
    new = config_map({"x": "2", "y": "1"}, uid="u")
    assert updated(OLD, new, CONFIG_MAP, writer("two", now=NOW + 60)) == [
        entry("one", {"f:data": {}}),
        entry("two", {"f:data": {"f:x": {}, "f:y": {}}}, time=LATER),
    ]


def test_what_is_removed_leaves_everybody():
    assert updated(OLD, config_map(uid="u"), CONFIG_MAP, writer("two", now=NOW + 60)) == []
    both = with_entries(OLD, *managed(OLD), entry("three", {"f:metadata": {"f:labels": {"f:a": {}}}}))
    assert updated(both, config_map(uid="u"), CONFIG_MAP, writer("two")) == [managed(both)[1]]


def test_a_writer_that_changes_nothing_takes_nothing():
    same = copy.deepcopy(OLD)
    del same["metadata"]["managedFields"]
    assert updated(OLD, same, CONFIG_MAP, writer("two", now=NOW + 60)) == managed(OLD)


def test_a_writer_adds_to_what_it_had():
    new = config_map({"x": "1", "y": "1"}, uid="u")
    assert updated(OLD, new, CONFIG_MAP, writer("one", now=NOW + 60)) == [
        entry("one", {"f:data": {".": {}, "f:x": {}, "f:y": {}}}, time=LATER)
    ]


def test_writers_of_a_subresource_are_others():
    old = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"nodeName": "n"}, "status": {}}
    old = with_entries(old, entry("m", {"f:spec": {"f:nodeName": {}}}))
    new = {**old, "spec": {}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "lastProbeTime": None}]}}
    condition = {".": {}, 'k:{"type":"Ready"}': {".": {}, "f:lastProbeTime": {}, "f:type": {}}}
    fields = {"f:status": {"f:phase": {}, "f:conditions": condition}}
    status = writer("m", subresource="status", ignored=SPEC)
    assert updated(old, new, POD, status) == [managed(old)[0], entry("m", fields, subresource="status")]


def test_untracked_objects_stay_untracked():
    assert updated(config_map(), config_map({"x": "1"}), CONFIG_MAP, writer("me")) == []


@pytest.mark.parametrize("sent", [[], [{}]])
def test_entries_can_be_cleared(sent):
    new = config_map({"x": "2"}, managedFields=sent)
    assert updated(OLD, new, CONFIG_MAP, writer("me")) == []


def test_entries_can_be_corrected_but_not_through_a_subresource():
    mine = [applied_entry("mine", {"f:data": {"f:x": {}}})]
    new = config_map({"x": "1"}, uid="u", managedFields=mine)
    assert updated(OLD, new, CONFIG_MAP, writer("me")) == mine
    assert updated(OLD, new, CONFIG_MAP, writer("me", subresource="status")) == managed(OLD)


@pytest.mark.parametrize(
    "bad",
    [
        {"manager": "m", "operation": "Odd", "apiVersion": "v1"},
        {"manager": "m", "operation": "Update"},
        {"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsV1": {"data": {}}},
    ],
)
def test_entries_that_make_no_sense_are_not_taken(bad):
    assert updated(OLD, config_map({"x": "1"}, uid="u", managedFields=[bad]), CONFIG_MAP, writer("m")) == managed(OLD)


def test_more_than_ten_updaters_are_joined():
    obj = config_map({})
    for number in range(14):
        new = config_map({**obj["data"], f"k{number:02}": "1"}, uid="u")
        entries = updated(obj, new, CONFIG_MAP, writer(f"m{number:02}", now=NOW + number)) if number else None
        obj = with_entries(new, *(entries or created(new, CONFIG_MAP, writer("m00"))))
    names = [each["manager"] for each in managed(obj)]
    assert len(names) == 10
    assert names[:2] == ["ancient-changes", "m05"]
    joined = managed(obj)[0]
    assert set(joined["fieldsV1"]["f:data"]) == {".", *(f"f:k{number:02}" for number in range(5))}
    assert joined["time"] == "2026-01-01T00:00:04Z"


def test_entries_of_other_versions_are_compared_in_them():
    class Renamed:
        def schema(self, api_version):
            return CONFIG_MAP if api_version == "v0" else None

        def convert(self, obj, api_version):
            data = {f"old-{key}": value for key, value in obj["data"].items()}
            return {**obj, "apiVersion": api_version, "data": data}

    old = with_entries(
        config_map({"x": "1", "y": "1"}, uid="u"),
        entry("old", {"f:data": {"f:old-x": {}, "f:old-y": {}}}, api_version="v0"),
        entry("gone", {"f:data": {"f:z": {}}}, api_version="v00"),
    )
    new = config_map({"x": "2", "y": "1"}, uid="u")
    assert updated(old, new, CONFIG_MAP, writer("me"), Renamed()) == [
        entry("me", {"f:data": {"f:x": {}}}),
        entry("old", {"f:data": {"f:old-y": {}}}, api_version="v0"),
    ]


def test_times_alone_are_no_change():
    newer = [{**managed(OLD)[0], "time": LATER}]
    assert settled(OLD, with_entries(OLD, *newer)) == managed(OLD)
    changed = with_entries(config_map({"x": "2"}, uid="u"), *newer)
    assert settled(OLD, changed) == newer
    more = [*newer, entry("two", {"f:data": {"f:x": {}}})]
    assert settled(OLD, with_entries(OLD, *more)) == more
    assert settled(config_map(), config_map()) == []


# ---------------------------------------------------------------- apply


def test_apply_creates_and_owns_what_it_names():
    obj = run(None, config_map({"x": "1"}, finalizers=["e.com/f"]))
    assert obj["data"] == {"x": "1"}
    fields = {"f:data": {"f:x": {}}, "f:metadata": {"f:finalizers": {'v:"e.com/f"': {}}}}
    assert managed(obj) == [applied_entry("me", fields)]


def test_what_is_applied_no_more_is_removed():
    first = run(None, config_map({"x": "1", "y": "1"}))
    second = run(first, config_map({"x": "1"}), now=NOW + 60)
    assert second["data"] == {"x": "1"}
    assert managed(second) == [applied_entry("me", {"f:data": {"f:x": {}}}, time=LATER)]
    third = run(second, config_map())
    assert "data" not in third
    assert managed(third) == []


def test_what_others_own_is_not_removed():
    obj = run(None, config_map({"x": "1", "y": "1"}))
    obj = run(obj, config_map({"y": "1"}), "you")
    obj = with_entries({**obj, "data": {**obj["data"], "z": "1"}}, *managed(obj), entry("upd", {"f:data": {"f:z": {}}}))
    obj = run(obj, config_map({}))
    assert obj["data"] == {"y": "1", "z": "1"}
    assert {each["manager"] for each in managed(obj)} == {"me", "you", "upd"}


def test_items_that_others_own_parts_of_stay():
    def pod(**container):
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "a"},
            "spec": {"containers": [{"name": "c", **container}]},
        }

    def apply_pod(live, config, manager):
        return run(live, config, manager, shape=POD, kind="Pod")

    obj = apply_pod(None, pod(image="i"), "me")
    obj = apply_pod(obj, pod(workingDir="/"), "you")
    empty = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}
    obj = apply_pod(obj, empty, "me")
    assert obj["spec"] == {"containers": [{"name": "c", "workingDir": "/"}]}
    assert apply_pod(obj, empty, "you").get("spec") is None


def test_equal_values_are_shared():
    obj = run(run(None, config_map({"x": "1"})), config_map({"x": "1"}), "you")
    assert [(each["manager"], each.get("time")) for each in managed(obj)] == [("you", None), ("me", THEN)]


def test_applying_the_same_again_changes_nothing():
    first = run(None, config_map({"x": "1"}))
    again = applying.apply(first, config_map({"x": "1"}), CONFIG_MAP, writer("me", now=NOW + 60), kind="ConfigMap")
    assert again == (first, False)


def test_a_conflict_names_manager_and_field():
    obj = run(None, config_map({"x": "1"}))
    message, causes = conflict(obj, config_map({"x": "2"}), manager="you")
    assert message == 'Apply failed with 1 conflict: conflict with "me": .data.x'
    assert causes == [(".data.x", 'conflict with "me"')]


def test_conflicts_of_several_managers():
    obj = run(None, config_map({"x": "1"}), "one")
    obj = run(obj, config_map({"y": "1"}), "two")
    new = config_map({**obj["data"], "z": "1"}, uid="u")
    obj = with_entries(new, *updated(obj, new, CONFIG_MAP, writer("three")))
    new = config_map({**obj["data"], "s": "1"}, uid="u")
    obj = with_entries(new, *updated(obj, new, CONFIG_MAP, writer("four", subresource="x")))
    message, causes = conflict(obj, config_map(dict.fromkeys("sxyz", "2")), manager="five")
    assert causes == [
        (".data.s", 'conflict with "four" with subresource "x" using v1'),
        (".data.x", 'conflict with "one"'),
        (".data.y", 'conflict with "two"'),
        (".data.z", 'conflict with "three" using v1'),
    ]
    assert message.splitlines()[:2] == [
        'Apply failed with 4 conflicts: conflicts with "four" with subresource "x" using v1:',
        "- .data.s",
    ]


def test_force_takes_the_fields_over():
    obj = run(run(None, config_map({"x": "1", "y": "1"})), config_map({"x": "2"}), "you", force=True)
    assert obj["data"] == {"x": "2", "y": "1"}
    assert managed(obj) == [applied_entry("me", {"f:data": {"f:y": {}}}), applied_entry("you", {"f:data": {"f:x": {}}})]


def test_parts_that_are_atomic_have_one_owner():
    shape = schema.load("v1", "Service")

    def service(selector):
        return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"selector": selector}}

    obj = run(None, service({"a": "1"}), shape=shape, kind="Service")
    _, causes = conflict(obj, service({"b": "2"}), manager="you", shape=shape, kind="Service")
    assert causes == [(".spec.selector", 'conflict with "me"')]


def test_null_unsets():
    obj = run(run(None, config_map({"x": "1"})), {**config_map(), "data": None})
    assert "data" not in obj
    assert managed(obj)[0]["fieldsV1"] == {"f:data": {}}


def test_what_nobody_tracked_belongs_to_a_manager_of_its_own():
    live = config_map({"x": "1", "y": "1"}, uid="u")
    _, causes = conflict(live, config_map({"x": "2"}))
    assert causes == [(".data.x", 'conflict with "before-first-apply" using v1')]
    obj = run(live, config_map({"x": "1"}))
    assert [(each["manager"], each["fieldsV1"]) for each in managed(obj)] == [
        ("me", {"f:data": {"f:x": {}}}),
        ("before-first-apply", {"f:data": {".": {}, "f:x": {}, "f:y": {}}}),
    ]


@pytest.mark.parametrize(
    ("config", "code", "message"),
    [
        ({"kind": "ConfigMap", "metadata": {}}, 400, "invalid object type: /, Kind=ConfigMap"),
        ({"apiVersion": "v1", "metadata": {}}, 400, "invalid object type: /v1, Kind="),
        ({"apiVersion": "apps/v1", "kind": "Secret"}, 400, "invalid object type: apps/v1, Kind=Secret"),
        (config_map(managedFields=[]), 400, "metadata.managedFields must be nil"),
        (
            {**config_map({"k": 1}), "nope": 1},
            500,
            "failed to create typed patch object (/a; /v1, Kind=ConfigMap): errors:\n"
            "  .data.k: expected string, got &value.valueUnstructured{Value:1}\n"
            "  .nope: field not declared in schema",
        ),
        (
            {**config_map(namespace="n"), "nope": 1},
            500,
            "failed to create typed patch object (n/a; /v1, Kind=ConfigMap): .nope: field not declared in schema",
        ),
    ],
)
def test_bodies_that_cannot_be_applied(config, code, message):
    with pytest.raises(ApiError) as caught:
        applying.apply(None, config, CONFIG_MAP, writer("me"), kind="ConfigMap")
    assert (caught.value.code, caught.value.message) == (code, message)


def test_what_is_applied_in_another_version_is_removed_in_it():
    class Renamed:
        def schema(self, api_version):
            return CONFIG_MAP if api_version in ("v1", "v0") else None

        def convert(self, obj, api_version):
            change = "old-{}".format if api_version == "v0" else lambda key: key.removeprefix("old-")
            data = {change(key): value for key, value in (obj.get("data") or {}).items()}
            return {**obj, "apiVersion": api_version, "data": data}

    live = with_entries(
        config_map({"x": "1", "y": "1"}, uid="u"),
        applied_entry("me", {"f:data": {"f:old-x": {}, "f:old-y": {}}}, api_version="v0"),
        entry("gone", {"f:data": {"f:y": {}}}, api_version="v00"),
    )
    result = applying.apply(
        live, config_map({"x": "1"}), CONFIG_MAP, writer("me"), kind="ConfigMap", versions=Renamed()
    )
    assert result.obj["data"] == {"x": "1"}
    assert result.obj["apiVersion"] == "v1"
    assert managed(result.obj) == [applied_entry("me", {"f:data": {"f:x": {}}})]


def test_custom_kinds_whose_schema_changed():
    def shape(kind):
        spec = {
            "type": "object",
            "x-kubernetes-map-type": kind,
            "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        }
        return schema.from_openapi({"type": "object", "properties": {"spec": spec}})

    def widget(**spec):
        return {"apiVersion": "e.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec}

    obj = run(None, widget(a="1"), shape=shape("granular"), kind="Widget")
    _, causes = conflict(obj, widget(b="1"), manager="you", shape=shape("atomic"), kind="Widget")
    assert causes == [(".spec", 'conflict with "me"')]
    obj = run(None, widget(a="1"), shape=shape("atomic"), kind="Widget")
    _, causes = conflict(obj, widget(a="2"), manager="you", shape=shape("granular"), kind="Widget")
    assert causes == [(".spec.a", 'conflict with "me"')]


# ---------------------------------------------------------------- kubectl


def client_side(data):
    """An object as kubectl's client-side apply left it."""
    last = json.dumps(config_map(data), separators=(",", ":")) + "\n"
    obj = config_map(data, uid="u", annotations={applying.LAST_APPLIED: last})
    return with_entries(obj, *created(obj, CONFIG_MAP, writer("kubectl-client-side-apply")))


def last_applied(obj):
    return obj["metadata"]["annotations"][applying.LAST_APPLIED]


def test_kubectl_takes_over_from_its_client_side_apply():
    obj = run(client_side({"x": "1", "y": "2"}), config_map({"x": "1"}), "kubectl")
    assert last_applied(obj) == '{"apiVersion":"v1","data":{"x":"1"},"kind":"ConfigMap","metadata":{"name":"a"}}\n'
    assert obj["data"] == {"x": "1", "y": "2"}
    assert [(each["manager"], each.get("time")) for each in managed(obj)] == [
        ("kubectl", None),
        ("kubectl-client-side-apply", THEN),
    ]
    obj = run(obj, config_map({"x": "3"}), "kubectl", now=NOW + 60)
    assert obj["data"] == {"x": "3", "y": "2"}
    assert managed(obj)[0] == applied_entry("kubectl", {"f:data": {"f:x": {}}}, time=LATER)
    assert managed(obj)[1]["fieldsV1"]["f:data"] == {".": {}, "f:y": {}}


def test_fields_that_changed_since_are_conflicts_for_kubectl_too():
    obj = client_side({"x": "1", "y": "2"})
    new = config_map({"x": "9", "y": "2"}, uid="u", annotations=obj["metadata"]["annotations"])
    obj = with_entries(new, *updated(obj, new, CONFIG_MAP, writer("other")))
    _, causes = conflict(obj, config_map({"x": "3", "y": "3"}), manager="kubectl")
    assert causes == [(".data.x", 'conflict with "other" using v1')]
    _, causes = conflict(client_side({"x": "1"}), config_map({"x": "3"}), manager="somebody")
    assert causes == [(".data.x", 'conflict with "kubectl-client-side-apply" using v1')]


@pytest.mark.parametrize("text", ["", "not json", "[]", '{"apiVersion":"v0"}'])
def test_annotations_that_make_no_sense_allow_nothing(text):
    obj = client_side({"x": "1"})
    obj["metadata"]["annotations"][applying.LAST_APPLIED] = text
    assert conflict(obj, config_map({"x": "3"}), manager="kubectl")[1]


def test_the_annotation_does_not_hold_itself():
    config = config_map({"x": "1"}, annotations={applying.LAST_APPLIED: "old", "k": "v"})
    obj = run(client_side({"x": "1"}), config, "kubectl", force=True)
    assert json.loads(last_applied(obj))["metadata"] == {"name": "a", "annotations": {"k": "v"}}
    config = config_map({"x": "1"}, annotations={applying.LAST_APPLIED: "old"})
    assert json.loads(last_applied(run(client_side({"x": "1"}), config, "kubectl", force=True)))["metadata"] == {
        "name": "a"
    }


def test_an_annotation_that_would_be_too_large_is_emptied():
    obj = run(client_side({"x": "1"}), config_map({"x": "1" * 300_000}), "kubectl")
    assert last_applied(obj) == ""


# ---------------------------------------------------------------- scale

REPLICAS = {"apps/v1": ("f:spec", "f:replicas")}


def test_entries_of_a_scale():
    parent = [
        applied_entry("me", {"f:spec": {"f:replicas": {}, "f:selector": {}}}, api_version="apps/v1"),
        entry("you", {"f:spec": {"f:selector": {}}}, api_version="apps/v1"),
        entry("old", {"f:spec": {"f:replicas": {}}}, api_version="apps/v0"),
    ]
    of_scale = scale_entries(parent, REPLICAS)
    assert of_scale == [applied_entry("me", {"f:spec": {"f:replicas": {}}}, api_version="autoscaling/v1")]
    assert entries_after_scale(parent, of_scale, REPLICAS, "apps/v1") == parent[:2]


def test_a_scaler_takes_the_replicas():
    parent = [
        entry("both", {"f:spec": {"f:replicas": {}, "f:selector": {}}}, api_version="apps/v1"),
        entry("only", {"f:spec": {"f:replicas": {}}}, api_version="apps/v1"),
    ]
    scaled = [entry("scaler", {"f:spec": {"f:replicas": {}}}, api_version="autoscaling/v1", subresource="scale")]
    fields = {"f:spec": {"f:replicas": {}}}
    assert entries_after_scale(parent, scaled, REPLICAS, "apps/v1") == [
        entry("scaler", fields, api_version="apps/v1", time=None, subresource="scale"),
        entry("both", {"f:spec": {"f:selector": {}}}, api_version="apps/v1"),
    ]


def test_a_whole_scale_by_apply():
    shape = schema.load("autoscaling/v1", "Scale")
    parent = [applied_entry("me", {"f:spec": {"f:replicas": {}}}, api_version="apps/v1")]
    scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "a"}, "spec": {"replicas": 1}}
    live = with_entries(scale, *scale_entries(parent, REPLICAS))
    config = {**scale, "spec": {"replicas": 4}}
    _, causes = conflict(live, config, manager="hpa", shape=shape, kind="Scale", subresource="scale")
    assert causes == [(".spec.replicas", 'conflict with "me"')]
    scaled = run(live, config, "hpa", shape=shape, kind="Scale", subresource="scale", force=True)
    assert entries_after_scale(parent, managed(scaled), REPLICAS, "apps/v1") == [
        applied_entry("hpa", {"f:spec": {"f:replicas": {}}}, api_version="apps/v1", time=None, subresource="scale")
    ]


# ---------------------------------------------------------------- properties

datas = st.dictionaries(st.sampled_from("abc"), st.sampled_from("12"), max_size=3)
steps = st.lists(st.tuples(st.sampled_from(["apply", "update"]), st.sampled_from(["m", "n"]), datas), max_size=8)


@given(steps)
def test_every_field_of_a_tracked_object_has_an_owner_and_nobody_owns_what_is_not_there(history):
    first = config_map({"a": "0"}, uid="u")
    obj = with_entries(first, *created(first, CONFIG_MAP, writer("creator")))
    for operation, manager, data in history:
        if operation == "apply":
            obj = run(obj, config_map(data), manager, force=True)
            assert all(obj["data"][key] == value for key, value in data.items())
        else:
            new = config_map(data, uid="u")
            obj = with_entries(new, *updated(obj, new, CONFIG_MAP, writer(manager)))
        owned = {key for each in managed(obj) for key in each["fieldsV1"].get("f:data", ())} - {"."}
        assert not managed(obj) or owned == {f"f:{key}" for key in obj.get("data") or ()}
