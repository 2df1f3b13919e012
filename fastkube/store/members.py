"""Who replicates a store: ids, names and addresses, as etcd derives and keeps them.

Ids are drawn from what every founding member is told alike (--initial-cluster, its token), so nobody hands them out.
The directory lies in the store itself, written by the same command as the configuration of consensus.
"""

from __future__ import annotations

import hashlib
import urllib.parse
from collections.abc import Iterable
from typing import NamedTuple

from fastkube._raftlog import ConfState
from fastkube.store.wire import pack, unpack

_ID_BITS = 63


class Member(NamedTuple):
    """`client_urls` are where etcd's clients reach it: what it said of itself when it was started."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...] = ()


class Membership(NamedTuple):
    """The configuration, and every member in it by its id."""

    conf: ConfState
    members: tuple[Member, ...]

    def find(self, member_id: int) -> Member | None:
        return next((member for member in self.members if member.id == member_id), None)

    def with_member(self, member: Member) -> Membership:
        others = [each for each in self.members if each.id != member.id]
        return self._replace(members=tuple(sorted([*others, member])))

    def to_bytes(self) -> bytes:
        return pack(self)

    @classmethod
    def from_bytes(cls, packed: bytes) -> Membership:
        if not packed:
            return NOBODY
        conf, members = unpack(packed)
        return cls(ConfState(*conf), tuple(Member(*member) for member in members))


NOBODY = Membership(ConfState(()), ())


def member_id(peer_urls: Iterable[str], token: str, salt: str = "") -> int:
    return _hash("member", *sorted(peer_urls), token, salt)


def cluster_id(member_ids: Iterable[int], token: str) -> int:
    return _hash("cluster", *map(str, sorted(member_ids)), token)


def _hash(*words: str) -> int:
    digest = hashlib.sha256("\n".join(words).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - _ID_BITS) or 1


def parse_initial_cluster(text: str) -> dict[str, tuple[str, ...]]:
    """`a=https://10.0.0.1:2380,b=https://…` as {name: URLs}; a name may stand several times. Raises ValueError."""
    found: dict[str, tuple[str, ...]] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, separator, url = word.partition("=")
        if not separator or not name:
            raise ValueError(f"initial-cluster: {word!r} is not NAME=URL")
        parse_peer_url(url)
        found[name] = (*found.get(name, ()), url)
    urls = [url for each in found.values() for url in each]
    if len(set(urls)) != len(urls):
        raise ValueError("initial-cluster: two members have the same URL")
    return found


def parse_peer_url(url: str) -> tuple[str, int]:
    """(host, port). Raises ValueError; peers speak TLS only."""
    parts = urllib.parse.urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "https" or not parts.hostname or not port or parts.path.strip("/"):
        raise ValueError(f"{url!r} is not a peer's URL such as https://10.0.0.1:2380")
    return parts.hostname, port


def founders(initial: dict[str, tuple[str, ...]], token: str) -> Membership:
    """The membership that a cluster begins with."""
    members = tuple(sorted(Member(member_id(urls, token), name, urls) for name, urls in initial.items()))
    return Membership(ConfState(tuple(member.id for member in members)), members)
