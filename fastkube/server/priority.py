"""Priority and fairness: which FlowSchema and priority level a request belongs to, and whether it may go on.

Source: "API Priority and Fairness" of the Kubernetes documentation. A request belongs to the first FlowSchema, by
matchingPrecedence and name, whose rules take its user and what it does; the schema names a priority level and says what
tells its flows apart. Exempt levels are not limited; all others divide the server's seats (--max-requests-inflight plus
--max-mutating-requests-inflight) among them, as `fair_queues` describes. Every request takes one seat.

Without priority and fairness there are two limits, for requests that read and those that write, and no queues.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack

from fastkube.server.authn import split_account
from fastkube.server.fair_queues import Level, Levels, Shape

if TYPE_CHECKING:
    from fastkube.api.catalog import Catalog
    from fastkube.registry.strategy import UserInfo
    from fastkube.server.options import ServerOptions
    from fastkube.server.request import Attributes
    from fastkube.store import Event, Store, Subscription

GROUP = "flowcontrol.apiserver.k8s.io"
Object = dict[str, Any]

_CLASSES_MAX = 20_000
_MASTERS = "system:masters"
_READS = ("get", "list", "watch")
_NOMINAL_SHARES = 30
"""What a level has that says nothing of its shares; so has upstream."""


class Class(NamedTuple):
    """What a request is to flow control: the header lines that tell it, its level (None: it is exempt), its flow."""

    headers: bytes
    level: Level | None
    flow: int = 0
    schema: str = ""
    distinguisher: str = ""


_EXEMPT = Class(b"", None)


class _Schema(NamedTuple):
    precedence: int
    name: str
    uid: str
    level: str
    distinguisher: str
    rules: list[Object]


class FlowControl:
    """Classifies requests; the seats are those of the class's level."""

    def __init__(self, store: Store, catalog: Catalog, options: ServerOptions) -> None:
        self._store = store
        self._prefixes = {
            resource: rtype.key_prefix
            for resource in ("flowschemas", "prioritylevelconfigurations")
            if (rtype := catalog.get(GROUP, resource)) is not None
        }
        self.enabled = options.enable_priority_and_fairness
        self.levels = Levels(options.max_requests_inflight + options.max_mutating_requests_inflight)
        if not self.enabled:
            reading, writing = options.max_requests_inflight, options.max_mutating_requests_inflight
            self.levels.configure(
                {"readOnly": Shape(reading, borrowing_percent=0), "mutating": Shape(writing, borrowing_percent=0)}
            )
        self.generation = 0
        """Rises when requests may belong to other classes."""
        self._classes: dict[Any, Class] = {}
        self._schemas: list[_Schema] = []
        self._uids: dict[str, str] = {}
        self._subscription: Subscription | None = None

    def start(self) -> None:
        if self.enabled:
            start, end = f"/registry/{GROUP}/".encode(), f"/registry/{GROUP}0".encode()
            self._subscription = self._store.subscribe(start, end, self._on_commit)
            self._load()

    def stop(self) -> None:
        if self._subscription is not None:
            self._subscription.cancel()
            self._subscription = None

    # ---------------------------------------------------------------- classification

    def classify(self, user: UserInfo, attributes: Attributes) -> Class:
        key = (user.name, user.groups, attributes.key if attributes.is_resource else (attributes.verb, attributes.path))
        found = self._classes.get(key)
        if found is None:
            found = self._classify(user, attributes) if self.enabled else self._limited(user, attributes)
            if len(self._classes) >= _CLASSES_MAX:
                self._classes.clear()
            self._classes[key] = found
        return found

    def _limited(self, user: UserInfo, attributes: Attributes) -> Class:
        if _MASTERS in user.groups:
            return _EXEMPT
        return Class(b"", self.levels.get("readOnly" if attributes.verb in _READS else "mutating"))

    def _classify(self, user: UserInfo, attributes: Attributes) -> Class:
        for schema in self._schemas:
            if any(_rule_matches(rule, user, attributes) for rule in schema.rules):
                uid = self._uids.get(schema.level, "")
                lines = (f"X-Kubernetes-Pf-Flowschema-Uid: {schema.uid}", f"X-Kubernetes-Pf-Prioritylevel-Uid: {uid}")
                headers = "".join(f"{line}\r\n" for line in lines).encode()
                told = _distinguisher(schema, user, attributes)
                return Class(headers, self.levels.get(schema.level), _flow(schema, told), schema.name, told)
        return _EXEMPT

    # ---------------------------------------------------------------- configuration

    def _on_commit(self, events: list[Event], revision: int) -> None:
        if events:
            self._load()

    def _load(self) -> None:
        self.generation += 1
        self._classes.clear()
        levels = self._stored("prioritylevelconfigurations")
        self._uids = {level["metadata"]["name"]: level["metadata"]["uid"] for level in levels}
        limited = [level for level in levels if level["spec"].get("type") != "Exempt"]
        self.levels.configure({level["metadata"]["name"]: _shape(level["spec"]) for level in limited})
        self._schemas = sorted(
            _Schema(
                schema["spec"].get("matchingPrecedence", 1000),
                schema["metadata"]["name"],
                schema["metadata"]["uid"],
                schema["spec"]["priorityLevelConfiguration"]["name"],
                (schema["spec"].get("distinguisherMethod") or {}).get("type", ""),
                schema["spec"].get("rules") or [],
            )
            for schema in self._stored("flowschemas")
            if schema["spec"]["priorityLevelConfiguration"]["name"] in self._uids  # a dangling one takes nothing
        )

    def _stored(self, resource: str) -> list[Object]:
        prefix = self._prefixes.get(resource)
        if prefix is None:
            return []
        return [msgpack.unpackb(item.value) for item in self._store.scan(prefix, prefix[:-1] + b"0")]


def _shape(spec: Object) -> Shape:
    limited = spec.get("limited") or {}
    queuing = (limited.get("limitResponse") or {}).get("queuing") or {}
    shares = limited.get("nominalConcurrencyShares")
    return Shape(
        shares=_NOMINAL_SHARES if shares is None else shares,
        lendable_percent=limited.get("lendablePercent") or 0,
        borrowing_percent=limited.get("borrowingLimitPercent"),
        queues=queuing.get("queues", 0),
        hand_size=queuing.get("handSize", 1),
        queue_length=queuing.get("queueLengthLimit", 0),
    )


def _distinguisher(schema: _Schema, user: UserInfo, attributes: Attributes) -> str:
    """What tells a request's flow from the schema's others."""
    return {"ByUser": user.name, "ByNamespace": attributes.namespace}.get(schema.distinguisher, "")


def _flow(schema: _Schema, distinguisher: str) -> int:
    """The flow of a request as a number that shuffle sharding deals hands by."""
    return int.from_bytes(hashlib.sha256(f"{schema.name},{distinguisher}".encode()).digest()[:8])


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
