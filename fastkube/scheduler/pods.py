"""What the scheduler knows of Pods, taken out of the objects once.

Pods of one Deployment ask for the same things. What a Pod asks for is a `PodSpec`, and which Pods it is counted with a
`LabelClass`; both are interned, so that equal Pods share them, and everything that is computed for one of them serves
all. A `PodInfo` is one Pod: its names, its spec and class, and the little that is its own.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from fastkube.api import resources, selectors
from fastkube.api.selectors import LabelSelector
from fastkube.clock import parse_rfc3339
from fastkube.scheduler.nodeaffinity import RequiredNodes, Term, preferred_nodes, required_nodes

Object = dict[str, Any]

DEFAULT_SCHEDULER = "default-scheduler"


class Toleration(NamedTuple):
    key: str
    operator: str
    value: str
    effect: str

    def tolerates(self, taint: Taint) -> bool:
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        if self.operator == "Exists":
            return True
        return bool(self.key) and self.value == taint.value


class Taint(NamedTuple):
    key: str
    value: str
    effect: str


class PodTerm(NamedTuple):
    """A Pod (anti-)affinity term: Pods in these namespaces that match, and how near they must be.

    `key` is the same for equal terms. `namespace_selector` None: by name only.
    """

    key: str
    namespaces: frozenset[str]
    namespace_selector: LabelSelector | None
    selector: LabelSelector
    topology_key: str

    def matches(self, namespace: str, namespace_labels: Mapping[str, str], labels: Mapping[str, str]) -> bool:
        return self.covers(namespace, namespace_labels) and self.selector.matches(labels)

    def covers(self, namespace: str, namespace_labels: Mapping[str, str]) -> bool:
        if namespace in self.namespaces:
            return True
        return self.namespace_selector is not None and self.namespace_selector.matches(namespace_labels)


class SpreadConstraint(NamedTuple):
    """A topology spread constraint; `selector` None: to be found from the Pod's Services and owners (defaults)."""

    max_skew: int
    topology_key: str
    hard: bool
    selector: LabelSelector | None
    match_label_keys: tuple[str, ...] = ()
    min_domains: int = 1
    honor_affinity: bool = True
    honor_taints: bool = False


class Owner(NamedTuple):
    """The controller of a Pod."""

    api_version: str
    kind: str
    name: str


class PodSpec:
    """What Pods of one signature ask for. Compared by identity: equal specs are one object."""

    __slots__ = (
        "__weakref__",
        "affinity",
        "anti_affinity",
        "carried",
        "containers",
        "devices",
        "features",
        "image_volumes",
        "images",
        "namespace",
        "nonzero",
        "ports",
        "preempts",
        "preferred",
        "preferred_affinity",
        "preferred_anti_affinity",
        "priority",
        "request",
        "requests",
        "required",
        "scheduler_name",
        "spread",
        "tolerations",
    )

    def __init__(self, namespace: str, spec: Object, status: Object) -> None:
        affinity = spec.get("affinity") or {}
        together, apart = affinity.get("podAffinity") or {}, affinity.get("podAntiAffinity") or {}
        self.namespace = namespace
        self.scheduler_name: str = spec.get("schedulerName") or DEFAULT_SCHEDULER
        self.priority = int(spec.get("priority") or 0)
        self.preempts: bool = spec.get("preemptionPolicy") != "Never"
        self.requests = resources.requests_of(spec, status)
        self.devices = tuple(name for name, value in self.requests.items() if value and resources.is_device(name))
        """Requested resources that device classes may stand for."""
        self.nonzero = resources.nonzero_requests_of(spec, status)
        self.required: RequiredNodes = required_nodes(spec)
        self.preferred: tuple[tuple[int, Term], ...] = preferred_nodes(affinity.get("nodeAffinity"))
        self.tolerations = tuple(_toleration(each) for each in spec.get("tolerations") or ())
        self.ports = tuple(resources.host_ports(spec))
        self.features = required_features(spec)
        self.containers = len(spec.get("containers") or ()) + len(spec.get("initContainers") or ())
        self.images = tuple(image for image in _images(spec) if image)
        self.image_volumes = tuple(_image_volumes(spec))
        self.spread = tuple(parse_constraint(each) for each in spec.get("topologySpreadConstraints") or ())
        required, preferred = "requiredDuringSchedulingIgnoredDuringExecution", "preferred" + _IGNORED
        self.affinity = tuple(parse_pod_term(each, namespace) for each in together.get(required) or ())
        self.anti_affinity = tuple(parse_pod_term(each, namespace) for each in apart.get(required) or ())
        self.preferred_affinity = _weighted(together.get(preferred), namespace)
        self.preferred_anti_affinity = _weighted(apart.get(preferred), namespace)
        self.request: Any = None
        """Made by the cache: the request in columns, and the tallies that such Pods are counted in."""
        self.carried: Any = None

    def tolerates(self, taint: Taint) -> bool:
        return any(toleration.tolerates(taint) for toleration in self.tolerations)


