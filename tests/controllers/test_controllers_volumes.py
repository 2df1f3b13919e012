"""PersistentVolumes and claims: which find each other, step by step, and what becomes of a volume afterwards."""

from __future__ import annotations

from typing import Any

import pytest
from kubeobjects import NOW, answer, asked, deleting, flat, obj, pod, status_of, writes

from fastkube.clock import rfc3339
from fastkube.controllers import attach_detach, simulated_storage, volume_binder, volume_expander
from fastkube.controllers.actions import Create, Delete, Patch, Requeue, Tell, Update
from fastkube.controllers.volumes import BIND_COMPLETED, BOUND_BY_CONTROLLER, PROVISIONED_BY, PROVISIONER, SELECTED_NODE

Object = dict[str, Any]


def volume(name: str = "v", size: str = "2Gi", phase: str = "Available", **more: Any) -> Object:
    metadata = {key: more.pop(key) for key in list(more) if key.startswith("m_")}
    spec = {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], **more}
    return obj("PersistentVolume", name, namespace="", spec=spec, status={"phase": phase}, **metadata)


def claim(size: str = "1Gi", status: Object | None = None, marks: Any = (), **spec: Any) -> Object:
    whole = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    made = obj("PersistentVolumeClaim", "data", spec=whole, m_annotations=dict(marks))
    return {**made, "status": {"phase": "Pending"} if status is None else status}


def storage_class(name: str, binding: str = "Immediate", *, default: bool = False, **more: Any) -> Object:
    marks = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    fields = {"provisioner": "x.example.com", "volumeBindingMode": binding, **more}
    return obj("StorageClass", name, "storage.k8s.io/v1", namespace="", m_annotations=marks, **fields)


def ref_to(made: Object, *, uid: bool = True) -> Object:
    keys = ("namespace", "name", "uid") if uid else ("namespace", "name")
    return {key: made["metadata"][key] for key in keys}


def sync(made: Object, volumes: Any = (), classes: Any = (), pods: Any = ()) -> list[Any]:
    return flat(volume_binder.reconcile(volume_binder.ClaimView(made, list(volumes), list(classes), list(pods))))


def told(actions: Any) -> list[str]:
    return [action.reason for action in actions if isinstance(action, Tell)]


def perform(actions: Any) -> list[Object]:
    """What is written in turn, each answer leading to the next."""
    written = []
    for action in actions:
        if isinstance(action, Update):
            written.append(action.obj)
            if action.then is not None:
                written += perform(action.then(action.obj))
    return written


# ---------------------------------------------------------------- which volume


@pytest.mark.parametrize(
    ("wanted", "volumes", "chosen"),
    [
        (claim(storageClassName=""), [volume("big", "9Gi"), volume("small", "2Gi"), volume("tiny", "1Mi")], "small"),
        (claim(storageClassName=""), [volume("used", phase="Bound")], None),
        (claim(storageClassName="fast"), [volume("other"), volume("right", storageClassName="fast")], "right"),
        (claim(storageClassName="", volumeMode="Block"), [volume("files"), volume("raw", volumeMode="Block")], "raw"),
        (claim(storageClassName="", accessModes=["ReadWriteMany"]), [volume("once")], None),
        (
            claim(storageClassName="", selector={"matchLabels": {"tier": "gold"}}),
            [volume("plain"), volume("gold", m_labels={"tier": "gold"})],
            "gold",
        ),
        (claim(storageClassName=""), [deleting(volume("going"))], None),
        (claim(storageClassName=""), [volume("a", claimRef={"namespace": "default", "name": "other"})], None),
        (
            claim(storageClassName=""),
            [volume("fits"), volume("meant", "9Gi", claimRef={"namespace": "default", "name": "data"})],
            "meant",
        ),
    ],
)
def test_the_smallest_volume_that_fits_is_chosen(wanted: Object, volumes: list[Object], chosen: str | None) -> None:
    written = perform(sync(wanted, volumes))
    assert (written[0]["metadata"]["name"] if written else None) == chosen


