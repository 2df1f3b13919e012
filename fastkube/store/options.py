"""What a server can be told of the others that replicate its store: the flags of etcd, under the same names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from fastkube.config import option

if TYPE_CHECKING:
    from fastkube.store.log import Identity
    from fastkube.store.members import Membership
    from fastkube.store.transport import PeerFiles

SNAPSHOT_BYTES_PER_S = 64 << 20

LOG_FOLDER = "raft"


class Who(NamedTuple):
    """What a member knows of itself and the others before its data says so."""

    identity: Identity
    known: Membership


@dataclass(frozen=True)
class ReplicationOptions:
    """etcd's flags, with etcd's meanings. Without --initial-cluster the server is its own majority."""

    name: str = option("default", "Name of this member.")
    initial_cluster: str = option("", "Members that replicate the store, this one included.", metavar="NAME=URL,...")
    initial_cluster_state: str = option("new", "Whether these found a cluster.", choices=("new", "existing"))
    initial_cluster_token: str = option("fastkube-cluster", "Tells clusters of the same addresses apart.")
    listen_peer_urls: tuple[str, ...] = option((), "Where to listen for peers; by default the advertised URLs.")
    initial_advertise_peer_urls: tuple[str, ...] = option((), "This member's URLs, as peers reach it.")
    peer_cert_file: str = option("", "Certificate towards peers (PEM), for both sides.", metavar="FILE")
    peer_key_file: str = option("", "Key of the peer certificate.", metavar="FILE")
    peer_trusted_ca_file: str = option("", "Authority of all peers' certificates.", metavar="FILE")
    heartbeat_interval: int = option(60, "Milliseconds between a leader's heartbeats.")
    election_timeout: int = option(
        600, "Milliseconds without a heartbeat until an election; it takes up to twice that."
    )
    snapshot_rate: int = option(SNAPSHOT_BYTES_PER_S, "Bytes a second at most of a snapshot for one follower.")

    @property
    def enabled(self) -> bool:
        return bool(self.initial_cluster)

    def validate(self) -> None:
        """Raises ValueError, naming the flag."""
        if not self.enabled:
            return
        self.validate_cluster()
        for flag, file in (
            ("peer-cert-file", self.peer_cert_file),
            ("peer-key-file", self.peer_key_file),
            ("peer-trusted-ca-file", self.peer_trusted_ca_file),
        ):
            if not file:
                raise ValueError(f"{flag}: must be given with --initial-cluster: peers speak mutual TLS only")
        if not 0 < 5 * self.heartbeat_interval <= self.election_timeout <= 50_000:
            raise ValueError("election-timeout: must be at least five heartbeat intervals and at most 50000")

    def validate_cluster(self) -> None:
        from fastkube.store.members import parse_initial_cluster

        cluster = parse_initial_cluster(self.initial_cluster)
        if self.name not in cluster:
            raise ValueError(f'initial-cluster: could not find local member "{self.name}" in it')
        if self.initial_advertise_peer_urls and set(self.initial_advertise_peer_urls) != set(cluster[self.name]):
            raise ValueError("initial-advertise-peer-urls: they differ from those of this name in --initial-cluster")

    def founder(self) -> Who:
        """What a founding member knows from --initial-cluster alone."""
        from fastkube.store.log import Identity
        from fastkube.store.members import cluster_id, founders, member_id, parse_initial_cluster

        token = self.initial_cluster_token
        known = founders(parse_initial_cluster(self.initial_cluster), token)
        cluster = cluster_id([one.id for one in known.members], token)
        return Who(Identity(cluster, member_id(self.advertised, token)), known)

    @property
    def files(self) -> PeerFiles:
        from fastkube.store.transport import PeerFiles

        return PeerFiles(self.peer_cert_file, self.peer_key_file, self.peer_trusted_ca_file)

    @property
    def advertised(self) -> tuple[str, ...]:
        from fastkube.store.members import parse_initial_cluster

        return parse_initial_cluster(self.initial_cluster)[self.name]
