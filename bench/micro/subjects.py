"""What is measured at the micro level: each subject is set up once and gives a function that does it a number of times.

Requests go through the whole server (pipeline, admission, registry, store, answer), with a connection that only keeps
what is written, on a store in memory that does not sync. No clocks, sockets or threads: the same work each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import msgpack

from bench import load

Work = Callable[[int], Awaitable[None]]
Object = dict[str, Any]

TOKEN = "bench-admin-token"
_FILES = Path("/dev/shm") if Path("/dev/shm").is_dir() else None


class _Wire:
    """Keeps what is written; stands for a client's socket."""

    def __init__(self) -> None:
        self.written = b""
        self.taken = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.written = data
        self.taken.set()

    def get_extra_info(self, name: str) -> None:
        return None

    def close(self) -> None:
        """There is nothing behind it."""


class Requests:
    """A server, and one connection to it."""

    def __init__(self, store: Any, api: Any) -> None:
        from fastkube.server.connection import Connection, HttpServer

        self.store, self.api = store, api
        self.wire = _Wire()
        self.connection = Connection(HttpServer(api.serve, 10, api.repeats.serve, api.repeats.again))
        self.connection.connection_made(cast(asyncio.Transport, self.wire))
        self.target = load.Target("http://bench", TOKEN)

    def another(self) -> Requests:
        """The same server over a connection of its own."""
        return Requests(self.store, self.api)

    async def send(self, data: bytes, code: int) -> None:
        """One request as bytes; asserts the status of its answer."""
        self.begin(data)
        await self.ended(code)

    def begin(self, data: bytes) -> None:
        self.wire.taken.clear()
        self.connection.data_received(data)

    async def ended(self, code: int) -> None:
        if not self.wire.taken.is_set():
            await self.wire.taken.wait()
        if int(self.wire.written[9:12]) != code:
            raise RuntimeError(self.wire.written.decode())

    def request(self, method: str, path: str, obj: Any = None, extra: str = "") -> bytes:
        body = b"" if obj is None else json.dumps(obj, separators=(",", ":")).encode()
        return self.target.head(method, path, len(body) if obj is not None else None, extra) + body


@contextlib.asynccontextmanager
async def server() -> AsyncIterator[Requests]:
    """The API server with all its admission plugins, and what a Pod needs: a namespace's service account."""
    from fastkube.api.catalog import Catalog
    from fastkube.cluster import Server, StoreOptions
    from fastkube.server.options import ServerOptions
    from fastkube.store import Store

    with tempfile.TemporaryDirectory(dir=_FILES) as folder:
        tokens = Path(folder) / "tokens.csv"
        tokens.write_text(f'{TOKEN},bench,bench,"system:masters"\n')
        options = ServerOptions(secure_port=None, http_port=0, token_auth_file=str(tokens))
        whole = Server(StoreOptions(data_dir=folder), options)
        async with contextlib.AsyncExitStack() as stack:
            whole.store = await Store.open(Path(folder) / "store", sync=False)
            stack.push_async_callback(whole.store.close)
            whole.api = await whole._api_server(Catalog.builtin(), {}, stack)
            await whole.api.start()
            stack.push_async_callback(whole.api.stop)
            requests = Requests(whole.store, whole.api)
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
            await requests.send(requests.request("POST", "/api/v1/namespaces/default/serviceaccounts", account), 201)
            yield requests


_VERSION = re.compile(rb'"resourceVersion":"([0-9]+)"').search

PODS = "/api/v1/namespaces/default/pods"


def create_pod(requests: Requests) -> Work:
    """Pods that differ in their names: requests are made in advance, but for those."""
    target = load.Target("http://bench", TOKEN)
    made = load.create_pods(target, 0, 10**7, "default", f"pod-{random.Random(1).randrange(10**6)}", "none")

    async def work(count: int) -> None:
        for _ in range(count):
            await requests.send(next(made), 201)

    return work


