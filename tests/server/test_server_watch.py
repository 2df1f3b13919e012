"""Watches: what is seen, in which order, in which form, and how they begin and end."""

from __future__ import annotations

import asyncio
import json
import socket

import aiohttp
import msgpack
import pytest
from apis import ADMIN, Api, running, until

MAPS = "/api/v1/namespaces/default/configmaps"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"


def config_map(name: str, labels: dict[str, str] | None = None, data: str = "") -> dict:
    metadata = {"name": name, **({"labels": labels} if labels else {})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"k": data}}


async def version(api: Api) -> str:
    return (await api.get(MAPS))["metadata"]["resourceVersion"]


async def test_changes_after_a_version(api: Api) -> None:
    first = await api.create(MAPS, config_map("a"))
    begin = first["metadata"]["resourceVersion"]
    await api.merge(f"{MAPS}/a", {"data": {"k": "2"}})
    async with api.watch(f"{MAPS}?watch=1&resourceVersion={begin}") as watch:
        changed = await watch.next()
        gone = await api.delete(f"{MAPS}/a")
        deleted = await watch.next()
    assert (changed["type"], changed["object"]["data"]) == ("MODIFIED", {"k": "2"})
    assert (deleted["type"], deleted["object"]["data"]) == ("DELETED", {"k": "2"})
    assert deleted["object"]["kind"] == "ConfigMap"
    assert int(deleted["object"]["metadata"]["resourceVersion"]) > int(changed["object"]["metadata"]["resourceVersion"])
    assert gone["status"] == "Success"


@pytest.mark.parametrize("query", ["watch=1", "watch=1&resourceVersion=0", "watch=true&resourceVersion="])
async def test_without_a_version_the_state_comes_first(api: Api, query: str) -> None:
    await api.create(MAPS, config_map("b"))
    await api.create(MAPS, config_map("a"))
    async with api.watch(f"{MAPS}?{query}") as watch:
        assert await watch.names(2) == [("ADDED", "a"), ("ADDED", "b")]
        await api.merge(f"{MAPS}/a", {"data": {"k": "2"}})
        assert await watch.names(1) == [("MODIFIED", "a")]


async def test_selectors_make_objects_enter_and_leave(api: Api) -> None:
    begin = await version(api)
    async with api.watch(f"{MAPS}?watch=1&resourceVersion={begin}&labelSelector=l%3D1") as watch:
        await api.create(MAPS, config_map("a", {"l": "1"}))
        await api.create(MAPS, config_map("z"))
        await api.merge(f"{MAPS}/a", {"metadata": {"labels": {"l": "2"}}})
        await api.merge(f"{MAPS}/a", {"data": {"k": "unseen"}})
        await api.merge(f"{MAPS}/a", {"metadata": {"labels": {"l": "1"}}})
        await api.merge(f"{MAPS}/a", {"data": {"k": "seen"}})
        await api.delete(f"{MAPS}/a")
        events = await watch.take(5)
    assert [event["type"] for event in events] == ["ADDED", "DELETED", "ADDED", "MODIFIED", "DELETED"]
    left = events[1]["object"]
    assert left["metadata"]["labels"] == {"l": "1"}, "an object that leaves is shown as it was"
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions))


