"""Objects of custom kinds judged by their schemas: each rule of a schema, in upstream's words."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio
from apis import Api, running
from customs import WIDGETS, define, schema, version, widget

STRING, INTEGER = {"type": "string"}, {"type": "integer"}
FIELDS: dict[str, Any] = {
    "text": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-z]+$"},
    "number": {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 2000000, "multipleOf": 0.5},
    "whole": {"type": "integer", "format": "int32", "maximum": 100, "exclusiveMaximum": True},
    "choice": {"type": "integer", "enum": [1, 2]},
    "mixed": {"x-kubernetes-int-or-string": True, "anyOf": [INTEGER, STRING], "pattern": "^[0-9]+%$"},
    "null": {"type": "string", "nullable": True},
    "list": {"type": "array", "minItems": 1, "maxItems": 2, "items": STRING},
    "set": {"type": "array", "x-kubernetes-list-type": "set", "items": INTEGER},
    "keyed": {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["a", "b"],
        "items": {
            "type": "object",
            "required": ["a"],
            "properties": {"a": STRING, "b": {"type": "integer", "default": 0}},
        },
    },
    "map": {"type": "object", "minProperties": 1, "maxProperties": 2, "additionalProperties": INTEGER},
    "any": {
        "type": "object",
        "properties": {"a": STRING, "b": STRING},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "one": {
        "type": "object",
        "properties": {"a": STRING, "b": STRING},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "all": {"type": "integer", "allOf": [{"minimum": 2}, {"multipleOf": 2}]},
    "not": {"type": "string", "not": {"enum": ["bad"]}},
    "when": {"type": "string", "format": "date-time"},
    "day": {"type": "string", "format": "date"},
    "span": {"type": "string", "format": "duration"},
    "address": {"type": "string", "format": "ipv4"},
    "id": {"type": "string", "format": "uuid"},
    "mail": {"type": "string", "format": "email"},
    "link": {"type": "string", "format": "uri"},
    "bytes": {"type": "string", "format": "byte"},
    "odd": {"type": "string", "format": "unheard-of"},
    "pod": {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory):
    async with running(tmp_path_factory.mktemp("values")) as api:
        await define(api, version(whole=schema({"type": "object", "properties": FIELDS})))
        yield api


pytestmark = pytest.mark.asyncio(loop_scope="module")

INVALID, TYPE, NOWHERE = "FieldValueInvalid", "FieldValueTypeInvalid", "<nil>"


def wrong_type(path: str, wanted: str, given: str) -> tuple[str, str, str]:
    return (f"spec.{path}", TYPE, f'Invalid value: "{given}": spec.{path} in body must be of type {wanted}: "{given}"')


def invalid(path: str, shown: str, told: str) -> tuple[str, str, str]:
    return (f"spec.{path}", INVALID, f"Invalid value: {shown}: spec.{path} in body {told}")


def nowhere(told: str) -> tuple[str, str, str]:
    return (NOWHERE, INVALID, f'Invalid value: "": {told}')


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("text", "a", [invalid("text", '"a"', "should be at least 2 chars long")]),
        ("text", "abcde", [("spec.text", "FieldValueTooLong", "Too long: may not be more than 4 bytes")]),
        ("text", "A1", [invalid("text", '"A1"', "should match '^[a-z]+$'")]),
        ("text", 1, [wrong_type("text", "string", "integer")]),
        ("number", 0, [invalid("number", "0", "should be greater than 0")]),
        ("number", 3000000, [invalid("number", "3000000", "should be less than or equal to 2e+06")]),
        ("number", 0.3, [invalid("number", "0.3", "should be a multiple of 0.5")]),
        ("number", True, [wrong_type("number", "number", "boolean")]),
        ("whole", 100, [invalid("whole", "100", "should be less than 100")]),
        (
            "whole",
            1.5,
            [
                wrong_type("whole", "integer", "number"),
                nowhere("Checked value must be of type integer with format int32 in spec.whole"),
            ],
        ),
        ("choice", 3, [("spec.choice", "FieldValueNotSupported", 'Unsupported value: 3: supported values: "1", "2"')]),
        (
            "mixed",
            True,
            [
                wrong_type("mixed", "integer,string", "boolean"),
                nowhere('"spec.mixed" must validate at least one schema (anyOf)'),
                wrong_type("mixed", "integer", "boolean"),
            ],
        ),
        ("mixed", "5", [invalid("mixed", '"5"', "should match '^[0-9]+%$'")]),
        ("list", [], [invalid("list", "0", "should have at least 1 items")]),
        ("list", ["a", "b", "c"], [("spec.list", "FieldValueTooMany", "Too many: 3: must have at most 2 items")]),
        ("list", ["a", 1], [wrong_type("list[1]", "string", "integer")]),
        ("set", [1, 2, 1, 1], [("spec.set[2]", "FieldValueDuplicate", "Duplicate value: 1")]),
        (
            "keyed",
            [{"a": "x"}, {"a": "x", "b": 0}],
            [("spec.keyed[1]", "FieldValueDuplicate", 'Duplicate value: {"a":"x","b":0}')],
        ),
        ("keyed", [{"b": 1}], [("spec.keyed[0].a", "FieldValueRequired", "Required value")]),
        ("map", {}, [invalid("map", "0", "should have at least 1 properties")]),
        (
            "map",
            {"a": 1, "b": 2, "c": 3},
            [("spec.map", "FieldValueTooMany", "Too many: 3: must have at most 2 items")],
        ),
        ("map", {"a": "x"}, [wrong_type("map.a", "integer", "string")]),
        (
            "any",
            {},
            [
                nowhere('"spec.any" must validate at least one schema (anyOf)'),
                ("spec.any.a", "FieldValueRequired", "Required value"),
            ],
        ),
        (
            "one",
            {"a": "1", "b": "2"},
            [nowhere('"spec.one" must validate one and only one schema (oneOf). Found 2 valid alternatives')],
        ),
        (
            "all",
            1,
            [
                invalid("all", "1", "should be greater than or equal to 2"),
                invalid("all", "1", "should be a multiple of 2"),
                nowhere('"spec.all" must validate all the schemas (allOf). None validated'),
            ],
        ),
        ("not", "bad", [nowhere('"spec.not" must not validate the schema (not)')]),
        *(
            (key, "?", [(f"spec.{key}", TYPE, f'Invalid value: "?": spec.{key} in body must be of type {form}: "?"')])
            for key, form in (
                ("when", "date-time"),
                ("day", "date"),
                ("span", "duration"),
                ("address", "ipv4"),
                ("id", "uuid"),
                ("mail", "email"),
                ("link", "uri"),
                ("bytes", "byte"),
            )
        ),
        (
            "pod",
            {},
            [
                ("spec.pod.apiVersion", "FieldValueRequired", "Required value"),
                ("spec.pod.kind", "FieldValueRequired", "Required value"),
            ],
        ),
    ],
)
async def test_refused(api: Api, key: str, value: Any, told: list[tuple[str, str, str]]) -> None:
    response = await api.request("POST", f"{WIDGETS}?dryRun=All", widget("a", {key: value}))
    assert response.status == 422, response.body
    causes = response.json["details"]["causes"]
    assert [(each.get("field"), each["reason"], each["message"]) for each in causes] == told


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("text", "abc"),
        ("number", 2),
        ("number", 0.5),
        ("whole", 5.0),
        ("mixed", 5),
        ("mixed", "5%"),
        ("null", None),
        ("set", [1, 2]),
        ("keyed", [{"a": "x", "b": 0}, {"a": "x", "b": 1}]),
        ("any", {"b": "1"}),
        ("one", {"b": "1"}),
        ("all", 4),
        ("not", "good"),
        ("when", "2024-02-29T12:00:00Z"),
        ("when", "2024-02-29T12:00:00.123+02:00"),
        ("day", "2024-02-29"),
        ("span", "1h30m"),
        ("span", "3 days"),
        ("address", "10.0.0.1"),
        ("id", "1b4e28ba-2fa1-11d2-883f-0016d3cca427"),
        ("mail", "a@example.com"),
        ("link", "https://example.com/a?b=c"),
        ("bytes", "aGk="),
        ("odd", "anything"),
        ("pod", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"more": 1}}),
    ],
)
async def test_taken(api: Api, key: str, value: Any) -> None:
    made = await api.create(f"{WIDGETS}?dryRun=All", widget("a", {key: value}))
    assert made["spec"] == {key: value}


async def test_every_fault_is_told_in_the_order_of_the_names(api: Api) -> None:
    response = await api.request("POST", WIDGETS, widget("a", {"text": "a", "choice": 3, "list": []}))
    assert [each["field"] for each in response.json["details"]["causes"]] == ["spec.choice", "spec.list", "spec.text"]


METADATA = {
    '"x"': "json: cannot unmarshal string into Go value of type v1.ObjectMeta",
    "[]": "json: cannot unmarshal array into Go value of type v1.ObjectMeta",
    '{"name":5}': "json: cannot unmarshal number into Go struct field ObjectMeta.name of type string",
    '{"labels":5}': "json: cannot unmarshal number into Go struct field ObjectMeta.labels of type map[string]string",
}


@pytest.mark.parametrize(("metadata", "told"), METADATA.items(), ids=METADATA)
async def test_metadata_that_is_none(api: Api, metadata: str, told: str) -> None:
    for method, path in (("POST", WIDGETS), ("PUT", f"{WIDGETS}/x")):
        refused = await api.request(method, path, f'{{"metadata":{metadata}}}'.encode())
        expected = f'Widget in version "v1" cannot be handled as a Widget: {told}'
        assert (refused.status, refused.json["message"]) == (400, expected)


async def test_metadata_that_is_null(api: Api) -> None:
    refused = await api.request("POST", WIDGETS, b'{"metadata":null}')
    assert refused.status == 422, refused.body
    assert refused.json["details"]["causes"][0]["field"] == "metadata.name"


async def test_a_status_that_cannot_be_scaled(api: Api) -> None:
    scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    scale["labelSelectorPath"] = ".status.selector"
    open_schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    one = version(whole=schema(open_schema), subresources={"status": {}, "scale": scale})
    await define(api, one, plural="scalables", kind="Scalable")
    path = WIDGETS.replace("widgets", "scalables")
    made = {**widget("s", {"replicas": "x"}), "kind": "Scalable"}
    refused = await api.request("POST", path, made)
    told = ".spec.replicas accessor error: x is of the type string, expected int64"
    assert refused.json["details"]["causes"][-1]["message"] == f"Invalid value: 0: {told}"
