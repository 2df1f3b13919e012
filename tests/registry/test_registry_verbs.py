"""Create, update and patch: what the server fills in, optimistic concurrency, dry runs, no-op writes."""

import asyncio

import pytest
from clusters import JSON_PATCH, Cluster, config_map, pod, refused

from fastkube.errors import ApiError

# ---------------------------------------------------------------- create


async def test_a_new_object_gets_what_only_the_server_may_say(cluster: Cluster):
    sent = config_map(
        uid="x", creationTimestamp="2020-01-01T00:00:00Z", selfLink="/x", deletionTimestamp="2020-01-01T00:00:00Z"
    )
    metadata = (await cluster.create("configmaps", sent))["metadata"]
    assert metadata["uid"] != "x" and len(metadata["uid"]) == 36
    assert metadata["creationTimestamp"] == "2027-01-15T08:00:00Z"
    assert metadata["namespace"] == "default"
    assert not {"selfLink", "deletionTimestamp"} & metadata.keys()


async def test_a_name_that_is_taken_is_a_conflict(cluster: Cluster):
    await cluster.create("configmaps", config_map())
    async with refused(409, "AlreadyExists", 'configmaps "a" already exists'):
        await cluster.create("configmaps", config_map())


async def test_a_name_that_is_going_away_says_so(cluster: Cluster):
    await cluster.create("configmaps", config_map(finalizers=["e.com/f"]))
    await cluster.delete("configmaps", "a")
    async with refused(409, "AlreadyExists", "object is being deleted: "):
        await cluster.create("configmaps", config_map())


async def test_generated_names_are_made_up_anew_until_they_are_free(cluster: Cluster, monkeypatch: pytest.MonkeyPatch):
    made = iter(["g-taken", "g-taken", "g-free"])
    monkeypatch.setattr("fastkube.api.meta.generate_name", lambda base: next(made))
    sent = {"metadata": {"generateName": "g-"}}
    assert (await cluster.create("configmaps", sent))["metadata"]["name"] == "g-taken"
    assert (await cluster.create("configmaps", sent))["metadata"]["name"] == "g-free"


async def test_a_resource_version_on_a_new_object_is_refused(cluster: Cluster):
    async with refused(500, message="resourceVersion should not be set on objects to be created"):
        await cluster.create("configmaps", config_map(resourceVersion="5"))


async def test_another_namespace_in_the_body_is_refused(cluster: Cluster):
    async with refused(400, "BadRequest", "does not match the namespace sent on the request"):
        await cluster.create("configmaps", config_map(namespace="other"))


async def test_another_kind_or_version_in_the_body_is_refused(cluster: Cluster):
    async with refused(400, "BadRequest", "cannot be handled as a ConfigMap"):
        await cluster.create("configmaps", {**config_map(), "kind": "Secret"})
    async with refused(400, "BadRequest", 'no kind "ConfigMap" is registered for version "v2" in scheme'):
        await cluster.create("configmaps", {**config_map(), "apiVersion": "v2"})
    async with refused(400, "BadRequest", "does not match the expected API version (autoscaling/v2)"):
        await cluster.create(
            "horizontalpodautoscalers.autoscaling", {**config_map(), "apiVersion": "autoscaling/v1", "kind": ""}
        )


@pytest.mark.parametrize("validation", ["Strict", "Warn", "Ignore"])
async def test_unknown_fields_are_refused_told_or_dropped(cluster: Cluster, validation: str):
    sent = {**config_map(), "nope": 1}
    if validation == "Strict":
        async with refused(400, "BadRequest", 'strict decoding error: unknown field "nope"'):
            await cluster.create("configmaps", sent, field_validation=validation)
        return
    created = await cluster.create("configmaps", sent, field_validation=validation)
    assert "nope" not in created
    assert cluster.warnings == (['unknown field "nope"'] if validation == "Warn" else [])


async def test_a_dry_run_does_everything_but_the_write(cluster: Cluster):
    before = cluster.store.revision
    created = await cluster.create("configmaps", config_map(), dry_run=True)
    assert "uid" in created["metadata"] and "resourceVersion" not in created["metadata"]
    assert not cluster.exists("configmaps", "a")
    async with refused(422, "Invalid"):
        await cluster.create("configmaps", config_map("Bad_"), dry_run=True)
    assert cluster.store.revision == before
    await cluster.create("configmaps", config_map())
    async with refused(409, "AlreadyExists"):
        await cluster.create("configmaps", config_map(), dry_run=True)


# ---------------------------------------------------------------- update


async def test_put_with_an_old_version_is_a_conflict(cluster: Cluster):
    first = await cluster.create("configmaps", config_map())
    await cluster.update("configmaps", {**first, "data": {"k": "2"}})
    async with refused(409, "Conflict", "the object has been modified; please apply your changes"):
        await cluster.update("configmaps", {**first, "data": {"k": "3"}})
    assert (await cluster.update("configmaps", config_map(data={"k": "4"})))["data"] == {"k": "4"}
    async with refused(500, message='strconv.ParseUint: parsing "x": invalid syntax'):
        await cluster.update("configmaps", config_map(resourceVersion="x"))


async def test_put_of_another_incarnation_is_a_conflict(cluster: Cluster):
    await cluster.create("configmaps", config_map())
    async with refused(409, "Conflict", "Precondition failed: UID in precondition: other"):
        await cluster.update("configmaps", config_map(uid="other"))


