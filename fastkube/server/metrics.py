"""/metrics: Prometheus text under upstream's metric names.

On the hot path a request costs one dictionary look-up and two additions. What the store, the hubs and the process know
anyway is read when somebody asks.
"""

from __future__ import annotations

import os
import resource
import sys
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fastkube import __version__
from fastkube.server.version import VERSION_INFO

if TYPE_CHECKING:
    from fastkube.api.catalog import Catalog
    from fastkube.server.admission.measures import Measures
    from fastkube.server.audit_sinks import AuditMeasures
    from fastkube.server.priority import FlowControl
    from fastkube.server.reloading import Reloads
    from fastkube.server.request import Request, RequestInfo
    from fastkube.server.streams import Streams
    from fastkube.store import Store

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8; escaping=underscores"

_DURATION_BUCKETS_S = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30,
                       45, 60)  # fmt: skip
_SERIES_MAX = 20_000
"""A client that makes up paths must not make the server remember them all: beyond this they count as one."""

_VERBS = {"get": "GET", "list": "LIST", "watch": "WATCH", "create": "POST", "update": "PUT", "patch": "PATCH",
          "delete": "DELETE", "deletecollection": "DELETE"}  # fmt: skip

Kind = tuple[str, str, str, str, str, bool, bool, str]
"""verb, group, version, resource, subresource, whether in a namespace, whether of one object, dryRun"""


class Series:
    """Counts by status code, and the histogram of durations, of one kind of request."""

    __slots__ = ("buckets", "codes", "total_s")

    def __init__(self) -> None:
        self.codes: dict[int, int] = {}
        self.buckets = [0] * (len(_DURATION_BUCKETS_S) + 1)
        self.total_s = 0.0

    def count(self, code: int, seconds: float) -> None:
        self.codes[code] = self.codes.get(code, 0) + 1
        self.buckets[bisect_left(_DURATION_BUCKETS_S, seconds)] += 1
        self.total_s += seconds


class Metrics:
    def __init__(self, now: float) -> None:
        self.started = now
        self._requests: dict[Kind, Series] = {}
        self.inflight = {"readOnly": 0, "mutating": 0}
        self.admission: Measures | None = None
        self.reloads: Reloads | None = None
        self.audit: AuditMeasures | None = None
        self.disabled: frozenset[str] = frozenset()
        """Names of metrics that are left out."""

    def observe(self, request: Request, code: int, seconds: float) -> None:
        """One request that was answered."""
        dry_run = request.query.get("dryRun", "") if request.query else ""
        self.series(request.info, dry_run).count(code, seconds)

    def series(self, info: RequestInfo, dry_run: str = "") -> Series:
        """Where requests like this one are counted."""
        key = (info.verb, info.group, info.version, info.resource, info.subresource,
               info.namespace != "", info.name != "", dry_run)  # fmt: skip
        series = self._requests.get(key)
        return self._new_series(key) if series is None else series

    def _new_series(self, key: Kind) -> Series:
        if len(self._requests) >= _SERIES_MAX:
            key = ("other", "", "", "", "", False, False, "")
        return self._requests.setdefault(key, Series())

    # ---------------------------------------------------------------- text

    def render(self, *, store: Store, catalog: Catalog, streams: Streams, flow: FlowControl, connections: int) -> bytes:
        page = Page(self.disabled)
        self._render_requests(page)
        page.gauge(
            "apiserver_current_inflight_requests",
            "Requests under way, other than long-running ones.",
            (({"request_kind": kind}, count) for kind, count in self.inflight.items()),
        )
        page.gauge("apiserver_open_connections", "Open client connections.", [({}, connections)])
        if self.admission is not None:
            self.admission.render(page)
        if self.reloads is not None:
            self.reloads.render(page)
        if self.audit is not None:
            self.audit.render(page)
        _render_flow(page, flow)
        _render_watches(page, streams)
        _render_store(page, store, catalog)
        _render_process(page, self.started)
        return page.bytes()

    def _render_requests(self, page: Page) -> None:
        totals, durations = [], []
        for key, series in sorted(self._requests.items()):
            verb, group, version, resource_name, subresource, namespaced, named, dry_run = key
            labels = {
                "verb": _VERBS.get(verb, verb.upper()),
                "group": group,
                "version": version,
                "resource": resource_name,
                "subresource": subresource,
                "scope": "" if not resource_name else "resource" if named else "namespace" if namespaced else "cluster",
                "dry_run": dry_run,
                "component": "apiserver",
            }
            totals += [({**labels, "code": str(code)}, count) for code, count in sorted(series.codes.items())]
            durations.append((labels, series))
        page.counter("apiserver_request_total", "Requests by verb, resource and status code.", totals)
        page.head("apiserver_request_duration_seconds", "Time from the request's head to its answer.", "histogram")
        for labels, series in durations:
            page.histogram("apiserver_request_duration_seconds", labels, series.buckets, series.total_s)


def _render_flow(page: Page, flow: FlowControl) -> None:
    for name, told, attribute in (
        ("current_executing_requests", "Requests that hold a seat.", "executing"),
        ("current_inqueue_requests", "Requests that wait for one.", "waiting"),
        ("nominal_limit_seats", "Seats that are a level's own.", "nominal"),
    ):
        rows = [({"priority_level": level.name}, getattr(level, attribute)) for level in flow.levels.all()]
        page.gauge(f"apiserver_flowcontrol_{name}", told, rows)
    refused = [({"priority_level": level.name}, level.refused) for level in flow.levels.all()]
    page.counter("apiserver_flowcontrol_rejected_requests_total", "Requests that were refused.", refused)


