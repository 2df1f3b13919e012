"""Priority and fairness: seats of levels, borrowing, fair queues, what is refused and how."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from apis import ADMIN, ALICE, BOB, Api, running, until

from fastkube.server.fair_queues import Levels, Shape, TooManyRequests

MAPS = "/api/v1/namespaces/default/configmaps"
EVENTS = "/api/v1/namespaces/default/events"
FLOW = "/apis/flowcontrol.apiserver.k8s.io/v1"

# ---------------------------------------------------------------- levels


def levels(seats: int, **shapes: Shape) -> Levels:
    made = Levels(seats)
    made.configure(shapes)
    return made


def test_seats_are_divided_by_shares():
    made = levels(10, a=Shape(3), b=Shape(7), c=Shape(0))
    assert {level.name: level.nominal for level in made.all()} == {"a": 3, "b": 7, "c": 0}


def test_a_level_borrows_what_others_may_lend_and_do_not_use():
    made = levels(10, a=Shape(5), b=Shape(5, lendable_percent=60))
    a, b = made.get("a"), made.get("b")
    assert a and b
    assert [a.try_take() for _ in range(9)] == [True] * 8 + [False]  # 5 of its own, 3 of b's
    assert [b.try_take() for _ in range(6)] == [True] * 5 + [False]  # b's own seats are there all the same
    a.release()
    assert not a.try_take()  # b uses what it had lent
    limited = levels(10, a=Shape(5, borrowing_percent=20), b=Shape(5, lendable_percent=100)).get("a")
    assert limited and [limited.try_take() for _ in range(7)] == [True] * 6 + [False]


async def test_a_flood_leaves_others_their_turn():
    made = levels(1, a=Shape(1, queues=64, hand_size=4, queue_length=20))
    level = made.get("a")
    assert level and level.try_take()
    served: list[str] = []

    async def one(flow: int, name: str) -> None:
        ticket = await level.take(flow, 5.0)
        served.append(name)
        await asyncio.sleep(0)
        ticket.release()

    elephant = [asyncio.create_task(one(12345, "elephant")) for _ in range(60)]
    await until(lambda: level.waiting == 60)
    mouse = [asyncio.create_task(one(987654321, "mouse")) for _ in range(2)]
    await until(lambda: level.waiting == 62)
    level.release()
    await asyncio.gather(*elephant, *mouse)
    assert max(at for at, name in enumerate(served) if name == "mouse") < 12
    assert (level.executing, level.waiting, made.waiting) == (0, 0, 0)


async def test_a_full_queue_refuses_and_so_does_waiting_too_long():
    made = levels(1, a=Shape(1, queues=1, hand_size=1, queue_length=1), reject=Shape(0))
    level, reject = made.get("a"), made.get("reject")
    assert level and reject and level.try_take()
    waiting = asyncio.create_task(level.take(1, 0.05))
    await until(lambda: level.waiting == 1)
    with pytest.raises(TooManyRequests):
        await level.take(2, 5.0)
    with pytest.raises(TooManyRequests):
        await reject.take(1, 5.0)
    with pytest.raises(TooManyRequests):
        await waiting
    assert level.waiting == made.waiting == 0 and level.refused == 2


async def test_a_request_that_ends_while_it_waits_takes_no_seat():
    made = levels(1, a=Shape(1, queues=1, hand_size=1, queue_length=9))
    level = made.get("a")
    assert level and level.try_take()
    waiting = [asyncio.create_task(level.take(1, 5.0)) for _ in range(2)]
    await until(lambda: level.waiting == 2)
    waiting[0].cancel()
    level.release()
    (await waiting[1]).release()
    assert (level.executing, level.waiting, made.waiting) == (0, 0, 0)


async def test_a_level_that_is_reshaped_serves_who_waits():
    made = levels(2, a=Shape(1, queues=8, hand_size=2, queue_length=9), b=Shape(1))
    level = made.get("a")
    assert level and level.try_take()
    waiting = [asyncio.create_task(level.take(flow, 5.0)) for flow in range(4)]
    await until(lambda: level.waiting == 4)
    made.configure({"b": Shape(1), "a": Shape(1, queues=1, hand_size=1, queue_length=9)})
    assert made.get("a") is level
    level.release()
    for turn in asyncio.as_completed(waiting, timeout=5):
        (await turn).release()
    assert level.waiting == 0


# ---------------------------------------------------------------- over HTTP


def level_of(name: str, **limited: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"type": "Limited", "limited": limited}}


def schema_of(name: str, level: str, user: str) -> dict[str, Any]:
    every = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
    rule = {"subjects": [{"kind": "User", "user": {"name": user}}], "resourceRules": [every]}
    spec = {"matchingPrecedence": 50, "priorityLevelConfiguration": {"name": level}, "rules": [rule]}
    return {"metadata": {"name": name}, "spec": {**spec, "distinguisherMethod": {"type": "ByUser"}}}


async def prepared(api: Api, level: dict[str, Any]) -> tuple[Any, Any]:
    """Alice may do everything, at this level."""
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    binding = {"metadata": {"name": "alice"}, "roleRef": role, "subjects": [{"kind": "User", "name": "alice"}]}
    await api.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
    made = await api.create(f"{FLOW}/prioritylevelconfigurations", level)
    return made, await api.create(f"{FLOW}/flowschemas", schema_of("alice", "tight", "alice"))


@asynccontextmanager
async def stalled(api: Api, token: str, count: int, path: str = MAPS) -> AsyncIterator[list[asyncio.StreamWriter]]:
    """Requests whose bodies do not come hold their seats."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    head += "Content-Length: 2\r\nContent-Type: application/json\r\n\r\n"
    writers = []
    for _ in range(count):
        _, writer = await api.connect()
        writer.write(head.encode())
        writers.append(writer)
    yield writers
    for writer in writers:
        writer.close()


