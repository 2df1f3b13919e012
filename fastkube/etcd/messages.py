"""The messages of etcd's public API (etcdserverpb, mvccpb, v3lockpb, v3electionpb), as tuples with their field numbers.

A key's version is the store's own `Item`, in its order; an event is (type, version, version before).
"""

from __future__ import annotations

from typing import NamedTuple

from fastkube._messages import Shape
from fastkube.store import Item


class Header(NamedTuple):
    cluster_id: int = 0
    member_id: int = 0
    revision: int = 0
    raft_term: int = 0


HEADER = Shape(Header, [(1, "uint"), (2, "uint"), (3, "int"), (4, "uint")])
KEY_VALUE = Shape(Item, [(1, "bytes"), (5, "bytes"), (2, "int"), (3, "int"), (4, "int"), (6, "int")])


class Empty(NamedTuple):
    pass


class HeaderOnly(NamedTuple):
    header: Header


EMPTY = Shape(Empty, [])
HEADER_ONLY = Shape(HeaderOnly, [(1, HEADER)])

# ---------------------------------------------------------------- KV

UNSORTED, ASCEND, DESCEND = range(3)
BY_KEY, BY_VERSION, BY_CREATE, BY_MOD, BY_VALUE = range(5)


class RangeRequest(NamedTuple):
    key: bytes
    range_end: bytes
    limit: int
    revision: int
    sort_order: int
    sort_target: int
    serializable: bool
    keys_only: bool
    count_only: bool
    min_mod_revision: int
    max_mod_revision: int
    min_create_revision: int
    max_create_revision: int


class RangeResponse(NamedTuple):
    header: Header
    kvs: list[Item]
    more: bool
    count: int  # type: ignore[assignment]  # etcd's name for it, over tuple's method


RANGE_REQUEST = Shape(
    RangeRequest,
    [(1, "bytes"), (2, "bytes"), (3, "int"), (4, "int"), (5, "int"), (6, "int"), (7, "bool"), (8, "bool"), (9, "bool")]
    + [(number, "int") for number in (10, 11, 12, 13)],
)
RANGE_RESPONSE = Shape(RangeResponse, [(1, HEADER), (2, [KEY_VALUE]), (3, "bool"), (4, "int")])


class PutRequest(NamedTuple):
    key: bytes
    value: bytes
    lease: int
    prev_kv: bool
    ignore_value: bool
    ignore_lease: bool


class PutResponse(NamedTuple):
    header: Header
    prev_kv: Item | None = None


PUT_REQUEST = Shape(PutRequest, [(1, "bytes"), (2, "bytes"), (3, "int"), (4, "bool"), (5, "bool"), (6, "bool")])
PUT_RESPONSE = Shape(PutResponse, [(1, HEADER), (2, KEY_VALUE)])


class DeleteRangeRequest(NamedTuple):
    key: bytes
    range_end: bytes
    prev_kv: bool


class DeleteRangeResponse(NamedTuple):
    header: Header
    deleted: int
    prev_kvs: list[Item]


DELETE_RANGE_REQUEST = Shape(DeleteRangeRequest, [(1, "bytes"), (2, "bytes"), (3, "bool")])
DELETE_RANGE_RESPONSE = Shape(DeleteRangeResponse, [(1, HEADER), (2, "int"), (3, [KEY_VALUE])])


class Compare(NamedTuple):
    """`result` and `target` are indexes of COMPARE_OPERATORS and COMPARE_TARGETS."""

    result: int
    target: int
    key: bytes
    version: int
    create_revision: int
    mod_revision: int
    value: bytes
    lease: int
    range_end: bytes


COMPARE_OPERATORS = ("=", ">", "<", "!=")
COMPARE_TARGETS = ("version", "create", "mod", "value", "lease")


class RequestOp(NamedTuple):
    """One of them is set."""

    range: RangeRequest | None = None
    put: PutRequest | None = None
    delete_range: DeleteRangeRequest | None = None
    txn: TxnRequest | None = None


class TxnRequest(NamedTuple):
    compare: list[Compare]
    success: list[RequestOp]
    failure: list[RequestOp]


class ResponseOp(NamedTuple):
    range: RangeResponse | None = None
    put: PutResponse | None = None
    delete_range: DeleteRangeResponse | None = None
    txn: TxnResponse | None = None


class TxnResponse(NamedTuple):
    header: Header
    succeeded: bool
    responses: list[ResponseOp]


COMPARE = Shape(
    Compare,
    [(1, "int"), (2, "int"), (3, "bytes"), (4, "int"), (5, "int"), (6, "int"), (7, "bytes"), (8, "int"), (64, "bytes")],
)
TXN_REQUEST, TXN_RESPONSE = Shape(TxnRequest), Shape(TxnResponse)
REQUEST_OP = Shape(RequestOp, [(1, RANGE_REQUEST), (2, PUT_REQUEST), (3, DELETE_RANGE_REQUEST), (4, TXN_REQUEST)])
RESPONSE_OP = Shape(ResponseOp, [(1, RANGE_RESPONSE), (2, PUT_RESPONSE), (3, DELETE_RANGE_RESPONSE), (4, TXN_RESPONSE)])
TXN_REQUEST.define([(1, [COMPARE]), (2, [REQUEST_OP]), (3, [REQUEST_OP])])
TXN_RESPONSE.define([(1, HEADER), (2, "bool"), (3, [RESPONSE_OP])])


