"""A snapshot of a cluster: all that it serves, as it was at one moment, into a file."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from typing import Any

from fastkube.api.documents import Writer
from fastkube.client import Client
from fastkube.client.discovery import ApiResource, Discovery, discover
from fastkube.errors import ApiError
from fastkube.recording.objects import EPHEMERAL, cleaned, left_out, rank

log = logging.getLogger(__name__)
Object = dict[str, Any]

_NOT_AT_ONE_REVISION = (400, 410, 504)
"""Answers of what cannot be listed at the cluster's revision: other storage, an aggregated API, history compacted."""


@dataclass
class Saved:
    """What a snapshot holds, and what of the cluster it does not."""

    revision: str = ""
    objects: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)

    def to_text(self) -> str:
        lines = [f"{self.objects.total()} objects of {len(self.objects)} kinds at resourceVersion {self.revision}"]
        lines += [f"left out: {count} x {why}" for why, count in sorted(self.left_out.items())]
        lines += [f"not read: {what}: {why}" for what, why in sorted(self.failed.items())]
        return "\n".join(lines)


def chosen(discovery: Discovery, only: Collection[str] = (), *verbs: str) -> list[ApiResource]:
    """The resources to save, in the order in which their objects can be made again. `only` names some of them as
    kubectl does (`pods`, `deployments.apps`); raises ValueError for one that is not served."""
    served = discovery.preferred("list", "create", *verbs)
    if not only:
        found = [each for each in served if (each.resource.group, each.resource.plural) not in EPHEMERAL]
    else:
        found = []
        for name in only:
            plural, _, group = name.partition(".")
            named = [each for each in served if each.resource.plural == plural and group in ("", each.resource.group)]
            if not named:
                raise ValueError(f"the server serves no resource {name!r} that could be listed and made again")
            found.append(named[0])
    return sorted(found, key=lambda each: (rank(each.kind), each.resource))


async def save(
    client: Client, writer: Writer, *, only: Collection[str] = (), namespace: str = "", secrets: bool = False
) -> Saved:
    """Write every object (of one namespace, with `namespace`). Raises ApiError and ValueError."""
    discovery = await discover(client)
    saved = Saved(failed=dict(discovery.failed))
    saved.revision = (await client.list("v1/namespaces", limit=1))["metadata"]["resourceVersion"]
    secrets = secrets or any(name.partition(".")[0] == "secrets" for name in only)
    for each in chosen(discovery, only):
        if namespace and not each.namespaced:
            continue
        try:
            async for obj in _listed(client, each, namespace, saved.revision):
                why = "being deleted" if "deletionTimestamp" in obj["metadata"] else left_out(obj, secrets=secrets)
                if why:
                    saved.left_out[why] += 1
                else:
                    saved.objects[each.kind] += 1
                    writer.write(cleaned(obj))
        except ApiError as error:
            saved.failed[str(each.resource)] = error.message
    return saved


async def _listed(client: Client, resource: ApiResource, namespace: str, revision: str) -> AsyncIterator[Object]:
    """The objects of a resource at the revision, or at the newest where that is not to be had."""
    told = 0
    try:
        pages = client.pages(resource.resource, namespace, resource_version=revision, resource_version_match="Exact")
        async for page in pages:
            for item in _items(page, resource):
                told += 1
                yield item
        return
    except ApiError as error:
        if error.code not in _NOT_AT_ONE_REVISION or told:
            raise
        log.info("%s is not to be had at revision %s: %s", resource.resource, revision, error.message)
    for item in _items(await client.list(resource.resource, namespace), resource):
        yield item


def _items(page: Object, resource: ApiResource) -> list[Object]:
    """Items of a typed list carry neither kind nor version."""
    about = {"apiVersion": resource.resource.api_version, "kind": resource.kind}
    return [{**about, **item} for item in page.get("items") or ()]
