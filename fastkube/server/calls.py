"""From an HTTP request to a registry call: route, options of the verb, and the body.

Routes are those of upstream's API: a collection takes list, watch, create and deletecollection; an object takes get,
update, patch and delete; a subresource what discovery says. A path that does not exist is 404 and a verb that a path
does not take is 405; custom resources word both differently, as they are served by another part of upstream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs

from fastkube import errors
from fastkube.api import field, meta
from fastkube.errors import ApiError, Cause
from fastkube.registry.strategy import Call
from fastkube.server.answer import Answer
from fastkube.server.media import TEXT

if TYPE_CHECKING:
    from fastkube.api.catalog import Catalog, ResourceType
    from fastkube.server.discovery import Discovery
    from fastkube.server.request import Request, RequestInfo

BODY_MAX_BYTES = 3 * 1024 * 1024

_COLLECTION_VERBS = frozenset(("list", "watch", "create", "deletecollection"))
_OBJECT_VERBS = frozenset(("get", "update", "patch", "delete", "watch"))
_OPTIONS_KINDS = {
    "create": "CreateOptions",
    "update": "UpdateOptions",
    "patch": "PatchOptions",
    "delete": "DeleteOptions",
    "deletecollection": "DeleteOptions",
}
_VALIDATIONS = ("", "Ignore", "Strict", "Warn")
_MANAGER_MAX = 128
_APPLY = "application/apply-patch+yaml"
_DEPRECATED = {
    ("", "v1", "endpoints"): "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    ("", "v1", "componentstatuses"): "v1 ComponentStatus is deprecated in v1.19+",
}


class NoSuchPath(Exception):
    """No route leads there; the answer is the plain text that Go's own router gives."""


def no_such_path() -> Answer:
    answer = Answer(404, b"404 page not found\n", TEXT, b"X-Content-Type-Options: nosniff\r\n")
    answer.compressible = False
    return answer


class ServiceUnavailable(Exception):
    """An aggregated API server cannot be asked; the answer is plain text, as upstream's aggregator gives it."""

    def answer(self) -> Answer:
        answer = Answer(503, f"{self}\n".encode(), TEXT, b"X-Content-Type-Options: nosniff\r\n")
        answer.compressible = False
        return answer


def unreadable_path(path: str, problem: str) -> Answer:
    """Upstream's answer in front of everything else, where a path cannot be read as one of a resource."""
    return internal_error(path, f"failed to create RequestInfo: {problem}")


def internal_error(path: str, problem: str) -> Answer:
    """Upstream's answer of what stands in front of the verbs, in plain text."""
    told = f'Internal Server Error: "{path}": {problem}\n'
    answer = Answer(500, told.encode(), TEXT, b"X-Content-Type-Options: nosniff\r\n")
    answer.cache = b""
    answer.compressible = False
    return answer


def shutting_down() -> Answer:
    """Upstream's answer of --shutdown-send-retry-after."""
    headers = b"Retry-After: 5\r\nX-Content-Type-Options: nosniff\r\n"
    answer = Answer(429, b"The apiserver is shutting down, please try again later.\n", TEXT, headers)
    answer.cache = b""
    answer.compressible = False
    return answer


def too_many_requests() -> Answer:
    """Flow control refuses in plain text, as upstream's does."""
    headers = b"X-Content-Type-Options: nosniff\r\nRetry-After: 1\r\n"
    answer = Answer(429, b"Too many requests, please try again later.\n", TEXT, headers)
    answer.compressible = False
    return answer


class Route(NamedTuple):
    """What a path leads to. `verb` is what is done there; `name` may come from a field selector in old watch paths."""

    rtype: ResourceType
    verb: str


def find_route(catalog: Catalog, discovery: Discovery, request: Request) -> Route:
    """Raises NoSuchPath, 404 and 405."""
    info = request.info
    rtype = catalog.lookup(info.group, info.version, info.resource)
    if rtype is None:
        if (info.prefix == "api" and not info.group) or discovery.has_builtin_group(info.group):
            raise errors.path_not_found()
        raise NoSuchPath
    if rtype.custom:
        _check_custom(rtype, info, request.method)
    else:
        _check_builtin(rtype, info, request.method)
    return Route(rtype, info.verb)


def _check_builtin(rtype: ResourceType, info: RequestInfo, method: str) -> None:
    parts = info.parts
    if info.verb == "proxy":  # an old form, of which nothing is left
        raise errors.path_not_found()
    if parts == 2 and rtype.verbs == ("create",):  # what is only asked has no names
        raise errors.path_not_found()
    if parts == 1 and rtype.namespaced and not info.namespace and "list" not in rtype.verbs:
        raise errors.path_not_found()
    own_namespace = rtype.resource == "namespaces" and not rtype.group
    if not rtype.namespaced and info.namespace and not own_namespace:
        raise errors.path_not_found()
    if rtype.namespaced and not info.namespace and parts > 1:
        raise errors.path_not_found()
    if parts >= 3:
        subresource = rtype.subresources.get(info.subresource)
        if subresource is None or (parts > 3 and info.subresource != "proxy"):
            raise errors.path_not_found()
        allowed = info.verb in subresource.verbs and method != "HEAD"
    elif method == "HEAD" or (info.legacy_watch and method != "GET"):
        allowed = False
    else:
        verbs = _COLLECTION_VERBS if parts == 1 else _OBJECT_VERBS
        allowed = info.verb in verbs and info.verb in rtype.verbs
        if allowed and rtype.namespaced and not info.namespace:
            allowed = info.verb in ("list", "watch") or not rtype.persisted
    if not allowed:
        raise errors.method_not_allowed()


