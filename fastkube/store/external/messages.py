"""The messages of etcd's API v3 that a client sends and gets: names and numbers of etcd's rpc.proto and kv.proto.

A message is a dict with etcd's field names; keys and values are bytes, enumerations numbers. What is zero may be left
out on the way there, and is left out on the way back. Messages that are only read have the fields that are looked at.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastkube._protobuf import Encoder, Field, Message, decode

Body = dict[str, Any]

# compare results and targets, events, watch filters: etcd's numbers
EQUAL, GREATER, LESS, NOT_EQUAL = 0, 1, 2, 3
VERSION, CREATE, MOD, VALUE, LEASE = 0, 1, 2, 3, 4
PUT, DELETE = 0, 1


def _message(name: str, *fields: tuple[str, int, Any]) -> Message:
    """`fields`: name, number, kind; a kind is a word of `_protobuf` or a message, in a list where it is repeated."""
    made = []
    for field, number, given in fields:
        kind = given[0] if isinstance(given, list) else given
        inner = None if isinstance(kind, str) else kind
        made.append(Field(field, number, "message" if inner else kind, isinstance(given, list), inner))
    return Message(name, lambda: made)


HEADER = _message("ResponseHeader", ("cluster_id", 1, "int"), ("member_id", 2, "int"), ("revision", 3, "int"))
KEY_VALUE = _message(
    "KeyValue",
    ("key", 1, "raw"),
    ("create_revision", 2, "int"),
    ("mod_revision", 3, "int"),
    ("version", 4, "int"),
    ("value", 5, "raw"),
    ("lease", 6, "int"),
)

RANGE_REQUEST = _message(
    "RangeRequest",
    ("key", 1, "raw"),
    ("range_end", 2, "raw"),
    ("limit", 3, "int"),
    ("revision", 4, "int"),
    ("sort_order", 5, "int"),
    ("serializable", 7, "bool"),
    ("keys_only", 8, "bool"),
    ("count_only", 9, "bool"),
)
RANGE_RESPONSE = _message(
    "RangeResponse", ("header", 1, HEADER), ("kvs", 2, [KEY_VALUE]), ("more", 3, "bool"), ("count", 4, "int")
)
PUT_REQUEST = _message(
    "PutRequest", ("key", 1, "raw"), ("value", 2, "raw"), ("lease", 3, "int"), ("prev_kv", 4, "bool")
)
PUT_RESPONSE = _message("PutResponse", ("header", 1, HEADER), ("prev_kv", 2, KEY_VALUE))
DELETE_REQUEST = _message("DeleteRangeRequest", ("key", 1, "raw"), ("range_end", 2, "raw"), ("prev_kv", 3, "bool"))
DELETE_RESPONSE = _message(
    "DeleteRangeResponse", ("header", 1, HEADER), ("deleted", 2, "int"), ("prev_kvs", 3, [KEY_VALUE])
)
REQUEST_OP = _message(
    "RequestOp",
    ("request_range", 1, RANGE_REQUEST),
    ("request_put", 2, PUT_REQUEST),
    ("request_delete_range", 3, DELETE_REQUEST),
)
RESPONSE_OP = _message(
    "ResponseOp",
    ("response_range", 1, RANGE_RESPONSE),
    ("response_put", 2, PUT_RESPONSE),
    ("response_delete_range", 3, DELETE_RESPONSE),
)
COMPARE = _message(
    "Compare",
    ("result", 1, "int"),
    ("target", 2, "int"),
    ("key", 3, "raw"),
    ("version", 4, "int"),
    ("create_revision", 5, "int"),
    ("mod_revision", 6, "int"),
    ("value", 7, "raw"),
    ("lease", 8, "int"),
    ("range_end", 64, "raw"),
)
TXN_REQUEST = _message(
    "TxnRequest", ("compare", 1, [COMPARE]), ("success", 2, [REQUEST_OP]), ("failure", 3, [REQUEST_OP])
)
TXN_RESPONSE = _message("TxnResponse", ("header", 1, HEADER), ("succeeded", 2, "bool"), ("responses", 3, [RESPONSE_OP]))
COMPACTION_REQUEST = _message("CompactionRequest", ("revision", 1, "int"), ("physical", 2, "bool"))
COMPACTION_RESPONSE = _message("CompactionResponse", ("header", 1, HEADER))

WATCH_CREATE = _message(
    "WatchCreateRequest",
    ("key", 1, "raw"),
    ("range_end", 2, "raw"),
    ("start_revision", 3, "int"),
    ("progress_notify", 4, "bool"),
)
WATCH_PROGRESS = _message("WatchProgressRequest")
WATCH_REQUEST = _message("WatchRequest", ("create_request", 1, WATCH_CREATE), ("progress_request", 3, WATCH_PROGRESS))
EVENT = _message("Event", ("type", 1, "int"), ("kv", 2, KEY_VALUE))
WATCH_RESPONSE = _message(
    "WatchResponse",
    ("header", 1, HEADER),
    ("watch_id", 2, "int"),
    ("created", 3, "bool"),
    ("canceled", 4, "bool"),
    ("compact_revision", 5, "int"),
    ("cancel_reason", 6, "string"),
    ("events", 11, [EVENT]),
)

LEASE_GRANT_REQUEST = _message("LeaseGrantRequest", ("TTL", 1, "int"), ("ID", 2, "int"))
LEASE_GRANT_RESPONSE = _message("LeaseGrantResponse", ("header", 1, HEADER), ("ID", 2, "int"), ("TTL", 3, "int"))
LEASE_REVOKE_REQUEST = _message("LeaseRevokeRequest", ("ID", 1, "int"))
LEASE_REVOKE_RESPONSE = _message("LeaseRevokeResponse", ("header", 1, HEADER))
LEASE_KEEP_ALIVE_REQUEST = _message("LeaseKeepAliveRequest", ("ID", 1, "int"))
LEASE_KEEP_ALIVE_RESPONSE = _message(
    "LeaseKeepAliveResponse", ("header", 1, HEADER), ("ID", 2, "int"), ("TTL", 3, "int")
)
LEASE_TIME_REQUEST = _message("LeaseTimeToLiveRequest", ("ID", 1, "int"), ("keys", 2, "bool"))
LEASE_TIME_RESPONSE = _message(
    "LeaseTimeToLiveResponse",
    ("header", 1, HEADER),
    ("ID", 2, "int"),
    ("TTL", 3, "int"),
    ("grantedTTL", 4, "int"),
    ("keys", 5, ["raw"]),
)
STATUS_REQUEST = _message("StatusRequest")
STATUS_RESPONSE = _message(
    "StatusResponse", ("header", 1, HEADER), ("version", 2, "string"), ("dbSize", 3, "int"), ("leader", 4, "int")
)


class Method(NamedTuple):
    """What is called: the path of HTTP/2, and what goes there and comes back."""

    path: bytes
    request: Message
    response: Message


RANGE = Method(b"/etcdserverpb.KV/Range", RANGE_REQUEST, RANGE_RESPONSE)
TXN = Method(b"/etcdserverpb.KV/Txn", TXN_REQUEST, TXN_RESPONSE)
COMPACT = Method(b"/etcdserverpb.KV/Compact", COMPACTION_REQUEST, COMPACTION_RESPONSE)
WATCH = Method(b"/etcdserverpb.Watch/Watch", WATCH_REQUEST, WATCH_RESPONSE)
LEASE_GRANT = Method(b"/etcdserverpb.Lease/LeaseGrant", LEASE_GRANT_REQUEST, LEASE_GRANT_RESPONSE)
LEASE_REVOKE = Method(b"/etcdserverpb.Lease/LeaseRevoke", LEASE_REVOKE_REQUEST, LEASE_REVOKE_RESPONSE)
LEASE_KEEP_ALIVE = Method(b"/etcdserverpb.Lease/LeaseKeepAlive", LEASE_KEEP_ALIVE_REQUEST, LEASE_KEEP_ALIVE_RESPONSE)
LEASE_TIME = Method(b"/etcdserverpb.Lease/LeaseTimeToLive", LEASE_TIME_REQUEST, LEASE_TIME_RESPONSE)
STATUS = Method(b"/etcdserverpb.Maintenance/Status", STATUS_REQUEST, STATUS_RESPONSE)

_encoder = Encoder()


def encode(message: Message, body: Body) -> bytes:
    return _encoder.encode(message, body)


def read(message: Message, packed: bytes) -> Body:
    """Raises ValueError for what is malformed."""
    found: Body = decode(message, packed)
    return found