async def test_field_selectors_find_one_object_or_one_node(api: Api) -> None:
    begin = await version(api)
    pods = "/api/v1/namespaces/default/pods"
    one = f"{MAPS}?watch=1&resourceVersion={begin}&fieldSelector=metadata.name%3Db"
    elsewhere = f"/api/v1/configmaps?watch=1&resourceVersion={begin}&fieldSelector=metadata.namespace%3Dother"
    node = f"{pods}?watch=1&resourceVersion={begin}&fieldSelector=spec.nodeName%3Dn1"
    async with api.watch(one) as named, api.watch(elsewhere) as other, api.watch(node) as bound:
        for name in "abc":
            await api.create(MAPS, config_map(name))
        assert await named.names(1) == [("ADDED", "b")]
        spec = {"containers": [{"name": "c", "image": "i"}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
        await api.create(pods, pod)
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": "p"},
            "target": {"kind": "Node", "name": "n1"},
        }
        await api.create(f"{pods}/p/binding", binding)
        assert await bound.names(1) == [("ADDED", "p")]
        with pytest.raises(TimeoutError):
            await other.next(0.1)


async def test_initial_events_end_with_a_bookmark(api: Api) -> None:
    await api.create(MAPS, config_map("a"))
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with api.watch(f"{MAPS}?{query}") as watch:
        added, bookmark = await watch.take(2)
        await api.create(MAPS, config_map("b"))
        later = await watch.next()
    assert added["type"] == "ADDED"
    assert bookmark["type"] == "BOOKMARK"
    assert bookmark["object"]["kind"] == "ConfigMap"
    assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    mark = int(bookmark["object"]["metadata"]["resourceVersion"])
    assert int(added["object"]["metadata"]["resourceVersion"]) <= mark
    assert int(later["object"]["metadata"]["resourceVersion"]) > mark


async def test_a_bookmark_comes_before_the_end(api: Api) -> None:
    await api.create(MAPS, config_map("a"))
    begin = await version(api)
    await api.create("/api/v1/namespaces/kube-system/configmaps", config_map("elsewhere"))
    reached = api.store.revision
    query = f"watch=1&resourceVersion={begin}&allowWatchBookmarks=true&timeoutSeconds=3"
    async with api.watch(f"{MAPS}?{query}") as watch:
        events = await watch.rest()
    assert [event["type"] for event in events] == ["BOOKMARK"]
    assert int(events[0]["object"]["metadata"]["resourceVersion"]) == reached


async def test_a_watch_ends_in_time_and_the_connection_goes_on(api: Api) -> None:
    reader, writer = await api.connect()
    head = "HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admintoken\r\n\r\n"
    writer.write(f"GET {MAPS}?watch=1&timeoutSeconds=1 {head}".encode())
    assert (await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 30)).startswith(b"HTTP/1.1 200 OK")
    writer.write(f"GET /healthz {head}".encode())
    assert await asyncio.wait_for(reader.readuntil(b"ok"), 30)
    writer.close()


async def test_a_version_that_was_compacted_is_an_error_event(api: Api) -> None:
    created = await api.create(MAPS, config_map("a"))
    for index in range(5):
        await api.merge(f"{MAPS}/a", {"data": {"k": str(index)}})
    await api.store.compact(api.store.revision)
    begin = created["metadata"]["resourceVersion"]
    async with api.watch(f"{MAPS}?watch=1&resourceVersion={begin}") as watch:
        events = await watch.rest()
    assert [event["type"] for event in events] == ["ERROR"]
    status = events[0]["object"]
    assert (status["kind"], status["code"], status["reason"]) == ("Status", 410, "Expired")
    assert status["message"].startswith(f"too old resource version: {begin} (")


async def test_a_version_of_the_future_is_waited_for(api: Api) -> None:
    ahead = api.store.revision + 2
    async with api.watch(f"{MAPS}?watch=1&resourceVersion={ahead}") as watch:
        for name in ("a", "b", "c", "d"):
            await api.create(MAPS, config_map(name))
        assert await watch.names(2) == [("ADDED", "c"), ("ADDED", "d")]


