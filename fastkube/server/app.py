"""The API server: a request's way through the pipeline, and the life of the process's HTTP side.

    connection.py   bytes → aiohttp's parser → handle()
    handle()        runs the stages of PIPELINE until one answers; every failure becomes a Status here (panic recovery)
    answer.py       answer → one write

The stages stand in upstream's order. Each is a function of (server, request) that returns None to go on, an Answer, or
something to await that gives one of both. Awaiting is the exception: a read never does, a write once, for its commit.
"""

from __future__ import annotations

import asyncio
import email.utils
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from fastkube import errors
from fastkube.config import parse_duration
from fastkube.errors import ApiError
from fastkube.registry.listing import too_large_resource_version
from fastkube.server.answer import GZIP_MIN_BYTES, Answer, Streamed, gzipped, takes_gzip
from fastkube.server.authn import Authenticator
from fastkube.server.authz import Authorizer
from fastkube.server.calls import NoSuchPath, no_such_path
from fastkube.server.connection import HttpServer
from fastkube.server.discovery import Discovery
from fastkube.server.handlers import handle_resource
from fastkube.server.health import Health
from fastkube.server.impersonation import impersonated, wanted_identity
from fastkube.server.listeners import Listeners, signing_key_file
from fastkube.server.media import error_media
from fastkube.server.metrics import Metrics
from fastkube.server.openapi import OpenApi
from fastkube.server.paths import handle_path
from fastkube.server.priority import FlowControl
from fastkube.server.request import Request, RequestInfo, parse_query, split_target
from fastkube.server.reviews import reviews_of
from fastkube.server.signing import Signer
from fastkube.server.status import status_answer
from fastkube.server.streams import Streams
from fastkube.store import Overloaded, StoreUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from fastkube.api.catalog import Catalog
    from fastkube.clock import Clock
    from fastkube.registry.registry import Registry
    from fastkube.registry.strategy import UserInfo
    from fastkube.server.options import ServerOptions
    from fastkube.store import Store

log = logging.getLogger(__name__)

_SWEEP_S = 0.5
"""How often requests that are over their time, silent connections and changed kinds are looked for."""

_FRESH_WAIT_S = 3.0
_FRESH_POLL_S = 0.05
"""A list or watch may ask for a version that this server has not reached yet: it is waited for this long."""

Stage = Callable[["ApiServer", Request], "Answer | Awaitable[Answer | Streamed | None] | None"]


# ---------------------------------------------------------------- the stages


def identify(server: ApiServer, request: Request) -> None:
    """Every request has an audit ID: the client's, or a new one."""
    given = request.headers.get("Audit-Id")
    if given is not None and given.isascii() and given.isprintable():
        request.audit_id = given[:64]
        return
    digits = f"{random.getrandbits(128):032x}"
    request.audit_id = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def parse_path(server: ApiServer, request: Request) -> None:
    path, query = split_target(request.http.raw_path)
    if query:
        request.query_text = query
        request.query = parse_query(query)
    request.info = RequestInfo(request.method, path, request.query)


def authenticate(server: ApiServer, request: Request) -> None:
    request.user = server.authenticator.authenticate(request)


def impersonate(server: ApiServer, request: Request) -> None:
    wanted = wanted_identity(request)
    if wanted is not None:
        request.user = impersonated(server.authorizer, request.user, wanted, request.info)


def limit(server: ApiServer, request: Request) -> Awaitable[None] | None:
    """Takes a seat for requests that are neither long-running nor exempt, and sets when they must be done."""
    info = request.info
    flow = server.flow.classify(request.user, info)
    request.flow = flow.headers
    if info.long_running:
        return None
    request.deadline = request.started + _timeout(server, request)
    server.running.add(request)
    if flow.exempt:
        return None
    if server.flow.try_take():
        request.seat = True
        return None
    return server.wait_for_seat(request)


def _timeout(server: ApiServer, request: Request) -> float:
    longest = server.options.request_timeout_s
    asked = request.query.get("timeout") if request.query else None
    if not asked:
        return longest
    try:
        seconds = parse_duration(asked)
    except ValueError:
        raise errors.bad_request("invalid timeout specified in the request URL") from None
    return min(seconds, longest) if seconds > 0 else longest


