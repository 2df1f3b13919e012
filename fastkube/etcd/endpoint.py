"""Where clients of etcd reach the server: HTTP/2 and gRPC on a TCP port, with TLS or without; /health and /version too.

bytes → _http2.Connection → `Peer` → methods.py → a service → an answer → bytes, written once a turn of the loop
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import urllib.parse
from collections.abc import Awaitable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import orjson

from fastkube._http2 import PREFACE, Connection, Fault, Stream
from fastkube.etcd import refusals
from fastkube.etcd.channel import Channel
from fastkube.etcd.maintenance import VERSION
from fastkube.etcd.members import publish
from fastkube.etcd.methods import Call, Method, methods_of, unknown
from fastkube.etcd.node import Later, Node
from fastkube.etcd.options import EndpointOptions
from fastkube.etcd.refusals import Refusal, refusal_of
from fastkube.store import StoreError, grpc

if TYPE_CHECKING:
    from fastkube.store.consensus import RaftReplica

log = logging.getLogger(__name__)

_OVERHEAD_BYTES = 512 * 1024  # etcd's, of a message beside what --max-request-bytes counts
_WRITE_HIGH_BYTES = 1 << 20
_BACKLOG = 1024
_REQUIRES_LEADER = (b"hasleader", b"true")
_HANDSHAKE_TIMEOUT_S = 10.0


_LEADER_S = 0.6  # how often a leader is looked for
_LEADER_MISSES = 3  # etcd's, in a row, before streams that require one end


class Endpoint:
    """`urls` are known once `open` has returned."""

    def __init__(self, node: Node, options: EndpointOptions) -> None:
        self.node = node
        self.methods: dict[bytes, Method] = methods_of(node)
        self.peers: set[Peer] = set()
        self.urls: tuple[str, ...] = ()
        self._options = options
        self._open: list[asyncio.AbstractServer] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Raises OSError for a taken address, ValueError and ssl.SSLError for files that cannot be used."""
        loop = asyncio.get_running_loop()
        urls = []
        try:
            for url in self._options.urls:
                parts = urllib.parse.urlsplit(url)
                context = _tls_context(self._options) if parts.scheme == "https" else None
                timeout_s = _HANDSHAKE_TIMEOUT_S if context else None
                server = await loop.create_server(
                    lambda: Peer(self),
                    parts.hostname,
                    parts.port or 0,
                    ssl=context,
                    backlog=_BACKLOG,
                    ssl_handshake_timeout=timeout_s,
                )
                self._open.append(server)
                port = server.sockets[0].getsockname()[1]
                urls.append(f"{parts.scheme}://{parts.netloc.rpartition(':')[0]}:{port}")
        except BaseException:
            await self.close()
            raise
        self.urls = tuple(urls)
        if not self.node.identity.client_urls:
            self.node.identity = self.node.identity._replace(client_urls=self.urls)
        if (consensus := self.node.store.consensus) is not None:
            self._tasks = [
                loop.create_task(self._watch_leader(consensus)),
                loop.create_task(publish(self.node, consensus)),
            ]

    async def _watch_leader(self, consensus: RaftReplica) -> None:
        """Streams whose clients require a leader end when there is none for a while: they look for another server."""
        misses = 0
        while True:
            await self.node.clock.sleep(_LEADER_S)
            misses = 0 if consensus.leader else misses + 1
            if misses >= _LEADER_MISSES:
                for peer in list(self.peers):
                    peer.end_without_leader()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for server in self._open:
            server.close()
        for peer in list(self.peers):
            peer.go_away()
        self._open.clear()


