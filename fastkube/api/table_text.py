"""The words that table cells are made of: ages, shortened lists, labels and selectors. Unset values read `<none>`,
`<unset>` or `<unknown>`, whichever upstream has in that place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastkube.api import selectors
from fastkube.clock import parse_rfc3339

Object = dict[str, Any]
Cell = str | int | float | bool | None
Printer = Callable[[Object, float], list[Cell]]
"""From an object in its storage version and the wall time (seconds) to the cells of its row."""

NONE, UNSET, UNKNOWN = "<none>", "<unset>", "<unknown>"

_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86_400, 365 * 86_400


def human_duration(seconds: float) -> str:
    """A duration with one or two units, rounded down: `90s`, `5m30s`, `3h`, `2d4h`, `1y20d`."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 2 * _MINUTE:
        return f"{max(whole, 0)}s"
    if whole < 10 * _MINUTE:
        return _two_units(whole, _MINUTE, "m", 1, "s")
    if whole < 3 * _HOUR:
        return f"{whole // _MINUTE}m"
    if whole < 8 * _HOUR:
        return _two_units(whole, _HOUR, "h", _MINUTE, "m")
    if whole < 2 * _DAY:
        return f"{whole // _HOUR}h"
    if whole < 8 * _DAY:
        return _two_units(whole, _DAY, "d", _HOUR, "h")
    if whole < 2 * _YEAR:
        return f"{whole // _DAY}d"
    if whole < 8 * _YEAR:
        return _two_units(whole, _YEAR, "y", _DAY, "d")
    return f"{whole // _YEAR}y"


def _two_units(seconds: int, unit: int, name: str, smaller: int, smaller_name: str) -> str:
    whole, rest = divmod(seconds, unit)
    rest //= smaller
    return f"{whole}{name}{rest}{smaller_name}" if rest else f"{whole}{name}"


def since(timestamp: str | None, now: float) -> str:
    """How long ago a time was."""
    return human_duration(now - parse_rfc3339(timestamp)) if timestamp else UNKNOWN


def age(obj: Object, now: float) -> str:
    return since(obj["metadata"].get("creationTimestamp"), now)


def name(obj: Object) -> str:
    told: str = obj["metadata"].get("name", "")
    return told


def shortened(items: list[str], most: int, separator: str = ",") -> str:
    """The first items, and how many there are more."""
    told = separator.join(items[:most])
    return f"{told} + {len(items) - most} more..." if len(items) > most else told


def labels(told: Mapping[str, str] | None) -> str:
    return ",".join(f"{key}={told[key]}" for key in sorted(told)) if told else NONE


def selector(told: Object | None) -> str:
    return str(selectors.from_object(told)) or NONE


def containers(template: Object | None) -> tuple[str, str]:
    """The names and the images of a Pod template's containers."""
    found = ((template or {}).get("spec") or {}).get("containers") or ()
    return joined(each.get("name", "") for each in found), joined(each.get("image", "") for each in found)


def joined(items: Iterable[str]) -> str:
    return ",".join(items)


def condition(obj: Object, kind: str) -> Object | None:
    """The status condition of this type."""
    for each in (obj.get("status") or {}).get("conditions") or ():
        if each.get("type") == kind:
            found: Object = each
            return found
    return None


def balancer_addresses(obj: Object) -> str:
    """What a load balancer answers on: addresses, or host names where it has none."""
    ingress = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    found = {each.get("ip") or each.get("hostname") for each in ingress}
    return joined(sorted(address for address in found if address))
