"""Ingresses and IngressClasses."""

from __future__ import annotations

import re

from fastkube.api import field
from fastkube.api.names import (
    dns1123_label,
    dns1123_subdomain,
    path_segment,
    port_name,
    port_number,
    wildcard_dns1123_subdomain,
)
from fastkube.errors import Cause
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.checks import Errors
from fastkube.registry.strategy import Call, Object, Strategy

_CLASS_ANNOTATION = "kubernetes.io/ingress.class"
_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_FORBIDDEN_IN_PATHS = ("//", "/./", "/../", "%2f", "%2F")
_FORBIDDEN_AT_END = ("/..", "/.")
_ABSOLUTE = "must be an absolute path"
_NOT_AN_IP = "must be a DNS name, not an IP address"


class IngressStrategy(Strategy):
    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        _spec(errs, obj["spec"], lax_secrets=False, lax_wildcards=False)
        annotation = (obj["metadata"].get("annotations") or {}).get(_CLASS_ANNOTATION)
        name = obj["spec"].get("ingressClassName")
        if annotation is not None and name is not None and annotation != name:
            problem = "must match `ingressClassName` when both are specified"
            errs.append(field.invalid(f"annotations.{_CLASS_ANNOTATION}", annotation, problem))
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        """What older servers took may stay: names of secrets that are none, rules of wildcard hosts."""
        errs: Errors = []
        secrets = any(map(_secret_faults, old["spec"].get("tls") or ()))
        wildcards = any(
            "*" in (rule.get("host") or "") and _rule_faults(rule) for rule in old["spec"].get("rules") or ()
        )
        _spec(errs, new["spec"], lax_secrets=secrets, lax_wildcards=wildcards)
        return errs

    def validate_status_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        now, was = (((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or [] for obj in (new, old))
        known = [each["ip"] for each in was if each.get("ip")]
        for number, ingress in enumerate(now):
            path = f"status.loadBalancer.ingress[{number}]"
            if ingress.get("ip"):
                checks.ip(errs, f"{path}.ip", ingress["ip"], known)
            if ingress.get("hostname"):
                checks.subdomain(errs, f"{path}.hostname", ingress["hostname"])
                if checks.parse_ip(ingress["hostname"]) is not None:
                    errs.append(field.invalid(f"{path}.hostname", ingress["hostname"], _NOT_AN_IP))
        return errs

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        annotated = _CLASS_ANNOTATION in (obj["metadata"].get("annotations") or {})
        if old is not None or not annotated or obj["spec"].get("ingressClassName") is not None:
            return []
        return [f"annotation \"{_CLASS_ANNOTATION}\" is deprecated, please use 'spec.ingressClassName' instead"]


def _spec(errs: Errors, spec: Object, *, lax_secrets: bool, lax_wildcards: bool) -> None:
    rules, backend = spec.get("rules") or [], spec.get("defaultBackend")
    if not rules and backend is None:
        errs.append(field.invalid("spec", None, "either `defaultBackend` or `rules` must be specified"))
    if backend is not None:
        _backend(errs, "spec.defaultBackend", backend)
    for number, rule in enumerate(rules):
        path, host = f"spec.rules[{number}]", rule.get("host")
        if host:
            if checks.parse_ip(host) is not None:
                errs.append(field.invalid(f"{path}.host", host, _NOT_AN_IP))
            _host(errs, f"{path}.host", host)
        if not (lax_wildcards and host and "*" in host):
            errs += _rule_faults(rule, path)
    for number, tls in enumerate(spec.get("tls") or ()):
        path = f"spec.tls[{number}]"
        for index, host in enumerate(tls.get("hosts") or ()):
            _host(errs, f"{path}.hosts[{index}]", host)
        if not lax_secrets:
            errs += [field.invalid(f"{path}.secretName", tls["secretName"], fault) for fault in _secret_faults(tls)]
    name = spec.get("ingressClassName")
    if name is not None:
        checks.subdomain(errs, "spec.ingressClassName", name)


def _secret_faults(tls: Object) -> list[str]:
    name = tls.get("secretName")
    return dns1123_subdomain(name) if name else []


def _host(errs: Errors, path: str, host: str) -> None:
    checks.faults(errs, path, host, wildcard_dns1123_subdomain if "*" in host else dns1123_subdomain)


def _rule_faults(rule: Object, path: str = "") -> Errors:
    errs: Errors = []
    http = rule.get("http")
    if http is None:
        return errs
    if not http.get("paths"):
        errs.append(field.required(f"{path}.http.paths"))
    for number, each in enumerate(http.get("paths") or ()):
        _path(errs, f"{path}.http.paths[{number}]", each)
    return errs


def _path(errs: Errors, path: str, told: Object) -> None:
    kind, where, at = told.get("pathType"), told.get("path") or "", f"{path}.path"
    if kind is None:
        errs.append(field.required(f"{path}.pathType", "pathType must be specified"))
        return
    if kind in ("Exact", "Prefix"):
        if not where.startswith("/"):
            errs.append(field.invalid(at, where, _ABSOLUTE))
        errs += [
            field.invalid(at, where, f"must not contain '{part}'") for part in _FORBIDDEN_IN_PATHS if part in where
        ]
        errs += [
            field.invalid(at, where, f"cannot end with '{end}'") for end in _FORBIDDEN_AT_END if where.endswith(end)
        ]
    elif kind == "ImplementationSpecific":
        if where and not where.startswith("/"):
            errs.append(field.invalid(at, where, _ABSOLUTE))
    else:
        errs.append(field.not_supported(f"{path}.pathType", kind, _PATH_TYPES))
    _backend(errs, f"{path}.backend", told.get("backend") or {})


def _backend(errs: Errors, path: str, backend: Object) -> None:
    resource, service = backend.get("resource"), backend.get("service")
    if resource is not None and service is not None:
        errs.append(field.invalid(path, "", "cannot set both resource and service backends"))
    elif resource is not None:
        _reference(errs, f"{path}.resource", resource)
    elif service is not None:
        if not service.get("name"):
            errs.append(field.required(f"{path}.service.name"))
        else:
            checks.faults(errs, f"{path}.service.name", service["name"], dns1123_label)
        _backend_port(errs, path, service.get("port") or {})
    else:
        errs.append(field.invalid(path, "", "resource or service backend is required"))


def _backend_port(errs: Errors, path: str, port: Object) -> None:
    name, number = port.get("name"), port.get("number")
    if name and number:
        errs.append(field.invalid(path, "", "cannot set both port name & port number"))
    elif name:
        checks.faults(errs, f"{path}.service.port.name", name, port_name)
    elif number:
        errs += [field.invalid(f"{path}.service.port.number", number, fault) for fault in port_number(number)]
    else:
        errs.append(field.required(path, "port name or number is required"))


def _reference(errs: Errors, path: str, reference: Object) -> None:
    group = reference.get("apiGroup")
    if group is not None:
        checks.subdomain(errs, f"{path}.apiGroup", group)
    for key in ("kind", "name"):
        value = reference.get(key)
        if not value:
            errs.append(field.required(f"{path}.{key}"))
        else:
            checks.faults(errs, f"{path}.{key}", value, path_segment)


# ---------------------------------------------------------------- IngressClass

_CONTROLLER_MAX = 250
_HTTP_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"
_is_http_path = re.compile(_HTTP_PATH).fullmatch


class IngressClassStrategy(Strategy):
    has_status = False

    def default(self, obj: Object) -> None:
        parameters = obj.setdefault("spec", {}).get("parameters")
        if parameters is not None and parameters.get("scope") is None:
            parameters["scope"] = "Cluster"

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        controller = obj["spec"].get("controller") or ""
        if len(controller.encode()) > _CONTROLLER_MAX:
            errs.append(field.too_long("spec.controller", _CONTROLLER_MAX))
        _domain_prefixed_path(errs, "spec.controller", controller)
        parameters = obj["spec"].get("parameters")
        if parameters is not None:
            _parameters(errs, "spec.parameters", parameters)
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        now, was = (obj["spec"].get("controller") or "" for obj in (new, old))
        checks.immutable(errs, "spec.controller", now, was)
        return errs + self.validate(call, new)


def _domain_prefixed_path(errs: Errors, path: str, text: str) -> None:
    if not text:
        errs.append(field.required(path))
        return
    host, _, rest = text.partition("/")
    if not host or not rest:
        errs.append(field.invalid(path, text, 'must be a domain-prefixed path (such as "acme.io/foo")'))
        return
    checks.subdomain(errs, path, host)
    if not _is_http_path(rest):
        errs.append(field.invalid(path, rest, f"Invalid path (regex used for validation is '{_HTTP_PATH}')"))


def _parameters(errs: Errors, path: str, parameters: Object) -> None:
    _reference(errs, path, parameters)
    scope, namespace = parameters["scope"], parameters.get("namespace")
    checks.one_of(errs, f"{path}.scope", scope, ("Cluster", "Namespace"))
    if scope == "Namespace":
        if namespace is None:
            errs.append(field.required(f"{path}.namespace", "`parameters.scope` is set to 'Namespace'"))
        else:
            checks.label(errs, f"{path}.namespace", namespace)
    if scope == "Cluster" and namespace is not None:
        errs.append(field.forbidden(f"{path}.namespace", "`parameters.scope` is set to 'Cluster'"))


STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("networking.k8s.io", "ingresses"): IngressStrategy(),
    ("networking.k8s.io", "ingressclasses"): IngressClassStrategy(),
}
