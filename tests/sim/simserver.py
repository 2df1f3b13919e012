"""Servers of the simulated world: the real store, replica, log and Raft on disks and a network that fail."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import msgpack
from simloop import SimClock, SimLoop, World

from fastkube._raftlog import Entry, Message
from fastkube.store import Store
from fastkube.store.checkpoint import Checkpoints, put_back
from fastkube.store.consensus import RaftReplica
from fastkube.store.engine import DATA_FILE, Engine
from fastkube.store.log import Identity, RaftLog
from fastkube.store.members import NOBODY, Member, Membership, cluster_id
from fastkube.store.parts import ANSWER, CALL, Parts
from fastkube.store.recovery import begin_log, found, membership_of, recover
from fastkube.store.snapshot import describe
from fastkube.store.work import Done

_PAGE = 4096
_SEGMENT_BYTES = 64 << 10


class Torn(Exception):
    """The machine stopped in the middle of a write."""


class SimFolder:
    """The disk of the log: what `write` returned from is durable, what was under way at a crash is torn."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.files: dict[str, bytearray] = {}
        self.tearing = False
        self.full = False

    def names(self) -> list[str]:
        return sorted(self.files)

    def read(self, name: str) -> bytes:
        return bytes(self.files[name])

    def create(self, name: str, size: int) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        if self.tearing and self._world.random.random() < 0.5:
            raise Torn
        self.files[name] = bytearray(size)

    spare_bytes = 0

    def prepare(self, size: int) -> None:
        """Files are ready at once here."""

    def write(self, name: str, offset: int, data: bytes) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        random = self._world.random
        if self.tearing:
            part = bytearray(data[: random.randint(0, len(data))])
            for _ in range(random.choice((0, 0, 1, 3))):
                if part:
                    part[random.randrange(len(part))] ^= 0x55
            self.files[name][offset : offset + len(part)] = part
            raise Torn
        self.files[name][offset : offset + len(data)] = data

    def remove(self, name: str) -> None:
        if not (self.tearing and self._world.random.random() < 0.5):
            self.files.pop(name, None)

    def close(self) -> None:
        pass


class SimWork:
    """A thread, as the world sees it: a job takes its time, and may be cut short by a crash."""

    def __init__(self, world: World, loop: SimLoop, slow_s: float) -> None:
        self._world = world
        self._loop = loop
        self._slow_s = slow_s
        self._jobs: list[tuple[Callable[[], None], Callable[[Exception | None], None]]] = []

    def submit(self, job: Callable[[], None], done: Callable[[Exception | None], None]) -> None:
        self._jobs.append((job, done))
        if len(self._jobs) == 1:
            self._begin()

    def _begin(self) -> None:
        self._world.later(self._world.random.expovariate(1 / self._slow_s), self._finish)

    def _finish(self) -> None:
        if self._loop.dead or not self._jobs:
            return
        job, done = self._jobs.pop(0)
        error = None
        try:
            job()
        except Exception as failure:
            error = failure
        self._loop.call_soon(done, error)
        if self._jobs:
            self._begin()

    def tear(self) -> None:
        """The crash: the job under way may have done any part of its work."""
        if self._jobs:
            try:
                self._jobs[0][0]()
            except (Torn, OSError):
                return

    def close(self) -> None:
        while self._jobs:
            job, _ = self._jobs.pop(0)
            job()


class SimAppender:
    """A record's write is a job that a crash may cut short."""

    def __init__(self, folder: SimFolder, work: SimWork) -> None:
        self._folder = folder
        self._work = work

    def write(self, name: str, offset: int, data: bytes, done: Done) -> None:
        self._work.submit(lambda: self._folder.write(name, offset, data), done)

    def close(self) -> None:
        self._work.close()


class SimEnvironment:
    """LMDB's; a transaction that finds the disk full when it is committed, as LMDB does, is undone."""

    def __init__(self, env: Any, server: SimServer) -> None:
        self._env = env
        self._server = server

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def begin(self, *words: Any, write: bool = False, **options: Any) -> Any:
        txn = self._env.begin(*words, write=write, **options)
        return _FullTransaction(txn) if write and self._server.fills_late else txn


class _FullTransaction:
    def __init__(self, txn: Any) -> None:
        self._txn = txn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._txn, name)

    def __enter__(self) -> _FullTransaction:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._txn.abort()
        if error is None:
            raise _full()

    def commit(self) -> None:
        self._txn.abort()
        raise _full()


def _full() -> lmdb.Error:
    error = lmdb.DiskError("mdb_txn_commit: No space left on device")
    error.code = 28
    return error


