"""Validation of the spec of Jobs, of their updates, and of the job template in CronJobs (upstream:
pkg/apis/batch/validation)."""

from __future__ import annotations

import re

from fastkube.api import field
from fastkube.api.names import dns1123_label, dns1123_subdomain
from fastkube.api.selectors import validate_label_selector
from fastkube.registry.strategies import checks, indexes, workloads
from fastkube.registry.strategies.checks import Errors, Object, fields_non_negative, selector_shown
from fastkube.registry.strategies.go_values import shown
from fastkube.registry.strategies.pod_templates import validate_template

_JOB_NAMES = ("job-name", "batch.kubernetes.io/job-name")
_CONTROLLER_UIDS = ("controller-uid", "batch.kubernetes.io/controller-uid")
_INDEXED_MAX = 100_000
_COMPLETIONS_SOFT_MAX = 100_000
_WITH_MANY_COMPLETIONS_MAX = 10_000
_WITH_MANY = (
    f"must be less than or equal to {_WITH_MANY_COMPLETIONS_MAX} when completions are above {_COMPLETIONS_SOFT_MAX} "
    "and used with backoff limit per index"
)
_RULES_MAX, _EXIT_CODES_MAX, _PATTERNS_MAX = 20, 255, 20
_MANAGED_BY_MAX = 63
_INDEXES_TEXT_MAX = 64 * 1024
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_NEEDS_INDEXED = "requires indexed completion mode"
_HTTP_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"
_is_http_path = re.compile(_HTTP_PATH).fullmatch


def job(errs: Errors, obj: Object) -> None:
    """A whole Job."""
    spec = obj["spec"]
    if not spec.get("manualSelector") and spec.get("selector") is not None:
        _generated_selector(errs, obj)
    job_spec(errs, spec)
    completions = spec.get("completions") or 0
    if spec.get("completionMode") == "Indexed" and completions > 0:
        name = obj["metadata"].get("name") or ""
        hostname = f"{name}-{completions - 1}"  # the longest that a Pod of this Job gets
        if dns1123_label(hostname):
            problem = f"will not able to create pod with invalid DNS label: {hostname}"
            errs.append(field.invalid("metadata.name", name, problem))


def _generated_selector(errs: Errors, obj: Object) -> None:
    """Labels that the server makes must be there and say what they have to."""
    metadata, spec = obj["metadata"], obj["spec"]
    name, uid = metadata.get("name") or "", metadata["uid"]
    labels = (spec["template"].get("metadata") or {}).get("labels")
    wanted = dict(zip((*_CONTROLLER_UIDS, *_JOB_NAMES), (uid, uid, name, name), strict=True))
    for key in (_CONTROLLER_UIDS[0], _JOB_NAMES[0], _CONTROLLER_UIDS[1], _JOB_NAMES[1]):
        _has_label(errs, labels or {}, key, wanted[key])
    selector = workloads.as_selector(spec["selector"])
    if selector is not None and not selector.matches(wanted):
        problem = "`selector` not auto-generated"
        errs.append(field.invalid("spec.selector", selector_shown(spec["selector"]), problem))


def _has_label(errs: Errors, labels: dict[str, str], key: str, value: str) -> None:
    path = "spec.template.metadata.labels"
    if key not in labels:
        errs.append(field.required(f"{path}[{key}]", f"must be '{value}'"))
    elif labels[key] != value:
        errs.append(field.invalid(f"{path}[{key}]", labels, f"must be '{value}'"))


def job_spec(errs: Errors, spec: Object) -> None:
    """The spec of a Job that has its selector."""
    run_spec(errs, "spec", spec)
    selector = spec.get("selector")
    if selector is None:
        errs.append(field.required("spec.selector"))
    else:
        errs += validate_label_selector(selector, "spec.selector")
    usable = workloads.as_selector(selector)
    if usable is not None:
        workloads.selects_template(errs, usable, "spec.template", spec["template"])


