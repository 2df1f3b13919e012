from collections.abc import Callable
from typing import Any

COMPILED: bool
DEPTH_MAX: int

class Field:
    name: str
    number: int
    kind: int
    repeated: bool
    message: Message | None
    values: Field | None
    def __init__(
        self,
        name: str,
        number: int,
        kind: str,
        repeated: bool = False,
        message: Message | None = None,
        values: Field | None = None,
    ) -> None: ...

class Message:
    name: str
    shape: int
    def __init__(self, name: str, load: Callable[[], list[Field]], shape: str = "") -> None: ...
    @property
    def fields(self) -> dict[str, Field]: ...

class Encoder:
    def __init__(self, size: int = 65536) -> None: ...
    def encode(self, message: Message, obj: Any) -> bytes: ...

def decode(message: Message, source: bytes) -> Any: ...
