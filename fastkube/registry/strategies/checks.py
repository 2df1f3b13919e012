"""Checks that many kinds share: addresses, percentages, quantities, references, immutability.

Rules:
  1. A check appends its complaints to `errs` and returns nothing, so that a good object costs no lists.
  2. Paths come ready made; whoever calls builds one only when there is something under it to check.
  3. Objects are in wire form after decoding: what is empty is absent, what Go always writes is present. Checks
     nevertheless read absent and empty alike, because updates and defaults go through them too.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from typing import Any

from fastkube.api import field, quantity
from fastkube.api.names import (
    dns1123_label,
    dns1123_subdomain,
    is_label_key,
    label_key,
    percent,
    port_name,
    underscored_subdomain,
)
from fastkube.errors import Cause

Object = dict[str, Any]
Errors = list[Cause]
TextCheck = Callable[[str], list[str]]

INT32_MAX = 2**31 - 1
NO_MORE = "may not specify more than 1 {}"
POSITIVE = "must be greater than zero"

# ---------------------------------------------------------------- texts


def faults(errs: Errors, path: str, value: str, check: TextCheck) -> None:
    """A complaint for each fault that `check` (one of `api.names`) finds in the text."""
    errs += [field.invalid(path, value, fault) for fault in check(value)]


def label(errs: Errors, path: str, value: str) -> None:
    """A DNS label."""
    errs += [field.invalid(path, value, fault) for fault in dns1123_label(value)]


def subdomain(errs: Errors, path: str, value: str) -> None:
    """A DNS subdomain: the name of most objects."""
    errs += [field.invalid(path, value, fault) for fault in dns1123_subdomain(value)]


def qualified(errs: Errors, path: str, value: str) -> None:
    """A name with an optional DNS prefix: label keys, resources, conditions."""
    if not is_label_key(value):
        errs += [field.invalid(path, value, fault) for fault in label_key(value)]


def one_of(errs: Errors, path: str, value: str, allowed: Collection[str]) -> None:
    """`allowed` is in the order in which upstream names the supported values."""
    if value not in allowed:
        errs.append(field.not_supported(path, value, allowed))


def one_of_required(errs: Errors, path: str, value: str, allowed: Collection[str]) -> None:
    if not value:
        errs.append(field.required(path))
    elif value not in allowed:
        errs.append(field.not_supported(path, value, allowed))


def required(errs: Errors, path: str, obj: Object, *keys: str) -> None:
    """Fields that may not be empty, in upstream's order."""
    for key in keys:
        if not obj.get(key):
            errs.append(field.required(f"{path}.{key}" if path else key))


def uri_path_steps(errs: Errors, path: str, value: str) -> None:
    """No `..` among the parts of a path."""
    if ".." in value and ".." in value.split("/"):
        errs.append(field.invalid(path, value, "must not contain '..'"))


def descending_path(errs: Errors, path: str, value: str) -> None:
    """A relative path that stays below where it starts."""
    if value.startswith("/"):
        errs.append(field.invalid(path, value, "must be a relative path"))
    uri_path_steps(errs, path, value)


def local_path(errs: Errors, path: str, value: str) -> None:
    """A descending path whose first part does not start with `..` either (that prefix is the kubelet's own)."""
    descending_path(errs, path, value)
    if value.startswith("..") and not value.startswith("../"):
        errs.append(field.invalid(path, value, "must not start with '..'"))


def search_path(errs: Errors, path: str, value: str) -> None:
    """A DNS search path: a subdomain in which labels may hold underscores."""
    faults(errs, path, value, underscored_subdomain)


# ---------------------------------------------------------------- numbers


def non_negative(errs: Errors, path: str, value: int | None) -> None:
    if value is not None and value < 0:
        errs.append(field.invalid(path, value, field.at_least(0)))


def positive(errs: Errors, path: str, value: int | None) -> None:
    if value is not None and value <= 0:
        errs.append(field.invalid(path, value, POSITIVE))


def fields_non_negative(errs: Errors, path: str, obj: Object, *keys: str) -> None:
    for key in keys:
        value = obj.get(key)
        if value is not None and value < 0:
            errs.append(field.invalid(f"{path}.{key}", value, field.at_least(0)))


