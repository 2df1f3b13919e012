"""A real etcd on loopback, and stores on it."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any, Protocol

import pytest
from proxies import Proxy

from fastkube.api.catalog import Catalog
from fastkube.registry.upstream_form import UpstreamForm
from fastkube.store import Store
from fastkube.store.external.mirror import COMPACT_REVISION_KEY
from fastkube.store.external.options import EtcdOptions
from fastkube.store.external.store import EtcdStore

ETCD = shutil.which("etcd") or ""

_numbers = itertools.count()


class Reached(Protocol):
    """An etcd, or a way to one."""

    url: str


def on_etcd_too(metafunc: pytest.Metafunc, fixture: str, modules: frozenset[str]) -> None:
    """For `pytest_generate_tests`: the tests of these modules run on both kinds of store."""
    if fixture in metafunc.fixturenames and metafunc.module.__name__ in modules:
        metafunc.parametrize(fixture, ["own", "etcd"] if ETCD else ["own"], indirect=True)


def fresh_prefix() -> str:
    return f"/tests-{os.getpid()}-{next(_numbers)}"


async def open_store(directory: Path, etcd: Reached | list[Proxy] | None, prefix: str = "", **more: str) -> Store:
    """The own store, or with `etcd` one there under a prefix; `more` are further options."""
    if etcd is None:
        return await Store.open(directory / "store", sync=False)
    ways = etcd if isinstance(etcd, list) else [etcd]
    urls = tuple(way.url for way in ways)
    options = EtcdOptions(etcd_servers=urls, etcd_prefix=prefix or fresh_prefix(), **more)  # type: ignore[arg-type]
    form = UpstreamForm(Catalog.builtin(), options.prefix, options.storage_media_type)
    return await EtcdStore.open_external(directory / "store", options, form)


class Etcd:
    """A process that can be stopped, killed and started again on the same data and port."""

    def __init__(self, directory: Path, *flags: str, scheme: str = "http") -> None:
        self.directory = directory
        self.port, peer = _free_port(), _free_port()
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._command = [
            ETCD,
            *("--data-dir", str(directory / "data")),
            *("--listen-client-urls", self.url),
            *("--advertise-client-urls", self.url),
            *("--listen-peer-urls", f"http://127.0.0.1:{peer}"),
            *("--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}"),
            *("--initial-cluster", f"default=http://127.0.0.1:{peer}"),
            *("--log-level", "error", "--unsafe-no-fsync"),
            *flags,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, timeout_s: float = 30.0) -> None:
        with open(self.directory / "log", "ab") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=output)
        deadline = time.monotonic() + timeout_s
        while not self._serves():
            assert self._process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < deadline, "etcd did not start"
            time.sleep(0.05)

    def _serves(self) -> bool:
        if self.url.startswith("https"):
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=1.0) as answer:
                return b"true" in answer.read()
        except OSError:
            return False

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def forget(self) -> None:
        """Compacts what tests before did: who begins here would have their history replayed."""
        noted = self._post("kv/put", key=_base64(COMPACT_REVISION_KEY), value=_base64(b"1"))
        revision = noted["header"]["revision"]
        self._post("kv/put", key=_base64(COMPACT_REVISION_KEY), value=_base64(str(revision).encode()))
        self._post("kv/compaction", revision=revision)

    def _post(self, method: str, **body: str) -> Any:
        """A call by etcd's JSON gateway."""
        with urllib.request.urlopen(f"{self.url}/v3/{method}", json.dumps(body).encode(), timeout=30.0) as answer:
            return json.load(answer)

    def ctl(self, *words: str, text: bytes = b"") -> bytes:
        """What etcdctl prints."""
        command = ["etcdctl", "--endpoints", self.url, *words]
        environment = {**os.environ, "ETCDCTL_API": "3"}
        return subprocess.run(command, input=text, capture_output=True, check=True, env=environment).stdout


def _base64(text: bytes) -> str:
    return base64.b64encode(text).decode()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
