"""MutatingAdmissionPolicy: policies that change objects, by applied configurations or JSON patches."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from fastkube import errors
from fastkube.api import patch as patches
from fastkube.api import typed
from fastkube.errors import ApiError
from fastkube.registry import decoding
from fastkube.server.admission.matching import ConditionsFailed
from fastkube.server.admission.plugin import forbid
from fastkube.server.admission.policies import Binding, Case, Evaluation, Failure, Policies, Policy
from fastkube.server.admission.rounds import DynamicMutator, Round, Rounds
from fastkube.server.authz_webhook import settled

if TYPE_CHECKING:
    from fastkube.api.schema import Schema
    from fastkube.cel import Program
    from fastkube.registry.strategy import Call, Object
    from fastkube.server.admission.requests import Attempt


class MutationFailed(Exception):
    """A mutation that cannot be made; the text is upstream's."""


class _Policy(Policy):
    @cached_property
    def mutations(self) -> list[tuple[str, Program]]:
        """Each with the type of its patch."""
        from fastkube.cel import admission

        env = self.environment(patches=True)
        made = []
        for told in self.spec["mutations"]:
            kind = told["patchType"]
            key, wanted = _PATCHES[kind], admission.JSON_PATCHES
            if kind == "ApplyConfiguration":
                wanted = admission.APPLY_CONFIGURATION
            made.append((kind, admission.compile_to(told[key]["expression"].strip(), env, wanted)))
        return made

    @property
    def may_again(self) -> bool:
        return bool(self.spec["reinvocationPolicy"] == "IfNeeded")


_PATCHES = {"JSONPatch": "jsonPatch", "ApplyConfiguration": "applyConfiguration"}


class MutatingPolicies(Policies, DynamicMutator):
    name = "MutatingAdmissionPolicy"
    resources = ("mutatingadmissionpolicies", "mutatingadmissionpolicybindings")
    make = _Policy
    mutates = True

    def mutate_in(self, call: Call, obj: Object | None, old: Object | None, rounds: Rounds) -> Awaitable[None] | None:
        attempt = self.attempt(call, obj, old, is_early=True) if obj is not None else None
        return self._run(attempt, rounds.of(self.name)) if attempt is not None else None

    async def _run(self, attempt: Attempt, state: Round) -> None:
        state.begin(attempt.obj or {})
        failures: list[Failure] = []
        for case in list(self.cases(attempt)):
            if isinstance(case, Failure):
                failures.append(case)
                continue
            for number, param in enumerate(case.params):
                uid = f"{case.policy.name}/{case.binding.name}/{number}"
                if state.wants(uid):
                    await self._mutate(case, attempt, param, state, uid, failures)
        state.end(attempt.obj or {})
        refused = [failure for failure in failures if not failure.policy.is_lenient]
        if refused:
            raise _refusal(attempt, refused)

    async def _mutate(
        self, case: Case, attempt: Attempt, param: Object | None, state: Round, uid: str, failures: list[Failure]
    ) -> None:
        """All mutations of a policy in turn; each sees what those before it made."""
        policy = case.policy
        assert isinstance(policy, _Policy)
        started = self._parts.clock()
        changed, problems = False, 0
        for kind, program in policy.mutations:
            evaluation = self.evaluation(case, attempt, param)
            try:
                if not await settled(partial(evaluation.holds, policy.conditions)):
                    return
                patch = await settled(partial(_evaluated, evaluation, program))
                changed |= _apply(attempt, case, kind, patch)
            except (ConditionsFailed, MutationFailed) as problem:
                failures.append(Failure(policy, case.binding, str(problem)))
                problems += 1
        self._count(policy, case.binding, problems, started)
        state.done(uid, changed=changed, may_again=policy.may_again)

    def _count(self, policy: Policy, binding: Binding, problems: int, started: float) -> None:
        labels = {
            "policy": policy.name,
            "policy_binding": binding.name,
            "error_type": "invalid_error" if problems else "no_error",
        }
        measures, name = self._parts.measures, "apiserver_mutating_admission_policy_check"
        measures.count(f"{name}_total", **labels)
        measures.time(f"{name}_duration_seconds", self._parts.clock() - started, **labels)


