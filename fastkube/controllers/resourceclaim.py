"""ResourceClaims: made from the templates that Pods name, reserved for Pods which have a node, and let go afterwards.

The scheduler allocates claims and reserves them. What is left to do is here: claims for templates, reservations for
Pods that others bound, and, once nobody holds a claim any more, its deallocation (and the deletion of one made for a
Pod).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from fastkube.api.meta import controller_of, owner_reference
from fastkube.client import object_key
from fastkube.client.resource import object_path
from fastkube.controllers.actions import GONE, Action, Ask, Create, Delete, Fail, Patch, Tell, Update, status_update
from fastkube.controllers.caches import Caches
from fastkube.controllers.common import PODS, Object, controlled_by, is_finished, is_terminating
from fastkube.controllers.pod_topics import DEVICES, METADATA, PHASE, PLACED
from fastkube.controllers.runner import Context, Controller, Watch
from fastkube.errors import ApiError

CLAIMS = "resource.k8s.io/v1/resourceclaims"
TEMPLATES = "resource.k8s.io/v1/resourceclaimtemplates"

FINALIZER = "resource.kubernetes.io/delete-protection"
POD_CLAIM_NAME = "resource.kubernetes.io/pod-claim-name"
FIELD_MANAGER = "ResourceClaimController"
RESERVED_MAX = 256

_POD = "pod:"
_CLAIM = "claim:"


class PodView(NamedTuple):
    pod: Object
    claims: dict[str, Object | None]
    """By their names in the Pod: the claim that is there for each of them."""
    templates: dict[str, Object | None]


class ClaimView(NamedTuple):
    claim: Object
    pods: dict[str, Object | None]
    """Those for which the claim is reserved, and the one it was made for, by name."""
    live: dict[str, Any] = {}  # noqa: RUF012 - never changed, only replaced


def view(context: Context, key: str) -> PodView | ClaimView | None:
    caches = context.caches
    if key.startswith(_POD):
        pod = caches.by_key(PODS, key.removeprefix(_POD))
        if pod is None or is_terminating(pod) or not pod["spec"].get("resourceClaims"):
            return None
        return _view_pod(caches, pod)
    claim = caches.by_key(CLAIMS, key.removeprefix(_CLAIM))
    if claim is None:
        return None
    names = {found["name"] for found in _reserved(claim) if found.get("resource") == "pods"}
    if (owner := controller_of(claim)) is not None and owner["kind"] == "Pod":
        names.add(owner["name"])
    return ClaimView(claim, {name: caches.get(PODS, claim["metadata"]["namespace"], name) for name in names})


def _view_pod(caches: Caches, pod: Object) -> PodView:
    namespace, uid = pod["metadata"]["namespace"], pod["metadata"]["uid"]
    made = {
        (found["metadata"].get("annotations") or {}).get(POD_CLAIM_NAME): found
        for found in caches.index(CLAIMS, "controller", uid)
        if not is_terminating(found)
    }
    claims: dict[str, Object | None] = {}
    templates: dict[str, Object | None] = {}
    for wanted in pod["spec"]["resourceClaims"]:
        if named := wanted.get("resourceClaimName"):
            claims[wanted["name"]] = caches.get(CLAIMS, namespace, named)
        elif template := wanted.get("resourceClaimTemplateName"):
            claims[wanted["name"]] = made.get(wanted["name"])
            templates[template] = caches.get(TEMPLATES, namespace, template)
    return PodView(pod, claims, templates)


def reconcile(view: PodView | ClaimView) -> Sequence[Action]:
    return _sync_pod(view) if isinstance(view, PodView) else _sync_claim(view)


def _reserved(claim: Object) -> list[Object]:
    return (claim.get("status") or {}).get("reservedFor") or []


# ---------------------------------------------------------------- Pods


def _sync_pod(view: PodView) -> Sequence[Action]:
    pod = view.pod
    if is_finished(pod):
        return ()
    for wanted in pod["spec"]["resourceClaims"]:
        template = wanted.get("resourceClaimTemplateName")
        if template and view.claims[wanted["name"]] is None:
            found = view.templates[template]
            if found is None:
                missing = f'resourceclaimtemplate.resource.k8s.io "{template}" not found'
                why = f'resource claim template "{template}": {missing}'
                return [_failed(pod, wanted, why), Fail(why)]
            return [_create(pod, wanted, found)]  # its appearance brings the Pod back
    return [*_names(view), *_reservations(view)]


def _create(pod: Object, wanted: Object, template: Object) -> Create:
    given = template["spec"].get("metadata") or {}
    metadata: Object = {
        "generateName": f"{pod['metadata']['name']}-{wanted['name']}-",
        "namespace": pod["metadata"]["namespace"],
        "annotations": {**(given.get("annotations") or {}), POD_CLAIM_NAME: wanted["name"]},
        "ownerReferences": [owner_reference(pod)],
    }
    if given.get("labels"):
        metadata["labels"] = given["labels"]
    spec = template["spec"].get("spec") or {}
    made = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": metadata, "spec": spec}

    def failed(error: ApiError) -> Sequence[Action]:
        return [_failed(pod, wanted, error.message)]

    return Create(CLAIMS, made, otherwise=failed)


def _failed(pod: Object, wanted: Object, why: str) -> Tell:
    return Tell(pod, "Warning", "FailedResourceClaimCreation", f"PodResourceClaim {wanted['name']}: {why}")


def _names(view: PodView) -> list[Action]:
    """Tell in the Pod's status which claims were made for it."""
    pod = view.pod
    wanted: list[Object] = []
    for each in pod["spec"]["resourceClaims"]:
        claim = view.claims.get(each["name"])
        if each.get("resourceClaimTemplateName") and claim is not None:
            wanted.append({"name": each["name"], "resourceClaimName": claim["metadata"]["name"]})
    if not wanted or wanted == (pod.get("status") or {}).get("resourceClaimStatuses"):
        return []
    metadata = {key: pod["metadata"][key] for key in ("name", "namespace", "uid")}
    status = {"resourceClaimStatuses": wanted}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status}
    more: dict[str, Any] = {"kind": "apply", "subresource": "status", "field_manager": FIELD_MANAGER, "force": True}
    return [Patch(PODS, pod, body=body, ignore=GONE, **more)]


