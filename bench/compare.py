#!/usr/bin/env python3
"""What got slower between two results of `make bench`: bench/compare.py results/A results/B.

A figure counts as changed when its medians differ by more than `--tolerance` and the ranges of its runs do not overlap;
with fewer than two runs on either side that says little, and is told.
Ends with 1 when a figure got worse.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click

from bench import report
from bench.subjects import FIGURES


def load(path: Path) -> dict[str, Any]:
    """A results folder, or the bench.json in it."""
    file = path / "bench.json" if path.is_dir() else path
    document: dict[str, Any] = json.loads(file.read_text())
    return document


def changes(before: dict[str, Any], after: dict[str, Any], tolerance: float) -> tuple[list[list[str]], bool]:
    """Rows of the figures that changed, worst first, and whether any got worse."""
    found: list[tuple[float, list[str]]] = []
    for name, figures in after["figures"].items():
        for figure in FIGURES:
            old = list(before["figures"].get(name, {}).get(figure.key, {}).values())
            new = list(figures.get(figure.key, {}).values())
            if not old or not new:
                continue
            was, now = statistics.median(old), statistics.median(new)
            if not was or not now:
                continue
            better = now / was if figure.more else was / now
            apart = min(new) > max(old) or max(new) < min(old)
            if apart and not 1 - tolerance < better < 1 + tolerance:
                word = "better" if better > 1 else "WORSE"
                told = f"{better:.2f}x" if better > 1 else f"1/{1 / better:.2f}"
                found.append(
                    (
                        better,
                        [name, figure.key.replace("_", " "), f"{was:,.4g}", f"{now:,.4g} {figure.unit}", told, word],
                    )
                )
    found.sort(key=lambda one: one[0])
    return [row for _, row in found], any(better < 1 for better, _ in found)


@click.command()
@click.argument("before", type=click.Path(exists=True, path_type=Path))
@click.argument("after", type=click.Path(exists=True, path_type=Path))
@click.option("--tolerance", default=0.1, show_default=True, help="Smaller changes are not told.")
def main(before: Path, after: Path, tolerance: float) -> None:
    """Compare two results."""
    old, new = load(before), load(after)
    found, worse = changes(old, new, tolerance)
    print(f"{old['commit']} → {new['commit']}")
    if old["machine"]["cpu"] != new["machine"]["cpu"] or old["machine"]["cores"] != new["machine"]["cores"]:
        print("measured on different machines: the changes may be theirs")
    if min(old["runs"], new["runs"]) < 2:
        print("one run on a side: differences may be chance")
    print(report.table(["contender", "figure", "before", "after", "change", ""], found) if found else "nothing changed")
    sys.exit(1 if worse else 0)


if __name__ == "__main__":
    main()
