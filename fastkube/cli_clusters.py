"""`fastkube cluster save|restore`, `fastkube record` and `fastkube replay`: from flags to text."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastkube.process import die, serve

if TYPE_CHECKING:
    from fastkube.client import Client

_KUBECONFIG = click.option("--kubeconfig", required=True, envvar="KUBECONFIG", help="How to reach the cluster.")
_CONTEXT = click.option("--context", default=None, help="Context of the kubeconfig; the current one unless named.")
_RESOURCES = click.option(
    "--resources", default="", metavar="LIST", help="Only these (pods,deployments.apps,...); otherwise all served."
)
_SECRETS = click.option("--secrets", is_flag=True, help="Take Secrets along; the file is its owner's alone then.")
_SIMULATE = click.option(
    "--simulate-nodes", is_flag=True, help="Label Nodes so that `fastkube nodes` keeps them alive."
)
_FILE = click.Path(dir_okay=False, path_type=Path)


def _run(work: Callable[[], Coroutine[Any, Any, tuple[str, bool]]]) -> None:
    """Print what came of it; exit status 1 when a part of it failed."""
    import uvloop

    from fastkube.errors import ApiError

    try:
        text, well = uvloop.run(work())
    except (OSError, ValueError, ApiError) as error:
        die(str(error))
    click.echo(text)
    sys.exit(0 if well else 1)


def _client(kubeconfig: str, context: str | None) -> Client:
    from fastkube.client import Client

    return Client.from_kubeconfig(kubeconfig, context, batch=True)


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in text.split(","))))


def _labels(simulate: bool) -> dict[str, str]:
    return {"fastkube.io/simulated": "true"} if simulate else {}


@click.group()
def cluster() -> None:
    """A whole cluster in a file: any Kubernetes cluster's objects, to be made again in another one."""


@cluster.command("save")
@click.argument("file", type=_FILE)
@_KUBECONFIG
@_CONTEXT
@_RESOURCES
@click.option("-n", "--namespace", default="", help="Only what is in this namespace.")
@_SECRETS
def cluster_save(
    file: Path, kubeconfig: str, context: str | None, resources: str, namespace: str, secrets: bool
) -> None:
    """Write all objects to FILE, as they were at one moment.

    FILE.yaml is a manifest that kubectl and kwokctl read too; any other name gets JSON lines; .gz is compressed.
    """

    async def work() -> tuple[str, bool]:
        from fastkube.api.documents import Writer
        from fastkube.recording.save import save

        async with _client(kubeconfig, context) as client:
            names = _names(resources)
            writer = Writer(file, private=secrets or "secrets" in names)
            try:
                saved = await save(client, writer, only=names, namespace=namespace, secrets=secrets)
            finally:
                writer.close()
        return f"{file}: {saved.to_text()}", not saved.failed

    _run(work)


@cluster.command("restore")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@_KUBECONFIG
@_CONTEXT
@_SIMULATE
def cluster_restore(files: tuple[Path, ...], kubeconfig: str, context: str | None, simulate_nodes: bool) -> None:
    """Make the objects of FILES (snapshots, manifests, folders of these) in a cluster.

    Objects that are there already are patched. Of a recording its first state is taken.
    """

    async def work() -> tuple[str, bool]:
        from fastkube.api.documents import read_files
        from fastkube.recording.load import Loader
        from fastkube.recording.objects import split

        state, _ = split(read_files(files))
        async with _client(kubeconfig, context) as client:
            report = await Loader(client, node_labels=_labels(simulate_nodes)).load(state)
        return report.to_text(), not report.failures

    _run(work)


@click.command()
@click.argument("file", type=_FILE)
@_KUBECONFIG
@_CONTEXT
@_RESOURCES
@_SECRETS
@click.option("--resume", is_flag=True, help="Go on with FILE, where an earlier recording has ended.")
def record(file: Path, kubeconfig: str, context: str | None, resources: str, secrets: bool, resume: bool) -> None:
    """Write a cluster's state to FILE, and then every change with its time, until Ctrl-C."""
    from fastkube.cluster import StartError

    if file.exists() and not resume:
        die(f"{file} exists (--resume goes on with it)")

    async def work(stop: asyncio.Event) -> None:
        from fastkube.api.documents import Writer, read_files
        from fastkube.clock import RealClock
        from fastkube.errors import ApiError
        from fastkube.process import until_stopped
        from fastkube.recording.record import Recorder

        try:
            known = read_files([file]) if resume else None
            names = _names(resources)
            writer = Writer(file, append=resume, private=secrets or "secrets" in names)
            async with _client(kubeconfig, context) as client:
                recorder = Recorder(client, writer, RealClock(), only=names, secrets=secrets, known=known)
                running = asyncio.ensure_future(recorder.run())
                await until_stopped(stop, running, asyncio.ensure_future(_announce(recorder, file, stop)))
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            writer.close()
        except (OSError, ValueError, ApiError) as error:
            raise StartError(str(error)) from error
        click.echo(f"{file}: {recorder.changes} changes")

    serve(work)


async def _announce(recorder: Any, file: Path, stop: asyncio.Event) -> None:
    await recorder.ready.wait()
    click.echo(f"recording to {file}: {recorder.objects} objects at the beginning; Ctrl-C ends it")
    await stop.wait()


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_KUBECONFIG
@_CONTEXT
@click.option("--speed", default="1x", show_default=True, help="How fast: 10x, 0.5x, or max for without any pause.")
@_SIMULATE
def replay(file: Path, kubeconfig: str, context: str | None, speed: str, simulate_nodes: bool) -> None:
    """Make the first state of a recording in a cluster, and then its changes in their order and at their times.

    The cluster should have no scheduler and controllers of its own: fastkube up --scheduler=false
    --controller-manager=false. Recordings of `kwokctl snapshot record` are taken too.
    """

    async def work() -> tuple[str, bool]:
        from fastkube.api.documents import read_files
        from fastkube.clock import RealClock
        from fastkube.recording.load import Loader
        from fastkube.recording.objects import split
        from fastkube.recording.replay import Player, parse_speed

        pace = parse_speed(speed)
        state, changes = split(read_files([file]))
        async with _client(kubeconfig, context) as client:
            loader = Loader(client, node_labels=_labels(simulate_nodes))
            report = await loader.load(state)
            click.echo(f"first state: {report.to_text()}")
            player = Player(client, loader, RealClock(), pace)
            played = await player.play(changes)
        lines = [f"{player.done} changes made"]
        lines += [f"failed: {each.what}: {each.message}" for each in played.failures]
        return "\n".join(lines), not (report.failures or played.failures)

    _run(work)


@click.group()
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