def create_pods_at_once(requests: Requests) -> Work:
    """As many as there are connections, whose writes share a commit."""
    target = load.Target("http://bench", TOKEN)
    made = load.create_pods(target, 0, 10**7, "default", f"beside-{random.Random(1).randrange(10**6)}", "none")
    connections = [requests.another() for _ in range(50)]

    async def work(count: int) -> None:
        for start in range(0, count, len(connections)):
            used = connections[: count - start]
            for one in used:
                one.begin(next(made))
            for one in used:
                await one.ended(201)

    return work


def create_odd_pod(requests: Requests) -> Work:
    """Pods of which none is like another."""
    made = random.Random(1).randrange(10**6) * 1000

    async def work(count: int) -> None:
        nonlocal made
        for _ in range(count):
            made += 1
            obj = load.pod(f"odd-{made}")
            obj["metadata"]["labels"]["number"] = str(made)
            await requests.send(requests.request("POST", PODS, obj), 201)

    return work


def create_config_map(requests: Requests) -> Work:
    made = 0

    async def work(count: int) -> None:
        nonlocal made
        for _ in range(count):
            made += 1
            obj = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": f"map-{made}"},
                "data": {"key": "value"},
            }
            await requests.send(requests.request("POST", "/api/v1/namespaces/default/configmaps", obj), 201)

    return work


async def _existing(requests: Requests) -> None:
    if requests.store.get(b"/registry/pods/default/there") is None:
        await requests.send(requests.request("POST", PODS, load.pod("there")), 201)


def get_pod(requests: Requests) -> Work:
    async def work(count: int) -> None:
        await _existing(requests)
        request = requests.request("GET", f"{PODS}/there")
        for _ in range(count):
            await requests.send(request, 200)

    return work


def patch_pod(requests: Requests) -> Work:
    made = 0

    async def work(count: int) -> None:
        nonlocal made
        await _existing(requests)
        for _ in range(count):
            made += 1
            body = {"metadata": {"annotations": {"bench": str(made)}}}
            media = "Content-Type: application/merge-patch+json\r\n"
            await requests.send(requests.request("PATCH", f"{PODS}/there", body, media), 200)

    return work


def patch_pod_status(requests: Requests) -> Work:
    made = 0

    async def work(count: int) -> None:
        nonlocal made
        await _existing(requests)
        for _ in range(count):
            made += 1
            condition = {"type": "Ready", "status": "True", "message": str(made)}
            media = "Content-Type: application/strategic-merge-patch+json\r\n"
            body = {"status": {"phase": "Running", "conditions": [condition]}}
            await requests.send(requests.request("PATCH", f"{PODS}/there/status", body, media), 200)

    return work


def renew_lease(requests: Requests) -> Work:
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    made = 0

    async def work(count: int) -> None:
        nonlocal made
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "node"}}
        if not made:
            await requests.send(requests.request("POST", path, lease), 201)
        await requests.send(requests.request("GET", f"{path}/node"), 200)
        for _ in range(count):
            made += 1
            spec = {"holderIdentity": "node", "leaseDurationSeconds": 40}
            spec["renewTime"] = f"2026-01-01T00:00:00.{made:06}Z"
            version = _VERSION(requests.wire.written)
            lease["metadata"] = {"name": "node", "resourceVersion": version[1].decode() if version else ""}
            await requests.send(requests.request("PUT", f"{path}/node", {**lease, "spec": spec}), 200)

    return work


_NODES = 256


