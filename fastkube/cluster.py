"""The composition root: builds every part, wires them together, and knows in which order they start and stop.

    server:      store → bootstrap objects → certificates → API server          (stops in the reverse order)
    components:  client → scheduler, controllers, simulated nodes               (each only speaks to the API server)

`fastkube up` runs the server in its own process and the components in one child, which it starts first: the child's
imports then run beside the server's on the other core. The child reads what to do from its standard input, and ends
when that ends, so that it never outlives its parent. `fastkube.testing.Cluster` runs both in one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import secrets
import socket
import ssl
import sys
import tempfile
import time
import urllib.parse
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastkube import __version__, config
from fastkube.clock import Clock, RealClock
from fastkube.config import option
from fastkube.process import settled, until_stopped

if TYPE_CHECKING:
    from fastkube.api.catalog import Catalog
    from fastkube.client import Client
    from fastkube.client.client import Codec
    from fastkube.controllers.options import ControllerManagerOptions
    from fastkube.etcd.options import EtcdListenOptions
    from fastkube.nodes.options import FleetOptions
    from fastkube.registry.registry import Registry
    from fastkube.registry.strategy import UserInfo
    from fastkube.scheduler.options import SchedulerOptions
    from fastkube.server.app import ApiServer
    from fastkube.server.options import ServerOptions
    from fastkube.store import ReplicationOptions, Store
    from fastkube.store.external.options import EtcdOptions
    from fastkube.store.transport import PeerFiles

log = logging.getLogger(__name__)

READY_TIMEOUT_S = 60.0
NODE_TIMEOUT_S = 0.05
"""A node takes some writes until it is registered; thousands of them on a busy machine take more than a minute."""
CLOCK_TIMEOUT_S = 3600.0
CHILD_GRACE_S = 0.7
"""With the server's own grace and the store's last commit `up` stops within two seconds."""


class StartError(Exception):
    """What keeps a part from starting and its user can mend: a taken port, a locked store, a bad file."""


def _told(error: OSError) -> str:
    """The system's words without its number: `FILE: No such file or directory`."""
    if isinstance(error, ssl.SSLError) or not error.strerror:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


@dataclass(frozen=True)
class StoreOptions:
    """The embedded store. Where etcd has a flag for the same thing, the name is etcd's."""

    data_dir: str = option(".fastkube", "Folder of the store and of the certificates; made if missing.")


@dataclass(frozen=True)
class UpOptions:
    """What `fastkube up` runs beside the API server."""

    kubeconfig: str = option("", "File that gets an administrator's credentials; DATA_DIR/kubeconfig unless named.")
    scheduler: bool = option(True, "Run the scheduler.")
    controller_manager: bool = option(True, "Run the controllers.")
    restore: str = option("", "Snapshot of a cluster which a new one begins with, before anything acts on it.")
    manifests: tuple[str, ...] = option((), "Files and folders of manifests to make or patch once everything runs.")
    servers: int = option(1, "API servers on this machine that replicate one store; an odd number from 3 on.")
    clock: str = option(
        "real", "manual: time stands still but for `fastkube clock advance`.", choices=("real", "manual")
    )


def store_path(data_dir: str | Path) -> Path:
    """Where the store of a data folder lies."""
    return Path(data_dir) / "store"


ENDPOINTS_FILE = "member.json"


def write_endpoints(data_dir: Path, urls: tuple[str, ...], files: PeerFiles) -> None:
    """For `fastkube member`, `transfer` and `snapshot` on this machine: where members are, and what proves who asks."""
    (data_dir / ENDPOINTS_FILE).write_text(json.dumps({"endpoints": urls, **files._asdict()}, indent=2) + "\n")


# ---------------------------------------------------------------- the server

COMPONENT_USERS: Mapping[str, tuple[str, ...]] = {
    "system:kube-scheduler": (),
    # upstream's controllers act as one service account each; here one user has the rights of all of them
    "system:kube-controller-manager": ("system:masters",),
    "fastkube:nodes": ("system:masters",),  # stands in for every kubelet, so no single node's rights are enough
}
"""Users of fastkube's own components and their groups; what they may do is upstream's bootstrap policy."""


