"""The Cluster service: the members that replicate the store, as Raft has them. Its headers are at no revision."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING

from fastkube._raftconf import ADD_LEARNER, ADD_VOTER, REMOVE, UPDATE
from fastkube.etcd import messages, refusals
from fastkube.etcd.node import Node
from fastkube.store import StoreError
from fastkube.store.members import Member, Membership, member_id, parse_peer_url

if TYPE_CHECKING:
    from fastkube.store.consensus import RaftReplica


_PUBLISH_AGAIN_S = 0.5


class Members:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._store = node.store

    async def list_all(self, request: messages.MemberListRequest) -> messages.MembersResponse:
        if request.linearizable and (barrier := self._store.read_barrier()) is not None:
            await barrier
        return messages.MembersResponse(self._node.header(0), self._shown())

    async def add(self, request: messages.MemberAddRequest) -> messages.MemberAddResponse:
        urls = _sound_urls(request.peer_urls)
        consensus = self._consensus()
        added = Member(member_id(urls, "", secrets.token_hex(8)), "", urls)
        membership = await consensus.change_member(ADD_LEARNER if request.is_learner else ADD_VOTER, added)
        member = messages.Member(added.id, "", urls, (), request.is_learner)
        return messages.MemberAddResponse(self._node.header(0), member, self._shown(membership))

    async def remove(self, request: messages.MemberId) -> messages.MembersResponse:
        return await self._change(REMOVE, request.id)

    async def promote(self, request: messages.MemberId) -> messages.MembersResponse:
        return await self._change(ADD_VOTER, request.id)

    async def update(self, request: messages.MemberUpdateRequest) -> messages.MembersResponse:
        """The others reach it at its new URLs from now on; itself listens there when it is started with them."""
        urls = _sound_urls(request.peer_urls)
        return await self._change(UPDATE, request.id, urls)

    async def _change(self, operation: str, member: int, urls: tuple[str, ...] = ()) -> messages.MembersResponse:
        if self._store.consensus is None and member != self._node.identity.member_id:
            raise refusals.member_not_found()
        consensus = self._consensus()
        found = consensus.membership.find(member)
        if found is None:
            raise refusals.member_not_found()
        found = found._replace(peer_urls=urls or found.peer_urls)
        membership = await consensus.change_member(operation, found)
        return messages.MembersResponse(self._node.header(0), self._shown(membership))

    def _consensus(self) -> RaftReplica:
        if self._store.consensus is None:
            raise refusals.not_supported("a change of the members of a server that was started without any")
        return self._store.consensus

    def _shown(self, membership: Membership | None = None) -> list[messages.Member]:
        own = self._node.identity
        consensus = self._store.consensus
        if consensus is None:
            return [messages.Member(own.member_id, own.name, own.peer_urls, own.client_urls)]
        known = membership or consensus.membership
        return [
            messages.Member(
                each.id,
                each.name,
                each.peer_urls,
                own.client_urls if each.id == own.member_id else each.client_urls,
                each.id in known.conf.learners,
            )
            for each in known.members
        ]


async def publish(node: Node, consensus: RaftReplica) -> None:
    """Tells the other members this one's name and where clients reach it, as etcd's members do when they start."""
    own = node.identity
    while True:
        known = consensus.membership.find(own.member_id)
        if known is not None:
            wanted = known._replace(name=own.name, client_urls=own.client_urls)
            if known == wanted:
                return
            with contextlib.suppress(StoreError):  # no leader, or another change is under way
                await consensus.change_member(UPDATE, wanted)
        await node.clock.sleep(_PUBLISH_AGAIN_S)


def _sound_urls(urls: list[str]) -> tuple[str, ...]:
    if not urls:
        raise refusals.bad_member_urls()
    try:
        for url in urls:
            parse_peer_url(url)
    except ValueError:
        raise refusals.bad_member_urls() from None
    return tuple(urls)
