"""What is measured: each contender is a control plane in fresh processes on fresh data, stopped when it is done.

`fastkube` and `fastkube-pure` are this checkout, compiled and interpreted; `upstream` is kube-apiserver with etcd,
where both are found on PATH (or named by --upstream-bin); `server` is any API server, named by URL and token.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

import psutil

from bench.load import Target
from bench.watch import open_stream

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "bench-admin-token"


@dataclass
class Usage:
    """CPU seconds and resident memory (MB) of one process; shared pages of the store's map count as resident."""

    name: str
    cpu_s: float
    rss_mb: float
    uss_mb: float


@dataclass
class Contender:
    """A running control plane."""

    name: str
    target: Target
    build: str
    """What was built how; of a peer, its versions."""
    processes: list[psutil.Process] = field(default_factory=list)
    ready_s: float = 0.0
    data_dir: Path | None = None
    restart: Callable[..., float] | None = None
    """Stops it and starts it again on the same data; seconds until it was ready. What is given is done in between."""

    def cpu_s(self) -> float:
        """CPU seconds that its processes have used so far."""
        used = 0.0
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                for one in [process, *process.children(recursive=True)]:
                    times = one.cpu_times()
                    used += times.user + times.system
        return used

    def usage(self) -> list[Usage]:
        found = []
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                for one in [process, *process.children(recursive=True)]:
                    times, memory = one.cpu_times(), one.memory_full_info()
                    found.append(Usage(_title(one), times.user + times.system, memory.rss / 1e6, memory.uss / 1e6))
        return found


def _title(process: psutil.Process) -> str:
    if process.name().startswith("fastkube-"):  # forked, so that its command line is its parent's
        return process.name()
    words = process.cmdline()
    for word in words[1:]:
        if word in ("up", "apiserver", "scheduler", "controller-manager", "nodes", "components", "frontend", "writer"):
            return "fastkube " + word
    return process.name()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_ready(target: Target, process: subprocess.Popen[bytes], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            open_stream(target, "/readyz").read()
            return
        except (OSError, RuntimeError) as error:
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with {process.returncode} before it was ready") from error
            if time.monotonic() > deadline:
                raise RuntimeError("the server was not ready in time") from error
            time.sleep(0.01)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def fastkube(
    nodes: int, *, pure: bool = False, command: str = "up", extra: tuple[str, ...] = ()
) -> Iterator[Contender]:
    """`fastkube up` (or a bare `apiserver`) of this checkout, on a data folder of its own, durable, over TLS."""
    folder = Path(tempfile.mkdtemp(prefix="fastkube-bench-"))
    tokens, port = folder / "tokens.csv", free_port()
    tokens.write_text(f'{TOKEN},bench,bench,"system:masters"\n')
    words = [sys.executable, "-m", "fastkube", command, "--data-dir", str(folder / "data"), "--secure-port", str(port)]
    words += ["--token-auth-file", str(tokens), *extra]
    if command == "up":
        words += ["--nodes", str(nodes), "--kubeconfig", str(folder / "kubeconfig")]
    environment = {**os.environ, "FASTKUBE_PURE": "1" if pure else ""}
    target = Target(f"https://127.0.0.1:{port}", TOKEN)
    running: list[subprocess.Popen[bytes]] = []

    def start() -> float:
        started = time.monotonic()
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log)
        running.append(process)
        assert process.stdout is not None
        if not process.stdout.readline():  # the contract: one line when ready
            raise RuntimeError("fastkube ended before it was ready:\n" + (folder / "log").read_text()[-2000:])
        return time.monotonic() - started

    def restart(meanwhile: Callable[[], None] | None = None) -> float:
        _stop(running.pop())
        if meanwhile is not None:
            meanwhile()
        ready_s = start()
        contender.processes[:] = [psutil.Process(running[-1].pid)]
        return ready_s

    try:
        ready_s = start()
        name, build = ("fastkube-pure", "pure") if pure else ("fastkube", "compiled")
        processes = [psutil.Process(running[-1].pid)]
        contender = Contender(name, target, build, processes, ready_s, folder / "data", restart)
        yield contender
    finally:
        for process in running:
            _stop(process)
        shutil.rmtree(folder, ignore_errors=True)


