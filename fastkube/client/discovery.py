"""What a server serves: its resources with their verbs, from aggregated discovery or, of older servers, by group."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import orjson

from fastkube.client import codec
from fastkube.client.client import Client
from fastkube.client.resource import Resource, parse
from fastkube.errors import ApiError

Object = dict[str, Any]

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"


class ApiResource(NamedTuple):
    """A resource in one version; of each group and plural `preferred` marks the version that the server likes best."""

    resource: Resource
    kind: str
    namespaced: bool
    verbs: frozenset[str]
    preferred: bool


class Discovery(NamedTuple):
    """All that is served, and the groups of which nothing could be learnt, with why."""

    resources: list[ApiResource]
    failed: dict[str, str]

    def serves(self, resource: str) -> bool:
        wanted = parse(resource)
        return any(found.resource == wanted for found in self.resources)

    def preferred(self, *verbs: str) -> list[ApiResource]:
        """The resources in their preferred versions that have all these verbs."""
        return [found for found in self.resources if found.preferred and found.verbs.issuperset(verbs)]

    def by_kind(self, api_version: str, kind: str) -> ApiResource | None:
        return next(
            (found for found in self.resources if found.kind == kind and found.resource.api_version == api_version),
            None,
        )


async def discover(client: Client) -> Discovery:
    """Ask the server; raises ApiError when it answers nothing at all."""
    core, groups = await asyncio.gather(_get(client, "/api"), _get(client, "/apis"))
    if core.get("kind") == groups.get("kind") == "APIGroupDiscoveryList":
        return _from_aggregated([*core.get("items", ()), *groups.get("items", ())])
    return await _from_legacy(client, groups)


async def _get(client: Client, path: str) -> Object:
    response = await client.raw("GET", path, accept=AGGREGATED)
    if response.status != 200:
        raise codec.error_from(response.status, response.headers, response.body)
    found: Object = orjson.loads(response.body)
    return found


def _from_aggregated(items: list[Object]) -> Discovery:
    found: list[ApiResource] = []
    failed: dict[str, str] = {}
    for item in items:
        group = item.get("metadata", {}).get("name", "")
        seen: set[str] = set()
        for version in item.get("versions", ()):
            if version.get("freshness") == "Stale":
                failed[f"{group}/{version['version']}"] = "stale GroupVersion discovery"
                continue
            for entry in version.get("resources", ()):
                plural = entry["resource"]
                found.append(
                    ApiResource(
                        Resource(group, version["version"], plural),
                        entry["responseKind"]["kind"],
                        entry["scope"] == "Namespaced",
                        frozenset(entry.get("verbs", ())),
                        plural not in seen,
                    )
                )
            seen.update(entry["resource"] for entry in version.get("resources", ()))
    return Discovery(found, failed)


async def _from_legacy(client: Client, groups: Object) -> Discovery:
    versions = [("", "v1", "/api/v1")]
    for group in groups.get("groups", ()):
        preferred = group["preferredVersion"]["version"]
        served = [version["version"] for version in group["versions"]]
        served.sort(key=lambda version: version != preferred)
        versions += [(group["name"], version, f"/apis/{group['name']}/{version}") for version in served]
    answers = await asyncio.gather(*(_get(client, path) for _, _, path in versions), return_exceptions=True)
    found: list[ApiResource] = []
    failed: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    for (group_name, version, _), answer in zip(versions, answers, strict=True):
        if isinstance(answer, ApiError):
            failed[f"{group_name}/{version}"] = answer.message
            continue
        if isinstance(answer, BaseException):
            raise answer
        for entry in answer.get("resources", ()):
            if "/" in entry["name"]:
                continue
            key = (group_name, entry["name"])
            found.append(
                ApiResource(
                    Resource(group_name, version, entry["name"]),
                    entry["kind"],
                    bool(entry["namespaced"]),
                    frozenset(entry["verbs"]),
                    key not in seen,
                )
            )
            seen.add(key)
    return Discovery(found, failed)
