"""Who may do what: system:masters everything, then the authorizers of --authorization-mode in their order.

Each may allow or have no opinion, webhooks may also deny; what nobody allows is refused, with every reason that was
given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastkube import errors
from fastkube.api.field import quote
from fastkube.errors import ApiError
from fastkube.server.authz_webhook import Decision, WebhookAuthorizer
from fastkube.server.nodeauth import NODES_GROUP, NodeAuthorizer, node_of
from fastkube.server.rbac import Rbac
from fastkube.server.request import Attributes

if TYPE_CHECKING:
    from fastkube.api.catalog import Catalog
    from fastkube.registry.strategy import UserInfo
    from fastkube.store import Store

MASTERS = "system:masters"


class Authorizer:
    """`allows` is the hot path; `decide` also says why. Where webhooks are among the authorizers both raise Undecided
    for what those have not been asked yet (see `authz_webhook`)."""

    def __init__(self, modes: Sequence[str | WebhookAuthorizer], store: Store, catalog: Catalog) -> None:
        self.rbac = Rbac(store, catalog) if "RBAC" in modes else None
        self.node = NodeAuthorizer(store, catalog) if "Node" in modes else None
        self._changes = 0
        self._use(modes)

    def _use(self, modes: Sequence[str | WebhookAuthorizer]) -> None:
        self._modes = tuple(modes)
        self._webhooks = [mode for mode in modes if isinstance(mode, WebhookAuthorizer)]
        self._always = "AlwaysAllow" in modes and not self._webhooks
        self._changes += 1

    async def replace(self, modes: Sequence[str | WebhookAuthorizer]) -> None:
        """Other authorizers from now on; raises ValueError for one that has to be there from the start."""
        for mode, there in (("Node", self.node), ("RBAC", self.rbac)):
            if mode in modes and there is None:
                raise ValueError(
                    f"authorizer type {mode} is not allowed if it was not enabled at initial server startup"
                )
        old = self._webhooks
        self._use(modes)
        for webhook in old:
            await webhook.close()

    def start(self) -> None:
        if self.rbac is not None:
            self.rbac.start()

    def stop(self) -> None:
        if self.rbac is not None:
            self.rbac.stop()
        if self.node is not None:
            self.node.stop()

    async def close(self) -> None:
        for webhook in self._webhooks:
            await webhook.close()

    def allows(self, user: UserInfo, attributes: Attributes) -> bool:
        groups = user.groups
        if MASTERS in groups or self._always:
            return True
        if self._webhooks:
            return self.decide(user, attributes).allowed
        if self.node is not None and NODES_GROUP in groups and self.node.decide(user, attributes).allowed:
            return True
        return self.rbac is not None and self.rbac.allows(user, attributes)

    @property
    def generation(self) -> int:
        """Rises whenever what `allows_all` says may have changed."""
        return self._changes + (self.rbac.generation if self.rbac is not None else 0)

    def allows_all(self, user: UserInfo, attributes: Attributes) -> bool:
        """Whether the user may do this to any object, whatever its name."""
        if MASTERS in user.groups or self._always:
            return True
        return not self._webhooks and self.rbac is not None and self.rbac.allows_all(user, attributes)

    def decide(self, user: UserInfo, attributes: Attributes) -> Decision:
        if MASTERS in user.groups:
            return Decision(True)
        reasons = []
        for mode in self._modes:
            decision = self._ask(mode, user, attributes)
            if decision.allowed or decision.denied:
                return decision
            reasons.append(decision.reason)
        return Decision(False, "\n".join(filter(None, reasons)))

    def _ask(self, mode: str | WebhookAuthorizer, user: UserInfo, attributes: Attributes) -> Decision:
        """What one authorizer says."""
        if isinstance(mode, WebhookAuthorizer):
            return mode.decide(user, attributes)
        if mode == "AlwaysAllow":
            return Decision(True)
        if mode == "AlwaysDeny":
            return Decision(False, "Everything is forbidden.")
        if mode == "Node":
            assert self.node is not None
            return Decision(*self.node.decide(user, attributes))
        assert self.rbac is not None
        return Decision(self.rbac.allows(user, attributes), self.rbac.reason(user, attributes))

    def unresolved(self, user: UserInfo) -> list[str]:
        """Why RBAC's rules are not all there is to say about a user; nothing where they are."""
        problems = []
        if self.node is not None and node_of(user) is not None:
            problems.append("node authorizer does not support user rule resolution")
        return problems + ["webhook authorizer does not support user rule resolution"] * len(self._webhooks)

    def check(self, user: UserInfo, attributes: Attributes) -> None:
        """Raises 403 in upstream's words."""
        if not self.allows(user, attributes):
            raise forbidden(user, attributes, self.decide(user, attributes).reason)


_NOSNIFF = {"X-Content-Type-Options": "nosniff"}


def forbidden(user: UserInfo, attributes: Attributes, reason: str = "") -> ApiError:
    """What the user may not do, and why as far as an authorizer has said."""
    if not attributes.is_resource:
        told = f"User {quote(user.name)} cannot {attributes.verb} path {quote(attributes.path)}"
        message = f"forbidden: {told}: {reason}" if reason else f"forbidden: {told}"
        return ApiError(403, "Forbidden", message, details={}, headers=_NOSNIFF)
    resource = attributes.resource
    if attributes.subresource:
        resource += f"/{attributes.subresource}"
    where = f"in the namespace {quote(attributes.namespace)}" if attributes.namespace else "at the cluster scope"
    told = f"User {quote(user.name)} cannot {attributes.verb} resource {quote(resource)}"
    told += f" in API group {quote(attributes.group)} {where}"
    error = errors.forbidden(
        attributes.group, attributes.resource, attributes.name, f"{told}: {reason}" if reason else told
    )
    error.headers = _NOSNIFF
    return error
