"""What admission policies of both kinds share: where they come from, which requests they are for, their parameters,
variables and cost budget.

A policy acts through its bindings only. For each binding that matches, and each parameter that the binding chooses,
its expressions are worked out once; together they may cost no more than upstream lets them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack

from fastkube.api import conversion, selectors
from fastkube.errors import ApiError
from fastkube.server.admission.matching import Conditions, Matcher
from fastkube.server.admission.plugin import DELETE, Identity, Plugin, operation_of
from fastkube.server.admission.requests import Attempt

if TYPE_CHECKING:
    from fastkube.cel import Program
    from fastkube.cel.environment import Environment
    from fastkube.registry.strategy import Call, Object
    from fastkube.server.admission.requests import Target
    from fastkube.server.admission.webhooks import Parts

_GROUP = "admissionregistration.k8s.io"
_BUDGET = 10_000_000
_OUT_OF_BUDGET = "validation failed due to running out of cost budget, no further validation rules will be run"


class Misconfigured(Exception):
    """A policy or binding that cannot be used; the text is upstream's."""


class Binding:
    """One binding of a policy."""

    def __init__(self, obj: Object, parts: Parts) -> None:
        spec = obj["spec"]
        self.name: str = obj["metadata"]["name"]
        self.actions: list[str] = spec.get("validationActions") or []
        self.param_ref: Object | None = spec.get("paramRef")
        resources = spec.get("matchResources")
        lookups = parts.lookups
        self._matcher = Matcher(resources, lookups.catalog, lookups.namespaces) if resources is not None else None

    def matches(self, attempt: Attempt) -> bool:
        return self._matcher is None or self._matcher.match(attempt) is not None


