"""Who may do what: system:masters everything, then the authorizers of --authorization-mode in their order.

Each may allow or have no opinion; what nobody allows is refused, with every reason that was given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fastkube import errors
from fastkube.api.field import quote
from fastkube.errors import ApiError
from fastkube.server.nodeauth import NODES_GROUP, NodeAuthorizer, node_of
from fastkube.server.rbac import Rbac
from fastkube.server.request import Attributes

if TYPE_CHECKING:
    from fastkube.api.catalog import Catalog
    from fastkube.registry.strategy import UserInfo
    from fastkube.store import Store

MASTERS = "system:masters"


class Decision(NamedTuple):
    allowed: bool
    reason: str = ""


class Authorizer:
    """`allows` is the hot path; `decide` also says why."""

    def __init__(self, modes: tuple[str, ...], store: Store, catalog: Catalog) -> None:
        self._always = "AlwaysAllow" in modes
        self.rbac = Rbac(store, catalog) if "RBAC" in modes else None
        self.node = NodeAuthorizer(store, catalog) if "Node" in modes else None
        self._node_first = self.rbac is None or self.node is None or modes.index("Node") < modes.index("RBAC")

    def start(self) -> None:
        if self.rbac is not None:
            self.rbac.start()

    def stop(self) -> None:
        if self.rbac is not None:
            self.rbac.stop()
        if self.node is not None:
            self.node.stop()

    def allows(self, user: UserInfo, attributes: Attributes) -> bool:
        groups = user.groups
        if MASTERS in groups or self._always:
            return True
        if self.node is not None and NODES_GROUP in groups and self.node.decide(user, attributes).allowed:
            return True
        return self.rbac is not None and self.rbac.allows(user, attributes)

    def decide(self, user: UserInfo, attributes: Attributes) -> Decision:
        if MASTERS in user.groups or self._always:
            return Decision(True)
        reasons = []
        if self.node is not None:
            allowed, reason = self.node.decide(user, attributes)
            if allowed:
                return Decision(True, reason)
            reasons.append(reason)
        if self.rbac is not None:
            reason = self.rbac.reason(user, attributes)
            if self.rbac.allows(user, attributes):
                return Decision(True, reason)
            reasons.append(reason)
        if not self._node_first:
            reasons.reverse()
        return Decision(False, "\n".join(filter(None, reasons)))

    def complete_rules(self, user: UserInfo) -> bool:
        """Whether RBAC's rules are all there is to say about a user."""
        return self.node is None or node_of(user) is None

    def check(self, user: UserInfo, attributes: Attributes) -> None:
        """Raises 403 in upstream's words."""
        if not self.allows(user, attributes):
            raise forbidden(user, attributes, self.decide(user, attributes).reason)


def forbidden(user: UserInfo, attributes: Attributes, reason: str = "") -> ApiError:
    """What the user may not do, and why as far as an authorizer has said."""
    if not attributes.is_resource:
        told = f"User {quote(user.name)} cannot {attributes.verb} path {quote(attributes.path)}"
        message = f"forbidden: {told}: {reason}" if reason else f"forbidden: {told}"
        return ApiError(403, "Forbidden", message, details={})
    resource = attributes.resource
    if attributes.subresource:
        resource += f"/{attributes.subresource}"
    where = f"in the namespace {quote(attributes.namespace)}" if attributes.namespace else "at the cluster scope"
    told = f"User {quote(user.name)} cannot {attributes.verb} resource {quote(resource)}"
    told += f" in API group {quote(attributes.group)} {where}"
    return errors.forbidden(
        attributes.group, attributes.resource, attributes.name, f"{told}: {reason}" if reason else told
    )
