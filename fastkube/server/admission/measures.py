"""What dynamic admission is counted by, under upstream's metric names."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Protocol

_HOOK_BUCKETS_S = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0)
_POLICY_BUCKETS_S = (0.0000005, 0.001, 0.01, 0.1, 1.0)

_COUNTERS = {
    "apiserver_admission_webhook_request_total": "Calls of admission webhooks.",
    "apiserver_admission_webhook_rejection_count": "Requests that admission webhooks, or their failures, refused.",
    "apiserver_admission_webhook_fail_open_count": "Failed calls of admission webhooks that were passed over.",
    "apiserver_admission_match_condition_exclusions_total": "Requests that match conditions left out.",
    "apiserver_admission_match_condition_evaluation_errors_total": "Match conditions that could not be worked out.",
    "apiserver_validating_admission_policy_check_total": "Decisions of validating admission policies.",
    "apiserver_mutating_admission_policy_check_total": "Decisions of mutating admission policies.",
}
_HISTOGRAMS = {
    "apiserver_admission_webhook_admission_duration_seconds": ("Time of admission webhooks.", _HOOK_BUCKETS_S),
    "apiserver_validating_admission_policy_check_duration_seconds": (
        "Time of validating admission policies.", _POLICY_BUCKETS_S,
    ),
    "apiserver_mutating_admission_policy_check_duration_seconds": (
        "Time of mutating admission policies.", _POLICY_BUCKETS_S,
    ),
}  # fmt: skip

_Labels = tuple[tuple[str, str], ...]


class Page(Protocol):
    """Where metrics are written to (fastkube.server.metrics)."""

    def head(self, name: str, help_text: str, kind: str) -> None: ...

    def sample(self, name: str, labels: Mapping[str, str], value: float) -> None: ...


class Measures:
    """Counters and histograms, by name and labels; empty ones are not shown."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[_Labels, int]] = {}
        self._times: dict[str, dict[_Labels, list[float]]] = {}

    def count(self, series_name: str, /, **labels: str) -> None:
        series = self._counts.setdefault(series_name, {})
        key = tuple(labels.items())
        series[key] = series.get(key, 0) + 1

    def time(self, series_name: str, seconds: float, /, **labels: str) -> None:
        """The last two of a series' numbers are its sum and its count."""
        buckets = _HISTOGRAMS[series_name][1]
        series = self._times.setdefault(series_name, {}).setdefault(tuple(labels.items()), [0.0] * (len(buckets) + 3))
        series[bisect_left(buckets, seconds)] += 1
        series[-2] += seconds
        series[-1] += 1

    def render(self, page: Page) -> None:
        for name, told in self._counts.items():
            page.head(name, _COUNTERS[name], "counter")
            for labels, value in told.items():
                page.sample(name, dict(labels), value)
        for name, timed in self._times.items():
            help_text, limits = _HISTOGRAMS[name]
            page.head(name, help_text, "histogram")
            for labels, series in timed.items():
                _histogram(page, name, dict(labels), limits, series)


def _histogram(page: Page, name: str, labels: dict[str, str], limits: tuple[float, ...], series: list[float]) -> None:
    count = 0
    for limit, inside in zip((*map(repr, limits), "+Inf"), series, strict=False):
        count += int(inside)
        page.sample(f"{name}_bucket", {**labels, "le": limit}, count)
    page.sample(f"{name}_sum", labels, series[-2])
    page.sample(f"{name}_count", labels, int(series[-1]))
