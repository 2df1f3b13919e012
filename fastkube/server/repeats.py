"""Reads that repeat: what a GET of an object means, who asks and whether they may is the same for the next one with
the same header to the same collection.

The first goes the whole way through the stages and leaves a `Plan`; those that follow are answered from it: look the
object up, encode it, write. What a plan rests on is checked each time: the generations of the rules of authorization,
of flow control and of the catalog, and until when the credentials are good. Whatever is not exactly as it was (no such
object, no free seat, a long answer) goes the whole way, so every refusal is worded in one place.

Once its bytes are known, a GET that came alone is not parsed either (`again`): two that are equal from the method to
the last slash of the path, and from the end of the path to the end of the header, are equal but for the name. Whatever
stands there in place of a name is none of any object, and so goes the whole way. Nor is a POST that came alone, body
and all, with the header of one before, which tells how long its body is.

No plans are made where a request leaves more traces than its answer (audit), is not decided by what the server knows
(webhooks, names in rules), or has to wait (several servers). The header counts byte by byte, credentials included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fastkube.registry.strategy import UserInfo
from fastkube.server import repeated_changes, repeated_creates, repeated_deletes
from fastkube.server.answer import GZIP_MIN_BYTES, Answer, render_head
from fastkube.server.plans import Grounds, keep
from fastkube.server.repeated_creates import LENGTH, CreatePlan
from fastkube.server.repeated_writes import WritePlans
from fastkube.server.request import Request, new_audit_id

if TYPE_CHECKING:
    from aiohttp.http_parser import RawRequestMessage

    from fastkube.registry.deletion import DeleteOptions
    from fastkube.registry.strategy import Call
    from fastkube.server.app import ApiServer
    from fastkube.server.connection import Connection
    from fastkube.server.forms import View
    from fastkube.server.repeated_changes import ChangePlan, Target
    from fastkube.server.repeated_deletes import DeletePlan

_IDENTITIES_MAX = 256
_HEADER_MAX_BYTES = 8 * 1024
_NAME_MAX = 253
_PERSONAL = frozenset((b"audit-id", b"content-length", b"transfer-encoding", b"upgrade", b"expect"))
"""With one of these a request is not like the one before."""

_VERSION_BYTES = len(b" HTTP/1.1")
_HEAD_END = b"\r\n\r\n"
_P = ord("P")

_PERSONAL_WRITE = _PERSONAL - {b"content-length"}

Header = tuple[tuple[bytes, bytes], ...]


class Plans:
    """Plans by the path of the collection and the header; of reads by what stands around the name as well, of creates
    by the bytes of the head, with how many follow."""

    __slots__ = ("changes", "creates", "deletes", "heads", "reads", "whole")

    def __init__(self) -> None:
        self.whole: dict[tuple[bytes, bytes], Plan] = {}
        self.reads: dict[tuple[str, Header], Plan] = {}
        self.creates: dict[tuple[str, Header], CreatePlan] = {}
        self.heads: dict[bytes, tuple[CreatePlan, RawRequestMessage, int]] = {}
        self.changes: dict[tuple[Target, Header], ChangePlan] = {}
        self.deletes: dict[tuple[Target, Header], DeletePlan] = {}


class Plan(Grounds):
    """All that is known of a GET before the name of the object."""

    __slots__ = ("encode", "key_prefix")

    key_prefix: bytes
    encode: Callable[[bytes, int], bytes]


class Repeats:
    """The plans of one server. `serve` is asked first about each request."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._store = server.store
        self._of_tokens = Plans()
        self._of_certificates: dict[tuple[str, tuple[str, ...]], Plans] = {}
        self.batches = WritePlans(server)
        self.enabled = server.auditor is None and not server.store.is_replicated

    def serve(self, connection: Connection, head: RawRequestMessage) -> bytes | None:
        """The whole answer; None when the request has to go through the stages."""
        try:
            return self._serve(connection, head)
        except Exception as failure:
            request = Request(connection, head, self._server.now())
            answer = self._server.failed(request, failure)
            return answer.rendered(request, self._server.date(), True) if isinstance(answer, Answer) else None

    def _serve(self, connection: Connection, head: RawRequestMessage) -> bytes | None:
        plans = connection.plans
        if plans is None or head.should_close:
            return None
        if head.method == "POST":
            create = plans.creates.get((head.path, head.raw_headers))
            if create is None or not self._holds(create):
                return None
            if connection.whole is not None:
                known = _head_of(connection.whole)
                keep(plans.heads, known, (create, head, len(connection.whole) - len(known)))
            return repeated_creates.begin(self._server, create, connection, head, connection.whole_body())
        if head.method in repeated_changes.METHODS:
            return self._change(plans, connection, head)
        if head.method == "DELETE":
            return self._delete(plans, connection, head)
        collection, _, name = head.path.rpartition("/")
        plan = plans.reads.get((collection, head.raw_headers))
        if plan is None or head.method != "GET":
            return None
        if connection.whole is not None:
            before, _, after = _around_name(connection.whole)
            keep(plans.whole, (before, after), plan)
        return self._answer(plan, name.encode("utf-8", "surrogateescape"))

    def again(self, connection: Connection, data: bytes) -> bytes | None:
        """The whole answer to a GET or POST that is not parsed; None when it has to be."""
        plans = connection.plans
        assert plans is not None
        try:
            if data[0] == _P:  # a POST, if it is known
                return self._create_again(connection, plans, data)
            before, name, after = _around_name(data)
            plan = plans.whole.get((before, after))
            return None if plan is None else self._answer(plan, name)
        except Exception:  # it happens again in `serve`, where the request is known
            return None

    def _create_again(self, connection: Connection, plans: Plans, data: bytes) -> bytes | None:
        """The header tells how long the body is, so what was a whole request with as many bytes is one again."""
        head = _head_of(data)
        known = plans.heads.get(head)
        if known is None:
            return None
        plan, message, length = known
        if len(data) - len(head) != length or not self._holds(plan):
            return None
        body = data[len(head) :]
        connection.take_body(body)
        return repeated_creates.begin(self._server, plan, connection, message, body)

    def _answer(self, plan: Plan, name: bytes) -> bytes | None:
        """What answers the GET of the object of that name."""
        server = self._server
        started = server.now()
        if len(name) > _NAME_MAX or not self._holds(plan):
            return None
        found = self._store.newest(plan.key_prefix + name)
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
        return b"".join((plan.head, new_audit_id(), plan.tail, server.date(), LENGTH, length, b"\r\n\r\n", body))

    def _change(self, plans: Plans, connection: Connection, head: RawRequestMessage) -> bytes | None:
        target, name = repeated_changes.split(head.method, head.path)
        plan = plans.changes.get((target, head.raw_headers))
        if plan is None or not self._holds(plan):
            return None
        return repeated_changes.begin(self._server, plan, connection, head, name)

    def _delete(self, plans: Plans, connection: Connection, head: RawRequestMessage) -> bytes | None:
        target, name = repeated_changes.split(head.method, head.path)
        plan = plans.deletes.get((target, head.raw_headers))
        if plan is None or not self._holds(plan):
            return None
        return repeated_deletes.begin(self._server, plan, connection, head, name)

    def _holds(self, plan: Grounds) -> bool:
        """Whether all that a plan rests on is as it was."""
        server = self._server
        self._store.catch_up()
        return (
            plan.stand(server)
            and plan.flow == server.flow.generation
            and plan.until > server.clock.time()
            and not server.health.stopping
        )

    # ---------------------------------------------------------------- learning

    def learn(self, request: Request, view: View) -> None:
        """Makes a plan of a GET of an object that was allowed and is about to be answered, if it can be repeated."""
        if not (self.enabled and self._is_plain(request, view)):
            return
        server, info = self._server, request.info
        collection, _, name = request.head.path.rpartition("/")
        if name != info.name or not server.authorizer.allows_all(request.user, info):
            return
        plan = Plan()
        if not self._rest(plan, request):
            return
        plan.key_prefix = view.rtype.key(info.namespace, "")
        plan.encode = view.encoder or view.one
        head = render_head(request, 200, view.form.media, b"", b"", True).removesuffix(b"\r\n")
        plan.head, _, plan.tail = head.partition(request.audit_id.encode())
        plans = self._plans_for(request)
        keep(plans.reads, (collection, request.head.raw_headers), plan)

    def learn_create(self, request: Request, call: Call, view: View) -> None:
        """Makes a plan of a POST whose object was cast, if it can be repeated."""
        self.learn_batched(request, call, view)
        if not self._may_learn_write(request, call):
            return
        plan = repeated_creates.plan_of(request, call, view, CreatePlan())
        if plan is None or not self._rest(plan, request):
            return
        keep(self._plans_for(request).creates, (request.head.path, request.head.raw_headers), plan)

    def learn_batched(self, request: Request, call: Call, view: View) -> None:
        """Makes a plan of a write of a batch, if it can be repeated."""
        if _is_of_batch(request):
            self.batches.learn(request, call, view)

    def learn_change(self, request: Request, call: Call, view: View) -> None:
        """Makes a plan of a PATCH or PUT that succeeded, if it can be repeated."""
        self.learn_batched(request, call, view)
        if not self._may_be_like_others(request) or not self._server.registry.foretells(call):
            return
        plans = request.connection.plans
        target, name = repeated_changes.split(request.method, request.head.path)
        key = (target, request.head.raw_headers)
        if name != call.name or (plans is not None and key in plans.changes):
            return
        if not self._may_learn_write(request, call):
            return
        plan = repeated_changes.change_plan_of(request, call, view)
        if plan is None or not self._rest(plan, request):
            return
        keep(self._plans_for(request).changes, key, plan)

    def learn_delete(self, request: Request, call: Call, view: View, body: bytes, options: DeleteOptions) -> None:
        """Makes a plan of a DELETE that succeeded, if it can be repeated; those of a batch go the whole way."""
        target, name = repeated_changes.split(request.method, request.head.path)
        if name != call.name or not self._may_learn_write(request, call) or not self._server.registry.ends_alone(call):
            return
        plan = repeated_deletes.delete_plan_of(request, call, view, body, options)
        if plan is None or not self._rest(plan, request):
            return
        keep(self._plans_for(request).deletes, (target, request.head.raw_headers), plan)

    def _may_learn_write(self, request: Request, call: Call) -> bool:
        """Whether nothing about the request is its own but its path and body, and any name would do."""
        if not self._may_be_like_others(request) or not _is_impersonal(request, _PERSONAL_WRITE):
            return False
        if self._server.registry.strategy(call.rtype).expires:  # what keeps such an object has to be waited for
            return False
        return bool(self._server.authorizer.allows_all(request.user, request.info))

    def _may_be_like_others(self, request: Request) -> bool:
        """A write of a batch has no header of its own; repeated_writes.py has the plans of those."""
        return self.enabled and not _is_of_batch(request)

    def _plans_for(self, request: Request) -> Plans:
        connection = request.connection
        plans = connection.plans = self._plans_of(connection.certificate_user)
        return plans

    def _rest(self, plan: Grounds, request: Request) -> bool:
        """Notes what a plan rests on; False for a request that nothing can be rested on."""
        server = self._server
        plan.note(server)
        plan.until = server.authenticator.good_until(request)
        plan.level = server.flow.classify(request.user, request.info).level
        plan.series = server.metrics.series(request.info)
        plan.flow = server.flow.generation
        return bool(plan.until)

    @staticmethod
    def _is_plain(request: Request, view: View) -> bool:
        """Whether nothing about the request is its own but the name."""
        info = request.info
        if request.query or request.warnings or view.asks or request.method != "GET":
            return False
        if info.subresource or info.parts != 2 or (info.resource == "namespaces" and not info.group):
            return False
        return _is_impersonal(request, _PERSONAL)

    def _plans_of(self, identity: UserInfo | bool | None) -> Plans:
        """The header tells who asks, but for a client certificate."""
        if not isinstance(identity, UserInfo):
            return self._of_tokens
        if len(self._of_certificates) >= _IDENTITIES_MAX:
            self._of_certificates.clear()
        return self._of_certificates.setdefault((identity.name, identity.groups), Plans())


def _is_of_batch(request: Request) -> bool:
    return request.connection.transport is None


def _is_impersonal(request: Request, personal: frozenset[bytes]) -> bool:
    """Whether the next request may have the same header, and mean the same by it."""
    header = request.head.raw_headers
    names = [name.lower() for name, _ in header]
    if any(name in personal or name.startswith(b"impersonate-") for name in names):
        return False
    return sum(len(name) + len(value) for name, value in header) <= _HEADER_MAX_BYTES


def _head_of(data: bytes) -> bytes:
    """A request's bytes up to its body."""
    return data[: data.find(_HEAD_END) + len(_HEAD_END)]


def _around_name(data: bytes) -> tuple[bytes, bytes, bytes]:
    """A request's bytes up to the last slash of its path, from there to the version of HTTP, and the rest."""
    end = data.find(b"\r\n") - _VERSION_BYTES
    cut = data.rfind(b"/", 0, max(end, 0)) + 1
    return data[:cut], data[cut:end], data[end:]
