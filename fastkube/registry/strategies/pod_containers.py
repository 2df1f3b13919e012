"""Validation of containers: regular, init and ephemeral ones, with their ports, environment, probes and hooks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from fastkube.api import field
from fastkube.api.names import (
    config_map_key,
    dns1123_label,
    dns1123_subdomain,
    env_var_name,
    http_header_name,
    port_name,
)
from fastkube.registry.strategies import checks, fields, pod_security, pod_volumes, resources
from fastkube.registry.strategies.checks import Errors, Object
from fastkube.registry.strategies.pod_volumes import Volumes

PROTOCOLS = ("SCTP", "TCP", "UDP")
_ONE_HANDLER = "may not specify more than 1 handler type"
_ONLY_SIDECARS = "may not be set for init containers without restartPolicy=Always"
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


class Scope(NamedTuple):
    """What containers of one pod have in common, as their validation needs it."""

    volumes: Volumes
    claims: Collection[str]
    grace_period_s: int | None
    restart_policy: str
    host_users: bool


def each(spec: Object, path: str) -> Iterator[tuple[Object, str]]:
    """All containers with their paths, in upstream's order of visiting."""
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for number, container in enumerate(spec.get(key) or ()):
            yield container, f"{path}.{key}[{number}]"


# ---------------------------------------------------------------- the three lists


def regular(errs: Errors, path: str, containers: list[Object], scope: Scope) -> None:
    if not containers:
        errs.append(field.required(path))
        return
    names: set[str] = set()
    for number, container in enumerate(containers):
        at = f"{path}[{number}]"
        _common(errs, at, container, scope)
        name = container.get("name") or ""
        if name in names:
            errs.append(field.duplicate(f"{at}.name", name))
        names.add(name)
        if "lifecycle" in container:
            _lifecycle(errs, f"{at}.lifecycle", container["lifecycle"], scope)
        _probes(errs, at, container, scope)
        if "restartPolicy" in container or "restartPolicyRules" in container:
            _restart(errs, at, container)
    _host_ports(errs, path, enumerate(containers))


def init(errs: Errors, path: str, containers: list[Object], others: Collection[str], scope: Scope) -> None:
    """`others` are the names of the regular containers."""
    names = set(others)
    for number, container in enumerate(containers):
        at = f"{path}[{number}]"
        _common(errs, at, container, scope)
        if "restartPolicy" in container or "restartPolicyRules" in container:
            _restart(errs, at, container)
        name = container.get("name") or ""
        if name in names:
            errs.append(field.duplicate(f"{at}.name", name))
        elif name:
            names.add(name)
        _host_ports(errs, path, [(0, container)])  # they run one by one; the index is upstream's
        if container.get("restartPolicy") == "Always":
            if "lifecycle" in container:
                _lifecycle(errs, f"{at}.lifecycle", container["lifecycle"], scope)
            _probes(errs, at, container, scope)
            continue
        for key in ("lifecycle", *_PROBES):
            if container.get(key) is not None:
                errs.append(field.forbidden(f"{at}.{key}", _ONLY_SIDECARS))
        for index, policy in enumerate(container.get("resizePolicy") or ()):
            if policy.get("restartPolicy") == "RestartContainer":
                problem = "must not be set to 'RestartContainer' for non-sidecar initContainers"
                where = f"{at}.resizePolicy[{index}].restartPolicy"
                errs.append(field.invalid(where, "RestartContainer", problem))


_EPHEMERAL_FORBIDDEN = (
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    *_PROBES,
    "lifecycle",
)
_NOT_EPHEMERAL = "cannot be set for an Ephemeral Container"


def ephemeral(errs: Errors, path: str, containers: list[Object], others: Collection[str], scope: Scope) -> None:
    """`others` are the names of all other containers."""
    names = set(others)
    for number, container in enumerate(containers):
        at = f"{path}[{number}]"
        _common(errs, at, container, scope)
        only_in_pod(errs, at, container)
        name = container.get("name") or ""
        if name in names:
            errs.append(field.duplicate(f"{at}.name", name))
        names.add(name)
        target = container.get("targetContainerName")
        if target and target not in others:
            errs.append(field.not_found(f"{at}.targetContainerName", target))
        for key in _EPHEMERAL_FORBIDDEN:
            if container.get(key) or (key != "resources" and container.get(key) is not None):
                errs.append(field.forbidden(f"{at}.{key}", _NOT_EPHEMERAL))
        for index, mount in enumerate(container.get("volumeMounts") or ()):
            for key in ("subPath", "subPathExpr"):
                if mount.get(key):
                    errs.append(field.forbidden(f"{at}.volumeMounts[{index}].{key}", _NOT_EPHEMERAL))


