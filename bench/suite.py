#!/usr/bin/env python3
"""All subjects, side by side: what `make bench` runs (about 12 minutes).

    bench/suite.py                                     # this checkout, compiled and pure, and the peers that are found
    bench/suite.py --only requests --runs 5            # one group of subjects
    bench/suite.py --upstream-bin DIR --k3s FILE       # peers: etcd and kube-apiserver in DIR, k3s

Each contender runs in fresh processes on fresh data. Runs are interleaved (A B A B ...), since the speed of a shared
machine drifts, and ratios are those of figures of the same run. Medians, with the smallest and the largest value.
Results go to results/<date>-<commit>/bench.{json,md} and plots beside them; `bench/compare.py A B` compares two.
"""

from __future__ import annotations

import functools
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench import contenders, report, wrk
from bench.contenders import Contender, Launch
from bench.subjects import BY_KEY, FIGURES, Figure, cluster, life, requests, watching
from bench.subjects.requests import Measured, Step

GROUPS = ("requests", "watching", "life", "cluster")
# A bare API server has no controller that makes service accounts, so none of the contenders asks for them.
_ALONE = ("--disable-admission-plugins", "ServiceAccount")

WHOLE_NODES = 3

Work = Callable[[], list[Measured]]


def launches(upstream_bin: str, k3s: str, pure: bool) -> dict[str, Launch]:
    """How each contender's API server is started, by name."""
    found: dict[str, Launch] = {
        "fastkube": functools.partial(contenders.fastkube, 0, command="apiserver", extra=_ALONE)
    }
    if pure:
        found["fastkube-pure"] = functools.partial(contenders.fastkube, 0, pure=True, command="apiserver", extra=_ALONE)
    binaries = contenders.upstream_found(upstream_bin)
    if binaries:
        found["upstream"] = functools.partial(contenders.upstream, binaries)
    binary = contenders.k3s_found(k3s)
    if binary:
        found["k3s"] = functools.partial(contenders.k3s, binary)
    return found


def _on_own(launch: Launch, measure: Callable[[Contender], Measured]) -> list[Measured]:
    """With a server of its own, so that what one group leaves, or its failure, is none of the next one's."""
    with launch() as contender:
        return [measure(contender)]


def _whole(pure: bool, step: Step) -> list[Measured]:
    return [life.whole(functools.partial(contenders.fastkube, WHOLE_NODES, pure=pure), step)]


def _cluster(pure: bool, step: Step) -> list[Measured]:
    found = []
    with contenders.fastkube(1000, pure=pure) as contender:
        found.append(cluster.bound(contender, step))
    with contenders.fastkube(500, pure=pure) as contender:
        found.append(cluster.rollout(contender, step))
    return found


def plan(
    found: dict[str, Launch], groups: tuple[str, ...], runs: int, step: Step, pure_cluster: bool
) -> list[tuple[str, int, Work]]:
    """(contender, run, what to do), interleaved. What takes a slow contender long is done in its first run only."""
    works: list[tuple[str, int, Work]] = []
    for run in range(runs):
        for name, launch in found.items():
            of_groups = {
                "watching": functools.partial(watching.measure, step=step),
                "requests": functools.partial(requests.measure, step=step, with_wrk=run == 0),
            }
            for group, measure in of_groups.items():
                if group in groups:
                    works.append((name, run, functools.partial(_on_own, launch, measure)))
            if "life" in groups and (run == 0 or name != "fastkube-pure"):
                works.append((name, run, lambda launch=launch, run=run: [life.measure(launch, step, grow=run == 0)]))  # type: ignore[misc]
        for pure in (False, True):
            name = "fastkube-pure" if pure else "fastkube"
            if "life" in groups and name in found and (run == 0 or not pure):
                works.append((name, run, functools.partial(_whole, pure, step)))
        if "cluster" in groups:
            works.append(("fastkube", run, functools.partial(_cluster, False, step)))
            if pure_cluster and run == 0:
                works.append(("fastkube-pure", run, functools.partial(_cluster, True, step)))
    return works


# ---------------------------------------------------------------- results


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    if len(values) == 1:
        return _shown(values[0])
    return f"{_shown(_median(values))} ({_shown(min(values))} to {_shown(max(values))})"


