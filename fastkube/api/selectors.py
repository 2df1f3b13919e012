"""Label and field selectors: parsing in upstream's grammar and words, matching on dicts and on stored bytes.

Grammar of a label selector (`,` is "and"; keys and values are label keys and values):
    selector     = [ requirement { "," requirement } ]
    requirement  = [ "!" ] key | key ( "=" | "==" | "!=" | ">" | "<" ) [ value ] | key ( "in" | "notin" ) "(" values ")"
Grammar of a field selector: terms `path=value`, `path==value`, `path!=value` joined by `,`; in values the characters
`\\`, `,` and `=` are escaped by a backslash.

Parsing raises ApiError 400. Parsed selectors are immutable and remembered: watches and controllers repeat theirs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple

from fastkube import _codec
from fastkube.api import field
from fastkube.api.meta import validate_labels
from fastkube.api.names import label_key, label_value
from fastkube.errors import ApiError, Cause, bad_request

Object = dict[str, Any]

IN, NOT_IN, EXISTS, ABSENT = "in", "notin", "exists", "!"
EQUALS, DOUBLE_EQUALS, NOT_EQUALS, GREATER, LESS = "=", "==", "!=", "gt", "lt"
_POSITIVE = frozenset((IN, EQUALS, DOUBLE_EQUALS))
_NEGATIVE = frozenset((NOT_IN, NOT_EQUALS))

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_is_int = re.compile(r"[+-]?[0-9]{1,40}", re.ASCII).fullmatch


class Requirement(NamedTuple):
    """One condition on a label. `operator` is upstream's selection.Operator; `values` are distinct and sorted."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        key, operator, values = self
        if operator == EXISTS:
            return key
        if operator == ABSENT:
            return f"!{key}"
        told = ",".join(values)
        if operator in (IN, NOT_IN):
            return f"{key} {operator} ({told})"
        return f"{key}{ {GREATER: '>', LESS: '<'}.get(operator, operator) }{told}"

    def matches(self, labels: Mapping[str, str]) -> bool:
        given = labels.get(self.key)
        if self.operator in _POSITIVE:
            return given in self.values
        if self.operator in _NEGATIVE:
            return given not in self.values
        if self.operator == EXISTS:
            return given is not None
        if self.operator == ABSENT:
            return given is None
        number, limit = _int64(given), _int64(self.values[0])
        if number is None or limit is None:
            return False
        return number > limit if self.operator == GREATER else number < limit


def _int64(text: str | None) -> int | None:
    if text is None or not _is_int(text):
        return None
    number = int(text)
    return number if _INT64_MIN <= number <= _INT64_MAX else None


_TOLD_MAX = 256


