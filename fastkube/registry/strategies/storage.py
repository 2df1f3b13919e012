"""The kinds of storage.k8s.io."""

from __future__ import annotations

from typing import Any

from fastkube.api import field
from fastkube.api.names import dns1123_subdomain, label_key
from fastkube.api.selectors import validate_label_selector
from fastkube.errors import Cause
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.checks import Errors, equal
from fastkube.registry.strategies.go_values import shown
from fastkube.registry.strategies.pod_scheduling import topology_terms
from fastkube.registry.strategies.pod_warnings import DEPRECATED_NODE_LABELS
from fastkube.registry.strategies.volume_sources import csi_driver_name
from fastkube.registry.strategies.volumes import default_volume_spec, volume_spec
from fastkube.registry.strategy import ALL_METADATA, Call, Object, Strategy

_PARAMETERS_MAX, _PARAMETERS_MAX_BYTES = 512, 256 * 1024
_EMPTY = "field can not be empty."


def _provisioner(errs: Errors, path: str, name: str) -> None:
    if not name:
        errs.append(field.required(path))
    else:
        checks.qualified(errs, path, name.lower())


def _parameters(errs: Errors, path: str, parameters: dict[str, str], *, needed: bool) -> None:
    if len(parameters) > _PARAMETERS_MAX:
        errs.append(field.too_long(path, _PARAMETERS_MAX))
        return
    if "" in parameters:
        errs.append(field.invalid(path, "", _EMPTY))
    if _size(parameters) > _PARAMETERS_MAX_BYTES:
        errs.append(field.too_long(path, _PARAMETERS_MAX_BYTES))
    if needed and not parameters:
        errs.append(field.required(path, "must contain at least one key/value pair"))


def _size(texts: dict[str, str]) -> int:
    return sum(len(key.encode()) + len(value.encode()) for key, value in texts.items())


# ---------------------------------------------------------------- classes


class StorageClassStrategy(Strategy):
    has_generation = False
    has_status = False

    def default(self, obj: Object) -> None:
        if not obj.get("reclaimPolicy"):
            obj["reclaimPolicy"] = "Delete"
        if not obj.get("volumeBindingMode"):
            obj["volumeBindingMode"] = "Immediate"

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        _provisioner(errs, "provisioner", obj.get("provisioner") or "")
        _parameters(errs, "parameters", obj.get("parameters") or {}, needed=False)
        checks.one_of(errs, "reclaimPolicy", obj["reclaimPolicy"], ("Delete", "Retain"))
        checks.one_of(errs, "volumeBindingMode", obj["volumeBindingMode"], ("Immediate", "WaitForFirstConsumer"))
        _topologies(errs, "allowedTopologies", obj.get("allowedTopologies") or [])
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs = self.validate(call, new)
        checks.fields_immutable(errs, "", new, old, "parameters", "provisioner", "reclaimPolicy", "volumeBindingMode")
        return errs

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        return [
            f"allowedTopologies[{number}].matchLabelExpressions[{index}].key: {DEPRECATED_NODE_LABELS[key]}"
            for number, term in enumerate(obj.get("allowedTopologies") or ())
            for index, expression in enumerate(term.get("matchLabelExpressions") or ())
            if (key := expression.get("key") or "") in DEPRECATED_NODE_LABELS
        ]


def _topologies(errs: Errors, path: str, terms: list[Object]) -> None:
    seen: list[dict[str, frozenset[str]]] = [{} for _ in terms]  # upstream starts with as many empty ones

    def on_term(at: str, keys: dict[str, frozenset[str]]) -> None:
        errs.extend(field.duplicate(f"{at}.matchLabelExpressions", "") for other in seen if other == keys)
        seen.append(keys)

    topology_terms(errs, path, terms, on_term)


class VolumeAttributesClassStrategy(Strategy):
    has_generation = False
    has_status = False

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        _provisioner(errs, "driverName", obj.get("driverName") or "")
        _parameters(errs, "parameters", obj.get("parameters") or {}, needed=True)
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        for key in ("driverName", "parameters"):
            if not equal(new.get(key), old.get(key)):
                errs.append(field.forbidden(key, f"updates to {key} are forbidden."))
        return errs + self.validate(call, new)


# ---------------------------------------------------------------- attachments

_ERROR_MAX_BYTES = 1024


