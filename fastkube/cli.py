"""The `fastkube` command. Each subcommand builds options, hands them to fastkube.commands and waits for a signal.

Imports are inside the commands: a start must not pay for parts that it does not use.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastkube import __version__, cli_clusters, cli_nodes, config
from fastkube.cluster import StoreOptions, UpOptions
from fastkube.controllers.options import ControllerManagerOptions
from fastkube.etcd.options import EtcdListenOptions, EtcdServerOptions
from fastkube.nodes.options import FleetOptions
from fastkube.process import die, log_level, serve
from fastkube.scheduler.options import CONTENT_TYPES, SchedulerOptions
from fastkube.server.options import ServerOptions
from fastkube.server.upstream_options import UpstreamOptions
from fastkube.store.external.options import EtcdOptions
from fastkube.store.options import ReplicationOptions

if TYPE_CHECKING:
    from fastkube.client.client import Codec
    from fastkube.store.transport import AdminClient


class _Group(click.Group):
    """Gives every command the values of --config as its defaults."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        path = ctx.params.get("config")
        if path and command is not None:
            flags = {parameter.opts[0].removeprefix("--"): parameter for parameter in command.params}
            lists = {flag: getattr(parameter, "multiple", False) for flag, parameter in flags.items()}
            try:
                values = config.read_file(Path(path), lists)
            except (OSError, ValueError) as error:
                raise click.UsageError(str(error)) from error
            ctx.default_map = {name or "": {flags[key].name: value for key, value in values.items()}}
        return name, command, rest


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, message="%(version)s")
@click.option("--config", type=click.Path(dir_okay=False), envvar="FASTKUBE_CONFIG", help="YAML file of options.")
def main(config: str | None) -> None:
    """A drop-in, lightweight Kubernetes control plane.

    Every option can also be given as an environment variable (--data-dir is FASTKUBE_DATA_DIR) or as a key of the YAML
    file named by --config (`data-dir: DIR`). A flag wins over the environment, the environment over the file.
    """


@main.command()
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


