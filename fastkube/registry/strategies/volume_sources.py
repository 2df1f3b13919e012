"""Validation of volume sources: those that Pods and PersistentVolumes share, and those of only one of them.

Each source is one row of `POD_SOURCES` or `PERSISTENT_SOURCES`, in the order in which upstream asks. A volume has
exactly one source; a second one is complained about under its own name, not under the path of its fields, which for
some sources are different words upstream.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from fastkube.api import field
from fastkube.api.names import dns1123_subdomain
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.checks import Errors, Object

_BAD_MODE = "must be a number between 0 and 0777 (octal), both inclusive"
_ONE_SOURCE = "may not specify more than 1 volume type"
_HOST_PATH_TYPES = (
    "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket",
)  # fmt: skip

Check = Callable[[Errors, str, Object], None]


class Source(NamedTuple):
    """`crowded` names the source in the complaint about a second one; `path` is where its fields are."""

    key: str
    check: Check
    path: str = ""
    crowded: str = ""


def one_source(errs: Errors, path: str, volume: Object, sources: tuple[Source, ...]) -> None:
    """Exactly one source of the table, and that one good."""
    found = 0
    for key, check, name, crowded in sources:
        if (source := volume.get(key)) is None:
            continue
        if found:
            errs.append(field.forbidden(f"{path}.{crowded or key}", _ONE_SOURCE))
        else:
            found = 1
            check(errs, f"{path}.{name or key}", source)
    if not found:
        errs.append(field.required(path, "must specify a volume type"))


def required(*keys: str) -> Check:
    """A source of which nothing but the presence of some fields is checked."""

    def check(errs: Errors, path: str, source: Object) -> None:
        checks.required(errs, path, source, *keys)

    return check


def mode(errs: Errors, path: str, source: Object, key: str = "defaultMode") -> None:
    value = source.get(key)
    if value is not None and not 0 <= value <= 0o777:
        errs.append(field.invalid(f"{path}.{key}", value, _BAD_MODE))


def secret_ref(errs: Errors, path: str, source: Object, *keys: str, key: str = "secretRef") -> None:
    if source.get(key) is not None:
        checks.required(errs, f"{path}.{key}", source[key], *keys)


# ---------------------------------------------------------------- sources


def _empty_dir(errs: Errors, path: str, source: Object) -> None:
    size = source.get("sizeLimit")
    if size is not None and checks.amount(size) < 0:
        errs.append(field.forbidden(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity"))


def host_path(errs: Errors, path: str, source: Object) -> None:
    where = source.get("path")
    if not where:
        errs.append(field.required(f"{path}.path"))
        return
    checks.uri_path_steps(errs, f"{path}.path", where)
    kind = source.get("type")
    if kind is not None:
        checks.one_of(errs, f"{path}.type", kind, _HOST_PATH_TYPES)


def _git_repo(errs: Errors, path: str, source: Object) -> None:
    checks.required(errs, path, source, "repository")
    checks.descending_path(errs, f"{path}.directory", source.get("directory") or "")


def _partitioned(key: str) -> Check:
    def check(errs: Errors, path: str, source: Object) -> None:
        checks.required(errs, path, source, key)
        partition = source.get("partition") or 0
        if not 0 <= partition <= 255:
            errs.append(field.invalid(f"{path}.partition", partition, field.between(1, 255)))

    return check


def key_to_path(errs: Errors, path: str, item: Object) -> None:
    checks.required(errs, path, item, "key", "path")
    checks.local_path(errs, f"{path}.path", item.get("path") or "")
    mode(errs, path, item, "mode")


def _keyed(name: str) -> Check:
    """A ConfigMap or Secret as files."""

    def check(errs: Errors, path: str, source: Object) -> None:
        checks.required(errs, path, source, name)
        mode(errs, path, source)
        for number, item in enumerate(source.get("items") or ()):
            key_to_path(errs, f"{path}.items[{number}]", item)

    return check


def _nfs(errs: Errors, path: str, source: Object) -> None:
    checks.required(errs, path, source, "server", "path")
    where = source.get("path") or ""
    if not where.startswith("/"):
        errs.append(field.invalid(f"{path}.path", where, "must be an absolute path"))


_ISCSI_FORMATS = {
    "iqn": re.compile(r"iqn\.[0-9]{4}-[0-9]{2}\.([A-Za-z0-9-.]+)(:[^,;*&$|\s]+)$", re.ASCII).search,
    "eui": re.compile(r"eui.[A-Za-z0-9]{16}", re.ASCII).fullmatch,
    "naa": re.compile(r"naa.[A-Za-z0-9]{32}", re.ASCII).fullmatch,
}


def _iscsi_name(errs: Errors, path: str, name: str, unknown: str) -> None:
    matches = _ISCSI_FORMATS.get(name[:3])
    if matches is None:
        errs.append(field.invalid(path, name, unknown))
    elif not matches(name):
        errs.append(field.invalid(path, name, "must be valid format"))


_ISCSI_PREFIXES = "must be valid format starting with iqn, eui, or naa"
ISCSI_TOO_LONG = (
    "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters "
    "if iscsi.initiatorName is specified."
)


def _iscsi_common(errs: Errors, path: str, source: Object) -> None:
    name = source.get("iqn")
    if not name:
        errs.append(field.required(f"{path}.iqn"))
    else:
        _iscsi_name(errs, f"{path}.iqn", name, _ISCSI_PREFIXES)
    lun = source.get("lun") or 0
    if not 0 <= lun <= 255:
        errs.append(field.invalid(f"{path}.lun", lun, field.between(0, 255)))
    if (source.get("chapAuthDiscovery") or source.get("chapAuthSession")) and source.get("secretRef") is None:
        errs.append(field.required(f"{path}.secretRef"))


def _iscsi(errs: Errors, path: str, source: Object) -> None:
    checks.required(errs, path, source, "targetPortal")
    _iscsi_common(errs, path, source)
    initiator = source.get("initiatorName")
    if initiator is not None:
        _iscsi_name(errs, f"{path}.initiatorname", initiator, _ISCSI_PREFIXES)


def iscsi_too_long(volume_name: str, source: Object) -> bool:
    """An initiator makes the volume's name and the portal parts of one name, which has a limit."""
    return source.get("initiatorName") is not None and len(f"{volume_name}:{source.get('targetPortal') or ''}") > 64


