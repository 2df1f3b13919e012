"""The Node authorizer: what a kubelet may do follows from the Pods that are bound to its node.

Source: "Using Node Authorization" of the Kubernetes documentation. A user of the group system:nodes named
system:node:NAME may read the Secrets, ConfigMaps, claims and volumes which Pods on NAME refer to, its own Node, Lease
and CSINode, and whatever the static rules of the ClusterRole system:node say of other resources.

The index of references is built when the first such user appears, and follows the store from then on: a server without
kubelets pays nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack

from fastkube.api.generated import table
from fastkube.server.rbac import Rule
from fastkube.server.request import Attributes, exact_term

if TYPE_CHECKING:
    from fastkube.api.catalog import Catalog
    from fastkube.registry.strategy import UserInfo
    from fastkube.store import Event, Store, Subscription

Object = dict[str, Any]

NODES_GROUP = "system:nodes"
_NODE_PREFIX = "system:node:"
_LEASE_NAMESPACE = "kube-node-lease"
_MIRROR = "kubernetes.io/config.mirror"


class Reference(NamedTuple):
    """What a Pod refers to: a resource of the core group, or "resourceclaims"."""

    resource: str
    namespace: str
    name: str


class NodeDecision(NamedTuple):
    """Not allowed is no opinion: other authorizers are asked. `reason` is told when they refuse too."""

    allowed: bool
    reason: str = ""


_ALLOWED = NodeDecision(True)
_NO_OPINION = NodeDecision(False)


def node_of(user: UserInfo) -> str | None:
    """The node's name; "" for a member of system:nodes without one; None for anybody else."""
    if NODES_GROUP not in user.groups:
        return None
    return user.name[len(_NODE_PREFIX) :] if user.name.startswith(_NODE_PREFIX) else ""


