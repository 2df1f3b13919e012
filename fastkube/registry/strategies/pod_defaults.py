"""Defaults of Pods and of the pod templates inside other kinds (upstream: pkg/apis/core/v1/defaults.go).

`default_pod_spec` serves both; `default_pod` adds what only a real Pod gets: requests from limits, host ports of the
host network, `enableServiceLinks`. A template stays without these so that later changes of a default reach its Pods.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from fastkube.api import quantity

Object = dict[str, Any]

_DEFAULT_MODE = 0o644
_MODE_SOURCES = ("secret", "configMap", "downwardAPI", "projected")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_PROBE_DEFAULTS = (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3))

VOLUME_DEFAULTS: dict[str, tuple[tuple[str, Any], ...]] = {
    "iscsi": (("iscsiInterface", "default"),),
    "rbd": (("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")),
    "scaleIO": (("storageMode", "ThinProvisioned"), ("fsType", "xfs")),
}
"""Texts that a volume source gets when it has none; the sources of Pods and of PersistentVolumes share them."""

_AZURE_DISK = (("cachingMode", "ReadWrite"), ("kind", "Shared"), ("fsType", "ext4"), ("readOnly", False))

# An image reference (distribution/reference): a name in lower case, perhaps after a domain, then tag and digest.
_DOMAIN = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_DOMAIN}(?:\.{_DOMAIN})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_reference = re.compile(
    rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*(?::([A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?"
    r"(@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?",
    re.ASCII,
).fullmatch


_is_identifier = re.compile(r"[a-f0-9]{64}").fullmatch
_NAME_MAX = 255


def _path_of(image: str) -> str:
    """The repository in its registry; those of Docker's are in `library/` unless they name another folder."""
    name = image.partition("@")[0]
    if ":" in name.rpartition("/")[2]:
        name = name.rpartition(":")[0]
    domain, slash, path = name.partition("/")
    if not slash or not (set(".:") & set(domain) or domain == "localhost" or domain != domain.lower()):
        return name if slash else f"library/{name}"
    return path


@lru_cache(maxsize=4096)
def pull_policy(image: str) -> str:
    """`Always` for the tag `latest`, named or implied; `IfNotPresent` otherwise, also for what is no reference."""
    match = _reference(image)
    if match is None or _is_identifier(image) or len(_path_of(image)) > _NAME_MAX:
        return "IfNotPresent"
    tag, digest = match.groups()
    latest = tag == "latest" or (tag is None and digest is None)
    return "Always" if latest else "IfNotPresent"


def default_pod(obj: Object) -> None:
    """A whole Pod."""
    spec = obj["spec"]
    default_pod_spec(spec)
    containers, inits = spec.get("containers") or (), spec.get("initContainers") or ()
    for container in containers:
        resources = container["resources"]
        if resources:
            _requests_from_limits(resources)
    for container in inits:
        if resources := container["resources"]:
            _requests_from_limits(resources)
    if spec.get("resources"):
        default_pod_resources(spec)
    if "enableServiceLinks" not in spec:
        spec["enableServiceLinks"] = True
    if spec.get("hostNetwork"):
        for container in (*containers, *inits):
            for port in container.get("ports") or ():
                if not port.get("hostPort"):
                    port["hostPort"] = port.get("containerPort") or 0


def _requests_from_limits(resources: Object) -> None:
    limits = resources.get("limits")
    if not limits:
        return
    requests = resources.get("requests")
    if requests is None:
        resources["requests"] = dict(limits)
        return
    for name, amount in limits.items():
        if name not in requests:
            requests[name] = amount


