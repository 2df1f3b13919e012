#!/usr/bin/env python3
"""Reads of much, and what many nodes cost at rest: too long for every run of `make bench`.

    python -m bench.reads                                   # everything, about five minutes
    python -m bench.reads --only heartbeats --nodes 5000

Each subject has a server of its own, in fresh processes:
    list        one LIST of --pods Pods: time to the first byte and to the last, and what the server's memory grows by
    million     --objects ConfigMaps, written through the store before the start: start, memory, GETs, LIST in pages
    heartbeats  --nodes simulated nodes that have nothing to do: CPU of the server and of the nodes' process at rest
    idle        a server that nobody asks anything: CPU
    frontends   GETs, LISTs and watch events with no frontend and with --frontends
Memory is what belongs to the process alone (anonymous); pages of the store's file are told apart, for the kernel takes
them back when it needs them. Results go to results/<date>-<commit>/reads.{json,md}.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import msgpack
import psutil

from bench import contenders, load, report, watch, wrk
from bench.contenders import ROOT, Contender

Object = dict[str, Any]

SUBJECTS = ("list", "million", "heartbeats", "idle", "frontends")
ALONE = ("--disable-admission-plugins", "ServiceAccount")
PAGE = 500
FANOUT = (100, 2000)
"""Watchers and events."""
GET_S = 3.0
LISTED_PODS = 2000
_WRITES = 1000


# ---------------------------------------------------------------- filling


async def _pod() -> Object:
    """A Pod as the server stores it."""
    from bench.micro import subjects

    async with subjects.server() as requests:
        await requests.send(requests.request("POST", subjects.PODS, load.pod("pod")), 201)
        item = requests.store.get(b"/registry/pods/default/pod")
        stored: Object = msgpack.unpackb(item.value)
        return stored


def _config_map() -> Object:
    metadata = {"name": "", "namespace": "default", "uid": "", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"key": "value"}}


async def _fill(data_dir: Path, resource: str, template: Object, count: int) -> None:
    """Objects like the template, straight into the store of a server that does not run."""
    from fastkube.cluster import store_path
    from fastkube.store import ABSENT, Store, Write

    store = await Store.open(store_path(data_dir))
    obj = copy.deepcopy(template)
    for start in range(0, count, _WRITES):
        writes = []
        for number in range(start, min(count, start + _WRITES)):
            name = f"{resource}-{number:07d}"
            obj["metadata"] |= {"name": name, "uid": str(uuid.UUID(int=number))}
            writes.append(Write(f"/registry/{resource}/default/{name}".encode(), msgpack.packb(obj), ABSENT))
        await store.write(writes)
    await store.close()


def _restart_with(contender: Contender, resource: str, template: Object, count: int) -> Object:
    """How long filling and the start with that took."""
    filled = 0.0

    def fill() -> None:
        nonlocal filled
        began, data_dir = time.monotonic(), contender.data_dir
        assert data_dir is not None
        asyncio.run(_fill(data_dir, resource, template, count))
        filled = time.monotonic() - began

    assert contender.restart is not None
    ready = contender.restart(fill)
    return {"fill_s": round(filled, 1), "start_s": round(ready, 3)}


# ---------------------------------------------------------------- what a process uses


def _memory_mb(process: psutil.Process) -> dict[str, float]:
    text = Path(f"/proc/{process.pid}/status").read_text()
    found = {key: int(re.search(rf"{key}:\s+(\d+)", text)[1]) for key in ("RssAnon", "RssFile")}  # type: ignore[index]
    return {"anonymous_mb": round(found["RssAnon"] / 1024, 1), "mapped_mb": round(found["RssFile"] / 1024, 1)}


class Peak:
    """The most anonymous memory that a process had meanwhile, looked at every few milliseconds."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.mb = 0.0

    def _look(self) -> None:
        while not self._over.wait(0.005):
            self.mb = max(self.mb, _memory_mb(self._process)["anonymous_mb"])

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._over.set()
        self._thread.join()


def _rest(process: psutil.Process, seconds: float) -> float:
    """Percent of a core."""
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    time.sleep(seconds)
    return round(100 * (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began), 2)


# ---------------------------------------------------------------- subjects


