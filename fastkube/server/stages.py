"""The stages of a request, in upstream's order: each a function of (server, request) that returns None to go on, an
Answer, or something to await that gives one of both. Awaiting is the exception: a read never does, a write once, for
its commit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from fastkube import errors
from fastkube.api.field import quote
from fastkube.config import parse_duration
from fastkube.server.answer import Answer, Streamed
from fastkube.server.audit import tell_decision
from fastkube.server.authn import Elsewhere
from fastkube.server.authz import forbidden
from fastkube.server.authz_webhook import Undecided, settled
from fastkube.server.batch import BATCH_PATH, handle_batch
from fastkube.server.calls import shutting_down, unreadable_path
from fastkube.server.fair_queues import Level
from fastkube.server.handlers import handle_resource
from fastkube.server.impersonation import impersonated, wanted_identity
from fastkube.server.paths import handle_path
from fastkube.server.request import (
    ANONYMOUS,
    Request,
    RequestInfo,
    UnreadablePathError,
    new_audit_id,
    parse_query,
    split_target,
)

if TYPE_CHECKING:
    from fastkube.server.app import ApiServer

_WAITING_SHARE = 0.25
"""Of its time, a request may wait so much for a seat."""

_KNOWN_PATHS_MAX = 4096
_known_paths: dict[tuple[str, str], RequestInfo] = {}

Stage = Callable[["ApiServer", Request], "Answer | Awaitable[Answer | Streamed | None] | None"]


def identify(server: ApiServer, request: Request) -> None:
    """Every request has an audit ID: the client's, or a new one."""
    given = request.headers.get("Audit-Id")
    if given is not None and given.isascii() and given.isprintable():
        request.audit_id = given[:64]
        return
    request.audit_id = new_audit_id().decode()


def parse_path(server: ApiServer, request: Request) -> Answer | None:
    """Attributes say nothing but what the path does and nobody changes them, so those of a path are kept."""
    asked = (request.method, request.head.path)
    known = _known_paths.get(asked)
    if known is not None:
        request.info = known
        return None
    path, query = split_target(request.head.path)
    if query:
        request.query_text = query
        request.query = parse_query(query)
    try:
        request.info = RequestInfo(request.method, path, request.query)
    except UnreadablePathError as unread:
        return unreadable_path(path, str(unread))
    if not query:
        if len(_known_paths) >= _KNOWN_PATHS_MAX:
            _known_paths.clear()
        _known_paths[asked] = request.info
    return None


def authenticate(server: ApiServer, request: Request) -> Awaitable[None] | None:
    try:
        request.user = server.authenticator.authenticate(request)
    except Elsewhere as asked:
        return _authenticate_elsewhere(server, request, asked)
    return None


async def _authenticate_elsewhere(server: ApiServer, request: Request, asked: Elsewhere) -> None:
    request.user = await server.authenticator.ask_elsewhere(asked)


def audit(server: ApiServer, request: Request) -> Answer | Awaitable[Answer | None] | None:
    return server.auditor.begin(request) if server.auditor is not None else None


def impersonate(server: ApiServer, request: Request) -> Awaitable[None] | None:
    wanted = wanted_identity(request)
    if wanted is None:
        return None

    def take() -> None:
        request.user = impersonated(server.authorizer, request.user, wanted, request.info)

    return _now_or_settled(take)


def _now_or_settled(stage: Callable[[], None]) -> Awaitable[None] | None:
    """Does it at once, unless a webhook has to be asked first."""
    try:
        stage()
    except Undecided:
        return settled(stage)
    return None


def limit(server: ApiServer, request: Request) -> Awaitable[None] | None:
    """Takes a seat for requests that are neither long-running nor exempt, and sets when they must be done."""
    info = request.info
    flow = server.flow.classify(request.user, info)
    request.flow = flow.headers
    if info.long_running:
        server.lasting.add(request)
        return None
    request.deadline = request.started + _timeout(server, request)
    server.running.add(request)
    level = flow.level
    if level is None:
        return None
    if level.try_take():
        request.seat = level
        return None
    return _wait_for_seat(request, level, flow.flow)


async def _wait_for_seat(request: Request, level: Level, flow: int) -> None:
    """Waiting may take a part of the time that the request has."""
    request.seat = await level.take(flow, (request.deadline - request.started) * _WAITING_SHARE, request)


def _timeout(server: ApiServer, request: Request) -> float:
    longest = server.options.request_timeout_s
    asked = request.query.get("timeout") if request.query else None
    if not asked:
        return longest
    problem = ""
    try:
        seconds = parse_duration(asked.removeprefix("-"))
        if seconds and asked[-1].isdigit():
            problem = "missing unit in duration"
    except ValueError:
        problem = "invalid duration"
    if problem:
        problem = f"time: {problem} {quote(asked)}"
        raise errors.bad_request(f"invalid timeout specified in the request URL - {problem}")
    if asked.startswith("-"):
        seconds = 0
    return min(seconds, longest) if seconds > 0 else longest


def authorize(server: ApiServer, request: Request) -> Awaitable[None] | None:
    user, info = request.user, request.info
    if info.path == BATCH_PATH and user is not ANONYMOUS:
        return None  # each of its writes is authorized
    try:
        if request.audit is None and server.authorizer.allows(user, info):
            return None
    except Undecided:
        pass
    return _now_or_settled(lambda: _check(server, request))


def _check(server: ApiServer, request: Request) -> None:
    """Raises 403; tells the audit log what was decided."""
    decision = server.authorizer.decide(request.user, request.info)
    if request.audit is not None:
        tell_decision(request.audit, decision.allowed, decision.reason)
    if not decision.allowed:
        raise forbidden(request.user, request.info, decision.reason)


def catch_up(server: ApiServer, request: Request) -> Awaitable[None] | None:
    """With several servers: what follows sees all that any of them has acknowledged, unless any version will do."""
    info = request.info
    if not info.is_resource and info.path != BATCH_PATH:
        return None
    if request.method == "GET" and request.query and request.query.get("resourceVersion") == "0":
        return None
    return server.store.read_barrier()


def dispatch(server: ApiServer, request: Request) -> Answer | Awaitable[Answer | Streamed]:
    if server.aggregator.remotes:
        remote = server.aggregator.remote_of(request.info.path)
        if remote is not None:
            return server.aggregator.forward(request, remote)
    if request.info.is_resource:
        return handle_resource(server, request)
    if request.info.path == BATCH_PATH:
        return handle_batch(server, request, BATCHED)
    return handle_path(server, request)


_ASKED_WHILE_STOPPING = ("/readyz", "/livez", "/healthz")


def refuse_while_stopping(server: ApiServer, request: Request) -> Answer | None:
    """What comes while the server only finishes what is under way."""
    exempt = request.headers.get("User-Agent", "").startswith("kube-apiserver/")
    if exempt or request.head.path.startswith(_ASKED_WHILE_STOPPING):
        return None
    return shutting_down()


PIPELINE: tuple[Stage, ...] = (
    identify,
    parse_path,
    authenticate,
    audit,
    impersonate,
    limit,
    authorize,
    dispatch,
)

REPLICATED: tuple[Stage, ...] = (*PIPELINE[:-2], catch_up, *PIPELINE[-2:])
"""Authorization too reads the store."""

STOPPING: tuple[Stage, ...] = (identify, refuse_while_stopping, *PIPELINE[1:])

BATCHED: tuple[Stage, ...] = (parse_path, audit, authorize, dispatch)
"""What a write in a batch passes; the rest was done for the batch as a whole."""
