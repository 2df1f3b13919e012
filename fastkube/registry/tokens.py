"""TokenRequest: what a service account's token is for is checked here; a `TokenSigner` makes it.

Source: the TokenRequest API (authentication.k8s.io/v1) and upstream's serviceaccount/token storage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgpack

from fastkube import errors
from fastkube.api import apply, field, schema
from fastkube.api.apply import Writer
from fastkube.api.catalog import split_api_version
from fastkube.clock import rfc3339
from fastkube.errors import Cause
from fastkube.registry.strategy import Call, Object

if TYPE_CHECKING:
    from fastkube.registry.registry import Registry

_API_VERSION = "authentication.k8s.io/v1"
_EXPIRATION_DEFAULT_S = 3600
_EXPIRATION_MIN_S = 600
_EXPIRATION_MAX_S = 2**32

_WARN_ONLY_S = 3607
"""The life that kubelets ask for in projected volumes: such a token is good for a year, and warned about after this."""
_EXTENDED_S = 365 * 24 * 3600

_BINDABLE = {"Pod": "pods", "Node": "nodes", "Secret": "secrets"}


class Claims(NamedTuple):
    """What a token says. `bound` holds the objects it dies with, by kind; `warn_after_s` is 0 or a time to warn at."""

    account: Object
    audiences: list[str]
    expiration_s: int
    warn_after_s: int
    bound: Mapping[str, Object]


class TokenSigner(Protocol):
    audiences: list[str]
    """The API server's own, which a request without audiences gets."""
    extends: bool
    """Whether tokens of Pods for an hour live on for a year, warned of."""
    expiration_max_s: int
    """Longer requests are cut to this; 0: no limit."""

    def sign(self, claims: Claims, now: float) -> str: ...


async def issue(registry: Registry, call: Call, body: Object) -> Object:
    """The TokenRequest with its token in status; raises 404, 422, and 409 for a bound object that was replaced."""
    signer = registry.token_signer
    if signer is None:
        raise errors.internal("no service account signing key is configured")
    _check_identity(call, body["metadata"])
    _get(registry, "namespaces", "", call.namespace)
    account = _get(registry, "serviceaccounts", call.namespace, call.name)
    now = call.now = call.now or registry.clock.time()
    spec = body.setdefault("spec", {})
    if spec.get("expirationSeconds") is None:
        spec["expirationSeconds"] = _EXPIRATION_DEFAULT_S
    _own(call, body)
    request = _normalised(body, account, spec, signer, now)
    causes = _validate(spec)
    if causes:
        raise errors.invalid("authentication.k8s.io", "TokenRequest", "", causes)
    await registry.admission.mutate(call, request, None)
    await registry.admission.validate(call, request, None)
    bound = _bound_objects(registry, call, spec.get("boundObjectRef"))
    limit = signer.expiration_max_s
    if limit and spec["expirationSeconds"] > limit:
        asked = spec["expirationSeconds"]
        call.warnings.append(f"requested expiration of {asked} seconds shortened to {limit} seconds")
        spec["expirationSeconds"] = limit
    life_s, warn_after_s = spec["expirationSeconds"], 0
    if signer.extends and "Pod" in bound and life_s == _WARN_ONLY_S and set(spec["audiences"]) <= set(signer.audiences):
        life_s, warn_after_s = _EXTENDED_S, life_s
    token = signer.sign(Claims(account, spec["audiences"], life_s, warn_after_s, bound), now)
    request["status"] = {"token": token, "expirationTimestamp": rfc3339(now + spec["expirationSeconds"])}
    return request


def _check_identity(call: Call, metadata: Object) -> None:
    if metadata.get("namespace") not in (None, "", call.namespace):
        raise errors.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    given = metadata.get("name")
    if given and given != call.name:
        cause = field.invalid("metadata.name", given, "must match the service account name if specified")
        raise errors.invalid("authentication.k8s.io", "TokenRequest", call.name, [cause])


def _own(call: Call, body: Object) -> None:
    """All that the request sets belongs to who asks."""
    writer = Writer(call.field_manager, _API_VERSION, call.now, call.subresource)
    entries = apply.created(body, schema.load(_API_VERSION, "TokenRequest"), writer)
    if entries:
        body["metadata"]["managedFields"] = entries


def _normalised(body: Object, account: Object, spec: Object, signer: TokenSigner, now: float) -> Object:
    if not spec.get("audiences"):
        spec["audiences"] = list(signer.audiences)
    spec.setdefault("boundObjectRef", None)
    owner = account["metadata"]
    metadata = {
        **body["metadata"],
        "name": owner["name"],
        "namespace": owner["namespace"],
        "uid": owner["uid"],
        "creationTimestamp": rfc3339(now),
    }
    return {"kind": "TokenRequest", "apiVersion": _API_VERSION, "metadata": metadata, "spec": spec}


def _validate(spec: Object) -> list[Cause]:
    path, seconds = "spec.expirationSeconds", spec["expirationSeconds"]
    causes: list[Cause] = []
    if seconds < _EXPIRATION_MIN_S:
        causes.append(field.invalid(path, seconds, "may not specify a duration less than 10 minutes"))
    if seconds > _EXPIRATION_MAX_S:
        causes.append(field.invalid(path, seconds, "may not specify a duration larger than 2^32 seconds"))
    return causes


def _get(registry: Registry, resource: str, namespace: str, name: str) -> Object:
    rtype = registry.catalog.get("", resource)
    assert rtype is not None
    item = registry.store.get(rtype.key(namespace, name))
    if item is None:
        raise errors.not_found("", resource, name)
    found: Object = msgpack.unpackb(item.value)
    return found


def _bound_objects(registry: Registry, call: Call, ref: Any) -> dict[str, Object]:
    """The objects whose end is the token's end; a Pod's token names the Pod's node too."""
    if ref is None:
        return {}
    kind, api_version = ref.get("kind") or "", ref.get("apiVersion") or ""
    group, version = split_api_version(api_version)
    if group or kind not in _BINDABLE:
        problem = f"cannot bind token to object of type {group}/{version}, Kind={kind}"
        raise errors.bad_request(problem)
    if not ref.get("name"):
        raise errors.bad_request("Name parameter required.")
    found = _get(registry, _BINDABLE[kind], call.namespace, ref["name"])
    bound = {kind: found}
    if kind == "Pod":
        spec = found["spec"]
        if call.name != (spec.get("serviceAccountName") or ""):
            problem = "to pod running with different serviceaccount name."
            raise errors.bad_request(f"cannot bind token for serviceaccount {field.quote(call.name)} {problem}")
        if spec.get("nodeName"):
            bound["Node"] = _node_of(registry, spec["nodeName"])
    if ref.get("uid") and ref["uid"] != found["metadata"]["uid"]:
        problem = (
            f"the UID in the bound object reference ({ref['uid']}) does not match the UID in record. "
            "The object might have been deleted and then recreated"
        )
        raise errors.conflict(group, kind, ref["name"], problem)
    return bound


def _node_of(registry: Registry, name: str) -> Object:
    """The Pod's node; one that is not (or no longer) there is known by name only."""
    rtype = registry.catalog.get("", "nodes")
    assert rtype is not None
    item = registry.store.get(rtype.key("", name))
    node: Object = msgpack.unpackb(item.value) if item is not None else {"metadata": {"name": name}}
    return node
