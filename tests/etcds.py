"""A real etcd on loopback, and stores on it."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from fastkube.api.catalog import Catalog
from fastkube.clock import Clock
from fastkube.registry.upstream_form import UpstreamForm
from fastkube.store import Store
from fastkube.store.external.options import EtcdOptions
from fastkube.store.external.store import EtcdStore

ETCD = shutil.which("etcd") or ""

_numbers = itertools.count()


def on_etcd_too(metafunc: pytest.Metafunc, fixture: str, modules: frozenset[str]) -> None:
    """For `pytest_generate_tests`: the tests of these modules run on both kinds of store."""
    if fixture in metafunc.fixturenames and metafunc.module.__name__ in modules:
        metafunc.parametrize(fixture, ["own", "etcd"] if ETCD else ["own"], indirect=True)


def fresh_prefix() -> str:
    return f"/tests-{os.getpid()}-{next(_numbers)}"


async def open_store(directory: Path, etcd: Etcd | None, prefix: str = "", clock: Clock | None = None) -> Store:
    """The own store, or with `etcd` one there under a prefix."""
    if etcd is None:
        return await Store.open(directory / "store", sync=False)
    options = EtcdOptions(etcd_servers=(etcd.url,), etcd_prefix=prefix or fresh_prefix())
    form = UpstreamForm(Catalog.builtin(), options.prefix, options.storage_media_type)
    return await EtcdStore.open_external(directory / "store", options, form, clock)


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

    def ctl(self, *words: str, text: bytes = b"") -> bytes:
        """What etcdctl prints."""
        command = ["etcdctl", "--endpoints", self.url, *words]
        environment = {**os.environ, "ETCDCTL_API": "3"}
        return subprocess.run(command, input=text, capture_output=True, check=True, env=environment).stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
