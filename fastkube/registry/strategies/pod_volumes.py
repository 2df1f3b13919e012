"""Validation of a pod's volumes, of the mounts and devices that use them, and of claims made for ephemeral ones."""

from __future__ import annotations

from collections.abc import Collection

from fastkube.api import field
from fastkube.api.meta import validate_annotations, validate_labels
from fastkube.api.names import dns1123_label, dns1123_subdomain
from fastkube.registry.strategies import checks, fields, volume_sources
from fastkube.registry.strategies.checks import Errors, Object
from fastkube.registry.strategies.claims import claim_spec
from fastkube.registry.strategies.volume_sources import Source

Volumes = dict[str, Object]

PULL_POLICIES = ("Always", "IfNotPresent", "Never")


def pull_policy(errs: Errors, path: str, policy: str) -> None:
    if policy not in PULL_POLICIES:
        checks.one_of_required(errs, path, policy, PULL_POLICIES)


# ---------------------------------------------------------------- volumes


def volumes(errs: Errors, path: str, listed: list[Object], pod_name: str) -> Volumes:
    """The good volumes by name: what mounts may use. `pod_name` is "" in a template."""
    good: Volumes = {}
    claims = {f"{pod_name}-{each.get('name') or ''}" for each in listed if each.get("ephemeral") is not None}
    for number, volume in enumerate(listed):
        at = f"{path}[{number}]"
        found: Errors = []
        name = volume.get("name") or ""
        _sources(found, at, volume, name, pod_name)
        if not name:
            found.append(field.required(f"{at}.name"))
        else:
            found += [field.invalid(f"{at}.name", name, fault) for fault in dns1123_label(name)]
        if name in good:
            found.append(field.duplicate(f"{at}.name", name))
        if found:
            errs += found
        else:
            good[name] = volume
        claim = volume.get("persistentVolumeClaim")
        if pod_name and claim is not None and claim.get("claimName") in claims:
            problem = "must not reference a PVC that gets created for an ephemeral volume"
            errs.append(field.invalid(f"{at}.persistentVolumeClaim.claimName", claim["claimName"], problem))
    return good


def _sources(errs: Errors, path: str, volume: Object, name: str, pod_name: str) -> None:
    volume_sources.one_source(errs, path, volume, _POD_SOURCES)
    iscsi = volume.get("iscsi")
    if iscsi is not None and volume_sources.iscsi_too_long(name, iscsi):
        errs.append(field.invalid(f"{path}.name", name, volume_sources.ISCSI_TOO_LONG))
    if volume.get("ephemeral") is not None and pod_name and name:
        claim = f"{pod_name}-{name}"
        for fault in dns1123_subdomain(claim):
            errs.append(field.invalid(f"{path}.name", name, f"PVC name {field.quote(claim)}: {fault}"))


def _downward_file(errs: Errors, path: str, file: Object) -> None:
    where = file.get("path") or ""
    if not where:
        errs.append(field.required(f"{path}.path"))
    checks.local_path(errs, f"{path}.path", where)
    of_object, of_resource = file.get("fieldRef"), file.get("resourceFieldRef")
    if of_object is not None:
        fields.object_field(errs, f"{path}.fieldRef", of_object, fields.VOLUME_FIELDS)
        if of_resource is not None:
            problem = "fieldRef and resourceFieldRef can not be specified simultaneously"
            errs.append(field.invalid(path, "resource", problem))
    elif of_resource is not None:
        fields.resource_field(errs, f"{path}.resourceFieldRef", of_resource, in_volume=True)
    else:
        errs.append(field.required(path, "one of fieldRef and resourceFieldRef is required"))
    volume_sources.mode(errs, path, file, "mode")


def _downward(errs: Errors, path: str, source: Object) -> None:
    volume_sources.mode(errs, path, source)
    for file in source.get("items") or ():
        _downward_file(errs, path, file)


class _Paths:
    """The paths that the sources of a projected volume fill; two of them may not meet."""

    def __init__(self, errs: Errors, path: str) -> None:
        self._errs = errs
        self._path = path
        self._taken: set[str] = set()

    def take(self, where: str, shown: str) -> None:
        if where in self._taken:
            self._errs.append(field.invalid(self._path, shown, "conflicting duplicate paths"))
        self._taken.add(where)


