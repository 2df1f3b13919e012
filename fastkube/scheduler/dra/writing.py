"""Writing ResourceClaims: allocations and who uses them, and taking both back."""

from __future__ import annotations

import logging
from typing import Any

from fastkube.client import Client
from fastkube.clock import Clock, rfc3339
from fastkube.errors import ApiError
from fastkube.scheduler.dra.catalog import CLAIMS
from fastkube.scheduler.dra.extended import UNNAMED, Variant
from fastkube.scheduler.framework import BindingFailed
from fastkube.scheduler.metrics import Metrics
from fastkube.scheduler.pods import PodInfo

log = logging.getLogger(__name__)

Object = dict[str, Any]

FINALIZER = "resource.kubernetes.io/delete-protection"
WRITES_MAX = 5
"""Tries against others who write the same claim."""


class ClaimWriter:
    """Writes to the API server; BindingFailed tells in upstream's words what kept it from doing so."""

    def __init__(self, client: Client, clock: Clock, metrics: Metrics) -> None:
        self._client = client
        self._clock = clock
        self._metrics = metrics

    async def reserve(self, pod: PodInfo, claim: Object, allocation: Object | None) -> Object:
        """Let a Pod use a claim, with the allocation if it had none; gives the claim as it is then."""
        key, now = _key(claim), claim
        for attempt in range(WRITES_MAX):
            doing = f"get updated claim {key} after conflict"
            try:
                if attempt:
                    now = await self._client.get(CLAIMS, claim["metadata"]["name"], claim["metadata"]["namespace"])
                self._check(claim, now, allocation)
                if allocation is not None and FINALIZER not in (now["metadata"].get("finalizers") or ()):
                    doing = f"add finalizer to claim {key}"
                    now = await self._client.update(CLAIMS, _with_finalizer(now))
                doing = f"add {'allocation and ' if allocation is not None else ''}reservation to claim {key}"
                status = self._status(now.get("status") or {}, pod, allocation)
                return await self._client.update(CLAIMS, {**now, "status": status}, subresource="status")
            except ApiError as error:
                if error.code != 409 or attempt == WRITES_MAX - 1:
                    raise BindingFailed(f"{doing}: {error.message}") from error
        raise AssertionError("the last try returns or raises")

    @staticmethod
    def _check(claim: Object, now: Object, allocation: Object | None) -> None:
        metadata, allocated = now["metadata"], (now.get("status") or {}).get("allocation") is not None
        if metadata["uid"] != claim["metadata"]["uid"] or metadata.get("deletionTimestamp"):
            raise BindingFailed(f"claim {_key(claim)} got deleted in the meantime")
        if allocation is not None and allocated:
            raise BindingFailed(f"claim {_key(claim)} got allocated elsewhere in the meantime")
        if allocation is None and not allocated:
            raise BindingFailed(f"claim {_key(claim)} got deallocated elsewhere in the meantime")

    def _status(self, status: Object, pod: PodInfo, allocation: Object | None) -> Object:
        users = [each for each in status.get("reservedFor") or () if each.get("uid") != pod.uid]
        allocated = {"allocationTimestamp": rfc3339(self._clock.time()), **(allocation or status["allocation"])}
        user = {"resource": "pods", "name": pod.name, "uid": pod.uid}
        return {**status, "allocation": allocated, "reservedFor": [*users, user]}

    async def create_extended(self, pod: PodInfo, variant: Variant) -> Object:
        """Write the claim for a Pod's extended resources."""
        metadata = {key: value for key, value in variant.obj["metadata"].items() if key not in ("name", "uid")}
        try:
            created: Object = await self._client.create(CLAIMS, {**variant.obj, "metadata": metadata}, pod.namespace)
        except ApiError as error:
            self._metrics.claims_created.add("failure")
            told = f"create claim for extended resources {pod.namespace}/{UNNAMED}: {error.message}"
            raise BindingFailed(told) from error
        self._metrics.claims_created.add("success")
        return created

    async def tell_pod(self, pod: PodInfo, claim: Object, variant: Variant) -> None:
        """Say in the Pod's status which request serves which container."""
        told = {"requestMappings": variant.mappings, "resourceClaimName": claim["metadata"]["name"]}
        body = {"metadata": {"uid": pod.uid}, "status": {"extendedResourceClaimStatus": told}}
        try:
            await self._client.patch("v1/pods", pod.name, body, pod.namespace, kind="strategic", subresource="status")
        except ApiError as error:
            raise BindingFailed(f"update pod {pod.key} ExtendedResourceClaimStatus: {error.message}") from error

    async def give_up(self, pod: PodInfo, claims: list[Object]) -> None:
        """The Pod will not run there: the claims are not its own any more."""
        for claim in claims:
            metadata = claim["metadata"]
            body = {
                "metadata": {"uid": metadata["uid"]},
                "status": {"reservedFor": [{"$patch": "delete", "uid": pod.uid}]},
            }
            try:
                await self._client.patch(
                    CLAIMS, metadata["name"], body, metadata["namespace"], kind="strategic", subresource="status"
                )
            except ApiError as error:
                log.warning("claim %s is still reserved for pod %s: %s", metadata["name"], pod.key, error.message)

    async def deallocate(self, claim: Object) -> None:
        taken = ("allocation", "reservedFor", "devices")
        status = {key: value for key, value in claim["status"].items() if key not in taken}
        try:
            await self._client.update(CLAIMS, {**claim, "status": status}, subresource="status")
        except ApiError as error:
            log.warning("claim %s could not be deallocated: %s", _key(claim), error.message)

    async def delete(self, claim: Object) -> None:
        """A claim that the scheduler itself has written."""
        metadata, now = claim["metadata"], claim
        try:
            for attempt in range(WRITES_MAX):
                try:
                    if attempt:
                        now = await self._client.get(CLAIMS, metadata["name"], metadata["namespace"])
                    finalizers = [each for each in now["metadata"].get("finalizers") or () if each != FINALIZER]
                    await self._client.update(
                        CLAIMS, {**now, "metadata": {**now["metadata"], "finalizers": finalizers}}
                    )
                    break
                except ApiError as error:
                    if error.code != 409 or attempt == WRITES_MAX - 1:
                        raise
            await self._client.delete(CLAIMS, metadata["name"], metadata["namespace"])
        except ApiError as error:
            if error.code != 404:
                log.warning("claim %s could not be deleted: %s", _key(claim), error.message)


def _with_finalizer(claim: Object) -> Object:
    metadata = claim["metadata"]
    return {**claim, "metadata": {**metadata, "finalizers": [*(metadata.get("finalizers") or ()), FINALIZER]}}


def _key(claim: Object) -> str:
    return f"{claim['metadata']['namespace']}/{claim['metadata']['name']}"
