"""Watchers of a benchmark: processes that read watch streams and note when each Pod was seen in which state.

Two shapes: `PodWatcher` decodes every event of one stream (to learn when a Pod was created, bound, Running), and
`Fanout` only counts the events of many streams (to learn how fast the server can send them).
"""

from __future__ import annotations

import http.client
import multiprocessing
import re
import selectors
import ssl
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection as Pipe
from typing import Any, NamedTuple

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


_TAIL_BYTES = 4096
"""Of each stream so much is kept that its last event is in it."""

_END = b"0\r\n\r\n"
_SILENCE_S = 60.0

_revision = re.compile(rb'"resourceVersion":"([0-9]+)"').findall


class _Stream:
    """A watch that is only counted. `ended`: how often the server ended it, and it went on from where it was."""

    def __init__(self, target: Target, path: str) -> None:
        self.target, self.path = target, path
        self.tail = b""
        self.ended = 0
        self.open(path)

    def open(self, path: str) -> None:
        self.response = open_stream(self.target, path)
        self.sock: ssl.SSLSocket = self.response.fp.raw._sock  # type: ignore[union-attr]
        self.sock.setblocking(False)

    def count(self, block: bytearray) -> int:
        """Events that have come."""
        found = 0
        while True:
            try:
                size = self.sock.recv_into(block)
            except (ssl.SSLWantReadError, BlockingIOError):
                return found
            if not size:
                raise ConnectionError("the server cut a watch")
            # an event ends in a newline; the others end a line of the chunked coding, and follow a carriage return
            found += block.count(b"\n", 0, size) - block.count(b"\r", 0, size)
            self.tail = (self.tail + block[max(0, size - _TAIL_BYTES) : size])[-_TAIL_BYTES:]
            if self.tail.endswith(_END):
                return found

    def go_on(self) -> None:
        """After the end of the stream: a new one from the last event on."""
        versions = _revision(self.tail)
        self.tail, self.ended = b"", self.ended + 1
        self.open(f"{self.path}&resourceVersion={versions[-1].decode()}" if versions else self.path)


def _fanout(pipe: Pipe, target: Target, path: str, streams: int, wanted: int) -> None:
    """Counts event lines of `streams` streams with one selector, never decoding them."""
    # All at once: kube-apiserver may take seconds to answer each, while its cache waits for etcd's word on its age.
    with ThreadPoolExecutor(streams) as openers:
        opened = list(openers.map(lambda _: _Stream(target, path), range(streams)))
    chooser, first = selectors.DefaultSelector(), 0.0
    for stream in opened:
        chooser.register(stream.sock, selectors.EVENT_READ, stream)
    pipe.send(("ready", None))
    cpu, total, block = time.process_time(), 0, bytearray(1 << 18)
    while total < wanted * streams:
        ready = chooser.select(_SILENCE_S)
        if not ready:
            raise RuntimeError(f"{total} of {wanted * streams} events came")
        first = first or time.monotonic()
        for key, _ in ready:
            stream = key.data
            total += stream.count(block)
            if stream.tail.endswith(_END) and total < wanted * streams:
                chooser.unregister(stream.sock)
                stream.go_on()
                chooser.register(stream.sock, selectors.EVENT_READ, stream)
    ended = sum(stream.ended for stream in opened)
    pipe.send(("done", Fanned(total, first, time.monotonic(), time.process_time() - cpu, ended)))


class Fanned(NamedTuple):
    """Events that came, when the first and the last did (monotonic s), CPU seconds of the reader, streams ended."""

    events: int
    first: float
    last: float
    cpu_s: float
    ended: int


class Fanout:
    """Many watch streams in a process of its own. A stream that the server ends goes on where it was, as clients do."""

    def __init__(self, target: Target, path: str, streams: int, wanted: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, there = spawn.Pipe()
        self._process = spawn.Process(target=_fanout, args=(there, target, path, streams, wanted), daemon=True)
        self._process.start()
        there.close()  # so that the end of the process is the end of the pipe
        self._receive(60)

    def _receive(self, timeout_s: float) -> Any:
        if not self._pipe.poll(timeout_s):
            self._process.kill()
            raise RuntimeError("the watchers did not start, or not finish, in time")
        try:
            return self._pipe.recv()[1]
        except EOFError:
            raise RuntimeError("the watchers ended") from None

    def result(self) -> Fanned:
        outcome: Fanned = self._receive(300)
        self._process.join(5)
        return outcome
