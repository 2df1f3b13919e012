"""Plans: what the registry has made of some text before, as a form to be filled from the contents of other text of the
same shape. changes.py and creations.py say when that is the same as going the long way; a plan has to foretell one
result rightly before it is believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastkube._shapes import Form, Shapeless

if TYPE_CHECKING:
    from fastkube._shapes import Place
    from fastkube.registry.strategy import Call

_PLANS_MAX = 1024
_SEEN_MAX = 8192

About = tuple[str, ...]
Key = tuple[About, bytes, bytes, bytes]
"""What the result depends on besides, the shapes of the value before and of the body, and the pattern of contents."""


class Plan:
    """`constancy` is admission's, under which it holds."""

    __slots__ = ("constancy", "form", "is_proven", "warnings")

    def __init__(self, constancy: int, form: Form, warnings: list[str]) -> None:
        self.constancy = constancy
        self.form = form
        self.warnings = warnings
        self.is_proven = False


class Plans:
    """The plans of one registry. One is made when the same comes for the second time: most come once."""

    def __init__(self) -> None:
        self._plans: dict[Key, Plan] = {}
        self._seen: set[int] = set()
        self._refuted: set[int] = set()

    def find(self, key: Key, constancy: int) -> Plan | None:
        """A plan that is believed."""
        plan = self._plans.get(key)
        return plan if plan is not None and plan.is_proven and plan.constancy == constancy else None

    def learn(
        self, key: Key, constancy: int, place: Place, contents: list[bytes], value: bytes, warnings: list[str]
    ) -> None:
        """`value` is what the long way has made of these contents; where its holes are says `place`."""
        plan = self._plans.get(key)
        if plan is None or plan.constancy != constancy:
            if hash(key) in self._refuted or not self._comes_again(key):
                return
            if len(self._plans) >= _PLANS_MAX:
                self._plans.clear()
            try:
                self._plans[key] = Plan(constancy, Form(value, place, contents), warnings)
            except Shapeless:
                return
        elif plan.form.fill(contents) == value and plan.warnings == warnings:
            plan.is_proven = True
        else:
            del self._plans[key]
            _remember(self._refuted, key)

    def _comes_again(self, key: Key) -> bool:
        if hash(key) in self._seen:
            return True
        _remember(self._seen, key)
        return False


def _remember(kept: set[int], key: Key) -> None:
    if len(kept) >= _SEEN_MAX:
        kept.clear()
    kept.add(hash(key))


def about(call: Call, media: str) -> About:
    """What the result depends on besides body and object."""
    rtype = call.rtype
    options = (call.field_manager, call.field_validation, "force" if call.force else "")
    return (rtype.group, rtype.resource, call.subresource, call.version, call.verb, media, *options)
