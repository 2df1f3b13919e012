"""What a server with much in it takes to start, to hold it, and to look after it while it serves.

restart     seconds from the start of the process until it answers, with so many Pods stored
memory      of a server that holds so many keys: what is its own, beyond the store's pages in the page cache
pauses      the slowest of the requests of one client (creates, one after the other), left alone and while the
            server compacts every second, or its store is copied
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import psutil

from bench import load
from bench.contenders import ROOT, TOKEN, free_port
from bench.load import Target

PODS = 200_000
KEYS = 1_000_000
VALUE_BYTES = 256
_CREATES = 4_000
_ALONE = ("--disable-admission-plugins", "ServiceAccount")

_FILL = """
import asyncio, json, sys
import msgpack
from fastkube.store import Store, Write

path, count, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]

def obj(number):
    if kind == "pods":
        made = json.loads(POD)
        made["metadata"] |= {"name": f"p-{number}", "namespace": f"n-{number % 100}", "uid": f"{number:036d}"}
        return b"/registry/pods/n-%d/p-%d" % (number % 100, number), msgpack.packb(made)
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"m-{number}", "namespace": "default"}}
    packed = msgpack.packb({**made, "data": {"k": "x" * (VALUE_BYTES - 90)}})
    return b"/registry/configmaps/default/m-%d" % number, packed

async def main():
    store = await Store.open(path, sync=False)
    for first in range(0, count, 1000):
        await store.write([Write(*obj(number), 0) for number in range(first, min(first + 1000, count))])
    await store.close()

asyncio.run(main())
"""


class Serving(NamedTuple):
    target: Target
    process: psutil.Process
    ready_s: float


def fill(data_dir: Path, count: int, kind: str) -> None:
    """So many objects straight into the store of a server that does not run; `kind` is pods or keys."""
    obj = load.pod("p")
    obj["metadata"]["creationTimestamp"] = "2024-01-02T03:04:05Z"
    head = f"POD = {json.dumps(obj)!r}\nVALUE_BYTES = {VALUE_BYTES}\n"
    words = [sys.executable, "-c", head + _FILL, str(data_dir / "store"), str(count), kind]
    subprocess.run(words, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


@contextlib.contextmanager
def serving(data_dir: Path, *extra: str) -> Iterator[Serving]:
    """A bare API server on a data folder that may have been used before."""
    tokens, port = data_dir.parent / "tokens.csv", free_port()
    tokens.write_text(f'{TOKEN},bench,bench,"system:masters"\n')
    words = [sys.executable, "-m", "fastkube", "apiserver", "--data-dir", str(data_dir), "--secure-port", str(port)]
    words += ["--token-auth-file", str(tokens), *_ALONE, *extra]
    begun = time.monotonic()
    with (data_dir.parent / "log").open("ab") as log:
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=log)
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError("the server ended:\n" + (data_dir.parent / "log").read_text()[-2000:])
        ready_s = time.monotonic() - begun
        yield Serving(Target(f"https://127.0.0.1:{port}", TOKEN), psutil.Process(process.pid), ready_s)
    finally:
        process.terminate()
        process.wait(30)


def own_mb(process: psutil.Process) -> float:
    """Anonymous memory: what is resident, without the pages of files."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024


def slowest_ms(target: Target, prefix: str, beside: Callable[[], None] | None = None) -> dict[str, float]:
    """Of creates one after the other, while `beside` runs."""

    work = threading.Thread(target=beside) if beside is not None else None
    if work is not None:
        work.start()
    result = load.run(
        target, load.create_config_maps, connections=1, count=_CREATES, namespace="default", prefix=prefix
    )
    if work is not None:
        work.join()
    if result.errors:
        raise RuntimeError(f"{result.errors} creates failed: {result.statuses}")
    return {f"p{q:g}": result.quantile_ms(q / 100) for q in (50, 99, 100)}


def copy(data_dir: Path) -> None:
    target = data_dir.parent / "copy"
    words = [sys.executable, "-W", "ignore", "-m", "fastkube.store.snapshot", str(data_dir / "store"), str(target)]
    subprocess.run(words, check=True, cwd=ROOT)
    shutil.rmtree(target)


def measure(runs: int) -> dict[str, Any]:
    """All of it; a line for each as it comes."""
    folder = Path(tempfile.mkdtemp(prefix="fastkube-bench-"))
    outcome: dict[str, Any] = {"pods": PODS, "keys": KEYS}
    try:
        data_dir = folder / "pods"
        with serving(data_dir):  # certificates, and what else only a first start makes
            pass
        fill(data_dir, PODS, "pods")
        outcome["restart_s"] = []
        for _ in range(runs):
            with serving(data_dir) as server:
                outcome["restart_s"].append(server.ready_s)
        click.echo(f"restart with {PODS} Pods: {statistics.median(outcome['restart_s']):.2f} s until it is ready")
        outcome["pauses_ms"] = pauses(data_dir)
        for name, found in outcome["pauses_ms"].items():
            p50, p99, slowest = (found[each] for each in ("p50", "p99", "p100"))
            click.echo(f"a create, {name:18} p50 {p50:6.2f}  p99 {p99:6.2f}  max {slowest:6.2f} ms")
        outcome["memory_mb"] = memory(folder / "keys")
        at_rest, used = outcome["memory_mb"]["at rest"], outcome["memory_mb"]["used"]
        click.echo(f"{KEYS} keys: {at_rest:.0f} MB of its own, {used:.0f} MB after use")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def pauses(data_dir: Path) -> dict[str, dict[str, float]]:
    found = {}
    with serving(data_dir, "--etcd-compaction-interval", "0") as server:
        slowest_ms(server.target, "warm")
        found["left alone"] = slowest_ms(server.target, "alone")
        found["beside a backup"] = slowest_ms(server.target, "copied", lambda: copy(data_dir))
    with serving(data_dir, "--etcd-compaction-interval", "1s") as server:
        found["beside compaction"] = slowest_ms(server.target, "compacted")
    return found


def memory(data_dir: Path) -> dict[str, float]:
    with serving(data_dir):
        pass
    fill(data_dir, KEYS, "keys")
    with serving(data_dir) as server:
        at_rest = own_mb(server.process)
        slowest_ms(server.target, "used")
        return {"at rest": at_rest, "used": own_mb(server.process)}
