"""Which fields the writers of each resource and subresource manage."""

import base64
from typing import Any

import pytest
from clusters import APPLY, Cluster, config_map, pod, refused
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CSRS = "certificatesigningrequests.certificates.k8s.io"
CLIENT = "kubernetes.io/kube-apiserver-client"


def managers(obj: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """{(manager, subresource): fields}"""
    entries = obj["metadata"].get("managedFields") or []
    return {(entry["manager"], entry.get("subresource", "")): entry["fieldsV1"] for entry in entries}


def request_pem() -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alice")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name)
    signed = request.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return base64.b64encode(signed.public_bytes(serialization.Encoding.PEM)).decode()


def condition(kind: str) -> dict[str, Any]:
    return {"type": kind, "status": "True", "reason": "r", "message": "m"}


async def test_an_empty_list_that_is_stored_as_null_belongs_to_its_sender(cluster: Cluster):
    role = await cluster.create("roles.rbac.authorization.k8s.io", {"metadata": {"name": "r"}, "rules": []})
    assert role["rules"] is None
    assert list(managers(role).values()) == [{"f:rules": {}}]


STATUS_WRITES: list[tuple[str, dict[str, Any], bool]] = [
    ("servicecidrs.networking.k8s.io", {"cidrs": ["10.77.0.0/24"]}, False),
    ("flowschemas.flowcontrol.apiserver.k8s.io", {"priorityLevelConfiguration": {"name": "x"}}, False),
    ("customresourcedefinitions.apiextensions.k8s.io", {}, True),
    (
        "persistentvolumes",
        {"capacity": {"storage": "1"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/"}},
        True,
    ),
]


@pytest.mark.parametrize(("resource", "spec", "taken"), STATUS_WRITES)
async def test_what_writes_of_status_do_to_metadata(
    cluster: Cluster, resource: str, spec: dict[str, Any], *, taken: bool
):
    name = "things.e.com" if resource.startswith("custom") else "x"
    if not spec:
        schema = {"openAPIV3Schema": {"type": "object"}}
        version = {"name": "v1", "served": True, "storage": True, "schema": schema}
        names = {"plural": "things", "kind": "Thing"}
        spec = {"group": "e.com", "scope": "Cluster", "names": names, "versions": [version]}
    await cluster.create(resource, {"metadata": {"name": name, "labels": {"a": "1"}}, "spec": spec}, namespace="")
    patch = {"metadata": {"labels": {"a": "2"}, "annotations": {"x": "y"}}}
    metadata = (await cluster.patch(f"{resource}/status", name, patch, namespace=""))["metadata"]
    assert metadata["labels"] == {"a": "2" if taken else "1"} and ("annotations" in metadata) == taken


async def test_a_scale_written_without_replicas_takes_nothing(cluster: Cluster):
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    made = {"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}
    await cluster.create("deployments.apps", made, field_manager="maker")
    await cluster.patch("deployments.apps/scale", "d", {"metadata": {"annotations": {"x": "y"}}}, field_manager="other")
    assert list(managers(cluster.get("deployments.apps", "d"))) == [("maker", "")]


async def test_writers_of_a_pods_status_manage_only_that(cluster: Cluster):
    await cluster.create("pods", pod(), field_manager="creator")
    patch = {"metadata": {"labels": {"a": "b"}}, "spec": {"nodeName": "n"}, "status": {"podIPs": [{"ip": "10.0.0.1"}]}}
    patched = await cluster.patch("pods/status", "p", patch, field_manager="kubelet")
    assert managers(patched)["kubelet", "status"] == {
        "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
        "f:status": {"f:podIP": {}, "f:podIPs": {".": {}, 'k:{"ip":"10.0.0.1"}': {".": {}, "f:ip": {}}}},
    }


async def test_who_asks_for_an_ephemeral_container_owns_what_was_taken_back_too(cluster: Cluster):
    await cluster.create("pods", pod(), field_manager="creator")
    debugger = {"name": "d", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"}
    patch = {"metadata": {"labels": {"a": "b"}}, "spec": {"ephemeralContainers": [debugger]}}
    patched = await cluster.patch("pods/ephemeralcontainers", "p", patch, field_manager="debug")
    fields = managers(patched)["debug", "ephemeralcontainers"]
    assert fields["f:metadata"] == {"f:labels": {".": {}, "f:a": {}}} and list(fields["f:spec"]) == [
        "f:ephemeralContainers"
    ]
    assert set(fields["f:spec"]["f:ephemeralContainers"]) == {".", 'k:{"name":"d"}'}


async def test_who_resizes_owns_what_was_taken_back_too(cluster: Cluster):
    await cluster.create("pods", pod(resources={"requests": {"cpu": "1"}}), field_manager="creator")
    resources = {"requests": {"cpu": "2"}, "limits": {"cpu": "3"}}
    patch = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "resources": resources}]}}
    strategic = "application/strategic-merge-patch+json"
    patched = await cluster.patch("pods/resize", "p", patch, strategic, field_manager="vpa")
    taken = {"f:limits": {".": {}, "f:cpu": {}}, "f:requests": {"f:cpu": {}}}
    labels = {"f:labels": {".": {}, "f:a": {}}}
    expected = {"f:metadata": labels, "f:spec": {"f:containers": {'k:{"name":"c"}': {"f:resources": taken}}}}
    assert managers(patched)["vpa", "resize"] == expected


async def test_certificate_requests_have_a_manager_for_each_decision(cluster: Cluster):
    body = {
        "metadata": {"name": "r", "labels": {"l": "v"}},
        "spec": {"request": request_pem(), "signerName": CLIENT, "usages": ["client auth"]},
    }
    made = await cluster.create(CSRS, body, field_manager="kubelet")
    assert managers(made) == {("kubelet", ""): {"f:metadata": {"f:labels": {".": {}, "f:l": {}}}}}
    approval = {"status": {"conditions": [condition("Approved")]}}
    approved = await cluster.patch(f"{CSRS}/approval", "r", approval, field_manager="approver")
    fields = managers(approved)["approver", "approval"]
    assert list(fields) == ["f:status"] and list(fields["f:status"]) == ["f:conditions"]


async def test_a_deployments_status_writer_cannot_manage_its_labels(cluster: Cluster):
    body = {
        "metadata": {"name": "d"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    }
    await cluster.create("deployments.apps", body, field_manager="creator")
    patch = {"metadata": {"labels": {"x": "y"}, "annotations": {"x": "y"}}, "status": {"replicas": 1}}
    patched = await cluster.patch("deployments.apps/status", "d", patch, field_manager="controller")
    fields = managers(patched)["controller", "status"]
    assert fields == {"f:metadata": {"f:annotations": {".": {}, "f:x": {}}}, "f:status": {"f:replicas": {}}}


ENTRY = {"operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:k": {}}}}


