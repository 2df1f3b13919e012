"""What plugins are: the extension points of a scheduling cycle, and the drafts that plans are made of.

A plugin says as much as it can about all Pods of a signature at once; only what is a single Pod's own (its volumes, its
claims) is asked for each Pod.

    screen_*(spec, draft)   by PodSpec: nodes refused by name, labels, taints; resources; fixed scores
    plan_*(kind, draft)     by PodKind: rules and scores on tallies
    pre_filter(cycle)       for one Pod: refuse it at once, or note what the plugin needs later
    refusals(cycle)         for one Pod: further nodes refused, as masks
    score(cycle, nodes)     for one Pod: scores that depend on it alone
    post_filter(cycle)      no node was found: make room
    reserve, unreserve, permit, pre_bind, post_bind     around binding, as upstream

Upstream's names are kept for what users meet (plugins, reasons, codes); PreFilter, Filter and Score of upstream are
spread over the first five.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from fastkube import _columns, _sched, _scores
from fastkube.clock import Clock
from fastkube.scheduler.cache import Cache
from fastkube.scheduler.dra.extended import ExtendedClasses
from fastkube.scheduler.events import ClusterEvent, Interest
from fastkube.scheduler.metrics import Metrics
from fastkube.scheduler.nodes import NodeInfo
from fastkube.scheduler.pods import LabelClass, Owner, PodInfo, PodSpec
from fastkube.scheduler.tallies import Matcher, Selected

if TYPE_CHECKING:
    from fastkube.scheduler.extenders import Extenders
    from fastkube.scheduler.search import FitError, NodeSearch

Object = dict[str, Any]

MAX_SCORE = _sched.MAX_SCORE


class Code(Enum):
    """How a plugin's answer is to be taken."""

    SUCCESS = "Success"
    ERROR = "Error"
    UNSCHEDULABLE = "Unschedulable"
    UNRESOLVABLE = "UnschedulableAndUnresolvable"
    """Unschedulable, and taking Pods away would not help."""
    WAIT = "Wait"
    SKIP = "Skip"
    PENDING = "Pending"


class Status(NamedTuple):
    """A plugin's answer for a whole Pod; None stands for success."""

    code: Code
    message: str
    plugin: str


