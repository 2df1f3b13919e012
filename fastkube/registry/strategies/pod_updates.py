"""What may change on an existing Pod: the few mutable fields of its spec, its status, its annotations.

Upstream: ValidatePodUpdate, ValidatePodStatusUpdate, ValidatePodEphemeralContainersUpdate, ValidatePodResize.
"""

from __future__ import annotations

from typing import Any

from fastkube.api import field
from fastkube.api.names import dns1123_subdomain, label_key
from fastkube.registry.strategies import checks, pod_scheduling, pod_security, pod_validation
from fastkube.registry.strategies.checks import INT32_MAX, Errors, Object, equal
from fastkube.registry.strategies.go_values import diff, shown, shown_list
from fastkube.registry.strategies.pod_scheduling import REQUIRED
from fastkube.registry.strategies.pod_validation import MIRROR

_MUTABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)

# ---------------------------------------------------------------- annotations


def annotation_update(errs: Errors, new: Object, old: Object) -> None:
    """AppArmor profiles and the mark of a mirror pod stay as they were."""
    now, was = (obj["metadata"].get("annotations") or {} for obj in (new, old))
    path = "metadata.annotations"
    for key, value in was.items():
        if now.get(key) == value:
            continue
        if key.startswith(pod_security.APP_ARMOR):
            errs.append(field.forbidden(f"{path}[{key}]", "may not remove or update AppArmor annotations"))
        if key == MIRROR:
            errs.append(field.forbidden(f"{path}[{key}]", "may not remove or update mirror pod annotation"))
    for key in now:
        if key in was:
            continue
        if key.startswith(pod_security.APP_ARMOR):
            errs.append(field.forbidden(f"{path}[{key}]", "may not add AppArmor annotations"))
        if key == MIRROR:
            errs.append(field.forbidden(f"{path}[{key}]", "may not add mirror pod annotation"))
    if now:
        pod_validation.pod_annotations(errs, path, now, new["spec"])


# ---------------------------------------------------------------- the spec


def pod_update(errs: Errors, new: Object, old: Object) -> None:
    pod_validation.pod(errs, new)
    annotation_update(errs, new, old)
    now, was = new["spec"], old["spec"]
    if now == was:
        return
    for key in ("containers", "initContainers"):
        if not _same_containers(errs, f"spec.{key}", now.get(key) or [], was.get(key) or []):
            return
    if not _deadline(errs, now.get("activeDeadlineSeconds"), was.get("activeDeadlineSeconds")):
        return
    _only_added_tolerations(errs, now.get("tolerations") or [], was.get("tolerations") or [])
    _only_deleted_gates(errs, now.get("schedulingGates") or [], was.get("schedulingGates") or [])
    masked = _masked(now, was)
    if was.get("schedulingGates"):
        _gated(errs, masked, was)
    if not equal(masked, was):
        errs.append(field.forbidden("spec", f"{_MUTABLE}\n{diff('PodSpec', was, masked)}"))


def _same_containers(errs: Errors, path: str, now: list[Object], was: list[Object]) -> bool:
    if len(now) != len(was):
        errs.append(field.forbidden(path, "pod updates may not add or remove containers"))
        return False
    for number, container in enumerate(now):
        image = container.get("image") or ""
        if not image:
            errs.append(field.required(f"{path}[{number}].image"))
        if image.strip() != image:
            problem = "must not have leading or trailing whitespace"
            errs.append(field.invalid(f"{path}[{number}].image", image, problem))
    return True


def _deadline(errs: Errors, now: int | None, was: int | None) -> bool:
    """A deadline may be set once and may become shorter. Whether the rest is still to be looked at."""
    path = "spec.activeDeadlineSeconds"
    if now is None:
        if was is not None:
            problem = "must not update from a positive integer to nil value"
            errs.append(field.invalid(path, None, problem))
        return True
    if not 0 <= now <= INT32_MAX:
        errs.append(field.invalid(path, now, field.between(0, INT32_MAX)))
        return False
    if was is not None and was < now:
        errs.append(field.invalid(path, now, "must be less than or equal to previous value"))
        return False
    return True


def _only_added_tolerations(errs: Errors, now: list[Object], was: list[Object]) -> None:
    if now == was:
        return
    bare = [_without_seconds(toleration) for toleration in now]
    if any(_without_seconds(toleration) not in bare for toleration in was):
        problem = "existing toleration can not be modified except its tolerationSeconds"
        errs.append(field.forbidden("spec.tolerations", problem))
        return
    pod_scheduling.tolerations(errs, "spec.tolerations", now)


