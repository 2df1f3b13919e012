"""The schema engine: what a walk removes, fills in, makes canonical and refuses, on both builds."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from api_builds import builds
from hypothesis import given, settings
from hypothesis import strategies as st

from fastkube.api import schema
from fastkube.api.schema import Schema, WrongType

BUILDS = builds("_schema")
Object = dict[str, Any]


def walk(api_version: str, kind: str, **fields: Any) -> tuple[Object, list[str]]:
    """The object as it is after the walk, without its apiVersion and kind, and what the walk told."""
    obj = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}, **copy.deepcopy(fields)}
    told = schema.walk(schema.load(api_version, kind), obj)
    del obj["apiVersion"], obj["kind"]
    return obj, told


def refusal(api_version: str, kind: str, **fields: Any) -> str:
    with pytest.raises(ValueError) as refused:
        walk(api_version, kind, **fields)
    return str(refused.value)


def pod(**spec: Any) -> Object:
    made, told = walk("v1", "Pod", spec={"containers": [{"name": "c", "image": "i"}], **spec})
    assert told == []
    found: Object = made["spec"]
    return found


# ---------------------------------------------------------------- unknown fields


def test_unknown_fields_are_removed_and_told_in_document_order() -> None:
    obj, told = walk(
        "v1",
        "Pod",
        metadata={"name": "a", "odd": "x"},
        spec={"containers": [{"name": "c", "nope": 1, "ports": [{"x": 1}]}], "foo": {"bar": 1}},
        extra=True,
    )
    assert told == [
        'unknown field "metadata.odd"',
        'unknown field "spec.containers[0].nope"',
        'unknown field "spec.containers[0].ports[0].x"',
        'unknown field "spec.foo"',
        'unknown field "extra"',
    ]
    assert obj["metadata"] == {"name": "a"}
    assert obj["spec"] == {"containers": [{"name": "c", "ports": [{"containerPort": 0}], "resources": {}}]}


def test_names_are_case_sensitive() -> None:
    assert walk("v1", "ConfigMap", Data={"k": "v"}) == ({"metadata": {"name": "a"}}, ['unknown field "Data"'])


def test_keys_of_a_map_stand_in_the_path() -> None:
    props = {"type": "object", "properties": {"size": {"type": "integer", "bogus": 1}}}
    versions = [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": props}}]
    _, told = walk("apiextensions.k8s.io/v1", "CustomResourceDefinition", spec={"versions": versions})
    assert told == ['unknown field "spec.versions[0].schema.openAPIV3Schema.properties.size.bogus"']


# ---------------------------------------------------------------- wrong types


WRONG_TYPES = """
v1 ConfigMap | {"metadata": []} | array into Go struct field ConfigMap.metadata of type v1.ObjectMeta
v1 ConfigMap | {"metadata": {"name": 5}} | number into Go struct field ObjectMeta.metadata.name of type string
v1 ConfigMap | {"data": {"k": 1}} | number into Go struct field ConfigMap.data of type string
v1 ConfigMap | {"data": "x"} | string into Go struct field ConfigMap.data of type map[string]string
v1 ConfigMap | {"immutable": "x"} | string into Go struct field ConfigMap.immutable of type bool
v1 Pod | {"spec": "x"} | string into Go struct field Pod.spec of type v1.PodSpec
v1 Pod | {"spec": {"containers": "x"}} | string into Go struct field PodSpec.spec.containers of type []v1.Container
v1 Pod | {"spec": {"containers": ["x"]}} | string into Go struct field PodSpec.spec.containers of type v1.Container
v1 Pod | {"spec": {"priority": 1.5}} | number 1.5 into Go struct field PodSpec.spec.priority of type int32
v1 Pod | {"spec": {"priority": 2147483648}} | number 2147483648 into Go struct field PodSpec.spec.priority of type int32
v1 Pod | {"spec": {"priority": {}}} | object into Go struct field PodSpec.spec.priority of type int32
v1 Pod | {"spec": {"initContainers": [{"ports": [{"containerPort": "80"}]}]}} | string into Go struct field \
ContainerPort.spec.initContainers.ports.containerPort of type int32
v1 Pod | {"spec": {"containers": [{"livenessProbe": {"httpGet": {"port": true}}}]}} | bool into Go struct field \
HTTPGetAction.spec.containers.livenessProbe.ProbeHandler.httpGet.port of type int32
v1 Pod | {"spec": {"restartPolicy": 1}} | number into Go struct field PodSpec.spec.restartPolicy of type \
v1.RestartPolicy
v1 Pod | {"spec": {"containers": [{"resources": {"limits": []}}]}} | array into Go struct field \
ResourceRequirements.spec.containers.resources.limits of type v1.ResourceList
v1 PersistentVolumeClaim | {"spec": {"accessModes": [true]}} | bool into Go struct field \
PersistentVolumeClaimSpec.spec.accessModes of type v1.PersistentVolumeAccessMode
v1 PersistentVolume | {"spec": {"hostPath": []}} | array into Go struct field \
PersistentVolumeSpec.spec.PersistentVolumeSource.hostPath of type v1.HostPathVolumeSource
apps/v1 Deployment | {"spec": {"replicas": "three"}} | string into Go struct field DeploymentSpec.spec.replicas \
of type int32
v1 Pod | {"metadata": {"creationTimestamp": 5}} | number into Go struct field ObjectMeta.metadata.creationTimestamp \
of type string
"""


@pytest.mark.parametrize("case", WRONG_TYPES.strip().splitlines())
def test_wrong_types_are_refused_in_the_words_of_go(case: str) -> None:
    kind, fields, message = case.split(" | ")
    assert refusal(*kind.split(), **json.loads(fields)) == "json: cannot unmarshal " + message


def test_the_keys_of_maps_do_not_stand_in_a_go_path() -> None:
    props = {"properties": {"size": {"minimum": "x"}}}
    versions = [{"name": "v1", "schema": {"openAPIV3Schema": props}}]
    assert refusal("apiextensions.k8s.io/v1", "CustomResourceDefinition", spec={"versions": versions}) == (
        "json: cannot unmarshal string into Go struct field "
        "JSONSchemaProps.spec.versions.schema.openAPIV3Schema.properties.minimum of type float64"
    )


# ---------------------------------------------------------------- null and empty


def test_null_is_the_same_as_absent() -> None:
    obj, told = walk("v1", "ConfigMap", metadata={"name": "a", "labels": None, "annotations": {}}, data=None)
    assert (obj, told) == ({"metadata": {"name": "a"}}, [])


def test_empty_values_go_and_pointers_stay() -> None:
    spec = pod(
        hostNetwork=False, hostUsers=False, nodeName="", runtimeClassName="", tolerations=[], nodeSelector={},
        priority=0, securityContext={}, affinity={},
    )  # fmt: skip
    del spec["containers"]
    assert spec == {"hostUsers": False, "runtimeClassName": "", "priority": 0, "securityContext": {}, "affinity": {}}


def test_an_empty_list_becomes_null_only_when_its_owner_is_noted() -> None:
    role, _ = walk("rbac.authorization.k8s.io/v1", "Role", rules=[])
    assert role["rules"] == [] and schema.met_empty() and not schema.met_empty()
    schema.nullify(schema.load("rbac.authorization.k8s.io/v1", "Role"), role)
    assert role["rules"] is None


def test_what_go_always_writes_is_filled_in() -> None:
    assert pod()["containers"] == [{"name": "c", "image": "i", "resources": {}}]
    assert walk("rbac.authorization.k8s.io/v1", "Role")[0] == {"metadata": {"name": "a"}, "rules": None}
    sets = walk("apps/v1", "ReplicaSet")[0]
    assert sets == {
        "metadata": {"name": "a"},
        "spec": {"selector": None, "template": {"metadata": {}, "spec": {"containers": None}}},
        "status": {"replicas": 0},
    }


def test_null_among_items_is_their_empty_value() -> None:
    spec = pod(containers=[{"name": "c", "command": ["a", None], "env": [None]}])
    assert spec["containers"][0]["command"] == ["a", ""]
    assert spec["containers"][0]["env"] == [{"name": ""}]
    assert walk("v1", "ConfigMap", data={"k": None})[0]["data"] == {"k": ""}


def test_an_empty_field_by_kind() -> None:
    assert schema.empty_field("apps/v1", "ReplicaSet", "status") == {"replicas": 0}
    assert schema.empty_field("networking.k8s.io/v1", "Ingress", "status") == {"loadBalancer": {}}
    assert schema.empty_field("v1", "ConfigMap", "status") is None
    assert schema.empty_field("example.com/v1", "Widget", "status") is None


def test_zero_is_what_an_empty_struct_prints() -> None:
    assert schema.zero(schema.struct("apps.v1.ReplicaSetStatus")) == {"replicas": 0}
    assert schema.zero(schema.struct("apps.v1.DeploymentStatus")) == {}
    assert schema.zero(schema.struct("policy.v1.PodDisruptionBudgetStatus")) == {
        "currentHealthy": 0,
        "desiredHealthy": 0,
        "disruptionsAllowed": 0,
        "expectedPods": 0,
    }


# ---------------------------------------------------------------- scalars with a form


@pytest.mark.parametrize(
    ("given_time", "kept"),
    [
        ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"),
        ("2020-01-01T02:00:00+02:00", "2020-01-01T00:00:00Z"),
        ("2020-01-01T00:00:00.999Z", "2020-01-01T00:00:00Z"),
        ("0999-01-01T00:00:00Z", "0999-01-01T00:00:00Z"),
        ("0001-01-01T00:00:00Z", None),
    ],
)
def test_times_are_utc_with_whole_seconds(given_time: str, kept: str | None) -> None:
    obj, _ = walk("v1", "ConfigMap", metadata={"name": "a", "creationTimestamp": given_time})
    assert obj["metadata"].get("creationTimestamp") == kept


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nonsense", ' as "2006-01-02T15:04:05Z07:00": cannot parse "nonsense" as "2006"'),
        ("", ' as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006"'),
        ("2020-01-01", ' as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T"'),
        ("2020-13-01T00:00:00Z", ": month out of range"),
        ("2020-02-30T00:00:00Z", ": day out of range"),
        ("2020-01-01T24:00:00Z", ": hour out of range"),
        ("2020-01-01T00:00:00", ' as "2006-01-02T15:04:05Z07:00": cannot parse "" as "Z07:00"'),
        ("2020-01-01T00:00:00Zx", ': extra text: "x"'),
    ],
)
def test_what_is_no_time_is_refused(text: str, complaint: str) -> None:
    told = refusal("v1", "ConfigMap", metadata={"creationTimestamp": text})
    assert told == f'parsing time "{text}"{complaint}'


def test_micro_times_have_six_digits() -> None:
    lease, _ = walk("coordination.k8s.io/v1", "Lease", spec={"renewTime": "2020-01-01T01:00:00.000001+01:00"})
    assert lease["spec"]["renewTime"] == "2020-01-01T00:00:00.000001Z"
    assert refusal("coordination.k8s.io/v1", "Lease", spec={"renewTime": "2020-01-01T00:00:00Z"}) == (
        'parsing time "2020-01-01T00:00:00Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "Z" as ".000000"'
    )


@pytest.mark.parametrize(("text", "kept"), [("eA==", "eA=="), ("e\nA=\r\n=", "eA=="), ("", ""), ("eB==", "eA==")])
def test_base64(text: str, kept: str) -> None:
    assert walk("v1", "Secret", data={"k": text})[0]["data"] == {"k": kept}


@pytest.mark.parametrize(
    ("text", "at"), [("%%", 0), ("eA=", 3), ("eA", 0), ("eA=x", 2), ("eA==x", 4), ("=", 0), ("abcde", 4), ("ab\n%", 3)]
)
def test_what_is_no_base64_is_refused(text: str, at: int) -> None:
    assert refusal("v1", "Secret", data={"k": text}) == f"illegal base64 data at input byte {at}"


@pytest.mark.parametrize(("value", "kept"), [("1024Ki", "1Mi"), (1, "1"), (0.5, "500m"), (" 1Gi ", "1Gi"), (2.0, "2")])
def test_quantities_are_made_canonical(value: Any, kept: str) -> None:
    spec = pod(containers=[{"name": "c", "resources": {"requests": {"cpu": value}}}])
    assert spec["containers"][0]["resources"] == {"requests": {"cpu": kept}}


@pytest.mark.parametrize("value", ["1x", "", True, {}, []])
def test_what_is_no_quantity_is_refused(value: Any) -> None:
    told = refusal("v1", "ResourceQuota", spec={"hard": {"pods": value}})
    assert told == "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


@pytest.mark.parametrize("value", [80, "http", "50%", 0])
def test_int_or_string_stays_as_it_is(value: Any) -> None:
    service, _ = walk("v1", "Service", spec={"ports": [{"port": 1, "targetPort": value}]})
    assert service["spec"]["ports"] == [{"port": 1, "targetPort": value}]


def test_any_json_stays_as_it_is() -> None:
    data = {"deep": [{"x": None, "y": ""}], "z": 0}
    assert walk("apps/v1", "ControllerRevision", data=data, revision=1)[0]["data"] == data


@pytest.mark.parametrize("value", [True, False, {"type": "string"}])
def test_a_schema_may_be_a_bool_in_places(value: Any) -> None:
    props = {"type": "object", "additionalProperties": value}
    versions = [{"name": "v1", "schema": {"openAPIV3Schema": props}}]
    crd, _ = walk("apiextensions.k8s.io/v1", "CustomResourceDefinition", spec={"versions": versions})
    assert crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] == props


def test_a_subresource_without_fields_stays() -> None:
    versions = [{"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}}]
    crd, _ = walk("apiextensions.k8s.io/v1", "CustomResourceDefinition", spec={"versions": versions})
    assert crd["spec"]["versions"] == versions


# ---------------------------------------------------------------- what a schema tells


def at(root: Schema, *path: str) -> Schema:
    for name in path:
        found = root.items if name == "[]" else root.field(name)
        assert isinstance(found, Schema)
        root = found
    return root


def test_lists_and_how_they_merge() -> None:
    spec = at(schema.load("v1", "Pod"), "spec")
    containers = at(spec, "containers")
    assert (containers.type, containers.list_type, containers.list_keys) == ("array", "map", ("name",))
    assert (containers.patch_strategies, containers.patch_key) == ({"merge"}, "name")
    ports = at(containers, "[]", "ports")
    assert (ports.list_keys, ports.patch_key) == (("containerPort", "protocol"), "containerPort")
    assert at(ports, "[]", "protocol").default == "TCP"
    assert at(spec, "volumes").patch_strategies == {"merge", "retainKeys"}
    assert at(spec, "tolerations").list_type == "atomic"
    assert at(spec, "nodeSelector").map_type == "atomic"
    assert at(schema.load("v1", "Pod"), "metadata", "finalizers").list_type == "set"


def test_types_of_fields() -> None:
    root = schema.load("v1", "Pod")
    limits = at(root, "spec", "containers", "[]", "resources", "limits")
    assert limits.type == "map" and limits.items.is_quantity
    assert at(root, "metadata", "labels", "anything").type == "string"
    assert at(schema.load("v1", "Service"), "spec", "ports", "[]", "targetPort").int_or_string
    assert root.field("nope") is None
    assert at(root, "spec").required == ("containers",)


def test_a_kind_that_is_not_built_in_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        schema.load("v1", "Widget")


# ---------------------------------------------------------------- custom kinds

WIDGET = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "size": {"type": "integer"},
                "color": {"type": "string", "default": "red"},
                "ports": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"port": {"type": "integer"}}},
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["port"],
                },
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "extra": {"type": "object", "additionalProperties": {"type": "integer"}},
                "any": {"x-kubernetes-int-or-string": True},
                "emb": {"type": "object", "x-kubernetes-embedded-resource": True},
            },
        }
    },
}


def widget(**fields: Any) -> tuple[Object, list[str]]:
    obj = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}, **fields}
    told = schema.walk(schema.from_openapi(WIDGET), obj)
    return obj, told


def test_custom_objects_are_pruned_and_otherwise_left_alone() -> None:
    spec = {
        "size": "not checked here",
        "color": None,
        "bogus": 1,
        "ports": [{"port": 80, "x": 1}, None, 5],
        "free": {"deep": {"k": 1}},
        "extra": {"a": 1},
        "any": "5",
    }
    obj, told = widget(spec=spec)
    assert told == ['unknown field "spec.bogus"', 'unknown field "spec.ports[0].x"']
    assert obj["spec"] == {
        "size": "not checked here",
        "color": None,
        "ports": [{"port": 80}, None, 5],
        "free": {"deep": {"k": 1}},
        "extra": {"a": 1},
        "any": "5",
    }


def test_custom_objects_have_ordinary_metadata() -> None:
    obj, told = widget(metadata={"name": "a", "odd": 1, "labels": None})
    assert (obj["metadata"], told) == ({"name": "a"}, ['unknown field "metadata.odd"'])
    with pytest.raises(WrongType, match=r"number into Go struct field ObjectMeta.metadata.name of type string"):
        widget(metadata={"name": 5})


def test_embedded_objects_keep_their_type_and_metadata() -> None:
    embedded = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "odd": 1}, "spec": {}}
    obj, told = widget(spec={"emb": embedded})
    assert told == ['unknown field "spec.emb.metadata.odd"', 'unknown field "spec.emb.spec"']
    assert obj["spec"]["emb"] == {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}


def test_no_schema_takes_everything() -> None:
    obj = {"apiVersion": "v1", "kind": "X", "metadata": {"name": "a"}, "anything": [{"x": None}]}
    assert schema.walk(schema.from_openapi({}), obj) == []
    assert obj["anything"] == [{"x": None}]


def test_custom_schemas_tell_how_lists_merge() -> None:
    ports = at(schema.from_openapi(WIDGET), "spec", "ports")
    assert (ports.list_type, ports.list_keys) == ("map", ("port",))
    assert at(schema.from_openapi(WIDGET), "spec", "color").default == "red"


# ---------------------------------------------------------------- properties

NAMES = [
    *("metadata", "name", "labels", "spec", "containers", "resources", "limits", "env", "value", "ports"),
    *("containerPort", "status", "x", "volumes", "emptyDir", "securityContext", "runAsUser", "data"),
]
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-1, 1) | st.sampled_from(["", "x", "1Gi", "eA=="]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=15,
)


@given(obj=st.dictionaries(st.sampled_from(["metadata", "spec", "status", "x"]), JUNK))
@settings(max_examples=300, deadline=None)
def test_a_second_walk_changes_nothing_and_builds_agree(obj: Object) -> None:
    pod_schema = schema.load("v1", "Pod")
    outcomes = []
    for module in BUILDS.values():
        node = twin(module, pod_schema)
        mine = copy.deepcopy(obj)
        try:
            told = module.walk(node, mine)
        except ValueError as refused:
            outcomes.append(str(refused))
            continue
        again = copy.deepcopy(mine)
        assert module.walk(node, again) == []
        assert again == mine
        outcomes.append((mine, told))
    assert all(outcome == outcomes[0] for outcome in outcomes)


TWINS: dict[tuple[str, int], Any] = {}
KINDS = {1: "string", 2: "bool", 3: "int32", 4: "int64", 5: "double", 6: "parsed", 7: "intOrString", 8: "any",
         9: "struct", 10: "map", 11: "list", 12: "union", 13: "object", 14: "array"}  # fmt: skip


def twin(module: Any, node: Any) -> Any:
    """The same schema made of the nodes of another build."""
    key = (module.__name__, id(node))
    if key not in TWINS:
        items = twin(module, node.items) if node.items is not None else None
        TWINS[key] = module.Node(
            KINDS[node.kind], node.name, node.keep, node.go_type, node.zero, node.parse, items,
            lambda: {name: twin(module, field) for name, field in node.fields.items()},
        )  # fmt: skip
    return TWINS[key]
