"""Watches and subscriptions: every revision once, in order, whole, and with what was there before."""

from __future__ import annotations

import asyncio

import pytest

from fastkube.store import (
    DELETE,
    PUT,
    TO_THE_END,
    Compacted,
    Compare,
    Delete,
    Event,
    Item,
    Put,
    Store,
    Watcher,
    Write,
)


async def take(watcher: Watcher, count: int) -> list[Event]:
    """The next `count` events."""
    events: list[Event] = []
    while len(events) < count:
        events += await asyncio.wait_for(anext(watcher), 30)
    assert len(events) == count
    return events


async def write_some(store: Store) -> list[Event]:
    """Six revisions, 2 to 7, and the events they make."""
    await store.create(b"a", b"1")
    await store.update(b"a", b"2", 2)
    await store.create(b"b", b"1")
    await store.delete(b"a")
    await store.txn([], [Put(b"c", b"1"), Delete(b"b"), Put(b"a", b"3")])
    await store.create(b"d", b"1")
    a1, a2, b1 = Item(b"a", b"1", 2, 2, 1, 0), Item(b"a", b"2", 2, 3, 2, 0), Item(b"b", b"1", 4, 4, 1, 0)
    return [
        Event(PUT, b"a", b"1", 2, 2, 1, 0, None),
        Event(PUT, b"a", b"2", 3, 2, 2, 0, a1),
        Event(PUT, b"b", b"1", 4, 4, 1, 0, None),
        Event(DELETE, b"a", b"", 5, 0, 0, 0, a2),
        Event(PUT, b"c", b"1", 6, 6, 1, 0, None),
        Event(DELETE, b"b", b"", 6, 0, 0, 0, b1),
        Event(PUT, b"a", b"3", 6, 6, 1, 0, None),
        Event(PUT, b"d", b"1", 7, 7, 1, 0, None),
    ]


async def test_a_watch_from_now_sees_what_comes(store: Store) -> None:
    await store.create(b"0", b"before")
    await store.delete(b"0")
    watcher = store.watch(b"a", TO_THE_END)
    await store.create(b"A", b"outside")
    await store.create(b"x", b"inside")
    assert await take(watcher, 1) == [Event(PUT, b"x", b"inside", 5, 5, 1, 0, None)]


async def test_live_and_from_the_log_a_watch_sees_the_same(store: Store) -> None:
    live = store.watch(b"a", b"z")
    expected = await write_some(store)
    assert await take(live, 8) == expected
    assert await take(store.watch(b"a", b"z", 2), 8) == expected
    assert await take(store.watch(b"a", b"z", 5), 5) == expected[3:]
    assert await take(store.watch(b"b", None, 1), 2) == [expected[2], expected[5]]


async def test_a_watch_from_the_log_goes_on_live(store: Store) -> None:
    expected = await write_some(store)
    watcher = store.watch(b"a", b"z", 7)
    assert await take(watcher, 1) == expected[7:]
    await store.create(b"e", b"1")
    assert (await take(watcher, 1))[0].revision == 8


async def test_a_watch_of_a_future_revision_waits_for_it(store: Store) -> None:
    watcher = store.watch(b"a", b"z", 5)
    expected = await write_some(store)
    assert await take(watcher, 5) == expected[3:]


async def test_batches_hold_whole_revisions(store: Store) -> None:
    """Also when one revision is larger than the buffer and the watcher catches up in small steps."""
    for n in range(5):
        await store.txn([], [Put(b"k%d-%d" % (n, i), b"v") for i in range(7)])
    for first in (2, 0):
        watcher = store.watch(b"k", b"l", first, buffer=3)
        if not first:
            for n in range(5, 10):
                await store.txn([], [Put(b"k%d-%d" % (n, i), b"v") for i in range(7)])
        for expected in range(2, 7) if first else range(7, 12):
            batch = await asyncio.wait_for(anext(watcher), 30)
            assert [event.revision for event in batch] == [expected] * 7


async def test_a_slow_watcher_catches_up_from_the_log_and_is_live_again(store: Store) -> None:
    watcher = store.watch(b"k", b"l", buffer=10)
    futures = []
    for n in range(1000):
        futures.append(store.create(b"k%d" % n, b"v"))
        if n % 50 == 0:
            await asyncio.gather(*futures)
    await asyncio.gather(*futures)
    assert [event.revision for event in await take(watcher, 1000)] == list(range(2, 1002))
    assert watcher.revision == 1001
    await store.create(b"k", b"live")
    assert (await take(watcher, 1))[0].value == b"live"


async def test_writers_never_wait_for_a_watcher(store: Store) -> None:
    watcher = store.watch(b"k", b"l", buffer=10)
    await asyncio.wait_for(asyncio.gather(*(store.create(b"k%d" % n, b"v") for n in range(2000))), 30)
    assert watcher.revision == 1
    watcher.cancel()


async def test_a_slow_watcher_ends_only_when_compaction_passes_it(store: Store) -> None:
    slow = store.watch(b"k", b"l", buffer=5)
    kept = store.watch(b"k", b"l", buffer=5)
    for n in range(20):
        await store.create(b"k%d" % n, b"v")
    first = await take(kept, 5)  # its buffer; the rest is for the log to tell
    assert [event.revision for event in first] == [2, 3, 4, 5, 6]
    await store.compact(7, physical=True)
    assert [event.revision for event in await take(kept, 15)] == list(range(7, 22))
    assert [event.revision for event in await take(slow, 5)] == [2, 3, 4, 5, 6]
    await store.create(b"k", b"v")
    await store.compact(8)
    with pytest.raises(Compacted) as passed:
        await asyncio.wait_for(anext(slow), 30)
    assert passed.value.revision == 8
    with pytest.raises(StopAsyncIteration):
        await anext(slow)


