"""The store against a model: dicts, one for each revision. Hypothesis drives both and compares all that can be seen."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fastkube.clock import ManualClock
from fastkube.store import (
    ABSENT,
    ANY,
    DELETE,
    PUT,
    TO_THE_END,
    Compacted,
    Compare,
    Delete,
    Deleted,
    Event,
    Item,
    KeyExists,
    KeyMissing,
    LeaseNotFound,
    Put,
    Range,
    RevisionMismatch,
    Store,
    Watcher,
    Write,
)
from fastkube.store.check import check

T = TypeVar("T")

KEYS = st.sampled_from([b"a", b"a\x00", b"a\x00\x01", b"ab", b"b", b"b/1", b"b/2", b"c", b"\x00", b"\xff\xff"])
VALUES = st.binary(max_size=6) | st.sampled_from([b"x" * 1500, b"y" * 5000])
BOUNDS = KEYS | st.sampled_from([b"b/", b"b0", TO_THE_END])


class Model:
    """What etcd would hold: a dict for each revision, and what each revision did."""

    def __init__(self) -> None:
        self.states: list[dict[bytes, Item]] = [{}, {}]  # by revision; 0 is not used
        self.events: dict[int, list[Event]] = {}
        self.compacted = 0
        self.leases: set[int] = set()

    @property
    def revision(self) -> int:
        return len(self.states) - 1

    @property
    def now(self) -> dict[bytes, Item]:
        return self.states[-1]

    def commit(self, changes: list[tuple[bytes, bytes | None, int]]) -> None:
        """One revision; a value None deletes."""
        if not changes:
            return
        state = dict(self.now)
        revision = self.revision + 1
        events = []
        for key, value, lease in changes:
            prev = state.get(key)
            if value is None:
                del state[key]
                events.append(Event(DELETE, key, b"", revision, 0, 0, 0, prev))
            else:
                item = (
                    Item(key, value, prev.create_revision, revision, prev.version + 1, lease)
                    if prev
                    else Item(key, value, revision, revision, 1, lease)
                )
                state[key] = item
                events.append(Event(PUT, key, value, revision, item.create_revision, item.version, lease, prev))
        self.states.append(state)
        self.events[revision] = events

    def inside(self, start: bytes, end: bytes, revision: int = 0) -> list[Item]:
        state = self.states[revision or self.revision]
        return [state[key] for key in sorted(state) if key >= start and (end == TO_THE_END or key < end)]


class StoreMachine(RuleBasedStateMachine):
    @initialize(sync=st.booleans())
    def begin(self, sync: bool) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.sync = sync
        self.clock = ManualClock()
        self.model = Model()
        self.watches: list[tuple[Watcher, bytes, bytes, int, list[Event]]] = []
        self.store = self.run(self.open())

    def run(self, work: Coroutine[Any, Any, T] | asyncio.Future[T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 30))

    async def open(self) -> Store:
        return await Store.open(self.folder / "store", sync=self.sync, clock=self.clock, map_bytes=1 << 16)

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        self.drain_all()
        report = self.run(self.store.check())
        assert report.ok, report.problems
        self.run(self.store.close())
        report = check(self.folder / "store")
        assert report.ok, report.problems
        assert (report.revision, report.keys) == (self.model.revision, len(self.model.now))
        self.loop.close()
        shutil.rmtree(self.folder)

    # writes

    @rule(key=KEYS, value=VALUES)
    def create(self, key: bytes, value: bytes) -> None:
        if key in self.model.now:
            with pytest.raises(KeyExists) as refusal:
                self.run(self.store.create(key, value))
            assert refusal.value.item == self.model.now[key]
        else:
            revision = self.run(self.store.create(key, value))
            self.model.commit([(key, value, 0)])
            assert revision == self.model.revision

    @rule(key=KEYS, value=VALUES, stale=st.booleans())
    def update(self, key: bytes, value: bytes, stale: bool) -> None:
        item = self.model.now.get(key)
        expected = (item.mod_revision if item else 1) + stale
        if item is None or stale:
            with pytest.raises(RevisionMismatch) as refusal:
                self.run(self.store.update(key, value, expected))
            assert refusal.value.item == item
        else:
            assert self.run(self.store.update(key, value, expected)) == self.model.revision + 1
            self.model.commit([(key, value, 0)])

    @rule(key=KEYS)
    def delete(self, key: bytes) -> None:
        item = self.model.now.get(key)
        if item is None:
            with pytest.raises(KeyMissing):
                self.run(self.store.delete(key))
        else:
            deleted = self.run(self.store.delete(key))
            self.model.commit([(key, None, 0)])
            assert deleted == Deleted(*item, self.model.revision)

    @rule(
        writes=st.lists(
            st.tuples(KEYS, st.none() | VALUES, st.sampled_from([ANY, ABSENT, "now"]), st.integers(0, 3)), max_size=8
        ),
        together=st.booleans(),
    )
    def many(self, writes: list[tuple[bytes, bytes | None, Any, int]], together: bool) -> None:
        """Independent writes, in one call or in calls that share a commit."""
        # A revision to expect must be known beforehand: it is that of before the batch.
        before = self.model.now
        asked = [
            Write(
                key,
                value,
                (before[key].mod_revision if key in before else 1) if condition == "now" else condition,
                0 if value is None else lease,
            )
            for key, value, condition, lease in writes
            if not (value is None and condition == ABSENT)
        ]
        expected = [self.model_write(write) for write in asked]

        async def one_by_one() -> list[Any]:
            futures = [self.store.write([write]) for write in asked]
            return [(await future)[0] for future in futures]

        results = self.run(self.store.write(asked) if together else one_by_one())
        assert [outcome(result) for result in results] == expected

    def model_write(self, write: Write) -> object:
        key, value, expected, lease = write
        model = self.model
        item = model.now.get(key)
        if lease and lease not in model.leases:
            return LeaseNotFound
        if value is None:
            if item is None:
                return KeyMissing
            if expected not in (ANY, item.mod_revision):
                return RevisionMismatch
            model.commit([(key, None, 0)])
            return Deleted(*item, model.revision)
        if expected == ABSENT and item is not None:
            return KeyExists
        if expected not in (ANY, ABSENT) and (item is None or item.mod_revision != expected):
            return RevisionMismatch
        model.commit([(key, value, lease)])
        return model.revision

    @rule(
        key=KEYS,
        what=st.sampled_from(["create", "mod", "version", "lease"]),
        op=st.sampled_from(["=", "!=", "<", ">"]),
        number=st.integers(0, 8),
        puts=st.dictionaries(KEYS, VALUES, max_size=3),
        start=KEYS,
        end=st.none() | BOUNDS,
    )
    def txn(
        self, key: bytes, what: str, op: str, number: int, puts: dict[bytes, bytes], start: bytes, end: bytes | None
    ) -> None:
        """Puts if the compare holds, else a delete of a range; either way with a read at the end."""
        item = self.model.now.get(key)
        fields = {"create": "create_revision", "mod": "mod_revision"}
        found = getattr(item, fields.get(what, what)) if item else 0
        holds = {"=": found == number, "!=": found != number, "<": found < number, ">": found > number}[op]
        look = Range(b"a", TO_THE_END)
        result = self.run(
            self.store.txn(
                [Compare(key, what, op, number)],
                [*(Put(*pair) for pair in puts.items()), look],
                [Delete(start, end), look],
            )
        )
        assert result.succeeded is holds
        if holds:
            before = self.model.now
            self.model.commit([(put, value, 0) for put, value in puts.items()])
            assert [response.prev for response in result.responses[:-1]] == [before.get(put) for put in puts]
        else:
            doomed = self.model.inside(start, start + b"\x00" if end is None else end)
            self.model.commit([(item.key, None, 0) for item in doomed])
            assert result.responses[0].deleted == doomed
        assert result.responses[-1].items == self.model.inside(b"a", TO_THE_END)
        assert result.revision == self.model.revision

    @rule(lease=st.integers(1, 3))
    def grant_or_revoke(self, lease: int) -> None:
        model = self.model
        if lease not in model.leases:
            assert self.run(self.store.lease_grant(60, lease)) == lease
            model.leases.add(lease)
        else:
            assert self.store.lease_ttl(lease).keys == [item.key for item in self.attached(lease)]
            self.run(self.store.lease_revoke(lease))
            model.commit([(item.key, None, 0) for item in self.attached(lease)])
            model.leases.remove(lease)
        assert self.store.leases() == sorted(model.leases)

    def attached(self, lease: int) -> list[Item]:
        return [item for item in self.model.inside(b"", TO_THE_END) if item.lease == lease]

    # the past

    @rule(data=st.data(), physical=st.booleans())
    def compact(self, data: st.DataObject, physical: bool) -> None:
        if self.model.compacted < self.model.revision:
            revision = data.draw(st.integers(self.model.compacted + 1, self.model.revision))
            self.run(self.store.compact(revision, physical=physical))
            self.model.compacted = revision

    @rule()
    def reopen(self) -> None:
        self.drain_all()
        self.watches.clear()
        self.run(self.store.close())
        self.store = self.run(self.open())

    # reads

    @rule(
        data=st.data(), start=KEYS | st.just(b""), end=BOUNDS, limit=st.integers(0, 4), reverse=st.booleans(), key=KEYS
    )
    def read(self, data: st.DataObject, start: bytes, end: bytes, limit: int, reverse: bool, key: bytes) -> None:
        model = self.model
        revision = data.draw(st.integers(1, model.revision) | st.just(0))
        if 0 < revision < model.compacted:
            for read in (self.store.range, self.store.scan):
                with pytest.raises(Compacted):
                    read(start, end, revision=revision)
            with pytest.raises(Compacted):
                self.store.get(key, revision)
            return
        expected = model.inside(start, end, revision)
        assert list(self.store.scan(start, end, revision=revision)) == expected
        assert self.store.get(key, revision) == model.states[revision or -1].get(key)
        if reverse:
            expected = expected[::-1]
        result = self.store.range(start, end, revision=revision, limit=limit, reverse=reverse)
        assert result.items == (expected[:limit] if limit else expected)
        assert (result.more, result.count) == (bool(limit) and len(expected) > limit, len(expected))
        assert result.revision == model.revision

    # watches

    @rule(data=st.data(), start=KEYS, end=st.none() | BOUNDS, buffer=st.sampled_from([1, 3, 1000]))
    def watch(self, data: st.DataObject, start: bytes, end: bytes | None, buffer: int) -> None:
        model = self.model
        first = data.draw(st.just(0) | st.integers(1, model.revision + 3))
        if 0 < first < model.compacted:
            with pytest.raises(Compacted):
                self.store.watch(start, end, first, buffer=buffer)
            return
        watcher = self.store.watch(start, end, first, buffer=buffer)
        upper = start + b"\x00" if end is None else end
        self.watches.append((watcher, start, upper, first or model.revision + 1, []))

    @rule()
    def drain_all(self) -> None:
        for entry in tuple(self.watches):
            self.run(self.drain(entry))

    async def drain(self, entry: tuple[Watcher, bytes, bytes, int, list[Event]]) -> None:
        """Take all that is there; it must be exactly what the model did, whole revisions at a time."""
        watcher, start, end, first, seen = entry
        expected = [
            event
            for revision in range(first, self.model.revision + 1)
            for event in self.model.events.get(revision, [])
            if event.key >= start and (end == TO_THE_END or event.key < end)
        ]
        while len(seen) < len(expected):
            try:
                batch = await anext(watcher)
            except Compacted:
                unseen = expected[len(seen)].revision
                assert unseen < self.model.compacted or watcher.revision < self.model.compacted
                self.watches.remove(entry)
                return
            seen += batch
            if len(seen) < len(expected):
                assert seen[-1].revision != expected[len(seen)].revision, "a revision in two batches"
        assert seen == expected
        if first <= self.model.revision:
            assert watcher.revision <= self.model.revision

    @invariant()
    def revisions_agree(self) -> None:
        if hasattr(self, "store"):
            assert self.store.revision == self.model.revision
            assert self.store.compacted == self.model.compacted


def outcome(result: object) -> object:
    return type(result) if isinstance(result, Exception) else result


StoreMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestStoreModel = StoreMachine.TestCase


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_model_at_length() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=1500, stateful_step_count=100, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
