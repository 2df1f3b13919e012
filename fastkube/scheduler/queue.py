"""The scheduling queue: which Pod is tried next, and which ones wait for what.

    active          ready to be tried, by priority and then by time (or as the profile's queue sort plugin says)
    backing off     tried in vain, or failed by an error; ready when the back-off is over
    unschedulable   refused; wait for an event that may help, and are tried anyway after five minutes
    gated           kept out by a pre-enqueue plugin (scheduling gates); not tried whatever happens

The rules:
  1. A Pod is in exactly one place: one of the four, or in flight between `pop` and `done` or `add_unschedulable`.
  2. An event moves a refused Pod only if one of the plugins that refused it says that the event can help it.
  3. Events that come while a Pod is in flight are remembered: when it turns out to be unschedulable, they are weighed
     as if they had come afterwards, so that no event is lost.
  4. A Pod that was moved out of the unschedulable ones still serves its back-off, which starts at podInitialBackoff and
     doubles with each refusal up to podMaxBackoff. When nothing is active the one that is due first is taken early;
     not so after an error (a refused binding), which would only be repeated. Errors in a row are counted on their own.
  5. Back-offs end in windows of a second, and within one the most important Pod comes first.

The queue holds no timers: `flush` moves what is due, and is best called when a window begins.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastkube.clock import Clock
from fastkube.scheduler.events import UNSCHEDULED_POD, WILDCARD, Action, ClusterEvent
from fastkube.scheduler.pods import PodInfo
from fastkube.scheduler.profile import Profile

ACTIVE, BACKOFF, UNSCHEDULABLE, GATED, IN_FLIGHT = "active", "backoff", "unschedulable", "gated", "in flight"
FAILED = "failed"
"""Backing off after an error."""
WINDOW_S = 1.0
"""Back-offs end together that end within the same window."""
ATTEMPT_FAILED = "ScheduleAttemptFailure"


class QueuedPod:
    """A Pod in the queue, and how it fared so far."""

    __slots__ = (
        "attempts",
        "errors",
        "first_attempt",
        "gated_by",
        "pending",
        "pod",
        "refusals",
        "refused_by",
        "since_event",
        "state",
        "ticket",
        "timestamp",
        "was_flushed",
        "why_gated",
    )

    def __init__(self, pod: PodInfo, now: float) -> None:
        self.pod = pod
        self.timestamp = now
        self.state = ""
        self.ticket = 0
        """Which entry of a heap is the valid one: moving a Pod leaves stale entries behind."""
        self.attempts = 0
        self.refusals = 0
        self.errors = 0
        """Attempts in a row that broke on an error."""
        self.first_attempt: float | None = None
        """When it could be tried for the first time."""
        self.refused_by: frozenset[str] = frozenset()
        self.pending = False
        """The plugin that refused acts on its own: no back-off once that has helped."""
        self.gated_by = ""
        self.why_gated = ""
        self.was_flushed = False
        """It was tried without cause, for having been unschedulable for long."""
        self.since_event = 0
        """Events numbered from here on came while the Pod was in flight."""


_METRIC_QUEUES = {FAILED: BACKOFF, GATED: UNSCHEDULABLE}

_Group = tuple[str, frozenset[str]]
"""Scheduler name and the plugins that refused: an event that none of them waits for passes all Pods of the group."""


class SchedulingQueue:
    """`profiles` by scheduler name. `moved(event label, where to)` is told of each Pod that enters a queue.

    `weighed(seconds, event label)` is told of each event that was weighed for all Pods.
    """

    def __init__(
        self,
        profiles: Mapping[str, Profile],
        clock: Clock,
        *,
        initial_backoff_s: float = 1.0,
        max_backoff_s: float = 10.0,
        max_unschedulable_s: float = 300.0,
        moved: Callable[[str, str], None] = lambda event, queue: None,
        weighed: Callable[[float, str], None] = lambda seconds, event: None,
    ) -> None:
        self._profiles = profiles
        self._clock = clock
        self._initial_backoff_s = initial_backoff_s
        self._max_backoff_s = max_backoff_s
        self._max_unschedulable_s = max_unschedulable_s
        self._moved = moved
        self._weighed = weighed
        self._pods: dict[str, QueuedPod] = {}
        self._active: list[tuple[Any, int, QueuedPod]] = []
        self._backoff: list[tuple[Any, int, QueuedPod]] = []
        self._failed: list[tuple[Any, int, QueuedPod]] = []
        self._unschedulable: dict[str, QueuedPod] = {}
        self._groups: dict[_Group, dict[str, QueuedPod]] = {}
        self._gated: dict[str, QueuedPod] = {}
        self._active_count = 0
        self._backoff_count = 0
        self._failed_count = 0
        self._in_flight: dict[str, QueuedPod] = {}
        self._events: deque[tuple[int, ClusterEvent]] = deque()
        self._event_number = 0
        self._tickets = itertools.count(1)
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._pods)

    def counts(self) -> dict[str, int]:
        """How many Pods are where."""
        return {
            ACTIVE: self._active_count,
            BACKOFF: self._backoff_count + self._failed_count,
            UNSCHEDULABLE: len(self._unschedulable),
            GATED: len(self._gated),
        }

    def refused(self) -> dict[tuple[str, ...], float]:
        """How many Pods each plugin of a profile has refused or keeps out, until they are tried again."""
        alike = Counter(
            (each.pod.spec.scheduler_name, each.refused_by, each.gated_by)
            for each in self._pods.values()
            if (each.refused_by or each.gated_by) and each.state != IN_FLIGHT
        )
        found: dict[tuple[str, ...], float] = {}
        for (scheduler, plugins, gate), count in alike.items():
            for plugin in plugins | {gate} if gate else plugins:
                found[plugin, scheduler] = found.get((plugin, scheduler), 0) + count
        return found

    def remembered(self) -> dict[tuple[str, ...], float]:
        """How many events of each kind are kept for Pods in flight."""
        return dict(Counter((event.label,) for _, event in self._events))

    def get(self, uid: str) -> QueuedPod | None:
        return self._pods.get(uid)

    # -- Pods coming, changing, going ----------------------------------------------------------------------------------

    def add(self, pod: PodInfo) -> None:
        """A Pod that has no node."""
        if pod.uid in self._pods:
            return
        queued = self._pods[pod.uid] = QueuedPod(pod, self._clock.monotonic())
        self._enqueue(queued, ACTIVE, "UnscheduledPodAdd")

    def update(self, pod: PodInfo, event: ClusterEvent) -> None:
        """A Pod without a node has changed; `event.action` says what of it matters."""
        queued = self._pods.get(pod.uid)
        if queued is None:
            self.add(pod)
            return
        old, queued.pod = queued.pod, pod
        if queued.state == ACTIVE and old.spec is not pod.spec:
            self._enqueue(queued, ACTIVE, "")  # the priority may be another one
        elif queued.state == GATED or (queued.state == UNSCHEDULABLE and event.action and self._wakes(queued, event)):
            self._requeue(queued, event.label)
        elif queued.state == IN_FLIGHT and event.action:
            self._remember(event)

    def remove(self, uid: str) -> QueuedPod | None:
        """The Pod is gone, or was bound by somebody else."""
        queued = self._pods.pop(uid, None)
        if queued is not None:
            self._leave(queued)
            self._in_flight.pop(uid, None)
        return queued

    def activate(self, uids: Iterable[str]) -> None:
        """Try these Pods as soon as possible."""
        for uid in uids:
            queued = self._pods.get(uid)
            if queued is not None and queued.state in (UNSCHEDULABLE, BACKOFF, FAILED, GATED):
                self._enqueue(queued, ACTIVE, "ForceActivate")

    # -- trying --------------------------------------------------------------------------------------------------------

    def pop_nowait(self) -> QueuedPod | None:
        """The next Pod, in flight from now on. One that backs off is better than none."""
        queued = self._take(self._active, ACTIVE)
        if queued is None:
            queued = self._take(self._backoff, BACKOFF)
            if queued is None:
                return None
            self._moved("PopFromBackoffQ", ACTIVE)
        return self._fly(queued)

    def _fly(self, queued: QueuedPod) -> QueuedPod:
        self._leave(queued)
        queued.state = IN_FLIGHT
        queued.attempts += 1
        queued.since_event = self._event_number
        self._in_flight[queued.pod.uid] = queued
        return queued

    def take(self, uid: str) -> QueuedPod | None:
        """A certain Pod, in flight from now on; None when it is in flight already, or kept out."""
        self.activate((uid,))
        queued = self._pods.get(uid)
        return self._fly(queued) if queued is not None and queued.state == ACTIVE else None

    def ready(self) -> bool:
        """Whether there is a Pod to pop."""
        return bool(self._active_count or self._backoff_count)

    async def changed(self) -> None:
        """Until a Pod has entered any queue since the last call: then there may be one to pop."""
        await self._wake.wait()
        self._wake.clear()

    @staticmethod
    def _take(heap: list[tuple[Any, int, QueuedPod]], state: str) -> QueuedPod | None:
        while heap:
            _, ticket, queued = heapq.heappop(heap)
            if queued.ticket == ticket and queued.state == state:
                return queued
        return None

    def done(self, uid: str) -> None:
        """The Pod is placed, or not to be tried any more."""
        self._in_flight.pop(uid, None)
        self._pods.pop(uid, None)
        self._forget_events()

    def add_unschedulable(self, queued: QueuedPod, refused_by: Iterable[str], *, pending: bool = False) -> None:
        """The attempt has found no node: these plugins refused; none did when there were no nodes.

        `pending`: the plugin acts on its own. A Pod that was `done` already was refused on its way to a node: events
        were not remembered for it any more, so it is tried again after the back-off.
        """
        queued.refused_by = frozenset(refused_by)
        queued.pending = pending
        if queued.refused_by:
            queued.refusals += 1
            queued.errors = 0
        else:
            queued.errors += 1
        again = queued.pod.uid not in self._in_flight or self._missed_event(queued)
        self._land(queued)
        if again:
            self._requeue(queued, ATTEMPT_FAILED)
        else:
            self._put(queued, UNSCHEDULABLE, ATTEMPT_FAILED)

    def add_failed(self, queued: QueuedPod) -> None:
        """The attempt broke on an error (the API server refused the binding): again after the back-off."""
        queued.refused_by = frozenset()
        queued.pending = False
        queued.errors += 1
        self._land(queued)
        self._enqueue(queued, FAILED if self._backs_off(queued) else ACTIVE, ATTEMPT_FAILED)

    def _land(self, queued: QueuedPod) -> None:
        """Back from an attempt."""
        self._pods[queued.pod.uid] = queued
        queued.timestamp = self._clock.monotonic()
        queued.was_flushed = False
        if self._in_flight.pop(queued.pod.uid, None) is not None:
            self._forget_events()

    # -- events --------------------------------------------------------------------------------------------------------

    def move_all(self, event: ClusterEvent, *, but: str = "") -> None:
        """Something happened: Pods that it may help are tried again. `but` is the uid of a Pod to leave alone."""
        started = self._clock.monotonic()
        self._move_all(event, but)
        self._weighed(self._clock.monotonic() - started, event.label)

    def _move_all(self, event: ClusterEvent, but: str) -> None:
        if self._in_flight:
            self._remember(event)
        for (scheduler, plugins), group in list(self._groups.items()):
            if plugins and not self._profiles[scheduler].waits_for(plugins, event):
                continue
            for queued in list(group.values()):
                if queued.pod.uid != but and self._wakes(queued, event):
                    self._requeue(queued, event.label)
        for queued in list(self._gated.values()):
            self._reconsider_gate(queued, event)

    def _reconsider_gate(self, queued: QueuedPod, event: ClusterEvent) -> None:
        profile = self._profiles[queued.pod.spec.scheduler_name]
        if profile.wakes(queued.pod, (queued.gated_by,), event):
            self._requeue(queued, event.label)

    def _wakes(self, queued: QueuedPod, event: ClusterEvent) -> bool:
        if not queued.refused_by:  # not refused by a plugin (there were no nodes): anything may help
            return True
        return self._profiles[queued.pod.spec.scheduler_name].wakes(queued.pod, queued.refused_by, event)

    def _remember(self, event: ClusterEvent) -> None:
        self._event_number += 1
        self._events.append((self._event_number, event))

    def _missed_event(self, queued: QueuedPod) -> bool:
        """Whether an event came while the Pod was in flight that can help it."""
        for number, event in reversed(self._events):
            if number <= queued.since_event:
                break
            if self._wakes(queued, event):
                return True
        return False

    def _forget_events(self) -> None:
        """Nobody needs events older than the oldest Pod in flight."""
        if not self._in_flight:
            self._events.clear()
            return
        oldest = next(iter(self._in_flight.values())).since_event  # they are in the order in which they took off
        while self._events and self._events[0][0] <= oldest:
            self._events.popleft()

    # -- time ----------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Move Pods whose back-off is over, and those that have been unschedulable for long."""
        now = self._clock.monotonic()
        window = _window(now)
        for heap, state in ((self._backoff, BACKOFF), (self._failed, FAILED)):
            while heap and heap[0][0][0] < window:
                _, ticket, queued = heapq.heappop(heap)
                if queued.ticket == ticket and queued.state == state:
                    self._put(queued, ACTIVE, "BackoffComplete")
        timeout = ClusterEvent(WILDCARD, Action.ALL)
        for queued in list(self._unschedulable.values()):
            if now - queued.timestamp < self._max_unschedulable_s:  # the rest came later
                break
            queued.was_flushed = True
            self._requeue(queued, timeout.label)

    # -- moving --------------------------------------------------------------------------------------------------------

    def _requeue(self, queued: QueuedPod, why: str) -> None:
        """Out of the unschedulable or gated ones: into back-off while that lasts."""
        self._enqueue(queued, BACKOFF if not queued.pending and self._backs_off(queued) else ACTIVE, why)

    def _backs_off(self, queued: QueuedPod) -> bool:
        return self._backoff_end(queued) >= _window(self._clock.monotonic())

    def _backoff_end(self, queued: QueuedPod) -> float:
        """The window at whose end a Pod may be tried again, counted from its last attempt."""
        count = queued.errors or queued.refusals
        if not count or not self._max_backoff_s:
            return -math.inf
        delay = self._initial_backoff_s * 2.0 ** min(count - 1, 32)
        return _window(queued.timestamp + min(delay, self._max_backoff_s))

    def _enqueue(self, queued: QueuedPod, state: str, why: str) -> None:
        """Into a queue that Pods are popped from, unless a pre-enqueue plugin keeps the Pod out."""
        for plugin in self._profiles[queued.pod.spec.scheduler_name].pre_enqueue:
            message = plugin.pre_enqueue(queued.pod)
            if message is not None:
                queued.gated_by, queued.why_gated = plugin.name, message
                self._put(queued, GATED, why)
                return
        queued.gated_by = queued.why_gated = ""
        self._put(queued, state, why)

    def _put(self, queued: QueuedPod, state: str, why: str) -> None:
        if queued.state:
            if queued.state in (UNSCHEDULABLE, GATED) and state in (UNSCHEDULABLE, GATED):
                why = ""  # one queue, as metrics have it
            self._leave(queued)
        uid = queued.pod.uid
        queued.state = state
        queued.ticket = next(self._tickets)
        if state == ACTIVE:
            if queued.first_attempt is None:
                queued.first_attempt = self._clock.monotonic()
            key = self._profiles[queued.pod.spec.scheduler_name].sort_key(queued.pod, queued.timestamp)
            heapq.heappush(self._active, (key, queued.ticket, queued))
            self._active_count += 1
        elif state == BACKOFF:
            key = self._profiles[queued.pod.spec.scheduler_name].sort_key(queued.pod, queued.timestamp)
            key = self._backoff_end(queued), key
            heapq.heappush(self._backoff, (key, queued.ticket, queued))
            self._backoff_count += 1
        elif state == FAILED:
            heapq.heappush(self._failed, ((self._backoff_end(queued),), queued.ticket, queued))
            self._failed_count += 1
        elif state == UNSCHEDULABLE:
            self._unschedulable[uid] = queued
            self._groups.setdefault(_group_of(queued), {})[uid] = queued
        else:
            self._gated[uid] = queued
        self._wake.set()
        if why:
            self._moved(why, state if state == ACTIVE else _METRIC_QUEUES.get(state, state))

    def _leave(self, queued: QueuedPod) -> None:
        """Out of wherever the Pod is; entries in heaps go stale."""
        if queued.state == ACTIVE:
            self._active_count -= 1
        elif queued.state == BACKOFF:
            self._backoff_count -= 1
        elif queued.state == FAILED:
            self._failed_count -= 1
        elif queued.state == UNSCHEDULABLE:
            del self._unschedulable[queued.pod.uid]
            group = self._groups[_group_of(queued)]
            del group[queued.pod.uid]
            if not group:
                del self._groups[_group_of(queued)]
        elif queued.state == GATED:
            del self._gated[queued.pod.uid]
        queued.state = ""


def _window(moment: float) -> float:
    """When the window of a moment began."""
    return moment - moment % WINDOW_S


def _group_of(queued: QueuedPod) -> _Group:
    return queued.pod.spec.scheduler_name, queued.refused_by


def self_event(action: Action, old: PodInfo, new: PodInfo) -> ClusterEvent:
    """A Pod without a node has changed."""
    return ClusterEvent(UNSCHEDULED_POD, action, old, new)