def _read_whole(contender: Contender, path: str) -> tuple[float, float, int]:
    """Seconds to the first byte and to the last, and bytes of the body."""
    began = time.monotonic()
    response = watch.open_stream(contender.target, path)
    size, first, block = 0, 0.0, bytearray(1 << 18)
    while read := response.readinto(block):
        first = first or time.monotonic() - began
        size += read
    return first, time.monotonic() - began, size


def list_pods(pods: int) -> Object:
    template = asyncio.run(_pod())
    with contenders.fastkube(0, command="apiserver", extra=ALONE) as contender:
        told = _restart_with(contender, "pods", template, pods)
        server, path = contender.processes[0], "/api/v1/namespaces/default/pods"
        before = _memory_mb(server)["anonymous_mb"]
        cpu = contender.cpu_s()
        with Peak(server) as peak:
            first, whole, size = _read_whole(contender, path)
        used = contender.cpu_s() - cpu
        told |= {"first_byte_ms": round(first * 1e3, 1), "seconds": round(whole, 3), "mb": round(size / 1e6, 1)}
        told |= {"cpu_us_per_object": round(used * 1e6 / pods, 2), "grown_mb": round(max(0.0, peak.mb - before), 1)}
        return told | _memory_mb(server)


def _pages(contender: Contender, path: str) -> tuple[int, float]:
    """A LIST in pages: objects seen and seconds."""
    seen, token, began = 0, "", time.monotonic()
    while True:
        response = watch.open_stream(contender.target, f"{path}?limit={PAGE}&continue={token}")
        body = json.loads(response.read())
        seen += len(body["items"])
        token = body["metadata"].get("continue", "")
        if not token:
            return seen, time.monotonic() - began


def million(objects: int) -> Object:
    with contenders.fastkube(0, command="apiserver", extra=ALONE) as contender:
        told = _restart_with(contender, "configmaps", _config_map(), objects)
        told |= {f"started_{key}": value for key, value in _memory_mb(contender.processes[0]).items()}
        cpu = contender.cpu_s()
        got = load.run(
            contender.target,
            load.get_spread,
            connections=32,
            count=10**6,
            seconds=GET_S,
            path="/api/v1/namespaces/default/configmaps/configmaps-",
            existing=objects,
        )
        if got.errors:
            raise RuntimeError(f"GETs failed: {got.statuses}")
        cpu = contender.cpu_s() - cpu
        told |= {"get_per_s": round(got.rate), "get_cpu_us": round(cpu * 1e6 / len(got.latencies), 1)}
        cpu = contender.cpu_s()
        seen, seconds = _pages(contender, "/api/v1/namespaces/default/configmaps")
        if seen != objects:
            raise RuntimeError(f"{seen} of {objects} objects were listed")
        told |= {"pages_s": round(seconds, 2), "pages_cpu_s": round(contender.cpu_s() - cpu, 2)}
        first, whole, _ = _read_whole(contender, "/api/v1/namespaces/default/configmaps")
        told |= {"list_first_byte_ms": round(first * 1e3, 1), "list_s": round(whole, 2)}
        return told | _memory_mb(contender.processes[0])


def _renew_times(contender: Contender) -> dict[str, str]:
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    items = json.loads(watch.open_stream(contender.target, path).read())["items"]
    return {item["metadata"]["name"]: item["spec"]["renewTime"] for item in items}


