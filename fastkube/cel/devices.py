"""Selectors of devices: what a DeviceClass or a request of a claim asks of a device's attributes and capacity."""

from __future__ import annotations

from functools import lru_cache

from fastkube import cel
from fastkube.cel.errors import CompileError
from fastkube.cel.types import BOOL, DYN, STRING, Field, map_of, object_type, opaque

_DEVICE = object_type(
    "DRADevice",
    {
        "driver": Field("driver", STRING),
        "allowMultipleAllocations": Field("allowMultipleAllocations", BOOL),
        "attributes": Field("attributes", map_of(STRING, map_of(STRING, DYN))),
        "capacity": Field("capacity", map_of(STRING, map_of(STRING, opaque("kubernetes.Quantity")))),
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
