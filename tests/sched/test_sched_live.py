"""Whole attempts beside a real API server: bindings, conditions and events, preemption, several schedulers by name."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from livecluster import bound, condition, configuration, create, gone, scheduling, until
from schedobjects import HOST, node, pod, pod_affinity, pod_term

from fastkube.client import Client
from fastkube.client.kubeconfig import Connection
from fastkube.client.transport import HttpTransport, Response, Stream
from fastkube.clock import RealClock
from fastkube.errors import ApiError
from fastkube.scheduler.events import NODE, Action, Interest
from fastkube.scheduler.framework import Cycle, Plugin
from fastkube.scheduler.nodes import NodeInfo
from fastkube.scheduler.options import SchedulerOptions
from fastkube.scheduler.profile import known_plugins
from fastkube.scheduler.scheduler import Scheduler
from fastkube.testing import Cluster

Object = dict[str, Any]

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    plugins = ("ServiceAccount", "TaintNodesByCondition")
    with Cluster(nodes=0, scheduler=False, controllers=False, disable_admission_plugins=plugins) as started:
        yield started


async def reasons(client: Client, name: str) -> list[tuple[str, str]]:
    """(reason, note) of the events about a Pod."""
    found = (await client.list("events.k8s.io/v1/events", "default"))["items"]
    return [(each["reason"], each["note"]) for each in found if each["regarding"]["name"] == name]


async def test_a_pod_is_bound_and_told_about(cluster: Cluster) -> None:
    async with scheduling(cluster) as (client, scheduler):
        await create(client, node("n1"), pod("p"))
        assert await bound(client, "p") == "n1"
        told = await until(lambda: reasons(client, "p"))
        assert told == [("Scheduled", "Successfully assigned default/p to n1")]
        assert 'scheduler_schedule_attempts_total{profile="default-scheduler",result="scheduled"} 1' in (
            scheduler.metrics.text()
        )


async def test_json_is_enough_as_any_api_server_speaks_it(cluster: Cluster) -> None:
    async with scheduling(cluster, codec="json") as (client, _):
        await create(client, node("n1"), pod("p"), pod("big", requests={"cpu": "64"}))
        assert await bound(client, "p") == "n1"
        assert (await condition(client, "big"))["reason"] == "Unschedulable"


async def test_why_a_pod_does_not_fit_is_told_in_upstreams_words(cluster: Cluster) -> None:
    async with scheduling(cluster) as (client, _):
        await create(client, node("n1"), node("n2", taints=["k=v:NoSchedule"]), pod("big", requests={"cpu": "5"}))
        told = await condition(client, "big")
        message = (
            "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s). no new claims to "
            "deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        )
        assert (told["reason"], told["message"]) == ("Unschedulable", message)
        assert await until(lambda: reasons(client, "big")) == [("FailedScheduling", told["message"])]
        await create(client, node("n3", allocatable={"cpu": "8"}))
        assert await bound(client, "big") == "n3"


async def test_a_pod_whose_claim_is_missing_preempts_nobody(cluster: Cluster) -> None:
    """Upstream ends there with what a later plugin lacks."""
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": "none"}}
    async with scheduling(cluster) as (client, scheduler):
        await create(client, node("n1"), pod("p", volumes=[volume]))
        told = await condition(client, "p")
        assert told["message"] == '0/1 nodes are available: persistentvolumeclaim "none" not found. not found'
        assert scheduler.metrics.preemption_attempts.values.get((), 0) == 0


async def test_no_nodes_at_all(cluster: Cluster) -> None:
    async with scheduling(cluster) as (client, _):
        await create(client, pod("p"))
        assert (await condition(client, "p"))["message"] == "no nodes available to schedule pods"
        await create(client, node("n1"))
        assert await bound(client, "p") == "n1"


async def test_gates_keep_a_pod_out_until_the_last_is_gone(cluster: Cluster) -> None:
    async with scheduling(cluster) as (client, scheduler):
        await create(client, node("n1"), pod("gated", schedulingGates=[{"name": "a/b"}, {"name": "c/d"}]), pod("free"))
        assert await bound(client, "free") == "n1"
        assert scheduler.queue.counts()["gated"] == 1
        patch = [{"op": "remove", "path": "/spec/schedulingGates"}]
        await client.patch("v1/pods", "gated", patch, "default", kind="json")
        assert await bound(client, "gated") == "n1"


async def nominated(client: Client, name: str) -> str | None:
    found: str | None = (await client.get("v1/pods", name, "default"))["status"].get("nominatedNodeName")
    return found


async def test_preemption_deletes_victims_and_binds_to_the_nominated_node(cluster: Cluster) -> None:
    async with scheduling(cluster) as (client, _):
        await create(client, node("n1"), pod("low", requests={"cpu": "4"}))
        assert await bound(client, "low") == "n1"
        for name, value in (("high", 1000),):
            body = {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": name},
                "value": value,
            }
            await client.create("scheduling.k8s.io/v1/priorityclasses", body)
        await create(client, pod("high", requests={"cpu": "4"}, priorityClassName="high"))

        async def leaving() -> Any:
            if await gone(client, "low"):
                return True
            found = await client.get("v1/pods", "low", "default")
            return found["metadata"].get("deletionTimestamp")

        await until(leaving)
        assert await until(lambda: nominated(client, "high")) == "n1"
        if not await gone(client, "low"):
            low = await client.get("v1/pods", "low", "default")
            conditions = {each["type"]: each for each in low["status"]["conditions"]}
            assert conditions["DisruptionTarget"]["reason"] == "PreemptionByScheduler"
            await client.delete("v1/pods", "low", "default", grace_period_s=0)
        assert await bound(client, "high") == "n1"
        await client.delete("scheduling.k8s.io/v1/priorityclasses", "high")


async def test_nothing_is_ever_over_committed(cluster: Cluster) -> None:
    """Two schedulers by name in one process, Pods that come and go, and little room."""
    config = configuration(profiles=[{"schedulerName": "default-scheduler"}, {"schedulerName": "other"}])
    draw = random.Random(5)
    async with scheduling(cluster, config) as (client, scheduler):
        await create(client, *(node(f"n{each}", allocatable={"cpu": "2", "pods": "5"}) for each in range(6)))
        names = [f"p{each}" for each in range(120)]
        watching = asyncio.ensure_future(never_over_committed(client))
        for name in names:
            schedulers: dict[str, Any] = {"schedulerName": "other"} if draw.random() < 0.5 else {}
            await create(client, pod(name, requests={"cpu": draw.choice(("300m", "700m", "1"))}, **schedulers))
            if draw.random() < 0.6:
                victim = draw.choice(names[: names.index(name) + 1])
                if not await gone(client, victim):
                    await client.delete("v1/pods", victim, "default", grace_period_s=0)
        await until(lambda: settled(client, scheduler))
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert not watching.done() or watching.cancelled()
        check_room((await client.list("v1/pods", "default"))["items"])


async def settled(client: Client, scheduler: Scheduler) -> bool:
    counts = scheduler.queue.counts()
    return not (counts["active"] or counts["backoff"] or scheduler.binder.under_way)


async def never_over_committed(client: Client) -> None:
    while True:
        check_room((await client.list("v1/pods", "default"))["items"])
        await asyncio.sleep(0.02)


def check_room(pods: list[Object]) -> None:
    used: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for each in pods:
        if on := each["spec"].get("nodeName"):
            text = each["spec"]["containers"][0]["resources"]["requests"]["cpu"]
            used[on] += int(text[:-1]) if text.endswith("m") else 1000 * int(text)
            count[on] += 1
    assert max(used.values(), default=0) <= 2000
    assert max(count.values(), default=0) <= 5


async def test_a_pod_that_is_deleted_while_it_waits_is_forgotten(cluster: Cluster) -> None:
    async with scheduling(cluster) as (client, scheduler):
        await create(client, node("n1"), pod("big", requests={"cpu": "64"}))
        await condition(client, "big")
        await client.delete("v1/pods", "big", "default", grace_period_s=0)

        async def empty() -> bool:
            return len(scheduler.queue) == 0

        await until(empty)


async def test_pods_of_other_schedulers_are_left_alone(cluster: Cluster) -> None:
    async with scheduling(cluster) as (client, scheduler):
        await create(client, node("n1"), pod("theirs", schedulerName="somebody"), pod("ours"))
        await bound(client, "ours")
        assert not (await client.get("v1/pods", "theirs", "default"))["spec"].get("nodeName")
        assert len(scheduler.queue) == 0


async def test_a_bound_pod_counts_with_the_labels_that_it_has_now(cluster: Cluster) -> None:
    apart, beside = (pod_affinity(kind, pod_term({"app": "x"}, HOST)) for kind in ("podAntiAffinity", "podAffinity"))
    async with scheduling(cluster) as (client, _):
        await create(client, node("n1"), pod("a"))
        await bound(client, "a")
        await client.patch("v1/pods", "a", {"metadata": {"labels": {"app": "x"}}}, "default")
        await create(client, node("n2"), pod("apart", affinity=apart))
        assert await bound(client, "apart") == "n2"
        await create(client, pod("beside", affinity=beside))
        assert await bound(client, "beside") == "n1"
        await client.patch("v1/pods", "a", {"metadata": {"labels": {"app": None}}}, "default")
        await create(client, pod("alone", affinity=beside))
        await condition(client, "alone", "didn't match pod affinity rules")


async def test_of_two_with_one_lease_one_works(cluster: Cluster) -> None:
    options: dict[str, Any] = {"leader_elect": True, "leader_elect_resource_name": "one-lease"}
    async with scheduling(cluster, **options) as (client, first):
        async with scheduling(cluster, **options) as (_, second):
            await create(client, node("n1"), pod("p"))
            assert await bound(client, "p") == "n1"

            async def counted() -> bool:
                return 'result="scheduled"} 1' in first.metrics.text()

            await until(counted)  # the watch may be faster than the answer
            assert 'result="scheduled"} 1' not in second.metrics.text()
        with pytest.raises(ApiError):
            await client.get("v1/pods", "p", "default")


async def test_metrics_and_health_are_served(cluster: Cluster) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    async with scheduling(cluster, scheduler_metrics_address=address) as (client, _):
        await create(client, node("n1"), pod("p"), pod("big", requests={"cpu": "64"}))
        await bound(client, "p")
        await condition(client, "big")
        async with Client(f"http://{address}", codec="json") as scraper:
            told = {
                path: await scraper.raw("GET", path) for path in ("/metrics", "/healthz", "/livez", "/readyz", "/x")
            }
            refused = await scraper.raw("POST", "/metrics")
    assert [told[path].status for path in told] == [200, 200, 200, 200, 404]
    assert refused.status == 405
    lines = told["/metrics"].body.decode().splitlines()
    assert 'scheduler_pending_pods{queue="unschedulable"} 1' in lines
    assert 'scheduler_unschedulable_pods{plugin="NodeResourcesFit",profile="default-scheduler"} 1' in lines
    assert 'scheduler_cache_size{type="nodes"} 1' in lines
    assert 'scheduler_schedule_attempts_total{profile="default-scheduler",result="unschedulable"} 1' in lines
    profile = 'profile="default-scheduler"'
    counted = set()
    for point, status in (
        ("PreFilter", "Success"),
        ("Filter", "Unschedulable"),
        ("Score", "Success"),
        ("Bind", "Success"),
    ):
        labels = f'extension_point="{point}",status="{status}",{profile}'
        counted.add(f"scheduler_framework_extension_point_duration_seconds_count{{{labels}}}")
    plugin = 'extension_point="Filter",plugin="NodeResourcesFit",status="Success"'
    counted.add(f"scheduler_plugin_execution_duration_seconds_count{{{plugin}}}")
    counted.add('scheduler_event_handling_duration_seconds_count{event="NodeAdd"}')
    counted.add('scheduler_queue_incoming_pods_total{event="UnscheduledPodAdd",queue="active"}')
    for name, point in (
        ("NodeResourcesFit", "PreFilter"), ("NodeResourcesFit", "Filter"), ("TaintToleration", "Filter"),
    ):  # fmt: skip
        counted.add(f'scheduler_plugin_evaluation_total{{plugin="{name}",extension_point="{point}",{profile}}}')
    counted.add(f'scheduler_batch_attempts_total{{{profile},result="no_hint"}}')
    assert not any('plugin="NodePorts"' in line for line in lines if "plugin_evaluation" in line)
    missing = counted - {line.rpartition(" ")[0] for line in lines}
    assert not missing
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        async with scheduling(cluster, scheduler_metrics_address="nowhere"):
            pass


class Recording(HttpTransport):
    """Notes what is sent and what comes back: (method, Content-Type of the request, of the answer)."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection.endpoint())
        self.seen: set[tuple[str, str, str]] = set()

    async def request(self, head: str, body: bytes, timeout_s: float) -> Response:
        answer = await super().request(head, body, timeout_s)
        self._note(head, answer.headers)
        return answer

    async def stream(self, head: str, timeout_s: float) -> Stream:
        stream = await super().stream(head, timeout_s)
        self._note(head, stream.headers)
        return stream

    def _note(self, head: str, headers: dict[str, str]) -> None:
        sent = next((line for line in head.split("\r\n") if line.startswith("Content-Type: ")), "")
        method = "WATCH" if "watch=true" in head.split("\r\n")[0] else head.split(" ")[0]
        self.seen.add((method, sent.removeprefix("Content-Type: "), headers.get("content-type", "")))


