"""The KV service over gRPC: what etcd's own tests ask of it, in numbers and words."""

from __future__ import annotations

from typing import Any

import pytest
from wire import Client, compare, delete_op, of, put_op, range_op, txn_op

from fastkube.etcd import messages as m

INVALID, OUT_OF_RANGE = "INVALID_ARGUMENT", "OUT_OF_RANGE"


async def test_a_transaction_is_one_revision_and_its_answers_say_which(client: Client) -> None:
    first = (await client.put(b"t1/a", b"1")).header.revision
    answer = await client.txn(
        [compare("value", b"t1/a", "=", b"1")],
        [
            range_op(b"t1/", b"t10"),
            put_op(b"t1/b", b"2", prev_kv=True),
            range_op(b"t1/", b"t10", count_only=True),
            delete_op(b"t1/a", prev_kv=True),
        ],
    )
    assert answer.succeeded and answer.header.revision == first + 1
    read, put, counted, deleted = answer.responses
    assert [item.key for item in read.range.kvs] == [b"t1/a"] and read.range.header.revision == first
    assert put.put.prev_kv is None and put.put.header.revision == first + 1
    assert counted.range.count == 2 and counted.range.header.revision == first + 1
    assert deleted.delete_range.deleted == 1 and deleted.delete_range.prev_kvs[0].value == b"1"
    nothing = await client.txn([], [delete_op(b"t1/none")])
    assert nothing.header.revision == first + 1, "what changes nothing is no revision"


async def test_inner_transactions_decide_on_what_was_there_before_the_outer_one(client: Client) -> None:
    inner = txn_op([compare("create", b"t2/a", "=", 0)], [put_op(b"t2/new")], [put_op(b"t2/old")])
    answer = await client.txn([], [put_op(b"t2/a", b"1"), inner, txn_op([], [inner_read()], [])])
    assert answer.responses[1].txn.succeeded
    assert answer.responses[1].txn.header == m.Header(), "as etcd leaves it"
    assert [item.key for item in answer.responses[2].txn.responses[0].range.kvs] == [b"t2/a", b"t2/new"]
    assert {item.mod_revision for item in (await client.range(b"t2/", b"t20")).kvs} == {answer.header.revision}


def inner_read() -> m.RequestOp:
    op: m.RequestOp = range_op(b"t2/", b"t20")
    return op


async def test_compares_of_every_target_over_keys_and_ranges(client: Client) -> None:
    lease = (await client.grant(60)).id
    await client.put(b"t3/a", b"x", lease=lease)
    await client.put(b"t3/a", b"x", lease=lease)
    item = (await client.range(b"t3/a")).kvs[0]
    await client.put(b"t3/b", b"y", lease=lease)
    found = {"version": 2, "create": item.create_revision, "mod": item.mod_revision, "value": b"x", "lease": lease}
    for target, value in found.items():
        less = value[:-1] if isinstance(value, bytes) else value - 1
        for operator, wanted, holds in (
            ("=", value, True), ("!=", value, False), (">", less, True), ("<", less, False), ("=", less, False),
        ):  # fmt: skip
            answer = await client.txn([compare(target, b"t3/a", operator, wanted)], [])
            assert answer.succeeded is holds, (target, operator)
    assert (await client.txn([compare("lease", b"t3/", "=", lease, b"t30")], [])).succeeded
    assert not (await client.txn([compare("version", b"t3/", "=", 2, b"t30")], [])).succeeded
    assert (await client.txn([compare("create", b"t3/none", "=", 0, b"t3/none0")], [])).succeeded


