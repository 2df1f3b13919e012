"""Which authorizers there are, in which order: the --authorization-mode flags, or the file of --authorization-config.

Problems are ValueErrors that name the field in upstream's words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastkube.api.field import quote
from fastkube.config import parse_duration
from fastkube.server.authz import Authorizer
from fastkube.server.authz_webhook import FAILURE_POLICIES, WebhookAuthorizer, WebhookConfig
from fastkube.server.options import AUTHORIZATION_MODES
from fastkube.server.outbound import Peer
from fastkube.server.reloading import Watched

if TYPE_CHECKING:
    from fastkube.api.catalog import Catalog
    from fastkube.clock import Clock
    from fastkube.server.options import ServerOptions
    from fastkube.store import Store

Object = dict[str, Any]

_METRIC = "apiserver_authorization_config_controller"
_VERSIONS = ("v1", "v1beta1", "v1alpha1")
_SAR_VERSIONS = ("v1", "v1beta1")
_CONNECTIONS = ("InClusterConfig", "KubeConfigFile")
_TIMEOUT_MAX_S = 30.0


def authorizer_of(options: ServerOptions, store: Store, catalog: Catalog, clock: Clock) -> Authorizer:
    """Raises ValueError and OSError for what cannot be."""
    if options.authorization_config:
        return Authorizer(_of_file(options, clock), store, catalog)
    modes = options.authorization_mode
    if ("Webhook" in modes) != bool(options.authorization_webhook_config_file):
        raise ValueError("authorization-webhook-config-file: must be given with the authorization mode Webhook only")
    return Authorizer(tuple(_of_flags(options, clock) if mode == "Webhook" else mode for mode in modes), store, catalog)


def watched(options: ServerOptions, authorizer: Authorizer, clock: Clock) -> list[Watched]:
    """The file of --authorization-config, which the authorizer follows."""

    async def reload() -> None:
        await authorizer.replace(_of_file(options, clock))

    config = options.authorization_config
    return [Watched("authorization configuration", [config], reload, _METRIC)] if config else []


def _of_flags(options: ServerOptions, clock: Clock) -> WebhookAuthorizer:
    config = WebhookConfig(
        version=options.authorization_webhook_version,
        authorized_ttl_s=options.authorization_webhook_cache_authorized_ttl_s,
        unauthorized_ttl_s=options.authorization_webhook_cache_unauthorized_ttl_s,
    )
    return WebhookAuthorizer(Peer.of_kubeconfig(options.authorization_webhook_config_file, clock), config, clock)


def _of_file(options: ServerOptions, clock: Clock) -> tuple[str | WebhookAuthorizer, ...]:
    from fastkube.server.authn_config import only, read_document

    document = read_document(options.authorization_config, "AuthorizationConfiguration", _VERSIONS)
    only(document, "", "apiVersion", "kind", "authorizers")
    entries = document.get("authorizers") or []
    if not entries:
        raise ValueError("authorizers: Required value: at least one authorization mode must be defined")
    names: set[str] = set()
    found: list[str | WebhookAuthorizer] = []
    for number, entry in enumerate(entries):
        path = f"authorizers[{number}]"
        only(entry, path, "type", "name", "webhook")
        mode, name = entry.get("type") or "", entry.get("name") or ""
        if mode not in AUTHORIZATION_MODES:
            raise ValueError(f"{path}.type: Unsupported value: {quote(mode)}: one of {', '.join(AUTHORIZATION_MODES)}")
        if not name:
            raise ValueError(f"{path}.name: Required value")
        if name in names or (mode != "Webhook" and mode in found):
            raise ValueError(f"{path}: Duplicate value: {quote(name if name in names else mode)}")
        if (mode == "Webhook") != ("webhook" in entry):
            problem = "required when type=Webhook" if mode == "Webhook" else "may only be specified when type=Webhook"
            raise ValueError(f"{path}.webhook: Required value: {problem}")
        names.add(name)
        found.append(_webhook(entry["webhook"], f"{path}.webhook", clock) if mode == "Webhook" else mode)
    return tuple(found)


def _webhook(entry: Object, path: str, clock: Clock) -> WebhookAuthorizer:
    from fastkube.server.authn_config import only

    only(
        entry, path, "timeout", "authorizedTTL", "unauthorizedTTL", "cacheAuthorizedRequests",
        "cacheUnauthorizedRequests", "subjectAccessReviewVersion", "matchConditionSubjectAccessReviewVersion",
        "failurePolicy", "connectionInfo", "matchConditions",
    )  # fmt: skip
    timeout_s = _duration(entry, path, "timeout")
    if not 0 < timeout_s <= _TIMEOUT_MAX_S:
        raise ValueError(f"{path}.timeout: Invalid value: must be > 0s and <= 30s")
    ttls = []
    for field, switch in (
        ("authorizedTTL", "cacheAuthorizedRequests"),
        ("unauthorizedTTL", "cacheUnauthorizedRequests"),
    ):
        ttl_s = _duration(entry, path, field)
        ttls.append(ttl_s if entry.get(switch, True) else 0.0)
    conditions = entry.get("matchConditions") or []
    if conditions and entry.get("matchConditionSubjectAccessReviewVersion") != "v1":
        raise ValueError(f"{path}.matchConditionSubjectAccessReviewVersion: Required value: must be v1")
    config = WebhookConfig(
        version=_one_of(entry, path, "subjectAccessReviewVersion", _SAR_VERSIONS),
        timeout_s=timeout_s,
        authorized_ttl_s=ttls[0],
        unauthorized_ttl_s=ttls[1],
        failure_policy=_one_of(entry, path, "failurePolicy", FAILURE_POLICIES),
        conditions=tuple(
            _condition(condition, f"{path}.matchConditions[{number}]") for number, condition in enumerate(conditions)
        ),
    )
    connection = entry.get("connectionInfo") or {}
    only(connection, f"{path}.connectionInfo", "type", "kubeConfigFile")
    kind = _one_of(connection, f"{path}.connectionInfo", "type", _CONNECTIONS)
    if kind == "InClusterConfig":
        if connection.get("kubeConfigFile"):
            told = f"Invalid value: {quote(connection['kubeConfigFile'])}: can only be set when type=KubeConfigFile"
            raise ValueError(f"{path}.connectionInfo.kubeConfigFile: {told}")
        return WebhookAuthorizer(Peer.in_cluster(clock), config, clock)
    if not connection.get("kubeConfigFile"):
        raise ValueError(f"{path}.connectionInfo.kubeConfigFile: Required value")
    return WebhookAuthorizer(Peer.of_kubeconfig(connection["kubeConfigFile"], clock), config, clock)


def _duration(entry: Object, path: str, field: str) -> float:
    if field not in entry:
        raise ValueError(f"{path}.{field}: Required value")
    try:
        return parse_duration(str(entry[field]))
    except ValueError as problem:
        raise ValueError(f"{path}.{field}: Invalid value: {problem}") from None


def _one_of(entry: Object, path: str, field: str, known: tuple[str, ...]) -> str:
    told = entry.get(field) or ""
    if not told:
        raise ValueError(f"{path}.{field}: Required value")
    if told not in known:
        raise ValueError(f"{path}.{field}: Unsupported value: {quote(str(told))}: one of {', '.join(known)}")
    return str(told)


def _condition(entry: Object, path: str) -> Callable[[Object], bool]:
    """A condition over `request`, the SubjectAccessReviewSpec."""
    from fastkube import cel
    from fastkube.server.authn_config import compiled, only

    only(entry, path, "expression")
    text = entry.get("expression") or ""
    if not text:
        raise ValueError(f"{path}.expression: Required value")
    program = compiled(f"{path}.expression", text, {"request": _request_type()}, "bool")

    def matches(spec: Object) -> bool:
        try:
            return bool(program.evaluate({"request": spec}))
        except cel.EvalError as problem:
            raise ValueError(f"{path}: {problem}") from None

    return matches


def _request_type() -> Any:
    from fastkube.cel import DYN, STRING, Field, list_of, map_of, object_type

    def texts(*names: str) -> dict[str, Field]:
        return {name: Field(name, STRING) for name in names}

    resource = texts("namespace", "verb", "group", "version", "resource", "subresource", "name")
    resource |= {name: Field(name, DYN) for name in ("fieldSelector", "labelSelector")}
    fields = {
        **texts("user", "uid"),
        "groups": Field("groups", list_of(STRING)),
        "extra": Field("extra", map_of(STRING, list_of(STRING))),
        "resourceAttributes": Field("resourceAttributes", object_type("kubernetes.ResourceAttributes", resource)),
        "nonResourceAttributes": Field(
            "nonResourceAttributes", object_type("kubernetes.NonResourceAttributes", texts("path", "verb"))
        ),
    }
    return object_type("kubernetes.SubjectAccessReviewSpec", fields)
