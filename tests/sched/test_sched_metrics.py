"""Histograms are told as Prometheus reads them, however many values came since the last reading."""

from __future__ import annotations

import random
import re
from typing import Any

from fastkube.scheduler.metrics import NOTED_MAX, Histogram, Metrics

BOUNDS = (1, 2, 4, 8)


def text(values: list[float]) -> list[str]:
    """What a histogram with these bounds must say."""
    lines = [f'h_bucket{{of="x",le="{bound}"}} {sum(value <= bound for value in values)}' for bound in BOUNDS]
    return [*lines, f'h_bucket{{of="x",le="+Inf"}} {len(values)}', f'h_count{{of="x"}} {len(values)}']


def test_values_are_counted_in_all_buckets_that_reach_them() -> None:
    histogram = Histogram("h", "", ("of",), start=1, factor=2, count=len(BOUNDS))
    assert list(histogram.lines()) == []
    chance, values = random.Random(7), []
    for many in (1, 5, NOTED_MAX, 3 * NOTED_MAX + 1):
        for _ in range(many):
            values.append(float(chance.randrange(0, 12)))  # bounds among them
            histogram.observe(values[-1], "x")
        told = list(histogram.lines())
        assert [line for line in told if "_sum" not in line] == text(values)
        assert f'h_sum{{of="x"}} {int(sum(values))}' in told


def test_values_noted_at_less_expense_count_as_well() -> None:
    histogram = Histogram("h", "", ("of",), start=1, factor=2, count=len(BOUNDS))
    noted = histogram.notes("x")
    assert list(histogram.lines()) == []
    noted += [1.0, 3.0]
    histogram.observe(9.0, "x")
    assert [line for line in histogram.lines() if "_sum" not in line] == text([1.0, 3.0, 9.0])
    assert list(histogram.lines())


# ---------------------------------------------------------------- upstream's list


def exponential(start: float, factor: float, count: int) -> list[float]:
    return [start * factor**step for step in range(count)]


MILLIS = exponential(0.001, 2, 15)
POINTS = exponential(0.0001, 2, 12)
FINE = exponential(0.00001, 1.5, 20)
HINTS = exponential(0.00001, 2, 12)
LONG = exponential(0.01, 2, 20)
UPSTREAM: dict[str, tuple[str, str, str, list[float]]] = {
    # name: (kind, stability, labels, buckets), as kube-scheduler 1.36 registers them with its default feature gates
    "schedule_attempts_total": ("counter", "STABLE", "result profile", []),
    "scheduling_attempt_duration_seconds": ("histogram", "STABLE", "result profile", MILLIS),
    "scheduling_algorithm_duration_seconds": ("histogram", "ALPHA", "", MILLIS),
    "event_handling_duration_seconds": ("histogram", "ALPHA", "event", POINTS),
    "preemption_victims": ("histogram", "STABLE", "", exponential(1, 2, 7)),
    "preemption_attempts_total": ("counter", "STABLE", "", []),
    "pending_pods": ("gauge", "STABLE", "queue", []),
    "pod_scheduling_sli_duration_seconds": ("histogram", "BETA", "attempts", LONG),
    "pod_scheduling_attempts": ("histogram", "STABLE", "", exponential(1, 2, 5)),
    "pod_scheduled_after_flush_total": ("counter", "ALPHA", "", []),
    "framework_extension_point_duration_seconds": ("histogram", "STABLE", "extension_point status profile", POINTS),
    "plugin_execution_duration_seconds": ("histogram", "ALPHA", "plugin extension_point status", FINE),
    "queue_incoming_pods_total": ("counter", "STABLE", "queue event", []),
    "goroutines": ("gauge", "BETA", "operation", []),
    "permit_wait_duration_seconds": ("histogram", "BETA", "result", MILLIS),
    "cache_size": ("gauge", "ALPHA", "type", []),
    "unschedulable_pods": ("gauge", "BETA", "plugin profile", []),
    "plugin_evaluation_total": ("counter", "BETA", "plugin extension_point profile", []),
    "batch_attempts_total": ("counter", "ALPHA", "profile result", []),
    "batch_cache_flushed_total": ("counter", "ALPHA", "profile reason", []),
    "get_node_hint_duration_seconds": ("histogram", "ALPHA", "hinted profile", HINTS),
    "store_schedule_results_duration_seconds": ("histogram", "ALPHA", "profile", HINTS),
    "volume_scheduling_stage_error_total": ("counter", "ALPHA", "operation", []),
    "queueing_hint_execution_duration_seconds": ("histogram", "ALPHA", "plugin event hint", FINE),
    "inflight_events": ("gauge", "ALPHA", "event", []),
    "preemption_goroutines_duration_seconds": ("histogram", "ALPHA", "result", LONG),
    "preemption_goroutines_execution_total": ("counter", "ALPHA", "result", []),
    "resourceclaim_creates_total": ("counter", "ALPHA", "status", []),
    "dra_bindingconditions_allocations_total": ("counter", "ALPHA", "profile driver status", []),
    "dra_bindingconditions_wait_duration_seconds": (
        "histogram", "ALPHA", "profile driver status", exponential(0.1, 2, 14)
    ),
    "podgroup_schedule_attempts_total": ("counter", "ALPHA", "result profile", []),
    "podgroup_scheduling_attempt_duration_seconds": ("histogram", "ALPHA", "result profile", MILLIS),
    "podgroup_scheduling_algorithm_duration_seconds": ("histogram", "ALPHA", "", MILLIS),
}  # fmt: skip
"""scheduler_volume_binder_cache_requests_total is registered there too, and never counted."""


def test_names_kinds_and_stability_are_upstreams() -> None:
    text = Metrics().text()
    helps = re.findall(r"# HELP scheduler_(\w+) \[(\w+)\] ", text)
    kinds = re.findall(r"# TYPE scheduler_(\w+) (\w+)", text)
    assert dict(helps) == {name: stability for name, (_, stability, _, _) in UPSTREAM.items()}
    assert dict(kinds) == {name: kind for name, (kind, _, _, _) in UPSTREAM.items()}


def test_labels_and_buckets_are_upstreams() -> None:
    found: dict[str, Any] = {each.name.removeprefix("scheduler_"): each for each in Metrics().all()}
    for name, (_, _, labels, bounds) in UPSTREAM.items():
        assert set(found[name].labels) == set(labels.split()), name
        assert getattr(found[name], "bounds", []) == bounds, name
