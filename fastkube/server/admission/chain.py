"""The chain: which plugins there are, in which order they run, and which of them a server has switched on.

The order, the names and the default set are kube-apiserver's; a plugin's place matters, since each sees what those
before it made of the object (LimitRanger sets what ResourceQuota counts).

Plugins that are configured through the API (webhooks, policies) are part of a kind's steps only while some of their
configuration is for that kind: whoever has none pays nothing for them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from fastkube.registry.strategies import STRATEGIES
from fastkube.server.admission import webhooks
from fastkube.server.admission.accounts import ServiceAccount
from fastkube.server.admission.certificates import (
    CertificateApproval,
    CertificateSigning,
    CertificateSubjectRestriction,
)
from fastkube.server.admission.configuration import Configurations
from fastkube.server.admission.event_rate import EventRateLimit
from fastkube.server.admission.hook_client import HookClient
from fastkube.server.admission.limits import LimitRanger
from fastkube.server.admission.lookup import Lookups
from fastkube.server.admission.measures import Measures
from fastkube.server.admission.mutating_policies import MutatingPolicies
from fastkube.server.admission.namespaces import NamespaceLifecycle
from fastkube.server.admission.nodes import NodeRestriction
from fastkube.server.admission.optional import (
    AlwaysAdmit,
    AlwaysDeny,
    AlwaysPullImages,
    DenyServiceExternalIPs,
    ExtendedResourceToleration,
    LimitPodHardAntiAffinityTopology,
    NamespaceExists,
    OwnerReferencesPermissionEnforcement,
)
from fastkube.server.admission.plugin import CREATE, Identity, Plugin, operation_of
from fastkube.server.admission.pod_security import PodSecurity
from fastkube.server.admission.podgroups import PodGroupProtection, PodGroupWorkloadExists
from fastkube.server.admission.pods import (
    DefaultTolerationSeconds,
    PodTopologyLabels,
    Priority,
    RuntimeClass,
    TaintNodesByCondition,
)
from fastkube.server.admission.quota import ResourceQuota
from fastkube.server.admission.resizing import PodResizeValidator
from fastkube.server.admission.rounds import DynamicMutator, Rounds
from fastkube.server.admission.storage import (
    DefaultIngressClass,
    DefaultStorageClass,
    PersistentVolumeClaimResize,
    StorageObjectInUseProtection,
)
from fastkube.server.admission.validating_policies import ValidatingPolicies
from fastkube.server.admission.webhooks import MutatingWebhooks, ValidatingWebhooks
from fastkube.server.authz_webhook import Undecided, settled
from fastkube.server.escalation import EscalationGuard
from fastkube.server.request import Attributes

if TYPE_CHECKING:
    from fastkube.api.catalog import ResourceType
    from fastkube.clock import Clock
    from fastkube.registry.strategy import Call, Object, Strategy, UserInfo
    from fastkube.server.authz import Authorizer


class Parts(NamedTuple):
    """What plugins are made of."""

    lookups: Lookups
    clock: Clock
    authorizer: Authorizer
    dynamic: webhooks.Parts
    configurations: Configurations
    tolerated_s: tuple[int, int]
    """How long Pods stay on nodes that are not ready, and on those out of reach."""

    def may(self, user: UserInfo, verb: str, group: str, resource: str, name: str) -> bool:
        """Whether the user may do this to a cluster-wide resource."""
        return self.authorizer.allows(user, Attributes(verb, group, resource, name=name))


class Entry(NamedTuple):
    """A plugin, how it is made, and whether it is on by default."""

    name: str
    make: Callable[[Parts], Plugin]
    by_default: bool = True


PLUGINS: tuple[Entry, ...] = (
    Entry("AlwaysAdmit", lambda parts: AlwaysAdmit(), by_default=False),
    Entry("NamespaceExists", lambda parts: NamespaceExists(parts.lookups), by_default=False),
    Entry("LimitPodHardAntiAffinityTopology", lambda parts: LimitPodHardAntiAffinityTopology(), by_default=False),
    Entry("NamespaceLifecycle", lambda parts: NamespaceLifecycle(parts.lookups)),
    Entry("LimitRanger", lambda parts: LimitRanger(parts.lookups)),
    Entry("ServiceAccount", lambda parts: ServiceAccount(parts.lookups, parts.clock)),
    Entry("NodeRestriction", lambda parts: NodeRestriction(parts.lookups), by_default=False),
    Entry("AlwaysPullImages", lambda parts: AlwaysPullImages(), by_default=False),
    Entry("TaintNodesByCondition", lambda parts: TaintNodesByCondition()),
    Entry("PodSecurity", lambda parts: PodSecurity(parts.lookups, parts.configurations)),
    Entry("Priority", lambda parts: Priority(parts.lookups)),
    Entry("DefaultTolerationSeconds", lambda parts: DefaultTolerationSeconds(*parts.tolerated_s)),
    Entry(
        "EventRateLimit", lambda parts: EventRateLimit(parts.configurations, parts.clock.monotonic), by_default=False
    ),
    Entry("ExtendedResourceToleration", lambda parts: ExtendedResourceToleration(), by_default=False),
    Entry("DefaultStorageClass", lambda parts: DefaultStorageClass(parts.lookups)),
    Entry("StorageObjectInUseProtection", lambda parts: StorageObjectInUseProtection()),
    Entry(
        "OwnerReferencesPermissionEnforcement",
        lambda parts: OwnerReferencesPermissionEnforcement(parts.authorizer, parts.lookups.catalog),
        by_default=False,
    ),
    Entry("PodGroupProtection", lambda parts: PodGroupProtection()),
    Entry("PersistentVolumeClaimResize", lambda parts: PersistentVolumeClaimResize(parts.lookups)),
    Entry("RuntimeClass", lambda parts: RuntimeClass(parts.lookups)),
    Entry("CertificateApproval", lambda parts: CertificateApproval(parts.may)),
    Entry("CertificateSigning", lambda parts: CertificateSigning(parts.may)),
    Entry("CertificateSubjectRestriction", lambda parts: CertificateSubjectRestriction()),
    Entry("DefaultIngressClass", lambda parts: DefaultIngressClass(parts.lookups)),
    Entry("DenyServiceExternalIPs", lambda parts: DenyServiceExternalIPs(), by_default=False),
    Entry("PodResizeValidator", lambda parts: PodResizeValidator(parts.lookups)),
    Entry("PodTopologyLabels", lambda parts: PodTopologyLabels(parts.lookups)),
    Entry("PodGroupWorkloadExists", lambda parts: PodGroupWorkloadExists(parts.lookups)),
    Entry("MutatingAdmissionPolicy", lambda parts: MutatingPolicies(parts.dynamic)),
    Entry("MutatingAdmissionWebhook", lambda parts: MutatingWebhooks(parts.dynamic)),
    Entry("ValidatingAdmissionPolicy", lambda parts: ValidatingPolicies(parts.dynamic)),
    Entry("ValidatingAdmissionWebhook", lambda parts: ValidatingWebhooks(parts.dynamic)),
    Entry("ResourceQuota", lambda parts: ResourceQuota(parts.lookups, parts.configurations)),
    Entry("AlwaysDeny", lambda parts: AlwaysDeny(), by_default=False),
)

UNSUPPORTED = frozenset(
    (
        "ClusterTrustBundleAttest", "ImagePolicyWebhook", "NamespaceAutoProvision", "PodNodeSelector",
        "PodTolerationRestriction",
    )
)  # fmt: skip
"""Plugins of kube-apiserver that fastkube does not have: they may be switched off, not on."""

IDLE = {
    "JobValidation": "the features GenericWorkload and WorkloadWithJob are off",
    "NodeDeclaredFeatureValidator": "a change of a Pod is not compared with what its node declares",
}
"""Plugins of kube-apiserver that are known by name and do nothing, and why."""

_Step = Callable[["Call", "Object | None", "Object | None"], Awaitable[None] | None]


class _Steps(NamedTuple):
    """The plugins that care for one kind and operation."""

    mutations: tuple[_Step, ...]
    validations: tuple[_Step, ...]
    repeatable: tuple[Plugin, ...]
    """All that mutate, where any of them can make the others run again."""
    by_shape: bool
    """Whether that holds for all of them."""
    exceptions: tuple[Callable[[str], bool], ...]
    """For which namespaces it does not hold all the same."""
    bearings: tuple[Callable[[str], tuple[str, ...]], ...]
    """What else it depends on where a Pod is bound to a node."""


class Chain:
    """The plugins of one server (`registry.Admission`)."""

    def __init__(self, plugins: Iterable[Plugin], dynamic: webhooks.Parts) -> None:
        self.plugins = tuple(plugins)
        self.measures = dynamic.measures
        self._client = dynamic.client
        self._lookups = dynamic.lookups
        self._steps: dict[tuple[str, str, str, str], _Steps] = {}
        for plugin in self.plugins:
            plugin.on_change = self._steps.clear

    @classmethod
    def build(
        cls,
        lookups: Lookups,
        clock: Clock,
        authorizer: Authorizer,
        *,
        enable: Iterable[str] = (),
        disable: Iterable[str] = (),
        only: Iterable[str] = (),
        config_file: str = "",
        tolerated_s: tuple[int, int] = (300, 300),
    ) -> Chain:
        """The default plugins, those of `enable` besides, without those of `disable`; or just those of `only`.

        Raises ValueError and OSError.
        """
        names = _selected(frozenset(enable), frozenset(disable), frozenset(only))
        configurations = Configurations.load(config_file)
        configurations.check(names)
        client = HookClient(lookups, configurations.webhook_kubeconfig(), clock)
        dynamic = webhooks.Parts(lookups, authorizer, client, Measures(), _default, clock.monotonic)
        parts = Parts(lookups, clock, authorizer, dynamic, configurations, tolerated_s)
        chosen = [entry.make(parts) for entry in PLUGINS if entry.name in names]
        return cls([*chosen, EscalationGuard(authorizer)], dynamic)

    def close(self) -> None:
        self._lookups.close()
        self._client.forget()

    async def mutate(self, call: Call, obj: Object | None, old: Object | None) -> None:
        steps = self._steps_of(call, obj, old)
        if steps.repeatable:
            await _mutate_repeatedly(steps.repeatable, call, obj, old)
            return
        for step in steps.mutations:
            try:
                waiting = step(call, obj, old)
            except Undecided:  # an authorization webhook has to be waited for
                waiting = await settled(partial(step, call, obj, old))
            if waiting is not None:
                await waiting

    async def validate(self, call: Call, obj: Object | None, old: Object | None) -> None:
        for step in self._steps_of(call, obj, old).validations:
            try:
                waiting = step(call, obj, old)
            except Undecided:  # an authorization webhook has to be waited for
                waiting = await settled(partial(step, call, obj, old))
            if waiting is not None:
                await waiting

    def constancy(self, call: Call, operation: str = CREATE) -> int | None:
        """`registry.Admission`'s."""
        steps = self._steps_for(call, operation)
        if not steps.by_shape:
            return None
        for by_more in steps.exceptions:
            if by_more(call.namespace):
                return None
        return self._lookups.changes

    def bearing(self, call: Call, node: str) -> tuple[str, ...]:
        """`registry.Admission`'s."""
        told: tuple[str, ...] = ()
        for bearing in self._steps_for(call, CREATE).bearings:
            told += bearing(node)
        return told

    def ignores(self, call: Call, operation: str) -> bool:
        """`registry.Admission`'s."""
        steps = self._steps_for(call, operation)
        return not (steps.mutations or steps.validations)

    def _steps_of(self, call: Call, obj: Object | None, old: Object | None) -> _Steps:
        return self._steps_for(call, operation_of(call, obj, old))

    def _steps_for(self, call: Call, operation: str) -> _Steps:
        rtype = call.rtype
        key = (rtype.group, rtype.resource, call.subresource, operation)
        steps = self._steps.get(key)
        if steps is None:
            steps = self._steps[key] = self._select(key[:3], operation)
        return steps

    def _select(self, target: Identity, operation: str) -> _Steps:
        caring = [plugin for plugin in self.plugins if plugin.handles(target, operation)]
        mutating = tuple(plugin for plugin in caring if plugin.mutates)
        return _Steps(
            tuple(plugin.mutate for plugin in mutating),
            tuple(plugin.validate for plugin in caring if plugin.validates),
            mutating if any(isinstance(plugin, DynamicMutator) for plugin in mutating) else (),
            all(plugin.by_shape for plugin in caring),
            tuple(plugin.by_more for plugin in caring if type(plugin).by_more is not Plugin.by_more),
            tuple(plugin.bearing for plugin in caring if type(plugin).bearing is not Plugin.bearing),
        )


