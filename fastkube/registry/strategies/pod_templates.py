"""What all kinds with a pod template do with it: defaults, dropping of what is switched off, validation, warnings."""

from __future__ import annotations

from fastkube.api import gates
from fastkube.registry.strategies import pod_validation
from fastkube.registry.strategies.checks import Errors, Object
from fastkube.registry.strategies.pod_containers import each
from fastkube.registry.strategies.pod_defaults import default_pod_spec
from fastkube.registry.strategies.pod_warnings import pod_warnings
from fastkube.registry.strategy import Call

_SWITCHED_OFF_PROJECTIONS = ("clusterTrustBundle", "podCertificate")


def default_template(holder: Object, key: str = "template") -> None:
    """The template under `key`, which is made if it is not there: in Go it is a struct."""
    template = holder.setdefault(key, {})
    template.setdefault("metadata", {})
    default_pod_spec(template.setdefault("spec", {}))


def drop_switched_off(call: Call, spec: Object) -> None:
    """Fields of features that are off by default in 1.36: container stop signals, projected trust bundles and pod
    certificates, scheduling groups."""
    if gates.GENERIC_WORKLOAD not in call.rtype.features:
        spec.pop("schedulingGroup", None)
    for container, _ in each(spec, ""):
        if "lifecycle" in container and container["lifecycle"].pop("stopSignal", None) and not container["lifecycle"]:
            del container["lifecycle"]
    for volume in spec.get("volumes") or ():
        if volume.get("projected"):
            for source in volume["projected"].get("sources") or ():
                for key in _SWITCHED_OFF_PROJECTIONS:
                    source.pop(key, None)


def validate_template(errs: Errors, path: str, template: Object | None) -> None:
    pod_validation.template(errs, path, template or {})


def template_warnings(path: str, template: Object | None) -> list[str]:
    template = template or {}
    return pod_warnings(path, template.get("metadata") or {}, template.get("spec") or {})
