"""Load generators: closed-loop HTTP/1.1 connections over TLS, light enough not to be the bottleneck.

A Python HTTP client costs more than the server's whole budget for a request, so requests are prepared bytes and answers
are read only as far as is needed to find their end and their status. Each generator is a process of its own on uvloop
that reports latencies (seconds) and the CPU time it used; a run in which a generator used more than 90 % of a core
is marked, since it then may have measured the client.

Times are CLOCK_MONOTONIC, which all processes of a Linux machine share: one process's "sent" can be compared with
another's "seen".
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import ssl
import time
import urllib.parse
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from typing import Any, cast

_STRIDE = 7_654_321  # a prime: every object has its turn


@dataclass(frozen=True)
class Target:
    """Where to send: URL of an API server and a bearer token. Its certificate is not verified."""

    url: str
    token: str

    @property
    def address(self) -> tuple[str, int]:
        parts = urllib.parse.urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or (443 if parts.scheme == "https" else 80)

    def context(self) -> ssl.SSLContext | None:
        if not self.url.startswith("https"):
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    def head(self, method: str, path: str, body_length: int | None = None, extra: str = "") -> bytes:
        lines = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self.token}\r\n"
        lines += f"Accept: application/json\r\n{extra}"
        if body_length is not None:
            if "Content-Type" not in extra:
                lines += "Content-Type: application/json\r\n"
            lines += f"Content-Length: {body_length}\r\n"
        return (lines + "\r\n").encode()


@dataclass
class Result:
    """What the generators saw: one latency (s) and one start time a request, statuses counted, CPU seconds used."""

    latencies: array[float] = field(default_factory=lambda: array("d"))
    started: array[float] = field(default_factory=lambda: array("d"))
    statuses: dict[int, int] = field(default_factory=dict)
    bytes_read: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    processes: int = 0

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.wall_s if self.wall_s else 0.0

    @property
    def errors(self) -> int:
        return sum(count for status, count in self.statuses.items() if status >= 400)

    @property
    def client_bound(self) -> bool:
        return self.cpu_s > 0.9 * self.wall_s * max(1, self.processes)

    def quantile_ms(self, q: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1e3 if ordered else 0.0

    def summary(self) -> dict[str, Any]:
        return {
            "requests": len(self.latencies),
            "rate": round(self.rate, 1),
            "p50_ms": round(self.quantile_ms(0.50), 3),
            "p90_ms": round(self.quantile_ms(0.90), 3),
            "p99_ms": round(self.quantile_ms(0.99), 3),
            "max_ms": round(self.quantile_ms(1.0), 3),
            "errors": self.errors,
            "statuses": {str(code): n for code, n in sorted(self.statuses.items())},
            "bytes_read": self.bytes_read,
            "wall_s": round(self.wall_s, 3),
            "client_cpu_s": round(self.cpu_s, 3),
            "client_bound": self.client_bound,
        }


_SILENCE_S = 300.0

_RECEIVED = memoryview(bytearray(256 * 1024))
_TLS_RECEIVED = memoryview(bytearray(256 * 1024))


class _Connection(asyncio.BufferedProtocol):
    """Sends the next request when the answer of the last has come to its end.

    TLS runs over memory buffers here: that is about half of what the event loop's own costs.
    """

    def __init__(
        self, requests: Iterator[bytes], result: Result, done: asyncio.Future[None], context: ssl.SSLContext | None
    ) -> None:
        self.requests, self.result, self.done = requests, result, done
        self.buffer = b""
        self.missing = -1  # bytes of the body still to come; -1: in the header; -2: chunked
        self.sent = 0.0
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing) if context else None
        self.ready = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.tls is None:
            self.ready.set_result(None)
        else:
            self.shake_hands()

    def shake_hands(self) -> None:
        assert self.tls is not None
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        else:
            self.ready.set_result(None)
        self.transport.write(self.outgoing.read())

    def send(self) -> None:
        request = next(self.requests, None)
        if request is None:
            self.transport.close()
            if not self.done.done():
                self.done.set_result(None)
            return
        self.sent = time.monotonic()
        if self.tls is not None:
            self.tls.write(request)
            request = self.outgoing.read()
        self.transport.write(request)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _RECEIVED

    def buffer_updated(self, nbytes: int) -> None:
        if self.tls is None:
            self.received(bytes(_RECEIVED[:nbytes]))
            return
        self.incoming.write(_RECEIVED[:nbytes])
        if not self.ready.done():
            self.shake_hands()
        while self.ready.done() and (self.incoming.pending or self.tls.pending()):
            try:
                count = self.tls.read(len(_TLS_RECEIVED), _TLS_RECEIVED)
            except ssl.SSLWantReadError:
                return
            if not count:
                return
            self.received(bytes(_TLS_RECEIVED[:count]))

    def received(self, data: bytes) -> None:
        self.result.bytes_read += len(data)
        if self.missing >= 0:
            self.missing -= len(data)
            if self.missing <= 0:
                self.finish()
            return
        self.buffer += data
        if self.missing == -2:
            self.chunked()
            return
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        self.status = int(head[9:12])
        at = head.find(b"content-length:")
        if at >= 0:
            stop = head.find(b"\r\n", at)
            length = int(head[at + 15 : stop if stop > 0 else end])
            self.missing = length - (len(self.buffer) - end - 4)
            self.buffer = b""
            if self.missing <= 0:
                self.finish()
        elif b"chunked" in head:
            self.missing, self.buffer = -2, self.buffer[end + 4 :]
            self.chunked()
        else:
            self.missing = 0
            self.finish()

    def chunked(self) -> None:
        if self.buffer.endswith(b"0\r\n\r\n"):
            self.finish()
        else:
            self.buffer = self.buffer[-7:]  # only the end matters

    def finish(self) -> None:
        self.buffer, self.missing = b"", -1
        result = self.result
        result.latencies.append(time.monotonic() - self.sent)
        result.started.append(self.sent)
        result.statuses[self.status] = result.statuses.get(self.status, 0) + 1
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        lost = exc or ConnectionError("the server closed the connection")
        for future in (self.ready, self.done):
            if not future.done():
                future.set_exception(lost)


async def drive(target: Target, connections: int, requests: Iterator[bytes]) -> Result:
    """Send all of `requests` over so many connections at once; returns when every answer has come."""
    loop = asyncio.get_running_loop()
    host, port = target.address
    context, result = target.context(), Result(processes=1)
    opened: list[_Connection] = []
    for _ in range(connections):
        connection = _Connection(requests, result, loop.create_future(), context)
        await loop.create_connection(lambda connection=connection: connection, host, port)  # type: ignore[misc]
        await connection.ready
        opened.append(connection)
    cpu, wall = time.process_time(), time.monotonic()
    for connection in opened:
        connection.send()
    await asyncio.gather(*(connection.done for connection in opened))
    result.wall_s, result.cpu_s = time.monotonic() - wall, time.process_time() - cpu
    return result


def _until(requests: Iterator[bytes], seconds: float) -> Iterator[bytes]:
    """The requests that can be sent in so many seconds from the first on."""
    ends = 0.0
    for request in requests:
        now = time.monotonic()
        ends = ends or now + seconds
        if now > ends:
            return
        yield request


def _process(
    pipe: Pipe,
    target: Target,
    connections: int,
    make: Callable[..., Iterator[bytes]],
    seconds: float,
    arguments: dict[str, Any],
) -> None:
    import uvloop

    try:
        pipe.send(("ready", None))
        pipe.recv()
        requests = make(target, **arguments)
        pipe.send(("done", uvloop.run(drive(target, connections, _until(requests, seconds) if seconds else requests))))
    except Exception as error:
        pipe.send(("failed", f"{type(error).__name__}: {error}"))


def _receive(pipe: Pipe) -> Any:
    """What a generator says next. Raises RuntimeError when it is silent for too long or gone."""
    if not pipe.poll(_SILENCE_S):
        raise RuntimeError(f"a load generator said nothing for {_SILENCE_S:.0f} s")
    try:
        return pipe.recv()
    except EOFError:
        raise RuntimeError("a load generator ended") from None


def run(
    target: Target,
    make: Callable[..., Iterator[bytes]],
    *,
    connections: int,
    count: int,
    processes: int = 1,
    seconds: float = 0.0,
    **arguments: Any,
) -> Result:
    """`count` requests of `make(target, first=, count=, **arguments)` over `connections`, from `processes` processes.

    With `seconds` fewer, when that time is over.
    Raises RuntimeError when a generator failed: half a load is no measurement.
    """
    spawn = multiprocessing.get_context("spawn")
    processes = max(1, min(processes, connections))
    workers = []
    for number in range(processes):
        here, there = spawn.Pipe()
        share = count // processes + (number < count % processes)
        first = number * (count // processes) + min(number, count % processes)
        own = connections // processes + (number < connections % processes)
        sent = {"first": first, "count": share, **arguments}
        worker = spawn.Process(target=_process, args=(there, target, own, make, seconds, sent), daemon=True)
        worker.start()
        workers.append((worker, here))
    for _, pipe in workers:
        _receive(pipe)
    for _, pipe in workers:
        pipe.send("go")
    total = Result()
    try:
        for _, pipe in workers:
            word, value = _receive(pipe)
            if word != "done":
                raise RuntimeError(f"a load generator failed: {value}")
            total.latencies.extend(value.latencies)
            total.started.extend(value.started)
            for status, n in value.statuses.items():
                total.statuses[status] = total.statuses.get(status, 0) + n
            total.bytes_read += value.bytes_read
            total.wall_s = max(total.wall_s, value.wall_s)
            total.cpu_s += value.cpu_s
            total.processes += 1
    finally:
        for worker, _ in workers:
            worker.join(5)
            if worker.is_alive():
                worker.kill()
    return total


def pod(name: str, scheduler: str = "default-scheduler") -> dict[str, Any]:
    """The Pod of scheduler_perf's basic workload: one container with small requests."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "bench"}},
        "spec": {
            "schedulerName": scheduler,
            "containers": [
                {
                    "name": "pause",
                    "image": "registry.k8s.io/pause:3.10",
                    "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}},
                }
            ],
        },
    }


