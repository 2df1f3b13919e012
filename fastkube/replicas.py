"""Several servers that replicate one store: on one machine by `fastkube up --servers 3`, and the commands for members.

    DATA_DIR/servers.json   ports of the members, drawn once: they are the members' identity
    DATA_DIR/peer-pki/      what members show each other
    DATA_DIR/pki/           certificates and keys that all servers share, as in any highly available control plane
    DATA_DIR/a, b, c, ...   the members' stores

`up` runs the first member, the scheduler, controllers and nodes; the others are processes of `fastkube apiserver`,
which are started again when they end.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import shutil
import signal
import socket
import string
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fastkube import __version__, config
from fastkube.cluster import (
    ENDPOINTS_FILE,
    Server,
    StartError,
    StoreOptions,
    UpOptions,
    store_path,
    write_endpoints,
)
from fastkube.commands import Child, started
from fastkube.etcd.options import EtcdListenOptions
from fastkube.initial import Contents
from fastkube.process import settled
from fastkube.server import pki
from fastkube.server.options import ServerOptions
from fastkube.store import ReplicationOptions, StoreError
from fastkube.store.transport import AdminClient, PeerFiles

_SERVERS_FILE = "servers.json"
_RESTART_S = 1.0
_NOT_SHARED = ("unix_socket", "http_port", "audit_log_path")
"""Options of the first server alone: what they name cannot be had by several."""

_PR_SET_PDEATHSIG = 1


class _Plan(NamedTuple):
    """What the members of one machine have in common."""

    data_dir: Path
    initial_cluster: str
    names: tuple[str, ...]
    files: PeerFiles
    secure_ports: tuple[int, ...]


def _plan(data_dir: Path, servers: int, secure_port: int | None) -> _Plan:
    """Raises StartError for a number of servers that cannot be, or is not what the data folder was made for."""
    if not 1 <= servers <= 9:
        raise StartError("servers: a number from 1 to 9")
    file = data_dir / _SERVERS_FILE
    if file.exists():
        ports = json.loads(file.read_text())
        if len(ports) != servers:
            raise StartError(f"servers: {data_dir} is a cluster of {len(ports)}")
    else:
        ports = dict(zip(string.ascii_lowercase[:servers], _free_ports(servers), strict=True))
        file.write_text(json.dumps(ports) + "\n")
    made = pki.prepare_peers(data_dir / "peer-pki", ("127.0.0.1", "localhost"), time.time())
    base = secure_port or 0
    return _Plan(
        data_dir,
        ",".join(f"{name}=https://127.0.0.1:{port}" for name, port in ports.items()),
        tuple(ports),
        PeerFiles(str(made.cert), str(made.key), str(made.ca_cert)),
        tuple(base + place if base else port for place, port in enumerate(_free_ports(servers))),
    )


def _made(folder: str) -> Path:
    path = Path(folder).absolute()
    path.mkdir(parents=True, exist_ok=True)
    return path


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _member_options(plan: _Plan, place: int) -> dict[str, Any]:
    files = plan.files
    return {
        "name": plan.names[place],
        "initial_cluster": plan.initial_cluster,
        "peer_cert_file": files.cert,
        "peer_key_file": files.key,
        "peer_trusted_ca_file": files.trusted_ca,
        "data_dir": str(plan.data_dir / plan.names[place]),
        "cert_dir": str(plan.data_dir / "pki"),
        "secure_port": plan.secure_ports[place],
    }


async def up_replicated(
    values: Mapping[str, Any], child: Child, stop: asyncio.Event, announce: Callable[[str], None]
) -> None:
    """`fastkube up --servers N`. Raises StartError."""
    begun = time.monotonic()
    options = config.build(UpOptions, dict(values))
    data_dir = _made(config.build(StoreOptions, dict(values)).data_dir)
    plan = _plan(data_dir, options.servers, values.get("secure_port"))
    mine = {**values, **_member_options(plan, 0)}
    contents = Contents(options, config.build(StoreOptions, mine))
    prepared = config.build(ServerOptions, dict(values))
    names = pki.server_names(prepared.bind_address, service_cluster_ip_range=prepared.service_cluster_ip_range)
    pki.prepare(data_dir / "pki", names, time.time())  # before several processes would
    pki.service_account_key(data_dir / "pki")
    urls = tuple(part.partition("=")[2] for part in plan.initial_cluster.split(","))
    write_endpoints(data_dir, urls, plan.files)
    server = Server(
        config.build(StoreOptions, mine),
        config.build(ServerOptions, mine),
        replication=config.build(ReplicationOptions, mine),
        etcd_listen=config.build(EtcdListenOptions, mine),
    )
    others = [asyncio.ensure_future(_keep_running(values, plan, place)) for place in range(1, len(plan.names))]
    try:
        if not await started(server, stop):
            return
        kubeconfig = Path(options.kubeconfig or data_dir / "kubeconfig")
        async with child.serving(server, mine, options, contents, kubeconfig):
            announce(f"fastkube {__version__} is ready in {time.monotonic() - begun:.2f} s: {server.api.url}")
            announce(f"  kubeconfig  {kubeconfig}")
            announce(f"  data        {data_dir}")
            announce(f"  servers     {', '.join(f'https://127.0.0.1:{port}' for port in plan.secure_ports)}")
            announce(f"  running     {', '.join([f'{len(plan.names)} API servers', *child.names])}")
            announce(f"  try         fastkube member list --data-dir {data_dir}")
            settled()
            await child.until_stopped(stop)
    finally:
        await child.end()
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)


async def _keep_running(values: Mapping[str, Any], plan: _Plan, place: int) -> None:
    """Another member's process, again and again."""
    given = {**values, **_member_options(plan, place)}
    words = []
    for cls in (StoreOptions, ServerOptions, ReplicationOptions):
        for entry in config.options_of(cls):
            value = given.get(entry.field, entry.default)
            if value != entry.default and value is not None and entry.field not in _NOT_SHARED:
                told = ",".join(map(str, value)) if entry.repeated else str(value)
                words.append(f"--{entry.flag}={told}s" if entry.is_duration else f"--{entry.flag}={told}")
    while True:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "fastkube",
            "apiserver",
            *words,
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        try:
            await process.wait()
        except asyncio.CancelledError:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 5.0)
            if process.returncode is None:
                process.kill()
            raise
        await asyncio.sleep(_RESTART_S)