def test_a_binding_is_four_writes_in_their_order() -> None:
    wanted = claim(storageClassName="")
    pointing, bound, named, done = perform(sync(wanted, [volume()]))
    assert pointing["spec"]["claimRef"]["uid"] == wanted["metadata"]["uid"]
    assert pointing["metadata"]["annotations"] == {BOUND_BY_CONTROLLER: "yes"}
    assert bound["status"] == {"phase": "Bound"}
    assert named["spec"]["volumeName"] == "v"
    assert named["metadata"]["annotations"] == {BOUND_BY_CONTROLLER: "yes", BIND_COMPLETED: "yes"}
    assert done["status"] == {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"}}
    assert sync(done, [bound]) == []


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_binding_that_was_cut_short_is_gone_on_with(done: int) -> None:
    steps = perform(sync(claim(storageClassName=""), [volume()]))
    present_volume = steps[min(done, 2) - 1]
    present_claim = steps[2] if done == 3 else claim(storageClassName="")
    present_claim["metadata"]["uid"] = steps[0]["spec"]["claimRef"]["uid"]
    left = perform(sync(present_claim, [present_volume]))
    assert [each["kind"] for each in left] == [each["kind"] for each in steps[done:]]


# ---------------------------------------------------------------- claims that wait


def test_a_claim_without_class_gets_the_newest_default() -> None:
    old, new = storage_class("old", default=True), storage_class("new", default=True)
    old["metadata"]["creationTimestamp"] = rfc3339(NOW - 1e6)
    (update,) = sync(claim(), [], [old, new, storage_class("other")])
    assert update.obj["spec"]["storageClassName"] == "new"


def test_without_volume_and_class_a_claim_waits() -> None:
    assert told(sync(claim(status={}))) == ["FailedBinding"]
    assert status_of(sync(claim(status={}))) == {"phase": "Pending"}


@pytest.mark.parametrize(
    ("pods", "marks", "reason"),
    [
        ([], {}, "WaitForFirstConsumer"),
        (["p"], {}, "WaitForPodScheduled"),
        (["p"], {SELECTED_NODE: "n1", PROVISIONER: "x.example.com"}, "ExternalProvisioning"),
    ],
)
def test_delayed_binding_waits_for_a_node(pods: list[str], marks: Object, reason: str) -> None:
    late = storage_class("late", "WaitForFirstConsumer")
    there = volume(storageClassName="late") if not marks else volume(phase="Bound")
    assert told(sync(claim(storageClassName="late", marks=marks), [there], [late], pods)) == [reason]


def test_a_provisioner_is_asked_by_an_annotation() -> None:
    (update,) = sync(claim(storageClassName="fast"), [], [storage_class("fast")])
    assert update.obj["metadata"]["annotations"][PROVISIONER] == "x.example.com"
    assert told(update.then(update.obj)) == ["ExternalProvisioning"]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], 'storageclass.storage.k8s.io "fast" not found'),
        (
            [storage_class("fast", provisioner="kubernetes.io/no-provisioner")],
            "no volume plugin matched name: kubernetes.io/no-provisioner",
        ),
    ],
)
def test_what_cannot_be_provisioned_is_told(classes: list[Object], message: str) -> None:
    (event,) = sync(claim(storageClassName="fast"), [], classes)
    assert (event.reason, event.message) == ("ProvisioningFailed", message)


# ---------------------------------------------------------------- claims that name a volume


def test_a_named_volume_is_bound_if_it_fits() -> None:
    wanted = claim(storageClassName="", volumeName="v")
    _, _, named, _ = perform(sync(wanted, [volume()]))
    assert BOUND_BY_CONTROLLER not in named["metadata"]["annotations"]
    assert told(sync(claim("9Gi", storageClassName="", volumeName="v"), [volume()])) == ["VolumeMismatch"]
    assert sync(wanted, []) == []


def test_a_named_volume_of_another_claim_is_not_taken() -> None:
    other = volume(claimRef={"namespace": "default", "name": "other", "uid": "u"})
    assert told(sync(claim(volumeName="v"), [other])) == ["FailedBinding"]


