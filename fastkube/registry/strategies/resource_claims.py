"""ResourceClaims: what is asked for, and in their status what was allocated and who uses it."""

from __future__ import annotations

import re
from typing import Any

from fastkube.api import field
from fastkube.errors import Cause
from fastkube.registry.strategies import checks, devices, pod_scheduling
from fastkube.registry.strategies.checks import Errors, equal
from fastkube.registry.strategies.devices import Names, listed, unique
from fastkube.registry.strategies.go_values import shown
from fastkube.registry.strategies.volume_sources import csi_driver_name
from fastkube.registry.strategy import ALL_METADATA, Call, Object, Strategy

_USERS_MAX, _RESULTS_MAX, _BINDING_CONDITIONS_MAX, _CONDITIONS_MAX, _IPS_MAX = 256, 32, 4, 8, 16
_DATA_MAX_BYTES = 10 * 1024
_INTERFACE_MAX, _HARDWARE_MAX = 256, 128
_is_uuid = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch


class ResourceClaimStrategy(Strategy):
    kept_on_status = ALL_METADATA
    has_generation = False

    def default(self, obj: Object) -> None:
        devices.default_claim(obj.setdefault("spec", {}))

    def prepare_for_status_update(self, call: Call, new: Object, old: Object) -> None:
        super().prepare_for_status_update(call, new, old)
        _drop_freed(new.get("status") or {}, old.get("status") or {})

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        devices.claim_spec(errs, "spec", obj["spec"])
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        checks.immutable(errs, "spec", new["spec"], old["spec"], shown("ResourceClaimSpec", new["spec"]))
        return errs

    def validate_status_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        terminating = "deletionTimestamp" in new["metadata"]
        names = devices.request_names(new["spec"])
        _status(errs, new.get("status") or {}, old.get("status") or {}, terminating, names)
        return errs


def _device(told: Object) -> tuple[str, str, str, str]:
    driver, pool, device, share = (told.get(key) or "" for key in ("driver", "pool", "device", "shareID"))
    return driver, pool, device, share


def _allocated(status: Object) -> set[tuple[str, str, str, str]]:
    return {_device(each) for each in ((status.get("allocation") or {}).get("devices") or {}).get("results") or ()}


def _drop_freed(status: Object, before: Object) -> None:
    """What drivers said of devices that the claim no longer has."""
    freed = _allocated(before) - _allocated(status)
    if not freed or not status.get("devices"):
        return
    kept = [each for each in status["devices"] if _device(each) not in freed]
    if kept:
        status["devices"] = kept
    else:
        status.pop("devices")


# ---------------------------------------------------------------- status


def _status(errs: Errors, status: Object, before: Object, terminating: bool, names: Names) -> None:
    users, allocation = status.get("reservedFor") or [], status.get("allocation")
    unique(errs, "status.reservedFor", users, _USERS_MAX, _user, lambda user: user.get("uid") or "")
    allocated = _allocated(status)

    def device(errs: Errors, path: str, told: Object) -> None:
        _device_status(errs, path, told, allocated)

    unique(errs, "status.devices", status.get("devices"), -1, device, _device)
    if users and allocation is None:
        errs.append(field.forbidden("status.reservedFor", "may not be specified when `allocated` is not set"))
    elif users and terminating and any(user not in (before.get("reservedFor") or ()) for user in users):
        problem = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"
        errs.append(field.forbidden("status.reservedFor", problem))
    if allocation is None:
        return
    if before.get("allocation") is not None:
        if not equal(allocation, before["allocation"]):
            told = shown("AllocationResult", allocation)
            errs.append(field.invalid("status.allocation", told, field.IMMUTABLE))
    else:
        _allocation(errs, "status.allocation", allocation, names)


def _user(errs: Errors, path: str, user: Object) -> None:
    checks.required(errs, path, user, "resource", "name", "uid")


def _allocation(errs: Errors, path: str, allocation: Object, names: Names) -> None:
    given = allocation.get("devices") or {}

    def result(errs: Errors, at: str, told: Object) -> None:
        _result(errs, at, told, names)

    def config(errs: Errors, at: str, told: Object) -> None:
        source = told.get("source") or ""
        checks.one_of_required(errs, f"{at}.source", source, ("FromClaim", "FromClass"))
        devices.references(errs, f"{at}.requests", told.get("requests"), names)
        devices.configuration(errs, at, told)

    listed(errs, f"{path}.devices.results", given.get("results"), _RESULTS_MAX, result)
    listed(errs, f"{path}.devices.config", given.get("config"), 2 * devices.CONFIGS_MAX, config)
    if allocation.get("nodeSelector") is not None:
        pod_scheduling.node_selector(errs, f"{path}.nodeSelector", allocation["nodeSelector"])


