"""The Lease service."""

from __future__ import annotations

import asyncio

from fastkube.etcd import messages, refusals
from fastkube.etcd.channel import Channel
from fastkube.etcd.keys import PREFIX
from fastkube.etcd.messages import HeaderOnly, LeaseId, LeaseResponse
from fastkube.etcd.node import Answer, Later, Node
from fastkube.store import LeaseNotFound, StoreError

MIN_TTL_S = 2
"""etcd's at its default election timeout: no lease shall run out while a leader is elected."""

MAX_TTL_S = 9_000_000_000


class Leasing:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._store = node.store

    async def grant(self, request: messages.LeaseGrantRequest) -> LeaseResponse:
        if request.ttl > MAX_TTL_S:
            raise refusals.lease_ttl_too_large()
        ttl_s = max(request.ttl, MIN_TTL_S)
        lease = await self._store.lease_grant(ttl_s, request.id)
        return LeaseResponse(self._node.header(), lease, ttl_s)

    def revoke(self, request: LeaseId) -> Answer:
        if request.id <= 0:
            raise refusals.lease_not_found()
        node = self._node
        return Later(self._store.lease_revoke(request.id), lambda revision: HeaderOnly(node.header(revision)))

    async def time_to_live(self, request: messages.LeaseTimeToLiveRequest) -> messages.LeaseTimeToLiveResponse:
        await self._be_current()
        try:
            found = await self._store.lease_info(request.id)
        except LeaseNotFound:
            return messages.LeaseTimeToLiveResponse(self._node.header(), request.id, -1)
        keys = [key[len(PREFIX) :] for key in found.keys if key.startswith(PREFIX)] if request.keys else []
        return messages.LeaseTimeToLiveResponse(
            self._node.header(), request.id, int(found.left_s), found.granted_s, keys
        )

    async def leases(self, _: messages.Empty) -> messages.LeaseLeasesResponse:
        await self._be_current()
        return messages.LeaseLeasesResponse(self._node.header(), [LeaseId(lease) for lease in self._store.leases()])

    async def _be_current(self) -> None:
        barrier = self._store.read_barrier()
        if barrier is not None:
            await barrier

    async def keep_alive(self, lease: int) -> LeaseResponse:
        """A lease that is gone has no time left; that is no error."""
        try:
            ttl_s = await self._store.lease_keepalive(lease)
        except LeaseNotFound:
            ttl_s = 0
        return LeaseResponse(self._node.header(), lease, ttl_s)


class KeepAlives:
    """One stream of keepalives, each answered in its turn."""

    def __init__(self, leasing: Leasing, channel: Channel) -> None:
        self._leasing = leasing
        self._channel = channel
        self._waiting: asyncio.Queue[int | None] = asyncio.Queue()  # as much as a peer may send unread
        self._task = asyncio.get_running_loop().create_task(self._answer())

    def on_message(self, message: bytes) -> None:
        self._waiting.put_nowait(messages.LEASE_ID.decode(message).id)

    def on_end(self) -> None:
        self._waiting.put_nowait(None)

    def close(self) -> None:
        self._task.cancel()

    async def _answer(self) -> None:
        while (lease := await self._waiting.get()) is not None:
            try:
                answer = await self._leasing.keep_alive(lease)
            except StoreError as error:
                refusal = refusals.refusal_of(error)
                self._channel.refuse(refusal.code, refusal.text)
                return
            self._channel.send(messages.LEASE_RESPONSE.encode(answer))
            await self._channel.writable()
        self._channel.finish()
