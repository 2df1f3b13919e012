"""Reads that repeat: what a GET of an object means, who asks and whether they may is the same for the next one with
the same header to the same collection.

The first goes the whole way through the stages and leaves a `Plan`; those that follow are answered from it: look the
object up, encode it, write. What a plan rests on is checked each time: the generations of the rules of authorization,
of flow control and of the catalog, and until when the credentials are good. Whatever is not exactly as it was (no such
object, no free seat, a long answer) goes the whole way, so every refusal is worded in one place.

No plans are made where a request leaves more traces than its answer (audit), is not decided by what the server knows
(webhooks, names in rules), or has to wait (several servers). The header counts byte by byte, credentials included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fastkube.registry.strategy import UserInfo
from fastkube.server.answer import GZIP_MIN_BYTES, render_head
from fastkube.server.request import new_audit_id

if TYPE_CHECKING:
    from aiohttp.http import RawRequestMessage

    from fastkube.server.app import ApiServer
    from fastkube.server.connection import Connection
    from fastkube.server.fair_queues import Level
    from fastkube.server.forms import View
    from fastkube.server.metrics import Series
    from fastkube.server.request import Request

_PLANS_MAX = 1024
_IDENTITIES_MAX = 256
_HEADER_MAX_BYTES = 8 * 1024
_NAME_MAX = 253
_PERSONAL = frozenset((b"audit-id", b"content-length", b"transfer-encoding", b"upgrade", b"expect"))
"""With one of these a request is not like the one before."""

Header = tuple[tuple[bytes, bytes], ...]
Plans = dict[tuple[str, Header], "Plan"]
"""By the path of the collection and the header."""


class Plan:
    """All that is known of a GET before the name of the object."""

    __slots__ = ("catalog", "encode", "flow", "head", "key_prefix", "level", "rules", "series", "tail", "until")

    key_prefix: bytes
    encode: Callable[[bytes, int], bytes]
    level: Level | None
    series: Series
    until: float
    """Wall time until which the credentials are good."""
    head: bytes
    """The answer's head up to the value of Audit-Id, and `tail` from there to the value of Date."""
    tail: bytes
    rules: int
    """Generation of the rules of authorization; and so on."""
    flow: int
    catalog: int


class Repeats:
    """The plans of one server. `serve` is asked first about each request."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._store = server.store
        self._of_tokens: Plans = {}
        self._of_certificates: dict[tuple[str, tuple[str, ...]], Plans] = {}
        self.enabled = server.auditor is None and not server.store.is_replicated

    def serve(self, connection: Connection, head: RawRequestMessage) -> bytes | None:
        """The whole answer; None when the request has to go through the stages."""
        plans = connection.plans
        if plans is None:
            return None
        collection, _, name = head.path.rpartition("/")
        plan = plans.get((collection, head.raw_headers))
        if plan is None or head.method != "GET" or len(name) > _NAME_MAX:
            return None
        server = self._server
        started = server.now()
        self._store.catch_up()
        if (
            plan.rules != server.authorizer.generation
            or plan.flow != server.flow.generation
            or plan.catalog != server.catalog.generation
            or plan.until <= server.clock.time()
            or server.aggregator.remotes
            or server.health.stopping
            or head.should_close
        ):
            return None
        found = self._store.newest(plan.key_prefix + name.encode("utf-8", "surrogateescape"))
        if found is None:
            return None
        level = plan.level
        if level is not None:
            if not level.try_take():
                return None
            level.release()
        body = plan.encode(*found)
        if len(body) >= GZIP_MIN_BYTES:
            return None
        plan.series.count(200, server.now() - started)
        length = b"%d" % len(body)
        return b"".join((plan.head, new_audit_id(), plan.tail, server.date(), _LENGTH, length, b"\r\n\r\n", body))

    # ---------------------------------------------------------------- learning

    def learn(self, request: Request, view: View) -> None:
        """Makes a plan of a GET of an object that was allowed and is about to be answered, if it can be repeated."""
        if not (self.enabled and self._is_plain(request, view)):
            return
        server, connection, info = self._server, request.connection, request.info
        collection, _, name = request.head.path.rpartition("/")
        if name != info.name or not server.authorizer.allows_all(request.user, info):
            return
        plan = Plan()
        plan.until = server.authenticator.good_until(request)
        if not plan.until:
            return
        plan.key_prefix = view.rtype.key(info.namespace, "")
        plan.encode = view.encoder or view.one
        plan.level = server.flow.classify(request.user, info).level
        plan.series = server.metrics.series(info)
        head = render_head(request, 200, view.form.media, b"", b"", True).removesuffix(b"\r\n")
        plan.head, _, plan.tail = head.partition(request.audit_id.encode())
        plan.rules = server.authorizer.generation
        plan.flow, plan.catalog = server.flow.generation, server.catalog.generation
        plans = connection.plans = self._plans_of(connection.certificate_user)
        if len(plans) >= _PLANS_MAX:
            plans.clear()
        plans[collection, request.head.raw_headers] = plan

    @staticmethod
    def _is_plain(request: Request, view: View) -> bool:
        """Whether nothing about the request is its own but the name."""
        info, head = request.info, request.head
        if request.query or request.warnings or view.asks or request.method != "GET":
            return False
        if info.subresource or info.parts != 2 or (info.resource == "namespaces" and not info.group):
            return False
        names = [name.lower() for name, _ in head.raw_headers]
        if any(name in _PERSONAL or name.startswith(b"impersonate-") for name in names):
            return False
        return sum(len(name) + len(value) for name, value in head.raw_headers) <= _HEADER_MAX_BYTES

    def _plans_of(self, identity: UserInfo | bool | None) -> Plans:
        """The header tells who asks, but for a client certificate."""
        if not isinstance(identity, UserInfo):
            return self._of_tokens
        if len(self._of_certificates) >= _IDENTITIES_MAX:
            self._of_certificates.clear()
        return self._of_certificates.setdefault((identity.name, identity.groups), {})


_LENGTH = b"\r\nContent-Length: "
