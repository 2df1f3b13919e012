"""ClusterRoles with an aggregation rule have the rules of all ClusterRoles that it selects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fastkube.api import selectors
from fastkube.controllers.actions import GONE, Action, Patch
from fastkube.controllers.caches import Caches
from fastkube.controllers.common import Object, Objects
from fastkube.controllers.runner import Context, Controller, Watch

CLUSTER_ROLES = "rbac.authorization.k8s.io/v1/clusterroles"

FIELD_MANAGER = "clusterrole-aggregation-controller"


class View(NamedTuple):
    role: Object
    others: Objects


def view(context: Context, key: str) -> View | None:
    role = context.caches.by_key(CLUSTER_ROLES, key)
    if role is None or not role.get("aggregationRule"):
        return None
    others = [other for other in context.caches.list(CLUSTER_ROLES) if other is not role]
    return View(role, sorted(others, key=lambda other: str(other["metadata"]["name"])))


def reconcile(view: View) -> Sequence[Action]:
    role = view.role
    rules: Objects = []
    for given in role["aggregationRule"].get("clusterRoleSelectors") or ():
        matches = selectors.from_object(given).matches
        for other in view.others:
            if matches(other["metadata"].get("labels")):
                rules += [rule for rule in other.get("rules") or () if rule not in rules]
    if rules == (role.get("rules") or []):
        return ()
    body = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": role["metadata"]["name"]},
        "rules": rules,
    }
    apply = Patch(CLUSTER_ROLES, role, body=body, kind="apply", field_manager=FIELD_MANAGER, force=True, ignore=GONE)
    return [apply]


def _aggregated(caches: Caches, _role: Object) -> Iterable[str]:
    """Any change may concern every aggregated role: there are few."""
    return [role["metadata"]["name"] for role in caches.list(CLUSTER_ROLES) if role.get("aggregationRule")]


CONTROLLER = Controller(
    name="clusterrole-aggregation-controller",
    watches=(Watch(CLUSTER_ROLES, _aggregated),),
    view=view,
    reconcile=reconcile,
)