async def test_a_level_without_queues_refuses(tmp_path: Path):
    async with running(tmp_path, max_requests_inflight=10, max_mutating_requests_inflight=10) as api:
        reject = {"nominalConcurrencyShares": 1, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}}
        level, schema = await prepared(api, level_of("tight", **reject))
        async with stalled(api, ALICE, 1):
            await until(lambda: api.server.flow.levels.get("tight").executing == 1)
            refused = await api.request("GET", MAPS, token=ALICE)
            assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
            assert refused.headers["Content-Type"].startswith("text/plain")
            assert refused.body == b"Too many requests, please try again later.\n"
            assert refused.headers["X-Kubernetes-Pf-Flowschema-Uid"] == schema["metadata"]["uid"]
            assert refused.headers["X-Kubernetes-Pf-Prioritylevel-Uid"] == level["metadata"]["uid"]
            assert (await api.request("GET", MAPS, token=BOB)).status == 403  # another level
            assert (await api.request("GET", MAPS, token=ADMIN)).status == 200  # exempt
            metrics = (await api.request("GET", "/metrics")).body.decode()
            assert 'apiserver_flowcontrol_rejected_requests_total{priority_level="tight"} 1' in metrics
        await until(lambda: api.server.flow.levels.get("tight").executing == 0)
        assert (await api.request("GET", MAPS, token=ALICE)).status == 200


async def test_a_level_with_queues_lets_wait(tmp_path: Path):
    async with running(tmp_path, max_requests_inflight=10, max_mutating_requests_inflight=10) as api:
        queuing = {"queues": 2, "handSize": 1, "queueLengthLimit": 3}
        queue = {"type": "Queue", "queuing": queuing}
        shares = {"nominalConcurrencyShares": 1, "borrowingLimitPercent": 0}
        await prepared(api, level_of("tight", **shares, limitResponse=queue))
        level = api.server.flow.levels.get("tight")
        async with stalled(api, ALICE, 1) as writers:
            await until(lambda: level.executing == 1)
            waiting = [asyncio.create_task(api.request("GET", MAPS, token=ALICE)) for _ in range(3)]
            await until(lambda: level.waiting == 3)
            assert (await api.request("GET", MAPS, token=ALICE)).status == 429
            writers[0].write(b"{}")
            answers = await asyncio.wait_for(asyncio.gather(*waiting), 30)
            assert [answer.status for answer in answers] == [200] * 3
        assert (level.executing, level.waiting) == (0, 0)