def _evaluated(evaluation: Evaluation, program: Program) -> Any:
    """Raises MutationFailed."""
    from fastkube.cel import EvalError

    try:
        return evaluation.run(program)
    except EvalError as problem:
        raise MutationFailed(str(problem)) from None


def _refusal(attempt: Attempt, failures: list[Failure]) -> ApiError:
    error = forbid(attempt.call, attempt.obj, "")
    texts = []
    for failure in failures:
        by = f"policy '{failure.policy.name}'"
        if failure.binding is not None:
            by += f" with binding '{failure.binding.name}'"
        texts.append(f"{by} denied request: {failure.message}")
    error.message, error.reason = texts[0], "Invalid"
    error.details = {**(error.details or {}), "causes": [{"message": text} for text in texts]}
    return error


# ---------------------------------------------------------------- patches


def _apply(attempt: Attempt, case: Case, kind: str, patch: Any) -> bool:
    """Changes the object; True if it is another one now. Raises MutationFailed."""
    version = case.target.api_version
    shown, _ = attempt.shown(version)
    assert shown is not None
    if kind == "JSONPatch":
        changed = _patched(shown, patch)
    else:
        target = case.target
        shape = decoding.schema_of(attempt.call.rtype, target.kind_group, target.kind_version, target.kind)
        changed = _configured(shown, patch, shape)
    if changed is None:
        return False
    try:
        return attempt.replace(version, changed, strict=kind == "JSONPatch")
    except ValueError as problem:
        if kind == "JSONPatch":
            raise errors.internal(str(problem)) from None  # whatever the policy says of failures
        raise MutationFailed(str(problem)) from None


def _patched(shown: Object, operations: list[Object]) -> Object | None:
    """The object after a JSON patch; None if a test in it fails, which is no error."""
    changed: Any = patches.clone(shown)
    for operation in operations:
        try:
            changed = patches.amend(changed, [_plain(operation)])
        except patches.Misfit as problem:
            if operation.get("op") == "test":
                return None
            raise MutationFailed(f"JSON Patch: {problem}") from None
    if not isinstance(changed, dict):
        raise MutationFailed("JSON Patch: the result is no object")
    return changed


def _configured(shown: Object, config: Object, shape: Schema) -> Object:
    """The object with a configuration laid over it; lists and maps that have one owner as a whole stay untouched."""
    _check_names(config, "Object")
    plain = _plain(config)
    atomic = sorted(_atomic(shape, plain, ""))
    if atomic:
        told = ", ".join(atomic)
        raise MutationFailed(f"invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {told}")
    plain |= {"apiVersion": shown["apiVersion"], "kind": shown["kind"]}
    try:
        made: Object = typed.merged(typed.type_of(shape), shown, plain)
    except ValueError as problem:
        raise MutationFailed(f"invalid ApplyConfiguration: {problem}") from None
    copied: Object = patches.clone(made)
    return copied


def _check_names(value: Any, path: str) -> None:
    """`Object.spec{}` belongs under `spec` and nowhere else."""
    name = getattr(value, "type_name", None)
    if name is not None and name != path:
        told = f'unexpected type name "{name}", expected "{path}", which matches field name path from root Object type'
        raise MutationFailed(f"type mismatch: {told}")
    if isinstance(value, dict):
        for key, part in value.items():
            _check_names(part, f"{path}.{key}")
    elif isinstance(value, list):
        for part in value:
            _check_names(part, path)


def _plain(value: Any) -> Any:
    """A value of CEL as JSON data."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value


def _atomic(shape: Schema | None, value: Any, path: str) -> set[str]:
    """The paths of what a configuration must not set, since it would replace it as a whole."""
    if shape is None:
        return set()
    if isinstance(value, dict):
        if path and shape.map_type == "atomic":
            return {path}
        parts = ((shape.field(key), part, f"{path}.{key}") for key, part in value.items())
    elif isinstance(value, list):
        if shape.type == "array" and shape.list_type in ("", "atomic"):
            return {path}
        parts = ((shape.items, part, path) for part in value)
    else:
        return set()
    return {found for inner, part, where in parts for found in _atomic(inner, part, where)}
