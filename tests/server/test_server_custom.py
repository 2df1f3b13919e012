"""Custom kinds from their definition to its end, over HTTP."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgpack
import pytest
from apis import Api, running
from customs import CRDS, GROUP, WIDGETS, becomes, define, definition, schema, version, widget

from fastkube.registry.custom import keeper

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
SIZED = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 10},
        "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
        "parts": {"type": "object", "properties": {"on": {"type": "boolean", "default": True}}},
    },
}


async def refused(api: Api, method: str, path: str, body: Any, **headers: str) -> dict[str, Any]:
    response = await api.request(method, path, body, headers=headers)
    assert response.status >= 400, response.body
    return response.json


@pytest.fixture
async def api(tmp_path: Path):
    async with running(tmp_path) as api:
        yield api


# ---------------------------------------------------------------- definitions


async def test_conditions_of_a_new_definition(api: Api) -> None:
    crd = await define(api)
    assert crd["status"] == {"conditions": None, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": ["v1"]}
    status = (await api.get(f"{CRDS}/widgets.{GROUP}"))["status"]
    told = [(each["type"], each["status"], each["reason"], each["message"]) for each in status["conditions"]]
    assert told == [
        ("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
        ("Established", "True", "InitialNamesAccepted", "the initial names have been accepted"),
    ]
    assert status["acceptedNames"] == {
        "plural": "widgets",
        "singular": "widget",
        "kind": "Widget",
        "listKind": "WidgetList",
    }


async def test_names_that_become_free_are_taken(api: Api) -> None:
    await define(api)
    await api.create(CRDS, definition(plural="gadgets"))
    name = f"gadgets.{GROUP}"
    await becomes(api, name, "NamesAccepted", "False")
    await api.delete(f"{CRDS}/widgets.{GROUP}")
    await becomes(api, name, "Established", "True")
    assert (await api.get(f"/apis/{GROUP}/v1/gadgets"))["kind"] == "WidgetList"


async def test_protected_groups_are_approved_by_annotation(api: Api) -> None:
    crd = definition()
    crd["spec"]["group"] = "things.k8s.io"
    crd["metadata"] = {
        "name": "widgets.things.k8s.io",
        "annotations": {"api-approved.kubernetes.io": "https://example.com/1"},
    }
    await api.create(CRDS, crd)
    await becomes(api, "widgets.things.k8s.io", "KubernetesAPIApprovalPolicyConformant", "True")
    crd["metadata"]["annotations"]["api-approved.kubernetes.io"] = "yes"
    status = await refused(api, "POST", CRDS, {**crd, "metadata": crd["metadata"]})
    assert status["details"]["causes"][0]["message"].startswith('Invalid value: "yes": protected groups must have')


async def test_deletion_takes_the_objects_with_it(api: Api) -> None:
    await define(api)
    await api.create(WIDGETS, widget("a"))
    held = widget("held")
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await api.create(WIDGETS, held)
    async with api.watch(f"{WIDGETS}?watch=1&resourceVersion=0") as watch:
        await watch.take(2)
        crd = await api.delete(f"{CRDS}/widgets.{GROUP}")
        assert crd["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
        assert crd["status"]["conditions"][-1]["reason"] == "InstanceDeletionPending"
        status = await refused(api, "POST", WIDGETS, widget("late"))
        assert status["code"] == 405
        assert status["message"] == "create not allowed while custom resource definition is terminating"
        for _ in range(1000):
            names = [each["metadata"]["name"] for each in (await api.get(WIDGETS))["items"]]
            if names == ["held"]:
                break
            await asyncio.sleep(0.005)
        assert "deletionTimestamp" in (await api.get(f"{WIDGETS}/held"))["metadata"]
        await api.merge(f"{WIDGETS}/held", {"metadata": {"finalizers": None}})
        gone = {event["object"]["metadata"]["name"] for event in await watch.rest() if event["type"] == "DELETED"}
    assert "held" in gone
    for _ in range(400):
        if (await api.request("GET", f"{CRDS}/widgets.{GROUP}")).status == 404:
            break
        await asyncio.sleep(0.005)
    response = await api.request("GET", WIDGETS)
    assert (response.status, response.body) == (404, b"404 page not found\n")


async def test_a_restarted_server_serves_its_kinds_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as api:
        await define(api)
        await api.create(WIDGETS, widget("a", {"x": 1}))
    async with running(tmp_path) as api:
        assert (await api.get(f"{WIDGETS}/a"))["spec"] == {"x": 1}


# ---------------------------------------------------------------- discovery


async def test_discovery_and_openapi_follow(api: Api) -> None:
    scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    parts = {"status": {}, "scale": scale}
    await define(api, version("v1", subresources=parts), version("v1beta1"), version("v2", served=False))
    group = await api.get(f"/apis/{GROUP}")
    assert [each["version"] for each in group["versions"]] == ["v1", "v1beta1"]
    names = [each["name"] for each in (await api.get(f"/apis/{GROUP}/v1"))["resources"]]
    assert names == ["widgets", "widgets/scale", "widgets/status"]
    old = [each["name"] for each in (await api.get(f"/apis/{GROUP}/v1beta1"))["resources"]]
    assert old == ["widgets"]
    assert (await api.request("GET", f"/apis/{GROUP}/v1beta1/namespaces/default/widgets/a/status")).status == 404
    aggregated = await api.get(
        "/apis", headers={"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
    )
    found = next(each for each in aggregated["items"] if each["metadata"]["name"] == GROUP)
    assert found["versions"][0]["resources"][0]["responseKind"] == {"group": GROUP, "version": "v1", "kind": "Widget"}
    paths = (await api.get("/openapi/v3"))["paths"]
    document = await api.get(paths[f"apis/{GROUP}/v1"]["serverRelativeURL"])
    assert document["components"]["schemas"]["com.example.v1.Widget"]["properties"]["spec"]["type"] == "object"
    whole = await api.get("/openapi/v2")
    assert "com.example.v1beta1.Widget" in whole["definitions"]


# ---------------------------------------------------------------- objects


async def test_pruning_and_defaults(api: Api) -> None:
    await define(api, version(whole=schema(SIZED)))
    made = await api.create(WIDGETS, widget("a", {"size": 2, "odd": 1, "parts": {}, "color": None}))
    assert made["spec"] == {"size": 2, "color": "red", "parts": {"on": True}}
    assert made["metadata"]["generation"] == 1
    changed = await api.merge(f"{WIDGETS}/a", {"spec": {"size": 3, "odd": 2}})
    assert changed["spec"]["size"] == 3
    assert "odd" not in changed["spec"]
    assert changed["metadata"]["generation"] == 2


async def test_defaults_reach_what_was_stored_before_them(api: Api) -> None:
    await define(api, version(whole=schema({"type": "object", "properties": {"size": {"type": "integer"}}})))
    await api.create(WIDGETS, widget("a", {"size": 2}))
    crd = await api.get(f"{CRDS}/widgets.{GROUP}")
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema(SIZED)
    response = await api.request("PUT", f"{CRDS}/widgets.{GROUP}", crd)
    assert response.status == 200, response.body
    assert (await api.get(f"{WIDGETS}/a"))["spec"] == {"size": 2, "color": "red"}
    assert (await api.get(WIDGETS))["items"][0]["spec"] == {"size": 2, "color": "red"}
    async with api.watch(f"{WIDGETS}?watch=1") as watch:
        assert (await watch.next())["object"]["spec"]["color"] == "red"
    packed = await api.request("GET", f"{WIDGETS}/a", headers={"Accept": "application/msgpack"})
    assert msgpack.unpackb(packed.body)["spec"]["color"] == "red"


async def test_status_is_written_apart(api: Api) -> None:
    await define(api, version(subresources={"status": {}}))
    made = await api.create(WIDGETS, widget("a", {"x": 1}, status={"y": 1}))
    assert "status" not in made
    path = f"{WIDGETS}/a/status"
    changed = await api.merge(path, {"spec": {"x": 2}, "status": {"y": 2}, "metadata": {"labels": {"l": "1"}}})
    assert (changed["spec"], changed["status"]) == ({"x": 1}, {"y": 2})
    assert "labels" not in changed["metadata"]
    assert changed["metadata"]["generation"] == 1
    kept = await api.merge(f"{WIDGETS}/a", {"spec": {"x": 3}, "status": {"y": 3}})
    assert (kept["spec"], kept["status"], kept["metadata"]["generation"]) == ({"x": 3}, {"y": 2}, 2)


async def test_strategic_patches_are_refused(api: Api) -> None:
    await define(api)
    await api.create(WIDGETS, widget("a", {"x": 1}))
    strategic = {"Content-Type": "application/strategic-merge-patch+json"}
    assert (await api.request("PATCH", f"{WIDGETS}/a", {}, headers=strategic)).status == 415
    patch = [{"op": "add", "path": "/spec/y", "value": [1]}]
    response = await api.request(
        "PATCH", f"{WIDGETS}/a", patch, headers={"Content-Type": "application/json-patch+json"}
    )
    assert response.json["spec"] == {"x": 1, "y": [1]}


async def test_apply_is_typed_by_the_schema(api: Api) -> None:
    ports = {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["port"],
        "items": {
            "type": "object",
            "required": ["port"],
            "properties": {"port": {"type": "integer"}, "name": {"type": "string"}},
        },
    }
    await define(api, version(whole=schema({"type": "object", "properties": {"ports": ports}})))

    async def apply(manager: str, *given: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/apply-patch+yaml"}
        body = widget("a", {"ports": list(given)})
        response = await api.request("PATCH", f"{WIDGETS}/a?fieldManager={manager}", body, headers=headers)
        assert response.status in (200, 201), response.body
        return response.json

    await apply("one", {"port": 1, "name": "x"})
    both = await apply("two", {"port": 2})
    assert both["spec"]["ports"] == [{"port": 1, "name": "x"}, {"port": 2}]
    left = await apply("one")
    assert left["spec"]["ports"] == [{"port": 2}]


async def test_printer_columns(api: Api) -> None:
    columns = [
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size", "description": "How large"},
        {"name": "First", "type": "string", "jsonPath": ".spec.names[0]", "priority": 1},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]
    await define(api, version(additionalPrinterColumns=columns))
    await api.create(WIDGETS, widget("a", {"size": 3, "names": ["x", "y"]}))
    table = await api.get(WIDGETS, headers={"Accept": TABLE})
    assert [each["name"] for each in table["columnDefinitions"]] == ["Name", "Size", "First", "Age"]
    assert table["columnDefinitions"][1]["description"] == "How large"
    assert table["rows"][0]["cells"][:3] == ["a", 3, "x"]


async def test_selectable_fields_in_lists_and_watches(api: Api) -> None:
    whole = schema({"type": "object", "properties": {"color": {"type": "string"}, "on": {"type": "boolean"}}})
    fields = [{"jsonPath": ".spec.color"}, {"jsonPath": ".spec.on"}]
    await define(api, version(whole=whole, selectableFields=fields))
    await api.create(WIDGETS, widget("a", {"color": "red", "on": True}))
    await api.create(WIDGETS, widget("b", {"color": "blue"}))

    async def names(selector: str) -> list[str]:
        return [each["metadata"]["name"] for each in (await api.get(f"{WIDGETS}?fieldSelector={selector}"))["items"]]

    assert await names("spec.color%3Dred") == ["a"]
    assert await names("spec.color!%3Dred") == ["b"]
    assert await names("spec.on%3Dtrue") == ["a"]
    async with api.watch(f"{WIDGETS}?watch=1&fieldSelector=spec.color%3Dblue") as watch:
        assert (await watch.next())["object"]["metadata"]["name"] == "b"
        await api.merge(f"{WIDGETS}/b", {"spec": {"color": "red"}})
        assert (await watch.next())["type"] == "DELETED"


async def test_storage_version_changes_under_stored_objects(api: Api) -> None:
    await define(api, version("v1"), version("v2", storage=False))
    await api.create(WIDGETS, widget("old", {"x": 1}))
    crd = await api.get(f"{CRDS}/widgets.{GROUP}")
    for each in crd["spec"]["versions"]:
        each["storage"] = each["name"] == "v2"
    stored = (await api.request("PUT", f"{CRDS}/widgets.{GROUP}", crd)).json
    assert stored["status"]["storedVersions"] == ["v1", "v2"]
    two = WIDGETS.replace("/v1/", "/v2/")
    await api.create(two, widget("new", {"x": 2}, f"{GROUP}/v2"))
    for path, wanted in ((WIDGETS, f"{GROUP}/v1"), (two, f"{GROUP}/v2")):
        assert {each["apiVersion"] for each in (await api.get(path))["items"]} == {wanted}
        assert (await api.get(f"{path}/old"))["apiVersion"] == wanted
        async with api.watch(f"{path}?watch=1") as watch:
            assert {event["object"]["apiVersion"] for event in await watch.take(2)} == {wanted}


async def test_field_validation_of_a_changed_schema(api: Api) -> None:
    await define(api, version(whole=schema(SIZED)))
    strict = await refused(api, "POST", f"{WIDGETS}?fieldValidation=Strict", widget("a", {"size": 1, "odd": 1}))
    assert strict["message"].endswith('strict decoding error: unknown field "spec.odd"')
    warned = await api.request("POST", WIDGETS, widget("a", {"size": 1, "odd": 1}))
    assert warned.headers["Warning"] == '299 - "unknown field \\"spec.odd\\""'


async def test_finalizers_without_a_domain_are_warned_of(api: Api) -> None:
    await define(api)
    held = widget("a")
    held["metadata"]["finalizers"] = ["hold"]
    response = await api.request("POST", WIDGETS, held)
    assert "prefer a domain-qualified finalizer name" in response.headers["Warning"]


async def test_rules_see_old_and_new(api: Api) -> None:
    rules = [
        {"rule": "self.size >= oldSelf.size", "messageExpression": "'size was %d'.format([oldSelf.size])"},
        {"rule": "self.size < 8", "message": "too large", "fieldPath": ".size", "reason": "FieldValueForbidden"},
        {"rule": "oldSelf.hasValue() || self.size == 1", "optionalOldSelf": True, "message": "must begin with 1"},
    ]
    await define(api, version(whole=schema({**SIZED, "x-kubernetes-validations": rules})))
    status = await refused(api, "POST", WIDGETS, widget("a", {"size": 9}))
    assert status["details"]["causes"] == [
        {"reason": "FieldValueForbidden", "message": "Forbidden: too large", "field": "spec.size"},
        {"reason": "FieldValueInvalid", "message": "Invalid value: must begin with 1", "field": "spec"},
    ]
    await api.create(WIDGETS, widget("a", {"size": 1}))
    await api.merge(f"{WIDGETS}/a", {"spec": {"size": 5}})
    status = await refused(
        api, "PATCH", f"{WIDGETS}/a", {"spec": {"size": 4}}, **{"Content-Type": "application/merge-patch+json"}
    )
    assert status["message"].endswith("is invalid: spec: Invalid value: size was 5")


async def test_a_watch_ends_when_its_definition_changes(api: Api) -> None:
    await define(api)
    async with api.watch(f"{WIDGETS}?watch=1") as watch:
        await api.create(WIDGETS, widget("a"))
        assert (await watch.next())["type"] == "ADDED"
        crd = await api.get(f"{CRDS}/widgets.{GROUP}")
        crd["spec"]["versions"].append(version("v2"))
        assert (await api.request("PUT", f"{CRDS}/widgets.{GROUP}", crd)).status == 200
        assert await watch.next() is None


async def test_yaml_and_metadata_forms(api: Api) -> None:
    await define(api)
    body = f"apiVersion: {GROUP}/v1\nkind: Widget\nmetadata: {{name: a}}\nspec: {{x: [1, two]}}\n".encode()
    response = await api.request("POST", WIDGETS, body, headers={"Content-Type": "application/yaml"})
    assert response.status == 201, response.body
    assert json.loads(response.body)["spec"] == {"x": [1, "two"]}
    partial = await api.get(
        f"{WIDGETS}/a", headers={"Accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}
    )
    assert partial["kind"] == "PartialObjectMetadata"
    assert "spec" not in partial
    protobuf = await api.request("GET", WIDGETS, headers={"Accept": "application/vnd.kubernetes.protobuf"})
    assert protobuf.status == 406


async def test_the_scale_of_each_version(api: Api) -> None:
    def scaled(path: str) -> dict[str, Any]:
        return {"scale": {"specReplicasPath": path, "statusReplicasPath": ".status.replicas"}}

    await define(
        api,
        version("v1", subresources=scaled(".spec.replicas")),
        version("v2", storage=False, subresources=scaled(".spec.parts.count")),
    )
    await api.create(WIDGETS, widget("a", {"replicas": 2, "parts": {"count": 7}}))
    assert (await api.get(f"{WIDGETS}/a/scale"))["spec"] == {"replicas": 2}
    two = WIDGETS.replace("/v1/", "/v2/")
    assert (await api.get(f"{two}/a/scale"))["spec"] == {"replicas": 7}


async def test_openapi_offers_no_strategic_patches(api: Api) -> None:
    """kubectl apply chooses its patch by this."""
    await define(api)
    document = await api.get(f"/openapi/v3/apis/{GROUP}/v1")
    patch = document["paths"][f"/apis/{GROUP}/v1/namespaces/{{namespace}}/widgets/{{name}}"]["patch"]
    assert sorted(patch["requestBody"]["content"]) == [
        "application/apply-patch+yaml",
        "application/json-patch+json",
        "application/merge-patch+json",
    ]


async def test_establishing_is_seen_step_by_step(api: Api) -> None:
    async with api.watch(f"{CRDS}?watch=1") as watch:
        await api.create(CRDS, definition())
        events = await watch.take(3)
    told = [
        [(each["type"], each["status"]) for each in event["object"]["status"]["conditions"] or ()] for event in events
    ]
    accepted = ("NamesAccepted", "True")
    assert told == [[], [accepted, ("Established", "False")], [accepted, ("Established", "True")]]


async def test_replacing_needs_a_version(api: Api) -> None:
    await define(api, version(subresources={"status": {}}))
    await api.create(WIDGETS, widget("a", {"x": 1}))
    for path in (f"{WIDGETS}/a", f"{WIDGETS}/a/status"):
        status = await refused(api, "PUT", path, widget("a", {"x": 2}))
        assert status["message"].endswith("metadata.resourceVersion: Invalid value: 0: must be specified for an update")


async def test_another_kind_is_invalid(api: Api) -> None:
    await define(api)
    status = await refused(api, "POST", WIDGETS, {**widget("a"), "kind": "Other"})
    assert (status["code"], status["message"]) == (
        422,
        f'Other.{GROUP} "a" is invalid: kind: Invalid value: "Other": must be Widget',
    )


async def test_status_is_judged_by_itself(api: Api) -> None:
    status = {"type": "object", "properties": {"count": {"type": "integer", "maximum": 3}}}
    whole = {"type": "object", "properties": {"spec": SIZED, "status": status}}
    await define(api, version(whole=whole, subresources={"status": {}}))
    await api.create(WIDGETS, widget("a", {"size": 1}))
    patch = {"Content-Type": "application/merge-patch+json"}
    told = await refused(api, "PATCH", f"{WIDGETS}/a/status", {"status": {"count": 4}}, **patch)
    assert told["details"]["causes"] == [
        {
            "reason": "FieldValueInvalid",
            "message": "Invalid value: 4: count in body should be less than or equal to 3",
            "field": "status.count",
        }
    ]


async def test_preconditions_of_a_definitions_deletion(api: Api) -> None:
    await define(api)
    body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "other"}}
    told = await refused(api, "DELETE", f"{CRDS}/widgets.{GROUP}", body)
    assert told["code"] == 409
    assert "Precondition failed: UID in precondition: other" in told["message"]


async def test_documents_of_openapi_change_with_their_definitions_only(api: Api) -> None:
    async def url(group: str) -> str:
        found: str = (await api.get("/openapi/v3"))["paths"][f"apis/{group}/v1"]["serverRelativeURL"]
        return found

    await define(api)
    before = await url(GROUP)
    other = definition(plural="things", kind="Thing")
    other["metadata"]["name"], other["spec"]["group"] = "things.other.com", "other.com"
    await api.create(CRDS, other)
    await asyncio.sleep(0.05)
    assert await url(GROUP) == before
    crd = await api.get(f"{CRDS}/widgets.{GROUP}")
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema(SIZED)
    await api.request("PUT", f"{CRDS}/widgets.{GROUP}", crd)
    after = await url(GROUP)
    assert after != before
    shown = (await api.get(after))["components"]["schemas"]["com.example.v1.Widget"]
    assert shown["properties"]["spec"]["properties"]["size"]["maximum"] == 10


async def test_verification_of_stored_objects(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once all objects are known to be as their definition has them they are read as they are stored; not before."""
    monkeypatch.setattr(keeper, "_GRACE_S", 0.01)
    await define(api, version(whole=schema({"type": "object", "properties": {"size": {"type": "integer"}}})))
    await api.create(WIDGETS, widget("a", {"size": 2}))

    async def change(spec: dict[str, Any]) -> bool:
        """Whether objects are brought up to date on reading, some time after a change."""
        crd = await api.get(f"{CRDS}/widgets.{GROUP}")
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema(spec)
        assert (await api.request("PUT", f"{CRDS}/widgets.{GROUP}", crd)).status == 200
        await asyncio.sleep(0.1)
        rtype = api.server.catalog.get(GROUP, "widgets")
        assert rtype is not None
        return rtype.stale

    more = {"type": "object", "properties": {"size": {"type": "integer"}, "more": {"type": "string"}}}
    assert not await change(more)
    assert (await api.get(f"{WIDGETS}/a"))["spec"] == {"size": 2}
    assert await change(SIZED)
    assert (await api.get(f"{WIDGETS}/a"))["spec"] == {"size": 2, "color": "red"}
    await api.merge(f"{WIDGETS}/a", {"metadata": {"labels": {"l": "1"}}})
    assert not await change({**SIZED, "description": "the same"})
    assert (await api.get(f"{WIDGETS}/a"))["spec"] == {"size": 2, "color": "red"}
