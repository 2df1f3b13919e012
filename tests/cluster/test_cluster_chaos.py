"""Servers die, stand still and lose each other under load: what was acknowledged stays, histories are linearizable.

Clients create, update on a condition and read ConfigMaps through whichever server they like. An update that names a
resourceVersion is a compare-and-swap; a timeout or a broken connection leaves an operation's outcome open.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from machines import Machine, Machines

from fastkube.client import Client
from fastkube.errors import ApiError

sys.path.insert(0, str(Path(__file__).parents[1] / "sim"))
from linearizable import Operation, explain

KEYS = ("red", "green", "blue")


class Load:
    """Clients, and the history of what they saw."""

    def __init__(self, machines: Machines, seed: int) -> None:
        self.machines = machines
        self.random = random.Random(seed)
        self.history: list[Operation] = []
        self.created: set[str] = set()
        self.over = False

    async def run(self, number: int) -> None:
        clients = [machine.client(timeout_s=12.0) for machine in self.machines.all.values()]
        known: dict[str, tuple[str | None, Any]] = {}
        count = 0
        try:
            while not self.over:
                count += 1
                client = self.random.choice(clients)
                key = self.random.choice(KEYS)
                chance = self.random.random()
                if chance < 0.3:
                    await self._create(client, f"made-{number}-{count}")
                elif chance < 0.65 or key not in known:
                    await self._read(client, key, known)
                else:
                    await self._swap(client, key, f"{number}.{count}", known)
                await asyncio.sleep(self.random.expovariate(1 / 0.01))
        finally:
            for client in clients:
                await client.close()

    async def _create(self, client: Client, name: str) -> None:
        try:
            await client.create("v1/configmaps", config_map(name, ""), "default")
            self.created.add(name)
        except (ApiError, OSError, TimeoutError):
            return

    async def _read(self, client: Client, key: str, known: dict[str, Any]) -> None:
        invoked = time.monotonic()
        try:
            obj = await client.get("v1/configmaps", key, "default")
        except (ApiError, OSError, TimeoutError):
            return
        value = obj["data"]["value"]
        known[key] = (value, obj)
        self.history.append(Operation(key.encode(), "read", None, value, invoked, time.monotonic()))

    async def _swap(self, client: Client, key: str, value: str, known: dict[str, Any]) -> None:
        expected, obj = known.pop(key)
        invoked = time.monotonic()
        argument = (expected, value)
        try:
            new = await client.update("v1/configmaps", {**obj, "data": {"value": value}}, "default")
        except ApiError as refusal:
            if refusal.code == 409:
                return  # that it was another is told by a later read
            self.history.append(Operation(key.encode(), "swap", argument, None, invoked, None))
        except (OSError, TimeoutError):
            self.history.append(Operation(key.encode(), "swap", argument, None, invoked, None))
        else:
            known[key] = (value, new)
            self.history.append(Operation(key.encode(), "swap", argument, None, invoked, time.monotonic()))


def config_map(name: str, value: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}}


class Round(NamedTuple):
    what: str
    led: bool
    """Whether it was done to the leader."""
    leader_s: float | None
    """How long those that were left had none; only of a leader that was killed or stood still."""


async def torment(machines: Machines, rounds: int, seed: int) -> list[Round]:
    """Each round something is done to one server, every other one to the leader."""
    chooser = random.Random(seed)
    done = []
    for number in range(rounds):
        leader = await machines.leader()
        others = [machine for machine in machines.all.values() if machine is not leader]
        victim = leader if number % 2 == 0 else chooser.choice(others)
        what = ("kill", "pause", "cut")[number % 3]
        leader_s = None
        if what == "cut":
            victim.proxy.close()
            await asyncio.sleep(chooser.uniform(0.5, 3.0))
            victim.proxy.open()
        else:
            getattr(victim, what)()
            begun = time.monotonic()
            if victim is leader:
                await machines.leader(others)
                leader_s = time.monotonic() - begun
            if what == "kill":
                victim.start()
                await victim.wait_ready()
            else:
                await asyncio.sleep(chooser.uniform(0.5, 2.0))
                victim.resume()
        done.append(Round(what, victim is leader, leader_s))
        await asyncio.sleep(0.5)
    return done


async def check(machines: Machines, load: Load) -> None:
    async def everything(machine: Machine) -> dict[str, str]:
        async with machine.client(timeout_s=30.0) as client:
            found = await client.list("v1/configmaps", "default")
            return {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in found["items"]}

    states = [await everything(machine) for machine in machines.all.values()]
    lost = load.created - states[0].keys()
    assert not lost, f"acknowledged and gone: {sorted(lost)}"
    assert states[0] == states[1] == states[2]
    first = [Operation(key.encode(), "put", "0", None, 0.0, 0.0) for key in KEYS]
    assert explain([*first, *load.history]) == ""


async def live_through(path: Path, rounds: int, seed: int, clients: int) -> tuple[Load, list[Round]]:
    async with Machines(path) as machines:
        async with machines.all["a"].client() as client:
            for key in KEYS:
                await client.create("v1/configmaps", config_map(key, "0"), "default")
        load = Load(machines, seed)
        working = [asyncio.ensure_future(load.run(number)) for number in range(clients)]
        try:
            done = await torment(machines, rounds, seed)
        finally:
            load.over = True
            await asyncio.gather(*working)
        await check(machines, load)
        return load, done


async def test_death_standstill_and_partition(tmp_path: Path) -> None:
    load, done = await live_through(tmp_path, rounds=3, seed=1, clients=4)
    assert len(load.history) > 20
    assert [(each.what, each.led) for each in done] == [("kill", True), ("pause", False), ("cut", True)]


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_fifty_rounds(tmp_path: Path) -> None:
    load, done = await live_through(tmp_path, rounds=50, seed=2, clients=8)
    assert len(load.history) > 500
    assert len([each for each in done if each.leader_s is not None]) >= 16, "leaders were to be lost"
