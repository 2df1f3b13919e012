"""The store's commands as calls of etcd, and etcd's answers as the store's results.

Write            Txn: its condition → the write, else what is there      revision, Deleted or a refusal with the item
Txn              Txn
GrantLease, RevokeLease
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastkube.store.command import GrantLease, Result, RevokeLease
from fastkube.store.errors import (
    InvalidRequest,
    KeyExists,
    KeyMissing,
    LeaseExists,
    LeaseNotFound,
    RevisionMismatch,
    StoreError,
)
from fastkube.store.external import messages as etcd
from fastkube.store.external.messages import Body, Method
from fastkube.store.external.translation import Translation, range_end
from fastkube.store.ops import (
    ABSENT,
    ANY,
    KEEP,
    Compare,
    Delete,
    DeleteResponse,
    Op,
    Put,
    PutResponse,
    RangeResult,
    Response,
    Txn,
    TxnResult,
    Write,
)
from fastkube.store.records import Deleted, Item

_TARGETS = {
    "create": (etcd.CREATE, "create_revision"),
    "mod": (etcd.MOD, "mod_revision"),
    "version": (etcd.VERSION, "version"),
    "lease": (etcd.LEASE, "lease"),
    "value": (etcd.VALUE, "value"),
}
_RESULTS = {"=": etcd.EQUAL, "!=": etcd.NOT_EQUAL, "<": etcd.LESS, ">": etcd.GREATER}

Outcome = tuple[Result, int]
"""A result, and the revision from which on reads agree with it."""


class Asking:
    """Stateless but for the translation."""

    def __init__(self, translation: Translation) -> None:
        self._translation = translation

    def request(self, command: Write | Txn | GrantLease | RevokeLease) -> tuple[Method, Body]:
        """Raises InvalidRequest for what etcd cannot be asked."""
        if isinstance(command, Write):
            return etcd.TXN, self._write(command)
        if isinstance(command, Txn):
            return etcd.TXN, {
                "compare": [self._compare(each) for each in command.compares],
                "success": [self._op(each) for each in command.success],
                "failure": [self._op(each) for each in command.failure],
            }
        if isinstance(command, GrantLease):
            return etcd.LEASE_GRANT, {"TTL": command.ttl_s, "ID": command.lease}
        return etcd.LEASE_REVOKE, {"ID": command.lease}

    def outcome(self, command: Write | Txn | GrantLease | RevokeLease, answer: Body) -> Outcome:
        """A refusal is a result. Raises Untranslatable."""
        revision: int = answer["header"]["revision"]
        if isinstance(command, Write):
            return self._written(command, answer, revision)
        if isinstance(command, Txn):
            ops = command.success if answer.get("succeeded") else command.failure
            told = answer.get("responses", ())
            responses = [self._response(op, each, revision) for op, each in zip(ops, told, strict=True)]
            return TxnResult(bool(answer.get("succeeded")), revision, responses), revision
        return revision, revision

    def refusal(self, command: object, problem: StoreError) -> StoreError:
        """With the lease that was asked for, which etcd does not name."""
        lease = getattr(command, "lease", 0)
        if isinstance(problem, LeaseNotFound):
            return LeaseNotFound(lease)
        return LeaseExists(lease) if isinstance(problem, LeaseExists) else problem

    # ---------------------------------------------------------------- one write

    def _write(self, write: Write) -> Body:
        key = self._translation.key(write.key)
        if write.value is None:
            doing: Body = {"request_delete_range": {"key": key, "prev_kv": True}}
        else:
            put: Body = {"key": key, "value": self._translation.value(write.key, write.value)}
            if write.lease:
                put["lease"] = write.lease
            doing = {"request_put": put}
        if write.expected == ANY:
            return {"success": [doing]}
        compare: Body = {"target": etcd.MOD, "key": key, "mod_revision": write.expected}
        return {"compare": [compare], "success": [doing], "failure": [{"request_range": {"key": key}}]}

    def _written(self, write: Write, answer: Body, revision: int) -> Outcome:
        (told,) = answer["responses"]
        if not answer.get("succeeded"):
            kvs = told.get("response_range", {}).get("kvs")
            return self._refused(write, self._item(kvs[0]) if kvs else None, revision)
        if write.value is not None:
            return revision, revision
        prev = told.get("response_delete_range", {}).get("prev_kvs")
        if not prev:
            return KeyMissing(write.key), revision
        return Deleted(*self._item(prev[0]), revision), revision

    def _refused(self, write: Write, found: Item | None, revision: int) -> Outcome:
        if write.expected == ABSENT and found is not None:
            return KeyExists(found), found.mod_revision
        if write.value is None and found is None:
            return KeyMissing(write.key), revision
        return RevisionMismatch(write.key, found), found.mod_revision if found is not None else revision

    # ---------------------------------------------------------------- transactions

    def _compare(self, compare: Compare) -> Body:
        target, field = _TARGETS[compare.target]
        value = compare.value
        if compare.target == "value":
            raise InvalidRequest(f"key {compare.key!r}: values lie in etcd in another form, and cannot be compared")
        body: Body = {"result": _RESULTS[compare.op], "target": target, "key": self._translation.key(compare.key)}
        body[field] = value
        end = self._end(compare.key, compare.end)
        return body if end is None else {**body, "range_end": end}

    def _op(self, op: Op) -> Body:
        if isinstance(op, Txn):
            raise InvalidRequest("an inner transaction is not sent to an external etcd")
        key = self._translation.key(op.key)
        if isinstance(op, Put):
            if op.value is None or op.lease == KEEP:
                raise InvalidRequest(f"key {op.key!r}: a put to an external etcd has its value and its lease")
            value = self._translation.value(op.key, op.value)
            return {"request_put": {"key": key, "value": value, "lease": op.lease, "prev_kv": True}}
        end = self._end(op.key, op.end)
        span: Body = {"key": key} if end is None else {"key": key, "range_end": end}
        if isinstance(op, Delete):
            return {"request_delete_range": {**span, "prev_kv": True}}
        order = {"sort_order": 2} if op.reverse else {}
        flags = {"keys_only": op.keys_only, "count_only": op.count_only}
        return {"request_range": {**span, **order, **flags, "limit": op.limit, "revision": op.revision}}

    def _end(self, start: bytes, end: bytes | None) -> bytes | None:
        try:
            return range_end(self._translation, start, end)
        except ValueError as problem:
            raise InvalidRequest(str(problem)) from None

    def _response(self, op: Op, told: Body, revision: int) -> Response:
        read: Callable[[Any], list[Item]] = lambda kvs: [self._item(each) for each in kvs or ()]  # noqa: E731
        if isinstance(op, Put):
            prev = told.get("response_put", {}).get("prev_kv")
            return PutResponse(None if prev is None else self._item(prev), revision)
        if isinstance(op, Delete):
            return DeleteResponse(read(told.get("response_delete_range", {}).get("prev_kvs")), revision)
        found = told.get("response_range", {})
        return RangeResult(read(found.get("kvs")), bool(found.get("more")), found.get("count", 0), revision)

    def _item(self, kv: Body) -> Item:
        """Keys that are not told to us cannot have been asked for."""
        key = self._translation.key_back(kv["key"])
        assert key is not None
        packed = kv.get("value", b"")
        value = self._translation.value_back(key, packed) if packed else b""
        return Item(key, value, kv["create_revision"], kv["mod_revision"], kv["version"], kv.get("lease", 0))
