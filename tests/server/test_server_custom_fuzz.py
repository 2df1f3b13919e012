"""Any schema is taken or refused, and so is any object under a schema that was taken: nothing fails."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from apis import Api, running
from customs import CRDS, GROUP, define, definition, schema, version
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TEXTS = st.sampled_from(["", "a", "b", "name", "metadata", "^a+$", "(", "self.a > 1", "true", "x-y", "date", "int32"])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(-2, 2), TEXTS)
VALUES = st.recursive(
    SCALARS,
    lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(TEXTS, below, max_size=3)),
    max_leaves=8,
)
RULES = st.lists(
    st.fixed_dictionaries(
        {"rule": st.sampled_from(["true", "self.a > 1", "self == oldSelf", "self.all(x, x)", "has(self.a)", "1", "("])},
        optional={"message": TEXTS, "fieldPath": st.sampled_from([".a", "a", ".a.b", "['a']", "[0]"])},
    ),
    max_size=2,
)


def schemas(depth: int = 3) -> st.SearchStrategy[dict[str, Any]]:
    below = st.deferred(lambda: schemas(depth - 1)) if depth else st.just({"type": "string"})
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array", "string", "integer", "number", "boolean", "odd", ""]),
            "properties": st.dictionaries(st.sampled_from(["a", "b", "metadata", "kind"]), below, max_size=2),
            "items": below,
            "additionalProperties": st.one_of(st.booleans(), below),
            "required": st.lists(st.sampled_from(["a", "b"]), max_size=2),
            "default": VALUES,
            "enum": st.lists(SCALARS, max_size=2),
            "nullable": st.booleans(),
            "format": TEXTS,
            "pattern": TEXTS,
            "minimum": st.integers(-3, 3),
            "maxLength": st.integers(0, 3),
            "maxItems": st.integers(0, 3),
            "maxProperties": st.integers(0, 3),
            "multipleOf": st.sampled_from([0.5, 1, 2]),
            "anyOf": st.lists(below, max_size=2),
            "not": below,
            "x-kubernetes-preserve-unknown-fields": st.booleans(),
            "x-kubernetes-int-or-string": st.booleans(),
            "x-kubernetes-embedded-resource": st.booleans(),
            "x-kubernetes-list-type": st.sampled_from(["atomic", "set", "map"]),
            "x-kubernetes-list-map-keys": st.lists(st.sampled_from(["a", "b"]), max_size=2),
            "x-kubernetes-map-type": st.sampled_from(["atomic", "granular"]),
            "x-kubernetes-validations": RULES,
        },
    )


async def write(api: Api, method: str, path: str, body: Any) -> None:
    response = await api.request(method, path, body)
    assert response.status in (200, 201, 400, 422), response.body


def test_any_schema(tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        serving = running(tmp_path)
        api = runner.run(serving.__aenter__())

        @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
        @given(schemas())
        def attempt(spec: dict[str, Any]) -> None:
            runner.run(write(api, "POST", f"{CRDS}?dryRun=All", definition(version(whole=schema(spec)))))

        attempt()
        runner.run(serving.__aexit__(None, None, None))


SPECS: dict[str, dict[str, Any]] = {
    "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    "typed": {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "minimum": 1, "default": 2},
            "b": {
                "type": "array",
                "maxItems": 5,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["a"],
                "items": {"type": "object", "required": ["a"], "properties": {"a": {"type": "string", "maxLength": 5}}},
                "x-kubernetes-validations": [{"rule": "self.all(x, x.a != 'b')"}],
            },
            "name": {"x-kubernetes-int-or-string": True},
            "metadata": {
                "type": "object",
                "x-kubernetes-embedded-resource": True,
                "x-kubernetes-preserve-unknown-fields": True,
            },
        },
        "x-kubernetes-validations": [{"rule": "!has(self.name) || self.name != 3"}],
    },
}


@pytest.mark.parametrize("kind", SPECS)
def test_any_object(tmp_path: Path, kind: str) -> None:
    path = f"/apis/{GROUP}/v1/namespaces/default/widgets"
    with asyncio.Runner() as runner:
        serving = running(tmp_path)
        api = runner.run(serving.__aenter__())
        runner.run(define(api, version(whole=schema(SPECS[kind]))))
        base = {"apiVersion": f"{GROUP}/v1", "kind": "Widget", "metadata": {"name": "a"}}
        runner.run(api.create(path, base))

        @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.dictionaries(TEXTS, VALUES, max_size=4))
        def attempt(spec: dict[str, Any]) -> None:
            runner.run(write(api, "POST", f"{path}?dryRun=All", {**base, "metadata": {"name": "b"}, "spec": spec}))
            runner.run(patched(api, f"{path}/a", {"spec": spec}))

        attempt()
        runner.run(serving.__aexit__(None, None, None))


async def patched(api: Api, path: str, body: Any) -> None:
    headers = {"Content-Type": "application/merge-patch+json"}
    response = await api.request("PATCH", path, body, headers=headers)
    assert response.status in (200, 400, 422), response.body