@pytest.mark.parametrize(
    ("broken", "cause"),
    [
        ({"manager": "x" * 129}, "metadata.managedFields[0].manager: Too long: may not be more than 128 bytes"),
        ({"manager": "a\u0007"}, "invalid character U+0007 (at position 1)"),
        ({"manager": "m", "subresource": "s" * 257}, "metadata.managedFields[0].subresource: Too long"),
    ],
)
async def test_entries_that_clients_send_are_validated(cluster: Cluster, broken: dict[str, Any], cause: str):
    await cluster.create("configmaps", config_map())
    async with refused(422, "Invalid", cause):
        await cluster.patch("configmaps", "a", {"metadata": {"managedFields": [{**ENTRY, **broken}]}})


@pytest.mark.parametrize("broken", [{"fieldsType": ""}, {"fieldsType": "FieldsV2"}, {"operation": "Delete"}])
async def test_entries_that_cannot_be_read_leave_those_there_were(cluster: Cluster, broken: dict[str, Any]):
    made = await cluster.create("configmaps", config_map(), field_manager="creator")
    sent = {"metadata": {"managedFields": [{**ENTRY, "manager": "m", **broken}]}}
    patched = await cluster.patch("configmaps", "a", sent, field_manager="other")
    assert patched["metadata"]["managedFields"] == made["metadata"]["managedFields"]


