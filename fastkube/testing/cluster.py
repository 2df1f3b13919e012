"""`Cluster`: a whole control plane in a thread of the calling process, on a free port and a folder of its own.

It is the same composition as `fastkube up` (fastkube.cluster), in one event loop; several can run at once.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from fastkube.clock import Clock, ManualClock
from fastkube.embedded import Embedded
from fastkube.process import until_stopped

if TYPE_CHECKING:
    from fastkube.client import Client


START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0


class Hands:
    """The hands of a cluster's clock, for the test's thread."""

    def __init__(self, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self._clock, self._loop = clock, loop

    def time(self) -> float:
        """Seconds since the Unix epoch, as the cluster has it."""
        return self._clock.time()

    def advance(self, seconds: float, timeout_s: float = 300.0) -> None:
        """Let time pass, with all that happens in it; raises TypeError when the clock is the machine's own."""
        if not isinstance(self._clock, ManualClock):
            raise TypeError('the clock of this cluster is the machine\'s own; start it with clock="manual"')
        asyncio.run_coroutine_threadsafe(self._clock.advance(seconds), self._loop).result(timeout_s)


class Cluster:
    """A control plane between `start` and `stop`, or inside a `with` block.

    `nodes`, `scheduler` and `controllers` say what runs beside the API server. Further keyword arguments are options of
    `fastkube up` by their flags' names with underscores (`authorization_mode=("RBAC",)`). Raises StartError. With
    `clock="manual"` time stands still, and `cluster.clock.advance(seconds)` drives it; `manifests` names files and
    folders whose objects are there when it has started, `restore` a snapshot of another cluster.
    """

    def __init__(
        self,
        *,
        nodes: int = 1,
        scheduler: bool = True,
        controllers: bool = True,
        data_dir: str | Path | None = None,
        manifests: str | Path | Sequence[str | Path] = (),
        restore: str | Path = "",
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
            "manifests": tuple(map(str, [manifests] if isinstance(manifests, str | Path) else manifests)),
            "restore": str(restore),
            **options,
            "data_dir": str(self.data_dir),
        }
        has_nodes = bool(nodes or options.get("node_template"))
        self._whole = Embedded(self._values, scheduler=scheduler, controllers=controllers, nodes=has_nodes)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event

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
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self._whole.running(self.kubeconfig) as work:
            started.set_result(None)
            await until_stopped(self._stop, work)

    # -- use ---------------------------------------------------------------------------------------------------------

    @property
    def clock(self) -> Hands:
        """The cluster's clock; only one that is manual can be advanced."""
        return Hands(self._whole.clock, self._loop)

    @property
    def url(self) -> str:
        """`https://127.0.0.1:PORT`."""
        return self._whole.server.api.url

    @property
    def ca_file(self) -> str:
        """PEM file that verifies the server's certificate."""
        return self._whole.server.api.ca_file

    def environment(self) -> dict[str, str]:
        """This process's environment with KUBECONFIG of this cluster: for clients that are started as processes.

        kubectl keeps what it discovers by host and port, which another cluster may have had: it gets a folder here.
        """
        own = {"KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self.data_dir / "kubectl")}
        return {**os.environ, **own}

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
            check=False,
            timeout=timeout_s,
        )
        if check and done.returncode:
            failure = subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
            failure.add_note(done.stderr or done.stdout)
            raise failure
        return done.stdout

    def client(self, **options: Any) -> Client:
        """fastkube's own asynchronous client, for use in the caller's event loop."""
        from fastkube.client import Client

        return Client.from_kubeconfig(str(self.kubeconfig), **options)
