"""Calls to webhooks: where a clientConfig leads, over which connection, and what went wrong in Go's words.

A Service is resolved here, since the server is no part of the cluster's network: to its external name, or to one of
its ready endpoints. TLS is verified with the configured caBundle, for the name `SERVICE.NAMESPACE.svc`.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import os
import posixpath
import random
import socket
import ssl
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import msgpack
import orjson

from fastkube.api.field import quote
from fastkube.client.transport import Endpoint, HttpTransport, Response, TransportError, tls_context
from fastkube.clock import Clock, RealClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastkube.registry.strategy import Object
    from fastkube.server.admission.hook_users import HookUser, HookUsers
    from fastkube.server.admission.lookup import Lookups

_USER_AGENT = "kube-apiserver-admission"
_POOL_SIZE = 64
_ANSWER_BYTES_MAX = 3 * 1024 * 1024
_TOLD_BYTES = 2048
_LOST = "the server closed the connection"


class HookError(Exception):
    """The webhook could not be asked, or answered with something else than an AdmissionReview."""


class Place(NamedTuple):
    """Where a webhook is: the URL that messages name, what its certificate must be for, and where to connect to."""

    url: str
    path: str
    server_name: str
    host: str
    port: int


class HookClient:
    """Connections to webhooks, kept alive, one pool for each place and caBundle."""

    def __init__(self, lookups: Lookups, kubeconfig: str = "", clock: Clock | None = None) -> None:
        """`kubeconfig` says whom webhooks see: it names users after hosts. Raises ValueError."""
        self._users: HookUsers | None = None
        if kubeconfig:
            from fastkube.server.admission.hook_users import HookUsers

            self._users = HookUsers(kubeconfig, clock or RealClock())
        self._store = lookups.store
        self._services = lookups.builtin("", "services")
        self._slices = lookups.builtin("discovery.k8s.io", "endpointslices")
        self._pools: dict[tuple[str, str, int, str], HttpTransport] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def post(self, config: Object, document: Object, timeout_s: int) -> Any:
        """The JSON that a webhook answers with; `config` is its clientConfig. Raises HookError."""
        place = self._place(config, timeout_s)
        body = orjson.dumps(document)
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._exchange(place, config, body, timeout_s)
        except TimeoutError:
            raise HookError(f"Post {quote(place.url)}: context deadline exceeded") from None
        except (TransportError, ssl.SSLError, OSError) as problem:
            raise HookError(f"Post {quote(place.url)}: {_told(problem, place)}") from None
        return _document(response, str(document.get("apiVersion")))

    async def _exchange(self, place: Place, config: Object, body: bytes, timeout_s: float) -> Response:
        user = self._users.for_host(place.server_name, place.port) if self._users is not None else None
        transport = self._transport(place, config.get("caBundle") or "", user)
        token = user.tokens.token() if user is not None else ""
        host = f"{place.server_name}:{place.port}" if config.get("service") else urlsplit(place.url).netloc
        head = (
            f"POST {place.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {_USER_AGENT}\r\n"
            f"Accept: application/json, */*\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        if token:
            head += f"\r\nAuthorization: Bearer {token}"
        try:
            return await transport.request(head, body, timeout_s)
        except TransportError as problem:
            if str(problem) != _LOST:
                raise
        return await transport.request(head, body, timeout_s)  # a kept connection that the webhook had given up

    def _transport(self, place: Place, bundle: str, user: HookUser | None) -> HttpTransport:
        key = (place.server_name, place.host, place.port, bundle)
        found = self._pools.get(key)
        if found is None:
            tls = _tls(bundle)
            if user is not None:
                user.show_to(tls)
            endpoint = Endpoint(place.host, place.port, tls=tls, server_name=place.server_name)
            found = self._pools[key] = HttpTransport(endpoint, pool_size=_POOL_SIZE)
        return found

    def forget(self) -> None:
        """Closes all pools: the configurations have changed."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            task = asyncio.ensure_future(pool.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    # ---------------------------------------------------------------- places

    def _place(self, config: Object, timeout_s: int) -> Place:
        query = f"?timeout={timeout_s}s"
        if config.get("url"):
            parts = urlsplit(config["url"])
            host, port = parts.hostname or "", parts.port or 443
            path = _clean(parts.path) + query
            return Place(f"{parts.scheme}://{parts.netloc}{path}", path, host, host, port)
        service = config["service"]
        name, namespace, port = service["name"], service["namespace"], service.get("port") or 443
        server_name = f"{name}.{namespace}.svc"
        path = _clean(service.get("path") or "") + query
        url = f"https://{server_name}:{port}{path}"
        try:
            host, target = self._resolve(namespace, name, port)
        except LookupError as problem:
            raise HookError(f"Post {quote(url)}: {problem.args[0]}") from None
        return Place(url, path, server_name, host, target)

    def _resolve(self, namespace: str, name: str, port: int) -> tuple[str, int]:
        """Raises LookupError."""
        item = self._store.get(self._services.key(namespace, name))
        if item is None:
            raise LookupError(f"service {quote(name)} not found")
        spec = msgpack.unpackb(item.value).get("spec") or {}
        if spec.get("type") == "ExternalName":
            return spec.get("externalName") or "", port
        names = [each.get("name") or "" for each in spec.get("ports") or () if each.get("port") == port]
        if not names:
            raise LookupError(f"no service port {port} found for service {quote(name)}")
        places = list(self._ready(namespace, name, names[0]))
        if not places:
            raise LookupError(f"no endpoints available for service {quote(name)}")
        return random.choice(places)

    def _ready(self, namespace: str, name: str, port_name: str) -> Iterator[tuple[str, int]]:
        prefix = self._slices.key(namespace, "")
        for item in self._store.range(prefix, prefix[:-1] + b"0").items:
            piece: Object = msgpack.unpackb(item.value)
            if (piece["metadata"].get("labels") or {}).get("kubernetes.io/service-name") != name:
                continue
            ports = [each.get("port") for each in piece.get("ports") or () if (each.get("name") or "") == port_name]
            for endpoint in piece.get("endpoints") or ():
                if ports and (endpoint.get("conditions") or {}).get("ready") is not False:
                    yield from ((address, ports[0]) for address in endpoint["addresses"])