def _result(errs: Errors, path: str, result: Object, names: Names) -> None:
    devices.reference(errs, f"{path}.request", result.get("request") or "", names)
    _identity(errs, path, result)
    binding_conditions(errs, path, result)
    listed(errs, f"{path}.tolerations", result.get("tolerations"), devices.TOLERATIONS_MAX, devices.toleration)
    _share(errs, path, result)


def _identity(errs: Errors, path: str, told: Object) -> None:
    driver, pool, device, _ = _device(told)
    csi_driver_name(errs, f"{path}.driver", driver)
    devices.pool_name(errs, f"{path}.pool", pool)
    checks.label(errs, f"{path}.device", device)


def _share(errs: Errors, path: str, told: Object) -> None:
    share = told.get("shareID")
    if share is not None and not _is_uuid(share):
        problem = (
            "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase "
            "hexadecimal characters"
        )
        if not _is_uuid(share.lower()):
            problem = f"error validating uid: invalid UUID length: {len(share)}"
        errs.append(field.invalid(f"{path}.shareID", share, problem))


def binding_conditions(errs: Errors, path: str, told: Object) -> None:
    """What must hold, and must not, before a Pod is bound; of an allocation as of a device."""
    lists: dict[str, list[str]] = {
        key: told.get(key) or [] for key in ("bindingConditions", "bindingFailureConditions")
    }
    for key, names in lists.items():
        listed(errs, f"{path}.{key}", names, _BINDING_CONDITIONS_MAX, checks.qualified)
    wanted, failures = lists.values()
    for number, name in enumerate(wanted):
        if name in wanted[:number]:
            errs.append(field.duplicate(f"{path}.bindingConditions[{number}]", name))
    for number, name in enumerate(failures):
        at = f"{path}.bindingFailureConditions[{number}]"
        if name in failures[:number]:
            errs.append(field.duplicate(at, name))
        if name in wanted:
            errs.append(field.invalid(at, name, "bindingFailureConditions must not overlap with bindingConditions"))
    for given, missing in (("bindingFailureConditions", "bindingConditions"),) * bool(failures) + (
        ("bindingConditions", "bindingFailureConditions"),
    ) * bool(wanted):
        if not lists[missing]:
            errs.append(field.invalid(f"{path}.{missing}", None, f"{missing} are required to use {given}"))


def _device_status(errs: Errors, path: str, told: Object, allocated: set[tuple[str, str, str, str]]) -> None:
    _identity(errs, path, told)
    _share(errs, path, told)
    if _device(told) not in allocated:
        who = dict(zip(("Driver", "Pool", "Device", "ShareID"), _device(told), strict=True))
        errs.append(field.invalid(path, field.struct(who), "must be an allocated device in the claim"))
    conditions = told.get("conditions") or []
    if len(conditions) > _CONDITIONS_MAX:
        errs.append(field.too_many(f"{path}.conditions", len(conditions), _CONDITIONS_MAX))
    checks.conditions(errs, f"{path}.conditions", conditions)
    if told.get("data") is not None:
        devices.raw_object(errs, f"{path}.data", told["data"], _DATA_MAX_BYTES)
    if told.get("networkData") is not None:
        _network(errs, f"{path}.networkData", told["networkData"])


def _network(errs: Errors, path: str, network: Object) -> None:
    for key, most in (("interfaceName", _INTERFACE_MAX), ("hardwareAddress", _HARDWARE_MAX)):
        if len((network.get(key) or "").encode()) > most:
            errs.append(field.too_long(f"{path}.{key}", most))

    def address(errs: Errors, at: str, text: Any) -> None:
        network = checks.parse_cidr(text)
        if network is None:
            problem = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)"
            errs.append(field.invalid(at, text, problem))

    unique(errs, f"{path}.ips", network.get("ips"), _IPS_MAX, address, str)


STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("resource.k8s.io", "resourceclaims"): ResourceClaimStrategy(),
    ("resource.k8s.io", "resourceclaimtemplates"): devices.ResourceClaimTemplateStrategy(),
    ("resource.k8s.io", "deviceclasses"): devices.DeviceClassStrategy(),
}