async def test_put_to_another_name_is_refused(cluster: Cluster):
    await cluster.create("configmaps", config_map())
    call = cluster.call("update", "configmaps", "a")
    async with refused(400, "BadRequest", "the name of the object (b) does not match the name on the URL (a)"):
        await cluster.registry.update(call, config_map("b"))
    async with refused(400, "BadRequest", "name must be provided"):
        await cluster.registry.update(call, {"metadata": {}})


async def test_an_update_that_changes_nothing_writes_nothing(cluster: Cluster):
    first = await cluster.create("configmaps", config_map())
    before = cluster.store.revision
    again = await cluster.update("configmaps", config_map())
    assert (again["metadata"]["resourceVersion"], cluster.store.revision) == (
        first["metadata"]["resourceVersion"],
        before,
    )


async def test_what_the_server_set_is_kept(cluster: Cluster):
    first = await cluster.create("configmaps", config_map())
    changed = await cluster.patch(
        "configmaps", "a", {"metadata": {"uid": None, "creationTimestamp": None, "generation": 9}}
    )
    for key in ("uid", "creationTimestamp"):
        assert changed["metadata"][key] == first["metadata"][key]
    assert "generation" not in changed["metadata"]
    async with refused(422, "Invalid", "field is immutable"):
        await cluster.patch("configmaps", "a", {"metadata": {"uid": "other"}})


async def test_generation_rises_with_the_spec_only(cluster: Cluster):
    assert (await cluster.create("pods", pod()))["metadata"]["generation"] == 1
    await cluster.patch("pods", "p", {"metadata": {"labels": {"x": "y"}}})
    await cluster.patch("pods/status", "p", {"status": {"phase": "Running"}})
    assert cluster.get("pods", "p")["metadata"]["generation"] == 1
    image = [{"op": "replace", "path": "/spec/containers/0/image", "value": "img:2"}]
    assert (await cluster.patch("pods", "p", image, JSON_PATCH))["metadata"]["generation"] == 2


async def test_status_and_spec_are_written_through_their_own_doors(cluster: Cluster):
    await cluster.create("pods", pod())
    changed = await cluster.patch("pods", "p", {"status": {"phase": "Running"}})
    assert changed["status"]["phase"] == "Pending"
    changed = await cluster.patch("pods/status", "p", {"status": {"phase": "Running"}, "spec": {"nodeName": "n"}})
    assert changed["status"]["phase"] == "Running" and "nodeName" not in changed["spec"]


# ---------------------------------------------------------------- patches under contention


async def test_concurrent_patches_all_take_effect(cluster: Cluster):
    await cluster.create("configmaps", config_map(data={}))
    await asyncio.gather(*(cluster.patch("configmaps", "a", {"data": {f"k{n}": "v"}}) for n in range(40)))
    assert len(cluster.get("configmaps", "a")["data"]) == 40


async def test_concurrent_puts_of_one_version_let_one_through(cluster: Cluster):
    first = await cluster.create("configmaps", config_map())
    puts = (cluster.update("configmaps", {**first, "data": {"k": str(n)}}) for n in range(10))
    results = await asyncio.gather(*puts, return_exceptions=True)
    lost = [result for result in results if isinstance(result, ApiError)]
    assert len(lost) == 9 and {error.reason for error in lost} == {"Conflict"}


async def test_warnings_of_attempts_that_came_too_late_are_not_repeated(cluster: Cluster):
    await cluster.create("configmaps", config_map(data={}))
    calls = [cluster.call("patch", "configmaps", "a") for _ in range(5)]
    bodies = [f'{{"data":{{"k{n}":"v"}},"nope":1}}'.encode() for n in range(5)]
    kind = "application/merge-patch+json"
    await asyncio.gather(*(cluster.registry.patch(call, kind, body) for call, body in zip(calls, bodies, strict=True)))
    assert [call.warnings for call in calls] == [['unknown field "nope"']] * 5


@pytest.mark.parametrize("kind", ["application/json", "text/plain", ""])
async def test_patches_of_unknown_kinds_are_refused(cluster: Cluster, kind: str):
    await cluster.create("configmaps", config_map())
    async with refused(415, "UnsupportedMediaType"):
        await cluster.patch("configmaps", "a", {}, kind)


async def test_a_patch_of_what_is_not_there_is_not_found(cluster: Cluster):
    async with refused(404, "NotFound", 'configmaps "none" not found'):
        await cluster.patch("configmaps", "none", {})


async def test_strict_patches_refuse_unknown_fields(cluster: Cluster):
    await cluster.create("configmaps", config_map())
    quoted = r'"{\"apiVersion\":\"v1\",\"data\":{\"k\":\"v\"},\"kind\":\"ConfigMap\",\"metadata\":{\"name\":'
    async with refused(422, "Invalid", 'strict decoding error: unknown field "nope"') as refusal:
        await cluster.patch("configmaps", "a", {"nope": 1}, field_validation="Strict")
    assert quoted in refusal.value.message and r'"nope\":1}' in refusal.value.message


async def test_a_node_registers_with_the_status_that_it_has(cluster: Cluster):
    status = {"capacity": {"pods": "110"}}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "status": status}
    made = await cluster.create("nodes", node)
    assert made["status"]["capacity"] == {"pods": "110"} and "generation" not in made["metadata"]
