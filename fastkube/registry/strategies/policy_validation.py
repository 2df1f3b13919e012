"""Validation of the specs of admission policies, whose expressions are compiled (upstream:
pkg/apis/admissionregistration/validation). It is loaded with the first policy, since CEL takes a while to load."""

from __future__ import annotations

import re

from fastkube.api import field
from fastkube.api.names import dns1035_label, dns1123_subdomain
from fastkube.cel import admission
from fastkube.cel.admission import ExpressionError
from fastkube.cel.types import DYN, Type
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.admission_matching import (
    FAILURE_POLICIES,
    REINVOCATION_POLICIES,
    match_conditions,
    match_resources,
)
from fastkube.registry.strategies.checks import Errors, Object

_MUTATED = ("*", "CONNECT", "CREATE", "UPDATE")
_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge")
_PATCH_TYPES = ("ApplyConfiguration", "JSONPatch")
_ANNOTATIONS_MAX, _ANNOTATION_EXPRESSION_MAX = 20, 5 * 1024
_NOTHING_CHECKED = "validations or auditAnnotations must contain at least one item"
_is_identifier = re.compile("[_a-zA-Z][_a-zA-Z0-9]*", re.ASCII).fullmatch
_RESERVED = frozenset((
    "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let",
    "loop", "package", "namespace", "return", "var", "void", "while",
))  # fmt: skip


def validating_policy(errs: Errors, obj: Object, *, check_conditions: bool) -> None:
    spec = obj["spec"]
    _common(errs, spec, check_conditions, mutating=False)
    expressions = _Expressions(spec)
    expressions.variables(errs, "spec.variables", spec.get("variables") or [])
    validations, annotations = spec.get("validations") or [], spec.get("auditAnnotations") or []
    if not validations and not annotations:
        errs.append(field.required("spec.validations", _NOTHING_CHECKED))
        errs.append(field.required("spec.auditAnnotations", _NOTHING_CHECKED))
    for number, validation in enumerate(validations):
        _validation(errs, f"spec.validations[{number}]", validation, expressions)
    _audit_annotations(errs, "spec.auditAnnotations", annotations, obj["metadata"].get("name") or "", expressions)


def mutating_policy(errs: Errors, obj: Object, *, check_conditions: bool) -> None:
    spec = obj["spec"]
    _common(errs, spec, check_conditions, mutating=True)
    expressions = _Expressions({"variables": [{}], **spec})
    expressions.variables(errs, "spec.variables", spec.get("variables") or [])
    mutations = spec.get("mutations") or []
    if not mutations:
        errs.append(field.required("spec.mutations", "mutations must contain at least one item"))
    for number, mutation in enumerate(mutations):
        _mutation(errs, f"spec.mutations[{number}]", mutation, expressions)
    policy = spec.get("reinvocationPolicy") or ""
    checks.one_of_required(errs, "spec.reinvocationPolicy", policy, REINVOCATION_POLICIES)


def _common(errs: Errors, spec: Object, check_conditions: bool, *, mutating: bool) -> None:
    checks.one_of(errs, "spec.failurePolicy", spec["failurePolicy"], FAILURE_POLICIES)
    kind = spec.get("paramKind")
    if kind is not None:
        _param_kind(errs, "spec.paramKind", kind)
    _constraints(errs, "spec.matchConstraints", spec.get("matchConstraints"), mutating)
    if check_conditions:
        match_conditions(errs, "spec.matchConditions", spec.get("matchConditions"), params=kind is not None)


def _constraints(errs: Errors, path: str, constraints: Object | None, mutating: bool) -> None:
    if constraints is None:
        errs.append(field.required(path))
        return
    match_resources(errs, path, constraints)
    rules = constraints.get("resourceRules") or []
    if not rules:
        errs.append(field.required(f"{path}.resourceRules"))
    for rule in rules if mutating else ():
        for operation in rule.get("operations") or ():
            checks.one_of(errs, f"{path}.resourceRules.operations", operation, _MUTATED)


def _param_kind(errs: Errors, path: str, kind: Object) -> None:
    version, name = kind.get("apiVersion") or "", kind.get("kind") or ""
    if not version:
        errs.append(field.required(f"{path}.apiVersion"))
    elif version.count("/") > 1:
        errs.append(field.invalid(f"{path}.apiVersion", version, f"unexpected GroupVersion string: {version}"))
    else:
        _group_version(errs, f"{path}.apiVersion", version)
    if not name:
        errs.append(field.required(f"{path}.kind"))
    elif faults := dns1035_label(name.lower()):
        problem = f"may have mixed case, but should otherwise match: {','.join(faults)}"
        errs.append(field.invalid(f"{path}.kind", name, problem))


def _group_version(errs: Errors, path: str, told: str) -> None:
    group, _, version = told.rpartition("/")
    if group and (faults := dns1123_subdomain(group)):
        errs.append(field.invalid(path, group, ",".join(faults)))
    if not version:
        errs.append(field.invalid(path, told, "version must be specified"))
    elif faults := dns1035_label(version):
        errs.append(field.invalid(path, version, ",".join(faults)))


# ---------------------------------------------------------------- expressions


