"""Profiles: which plugins run at which point, with which weight and arguments.

Upstream's rules: a plugin that is enabled at multiPoint runs at every point that it has, unless it is disabled there.
Plugins named at a point come in the order given there; those that are in multiPoint too come first, then the rest of
multiPoint, then the others.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastkube.scheduler.cache import Cache
from fastkube.scheduler.config import PluginSet, ProfileConfig
from fastkube.scheduler.config_fields import ConfigError
from fastkube.scheduler.config_validation import MULTI_POINT, POINTS
from fastkube.scheduler.events import WILDCARD, ClusterEvent
from fastkube.scheduler.framework import Handle, Plugin, Reasons, overrides
from fastkube.scheduler.metrics import Timing
from fastkube.scheduler.plans import Plans, Points
from fastkube.scheduler.plugins import BUILT_IN
from fastkube.scheduler.pods import PodInfo
from fastkube.scheduler.search import Filters, NodeSearch, Prepared

ENTRY_POINT_GROUP = "fastkube.scheduler.plugins"

_METHODS = {
    "preEnqueue": ("pre_enqueue",),
    "queueSort": ("sort_key",),
    "preFilter": ("pre_filter",),
    "filter": ("screen_filter", "plan_filter", "refusals"),
    "postFilter": ("post_filter",),
    "preScore": ("screen_score", "plan_score", "score"),
    "score": ("screen_score", "plan_score", "score"),
    "reserve": ("reserve", "unreserve"),
    "permit": ("permit",),
    "preBind": ("pre_bind",),
    "bind": ("bind",),
    "postBind": ("post_bind",),
}
"""The methods of a Plugin that make up each extension point."""

PluginClass = type[Plugin]


def known_plugins() -> dict[str, PluginClass]:
    """Those of this package, and those that installed packages offer by entry point."""
    found: dict[str, PluginClass] = {plugin.name: plugin for plugin in BUILT_IN}
    if not _some_are_offered():
        return found
    from importlib.metadata import entry_points

    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name in found:
            raise ConfigError(f'a plugin named "{entry.name}" already exists')
        found[entry.name] = entry.load()
    return found


def _some_are_offered() -> bool:
    """Whether any package may have plugins: asking `importlib.metadata` takes a tenth of a start."""
    for folder in sys.path:
        if os.path.isfile(folder):  # an archive, which is looked into there
            return True
        with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:
            for entry in entries:
                if entry.name.endswith((".dist-info", ".egg-info")) and _offers(f"{entry.path}/entry_points.txt"):
                    return True
    return False


def _offers(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return ENTRY_POINT_GROUP.encode() in file.read()
    except OSError:
        return False


def has_point(plugin: PluginClass, point: str) -> bool:
    """Whether a plugin has an extension point."""
    return any(getattr(plugin, method, None) is not getattr(Plugin, method, None) for method in _METHODS[point])


def _interface(point: str) -> str:
    """The name that upstream's messages give to an extension point."""
    return f"{point[0].upper()}{point[1:]}Plugin"


def resolve(plugins: Mapping[str, PluginSet], known: Mapping[str, PluginClass]) -> dict[str, list[tuple[str, int]]]:
    """Extension point → (plugin, weight) in the order in which they run; raises ConfigError."""
    for point, chosen in plugins.items():
        for each in chosen.enabled:
            if each.name not in known:
                raise ConfigError(f'{_interface(point)} "{each.name}" does not exist')
            if point != MULTI_POINT and not has_point(known[each.name], point):
                raise ConfigError(f'plugin "{each.name}" does not extend {_interface(point)} plugin')
    return {point: _at_point(point, plugins, known) for point in POINTS}


def _at_point(point: str, plugins: Mapping[str, PluginSet], known: Mapping[str, PluginClass]) -> list[tuple[str, int]]:
    here = plugins.get(point, PluginSet())
    own = {each.name: each.weight for each in here.enabled}
    for place, each in enumerate(here.enabled):
        if each.name in {other.name for other in here.enabled[:place]}:
            raise ConfigError(f'plugin "{each.name}" already registered as "{_interface(point)}"')
    everywhere = [
        (each.name, each.weight)
        for each in plugins.get(MULTI_POINT, PluginSet()).enabled
        if has_point(known[each.name], point) and not here.has_disabled(each.name)
    ]
    shared = {name for name, _ in everywhere}
    first = [(name, weight) for name, weight in own.items() if name in shared]
    rest = [(name, weight) for name, weight in everywhere if name not in own]
    last = [(name, weight) for name, weight in own.items() if name not in shared]
    return [(name, weight or 1) for name, weight in (*first, *rest, *last)]