def only_in_pod(errs: Errors, path: str, container: Object) -> None:
    """What templates may have and Pods may not."""
    image = container.get("image") or ""
    if image and (image[0].isspace() or image[-1].isspace()):
        errs.append(field.invalid(f"{path}.image", image, "must not have leading or trailing whitespace"))


# ---------------------------------------------------------------- what all containers have

_MESSAGE_POLICIES = ("File", "FallbackToLogsOnError")


def _common(errs: Errors, path: str, container: Object, scope: Scope) -> None:
    name = container.get("name")
    if not name:
        errs.append(field.required(f"{path}.name"))
    elif found := dns1123_label(name):
        errs += [field.invalid(f"{path}.name", name, fault) for fault in found]
    if not container.get("image"):
        errs.append(field.required(f"{path}.image"))
    policy = container.get("terminationMessagePolicy")
    if policy not in _MESSAGE_POLICIES:
        checks.one_of_required(errs, f"{path}.terminationMessagePolicy", policy or "", _MESSAGE_POLICIES)
    if "ports" in container:
        _ports(errs, f"{path}.ports", container["ports"])
    if "env" in container:
        _env(errs, f"{path}.env", container["env"])
    if "envFrom" in container:
        _env_from(errs, f"{path}.envFrom", container["envFrom"])
    if "volumeMounts" in container:
        pod_volumes.mounts(errs, f"{path}.volumeMounts", container, scope.volumes)
    if "volumeDevices" in container:
        pod_volumes.devices(errs, f"{path}.volumeDevices", container, scope.volumes)
    pull_policy = container.get("imagePullPolicy")
    if pull_policy not in pod_volumes.PULL_POLICIES:
        pod_volumes.pull_policy(errs, f"{path}.imagePullPolicy", pull_policy or "")
    if container.get("resources"):
        resources.requirements(errs, f"{path}.resources", container["resources"], scope.claims)
    if "resizePolicy" in container:
        _resize(errs, f"{path}.resizePolicy", container["resizePolicy"], scope.restart_policy)
    if container.get("securityContext"):
        pod_security.container(errs, f"{path}.securityContext", container["securityContext"], scope.host_users)


def _ports(errs: Errors, path: str, ports: list[Object]) -> None:
    names: set[str] = set()
    for number, port in enumerate(ports):
        at = f"{path}[{number}]"
        name = port.get("name")
        if name:
            if found := port_name(name):
                errs += [field.invalid(f"{at}.name", name, fault) for fault in found]
            elif name in names:
                errs.append(field.duplicate(f"{at}.name", name))
            else:
                names.add(name)
        inside, outside = port.get("containerPort") or 0, port.get("hostPort") or 0
        if not inside:
            errs.append(field.required(f"{at}.containerPort"))
        else:
            checks.port(errs, f"{at}.containerPort", inside)
        if outside:
            checks.port(errs, f"{at}.hostPort", outside)
        protocol = port.get("protocol") or ""
        if protocol not in PROTOCOLS:
            checks.one_of_required(errs, f"{at}.protocol", protocol, PROTOCOLS)


def _host_ports(errs: Errors, path: str, containers: Collection[tuple[int, Object]] | enumerate[Object]) -> None:
    """No two containers that run at once may take one port of the host."""
    taken: set[str] = set()
    for number, container in containers:
        if "ports" not in container:
            continue
        for index, port in enumerate(container["ports"]):
            if not port.get("hostPort"):
                continue
            key = f"{port.get('protocol') or ''}/{port.get('hostIP') or ''}/{port['hostPort']}"
            if key in taken:
                errs.append(field.duplicate(f"{path}[{number}].ports[{index}].hostPort", key))
            taken.add(key)


# ---------------------------------------------------------------- environment

_ONE_VALUE = "may not have more than one field specified at a time"
_SOURCES = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"


def _env(errs: Errors, path: str, variables: list[Object]) -> None:
    for number, variable in enumerate(variables):
        name = variable.get("name")
        if not name:
            errs.append(field.required(f"{path}[{number}].name"))
        elif found := env_var_name(name):
            errs += [field.invalid(f"{path}[{number}].name", name, fault) for fault in found]
        source = variable.get("valueFrom")
        if source is not None:
            _value_from(errs, f"{path}[{number}].valueFrom", source, bool(variable.get("value")))


def _value_from(errs: Errors, path: str, source: Object, has_value: bool) -> None:
    found = 0
    for key, check in _VALUE_SOURCES:
        if source.get(key) is not None:
            found += 1
            check(errs, f"{path}.{key}", source[key])
    if not found:
        errs.append(field.invalid(path, "", _SOURCES))
    elif has_value:
        errs.append(field.invalid(path, "", "may not be specified when `value` is not empty"))
    elif found > 1:
        errs.append(field.invalid(path, "", _ONE_VALUE))


