"""Server-side apply: refused by name until fastkube.api.apply is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastkube.errors import ApiError
from fastkube.registry.answers import Stored
from fastkube.registry.strategy import Call

if TYPE_CHECKING:
    from fastkube.registry.facets import Facet
    from fastkube.registry.registry import Registry


async def apply(registry: Registry, call: Call, facet: Facet, body: bytes) -> tuple[Stored, bool]:
    raise ApiError(501, "NotImplemented", "server-side apply (application/apply-patch+yaml) is not implemented yet")
