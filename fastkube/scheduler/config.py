"""KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1): read, defaulted and checked.

Unknown fields, unknown plugins and values out of range are errors: nobody wants a scheduler with half a configuration.
What upstream has and this scheduler has no use for (parallelism, profiling) is taken and ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fastkube.scheduler.pods import DEFAULT_SCHEDULER

Object = dict[str, Any]

API_VERSION = "kubescheduler.config.k8s.io/v1"
KIND = "KubeSchedulerConfiguration"

POINTS = (
    "preEnqueue",
    "queueSort",
    "preFilter",
    "filter",
    "postFilter",
    "preScore",
    "score",
    "reserve",
    "permit",
    "preBind",
    "bind",
    "postBind",
)
MULTI_POINT = "multiPoint"

DEFAULT_PLUGINS = (
    ("SchedulingGates", 0),
    ("PrioritySort", 0),
    ("NodeUnschedulable", 0),
    ("NodeName", 0),
    ("TaintToleration", 3),
    ("NodeAffinity", 2),
    ("NodePorts", 0),
    ("NodeResourcesFit", 1),
    ("VolumeRestrictions", 0),
    ("NodeVolumeLimits", 0),
    ("VolumeBinding", 0),
    ("VolumeZone", 0),
    ("PodTopologySpread", 2),
    ("InterPodAffinity", 2),
    ("DefaultPreemption", 0),
    ("NodeResourcesBalancedAllocation", 1),
    ("ImageLocality", 1),
    ("DefaultBinder", 0),
)
"""The default profile: names and weights, in their order."""


class ConfigError(ValueError):
    """The configuration cannot be used; the message names the field."""


class PluginRef(NamedTuple):
    """A plugin that is enabled; weight 0 stands for the default, 1."""

    name: str
    weight: int = 0


@dataclass(frozen=True)
class PluginSet:
    """`disabled` may hold "*"."""

    enabled: tuple[PluginRef, ...] = ()
    disabled: frozenset[str] = frozenset()

    def has_disabled(self, name: str) -> bool:
        return name in self.disabled or "*" in self.disabled


def default_plugins() -> PluginSet:
    return PluginSet(tuple(PluginRef(name, weight) for name, weight in DEFAULT_PLUGINS))


@dataclass(frozen=True)
class ProfileConfig:
    """One profile: the scheduler of the Pods that name it."""

    scheduler_name: str = DEFAULT_SCHEDULER
    plugins: Mapping[str, PluginSet] = field(default_factory=lambda: {MULTI_POINT: default_plugins()})
    args: Mapping[str, Object] = field(default_factory=dict)
    percentage: int | None = None


@dataclass(frozen=True)
class ExtenderConfig:
    """An HTTP extender, with upstream's fields."""

    url_prefix: str
    filter_verb: str = ""
    prioritize_verb: str = ""
    preempt_verb: str = ""
    bind_verb: str = ""
    weight: int = 0
    enable_https: bool = False
    tls: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 5.0
    node_cache_capable: bool = False
    managed_resources: tuple[tuple[str, bool], ...] = ()
    """(resource, whether the scheduler's own fit ignores it)."""
    ignorable: bool = False


@dataclass(frozen=True)
class SchedulerConfig:
    """The whole configuration."""

    profiles: tuple[ProfileConfig, ...] = (ProfileConfig(),)
    extenders: tuple[ExtenderConfig, ...] = ()
    percentage: int = 0
    initial_backoff_s: float = 1.0
    max_backoff_s: float = 10.0
    leader_election: Mapping[str, Any] = field(default_factory=dict)
    client_connection: Mapping[str, Any] = field(default_factory=dict)


def load(path: str | Path) -> SchedulerConfig:
    """Read a file; raises ConfigError."""
    import yaml

    try:
        document = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return parse(document)


def parse(document: Any) -> SchedulerConfig:
    """A decoded configuration; raises ConfigError."""
    told = _Fields("", document)
    version, kind = told.text("apiVersion"), told.text("kind")
    if version != API_VERSION or kind != KIND:
        raise ConfigError(f'no kind "{kind}" is registered for version "{version}": {KIND} of {API_VERSION} is')
    config = SchedulerConfig(
        profiles=tuple(_profile(each) for each in told.items("profiles")) or (ProfileConfig(),),
        extenders=tuple(_extender(each) for each in told.items("extenders")),
        percentage=told.number("percentageOfNodesToScore", 0, 0, 100) or 0,
        initial_backoff_s=float(told.number("podInitialBackoffSeconds", 1, 1) or 1),
        max_backoff_s=float(told.number("podMaxBackoffSeconds", 10, 1) or 10),
        leader_election=told.mapping("leaderElection"),
        client_connection=told.mapping("clientConnection"),
    )
    told.ignore("parallelism", "enableProfiling", "enableContentionProfiling", "delayCacheUntilActive")
    told.finish()
    _check(config)
    return config


def _check(config: SchedulerConfig) -> None:
    if config.max_backoff_s < config.initial_backoff_s:
        raise ConfigError(
            "podMaxBackoffSeconds: Invalid value: must be greater than or equal to PodInitialBackoffSeconds"
        )
    names = [profile.scheduler_name for profile in config.profiles]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise ConfigError(f'profiles[{place}].schedulerName: Duplicate value: "{name}"')
    if sum(bool(extender.bind_verb) for extender in config.extenders) > 1:
        raise ConfigError("extenders: Invalid value: only one extender can implement bind")


