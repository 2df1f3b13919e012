"""Configurations of admission webhooks."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from fastkube.api import field
from fastkube.api.names import dns1035_label, dns1123_subdomain, port_number
from fastkube.errors import Cause
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.admission_matching import (
    FAILURE_POLICIES,
    MATCH_POLICIES,
    REINVOCATION_POLICIES,
    default_matching,
    default_rules,
    match_conditions,
    one_of_given,
    rule,
    selectors,
)
from fastkube.registry.strategies.checks import Errors, Object
from fastkube.registry.strategy import Call, Strategy

REVIEW_VERSIONS = ("v1", "v1beta1")
_SIDE_EFFECTS = ("None", "NoneOnDryRun")
_TIMEOUT_MAX_S = 30
_URL_FORM = "; desired format: https://host[/path]"


class WebhookStrategy(Strategy):
    """Both kinds of configurations; `mutating` ones say besides whether a webhook may be asked twice."""

    allow_unconditional_update = False
    metadata_checks = ("update",)
    has_status = False

    def __init__(self, *, mutating: bool) -> None:
        self._mutating = mutating

    def default(self, obj: Object) -> None:
        for hook in obj.get("webhooks") or ():
            hook.setdefault("failurePolicy", "Fail")
            default_matching(hook)
            hook.setdefault("timeoutSeconds", 10)
            if self._mutating:
                hook.setdefault("reinvocationPolicy", "Never")
            default_rules(hook.get("rules"))
            service = (hook.get("clientConfig") or {}).get("service")
            if service is not None:
                service.setdefault("port", 443)

    def spec_changed(self, new: Object, old: Object) -> bool:
        return (new.get("webhooks") or []) != (old.get("webhooks") or [])

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        self._webhooks(errs, obj, check_conditions=True)
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        now, was = ([hook.get("matchConditions") or [] for hook in each.get("webhooks") or ()] for each in (new, old))
        self._webhooks(errs, new, check_conditions=now != was)
        return errs

    def _webhooks(self, errs: Errors, obj: Object, *, check_conditions: bool) -> None:
        seen: set[str] = set()
        for number, hook in enumerate(obj.get("webhooks") or ()):
            path = f"webhooks[{number}]"
            _webhook(errs, path, hook, check_conditions)
            _review_versions(errs, f"{path}.admissionReviewVersions", hook.get("admissionReviewVersions") or [])
            name = hook.get("name") or ""
            if name and name in seen:
                errs.append(field.duplicate(f"{path}.name", name))
            seen.add(name)


def _webhook(errs: Errors, path: str, hook: Object, check_conditions: bool) -> None:
    _full_name(errs, f"{path}.name", hook.get("name") or "")
    rules = hook.get("rules") or []
    for number, each in enumerate(rules):
        rule(errs, f"{path}.rules[{number}]", each)
    if not rules:
        hook.pop("rules", None)  # an empty list is not written, though upstream counts it as a change
    one_of_given(errs, f"{path}.failurePolicy", hook.get("failurePolicy"), FAILURE_POLICIES)
    one_of_given(errs, f"{path}.matchPolicy", hook.get("matchPolicy"), MATCH_POLICIES)
    effects = hook.get("sideEffects")
    if effects is None:
        errs.append(field.required(f"{path}.sideEffects", f"must specify one of {', '.join(_SIDE_EFFECTS)}"))
    else:
        checks.one_of(errs, f"{path}.sideEffects", effects, _SIDE_EFFECTS)
    timeout = hook["timeoutSeconds"]
    if not 1 <= timeout <= _TIMEOUT_MAX_S:
        problem = f"the timeout value must be between 1 and {_TIMEOUT_MAX_S} seconds"
        errs.append(field.invalid(f"{path}.timeoutSeconds", timeout, problem))
    selectors(errs, path, hook)
    one_of_given(errs, f"{path}.reinvocationPolicy", hook.get("reinvocationPolicy"), REINVOCATION_POLICIES)
    client_config(errs, f"{path}.clientConfig", hook.get("clientConfig") or {})
    if check_conditions:
        match_conditions(errs, f"{path}.matchConditions", hook.get("matchConditions"))


def _full_name(errs: Errors, path: str, name: str) -> None:
    faults = dns1123_subdomain(name)
    if not name:
        errs.append(field.required(path))
    elif faults:
        errs.append(field.invalid(path, name, ",".join(faults)))
    elif name.count(".") < 2:
        errs.append(field.invalid(path, name, "should be a domain with at least three segments separated by dots"))


def _review_versions(errs: Errors, path: str, versions: list[str]) -> None:
    told = ", ".join(REVIEW_VERSIONS)
    if not versions:
        errs.append(field.required(path, f"must specify one of {told}"))
        return
    for number, version in enumerate(versions):
        if version in versions[:number]:
            errs.append(field.invalid(f"{path}[{number}]", version, "duplicate version"))
            continue
        checks.faults(errs, f"{path}[{number}]", version, dns1035_label)
    if not set(versions).intersection(REVIEW_VERSIONS):
        errs.append(field.invalid(path, versions, f"must include at least one of {told}"))


# ---------------------------------------------------------------- where a webhook is


def client_config(errs: Errors, path: str, config: Object) -> None:
    """Where to call: a URL or a Service."""
    url, service = config.get("url"), config.get("service")
    if (url is None) == (service is None):
        errs.append(field.required(path, "exactly one of url or service is required"))
    elif url is not None:
        _url(errs, f"{path}.url", url)
    else:
        _service(errs, f"{path}.service", service or {})


def _url(errs: Errors, path: str, url: str) -> None:
    try:
        if url.startswith(":"):
            raise ValueError(f"parse {field.quote(url)}: missing protocol scheme")
        parts: SplitResult = urlsplit(url)
    except ValueError as error:
        errs.append(field.required(path, f"url must be a valid URL: {error}{_URL_FORM}"))
        return
    if parts.scheme != "https":
        problem = f"'https' is the only allowed URL scheme{_URL_FORM}"
        errs.append(field.invalid(path, parts.scheme, problem))
    user, at, host = parts.netloc.rpartition("@")
    if not host:
        errs.append(field.invalid(path, host, f"host must be specified{_URL_FORM}"))
    if at:
        errs.append(field.invalid(path, user, "user information is not permitted in the URL"))
    if parts.fragment:
        errs.append(field.invalid(path, parts.fragment, "fragments are not permitted in the URL"))
    if parts.query:
        errs.append(field.invalid(path, parts.query, "query parameters are not permitted in the URL"))


def _service(errs: Errors, path: str, service: Object) -> None:
    """Upstream hands over name and namespace the wrong way round, and complains accordingly."""
    if not service.get("namespace"):
        errs.append(field.required(f"{path}.name"))
    if not service.get("name"):
        errs.append(field.required(f"{path}.namespace"))
    port = service["port"]
    if faults := port_number(port):
        errs.append(field.invalid(f"{path}.port", port, f"port is not valid: {','.join(faults)}"))
    if service.get("path") is not None:
        _service_path(errs, f"{path}.path", service["path"])


def _service_path(errs: Errors, path: str, told: str) -> None:
    if told in ("", "/"):
        return
    if told == "//":
        errs.append(field.invalid(path, told, "segment[0] may not be empty"))
        return
    if not told.startswith("/"):
        errs.append(field.invalid(path, told, "must start with a '/'"))
    for number, step in enumerate(told[1:].removesuffix("/").split("/")):
        if not step:
            errs.append(field.invalid(path, told, f"segment[{number}] may not be empty"))
            continue
        for fault in dns1123_subdomain(step):
            errs.append(field.invalid(path, told, f"segment[{number}]: {fault}"))


_GROUP = "admissionregistration.k8s.io"

STRATEGIES: dict[tuple[str, str], Strategy] = {
    (_GROUP, "mutatingwebhookconfigurations"): WebhookStrategy(mutating=True),
    (_GROUP, "validatingwebhookconfigurations"): WebhookStrategy(mutating=False),
}
