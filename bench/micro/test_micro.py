"""Times of single operations: python -m pytest bench/micro (pytest-benchmark compares with --benchmark-compare)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from bench.micro import subjects

_OPERATIONS = 50


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


@pytest.fixture(scope="module")
def opened(runner: asyncio.Runner) -> Iterator[tuple[Any, subjects.Requests]]:
    """A store and a server, for all benchmarks."""
    stack = contextlib.AsyncExitStack()

    async def enter() -> tuple[Any, subjects.Requests]:
        store = await stack.enter_async_context(subjects.open_store())
        return store, await stack.enter_async_context(subjects.server())

    yield runner.run(enter())
    runner.run(stack.aclose())


def _measure(benchmark: Callable[..., object], work: Callable[[], object]) -> None:
    benchmark.extra_info["operations"] = _OPERATIONS  # type: ignore[attr-defined]
    benchmark(work)


@pytest.mark.parametrize("name", subjects.CORES)
def test_core(benchmark: Callable[..., object], name: str) -> None:
    work = subjects.CORES[name]()
    _measure(benchmark, lambda: work(_OPERATIONS))


@pytest.mark.parametrize("name", subjects.STORE)
def test_store(benchmark: Callable[..., object], name: str, runner: asyncio.Runner, opened: Any) -> None:
    work = subjects.STORE[name](opened[0])
    _measure(benchmark, lambda: runner.run(work(_OPERATIONS)))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", subjects.REQUESTS)
def test_request(benchmark: Callable[..., object], name: str, runner: asyncio.Runner, opened: Any) -> None:
    work = subjects.REQUESTS[name](opened[1])
    _measure(benchmark, lambda: runner.run(work(_OPERATIONS)))  # type: ignore[arg-type]
