"""Versions of a custom kind that a webhook converts: v1 has `spec.size`, v2 has `spec.dimensions.size`."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from apis import Api, running
from customs import GROUP, WIDGETS, define, schema, version, widget
from peers import certificate, serving

ONE, TWO = WIDGETS, WIDGETS.replace("/v1/", "/v2/")
V1, V2 = f"{GROUP}/v1", f"{GROUP}/v2"
INTEGER = {"type": "integer", "minimum": 1}


class Webhook:
    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answer: dict[str, Any] = {}

    async def handle(self, request: web.Request) -> web.Response:
        review = await request.json()
        self.asked.append(review["request"])
        made = [convert(obj, review["request"]["desiredAPIVersion"]) for obj in review["request"]["objects"]]
        response = {"uid": review["request"]["uid"], "convertedObjects": made, "result": {"status": "Success"}}
        return web.json_response({**review, "response": {**response, **self.answer}})


def convert(obj: dict[str, Any], wanted: str) -> dict[str, Any]:
    spec = obj["spec"]
    if wanted == V2:
        spec = {"dimensions": {"size": spec["size"]}} if "size" in spec else {}
    else:
        spec = {"size": spec["dimensions"]["size"]} if "dimensions" in spec else {}
    return {**obj, "apiVersion": wanted, "spec": spec}


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Api, Webhook]]:
    hook = Webhook()
    tls, ca_file = certificate(tmp_path / "hook")
    bundle = base64.b64encode(Path(ca_file).read_bytes()).decode()  # noqa: ASYNC240
    async with running(tmp_path) as api, serving({"/convert": hook.handle}, tls) as url:
        client = {"url": f"{url}/convert", "caBundle": bundle}
        one = schema({"type": "object", "properties": {"size": INTEGER}})
        dimensions = {"type": "object", "properties": {"size": INTEGER}}
        two = schema({"type": "object", "properties": {"dimensions": dimensions}})
        await define(
            api,
            version("v1", whole=one),
            version("v2", whole=two, storage=False),
            conversion={"strategy": "Webhook", "webhook": {"clientConfig": client, "conversionReviewVersions": ["v1"]}},
        )
        yield api, hook


async def test_every_verb_in_either_version(served: tuple[Api, Webhook]) -> None:
    api, hook = served
    made = await api.create(TWO, widget("a", {"dimensions": {"size": 1}}, V2))
    assert (made["apiVersion"], made["spec"]) == (V2, {"dimensions": {"size": 1}})
    assert (await api.get(f"{ONE}/a"))["spec"] == {"size": 1}
    await api.create(ONE, widget("b", {"size": 2}))
    hook.asked.clear()
    listed = await api.get(TWO)
    assert [each["spec"]["dimensions"]["size"] for each in listed["items"]] == [1, 2]
    assert [len(each["objects"]) for each in hook.asked] == [2]
    changed = await api.merge(f"{TWO}/b", {"spec": {"dimensions": {"size": 3}}})
    assert (changed["apiVersion"], changed["spec"]) == (V2, {"dimensions": {"size": 3}})
    assert (await api.get(f"{ONE}/b"))["spec"] == {"size": 3}
    replaced = await api.request("PUT", f"{TWO}/b", {**changed, "spec": {"dimensions": {"size": 4}}})
    assert (replaced.status, replaced.json["spec"]) == (200, {"dimensions": {"size": 4}})
    assert replaced.json["metadata"]["generation"] == 3
    applied = await api.request(
        "PATCH",
        f"{TWO}/c?fieldManager=m",
        widget("c", {"dimensions": {"size": 5}}, V2),
        headers={"Content-Type": "application/apply-patch+yaml"},
    )
    assert (applied.status, applied.json["spec"]) == (201, {"dimensions": {"size": 5}})
    assert (await api.get(f"{ONE}/c"))["spec"] == {"size": 5}


async def test_objects_are_judged_in_the_version_of_the_request(served: tuple[Api, Webhook]) -> None:
    api, _ = served
    response = await api.request("POST", TWO, widget("a", {"dimensions": {"size": 0}}, V2))
    assert response.json["details"]["causes"][0]["field"] == "spec.dimensions.size"


async def test_watches_convert(served: tuple[Api, Webhook]) -> None:
    api, _ = served
    await api.create(ONE, widget("a", {"size": 1}))
    async with api.watch(f"{TWO}?watch=1") as watch:
        assert (await watch.next())["object"]["spec"] == {"dimensions": {"size": 1}}
        await api.merge(f"{ONE}/a", {"spec": {"size": 2}})
        changed = await watch.next()
        assert (changed["type"], changed["object"]["spec"]) == ("MODIFIED", {"dimensions": {"size": 2}})
        await api.delete(f"{ONE}/a")
        gone = await watch.next()
        assert (gone["type"], gone["object"]["apiVersion"]) == ("DELETED", V2)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"result": {"status": "Failed", "message": "no way"}}, "failed: no way"),
        ({"uid": "other"}, 'got "other"'),
        ({"convertedObjects": []}, "returned 0 objects, expected 1"),
        ({"convertedObjects": [{"apiVersion": V1}]}, f"invalid groupVersion (expected {V2}, received {V1})"),
        (
            {"convertedObjects": [{"apiVersion": V2, "kind": "Widget", "metadata": {"name": "x"}}]},
            "must have the same name: x != a",
        ),
    ],
)
async def test_bad_answers(served: tuple[Api, Webhook], answer: dict[str, Any], told: str) -> None:
    api, hook = served
    await api.create(ONE, widget("a", {"size": 1}))
    hook.answer = answer
    response = await api.request("GET", f"{TWO}/a")
    assert response.status == 500
    begin = f"Internal error occurred: conversion webhook for {V1}, Kind=Widget"
    assert response.json["message"].startswith(begin)
    assert told in response.json["message"]
    assert (await api.get(f"{ONE}/a"))["spec"] == {"size": 1}


async def test_labels_may_change_and_nothing_else_of_metadata(served: tuple[Api, Webhook]) -> None:
    api, hook = served
    made = await api.create(ONE, widget("a", {"size": 1}))
    metadata = {**made["metadata"], "labels": {"l": "1"}, "finalizers": ["example.com/x"], "generation": 9}
    hook.answer = {"convertedObjects": [{"apiVersion": V2, "kind": "Widget", "metadata": metadata, "spec": {}}]}
    shown = (await api.get(f"{TWO}/a"))["metadata"]
    assert shown["labels"] == {"l": "1"}
    assert "finalizers" not in shown
    assert shown["generation"] == 1
