"""ValidatingAdmissionPolicy: policies that refuse requests, warn of them, or note them in the audit log."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from fastkube.server.admission.matching import ConditionsFailed
from fastkube.server.admission.plugin import forbid
from fastkube.server.admission.policies import Binding, Case, Evaluation, Failure, Policies, Policy

if TYPE_CHECKING:
    from fastkube.cel import Program
    from fastkube.errors import ApiError
    from fastkube.registry.strategy import Call, Object
    from fastkube.server.admission.requests import Attempt

_CODES = {"Forbidden": 403, "RequestEntityTooLarge": 413, "Invalid": 422}
_MESSAGE_BYTES_MAX = 5 * 1024
_ANNOTATION_BYTES_MAX = 10 * 1024
_FAILURE_KEY = "validation.policy.admission.k8s.io/validation_failure"


class _Check(NamedTuple):
    """One validation of a policy, compiled."""

    told: Object
    program: Program
    message: Program | None


class _Policy(Policy):
    @cached_property
    def checks(self) -> list[_Check]:
        from fastkube.cel import admission

        env, quiet = self.environment(), self.environment(authorizer=False)
        made = []
        for told in self.spec.get("validations") or ():
            text = (told.get("messageExpression") or "").strip()
            message = admission.compile_to(told["messageExpression"], quiet, admission.STRING) if text else None
            made.append(_Check(told, admission.compile_to(told["expression"], env, admission.BOOL), message))
        return made

    @cached_property
    def annotations(self) -> list[tuple[str, Program]]:
        from fastkube.cel import admission

        env = self.environment()
        return [
            (each["key"], admission.compile_to(each["valueExpression"].strip(), env, admission.STRING, admission.NULL))
            for each in self.spec.get("auditAnnotations") or ()
        ]


class _Denial(NamedTuple):
    """One failed check. `is_error`: it failed because it could not be worked out."""

    policy: Policy
    binding: Binding | None
    message: str
    reason: str = "Invalid"
    number: int = 0
    is_error: bool = False

    @property
    def text(self) -> str:
        by = f" with binding '{self.binding.name}'" if self.binding is not None else ""
        return f"ValidatingAdmissionPolicy '{self.policy.name}'{by} denied request: {self.message}"


class ValidatingPolicies(Policies):
    name = "ValidatingAdmissionPolicy"
    resources = ("validatingadmissionpolicies", "validatingadmissionpolicybindings")
    make = _Policy
    validates = True

    def validate(self, call: Call, obj: Any, old: Object | None) -> None:
        attempt = self.attempt(call, obj, old, is_early=False)
        if attempt is None:
            return
        denials: list[_Denial] = []
        effects = _Effects()
        for case in self.cases(attempt):
            if isinstance(case, Failure):
                if not case.policy.is_lenient:
                    denials.append(_Denial(case.policy, case.binding, case.message, is_error=True))
                continue
            for param in case.params:
                self._decide(case, self.evaluation(case, attempt, param), effects, denials)
        effects.publish(call)
        if denials:
            raise self._refusal(attempt, denials[0])

    def _decide(self, case: Case, evaluation: Evaluation, effects: _Effects, denials: list[_Denial]) -> None:
        started = self._parts.clock()
        policy, binding = case.policy, case.binding
        assert isinstance(policy, _Policy)
        failed: list[_Denial] = []
        try:
            if not evaluation.holds(policy.conditions):
                return
            failed = [
                found for index, check in enumerate(policy.checks) for found in _failed(case, check, index, evaluation)
            ]
            refused = _annotate(case, policy, evaluation, effects)
        except ConditionsFailed as problem:
            failed, refused = [_Denial(policy, binding, str(problem), is_error=True)], []
        for denial in failed:
            self._act(denial, binding, effects, denials)
        denials += refused
        if not failed:
            self._count(policy, binding, "no_error", "allow", started)
        for denial in failed:
            kind = "invalid_error" if denial.is_error else "no_error"
            for action in binding.actions:
                self._count(policy, binding, kind, action.lower(), started)

    def _act(self, denial: _Denial, binding: Binding, effects: _Effects, denials: list[_Denial]) -> None:
        if "Deny" in binding.actions:
            denials.append(denial)
        if "Audit" in binding.actions:
            effects.failures.append(
                {
                    "message": denial.message,
                    "policy": denial.policy.name,
                    "binding": binding.name,
                    "expressionIndex": denial.number,
                    "validationActions": binding.actions,
                }
            )
        if "Warn" in binding.actions:
            where = f"ValidatingAdmissionPolicy '{denial.policy.name}' with binding '{binding.name}'"
            effects.warnings.append(f"Validation failed for {where}: {denial.message}")

    def _count(self, policy: Policy, binding: Binding, error: str, action: str, started: float) -> None:
        labels = {
            "policy": policy.name,
            "policy_binding": binding.name,
            "error_type": error,
            "enforcement_action": action,
        }
        measures, name = self._parts.measures, "apiserver_validating_admission_policy_check"
        measures.count(f"{name}_total", **labels)
        measures.time(f"{name}_duration_seconds", self._parts.clock() - started, **labels)

    @staticmethod
    def _refusal(attempt: Attempt, denial: _Denial) -> ApiError:
        error = forbid(attempt.call, attempt.obj, denial.text)
        error.reason = denial.reason
        error.code = _CODES.get(denial.reason, 422)
        error.details = {**(error.details or {}), "causes": [{"message": denial.text}]}
        return error


class _Effects:
    """What a request leaves behind whether it is refused or not; it is published once all is decided."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.failures: list[Object] = []
        self.annotations: dict[str, list[str]] = {}

    def annotate(self, key: str, value: str) -> None:
        values = self.annotations.setdefault(key, [])
        if value not in values:
            values.append(value)

    def publish(self, call: Call) -> None:
        call.warnings += self.warnings
        if call.annotations is None:
            return
        if self.failures:
            call.annotations[_FAILURE_KEY] = orjson.dumps(self.failures).decode()
        call.annotations |= {key: ", ".join(values) for key, values in self.annotations.items()}


