"""`fastkube nodes`: the simulated fleet, and nodes of it that fail and come back."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from fastkube import config
from fastkube.nodes.options import FleetOptions
from fastkube.process import die, serve

_FAILED = "fastkube.io/failed"
_KUBECONFIG = click.option("--kubeconfig", envvar="KUBECONFIG", default="", help="How to reach the API server.")


@click.group(invoke_without_command=True)
@config.add_flags(FleetOptions)
@_KUBECONFIG
@click.pass_context
def nodes(context: click.Context, /, kubeconfig: str, **values: Any) -> None:
    """Run simulated nodes against any Kubernetes API server; or have some of them fail (COMMAND)."""
    if context.invoked_subcommand is not None:
        context.obj = kubeconfig
        return
    from fastkube import commands

    if not kubeconfig:
        raise click.UsageError("Missing option '--kubeconfig'.")
    try:
        options = config.build(FleetOptions, values)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    serve(lambda stop: commands.components(kubeconfig, stop, click.echo, fleet=options))


@nodes.command()
@click.argument("names", nargs=-1, required=True)
@_KUBECONFIG
@click.pass_obj
def fail(inherited: str, /, names: tuple[str, ...], kubeconfig: str) -> None:
    """Let NODES fall silent: no leases, no status, and nothing happens to their Pods, until they recover."""
    _annotate(names, kubeconfig or inherited, "true")


@nodes.command()
@click.argument("names", nargs=-1, required=True)
@_KUBECONFIG
@click.pass_obj
def recover(inherited: str, /, names: tuple[str, ...], kubeconfig: str) -> None:
    """Let NODES that have failed come back: their kubelets start, report, and go on with their Pods."""
    _annotate(names, kubeconfig or inherited, None)


def _annotate(names: tuple[str, ...], kubeconfig: str, value: str | None) -> None:
    from fastkube.client import Client
    from fastkube.errors import ApiError

    if not kubeconfig:
        raise click.UsageError("Missing option '--kubeconfig'.")

    async def work() -> None:
        async with Client.from_kubeconfig(kubeconfig) as client:
            for name in names:
                await client.patch("v1/nodes", name, {"metadata": {"annotations": {_FAILED: value}}})
                click.echo(f"node/{name} {'fails' if value else 'recovers'}")

    try:
        asyncio.run(work())
    except (OSError, ValueError, ApiError) as error:
        die(str(error))
