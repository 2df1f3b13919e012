"""What a request is about: its path and method read as Kubernetes reads them ("Request verbs and authorization").

    /api/v1/namespaces/{ns}/pods/{name}/log        group "", version v1, resource pods, subresource log
    /apis/{group}/{version}/{resource}/{name}      the same for named groups
    /apis/{group}/{version}/watch/...              the old form of a watch
    everything else                                a non-resource path

The verb is get, list, watch, create, update, patch, delete or deletecollection for resources, and the lower-case method
for other paths. A list or watch whose field selector names one object counts, for authorization, as about that name.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from fastkube._casts import Numbers
from fastkube.registry.strategy import UserInfo

if TYPE_CHECKING:
    import asyncio

    from aiohttp.http_parser import RawRequestMessage

    from fastkube.server.audit import Record
    from fastkube.server.connection import Connection
    from fastkube.server.fair_queues import Level, Ticket

_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_NAMESPACE_SUBRESOURCES = ("status", "finalize")
_LONG_RUNNING_SUBRESOURCES = frozenset(("attach", "exec", "proxy", "log", "portforward"))
_FALSE = ("false", "0")

ANONYMOUS = UserInfo("system:anonymous", ("system:unauthenticated",))


def _audit_series() -> bytes:
    digits = f"{random.getrandbits(74):019x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[12:15]}-a{digits[15:18]}-".encode()


new_audit_id = Numbers(_audit_series(), random.getrandbits(40)).draw
"""A UUID that no other request has: random for each process, but for the last group, which counts."""


class Attributes:
    """What is to be done to what: all that authorization looks at. For other paths only `path` and `verb` count."""

    __slots__ = (
        "field_selector", "group", "is_resource", "key", "name", "namespace", "path", "resource", "subresource", "verb",
        "version",
    )  # fmt: skip

    field_selector: str
    key: tuple[str, str, str, str, str]
    """(verb, group, resource, subresource, namespace): all that most decisions depend on."""

    def __init__(
        self, verb: str, group: str = "", resource: str = "", subresource: str = "", namespace: str = "",
        name: str = "", version: str = "", path: str = "", field_selector: str = "",
    ) -> None:  # fmt: skip
        self.verb = verb
        self.group = group
        self.version = version
        self.resource = resource
        self.subresource = subresource
        self.namespace = namespace
        self.name = name
        self.path = path
        self.field_selector = field_selector
        self.is_resource = not path
        self.key = (verb, group, resource, subresource, namespace)


class UnreadablePathError(Exception):
    """The path looks like one of a resource but names none."""


class RequestInfo(Attributes):
    """The attributes of a request, read from its path."""

    __slots__ = ("legacy_watch", "parts", "prefix")

    prefix: str
    """`api` or `apis`."""
    parts: int
    """How many segments follow the namespace: 1 a collection, 2 an object, 3 a subresource; more is no valid path."""
    legacy_watch: bool

    def __init__(self, method: str, path: str, query: dict[str, str]) -> None:
        self.path = path
        self.is_resource = self.legacy_watch = False
        self.prefix = self.group = self.version = self.namespace = self.resource = self.subresource = self.name = ""
        self.parts = 0
        self.field_selector = query.get("fieldSelector", "")
        parts = path.strip("/").split("/")
        prefix = parts[0]
        if prefix == "api" and len(parts) >= 3:
            self._read_resource(method, parts, 1, query)
        elif prefix == "apis" and len(parts) >= 4:
            self.group = parts[1]
            self._read_resource(method, parts, 2, query)
        else:
            self.verb = method.lower()
        self.key = (self.verb, self.group, self.resource, self.subresource, self.namespace)

    def _read_resource(self, method: str, parts: list[str], at: int, query: dict[str, str]) -> None:
        self.is_resource = True
        self.prefix = parts[0]
        self.version = parts[at]
        at += 1
        verb = _VERBS.get(method, "")
        if parts[at] in ("watch", "proxy"):
            if len(parts) == at + 1:
                raise UnreadablePathError(f"unable to determine kind and namespace from url, {self.path}")
            verb = parts[at]
            self.legacy_watch = True
            at += 1
        if parts[at] == "namespaces" and len(parts) > at + 1:
            self.namespace = parts[at + 1]
            if len(parts) > at + 2 and parts[at + 2] not in _NAMESPACE_SUBRESOURCES:
                at += 2
        count = self.parts = len(parts) - at
        self.resource = parts[at]
        if count >= 2:
            self.name = parts[at + 1]
            if count >= 3 and verb != "proxy":
                self.subresource = parts[at + 2]
        elif verb == "get":
            verb = "watch" if "watch" in query and query["watch"].lower() not in _FALSE else "list"
            self.name = _single_name(self.field_selector)
        elif verb == "delete":
            verb = "deletecollection"
        self.verb = verb

    @property
    def long_running(self) -> bool:
        """Neither counted against the limits nor ended by the request timeout."""
        return self.verb in ("watch", "proxy") or self.subresource in _LONG_RUNNING_SUBRESOURCES


def exact_term(selector: str, path: str) -> str:
    """The value which one term of a field selector demands of `path`; "" when none does."""
    if path not in selector:
        return ""
    for term in selector.split(","):
        field, found, value = term.partition("=")
        if found and field.strip() == path:
            return value.removeprefix("=").strip()
    return ""


def _single_name(selector: str) -> str:
    """The name that a list or watch is restricted to; "" where it is none that a path could hold."""
    name = exact_term(selector, "metadata.name")
    return "" if "/" in name or "%" in name or name in (".", "..") else name


def split_target(target: str) -> tuple[str, str]:
    """The decoded path, and the query as it is, of a request target."""
    if not target.startswith("/"):  # absolute form: http://host/path
        _, _, rest = target.partition("://")
        _, slash, rest = rest.partition("/")
        target = slash + rest or "/"
    path, _, query = target.partition("?")
    if "%" in path:
        path = unquote(path)
    return path, query


def parse_query(text: str) -> dict[str, str]:
    """Of a key that is given twice the first value counts, as in Go."""
    parsed: dict[str, str] = {}
    if "%" not in text and "+" not in text:
        pairs = [(key, value) for key, _, value in (pair.partition("=") for pair in text.split("&") if pair)]
    else:
        pairs = parse_qsl(text, keep_blank_values=True)
    for key, value in pairs:
        if key not in parsed:
            parsed[key] = value
    return parsed


class Request:
    """One HTTP request on its way through the pipeline."""

    __slots__ = (
        "audit", "audit_id", "connection", "deadline", "flow", "head", "headers", "info", "method", "query",
        "query_text", "seat", "started", "streaming", "task", "timed_out", "user", "warnings",
    )  # fmt: skip

    info: RequestInfo

    def __init__(self, connection: Connection, head: RawRequestMessage, started: float) -> None:
        self.connection = connection
        self.head = head
        self.method = head.method
        self.headers: Any = head.headers
        self.query: dict[str, str] = {}
        self.query_text = ""
        self.started = started
        """Seconds of the loop's clock, as is `deadline`."""
        self.deadline = 0.0
        self.timed_out = False
        self.streaming = False
        """Whether the head was written already: no other answer is possible then."""
        self.task: asyncio.Future[Any] | None = None
        """What works on the request, once it had to wait for something: it can be cancelled."""
        self.user = ANONYMOUS
        self.audit_id = ""
        self.audit: Record | None = None
        """Set where the request is audited."""
        self.flow = b""
        """The header lines that tell which flow schema and priority level took the request."""
        self.seat: Level | Ticket | None = None
        """What it holds of the requests in flight; to be released at its end."""
        self.warnings: list[str] = []
