"""The whole control plane in one event loop, on one clock: for tests, and for `fastkube up --clock manual`.

With a `ManualClock` time stands still until `clock.advance`, and goes on from one wake-up to the next only when all
that the last one set off has come to rest: a CronJob's day or a back-off takes as long as its work
does. What upstream renews every few seconds to be noticed when it dies (node leases, elections) is renewed rarely then,
unless its option is given: nothing dies of time that did not pass.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastkube.clock import Clock, ManualClock, RealClock
from fastkube.cluster import Server, StartError, StoreOptions, UpOptions
from fastkube.components import Components
from fastkube.config import build
from fastkube.initial import Contents

if TYPE_CHECKING:
    from fastkube.client import Client

SELDOM: Mapping[str, tuple[Any, Any]] = {
    "leader_elect": (True, False),
    "node_lease_duration_seconds": (40, 4 * 3600),
    "node_monitor_period_s": (5.0, 600.0),
    "node_monitor_grace_period_s": (50.0, 5 * 3600.0),
    "node_startup_grace_period_s": (60.0, 5 * 3600.0),
}
"""Options whose default (the first) gives way to another under a manual clock."""


class Embedded:
    """Server and components between `start` and the end of the `running` block. `values` are the options of `up`."""

    def __init__(self, values: Mapping[str, Any], *, scheduler: bool, controllers: bool, nodes: bool) -> None:
        up = build(UpOptions, dict(values))
        self.clock: Clock = ManualClock() if up.clock == "manual" else RealClock()
        self._values = dict(values)
        if up.clock == "manual":
            for name, (default, seldom) in SELDOM.items():
                if self._values.get(name, default) == default:
                    self._values[name] = seldom
        self._scheduler, self._controllers, self._nodes = scheduler, controllers, nodes
        self.server: Server
        self.names: list[str] = []

    @contextlib.asynccontextmanager
    async def running(self, kubeconfig: Path | None = None) -> AsyncIterator[asyncio.Task[None]]:
        """Once entered everything is ready. The task ends only by a failure of a component. Raises StartError."""
        from fastkube.controllers.options import ControllerManagerOptions
        from fastkube.etcd.options import EtcdListenOptions
        from fastkube.nodes.options import FleetOptions
        from fastkube.scheduler.options import SchedulerOptions
        from fastkube.server.options import ServerOptions

        values = self._values
        contents = Contents(build(UpOptions, values), build(StoreOptions, values))
        self.server = Server(
            build(StoreOptions, values),
            build(ServerOptions, values),
            self.clock,
            etcd_listen=build(EtcdListenOptions, values),
        )
        async with contextlib.AsyncExitStack() as stack:
            await self.server.start()
            stack.push_async_callback(self.server.stop)
            self.server.api.write_kubeconfig(kubeconfig or self.server.data_dir / "kubeconfig")
            if isinstance(self.clock, ManualClock):
                self.clock.attach(lambda: bool(self.server.api.running))
            await contents.restore(self.server)
            values = self.server.for_components(values)
            parts = Components(
                self._client,
                self.clock,
                scheduler=build(SchedulerOptions, values) if self._scheduler else None,
                controllers=build(ControllerManagerOptions, values) if self._controllers else None,
                fleet=build(FleetOptions, values) if self._nodes else None,
                again=True,
            )
            try:
                work = await stack.enter_async_context(parts.running())
            except ValueError as error:
                raise StartError(str(error)) from error
            self.names = parts.names
            await contents.load(self.server)
            yield work

    def _client(self, user: str) -> Client:
        from fastkube.client import Client

        server = self.server
        agent = user.rpartition(":")[2]
        token = server.tokens[user]
        client = Client(server.internal_url, token=token, clock=self.clock, user_agent=agent, batch=True)
        if isinstance(self.clock, ManualClock):
            self.clock.attach(lambda: client.busy)
        return client
