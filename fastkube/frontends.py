"""A frontend: HTTP, TLS, authentication, authorization, admission and reading in a process of its own.

It serves the same port as its siblings (the kernel divides connections among them) and hands its writes to the process
that started it. What to serve is read from standard input; when that ends, the frontend does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import TYPE_CHECKING, cast

from fastkube.clock import RealClock
from fastkube.cluster import COMPONENT_USERS, Server, StartError, StoreOptions, served_catalog, store_path
from fastkube.config import build
from fastkube.process import settled, until_stopped
from fastkube.store import FrontendStore, StoreError

if TYPE_CHECKING:
    from fastkube.server.options import ServerOptions
    from fastkube.store import Store


class Frontend(Server):
    """The server without what only the writer does: opening the store, bootstrap objects, the kubernetes Service."""

    def __init__(self, store_options: StoreOptions, options: ServerOptions, tokens: dict[str, str]) -> None:
        super().__init__(store_options, options, RealClock())
        self.tokens = tokens
        self._stack = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Raises StartError."""
        from fastkube.registry.strategy import UserInfo

        async with contextlib.AsyncExitStack() as stack:
            try:
                store = await self._open_frontend()
                stack.push_async_callback(store.close)
                self.store = cast("Store", store)
                users = {token: UserInfo(user, COMPONENT_USERS[user]) for user, token in self.tokens.items()}
                self.api = await self._api_server(served_catalog(self._options), users, stack, shared_port=True)
                await self.api.start()
                stack.push_async_callback(self.api.stop)
            except (OSError, ValueError, StoreError) as error:
                raise StartError(str(error)) from error
            self._stack = stack.pop_all()

    async def _open_frontend(self) -> FrontendStore:
        path, config = store_path(self.data_dir), self._options.encryption_provider_config
        if not config:
            return await FrontendStore.open(path)
        from fastkube.registry.encryption import Encryption
        from fastkube.registry.sealing import SealedFrontend

        return await SealedFrontend.open_sealed(path, Encryption.load(config))


async def frontend_from_stdin(stop: asyncio.Event) -> None:
    """Reads its order, serves, and ends with its standard input."""
    from fastkube.server.options import ServerOptions

    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    line = await reader.readline()
    if not line:
        return
    order = json.loads(line)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in order["server"].items()}
    server = Frontend(StoreOptions(data_dir=order["data_dir"]), build(ServerOptions, values), order["tokens"])
    await server.start()
    try:
        print("ready", flush=True)
        settled()
        parent = asyncio.ensure_future(reader.read())
        await until_stopped(stop, parent)
        parent.cancel()
    finally:
        await server.stop()