def _ratio(figure: Figure, ours: dict[int, float], theirs: dict[int, float]) -> float | None:
    """How many times better ours are: the median of the ratios within each run."""
    paired = [(ours[run], theirs[run]) for run in sorted(ours.keys() & theirs.keys()) if ours[run] and theirs[run]]
    return _median([mine / other if figure.more else other / mine for mine, other in paired])


def _against(figure: Figure, values: dict[int, float], reference: float) -> float | None:
    median = _median(list(values.values()))
    if not median:
        return None
    return median / reference if figure.more else reference / median


def rows(figures: dict[str, dict[str, dict[int, float]]], names: list[str]) -> list[list[str]]:
    """One row a figure: each contender's values, and how many times better the compiled build is."""
    found = []
    for figure in FIGURES:
        of = {name: figures.get(name, {}).get(figure.key, {}) for name in names}
        if not any(of.values()):
            continue
        ours = of.get("fastkube", {})
        cells = [f"{figure.title}, {figure.unit}", *(_cell(list(of[name].values())) for name in names)]
        for name in names:
            if name != "fastkube":
                ratio = _ratio(figure, ours, of[name])
                cells.append(f"{_shown(ratio)}x" if ratio else "")
        known = _against(figure, ours, figure.upstream) if figure.upstream else None
        cells.append(f"{_shown(figure.upstream)} → {_shown(known)}x" if known else "")
        met = _against(figure, ours, figure.target) if figure.target else None
        cells.append("" if met is None else f"{_shown(figure.target)}: {'met' if met >= 1 else f'{met:.0%}'}")
        found.append(cells)
    return found


def markdown(document: dict[str, Any]) -> str:
    names = list(document["figures"])
    machine = document["machine"]
    figures = {
        name: {key: {int(run): value for run, value in runs.items()} for key, runs in of.items()}
        for name, of in document["figures"].items()
    }
    head = ["", *names, *(f"fastkube : {name}" for name in names if name != "fastkube"), "known upstream", "target"]
    text = (
        f"# Benchmarks of {document['commit']}\n\n"
        f"{machine['cpu']}, {machine['cores']} cores shared with the load, {machine['memory_gib']} GiB, "
        f"Python {machine['python']}, kernel {machine['kernel']}. TLS, durable (each write synced). "
        f"{document['runs']} interleaved runs: median (smallest to largest); ratios are of the same run. "
        "'known upstream' is kube-apiserver 1.36.2 with etcd 3.5.30 on another 2-core VM (ARCHITECTURE.md), and how "
        "many times better this is. 'pure' is the same algorithm with interpreted cores.\n\n"
    )
    for name, of in document["details"].items():
        if of and not name.startswith("fastkube"):
            text += f"{name} is {of[0]['build']}.\n\n"
    text += report.table(head, rows(figures, names))
    if document["notes"]:
        text += "\n" + "".join(f"- {note}\n" for note in document["notes"])
    if document["failures"]:
        text += "\nNot measured:\n\n" + "".join(f"- {failure}\n" for failure in document["failures"])
    if not wrk.found():
        text += "\nwrk is not installed: no independent opinion on the headline figures.\n"
    return text


