"""MutatingAdmissionWebhook and ValidatingAdmissionWebhook: webhooks that decide on requests, or change their objects.

    matching (rules, selectors, conditions) → AdmissionReview → call → verdict: refuse, patch, warn

Mutating webhooks are asked one after the other, by the names of their configurations and their order there; each sees
what those before it made of the object. Validating ones are asked all at once. A webhook that cannot be asked refuses
the request, or is passed over, as its failurePolicy says. Deletions have no object that could be changed: both kinds
are asked in the validating phase.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from fastkube import errors
from fastkube.api import gojson
from fastkube.api import patch as patches
from fastkube.errors import ApiError
from fastkube.server.admission import reviews
from fastkube.server.admission.hook_client import HookError
from fastkube.server.admission.matching import Conditions, ConditionsFailed, Matcher
from fastkube.server.admission.plugin import DELETE, Identity, Plugin, operation_of
from fastkube.server.admission.requests import Attempt
from fastkube.server.admission.reviews import BadAnswer, Verdict
from fastkube.server.admission.rounds import DynamicMutator, Rounds
from fastkube.server.authz_webhook import settled

if TYPE_CHECKING:
    from fastkube.api.catalog import ResourceType
    from fastkube.registry.strategy import Call, Object
    from fastkube.server.admission.hook_client import HookClient
    from fastkube.server.admission.lookup import Lookups
    from fastkube.server.admission.measures import Measures
    from fastkube.server.admission.requests import Target
    from fastkube.server.authz import Authorizer

_GROUP = "admissionregistration.k8s.io"


class HookFailed(Exception):
    """A webhook could not be asked."""


class Parts(NamedTuple):
    """What webhooks and policies need of the server."""

    lookups: Lookups
    authorizer: Authorizer
    client: HookClient
    measures: Measures
    default: Callable[[ResourceType, Object], None]
    clock: Callable[[], float]


class Hook:
    """One webhook of a configuration, ready to be matched."""

    def __init__(self, configuration: str, told: Object, parts: Parts) -> None:
        self.name: str = told["name"]
        self.configuration = configuration
        self.uid = f"{configuration}/{self.name}"
        self.client_config: Object = told["clientConfig"]
        self.timeout_s: int = told["timeoutSeconds"]
        self.versions: list[str] = told["admissionReviewVersions"]
        self.is_lenient = told["failurePolicy"] == "Ignore"
        self.may_again = told.get("reinvocationPolicy") == "IfNeeded"
        self.matcher = Matcher({"rules": [], **told}, parts.lookups.catalog, parts.lookups.namespaces)
        self.conditions = self._conditions(told)

    def _conditions(self, told: Object) -> Conditions | None:
        listed = told.get("matchConditions")
        if not listed:
            return None
        from fastkube.cel.admission import match_condition

        programs = [match_condition(each["expression"].strip()) for each in listed]
        return Conditions(programs, is_lenient=self.is_lenient)


class _Hooks(Plugin):
    """What both plugins share: their webhooks, matching and calling."""

    kind = ""
    """How metrics name it: admit or validating."""

    resource = ""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.on_change: Callable[[], None] = lambda: None
        self._hooks: list[Hook] = []
        self._mirror = parts.lookups.mirror(_GROUP, self.resource, self._changed)
        self._reload()

    def _changed(self) -> None:
        self._reload()
        self._parts.client.forget()
        self.on_change()

    def _reload(self) -> None:
        self._hooks = [
            Hook(kept.obj["metadata"]["name"], told, self._parts)
            for kept in self._mirror.sorted()
            for told in kept.obj.get("webhooks") or ()
        ]

    def handles(self, target: Identity, operation: str) -> bool:
        return target[0] != _GROUP and any(hook.matcher.may_match(target, operation) for hook in self._hooks)

    def _attempt(self, call: Call, obj: Object | None, old: Object | None, *, is_early: bool) -> Attempt | None:
        operation = operation_of(call, obj, old)
        if operation == DELETE and not call.verb.startswith("delete"):
            return None  # an eviction, whose own object was reviewed
        return Attempt(call, operation, obj, old, self._parts.default, is_early=is_early)

    def _match(self, hook: Hook, attempt: Attempt) -> Target | None:
        """Raises 403 when a match condition fails, 404 when the namespace is not there."""
        target = hook.matcher.match(attempt)
        if target is None or hook.conditions is None:
            return target
        from fastkube.server.admission.activation import bindings

        parts, labels = self._parts, {"name": hook.name, "kind": "webhook", "type": self.kind}
        known = bindings(attempt, target, parts.authorizer, parts.lookups.namespaces)
        try:
            if hook.conditions.hold(known):
                return target
        except ConditionsFailed as problem:
            name = "apiserver_admission_match_condition_evaluation_errors_total"
            parts.measures.count(name, **labels, operation=attempt.operation)
            rtype = attempt.call.rtype
            raise errors.forbidden(rtype.group, rtype.resource, attempt.name, str(problem)) from None
        name = "apiserver_admission_match_condition_exclusions_total"
        parts.measures.count(name, **labels, operation=attempt.operation)
        return None

    async def _ask(self, hook: Hook, attempt: Attempt, target: Target, index: int) -> Verdict | None:
        """The verdict of a webhook; None when it failed and may be passed over. Raises the refusal."""
        review = reviews.make(attempt, target, hook.versions)
        started = self._parts.clock()
        try:
            verdict = await self._call(hook, review)
        except HookFailed as problem:
            self._observe(hook, attempt, started, 500 if not hook.is_lenient else 200, refused=not hook.is_lenient)
            if hook.is_lenient:
                self._passed_over(hook, attempt, index)
                return None
            self._refused(hook, attempt, "calling_webhook_error", 0)
            raise errors.internal(str(problem)) from None
        call = attempt.call
        call.warnings += verdict.warnings
        if call.annotations is not None:
            call.annotations |= {f"{hook.name}/{key}": value for key, value in verdict.annotations}
        if verdict.allowed:
            self._observe(hook, attempt, started, 200, refused=False)
            return verdict
        refusal = reviews.denial(hook.name, verdict.result)
        self._observe(hook, attempt, started, refusal.code, refused=True)
        self._refused(hook, attempt, "no_error", refusal.code)
        raise refusal

    async def _call(self, hook: Hook, review: Object) -> Verdict:
        """Raises HookFailed in upstream's words."""
        failed = f'failed calling webhook "{hook.name}"'
        try:
            answer = await self._parts.client.post(hook.client_config, review, hook.timeout_s)
            return reviews.read(review, answer, mutating=self.mutates)
        except HookError as problem:
            raise HookFailed(f"{failed}: failed to call webhook: {problem}") from None
        except BadAnswer as problem:
            raise HookFailed(f"{failed}: received invalid webhook response: {problem}") from None

    # ---------------------------------------------------------------- what is counted

    def _observe(self, hook: Hook, attempt: Attempt, started: float, code: int, *, refused: bool) -> None:
        labels = {"name": hook.name, "type": self.kind, "operation": attempt.operation}
        measures, told = self._parts.measures, "true" if refused else "false"
        measures.count("apiserver_admission_webhook_request_total", **labels, code=str(code), rejected=told)
        name = "apiserver_admission_webhook_admission_duration_seconds"
        measures.time(name, self._parts.clock() - started, **labels, rejected=told)

    def _refused(self, hook: Hook, attempt: Attempt, why: str, code: int) -> None:
        labels = {"name": hook.name, "type": self.kind, "operation": attempt.operation}
        name = "apiserver_admission_webhook_rejection_count"
        self._parts.measures.count(name, **labels, error_type=why, rejection_code=str(code))

    def _passed_over(self, hook: Hook, attempt: Attempt, index: int) -> None:
        self._parts.measures.count("apiserver_admission_webhook_fail_open_count", name=hook.name, type=self.kind)
        if attempt.call.annotations is not None:
            phase = "mutating" if self.mutates else "validating"
            key = f"failed-open.{phase}.webhook.admission.k8s.io/round_0_index_{index}"
            attempt.call.annotations[key] = hook.name