class _Expressions:
    """The expressions of one policy, which may use the variables that were declared before them."""

    def __init__(self, spec: Object) -> None:
        self._params = spec.get("paramKind") is not None
        self._variables: dict[str, Type] | None = {} if spec.get("variables") else None

    def check(
        self, errs: Errors, path: str, text: str, *wanted: Type, authorizer: bool = True, patches: bool = False
    ) -> Type:
        """Complains about an expression that does not compile to one of the types; the type that it has."""
        env = admission.environment(
            params=self._params, authorizer=authorizer, variables=self._variables, patches=patches
        )
        try:
            return admission.compile_to(text, env, *wanted).type
        except ExpressionError as problem:
            errs.append(field.invalid(path, text, str(problem)))
            return DYN

    def variables(self, errs: Errors, path: str, variables: list[Object]) -> None:
        for number, variable in enumerate(variables):
            name, expression = variable.get("name") or "", variable.get("expression") or ""
            at = f"{path}[{number}]"
            if not name.strip():
                errs.append(field.required(f"{at}.name", "name is not specified"))
            elif not _is_identifier(name) or name in _RESERVED:
                errs.append(field.invalid(f"{at}.name", name, "must be a valid CEL identifier"))
            if not expression.strip():
                errs.append(field.required(f"{at}.expression", "expression is not specified"))
                continue
            kind = self.check(errs, f"{at}.expression", expression, admission.ANY)
            if self._variables is not None:
                self._variables[name] = kind


# ---------------------------------------------------------------- what a policy does


def _validation(errs: Errors, path: str, validation: Object, expressions: _Expressions) -> None:
    expression, told = validation.get("expression") or "", validation.get("messageExpression") or ""
    if not expression.strip():
        errs.append(field.required(f"{path}.expression", "expression is not specified"))
    else:
        expressions.check(errs, f"{path}.expression", expression, admission.BOOL)
    if told.strip():
        expressions.check(errs, f"{path}.messageExpression", told, admission.STRING, authorizer=False)
    elif told:
        errs.append(field.invalid(f"{path}.messageExpression", told, "must be non-empty if specified"))
    message = validation.get("message") or ""
    if message and not message.strip():
        errs.append(field.invalid(f"{path}.message", message, "must be non-empty if specified"))
    elif "\n" in message.strip() or "\r" in message.strip():
        errs.append(field.invalid(f"{path}.message", message, "must not contain line breaks"))
    if validation.get("reason") is not None:
        checks.one_of(errs, f"{path}.reason", validation["reason"], _REASONS)


def _audit_annotations(
    errs: Errors, path: str, annotations: list[Object], name: str, expressions: _Expressions
) -> None:
    if len(annotations) > _ANNOTATIONS_MAX:
        shown = field.struct(
            [{"Key": each.get("key"), "ValueExpression": each.get("valueExpression")} for each in annotations]
        )
        errs.append(field.invalid(path, shown, f"must not have more than {_ANNOTATIONS_MAX} auditAnnotations"))
    seen: set[str] = set()
    for number, annotation in enumerate(annotations):
        at, key = f"{path}[{number}]", annotation.get("key") or ""
        if name:
            checks.qualified(errs, f"{at}.key", f"{name}/{key}")
        else:
            errs.append(field.invalid(f"{at}.key", key, "requires metadata.name be non-empty"))
        expression = (annotation.get("valueExpression") or "").strip()
        if not expression:
            errs.append(field.required(f"{at}.valueExpression", "valueExpression is not specified"))
        elif len(expression.encode()) > _ANNOTATION_EXPRESSION_MAX:
            problem = f"must not exceed {_ANNOTATION_EXPRESSION_MAX} bytes in length"
            errs.append(field.required(f"{at}.valueExpression", problem))
        else:
            expressions.check(errs, f"{at}.valueExpression", expression, admission.STRING, admission.NULL)
        if key in seen:
            errs.append(field.duplicate(f"{at}.key", key))
        seen.add(key)


_PATCHES = {
    "JSONPatch": ("jsonPatch", admission.JSON_PATCHES),
    "ApplyConfiguration": ("applyConfiguration", admission.APPLY_CONFIGURATION),
}


def _mutation(errs: Errors, path: str, mutation: Object, expressions: _Expressions) -> None:
    kind = mutation.get("patchType") or ""
    if kind not in _PATCHES:
        checks.one_of_required(errs, f"{path}.patchType", kind, _PATCH_TYPES)
        return
    key, wanted = _PATCHES[kind]
    patch = mutation.get(key)
    if patch is None:
        errs.append(field.required(f"{path}.{key}", f"must be specified when patchType is {kind}"))
    else:
        text = (patch.get("expression") or "").strip()
        if text:
            expressions.check(errs, f"{path}.{key}.expression", text, wanted, patches=True)
        else:
            errs.append(field.required(f"{path}.{key}.expression"))
    for other, _ in _PATCHES.values():
        if other != key and mutation.get(other) is not None:
            problem = f"must not be specified when patchType is {kind}"
            errs.append(field.invalid(f"{path}.{other}", f"{{{other}}}", problem))
