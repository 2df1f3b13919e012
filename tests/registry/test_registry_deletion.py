"""Deletion: answers, preconditions, finalizers and propagation, grace periods, namespaces, collections."""

import pytest
from clusters import Cluster, config_map, pod, refused

from fastkube.registry.deletion import DeleteOptions
from fastkube.registry.listing import ListOptions


async def test_some_kinds_answer_a_status_and_some_the_object(cluster: Cluster):
    created = await cluster.create("configmaps", config_map())
    status = await cluster.delete("configmaps", "a")
    assert status["status"] == "Success"
    assert status["details"] == {"name": "a", "kind": "configmaps", "uid": created["metadata"]["uid"]}
    await cluster.create("serviceaccounts", {"metadata": {"name": "a"}})
    assert (await cluster.delete("serviceaccounts", "a"))["kind"] == "ServiceAccount"
    async with refused(404, "NotFound"):
        await cluster.delete("configmaps", "a")


async def test_preconditions_must_hold(cluster: Cluster):
    created = (await cluster.create("configmaps", config_map()))["metadata"]
    async with refused(409, "Conflict", "the UID in the precondition (nope) does not match"):
        await cluster.delete("configmaps", "a", {"preconditions": {"uid": "nope"}})
    await cluster.patch("configmaps", "a", {"data": {"k": "2"}})
    old = {"uid": created["uid"], "resourceVersion": created["resourceVersion"]}
    async with refused(409, "Conflict", "The object might have been modified"):
        await cluster.delete("configmaps", "a", {"preconditions": old})
    await cluster.delete("configmaps", "a", {"preconditions": {"uid": created["uid"]}})
    assert not cluster.exists("configmaps", "a")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"propagationPolicy": "Odd"}, "propagationPolicy: Unsupported value"),
        ({"propagationPolicy": "Orphan", "orphanDependents": True}, "cannot be both set"),
    ],
)
async def test_options_that_make_no_sense_are_refused(cluster: Cluster, body: dict, message: str):
    async with refused(422, "Invalid", message):
        await cluster.delete("configmaps", "a", body)


async def test_wrongly_typed_options_are_refused(cluster: Cluster):
    async with refused(400, "BadRequest", "gracePeriodSeconds of type int64"):
        await cluster.delete("configmaps", "a", {"gracePeriodSeconds": "soon"})


async def test_the_last_finalizer_lets_the_object_go(cluster: Cluster):
    await cluster.create("configmaps", config_map(finalizers=["e.com/a", "e.com/b"]))
    going = await cluster.delete("configmaps", "a")
    assert going["metadata"]["deletionGracePeriodSeconds"] == 0
    await cluster.patch("configmaps", "a", {"metadata": {"finalizers": ["e.com/b"]}})
    async with refused(422, "Invalid", "no new finalizers can be added if the object is being deleted"):
        await cluster.patch("configmaps", "a", {"metadata": {"finalizers": ["e.com/b", "e.com/c"]}})
    answered = await cluster.patch("configmaps", "a", {"metadata": {"finalizers": None}})
    assert "finalizers" not in answered["metadata"] and answered["metadata"]["deletionTimestamp"]
    assert not cluster.exists("configmaps", "a")


async def test_propagation_policies_become_finalizers(cluster: Cluster):
    await cluster.create("configmaps", config_map())
    first = await cluster.delete("configmaps", "a", {"propagationPolicy": "Foreground"})
    assert first["metadata"]["finalizers"] == ["foregroundDeletion"]
    second = await cluster.delete("configmaps", "a", {"propagationPolicy": "Orphan"})
    assert second["metadata"]["finalizers"] == ["orphan"]
    await cluster.delete("configmaps", "a", {"propagationPolicy": "Background"})
    assert not cluster.exists("configmaps", "a")


async def test_a_dry_run_deletes_nothing(cluster: Cluster):
    await cluster.create("configmaps", config_map())
    assert (await cluster.delete("configmaps", "a", dry_run=True))["status"] == "Success"
    assert cluster.exists("configmaps", "a")


# ---------------------------------------------------------------- grace periods


async def bound_pod(cluster: Cluster) -> None:
    await cluster.create("pods", pod())
    await cluster.create("pods/binding", {"metadata": {"name": "p"}, "target": {"name": "n1"}}, "p")


async def test_a_pod_that_no_node_runs_goes_at_once(cluster: Cluster):
    await cluster.create("pods", pod())
    answered = (await cluster.delete("pods", "p"))["metadata"]
    assert (answered["deletionGracePeriodSeconds"], answered["generation"]) == (0, 2)
    assert not cluster.exists("pods", "p")