def _reservations(view: PodView) -> list[Action]:
    """For a Pod that has its node already: the scheduler, which reserves otherwise, had no part in it."""
    pod = view.pod
    if not pod["spec"].get("nodeName"):
        return []
    metadata = pod["metadata"]
    entry = {"resource": "pods", "name": metadata["name"], "uid": metadata["uid"]}
    actions: list[Action] = []
    for claim in view.claims.values():
        if claim is None or not (claim.get("status") or {}).get("allocation"):
            continue
        reserved = _reserved(claim)
        if len(reserved) >= RESERVED_MAX or any(found.get("uid") == metadata["uid"] for found in reserved):
            continue
        actions.append(status_update(CLAIMS, claim, {**claim["status"], "reservedFor": [*reserved, entry]}))
    return actions


# ---------------------------------------------------------------- claims


def _is_done(pod: Object) -> bool:
    """Whether a Pod will not use its claims any more: it has ended, or will never begin."""
    return is_finished(pod) or (is_terminating(pod) and not pod["spec"].get("nodeName"))


def _sync_claim(view: ClaimView) -> Sequence[Action]:
    claim = view.claim
    asks: list[Action] = []
    valid: list[Object] = []
    for entry in _reserved(claim):
        if entry.get("apiGroup") or entry.get("resource") != "pods":
            return [Fail(f"unsupported ReservedFor entry: {entry}")]
        pod = view.pods.get(entry["name"])
        if pod is None or pod["metadata"]["uid"] != entry["uid"]:
            # the copy of Pods may be behind that of claims: the server decides
            path = object_path(PODS, claim["metadata"]["namespace"], entry["name"])
            if path not in view.live:
                asks.append(Ask(path))
                continue
            pod = view.live[path]
        if pod is not None and pod["metadata"]["uid"] == entry["uid"] and not _is_done(pod):
            valid.append(entry)
    if asks:
        return asks
    actions = _release(claim, valid)
    if not valid and not is_terminating(claim):
        owner = controller_of(claim)
        pod = view.pods.get(owner["name"]) if owner is not None else None
        if owner is not None and pod is not None and pod["metadata"]["uid"] == owner["uid"] and _is_done(pod):
            actions.append(Delete(CLAIMS, claim, ignore=GONE))
    return actions