@pytest.mark.parametrize(
    ("query", "code", "text"),
    [
        ("resourceVersion=x", 500, 'resourceVersion: Invalid value: "x"'),
        ("timeoutSeconds=x", 400, 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("labelSelector=%3D", 400, "expected"),
        ("fieldSelector=data.x%3Dy", 400, "is not a known field selector"),
        ("resourceVersionMatch=Exact&resourceVersion=1", 422, "resourceVersionMatch is forbidden for watch"),
        ("sendInitialEvents=true", 422, "requires setting resourceVersionMatch"),
    ],
)
async def test_what_cannot_be_watched_is_told_at_once(api: Api, query: str, code: int, text: str) -> None:
    response = await api.request("GET", f"{MAPS}?watch=1&{query}")
    assert response.status == code
    assert text in response.json["message"]


async def test_legacy_watch_paths(api: Api) -> None:
    begin = await version(api)
    base = "/api/v1/watch/namespaces/default/configmaps"
    async with (
        api.watch(f"{base}?resourceVersion={begin}") as many,
        api.watch(f"{base}/b?resourceVersion={begin}") as one,
    ):
        await api.create(MAPS, config_map("a"))
        await api.create(MAPS, config_map("b"))
        assert await many.names(2) == [("ADDED", "a"), ("ADDED", "b")]
        assert await one.names(1) == [("ADDED", "b")]


async def test_tables_tell_their_columns_once(api: Api) -> None:
    begin = await version(api)
    path = f"{MAPS}?watch=1&resourceVersion={begin}"
    async with api.watch(path, Accept=TABLE) as first:
        await api.create(MAPS, config_map("a"))
        early = await first.next()
        async with api.watch(path, Accept=TABLE) as second:
            late = await second.next()
            await api.create(MAPS, config_map("b"))
            events = [await first.next(), await second.next()]
    for event in (early, late):
        assert event["object"]["kind"] == "Table"
        assert [column["name"] for column in event["object"]["columnDefinitions"]] == ["Name", "Data", "Age"]
        assert event["object"]["rows"][0]["cells"][:2] == ["a", 1]
    for event in events:
        assert event["object"]["columnDefinitions"] is None
        assert event["object"]["rows"][0]["object"]["metadata"]["name"] == "b"


async def test_metadata_only(api: Api) -> None:
    async with api.watch(f"{MAPS}?watch=1", Accept=PARTIAL) as watch:
        await api.create(MAPS, config_map("a"))
        event = await watch.next()
    assert set(event["object"]) == {"kind", "apiVersion", "metadata"}
    assert event["object"]["kind"] == "PartialObjectMetadata"


async def test_msgpack_frames(api: Api) -> None:
    headers = {"Authorization": f"Bearer {ADMIN}", "Accept": "application/msgpack"}
    async with api.session.get(f"{api.url}{MAPS}?watch=1", headers=headers) as response:
        assert response.headers["Content-Type"] == "application/msgpack"
        await api.create(MAPS, config_map("a"))
        size = int.from_bytes(await response.content.readexactly(4), "big")
        event = msgpack.unpackb(await response.content.readexactly(size))
    assert event["type"] == "ADDED"
    assert event["object"]["metadata"]["resourceVersion"] == str(api.store.revision)


async def test_a_watch_in_yaml_is_not_to_be_had(api: Api) -> None:
    response = await api.request("GET", f"{MAPS}?watch=1", headers={"Accept": "application/yaml"})
    assert response.status == 406


async def test_websocket(api: Api) -> None:
    await api.create(MAPS, config_map("a"))
    headers = {"Authorization": f"Bearer {ADMIN}"}
    async with api.session.ws_connect(f"{api.url}{MAPS}?watch=1", headers=headers) as ws:
        first = json.loads((await ws.receive(5)).data)
        large = "x" * 70_000
        await api.create(MAPS, config_map("b", data=large))
        second = json.loads((await ws.receive(5)).data)
        await ws.close()
    assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", "a")
    assert second["object"]["data"]["k"] == large
    async with api.session.ws_connect(f"{api.url}{MAPS}?watch=1&timeoutSeconds=1", headers=headers) as ws:
        await ws.receive(5)
        await ws.receive(5)
        assert (await ws.receive(5)).type in (
            aiohttp.WSMsgType.CLOSE,
            aiohttp.WSMsgType.CLOSING,
            aiohttp.WSMsgType.CLOSED,
        )


async def test_http_1_0_gets_a_stream_without_chunks(api: Api) -> None:
    await api.create(MAPS, config_map("a"))
    answer = await api.raw(
        f"GET {MAPS}?watch=1&timeoutSeconds=1 HTTP/1.0\r\nAuthorization: Bearer admintoken\r\n\r\n".encode()
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert json.loads(body)["object"]["metadata"]["name"] == "a"


async def test_watches_that_are_left_are_forgotten(api: Api) -> None:
    hub = api.server.streams.hub(api.server.catalog.lookup("", "v1", "configmaps"))
    for _ in range(3):
        async with api.watch(f"{MAPS}?watch=1"):
            assert len(hub.watchers) == 1
        await until(lambda: not hub.watchers)
    await api.create(MAPS, config_map("a"))
    assert not hub._groups


class SlowClient:
    """Opens a watch and reads nothing until it is told to."""

    async def open(self, api: Api, path: str) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, api.address)
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admintoken\r\n\r\n"
        await loop.sock_sendall(self.socket, head.encode())

    async def events(self, until: str) -> list[dict]:
        """Reads all events up to the one about the object `until`."""
        self.reader, self.writer = await asyncio.open_connection(sock=self.socket, limit=1 << 24)
        await self.reader.readuntil(b"\r\n\r\n")
        text, events = b"", []
        while True:
            size = int(await self.reader.readline(), 16)
            if size == 0:
                return events
            text += await self.reader.readexactly(size)
            await self.reader.readline()
            *lines, text = text.split(b"\n")
            for line in lines:
                events.append(json.loads(line))
                if events[-1]["type"] == "ERROR" or events[-1]["object"]["metadata"]["name"] == until:
                    self.writer.close()
                    return events


async def write_much(api: Api, count: int) -> None:
    """Some hundred events of 20 kB each: more than any socket takes."""
    body = "x" * 20_000
    for index in range(count):
        await api.create(MAPS, config_map(f"m{index:04}", data=body))


async def test_a_slow_watcher_misses_nothing_and_holds_up_nobody(api: Api) -> None:
    begin = await version(api)
    slow = SlowClient()
    await slow.open(api, f"{MAPS}?watch=1&resourceVersion={begin}")
    async with api.watch(f"{MAPS}?watch=1&resourceVersion={begin}") as quick:
        writing = asyncio.create_task(write_much(api, 600))
        seen = await quick.names(600)
        await writing
    hub = api.server.streams.hub(api.server.catalog.lookup("", "v1", "configmaps"))
    behind = [watcher for watcher in hub.watchers if watcher.group is None]
    assert behind, "the slow watcher has left its group"
    assert max(watcher.transport.get_write_buffer_size() for watcher in behind) < 4 << 20
    reading = asyncio.create_task(slow.events("last"))
    await asyncio.sleep(0.05)
    await api.create(MAPS, config_map("last"))
    names = [event["object"]["metadata"]["name"] for event in await asyncio.wait_for(reading, 30)]
    expected = [f"m{index:04}" for index in range(600)]
    assert [name for _, name in seen] == expected
    assert names == [*expected, "last"]


async def test_slow_watchers_catch_up_with_their_group(api: Api) -> None:
    """Each by so much that what was kept for it is all it needs."""
    begin = await version(api)
    slow = [SlowClient() for _ in range(3)]
    for client in slow:
        await client.open(api, f"{MAPS}?watch=1&resourceVersion={begin}")
    await write_much(api, 200)
    hub = api.server.streams.hub(api.server.catalog.lookup("", "v1", "configmaps"))
    assert [watcher for watcher in hub.watchers if watcher.group is None], "they have left their group"
    reading = [asyncio.create_task(client.events("last")) for client in slow]
    await asyncio.sleep(0.05)
    await api.create(MAPS, config_map("last"))
    for task in reading:
        names = [event["object"]["metadata"]["name"] for event in await asyncio.wait_for(task, 30)]
        assert names == [*(f"m{index:04}" for index in range(200)), "last"]


async def test_a_watcher_that_compaction_passes_is_told_so(api: Api) -> None:
    slow = SlowClient()
    await slow.open(api, f"{MAPS}?watch=1")
    await write_much(api, 600)
    await api.store.compact(api.store.revision)
    events = await asyncio.wait_for(slow.events("never"), 30)
    assert events[-1]["type"] == "ERROR"
    assert events[-1]["object"]["code"] == 410
    names = [event["object"]["metadata"]["name"] for event in events[:-1]]
    assert names == [f"m{index:04}" for index in range(len(names))]


async def test_many_watchers_see_one_history(api: Api) -> None:
    """Watches of all kinds, begun at all times, are compared with the history that the writes made."""
    selections = {
        "": lambda labels: True,
        "&labelSelector=l%3D1": lambda labels: labels.get("l") == "1",
        "&labelSelector=l!%3D1": lambda labels: labels.get("l") != "1",
        "&fieldSelector=metadata.name%3Dm1": lambda labels: True,
    }
    begin = int(await version(api))
    states: dict[str, tuple[str, dict]] = {}
    history: list[tuple[int, str, dict | None, dict | None]] = []  # revision, name, labels before, labels after

    async def write(step: int) -> None:
        name = f"m{step * 7 % 5}"
        before = states.get(name)
        labels = {"l": str(step % 3), "step": str(step)}
        if before is None:
            obj = await api.create(MAPS, config_map(name, labels))
        elif step % 11 == 0:
            await api.delete(f"{MAPS}/{name}")
            history.append((0, name, before[1], None))
            del states[name]
            return
        else:
            obj = await api.merge(f"{MAPS}/{name}", {"metadata": {"labels": labels}})
        history.append((int(obj["metadata"]["resourceVersion"]), name, before and before[1], labels))
        states[name] = (obj["metadata"]["resourceVersion"], labels)

    async def follow(query: str, count: int) -> list[tuple[str, str]]:
        async with api.watch(f"{MAPS}?watch=1{query}") as watch:
            events = []
            while len(events) < count:
                events.append(await watch.next())
            return [(event["type"], event["object"]["metadata"]["name"]) for event in events]

    def expected(matches, query: str) -> list[tuple[str, str]]:
        told = []
        for _, name, before, after in history:
            if "fieldSelector" in query and name != "m1":
                continue
            was, now = before is not None and matches(before), after is not None and matches(after)
            if was or now:
                told.append(("MODIFIED" if was and now else "ADDED" if now else "DELETED", name))
        return told

    early: dict[str, list[tuple[str, str]]] = {query: [] for query in selections}
    watching = [
        asyncio.create_task(collect(api, f"{MAPS}?watch=1&resourceVersion={begin}{query}", events))
        for query, events in early.items()
    ]
    for step in range(150):
        await write(step)
    late = [
        await follow(f"&resourceVersion={begin}{query}", len(expected(m, query))) for query, m in selections.items()
    ]
    await until(lambda: all(len(early[query]) >= len(expected(m, query)) for query, m in selections.items()))
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    for (query, matches), got in zip(selections.items(), late, strict=True):
        assert got == expected(matches, query)
        assert early[query] == expected(matches, query)


async def collect(api: Api, path: str, events: list[tuple[str, str]]) -> None:
    """Adds everything that a watch tells."""
    async with api.watch(path) as watch:
        while (event := await watch.next()) is not None:
            events.append((event["type"], event["object"]["metadata"]["name"]))


async def test_stopping_ends_watches_cleanly(tmp_path) -> None:
    async with running(tmp_path) as api, api.watch(f"{MAPS}?watch=1") as watch:
        await api.create(MAPS, config_map("a"))
        assert await watch.names(1) == [("ADDED", "a")]
        stopping = asyncio.create_task(api.server.stop())
        assert await watch.rest() == []
        await asyncio.wait_for(stopping, 30)
