#!/usr/bin/env python3
"""Replication: three members on this machine against the single server, failover, and the state machine alone.

    bench/raft.py                            # interleaved (single, three, single, three ...), medians and ratios
    bench/raft.py --runs 5 --count 20000
    bench/raft.py --only core                # microseconds of CPU that Raft takes for a proposal, compiled and pure
    bench/raft.py --only upkeep              # restart, a million keys, pauses by backup and compaction
    bench/raft.py --only rounds              # 50 rounds of kill -9, SIGSTOP and partitions under load: ten minutes

All members share this machine's cores and its disk, which three machines would not. Results go to
results/<date>-<commit>/raft.json.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click

from bench import contenders, load, report, upkeep
from bench.contenders import ROOT, TOKEN, free_port, wait_ready
from bench.load import Target
from fastkube.server import pki

CONNECTIONS = (1, 8, 64)
_ALONE = ("--disable-admission-plugins", "ServiceAccount")
_PROPOSALS = 20_000

_CORE = """
import sys, time
from fastkube import _raft, _raftlog
from fastkube._raft import Raft
from fastkube._raftlog import ConfState, HardState

founded = dict(conf=ConfState((1, 2, 3)), hard_state=HardState(1, 0, 1), compacted=1, compacted_term=1, applied=1)
members = {one: Raft(one, seed=one, **founded) for one in (1, 2, 3)}

def settle():
    busy = True
    while busy:
        busy = False
        for raft in members.values():
            while raft.has_ready():
                busy = True
                ready = raft.ready()
                for message in ready.messages + ready.responses:
                    members[message.to].step(message)
                raft.advance(ready.number)
                if ready.committed:
                    raft.applied_to(ready.committed[len(ready.committed) - 1].index)

members[1].campaign()
settle()
count = int(sys.argv[1])
begun = time.process_time()
for number in range(count):
    members[1].propose([b"x" * 256])
    settle()
    if number % 1000 == 0:
        for raft in members.values():
            raft.compact(raft.log.applied)
print(_raft.COMPILED, (time.process_time() - begun) / count * 1e6)
"""


class Members(NamedTuple):
    """Three running servers; the first one of `targets` leads."""

    targets: list[Target]
    processes: list[subprocess.Popen[bytes]]


@contextlib.contextmanager
def three_members() -> Iterator[Members]:
    folder = Path(tempfile.mkdtemp(prefix="fastkube-bench-"))
    (folder / "tokens.csv").write_text(f'{TOKEN},bench,bench,"system:masters"\n')
    peers = pki.prepare_peers(folder / "peers", ("127.0.0.1",), time.time())
    pki.prepare(folder / "pki", pki.server_names("127.0.0.1", service_cluster_ip_range="10.96.0.0/16"), time.time())
    pki.service_account_key(folder / "pki")
    initial = ",".join(f"{name}=https://127.0.0.1:{free_port()}" for name in "abc")
    targets, processes = [], []
    try:
        for name in "abc":
            port = free_port()
            words = {
                "name": name,
                "data-dir": folder / name,
                "cert-dir": folder / "pki",
                "secure-port": port,
                "token-auth-file": folder / "tokens.csv",
                "initial-cluster": initial,
                "peer-cert-file": peers.cert,
                "peer-key-file": peers.key,
                "peer-trusted-ca-file": peers.ca_cert,
            }
            flags = [f"--{flag}={word}" for flag, word in words.items()]
            with (folder / f"{name}.log").open("ab") as log:
                command = [sys.executable, "-m", "fastkube", "apiserver", *flags, *_ALONE]
                processes.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log))
            targets.append(Target(f"https://127.0.0.1:{port}", TOKEN))
        for target, process in zip(targets, processes, strict=True):
            wait_ready(target, process)
        first = leader_of(folder)
        order = [first, *(place for place in range(3) if place != first)]
        yield Members([targets[place] for place in order], [processes[place] for place in order])
    finally:
        for process in processes:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def leader_of(folder: Path) -> int:
    """Which of a, b, c leads."""
    done = subprocess.run(
        [sys.executable, "-m", "fastkube", "member", "list", "--data-dir", str(folder / "a")],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = [line.split(", ") for line in done.stdout.splitlines()]
    return "abc".index(next(row[2] for row in rows if row[1] == "leader"))


def creates(target: Target, connections: int, count: int, prefix: str) -> dict[str, float]:
    """Pods created a second, and the middle latency."""
    done = load.run(
        target,
        load.create_pods,
        connections=connections,
        count=count,
        namespace="default",
        prefix=f"{prefix}-{connections}",
        scheduler="bench-none",
    )
    if done.errors:
        raise RuntimeError(f"{done.errors} of {count} creates failed: {done.statuses}")
    return {"rate": done.rate, "p50_ms": done.quantile_ms(0.5), "p99_ms": done.quantile_ms(0.99)}


def failover(members: Members) -> float:
    """Seconds from the death of the leader until a write through another server is acknowledged."""
    members.processes[0].send_signal(signal.SIGKILL)
    begun = time.monotonic()
    load.run(
        members.targets[1],
        load.create_config_maps,
        connections=1,
        count=1,
        namespace="default",
        prefix="after",
    )
    return time.monotonic() - begun


def rounds(count: int, seed: int) -> dict[str, Any]:
    """What the test of a cluster's chaos does and checks, and how long each leader that was lost was missed."""
    for folder in ("tests", "tests/cluster"):
        sys.path.insert(0, str(ROOT / folder))
    from test_cluster_chaos import live_through

    with tempfile.TemporaryDirectory(prefix="fastkube-bench-") as path:
        seen, done = asyncio.run(live_through(Path(path), count, seed, clients=8))
    found: dict[str, Any] = {"rounds": len(done), "seed": seed, "operations": len(seen.history) + len(seen.created)}
    for what in ("kill", "pause", "cut"):
        found[what] = {
            "rounds": sum(each.what == what for each in done),
            "leader_s": [round(each.leader_s, 3) for each in done if each.what == what and each.leader_s is not None],
        }
    return found