def _failed(case: Case, check: _Check, index: int, evaluation: Evaluation) -> list[_Denial]:
    """The failure of a check, if it fails; one that cannot be worked out fails as the policy says."""
    from fastkube.cel import EvalError

    try:
        if evaluation.run(check.program) is True:
            return []
    except EvalError as problem:
        if case.policy.is_lenient:
            return []
        return [_Denial(case.policy, case.binding, str(problem), number=index, is_error=True)]
    reason = check.told.get("reason") or "Invalid"
    return [_Denial(case.policy, case.binding, _message(check, evaluation), reason, index)]


def _message(check: _Check, evaluation: Evaluation) -> str:
    """What its messageExpression gives, else its message, else the expression."""
    from fastkube.cel import EvalError

    message: Any = ""
    if check.message is not None:
        try:
            message = evaluation.run(check.message)
        except EvalError:
            message = ""
    message = message.strip() if isinstance(message, str) else ""
    if "\n" in message or len(message.encode()) > _MESSAGE_BYTES_MAX:
        message = ""
    fallback = (check.told.get("message") or "").strip()
    return message or fallback or f"failed expression: {check.told['expression'].strip()}"


def _annotate(case: Case, policy: _Policy, evaluation: Evaluation, effects: _Effects) -> list[_Denial]:
    """Works out the audit annotations; the failures of those that cannot be."""
    from fastkube.cel import EvalError

    failed = []
    for key, program in policy.annotations:
        try:
            value = evaluation.run(program)
        except EvalError as problem:
            if not policy.is_lenient:
                failed.append(_Denial(policy, case.binding, str(problem), is_error=True))
            continue
        text = value.strip() if isinstance(value, str) else ""
        if text:
            effects.annotate(f"{policy.name}/{key}", text.encode()[:_ANNOTATION_BYTES_MAX].decode(errors="ignore"))
    return failed
