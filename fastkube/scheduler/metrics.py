"""The scheduler's metrics, under upstream's names, in Prometheus' text format."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from fastkube import __version__
from fastkube.scheduler.evaluations import Asked, Evaluations
from fastkube.scheduler.metrics_text import Labels, sample

NOTED_MAX = 1024
T = TypeVar("T")


class Counter:
    """Only rises."""

    kind = "counter"

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:
        self.name, self.help, self.labels = name, help, labels
        self.values: dict[Labels, float] = {}

    def add(self, *labels: str, amount: float = 1) -> None:
        self.values[labels] = self.values.get(labels, 0) + amount

    def lines(self) -> Iterator[str]:
        for labels, value in self.values.items():
            yield sample(self.name, dict(zip(self.labels, labels, strict=True)), value)


class Gauge:
    """Read when it is asked for."""

    kind = "gauge"

    def __init__(self, name: str, help: str, labels: Labels, read: Callable[[], Mapping[Labels, float]]) -> None:
        self.name, self.help, self.labels, self._read = name, help, labels, read

    def lines(self) -> Iterator[str]:
        for values, number in self._read().items():
            yield sample(self.name, dict(zip(self.labels, values, strict=True)), number)


class Histogram:
    """`start`, `factor` and `count` of the buckets are upstream's.

    Values are noted as they come and sorted into buckets many at a time: an attempt has a dozen of them.
    """

    kind = "histogram"

    def __init__(
        self, name: str, help: str, labels: Labels = (), *, start: float = 0.001, factor: float = 2, count: int = 15
    ) -> None:
        self.name, self.help, self.labels = name, help, labels
        self.bounds = [start * factor**step for step in range(count)]
        self._noted: dict[Labels, list[float]] = {}
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, value: float, *labels: str) -> None:
        noted = self._noted.get(labels) or self.notes(*labels)
        noted.append(value)
        if len(noted) >= NOTED_MAX:
            self._sort(labels)

    def notes(self, *labels: str) -> list[float]:
        """Where values may be noted at less expense; who does so calls `sort` now and then."""
        if labels not in self._noted:
            self._noted[labels] = []
            self._counts[labels] = [0] * (len(self.bounds) + 1)
            self._sums[labels] = 0.0
        return self._noted[labels]

    def sort(self) -> None:
        for labels in self._noted:
            self._sort(labels)

    def _sort(self, labels: Labels) -> None:
        """What was noted, into buckets; a value on a bound belongs below it."""
        noted, counts = sorted(self._noted[labels]), self._counts[labels]
        self._noted[labels].clear()
        self._sums[labels] += sum(noted)
        below = 0
        for place, bound in enumerate(self.bounds):
            upto = bisect_right(noted, bound, below)
            counts[place] += upto - below
            below = upto
        counts[-1] += len(noted) - below

    def lines(self) -> Iterator[str]:
        self.sort()
        for values, counts in self._counts.items():
            if not any(counts):
                continue  # nothing has been noted yet
            labels = dict(zip(self.labels, values, strict=True))
            total = 0
            for bound, count in zip(self.bounds, counts, strict=False):
                total += count
                yield sample(f"{self.name}_bucket", {**labels, "le": f"{bound:g}"}, total)
            total += counts[-1]
            yield sample(f"{self.name}_bucket", {**labels, "le": "+Inf"}, total)
            yield sample(f"{self.name}_sum", labels, self._sums[values])
            yield sample(f"{self.name}_count", labels, total)


_FINE: Any = {"start": 0.00001, "factor": 1.5, "count": 20}
SAMPLED = 10
"""Of so many attempts in one the plugins are timed each, as upstream does."""

SCHEDULED, UNSCHEDULABLE, ERROR = "scheduled", "unschedulable", "error"
SUCCESS = "Success"


_STABLE = (
    "schedule_attempts_total", "scheduling_attempt_duration_seconds", "preemption_victims", "pending_pods",
    "preemption_attempts_total", "pod_scheduling_attempts", "framework_extension_point_duration_seconds",
    "queue_incoming_pods_total",
)  # fmt: skip
_BETA = (
    "goroutines", "pod_scheduling_sli_duration_seconds", "permit_wait_duration_seconds", "unschedulable_pods",
    "plugin_evaluation_total",
)  # fmt: skip


def stability(name: str) -> str:
    """The level that upstream promises for a metric."""
    own = name.removeprefix("scheduler_")
    return "STABLE" if own in _STABLE else "BETA" if own in _BETA else "ALPHA"


class Gauges(NamedTuple):
    """What is asked for when somebody reads: values by labels."""

    pending: Callable[[], Mapping[Labels, float]] = dict
    cached: Callable[[], Mapping[Labels, float]] = dict
    unschedulable: Callable[[], Mapping[Labels, float]] = dict
    in_flight: Callable[[], Mapping[Labels, float]] = dict
    at_work: Callable[[], Mapping[Labels, float]] = dict


class Metrics:
    """All of them."""

    def __init__(self, gauges: Gauges = Gauges()) -> None:  # noqa: B008
        self.attempts = Counter(
            "scheduler_schedule_attempts_total", "Attempts to place a Pod, by how they ended.", ("profile", "result")
        )
        self.attempt_duration = Histogram(
            "scheduler_scheduling_attempt_duration_seconds",
            "Time of an attempt, binding included.",
            ("profile", "result"),
        )
        self.algorithm_duration = Histogram(
            "scheduler_scheduling_algorithm_duration_seconds", "Time of a decision alone."
        )
        self.pod_attempts = Histogram(
            "scheduler_pod_scheduling_attempts", "Attempts that a bound Pod took.", start=1, factor=2, count=5
        )
        self.sli_duration = Histogram(
            "scheduler_pod_scheduling_sli_duration_seconds",
            "Time from a Pod's first attempt until it was bound.",
            ("attempts",),
            start=0.01,
            count=20,
        )
        self.incoming = Counter(
            "scheduler_queue_incoming_pods_total", "Pods that entered a queue, by cause.", ("event", "queue")
        )
        self.preemption_attempts = Counter("scheduler_preemption_attempts_total", "Times that preemption was tried.")
        self.preemption_victims = Histogram(
            "scheduler_preemption_victims", "Pods that one preemption deleted.", start=1, factor=2, count=7
        )
        self.permit_wait = Histogram(
            "scheduler_permit_wait_duration_seconds", "Time that Pods waited for permission to bind.", ("result",)
        )
        self.extension_points = Histogram(
            "scheduler_framework_extension_point_duration_seconds",
            "Time that all plugins of an extension point took.",
            ("extension_point", "status", "profile"),
            start=0.0001,
            count=12,
        )
        self.plugins = Histogram(
            "scheduler_plugin_execution_duration_seconds",
            "Time that one plugin took at one extension point, in a tenth of the attempts.",
            ("extension_point", "plugin", "status"),
            **_FINE,
        )
        self.hints = Histogram(
            "scheduler_queueing_hint_execution_duration_seconds",
            "Time that a plugin took to say whether an event can help a Pod.",
            ("event", "hint", "plugin"),
            **_FINE,
        )
        self.events = Histogram(
            "scheduler_event_handling_duration_seconds",
            "Time that the queue took to weigh an event.",
            ("event",),
            start=0.0001,
            count=12,
        )
        self.flushed = Counter(
            "scheduler_pod_scheduled_after_flush_total",
            "Pods that found a node when they were tried without cause, after having been unschedulable for long.",
        )
        self.flushed.values[()] = 0
        self.evictions = Counter(
            "scheduler_preemption_goroutines_execution_total", "Tasks that made room for a Pod.", ("result",)
        )
        self.eviction_duration = Histogram(
            "scheduler_preemption_goroutines_duration_seconds",
            "Time that it took to make room for a Pod.",
            ("result",),
            start=0.01,
            count=20,
        )
        self.claims_created = Counter(
            "scheduler_resourceclaim_creates_total", "ResourceClaims that were to be made for extended resources.",
            ("status",),
        )  # fmt: skip
        self.binding_conditions = Counter(
            "scheduler_dra_bindingconditions_allocations_total",
            "Devices whose conditions were waited for before binding, by how that ended.",
            ("profile", "driver", "status"),
        )
        self.binding_conditions_wait = Histogram(
            "scheduler_dra_bindingconditions_wait_duration_seconds",
            "Time that binding waited for the conditions of devices.",
            ("profile", "driver", "status"),
            start=0.1,
            count=14,
        )
        self.group_attempts = Counter(
            "scheduler_podgroup_schedule_attempts_total",
            "Attempts to place a PodGroup, by how they ended.",
            ("profile", "result"),
        )
        self.group_duration = Histogram(
            "scheduler_podgroup_scheduling_attempt_duration_seconds",
            "Time of an attempt to place a PodGroup.",
            ("profile", "result"),
        )
        self.group_algorithm_duration = Histogram(
            "scheduler_podgroup_scheduling_algorithm_duration_seconds", "Time of a decision on a PodGroup alone."
        )
        self.evaluations = Evaluations()
        self.volume_errors = Counter(
            "scheduler_volume_scheduling_stage_error_total",
            "Times that volumes could not be found, assumed or bound for a Pod.",
            ("operation",),
        )
        self.batches = Counter(
            "scheduler_batch_attempts_total",
            "Attempts for which what is known for equal Pods was there (hint_used), and others.",
            ("profile", "result"),
        )
        self.batches_flushed = Counter(
            "scheduler_batch_cache_flushed_total",
            "Times that what was known for equal Pods did not hold any more.",
            ("profile", "reason"),
        )
        self.hint_duration = Histogram(
            "scheduler_get_node_hint_duration_seconds",
            "Time to find what is known for equal Pods, in a tenth of the attempts.",
            ("hinted", "profile"),
            start=0.00001,
            count=12,
        )
        self.store_duration = Histogram(
            "scheduler_store_schedule_results_duration_seconds",
            "Time to work out what equal Pods share.",
            ("profile",),
            start=0.00001,
            count=12,
        )
        self.build = Counter("fastkube_build_info", "The version that runs.", ("version",))
        self.build.add(__version__)
        self._gauges = (
            Gauge("scheduler_pending_pods", "Pods that wait, by queue.", ("queue",), gauges.pending),
            Gauge("scheduler_cache_size", "Nodes, Pods and assumed Pods that are known.", ("type",), gauges.cached),
            Gauge(
                "scheduler_unschedulable_pods",
                "Pods that wait, by the plugin that refused them; a Pod counts for each.",
                ("plugin", "profile"),
                gauges.unschedulable,
            ),
            Gauge(
                "scheduler_inflight_events",
                "Events that are kept for Pods on which a decision is under way.",
                ("event",),
                gauges.in_flight,
            ),
            Gauge("scheduler_goroutines", "Tasks at work, by what they do.", ("operation",), gauges.at_work),
        )

    def all(self) -> Iterator[Counter | Gauge | Histogram | Evaluations]:
        for metric in (*vars(self).values(), *self._gauges):
            if isinstance(metric, Counter | Gauge | Histogram | Evaluations):
                yield metric

    def text(self) -> str:
        """What /metrics answers."""
        lines: list[str] = []
        for metric in self.all():
            lines.append(f"# HELP {metric.name} [{stability(metric.name)}] {metric.help}")
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines += metric.lines()
        return "\n".join(lines) + "\n"


class Timing:
    """Times the extension points of one profile, and in some attempts each plugin."""

    def __init__(self, metrics: Metrics, profile: str, now: Callable[[], float]) -> None:
        self.now = now
        self._points = metrics.extension_points
        self._plugins = metrics.plugins
        self._profile = profile
        self._turn = 0
        self._metrics = metrics
        self._hinted = (profile, "hint_used"), (profile, "no_hint")
        points = ("PreFilter", "Filter", "Score")
        self._decided = [metrics.extension_points.notes(point, SUCCESS, profile) for point in points]

    def sample(self) -> bool:
        """Whether it is the turn of an attempt in which plugins are timed."""
        self._turn = (self._turn + 1) % SAMPLED
        if self._turn != 1:
            return False
        if len(self._decided[0]) >= NOTED_MAX:
            self._points.sort()
        return True

    def asked(self, *plugins: Iterable[str]) -> Asked:
        """Where it is counted how often these plugins are asked, those of PreFilter, Filter, PreScore and Score."""
        return self._metrics.evaluations.of(self._profile, *plugins)

    def hinted(self, known: bool, started: float | None) -> None:
        """What equal Pods share was found, or must be worked out; `started` where that is timed."""
        values, key = self._metrics.batches.values, self._hinted[0 if known else 1]
        values[key] = values.get(key, 0) + 1
        if started is not None:
            hint = "hint" if known else "no_hint"
            self._metrics.hint_duration.observe(self.now() - started, hint, self._profile)

    def worked_out(self, started: float) -> None:
        self._metrics.store_duration.observe(self.now() - started, self._profile)

    def flushed(self, reason: str) -> None:
        self._metrics.batches_flushed.add(self._profile, reason)

    def decided(self, begun: float, prepared: float, searched: float) -> None:
        """A node is chosen now: `point` for what led there, at once."""
        pre_filter, filter, score = self._decided
        pre_filter.append(prepared - begun)
        filter.append(searched - prepared)
        score.append(self.now() - searched)

    def point(self, point: str, started: float, status: str = SUCCESS, *, until: float | None = None) -> float:
        """An extension point is over, now or at `until`; gives the time, at which the next one begins."""
        now = self.now() if until is None else until
        self._points.observe(now - started, point, status, self._profile)
        return now

    def call(self, sampled: bool, point: str, plugin: str, call: Callable[..., T], *args: Any) -> T:
        """Call a plugin, timed where `sampled`."""
        if not sampled:
            return call(*args)
        started, status = self.now(), SUCCESS
        try:
            return call(*args)
        except Exception as error:
            status = getattr(error, "status", "Error")
            raise
        finally:
            self.plugin(point, plugin, started, status)

    def plugin(self, point: str, plugin: str, started: float, status: str = SUCCESS) -> None:
        self._plugins.observe(self.now() - started, point, plugin, status)
