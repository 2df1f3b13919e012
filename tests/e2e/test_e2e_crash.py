"""A server that is killed (-9) under load at random moments: nothing acknowledged is lost, nothing is half applied, and
a watcher that goes on where it was sees every change once, in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

PATH = "/api/v1/namespaces/default/configmaps"
WRITERS = 24
OBJECTS_OF_A_WRITER = 3
GONE = (aiohttp.ClientError, OSError, asyncio.TimeoutError)


@dataclass
class Server:
    """`fastkube apiserver` on one data folder, started and killed again and again."""

    folder: Path
    port: int = 0
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        if not self.port:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
            (self.folder / "tokens.csv").write_text('secret,admin,admin,"system:masters"\n')
        words = ["-m", "fastkube", "apiserver", "--data-dir", str(self.folder / "data"), "--secure-port"]
        words += [str(self.port), "--token-auth-file", str(self.folder / "tokens.csv")]
        self.process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert b"ready" in await asyncio.wait_for(self.process.stdout.readline(), 60)

    async def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    def check(self) -> str:
        """What `fastkube check` says of the folder as the kill left it; fails on anything that it finds."""
        words = [sys.executable, "-m", "fastkube", "check", "--data-dir", str(self.folder / "data")]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        context = ssl.create_default_context(cafile=str(self.folder / "data" / "pki" / "ca.crt"))
        headers = {"Authorization": "Bearer secret"}
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        base = f"https://127.0.0.1:{self.port}"
        async with aiohttp.ClientSession(base, headers=headers, connector=connector) as session:
            yield session


@dataclass
class History:
    """What the writers know: of each object the acknowledged count in it (None: there is none) and, while a request
    is under way, the count that it would leave."""

    acknowledged: dict[str, int | None] = field(default_factory=dict)
    attempted: dict[str, int | None] = field(default_factory=dict)
    answers: int = 0
    goal: int = 0
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    def aim(self, answers: int) -> None:
        """Have `reached` set after so many more answers."""
        self.goal = self.answers + answers
        self.reached.clear()

    def begin(self, name: str, count: int | None) -> None:
        self.attempted[name] = count

    def end(self, name: str) -> None:
        self.acknowledged[name] = self.attempted.pop(name)
        self.answers += 1
        if self.answers == self.goal:
            self.reached.set()

    def settle(self, found: dict[str, int]) -> None:
        """Compare with what the restarted server holds, and go on from there."""
        for name in sorted(set(found) | set(self.acknowledged) | set(self.attempted)):
            allowed = {self.acknowledged.get(name)}
            if name in self.attempted:
                allowed.add(self.attempted[name])
            assert found.get(name) in allowed, f"{name}: holds {found.get(name)}, expected one of {allowed}"
            self.acknowledged[name] = found.get(name)
        self.attempted.clear()


class Follower:
    """A watcher over all crashes: it goes on from the last resourceVersion that it saw."""

    def __init__(self) -> None:
        self.position = ""
        self.begun = asyncio.Event()
        self.state: dict[str, int] = {}
        self.events = 0

    async def follow(self, session: aiohttp.ClientSession) -> None:
        if not self.position:
            async with session.get(PATH) as answer:
                self.position = (await answer.json())["metadata"]["resourceVersion"]
        self.begun.set()
        query = {"watch": "true", "resourceVersion": self.position, "labelSelector": "crash=test"}
        with contextlib.suppress(*GONE):
            async with session.get(PATH, params=query, timeout=aiohttp.ClientTimeout(total=None)) as answer:
                assert answer.status == 200
                async for line in answer.content:
                    if line.endswith(b"\n"):
                        self._take(json.loads(line))

    def _take(self, event: dict[str, Any]) -> None:
        metadata = event["object"]["metadata"]
        name, count = metadata["name"], int(event["object"]["data"]["n"])
        assert int(metadata["resourceVersion"]) > int(self.position)
        self.position = metadata["resourceVersion"]
        self.events += 1
        if event["type"] == "ADDED":
            assert name not in self.state
            assert count == 0
            self.state[name] = 0
        elif event["type"] == "MODIFIED":
            assert count == self.state[name] + 1
            self.state[name] = count
        else:
            assert event["type"] == "DELETED"
            assert count == self.state.pop(name)


async def write_on(session: aiohttp.ClientSession, history: History, number: int, seed: int) -> None:
    """Create, change and delete objects of this writer's own, until the server is gone."""
    draw = random.Random(seed)
    with contextlib.suppress(*GONE):
        while True:
            name = f"w{number}-{draw.randrange(OBJECTS_OF_A_WRITER)}"
            known = history.acknowledged.get(name)
            if known is None:
                history.begin(name, 0)
                status = await _send(session, "POST", PATH, _object(name, 0))
            elif draw.random() < 0.1:
                history.begin(name, None)
                status = await _send(session, "DELETE", f"{PATH}/{name}", None)
            else:
                history.begin(name, known + 1)
                status = await _send(session, "PUT", f"{PATH}/{name}", _object(name, known + 1))
            assert status in (200, 201)
            history.end(name)


def _object(name: str, count: int) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"crash": "test"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"n": str(count)}}


async def _send(session: aiohttp.ClientSession, method: str, path: str, body: Any) -> int:
    async with session.request(method, path, json=body) as answer:
        await answer.read()
        return answer.status


async def counts(session: aiohttp.ClientSession) -> dict[str, int]:
    async with session.get(PATH, params={"labelSelector": "crash=test"}) as answer:
        items = (await answer.json())["items"]
    return {item["metadata"]["name"]: int(item["data"]["n"]) for item in items}


async def crash_again_and_again(folder: Path, rounds: int) -> None:
    server, history, follower = Server(folder), History(), Follower()
    seed = int(os.environ.get("CRASH_SEED", "0")) or random.SystemRandom().randrange(1 << 30)
    print(f"CRASH_SEED={seed}")
    draw = random.Random(seed)
    await server.start()
    for _ in range(rounds):
        async with server.session() as session:
            history.settle(await counts(session))
            history.aim(draw.randrange(1, 400))
            following = asyncio.ensure_future(follower.follow(session))
            await follower.begun.wait()
            work = [write_on(session, history, each, draw.randrange(1 << 30)) for each in range(WRITERS)]
            tasks = [asyncio.ensure_future(each) for each in work]
            await asyncio.wait_for(history.reached.wait(), 30)
            await asyncio.sleep(draw.random() * 0.05)
            await server.kill()
            await asyncio.gather(*tasks, following)
        server.check()
        await server.start()
    async with server.session() as session:
        found = await counts(session)
        history.settle(found)
        following = asyncio.ensure_future(follower.follow(session))
        for _ in range(1000):
            if follower.state == found:
                break
            await asyncio.sleep(0.01)
        following.cancel()
        assert follower.state == found
        assert follower.events >= history.answers
    await server.kill()


async def test_kills_under_load_lose_nothing(tmp_path: Path) -> None:
    await crash_again_and_again(tmp_path, 6)


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_a_hundred_kills_under_load_lose_nothing(tmp_path: Path) -> None:
    await crash_again_and_again(tmp_path, 100)