class NodeAuthorizer:
    def __init__(self, store: Store, catalog: Catalog) -> None:
        self._store = store
        self._catalog = catalog
        self._rules = [Rule(rule, "") for rule in _static_rules()]
        self._references: dict[str, Counter[Reference]] = {}
        self._pods: dict[bytes, tuple[str, frozenset[Reference]]] = {}
        self._subscription: Subscription | None = None

    def stop(self) -> None:
        if self._subscription is not None:
            self._subscription.cancel()
            self._subscription = None

    def decide(self, user: UserInfo, attributes: Attributes) -> NodeDecision:
        node = node_of(user)
        if node is None:
            return _NO_OPINION
        if not node:
            return NodeDecision(False, f'unknown node for user "{user.name}"')
        if attributes.is_resource:
            check = _CHECKS.get((attributes.group, attributes.resource))
            if check is not None:
                return check(self, node, attributes)
        return NodeDecision(any(rule.covers(attributes) for rule in self._rules))

    # ---------------------------------------------------------------- one check for each kind of resource

    def _read(self, node: str, attributes: Attributes) -> NodeDecision:
        if attributes.verb not in ("get", "list", "watch"):
            return NodeDecision(False, "can only read resources of this type")
        if attributes.subresource:
            return NodeDecision(False, "cannot read subresource")
        if not attributes.namespace:
            return NodeDecision(False, "can only read namespaced object of this type")
        return self._related(node, attributes)

    def _get(self, node: str, attributes: Attributes) -> NodeDecision:
        if attributes.verb != "get":
            return NodeDecision(False, "can only get individual resources of this type")
        if attributes.subresource:
            return NodeDecision(False, "cannot get subresource")
        return self._related(node, attributes)

    def _claim(self, node: str, attributes: Attributes) -> NodeDecision:
        if attributes.subresource != "status":
            return self._get(node, attributes)
        if attributes.verb not in ("update", "patch"):
            return NodeDecision(False, "can only get/update/patch this type")
        return self._related(node, attributes)

    def _account(self, node: str, attributes: Attributes) -> NodeDecision:
        if attributes.verb != "create" or not attributes.name:
            return NodeDecision(False, "can only create tokens for individual service accounts")
        if attributes.subresource != "token":
            return NodeDecision(False, "can only create token subresource of serviceaccount")
        return self._related(node, attributes)

    def _lease(self, node: str, attributes: Attributes) -> NodeDecision:
        if attributes.verb not in ("get", "create", "update", "patch", "delete"):
            return NodeDecision(False, "can only get, create, update, patch, or delete a node lease")
        if attributes.namespace != _LEASE_NAMESPACE:
            return NodeDecision(False, f'can only access leases in the "{_LEASE_NAMESPACE}" system namespace')
        if attributes.verb != "create" and attributes.name != node:
            return NodeDecision(False, "can only access node lease with the same name as the requesting node")
        return _ALLOWED

    def _csi_node(self, node: str, attributes: Attributes) -> NodeDecision:
        if attributes.verb not in ("get", "create", "update", "patch", "delete"):
            return NodeDecision(False, "can only get, create, update, patch, or delete a CSINode")
        if attributes.subresource:
            return NodeDecision(False, "cannot authorize CSINode subresources")
        if attributes.verb != "create" and attributes.name != node:
            return NodeDecision(False, "can only access CSINode with the same name as the requesting node")
        return _ALLOWED

    def _slice(self, node: str, attributes: Attributes) -> NodeDecision:
        if attributes.subresource:
            return NodeDecision(False, "cannot authorize ResourceSlice subresources")
        if attributes.verb == "create":
            return _ALLOWED
        if attributes.verb in ("get", "update", "patch", "delete"):
            return self._related(node, attributes)
        if exact_term(attributes.field_selector, "spec.nodeName") == node:
            return _ALLOWED
        return NodeDecision(False, "can only list/watch/deletecollection resourceslices with nodeName field selector")

    def _node(self, node: str, attributes: Attributes) -> NodeDecision:
        verb, name = attributes.verb, attributes.name
        if attributes.subresource == "status":
            return NodeDecision(verb in ("update", "patch"))
        if attributes.subresource:
            return _NO_OPINION
        if verb in ("create", "update", "patch"):
            return _ALLOWED
        if verb not in ("get", "list", "watch"):
            return _NO_OPINION
        if name == node:
            return _ALLOWED
        if not name:
            return NodeDecision(False, f"node '{node}' cannot read all nodes, only its own Node object")
        return NodeDecision(False, f"node '{node}' cannot read '{name}', only its own Node object")

    def _pod(self, node: str, attributes: Attributes) -> NodeDecision:
        verb, subresource = attributes.verb, attributes.subresource
        if subresource:
            own_status = subresource == "status" and verb in ("update", "patch")
            return NodeDecision(own_status or (subresource == "eviction" and verb == "create"))
        if verb == "get":
            return self._get(node, attributes)
        if verb in ("create", "delete"):
            return _ALLOWED
        if verb not in ("list", "watch"):
            return _NO_OPINION
        if exact_term(attributes.field_selector, "spec.nodeName") == node:
            return _ALLOWED
        if attributes.name:
            return self._related(node, attributes)
        return NodeDecision(False, "can only list/watch pods with spec.nodeName field selector")

    # ---------------------------------------------------------------- who refers to what

    def _related(self, node: str, attributes: Attributes) -> NodeDecision:
        if not attributes.name:
            return NodeDecision(False, "No Object name found")
        if self._subscription is None:
            self._start()
        if self._refers(node, attributes.resource, attributes.namespace, attributes.name):
            return _ALLOWED
        return NodeDecision(False, f"no relationship found between node '{node}' and this object")

    def _refers(self, node: str, resource: str, namespace: str, name: str) -> bool:
        references = self._references.get(node, Counter())
        if Reference(resource, namespace, name) in references:
            return True
        if resource == "secrets":
            return self._volume_refers(references, namespace, name)
        if resource == "persistentvolumes":
            claim = (self._stored("", resource, "", name).get("spec") or {}).get("claimRef") or {}
            return Reference("persistentvolumeclaims", claim.get("namespace", ""), claim.get("name", "")) in references
        if resource in ("volumeattachments", "resourceslices"):
            group = "storage.k8s.io" if resource == "volumeattachments" else "resource.k8s.io"
            return (self._stored(group, resource, "", name).get("spec") or {}).get("nodeName") == node
        return False

    def _volume_refers(self, references: Counter[Reference], namespace: str, name: str) -> bool:
        """Whether a volume behind one of the Pods' claims needs the Secret."""
        for reference in references:
            if reference.resource != "persistentvolumeclaims":
                continue
            claim = self._stored("", *reference)
            volume = (claim.get("spec") or {}).get("volumeName")
            if not volume:
                continue
            found = self._stored("", "persistentvolumes", "", volume)
            for secret in _named_secrets(found.get("spec") or {}):
                if secret.get("name") == name and (secret.get("namespace") or reference.namespace) == namespace:
                    return True
        return False

    def _stored(self, group: str, resource: str, namespace: str, name: str) -> Object:
        rtype = self._catalog.get(group, resource)
        item = self._store.get(rtype.key(namespace, name)) if rtype is not None and name else None
        found: Object = msgpack.unpackb(item.value) if item is not None else {}
        return found

    def _start(self) -> None:
        pods = self._catalog.get("", "pods")
        if pods is None:
            return
        start, end = pods.key_prefix, pods.key_prefix[:-1] + b"0"
        self._subscription = self._store.subscribe(start, end, self._on_commit)
        for item in self._store.scan(start, end):
            self._set(item.key, item.value)

    def _on_commit(self, events: list[Event], revision: int) -> None:
        for event in events:
            self._set(event.key, event.value if event.type == 0 else b"")

    def _set(self, key: bytes, value: bytes) -> None:
        node, references = _pod_references(msgpack.unpackb(value)) if value else ("", frozenset())
        known = self._pods.pop(key, None)
        if known is not None:
            counts = self._references[known[0]]
            counts.subtract(known[1])
            for reference in known[1]:
                if counts[reference] <= 0:
                    del counts[reference]
            if not counts:
                del self._references[known[0]]
        if node:
            self._pods[key] = (node, references)
            self._references.setdefault(node, Counter()).update(references)