async def test_a_server_can_be_spoken_to_in_protobuf(cluster: Cluster) -> None:
    protobuf = "application/vnd.kubernetes.protobuf"
    async with cluster.client() as plain:
        transport = Recording(plain.connection)
        async with Client(plain.connection, codec="protobuf", transport=transport) as client:
            scheduler = Scheduler(client, RealClock(), SchedulerOptions(leader_elect=True, feature_gates=()))
            await scheduler.start()
            await create(client, node("n1"), pod("p"), pod("big", requests={"cpu": "64"}))
            assert await bound(client, "p") == "n1"
            assert "Insufficient cpu" in (await condition(client, "big"))["message"]
            await scheduler.stop()
            with pytest.raises(ApiError, match='pods "none" not found'):
                await client.get("v1/pods", "none", "default")
            for name in ("p", "big"):
                await client.delete("v1/pods", name, "default", grace_period_s=0)
            await client.delete("v1/nodes", "n1")
    strategic = "application/strategic-merge-patch+json"
    assert transport.seen == {
        ("GET", "", protobuf),
        ("WATCH", "", f"{protobuf};stream=watch"),
        ("POST", protobuf, protobuf),
        ("PUT", protobuf, protobuf),
        ("DELETE", protobuf, protobuf),
        ("DELETE", "", protobuf),
        ("PATCH", strategic, protobuf),
    }


