"""Objects for the scheduler's tests, and random clusters."""

from __future__ import annotations

import itertools
import random
from typing import Any

Object = dict[str, Any]

HOST = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"

_numbers = itertools.count(1)


def node(name: str, labels: dict[str, str] | None = None, **more: Any) -> Object:
    """`more`: allocatable, taints, unschedulable, images, conditions."""
    allocatable = {"cpu": "4", "memory": "32Gi", "pods": "110", **more.get("allocatable", {})}
    spec: Object = {}
    if more.get("taints"):
        spec["taints"] = [taint(each) if isinstance(each, str) else each for each in more["taints"]]
    if more.get("unschedulable"):
        spec["unschedulable"] = True
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "uid": f"uid-{name}", "labels": {HOST: name, **(labels or {})}},
        "spec": spec,
        "status": {"allocatable": allocatable, "images": more.get("images", [])},
    }


def taint(text: str) -> Object:
    """`key=value:effect` or `key:effect`."""
    pair, _, effect = text.rpartition(":")
    key, _, value = pair.partition("=")
    return {"key": key, "value": value, "effect": effect} if value else {"key": key, "effect": effect}


def pod(name: str = "", *, node: str = "", labels: dict[str, str] | None = None, **more: Any) -> Object:
    """`more`: requests, namespace, ports, priority, deleting, owner, nominated, status, image and any field of spec."""
    number = next(_numbers)
    name = name or f"pod-{number}"
    metadata: Object = {
        "name": name,
        "namespace": more.pop("namespace", "default"),
        "uid": f"uid-{name}-{number}",
        "labels": labels or {},
    }
    if more.pop("deleting", False):
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    owner = more.pop("owner", None)
    if owner:
        api_version, kind, owner_name = owner
        metadata["ownerReferences"] = [
            {
                "apiVersion": api_version,
                "kind": kind,
                "name": owner_name,
                "uid": f"uid-{owner_name}",
                "controller": True,
            }
        ]
    container: Object = {"name": "c", "image": more.pop("image", "app:1")}
    requests, ports = more.pop("requests", None), more.pop("ports", None)
    if requests:
        container["resources"] = {"requests": requests}
    if ports:
        container["ports"] = ports
    status: Object = dict(more.pop("status", {}))
    if nominated := more.pop("nominated", ""):
        status["nominatedNodeName"] = nominated
    spec: Object = {"containers": [container], **more}
    if node:
        spec["nodeName"] = node
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def namespace(name: str, labels: dict[str, str] | None = None) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels or {}}}


def pod_term(labels: dict[str, str] | None, key: str, **more: Any) -> Object:
    selector = None if labels is None else {"matchLabels": labels}
    return {"labelSelector": selector, "topologyKey": key, **more}


def pod_affinity(kind: str, *terms: Object, preferred: bool = False) -> Object:
    """`kind`: podAffinity or podAntiAffinity; preferred terms have a weight beside podAffinityTerm."""
    when = "preferred" if preferred else "required"
    return {kind: {f"{when}DuringSchedulingIgnoredDuringExecution": list(terms)}}


