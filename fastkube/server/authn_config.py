"""How requests may be authenticated besides by what is the server's own: the file of --authentication-config, or the
--oidc-* flags, which say the same for one issuer. Problems are ValueErrors that name the field in upstream's words.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from fastkube import cel
from fastkube.api.field import quote
from fastkube.registry.strategy import UserInfo
from fastkube.server import jose
from fastkube.server.issuers import Anonymous, ClaimMapping, Claims, Identities, IssuerConfig, Refused

if TYPE_CHECKING:
    from fastkube.server.options import ServerOptions

Object = dict[str, Any]

_GROUP = "apiserver.config.k8s.io"
_VERSIONS = ("v1", "v1beta1", "v1alpha1")

_CLAIMS = cel.map_of(cel.STRING, cel.DYN)
_USER = cel.object_type(
    "kubernetes.UserInfo",
    {
        "username": cel.Field("username", cel.STRING),
        "uid": cel.Field("uid", cel.STRING),
        "groups": cel.Field("groups", cel.list_of(cel.STRING)),
        "extra": cel.Field("extra", cel.map_of(cel.STRING, cel.list_of(cel.STRING))),
    },
)


def identities(options: ServerOptions) -> Identities:
    """What the options say. Raises ValueError and OSError."""
    if options.authentication_config:
        return _read(options)
    return Identities((_of_flags(options),), Anonymous(options.anonymous_auth))


# ---------------------------------------------------------------- flags


def _of_flags(options: ServerOptions) -> IssuerConfig:
    url = options.oidc_issuer_url
    if not url or not options.oidc_client_id:
        raise ValueError("oidc-issuer-url and oidc-client-id must be specified together")
    _check_url("oidc-issuer-url", url)
    unknown = [name for name in options.oidc_signing_algs if name not in jose.ALGORITHMS]
    if unknown:
        raise ValueError(f"oidc-signing-algs: {unknown[0]!r} is not one of {', '.join(jose.ALGORITHMS)}")
    claim, prefix = options.oidc_username_claim, options.oidc_username_prefix
    if not prefix and claim != "email":
        prefix = f"{url}#"
    groups = ClaimMapping(options.oidc_groups_claim, options.oidc_groups_prefix) if options.oidc_groups_claim else None
    return IssuerConfig(
        url=url,
        audiences=(options.oidc_client_id,),
        username=ClaimMapping(claim, "" if prefix == "-" else prefix),
        groups=groups,
        ca=Path(options.oidc_ca_file).read_bytes() if options.oidc_ca_file else b"",
        algorithms=tuple(options.oidc_signing_algs),
        claim_rules=tuple(_required_claim(pair) for pair in options.oidc_required_claim),
    )


def _required_claim(pair: str) -> Callable[[Claims], str]:
    name, equals, value = pair.partition("=")
    if not name or not equals:
        raise ValueError(f"oidc-required-claim: {pair!r} is not of the form key=value")
    return _equals(name, value)


def _equals(name: str, value: str) -> Callable[[Claims], str]:
    def rule(claims: Claims) -> str:
        if name not in claims:
            return f"required claim {name} not present in ID token"
        return "" if claims[name] == value else f"required claim {name} value does not match"

    return rule


def _check_url(path: str, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https":
        raise ValueError(f"{path}: Invalid value: {quote(url)}: URL scheme must be https")
    if parts.username is not None or parts.query or parts.fragment or not parts.hostname:
        problem = "URL must have a host and no user, query or fragment"
        raise ValueError(f"{path}: Invalid value: {quote(url)}: {problem}")


# ---------------------------------------------------------------- the file


def read_document(path: str, kind: str, versions: tuple[str, ...]) -> Object:
    """A configuration file of the API server: YAML of this kind in one of the versions. Raises ValueError, OSError."""
    try:
        document = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as problem:
        raise ValueError(f"{path}: {problem}") from None
    if not isinstance(document, dict) or document.get("kind") != kind:
        raise ValueError(f"{path}: expected a document of kind {kind}")
    group, _, version = str(document.get("apiVersion") or "").partition("/")
    if group != _GROUP or version not in versions:
        raise ValueError(f"{path}: expected apiVersion {_GROUP}/{versions[0]}, got {document.get('apiVersion')!r}")
    return document


def _read(options: ServerOptions) -> Identities:
    if options.oidc_issuer_url or options.oidc_client_id:
        raise ValueError("authentication-config: cannot be used together with the oidc-* flags")
    document = read_document(options.authentication_config, "AuthenticationConfiguration", _VERSIONS)
    only(document, "", "apiVersion", "kind", "jwt", "anonymous")
    issuers: list[IssuerConfig] = []
    for number, entry in enumerate(document.get("jwt") or ()):
        config = _issuer(entry, f"jwt[{number}]")
        if any(config.url == other.url for other in issuers):
            raise ValueError(f"jwt[{number}].issuer.url: Duplicate value: {quote(config.url)}")
        issuers.append(config)
    return Identities(tuple(issuers), _anonymous(options, document.get("anonymous")))


def _anonymous(options: ServerOptions, entry: Object | None) -> Anonymous:
    if entry is None:
        return Anonymous(options.anonymous_auth)
    only(entry, "anonymous", "enabled", "conditions")
    conditions = entry.get("conditions") or []
    if conditions and not entry.get("enabled"):
        raise ValueError("anonymous.conditions: Invalid value: enabled should be set to true when conditions are given")
    paths = [str(condition.get("path") or "") for condition in conditions]
    if "" in paths:
        raise ValueError("anonymous.conditions: Required value: path")
    return Anonymous(bool(entry.get("enabled")), frozenset(paths) if paths else None)


def _issuer(entry: Object, path: str) -> IssuerConfig:
    only(entry, path, "issuer", "claimValidationRules", "claimMappings", "userValidationRules")
    issuer: Object = entry.get("issuer") or {}
    at = f"{path}.issuer"
    only(issuer, at, "url", "discoveryURL", "certificateAuthority", "audiences", "audienceMatchPolicy")
    url = issuer.get("url") or ""
    if not url:
        raise ValueError(f"{at}.url: Required value: URL is required")
    _check_url(f"{at}.url", url)
    discovery = issuer.get("discoveryURL") or ""
    if discovery:
        _check_url(f"{at}.discoveryURL", discovery)
        if discovery.rstrip("/") == url.rstrip("/"):
            problem = "discoveryURL must be different from URL"
            raise ValueError(f"{at}.discoveryURL: Invalid value: {quote(discovery)}: {problem}")
    audiences = tuple(issuer.get("audiences") or ())
    if not audiences:
        raise ValueError(f"{at}.audiences: Required value: at least one jwt[].issuer.audiences is required")
    policy = issuer.get("audienceMatchPolicy") or ""
    if policy not in ("", "MatchAny") or (len(audiences) > 1 and policy != "MatchAny"):
        problem = "audienceMatchPolicy must be MatchAny for multiple audiences"
        raise ValueError(f"{at}.audienceMatchPolicy: Invalid value: {quote(policy)}: {problem}")
    mappings: Object = entry.get("claimMappings") or {}
    at = f"{path}.claimMappings"
    only(mappings, at, "username", "groups", "uid", "extra")
    return IssuerConfig(
        url=url,
        audiences=audiences,
        discovery_url=discovery,
        ca=str(issuer.get("certificateAuthority") or "").encode(),
        username=_mapping(mappings.get("username") or {}, f"{at}.username", prefixed=True, needed=True),
        groups=_optional(mappings.get("groups"), f"{at}.groups", prefixed=True),
        uid=_optional(mappings.get("uid"), f"{at}.uid"),
        extra=_extra(mappings.get("extra") or (), f"{at}.extra"),
        claim_rules=tuple(
            _claim_rule(rule, f"{path}.claimValidationRules[{number}]")
            for number, rule in enumerate(entry.get("claimValidationRules") or ())
        ),
        user_rules=tuple(
            _user_rule(rule, f"{path}.userValidationRules[{number}]")
            for number, rule in enumerate(entry.get("userValidationRules") or ())
        ),
    )


def _optional(entry: Object | None, path: str, *, prefixed: bool = False) -> ClaimMapping | None:
    return _mapping(entry, path, prefixed=prefixed) if entry else None


def _mapping(entry: Object, path: str, *, prefixed: bool = False, needed: bool = False) -> ClaimMapping:
    only(entry, path, "claim", "expression", *(("prefix",) if prefixed else ()))
    claim, expression, prefix = entry.get("claim") or "", entry.get("expression") or "", entry.get("prefix")
    if claim and expression:
        raise ValueError(f'{path}: Invalid value: "": claim and expression can\'t both be set')
    if not claim and not expression:
        if needed or entry:
            raise ValueError(f"{path}: Required value: claim or expression is required")
        return ClaimMapping()
    if expression:
        if prefix is not None:
            problem = "prefix can't be set when expression is set"
            raise ValueError(f"{path}.prefix: Invalid value: {quote(str(prefix))}: {problem}")
        kinds = ("string", "list") if path.endswith("groups") else ("string",)
        return ClaimMapping(expression=_value(expression, f"{path}.expression", *kinds))
    if prefixed and prefix is None:
        problem = "prefix is required when claim is set. It can be set to an empty string to disable prefixing"
        raise ValueError(f"{path}.prefix: Required value: {problem}")
    return ClaimMapping(claim, prefix or "")


def _extra(entries: Any, path: str) -> dict[str, ClaimMapping]:
    found: dict[str, ClaimMapping] = {}
    for number, entry in enumerate(entries):
        at = f"{path}[{number}]"
        only(entry, at, "key", "valueExpression")
        key = entry.get("key") or ""
        if not key or not entry.get("valueExpression"):
            raise ValueError(f"{at}: Required value: key and valueExpression are required")
        if key in found:
            raise ValueError(f"{at}.key: Duplicate value: {quote(key)}")
        if key != key.lower() or "/" not in key:
            raise ValueError(f"{at}.key: Invalid value: {quote(key)}: key must be a lowercase domain-prefixed path")
        found[key] = ClaimMapping(
            expression=_value(entry["valueExpression"], f"{at}.valueExpression", "string", "list")
        )
    return found


def _claim_rule(rule: Object, path: str) -> Callable[[Claims], str]:
    only(rule, path, "claim", "requiredValue", "expression", "message")
    if rule.get("expression"):
        return _rule(rule, path, "claims", _CLAIMS, lambda claims: claims)
    if not rule.get("claim"):
        raise ValueError(f"{path}: Required value: claim or expression is required")
    return _equals(rule["claim"], rule.get("requiredValue") or "")


def _user_rule(rule: Object, path: str) -> Callable[[UserInfo], str]:
    only(rule, path, "expression", "message")
    if not rule.get("expression"):
        raise ValueError(f"{path}.expression: Required value: expression is required")
    return _rule(rule, path, "user", _USER, _user_object)


def _user_object(user: UserInfo) -> Object:
    return {"username": user.name, "uid": user.uid, "groups": list(user.groups), "extra": user.extra}


def _rule(
    rule: Object, path: str, variable: str, kind: cel.Type, shown: Callable[[Any], Object]
) -> Callable[[Any], str]:
    """What is wrong with claims or a user, by an expression that must give true."""
    text = rule["expression"]
    program = compiled(f"{path}.expression", text, {variable: kind}, "bool")
    problem = rule.get("message") or f"validation expression {quote(text)} failed"

    def check(value: Any) -> str:
        try:
            return "" if program.evaluate({variable: shown(value)}) is True else problem
        except cel.EvalError as error:
            return f"validation expression {quote(text)} resulted in error: {error}"

    return check


def _value(text: str, path: str, *kinds: str) -> Callable[[Claims], Any]:
    """What an expression over the claims gives."""
    program = compiled(path, text, {"claims": _CLAIMS}, *kinds)

    def evaluate(claims: Claims) -> Any:
        try:
            return program.evaluate({"claims": claims})
        except cel.EvalError as error:
            raise Refused(f"oidc: {path}: {error}") from None

    return evaluate


def compiled(path: str, text: str, variables: dict[str, cel.Type], *kinds: str) -> cel.Program:
    """The program of an expression in a configuration; it must give one of these kinds. Raises ValueError."""
    try:
        program = cel.compile(text, cel.Environment(variables))
    except cel.CompileError as error:
        raise ValueError(f"{path}: Invalid value: {quote(text)}: compilation failed: {error}") from None
    if program.type.kind not in (*kinds, "dyn"):
        raise ValueError(f"{path}: Invalid value: {quote(text)}: must evaluate to {' or '.join(kinds)}")
    return program


def only(entry: Object, path: str, *known: str) -> None:
    for key in entry:
        if key not in known:
            raise ValueError(f'{path}{"." if path else ""}{key}: unknown field "{key}"')
