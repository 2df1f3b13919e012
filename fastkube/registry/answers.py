"""What the registry's verbs return: encoded objects with their revisions, never decoded ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class Stored(NamedTuple):
    """An encoded object (msgpack, storage version, no resourceVersion) and the revision which stands for it.

    Revision 0: the object has no resourceVersion (a dry-run create, a Status, a review).
    """

    value: bytes
    revision: int


class Page(NamedTuple):
    """One page of a list, read at `revision`. `remaining` is None where upstream leaves remainingItemCount out."""

    items: Iterable[tuple[bytes, int]]
    """Encoded objects and their revisions. Those of a list without a limit are read as they are asked for, once."""

    revision: int
    continue_token: str = ""
    remaining: int | None = None


class Outcome(NamedTuple):
    """The answer to a delete: the object as it was or now is, or a Status; and the HTTP code."""

    result: Stored | dict[str, Any]
    code: int = 200
