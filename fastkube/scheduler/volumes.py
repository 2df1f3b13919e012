"""Claims and volumes as the scheduler sees them: what the API server has, and what it has itself just decided.

Binding a claim takes the volume controllers a while. Until they have done their part, a decision is an assumption laid
over what the informers know, so that the next Pod does not get the same volume; an object that the watch brings in a
newer revision ends the assumption about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from fastkube.api import quantity, selectors
from fastkube.scheduler.framework import Rejected
from fastkube.scheduler.nodeaffinity import NodeMasks, parse_selector, selected_nodes
from fastkube.scheduler.pods import PodInfo

Object = dict[str, Any]

CLAIMS = "v1/persistentvolumeclaims"
VOLUMES = "v1/persistentvolumes"
CLASSES = "storage.k8s.io/v1/storageclasses"
CSI_NODES = "storage.k8s.io/v1/csinodes"
CSI_DRIVERS = "storage.k8s.io/v1/csidrivers"
CAPACITIES = "storage.k8s.io/v1/csistoragecapacities"
ATTACHMENTS = "storage.k8s.io/v1/volumeattachments"

BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
NO_PROVISIONER = "kubernetes.io/no-provisioner"


def annotations_of(obj: Object) -> Mapping[str, str]:
    return obj["metadata"].get("annotations") or {}


def class_of(obj: Object) -> str:
    """The storage class of a claim or volume, "" for none."""
    beta = annotations_of(obj).get(BETA_CLASS)
    return beta if beta is not None else obj["spec"].get("storageClassName") or ""


def is_fully_bound(claim: Object) -> bool:
    return bool(claim["spec"].get("volumeName")) and BIND_COMPLETED in annotations_of(claim)


def claim_names(pod: PodInfo) -> Iterator[tuple[str, bool]]:
    """The claims of a Pod's volumes; True for one that is made for the Pod (a generic ephemeral volume)."""
    for volume in pod.volumes:
        if "persistentVolumeClaim" in volume:
            yield volume["persistentVolumeClaim"].get("claimName", ""), False
        elif "ephemeral" in volume:
            yield f"{pod.name}-{volume.get('name', '')}", True


class Claims(NamedTuple):
    """The claims of a Pod by what is to be done about them."""

    bound: tuple[Object, ...]
    delayed: tuple[Object, ...]
    """Not bound, and waiting for a Pod to choose a node."""
    immediate: tuple[Object, ...]
    """Not bound, and not the scheduler's business."""