def _without_seconds(toleration: Object) -> Object:
    return {key: value for key, value in toleration.items() if key != "tolerationSeconds"}


def _only_deleted_gates(errs: Errors, now: list[Object], was: list[Object]) -> None:
    names = {gate.get("name") for gate in was}
    for number, gate in enumerate(now):
        if gate.get("name") not in names:
            problem = f"only deletion is allowed, but found new scheduling gate '{gate.get('name') or ''}'"
            errs.append(field.forbidden(f"spec.schedulingGates[{number}].name", problem))


def _masked(now: Object, was: Object) -> Object:
    """The new spec with what may change put back, so that whatever differs still may not."""
    masked = dict(now)
    for key in ("containers", "initContainers"):
        if now.get(key):
            pairs = zip(now[key], was[key], strict=True)
            masked[key] = [{**container, "image": before.get("image")} for container, before in pairs]
    for key in ("activeDeadlineSeconds", "schedulingGates", "tolerations"):
        _put_back(masked, was, key)
    grace = was.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0 and now.get("terminationGracePeriodSeconds") == 1:
        masked["terminationGracePeriodSeconds"] = grace
    return masked


def _put_back(masked: Object, was: Object, key: str) -> None:
    if key in was:
        masked[key] = was[key]
    else:
        masked.pop(key, None)


def _gated(errs: Errors, masked: Object, was: Object) -> None:
    """As long as it is gated, a Pod's choice of nodes may be narrowed."""
    now_labels, old_labels = masked.get("nodeSelector") or {}, was.get("nodeSelector") or {}
    if now_labels != old_labels:
        if any(now_labels.get(key) != value for key, value in old_labels.items()):
            problem = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
            errs.append(field.invalid("spec.nodeSelector", now_labels or None, problem))
        _put_back(masked, was, "nodeSelector")
    now, before = (spec.get("affinity") or {} for spec in (masked, was))
    if equal(now.get("nodeAffinity"), before.get("nodeAffinity")):
        return
    _node_affinity(errs, now.get("nodeAffinity") or {}, before.get("nodeAffinity") or {})
    merged = {key: value for key, value in now.items() if key != "nodeAffinity"}
    if "nodeAffinity" in before:
        merged["nodeAffinity"] = before["nodeAffinity"]
    if merged or "affinity" in was:
        masked["affinity"] = merged
    else:
        masked.pop("affinity", None)


def _node_affinity(errs: Errors, now: Object, was: Object) -> None:
    path = f"spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms"
    new_terms, old_terms = ((each.get(REQUIRED) or {}).get("nodeSelectorTerms") or [] for each in (now, was))
    if not old_terms:
        return
    if len(new_terms) != len(old_terms):
        problem = "no additions/deletions to non-empty NodeSelectorTerms list are allowed"
        errs.append(field.invalid(path, shown_list("NodeSelectorTerm", new_terms), problem))
        return
    for number, (new, old) in enumerate(zip(new_terms, old_terms, strict=True)):
        if not _only_narrowed(new, old):
            problem = "only additions are allowed (no mutations or deletions)"
            errs.append(field.invalid(f"{path}[{number}]", shown("NodeSelectorTerm", new), problem))


def _only_narrowed(new: Object, old: Object) -> bool:
    keys = ("matchExpressions", "matchFields")
    if not any(old.get(key) for key in keys):
        return not any(new.get(key) for key in keys)
    return all((new.get(key) or [])[: len(old.get(key) or [])] == (old.get(key) or []) for key in keys)


# ---------------------------------------------------------------- status

_SYSTEM_CONDITIONS = frozenset(("PodScheduled", "Ready", "Initialized"))
_NOT_NEGATIVE = "must be a non-negative integer"
_OWN = ("initContainers", "containers")
_MAPPED = ("containerName", "resourceName", "requestName")
_STATUSES = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")


