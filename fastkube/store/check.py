"""Does the store agree with itself? The rules of mvcc.py, verified on one snapshot, record by record.

`check(path)` opens a store for reading, also while another process writes it; `inspect` takes any Reading. A problem is
a sentence for people. Memory does not grow with the store, and at most MAX_PROBLEMS are told.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import lmdb

from fastkube.store.engine import Engine
from fastkube.store.errors import CorruptStore
from fastkube.store.mvcc import Reading
from fastkube.store.records import (
    DELETE,
    FIRST_REVISION,
    HEADER,
    I64,
    PUT,
    U64,
    UNTIL,
    Item,
    LogOp,
    history_key,
    item,
    log_ops,
    past_item,
    split_history_key,
    until,
)

MAX_PROBLEMS = 100


class Report(NamedTuple):
    """What was found; `ok` if nothing is wrong."""

    revision: int
    compacted: int
    applied: int
    keys: int
    versions: int
    log_revisions: int
    leases: int
    problems: list[str]

    @property
    def ok(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        found = "the store is sound" if self.ok else "\n".join((f"{len(self.problems)} problems:", *self.problems))
        where = f"revision {self.revision}, compacted to {self.compacted}, applied {self.applied}"
        held = f"{self.keys} keys, {self.versions} versions, {self.log_revisions} revisions of history"
        return f"{found}\n{where}: {held}, {self.leases} leases"


def check(path: str | os.PathLike[str]) -> Report:
    """Check the store at `path`. Raises CorruptStore when there is no store that could be read."""
    engine = Engine(Path(path), readonly=True, sync=True, map_bytes=0, max_bytes=1 << 62)
    try:
        txn = engine.read()
        return inspect(Reading(txn, engine.databases, engine.state(txn)))
    finally:
        engine.close()


def check_if_cut_off(engine: Engine) -> None:
    """Unless all is there, refuse a store whose file was found too short (engine.py, rule 5). Raises CorruptStore."""
    if engine.was_cut_off:
        txn = engine.read()
        report = inspect(Reading(txn, engine.databases, engine.state(txn)))
        txn.abort()
        if not report.ok:
            raise CorruptStore(f"{engine.path}: {report.problems[0]}")


def inspect(reading: Reading) -> Report:
    """Check what one transaction sees."""
    return _Inspection(reading).run()


class _TooMany(Exception):
    pass


class _Inspection:
    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._problems: list[str] = []
        self._first_logged = 0

    def run(self) -> Report:
        reading = self._reading
        counts = {"keys": 0, "versions": 0, "log_revisions": 0, "leases": 0}
        try:
            if reading.compacted > reading.revision or reading.revision < FIRST_REVISION:
                self._wrong(f"revision {reading.revision} and compacted {reading.compacted} cannot be")
            counts["log_revisions"] = self._check_log()
            counts["keys"] = self._check_current()
            counts["versions"] = self._check_history()
            counts["leases"] = self._check_leases()
        except _TooMany:
            self._problems.append("... and perhaps more")
        except (lmdb.Error, CorruptStore) as error:
            self._problems.append(f"the file cannot be read to its end: {error}")
        return Report(
            revision=reading.revision,
            compacted=reading.compacted,
            applied=reading.applied,
            problems=self._problems,
            **counts,
        )

    def _wrong(self, problem: str) -> None:
        if len(self._problems) >= MAX_PROBLEMS:
            raise _TooMany
        self._problems.append(problem)

    def _entries(self, database: lmdb._Database) -> Iterator[tuple[bytes, bytes]]:
        return self._reading.txn.cursor(database).iternext()

    def _raw(self, database: lmdb._Database, key: bytes) -> bytes | None:
        return self._reading.txn.get(key, None, database)

    # log: every revision without a gap (but for a copy's), and each operation's versions where it says

    def _check_log(self) -> int:
        reading = self._reading
        expected = 0
        count = 0
        whole = not reading.is_copy()
        for encoded, raw in self._entries(reading.databases.log):
            revision = U64.unpack(encoded)[0]
            if not count:
                self._first_logged = revision
                newest_first = max(reading.compacted, FIRST_REVISION + 1)
                if whole and revision > newest_first:
                    self._wrong(f"log: begins at revision {revision}, after {newest_first}")
            elif whole and revision != expected:
                self._wrong(f"log: revision {revision} follows {expected - 1}")
            expected = revision + 1
            count += 1
            for op in log_ops(raw):
                self._check_op(revision, op)
        if whole and count and expected != reading.revision + 1:
            self._wrong(f"log: ends at revision {expected - 1}, the store is at {reading.revision}")
        if whole and not count and reading.revision != FIRST_REVISION:
            self._wrong(f"log: empty, the store is at revision {reading.revision}")
        return count

    def _check_op(self, revision: int, op: LogOp) -> None:
        where = f"log: revision {revision}, key {op.key!r}"
        if op.type not in (PUT, DELETE):
            self._wrong(f"{where}: operation {op.type} is unknown")
        if op.type == PUT and self._version(op.key, revision) is None:
            self._wrong(f"{where}: the version it wrote is missing")
        if op.type == DELETE and not op.prev_revision:
            self._wrong(f"{where}: a delete of nothing")
        if op.prev_revision:
            raw = self._raw(self._reading.databases.history, history_key(op.key, op.prev_revision))
            if raw is None:
                self._wrong(f"{where}: the version {op.prev_revision} that it ended is missing")
            elif until(raw) != revision:
                self._wrong(f"{where}: the version {op.prev_revision} says that {until(raw)} ended it")

    def _version(self, key: bytes, revision: int) -> Item | None:
        raw = self._raw(self._reading.databases.current, key)
        if raw is not None and item(key, raw).mod_revision == revision:
            return item(key, raw)
        raw = self._raw(self._reading.databases.history, history_key(key, revision))
        return None if raw is None else past_item(key, raw)

    # current and history: sound headers, in the log, each version beginning where the one before it ended

    def _check_current(self) -> int:
        count = 0
        for key, raw in self._entries(self._reading.databases.current):
            count += 1
            if len(raw) < HEADER.size:
                self._wrong(f"current: key {key!r} has no header")
                continue
            self._check_version("current", item(key, raw))
        return count

    def _check_history(self) -> int:
        count = 0
        before: tuple[Item, int] | None = None
        for encoded, raw in self._entries(self._reading.databases.history):
            count += 1
            key, mod = split_history_key(encoded)
            if len(raw) < HEADER.size + UNTIL.size:
                self._wrong(f"history: key {key!r} at {mod} has no header")
                continue
            version, ended = past_item(key, raw), until(raw)
            if version.mod_revision != mod:
                self._wrong(f"history: key {key!r} at {mod} says it is of {version.mod_revision}")
            self._check_version("history", version)
            if not mod < ended <= self._reading.revision:
                self._wrong(f"history: key {key!r} at {mod} ended at {ended}")
            if not self._logs(ended, key, mod):
                self._wrong(f"history: key {key!r} at {mod}: the log does not know of its end at {ended}")
            if before is not None and before[0].key == key:
                self._check_successor(before[0], before[1], version)
            elif before is not None:
                self._check_last(*before)
            before = version, ended
        if before is not None:
            self._check_last(*before)
        return count

    def _check_version(self, where: str, version: Item) -> None:
        key, _, create, mod, number, lease = version
        if not FIRST_REVISION < create <= mod <= self._reading.revision or (number <= 1) != (create == mod):
            self._wrong(f"{where}: key {key!r} has create {create}, mod {mod}, version {number}")
        if mod >= self._first_logged and not self._logs(mod, key, None):
            self._wrong(f"{where}: key {key!r} at {mod} is not in the log")
        if (
            where == "current"
            and lease
            and self._raw(self._reading.databases.lease_keys, I64.pack(lease) + key) is None
        ):
            self._wrong(f"current: key {key!r} is not attached to its lease {lease}")

    def _check_successor(self, version: Item, ended: int, after: Item) -> None:
        """Two neighbours in history: the later continues the earlier, or began a new life."""
        continues = after.mod_revision == ended
        sound = (
            after.create_revision == version.create_revision and after.version == version.version + 1
            if continues
            else after.mod_revision > ended and after.create_revision > ended
        )
        if not sound:
            self._wrong(
                f"history: key {after.key!r}: version {after.mod_revision} does not follow {version.mod_revision}"
            )

    def _check_last(self, version: Item, ended: int) -> None:
        """The newest version of a key in history: `current` continues it, or it was deleted."""
        raw = self._raw(self._reading.databases.current, version.key)
        if raw is not None:
            self._check_successor(version, ended, item(version.key, raw))

    def _logs(self, revision: int, key: bytes, ended: int | None) -> bool:
        """Whether the log has this key's change at `revision` (the one that ended version `ended`)."""
        raw = self._raw(self._reading.databases.log, U64.pack(revision))
        if raw is None:
            return False
        return any(op.key == key and (ended is None or op.prev_revision == ended) for op in log_ops(raw))

    # leases: every attached key is alive and says so

    def _check_leases(self) -> int:
        leases = self._reading.leases()
        for lease, ttl_s in leases.items():
            if lease <= 0 or ttl_s <= 0:
                self._wrong(f"leases: lease {lease} of {ttl_s} s")
        for encoded, _ in self._entries(self._reading.databases.lease_keys):
            lease, key = I64.unpack_from(encoded)[0], encoded[I64.size :]
            if lease not in leases:
                self._wrong(f"lease_keys: key {key!r} is attached to lease {lease}, which is not there")
            raw = self._raw(self._reading.databases.current, key)
            if raw is None or item(key, raw).lease != lease:
                self._wrong(f"lease_keys: key {key!r} does not hold lease {lease}")
        return len(leases)
