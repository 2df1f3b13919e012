"""Authorization by a webhook: it is sent a SubjectAccessReview (upstream's protocol) and allows, denies or passes.

Whoever asks the authorizer does so without waiting; a question that the webhook has not answered yet is `Undecided`:
its asker waits for `settle` and asks again (`settled` does both). Answers are kept for their TTL, and as long as it
takes to ask again when that is zero.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import orjson

from fastkube.server.outbound import PeerError
from fastkube.server.token_webhook import ask

if TYPE_CHECKING:
    from fastkube.clock import Clock
    from fastkube.registry.strategy import UserInfo
    from fastkube.server.outbound import Peer
    from fastkube.server.request import Attributes

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Object = dict[str, Any]

_SETTLE_S = 0.25
_KNOWN_MAX = 8192
_DENY, _NO_OPINION = "Deny", "NoOpinion"
FAILURE_POLICIES = (_DENY, _NO_OPINION)


class Decision(NamedTuple):
    """`denied`: nobody else is asked. Neither allowed nor denied is no opinion."""

    allowed: bool
    reason: str = ""
    denied: bool = False


class Undecided(Exception):
    """The webhook has not been asked yet."""

    def __init__(self, webhook: WebhookAuthorizer, spec: Object, key: bytes) -> None:
        super().__init__()
        self._webhook, self._spec, self._key = webhook, spec, key

    async def settle(self) -> None:
        await self._webhook.ask(self._spec, self._key)


async def settled(question: Callable[[], Result]) -> Result:
    """What the function gives once the webhooks have answered whatever it asks."""
    while True:
        try:
            return question()
        except Undecided as missing:
            await missing.settle()


class WebhookConfig(NamedTuple):
    """`conditions` are asked first: False is no opinion; they raise ValueError for what they cannot tell."""

    version: str = "v1beta1"
    timeout_s: float = 30.0
    authorized_ttl_s: float = 300.0
    unauthorized_ttl_s: float = 30.0
    failure_policy: str = _NO_OPINION
    conditions: tuple[Callable[[Object], bool], ...] = ()


class WebhookAuthorizer:
    def __init__(self, peer: Peer, config: WebhookConfig, clock: Clock) -> None:
        self._peer = peer
        self._config = config
        self._clock = clock
        self._known: dict[bytes, tuple[Decision, float]] = {}
        self._under_way: dict[bytes, asyncio.Task[None]] = {}

    def decide(self, user: UserInfo, attributes: Attributes) -> Decision:
        """Raises Undecided for what the webhook must be asked first."""
        spec = _spec(user, attributes)
        try:
            if not all(condition(spec) for condition in self._config.conditions):
                return Decision(False)
        except ValueError as problem:
            return self._on_failure(str(problem))
        key = orjson.dumps(spec, option=orjson.OPT_SORT_KEYS)
        known = self._known.get(key)
        if known is None or known[1] <= self._clock.monotonic():
            raise Undecided(self, spec, key)
        return known[0]

    async def ask(self, spec: Object, key: bytes) -> None:
        """Asks the webhook and keeps what it says; the same question is asked once at a time."""
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.get_running_loop().create_task(self._ask(spec, key))
            task.add_done_callback(lambda done: self._under_way.pop(key, None))
        await asyncio.shield(task)

    async def _ask(self, spec: Object, key: bytes) -> None:
        config = self._config
        api_version = f"authorization.k8s.io/{config.version}"
        sent = _in_v1beta1(spec) if config.version == "v1beta1" else spec
        review = {"kind": "SubjectAccessReview", "apiVersion": api_version, "metadata": {}, "spec": sent}
        ttl_s = 0.0
        try:
            status = (await ask(self._peer, review, config.timeout_s)).get("status") or {}
            decision = _decision(status)
            ttl_s = config.authorized_ttl_s if decision.allowed else config.unauthorized_ttl_s
        except PeerError as problem:
            log.warning("the authorization webhook failed: %s", problem)
            decision = self._on_failure(str(problem))
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        self._known[key] = (decision, self._clock.monotonic() + max(ttl_s, _SETTLE_S))

    def _on_failure(self, problem: str) -> Decision:
        return Decision(False, problem, denied=self._config.failure_policy == _DENY)

    async def close(self) -> None:
        for task in list(self._under_way.values()):
            task.cancel()
        await self._peer.close()


def _decision(status: Object) -> Decision:
    allowed, denied = bool(status.get("allowed")), bool(status.get("denied"))
    reason = str(status.get("reason") or "")
    if allowed and denied:
        return Decision(False, "webhook subject access review returned both allow and deny response", denied=True)
    return Decision(allowed, reason, denied)


def _spec(user: UserInfo, attributes: Attributes) -> Object:
    """The SubjectAccessReviewSpec of a question."""
    spec: Object = {}
    if attributes.is_resource:
        told = {
            "namespace": attributes.namespace,
            "verb": attributes.verb,
            "group": attributes.group,
            "version": attributes.version,
            "resource": attributes.resource,
            "subresource": attributes.subresource,
            "name": attributes.name,
        }
        asked: Object = {key: value for key, value in told.items() if value}
        if attributes.field_selector:
            asked["fieldSelector"] = {"rawSelector": attributes.field_selector}
        spec["resourceAttributes"] = asked
    else:
        spec["nonResourceAttributes"] = {"path": attributes.path, "verb": attributes.verb}
    spec["user"] = user.name
    if user.groups:
        spec["groups"] = list(user.groups)
    if user.extra:
        spec["extra"] = user.extra
    if user.uid:
        spec["uid"] = user.uid
    return spec


def _in_v1beta1(spec: Object) -> Object:
    """There the groups are called otherwise."""
    if "groups" not in spec:
        return spec
    return {**{key: value for key, value in spec.items() if key != "groups"}, "group": spec["groups"]}