def port(errs: Errors, path: str, value: int) -> None:
    if not 1 <= value <= 65535:
        errs.append(field.invalid(path, value, field.between(1, 65535)))


def port_or_name(errs: Errors, path: str, value: int | str) -> None:
    if isinstance(value, str):
        errs += [field.invalid(path, value, fault) for fault in port_name(value)]
    else:
        port(errs, path, value)


def int_or_percent(errs: Errors, path: str, value: int | str) -> None:
    """A count that is not negative, or a percentage."""
    if isinstance(value, str):
        errs += [field.invalid(path, value, fault) for fault in percent(value)]
    elif value < 0:
        errs.append(field.invalid(path, value, field.at_least(0)))


def percent_of(value: int | str) -> int | None:
    """The number of a good percentage; None for anything else."""
    if isinstance(value, str) and not percent(value):
        return int(value[:-1])
    return None


def at_most_hundred_percent(errs: Errors, path: str, value: int | str) -> None:
    if (percent_of(value) or 0) > 100:
        errs.append(field.invalid(path, value, "must not be greater than 100%"))


def is_zero(value: int | str) -> bool:
    """Whether an int-or-percent comes to nothing."""
    if isinstance(value, int):
        return value == 0
    percent = percent_of(value)
    return percent == 0 if percent is not None else not value.lstrip("+-").strip("0").isdigit()


# ---------------------------------------------------------------- quantities


def amount(text: str | int | float) -> int:
    """A quantity in nanos, for comparing."""
    return quantity.parse(text if type(text) is str else str(text)).nanos


def non_negative_quantity(errs: Errors, path: str, text: str) -> None:
    if amount(text) < 0:
        errs.append(field.invalid(path, text, field.at_least(0)))


def positive_quantity(errs: Errors, path: str, text: str) -> None:
    if amount(text) <= 0:
        errs.append(field.invalid(path, text, POSITIVE))


# ---------------------------------------------------------------- addresses

_BAD_IP = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
_BAD_CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
_is_dotted = re.compile(r"[0-9]{1,}\.[0-9]{1,}\.[0-9]{1,}\.[0-9]{1,}", re.ASCII).fullmatch
_has_leading_zero = re.compile(r"(?:^|[.:])0[0-9]+(?:\.|$)", re.ASCII).search
_is_prefix_length = re.compile(r"[0-9]{1,3}", re.ASCII).fullmatch

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@lru_cache(maxsize=4096)
def parse_ip(text: str) -> Address | None:
    """The address, read as leniently as Go's older parser did (leading zeros are decimal)."""
    if "%" in text:
        return None
    if _is_dotted(text):
        text = ".".join(str(int(part)) for part in text.split("."))
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


@lru_cache(maxsize=4096)
def ip_faults(text: str) -> tuple[str, ...]:
    """What is wrong with an address by the stricter rules of today."""
    address = parse_ip(text)
    if address is None:
        return (_BAD_IP,)
    if isinstance(address, ipaddress.IPv4Address):
        return ("must not have leading 0s",) if _has_leading_zero(text) else ()
    return ("must not be an IPv4-mapped IPv6 address",) if address.ipv4_mapped else ()


def ip(errs: Errors, path: str, text: str, known: Iterable[str] = ()) -> bool:
    """An address; those in `known` (the old object's) were taken by laxer rules and may stay. Whether it is good."""
    if text in known:
        return True
    found = ip_faults(text)
    errs += [field.invalid(path, text, fault) for fault in found]
    return not found


def canonical_ip(errs: Errors, path: str, text: str) -> None:
    """An address in its one canonical text, as newer fields want it."""
    if ip(errs, path, text) and str(parse_ip(text)) != text:
        errs.append(field.invalid(path, text, f'must be in canonical form ("{parse_ip(text)}")'))


