"""Three API servers as three processes, with proxies in front of their peer ports that a test can close."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from proxies import Proxy

from fastkube.client import Client
from fastkube.server import pki
from fastkube.store.members import Membership
from fastkube.store.transport import AdminClient, PeerFiles

TOKEN = "test-token"
START_TIMEOUT_S = 60.0


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class Machine:
    """One server's process; its data stays when it is killed."""

    def __init__(self, cluster: Machines, name: str, ports: tuple[int, int, int]) -> None:
        self.cluster = cluster
        self.name = name
        self.secure_port, self.peer_port, proxy_port = ports
        self.proxy = Proxy(proxy_port, self.peer_port)
        self.data_dir = cluster.path / name
        self.process: subprocess.Popen[bytes] | None = None
        self.state = "new"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.secure_port}"

    @property
    def peer_url(self) -> str:
        return f"https://127.0.0.1:{self.proxy.port}"

    def start(self) -> None:
        files = self.cluster.files
        words = {
            "name": self.name,
            "data-dir": self.data_dir,
            "cert-dir": self.cluster.path / "pki",
            "secure-port": self.secure_port,
            "token-auth-file": self.cluster.path / "tokens.csv",
            "initial-cluster": ",".join(f"{one.name}={one.peer_url}" for one in self.cluster.expected),
            "initial-cluster-state": self.state,
            "listen-peer-urls": f"https://127.0.0.1:{self.peer_port}",
            "peer-cert-file": files.cert,
            "peer-key-file": files.key,
            "peer-trusted-ca-file": files.trusted_ca,
        }
        log = open(self.cluster.path / f"{self.name}.log", "ab")  # noqa: SIM115
        with log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fastkube", "apiserver", *(f"--{flag}={word}" for flag, word in words.items())],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def pause(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.resume()
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def admin(self) -> AdminClient:
        return AdminClient((f"https://127.0.0.1:{self.peer_port}",), self.cluster.files)

    def client(self, **options: Any) -> Client:
        return Client(self.url, token=TOKEN, ca=(self.cluster.path / "pki" / "ca.crt").read_bytes(), **options)

    async def wait_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                async with self.client(timeout_s=5.0) as client:
                    await client.get("v1/namespaces", "default")
                return
            except Exception as error:
                if time.monotonic() > deadline or (self.process is not None and self.process.poll() is not None):
                    log = (self.cluster.path / f"{self.name}.log").read_text()[-2000:]
                    raise AssertionError(f"{self.name} is not ready: {error!r}\n{log}") from error
                await asyncio.sleep(0.1)


class Machines:
    """`async with`: all are ready inside, and gone afterwards."""

    def __init__(self, path: Path, names: str = "abc") -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        (path / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
        made = pki.prepare_peers(path / "peers", ("127.0.0.1",), time.time())
        pki.prepare(path / "pki", pki.server_names("127.0.0.1", service_cluster_ip_range="10.96.0.0/16"), time.time())
        pki.service_account_key(path / "pki")
        self.files = PeerFiles(str(made.cert), str(made.key), str(made.ca_cert))
        self.all: dict[str, Machine] = {}
        for name in names:
            self.add(name)
        self.expected = list(self.all.values())

    def add(self, name: str) -> Machine:
        first, second, third = free_ports(3)
        machine = self.all[name] = Machine(self, name, (first, second, third))
        return machine

    async def __aenter__(self) -> Machines:
        try:
            for machine in self.all.values():
                await machine.proxy.start()
                machine.start()
            for machine in self.all.values():
                await machine.wait_ready()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        for machine in self.all.values():
            await asyncio.to_thread(machine.stop)
            with contextlib.suppress(AttributeError):
                machine.proxy.stop()

    async def leader(self, among: list[Machine] | None = None, timeout_s: float = 20.0) -> Machine:
        """The one that leads, as a majority of those asked says."""
        deadline = time.monotonic() + timeout_s
        machines = among or list(self.all.values())
        while time.monotonic() < deadline:
            votes: dict[int, int] = {}
            names: dict[int, Machine] = {}
            for machine in machines:
                with contextlib.suppress(Exception):
                    status = await machine.admin().call("status")
                    names[status[0]] = machine
                    votes[status[3]] = votes.get(status[3], 0) + 1
            for leader, count in votes.items():
                if leader in names and count > len(self.expected) // 2:
                    return names[leader]
            await asyncio.sleep(0.02)
        raise AssertionError("no leader")

    async def membership(self) -> Membership:
        machine = await self.leader()
        _, packed = await machine.admin().call("members")
        return Membership.from_bytes(packed)
