"""Content negotiation: which wire format, and which form of an object, an Accept header asks for.

    application/json                                            the object itself
    application/json;as=Table;v=v1;g=meta.k8s.io                a table made by the server (what kubectl get asks for)
    application/json;as=PartialObjectMetadata;v=v1;g=...        metadata only
    application/yaml                                            another format of the same
    application/vnd.kubernetes.protobuf                         likewise, for built-in kinds and metadata-only forms
    application/msgpack                                         the stored form; fastkube's own components ask for it

Clauses are tried by quality, then by order. One that asks for a form which the endpoint does not have is passed over;
when none is left the answer is 406. Headers repeat, so results are kept by header text.
"""

from __future__ import annotations

from typing import NamedTuple

from fastkube import errors
from fastkube.errors import ApiError

JSON = b"application/json"
YAML = b"application/yaml"
MSGPACK = b"application/msgpack"
PROTOBUF = b"application/vnd.kubernetes.protobuf"
TEXT = b"text/plain; charset=utf-8"

META = "meta.k8s.io"
TABLE = "Table"
PARTIAL = "PartialObjectMetadata"
PARTIAL_LIST = "PartialObjectMetadataList"

_FORMATS = {
    "application/json": JSON,
    "application/yaml": YAML,
    "application/msgpack": MSGPACK,
    "application/vnd.kubernetes.protobuf": PROTOBUF,
}
_ADVERTISED = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
_ADVERTISED_STREAMS = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
_CACHE_MAX = 1024
_accepted: set[tuple[str, bool, str]] = set()


class Form(NamedTuple):
    """`media` is the wire format; `kind` is "", Table, PartialObjectMetadata or PartialObjectMetadataList."""

    media: bytes = JSON
    kind: str = ""
    version: str = ""
    pretty: bool = False


class Clause(NamedTuple):
    """One term of an Accept header."""

    type: str
    subtype: str
    parameters: dict[str, str]
    quality: float


PLAIN_JSON = Form()
_PRETTY_JSON = Form(pretty=True)

_forms: dict[tuple[str, bool, bool, bool], Form] = {}


def parse_accept(header: str) -> list[Clause]:
    """Clauses in the order in which they are to be tried."""
    clauses = []
    for text in header.split(","):
        name, *rest = text.split(";")
        main, slash, sub = name.strip().lower().partition("/")
        if not slash:
            if main != "*":
                continue
            sub = "*"
        parameters: dict[str, str] = {}
        quality = 1.0
        for parameter in rest:
            key, _, value = parameter.partition("=")
            key, value = key.strip(), value.strip().strip('"')
            if key == "q":
                quality = _quality(value)
            else:
                parameters[key] = value
        clauses.append(Clause(main, sub, parameters, quality))
    clauses.sort(key=lambda clause: -clause.quality)
    return clauses


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


def form_for(accept: str, *, stream: bool = False, custom: bool = False, tables: bool = True) -> Form:
    """The form of an object, list or watch; raises 406 when nothing acceptable can be served.

    Objects of `custom` kinds have no protobuf form. Not `tables`: what is asked for is never shown as one.
    """
    if accept == "application/json" or not accept:
        return PLAIN_JSON
    key = (accept, stream, custom, tables)
    form = _forms.get(key)
    if form is None:
        form = _negotiate(accept, stream, custom, tables)
        if len(_forms) >= _CACHE_MAX:
            _forms.clear()
        _forms[key] = form
    return form


def _negotiate(accept: str, stream: bool, custom: bool, tables: bool) -> Form:
    for clause in parse_accept(accept):
        media = format_of(clause)
        if media is None:
            continue
        form = _form_of(media, clause.parameters)
        if form is None or (form.kind == TABLE and not tables):
            continue
        if form.kind or not custom or media is not PROTOBUF:
            if stream and media == YAML:
                raise not_acceptable(stream=True)
            return form
    raise not_acceptable()


def format_of(clause: Clause) -> bytes | None:
    if clause.subtype == "*":
        return JSON if clause.type in ("*", "application") else None
    return _FORMATS.get(f"{clause.type}/{clause.subtype}")


def _form_of(media: bytes, parameters: dict[str, str]) -> Form | None:
    """None: the clause asks for a form that there is not."""
    pretty = parameters.get("pretty", "") in ("1", "true")
    kind = parameters.get("as", "")
    if not kind:
        return Form(media, pretty=pretty) if not parameters.get("g") else None
    version = parameters.get("v", "")
    if parameters.get("g") != META or version not in ("v1", "v1beta1"):
        return None
    if kind == TABLE and media in (JSON, YAML, MSGPACK):
        return Form(media, TABLE, version, pretty)
    if kind in (PARTIAL, PARTIAL_LIST) and (media is not PROTOBUF or version == "v1"):
        return Form(media, kind, version, pretty)
    return None


def error_media(accept: str) -> bytes:
    """The format of a Status: what was asked for if that can be had, else JSON."""
    if not accept or accept == "application/json":
        return JSON
    for clause in parse_accept(accept):
        media = format_of(clause)
        if media is not None and "as" not in clause.parameters:
            return media
    return JSON


def not_acceptable(*, stream: bool = False) -> ApiError:
    known = _ADVERTISED_STREAMS if stream else _ADVERTISED
    return errors.not_acceptable(f"only the following media types are accepted: {known}")


def check_accepted(accept: str, *, collection: bool = False, only: str = _ADVERTISED) -> None:
    """What upstream's router looks at before negotiation: whether one of the types, by its full name, is one that the
    route of a built-in kind produces. Raises 406."""
    if not accept or (accept == "application/json" and only is _ADVERTISED) or (accept, collection, only) in _accepted:
        return
    for clause in accept.split(","):
        name = clause.partition(";")[0].strip(" ")
        if name == "*/*" or name in only.split(", ") or name == "application/msgpack":
            if len(_accepted) >= _CACHE_MAX:
                _accepted.clear()
            _accepted.add((accept, collection, only))
            return
    known = f"{only}, {_ADVERTISED_STREAMS}" if collection else only
    told = f"406: Not Acceptable\n\nAvailable representations: {known}"
    raise ApiError(406, "NotAcceptable", told, details={})


def wants_pretty(query: dict[str, str], user_agent: str) -> bool:
    """People's tools get indented JSON unless they say otherwise."""
    asked = query.get("pretty", "")
    if asked:
        return asked in ("1", "t", "T", "true", "TRUE", "True")
    return user_agent.startswith(("curl", "Wget", "Mozilla/5.0"))
