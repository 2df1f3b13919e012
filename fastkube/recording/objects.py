"""What of an object goes into a file, in which order objects are made, and how they are told apart. Pure functions.

An object in a file is as the server gave it but for what only that server could know; its uid stays, as the name by
which others of the file refer to it. A change is a `ResourcePatch` (action.kwok.x-k8s.io/v1alpha1, the form of
kwokctl's recordings): `method` create, patch or delete, `target`, and `durationNanosecond` since the recording began.
Its `template` is a JSON merge patch; one of kwokctl's with directives (`$setElementOrder/...`) is a strategic one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from fastkube.client import Resource

Object = dict[str, Any]

PATCH_API_VERSION = "action.kwok.x-k8s.io/v1alpha1"
PATCH_KIND = "ResourcePatch"

_OF_THE_SERVER = ("managedFields", "resourceVersion", "generation", "selfLink")
_SET_ON_CREATE = (*_OF_THE_SERVER, "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")

EPHEMERAL = frozenset(
    {
        ("", "events"),
        ("events.k8s.io", "events"),
        ("coordination.k8s.io", "leases"),  # heartbeats and elections of what runs there
        ("coordination.k8s.io", "leasecandidates"),
        ("certificates.k8s.io", "certificatesigningrequests"),  # of that cluster's authority
        ("networking.k8s.io", "ipaddresses"),  # made by the server for each Service
        ("apiserver.internal.k8s.io", "storageversions"),
    }
)
"""(group, plural) of what is left out unless it is asked for by name."""

_ORDER = (
    ("CustomResourceDefinition",),
    ("Namespace",),
    ("PriorityClass", "RuntimeClass", "StorageClass", "VolumeAttributesClass", "IngressClass", "DeviceClass"),
    ("ServiceAccount", "Secret", "ConfigMap", "ClusterRole", "Role", "Node", "CSINode", "CSIDriver"),
    ("ClusterRoleBinding", "RoleBinding", "PersistentVolume", "PersistentVolumeClaim", "Service", "ServiceCIDR"),
    (),  # all that stands in no line
    ("Job", "ControllerRevision"),
    ("Pod",),
    # controllers adopt what is there already and fits: made before its Pods, each of these would make its own
    ("ReplicaSet", "ReplicationController", "StatefulSet", "DaemonSet"),
    ("Deployment", "CronJob"),
    ("HorizontalPodAutoscaler", "ResourceQuota", "LimitRange"),
    (
        "APIService",
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ),
)  # fmt: skip
_RANK = {kind: rank for rank, kinds in enumerate(_ORDER) for kind in kinds}
_OTHERS = next(rank for rank, kinds in enumerate(_ORDER) if not kinds)


def rank(kind: str) -> int:
    """Objects of a lower rank are made before those of a higher one."""
    return _RANK.get(kind, _OTHERS)


class Key(NamedTuple):
    """An object among all of a cluster; `group` alone, since versions are forms of the same object."""

    group: str
    kind: str
    namespace: str
    name: str


def key_of(obj: Object) -> Key:
    metadata = obj["metadata"]
    group = obj["apiVersion"].rpartition("/")[0]
    return Key(group, obj["kind"], metadata.get("namespace") or "", metadata.get("name") or "")


def left_out(obj: Object, *, secrets: bool) -> str:
    """Why an object does not go into a file; "" when it does."""
    metadata, kind = obj["metadata"], obj["kind"]
    name, namespace = metadata["name"], metadata.get("namespace") or ""
    if kind == "Secret" and obj.get("type") == "kubernetes.io/service-account-token":
        return "tokens of that cluster's own key"
    if kind == "Secret" and not secrets:
        return "secrets (--secrets takes them along)"
    if kind == "ConfigMap" and name == "kube-root-ca.crt":
        return "that cluster's own certificates"
    if kind == "ConfigMap" and (namespace, name) == ("kube-system", "extension-apiserver-authentication"):
        return "that cluster's own certificates"
    if kind in ("Service", "Endpoints", "EndpointSlice") and (namespace, name) == ("default", "kubernetes"):
        return "the address of that cluster"
    if kind == "ServiceCIDR" and name == "kubernetes":
        return "the address of that cluster"
    if kind == "APIService" and "kube-aggregator.kubernetes.io/automanaged" in (metadata.get("labels") or {}):
        return "what every server makes by itself"
    return ""


def cleaned(obj: Object) -> Object:
    """The object for a file."""
    metadata = {name: value for name, value in obj["metadata"].items() if name not in _OF_THE_SERVER}
    return {**obj, "metadata": metadata}


def without_nulls(value: Any) -> Any:
    """For a recording: a merge patch could not say them."""
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [without_nulls(each) for each in value]
    return value


def for_create(obj: Object) -> tuple[Object, Object]:
    """The body of a create, and the status apart; a Node, whose status may be given on creation, has it in both."""
    metadata = {name: value for name, value in obj["metadata"].items() if name not in _SET_ON_CREATE}
    body = {**obj, "metadata": metadata}
    status = body.get("status") or {}
    if obj["kind"] != "Node":
        body.pop("status", None)
    if obj["kind"] == "PersistentVolume" and (claim := (body.get("spec") or {}).get("claimRef")):
        # the claim is made later, under a new uid: one without means whichever comes by that name
        reference = {name: value for name, value in claim.items() if name not in ("uid", "resourceVersion")}
        body["spec"] = {**body["spec"], "claimRef": reference}
    return body, {} if obj["kind"] in ("CustomResourceDefinition", "APIService", "Namespace") else status


_JOB_LABELS = ("controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name")


def held_job(job: Object) -> Object:
    """A Job of a file as it is made: suspended until its Pods are there, its selector left to the server, which puts
    the new uid in it."""
    spec = {**job["spec"], "suspend": True}
    if not spec.get("manualSelector"):
        spec.pop("selector", None)
        template = spec.get("template") or {}
        metadata = template.get("metadata") or {}
        labels = {name: value for name, value in (metadata.get("labels") or {}).items() if name not in _JOB_LABELS}
        spec["template"] = {**template, "metadata": {**metadata, "labels": labels}}
    return {**job, "spec": spec}


def renamed(value: Any, uids: Mapping[str, str]) -> Any:
    """The value with each old uid, wherever it stands, replaced by the new one: in references, labels, annotations."""
    if isinstance(value, str):
        return uids.get(value, value)
    if isinstance(value, dict):
        return {name: renamed(each, uids) for name, each in value.items()}
    if isinstance(value, list):
        return [renamed(each, uids) for each in value]
    return value


def diff(old: Object, new: Object) -> Object:
    """The JSON merge patch from one object (without nulls) to another."""
    patch: Object = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            if part := diff(before, value):
                patch[name] = part
        elif name not in old or value != before:
            patch[name] = value
    return patch


def has_directives(patch: Any) -> bool:
    """Whether it is a strategic patch."""
    if isinstance(patch, dict):
        return any(name.startswith("$") or has_directives(value) for name, value in patch.items())
    return isinstance(patch, list) and any(map(has_directives, patch))


class Change(NamedTuple):
    """A ResourcePatch; `at_s` seconds after the recording began."""

    at_s: float
    resource: Resource
    namespace: str
    name: str
    method: str
    template: Object

    def to_object(self) -> Object:
        target = {"name": self.name, "namespace": self.namespace} if self.namespace else {"name": self.name}
        group = {"group": self.resource.group} if self.resource.group else {}
        obj = {
            "apiVersion": PATCH_API_VERSION,
            "kind": PATCH_KIND,
            "resource": {**group, "version": self.resource.version, "resource": self.resource.plural},
            "target": target,
            "durationNanosecond": round(self.at_s * 1e9),
            "method": self.method,
        }
        return {**obj, "template": self.template} if self.template else obj

    @classmethod
    def from_object(cls, obj: Object) -> Change:
        """Raises ValueError."""
        try:
            resource, target, method = obj["resource"], obj["target"], obj["method"]
            if method not in ("create", "patch", "delete"):
                raise ValueError(f"method {method!r}: create, patch or delete is expected")
            found = Resource(resource.get("group") or "", resource["version"], resource["resource"])
            at_s = obj["durationNanosecond"] / 1e9
            template = obj.get("template") or {}
            return cls(at_s, found, target.get("namespace") or "", target["name"], method, template)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a ResourcePatch that is none: {error!r}") from error


def split(objects: Iterable[Object]) -> tuple[list[Object], list[Change]]:
    """A file's objects apart from its changes, those in the order of their times. Raises ValueError."""
    state: list[Object] = []
    changes: list[Change] = []
    for obj in objects:
        if obj.get("kind") == PATCH_KIND and obj.get("apiVersion") == PATCH_API_VERSION:
            changes.append(Change.from_object(obj))
        else:
            state.append(obj)
    changes.sort(key=lambda change: change.at_s)
    return state, changes
