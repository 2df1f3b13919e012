#!/usr/bin/env python3
"""The etcd v3 API: `fastkube etcd` and the real etcd, side by side, under etcd's own Go client.

    bench/etcd.py                                  # put, range, txn, watch at 1, 8 and 64 clients: about 4 minutes
    bench/etcd.py --runs 5 --seconds 5 --only put --clients 64

Each contender has fresh data and fresh processes for each run; within a run they take turns, figure by figure, and
ratios are those of figures of the same run. Values have 256 bytes, each client a connection of its own, and all of it
is durable. The load (bench/etcd_load, built once) shares the machine with the server, so rates at many clients are also
those of the client: `cpu_us`, the server's own time for an operation, is not. `watch` is the rate of events that all
watches together got. Results go to results/<date>-<commit>/etcd.{json,md}.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import psutil

from bench import report
from bench.contenders import ROOT, free_port

OPERATIONS = ("put", "range", "txn", "watch")
CLIENTS = (1, 8, 64)
_READY_S = 30.0
_LOAD = ROOT / "bench" / "etcd_load"


class Running(NamedTuple):
    address: str
    process: psutil.Process

    @property
    def cpu_s(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)

    @property
    def resident_mib(self) -> float:
        return float(self.process.memory_info().rss) / 2**20


def build_load() -> Path:
    """The program that puts the load. Raises click.UsageError where it cannot be built."""
    if not shutil.which("go"):
        raise click.UsageError("Go is needed to build the load, bench/etcd_load")
    binary = Path(tempfile.gettempdir()) / f"fastkube-etcd-load-{report.commit().rstrip('+')}"
    subprocess.run(["go", "build", "-o", str(binary), "."], cwd=_LOAD, check=True)
    return binary


def _command(name: str, folder: Path, address: str) -> list[str]:
    url = f"http://{address}"
    words = ["--data-dir", str(folder), "--listen-client-urls", url, "--advertise-client-urls", url]
    if name == "fastkube":
        return [sys.executable, "-m", "fastkube", "etcd", *words]
    return ["etcd", *words, "--listen-peer-urls", f"http://127.0.0.1:{free_port()}", "--log-level", "error"]


@contextlib.contextmanager
def started(name: str) -> Iterator[Running]:
    folder = Path(tempfile.mkdtemp(prefix="fastkube-bench-"))
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        _command(name, folder / "data", address), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(address, process)
        yield Running(address, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    """Until it answers."""
    import http.client

    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(address, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args}: it did not become ready")


def measure(load: Path, running: Running, operation: str, clients: int, seconds: float) -> dict[str, float]:
    before = running.cpu_s
    words = ["-endpoint", running.address, "-op", operation, "-clients", str(clients), "-seconds", str(seconds)]
    done = subprocess.run(
        [str(load), *words, "-run", f"{operation}{clients}"], capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    cpu_us = (running.cpu_s - before) / told["count"] * 1e6
    return {"rate": told["rate"], "p50_ms": told["p50_ms"], "p99_ms": told["p99_ms"], "cpu_us": cpu_us}


Measured = dict[str, dict[str, list[dict[str, float]]]]


def run_all(load: Path, names: tuple[str, ...], figures: list[tuple[str, int]], runs: int, seconds: float) -> Measured:
    """By figure and contender: what each run measured."""
    measured: Measured = {}
    for run in range(runs):
        with contextlib.ExitStack() as stack:
            running = {name: stack.enter_context(started(name)) for name in names}
            for operation, clients in figures:
                for name in names if run % 2 == 0 else reversed(names):
                    found = measure(load, running[name], operation, clients, seconds)
                    measured.setdefault(f"{operation}/{clients}", {}).setdefault(name, []).append(found)
                    click.echo(f"run {run + 1}: {operation} {clients} {name}: {found['rate']:.0f}/s", err=True)
            for name, each in running.items():
                measured.setdefault("resident_mib", {}).setdefault(name, []).append({"value": each.resident_mib})
    return measured


def _median(found: list[dict[str, float]], key: str) -> float:
    return statistics.median(each[key] for each in found)


def to_markdown(measured: Measured, names: tuple[str, ...]) -> str:
    header = ["operation/clients"]
    header += [f"{name}: {what}" for name in names for what in ("a second", "p50 ms", "p99 ms", "cpu us")]
    rows: list[list[Any]] = []
    for figure, by_name in measured.items():
        if figure == "resident_mib":
            continue
        row: list[Any] = [figure]
        for name in names:
            keys = ("rate", "p50_ms", "p99_ms", "cpu_us")
            row += [f"{_median(by_name[name], key):.{0 if key == 'rate' else 2}f}" for key in keys]
        if len(names) > 1:
            pairs = zip(by_name[names[0]], by_name[names[1]], strict=True)
            row.append(f"{statistics.median(ours['rate'] / theirs['rate'] for ours, theirs in pairs):.2f}")
        rows.append(row)
    if len(names) > 1:
        header.append("ratio of rates")
    memory = ", ".join(f"{name} {_median(found, 'value'):.0f}" for name, found in measured["resident_mib"].items())
    return f"# etcd v3 API\n\n{report.table(header, rows)}\n\nResident MiB at the end: {memory}\n"


@click.command()
@click.option("--runs", default=3, show_default=True, help="Interleaved runs of each.")
@click.option("--seconds", default=3.0, show_default=True, help="Of each figure.")
@click.option("--only", type=click.Choice(OPERATIONS), multiple=True, help="These operations.")
@click.option("--clients", type=int, multiple=True, help="These numbers of clients.")
@click.option("--contender", type=click.Choice(("fastkube", "etcd")), multiple=True, help="These servers.")
@click.option("--results", default=str(ROOT / "results"), show_default=False, help="Folder of results.")
def main(
    runs: int, seconds: float, only: tuple[str, ...], clients: tuple[int, ...], contender: tuple[str, ...], results: str
) -> None:
    names = contender or (("fastkube", "etcd") if shutil.which("etcd") else ("fastkube",))
    if "etcd" in names and not shutil.which("etcd"):
        raise click.UsageError("no etcd on PATH")
    figures = [(operation, number) for operation in only or OPERATIONS for number in clients or CLIENTS]
    measured = run_all(build_load(), names, figures, runs, seconds)
    document = {"subject": "etcd", "runs": runs, "seconds": seconds, "machine": report.machine(), "measured": measured}
    markdown = to_markdown(measured, names)
    report.write(report.folder(Path(results)), "etcd", document, markdown)
    click.echo(markdown)


if __name__ == "__main__":
    main()
