#!/usr/bin/env python3
"""Starts of several checkouts, interleaved, on empty data folders: they tell a quicker start even on a busy machine.

    bench/start.py                                    # this checkout
    bench/start.py --command apiserver --runs 20 A B  # two, each with its .venv; the last line is B : A

Of each start: seconds from its exec to the ready line, CPU seconds until then of all processes that are left, and their
memory when they have come to rest (resident, and with shared pages divided among those who share them). Medians.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import psutil

from bench import contenders, report

_REST_S = 1.0


class Start(NamedTuple):
    """One start."""

    ready_s: float
    cpu_s: float
    rss_mb: float
    pss_mb: float


def measure(checkout: Path, command: str, nodes: int) -> Start:
    """Raises RuntimeError when it does not become ready."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with tempfile.TemporaryDirectory(prefix="fastkube-start-") as folder:
        words = [str(checkout / ".venv/bin/fastkube"), command, "--data-dir", f"{folder}/data"]
        words += ["--secure-port", str(contenders.free_port())]
        if command == "up":
            words += ["--nodes", str(nodes), "--kubeconfig", f"{folder}/kubeconfig"]
        began = time.monotonic()
        server = subprocess.Popen(words, cwd=checkout, env=environment, stdout=subprocess.PIPE)
        try:
            assert server.stdout is not None
            if not server.stdout.readline():
                raise RuntimeError(f"{words[0]} ended before it was ready")
            ready_s = time.monotonic() - began
            cpu_s = sum(_cpu_s(process) for process in _processes(server.pid))
            time.sleep(_REST_S)
            memory = [process.memory_full_info() for process in _processes(server.pid)]
            return Start(ready_s, cpu_s, sum(m.rss for m in memory) / 1e6, sum(m.pss for m in memory) / 1e6)
        finally:
            server.terminate()
            server.wait(10)


def _processes(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _cpu_s(process: psutil.Process) -> float:
    """Its own to the nanosecond, as the scheduler counts it."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e9
    return 0.0


@click.command()
@click.option("--runs", default=10, show_default=True, help="Starts of each checkout, interleaved.")
@click.option("--command", type=click.Choice(("up", "apiserver")), default="up", show_default=True)
@click.option("--nodes", default=3, show_default=True, help="Simulated nodes of `up`.")
@click.argument("checkouts", nargs=-1, type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path))
def main(runs: int, command: str, nodes: int, checkouts: tuple[Path, ...]) -> None:
    """Measure starts."""
    checkouts = checkouts or (report.ROOT,)
    found: dict[Path, list[Start]] = {checkout: [] for checkout in checkouts}
    for checkout in checkouts:
        measure(checkout, command, nodes)  # so that all files are in memory
    for run in range(runs):
        for checkout in checkouts if run % 2 else reversed(checkouts):
            found[checkout].append(measure(checkout, command, nodes))
    for checkout, starts in found.items():
        click.echo(f"{checkout}: {_told([statistics.median(values) for values in zip(*starts, strict=True)])}")
    if len(checkouts) == 2:
        first, second = (found[checkout] for checkout in checkouts)
        pairs = [[b / a for a, b in zip(*pair, strict=True)] for pair in zip(first, second, strict=True)]
        click.echo(f"ratios: {_told([statistics.median(values) for values in zip(*pairs, strict=True)])}")


def _told(values: list[float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in zip(Start._fields, values, strict=True))


if __name__ == "__main__":
    main()