def run_spec(errs: Errors, path: str, spec: Object) -> None:
    """What Jobs and the templates of CronJobs have in common."""
    fields_non_negative(
        errs, path, spec, "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit",
        "ttlSecondsAfterFinished", "backoffLimitPerIndex", "maxFailedIndexes",
    )  # fmt: skip
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        errs.append(field.required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
    if spec.get("managedBy") is not None:
        _managed_by(errs, f"{path}.managedBy", spec["managedBy"])
    _completion_mode(errs, path, spec)
    if spec.get("podFailurePolicy") is not None:
        _failure_policy(errs, f"{path}.podFailurePolicy", spec)
    if spec.get("successPolicy") is not None:
        _success_policy(errs, f"{path}.successPolicy", spec)
    _replacement_policy(errs, f"{path}.podReplacementPolicy", spec)
    validate_template(errs, f"{path}.template", spec["template"])
    _restart_policy(errs, f"{path}.template.spec.restartPolicy", spec)


def _restart_policy(errs: Errors, path: str, spec: Object) -> None:
    policy = spec["template"]["spec"].get("restartPolicy") or ""
    if policy in ("Always", ""):
        errs.append(field.required(path, 'valid values: "OnFailure", "Never"'))
    elif policy not in ("OnFailure", "Never"):
        errs.append(field.not_supported(path, policy, ("OnFailure", "Never")))
    elif spec.get("podFailurePolicy") is not None and policy != "Never":
        problem = 'only "Never" is supported when podFailurePolicy is specified'
        errs.append(field.invalid(path, policy, problem))


def _managed_by(errs: Errors, path: str, name: str) -> None:
    _domain_prefixed_path(errs, path, name)
    if len(name.encode()) > _MANAGED_BY_MAX:
        errs.append(field.too_long(path, _MANAGED_BY_MAX))


def _domain_prefixed_path(errs: Errors, path: str, name: str) -> None:
    if not name:
        errs.append(field.required(path))
        return
    host, _, rest = name.partition("/")
    if not host or not rest:
        errs.append(field.invalid(path, name, 'must be a domain-prefixed path (such as "acme.io/foo")'))
        return
    checks.faults(errs, path, host, dns1123_subdomain)
    if not _is_http_path(rest):
        errs.append(field.invalid(path, rest, f"Invalid path (regex used for validation is '{_HTTP_PATH}')"))


# ---------------------------------------------------------------- completion


def _completion_mode(errs: Errors, path: str, spec: Object) -> None:
    mode = spec.get("completionMode")
    if mode not in (None, "NonIndexed", "Indexed"):
        errs.append(field.not_supported(f"{path}.completionMode", mode, ("NonIndexed", "Indexed")))
    if mode == "Indexed":
        _indexed(errs, path, spec)
    elif mode in (None, "NonIndexed"):
        for key in ("backoffLimitPerIndex", "maxFailedIndexes"):
            if spec.get(key) is not None:
                errs.append(field.invalid(f"{path}.{key}", spec[key], _NEEDS_INDEXED))


def _indexed(errs: Errors, path: str, spec: Object) -> None:
    completions, parallelism = spec.get("completions"), spec.get("parallelism") or 0
    failed = spec.get("maxFailedIndexes")
    if completions is None:
        errs.append(field.required(f"{path}.completions", "when completion mode is Indexed"))
    if parallelism > _INDEXED_MAX:
        problem = f"must be less than or equal to {_INDEXED_MAX} when completion mode is Indexed"
        errs.append(field.invalid(f"{path}.parallelism", parallelism, problem))
    at = f"{path}.maxFailedIndexes"
    if completions is not None and failed is not None and failed > completions:
        errs.append(field.invalid(at, failed, "must be less than or equal to completions"))
    if failed is not None and failed > _INDEXED_MAX:
        errs.append(field.invalid(at, failed, f"must be less than or equal to {_INDEXED_MAX}"))
    if (completions or 0) <= _COMPLETIONS_SOFT_MAX or spec.get("backoffLimitPerIndex") is None:
        return
    if failed is None:
        problem = f"must be specified when completions is above {_COMPLETIONS_SOFT_MAX}"
        errs.append(field.required(at, problem))
    if parallelism > _WITH_MANY_COMPLETIONS_MAX:
        errs.append(field.invalid(f"{path}.parallelism", parallelism, _WITH_MANY))
    if failed is not None and failed > _WITH_MANY_COMPLETIONS_MAX:
        errs.append(field.invalid(at, failed, _WITH_MANY))


def _success_policy(errs: Errors, path: str, spec: Object) -> None:
    policy = spec["successPolicy"]
    if spec.get("completionMode") != "Indexed":
        errs.append(field.invalid(path, shown("SuccessPolicy", policy), _NEEDS_INDEXED))
        return
    rules = policy.get("rules") or []
    if not rules:
        problem = "at least one rules must be specified when the successPolicy is specified"
        errs.append(field.required(f"{path}.rules", problem))
    if len(rules) > _RULES_MAX:
        errs.append(field.too_many(f"{path}.rules", len(rules), _RULES_MAX))
    for number, rule in enumerate(rules):
        _success_rule(errs, f"{path}.rules[{number}]", rule, spec.get("completions") or 0)


def _success_rule(errs: Errors, path: str, rule: Object, completions: int) -> None:
    told, wanted = rule.get("succeededIndexes"), rule.get("succeededCount")
    if told is None and wanted is None:
        problem = "at least one of succeededCount or succeededIndexes must be specified"
        errs.append(field.required(path, problem))
    total = 0
    if told is not None:
        at = f"{path}.succeededIndexes"
        if len(told.encode()) > _INDEXES_TEXT_MAX:
            errs.append(field.too_long(at, _INDEXES_TEXT_MAX))
        try:
            total = indexes.count(told, completions)
        except ValueError as error:
            errs.append(field.invalid(at, told, f"error parsing succeededIndexes: {error}"))
    if wanted is None:
        return
    at = f"{path}.succeededCount"
    checks.non_negative(errs, at, wanted)
    if wanted > completions:
        problem = f"must be less than or equal to {completions} (the number of specified completions)"
        errs.append(field.invalid(at, wanted, problem))
    if told is not None and wanted > total:
        named = "the number of indexes in the specified succeededIndexes field"
        errs.append(field.invalid(at, wanted, f"must be less than or equal to {total} ({named})"))


# ---------------------------------------------------------------- failure


def _replacement_policy(errs: Errors, path: str, spec: Object) -> None:
    policy = spec.get("podReplacementPolicy")
    if policy is None:
        return
    handled = spec.get("podFailurePolicy") is not None
    checks.one_of(errs, path, policy, ("Failed",) if handled else ("Failed", "TerminatingOrFailed"))


def _failure_policy(errs: Errors, path: str, spec: Object) -> None:
    rules = spec["podFailurePolicy"].get("rules") or []
    if len(rules) > _RULES_MAX:
        errs.append(field.too_many(f"{path}.rules", len(rules), _RULES_MAX))
    pod = spec["template"]["spec"]
    names = {each.get("name") or "" for key in ("containers", "initContainers") for each in pod.get(key) or ()}
    for number, rule in enumerate(rules):
        _failure_rule(errs, f"{path}.rules[{number}]", rule, spec, names)


def _failure_rule(errs: Errors, path: str, rule: Object, spec: Object, containers: set[str]) -> None:
    action, at = rule.get("action") or "", f"{path}.action"
    if action == "FailIndex":
        if spec.get("backoffLimitPerIndex") is None:
            errs.append(field.invalid(at, action, "requires the backoffLimitPerIndex to be set"))
    else:
        _one_of_listed(errs, at, action, _ACTIONS)
    codes, patterns = rule.get("onExitCodes"), rule.get("onPodConditions") or []
    if codes is not None:
        _exit_codes(errs, f"{path}.onExitCodes", codes, containers)
    if patterns:
        _pod_conditions(errs, f"{path}.onPodConditions", patterns)
    if codes is not None and patterns:
        errs.append(field.unfit(path, "specifying both OnExitCodes and OnPodConditions is not supported"))
    if codes is None and not patterns:
        errs.append(field.unfit(path, "specifying one of OnExitCodes and OnPodConditions is required"))


def _one_of_listed(errs: Errors, path: str, value: str, allowed: tuple[str, ...]) -> None:
    if not value:
        listed = " ".join(map(field.quote, allowed))
        errs.append(field.required(path, f"valid values: [{listed}]"))
    else:
        checks.one_of(errs, path, value, allowed)


def _exit_codes(errs: Errors, path: str, codes: Object, containers: set[str]) -> None:
    operator, container = codes.get("operator") or "", codes.get("containerName")
    _one_of_listed(errs, f"{path}.operator", operator, ("In", "NotIn"))
    if container is not None and container not in containers:
        problem = "must be one of the container or initContainer names in the pod template"
        errs.append(field.invalid(f"{path}.containerName", container, problem))
    values, at = codes.get("values") or [], f"{path}.values"
    if not values:
        errs.append(field.invalid(at, codes.get("values"), "at least one value is required"))
    elif len(values) > _EXIT_CODES_MAX:
        errs.append(field.too_many(at, len(values), _EXIT_CODES_MAX))
    seen: set[int] = set()
    for number, value in enumerate(values):
        if operator == "In" and value == 0:
            errs.append(field.invalid(f"{at}[{number}]", value, "must not be 0 for the In operator"))
        if value in seen:
            errs.append(field.duplicate(f"{at}[{number}]", value))
        seen.add(value)
    if values != sorted(values):
        errs.append(field.invalid(at, values, "must be ordered"))


def _pod_conditions(errs: Errors, path: str, patterns: list[Object]) -> None:
    if len(patterns) > _PATTERNS_MAX:
        errs.append(field.too_many(path, len(patterns), _PATTERNS_MAX))
    for number, pattern in enumerate(patterns):
        at = f"{path}[{number}]"
        checks.qualified(errs, f"{at}.type", pattern.get("type") or "")
        _one_of_listed(errs, f"{at}.status", pattern.get("status") or "", ("False", "True", "Unknown"))


# ---------------------------------------------------------------- updates


def job_update(errs: Errors, new: Object, old: Object) -> None:
    job(errs, new)
    now, was = new["spec"], old["spec"]
    job_spec(errs, now)
    _completions(errs, now, was)
    selector = now.get("selector")
    checks.immutable(errs, "spec.selector", selector, was.get("selector"), selector_shown(selector))
    _template_update(errs, now, was, old.get("status") or {})
    checks.fields_immutable(errs, "spec", now, was, "completionMode")
    _struct_immutable(errs, "podFailurePolicy", "PodFailurePolicy", now, was)
    checks.fields_immutable(errs, "spec", now, was, "backoffLimitPerIndex", "managedBy")
    _struct_immutable(errs, "successPolicy", "SuccessPolicy", now, was)


def _struct_immutable(errs: Errors, key: str, struct: str, now: Object, was: Object) -> None:
    """Nothing and an empty struct differ."""
    if (now.get(key) is None) != (was.get(key) is None) or not checks.equal(now.get(key), was.get(key)):
        errs.append(field.invalid(f"spec.{key}", shown(struct, now.get(key)), field.IMMUTABLE))


def _completions(errs: Errors, now: Object, was: Object) -> None:
    """An indexed Job grows and shrinks as a whole."""
    completions = now.get("completions")
    if now.get("completionMode") != "Indexed":
        checks.fields_immutable(errs, "spec", now, was, "completions")
    elif completions != was.get("completions") and completions is not None and completions != now["parallelism"]:
        problem = "can only be modified in tandem with spec.parallelism"
        errs.append(field.invalid("spec.completions", completions, problem))


def _template_update(errs: Errors, now: Object, was: Object, status: Object) -> None:
    """Where and with how much its Pods run may change as long as a suspended Job has none."""
    template, before = now["template"], was["template"]
    if not (was.get("suspend") and _has_stopped(status)):
        if not checks.equal(template, before):
            errs.append(field.invalid("spec.template", shown("PodTemplateSpec", template), field.IMMUTABLE))
        return
    pod = _with_changeable(before["spec"], template["spec"])
    if not checks.equal(template["spec"], pod):
        errs.append(field.invalid("spec.template.spec", shown("PodSpec", template["spec"]), field.IMMUTABLE))


def _has_stopped(status: Object) -> bool:
    """Or never began."""
    suspended = any(
        each.get("type") == "Suspended" and each.get("status") == "True" for each in status.get("conditions") or ()
    )
    return not status.get("active") and (status.get("startTime") is None or suspended)


def _with_changeable(old: Object, new: Object) -> Object:
    """The old Pod with what may change as it is in the new one."""
    made = dict(old)
    for key in ("nodeSelector", "tolerations", "schedulingGates"):
        made[key] = new.get(key)
    affinity, before = new.get("affinity"), old.get("affinity")
    if affinity is not None:
        made["affinity"] = {**(before or {}), "nodeAffinity": affinity.get("nodeAffinity")}
    elif before is not None:
        rest = {key: value for key, value in before.items() if key != "nodeAffinity" and value is not None}
        made["affinity"] = rest or None
    for key in ("containers", "initContainers"):
        listed, previous = new.get(key) or [], old.get(key) or []
        if len(listed) == len(previous):
            made[key] = [
                {**was, "resources": now.get("resources")} if was.get("name") == now.get("name") else was
                for now, was in zip(listed, previous, strict=True)
            ]
    return made
