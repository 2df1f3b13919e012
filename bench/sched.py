#!/usr/bin/env python3
"""Scheduling: decisions alone, and Pods bound end to end through an API server with durable writes.

    python -m bench.sched                                  # everything, some minutes
    python -m bench.sched --only end-to-end --nodes 5000 --pods 10000
    python -m bench.sched --only decisions --counts 100,1000,5000

Decisions (bench/sched_core.py) are measured for the compiled and the pure build, each in a process of its own, and
plotted over the number of nodes. End to end there are an API server and a scheduler, a process each, as they would be
on any machine; nodes are objects only, no kubelet writes anything:
    backlog   Pods wait already; the rate from the first binding that is seen to the last
    burst     Pods are created as fast as the server takes them, the scheduler beside it; the rate of bindings
    offered   --rate Pods a second are created; how long each takes from create to bound
Results go to results/<date>-<commit>/sched.{json,md} and sched-*.svg.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import psutil

from bench import contenders, report
from bench.contenders import ROOT, TOKEN, Contender
from bench.sched_core import CHURN, PREEMPTION, WORKLOADS, node, pod
from fastkube.client import Client
from fastkube.client.kubeconfig import Connection

Object = dict[str, Any]

NAMESPACE = "default"
IN_FLIGHT = 256
FLOORS = {
    "basic": 680, "spreading": 460, "preferred-spreading": 460, "node-affinity": 220, "preferred-affinity": 90,
    "preferred-anti-affinity": 90, "anti-affinity": 60, "affinity": 35, "churn": 710, "preemption": 570,
    "unschedulable": 590,
}  # fmt: skip
"""What upstream's CI asks of scheduler_perf at 5,000 nodes, in Pods a second, end to end."""


# -- decisions ---------------------------------------------------------------------------------------------------------


PURE_NODES_MAX = 5000
"""Above it the pure build only shows that it is slow."""


def decisions(counts: str, pods: int, seconds: float, builds: tuple[str, ...]) -> list[Object]:
    """Each build in a process of its own."""
    found = []
    for build in builds:
        if build == "pure":
            counts = ",".join(each for each in counts.split(",") if int(each) <= PURE_NODES_MAX)
        with tempfile.NamedTemporaryFile(suffix=".json") as out:
            words = [sys.executable, "-m", "bench.sched_core", "--nodes", counts, "--pods", str(pods)]
            words += ["--seconds", str(seconds), "--json", out.name]
            environment = {**os.environ, "FASTKUBE_PURE": "1" if build == "pure" else ""}
            subprocess.run(words, cwd=ROOT, env=environment, check=True)
            found.append(json.loads(Path(out.name).read_text()))
    return found


def plot_rates(path: Path, documents: list[Object]) -> None:
    """Rate over number of nodes: a line a workload, a panel a build."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(documents), figsize=(6 * len(documents), 5), sharey=True, squeeze=False)
    for axes, document in zip(panels[0], documents, strict=True):
        for workload in (*WORKLOADS, CHURN, PREEMPTION):
            points = [(each["nodes"], each["per_second"]) for each in document["results"]
                      if each["workload"] == workload]  # fmt: skip
            axes.plot([x for x, _ in points], [y for _, y in points], marker="o", markersize=3, label=workload)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("nodes")
        axes.set_title(document["build"])
        axes.grid(visible=True, which="both", alpha=0.3)
    panels[0][0].set_ylabel("decisions a second")
    panels[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


# -- end to end --------------------------------------------------------------------------------------------------------


def _kubeconfig(server: str, path: Path) -> None:
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "b",
        "clusters": [{"name": "b", "cluster": {"server": server, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "b", "user": {"token": TOKEN}}],
        "contexts": [{"name": "b", "context": {"cluster": "b", "user": "b"}}],
    }  # fmt: skip
    path.write_text(json.dumps(document))


@contextlib.asynccontextmanager
async def scheduler_beside(contender: Contender) -> AsyncIterator[psutil.Process]:
    """`fastkube scheduler` in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="fastkube-bench-") as folder:
        _kubeconfig(contender.target.url, Path(folder) / "kubeconfig")
        words = ["scheduler", "--kubeconfig", f"{folder}/kubeconfig", "--leader-elect=false"]
        environment = {**os.environ, "FASTKUBE_PURE": "1" if contender.build == "pure" else ""}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fastkube", *words, cwd=ROOT, env=environment
        )
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            await asyncio.wait_for(process.wait(), 20)


def _client(contender: Contender) -> Client:
    return Client(Connection(contender.target.url, token=TOKEN, insecure=True), batch=True, timeout_s=120)


