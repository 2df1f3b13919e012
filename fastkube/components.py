"""Scheduler, controllers and simulated nodes, as many as are wanted, wired together in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from fastkube.clock import Clock
from fastkube.cluster import StartError

if TYPE_CHECKING:
    from fastkube.client import Client
    from fastkube.controllers.options import ControllerManagerOptions
    from fastkube.nodes.options import FleetOptions
    from fastkube.scheduler.options import SchedulerOptions

READY_TIMEOUT_S = 60.0
NODE_TIMEOUT_S = 0.05
"""A node takes some writes until it is registered; thousands of them on a busy machine take more than a minute."""


class Components:
    """Scheduler, controllers and simulated nodes: those whose options are given, in this event loop.

    `make_client` gives each its own client, since each is a user of its own. What several of them follow is watched
    once, as one of these users.
    """

    def __init__(
        self,
        make_client: Callable[[str], Client],
        clock: Clock,
        *,
        scheduler: SchedulerOptions | None = None,
        controllers: ControllerManagerOptions | None = None,
        fleet: FleetOptions | None = None,
        again: bool = False,
    ) -> None:
        """`again`: who loses its leadership stands for it once more, where nobody else would start it again."""
        self._make_client = make_client
        self._again = again
        self._clock = clock
        self._scheduler, self._controllers, self._fleet = scheduler, controllers, fleet

    @property
    def names(self) -> list[str]:
        """What runs, in words."""
        found = ["scheduler"] * (self._scheduler is not None) + ["controllers"] * (self._controllers is not None)
        if self._fleet is not None and self._fleet.nodes:
            found.append(f"{self._fleet.nodes} simulated node{'s' * (self._fleet.nodes != 1)}")
        if self._fleet is not None and self._fleet.node_template:
            found.append(f"simulated nodes after {', '.join(self._fleet.node_template)}")
        return found

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """Starts them all; once entered they are ready. The task ends only by a failure of one of them."""
        async with contextlib.AsyncExitStack() as stack:
            made = []
            for user, make in self._parts():
                client = self._make_client(user)
                stack.push_async_callback(client.close)
                made.append((make(client), partial(make, client)))
            # none begins before all could be made: what an option forbids is found in making them
            works = [asyncio.ensure_future(self._work(part, another)) for part, another in made]
            waits = [asyncio.ensure_future(part.ready.wait()) for part, _ in made]
            whole = asyncio.ensure_future(_all(works))
            started = asyncio.gather(*waits)
            try:
                nodes = self._fleet.nodes if self._fleet is not None else 0
                timeout_s = READY_TIMEOUT_S + nodes * NODE_TIMEOUT_S
                await asyncio.wait((started, whole), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
                if whole.done():
                    await whole
                if not started.done():
                    raise StartError(f"components were not ready within {timeout_s:.0f} s")
                yield whole
            finally:
                self._again = False
                for task in (whole, *works, *waits):
                    task.cancel()
                await asyncio.gather(whole, started, *works, *waits, return_exceptions=True)

    async def _work(self, part: Any, another: Callable[[], Any]) -> None:
        """Run a part; it ends when it has lost its leadership."""
        await part.run()
        while self._again:
            await another().run()

    def _parts(self) -> list[tuple[str, Callable[[Client], Any]]]:
        from fastkube.client import Feeds

        parts: list[tuple[str, Callable[[Client], Any]]] = []
        # one that is alone has the server select what it follows
        feeds = (
            Feeds() if sum(each is not None for each in (self._scheduler, self._controllers, self._fleet)) > 1 else None
        )
        if self._fleet is not None:
            from fastkube.nodes.fleet import Fleet

            fleet = self._fleet
            parts.append(("fastkube:nodes", lambda client: Fleet(client, self._clock, fleet, feeds=feeds)))
        if self._scheduler is not None:
            from fastkube.scheduler.scheduler import Scheduler

            scheduler = self._scheduler
            parts.append(
                ("system:kube-scheduler", lambda client: Scheduler(client, self._clock, scheduler, feeds=feeds))
            )
        if self._controllers is not None:
            from fastkube.controllers.manager import ControllerManager

            controllers = _with_storage(self._controllers, self._fleet)
            parts.append(
                (
                    "system:kube-controller-manager",
                    lambda client: ControllerManager(client, self._clock, controllers, feeds=feeds),
                )
            )
        return parts


def _with_storage(controllers: ControllerManagerOptions, fleet: FleetOptions | None) -> ControllerManagerOptions:
    """Simulated nodes have simulated storage, unless it is left out."""
    if fleet is None or not (fleet.nodes or fleet.node_template) or "-simulated-provisioner" in controllers.controllers:
        return controllers
    return dataclasses.replace(controllers, controllers=(*controllers.controllers, "simulated-provisioner"))


async def _all(works: Sequence[asyncio.Future[None]]) -> None:
    """Ends with the first failure of any; where there are none, with the caller."""
    if not works:
        await asyncio.Event().wait()
    await asyncio.gather(*works)