@pytest.mark.parametrize("more", [[], [range_op(b"t0/other")]], ids=["alone", "with a read"])
async def test_one_write_on_one_condition_answers_as_a_transaction_of_more(client: Client, more: list[Any]) -> None:
    """One put on a condition of its own key takes a shorter way, one beside another operation does not."""
    key = b"t9/%d" % len(more)
    free, read = [compare("create", key, "=", 0)], [range_op(key)]
    lease = (await client.grant(60)).id
    made = await client.txn(free, [put_op(key, b"1", lease=lease), *more], read)
    assert made.succeeded and made.responses[0].put == m.PutResponse(m.Header(revision=made.header.revision))
    for target in ("create", "mod", "version"):
        refused = await client.txn([compare(target, key, "=", 0)], [put_op(key, b"2"), *more], read)
        assert not refused.succeeded and refused.responses[0].range.kvs[0].value == b"1"
        assert refused.header.revision == made.header.revision
    silent = await client.txn(free, [put_op(key, b"2", lease=7), *more])
    assert not silent.succeeded and silent.responses == [], "a lease is not looked for where nothing is put"
    told = await client.refused(client.txn([compare("mod", key + b"x", "=", 0)], [put_op(key + b"x", lease=7), *more]))
    assert told == ("NOT_FOUND", "etcdserver: requested lease not found")
    newer = await client.txn([compare("mod", key, "=", made.header.revision)], [put_op(key, b"3"), *more])
    assert newer.succeeded and newer.header.revision == made.header.revision + 1
    old = await client.txn([compare("mod", key, "=", made.header.revision)], [put_op(key, b"4"), *more], read)
    assert not old.succeeded and old.responses[0].range.kvs[0].value == b"3"
    for target, value in (("version", 2), ("create", made.header.revision), ("mod", -1)):
        other = await client.txn([compare(target, key, "=", value)], [put_op(key, b"5", prev_kv=True), *more])
        assert other.succeeded is (target != "mod")
    item = (await client.range(key)).kvs[0]
    assert (item.value, item.version, item.lease) == (b"5", 4, 0)


async def test_puts_that_keep_the_value_or_the_lease(client: Client) -> None:
    lease = (await client.grant(60)).id
    await client.put(b"t4/a", b"x", lease=lease)
    await client.put(b"t4/a", b"y", ignore_lease=True)
    answer = await client.put(b"t4/a", ignore_value=True, prev_kv=True)
    assert (answer.prev_kv.value, answer.prev_kv.lease) == (b"y", lease)
    item = (await client.range(b"t4/a")).kvs[0]
    assert (item.value, item.lease, item.version) == (b"y", 0, 3)


async def test_ranges_by_revision_limit_and_order(client: Client) -> None:
    revisions = [(await client.put(b"t5/%d" % number, b"%d" % (9 - number))).header.revision for number in range(5)]
    end = b"t50"
    page = await client.range(b"t5/", end, limit=2)
    assert ([item.key for item in page.kvs], page.more, page.count) == ([b"t5/0", b"t5/1"], True, 5)
    old = await client.range(b"t5/", end, revision=revisions[2], limit=2)
    assert (len(old.kvs), old.more, old.count, old.header.revision >= revisions[4]) == (2, True, 3, True)
    newer = await client.range(b"t5/", end, min_mod_revision=revisions[1], max_mod_revision=revisions[3])
    assert ([item.key for item in newer.kvs], newer.count) == ([b"t5/1", b"t5/2", b"t5/3"], 5)
    created = await client.range(b"t5/", end, max_create_revision=revisions[1], sort_order=m.DESCEND, limit=1)
    assert ([item.key for item in created.kvs], created.more) == ([b"t5/1"], True)
    by_value = await client.range(b"t5/", end, sort_target=m.BY_VALUE, sort_order=m.ASCEND, keys_only=True)
    assert [(item.key, item.value) for item in by_value.kvs] == [(b"t5/%d" % number, b"") for number in (4, 3, 2, 1, 0)]