async def test_a_watch_of_a_compacted_revision_is_refused(store: Store) -> None:
    expected = await write_some(store)
    await store.compact(4, physical=True)
    with pytest.raises(Compacted) as refusal:
        store.watch(b"a", b"z", 3)
    assert refusal.value.revision == 4
    assert await take(store.watch(b"a", b"z", 4), 6) == expected[2:]


async def test_an_idle_watcher_is_not_passed_by_compaction(store: Store) -> None:
    """It has seen everything, though nothing was for it; also when its first event overflows its buffer."""
    watcher = store.watch(b"z", None, buffer=1)
    revision = await store.create(b"a", b"0")
    for n in range(10):
        revision = await store.update(b"a", b"%d" % n, revision)
    assert watcher.revision == revision
    await store.compact(revision, physical=True)
    await store.write([Write(b"z", b"%d" % n) for n in range(5)])
    assert [event.value for event in await take(watcher, 5)] == [b"0", b"1", b"2", b"3", b"4"]


async def test_progress(store: Store) -> None:
    watcher = store.watch(b"a", b"b")
    assert watcher.revision == 1
    await store.create(b"x", b"1")
    assert watcher.revision == 2
    await store.create(b"a", b"1")
    await store.create(b"x2", b"1")
    assert watcher.revision == 2
    await take(watcher, 1)
    assert watcher.revision == 4


async def test_cancel_wakes_the_waiting_task(store: Store) -> None:
    watcher = store.watch(b"a", b"b")

    async def consume() -> list[Event]:
        return [event async for batch in watcher for event in batch]

    task = asyncio.create_task(consume())
    await asyncio.sleep(0)
    watcher.cancel()
    assert await asyncio.wait_for(task, 30) == []
    assert store.status().watchers == 0


async def test_a_waiting_task_that_is_cancelled_can_come_back(store: Store) -> None:
    watcher = store.watch(b"a", b"b")
    task = asyncio.create_task(anext(watcher))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await store.create(b"a", b"1")
    assert len(await take(watcher, 1)) == 1


async def test_closing_the_store_ends_its_watches(store: Store) -> None:
    watcher = store.watch(b"a", b"b")
    task = asyncio.create_task(anext(watcher, None))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    await store.close()
    assert await asyncio.wait_for(task, 30) is None


async def test_many_watches_see_only_their_own(store: Store) -> None:
    ranges = {
        (b"a", b"c"): [b"a", b"b"],
        (b"b", b"d"): [b"b", b"c"],
        (b"a", TO_THE_END): [b"a", b"b", b"c", b"d"],
        (b"c", None): [b"c"],
        (b"x", b"z"): [],
        (b"d", b"a"): [],
    }
    watchers = {pair: [store.watch(*pair), store.watch(*pair)] for pair in ranges}
    store.watch(b"a", b"c").cancel()
    await store.write([Write(key, b"1") for key in (b"a", b"b", b"c", b"d")])
    for pair, keys in ranges.items():
        for watcher in watchers[pair]:
            if keys:
                assert [event.key for event in await take(watcher, len(keys))] == keys
            assert watcher.revision == 5


async def test_subscriptions_are_called_after_each_commit_with_progress(store: Store) -> None:
    calls: list[tuple[list[bytes], int]] = []
    subscription = store.subscribe(
        b"a",
        b"b",
        lambda events, revision: calls.append(([event.key for event in events], revision)),
        always=True,
    )
    sparing: list[int] = []
    store.subscribe(b"a", b"b", lambda events, revision: sparing.append(len(events)))
    assert await store.create(b"a1", b"1") == 2
    await store.create(b"x", b"1")
    await asyncio.gather(store.create(b"a2", b"1"), store.create(b"y", b"1"), store.create(b"a3", b"1"))
    assert calls == [([b"a1"], 2), ([], 3), ([b"a2", b"a3"], 6)]
    subscription.cancel()
    await store.create(b"a4", b"1")
    assert len(calls) == 3
    assert sparing == [1, 2, 1]


async def test_a_subscriber_sees_the_store_at_the_revision_it_is_told(store: Store) -> None:
    seen: list[bool] = []
    store.subscribe(
        b"a",
        b"b",
        lambda events, revision: seen.append(
            store.revision == revision and all(store.get(event.key) is not None for event in events)
        ),
    )
    await asyncio.gather(*(store.create(b"a%d" % n, b"1") for n in range(100)))
    assert seen
    assert all(seen)


async def test_a_watch_begun_in_a_subscription_neither_misses_nor_repeats(store: Store) -> None:
    watchers: list[Watcher] = []
    store.subscribe(b"a", b"b", lambda events, revision: watchers.append(store.watch(b"a", b"b")))
    await store.create(b"a1", b"1")
    await store.create(b"a2", b"1")
    assert [event.key for event in await take(watchers[0], 1)] == [b"a2"]


async def test_a_failing_subscriber_is_reported_and_does_no_harm(store: Store) -> None:
    reports: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    calls: list[int] = []

    def fail(events: list[Event], revision: int) -> None:
        raise RuntimeError("no")

    store.subscribe(b"a", b"b", fail, always=True)
    store.subscribe(b"a", b"c", lambda events, revision: calls.append(revision))
    assert await store.create(b"a", b"1") == 2
    await store.create(b"b", b"1")
    assert calls == [2, 3]
    assert [str(report["exception"]) for report in reports] == ["no", "no"]


async def test_refused_writes_make_no_events(store: Store) -> None:
    await store.create(b"a", b"1")
    watcher = store.watch(b"a", b"z")
    await store.txn([Compare(b"a", "mod", "=", 9)], [Put(b"a", b"2")], [Put(b"b", b"1")])
    assert [event.key for event in await take(watcher, 1)] == [b"b"]
