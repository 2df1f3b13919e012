"""KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1): read, defaulted and checked.

Unknown fields, unknown plugins and values out of range are errors: nobody wants a scheduler with half a configuration.
What upstream has and this scheduler has no use for (parallelism, profiling, the client's rate) is checked
and ignored. Validation is fastkube.scheduler.config_validation.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from fastkube.api import gates
from fastkube.scheduler import config_validation as validation
from fastkube.scheduler.config_fields import ConfigError, Fields
from fastkube.scheduler.config_validation import MULTI_POINT, POINTS
from fastkube.scheduler.pods import DEFAULT_SCHEDULER

Object = dict[str, Any]

API_VERSION = "kubescheduler.config.k8s.io/v1"
KIND = "KubeSchedulerConfiguration"

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
    ("DynamicResources", 2),
    ("DefaultPreemption", 0),
    ("NodeResourcesBalancedAllocation", 1),
    ("ImageLocality", 1),
    ("DefaultBinder", 0),
    ("NodeDeclaredFeatures", 0),
)
"""The default profile: names and weights, in their order."""


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
    repeated: tuple[tuple[str, str], ...] = ()
    """(path, plugin) of arguments that were given again."""


@dataclass(frozen=True)
class TLSConfig:
    """How an HTTP extender is trusted, and how it knows us; files win over data (PEM)."""

    insecure: bool = False
    server_name: str = ""
    cert_file: str = ""
    key_file: str = ""
    ca_file: str = ""
    cert_data: bytes = b""
    key_data: bytes = b""
    ca_data: bytes = b""


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
    tls: TLSConfig | None = None
    timeout_s: float = 5.0
    node_cache_capable: bool = False
    managed_resources: tuple[tuple[str, bool], ...] = ()
    """(resource, whether the scheduler's own fit ignores it)."""
    ignorable: bool = False


@dataclass(frozen=True)
class LeaderElectionConfig:
    """Of several schedulers with one Lease one works."""

    leader_elect: bool = True
    lease_duration_s: float = 15.0
    renew_deadline_s: float = 10.0
    retry_period_s: float = 2.0
    resource_lock: str = "leases"
    resource_name: str = "kube-scheduler"
    resource_namespace: str = "kube-system"


@dataclass(frozen=True)
class ClientConnectionConfig:
    """How the API server is reached; `kubeconfig` "" leaves it to the command line."""

    kubeconfig: str = ""
    burst: int = 100
    content_type: str = ""
    """Of requests; "" leaves it to the command line."""


@dataclass(frozen=True)
class SchedulerConfig:
    """The whole configuration. `leader_election` None: the command line says."""

    profiles: tuple[ProfileConfig, ...] = (ProfileConfig(),)
    extenders: tuple[ExtenderConfig, ...] = ()
    parallelism: int = 16
    percentage: int = 0
    initial_backoff_s: float = 1.0
    max_backoff_s: float = 10.0
    leader_election: LeaderElectionConfig | None = None
    client_connection: ClientConnectionConfig = ClientConnectionConfig()


def with_gates(config: SchedulerConfig, on: frozenset[str]) -> SchedulerConfig:
    """With the default plugins that feature gates add, in profiles which do not disable them."""
    if gates.GANG_SCHEDULING not in on:
        return config
    profiles = []
    for profile in config.profiles:
        everywhere = profile.plugins[MULTI_POINT]
        known = {each.name for each in everywhere.enabled}
        if gates.GANG_SCHEDULING not in known and not everywhere.has_disabled(gates.GANG_SCHEDULING):
            enabled = (*everywhere.enabled, PluginRef(gates.GANG_SCHEDULING))
            plugins = {**profile.plugins, MULTI_POINT: replace(everywhere, enabled=enabled)}
            profile = replace(profile, plugins=plugins)
        profiles.append(profile)
    return replace(config, profiles=tuple(profiles))


def load(path: str | Path) -> SchedulerConfig:
    """Read a file; raises ConfigError."""
    from fastkube.api import yaml

    try:
        document, repeated = yaml.load(Path(path).read_bytes())
    except (OSError, yaml.YamlError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if repeated:
        raise ConfigError(f"strict decoding error: {', '.join(repeated)}")
    return parse(document)


def parse(document: Any) -> SchedulerConfig:
    """A decoded configuration, defaulted and validated; raises ConfigError with everything that is wrong."""
    if not isinstance(document, dict):
        raise ConfigError("couldn't get version/kind; json parse error: a mapping is expected")
    unknown: list[str] = []
    told = Fields("", document, unknown, KIND)
    version, kind = told.text("apiVersion"), told.text("kind")
    if version != API_VERSION or kind != KIND:
        raise ConfigError(f'no kind "{kind}" is registered for version "{version}": {KIND} of {API_VERSION} is')
    config = _whole(told)
    _refuse_unknown(unknown, config)
    faults = validation.check(config)
    if faults:
        raise ConfigError(validation.aggregate(faults))
    return _leave_to_extenders(config)


def _leave_to_extenders(config: SchedulerConfig) -> SchedulerConfig:
    """Resources that extenders manage alone are not checked by NodeResourcesFit, in any profile."""
    ignored = [name for each in config.extenders for name, is_ignored in each.managed_resources if is_ignored]
    if not ignored:
        return config
    profiles = []
    for profile in config.profiles:
        told = profile.args.get("NodeResourcesFit", {})
        args = {**told, "ignoredResources": [*(told.get("ignoredResources") or ()), *ignored]}
        profiles.append(replace(profile, args={**profile.args, "NodeResourcesFit": args}))
    return replace(config, profiles=tuple(profiles))


def _whole(told: Fields) -> SchedulerConfig:
    profiles = told.items("profiles") or [Fields("profiles[0]", {}, [], KIND)]
    name = DEFAULT_SCHEDULER if len(profiles) == 1 else ""  # of several each needs one of its own
    config = SchedulerConfig(
        profiles=tuple(_profile(each, name) for each in profiles),
        extenders=tuple(_extender(each) for each in told.items("extenders")),
        parallelism=told.number("parallelism", 16),
        percentage=told.number("percentageOfNodesToScore"),
        initial_backoff_s=told.number("podInitialBackoffSeconds", 1),
        max_backoff_s=told.number("podMaxBackoffSeconds", 10),
        leader_election=_leader_election(told.fields("leaderElection")),
        client_connection=_client_connection(told.fields("clientConnection")),
    )
    told.ignore("enableProfiling", "enableContentionProfiling", "delayCacheUntilActive")
    told.finish()
    return config


def _refuse_unknown(unknown: list[str], config: SchedulerConfig) -> None:
    """Upstream decodes strictly: first the configuration, then the arguments of its own plugins."""
    if unknown:
        told = ", ".join(f'unknown field "{path}"' for path in unknown)
        raise ConfigError(f"strict decoding error: {told}")
    told_args = []
    for place, profile in enumerate(config.profiles):
        for number, (name, args) in enumerate(profile.args.items()):
            unread = validation.unknown_args(name, args)
            if unread:
                fields = ", ".join(f'unknown field "{path}"' for path in unread)
                told_args.append(
                    f"decoding .profiles[{place}].pluginConfig[{number}]: strict decoding error: "
                    f"decoding args for plugin {name}: strict decoding error: {fields}"
                )
    if told_args:
        raise ConfigError(f"strict decoding error: {', '.join(told_args)}")


def _leader_election(told: Fields) -> LeaderElectionConfig:
    default = LeaderElectionConfig()
    config = LeaderElectionConfig(
        leader_elect=told.flag("leaderElect", True),
        lease_duration_s=told.seconds("leaseDuration", 0.0) or default.lease_duration_s,
        renew_deadline_s=told.seconds("renewDeadline", 0.0) or default.renew_deadline_s,
        retry_period_s=told.seconds("retryPeriod", 0.0) or default.retry_period_s,
        resource_lock=told.text("resourceLock", default.resource_lock),
        resource_name=told.text("resourceName", default.resource_name),
        resource_namespace=told.text("resourceNamespace", default.resource_namespace),
    )
    told.finish()
    return config


def _client_connection(told: Fields) -> ClientConnectionConfig:
    config = ClientConnectionConfig(told.text("kubeconfig"), told.number("burst", 100), told.text("contentType"))
    told.ignore("qps", "acceptContentTypes")
    told.finish()
    return config


def _profile(told: Fields, default_name: str) -> ProfileConfig:
    name = told.text("schedulerName", default_name)
    percentage = told.optional_number("percentageOfNodesToScore")
    sets = told.fields("plugins")
    plugins = {point: _plugin_set(sets.fields(point)) for point in (*POINTS, MULTI_POINT)}
    sets.finish()
    plugins[MULTI_POINT] = _merge(default_plugins(), plugins[MULTI_POINT])
    args: dict[str, Object] = {}
    repeated = []
    for each in told.items("pluginConfig"):
        plugin = each.text("name")
        if plugin in args:
            repeated.append((each.path, plugin))
        args.setdefault(plugin, each.mapping("args"))
        each.finish()
    told.finish()
    return ProfileConfig(name, plugins, args, percentage, tuple(repeated))


def _plugin_set(told: Fields) -> PluginSet:
    enabled = []
    for each in told.items("enabled"):
        enabled.append(PluginRef(each.text("name"), each.number("weight")))
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


def _extender(told: Fields) -> ExtenderConfig:
    managed = []
    for each in told.items("managedResources"):
        managed.append((each.text("name"), each.flag("ignoredByScheduler")))
        each.finish()
    tls = _tls(told.fields("tlsConfig")) if told.mapping("tlsConfig") else None
    extender = ExtenderConfig(
        url_prefix=told.text("urlPrefix"),
        filter_verb=told.text("filterVerb"),
        prioritize_verb=told.text("prioritizeVerb"),
        preempt_verb=told.text("preemptVerb"),
        bind_verb=told.text("bindVerb"),
        weight=told.number("weight"),
        enable_https=told.flag("enableHTTPS"),
        tls=tls,
        timeout_s=told.seconds("httpTimeout", 5.0) or 5.0,
        node_cache_capable=told.flag("nodeCacheCapable"),
        managed_resources=tuple(managed),
        ignorable=told.flag("ignorable"),
    )
    told.finish()
    return extender


def _tls(told: Fields) -> TLSConfig:
    config = TLSConfig(
        insecure=told.flag("insecure"),
        server_name=told.text("serverName"),
        cert_file=told.text("certFile"),
        key_file=told.text("keyFile"),
        ca_file=told.text("caFile"),
        cert_data=base64.b64decode(told.text("certData")),
        key_data=base64.b64decode(told.text("keyData")),
        ca_data=base64.b64decode(told.text("caData")),
    )
    told.finish()
    return config
