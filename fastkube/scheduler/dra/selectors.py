"""CEL selectors of devices: what a DeviceClass or a request asks of a device's attributes and capacity.

CEL is imported with the first device: most clusters have none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastkube import cel

Object = dict[str, Any]


class SelectorError(Exception):
    """A selector does not compile, or fails for a device."""


class _Domains(dict[str, Any]):
    """Domain → names; a domain that a device has nothing in is empty, not unknown."""

    def __missing__(self, key: str) -> Any:
        return {}


def compiled(expression: str) -> cel.Program:
    """Raises SelectorError."""
    from fastkube import cel
    from fastkube.cel.devices import selector

    try:
        return selector(expression)
    except cel.CompileError as error:
        raise SelectorError(f"CEL compile error: {expression}: {error}") from error


def variable(driver: str, device: Object) -> Object:
    """The variable `device` for a device of a ResourceSlice."""
    from fastkube.cel.amounts import parse_quantity

    attributes, capacity = _Domains(), _Domains()
    for name, told in (device.get("attributes") or {}).items():
        _put(attributes, driver, name, _attribute(told))
    for name, told in (device.get("capacity") or {}).items():
        _put(capacity, driver, name, parse_quantity(str(told.get("value", "0"))))
    several = bool(device.get("allowMultipleAllocations"))
    return {"driver": driver, "allowMultipleAllocations": several, "attributes": attributes, "capacity": capacity}


def _put(domains: _Domains, driver: str, name: str, value: Any) -> None:
    domain, slash, rest = name.rpartition("/")
    domains.setdefault(domain if slash else driver, {})[rest if slash else name] = value


def _attribute(told: Object) -> Any:
    if "version" in told:
        from fastkube.cel.amounts import parse_semver

        return parse_semver(told["version"])
    return next(iter(told.values()), None)


def matches(expression: str, device: Object) -> bool:
    """Whether a device (`variable`) is selected; raises SelectorError."""
    from fastkube import cel
    from fastkube.cel.devices import COST_LIMIT

    program = compiled(expression)
    try:
        return program.evaluate({"device": device}, COST_LIMIT) is True
    except (cel.EvalError, cel.CostError) as error:
        raise SelectorError(f"CEL runtime error: {error}") from error