_IGNORED = "DuringSchedulingIgnoredDuringExecution"


def _toleration(told: Object) -> Toleration:
    return Toleration(
        told.get("key") or "", told.get("operator") or "Equal", told.get("value") or "", told.get("effect") or ""
    )


def _images(spec: Object) -> Iterable[str]:
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        yield normalized_image(container.get("image") or "")


def required_features(spec: Object) -> tuple[str, ...]:
    """What the kubelet must be able to do for a Pod, by the names of upstream's features."""
    found = []
    if _restarts_all(spec.get("containers") or ()) or _restarts_all(spec.get("initContainers") or ()):
        found.append("RestartAllContainersOnContainerExits")
    if spec.get("hostNetwork") and spec.get("hostUsers") is False:
        found.append("UserNamespacesHostNetworkSupport")
    return tuple(found)


def _restarts_all(containers: Iterable[Object]) -> bool:
    for container in containers:
        for rule in container.get("restartPolicyRules") or ():
            if rule.get("action") == "RestartAllContainers":
                return True
    return False


def _image_volumes(spec: Object) -> Iterable[str]:
    for volume in spec.get("volumes") or ():
        if volume.get("image"):
            yield normalized_image(volume["image"].get("reference") or "")


def normalized_image(name: str) -> str:
    """With the tag that a name without one means."""
    return f"{name}:latest" if name and name.rfind(":") <= name.rfind("/") else name


def parse_constraint(told: Object) -> SpreadConstraint:
    """A v1.TopologySpreadConstraint of a Pod."""
    return SpreadConstraint(
        max_skew=int(told.get("maxSkew", 1)),
        topology_key=told.get("topologyKey", ""),
        hard=told.get("whenUnsatisfiable") != "ScheduleAnyway",
        selector=selectors.from_object(told.get("labelSelector")),
        match_label_keys=tuple(told.get("matchLabelKeys") or ()),
        min_domains=int(told.get("minDomains") or 1),
        honor_affinity=told.get("nodeAffinityPolicy") != "Ignore",
        honor_taints=told.get("nodeTaintsPolicy") == "Honor",
    )


def parse_pod_term(told: Object, namespace: str) -> PodTerm:
    """A v1.PodAffinityTerm of a Pod in `namespace`.

    matchLabelKeys and mismatchLabelKeys are in the selector already: the API server merges them in.
    """
    names = frozenset(told.get("namespaces") or ())
    among = told.get("namespaceSelector")
    if not names and among is None:
        names = frozenset((namespace,))
    selector = selectors.from_object(told.get("labelSelector"))
    namespace_selector = None if among is None else selectors.from_object(among)
    topology_key = told.get("topologyKey", "")
    # str() of a selector that matches nothing is that of one that matches everything
    nothing = told.get("labelSelector") is None
    key = orjson.dumps([sorted(names), among, None if nothing else str(selector), topology_key]).decode()
    return PodTerm(key, names, namespace_selector, selector, topology_key)


def _weighted(told: Iterable[Object] | None, namespace: str) -> tuple[tuple[int, PodTerm], ...]:
    terms = ((int(each.get("weight", 0)), each.get("podAffinityTerm") or {}) for each in told or ())
    return tuple((weight, parse_pod_term(term, namespace)) for weight, term in terms if weight)


