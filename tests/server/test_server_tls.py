"""TLS as the server speaks it: records of any size, good-byes, and what is no TLS at all."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from apis import ADMIN, Api, running

MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path, secure_port=0) as started:
        yield started


def address(api: Api) -> tuple[str, int]:
    host, _, port = api.server.url.removeprefix("https://").rpartition(":")
    return host, int(port)


def trusting(api: Api, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=api.server.ca_file)
    context.minimum_version = context.maximum_version = version
    return context


def request(method: str, path: str, body: Any = None, extra: str = "") -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {ADMIN}\r\n{extra}"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


async def answer(reader: asyncio.StreamReader) -> tuple[int, Any]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", head)
    if length is not None:
        body = await reader.readexactly(int(length[1]))
    else:
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
    return int(head.split()[1]), json.loads(body)


def config_map(name: str, size: int) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": {"k": "v" * size}}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_bodies_and_answers_of_many_records(api: Api, version: ssl.TLSVersion) -> None:
    reader, writer = await asyncio.open_connection(*address(api), ssl=trusting(api, version), limit=1 << 24)
    for number in range(4):
        writer.write(request("POST", MAPS, config_map(f"m{number}", 800_000)))
        code, made = await answer(reader)
        assert (code, len(made["data"]["k"])) == (201, 800_000)
    writer.write(request("GET", MAPS, extra="Accept-Encoding: identity\r\n"))
    code, found = await answer(reader)
    assert [len(item["data"]["k"]) for item in found["items"] if item["metadata"]["name"] != "kube-root-ca.crt"] == [
        800_000
    ] * 4
    writer.close()


async def test_requests_in_pieces_and_together(api: Api) -> None:
    reader, writer = await asyncio.open_connection(*address(api), ssl=trusting(api))
    for byte in request("POST", MAPS, config_map("slow", 5)):
        writer.write(bytes((byte,)))
    assert (await answer(reader))[0] == 201
    writer.write(b"".join(request("POST", MAPS, config_map(f"m{number}", 5)) for number in range(80)))
    assert [(await answer(reader))[0] for _ in range(80)] == [201] * 80
    writer.close()


async def test_the_server_says_good_bye(api: Api) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting(api).wrap_bio(incoming, outgoing, server_hostname=address(api)[0])
    reader, writer = await asyncio.open_connection(*address(api))

    async def step(work: Any) -> Any:
        while True:
            try:
                return work()
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                data = await asyncio.wait_for(reader.read(65536), 30)
                incoming.write(data) if data else incoming.write_eof()

    await step(client.do_handshake)
    client.write(request("GET", "/version", extra="Connection: close\r\n"))
    told = b""
    while piece := await step(lambda: client.read(65536)):  # an end without a good-bye would be an SSLEOFError
        told += piece
    assert told.startswith(b"HTTP/1.1 200")
    writer.close()


async def test_a_client_that_goes_is_forgotten(api: Api) -> None:
    context = trusting(api)
    for _ in range(3):
        reader, writer = await asyncio.open_connection(*address(api), ssl=context)
        writer.write(request("GET", "/version"))
        assert (await answer(reader))[0] == 200
        writer.close()
        await writer.wait_closed()
    _, writer = await asyncio.open_connection(*address(api), ssl=context)
    writer.transport.abort()
    gauge = re.compile(r"^apiserver_open_connections (\d+)", re.MULTILINE)
    async with asyncio.timeout(30):
        while True:
            found = gauge.search((await api.request("GET", "/metrics")).body.decode())
            assert found is not None
            if found[1] == "1":  # the one that asks
                break
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\0" * 300])
async def test_what_is_no_tls_is_cut_off(api: Api, data: bytes) -> None:
    reader, writer = await asyncio.open_connection(*address(api))
    writer.write(data)
    told = await asyncio.wait_for(reader.read(-1), 30)
    assert b"HTTP" not in told
    writer.close()


async def test_records_that_were_changed_on_the_way_end_the_connection(api: Api) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting(api).wrap_bio(incoming, outgoing, server_hostname=address(api)[0])
    reader, writer = await asyncio.open_connection(*address(api))
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    writer.write(outgoing.read())
    incoming.write(await reader.read(65536))
    client.do_handshake()
    client.write(request("GET", "/version"))
    whole = bytearray(outgoing.read())
    whole[-1] ^= 1
    writer.write(bytes(whole))
    incoming.write(await asyncio.wait_for(reader.read(-1), 30))
    with pytest.raises(ssl.SSLError, match="alert"):
        while True:
            client.read(65536)
    writer.close()


async def test_a_handshake_has_its_time(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastkube.server.connection.HANDSHAKE_TIMEOUT_S", 0.2)
    reader, writer = await asyncio.open_connection(*address(api))
    assert await asyncio.wait_for(reader.read(-1), 30) == b""
    writer.close()