_CHECKS = {
    ("", "secrets"): NodeAuthorizer._read,
    ("", "configmaps"): NodeAuthorizer._read,
    ("", "persistentvolumeclaims"): NodeAuthorizer._claim,
    ("", "persistentvolumes"): NodeAuthorizer._get,
    ("", "serviceaccounts"): NodeAuthorizer._account,
    ("", "nodes"): NodeAuthorizer._node,
    ("", "pods"): NodeAuthorizer._pod,
    ("coordination.k8s.io", "leases"): NodeAuthorizer._lease,
    ("resource.k8s.io", "resourceclaims"): NodeAuthorizer._get,
    ("resource.k8s.io", "resourceslices"): NodeAuthorizer._slice,
    ("storage.k8s.io", "csinodes"): NodeAuthorizer._csi_node,
    ("storage.k8s.io", "volumeattachments"): NodeAuthorizer._get,
}


def _static_rules() -> list[Object]:
    roles = table("bootstrap")["rbac.authorization.k8s.io/v1/clusterroles"]["items"]
    rules: list[Object] = next(role["rules"] for role in roles if role["metadata"]["name"] == "system:node")
    return rules


def _pod_references(pod: Object) -> tuple[str, frozenset[Reference]]:
    """The node of a Pod, and the Pod itself with all that it refers to; mirror Pods give their node nothing."""
    metadata, spec = pod["metadata"], pod.get("spec") or {}
    node = spec.get("nodeName") or ""
    if not node or _MIRROR in (metadata.get("annotations") or {}):
        return "", frozenset()
    namespace = metadata["namespace"]
    found = {Reference("pods", namespace, metadata["name"])}
    found.update(Reference(resource, namespace, name) for resource, name in _names(spec, metadata["name"]) if name)
    for status in (pod.get("status") or {}).get("resourceClaimStatuses") or ():
        if status.get("resourceClaimName"):
            found.add(Reference("resourceclaims", namespace, status["resourceClaimName"]))
    return node, frozenset(found)


def _names(spec: Object, pod_name: str) -> Iterator[tuple[str, str]]:
    yield "serviceaccounts", spec.get("serviceAccountName") or ""
    for secret in spec.get("imagePullSecrets") or ():
        yield "secrets", secret.get("name") or ""
    for claim in spec.get("resourceClaims") or ():
        yield "resourceclaims", claim.get("resourceClaimName") or ""
    for volume in spec.get("volumes") or ():
        yield from _volume_names(volume, pod_name)
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(kind) or ():
            yield from _environment_names(container)


def _volume_names(volume: Object, pod_name: str) -> Iterator[tuple[str, str]]:
    yield "secrets", (volume.get("secret") or {}).get("secretName") or ""
    yield "configmaps", (volume.get("configMap") or {}).get("name") or ""
    yield "persistentvolumeclaims", (volume.get("persistentVolumeClaim") or {}).get("claimName") or ""
    if volume.get("ephemeral"):
        yield "persistentvolumeclaims", f"{pod_name}-{volume['name']}"
    for source in (volume.get("projected") or {}).get("sources") or ():
        yield "secrets", (source.get("secret") or {}).get("name") or ""
        yield "configmaps", (source.get("configMap") or {}).get("name") or ""
    yield "secrets", (volume.get("azureFile") or {}).get("secretName") or ""
    for secret in _named_secrets(volume):
        yield "secrets", secret.get("name") or ""


def _environment_names(container: Object) -> Iterator[tuple[str, str]]:
    for source in container.get("envFrom") or ():
        yield "secrets", (source.get("secretRef") or {}).get("name") or ""
        yield "configmaps", (source.get("configMapRef") or {}).get("name") or ""
    for variable in container.get("env") or ():
        source = variable.get("valueFrom") or {}
        yield "secrets", (source.get("secretKeyRef") or {}).get("name") or ""
        yield "configmaps", (source.get("configMapKeyRef") or {}).get("name") or ""


_SECRET_FIELDS = (
    "secretRef", "nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef", "controllerPublishSecretRef",
    "controllerExpandSecretRef",
)  # fmt: skip


def _named_secrets(volume: Object) -> Iterator[Object]:
    """The references to Secrets inside the one source that a volume has (csi, rbd, iscsi, ...)."""
    for source in volume.values():
        if isinstance(source, dict):
            for field in _SECRET_FIELDS:
                if isinstance(source.get(field), dict):
                    yield source[field]
