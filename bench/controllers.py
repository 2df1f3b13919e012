#!/usr/bin/env python3
"""Controllers: what a whole control plane needs for the work of its controllers, from the request to the last Pod.

    python -m bench.controllers                                   # everything, some minutes
    python -m bench.controllers --only rollout
    python -m bench.controllers --only scale --only idle --nodes 5000 --pods 50000

Each figure is of one fresh `fastkube up` with simulated nodes, at whose end the numbers are seen by a client:
    scale     one Deployment of --pods Pods, until all are ready
    rollout   one of --rolled Pods gets a new image, until all Pods are new and ready
    many      --deployments Deployments of one Pod each, created as fast as the server takes them, until all are ready
    namespace a namespace with --objects ConfigMaps and the Pods of a Deployment is deleted, until it is gone
    idle      nothing happens for ten seconds, with all that is there
Given are seconds, CPU seconds of the API server and of the process with scheduler, controllers and nodes, and the
memory of both at the end: what they hold themselves, and all that is resident, of which the store's map is a part that
the kernel may take back. Results go to results/<date>-<commit>/controllers.{json,md}.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click

from bench import contenders, report
from bench.contenders import ROOT, TOKEN, Contender
from bench.sched import create_all
from fastkube.client import Client
from fastkube.client.kubeconfig import Connection
from fastkube.errors import ApiError

Object = dict[str, Any]

DEPLOYMENTS = "apps/v1/deployments"
POLL_S = 0.1
IDLE_S = 10.0
SUBJECTS = ("scale", "rollout", "many", "namespace", "idle")


def deployment(name: str, replicas: int, namespace: str = "default") -> Object:
    container = {"name": "c", "image": "registry.k8s.io/pause:3.10"}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def _is_ready(found: Object) -> bool:
    wanted, status = found["spec"]["replicas"], found.get("status", {})
    seen = status.get("observedGeneration") == found["metadata"]["generation"]
    return bool(seen) and all(status.get(key) == wanted for key in ("replicas", "updatedReplicas", "readyReplicas"))


async def _until(look: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if await look():
            return
        await asyncio.sleep(POLL_S)


class Bench:
    """One control plane and a client of it."""

    def __init__(self, contender: Contender, client: Client, timeout_s: float) -> None:
        self.client = client
        self.told: dict[str, Object] = {}
        self._timeout_s = timeout_s
        server = contender.processes[0]
        (components,) = server.children()
        self._processes = {"server": server, "components": components}

    def _cpu_s(self) -> dict[str, float]:
        return {name: sum(each.cpu_times()[:2]) for name, each in self._processes.items()}

    async def measure(self, subject: str, work: Callable[[], Awaitable[None]]) -> None:
        before, started = self._cpu_s(), time.perf_counter()
        async with asyncio.timeout(self._timeout_s):
            await work()
        took_s = time.perf_counter() - started
        figures: Object = {"seconds": round(took_s, 2)}
        figures |= {f"{name}_cpu_s": round(now - before[name], 2) for name, now in self._cpu_s().items()}
        for name, process in self._processes.items():
            memory = process.memory_info()
            figures[f"{name}_own_mb"] = round((memory.rss - memory.shared) / 1e6)
            figures[f"{name}_rss_mb"] = round(memory.rss / 1e6)
        self.told[subject] = figures

    async def ready(self, name: str, namespace: str = "default") -> None:
        async def look() -> bool:
            return _is_ready(await self.client.get(DEPLOYMENTS, name, namespace))

        await _until(look)

    async def nodes(self, count: int) -> None:
        """All nodes are there."""

        async def look() -> bool:
            return len((await self.client.list("v1/nodes"))["items"]) >= count

        await _until(look)

    # -- subjects -----------------------------------------------------------------------------------------------------

    async def scale(self, pods: int) -> None:
        await self.client.create(DEPLOYMENTS, deployment("web", pods), "default")
        await self.ready("web")

    async def to_roll(self, pods: int) -> None:
        await self.client.create(DEPLOYMENTS, deployment("rolled", pods), "default")
        await self.ready("rolled")

    async def rollout(self) -> None:
        containers = [{"name": "c", "image": "registry.k8s.io/pause:3.11"}]
        body = {"spec": {"template": {"spec": {"containers": containers}}}}
        await self.client.patch(DEPLOYMENTS, "rolled", body, "default", kind="strategic")
        await self.ready("rolled")

    async def many(self, count: int) -> None:
        await self.client.create("v1/namespaces", {"metadata": {"name": "many"}})
        await create_all(self.client, DEPLOYMENTS, [deployment(f"d{n}", 1, "many") for n in range(count)], "many")

        async def look() -> bool:
            listed = await self.client.list(DEPLOYMENTS, "many")
            return all(map(_is_ready, listed["items"]))

        await _until(look)

    async def fill(self, objects: int, pods: int) -> None:
        await self.client.create("v1/namespaces", {"metadata": {"name": "full"}})
        maps: list[Object] = [{"metadata": {"name": f"c{n}", "namespace": "full"}} for n in range(objects)]
        await create_all(self.client, "v1/configmaps", maps, "full")
        await self.client.create(DEPLOYMENTS, deployment("web", pods, "full"), "full")
        await self.ready("web", "full")

    async def delete_namespace(self) -> None:
        await self.client.delete("v1/namespaces", "full")

        async def look() -> bool:
            try:
                await self.client.get("v1/namespaces", "full")
            except ApiError as error:
                if error.code != 404:
                    raise
                return True
            return False

        await _until(look)


class Sizes(NamedTuple):
    """How much there is of everything."""

    nodes: int
    pods: int
    rolled: int
    deployments: int
    objects: int


async def run(contender: Contender, only: tuple[str, ...], sizes: Sizes, timeout_s: float) -> dict[str, Object]:
    connection = Connection(contender.target.url, token=TOKEN, insecure=True)
    async with Client(connection, batch=True, timeout_s=timeout_s) as client:
        bench = Bench(contender, client, timeout_s)
        wanted = set(only or SUBJECTS)
        await bench.nodes(sizes.nodes)
        if "scale" in wanted:
            await bench.measure("scale", lambda: bench.scale(sizes.pods))
        if "rollout" in wanted:
            await bench.to_roll(sizes.rolled)
            await bench.measure("rollout", bench.rollout)
        if "many" in wanted:
            await bench.measure("many", lambda: bench.many(sizes.deployments))
        if "namespace" in wanted:
            await bench.fill(sizes.objects, min(sizes.pods, 500))
            await bench.measure("namespace", bench.delete_namespace)
        if "idle" in wanted:
            await bench.measure("idle", lambda: asyncio.sleep(IDLE_S))
        return bench.told


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--only", type=click.Choice(SUBJECTS), multiple=True, help="These figures alone (and what they need).")
@click.option("--nodes", default=500, show_default=True, help="Simulated nodes.")
@click.option("--pods", default=5000, show_default=True, help="Pods of the one Deployment.")
@click.option("--rolled", default=1000, show_default=True, help="Pods of the Deployment that gets a new image.")
@click.option("--deployments", default=600, show_default=True, help="Deployments of one Pod.")
@click.option("--objects", default=4500, show_default=True, help="ConfigMaps in the namespace that is deleted.")
@click.option("--timeout", default=300.0, show_default=True, help="Seconds that a figure may take.")
@click.option("--results", default=str(ROOT / "results"), show_default=False, help="Where results go.")
def main(only: tuple[str, ...], timeout: float, results: str, **given: int) -> None:
    sizes = Sizes(**given)
    path = report.folder(Path(results))
    with contenders.fastkube(sizes.nodes) as contender:
        told = asyncio.run(run(contender, only, sizes, timeout))
    counts = sizes._asdict()
    document: Object = {"machine": report.machine(), "commit": report.commit(), **counts, "figures": told}
    header = ["subject", *next(iter(told.values()))]
    text = f"# Controllers\n\n{document['machine']['cpu']}, {document['machine']['cores']} cores, "
    text += f"commit {document['commit']}: {json.dumps(counts)}\n\n"
    text += report.table(header, [[subject, *figures.values()] for subject, figures in told.items()])
    report.write(path, "controllers", document, text)
    click.echo(f"{text}\n{path}")


if __name__ == "__main__":
    main()