class LabelClass:
    """Pods that every selector treats alike: same namespace and labels, all of them terminating or none.

    `slots` counts the assigned Pods by node slot; `tallies` are those whose selector the Pods match, kept by Tallies.
    """

    __slots__ = ("__weakref__", "labels", "namespace", "slots", "tallies", "terminating")

    def __init__(self, namespace: str, labels: Mapping[str, str], terminating: bool) -> None:
        self.namespace = namespace
        self.labels = labels
        self.terminating = terminating
        self.slots: dict[int, int] = {}
        self.tallies: list[Any] = []


GroupId = tuple[str, str]
"""(namespace, name) of a PodGroup."""


class PodInfo:
    """One Pod. `pod` is the object as the server has it; `node` the node's name, "" while it has none."""

    __slots__ = (
        "claims",
        "gates",
        "group",
        "labels",
        "name",
        "namespace",
        "node",
        "nominated",
        "only_node",
        "owner",
        "pod",
        "spec",
        "start_time",
        "uid",
        "volumes",
    )

    def __init__(
        self, pod: Object, spec: PodSpec, labels: LabelClass, only_node: str, volumes: tuple[Object, ...]
    ) -> None:
        metadata, told, status = pod["metadata"], pod["spec"], pod.get("status") or {}
        self.pod = pod
        self.namespace: str = metadata.get("namespace") or ""
        self.name: str = metadata["name"]
        self.uid: str = metadata.get("uid") or self.key
        self.spec = spec
        self.labels = labels
        self.node: str = told.get("nodeName") or ""
        self.only_node = only_node
        self.nominated: str = status.get("nominatedNodeName") or ""
        gates = told.get("schedulingGates")
        self.gates = tuple(gate.get("name", "") for gate in gates) if gates else ()
        self.group: GroupId | None = None
        if told.get("schedulingGroup"):
            self.group = (self.namespace, told["schedulingGroup"].get("podGroupName") or "")
        self.volumes = volumes
        """Those of kinds that scheduling looks at."""
        self.claims: tuple[Object, ...] = tuple(told.get("resourceClaims") or ())
        self.owner = _owner(metadata)
        started = status.get("startTime")
        self.start_time = parse_rfc3339(started) if started else None

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def terminating(self) -> bool:
        return self.labels.terminating

    @property
    def priority(self) -> int:
        return self.spec.priority

    def __repr__(self) -> str:
        return f"PodInfo({self.key!r}, node={self.node!r})"


def _owner(metadata: Object) -> Owner | None:
    for reference in metadata.get("ownerReferences") or ():
        if reference.get("controller"):
            return Owner(reference.get("apiVersion", ""), reference.get("kind", ""), reference.get("name", ""))
    return None


VOLUME_SOURCES = frozenset(
    (
        "persistentVolumeClaim",
        "ephemeral",
        "csi",
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "rbd",
        "iscsi",
        "azureDisk",
        "cinder",
        "portworxVolume",
    )
)


