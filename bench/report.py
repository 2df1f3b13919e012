"""Turns measurements into files: JSON for programs, Markdown for people, an SVG plot for a quick look."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("aiohttp", "cython", "lmdb", "msgpack", "orjson", "uvloop")


def machine() -> dict[str, Any]:
    """What the figures were measured on; names no host."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory_gb, 1),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def commit() -> str:
    """Short hash of the checkout, with + when it has uncommitted changes outside results/."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    dirty = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if dirty else "")


def folder(base: Path) -> Path:
    """results/<date>-<commit>/, made if missing."""
    path = base / f"{datetime.date.today().isoformat()}-{commit()}"
    path.mkdir(parents=True, exist_ok=True)
    return path


def quantiles(values: list[float]) -> dict[str, float]:
    """p50, p90, p99 and max of seconds, in ms."""
    if not values:
        return {}
    ordered = sorted(values)

    def at(q: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1e3, 2)

    return {"p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "max_ms": at(1.0)}


def write(path: Path, name: str, document: dict[str, Any], markdown: str) -> None:
    (path / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    (path / f"{name}.md").write_text(markdown)


def table(header: list[str], rows: list[list[Any]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def plot_cdf(path: Path, title: str, series: dict[str, list[float]]) -> None:
    """Cumulative distribution of latencies (s) of several series, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5))
    for label, values in series.items():
        ordered = sorted(values)
        if ordered:
            heights = [(i + 1) / len(ordered) for i in range(len(ordered))]
            axes.plot([value * 1e3 for value in ordered], heights, label=label)
    axes.set_xscale("log")
    axes.set_xlabel("ms")
    axes.set_ylabel("share of Pods")
    axes.set_title(title)
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