class Server:
    """Store and API server, in this event loop."""

    def __init__(
        self,
        store_options: StoreOptions,
        options: ServerOptions,
        clock: Clock | None = None,
        replication: ReplicationOptions | None = None,
        etcd: EtcdOptions | None = None,
        etcd_listen: EtcdListenOptions | None = None,
    ) -> None:
        """Keys and certificates of a first start are made here, unless `begin_keys` is called for others to do it."""
        self.data_dir = Path(store_options.data_dir).absolute()
        self.clock = clock or RealClock()
        self._options = dataclasses.replace(
            options,
            cert_dir=options.cert_dir or str(self.data_dir / "pki"),
            unix_socket=options.unix_socket or _socket_path(),
        )
        self._replication = replication
        self._etcd = etcd
        self._etcd_listen = etcd_listen
        self.etcd_urls: tuple[str, ...] = ()
        self.tokens = {user: secrets.token_urlsafe(24) for user in COMPONENT_USERS}
        self._stack = contextlib.AsyncExitStack()
        self._keys: asyncio.subprocess.Process | None = None
        self.store: Store
        self.api: ApiServer
        self._registry: Registry

    async def begin_keys(self) -> None:
        """Have another process make the keys and certificates of a first start, while this one imports."""
        from fastkube.server import pki
        from fastkube.server.listeners import certificate_names

        self._keys = await pki.begin_beside(Path(self._options.cert_dir), certificate_names(self._options))

    async def start(self) -> None:
        """Raises StartError for what its user can mend; nothing is left running then."""
        from fastkube.registry.strategy import UserInfo
        from fastkube.store import StoreError

        async with contextlib.AsyncExitStack() as stack:
            try:
                self.data_dir.mkdir(parents=True, exist_ok=True)
                self.store = await self._open_store()
                stack.push_async_callback(self.store.close)
                self._compact_regularly(stack)
                await await_majority(self.store)
                users = {token: UserInfo(user, COMPONENT_USERS[user]) for user, token in self.tokens.items()}
                self.api = await self._api_server(served_catalog(self._options), users, stack)
                if self._keys is not None and self._keys.stdout is not None:
                    await self._keys.stdout.readline()
                await self.api.start()
                stack.push_async_callback(self.api.stop)
                await self._publish_address()
                if self._options.frontends:
                    await self._start_frontends(stack)
                if self._etcd_listen is not None and self._etcd_listen.etcd_listen:
                    await self._serve_etcd(self._etcd_listen, stack)
            except OSError as error:
                raise StartError(_told(error)) from error
            except (ValueError, StoreError) as error:
                raise StartError(str(error)) from error
            self._stack = stack.pop_all()

    async def _open_store(self) -> Store:
        """The only store or one of several replicas; its values encrypted as --encryption-provider-config says."""
        from fastkube.store import Store

        if self._etcd is not None and self._etcd.enabled:
            return await self._open_etcd(self._etcd)
        path, options = store_path(self.data_dir), self._replication
        replication = None
        if options is not None:
            options.validate()
            if options.enabled:
                from fastkube.store import Replication

                replication = Replication(options)
        if config := self._options.encryption_provider_config:
            from fastkube.registry.encryption import Encryption
            from fastkube.registry.sealing import SealedStore

            encryption = Encryption.load(config)
            store: Store = await SealedStore.open_sealed(path, encryption, clock=self.clock, replication=replication)
        else:
            store = await Store.open(path, clock=self.clock, replication=replication)
        if options is not None and replication is not None:
            write_endpoints(self.data_dir, options.advertised, options.files)
        return store

    async def _open_etcd(self, options: EtcdOptions) -> Store:
        """A store in an etcd cluster; the data folder has a copy of it. Raises ValueError for what cannot be both."""
        from fastkube.registry.upstream_form import UpstreamForm
        from fastkube.store.external.store import EtcdStore

        options.validate()
        if self._replication is not None and self._replication.enabled:
            raise ValueError("initial-cluster: not with storage or etcd-servers, where etcd replicates")
        if self._options.encryption_provider_config:
            raise ValueError("encryption-provider-config: not with storage or etcd-servers")
        form = UpstreamForm(served_catalog(self._options), options.prefix, options.storage_media_type)
        return await EtcdStore.open_external(store_path(self.data_dir), options, form, self.clock)

    def _compact_regularly(self, stack: contextlib.AsyncExitStack) -> None:
        from fastkube.store.compaction import compact_regularly

        interval_s = self._options.etcd_compaction_interval_s
        if interval_s:
            task = asyncio.ensure_future(compact_regularly(self.store, self.clock, interval_s))
            stack.callback(task.cancel)

    async def _api_server(
        self,
        catalog: Catalog,
        users: dict[str, UserInfo],
        stack: contextlib.AsyncExitStack,
        *,
        shared_port: bool = False,
    ) -> ApiServer:
        """The registry with its admission, the bootstrap objects, and the server in front of them.

        `shared_port`: this is one of several frontends, and the bootstrap objects are there.
        """
        from fastkube.registry.attendants import builtin_attendants
        from fastkube.registry.bootstrap import bootstrap
        from fastkube.registry.custom.keeper import Keeper
        from fastkube.registry.registry import Registry
        from fastkube.registry.services import ServiceAddresses
        from fastkube.server.admission.chain import Chain
        from fastkube.server.admission.hook_client import HookClient
        from fastkube.server.admission.lookup import Lookups
        from fastkube.server.app import ApiServer
        from fastkube.server.authz_config import authorizer_of

        options = self._options
        authorizer = authorizer_of(options, self.store, catalog, self.clock)
        lookups = Lookups(self.store, catalog)
        chain = Chain.build(
            lookups,
            self.clock,
            authorizer,
            enable=options.enable_admission_plugins,
            disable=options.disable_admission_plugins,
        )
        stack.callback(chain.close)
        addresses = ServiceAddresses(self.store, options.service_cluster_ip_range, options.service_node_port_range)
        stack.callback(addresses.close)
        attendants = builtin_attendants(self.store, addresses)
        registry = Registry(self.store, catalog, clock=self.clock, admission=chain, attendants=attendants)
        keeper = Keeper(self.store, catalog, self.clock, HookClient(lookups).post, works=not shared_port)
        stack.push_async_callback(keeper.close)
        if not shared_port:
            await bootstrap(registry, options.service_cluster_ip_range)
        if self._etcd is not None and self._etcd.enabled:
            await addresses.adopt()
        self._registry = registry
        return ApiServer(
            registry,
            catalog,
            self.store,
            options,
            self.clock,
            authorizer=authorizer,
            component_tokens=users,
            shared_port=shared_port,
        )

    async def _start_frontends(self, stack: contextlib.AsyncExitStack) -> None:
        """The processes that serve the secure port, and the door that their writes come in by."""
        from fastkube.server.frontends import Frontends
        from fastkube.store import Gateway

        gateway = Gateway(self.store)
        await gateway.open()
        stack.push_async_callback(gateway.close)
        options = self._options
        port = urllib.parse.urlsplit(self.api.url).port
        theirs = dataclasses.replace(options, frontends=0, secure_port=port, http_port=None, unix_socket="")
        order = {"data_dir": str(self.data_dir), "server": dataclasses.asdict(theirs), "tokens": self.tokens}
        frontends = Frontends(options.frontends, order)
        stack.push_async_callback(frontends.stop)
        await frontends.start()

    async def _serve_etcd(self, options: EtcdListenOptions, stack: contextlib.AsyncExitStack) -> None:
        """The etcd v3 API on the same store, its keys beside those of Kubernetes."""
        from fastkube.etcd.endpoint import Endpoint
        from fastkube.etcd.node import Node, identity_of

        if self._etcd is not None and self._etcd.enabled:
            raise ValueError("etcd-listen: not with an external etcd, which serves that API itself")
        options.validate()
        name = self._replication.name if self._replication is not None else "default"
        endpoint = Endpoint(Node(self.store, self.clock, identity_of(self.store, name, ())), options.endpoint)
        await endpoint.open()
        stack.push_async_callback(endpoint.close)
        self.etcd_urls = endpoint.urls

    async def _publish_address(self) -> None:
        """The endpoints of the `kubernetes` Service; a server without TLS has none that Pods could use."""
        from fastkube.registry.bootstrap import publish_address

        port = urllib.parse.urlsplit(self.api.url).port
        if port and self.api.url.startswith("https"):
            await publish_address(self._registry, self._options.advertise_address or _own_address(), port)

    async def stop(self) -> None:
        await self._stack.aclose()
        if self._keys is not None:
            await self._keys.wait()

    def for_components(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The options of the components on this machine, who find the cluster's own files by themselves."""
        folder = Path(self._options.cert_dir)
        own: dict[str, Any] = {}
        if not values.get("root_ca_file"):
            own["root_ca_file"] = self.api.ca_file
        if not values.get("cluster_signing_cert_file") and not values.get("cluster_signing_key_file"):
            own["cluster_signing_cert_file"] = str(folder / "ca.crt")
            own["cluster_signing_key_file"] = str(folder / "ca.key")
        if not values.get("service_account_private_key_file"):
            own["service_account_private_key_file"] = self._options.service_account_signing_key_file or str(
                folder / "sa.key"
            )
        return {**values, **own}

    def client(self) -> Client:
        """An administrator's."""
        from fastkube.client import Client

        token = self.tokens["system:kube-controller-manager"]
        return Client(self.internal_url, token=token, clock=self.clock, user_agent="fastkube-load", batch=True)

    @property
    def internal_url(self) -> str:
        """Where components of this machine reach the server without TLS; guarded by the socket's file mode."""
        return f"unix://{self._options.unix_socket}"


async def await_majority(store: Store) -> None:
    """Nothing can be read or written before there is a leader: a server waits for the others."""
    from fastkube.store import StoreFailed, StoreUnavailable

    while True:
        try:
            barrier = store.read_barrier()
            if barrier is not None:
                await barrier
            return
        except StoreFailed:
            raise
        except StoreUnavailable as waiting:
            log.warning("waiting for a majority of the members: %s", waiting)


def served_catalog(options: ServerOptions) -> Catalog:
    """The kinds that a server serves; raises ValueError."""
    from fastkube.api import gates
    from fastkube.api.catalog import Catalog

    features = gates.parse(options.feature_gates)
    return Catalog.builtin(features, gates.versions(options.runtime_config, features))


def _own_address() -> str:
    """The address that this machine would use to reach others; no packet is sent. Loopback is not allowed there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            address: str = probe.getsockname()[0]
        except OSError:
            address = "127.0.0.1"
    return address if not address.startswith("127.") else "192.0.2.1"


def _socket_path() -> str:
    """In a folder of its own with a short name: a Unix socket's path may have no more than 107 bytes."""
    return str(Path(tempfile.mkdtemp(prefix="fastkube-")) / "api.sock")


# ---------------------------------------------------------------- the components


class Components:
    """Scheduler, controllers and simulated nodes: those whose options are given, in this event loop.

    `make_client` gives each its own client, since each is a user of its own. What several of them follow is watched
    once, as one of these users.
    """

    def __init__(
        self,
        make_client: Callable[[str], Client],
        clock: Clock,
        *,
        scheduler: SchedulerOptions | None = None,
        controllers: ControllerManagerOptions | None = None,
        fleet: FleetOptions | None = None,
        again: bool = False,
    ) -> None:
        """`again`: who loses its leadership stands for it once more, where nobody else would start it again."""
        self._make_client = make_client
        self._again = again
        self._clock = clock
        self._scheduler, self._controllers, self._fleet = scheduler, controllers, fleet

    @property
    def names(self) -> list[str]:
        """What runs, in words."""
        found = ["scheduler"] * (self._scheduler is not None) + ["controllers"] * (self._controllers is not None)
        if self._fleet is not None and self._fleet.nodes:
            found.append(f"{self._fleet.nodes} simulated node{'s' * (self._fleet.nodes != 1)}")
        if self._fleet is not None and self._fleet.node_template:
            found.append(f"simulated nodes after {', '.join(self._fleet.node_template)}")
        return found

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """Starts them all; once entered they are ready. The task ends only by a failure of one of them."""
        async with contextlib.AsyncExitStack() as stack:
            waits, works = [], []
            for user, make in self._parts():
                client = self._make_client(user)
                stack.push_async_callback(client.close)
                part = make(client)
                works.append(asyncio.ensure_future(self._work(part, partial(make, client))))
                waits.append(asyncio.ensure_future(part.ready.wait()))
            whole = asyncio.ensure_future(_all(works))
            started = asyncio.gather(*waits)
            try:
                nodes = self._fleet.nodes if self._fleet is not None else 0
                timeout_s = READY_TIMEOUT_S + nodes * NODE_TIMEOUT_S
                await asyncio.wait((started, whole), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
                if whole.done():
                    await whole
                if not started.done():
                    raise StartError(f"components were not ready within {timeout_s:.0f} s")
                yield whole
            finally:
                self._again = False
                for task in (whole, *works, *waits):
                    task.cancel()
                await asyncio.gather(whole, started, *works, *waits, return_exceptions=True)

    async def _work(self, part: Any, another: Callable[[], Any]) -> None:
        """Run a part; it ends when it has lost its leadership."""
        await part.run()
        while self._again:
            await another().run()

    def _parts(self) -> list[tuple[str, Callable[[Client], Any]]]:
        from fastkube.client import Feeds

        parts: list[tuple[str, Callable[[Client], Any]]] = []
        # one that is alone has the server select what it follows
        feeds = (
            Feeds() if sum(each is not None for each in (self._scheduler, self._controllers, self._fleet)) > 1 else None
        )
        if self._fleet is not None:
            from fastkube.nodes.fleet import Fleet

            fleet = self._fleet
            parts.append(("fastkube:nodes", lambda client: Fleet(client, self._clock, fleet, feeds=feeds)))
        if self._scheduler is not None:
            from fastkube.scheduler.scheduler import Scheduler

            scheduler = self._scheduler
            parts.append(
                ("system:kube-scheduler", lambda client: Scheduler(client, self._clock, scheduler, feeds=feeds))
            )
        if self._controllers is not None:
            from fastkube.controllers.manager import ControllerManager

            controllers = _with_storage(self._controllers, self._fleet)
            parts.append(
                (
                    "system:kube-controller-manager",
                    lambda client: ControllerManager(client, self._clock, controllers, feeds=feeds),
                )
            )
        return parts


def _with_storage(controllers: ControllerManagerOptions, fleet: FleetOptions | None) -> ControllerManagerOptions:
    """Simulated nodes have simulated storage, unless it is left out."""
    if fleet is None or not (fleet.nodes or fleet.node_template) or "-simulated-provisioner" in controllers.controllers:
        return controllers
    return dataclasses.replace(controllers, controllers=(*controllers.controllers, "simulated-provisioner"))


async def _all(works: Sequence[asyncio.Future[None]]) -> None:
    """Ends with the first failure of any; where there are none, with the caller."""
    if not works:
        await asyncio.Event().wait()
    await asyncio.gather(*works)


# ---------------------------------------------------------------- the commands


def _take_options(values: Mapping[str, Any], *classes: type) -> list[Any]:
    """Raises StartError for values that cannot be."""
    try:
        return [config.build(cls, dict(values)) for cls in classes]
    except ValueError as error:
        raise StartError(str(error)) from error


async def apiserver(values: Mapping[str, Any], stop: asyncio.Event, announce: Callable[[str], None]) -> None:
    """`fastkube apiserver`."""
    from fastkube.etcd.options import EtcdListenOptions
    from fastkube.server.options import ServerOptions
    from fastkube.store import ReplicationOptions
    from fastkube.store.external.options import EtcdOptions

    options = _take_options(values, StoreOptions, ServerOptions, ReplicationOptions, EtcdOptions, EtcdListenOptions)
    server = Server(options[0], options[1], replication=options[2], etcd=options[3], etcd_listen=options[4])
    await server.begin_keys()
    if not await _started(server, stop):
        return
    try:
        announce(f"fastkube {__version__} apiserver is ready: {server.api.url}")
        for url in server.etcd_urls:
            announce(f"  etcd        {url}")
        settled()
        await stop.wait()
    finally:
        await server.stop()


async def _started(server: Server, stop: asyncio.Event) -> bool:
    """A member may wait long for others; False if it was stopped before it was ready."""
    starting = asyncio.ensure_future(server.start())
    await until_stopped(stop, starting)
    if not starting.done():
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        return False
    return True


async def up(values: Mapping[str, Any], stop: asyncio.Event, announce: Callable[[str], None]) -> None:
    """`fastkube up`: the first line that is announced says that everything is ready."""
    from fastkube.etcd.options import EtcdListenOptions
    from fastkube.nodes.options import FleetOptions
    from fastkube.server.options import ServerOptions

    begun = time.monotonic()
    store_options, up_options, server_options, etcd_options, *_ = _take_options(
        values, StoreOptions, UpOptions, ServerOptions, EtcdListenOptions, FleetOptions
    )
    if up_options.clock == "manual":
        await _up_manually(values, up_options, stop, announce)
        return
    if up_options.servers != 1:
        from fastkube.replicas import up_replicated

        await up_replicated(values, stop, announce)
        return
    from fastkube.initial import Contents

    contents = Contents(up_options, store_options)
    server = Server(store_options, server_options, etcd_listen=etcd_options)
    await server.begin_keys()
    child = await _spawn_components()
    try:
        await server.start()
        try:
            kubeconfig = Path(up_options.kubeconfig or server.data_dir / "kubeconfig")
            server.api.write_kubeconfig(kubeconfig)
            await contents.restore(server)
            await child.begin(server, values, up_options)
            await contents.load(server)
            _announce(announce, begun, server, kubeconfig, child.names)
            settled()
            await child.until_stopped(stop)
        finally:
            await child.end()
            await server.stop()
    finally:
        await child.end()


def _announce(
    announce: Callable[[str], None], begun: float, server: Server, kubeconfig: Path, names: list[str]
) -> None:
    announce(f"fastkube {__version__} is ready in {time.monotonic() - begun:.2f} s: {server.api.url}")
    announce(f"  kubeconfig  {kubeconfig}")
    announce(f"  data        {server.data_dir}")
    for url in server.etcd_urls:
        announce(f"  etcd        {url}")
    announce(f"  running     {', '.join(['API server', *names])}")
    announce(f"  try         kubectl --kubeconfig {kubeconfig} get nodes")


async def _up_manually(
    values: Mapping[str, Any], options: UpOptions, stop: asyncio.Event, announce: Callable[[str], None]
) -> None:
    """`up --clock manual`: one process, since everything has to share one clock."""
    from fastkube.embedded import Embedded

    if options.servers != 1:
        raise StartError("servers: not with --clock manual, which only one process can follow")
    if values.get("frontends"):
        raise StartError("frontends: not with --clock manual, which only one process can follow")
    begun = time.monotonic()
    whole = Embedded(values, scheduler=options.scheduler, controllers=options.controller_manager, nodes=True)
    path = Path(options.kubeconfig) if options.kubeconfig else None
    async with whole.running(path) as work:
        kubeconfig = path or whole.server.data_dir / "kubeconfig"
        _announce(announce, begun, whole.server, kubeconfig, whole.names)
        announce("  clock       stands still; `fastkube clock advance 1h` lets an hour pass")
        await until_stopped(stop, work)


class _Child:
    """The process of the components, seen from its parent."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.names: list[str] = []

    async def begin(self, server: Server, values: Mapping[str, Any], options: UpOptions) -> None:
        """Tell the child what to run; returns when it says that all of it is ready."""
        order = {
            "server": server.internal_url,
            "tokens": server.tokens,
            "values": server.for_components(values),
            "scheduler": options.scheduler,
            "controllers": options.controller_manager,
        }
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        await self.process.stdin.drain()
        line = await self.process.stdout.readline()
        if not line:
            raise StartError("the scheduler, controllers and nodes did not start; what they said stands above")
        self.names = json.loads(line)

    async def until_stopped(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; raises StartError when it ends before that."""
        ended = asyncio.ensure_future(self.process.wait())
        await until_stopped(stop, ended)
        if ended.done() and not stop.is_set():
            raise StartError(f"the components ended with exit status {ended.result()}")
        ended.cancel()

    async def end(self) -> None:
        """Close its standard input, which ends it; what does not end by that is killed."""
        if self.process.returncode is not None:
            return
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), CHILD_GRACE_S)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