class Profile:
    """The plugins of one scheduler name, made and sorted by extension point."""

    def __init__(
        self,
        config: ProfileConfig,
        handle: Handle,
        known: Mapping[str, PluginClass],
        *,
        reasons: Reasons,
        percentage: int,
        turn: list[int],
        workloads: Callable[[], int],
    ) -> None:
        """Raises ConfigError."""
        self.name = config.scheduler_name
        points = resolve(config.plugins, known)
        weights = dict(points["score"])
        used = dict.fromkeys(name for chosen in points.values() for name, _ in chosen)
        for name in config.args:
            if name not in known:
                raise ConfigError(f'plugin config for "{name}": the plugin does not exist')
        self.plugins = {
            name: self._make(known[name], config.args.get(name, {}), handle, weights.get(name, 1)) for name in used
        }
        self._points = {point: [self.plugins[name] for name, _ in chosen] for point, chosen in points.items()}
        if len(self._points["queueSort"]) != 1:
            raise ConfigError(
                f'only one queue sort plugin required for profile with scheduler name "{self.name}", '
                f"but got {len(self._points['queueSort'])}"
            )
        if not self._points["bind"]:
            raise ConfigError(f'at least one bind plugin is needed for profile with scheduler name "{self.name}"')
        self.sort_key: Callable[[PodInfo, float], Any] = self._points["queueSort"][0].sort_key  # type: ignore[attr-defined]
        self.pre_enqueue = self._points["preEnqueue"]
        self.post_filter = self._points["postFilter"]
        self.reserve = self._points["reserve"]
        self.permit = self._points["permit"]
        self.pre_bind = self._points["preBind"]
        self.bind = self._points["bind"]
        self.bind_nowait = getattr(self.bind[0], "bind_nowait", None)
        """That of the first bind plugin, where it can bind many Pods at a time and never passes one on."""
        self.post_bind = self._points["postBind"]
        self.has_scores = bool(self._points["score"])
        self._metrics = handle.metrics
        self.timing = Timing(handle.metrics, self.name, handle.clock.monotonic)
        self.search = self._search(handle.cache, reasons, config, percentage, turn, workloads)

    @staticmethod
    def _make(plugin: PluginClass, args: Mapping[str, Any], handle: Handle, weight: int) -> Plugin:
        try:
            return plugin(args, handle, weight)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f'initializing plugin "{plugin.name}": {error}') from error

    def _search(
        self,
        cache: Cache,
        reasons: Reasons,
        config: ProfileConfig,
        percentage: int,
        turn: list[int],
        workloads: Callable[[], int],
    ) -> NodeSearch:
        own = config.percentage
        filters, scores = self._points["filter"], self._points["score"]
        points = Points(
            _having(filters, "screen_filter"),
            _having(scores, "screen_score"),
            _having(filters, "plan_filter"),
            _having(scores, "plan_score"),
        )
        per_pod = Filters(
            _having(self._points["preFilter"], "pre_filter"), _having(filters, "refusals"), _having(scores, "score")
        )
        plans = Plans(cache, points, reasons, workloads, self.timing)
        before = Prepared(
            frozenset(plugin.name for plugin in filters if plugin.pre_filters),
            frozenset(plugin.name for plugin in scores if plugin.pre_scores),
        )
        share = percentage if own is None else own
        return NodeSearch(cache, plans, reasons, per_pod, share, turn, self.timing, before)

    def waits_for(self, plugins: Iterable[str], event: ClusterEvent) -> bool:
        """Whether any of the plugins is interested in events of this kind at all."""
        if event.resource == WILDCARD:
            return True
        made = [self.plugins.get(name) for name in plugins]
        return any(plugin is None or any(each.covers(event) for each in plugin.interests) for plugin in made)

    def wakes(self, pod: PodInfo, refused_by: Iterable[str], event: ClusterEvent) -> bool:
        """Whether an event can help a Pod that these plugins refused; one yes is enough."""
        if event.resource == WILDCARD:
            return True
        for name in refused_by:
            plugin = self.plugins.get(name)
            if plugin is None:  # an extender: nobody knows what it waits for
                return True
            if any(interest.covers(event) for interest in plugin.interests) and self._ask(plugin, pod, event):
                return True
        return False

    def _ask(self, plugin: Plugin, pod: PodInfo, event: ClusterEvent) -> bool:
        started = self.timing.now()
        helps = plugin.wakes(pod, event)
        hint = "Queue" if helps else "QueueSkip"
        self._metrics.hints.observe(self.timing.now() - started, event.label, hint, plugin.name)
        return helps


def _having(plugins: Iterable[Plugin], method: str) -> list[Plugin]:
    return [plugin for plugin in plugins if overrides(plugin, method)]
