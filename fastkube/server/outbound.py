"""Requests that the server itself makes: to webhooks and to issuers of tokens."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from fastkube.client import kubeconfig
from fastkube.client.kubeconfig import Connection, TokenSource
from fastkube.client.transport import HttpTransport, TransportError

if TYPE_CHECKING:
    from pathlib import Path

    from fastkube.clock import Clock

_POOL_SIZE = 16
_USER_AGENT = "fastkube-apiserver"


class PeerError(Exception):
    """The peer could not be reached, or did not answer with the JSON that was asked for."""


class Peer:
    """One server that is spoken to, through a pool of its own. Raises ValueError for a connection that cannot be."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self.url = connection.server
        parts = urlsplit(connection.server)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._tokens = TokenSource(connection, clock)
        self._transport = HttpTransport(connection.endpoint(), pool_size=_POOL_SIZE)

    @classmethod
    def of_kubeconfig(cls, path: str | Path, clock: Clock) -> Peer:
        """The server of a kubeconfig file's current context, which is how webhooks are configured."""
        return cls(kubeconfig.load(path), clock)

    @classmethod
    def in_cluster(cls, clock: Clock) -> Peer:
        """The API server of the Pod that this process runs in; raises ConfigError elsewhere."""
        return cls(kubeconfig.in_cluster(), clock)

    @classmethod
    def of_url(cls, url: str, clock: Clock, *, ca: bytes = b"", token: str = "") -> Peer:
        """A server that asks for a token at most; `ca` (PEM) verifies it, else the system's authorities."""
        return cls(Connection(url, ca=ca, token=token), clock)

    async def post(self, document: Any, timeout_s: float) -> Any:
        """What the peer answers (JSON) to a document; raises PeerError."""
        return await self._ask("POST", self._path, orjson.dumps(document), timeout_s)

    async def get(self, timeout_s: float) -> Any:
        """The JSON document that the peer's URL names; raises PeerError."""
        return await self._ask("GET", self._path, b"", timeout_s)

    async def fetch(self, timeout_s: float) -> bytes:
        """What the peer's URL names, as it is; raises PeerError."""
        return await self._exchange("GET", self._path, b"", timeout_s)

    async def send(self, document: Any, timeout_s: float) -> None:
        """Posts a document whose answer does not matter as long as it is no failure; raises PeerError."""
        await self._exchange("POST", self._path, orjson.dumps(document), timeout_s)

    async def _ask(self, method: str, path: str, body: bytes, timeout_s: float) -> Any:
        try:
            return orjson.loads(await self._exchange(method, path, body, timeout_s))
        except orjson.JSONDecodeError:
            raise PeerError(f"{self.url}: the answer is no JSON") from None

    async def _exchange(self, method: str, path: str, body: bytes, timeout_s: float) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._transport.authority}", f"User-Agent: {_USER_AGENT}"]
        lines.append("Accept: application/json")
        if body:
            lines += ("Content-Type: application/json", f"Content-Length: {len(body)}")
        try:
            token = self._tokens.token()
            if token:
                lines.append(f"Authorization: Bearer {token}")
            response = await self._transport.request("\r\n".join(lines), body, timeout_s)
        except (TransportError, ssl.SSLError, OSError, TimeoutError, ValueError) as problem:
            raise PeerError(f"{self.url}: {problem}") from None
        if not 200 <= response.status < 300:
            raise PeerError(f"{self.url}: answered with status {response.status}")
        return response.body

    async def close(self) -> None:
        await self._transport.close()