def _clean(path: str) -> str:
    """As Go's path.Join leaves it: no doubled or trailing slashes."""
    return posixpath.normpath("/" + path.lstrip("/"))


def _tls(bundle: str) -> ssl.SSLContext:
    """Raises HookError for a caBundle that holds no certificates."""
    try:
        return tls_context(base64.b64decode(bundle))
    except (ssl.SSLError, ValueError):
        raise HookError("unable to load root certificates: unable to parse bytes as PEM block") from None


# ---------------------------------------------------------------- what went wrong

_UNKNOWN_AUTHORITY = frozenset((2, 18, 19, 20, 21))  # X509_V_ERR_*: no issuer found, or a self-signed one


def _told(problem: BaseException, place: Place) -> str:
    cause = problem.__cause__ or problem
    address = f"[{place.host}]:{place.port}" if ":" in place.host else f"{place.host}:{place.port}"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: {_certificate_problem(cause, place)}"
    if isinstance(cause, ssl.SSLError):
        return f"tls: {cause.reason or cause}"
    if isinstance(cause, socket.gaierror):
        return f"dial tcp: lookup {place.host}: no such host"
    if isinstance(cause, OSError):
        number = cause.errno if cause.errno is not None else _errno_of(cause)
        if number == errno.ETIMEDOUT:
            return f"dial tcp {address}: i/o timeout"
        return f"dial tcp {address}: connect: {os.strerror(number).lower() if number else cause}"
    return "EOF" if str(problem) == _LOST else str(problem)


def _errno_of(problem: OSError) -> int | None:
    """asyncio tells of several failed addresses in one error, which has no number of its own."""
    return errno.ECONNREFUSED if "refused" in str(problem) or "Connect call failed" in str(problem) else None


def _certificate_problem(problem: ssl.SSLCertVerificationError, place: Place) -> str:
    if problem.verify_code in _UNKNOWN_AUTHORITY:
        return "x509: certificate signed by unknown authority"
    if problem.verify_code in (9, 10):
        return "x509: certificate has expired or is not yet valid"
    if "match" in problem.verify_message.lower():
        return f"x509: certificate is not valid for {place.server_name}"
    return f"x509: {problem.verify_message}"


_STATUS_TEXTS = {
    400: "the server rejected our request for an unknown reason",
    401: "the server has asked for the client to provide credentials",
    404: "the server could not find the requested resource",
    405: "the server does not allow this method on the requested resource",
    409: "the server reported a conflict",
    422: "the server rejected our request due to an error in our request",
    429: "the server has received too many requests and has asked us to try again later",
    503: "the server is currently unable to handle the request",
    504: "the server was unable to return a response in the time allotted, but may still be processing the request",
}


def _document(response: Response, version: str) -> Any:
    if not 200 <= response.status < 300:
        raise HookError(_refusal(response))
    if not response.body:
        media = response.headers.get("content-type", "")
        raise HookError(f"0-length response with status code: {response.status} and content type: {media}")
    if len(response.body) > _ANSWER_BYTES_MAX:
        raise HookError(f"webhook response is larger than {_ANSWER_BYTES_MAX} bytes")
    try:
        answer = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        from fastkube.api import gojson

        problem = gojson.fault(response.body) or "invalid JSON"
        raise HookError(f"couldn't get version/kind; json parse error: {problem}") from None
    told = (answer.get("apiVersion"), answer.get("kind")) if isinstance(answer, dict) else (None, None)
    if told == ("admission.k8s.io/v1beta1", "AdmissionReview") and version == "admission.k8s.io/v1":
        raise HookError("converting (v1beta1.AdmissionReview) to (v1.AdmissionReview): unknown conversion")
    return answer


def _is_text(media: str) -> bool:
    """Only what says that it is text is shown to people."""
    return not media or media.startswith("text/")


def _refusal(response: Response) -> str:
    known = _STATUS_TEXTS.get(response.status)
    if known is not None:
        return known
    media = response.headers.get("content-type", "")
    told = response.body[:_TOLD_BYTES].decode(errors="replace").strip() if _is_text(media) else "unknown"
    if response.status in (403, 415):
        return told
    if response.status == 406:
        unknown = told in ("", "unknown")
        return "the server was unable to respond with a content type that the client supports" if unknown else told
    if response.status >= 500:
        return f"an error on the server ({quote(told)}) has prevented the request from succeeding"
    return f"the server responded with the status code {response.status} but did not return more information"
