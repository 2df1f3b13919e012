"""Peers over mutual TLS: frames of msgpack, one connection in each direction, snapshots on one of their own.

A connection begins with a greeting that says what it is for and between whom; members of another cluster, and whoever
has no certificate of the peers' authority, get no further. Then, by purpose:

    raft      frames for the replica, one way; nothing is answered on it
    snapshot  offer → offset from which on it is needed → chunks → whether it is whole; a broken one goes on from there
    admin     a call → its answer; for the command line and for members that are about to join

Nobody waits for a slow peer: what exceeds its buffer is dropped and reported, and Raft sends it again when it can.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fastkube._raftlog import Message
from fastkube.store.errors import DISK_FULL, StoreError, StoreUnavailable, error_from_wire, error_to_wire
from fastkube.store.members import Membership, parse_peer_url
from fastkube.store.wire import LENGTH, MAX_FRAME_BYTES, frame, message_from_wire, message_to_wire, unpack

log = logging.getLogger(__name__)

_GREETING = 0
_OFFER = 10
_OFFSET = 11
_CHUNK = 12
_END = 13
_WHOLE = 14
_ADMIN = 20
_ADMIN_ANSWER = 21

_VERSION = 1
_CONNECT_TIMEOUT_S = 3.0
_ANSWER_TIMEOUT_S = 30.0
_BACKOFF_S = (0.02, 0.05, 0.1, 0.2, 0.5)
_BUFFER_BYTES = 32 << 20
_CHUNK_BYTES = 256 << 10
_SNAPSHOT_TRIES = 5


class PeerFiles(NamedTuple):
    """PEM files: a certificate that serves both sides, its key, and the authority of all peers."""

    cert: str
    key: str
    trusted_ca: str

    def context(self, purpose: ssl.Purpose) -> ssl.SSLContext:
        """Raises OSError and ssl.SSLError for unusable files."""
        context = ssl.create_default_context(purpose, cafile=self.trusted_ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.cert, self.key)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


class Receiver(Protocol):
    """The replica, as its transport sees it."""

    def receive(self, sender: int, kind: int, body: Any) -> None: ...

    def reached(self, member: int) -> None: ...

    def unreachable(self, member: int) -> None: ...

    def snapshot_received(self, path: Path, message: Message) -> None: ...


Admin = Callable[[str, Any], Awaitable[Any]]
"""Answers a call of the command line: method and arguments. Raises StoreError."""


class TlsTransport:
    """`listen` first, then `serve` once there is a replica."""

    def __init__(self, cluster: int, member: int, files: PeerFiles, folder: Path, bytes_per_s: int) -> None:
        self._cluster = cluster
        self._member = member
        self._dial = files.context(ssl.Purpose.SERVER_AUTH)
        self._accept = files.context(ssl.Purpose.CLIENT_AUTH)
        self._folder = folder
        self._bytes_per_s = bytes_per_s
        self._peers: dict[int, _Peer] = {}
        self._receiver: Receiver | None = None
        self._admin: Admin | None = None
        self._listeners: list[asyncio.AbstractServer] = []
        self._inbound: set[asyncio.Task[None]] = set()
        self._closed = False

    async def listen(self, urls: tuple[str, ...]) -> None:
        """Raises OSError for a taken address."""
        for url in urls:
            host, port = parse_peer_url(url)
            listener = await asyncio.start_server(self._accepted, host, port, ssl=self._accept, limit=1 << 20)
            self._listeners.append(listener)

    def serve(self, receiver: Receiver, admin: Admin) -> None:
        self._receiver, self._admin = receiver, admin
        for peer in self._peers.values():
            peer.start(receiver)

    def know(self, membership: Membership) -> None:
        """Peers that came, moved or went."""
        urls = {one.id: one.peer_urls for one in membership.members if one.id != self._member}
        for member in [one for one in self._peers if one not in urls]:
            self._peers.pop(member).close()
        for member, its in urls.items():
            if member in self._peers:
                self._peers[member].urls = its  # of its next connection: what is on the way on this one shall arrive
            elif not self._closed:
                greeting = frame(_GREETING, (_VERSION, "raft", self._cluster, self._member, member))
                peer = self._peers[member] = _Peer(member, its, greeting, self._dial)
                if self._receiver is not None:
                    peer.start(self._receiver)

    def send(self, to: int, kind: int, body: Any) -> None:
        peer = self._peers.get(to)
        if peer is not None:
            peer.send(frame(kind, body))

    def close(self) -> None:
        self._closed = True
        for listener in self._listeners:
            listener.close()
        for peer in self._peers.values():
            peer.close()
        self._peers.clear()
        for task in self._inbound:
            task.cancel()

    # ---------------------------------------------------------------- what others begin

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._inbound.add(task)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                kind, greeting = await read_frame(reader)
            version, purpose, cluster, sender, target = greeting
            if kind != _GREETING or version != _VERSION:
                return
            if purpose == "admin":
                await self._serve_admin(reader, writer)
            elif (cluster, target) != (self._cluster, self._member):
                log.warning("a peer of another cluster, or for another member: %x to %x", sender, target)
            elif purpose == "raft":
                await self._serve_raft(reader, sender)
            elif purpose == "snapshot":
                await self._receive_snapshot(reader, writer)
        except (OSError, ValueError, TypeError, asyncio.IncompleteReadError, TimeoutError) as error:
            log.debug("a peer's connection ended: %r", error)
        except asyncio.CancelledError:
            if not self._closed:
                raise
        finally:
            self._inbound.discard(task)
            writer.close()

    async def _serve_raft(self, reader: asyncio.StreamReader, sender: int) -> None:
        while self._receiver is not None and not self._closed:
            kind, body = await read_frame(reader)
            self._receiver.receive(sender, kind, body)

    async def _serve_admin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while self._admin is not None:
            _, (method, arguments) = await read_frame(reader)
            try:
                answer = (True, await self._admin(method, arguments))
            except StoreError as refusal:
                answer = (False, error_to_wire(refusal))
            if answer[0] and isinstance(answer[1], Path):
                await self._send_file(writer, answer[1])
                continue
            writer.write(frame(_ADMIN_ANSWER, answer))
            await writer.drain()

    async def _send_file(self, writer: asyncio.StreamWriter, path: Path) -> None:
        """An answer that is a file; it is removed afterwards."""
        try:
            size, digest = await asyncio.to_thread(_digest, path)
            writer.write(frame(_ADMIN_ANSWER, (True, (size, digest))))
            await self._send_chunks(writer, path, 0)
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)

    # ---------------------------------------------------------------- snapshots

    async def send_snapshot(self, to: int, path: Path, message: Message) -> bool:
        """True when the other side has all of it; a connection that breaks is tried again and goes on where it was."""
        size, digest = await asyncio.to_thread(_digest, path)
        offer = frame(_OFFER, (size, digest, message_to_wire(message)))
        for attempt in range(_SNAPSHOT_TRIES):
            peer = self._peers.get(to)
            if peer is None or self._closed:
                return False
            try:
                return await self._try_snapshot(peer, path, offer)
            except (OSError, ValueError, asyncio.IncompleteReadError, TimeoutError) as error:
                log.info("a snapshot for %x was interrupted: %r", to, error)
                await asyncio.sleep(_BACKOFF_S[attempt])
        return False

    async def _try_snapshot(self, peer: _Peer, path: Path, offer: bytes) -> bool:
        reader, writer = await connect(peer.urls[0], self._dial)
        try:
            writer.write(frame(_GREETING, (_VERSION, "snapshot", self._cluster, self._member, peer.member)) + offer)
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                _, offset = await read_frame(reader)
            await self._send_chunks(writer, path, offset)
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                _, whole = await read_frame(reader)
            return bool(whole)
        finally:
            writer.close()

    async def _send_chunks(self, writer: asyncio.StreamWriter, path: Path, offset: int) -> None:
        """Not faster than allowed, so that followers which are up to date get their entries in time."""
        loop = asyncio.get_running_loop()
        begun, sent = loop.time(), 0
        with await asyncio.to_thread(open, path, "rb") as file:
            file.seek(offset)
            while chunk := file.read(_CHUNK_BYTES):
                writer.write(frame(_CHUNK, chunk))
                async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                    await writer.drain()
                sent += len(chunk)
                ahead_s = begun + sent / self._bytes_per_s - loop.time()
                await asyncio.sleep(max(0.0, ahead_s))
        writer.write(frame(_END, None))
        await writer.drain()

    async def _receive_snapshot(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, (size, digest, packed) = await read_frame(reader)
        partial = self._folder / f"incoming-{digest.hex()}.partial"
        for other in self._folder.glob("incoming-*.partial"):
            if other != partial:
                other.unlink(missing_ok=True)
        offset = partial.stat().st_size if partial.exists() else 0
        writer.write(frame(_OFFSET, offset))
        try:
            await _save_chunks(reader, partial, offset)
        except OSError as error:
            if error.errno in DISK_FULL:  # the log needs what is left more than what is begun here
                partial.unlink(missing_ok=True)
            raise
        found = await asyncio.to_thread(_digest, partial)
        whole = found == (size, digest)
        if whole and self._receiver is not None:
            complete = partial.with_suffix(".mdb")
            partial.rename(complete)
            self._receiver.snapshot_received(complete, message_from_wire(packed))
        else:
            partial.unlink(missing_ok=True)
        writer.write(frame(_WHOLE, whole))
        await writer.drain()


class _Peer:
    """The way to one member: connected whenever that is possible."""

    def __init__(self, member: int, urls: tuple[str, ...], greeting: bytes, context: ssl.SSLContext) -> None:
        self.member = member
        self.urls = urls
        self._greeting = greeting
        self._context = context
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._receiver: Receiver | None = None

    def start(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._task = asyncio.get_running_loop().create_task(self._stay_connected(receiver))

    def send(self, data: bytes) -> None:
        writer = self._writer
        if writer is None:
            return
        if writer.transport.get_write_buffer_size() > _BUFFER_BYTES:
            writer.transport.abort()  # it does not read: what is on its way is lost, and it will be told anew
            return
        writer.write(data)

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def _stay_connected(self, receiver: Receiver) -> None:
        failures = 0
        while True:
            url = self.urls[failures % len(self.urls)]
            try:
                reader, self._writer = await connect(url, self._context)
                failures = 0
                self._writer.write(self._greeting)
                receiver.reached(self.member)
                await reader.read(1)  # nothing comes: this ends when the connection does
            except (OSError, ValueError, TimeoutError) as error:
                log.debug("no connection to %s: %r", url, error)
            if self._writer is not None:
                self._writer.close()
                self._writer = None
                receiver.unreachable(self.member)
            await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
            failures += 1


async def connect(url: str, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = parse_peer_url(url)
    async with asyncio.timeout(_CONNECT_TIMEOUT_S):
        return await asyncio.open_connection(host, port, ssl=context, server_hostname=host, limit=1 << 20)


async def read_frame(reader: asyncio.StreamReader) -> Any:
    """(kind, body). Raises ValueError for what is none."""
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    if length > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {length} bytes")
    return unpack(await reader.readexactly(length))


async def _save_chunks(reader: asyncio.StreamReader, partial: Path, offset: int) -> None:
    with await asyncio.to_thread(open, partial, "ab" if offset else "wb") as file:
        while True:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                kind, chunk = await read_frame(reader)
            if kind != _CHUNK:
                return
            file.write(chunk)


def _digest(path: Path) -> tuple[int, bytes]:
    with open(path, "rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()


class AdminClient:
    """Calls to any member, by the credentials of a peer: what the command line uses."""

    def __init__(self, endpoints: tuple[str, ...], files: PeerFiles) -> None:
        self._endpoints = endpoints
        self._context = files.context(ssl.Purpose.SERVER_AUTH)

    async def call(self, method: str, *arguments: Any) -> Any:
        """The answer of the first endpoint that can be reached. Raises StoreError."""
        async with self._asked(method, arguments) as (answer, _):
            return answer

    async def save(self, target: Path) -> int:
        """Write a member's snapshot to a new file; its size. Raises StoreError, OSError."""
        partial = target.with_name(target.name + ".partial")
        async with self._asked("snapshot", ()) as ((size, digest), reader):
            await _save_chunks(reader, partial, 0)
        if await asyncio.to_thread(_digest, partial) != (size, digest):
            partial.unlink(missing_ok=True)
            raise StoreUnavailable("the snapshot did not arrive whole")
        partial.rename(target)
        return int(size)

    @contextlib.asynccontextmanager
    async def _asked(self, method: str, arguments: Any) -> Any:
        reader, writer = await self._connect()
        try:
            writer.write(frame(_GREETING, (_VERSION, "admin", 0, 0, 0)) + frame(_ADMIN, (method, arguments)))
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                _, (well, answer) = await read_frame(reader)
            if not well:
                raise error_from_wire(*answer)
            yield answer, reader
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            raise StoreUnavailable(f"the member did not answer: {error!r}") from error
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        problems = []
        for endpoint in self._endpoints:
            try:
                return await connect(endpoint, self._context)
            except (OSError, TimeoutError) as error:
                problems.append(f"{endpoint}: {error or 'timed out'}")
        raise StoreUnavailable("no member can be reached: " + "; ".join(problems))
