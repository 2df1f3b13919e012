"""What `Store.open` is given to be one of several: options, files and the parts of a real member.

prepare   before the data file is opened: a checkpoint's root is put back if the machine was booted (checkpoint.py)
join      the log is read or begun (recovery.py), peers are listened to, Raft is started (consensus.py)
"""

from __future__ import annotations

import asyncio
import secrets
from functools import partial
from pathlib import Path
from typing import Any

from fastkube.clock import Clock
from fastkube.store.appender import appender
from fastkube.store.checkpoint import Checkpoints, boot_id, put_back
from fastkube.store.consensus import RaftReplica
from fastkube.store.disk import RealFolder
from fastkube.store.engine import DATA_FILE, Engine
from fastkube.store.errors import InvalidRequest, StoreUnavailable
from fastkube.store.log import Identity, RaftLog, Recovered
from fastkube.store.members import (
    NOBODY,
    Member,
    Membership,
    member_id,
    parse_initial_cluster,
    parse_peer_url,
)
from fastkube.store.options import LOG_FOLDER, ReplicationOptions, Who
from fastkube.store.parts import Host, Parts, Timing
from fastkube.store.recovery import begin_log, check_new, found, membership_of, recover
from fastkube.store.snapshot import backup, describe
from fastkube.store.transport import AdminClient, TlsTransport
from fastkube.store.work import ThreadWork


class Replication:
    """One member's start. Raises StoreError, OSError, ssl.SSLError and ValueError for what its user can mend."""

    def __init__(self, options: ReplicationOptions) -> None:
        options.validate()
        self._options = options
        self._boot = boot_id()

    def prepare(self, path: Path) -> None:
        put_back(path, self._boot)

    async def join(self, store: Any, engine: Engine, clock: Clock) -> RaftReplica:
        options = self._options
        folder = RealFolder(engine.path / LOG_FOLDER)
        checkpoints = Checkpoints(engine, self._boot)
        who: Who | None = None
        if RaftLog.exists(folder):
            checkpoints.now()
            log, recovered = await asyncio.to_thread(recover, engine, folder, None)
            membership = membership_of(engine)
            if not membership.members:
                membership = (await self._who()).known
        else:
            check_new(engine)
            who = await self._who()
            log, recovered, membership = self._begin(engine, folder, checkpoints, who)
        with engine.env.begin() as txn:
            store.applied = engine.state(txn).applied
        identity = log.identity
        rate = options.snapshot_rate
        transport = TlsTransport(identity.cluster, identity.member, options.files, engine.path, rate)
        await transport.listen(options.listen_peer_urls or options.advertised)
        parts = Parts(
            log, checkpoints, transport, appender(folder), ThreadWork("checkpoint"),
            partial(copy_of, engine), engine.path,
        )  # fmt: skip
        replica = self._replica(store, parts, recovered, membership, clock)
        transport.serve(replica, _Admin(replica, store, engine, options.initial_cluster_token).answer)
        return replica

    def _replica(
        self, store: Host, parts: Parts, recovered: Recovered, membership: Membership, clock: Clock
    ) -> RaftReplica:
        options = self._options
        timing = Timing(options.heartbeat_interval / 1000, options.election_timeout / 1000)
        seed = secrets.randbits(62)
        return RaftReplica(
            store, parts, recovered, membership, name=options.name, clock=clock, seed=seed, timing=timing
        )

    def _begin(
        self, engine: Engine, folder: RealFolder, checkpoints: Checkpoints, who: Who
    ) -> tuple[RaftLog, Recovered, Membership]:
        if self._options.initial_cluster_state == "new":
            found(engine, who.known)
        checkpoints.now()
        log, recovered = begin_log(engine, folder, who.identity)
        membership = membership_of(engine)
        return log, recovered, membership if membership.members else NOBODY._replace(members=who.known.members)

    async def _who(self) -> Who:
        """From --initial-cluster alone, or, for one who joins, from those who are there."""
        options = self._options
        initial = parse_initial_cluster(options.initial_cluster)
        if options.initial_cluster_state == "new":
            return options.founder()
        others = tuple(url for name, urls in initial.items() if name != options.name for url in urls)
        if not others:
            raise ValueError("initial-cluster: it must name members that are there already")
        cluster, packed = await AdminClient(others, options.files).call("members")
        known = Membership.from_bytes(packed)
        for member in known.members:
            if set(member.peer_urls) == set(options.advertised):
                return Who(Identity(cluster, member.id), known)
        raise StoreUnavailable(
            f"no member has the URLs {', '.join(options.advertised)}: add it first, `fastkube member add`"
        )


async def copy_of(engine: Engine, folder: Path) -> tuple[Path, int, bytes]:
    """A copy of the running store as one file: made by a process of its own, compacted."""
    target = folder / f"outgoing-{secrets.token_hex(8)}"
    await backup(engine.path, target)
    file = target.with_suffix(".mdb")
    (target / DATA_FILE).rename(file)
    target.rmdir()
    return file, *describe(file)


class _Admin:
    """What the command line may ask of any member."""

    def __init__(self, replica: RaftReplica, store: Any, engine: Engine, token: str) -> None:
        self._replica = replica
        self._store = store
        self._engine = engine
        self._token = token

    async def answer(self, method: str, arguments: Any) -> Any:
        handler = getattr(self, f"_do_{method}", None)
        if handler is None:
            raise InvalidRequest(f"there is no call {method!r}")
        return await handler(*arguments)

    async def _do_members(self) -> Any:
        """As the leader knows them; without one, as this member does."""
        return self._replica.cluster, self._replica.membership.to_bytes()

    async def _do_status(self) -> Any:
        status = self._replica.status()
        return (*status[:7], status.health, self._store.status().revision)

    async def _do_change(self, operation: str, name: str, urls: tuple[str, ...], found: int) -> Any:
        member = self._replica.membership.find(found)
        if not found:
            for url in urls:
                try:
                    parse_peer_url(url)
                except ValueError as problem:
                    raise InvalidRequest(str(problem)) from None
            member = Member(member_id(urls, self._token, secrets.token_hex(8)), name, urls)
        if member is None:
            raise InvalidRequest("etcdserver: member not found")
        membership = await self._replica.change_member(operation, member)
        return member.id, membership.to_bytes()

    async def _do_transfer(self, target: int) -> Any:
        await self._replica.transfer(target)
        return self._replica.status().leader

    async def _do_snapshot(self) -> Path:
        path, _, _ = await copy_of(self._engine, self._engine.path)
        return path
