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
    """Takes over resources, and nothing else. Where containers are added, removed or renamed they stay as given, for
    validation to refuse that."""
    given, kept = new.get("spec") or {}, old["spec"]
    if any(len(given.get(key) or ()) != len(kept.get(key) or ()) for key in ("containers", "initContainers")):
        return
    spec = dict(kept)
    spec.pop("resources", None)
    for key in ("containers", "initContainers"):
        if key in spec:
            pairs = list(zip(given.get(key) or (), spec[key], strict=True))
            renamed = any(container.get("name") != before["name"] for container, before in pairs)
            spec[key] = given[key] if renamed else [_resized(before, container) for container, before in pairs]
    if "resources" in given:
        spec["resources"] = given["resources"]
    new["spec"] = spec
    _keep_rest(new, old)


def _resized(container: Object, given: Object) -> Object:
    changed = dict(container)
    for key in ("resources", "resizePolicy"):
        changed.pop(key, None)
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
