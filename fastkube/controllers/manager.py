"""The controller manager: chooses controllers, shares one set of informers among them, and leads before it works."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from fastkube.client import Client, Feeds, InformerFactory
from fastkube.client.discovery import Discovery, discover
from fastkube.client.events import EventRecorder
from fastkube.client.leader import LeaderElector
from fastkube.clock import Clock
from fastkube.controllers.builtin import ALIASES, CONTROLLERS, NOT_HERE, UNSUPPORTED
from fastkube.controllers.caches import Caches
from fastkube.controllers.node_ipam import pools_of
from fastkube.controllers.options import ControllerManagerOptions
from fastkube.controllers.pod_topics import TOPICS
from fastkube.controllers.runner import Controller, Engine, Facts, Runner
from fastkube.controllers.signing import Signers
from fastkube.controllers.transforms import TRANSFORMS
from fastkube.errors import ApiError

log = logging.getLogger(__name__)

NAME = "kube-controller-manager"
SYNC_TIMEOUT_S = 120.0
DISCOVERY_RETRY_S = 1.0


class Running(Protocol):
    """What the manager starts and stops: a Runner or an Engine."""

    def prepare(self) -> None: ...

    def start(self) -> None: ...

    async def stop(self) -> None: ...


def enabled(options: ControllerManagerOptions) -> list[str]:
    """The names that --controllers asks for; raises ValueError for one that does not exist."""
    wanted: set[str] = set()
    unwanted: set[str] = set()
    for text in options.controllers:
        name = text.removeprefix("-")
        name = ALIASES.get(name, name)
        left_out = text.startswith("-")
        if name in UNSUPPORTED and not left_out:
            raise ValueError(f"controllers: {name!r} is not supported")
        if name in NOT_HERE and not left_out:
            log.warning("%s does not run: %s", name, NOT_HERE[name])
        if name not in (*CONTROLLERS, *NOT_HERE, *UNSUPPORTED, "*"):
            raise ValueError(f"controllers: {name!r} is not in the list of known controllers")
        (unwanted if left_out else wanted).add(name)
    by_default = "*" in wanted
    return [
        name
        for name, controller in CONTROLLERS.items()
        if name not in unwanted and (name in wanted or (by_default and not controller.optional))
    ]


class ControllerManager:
    """All chosen controllers against one API server. `ready` is set once it reconciles, or stands by for leadership."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        options: ControllerManagerOptions | None = None,
        *,
        feeds: Feeds | None = None,
    ) -> None:
        """`feeds` are those of the process, where others follow the same resources."""
        self.options = options or ControllerManagerOptions()
        self.ready = asyncio.Event()
        self.running: dict[str, Running] = {}
        self._names = enabled(self.options)
        if self.options.allocate_node_cidrs:
            pools_of(self.options)  # a range that cannot be used is told at the start
        self._client = client
        self._clock = clock
        self._feeds = feeds
        self._factory: InformerFactory | None = None
        self._recorder: EventRecorder | None = None

    async def run(self) -> None:
        """Until cancelled; returns when leadership is lost, after which nothing is running any more."""
        if not self.options.leader_elect:
            await self._lead()
            return
        options = self.options
        if not options.leader_elect_resource_name:
            options = dataclasses.replace(options, leader_elect_resource_name=NAME)
        identity = f"{socket.gethostname()}_{os.urandom(8).hex()}"
        elector = LeaderElector(self._client, identity, options, self._clock)
        elector.on_standby = self.ready.set
        await elector.run(self._lead)

    async def _lead(self) -> None:
        try:
            await self.start()
            await asyncio.Event().wait()
        finally:
            await self.stop()

    async def start(self) -> None:
        """Returns when the informers have synced and the controllers work; raises TimeoutError if they cannot."""
        discovery = await self._discover()
        facts = Facts(self._root_ca(), Signers.of(self.options), discovery)
        self._factory = InformerFactory(self._client, transforms=TRANSFORMS, topics=TOPICS, feeds=self._feeds)
        self._recorder = EventRecorder(self._client, NAME, self._clock)
        caches = Caches(self._factory)
        for name in self._names:
            part = CONTROLLERS[name]
            missing = [resource for resource in _needs(part) if not discovery.serves(resource)]
            if missing:
                log.log(
                    logging.DEBUG if part.gated else logging.WARNING,
                    "%s is left out: the server does not serve %s",
                    name,
                    ", ".join(missing),
                )
                continue
            if isinstance(part, Controller):
                runner = Runner(part, self._client, caches, self._clock, self._recorder, self.options, facts)
                self.running[name] = runner
            else:
                self.running[name] = part(self._client, caches, self._clock, self._recorder, self.options, facts)
            self.running[name].prepare()
        self._factory.start()
        await self._factory.wait_synced(SYNC_TIMEOUT_S)
        self._recorder.start()
        for running in self.running.values():
            running.start()
        self.ready.set()

    async def stop(self) -> None:
        await asyncio.gather(*(running.stop() for running in self.running.values()))
        self.running.clear()
        if self._recorder is not None:
            await self._recorder.stop()
        if self._factory is not None:
            await self._factory.stop()

    async def _discover(self) -> Discovery:
        while True:
            try:
                return await discover(self._client)
            except ApiError as error:
                log.warning("the API server does not answer yet: %s", error.message)
                await asyncio.sleep(DISCOVERY_RETRY_S)  # in real time: it is the network that has to come up

    def _root_ca(self) -> str:
        if self.options.root_ca_file:
            return Path(self.options.root_ca_file).read_text()
        return self._client.connection.ca.decode("ascii")


def _needs(part: Controller | type[Engine]) -> Iterable[str]:
    return [watch.resource for watch in part.watches] if isinstance(part, Controller) else part.resources