def iscsi_persistent(errs: Errors, path: str, source: Object, volume_name: str) -> None:
    checks.required(errs, path, source, "targetPortal")
    if iscsi_too_long(volume_name, source):
        errs.append(field.invalid(f"{path}.targetportal", source.get("targetPortal") or "", ISCSI_TOO_LONG))
    _iscsi_common(errs, path, source)
    secret_ref(errs, path, source, "name")
    initiator = source.get("initiatorName")
    if initiator is not None:
        _iscsi_name(errs, f"{path}.initiatorname", initiator, "must be valid format")


def _with_the_name(errs: Errors, path: str, source: Object) -> None:
    """The source cannot be checked without the volume's name; `iscsi_persistent` is called with it."""


def fibre_channel(errs: Errors, path: str, source: Object) -> None:
    names, ids = source.get("targetWWNs"), source.get("wwids")
    if not names and not ids:
        errs.append(field.required(f"{path}.targetWWNs", "must specify either targetWWNs or wwids, but not both"))
    if names and ids:
        problem = "targetWWNs and wwids can not be specified simultaneously"
        errs.append(field.invalid(f"{path}.targetWWNs", names, problem))
    if names:
        lun = source.get("lun")
        if lun is None:
            errs.append(field.required(f"{path}.lun", "lun is required if targetWWNs is specified"))
        elif not 0 <= lun <= 255:
            errs.append(field.invalid(f"{path}.lun", lun, field.between(0, 255)))


def _flocker(errs: Errors, path: str, source: Object) -> None:
    name, uuid = source.get("datasetName"), source.get("datasetUUID")
    if not name and not uuid:
        errs.append(field.required(path, "one of datasetName and datasetUUID is required"))
    if name and uuid:
        problem = "datasetName and datasetUUID can not be specified simultaneously"
        errs.append(field.invalid(path, "resource", problem))
    if name and "/" in name:
        errs.append(field.invalid(f"{path}.datasetName", name, "must not contain '/'"))


_PAIRS = "must be a host:port pair or multiple pairs separated by commas"
_is_host_port = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*):[^:\[\]]*").fullmatch


