"""NodeRestriction: a kubelet changes its own Node, Lease and CSINode, and the Pods that are bound to it; no more.

Source: "Using Node Authorization" and "Admission Control" in the Kubernetes documentation. Only users of the group
system:nodes are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from fastkube import errors
from fastkube.server.admission.plugin import Identity, Plugin, forbid
from fastkube.server.nodeauth import node_of

if TYPE_CHECKING:
    from fastkube.registry.strategy import Call, Object
    from fastkube.server.admission.lookup import Lookups

_MIRROR = "kubernetes.io/config.mirror"
_LEASES = "kube-node-lease"
_RESTRICTED = "node-restriction.kubernetes.io"
_OWN_LABELS = frozenset(
    (
        "beta.kubernetes.io/arch", "beta.kubernetes.io/instance-type", "beta.kubernetes.io/os",
        "failure-domain.beta.kubernetes.io/region", "failure-domain.beta.kubernetes.io/zone", "kubernetes.io/arch",
        "kubernetes.io/hostname", "kubernetes.io/os", "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/region", "topology.kubernetes.io/zone",
    )
)  # fmt: skip
_OWN_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")

_Rule = Callable[["Call", "Object | None", "Object | None", str], str]
"""(call, new, old, node) → why the node may not, or ""."""


class NodeRestriction(Plugin):
    name = "NodeRestriction"
    mutates = True  # where upstream asks it: what a kubelet may not do is refused before it is looked at closer

    def __init__(self, lookups: Lookups) -> None:
        self._nodes = lookups.nodes
        self._pods = lookups.pods
        self._rules: dict[tuple[str, str], _Rule] = {
            ("", "nodes"): self._node,
            ("", "persistentvolumeclaims"): self._claim,
            ("", "pods"): self._pod,
            ("", "serviceaccounts"): self._token,
            ("coordination.k8s.io", "leases"): self._lease,
            ("resource.k8s.io", "resourceslices"): self._slice,
            ("storage.k8s.io", "csinodes"): self._csi_node,
        }

    def handles(self, target: Identity, operation: str) -> bool:
        return target[:2] in self._rules

    def mutate(self, call: Call, obj: Object | None, old: Object | None) -> None:
        node = node_of(call.user)
        if node is None:
            return
        if not node:
            raise forbid(call, obj, f'could not determine node from user "{call.user.name}"')
        why = self._rules[call.rtype.group, call.rtype.resource](call, obj, old, node)
        if why:
            raise forbid(call, obj, why)

    # ---------------------------------------------------------------- pods

    def _pod(self, call: Call, obj: Object | None, old: Object | None, node: str) -> str:
        if call.subresource == "status":
            return _pod_status(obj, old, node)
        if call.subresource == "eviction":
            return (
                ""
                if self._runs_here(call, node)
                else f"node {node} can only evict pods with spec.nodeName set to itself"
            )
        if call.subresource:
            return f"unexpected pod subresource \"{call.subresource}\", only 'status' and 'eviction' are allowed"
        if obj is None:
            here = self._runs_here(call, node)
            return "" if here else f'node "{node}" can only delete pods with spec.nodeName set to itself'
        if old is not None:
            return f'unexpected operation "UPDATE", node "{node}" can only create and delete mirror pods'
        return self._new_pod(obj, node)

    def _runs_here(self, call: Call, node: str) -> bool:
        pod = self._pods.get(call.namespace, call.name)
        if pod is None:
            raise errors.not_found("", "pods", call.name)
        return bool(pod["spec"].get("nodeName") == node)

    def _new_pod(self, pod: Object, node: str) -> str:
        """Mirror Pods only: they show what the kubelet runs from a file, so they use nothing of the API."""
        metadata, spec = pod["metadata"], pod["spec"]
        if _MIRROR not in (metadata.get("annotations") or {}):
            return f'pod does not have "{_MIRROR}" annotation, node "{node}" can only create mirror pods'
        if spec.get("nodeName") != node:
            return f'node "{node}" can only create pods with spec.nodeName set to itself'
        why = self._owner(metadata.get("ownerReferences") or [], node)
        if why:
            return why
        for what, used in _references(spec):
            if used:
                return f'node "{node}" can not create pods that reference {what}'
        return ""

    def _owner(self, owners: list[Object], node: str) -> str:
        if len(owners) > 1:
            return f'node "{node}" can only create pods with a single owner reference set to itself'
        owner = owners[0] if owners else {}
        if (owner.get("apiVersion"), owner.get("kind"), owner.get("name")) != ("v1", "Node", node):
            return f'node "{node}" can only create pods with an owner reference set to itself'
        if not owner.get("controller"):
            return f'node "{node}" can only create pods with a controller owner reference set to itself'
        if owner.get("blockOwnerDeletion"):
            return f'node "{node}" must not set blockOwnerDeletion on an owner reference'
        found = self._nodes.get("", node)
        if found is None:
            raise errors.not_found("", "nodes", node)
        uid = found["metadata"]["uid"]
        return "" if owner.get("uid") == uid else f"node {node} UID mismatch: expected {uid} got {owner.get('uid')}"

    # ---------------------------------------------------------------- nodes

    def _node(self, call: Call, obj: Object | None, old: Object | None, node: str) -> str:
        name = call.name or ((obj or {}).get("metadata") or {}).get("name") or ""
        if name != node:
            return f'node "{node}" is not allowed to modify node "{name}"'
        if obj is None:
            return ""
        labels = obj["metadata"].get("labels") or {}
        if old is None:
            forbidden = _forbidden_labels(labels)
            return f'node "{node}" is not allowed to set the following labels: {forbidden}' if forbidden else ""
        before = old["metadata"].get("labels") or {}
        changed = {key for key in {**labels, **before} if labels.get(key) != before.get(key)}
        forbidden = _forbidden_labels(changed)
        if forbidden:
            return f"is not allowed to modify labels: {forbidden}"
        if (obj.get("spec") or {}).get("taints") != (old.get("spec") or {}).get("taints"):
            return f'node "{node}" is not allowed to modify taints'
        if obj["metadata"].get("ownerReferences") != old["metadata"].get("ownerReferences"):
            return f'node "{node}" is not allowed to modify ownerReferences'
        return ""

    # ---------------------------------------------------------------- others

    @staticmethod
    def _claim(call: Call, obj: Object | None, old: Object | None, node: str) -> str:
        if call.subresource != "status" or obj is None or old is None:
            return "may only update PVC status"
        same = obj.get("spec") == old.get("spec")
        return "" if same else f'node "{node}" is not allowed to update fields other than status'

    def _token(self, call: Call, obj: Object | None, old: Object | None, node: str) -> str:
        """A kubelet gets tokens for the Pods that it runs, bound to them."""
        if call.subresource != "token" or obj is None:
            return ""
        ref = (obj.get("spec") or {}).get("boundObjectRef") or {}
        if ref.get("apiVersion") != "v1" or ref.get("kind") != "Pod" or not ref.get("name"):
            return "node requested token not bound to a pod"
        if not ref.get("uid"):
            return "node requested token with a pod binding without a uid"
        pod = self._pods.get(call.namespace, ref["name"])
        if pod is None:
            raise errors.not_found("", "pods", ref["name"])
        if ref["uid"] != pod["metadata"]["uid"]:
            again = "The object might have been deleted and then recreated"
            return f"the UID in the bound object reference ({ref['uid']}) does not match the UID in record. {again}"
        if pod["spec"].get("nodeName") != node:
            return "node requested token bound to a pod scheduled on a different node"
        return ""

    @staticmethod
    def _lease(call: Call, obj: Object | None, old: Object | None, node: str) -> str:
        if call.namespace != _LEASES:
            return f'can only access leases in the "{_LEASES}" system namespace'
        same = _name(call, obj) == node
        return "" if same else "can only access node lease with the same name as the requesting node"

    @staticmethod
    def _csi_node(call: Call, obj: Object | None, old: Object | None, node: str) -> str:
        same = _name(call, obj) == node
        return "" if same else "can only access CSINode with the same name as the requesting node"

    @staticmethod
    def _slice(call: Call, obj: Object | None, old: Object | None, node: str) -> str:
        if obj is None or old is not None:
            return ""  # the authorizer has seen to it that the slice is the node's own
        same = (obj.get("spec") or {}).get("nodeName") == node
        return "" if same else "can only create ResourceSlice with the same NodeName as the requesting node"


def _name(call: Call, obj: Object | None) -> str:
    return call.name or ((obj or {}).get("metadata") or {}).get("name") or ""


def _pod_status(obj: Object | None, old: Object | None, node: str) -> str:
    if obj is None or old is None:
        return f'node "{node}" can only update the status of pods'
    if old["spec"].get("nodeName") != node:
        return f'node "{node}" can only update pod status for pods with spec.nodeName set to itself'
    same = obj["metadata"].get("labels") == old["metadata"].get("labels")
    return "" if same else f'node "{node}" cannot update labels through pod status'


def _references(spec: Object) -> list[tuple[str, bool]]:
    """The objects of the API that a Pod may refer to, and whether this one does."""
    volumes = spec.get("volumes") or ()
    containers = (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))

    def in_env(key: str) -> bool:
        env = (each.get("valueFrom") or {} for container in containers for each in container.get("env") or ())
        return any(f"{key}KeyRef" in source for source in env)

    def in_env_from(key: str) -> bool:
        return any(f"{key}Ref" in source for container in containers for source in container.get("envFrom") or ())

    def mounted(key: str) -> bool:
        sources = [source for volume in volumes for source in (volume.get("projected") or {}).get("sources") or ()]
        return any(key in holder for holder in (*volumes, *sources))

    return [
        ("a service account", bool(spec.get("serviceAccountName"))),
        (
            "secrets",
            mounted("secret") or in_env("secret") or in_env_from("secret") or bool(spec.get("imagePullSecrets")),
        ),
        ("configmaps", mounted("configMap") or in_env("configMap") or in_env_from("configMap")),
        ("persistentvolumeclaims", mounted("persistentVolumeClaim")),
        ("resourceclaims", bool(spec.get("resourceClaims"))),
    ]


def _forbidden_labels(labels: Iterable[str]) -> str:
    """Labels that say what a node may be used for are not the node's own to set."""
    return ", ".join(sorted(label for label in labels if _is_forbidden(label)))


def _is_forbidden(label: str) -> bool:
    domain = label.rpartition("/")[0]
    if _within(domain, _RESTRICTED):
        return True
    if not (_within(domain, "kubernetes.io") or _within(domain, "k8s.io")):
        return False
    return label not in _OWN_LABELS and not any(_within(domain, own) for own in _OWN_DOMAINS)


def _within(domain: str, parent: str) -> bool:
    return domain == parent or domain.endswith(f".{parent}")
