"""Histograms are told as Prometheus reads them, however many values came since the last reading."""

from __future__ import annotations

import random

from fastkube.scheduler.metrics import NOTED_MAX, Histogram

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