def renew_leases(requests: Requests) -> Work:
    """Nodes' heartbeats as they come: all in one batch."""
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    versions: dict[str, str] = {}
    made = 0

    def lease(name: str) -> dict[str, Any]:
        metadata = {"name": name, "namespace": "default"}
        if name in versions:
            metadata["resourceVersion"] = versions[name]
        spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": f"2026-01-01T00:00:00.{made:06}Z"}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}

    async def send(writes: list[Any]) -> None:
        body = msgpack.packb(writes)
        head = requests.target.head("POST", "/fastkube/v1/batch", len(body), "Content-Type: application/msgpack\r\n")
        await requests.send(head + body, 200)
        for _, answer, _ in msgpack.unpackb(requests.wire.written.partition(b"\r\n\r\n")[2]):
            metadata = msgpack.unpackb(answer)["metadata"]
            versions[metadata["name"]] = metadata["resourceVersion"]

    async def work(count: int) -> None:
        names, media = [f"node-{number}" for number in range(_NODES)], "application/msgpack"
        if not made:
            await send([["POST", path, media, msgpack.packb(lease(name)), False] for name in names])
            for _ in range(4):
                await renew(names)
        await renew(names[:count])

    async def renew(names: list[str]) -> None:
        nonlocal made
        made += 1
        await send(
            [["PUT", f"{path}/{name}", "application/msgpack", msgpack.packb(lease(name)), False] for name in names]
        )

    return work


async def _send_batch(requests: Requests, writes: list[Any], code: int) -> None:
    """Sends writes in one request; asserts the status of each."""
    body = msgpack.packb(writes)
    head = requests.target.head("POST", "/fastkube/v1/batch", len(body), "Content-Type: application/msgpack\r\n")
    await requests.send(head + body, 200)
    for told, answer, _ in msgpack.unpackb(requests.wire.written.partition(b"\r\n\r\n")[2]):
        if told != code:
            raise RuntimeError(f"{told}: {answer!r}")


def patch_statuses(requests: Requests) -> Work:
    """What nodes say of their Pods, as it comes: all in one batch."""
    media = "application/strategic-merge-patch+json"
    made = 0

    async def send(count: int) -> None:
        nonlocal made
        made += 1
        started = f"2026-01-01T00:{made // 60:02}:{made % 60:02}Z"
        container = {"name": "c", "image": "i", "imageID": "i@1", "ready": True, "restartCount": 0}
        container["state"] = {"running": {"startedAt": started}}
        writes = []
        for number in range(count):
            address = f"10.0.{number // 250}.{number % 250 + 1}"
            ready = {"type": "Ready", "status": "True", "lastTransitionTime": started}
            status = {"phase": "Running", "conditions": [ready], "podIP": address, "podIPs": [{"ip": address}]}
            body = json.dumps({"status": {**status, "containerStatuses": [container]}}).encode()
            writes.append(["PATCH", f"{PODS}/batched-{number}/status", media, body, True])
        await _send_batch(requests, writes, 200)

    async def work(count: int) -> None:
        if not made:
            for number in range(_NODES):
                await requests.send(requests.request("POST", PODS, load.pod(f"batched-{number}")), 201)
            for _ in range(4):
                await send(_NODES)
        await send(count)

    return work


_TO_BIND = 512


def bind_pods(requests: Requests) -> Work:
    """What the scheduler decides, as it comes: all in one batch."""
    made = 0

    async def work(count: int) -> None:
        nonlocal made
        if not made:
            for number in range(_TO_BIND):
                await requests.send(requests.request("POST", PODS, load.pod(f"free-{number}")), 201)
        writes = []
        for _ in range(count):
            name, made = f"free-{made}", made + 1
            target = {"kind": "Node", "name": f"node-{made % 100}"}
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
            writes.append(["POST", f"{PODS}/{name}/binding", "application/msgpack", msgpack.packb(binding), True])
        await _send_batch(requests, writes, 201)

    return work