def _profile(told: _Fields) -> ProfileConfig:
    name = told.text("schedulerName") or DEFAULT_SCHEDULER
    percentage = told.number("percentageOfNodesToScore", None, 0, 100)
    sets = told.fields("plugins")
    plugins = {point: _plugin_set(sets.fields(point)) for point in (*POINTS, MULTI_POINT)}
    sets.finish()
    plugins[MULTI_POINT] = _merge(default_plugins(), plugins[MULTI_POINT])
    args: dict[str, Object] = {}
    for each in told.items("pluginConfig"):
        plugin = each.text("name")
        if plugin in args:
            raise ConfigError(f'{each.path}: Duplicate value: "{plugin}"')
        args[plugin] = each.mapping("args")
        each.finish()
    told.finish()
    return ProfileConfig(name, plugins, args, percentage)


def _plugin_set(told: _Fields) -> PluginSet:
    enabled = []
    for each in told.items("enabled"):
        enabled.append(PluginRef(each.text("name"), each.number("weight", 0, 0) or 0))
        each.finish()
    disabled = []
    for each in told.items("disabled"):
        disabled.append(each.text("name"))
        each.ignore("weight")
        each.finish()
    told.finish()
    return PluginSet(tuple(enabled), frozenset(disabled))


def _merge(default: PluginSet, custom: PluginSet) -> PluginSet:
    """Defaults that are not disabled keep their place, reconfigured ones with their new weight; new ones follow."""
    own = {each.name: each for each in custom.enabled}
    kept = [own.get(each.name, each) for each in default.enabled if not custom.has_disabled(each.name)]
    names = {each.name for each in kept}
    return PluginSet((*kept, *(each for each in custom.enabled if each.name not in names)), custom.disabled)


def _extender(told: _Fields) -> ExtenderConfig:
    managed = []
    for each in told.items("managedResources"):
        managed.append((each.text("name"), each.flag("ignoredByScheduler")))
        each.finish()
    extender = ExtenderConfig(
        url_prefix=told.text("urlPrefix"),
        filter_verb=told.text("filterVerb"),
        prioritize_verb=told.text("prioritizeVerb"),
        preempt_verb=told.text("preemptVerb"),
        bind_verb=told.text("bindVerb"),
        weight=told.number("weight", 0, 0) or 0,
        enable_https=told.flag("enableHTTPS"),
        tls=told.mapping("tlsConfig"),
        timeout_s=duration_s(told.text("httpTimeout") or "5s", f"{told.path}.httpTimeout"),
        node_cache_capable=told.flag("nodeCacheCapable"),
        managed_resources=tuple(managed),
        ignorable=told.flag("ignorable"),
    )
    told.finish()
    if not extender.url_prefix:
        raise ConfigError(f"{told.path}.urlPrefix: Required value")
    if extender.prioritize_verb and extender.weight <= 0:
        raise ConfigError(f"{told.path}.weight: Invalid value: must have a positive weight applied to it")
    return extender


_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def duration_s(text: str, path: str) -> float:
    """A Go duration ("1m30s", "100ms") in seconds; raises ConfigError."""
    parts = re.findall(r"([0-9.]+)(h|ms|us|µs|ns|m|s)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ConfigError(f'{path}: Invalid value: "{text}": not a duration')
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)


class _Fields:
    """A mapping whose fields are read by type; `finish` refuses those that nobody read."""

    def __init__(self, path: str, value: Any) -> None:
        if not isinstance(value, dict | None):
            raise ConfigError(f"{path or 'the configuration'}: a mapping is expected")
        self.path = path
        self._value: Object = value or {}
        self._read: set[str] = set()

    def _at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def _get(self, name: str, *kinds: type) -> Any:
        self._read.add(name)
        value = self._value.get(name)
        if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            raise ConfigError(f"{self._at(name)}: {kinds[0].__name__} is expected, not {value!r}")
        return value

    def text(self, name: str) -> str:
        return str(self._get(name, str) or "")

    def flag(self, name: str) -> bool:
        return bool(self._get(name, bool))

    def number(self, name: str, default: int | None, least: int, most: int | None = None) -> int | None:
        value = self._get(name, int)
        if value is None:
            return default
        if value < least or (most is not None and value > most):
            raise ConfigError(f"{self._at(name)}: Invalid value: {value}: not in the range {least} to {most or 'any'}")
        return int(value)

    def mapping(self, name: str) -> Object:
        return dict(self._get(name, dict) or {})

    def fields(self, name: str) -> _Fields:
        return _Fields(self._at(name), self._get(name, dict))

    def items(self, name: str) -> list[_Fields]:
        return [_Fields(f"{self._at(name)}[{place}]", each) for place, each in enumerate(self._get(name, list) or ())]

    def ignore(self, *names: str) -> None:
        self._read.update(names)

    def finish(self) -> None:
        unknown = sorted(self._value.keys() - self._read)
        if unknown:
            raise ConfigError(f'unknown field "{self._at(unknown[0])}"')
