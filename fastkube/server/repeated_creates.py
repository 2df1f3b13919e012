"""Creates that repeat: what a POST means, who asks and whether they may is the same for the next one with the same
header, and a body that fits a mould is all that is left of it (registry/moulds.py).

    header ─▶ Plan ─ body ─▶ Cast ─ store ─▶ answer

The first goes the whole way through the stages and leaves a plan; what the plan rests on is checked each time, as for
reads that repeat (repeats.py). Whatever is not exactly as it was goes the whole way: no seat is free, a body that is
still to come or fits no mould, a name that is taken.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from fastkube.registry.creations import Draft
from fastkube.server.answer import Answer, Streamed, render_head
from fastkube.server.media import JSON
from fastkube.server.plans import Grounds
from fastkube.server.request import Request, new_audit_id
from fastkube.store import KeyExists, KeyMissing, RevisionMismatch, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.http_parser import RawRequestMessage

    from fastkube.registry.strategy import Call, UserInfo
    from fastkube.server.app import ApiServer
    from fastkube.server.connection import Connection
    from fastkube.server.fair_queues import Level
    from fastkube.server.forms import View
    from fastkube.server.request import RequestInfo


class Made(Protocol):
    """What is written: `value` is what is stored, `json` what a client is shown."""

    @property
    def value(self) -> bytes: ...

    def json(self, revision: int) -> bytes: ...


OPTIONS = frozenset(("fieldManager", "fieldValidation"))
"""Of a query that has more than these, more depends."""

LENGTH = b"\r\nContent-Length: "


class CreatePlan(Grounds):
    """All that is known of a POST before its body."""

    __slots__ = ("call", "encode", "info", "media", "sent", "user")

    call: Call
    """That of the request which left the plan; only its time is changed."""
    sent: str
    """Content-Type of the body, `media` of the answer."""
    media: bytes
    encode: Callable[[bytes, int], bytes] | None
    """Makes the answer of what is stored; None: the mould has it."""
    info: RequestInfo
    user: UserInfo


_P = TypeVar("_P", bound=CreatePlan)


def plan_of(request: Request, call: Call, view: View, plan: _P, options: frozenset[str] = OPTIONS) -> _P | None:
    """What the plan's own are of; None for a request of which more depends than its header and body."""
    if request.query.keys() - options or request.warnings or view.asks or view.encoder is None:
        return None
    plan.call, plan.info, plan.user = call, request.info, request.user
    plan.sent = request.headers.get("Content-Type", "")
    plan.media = view.form.media
    plan.encode = None if plan.media is JSON else view.encoder
    head = render_head(request, 201, plan.media, b"", b"", True).removesuffix(b"\r\n")
    plan.head, _, plan.tail = head.partition(request.audit_id.encode())
    return plan


