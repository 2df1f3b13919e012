"""The API server: a request's way through the pipeline, and the life of the process's HTTP side.

    connection.py   bytes → aiohttp's parser → Request → serve()
    serve()         runs the stages of PIPELINE until one answers; every failure becomes a Status there (panic recovery)
    answer.py       answer → one write

The stages themselves are in stages.py, in upstream's order.
"""

from __future__ import annotations

import asyncio
import email.utils
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fastkube import errors
from fastkube.errors import ApiError
from fastkube.registry.bootstrap import publish_authentication
from fastkube.registry.listing import too_large_resource_version
from fastkube.server import authz_config
from fastkube.server.admission.chain import Chain
from fastkube.server.aggregation import Aggregator
from fastkube.server.answer import GZIP_MIN_BYTES, Answer, Streamed, gzipped, takes_gzip
from fastkube.server.audit import Auditor
from fastkube.server.authn import Authenticator
from fastkube.server.authz import Authorizer
from fastkube.server.calls import NoSuchPath, ServiceUnavailable, no_such_path, too_many_requests
from fastkube.server.connection import HttpServer
from fastkube.server.dangling import DanglingConditions
from fastkube.server.discovery import Discovery
from fastkube.server.fair_queues import TooManyRequests
from fastkube.server.health import Health
from fastkube.server.kubelet import Kubelets
from fastkube.server.listeners import Listeners, signing_key
from fastkube.server.media import error_media
from fastkube.server.metrics import Metrics
from fastkube.server.openapi import OpenApi
from fastkube.server.priority import FlowControl
from fastkube.server.reloading import Reloads, Watched
from fastkube.server.repeats import Repeats
from fastkube.server.request import Request
from fastkube.server.reviews import reviews_of
from fastkube.server.signing import Signer
from fastkube.server.stages import PIPELINE, REPLICATED, STOPPING, Stage
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
    from fastkube.server.repeated_creates import Writing
    from fastkube.store import Store

log = logging.getLogger(__name__)

_SWEEP_S = 0.5
"""How often requests that are over their time, silent connections and changed kinds are looked for."""