def authorize(server: ApiServer, request: Request) -> None:
    if not server.authorizer.allows(request.user, request.info):
        server.authorizer.check(request.user, request.info)


def dispatch(server: ApiServer, request: Request) -> Answer | Awaitable[Answer | Streamed]:
    return handle_resource(server, request) if request.info.is_resource else handle_path(server, request)


PIPELINE: tuple[Stage, ...] = (identify, parse_path, authenticate, impersonate, limit, authorize, dispatch)


# ---------------------------------------------------------------- the server


class ApiServer:
    """Serves one registry. `component_tokens` let fastkube's own components in; they live in memory only."""

    def __init__(
        self,
        registry: Registry,
        catalog: Catalog,
        store: Store,
        options: ServerOptions,
        clock: Clock,
        *,
        authorizer: Authorizer,
        component_tokens: Mapping[str, UserInfo] | None = None,
    ) -> None:
        options.validate()
        self.registry = registry
        self.catalog = catalog
        self.store = store
        self.options = options
        self.clock = clock
        self.authenticator = Authenticator(options, store, catalog, clock, component_tokens or {})
        self.authorizer = authorizer
        seats = options.max_requests_inflight + options.max_mutating_requests_inflight
        self.flow = FlowControl(store, catalog, seats)
        self.streams = Streams(store, catalog)
        self.discovery = Discovery(catalog)
        self.openapi = OpenApi(catalog)
        self.health = Health(store)
        self.metrics = Metrics(clock.time())
        self.running: set[Request] = set()
        """Requests under way that are not long-running."""
        self.listeners = Listeners(options)
        self._http = HttpServer(self.handle, options.max_connections)
        self._sweeper: asyncio.Task[None] | None = None
        self._date = (0, b"")
        self._loop = asyncio.get_running_loop()
        registry.reviews.update(reviews_of(self.authenticator, authorizer, clock))
        registry.token_signer = Signer(self.authenticator, options)

    # ---------------------------------------------------------------- requests

    async def handle(self, http: web.BaseRequest) -> Any:
        """The way of every request."""
        connection: Any = http.protocol
        self._http.begin(connection)
        request = Request(http, connection, self._loop.time())
        answer: Answer | Streamed | None = None
        try:
            for stage in PIPELINE:
                result = stage(self, request)
                if result is not None:
                    if result.__class__ is Answer:
                        answer = result
                        break
                    request.task = asyncio.current_task()
                    answer = await result  # type: ignore[misc]
                    if answer is not None:
                        break
        except ApiError as error:
            answer = self._refusal(request, error)
        except NoSuchPath:
            answer = no_such_path()
        except asyncio.CancelledError:
            answer = self._timed_out(request)
        except ConnectionError:
            answer = Streamed(499, False)
        except Overloaded:
            answer = self._refusal(request, errors.too_many_requests("the store has more writes waiting than it takes"))
        except StoreUnavailable as error:
            answer = self._refusal(request, errors.unavailable(str(error)))
        except Exception:
            log.exception("%s %s failed", request.method, http.raw_path)
            answer = self._refusal(request, errors.internal("the request could not be processed; see the server's log"))
        finally:
            self._http.end(connection)
            self.running.discard(request)
            if request.seat:
                self.flow.release()
        return await self._finish(request, answer) if self._is_large(request, answer) else self._sealed(request, answer)

    def _refusal(self, request: Request, error: ApiError) -> Answer | Streamed:
        if request.streaming:  # too late for a Status: a broken stream tells the client that something is wrong
            return self._broken(request)
        return status_answer(error, error_media(request.headers.get("Accept", "")))

    def _broken(self, request: Request) -> Streamed:
        transport = request.http.transport
        if transport is not None:
            transport.abort()
        return Streamed(500, False)

    def _timed_out(self, request: Request) -> Answer | Streamed:
        """The sweeper has cancelled the request; any other cancellation goes on."""
        task = asyncio.current_task()
        if not request.timed_out or task is None:
            raise asyncio.CancelledError
        task.uncancel()
        told = "request did not complete within the allotted timeout"
        return self._refusal(request, errors.timeout(told))

    def _is_large(self, request: Request, answer: Answer | Streamed | None) -> bool:
        return answer.__class__ is Answer and len(answer.body) >= GZIP_MIN_BYTES

    async def _finish(self, request: Request, answer: Any) -> Any:
        """A large answer is compressed if the client takes that."""
        if answer.compressible and takes_gzip(request.headers.get("Accept-Encoding", "")):
            answer.body = await gzipped(answer.body)
            answer.headers += b"Content-Encoding: gzip\r\nVary: Accept-Encoding\r\n"
        return self._sealed(request, answer)

    def _sealed(self, request: Request, answer: Any) -> Any:
        if answer.__class__ is Answer:
            http = request.http
            complete = answer.code != 413 and http.content.is_eof()
            answer.keep_alive = complete and self.keeps_alive(request)
            answer.seal(request, self.date())
        if hasattr(request, "info"):
            self.metrics.observe(request, answer.code, self._loop.time() - request.started)
        return answer

    def keeps_alive(self, request: Request) -> bool:
        return request.http.keep_alive and not self.health.stopping

    def date(self) -> bytes:
        """The value of a Date header; formatted once a second."""
        now = int(time.time())
        if now != self._date[0]:
            self._date = (now, email.utils.formatdate(now, usegmt=True).encode())
        return self._date[1]

    async def wait_for_seat(self, request: Request) -> None:
        await self.flow.take()
        request.seat = True

    def render_metrics(self) -> bytes:
        kinds = {"readOnly": 0, "mutating": 0}
        for request in self.running:
            kinds["readOnly" if request.method in ("GET", "HEAD") else "mutating"] += 1
        self.metrics.inflight = kinds
        return self.metrics.render(
            store=self.store,
            catalog=self.catalog,
            streams=self.streams,
            flow=self.flow,
            connections=len(self._http.open),
        )

    # ---------------------------------------------------------------- life

    async def start(self) -> None:
        """Listens when it returns. Raises OSError for a taken address and ValueError for unusable files."""
        options = self.options
        self.authorizer.start()
        self.flow.start()
        signing, _ = await asyncio.gather(
            asyncio.to_thread(signing_key_file, options), self.listeners.open(self._http, self.clock.time())
        )
        self.authenticator.use_keys(signing, options.service_account_key_file)
        self.discovery.address = self.listeners.advertised
        self._sweeper = asyncio.create_task(self._sweep())
        self.health.started = True

    @property
    def url(self) -> str:
        """Where clients reach the server: by TLS if there is, else plain HTTP, else the Unix socket."""
        return self.listeners.url

    @property
    def ca_file(self) -> str:
        """What verifies the server's certificate; "" without TLS."""
        return self.listeners.ca_file

    def write_kubeconfig(self, path: Path) -> None:
        """Credentials of an administrator. Raises ValueError when the server has no certificates of its own."""
        self.listeners.write_kubeconfig(path)

    async def wait_for_revision(self, revision: int) -> None:
        """Until the store has reached it; raises 504 when that takes too long."""
        deadline = self._loop.time() + _FRESH_WAIT_S
        while self.store.revision < revision:
            if self._loop.time() >= deadline:
                raise too_large_resource_version(revision, self.store.revision)
            await asyncio.sleep(_FRESH_POLL_S)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = self._loop.time()
            for request in [one for one in self.running if now > one.deadline]:
                if request.task is not None and not request.timed_out:
                    request.timed_out = True
                    request.task.cancel()
            self._http.close_silent(now)
            self.streams.follow_catalog()

    async def stop(self) -> None:
        """readyz fails first; then watches are ended, requests under way finished, and connections closed."""
        self.health.stopping = True
        if self.options.shutdown_delay_duration_s:
            await self.clock.sleep(self.options.shutdown_delay_duration_s)
        self.listeners.close()
        self.streams.end_all()
        self._http.close_idle()
        await self._http.finish(self.options.shutdown_grace_s)
        await self._http.shutdown(0.1)
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.streams.close()
        self.flow.stop()
        self.authorizer.stop()
