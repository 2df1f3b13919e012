"""Binding, eviction, scale, tokens, ephemeral containers, resize, apply: every way in but the main one."""

import asyncio

import pytest
from clusters import APPLY, MERGE, Cluster, config_map, pod, refused

from fastkube.errors import ApiError
from fastkube.registry.tokens import Claims

# ---------------------------------------------------------------- binding


def binding(name: str = "p", node: str = "n1", **metadata: object) -> dict:
    return {"metadata": {"name": name, **metadata}, "target": {"kind": "Node", "name": node}}


async def test_binding_sets_the_node_and_the_condition_once(cluster: Cluster):
    await cluster.create("pods", pod())
    status = await cluster.create("pods/binding", binding(annotations={"k": "v"}), "p")
    assert (status["kind"], status["code"]) == ("Status", 201)
    bound = cluster.get("pods", "p")
    assert bound["spec"]["nodeName"] == "n1" and bound["metadata"]["annotations"] == {"k": "v"}
    assert [(each["type"], each["status"]) for each in bound["status"]["conditions"]] == [("PodScheduled", "True")]
    async with refused(409, "Conflict", 'pod p is already assigned to node "n1"'):
        await cluster.create("pods/binding", binding(node="n2"), "p")


async def test_two_schedulers_cannot_both_bind(cluster: Cluster):
    await cluster.create("pods", pod())
    binds = (cluster.create("pods/binding", binding(node=f"n{n}"), "p") for n in range(5))
    results = await asyncio.gather(*binds, return_exceptions=True)
    assert sum(isinstance(result, ApiError) for result in results) == 4


async def test_bindings_that_cannot_be(cluster: Cluster):
    await cluster.create("pods", pod(schedulingGates=[{"name": "g"}]))
    async with refused(409, "Conflict", "pod p has non-empty .spec.schedulingGates"):
        await cluster.create("pods/binding", binding(), "p")
    async with refused(400, "BadRequest", "name in URL does not match name in Binding object"):
        await cluster.create("pods/binding", binding("q"), "p")
    async with refused(500, message="target.name: Required value"):
        await cluster.create("pods/binding", binding(node=""), "p")
    async with refused(404, "NotFound"):
        await cluster.create("pods/binding", binding("none"), "none")


async def test_a_bound_pod_gets_the_topology_of_its_node(cluster: Cluster):
    zone = {"topology.kubernetes.io/zone": "z1", "other": "x"}
    await cluster.create("nodes", {"metadata": {"name": "n1", "labels": zone}})
    await cluster.create("pods", pod())
    await cluster.create("bindings", binding())
    assert cluster.get("pods", "p")["metadata"]["labels"] == {"topology.kubernetes.io/zone": "z1"}


# ---------------------------------------------------------------- eviction


async def running_pod(cluster: Cluster, name: str, ready: str = "True") -> None:
    await cluster.create("pods", {**pod(name), "metadata": {"name": name, "labels": {"app": "a"}}})
    await cluster.create("pods/binding", binding(name), name)
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}
    await cluster.patch("pods/status", name, {"status": status})


async def budget(cluster: Cluster, name: str = "b", **status: int) -> None:
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}
    await cluster.create("poddisruptionbudgets.policy", {"metadata": {"name": name}, "spec": spec})
    generation = cluster.get("poddisruptionbudgets.policy", name)["metadata"].get("generation", 0)
    whole = {"disruptionsAllowed": 0, "observedGeneration": generation, "expectedPods": 2, **status}
    await cluster.patch("poddisruptionbudgets.policy/status", name, {"status": whole})


def eviction(name: str) -> dict:
    return {"metadata": {"name": name}}


async def test_a_budget_lets_as_many_go_as_it_allows(cluster: Cluster):
    for name in ("p", "q"):
        await running_pod(cluster, name)
    await budget(cluster, disruptionsAllowed=1, currentHealthy=2, desiredHealthy=1)
    results = await asyncio.gather(
        *(cluster.create("pods/eviction", eviction(name), name) for name in ("p", "q")), return_exceptions=True
    )
    (refusal,) = [result for result in results if isinstance(result, ApiError)]
    assert (refusal.code, refusal.details["causes"][0]["reason"]) == (429, "DisruptionBudget")
    status = cluster.get("poddisruptionbudgets.policy", "b")["status"]
    assert status["disruptionsAllowed"] == 0 and len(status["disruptedPods"]) == 1
    going = [obj for obj in cluster.list("pods")[0] if "deletionTimestamp" in obj["metadata"]]
    assert [obj["metadata"]["name"] for obj in going] == list(status["disruptedPods"])
    assert any(each["type"] == "DisruptionTarget" for each in going[0]["status"]["conditions"])


