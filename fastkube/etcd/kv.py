"""The KV service: etcd's requests as operations of the store, and its results as etcd's answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fastkube.etcd import messages, refusals, swaps
from fastkube.etcd.keys import bounds, shown, shown_all, stored
from fastkube.etcd.messages import (
    BY_CREATE,
    BY_KEY,
    BY_MOD,
    BY_VALUE,
    BY_VERSION,
    COMPARE_OPERATORS,
    COMPARE_TARGETS,
    DESCEND,
    UNSORTED,
    DeleteRangeRequest,
    DeleteRangeResponse,
    Header,
    HeaderOnly,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)
from fastkube.etcd.node import Answer, Later, Node
from fastkube.etcd.swaps import as_write
from fastkube.store import (
    KEEP,
    Compacted,
    Compare,
    Delete,
    DeleteResponse,
    Item,
    Put,
    Range,
    RangeResult,
    Txn,
    TxnResult,
    Write,
    grpc,
)
from fastkube.store import PutResponse as PutResult
from fastkube.store.ops import Op, Response, only_reads

_SORT_KEYS: dict[int, Callable[[Item], bytes | int]] = {
    BY_VERSION: lambda item: item.version,
    BY_CREATE: lambda item: item.create_revision,
    BY_MOD: lambda item: item.mod_revision,
    BY_VALUE: lambda item: item.value,
}
_COMPARED = (
    lambda compare: compare.version,
    lambda compare: compare.create_revision,
    lambda compare: compare.mod_revision,
    lambda compare: compare.value,
    lambda compare: compare.lease,
)


class KV:
    """Whatever is not a number from the store's own is checked here, in etcd's order and words."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._store = node.store

    def range(self, request: RangeRequest) -> Answer:
        _check_range(request)
        if not request.serializable and (barrier := self._store.read_barrier()) is not None:
            return self._node.current(barrier, lambda: self._range(request))
        return self._range(request)

    def _range(self, request: RangeRequest) -> RangeResponse:
        op = _range_op(request)
        if op.end is None and not op.revision and not _selects(request):
            item = self._store.get(op.key)
            header = self._node.header()
            if item is None:
                return RangeResponse(header, [], False, 0)
            kvs = [] if request.count_only else [_without_value(item) if request.keys_only else shown(item)]
            return RangeResponse(header, kvs, False, 1)
        found = self._store.range(
            op.key,
            op.key + b"\x00" if op.end is None else op.end,
            revision=op.revision,
            limit=op.limit,
            reverse=op.reverse,
            keys_only=op.keys_only,
            count_only=op.count_only,
        )
        return _range_response(request, found, self._node.header(found.revision))

    def put(self, request: PutRequest) -> Answer:
        _check_put(request)
        node = self._node
        if request.prev_kv or request.ignore_value or request.ignore_lease:
            with_prev = request.prev_kv

            def finish(result: TxnResult) -> PutResponse:
                answer = result.responses[0]
                assert isinstance(answer, PutResult)
                return _put_response(answer, with_prev, node.header(result.revision))

            return Later(self._store.txn((), (_put_op(request),)), finish)
        future = self._store.put(stored(request.key), request.value, request.lease)
        return Later(future, lambda revision: PutResponse(node.header(revision)))

    def delete_range(self, request: DeleteRangeRequest) -> Answer:
        _check_delete(request)
        node = self._node

        def finish(result: TxnResult) -> DeleteRangeResponse:
            answer = result.responses[0]
            assert isinstance(answer, DeleteResponse)
            return _delete_response(answer, request.prev_kv, node.header(result.revision))

        return Later(self._store.txn((), (_delete_op(request),)), finish)

    def txn(self, request: TxnRequest) -> Answer:
        _check_txn(request, self._node.max_txn_ops)
        if (write := as_write(request)) is not None:
            return self._swap(request, write)
        txn = _txn_op(request)
        reads = only_reads(txn.success + txn.failure)
        if reads and not _is_serializable(request) and (barrier := self._store.read_barrier()) is not None:
            return self._node.current(barrier, lambda: self._txn(request, txn))
        return self._txn(request, txn)

    def _swap(self, request: TxnRequest, write: Write) -> Later:
        key, value, expected, lease = write
        assert value is not None
        store, node = self._store, self._node
        future = store.update(key, value, expected, lease) if expected else store.create(key, value, lease)
        return Later(future, partial(swaps.done, node), lambda: self._txn(request, _txn_op(request)))

    def _txn(self, request: TxnRequest, txn: Txn) -> Later:
        node = self._node

        def finish(result: TxnResult) -> TxnResponse:
            return _txn_response(request, result, node.header(result.revision))

        return Later(self._store.txn(*txn), finish)

    async def compact(self, request: messages.CompactionRequest) -> HeaderOnly:
        if request.revision <= 0:  # before all that there ever was
            raise Compacted(self._store.compacted)
        await self._store.compact(request.revision, physical=request.physical)
        return HeaderOnly(self._node.header())


# ---------------------------------------------------------------- what is asked


def _check_range(request: RangeRequest) -> None:
    if not request.key:
        raise refusals.empty_key()
    if not 0 <= request.sort_order <= DESCEND or not 0 <= request.sort_target <= BY_VALUE:
        raise refusals.bad_sort_option()


def _check_put(request: PutRequest) -> None:
    if not request.key:
        raise refusals.empty_key()
    if request.ignore_value and request.value:
        raise refusals.value_provided()
    if request.ignore_lease and request.lease:
        raise refusals.lease_provided()
    if request.lease < 0:
        raise refusals.lease_not_found()