def create_events(requests: Requests) -> Work:
    """Events as the scheduler records them: all in one batch."""
    path = "/apis/events.k8s.io/v1/namespaces/default/events"
    made = 0

    async def work(count: int) -> None:
        nonlocal made
        writes = []
        for _ in range(count):
            made += 1
            regarding = {"kind": "Pod", "namespace": "default", "name": f"pod-{made}", "resourceVersion": str(made)}
            event = {
                "apiVersion": "events.k8s.io/v1",
                "kind": "Event",
                "metadata": {"name": f"pod-{made}.{made:016x}", "namespace": "default"},
                "eventTime": f"2026-01-01T00:00:00.{made:06}Z",
                "reportingController": "default-scheduler",
                "reportingInstance": "default-scheduler-here",
                "action": "Binding",
                "reason": "Scheduled",
                "regarding": regarding,
                "note": f"Successfully assigned default/pod-{made} to node-{made % 100}",
                "type": "Normal",
            }
            writes.append(["POST", path, "application/msgpack", msgpack.packb(event), True])
        await _send_batch(requests, writes, 201)

    return work


def delete_pod(requests: Requests) -> Work:
    """Pods that no node runs."""
    made = 0

    async def work(count: int) -> None:
        nonlocal made
        for _ in range(count):
            made += 1
            await requests.send(requests.request("POST", PODS, load.pod(f"gone-{made}")), 201)
            await requests.send(requests.request("DELETE", f"{PODS}/gone-{made}"), 200)

    return work


DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


def _deployment(name: str, replicas: int) -> dict[str, Any]:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def create_deployment(requests: Requests) -> Work:
    made = 0

    async def work(count: int) -> None:
        nonlocal made
        for _ in range(count):
            made += 1
            await requests.send(requests.request("POST", DEPLOYMENTS, _deployment(f"created-{made}", 3)), 201)

    return work


_APPLY = "Content-Type: application/apply-patch+yaml\r\n"


def apply_new_deployment(requests: Requests) -> Work:
    made = 0

    async def work(count: int) -> None:
        nonlocal made
        for _ in range(count):
            made += 1
            path = f"{DEPLOYMENTS}/applied-{made}?fieldManager=bench&force=true"
            await requests.send(requests.request("PATCH", path, _deployment(f"applied-{made}", 3), _APPLY), 201)

    return work


def apply_deployment(requests: Requests) -> Work:
    made = 0

    async def work(count: int) -> None:
        nonlocal made
        for _ in range(count):
            made += 1
            path = f"{DEPLOYMENTS}/applied?fieldManager=bench&force=true"
            request = requests.request("PATCH", path, _deployment("applied", made % 7), _APPLY)
            await requests.send(request, 201 if made == 1 else 200)

    return work


REQUESTS: dict[str, Callable[[Requests], Work]] = {
    "create a Pod": create_pod,
    "create a Pod among many": create_pods_at_once,
    "create a Pod unlike others": create_odd_pod,
    "create a ConfigMap": create_config_map,
    "get a Pod": get_pod,
    "merge-patch a Pod": patch_pod,
    "patch a Pod's status": patch_pod_status,
    "patch a Pod's status of a batch": patch_statuses,
    "create an Event of a batch": create_events,
    "bind a Pod of a batch": bind_pods,
    "create and delete a Pod": delete_pod,
    "renew a Lease": renew_lease,
    "renew a Lease of a batch": renew_leases,
    "create a Deployment": create_deployment,
    "apply a new Deployment": apply_new_deployment,
    "apply a Deployment": apply_deployment,
}


# ---------------------------------------------------------------- the cores


def _stored_pod() -> bytes:
    value: bytes = msgpack.packb({**load.pod("there"), "status": {"phase": "Running", "podIP": "10.0.0.1"}})
    return value


def transcode() -> Callable[[int], None]:
    from fastkube.api import codec

    value = _stored_pod()

    def work(count: int) -> None:
        for revision in range(count):
            codec.value_to_json(value, revision + 1)

    return work


def transcode_list() -> Callable[[int], None]:
    """Pods that differ in what tells them apart."""
    from fastkube.api import apply, codec, schema

    pod = msgpack.unpackb(_stored_pod())
    writer = apply.Writer("bench", "v1", 0.0)
    pod["metadata"]["managedFields"] = apply.created(pod, schema.load("v1", "Pod"), writer)

    def like(number: int) -> bytes:
        metadata = {**pod["metadata"], "name": f"pod-{number}", "uid": f"{number:08}-aaaa-4bbb-8ccc-dddddddddddd"}
        value: bytes = msgpack.packb({**pod, "metadata": metadata})
        return value

    values = [like(number) for number in range(200)]

    def work(count: int) -> None:
        items = ((values[number % len(values)], number + 1) for number in range(count))
        for _ in codec.list_to_json("PodList", "v1", items, {}):
            pass

    return work


