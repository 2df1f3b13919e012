"""Instructions an operation takes, counted by callgrind: repeatable where time is not.

    python -m bench.micro.instructions                 # counts, and compares with instructions.json
    python -m bench.micro.instructions --hot           # only what is hot: what CI runs
    python -m bench.micro.instructions --update        # keeps the counts as the new reference
    python -m bench.micro.instructions --only "create a Pod" --annotate     # where they are spent (C functions)

Fails when an operation takes more than `TOLERANCE` more than the reference. Counts belong to one interpreter and one
machine type: where the reference was made with another Python, the check says so and only reports.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench.micro import subjects

REFERENCE = Path(__file__).with_name("instructions.json")
TOLERANCE = 0.10

HOT = (
    "stored Pod to JSON",
    "store: a key of a batch",
    "create a Pod",
    "create a Pod among many",
    "create a Pod unlike others",
    "get a Pod",
    "renew a Lease",
    "create an Event of a batch",
)
"""What CI looks at: under a minute of CPU. Batches of writes that carry times are not among them: their plans are
learned anew when the second changes, which under callgrind happens a varying number of times."""

_OPERATIONS = 200
_WARM_UP = 100


Work = Callable[[int], Awaitable[None] | None]

# ---------------------------------------------------------------- inside callgrind


def _control(*words: str) -> None:
    subprocess.run(["callgrind_control", *words, str(os.getpid())], check=True, capture_output=True)


async def _run(work: Work, operations: int) -> None:
    done = work(operations)
    if done is not None:
        await done


async def _count(works: list[Work]) -> None:
    """A dump of each work's operations; callgrind, which makes everything slow, is on from here only."""
    import gc

    for work in works:
        await _run(work, _WARM_UP)
    gc.collect()
    gc.disable()  # when it runs is chance
    _control("--instr=on")
    for work in works:
        await _run(work, 1)
        _control("--zero")
        await _run(work, _OPERATIONS)
        _control("--dump")


async def _count_all(names: list[str]) -> None:
    """The order is that of `names()`."""
    works: list[Work] = [make() for name, make in subjects.CORES.items() if name in names]
    async with subjects.open_store() as store, subjects.server() as requests:
        works += [make(store) for name, make in subjects.STORE.items() if name in names]
        works += [make(requests) for name, make in subjects.REQUESTS.items() if name in names]
        await _count(works)


# ---------------------------------------------------------------- outside


def names() -> list[str]:
    return [*subjects.CORES, *subjects.STORE, *subjects.REQUESTS]


def count(chosen: list[str], keep: Path | None = None) -> dict[str, int]:
    """Instructions per operation of each subject, from one process under callgrind."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out"]
        words += [sys.executable, "-m", "bench.micro.instructions", "--inside", *chosen]
        environment = {**os.environ, "PYTHONHASHSEED": "0", "FASTKUBE_PURE": ""}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"callgrind failed:\n{done.stderr[-3000:]}")
        dumps = sorted(Path(folder).glob("out.*"), key=lambda path: int(path.suffix[1:]))
        counts = {name: _total(dump) // _OPERATIONS for name, dump in zip(chosen, dumps, strict=True)}
        if keep is not None:
            shutil.copy(dumps[-1], keep)
        return counts


def _total(dump: Path) -> int:
    found = re.search(r"^(?:summary|totals): (\d+)", dump.read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{dump}: no total")
    return int(found[1])


def compare(counts: dict[str, int], reference: dict[str, Any]) -> tuple[list[list[str]], bool]:
    """Rows for people, and whether nothing got worse."""
    known: dict[str, int] = reference.get("instructions", {})
    rows, good = [], True
    for name, found in counts.items():
        before = known.get(name)
        change = (found - before) / before if before else 0.0
        worse = change > TOLERANCE
        good &= not worse
        rows.append([name, f"{found:,}", f"{before:,}" if before else "", f"{change:+.1%}{' WORSE' if worse else ''}"])
    return rows, good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="keep the counts as the reference")
    parser.add_argument("--only", action="append", default=[], help="one subject; repeatable")
    parser.add_argument("--hot", action="store_true", help="only what CI looks at")
    parser.add_argument("--annotate", action="store_true", help="show the functions of the last subject")
    parser.add_argument("--inside", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is not None:
        import uvloop

        uvloop.run(_count_all(options.inside))
        return
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is needed: apt-get install valgrind")
    only = [*options.only, *(HOT if options.hot else ())]
    chosen = [name for name in names() if not only or name in only]
    kept = Path("callgrind.out.last") if options.annotate else None
    counts = count(chosen, kept)
    reference = json.loads(REFERENCE.read_text()) if REFERENCE.exists() else {}
    rows, good = compare(counts, reference)
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print(f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}")
    if kept is not None:
        subprocess.run(["callgrind_annotate", "--threshold=80", str(kept)], check=False)
    here = platform.python_version()
    if options.update:
        merged = {**reference.get("instructions", {}), **counts}
        REFERENCE.write_text(json.dumps({"python": here, "instructions": merged}, indent=1) + "\n")
    elif reference and reference["python"] != here:
        print(f"the reference is of Python {reference['python']}, this is {here}: not checked")
    elif not good:
        raise SystemExit("some operations take more instructions than before; --update if that is meant")


if __name__ == "__main__":
    main()
