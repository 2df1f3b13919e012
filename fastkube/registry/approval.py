"""The approval subresource of certificate signing requests: only the conditions change, and Approved and Denied stay.

The status subresource of the same kind is the other way round: there these two conditions may not change.
"""

from __future__ import annotations

from fastkube.registry.strategy import Strategy
from fastkube.registry.updating import Rules


def approval_rules(strategy: Strategy) -> Rules:
    from fastkube.registry.strategies.certificates import prepare_for_approval, validate_approval

    return Rules(prepare_for_approval, validate_approval, raises_generation=False)
