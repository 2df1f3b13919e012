"""How a member begins: founded with others, joining them with nothing, or back with what it had made durable.

What is on the disk are two things, the store's data at some applied index and the log, and a crash may have come
between any two steps:

    founded     data (membership, index 1) → checkpoint → log        without a log: it is founded again
    running     log → data → checkpoint                              the log has what the data lacks
    snapshot    data (all of it) → checkpoint → log begins anew      the data is ahead of the log: the log is begun anew
"""

from __future__ import annotations

from pathlib import Path

from fastkube._raftlog import HardState
from fastkube.store.disk import Folder, RealFolder
from fastkube.store.engine import Engine
from fastkube.store.errors import CorruptStore, StoreError
from fastkube.store.log import Identity, RaftLog, Recovered, Write
from fastkube.store.members import NOBODY, Membership
from fastkube.store.mvcc import Reading, Writing
from fastkube.store.options import LOG_FOLDER, ReplicationOptions
from fastkube.store.records import FIRST_REVISION
from fastkube.store.segments import SEGMENT_BYTES
from fastkube.store.snapshot import installed

FOUNDED = 1
"""The index that stands for the first membership (rule D8 of _raft); its term is 1."""


class NotReplicated(StoreError):
    """The store at hand is that of a single server."""


def membership_of(engine: Engine) -> Membership:
    with engine.env.begin() as txn:
        return Membership.from_bytes(Reading(txn, engine.databases, engine.state(txn)).members())


def found(engine: Engine, membership: Membership) -> None:
    """Write the first membership into a store that is empty, or restored from a snapshot."""
    with engine.env.begin(write=True) as txn:
        writing = Writing(txn, engine.databases, engine.state(txn))
        writing.set_members(membership.to_bytes())
        writing.applied = max(writing.applied, FOUNDED)
        writing.save_state()


def check_new(engine: Engine) -> None:
    """A member's store is new, unless it was one before. Raises NotReplicated."""
    with engine.env.begin() as txn:
        state = engine.state(txn)
    if membership_of(engine) == NOBODY and (state.applied or state.revision != FIRST_REVISION):
        raise NotReplicated(
            f"{engine.path} is the store of a single server: back it up with `fastkube snapshot save`, and restore "
            "that into every member's data folder"
        )


def begin_log(
    engine: Engine, folder: Folder, identity: Identity, segment_bytes: int = SEGMENT_BYTES
) -> tuple[RaftLog, Recovered]:
    """The log of a member that has none: a founder's begins behind its data, that of one who joins with nothing."""
    with engine.env.begin() as txn:
        applied = engine.state(txn).applied
    if applied > FOUNDED:
        raise CorruptStore(f"{engine.path}: the log of this member is gone: remove the member, and add it anew")
    hard_state = HardState(FOUNDED, 0, applied) if applied else HardState(0, 0, 0)
    log = RaftLog.create(folder, identity, hard_state, segment_bytes)
    return log, Recovered(hard_state, applied, min(applied, 1), [])


def recover(
    engine: Engine, folder: Folder, identity: Identity | None, segment_bytes: int = SEGMENT_BYTES
) -> tuple[RaftLog, Recovered]:
    """A member's log, in accord with its data. Raises CorruptStore."""
    log, found = RaftLog.open(folder, identity, segment_bytes)
    with engine.env.begin() as txn:
        applied = engine.state(txn).applied
    index, term = installed(engine)
    if index and index == applied and _term_at(found, index) != term:
        hard_state = HardState(max(found.hard_state.term, term), found.hard_state.vote, index)
        if found.hard_state.term < term:
            hard_state = hard_state._replace(vote=0)
        log.append(Write(hard_state, [], (index, term)))
        return log, Recovered(hard_state, index, term, [])
    last = found.compacted + len(found.entries)
    if not found.compacted <= applied <= last:
        raise CorruptStore(f"{engine.path}: the data is at {applied}, the log has {found.compacted + 1} to {last}")
    return log, found


def _term_at(found: Recovered, index: int) -> int:
    if index == found.compacted:
        return found.compacted_term
    place = index - found.compacted - 1
    return found.entries[place].term if 0 <= place < len(found.entries) else -1


def restore_member(path: Path, options: ReplicationOptions) -> None:
    """Turn a restored copy into a single server's store, or into that of a member of a new cluster."""
    engine = Engine(path, readonly=False, sync=True, map_bytes=0, max_bytes=1 << 40)
    try:
        with engine.env.begin(write=True) as txn:
            for key in (b"members", b"installed"):
                txn.delete(key, db=engine.databases.meta)
        if not options.enabled:
            return
        options.validate_cluster()
        who = options.founder()
        found(engine, who.known)
        with engine.env.begin() as txn:
            applied = engine.state(txn).applied
        folder = RealFolder(path / LOG_FOLDER)
        RaftLog.create(folder, who.identity, HardState(FOUNDED, 0, applied)).close()
    finally:
        engine.close()