_FRESH_WAIT_S = 3.0
_FRESH_POLL_S = 0.05
"""A list or watch may ask for a version that this server has not reached yet: it is waited for this long."""

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
        shared_port: bool = False,
    ) -> None:
        options.validate()
        self.registry = registry
        self.catalog = catalog
        self.store = store
        self.options = options
        self.clock = clock
        self.authenticator = Authenticator(options, store, catalog, clock, component_tokens or {})
        self.authorizer = authorizer
        self.auditor = Auditor.of(options, clock)
        self._pipeline = REPLICATED if store.is_replicated else PIPELINE
        self.flow = FlowControl(store, catalog, options)
        self.dangling = DanglingConditions(registry)
        self.streams = Streams(store, catalog)
        self.discovery = Discovery(catalog)
        self.openapi = OpenApi(catalog)
        self.aggregator = Aggregator(self)
        self.health = Health(store)
        self.metrics = Metrics(clock.time())
        if isinstance(registry.admission, Chain):
            self.metrics.admission = registry.admission.measures
        self.running: set[Request | Writing] = set()
        """Requests under way that are not long-running."""
        self.lasting: set[Request] = set()
        """Those that are: the loop itself keeps no task alive."""
        self._ending: set[asyncio.Task[None]] = set()
        self.kubelets = Kubelets(options)
        self.tunnels: set[Callable[[], None]] = set()
        """How to end each of the requests that are passed on to somebody else."""
        self.listeners = Listeners(options, shared_port)
        self.reloads = Reloads(clock)
        self.metrics.reloads = self.reloads
        self.metrics.audit = self.auditor.measures if self.auditor is not None else None
        self.metrics.disabled = frozenset(options.disabled_metrics)
        self.repeats = Repeats(self)
        self._http = HttpServer(self.serve, options.max_connections, self.repeats.serve, self.repeats.again)
        self._sweeper: asyncio.Task[None] | None = None
        self._date = (0, b"")
        self._loop = asyncio.get_running_loop()
        registry.reviews.update(reviews_of(self.authenticator, authorizer, clock))
        registry.token_signer = Signer(self.authenticator, options)

    # ---------------------------------------------------------------- requests

    def serve(self, request: Request) -> None:
        """The way of every request: its stages, in this turn of the loop until one has to wait; then its answer."""
        self.store.catch_up()
        stages = iter(self._pipeline)
        try:
            for stage in stages:
                result = stage(self, request)
                if result is None:
                    continue
                if result.__class__ is Answer and len(result.body) < GZIP_MIN_BYTES:
                    self.end(request, result)
                else:
                    request.task = self._loop.create_task(self._go_on(request, result, stages))
                return
        except Exception as failure:
            self.end(request, self.failed(request, failure))

    async def _go_on(self, request: Request, result: Any, stages: Iterator[Stage]) -> None:
        """The rest of a request's way, from the first stage that had something to wait for."""
        try:
            while True:
                if result.__class__ is not Answer and result is not None:
                    result = await result
                if result is not None:
                    break
                result = next(stages)(self, request)
            if result.__class__ is Answer and len(result.body) >= GZIP_MIN_BYTES:
                await self._compress(request, result)
        except asyncio.CancelledError as ended:
            if not request.timed_out or not isinstance(request.task, asyncio.Task):
                self.end(request, Streamed(499, False))
                raise
            request.task.uncancel()  # the sweeper has cancelled it
            result = self.failed(request, ended)
        except Exception as failure:
            result = self.failed(request, failure)
        self.end(request, result)

    def failed(self, request: Request, failure: BaseException) -> Answer | Streamed:
        """What answers a request that failed: a Status for every failure (panic recovery)."""
        if isinstance(failure, ApiError):
            return self._refusal(request, failure)
        if isinstance(failure, NoSuchPath):
            return no_such_path()
        if isinstance(failure, TooManyRequests):
            return too_many_requests()
        if isinstance(failure, ServiceUnavailable):
            return failure.answer()
        if isinstance(failure, asyncio.CancelledError):
            return self._refusal(request, errors.timeout("request did not complete within the allotted timeout"))
        if isinstance(failure, ConnectionError):
            return Streamed(499, False)
        if isinstance(failure, Overloaded):
            return self._refusal(request, errors.too_many_requests("the store has more writes waiting than it takes"))
        if isinstance(failure, StoreUnavailable):
            return self._refusal(request, errors.unavailable(str(failure)))
        log.error("%s %s failed", request.method, request.head.path, exc_info=failure)
        return self._refusal(request, errors.internal("the request could not be processed; see the server's log"))

    def _refusal(self, request: Request, error: ApiError) -> Answer | Streamed:
        if request.streaming:  # too late for a Status: a broken stream tells the client that something is wrong
            request.connection.abort()
            return Streamed(500, False)
        return status_answer(error, error_media(request.headers.get("Accept", "")))

    async def _compress(self, request: Request, answer: Answer) -> None:
        """A large answer is compressed if the client takes that."""
        if answer.compressible and takes_gzip(request.headers.get("Accept-Encoding", "")):
            answer.body = await gzipped(answer.body)
            answer.headers += b"Content-Encoding: gzip\r\nVary: Accept-Encoding\r\n"

    def end(self, request: Request, answer: Answer | Streamed) -> None:
        """Writes the answer, if it is not written yet, and gives back what the request held."""
        if self.auditor is not None and self.auditor.waits:
            task = self._loop.create_task(self._end_audited(self.auditor, request, answer))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
            return
        self._answer(request, answer)
        self.observe(request, answer)

    async def _end_audited(self, auditor: Auditor, request: Request, answer: Answer | Streamed) -> None:
        """What must be audited before it is answered."""
        taken = auditor.complete(request, answer)
        if not isinstance(taken, bool):
            await taken
        self._answer(request, answer)
        self._count(request, answer)

    def _answer(self, request: Request, answer: Answer | Streamed) -> None:
        self.running.discard(request)
        self.lasting.discard(request)
        if request.seat is not None:
            request.seat.release()
        connection = request.connection
        if isinstance(answer, Answer):
            keep_alive = self.keeps_alive(request)
            connection.answer(answer.rendered(request, self.date(), keep_alive), keep_alive)
        else:
            connection.answer(b"", answer.keep_alive)

    def observe(self, request: Request, answer: Answer | Streamed) -> None:
        """Counts a request that was answered, and writes it to the audit log."""
        self._count(request, answer)
        if self.auditor is not None:
            self.auditor.complete(request, answer)

    def _count(self, request: Request, answer: Answer | Streamed) -> None:
        if hasattr(request, "info"):
            self.metrics.observe(request, answer.code, self._loop.time() - request.started)

    def now(self) -> float:
        """The loop's clock, by which requests are timed."""
        return self._loop.time()

    def keeps_alive(self, request: Request) -> bool:
        return request.connection.complete and not request.head.should_close and not self.health.stopping

    def date(self) -> bytes:
        """The value of a Date header; formatted once a second."""
        now = int(time.time())
        if now != self._date[0]:
            self._date = (now, email.utils.formatdate(now, usegmt=True).encode())
        return self._date[1]

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
        if options.enable_priority_and_fairness:
            self.dangling.start()
        self.authenticator.use_keys(signing_key(options), options.service_account_key_file)
        await self.listeners.open(self._http, self.clock.time())
        for watched in self._watched():
            self.reloads.add(watched)
        self.discovery.address = self.listeners.advertised
        self.aggregator.client = self.listeners.front_proxy
        known_by = self.listeners.authentication()
        if known_by:
            await publish_authentication(self.registry, known_by)
        self.aggregator.start()
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
            self._http.sweep(now)
            self.streams.follow_catalog()
            self.aggregator.follow_catalog()

    def _refuse_new(self) -> None:
        """From now on all but what asks for health is answered with 429."""
        self._pipeline, self.repeats.enabled = STOPPING, False
        for connection in self._http.open:
            connection.plans = None

    def _watched(self) -> Iterator[Watched]:
        """The files that the server follows when they change."""
        options = self.options
        yield from self.listeners.watched()
        yield from self.authenticator.watched()
        yield from authz_config.watched(options, self.authorizer, self.clock)
        config = options.encryption_provider_config
        if config and options.encryption_provider_config_automatic_reload:
            from fastkube.registry.sealing import following

            reload = following(self.store, config)
            yield Watched("encryption configuration", [config], reload, "apiserver_encryption_config_controller")

    async def stop(self) -> None:
        """readyz fails first; then watches are ended, requests under way finished, and connections closed."""
        self.health.stopping = True
        if self.options.shutdown_delay_duration_s:
            await self.clock.sleep(self.options.shutdown_delay_duration_s)
        self.reloads.stop()
        if self.options.shutdown_send_retry_after:
            self._refuse_new()
        else:
            self.listeners.close()
        self.streams.end_all()
        for end in tuple(self.tunnels):
            end()
        self._http.close_idle()
        await self._http.finish(self.options.shutdown_grace_s)
        self.listeners.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.streams.close()
        self.flow.stop()
        await self.dangling.stop()
        await self.aggregator.stop()
        self.authorizer.stop()
        await self.authenticator.close()
        await self.authorizer.close()
        if self.auditor is not None:
            await self.auditor.close()