def _quobyte(errs: Errors, path: str, source: Object) -> None:
    registry = source.get("registry")
    if not registry:
        errs.append(field.required(f"{path}.registry", _PAIRS))
    elif len(source.get("tenant") or "") >= 65:
        errs.append(field.required(f"{path}.tenant", "must be a UUID and may not exceed a length of 64 characters"))
    else:
        for pair in registry.split(","):
            if not _is_host_port(pair):
                errs.append(field.invalid(f"{path}.registry", registry, _PAIRS))
    checks.required(errs, path, source, "volume")


def _cinder(errs: Errors, path: str, source: Object) -> None:
    checks.required(errs, path, source, "volumeID")
    secret_ref(errs, path, source, "name")


def _cinder_persistent(errs: Errors, path: str, source: Object) -> None:
    checks.required(errs, path, source, "volumeID")
    secret_ref(errs, path, source, "name", "namespace")


def _flex(errs: Errors, path: str, source: Object) -> None:
    checks.required(errs, path, source, "driver")
    for key in source.get("options") or ():
        domain = "." + key.split("/", 1)[0].lower()
        if domain.endswith((".kubernetes.io", ".k8s.io")):
            problem = "kubernetes.io and k8s.io namespaces are reserved"
            errs.append(field.invalid(f"{path}.options[{key}]", key, problem))


def _azure_file_persistent(errs: Errors, path: str, source: Object) -> None:
    checks.required(errs, path, source, "secretName", "shareName")
    if source.get("secretNamespace") == "":
        errs.append(field.required(f"{path}.secretNamespace"))


_MANAGED_URI = (
    "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
)  # fmt: skip
_BLOB_URI = ("https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd",)


def _azure_disk(errs: Errors, path: str, source: Object) -> None:
    checks.required(errs, path, source, "diskName", "diskURI")
    uri, caching, kind = source.get("diskURI") or "", source.get("cachingMode"), source.get("kind")
    if caching is not None:
        checks.one_of(errs, f"{path}.cachingMode", caching, ("None", "ReadOnly", "ReadWrite"))
    if kind is None:
        return
    checks.one_of(errs, f"{path}.kind", kind, ("Dedicated", "Managed", "Shared"))
    if kind == "Managed" and not uri.startswith("/subscriptions/"):
        errs.append(field.not_supported(f"{path}.diskURI", uri, _MANAGED_URI))
    if kind != "Managed" and not uri.startswith("https://"):
        errs.append(field.not_supported(f"{path}.diskURI", uri, _BLOB_URI))


def _storage_os(errs: Errors, path: str, source: Object) -> None:
    _storage_os_volume(errs, path, source)
    secret_ref(errs, path, source, "name")


def _storage_os_persistent(errs: Errors, path: str, source: Object) -> None:
    _storage_os_volume(errs, path, source)
    secret_ref(errs, path, source, "name", "namespace")


def _storage_os_volume(errs: Errors, path: str, source: Object) -> None:
    name, namespace = source.get("volumeName"), source.get("volumeNamespace")
    if not name:
        errs.append(field.required(f"{path}.volumeName"))
    else:
        checks.label(errs, f"{path}.volumeName", name)
    if namespace:
        checks.label(errs, f"{path}.volumeNamespace", namespace)


def local(errs: Errors, path: str, source: Object) -> None:
    where = source.get("path")
    if not where:
        errs.append(field.required(f"{path}.path"))
    else:
        checks.uri_path_steps(errs, f"{path}.path", where)


def csi_driver_name(errs: Errors, path: str, name: str) -> None:
    if not name:
        errs.append(field.required(path))
        return
    if len(name) > 63:
        errs.append(field.too_long(path, 63))
    errs += [field.invalid(path, name, fault) for fault in dns1123_subdomain(name.lower())]


def _csi(errs: Errors, path: str, source: Object) -> None:
    csi_driver_name(errs, f"{path}.driver", source.get("driver") or "")
    reference = source.get("nodePublishSecretRef")
    if reference is None:
        return
    if not reference.get("name"):
        errs.append(field.required(f"{path}.nodePublishSecretRef.name"))
    else:
        checks.subdomain(errs, f"{path}.name", reference["name"])


