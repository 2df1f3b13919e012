"""What the type checker says of a ValidatingAdmissionPolicy: its expressions against the kinds that it is about.

Admission sees objects as dyn, so a misspelt field shows only when a request comes; here they have the types of their
schemas, and what does not fit is a warning in the policy's status. Rules, those of upstream
(k8s.io/apiserver/pkg/admission/plugin/policy/validating/typechecking.go):
  1. Kinds are looked up for the groups, versions and resources that a rule names. One with a wildcard among its groups
     or versions names none; so do resources with one, and subresources. A rule stands for ten kinds at most.
  2. Every validation's expression and messageExpression is checked with each of the kinds; what nobody knows is left
     out.
  3. A variable that does not compile is dyn to those after it: it is told by whoever validates the policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from fastkube import cel
from fastkube.api import openapi
from fastkube.api.catalog import Catalog, api_version, split_api_version
from fastkube.cel import admission
from fastkube.cel.declared import declared
from fastkube.cel.environment import Environment
from fastkube.cel.errors import CompileError
from fastkube.cel.types import DYN, Type

Object = dict[str, Any]

_TYPES_MAX = 10


class Kind(NamedTuple):
    """Sorted as upstream sorts them."""

    group: str
    version: str
    kind: str

    def __str__(self) -> str:
        return f"{self.group}/{self.version}, Kind={self.kind}"


def expression_warnings(policy: Object, catalog: Catalog, definitions: Iterable[Object]) -> list[Object]:
    """The `expressionWarnings` of a policy's status. `catalog` has the built-in kinds, `definitions` are the
    CustomResourceDefinitions there are."""
    known = _Known(catalog, definitions)
    spec = policy["spec"]
    param_kind = spec.get("paramKind")
    params = (
        known.type_of(Kind(*split_api_version(param_kind["apiVersion"]), param_kind["kind"])) if param_kind else None
    )
    checked = [
        (kind, _Checker(spec, found, params))
        for kind in known.kinds_of(spec.get("matchConstraints") or {})
        if (found := known.type_of(kind)) is not None
    ]
    warnings = []
    for number, validation in enumerate(spec.get("validations") or ()):
        for key in ("expression", "messageExpression"):
            text = validation.get(key)
            told = [f"{kind}: {fault}\n" for kind, checker in checked if text and (fault := checker.fault(text))]
            if told:
                path = f"spec.validations[{number}].{key}"
                warnings.append({"fieldRef": path, "warning": "\n".join(told)})
    return warnings


class _Checker:
    """The environment of a policy's expressions where `object` is of one kind."""

    def __init__(self, spec: Object, kind: Type, params: Type | None) -> None:
        self._params = spec.get("paramKind") is not None
        self._objects = {"object": kind, "oldObject": kind, "params": params or DYN}
        self._variables: dict[str, Type] = {}
        for variable in spec.get("variables") or ():
            try:
                found = cel.compile(variable["expression"], self._environment()).type
            except CompileError:
                found = DYN
            self._variables[variable["name"]] = found

    def _environment(self) -> Environment:
        env = admission.environment(params=self._params, variables=self._variables, objects=self._objects)
        del env.variables["authorizer.requestResource"]  # upstream's checker does not know it
        return env

    def fault(self, text: str) -> str:
        """Why an expression does not compile; "" for one that does."""
        try:
            cel.compile(text, self._environment())
        except CompileError as problem:
            return str(problem)
        return ""


# ---------------------------------------------------------------- kinds and their types


class _Known:
    """The kinds of the server, by resource, and the types of their objects."""

    def __init__(self, catalog: Catalog, definitions: Iterable[Object]) -> None:
        self._catalog = catalog
        self._custom_kinds: dict[tuple[str, str, str], Kind] = {}
        self._custom_schemas: dict[Kind, Object] = {}
        for definition in definitions:
            spec = definition["spec"]
            names, group = spec["names"], spec["group"]
            for version in spec["versions"]:
                if version["served"]:
                    kind = Kind(group, version["name"], names["kind"])
                    for resource in (names["plural"], names.get("singular") or names["kind"].lower()):
                        self._custom_kinds[group, version["name"], resource] = kind
                    self._custom_schemas[kind] = (version.get("schema") or {}).get("openAPIV3Schema") or {}

    def kinds_of(self, constraints: Mapping[str, Any]) -> list[Kind]:
        found: set[Kind] = set()
        for rule in constraints.get("resourceRules") or ():
            count = 0
            for named in _named(rule):
                kind = self._kind(*named)
                if kind is not None:
                    found.add(kind)
                    count += 1
                    if count == _TYPES_MAX:
                        return sorted(found)
        return sorted(found)

    def _kind(self, group: str, version: str, resource: str) -> Kind | None:
        rtype = self._catalog.lookup(group, version, resource)
        if rtype is not None and not rtype.custom:
            return Kind(group, version, rtype.kind)
        return self._custom_kinds.get((group, version, resource))

    def type_of(self, kind: Kind) -> Type | None:
        schema = self._custom_schemas.get(kind)
        if schema is not None:
            return declared(openapi.with_meta(schema), name=kind.kind)
        return _builtin_type(api_version(kind.group, kind.version), kind.kind)


def _named(rule: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    groups, versions = sorted(rule.get("apiGroups") or ()), sorted(rule.get("apiVersions") or ())
    if any("*" in each for each in (*groups, *versions)):
        return []
    resources = sorted(each for each in rule.get("resources") or () if "*" not in each and "/" not in each)
    return [(group, version, resource) for group in groups for version in versions for resource in resources]


@lru_cache(maxsize=64)
def _builtin_type(version: str, kind: str) -> Type | None:
    schema = openapi.resolved(version, kind)
    return declared(schema, name=kind) if schema is not None else None
