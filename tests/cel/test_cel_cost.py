"""Estimates of what expressions cost at worst, against numbers that the real estimator is known to give."""

from __future__ import annotations

from typing import Any

import pytest

from fastkube import cel
from fastkube.cel import DYN, Environment, cost, declared


def estimate(text: str, schema: dict[str, Any]) -> int:
    kind = declared(schema) or DYN
    return cost.estimate(cel.compile(text, Environment({"self": kind, "oldSelf": kind})).tree)


@pytest.mark.parametrize(("length", "items"), [(16, 909_090), (63, 333_333), (253, 94_339), (1024, 24_154)])
def test_how_many_items_a_rule_may_search(length: int, items: int) -> None:
    """The greatest maxItems that a kube-apiserver 1.36 accepts for this rule."""

    def over(count: int) -> int:
        schema = {"type": "array", "maxItems": count, "items": {"type": "string", "maxLength": length}}
        return estimate("self.all(x, x.contains('gpu'))", schema)

    assert over(items) <= 10_000_000 < over(items + 1)


NUMBERS = {"type": "object", "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("text", "schema", "wanted"),
    [
        ("self.min <= self.max", NUMBERS, 5),
        ("has(self.min)", NUMBERS, 1),
        ("has(self.min) ? self.min > 0 : true", NUMBERS, 4),
        ("true || self.min > 0", NUMBERS, 3),
        ("[1, 2, 3].all(x, x > 0)", NUMBERS, 10 + 1 + 3 * 5),
        ("self == oldSelf", {"type": "string", "maxLength": 10}, 2 + 4),
        ("self.size() > 1", {"type": "string"}, 3),
        ("self + self == ''", {"type": "string", "maxLength": 10}, 2 + 8),
        ("self.map(x, x + 1)", {"type": "array", "maxItems": 5, "items": {"type": "integer"}}, 1 + 11 + 5 * 14),
        ("self.filter(x, x > 1)", {"type": "array", "maxItems": 5, "items": {"type": "integer"}}, 1 + 11 + 5 * 15),
        ("self.exists_one(x, x > 1)", {"type": "array", "maxItems": 5, "items": {"type": "integer"}}, 1 + 2 + 5 * 4),
    ],
)
def test_estimates(text: str, schema: dict[str, Any], wanted: int) -> None:
    assert estimate(text, schema) == wanted


def test_what_nothing_bounds_costs_everything() -> None:
    assert estimate("'min (' + string(self.min) + ')'", NUMBERS) == cost.UNKNOWN
    assert estimate("'min (%d)'.format([self.min])", NUMBERS) < 100
