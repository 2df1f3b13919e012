"""Expressions of admission: match conditions of webhooks, and everything in admission policies.

They see `object`, `oldObject` (null where there is none), `request`, `namespaceObject`, and, where the caller says so,
`params`, `authorizer` with `authorizer.requestResource`, the `variables` of the policy, and the types `Object` and
`JSONPatch` that mutations are made of. (Source: k8s.io/apiserver/pkg/admission/plugin/cel.)
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from fastkube import cel
from fastkube.cel import Program
from fastkube.cel.environment import Environment
from fastkube.cel.errors import CompileError
from fastkube.cel.types import (
    BOOL,
    DYN,
    INT,
    NULL,
    STRING,
    TIMESTAMP,
    Field,
    Type,
    list_of,
    map_of,
    object_type,
    opaque,
)

__all__ = [
    "ANY", "APPLY_CONFIGURATION", "BOOL", "JSON_PATCHES", "NULL", "STRING", "ExpressionError", "compile_to",
    "environment", "match_condition",
]  # fmt: skip


class ExpressionError(ValueError):
    """An expression that does not compile, or gives what it must not; the text is upstream's."""


def _struct(type_name: str, /, **fields: Type) -> Type:
    return object_type(type_name, {key: Field(key, kind) for key, kind in fields.items()})


_KIND = _struct("kubernetes.GroupVersionKind", group=STRING, version=STRING, kind=STRING)
_RESOURCE = _struct("kubernetes.GroupVersionResource", group=STRING, version=STRING, resource=STRING)
_USER = _struct(
    "kubernetes.UserInfo",
    username=STRING,
    uid=STRING,
    groups=list_of(STRING),
    extra=map_of(STRING, list_of(STRING)),
)
REQUEST = _struct(
    "kubernetes.AdmissionRequest",
    kind=_KIND,
    resource=_RESOURCE,
    subResource=STRING,
    requestKind=_KIND,
    requestResource=_RESOURCE,
    requestSubResource=STRING,
    name=STRING,
    namespace=STRING,
    operation=STRING,
    userInfo=_USER,
    dryRun=BOOL,
    options=DYN,
)
_METADATA = _struct(
    "kubernetes.NamespaceMetadata",
    name=STRING,
    generateName=STRING,
    namespace=STRING,
    labels=map_of(STRING, STRING),
    annotations=map_of(STRING, STRING),
    UID=STRING,
    creationTimestamp=TIMESTAMP,
    deletionGracePeriodSeconds=INT,
    deletionTimestamp=TIMESTAMP,
    generation=INT,
    resourceVersion=STRING,
    finalizers=list_of(STRING),
)
NAMESPACE = _struct(
    "kubernetes.Namespace",
    metadata=_METADATA,
    spec=_struct("kubernetes.NamespaceSpec", finalizers=list_of(STRING)),
    status=_struct("kubernetes.NamespaceStatus", phase=STRING),
)
_AUTHORIZER = {
    "authorizer": opaque("kubernetes.authorization.Authorizer"),
    "authorizer.requestResource": opaque("kubernetes.authorization.ResourceCheck"),
}

ANY = DYN
"""As the type that an expression must give: whatever it likes."""

APPLY_CONFIGURATION = Type("object", "Object", open=True)
_JSON_PATCH = object_type(
    "JSONPatch",
    {
        "op": Field("op", STRING),
        "path": Field("path", STRING),
        "from": Field("from", STRING),
        "value": Field("value", DYN),
    },
)
JSON_PATCHES = list_of(_JSON_PATCH)


def _patch_type(name: str) -> Type | None:
    if name == _JSON_PATCH.name:
        return _JSON_PATCH
    return Type("object", name, open=True) if name == "Object" or name.startswith("Object.") else None


def environment(
    *,
    params: bool = False,
    authorizer: bool = True,
    variables: Mapping[str, Type] | None = None,
    patches: bool = False,
    objects: Mapping[str, Type] | None = None,
) -> Environment:
    """`variables` are those of a policy by name; `objects` types what is known of object, oldObject and params."""
    declared: dict[str, Type] = {"object": DYN, "oldObject": DYN, "request": REQUEST, "namespaceObject": NAMESPACE}
    if params:
        declared["params"] = DYN
    if objects:
        declared |= {name: kind for name, kind in objects.items() if name in declared}
    if authorizer:
        declared |= _AUTHORIZER
    if variables is not None:
        declared["variables"] = object_type(
            "kubernetes.variables", {name: Field(name, kind) for name, kind in variables.items()}
        )
    return Environment(declared, _patch_type) if patches else Environment(declared)


def compile_to(text: str, env: Environment, *wanted: Type) -> Program:
    """The program of an expression that must give one of the types. Raises ExpressionError."""
    try:
        program = cel.compile(text, env)
    except CompileError as problem:
        raise ExpressionError(f"compilation failed: {problem}") from None
    if ANY in wanted or program.type in wanted:
        return program
    if len(wanted) == 1:
        raise ExpressionError(f"must evaluate to {wanted[0]} but got {program.type}")
    raise ExpressionError(f"must evaluate to one of [{' '.join(map(str, wanted))}] but got {program.type}")


@lru_cache(maxsize=1024)
def match_condition(text: str, params: bool = False) -> Program:
    """The program of a match condition. Raises ExpressionError."""
    return compile_to(text, environment(params=params), BOOL)