async def test_a_pending_pod_needs_no_budget(cluster: Cluster):
    await cluster.create("pods", {**pod(), "metadata": {"name": "p", "labels": {"app": "a"}}})
    await budget(cluster)
    assert (await cluster.create("pods/eviction", eviction("p"), "p"))["status"] == "Success"
    assert not cluster.exists("pods", "p")


async def test_budgets_that_are_behind_or_used_up_refuse(cluster: Cluster):
    await running_pod(cluster, "p")
    await budget(cluster, currentHealthy=1, desiredHealthy=1)
    async with refused(429, "TooManyRequests", "violate the pod's disruption budget") as caught:
        await cluster.create("pods/eviction", eviction("p"), "p")
    assert "needs 1 healthy pods and has 1 currently" in caught.value.details["causes"][0]["message"]
    await cluster.patch("poddisruptionbudgets.policy", "b", {"spec": {"minAvailable": 2}})


async def test_two_budgets_for_one_pod_are_an_error(cluster: Cluster):
    await running_pod(cluster, "p")
    await budget(cluster, "b", disruptionsAllowed=1)
    await budget(cluster, "c", disruptionsAllowed=1)
    async with refused(500, message="more than one PodDisruptionBudget"):
        await cluster.create("pods/eviction", eviction("p"), "p")


async def test_a_dry_run_eviction_uses_nothing_up(cluster: Cluster):
    await running_pod(cluster, "p")
    await budget(cluster, disruptionsAllowed=1, currentHealthy=2, desiredHealthy=1)
    await cluster.create("pods/eviction", eviction("p"), "p", dry_run=True)
    assert cluster.get("poddisruptionbudgets.policy", "b")["status"]["disruptionsAllowed"] == 1
    assert "deletionTimestamp" not in cluster.get("pods", "p")["metadata"]


# ---------------------------------------------------------------- scale


def replica_set(replicas: int = 2) -> dict:
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "a"}}, "template": template}
    return {"metadata": {"name": "r"}, "spec": spec}


async def test_scale_shows_and_changes_the_replicas_only(cluster: Cluster):
    await cluster.create("replicasets.apps", replica_set())
    shown = cluster.get("replicasets.apps/scale", "r")
    assert (shown["kind"], shown["spec"], shown["status"]["selector"]) == ("Scale", {"replicas": 2}, "app=a")
    answered = await cluster.patch("replicasets.apps/scale", "r", {"spec": {"replicas": 5}})
    assert answered["spec"] == {"replicas": 5}
    assert cluster.get("replicasets.apps", "r")["spec"]["replicas"] == 5
    async with refused(422, "Invalid", "spec.replicas: Invalid value: -1: must be greater than or equal to 0"):
        await cluster.patch("replicasets.apps/scale", "r", {"spec": {"replicas": -1}})
    async with refused(409, "Conflict", "the object has been modified"):
        await cluster.update("replicasets.apps/scale", {**shown, "spec": {"replicas": 1}})


async def test_who_scales_owns_the_replicas(cluster: Cluster):
    await cluster.create("replicasets.apps", replica_set(), field_manager="maker")
    await cluster.patch("replicasets.apps/scale", "r", {"spec": {"replicas": 5}}, field_manager="scaler")
    entries = cluster.get("replicasets.apps", "r")["metadata"]["managedFields"]
    owned = {(entry["manager"], entry.get("subresource", "")): entry["fieldsV1"]["f:spec"] for entry in entries}
    assert "f:replicas" in owned["scaler", "scale"] and "f:replicas" not in owned["maker", ""]


# ---------------------------------------------------------------- pods


async def test_ephemeral_containers_are_added_and_nothing_else(cluster: Cluster):
    await cluster.create("pods", pod())
    added = {
        "spec": {"ephemeralContainers": [{"name": "e", "image": "e"}], "nodeName": "n"},
        "metadata": {"labels": {"x": "y"}},
    }
    changed = await cluster.patch("pods/ephemeralcontainers", "p", added)
    assert [each["name"] for each in changed["spec"]["ephemeralContainers"]] == ["e"]
    assert "nodeName" not in changed["spec"] and "labels" not in changed["metadata"]
    async with refused(422, "Invalid"):
        await cluster.patch("pods/ephemeralcontainers", "p", {"spec": {"ephemeralContainers": None}})