async def create_all(client: Client, resource: str, objects: list[Object], namespace: str = "") -> None:
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def create(obj: Object) -> None:
        try:
            await client.create(resource, obj, namespace, brief=True)
        finally:
            gate.release()

    tasks = []
    for obj in objects:
        await gate.acquire()
        tasks.append(asyncio.ensure_future(create(obj)))
    await asyncio.gather(*tasks)


class BoundWatch:
    """When each Pod was first seen with a node."""

    def __init__(self, client: Client, prefix: str) -> None:
        self.at: dict[str, float] = {}
        self._client = client
        self._prefix = prefix
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        listed = await self._client.list("v1/pods", NAMESPACE, limit=1)
        self._task = asyncio.create_task(self._run(listed["metadata"]["resourceVersion"]))

    async def _run(self, revision: str) -> None:
        watch = self._client.watch(
            "v1/pods", NAMESPACE, field_selector="spec.nodeName!=", resource_version=revision, timeout_s=600
        )
        while batch := await watch.batch():
            now = time.perf_counter()
            for kind, obj in batch:
                name = obj["metadata"].get("name", "")
                if kind == "ADDED" and name.startswith(self._prefix):
                    self.at[name] = now
            self._more.set()

    async def until(self, count: int, timeout_s: float) -> None:
        assert self._task is not None
        async with asyncio.timeout(timeout_s):
            while len(self.at) < count:
                if self._task.done():
                    self._task.result()
                self._more.clear()
                await self._more.wait()

    async def stop(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def rate(self) -> float:
        """From the first to the last."""
        times = sorted(self.at.values())
        return round((len(times) - 1) / max(times[-1] - times[0], 1e-9))


class _Cpu:
    """CPU time that processes use for some Pods."""

    def __init__(self, **processes: psutil.Process) -> None:
        self._processes = processes
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        return {name: sum(each.cpu_times()[:2]) for name, each in self._processes.items()}

    def per_pod(self, pods: int) -> dict[str, float]:
        return {f"{name}_cpu_us": round((now - self._before[name]) / pods * 1e6) for name, now in self._now().items()}


def _pods(prefix: str, count: int) -> list[Object]:
    found = []
    for number in range(count):
        obj = pod(number)
        obj["metadata"] = {"name": f"{prefix}{number}", "namespace": NAMESPACE}
        found.append(obj)
    return found


async def end_to_end(contender: Contender, nodes: int, pods: int, rate: int, timeout_s: float) -> Object:
    server = contender.processes[0]
    async with _client(contender) as client, _client(contender) as watching:
        await create_all(client, "v1/nodes", [node(number) for number in range(nodes)])
        told: Object = {"nodes": nodes, "pods": pods}
        await create_all(client, "v1/pods", _pods("backlog-", pods), NAMESPACE)
        seen = BoundWatch(watching, "backlog-")
        await seen.start()
        async with scheduler_beside(contender) as scheduler:
            cpu = _Cpu(server=server, scheduler=scheduler)
            await seen.until(pods, timeout_s)
            told["backlog"] = {"bound_per_second": seen.rate(), **cpu.per_pod(pods)}
            await seen.stop()
            told["burst"] = await _burst(client, watching, server, scheduler, pods, timeout_s)
            told["offered"] = await _offered(client, watching, rate, min(pods, 8 * rate), timeout_s)
            told["scheduler_rss_mb"] = round(scheduler.memory_info().rss / 1e6)
            told["server_rss_mb"] = round(server.memory_info().rss / 1e6)
        return told


async def _burst(
    client: Client, watching: Client, server: psutil.Process, scheduler: psutil.Process, pods: int, timeout_s: float
) -> Object:
    seen = BoundWatch(watching, "burst-")
    await seen.start()
    cpu = _Cpu(server=server, scheduler=scheduler)
    started = time.perf_counter()
    await create_all(client, "v1/pods", _pods("burst-", pods), NAMESPACE)
    created = time.perf_counter() - started
    await seen.until(pods, timeout_s)
    whole = max(seen.at.values()) - started
    await seen.stop()
    return {"created_per_second": round(pods / created), "bound_per_second": round(pods / whole), **cpu.per_pod(pods)}


async def _offered(client: Client, watching: Client, rate: int, pods: int, timeout_s: float) -> Object:
    """Pods at a steady pace; nobody waits for anybody."""
    seen = BoundWatch(watching, "offered-")
    await seen.start()
    sent: dict[str, float] = {}
    started = time.perf_counter()
    tasks = []
    for number, obj in enumerate(_pods("offered-", pods)):
        ahead = started + number / rate - time.perf_counter()
        if ahead > 0.002:
            await asyncio.sleep(ahead)
        sent[obj["metadata"]["name"]] = time.perf_counter()
        tasks.append(asyncio.ensure_future(client.create("v1/pods", obj, NAMESPACE, brief=True)))
        if number % 64 == 0:
            await asyncio.sleep(0)
    offered = pods / (time.perf_counter() - started)
    await asyncio.gather(*tasks)
    await seen.until(pods, timeout_s)
    await seen.stop()
    return {"offered_per_second": round(offered), **report.quantiles([seen.at[name] - sent[name] for name in sent])}


# -- results -----------------------------------------------------------------------------------------------------------


def _decision_table(documents: list[Object]) -> str:
    text = ""
    for document in documents:
        counts = sorted({each["nodes"] for each in document["results"]})
        rates = {(each["workload"], each["nodes"]): each for each in document["results"]}
        rows = []
        for workload in (*WORKLOADS, CHURN, PREEMPTION):
            at = rates.get((workload, 5000), {})
            row = [workload, *(f"{rates[workload, count]['per_second']:,}" for count in counts)]
            rows.append([*row, at.get("cpu_us", ""), FLOORS.get(workload, "")])
        header = ["workload", *(f"{count:,} nodes" for count in counts), "us a Pod at 5,000", "upstream's CI floor"]
        text += f"## Decisions a second, {document['build']}\n\n{report.table(header, rows)}\n"
        if document["build"] == "pure":
            text += f"Above {PURE_NODES_MAX:,} nodes the pure build is not measured.\n\n"
        memory = ", ".join(f"{count:,} nodes {rates['basic', count]['rss_mb']} MB" for count in counts)
        text += f"Memory of the process after the basic workload: {memory}.\n\n"
    return text


def _end_to_end_table(runs: list[Object]) -> str:
    rows = []
    for phase in ("backlog", "burst", "offered"):
        figures = {name: statistics.median(run[phase][name] for run in runs) for name in runs[0][phase]}
        rows += [[phase, name, f"{value:g}"] for name, value in figures.items()]
    rows += [["", name, runs[-1][name]] for name in ("scheduler_rss_mb", "server_rss_mb")]
    title = f"## End to end, {runs[0]['nodes']:,} nodes, {runs[0]['pods']:,} Pods a phase, median of {len(runs)}\n\n"
    return title + report.table(["phase", "figure", "value"], rows) + "\n"


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--only", type=click.Choice(("decisions", "end-to-end")), help="One half alone.")
@click.option("--counts", default="100,1000,5000,50000", show_default=True, help="Numbers of nodes for decisions.")
@click.option("--seconds", default=1.5, show_default=True, help="Longest time for one figure of the decisions.")
@click.option("--nodes", default=5000, show_default=True, help="Nodes end to end.")
@click.option("--pods", default=10_000, show_default=True, help="Pods of each phase.")
@click.option("--rate", default=1000, show_default=True, help="Pods offered a second.")
@click.option("--runs", default=1, show_default=True, help="Runs end to end.")
@click.option("--pure/--no-pure", default=True, help="Measure the decisions of the pure build too.")
@click.option("--timeout", default=180.0, show_default=True, help="Seconds that a phase may take.")
@click.option("--results", default=str(ROOT / "results"), show_default=False, help="Where results go.")
def main(
    only: str | None, counts: str, seconds: float, nodes: int, pods: int, rate: int, runs: int, pure: bool,
    timeout: float, results: str,
) -> None:  # fmt: skip
    path = report.folder(Path(results))
    document: Object = {"machine": report.machine(), "commit": report.commit()}
    text = f"# Scheduling\n\n{document['machine']['cpu']}, {document['machine']['cores']} cores, "
    text += f"commit {document['commit']}\n\n"
    if only != "end-to-end":
        builds = ("compiled", "pure") if pure else ("compiled",)
        document["decisions"] = decisions(counts, pods, seconds, builds)
        plot_rates(path / "sched-rates.svg", document["decisions"])
        text += _decision_table(document["decisions"])
    if only != "decisions":
        found = []
        for _ in range(runs):
            extra = ("--disable-admission-plugins", "ServiceAccount,TaintNodesByCondition")
            with contenders.fastkube(0, command="apiserver", extra=extra) as contender:
                found.append(asyncio.run(end_to_end(contender, nodes, pods, rate, timeout)))
            click.echo(json.dumps(found[-1], indent=1))
        document["end_to_end"] = found
        text += _end_to_end_table(found)
    report.write(path, "sched", document, text)
    click.echo(f"{text}\n{path}")


if __name__ == "__main__":
    main()
