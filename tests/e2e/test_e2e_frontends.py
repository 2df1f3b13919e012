"""Several processes serve one port: what a client wrote through one of them is seen through every other."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

MAPS = "/api/v1/namespaces/default/configmaps"
RBAC = "rbac.authorization.k8s.io"
HEADERS = {"Authorization": "Bearer admin"}


class Running:
    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder
        tokens = folder / "tokens.csv"
        tokens.write_text('admin,admin,admin,"system:masters"\n')
        command = [sys.executable, "-m", "fastkube", "apiserver", "--data-dir", str(folder / "data")]
        command += ["--secure-port", "0", "--token-auth-file", str(tokens), *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        found = re.search(r"https://\S+", self.process.stdout.readline())
        assert found is not None
        self.url = found[0]

    def children(self) -> list[int]:
        told = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(one) for one in told.split()]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("f"), "--frontends", "2")
    yield running
    assert running.stop() == 0


class Connections:
    """Connections of their own, which the kernel divides among the frontends."""

    def __init__(self, server: Running, count: int) -> None:
        self._url = server.url
        self._sessions = [
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1), headers=HEADERS) for _ in range(count)
        ]

    async def __aenter__(self) -> Connections:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for session in self._sessions:
            await session.close()

    def __len__(self) -> int:
        return len(self._sessions)

    async def ask(self, by: int, method: str, path: str, body: Any = None, code: int = 0, **headers: str) -> Any:
        data = None if body is None else json.dumps(body)
        sent = {"Content-Type": "application/json", **headers}
        async with self._sessions[by % len(self)].request(
            method, self._url + path, data=data, headers=sent, ssl=_UNVERIFIED
        ) as response:
            told = await response.read()
            assert not code or response.status == code, told
            return json.loads(told)

    def watch(self, by: int, path: str) -> Any:
        return self._sessions[by % len(self)].get(self._url + path, ssl=_UNVERIFIED)


_UNVERIFIED = ssl.create_default_context()
_UNVERIFIED.check_hostname = False
_UNVERIFIED.verify_mode = ssl.CERT_NONE


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


async def test_both_frontends_serve_and_the_writer_does_not(server: Running) -> None:
    async with Connections(server, 16) as connections:
        for by in range(16):
            await connections.ask(by, "GET", "/version")
        assert len(server.children()) == 2
        port = int(server.url.rpartition(":")[2])
        assert [listens(pid, port) for pid in server.children()] == [True, True]
        assert not listens(server.process.pid, port)


def listens(pid: int, port: int) -> bool:
    found = psutil.Process(pid).net_connections(kind="tcp")
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in found)


async def test_a_write_is_seen_by_whoever_reads_next(server: Running) -> None:
    async with Connections(server, 8) as connections:
        for number in range(40):
            name = f"seen-{number}"
            made = await connections.ask(number, "POST", MAPS, config_map(name), 201)
            read = await connections.ask(number + 1, "GET", f"{MAPS}/{name}", code=200)
            assert read["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
            listed = await connections.ask(number + 2, "GET", MAPS, code=200)
            assert name in {item["metadata"]["name"] for item in listed["items"]}
            assert int(listed["metadata"]["resourceVersion"]) >= int(made["metadata"]["resourceVersion"])
            await connections.ask(number + 3, "DELETE", f"{MAPS}/{name}", code=200)
            await connections.ask(number + 4, "GET", f"{MAPS}/{name}", code=404)


async def test_admission_and_authorization_follow_at_once(server: Running) -> None:
    async with Connections(server, 8) as connections:
        for number in range(10):
            name = f"space-{number}"
            await connections.ask(number, "POST", "/api/v1/namespaces", {"metadata": {"name": name}}, 201)
            await connections.ask(number + 1, "POST", f"/api/v1/namespaces/{name}/configmaps", config_map("a"), 201)
            role = {
                "metadata": {"name": name},
                "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "system:aggregate-to-view"},
                "subjects": [{"kind": "User", "name": "reader", "apiGroup": RBAC}],
            }
            path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{name}/rolebindings"
            await connections.ask(number, "POST", path, role, 201)
            as_reader = {"Impersonate-User": "reader"}
            await connections.ask(number + 1, "GET", f"/api/v1/namespaces/{name}/configmaps/a", None, 200, **as_reader)
            await connections.ask(number + 2, "DELETE", f"{path}/{name}", code=200)
            await connections.ask(number + 3, "GET", f"/api/v1/namespaces/{name}/configmaps/a", None, 403, **as_reader)


async def test_addresses_are_given_out_once(server: Running) -> None:
    async with Connections(server, 8) as connections:

        def service(number: int) -> dict[str, Any]:
            return {"metadata": {"name": f"s{number}"}, "spec": {"ports": [{"port": 80}]}}

        path = "/api/v1/namespaces/default/services"
        made = await asyncio.gather(
            *(connections.ask(number, "POST", path, service(number), 201) for number in range(60))
        )
        addresses = [one["spec"]["clusterIP"] for one in made]
        assert len(set(addresses)) == 60


async def test_conflicts_are_those_of_one_server(server: Running) -> None:
    async with Connections(server, 8) as connections:
        made = await connections.ask(0, "POST", MAPS, config_map("one"), 201)
        answers = await asyncio.gather(
            *(connections.ask(by, "PUT", f"{MAPS}/one", {**made, "data": {"by": str(by)}}) for by in range(8))
        )
        assert sorted(one["kind"] for one in answers) == ["ConfigMap"] + ["Status"] * 7
        again = await connections.ask(1, "POST", MAPS, config_map("one"), 409)
        assert again["reason"] == "AlreadyExists"


async def test_watches_on_every_frontend_see_the_same(server: Running) -> None:
    async with Connections(server, 12) as connections:
        begin = (await connections.ask(0, "GET", MAPS))["metadata"]["resourceVersion"]

        async def watched(by: int) -> list[tuple[str, str, str]]:
            events = []
            async with connections.watch(by, f"{MAPS}?watch=1&resourceVersion={begin}") as response:
                while len(events) < 120:
                    event = json.loads(await asyncio.wait_for(response.content.readline(), 30))
                    metadata = event["object"]["metadata"]
                    events.append((event["type"], metadata["name"], metadata["resourceVersion"]))
            return events

        watching = [asyncio.ensure_future(watched(by)) for by in range(4)]
        names = [f"watched-{number}" for number in range(60)]
        await asyncio.gather(
            *(connections.ask(4 + n % 8, "POST", MAPS, config_map(name), 201) for n, name in enumerate(names))
        )
        await asyncio.gather(
            *(connections.ask(4 + (n + 1) % 8, "DELETE", f"{MAPS}/{name}") for n, name in enumerate(names))
        )
        first, *others = await asyncio.gather(*watching)
        assert [int(event[2]) for event in first] == sorted({int(event[2]) for event in first})
        assert all(events == first for events in others)


async def test_a_frontend_that_dies_is_replaced(tmp_path: Path) -> None:
    server = Running(tmp_path, "--frontends", "1")
    try:
        async with Connections(server, 1) as connections:
            await connections.ask(0, "POST", MAPS, config_map("kept"), 201)
        (before,) = server.children()
        os.kill(before, signal.SIGKILL)
        for _ in range(100):
            await asyncio.sleep(0.1)
            if server.children() not in ([], [before]):
                break
        for _ in range(100):
            async with Connections(server, 1) as connections:
                try:
                    await connections.ask(0, "GET", f"{MAPS}/kept", code=200)
                    break
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.1)
        else:
            raise AssertionError("nobody serves")
    finally:
        assert server.stop() == 0


async def test_a_frontend_that_compaction_has_passed_knows_what_is_gone(tmp_path: Path) -> None:
    server = Running(tmp_path, "--frontends", "2", "--etcd-compaction-interval", "500ms")
    bindings = f"/apis/{RBAC}/v1/namespaces/default/rolebindings"
    as_reader = {"Impersonate-User": "reader"}
    try:
        role = {
            "metadata": {"name": "reader"},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "system:aggregate-to-view"},
            "subjects": [{"kind": "User", "name": "reader", "apiGroup": RBAC}],
        }
        async with Connections(server, 16) as connections:
            await connections.ask(0, "POST", bindings, role, 201)
            for by in range(16):
                await connections.ask(by, "GET", MAPS, None, 200, **as_reader)
            stopped = server.children()[0]
            os.kill(stopped, signal.SIGSTOP)
            answers = [asyncio.ensure_future(connections.ask(by, "GET", "/version")) for by in range(16)]
            done, waiting = await asyncio.wait(answers, timeout=1.0)
            alive = next(by for by, answer in enumerate(answers) if answer in done)
            assert waiting, "the kernel gave one frontend all connections"
            await connections.ask(alive, "DELETE", f"{bindings}/reader", code=200)
            for number in range(20):  # revisions, over more than two intervals
                await connections.ask(alive, "POST", MAPS, config_map(f"later-{number}"), 201)
                await asyncio.sleep(0.1)
            os.kill(stopped, signal.SIGCONT)
            await asyncio.gather(*answers)
            for by in range(16):
                await connections.ask(by, "GET", MAPS, None, 403, **as_reader)
    finally:
        assert server.stop() == 0
