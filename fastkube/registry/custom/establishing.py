"""From a definition to one that is served: its names are taken or refused, its conditions set, and at last its end.

Pure functions from a definition, and what others have taken, to its new status:

    created ─► NamesAccepted (False: a name is in use) ─► Established: first False (Installing), then True ─► served
    deleted ─► Terminating: instances are removed ─► the finalizer goes, and the definition with it
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastkube.api.meta import copy_of
from fastkube.registry.custom.conditions import condition, is_true
from fastkube.registry.custom.definitions import approval, is_protected

Object = dict[str, Any]

FINALIZER = "customresourcecleanup.apiextensions.k8s.io"


def set_condition(crd: Object, now: str, kind: str, status: bool, reason: str, message: str) -> None:
    """In place; the time is that of the last change of status."""
    made = {
        "type": kind,
        "status": "True" if status else "False",
        "lastTransitionTime": now,
        "reason": reason,
        "message": message,
    }
    old = condition(crd, kind)
    if old is None:
        crd["status"]["conditions"] = [*(crd["status"].get("conditions") or ()), made]
        return
    if old["status"] == made["status"]:
        made["lastTransitionTime"] = old.get("lastTransitionTime", now)
    old.clear()
    old.update(made)


def taken_names(others: Iterable[Object], group: str) -> tuple[set[str], set[str]]:
    """The resource names and the kinds that other definitions of a group have taken."""
    resources: set[str] = set()
    kinds: set[str] = set()
    for crd in others:
        if crd["spec"]["group"] != group:
            continue
        names = (crd.get("status") or {}).get("acceptedNames") or {}
        resources.update(name for name in (names.get("plural"), names.get("singular")) if name)
        resources.update(names.get("shortNames") or ())
        kinds.update(name for name in (names.get("kind"), names.get("listKind")) if name)
    return resources, kinds


def established(crd: Object, others: Iterable[Object], now: str) -> Object:
    """The definition with its names and conditions as they must be; equal to what it was if they are."""
    new: Object = copy_of(crd)
    new["status"] = {"conditions": [], "acceptedNames": {}, "storedVersions": [], **(new.get("status") or {})}
    new["status"]["conditions"] = list(new["status"]["conditions"] or ())
    accepted, problem = _accept(crd, *taken_names(others, crd["spec"]["group"]))
    new["status"]["acceptedNames"] = accepted
    if problem is not None:
        set_condition(new, now, "NamesAccepted", False, *problem)
    else:
        set_condition(new, now, "NamesAccepted", True, "NoConflicts", "no conflicts found")
    if not is_true(crd, "Established"):
        if problem is not None:
            set_condition(new, now, "Established", False, "NotAccepted", "not all names are accepted")
        else:
            told = "the initial names have been accepted"
            ready = condition(crd, "Established") is not None and is_true(crd, "NamesAccepted")
            set_condition(new, now, "Established", ready, "InitialNamesAccepted" if ready else "Installing", told)
    if is_protected(crd["spec"]["group"]):
        _approve(new, now)
    if not new["status"]["conditions"]:
        new["status"]["conditions"] = None
    return new


def _accept(crd: Object, resources: set[str], kinds: set[str]) -> tuple[Object, tuple[str, str] | None]:
    """The names as far as they are free, and the last that was not, as (reason, message)."""
    wanted: Object = crd["spec"]["names"]
    accepted: Object = dict((crd.get("status") or {}).get("acceptedNames") or {})
    accepted.setdefault("plural", "")
    accepted.setdefault("kind", "")
    problem: tuple[str, str] | None = None
    for key, used in (
        ("plural", resources),
        ("singular", resources),
        ("shortNames", resources),
        ("kind", kinds),
        ("listKind", kinds),
    ):
        value = wanted.get(key)
        told = _conflict(value, accepted.get(key), used)
        if told:
            problem = (f"{key[0].upper()}{key[1:]}Conflict", told)
        elif value:
            accepted[key] = value
        else:
            accepted.pop(key, None)
    if wanted.get("categories"):
        accepted["categories"] = wanted["categories"]
    else:
        accepted.pop("categories", None)
    return accepted, problem


def _conflict(wanted: Any, accepted: Any, used: set[str]) -> str:
    if isinstance(wanted, list):
        ours = set(accepted or ())
        told = [f'"{name}" is already in use' for name in wanted if name not in ours and name in used]
        return told[0] if len(told) == 1 else f"[{', '.join(told)}]" if told else ""
    return f'"{wanted}" is already in use' if wanted != accepted and wanted in used else ""


def _approve(crd: Object, now: str) -> None:
    state, told = approval(crd)
    reasons = {
        "missing": "MissingAnnotation",
        "invalid": "InvalidAnnotation",
        "unapproved": "UnapprovedAnnotation",
        "approved": "ApprovedAnnotation",
    }
    set_condition(crd, now, "KubernetesAPIApprovalPolicyConformant", state == "approved", reasons[state], told)


# ---------------------------------------------------------------- the end


def begin_end(crd: Object, now: str) -> Object:
    """What the first DELETE makes of a definition: it goes when its objects have gone."""
    new: Object = copy_of(crd)
    metadata = new["metadata"]
    metadata["deletionTimestamp"] = now
    finalizers = list(metadata.get("finalizers") or ())
    if FINALIZER not in finalizers:
        finalizers.append(FINALIZER)
    metadata["finalizers"] = finalizers
    new.setdefault("status", {})
    told = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"
    set_condition(new, now, "Terminating", True, "InstanceDeletionPending", told)
    return new


def ending(crd: Object, now: str) -> Object:
    """While its objects are being removed."""
    new: Object = copy_of(crd)
    told = "CustomResource deletion is in progress"
    set_condition(new, now, "Terminating", True, "InstanceDeletionInProgress", told)
    return new


def ended(crd: Object, now: str) -> Object:
    """When they are gone: nothing of ours holds the definition any more."""
    new: Object = copy_of(crd)
    set_condition(new, now, "Terminating", False, "InstanceDeletionCompleted", "removed all instances")
    finalizers = [name for name in new["metadata"].get("finalizers") or () if name != FINALIZER]
    if finalizers:
        new["metadata"]["finalizers"] = finalizers
    else:
        new["metadata"].pop("finalizers", None)
    return new
