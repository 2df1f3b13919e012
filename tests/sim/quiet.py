"""Servers of the simulation in which nothing fails by itself."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from simloop import World
from simserver import SimNet, SimServer


class Quiet:
    """A checker that has no questions."""

    def saw_committed(self, server: int, entries: list[Any]) -> None: ...

    def started(self, server: SimServer) -> None: ...

    def crashed(self, server: SimServer) -> None: ...


class Cluster:
    """Three servers in which nothing fails by itself."""

    def __init__(self, path: Path, seed: int = 1) -> None:
        self.world = World(seed)
        self.net = SimNet(self.world, path, 3, Quiet())
        for server in self.net.servers.values():
            server.start()
        self.run(3)

    def run(self, seconds: float) -> None:
        self.world.run_until(self.world.now + seconds)

    def ask(self, server: SimServer, work: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
        """The outcome of something done at one server."""
        task = server.loop.call(work(server.store))
        self.world.run_until(self.world.now + 10, task.done)
        return task.result()

    def leads(self) -> list[SimServer]:
        return [one for one in self.net.servers.values() if one.replica is not None and one.replica.leads]

    def leader(self) -> SimServer:
        return self.leads()[0]

    def end(self) -> None:
        for server in self.net.servers.values():
            if not server.loop.dead:
                server.crash(power=False)

    def follower(self) -> SimServer:
        return next(one for one in self.net.servers.values() if one.replica is not None and not one.replica.leads)

    def has(self, key: bytes) -> list[bool]:
        stores = [one.store for one in self.net.servers.values() if one.store is not None]
        return [store.get(key) is not None for store in stores]
