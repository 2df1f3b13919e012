"""ServiceCIDRs: ready once seen, and not gone before the last address that only they contain."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fastkube.clock import rfc3339
from fastkube.controllers.actions import GONE, Action, Patch, Requeue
from fastkube.controllers.caches import Caches
from fastkube.controllers.common import Object, Objects, condition_is, is_terminating, seconds
from fastkube.controllers.runner import Context, Controller, Watch

SERVICE_CIDRS = "networking.k8s.io/v1/servicecidrs"
ADDRESSES = "networking.k8s.io/v1/ipaddresses"

NAME = "service-cidr-controller"
FINALIZER = "networking.k8s.io/service-cidr-finalizer"
GRACE_S = 10.0
"""How long a CIDR that is not in use waits: a Service may just be getting an address of it."""
_IN_USE = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"
_READY = "Kubernetes Service CIDR is ready"


class View(NamedTuple):
    cidr: Object
    others: Objects
    """All others that stay."""
    addresses: list[str]
    now: float


def view(context: Context, key: str) -> View | None:
    caches = context.caches
    cidr = caches.by_key(SERVICE_CIDRS, key)
    if cidr is None:
        return None
    others = [found for found in caches.list(SERVICE_CIDRS) if found is not cidr and not is_terminating(found)]
    addresses = [found["metadata"]["name"] for found in caches.list(ADDRESSES)] if is_terminating(cidr) else []
    return View(cidr, others, addresses, context.now)


def reconcile(view: View) -> Sequence[Action]:
    cidr = view.cidr
    finalizers = cidr["metadata"].get("finalizers") or []
    if is_terminating(cidr):
        return _release(view, finalizers)
    actions: list[Action] = []
    if FINALIZER not in finalizers:
        actions.append(_with_finalizers(cidr, [*finalizers, FINALIZER]))
    if not condition_is(cidr, "Ready"):
        actions.append(_condition(view, "True", "", _READY))
    return actions


def _release(view: View, finalizers: list[str]) -> Sequence[Action]:
    cidr = view.cidr
    if FINALIZER not in finalizers:
        return ()
    if _in_use(view):
        return () if condition_is(cidr, "Ready", "False") else [_condition(view, "False", "Terminating", _IN_USE)]
    left = seconds(cidr["metadata"]["deletionTimestamp"]) + GRACE_S - view.now
    if left > 0:
        return [Requeue(left)]
    return [_with_finalizers(cidr, [name for name in finalizers if name != FINALIZER])]


def _in_use(view: View) -> bool:
    """Whether an address would be in no CIDR without this one."""
    own = _networks([view.cidr])
    others = _networks(view.others)
    for name in view.addresses:
        address = ipaddress.ip_address(name)
        if any(address in network for network in own) and not any(address in network for network in others):
            return True
    return False


def _networks(cidrs: Objects) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(text, strict=False) for cidr in cidrs for text in cidr["spec"].get("cidrs") or ()]


def _condition(view: View, status: str, reason: str, message: str) -> Patch:
    cidr = view.cidr
    told = {"type": "Ready", "status": status, "reason": reason, "message": message}
    told["lastTransitionTime"] = rfc3339(view.now)
    body = {
        "apiVersion": cidr["apiVersion"],
        "kind": cidr["kind"],
        "metadata": {"name": cidr["metadata"]["name"]},
        "status": {"conditions": [told]},
    }
    return Patch(
        SERVICE_CIDRS, cidr, body=body, kind="apply", subresource="status", field_manager=NAME, force=True, ignore=GONE
    )


def _with_finalizers(cidr: Object, finalizers: list[str]) -> Patch:
    metadata = {"resourceVersion": cidr["metadata"]["resourceVersion"], "finalizers": finalizers or None}
    return Patch(SERVICE_CIDRS, cidr, body={"metadata": metadata}, ignore=GONE)


def _all(caches: Caches, _cidr: Object) -> Iterable[str]:
    """A CIDR that comes may free others: there are few."""
    return [found["metadata"]["name"] for found in caches.list(SERVICE_CIDRS)]


def _terminating(caches: Caches, _address: Object) -> Iterable[str]:
    return [found["metadata"]["name"] for found in caches.list(SERVICE_CIDRS) if is_terminating(found)]


CONTROLLER = Controller(
    name=NAME,
    watches=(Watch(SERVICE_CIDRS, _all), Watch(ADDRESSES, _terminating)),
    view=view,
    reconcile=reconcile,
)
