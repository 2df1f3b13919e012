"""Leader election through a Lease: of several instances of a component one works and the others stand by.

Source: client-go's leaderelection; timings, fields and rules are its own, so that both kinds may share one Lease:
  1. Whoever writes its identity into a free, released or expired Lease leads. The resourceVersion decides races.
  2. Expiry is measured on the own monotonic clock from when the record was last seen to change: wall clocks may differ.
  3. The leader renews every `retry_period_s`; when it has not managed to for `renew_deadline_s` it stops leading,
     which is before anyone else may start (`renew_deadline_s` < `lease_duration_s`, checked).
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable
from typing import Any

from fastkube.client.client import Client
from fastkube.client.leader_options import JITTER, LeaderElectionOptions
from fastkube.clock import Clock, rfc3339_micro
from fastkube.errors import ApiError

log = logging.getLogger(__name__)

Object = dict[str, Any]

LEASES = "coordination.k8s.io/v1/leases"


class LeaderElector:
    """One candidate. `run` returns when leadership is lost or it is cancelled, never silently goes on."""

    def __init__(self, client: Client, identity: str, options: LeaderElectionOptions, clock: Clock) -> None:
        if not identity or not options.leader_elect_resource_name:
            raise ValueError("a candidate needs an identity and the name of a Lease")
        self.identity = identity
        self.leader = ""
        """Who leads, as last seen."""
        self.on_standby: Callable[[], None] | None = None
        """Called once, when another leads and this one begins to wait."""
        self._client = client
        self._options = options
        self._clock = clock
        self._lease: Object | None = None
        self._seen_at = -math.inf

    @property
    def leading(self) -> bool:
        return self.leader == self.identity

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Wait for leadership, then run `lead` until it ends or leadership is lost, when it is cancelled.

        The Lease is released at the end, once `lead` has stopped, so that another candidate need not wait.
        """
        await self._acquire()
        log.info("%s leads %s", self.identity, self._options.leader_elect_resource_name)
        work = asyncio.ensure_future(lead())
        renewal = asyncio.ensure_future(self._renew())
        try:
            await asyncio.wait({work, renewal}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (renewal, work):
                task.cancel()
            await asyncio.gather(renewal, work, return_exceptions=True)
            await self._release()
        if work.done() and not work.cancelled() and (failure := work.exception()) is not None:
            raise failure

    async def _acquire(self) -> None:
        while not await self._try():
            if self.on_standby is not None:
                self.on_standby()
                self.on_standby = None
            pause = self._options.leader_elect_retry_period_s
            await self._clock.sleep(pause * random.uniform(1.0, 1.0 + JITTER))

    async def _renew(self) -> None:
        """Returns when the deadline has passed without a renewal, or another leads."""
        renewed = self._clock.monotonic()
        while True:
            await self._clock.sleep(self._options.leader_elect_retry_period_s)
            left = renewed + self._options.leader_elect_renew_deadline_s - self._clock.monotonic()
            try:
                async with asyncio.timeout(max(left, 0.0)):
                    held = await self._try()
            except TimeoutError:
                held = False
            now = self._clock.monotonic()
            if held:
                renewed = now
            elif not self.leading or now - renewed >= self._options.leader_elect_renew_deadline_s:
                log.error("%s lost %s", self.identity, self._options.leader_elect_resource_name)
                return

    async def _try(self) -> bool:
        """Take or keep the Lease; False when another holds it, or the server does not answer."""
        try:
            if self.leading and self._lease is not None and not self._expired():
                try:
                    return await self._write(self._lease)
                except ApiError as error:
                    if error.code != 409:
                        raise
            return await self._take_or_look()
        except ApiError as error:
            log.warning("leader election for %s: %s", self._options.leader_elect_resource_name, error.message)
            return False

    async def _take_or_look(self) -> bool:
        try:
            lease = await self._read()
        except ApiError as error:
            if error.code != 404:
                raise
            return await self._create()
        if self._lease is None or lease["metadata"]["resourceVersion"] != self._lease["metadata"]["resourceVersion"]:
            self._see(lease)
        if self.leader and not self.leading and not self._expired():
            return False
        return await self._write(lease)

    def _see(self, lease: Object) -> None:
        self._lease = lease
        self._seen_at = self._clock.monotonic()
        holder = str(lease.get("spec", {}).get("holderIdentity") or "")
        if holder != self.leader:
            self.leader = holder
            log.info("the leader of %s is %s", self._options.leader_elect_resource_name, holder or "nobody")

    def _expired(self) -> bool:
        duration = (self._lease or {}).get("spec", {}).get("leaseDurationSeconds") or 0
        return self._clock.monotonic() >= self._seen_at + float(duration)

    async def _create(self) -> bool:
        options = self._options
        now = rfc3339_micro(self._clock.time())
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": options.leader_elect_resource_name,
                "namespace": options.leader_elect_resource_namespace,
            },
            "spec": self._spec(now, now, 0),
        }
        self._see(await self._client.create(LEASES, lease, options.leader_elect_resource_namespace))
        return True

    async def _write(self, lease: Object) -> bool:
        spec = lease.get("spec", {})
        now = rfc3339_micro(self._clock.time())
        transitions = int(spec.get("leaseTransitions") or 0)
        if spec.get("holderIdentity") == self.identity:
            new = self._spec(spec.get("acquireTime") or now, now, transitions)
        else:
            new = self._spec(now, now, transitions + 1)
        self._see(await self._client.update(LEASES, {**lease, "spec": {**spec, **new}}))
        return True

    def _spec(self, acquired: str, renewed: str, transitions: int) -> Object:
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": math.ceil(self._options.leader_elect_lease_duration_s),
            "acquireTime": acquired,
            "renewTime": renewed,
            "leaseTransitions": transitions,
        }

    async def _release(self) -> None:
        if not self.leading or self._lease is None:
            return
        try:
            async with asyncio.timeout(self._options.leader_elect_retry_period_s):
                try:
                    await self._give_up(self._lease)
                except ApiError as error:
                    if error.code != 409:
                        raise
                    # a renewal was cut off: it may have been written without having been answered
                    await self._give_up(await self._read())
        except (ApiError, TimeoutError) as error:
            log.warning("%s could not be released: %s", self._options.leader_elect_resource_name, error)

    async def _read(self) -> Object:
        options = self._options
        return await self._client.get(
            LEASES, options.leader_elect_resource_name, options.leader_elect_resource_namespace
        )

    async def _give_up(self, lease: Object) -> None:
        self.leader = ""
        if lease["spec"].get("holderIdentity") != self.identity:
            return
        now = rfc3339_micro(self._clock.time())
        spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": now, "acquireTime": now}
        await self._client.update(LEASES, {**lease, "spec": spec})
