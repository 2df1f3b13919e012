"""What every service of the endpoint needs: the store, who this member is, and how a call is answered."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from fastkube.clock import Clock
from fastkube.etcd.messages import Header
from fastkube.store import Store, StoreError, StoreUnavailable

DEFAULT_PEER_URL = "http://localhost:2380"
"""What etcd says of a member that was told nothing; ids are derived from it."""

MAX_REQUEST_BYTES = 1536 * 1024
MAX_TXN_OPS = 128
PROGRESS_INTERVAL_S = 600.0
"""etcd's defaults."""


class Later(NamedTuple):
    """An answer that the store still works on: `finish` makes it of what the future brings.

    Where a refusal is not the answer, `otherwise` begins again another way.
    """

    future: asyncio.Future[Any]
    finish: Callable[[Any], tuple[Any, ...]]
    otherwise: Callable[[], Later] | None = None

    def again(self, error: Exception) -> Later | None:
        """What goes on after this error; None: it is the answer."""
        refused = isinstance(error, StoreError) and not isinstance(error, StoreUnavailable)
        return self.otherwise() if refused and self.otherwise is not None else None


Answer: TypeAlias = tuple[Any, ...] | Later | Awaitable[tuple[Any, ...]]


class Identity(NamedTuple):
    """A member as etcd's clients are told of it; those of a store without replicas are made up of its URLs."""

    cluster_id: int
    member_id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]


def identity_of(store: Store, name: str, client_urls: tuple[str, ...]) -> Identity:
    """Those of Raft; without others as etcd derives them of its defaults."""
    if store.consensus is not None:
        status = store.consensus.status()
        member = status.membership.find(status.id)
        peer_urls = member.peer_urls if member is not None else ()
        return Identity(store.consensus.cluster, status.id, status.name, peer_urls, client_urls)
    own = hashlib.sha1(DEFAULT_PEER_URL.encode() + b"etcd-cluster", usedforsecurity=False).digest()[:8]
    cluster = hashlib.sha1(own, usedforsecurity=False).digest()[:8]
    ids = (int.from_bytes(cluster, "big"), int.from_bytes(own, "big"))
    return Identity(*ids, name, (DEFAULT_PEER_URL,), client_urls)


@dataclass
class Node:
    store: Store
    clock: Clock
    identity: Identity
    max_request_bytes: int = MAX_REQUEST_BYTES
    max_txn_ops: int = MAX_TXN_OPS
    progress_interval_s: float = PROGRESS_INTERVAL_S

    @property
    def term(self) -> int:
        """Of Raft; a store that is its own majority stays in the one that a new etcd without others reaches."""
        consensus = self.store.consensus
        return 2 if consensus is None else consensus.term

    def header(self, revision: int | None = None) -> Header:
        """`revision` is the store's unless the answer speaks of another."""
        identity = self.identity
        at = self.store.revision if revision is None else revision
        return Header(identity.cluster_id, identity.member_id, at, self.term)

    async def current(self, barrier: Awaitable[None], read: Callable[[], Answer]) -> tuple[Any, ...]:
        """What `read` answers once this server has all that was acknowledged."""
        await barrier
        return await settled(read())


async def settled(answer: Answer) -> tuple[Any, ...]:
    """An answer, waited for if need be."""
    if isinstance(answer, Later):
        try:
            result = await answer.future
        except StoreError as refusal:
            if (again := answer.again(refusal)) is None:
                raise
            return await settled(again)
        return answer.finish(result)
    return answer if isinstance(answer, tuple) else await answer
