"""The way to a node's kubelet: its address out of the Node object, and the paths of its API for logs and streams.

Source: the kubelet's server (/containerLogs, /exec, /attach, /portForward), as kube-apiserver asks it. Addresses are
taken in the order of `--kubelet-preferred-address-types`. A name below `.localhost` is this machine (RFC 6761), which
is where fastkube's simulated nodes have their kubelet.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import msgpack

from fastkube import errors
from fastkube.client.transport import tls_context
from fastkube.errors import ApiError
from fastkube.server.answer import Answer, Streamed
from fastkube.server.proxy import Backend, proxy

if TYPE_CHECKING:
    from fastkube.server.app import ApiServer
    from fastkube.server.options import ServerOptions
    from fastkube.server.request import Request

Object = dict[str, Any]

_PORT = 10250
_LOGS = "/containerLogs/"
_LOG_OPTIONS = ("follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream")
_STREAM_NAMES = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
_TRUE = ("1", "true", "True", "TRUE", "t", "T")


class Kubelets:
    """How to reach the kubelet of any node. Files are read when the first is spoken to."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._tls: ssl.SSLContext | None = None

    def backend(self, node: Object) -> Backend:
        """Raises 500 for a node that has no address."""
        status = node.get("status") or {}
        port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or _PORT
        addresses = status.get("addresses") or ()
        for kind in self._options.kubelet_preferred_address_types:
            for each in addresses:
                if each.get("type") == kind and each.get("address"):
                    host = "127.0.0.1" if each["address"].endswith(".localhost") else each["address"]
                    return Backend(host, port, self._context(), each["address"])
        known = " ".join(f"{{{each.get('type')} {each.get('address')}}}" for each in addresses)
        raise errors.internal(f"no preferred addresses found; known addresses: [{known}]")

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            options = self._options
            authority = options.kubelet_certificate_authority
            # as upstream: without an authority the kubelet's certificate is not verified
            context = tls_context(Path(authority).read_bytes() if authority else b"", verified=bool(authority))
            if options.kubelet_client_certificate:
                context.load_cert_chain(Path(options.kubelet_client_certificate), options.kubelet_client_key or None)
            self._tls = context
        return self._tls


async def to_kubelet(server: ApiServer, request: Request, node: str, target: str) -> Answer | Streamed:
    """Hands the request to the node's kubelet. Raises 404 for a node that is gone, 500 where it cannot be reached."""
    item = server.store.get(f"/registry/nodes/{node}".encode())
    if item is None:
        raise errors.not_found("", "nodes", node)
    backend = server.kubelets.backend(msgpack.unpackb(item.value))

    def unreachable(problem: str) -> ApiError:
        if request.headers.get("Upgrade"):
            return errors.internal(f"error dialing backend: {problem}")
        return errors.internal(f'Get "https://{backend.address}{target}": {problem}')

    refused = _refused if target.startswith(_LOGS) else None
    timeout_s = server.options.kubelet_timeout_s
    return await proxy(
        server, request, backend, target, unreachable=unreachable, refused=refused, connect_timeout_s=timeout_s
    )


def _refused(code: int, text: str) -> ApiError:
    """A kubelet that has no log to give says why in plain text."""
    if code == 400:
        return errors.bad_request(text)
    if code == 404:
        return ApiError(404, "NotFound", f"the server could not find the requested resource ({text})")
    return errors.internal(f"an error on the server ({text}) has prevented the request from succeeding")


def log_target(pod: Object, container: str, query: dict[str, str]) -> str:
    asked = {key: query[key] for key in _LOG_OPTIONS if query.get(key)}
    path = _path(_LOGS.strip("/"), pod, container)
    return f"{path}?{urlencode(asked)}" if asked else path


def stream_target(what: str, pod: Object, container: str, query_text: str, query: dict[str, str]) -> str:
    """`what` is exec, attach or portForward; commands stay in their order."""
    if what == "portForward":
        ports = [("port", value) for key, value in _pairs(query_text) if key == "ports"]
        path = _path(what, pod, "")
        return f"{path}?{urlencode(ports)}" if ports else path
    asked = [(name, "1") for key, name in _STREAM_NAMES.items() if query.get(key) in _TRUE]
    asked += [pair for pair in _pairs(query_text) if pair[0] == "command"]
    return f"{_path(what, pod, container)}?{urlencode(asked)}"


def _pairs(query_text: str) -> list[tuple[str, str]]:
    from urllib.parse import parse_qsl

    return parse_qsl(query_text, keep_blank_values=True)


def _path(what: str, pod: Object, container: str) -> str:
    metadata = pod["metadata"]
    parts = [what, metadata["namespace"], metadata["name"], *([container] if container else [])]
    return "/" + "/".join(quote(part, safe="") for part in parts)
