"""A slow, obvious model of the default plugins: written from upstream's documentation, over plain objects.

No caches, no masks, no counts that are kept: for each question it looks at every node and every Pod.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import Any

Object = dict[str, Any]

HOST = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
IGNORED = "DuringSchedulingIgnoredDuringExecution"

UNITS = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "": 1}


def number(text: str) -> float:
    """A quantity, in units."""
    for suffix in ("Ki", "Mi", "Gi", "m"):
        if text.endswith(suffix):
            return float(text[: -len(suffix)]) * UNITS[suffix]
    return float(text)


def labels_of(obj: Object) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def selects(selector: Object | None, labels: dict[str, str]) -> bool:
    """A metav1.LabelSelector; none selects nothing."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(expression_holds(each, labels) for each in selector.get("matchExpressions") or ())


def expression_holds(each: Object, labels: dict[str, str]) -> bool:
    value, values = labels.get(each["key"]), each.get("values") or []
    match each["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and int(value) > int(values[0])
        case "Lt":
            return value is not None and int(value) < int(values[0])
    raise AssertionError(each)


def requests(pod: Object) -> dict[str, float]:
    total: defaultdict[str, float] = defaultdict(float)
    for container in pod["spec"]["containers"]:
        for name, text in ((container.get("resources") or {}).get("requests") or {}).items():
            total[name] += number(text)
    return dict(total)


def nonzero(pod: Object) -> dict[str, float]:
    """Requests as scores see them: at least something for cpu and memory."""
    total = {"cpu": 0.0, "memory": 0.0}
    for container in pod["spec"]["containers"]:
        asked = (container.get("resources") or {}).get("requests") or {}
        total["cpu"] += number(asked["cpu"]) if "cpu" in asked else 0.1
        total["memory"] += number(asked["memory"]) if "memory" in asked else 200 * 2**20
    return total


def tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if toleration.get("operator") == "Exists":
        return True
    return bool(toleration.get("key") == taint["key"]) and toleration.get("value", "") == taint.get("value", "")


def taints(node: Object, *effects: str) -> list[Object]:
    return [each for each in node["spec"].get("taints") or () if each["effect"] in effects]


def untolerated(pod: Object, node: Object) -> bool:
    tolerations = pod["spec"].get("tolerations") or ()
    return any(
        not any(tolerates(each, taint) for each in tolerations) for taint in taints(node, "NoSchedule", "NoExecute")
    )


def matches_node_affinity(pod: Object, node: Object) -> bool:
    labels = labels_of(node)
    if any(labels.get(key) != value for key, value in (pod["spec"].get("nodeSelector") or {}).items()):
        return False
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("required" + IGNORED)
    if required is None:
        return True
    return any(term_holds(term, labels) for term in required["nodeSelectorTerms"])


def term_holds(term: Object, labels: dict[str, str]) -> bool:
    expressions = term.get("matchExpressions") or ()
    return bool(expressions) and all(expression_holds(each, labels) for each in expressions)


def pod_terms(pod: Object, kind: str, when: str) -> list[Any]:
    return ((pod["spec"].get("affinity") or {}).get(kind) or {}).get(when + IGNORED) or []


class Model:
    """A cluster: `pods` are those that have a node, `nodes` by name."""

    def __init__(self, nodes: list[Object], namespaces: list[Object], workloads: list[Object]) -> None:
        self.nodes = {each["metadata"]["name"]: each for each in nodes}
        self.namespaces = {each["metadata"]["name"]: labels_of(each) for each in namespaces}
        self.workloads = workloads
        self.pods: list[Object] = []

    def on(self, node: Object) -> list[Object]:
        name = node["metadata"]["name"]
        return [pod for pod in self.pods if pod["spec"]["nodeName"] == name]

    def placed(self) -> list[tuple[Object, Object]]:
        """Pods whose node is there, each with its node."""
        return [
            (pod, self.nodes[pod["spec"]["nodeName"]]) for pod in self.pods if pod["spec"]["nodeName"] in self.nodes
        ]

    # -- filters: the reasons of the first plugin that refuses ---------------------------------------------------------

    def refusal(self, pod: Object, node: Object) -> list[str]:
        for plugin in (
            self.unschedulable,
            self.tainted,
            self.node_affinity,
            self.ports,
            self.fit,
            self.spreading,
            self.pod_affinity,
        ):
            reasons = plugin(pod, node)
            if reasons:
                return reasons
        return []

    def unschedulable(self, pod: Object, node: Object) -> list[str]:
        taint = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
        tolerated = any(tolerates(each, taint) for each in pod["spec"].get("tolerations") or ())
        return ["node(s) were unschedulable"] if node["spec"].get("unschedulable") and not tolerated else []

    def tainted(self, pod: Object, node: Object) -> list[str]:
        return ["node(s) had untolerated taint(s)"] if untolerated(pod, node) else []

    def node_affinity(self, pod: Object, node: Object) -> list[str]:
        return [] if matches_node_affinity(pod, node) else ["node(s) didn't match Pod's node affinity/selector"]

    def ports(self, pod: Object, node: Object) -> list[str]:
        def of(each: Object) -> list[tuple[str, str, int]]:
            return [
                (port.get("hostIP") or "0.0.0.0", port.get("protocol") or "TCP", port["hostPort"])
                for container in each["spec"]["containers"]
                for port in container.get("ports") or ()
                if port.get("hostPort")
            ]

        for other in self.on(node):
            for ip, protocol, port in of(pod):
                for their_ip, their_protocol, their_port in of(other):
                    same_ip = ip == their_ip or "0.0.0.0" in (ip, their_ip)
                    if (protocol, port) == (their_protocol, their_port) and same_ip:
                        return ["node(s) didn't have free ports for the requested pod ports"]
        return []

    def fit(self, pod: Object, node: Object) -> list[str]:
        allocatable = {name: number(text) for name, text in node["status"]["allocatable"].items()}
        reasons = []
        if len(self.on(node)) + 1 > allocatable["pods"]:
            reasons.append("Too many pods")
        for name, amount in requests(pod).items():
            used = sum(requests(other).get(name, 0) for other in self.on(node))
            if amount and used + amount > allocatable.get(name, 0) + 1e-6:
                reasons.append(f"Insufficient {name}")
        return reasons

    # -- topology spread -----------------------------------------------------------------------------------------------

    def constraints(self, pod: Object, action: str) -> list[Object]:
        return [
            each for each in pod["spec"].get("topologySpreadConstraints") or () if each["whenUnsatisfiable"] == action
        ]

    def spread_selects(self, constraint: Object, pod: Object, other: Object) -> bool:
        if other["metadata"]["namespace"] != pod["metadata"]["namespace"]:
            return False
        if not selects(constraint["labelSelector"], labels_of(other)):
            return False
        keys = constraint.get("matchLabelKeys") or ()
        return all(labels_of(other).get(key) == labels_of(pod)[key] for key in keys if key in labels_of(pod))

    def included(self, constraint: Object, pod: Object, node: Object) -> bool:
        if constraint.get("nodeAffinityPolicy") != "Ignore" and not matches_node_affinity(pod, node):
            return False
        return constraint.get("nodeTaintsPolicy") != "Honor" or not untolerated(pod, node)

    def matching(self, constraint: Object, pod: Object, node: Object) -> int:
        return sum(
            not other["metadata"].get("deletionTimestamp") and self.spread_selects(constraint, pod, other)
            for other in self.on(node)
        )

    def spreading(self, pod: Object, node: Object) -> list[str]:
        constraints = self.constraints(pod, "DoNotSchedule")
        for constraint in constraints:
            key = constraint["topologyKey"]
            if key not in labels_of(node):
                return ["node(s) didn't match pod topology spread constraints (missing required label)"]
            domains: Counter[str] = Counter()
            for other in self.nodes.values():
                if all(each["topologyKey"] in labels_of(other) for each in constraints) and self.included(
                    constraint, pod, other
                ):
                    domains[labels_of(other)[key]] += self.matching(constraint, pod, other)
            lowest = min(domains.values(), default=2**31 - 1)
            if len(domains) < (constraint.get("minDomains") or 1):
                lowest = 0
            own = self.spread_selects(constraint, pod, pod)
            if domains[labels_of(node)[key]] + own - lowest > constraint["maxSkew"]:
                return ["node(s) didn't match pod topology spread constraints"]
        return []

    # -- Pod affinity --------------------------------------------------------------------------------------------------

    def term_selects(self, term: Object, owner: Object, other: Object) -> bool:
        namespaces = term.get("namespaces") or []
        among = term.get("namespaceSelector")
        if not namespaces and among is None:
            namespaces = [owner["metadata"]["namespace"]]
        theirs = other["metadata"]["namespace"]
        if theirs not in namespaces and not (among is not None and selects(among, self.namespaces.get(theirs, {}))):
            return False
        return selects(term["labelSelector"], labels_of(other))

    @staticmethod
    def together(node: Object, other: Object, key: str) -> bool:
        return key in labels_of(node) and labels_of(node)[key] == labels_of(other).get(key)

    def pod_affinity(self, pod: Object, node: Object) -> list[str]:
        required = pod_terms(pod, "podAffinity", "required")
        if required and not self.affinity_satisfied(required, pod, node):
            return ["node(s) didn't match pod affinity rules"]
        for term in pod_terms(pod, "podAntiAffinity", "required"):
            for other, place in self.placed():
                if self.term_selects(term, pod, other) and self.together(node, place, term["topologyKey"]):
                    return ["node(s) didn't match pod anti-affinity rules"]
        for other, place in self.placed():
            for term in pod_terms(other, "podAntiAffinity", "required"):
                if self.term_selects(term, other, pod) and self.together(node, place, term["topologyKey"]):
                    return ["node(s) didn't satisfy existing pods anti-affinity rules"]
        return []

    def affinity_satisfied(self, terms: list[Object], pod: Object, node: Object) -> bool:
        if any(term["topologyKey"] not in labels_of(node) for term in terms):
            return False
        friends = [
            place for other, place in self.placed() if all(self.term_selects(term, pod, other) for term in terms)
        ]
        near = all(any(self.together(node, place, term["topologyKey"]) for place in friends) for term in terms)
        counted = any(term["topologyKey"] in labels_of(place) for place in friends for term in terms)
        return near or (not counted and all(self.term_selects(term, pod, pod) for term in terms))

    # -- scores: plugin → score of each of the feasible nodes ----------------------------------------------------------

    def scores(self, pod: Object, feasible: list[Object]) -> dict[str, list[int]]:
        told = {
            "NodeResourcesFit": [self.least_allocated(pod, node) for node in feasible],
            "TaintToleration": reverse([self.soft_taints(pod, node) for node in feasible]),
            "NodeAffinity": normalize([self.preferred_nodes(pod, node) for node in feasible]),
            "ImageLocality": [self.image_locality(pod, node) for node in feasible],
            "PodTopologySpread": self.spread_scores(pod, feasible),
            "InterPodAffinity": self.affinity_scores(pod, feasible),
        }
        asked = requests(pod)
        if asked.get("cpu") or asked.get("memory"):
            told["NodeResourcesBalancedAllocation"] = [self.balance(pod, node) for node in feasible]
        return told

    def least_allocated(self, pod: Object, node: Object) -> int:
        scores = []
        for name, unit in (("cpu", 1000), ("memory", 1)):
            have = round(number(node["status"]["allocatable"][name]) * unit)
            used = round(sum(nonzero(other)[name] for other in [*self.on(node), pod]) * unit)
            scores.append(0 if used > have else (have - used) * 100 // have)
        return sum(scores) // 2

    def balance(self, pod: Object, node: Object) -> int:
        def score(pods: list[Object]) -> int:
            fractions = []
            for name, unit in (("cpu", 1000), ("memory", 1)):
                have = round(number(node["status"]["allocatable"][name]) * unit)
                used = round(sum(requests(other).get(name, 0) for other in pods) * unit)
                fractions.append(min(1.0, used / have))
            return int((1 - abs(fractions[0] - fractions[1]) / 2) * 100)

        return 50 + (50 + score([*self.on(node), pod]) - score(self.on(node))) // 2

    def soft_taints(self, pod: Object, node: Object) -> int:
        tolerations = [
            each for each in pod["spec"].get("tolerations") or () if each.get("effect", "") in ("", "PreferNoSchedule")
        ]
        return sum(
            not any(tolerates(each, taint) for each in tolerations) for taint in taints(node, "PreferNoSchedule")
        )

    def preferred_nodes(self, pod: Object, node: Object) -> int:
        affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
        return sum(
            each["weight"]
            for each in affinity.get("preferred" + IGNORED) or ()
            if term_holds(each["preference"], labels_of(node))
        )

    def image_locality(self, pod: Object, node: Object) -> int:
        total = 0
        for container in pod["spec"]["containers"]:
            sizes = {name: image["sizeBytes"] for image in node["status"]["images"] for name in image["names"]}
            if container["image"] in sizes:
                holders = sum(
                    any(container["image"] in image["names"] for image in other["status"]["images"])
                    for other in self.nodes.values()
                )
                total += int(sizes[container["image"]] * (holders / len(self.nodes)))
        least, most = 23 * 2**20, 1000 * 2**20 * len(pod["spec"]["containers"])
        return 100 * (min(max(total, least), most) - least) // (most - least)

    def default_selector(self, pod: Object) -> list[Object]:
        """Selectors of the Services and of the owner: a Pod counts when all of them select it."""
        found = []
        owner = next(iter(pod["metadata"].get("ownerReferences") or ()), None)
        for each in self.workloads:
            if each["metadata"]["namespace"] != pod["metadata"]["namespace"]:
                continue
            if each["kind"] == "Service" and selects({"matchLabels": each["spec"]["selector"]}, labels_of(pod)):
                found.append({"matchLabels": each["spec"]["selector"]})
            if owner and (owner["kind"], owner["name"]) == (each["kind"], each["metadata"]["name"]):
                found.append(each["spec"]["selector"])
        return found

    def spread_scores(self, pod: Object, feasible: list[Object]) -> list[int]:
        constraints = self.constraints(pod, "ScheduleAnyway")
        require_all = True
        if not pod["spec"].get("topologySpreadConstraints"):
            require_all = False
            merged = self.default_selector(pod)
            if merged:
                expressions = [
                    {"key": key, "operator": "In", "values": [value]}
                    for each in merged
                    for key, value in each.get("matchLabels", {}).items()
                ]
                selector = {"matchExpressions": expressions}
                constraints = [
                    {"maxSkew": 3, "topologyKey": HOST, "labelSelector": selector},
                    {"maxSkew": 5, "topologyKey": ZONE, "labelSelector": selector},
                ]
        if not constraints:
            return [0] * len(feasible)

        def has_all(node: Object) -> bool:
            return all(each["topologyKey"] in labels_of(node) for each in constraints)

        ignored = [require_all and not has_all(node) for node in feasible]
        sums = [0.0] * len(feasible)
        for constraint in constraints:
            key = constraint["topologyKey"]
            kept = [node for node, out in zip(feasible, ignored, strict=True) if not out]
            domains: Counter[str | None] = Counter()
            for node in self.nodes.values():
                if (not require_all or has_all(node)) and self.included(constraint, pod, node):
                    domains[labels_of(node).get(key)] += self.matching(constraint, pod, node)
            size = len(kept) if key == HOST else len({labels_of(node).get(key) for node in kept})
            for place, node in enumerate(feasible):
                if ignored[place] or key not in labels_of(node):
                    continue
                count = self.matching(constraint, pod, node) if key == HOST else domains[labels_of(node)[key]]
                sums[place] += count * math.log(size + 2) + (constraint["maxSkew"] - 1)
        rounded = [math.floor(each + 0.5) for each in sums]
        kept_scores = [score for score, out in zip(rounded, ignored, strict=True) if not out]
        least, most = min(kept_scores, default=0), max(kept_scores, default=0)
        return [
            0 if out else 100 if most == 0 else 100 * (most + least - score) // most
            for score, out in zip(rounded, ignored, strict=True)
        ]

    def affinity_scores(self, pod: Object, feasible: list[Object]) -> list[int]:
        sums = [0] * len(feasible)

        def add(term: Object, weight: int, place: Object) -> None:
            for index, node in enumerate(feasible):
                if self.together(node, place, term["topologyKey"]):
                    sums[index] += weight

        for other, place in self.placed():
            for kind, sign in (("podAffinity", 1), ("podAntiAffinity", -1)):
                for each in pod_terms(pod, kind, "preferred"):
                    if self.term_selects(each["podAffinityTerm"], pod, other):
                        add(each["podAffinityTerm"], sign * each["weight"], place)
                for each in pod_terms(other, kind, "preferred"):
                    if self.term_selects(each["podAffinityTerm"], other, pod):
                        add(each["podAffinityTerm"], sign * each["weight"], place)
            for term in pod_terms(other, "podAffinity", "required"):
                if self.term_selects(term, other, pod):
                    add(term, 1, place)
        least, most = min(sums, default=0), max(sums, default=0)
        return [int(100.0 * ((each - least) / (most - least))) if most > least else 0 for each in sums]


def normalize(values: list[int]) -> list[int]:
    most = max(values, default=0)
    return [value * 100 // most if most else 0 for value in values]


def reverse(values: list[int]) -> list[int]:
    most = max(values, default=0)
    return [100 - value * 100 // most if most else 100 for value in values]
