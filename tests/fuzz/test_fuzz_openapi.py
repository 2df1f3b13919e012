"""Whatever the served OpenAPI documents allow, and what is a little beside it, is answered: no 500, no crash, no leak.

schemathesis makes the requests of each operation of each group; FUZZ_EXAMPLES is how many (10).
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "10"))
GROWTH_MAX_MB = 96
"""What the stored objects and what is kept of them may take."""

STAYING = ("watch", "follow")
"""Parameters with which an answer does not end."""

UPSTREAM_SAYS_500 = (
    b"resourceVersion: Invalid value",
    b"strconv.ParseUint",
    b"resourceVersion should not be set on objects to be created",
    b"failed to create typed patch object",
    b"does not contain declared merge key",
    b"list element types are not identical",
    b"expected a map[string]interface {}",
    b"unknown patch type",
    b"doesn't match $setElementOrder list",
    b"unable to determine kind and namespace from url",
    b"target.name: Required value",
)
"""Of the answers with 500, those that are kube-apiserver's own."""

pytestmark = pytest.mark.fuzz


class Server:
    """A bare API server in a process of its own."""

    def __init__(self, folder: Any) -> None:
        tokens = folder / "tokens.csv"
        tokens.write_text('admin,admin,admin,"system:masters"\n')
        self.log = folder / "log"
        words = [sys.executable, "-m", "fastkube", "apiserver", "--data-dir", str(folder / "data"), "--http-port", "0"]
        words += ["--secure-port", "0", "--token-auth-file", str(tokens), "--unix-socket", str(folder / "socket")]
        words += ["--disable-admission-plugins", "ServiceAccount"]
        self.process = subprocess.Popen(words, stdout=self.log.open("wb"), stderr=subprocess.STDOUT)
        self.socket = str(folder / "socket")
        deadline = time.monotonic() + 60
        while not self.ready() and time.monotonic() < deadline:
            time.sleep(0.1)

    def ready(self) -> bool:
        try:
            return self.ask("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        connection = _UnixConnection(self.socket)
        try:
            connection.request(method, path, body, {"Authorization": "Bearer admin", **headers})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    @property
    def memory_mb(self) -> float:
        return float(psutil.Process(self.process.pid).memory_info().rss) / 1e6

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        import socket

        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self._path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("fuzz"))
    yield started
    started.stop()


def _sendable(case: Any) -> tuple[str, str, bytes | None, dict[str, str]]:
    """A case of schemathesis as a request: what cannot stand in a path or header is escaped."""
    path = case.path
    for name, value in (case.path_parameters or {}).items():
        path = path.replace("{" + name + "}", quote(str(value), safe="") or "x")
    query = {key: _text(value) for key, value in (case.query or {}).items() if key not in STAYING}
    media = case.media_type or "application/json"
    body = None
    if isinstance(case.body, (dict, list, str, int, float, bool)) or case.body is None:
        body = None if case.method == "GET" else json.dumps(case.body).encode()
    return case.method, f"{path}?{urlencode(query)}" if query else path, body, {"Content-Type": media}


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _documents(server: Server) -> dict[str, Any]:
    paths = json.loads(server.ask("GET", "/openapi/v3")[1])["paths"]
    return {
        group: json.loads(server.ask("GET", told["serverRelativeURL"])[1])
        for group, told in paths.items()
        if group.startswith("api")
    }


def _fuzz(server: Server, operation: Any) -> None:
    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        method, path, body, headers = _sendable(case)
        status, answer = server.ask(method, path, body, **headers)
        if status >= 500 and status not in (501, 503, 504):
            known = any(text in answer for text in UPSTREAM_SAYS_500)
            assert known, f"{method} {path} {headers} {body!r}: {status} {answer[:500]!r}"
        assert b"Traceback" not in answer

    ask()


def test_every_operation_of_the_served_documents(server: Server) -> None:
    failed: list[str] = []
    begun = server.memory_mb
    for group, document in _documents(server).items():
        schema = schemathesis.openapi.from_dict(document)
        for found in schema.get_all_operations():
            operation = found.ok()
            if "/watch/" in operation.path or operation.path.endswith(("/proxy", "/proxy/{path}")):
                continue
            try:
                _fuzz(server, operation)
            except AssertionError as problem:
                failed.append(f"{group}: {problem}")
    assert not failed, "\n".join(failed[:20])
    assert server.process.poll() is None and server.ready()
    assert b"Traceback" not in server.log.read_bytes()
    assert server.memory_mb - begun < GROWTH_MAX_MB
