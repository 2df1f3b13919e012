"""Informers against a real HTTP server: what handlers are told, gaps, own writes, indexes, sharing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import pytest
from toyserver import ToyServer

from fastkube.client import Client, Informer, InformerFactory, codec
from fastkube.client import feed as feed_module

Object = dict[str, Any]


def pod(name: str, node: str = "") -> Object:
    spec = {"nodeName": node} if node else {}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


class Told:
    """What an informer's handlers were told, and a way to wait for it."""

    def __init__(self, informer: Informer) -> None:
        self.events: list[tuple[str, str]] = []
        self._changed = asyncio.Event()
        informer.add_handler(
            lambda obj: self._note("add", obj),
            lambda old, new: self._note("update", new),
            lambda obj: self._note("delete", obj),
        )

    def _note(self, kind: str, obj: Object) -> None:
        self.events.append((kind, obj["metadata"]["name"]))
        self._changed.set()

    async def until(self, condition: Callable[[list[tuple[str, str]]], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition(self.events):
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def running(informer: Informer) -> AsyncIterator[Informer]:
    task = asyncio.create_task(informer.run())
    try:
        async with asyncio.timeout(30):
            await informer.synced.wait()
        yield informer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "BACKOFF_S", (0.01, 0.05))


@pytest.mark.parametrize("speaks_msgpack", [True, False], ids=["msgpack", "json"])
@pytest.mark.parametrize("watch_list", [True, False, "broken"], ids=["watch-list", "pages", "broken-watch-list"])
async def test_the_copy_follows_the_server(toy: ToyServer, speaks_msgpack: bool, watch_list: bool | str) -> None:
    toy.msgpack, toy.watch_list = speaks_msgpack, watch_list
    await toy.put(pod("a"))
    await toy.put(pod("b"))
    async with Client(toy.url) as client:
        informer = Informer(client, "v1/pods")
        told = Told(informer)
        async with running(informer):
            assert told.events == [("add", "a"), ("add", "b")]
            await toy.put(pod("a", "n1"))
            await toy.put(pod("c"))
            await toy.remove("default", "b")
            await told.until(lambda events: ("delete", "b") in events)
            assert told.events[2:] == [("update", "a"), ("add", "c"), ("delete", "b")]
            assert sorted(obj["metadata"]["name"] for obj in informer.list()) == ["a", "c"]
            found = informer.get("default", "a")
            assert found is not None
            assert (found["kind"], found["apiVersion"], found["spec"]) == ("Pod", "v1", {"nodeName": "n1"})


async def test_a_lost_position_is_made_up_by_a_new_list(toy: ToyServer, client: Client) -> None:
    await toy.put(pod("stays"))
    await toy.put(pod("goes"))
    await toy.put(pod("changes"))
    informer = Informer(client, "v1/pods")
    told = Told(informer)
    async with running(informer):
        told.events.clear()
        toy.break_watches()
        await toy.remove("default", "goes")
        await toy.put(pod("changes", "n1"))
        await toy.put(pod("comes"))
        toy.compacted = toy.revision  # what was missed can no longer be watched
        await told.until(lambda events: ("add", "comes") in events)
        assert sorted(told.events) == [("add", "comes"), ("delete", "goes"), ("update", "changes")]


async def test_a_broken_connection_loses_and_repeats_nothing(toy: ToyServer, client: Client) -> None:
    await toy.put(pod("a"))
    informer = Informer(client, "v1/pods")
    told = Told(informer)
    async with running(informer):
        for index in range(5):
            toy.break_watches()
            await toy.put(pod(f"p{index}"))
        await told.until(lambda events: ("add", "p4") in events)
        assert told.events == [("add", "a"), *(("add", f"p{index}") for index in range(5))]


async def test_own_writes_are_read_at_once_and_told_once(toy: ToyServer, client: Client) -> None:
    informer = Informer(client, "v1/pods", indexers={"node": lambda obj: [obj["spec"].get("nodeName", "")]})
    told = Told(informer)
    async with running(informer):
        made = await client.create("v1/pods", pod("a"), "default")
        informer.observe(made)
        assert informer.get("default", "a") is not None
        moved = await client.update("v1/pods", {**made, "spec": {"nodeName": "n1"}})
        informer.observe(moved)
        assert [obj["metadata"]["name"] for obj in informer.by_index("node", "n1")] == ["a"]
        assert informer.by_index("node", "") == []
        await client.delete("v1/pods", "a", "default")
        informer.observe_deleted(moved)
        assert informer.get("default", "a") is None
        informer.observe(moved)  # an answer that comes after the deletion
        await toy.put(pod("end"))
        await told.until(lambda events: ("add", "end") in events)
        assert told.events == [("add", "a"), ("update", "a"), ("delete", "a"), ("add", "end")]
        informer.observe(moved)  # older than what the watch has told
        assert informer.get("default", "a") is None


async def test_a_name_used_again_is_another_object(toy: ToyServer, client: Client) -> None:
    await toy.put(pod("a"))
    informer = Informer(client, "v1/pods")
    told = Told(informer)
    async with running(informer):
        toy.break_watches()
        await toy.remove("default", "a")
        await toy.put(pod("a"))
        toy.compacted = toy.revision
        await told.until(lambda events: len(events) >= 3)
        assert told.events == [("add", "a"), ("delete", "a"), ("add", "a")]


async def test_a_failing_handler_stops_nobody(toy: ToyServer, client: Client) -> None:
    await toy.put(pod("a"))
    informer = Informer(client, "v1/pods")
    informer.add_handler(on_add=lambda obj: 1 / 0)  # type: ignore[arg-type, return-value]
    told = Told(informer)
    async with running(informer):
        assert told.events == [("add", "a")]


async def test_transform_decides_what_is_kept(toy: ToyServer, client: Client) -> None:
    await toy.put({**pod("a", "n1"), "status": {"phase": "Running"}})

    def slim(obj: Object, _kept: Object | None) -> Object:
        return {"metadata": obj["metadata"], "phase": obj.get("status", {}).get("phase", "")}

    informer = Informer(client, "v1/pods", transform=slim)
    async with running(informer):
        found = informer.get("default", "a")
        assert found is not None
        assert found["phase"] == "Running"
        assert "spec" not in found


async def test_a_transform_is_shown_what_was_kept(toy: ToyServer, client: Client) -> None:
    await toy.put(pod("a"))

    def history(obj: Object, kept: Object | None) -> Object:
        return {"metadata": obj["metadata"], "before": (kept["before"] if kept else 0) + 1}

    informer = Informer(client, "v1/pods", transform=history)
    told = Told(informer)
    async with running(informer):
        await toy.put(pod("a", "n1"))
        await told.until(lambda events: ("update", "a") in events)
        assert (informer.get("default", "a") or {})["before"] == 2
        await toy.remove("default", "a")
        await toy.put(pod("a"))
        await told.until(lambda events: len(events) == 4)
        assert (informer.get("default", "a") or {})["before"] == 1, "another object of the same name"


async def test_handlers_are_told_what_they_are_about(toy: ToyServer, client: Client) -> None:
    bound, named_b = 1, 2

    def topics(old: Object | None, new: Object) -> int:
        moved = old is None or old["spec"] != new["spec"]
        return (bound if moved else 0) | (named_b if new["metadata"]["name"] == "b" else 0)

    informer = Informer(client, "v1/pods", topics=topics)
    seen: dict[str, list[str]] = {"moves": [], "moves of b": [], "either": []}

    def note(name: str) -> None:
        told = seen[name]
        about = {"moves": (bound,), "moves of b": (bound, named_b), "either": (bound | named_b,)}[name]
        informer.add_handler(
            lambda obj: told.append(f"add {obj['metadata']['name']}"),
            lambda old, new: told.append(f"update {new['metadata']['name']}"),
            lambda obj: told.append(f"delete {obj['metadata']['name']}"),
            about=about,
        )

    for name in ("moves", "moves of b"):
        note(name)
    told_all = Told(informer)
    async with running(informer):
        for each in (pod("a"), pod("b"), pod("a", "n1"), {**pod("b"), "status": {"phase": "Running"}}):
            await toy.put(each)
        await told_all.until(lambda events: len(events) == 4)
        note("either")  # is told what is there
        await toy.remove("default", "a")
        await told_all.until(lambda events: len(events) == 5)
    assert seen == {
        "moves": ["add a", "add b", "update a", "delete a"],
        "moves of b": ["add b"],
        "either": ["add a", "add b", "delete a"],
    }


async def test_a_factory_shares_one_informer(toy: ToyServer, client: Client) -> None:
    await toy.put(pod("a"))
    factory = InformerFactory(client)
    informer = factory.informer("v1/pods")
    assert factory.informer("v1/pods") is informer
    factory.start()
    await factory.wait_synced(5)
    late = factory.informer("v1/nodes")
    await factory.wait_synced(5)
    assert len(informer) == 1
    assert len(late) == 0
    told = Told(informer)
    assert told.events == [("add", "a")]
    await factory.stop()
    assert sum("watch=true" in path for _, path, _ in toy.requests) == 2


async def test_waiting_for_an_informer_that_cannot_sync_says_why(toy: ToyServer, client: Client) -> None:
    factory = InformerFactory(client)
    factory.informer("apps/v1beta1/deployments")
    factory.start()
    with pytest.raises(TimeoutError, match=r"apps/v1beta1/deployments \(the server could not find"):
        await factory.wait_synced(0.2)
    await factory.stop()


def test_equal_parts_of_objects_that_are_shared_are_one_part() -> None:
    labels = {f"example.com/label-{number}": "a value that many have" for number in range(3)}

    def labelled(name: str) -> Object:
        made = pod(name)
        return {**made, "metadata": {**made["metadata"], "labels": labels, "managedFields": [{"manager": "m"}]}}

    frames = [msgpack.packb({"type": kind, "object": labelled(kind)}) for kind in ("ADDED", "MODIFIED", "DELETED")]
    data = b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)
    events, rest = codec.framing(codec.MSGPACK, shared=True)(data + b"\0\0")
    assert ([event.type for event in events], rest) == (["ADDED", "MODIFIED", "DELETED"], b"\0\0")
    for event in events:
        assert event.object["metadata"] == {**pod(event.type)["metadata"], "labels": labels}
        assert event.object["metadata"]["labels"] is events[0].object["metadata"]["labels"]
    own, _ = codec.framing(codec.MSGPACK)(data)
    assert own[0] == ("ADDED", labelled("ADDED"))
    assert own[0].object["metadata"]["labels"] is not own[1].object["metadata"]["labels"]


@pytest.mark.parametrize("frame", [b"", b"\x82", b"\x82\xa4type", b"\x82\xa4type\xa5ADDED\xa6object\xc1", b"\x80"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_frame_that_is_no_event_is_refused(frame: bytes, shared: bool) -> None:
    with pytest.raises(codec.FrameError):
        codec.framing(codec.MSGPACK, shared=shared)(len(frame).to_bytes(4, "big") + frame)
