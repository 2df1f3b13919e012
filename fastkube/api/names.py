"""The formats of names, keys and labels, each a function from a text to the list of its faults in upstream's words.

An empty list means the text is good. Checks that names go through take a second argument, `prefix`: the text is a
generateName, so a trailing dash is allowed because a suffix will follow.

Lengths count bytes. Which unit a message names ("characters" or "bytes") is upstream's choice and differs by check.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

NameCheck = Callable[[str, bool], list[str]]

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_UNDERSCORED = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_UNDERSCORED_SUBDOMAIN = rf"{_UNDERSCORED}(\.{_UNDERSCORED})*"
_WILDCARD = rf"\*\.{_SUBDOMAIN}"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = f"({_QUALIFIED})?"
_C_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_PERCENT = "[0-9]+%"
_HTTP_HEADER = "[-A-Za-z0-9]+"

_is_label = re.compile(_LABEL).fullmatch
_is_subdomain = re.compile(_SUBDOMAIN).fullmatch
_is_underscored = re.compile(_UNDERSCORED_SUBDOMAIN).fullmatch
_is_wildcard = re.compile(_WILDCARD).fullmatch
_is_label_1035 = re.compile(_LABEL_1035).fullmatch
_is_qualified = re.compile(_QUALIFIED).fullmatch
_is_label_value = re.compile(_LABEL_VALUE).fullmatch
_is_c_identifier = re.compile(_C_IDENTIFIER).fullmatch
_is_config_key = re.compile(_CONFIG_KEY).fullmatch
_is_percent = re.compile(_PERCENT).fullmatch
_is_http_header = re.compile(_HTTP_HEADER).fullmatch
_is_port_charset = re.compile("[-a-z0-9]+").fullmatch

_LABEL_MAX = 63
_SUBDOMAIN_MAX = 253
_PORT_NAME_MAX = 15


def _regex_error(rule: str, pattern: str, *examples: str) -> str:
    named = " or ".join(f"'{example}', " for example in examples)
    return f"{rule} (e.g. {named}regex used for validation is '{pattern}')"


_NOT_LABEL = _regex_error(
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character",
    _LABEL,
    "my-name",
    "123-abc",
)
_NOT_SUBDOMAIN = _regex_error(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character",
    _SUBDOMAIN,
    "example.com",
)
_NOT_UNDERSCORED = _regex_error(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', "
    "and must start and end with an alphanumeric character",
    _UNDERSCORED_SUBDOMAIN,
    "example.com",
)
_NOT_WILDCARD = _regex_error(
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
    "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
    _WILDCARD,
    "*.example.com",
)
_NOT_LABEL_1035 = _regex_error(
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character",
    _LABEL_1035,
    "my-name",
    "abc-123",
)
_NOT_QUALIFIED = _regex_error(
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
    _QUALIFIED,
    "MyName",
    "my.name",
    "123-abc",
)
_NOT_LABEL_KEY = (
    f"a valid label key {_NOT_QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
)
_NOT_LABEL_VALUE = _regex_error(
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character",
    _LABEL_VALUE,
    "MyValue",
    "my_value",
    "12345",
)
_NOT_C_IDENTIFIER = _regex_error(
    "a valid C identifier must start with alphabetic character or '_', "
    "followed by a string of alphanumeric characters or '_'",
    _C_IDENTIFIER,
    "my_name",
    "MY_NAME",
    "MyName",
)
_NOT_CONFIG_KEY = _regex_error(
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    _CONFIG_KEY,
    "key.name",
    "KEY_NAME",
    "key-name",
)
_NOT_PERCENT = _regex_error(
    "a valid percent string must be a numeric string followed by an ending '%'", _PERCENT, "1%", "93%"
)
_NOT_HTTP_HEADER = _regex_error(
    "a valid HTTP header must consist of alphanumeric characters or '-'", _HTTP_HEADER, "X-Header-Name"
)


def _too_long(text: str, limit: int, unit: str = "characters") -> list[str]:
    size = len(text) if text.isascii() else len(text.encode())
    return [f"must be no more than {limit} {unit}"] if size > limit else []


def _unmasked(name: str, prefix: bool) -> str:
    """A generateName may end in the dash that the suffix follows; the shortened form is what upstream checks."""
    return name[:-2] + "a" if prefix and len(name) > 1 and name.endswith("-") else name


def dns1123_subdomain(name: str, prefix: bool = False) -> list[str]:
    """Dot-separated labels, at most 253 characters: the name of most kinds."""
    name = _unmasked(name, prefix)
    matched = _is_subdomain(name)
    if matched and len(name) <= _SUBDOMAIN_MAX:
        return []
    faults = _too_long(name, _SUBDOMAIN_MAX)
    return faults if matched else [*faults, _NOT_SUBDOMAIN]


def dns1123_label(name: str, prefix: bool = False) -> list[str]:
    """One label of a DNS name, at most 63 characters: namespaces, containers, volumes."""
    name = _unmasked(name, prefix)
    faults = _too_long(name, _LABEL_MAX)
    if not _is_label(name):
        faults.append("must not contain dots" if _is_subdomain(name) else _NOT_LABEL)
    return faults


def dns1035_label(name: str, prefix: bool = False) -> list[str]:
    """A label that starts with a letter: Services."""
    name = _unmasked(name, prefix)
    faults = _too_long(name, _LABEL_MAX)
    return faults if _is_label_1035(name) else [*faults, _NOT_LABEL_1035]


def underscored_subdomain(name: str) -> list[str]:
    """A search path of DNS."""
    faults = _too_long(name, _SUBDOMAIN_MAX)
    return faults if _is_underscored(name) else [*faults, _NOT_UNDERSCORED]


def wildcard_dns1123_subdomain(name: str) -> list[str]:
    faults = _too_long(name, _SUBDOMAIN_MAX)
    return faults if _is_wildcard(name) else [*faults, _NOT_WILDCARD]


def path_segment(name: str, prefix: bool = False) -> list[str]:
    """Whatever can stand in a URL path: RBAC objects and other names that may hold any character."""
    if not prefix and name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{part}'" for part in "/%" if part in name]


@lru_cache(maxsize=8192)
def is_label_key(key: str) -> bool:
    """Whether the key is a good label key; remembered, as few keys serve many objects."""
    prefix, slash, name = key.rpartition("/")
    if len(name) > _LABEL_MAX or not _is_qualified(name):
        return False
    return not slash or (len(prefix) <= _SUBDOMAIN_MAX and _is_subdomain(prefix) is not None)


def label_key(key: str) -> list[str]:
    """A name with an optional DNS prefix (`example.com/name`): label and annotation keys, finalizers, resources."""
    if is_label_key(key):
        return []
    prefix, slash, name = key.partition("/")
    if not slash:
        prefix, name = "", key
    elif "/" in name:
        return [_NOT_LABEL_KEY]
    faults: list[str] = []
    if slash:
        faults = [f"prefix part {fault}" for fault in _prefix_faults(prefix)]
    if not name:
        faults.append("name part must be non-empty")
    faults.extend(f"name part {fault}" for fault in _too_long(name, _LABEL_MAX, "bytes"))
    if not _is_qualified(name):
        faults.append(f"name part {_NOT_QUALIFIED}")
    return faults


def _prefix_faults(prefix: str) -> list[str]:
    if not prefix:
        return ["must be non-empty"]
    faults = _too_long(prefix, _SUBDOMAIN_MAX, "bytes")
    return faults if _is_subdomain(prefix) else [*faults, _NOT_SUBDOMAIN]


@lru_cache(maxsize=8192)
def is_label_value(value: str) -> bool:
    return len(value) <= _LABEL_MAX and _is_label_value(value) is not None


def label_value(value: str) -> list[str]:
    """At most 63 alphanumeric characters, '-', '_' and '.', or nothing."""
    if is_label_value(value):
        return []
    faults = _too_long(value, _LABEL_MAX, "bytes")
    return faults if _is_label_value(value) else [*faults, _NOT_LABEL_VALUE]


def c_identifier(name: str) -> list[str]:
    return [] if _is_c_identifier(name) else [_NOT_C_IDENTIFIER]


@lru_cache(maxsize=4096)
def is_config_map_key(key: str) -> bool:
    """Whether `config_map_key` has no complaint; remembered, as few keys serve many objects."""
    return not config_map_key(key)


def config_map_key(key: str) -> list[str]:
    """A key of a ConfigMap's or Secret's data: it must also serve as a file name."""
    faults = _too_long(key, _SUBDOMAIN_MAX)
    if not _is_config_key(key):
        faults.append(_NOT_CONFIG_KEY)
    return faults + _climbing(key)


def _climbing(name: str) -> list[str]:
    if name in (".", ".."):
        return [f"must not be '{name}'"]
    return ["must not start with '..'"] if name.startswith("..") else []


def env_var_name(name: str) -> list[str]:
    """Any printable ASCII but `=`."""
    faults = [] if name else ["environment variable name must be non-empty"]
    if not name.isascii() or not name.isprintable() or "=" in name:
        faults.append(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
        )
    return faults


def percent(text: str) -> list[str]:
    return [] if _is_percent(text) else [_NOT_PERCENT]


def http_header_name(name: str) -> list[str]:
    return [] if _is_http_header(name) else [_NOT_HTTP_HEADER]


def port_number(port: int) -> list[str]:
    return [] if 1 <= port <= 65535 else ["must be between 1 and 65535, inclusive"]


def port_name(name: str) -> list[str]:
    """The IANA_SVC_NAME that a port may be called by (RFC 6335), lower case only."""
    faults = _too_long(name, _PORT_NAME_MAX)
    if not _is_port_charset(name):
        faults.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not any("a" <= char <= "z" for char in name):
        faults.append("must contain at least one letter (a-z)")
    if "--" in name:
        faults.append("must not contain consecutive hyphens")
    if name.startswith("-") or name.endswith("-"):
        faults.append("must not begin or end with a hyphen")
    return faults
