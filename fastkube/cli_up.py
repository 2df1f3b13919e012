"""`fastkube up`: its flags are those of all that it runs."""

from __future__ import annotations

from typing import Any

import click

from fastkube import config
from fastkube.cluster import StoreOptions, UpOptions
from fastkube.controllers.options import ControllerManagerOptions
from fastkube.etcd.options import EtcdListenOptions
from fastkube.nodes.options import FleetOptions
from fastkube.scheduler.options import SchedulerOptions
from fastkube.server.options import ServerOptions
from fastkube.server.upstream_options import UpstreamOptions


@click.command()
@config.add_flags(
    UpOptions,
    StoreOptions,
    FleetOptions,
    ServerOptions,
    UpstreamOptions,
    EtcdListenOptions,
    SchedulerOptions,
    ControllerManagerOptions,
)
def up(**values: Any) -> None:
    """Run the whole control plane: API server, scheduler, controllers and simulated nodes."""
    from fastkube import commands

    commands.up(values, announce=click.echo)