class Policy:
    """One policy with its bindings; its expressions are compiled when they are first needed."""

    def __init__(self, obj: Object, bindings: list[Binding], parts: Parts) -> None:
        self.spec: Object = obj["spec"]
        self.name: str = obj["metadata"]["name"]
        self.bindings = bindings
        self.is_lenient = self.spec["failurePolicy"] == "Ignore"
        self.matcher = Matcher(self.spec["matchConstraints"], parts.lookups.catalog, parts.lookups.namespaces)
        self._parts = parts

    @cached_property
    def conditions(self) -> Conditions | None:
        listed = self.spec.get("matchConditions")
        if not listed:
            return None
        from fastkube.cel.admission import match_condition

        has_params = self.spec.get("paramKind") is not None
        programs = [match_condition(each["expression"].strip(), has_params) for each in listed]
        return Conditions(programs, is_lenient=self.is_lenient)

    @cached_property
    def variables(self) -> dict[str, Program]:
        from fastkube.cel import admission

        made: dict[str, Program] = {}
        for variable in self.spec.get("variables") or ():
            env = self._environment(made)
            made[variable["name"]] = admission.compile_to(variable["expression"], env, admission.ANY)
        return made

    def environment(self, *, authorizer: bool = True, patches: bool = False) -> Environment:
        return self._environment(self.variables, authorizer=authorizer, patches=patches)

    def _environment(
        self, variables: Mapping[str, Program], *, authorizer: bool = True, patches: bool = False
    ) -> Environment:
        from fastkube.cel import admission

        return admission.environment(
            params=self.spec.get("paramKind") is not None,
            authorizer=authorizer,
            variables={name: program.type for name, program in variables.items()},
            patches=patches,
        )

    # ---------------------------------------------------------------- parameters

    def params(self, binding: Binding, namespace: str) -> list[Object | None]:
        """The objects that the policy is asked with: one None where it takes none. Raises Misconfigured."""
        kind, reference = self.spec.get("paramKind"), binding.param_ref
        if kind is None or reference is None:
            return [None]
        rtype = self._parts.lookups.catalog.by_kind(kind["apiVersion"], kind["kind"])
        if rtype is None:
            group, _, version = kind["apiVersion"].rpartition("/")
            told = f"{group}/{version}, Kind={kind['kind']}"
            raise Misconfigured(f"failed to find resource referenced by paramKind: '{told}'")
        where = reference.get("namespace") or ""
        if rtype.namespaced:
            where = where or namespace
            if not where:
                raise Misconfigured(
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                )
        elif where:
            raise Misconfigured("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
        found: list[Object | None] = [
            conversion.convert(rtype, obj, kind["apiVersion"]) for obj in self._chosen(rtype.key(where, ""), reference)
        ]
        if not found and reference.get("parameterNotFoundAction") == "Deny":
            raise Misconfigured("no params found for policy binding with `Deny` parameterNotFoundAction")
        return found

    def _chosen(self, prefix: bytes, reference: Object) -> Iterator[Object]:
        store = self._parts.lookups.store
        name = reference.get("name")
        if name:
            item = store.get(prefix + name.encode())
            items = [item] if item is not None else []
        else:
            items = store.range(prefix, prefix[:-1] + b"0").items
        chosen = selectors.from_object(reference.get("selector") or {})
        for item in items:
            obj: Object = msgpack.unpackb(item.value)
            if name or chosen.matches(obj["metadata"].get("labels") or {}):
                obj["metadata"]["resourceVersion"] = str(item.mod_revision)
                yield obj


class Evaluation:
    """The bindings of one request for one policy and parameter, and what is left of its budget."""

    def __init__(self, policy: Policy, known: Mapping[str, Any], param: Object | None) -> None:
        self.bindings: dict[str, Any] = {**known, "params": param}
        self.bindings["variables"] = _Variables(policy.variables, self)
        self._left = _BUDGET

    def holds(self, conditions: Conditions | None) -> bool:
        """Raises ConditionsFailed."""
        return conditions is None or conditions.hold(self.bindings)

    def run(self, program: Program) -> Any:
        """Raises EvalError, in upstream's words."""
        from fastkube.cel import PER_CALL_LIMIT, EvalError

        if self._left <= 0:
            raise EvalError(_OUT_OF_BUDGET)
        try:
            value, cost = program.run(self.bindings, min(PER_CALL_LIMIT, self._left))
        except EvalError as problem:
            raise EvalError(f"expression '{program.text}' resulted in error: {problem}") from None
        self._left -= cost
        return value

    def variable(self, name: str, program: Program) -> Any:
        from fastkube.cel import PER_CALL_LIMIT, EvalError

        try:
            value, cost = program.run(self.bindings, min(PER_CALL_LIMIT, self._left))
        except EvalError as problem:
            raise EvalError(f'composited variable "{name}" fails to evaluate: {problem}') from None
        self._left -= cost
        return value


class _Variables(dict[str, Any]):
    """Works out a variable when it is first asked for."""

    def __init__(self, programs: Mapping[str, Program], evaluation: Evaluation) -> None:
        super().__init__()
        self._programs = programs
        self._evaluation = evaluation

    def __missing__(self, name: str) -> Any:
        value = self[name] = self._evaluation.variable(name, self._programs[name])
        return value


class Case(NamedTuple):
    """A policy that a request matches through a binding, as what, and with which parameters."""

    policy: Policy
    binding: Binding
    target: Target
    params: list[Object | None]


class Failure(NamedTuple):
    """A policy (or binding) that cannot be used for a request."""

    policy: Policy
    binding: Binding | None
    message: str


class Policies(Plugin):
    """What both plugins share: their policies and bindings, and which of them a request matches."""

    resources = ("", "")
    """The resources of policies and bindings."""

    make: Callable[[Object, list[Binding], Parts], Policy] = Policy

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.on_change: Callable[[], None] = lambda: None
        self._policies: list[Policy] = []
        policies, bindings = self.resources
        self._mirrors = [parts.lookups.mirror(_GROUP, resource, self._changed) for resource in (policies, bindings)]
        self._reload()

    def _changed(self) -> None:
        if len(self._mirrors) == 2:
            self._reload()
            self.on_change()

    def _reload(self) -> None:
        policies, bindings = (mirror.sorted() for mirror in self._mirrors)
        by_policy: dict[str, list[Binding]] = {}
        for kept in bindings:
            made = Binding(kept.obj, self._parts)
            by_policy.setdefault(kept.obj["spec"]["policyName"], []).append(made)
        self._policies = [
            self.make(kept.obj, by_policy[kept.obj["metadata"]["name"]], self._parts)
            for kept in policies
            if kept.obj["metadata"]["name"] in by_policy
        ]

    def handles(self, target: Identity, operation: str) -> bool:
        return target[0] != _GROUP and any(each.matcher.may_match(target, operation) for each in self._policies)

    def attempt(self, call: Call, obj: Object | None, old: Object | None, *, is_early: bool) -> Attempt | None:
        operation = operation_of(call, obj, old)
        if operation == DELETE and not call.verb.startswith("delete"):
            return None  # an eviction, whose own object was checked
        return Attempt(call, operation, obj, old, self._parts.default, is_early=is_early)

    def cases(self, attempt: Attempt) -> Iterator[Case | Failure]:
        """By the names of policies and bindings."""
        for policy in self._policies:
            try:
                target = policy.matcher.match(attempt)
            except ApiError as problem:
                yield Failure(policy, None, f"failed to configure policy: {problem.message}")
                continue
            if target is not None:
                for binding in policy.bindings:
                    yield from self._case(policy, binding, target, attempt)

    def _case(self, policy: Policy, binding: Binding, target: Target, attempt: Attempt) -> Iterator[Case | Failure]:
        try:
            if binding.matches(attempt):
                namespace = "" if attempt.is_namespace else attempt.namespace
                yield Case(policy, binding, target, policy.params(binding, namespace))
        except (ApiError, Misconfigured) as problem:
            yield Failure(policy, binding, f"failed to configure binding: {problem}")

    def evaluation(self, case: Case, attempt: Attempt, param: Object | None) -> Evaluation:
        from fastkube.server.admission.activation import bindings

        known = bindings(attempt, case.target, self._parts.authorizer, self._parts.lookups.namespaces)
        return Evaluation(case.policy, known, param)