def _field_ref(errs: Errors, path: str, source: Object) -> None:
    fields.object_field(errs, path, source, fields.ENV_FIELDS)


def _resource_ref(errs: Errors, path: str, source: Object) -> None:
    fields.resource_field(errs, path, source, in_volume=False)


def _key_ref(errs: Errors, path: str, source: Object) -> None:
    checks.subdomain(errs, f"{path}.name", source.get("name") or "")
    key = source.get("key")
    if not key:
        errs.append(field.required(f"{path}.key"))
    else:
        checks.faults(errs, f"{path}.key", key, config_map_key)


def _file_ref(errs: Errors, path: str, source: Object) -> None:
    key, volume, where = source.get("key"), source.get("volumeName"), source.get("path")
    if not key:
        errs.append(field.required(f"{path}.key"))
    else:
        checks.faults(errs, f"{path}.key", key, env_var_name)
    if not volume:
        errs.append(field.required(f"{path}.volumeName"))
    else:
        checks.label(errs, f"{path}.volumeName", volume)
    if not where:
        errs.append(field.required(f"{path}.path"))
    else:
        checks.uri_path_steps(errs, f"{path}.path", where)


_VALUE_SOURCES: tuple[tuple[str, Callable[[Errors, str, Object], None]], ...] = (
    ("fieldRef", _field_ref),
    ("resourceFieldRef", _resource_ref),
    ("configMapKeyRef", _key_ref),
    ("secretKeyRef", _key_ref),
    ("fileKeyRef", _file_ref),
)


