"""Stages: the life of simulated objects as data, in the form of kwok's Stage files.

A Stage has a selector (labels, annotations, expressions over paths), a weight, a delay and a `next`. `Life` chooses:
among the Stages whose selectors hold, one is drawn by weight; nothing holds: the object stays as it is.
Source: the Stage API of kwok (kwok.x-k8s.io/v1alpha1).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fastkube.clock import parse_rfc3339

Object = dict[str, Any]
API_VERSION = "kwok.x-k8s.io/v1alpha1"
BUILTIN = Path(__file__).parent / "life"
STATUSES = frozenset({"running", "succeeded", "failed"})

_STEP = re.compile(r"""\.?\[\]|\.?\["([^"]*)"\]|\.?\[(\d+)\]|\.([A-Za-z_][\w-]*)""")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class StageError(ValueError):
    """A Stage that cannot be understood, with its name; nothing of its file is used."""


class FieldPath:
    """A compiled path such as `.metadata.annotations["a/b"]`, `.status.containerStatuses.[].ready` or `.spec.x[0]`."""

    __slots__ = ("_steps", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        steps: list[str | int | None] = []
        position = 0
        while position < len(text):
            match = _STEP.match(text, position)
            if not match or match.end() == position:
                raise StageError(f"path {text!r}: not understood from {text[position:]!r} on")
            quoted, index, name = match.groups()
            steps.append(quoted if quoted is not None else int(index) if index is not None else name)
            position = match.end()
        self._steps = tuple(steps)

    def values(self, obj: Any) -> list[Any]:
        """All values at the path; absent and null ones are left out."""
        found = [obj]
        for step in self._steps:
            below: list[Any] = []
            for value in found:
                if step is None:
                    below += (
                        value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
                    )
                elif isinstance(step, int):
                    below += value[step : step + 1] if isinstance(value, list) else []
                elif isinstance(value, dict) and step in value:
                    below.append(value[step])
            found = below
        return [value for value in found if value is not None]


@dataclass(frozen=True)
class Expression:
    """One matchExpression: In, NotIn, Exists or DoesNotExist over the values at a path."""

    path: FieldPath
    operator: str
    values: frozenset[str]

    def holds(self, obj: Object) -> bool:
        found = self.path.values(obj)
        match self.operator:
            case "Exists":
                return bool(found)
            case "DoesNotExist":
                return not found
            case "In":
                return any(_text(value) in self.values for value in found)
            case _:
                return not any(_text(value) in self.values for value in found)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Delay:
    """Seconds to wait, up to `jitter_s` where that is more; each may come from a path of the object instead."""

    seconds: float = 0.0
    jitter_s: float | None = None
    source: FieldPath | None = None
    jitter_source: FieldPath | None = None

    def draw(self, obj: Object, now: float, random_: random.Random) -> float:
        least = _seconds_from(self.source, obj, now, self.seconds)
        most = _seconds_from(self.jitter_source, obj, now, self.jitter_s)
        if least is None or least < 0:
            least = 0.0
        return random_.uniform(least, most) if most is not None and most > least else least


def _seconds_from(source: FieldPath | None, obj: Object, now: float, otherwise: float | None) -> float | None:
    """A duration ("1m30s") or a time (which means: until then) at the path."""
    for value in source.values(obj) if source else ():
        text = str(value)
        parts = _DURATION.findall(text)
        if parts and _DURATION.sub("", text) == "":
            return sum(float(number) * _SECONDS[unit] for number, unit in parts)
        try:
            return parse_rfc3339(text) - now
        except ValueError:
            continue
    return otherwise


@dataclass(frozen=True)
class Stage:
    """One step of a life; `status` names a transition of fastkube.nodes.status."""

    name: str
    kind: str
    labels: tuple[tuple[str, str], ...]
    annotations: tuple[tuple[str, str], ...]
    expressions: tuple[Expression, ...]
    weight: int
    delay: Delay
    status: str
    delete: bool
    event: Object | None

    def matches(self, obj: Object) -> bool:
        metadata = obj["metadata"]
        labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
        return (
            all(labels.get(key) == value for key, value in self.labels)
            and all(annotations.get(key) == value for key, value in self.annotations)
            and all(expression.holds(obj) for expression in self.expressions)
        )


START_EPHEMERAL = Stage("start-ephemeral", "Pod", (), (), (), 0, Delay(), "ephemeral", False, None)
"""Not part of any file: a kubelet starts ephemeral containers at once, whatever the Pod's life is."""


def parse(document: Object) -> Stage:
    """A Stage from its object; raises StageError for what is not understood, rather than leaving it out."""
    name = str((document.get("metadata") or {}).get("name") or "?")
    try:
        if document.get("apiVersion") != API_VERSION or document.get("kind") != "Stage":
            raise StageError(f"expected a Stage of {API_VERSION}")
        return _parse_spec(name, document["spec"])
    except (KeyError, TypeError, StageError) as error:
        raise StageError(f"Stage {name}: {error}") from error


def _parse_spec(name: str, spec: Object) -> Stage:
    selector, delay, following = spec.get("selector") or {}, spec.get("delay") or {}, spec.get("next") or {}
    for key in set(following) - {"status", "delete", "event"}:
        raise StageError(f"next.{key} is not supported")
    status = following.get("status", "")
    if status and status not in STATUSES:
        raise StageError(f"next.status {status!r}: one of {', '.join(sorted(STATUSES))} is expected")
    jitter = delay.get("jitterDurationMilliseconds")
    return Stage(
        name=name,
        kind=spec["resourceRef"]["kind"],
        labels=tuple((selector.get("matchLabels") or {}).items()),
        annotations=tuple((selector.get("matchAnnotations") or {}).items()),
        expressions=tuple(_parse_expression(each) for each in selector.get("matchExpressions") or ()),
        weight=int(spec.get("weight", 0)),
        delay=Delay(
            seconds=delay.get("durationMilliseconds", 0) / 1e3,
            jitter_s=None if jitter is None else jitter / 1e3,
            source=_parse_source(delay.get("durationFrom")),
            jitter_source=_parse_source(delay.get("jitterDurationFrom")),
        ),
        status=status,
        delete=bool(following.get("delete", False)),
        event=following.get("event"),
    )


def _parse_expression(each: Object) -> Expression:
    operator = each["operator"]
    if operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
        raise StageError(f"operator {operator!r} is not supported")
    return Expression(FieldPath(each["key"]), operator, frozenset(map(_text, each.get("values") or ())))


def _parse_source(source: Object | None) -> FieldPath | None:
    return FieldPath(source["expressionFrom"]) if source else None


def load(files: Iterable[str | Path] = ()) -> list[Stage]:
    """The Stages of these files, or the built-in ones when there are none."""
    paths = [Path(file) for file in files] or sorted(BUILTIN.glob("*.yaml"))
    stages = []
    for path in paths:
        try:
            documents = list(yaml.load_all(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
        except (OSError, yaml.YAMLError) as error:
            raise StageError(f"{path}: {error}") from error
        stages += [parse(document) for document in documents if document]
    return stages


class Life:
    """The Stages of one kind, and the choice among them."""

    def __init__(self, stages: Iterable[Stage], kind: str, seed: int | None = None) -> None:
        self._stages = [stage for stage in stages if stage.kind == kind]
        self._random = random.Random(seed)

    def next_stage(self, obj: Object) -> Stage | None:
        """The Stage to take now; of several that hold the heavier ones are drawn more often, weightless ones last."""
        matching = [stage for stage in self._stages if stage.matches(obj)]
        if len(matching) < 2:
            return matching[0] if matching else None
        weights = [stage.weight for stage in matching]
        return self._random.choices(matching, weights if any(weights) else None)[0]

    def delay_s(self, stage: Stage, obj: Object, now: float) -> float:
        return stage.delay.draw(obj, now, self._random)