def _tls_context(options: EndpointOptions) -> ssl.SSLContext:
    """Raises OSError and ssl.SSLError for files that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.load_cert_chain(options.cert_file, options.key_file)
    if options.client_cert_auth:
        context.load_verify_locations(options.trusted_ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class Peer(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._node = endpoint.node
        self._methods = endpoint.methods
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._greeting = b""
        self._is_http2 = False
        self._reading = False
        self._flush_due = False
        self.is_slow = False
        self.connection = Connection(
            self._on_message,
            self._on_end,
            self._on_reset,
            self._on_writable,
            self._node.max_request_bytes + _OVERHEAD_BYTES,
        )

    # ---------------------------------------------------------------- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(_WRITE_HIGH_BYTES)
        self._endpoint.peers.add(self)

    def connection_lost(self, problem: Exception | None) -> None:
        self._endpoint.peers.discard(self)
        for stream in list(self.connection.streams.values()):
            self._close_context(stream)

    def data_received(self, data: bytes) -> None:
        if not self._is_http2:
            data = self._greeting = self._greeting + data
            if PREFACE.startswith(data[: len(PREFACE)]) and len(data) < len(PREFACE):
                return
            if not data.startswith(PREFACE):
                self._serve_http1(data)
                return
            self._is_http2, self._greeting = True, b""
        self._reading = True
        try:
            self.connection.feed(data)
        except Fault as fault:
            log.info("etcd endpoint: a client broke the protocol: %s", fault)
            self._flush()
            self._transport.close()
            return
        finally:
            self._reading = False
        self._flush()

    def touch(self) -> None:
        if not self._reading and not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self.connection.pending and not self._transport.is_closing():
            self._transport.write(self.connection.take())

    def pause_writing(self) -> None:
        """The client does not read: then it is not read from either, and watches go back to the log."""
        self.is_slow = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self.is_slow = False
        self._transport.resume_reading()
        for stream in list(self.connection.streams.values()):
            self._on_writable(stream)

    def go_away(self) -> None:
        for stream in list(self.connection.streams.values()):
            self._close_context(stream)
        if self._is_http2:
            self.connection.go_away()
            self._flush()
        self._transport.close()

    # ---------------------------------------------------------------- calls

    def _on_message(self, stream: Stream, message: bytes) -> None:
        context = stream.context
        if context is not None:
            if isinstance(context, _Streamed):
                self._feed(stream, context, message)
            return
        method = self._methods.get(stream.path)
        try:
            if method is None:
                raise unknown(stream.path)
            self._check_leader(stream)
            if isinstance(method, Call):
                stream.context = method  # it has been asked
                self._call(stream, method, message)
            else:
                channel = Channel(self, stream)
                stream.context = context = _Streamed(channel, method.open(channel))
                self._feed(stream, context, message)
        except Exception as error:  # one call's failure must not end the others of its connection
            self._refuse(stream, error)

    def _feed(self, stream: Stream, context: _Streamed, message: bytes) -> None:
        try:
            context.handler.on_message(message)
        except ValueError as problem:
            context.handler.close()
            told = f"grpc: failed to unmarshal the received message: {problem}"
            self.connection.refuse(stream, grpc.INTERNAL, told)

    def _check_leader(self, stream: Stream) -> None:
        """Who requires a leader is told at once that there is none."""
        consensus = self._node.store.consensus
        if consensus is not None and not consensus.leader and _REQUIRES_LEADER in stream.headers:
            raise refusals.no_leader()

    def end_without_leader(self) -> None:
        for stream in list(self.connection.streams.values()):
            if isinstance(stream.context, _Streamed) and _REQUIRES_LEADER in stream.headers:
                self._close_context(stream)
                self._refuse(stream, refusals.no_leader())
                self.touch()

    def _call(self, stream: Stream, method: Call, message: bytes) -> None:
        try:
            request = method.request.decode(message)
        except ValueError as problem:
            raise Refusal(grpc.INTERNAL, f"grpc: error unmarshalling request: {problem}") from None
        if method.is_limited and len(message) > self._node.max_request_bytes:
            raise refusals.too_large()
        answer = method.handler(request)
        if answer.__class__ is Later:
            assert isinstance(answer, Later)
            answer.future.add_done_callback(partial(self._on_done, stream, method, answer))
        elif isinstance(answer, tuple):
            self.connection.reply(stream, method.response.encode(answer))
        else:
            task = self._loop.create_task(_awaited(answer))
            stream.context = task
            task.add_done_callback(partial(self._on_done, stream, method, None))

    def _on_done(self, stream: Stream, method: Call, later: Later | None, future: asyncio.Future[Any]) -> None:
        if stream.closed or future.cancelled():
            if not future.cancelled():
                future.exception()  # it is told to nobody any more
            return
        try:
            result = future.result()
            answer = result if later is None else later.finish(result)
            self.connection.reply(stream, method.response.encode(answer))
        except Exception as error:
            if later is not None and (again := later.again(error)) is not None:
                again.future.add_done_callback(partial(self._on_done, stream, method, again))
                return
            self._refuse(stream, error)
        self.touch()

    def _refuse(self, stream: Stream, error: Exception) -> None:
        if isinstance(error, StoreError):
            error = refusal_of(error)
        if isinstance(error, Refusal):
            self.connection.refuse(stream, error.code, error.text)
            return
        log.error("etcd endpoint: %s failed", stream.path.decode(errors="replace"), exc_info=error)
        self.connection.refuse(stream, grpc.INTERNAL, f"fastkube: {error!r}")

    def _on_end(self, stream: Stream) -> None:
        """The client has said all. A call that never said anything is none."""
        context = stream.context
        if context is None:
            self.connection.refuse(stream, grpc.INTERNAL, "grpc: the request has no message")
        elif isinstance(context, _Streamed):
            context.handler.on_end()

    def _on_reset(self, stream: Stream) -> None:
        self._close_context(stream)

    def _on_writable(self, stream: Stream) -> None:
        if isinstance(stream.context, _Streamed):
            stream.context.channel.on_writable()

    def _close_context(self, stream: Stream) -> None:
        context, stream.context = stream.context, None
        if isinstance(context, _Streamed):
            context.handler.close()
            context.channel.on_writable()
        elif isinstance(context, asyncio.Task):
            context.cancel()

    # ---------------------------------------------------------------- what is asked without gRPC

    def _serve_http1(self, data: bytes) -> None:
        """Probes and old tools: GET /health and /version, one request a connection."""
        if b"\r\n\r\n" not in data and len(data) < 8192:
            return
        words = data.split(b"\r\n", 1)[0].split(b" ")
        path = words[1].partition(b"?")[0] if len(words) == 3 else b""
        status, body = b"404 Not Found", b"404 page not found\n"
        if path == b"/version":
            status, body = b"200 OK", orjson.dumps({"etcdserver": VERSION, "etcdcluster": VERSION[:4] + "0"})
        elif path == b"/health":
            health = self._node.store.status()
            well = health.health == "serving"
            status = b"200 OK" if well else b"503 Service Unavailable"
            body = orjson.dumps({"health": "true" if well else "false", "reason": health.reason})
        head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        with contextlib.suppress(ConnectionError):
            self._transport.write(head % (status, len(body)) + body)
        self._transport.close()


class _Streamed:
    """What a stream of many messages has as its context."""

    __slots__ = ("channel", "handler")

    def __init__(self, channel: Channel, handler: Any) -> None:
        self.channel = channel
        self.handler = handler


async def _awaited(answer: Awaitable[tuple[Any, ...]]) -> tuple[Any, ...]:
    return await answer
