"""Devices that become ready only after binding has begun: their drivers report conditions in the claim's status.

A result of an allocation names the conditions that must be true before the Pod may be bound, and those which say that
this will never be so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastkube.clock import parse_rfc3339
from fastkube.scheduler.dra.catalog import CLAIMS, Catalog
from fastkube.scheduler.framework import BindingFailed, Handle
from fastkube.scheduler.nodes import NodeInfo
from fastkube.scheduler.pods import PodInfo

Object = dict[str, Any]

POLL_S = 5.0


class NeverReady(Exception):
    """A device has failed; another one must be found."""


def awaited(claim: Object) -> Iterator[Object]:
    """The results of a claim's allocation that have conditions to wait for."""
    allocation = (claim.get("status") or {}).get("allocation") or {}
    return (each for each in (allocation.get("devices") or {}).get("results") or () if each.get("bindingConditions"))


def is_ready(claim: Object) -> bool:
    """Whether all devices are ready; raises NeverReady."""
    for result in awaited(claim):
        conditions = _conditions(claim, result)
        for name in result.get("bindingFailureConditions") or ():
            failed = conditions.get(name) or {}
            if failed.get("status") == "True":
                told = f'reason={failed.get("reason", "")}, message="{failed.get("message", "")}"'
                raise NeverReady(f"device binding failed: claim={claim['metadata']['name']}, {told}")
        if any((conditions.get(name) or {}).get("status") != "True" for name in result["bindingConditions"]):
            return False
    return True


def is_late(claim: Object, timeout_s: float, now: float) -> bool:
    """Whether a claim has waited long enough since it was allocated."""
    since = ((claim.get("status") or {}).get("allocation") or {}).get("allocationTimestamp")
    return since is not None and any(awaited(claim)) and parse_rfc3339(since) + timeout_s < now


def _conditions(claim: Object, result: Object) -> dict[str, Object]:
    for device in (claim.get("status") or {}).get("devices") or ():
        if all(device.get(field) == result.get(field) for field in ("driver", "pool", "device")):
            return {each["type"]: each for each in device.get("conditions") or ()}
    return {}


class Patience:
    """Waits for the devices of Pods, no longer than `timeout_s` from their allocation on."""

    def __init__(self, catalog: Catalog, handle: Handle, timeout_s: float) -> None:
        self._catalog = catalog
        self._handle = handle
        self._timeout_s = timeout_s

    async def wait(self, pod: PodInfo, node: NodeInfo, claims: list[Object]) -> None:
        """Until all are ready; raises BindingFailed."""
        note = f"waiting for binding conditions for device on node {node.name}"
        self._handle.event(pod, "Normal", "BindingConditionsPending", "Scheduling", note)
        clock, status = self._handle.clock, "error"
        started = clock.monotonic()
        try:
            while not all(map(is_ready, claims)):
                late = next((each for each in claims if is_late(each, self._timeout_s, clock.time())), None)
                if late is not None:
                    status = "timeout"
                    raise BindingFailed(f"device binding timeout: claim={late['metadata']['name']}")
                await self._catalog.changed(clock, POLL_S)
                claims = [self._latest(each) for each in claims]
            status = "success"
        except NeverReady as failed:
            status = "failure"
            raise BindingFailed(str(failed)) from failed
        finally:
            self._count(pod, claims, clock.monotonic() - started, status)

    def _latest(self, claim: Object) -> Object:
        """A claim as the informer has it; while that lags behind, as it was written."""
        metadata = claim["metadata"]
        known: Object | None = self._handle.lister(CLAIMS).get(metadata["namespace"], metadata["name"])
        if known is None or (known.get("status") or {}).get("allocation") is None:
            return claim
        return known

    def _count(self, pod: PodInfo, claims: list[Object], seconds: float, status: str) -> None:
        metrics, profile = self._handle.metrics, pod.spec.scheduler_name
        for claim in claims:
            for result in claim["status"]["allocation"]["devices"]["results"]:
                metrics.binding_conditions_wait.observe(seconds, profile, result["driver"], status)
            for result in awaited(claim):
                metrics.binding_conditions.add(profile, result["driver"], status)