def _check_custom(rtype: ResourceType, info: RequestInfo, method: str) -> None:
    if bool(info.namespace) != rtype.namespaced and not (
        rtype.namespaced and info.parts == 1 and info.verb in ("list", "watch")
    ):
        raise NoSuchPath
    if info.parts >= 3:
        subresource = rtype.subresources.get(info.subresource)
        if subresource is None or info.parts > 3 or not rtype.has_subresource(info.version, info.subresource):
            raise errors.not_found(rtype.group, rtype.resource, info.name)
        allowed = info.verb in subresource.verbs
    else:
        verbs = _COLLECTION_VERBS if info.parts == 1 else _OBJECT_VERBS
        allowed = info.verb in verbs and info.verb in rtype.verbs
    if not allowed or method == "HEAD":
        raise errors.method_not_supported(rtype.group, rtype.resource, info.verb)
    if info.verb == "create" and rtype.extra["terminating"]:
        refusal = errors.method_not_supported(rtype.group, rtype.resource, info.verb)
        refusal.message = "create not allowed while custom resource definition is terminating"
        raise refusal


def make_call(request: Request, route: Route, now: float) -> Call:
    """The call with the options of its verb; raises 422 for options that make no sense."""
    info, rtype, query = request.info, route.rtype, request.query
    call = Call(
        rtype,
        info.version,
        route.verb,
        info.namespace if rtype.namespaced else "",
        info.name,
        info.subresource,
        request.user,
    )
    call.query = query
    call.now = now
    call.warnings = request.warnings
    if request.audit is not None:
        call.annotations = request.audit.annotations
    deprecation = _DEPRECATED.get((rtype.group, info.version, rtype.resource)) if not rtype.custom else None
    if deprecation is None and rtype.custom:
        deprecation = (rtype.extra.get("deprecations") or {}).get(info.version)
    if deprecation:
        call.warnings.append(deprecation)
    if route.verb in _OPTIONS_KINDS:
        _read_write_options(request, call, query)
    return call


def _read_write_options(request: Request, call: Call, query: dict[str, str]) -> None:
    headers = request.headers
    manager = query.get("fieldManager", "") if query else ""
    if query:
        causes = _option_causes(request, query, manager)
        if causes:
            raise errors.invalid("meta.k8s.io", _OPTIONS_KINDS[call.verb], "", causes)
        call.dry_run = query.get("dryRun", "") == "All"
        call.field_validation = query.get("fieldValidation") or "Warn"
        call.force = "force" in query and query["force"].lower() not in ("false", "0")
    elif call.verb == "patch" and not manager and _is_apply(headers.get("Content-Type", "")):
        raise errors.invalid("meta.k8s.io", "PatchOptions", "", _option_causes(request, query, manager))
    call.field_manager = manager or default_manager(headers.get("User-Agent", ""))


def _option_causes(request: Request, query: dict[str, str], manager: str) -> list[Cause]:
    causes: list[Cause] = []
    verb = request.info.verb
    if verb == "patch":
        if _is_apply(request.headers.get("Content-Type", "")):
            if not manager:
                causes.append(field.required("fieldManager", "is required for apply patch"))
        elif "force" in query:
            causes.append(field.forbidden("force", "may not be specified for non-apply patch"))
    causes += meta.validate_field_manager(manager, "fieldManager")
    if "dryRun" in query and verb not in ("delete", "deletecollection"):  # those of a delete may come in its body
        given = dry_runs(request)
        if given.count("All") < len(given):
            causes.append(field.not_supported("dryRun", given, ("All",)))
    if verb in ("create", "update", "patch") and query.get("fieldValidation", "") not in _VALIDATIONS:
        causes.append(field.not_supported("fieldValidation", query["fieldValidation"], _VALIDATIONS))
    return causes


def dry_runs(request: Request) -> list[str]:
    """Each dryRun of the query, as it is given."""
    return parse_qs(request.query_text, keep_blank_values=True).get("dryRun", [])


def _is_apply(content_type: str) -> bool:
    return content_type.startswith(_APPLY)


def default_manager(user_agent: str) -> str:
    """The program's name, as it tells it itself."""
    name = user_agent.partition("/")[0][:_MANAGER_MAX]
    return name if name.isprintable() else "".join(character for character in name if character.isprintable())


async def read_body(request: Request) -> bytes:
    """The whole body; raises 413 for one over the limit, however it is sent."""
    body = await request.connection.read_body(request, BODY_MAX_BYTES)
    if body is None:
        raise _too_large()
    if request.audit is not None:
        request.audit.body = body
    return body


def _too_large() -> ApiError:
    return errors.too_large(f"Request entity too large: limit is {BODY_MAX_BYTES}")
