"""`Cluster`: a whole control plane in a thread of the calling process, on a free port and a folder of its own.

It is the same composition as `fastkube up` (fastkube.cluster), in one event loop; several can run at once.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from fastkube import cluster as composition
from fastkube.config import build

if TYPE_CHECKING:
    from fastkube.client import Client


START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0


class Cluster:
    """A control plane between `start` and `stop`, or inside a `with` block.

    `nodes`, `scheduler` and `controllers` say what runs beside the API server. Further keyword arguments are options of
    `fastkube up` by their flags' names with underscores (`authorization_mode=("RBAC",)`). Raises StartError.
    """

    def __init__(
        self,
        *,
        nodes: int = 1,
        scheduler: bool = True,
        controllers: bool = True,
        data_dir: str | Path | None = None,
        **options: Any,
    ) -> None:
        self._own_folder = data_dir is None
        self.data_dir = Path(data_dir) if data_dir else Path(tempfile.mkdtemp(prefix="fastkube-test-"))
        """Kept after `stop` when it was given, so that another Cluster can go on from it."""
        self.kubeconfig = self.data_dir / "kubeconfig"
        self._values = {
            "secure_port": 0,
            "nodes": nodes,
            "leader_elect": False,
            **options,
            "data_dir": str(self.data_dir),
        }
        self._scheduler, self._controllers = scheduler, controllers
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._server: composition.Server

    # -- life --------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when everything is ready."""
        started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._main, args=(started,), name="fastkube", daemon=True)
        self._thread.start()
        try:
            started.result(START_TIMEOUT_S)
        except BaseException:
            self._thread.join(STOP_TIMEOUT_S)
            self._thread = None
            self._remove_folder()
            raise

    def stop(self) -> None:
        """Stops everything; a folder that was not given is removed."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(STOP_TIMEOUT_S)
            self._thread = None
        self._remove_folder()

    def _remove_folder(self) -> None:
        if self._own_folder:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    def _main(self, started: concurrent.futures.Future[None]) -> None:
        import uvloop

        try:
            uvloop.run(self._run(started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _run(self, started: concurrent.futures.Future[None]) -> None:
        from fastkube.controllers.options import ControllerManagerOptions
        from fastkube.nodes.options import FleetOptions
        from fastkube.scheduler.options import SchedulerOptions
        from fastkube.server.options import ServerOptions

        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        values = self._values
        self._server = composition.Server(build(composition.StoreOptions, values), build(ServerOptions, values))
        async with contextlib.AsyncExitStack() as stack:
            await self._server.start()
            stack.push_async_callback(self._server.stop)
            self._server.api.write_kubeconfig(self.kubeconfig)
            parts = composition.Components(
                self._component_client,
                self._server.clock,
                scheduler=build(SchedulerOptions, values) if self._scheduler else None,
                controllers=build(ControllerManagerOptions, values) if self._controllers else None,
                fleet=build(FleetOptions, values) if self._values["nodes"] else None,
            )
            work = await stack.enter_async_context(parts.running())
            started.set_result(None)
            stopping = asyncio.ensure_future(self._stop.wait())
            await asyncio.wait((work, stopping), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if work.done():
                await work

    def _component_client(self, user: str) -> Client:
        from fastkube.client import Client

        server = self._server
        return Client(server.internal_url, token=server.tokens[user], clock=server.clock)

    # -- use ---------------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """`https://127.0.0.1:PORT`."""
        return self._server.api.url

    @property
    def ca_file(self) -> str:
        """PEM file that verifies the server's certificate."""
        return self._server.api.ca_file

    def environment(self) -> dict[str, str]:
        """This process's environment with KUBECONFIG of this cluster: for clients that are started as processes."""
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}

    def kubectl(
        self,
        *words: str,
        input: str | None = None,
        check: bool = True,
        both: bool = False,
        environment: dict[str, str] | None = None,
        timeout_s: float = 90.0,
    ) -> str:
        """Standard output of kubectl (`both`: with standard error). A failure raises subprocess.CalledProcessError."""
        done = subprocess.run(
            ["kubectl", *words],
            input=input,
            env={**self.environment(), **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if both else subprocess.PIPE,
            text=True,
            check=check,
            timeout=timeout_s,
        )
        return done.stdout

    def client(self, **options: Any) -> Client:
        """fastkube's own asynchronous client, for use in the caller's event loop."""
        from fastkube.client import Client

        return Client.from_kubeconfig(str(self.kubeconfig), **options)