def pod_status_update(errs: Errors, new: Object, old: Object) -> None:
    annotation_update(errs, new, old)
    now, was = new.get("status") or {}, old.get("status") or {}
    for number, condition in enumerate(now.get("conditions") or ()):
        generation = condition.get("observedGeneration") or 0
        if generation < 0:
            where = f"status.conditions[{number}].observedGeneration"
            errs.append(field.invalid(where, generation, _NOT_NEGATIVE))
        if condition.get("type") not in _SYSTEM_CONDITIONS:
            where = f"status.conditions[{number}].Type"
            checks.faults(errs, where, condition.get("type") or "", label_key)
    _nominated(errs, now.get("nominatedNodeName") or "", was.get("nominatedNodeName") or "", old["spec"])
    generation = now.get("observedGeneration") or 0
    if generation < 0:
        errs.append(field.invalid("status.observedGeneration", generation, _NOT_NEGATIVE))
    if (now.get("qosClass") or "") != (was.get("qosClass") or ""):
        errs.append(field.invalid("status.qosClass", now.get("qosClass") or "", field.IMMUTABLE))
    for key in _STATUSES:
        _state_transitions(errs, f"status.{key}", now.get(key) or (), was.get(key) or (), old["spec"], key)
    if now.get("resourceClaimStatuses"):
        _claim_statuses(errs, now["resourceClaimStatuses"], new["spec"].get("resourceClaims") or ())
    if now.get("extendedResourceClaimStatus") is not None:
        _extended_claim(errs, "status.extendedResourceClaimStatus", now["extendedResourceClaimStatus"], new["spec"])
    _addresses(errs, now, was)
    for key in _STATUSES:
        _users(errs, f"status.{key}", now.get(key) or (), new["spec"])


def _nominated(errs: Errors, now: str, was: str, spec: Object) -> None:
    path = "status.nominatedNodeName"
    if now and now != was:
        checks.faults(errs, path, now, dns1123_subdomain)
        if spec.get("nodeName"):
            errs.append(field.forbidden(path, "may not be set on pods that are already bound to a node"))


def _state_transitions(errs: Errors, path: str, now: Any, was: Any, spec: Object, key: str) -> None:
    """What has terminated for good does not run again."""
    containers: dict[str, Object] = {}
    if key != "ephemeralContainerStatuses":
        listed = spec.get("containers" if key == "containerStatuses" else "initContainers") or ()
        if _may_restart_all(spec):
            return
        containers = {container.get("name") or "": container for container in listed}
    running = {status.get("name") for status in now if not _terminated(status)}
    for number, status in enumerate(was):
        ended = _terminated(status)
        if not ended or status.get("name") not in running:
            continue
        container = containers.get(status.get("name") or "")
        if container is None or not _restarts(container, spec, ended.get("exitCode") or 0):
            problem = "may not be transitioned to non-terminated state"
            errs.append(field.forbidden(f"{path}[{number}].state", problem))


def _terminated(status: Object) -> Object | None:
    return (status.get("state") or {}).get("terminated")


def _may_restart_all(spec: Object) -> bool:
    """Whether some rule restarts all containers of the pod."""
    return any(
        rule.get("action") == "RestartAllContainers"
        for key in ("containers", "initContainers")
        for container in spec.get(key) or ()
        for rule in container.get("restartPolicyRules") or ()
    )


def _restarts(container: Object, spec: Object, exit_code: int) -> bool:
    """Whether a container that ended so is started again."""
    for rule in container.get("restartPolicyRules") or ():
        codes = rule.get("exitCodes") or {}
        among = exit_code in (codes.get("values") or ())
        if (codes.get("operator") == "In" and among) or (codes.get("operator") == "NotIn" and not among):
            return bool(rule.get("action") == "Restart")
    policy = container.get("restartPolicy") or spec.get("restartPolicy")
    return bool(policy == "Always" or (policy == "OnFailure" and exit_code != 0))


def _claim_statuses(errs: Errors, statuses: list[Object], claims: Any) -> None:
    names = {claim.get("name") for claim in claims}
    seen: set[str] = set()
    for number, status in enumerate(statuses):
        at = f"status.resourceClaimStatuses[{number}]"
        name = status.get("name") or ""
        if name not in names:
            problem = "must match the name of an entry in `spec.resourceClaims`"
            errs.append(field.invalid(f"{at}.name", name, problem))
        if name in seen:
            errs.append(field.duplicate(f"{at}.name", name))
        seen.add(name)
        if status.get("resourceClaimName") is not None:
            checks.subdomain(errs, f"{at}.resourceClaimName", status["resourceClaimName"])


