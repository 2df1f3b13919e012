"""What definitions are refused for, in upstream's words and with its paths."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio
from apis import Api, running
from customs import CRDS, GROUP, define, definition, schema, version

OBJECT, STRING = {"type": "object"}, {"type": "string"}
ROOT = "spec.validation.openAPIV3Schema"
SPEC = f"{ROOT}.properties[spec]"
REQUIRED, FORBIDDEN, INVALID = "FieldValueRequired", "FieldValueForbidden", "FieldValueInvalid"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory):
    async with running(tmp_path_factory.mktemp("definitions")) as api:
        yield api


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def causes(api: Api, crd: dict[str, Any]) -> list[tuple[str, str, str]]:
    response = await api.request("POST", f"{CRDS}?dryRun=All", crd)
    if response.status == 201:
        return []
    assert response.status == 422, response.body
    told = response.json["details"]["causes"]
    return [(each["field"], each["reason"], each["message"]) for each in told]


def with_spec(spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    return definition(version(whole=schema(spec), **more))


def items(list_type: str, **item: Any) -> dict[str, Any]:
    return {"type": "array", "x-kubernetes-list-type": list_type, "items": {"type": "object", **item}}


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"type": "object", "x-kubernetes-preserve-unknown-fields": True}, []),
        ({"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, STRING]}, []),
        (
            {"type": "array", "items": {}},
            [(f"{SPEC}.items.type", REQUIRED, "Required value: must not be empty for specified array items")],
        ),
        (
            {"type": "object", "x-kubernetes-embedded-resource": True},
            [
                (
                    f"{SPEC}.properties",
                    REQUIRED,
                    "Required value: must not be empty if x-kubernetes-embedded-resource is true without "
                    "x-kubernetes-preserve-unknown-fields",
                )
            ],
        ),
        (
            {"type": "string", "not": {"type": "string", "description": "x", "default": "y"}},
            [
                (f"{SPEC}.not.default", FORBIDDEN, "Forbidden: must be undefined to be structural"),
                (f"{SPEC}.not.description", FORBIDDEN, "Forbidden: must be empty to be structural"),
                (f"{SPEC}.not.type", FORBIDDEN, "Forbidden: must be empty to be structural"),
            ],
        ),
        (
            {"type": "object", "x-kubernetes-list-type": "set"},
            [
                (
                    f"{SPEC}.type",
                    INVALID,
                    'Invalid value: "object": must be array if x-kubernetes-list-type is specified',
                )
            ],
        ),
        (
            {"type": "array", "items": STRING, "x-kubernetes-list-type": "bag"},
            [
                (
                    f"{SPEC}.x-kubernetes-list-type",
                    "FieldValueNotSupported",
                    'Unsupported value: "bag": supported values: "atomic", "set", "map"',
                )
            ],
        ),
        (
            {**items("map", properties={"a": STRING}), "x-kubernetes-list-map-keys": ["a"]},
            [
                (
                    f"{SPEC}.items.properties[a].default",
                    REQUIRED,
                    "Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a "
                    "required property",
                )
            ],
        ),
        (
            {**items("map", properties={"a": STRING}, required=["a"]), "x-kubernetes-list-map-keys": ["a", "b"]},
            [
                (
                    f"{SPEC}.x-kubernetes-list-map-keys",
                    INVALID,
                    'Invalid value: ["a","b"]: entries must all be names of item properties',
                )
            ],
        ),
        (
            {"type": "object", "properties": {"a": {"type": "object", "default": {"b": 1}}}},
            [(f"{SPEC}.properties[a].default", INVALID, 'Invalid value: {"b":1}: must not have unknown fields')],
        ),
        (
            {"type": "object", "properties": {"a": {"type": "integer", "default": 5, "maximum": 3}}},
            [
                (
                    f"{SPEC}.properties[a].default",
                    INVALID,
                    "Invalid value: 5:  in body should be less than or equal to 3",
                )
            ],
        ),
        (
            {"type": "string", "definitions": {"a": STRING}},
            [(f"{SPEC}.definitions", FORBIDDEN, "Forbidden: definitions is not supported")],
        ),
    ],
)
async def test_schemas(api: Api, spec: dict[str, Any], told: list[tuple[str, str, str]]) -> None:
    assert await causes(api, with_spec(spec)) == told


def rule(**told: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "a": {"type": "integer"},
            "list": {"type": "array", "items": {"type": "string"}},
        },
        "x-kubernetes-validations": [told],
    }


AT = f"{SPEC}.x-kubernetes-validations[0]"
BUDGET = (
    "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are "
    "declared)"
)


def shown(**told: Any) -> str:
    import json

    whole = {
        "Rule": told.get("rule", ""),
        "Message": told.get("message", ""),
        "MessageExpression": told.get("messageExpression", ""),
        "Reason": told.get("reason"),
        "FieldPath": told.get("fieldPath", ""),
        "OptionalOldSelf": told.get("optionalOldSelf"),
    }
    return json.dumps(whole, separators=(",", ":")).replace(">", "\\u003e")  # as Go writes JSON


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ({"rule": "self.a > 0", "messageExpression": "'a is %d'.format([self.a])", "fieldPath": ".a"}, []),
        ({"rule": " "}, [(f"{AT}.rule", REQUIRED, "Required value: rule is not specified")]),
        (
            {"rule": "self.b > 0"},
            [
                (
                    f"{AT}.rule",
                    INVALID,
                    f"Invalid value: {shown(rule='self.b > 0')}: compilation failed: ERROR: <input>:1:5: undefined "
                    "field 'b'\n | self.b > 0\n | ....^",
                )
            ],
        ),
        (
            {"rule": "self.a"},
            [(f"{AT}.rule", INVALID, f"Invalid value: {shown(rule='self.a')}: cel expression must evaluate to a bool")],
        ),
        (
            {"rule": "true", "messageExpression": "1"},
            [
                (
                    f"{AT}.messageExpression",
                    INVALID,
                    f"Invalid value: {shown(rule='true', messageExpression='1')}: messageExpression must evaluate to a "
                    "string",
                )
            ],
        ),
        (
            {"rule": "true", "message": "a\nb"},
            [(f"{AT}.message", INVALID, 'Invalid value: "a\\nb": must not contain line breaks')],
        ),
        (
            {"rule": "true\n"},
            [],
        ),
        (
            {"rule": "true ||\nfalse"},
            [(f"{AT}.message", REQUIRED, "Required value: message must be specified if rule contains line breaks")],
        ),
        (
            {"rule": "true", "reason": "Odd"},
            [
                (
                    f"{AT}.reason",
                    "FieldValueNotSupported",
                    'Unsupported value: "Odd": supported values: "FieldValueDuplicate", "FieldValueForbidden", '
                    '"FieldValueInvalid", "FieldValueRequired"',
                )
            ],
        ),
        (
            {"rule": "true", "fieldPath": ".nope"},
            [(f"{AT}.fieldPath", INVALID, 'Invalid value: ".nope": must be a valid path')],
        ),
        (
            {"rule": "nope()", "messageExpression": "nope()"},
            [
                (
                    f"{AT}.rule",
                    INVALID,
                    'Invalid value: {"Rule":"nope()","Message":"","MessageExpression":"nope()","Reason":null,'
                    '"FieldPath":"","OptionalOldSelf":null}: compilation failed: ERROR: <input>:1:5: undeclared '
                    "reference to 'nope' (in container '')\n | nope()\n | ....^",
                )
            ],
        ),
        (
            {"rule": "true", "optionalOldSelf": True},
            [(f"{AT}.optionalOldSelf", INVALID, "Invalid value: true: may not be set if oldSelf is not used in rule")],
        ),
        (
            {"rule": "self.list.all(x, self.list.all(y, x == y))"},
            [
                (
                    f"{AT}.rule",
                    FORBIDDEN,
                    f"Forbidden: estimated rule cost exceeds budget by factor of more than 100x {BUDGET}",
                ),
                (
                    f"{AT}.rule",
                    FORBIDDEN,
                    "Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 "
                    "schema",
                ),
                (
                    ROOT,
                    FORBIDDEN,
                    "Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds "
                    f"budget by factor of more than 100x {BUDGET}",
                ),
            ],
        ),
    ],
)
async def test_rules(api: Api, told: dict[str, Any], wanted: list[tuple[str, str, str]]) -> None:
    assert await causes(api, with_spec(rule(**told))) == wanted


async def test_old_values_must_be_matchable(api: Api) -> None:
    item = {"type": "string", "maxLength": 5, "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}
    spec = {"type": "array", "maxItems": 5, "items": item}
    assert await causes(api, with_spec(spec)) == [
        (
            f"{SPEC}.items.x-kubernetes-validations[0].rule",
            INVALID,
            'Invalid value: "self == oldSelf": oldSelf cannot be used on the uncorrelatable portion of the schema '
            + f"within {SPEC}",
        )
    ]


def changed(**spec: Any) -> dict[str, Any]:
    made = definition()
    made["spec"].update(spec)
    return made


def webhook(**config: Any) -> dict[str, Any]:
    return {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], **config}}


@pytest.mark.parametrize(
    ("crd", "told"),
    [
        (
            changed(scope="Odd"),
            [
                (
                    "spec.scope",
                    "FieldValueNotSupported",
                    'Unsupported value: "Odd": supported values: "Cluster", "Namespaced"',
                )
            ],
        ),
        (
            changed(group="short"),
            [
                (
                    "metadata.name",
                    INVALID,
                    f'Invalid value: "widgets.{GROUP}": must be spec.names.plural+"."+spec.group',
                ),
                ("spec.group", INVALID, 'Invalid value: "short": should be a domain with at least one dot'),
            ],
        ),
        (
            changed(names={"plural": "widgets", "kind": "Widget", "listKind": "Widget"}),
            [("spec.names.listKind", INVALID, 'Invalid value: "Widget": kind and listKind may not be the same')],
        ),
        (
            changed(preserveUnknownFields=True),
            [
                (
                    "spec.preserveUnknownFields",
                    INVALID,
                    "Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to true in "
                    "spec.versions[*].schema instead",
                )
            ],
        ),
        (
            changed(conversion={"strategy": "Webhook"}),
            [
                (
                    "spec.conversion.webhookClientConfig",
                    REQUIRED,
                    "Required value: required when strategy is set to Webhook",
                ),
                ("spec.conversion.conversionReviewVersions", REQUIRED, "Required value"),
            ],
        ),
        (
            changed(conversion=webhook(clientConfig={"url": "http://x/"})),
            [
                (
                    "spec.conversion.webhookClientConfig.url",
                    INVALID,
                    "Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                )
            ],
        ),
        (
            changed(conversion=webhook(clientConfig={})),
            [
                (
                    "spec.conversion.webhookClientConfig",
                    REQUIRED,
                    "Required value: exactly one of url or service is required",
                )
            ],
        ),
        (
            definition(version(deprecationWarning="old")),
            [
                (
                    "spec.versions[0].deprecationWarning",
                    INVALID,
                    'Invalid value: "old": can only be set for deprecated versions',
                )
            ],
        ),
        (
            definition(version(subresources={"scale": {"specReplicasPath": ".a", "statusReplicasPath": ""}})),
            [
                (
                    "spec.subresources.scale.specReplicasPath",
                    INVALID,
                    'Invalid value: ".a": should be a json path under .spec',
                ),
                ("spec.subresources.scale.statusReplicasPath", REQUIRED, "Required value"),
            ],
        ),
        (
            definition(version(additionalPrinterColumns=[{"name": "", "type": "odd", "jsonPath": "a"}])),
            [
                ("spec.additionalPrinterColumns[0].name", REQUIRED, "Required value"),
                (
                    "spec.additionalPrinterColumns[0].type",
                    INVALID,
                    'Invalid value: "odd": must be one of boolean,date,integer,number,string',
                ),
                (
                    "spec.additionalPrinterColumns[0].JSONPath",
                    INVALID,
                    'Invalid value: "a": must be a simple json path starting with .',
                ),
            ],
        ),
        (
            definition(version(selectableFields=[{"jsonPath": ".spec"}])),
            [
                (
                    "spec.selectableFields[0].jsonPath",
                    INVALID,
                    'Invalid value: ".spec": must point to a field of type string, boolean or integer. Enum string '
                    "fields and strings with formats are allowed.",
                )
            ],
        ),
        (
            definition({"name": "v1", "served": True, "storage": True}),
            [("spec.versions[0].schema.openAPIV3Schema", REQUIRED, "Required value")],
        ),
        (
            definition(version("v1", whole=schema(STRING)), version("v2", whole=schema({"type": "odd"}))),
            [
                (
                    "spec.versions[1].schema.openAPIV3Schema.properties[spec].type",
                    "FieldValueNotSupported",
                    'Unsupported value: "odd": supported values: "array", "boolean", "integer", "number", "object", '
                    '"string"',
                )
            ],
        ),
    ],
)
async def test_definitions(api: Api, crd: dict[str, Any], told: list[tuple[str, str, str]]) -> None:
    assert await causes(api, crd) == told


async def test_a_version_with_objects_stays(api: Api) -> None:
    await define(api, version("v1"), version("v2", storage=False), plural="stayers", kind="Stayer")
    path = f"{CRDS}/stayers.{GROUP}"
    crd = await api.get(path)
    crd["spec"]["versions"] = [{**crd["spec"]["versions"][1], "storage": True}]
    response = await api.request("PUT", path, crd)
    assert response.status == 422
    assert response.json["details"]["causes"][0]["field"] == "status.storedVersions[0]"
    crd = await api.get(path)
    for each in crd["spec"]["versions"]:
        each["storage"] = each["name"] == "v2"
    crd = (await api.request("PUT", path, crd)).json
    crd["status"]["storedVersions"] = ["v2"]
    assert (await api.request("PUT", f"{path}/status", crd)).json["status"]["storedVersions"] == ["v2"]
    crd = await api.get(path)
    crd["spec"]["versions"] = [each for each in crd["spec"]["versions"] if each["name"] == "v2"]
    assert (await api.request("PUT", path, crd)).status == 200


async def test_a_served_kind_keeps_certificates(api: Api) -> None:
    """Before it is served a webhook may lack them: whoever injects them comes later."""
    url = {"url": "https://hook.example.com/"}
    conversion = webhook(clientConfig={**url, "caBundle": "bm9uZQ=="})
    assert await causes(api, definition(plural="hooked", kind="Hooked", conversion=conversion)) == []
    await define(api, plural="hooked", kind="Hooked", conversion=webhook(clientConfig=url))
    path = f"{CRDS}/hooked.{GROUP}"
    crd = await api.get(path)
    crd["spec"]["conversion"] = conversion
    response = await api.request("PUT", path, crd)
    assert [each["message"] for each in response.json["details"]["causes"]] == [
        'Invalid value: "bm9uZQ==": unable to load root certificates: unable to parse bytes as PEM block'
    ]


async def test_fields_named_like_words_of_the_language_need_no_escape(api: Api) -> None:
    spec = {"type": "object", "properties": {"if": {"type": "integer"}}}
    rules = [{"rule": "self.if > 0"}, {"rule": "self.__if__ > 0"}]
    assert await causes(api, with_spec({**spec, "x-kubernetes-validations": rules})) == []


async def test_formats_that_mean_nothing_are_warned_about(api: Api) -> None:
    fields = {"a": {"type": "string", "format": "odd"}, "b": {"type": "string", "format": "date-time"}}
    crd = with_spec({"type": "object", "properties": {**fields, "c": {"type": "boolean", "format": "odd"}}})
    made = await api.request("POST", f"{CRDS}?dryRun=All", crd)
    assert [made.headers["Warning"]] == ['299 - "unrecognized format \\"odd\\""']


async def test_metadata_of_embedded_resources_may_default_to_what_is_unknown(api: Api) -> None:
    metadata = {"type": "object", "default": {"odd": 1}}
    embedded = {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {"metadata": metadata}}
    found = await causes(api, with_spec(embedded))
    assert found == []


async def test_what_the_server_makes_of_a_status_is_its_own(api: Api) -> None:
    await define(api, plural="gadgets", kind="Gadget")
    entries = (await api.get(f"{CRDS}/gadgets.{GROUP}"))["metadata"]["managedFields"]
    found = {(each["manager"], each.get("subresource", "")): each["fieldsV1"] for each in entries}
    condition = {f"f:{key}": {} for key in ("lastTransitionTime", "message", "reason", "status", "type")} | {".": {}}
    assert list(found[("tests", "")]) == ["f:spec"]
    assert found[("kube-apiserver", "status")] == {
        "f:status": {
            "f:acceptedNames": {"f:kind": {}, "f:listKind": {}, "f:plural": {}, "f:singular": {}},
            "f:conditions": {f'k:{{"type":"{kind}"}}': condition for kind in ("Established", "NamesAccepted")},
        }
    }
