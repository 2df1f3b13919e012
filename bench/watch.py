"""Watchers of a benchmark: processes that read watch streams and note when each Pod was seen in which state.

Two shapes: `PodWatcher` decodes every event of one stream (to learn when a Pod was created, bound, Running), and
`Fanout` only counts the events of many streams (to learn how fast the server can send them).
"""

from __future__ import annotations

import http.client
import multiprocessing
import time
import urllib.parse
from multiprocessing.connection import Connection as Pipe
from typing import Any

from bench.load import Target


def open_stream(target: Target, path: str) -> http.client.HTTPResponse:
    host, port = target.address
    context = target.context()
    connection: http.client.HTTPConnection
    if context:
        connection = http.client.HTTPSConnection(host, port, context=context, timeout=600)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=600)
    connection.request("GET", path, headers={"Authorization": f"Bearer {target.token}", "Accept": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"watch refused: {response.status} {response.read(300)!r}")
    return response


def _pod_watcher(pipe: Pipe, target: Target, namespace: str, wanted: int, state: str, timeout_s: float) -> None:
    """Reads until `wanted` Pods have reached `state` ("created", "bound" or "running")."""
    import orjson

    seen: dict[str, dict[str, float]] = {"created": {}, "bound": {}, "running": {}}
    query = urllib.parse.urlencode({"watch": "true", "resourceVersion": "0", "timeoutSeconds": int(timeout_s)})
    response = open_stream(target, f"/api/v1/namespaces/{namespace}/pods?{query}")
    pipe.send(("ready", None))
    cpu = time.process_time()
    while len(seen[state]) < wanted:
        line = response.readline()
        if not line:
            break
        now = time.monotonic()
        pod = orjson.loads(line)["object"]
        name = pod.get("metadata", {}).get("name", "")
        if not name:
            continue
        seen["created"].setdefault(name, now)
        if pod["spec"].get("nodeName"):
            seen["bound"].setdefault(name, now)
        if pod.get("status", {}).get("phase") == "Running":
            seen["running"].setdefault(name, now)
    pipe.send(("done", (seen, time.process_time() - cpu)))


class PodWatcher:
    """Watches one namespace from a process of its own; `result()` waits for the end."""

    def __init__(self, target: Target, namespace: str, wanted: int, state: str, timeout_s: float = 300) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, there = spawn.Pipe()
        self._timeout_s = timeout_s
        self._process = spawn.Process(
            target=_pod_watcher, args=(there, target, namespace, wanted, state, timeout_s), daemon=True
        )
        self._process.start()
        self._receive(60)

    def _receive(self, timeout_s: float) -> Any:
        if not self._pipe.poll(timeout_s):
            self._process.kill()
            raise RuntimeError("the watcher did not finish in time")
        return self._pipe.recv()[1]

    def result(self) -> tuple[dict[str, dict[str, float]], float]:
        """({state: {Pod name: monotonic s}}, CPU seconds used)."""
        seen, cpu_s = self._receive(self._timeout_s + 30)
        self._process.join(5)
        return seen, cpu_s


def _fanout(pipe: Pipe, target: Target, path: str, streams: int, wanted: int) -> None:
    """Counts event lines of `streams` streams with one selector, never decoding them."""
    import selectors
    import ssl

    opened = [open_stream(target, path) for _ in range(streams)]
    chooser, counts, started = selectors.DefaultSelector(), [0] * streams, 0.0
    for number, response in enumerate(opened):
        sock = response.fp.raw._sock  # type: ignore[union-attr]
        sock.setblocking(False)
        chooser.register(sock, selectors.EVENT_READ, number)
    pipe.send(("ready", None))
    cpu, total, goal = time.process_time(), 0, wanted * streams
    while total < goal:
        for key, _ in chooser.select(30):
            sock = key.fileobj
            while True:
                try:
                    data = sock.recv(262144)  # type: ignore[union-attr]
                except (ssl.SSLWantReadError, BlockingIOError):
                    break
                if not data:
                    goal = 0
                    break
                started = started or time.monotonic()
                lines = data.count(b'{"type":')
                counts[key.data] += lines
                total += lines
    pipe.send(("done", (total, started, time.monotonic(), time.process_time() - cpu)))


class Fanout:
    """Many watch streams in a process of its own; `result()` is (events, first seen, last seen, CPU s)."""

    def __init__(self, target: Target, path: str, streams: int, wanted: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, there = spawn.Pipe()
        self._process = spawn.Process(target=_fanout, args=(there, target, path, streams, wanted), daemon=True)
        self._process.start()
        if not self._pipe.poll(60):
            raise RuntimeError("the watchers did not start in time")
        self._pipe.recv()

    def result(self) -> tuple[int, float, float, float]:
        if not self._pipe.poll(300):
            self._process.kill()
            raise RuntimeError("the watchers did not finish in time")
        outcome: tuple[int, float, float, float] = self._pipe.recv()[1]
        self._process.join(5)
        return outcome