class SimCheckpoints(Checkpoints):
    """Remembers what the disk has of the data file, for when the machine loses power."""

    def __init__(self, engine: Engine, server: SimServer) -> None:
        super().__init__(engine, server.boot)
        self._server = server
        self.synced = b""

    def _write(self, pin: Any) -> None:
        server = self._server
        if server.store is not None and (server.data_full or server.fills_late):
            raise OSError(28, "No space left on device")
        with open(self._engine.path / DATA_FILE, "rb") as data:
            self.synced = data.read(self._engine.file_bytes)
        super()._write(pin)


class WatchedReplica(RaftReplica):
    """Tells the checker what is committed."""

    checker: Any = None

    def _hand_over(self, entries: list[Entry]) -> None:
        self.checker.saw_committed(self.id, entries)
        super()._hand_over(entries)


class SimReplication:
    """What cluster.py has for real servers."""

    def __init__(self, server: SimServer) -> None:
        self._server = server

    def prepare(self, path: Path) -> None:
        put_back(path, self._server.boot)

    async def join(self, store: Store, engine: Engine, clock: Any) -> RaftReplica:
        server, net = self._server, self._server.net
        world = net.world
        server.engine = engine
        server.watch_space(engine)
        checkpoints = server.checkpoints = SimCheckpoints(engine, server)
        identity = Identity(net.cluster, server.id)
        if RaftLog.exists(server.folder):
            log, recovered = recover(engine, server.folder, identity, _SEGMENT_BYTES)
        else:
            if server.founders is not None:
                found(engine, server.founders)
            checkpoints.now()
            log, recovered = begin_log(engine, server.folder, identity, _SEGMENT_BYTES)
        if not checkpoints.synced:
            checkpoints.now()
        with engine.env.begin() as txn:
            store.applied = engine.state(txn).applied
        server.log_work = SimWork(world, server.loop, 0.002)
        server.checkpoint_work = SimWork(world, server.loop, 0.02)
        appender = SimAppender(server.folder, server.log_work)
        parts = Parts(
            log, checkpoints, SimTransport(server), appender, server.checkpoint_work, server.copy, server.path
        )
        WatchedReplica.checker = net.checker
        membership = membership_of(engine)
        known = membership if membership.members else Membership(NOBODY.conf, net.membership.members)
        replica = WatchedReplica(
            store,
            parts,
            recovered,
            known,
            name=str(server.id),
            clock=clock,
            seed=world.random.getrandbits(32),
            catch_up_entries=50,
        )
        server.replica = replica
        return replica


class SimTransport:
    """Frames are packed and unpacked, delayed, lost, doubled and reordered."""

    def __init__(self, server: SimServer) -> None:
        self._server = server

    def send(self, to: int, kind: int, body: Any) -> None:
        net, world = self._server.net, self._server.net.world
        random = world.random
        packed = msgpack.packb((kind, body))
        copies = 2 if random.random() < net.double and kind not in (CALL, ANSWER) else 1
        for _ in range(copies):
            if not net.is_open(self._server.id, to) or random.random() < net.loss:
                self._break(to)
                continue
            delay = random.expovariate(1 / net.delay_s) + 0.0003
            world.later(delay, lambda: net.arrive(self._server.id, to, packed))

    def _break(self, to: int) -> None:
        """A loss is a broken connection: the server notices, and that there is a new one."""
        server = self._server
        if to not in server.broken:
            server.broken.add(to)
            server.loop.call_soon(server.replica.unreachable, to) if server.replica else None
            server.net.world.later(server.net.world.random.uniform(0.05, 0.5), lambda: server.mend(to))

    def know(self, membership: Membership) -> None:
        self._server.net.know(membership)

    async def send_snapshot(self, to: int, path: Path, message: Message) -> bool:
        net = self._server.net
        await asyncio.sleep(net.world.random.uniform(0.005, 0.1))
        target = net.servers.get(to)
        alive = target is not None and target.store is not None and net.is_open(self._server.id, to)
        if not alive or target is None or net.world.random.random() < net.loss * 5:
            return False
        target.received += 1
        name = target.path / f"incoming-{target.received}"
        shutil.copyfile(path, name)
        target.loop.call_soon(target.replica.snapshot_received, name, message)
        return True

    def close(self) -> None:
        pass


