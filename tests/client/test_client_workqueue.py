"""The promises of the work queue, with time driven by hand."""

from __future__ import annotations

import asyncio

import pytest

from fastkube.client import ShutDown, WorkQueue
from fastkube.clock import ManualClock


async def test_items_are_handed_out_once_and_in_order() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for item in ("a", "b", "a", "c", "b"):
        queue.add(item)
    assert [await queue.get() for _ in range(3)] == ["a", "b", "c"]
    assert queue.get_nowait() is None
    assert queue.adds == 3


async def test_an_item_is_never_in_two_hands() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a")
    assert queue.get_nowait() is None
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert queue.idle


async def test_workers_wait_and_are_all_woken_by_shutdown() -> None:
    queue: WorkQueue[str] = WorkQueue()
    workers = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.add("a")
    done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result() for task in done] == ["a"]
    queue.shut_down()
    results = await asyncio.gather(*workers, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["ShutDown", "ShutDown", "str"]


async def test_what_waits_at_shutdown_is_still_handed_out() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.shut_down()
    queue.add("b")
    assert await queue.get() == "a"
    with pytest.raises(ShutDown):
        await queue.get()


async def test_a_cancelled_worker_passes_its_turn_on() -> None:
    queue: WorkQueue[str] = WorkQueue()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    async with asyncio.timeout(30):
        assert await second == "a"


async def test_delays_keep_the_earliest_time() -> None:
    clock = ManualClock(0)
    queue: WorkQueue[str] = WorkQueue(clock)
    queue.add_after("late", 10)
    queue.add_after("soon", 5)
    queue.add_after("late", 2)
    queue.add_after("soon", 30)
    await asyncio.sleep(0)
    await clock.advance(2)
    assert queue.get_nowait() == "late"
    assert queue.get_nowait() is None
    await clock.advance(3)
    assert queue.get_nowait() == "soon"
    await clock.advance(100)
    assert queue.get_nowait() is None
    queue.shut_down()


async def test_back_off_doubles_until_forgotten() -> None:
    clock = ManualClock(0)
    queue: WorkQueue[str] = WorkQueue(clock, base_delay_s=1, delay_max_s=4)
    waited = []
    for _ in range(4):
        queue.add_rate_limited("a")
        await asyncio.sleep(0)
        seconds = 0
        while queue.get_nowait() is None:
            await clock.advance(1)
            seconds += 1
        queue.done("a")
        waited.append(seconds)
    assert waited == [1, 2, 4, 4]
    assert queue.requeues("a") == 4
    queue.forget("a")
    assert queue.requeues("a") == 0
    queue.shut_down()