def _end_with_parent() -> None:
    """In the child, before it begins: it is not to outlive this process, however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


# ---------------------------------------------------------------- commands for members


def admin_client(data_dir: str, endpoints: tuple[str, ...], cert: str, key: str, cacert: str) -> AdminClient:
    """From flags, or from what a member of this machine has left in its data folder. Raises StartError."""
    if endpoints:
        if not (cert and key and cacert):
            raise StartError("endpoints: --cert, --key and --cacert must be given with them")
        return AdminClient(endpoints, PeerFiles(cert, key, cacert))
    file = Path(data_dir) / ENDPOINTS_FILE
    try:
        told = json.loads(file.read_text())
    except OSError:
        raise StartError(f"{data_dir} is no data folder of a replicated server; give --endpoints") from None
    found = PeerFiles(told["cert"], told["key"], told["trusted_ca"])
    return AdminClient(tuple(told["endpoints"]), found)


def is_member(data_dir: str) -> bool:
    return (Path(data_dir) / ENDPOINTS_FILE).exists()


def restore_store(source: Path, data_dir: Path, options: ReplicationOptions) -> str:
    """Make a store, or with --initial-cluster a new cluster's member, from a snapshot, be it an etcd's.

    Raises StartError.
    """
    from fastkube.etcd.backup import load
    from fastkube.etcd.bolt import is_bolt
    from fastkube.store.recovery import restore_member
    from fastkube.store.snapshot import check_digest, restore

    target = store_path(data_dir)
    if target.exists() and any(target.iterdir()):
        raise StartError(f"{target}: there is a store already")
    data_dir.mkdir(parents=True, exist_ok=True)
    unpacked = data_dir / "restore.partial"
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir()
    try:
        shutil.copyfile(source, unpacked / "data.mdb")
        check_digest(unpacked / "data.mdb")
        with (unpacked / "data.mdb").open("rb") as file:
            is_etcds = is_bolt(file.read(64))
        report = load(unpacked / "data.mdb", target) if is_etcds else restore(unpacked, target)
        restore_member(target, options)
    except (OSError, ValueError, StoreError) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise StartError(str(error)) from error
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    return str(report)


async def save_snapshot(target: Path, data_dir: str, client: AdminClient | None) -> int:
    """Write a snapshot of a running server to a file; its size. Raises StoreError and OSError."""
    if client is not None:
        return await client.save(target)
    from fastkube.store.snapshot import backup

    partial = target.with_name(target.name + ".folder")
    await backup(store_path(data_dir), partial)
    return _unpack(partial, target)


def _unpack(folder: Path, target: Path) -> int:
    (folder / "data.mdb").rename(target)
    folder.rmdir()
    return target.stat().st_size