def create_pods(target: Target, first: int, count: int, namespace: str, prefix: str, scheduler: str) -> Iterator[bytes]:
    """POSTs of Pods `prefix-0000001` ..."""
    marker = "N" * 7
    obj = pod(f"{prefix}-{marker}", scheduler)
    obj["metadata"]["labels"]["bench"] = prefix
    body = json.dumps(obj, separators=(",", ":")).encode()
    head = target.head("POST", f"/api/v1/namespaces/{namespace}/pods", len(body))
    before, after = (head + body).split(marker.encode())
    for number in range(first, first + count):
        yield b"%s%07d%s" % (before, number, after)


def get_pods(target: Target, first: int, count: int, namespace: str, prefix: str, existing: int) -> Iterator[bytes]:
    for number in range(first, first + count):
        yield target.head("GET", f"/api/v1/namespaces/{namespace}/pods/{prefix}-{number % existing:07d}")


def get_spread(target: Target, first: int, count: int, path: str, existing: int) -> Iterator[bytes]:
    """Objects all over a collection, one after the other far from the last."""
    for number in range(first, first + count):
        yield target.head("GET", f"{path}{number * _STRIDE % existing:07d}")


def delete_pods(target: Target, first: int, count: int, namespace: str, prefix: str) -> Iterator[bytes]:
    for number in range(first, first + count):
        yield target.head("DELETE", f"/api/v1/namespaces/{namespace}/pods/{prefix}-{number:07d}?gracePeriodSeconds=0")


