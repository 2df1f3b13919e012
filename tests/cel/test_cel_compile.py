"""What does not compile, in the words of the reference implementation, and the types of what does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastkube import cel
from fastkube.cel import DYN, CompileError, Environment, Field, declared, list_of, object_type

SCHEMA = {
    "type": "object",
    "properties": {
        "min": {"type": "integer"},
        "name": {"type": "string"},
        "list": {"type": "array", "items": {"type": "integer"}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "open": {"x-kubernetes-preserve-unknown-fields": True},
    },
}
JSON_PATCH = object_type("JSONPatch", {name: Field(name, cel.STRING) for name in ("op", "path", "from")})
ENVIRONMENT = Environment(
    {"self": declared(SCHEMA) or DYN, "object": DYN}, lambda name: JSON_PATCH if name == "JSONPatch" else None
)
EXPRESSION = (
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
)


@pytest.mark.parametrize(
    ("text", "place", "told"),
    [
        ("object.", "1:8", "Syntax error: no viable alternative at input '.'"),
        ("1 +", "1:4", f"Syntax error: mismatched input '<EOF>' expecting {EXPRESSION}"),
        ("1 1", "1:3", "Syntax error: extraneous input '1' expecting <EOF>"),
        ("a b c", "1:3", "Syntax error: mismatched input 'b' expecting <EOF>"),
        ("(1", "1:3", "Syntax error: missing ')' at '<EOF>'"),
        ("for", "1:1", "reserved identifier: for"),
        ("foo", "1:1", "undeclared reference to 'foo' (in container '')"),
        ("true &&\nfoo", "2:1", "undeclared reference to 'foo' (in container '')"),
        ("self.nope", "1:5", "undefined field 'nope'"),
        ("self.open.x", "1:5", "undefined field 'open'"),
        ("self.min.x", "1:9", "type 'int' does not support field selection"),
        ("self.name == 1", "1:11", "found no matching overload for '_==_' applied to '(string, int)'"),
        ("self.min == null", "1:10", "found no matching overload for '_==_' applied to '(int, null)'"),
        ("self.list.map(x, x + 'a')", "1:20", "found no matching overload for '_+_' applied to '(int, string)'"),
        ("self.name.size(1)", "1:15", "found no matching overload for 'size' applied to 'string.(int)'"),
        ("self.name.foo()", "1:14", "undeclared reference to 'foo' (in container '')"),
        ("self.list.all(x, x)", "1:18", "expected type 'bool' but found 'int'"),
        ("true && 1", "1:9", "expected type 'bool' but found 'int'"),
        ("1 ? 2 : 3", "1:3", "found no matching overload for '_?_:_' applied to '(int, int, int)'"),
        ("has(self)", "1:5", "invalid argument to has() macro"),
        ("self.labels.all('x', true)", "1:17", "argument must be a simple name"),
        (
            "self.min.all(x, true)",
            "1:5",
            "expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        ("[1, 'a']", "1:5", "expected type 'int' but found 'string'"),
        ("'a'.matches('[')", "1:13", "invalid matches argument"),
        ("duration('x')", "1:10", "invalid duration argument"),
        ("timestamp('x')", "1:11", "invalid timestamp argument"),
        ("JSONPatch{odd: 'x'}", "1:14", "undefined field 'odd'"),
        ("JSONPatch{op: 1}", "1:13", "expected type of field 'op' is 'string' but provided type is 'int'"),
        ("Other{op: 1}", "1:6", "undeclared reference to 'Other' (in container '')"),
    ],
)
def test_does_not_compile(text: str, place: str, told: str) -> None:
    with pytest.raises(CompileError) as failed:
        cel.compile(text, ENVIRONMENT)
    line, column = map(int, place.split(":"))
    shown = text.split("\n")[line - 1]
    assert str(failed.value) == f"ERROR: <input>:{place}: {told}\n | {shown}\n | {'.' * (column - 1)}^"


def test_every_issue_is_told() -> None:
    with pytest.raises(CompileError) as failed:
        cel.compile("foo + bar", ENVIRONMENT)
    assert str(failed.value).count("undeclared reference") == 2


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1", "int"),
        ("1u", "uint"),
        ("1.5", "double"),
        ("'a'", "string"),
        ("null", "null_type"),
        ("[]", "list(dyn)"),
        ("self.list", "list(int)"),
        ("self.list + []", "list(int)"),
        ("self.labels", "map(string, string)"),
        ("self.?name", "optional_type(string)"),
        ("self.name.find('a') == ''", "bool"),
        ("true ? 1 : 2", "int"),
        ("object.x + 1", "int"),
        ("object.x", "dyn"),
        ("[JSONPatch{op: 'add', path: '/a'}]", "list(JSONPatch)"),
        ("timestamp('2020-01-01T00:00:00Z')", "google.protobuf.Timestamp"),
        ("quantity('1')", "kubernetes.Quantity"),
        ("self.list.map(x, string(x))", "list(string)"),
    ],
)
def test_types(text: str, kind: str) -> None:
    assert str(cel.compile(text, ENVIRONMENT).type) == kind


def test_list_of_objects_is_typed() -> None:
    environment = Environment({"items": list_of(JSON_PATCH)})
    assert str(cel.compile("items[0].op", environment).type) == "string"
    with pytest.raises(CompileError, match="undefined field 'x'"):
        cel.compile("items.all(i, i.x == 1)", environment)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab1.()[]{}?:!-+*/%<>=&|,'\" \\\nin", max_size=30))
def test_any_text_compiles_or_is_told(text: str) -> None:
    try:
        cel.compile(text, Environment({"a": DYN, "b": DYN}))
    except CompileError as error:
        assert "ERROR: <input>:" in str(error)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(CompileError, match="recursion limit"):
        cel.compile("(" * 5000 + "1" + ")" * 5000, ENVIRONMENT)


def test_an_empty_text_has_no_line_to_show() -> None:
    told = f"Syntax error: mismatched input '<EOF>' expecting {EXPRESSION}"
    with pytest.raises(CompileError) as failed:
        cel.compile("", ENVIRONMENT)
    assert str(failed.value) == f"ERROR: <input>:1:0: {told}"