def _selected(enabled: frozenset[str], disabled: frozenset[str], only: frozenset[str]) -> frozenset[str]:
    """The names of the plugins that run; raises ValueError for names that cannot be meant."""
    known = {entry.name for entry in PLUGINS} | IDLE.keys()
    for flag, names in (("enable-admission-plugins", enabled), ("disable-admission-plugins", disabled),
                        ("admission-control", only)):  # fmt: skip
        unknown = names - known - (UNSUPPORTED if names is disabled else frozenset())
        if unknown:
            problem = "not supported" if unknown <= UNSUPPORTED else "not known"
            raise ValueError(f"{flag}: {', '.join(sorted(unknown))}: {problem}")
    if only:
        if enabled or disabled:
            raise ValueError(
                "admission-control and enable-admission-plugins/disable-admission-plugins flags are mutually exclusive"
            )
        return only
    both = enabled & disabled
    if both:
        raise ValueError(f"{', '.join(sorted(both))} in enable-admission-plugins and disable-admission-plugins")
    return frozenset(entry.name for entry in PLUGINS if entry.by_default or entry.name in enabled) - disabled


def _default(rtype: ResourceType, obj: Object) -> None:
    """Fills in the defaults of what a mutation has made."""
    strategy: Strategy | None = STRATEGIES.get((rtype.group, rtype.resource)) or rtype.extra.get("strategy")
    if strategy is not None:
        strategy.default(obj)


async def _mutate_repeatedly(plugins: tuple[Plugin, ...], call: Call, obj: Object | None, old: Object | None) -> None:
    """Once, and once more when a webhook or policy has changed the object."""
    rounds = Rounds()
    for is_again in (False, True):
        rounds.is_again = is_again
        for plugin in plugins:
            if isinstance(plugin, DynamicMutator):
                waiting = plugin.mutate_in(call, obj, old, rounds)
            else:
                waiting = await settled(partial(plugin.mutate, call, obj, old))
            if waiting is not None:
                await waiting
        if not rounds.wanted:
            return
