"""Stages: the life of simulated objects as data, in the form of kwok's Stage files.

A Stage has a selector (labels, annotations, jq or CEL expressions), a weight, a delay and what is done then, step by
step: an event, finalizers, patches of which a Go template makes the body, an object that is applied, deletion. `Life`
chooses: among the Stages whose selectors hold, one is drawn by weight; nothing holds: the object stays as it is.
Beyond kwok's form `next.status` names a status of fastkube.nodes.status, which costs less than a template.
Source: the Stage API of kwok (kwok.x-k8s.io/v1alpha1), in its older form (`next`) and in its newer one (`steps`).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from fastkube.clock import parse_rfc3339
from fastkube.nodes.gotemplate import Function, Template, TemplateError
from fastkube.nodes.jq import JqError, Query

Object = dict[str, Any]
Functions = Mapping[str, Function]
API_VERSION = "kwok.x-k8s.io/v1alpha1"
BUILTIN = Path(__file__).parent / "life" / "pod.yaml"
"""To be read; the same as JSON, which takes less to load, lies beside it."""
STATUSES = frozenset({"running", "succeeded", "failed"})

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class StageError(ValueError):
    """A Stage that cannot be understood, with its name; nothing of its file is used."""


# ---------------------------------------------------------------- what a Stage asks


Known = dict[str, list[Any]]
"""What queries have found in an object: most Stages of a kind ask the same ones."""


@dataclass(frozen=True)
class Expression:
    """One matchExpression: In, NotIn, Exists or DoesNotExist over the values that a query finds."""

    query: Query
    operator: str
    values: frozenset[str]

    def __call__(self, obj: Object, known: Known) -> bool:
        found = known.get(self.query.text)
        if found is None:
            found = known[self.query.text] = self.query.values(obj)
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


Condition = Callable[[Object, Known], bool]
Finder = Callable[[Object], list[Any]]


def _cel(text: str) -> Callable[[Object], Any]:
    """What a CEL expression over `self` gives; what it cannot be evaluated on is None."""
    from fastkube import cel

    try:
        program = cel.compile(text, cel.Environment({"self": cel.DYN}))
    except cel.CompileError as error:
        raise StageError(str(error)) from error

    def evaluate(obj: Object) -> Any:
        try:
            return program.evaluate({"self": obj})
        except (cel.EvalError, cel.CostError):
            return None

    return evaluate


def _finder(source: Object | None) -> Finder | None:
    """Of `{expressionFrom: JQ}`, `{jq: {expression: JQ}}` or `{cel: {expression: CEL}}`."""
    if not source:
        return None
    if "cel" in source:
        evaluate = _cel(source["cel"]["expression"])
        return lambda obj: [value for value in (evaluate(obj),) if value is not None]
    return Query(source["jq"]["expression"] if "jq" in source else source["expressionFrom"]).values


@dataclass(frozen=True)
class Delay:
    """Seconds to wait, up to `jitter_s`; each may come from the object instead. A jitter that is less counts alone."""

    seconds: float = 0.0
    jitter_s: float | None = None
    source: Finder | None = None
    jitter_source: Finder | None = None

    def draw(self, obj: Object, now: float, random_: random.Random) -> float:
        least = _seconds_from(self.source, obj, now, self.seconds) or 0.0
        most = _seconds_from(self.jitter_source, obj, now, self.jitter_s)
        if most is None:
            return max(least, 0.0)
        return max(most, 0.0) if most <= least else random_.uniform(max(least, 0.0), most)


def _seconds_from(source: Finder | None, obj: Object, now: float, otherwise: float | None) -> float | None:
    """A duration ("1m30s") or a time (which means: until then) that is found."""
    for value in source(obj) if source else ():
        text = str(value)
        parts = _DURATION.findall(text)
        if parts and _DURATION.sub("", text) == "":
            return sum(float(number) * _SECONDS[unit] for number, unit in parts)
        try:
            return parse_rfc3339(text) - now
        except ValueError:
            continue
    return otherwise


# ---------------------------------------------------------------- what a Stage does


class Patch(NamedTuple):
    """A template of a patch's body (of `root`, if named); `user` is who is impersonated."""

    template: Template
    root: str
    subresource: str
    kind: str
    user: str

    def body(self, obj: Object) -> Any:
        """Raises StageError."""
        body = rendered(self.template, obj)
        if not self.root:
            return body
        if self.kind == "json":
            return [{**each, "path": f"/{self.root}{each['path']}"} for each in body or ()]
        return {self.root: body}