def heartbeats(nodes: int, rest_s: float) -> Object:
    with contenders.fastkube(nodes) as contender:
        server = contender.processes[0]
        (components,) = server.children()
        deadline = time.monotonic() + 300
        while len(before := _renew_times(contender)) < nodes:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(before)} of {nodes} nodes have a lease")
            time.sleep(1)
        time.sleep(10)  # the controllers come to rest
        before = _renew_times(contender)
        figures: dict[str, float] = {}
        watched = [("server", server), ("components", components)]
        threads = [
            threading.Thread(target=lambda name=name, one=one: figures.update({f"{name}_percent": _rest(one, rest_s)}))
            for name, one in watched
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        after = _renew_times(contender)
        renewed = sum(after[name] > time_then for name, time_then in before.items())
        if renewed < nodes:
            raise RuntimeError(f"{renewed} of {nodes} leases were renewed in {rest_s} s")
        per_s = nodes / 10
        each = figures["server_percent"] / 100 / per_s * 1e6
        return {**figures, "server_us_per_heartbeat": round(each, 1), **_memory_mb(server)}


def idle(rest_s: float) -> Object:
    with contenders.fastkube(0, command="apiserver", extra=ALONE) as contender:
        time.sleep(2)
        server = contender.processes[0]
        return {"server_percent": _rest(server, rest_s), **_memory_mb(server)}


def _with_frontends(count: int) -> Object:
    extra = (*ALONE, *(("--frontends", str(count)) if count else ()))
    with contenders.fastkube(0, command="apiserver", extra=extra) as contender:
        target = contender.target
        told: Object = {}
        pods = {"namespace": "default", "prefix": "pod"}
        load.run(target, load.create_pods, connections=64, count=LISTED_PODS, scheduler="none", **pods)

        cpu = contender.cpu_s()
        got = load.run(target, load.get_pods, connections=32, count=10**6, seconds=GET_S, existing=LISTED_PODS, **pods)
        used = contender.cpu_s() - cpu
        told |= {"get_per_s": round(got.rate), "get_cpu_us": round(used * 1e6 / len(got.latencies), 1)}
        if wrk.found():
            told["get_wrk_per_s"] = round(wrk.get(target, "/api/v1/namespaces/default/pods/pod-0000001", 32, GET_S))
        cpu = contender.cpu_s()
        lists = load.run(target, load.list_pods, connections=8, count=10**6, seconds=GET_S, namespace="default")
        told |= {
            "list_objects_per_s": round(lists.rate * LISTED_PODS),
            "list_cpu_us": round((contender.cpu_s() - cpu) * 1e6 / len(lists.latencies) / LISTED_PODS, 2),
        }
        watchers, events = FANOUT
        readers = watch.Fanout(target, "/api/v1/namespaces/default/configmaps?watch=true", watchers, events)
        cpu = contender.cpu_s()
        load.run(target, load.create_config_maps, connections=64, count=events, namespace="default", prefix="fan")
        seen = readers.result()
        told |= {
            "watch_events_per_s": round(seen.events / max(1e-9, seen.last - seen.first)),
            "watch_cpu_us": round((contender.cpu_s() - cpu) * 1e6 / seen.events, 2),
        }
        return told


def frontends(count: int) -> Object:
    told = {f"{name}_{number}": value for number in (0, count) for name, value in _with_frontends(number).items()}
    for name in ("get_per_s", "list_objects_per_s", "watch_events_per_s"):
        told[f"{name}_ratio"] = round(told[f"{name}_{count}"] / max(1, told[f"{name}_0"]), 2)
    return told


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--only", type=click.Choice(SUBJECTS), multiple=True, help="One subject alone; repeatable.")
@click.option("--pods", default=100_000, show_default=True, help="Pods of the one LIST.")
@click.option("--objects", default=1_000_000, show_default=True, help="ConfigMaps on the disk.")
@click.option("--nodes", default=5000, show_default=True, help="Simulated nodes.")
@click.option("--frontends", "count", default=2, show_default=True, help="Frontends that are compared with none.")
@click.option(
    "--rest", "rest_s", default=30.0, show_default=True, help="Seconds for which a server at rest is watched."
)
@click.option("--results", type=click.Path(path_type=Path), default=ROOT / "results", help="Where results go.")
def main(only: tuple[str, ...], pods: int, objects: int, nodes: int, count: int, rest_s: float, results: Path) -> None:
    works: dict[str, Callable[[], Object]] = {
        "list": lambda: list_pods(pods),
        "million": lambda: million(objects),
        "heartbeats": lambda: heartbeats(nodes, rest_s),
        "idle": lambda: idle(rest_s),
        "frontends": lambda: frontends(count),
    }
    path = report.folder(results)
    told = {}
    for name in only or SUBJECTS:
        told[name] = works[name]()
        click.echo(f"{name}: {json.dumps(told[name])}")
    document: Object = {"machine": report.machine(), "commit": report.commit(), "pods": pods, "objects": objects}
    document |= {"nodes": nodes, "frontends": count, "rest_s": rest_s, "figures": told}
    text = f"# Reads and rest\n\n{document['machine']['cpu']}, {document['machine']['cores']} cores, "
    text += f"commit {document['commit']}\n\n"
    rows = [[subject, key, value] for subject, figures in told.items() for key, value in figures.items()]
    text += report.table(["subject", "figure", "value"], rows)
    report.write(path, "reads", document, text)
    click.echo(str(path))


if __name__ == "__main__":
    main()