class Rejected(Exception):
    """Raised by a plugin: this Pod cannot be placed now. `resolvable`: preemption may help."""

    def __init__(self, message: str, *, resolvable: bool = False, pending: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.resolvable = resolvable
        self.pending = pending

    @property
    def status(self) -> str:
        """Upstream's code."""
        return str((Code.UNSCHEDULABLE if self.resolvable else Code.UNRESOLVABLE).value)


class PluginError(Exception):
    """Raised by a plugin that cannot decide: the attempt fails, and is made again after a back-off."""

    def __init__(self, plugin: str, message: str) -> None:
        super().__init__(f'running "{plugin}" filter plugin: {message}')


class BindingFailed(Exception):
    """Raised by a plugin in the binding cycle: an error and no refusal; the attempt is made again after a back-off."""


class Reason(NamedTuple):
    """Why a plugin refuses a node."""

    plugin: str
    text: str
    resolvable: bool = True
    """Whether taking Pods off the node may help."""


class Reasons:
    """Reasons as the byte codes of verdicts. Those beyond a byte share the last code, and are counted as `OTHER`."""

    OTHER = Reason("", "node(s) were refused for other reasons")

    def __init__(self) -> None:
        self._codes: dict[Reason, int] = {}
        self._reasons: list[Reason] = []

    def code(self, reason: Reason) -> int:
        found = self._codes.get(reason)
        if found is None:
            if len(self._reasons) == _columns.CODES_MAX - 1:
                self._reasons.append(self.OTHER)
            found = min(len(self._reasons) + 1, _columns.CODES_MAX)
            if found < _columns.CODES_MAX:
                self._reasons.append(reason)
            self._codes[reason] = found
        return found

    def reason(self, code: int) -> Reason:
        return self._reasons[code - 1]


class Refusal(NamedTuple):
    """Nodes that a plugin refuses for one Pod."""

    mask: int
    reason: Reason


class PodKind(NamedTuple):
    """Pods that one plan serves: equal in what they ask for, in labels, and in who owns them."""

    spec: PodSpec
    labels: LabelClass
    owner: Owner | None


@dataclass(slots=True)
class Cycle:
    """One attempt to place a Pod. `state` is for plugins: what they found out, by plugin name."""

    pod: PodInfo
    state: dict[str, Any] = field(default_factory=dict)
    only: int | None = None
    """The only nodes to look at, where a plugin said so in pre_filter."""
    narrowed_by: set[str] = field(default_factory=set)
    sampled: bool = False
    """Each plugin is timed."""

    def narrow(self, mask: int, plugin: str) -> None:
        """Look at no other nodes; two plugins that say so leave the nodes that both named."""
        self.only = mask if self.only is None else self.only & mask
        self.narrowed_by.add(plugin)


class ScreenDraft:
    """Collects what plugins say about the Pods of a PodSpec. The first plugin to refuse a node is the one blamed."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.refusals: list[Refusal] = []
        self.resources: list[_sched.ResourceScore] = []
        self.scorers: list[_scores.Fixed | _scores.Constant] = []
        self.check_fit = False
        self.unchecked: frozenset[str] = frozenset()
        """Requested resources that need not fit."""
        self.uses_images = False
        """Whether a change of the nodes' images changes the screen."""

    def refuse(self, mask: int, reason: Reason) -> None:
        if mask:
            self.refusals.append(Refusal(mask, reason))

    def constant_score(self, plugin: str, weight: int, score: int) -> None:
        """The same for all nodes."""
        self.scorers.append(_scores.Constant(plugin, weight, score))

    def fixed_score(self, plugin: str, weight: int, values: array[int], mode: int) -> None:
        """A value for each slot."""
        self.scorers.append(_scores.Fixed(plugin, weight, values, mode))


class PlanDraft:
    """Collects rules and scorers on tallies for the Pods of a PodKind."""

    def __init__(self, cache: Cache, reasons: Reasons) -> None:
        self.cache = cache
        self.ports: list[_sched.Rule] = []
        self.rules: list[_sched.Rule] = []
        self.scorers: list[Any] = []
        self.selected: list[Selected] = []
        self.follows_workloads = False
        """Whether Services or owners coming and going change the plan."""
        self.follows_terms = False
        self.follows_placement = False
        """Whether a node's coming, going or changing labels changes the plan."""
        self._reasons = reasons

    def tally(self, matcher: Matcher, topology_key: str, eligible: int | None = None) -> _sched.Tally:
        selected = self.cache.tallies.selected(matcher, topology_key, eligible)
        self.selected.append(selected)
        return selected.tally

    def code(self, reason: Reason) -> int:
        return self._reasons.code(reason)


class Nomination(NamedTuple):
    """What a post-filter plugin came to: a node that will have room ("" for none, None to leave a nomination as it is),
    and what is to be told besides why no node takes the Pod."""

    node: str | None
    message: str
    pending: bool = False
    """The plugin has set something going and says itself when to try again."""
    failed: bool = False
    """The plugin cannot do its work: no further one is asked."""


class Handle:
    """What the scheduler lends to its plugins. Here it does nothing: decisions without a cluster (simulations) use it.

    `lister(resource)` gives an Informer, or what can be read like one.
    """

    def __init__(self, cache: Cache, clock: Clock, lister: Callable[[str], Any], client: Any = None) -> None:
        self.cache = cache
        self.clock = clock
        self.lister = lister
        self.client = client
        """None where nothing may be written."""
        self.metrics = Metrics()
        self.gates: frozenset[str] = frozenset()
        """The feature gates that are on."""

    @cached_property
    def extended_classes(self) -> ExtendedClasses:
        """Which device classes stand for extended resources."""

        def changed() -> None:
            self.cache.static_generation += 1  # what a node must offer itself is another thing now

        return ExtendedClasses(self.lister, changed)

    def event(
        self, pod: PodInfo, type: str, reason: str, action: str, note: str, *, related: PodInfo | None = None
    ) -> None:
        """Record an Event about a Pod."""

    def clear_nomination(self, pod: PodInfo) -> None:
        """Take status.nominatedNodeName away."""

    def reject_waiting(self, uid: str, plugin: str, message: str) -> bool:
        """Take a Pod back that waits for permission, or for pre-bind plugins; False when it does not."""
        return False

    def allow_waiting(self, uid: str, plugin: str) -> None:
        """Give a waiting Pod the permission of a plugin."""

    def evict(self, pods: Iterable[PodInfo]) -> None:
        """Where nothing may be written: Pods that would be deleted."""

    def activate(self, uid: str) -> None:
        """Try a Pod again as soon as possible."""


class Plugin:
    """A plugin of the scheduler. A subclass overrides the extension points that it has; the profile asks only those.

    `weight` is that of the profile, for scores. `args` are the plugin's arguments in the configuration.
    """

    name = ""
    interests: tuple[Interest, ...] = ()
    """The events that may make a Pod schedulable which this plugin refused; `wakes` looks closer."""

    about = ""
    """`volumes` or `claims`: of the points for single Pods, those of the scheduling cycle are asked only for Pods which
    have any."""
    wait_reason = ""
    """What `permit` keeps Pods waiting for."""
    notes_pre_bind = False
    """`pre_bind` has something to do only for Pods about which the plugin has put something into `cycle.state`."""
    pre_filters = pre_scores = True
    """Whether filters and scores are counted as prepared for each Pod, as they are in upstream's plugins."""

    def __init__(self, args: Mapping[str, Any], handle: Handle, weight: int = 1) -> None:
        self.args = args
        self.handle = handle
        self.weight = weight

    # -- who waits for what --------------------------------------------------------------------------------------------

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        """Whether an event can make a Pod schedulable that this plugin refused."""
        return True

    # -- the scheduling cycle ------------------------------------------------------------------------------------------

    def pre_enqueue(self, pod: PodInfo) -> str | None:
        """Why the Pod must not even be tried; None lets it into the queue."""
        return None

    def asks(self, spec: PodSpec) -> bool:
        """Whether `screen_filter` has anything to ask nodes for such Pods."""
        return True

    def screen_filter(self, spec: PodSpec, draft: ScreenDraft) -> None: ...

    def screen_score(self, spec: PodSpec, draft: ScreenDraft) -> None: ...

    def plan_filter(self, kind: PodKind, draft: PlanDraft) -> None: ...

    def plan_score(self, kind: PodKind, draft: PlanDraft) -> None: ...

    def pre_filter(self, cycle: Cycle) -> None:
        """Raises Rejected for a Pod that no node can take."""

    def refusals(self, cycle: Cycle) -> Iterable[Refusal]:
        """Nodes refused for this Pod beyond what its spec says."""
        return ()

    def score(self, cycle: Cycle, nodes: Sequence[NodeInfo]) -> Sequence[int] | None:
        """Normalized scores for this Pod beyond what its spec says, a number from 0 to 100 for each node."""
        return None

    def post_filter(self, cycle: Cycle, error: FitError, search: NodeSearch) -> Nomination:
        """No node takes the Pod: make room somewhere, or say why not."""
        return Nomination(None, "")

    async def post_filter_with(
        self, cycle: Cycle, error: FitError, search: NodeSearch, extenders: Extenders
    ) -> Nomination:
        """The same for a Pod about which extenders are asked."""
        return self.post_filter(cycle, error, search)

    # -- the binding cycle ---------------------------------------------------------------------------------------------

    def reserve(self, cycle: Cycle, node: NodeInfo) -> None:
        """Note that the Pod will run on the node; raises Rejected."""

    def unreserve(self, cycle: Cycle, node: NodeInfo) -> None:
        """Take `reserve` back; called for every plugin when any part of binding fails, even before its `reserve`."""

    def permit(self, cycle: Cycle, node: NodeInfo) -> float:
        """Seconds to wait until `allow` or `reject`; 0 lets the Pod through at once. Raises Rejected."""
        return 0.0

    async def pre_bind(self, cycle: Cycle, node: NodeInfo) -> None:
        """What must be done before binding; raises ApiError or Rejected."""

    def post_bind(self, cycle: Cycle, node: NodeInfo) -> None:
        """The Pod is bound."""


def overrides(plugin: Plugin, *points: str) -> bool:
    """Whether a plugin has any of these extension points."""
    return any(getattr(type(plugin), point) is not getattr(Plugin, point) for point in points)
