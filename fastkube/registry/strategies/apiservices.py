"""APIServices: which server answers for a group and version."""

from __future__ import annotations

from fastkube.api import field
from fastkube.api.names import dns1035_label, dns1123_subdomain, path_segment, port_number
from fastkube.clock import rfc3339
from fastkube.errors import Cause
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.checks import Errors
from fastkube.registry.strategy import Call, Object, Strategy

_GROUP_PRIORITY_MAX, _VERSION_PRIORITY_MAX = 20000, 1000


class APIServiceStrategy(Strategy):
    kept_on_status = ("annotations", "finalizers", "labels", "ownerReferences")
    has_generation = False
    allow_unconditional_update = False
    kube_finalizers = False

    def default(self, obj: Object) -> None:
        service = obj.setdefault("spec", {}).get("service")
        if service is not None and service.get("port") is None:
            service["port"] = 443

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        super().prepare_for_create(call, obj)
        if obj["spec"].get("service") is None:
            available = {
                "type": "Available",
                "status": "True",
                "lastTransitionTime": rfc3339(call.now),
                "reason": "Local",
                "message": "Local APIServices are always available",
            }
            obj["status"] = {"conditions": [available]}

    def validate_name(self, name: str, prefix: bool) -> list[str]:
        return path_segment(name)

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        spec, name = obj["spec"], obj["metadata"].get("name") or ""
        group, version = spec.get("group") or "", spec.get("version") or ""
        problem = f'must be `spec.version+"."+spec.group`: {field.quote(f"{version}.{group}")}'
        for key, told in (("generateName", obj["metadata"].get("generateName")), ("name", name)):
            if told and told != f"{version}.{group}" and not path_segment(told):
                errs.append(field.invalid(f"metadata.{key}", told, problem))
        if not group and version != "v1":
            problem = "only v1 may have an empty group and it better be legacy kube"
            errs.append(field.required("spec.group", problem))
        if group:
            checks.faults(errs, "spec.group", group, dns1123_subdomain)
        checks.faults(errs, "spec.version", version, dns1035_label)
        for key, most in (("groupPriorityMinimum", _GROUP_PRIORITY_MAX), ("versionPriority", _VERSION_PRIORITY_MAX)):
            priority = spec.get(key) or 0
            if not 0 < priority <= most:
                errs.append(field.invalid(f"spec.{key}", priority, f"must be positive and less than {most}"))
        _where(errs, spec)
        return errs

    def validate_status_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        for number, condition in enumerate((new.get("status") or {}).get("conditions") or ()):
            path = f"status.conditions[{number}].status"
            checks.one_of(errs, path, condition.get("status") or "", ("True", "False", "Unknown"))
        return errs


def _where(errs: Errors, spec: Object) -> None:
    """The service that answers, and how it is trusted."""
    service, bundle, insecure = spec.get("service"), spec.get("caBundle"), bool(spec.get("insecureSkipTLSVerify"))
    if service is None:
        if bundle:
            size = len(bundle) // 4 * 3 - bundle[-2:].count("=")
            errs.append(field.invalid("spec.caBundle", f"{size} bytes", "local APIServices may not have a caBundle"))
        if insecure:
            problem = "local APIServices may not have insecureSkipTLSVerify"
            errs.append(field.invalid("spec.insecureSkipTLSVerify", insecure, problem))
        return
    checks.required(errs, "spec.service", service, "namespace", "name")
    if faults := port_number(service["port"]):
        problem = "port is not valid: " + ", ".join(faults)
        errs.append(field.invalid("spec.service.port", service["port"], problem))
    if insecure and bundle:
        problem = "may not be true if caBundle is present"
        errs.append(field.invalid("spec.insecureSkipTLSVerify", insecure, problem))


STRATEGIES: dict[tuple[str, str], Strategy] = {("apiregistration.k8s.io", "apiservices"): APIServiceStrategy()}