def _plot(path: Path, figures: dict[str, dict[str, dict[int, float]]]) -> None:
    """How many times better each contender is than the compiled build's median, one bar a figure."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    names = [name for name in figures if name != "fastkube"]
    keys = [key for key in figures.get("fastkube", {}) if key in BY_KEY and BY_KEY[key].upstream]
    bars = [
        (key, "known upstream", _against(BY_KEY[key], figures["fastkube"][key], BY_KEY[key].upstream or 1))
        for key in keys
    ]
    for name in names:
        shared = [key for key in figures[name] if key in BY_KEY and not key.endswith(("_cpu", "_mb"))]
        bars += [
            (key, name, _ratio(BY_KEY[key], figures["fastkube"].get(key, {}), figures[name][key])) for key in shared
        ]
    labels = sorted({key for key, _, _ in bars}, key=[figure.key for figure in FIGURES].index, reverse=True)
    sides = ["known upstream", *names]
    figure, axes = plt.subplots(figsize=(9, 1 + 0.3 * len(labels) * max(1, len(sides))))
    for number, side in enumerate(sides):
        values = {key: value for key, owner, value in bars if owner == side and value}
        places = [labels.index(key) + 0.8 * number / len(sides) for key in values]
        axes.barh(places, list(values.values()), height=0.7 / len(sides), label=f"against {side}")
    axes.set_yticks([place + 0.3 for place in range(len(labels))], [BY_KEY[key].title.strip() for key in labels])
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times better")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _plot_memory(path: Path, details: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for name, of in details.items():
        points = next((one["memory"] for one in of if "memory" in one), [])
        for kind in ("rss_mb", "uss_mb"):
            if points:
                axes.plot(
                    [p["objects"] for p in points], [p[kind] for p in points], marker="o", label=f"{name}, {kind[:3]}"
                )
    axes.set_xlabel("Pods")
    axes.set_ylabel("MB")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    if axes.lines:
        axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


@click.command()
@click.option("--runs", default=3, show_default=True, help="Interleaved runs of each contender.")
@click.option("--only", "groups", multiple=True, type=click.Choice(GROUPS), help="A group of subjects; repeatable.")
@click.option("--pure/--no-pure", default=True, show_default=True, help="Measure the interpreted build too.")
@click.option("--pure-cluster/--no-pure-cluster", default=False, show_default=True, help="Its scheduling too (slow).")
@click.option("--upstream-bin", default="", help="Folder of etcd and kube-apiserver; else they are looked for on PATH.")
@click.option("--k3s", default="", help="A k3s binary; else it is looked for on PATH.")
@click.option("--budget", "budget_s", default=780.0, show_default=True, help="Begin nothing after so many seconds.")
@click.option("--results", type=click.Path(path_type=Path), default=report.ROOT / "results", help="Where results go.")
def main(
    runs: int,
    groups: tuple[str, ...],
    pure: bool,
    pure_cluster: bool,
    upstream_bin: str,
    k3s: str,
    budget_s: float,
    results: Path,
) -> None:
    """Measure this checkout and its peers."""
    console = Console(stderr=True)
    found = launches(upstream_bin, k3s, pure)
    figures: dict[str, dict[str, dict[int, float]]] = {name: {} for name in found}
    details: dict[str, list[Any]] = {name: [] for name in found}
    notes: list[str] = []
    failures: list[str] = []
    began = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is stopped
    columns = (TextColumn("{task.description:40}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        doing = ""
        bar = progress.add_task("", total=0)

        def step(what: str) -> None:
            progress.update(bar, description=f"{doing}: {what}")

        works = plan(found, groups or GROUPS, runs, step, pure_cluster)
        progress.update(bar, total=len(works))
        for name, run, work in works:
            doing = f"{name}, run {run + 1}"
            if time.monotonic() - began > budget_s:
                notes.append(f"{doing}: left out, since the time was over (--budget)")
                progress.advance(bar)
                continue
            started = time.monotonic()
            try:
                measured = work()
            except Exception as error:
                failures.append(f"{doing}: {type(error).__name__}: {error}")
                console.print(traceback.format_exc(limit=-3))
                measured = []
            for one in measured:
                for key, value in one.figures.items():
                    figures[name].setdefault(key, {})[run] = round(value, 4)
                details[name].append({"build": one.contender.build, **one.details})
                notes += [f"{name}: {note}" for note in one.notes if f"{name}: {note}" not in notes]
            console.print(f"{doing}: {time.monotonic() - started:.0f} s", style="dim")
            progress.advance(bar)
    document = {
        "commit": report.commit(),
        "machine": report.machine(),
        "runs": runs,
        "seconds": round(time.monotonic() - began),
        "figures": figures,
        "details": details,
        "notes": notes,
        "failures": failures,
    }
    folder = report.folder(results)
    text = markdown(document)
    report.write(folder, "bench", document, text)
    if figures["fastkube"]:
        _plot(folder / "bench.svg", figures)
        _plot_memory(folder / "memory.svg", details)
    click.echo(text)
    console.print(f"{document['seconds']} s; written to {folder}")
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
