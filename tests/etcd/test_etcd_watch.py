"""The Watch service over gRPC."""

from __future__ import annotations

import asyncio

import grpc
from wire import Client, put_op

from fastkube.etcd import messages as m
from fastkube.store import DELETE, PUT


async def test_many_watches_on_a_stream_each_with_its_own_wishes(client: Client) -> None:
    stream = client.watch()
    created = [
        await stream.create(b"w1/", b"w10"),
        await stream.create(b"w1/", b"w10", filters=[m.NO_PUT], prev_kv=True),
        await stream.create(b"w1/a", filters=[m.NO_DELETE], watch_id=9),
    ]
    assert [(each.watch_id, each.created, each.canceled) for each in created] == [
        (0, True, False), (1, True, False), (9, True, False),
    ]  # fmt: skip
    await client.put(b"w1/a", b"1")
    revision = (await client.delete(b"w1/", b"w10")).header.revision
    told: dict[int, list[m.WireEvent]] = {0: [], 1: [], 9: []}
    while sum(map(len, told.values())) < 4:
        answer = await stream.read()
        told[answer.watch_id] += answer.events
        assert answer.header.revision == answer.events[-1][1].mod_revision
    assert [(kind, item.key, item.value) for kind, item, _ in told[0]] == [(PUT, b"w1/a", b"1"), (DELETE, b"w1/a", b"")]
    assert [(kind, prev.value) for kind, _, prev in told[1]] == [(DELETE, b"1")]
    assert [(kind, prev) for kind, _, prev in told[9]] == [(PUT, None)]
    assert told[0][1][1].mod_revision == revision and told[0][1][1].create_revision == 0


async def test_the_past_comes_first_and_then_the_present(client: Client) -> None:
    first = (await client.put(b"w2/a")).header.revision
    await client.txn([], [put_op(b"w2/b"), put_op(b"w2/c")])
    stream = client.watch()
    await stream.create(b"w2/a", start_revision=first + 50)
    await stream.create(b"w2/", b"w20", start_revision=first)
    await client.put(b"w2/d")
    assert [key for _, key in await stream.keys(4)] == [b"w2/a", b"w2/b", b"w2/c", b"w2/d"]


async def test_watches_end_on_demand_and_not_before(client: Client) -> None:
    stream = client.watch()
    await stream.create(b"w3")
    ended = await stream.cancel(0)
    assert (ended.watch_id, ended.canceled, ended.created) == (0, True, False)
    await client.put(b"w3")
    again = await stream.create(b"w3")
    assert (again.watch_id, again.created) == (1, True)


async def test_watches_that_cannot_be(client: Client) -> None:
    stream = client.watch()
    await stream.create(b"w4", watch_id=5)
    told = [await stream.create(b"w4", watch_id=5)]
    told += [await stream.create(b"w4", end) for end in (b"w4", b"w3")]
    empty = "mvcc: watcher range is empty"
    assert [(each.watch_id, each.created, each.canceled, each.cancel_reason) for each in told] == [
        (-1, True, True, "mvcc: duplicate watch ID provided on the WatchStream"),
        (-1, True, True, empty),
        (-1, True, True, empty),
    ]


async def test_a_compacted_watch_is_told_from_where_it_may_begin(client: Client) -> None:
    first = (await client.put(b"w5")).header.revision
    last = (await client.put(b"w5")).header.revision
    await client.compact(last)
    stream = client.watch()
    assert (await stream.create(b"w5", start_revision=first)).created
    answer = await stream.read()
    assert (answer.canceled, answer.compact_revision, answer.header.revision) == (True, last, 0)


async def test_progress_on_demand_and_by_the_clock(client: Client) -> None:
    stream = client.watch()
    await stream.create(b"w6", start_revision=1 if (await client.status()).header.revision < 2 else 0)
    await stream.ask_progress()
    answer = await stream.read()
    assert (answer.watch_id, answer.events) == (-1, [])
    assert answer.header.revision == (await client.status()).header.revision
    await stream.create(b"w6", progress_notify=True)
    answer = await stream.read()
    assert (answer.watch_id, answer.events) == (1, [])


async def test_a_large_answer_comes_in_fragments(client: Client) -> None:
    value = b"v" * 500_000
    stream = client.watch()
    first = (await client.put(b"w7/0", value)).header.revision
    for number in range(1, 8):
        await client.put(b"w7/%d" % number, value)
    await stream.create(b"w7/", b"w70", start_revision=first, fragment=True)
    answers = [await stream.read()]
    while answers[-1].fragment:
        answers.append(await stream.read())
    assert [len(each.events) for each in answers] == [3, 3, 2]
    assert [item.key for each in answers for _, item, _ in each.events] == [b"w7/%d" % number for number in range(8)]


async def test_a_watch_that_does_not_read_misses_nothing(client: Client) -> None:
    stream = client.watch()
    await stream.create(b"w8/", b"w80")
    value = b"v" * 200_000
    for number in range(60):  # more than windows and buffers hold
        await client.put(b"w8/%02d" % number, value)
    assert [key for _, key in await stream.keys(60)] == [b"w8/%02d" % number for number in range(60)]


async def test_a_stream_that_the_client_ends_is_ended(client: Client) -> None:
    create = m.WatchCreateRequest(b"w9", b"", 0, False, [], False, 0, False)
    request = m.WatchRequest(create=create)
    answers = client.stream("/etcdserverpb.Watch/Watch", m.WATCH_REQUEST, m.WATCH_RESPONSE, request)
    assert [answer.created async for answer in answers] == [True]


async def test_what_is_no_request_ends_the_stream_and_not_the_connection(client: Client) -> None:
    call = client.channel.stream_stream("/etcdserverpb.Watch/Watch")()
    await call.write(b"\xff")
    try:
        await call.read()
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.INTERNAL
    assert await client.refused(client.channel.unary_unary("/etcdserverpb.KV/Put")(b"\x0a\x05a")) == (
        "INTERNAL",
        "grpc: error unmarshalling request: unexpected EOF",
    )
    await client.put(b"w10")


async def test_many_streams_see_the_same_in_the_same_order(client: Client) -> None:
    streams = [client.watch() for _ in range(20)]
    for stream in streams:
        await stream.create(b"wa/", b"wa0")
    await asyncio.gather(*(client.put(b"wa/%02d" % number) for number in range(50)))
    seen = await asyncio.gather(*(stream.keys(50) for stream in streams))
    assert all(each == seen[0] for each in seen)
    assert sorted(key for _, key in seen[0]) == [b"wa/%02d" % number for number in range(50)]
