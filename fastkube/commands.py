"""What the subcommands run: each builds its options, starts its parts in order, and says when they are ready.

`fastkube up` runs the server in its own process and the components in one child. The child is forked when all is
imported that both need: what only it needs, it then imports beside the server's on the other core. It reads what to do
from its standard input, and ends when that ends, so that it never outlives its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastkube import __version__, config
from fastkube.clock import RealClock
from fastkube.cluster import Server, StartError, StoreOptions, UpOptions
from fastkube.components import Components
from fastkube.forked import Forked
from fastkube.process import mendable, serve, settled, until_stopped

if TYPE_CHECKING:
    from fastkube.client import Client
    from fastkube.client.client import Codec
    from fastkube.initial import Contents

CLOCK_TIMEOUT_S = 3600.0
CHILD_GRACE_S = 0.7
"""With the server's own grace and the store's last commit `up` stops within two seconds."""


def take_options(values: Mapping[str, Any], *classes: type) -> list[Any]:
    """Raises StartError for values that cannot be."""
    try:
        return [config.build(cls, dict(values)) for cls in classes]
    except ValueError as error:
        raise StartError(str(error)) from error


def check_upstream_options(values: Mapping[str, Any]) -> None:
    """Raises StartError for flags of kube-apiserver that ask for what there is not."""
    from fastkube.server.upstream_options import UpstreamOptions

    try:
        config.build(UpstreamOptions, dict(values)).validate()
    except ValueError as error:
        raise StartError(str(error)) from error


def apiserver(values: Mapping[str, Any], announce: Callable[[str], None]) -> None:
    """`fastkube apiserver`."""
    from fastkube.etcd.options import EtcdListenOptions
    from fastkube.server.options import ServerOptions
    from fastkube.store import ReplicationOptions
    from fastkube.store.external.options import EtcdOptions

    with mendable():
        check_upstream_options(values)
        options = take_options(values, StoreOptions, ServerOptions, ReplicationOptions, EtcdOptions, EtcdListenOptions)
        server = Server(options[0], options[1], replication=options[2], etcd=options[3], etcd_listen=options[4])
        server.begin_keys()
    serve(lambda stop: _apiserver(server, stop, announce))


async def _apiserver(server: Server, stop: asyncio.Event, announce: Callable[[str], None]) -> None:
    if not await started(server, stop):
        return
    try:
        announce(f"fastkube {__version__} apiserver is ready: {server.api.url}")
        for url in server.etcd_urls:
            announce(f"  etcd        {url}")
        settled()
        await stop.wait()
    finally:
        await server.stop()


async def started(server: Server, stop: asyncio.Event) -> bool:
    """A member may wait long for others; False if it was stopped before it was ready."""
    starting = asyncio.ensure_future(server.start())
    await until_stopped(stop, starting)
    if not starting.done():
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        return False
    return True


def up(values: Mapping[str, Any], announce: Callable[[str], None]) -> None:
    """`fastkube up`: the first line that is announced says that everything is ready."""
    from fastkube.etcd.options import EtcdListenOptions
    from fastkube.nodes.options import FleetOptions
    from fastkube.server.options import ServerOptions

    begun = time.monotonic()
    with mendable():
        check_upstream_options(values)
        store_options, options, server_options, etcd_options, *_ = take_options(
            values, StoreOptions, UpOptions, ServerOptions, EtcdListenOptions, FleetOptions
        )
        if options.clock == "manual":
            serve(lambda stop: _up_manually(values, options, stop, announce))
        elif options.servers != 1:
            from fastkube.replicas import up_replicated

            child = fork_components()
            serve(lambda stop: up_replicated(values, child, stop, announce))
        else:
            from fastkube.initial import Contents

            contents = Contents(options, store_options)
            server = Server(store_options, server_options, etcd_listen=etcd_options)
            server.begin_keys()
            child = fork_components()
            whole = Whole(server, child, contents, options, begun)
            serve(lambda stop: whole.run(values, stop, announce))


class Whole(NamedTuple):
    """The server in this process, and the components in the other one."""

    server: Server
    child: Child
    contents: Contents
    options: UpOptions
    begun: float

    async def run(self, values: Mapping[str, Any], stop: asyncio.Event, announce: Callable[[str], None]) -> None:
        server, child = self.server, self.child
        try:
            await server.start()
            kubeconfig = Path(self.options.kubeconfig or server.data_dir / "kubeconfig")
            async with child.serving(server, values, self.options, self.contents, kubeconfig):
                _announce(announce, self.begun, server, kubeconfig, child.names)
                settled()
                await child.until_stopped(stop)
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


class Child:
    """The process of the components, seen from its parent."""

    def __init__(self, process: Forked) -> None:
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
        self.process.write(json.dumps(order).encode() + b"\n")
        line = await self.process.readline()
        if not line:
            raise StartError("the scheduler, controllers and nodes did not start; what they said stands above")
        self.names = json.loads(line)

    @contextlib.asynccontextmanager
    async def serving(
        self, server: Server, values: Mapping[str, Any], options: UpOptions, contents: Contents, kubeconfig: Path
    ) -> AsyncIterator[None]:
        """What `up` adds to a server that has started: its kubeconfig, what it is to hold, and the components. Both
        processes have stopped at the end."""
        try:
            server.api.write_kubeconfig(kubeconfig)
            await contents.restore(server)
            await self.begin(server, values, options)
            await contents.load(server)
            yield
        finally:
            await self.end()
            await server.stop()

    async def until_stopped(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; raises StartError when it ends before that."""
        ended = asyncio.ensure_future(self.process.wait())
        await until_stopped(stop, ended)
        if ended.done() and not stop.is_set():
            raise StartError(f"the components ended with exit status {ended.result()}")
        ended.cancel()

    async def end(self) -> None:
        await self.process.end(CHILD_GRACE_S)


def fork_components() -> Child:
    """Before any event loop."""
    import uvloop  # noqa: F401

    import fastkube.api.catalog
    import fastkube.api.selectors
    import fastkube.api.tokens
    import fastkube.client.transport  # noqa: F401

    return Child(Forked("fastkube-parts", lambda: serve(components_from_stdin)))


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
    scheduler, controllers, fleet = take_options(values, SchedulerOptions, ControllerManagerOptions, FleetOptions)
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