class Apply(NamedTuple):
    """A template of an object that is applied, or (`kind` merge, strategic; or of a subresource) made or patched."""

    template: Template
    subresource: str
    kind: str
    user: str


class Finalizers(NamedTuple):
    add: tuple[str, ...]
    remove: tuple[str, ...]
    empty: bool

    def after(self, present: Iterable[str]) -> list[str]:
        left = [] if self.empty else [each for each in present if each not in self.remove]
        return left + [each for each in self.add if each not in left]


class Event(NamedTuple):
    type: str
    reason: Template
    message: Template


class Step(NamedTuple):
    """One of these."""

    event: Event | None = None
    finalizers: Finalizers | None = None
    delete: bool = False
    patch: Patch | None = None
    apply: Apply | None = None
    status: str = ""


def rendered(template: Template, obj: Object) -> Any:
    """The value of the YAML that a template makes; raises StageError."""
    from fastkube.api import yaml as documents

    try:
        value, _ = documents.load(template.render(obj).encode())
    except (TemplateError, documents.YamlError) as error:
        raise StageError(f"template: {error}") from error
    return value


@dataclass(frozen=True)
class Stage:
    """One step of a life. `immediate`: the next Stage is looked for at once, not when the watch tells the change."""

    name: str
    api_version: str
    kind: str
    labels: tuple[tuple[str, str], ...]
    annotations: tuple[tuple[str, str], ...]
    conditions: tuple[Condition, ...] | None
    """None: no selector at all, which matches nothing."""
    weight: int
    weight_source: Finder | None
    delay: Delay
    steps: tuple[Step, ...]
    immediate: bool = False

    def matches(self, obj: Object, known: Known) -> bool:
        """`known` is for this object alone, and for all Stages."""
        if self.conditions is None:
            return False
        for key, wanted in (("labels", self.labels), ("annotations", self.annotations)):
            if wanted:
                present = obj["metadata"].get(key) or {}
                if any(present.get(name) != value for name, value in wanted):
                    return False
        for condition in self.conditions:  # noqa: SIM110 (a generator costs more than most conditions)
            if not condition(obj, known):
                return False
        return True

    def weight_of(self, obj: Object) -> int | None:
        """None for a weight that should come from the object and is no number there."""
        for value in self.weight_source(obj) if self.weight_source else ():
            try:
                return int(value)
            except (TypeError, ValueError):
                return None
        return self.weight


def _own(name: str, status: str) -> Stage:
    return Stage(name, "v1", "Pod", (), (), (), 0, None, Delay(), (Step(status=status),))


START_EPHEMERAL = _own("start-ephemeral", "ephemeral")
"""Not part of any file: a kubelet starts ephemeral containers at once, whatever the Pod's life is."""

SCRIPTED = _own("scripted", "scripted")
"""Nor is this one: a Pod with a script (script.py) lives by it, whatever the Stages are."""


# ---------------------------------------------------------------- reading


def parse(document: Object, functions: Functions = MappingProxyType({})) -> Stage:
    """A Stage from its object, with the functions that its templates may call.

    Raises StageError for what is not understood, rather than leaving it out.
    """
    name = str((document.get("metadata") or {}).get("name") or "?")
    try:
        if document.get("apiVersion") != API_VERSION or document.get("kind") != "Stage":
            raise StageError(f"expected a Stage of {API_VERSION}")
        return _parse_spec(name, document["spec"], functions)
    except (KeyError, TypeError, AttributeError, StageError, JqError, TemplateError) as error:
        told = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise StageError(f"Stage {name}: {told}") from error


_SPEC = {"resourceRef", "selector", "weight", "weightFrom", "delay", "next", "steps", "immediateNextStage"}
_NEXT = {
    "status", "event", "finalizers", "delete", "statusTemplate", "statusSubresource", "statusPatchAs", "patches"
}  # fmt: skip
_STEP = {"event", "finalizers", "delete", "patch", "apply"}


def _only(obj: Object, known: set[str], where: str) -> None:
    for key in obj:
        if key not in known:
            raise StageError(f"{where}{key} is not supported")