def core(pure: bool) -> float:
    """Microseconds of CPU for a proposal to be agreed on by three members in one process."""
    environment = {**os.environ, "FASTKUBE_PURE": "1" if pure else "0", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", _CORE, str(_PROPOSALS // (10 if pure else 1))]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    compiled, microseconds = done.stdout.split()
    if compiled != str(not pure):
        raise RuntimeError(f"the build that ran is not the one that was asked for: compiled {compiled}")
    return float(microseconds)


@click.command()
@click.option("--runs", default=3, help="Interleaved runs of each.")
@click.option("--count", default=5_000, help="Creates for each figure; a tenth of them at one connection.")
@click.option("--rounds", "round_count", default=50, help="Of kill -9, SIGSTOP and partitions.")
@click.option("--seed", default=2, help="Of those rounds.")
@click.option("--only", type=click.Choice(["cluster", "core", "rounds", "upkeep"]), default=None, help="One group.")
def main(runs: int, count: int, round_count: int, seed: int, only: str | None) -> None:
    outcome: dict[str, Any] = {"subject": "raft", "runs": runs, "machine": report.machine()}
    if only in (None, "core"):
        outcome["core_us"] = {"compiled": core(False), "pure": core(True)}
        click.echo(
            f"a proposal: {outcome['core_us']['compiled']:.1f} us compiled, {outcome['core_us']['pure']:.1f} us pure"
        )
    if only in (None, "upkeep"):
        outcome["upkeep"] = upkeep.measure(runs)
    if only in (None, "rounds"):
        outcome["rounds"] = rounds(round_count, seed)
        lost = sorted(outcome["rounds"]["kill"]["leader_s"] + outcome["rounds"]["pause"]["leader_s"])
        click.echo(f"{round_count} rounds: {len(lost)} leaders lost, the slowest replaced within {lost[-1]:.2f} s")
    if only in (None, "cluster"):
        measured: dict[str, list[dict[str, float]]] = {}
        outcome["failover_s"] = []
        for run in range(runs):
            with contenders.fastkube(0, command="apiserver", extra=_ALONE) as single:
                for connections in CONNECTIONS:
                    share = count // 10 if connections == 1 else count
                    measured.setdefault(f"single/{connections}", []).append(
                        creates(single.target, connections, share, f"one-{run}")
                    )
            with three_members() as members:
                for connections in CONNECTIONS:
                    share = count // 10 if connections == 1 else count
                    for place, where in ((0, "leader"), (1, "follower")):
                        measured.setdefault(f"three, at the {where}/{connections}", []).append(
                            creates(members.targets[place], connections, share, f"{where}-{run}")
                        )
                outcome["failover_s"].append(failover(members))
        outcome["creates"] = measured
        _tell(measured, outcome["failover_s"])
    path = report.folder(ROOT / "results") / "raft.json"
    if path.exists():
        outcome = {**json.loads(path.read_text()), **outcome}  # one group after the other
    path.write_text(json.dumps(outcome, indent=1) + "\n")
    click.echo(f"written to {path}")


def _tell(measured: dict[str, list[dict[str, float]]], failovers: list[float]) -> None:
    for name, found in measured.items():
        single = measured[f"single/{name.rpartition('/')[2]}"]
        ratio = statistics.median(one["rate"] / other["rate"] for one, other in zip(found, single, strict=True))
        rate, p50 = (statistics.median(one[key] for one in found) for key in ("rate", "p50_ms"))
        click.echo(f"{name:28} {rate:8.0f} creates/s  p50 {p50:6.2f} ms  {ratio:6.1%} of the single server")
    click.echo(f"failover: {', '.join(f'{one:.2f}' for one in failovers)} s")


if __name__ == "__main__":
    main()
