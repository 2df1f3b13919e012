"""Acting as somebody else: the Impersonate-* headers, and who may use them.

Source: "User impersonation" of the Kubernetes documentation (constrained impersonation included). Modes are tried in
order; the first that applies and is allowed decides. When none is, the first refusal is told. A constrained mode asks
two things: may this verb be used on this resource while impersonating (impersonate-on:MODE:VERB), and may this identity
be taken (impersonate:MODE). The legacy mode asks only for `impersonate` on each user, group, uid and extra value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import unquote

from fastkube import errors
from fastkube.api import names
from fastkube.api.field import quote
from fastkube.errors import ApiError
from fastkube.registry.strategy import UserInfo
from fastkube.server.authn import NODE_NAME, split_account
from fastkube.server.authz import MASTERS, forbidden
from fastkube.server.proxy_headers import AUTHENTICATED
from fastkube.server.request import ANONYMOUS, Attributes

if TYPE_CHECKING:
    from fastkube.server.authz import Authorizer
    from fastkube.server.request import Request

UNAUTHENTICATED = "system:unauthenticated"
_AUTHENTICATION = "authentication.k8s.io"
_NODE_PREFIX = "system:node:"
_EXTRA_PREFIX = "impersonate-extra-"
_WILDCARD_FROM = 4
"""From this many groups or extra values on, one question about "*" is tried first."""


class Wanted:
    """The identity which the headers ask for, as they say it."""

    __slots__ = ("extra", "groups", "name", "uid")

    def __init__(self, name: str, uid: str, groups: list[str], extra: dict[str, list[str]]) -> None:
        self.name = name
        self.uid = uid
        self.groups = groups
        self.extra = extra

    @property
    def only_named(self) -> bool:
        return not (self.uid or self.groups or self.extra)

    @property
    def node(self) -> str:
        name = self.name.removeprefix(_NODE_PREFIX)
        return name if name != self.name and not names.dns1123_subdomain(name, False) else ""


def wanted_identity(request: Request) -> Wanted | None:
    """None without impersonation headers; raises 400 when they name no user."""
    headers = request.headers
    if not any(key[0] in "iI" for key in headers):
        return None
    name, uid = headers.get("Impersonate-User", ""), headers.get("Impersonate-Uid", "")
    groups = headers.getall("Impersonate-Group", [])
    extra: dict[str, list[str]] = {}
    for key, value in headers.items():
        if key.lower().startswith(_EXTRA_PREFIX):
            extra.setdefault(unquote(key[len(_EXTRA_PREFIX) :].lower()), []).append(value)
    if name:
        return Wanted(name, uid, list(groups), extra)
    if uid or groups or extra:
        raise errors.bad_request(f"requested {_go_user(uid, groups, extra)} without impersonating a user name")
    return None


def _go_user(uid: str, groups: list[str], extra: dict[str, list[str]]) -> str:
    """The identity as upstream's message prints it (Go's %#v)."""
    told_groups = "[]string{" + ", ".join(map(quote, groups)) + "}" if groups else "[]string(nil)"
    pairs = ", ".join(
        f"{quote(key)}:[]string{{{', '.join(map(quote, values))}}}" for key, values in sorted(extra.items())
    )
    told_extra = f"map[string][]string{{{pairs}}}" if extra else "map[string][]string(nil)"
    return f'&user.DefaultInfo{{Name:"", UID:{quote(uid)}, Groups:{told_groups}, Extra:{told_extra}}}'


def impersonated(authorizer: Authorizer, requestor: UserInfo, wanted: Wanted, attributes: Attributes) -> UserInfo:
    """The user to act as; raises 403."""
    refusal: ApiError | None = None
    for mode in _modes(requestor, wanted):
        try:
            _check(authorizer, requestor, mode, wanted, attributes)
        except ApiError as problem:
            refusal = refusal or problem
            continue
        return _identity(wanted, mode)
    assert refusal is not None  # the legacy mode always applies
    raise refusal


def _modes(requestor: UserInfo, wanted: Wanted) -> Iterator[str]:
    """The modes which apply, most constrained first; "" is the legacy mode."""
    account = split_account(wanted.name)
    if wanted.node and wanted.only_named:
        own_node = requestor.extra.get(NODE_NAME) == [wanted.node]
        if own_node and split_account(requestor.name) is not None:
            yield "associated-node"
        yield "arbitrary-node"
    if account and wanted.only_named:
        yield "serviceaccount"
    if not wanted.node and not account:
        yield "user-info"
    yield ""


