"""What is written of an allocation: the devices, what their drivers are to be told, and where they can be used."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from fastkube.scheduler.dra.allocator import Chosen, Claim

Object = dict[str, Any]


def to_status(claim: Claim, chosen: Sequence[Chosen], node: str) -> Object:
    """The status.allocation of a claim."""
    allocation: Object = {"devices": {"results": [_result(each) for each in chosen]}}
    config = list(_config(claim, chosen))
    if config:
        allocation["devices"]["config"] = config
    selector = _node_selector(chosen, node)
    if selector is not None:
        allocation["nodeSelector"] = selector
    return allocation


def _result(chosen: Chosen) -> Object:
    request, device = chosen.request, chosen.device
    result: Object = {"request": request.name, "driver": device.id[0], "pool": device.id[1], "device": device.id[2]}
    if request.admin:
        result["adminAccess"] = True
    if request.tolerations:
        result["tolerations"] = list(request.tolerations)
    for field in ("bindingConditions", "bindingFailureConditions"):
        if device.told.get(field):
            result[field] = device.told[field]
    if chosen.taken is not None:
        result["shareID"] = str(uuid.uuid4())
        if chosen.taken:
            result["consumedCapacity"] = {name: str(amount) for name, amount in chosen.taken.items()}
    return result


def _config(claim: Claim, chosen: Sequence[Chosen]) -> Iterator[Object]:
    """What the drivers are told: of each class once, then what the claim says of the requests that were chosen."""
    used = {each.request.name: each.request for each in chosen}
    classes: dict[str, list[str]] = {}
    for name, request in used.items():
        classes.setdefault(request.device_class["metadata"]["name"], []).append(name)
    for names in classes.values():
        for told in used[names[0]].device_class["spec"].get("config") or ():
            yield {"source": "FromClass", "requests": names, **told}
    for told in (claim.obj["spec"].get("devices") or {}).get("config") or ():
        wanted = told.get("requests") or ()
        if not wanted:
            yield {"source": "FromClaim", **told}
        # as upstream: once for each of its requests
        yield from ({"source": "FromClaim", **told} for name in used
                    if name in wanted or name.partition("/")[0] in wanted)  # fmt: skip


def _node_selector(chosen: Sequence[Chosen], node: str) -> Object | None:
    """Where the devices can be used; None for everywhere."""
    if any(each.device.node or each.device.told.get("bindsToNode") for each in chosen):
        field = {"key": "metadata.name", "operator": "In", "values": [node]}
        return {"nodeSelectorTerms": [{"matchFields": [field]}]}
    labels: list[Object] = []
    fields: list[Object] = []
    for each in chosen:
        for term in ((each.device.selector or {}).get("nodeSelectorTerms") or ())[:1]:
            labels += [told for told in term.get("matchExpressions") or () if told not in labels]
            fields += [told for told in term.get("matchFields") or () if told not in fields]
    if not labels and not fields:
        return None
    term = {**({"matchExpressions": labels} if labels else {}), **({"matchFields": fields} if fields else {})}
    return {"nodeSelectorTerms": [term]}
