"""ResourceClaims: made for Pods, reserved, and let go when nobody needs them."""

from __future__ import annotations

from typing import Any

import pytest
from kubeobjects import NOW, answer, asked, deleting, obj, owned_by, pod, writes

from fastkube.clock import rfc3339
from fastkube.controllers import device_taint_eviction
from fastkube.controllers.actions import Create, Delete, Fail, Patch, Requeue, Tell, Update
from fastkube.controllers.resourceclaim import FINALIZER, POD_CLAIM_NAME, ClaimView, PodView, reconcile

Object = dict[str, Any]
ALLOCATED = {"allocation": {"devices": {}}}


def user(*, template: bool = True, **more: Any) -> Object:
    made = pod("p", **{"node": "", "phase": "Pending", **more})
    source = {"resourceClaimTemplateName": "t"} if template else {"resourceClaimName": "shared"}
    made["spec"]["resourceClaims"] = [{"name": "gpu", **source}]
    return made


def template() -> Object:
    spec = {"metadata": {"labels": {"l": "v"}, "annotations": {"a": "b"}}, "spec": {"devices": {"requests": []}}}
    return obj("ResourceClaimTemplate", "t", "resource.k8s.io/v1", spec=spec)


def claim(owner: Object | None = None, *, reserved: Any = (), finalizer: bool = True, **status: Any) -> Object:
    made = obj("ResourceClaim", "p-gpu-x", "resource.k8s.io/v1", spec={}, status=dict(status))
    if owner is not None:
        made["metadata"]["ownerReferences"] = owned_by(owner)
    if reserved:
        made["status"]["reservedFor"] = [
            {"resource": "pods", "name": each["metadata"]["name"], "uid": each["metadata"]["uid"]} for each in reserved
        ]
    if finalizer:
        made["metadata"]["finalizers"] = [FINALIZER]
    return made


def perform(actions: Any) -> list[Object]:
    written = []
    for action in actions:
        if isinstance(action, Update):
            written.append(action.obj)
            written += perform(action.then(action.obj)) if action.then else []
    return written


# ---------------------------------------------------------------- Pods


def test_a_claim_is_made_from_a_template_and_named_in_the_pod() -> None:
    owner = user()
    (create,) = reconcile(PodView(owner, {"gpu": None}, {"t": template()}))
    assert isinstance(create, Create)
    metadata = create.obj["metadata"]
    assert (metadata["generateName"], metadata["labels"]) == ("p-gpu-", {"l": "v"})
    assert metadata["annotations"] == {"a": "b", POD_CLAIM_NAME: "gpu"}
    assert metadata["ownerReferences"] == owned_by(owner)
    (patch,) = reconcile(PodView(owner, {"gpu": claim(owner)}, {"t": template()}))
    assert isinstance(patch, Patch)
    statuses = [{"name": "gpu", "resourceClaimName": "p-gpu-x"}]
    assert (patch.body["status"], patch.subresource) == ({"resourceClaimStatuses": statuses}, "status")
    owner["status"]["resourceClaimStatuses"] = statuses
    assert list(reconcile(PodView(owner, {"gpu": claim(owner)}, {"t": template()}))) == []


def test_a_template_that_is_missing_is_told() -> None:
    told, failed = reconcile(PodView(user(), {"gpu": None}, {"t": None}))
    assert isinstance(told, Tell) and isinstance(failed, Fail)
    assert told.reason == "FailedResourceClaimCreation"
    assert told.message.startswith('PodResourceClaim gpu: resource claim template "t": ')


def test_a_pod_that_was_bound_by_others_gets_its_reservation() -> None:
    bound = user(template=False, node="n1", phase="Running")
    for status, expected in ((ALLOCATED, 1), ({}, 0)):
        actions = reconcile(PodView(bound, {"gpu": claim(**status)}, {}))
        assert len(writes(actions, Update)) == expected
    (update,) = reconcile(PodView(bound, {"gpu": claim(**ALLOCATED)}, {}))
    assert isinstance(update, Update)
    assert update.obj["status"]["reservedFor"][0]["uid"] == bound["metadata"]["uid"]
    assert list(reconcile(PodView(bound, {"gpu": update.obj}, {}))) == []