class VolumeStore:
    """Claims, volumes and classes; `lister` gives informers (or what can be read like them)."""

    def __init__(self, lister: Callable[[str], Any]) -> None:
        self._claims = lister(CLAIMS)
        self._volumes = lister(VOLUMES)
        self._classes = lister(CLASSES)
        self._drivers = lister(CSI_DRIVERS)
        self._capacities = lister(CAPACITIES)
        self._assumed_volumes: dict[str, Object] = {}
        self._assumed_claims: dict[str, Object] = {}

    # -- reading -------------------------------------------------------------------------------------------------------

    def claim(self, namespace: str, name: str) -> Object | None:
        known = self._claims.get(namespace, name)
        return _newer(known, self._assumed_claims, f"{namespace}/{name}")

    def known_claim(self, namespace: str, name: str) -> Object | None:
        """Without assumptions."""
        found: Object | None = self._claims.get(namespace, name)
        return found

    def volume(self, name: str) -> Object | None:
        return _newer(self._volumes.get("", name), self._assumed_volumes, name)

    def volumes(self) -> Iterator[Object]:
        for known in self._volumes.list():
            found = _newer(known, self._assumed_volumes, known["metadata"]["name"])
            if found is not None:
                yield found

    def storage_class(self, name: str) -> Object | None:
        found: Object | None = self._classes.get("", name) if name else None
        return found

    def waits_for_consumer(self, claim: Object) -> bool:
        found = self.storage_class(class_of(claim))
        return found is not None and found.get("volumeBindingMode") == "WaitForFirstConsumer"

    def claims_of(self, pod: PodInfo) -> Claims:
        """Raises Rejected for a claim that is missing or in no state to be used."""
        bound, delayed, immediate = [], [], []
        for name, ephemeral in claim_names(pod):
            claim = self._usable(pod, name, ephemeral)
            if is_fully_bound(claim):
                bound.append(claim)
            elif self.waits_for_consumer(claim) and not claim["spec"].get("volumeName"):
                delayed.append(claim)
            else:
                immediate.append(claim)
        return Claims(tuple(bound), tuple(delayed), tuple(immediate))

    def _usable(self, pod: PodInfo, name: str, ephemeral: bool) -> Object:
        claim = self.claim(pod.namespace, name)
        if claim is None:
            if ephemeral:
                told = f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"'
                raise Rejected(told)
            raise Rejected(f'persistentvolumeclaim "{name}" not found')
        if (claim.get("status") or {}).get("phase") == "Lost":
            volume = claim["spec"].get("volumeName", "")
            raise Rejected(f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{volume}"')
        if claim["metadata"].get("deletionTimestamp"):
            raise Rejected(f'persistentvolumeclaim "{name}" is being deleted')
        owners = claim["metadata"].get("ownerReferences") or ()
        if ephemeral and not any(each.get("uid") == pod.uid and each.get("controller") for each in owners):
            raise Rejected(f"PVC {pod.namespace}/{name} was not created for pod {pod.key} (pod is not owner)")
        return claim

    # -- which nodes ---------------------------------------------------------------------------------------------------

    @staticmethod
    def nodes_of(volume: Object, nodes: NodeMasks) -> int:
        """The nodes that can use a volume."""
        return selected_nodes((volume["spec"].get("nodeAffinity") or {}).get("required"), nodes)

    def candidates(self, claim: Object) -> list[Object]:
        """Volumes that could be bound to a claim, the best first: one that is promised to it, then the smallest."""
        wanted = request_of(claim)
        found = [each for each in self.volumes() if _suits(each, claim, wanted)]
        return sorted(
            found, key=lambda each: (not promised_to(each, claim), capacity_of(each), each["metadata"]["name"])
        )

    def provisionable(self, claim: Object, nodes: NodeMasks) -> tuple[int, int]:
        """(nodes where a volume may be made for a claim, those of them where there is room for it)."""
        found = self.storage_class(class_of(claim))
        if found is None or found.get("provisioner", "") in ("", NO_PROVISIONER):
            return 0, 0
        allowed = _topology_mask(found.get("allowedTopologies"), nodes)
        driver = self._drivers.get("", found["provisioner"])
        if driver is None or not (driver.get("spec") or {}).get("storageCapacity"):
            return allowed, allowed
        room = 0
        size = request_of(claim)
        for each in self._capacities.list():
            if each.get("storageClassName") == found["metadata"]["name"] and _has_room(each, size):
                room |= _label_mask(each.get("nodeTopology"), nodes)
        return allowed, allowed & room

    def capacity_near(self, claim: Object, slot: int, nodes: NodeMasks) -> int:
        """Bytes that are left, as a driver says, where a volume would be made for a claim on a node; 0 for unknown."""
        name, size, found = class_of(claim), request_of(claim), 0
        for each in self._capacities.list():
            near = each.get("storageClassName") == name and _label_mask(each.get("nodeTopology"), nodes) >> slot & 1
            if near and _has_room(each, size):
                found = max(found, quantity.value(str(each.get("capacity") or "0")))
        return found

    # -- assuming ------------------------------------------------------------------------------------------------------

    def assume_volume(self, volume: Object, claim: Object) -> Object:
        """The volume as it will be once bound to the claim."""
        metadata = claim["metadata"]
        reference = {
            "kind": "PersistentVolumeClaim",
            "apiVersion": "v1",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "resourceVersion": metadata.get("resourceVersion", ""),
        }
        marks = {**annotations_of(volume)}
        if (volume["spec"].get("claimRef") or {}).get("uid") != metadata["uid"]:
            marks[BOUND_BY_CONTROLLER] = "yes"
        bound: Object = {
            **volume,
            "metadata": {**volume["metadata"], "annotations": marks},
            "spec": {**volume["spec"], "claimRef": reference},
        }
        self._assumed_volumes[volume["metadata"]["name"]] = bound
        return bound

    def assume_claim(self, claim: Object, node: str) -> Object:
        """The claim as it will be once a volume is to be made for it near a node."""
        marks = {**annotations_of(claim), SELECTED_NODE: node}
        chosen: Object = {**claim, "metadata": {**claim["metadata"], "annotations": marks}}
        self._assumed_claims[f"{claim['metadata']['namespace']}/{claim['metadata']['name']}"] = chosen
        return chosen

    def forget_volume(self, volume: Object) -> None:
        self._assumed_volumes.pop(volume["metadata"]["name"], None)

    def forget_claim(self, claim: Object) -> None:
        self._assumed_claims.pop(f"{claim['metadata']['namespace']}/{claim['metadata']['name']}", None)


def _newer(known: Object | None, assumed: dict[str, Object], key: str) -> Object | None:
    """The assumption, as long as it was made about the state that is known."""
    assumption = assumed.get(key)
    if assumption is None:
        return known
    if known is None or known["metadata"].get("resourceVersion") != assumption["metadata"].get("resourceVersion"):
        del assumed[key]
        return known
    return assumption


def request_of(claim: Object) -> int:
    """Bytes that a claim asks for."""
    return quantity.value(str(((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage", "0")))


def capacity_of(volume: Object) -> int:
    return quantity.value(str((volume["spec"].get("capacity") or {}).get("storage", "0")))


def promised_to(volume: Object, claim: Object) -> bool:
    """Whether a volume names the claim, with its uid or without any."""
    reference = volume["spec"].get("claimRef")
    if reference is None:
        return False
    metadata = claim["metadata"]
    if (reference.get("namespace"), reference.get("name")) != (metadata["namespace"], metadata["name"]):
        return False
    return reference.get("uid") in (None, "", metadata["uid"])


def _suits(volume: Object, claim: Object, wanted: int) -> bool:
    spec, asked = volume["spec"], claim["spec"]
    if volume["metadata"].get("deletionTimestamp") or (spec.get("volumeMode") or "Filesystem") != (
        asked.get("volumeMode") or "Filesystem"
    ):
        return False
    if capacity_of(volume) < wanted:
        return False
    if spec.get("claimRef") is not None:
        return promised_to(volume, claim)
    return (
        (volume.get("status") or {}).get("phase") == "Available"
        and class_of(volume) == class_of(claim)
        and (spec.get("volumeAttributesClassName") or "") == (asked.get("volumeAttributesClassName") or "")
        and set(asked.get("accessModes") or ()) <= set(spec.get("accessModes") or ())
        and (
            asked.get("selector") is None
            or selectors.from_object(asked["selector"]).matches(volume["metadata"].get("labels"))
        )
    )


def _topology_mask(terms: Any, nodes: NodeMasks) -> int:
    """A StorageClass' allowedTopologies."""
    if not terms:
        return nodes.all
    found = 0
    for term in terms:
        mask = nodes.all
        for each in term.get("matchLabelExpressions") or ():
            values = 0
            for value in each.get("values") or ():
                values |= nodes.with_value(each.get("key", ""), value)
            mask &= values
        found |= mask
    return found


def _label_mask(selector: Object | None, nodes: NodeMasks) -> int:
    """Nodes that a metav1.LabelSelector selects; none selects nothing."""
    if selector is None:
        return 0
    expressions = [
        {"key": key, "operator": "In", "values": [value]} for key, value in (selector.get("matchLabels") or {}).items()
    ]
    expressions += selector.get("matchExpressions") or []
    if not expressions:
        return nodes.all
    terms = parse_selector({"nodeSelectorTerms": [{"matchExpressions": expressions}]}) or ()
    return terms[0].mask(nodes)


def _has_room(capacity: Object, size: int) -> bool:
    limit = capacity.get("maximumVolumeSize") or capacity.get("capacity")
    return limit is not None and quantity.value(str(limit)) >= size