class VolumeAttachmentStrategy(Strategy):
    kept_on_status = ALL_METADATA
    metadata_checks = ("whole",)
    has_generation = False
    allow_unconditional_update = False

    def default(self, obj: Object) -> None:
        inline = ((obj.get("spec") or {}).get("source") or {}).get("inlineVolumeSpec")
        if inline is not None:
            default_volume_spec(inline)

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        return _attachment(obj)

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs = _attachment(new)
        if not equal(new["spec"], old["spec"]):
            errs.append(field.invalid("spec", shown("VolumeAttachmentSpec", new["spec"]), field.IMMUTABLE))
        return errs

    def validate_status_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        return self.validate_update(call, new, old)


def _attachment(obj: Object) -> Errors:
    errs: Errors = []
    spec, status = obj["spec"], obj.get("status") or {}
    csi_driver_name(errs, "spec.attacher", spec.get("attacher") or "")
    source = spec.get("source") or {}
    inline, name = source.get("inlineVolumeSpec"), source.get("persistentVolumeName")
    problem = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
    if inline is None and name is None:
        errs.append(field.required("spec.source", problem))
    elif inline is not None and name is not None:
        errs.append(field.forbidden("spec.source", problem))
    elif name == "":
        errs.append(field.required("spec.source.persistentVolumeName", "must specify non empty persistentVolumeName"))
    elif inline is not None:
        volume_spec(errs, "spec.source.inlineVolumeSpec", inline, "", inline=True)
    checks.faults(errs, "spec.nodeName", spec.get("nodeName") or "", dns1123_subdomain)
    metadata = status.get("attachmentMetadata") or {}
    if "" in metadata:
        errs.append(field.invalid("status.attachmentMetadata", "", _EMPTY))
    if _size(metadata) > _PARAMETERS_MAX_BYTES:
        errs.append(field.too_long("status.attachmentMetadata", _PARAMETERS_MAX_BYTES))
    for key in ("attachError", "detachError"):
        if len(((status.get(key) or {}).get("message") or "").encode()) > _ERROR_MAX_BYTES:
            errs.append(field.too_long(f"status.{key}.message", _ERROR_MAX_BYTES))
    if name is not None:
        checks.faults(errs, "spec.source.persistentVolumeName", name, dns1123_subdomain)
    return errs


# ---------------------------------------------------------------- CSI drivers

_CSI_DRIVER_DEFAULTS: tuple[tuple[str, Any], ...] = (
    ("attachRequired", True),
    ("podInfoOnMount", False),
    ("storageCapacity", False),
    ("fsGroupPolicy", "ReadWriteOnceWithFSType"),
    ("requiresRepublish", False),
    ("seLinuxMount", False),
)
_TOKEN_MIN_S, _TOKEN_MAX_S = 600, 2**32
_UPDATE_PERIOD_MIN_S = 10
_TOKEN_IN_ATTRIBUTES = (
    "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible "
    "logging of tokens in volume attributes"
)


class CSIDriverStrategy(Strategy):
    metadata_checks = ("update",)
    has_generation = False
    allow_unconditional_update = False
    has_status = False

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        for key, value in _CSI_DRIVER_DEFAULTS:
            if spec.get(key) is None:
                spec[key] = value
        if not spec.get("volumeLifecycleModes"):
            spec["volumeLifecycleModes"] = ["Persistent"]

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        super().prepare_for_create(call, obj)
        obj["spec"].pop("preventPodSchedulingIfMissing", None)  # a feature that is off by default in 1.36

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        """The generation is not there at first; it counts changes of the spec."""
        new["spec"].pop("preventPodSchedulingIfMissing", None)
        if not equal(new["spec"], old["spec"]):
            new["metadata"]["generation"] = (old["metadata"].get("generation") or 0) + 1

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        _driver(errs, obj["spec"])
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        now, was = new["spec"], old["spec"]
        _driver(errs, now)
        checks.immutable(errs, "spec.attachedRequired", now["attachRequired"], was.get("attachRequired"))
        checks.fields_immutable(errs, "spec", now, was, "volumeLifecycleModes")
        return errs

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        spec = obj["spec"]
        unset = spec.get("serviceAccountTokenInSecrets") is None
        return [_TOKEN_IN_ATTRIBUTES] if spec.get("tokenRequests") and unset else []


def _driver(errs: Errors, spec: Object) -> None:
    """What is checked of every driver, new or changed."""
    checks.one_of(errs, "spec.fsGroupPolicy", spec["fsGroupPolicy"], ("File", "None", "ReadWriteOnceWithFSType"))
    _token_requests(errs, "spec.tokenRequests", spec.get("tokenRequests") or [])
    for mode in spec["volumeLifecycleModes"]:
        checks.one_of(errs, "spec.volumeLifecycleModes", mode, ("Persistent", "Ephemeral"))
    period = spec.get("nodeAllocatableUpdatePeriodSeconds")
    if period is not None and period < _UPDATE_PERIOD_MIN_S:
        problem = f"must be greater than or equal to {_UPDATE_PERIOD_MIN_S} seconds"
        errs.append(field.invalid("spec.nodeAllocatableUpdatePeriodSeconds", period, problem))
    in_secrets = spec.get("serviceAccountTokenInSecrets")
    if in_secrets is not None and not spec.get("tokenRequests"):
        problem = "serviceAccountTokenInSecrets is set but no tokenRequests are specified"
        errs.append(field.invalid("spec.serviceAccountTokenInSecrets", in_secrets, problem))