def node_affinity(*terms: Object, preferred: list[Object] | None = None) -> Object:
    told: Object = {}
    if terms:
        told["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": list(terms)}
    if preferred:
        told["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
    return {"nodeAffinity": told}


def expression(key: str, operator: str, *values: str) -> Object:
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


def spread(key: str, labels: dict[str, str] | None, *, skew: int = 1, hard: bool = True, **more: Any) -> Object:
    return {
        "maxSkew": skew,
        "topologyKey": key,
        "whenUnsatisfiable": "DoNotSchedule" if hard else "ScheduleAnyway",
        "labelSelector": None if labels is None else {"matchLabels": labels},
        **more,
    }


class RandomCluster:
    """Objects drawn from small pools, so that they concern each other often."""

    APPS = ("a", "b", "c")
    ZONES = ("z1", "z2", "z3")
    KEYS = (HOST, ZONE, "rack")
    IMAGES = ("app:1", "app:2", "big:latest")

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.namespaces = [namespace("default", {"team": "x"}), namespace("other", {"team": "y"})]
        self.workloads = [
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "svc", "namespace": "default"},
                "spec": {"selector": {"app": "a"}},
            },
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "metadata": {"name": "rs", "namespace": "default"},
                "spec": {"selector": {"matchLabels": {"app": "b"}}},
            },
        ]
        self.nodes = [self.node(number) for number in range(self.random.randint(2, 14))]

    def objects(self) -> list[Object]:
        return [*self.namespaces, *self.workloads, *self.nodes]

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def node(self, number: int) -> Object:
        draw = self.random
        labels = {"n": str(number)}
        if self.chance(0.85):
            labels[ZONE] = draw.choice(self.ZONES)
        if self.chance(0.6):
            labels["rack"] = draw.choice("12")
        if self.chance(0.4):
            labels["disk"] = draw.choice(("ssd", "hdd"))
        taints = [
            text
            for text, share in (("t=1:NoSchedule", 0.15), ("t=2:NoExecute", 0.1), ("soft:PreferNoSchedule", 0.3))
            if self.chance(share)
        ]
        allocatable = {"cpu": draw.choice(("1", "2", "4")), "memory": draw.choice(("2Gi", "4Gi", "8Gi"))}
        allocatable["pods"] = draw.choice(("3", "10", "110"))
        if self.chance(0.3):
            allocatable["example.com/gpu"] = draw.choice("124")
        if self.chance(0.5):
            allocatable["ephemeral-storage"] = "10Gi"
        images = [
            {"names": [image], "sizeBytes": draw.choice((10, 100, 700, 3000)) * 1024 * 1024}
            for image in self.IMAGES
            if self.chance(0.4)
        ]
        return node(
            f"node-{number}",
            labels,
            taints=taints,
            allocatable=allocatable,
            images=images,
            unschedulable=self.chance(0.07),
        )

    def pod(self, *, node: str = "") -> Object:
        draw = self.random
        app = draw.choice(self.APPS)
        more: Object = {"labels": {"app": app, "tier": draw.choice("12")}, "namespace": "default"}
        if self.chance(0.2):
            more["namespace"] = "other"
        more["image"] = draw.choice(self.IMAGES)
        if self.chance(0.8):
            more["requests"] = {"cpu": draw.choice(("100m", "250m", "700m")), "memory": draw.choice(("64Mi", "600Mi"))}
            if self.chance(0.15):
                more["requests"]["example.com/gpu"] = "1"
            if self.chance(0.1):
                more["requests"]["ephemeral-storage"] = "2Gi"
        if self.chance(0.15):
            more["owner"] = ("apps/v1", "ReplicaSet", "rs")
        if self.chance(0.2):
            more["nodeSelector"] = {"disk": draw.choice(("ssd", "hdd"))}
        if self.chance(0.3):
            more["tolerations"] = draw.choice(
                (
                    [{"operator": "Exists"}],
                    [{"key": "t", "operator": "Equal", "value": "1", "effect": "NoSchedule"}],
                    [{"key": "soft", "operator": "Exists", "effect": "PreferNoSchedule"}],
                )
            )
        if self.chance(0.2):
            more["ports"] = [self._port() for _ in range(draw.randint(1, 2))]
        if affinity := self._affinity():
            more["affinity"] = affinity
        if self.chance(0.35):
            more["topologySpreadConstraints"] = [self._spread(app) for _ in range(draw.randint(1, 2))]
        if node and self.chance(0.1):
            more["deleting"] = True
        return pod(node=node, **more)

    def _port(self) -> Object:
        port: Object = {"containerPort": 80, "hostPort": self.random.choice((8080, 8081))}
        if self.chance(0.4):
            port["hostIP"] = self.random.choice(("10.0.0.1", "0.0.0.0"))
        if self.chance(0.3):
            port["protocol"] = "UDP"
        return port

    def _affinity(self) -> Object:
        affinity: Object = {}
        if self.chance(0.25):
            required = [{"matchExpressions": [self._expression()]} for _ in range(self.random.randint(1, 2))]
            preferred = [
                {"weight": self.random.randint(1, 100), "preference": {"matchExpressions": [self._expression()]}}
                for _ in range(self.random.randint(0, 2))
            ]
            affinity |= node_affinity(*(required if self.chance(0.5) else ()), preferred=preferred)
        for kind, share in (("podAffinity", 0.2), ("podAntiAffinity", 0.25)):
            if self.chance(share):
                affinity |= pod_affinity(kind, *(self._term() for _ in range(self.random.randint(1, 2))))
            if self.chance(share):
                terms = [
                    {"weight": self.random.randint(1, 100), "podAffinityTerm": self._term()}
                    for _ in range(self.random.randint(1, 2))
                ]
                affinity[kind] = {
                    **affinity.get(kind, {}),
                    "preferredDuringSchedulingIgnoredDuringExecution": terms,
                }
        return affinity

    def _expression(self) -> Object:
        return self.random.choice(
            (
                expression("disk", "In", "ssd"),
                expression("disk", "NotIn", "ssd"),
                expression("rack", "Exists"),
                expression("rack", "DoesNotExist"),
                expression("n", "Gt", "4"),
                expression("n", "Lt", "6"),
                expression(ZONE, "In", "z1", "z2"),
            )
        )

    def _term(self) -> Object:
        more: Object = {}
        if self.chance(0.2):
            more["namespaces"] = [self.random.choice(("default", "other"))]
        if self.chance(0.2):
            more["namespaceSelector"] = self.random.choice(({}, {"matchLabels": {"team": "y"}}))
        term = pod_term({"app": self.random.choice(self.APPS)}, self.random.choice(self.KEYS), **more)
        if self.chance(0.2):
            term["labelSelector"] = {"matchExpressions": [expression("tier", "NotIn", "1")]}
        return term

    def _spread(self, app: str) -> Object:
        more: Object = {}
        hard = self.chance(0.5)
        if hard and self.chance(0.2):
            more["minDomains"] = 3
        if self.chance(0.2):
            more["nodeAffinityPolicy"] = "Ignore"
        if self.chance(0.2):
            more["nodeTaintsPolicy"] = "Honor"
        if self.chance(0.2):
            more["matchLabelKeys"] = ["tier"]
        labels = {"app": app if self.chance(0.8) else self.random.choice(self.APPS)}
        return spread(self.random.choice(self.KEYS), labels, skew=self.random.randint(1, 3), hard=hard, **more)
