"""Everything that is no resource: discovery, health, version, metrics, OpenAPI, keys of issued tokens, the index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from fastkube import errors
from fastkube.clock import ManualClock, rfc3339
from fastkube.config import options_of, parse_duration
from fastkube.server.answer import Answer
from fastkube.server.calls import no_such_path
from fastkube.server.media import JSON, check_accepted
from fastkube.server.metrics import CONTENT_TYPE as METRICS_TYPE
from fastkube.server.version import VERSION_INFO

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastkube.server.app import ApiServer
    from fastkube.server.request import Request

_JWKS = b"application/jwk-set+json"
_PUBLIC_CACHE = b"Cache-Control: public, max-age=3600\r\n"
_READS = ("GET", "HEAD")
CLOCK_PATH = "/fastkube/clock"


def handle_path(server: ApiServer, request: Request) -> Answer | Awaitable[Answer]:
    path = request.info.path
    handler = _EXACT.get(path)
    if handler is not None:
        return handler(server, request)
    first = path[1:].partition("/")[0]
    handler = _UNDER.get(first)
    return handler(server, request) if handler is not None else no_such_path()


def _index(server: ApiServer, request: Request) -> Answer:
    return _json({"paths": _listed(server)})


def _listed(server: ApiServer) -> list[str]:
    paths = {path for path in _EXACT if not path.endswith("/") and not path.startswith("/fastkube/")}
    paths.update(server.health.paths())
    paths.update(server.openapi.paths())
    for rtype in server.catalog.all():
        root = f"/apis/{rtype.group}" if rtype.group else "/api"
        paths.add(root)
        paths.update(f"{root}/{version}" for version in rtype.versions)
    return sorted(paths)


def _json(document: object) -> Answer:
    return Answer(200, orjson.dumps(document, option=orjson.OPT_INDENT_2), JSON)


def _version(server: ApiServer, request: Request) -> Answer:
    if request.method != "GET":
        raise errors.method_not_allowed()
    check_accepted(request.headers.get("Accept", ""), only="application/json")
    return _json(VERSION_INFO)


def _below_version(server: ApiServer, request: Request) -> Answer:
    raise errors.path_not_found()


def _only_reads(request: Request) -> None:
    if request.method not in _READS:
        raise errors.method_not_allowed()


def _discovery(server: ApiServer, request: Request) -> Answer:
    path = request.info.path
    group = path.split("/")[2] if path.startswith("/apis/") else ""
    if group and not server.discovery.has_group(group):
        return no_such_path()
    if path == "/apis//":
        return no_such_path()
    if path.endswith("//"):
        raise errors.path_not_found()
    groups = path.startswith("/apis") and path.rstrip("/").count("/") < 3
    if not groups and (not group or server.discovery.has_builtin_group(group)) and request.method != "GET":
        if not server.discovery.has(path.rstrip("/")):
            raise errors.path_not_found()
        raise errors.method_not_allowed()
    headers = request.headers
    if (
        path.startswith("/api/")
        or path == "/api"
        or (path.count("/") == 3 and server.discovery.has_builtin_group(group))
    ):
        check_accepted(headers.get("Accept", ""))
    answer = server.discovery.answer(path, headers.get("Accept", ""), headers.get("If-None-Match", ""))
    if answer is None:
        if group and not server.discovery.has_builtin_group(group):
            return no_such_path()
        raise errors.path_not_found()
    return answer


def _health(server: ApiServer, request: Request) -> Answer:
    return server.health.answer(request.info.path, request.query_text) or no_such_path()


def _metrics(server: ApiServer, request: Request) -> Answer:
    return Answer(200, server.render_metrics(), METRICS_TYPE)


def _openapi(server: ApiServer, request: Request) -> Answer:
    return server.openapi.answer(request) or no_such_path()


def _issuer(server: ApiServer, request: Request) -> Answer:
    _only_reads(request)
    check_accepted(request.headers.get("Accept", ""), only="application/json")
    options = server.options
    keys = options.service_account_jwks_uri or f"https://{server.discovery.address}/openid/v1/jwks"
    document = {
        "issuer": options.service_account_issuer[0],
        "jwks_uri": keys,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }
    answer = Answer(200, orjson.dumps(document), JSON)
    answer.cache = _PUBLIC_CACHE
    return answer


def _issuer_keys(server: ApiServer, request: Request) -> Answer:
    _only_reads(request)
    check_accepted(request.headers.get("Accept", ""), only="application/jwk-set+json")
    answer = Answer(200, orjson.dumps(server.authenticator.keys.jwks()), _JWKS)
    answer.cache = _PUBLIC_CACHE
    return answer


def _clock(server: ApiServer, request: Request) -> Answer | Awaitable[Answer]:
    """The time of a server whose clock is driven by hand; POST with `advance=24h` drives it."""
    clock = server.clock
    if not isinstance(clock, ManualClock):
        return no_such_path()
    if request.method != "POST":
        _only_reads(request)
        return _json({"time": rfc3339(clock.time())})
    try:
        seconds = parse_duration(request.query.get("advance", ""))
    except ValueError as error:
        raise errors.bad_request(f"advance: {error}") from None
    server.running.discard(request)  # time goes on when no request is under way; this one waits for that
    return _advance(clock, seconds)


async def _advance(clock: ManualClock, seconds: float) -> Answer:
    await clock.advance(seconds)
    return _json({"time": rfc3339(clock.time())})


def _configuration(server: ApiServer, request: Request) -> Answer:
    """The options in force, by their flags; none of them holds a secret, only the names of files that do."""
    _only_reads(request)
    told = {entry.flag: getattr(server.options, entry.field) for entry in options_of(type(server.options))}
    return _json({"apiserver.fastkube.dev": told})


def _statusz(server: ApiServer, request: Request) -> Answer:
    from fastkube.server import zpages

    return zpages.statusz(server, request, _listed(server))


def _flagz(server: ApiServer, request: Request) -> Answer:
    from fastkube.server import zpages

    return zpages.flagz(server, request)


def _debug(server: ApiServer, request: Request) -> Answer | Awaitable[Answer]:
    if request.info.path.startswith("/debug/api_priority_and_fairness/") and server.flow.enabled:
        from fastkube.server.flow_dumps import dump

        return dump(server, request)
    if not server.options.profiling or not request.info.path.startswith("/debug/pprof"):
        return no_such_path()
    from fastkube.server.profiling import profiles

    return profiles(request)


_EXACT: dict[str, Callable[[ApiServer, Request], Answer | Awaitable[Answer]]] = {
    "/": _index,
    "/.well-known/openid-configuration": _issuer,
    "/api": _discovery,
    "/fastkube/configz": _configuration,
    "/apis": _discovery,
    CLOCK_PATH: _clock,
    "/flagz": _flagz,
    "/metrics": _metrics,
    "/openid/v1/jwks": _issuer_keys,
    "/statusz": _statusz,
    "/version": _version,
    "/version/": _version,
}

_UNDER: dict[str, Callable[[ApiServer, Request], Answer | Awaitable[Answer]]] = {
    "api": _discovery,
    "apis": _discovery,
    "debug": _debug,
    "healthz": _health,
    "livez": _health,
    "readyz": _health,
    "openapi": _openapi,
    "version": _below_version,
}
"""By the first part of the path."""
