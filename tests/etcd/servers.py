"""Servers of etcd's API as processes: `fastkube etcd`, and the real etcd where a test compares the two."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

START_S = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def fastkube_etcd(folder: Path, *flags: str, scheme: str = "http") -> Iterator[str]:
    """The URL of a `fastkube etcd` on a free port."""
    words = [sys.executable, "-m", "fastkube", "etcd", "--data-dir", str(folder)]
    words += ["--listen-client-urls", f"{scheme}://127.0.0.1:0", *flags]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split(": ", 1)[1].strip()
        finally:
            process.terminate()
            assert process.wait(timeout=START_S) == 0


@contextlib.contextmanager
def real_etcd(folder: Path) -> Iterator[str]:
    """The URL of an etcd on free ports."""
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    words = ["etcd", "--data-dir", str(folder), "--listen-client-urls", client, "--advertise-client-urls", client]
    words += ["--listen-peer-urls", peer, "--log-level", "error", "--logger", "zap"]
    with subprocess.Popen(words) as process:
        try:
            deadline = time.monotonic() + START_S
            probe = ["etcdctl", "--endpoints", client, "endpoint", "health"]
            while subprocess.run(probe, capture_output=True, check=False).returncode:
                assert time.monotonic() < deadline and process.poll() is None
            yield client
        finally:
            process.terminate()
            process.wait(timeout=START_S)