def walk_schema() -> Callable[[int], None]:
    from fastkube.api import schema

    shape, packed = schema.load("v1", "Pod"), msgpack.packb(load.pod("there"))

    def work(count: int) -> None:
        for _ in range(count):
            schema.walk(shape, msgpack.unpackb(packed))

    return work


def match_labels() -> Callable[[int], None]:
    from fastkube.api.selectors import parse_label_selector

    value, selector = _stored_pod(), parse_label_selector("app in (bench, other),!missing")

    def work(count: int) -> None:
        for _ in range(count):
            selector.matches_bytes(value)

    return work


def place_pod() -> Callable[[int], None]:
    from bench.sched_core import basic, node
    from fastkube.scheduler.offline import OfflineScheduler

    def work(count: int) -> None:
        scheduler = OfflineScheduler(map(node, range(1000)))
        for pod in basic(count, 1000):
            scheduler.add(pod)
        placed = sum(bool(decision.node) for decision in scheduler.run())
        assert placed == count

    return work


CORES: dict[str, Callable[[], Callable[[int], None]]] = {
    "stored Pod to JSON": transcode,
    "Pod of a list to JSON": transcode_list,
    "schema walk of a Pod": walk_schema,
    "labels matched on bytes": match_labels,
    "schedule a Pod, 1,000 nodes": place_pod,
}


# ---------------------------------------------------------------- the store


def write_key(store: Any) -> Work:
    made = 0

    async def work(count: int) -> None:
        nonlocal made
        for _ in range(count):
            made += 1
            await store.create(b"/bench/%09d" % made, _VALUE)

    return work


def write_batch(store: Any) -> Work:
    from fastkube.store import Write

    made = 0

    async def work(count: int) -> None:
        nonlocal made
        writes = [Write(b"/batch/%09d" % (made + n), _VALUE, 0) for n in range(count)]
        made += count
        await store.write(writes)

    return work


def read_key(store: Any) -> Work:
    async def work(count: int) -> None:
        if store.get(b"/read/it") is None:
            await store.create(b"/read/it", _VALUE)
        for _ in range(count):
            store.get(b"/read/it")

    return work


def list_values(store: Any) -> Work:
    """What a list of Pods costs for each, from the store to JSON."""
    from fastkube.api import codec
    from fastkube.store import Write

    pod, listed = msgpack.unpackb(_stored_pod()), 200

    def like(number: int) -> Write:
        metadata = {**pod["metadata"], "name": f"pod-{number}", "uid": f"{number:08}-aaaa-4bbb-8ccc-dddddddddddd"}
        return Write(b"/list/%03d" % number, msgpack.packb({**pod, "metadata": metadata}), 0)

    async def work(count: int) -> None:
        if store.get(b"/list/000") is None:
            await store.write([like(number) for number in range(listed)])
        items = store.values(b"/list/", b"/list/%03d" % count)
        for _ in codec.list_to_json("PodList", "v1", items, {}):
            pass

    return work


_VALUE = bytes(1000)

STORE: dict[str, Callable[[Any], Work]] = {
    "store: write a key": write_key,
    "store: a key of a batch": write_batch,
    "store: read a key": read_key,
    "store: a Pod of a list to JSON": list_values,
}


@contextlib.asynccontextmanager
async def open_store() -> AsyncIterator[Any]:
    from fastkube.store import Store

    with tempfile.TemporaryDirectory(dir=_FILES) as folder:
        store = await Store.open(Path(folder) / "store", sync=False)
        try:
            yield store
        finally:
            await store.close()