async def test_one_preemptor_makes_room_once(cluster: Cluster) -> None:
    """It is not tried again, from the back-off queue either, while victims of its first attempt are still going."""
    async with scheduling(cluster) as (client, _):
        await create(client, *(node(f"n{each}", allocatable={"cpu": "2"}) for each in range(3)))
        small: Object = {"requests": {"cpu": "500m"}, "terminationGracePeriodSeconds": 0}
        await create(client, *(pod(f"small{each}", **small) for each in range(12)))
        for each in range(12):
            await bound(client, f"small{each}")
        for number in range(3):
            await create(
                client, pod(f"large{number}", requests={"cpu": "1500m"}, priorityClassName="system-cluster-critical")
            )
            await bound(client, f"large{number}")
            left = [each["metadata"]["name"] for each in (await client.list("v1/pods", "default"))["items"]]
            assert len(left) == 12 - 2 * (number + 1)


# ---------------------------------------------------------------- permission to bind


class Quick(Plugin):
    """Lets Pods wait for a short time, and allows them before it is over."""

    name = "Quick"

    def permit(self, cycle: Cycle, node: NodeInfo) -> float:
        asyncio.get_running_loop().call_later(0.05, self.handle.allow_waiting, cycle.pod.uid, self.name)
        return 0.2