async def _spawn_components() -> _Child:
    pipe = asyncio.subprocess.PIPE
    words = (sys.executable, "-m", "fastkube", "components")
    # a session of its own: Ctrl-C reaches the parent alone, which then ends the child in order
    return _Child(await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, start_new_session=True))


async def components_from_stdin(stop: asyncio.Event) -> None:
    """The child of `up`: reads its order, works, and ends with its standard input."""
    from fastkube.client import Client
    from fastkube.controllers.options import ControllerManagerOptions
    from fastkube.nodes.options import FleetOptions
    from fastkube.scheduler.options import SchedulerOptions

    _preload()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    line = await reader.readline()
    if not line:
        return
    order = json.loads(line)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in order["values"].items()}
    scheduler, controllers, fleet = _take_options(values, SchedulerOptions, ControllerManagerOptions, FleetOptions)
    clock = RealClock()
    parts = Components(
        lambda user: Client(
            order["server"],
            token=order["tokens"][user],
            clock=clock,
            user_agent=user.rpartition(":")[2],
            batch=True,
        ),
        clock,
        scheduler=scheduler if order["scheduler"] else None,
        controllers=controllers if order["controllers"] else None,
        fleet=fleet,
        again=True,
    )
    async with contextlib.AsyncExitStack() as stack:
        try:
            work = await stack.enter_async_context(parts.running())
        except ValueError as error:
            raise StartError(str(error)) from error
        print(json.dumps(parts.names), flush=True)
        settled()
        parent = asyncio.ensure_future(reader.read())
        await until_stopped(stop, work, parent)
        parent.cancel()


