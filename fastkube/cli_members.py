"""`fastkube member`, `transfer` and `snapshot`: the servers that replicate a store, and what it holds as a file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastkube import config
from fastkube.process import die
from fastkube.store.options import ReplicationOptions

if TYPE_CHECKING:
    from fastkube.store.transport import AdminClient


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


@click.group()
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


@click.command()
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


@click.group()
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
