"""Expansion of volumes: this process has no plugin that could, so it says who is waited for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastkube.api import quantity
from fastkube.controllers.actions import Action, Tell
from fastkube.controllers.common import Object, is_terminating
from fastkube.controllers.runner import Context, Controller, Watch
from fastkube.controllers.statefulset import CLAIMS
from fastkube.controllers.volumes import phase, requested

_WAITS = (
    "Ignoring the PVC: didn't find a plugin capable of expanding the volume; "
    "waiting for an external controller to process this PVC."
)


class View(NamedTuple):
    claim: Object


def view(context: Context, key: str) -> View | None:
    claim = context.caches.by_key(CLAIMS, key)
    return None if claim is None or is_terminating(claim) else View(claim)


def wants_to_grow(claim: Object) -> bool:
    has = ((claim.get("status") or {}).get("capacity") or {}).get("storage")
    return phase(claim) == "Bound" and has is not None and quantity.cmp(requested(claim), has) > 0


def reconcile(view: View) -> Sequence[Action]:
    return [Tell(view.claim, "Normal", "ExternalExpanding", _WAITS)] if wants_to_grow(view.claim) else ()


def _size_changed(old: Object, new: Object) -> bool:
    return requested(old) != requested(new)


CONTROLLER = Controller(
    name="persistentvolume-expander-controller",
    component="volume_expand",
    watches=(Watch(CLAIMS, changed=_size_changed),),
    view=view,
    reconcile=reconcile,
)