def default_pod_spec(spec: Object) -> None:
    """The spec of a Pod or of a template."""
    for container in spec.get("containers") or ():
        default_container(container)
    if "initContainers" in spec:
        for container in spec["initContainers"]:
            default_container(container)
    if "ephemeralContainers" in spec:
        for container in spec["ephemeralContainers"]:
            default_container(container)
    if "volumes" in spec:
        for volume in spec["volumes"]:
            _default_volume(volume)
    if not spec.get("restartPolicy"):
        spec["restartPolicy"] = "Always"
    if "terminationGracePeriodSeconds" not in spec:
        spec["terminationGracePeriodSeconds"] = 30
    if not spec.get("dnsPolicy"):
        spec["dnsPolicy"] = "ClusterFirst"
    if "securityContext" not in spec:
        spec["securityContext"] = {}
    if not spec.get("schedulerName"):
        spec["schedulerName"] = "default-scheduler"
    if "overhead" in spec:
        default_amounts(spec["overhead"])
    if spec.get("resources"):
        default_resources(spec["resources"])
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:  # `serviceAccount` is the old name of the field; both always read the same
        spec["serviceAccountName"] = spec["serviceAccount"] = account


def default_amounts(amounts: dict[str, str] | None) -> None:
    """Amounts finer than a thousandth are rounded up to one, in every list of resources."""
    if amounts:
        for name, amount in amounts.items():
            amounts[name] = quantity.canonical_milli(amount)


def default_resources(resources: Object) -> None:
    default_amounts(resources.get("limits"))
    default_amounts(resources.get("requests"))


def default_container(container: Object) -> None:
    if "resources" not in container:
        container["resources"] = {}
    elif container["resources"]:
        default_resources(container["resources"])
    if not container.get("terminationMessagePath"):
        container["terminationMessagePath"] = "/dev/termination-log"
    if not container.get("terminationMessagePolicy"):
        container["terminationMessagePolicy"] = "File"
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = pull_policy(container.get("image") or "")
    if "ports" in container:
        for port in container["ports"]:
            if not port.get("protocol"):
                port["protocol"] = "TCP"
    if "env" in container:
        for variable in container["env"]:
            source = variable.get("valueFrom")
            if source:
                _default_value_source(source)
    for key in _PROBES:
        if key in container:
            _default_probe(container[key])
    if "lifecycle" in container:
        for hook in ("postStart", "preStop"):
            action = (container["lifecycle"] or {}).get(hook)
            if action and "httpGet" in action:
                _default_http_get(action["httpGet"])


def _default_value_source(source: Object) -> None:
    """Of an environment variable or of a downward API file."""
    reference = source.get("fieldRef")
    if reference is not None and not reference.get("apiVersion"):
        reference["apiVersion"] = "v1"
    reference = source.get("resourceFieldRef")
    if reference is not None and "divisor" not in reference:
        reference["divisor"] = "0"
    reference = source.get("fileKeyRef")
    if reference is not None and "optional" not in reference:
        reference["optional"] = False


def _default_probe(probe: Object) -> None:
    if "httpGet" in probe:
        _default_http_get(probe["httpGet"])
    if "grpc" in probe and probe["grpc"].get("service") is None:
        probe["grpc"]["service"] = ""
    for key, value in _PROBE_DEFAULTS:
        if not probe.get(key):
            probe[key] = value


def _default_http_get(action: Object) -> None:
    if not action.get("path"):
        action["path"] = "/"
    if not action.get("scheme"):
        action["scheme"] = "HTTP"


def _default_volume(volume: Object) -> None:
    source = next((key for key in volume if key != "name" and volume[key] is not None), None)
    if source is None:
        volume["emptyDir"] = {}
        return
    for key in list(volume):
        if key != "name" and volume[key] is not None:
            _default_volume_source(key, volume[key])


def _default_volume_source(kind: str, source: Object) -> None:
    default_shared_source(kind, source)
    if kind in _MODE_SOURCES:
        if "defaultMode" not in source:
            source["defaultMode"] = _DEFAULT_MODE
        if kind == "downwardAPI":
            _default_downward_files(source)
        elif kind == "projected":
            _default_projection(source)
    elif kind == "image":
        if not source.get("pullPolicy"):
            source["pullPolicy"] = pull_policy(source.get("reference") or "")
    elif kind == "ephemeral" and source.get("volumeClaimTemplate"):
        template = source["volumeClaimTemplate"]
        template.setdefault("metadata", {})
        default_claim_spec(template.setdefault("spec", {}))