class LabelSelector:
    """All of its requirements, sorted by key; without any it matches everything, and `NOTHING` matches nothing."""

    __slots__ = ("_none", "_told", "requirements")

    def __init__(self, requirements: tuple[Requirement, ...] = (), *, none: bool = False) -> None:
        self.requirements = tuple(sorted(requirements, key=lambda requirement: requirement.key))
        self._none = none
        self._told: dict[bytes | None, bool] = {}  # of labels as they are stored: thousands of objects have the same

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))

    def __bool__(self) -> bool:
        """Whether the selector restricts anything."""
        return self._none or bool(self.requirements)

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        if self._none:
            return False
        given = labels or {}
        return all(requirement.matches(given) for requirement in self.requirements)

    def matches_bytes(self, value: bytes) -> bool:
        """Whether the labels of a stored object match."""
        part = _codec.labels_part(value)
        told = self._told.get(part)
        if told is None:
            if len(self._told) >= _TOLD_MAX:
                self._told.clear()
            told = self._told[part] = self.matches(_codec.labels(value))
        return told

    def matching(self, records: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Those of (key, record) whose objects match; cheaper than one by one."""
        return _codec.with_labels(records, self._told, self.matches_bytes)


EVERYTHING = LabelSelector()
NOTHING = LabelSelector(none=True)

# ---------------------------------------------------------------- label selectors in text

_SPECIAL = "=!(),><"
_tokens = re.compile(r"[ \t\r\n]*([^ \t\r\n=!(),><]+|[=!(),><]+)", re.ASCII).match
_OPERATORS = {
    "in": IN, "notin": NOT_IN, "=": EQUALS, "==": DOUBLE_EQUALS, "!=": NOT_EQUALS, ">": GREATER, "<": LESS,
}  # fmt: skip
_SYMBOLS = frozenset((")", ",", "!", "==", "=", ">", "<", "!=", "("))
_OPERATORS_TOLD = "in, notin, =, ==, !=, gt, lt"


class _SelectorError(ValueError):
    """A fault in a selector's text; the message is upstream's."""


def _scan(text: str) -> Iterator[str]:
    """The tokens of a selector; a run of symbols is cut into the longest known ones."""
    position, end = 0, len(text)
    while match := _tokens(text, position):
        token = match.group(1)
        if token[0] in _SPECIAL:
            token = token[:2] if token[:2] in _SYMBOLS else token[0]
            position = match.start(1) + len(token)
        else:
            position = match.end()
        yield token
        if position >= end:
            return


class _Parser:
    """Recursive descent over the tokens; the end of the text reads as the token ""."""

    def __init__(self, text: str) -> None:
        self._tokens = [*_scan(text), ""]
        self._position = 0

    def _peek(self) -> str:
        return self._tokens[min(self._position, len(self._tokens) - 1)]

    def _take(self) -> str:
        token = self._peek()
        self._position += 1
        return token

    def parse(self) -> tuple[Requirement, ...]:
        requirements: list[Requirement] = []
        while token := self._peek():
            if token != "!" and token in _SYMBOLS:
                raise _SelectorError(f"found '{token}', expected: !, identifier, or 'end of string'")
            try:
                requirements.append(self._requirement())
            except _SelectorError as error:
                raise _SelectorError(f"unable to parse requirement: {error}") from None
            token = self._take()
            if not token:
                break
            if token != ",":
                raise _SelectorError(f"found '{token}', expected: ',' or 'end of string'")
            after = self._peek()
            if after != "!" and (not after or after in _SYMBOLS):
                raise _SelectorError(f"found '{after}', expected: identifier after ','")
        return tuple(requirements)

    def _requirement(self) -> Requirement:
        absent = self._peek() == "!"
        if absent:
            self._take()
        key = self._take()
        if not key or key in _SYMBOLS:
            raise _SelectorError(f"found '{key}', expected: identifier")
        _check(field.invalid("<nil>", key, "; ".join(label_key(key))) if label_key(key) else None)
        if absent:
            return Requirement(key, ABSENT)
        if self._peek() in ("", ","):
            return Requirement(key, EXISTS)
        told = self._take()
        operator = _OPERATORS.get(told)
        if operator is None:
            raise _SelectorError(f"found '{told}', expected: {_OPERATORS_TOLD}")
        values = self._values() if operator in (IN, NOT_IN) else {self._value()}
        return _checked(Requirement(key, operator, tuple(sorted(values))))

    def _value(self) -> str:
        if self._peek() in ("", ","):
            return ""
        token = self._take()
        if token in _SYMBOLS:
            raise _SelectorError(f"found '{token}', expected: identifier")
        return token

    def _values(self) -> set[str]:
        token = self._take()
        if token != "(":
            raise _SelectorError(f"found '{token}' expected: '('")
        token = self._peek()
        if token == ")":
            self._take()
            return {""}
        if token != "," and (not token or token in _SYMBOLS):
            raise _SelectorError(f"found '{token}', expected: ',', ')' or identifier")
        return self._identifiers()

    def _identifiers(self) -> set[str]:
        """The items up to the closing parenthesis; nothing between two commas is the empty value."""
        found: set[str] = set()
        while True:
            token = self._take()
            if token == ",":
                found |= {""} if not found or self._peek() in (",", ")") else set()
            elif not token or token in _SYMBOLS:
                raise _SelectorError(f"found '{token}', expected: ',', or identifier")
            else:
                found.add(token)
                if self._peek() not in (",", ")"):
                    raise _SelectorError(f"found '{self._peek()}', expected: ',' or ')'")
            if self._peek() == ")":
                self._take()
                return found


def _check(cause: Cause | None) -> None:
    if cause is not None:
        raise _SelectorError(f"{cause.field}: {cause.message}")


def _checked(requirement: Requirement) -> Requirement:
    """The requirement, if its values are good."""
    faults: list[Cause] = []
    for number, value in enumerate(requirement.values):
        path = field.at("values", number)
        if requirement.operator in (GREATER, LESS) and _int64(value) is None:
            faults.append(field.invalid(path, value, "for 'Gt', 'Lt' operators, the value must be an integer"))
        if wrong := label_value(value):
            faults.append(field.invalid(field.at(path, requirement.key), value, "; ".join(wrong)))
    if len(faults) > 1:
        raise _SelectorError("[" + ", ".join(f"{fault.field}: {fault.message}" for fault in faults) + "]")
    _check(faults[0] if faults else None)
    return requirement


@lru_cache(maxsize=1024)
def parse_label_selector(text: str) -> LabelSelector:
    """The selector of a labelSelector parameter; raises ApiError 400."""
    if not text:
        return EVERYTHING
    try:
        return LabelSelector(_Parser(text).parse())
    except _SelectorError as error:
        raise bad_request(str(error)) from None


# ---------------------------------------------------------------- label selectors in objects

_OBJECT_OPERATORS = {"In": IN, "NotIn": NOT_IN, "Exists": EXISTS, "DoesNotExist": ABSENT}


def from_object(selector: Object | None) -> LabelSelector:
    """A metav1.LabelSelector as a selector: {} matches everything, None nothing. Raises ValueError on an unknown
    operator, which validation refuses before anything is stored."""
    if selector is None:
        return NOTHING
    requirements = [Requirement(key, EQUALS, (told,)) for key, told in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or ():
        operator = _OBJECT_OPERATORS.get(expression.get("operator", ""))
        if operator is None:
            raise ValueError(f"{field.quote(expression.get('operator', ''))} is not a valid label selector operator")
        values = tuple(sorted(set(expression.get("values") or ())))
        requirements.append(Requirement(expression.get("key", ""), operator, values))
    return LabelSelector(tuple(requirements))


def from_labels(labels: Mapping[str, str] | None) -> LabelSelector:
    """A plain map (the selector of a Service or ReplicationController): every label must be equal."""
    return LabelSelector(tuple(Requirement(key, EQUALS, (told,)) for key, told in (labels or {}).items()))


def validate_label_selector(selector: Object | None, path: str) -> list[Cause]:
    """Faults of a metav1.LabelSelector in an object."""
    if not selector:
        return []
    causes = validate_labels(selector.get("matchLabels") or {}, f"{path}.matchLabels")
    for number, expression in enumerate(selector.get("matchExpressions") or ()):
        causes += _validate_expression(expression, f"{path}.matchExpressions[{number}]")
    return causes


def _validate_expression(expression: Object, path: str) -> list[Cause]:
    operator, values, key = expression.get("operator", ""), expression.get("values"), expression.get("key", "")
    causes: list[Cause] = []
    if operator not in _OBJECT_OPERATORS:
        causes.append(field.invalid(f"{path}.operator", operator, "not a valid selector operator"))
    elif operator in ("In", "NotIn") and not values:
        causes.append(field.required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist") and values:
        problem = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        causes.append(field.forbidden(f"{path}.values", problem))
    causes += [field.invalid(f"{path}.key", key, fault) for fault in label_key(key)]
    for number, value in enumerate(values or ()):
        causes += [field.invalid(f"{path}.values[{number}]", value, fault) for fault in label_value(value)]
    return causes


# ---------------------------------------------------------------- field selectors


class FieldTerm(NamedTuple):
    """One condition on a field: `operator` is "=" or "!="."""

    path: str
    operator: str
    value: str


class FieldSelector:
    """All of its terms; without any it matches everything. Objects are matched in their stored form."""

    __slots__ = ("_checks", "_on_bytes", "terms")

    def __init__(self, terms: tuple[FieldTerm, ...] = ()) -> None:
        self.terms = terms
        self._checks = tuple((_field(path), operator == "=", told) for path, operator, told in terms)
        self._on_bytes = tuple(
            (place, place.plain, equal, told, told.encode("utf-8", "surrogatepass"))
            for place, equal, told in self._checks
        )

    def __str__(self) -> str:
        return ",".join(f"{path}{operator}{_escape(told)}" for path, operator, told in self.terms)

    def __bool__(self) -> bool:
        return bool(self.terms)

    def exact(self, path: str) -> str | None:
        """The one value that the selector asks of the field, if it does."""
        for term in self.terms:
            if term.path == path and term.operator == "=":
                return term.value
        return None

    def matches(self, obj: Object) -> bool:
        for place, equal, told in self._checks:  # noqa: SIM110 (a generator costs more than most terms)
            if (place.read(obj) == told) is not equal:
                return False
        return True

    def matches_bytes(self, value: bytes) -> bool:
        """Whether a stored object matches; of its bytes only what the terms ask for is decoded."""
        for place, plain, equal, told, text in self._on_bytes:
            found = place.extract(value) == told if plain is None else _codec.matches(value, plain, text)
            if found is not equal:
                return False
        return True

    def matching(self, records: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Those of (key, record) whose objects match; cheaper than one by one."""
        head = _codec.RECORD_HEAD_BYTES
        for place, plain, equal, told, text in self._on_bytes:
            if plain is not None:
                records = _codec.with_field(records, plain, text, equal)
            else:
                records = [one for one in records if (place.extract(one[1][head:]) == told) is equal]
        return records


ALL_FIELDS = FieldSelector()


class _Field:
    """A selectable field: where it stands in the stored object, and how what stands there reads as text."""

    __slots__ = ("_encoded", "_paths", "_tell", "plain")

    def __init__(self, paths: tuple[str, ...], tell: Callable[..., str]) -> None:
        self._paths = tuple(tuple(path.split(".")) for path in paths)
        self._encoded = tuple(tuple(key.encode() for key in keys) for keys in self._paths)
        self._tell = tell
        self.plain = self._encoded[0] if tell is _text else None
        """The path, where what stands there reads as it is."""

    def read(self, obj: Object) -> str:
        return self._tell(*[_at(obj, keys) for keys in self._paths])

    def extract(self, value: bytes) -> str:
        return self._tell(*(_codec.extract(value, keys) for keys in self._encoded))


def _at(obj: Object, keys: tuple[str, ...]) -> Any:
    found: Any = obj
    for key in keys:
        if not isinstance(found, dict):
            return None
        found = found.get(key)
    return found


def _text(found: Any, absent: str = "") -> str:
    if isinstance(found, str):
        return found
    if isinstance(found, bool):
        return "true" if found else "false"
    return absent if found is None else str(found)


def _first(*found: Any) -> str:
    return next((str(each) for each in found if each), "")


def _ips(found: Any) -> str:
    return ",".join(each.get("ip", "") for each in found or ())


# Fields that stand elsewhere or read in their own way. Events have two APIs and one stored form.
_FIELDS = {
    "source": _Field(("source.component", "reportingComponent"), _first),
    "reportingController": _Field(("reportingComponent",), _text),
    "status.podIPs": _Field(("status.podIPs",), _ips),
    "status.successful": _Field(("status.succeeded",), partial(_text, absent="0")),
    "status.replicas": _Field(("status.replicas",), partial(_text, absent="0")),
    "spec.hostNetwork": _Field(("spec.hostNetwork",), partial(_text, absent="false")),
    "spec.unschedulable": _Field(("spec.unschedulable",), partial(_text, absent="false")),
}


def _field(path: str) -> _Field:
    if path in _FIELDS:
        return _FIELDS[path]
    if path.startswith("regarding."):
        path = "involvedObject." + path.removeprefix("regarding.")
    return _Field((path,), _text)


_UNSUPPORTED = {
    "Job": 'field label "{}" not supported for Job',
    "ResourceSlice": "field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: {}",
}
_COMMON_FIELDS = frozenset(("metadata.name", "metadata.namespace"))


def _unsupported(path: str, allowed: Collection[str], kind: str, custom: bool) -> ApiError:
    """Kinds with selectable fields of their own word this differently from those without, and a few have own words."""
    if kind in _UNSUPPORTED and not custom:
        return bad_request(_UNSUPPORTED[kind].format(path))
    if _COMMON_FIELDS.issuperset(allowed) and not custom:
        return bad_request(f'"{path}" is not a known field selector: only "metadata.name", "metadata.namespace"')
    return bad_request(f"field label not supported: {path}")


@lru_cache(maxsize=1024)
def parse_field_selector(text: str, allowed: frozenset[str], kind: str = "", *, custom: bool = False) -> FieldSelector:
    """The selector of a fieldSelector parameter (see `field_selector`). Raises ApiError 400."""
    return field_selector(split_field_selector(text), allowed, kind, custom=custom)


def split_field_selector(text: str) -> list[FieldTerm]:
    """The terms of a fieldSelector parameter, of whatever fields. Raises ApiError 400."""
    terms: list[FieldTerm] = []
    for part in sorted(_split_terms(text)):
        match = _term(part)
        if match is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        path, operator, told = match.group(1), match.group(2), _unescape(match.group(3))
        if path or told:  # no field has no value: that takes everything
            terms.append(FieldTerm(path, "!=" if operator == "!=" else "=", told))
    return terms


def field_selector(
    terms: list[FieldTerm], allowed: frozenset[str], kind: str = "", *, custom: bool = False
) -> FieldSelector:
    """The selector of these terms; `allowed` are the fields that the kind can be selected by; `kind` and `custom` (the
    kind comes from a CRD) only choose the words of the refusal. Raises ApiError 400."""
    for term in terms:
        if term.path not in allowed:
            raise _unsupported(term.path, allowed, kind, custom)
    return FieldSelector(tuple(terms)) if terms else ALL_FIELDS


def readable_field_selector(text: str) -> bool:
    """Whether the text is a field selector, of whatever fields."""
    return all(_term(part) is not None for part in _split_terms(text))


_term = re.compile(r"(.*?)(!=|==|=)(.*)", re.DOTALL).fullmatch
_parts = re.compile(r"(?:[^,\\]|\\.|\\\Z)+", re.DOTALL).findall


def _split_terms(text: str) -> list[str]:
    """The terms between unescaped commas, without empty ones."""
    return _parts(text)


def _unescape(told: str) -> str:
    out: list[str] = []
    chars = iter(told)
    for char in chars:
        if char in ",=":
            raise bad_request(f"invalid field selector: unescaped character in value: {ord(char)}")
        if char == "\\":
            char = next(chars, "")
            if char not in ("\\", ",", "="):
                raise bad_request(f"invalid field selector: invalid escape sequence: \\{char}")
        out.append(char)
    return "".join(out)


def _escape(told: str) -> str:
    return told.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
