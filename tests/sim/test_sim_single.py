"""One server through crashes of its process and of its machine: the real store and journal on a disk that tears the
log, loses what was not synced, and is full at times. What was acknowledged is there, what was refused is not."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from simloop import SimClock, World
from simserver import SimAppender, SimCheckpoints, SimFolder, SimServer, SimWork

from fastkube.store import (
    ANY,
    TO_THE_END,
    Compacted,
    NoSpace,
    Put,
    Store,
    StoreUnavailable,
    Write,
)
from fastkube.store.check import check, inspect
from fastkube.store.engine import Engine
from fastkube.store.journal import Durability, Parts
from fastkube.store.mvcc import Reading
from fastkube.store.ops import Op

KEYS = tuple(b"key-%d" % number for number in range(12))
LIFE_S = 4.0
LONG_S = 20.0


class SimDurability(Durability):
    def __init__(self, server: SingleServer) -> None:
        self._server = server
        self._boot = server.boot

    def parts(self, engine: Engine) -> Parts:
        server = self._server
        server.engine = engine
        server.watch_space(engine)
        server.checkpoints = SimCheckpoints(engine, server)
        server.log_work = SimWork(server.world, server.loop, 0.002)
        server.checkpoint_work = SimWork(server.world, server.loop, 0.02)
        appender = SimAppender(server.folder, server.log_work)
        return Parts(server.folder, appender, server.checkpoints, server.checkpoint_work)


class SingleServer(SimServer):
    """A machine of its own, in no cluster."""

    def __init__(self, world: World, path: Path) -> None:
        self.world = self.net = self  # type: ignore[assignment]
        self.world = world
        self.path = path
        self.folder = SimFolder(world)
        self.boots = 0
        self.store: Store | None = None
        self.data_full = self.fills_late = False
        self.replica = None

    def start(self) -> None:
        self.loop = self.world.loop()
        self.folder.tearing = False
        self.starting = self.loop.call(self._open())

    async def _open(self) -> None:
        self.store = await Store.open(
            self.path,
            clock=SimClock(self.loop),
            map_bytes=1 << 20,
            max_bytes=256 << 20,
            durability=SimDurability(self),
        )

    def crash(self, power: bool) -> None:
        self.world.kill(self.loop)
        self.starting.cancel()
        self.folder.tearing = power
        self.log_work.tear()
        self.folder.tearing = False
        size, synced = self.engine.file_bytes, self.checkpoints.synced
        self.engine.close()
        self.store = None
        if power:
            self.boots += 1
            self._mix(synced, size)


class Life:
    """Writers, each with keys of its own, so that what a key may hold is known: what was acknowledged last, or what
    was under way when the server went."""

    def __init__(self, seed: int, path: Path) -> None:
        self.world = World(seed)
        self.random = self.world.random
        self.server = SingleServer(self.world, path)
        self.known: dict[bytes, bytes | None] = dict.fromkeys(KEYS)
        self.maybe: dict[bytes, list[bytes | None]] = {key: [] for key in KEYS}
        self.revision = 0
        self.answers = self.refusals = self.crashes = 0
        self.over = False

    def run(self, duration_s: float) -> None:
        world, server = self.world, self.server
        self._start()
        end = world.now + duration_s
        while world.now < end:
            self._pass(self.random.uniform(0.02, 1.0))
            self._fault()
        server.folder.full = server.data_full = False
        self.over = True
        self._pass(2)
        self._settle()
        assert server.store is not None
        closing = server.loop.call(server.store.close())
        self._pass(2)
        closing.result()
        report = check(server.path)
        assert report.ok, report.problems
        self._start()  # what was closed is complete, whatever the log says
        server.crash(power=True)
        self._start()

    def _pass(self, seconds: float) -> None:
        self.world.run_until(self.world.now + seconds)
        for loop in self.world.loops:
            for context in loop.errors:
                raise context.get("exception") or AssertionError(str(context))

    def _fault(self) -> None:
        server, draw = self.server, self.random.random()
        if draw < 0.15:
            server.folder.full = not server.folder.full
        elif draw < 0.3:
            server.data_full = not server.data_full
        elif draw < 0.8:
            server.crash(power=draw < 0.6)
            self.crashes += 1
            server.folder.full = server.data_full = False
            self._start()

    def _start(self) -> None:
        server = self.server
        server.start()
        self._pass(0.5)
        server.starting.result()
        self._settle()
        if not self.over:
            for key in KEYS:
                server.loop.call(self._write(key))
            server.loop.call(self._compact())

    def _settle(self) -> None:
        """Everything that was acknowledged is there, and the store is sound."""
        store = self.server.store
        assert store is not None
        assert store.revision >= self.revision
        for key in KEYS:
            item = store.get(key)
            found = item.value if item else None
            assert found in (self.known[key], *self.maybe[key]), f"{key!r} holds {found!r:.40}"
            self.known[key], self.maybe[key] = found, []
        engine = self.server.engine
        with engine.env.begin() as txn:
            report = inspect(Reading(txn, engine.databases, engine.state(txn)))
        assert report.ok, report.problems

    async def _write(self, key: bytes) -> None:
        server = self.server
        store, loop = server.store, server.loop
        assert store is not None
        number = 0
        while not self.over and not loop.dead:
            number += 1
            text = b"%s/%d/%d/" % (key, self.crashes, number)
            value = None if self.random.random() < 0.1 else text * self.random.choice((1, 1, 20, 400))
            self.maybe[key].append(value)
            try:
                revision = await self._send(store, key, value)
            except NoSpace:
                self.maybe[key].pop()  # not done, nor ever
                self.refusals += 1
                await SimClock(loop).sleep(0.05)
                continue
            except StoreUnavailable:
                return
            self.maybe[key].clear()
            self.known[key] = value
            self.revision = max(self.revision, revision)
            self.answers += 1
            await SimClock(loop).sleep(self.random.expovariate(1 / 0.005))

    async def _send(self, store: Store, key: bytes, value: bytes | None) -> int:
        kind = self.random.randrange(3)
        if kind == 0 and value is not None:
            done: list[Op] = [Put(key, value)]
            return (await store.txn([], done)).revision
        if kind == 1:
            (result,) = await store.write([Write(key, value, ANY)])
            return result if isinstance(result, int) else 0
        if value is None:
            item = store.get(key)
            return (await store.delete(key)).delete_revision if item else 0
        return await store.put(key, value)

    async def _compact(self) -> None:
        store, loop = self.server.store, self.server.loop
        assert store is not None
        while not self.over:
            await SimClock(loop).sleep(self.random.uniform(0.1, 1))
            try:
                await store.compact(max(1, store.revision - 20))
            except Compacted:
                continue
            except StoreUnavailable:
                continue
            assert all(item.value is not None for item in store.range(b"", TO_THE_END).items)


def live(seed: int, duration_s: float) -> Life:
    with tempfile.TemporaryDirectory(prefix="fastkube-sim-") as path:
        life = Life(seed, Path(path) / "store")
        try:
            life.run(duration_s)
        except BaseException as error:
            error.add_note(f"seed {seed}, {duration_s:.0f} s: FASTKUBE_SIM_SEED={seed}")
            raise
        finally:
            if life.server.store is not None:
                life.server.engine.close()
        return life


@pytest.mark.parametrize("first", range(0, 16, 8))
def test_seeds(first: int) -> None:
    chosen = os.environ.get("FASTKUBE_SIM_SEED")
    lives: list[Any] = [live(int(chosen), LONG_S)] if chosen else [live(first + n, LIFE_S) for n in range(8)]
    assert sum(one.answers for one in lives) > 300
    assert sum(one.crashes for one in lives) > 5


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_thousand_seeds() -> None:
    assert sum(live(seed, LONG_S).answers for seed in range(1000, 2000)) > 100_000
