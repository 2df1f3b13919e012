from collections.abc import Callable
from typing import Any

COMPILED: bool
PREFACE: bytes
STREAMS_MAX: int

class Fault(Exception): ...

class Stream:
    id: int
    path: bytes
    headers: list[tuple[bytes, bytes]]
    context: Any
    ended: bool
    closed: bool
    @property
    def queued(self) -> int: ...

class Connection:
    streams: dict[int, Stream]
    def __init__(
        self,
        on_message: Callable[[Stream, bytes], object],
        on_end: Callable[[Stream], object],
        on_reset: Callable[[Stream], object],
        on_writable: Callable[[Stream], object],
        message_max: int,
    ) -> None: ...
    def feed(self, data: bytes) -> None: ...
    def take(self) -> bytes: ...
    @property
    def pending(self) -> bool: ...
    def reply(self, stream: Stream, message: bytes) -> None: ...
    def send(self, stream: Stream, message: bytes) -> None: ...
    def finish(self, stream: Stream) -> None: ...
    def refuse(self, stream: Stream, code: int, text: str) -> None: ...
    def go_away(self) -> None: ...