class CompactionRequest(NamedTuple):
    revision: int
    physical: bool


COMPACTION_REQUEST = Shape(CompactionRequest, [(1, "int"), (2, "bool")])

# ---------------------------------------------------------------- Watch

NO_PUT, NO_DELETE = range(2)


class WatchCreateRequest(NamedTuple):
    key: bytes
    range_end: bytes
    start_revision: int
    progress_notify: bool
    filters: list[int]
    prev_kv: bool
    watch_id: int
    fragment: bool


class WatchCancelRequest(NamedTuple):
    watch_id: int


class WatchRequest(NamedTuple):
    """One of them is set."""

    create: WatchCreateRequest | None = None
    cancel: WatchCancelRequest | None = None
    progress: Empty | None = None


WireEvent = tuple[int, Item, Item | None]


class WatchResponse(NamedTuple):
    header: Header
    watch_id: int
    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    fragment: bool = False
    events: list[WireEvent] = []  # noqa: RUF012  (never changed)


class Events(NamedTuple):
    """The one field of a WatchResponse that all watchers of a range share; the other fields stand before it."""

    events: list[WireEvent]


_EVENT = Shape(tuple, [(1, "int"), (2, KEY_VALUE), (3, KEY_VALUE)])
WATCH_REQUEST = Shape(
    WatchRequest,
    [
        (
            1,
            Shape(
                WatchCreateRequest,
                [
                    (1, "bytes"),
                    (2, "bytes"),
                    (3, "int"),
                    (4, "bool"),
                    (5, ["int"]),
                    (6, "bool"),
                    (7, "int"),
                    (8, "bool"),
                ],
            ),
        ),
        (2, Shape(WatchCancelRequest, [(1, "int")])),
        (3, EMPTY),
    ],
)
WATCH_RESPONSE = Shape(
    WatchResponse,
    [(1, HEADER), (2, "int"), (3, "bool"), (4, "bool"), (5, "int"), (6, "string"), (7, "bool"), (11, [_EVENT])],
)
EVENTS = Shape(Events, [(11, [_EVENT])])

# ---------------------------------------------------------------- Lease


class LeaseGrantRequest(NamedTuple):
    ttl: int
    id: int


class LeaseResponse(NamedTuple):
    """Of a grant and of a keepalive."""

    header: Header
    id: int
    ttl: int


class LeaseId(NamedTuple):
    id: int


class LeaseTimeToLiveRequest(NamedTuple):
    id: int
    keys: bool


class LeaseTimeToLiveResponse(NamedTuple):
    header: Header
    id: int
    ttl: int
    granted_ttl: int = 0
    keys: list[bytes] = []  # noqa: RUF012  (never changed)


class LeaseLeasesResponse(NamedTuple):
    header: Header
    leases: list[LeaseId]


LEASE_ID = Shape(LeaseId, [(1, "int")])
LEASE_GRANT_REQUEST = Shape(LeaseGrantRequest, [(1, "int"), (2, "int")])
LEASE_RESPONSE = Shape(LeaseResponse, [(1, HEADER), (2, "int"), (3, "int")])
LEASE_TIME_TO_LIVE_REQUEST = Shape(LeaseTimeToLiveRequest, [(1, "int"), (2, "bool")])
LEASE_TIME_TO_LIVE_RESPONSE = Shape(
    LeaseTimeToLiveResponse, [(1, HEADER), (2, "int"), (3, "int"), (4, "int"), (5, ["bytes"])]
)
LEASE_LEASES_RESPONSE = Shape(LeaseLeasesResponse, [(1, HEADER), (2, [LEASE_ID])])

# ---------------------------------------------------------------- Cluster


class Member(NamedTuple):
    id: int
    name: str
    peer_urls: list[str] | tuple[str, ...]
    client_urls: list[str] | tuple[str, ...]
    is_learner: bool = False


class MembersResponse(NamedTuple):
    header: Header
    members: list[Member]


class MemberAddRequest(NamedTuple):
    peer_urls: list[str]
    is_learner: bool


class MemberAddResponse(NamedTuple):
    header: Header
    member: Member
    members: list[Member]


class MemberId(NamedTuple):
    id: int


class MemberUpdateRequest(NamedTuple):
    id: int
    peer_urls: list[str]


class MemberListRequest(NamedTuple):
    linearizable: bool


