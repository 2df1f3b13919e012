"""/statusz and /flagz: what this component is and with which flags it runs, for people, or as objects of config.k8s.io.

Accept: text/plain, */* or none                                    text
Accept: application/json;as=Statusz;v=v1beta1;g=config.k8s.io      an object (likewise Flagz, YAML, v1alpha1)
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from fastkube import errors
from fastkube.api import codec
from fastkube.clock import rfc3339
from fastkube.config import options_of
from fastkube.server.answer import Answer
from fastkube.server.media import JSON, TEXT, YAML, parse_accept
from fastkube.server.version import VERSION_INFO

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastkube.server.app import ApiServer
    from fastkube.server.request import Request

_COMPONENT = "kube-apiserver"
_GROUP, _NEWEST, _OLD = "config.k8s.io", "v1beta1", "v1alpha1"
_STRUCTURED = {("application", "json"): JSON, ("application", "yaml"): YAML}
_ACCEPTED = "application/json, application/yaml, text/plain"
_NO_DEBUGGING = frozenset(("apis", "api", "openid", "openapi", ".well-known"))
_HEADER = (
    "\n{} {}\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees "
    "and is for debugging purposes only.\n"
)


def statusz(server: ApiServer, request: Request, paths: Iterable[str]) -> Answer:
    """`paths` are those of the index. Raises 406."""
    media, version = _negotiate(request, "Statusz")
    started = server.metrics.started
    about: dict[str, Any] = {
        "startTime": rfc3339(started),
        "uptimeSeconds": max(0, int(server.clock.time() - started)),
        "goVersion": VERSION_INFO["goVersion"],
        "binaryVersion": VERSION_INFO["gitVersion"].removeprefix("v"),
        "emulationVersion": f"{VERSION_INFO['emulationMajor']}.{VERSION_INFO['emulationMinor']}",
        "paths": sorted(
            {f"/{first}" for path in paths if (first := path.split("/")[1]) and first not in _NO_DEBUGGING}
        ),
    }
    if version:
        return _object(media, version, "Statusz", about)
    minutes, seconds = divmod(about["uptimeSeconds"], 60)
    lines = [
        f"Started: {time.strftime('%a %b %e %H:%M:%S UTC %Y', time.gmtime(started))}",
        f"Up: {minutes // 60} hr {minutes % 60:02} min {seconds:02} sec",
        f"Go version: {about['goVersion']} (Python {sys.version.split()[0]})",
        f"Binary version: {about['binaryVersion']}",
        f"Emulation version: {about['emulationVersion']}",
        f"Paths: {' '.join(about['paths'])}",
    ]
    return _text("statusz", ["", *lines])


def flagz(server: ApiServer, request: Request) -> Answer:
    """No flag holds a secret, only the names of files that do. Raises 406."""
    media, version = _negotiate(request, "Flagz")
    options = server.options
    told = {entry.flag: _flag(getattr(options, entry.field)) for entry in options_of(type(options))}
    if version:
        return _object(media, version, "Flagz", {"flags": told})
    return _text("flagz", [f"{flag}={told[flag]}" for flag in sorted(told)])


def _flag(value: Any) -> str:
    """As Go's flags print theirs."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return f"[{','.join(map(str, value))}]"
    return str(value)


def _negotiate(request: Request, kind: str) -> tuple[bytes, str]:
    """The format, and the version of the object that is asked for ("": text)."""
    accept = request.headers.get("Accept", "")
    if not accept.strip():
        return TEXT, ""
    for clause in parse_accept(accept):
        asked = clause.parameters
        if not asked.get("as") and clause.type in ("text", "*") and clause.subtype in ("plain", "*"):
            return TEXT, ""
        media = _STRUCTURED.get((clause.type, clause.subtype))
        if media and (asked.get("as"), asked.get("g")) == (kind, _GROUP) and asked.get("v") in (_NEWEST, _OLD):
            return media, asked["v"]
    raise errors.not_acceptable(f"only the following media types are accepted: {_ACCEPTED}")


def _object(media: bytes, version: str, kind: str, about: dict[str, Any]) -> Answer:
    obj = {"kind": kind, "apiVersion": f"{_GROUP}/{version}", "metadata": {"name": _COMPONENT}, **about}
    told = f"This version of the {kind.lower()} endpoint is deprecated. Please use a newer version."
    headers = f'Warning: 299 - "{told}"\r\n'.encode() if version == _OLD else b""
    return Answer(200, codec.encode(obj, media.decode()), media, headers)


def _text(page: str, lines: list[str]) -> Answer:
    return Answer(200, (_HEADER.format(_COMPONENT, page) + "\n".join(lines) + "\n").encode(), TEXT)
