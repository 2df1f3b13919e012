"""The attendants of the built-in kinds: what is kept in step with their objects, or asked of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastkube.registry.admin_access import AdminAccess

if TYPE_CHECKING:
    from fastkube.registry.registry import Attendant
    from fastkube.registry.services import ServiceAddresses
    from fastkube.store import Store


def builtin_attendants(store: Store, addresses: ServiceAddresses) -> dict[tuple[str, str], Attendant]:
    admin_access = AdminAccess(store)
    return {
        ("", "services"): addresses,
        ("resource.k8s.io", "resourceclaims"): admin_access,
        ("resource.k8s.io", "resourceclaimtemplates"): admin_access,
    }