def _render_watches(page: Page, streams: Streams) -> None:
    hubs = [hub for hub in streams.hubs() if hub.watchers or hub.events_seen]
    labels = [{"group": hub.rtype.group, "version": hub.rtype.storage_version, "kind": hub.rtype.kind} for hub in hubs]
    page.gauge(
        "apiserver_registered_watchers",
        "Watches open now.",
        ((label, len(hub.watchers)) for label, hub in zip(labels, hubs, strict=True)),
    )
    page.counter(
        "apiserver_watch_events_total",
        "Events of watched resources.",
        ((label, hub.events_seen) for label, hub in zip(labels, hubs, strict=True)),
    )
    page.gauge(
        "apiserver_longrunning_requests",
        "Long-running requests under way.",
        (
            (
                {
                    "verb": "WATCH",
                    "group": hub.rtype.group,
                    "version": hub.rtype.versions[0],
                    "resource": hub.rtype.resource,
                    "component": "apiserver",
                },
                len(hub.watchers),
            )
            for hub in hubs
        ),
    )


def _render_store(page: Page, store: Store, catalog: Catalog) -> None:
    counts = []
    for rtype in catalog.all():
        if rtype.persisted:
            found = store.range(rtype.key_prefix, rtype.key_prefix[:-1] + b"0", count_only=True)
            counts.append(({"group": rtype.group, "resource": rtype.resource}, found.count))
    page.gauge("apiserver_resource_objects", "Stored objects by resource.", counts)
    page.gauge(
        "apiserver_storage_objects",
        "Stored objects by resource.",
        (
            ({"resource": f"{label['resource']}.{label['group']}" if label["group"] else label["resource"]}, count)
            for label, count in counts
        ),
    )
    status = store.status()
    size = [({"storage_cluster_id": "fastkube"}, status.file_bytes)]
    page.gauge("apiserver_storage_size_bytes", "Size of the store's file.", size)
    page.gauge("etcd_mvcc_db_total_size_in_bytes", "Size of the store's file.", [({}, status.file_bytes)])
    page.gauge("etcd_debugging_mvcc_current_revision", "The newest revision.", [({}, status.revision)])
    page.gauge("etcd_debugging_mvcc_compact_revision", "The oldest revision kept.", [({}, status.compacted)])


def _render_process(page: Page, started: float) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    page.counter("process_cpu_seconds_total", "Processor time used.", [({}, usage.ru_utime + usage.ru_stime)])
    page.gauge("process_start_time_seconds", "Start of the server, seconds since the epoch.", [({}, started)])
    if sys.platform == "linux":
        virtual, resident = Path("/proc/self/statm").read_text().split()[:2]
        size = os.sysconf("SC_PAGE_SIZE")
        page.gauge("process_resident_memory_bytes", "Memory in use.", [({}, int(resident) * size)])
        page.gauge("process_virtual_memory_bytes", "Address space in use.", [({}, int(virtual) * size)])
        page.gauge("process_open_fds", "Open files and sockets.", [({}, len(os.listdir("/proc/self/fd")))])
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    page.gauge("process_max_fds", "Limit of open files and sockets.", [({}, soft)])
    build = {key: VERSION_INFO[key] for key in ("major", "minor", "platform", "compiler")}
    build |= {"git_version": VERSION_INFO["gitVersion"], "fastkube_version": __version__}
    page.gauge("kubernetes_build_info", "What is running.", [(build, 1)])


Sample = tuple[Mapping[str, str], float]


class Page:
    """The text format, line by line."""

    def __init__(self, disabled: frozenset[str]) -> None:
        self._lines: list[str] = []
        self._disabled = disabled

    def head(self, name: str, help_text: str, kind: str) -> None:
        if name in self._disabled:
            return
        self._lines += (f"# HELP {name} {help_text}", f"# TYPE {name} {kind}")

    def counter(self, name: str, help_text: str, samples: Iterable[Sample]) -> None:
        self.head(name, help_text, "counter")
        if name not in self._disabled:
            self._lines += (f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples)

    def gauge(self, name: str, help_text: str, samples: Iterable[Sample]) -> None:
        self.head(name, help_text, "gauge")
        if name not in self._disabled:
            self._lines += (f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples)

    def sample(self, name: str, labels: Mapping[str, str], value: float) -> None:
        if name not in self._disabled:
            self._lines.append(f"{name}{_labels(labels)} {_number(value)}")

    def histogram(self, name: str, labels: Mapping[str, str], buckets: list[int], total: float) -> None:
        if name in self._disabled:
            return
        count = 0
        for limit, inside in zip((*map(str, _DURATION_BUCKETS_S), "+Inf"), buckets, strict=True):
            count += inside
            self._lines.append(f"{name}_bucket{_labels({**labels, 'le': limit})} {count}")
        self._lines.append(f"{name}_sum{_labels(labels)} {_number(total)}")
        self._lines.append(f"{name}_count{_labels(labels)} {count}")

    def bytes(self) -> bytes:
        return ("\n".join(self._lines) + "\n").encode()


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))