# ---------------------------------------------------------------- claims


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        ({"node": "n1", "phase": "Running"}, True),
        ({}, True),
        ({"node": "n1", "phase": "Succeeded"}, False),
        ({"node": "n1", "phase": "Failed"}, False),
    ],
)
def test_a_reservation_lasts_as_long_as_its_pod(state: Object, kept: bool) -> None:
    holder = user(template=False, **state)
    written = perform(reconcile(ClaimView(claim(reserved=[holder], **ALLOCATED), {"p": holder})))
    if kept:
        assert written == []
    else:
        released, unguarded = written
        assert released["status"] == {}
        assert "finalizers" not in unguarded["metadata"]


def test_the_last_reservation_takes_the_allocation_with_it() -> None:
    done, busy = user(template=False, phase="Succeeded", node="n"), user(template=False, phase="Running", node="n")
    busy["metadata"]["name"] = "q"
    (released,) = perform(reconcile(ClaimView(claim(reserved=[done, busy], **ALLOCATED), {"p": done, "q": busy})))
    assert [entry["name"] for entry in released["status"]["reservedFor"]] == ["q"]
    assert "allocation" in released["status"]


def test_the_server_is_asked_before_a_reservation_of_an_unknown_pod_goes() -> None:
    holder = user(template=False)
    view = ClaimView(claim(reserved=[holder], **ALLOCATED), {"p": None})
    (path,) = asked(reconcile(view))
    assert list(reconcile(answer(view, {path: holder}))) == []
    assert perform(reconcile(answer(view, {path: None})))[0]["status"] == {}


def test_a_pod_that_is_deleted_before_it_had_a_node_holds_nothing() -> None:
    holder = deleting(user(template=False))
    assert len(perform(reconcile(ClaimView(claim(reserved=[holder], **ALLOCATED), {"p": holder})))) == 2


def test_a_claim_made_for_a_pod_goes_with_its_end() -> None:
    owner = user(phase="Succeeded", node="n1")
    (delete,) = reconcile(ClaimView(claim(owner, finalizer=False), {"p": owner}))
    assert isinstance(delete, Delete)
    assert list(reconcile(ClaimView(claim(user(), finalizer=False), {"p": user()}))) == []


def test_a_deleted_claim_is_deallocated_once_nobody_holds_it() -> None:
    released, unguarded = perform(reconcile(ClaimView(deleting(claim(**ALLOCATED)), {})))
    assert (released["status"], unguarded["metadata"].get("finalizers")) == ({}, None)
    assert perform(reconcile(ClaimView(claim(**ALLOCATED), {}))) == []


# ---------------------------------------------------------------- devices that must not be used


def held(*tolerations: Object, ago_s: float = 10) -> device_taint_eviction.Held:
    taint = {"key": "broken", "effect": "NoExecute", "timeAdded": rfc3339(NOW - ago_s)}
    return device_taint_eviction.Held([taint], list(tolerations))


@pytest.mark.parametrize(
    ("tolerations", "expected"),
    [
        ([], "evicted"),
        ([{"key": "other", "operator": "Exists"}], "evicted"),
        ([{"key": "broken", "operator": "Exists"}], "stays"),
        ([{"operator": "Exists", "tolerationSeconds": 5}], "evicted"),
        ([{"operator": "Exists", "tolerationSeconds": 30}], "later"),
        ([{"operator": "Exists", "effect": "NoSchedule"}], "evicted"),
    ],
)
def test_a_tainted_device_drives_its_pods_away(tolerations: list[Object], expected: str) -> None:
    view = device_taint_eviction.View([held(*tolerations)], [pod("a"), deleting(pod("b"))], NOW)
    actions = device_taint_eviction.reconcile(view)
    if expected == "evicted":
        told, patch, delete = actions
        assert isinstance(told, Tell) and told.reason == "DeviceTaintManagerEviction"
        assert isinstance(patch, Patch) and isinstance(delete, Delete)
        assert patch.body["status"]["conditions"][0]["reason"] == "DeletionByDeviceTaintManager"
    else:
        assert [action.after_s for action in actions if isinstance(action, Requeue)] == (
            [20] if expected == "later" else []
        )