async def test_a_resize_changes_amounts_only(cluster: Cluster):
    await cluster.create("pods", pod(resources={"requests": {"cpu": "100m"}}))
    containers = [{"name": "c", "image": "other", "resources": {"requests": {"cpu": "200m"}}}]
    changed = await cluster.patch("pods/resize", "p", {"spec": {"containers": containers}}, MERGE)
    assert changed["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "200m"}
    assert changed["spec"]["containers"][0]["image"] == "img:1"


async def test_subresources_that_a_kind_has_not_are_refused(cluster: Cluster):
    await cluster.create("configmaps", config_map())
    async with refused(405, "MethodNotAllowed"):
        await cluster.patch("configmaps/status", "a", {})


# ---------------------------------------------------------------- tokens


class Signer:
    """Tells what it was asked to sign."""

    audiences = ("api",)
    extends = True
    expiration_max_s = 0

    def __init__(self) -> None:
        self.claims: list[Claims] = []

    def sign(self, claims: Claims, now: float) -> str:
        self.claims.append(claims)
        return "signed"


@pytest.fixture
async def signer(cluster: Cluster) -> Signer:
    cluster.registry.token_signer = Signer()
    await cluster.create("serviceaccounts", {"metadata": {"name": "a"}})
    return cluster.registry.token_signer


async def test_a_token_is_for_its_account_and_audiences(cluster: Cluster, signer: Signer):
    answered = await cluster.create(
        "serviceaccounts/token", {"spec": {"audiences": ["x"], "expirationSeconds": 700}}, "a"
    )
    assert answered["status"] == {"token": "signed", "expirationTimestamp": "2027-01-15T08:11:40Z"}
    await cluster.create("serviceaccounts/token", {"spec": {}}, "a")
    assert [(claims.audiences, claims.expiration_s) for claims in signer.claims] == [(["x"], 700), (["api"], 3600)]
    assert signer.claims[0].account["metadata"]["name"] == "a"


async def test_a_projected_token_is_good_for_longer_than_it_says(cluster: Cluster, signer: Signer):
    await cluster.create("pods", pod(serviceAccountName="a", nodeName="n1"))
    bound = {"kind": "Pod", "apiVersion": "v1", "name": "p"}
    answered = await cluster.create(
        "serviceaccounts/token", {"spec": {"expirationSeconds": 3607, "boundObjectRef": bound}}, "a"
    )
    (claims,) = signer.claims
    assert (claims.expiration_s, claims.warn_after_s) == (365 * 24 * 3600, 3607)
    assert {kind: obj["metadata"]["name"] for kind, obj in claims.bound.items()} == {"Pod": "p", "Node": "n1"}
    assert answered["spec"]["expirationSeconds"] == 3607


@pytest.mark.parametrize(
    ("spec", "code", "message"),
    [
        ({"expirationSeconds": 5}, 422, "may not specify a duration less than 10 minutes"),
        ({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "none"}}, 404, 'pods "none" not found'),
        (
            {"boundObjectRef": {"kind": "ConfigMap", "apiVersion": "v1", "name": "x"}},
            400,
            "cannot bind token to object",
        ),
    ],
)
async def test_tokens_that_are_not_given(cluster: Cluster, signer: Signer, spec: dict, code: int, message: str):
    async with refused(code, message=message):
        await cluster.create("serviceaccounts/token", {"spec": spec}, "a")
    assert not signer.claims


# ---------------------------------------------------------------- apply


async def apply(cluster: Cluster, obj: dict, manager: str = "me", **more: object) -> dict:
    whole = {"apiVersion": "v1", "kind": "ConfigMap", **obj}
    return await cluster.patch("configmaps", "a", whole, APPLY, field_manager=manager, **more)


async def test_apply_creates_then_changes_what_it_owns(cluster: Cluster):
    created = await apply(cluster, config_map(data={"x": "1", "y": "1"}))
    assert created["data"] == {"x": "1", "y": "1"}
    changed = await apply(cluster, config_map(data={"x": "2"}))
    assert changed["data"] == {"x": "2"}
    again = await apply(cluster, config_map(data={"x": "2"}))
    assert again["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]


async def test_what_another_owns_is_a_conflict_unless_forced(cluster: Cluster):
    await apply(cluster, config_map(data={"x": "1"}))
    async with refused(409, "Conflict", 'conflict with "me": .data.x'):
        await apply(cluster, config_map(data={"x": "2"}), "you")
    assert (await apply(cluster, config_map(data={"x": "2"}), "you", force=True))["data"] == {"x": "2"}


async def test_concurrent_applies_of_one_name_create_it_once(cluster: Cluster):
    applies = (apply(cluster, config_map(data={f"k{n}": "v"}), f"m{n}") for n in range(8))
    await asyncio.gather(*applies)
    assert len(cluster.get("configmaps", "a")["data"]) == 8
