"""What expressions may name: functions, variables with their types, and types of objects that may be made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from fastkube.cel import amounts, authorizer, collections, formats, network, optionals, standard, strings, times, types
from fastkube.cel.functions import Overload
from fastkube.cel.types import Type

LIBRARIES = (
    standard.OVERLOADS,
    times.OVERLOADS,
    optionals.OVERLOADS,
    strings.OVERLOADS,
    collections.OVERLOADS,
    formats.OVERLOADS,
    network.OVERLOADS,
    amounts.OVERLOADS,
    authorizer.OVERLOADS,
)
"""Every library of Kubernetes 1.36's environment for CEL."""


@cache
def functions() -> dict[str, tuple[Overload, ...]]:
    """Every overload by its function's name."""
    found: dict[str, list[Overload]] = {}
    for library in LIBRARIES:
        for overload in library:
            found.setdefault(overload.function, []).append(overload)
    return {name: tuple(overloads) for name, overloads in found.items()}


@cache
def type_names() -> dict[str, Type]:
    """The names of types as identifiers."""
    plain = {
        each.kind: each
        for each in (types.BOOL, types.INT, types.UINT, types.DOUBLE, types.STRING, types.BYTES, types.NULL, types.DYN)
    }
    opaque = {
        kind.name: kind for name in functions() for each in functions()[name] for kind in each.params if kind.name
    }
    return {
        **plain,
        "list": types.list_of(types.DYN),
        "map": types.map_of(types.DYN, types.DYN),
        "type": types.type_of(types.DYN),
        "optional_type": types.optional_of(types.DYN),
        "google.protobuf.Timestamp": types.TIMESTAMP,
        "google.protobuf.Duration": types.DURATION,
        **{name: kind for name, kind in opaque.items() if kind.kind == "opaque"},
    }


class Environment:
    """The variables and object types of one kind of expression (a CRD's rules, an admission policy's).

    `find_type` answers for the names of objects that may be made: `Object{...}`, `JSONPatch{...}`.
    """

    def __init__(
        self, variables: Mapping[str, Type], find_type: Callable[[str], Type | None] = lambda name: None
    ) -> None:
        self.variables = dict(variables)
        self.find_type = find_type
        self.functions = functions()
        self.type_names = type_names()