class Writing:
    """A write under way, and the store's Waiter for it. `first` begins the head of its answer.

    It is answered in the turn of the loop in which the store is done with it, before the watchers are told. Among the
    requests under way it stands for its own, which is made only where more than an answer becomes of it.
    """

    __slots__ = (
        "_cast",
        "_done",
        "_first",
        "_plan",
        "_server",
        "connection",
        "deadline",
        "head",
        "started",
        "timed_out",
    )

    def __init__(
        self,
        server: ApiServer,
        plan: CreatePlan,
        first: bytes,
        cast: Made,
        connection: Connection,
        head: RawRequestMessage,
    ) -> None:
        self._server = server
        self._plan = plan
        self._first = first
        self._cast = cast
        self._done = False
        self.connection = connection
        self.head = head
        self.started = server.now()
        self.deadline = self.started + server.options.request_timeout_s
        self.timed_out = False

    @property
    def task(self) -> Writing:
        """What can be cancelled."""
        return self

    @property
    def method(self) -> str:
        return self.head.method

    @property
    def info(self) -> RequestInfo:
        return self._plan.info

    @property
    def user(self) -> UserInfo:
        return self._plan.user

    @property
    def seat(self) -> Level | None:
        return self._plan.level

    def begun(self) -> None:
        """Counts it among the requests that are under way."""
        self._server.running.add(self)

    def _request(self) -> Request:
        """No longer under way as this."""
        self._server.running.discard(self)
        request = Request(self.connection, self.head, self.started)
        request.info, request.user, request.seat = self.info, self.user, self.seat
        request.deadline, request.timed_out = self.deadline, self.timed_out
        request.audit_id = new_audit_id().decode()
        return request

    @property
    def _code(self) -> int:
        return int(self._first[9:12])

    def _revision(self, result: Any) -> int:
        """That which the store's answer tells."""
        revision: int = result
        return revision

    def done(self) -> bool:
        return self._done

    def follow(self, future: asyncio.Future[Any]) -> None:
        """For a write that has a future."""
        future.add_done_callback(self._heard)

    def _heard(self, future: asyncio.Future[Any]) -> None:
        if not self._done:
            failure = future.exception()
            if failure is None:
                self.set_result(future.result())
            else:
                self._done = True
                self._failed(failure)

    def set_result(self, result: Any) -> None:
        self._done = True
        encode = self._plan.encode
        try:
            revision = self._revision(result)
            body = self._cast.json(revision) if encode is None else encode(self._cast.value, revision)
        except Exception as problem:
            self.set_exception(problem)
        else:
            self._answer(body)

    def set_exception(self, failure: Exception) -> None:
        """What is said of it is no business of the store's, which has others to tell."""
        self._done = True
        asyncio.get_running_loop().call_soon(self._failed, failure)

    def cancel(self) -> None:
        """Its time is over, though the store may still do it."""
        if not self._done:
            self._done = True
            self._failed(asyncio.CancelledError())

    def _answer(self, body: bytes) -> None:
        server, plan, connection = self._server, self._plan, self.connection
        if server.health.stopping:
            server.end(self._request(), Answer(self._code, body, plan.media))
            return
        server.running.discard(self)
        if plan.level is not None:
            plan.level.release()
        length = b"%d" % len(body)
        head = (self._first, new_audit_id(), plan.tail, server.date(), LENGTH, length, b"\r\n\r\n")
        connection.answer(b"".join((*head, body)), True)
        plan.series.count(self._code, connection.since - self.started)

    def _failed(self, failure: BaseException) -> None:
        server, request = self._server, self._request()
        # nothing is written: the long way says why, or finds one
        if isinstance(failure, KeyExists | KeyMissing | RevisionMismatch):
            if request.seat is not None:
                request.seat.release()
            server.serve(Request(request.connection, request.head, request.started))
        elif isinstance(failure, asyncio.CancelledError) and not request.timed_out:
            server.end(request, Streamed(499, False))
        else:
            server.end(request, server.failed(request, failure))


def begin(
    server: ApiServer, plan: CreatePlan, connection: Connection, head: RawRequestMessage, body: bytes | None
) -> bytes | None:
    """b"" when the create is under way; None when it has to go the long way."""
    if body is None:  # it is still to come
        return None
    registry, call = server.registry, plan.call
    call.now = server.clock.time()
    cast = registry.recast(call, plan.sent, body)
    if cast is None or isinstance(cast, Draft):
        return None
    writing = Writing(server, plan, plan.head, cast, connection, head)
    return write(writing, server.store.create_for, cast.key, cast.value)


def write(writing: Writing, submit: Callable[..., None], *what: Any) -> bytes | None:
    """Takes a seat and submits; b"" when the write is under way, None when it has to go the long way."""
    level = writing.seat
    if level is not None and not level.try_take():
        return None
    try:
        submit(writing, *what)
    except Exception as failure:
        if level is not None:
            level.release()
        if isinstance(failure, StoreError):
            return None
        raise
    writing.begun()
    return b""
