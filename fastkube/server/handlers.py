"""Verbs on resources: each makes a registry call and turns what comes back into an answer.

A read is answered in the turn in which it came: store bytes → transcoder → socket. A create is answered from the very
bytes that were stored. Lists longer than `_STREAM_FROM_BYTES` are written while they are encoded.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aiohttp.http_writer import HttpVersion11

from fastkube import errors
from fastkube._casts import Cast
from fastkube.api import codec
from fastkube.registry.answers import Page, Stored
from fastkube.registry.creations import Foretold
from fastkube.registry.deletion import DeleteOptions
from fastkube.registry.listing import ListOptions, parse_resource_version
from fastkube.server.answer import (
    GZIP_MIN_BYTES,
    GZIP_WBITS,
    LAST_CHUNK,
    Answer,
    Streamed,
    chunk,
    render_head,
    takes_gzip,
)
from fastkube.server.calls import Route, dry_runs, find_route, make_call, read_body
from fastkube.server.components import component_status, component_statuses, is_component_status
from fastkube.server.connect import CONNECTING, connect, options_of
from fastkube.server.forms import ListHead, View, view_of
from fastkube.server.media import JSON, Form, check_accepted, form_for, wants_pretty
from fastkube.server.streams import CHUNKED, RAW, Selection, Watcher
from fastkube.server.websocket import is_websocket, serve_websocket
from fastkube.store import Compacted

if TYPE_CHECKING:
    from fastkube.registry.strategy import Call, Object
    from fastkube.server.app import ApiServer
    from fastkube.server.request import Request

Result = Answer | Awaitable[Answer | Streamed]

_STREAM_FROM_BYTES = 1024 * 1024
_GZIP_LEVEL = 1
_EXPORT = "the export parameter, deprecated since v1.14, is no longer supported"
_WITHOUT_TABLE = frozenset(
    (
        ("apiservices", "status"),
        ("certificatesigningrequests", "approval"),
        ("customresourcedefinitions", "status"),
        ("pods", "ephemeralcontainers"),
        ("pods", "resize"),
        ("resourceclaims", "status"),
        ("serviceaccounts", "token"),
    )
)
"""Subresources which upstream has no table of."""
_PEOPLE = ("curl", "Wget", "Mozilla/5.0")


def handle_resource(server: ApiServer, request: Request) -> Result:
    """Raises 404 and 405 for paths and methods that there are not, and whatever the verb raises."""
    route = find_route(server.catalog, server.discovery, request)
    if request.info.subresource in CONNECTING:
        return _connect(server, request, make_call(request, route, server.clock.time()))
    if not route.rtype.custom:
        lists = request.info.parts == 1 and route.verb in ("list", "watch")
        check_accepted(request.headers.get("Accept", ""), collection=lists)
    return _HANDLERS[route.verb](server, request, route)


def _connect(server: ApiServer, request: Request, call: Call) -> Result:
    if request.query.get("dryRun"):
        raise errors.bad_request("dryRun is not supported")
    options = options_of(call, request.query_text)
    return connect(server, request, call) if options is None else _connect_admitted(server, request, call, options)


async def _connect_admitted(
    server: ApiServer, request: Request, call: Call, options: dict[str, Any]
) -> Answer | Streamed:
    asked = replace(call, verb="connect")
    await server.registry.admission.mutate(asked, options, None)
    await server.registry.admission.validate(asked, options, None)
    result = connect(server, request, call)
    return result if isinstance(result, Answer) else await result


def _form(request: Request, call: Call) -> Form:
    headers = request.headers
    if call.subresource:
        tables = (call.rtype.resource, call.subresource) not in _WITHOUT_TABLE
    else:
        tables = len(call.rtype.verbs) > 1  # there is none of what is only asked
    form = form_for(headers.get("Accept", ""), custom=call.rtype.custom, tables=tables)
    agent = headers.get("User-Agent", "")
    if (request.query and "pretty" in request.query) or agent.startswith(_PEOPLE):
        form = form._replace(pretty=wants_pretty(request.query, agent))
    return form


def _view(server: ApiServer, request: Request, call: Call) -> View:
    """How the answer shows objects; raises 406."""
    info = call.rtype.subresources.get(call.subresource) if call.subresource else None
    foreign = info is not None and info.kind != call.rtype.kind
    return view_of(call.rtype, call.version, _form(request, call), request.query, server.clock, foreign)


def _begin(server: ApiServer, request: Request, route: Route) -> tuple[Call, View]:
    call = make_call(request, route, server.clock.time())
    return call, _view(server, request, call)


def _object(view: View, stored: Stored, code: int) -> Answer:
    return Answer(code, view.one(stored.value, stored.revision), view.form.media)


async def _asked(view: View, items: list[Stored]) -> list[Stored]:
    """The items as a webhook shows them in the version of the request."""
    converter = view.rtype.extra["converter"]
    shown: list[Stored] = await converter.shown(items, view.rtype.api_version(view.version))
    return shown


async def _asked_object(view: View, stored: Stored, code: int) -> Answer:
    (shown,) = await _asked(view, [stored])
    return _object(view, shown, code)


async def _asked_page(server: ApiServer, request: Request, view: View, page: Page) -> Answer | Streamed:
    result = _page(server, request, view, page._replace(items=await _asked(view, [Stored(*one) for one in page.items])))
    return result if isinstance(result, Answer) else await result


# ---------------------------------------------------------------- reads


def get(server: ApiServer, request: Request, route: Route) -> Result:
    call, view = _begin(server, request, route)
    if "export" in request.query:
        raise errors.bad_request(_EXPORT)
    if is_component_status(call.rtype):
        return _object(view, component_status(server.store, call.name), 200)
    if view.asks:
        return _asked_object(view, server.registry.get(call), 200)
    stored = server.registry.get(call)
    server.repeats.learn(request, view)
    return _object(view, stored, 200)


def list_(server: ApiServer, request: Request, route: Route) -> Result:
    call, view = _begin(server, request, route)
    options = _list_options(call, request)
    if is_component_status(call.rtype):
        return _page(server, request, view, component_statuses(server.store))
    page = server.registry.list(call, options)
    return _asked_page(server, request, view, page) if view.asks else _page(server, request, view, page)


def _list_options(call: Call, request: Request, *, watch: bool = False) -> ListOptions:
    rtype = call.rtype
    kind = "" if rtype.custom else rtype.kind
    return ListOptions.parse(request.query, rtype.selectable, watch=watch, kind=kind)


def _page(server: ApiServer, request: Request, view: View, page: Page) -> Result:
    head = ListHead(page.revision, page.continue_token, page.remaining)
    pieces = view.many(page.items, head)
    first = next(pieces)
    second = next(pieces, None)
    if second is None:
        return Answer(200, first, view.form.media)
    return _many(server, request, view, first, second, pieces)


async def _many(
    server: ApiServer, request: Request, view: View, first: bytes, second: bytes, rest: Iterator[bytes]
) -> Answer | Streamed:
    """A list of more than one piece: as one body while it is short, else written piece by piece."""
    start = [first, second]
    size = len(first) + len(second)
    while size < _STREAM_FROM_BYTES:
        piece = next(rest, None)
        if piece is None:
            return Answer(200, b"".join(start), view.form.media)
        start.append(piece)
        size += len(piece)
    if request.head.version < HttpVersion11:  # HTTP/1.0 has no chunks
        return Answer(200, b"".join((*start, *rest)), view.form.media)
    return await _stream(server, request, view.form.media, b"".join(start), rest)


async def _stream(server: ApiServer, request: Request, media: bytes, start: bytes, rest: Iterator[bytes]) -> Streamed:
    """Writes a list in chunks, compressed in a thread if the client takes that."""
    connection = request.connection
    transport = connection.transport
    if transport is None:
        raise ConnectionResetError("the client has gone")
    compress = None
    headers = b""
    if len(start) >= GZIP_MIN_BYTES and takes_gzip(request.headers.get("Accept-Encoding", "")):
        compress = zlib.compressobj(_GZIP_LEVEL, wbits=GZIP_WBITS)
        headers = b"Content-Encoding: gzip\r\nVary: Accept-Encoding\r\n"
    keep_alive = server.keeps_alive(request)
    head = render_head(request, 200, media, headers, server.date(), keep_alive)
    transport.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
    request.streaming = True
    piece: bytes | None = start
    while piece is not None:
        data = await asyncio.to_thread(compress.compress, piece) if compress is not None else piece
        if data:
            transport.writelines((b"%x\r\n" % len(data), data, b"\r\n"))
            await connection.drain()
        piece = next(rest, None)
    tail = chunk(compress.flush()) if compress is not None else b""
    transport.write(tail + LAST_CHUNK)
    return Streamed(200, keep_alive)


# ---------------------------------------------------------------- watches


def watch(server: ApiServer, request: Request, route: Route) -> Result:
    call = make_call(request, route, server.clock.time())
    query = request.query
    if request.info.legacy_watch and request.info.parts == 2 and not query.get("fieldSelector"):
        query["fieldSelector"] = f"metadata.name={call.name}"
    options = _list_options(call, request, watch=True)
    form = form_for(request.headers.get("Accept", ""), stream=True, custom=call.rtype.custom)
    view = view_of(call.rtype, call.version, form, query, server.clock)
    position = parse_resource_version(options.resource_version)
    if options.timeout_s < 0:
        return Answer(200, b"", view.stream_media)
    return _watch(server, request, call, options, view, position)


async def _watch(
    server: ApiServer, request: Request, call: Call, options: ListOptions, view: View, position: int
) -> Answer | Streamed:
    hub = server.streams.hub(call.rtype)
    selection = Selection(call.namespace, options.labels, options.fields)
    lifetime_s = options.timeout_s or server.options.min_request_timeout_s * random.uniform(1.0, 2.0)
    initial = options.send_initial_events is True or (options.send_initial_events is None and position == 0)
    announce = initial and options.allow_bookmarks
    if options.send_initial_events is True and position:
        await server.wait_for_revision(position)
    connection = request.connection
    if is_websocket(request):
        return await serve_websocket(
            request,
            lambda framing: Watcher(
                hub, selection, view, framing, connection, bookmarks=options.allow_bookmarks, lifetime_s=lifetime_s
            ),
            lambda watcher: _run(watcher, position, initial, announce),
        )
    chunked = request.head.version >= HttpVersion11
    keep_alive = chunked and server.keeps_alive(request)
    framing = CHUNKED if chunked else RAW
    watcher = Watcher(
        hub, selection, view, framing, connection, bookmarks=options.allow_bookmarks, lifetime_s=lifetime_s
    )
    request.connection.watcher = watcher
    try:
        head = render_head(request, 200, view.stream_media, b"", server.date(), keep_alive)
        watcher.transport.write(head + (b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n"))
        request.streaming = True
        if server.auditor is not None:
            server.auditor.started(request, 200)
        await _run(watcher, position, initial, announce)
    finally:
        request.connection.watcher = None
    return Streamed(200, keep_alive and watcher.clean)


async def _run(watcher: Watcher, position: int, initial: bool, announce: bool) -> None:
    oldest = watcher.hub.oldest()
    if not initial and position < oldest:
        await watcher.refuse(Compacted(oldest), position)
    else:
        await watcher.run(position or watcher.hub.position, initial=initial, announce=announce)


# ---------------------------------------------------------------- writes


async def create(server: ApiServer, request: Request, route: Route) -> Answer:
    call, view = _begin(server, request, route)
    body = await read_body(request)
    if call.subresource:
        return await _act(server, request, call, view, body)
    cast = server.registry.cast(call, request.headers.get("Content-Type", ""), body)
    if isinstance(cast, Cast | Foretold):
        revision = await server.registry.create_cast(call, cast)
        server.repeats.learn_create(request, call, view)
        return _cast(view, cast, revision)
    stored = await server.registry.create(call, _decoded(call, request, body))
    if cast is not None:
        cast.learn(stored.value, server.registry.timestamp(call))
    server.repeats.learn_batched(request, call, view)
    return await _asked_object(view, stored, 201) if view.asks else _object(view, stored, 201)


async def _act(server: ApiServer, request: Request, call: Call, view: View, body: bytes) -> Answer:
    call.sent = request.headers.get("Content-Type", ""), body
    done = await server.registry.create(call, _decoded(call, request, body))
    server.repeats.learn_batched(request, call, view)
    return _object(view, done, 201)


def _cast(view: View, cast: Cast | Foretold, revision: int) -> Answer:
    if view.plain and view.form.media is JSON and not view.form.pretty:
        return Answer(201, cast.json(revision))
    return _object(view, Stored(cast.value, revision), 201)


def _decoded(call: Call, request: Request, body: bytes) -> Object:
    rtype = call.rtype
    kind = rtype.subresources[call.subresource].kind if call.subresource else rtype.kind
    media = request.headers.get("Content-Type", "")
    return codec.decode(body, media, kind, call.faults, merges=not rtype.custom)


async def update(server: ApiServer, request: Request, route: Route) -> Answer:
    call, view = _begin(server, request, route)
    body = await read_body(request)
    registry, change = server.registry, server.registry.change(call, request.headers.get("Content-Type", ""), body)
    stored = await registry.make(call, change) if change is not None else None
    created = False
    if stored is None:
        stored, created = await registry.update(call, _decoded(call, request, body), change)
    server.repeats.learn_change(request, call, view)
    code = 201 if created else 200
    return await _asked_object(view, stored, code) if view.asks else _object(view, stored, code)


async def patch(server: ApiServer, request: Request, route: Route) -> Answer:
    call, view = _begin(server, request, route)
    body = await read_body(request)
    stored, created = await server.registry.patch(call, request.headers.get("Content-Type", ""), body)
    server.repeats.learn_change(request, call, view)
    code = 201 if created else 200
    return await _asked_object(view, stored, code) if view.asks else _object(view, stored, code)


async def delete(server: ApiServer, request: Request, route: Route) -> Answer:
    call, view = _begin(server, request, route)
    body = await read_body(request)
    options = _delete_options(request, call, body)
    result, code = await server.registry.delete(call, options)
    if code == 200:
        server.repeats.learn_delete(request, call, view, body, options)
    if isinstance(result, Stored):
        return await _asked_object(view, result, code) if view.asks else _object(view, result, code)
    return Answer(code, view.encode(result), view.form.media)


async def delete_collection(server: ApiServer, request: Request, route: Route) -> Answer | Streamed:
    call, view = _begin(server, request, route)
    selection = _list_options(call, request)
    options = _delete_options(request, call, await read_body(request))
    page = await server.registry.delete_collection(call, selection, options)
    if view.asks:
        return await _asked_page(server, request, view, page)
    answer = _page(server, request, view, page)
    return answer if isinstance(answer, Answer) else await answer


def _delete_options(request: Request, call: Call, body: bytes) -> DeleteOptions:
    if not body:
        return DeleteOptions.parse(request.query, dry_runs(request) if "dryRun" in request.query else [])
    options, dry_run = DeleteOptions.read(codec.decode_options(body, request.headers.get("Content-Type", "")))
    call.dry_run = dry_run
    return options


_HANDLERS: dict[str, Callable[[ApiServer, Request, Route], Result]] = {
    "get": get,
    "list": list_,
    "watch": watch,
    "create": create,
    "update": update,
    "patch": patch,
    "delete": delete,
    "deletecollection": delete_collection,
}