def patch_pods(target: Target, first: int, count: int, namespace: str, prefix: str, existing: int) -> Iterator[bytes]:
    for number in range(first, first + count):
        body = b'{"metadata":{"annotations":{"bench":"%d"}}}' % number
        path = f"/api/v1/namespaces/{namespace}/pods/{prefix}-{number % existing:07d}"
        yield target.head("PATCH", path, len(body), "Content-Type: application/merge-patch+json\r\n") + body


def list_pods(target: Target, first: int, count: int, namespace: str, selector: str = "") -> Iterator[bytes]:
    query = f"?labelSelector={selector}" if selector else ""
    request = target.head("GET", f"/api/v1/namespaces/{namespace}/pods{query}")
    for _ in range(count):
        yield request


def create_config_maps(target: Target, first: int, count: int, namespace: str, prefix: str) -> Iterator[bytes]:
    marker = "N" * 7
    obj = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{prefix}-{marker}"},
        "data": {"key": "value"},
    }
    body = json.dumps(obj, separators=(",", ":")).encode()
    head = target.head("POST", f"/api/v1/namespaces/{namespace}/configmaps", len(body))
    before, after = (head + body).split(marker.encode())
    for number in range(first, first + count):
        yield b"%s%07d%s" % (before, number, after)


def deployment(name: str, replicas: int) -> dict[str, Any]:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": pod("", "default-scheduler")["spec"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def create_deployment(target: Target, first: int, count: int, namespace: str, replicas: int) -> Iterator[bytes]:
    for number in range(first, first + count):
        body = json.dumps(deployment(f"rollout-{number}", replicas)).encode()
        yield target.head("POST", f"/apis/apps/v1/namespaces/{namespace}/deployments", len(body)) + body


def apply_deployments(target: Target, first: int, count: int, namespace: str) -> Iterator[bytes]:
    """Server-side applies, each of a new Deployment."""
    media = "Content-Type: application/apply-patch+yaml\r\n"
    for number in range(first, first + count):
        name = f"applied-{number:07d}"
        body = json.dumps(deployment(name, 0), separators=(",", ":")).encode()
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}?fieldManager=bench"
        yield target.head("PATCH", path, len(body), media) + body


def mixed(target: Target, first: int, count: int, namespace: str, prefix: str, existing: int) -> Iterator[bytes]:
    """In twenty requests: twelve GETs, four patches, two creates, one page of a list, one GET of the namespace."""
    where = {"namespace": namespace, "first": first, "count": count}
    gets = get_pods(target, prefix=prefix, existing=existing, **where)  # type: ignore[arg-type]
    patches = patch_pods(target, prefix=prefix, existing=existing, **where)  # type: ignore[arg-type]
    creates = create_pods(target, prefix="mixed", scheduler="none", **where)  # type: ignore[arg-type]
    page = target.head("GET", f"/api/v1/namespaces/{namespace}/pods?limit=100")
    namespaces = target.head("GET", f"/api/v1/namespaces/{namespace}")
    for number in range(count):
        turn = number % 20
        if turn < 12:
            yield next(gets)
        elif turn < 16:
            yield next(patches)
        elif turn < 18:
            yield next(creates)
        else:
            yield page if turn == 18 else namespaces