MEMBER = Shape(Member, [(1, "uint"), (2, "string"), (3, ["string"]), (4, ["string"]), (5, "bool")])
MEMBERS_RESPONSE = Shape(MembersResponse, [(1, HEADER), (2, [MEMBER])])
MEMBER_ADD_REQUEST = Shape(MemberAddRequest, [(1, ["string"]), (2, "bool")])
MEMBER_ADD_RESPONSE = Shape(MemberAddResponse, [(1, HEADER), (2, MEMBER), (3, [MEMBER])])
MEMBER_ID = Shape(MemberId, [(1, "uint")])
MEMBER_UPDATE_REQUEST = Shape(MemberUpdateRequest, [(1, "uint"), (2, ["string"])])
MEMBER_LIST_REQUEST = Shape(MemberListRequest, [(1, "bool")])

# ---------------------------------------------------------------- Maintenance

ALARM_GET, ALARM_ACTIVATE, ALARM_DEACTIVATE = range(3)
NO_ALARM, NOSPACE, CORRUPT = range(3)


class AlarmRequest(NamedTuple):
    action: int
    member_id: int
    alarm: int


class AlarmMember(NamedTuple):
    member_id: int
    alarm: int


class AlarmResponse(NamedTuple):
    header: Header
    alarms: list[AlarmMember]


class StatusResponse(NamedTuple):
    header: Header
    version: str
    db_size: int
    leader: int
    raft_index: int
    raft_term: int
    raft_applied_index: int
    errors: list[str]
    db_size_in_use: int
    is_learner: bool


class HashResponse(NamedTuple):
    header: Header
    hash: int


class HashKvRequest(NamedTuple):
    revision: int


class HashKvResponse(NamedTuple):
    header: Header
    hash: int
    compact_revision: int
    hash_revision: int


class SnapshotResponse(NamedTuple):
    header: Header
    remaining_bytes: int
    blob: bytes


class MoveLeaderRequest(NamedTuple):
    target_id: int


class AuthStatusResponse(NamedTuple):
    header: Header
    enabled: bool
    auth_revision: int


ALARM_REQUEST = Shape(AlarmRequest, [(1, "int"), (2, "uint"), (3, "int")])
ALARM_RESPONSE = Shape(AlarmResponse, [(1, HEADER), (2, [Shape(AlarmMember, [(1, "uint"), (2, "int")])])])
STATUS_RESPONSE = Shape(
    StatusResponse,
    [
        (1, HEADER),
        (2, "string"),
        (3, "int"),
        (4, "uint"),
        (5, "uint"),
        (6, "uint"),
        (7, "uint"),
        (8, ["string"]),
        (9, "int"),
        (10, "bool"),
    ],
)
HASH_RESPONSE = Shape(HashResponse, [(1, HEADER), (2, "uint")])
HASH_KV_REQUEST = Shape(HashKvRequest, [(1, "int")])
HASH_KV_RESPONSE = Shape(HashKvResponse, [(1, HEADER), (2, "uint"), (3, "int"), (4, "int")])
SNAPSHOT_RESPONSE = Shape(SnapshotResponse, [(1, HEADER), (2, "uint"), (3, "bytes")])
MOVE_LEADER_REQUEST = Shape(MoveLeaderRequest, [(1, "uint")])
AUTH_STATUS_RESPONSE = Shape(AuthStatusResponse, [(1, HEADER), (2, "bool"), (3, "uint")])

# ---------------------------------------------------------------- Lock and Election


class LockRequest(NamedTuple):
    name: bytes
    lease: int


class LockResponse(NamedTuple):
    header: Header
    key: bytes


class UnlockRequest(NamedTuple):
    key: bytes


class CampaignRequest(NamedTuple):
    name: bytes
    lease: int
    value: bytes


class LeaderKey(NamedTuple):
    name: bytes
    key: bytes
    rev: int
    lease: int


class CampaignResponse(NamedTuple):
    header: Header
    leader: LeaderKey


class LeaderRequest(NamedTuple):
    name: bytes


class LeaderResponse(NamedTuple):
    header: Header
    kv: Item


class ResignRequest(NamedTuple):
    leader: LeaderKey | None


class ProclaimRequest(NamedTuple):
    leader: LeaderKey | None
    value: bytes


_LEADER_KEY = Shape(LeaderKey, [(1, "bytes"), (2, "bytes"), (3, "int"), (4, "int")])
LOCK_REQUEST = Shape(LockRequest, [(1, "bytes"), (2, "int")])
LOCK_RESPONSE = Shape(LockResponse, [(1, HEADER), (2, "bytes")])
UNLOCK_REQUEST = Shape(UnlockRequest, [(1, "bytes")])
CAMPAIGN_REQUEST = Shape(CampaignRequest, [(1, "bytes"), (2, "int"), (3, "bytes")])
CAMPAIGN_RESPONSE = Shape(CampaignResponse, [(1, HEADER), (2, _LEADER_KEY)])
LEADER_REQUEST = Shape(LeaderRequest, [(1, "bytes")])
LEADER_RESPONSE = Shape(LeaderResponse, [(1, HEADER), (2, KEY_VALUE)])
RESIGN_REQUEST = Shape(ResignRequest, [(1, _LEADER_KEY)])
PROCLAIM_REQUEST = Shape(ProclaimRequest, [(1, _LEADER_KEY), (2, "bytes")])
