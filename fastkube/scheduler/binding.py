"""The binding cycle: what happens to a Pod after its node is chosen, many Pods at a time.

    reserve and permit (in the scheduling cycle) → wait for permission → pre-bind → bind → post-bind
    any failure → unreserve → forget → the Pod goes back into the queue

Most Pods need nothing before binding: what was decided in one turn is sent together, and no task waits for the answers
(`bind_nowait`), of which so many may be outstanding. A Pod that must wait (for permission, for a volume) has a task of
its own, so that nobody waits behind it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastkube.client import Client
from fastkube.clock import Clock, go_duration
from fastkube.errors import ApiError
from fastkube.scheduler.extenders import ExtenderError, Extenders
from fastkube.scheduler.framework import BindingFailed, Cycle, Plugin, Rejected
from fastkube.scheduler.metrics import SUCCESS, Metrics
from fastkube.scheduler.nodes import NodeInfo
from fastkube.scheduler.pods import PodInfo
from fastkube.scheduler.profile import Profile
from fastkube.scheduler.queue import QueuedPod

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Binding:
    """A Pod on its way to its node."""

    queued: QueuedPod
    cycle: Cycle
    profile: Profile
    node: NodeInfo
    started: float
    permits: dict[str, float]
    """Plugin → seconds to wait for its permission at most."""
    nominated: bool = False
    """Its status says where it is expected."""

    @property
    def pod(self) -> PodInfo:
        return self.cycle.pod


class Refused(Exception):
    """Binding did not come about. `plugin` refused the Pod (its name, empty for an error)."""

    def __init__(self, message: str, plugin: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.plugin = plugin


class WaitingPod:
    """A Pod that permit plugins keep waiting. Plugins allow it one by one, or reject it."""

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        self._pending = dict(binding.permits)
        self._answer: asyncio.Future[tuple[str, str] | None] = asyncio.get_running_loop().create_future()

    def allow(self, plugin: str) -> None:
        self._pending.pop(plugin, None)
        if not self._pending and not self._answer.done():
            self._answer.set_result(None)

    def reject(self, plugin: str, message: str) -> None:
        if not self._answer.done():
            self._answer.set_result((plugin, message))

    async def wait(self, clock: Clock) -> None:
        """Raises Refused. Each plugin that has not allowed the Pod has its own patience."""
        waited = 0.0
        while not self._answer.done():
            plugin = min(self._pending, key=self._pending.__getitem__)
            patience = self._pending[plugin]
            timeout = asyncio.ensure_future(clock.sleep(patience - waited))
            try:
                await asyncio.wait((timeout, self._answer), return_when=asyncio.FIRST_COMPLETED)
            finally:
                timeout.cancel()
            waited = patience
            if not self._answer.done() and plugin in self._pending:
                raise Refused(
                    f"rejected due to timeout after waiting {go_duration(patience)} at plugin {plugin}", plugin
                )
        told = self._answer.result()
        if told is not None:
            plugin, message = told
            raise Refused(message, plugin)


class Binder:
    """Binds what it is given. `bound(binding)` and `failed(binding, Refused)` are told how it went.

    `permitted(binding)` is told when a Pod that had to wait for permission need not wait any more.
    """

    def __init__(
        self,
        client: Client,
        clock: Clock,
        in_flight_max: int,
        *,
        extenders: Extenders,
        metrics: Metrics,
        permitted: Callable[[Binding], None],
        bound: Callable[[Binding], None],
        failed: Callable[[Binding, Refused], None],
    ) -> None:
        self.waiting: dict[str, WaitingPod] = {}
        """Pods that wait for permission, by uid."""
        self._preparing: dict[str, asyncio.Future[None]] = {}
        """What pre-bind plugins do, by uid of the Pod."""
        self.under_way = 0
        self._client = client
        self._clock = clock
        self._in_flight = 0
        self._in_flight_max = in_flight_max
        self._extenders = extenders
        self._metrics = metrics
        self._permitted = permitted
        self._bound = bound
        self._failed = failed
        self._queue: deque[Binding] = deque()
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Bindings that have not been sent are dropped; the API server has the truth."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._over(len(self._queue))
        self._queue.clear()

    async def idle(self) -> None:
        """Until nothing is under way."""
        await self._idle.wait()

    def put(self, binding: Binding) -> None:
        self.under_way += 1
        self._idle.clear()
        if binding.permits:
            self.waiting[binding.pod.uid] = WaitingPod(binding)
        if binding.permits or self._pre_binders(binding):
            self._begin(binding)
        else:
            self._queue.append(binding)
            self._advance()

    def _advance(self) -> None:
        """Send what waits, as far as there is room for it."""
        while self._queue and self._in_flight < self._in_flight_max:
            binding = self._queue.popleft()
            self._in_flight += 1
            bind_nowait = binding.profile.bind_nowait
            if bind_nowait is None or self._extenders.about(binding.pod):
                self._begin(binding).add_done_callback(self._landed)
            else:
                answered = partial(self._answered, binding, binding.profile.timing.now())
                bind_nowait(binding.pod, binding.node.name, answered)

    def _begin(self, binding: Binding) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._carry_out(binding), name="bind")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._in_flight -= 1
        self._advance()

    def _answered(self, binding: Binding, started: float, error: ApiError | None) -> None:
        """The server's word on what `bind_nowait` has sent."""
        self._in_flight -= 1
        timing, plugin = binding.profile.timing, binding.profile.bind[0].name
        if binding.cycle.sampled:
            timing.plugin("Bind", plugin, started, SUCCESS if error is None else "Error")
        try:
            if error is None:
                timing.point("Bind", started)
                self._bound(binding)
            else:
                self._failed(binding, _broken("Bind", plugin, error))
        except Exception:
            log.exception("the end of binding pod %s broke", binding.pod.key)
        self._over(1)
        self._advance()

    def _over(self, count: int) -> None:
        self.under_way -= count
        if not self.under_way:
            self._idle.set()

    @staticmethod
    def _pre_binders(binding: Binding) -> list[Plugin]:
        """Those that have noted something to do for this Pod, and those that note nothing."""
        state = binding.cycle.state
        return [plugin for plugin in binding.profile.pre_bind if not plugin.notes_pre_bind or plugin.name in state]

    async def _carry_out(self, binding: Binding) -> None:
        try:
            waiting = self.waiting.get(binding.pod.uid)
            pre_binders = self._pre_binders(binding)
            if waiting is not None or pre_binders:
                await self._tell_expected(binding)
            if waiting is not None:
                await self._wait(waiting)
                self._permitted(binding)
            timing = binding.profile.timing
            started = timing.now()
            if pre_binders:
                for plugin in pre_binders:
                    doing = self._until_cancelled(binding.pod.uid, plugin.pre_bind(binding.cycle, binding.node))
                    await self._step(binding, "PreBind", plugin, doing)
                started = timing.point("PreBind", started)
            await self._bind(binding)
            timing.point("Bind", started)
        except Refused as refused:
            self._failed(binding, refused)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("binding pod %s broke", binding.pod.key)
            self._failed(binding, Refused(f"internal error: {type(error).__name__}"))
        else:
            self._bound(binding)
        finally:
            self.waiting.pop(binding.pod.uid, None)
            self._over(1)

    async def _until_cancelled(self, uid: str, doing: Coroutine[Any, Any, None]) -> None:
        """Raises BindingFailed when `cancel` ends it."""
        work = self._preparing[uid] = asyncio.ensure_future(doing)
        try:
            await work
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is None or task.cancelling():  # all ends
                raise
            raise BindingFailed(str(cancelled)) from None
        finally:
            del self._preparing[uid]

    def cancel(self, uid: str, reason: str) -> bool:
        """End what pre-bind plugins do for a Pod, which goes back into the queue; False when they do nothing for it."""
        work = self._preparing.get(uid)
        return work is not None and work.cancel(reason)

    async def _tell_expected(self, binding: Binding) -> None:
        """Binding will take a while: others see where the Pod is going, and it comes back there after a restart."""
        pod, node = binding.pod, binding.node.name
        if pod.nominated == node:
            return
        body = {"metadata": {"uid": pod.uid}, "status": {"nominatedNodeName": node}}
        try:
            await self._client.patch(
                "v1/pods", pod.name, body, pod.namespace, kind="strategic", subresource="status", brief=True
            )
            binding.nominated = True
        except ApiError as error:
            log.warning("pod %s could not be nominated to %s: %s", pod.key, node, error.message)

    async def _wait(self, waiting: WaitingPod) -> None:
        """Raises Refused."""
        started = self._clock.monotonic()
        result = "Unschedulable"
        try:
            await waiting.wait(self._clock)
            result = SUCCESS
        finally:
            self.waiting.pop(waiting.binding.pod.uid, None)
            self._metrics.permit_wait.observe(self._clock.monotonic() - started, result)

    async def _bind(self, binding: Binding) -> None:
        """An extender that binds such Pods, or the first bind plugin that does not pass the Pod on."""
        try:
            if self._extenders.about(binding.pod) and await self._extenders.bind(binding.pod, binding.node.name):
                return
        except ExtenderError as error:
            raise Refused(str(error)) from error
        for plugin in binding.profile.bind:
            bind = plugin.bind(binding.pod, binding.node.name)  # type: ignore[attr-defined]
            if await self._step(binding, "Bind", plugin, bind) is not False:
                return
        raise Refused("no bind plugin has bound the pod")

    @staticmethod
    async def _step(binding: Binding, point: str, plugin: Plugin, doing: Any) -> Any:
        timing = binding.profile.timing
        started, status = timing.now(), SUCCESS
        try:
            return await doing
        except Rejected as rejected:
            status = rejected.status
            raise Refused(rejected.message, plugin.name) from None
        except (ApiError, BindingFailed) as error:
            status = "Error"
            raise _broken(point, plugin.name, error) from error
        finally:
            if binding.cycle.sampled:
                timing.plugin(point, plugin.name, started, status)


def _broken(point: str, plugin: str, error: Exception) -> Refused:
    return Refused(f'running {point} plugin "{plugin}": {error}')
