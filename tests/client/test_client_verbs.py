"""The client's verbs, codecs, retries and errors against a real HTTP server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from toyserver import ToyServer

from fastkube.client import Client, Unreachable
from fastkube.errors import ApiError


def pod(name: str, **labels: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": labels}}


@pytest.mark.parametrize("codec", ["msgpack", "json"])
async def test_objects_round_trip(toy: ToyServer, codec: str) -> None:
    async with Client(toy.url, codec=codec) as client:  # type: ignore[arg-type]
        made = await client.create("v1/pods", pod("a"), "default")
        assert made["metadata"]["uid"]
        made["spec"] = {"nodeName": "n1"}
        updated = await client.update("v1/pods", made)
        assert (await client.get("v1/pods", "a", "default"))["spec"] == {"nodeName": "n1"}
        patched = await client.patch("v1/pods", "a", {"status": {"phase": "Running"}}, "default")
        assert int(patched["metadata"]["resourceVersion"]) > int(updated["metadata"]["resourceVersion"])
        assert (await client.list("v1/pods", "default"))["items"][0]["status"] == {"phase": "Running"}
        assert (await client.delete("v1/pods", "a", "default"))["status"] == "Success"
    sent = {method: media for method, _, media in toy.requests}
    assert sent["POST"] == f"application/{codec}"
    assert sent["PATCH"] == "application/merge-patch+json"


async def test_refusals_are_api_errors(client: Client) -> None:
    with pytest.raises(ApiError) as missing:
        await client.get("v1/pods", "none", "default")
    assert (missing.value.code, missing.value.reason) == (404, "NotFound")
    await client.create("v1/pods", pod("a"), "default")
    with pytest.raises(ApiError) as twice:
        await client.create("v1/pods", pod("a"), "default")
    assert (twice.value.code, twice.value.reason) == (409, "AlreadyExists")


async def test_a_server_without_msgpack_is_spoken_json_to(toy: ToyServer, client: Client) -> None:
    toy.msgpack = False
    await client.create("v1/pods", pod("a"), "default")
    await client.create("v1/pods", pod("b"), "default")
    posts = [media for method, _, media in toy.requests if method == "POST"]
    assert posts == ["application/msgpack", "application/json", "application/json"]


async def test_pages_go_through_the_whole_list(client: Client) -> None:
    for index in range(7):
        await client.create("v1/pods", pod(f"p{index}"), "default")
    sizes = [len(page["items"]) async for page in client.pages("v1/pods", limit=3)]
    assert sizes == [3, 3, 1]


async def test_retry_after_is_honoured_for_every_verb(toy: ToyServer, client: Client) -> None:
    toy.refuse = [(429, {"Retry-After": "0"}), (503, {"Retry-After": "0"})]
    made = await client.create("v1/pods", pod("a"), "default")
    assert made["metadata"]["name"] == "a"
    assert [method for method, _, _ in toy.requests] == ["POST"] * 3


async def test_429_without_retry_after_is_the_callers(toy: ToyServer, client: Client) -> None:
    toy.refuse = [(429, {})]
    with pytest.raises(ApiError) as refused:
        await client.create("v1/pods", pod("a"), "default")
    assert (refused.value.code, refused.value.reason) == (429, "TooManyRequests")
    assert len(toy.requests) == 1


async def test_a_closed_idle_connection_is_replaced(toy: ToyServer, client: Client) -> None:
    await client.create("v1/pods", pod("a"), "default")
    await toy.stop()
    await toy.start()
    async with Client(toy.url) as again:
        assert (await again.get("v1/pods", "a", "default"))["metadata"]["name"] == "a"
    with pytest.raises(Unreachable) as gone:
        await client.get("v1/pods", "a", "default")  # the old port
    assert not gone.value.sent
    assert gone.value.code == 503


async def test_an_answer_that_does_not_come_is_an_error(toy: ToyServer) -> None:
    toy.hang = asyncio.Event()
    async with Client(toy.url, timeout_s=0.05) as client:
        with pytest.raises(Unreachable, match="no answer came within") as late:
            await client.create("v1/pods", pod("a"), "default")
        assert late.value.sent
    toy.hang.set()


async def test_a_cancelled_request_does_not_poison_its_connection(toy: ToyServer) -> None:
    async with Client(toy.url, pool_size=1) as client:
        await client.create("v1/pods", pod("a"), "default")
        toy.hang = asyncio.Event()
        task = asyncio.create_task(client.get("v1/pods", "a", "default"))
        await toy.received(2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        toy.hang.set()
        toy.hang = None
        assert (await client.get("v1/pods", "a", "default"))["metadata"]["name"] == "a"


async def test_more_requests_than_connections_wait_their_turn(toy: ToyServer) -> None:
    async with Client(toy.url, pool_size=3) as client:
        await asyncio.gather(*(client.create("v1/pods", pod(f"p{i}"), "default") for i in range(50)))
        assert len((await client.list("v1/pods"))["items"]) == 50


async def test_unix_sockets(tmp_path: Path) -> None:
    path = str(tmp_path / "api.sock")
    toy = ToyServer()
    await toy.start(unix_path=path)
    try:
        async with Client(f"unix://{path}") as client:
            await client.create("v1/pods", pod("a"), "default")
            assert (await client.get("v1/pods", "a", "default"))["metadata"]["name"] == "a"
    finally:
        await toy.stop()


async def test_names_cannot_break_out_of_the_request(toy: ToyServer, client: Client) -> None:
    with pytest.raises(ApiError) as missing:
        await client.get("v1/pods", "x HTTP/1.1\r\nEvil: 1", "default")
    assert missing.value.code == 404
    assert len(toy.requests) == 1


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}", "closed the connection"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}", "closed the connection"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}", "malformed HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}", "malformed HTTP"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "malformed HTTP"),
    ],
)
async def test_broken_answers_are_errors(answer: bytes, problem: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Client(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(Unreachable, match=problem):
            await client.delete("v1/pods", "a", "default")


@pytest.mark.parametrize("piece", [1, 2, 7, 1000])
async def test_answers_are_read_however_they_are_cut(piece: int) -> None:
    answer = (
        b"HTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'4;x=y\r\n{"a"\r\n6\r\n:[1,2]\r\n1\r\n}\r\n0\r\nTrailer: t\r\n\r\n'
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):  # twice over one connection
            await reader.readuntil(b"\r\n\r\n")
            for start in range(0, len(answer), piece):
                writer.write(answer[start : start + piece])
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Client(f"http://127.0.0.1:{port}") as client:
        assert await client.get_path("/version") == {"a": [1, 2]}
        assert await client.get_path("/version") == {"a": [1, 2]}