def upstream_found(folder: str = "") -> tuple[str, str] | None:
    """Paths of (etcd, kube-apiserver), or None: no part of this project, they are measured only where present."""
    path = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}" if folder else None
    etcd, apiserver = shutil.which("etcd", path=path), shutil.which("kube-apiserver", path=path)
    return (etcd, apiserver) if etcd and apiserver else None


def _version(binary: str) -> str:
    """The first line of what it says about itself."""
    told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    return told.partition("\n")[0]


def _launch(binary: str, flags: dict[str, object], log: IO[bytes]) -> subprocess.Popen[bytes]:
    words = [binary, *(f"--{name}={value}" for name, value in flags.items())]
    return subprocess.Popen(words, stdout=log, stderr=log)


@contextlib.contextmanager
def upstream(binaries: tuple[str, str]) -> Iterator[Contender]:
    """kube-apiserver with its etcd, default flags but for what a single machine needs."""
    folder = Path(tempfile.mkdtemp(prefix="upstream-bench-"))
    etcd_port, peer_port, port = free_port(), free_port(), free_port()
    (folder / "tokens.csv").write_text(f'{TOKEN},bench,bench,"system:masters"\n')
    key = folder / "sa.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    build = ", ".join(_version(binary) for binary in reversed(binaries))
    client, peer = f"http://127.0.0.1:{etcd_port}", f"http://127.0.0.1:{peer_port}"
    etcd_flags = {
        "data-dir": folder / "etcd",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
    }
    server_flags = {
        "etcd-servers": client,
        "secure-port": port,
        "cert-dir": folder / "certs",
        "token-auth-file": folder / "tokens.csv",
        "authorization-mode": "Node,RBAC",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": key,
        "service-account-signing-key-file": key,
        "disable-admission-plugins": "ServiceAccount",
    }
    target = Target(f"https://127.0.0.1:{port}", TOKEN)
    running: list[subprocess.Popen[bytes]] = []  # etcd, kube-apiserver

    def start() -> float:
        started = time.monotonic()
        for binary, flags, name in zip(binaries, (etcd_flags, server_flags), ("etcd", "apiserver"), strict=True):
            with (folder / f"{name}.log").open("ab") as log:
                running.append(_launch(binary, flags, log))
        wait_ready(target, running[-1])
        return time.monotonic() - started

    def stop() -> None:
        while running:
            _stop(running.pop())

    def processes() -> list[psutil.Process]:
        return [psutil.Process(process.pid) for process in reversed(running)]

    def restart(meanwhile: Callable[[], None] | None = None) -> float:
        stop()
        if meanwhile is not None:
            meanwhile()
        ready_s = start()
        contender.processes[:] = processes()
        return ready_s

    try:
        ready_s = start()
        contender = Contender("upstream", target, build, processes(), ready_s, None, restart)
        yield contender
    finally:
        stop()
        shutil.rmtree(folder, ignore_errors=True)


def k3s_found(binary: str = "") -> str | None:
    """Path of a k3s binary, named or on PATH."""
    return shutil.which(binary or "k3s")


@contextlib.contextmanager
def k3s(binary: str) -> Iterator[Contender]:
    """k3s' control plane with its embedded store; no agent, so no containers are run."""
    folder = Path(tempfile.mkdtemp(prefix="k3s-bench-"))
    port = free_port()
    (folder / "tokens.csv").write_text(f'{TOKEN},bench,bench,"system:masters"\n')
    words = [binary, "server", "--disable-agent", "--data-dir", str(folder / "data"), "--https-listen-port", str(port)]
    words += ["--write-kubeconfig", str(folder / "kubeconfig"), "--disable", "coredns,servicelb,traefik,local-storage"]
    words += ["--disable", "metrics-server", f"--kube-apiserver-arg=token-auth-file={folder / 'tokens.csv'}"]
    build = _version(binary)
    started = time.monotonic()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
        target = Target(f"https://127.0.0.1:{port}", TOKEN)
        try:
            wait_ready(target, process)
            yield Contender("k3s", target, build, [psutil.Process(process.pid)], time.monotonic() - started)
        finally:
            _stop(process)
            shutil.rmtree(folder, ignore_errors=True)


class Launch(Protocol):
    """Starts a fresh server of one contender."""

    def __call__(self) -> contextlib.AbstractContextManager[Contender]: ...
