#!/usr/bin/env python3
"""A flame graph of the API server under load: what `make profile` leaves in results/<date>-<commit>/profile-*.svg.

bench/profile.py --load create --seconds 10 --native
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click

from bench import contenders, load, report

_PODS = 2000
_POD = {"prefix": "pod", "existing": _PODS}
LOADS: dict[str, tuple[Callable[..., Iterator[bytes]], dict[str, Any]]] = {
    "create": (load.create_pods, {"prefix": "new", "scheduler": "none"}),
    "get": (load.get_pods, _POD),
    "list": (load.list_pods, {}),
    "patch": (load.patch_pods, _POD),
    "mixed": (load.mixed, _POD),
}


@click.command()
@click.option("--load", "name", type=click.Choice(list(LOADS)), default="create", show_default=True)
@click.option("--seconds", default=10, show_default=True)
@click.option("--clients", default=64, show_default=True)
@click.option("--native/--no-native", default=False, show_default=True, help="C functions too; slows the server down.")
@click.option("--results", type=click.Path(path_type=Path), default=report.ROOT / "results")
def main(name: str, seconds: int, clients: int, native: bool, results: Path) -> None:
    """Profile a load with py-spy."""
    recorder = shutil.which("py-spy") or str(Path(sys.executable).with_name("py-spy"))
    make, arguments = LOADS[name]
    flags = ("--disable-admission-plugins", "ServiceAccount")
    with contenders.fastkube(0, command="apiserver", extra=flags) as contender:
        run = {"namespace": "default", "connections": clients}
        load.run(contender.target, load.create_pods, count=_PODS, prefix="pod", scheduler="none", **run)
        path = report.folder(results) / f"profile-{name}.svg"
        words = [recorder, "record", "--rate", "200", "--duration", str(seconds), "--output", str(path)]
        words += ["--pid", str(contender.processes[0].pid), *(["--native"] if native else ["--nonblocking"])]
        loading = threading.Thread(
            target=load.run,
            args=(contender.target, make),
            kwargs={"count": 10**7, "seconds": seconds + 1.0, **run, **arguments},
        )
        loading.start()
        subprocess.run(words, check=True, capture_output=True)
        loading.join()
    print(f"written to {path}")


if __name__ == "__main__":
    main()
