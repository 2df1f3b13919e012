"""The Lock and Election services: etcd's recipes on keys that live as long as their owner's lease.

Whoever asks puts a key under the name, and owns the name when no key under it is older than its own.
"""

from __future__ import annotations

import asyncio
import contextlib

from fastkube.etcd import messages, refusals
from fastkube.etcd.channel import Channel
from fastkube.etcd.keys import bounds, shown, stored
from fastkube.etcd.messages import HeaderOnly, LeaderKey
from fastkube.etcd.node import Node
from fastkube.store import DELETE, Compare, Delete, Item, Put, PutResponse, Range, StoreError, grpc, prefix_end

SESSION_TTL_S = 60
"""Of the lease of one who brings none."""


class _Claim:
    """A key of one's own under a name."""

    def __init__(self, key: bytes, revision: int) -> None:
        self.key = key  # as it is stored
        self.revision = revision


class Recipes:
    """What both services are made of."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._store = node.store

    async def claim(self, name: bytes, lease: int, value: bytes) -> tuple[_Claim, int]:
        """Own the name, however long that takes; with the lease."""
        if not lease:
            lease = await self._store.lease_grant(SESSION_TTL_S)
        prefix = stored(name + b"/")
        key = prefix + b"%x" % lease
        made = await self._store.txn((Compare(key, "create", "=", 0),), (Put(key, value, lease),), (Range(key),))
        if made.succeeded:
            claim = _Claim(key, made.revision)
        else:
            found = made.responses[0]
            assert not isinstance(found, PutResponse)
            claim = _Claim(key, found.items[0].create_revision)  # type: ignore[union-attr]
            if found.items[0].value != value:  # type: ignore[union-attr]
                await self._store.put(key, value, lease)
        try:
            await self._until_oldest(prefix, claim.revision)
        except BaseException:
            with contextlib.suppress(StoreError):
                await asyncio.shield(self._store.txn((), (Delete(key),)))
            raise
        return claim, lease

    async def _until_oldest(self, prefix: bytes, revision: int) -> None:
        end = prefix_end(prefix)
        while True:
            if (barrier := self._store.read_barrier()) is not None:
                await barrier
            older = [item for item in self._store.scan(prefix, end) if item.create_revision < revision]
            if not older:
                return
            last = max(older, key=lambda item: item.create_revision)
            await self._until_deleted(last.key)

    async def _until_deleted(self, key: bytes) -> None:
        watcher = self._store.watch(key, None)
        try:
            async for events in watcher:
                if any(event.type == DELETE for event in events):
                    return
        finally:
            watcher.cancel()

    def owner(self, name: bytes) -> Item | None:
        prefix = stored(name + b"/")
        found = self._store.scan(prefix, prefix_end(prefix))
        return min(found, key=lambda item: item.create_revision, default=None)


class Locks:
    def __init__(self, node: Node, recipes: Recipes) -> None:
        self._node = node
        self._recipes = recipes

    async def lock(self, request: messages.LockRequest) -> messages.LockResponse:
        claim, _ = await self._recipes.claim(request.name, request.lease, b"")
        item = self._node.store.get(claim.key)
        if item is None or item.create_revision != claim.revision:
            raise refusals.Refusal(grpc.UNKNOWN, "mutex: session is expired")
        return messages.LockResponse(self._node.header(), claim.key[1:])

    async def unlock(self, request: messages.UnlockRequest) -> HeaderOnly:
        if not request.key:
            raise refusals.empty_key()
        result = await self._node.store.txn((), (Delete(stored(request.key)),))
        return HeaderOnly(self._node.header(result.revision))


class Elections:
    def __init__(self, node: Node, recipes: Recipes) -> None:
        self._node = node
        self._recipes = recipes

    async def campaign(self, request: messages.CampaignRequest) -> messages.CampaignResponse:
        claim, lease = await self._recipes.claim(request.name, request.lease, request.value)
        leader = LeaderKey(request.name, claim.key[1:], claim.revision, lease)
        return messages.CampaignResponse(self._node.header(), leader)

    async def proclaim(self, request: messages.ProclaimRequest) -> HeaderOnly:
        leader = _sound(request.leader)
        key = stored(leader.key)
        held = Compare(key, "create", "=", leader.rev)
        result = await self._node.store.txn((held,), (Put(key, request.value, leader.lease),))
        if not result.succeeded:
            raise refusals.Refusal(grpc.UNKNOWN, "election: not leader")
        return HeaderOnly(self._node.header(result.revision))

    async def leader(self, request: messages.LeaderRequest) -> messages.LeaderResponse:
        if (barrier := self._node.store.read_barrier()) is not None:
            await barrier
        found = self._recipes.owner(request.name)
        if found is None:
            raise refusals.Refusal(grpc.UNKNOWN, "election: no leader")
        return messages.LeaderResponse(self._node.header(), shown(found))

    async def resign(self, request: messages.ResignRequest) -> HeaderOnly:
        leader = _sound(request.leader)
        key = stored(leader.key)
        held = Compare(key, "create", "=", leader.rev)
        result = await self._node.store.txn((held,), (Delete(key),))
        return HeaderOnly(self._node.header(result.revision))


class Observation:
    """One stream that is told of each leader, and of each value that a leader proclaims."""

    def __init__(self, node: Node, recipes: Recipes, channel: Channel) -> None:
        self._node = node
        self._recipes = recipes
        self._channel = channel
        self._task: asyncio.Task[None] | None = None

    def on_message(self, message: bytes) -> None:
        if self._task is None:
            name = messages.LEADER_REQUEST.decode(message).name
            self._task = asyncio.get_running_loop().create_task(self._observe(name))

    def on_end(self) -> None:
        """It has asked; now it reads."""

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _observe(self, name: bytes) -> None:
        store = self._node.store
        watcher = store.watch(*bounds(name + b"/", prefix_end(name + b"/")))
        told = 0
        try:
            while True:
                found = self._recipes.owner(name)
                if found is not None and found.mod_revision != told:
                    told = found.mod_revision
                    answer = messages.LeaderResponse(self._node.header(), shown(found))
                    self._channel.send(messages.LEADER_RESPONSE.encode(answer))
                    await self._channel.writable()
                await anext(watcher)
        except StopAsyncIteration:
            self._channel.finish()
        except StoreError as error:
            refusal = refusals.refusal_of(error)
            self._channel.refuse(refusal.code, refusal.text)
        finally:
            watcher.cancel()


def _sound(leader: LeaderKey | None) -> LeaderKey:
    if leader is None:
        raise refusals.Refusal(grpc.UNKNOWN, '"leader" field must be provided')
    return leader
