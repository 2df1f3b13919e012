"""Answers to the kinds that are questions: who am I, who is that, may they do this, what may I do.

These objects are never stored: the registry decodes what was posted and hands it to the function named in `reviews_of`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from fastkube import errors
from fastkube.api import field, names, schema
from fastkube.api.selectors import parse_label_selector, readable_field_selector
from fastkube.clock import Clock, rfc3339
from fastkube.errors import Cause
from fastkube.registry.strategy import UserInfo
from fastkube.server.authz_webhook import settled
from fastkube.server.request import Attributes

if TYPE_CHECKING:
    from fastkube.registry.strategy import Call
    from fastkube.server.authn import Authenticator
    from fastkube.server.authz import Authorizer

Object = dict[str, Any]
Review = Callable[["Call", Object], Awaitable[Object]]

_WITH_VALUES, _WITHOUT_VALUES = ("In", "NotIn"), ("Exists", "DoesNotExist")
_AUTHENTICATION, _AUTHORIZATION = "authentication.k8s.io", "authorization.k8s.io"


def reviews_of(authenticator: Authenticator, authorizer: Authorizer, clock: Clock) -> dict[tuple[str, str], Review]:
    """The function for each (group, resource)."""
    reviews = _Reviews(authenticator, authorizer, clock)
    return {
        (_AUTHENTICATION, "tokenreviews"): reviews.token,
        (_AUTHENTICATION, "selfsubjectreviews"): reviews.self_subject,
        (_AUTHORIZATION, "selfsubjectaccessreviews"): reviews.self_access,
        (_AUTHORIZATION, "subjectaccessreviews"): reviews.access,
        (_AUTHORIZATION, "localsubjectaccessreviews"): reviews.local_access,
        (_AUTHORIZATION, "selfsubjectrulesreviews"): reviews.rules,
    }


class _Reviews:
    def __init__(self, authenticator: Authenticator, authorizer: Authorizer, clock: Clock) -> None:
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._clock = clock

    # ---------------------------------------------------------------- authentication

    async def self_subject(self, call: Call, obj: Object) -> Object:
        obj["metadata"] = {"creationTimestamp": rfc3339(self._clock.time())}
        obj["status"] = {"userInfo": _user_object(call.user)}
        return obj

    async def token(self, call: Call, obj: Object) -> Object:
        spec = obj.get("spec") or {}
        if not spec.get("token"):
            raise errors.bad_request("token is required for TokenReview in authentication")
        result = await self._authenticator.review(spec["token"], tuple(spec.get("audiences") or ()))
        if result.user is None:
            obj["status"] = {"user": {}, "error": result.error}
        else:
            status = {"authenticated": True, "user": _user_object(result.user)}
            obj["status"] = {**status, "audiences": list(result.audiences)}
        return obj

    # ---------------------------------------------------------------- authorization

    async def self_access(self, call: Call, obj: Object) -> Object:
        spec = obj.setdefault("spec", {})
        _refuse(_spec_causes(spec) + _metadata_causes(call, obj))
        return await self._decide(obj, call.user, spec)

    async def access(self, call: Call, obj: Object) -> Object:
        spec = obj.setdefault("spec", {})
        _refuse(_subject_causes(spec) + _metadata_causes(call, obj))
        return await self._decide(obj, _subject(spec), spec)

    async def local_access(self, call: Call, obj: Object) -> Object:
        spec, metadata = obj.setdefault("spec", {}), obj["metadata"]
        namespace = call.namespace
        if (metadata.get("namespace") or namespace) != namespace:
            problem = "the namespace of the provided object does not match the namespace sent on the request"
            raise errors.bad_request(problem)
        metadata["namespace"] = namespace
        causes = _subject_causes(spec)
        causes += _metadata_causes(call, obj, "namespace")
        wanted = spec.get("resourceAttributes")
        if wanted is not None and (wanted.get("namespace") or "") != namespace:
            path = "spec.resourceAttributes.namespace"
            causes.append(field.invalid(path, wanted.get("namespace") or "", "must match metadata.namespace"))
        if spec.get("nonResourceAttributes") is not None:
            path, shown = "spec.nonResourceAttributes", _go_path_attributes(spec)
            causes.append(field.invalid(path, shown, "disallowed on this kind of request"))
        _refuse(causes)
        return await self._decide(obj, _subject(spec), spec)

    async def rules(self, call: Call, obj: Object) -> Object:
        namespace = (obj.get("spec") or {}).get("namespace") or ""
        if not namespace:
            raise errors.bad_request("no namespace on request")
        rbac = self._authorizer.rbac
        held = rbac.rules_for(call.user, namespace) if rbac is not None else []
        named = ("apiGroups", "resources", "resourceNames")
        resource_rules = [_with(rule, *named) for rule in held if rule.get("resources")]
        path_rules = [_with(rule, "nonResourceURLs") for rule in held if rule.get("nonResourceURLs")]
        problems = self._authorizer.unresolved(call.user)
        status: Object = {
            "resourceRules": resource_rules,
            "nonResourceRules": path_rules,
            "incomplete": bool(problems),
        }
        if problems:
            status["evaluationError"] = ", ".join(problems)
        return {"kind": obj["kind"], "apiVersion": obj["apiVersion"], "metadata": {}, "spec": {}, "status": status}

    async def _decide(self, obj: Object, user: UserInfo, spec: Object) -> Object:
        attributes = _attributes(spec)
        decision = await settled(lambda: self._authorizer.decide(user, attributes))
        obj["status"] = {"allowed": decision.allowed}
        if decision.denied:
            obj["status"]["denied"] = True
        if decision.reason:
            obj["status"]["reason"] = decision.reason
        if unread := _unread_selectors(spec):
            obj["status"]["evaluationError"] = "; ".join(unread)
        return obj


def _with(rule: Object, *keys: str) -> Object:
    return {"verbs": rule["verbs"], **{key: rule[key] for key in keys if rule.get(key)}}


def _user_object(user: UserInfo) -> Object:
    told: Object = {"username": user.name}
    if user.uid:
        told["uid"] = user.uid
    if user.groups:
        told["groups"] = list(user.groups)
    if user.extra:
        told["extra"] = user.extra
    return told


def _subject(spec: Object) -> UserInfo:
    groups, extra = tuple(spec.get("groups") or ()), spec.get("extra") or {}
    return UserInfo(spec.get("user") or "", groups, spec.get("uid") or "", extra)


def _attributes(spec: Object) -> Attributes:
    path = spec.get("nonResourceAttributes")
    if path is not None:
        return Attributes(path.get("verb") or "", path=path.get("path") or "/")
    asked = spec["resourceAttributes"]
    return Attributes(
        asked.get("verb") or "",
        asked.get("group") or "",
        asked.get("resource") or "",
        asked.get("subresource") or "",
        asked.get("namespace") or "",
        asked.get("name") or "",
        asked.get("version") or "*",
        field_selector=_field_selector(asked.get("fieldSelector") or {}),
    )


def _field_selector(selector: Object) -> str:
    """The equalities of a field selector as text; what else it asks for cannot widen anything."""
    if selector.get("rawSelector"):
        return str(selector["rawSelector"])
    terms = [
        f"{one['key']}={one['values'][0]}"
        for one in selector.get("requirements") or ()
        if one.get("operator") == "In" and len(one.get("values") or ()) == 1
    ]
    return ",".join(terms)


# ---------------------------------------------------------------- validation


def _refuse(causes: list[Cause]) -> None:
    if causes:
        raise errors.invalid(_AUTHORIZATION, "", "", causes)


def _metadata_causes(call: Call, obj: Object, *allowed: str) -> list[Cause]:
    if all(key in allowed or key == "managedFields" for key in obj["metadata"]):
        return []
    shown = schema.in_go_order(obj["metadata"], schema.struct("meta.v1.ObjectMeta"))
    problem = " except for ".join(("must be empty", *allowed))
    return [field.invalid("metadata", field.struct(shown), problem)]


def _spec_causes(spec: Object) -> list[Cause]:
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is not None and path is not None:
        problem = "cannot be specified in combination with resourceAttributes"
        return [field.invalid("spec.nonResourceAttributes", _go_path_attributes(spec), problem)]
    if resource is None and path is None:
        problem = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        return [field.invalid("spec.resourceAttributes", None, problem)]
    asked = resource or {}
    causes = _selector_causes(asked, "fieldSelector", lambda _: [], lambda _: [])
    return causes + _selector_causes(asked, "labelSelector", names.label_key, names.label_value)


def _selector_causes(
    asked: Object, key: str, key_faults: Callable[[str], list[str]], value_faults: Callable[[str], list[str]]
) -> list[Cause]:
    """Faults of the selector of a list or watch that is asked about."""
    selector = asked.get(key)
    if selector is None:
        return []
    path, raw, requirements = (
        f"spec.resourceAttributes.{key}",
        selector.get("rawSelector"),
        selector.get("requirements"),
    )
    if raw and requirements:
        return [field.invalid(f"{path}.rawSelector", raw, "may not specified at the same time as requirements")]
    if not raw and not requirements:
        problem = f"when {path} is specified, requirements or rawSelector is required"
        return [field.required(f"{path}.requirements", problem)]
    causes: list[Cause] = []
    for number, one in enumerate(requirements or ()):
        at, name, values = f"{path}.requirements[{number}]", one.get("key") or "", one.get("values") or ()
        causes += [field.invalid(f"{at}.key", name, fault) for fault in key_faults(name)]
        if not name and key == "fieldSelector":
            causes.append(field.required(f"{at}.key", "must be specified"))
        if one.get("operator") in _WITH_VALUES and not values:
            problem = "must be specified when `operator` is 'In' or 'NotIn'"
            causes.append(field.required(f"{at}.values", problem))
        if one.get("operator") in _WITHOUT_VALUES and values:
            problem = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            causes.append(field.forbidden(f"{at}.values", problem))
        for place, value in enumerate(values):
            causes += [field.invalid(f"{at}.values[{place}]", value, fault) for fault in value_faults(value)]
    return causes


def _unread_selectors(spec: Object) -> list[str]:
    """What is told of selectors that say nothing which an authorizer could use."""
    asked = spec.get("resourceAttributes") or {}
    told = []
    for key, reads in (("fieldSelector", _reads_fields), ("labelSelector", _reads_labels)):
        if asked.get(key) is not None and not reads(asked[key]):
            told.append(f"spec.resourceAttributes.{key} ignored due to parse error")
    return told


def _reads_fields(selector: Object) -> bool:
    raw = selector.get("rawSelector")
    if raw:
        return readable_field_selector(raw)
    return all(
        one.get("operator") in _WITH_VALUES and len(one.get("values") or ()) == 1 for one in selector["requirements"]
    )


def _reads_labels(selector: Object) -> bool:
    raw = selector.get("rawSelector")
    if not raw:
        return all(one.get("operator") in (*_WITH_VALUES, *_WITHOUT_VALUES) for one in selector["requirements"])
    try:
        parse_label_selector(raw)
    except errors.ApiError:
        return False
    return True


def _subject_causes(spec: Object) -> list[Cause]:
    causes = _spec_causes(spec)
    if not spec.get("user") and not spec.get("groups"):
        causes.append(field.invalid("spec.user", "", "at least one of user or group must be specified"))
    return causes


def _go_path_attributes(spec: Object) -> field.Literal:
    path = spec["nonResourceAttributes"]
    return field.struct({"Path": path.get("path") or "", "Verb": path.get("verb") or ""})
