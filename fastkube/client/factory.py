"""A component's informers: one for each resource and selection, for everybody in it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from fastkube.client.client import Client
from fastkube.client.feed import Feeds, Transform
from fastkube.client.informer import Informer, Topics, drop_managed_fields
from fastkube.client.resource import Resource


class InformerFactory:
    """One informer per resource for everybody in a component.

    `transforms` say, by resource, what is kept of each object; resources without one lose only managedFields. `topics`
    say, by resource, what changes are about. `feeds` are those of the process, where others follow the same resources.
    """

    def __init__(
        self,
        client: Client,
        *,
        transforms: Mapping[str, Transform] | None = None,
        topics: Mapping[str, Topics] | None = None,
        feeds: Feeds | None = None,
    ) -> None:
        self.client = client
        self._feeds = feeds
        self._transforms = dict(transforms or {})
        self._topics = dict(topics or {})
        self._informers: dict[tuple[str, str, str, str], Informer] = {}
        self._tasks: dict[tuple[str, str, str, str], asyncio.Task[None]] = {}
        self._started = False

    def informer(
        self,
        resource: str | Resource,
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        transform: Transform | None = None,
    ) -> Informer:
        """The shared informer; one that is asked for after `start` is started at once.

        `transform` is for a resource which has none of the factory's own, and counts for who asks first.
        """
        key = (str(resource), namespace, label_selector, field_selector)
        informer = self._informers.get(key)
        if informer is None:
            informer = self._informers[key] = Informer(
                self.client,
                resource,
                namespace=namespace,
                label_selector=label_selector,
                field_selector=field_selector,
                transform=self._transforms.get(str(resource), transform or drop_managed_fields),
                topics=self._topics.get(str(resource)),
                feeds=self._feeds,
            )
            if self._started:
                self._run(key)
        return informer

    async def forget(self, resource: str | Resource) -> None:
        """Stop the informers of a resource that is no longer served."""
        for key in [key for key in self._informers if key[0] == str(resource)]:
            del self._informers[key]
            task = self._tasks.pop(key, None)
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def start(self) -> None:
        self._started = True
        for key in self._informers:
            if key not in self._tasks:
                self._run(key)

    def _run(self, key: tuple[str, str, str, str]) -> None:
        self._tasks[key] = asyncio.get_running_loop().create_task(self._informers[key].run(), name=f"informer {key[0]}")

    async def wait_synced(self, timeout_s: float = 60.0) -> None:
        """Until all informers have their first copy; TimeoutError names those that have not, and why."""
        waiting = [asyncio.ensure_future(informer.synced.wait()) for informer in self._informers.values()]
        if not waiting:
            return
        _, pending = await asyncio.wait(waiting, timeout=timeout_s)
        for task in pending:
            task.cancel()
        if pending:
            late = [informer for informer in self._informers.values() if not informer.synced.is_set()]
            told = ", ".join(
                f"{informer.resource} ({informer.last_error.message if informer.last_error else 'no answer'})"
                for informer in late
            )
            raise TimeoutError(f"informers have not synced within {timeout_s:g} seconds: {told}")

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        self._started = False
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