def _parse_spec(name: str, spec: Object, functions: Functions) -> Stage:
    _only(spec, _SPEC, "")
    selector, delay, reference = spec.get("selector"), spec.get("delay") or {}, spec["resourceRef"]
    given = selector or {}
    _only(given, {"matchLabels", "matchAnnotations", "matchExpressions"}, "selector.")
    _only(delay, {"durationMilliseconds", "durationFrom", "jitterDurationMilliseconds", "jitterDurationFrom"}, "delay.")
    jitter = delay.get("jitterDurationMilliseconds")
    kind = reference["kind"]
    conditions = tuple(_parse_expression(each) for each in given.get("matchExpressions") or ())
    return Stage(
        name=name,
        api_version=reference.get("apiGroup") or "v1",
        kind=kind,
        labels=tuple((given.get("matchLabels") or {}).items()),
        annotations=tuple((given.get("matchAnnotations") or {}).items()),
        conditions=None if selector is None else conditions,
        weight=int(spec.get("weight", 0)),
        weight_source=_finder(spec.get("weightFrom")),
        delay=Delay(
            seconds=delay.get("durationMilliseconds", 0) / 1e3,
            jitter_s=None if jitter is None else jitter / 1e3,
            source=_finder(delay.get("durationFrom")),
            jitter_source=_finder(delay.get("jitterDurationFrom")),
        ),
        steps=tuple(_parse_steps(spec, kind, functions)),
        immediate=bool(spec.get("immediateNextStage", False)),
    )


def _parse_expression(each: Object) -> Condition:
    if "cel" in each:
        evaluate = _cel(each["cel"]["expression"])
        return lambda obj, _known: evaluate(obj) is True
    asked = each.get("jq") or each
    operator = asked["operator"]
    if operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
        raise StageError(f"operator {operator!r} is not supported")
    return Expression(Query(asked["key"]), operator, frozenset(map(_text, asked.get("values") or ())))


def _parse_steps(spec: Object, kind: str, functions: Functions) -> Iterator[Step]:
    for step in spec.get("steps") or ():
        _only(step, _STEP, "steps.")
        if step.get("event"):
            yield Step(event=_parse_event(step["event"], functions))
        if step.get("finalizers"):
            yield Step(finalizers=_parse_finalizers(step["finalizers"]))
        if step.get("delete"):
            yield Step(delete=True)
        if step.get("patch"):
            yield Step(patch=_parse_patch(step["patch"], kind, functions))
        if step.get("apply"):
            yield Step(apply=_parse_apply(step["apply"], functions))
    yield from _parse_next(spec.get("next") or {}, kind, functions)


def _parse_next(following: Object, kind: str, functions: Functions) -> Iterator[Step]:
    _only(following, _NEXT, "next.")
    if following.get("event"):
        yield Step(event=_parse_event(following["event"], functions))
    if following.get("finalizers"):
        yield Step(finalizers=_parse_finalizers(following["finalizers"]))
    if following.get("delete"):
        yield Step(delete=True)
    if template := following.get("statusTemplate"):
        told = {"template": template, "root": "status", "subresource": following.get("statusSubresource", "status")}
        yield Step(patch=_parse_patch({**told, "impersonation": following.get("statusPatchAs")}, kind, functions))
    for patch in following.get("patches") or ():
        yield Step(patch=_parse_patch(patch, kind, functions))
    if status := following.get("status"):
        if status not in STATUSES:
            raise StageError(f"next.status {status!r}: one of {', '.join(sorted(STATUSES))} is expected")
        yield Step(status=status)


def _parse_event(event: Object, functions: Functions) -> Event:
    _only(event, {"type", "reason", "message"}, "event.")
    reason, message = (Template(str(event.get(key, "")), functions) for key in ("reason", "message"))
    return Event(event.get("type", "Normal"), reason, message)


def _parse_finalizers(finalizers: Object) -> Finalizers:
    _only(finalizers, {"add", "remove", "empty"}, "finalizers.")
    add, remove = (tuple(each["value"] for each in finalizers.get(key) or ()) for key in ("add", "remove"))
    return Finalizers(add, remove, bool(finalizers.get("empty", False)))


