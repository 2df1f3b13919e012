"""OpenAPI: the documents hold together, and say what kubectl and Helm look for in them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from fastkube.api import gnostic, openapi, schema
from fastkube.api.catalog import Catalog, ResourceType

Object = dict[str, Any]

PROPS = {
    "type": "object",
    "description": "A widget.",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "size": {"type": "integer", "nullable": True, "description": "How big."},
                "not": {"type": "string"},
                "either": {"anyOf": [{"type": "string"}, {"type": "integer"}], "x-kubernetes-int-or-string": True},
            },
        }
    },
}


def widgets() -> ResourceType:
    base = Catalog.builtin().lookup("", "v1", "configmaps")
    assert base is not None
    shape = schema.from_openapi(PROPS)
    return dataclasses.replace(
        base, group="stable.example.com", resource="widgets", kind="Widget", list_kind="WidgetList", custom=True,
        versions=("v1",), extra={"schemas": {"v1": shape}},
    )  # fmt: skip


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    made = Catalog.builtin()
    made.add(widgets())
    return made


@pytest.fixture(scope="module")
def v2(catalog: Catalog) -> Object:
    return openapi.v2(catalog, "v1.36.2")


def names(catalog: Catalog) -> list[str]:
    return sorted(
        {
            f"apis/{rtype.group}/{version}" if rtype.group else f"api/{version}"
            for rtype in catalog.all()
            for version in rtype.versions
        }
    )


def operations(document: Object) -> Iterator[tuple[str, str, Object]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield path, method, operation


# ---------------------------------------------------------------- whole documents


def test_every_reference_of_version_2_leads_somewhere(v2: Object) -> None:
    named = set(re.findall(r'"\$ref": "#/definitions/([^"]+)"', json.dumps(v2)))
    assert named <= v2["definitions"].keys()


def test_every_reference_of_version_3_leads_somewhere(catalog: Catalog) -> None:
    for name in names(catalog):
        document = openapi.v3(catalog, name, "v1.36.2")
        named = set(re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(document)))
        assert named <= document["components"]["schemas"].keys(), name


def test_operations_have_names_of_their_own(v2: Object) -> None:
    found = [operation["operationId"] for _, _, operation in operations(v2)]
    assert len(found) == len(set(found))
    assert {
        "listCoreV1PodForAllNamespaces",
        "createCoreV1NamespacedPod",
        "deleteCoreV1CollectionNamespacedPod",
        "replaceAppsV1NamespacedDeploymentScale",
        "patchCoreV1NodeStatus",
        "createCoreV1NamespacedPodBinding",
        "connectCoreV1GetNamespacedPodExec",
        "readRbacAuthorizationV1ClusterRole",
        "listFlowcontrolApiserverV1FlowSchema",
        "createAuthorizationV1SelfSubjectAccessReview",
        "listStableExampleComV1NamespacedWidget",
    } <= set(found)


def test_documents_without_resources() -> None:
    for name in ("api", "apis", "version", "apis/apps"):
        document = openapi.v3(Catalog.builtin(), name, "v1")
        assert (document["openapi"], document["info"]["title"], document["paths"]) == ("3.0.0", "Kubernetes", {})


# ---------------------------------------------------------------- what clients look for


def test_patches_say_what_they_take(v2: Object, catalog: Catalog) -> None:
    """kubectl reads off the parameters of PATCH, by group version kind, whether the server can validate and dry-run."""
    wanted = {"dryRun", "fieldManager", "fieldValidation", "force"}
    patches = [operation for _, method, operation in operations(v2) if method == "patch"]
    patches = [operation for operation in patches if operation["x-kubernetes-action"] == "patch"]
    assert {"group": "", "kind": "Pod", "version": "v1"} in [p["x-kubernetes-group-version-kind"] for p in patches]
    for operation in patches:
        assert wanted <= {parameter["name"] for parameter in operation["parameters"]}
    apps = openapi.v3(catalog, "apis/apps/v1")
    patch = apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert patch["x-kubernetes-group-version-kind"] == {"group": "apps", "kind": "Deployment", "version": "v1"}
    assert wanted <= {parameter["name"] for parameter in patch["parameters"]}


def test_lists_say_how_they_merge(v2: Object, catalog: Catalog) -> None:
    old = v2["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    new = openapi.v3(catalog, "api/v1")["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"][
        "containers"
    ]
    for told in (old, new):
        assert told["x-kubernetes-patch-merge-key"] == "name"
        assert told["x-kubernetes-patch-strategy"] == "merge"
        assert (told["x-kubernetes-list-type"], told["x-kubernetes-list-map-keys"]) == ("map", ["name"])
    assert old["items"] == {"$ref": "#/definitions/io.k8s.api.core.v1.Container"}
    assert new["items"]["allOf"] == [{"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"}]


def test_kinds_are_found_by_group_version_kind(v2: Object) -> None:
    for name, kind in (("core.v1.Pod", ["", "Pod", "v1"]), ("apps.v1.Deployment", ["apps", "Deployment", "v1"])):
        told = v2["definitions"]["io.k8s.api." + name]["x-kubernetes-group-version-kind"]
        assert told == [dict(zip(("group", "kind", "version"), kind, strict=True))]


def test_special_types(v2: Object) -> None:
    known = v2["definitions"]
    assert known["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"] == "int-or-string"
    assert known["io.k8s.apimachinery.pkg.apis.meta.v1.Time"]["format"] == "date-time"
    secret = known["io.k8s.api.core.v1.Secret"]["properties"]["data"]
    assert secret["additionalProperties"] == {"type": "string", "format": "byte"}
    pod = known["io.k8s.api.core.v1.Pod"]["properties"]
    assert pod["metadata"]["$ref"] == "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


def test_defaults_of_version_3(catalog: Catalog) -> None:
    known = openapi.v3(catalog, "api/v1")["components"]["schemas"]
    ports = known["io.k8s.api.core.v1.ContainerPort"]["properties"]
    assert (ports["protocol"]["default"], ports["containerPort"]["default"]) == ("TCP", 0)
    assert "default" not in ports["hostIP"]
    assert known["io.k8s.api.core.v1.Pod"]["properties"]["spec"]["default"] == {}


def test_fields_are_described_when_the_texts_are_installed(v2: Object) -> None:
    pytest.importorskip("kubernetes_validate")
    replicas = v2["definitions"]["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["replicas"]
    assert replicas["description"].startswith("Number of desired pods.")


# ---------------------------------------------------------------- custom kinds


def test_custom_kinds(v2: Object, catalog: Catalog) -> None:
    assert "apis/stable.example.com/v1" in names(catalog)
    known = openapi.v3(catalog, "apis/stable.example.com/v1")["components"]["schemas"]
    widget = known["com.example.stable.v1.Widget"]
    assert widget["properties"]["spec"] == PROPS["properties"]["spec"]  # type: ignore[index]
    assert widget["description"] == "A widget."
    assert widget["x-kubernetes-group-version-kind"] == [
        {"group": "stable.example.com", "kind": "Widget", "version": "v1"}
    ]
    assert known["com.example.stable.v1.WidgetList"]["required"] == ["items"]
    old = v2["definitions"]["com.example.stable.v1.Widget"]["properties"]["spec"]["properties"]
    assert old == {
        "size": {"type": "integer", "description": "How big."},
        "not": {"type": "string"},
        "either": {"x-kubernetes-int-or-string": True},
    }


# ---------------------------------------------------------------- protobuf


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, value) of each field on the wire."""

    def varint() -> int:
        nonlocal at
        number = shift = 0
        while True:
            byte = message[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    at = 0
    while at < len(message):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
            continue
        length = varint() if tag & 7 == 2 else 8
        yield tag >> 3, message[at : at + length]
        at += length
    assert at == len(message)


def every(message: bytes, number: int) -> list[Any]:
    return [value for field, value in fields(message) if field == number]


def only(message: bytes, *path: int) -> Any:
    for number in path:
        (message,) = every(message, number)
    return message


def named(message: bytes, number: int) -> dict[str, bytes]:
    return {only(pair, 1).decode(): only(pair, 2) for pair in every(message, number)}


def test_the_protobuf_form_holds_the_same(v2: Object) -> None:
    document = gnostic.encode(v2)
    assert (only(document, 1), only(document, 2, 1), only(document, 2, 2)) == (b"2.0", b"Kubernetes", b"v1.36.2")
    definitions = named(only(document, 9), 1)
    assert definitions.keys() == v2["definitions"].keys()
    spec = definitions["io.k8s.api.apps.v1.DeploymentSpec"]
    assert every(spec, 19) == [b"selector", b"template"]
    properties = named(only(spec, 25), 1)
    assert properties.keys() == v2["definitions"]["io.k8s.api.apps.v1.DeploymentSpec"]["properties"].keys()
    assert (only(properties["replicas"], 22, 1), only(properties["replicas"], 2)) == (b"integer", b"int32")
    assert only(properties["selector"], 1).endswith(b"LabelSelector")
    containers = named(only(definitions["io.k8s.api.core.v1.PodSpec"], 25), 1)["containers"]
    extensions = {name: json.loads(only(value, 2)) for name, value in named(containers, 31).items()}
    assert extensions["x-kubernetes-patch-merge-key"] == "name"
    assert only(containers, 23, 1, 1) == b"#/definitions/io.k8s.api.core.v1.Container"
    labels = named(only(definitions["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"], 25), 1)["labels"]
    assert only(labels, 21, 1, 22, 1) == b"string"
    paths = named(only(document, 8), 2)
    assert paths.keys() == v2["paths"].keys()
    patch = only(paths["/api/v1/namespaces/{namespace}/pods/{name}"], 8)
    assert only(patch, 5) == b"patchCoreV1NamespacedPod"
    assert json.loads(only(named(patch, 13)["x-kubernetes-group-version-kind"], 2))["kind"] == "Pod"
    told = [only(parameter, 1) for parameter in every(patch, 8)]
    queries = {only(one, 2, 3, 4) for one in told if every(one, 2)}
    assert queries == {b"dryRun", b"fieldManager", b"fieldValidation", b"force"}