class PodParser:
    """Makes PodInfos, interning what equal Pods share for as long as any of them is there."""

    def __init__(self) -> None:
        self._specs: weakref.WeakValueDictionary[bytes, PodSpec] = weakref.WeakValueDictionary()
        self._classes: weakref.WeakValueDictionary[bytes, LabelClass] = weakref.WeakValueDictionary()

    def parse(self, pod: Object, known: PodInfo | None = None) -> PodInfo:
        """`known`: an earlier state of the Pod. Raises ValueError for a Pod that no API server would have admitted."""
        metadata, spec = pod["metadata"], pod["spec"]
        if known is not None and _asks_for_the_same(known, pod):
            own = known.labels
            if metadata.get("labels") != known.pod["metadata"].get("labels"):  # binding adds those of the node's zone
                own = self.label_class(own.namespace, metadata.get("labels"), False)
            return PodInfo(pod, known.spec, own, known.only_node, known.volumes)
        volumes: tuple[Object, ...] = ()
        image_volumes = None
        for volume in spec.get("volumes") or ():
            if not VOLUME_SOURCES.isdisjoint(volume):
                volumes += (volume,)
            elif "image" in volume:
                image_volumes = [*(image_volumes or ()), volume["image"]]
        affinity, only_node = spec.get("affinity"), ""
        if affinity and not spec.get("topologySpreadConstraints"):  # which count by the whole affinity
            affinity, only_node = _split_affinity(affinity)
        namespace = metadata.get("namespace") or ""
        status = pod.get("status") or {}
        signature = orjson.dumps(
            [
                namespace,
                spec.get("schedulerName"),
                spec.get("priority"),
                spec.get("preemptionPolicy"),
                spec.get("nodeSelector"),
                affinity,
                spec.get("tolerations"),
                spec.get("topologySpreadConstraints"),
                spec.get("overhead"),
                spec.get("resources"),
                [_container_signature(each) for each in spec.get("containers") or ()],
                [_container_signature(each) for each in spec.get("initContainers") or ()],
                image_volumes,
                required_features(spec),
                resources.resized(spec, status) if spec.get("nodeName") and status.get("containerStatuses") else None,
            ]
        )
        parsed = self._specs.get(signature)
        if parsed is None:
            trimmed = spec if affinity is spec.get("affinity") else {**spec, "affinity": affinity}
            parsed = PodSpec(namespace, trimmed, status if spec.get("nodeName") else {})
            self._specs[signature] = parsed
        labels = self.label_class(namespace, metadata.get("labels"), bool(metadata.get("deletionTimestamp")))
        return PodInfo(pod, parsed, labels, only_node, volumes)

    def label_class(self, namespace: str, labels: Mapping[str, str] | None, terminating: bool) -> LabelClass:
        key = orjson.dumps([namespace, labels or {}, terminating], option=orjson.OPT_SORT_KEYS)
        found = self._classes.get(key)
        if found is None:
            found = LabelClass(namespace, dict(labels or {}), terminating)
            self._classes[key] = found
        return found


def _asks_for_the_same(known: PodInfo, pod: Object) -> bool:
    """Whether a Pod's spec, its node aside, is that of an earlier state: changes count up the generation.

    A Pod that has run may have been resized, which its status tells.
    """
    metadata, before = pod["metadata"], known.pod["metadata"]
    generation = metadata.get("generation")
    return (
        bool(generation)
        and generation == before.get("generation")
        and metadata.get("deletionTimestamp") is before.get("deletionTimestamp") is None
        and not _is_resized(pod)
        and not _is_resized(known.pod)
    )


def _is_resized(pod: Object) -> bool:
    spec, status = pod["spec"], pod.get("status") or {}
    states = status.get("containerStatuses")
    if not states:
        return False
    if status.get("initContainerStatuses") or len(states) != len(spec["containers"]):
        return bool(resources.resized(spec, status))
    return not all(map(_has_what_it_asks_for, spec["containers"], states)) and bool(resources.resized(spec, status))


def _has_what_it_asks_for(container: Object, state: Object) -> bool:
    """A quick look that errs for containers out of order only; most Pods have never been resized."""
    actual = state.get("resources")
    if actual is None and "allocatedResources" not in state:
        return True
    asked = container.get("resources") or {}
    return (
        actual == asked
        and state.get("name") == container["name"]
        and state.get("allocatedResources") in (None, asked.get("requests"))
    )


def _container_signature(container: Object) -> tuple[Any, ...]:
    return container.get("image"), container.get("resources"), container.get("ports"), container.get("restartPolicy")


def _split_affinity(affinity: Object) -> tuple[Object, str]:
    """The affinity without a single term that names one node, and that name: what tells Pods of a DaemonSet apart."""
    nodes = affinity.get("nodeAffinity") or {}
    required = nodes.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms: list[Object] = required.get("nodeSelectorTerms") or []
    if len(terms) != 1 or terms[0].get("matchExpressions"):
        return affinity, ""
    fields: list[Object] = terms[0].get("matchFields") or []
    if len(fields) != 1 or fields[0].get("key") != "metadata.name" or fields[0].get("operator") != "In":
        return affinity, ""
    values: list[str] = fields[0].get("values") or []
    if len(values) != 1:
        return affinity, ""
    rest = {key: value for key, value in nodes.items() if not key.startswith("required")}
    return {**affinity, "nodeAffinity": rest}, values[0]
