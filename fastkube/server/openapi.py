"""/openapi/v2 and /openapi/v3: the documents of fastkube.api.openapi with upstream's URLs, hashes and caching.

    /openapi/v2                        everything in one document, with an ETag; as JSON or gnostic's protobuf
    /openapi/v3                        which documents there are, each with a URL that holds its hash
    /openapi/v3/apis/apps/v1?hash=H    one group version; immutable under its hash, so clients keep it for good

A document is made when it is first asked for. Those of built-in groups change only with the program, those of custom
groups with their definitions; hashes are made of that, so the index costs nothing.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from fastkube import __version__
from fastkube.server.answer import Answer
from fastkube.server.media import JSON, TEXT, parse_accept
from fastkube.server.remote_documents import Documents
from fastkube.server.version import VERSION_INFO

if TYPE_CHECKING:
    from fastkube.api.catalog import Catalog
    from fastkube.server.request import Request

_JSON_NAMES = ("application/json", "application/*", "*/*")
_V2_PROTOBUF = tuple(f"application/com.github.proto-openapi.spec.v2{sign}v1.0+protobuf" for sign in ".@")
_IMMUTABLE = b"Cache-Control: public, immutable\r\n"
_VARY = b"Vary: Accept\r\n"


class _Document(NamedTuple):
    body: bytes
    hash: str


class OpenApi:
    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._generation = -1
        self._v2: _Document | None = None
        self._v2_protobuf: _Document | None = None
        self._v3: dict[str, tuple[str, _Document]] = {}
        self._hashes: dict[str, str] = {}
        self._remotes: list[Documents] = []

    def use_remotes(self, remotes: list[Documents]) -> None:
        """Other servers whose documents are part of this one's: merged in version 2, theirs to answer in version 3."""
        self._remotes = remotes
        self._v2 = self._v2_protobuf = None

    def paths(self) -> list[str]:
        return ["/openapi/v2", "/openapi/v3", "/openapi/v3/", *(f"/openapi/v3/{name}" for name in self._names())]

    def answer(self, request: Request) -> Answer | None:
        """None when it is no path of ours."""
        if self._generation != self._catalog.generation:
            self._generation = self._catalog.generation
            self._v2 = self._v2_protobuf = None
            self._hashes.clear()
            names = self._names()
            self._v3 = {name: made for name, made in self._v3.items() if name in names}
        path = request.info.path
        if path == "/openapi/v2":
            return self._whole(request)
        if path == "/openapi/v3":
            return Answer(200, orjson.dumps(self._index()), TEXT)
        if path.startswith("/openapi/v3/"):
            return self._part(path.removeprefix("/openapi/v3/"), request)
        return None

    def _whole(self, request: Request) -> Answer:
        form = _accepted(request, (*_JSON_NAMES, *_V2_PROTOBUF))
        if form is None:
            return Answer(406, b"", b"", _VARY)
        if form in _JSON_NAMES:
            return _cached(self._v2_json(), request, _VARY)
        if self._v2_protobuf is None:
            from fastkube.api import gnostic

            self._v2_protobuf = _Document(gnostic.encode(orjson.loads(self._v2_json().body)), self._v2_json().hash)
        answer = _cached(self._v2_protobuf, request, _VARY)
        answer.media = _V2_PROTOBUF[0].encode()
        return answer

    def _v2_json(self) -> _Document:
        if self._v2 is None:
            from fastkube.api import openapi

            made = openapi.v2(self._catalog, VERSION_INFO["gitVersion"])
            for remote in self._remotes:
                _merge_v2(made, remote)
            self._v2 = _document(made)
        return self._v2

    def _part(self, name: str, request: Request) -> Answer:
        if name not in self._names():
            return Answer(404, b"", b"")
        if _accepted(request, _JSON_NAMES) is None:  # there is no protobuf form here
            return Answer(406, b"", b"", _VARY)
        given = request.query.get("hash", "")
        right = self._hash(name)
        if given and given != right:
            location = f"Location: {self._url(name)}\r\n"
            return Answer(301, b"", b"", location.encode())
        answer = _cached(self._made(name), request, _VARY)
        if given:
            answer.cache = _IMMUTABLE
        return answer

    def _index(self) -> dict[str, Any]:
        urls = {name: self._url(name) for name in self._names()}
        for remote in self._remotes:
            if remote.v3_hash:
                name = _name(remote.group, remote.version)
                urls[name] = f"/openapi/v3/{name}?hash={remote.v3_hash}"
        return {"paths": {name: {"serverRelativeURL": urls[name]} for name in sorted(urls)}}

    def _url(self, name: str) -> str:
        return f"/openapi/v3/{name}?hash={self._hash(name)}"

    def _hash(self, name: str) -> str:
        """Tells the states of a document apart without making it."""
        found = self._hashes.get(name)
        if found is None:
            customs = [rtype for rtype in self._catalog.all() if rtype.custom]
            spoken_of = [each for each in customs if any(name == _name(each.group, one) for one in each.versions)]
            told = [__version__, name, *(rtype.extra["fingerprint"] for rtype in spoken_of)]
            found = self._hashes[name] = hashlib.sha512(" ".join(told).encode()).hexdigest().upper()
        return found

    def _made(self, name: str) -> _Document:
        """The document, made anew only when what it speaks of has changed."""
        state = self._hash(name)
        known = self._v3.get(name)
        if known is not None and known[0] == state:
            return known[1]
        from fastkube.api import openapi

        document = _document(openapi.v3(self._catalog, name, VERSION_INFO["gitVersion"]))
        self._v3[name] = (state, document)
        return document

    def _names(self) -> set[str]:
        names = {"api", "apis", "version", ".well-known/openid-configuration", "openid/v1/jwks"}
        for rtype in self._catalog.all():
            if rtype.group and not rtype.custom:
                names.add(f"apis/{rtype.group}")
            names.update(_name(rtype.group, version) for version in rtype.versions)
        return names


def _merge_v2(document: dict[str, Any], remote: Documents) -> None:
    """Adds the paths of a remote group version and the definitions that they need; the server's own stay."""
    theirs = remote.v2 or {}
    prefix = f"/apis/{remote.group}/{remote.version}"
    for path, item in (theirs.get("paths") or {}).items():
        if path == prefix or path.startswith(prefix + "/"):
            document["paths"].setdefault(path, item)
    for name, definition in (theirs.get("definitions") or {}).items():
        document["definitions"].setdefault(name, definition)


def _name(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _accepted(request: Request, known: tuple[str, ...]) -> str | None:
    """The first of the media types that the client takes, in its order, which is among the known."""
    accept = request.headers.get("Accept", "")
    if not accept:
        return known[0]
    return next((media for one in parse_accept(accept) if (media := f"{one.type}/{one.subtype}") in known), None)


def _document(made: dict[str, Any]) -> _Document:
    body = orjson.dumps(made)
    return _Document(body, hashlib.sha512(body).hexdigest().upper())


def _cached(document: _Document, request: Request, headers: bytes) -> Answer:
    headers += f'Etag: "{document.hash}"\r\n'.encode()
    if document.hash in request.headers.get("If-None-Match", ""):
        return Answer(304, b"", b"", headers)
    return Answer(200, document.body, JSON, headers)
