"""A client of etcd's API on another implementation of gRPC: requests and answers are the endpoint's own tuples."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from fastkube._messages import Shape
from fastkube.etcd import messages as m

WAIT_S = 20.0


def of(shape: Shape, **fields: Any) -> Any:
    """A message with these fields; all others as on the wire when they are not there."""
    return shape.decode(b"")._replace(**fields)


class Client:
    def __init__(self, url: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        address = url.partition("//")[2]
        options = [("grpc.max_receive_message_length", -1)]
        if credentials is None:
            self.channel = grpc.aio.insecure_channel(address, options=options)
        else:
            self.channel = grpc.aio.secure_channel(address, credentials, options=options)

    async def call(self, path: str, request: Shape, response: Shape, **fields: Any) -> Any:
        method = self.channel.unary_unary(path, request.encode, response.decode)
        return await method(of(request, **fields), timeout=WAIT_S)

    async def put(self, key: bytes, value: bytes = b"", **more: Any) -> Any:
        return await self.call("/etcdserverpb.KV/Put", m.PUT_REQUEST, m.PUT_RESPONSE, key=key, value=value, **more)

    async def range(self, key: bytes, end: bytes = b"", **more: Any) -> Any:
        words = {"key": key, "range_end": end, **more}
        return await self.call("/etcdserverpb.KV/Range", m.RANGE_REQUEST, m.RANGE_RESPONSE, **words)

    async def delete(self, key: bytes, end: bytes = b"", **more: Any) -> Any:
        words = {"key": key, "range_end": end, **more}
        return await self.call("/etcdserverpb.KV/DeleteRange", m.DELETE_RANGE_REQUEST, m.DELETE_RANGE_RESPONSE, **words)

    async def txn(self, compare: list[Any], success: list[Any], failure: list[Any] | None = None) -> Any:
        words = {"compare": compare, "success": success, "failure": failure or []}
        return await self.call("/etcdserverpb.KV/Txn", m.TXN_REQUEST, m.TXN_RESPONSE, **words)

    async def compact(self, revision: int) -> Any:
        words = {"revision": revision, "physical": True}
        return await self.call("/etcdserverpb.KV/Compact", m.COMPACTION_REQUEST, m.HEADER_ONLY, **words)

    async def grant(self, ttl: int, lease: int = 0) -> Any:
        words = {"ttl": ttl, "id": lease}
        return await self.call("/etcdserverpb.Lease/LeaseGrant", m.LEASE_GRANT_REQUEST, m.LEASE_RESPONSE, **words)

    async def status(self) -> Any:
        return await self.call("/etcdserverpb.Maintenance/Status", m.EMPTY, m.STATUS_RESPONSE)

    def watch(self, *, requires_leader: bool = False) -> WatchStream:
        return WatchStream(self.channel, requires_leader)

    async def stream(self, path: str, request: Shape, response: Shape, *requests: Any) -> AsyncIterator[Any]:
        """The answers of a stream that is asked these things and nothing more."""
        call = self.channel.stream_stream(path, request.encode, response.decode)(timeout=WAIT_S)
        for each in requests:
            await call.write(each)
        await call.done_writing()
        async for answer in call:
            yield answer

    async def refused(self, call: Any) -> tuple[str, str]:
        """gRPC's code and text of a call that must fail."""
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details() or ""
        raise AssertionError(f"it was answered: {answer}")


class WatchStream:
    def __init__(self, channel: grpc.aio.Channel, requires_leader: bool) -> None:
        make = channel.stream_stream("/etcdserverpb.Watch/Watch", m.WATCH_REQUEST.encode, m.WATCH_RESPONSE.decode)
        self._call = make(timeout=WAIT_S, metadata=[("hasleader", "true")] if requires_leader else [])

    async def create(self, key: bytes, end: bytes = b"", **more: Any) -> Any:
        """Asks, and gives the first answer."""
        plain = m.WatchCreateRequest(key, end, 0, False, [], False, 0, False)
        request = plain._replace(**more)
        await self._call.write(m.WatchRequest(create=request))
        return await self.read()

    async def cancel(self, number: int) -> Any:
        await self._call.write(m.WatchRequest(cancel=m.WatchCancelRequest(number)))
        return await self.read()

    async def ask_progress(self) -> None:
        await self._call.write(m.WatchRequest(progress=m.Empty()))

    async def read(self) -> Any:
        return await self._call.read()

    async def keys(self, count: int) -> list[tuple[int, bytes]]:
        """(type, key) of the next events."""
        found: list[tuple[int, bytes]] = []
        while len(found) < count:
            found += [(kind, item.key) for kind, item, _ in (await self.read()).events]
        return found


def put_op(key: bytes, value: bytes = b"", **more: Any) -> Any:
    return m.RequestOp(put=of(m.PUT_REQUEST, key=key, value=value, **more))


def range_op(key: bytes, end: bytes = b"", **more: Any) -> Any:
    return m.RequestOp(range=of(m.RANGE_REQUEST, key=key, range_end=end, **more))


def delete_op(key: bytes, end: bytes = b"", **more: Any) -> Any:
    return m.RequestOp(delete_range=of(m.DELETE_RANGE_REQUEST, key=key, range_end=end, **more))


def txn_op(compare: list[Any], success: list[Any], failure: list[Any]) -> Any:
    return m.RequestOp(txn=m.TxnRequest(compare, success, failure))


def compare(target: str, key: bytes, operator: str, value: Any, end: bytes = b"") -> Any:
    field = f"{target}_revision" if target in ("create", "mod") else target
    numbers = {"result": m.COMPARE_OPERATORS.index(operator), "target": m.COMPARE_TARGETS.index(target)}
    return of(m.COMPARE, key=key, range_end=end, **numbers, **{field: value})
