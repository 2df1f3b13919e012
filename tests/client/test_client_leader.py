"""Leader election as its users see it: one leader at a time, handed over at expiry and at release."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from toyserver import ToyServer

from fastkube.client import Client
from fastkube.client.leader import LeaderElector
from fastkube.client.leader_options import LeaderElectionOptions
from fastkube.clock import ManualClock

OPTIONS = LeaderElectionOptions(leader_elect_resource_name="test")


class Candidate:
    def __init__(self, client: Client, name: str, clock: ManualClock) -> None:
        self.leads = asyncio.Event()
        self.stopped = asyncio.Event()
        self.elector = LeaderElector(client, name, OPTIONS, clock)
        self.task = asyncio.create_task(self.elector.run(self._lead))

    async def _lead(self) -> None:
        self.leads.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped.set()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def drive(clock: ManualClock, until: Callable[[], bool], seconds: int) -> int:
    """Let time pass in steps, with real requests between them; the seconds that it took."""
    for second in range(seconds):
        if until():
            return second
        await clock.advance(1)
        await asyncio.sleep(0.02)
    assert until(), f"not within {seconds} seconds"
    return seconds


async def test_the_second_takes_over_when_the_first_releases(toy: ToyServer, client: Client) -> None:
    clock = ManualClock()
    first = Candidate(client, "first", clock)
    async with asyncio.timeout(30):
        await first.leads.wait()
    second = Candidate(client, "second", clock)
    with pytest.raises(AssertionError):
        await drive(clock, second.leads.is_set, 40)  # the first renews: the second waits
    assert second.elector.leader == "first"
    await first.stop()
    assert first.stopped.is_set()
    await drive(clock, second.leads.is_set, 6)
    lease = await client.get("coordination.k8s.io/v1/leases", "test", "kube-system")
    assert lease["spec"]["holderIdentity"] == "second"
    assert lease["spec"]["leaseTransitions"] == 1
    await second.stop()
    lease = await client.get("coordination.k8s.io/v1/leases", "test", "kube-system")
    assert lease["spec"]["holderIdentity"] == ""


async def test_a_dead_leader_is_replaced_after_the_lease_duration(toy: ToyServer, client: Client) -> None:
    clock = ManualClock()
    lease = {"metadata": {"name": "test", "namespace": "kube-system"}, "spec": {}}
    lease["spec"] = {"holderIdentity": "dead", "leaseDurationSeconds": 15, "leaseTransitions": 4}
    await toy.put(lease, "leases")
    second = Candidate(client, "second", clock)
    seconds = await drive(clock, second.leads.is_set, 25)
    assert seconds >= 15
    assert toy.objects["leases", "kube-system", "test"]["spec"]["leaseTransitions"] == 5
    await second.stop()


async def test_a_leader_that_cannot_renew_stops_before_others_start(toy: ToyServer, client: Client) -> None:
    clock = ManualClock()
    first = Candidate(client, "first", clock)
    async with asyncio.timeout(30):
        await first.leads.wait()
    toy.refuse = [(500, {})] * 1000
    seconds = await drive(clock, first.stopped.is_set, 20)
    assert seconds <= OPTIONS.leader_elect_lease_duration_s
    await first.stop()


async def test_a_leader_whose_lease_was_taken_stops(toy: ToyServer, client: Client) -> None:
    clock = ManualClock()
    first = Candidate(client, "first", clock)
    async with asyncio.timeout(30):
        await first.leads.wait()
    lease = toy.objects["leases", "kube-system", "test"]
    await toy.put({**lease, "spec": {**lease["spec"], "holderIdentity": "other"}}, "leases")
    await drive(clock, first.stopped.is_set, 5)
    assert toy.objects["leases", "kube-system", "test"]["spec"]["holderIdentity"] == "other"
    await first.stop()


def test_timings_that_allow_two_leaders_are_refused() -> None:
    with pytest.raises(ValueError, match="lease-duration must be greater"):
        LeaderElectionOptions(leader_elect_lease_duration_s=10, leader_elect_renew_deadline_s=10)
