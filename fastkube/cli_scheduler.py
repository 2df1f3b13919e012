"""`fastkube scheduler`, and what it can be asked; `fastkube controller-manager`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import click

from fastkube import config
from fastkube.controllers.options import ControllerManagerOptions
from fastkube.process import die, serve
from fastkube.scheduler.options import CONTENT_TYPES, SchedulerOptions

if TYPE_CHECKING:
    from fastkube.client.client import Codec


@click.group(invoke_without_command=True)
@config.add_flags(SchedulerOptions)
@click.option("--kubeconfig", envvar="KUBECONFIG", help="How to reach the API server.")
@click.option(
    "--kube-api-content-type",
    type=click.Choice(CONTENT_TYPES),
    help="Content type of requests; without it what the server takes best: msgpack, or else JSON.",
)
@click.pass_context
def scheduler(
    context: click.Context, /, kubeconfig: str | None, kube_api_content_type: str | None, **values: Any
) -> None:
    """Run the scheduler against any Kubernetes API server; or ask it what it would do (COMMAND)."""
    if context.invoked_subcommand is not None:
        context.obj = kubeconfig
        return
    from fastkube import commands
    from fastkube.scheduler import config as configs

    try:
        options = config.build(SchedulerOptions, values)
        told = (configs.load(options.config) if options.config else configs.SchedulerConfig()).client_connection
        path, media = kubeconfig or told.kubeconfig, kube_api_content_type or told.content_type
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if not path:
        raise click.UsageError("Missing option '--kubeconfig'.")
    codec: Codec = CONTENT_TYPES.get(media, "msgpack")
    serve(lambda stop: commands.components(path, stop, click.echo, codec=codec, scheduler=options))


_CLUSTER = click.option(
    "--cluster", multiple=True, help="File or folder with the cluster's objects, instead of a server; repeatable."
)
_SEEN_CONFIG = click.option("--scheduler-config", metavar="FILE", help="KubeSchedulerConfiguration; default without.")
_LIMIT = click.option("--limit", default=50, show_default=True, help="Most rows of the table; 0 for all.")
_OUTPUT = click.option("-o", "--output", type=click.Choice(("table", "json")), default="table", show_default=True)


@scheduler.command()
@click.argument("pod")
@click.option("-n", "--namespace", default="default", show_default=True, help="The Pod's namespace.")
@click.option("--kubeconfig", envvar="KUBECONFIG", help="The API server to take a snapshot of.")
@_CLUSTER
@_SEEN_CONFIG
@_LIMIT
@_OUTPUT
@click.pass_obj
def explain(inherited: str | None, /, pod: str, namespace: str, kubeconfig: str | None, **values: Any) -> None:
    """Each node's verdict and each plugin's score for a Pod: one of the cluster by name, or that of a file.

    A Pod that has a node already is looked at as if it had none.
    """
    from fastkube.scheduler import tool

    _tell(tool.explain, pod, namespace=namespace, kubeconfig=kubeconfig or inherited, **values)


@scheduler.command()
@click.option("--kubeconfig", envvar="KUBECONFIG", help="The API server to take a snapshot of.")
@_CLUSTER
@click.option("--pods", multiple=True, help="File with Pods or workloads to place besides those that wait; repeatable.")
@_SEEN_CONFIG
@click.option("--compare", metavar="FILE", help="A second KubeSchedulerConfiguration, to see side by side.")
@click.option("--preempt", is_flag=True, help="Let Pods of lower priority leave.")
@click.option("--seed", default=1, show_default=True, help="Decides among equal nodes.")
@_LIMIT
@_OUTPUT
@click.pass_obj
def simulate(inherited: str | None, /, kubeconfig: str | None, **values: Any) -> None:
    """Where Pods would go on a snapshot of a cluster. Nothing is written."""
    from fastkube.scheduler import tool

    _tell(tool.simulate, kubeconfig=kubeconfig or inherited, **values)


def _tell(work: Callable[..., Coroutine[Any, Any, str]], *words: Any, **values: Any) -> None:
    from fastkube.errors import ApiError

    try:
        click.echo(asyncio.run(work(*words, **values)), nl=False)
    except (OSError, ValueError, ApiError) as error:
        die(str(error))


@click.command("controller-manager")
@config.add_flags(ControllerManagerOptions)
@click.option("--kubeconfig", required=True, envvar="KUBECONFIG", help="How to reach the API server.")
def controller_manager(kubeconfig: str, **values: Any) -> None:
    """Run the controllers against any Kubernetes API server."""
    from fastkube import commands

    options = config.build(ControllerManagerOptions, values)
    serve(lambda stop: commands.components(kubeconfig, stop, click.echo, controllers=options))
