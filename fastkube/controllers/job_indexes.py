"""Completion indexes of Jobs: sets of numbers, written as upstream writes them ("1,3-5,7")."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Object = dict[str, Any]

INDEX = "batch.kubernetes.io/job-completion-index"
"""Annotation and label of an Indexed Job's Pod."""


def parse(text: str | None, completions: int) -> set[int]:
    """The indexes below `completions`; what cannot be read is left out, as it would be by upstream."""
    found: set[int] = set()
    for part in (text or "").split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and (not last or last.isdigit()):
            found.update(range(int(first), min(int(last or first), completions - 1) + 1))
    return found


def render(indexes: Iterable[int]) -> str:
    """Runs of three and more as first-last, shorter ones as single numbers."""
    parts: list[str] = []
    run: list[int] = []
    for index in [*sorted(indexes), None]:
        if run and index != run[-1] + 1:
            if len(run) > 2:
                parts.append(f"{run[0]}-{run[-1]}")
            else:
                parts += map(str, run)
            run = []
        if index is not None:
            run.append(index)
    return ",".join(parts)


def index_of(pod: Object) -> int:
    """The completion index of a Pod; -1 where it has none."""
    text = (pod["metadata"].get("annotations") or {}).get(INDEX, "")
    return int(text) if text.isdigit() else -1


def pending(taken: set[int], count: int, completions: int) -> list[int]:
    """The first `count` indexes that are not taken."""
    found: list[int] = []
    for index in range(completions):
        if len(found) >= count:
            break
        if index not in taken:
            found.append(index)
    return found
