"""The one runner of all controllers: informers → keys in a work queue → view → reconcile → actions performed.

A controller is data: what it watches, how a change becomes keys, a `view` that gathers from the caches what concerns a
key, and a pure `reconcile` from that view to actions. Everything else is here, once:

  * One key is never reconciled by two workers at a time, and never forgotten (the work queue's promise).
  * Own writes are in the caches before the next attempt of any key (Informer.observe), which is what client-go's
    expectations are for: nothing is created or deleted twice because an echo has not come yet.
  * A failed attempt is repeated with exponential back-off; a conflict (somebody wrote in between) as well, quietly.
  * A key whose reconcile is costly is looked at less often: it may use a PACE-th of the time. A ReplicaSet of 5,000
    Pods, changing with each of them, is so reconciled some ten times a second instead of 5,000 times in all.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from fastkube.client import Client, ShutDown, Unreachable, WorkQueue, object_key
from fastkube.client.discovery import Discovery
from fastkube.client.events import EventRecorder
from fastkube.clock import Clock
from fastkube.controllers.actions import Action, Ask, Discover, Review
from fastkube.controllers.caches import Caches
from fastkube.controllers.options import ControllerManagerOptions
from fastkube.controllers.perform import Failed, Performer, Stopped
from fastkube.controllers.signing import Signers
from fastkube.errors import ApiError

log = logging.getLogger(__name__)

Object = dict[str, Any]
Keys = Callable[[Caches, Object], Iterable[str]]

PACE = 10
PACED_FROM_S = 0.001
ASKS_MAX = 5
"""A reconcile that asks again and again is a mistake, not a question."""


def itself(_caches: Caches, obj: Object) -> Iterable[str]:
    """The key of the object that changed."""
    return (object_key(obj),)


def nothing(_caches: Caches, _obj: Object) -> Iterable[str]:
    """For resources which are read but do not trigger."""
    return ()


@dataclass(frozen=True, slots=True)
class Watch:
    """A resource that a controller reads, and how its changes become keys (for updates: of the old and the new)."""

    resource: str
    keys: Keys = itself
    indexes: tuple[str, ...] = ()
    changed: Callable[[Object, Object], bool] | None = None
    """Whether an update matters; all do unless this says otherwise."""
    additions: bool = True
    """Whether a new object matters."""
    updates: bool = True
    """Whether a changed one does."""
    about: tuple[int, ...] = ()
    """Sets of topics (pod_topics.py), of each of which a change must have one to matter; empty: any change may."""
    sign_of_life: Callable[[Object], object] | None = None
    """What of an object shows that its owner is alive: when it last changed is in `caches.life`."""


class Facts(NamedTuple):
    """What the manager learnt at its start and views may need: texts of files, what the server serves."""

    root_ca: str = ""
    signers: Signers = Signers()
    discovery: Discovery = Discovery([], {})


class Context(NamedTuple):
    """What a view is made from."""

    caches: Caches
    now: float
    """Wall time in seconds."""
    options: ControllerManagerOptions
    facts: Facts
    memory: dict[str, Any]
    """What earlier attempts asked to be remembered."""


@dataclass(frozen=True, slots=True)
class Controller:
    """A controller, as data. `view` gives None when there is nothing to reconcile for a key any more."""

    name: str
    """As in upstream's --controllers."""
    watches: tuple[Watch, ...]
    view: Callable[[Context, str], Any]
    reconcile: Callable[[Any], Sequence[Action]]
    workers: str = ""
    """The option which says how many keys may be in work at a time; `parallel`, if empty."""
    parallel: int = 1
    """More than one where the keys have nothing to do with each other."""
    keys: tuple[str, ...] = ()
    """Keys to reconcile at the start, for controllers which look at the whole rather than at objects."""
    resync: str = ""
    """The option which says how often all known keys are looked at again."""
    any_deletion: Keys | None = None
    """Keys for the deletion of an object of whichever resource is watched by any controller."""
    component: str = ""
    """Who tells events; the name, if empty."""
    optional: bool = False
    """Off unless it is named in --controllers."""
    gated: bool = False
    """The server serves what it needs only with a feature gate: without, nothing is said."""


class Engine(ABC):
    """A controller which does not fit the form of keys and views: the garbage collector, whose object is the graph."""

    name: ClassVar[str]
    """As in upstream's --controllers."""
    resources: ClassVar[tuple[str, ...]] = ()
    """What the server must serve."""
    optional: ClassVar[bool] = False
    gated: ClassVar[bool] = False

    def __init__(
        self,
        client: Client,
        caches: Caches,
        clock: Clock,
        recorder: EventRecorder,
        options: ControllerManagerOptions,
        facts: Facts,
    ) -> None:
        self._client = client
        self._caches = caches
        self._clock = clock
        self._recorder = recorder
        self._options = options
        self._facts = facts

    @abstractmethod
    def prepare(self) -> None:
        """Subscribe to the informers; they start afterwards."""

    @abstractmethod
    def start(self) -> None:
        """Begin to work: the informers have synced."""

    @abstractmethod
    async def stop(self) -> None: ...


@dataclass(slots=True)
class Counts:
    """What a runner has done, for metrics."""

    reconciled: int = 0
    failed: int = 0
    busy_s: float = 0.0


