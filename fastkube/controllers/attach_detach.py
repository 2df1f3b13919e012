"""Attach and detach: a VolumeAttachment for each CSI volume that Pods on a node use, as long as they do.

The driver's attacher answers in the status of the attachment; what is attached is told in the status of the node. A
volume that only one node may use is not attached to a second one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fastkube.controllers.actions import EXISTS, GONE, Action, Create, Delete, Patch, Requeue, Tell
from fastkube.controllers.caches import Caches, by_claim
from fastkube.controllers.common import PODS, Object, Objects, is_finished, is_terminating, seconds
from fastkube.controllers.pod_topics import CLAIMING, PHASE, PLACED
from fastkube.controllers.runner import Context, Controller, Watch, nothing
from fastkube.controllers.statefulset import CLAIMS
from fastkube.controllers.volumes import VOLUMES

NODES = "v1/nodes"
ATTACHMENTS = "storage.k8s.io/v1/volumeattachments"
DRIVERS = "storage.k8s.io/v1/csidrivers"

UNMOUNT_MAX_S = 360.0
"""How long a volume which a node says it still uses is waited for, once the node is no longer healthy."""
_SHARED = frozenset({"ReadWriteMany", "ReadOnlyMany"})


class Use(NamedTuple):
    """A volume that a Pod on the node needs."""

    volume: Object
    pod: Object


class View(NamedTuple):
    node: Object
    uses: list[Use]
    attached: Objects
    """The attachments to this node."""
    elsewhere: dict[str, str]
    """Volumes that are attached to another node: {name: node}."""
    now: float


def view(context: Context, key: str) -> View | None:
    caches = context.caches
    node = caches.by_key(NODES, key)
    if node is None:
        return None
    uses = [
        Use(volume, pod)
        for pod in caches.index(PODS, "node", key)
        if not is_finished(pod)
        for volume in _volumes_of(caches, pod)
        if _is_attachable(caches, volume)
    ]
    attached = caches.index(ATTACHMENTS, "attached-node", key)
    elsewhere = {}
    for use in uses:
        for other in caches.index(ATTACHMENTS, "attached-volume", use.volume["metadata"]["name"]):
            if other["spec"]["nodeName"] != key:
                elsewhere[use.volume["metadata"]["name"]] = other["spec"]["nodeName"]
    return View(node, uses, attached, elsewhere, context.now)


def _volumes_of(caches: Caches, pod: Object) -> list[Object]:
    """The bound volumes behind the claims of a Pod."""
    found = []
    for key in by_claim(pod):
        claim = caches.by_key(CLAIMS, key)
        name = claim["spec"].get("volumeName") if claim is not None else None
        volume = caches.get(VOLUMES, "", name) if name else None
        if claim is not None and volume is not None and _is_bound(volume, claim):
            found.append(volume)
    return found


def _is_bound(volume: Object, claim: Object) -> bool:
    return bool((volume["spec"].get("claimRef") or {}).get("uid") == claim["metadata"]["uid"])


def _is_attachable(caches: Caches, volume: Object) -> bool:
    """A CSI volume whose driver does not say that it need not be attached."""
    driver = (volume["spec"].get("csi") or {}).get("driver")
    if not driver:
        return False
    known = caches.get(DRIVERS, "", driver)
    return known is None or known["spec"].get("attachRequired") is not False


def attachment_name(volume: Object, node: str) -> str:
    csi = volume["spec"]["csi"]
    told = f"{csi['volumeHandle']}{csi['driver']}{node}"
    return f"csi-{hashlib.sha256(told.encode()).hexdigest()}"


def device_name(volume: Object) -> str:
    """How the volume is named in the status of nodes."""
    csi = volume["spec"]["csi"]
    return f"kubernetes.io/csi/{csi['driver']}^{csi['volumeHandle']}"


def reconcile(view: View) -> Sequence[Action]:
    node = view.node["metadata"]["name"]
    present = {found["metadata"]["name"]: found for found in view.attached}
    wanted = {attachment_name(use.volume, node): use for use in reversed(view.uses)}
    actions: list[Action] = []
    for name, use in wanted.items():
        if name in present or is_terminating(use.pod):
            continue
        other = view.elsewhere.get(use.volume["metadata"]["name"])
        if other is not None and not _SHARED.intersection(use.volume["spec"].get("accessModes") or ()):
            actions += [_in_use(use), Requeue(_LOOK_AGAIN_S)]
        else:
            actions.append(_attach(use, name, node))
    for name, found in present.items():
        if name not in wanted and not is_terminating(found):
            actions += _detach(view, found)
    return [*actions, *_report(view, wanted, present)]


_LOOK_AGAIN_S = 2.0


def _attach(use: Use, name: str, node: str) -> Create:
    source = {"persistentVolumeName": use.volume["metadata"]["name"]}
    spec = {"attacher": use.volume["spec"]["csi"]["driver"], "nodeName": node, "source": source}
    made = {"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": name}, "spec": spec}
    return Create(ATTACHMENTS, made, ignore=EXISTS)


def _in_use(use: Use) -> Tell:
    message = (
        f'Multi-Attach error for volume "{use.volume["metadata"]["name"]}" '
        "Volume is already exclusively attached to one node and can't be attached to another"
    )
    return Tell(use.pod, "Warning", "FailedAttachVolume", message)


def _detach(view: View, found: Object) -> list[Action]:
    """Not while the node says that it still uses the volume, unless it has been out of order for long."""
    spec = found["spec"]
    used = (view.node.get("status") or {}).get("volumesInUse") or ()
    suffix = str(spec["source"].get("persistentVolumeName"))
    in_use = any(name.startswith(f"kubernetes.io/csi/{spec['attacher']}^") and name.endswith(suffix) for name in used)
    if in_use:
        left = _unmount_left(view)
        if left > 0:
            return [Requeue(min(left, _LOOK_AGAIN_S * 5))]
    return [Delete(ATTACHMENTS, found, ignore=GONE)]


def _unmount_left(view: View) -> float:
    """Seconds until a node's word is no longer waited for; for ever, as long as it is ready."""
    for found in (view.node.get("status") or {}).get("conditions") or ():
        if found["type"] == "Ready" and found["status"] != "True" and found.get("lastTransitionTime"):
            return seconds(found["lastTransitionTime"]) + UNMOUNT_MAX_S - view.now
    return UNMOUNT_MAX_S