def _projected(errs: Errors, path: str, source: Object) -> None:
    volume_sources.mode(errs, path, source)
    taken = _Paths(errs, path)
    for number, projection in enumerate(source.get("sources") or ()):
        at = f"{path}.sources[{number}]"
        for key in ("secret", "configMap"):
            if projection.get(key) is not None:
                _projected_keys(errs, f"{at}.{key}", projection[key], taken)
        if projection.get("downwardAPI") is not None:
            for file in projection["downwardAPI"].get("items") or ():
                _downward_file(errs, f"{at}.downwardAPI", file)
                if where := file.get("path"):
                    taken.take(where, where)
        if projection.get("serviceAccountToken") is not None:
            _projected_token(errs, path, f"{at}.serviceAccountToken", projection["serviceAccountToken"])
        if sum(value is not None for value in projection.values()) > 1:
            errs.append(field.forbidden(at, "may not specify more than 1 volume type per source"))


def _projected_keys(errs: Errors, path: str, source: Object, taken: _Paths) -> None:
    checks.required(errs, path, source, "name")
    for number, item in enumerate(source.get("items") or ()):
        volume_sources.key_to_path(errs, f"{path}.items[{number}]", item)
        if where := item.get("path"):
            taken.take(where, source.get("name") or "")


def _projected_token(errs: Errors, volume_path: str, path: str, token: Object) -> None:
    """Its `path` is complained about under the volume, not under the token: so upstream has it."""
    seconds = token.get("expirationSeconds")
    if seconds is None:
        errs.append(field.required(f"{path}.expirationSeconds"))
    elif seconds < 600:
        problem = "may not specify a duration less than 10 minutes"
        errs.append(field.invalid(f"{path}.expirationSeconds", seconds, problem))
    elif seconds > 1 << 32:
        problem = "may not specify a duration larger than 2^32 seconds"
        errs.append(field.invalid(f"{path}.expirationSeconds", seconds, problem))
    if not token.get("path"):
        errs.append(field.required(f"{volume_path}.path"))
    else:
        checks.local_path(errs, f"{volume_path}.path", token["path"])


def _ephemeral(errs: Errors, path: str, source: Object) -> None:
    path += ".volumeClaimTemplate"
    template = source.get("volumeClaimTemplate")
    if template is None:
        errs.append(field.required(path))
        return
    template_metadata(errs, f"{path}.metadata", template.get("metadata") or {})
    claim_spec(errs, f"{path}.spec", template.get("spec") or {})


def template_metadata(errs: Errors, path: str, metadata: Object) -> None:
    """Metadata of an object that is yet to be made: labels and annotations only."""
    errs += validate_annotations(metadata.get("annotations") or {}, f"{path}.annotations")
    errs += validate_labels(metadata.get("labels") or {}, f"{path}.labels")
    for key, value in metadata.items():
        if key not in ("annotations", "labels") and value:
            errs.append(field.forbidden(f"{path}.{key}", "cannot be set"))


def _image(errs: Errors, path: str, source: Object) -> None:
    checks.required(errs, path, source, "reference")
    pull_policy(errs, f"{path}.pullPolicy", source.get("pullPolicy") or "")


_POD_SOURCES = (
    *volume_sources.POD_SOURCES_BEFORE_DOWNWARD,
    Source("downwardAPI", _downward, crowded="downwarAPI"),
    *volume_sources.POD_SOURCES_AFTER_DOWNWARD,
    Source("projected", _projected),
    volume_sources.SCALE_IO,
    volume_sources.CSI,
    Source("ephemeral", _ephemeral),
    Source("image", _image),
)

# ---------------------------------------------------------------- mounts and devices

_PROPAGATIONS = ("Bidirectional", "HostToContainer", "None")
_RECURSIVE = ("Disabled", "Enabled", "IfPossible")


