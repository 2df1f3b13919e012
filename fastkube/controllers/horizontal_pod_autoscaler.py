"""HorizontalPodAutoscalers: the replicas of a target follow its metrics.

An attempt reads the scale of the target, then the metrics, and takes the largest number that any metric asks for; what
comes out is stabilised, limited, and written to the scale. Metrics that fail never scale down. Conditions say where an
attempt got to. Metrics: autoscaling_metrics; numbers: autoscaling_replicas; rates: autoscaling_behavior.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fastkube.api import selectors
from fastkube.api.selectors import LabelSelector
from fastkube.client import object_key
from fastkube.client.discovery import Discovery
from fastkube.client.resource import Resource, object_path
from fastkube.clock import rfc3339
from fastkube.controllers.actions import (
    GONE,
    Action,
    Ask,
    Discover,
    Remember,
    Requeue,
    Tell,
    Update,
    status_update,
)
from fastkube.controllers.autoscaling_behavior import Limits, Memory, Recommendation, limit, remember, stabilize
from fastkube.controllers.autoscaling_replicas import Timing
from fastkube.controllers.autoscaling_sources import Measure, Measured, Uncomputable, measure, paths_of
from fastkube.controllers.common import PODS, Object, Objects, condition, set_condition
from fastkube.controllers.options import ControllerManagerOptions
from fastkube.controllers.runner import Context, Controller, Watch, nothing
from fastkube.errors import ApiError

AUTOSCALERS = "autoscaling/v2/horizontalpodautoscalers"


class Past(NamedTuple):
    """What is remembered of an autoscaler between attempts."""

    memory: Memory = Memory()
    selector: str = ""
    """Of its target, as last seen."""


class View(NamedTuple):
    autoscaler: Object
    pods: Objects
    """All of the namespace."""
    past: Past
    others: dict[str, str]
    """The selectors of the other autoscalers in the namespace, by name."""
    discovery: Discovery
    options: ControllerManagerOptions
    now: float
    live: dict[str, Any] = {}  # noqa: RUF012 - never changed, only replaced


def view(context: Context, key: str) -> View | None:
    caches = context.caches
    autoscaler = caches.by_key(AUTOSCALERS, key)
    if autoscaler is None:
        return None
    namespace = autoscaler["metadata"]["namespace"]
    pods = caches.index(PODS, "namespace", namespace)
    past = context.memory.get(key) or Past()
    others = {}
    for other in caches.index(AUTOSCALERS, "namespace", namespace):
        known = context.memory.get(object_key(other))
        if other is not autoscaler and known is not None and known.selector:
            others[other["metadata"]["name"]] = known.selector
    return View(autoscaler, pods, past, others, context.facts.discovery, context.options, context.now)


def reconcile(view: View) -> Sequence[Action]:
    discovery = view.live.get(Discover.KEY) or view.discovery
    target = view.autoscaler["spec"]["scaleTargetRef"]
    found = discovery.by_kind(target.get("apiVersion") or "v1", target["kind"])
    if found is None and Discover.KEY not in view.live:
        return [Discover()]
    draft = _Draft(view)
    if found is None:
        version = target.get("apiVersion") or "v1"
        why = f'no matches for kind "{target["kind"]}" in version "{version}"'
        return draft.no_scale(f"unable to determine resource for scale target reference: {why}")
    path = object_path(found.resource, view.autoscaler["metadata"]["namespace"], target["name"], "scale")
    if path not in view.live:
        return [Ask(path, tolerant=True)]
    scale = view.live[path]
    if isinstance(scale, ApiError):
        return draft.no_scale(scale.message)
    return draft.decide(scale, found.resource, discovery)


class _Draft:
    """One attempt: conditions and events as they come up, and the status in the end."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._autoscaler = view.autoscaler
        self._spec: Object = view.autoscaler["spec"]
        self._conditions: Objects = list((view.autoscaler.get("status") or {}).get("conditions") or ())
        self._told: list[Action] = []
        self._again = Requeue(view.options.horizontal_pod_autoscaler_sync_period_s)

    def no_scale(self, why: str) -> Sequence[Action]:
        self._tell("Warning", "FailedGetScale", why)
        message = f"the HPA controller was unable to get the target's current scale: {why}"
        self._set("AbleToScale", "False", "FailedGetScale", message)
        status = {**(self._autoscaler.get("status") or {}), "conditions": self._conditions}
        return [*self._told, *self._write(status), self._again]

    def decide(self, scale: Object, resource: Resource, discovery: Discovery) -> Sequence[Action]:
        current = int((scale.get("spec") or {}).get("replicas") or 0)
        self._set(
            "AbleToScale",
            "True",
            "SucceededGetScale",
            "the HPA controller was able to get the target's current scale",
        )
        past = self._view.past
        if not past.memory.recommendations:
            past = past._replace(memory=Memory((Recommendation(self._view.now, current),)))
        limits = self._limits(current)
        if current == 0 and limits.least != 0:
            message = "scaling is disabled since the replica count of the target is zero"
            self._set("ScalingActive", "False", "ScalingDisabled", message)
            return self._finish(past, current, current, [])
        if current > limits.most:
            why = "Current number of replicas above Spec.MaxReplicas"
            return self._scale(scale, resource, past, limits, limits.most, None, why, [])
        if current < limits.least:
            why = "Current number of replicas below Spec.MinReplicas"
            return self._scale(scale, resource, past, limits, limits.least, None, why, [])
        return self._by_metrics(scale, resource, past, limits, discovery)

    def _limits(self, current: int) -> Limits:
        least = self._spec.get("minReplicas")
        window_s = self._view.options.horizontal_pod_autoscaler_downscale_stabilization_s
        return Limits(
            current, 1 if least is None else int(least), int(self._spec["maxReplicas"]), self._view.now, window_s
        )

    # -- metrics ------------------------------------------------------------------------------------------------------

    def _by_metrics(
        self, scale: Object, resource: Resource, past: Past, limits: Limits, discovery: Discovery
    ) -> Sequence[Action]:
        text = str((scale.get("status") or {}).get("selector") or "")
        past = past._replace(selector=text)
        selector = self._selector(text)
        if isinstance(selector, str):
            return self._give_up(past, limits.current, [], selector)
        namespace = self._autoscaler["metadata"]["namespace"]
        specs: Objects = self._spec.get("metrics") or []
        wanted = [path for spec in specs for path in paths_of(spec, namespace, text, discovery)]
        missing = [path for path in dict.fromkeys(wanted) if path not in self._view.live]
        if missing:
            return [Ask(path, tolerant=True) for path in missing]
        pods = [pod for pod in self._view.pods if selector.matches(pod["metadata"].get("labels"))]
        options = self._view.options
        basis = Measure(
            namespace=namespace,
            selector=text,
            pods=pods,
            replicas=limits.current,
            observed=int((scale.get("status") or {}).get("replicas") or 0),
            behavior=self._spec.get("behavior") or {},
            tolerance=options.horizontal_pod_autoscaler_tolerance,
            timing=Timing(
                self._view.now,
                options.horizontal_pod_autoscaler_cpu_initialization_period_s,
                options.horizontal_pod_autoscaler_initial_readiness_delay_s,
            ),
            discovery=discovery,
            answers=self._view.live,
        )
        return self._combine(scale, resource, past, limits, [self._measure(basis, spec) for spec in specs])

    def _selector(self, text: str) -> LabelSelector | str:
        """The selector of the target's Pods, or why there is none to be used."""
        if not text:
            self._tell("Warning", "SelectorRequired", "selector is required")
            self._inactive("InvalidSelector", "the HPA target's scale is missing a selector")
            return "selector is required"
        try:
            selector = selectors.parse_label_selector(text)
        except ApiError as error:
            why = f"couldn't convert selector into a corresponding internal selector object: {error.message}"
            self._tell("Warning", "InvalidSelector", why)
            self._inactive("InvalidSelector", why)
            return why
        rivals = self._rivals(selector)
        if rivals:
            metadata = self._autoscaler["metadata"]
            names = " ".join(f"{{{name} {metadata['namespace']}}}" for name in sorted([metadata["name"], *rivals]))
            why = f"pods by selector {text} are controlled by multiple HPAs: [{names}]"
            self._tell("Warning", "AmbiguousSelector", why)
            self._inactive("AmbiguousSelector", why)
            return why
        return selector

    def _rivals(self, selector: LabelSelector) -> list[str]:
        """Other autoscalers whose targets have some of the same Pods."""
        labels = [pod["metadata"].get("labels") for pod in self._view.pods]
        own = [each for each in labels if selector.matches(each)]
        parsed = {name: selectors.parse_label_selector(text) for name, text in self._view.others.items()}
        return [name for name, other in parsed.items() if any(other.matches(each) for each in own)]

    def _measure(self, basis: Measure, spec: Object) -> Measured | Uncomputable:
        try:
            return measure(basis, spec)
        except Uncomputable as error:
            self._tell("Warning", error.reason, error.why)
            return error

    def _combine(
        self, scale: Object, resource: Resource, past: Past, limits: Limits, found: list[Measured | Uncomputable]
    ) -> Sequence[Action]:
        """The largest of what the metrics ask for; where some fail, only a scale-up."""
        good = [each for each in found if isinstance(each, Measured)]
        bad = [each for each in found if isinstance(each, Uncomputable)]
        best = max(good, key=lambda each: each.replicas, default=None)
        statuses = [each.status if isinstance(each, Measured) else {"type": ""} for each in found]
        why = f"invalid metrics ({len(bad)} invalid out of {len(found)}), first error is: {bad[0]}" if bad else ""
        if best is None or (bad and best.replicas < limits.current):
            if bad:
                self._inactive(bad[0].reason, f"the HPA was unable to compute the replica count: {bad[0].why}")
            return self._give_up(past, limits.current, statuses, why)
        message = f"the HPA was able to successfully calculate a replica count from {best.name}"
        self._set("ScalingActive", "True", "ValidMetricFound", message)
        reason = ""
        if best.replicas > limits.current:
            reason = f"{best.name} above target"
        elif best.replicas < limits.current:
            reason = "All metrics below target"
        return self._scale(scale, resource, past, limits, best.replicas, best.replicas, reason, statuses)

    def _give_up(self, past: Past, current: int, statuses: Objects, why: str) -> Sequence[Action]:
        self._tell("Warning", "FailedComputeMetricsReplicas", why)
        status = self._status(
            current, int((self._autoscaler.get("status") or {}).get("desiredReplicas") or 0), statuses
        )
        return [Remember(object_key(self._autoscaler), past), *self._told, *self._write(status), self._again]

    # -- scaling ------------------------------------------------------------------------------------------------------

    def _scale(
        self,
        scale: Object,
        resource: Resource,
        past: Past,
        limits: Limits,
        desired: int,
        recommended: int | None,
        reason: str,
        statuses: Objects,
    ) -> Sequence[Action]:
        """`recommended`: what metrics ask for, to be stabilised and limited; None where limits alone decide."""
        behavior = self._spec.get("behavior")
        if recommended is not None:
            stable = stabilize(recommended, behavior, past.memory, limits)
            self._set("AbleToScale", "True", stable.reason, stable.message)
            limited = limit(stable.replicas, behavior, past.memory, limits)
            state = "False" if limited.replicas == stable.replicas else "True"
            self._set("ScalingLimited", state, limited.reason, limited.message)
            desired = limited.replicas
            memory = remember(past.memory, recommended, limits.current, desired, behavior, limits)
            past = past._replace(memory=memory)
        if desired == limits.current:
            return self._finish(past, limits.current, desired, statuses)
        new = {**scale, "spec": {**scale["spec"], "replicas": desired}}

        def failed(error: ApiError) -> Sequence[Action]:
            self._tell("Warning", "FailedRescale", f"New size: {desired}; reason: {reason}; error: {error.message}")
            message = f"the HPA controller was unable to update the target scale: {error.message}"
            self._set("AbleToScale", "False", "FailedUpdateScale", message)
            before = int((self._autoscaler.get("status") or {}).get("desiredReplicas") or 0)
            return [*self._told, *self._write(self._status(limits.current, before, statuses))]

        def done(_answer: Object) -> Sequence[Action]:
            message = f"the HPA controller was able to update the target scale to {desired}"
            self._set("AbleToScale", "True", "SucceededRescale", message)
            self._tell("Normal", "SuccessfulRescale", f"New size: {desired}; reason: {reason}")
            return self._finish(past, limits.current, desired, statuses, rescaled=True)

        return [Update(str(resource), new, subresource="scale", otherwise=failed, then=done), self._again]

    def _finish(
        self, past: Past, current: int, desired: int, statuses: Objects, *, rescaled: bool = False
    ) -> Sequence[Action]:
        status = self._status(current, desired, statuses)
        if rescaled:
            status["lastScaleTime"] = rfc3339(self._view.now)
        return [Remember(object_key(self._autoscaler), past), *self._told, *self._write(status), self._again]

    def _status(self, current: int, desired: int, statuses: Objects) -> Object:
        status: Object = {"currentReplicas": current, "desiredReplicas": desired, "conditions": self._conditions}
        before = self._autoscaler.get("status") or {}
        if statuses:
            status["currentMetrics"] = statuses
        if before.get("lastScaleTime"):
            status["lastScaleTime"] = before["lastScaleTime"]
        return status

    def _write(self, status: Object) -> list[Action]:
        if status == self._autoscaler.get("status"):
            return []
        return [status_update(AUTOSCALERS, self._autoscaler, status, ignore=GONE)]

    def _inactive(self, reason: str, message: str) -> None:
        self._set("ScalingActive", "False", reason, message)

    def _set(self, kind: str, state: str, reason: str, message: str) -> None:
        made = {"type": kind, "status": state, "lastTransitionTime": rfc3339(self._view.now)}
        known = condition({"status": {"conditions": self._conditions}}, kind)
        if known is not None and known["status"] == state:
            made["lastTransitionTime"] = known["lastTransitionTime"]
        self._conditions = set_condition(self._conditions, {**made, "reason": reason, "message": message})

    def _tell(self, kind: Any, reason: str, message: str) -> None:
        self._told.append(Tell(self._autoscaler, kind, reason, message))


def _specified(old: Object, new: Object) -> bool:
    return bool(old["spec"] != new["spec"])


CONTROLLER = Controller(
    name="horizontal-pod-autoscaler-controller",
    component="horizontal-pod-autoscaler",
    watches=(Watch(AUTOSCALERS, indexes=("namespace",), changed=_specified), Watch(PODS, nothing, ("namespace",))),
    view=view,
    reconcile=reconcile,
    workers="concurrent_horizontal_pod_autoscaler_syncs",
)