async def test_a_pod_on_a_node_has_its_time_which_only_gets_shorter(cluster: Cluster):
    await bound_pod(cluster)
    first = (await cluster.delete("pods", "p"))["metadata"]
    assert (first["deletionGracePeriodSeconds"], first["deletionTimestamp"]) == (30, "2027-01-15T08:00:30Z")
    longer = (await cluster.delete("pods", "p", {"gracePeriodSeconds": 60}))["metadata"]
    assert longer["deletionGracePeriodSeconds"] == 30
    await cluster.clock.advance(5)
    shorter = (await cluster.delete("pods", "p", {"gracePeriodSeconds": 10}))["metadata"]
    assert (shorter["deletionGracePeriodSeconds"], shorter["deletionTimestamp"]) == (10, "2027-01-15T08:00:10Z")
    assert shorter["generation"] == first["generation"]
    await cluster.delete("pods", "p", {"gracePeriodSeconds": 0})
    assert not cluster.exists("pods", "p")


async def test_watchers_see_a_pod_terminate_before_it_is_gone(cluster: Cluster):
    await cluster.create("pods", pod())
    before = cluster.store.revision
    await cluster.delete("pods", "p", {"gracePeriodSeconds": 0})
    watcher = cluster.store.watch(b"/registry/pods/", b"/registry/pods0", before + 1)
    seen = []
    while len(seen) < 2:
        seen += [event.type for event in await anext(watcher)]
    watcher.cancel()
    assert seen == [0, 1]


async def test_a_pod_with_a_finalizer_stays_until_it_is_taken_away(cluster: Cluster):
    await cluster.create("pods", {**pod(), "metadata": {"name": "p", "finalizers": ["e.com/f"]}})
    await cluster.delete("pods", "p", {"gracePeriodSeconds": 0})
    assert cluster.get("pods", "p")["metadata"]["deletionGracePeriodSeconds"] == 0
    await cluster.patch("pods", "p", {"metadata": {"finalizers": None}})
    assert not cluster.exists("pods", "p")


# ---------------------------------------------------------------- namespaces


async def namespace(cluster: Cluster, name: str, **metadata: object) -> None:
    body = {
        "metadata": {"name": name, **metadata},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }
    await cluster.create("namespaces", body)


async def test_a_namespace_terminates_and_refuses_what_is_new(cluster: Cluster):
    await namespace(cluster, "n")
    await cluster.create("configmaps", config_map(), namespace="n")
    going = await cluster.delete("namespaces", "n")
    assert going["status"]["phase"] == "Terminating"
    async with refused(403, "Forbidden", "because it is being terminated") as caught:
        await cluster.create("configmaps", config_map("b"), namespace="n")
    assert caught.value.details["causes"][0]["reason"] == "NamespaceTerminating"
    assert (await cluster.patch("configmaps", "a", {"data": {"k": "2"}}, namespace="n"))["data"] == {"k": "2"}
    await cluster.delete("configmaps", "a", namespace="n")


async def test_a_namespace_goes_when_both_kinds_of_finalizers_are_gone(cluster: Cluster):
    await namespace(cluster, "n", finalizers=["e.com/f"])
    await cluster.delete("namespaces", "n")
    live = cluster.get("namespaces", "n")
    await cluster.update("namespaces/finalize", {**live, "spec": {"finalizers": []}})
    assert cluster.exists("namespaces", "n")
    await cluster.patch("namespaces", "n", {"metadata": {"finalizers": None}})
    assert not cluster.exists("namespaces", "n")


async def test_some_namespaces_never_go(cluster: Cluster):
    async with refused(403, "Forbidden", "this namespace may not be deleted"):
        await cluster.delete("namespaces", "kube-system")


async def test_nothing_is_written_into_a_namespace_that_is_not_there(cluster: Cluster):
    async with refused(404, "NotFound", 'namespaces "none" not found'):
        await cluster.create("configmaps", config_map(), namespace="none")


# ---------------------------------------------------------------- collections


async def test_a_collection_is_answered_as_it_was(cluster: Cluster):
    for name, finalizers in (("a", ["e.com/f"]), ("b", []), ("c", [])):
        await cluster.create("configmaps", config_map(name, labels={"x": name}, finalizers=finalizers))
    call = cluster.call("deletecollection", "configmaps")
    selection = ListOptions.parse({"labelSelector": "x in (a,b)"}, call.rtype.selectable)
    page = await cluster.registry.delete_collection(call, selection, DeleteOptions())
    assert [cluster.decoded(item)["metadata"]["name"] for item in page.items] == ["a", "b"]
    assert cluster.names("configmaps") == ["a", "c"]
    assert "deletionTimestamp" in cluster.get("configmaps", "a")["metadata"]
