"""Selectors of devices: what a DeviceClass or a request of a claim asks of a device's attributes and capacity."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from fastkube import cel
from fastkube.cel import cost
from fastkube.cel.errors import CompileError
from fastkube.cel.types import BOOL, DYN, STRING, Field, Type, map_of, object_type, opaque

COST_LIMIT = 1_000_000
"""What a selector may take for one device."""

_DOMAIN, _ID, _VALUE = replace(STRING, max_size=63), replace(STRING, max_size=32), replace(DYN, max_size=64)
_NAMES_MAX = 32  # of attributes and capacities of one device


def _qualified(values: Type) -> Type:
    """Domain → name → value."""
    names = replace(map_of(_ID, values), max_size=_NAMES_MAX)
    return replace(map_of(_DOMAIN, names), max_size=_NAMES_MAX)


_DEVICE = object_type(
    "DRADevice",
    {
        "driver": Field("driver", _DOMAIN),
        "allowMultipleAllocations": Field("allowMultipleAllocations", BOOL),
        "attributes": Field("attributes", _qualified(_VALUE)),
        "capacity": Field("capacity", _qualified(opaque("kubernetes.Quantity"))),
    },
)
_ENVIRONMENT = cel.Environment({"device": _DEVICE})


@lru_cache(4096)
def selector(expression: str) -> cel.Program:
    """The program of a selector, whose variable is `device`; raises CompileError."""
    return cel.compile(expression, _ENVIRONMENT)


def fault(expression: str) -> str | None:
    """Why the expression selects nothing; None if it is good."""
    try:
        program = selector(expression)
    except CompileError as error:
        return f"compilation failed: {error}"
    if program.type in (BOOL, DYN):
        return None
    return f"must evaluate to bool or the unknown type, not {program.type}"


def is_too_complex(expression: str) -> bool:
    """Whether a good expression may take more than it is allowed to, for the largest device there can be."""
    return cost.estimate(selector(expression).tree) > COST_LIMIT
