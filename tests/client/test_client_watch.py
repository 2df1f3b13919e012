"""Watches as a caller iterates them."""

from __future__ import annotations

import asyncio

import pytest
from toyserver import ToyServer

from fastkube.client import Client, WatchLost
from fastkube.errors import ApiError


def pod(name: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}}


@pytest.mark.parametrize("codec", ["msgpack", "json"])
async def test_events_come_in_order_from_a_position(toy: ToyServer, codec: str) -> None:
    start = toy.revision
    for name in "abc":
        await toy.put(pod(name))
    await toy.remove("default", "b")
    async with Client(toy.url, codec=codec) as client:  # type: ignore[arg-type]
        seen = []
        async with client.watch("v1/pods", resource_version=str(start)) as watch:
            async for kind, obj in watch:
                seen.append((kind, obj["metadata"]["name"]))
                if len(seen) == 4:
                    break
    assert seen == [("ADDED", "a"), ("ADDED", "b"), ("ADDED", "c"), ("DELETED", "b")]


async def test_initial_events_end_with_a_bookmark(toy: ToyServer, client: Client) -> None:
    await toy.put(pod("a"))
    async with client.watch("v1/pods", send_initial_events=True) as watch:
        assert (await anext(watch)).type == "ADDED"
        mark = await anext(watch)
        assert mark.type == "BOOKMARK"
        assert mark.object["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_a_position_before_compaction_is_gone(toy: ToyServer, client: Client) -> None:
    toy.compacted = toy.revision + 1
    with pytest.raises(ApiError) as gone:
        await anext(client.watch("v1/pods", resource_version=str(toy.revision)))
    assert (gone.value.code, gone.value.reason) == (410, "Expired")


async def test_a_broken_watch_is_told_from_an_ended_one(toy: ToyServer, client: Client) -> None:
    async with client.watch("v1/pods") as watch:
        await watch.connect()
        toy.break_watches()
        with pytest.raises(WatchLost):
            await anext(watch)


async def test_closing_the_client_ends_its_watches(toy: ToyServer) -> None:
    client = Client(toy.url)
    watch = client.watch("v1/pods")
    await watch.connect()
    reading = asyncio.create_task(watch.batch())
    await asyncio.sleep(0)
    await client.close()
    async with asyncio.timeout(30):
        assert await reading == []


async def test_error_events_are_raised(toy: ToyServer) -> None:
    line = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"gone"}}\n'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + line)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Client(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(ApiError) as error:
            await anext(client.watch("v1/pods"))
    assert (error.value.code, error.value.reason) == (410, "Expired")
