"""Limits on what is under way at once, by the priority that FlowSchemas give a request.

Source: "API Priority and Fairness" of the Kubernetes documentation. A request belongs to the first FlowSchema, by
matchingPrecedence and name, whose rules take its user and what it does; the schema names a priority level. Exempt
levels are not limited. All others share the server's seats (--max-requests-inflight plus
--max-mutating-requests-inflight): when none is free a request waits its turn, and when too many wait it is refused
with 429. One event loop serves requests in the order in which they come, so the shares of levels and the queues of
flows have nothing to divide; schemas and levels are classified, told in the X-Kubernetes-Pf headers, and honoured as to
exemption.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack

from fastkube import errors
from fastkube.server.authn import split_account

if TYPE_CHECKING:
    from fastkube.api.catalog import Catalog
    from fastkube.registry.strategy import UserInfo
    from fastkube.server.request import Attributes
    from fastkube.store import Event, Store, Subscription

GROUP = "flowcontrol.apiserver.k8s.io"
Object = dict[str, Any]

_CLASSES_MAX = 20_000
_WAITING_PER_SEAT = 10
"""How many may wait for each seat before others are refused."""
_TOO_MANY = "Too many requests, please try again later."


class Class(NamedTuple):
    """What a request is to flow control: the header lines that tell it, and whether limits apply."""

    headers: bytes
    exempt: bool


_UNCLASSIFIED = Class(b"", False)


class _Schema(NamedTuple):
    precedence: int
    name: str
    uid: str
    level: str
    rules: list[Object]


class FlowControl:
    """Classifies requests and hands out seats."""

    def __init__(self, store: Store, catalog: Catalog, seats: int) -> None:
        self._store = store
        self._prefixes = {
            resource: rtype.key_prefix
            for resource in ("flowschemas", "prioritylevelconfigurations")
            if (rtype := catalog.get(GROUP, resource)) is not None
        }
        self._classes: dict[Any, Class] = {}
        self._schemas: list[_Schema] = []
        self._levels: dict[str, tuple[str, bool]] = {}
        self._subscription: Subscription | None = None
        self._seats = seats
        self._free = seats
        self._waiting: deque[asyncio.Future[None]] = deque()

    def start(self) -> None:
        start, end = f"/registry/{GROUP}/".encode(), f"/registry/{GROUP}0".encode()
        self._subscription = self._store.subscribe(start, end, self._on_commit)
        self._load()

    def stop(self) -> None:
        if self._subscription is not None:
            self._subscription.cancel()
            self._subscription = None

    # ---------------------------------------------------------------- seats

    @property
    def executing(self) -> int:
        return self._seats - self._free

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def try_take(self) -> bool:
        if self._free > 0 and not self._waiting:
            self._free -= 1
            return True
        return False

    async def take(self) -> None:
        """A seat, as soon as it is this request's turn; raises 429 when too many wait already."""
        if len(self._waiting) >= self._seats * _WAITING_PER_SEAT:
            raise errors.too_many_requests(_TOO_MANY)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()
            else:
                self._waiting.remove(turn)
            raise

    def release(self) -> None:
        """Gives a seat back: to whoever waits longest, or to nobody."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    # ---------------------------------------------------------------- classification

    def classify(self, user: UserInfo, attributes: Attributes) -> Class:
        key = (user.name, user.groups, attributes.key if attributes.is_resource else (attributes.verb, attributes.path))
        found = self._classes.get(key)
        if found is None:
            found = self._classify(user, attributes)
            if len(self._classes) >= _CLASSES_MAX:
                self._classes.clear()
            self._classes[key] = found
        return found

    def _classify(self, user: UserInfo, attributes: Attributes) -> Class:
        for schema in self._schemas:
            if any(_rule_matches(rule, user, attributes) for rule in schema.rules):
                uid, exempt = self._levels.get(schema.level, ("", False))
                lines = (f"X-Kubernetes-Pf-Flowschema-Uid: {schema.uid}", f"X-Kubernetes-Pf-Prioritylevel-Uid: {uid}")
                return Class("".join(f"{line}\r\n" for line in lines).encode(), exempt)
        return _UNCLASSIFIED

    def _on_commit(self, events: list[Event], revision: int) -> None:
        if events:
            self._load()

    def _load(self) -> None:
        self._classes.clear()
        self._levels = {
            level["metadata"]["name"]: (level["metadata"]["uid"], level["spec"].get("type") == "Exempt")
            for level in self._stored("prioritylevelconfigurations")
        }
        self._schemas = sorted(
            _Schema(
                schema["spec"].get("matchingPrecedence", 1000),
                schema["metadata"]["name"],
                schema["metadata"]["uid"],
                schema["spec"]["priorityLevelConfiguration"]["name"],
                schema["spec"].get("rules") or [],
            )
            for schema in self._stored("flowschemas")
        )

    def _stored(self, resource: str) -> list[Object]:
        prefix = self._prefixes.get(resource)
        if prefix is None:
            return []
        return [msgpack.unpackb(item.value) for item in self._store.scan(prefix, prefix[:-1] + b"0")]


def _rule_matches(rule: Object, user: UserInfo, attributes: Attributes) -> bool:
    if not any(_subject_matches(subject, user) for subject in rule.get("subjects") or ()):
        return False
    if attributes.is_resource:
        return any(_resource_rule_matches(one, attributes) for one in rule.get("resourceRules") or ())
    return any(_path_rule_matches(one, attributes) for one in rule.get("nonResourceRules") or ())


def _subject_matches(subject: Object, user: UserInfo) -> bool:
    kind = subject.get("kind")
    if kind == "User":
        name = subject["user"]["name"]
        return name in ("*", user.name)
    if kind == "Group":
        name = subject["group"]["name"]
        return name == "*" or name in user.groups
    account = split_account(user.name)
    wanted = subject.get("serviceAccount") or {}
    if account is None or wanted.get("namespace") != account[0]:
        return False
    return wanted.get("name") in ("*", account[1])


def _resource_rule_matches(rule: Object, attributes: Attributes) -> bool:
    resource = attributes.resource
    if attributes.subresource:
        resource += f"/{attributes.subresource}"
    if not (
        _contains(rule.get("verbs"), attributes.verb)
        and _contains(rule.get("apiGroups"), attributes.group)
        and _contains(rule.get("resources"), resource)
    ):
        return False
    if not attributes.namespace:
        return bool(rule.get("clusterScope"))
    return _contains(rule.get("namespaces"), attributes.namespace)


def _path_rule_matches(rule: Object, attributes: Attributes) -> bool:
    if not _contains(rule.get("verbs"), attributes.verb):
        return False
    for pattern in rule.get("nonResourceURLs") or ():
        if pattern in ("*", attributes.path):
            return True
        if pattern.endswith("/*") and attributes.path.startswith(pattern[:-1]):
            return True
    return False


def _contains(values: list[str] | None, value: str) -> bool:
    return values is not None and ("*" in values or value in values)
