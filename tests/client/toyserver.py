"""A very small API server for the client's tests: one map of objects, a log of events, list, watch and the plain verbs.

It keeps only what the client relies on (revisions, 409, 410, bookmarks, streaming lists), in JSON and msgpack, and can
be told to misbehave as real servers do.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import uuid
from typing import Any

import msgpack
import orjson
from aiohttp import web

Object = dict[str, Any]

_PATH = re.compile(r"^/apis?/(?:[^/]+/)?v1(?:/namespaces/(?P<ns>[^/]+))?/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?$")


class ToyServer:
    """`url` once started. Switches: `msgpack`, `watch_list`, `refuse` (status, headers) answers to give first.

    `watch_list` "broken": streaming lists are begun, and end with an error, as where etcd cannot report progress.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.events: list[tuple[int, str, str, Object]] = []
        self.revision = 1
        self.compacted = 0
        self.msgpack = True
        self.watch_list: bool | str = True
        self.refuse: list[tuple[int, dict[str, str]]] = []
        self.requests: list[tuple[str, str, str]] = []
        self.hang: asyncio.Event | None = None
        self._changed = asyncio.Condition()
        self._arrived = asyncio.Condition()
        self._watches: set[asyncio.Task[Any]] = set()
        self._uids = itertools.count(1)
        self.url = ""

    async def start(self, unix_path: str = "") -> None:
        self._runner = web.ServerRunner(web.Server(self._handle))
        await self._runner.setup()
        site: web.BaseSite
        if unix_path:
            site = web.UnixSite(self._runner, unix_path)
        else:
            site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        if not unix_path:
            port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
            self.url = f"http://127.0.0.1:{port}"

    async def stop(self) -> None:
        self.break_watches()
        await self._runner.cleanup()

    async def received(self, count: int) -> None:
        """Until so many requests have arrived in all."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= count)

    # -- state -------------------------------------------------------------------------------------------------------

    async def put(self, obj: Object, plural: str = "pods") -> Object:
        metadata = obj["metadata"]
        key = (plural, metadata.get("namespace", ""), metadata["name"])
        self.revision += 1
        old = self.objects.get(key)
        uid = old["metadata"]["uid"] if old else str(uuid.UUID(int=next(self._uids)))
        obj = {**obj, "metadata": {**metadata, "uid": uid, "resourceVersion": str(self.revision)}}
        self.objects[key] = obj
        await self._log("MODIFIED" if old else "ADDED", plural, obj)
        return obj

    async def remove(self, namespace: str, name: str, plural: str = "pods") -> Object:
        old = self.objects.pop((plural, namespace, name))
        self.revision += 1
        obj = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.revision)}}
        await self._log("DELETED", plural, obj)
        return obj

    async def _log(self, kind: str, plural: str, obj: Object) -> None:
        self.events.append((self.revision, kind, plural, obj))
        async with self._changed:
            self._changed.notify_all()

    def break_watches(self) -> None:
        for task in list(self._watches):
            task.cancel()

    # -- HTTP --------------------------------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs, request.headers.get("Content-Type", "")))
        async with self._arrived:
            self._arrived.notify_all()
        body = await request.read()
        if self.hang is not None:
            await self.hang.wait()
        if self.refuse:
            status, headers = self.refuse.pop(0)
            return web.Response(status=status, headers=headers, text="refused")
        match = _PATH.match(request.path)
        if not match:
            return self._status(request, 404, "NotFound", "the server could not find the requested resource")
        ns, plural, name = match["ns"] or "", match["plural"], match["name"] or ""
        if request.query.get("watch") == "true":
            return await self._watch(request, ns, plural)
        obj = self._decode(request, body) if body else None
        if isinstance(obj, web.Response):
            return obj
        verb = getattr(self, f"_{request.method.lower()}")
        answer: web.StreamResponse = await verb(request, plural, ns, name, obj)
        return answer

    def _decode(self, request: web.BaseRequest, body: bytes) -> Any:
        if request.content_type == "application/msgpack":
            if not self.msgpack:
                return self._status(request, 415, "UnsupportedMediaType", "no msgpack here")
            return msgpack.unpackb(body)
        return orjson.loads(body)

    async def _get(self, request: web.BaseRequest, plural: str, ns: str, name: str, _: Any) -> web.Response:
        if name:
            obj = self.objects.get((plural, ns, name))
            return self._answer(request, obj) if obj else self._missing(request, plural, name)
        items = [obj for (kind, n, _), obj in sorted(self.objects.items()) if kind == plural and ns in ("", n)]
        start, limit = int(request.query.get("continue", 0)), int(request.query.get("limit", 0))
        metadata = {"resourceVersion": str(self.revision)}
        if limit and start + limit < len(items):
            metadata["continue"] = str(start + limit)
        page = items[start : start + limit] if limit else items
        bare = [{key: value for key, value in obj.items() if key not in ("kind", "apiVersion")} for obj in page]
        return self._answer(request, {"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": bare})

    async def _post(self, request: web.BaseRequest, plural: str, ns: str, name: str, obj: Object) -> web.Response:
        metadata = obj["metadata"]
        if (plural, ns, metadata["name"]) in self.objects:
            return self._status(request, 409, "AlreadyExists", f'{plural} "{metadata["name"]}" already exists')
        return self._answer(request, await self.put({**obj, "metadata": {**metadata, "namespace": ns}}, plural), 201)

    async def _put(self, request: web.BaseRequest, plural: str, ns: str, name: str, obj: Object) -> web.Response:
        old = self.objects.get((plural, ns, name))
        if old is None:
            return self._missing(request, plural, name)
        sent = obj["metadata"].get("resourceVersion")
        if sent and sent != old["metadata"]["resourceVersion"]:
            return self._status(request, 409, "Conflict", "the object has been modified")
        return self._answer(request, await self.put(obj, plural))

    async def _patch(self, request: web.BaseRequest, plural: str, ns: str, name: str, obj: Object) -> web.Response:
        old = self.objects.get((plural, ns, name))
        if old is None:
            return self._missing(request, plural, name)
        merged = {**old, **obj, "metadata": {**old["metadata"], **obj.get("metadata", {})}}
        return self._answer(request, await self.put(merged, plural))

    async def _delete(self, request: web.BaseRequest, plural: str, ns: str, name: str, _: Any) -> web.Response:
        if (plural, ns, name) not in self.objects:
            return self._missing(request, plural, name)
        await self.remove(ns, name, plural)
        return self._answer(request, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})

    def _missing(self, request: web.BaseRequest, plural: str, name: str) -> web.Response:
        return self._status(request, 404, "NotFound", f'{plural} "{name}" not found')

    def _status(self, request: web.BaseRequest, code: int, reason: str, message: str) -> web.Response:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
        return self._answer(request, {**status, "code": code, "reason": reason, "message": message}, code)

    def _speaks_msgpack(self, request: web.BaseRequest) -> bool:
        return self.msgpack and "application/msgpack" in request.headers.get("Accept", "")

    def _answer(self, request: web.BaseRequest, obj: Any, status: int = 200) -> web.Response:
        if self._speaks_msgpack(request):
            return web.Response(body=msgpack.packb(obj), content_type="application/msgpack", status=status)
        return web.Response(body=orjson.dumps(obj), content_type="application/json", status=status)

    # -- watch -------------------------------------------------------------------------------------------------------

    async def _watch(self, request: web.BaseRequest, ns: str, plural: str) -> web.StreamResponse:
        initial = request.query.get("sendInitialEvents") == "true"
        if initial and not self.watch_list:
            return self._status(request, 422, "Invalid", "sendInitialEvents: Forbidden")
        position = int(request.query.get("resourceVersion") or self.revision)
        if position < self.compacted:
            return self._status(request, 410, "Expired", "too old resource version")
        speaks = self._speaks_msgpack(request)
        response = web.StreamResponse(headers={"Content-Type": "application/msgpack" if speaks else "application/json"})
        await response.prepare(request)
        task = asyncio.current_task()
        assert task is not None
        self._watches.add(task)

        async def send(kind: str, obj: Object) -> None:
            event = {"type": kind, "object": obj}
            if speaks:
                body = msgpack.packb(event)
                await response.write(len(body).to_bytes(4, "big") + body)
            else:
                await response.write(orjson.dumps(event) + b"\n")

        try:
            if initial and self.watch_list == "broken":
                await send("ERROR", {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "disabled",
                                     "reason": "InternalError", "code": 500})  # fmt: skip
                return response
            if initial:
                for (kind, n, _), obj in list(self.objects.items()):
                    if kind == plural and ns in ("", n):
                        await send("ADDED", obj)
                mark = {"resourceVersion": str(position), "annotations": {"k8s.io/initial-events-end": "true"}}
                await send("BOOKMARK", {"kind": "Pod", "apiVersion": "v1", "metadata": mark})
            await self._follow(plural, ns, position, send)
        except asyncio.CancelledError:
            task.uncancel()
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._watches.discard(task)
        return response

    async def _follow(self, plural: str, ns: str, position: int, send: Any) -> None:
        while True:
            for revision, kind, resource, obj in list(self.events):
                if revision > position and resource == plural and ns in ("", obj["metadata"].get("namespace", "")):
                    await send(kind, obj)
                    position = revision
            async with self._changed:
                if not self.events or self.events[-1][0] <= position:
                    await self._changed.wait()