def _extended_claim(errs: Errors, path: str, status: Object, spec: Object) -> None:
    """The claim that was made for extended resources, and which request of it each container's resource is."""
    containers = {container.get("name"): container for key in _OWN for container in spec.get(key) or ()}
    mappings = status.get("requestMappings") or ()
    if not mappings:
        errs.append(field.required(f"{path}.requestMappings", "at least one request mapping is required"))
    seen: set[tuple[str, ...]] = set()
    for number, mapping in enumerate(mappings):
        at = f"{path}.requestMappings[{number}]"
        names = tuple(mapping.get(key) or "" for key in _MAPPED)
        container = containers.get(names[0])
        if container is None:
            problem = "must match the name of an entry in spec.initContainers.name or spec.containers.name"
            errs.append(field.invalid(f"{at}.containerName", names[0], problem))
        elif names[1] not in ((container.get("resources") or {}).get("requests") or {}):
            problem = (
                "must match the extended resource name of an entry in spec.initContainers.resources.requests "
                "or spec.containers.resources.requests"
            )
            errs.append(field.invalid(f"{at}.resourceName", names[1], problem))
        checks.label(errs, f"{path}.requestName", names[2])
        if names in seen:
            errs += [field.duplicate(f"{at}.{key}", name) for key, name in zip(_MAPPED, names, strict=True)]
        seen.add(names)
    claim = status.get("resourceClaimName")
    if claim:
        checks.subdomain(errs, f"{path}.resourceClaimName", claim)
    else:
        errs.append(field.required(f"{path}.resourceClaimName"))


def _addresses(errs: Errors, now: Object, was: Object) -> None:
    """podIP is the first of podIPs, hostIP that of hostIPs; at most one address for each family."""
    pod_ips, host_ips = now.get("podIPs") or [], now.get("hostIPs") or []
    _address_list(errs, "status.podIPs", pod_ips, was.get("podIPs") or [])
    pod_ip = now.get("podIP") or ""
    if bool(pod_ip) != bool(pod_ips):
        problem = "podIP and podIPs must either both be set or both be unset"
        errs.append(field.invalid("status.podIPs", _shown_ips(pod_ips), problem))
    elif pod_ips and pod_ip != (pod_ips[0].get("ip") or ""):
        errs.append(field.invalid("status.podIPs[0].ip", pod_ips[0].get("ip") or "", "must be equal to `podIP`"))
    if host_ips:
        first = host_ips[0].get("ip") or ""
        if first != (now.get("hostIP") or ""):
            errs.append(field.invalid("status.hostIPs[0].ip", first, "must be equal to `hostIP`"))
        _address_list(errs, "status.hostIPs", host_ips, was.get("hostIPs") or [])


def _shown_ips(listed: list[Object]) -> field.Literal:
    return field.struct([{"IP": each.get("ip") or ""} for each in listed] or None)


def _address_list(errs: Errors, path: str, listed: list[Object], before: list[Object]) -> None:
    known = {each.get("ip") for each in before}
    for number, address in enumerate(listed):
        if address.get("ip") not in known:
            checks.ip(errs, f"{path}[{number}]", address.get("ip") or "")
    if len(listed) > 1:
        parsed = [checks.parse_ip(address.get("ip") or "") for address in listed]
        if len(listed) > 2 or not checks.is_dual_stack(parsed):
            problem = "may specify no more than one IP for each IP family"
            errs.append(field.invalid(path, _shown_ips(listed), problem))


def _users(errs: Errors, path: str, statuses: Any, spec: Object) -> None:
    windows = (spec.get("os") or {}).get("name") == "windows"
    for number, status in enumerate(statuses):
        user = (status.get("user") or {}).get("linux")
        if user is None:
            continue
        at = f"{path}[{number}].user.linux"
        if windows:
            errs.append(field.forbidden(at, "cannot be set for a windows pod"))
            continue
        groups = [
            (f"{at}.supplementalGroups[{index}]", gid) for index, gid in enumerate(user.get("supplementalGroups") or ())
        ]
        for where, value in ((f"{at}.uid", user.get("uid") or 0), (f"{at}.gid", user.get("gid") or 0), *groups):
            if not 0 <= value <= INT32_MAX:
                errs.append(field.invalid(where, value, field.between(0, INT32_MAX)))


# ---------------------------------------------------------------- ephemeral containers


def ephemeral_containers_update(errs: Errors, new: Object, old: Object) -> None:
    """Ephemeral containers are only ever added."""
    pod_validation.pod(errs, new)
    annotation_update(errs, new, old)
    if MIRROR in (old["metadata"].get("annotations") or {}):
        errs[:] = [field.forbidden("[]", "static pods do not support ephemeral containers")]
        return
    path = "spec.ephemeralContainers"
    now = {container.get("name"): container for container in new["spec"].get("ephemeralContainers") or ()}
    for container in old["spec"].get("ephemeralContainers") or ():
        subject = f"existing ephemeral containers {field.quote(container.get('name') or '')}"
        changed = now.get(container.get("name"))
        if changed is None:
            errs.append(field.forbidden(path, f"{subject} may not be removed\n"))
        elif not equal(changed, container):
            told = diff("EphemeralContainer", container, changed)
            errs.append(field.forbidden(path, f"{subject} may not be changed\n{told}"))
