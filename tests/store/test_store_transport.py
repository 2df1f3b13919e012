"""Peers over TLS: frames in order, strangers kept out, snapshots that go on where they broke off."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fastkube._raftlog import SNAPSHOT, ConfState, Message, Snapshot
from fastkube.server import pki
from fastkube.store import InvalidRequest, StoreUnavailable
from fastkube.store.members import Member, Membership
from fastkube.store.transport import AdminClient, PeerFiles, TlsTransport

RATE = 1 << 30


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def peer_files(folder: Path) -> PeerFiles:
    made = pki.prepare_peers(folder, ("127.0.0.1",), time.time())
    return PeerFiles(str(made.cert), str(made.key), str(made.ca_cert))


class Received:
    """Stands where the replica does."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, int, Any]] = []
        self.snapshots: list[tuple[Path, Message]] = []
        self.changed = asyncio.Event()
        self.ways: list[str] = []

    def receive(self, sender: int, kind: int, body: Any) -> None:
        self.frames.append((sender, kind, body))
        self.changed.set()

    def reached(self, member: int) -> None:
        self.ways.append(f"+{member}")
        self.changed.set()

    def unreachable(self, member: int) -> None:
        self.ways.append(f"-{member}")
        self.changed.set()

    def snapshot_received(self, path: Path, message: Message) -> None:
        self.snapshots.append((path, message))
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class Cutter:
    """A proxy that ends a connection after so many bytes, once."""

    def __init__(self, target: int, after: int) -> None:
        self.port = free_port()
        self.carried = 0
        self._target = target
        self._after = after

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        back.close()
        writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.carried += len(data)
            if 0 < self._after < self.carried:
                self._after = 0
                writer.transport.abort()
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()
        writer.close()


async def answer(method: str, arguments: Any) -> Any:
    if method == "echo":
        return arguments
    raise InvalidRequest(f"there is no call {method!r}")


class Pair:
    """Members 1 and 2; the way from 1 to 2 goes through `cutter`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = peer_files(path / "peers")
        self.received = {1: Received(), 2: Received()}
        self.ports = {1: free_port(), 2: free_port()}
        self.cutter = Cutter(self.ports[2], 0)
        self.transports: dict[int, TlsTransport] = {}

    async def start(self, cluster_of_second: int = 7, cut_after: int = 0) -> None:
        self.cutter._after = cut_after
        await self.cutter.start()
        urls = {1: f"https://127.0.0.1:{self.ports[1]}", 2: f"https://127.0.0.1:{self.cutter.port}"}
        members = Membership(ConfState((1, 2)), tuple(Member(one, str(one), (url,)) for one, url in urls.items()))
        for one in (2, 1):
            folder = self.path / str(one)
            folder.mkdir()
            cluster = cluster_of_second if one == 2 else 7
            transport = self.transports[one] = TlsTransport(cluster, one, self.files, folder, RATE)
            await transport.listen((f"https://127.0.0.1:{self.ports[one]}",))
            transport.know(members)
            transport.serve(self.received[one], answer)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    made = Pair(tmp_path)
    yield made
    for transport in made.transports.values():
        transport.close()
    made.cutter.server.close()
    await asyncio.sleep(0.05)


async def test_frames_arrive_whole_and_in_order(pair: Pair) -> None:
    await pair.start()
    there = pair.received[2]
    await pair.received[1].until(lambda: "+2" in pair.received[1].ways)
    bodies = [(number, b"x" * (number * 997 % 100_000)) for number in range(200)]
    for body in bodies:
        pair.transports[1].send(2, 1, body)
    await there.until(lambda: len(there.frames) == len(bodies))
    assert there.frames == [(1, 1, body) for body in bodies]


async def test_a_member_of_another_cluster_is_not_listened_to(pair: Pair) -> None:
    await pair.start(cluster_of_second=8)
    here, there = pair.received[1], pair.received[2]
    await here.until(lambda: "-2" in here.ways)  # connected, and thrown out
    pair.transports[1].send(2, 1, "hello")
    await here.until(lambda: here.ways.count("-2") > 1)
    assert there.frames == []


async def test_whoever_has_no_certificate_of_the_peers_gets_no_further(pair: Pair, tmp_path: Path) -> None:
    await pair.start()
    url = f"https://127.0.0.1:{pair.ports[2]}"
    assert await AdminClient((url,), pair.files).call("echo", 1) == (1,)
    with pytest.raises(InvalidRequest, match="no call"):
        await AdminClient((url,), pair.files).call("other")
    own = peer_files(tmp_path / "stranger")
    stranger = PeerFiles(own.cert, own.key, pair.files.trusted_ca)
    with pytest.raises(StoreUnavailable):
        await AdminClient((url,), stranger).call("echo", 1)
    context = ssl.create_default_context(cafile=pair.files.trusted_ca)
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        reader, writer = await asyncio.open_connection("127.0.0.1", pair.ports[2], ssl=context)
        writer.write(b"\0\0\0\1\0")
        await reader.readexactly(1)


async def test_a_snapshot_that_breaks_off_goes_on_from_there(pair: Pair, tmp_path: Path) -> None:
    size = 24 << 20
    await pair.start(cut_after=size // 2)
    file = tmp_path / "outgoing.mdb"
    file.write_bytes(random.Random(1).randbytes(size))
    message = Message(SNAPSHOT, 2, 1, 5, snapshot=Snapshot(90, 4, ConfState((1, 2))))
    assert await pair.transports[1].send_snapshot(2, file, message)
    ((path, found),) = pair.received[2].snapshots
    assert path.read_bytes() == file.read_bytes()
    assert found == message
    assert pair.cutter.carried < 1.3 * size
