"""Definitions of custom kinds for tests, and the wait until they are served."""

from __future__ import annotations

import asyncio
from typing import Any

from apis import Api

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "example.com"
WIDGETS = f"/apis/{GROUP}/v1/namespaces/default/widgets"


def schema(spec: dict[str, Any] | None = None, **root: Any) -> dict[str, Any]:
    """A schema of an object with this spec, and a status that takes everything."""
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {"type": "object", "properties": {"spec": spec or free, "status": free}, **root}


def version(name: str = "v1", whole: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    made = {"name": name, "served": True, "storage": name == "v1", "schema": {"openAPIV3Schema": whole or schema()}}
    return {**made, **more}


def definition(*versions: dict[str, Any], plural: str = "widgets", kind: str = "Widget", **spec: Any) -> dict[str, Any]:
    names = {"plural": plural, "kind": kind, **spec.pop("names", {})}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": names,
            "versions": list(versions) or [version()],
            **spec,
        },
    }


def widget(name: str = "a", spec: Any = None, api_version: str = f"{GROUP}/v1", **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"apiVersion": api_version, "kind": "Widget", "metadata": {"name": name}, **more}
    if spec is not None:
        made["spec"] = spec
    return made


async def condition(api: Api, name: str, kind: str) -> str:
    crd = await api.get(f"{CRDS}/{name}")
    found = {each["type"]: each["status"] for each in crd["status"]["conditions"] or ()}
    return found.get(kind, "")


async def becomes(api: Api, name: str, kind: str, status: str) -> None:
    """Waits until a definition has a condition with that status."""
    for _ in range(5000):
        if await condition(api, name, kind) == status:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{name} never had {kind}={status}")


async def define(api: Api, *versions: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """Makes a definition and waits until it is established."""
    crd = await api.create(CRDS, definition(*versions, **spec))
    await becomes(api, crd["metadata"]["name"], "Established", "True")
    return crd