def _parse_apply(apply: Object, functions: Functions) -> Apply:
    _only(apply, {"template", "subresource", "type", "impersonation"}, "apply.")
    form = apply.get("type") or "apply"
    if form not in ("apply", "merge", "strategic"):
        raise StageError(f"apply type {form!r}: apply, merge or strategic is expected")
    user = (apply.get("impersonation") or {}).get("username", "")
    return Apply(Template(apply["template"], functions), apply.get("subresource", ""), form, user)


def _parse_patch(patch: Object, kind: str, functions: Functions) -> Patch:
    _only(patch, {"subresource", "root", "template", "type", "impersonation"}, "patch.")
    form = patch.get("type") or ("strategic" if kind in ("Pod", "Node") else "merge")
    if form not in ("json", "merge", "strategic"):
        raise StageError(f"patch type {form!r}: json, merge or strategic is expected")
    user = (patch.get("impersonation") or {}).get("username", "")
    return Patch(
        Template(patch["template"], functions), patch.get("root", ""), patch.get("subresource", ""), form, user
    )


def load(files: Iterable[str | Path] = (), functions: Functions = MappingProxyType({})) -> list[Stage]:
    """The Stages of these files, or the built-in ones when there are none."""
    files = tuple(files)
    if not files:
        return [parse(document, functions) for document in json.loads(BUILTIN.with_suffix(".json").read_text())]
    import yaml

    stages = []
    for path in map(Path, files):
        try:
            documents = list(yaml.load_all(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
        except (OSError, yaml.YAMLError) as error:
            raise StageError(f"{path}: {error}") from error
        stages += [parse(document, functions) for document in documents if document]
    return stages


_REMEMBERED_MAX = 1024
Answer = tuple[str, ...] | None
"""What Stages can see of what a query has found: None for nothing, else those of the values that any of them names."""


def _answer(found: list[Any], values: frozenset[str]) -> Answer:
    return tuple([text for text in map(_text, found) if text in values]) if values else ()


def _only_queries(stages: Iterable[Stage]) -> list[tuple[Finder, frozenset[str]]] | None:
    """What these Stages ask of an object, and the values that they name. None when they ask more than queries tell."""
    found: dict[str, tuple[Finder, frozenset[str]]] = {}
    for stage in stages:
        if stage.labels or stage.annotations:
            return None
        for condition in stage.conditions or ():
            if not isinstance(condition, Expression):
                return None
            query = condition.query
            find, values = found.get(query.text, (query.values, frozenset()))
            found[query.text] = (find, values | condition.values)
    return list(found.values())


class Life:
    """The Stages of one kind, and the choice among them."""

    def __init__(self, stages: Iterable[Stage], kind: str, seed: int | None = None) -> None:
        self._stages = [stage for stage in stages if stage.kind == kind]
        self._random = random.Random(seed)
        self._queries = _only_queries(self._stages)
        self._remembered: dict[tuple[Answer, ...], list[Stage]] = {}

    def _matching(self, obj: Object) -> list[Stage]:
        """The Stages that hold. Most objects are like others in all that is asked of them: what held then is known."""
        if self._queries is None:
            return self._find(obj)
        key = tuple([_answer(found, values) if (found := find(obj)) else None for find, values in self._queries])
        matching = self._remembered.get(key)
        if matching is None:
            if len(self._remembered) >= _REMEMBERED_MAX:
                self._remembered.clear()
            matching = self._remembered[key] = self._find(obj)
        return matching

    def _find(self, obj: Object) -> list[Stage]:
        found: Known = {}
        return [stage for stage in self._stages if stage.matches(obj, found)]

    def next_stage(self, obj: Object) -> Stage | None:
        """The Stage to take now; of several that hold the heavier ones are drawn more often, weightless ones last."""
        matching = self._matching(obj)
        if len(matching) < 2:
            return matching[0] if matching else None
        weights = [stage.weight_of(obj) for stage in matching]
        known = [(stage, weight) for stage, weight in zip(matching, weights, strict=True) if weight is not None]
        if not known:
            return self._random.choice(matching)
        choices, chances = zip(*known, strict=True)
        chances = tuple(max(chance, 0) for chance in chances)
        drawn: Stage = self._random.choices(choices, chances if any(chances) else None)[0]
        return drawn

    def delay_s(self, stage: Stage, obj: Object, now: float) -> float:
        return stage.delay.draw(obj, now, self._random)