async def test_what_is_being_deleted_can_be_applied_to_but_not_made_again(cluster: Cluster):
    await cluster.create("configmaps", config_map(finalizers=["example.com/f"]))
    await cluster.delete("configmaps", "a")
    applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"n": "1"}}
    patched = await cluster.patch("configmaps", "a", applied, APPLY, field_manager="me")
    assert patched["data"] == {"k": "v", "n": "1"} and patched["metadata"]["deletionTimestamp"]
    more = {**applied, "metadata": {"name": "a", "finalizers": ["example.com/other"]}}
    async with refused(422, "Invalid", "no new finalizers can be added if the object is being deleted"):
        await cluster.patch("configmaps", "a", more, APPLY, field_manager="me")


async def test_apply_of_a_status(cluster: Cluster):
    await cluster.create("pods", pod(), field_manager="creator")
    config = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": {"message": "m"}}
    applied = await cluster.patch("pods/status", "p", config, APPLY, field_manager="me")
    assert applied["status"]["message"] == "m"
    assert managers(applied)["me", "status"] == {"f:status": {"f:message": {}}}
    less = {key: value for key, value in config.items() if key != "status"}
    again = await cluster.patch("pods/status", "p", less, APPLY, field_manager="me")
    assert "message" not in again["status"] and ("me", "status") not in managers(again)
    with_spec = {**config, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "other"}]}}
    kept = await cluster.patch("pods/status", "p", with_spec, APPLY, field_manager="me")
    assert "nodeName" not in kept["spec"] and kept["spec"]["containers"][0]["image"] == "img:1"
    async with refused(404, "NotFound"):
        await cluster.patch("pods/status", "none", {**config, "metadata": {"name": "none"}}, APPLY, field_manager="me")


async def test_apply_demands_the_uid_and_version_that_it_names(cluster: Cluster):
    made = await cluster.create("configmaps", config_map())
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"n": "1"}}
    async with refused(409, "Conflict"):
        stale = {**config, "metadata": {"name": "a", "resourceVersion": "1"}}
        await cluster.patch("configmaps", "a", stale, APPLY, field_manager="me")
    other = {"uid": "6a9a5b0e-0000-4000-8000-000000000000"}
    async with refused(422, "Invalid", "metadata.uid: Invalid value: "):
        await cluster.patch("configmaps", "a", {**config, "metadata": {"name": "a", **other}}, APPLY, field_manager="m")
    async with refused(409, "Conflict", "uid mismatch: the provided object specified uid 6a9a5b0e-"):
        await cluster.patch("configmaps", "b", {**config, "metadata": {"name": "b", **other}}, APPLY, field_manager="m")
    named = {**config, "metadata": {key: made["metadata"][key] for key in ("name", "uid", "resourceVersion")}}
    assert (await cluster.patch("configmaps", "a", named, APPLY, field_manager="me"))["data"]["n"] == "1"


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"apiVersion": 1, "kind": "ConfigMap"}, 400, "invalid object type: /, Kind=ConfigMap"),
        ({"apiVersion": "v1", "kind": ["x"]}, 400, "invalid object type: /v1, Kind="),
        ({"metadata": 1}, 500, "failed to create typed patch object (/; /v1, Kind=ConfigMap): .metadata: expected map"),
        (
            [],
            400,
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into ",
        ),
        (None, 400, "invalid object type: /, Kind="),
    ],
)
async def test_bodies_that_are_no_configurations(cluster: Cluster, body: Any, code: int, message: str):
    whole = {"apiVersion": "v1", "kind": "ConfigMap", **body} if isinstance(body, dict) else body
    await cluster.create("configmaps", config_map())
    async with refused(code, message=message):
        await cluster.patch("configmaps", "a", whole, APPLY, field_manager="me")