def _preload() -> None:
    """Import what will be needed while the parent is still busy with its own start."""
    import fastkube.controllers.manager
    import fastkube.nodes.fleet
    import fastkube.scheduler.scheduler  # noqa: F401


async def components(
    kubeconfig: str, stop: asyncio.Event, announce: Callable[[str], None], *, codec: Codec = "msgpack", **options: Any
) -> None:
    """`fastkube scheduler`, `controller-manager` and `nodes`: one component against any API server."""
    from fastkube.client import Client, ConfigError

    clock = RealClock()

    def make_client(user: str) -> Client:
        try:
            agent = user.rpartition(":")[2]
            return Client.from_kubeconfig(kubeconfig, clock=clock, user_agent=agent, batch=True, codec=codec)
        except (OSError, ConfigError) as error:
            raise StartError(str(error)) from error

    try:
        parts = Components(make_client, clock, **options)
        async with parts.running() as work:
            announce(f"fastkube {__version__} is ready: {', '.join(parts.names)}")
            settled()
            await until_stopped(stop, work)
    except ValueError as error:
        raise StartError(str(error)) from error


async def drive_clock(kubeconfig: str, duration: str) -> str:
    """The time of a control plane whose clock is manual, after `duration` ("24h"; "" for none) has passed in it.

    Raises ApiError: 404 when its clock is the machine's own, 400 for what is no duration.
    """
    from fastkube.client import Client
    from fastkube.client.codec import error_from
    from fastkube.server.paths import CLOCK_PATH

    async with Client.from_kubeconfig(kubeconfig, timeout_s=CLOCK_TIMEOUT_S) as client:
        query = {"advance": duration} if duration else {}
        answer = await client.raw("POST" if duration else "GET", CLOCK_PATH, query=query)
    if answer.status >= 400:
        raise error_from(answer.status, answer.headers, answer.body)
    told: str = json.loads(answer.body)["time"]
    return told
