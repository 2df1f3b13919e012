"""CEL rules of custom kinds: what they see of an object and of the one before it, and how they refuse."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
import pytest_asyncio
from apis import Api, running
from customs import GROUP, define, schema, version

NUMBER = count()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory):
    async with running(tmp_path_factory.mktemp("rules")) as api:
        yield api


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def outcome(api: Api, spec: dict[str, Any], *states: Any, root: tuple[dict[str, Any], ...] = ()) -> list[Any]:
    """What is told of the last of the states, each written over the one before."""
    number = next(NUMBER)
    plural, kind = f"kinds{number}", f"Kind{number}"
    more = {"x-kubernetes-validations": list(root)} if root else {}
    await define(api, version(whole=schema(spec, **more)), plural=plural, kind=kind)
    path = f"/apis/{GROUP}/v1/namespaces/default/{plural}"
    response = None
    for index, state in enumerate(states):
        obj = {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": {"name": "a"}, "spec": state}
        if not index:
            response = await api.request("POST", path, obj)
        else:
            obj["metadata"]["resourceVersion"] = (await api.get(f"{path}/a"))["metadata"]["resourceVersion"]
            response = await api.request("PUT", f"{path}/a", obj)
        if index < len(states) - 1:
            assert response.status in (200, 201), response.body
    assert response is not None
    if response.status in (200, 201):
        return []
    return [(each["field"], each["message"]) for each in response.json["details"]["causes"]]


def ruled(kind: dict[str, Any], *rules: Any) -> dict[str, Any]:
    told = [rule if isinstance(rule, dict) else {"rule": rule} for rule in rules]
    return {**kind, "x-kubernetes-validations": told}


def record(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


STRING, INTEGER = {"type": "string"}, {"type": "integer"}
SHORT = {"type": "string", "maxLength": 10}


@pytest.mark.parametrize(
    ("spec", "states", "told"),
    [
        (ruled(record(a=INTEGER), "self.a > 1"), ({"a": 2},), []),
        (ruled(record(a=INTEGER), "self.a > 1"), ({"a": 1},), [("spec", "Invalid value: failed rule: self.a > 1")]),
        (record(a=ruled(INTEGER, "self > 1")), ({"a": 1},), [("spec.a", "Invalid value: 1: failed rule: self > 1")]),
        (
            record(m={"type": "object", "maxProperties": 3, "additionalProperties": ruled(SHORT, "self == 'x'")}),
            ({"m": {"k": "y"}},),
            [("spec.m[k]", "Invalid value: \"y\": failed rule: self == 'x'")],
        ),
        (
            record(l={"type": "array", "maxItems": 3, "items": ruled(record(a=INTEGER), "self.a > 1")}),
            ({"l": [{"a": 2}, {"a": 1}]},),
            [("spec.l[1]", "Invalid value: failed rule: self.a > 1")],
        ),
        (
            record(at=ruled({"type": "string", "format": "date-time"}, "self.getFullYear() > 2020")),
            ({"at": "2020-01-01T00:00:00Z"},),
            [("spec.at", 'Invalid value: "2020-01-01T00:00:00Z": failed rule: self.getFullYear() > 2020')],
        ),
        (
            ruled(record(e={"x-kubernetes-int-or-string": True}), "self.e == 5 || self.e == '50%'"),
            ({"e": "50%"},),
            [],
        ),
        (
            ruled(record(e={"x-kubernetes-int-or-string": True}), "self.e > 5"),
            ({"e": "x"},),
            [
                (
                    "spec",
                    "Invalid value: \"object\": 'no such overload': call arguments did not match a supported operator, "
                    "function or macro signature for rule: self.e > 5",
                )
            ],
        ),
        (ruled(record(**{"a-b": INTEGER}), "self.a__dash__b == 1"), ({"a-b": 1},), []),
        (record(n=ruled({**SHORT, "nullable": True}, "self != ''")), ({"n": None},), []),
        (
            record(a=ruled(SHORT, "self == oldSelf")),
            ({"a": "x"}, {"a": "y"}),
            [("spec.a", 'Invalid value: "y": failed rule: self == oldSelf')],
        ),
        (record(a=ruled(SHORT, "self == oldSelf")), ({}, {"a": "y"}), []),
        (
            record(
                l={
                    "type": "array",
                    "maxItems": 3,
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["k"],
                    "items": {**record(k=SHORT, v=ruled(INTEGER, "self >= oldSelf")), "required": ["k"]},
                }
            ),
            ({"l": [{"k": "a", "v": 3}, {"k": "b", "v": 3}]}, {"l": [{"k": "b", "v": 1}, {"k": "c", "v": 1}]}),
            [("spec.l[0].v", "Invalid value: 1: failed rule: self >= oldSelf")],
        ),
        (
            ruled(record(a=INTEGER), {"rule": "false", "message": "never", "reason": "FieldValueRequired"}),
            ({"a": 1},),
            [("spec", "Required value: never")],
        ),
        (
            record(a=ruled(INTEGER, {"rule": "false", "reason": "FieldValueDuplicate"})),
            ({"a": 1},),
            [("spec.a", "Duplicate value: 1")],
        ),
        (
            ruled(
                record(a=INTEGER), {"rule": "false", "messageExpression": "'a is ' + string(self.b)", "message": "no"}
            ),
            ({"a": 1},),
            None,
        ),
        (
            ruled(record(a=SHORT), {"rule": "false", "messageExpression": "self.a + '\\n'", "message": "no"}),
            ({"a": "x"},),
            [("spec", "Invalid value: x")],
        ),
        (
            ruled(
                record(m={"type": "object", "maxProperties": 2, "additionalProperties": SHORT}),
                {"rule": "false", "fieldPath": ".m['a.b']"},
            ),
            ({"m": {"a.b": "x"}},),
            [("spec.m[a.b]", "Invalid value: failed rule: false")],
        ),
        (
            ruled({**record(a=INTEGER, b=SHORT), "required": ["b"]}, "self.a > 1"),
            ({"a": 1},),
            [
                ("spec.b", "Required value"),
                (
                    "<nil>",
                    "Invalid value: null: some validation rules were not checked because the object was invalid; "
                    "correct the existing errors to complete validation",
                ),
            ],
        ),
    ],
)
async def test_rules(api: Api, spec: dict[str, Any], states: tuple[Any, ...], told: Any) -> None:
    if told is None:  # the definition itself is refused
        with pytest.raises(AssertionError, match="messageExpression compilation failed"):
            await outcome(api, spec, *states)
        return
    assert await outcome(api, spec, *states) == told


async def test_the_root_sees_the_name_and_nothing_else_of_metadata(api: Api) -> None:
    named = ({"rule": "self.metadata.name == 'b'", "message": "name"},)
    assert await outcome(api, record(), {}, root=named) == [("<nil>", "Invalid value: name")]
    with pytest.raises(AssertionError, match="undefined field"):
        await outcome(api, record(), {}, root=({"rule": "has(self.metadata.labels)"},))


async def test_what_does_not_change_is_not_judged_again(api: Api) -> None:
    """Ratcheting: a rule that came later does not keep an old object from being updated elsewhere."""
    await define(api, version(whole=schema(record(a=SHORT, b=SHORT))), plural="olds", kind="Old")
    path = f"/apis/{GROUP}/v1/namespaces/default/olds"
    made = {"apiVersion": f"{GROUP}/v1", "kind": "Old", "metadata": {"name": "a"}, "spec": {"a": "bad", "b": "x"}}
    await api.create(path, made)
    crd = await api.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/olds.{GROUP}")
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema(record(a=ruled(SHORT, "self != 'bad'"), b=SHORT))
    response = await api.request("PUT", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/olds.{GROUP}", crd)
    assert response.status == 200, response.body
    assert (await api.merge(f"{path}/a", {"spec": {"b": "y"}}))["spec"] == {"a": "bad", "b": "y"}
    assert (await api.request("POST", path, {**made, "metadata": {"name": "c"}})).status == 422


async def test_rules_that_take_too_much_are_ended(api: Api) -> None:
    items = {"type": "array", "maxItems": 3000, "items": {"type": "integer"}}
    spec = ruled(record(l=items), "self.l.all(x, self.l.all(y, x != y || x == y))")
    with pytest.raises(AssertionError, match="estimated rule cost exceeds budget"):
        await outcome(api, spec, {})
    spec = ruled(record(l={**items, "maxItems": 1000}), "self.l.all(x, self.l.all(y, x == y))")
    told = await outcome(api, spec, {"l": [1] * 1000})
    assert len(told) == 1
    assert "no further validation rules will be run due to call cost exceeds limit" in told[0][1]