def _report(view: View, wanted: dict[str, Use], present: dict[str, Object]) -> list[Action]:
    """What is attached, in the status of the node, and an event for each Pod whose volume has become so."""
    done = {
        name: use
        for name, use in wanted.items()
        if name in present and (present[name].get("status") or {}).get("attached")
    }
    volumes = [
        {"name": device_name(use.volume), "devicePath": ""}
        for use in sorted(done.values(), key=lambda use: device_name(use.volume))
    ]
    before = (view.node.get("status") or {}).get("volumesAttached") or []
    if volumes == sorted(before, key=lambda each: str(each["name"])):
        return []
    known = {each["name"] for each in before}
    told: list[Action] = [
        Tell(
            use.pod,
            "Normal",
            "SuccessfulAttachVolume",
            f'AttachVolume.Attach succeeded for volume "{use.volume["metadata"]["name"]}" ',
        )
        for use in done.values()
        if device_name(use.volume) not in known
    ]
    body = {"status": {"volumesAttached": volumes or None}}
    return [Patch(NODES, view.node, body=body, subresource="status", ignore=GONE), *told]


def _node_of_pod(_caches: Caches, pod: Object) -> Iterable[str]:
    node = pod["spec"].get("nodeName")
    return (node,) if node and by_claim(pod) else ()


def _nodes_of_claim(caches: Caches, claim: Object) -> Iterable[str]:
    key = f"{claim['metadata']['namespace']}/{claim['metadata']['name']}"
    return [pod["spec"]["nodeName"] for pod in caches.index(PODS, "claim", key) if pod["spec"].get("nodeName")]


def _node_of_attachment(_caches: Caches, found: Object) -> Iterable[str]:
    return (found["spec"]["nodeName"],)


def _pod_matters(old: Object, new: Object) -> bool:
    return (old["spec"].get("nodeName"), is_finished(old)) != (new["spec"].get("nodeName"), is_finished(new))


def _in_use_changed(old: Object, new: Object) -> bool:
    return (old.get("status") or {}).get("volumesInUse") != (new.get("status") or {}).get("volumesInUse")


CONTROLLER = Controller(
    name="persistentvolume-attach-detach-controller",
    component="attachdetach-controller",
    watches=(
        Watch(NODES, changed=_in_use_changed, additions=False),
        Watch(PODS, _node_of_pod, ("node", "claim"), changed=_pod_matters, about=(CLAIMING, PLACED | PHASE)),
        Watch(CLAIMS, _nodes_of_claim),
        Watch(VOLUMES, nothing),
        Watch(ATTACHMENTS, _node_of_attachment, ("attached-node", "attached-volume")),
        Watch(DRIVERS, nothing),
    ),
    view=view,
    reconcile=reconcile,
)
