#!/usr/bin/env python3
"""Load test of a control plane: Pod creation, binding and start-up, from processes of its own.

    bench/run.py --nodes 1000 --pods 5000                       # this checkout, compiled
    bench/run.py --nodes 1000 --pods 5000 --contender fastkube --contender fastkube-pure
    bench/run.py --server https://HOST:6443 --token T --pods 5000    # any Kubernetes API server

Per contender and run, in this order:
  1. create: POSTs of Pods that no scheduler takes (`schedulerName: bench-none`), at --clients connections, then at one;
  2. schedule: POSTs of Pods for the default scheduler; a watcher notes when each is seen created, bound and Running.
Several contenders are interleaved (A B A B …), since the speed of a shared machine drifts; medians over the runs are
reported. Results go to results/<date>-<commit>/run.{json,md,svg}.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
from rich.console import Console
from rich.progress import Progress

from bench import contenders, load, report, watch
from bench.contenders import Contender

NAMESPACE = "default"


@contextlib.contextmanager
def start(name: str, nodes: int, server: str, token: str, upstream_bin: str) -> Iterator[Contender]:
    """The contender of that name, running; raises click.UsageError for one that cannot be had here."""
    if name == "server":
        yield Contender("server", load.Target(server, token), "unknown")
    elif name in ("fastkube", "fastkube-pure"):
        with contenders.fastkube(nodes, pure=name.endswith("pure")) as contender:
            yield contender
    elif name == "upstream":
        found = contenders.upstream_found(upstream_bin)
        if not found:
            raise click.UsageError("no etcd and kube-apiserver on PATH: name their folder with --upstream-bin")
        with contenders.upstream(found) as contender:
            yield contender
    else:
        raise click.UsageError(f"unknown contender {name!r}")


def measure(
    contender: Contender, nodes: int, pods: int, clients: int, processes: int, timeout_s: float
) -> dict[str, Any]:
    """One run: {"create", "create_single", "schedule", "usage", ...}; latencies in ms, rates a second."""
    target, outcome = contender.target, {"build": contender.build, "ready_s": round(contender.ready_s, 3)}
    common = {"namespace": NAMESPACE, "scheduler": "bench-none"}
    create = load.run(
        target, load.create_pods, connections=clients, count=pods, processes=processes, prefix="create", **common
    )
    outcome["create"] = create.summary()
    single = load.run(target, load.create_pods, connections=1, count=min(1000, pods), prefix="single", **common)
    outcome["create_single"] = single.summary()
    if nodes:
        outcome["schedule"] = schedule(target, pods, clients, processes, timeout_s)
    outcome["usage"] = [vars(usage) for usage in contender.usage()]
    return outcome


def schedule(target: load.Target, pods: int, clients: int, processes: int, timeout_s: float) -> dict[str, Any]:
    """Creates Pods for the default scheduler and follows each to Running."""
    # the Pods of the create phase never run, so the watcher waits for the number of Running ones alone
    watcher = watch.PodWatcher(target, NAMESPACE, pods, "running", timeout_s)
    created = load.run(
        target,
        load.create_pods,
        connections=clients,
        count=pods,
        processes=processes,
        namespace=NAMESPACE,
        prefix="sched",
        scheduler="default-scheduler",
    )
    seen, watcher_cpu_s = watcher.result()
    first = min(created.started)
    arrivals = {f"sched-{number:07d}": at for number, at in enumerate(created.started)} if processes == 1 else {}
    outcome: dict[str, Any] = {"create": created.summary(), "watcher_cpu_s": round(watcher_cpu_s, 2)}
    for state in ("bound", "running"):
        times = {name: at for name, at in seen[state].items() if name.startswith("sched-")}
        if not times:
            continue
        outcome[state] = {
            "pods": len(times),
            "rate": round(len(times) / (max(times.values()) - first), 1),
            "since_created": report.quantiles([at - seen["created"][name] for name, at in times.items()]),
        }
        outcome[f"{state}_series"] = [round(at - seen["created"][name], 5) for name, at in times.items()]
    lags = [seen["created"][name] - at for name, at in arrivals.items() if name in seen["created"]]
    outcome["watch_lag"] = report.quantiles([lag for lag in lags if lag > 0])
    return outcome


def median_of(runs: list[dict[str, Any]], *path: str) -> float | None:
    values = []
    for run in runs:
        value: Any = run
        for key in path:
            value = value.get(key, {}) if isinstance(value, dict) else {}
        if isinstance(value, int | float):
            values.append(value)
    return round(statistics.median(values), 3) if values else None


FIGURES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("creates/s", ("create", "rate")),
    ("create p50, ms", ("create", "p50_ms")),
    ("create p99, ms", ("create", "p99_ms")),
    ("create p50 at 1 connection, ms", ("create_single", "p50_ms")),
    ("create p99 at 1 connection, ms", ("create_single", "p99_ms")),
    ("bound Pods/s", ("schedule", "bound", "rate")),
    ("seen created → bound p50, ms", ("schedule", "bound", "since_created", "p50_ms")),
    ("seen created → bound p99, ms", ("schedule", "bound", "since_created", "p99_ms")),
    ("Running Pods/s", ("schedule", "running", "rate")),
    ("seen created → Running p50, ms", ("schedule", "running", "since_created", "p50_ms")),
    ("seen created → Running p99, ms", ("schedule", "running", "since_created", "p99_ms")),
    ("sent → seen p50 (create and watch), ms", ("schedule", "watch_lag", "p50_ms")),
    ("start to ready, s", ("ready_s",)),
)


def markdown(document: dict[str, Any]) -> str:
    runs, names = document["runs"], list(document["runs"])
    rows = []
    for title, path in FIGURES:
        cells = [median_of(runs[name], *path) for name in names]
        if any(cell is not None for cell in cells):
            rows.append([title, *("" if cell is None else cell for cell in cells)])
    for name in names:
        bound = [run["create"]["client_bound"] for run in runs[name]]
        if any(bound):
            rows.append([f"note: {name}", "the load generator was at its limit; the server may be faster"])
    usage = [
        [name, one["name"], round(one["cpu_s"], 2), round(one["rss_mb"]), round(one["uss_mb"])]
        for name in names
        for one in runs[name][-1]["usage"]
    ]
    arguments = document["arguments"]
    return (
        f"# bench/run.py: {arguments['nodes']} nodes, {arguments['pods']} Pods, {arguments['clients']} connections\n\n"
        + f"Medians of {arguments['runs']} interleaved runs, TLS, durable. Commit {document['commit']}; "
        + f"{document['machine']['cpu']}, {document['machine']['cores']} cores shared with the load, "
        + f"Python {document['machine']['python']}.\n\n"
        + report.table(["figure", *names], rows)
        + "\nProcesses at the end of the last run:\n\n"
        + report.table(["contender", "process", "CPU s", "RSS MB", "USS MB"], usage)
    )


@click.command()
@click.option("--nodes", default=1000, show_default=True, help="Simulated nodes; 0 leaves scheduling out.")
@click.option("--pods", default=5000, show_default=True, help="Pods of each phase.")
@click.option("--clients", default=64, show_default=True, help="Connections of the create phases.")
@click.option("--load-processes", default=1, show_default=True, help="Processes that share the connections.")
@click.option("--runs", default=3, show_default=True, help="Runs of each contender.")
@click.option("--contender", "names", multiple=True, help="fastkube, fastkube-pure or upstream; repeatable.")
@click.option("--server", default="", help="URL of a running API server to measure instead.")
@click.option("--token", default="", help="Bearer token of an administrator of --server.")
@click.option("--upstream-bin", default="", help="Folder of the etcd and kube-apiserver binaries.")
@click.option("--timeout", "timeout_s", default=300.0, show_default=True, help="Seconds that Pods may take to run.")
@click.option("--results", type=click.Path(path_type=Path), default=report.ROOT / "results", help="Where results go.")
def main(
    nodes: int,
    pods: int,
    clients: int,
    load_processes: int,
    runs: int,
    names: tuple[str, ...],
    server: str,
    token: str,
    upstream_bin: str,
    timeout_s: float,
    results: Path,
) -> None:
    """Measure Pod creation, binding and start-up of control planes."""
    chosen = ("server",) if server else names or ("fastkube",)
    runs = 1 if server else runs
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    console = Console(stderr=True)
    with Progress(console=console) as progress:
        bar = progress.add_task("runs", total=runs * len(chosen))
        for number in range(runs):
            for name in chosen:
                progress.update(bar, description=f"{name}, run {number + 1}")
                with start(name, nodes, server, token, upstream_bin) as contender:
                    with_nodes = 0 if name == "upstream" else nodes
                    found[name].append(measure(contender, with_nodes, pods, clients, load_processes, timeout_s))
                progress.advance(bar)
    document = {
        "commit": report.commit(),
        "machine": report.machine(),
        "arguments": {"nodes": nodes, "pods": pods, "clients": clients, "runs": runs, "processes": load_processes},
        "runs": found,
    }
    folder = report.folder(results)
    series = {
        f"{name}: {state}": found[name][-1]["schedule"].pop(f"{state}_series", [])
        for name in chosen
        for state in ("bound", "running")
        if "schedule" in found[name][-1]
    }
    for name in chosen:
        for run in found[name]:
            for state in ("bound", "running"):
                run.get("schedule", {}).pop(f"{state}_series", None)
    if any(series.values()):
        report.plot_cdf(folder / "run.svg", f"from seen created, {nodes} nodes, {pods} Pods", series)
    text = markdown(document)
    report.write(folder, "run", document, text)
    Console().print(text)
    console.print(f"written to {folder}")


if __name__ == "__main__":
    main()