@pytest.mark.parametrize(
    ("named", "volumes", "reason"),
    [
        ("", [], "ClaimLost"),
        ("v", [], "ClaimLost"),
        ("v", [volume(claimRef={"namespace": "default", "name": "data", "uid": "another"})], "ClaimMisbound"),
    ],
)
def test_a_bound_claim_can_lose_its_volume(named: str, volumes: list[Object], reason: str) -> None:
    bound = claim(status={"phase": "Bound"}, marks={BIND_COMPLETED: "yes"}, volumeName=named)
    actions = sync(bound, volumes)
    assert (told(actions), status_of(actions)) == ([reason], {"phase": "Lost"})


# ---------------------------------------------------------------- volumes


def look(made: Object, its_claim: Object | None = None) -> volume_binder.VolumeView:
    return volume_binder.VolumeView(made, its_claim)


def test_a_volume_without_claim_is_available() -> None:
    assert status_of(volume_binder.reconcile(look(volume(phase="")))) == {"phase": "Available"}
    waiting = volume(phase="", claimRef={"namespace": "default", "name": "data"})
    assert status_of(volume_binder.reconcile(look(waiting))) == {"phase": "Available"}


@pytest.mark.parametrize(
    ("policy", "phase", "more", "expected"),
    [
        ("Retain", "Bound", {}, {"phase": "Released"}),
        ("Retain", "Released", {}, None),
        ("Delete", "Released", {"csi": {"driver": "d", "volumeHandle": "h"}}, None),
        ("Delete", "Released", {}, "Failed"),
        ("Recycle", "Released", {}, "Failed"),
        ("Recycle", "Failed", {}, None),
    ],
)
def test_a_volume_whose_claim_is_gone(policy: str, phase: str, more: Object, expected: Any) -> None:
    gone = claim()
    made = volume(phase=phase, claimRef=ref_to(gone), persistentVolumeReclaimPolicy=policy, **more)
    (path,) = asked(volume_binder.reconcile(look(made)))
    actions = volume_binder.reconcile(answer(look(made), {path: None}))
    status = status_of(actions)
    assert (status or {}).get("phase") == (expected if isinstance(expected, str) else (expected or {}).get("phase"))
    assert bool(told(actions)) == (expected == "Failed")


def test_the_server_knows_of_claims_that_the_copy_has_not_seen() -> None:
    young = claim(volumeName="v")
    made = volume(phase="Bound", claimRef=ref_to(young))
    (path,) = asked(volume_binder.reconcile(look(made)))
    assert list(volume_binder.reconcile(answer(look(made), {path: young}))) == []


@pytest.mark.parametrize(
    ("marks", "policy", "expected"),
    [
        ({PROVISIONED_BY: "d"}, "Delete", "released"),
        ({BOUND_BY_CONTROLLER: "yes"}, "Retain", "free"),
        ({}, "Retain", "waiting"),
    ],
)
def test_a_volume_whose_claim_has_another_one(marks: Object, policy: str, expected: str) -> None:
    owner = claim(volumeName="another")
    made = volume(phase="Bound", claimRef=ref_to(owner), persistentVolumeReclaimPolicy=policy, m_annotations=marks)
    (update,) = volume_binder.reconcile(look(made, owner))
    assert isinstance(update, Update)
    if expected == "released":
        assert update.obj["status"] == {"phase": "Released"}
    else:
        assert update.obj["spec"].get("claimRef") == (None if expected == "free" else ref_to(owner, uid=False))


def test_expansion_is_left_to_others_and_told() -> None:
    grown = claim("3Gi", status={"phase": "Bound", "capacity": {"storage": "1Gi"}})
    (event,) = volume_expander.reconcile(volume_expander.View(grown))
    assert isinstance(event, Tell) and event.reason == "ExternalExpanding"
    assert volume_expander.reconcile(volume_expander.View(claim(status={"phase": "Bound"}))) == ()


# ---------------------------------------------------------------- the simulated provisioner


def test_the_simulated_class_is_the_default_unless_there_is_one() -> None:
    for present, expected in (([], True), ([storage_class("mine", default=True)], False)):
        _, create = writes(simulated_storage.reconcile(simulated_storage.SetupView(present, [])), Create)
        assert bool(create.obj["metadata"].get("annotations")) is expected


