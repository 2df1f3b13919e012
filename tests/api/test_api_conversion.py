"""Conversions between served versions: autoscalers of v1 and v2, events of both groups."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import msgpack
import pytest

from fastkube.api import conversion
from fastkube.api.catalog import Catalog, ResourceType

Object = dict[str, Any]
ALPHA = "autoscaling.alpha.kubernetes.io/"


def resource(group: str, name: str) -> ResourceType:
    found = Catalog.builtin().get(group, name)
    assert found is not None
    return found


SCALERS = resource("autoscaling", "horizontalpodautoscalers")
EVENTS = resource("events.k8s.io", "events")
TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}


def scaler(version: str, spec: Object, status: Object | None = None, annotations: Object | None = None) -> Object:
    metadata: Object = {"name": "a", "annotations": annotations} if annotations else {"name": "a"}
    return {
        "apiVersion": f"autoscaling/{version}",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata,
        "spec": {"scaleTargetRef": TARGET, "maxReplicas": 5, **spec},
        "status": status or {},
    }


def to_v1(obj: Object) -> Object:
    return conversion.convert(SCALERS, obj, "autoscaling/v1")


def to_v2(obj: Object) -> Object:
    return conversion.convert(SCALERS, obj, "autoscaling/v2")


def utilization(percent: int) -> Object:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


METRICS = [
    {
        "type": "Resource",
        "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "500Mi"}},
    },
    {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "10"}}},
    {
        "type": "External",
        "external": {
            "metric": {"name": "q", "selector": {"matchLabels": {"app": "a"}}},
            "target": {"type": "Value", "value": "5"},
        },
    },
    {
        "type": "Object",
        "object": {
            "metric": {"name": "o"},
            "describedObject": {"kind": "Service", "name": "s", "apiVersion": "v1"},
            "target": {"type": "Value", "value": "2k"},
        },
    },
    {
        "type": "ContainerResource",
        "containerResource": {
            "name": "cpu",
            "container": "c",
            "target": {"type": "Utilization", "averageUtilization": 5},
        },
    },
]
BEHAVIOR = {
    "scaleUp": {
        "stabilizationWindowSeconds": 0,
        "selectPolicy": "Max",
        "policies": [{"type": "Pods", "value": 2, "periodSeconds": 15}],
    },
    "scaleDown": {
        "stabilizationWindowSeconds": 60,
        "selectPolicy": "Max",
        "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
    },
}


def test_cpu_utilization_is_a_field_of_v1() -> None:
    v2 = to_v2(scaler("v1", {"targetCPUUtilizationPercentage": 70, "minReplicas": 2}))
    assert v2["spec"] == {"scaleTargetRef": TARGET, "minReplicas": 2, "maxReplicas": 5, "metrics": [utilization(70)]}
    assert v2["status"] == {"desiredReplicas": 0, "currentMetrics": None}
    assert to_v1(v2)["spec"]["targetCPUUtilizationPercentage"] == 70
    assert "annotations" not in to_v1(v2)["metadata"]


def test_v1_keeps_metrics_and_behaviour_in_annotations() -> None:
    v1 = to_v1(scaler("v2", {"metrics": [utilization(60), *METRICS], "behavior": BEHAVIOR}))
    assert v1["spec"]["targetCPUUtilizationPercentage"] == 60
    assert v1["status"] == {"currentReplicas": 0, "desiredReplicas": 0}
    notes = v1["metadata"]["annotations"]
    assert notes[ALPHA + "metrics"] == (
        '[{"type":"Resource","resource":{"name":"memory","targetAverageValue":"500Mi"}},'
        '{"type":"Pods","pods":{"metricName":"rps","targetAverageValue":"10"}},'
        '{"type":"External","external":{"metricName":"q","metricSelector":{"matchLabels":{"app":"a"}},'
        '"targetValue":"5"}},'
        '{"type":"Object","object":{"target":{"kind":"Service","name":"s","apiVersion":"v1"},"metricName":"o",'
        '"targetValue":"2k"}},'
        '{"type":"ContainerResource","containerResource":{"name":"cpu","targetAverageUtilization":5,"container":"c"}}]'
    )
    assert notes[ALPHA + "behavior"] == (
        '{"ScaleUp":{"StabilizationWindowSeconds":0,"SelectPolicy":"Max",'
        '"Policies":[{"Type":"Pods","Value":2,"PeriodSeconds":15}],"Tolerance":null},'
        '"ScaleDown":{"StabilizationWindowSeconds":60,"SelectPolicy":"Max",'
        '"Policies":[{"Type":"Percent","Value":100,"PeriodSeconds":15}],"Tolerance":null}}'
    )


def test_what_went_into_annotations_comes_back() -> None:
    original = scaler("v2", {"metrics": [*METRICS, utilization(60)], "behavior": BEHAVIOR})
    back = to_v2(to_v1(original))
    assert back["spec"] == original["spec"]
    assert back["metadata"] == {"name": "a"}


def test_status_is_told_in_annotations() -> None:
    condition = {
        "type": "AbleToScale",
        "status": "True",
        "reason": "R",
        "message": "m",
        "lastTransitionTime": "2020-01-01T00:00:00Z",
    }
    current = {
        "type": "Resource",
        "resource": {"name": "cpu", "current": {"averageUtilization": 33, "averageValue": "100m"}},
    }
    status = {"currentReplicas": 1, "desiredReplicas": 2, "currentMetrics": [current], "conditions": [condition]}
    v1 = to_v1(scaler("v2", {"metrics": [utilization(80)]}, status))
    assert v1["status"] == {"currentReplicas": 1, "desiredReplicas": 2, "currentCPUUtilizationPercentage": 33}
    notes = v1["metadata"]["annotations"]
    assert notes[ALPHA + "conditions"] == (
        '[{"type":"AbleToScale","status":"True","lastTransitionTime":"2020-01-01T00:00:00Z",'
        '"reason":"R","message":"m"}]'
    )
    assert json.loads(notes[ALPHA + "current-metrics"]) == [
        {
            "type": "Resource",
            "resource": {"name": "cpu", "currentAverageUtilization": 33, "currentAverageValue": "100m"},
        }
    ]
    assert to_v2(v1)["status"] == status


def test_unreadable_annotations_are_dropped() -> None:
    v2 = to_v2(scaler("v1", {}, annotations={ALPHA + "metrics": "{", ALPHA + "behavior": "[]", "mine": "x"}))
    assert "metrics" not in v2["spec"] and "behavior" not in v2["spec"]
    assert v2["metadata"]["annotations"] == {"mine": "x"}


CORE_EVENT = {
    "apiVersion": "v1",
    "kind": "Event",
    "metadata": {"name": "a"},
    "involvedObject": {"kind": "Pod", "name": "p"},
    "reason": "R",
    "message": "M",
    "type": "Normal",
    "source": {"component": "c"},
    "firstTimestamp": "2020-01-01T00:00:00Z",
    "lastTimestamp": "2020-01-02T00:00:00Z",
    "count": 3,
    "eventTime": None,
    "reportingComponent": "",
    "reportingInstance": "",
}
NEW_EVENT = {
    "apiVersion": "events.k8s.io/v1",
    "kind": "Event",
    "metadata": {"name": "a"},
    "regarding": {"kind": "Pod", "name": "p"},
    "reason": "R",
    "note": "M",
    "type": "Normal",
    "deprecatedSource": {"component": "c"},
    "deprecatedFirstTimestamp": "2020-01-01T00:00:00Z",
    "deprecatedLastTimestamp": "2020-01-02T00:00:00Z",
    "deprecatedCount": 3,
    "eventTime": None,
}


def test_events_of_both_groups_are_the_same_events() -> None:
    assert conversion.convert(EVENTS, CORE_EVENT, "events.k8s.io/v1") == NEW_EVENT
    assert conversion.convert(EVENTS, NEW_EVENT, "v1") == CORE_EVENT


def test_encoded_objects_convert_too() -> None:
    value = msgpack.packb(CORE_EVENT)
    assert msgpack.unpackb(conversion.convert_value(EVENTS, value, "events.k8s.io/v1")) == NEW_EVENT


@pytest.mark.parametrize(
    ("new", "core"),
    [("regarding.name", "involvedObject.name"), ("reportingController", "reportingComponent"), ("reason", "reason")],
)
def test_field_selectors_of_events_have_core_names(new: str, core: str) -> None:
    assert conversion.event_field(new) == core


def test_versions_of_a_custom_kind_differ_in_their_name_only() -> None:
    widgets = dataclasses.replace(SCALERS, group="example.com", kind="Widget", custom=True)
    obj = {"apiVersion": "example.com/v1", "kind": "Widget", "spec": {"x": 1}}
    assert conversion.convert(widgets, obj, "example.com/v2") == {**obj, "apiVersion": "example.com/v2"}
    assert obj["apiVersion"] == "example.com/v1"