def _upstream_version(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    """`--version` as kube-apiserver's, for scripts that ask for it."""
    if value in (None, "false"):
        return
    from fastkube.server.version import VERSION_INFO

    click.echo(f"Kubernetes {VERSION_INFO['gitVersion']}")
    context.exit()


@main.command()
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


@main.command()
@config.add_flags(StoreOptions, EtcdServerOptions, ReplicationOptions)
def etcd(**values: Any) -> None:
    """Run the store alone, with the etcd v3 API in front of it; the flags are etcd's.

    With --initial-cluster the store is replicated by all members named there, and any of them answers.
    """
    from fastkube import etcdserver

    serve(lambda stop: etcdserver.etcd(values, stop, announce=click.echo))


@main.group(invoke_without_command=True)
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


@main.command("controller-manager")
@config.add_flags(ControllerManagerOptions)
@click.option("--kubeconfig", required=True, envvar="KUBECONFIG", help="How to reach the API server.")
def controller_manager(kubeconfig: str, **values: Any) -> None:
    """Run the controllers against any Kubernetes API server."""
    from fastkube import commands

    options = config.build(ControllerManagerOptions, values)
    serve(lambda stop: commands.components(kubeconfig, stop, click.echo, controllers=options))


@main.command(hidden=True)
def frontend() -> None:
    """One of the processes that serve the secure port; what to serve is read from standard input."""
    from fastkube import frontends

    serve(frontends.frontend_from_stdin)


@main.group()
def clock() -> None:
    """The clock of a control plane that was started with --clock manual."""


@clock.command()
@click.argument("duration")
@click.option("--kubeconfig", required=True, envvar="KUBECONFIG", help="How to reach the API server.")
def advance(duration: str, kubeconfig: str) -> None:
    """Let DURATION (90s, 1h30m, 24h) pass, with all that happens in it; prints the time that it then is."""
    _tell_clock(kubeconfig, duration)


@clock.command()
@click.option("--kubeconfig", required=True, envvar="KUBECONFIG", help="How to reach the API server.")
def show(kubeconfig: str) -> None:
    """Print the time that it is in the control plane."""
    _tell_clock(kubeconfig, "")


def _tell_clock(kubeconfig: str, duration: str) -> None:
    from fastkube.client import ConfigError
    from fastkube.commands import drive_clock
    from fastkube.errors import ApiError

    try:
        click.echo(asyncio.run(drive_clock(kubeconfig, duration)))
    except (OSError, ConfigError) as error:
        die(str(error))
    except ApiError as error:
        die("this control plane was not started with --clock manual" if error.code == 404 else error.message)


@main.command()
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


def _admin_flags(command: Callable[..., None]) -> Callable[..., None]:
    """How to reach a member, and what proves that one may."""
    for decorate in reversed(
        (
            click.option("--data-dir", default=".fastkube", envvar="FASTKUBE_DATA_DIR", help="A member's data folder."),
            click.option("--endpoints", default="", help="Peer URLs of members, instead of what the data folder says."),
            click.option("--cert", default="", help="Peer certificate (PEM), with --endpoints."),
            click.option("--key", default="", help="Its key."),
            click.option("--cacert", default="", help="Authority of the peers."),
        )
    ):
        command = decorate(command)
    return command


def _ask(method: str, *arguments: Any, **flags: str) -> Any:
    from fastkube.cluster import StartError
    from fastkube.store import StoreError

    try:
        return asyncio.run(_client(flags).call(method, *arguments))
    except (OSError, StoreError, StartError) as error:
        die(str(error))


def _client(flags: dict[str, str]) -> AdminClient:
    from fastkube.replicas import admin_client

    urls = tuple(filter(None, flags["endpoints"].split(",")))
    return admin_client(flags["data_dir"], urls, flags["cert"], flags["key"], flags["cacert"])


@main.group()
def member() -> None:
    """The servers that replicate a store."""


@member.command("list")
@_admin_flags
def member_list(**flags: str) -> None:
    """Print ID, status, name, peer URLs and whether it is a learner, of each member."""
    from fastkube.store.members import Membership

    _, packed = _ask("members", **flags)
    leader = _ask("status", **flags)[3]
    membership = Membership.from_bytes(packed)
    for each in membership.members:
        learner = str(each.id in membership.conf.learners).lower()
        status = "leader" if each.id == leader else "started" if each.name else "unstarted"
        click.echo(f"{each.id:x}, {status}, {each.name}, {','.join(each.peer_urls)}, {learner}")


@member.command("status")
@_admin_flags
def member_status(**flags: str) -> None:
    """Print where the member that answers stands."""
    found, name, role, leader, term, commit, applied, health, revision = _ask("status", **flags)
    click.echo(
        f"{found:x}, {name}, {role}, leader {leader:x}, term {term}, committed {commit}, applied {applied}, ", nl=False
    )
    click.echo(f"revision {revision}, {health}")


@member.command("add")
@click.argument("name")
@click.option("--peer-urls", required=True, help="URLs that peers will reach it at.")
@click.option("--learner", is_flag=True, help="As one that gets the log and does not vote; see `promote`.")
@_admin_flags
def member_add(name: str, peer_urls: str, learner: bool, **flags: str) -> None:
    """Add a member, which is to be started with what is printed."""
    from fastkube.store.members import Membership

    urls = tuple(filter(None, peer_urls.split(",")))
    added, packed = _ask("change", "l" if learner else "v", name, urls, 0, **flags)
    initial = [f"{each.name}={url}" for each in Membership.from_bytes(packed).members for url in each.peer_urls]
    click.echo(f"Member {added:x} added\n\n--name={name}")
    click.echo(f"--initial-cluster={','.join(initial)}\n--initial-cluster-state=existing")


@member.command("remove")
@click.argument("id")
@_admin_flags
def member_remove(id: str, **flags: str) -> None:
    """Remove a member. It falls silent, and must be stopped."""
    _ask("change", "r", "", (), _member_id(id), **flags)
    click.echo(f"Member {id} removed")


@member.command("promote")
@click.argument("id")
@_admin_flags
def member_promote(id: str, **flags: str) -> None:
    """Make a voter of a learner that has caught up."""
    _ask("change", "v", "", (), _member_id(id), **flags)
    click.echo(f"Member {id} promoted")


@main.command()
@click.argument("id")
@_admin_flags
def transfer(id: str, **flags: str) -> None:
    """Have the member ID lead."""
    _ask("transfer", _member_id(id), **flags)
    click.echo(f"Leadership transferred to {id}")


def _member_id(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        die(f"{text!r} is no member ID: see `fastkube member list`")


@main.group()
def snapshot() -> None:
    """Snapshots of the store: one file, which is itself a store."""


@snapshot.command("save")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_admin_flags
def snapshot_save(file: Path, **flags: str) -> None:
    """Write a snapshot of a running server to FILE."""
    from fastkube.cluster import StartError
    from fastkube.replicas import is_member, save_snapshot
    from fastkube.store import StoreError

    if file.exists():
        die(f"{file} exists")
    try:
        client = _client(flags) if flags["endpoints"] or is_member(flags["data_dir"]) else None
        size = asyncio.run(save_snapshot(file, flags["data_dir"], client))
    except (OSError, StoreError, StartError) as error:
        die(str(error))
    click.echo(f"Snapshot saved at {file} ({size} bytes)")


@snapshot.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--data-dir", required=True, help="Folder of the new server; it must not have a store.")
@config.add_flags(ReplicationOptions)
def snapshot_restore(file: Path, data_dir: str, **values: Any) -> None:
    """Make a new store of FILE, a snapshot of fastkube or etcd. With --name and --initial-cluster: a new member's."""
    from fastkube.cluster import StartError
    from fastkube.replicas import restore_store

    try:
        click.echo(restore_store(file, Path(data_dir), config.build(ReplicationOptions, values)))
    except StartError as error:
        die(str(error))


main.add_command(cli_nodes.nodes)
main.add_command(cli_clusters.cluster)
main.add_command(cli_clusters.record)
main.add_command(cli_clusters.replay)


@main.command()
def version() -> None:
    """Versions of fastkube, of the Kubernetes API that it serves, and how its cores were built."""
    from fastkube.server.version import VERSION_INFO

    click.echo(f"fastkube {__version__}")
    click.echo(f"Kubernetes API {VERSION_INFO['gitVersion']}")
    click.echo(f"cores {'compiled' if _compiled() else 'pure Python'}")
    click.echo(f"Python {sys.version.split()[0]}")


def _compiled() -> bool:
    from fastkube import _codec, _raft, _sched

    return bool(_codec.COMPILED and _sched.COMPILED and _raft.COMPILED)
