"""What a reconcile may ask for: plain data, performed in order by the runner.

A list of actions is one attempt. The first that fails ends it, and the key is tried again with back-off; whatever was
done is seen by the next attempt. Reasons in `ignore` are no failures: what was wanted is so already, or is moot.
`otherwise` gives the actions to perform after a failure (an event, a condition) before the attempt ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fastkube.errors import ApiError

Object = dict[str, Any]

GONE = frozenset({"NotFound"})
EXISTS = frozenset({"AlreadyExists"})
CONFLICT = frozenset({"Conflict"})
NOTHING: frozenset[str] = frozenset()


class Action:
    """One step; see the subclasses."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Write(Action):
    """What all changes through the API have in common."""

    resource: str
    obj: Object
    """The object to write, or (Patch, Delete) the one it is about, as it is known."""
    ignore: frozenset[str] = NOTHING
    otherwise: Callable[[ApiError], Sequence[Action]] | None = None
    then: Callable[[Object], Sequence[Action]] | None = None
    """What to do with the server's answer: an event with the name it gave."""


@dataclass(frozen=True, slots=True)
class Create(Write):
    """POST. In a namespace that is terminating nothing can be made: the attempt ends without a failure."""


@dataclass(frozen=True, slots=True)
class Update(Write):
    """PUT of the whole object, of its status with `subresource="status"`; its resourceVersion guards against others."""

    subresource: str = ""


@dataclass(frozen=True, slots=True)
class Patch(Write):
    """PATCH of the object `obj` names."""

    body: Any = None
    kind: Literal["json", "merge", "strategic", "apply"] = "merge"
    subresource: str = ""
    field_manager: str = ""
    force: bool = False


@dataclass(frozen=True, slots=True)
class Post(Write):
    """POST of `body` to a subresource (eviction, token) of the object `obj` names."""

    subresource: str = ""
    body: Any = None


@dataclass(frozen=True, slots=True)
class Delete(Write):
    """DELETE of exactly the object that is known: another of the same name is left alone (a Conflict)."""

    propagation: Literal["", "Background", "Foreground", "Orphan"] = ""
    grace_period_s: int | None = None
    resource_version: str = ""


@dataclass(frozen=True, slots=True)
class Together(Action):
    """Writes without an order among them, performed concurrently; all are tried before the first failure is told.

    With `slow_start` they go out in batches of 1, 2, 4, ...: a batch with a failure is the last. What would fail for
    all (a quota, a webhook) then costs one request, not thousands.
    """

    actions: Sequence[Action]
    slow_start: bool = False
    otherwise: Callable[[ApiError], Sequence[Action]] | None = None


@dataclass(frozen=True, slots=True)
class Tell(Action):
    """An Event about an object."""

    about: Object
    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    component: str = ""


@dataclass(frozen=True, slots=True)
class Requeue(Action):
    """Look at the key again after so many seconds, whatever happens until then."""

    after_s: float


@dataclass(frozen=True, slots=True)
class Remember(Action):
    """Keep a value until the next attempt (`Context.memory[key]`), as long as this process lives; None forgets it."""

    key: str
    value: Any


@dataclass(frozen=True, slots=True)
class Fail(Action):
    """End the attempt as failed: it is repeated with back-off."""

    message: str


@dataclass(frozen=True, slots=True)
class Ask(Action):
    """Read from the server, past the informers, and reconcile again with the answer in `view.live[path]`.

    The answer is what was read, None where there is nothing (404). A reconcile that asks does nothing else.
    With `metadata_only` objects come as PartialObjectMetadata; with `tolerant` any failure is an answer too, the
    ApiError itself.
    """

    path: str
    metadata_only: bool = False
    uid: str = ""
    """Which object is looked for, where one of another uid is as good as none."""
    tolerant: bool = False

    @property
    def key(self) -> str:
        """What the answer is found under."""
        return self.path


@dataclass(frozen=True, slots=True)
class Review(Action):
    """Let the server judge (a POST that stores nothing: a SubjectAccessReview): its answer is `view.live[key]`."""

    key: str
    resource: str
    obj: Object


@dataclass(frozen=True, slots=True)
class Discover(Action):
    """Ask what the server serves: the Discovery is in `view.live[Discover.KEY]` afterwards."""

    KEY: ClassVar[str] = "discovery"


@dataclass(frozen=True, slots=True)
class DeleteAll(Action):
    """DELETE of a whole collection: everything of a resource in a namespace."""

    resource: str
    namespace: str
    propagation: Literal["", "Background", "Foreground", "Orphan"] = "Background"


def status_update(resource: str, obj: Object, status: Object, **more: Any) -> Update:
    """A PUT to /status."""
    return Update(resource, {**obj, "status": status}, subresource="status", **more)