def test_a_volume_is_made_for_a_claim_and_grows_and_goes_with_it() -> None:
    wanted = claim(storageClassName="simulated", marks={PROVISIONER: simulated_storage.DRIVER})
    view = simulated_storage.ClaimView(wanted, storage_class("simulated"), None)
    (create,) = writes(simulated_storage.reconcile(view), Create)
    assert create.obj["spec"]["claimRef"]["uid"] == wanted["metadata"]["uid"]
    assert create.obj["spec"]["capacity"] == {"storage": "1Gi"}
    larger = {**wanted, "spec": {**wanted["spec"], "resources": {"requests": {"storage": "5Gi"}}}}
    larger["status"] = {"phase": "Bound", "capacity": {"storage": "1Gi"}}
    made = {**create.obj, "status": {"phase": "Bound"}}
    grown, status = writes(simulated_storage.reconcile(view._replace(claim=larger, volume=made)))
    assert grown.obj["spec"]["capacity"] == status.obj["status"]["capacity"] == {"storage": "5Gi"}
    released = {**made, "status": {"phase": "Released"}}
    (delete,) = simulated_storage.reconcile(simulated_storage.VolumeView(released))
    assert isinstance(delete, Delete)


# ---------------------------------------------------------------- attaching

CSI = {"driver": "d.example.com", "volumeHandle": "h"}
DEVICE = "kubernetes.io/csi/d.example.com^h"


def node(**status: Any) -> Object:
    return obj("Node", "n1", namespace="", spec={}, status=status)


def attachment(*, done: bool = False) -> Object:
    name = attach_detach.attachment_name(volume(csi=CSI), "n1")
    spec = {"attacher": "d.example.com", "nodeName": "n1", "source": {"persistentVolumeName": "h"}}
    return obj("VolumeAttachment", name, "storage.k8s.io/v1", namespace="", spec=spec, status={"attached": done})


def attaching(uses: Any, attached: Any = (), elsewhere: Any = (), **status: Any) -> list[Any]:
    view = attach_detach.View(node(**status), list(uses), list(attached), dict(elsewhere), NOW)
    return list(attach_detach.reconcile(view))


def test_a_volume_in_use_is_attached_once() -> None:
    uses = [attach_detach.Use(volume(csi=CSI), pod("a")), attach_detach.Use(volume(csi=CSI), pod("b"))]
    (create,) = attaching(uses)
    assert create.obj["spec"] == {
        "attacher": "d.example.com",
        "nodeName": "n1",
        "source": {"persistentVolumeName": "v"},
    }
    assert attaching(uses, [attachment()]) == []
    patch, event = attaching(uses, [attachment(done=True)])
    assert patch.body["status"]["volumesAttached"] == [{"name": DEVICE, "devicePath": ""}]
    assert event.reason == "SuccessfulAttachVolume"


@pytest.mark.parametrize(("modes", "reason"), [(["ReadWriteOnce"], "FailedAttachVolume"), (["ReadWriteMany"], None)])
def test_a_volume_for_one_node_is_not_attached_to_a_second(modes: list[str], reason: str | None) -> None:
    uses = [attach_detach.Use(volume(csi=CSI, accessModes=modes), pod("a"))]
    actions = attaching(uses, elsewhere={"v": "n2"})
    assert told(actions) == ([reason] if reason else [])
    assert bool(writes(actions, Create)) is (reason is None)


def test_a_volume_is_detached_once_its_node_has_let_it_go() -> None:
    (delete,) = attaching([], [attachment(done=True)])
    assert isinstance(delete, Delete)
    (later,) = attaching([], [attachment(done=True)], volumesInUse=[DEVICE])
    assert isinstance(later, Requeue)
    ready = {"type": "Ready", "status": "Unknown", "lastTransitionTime": rfc3339(NOW - 400)}
    (delete,) = attaching([], [attachment(done=True)], volumesInUse=[DEVICE], conditions=[ready])
    assert isinstance(delete, Delete)
    assert [patch.body for patch in writes([*attaching([], [], volumesAttached=[{"name": DEVICE}])], Patch)] == [
        {"status": {"volumesAttached": None}}
    ]
