"""What aggregated API servers say of themselves: their resources, and their OpenAPI documents."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import orjson

from fastkube.client.transport import Endpoint, HttpTransport, TransportError

if TYPE_CHECKING:
    from fastkube.server.proxy import Backend

Object = dict[str, Any]

_TIMEOUT_S = 5.0


class RemoteFailure(Exception):
    """The server could not be asked, in Go's words."""


async def ask(backend: Backend, path: str, headers: Iterable[tuple[str, str]]) -> tuple[int, bytes]:
    """Status and body of a GET over a connection of its own."""
    transport = HttpTransport(Endpoint(backend.host, backend.port, tls=backend.tls, server_name=backend.server_name))
    lines = [f"GET {path} HTTP/1.1", f"Host: {backend.server_name}", "Accept: application/json", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers]
    try:
        response = await transport.request("\r\n".join(lines), b"", _TIMEOUT_S)
    except TransportError as problem:
        raise RemoteFailure(_in_go(backend, problem)) from None
    except (TimeoutError, OSError, ssl.SSLError) as problem:
        raise RemoteFailure(str(problem)) from None
    finally:
        await transport.close()
    return response.status, response.body


def _in_go(backend: Backend, problem: TransportError) -> str:
    cause = problem.__cause__
    if isinstance(cause, ConnectionRefusedError):
        return f"dial tcp {backend.address}: connect: connection refused"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: x509: {cause.verify_message}"
    if "timed out" in str(problem) or "within" in str(problem):
        return "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    return str(problem)


class Documents:
    """Of one group version. `fresh`: the server answers; what is known from before stays known while it does not."""

    def __init__(self, group: str, version: str) -> None:
        self.group = group
        self.version = version
        self.fresh = False
        self.resources: list[Object] = []
        """As in an APIResourceList."""
        self.v3_hash = ""
        """Of its OpenAPI v3 document; "" when it has none."""
        self.v2: Object | None = None

    async def refresh(self, backend: Backend, headers: list[tuple[str, str]]) -> bool:
        """Asks for everything anew; True when it has changed. Raises RemoteFailure."""
        before = (self.resources, self.v3_hash, self.v2)
        name = f"apis/{self.group}/{self.version}"
        listed = await _json(backend, f"/{name}", headers)
        if listed is not None:
            self.resources = [one for one in listed.get("resources") or () if isinstance(one, dict)]
        index = await _json(backend, "/openapi/v3", headers)
        url = (((index or {}).get("paths") or {}).get(name) or {}).get("serverRelativeURL") or ""
        if url:
            self.v3_hash = url.rpartition("hash=")[2] if "hash=" in url else "0"
        self.v2 = await _json(backend, "/openapi/v2", headers)
        return before != (self.resources, self.v3_hash, self.v2)


async def _json(backend: Backend, path: str, headers: list[tuple[str, str]]) -> Object | None:
    """The document, None if there is none."""
    code, body = await ask(backend, path, headers)
    if code != 200:
        return None
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def aggregated_entries(documents: Documents) -> list[Object]:
    """The resources in the form of aggregated discovery."""
    entries: dict[str, Object] = {}
    for one in documents.resources:
        name = one.get("name") or ""
        if "/" not in name:
            kind = _kind(documents, one)
            scope = "Namespaced" if one.get("namespaced") else "Cluster"
            entry: Object = {"resource": name, "responseKind": kind, "scope": scope}
            entry["singularResource"] = one.get("singularName") or ""
            entry["verbs"] = one.get("verbs") or []
            entry |= {key: one[key] for key in ("shortNames", "categories") if one.get(key)}
            entries[name] = entry
    for one in documents.resources:
        parent, slash, subresource = (one.get("name") or "").partition("/")
        if slash and parent in entries:
            told = {"subresource": subresource, "responseKind": _kind(documents, one), "verbs": one.get("verbs") or []}
            entries[parent].setdefault("subresources", []).append(told)
    return [entries[name] for name in sorted(entries)]


def _kind(documents: Documents, resource: Object) -> Object:
    group, version = resource.get("group"), resource.get("version")
    return {
        "group": documents.group if group is None else group,
        "version": documents.version if version is None else version,
        "kind": resource.get("kind") or "",
    }