class Slow(Plugin):
    """Never allows a Pod whose name says so."""

    name = "Slow"

    def permit(self, cycle: Cycle, node: NodeInfo) -> float:
        return 0.5 if cycle.pod.name.startswith("never") else 0.0


async def test_permission_is_waited_for_as_long_as_each_plugin_says(cluster: Cluster) -> None:
    enabled = {"permit": {"enabled": [{"name": "Quick"}, {"name": "Slow"}]}}
    config = configuration(profiles=[{"plugins": enabled}])
    plugins = {**known_plugins(), "Quick": Quick, "Slow": Slow}
    async with scheduling(cluster, config, plugins=plugins) as (client, _):
        await create(client, node("n1"), pod("soon"), pod("never"))
        assert await bound(client, "soon") == "n1"
        told = await condition(client, "never")
        assert told["message"] == (
            "0/1 nodes are available: 1 rejected due to timeout after waiting 500ms at plugin Slow."
        )


class Once(Plugin):
    """Never allows a Pod at its first attempt; waits for labels of nodes."""

    name = "Once"
    interests = (Interest(NODE, Action.UPDATE_NODE_LABEL),)
    first = True

    def permit(self, cycle: Cycle, node: NodeInfo) -> float:
        patience, self.first = 0.5 if self.first else 0.0, False
        return patience


