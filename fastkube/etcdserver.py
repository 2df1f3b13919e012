"""`fastkube etcd`: the store and the etcd v3 API, and nothing of Kubernetes; with --initial-cluster several of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastkube import __version__
from fastkube.clock import RealClock
from fastkube.cluster import StartError, StoreOptions, _told, await_majority, store_path, write_endpoints
from fastkube.commands import take_options
from fastkube.etcd.endpoint import Endpoint
from fastkube.etcd.node import Node, identity_of
from fastkube.etcd.options import EtcdServerOptions
from fastkube.process import settled, until_stopped
from fastkube.store import Replication, ReplicationOptions, Store, StoreError
from fastkube.store.compaction import compact_regularly
from fastkube.store.engine import DEFAULT_MAX_BYTES


def made_folder(path: str) -> Path:
    folder = Path(path).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


async def etcd(values: Mapping[str, Any], stop: asyncio.Event, announce: Callable[[str], None]) -> None:
    """Until stopped. Raises StartError."""
    store_options, options, replication = take_options(values, StoreOptions, EtcdServerOptions, ReplicationOptions)
    async with contextlib.AsyncExitStack() as stack:
        starting = asyncio.ensure_future(_start(store_options, options, replication, stack))
        try:
            await until_stopped(stop, starting)
        except OSError as error:
            raise StartError(_told(error)) from error
        except (ValueError, StoreError) as error:
            raise StartError(str(error)) from error
        if not starting.done():
            starting.cancel()
            await asyncio.wait((starting,))
            return
        announce(f"fastkube {__version__} etcd is ready: {', '.join(starting.result().urls)}")
        settled()
        await stop.wait()


async def _start(
    store_options: StoreOptions,
    options: EtcdServerOptions,
    replication: ReplicationOptions,
    stack: contextlib.AsyncExitStack,
) -> Endpoint:
    options.validate()
    replication.validate()
    clock = RealClock()
    data_dir = made_folder(store_options.data_dir)
    store = await Store.open(
        store_path(data_dir),
        clock=clock,
        max_bytes=options.quota_backend_bytes or DEFAULT_MAX_BYTES,
        replication=Replication(replication) if replication.enabled else None,
    )
    stack.push_async_callback(store.close)
    if replication.enabled:
        write_endpoints(data_dir, replication.advertised, replication.files)
    await await_majority(store)
    if options.auto_compaction_retention_s:
        task = asyncio.ensure_future(compact_regularly(store, clock, options.auto_compaction_retention_s))
        stack.callback(task.cancel)
    node = Node(
        store,
        clock,
        identity_of(store, replication.name, options.advertise_client_urls),
        options.max_request_bytes,
        options.max_txn_ops,
        options.watch_progress_notify_interval_s,
    )
    endpoint = Endpoint(node, options.endpoint)
    await endpoint.open()
    stack.push_async_callback(endpoint.close)
    return endpoint