async def test_a_schema_whose_level_is_missing_dangles(tmp_path: Path):
    async def dangling(api: Api) -> Any:
        schema = await api.get(f"{FLOW}/flowschemas/alice")
        return [(one["status"], one["reason"]) for one in schema["status"].get("conditions") or ()]

    async with running(tmp_path) as api:
        await api.create(f"{FLOW}/flowschemas", schema_of("alice", "tight", "alice"))
        for create, wanted in ((False, [("True", "NotFound")]), (True, [("False", "Found")])):
            if create:
                reject = {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}
                await api.create(f"{FLOW}/prioritylevelconfigurations", level_of("tight", **reject))
            for _ in range(200):
                if await dangling(api) == wanted:
                    break
                await asyncio.sleep(0.02)
            assert await dangling(api) == wanted


async def test_without_priority_and_fairness_reads_and_writes_have_limits(tmp_path: Path):
    options = {"max_requests_inflight": 1, "max_mutating_requests_inflight": 1, "enable_priority_and_fairness": False}
    async with running(tmp_path, **options) as api, stalled(api, "component-token", 1, EVENTS):
        await until(lambda: api.server.flow.levels.get("mutating").executing == 1)
        body = {"metadata": {"name": "a"}}
        assert (await api.request("POST", MAPS, body, token=ALICE)).status == 429
        read = await api.request("GET", MAPS, token=ALICE)
        assert read.status == 403 and "X-Kubernetes-Pf-Flowschema-Uid" not in read.headers
        assert (await api.request("POST", MAPS, body, token=ADMIN)).status == 201  # system:masters


# ---------------------------------------------------------------- dumps

DUMPS = "/debug/api_priority_and_fairness"


async def dumped(api: Api, name: str) -> list[dict[str, str]]:
    text = (await api.request("GET", f"{DUMPS}/{name}")).body.decode()
    header, *rows = ([cell.strip() for cell in line.split(",")] for line in text.splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


async def test_the_state_of_levels_and_queues_is_dumped(api: Api):
    assert (await api.request("GET", MAPS, token=ALICE)).status == 403
    rows = {row["PriorityLevelName"]: row for row in await dumped(api, "dump_priority_levels")}
    level = rows["global-default"]
    assert (level["IsIdle"], level["ExecutingRequests"], level["DispatchedRequests"]) == ("true", "0", "1")
    queues = [row for row in await dumped(api, "dump_queues") if row["PriorityLevelName"] == "global-default"]
    assert [row["Index"] for row in queues] == [str(index) for index in range(128)]
    assert (await api.request("GET", f"{DUMPS}/dump_nothing")).status == 404


async def test_a_request_that_waits_is_dumped(api: Api):
    levels = api.server.flow.levels
    level = levels.get("global-default")
    assert level is not None
    taken = 0
    while level.try_take():
        taken += 1
    waiting = asyncio.create_task(api.request("GET", MAPS, token=ALICE))
    await until(lambda: level.waiting == 1)
    (row,) = await dumped(api, "dump_requests?includeRequestDetails=1")
    about = ("PriorityLevelName", "FlowSchemaName", "FlowDistingsher", "RequestIndexInQueue", "UserName", "Resource")
    assert [row[key] for key in about] == ["global-default", "global-default", "alice", "0", "alice", "configmaps"]
    assert int(row["QueueIndex"]) >= 0 and row["StartTime"] == "0001-01-01T00:00:00Z"
    for _ in range(taken):
        level.release()
    assert (await waiting).status == 403
    assert await dumped(api, "dump_requests") == []