class Runner:
    """Runs one controller."""

    def __init__(
        self,
        controller: Controller,
        client: Client,
        caches: Caches,
        clock: Clock,
        recorder: EventRecorder,
        options: ControllerManagerOptions,
        facts: Facts,
    ) -> None:
        self.controller = controller
        self.queue: WorkQueue[str] = WorkQueue(clock, name=controller.name)
        self.counts = Counts()
        self._caches = caches
        self._clock = clock
        self._options = options
        self._facts = facts
        self._performer = Performer(client, caches, recorder, controller.component or controller.name)
        self._rests: dict[str, float] = {}
        self._woken_later: set[str] = set()
        self._workers_max: int = getattr(options, controller.workers) if controller.workers else controller.parallel
        self._workers: list[asyncio.Task[None]] = []
        self._resyncing: asyncio.Task[None] | None = None

    def prepare(self) -> None:
        """Subscribe to the informers; they start afterwards."""
        for watch in self.controller.watches:
            self._subscribe(watch)
        if (keys := self.controller.any_deletion) is not None:
            self._caches.on_delete(lambda obj: self._add(keys(self._caches, obj)))

    def _add(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.queue.add(key)

    def _subscribe(self, watch: Watch) -> None:
        informer = self._caches.need(watch.resource, watch.indexes)
        if watch.sign_of_life is not None:
            self._caches.note_life(watch.resource, watch.sign_of_life, self._clock)
        if watch.keys is nothing:
            return

        def one(obj: Object) -> None:
            self._add(watch.keys(self._caches, obj))

        def both(old: Object, new: Object) -> None:
            keys = watch.keys(self._caches, new)
            before = watch.keys(self._caches, old) if watch.keys is not itself else keys
            if not (keys or before) or (watch.changed is not None and not watch.changed(old, new)):
                return
            self._add(keys)
            if before != keys:
                self._add(before)

        informer.add_handler(one if watch.additions else None, both if watch.updates else None, one, about=watch.about)

    def start(self) -> None:
        """Begin to reconcile: the informers have synced."""
        for key in self.controller.keys:
            self.queue.add(key)
        self._start_worker()
        if self.controller.resync:
            self._resyncing = asyncio.get_running_loop().create_task(
                self._resync(), name=f"{self.controller.name} resync"
            )

    def _start_worker(self) -> None:
        name = f"{self.controller.name} {len(self._workers)}"
        self._workers.append(asyncio.get_running_loop().create_task(self._work(), name=name))

    async def stop(self) -> None:
        """End after the requests that are under way."""
        self.queue.shut_down()
        tasks = [*self._workers, *([self._resyncing] if self._resyncing is not None else ())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._workers, self._resyncing = [], None

    async def _resync(self) -> None:
        triggers = [watch for watch in self.controller.watches if watch.keys is not nothing]
        while True:
            await self._clock.sleep(getattr(self._options, self.controller.resync))
            for watch in triggers:
                for obj in self._caches.list(watch.resource):
                    self._add(watch.keys(self._caches, obj))
            self._add(self.controller.keys)

    async def _work(self) -> None:
        while True:
            try:
                key = await self.queue.get()
            except ShutDown:
                return
            if len(self.queue) and len(self._workers) < self._workers_max:
                self._start_worker()  # not before there is work for it: most controllers never need a second
            try:
                if not self._resting(key):
                    await self._attempt(key)
            finally:
                self.queue.done(key)

    def _resting(self, key: str) -> bool:
        """Whether the key has used its share of time; it is then queued for when it may be looked at again."""
        until = self._rests.get(key)
        if until is None:
            return False
        left = until - time.monotonic()
        if left <= 0:
            del self._rests[key]
            return False
        if key not in self._woken_later:
            self._woken_later.add(key)
            asyncio.get_running_loop().call_later(left, self._wake, key)
        return True

    def _wake(self, key: str) -> None:
        self._woken_later.discard(key)
        self._rests.pop(key, None)
        self.queue.add(key)

    async def _attempt(self, key: str) -> None:
        try:
            again = await self._reconcile(key)
        except Stopped:
            self.queue.forget(key)
        except (ApiError, Failed) as error:
            self._retry(key, error)
        except Exception:
            log.exception("%s: %s", self.controller.name, key)
            self.counts.failed += 1
            self.queue.add_rate_limited(key)
        else:
            self.queue.forget(key)
            if again is not None:
                self.queue.add_after(key, again)

    def _retry(self, key: str, error: ApiError | Failed) -> None:
        self.counts.failed += 1
        expected = isinstance(error, ApiError) and error.code in (404, 409) and not isinstance(error, Unreachable)
        log.log(logging.DEBUG if expected else logging.WARNING, "%s: %s: %s", self.controller.name, key, error)
        self.queue.add_rate_limited(key)

    async def answer(self, asks: Sequence[Action]) -> dict[str, Any]:
        """What the server says to the questions of a reconcile."""
        return await self._performer.ask(asks)

    async def _reconcile(self, key: str) -> float | None:
        """One attempt; the seconds after which to look again."""
        controller = self.controller
        started = time.perf_counter()
        context = Context(self._caches, self._clock.time(), self._options, self._facts, self._performer.memory)
        view = controller.view(context, key)
        if view is None:
            self._performer.memory.pop(key, None)
            return None
        actions = controller.reconcile(view)
        elapsed = time.perf_counter() - started
        self.counts.reconciled += 1
        self.counts.busy_s += elapsed
        if elapsed > PACED_FROM_S:
            self._rests[key] = time.monotonic() + elapsed * PACE
        for _ in range(ASKS_MAX):
            if not actions or not isinstance(actions[0], Ask | Discover | Review):
                return await self._performer.perform(actions)
            view = view._replace(live={**view.live, **await self.answer(actions)})
            actions = controller.reconcile(view)
        raise RuntimeError(f"{controller.name} asks without end: {actions[0]}")
