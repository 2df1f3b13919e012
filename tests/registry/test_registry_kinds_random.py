"""Whatever object a kind's schema takes, its rules say what is wrong with it, and nothing breaks."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from clusters import ADMIN, NOW
from hypothesis import given, settings
from hypothesis import strategies as st

from fastkube.api import gates, schema, table
from fastkube.api.catalog import Catalog, ResourceType, api_version
from fastkube.api.schema import Schema
from fastkube.errors import Cause
from fastkube.registry.strategies import STRATEGIES
from fastkube.registry.strategy import Call, Object, Strategy

CATALOG = Catalog.builtin(frozenset(gates.NEEDS), frozenset(gates.GATED_VERSIONS))
KINDS = sorted(identity for identity in STRATEGIES if CATALOG.get(*identity).persisted)  # type: ignore[union-attr]

ONLY_LATER = {("", "nodes")}
"""Kinds of which upstream asks more when they change than when they are new (addresses of nodes are unique)."""

TEXTS = (
    "", "a", "a-b", "A_b", "e.com/x", "kubernetes.io/x", "10.0.0.1", "fd00::1", "10.0.0.0/8", "x/y/z", "*", "..", "/a",
    "Local", "ClusterIP", "LoadBalancer", "ExternalName", "NodePort", "None", "Cluster", "ClientIP", "TCP", "UDP", "In",
    "Exists", "NotIn", "Pod", "Container", "User", "Group", "ServiceAccount", "Role", "Limited", "Exempt", "Queue",
    "Reject", "Prefix", "IPv4", "IPv6", "FQDN", "All", "ExactCount", "Equal", "NoSchedule", "Always", "Never", "True",
    "Approved", "Denied", "kubernetes.io/tls", "kubernetes.io/dockercfg", "Terminating", "BestEffort", "50%", "v1",
    "device.x == 1", "true", "system-x", "exempt", "a" * 300, "é", "\x00", "[", "%zz", "1Gi", "2026-01-01T00:00:00Z",
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 5, 80, 443, 30000, 65535, 65536, 2**31 - 1, -(2**31))
QUANTITIES = ("0", "1", "-1", "1.5", "100m", "1Gi", "5n", "10E", "500Mi", 1, 2.5)
KEYS = (
    "a",
    "cpu",
    "memory",
    "storage",
    "pods",
    "hugepages-2Mi",
    "e.com/x",
    "requests.cpu",
    "nvidia.com/gpu",
    "bad key",
)


def value_of(shape: Schema, dice: random.Random, depth: int) -> Any:
    """A random value of the type; deep ones are mostly empty."""
    kind, code = shape.type, shape.code[:1]
    if code in ("A", "B", "S") or (code == "@" and kind == "any"):
        return {}  # a JSON schema, something else that stands for one, or a struct without fields
    if kind == "object":
        return {
            name: value_of(each, dice, depth + 1)
            for name, each in shape.fields.items()
            if dice.random() < (0.9 if depth == 0 else 0.45 if depth < 4 else 0.15 if depth < 9 else 0)
        }
    if kind == "array":
        return [value_of(shape.items, dice, depth + 1) for _ in range(dice.choice((0, 1, 1, 2, 3)))]
    if kind == "map":
        return {dice.choice(KEYS): value_of(shape.items, dice, depth + 1) for _ in range(dice.choice((0, 1, 2)))}
    plain: dict[str, Callable[[], Any]] = {
        "b": lambda: dice.random() < 0.5,
        "i": lambda: dice.choice(NUMBERS),
        "l": lambda: dice.choice((*NUMBERS, 2**62)),
        "d": lambda: 0.5,
        "y": lambda: dice.choice(("", "YQ==", "LS0tLS1CRUdJTiBYLS0tLS0K")),
        "t": lambda: "2026-01-01T00:00:00Z",
        "u": lambda: "2026-01-01T00:00:00.000000Z",
        "q": lambda: dice.choice(QUANTITIES),
        "x": lambda: dice.choice((*NUMBERS[:8], "web", "50%", "")),
        "j": lambda: dice.choice(({}, {"a": 1}, [], "x", 1)),
        "f": dict,
    }
    return plain.get(code, lambda: dice.choice(TEXTS))()


def random_object(rtype: ResourceType, dice: random.Random) -> Object:
    version = api_version(rtype.storage_group, rtype.storage_version)
    shape = schema.load(version, rtype.kind)
    obj: Object = value_of(shape, dice, 0)
    obj.update(apiVersion=version, kind=rtype.kind)
    metadata = {
        "name": dice.choice(("a", "system-node-critical", "exempt", "A_")),
        "creationTimestamp": None,
        "uid": "u",
    }
    obj["metadata"] = {**metadata, "labels": {"a": "b"}, "annotations": {dice.choice(TEXTS): "x"}}
    if rtype.namespaced:
        obj["metadata"]["namespace"] = "default"
    schema.walk(shape, obj)
    return obj


def judged(causes: list[Cause]) -> list[Cause]:
    for cause in causes:
        assert isinstance(cause.field, str), cause
        assert cause.message, cause
        assert cause.reason, cause
    return causes


def new(strategy: Strategy, call: Call, obj: Object) -> list[Cause]:
    strategy.default(obj)
    defaulted = copy.deepcopy(obj)
    strategy.default(obj)
    assert obj == defaulted, "defaults of an object that has them change nothing"
    strategy.prepare_for_create(call, obj)
    causes = judged(strategy.validate(call, obj))
    assert all(isinstance(text, str) for text in strategy.warnings(call, obj, None))
    return causes


@pytest.mark.parametrize("identity", KINDS, ids=lambda identity: ".".join(filter(None, reversed(identity))))
@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_the_rules_of_a_kind_bear_any_object(identity: tuple[str, str], seed: int):
    dice = random.Random(seed)
    rtype, strategy = CATALOG.get(*identity), STRATEGIES[identity]
    assert rtype is not None
    call = Call(rtype, rtype.versions[0], "create", "default", "a", user=ADMIN, now=NOW)
    old = random_object(rtype, dice)
    good = not new(strategy, call, old)
    old["metadata"]["generation"] = 1
    if good:
        json.dumps(table.cells(rtype, rtype.versions[0], old, NOW))
    same = copy.deepcopy(old)
    strategy.default(same)
    strategy.prepare_for_update(call, same, copy.deepcopy(old))
    complaints = judged(strategy.validate_update(call, same, copy.deepcopy(old)))
    assert not good or identity in ONLY_LATER or not complaints, "a good object may be written again as it is"
    other = random_object(rtype, dice)
    strategy.default(other)
    for prepare, validate in (
        (strategy.prepare_for_update, strategy.validate_update),
        (strategy.prepare_for_status_update, strategy.validate_status_update),
    ):
        changed, before = copy.deepcopy(other), copy.deepcopy(old)
        prepare(call, changed, before)
        strategy.spec_changed(changed, before)
        judged(validate(call, changed, before))
        assert all(isinstance(text, str) for text in strategy.warnings(call, changed, before))