def _check(authorizer: Authorizer, requestor: UserInfo, mode: str, wanted: Wanted, attributes: Attributes) -> None:
    if mode:
        on = Attributes(
            f"impersonate-on:{mode}:{attributes.verb}", attributes.group, attributes.resource, attributes.subresource,
            attributes.namespace, attributes.name, attributes.version,
            "" if attributes.is_resource else attributes.path, attributes.field_selector,
        )  # fmt: skip
        authorizer.check(requestor, on)
    verb = f"impersonate:{mode}" if mode else "impersonate"
    group = _AUTHENTICATION if mode else ""
    for question in (
        [_name_question(verb, group, mode, wanted)],
        [Attributes(verb, _AUTHENTICATION, "uids", name=wanted.uid)] if wanted.uid else [],
    ):
        for one in question:
            authorizer.check(requestor, one)
    _check_groups(authorizer, requestor, verb, group, mode, wanted.groups)
    _check_extra(authorizer, requestor, verb, mode, wanted.extra)


def _name_question(verb: str, group: str, mode: str, wanted: Wanted) -> Attributes:
    account = split_account(wanted.name)
    if account:
        return Attributes(verb, group, "serviceaccounts", namespace=account[0], name=account[1])
    if mode and wanted.node:
        return Attributes(verb, group, "nodes", name="*" if mode == "associated-node" else wanted.node)
    return Attributes(verb, group, "users", name=wanted.name)


def _check_groups(
    authorizer: Authorizer, requestor: UserInfo, verb: str, api_group: str, mode: str, groups: list[str]
) -> None:
    if mode and groups:
        if "" in groups:
            question = Attributes(verb, api_group, "groups")
            raise forbidden(requestor, question, "impersonating the empty string group is not allowed")
        if MASTERS in groups:
            question = Attributes(verb, api_group, "groups", name=MASTERS)
            raise forbidden(requestor, question, "impersonating the system:masters group is not allowed")
        if len(groups) >= _WILDCARD_FROM:
            question = Attributes(verb, api_group, "groups", name="*")
            if authorizer.allows(requestor, question):
                return
    for group in groups:
        authorizer.check(requestor, Attributes(verb, api_group, "groups", name=group))


def _check_extra(
    authorizer: Authorizer, requestor: UserInfo, verb: str, mode: str, extra: dict[str, list[str]]
) -> None:
    if mode and extra:
        problem = _extra_problem(extra)
        if problem:
            raise forbidden(requestor, Attributes(verb, _AUTHENTICATION, "userextras"), problem)
        many = len(extra) >= _WILDCARD_FROM or sum(map(len, extra.values())) >= _WILDCARD_FROM
        if many and authorizer.allows(requestor, Attributes(verb, _AUTHENTICATION, "userextras", "*", name="*")):
            return
    for key, values in extra.items():
        for value in values:
            authorizer.check(requestor, Attributes(verb, _AUTHENTICATION, "userextras", key, name=value))


def _extra_problem(extra: dict[str, list[str]]) -> str:
    """Constrained modes take only keys of the form domain/path, and no empty values."""
    for key, values in extra.items():
        if not key:
            return "impersonating the empty string key in extra is not allowed"
        domain, slash, path = key.partition("/")
        if not slash or not path or names.dns1123_subdomain(domain, False):
            problem = f'Invalid value: {quote(key)}: must be a domain-prefixed path (such as "acme.io/foo")'
            return f"impersonating an invalid key in extra is not allowed: extra.key: {problem}"
        if "" in values:
            return "impersonating the empty string value in extra is not allowed"
    return ""


def _identity(wanted: Wanted, mode: str) -> UserInfo:
    groups = list(wanted.groups)
    account = split_account(wanted.name)
    if account and not groups:
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{account[0]}"]
    elif mode and wanted.node:
        groups = ["system:nodes"]
    if wanted.name == ANONYMOUS.name:
        if UNAUTHENTICATED not in groups:
            groups.append(UNAUTHENTICATED)
    elif UNAUTHENTICATED not in groups and AUTHENTICATED not in groups:
        groups.append(AUTHENTICATED)
    return UserInfo(wanted.name, tuple(groups), wanted.uid, wanted.extra)
