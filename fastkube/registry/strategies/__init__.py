"""What each built-in kind does differently, by (group, resource). A kind without an entry is wholly generic.

A strategy is imported when its kind is first used: a server does not wait at its start for the rules of all kinds.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping

from fastkube.registry.strategy import Strategy

_MODULES: dict[str, tuple[tuple[str, str], ...]] = {
    "custom.definitions": (("apiextensions.k8s.io", "customresourcedefinitions"),),
    "strategies.pods": (
        ("", "pods"),
        ("", "podtemplates"),
    ),
    "strategies.deployments": (("apps", "deployments"),),
    "strategies.replicasets": (
        ("apps", "replicasets"),
        ("", "replicationcontrollers"),
    ),
    "strategies.statefulsets": (
        ("apps", "statefulsets"),
        ("apps", "controllerrevisions"),
    ),
    "strategies.daemonsets": (("apps", "daemonsets"),),
    "strategies.jobs": (
        ("batch", "jobs"),
        ("batch", "cronjobs"),
    ),
    "strategies.namespaces": (("", "namespaces"),),
    "strategies.nodes": (("", "nodes"),),
    "strategies.services": (("", "services"),),
    "strategies.config_data": (
        ("", "secrets"),
        ("", "configmaps"),
        ("", "serviceaccounts"),
    ),
    "strategies.endpoints": (
        ("", "endpoints"),
        ("discovery.k8s.io", "endpointslices"),
    ),
    "strategies.limits": (
        ("", "limitranges"),
        ("", "resourcequotas"),
    ),
    "strategies.volumes": (("", "persistentvolumes"),),
    "strategies.volume_claims": (("", "persistentvolumeclaims"),),
    "strategies.storage": (
        ("storage.k8s.io", "storageclasses"),
        ("storage.k8s.io", "volumeattributesclasses"),
        ("storage.k8s.io", "volumeattachments"),
        ("storage.k8s.io", "csidrivers"),
        ("storage.k8s.io", "csinodes"),
        ("storage.k8s.io", "csistoragecapacities"),
    ),
    "strategies.scheduling": (
        ("scheduling.k8s.io", "priorityclasses"),
        ("node.k8s.io", "runtimeclasses"),
    ),
    "strategies.podgroups": (
        ("scheduling.k8s.io", "podgroups"),
        ("scheduling.k8s.io", "workloads"),
    ),
    "strategies.ingresses": (
        ("networking.k8s.io", "ingresses"),
        ("networking.k8s.io", "ingressclasses"),
    ),
    "strategies.network_policies": (("networking.k8s.io", "networkpolicies"),),
    "strategies.service_cidrs": (
        ("networking.k8s.io", "servicecidrs"),
        ("networking.k8s.io", "ipaddresses"),
    ),
    "strategies.leases": (("coordination.k8s.io", "leases"),),
    "strategies.events": (
        ("", "events"),
        ("events.k8s.io", "events"),
    ),
    "strategies.rbac": (
        ("rbac.authorization.k8s.io", "roles"),
        ("rbac.authorization.k8s.io", "clusterroles"),
        ("rbac.authorization.k8s.io", "rolebindings"),
        ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ),
    "strategies.certificates": (("certificates.k8s.io", "certificatesigningrequests"),),
    "strategies.flowcontrol": (
        ("flowcontrol.apiserver.k8s.io", "flowschemas"),
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
    ),
    "strategies.resource_claims": (
        ("resource.k8s.io", "resourceclaims"),
        ("resource.k8s.io", "resourceclaimtemplates"),
        ("resource.k8s.io", "deviceclasses"),
    ),
    "strategies.resource_slices": (("resource.k8s.io", "resourceslices"),),
    "strategies.autoscalers": (("autoscaling", "horizontalpodautoscalers"),),
    "strategies.budgets": (("policy", "poddisruptionbudgets"),),
    "strategies.webhooks": (
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
        ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    ),
    "strategies.policies": (
        ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"),
        ("admissionregistration.k8s.io", "mutatingadmissionpolicies"),
        ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings"),
    ),
    "strategies.apiservices": (("apiregistration.k8s.io", "apiservices"),),
}
"""Each module of this package (in fastkube.registry) and the kinds that its own STRATEGIES are for."""


class Strategies(Mapping[tuple[str, str], Strategy]):
    """The strategies of all modules, each of which is imported when one of its kinds is asked for."""

    def __init__(self, modules: Mapping[str, tuple[tuple[str, str], ...]]) -> None:
        self._module_of = {kind: module for module, kinds in modules.items() for kind in kinds}
        self._loaded: dict[tuple[str, str], Strategy] = {}

    def __getitem__(self, kind: tuple[str, str]) -> Strategy:
        known = self._loaded.get(kind)
        if known is None:
            module = importlib.import_module(f"fastkube.registry.{self._module_of[kind]}")
            self._loaded.update(module.STRATEGIES)
            known = self._loaded[kind]
        return known

    def __contains__(self, kind: object) -> bool:
        return kind in self._module_of

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._module_of)

    def __len__(self) -> int:
        return len(self._module_of)


STRATEGIES = Strategies(_MODULES)