_CSI_SECRETS = (
    "controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef",
)  # fmt: skip


def _csi_persistent(errs: Errors, path: str, source: Object) -> None:
    csi_driver_name(errs, f"{path}.driver", source.get("driver") or "")
    checks.required(errs, path, source, "volumeHandle")
    for key in _CSI_SECRETS:
        reference = source.get(key)
        if reference is None:
            continue
        for part, check in (("name", checks.subdomain), ("namespace", checks.label)):
            if not reference.get(part):
                errs.append(field.required(f"{path}.{key}.{part}"))
            else:
                check(errs, f"{path}.{key}.{part}", reference[part])


def _glusterfs_persistent(errs: Errors, path: str, source: Object) -> None:
    checks.required(errs, path, source, "endpoints", "path")
    namespace = source.get("endpointsNamespace")
    if namespace == "":
        problem = "if the endpointnamespace is set, it must be a valid namespace name"
        errs.append(field.invalid(f"{path}.endpointsNamespace", namespace, problem))
    elif namespace is not None:
        checks.label(errs, f"{path}.endpointsNamespace", namespace)


_RBD = required("monitors", "image")
_GCE, _AWS = _partitioned("pdName"), _partitioned("volumeID")

SHARED = {
    "gcePersistentDisk": Source("gcePersistentDisk", _GCE, "persistentDisk"),
    "awsElasticBlockStore": Source("awsElasticBlockStore", _AWS),
    "rbd": Source("rbd", _RBD),
    "cephfs": Source("cephfs", required("monitors"), crowded="cephFS"),
    "nfs": Source("nfs", _nfs),
    "quobyte": Source("quobyte", _quobyte),
    "flocker": Source("flocker", _flocker),
    "fc": Source("fc", fibre_channel),
    "flexVolume": Source("flexVolume", _flex),
    "vsphereVolume": Source("vsphereVolume", required("volumePath")),
    "photonPersistentDisk": Source("photonPersistentDisk", required("pdID")),
    "portworxVolume": Source("portworxVolume", required("volumeID")),
    "azureDisk": Source("azureDisk", _azure_disk),
    "scaleIO": Source("scaleIO", required("gateway", "system", "volumeName")),
}

POD_SOURCES_BEFORE_DOWNWARD = (
    Source("emptyDir", _empty_dir),
    Source("hostPath", host_path),
    Source("gitRepo", _git_repo),
    SHARED["gcePersistentDisk"],
    SHARED["awsElasticBlockStore"],
    Source("secret", _keyed("secretName")),
    SHARED["nfs"],
    Source("iscsi", _iscsi),
    Source("glusterfs", required("endpoints", "path")),
    SHARED["flocker"],
    Source("persistentVolumeClaim", required("claimName")),
    SHARED["rbd"],
    Source("cinder", _cinder),
    SHARED["cephfs"],
    SHARED["quobyte"],
)
POD_SOURCES_AFTER_DOWNWARD = (
    SHARED["fc"],
    SHARED["flexVolume"],
    Source("configMap", _keyed("name")),
    Source("azureFile", required("secretName", "shareName")),
    SHARED["vsphereVolume"],
    SHARED["photonPersistentDisk"],
    SHARED["portworxVolume"],
    SHARED["azureDisk"],
    Source("storageos", _storage_os),
)
SCALE_IO, CSI = SHARED["scaleIO"], Source("csi", _csi)

PERSISTENT_SOURCES = (
    Source("hostPath", host_path),
    SHARED["gcePersistentDisk"],
    SHARED["awsElasticBlockStore"],
    Source("glusterfs", _glusterfs_persistent),
    SHARED["flocker"],
    SHARED["nfs"],
    SHARED["rbd"],
    SHARED["quobyte"],
    SHARED["cephfs"],
    Source("iscsi", _with_the_name),
    Source("cinder", _cinder_persistent),
    SHARED["fc"],
    SHARED["flexVolume"],
    Source("azureFile", _azure_file_persistent),
    SHARED["vsphereVolume"],
    SHARED["photonPersistentDisk"],
    SHARED["portworxVolume"],
    SHARED["azureDisk"],
    SHARED["scaleIO"],
    Source("local", local),
    Source("storageos", _storage_os_persistent),
    Source("csi", _csi_persistent),
)
