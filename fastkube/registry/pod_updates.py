"""Two subresources by which a running Pod's spec changes: ephemeralcontainers and resize.

Both take a whole Pod and change one part of it; everything else, metadata included, stays as it was.
"""

from __future__ import annotations

from fastkube.registry.strategies.pods import PodStrategy
from fastkube.registry.strategy import Call, Object, Strategy
from fastkube.registry.updating import Rules


def ephemeral_containers_rules(strategy: Strategy) -> Rules:
    assert isinstance(strategy, PodStrategy)
    return Rules(_keep_all_but_ephemeral, strategy.validate_ephemeral_containers_update)


def resize_rules(strategy: Strategy) -> Rules:
    assert isinstance(strategy, PodStrategy)
    return Rules(_keep_all_but_resources, strategy.validate_resize)


def _keep_all_but_ephemeral(call: Call, new: Object, old: Object) -> None:
    given = (new.get("spec") or {}).get("ephemeralContainers")
    new["spec"] = dict(old["spec"])
    if given:
        new["spec"]["ephemeralContainers"] = given
    else:
        new["spec"].pop("ephemeralContainers", None)
    _keep_rest(new, old)


def _keep_all_but_resources(call: Call, new: Object, old: Object) -> None:
    """Takes over the resources of each container that has the same name as before, and nothing else."""
    spec = dict(old["spec"])
    for key in ("containers", "initContainers"):
        if key in spec:
            given = {container.get("name"): container for container in (new.get("spec") or {}).get(key) or ()}
            spec[key] = [_resized(container, given.get(container["name"])) for container in spec[key]]
    if "resources" in (new.get("spec") or {}):
        spec["resources"] = new["spec"]["resources"]
    new["spec"] = spec
    _keep_rest(new, old)


def _resized(container: Object, given: Object | None) -> Object:
    if given is None:
        return container
    changed = dict(container)
    for key in ("resources", "resizePolicy"):
        if key in given:
            changed[key] = given[key]
    return changed


def _keep_rest(new: Object, old: Object) -> None:
    """Metadata and status are those of the old Pod; only who manages which fields is new."""
    managed = new["metadata"].get("managedFields")
    new["metadata"] = dict(old["metadata"])
    if managed:
        new["metadata"]["managedFields"] = managed
    if "status" in old:
        new["status"] = old["status"]
    else:
        new.pop("status", None)