def default_shared_source(kind: str, source: Object) -> None:
    """The sources that Pods and PersistentVolumes have in common."""
    if kind == "hostPath":
        if source.get("type") is None:
            source["type"] = ""
    elif kind in VOLUME_DEFAULTS:
        for key, text in VOLUME_DEFAULTS[kind]:
            if not source.get(key):
                source[key] = text
    elif kind == "azureDisk":
        for key, value in _AZURE_DISK:
            if source.get(key) is None:
                source[key] = value


def _default_downward_files(source: Object) -> None:
    for file in source.get("items") or ():
        _default_value_source(file)


def _default_projection(source: Object) -> None:
    for projected in source.get("sources") or ():
        if projected.get("downwardAPI"):
            _default_downward_files(projected["downwardAPI"])
        token = projected.get("serviceAccountToken")
        if token is not None and token.get("expirationSeconds") is None:
            token["expirationSeconds"] = 3600


def default_claim_spec(spec: Object) -> None:
    """The spec of a PersistentVolumeClaim, wherever it stands."""
    if spec.get("volumeMode") is None:
        spec["volumeMode"] = "Filesystem"
    if spec.get("resources"):
        default_resources(spec["resources"])


# ---------------------------------------------------------------- resources of the Pod as a whole

_POD_RESOURCES = ("cpu", "memory")


def is_pod_level_resource(name: str) -> bool:
    return name in _POD_RESOURCES or name.startswith("hugepages-")


def default_pod_resources(spec: Object) -> None:
    """Pod-level limits bring pod-level requests: what the containers ask for together or, if nothing, the limit."""
    resources = spec["resources"]
    _default_huge_page_limits(spec, resources)
    limits = resources.get("limits")
    if not limits:
        return
    requests = resources.setdefault("requests", {})
    for name, amount in aggregate(spec, "requests").items():
        if is_pod_level_resource(name) and not name.startswith("hugepages-"):
            requests.setdefault(name, amount)
    for name, amount in limits.items():
        if is_pod_level_resource(name):
            requests.setdefault(name, amount)
    if not requests:
        del resources["requests"]


def _default_huge_page_limits(spec: Object, resources: Object) -> None:
    """Huge pages cannot be overcommitted: what the containers may use, the Pod must be allowed."""
    if not resources.get("requests") and not resources.get("limits"):
        return
    pages = {name: amount for name, amount in aggregate(spec, "limits").items() if name.startswith("hugepages-")}
    if pages:
        limits = resources.setdefault("limits", {})
        for name, amount in pages.items():
            limits.setdefault(name, amount)


def aggregate(spec: Object, kind: str) -> dict[str, str]:
    """What all containers ask for together (`kind`: requests or limits): regular ones and sidecars at once, init
    containers one after the other beside the sidecars that were started before them."""
    total: dict[str, str] = {}
    for container in spec.get("containers") or ():
        _add(total, (container.get("resources") or {}).get(kind))
    sidecars: dict[str, str] = {}
    peak: dict[str, str] = {}
    for container in spec.get("initContainers") or ():
        asked = (container.get("resources") or {}).get(kind)
        if container.get("restartPolicy") == "Always":
            _add(total, asked)
            _add(sidecars, asked)
            _raise(peak, sidecars)
        else:
            together = dict(sidecars)
            _add(together, asked)
            _raise(peak, together)
    _raise(total, peak)
    return total


def _add(total: dict[str, str], more: dict[str, str] | None) -> None:
    for name, amount in (more or {}).items():
        total[name] = quantity.add(total[name], amount) if name in total else amount


def _raise(total: dict[str, str], least: dict[str, str]) -> None:
    for name, amount in least.items():
        if name not in total or quantity.cmp(amount, total[name]) > 0:
            total[name] = amount
