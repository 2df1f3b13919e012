"""Plugins of kube-apiserver that are off unless they are asked for: each forbids or fills in one thing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fastkube import errors
from fastkube.api import field
from fastkube.errors import ApiError
from fastkube.registry.strategies.resources import is_extended
from fastkube.server.admission.plugin import CREATE, DELETE, UPDATE, Identity, Plugin, forbid
from fastkube.server.request import Attributes

if TYPE_CHECKING:
    from fastkube.api.catalog import Catalog
    from fastkube.registry.strategy import Call, Object
    from fastkube.server.admission.lookup import Lookups
    from fastkube.server.authz import Authorizer

_POD: Identity = ("", "pods", "")
_HOSTNAME = "kubernetes.io/hostname"


class AlwaysAdmit(Plugin):
    """Changes and refuses nothing."""

    name = "AlwaysAdmit"


class AlwaysDeny(Plugin):
    """Refuses every write."""

    name = "AlwaysDeny"
    mutates = validates = True

    def handles(self, target: Identity, operation: str) -> bool:
        return True

    def mutate(self, call: Call, obj: Object | None, old: Object | None) -> None:
        raise forbid(call, obj, "admission control is denying all modifications")

    validate = mutate


class AlwaysPullImages(Plugin):
    """Images are pulled anew for each Pod, so that their credentials are checked."""

    name = "AlwaysPullImages"
    mutates = validates = True
    by_shape = True

    def handles(self, target: Identity, operation: str) -> bool:
        return target == _POD and operation in (CREATE, UPDATE)

    def mutate(self, call: Call, obj: Object, old: Object | None) -> None:
        if not _has_new_images(obj, old):
            return
        for _, container in _containers(obj):
            container["imagePullPolicy"] = "Always"
        for volume in obj["spec"].get("volumes") or ():
            if volume.get("image") is not None:
                volume["image"]["pullPolicy"] = "Always"

    def validate(self, call: Call, obj: Object, old: Object | None) -> None:
        if not _has_new_images(obj, old):
            return
        found = [(f"{path}.imagePullPolicy", one.get("imagePullPolicy")) for path, one in _containers(obj)]
        for number, volume in enumerate(obj["spec"].get("volumes") or ()):
            if volume.get("image") is not None:
                found.append((f"spec.volumes[{number}].image.pullPolicy", volume["image"].get("pullPolicy")))
        faults = [field.not_supported(path, told or "", ("Always",)) for path, told in found if told != "Always"]
        if faults:
            refusals = [forbid(call, obj, f"{fault.field}: {fault.message}").message for fault in faults]
            raise ApiError(500, "", refusals[0] if len(refusals) == 1 else f"[{', '.join(refusals)}]")


def _containers(pod: Object) -> Iterator[tuple[str, Object]]:
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for number, container in enumerate(pod["spec"].get(key) or ()):
            yield f"spec.{key}[{number}]", container


def _has_new_images(obj: Object, old: Object | None) -> bool:
    if old is None:
        return True
    known = {container.get("image") for _, container in _containers(old)}
    return any(container.get("image") not in known for _, container in _containers(obj))


class DenyServiceExternalIPs(Plugin):
    """Services get no external addresses that they do not have."""

    name = "DenyServiceExternalIPs"
    validates = True

    def handles(self, target: Identity, operation: str) -> bool:
        return target == ("", "services", "") and operation in (CREATE, UPDATE)

    def validate(self, call: Call, obj: Object, old: Object | None) -> None:
        known = (old["spec"].get("externalIPs") or ()) if old is not None else ()
        if any(address not in known for address in obj["spec"].get("externalIPs") or ()):
            raise forbid(call, obj, "Use of external IPs is denied by admission control")


class ExtendedResourceToleration(Plugin):
    """Pods that ask for an extended resource tolerate the taint that nodes with it have."""

    name = "ExtendedResourceToleration"
    mutates = True
    by_shape = True

    def handles(self, target: Identity, operation: str) -> bool:
        return target == _POD and operation in (CREATE, UPDATE)

    def mutate(self, call: Call, obj: Object, old: Object | None) -> None:
        spec = obj["spec"]
        asked = {
            name
            for key in ("containers", "initContainers")
            for container in spec.get(key) or ()
            for name in (container.get("resources") or {}).get("requests") or {}
            if is_extended(name)
        }
        if not asked:
            return
        tolerations = list(spec.get("tolerations") or ())
        for name in sorted(asked):
            wanted = {"key": name, "operator": "Exists", "effect": "NoSchedule"}
            if wanted not in tolerations:
                tolerations.append(wanted)
        spec["tolerations"] = tolerations


class LimitPodHardAntiAffinityTopology(Plugin):
    """Required anti-affinity between Pods is for single nodes only."""

    name = "LimitPodHardAntiAffinityTopology"
    validates = True
    by_shape = True

    def handles(self, target: Identity, operation: str) -> bool:
        return target == _POD and operation in (CREATE, UPDATE)

    def validate(self, call: Call, obj: Object, old: Object | None) -> None:
        affinity = (obj["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
        for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or ():
            key = term.get("topologyKey") or ""
            if key != _HOSTNAME:
                told = f"affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key}"
                why = f"{told} but only key {_HOSTNAME} is allowed"
                raise errors.forbidden("", "pods", obj["metadata"].get("name") or "", why)


class NamespaceExists(Plugin):
    """Nothing is done in a namespace that there is not."""

    name = "NamespaceExists"
    validates = True

    def __init__(self, lookups: Lookups) -> None:
        self._namespaces = lookups.namespaces

    def handles(self, target: Identity, operation: str) -> bool:
        return target[:2] != ("", "namespaces") and operation in (CREATE, UPDATE, DELETE)

    def validate(self, call: Call, obj: Object | None, old: Object | None) -> None:
        if call.namespace and self._namespaces.get("", call.namespace) is None:
            raise errors.not_found("", "namespaces", call.namespace)


class OwnerReferencesPermissionEnforcement(Plugin):
    """Owners are set by who may delete the object; owners' deletion is blocked by who may set their finalizers."""

    name = "OwnerReferencesPermissionEnforcement"
    validates = True

    def __init__(self, authorizer: Authorizer, catalog: Catalog) -> None:
        self._authorizer = authorizer
        self._catalog = catalog

    def handles(self, target: Identity, operation: str) -> bool:
        if target == ("", "pods", "status"):  # kubelets write it, and may not delete what they do not run
            return False
        return operation in (CREATE, UPDATE)

    def validate(self, call: Call, obj: Object, old: Object | None) -> None:
        owners = (obj.get("metadata") or {}).get("ownerReferences") or []
        before = (((old or {}).get("metadata")) or {}).get("ownerReferences") or []
        if owners == before:
            return
        rtype = call.rtype
        if old is not None:
            asked = Attributes("delete", rtype.group, rtype.resource, call.subresource, call.namespace, call.name)
            decision = self._authorizer.decide(call.user, asked)
            if not decision.allowed:
                why = f"cannot set an ownerRef on a resource you can't delete: {decision.reason}, <nil>"
                raise forbid(call, obj, why)
        blocking = [owner for owner in owners if owner.get("blockOwnerDeletion") and not _was_blocking(owner, before)]
        anything = Attributes("update", "*", "*", "finalizers")
        if not blocking or self._authorizer.decide(call.user, anything).allowed:
            return
        for owner in blocking:
            self._check_owner(call, obj, owner)

    def _check_owner(self, call: Call, obj: Object, owner: Object) -> None:
        version, kind = owner.get("apiVersion") or "", owner.get("kind") or ""
        group = version.rpartition("/")[0]
        kinds = [one for one in self._catalog.all() if one.group == group and one.kind == kind]
        if not kinds:
            told = f'no matches for kind "{kind}" in version "{version}"'
            mapping = f"cannot find RESTMapping for APIVersion {version} Kind {kind}: {told}"
            raise forbid(call, obj, f"cannot set blockOwnerDeletion in this case because {mapping}")
        for rtype in kinds:
            namespace = call.namespace if rtype.namespaced else ""
            asked = Attributes("update", rtype.group, rtype.resource, "finalizers", namespace, owner.get("name") or "")
            decision = self._authorizer.decide(call.user, asked)
            if not decision.allowed:
                told = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you "
                raise forbid(call, obj, f"{told}can't set finalizers on: {decision.reason}, <nil>")


def _was_blocking(owner: Object, before: list[Object]) -> bool:
    return any(one.get("uid") == owner.get("uid") and one.get("blockOwnerDeletion") for one in before)
