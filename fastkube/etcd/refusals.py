"""What is refused, in etcd's words and with its gRPC codes: clients tell errors apart by both."""

from __future__ import annotations

from fastkube.store import (
    Compacted,
    DuplicateKey,
    FutureRevision,
    InvalidRequest,
    KeyMissing,
    LeaseExists,
    LeaseNotFound,
    NoSpace,
    Overloaded,
    StoreClosed,
    StoreError,
    StoreUnavailable,
)
from fastkube.store.grpc import (
    FAILED_PRECONDITION,
    INTERNAL,
    INVALID_ARGUMENT,
    NOT_FOUND,
    OUT_OF_RANGE,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    UNIMPLEMENTED,
)


class Refusal(Exception):
    """An answer that is none: gRPC's code, and why."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def _invalid(text: str) -> Refusal:
    return Refusal(INVALID_ARGUMENT, f"etcdserver: {text}")


def _unmet(text: str) -> Refusal:
    return Refusal(FAILED_PRECONDITION, f"etcdserver: {text}")


def empty_key() -> Refusal:
    return _invalid("key is not provided")


def key_too_long(size: int, limit: int) -> Refusal:
    """etcd takes any key that its request has room for; LMDB does not."""
    return Refusal(INVALID_ARGUMENT, f"fastkube: key of {size} bytes is too long (at most {limit})")


def key_not_found() -> Refusal:
    return _invalid("key not found")


def value_provided() -> Refusal:
    return _invalid("value is provided")


def lease_provided() -> Refusal:
    return _invalid("lease is provided")


def too_many_operations() -> Refusal:
    return _invalid("too many operations in txn request")


def bad_sort_option() -> Refusal:
    return _invalid("invalid sort option")


def too_large() -> Refusal:
    return _invalid("request is too large")


def lease_ttl_too_large() -> Refusal:
    return Refusal(OUT_OF_RANGE, "etcdserver: too large lease TTL")


def lease_not_found() -> Refusal:
    return Refusal(NOT_FOUND, "etcdserver: requested lease not found")


def compacted() -> Refusal:
    return Refusal(OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")


def no_leader() -> Refusal:
    return Refusal(UNAVAILABLE, "etcdserver: no leader")


def member_not_found() -> Refusal:
    return Refusal(NOT_FOUND, "etcdserver: member not found")


def bad_member_urls() -> Refusal:
    return _invalid("given member URLs are invalid")


def bad_transferee() -> Refusal:
    return _unmet("bad leader transferee")


def not_leader() -> Refusal:
    return _unmet("not leader")


def auth_not_enabled() -> Refusal:
    return _unmet("authentication is not enabled")


def not_supported(what: str) -> Refusal:
    return Refusal(UNIMPLEMENTED, f"fastkube: {what} is not supported")


_TEXTS: dict[type[StoreError], tuple[int, str]] = {
    Compacted: (OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted"),
    FutureRevision: (OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision"),
    KeyMissing: (INVALID_ARGUMENT, "etcdserver: key not found"),
    DuplicateKey: (INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request"),
    LeaseNotFound: (NOT_FOUND, "etcdserver: requested lease not found"),
    LeaseExists: (FAILED_PRECONDITION, "etcdserver: lease already exists"),
    NoSpace: (RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded"),
    Overloaded: (RESOURCE_EXHAUSTED, "etcdserver: too many requests"),
    StoreClosed: (UNAVAILABLE, "etcdserver: server stopped"),
}

_MEMBER_REFUSALS = {
    "etcdserver: member not found": NOT_FOUND,
    "etcdserver: member not found, or no voter": FAILED_PRECONDITION,
}


def refusal_of(error: StoreError) -> Refusal:
    """A refusal of the store, as etcd has it."""
    known = _TEXTS.get(type(error))
    if known is not None:
        return Refusal(*known)
    text = str(error)
    if isinstance(error, InvalidRequest):
        if text.startswith("etcdserver: "):  # of a change of the membership, in etcd's words already
            return Refusal(_MEMBER_REFUSALS.get(text, FAILED_PRECONDITION), text)
        return Refusal(INVALID_ARGUMENT, f"fastkube: {text}")
    if isinstance(error, StoreUnavailable):
        if "no leader" in text:
            return no_leader()
        return Refusal(UNAVAILABLE, "etcdserver: request timed out" if "timed out" in text else f"etcdserver: {text}")
    return Refusal(INTERNAL, f"etcdserver: {text}")
