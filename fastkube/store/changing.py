"""Changes of the membership, and of who leads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastkube._raft import ProposalDropped, Raft
from fastkube._raftconf import ADD_LEARNER, ADD_VOTER, REMOVE, UPDATE, ConfChange, ConfChangeRefused, decode_change
from fastkube._raftlog import Entry
from fastkube.clock import Clock
from fastkube.store.calling import Calling
from fastkube.store.command import SetMembers
from fastkube.store.errors import InvalidRequest, StoreUnavailable
from fastkube.store.members import Member, Membership
from fastkube.store.parts import Timing, Transport, fail_all
from fastkube.store.replica import Proposal
from fastkube.store.wire import pack, unpack


class Changing:
    """`membership` is that of what was handed over to the store."""

    def __init__(
        self,
        raft: Raft,
        membership: Membership,
        transport: Transport,
        calling: Calling,
        clock: Clock,
        timing: Timing,
        pump: Callable[[], None],
    ) -> None:
        self.membership = membership
        self.id = raft.id
        self._raft = raft
        self._transport = transport
        self._calling = calling
        self._clock = clock
        self._timing = timing
        self._pump = pump
        self._loop = asyncio.get_running_loop()
        self._changes: dict[int, asyncio.Future[Membership]] = {}
        calling.methods.update(change=self._change_here, transfer=self._transfer_here)

    async def change_member(self, operation: str, member: Member) -> Membership:
        """One change, through the leader. Raises InvalidRequest and StoreUnavailable."""
        packed: bytes = await self._calling.call("change", operation, tuple(member))
        return Membership.from_bytes(packed)

    async def _change_here(self, operation: str, packed: Any) -> bytes:
        member = Member(*packed)
        self._check_change(operation, member)
        change = ConfChange(((operation, member.id),), context=pack(member))
        try:
            index = self._raft.propose_change(change)
        except ConfChangeRefused as refusal:
            raise InvalidRequest(str(refusal)) from None
        except ProposalDropped as refusal:
            raise StoreUnavailable(f"the change was not made: {refusal}") from None
        self._pump()
        waiter = self._changes[index] = self._loop.create_future()
        membership: Membership = await waiter
        return membership.to_bytes()

    def _check_change(self, operation: str, member: Member) -> None:
        """As etcd refuses them: members that are there, are not, or are not ready, and what would cost the majority."""
        raft, known = self._raft, self.membership.find(member.id)
        is_new = operation == ADD_LEARNER or (operation == ADD_VOTER and known is None)
        if not is_new and known is None:
            raise InvalidRequest("etcdserver: member not found")
        if is_new or operation == UPDATE:
            urls = {url for each in self.membership.members if each.id != member.id for url in each.peer_urls}
            if (is_new and known is not None) or urls & set(member.peer_urls):
                raise InvalidRequest("etcdserver: Peer URLs already exists")
        if operation == ADD_VOTER and known is not None:
            progress = raft.progress.get(member.id)
            if member.id not in raft.config.learners:
                raise InvalidRequest("etcdserver: can only promote a learner member")
            if progress is None or progress.match * 10 < raft.log.committed * 9:
                raise InvalidRequest("etcdserver: can only promote a learner member which is in sync with leader")
        if operation == REMOVE and member.id in raft.config.voters:
            left = [one for one in raft.config.voters if one != member.id]
            active = sum(1 for one in left if self._is_active(one))
            if active < len(left) // 2 + 1:
                raise InvalidRequest("etcdserver: re-configuration failed due to not enough started members")

    def _is_active(self, member: int) -> bool:
        """Whether it answered a heartbeat lately."""
        rounds = self._raft.progress[self.id].acked_round - self._raft.progress[member].acked_round
        return self._raft.progress[member].recent_active or rounds <= 2 * self._timing.election_ticks

    def take(self, entry: Entry) -> Proposal:
        """A change is part of the state: it is kept with everything else that is applied (D8)."""
        change = decode_change(entry.data)
        conf = self._raft.apply_change(change)
        membership = self.membership._replace(conf=conf)
        if change.context:
            member = Member(*unpack(change.context))
            is_update = any(operation == UPDATE for operation, _ in change.operations)
            if is_update or member.name or membership.find(member.id) is None:
                membership = membership.with_member(member)
        ids = {*conf.voters, *conf.outgoing, *conf.learners}
        self.membership = membership._replace(members=tuple(one for one in membership.members if one.id in ids))
        self._transport.know(self.membership)
        future = self._changes.pop(entry.index, None)
        if future is not None and not future.done():
            future.set_result(self.membership)
        return Proposal((SetMembers(self.membership.to_bytes()),), None)

    async def transfer(self, target: int) -> None:
        """Have another member lead. Raises InvalidRequest, StoreUnavailable."""
        await self._calling.call("transfer", target)

    async def _transfer_here(self, target: int) -> None:
        if target not in self._raft.config.voters:
            raise InvalidRequest("etcdserver: member not found, or no voter")
        self._raft.transfer(target)
        self._pump()
        deadline = self._clock.monotonic() + 2 * self._timing.election_s
        while self._raft.lead != target:
            if self._clock.monotonic() > deadline:
                raise StoreUnavailable("etcdserver: request timed out, leader transfer took too long")
            await self._clock.sleep(self._timing.heartbeat_s / 2)

    def drop_all(self, error: StoreUnavailable) -> None:
        fail_all(list(self._changes.values()), error)
        self._changes.clear()
