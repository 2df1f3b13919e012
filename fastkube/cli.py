"""The `fastkube` command. Each subcommand builds options, hands them to fastkube.commands and waits for a signal.

Imports are inside the commands, and each family of commands is a module (`cli_*`) that is imported when it is asked
for: a start must not pay for parts that it does not use.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import click

from fastkube import __version__, config

_PLACES = {
    "apiserver": "cli_servers",
    "check": "cli_servers",
    "clock": "cli_clusters",
    "cluster": "cli_clusters",
    "controller-manager": "cli_scheduler",
    "etcd": "cli_servers",
    "frontend": "cli_servers",
    "member": "cli_members",
    "nodes": "cli_nodes",
    "record": "cli_clusters",
    "replay": "cli_clusters",
    "scheduler": "cli_scheduler",
    "snapshot": "cli_members",
    "transfer": "cli_members",
    "up": "cli_up",
    "version": "cli",
}
"""The module of each command."""


class _Group(click.Group):
    """Imports a command when it is asked for, and gives it the values of --config as its defaults."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_PLACES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _PLACES:
            return None
        module = importlib.import_module(f"fastkube.{_PLACES[cmd_name]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

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


@click.command()
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