async def test_what_is_refused_and_how(client: Client) -> None:
    revision = (await client.put(b"t6/a")).header.revision
    many = [put_op(b"t6/%d" % number) for number in range(129)]
    nested = [txn_op([], many[:100], [])] + [range_op(b"a")] * 40
    future = (OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision")
    empty, duplicate = "etcdserver: key is not provided", "etcdserver: duplicate key given in txn request"
    too_many = (INVALID, "etcdserver: too many operations in txn request")
    large = b"v" * (1536 * 1024)
    for call, told in (
        (client.put(b""), (INVALID, empty)),
        (client.range(b""), (INVALID, empty)),
        (client.delete(b""), (INVALID, empty)),
        (client.txn([compare("mod", b"", "=", 0)], []), (INVALID, empty)),
        (client.txn([], [put_op(b"")]), (INVALID, empty)),
        (client.txn([], [of(m.REQUEST_OP)]), (INVALID, "etcdserver: key not found")),
        (client.put(b"t6/b", b"x", ignore_value=True), (INVALID, "etcdserver: value is provided")),
        (client.put(b"t6/b", lease=5, ignore_lease=True), (INVALID, "etcdserver: lease is provided")),
        (client.put(b"t6/b", ignore_value=True), (INVALID, "etcdserver: key not found")),
        (client.put(b"t6/b", lease=5), ("NOT_FOUND", "etcdserver: requested lease not found")),
        (client.range(b"t6/a", revision=1 << 40), future),
        (client.txn([], [put_op(b"t6/b"), range_op(b"t6/a", revision=1 << 40)]), future),
        (client.compact(1 << 40), future),
        (client.range(b"t6/a", sort_order=7), (INVALID, "etcdserver: invalid sort option")),
        (client.txn([], many), too_many),
        (client.txn([], nested), too_many),
        (client.txn([], [put_op(b"t6/b"), put_op(b"t6/b")]), (INVALID, duplicate)),
        (client.txn([], [put_op(b"t6/b"), delete_op(b"t6/", b"t60")]), (INVALID, duplicate)),
        (client.txn([], [put_op(b"t6/b"), txn_op([], [], [put_op(b"t6/b")])]), (INVALID, duplicate)),
        (client.put(b"t6/b", large), (INVALID, "etcdserver: request is too large")),
        (client.put(b"k" * 498), (INVALID, "fastkube: key of 498 bytes is too long (at most 497)")),
        (client.grant(9_000_000_001), (OUT_OF_RANGE, "etcdserver: too large lease TTL")),
    ):
        assert await client.refused(call) == told
    assert (await client.range(b"t6/a")).header.revision == revision, "nothing was done"
    code, _ = await client.refused(client.put(b"t6/b", large * 2))
    assert code == "RESOURCE_EXHAUSTED"
    again = await client.txn([], [txn_op([], [put_op(b"t6/b")], [put_op(b"t6/b")])])
    assert again.succeeded, "the branches of an inner transaction do not meet"


@pytest.mark.parametrize("key", [b"\x00", b"\x01\x00\xff", b"\xff" * 497, b"a\x00b", b"\x00" * 400], ids=repr)
async def test_any_bytes_are_a_key(client: Client, key: bytes) -> None:
    await client.put(key, key)
    assert [(item.key, item.value) for item in (await client.range(key)).kvs] == [(key, key)]
    assert key in [item.key for item in (await client.range(b"\x00", b"\x00")).kvs]
    assert (await client.delete(key)).deleted == 1


@pytest.mark.parametrize("length", [497, 498, 499, 2000])
async def test_longer_keys_have_their_place_in_a_range(client: Client, length: int) -> None:
    for key in (b"kk", b"k" * 497, b"l"):
        await client.put(key)
    long = b"k" * length
    found = [item.key for item in (await client.range(long, b"l0")).kvs]
    assert found == ([b"k" * 497] if length == 497 else []) + [b"l"]
    assert [item.key for item in (await client.range(b"kk", long)).kvs] == ([b"kk"] + [b"k" * 497] * (length > 497))
    assert len((await client.range(long)).kvs) == (length == 497)
    await client.delete(b"k", b"m")


async def test_large_answers_pass_the_windows(client: Client) -> None:
    value = bytes(range(256)) * 4000
    for number in range(6):
        await client.put(b"t7/%d" % number, value)
    answer = await client.range(b"t7/", b"t70")
    assert [item.value for item in answer.kvs] == [value] * 6


async def test_compaction_takes_the_past_away(client: Client) -> None:
    first = (await client.put(b"t8", b"1")).header.revision
    await client.put(b"t8", b"2")
    assert (await client.range(b"t8", revision=first)).kvs[0].value == b"1"
    before = await client.call("/etcdserverpb.Maintenance/HashKV", m.HASH_KV_REQUEST, m.HASH_KV_RESPONSE)
    await client.compact(first + 1)
    compacted = (OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
    assert await client.refused(client.range(b"t8", revision=first)) == compacted
    assert await client.refused(client.compact(first + 1)) == compacted
    after = await client.call("/etcdserverpb.Maintenance/HashKV", m.HASH_KV_REQUEST, m.HASH_KV_RESPONSE)
    assert (after.compact_revision, after.header.revision) == (first + 1, before.header.revision)


async def test_methods_that_are_not_there(client: Client) -> None:
    for path, told in (
        ("/etcdserverpb.KV/Nothing", "unknown method Nothing for service etcdserverpb.KV"),
        ("/some.Service/Nothing", "unknown service some.Service"),
        ("/etcdserverpb.Auth/AuthEnable", "fastkube: Auth (AuthEnable) is not supported"),
    ):
        assert await client.refused(client.call(path, m.EMPTY, m.EMPTY)) == ("UNIMPLEMENTED", told)