class MutatingWebhooks(_Hooks, DynamicMutator):
    name = "MutatingAdmissionWebhook"
    kind = "admit"
    resource = "mutatingwebhookconfigurations"
    mutates = True
    validates = True

    def mutate_in(self, call: Call, obj: Object | None, old: Object | None, rounds: Rounds) -> Awaitable[None] | None:
        attempt = self._attempt(call, obj, old, is_early=True) if obj is not None else None
        return self._run(attempt, rounds) if attempt is not None else None

    def validate(self, call: Call, obj: Any, old: Object | None) -> Awaitable[None] | None:
        """Only for deletions, of which the mutating phase knows nothing yet."""
        attempt = self._attempt(call, obj, old, is_early=False) if obj is None else None
        return self._run(attempt, Rounds()) if attempt is not None else None

    async def _run(self, attempt: Attempt, rounds: Rounds) -> None:
        state = rounds.of(self.name)
        state.begin(attempt.obj or {})
        for index, hook in enumerate(self._hooks):
            target = await settled(partial(self._match, hook, attempt))
            if target is None or not state.wants(hook.uid):
                continue
            verdict = await self._ask(hook, attempt, target, index)
            changed = verdict is not None and self._apply(hook, attempt, target, verdict)
            if attempt.call.annotations is not None:
                self._annotate(attempt.call.annotations, hook, index, changed, rounds)
            state.done(hook.uid, changed=changed, may_again=hook.may_again)
        state.end(attempt.obj or {})

    def _apply(self, hook: Hook, attempt: Attempt, target: Target, verdict: Verdict) -> bool:
        """Patches the object; True if that changed it. Raises 500 for a patch that cannot be applied."""
        if not verdict.patch:
            return False
        try:
            operations = orjson.loads(verdict.patch)
        except orjson.JSONDecodeError:
            told = f"received undecodable patch in webhook response: {gojson.fault(verdict.patch)}"
            raise errors.internal(f'failed calling webhook "{hook.name}": {told}') from None
        if not operations:
            return False
        if attempt.obj is None:
            told = "attempted to modify the object, which is not supported for this operation"
            raise errors.internal(f'admission webhook "{hook.name}" {told}')
        if verdict.patch_type != "JSONPatch":
            told = f'unsupported patch type "{verdict.patch_type}"'
            raise errors.internal(f'failed calling webhook "{hook.name}": {told}')
        shown, _ = attempt.shown(target.api_version)
        try:
            changed = patches.amend(patches.clone(shown), operations)
            return attempt.replace(target.api_version, changed)
        except ApiError as problem:
            raise errors.internal(problem.message) from None
        except (ValueError, patches.Misfit) as problem:
            raise errors.internal(str(problem)) from None

    @staticmethod
    def _annotate(annotations: dict[str, str], hook: Hook, index: int, changed: bool, rounds: Rounds) -> None:
        key = f"mutation.webhook.admission.k8s.io/round_{int(rounds.is_again)}_index_{index}"
        told = {"configuration": hook.configuration, "webhook": hook.name, "mutated": changed}
        annotations[key] = orjson.dumps(told).decode()


class ValidatingWebhooks(_Hooks):
    name = "ValidatingAdmissionWebhook"
    kind = "validating"
    resource = "validatingwebhookconfigurations"
    validates = True

    def validate(self, call: Call, obj: Any, old: Object | None) -> Awaitable[None] | None:
        attempt = self._attempt(call, obj, old, is_early=False)
        if attempt is None:
            return None
        matched = [(hook, self._match(hook, attempt), index) for index, hook in enumerate(self._hooks)]
        asked = [(hook, target, index) for hook, target, index in matched if target is not None]
        return self._run(attempt, asked) if asked else None

    async def _run(self, attempt: Attempt, asked: list[tuple[Hook, Target, int]]) -> None:
        """All at once; of several refusals the one that came first counts."""
        refusals: list[ApiError] = []

        async def ask(hook: Hook, target: Target, index: int) -> None:
            try:
                await self._ask(hook, attempt, target, index)
            except ApiError as refusal:
                refusals.append(refusal)

        await asyncio.gather(*(ask(*each) for each in asked))
        if refusals:
            raise refusals[0]