def mounts(errs: Errors, path: str, container: Object, known: Collection[str]) -> None:
    """`known` are the good volumes of the pod."""
    devices = container.get("volumeDevices") or ()
    device_names = {device.get("name") for device in devices}
    device_paths = {device.get("devicePath") for device in devices}
    seen: set[str] = set()
    for number, mount in enumerate(container["volumeMounts"]):
        at = f"{path}[{number}]"
        name, where = mount.get("name") or "", mount.get("mountPath") or ""
        if not name:
            errs.append(field.required(f"{at}.name"))
        if name not in known:
            errs.append(field.not_found(f"{at}.name", name))
        if not where:
            errs.append(field.required(f"{at}.mountPath"))
        if where in seen:
            errs.append(field.invalid(f"{at}.mountPath", where, "must be unique"))
        seen.add(where)
        if name in device_names:
            errs.append(field.invalid(f"{at}.name", name, "must not already exist in volumeDevices"))
        if where in device_paths:
            problem = "must not already exist as a path in volumeDevices"
            errs.append(field.invalid(f"{at}.mountPath", where, problem))
        _mount_options(errs, path, at, mount, container)


def _mount_options(errs: Errors, path: str, at: str, mount: Object, container: Object) -> None:
    """What few mounts have. Most paths lack the mount's index: so upstream has it."""
    below, expression = mount.get("subPath"), mount.get("subPathExpr")
    if below:
        checks.descending_path(errs, f"{path}.subPath", below)
    if expression:
        if below:
            problem = "subPathExpr and subPath are mutually exclusive"
            errs.append(field.invalid(f"{at}.subPathExpr", expression, problem))
        checks.descending_path(errs, f"{path}.subPathExpr", expression)
    propagation, recursive = mount.get("mountPropagation"), mount.get("recursiveReadOnly")
    if propagation is not None:
        checks.one_of(errs, f"{path}.mountPropagation", propagation, _PROPAGATIONS)
        privileged = (container.get("securityContext") or {}).get("privileged")
        if propagation == "Bidirectional" and not privileged:
            problem = "Bidirectional mount propagation is available only to privileged containers"
            errs.append(field.forbidden(f"{path}.mountPropagation", problem))
    if recursive is None or recursive == "Disabled":
        return
    path += ".recursiveReadOnly"
    if recursive not in _RECURSIVE:
        errs.append(field.not_supported(path, recursive, _RECURSIVE))
        return
    if not mount.get("readOnly"):
        errs.append(field.forbidden(path, "may only be specified when readOnly is true"))
    if propagation is not None and propagation != "None":
        errs.append(field.forbidden(path, "may only be specified when mountPropagation is None or not specified"))


def devices(errs: Errors, path: str, container: Object, known: Volumes) -> None:
    mounted = container.get("volumeMounts") or ()
    mount_names = {mount.get("name") for mount in mounted}
    mount_paths = {mount.get("mountPath") for mount in mounted}
    names: set[str] = set()
    paths: set[str] = set()
    for number, device in enumerate(container["volumeDevices"]):
        at = f"{path}[{number}]"
        name, where = device.get("name") or "", device.get("devicePath") or ""
        _device_name(errs, f"{at}.name", name, names, known)
        if not where:
            errs.append(field.required(f"{at}.devicePath"))
        if where in paths:
            errs.append(field.invalid(f"{at}.devicePath", where, "must be unique"))
        if where and ".." in where.split("/"):
            errs.append(field.invalid(f"{at}.devicePath", where, "can not contain backsteps ('..')"))
        else:
            paths.add(where)
        if name in mount_names:
            errs.append(field.invalid(f"{at}.name", name, "must not already exist in volumeMounts"))
        if where in mount_paths:
            problem = "must not already exist as a path in volumeMounts"
            errs.append(field.invalid(f"{at}.devicePath", where, problem))
        if name:
            names.add(name)


def _device_name(errs: Errors, path: str, name: str, names: set[str], known: Volumes) -> None:
    if not name:
        errs.append(field.required(path))
    if name in names:
        errs.append(field.invalid(path, name, "must be unique"))
    volume = known.get(name)
    if volume is None:
        errs.append(field.not_found(path, name))
    elif volume.get("persistentVolumeClaim") is None and volume.get("ephemeral") is None:
        problem = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
        errs.append(field.invalid(path, name, problem))