@lru_cache(maxsize=4096)
def parse_cidr(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    address_text, slash, length = text.partition("/")
    address = parse_ip(address_text)
    if not slash or address is None or not _is_prefix_length(length) or int(length) > address.max_prefixlen:
        return None
    return ipaddress.ip_network((address, int(length)), strict=False)


@lru_cache(maxsize=4096)
def cidr_faults(text: str) -> tuple[str, ...]:
    network = parse_cidr(text)
    if network is None:
        return (_BAD_CIDR,)
    address_text, _, length = text.partition("/")
    address = parse_ip(address_text)
    leading = isinstance(address, ipaddress.IPv4Address) and _has_leading_zero(address_text)
    if leading or (len(length) > 1 and length[0] == "0"):
        return ("must not have leading 0s in IP or prefix length",)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return ("must not have an IPv4-mapped IPv6 address",)
    if address != network.network_address:
        return ("must not have bits set beyond the prefix length",)
    return ()


def cidr(errs: Errors, path: str, text: str, known: Iterable[str] = ()) -> bool:
    if text in known:
        return True
    found = cidr_faults(text)
    errs += [field.invalid(path, text, fault) for fault in found]
    return not found


def canonical_cidr(errs: Errors, path: str, text: str) -> None:
    if cidr(errs, path, text) and str(parse_cidr(text)) != text:
        errs.append(field.invalid(path, text, f'must be in canonical form ("{parse_cidr(text)}")'))


def endpoint_ip(errs: Errors, path: str, text: str) -> None:
    """An address that can be that of an endpoint."""
    address = parse_ip(text)
    if address is None:
        errs.append(field.invalid(path, text, "must be a valid IP address"))
        return
    if address.is_unspecified:
        errs.append(field.invalid(path, text, f"may not be unspecified ({text})"))
    if address.is_loopback:
        errs.append(field.invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)"))
    if address.is_link_local:
        errs.append(field.invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"))
    if address in _LINK_LOCAL_MULTICAST[address.version]:
        problem = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
        errs.append(field.invalid(path, text, problem))


_LINK_LOCAL_MULTICAST = {4: ipaddress.ip_network("224.0.0.0/24"), 6: ipaddress.ip_network("ff02::/16")}


def is_dual_stack(addresses: Iterable[Address | None]) -> bool:
    """Whether both families are there."""
    return {address.version for address in addresses if address is not None} == {4, 6}


def ip_warnings(path: str, text: str) -> list[str]:
    """Addresses that are taken, but not written as everybody reads them."""
    address = parse_ip(text)
    if address is None:
        return []
    plain = str(address)
    mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped
    if ip_faults(text):
        plain = str(mapped or plain)
        return [
            f"{path}: non-standard IP address {field.quote(text)} will be considered invalid in a future "
            f"Kubernetes release: use {field.quote(plain)}"
        ]
    if address.version == 6 and plain != text:
        told = f"IPv6 address {field.quote(text)} should be in RFC 5952 canonical format ({field.quote(plain)})"
        return [f"{path}: {told}"]
    return []


def cidr_warnings(path: str, text: str) -> list[str]:
    network = parse_cidr(text)
    if network is None:
        return []
    told: list[str] = []
    address = parse_ip(text.partition("/")[0])
    if address != network.network_address:
        single = f"{address}/{network.max_prefixlen}"
        told.append(
            f"{path}: CIDR value {field.quote(text)} is ambiguous in this context "
            f"(should be {field.quote(str(network))} or {field.quote(single)}?)"
        )
    found = cidr_faults(text)
    if found and not found[0].startswith("must not have bits"):
        told.append(
            f"{path}: non-standard CIDR value {field.quote(text)} will be considered invalid in a future "
            f"Kubernetes release: use {field.quote(str(network))}"
        )
    elif network.version == 6 and f"{address}/{network.prefixlen}" != text:
        plain = f"{address}/{network.prefixlen}"
        told.append(
            f"{path}: IPv6 CIDR value {field.quote(text)} should be in RFC 5952 canonical format ({field.quote(plain)})"
        )
    return told


# ---------------------------------------------------------------- equality and immutability

_AMOUNTS = frozenset(("limits", "requests", "capacity", "overhead", "hard", "allocatable"))


def equal(new: Any, old: Any) -> bool:
    """Equality as upstream's semantic one: empty is absent, quantities compare by amount."""
    return new == old or _equal(new, old)


def _equal(new: Any, old: Any) -> bool:
    if isinstance(new, dict) and isinstance(old, dict):
        return all(
            _amounts_equal(new.get(key), old.get(key)) if key in _AMOUNTS else _equal(new.get(key), old.get(key))
            for key in new.keys() | old.keys()
        )
    if isinstance(new, list) and isinstance(old, list):
        return len(new) == len(old) and all(map(_equal, new, old))
    if type(new) is type(old) or new is None or old is None:
        return bool(new == old) or (_is_empty(new) and _is_empty(old))
    return bool(new == old)


def _is_empty(value: Any) -> bool:
    return value is None or value == {} or value == []


def _amounts_equal(new: Any, old: Any) -> bool:
    new, old = new or {}, old or {}
    if not (isinstance(new, dict) and isinstance(old, dict)) or new.keys() != old.keys():
        return _equal(new, old)
    return all(new[key] == old[key] or amount(new[key]) == amount(old[key]) for key in new)


def immutable(errs: Errors, path: str, new: Any, old: Any, shown: Any = None) -> None:
    """`shown` is how Go prints the new value where it differs from the wire form."""
    if not equal(new, old):
        errs.append(field.invalid(path, new if shown is None else shown, field.IMMUTABLE))


def fields_immutable(errs: Errors, path: str, new: Object, old: Object, *keys: str) -> None:
    for key in keys:
        immutable(errs, f"{path}.{key}" if path else key, new.get(key), old.get(key))


# ---------------------------------------------------------------- conditions

_REASON = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?"
_is_reason = re.compile(_REASON, re.ASCII).fullmatch
_NOT_REASON = (
    "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric "
    "characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or "
    f"'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '{_REASON}')"
)
_REASON_MAX, _MESSAGE_MAX = 1024, 32768


def conditions(errs: Errors, path: str, listed: list[Object] | None) -> None:
    """Conditions of the common type (metav1.Condition), one of each kind."""
    seen: set[str] = set()
    for number, condition in enumerate(listed or ()):
        kind = condition.get("type") or ""
        if kind in seen:
            errs.append(field.duplicate(f"{path}[{number}].type", kind))
        seen.add(kind)
        _condition(errs, f"{path}[{number}]", condition)


def _condition(errs: Errors, path: str, condition: Object) -> None:
    qualified(errs, f"{path}.type", condition.get("type") or "")
    one_of(errs, f"{path}.status", condition.get("status") or "", ("False", "True", "Unknown"))
    if (condition.get("observedGeneration") or 0) < 0:
        problem = "must be greater than or equal to zero"
        errs.append(field.invalid(f"{path}.observedGeneration", condition["observedGeneration"], problem))
    if not condition.get("lastTransitionTime"):
        errs.append(field.required(f"{path}.lastTransitionTime"))
    reason = condition.get("reason") or ""
    if not reason:
        errs.append(field.required(f"{path}.reason"))
    elif not _is_reason(reason):
        errs.append(field.invalid(f"{path}.reason", reason, _NOT_REASON))
    if len(reason.encode()) > _REASON_MAX:
        errs.append(field.too_long(f"{path}.reason", _REASON_MAX))
    if len((condition.get("message") or "").encode()) > _MESSAGE_MAX:
        errs.append(field.too_long(f"{path}.message", _MESSAGE_MAX))


# ---------------------------------------------------------------- selectors

_SELECTOR_FIELDS = ("matchLabels", "matchExpressions")


def selector_shown(selector: Object | None) -> field.Literal:
    """A LabelSelector in the order of Go's struct (its maps sorted)."""
    if selector is None:
        return field.struct(None)
    told: Object = {}
    if labels := selector.get("matchLabels"):
        told["matchLabels"] = dict(sorted(labels.items()))
    if expressions := selector.get("matchExpressions"):
        told["matchExpressions"] = [
            {key: each[key] for key in ("key", "operator", "values") if each.get(key) or key != "values"}
            for each in expressions
        ]
    return field.struct(told)
