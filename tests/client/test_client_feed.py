"""Feeds: several informers that share one watch, against a real HTTP server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from test_client_informer import Told, pod, running
from toyserver import ToyServer

from fastkube.client import Client, Feeds, Informer
from fastkube.client import feed as feed_module

Object = dict[str, Any]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "BACKOFF_S", (0.01, 0.05))


@asynccontextmanager
async def running_together(*informers: Informer) -> AsyncIterator[None]:
    """All of them, joined before any has its list."""
    tasks = [asyncio.create_task(informer.run()) for informer in informers]
    try:
        async with asyncio.timeout(30):
            await asyncio.gather(*(informer.synced.wait() for informer in informers))
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def watches(toy: ToyServer) -> list[str]:
    return [path for _, path, _ in toy.requests if "watch=true" in path]


def names(informer: Informer) -> list[str]:
    return sorted(obj["metadata"]["name"] for obj in informer.list())


@pytest.mark.parametrize("watch_list", [True, False], ids=["watch-list", "pages"])
async def test_those_who_begin_together_share_list_and_watch(toy: ToyServer, client: Client, watch_list: bool) -> None:
    toy.watch_list = watch_list
    await toy.put(pod("a"))
    feeds = Feeds()
    one, other = (Informer(client, "v1/pods", feeds=feeds) for _ in range(2))
    told = [Told(one), Told(other)]
    async with running_together(one, other):
        await toy.put(pod("b", "n1"))
        await toy.remove("default", "a")
        for each in told:
            await each.until(lambda events: len(events) == 3)
            assert each.events == [("add", "a"), ("add", "b"), ("delete", "a")]
        assert one.get("default", "b") is other.get("default", "b"), "decoded and kept once"
    lists = [path for _, path, _ in toy.requests if "watch=true" not in path]
    assert (len(watches(toy)), len(lists)) == ((1, 0) if watch_list else (2, 1))


async def test_who_comes_late_is_told_everything_once(toy: ToyServer, client: Client) -> None:
    await toy.put(pod("a"))
    await toy.put(pod("b"))
    feeds = Feeds()
    first, late = (Informer(client, "v1/pods", feeds=feeds) for _ in range(2))
    told_first, told_late = Told(first), Told(late)
    async with running(first):
        toy.hang = asyncio.Event()
        task = asyncio.create_task(late.run())
        await toy.received(2)
        # what happens before the late one's list is answered is in the list, and is told by the watch as well
        await toy.put(pod("a", "n1"))
        await toy.put(pod("passes"))
        await toy.remove("default", "passes")
        await toy.put(pod("c"))
        await told_first.until(lambda events: ("add", "c") in events)
        toy.hang.set()
        await told_late.until(lambda events: len(events) == 3)
        assert sorted(told_late.events) == [("add", "a"), ("add", "b"), ("add", "c")]
        await toy.remove("default", "b")
        await told_late.until(lambda events: len(events) == 4)
        assert told_late.events[3:] == [("delete", "b")]
        assert told_first.events[-1:] == [("delete", "b")]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await toy.put(pod("d"))
        await told_first.until(lambda events: ("add", "d") in events)
        assert names(late) == ["a", "c"], "who has left is told nothing"


async def test_a_lost_position_is_made_up_by_one_list_for_all(toy: ToyServer, client: Client) -> None:
    await toy.put(pod("stays"))
    await toy.put(pod("goes"))
    feeds = Feeds()
    one, other = (Informer(client, "v1/pods", feeds=feeds) for _ in range(2))
    told = [Told(one), Told(other)]
    async with running_together(one, other):
        toy.break_watches()
        await toy.remove("default", "goes")
        await toy.put(pod("comes"))
        toy.compacted = toy.revision
        for each in told:
            await each.until(lambda events: len(events) == 4)
            assert sorted(each.events[2:]) == [("add", "comes"), ("delete", "goes")]
    assert len(watches(toy)) == 3, "the first, the refused and the one with the new list"


async def test_a_broken_connection_loses_and_repeats_nothing(toy: ToyServer, client: Client) -> None:
    feeds = Feeds()
    one, other = (Informer(client, "v1/pods", feeds=feeds) for _ in range(2))
    told = [Told(one), Told(other)]
    async with running(one):
        for index in range(3):
            toy.break_watches()
            await toy.put(pod(f"p{index}"))
        async with running(other):
            await told[1].until(lambda events: len(events) == 3)
            toy.break_watches()
            await toy.put(pod("p3"))
            for each in told:
                await each.until(lambda events: len(events) == 4)
                assert sorted(each.events) == [("add", f"p{index}") for index in range(4)]


async def test_each_selects_and_keeps_what_it_wants(toy: ToyServer, client: Client) -> None:
    await toy.put(pod("free"))
    await toy.put(pod("bound", "n1"))
    feeds = Feeds()
    everything = Informer(client, "v1/pods", feeds=feeds, transform=lambda obj, _: {"metadata": obj["metadata"]})
    bound = Informer(client, "v1/pods", field_selector="spec.nodeName!=", feeds=feeds)
    blue = Informer(client, "v1/pods", label_selector="color=blue", feeds=feeds)
    told, told_blue = Told(bound), Told(blue)
    async with running(everything), running(bound), running(blue):
        assert names(everything) == ["bound", "free"]
        assert (names(bound), names(blue)) == (["bound"], [])
        await toy.put(pod("free", "n1"))
        await toy.put(pod("bound"))
        await toy.put({**pod("painted"), "metadata": {**pod("painted")["metadata"], "labels": {"color": "blue"}}})
        await told_blue.until(lambda events: len(events) == 1)
        assert told.events == [("add", "bound"), ("add", "free"), ("delete", "bound")]
        assert (names(bound), names(blue)) == (["free"], ["painted"])
        assert [sorted(obj) for obj in everything.list()] == [["metadata"]] * 3
        assert bound.get("default", "free") is not None
    assert all("Selector" not in path for path in watches(toy))


async def test_one_alone_has_the_server_select(toy: ToyServer, client: Client) -> None:
    async with running(Informer(client, "v1/pods", field_selector="spec.nodeName!=", label_selector="a=b")):
        pass
    assert all("fieldSelector=spec.nodeName%21%3D" in path and "labelSelector=a%3Db" in path for path in watches(toy))


async def test_one_that_fails_hurts_nobody(toy: ToyServer, client: Client) -> None:
    def chokes(obj: Object, _kept: Object | None) -> Object:
        if obj["metadata"]["name"] == "poison":
            raise RuntimeError("poison")
        return obj

    feeds = Feeds()
    weak, strong = Informer(client, "v1/pods", feeds=feeds, transform=chokes), Informer(client, "v1/pods", feeds=feeds)
    told = Told(strong)
    task = asyncio.create_task(weak.run())
    async with running(strong):
        await asyncio.wait_for(weak.synced.wait(), 30)
        await toy.put(pod("poison"))
        await toy.put(pod("after"))
        await told.until(lambda events: ("add", "after") in events)
        assert told.events == [("add", "poison"), ("add", "after")]
        with pytest.raises(RuntimeError, match="poison"):
            await task
        assert names(weak) == []


async def test_who_is_refused_lets_the_next_one_ask(toy: ToyServer, client: Client) -> None:
    await toy.put(pod("a"))
    toy.refuse = [(403, {})]
    feeds = Feeds()
    async with Client(toy.url, user_agent="other") as other:
        one, two = Informer(client, "v1/pods", feeds=feeds), Informer(other, "v1/pods", feeds=feeds)
        async with running_together(one, two):
            assert (names(one), names(two)) == (["a"], ["a"])
            assert one.last_error is None


async def test_who_left_last_may_come_again(toy: ToyServer, client: Client) -> None:
    feeds = Feeds()
    async with running(Informer(client, "v1/pods", feeds=feeds)):
        await toy.put(pod("a"))
    await toy.put(pod("b"))
    again = Informer(client, "v1/pods", feeds=feeds)
    async with running(again):
        assert names(again) == ["a", "b"]


async def test_too_many_events_during_a_list_mean_another_one(
    toy: ToyServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "WAITING_MAX", 2)
    feeds = Feeds()
    first, late = (Informer(client, "v1/pods", feeds=feeds) for _ in range(2))
    told_first, told_late = Told(first), Told(late)
    async with running(first):
        toy.hang = asyncio.Event()
        task = asyncio.create_task(late.run())
        await toy.received(2)
        for index in range(8):
            await toy.put(pod(f"p{index}"))
            await told_first.until(lambda events, index=index: ("add", f"p{index}") in events)  # type: ignore[misc]
        toy.hang.set()
        await told_late.until(lambda events: len(events) == 8)
        await toy.put(pod("end"))
        await told_late.until(lambda events: ("add", "end") in events)
        assert len(told_late.events) == len(set(told_late.events)) == 9
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
