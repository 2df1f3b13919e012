"""`fastkube apiserver` and `fastkube etcd`; and the check of a store that is not running."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click

from fastkube import config
from fastkube.cluster import StoreOptions
from fastkube.etcd.options import EtcdListenOptions, EtcdServerOptions
from fastkube.process import log_level, serve
from fastkube.server.options import ServerOptions
from fastkube.server.upstream_options import UpstreamOptions
from fastkube.store.external.options import EtcdOptions
from fastkube.store.options import ReplicationOptions


def _upstream_version(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    """`--version` as kube-apiserver's, for scripts that ask for it."""
    if value in (None, "false"):
        return
    from fastkube.server.version import VERSION_INFO

    click.echo(f"Kubernetes {VERSION_INFO['gitVersion']}")
    context.exit()


@click.command()
@config.add_flags(StoreOptions, EtcdOptions, ServerOptions, UpstreamOptions, EtcdListenOptions, ReplicationOptions)
@click.option("-v", "--v", "verbosity", type=click.IntRange(min=0), default=0, help="How much is logged; 4: all.")
@click.option("--version", is_flag=False, flag_value="true", callback=_upstream_version, is_eager=True, hidden=True)
def apiserver(**values: Any) -> None:
    """Run the API server with its embedded store, and nothing else.

    With --initial-cluster the store is replicated by all servers named there, and any of them answers. With --storage
    or --etcd-servers everything is kept in that etcd cluster, which any number of servers may share.
    """
    from fastkube import commands

    log_level(values.pop("verbosity"))
    commands.apiserver(values, announce=click.echo)


@click.command()
@config.add_flags(StoreOptions, EtcdServerOptions, ReplicationOptions)
def etcd(**values: Any) -> None:
    """Run the store alone, with the etcd v3 API in front of it; the flags are etcd's.

    With --initial-cluster the store is replicated by all members named there, and any of them answers.
    """
    from fastkube import etcdserver

    serve(lambda stop: etcdserver.etcd(values, stop, announce=click.echo))


@click.command(hidden=True)
def frontend() -> None:
    """One of the processes that serve the secure port; what to serve is read from standard input."""
    from fastkube import frontends

    serve(frontends.frontend_from_stdin)


@click.command()
@click.option("--data-dir", required=True, envvar="FASTKUBE_DATA_DIR", help="Folder of a server that is not running.")
def check(data_dir: str) -> None:
    """Check that a store's index, history, log and revisions agree. Exit status 1 when they do not.

    After a loss of power, first brings the data up to date with the log, as the server's next start would.
    """
    from fastkube.cluster import store_path
    from fastkube.store.check import check as check_store
    from fastkube.store.journal import settle

    asyncio.run(settle(store_path(data_dir)))
    report = check_store(store_path(data_dir))
    click.echo(str(report))
    sys.exit(0 if report.ok else 1)
