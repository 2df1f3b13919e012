"""The status of resource claims: what was allocated to them, and by whom they are used."""

from typing import Any

from clusters import Cluster, refused
from kinds import good

CLAIMS = "resourceclaims.resource.k8s.io"
RESULT = {"request": "r", "driver": "d.e.com", "pool": "p", "device": "gpu"}
USER = {"resource": "pods", "name": "p", "uid": "1"}
READY = {"type": "Ready", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2020-01-01T00:00:00Z"}


def device(**told: Any) -> dict[str, Any]:
    return {"driver": "d.e.com", "pool": "p", "device": "gpu", **told}


def status(**parts: Any) -> dict[str, Any]:
    return {"status": {"allocation": {"devices": {"results": [RESULT]}}, **parts}}


async def test_an_allocation_is_made_once_and_freed_as_a_whole(cluster: Cluster):
    await cluster.create(CLAIMS, good(CLAIMS))
    told = status(devices=[device(conditions=[READY])], reservedFor=[USER])
    allocated = await cluster.patch(f"{CLAIMS}/status", "a", told)
    assert allocated["status"]["devices"][0]["conditions"] == [READY]
    other = status(allocation={"devices": {"results": [{**RESULT, "device": "other"}]}})
    async with refused(422, "Invalid", '"Device":"other"'):
        await cluster.patch(f"{CLAIMS}/status", "a", other)
    freed = await cluster.patch(f"{CLAIMS}/status", "a", {"status": {"allocation": None, "reservedFor": None}})
    assert freed["status"] == {}


async def test_a_claim_that_is_not_allocated_has_no_users(cluster: Cluster):
    await cluster.create(CLAIMS, good(CLAIMS))
    async with refused(
        422, "Invalid", "status.reservedFor: Forbidden: may not be specified when `allocated` is not set"
    ):
        await cluster.patch(f"{CLAIMS}/status", "a", {"status": {"reservedFor": [USER]}})


async def test_a_terminating_claim_gets_no_new_users(cluster: Cluster):
    await cluster.create(CLAIMS, good(CLAIMS, {"metadata.finalizers": ["e.com/x"]}))
    await cluster.patch(f"{CLAIMS}/status", "a", status(reservedFor=[USER]))
    await cluster.delete(CLAIMS, "a")
    async with refused(422, "Invalid", "new entries may not be added while"):
        await cluster.patch(f"{CLAIMS}/status", "a", status(reservedFor=[USER, {**USER, "uid": "2"}]))
    assert "reservedFor" not in (await cluster.patch(f"{CLAIMS}/status", "a", status(reservedFor=None)))["status"]


async def test_only_allocated_devices_have_a_status(cluster: Cluster):
    await cluster.create(CLAIMS, good(CLAIMS))
    async with refused(422, "Invalid", "must be an allocated device in the claim"):
        await cluster.patch(f"{CLAIMS}/status", "a", status(devices=[device(device="other")]))
    async with refused(422, "Invalid", 'status.allocation.devices.results[0].request: Invalid value: "x"'):
        wrong = {"allocation": {"devices": {"results": [{**RESULT, "request": "x"}]}}}
        await cluster.patch(f"{CLAIMS}/status", "a", {"status": wrong})


async def test_admin_access_is_for_namespaces_that_are_marked(cluster: Cluster):
    asked = {"spec.devices.requests.0.exactly.adminAccess": True}
    problem = "spec.devices.requests[0].adminAccess: Forbidden: admin access to devices requires the `{}: true` label"
    label = "resource.kubernetes.io/admin-access"
    async with refused(422, "Invalid", problem.format(label)):
        await cluster.create(CLAIMS, good(CLAIMS, asked))
    await cluster.create(CLAIMS, good(CLAIMS))
    granted = status(allocation={"devices": {"results": [{**RESULT, "adminAccess": True}]}})
    async with refused(422, "Invalid", "status.allocation.devices.results[0].adminAccess: Forbidden"):
        await cluster.patch(f"{CLAIMS}/status", "a", granted)
    await cluster.patch("namespaces", "default", {"metadata": {"labels": {label: "true"}}})
    await cluster.create(CLAIMS, good(CLAIMS, {**asked, "metadata.name": "b"}))
    await cluster.patch(f"{CLAIMS}/status", "a", granted)
    await cluster.patch("namespaces", "default", {"metadata": {"labels": {label: None}}})
    await cluster.patch(f"{CLAIMS}/status", "a", {"metadata": {"labels": {"x": "y"}}})