def _token_requests(errs: Errors, path: str, requests: list[Object]) -> None:
    audiences: set[str] = set()
    for number, request in enumerate(requests):
        seconds, audience = request.get("expirationSeconds"), request.get("audience") or ""
        at = f"{path}[{number}]"
        if seconds is not None:
            if seconds < _TOKEN_MIN_S:
                problem = "may not specify a duration less than 10 minutes"
                errs.append(field.invalid(f"{at}.expirationSeconds", seconds, problem))
            if seconds > _TOKEN_MAX_S:
                problem = "may not specify a duration larger than 2^32 seconds"
                errs.append(field.invalid(f"{at}.expirationSeconds", seconds, problem))
        if audience in audiences:
            errs.append(field.duplicate(f"{at}.audience", audience))
        audiences.add(audience)


_NODE_ID_MAX = 256


class CSINodeStrategy(Strategy):
    metadata_checks = ("whole",)
    has_generation = False
    allow_unconditional_update = False
    has_status = False

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        names: set[str] = set()
        for number, driver in enumerate(obj["spec"].get("drivers") or ()):
            _node_driver(errs, f"spec.drivers[{number}]", driver, names)
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs = self.validate(call, new)
        for before in old["spec"].get("drivers") or ():
            for driver in new["spec"].get("drivers") or ():
                if driver.get("name") == before.get("name") and not _same_driver(driver, before):
                    errs.append(field.invalid("spec.drivers", shown("CSINodeDriver", driver), field.IMMUTABLE))
        return errs


def _same_driver(new: Object, old: Object) -> bool:
    """But for how many volumes there is room for, which may change."""
    now, was = ({key: value for key, value in each.items() if key != "allocatable"} for each in (new, old))
    return equal(now, was)


def _node_driver(errs: Errors, path: str, driver: Object, names: set[str]) -> None:
    name, node, keys = driver.get("name") or "", driver.get("nodeID") or "", driver.get("topologyKeys") or []
    csi_driver_name(errs, f"{path}.name", name)
    if not node:
        errs.append(field.required(f"{path}.nodeID"))
    if len(node.encode()) > _NODE_ID_MAX:
        errs.append(field.invalid(f"{path}.nodeID", node, f"must be {_NODE_ID_MAX} characters or less"))
    count = (driver.get("allocatable") or {}).get("count")
    checks.non_negative(errs, f"{path}.allocatable.count", count)
    if name in names:
        errs.append(field.duplicate(f"{path}.name", name))
    names.add(name)
    for number, key in enumerate(keys):
        if not key:
            errs.append(field.required(path))
        if key in keys[:number]:
            errs.append(field.duplicate(path, key))
        errs += [field.invalid(path, key, fault) for fault in label_key(key)]


class CSIStorageCapacityStrategy(Strategy):
    has_generation = False
    allow_unconditional_update = False
    has_status = False

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = validate_label_selector(obj.get("nodeTopology"), "nodeTopology")
        checks.faults(errs, "storageClassName", obj.get("storageClassName") or "", dns1123_subdomain)
        for key in ("capacity", "maximumVolumeSize"):
            if obj.get(key) is not None:
                checks.non_negative_quantity(errs, key, obj[key])
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs = self.validate(call, new)
        topology = new.get("nodeTopology")
        checks.immutable(errs, "nodeTopology", topology, old.get("nodeTopology"), checks.selector_shown(topology))
        checks.fields_immutable(errs, "", new, old, "storageClassName")
        return errs


STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("storage.k8s.io", "storageclasses"): StorageClassStrategy(),
    ("storage.k8s.io", "volumeattributesclasses"): VolumeAttributesClassStrategy(),
    ("storage.k8s.io", "volumeattachments"): VolumeAttachmentStrategy(),
    ("storage.k8s.io", "csidrivers"): CSIDriverStrategy(),
    ("storage.k8s.io", "csinodes"): CSINodeStrategy(),
    ("storage.k8s.io", "csistoragecapacities"): CSIStorageCapacityStrategy(),
}