def _release(claim: Object, valid: list[Object]) -> list[Action]:
    """Reservations that ended go; with the last of them the allocation, and then the finalizer that guards it."""
    status = claim.get("status") or {}
    guarded = FINALIZER in (claim["metadata"].get("finalizers") or ())
    free = guarded and not valid and (len(_reserved(claim)) > 0 or is_terminating(claim))
    new = {key: value for key, value in status.items() if key != "reservedFor"}
    if valid:
        new["reservedFor"] = valid
    if free:
        new.pop("allocation", None)
    if new != status:
        then = _unguard if free else lambda _answer: ()
        return [status_update(CLAIMS, claim, new, ignore=GONE, then=then)]
    return list(_unguard(claim)) if free else []


def _unguard(claim: Object) -> Sequence[Action]:
    finalizers = [name for name in claim["metadata"].get("finalizers") or () if name != FINALIZER]
    metadata = {key: value for key, value in claim["metadata"].items() if key != "finalizers"}
    if finalizers:
        metadata["finalizers"] = finalizers
    return [Update(CLAIMS, {**claim, "metadata": metadata}, ignore=GONE)]


# ---------------------------------------------------------------- wiring


def _keys_of_pod(caches: Caches, pod: Object) -> Iterable[str]:
    """The Pod itself, and the claims which it holds once it is done with them."""
    wanted = pod["spec"].get("resourceClaims")
    if not wanted:
        return ()
    namespace = pod["metadata"]["namespace"]
    names = {each["resourceClaimName"] for each in wanted if each.get("resourceClaimName")}
    made = (pod.get("status") or {}).get("resourceClaimStatuses") or ()
    names |= {each["resourceClaimName"] for each in made if each.get("resourceClaimName")}
    return [f"{_POD}{object_key(pod)}", *(f"{_CLAIM}{namespace}/{name}" for name in names)]


def _keys_of_claim(caches: Caches, claim: Object) -> Iterable[str]:
    pods = [f"{_POD}{key}" for key in _pod_of_claim(caches, claim)]
    return [f"{_CLAIM}{object_key(claim)}", *pods]


_pod_of_claim = controlled_by("Pod")


def _pods_of_template(caches: Caches, template: Object) -> Iterable[str]:
    name = template["metadata"]["name"]
    pods = caches.index(PODS, "namespace", template["metadata"]["namespace"])
    return [
        f"{_POD}{object_key(pod)}"
        for pod in pods
        if any(each.get("resourceClaimTemplateName") == name for each in pod["spec"].get("resourceClaims") or ())
    ]


def _pod_matters(old: Object, new: Object) -> bool:
    return (old["spec"].get("nodeName"), _is_done(old)) != (new["spec"].get("nodeName"), _is_done(new))


CONTROLLER = Controller(
    name="resourceclaim-controller",
    component="resource_claim",
    watches=(
        Watch(PODS, _keys_of_pod, ("namespace",), changed=_pod_matters, about=(DEVICES, PLACED | PHASE | METADATA)),
        Watch(CLAIMS, _keys_of_claim, ("controller",)),
        Watch(TEMPLATES, _pods_of_template),
    ),
    view=view,
    reconcile=reconcile,
    workers="concurrent_resourceclaim_syncs",
)