def _check_delete(request: DeleteRangeRequest) -> None:
    if not request.key:
        raise refusals.empty_key()


def _check_txn(request: TxnRequest, max_ops: int) -> None:
    most = max(len(request.compare), len(request.success), len(request.failure))
    if most > max_ops:
        raise refusals.too_many_operations()
    if not all(compare.key for compare in request.compare):
        raise refusals.empty_key()
    for op in (*request.success, *request.failure):
        if op.range is not None:
            _check_range(op.range)
        elif op.put is not None:
            _check_put(op.put)
        elif op.delete_range is not None:
            _check_delete(op.delete_range)
        elif op.txn is not None:
            _check_txn(op.txn, max_ops - most)
        else:
            raise refusals.key_not_found()  # etcd's words for an operation that is none


def _is_serializable(request: TxnRequest) -> bool:
    return all(
        op.range.serializable if op.range is not None else op.txn is not None and _is_serializable(op.txn)
        for op in (*request.success, *request.failure)
    )


def _selects(request: RangeRequest) -> bool:
    """Whether some keys of the range are left out for their revisions."""
    return bool(
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def _range_op(request: RangeRequest) -> Range:
    start, end = bounds(request.key, request.range_end)
    whole = _selects(request) or (request.sort_order != UNSORTED and request.sort_target != BY_KEY)
    limit = 0 if whole or request.limit <= 0 else request.limit
    if limit and request.sort_order == UNSORTED and request.sort_target != BY_KEY:
        limit += 1  # as etcd has it: one more is read, then the few are sorted, and one is dropped
    return Range(
        start,
        end,
        max(request.revision, 0),
        limit,
        reverse=request.sort_order == DESCEND and request.sort_target == BY_KEY,
        keys_only=request.keys_only and request.sort_target != BY_VALUE,
        count_only=request.count_only,
    )


def _put_op(request: PutRequest) -> Put:
    value = None if request.ignore_value else request.value
    return Put(stored(request.key), value, KEEP if request.ignore_lease else request.lease)


def _delete_op(request: DeleteRangeRequest) -> Delete:
    return Delete(*bounds(request.key, request.range_end))


def _txn_op(request: TxnRequest) -> Txn:
    return Txn(
        tuple(map(_compare, request.compare)),
        tuple(map(_op, request.success)),
        tuple(map(_op, request.failure)),
    )


def _op(request: RequestOp) -> Op:
    if request.range is not None:
        return _range_op(request.range)
    if request.put is not None:
        return _put_op(request.put)
    if request.delete_range is not None:
        return _delete_op(request.delete_range)
    assert request.txn is not None
    return _txn_op(request.txn)


def _compare(compare: messages.Compare) -> Compare:
    if not 0 <= compare.target < len(COMPARE_TARGETS) or not 0 <= compare.result < len(COMPARE_OPERATORS):
        raise refusals.Refusal(grpc.INVALID_ARGUMENT, "fastkube: a comparison has no such target or result")
    start, end = bounds(compare.key, compare.range_end)
    value = _COMPARED[compare.target](compare)
    return Compare(start, COMPARE_TARGETS[compare.target], COMPARE_OPERATORS[compare.result], value, end)


# ---------------------------------------------------------------- what is answered


def _without_value(item: Item) -> Item:
    return item._replace(key=item.key[1:], value=b"")


def _range_response(request: RangeRequest, found: RangeResult, header: Header) -> RangeResponse:
    items, more = found.items, found.more
    if _selects(request):
        items = [item for item in items if _is_selected(request, item)]
    if request.sort_target != BY_KEY:
        items = sorted(items, key=_SORT_KEYS[request.sort_target], reverse=request.sort_order == DESCEND)
    if 0 < request.limit < len(items):
        items, more = items[: request.limit], True
    kvs = [_without_value(item) for item in items] if request.keys_only else shown_all(items)
    return RangeResponse(header, kvs, more, found.count)


def _is_selected(request: RangeRequest, item: Item) -> bool:
    return (
        item.mod_revision >= request.min_mod_revision
        and (not request.max_mod_revision or item.mod_revision <= request.max_mod_revision)
        and item.create_revision >= request.min_create_revision
        and (not request.max_create_revision or item.create_revision <= request.max_create_revision)
    )


def _put_response(result: PutResult, with_prev: bool, header: Header) -> PutResponse:
    return PutResponse(header, shown(result.prev) if with_prev and result.prev is not None else None)


def _delete_response(result: DeleteResponse, with_prev: bool, header: Header) -> DeleteRangeResponse:
    return DeleteRangeResponse(header, len(result.deleted), shown_all(result.deleted) if with_prev else [])


def _txn_response(request: TxnRequest, result: TxnResult, header: Header) -> TxnResponse:
    branch = request.success if result.succeeded else request.failure
    return TxnResponse(header, result.succeeded, list(map(_response_op, branch, result.responses)))


def _response_op(request: RequestOp, result: Response) -> ResponseOp:
    """An inner answer's header has nothing but the revision, that of an inner transaction nothing at all."""
    header = Header(revision=result.revision)
    if request.range is not None:
        assert isinstance(result, RangeResult)
        return ResponseOp(range=_range_response(request.range, result, header))
    if request.put is not None:
        assert isinstance(result, PutResult)
        return ResponseOp(put=_put_response(result, request.put.prev_kv, header))
    if request.delete_range is not None:
        assert isinstance(result, DeleteResponse)
        return ResponseOp(delete_range=_delete_response(result, request.delete_range.prev_kv, header))
    assert request.txn is not None and isinstance(result, TxnResult)
    return ResponseOp(txn=_txn_response(request.txn, result, Header()))