async def test_what_happens_while_permission_is_waited_for_is_weighed_when_it_is_denied(cluster: Cluster) -> None:
    config = configuration(profiles=[{"plugins": {"permit": {"enabled": [{"name": "Once"}]}}}])
    async with scheduling(cluster, config, plugins={**known_plugins(), "Once": Once}) as (client, scheduler):
        await create(client, node("n1"), pod("p"))
        await until(lambda: waits(scheduler))
        await client.patch("v1/nodes", "n1", {"metadata": {"labels": {"late": "yes"}}}, kind="merge")
        assert await bound(client, "p") == "n1"


async def waits(scheduler: Scheduler) -> bool:
    return bool(scheduler.binder.waiting)


class Preparing(Plugin):
    """Allows Pods soon; before those are bound that are named so there is no end of things to be done."""

    name = "Preparing"

    def permit(self, cycle: Cycle, node: NodeInfo) -> float:
        asyncio.get_running_loop().call_soon(self.handle.allow_waiting, cycle.pod.uid, self.name)
        return 5.0

    async def pre_bind(self, cycle: Cycle, node: NodeInfo) -> None:
        if cycle.pod.name.startswith("endless"):
            await asyncio.Event().wait()


async def test_a_victim_that_is_not_bound_yet_goes_back_into_the_queue(cluster: Cluster) -> None:
    config = configuration(profiles=[{"plugins": {"multiPoint": {"enabled": [{"name": "Preparing"}]}}}])
    async with scheduling(cluster, config, plugins={**known_plugins(), "Preparing": Preparing}) as (client, scheduler):
        await create(client, node("n1"), pod("endless", requests={"cpu": "3"}))
        await until(lambda: is_assumed(scheduler))
        await create(client, pod("urgent", requests={"cpu": "3"}, priorityClassName="system-cluster-critical"))
        told = await condition(client, "endless")
        message = 'running PreBind plugin "Preparing": preempted by DefaultPreemption'
        assert (told["reason"], told["message"]) == ("SchedulerError", message)
        assert await bound(client, "urgent") == "n1"
        left = await client.get("v1/pods", "endless", "default")
        assert not left["spec"].get("nodeName")
        assert not left["metadata"].get("deletionTimestamp")


async def is_assumed(scheduler: Scheduler) -> bool:
    return bool(scheduler.cache.assumed) and not scheduler.binder.waiting