def _env_from(errs: Errors, path: str, sources: list[Object]) -> None:
    for number, source in enumerate(sources):
        prefix = source.get("prefix")
        if prefix:
            checks.faults(errs, f"{path}[{number}].prefix", prefix, env_var_name)
        found = 0
        for key in ("configMapRef", "secretRef"):
            if source.get(key) is not None:
                found += 1
                _named(errs, f"{path}[{number}].{key}.name", source[key].get("name"))
        if not found:
            errs.append(field.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif found > 1:
            errs.append(field.invalid(path, "", _ONE_VALUE))


def _named(errs: Errors, path: str, name: str | None) -> None:
    if not name:
        errs.append(field.required(path))
    else:
        errs += [field.invalid(path, name, fault) for fault in dns1123_subdomain(name, True)]


def file_volumes(errs: Errors, path: str, spec: Object) -> None:
    """Environment files must be in an emptyDir."""
    volumes: Volumes | None = None
    for container, at in each(spec, path):
        for number, variable in enumerate(container.get("env") or ()):
            reference = (variable.get("valueFrom") or {}).get("fileKeyRef")
            if reference is None:
                continue
            if volumes is None:
                volumes = {volume.get("name") or "": volume for volume in spec.get("volumes") or ()}
            name = reference.get("volumeName") or ""
            where = f"{at}.env[{number}].valueFrom.fileKeyRef.volumeName"
            if name not in volumes:
                errs.append(field.not_found(where, name))
            elif volumes[name].get("emptyDir") is None:
                errs.append(field.invalid(where, name, "referenced volume must be of type emptyDir"))


# ---------------------------------------------------------------- probes and hooks

_PROBE_NUMBERS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")


def _probes(errs: Errors, path: str, container: Object, scope: Scope) -> None:
    for key in _PROBES:
        if key not in container:
            continue
        probe = container[key]
        at = f"{path}.{key}"
        _handler(errs, at, probe, scope, _PROBE_HANDLERS)
        checks.fields_non_negative(errs, at, probe, *_PROBE_NUMBERS)
        grace = probe.get("terminationGracePeriodSeconds")
        if grace is not None and grace <= 0:
            errs.append(field.invalid(f"{at}.terminationGracePeriodSeconds", grace, "must be greater than 0"))
        if key == "readinessProbe":
            if grace is not None:
                problem = "must not be set for readinessProbes"
                errs.append(field.invalid(f"{at}.terminationGracePeriodSeconds", grace, problem))
        elif probe.get("successThreshold") != 1:
            threshold = probe.get("successThreshold") or 0
            errs.append(field.invalid(f"{at}.successThreshold", threshold, "must be 1"))


def _lifecycle(errs: Errors, path: str, lifecycle: Object, scope: Scope) -> None:
    for hook in ("postStart", "preStop"):
        if lifecycle.get(hook) is not None:
            _handler(errs, f"{path}.{hook}", lifecycle[hook], scope, _HOOK_HANDLERS)


def _handler(
    errs: Errors, path: str, handler: Object, scope: Scope, kinds: tuple[tuple[str, _HandlerCheck], ...]
) -> None:
    found = 0
    for key, check in kinds:
        if handler.get(key) is None:
            continue
        if found:
            errs.append(field.forbidden(f"{path}.{key}", _ONE_HANDLER))
        else:
            found = 1
            check(errs, f"{path}.{key}", handler[key], scope)
    if not found:
        errs.append(field.required(path, "must specify a handler type"))


def _exec(errs: Errors, path: str, action: Object, scope: Scope) -> None:
    checks.required(errs, path, action, "command")


def _http_get(errs: Errors, path: str, action: Object, scope: Scope) -> None:
    checks.required(errs, path, action, "path")
    checks.port_or_name(errs, f"{path}.port", action.get("port") or 0)
    checks.one_of(errs, f"{path}.scheme", action.get("scheme") or "", ("HTTP", "HTTPS"))
    for header in action.get("httpHeaders") or ():
        checks.faults(errs, f"{path}.httpHeaders", header.get("name") or "", http_header_name)


def _tcp_socket(errs: Errors, path: str, action: Object, scope: Scope) -> None:
    checks.port_or_name(errs, f"{path}.port", action.get("port") or 0)


def _grpc(errs: Errors, path: str, action: Object, scope: Scope) -> None:
    checks.port(errs, f"{path}.port", action.get("port") or 0)


def _sleep(errs: Errors, path: str, action: Object, scope: Scope) -> None:
    seconds, grace = action.get("seconds") or 0, scope.grace_period_s
    if grace is not None and not 0 <= seconds <= grace:
        problem = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
        errs.append(field.invalid(path, seconds, problem))


_HandlerCheck = Callable[[Errors, str, Object, Scope], None]
_COMMON_HANDLERS: tuple[tuple[str, _HandlerCheck], ...] = (
    ("exec", _exec),
    ("httpGet", _http_get),
    ("tcpSocket", _tcp_socket),
)
_PROBE_HANDLERS = (*_COMMON_HANDLERS, ("grpc", _grpc))
_HOOK_HANDLERS = (*_COMMON_HANDLERS, ("sleep", _sleep))

# ---------------------------------------------------------------- restart and resize

_RESTART_POLICIES = ("Always", "Never", "OnFailure")
_RESTART_ACTIONS = ("Restart", "RestartAllContainers")
_EXIT_CODE_OPERATORS = ("In", "NotIn")
_RULES_MAX, _EXIT_CODES_MAX = 20, 255


def _restart(errs: Errors, path: str, container: Object) -> None:
    policy, rules = container.get("restartPolicy"), container.get("restartPolicyRules") or []
    if policy is not None:
        checks.one_of(errs, f"{path}.restartPolicy", policy, _RESTART_POLICIES)
    elif rules:
        problem = "must specify restartPolicy when restart rules are used"
        errs.append(field.required(f"{path}.restartPolicy", problem))
    if len(rules) > _RULES_MAX:
        errs.append(field.too_many(f"{path}.restartPolicyRules", len(rules), _RULES_MAX))
    for number, rule in enumerate(rules):
        at = f"{path}.restartPolicyRules[{number}]"
        checks.one_of(errs, f"{at}.action", rule.get("action") or "", _RESTART_ACTIONS)
        codes = rule.get("exitCodes")
        if codes is None:
            errs.append(field.required(f"{at}.exitCodes", "must be specified"))
            continue
        checks.one_of(errs, f"{at}.exitCodes.operator", codes.get("operator") or "", _EXIT_CODE_OPERATORS)
        values = codes.get("values") or ()
        if len(values) > _EXIT_CODES_MAX:
            errs.append(field.too_many(f"{at}.exitCodes.values", len(values), _EXIT_CODES_MAX))


_RESIZABLE = ("cpu", "memory")
_RESIZE_POLICIES = ("NotRequired", "RestartContainer")


def _resize(errs: Errors, path: str, policies: list[Object], restart_policy: str) -> None:
    seen: set[str] = set()
    for number, each_policy in enumerate(policies):
        resource, policy = each_policy.get("resourceName") or "", each_policy.get("restartPolicy") or ""
        if resource in seen:
            errs.append(field.duplicate(f"{path}[{number}]", resource))
        seen.add(resource)
        checks.one_of_required(errs, path, resource, _RESIZABLE)
        checks.one_of_required(errs, path, policy, _RESIZE_POLICIES)
        if restart_policy == "Never" and policy != "NotRequired":
            problem = "must be 'NotRequired' when pod `restartPolicy` is 'Never'"
            errs.append(field.invalid(path, policy, problem))
