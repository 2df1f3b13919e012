"""Every method of etcd's API by its path: what it takes and answers, and who does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from fastkube._messages import Shape
from fastkube.etcd import messages as m
from fastkube.etcd import refusals
from fastkube.etcd.channel import Channel, Handler
from fastkube.etcd.kv import KV
from fastkube.etcd.leasing import KeepAlives, Leasing
from fastkube.etcd.locking import Elections, Locks, Observation, Recipes
from fastkube.etcd.maintenance import Maintenance, Snapshot
from fastkube.etcd.members import Members
from fastkube.etcd.node import Answer, Node
from fastkube.etcd.watching import Watching, WatchStream
from fastkube.store import grpc


class Call(NamedTuple):
    """One request, one answer."""

    request: Shape
    response: Shape
    handler: Callable[[Any], Answer]
    is_limited: bool = False
    """By --max-request-bytes: it is written to the log."""


class Streaming(NamedTuple):
    open: Callable[[Channel], Handler]


Method: TypeAlias = Call | Streaming

_AUTH = (
    "AuthEnable", "AuthDisable", "UserAdd", "UserGet", "UserList", "UserDelete", "UserChangePassword", "UserGrantRole",
    "UserRevokeRole", "RoleAdd", "RoleGet", "RoleList", "RoleDelete", "RoleGrantPermission", "RoleRevokePermission",
)  # fmt: skip
_SERVICES = {"etcdserverpb.KV", "etcdserverpb.Watch", "etcdserverpb.Lease", "etcdserverpb.Cluster"}
_SERVICES |= {"etcdserverpb.Maintenance", "etcdserverpb.Auth", "v3lockpb.Lock", "v3electionpb.Election"}


def methods_of(node: Node) -> dict[bytes, Method]:
    found = {**_kv(node), **_lease(node), **_cluster(node), **_maintenance(node), **_auth(node), **_recipes(node)}
    watching = Watching(node)
    found["/etcdserverpb.Watch/Watch"] = Streaming(lambda channel: WatchStream(watching, channel))
    return {path.encode(): method for path, method in found.items()}


def _kv(node: Node) -> dict[str, Method]:
    kv = KV(node)
    return {
        "/etcdserverpb.KV/Range": Call(m.RANGE_REQUEST, m.RANGE_RESPONSE, kv.range),
        "/etcdserverpb.KV/Put": Call(m.PUT_REQUEST, m.PUT_RESPONSE, kv.put, True),
        "/etcdserverpb.KV/DeleteRange": Call(m.DELETE_RANGE_REQUEST, m.DELETE_RANGE_RESPONSE, kv.delete_range, True),
        "/etcdserverpb.KV/Txn": Call(m.TXN_REQUEST, m.TXN_RESPONSE, kv.txn, True),
        "/etcdserverpb.KV/Compact": Call(m.COMPACTION_REQUEST, m.HEADER_ONLY, kv.compact),
    }


def _lease(node: Node) -> dict[str, Method]:
    leasing = Leasing(node)
    return {
        "/etcdserverpb.Lease/LeaseGrant": Call(m.LEASE_GRANT_REQUEST, m.LEASE_RESPONSE, leasing.grant),
        "/etcdserverpb.Lease/LeaseRevoke": Call(m.LEASE_ID, m.HEADER_ONLY, leasing.revoke),
        "/etcdserverpb.Lease/LeaseTimeToLive": Call(
            m.LEASE_TIME_TO_LIVE_REQUEST, m.LEASE_TIME_TO_LIVE_RESPONSE, leasing.time_to_live
        ),
        "/etcdserverpb.Lease/LeaseLeases": Call(m.EMPTY, m.LEASE_LEASES_RESPONSE, leasing.leases),
        "/etcdserverpb.Lease/LeaseKeepAlive": Streaming(lambda channel: KeepAlives(leasing, channel)),
    }


def _cluster(node: Node) -> dict[str, Method]:
    members = Members(node)
    return {
        "/etcdserverpb.Cluster/MemberList": Call(m.MEMBER_LIST_REQUEST, m.MEMBERS_RESPONSE, members.list_all),
        "/etcdserverpb.Cluster/MemberAdd": Call(m.MEMBER_ADD_REQUEST, m.MEMBER_ADD_RESPONSE, members.add),
        "/etcdserverpb.Cluster/MemberRemove": Call(m.MEMBER_ID, m.MEMBERS_RESPONSE, members.remove),
        "/etcdserverpb.Cluster/MemberPromote": Call(m.MEMBER_ID, m.MEMBERS_RESPONSE, members.promote),
        "/etcdserverpb.Cluster/MemberUpdate": Call(m.MEMBER_UPDATE_REQUEST, m.MEMBERS_RESPONSE, members.update),
    }


def _maintenance(node: Node) -> dict[str, Method]:
    maintenance = Maintenance(node)
    return {
        "/etcdserverpb.Maintenance/Status": Call(m.EMPTY, m.STATUS_RESPONSE, maintenance.status),
        "/etcdserverpb.Maintenance/Alarm": Call(m.ALARM_REQUEST, m.ALARM_RESPONSE, maintenance.alarm),
        "/etcdserverpb.Maintenance/Defragment": Call(m.EMPTY, m.HEADER_ONLY, maintenance.defragment),
        "/etcdserverpb.Maintenance/Hash": Call(m.EMPTY, m.HASH_RESPONSE, maintenance.hash),
        "/etcdserverpb.Maintenance/HashKV": Call(m.HASH_KV_REQUEST, m.HASH_KV_RESPONSE, maintenance.hash_kv),
        "/etcdserverpb.Maintenance/MoveLeader": Call(m.MOVE_LEADER_REQUEST, m.HEADER_ONLY, maintenance.move_leader),
        "/etcdserverpb.Maintenance/Downgrade": _refused("Downgrade"),
        "/etcdserverpb.Maintenance/Snapshot": Streaming(lambda channel: Snapshot(node, channel)),
    }


def _auth(node: Node) -> dict[str, Method]:
    maintenance = Maintenance(node)
    return {
        "/etcdserverpb.Auth/AuthStatus": Call(m.EMPTY, m.AUTH_STATUS_RESPONSE, maintenance.auth_status),
        "/etcdserverpb.Auth/Authenticate": Call(m.EMPTY, m.HEADER_ONLY, maintenance.authenticate),
        **{f"/etcdserverpb.Auth/{name}": _refused(f"Auth ({name})") for name in _AUTH},
    }


def _recipes(node: Node) -> dict[str, Method]:
    recipes = Recipes(node)
    locks, elections = Locks(node, recipes), Elections(node, recipes)
    return {
        "/v3lockpb.Lock/Lock": Call(m.LOCK_REQUEST, m.LOCK_RESPONSE, locks.lock),
        "/v3lockpb.Lock/Unlock": Call(m.UNLOCK_REQUEST, m.HEADER_ONLY, locks.unlock),
        "/v3electionpb.Election/Campaign": Call(m.CAMPAIGN_REQUEST, m.CAMPAIGN_RESPONSE, elections.campaign),
        "/v3electionpb.Election/Proclaim": Call(m.PROCLAIM_REQUEST, m.HEADER_ONLY, elections.proclaim),
        "/v3electionpb.Election/Leader": Call(m.LEADER_REQUEST, m.LEADER_RESPONSE, elections.leader),
        "/v3electionpb.Election/Resign": Call(m.RESIGN_REQUEST, m.HEADER_ONLY, elections.resign),
        "/v3electionpb.Election/Observe": Streaming(lambda channel: Observation(node, recipes, channel)),
    }


def _refused(what: str) -> Call:
    def refuse(_: m.Empty) -> Answer:
        raise refusals.not_supported(what)

    return Call(m.EMPTY, m.EMPTY, refuse)


def unknown(path: bytes) -> refusals.Refusal:
    """In gRPC's words."""
    service, _, method = path.decode(errors="replace").lstrip("/").rpartition("/")
    told = f"unknown method {method} for service {service}" if service in _SERVICES else f"unknown service {service}"
    return refusals.Refusal(grpc.UNIMPLEMENTED, told)
