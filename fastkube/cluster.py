"""The composition root of the server: builds its parts, wires them, and knows in which order they start and stop.

    server:      store → bootstrap objects → certificates → API server          (stops in the reverse order)
    components:  client → scheduler, controllers, simulated nodes               (each only speaks to the API server)

The components are put together in components.py; commands.py makes processes of both. `fastkube.testing.Cluster` runs
both in one event loop.
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
import tempfile
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastkube.clock import Clock, RealClock
from fastkube.config import option
from fastkube.forked import Forked

if TYPE_CHECKING:
    from fastkube.api.catalog import Catalog
    from fastkube.client import Client
    from fastkube.etcd.options import EtcdListenOptions
    from fastkube.registry.registry import Registry
    from fastkube.registry.strategy import UserInfo
    from fastkube.server.app import ApiServer
    from fastkube.server.options import ServerOptions
    from fastkube.store import ReplicationOptions, Store
    from fastkube.store.external.options import EtcdOptions
    from fastkube.store.transport import PeerFiles

log = logging.getLogger(__name__)


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
        self._keys: Forked | None = None
        self._keys_ended: asyncio.Future[int] | None = None
        self.store: Store
        self.api: ApiServer
        self._registry: Registry

    def begin_keys(self) -> None:
        """Have another process make the keys and certificates of a first start, while this one imports.

        Before any event loop.
        """
        from fastkube.server import pki
        from fastkube.server.listeners import certificate_names

        folder = Path(self._options.cert_dir)
        if not pki.is_there(folder):
            names = certificate_names(self._options)
            self._keys = Forked("fastkube-keys", lambda: pki.make_beside(folder, names))

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
                if self._keys is not None:
                    await self._keys.readline()
                    self._keys_ended = asyncio.ensure_future(self._keys.wait())
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
            only=options.admission_control,
            config_file=options.admission_control_config_file,
            tolerated_s=(options.default_not_ready_toleration_seconds, options.default_unreachable_toleration_seconds),
        )
        stack.callback(chain.close)
        addresses = ServiceAddresses(self.store, options.service_cluster_ip_range, options.service_node_port_range)
        stack.callback(addresses.close)
        attendants = builtin_attendants(self.store, addresses)
        registry = Registry(
            self.store,
            catalog,
            clock=self.clock,
            admission=chain,
            attendants=attendants,
            event_ttl_s=int(options.event_ttl_s),
        )
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
        options = self._options
        if port and self.api.url.startswith("https") and options.endpoint_reconciler_type != "none":
            address = options.advertise_address or _own_address()
            await publish_address(self._registry, address, port, options.kubernetes_service_node_port)

    async def stop(self) -> None:
        await self._stack.aclose()
        if self._keys_ended is not None:
            await self._keys_ended

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