class SimServer:
    """One machine: what survives a crash is here, what does not is in `loop`."""

    def __init__(self, net: SimNet, id: int, founders: Membership | None) -> None:
        self.net = net
        self.id = id
        self.founders = founders
        self.path = net.path / str(id)
        self.folder = SimFolder(net.world)
        self.boots = 0
        self.received = 0
        self.store: Store | None = None
        self.replica: Any = None
        self.broken: set[int] = set()
        self.data_full = False
        self.fills_late = False

    def empty_disks(self) -> None:
        self.folder.full = self.data_full = self.fills_late = False

    def watch_space(self, engine: Engine) -> None:
        """The data's disk: no room is found before a transaction while `data_full`, at its end while `fills_late`."""
        engine.env = SimEnvironment(engine.env, self)  # type: ignore[assignment]
        cover = engine.cover

        def covered(coming_bytes: int, file_bytes: int) -> None:
            if self.data_full:
                raise OSError(28, "No space left on device")
            cover(coming_bytes, file_bytes)

        engine.cover = covered  # type: ignore[method-assign]

    @property
    def boot(self) -> str:
        return f"boot-{self.boots}"

    def start(self) -> None:
        self.loop = self.net.world.loop()
        self.folder.tearing = False
        self.broken.clear()
        self.starting = self.loop.call(self._open())

    async def _open(self) -> None:
        try:
            store = await Store.open(
                self.path,
                clock=SimClock(self.loop),
                map_bytes=4 << 20,
                max_bytes=64 << 20,
                replication=SimReplication(self),
            )
        except OSError as error:
            if error.errno != 28:
                raise
            loop = self.loop
            self.net.world.later(0.5, lambda: self._start_again(loop))
            return
        self.store = store
        self.net.checker.started(self)

    def _start_again(self, loop: SimLoop) -> None:
        """As whoever supervises a process that found its disk full; unless the machine has crashed since."""
        if not loop.dead:
            self.net.world.kill(loop)
            self.start()

    def mend(self, to: int) -> None:
        self.broken.discard(to)
        if not self.loop.dead and self.store is not None:
            self.loop.call_soon(self.replica.reached, to)

    async def copy(self, folder: Path) -> tuple[Path, int, bytes]:
        target = folder / f"outgoing-{self.net.world.random.getrandbits(32):x}"
        target.mkdir()
        self.engine.env.copy(str(target), compact=True)
        file = folder / (target.name + ".mdb")
        (target / DATA_FILE).rename(file)
        target.rmdir()
        return file, *describe(file)

    def crash(self, power: bool) -> None:
        """The process dies; with `power` so does the machine, and what was not synced is any mixture."""
        self.net.checker.crashed(self)
        world = self.net.world
        world.kill(self.loop)
        if self.store is None:
            self.starting.cancel()
        self.folder.tearing = power
        if self.replica is not None:
            self.log_work.tear()
        self.folder.tearing = False
        if self.store is not None or hasattr(self, "engine"):
            size = (self.path / DATA_FILE).stat().st_size  # not asked of an engine that a failed start has closed
            synced = self.checkpoints.synced
            self.engine.close()
            self.store = self.replica = None
            if power:
                self.boots += 1
                self._mix(synced, size)

    def _mix(self, synced: bytes, size: int) -> None:
        """Each page is what was synced or what was written since."""
        file = self.path / DATA_FILE
        with open(file, "r+b") as data:
            for at in range(0, min(size, len(synced)), _PAGE):
                if self.net.world.random.random() < 0.5:
                    os.pwrite(data.fileno(), synced[at : at + _PAGE], at)


class SimNet:
    """The servers and the ways between them."""

    def __init__(self, world: World, path: Path, servers: int, checker: Any) -> None:
        self.world = world
        self.path = path
        self.checker = checker
        self.cut: set[tuple[int, int]] = set()
        self.loss = self.double = 0.0
        self.delay_s = 0.001
        members = tuple(Member(number, f"s{number}", (f"https://s{number}:1",)) for number in range(1, servers + 1))
        self.membership = Membership(NOBODY.conf._replace(voters=tuple(one.id for one in members)), members)
        self.cluster = cluster_id((1,), "sim")
        self.servers = {one.id: SimServer(self, one.id, self.membership) for one in members}

    def is_open(self, sender: int, to: int) -> bool:
        return (sender, to) not in self.cut

    def arrive(self, sender: int, to: int, packed: bytes) -> None:
        server = self.servers.get(to)
        if server is None or server.store is None or not self.is_open(sender, to):
            return
        kind, body = msgpack.unpackb(packed, use_list=False)
        server.loop.call_soon(server.replica.receive, sender, kind, body)

    def know(self, membership: Membership) -> None:
        if membership.members:
            self.membership = membership
