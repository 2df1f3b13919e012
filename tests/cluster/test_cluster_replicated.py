"""Three servers as three processes: any answers, what one acknowledged all know, and the death of one is a pause."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from machines import Machine, Machines

from fastkube.cli import main
from fastkube.errors import ApiError


@pytest.fixture
async def machines(tmp_path: Path) -> AsyncIterator[Machines]:
    async with Machines(tmp_path) as started:
        yield started


def config_map(name: str, **data: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


async def test_three_servers_are_one_control_plane(machines: Machines, tmp_path: Path) -> None:
    a, b, c = (machines.all[name] for name in "abc")
    await any_server_answers(a, b, c)
    await a_watch_goes_on_at_another_server(a, b)
    await asyncio.to_thread(members_and_snapshots_by_command, a, tmp_path)
    await the_leader_is_killed(machines)
    await a_member_joins_and_one_goes(machines)


async def any_server_answers(a: Machine, b: Machine, c: Machine) -> None:
    """A write through one is read at once through each other one."""
    async with a.client() as first, b.client() as second, c.client() as third:
        for number in range(20):
            name = f"seen-{number}"
            writer, *readers = ((first, second, third), (second, third, first), (third, first, second))[number % 3]
            made = await writer.create("v1/configmaps", config_map(name), "default")
            for reader in readers:
                found = await reader.get("v1/configmaps", name, "default")
                assert found["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        made = await first.create("v1/services", service("one"), "default")
        other = await second.create("v1/services", service("two"), "default")
        assert made["spec"]["clusterIP"] != other["spec"]["clusterIP"]
        with pytest.raises(ApiError, match="already exists"):
            await third.create("v1/services", service("one"), "default")


def service(name: str) -> dict[str, object]:
    metadata = {"name": name}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}}


async def a_watch_goes_on_at_another_server(a: Machine, b: Machine) -> None:
    async with a.client() as first, b.client() as second:
        start = (await first.list("v1/configmaps", "default"))["metadata"]["resourceVersion"]
        names = [f"watched-{number}" for number in range(10)]
        for name in names:
            await second.create("v1/configmaps", config_map(name), "default")
        seen: list[str] = []
        for client in (first, second):
            async with asyncio.timeout(20):
                async for kind, obj in client.watch("v1/configmaps", "default", resource_version=start):
                    assert kind == "ADDED"
                    seen.append(obj["metadata"]["name"])
                    start = obj["metadata"]["resourceVersion"]
                    if len(seen) in (5, 10):
                        break
        assert seen == names


def members_and_snapshots_by_command(a: Machine, path: Path) -> None:
    run = CliRunner()
    listed = run.invoke(main, ["member", "list", "--data-dir", str(a.data_dir)])
    rows = [line.split(", ") for line in listed.output.splitlines()]
    assert sorted(row[2] for row in rows) == ["a", "b", "c"]
    assert sum(row[1] == "leader" for row in rows) == 1
    other = next(row for row in rows if row[1] != "leader")
    moved = run.invoke(main, ["transfer", other[0], "--data-dir", str(a.data_dir)])
    assert moved.exit_code == 0, moved.output
    listed = run.invoke(main, ["member", "list", "--data-dir", str(a.data_dir)])
    assert f"{other[0]}, leader" in listed.output
    refused = run.invoke(main, ["member", "remove", "abc123", "--data-dir", str(a.data_dir)])
    assert refused.exit_code == 1
    assert "member not found" in refused.output
    saved = run.invoke(main, ["snapshot", "save", str(path / "saved.db"), "--data-dir", str(a.data_dir)])
    assert saved.exit_code == 0, saved.output
    restored = run.invoke(main, ["snapshot", "restore", str(path / "saved.db"), "--data-dir", str(path / "restored")])
    assert restored.exit_code == 0, restored.output
    checked = run.invoke(main, ["check", "--data-dir", str(path / "restored")])
    assert checked.exit_code == 0, checked.output


async def the_leader_is_killed(machines: Machines) -> None:
    """Writes that are under way wait for the next leader; nothing that was acknowledged is gone."""
    leader = await machines.leader()
    left = [machine for machine in machines.all.values() if machine is not leader]
    async with left[0].client(timeout_s=30.0) as client:
        written: list[str] = []
        under_way = asyncio.Event()

        async def write() -> None:
            for number in range(60):
                await client.create("v1/configmaps", config_map(f"through-{number}"), "default")
                written.append(f"through-{number}")
                if number == 10:
                    under_way.set()

        writing = asyncio.ensure_future(write())
        await under_way.wait()
        leader.kill()
        await writing
        found = await client.list("v1/configmaps", "default")
        assert set(written) <= {item["metadata"]["name"] for item in found["items"]}
    leader.start()
    await leader.wait_ready()
    async with leader.client() as client:
        found = await client.list("v1/configmaps", "default")
        assert set(written) <= {item["metadata"]["name"] for item in found["items"]}


async def a_member_joins_and_one_goes(machines: Machines) -> None:
    run = CliRunner()
    there = machines.all["a"]
    new = machines.add("d")
    await new.proxy.start()
    words = ["member", "add", "d", "--peer-urls", new.peer_url, "--learner", "--data-dir", str(there.data_dir)]
    added = await asyncio.to_thread(run.invoke, main, words)
    assert added.exit_code == 0, added.output
    machines.expected.append(new)
    new.state = "existing"
    new.start()
    await new.wait_ready()
    found = next(one for one in (await machines.membership()).members if one.name == "d")
    deadline = time.monotonic() + 20
    while True:
        promoted = await asyncio.to_thread(
            run.invoke, main, ["member", "promote", f"{found.id:x}", "--data-dir", str(there.data_dir)]
        )
        if promoted.exit_code == 0 or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.2)
    assert promoted.exit_code == 0, promoted.output
    async with new.client() as client:
        await client.create("v1/configmaps", config_map("by-the-new-one"), "default")
        assert await client.get("v1/configmaps", "through-0", "default")
    gone = machines.all["b"]
    b = next(one for one in (await machines.membership()).members if one.name == "b")
    words = ["member", "remove", f"{b.id:x}", "--data-dir", str(there.data_dir)]
    removed = await asyncio.to_thread(run.invoke, main, words)
    assert removed.exit_code == 0, removed.output
    await asyncio.to_thread(gone.stop)
    async with new.client() as client:
        await client.create("v1/configmaps", config_map("without-b"), "default")
    assert [one.name for one in (await machines.membership()).members if one.name == "b"] == []
