"""Kubernetes' libraries regex and format, and the key's escape for JSON patches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from fastkube.api import names, regex
from fastkube.api import string_formats as formats
from fastkube.cel.errors import EvalError
from fastkube.cel.functions import Overload, function, method, succeeds
from fastkube.cel.network import parse_url
from fastkube.cel.values import NONE, Optional


def _compiled(pattern: str) -> regex.Regex:
    try:
        return regex.compile(pattern)
    except regex.RegexError as error:
        raise EvalError(f"Illegal regex: {error}") from None


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found = list(_compiled(pattern).find_all(text))
    return found if limit < 0 else found[:limit]


REGEX = (
    method("find", "string, string -> string", lambda text, pattern: _compiled(pattern).find(text) or ""),
    method("findAll", "string, string -> list(string)", _find_all),
    method("findAll", "string, string, int -> list(string)", _find_all),
)

# ---------------------------------------------------------------- format


@dataclass(frozen=True, slots=True)
class Format:
    """A named format: `validate` gives the complaints about a text."""

    name: str
    complaints: Callable[[str], list[str]]
    cel_type: ClassVar[str] = "kubernetes.NamedFormat"


@cache
def _formats() -> dict[str, Format]:
    checks: dict[str, Callable[[str], list[str]]] = {
        "dns1123Label": names.dns1123_label,
        "dns1123Subdomain": names.dns1123_subdomain,
        "dns1035Label": names.dns1035_label,
        "qualifiedName": names.label_key,
        "dns1123LabelPrefix": lambda text: names.dns1123_label(text, True),
        "dns1123SubdomainPrefix": lambda text: names.dns1123_subdomain(text, True),
        "dns1035LabelPrefix": lambda text: names.dns1035_label(text, True),
        "labelValue": names.label_value,
        "uri": lambda text: [] if succeeds(parse_url)(text) else ["invalid URI"],
        "uuid": lambda text: [] if formats.is_valid("uuid", text) else ["does not match the UUID format"],
        "byte": lambda text: [] if formats.is_valid("byte", text) else ["invalid base64"],
        "date": lambda text: [] if formats.is_valid("date", text) else ["invalid date"],
        "datetime": lambda text: [] if formats.is_valid("datetime", text) else ["invalid datetime"],
    }
    return {name: Format(name, check) for name, check in checks.items()}


def _named(name: str) -> Optional:
    found = _formats().get(name)
    return Optional(found) if found is not None else NONE


def _validate(form: Format, text: str) -> Optional:
    told = form.complaints(text)
    return Optional(told) if told else NONE


_KNOWN = (
    "dns1123Label dns1123Subdomain dns1035Label qualifiedName dns1123LabelPrefix dns1123SubdomainPrefix "
    "dns1035LabelPrefix labelValue uri uuid byte date datetime"
)


def _format_functions() -> tuple[Overload, ...]:
    return tuple(
        function(f"format.{name}", "-> kubernetes.NamedFormat", lambda name=name: _formats()[name])
        for name in _KNOWN.split()
    )


FORMATS = (
    *_format_functions(),
    function("format.named", "string -> optional(kubernetes.NamedFormat)", _named),
    method("validate", "kubernetes.NamedFormat, string -> optional(list(string))", _validate),
)

JSON_PATCH = (
    function("jsonpatch.escapeKey", "string -> string", lambda key: key.replace("~", "~0").replace("/", "~1")),
)

OVERLOADS = (*REGEX, *FORMATS, *JSON_PATCH)
