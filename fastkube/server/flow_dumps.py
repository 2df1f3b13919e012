"""/debug/api_priority_and_fairness: the state of flow control, in upstream's tables.

dump_priority_levels    a row for each priority level
dump_queues             a row for each of their queues
dump_requests           a row for each request that waits or is executed at a limited level;
                        with ?includeRequestDetails=1 also whose it is and what it is about
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastkube.clock import rfc3339_micro
from fastkube.server.answer import Answer
from fastkube.server.calls import no_such_path
from fastkube.server.fair_queues import Ticket
from fastkube.server.media import TEXT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastkube.server.app import ApiServer
    from fastkube.server.repeated_creates import Writing
    from fastkube.server.request import Request

ROOT = "/debug/api_priority_and_fairness/"

_LEVELS = (
    "PriorityLevelName", "ActiveQueues", "IsIdle", "IsQuiescing", "WaitingRequests", "ExecutingRequests",
    "DispatchedRequests", "RejectedRequests", "TimedoutRequests", "CancelledRequests",
)  # fmt: skip
_QUEUES = (
    "PriorityLevelName", "Index", "PendingRequests", "ExecutingRequests", "SeatsInUse", "NextDispatchR",
    "InitialSeatsSum", "MaxSeatsSum", "TotalWorkSum",
)  # fmt: skip
_REQUESTS = (
    "PriorityLevelName", "FlowSchemaName", "QueueIndex", "RequestIndexInQueue", "FlowDistingsher", "ArriveTime",
    "InitialSeats", "FinalSeats", "AdditionalLatency", "StartTime",
)  # fmt: skip
_DETAILS = ("UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource")
_NEVER = "0001-01-01T00:00:00Z"

Row = tuple[object, ...]


def dump(server: ApiServer, request: Request) -> Answer:
    match request.info.path.removeprefix(ROOT):
        case "dump_priority_levels":
            return _table(_LEVELS, _levels(server))
        case "dump_queues":
            return _table(_QUEUES, _queues(server))
        case "dump_requests":
            detailed = bool(request.query.get("includeRequestDetails"))
            return _table((*_REQUESTS, *_DETAILS) if detailed else _REQUESTS, _requests(server, detailed))
    return no_such_path()


def _levels(server: ApiServer) -> Iterable[Row]:
    for level in sorted(server.flow.levels.all(), key=lambda level: level.name):
        active = sum(bool(queue.waiting) for queue in level.queues)
        idle = not (level.waiting or level.executing)
        counts = (level.waiting, level.executing, level.dispatched, level.rejected, level.timed_out, level.cancelled)
        yield (level.name, active, idle, False, *counts)


def _queues(server: ApiServer) -> Iterable[Row]:
    """Of the work of a queue one number is kept: how long its requests ran, in seconds."""
    for level in server.flow.levels.all():
        for index, queue in enumerate(level.queues):
            waiting, executing = len(queue.waiting), queue.executing
            sums = (waiting, waiting, f"{waiting * level.estimate_s:.8f}ss")
            yield (level.name, index, waiting, executing, executing, f"{queue.virtual_s:.8f}ss", *sums)


def _requests(server: ApiServer, detailed: bool) -> Iterable[Row]:
    places = {
        waiting: (index, place)
        for level in server.flow.levels.all()
        for index, queue in enumerate(level.queues)
        for place, waiting in enumerate(queue.waiting.values())
    }
    offset = server.clock.time() - server.now()
    for request in list(server.running):
        flow = server.flow.classify(request.user, request.info)
        if flow.level is None:
            continue
        arrived, started = rfc3339_micro(request.started + offset), _NEVER
        index, place = places.get(request, (-1, -1))
        if request.seat is not None:
            started = arrived
            if isinstance(request.seat, Ticket):
                index, started = request.seat.index, rfc3339_micro(request.seat.started + offset)
        row = (flow.level.name, flow.schema, index, place, flow.distinguisher, arrived, 1, 0, "0s", started)
        yield (*row, *_details(request)) if detailed else row


def _details(request: Request | Writing) -> Row:
    info = request.info
    version = f"{info.group}/{info.version}" if info.group else info.version
    return (
        request.user.name,
        info.verb,
        info.path,
        info.namespace,
        info.name,
        version,
        info.resource,
        info.subresource,
    )


def _table(header: Row, rows: Iterable[Row]) -> Answer:
    """Columns in line, each but the last with a comma."""
    cells = [[_cell(value) for value in row] for row in (header, *rows)]
    widths = [max(8, 2 + max(len(row[column]) for row in cells)) for column in range(len(header))]
    lines = (
        "".join(f"{text},".ljust(width) for text, width in zip(row[:-1], widths, strict=False)) + row[-1]
        for row in cells
    )
    return Answer(200, "".join(f"{line}\n" for line in lines).encode(), TEXT)


def _cell(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
