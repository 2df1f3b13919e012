"""A scheduler beside an API server: what the tests of whole attempts stand on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fastkube.client import Client
from fastkube.clock import RealClock
from fastkube.errors import ApiError
from fastkube.scheduler import config as configs
from fastkube.scheduler.options import SchedulerOptions
from fastkube.scheduler.profile import PluginClass
from fastkube.scheduler.scheduler import Scheduler
from fastkube.testing import Cluster

Object = dict[str, Any]

TIMEOUT_S = 20.0


def configuration(**fields: Any) -> configs.SchedulerConfig:
    return configs.parse({"apiVersion": configs.API_VERSION, "kind": configs.KIND, **fields})


@contextlib.asynccontextmanager
async def scheduling(
    cluster: Cluster,
    config: configs.SchedulerConfig | None = None,
    codec: str = "msgpack",
    plugins: Mapping[str, PluginClass] | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Client, Scheduler]]:
    """A client of the cluster and a scheduler that works beside it. All Pods and nodes are gone at the end."""
    async with cluster.client(codec=codec) as client:
        told = SchedulerOptions(**{"leader_elect": False, **options})
        scheduler = Scheduler(client, RealClock(), told, config=config, plugins=plugins)
        await scheduler.start()
        try:
            yield client, scheduler
        finally:
            await scheduler.stop()
            for resource in ("v1/pods", "v1/events"):
                await client.delete_collection(resource, "default", grace_period_s=0)
            for name in [each["metadata"]["name"] for each in (await client.list("v1/nodes"))["items"]]:
                await client.delete("v1/nodes", name)


async def create(client: Client, *objects: Object) -> None:
    """Nodes and Pods; the server gives uids."""
    for obj in objects:
        resource = "v1/nodes" if obj["kind"] == "Node" else "v1/pods"
        obj["metadata"].pop("uid", None)
        await client.create(resource, obj, obj["metadata"].get("namespace", ""))


async def until(told: Callable[[], Awaitable[Any]], timeout_s: float = TIMEOUT_S) -> Any:
    """What `told` gives as soon as it is true."""
    async with asyncio.timeout(timeout_s):
        while not (found := await told()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return found


async def bound(client: Client, name: str) -> str:
    """The node that a Pod gets."""

    async def node() -> Any:
        return (await client.get("v1/pods", name, "default"))["spec"].get("nodeName")

    return str(await until(node))


async def condition(client: Client, name: str, part: str = "") -> Object:
    """The PodScheduled condition that says why a Pod has no node; `part` is in its message."""

    async def told() -> Any:
        status = (await client.get("v1/pods", name, "default"))["status"]
        found = [each for each in status.get("conditions") or () if each["type"] == "PodScheduled"]
        return found[0] if found and found[0]["status"] == "False" and part in found[0].get("message", "") else None

    answer: Object = await until(told)
    return answer


async def gone(client: Client, name: str) -> bool:
    try:
        await client.get("v1/pods", name, "default")
    except ApiError as error:
        return error.code == 404
    return False


@contextlib.contextmanager
def extender(answer: Callable[[str, Object], Any]) -> Iterator[tuple[str, list[tuple[str, Object]]]]:
    """An HTTP extender: `answer(verb, body)`. Gives its URL and what it was asked."""
    asked: list[tuple[str, Object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            verb = self.path.rpartition("/")[2]
            asked.append((verb, body))
            told = answer(verb, body)
            data = json.dumps(told).encode()
            self.send_response(500 if told is None else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/prefix", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
