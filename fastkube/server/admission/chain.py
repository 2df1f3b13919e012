"""The chain: which plugins there are, in which order they run, and which of them a server has switched on.

The order, the names and the default set are kube-apiserver's; a plugin's place matters, since each sees what those
before it made of the object (LimitRanger sets what ResourceQuota counts).

Not honoured yet: MutatingAdmissionPolicy, MutatingAdmissionWebhook, ValidatingAdmissionPolicy and
ValidatingAdmissionWebhook. Their objects can be stored, and nothing acts on them; their place is before ResourceQuota.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from fastkube.server.admission.accounts import ServiceAccount
from fastkube.server.admission.certificates import (
    CertificateApproval,
    CertificateSigning,
    CertificateSubjectRestriction,
)
from fastkube.server.admission.limits import LimitRanger
from fastkube.server.admission.lookup import Lookups
from fastkube.server.admission.namespaces import NamespaceLifecycle
from fastkube.server.admission.nodes import NodeRestriction
from fastkube.server.admission.plugin import CREATE, DELETE, UPDATE, Identity, Plugin
from fastkube.server.admission.pod_security import PodSecurity
from fastkube.server.admission.pods import (
    DefaultTolerationSeconds,
    PodTopologyLabels,
    Priority,
    RuntimeClass,
    TaintNodesByCondition,
)
from fastkube.server.admission.quota import ResourceQuota
from fastkube.server.admission.storage import (
    DefaultIngressClass,
    DefaultStorageClass,
    PersistentVolumeClaimResize,
    StorageObjectInUseProtection,
)
from fastkube.server.authz_webhook import Undecided, settled
from fastkube.server.escalation import EscalationGuard
from fastkube.server.request import Attributes

if TYPE_CHECKING:
    from fastkube.clock import Clock
    from fastkube.registry.strategy import Call, Object, UserInfo
    from fastkube.server.authz import Authorizer


class Parts(NamedTuple):
    """What plugins are made of."""

    lookups: Lookups
    clock: Clock
    authorizer: Authorizer

    def may(self, user: UserInfo, verb: str, group: str, resource: str, name: str) -> bool:
        """Whether the user may do this to a cluster-wide resource."""
        return self.authorizer.allows(user, Attributes(verb, group, resource, name=name))


class Entry(NamedTuple):
    """A plugin, how it is made, and whether it is on by default."""

    name: str
    make: Callable[[Parts], Plugin]
    by_default: bool = True


PLUGINS: tuple[Entry, ...] = (
    Entry("NamespaceLifecycle", lambda parts: NamespaceLifecycle(parts.lookups)),
    Entry("LimitRanger", lambda parts: LimitRanger(parts.lookups)),
    Entry("ServiceAccount", lambda parts: ServiceAccount(parts.lookups, parts.clock)),
    Entry("NodeRestriction", lambda parts: NodeRestriction(parts.lookups), by_default=False),
    Entry("TaintNodesByCondition", lambda parts: TaintNodesByCondition()),
    Entry("PodSecurity", lambda parts: PodSecurity(parts.lookups)),
    Entry("Priority", lambda parts: Priority(parts.lookups)),
    Entry("DefaultTolerationSeconds", lambda parts: DefaultTolerationSeconds()),
    Entry("DefaultStorageClass", lambda parts: DefaultStorageClass(parts.lookups)),
    Entry("StorageObjectInUseProtection", lambda parts: StorageObjectInUseProtection()),
    Entry("PersistentVolumeClaimResize", lambda parts: PersistentVolumeClaimResize(parts.lookups)),
    Entry("RuntimeClass", lambda parts: RuntimeClass(parts.lookups)),
    Entry("CertificateApproval", lambda parts: CertificateApproval(parts.may)),
    Entry("CertificateSigning", lambda parts: CertificateSigning(parts.may)),
    Entry("CertificateSubjectRestriction", lambda parts: CertificateSubjectRestriction()),
    Entry("DefaultIngressClass", lambda parts: DefaultIngressClass(parts.lookups)),
    Entry("PodTopologyLabels", lambda parts: PodTopologyLabels(parts.lookups)),
    Entry("ResourceQuota", lambda parts: ResourceQuota(parts.lookups)),
)

UNSUPPORTED = frozenset(
    (
        "AlwaysAdmit", "AlwaysDeny", "AlwaysPullImages", "ClusterTrustBundleAttest", "DenyServiceExternalIPs",
        "EventRateLimit", "ExtendedResourceToleration", "ImagePolicyWebhook", "LimitPodHardAntiAffinityTopology",
        "MutatingAdmissionPolicy", "MutatingAdmissionWebhook", "NamespaceAutoProvision", "NamespaceExists",
        "OwnerReferencesPermissionEnforcement", "PodNodeSelector", "PodTolerationRestriction",
        "ValidatingAdmissionPolicy", "ValidatingAdmissionWebhook",
    )
)  # fmt: skip
"""Plugins of kube-apiserver that fastkube does not have: they may be switched off, not on."""

_Step = Callable[["Call", "Object | None", "Object | None"], Awaitable[None] | None]


class _Steps(NamedTuple):
    """The plugins that care for one kind and operation."""

    mutations: tuple[_Step, ...]
    validations: tuple[_Step, ...]


class Chain:
    """The plugins of one server (`registry.Admission`)."""

    def __init__(self, plugins: Iterable[Plugin], lookups: Lookups) -> None:
        self.plugins = tuple(plugins)
        self._lookups = lookups
        self._steps: dict[tuple[str, str, str, str], _Steps] = {}

    @classmethod
    def build(
        cls, lookups: Lookups, clock: Clock, authorizer: Authorizer, *, enable: Iterable[str], disable: Iterable[str]
    ) -> Chain:
        """The default plugins, those of `enable` besides, without those of `disable`. Raises ValueError."""
        enabled, disabled = frozenset(enable), frozenset(disable)
        known = {entry.name for entry in PLUGINS}
        for flag, names in (("enable", enabled), ("disable", disabled)):
            unknown = names - known - (UNSUPPORTED if flag == "disable" else frozenset())
            if unknown:
                problem = "not supported" if unknown <= UNSUPPORTED else "not known"
                raise ValueError(f"{flag}-admission-plugins: {', '.join(sorted(unknown))}: {problem}")
        both = enabled & disabled
        if both:
            raise ValueError(f"{', '.join(sorted(both))} in enable-admission-plugins and disable-admission-plugins")
        parts = Parts(lookups, clock, authorizer)
        chosen = [
            entry.make(parts)
            for entry in PLUGINS
            if entry.name not in disabled and (entry.by_default or entry.name in enabled)
        ]
        return cls([*chosen, EscalationGuard(authorizer)], lookups)

    def close(self) -> None:
        self._lookups.close()

    async def mutate(self, call: Call, obj: Object | None, old: Object | None) -> None:
        for step in self._steps_of(call, obj, old).mutations:
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

    def _steps_of(self, call: Call, obj: Object | None, old: Object | None) -> _Steps:
        operation = DELETE if obj is None else CREATE if old is None else UPDATE
        rtype = call.rtype
        key = (rtype.group, rtype.resource, call.subresource, operation)
        steps = self._steps.get(key)
        if steps is None:
            steps = self._steps[key] = self._select(key[:3], operation)
        return steps

    def _select(self, target: Identity, operation: str) -> _Steps:
        caring = [plugin for plugin in self.plugins if plugin.handles(target, operation)]
        return _Steps(
            tuple(plugin.mutate for plugin in caring if plugin.mutates),
            tuple(plugin.validate for plugin in caring if plugin.validates),
        )
