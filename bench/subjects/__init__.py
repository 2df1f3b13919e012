"""What `make bench` measures: one file a group of subjects, and the figures they give.

A figure is one number of one run of one contender. `upstream` is what kube-apiserver 1.36.2 with etcd 3.5.30 reached on
a 2-core VM with the same load (ARCHITECTURE.md), for where no peer can be run; `target` is what this project wants.
"""

from __future__ import annotations

from typing import NamedTuple


class Figure(NamedTuple):
    """`unit` as it is printed; `more` whether more is better."""

    key: str
    title: str
    unit: str
    more: bool
    upstream: float | None = None
    target: float | None = None


FIGURES: tuple[Figure, ...] = (
    Figure("create", "Pods created, 64 connections", "/s", True, 1243, 12_000),
    Figure("create_p50", "  p50", "ms", False, 42),
    Figure("create_cpu", "  server CPU for each", "us", False),
    Figure("create_single_p50", "create a Pod, 1 connection, p50", "ms", False, 2.3, 0.6),
    Figure("create_single_p99", "  p99", "ms", False),
    Figure("get", "GET of a Pod, 32 connections", "/s", True, 3200, 20_000),
    Figure("get_cpu", "  server CPU for each", "us", False),
    Figure("list", "LIST of 8,000 Pods, p50", "ms", False, 163, 25),
    Figure("list_mb", "  its size", "MB", False),
    Figure("patch", "merge patches of Pods, 32 connections", "/s", True),
    Figure("patch_cpu", "  server CPU for each", "us", False),
    Figure("apply", "Deployments applied anew, 64 connections", "/s", True, 1071),
    Figure("mixed", "mixed load, 64 connections", "/s", True),
    Figure("mixed_p99", "  p99", "ms", False),
    Figure("fanout", "watch events to 100 watchers", "/s", True, 54_000, 500_000),
    Figure("fanout_cpu", "  server CPU for each, the creates included", "us", False),
    Figure("lag_p50", "sent to seen by a watcher, p50", "ms", False),
    Figure("lag_p99", "  p99", "ms", False),
    Figure("delete", "Pods deleted, 64 connections", "/s", True),
    Figure("wrk_create", "Pods created, by wrk, 64 connections", "/s", True, None, 12_000),
    Figure("wrk_get", "GET of a Pod, by wrk, 32 connections", "/s", True, None, 20_000),
    Figure("start", "start to ready, empty", "s", False, 3.0, 0.3),
    Figure("restart", "start to ready, 30,000 Pods", "s", False),
    Figure("memory_idle", "memory, idle server", "MB", False, None, 60),
    Figure("memory_full", "memory, 30,000 Pods, store included", "MB", False, 1200, 150),
    Figure("up_start", "`up` with 3 nodes, start to ready, empty", "s", False, None, 0.5),
    Figure("up_cpu", "  CPU until then", "s", False),
    Figure("up_memory", "memory of `up` with 3 nodes, all processes", "MB", False, None, 150),
    Figure("idle_cpu", "CPU of an idle server", "% of a core", False, None, 0.5),
    Figure("bound", "create to bound, 1,000 nodes", "Pods/s", True, 283),
    Figure("rollout", "Deployment of 5,000 Pods, all Running on 500 nodes", "s", False, None, 5),
)

BY_KEY = {figure.key: figure for figure in FIGURES}
