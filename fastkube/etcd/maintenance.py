"""The Maintenance service, and what is true of Auth."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from fastkube.etcd import messages, refusals
from fastkube.etcd.channel import Channel
from fastkube.etcd.keys import END, PREFIX
from fastkube.etcd.messages import NOSPACE, Empty, HeaderOnly
from fastkube.etcd.node import Node
from fastkube.store import StoreError, grpc
from fastkube.store.snapshot import backup

VERSION = "3.6.5"
"""Of etcd, whose API and behaviour this is; clients derive from it what they may use."""

_PIECE_BYTES = 32 << 10  # etcd's


class Maintenance:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._store = node.store

    async def status(self, _: Empty) -> messages.StatusResponse:
        node, status, consensus = self._node, self._store.status(), self._store.consensus
        errors = [f"{status.health}: {status.reason}"] if status.health != "serving" else []
        leader, learner, index = node.identity.member_id, False, status.applied
        if consensus is not None:
            member = consensus.status()
            leader, index, learner = member.leader, member.commit, member.id in member.membership.conf.learners
            if not leader:
                errors.append("etcdserver: no leader")
        return messages.StatusResponse(
            node.header(),
            VERSION,
            status.file_bytes,
            leader,
            index,
            node.term,
            status.applied,
            errors,
            status.live_bytes,
            learner,
        )

    async def alarm(self, request: messages.AlarmRequest) -> messages.AlarmResponse:
        """The store raises its alarm, and takes it back, by itself: as long as there is no room for a put."""
        if request.action == messages.ALARM_ACTIVATE:
            raise refusals.not_supported("an alarm that is activated by a client")
        found = []
        if self._store.status().health == "no space" and request.alarm in (messages.NO_ALARM, NOSPACE):
            found.append(messages.AlarmMember(self._node.identity.member_id, NOSPACE))
        return messages.AlarmResponse(self._node.header(), found)

    async def defragment(self, _: Empty) -> HeaderOnly:
        """Nothing is to be done: LMDB uses the pages again that a compaction frees."""
        return HeaderOnly(self._node.header())

    async def hash(self, _: Empty) -> messages.HashResponse:
        """Over all of etcd's keys, their older versions included."""
        revision = self._store.revision
        value, _compacted = await self._hash(revision)
        return messages.HashResponse(self._node.header(revision), value)

    async def hash_kv(self, request: messages.HashKvRequest) -> messages.HashKvResponse:
        """Over what happened up to a revision; equal on all members that are compacted alike."""
        revision = request.revision or self._store.revision
        if revision > self._store.revision or revision < self._store.compacted:
            self._store.get(PREFIX, revision)  # raises what it is refused with
        value, compacted = await self._hash(revision)
        return messages.HashKvResponse(self._node.header(), value, compacted or -1, revision)

    async def _hash(self, revision: int) -> tuple[int, int]:
        compacted = self._store.compacted
        value = 0
        for number, piece in enumerate(self._pieces(revision, compacted)):
            value = zlib.crc32(piece, value)
            if number % 512 == 511:
                await asyncio.sleep(0)
        return value, compacted

    def _pieces(self, revision: int, compacted: int) -> Iterator[bytes]:
        """What there was at the compaction, and every event from there on."""
        if compacted:
            for item in self._store.scan(PREFIX, END, revision=compacted):
                yield messages.KEY_VALUE.encode(item)
        first = compacted + 1
        while first <= revision:
            chunk = self._store.events(PREFIX, END, first)
            for event in chunk.events:
                if event.revision <= revision:
                    yield messages.KEY_VALUE.encode((*event[1:3], *event[4:5], event.revision, *event[5:7]))
            first = chunk.reached + 1

    async def move_leader(self, request: messages.MoveLeaderRequest) -> HeaderOnly:
        consensus = self._store.consensus
        if consensus is None:
            raise refusals.bad_transferee()
        status = consensus.status()
        if status.leader != status.id:
            raise refusals.not_leader()
        if request.target_id not in status.membership.conf.voters:
            raise refusals.bad_transferee()
        await consensus.transfer(request.target_id)
        return HeaderOnly(self._node.header())

    async def auth_status(self, _: Empty) -> messages.AuthStatusResponse:
        return messages.AuthStatusResponse(self._node.header(), False, 1)

    async def authenticate(self, _: Empty) -> HeaderOnly:
        """Clients that are given a user go on without when they hear this."""
        raise refusals.auth_not_enabled()


class Snapshot:
    """What etcd's clients see of the store as a file of etcd's (backup.py), in pieces, its SHA-256 behind it."""

    def __init__(self, node: Node, channel: Channel) -> None:
        self._node = node
        self._channel = channel
        self._task: asyncio.Task[None] | None = None

    def on_message(self, message: bytes) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def on_end(self) -> None:
        """It has asked; now it reads."""

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        store = self._node.store
        copy = store.path / f"outgoing-{secrets.token_hex(8)}"
        try:
            await backup(store.path, copy, "fastkube.etcd.backup")
            with copy.open("rb") as file:
                await self._send(file)
            self._channel.finish()
        except (OSError, StoreError) as problem:
            self._channel.refuse(grpc.INTERNAL, f"etcdserver: {problem}")
        finally:
            copy.unlink(missing_ok=True)

    async def _send(self, file: BinaryIO) -> None:
        digest = hashlib.sha256()
        left = os.fstat(file.fileno()).st_size
        while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
            digest.update(piece)
            left -= len(piece)
            self._tell(left, piece)
            await self._channel.writable()
        self._tell(0, digest.digest())

    def _tell(self, left: int, piece: bytes) -> None:
        answer = messages.SnapshotResponse(self._node.header(), left, piece)
        self._channel.send(messages.SNAPSHOT_RESPONSE.encode(answer))
