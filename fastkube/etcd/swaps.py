"""Transactions that are one write on one condition, of the same key: what kube-apiserver, locks and elections ask for.

The store has a command for these, at two thirds of a transaction's cost. One that is refused has changed nothing, and
is decided anew as the transaction that it is: so the answer, and the revision in it, are those of one moment.
"""

from __future__ import annotations

from collections.abc import Callable

from fastkube.etcd.keys import stored
from fastkube.etcd.messages import (
    COMPARE_OPERATORS,
    COMPARE_TARGETS,
    Compare,
    Header,
    PutResponse,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)
from fastkube.etcd.node import Node
from fastkube.store import ABSENT, Write

_EQUAL = COMPARE_OPERATORS.index("=")
_MOD = COMPARE_TARGETS.index("mod")
_NUMBERS: dict[int, Callable[[Compare], int]] = {  # zero for a key that is not there
    COMPARE_TARGETS.index("version"): lambda compare: compare.version,
    COMPARE_TARGETS.index("create"): lambda compare: compare.create_revision,
    _MOD: lambda compare: compare.mod_revision,
}


def as_write(request: TxnRequest) -> Write | None:
    """The write that the (checked) transaction is, if it is one. Raises Refusal for a key that is too long."""
    compares, success, failure = request
    if len(compares) != 1 or len(success) != 1 or len(failure) > 1 or (failure and failure[0].range is None):
        return None
    compare, put = compares[0], success[0].put
    if put is None or put.key != compare.key or put.prev_kv or put.ignore_value or put.ignore_lease:
        return None
    expected = _expected(compare)
    return None if expected is None else Write(stored(put.key), put.value, expected, put.lease)


def _expected(compare: Compare) -> int | None:
    """As a write's condition; None where it has none like it."""
    if compare.result != _EQUAL or compare.range_end:
        return None
    if compare.target == _MOD and compare.mod_revision > 0:
        return compare.mod_revision
    number = _NUMBERS.get(compare.target)
    return ABSENT if number is not None and number(compare) == 0 else None


def done(node: Node, revision: int) -> TxnResponse:
    """The answer to one that was done."""
    put = ResponseOp(put=PutResponse(Header(revision=revision)))
    return TxnResponse(node.header(revision), True, [put])
