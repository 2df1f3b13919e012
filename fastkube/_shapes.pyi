from typing import Any, final

COMPILED: bool
ANY: bytes
FOREIGN: bytes
NAME: int
LABEL: int
NODE: int
UID: int
TIME: int
MICRO_TIME: int
ADDRESS: int
TEXT: int
NUMBER: int
GENERATION: int
VERSION: int
ACCESS: int
PREFIX: int
FIELDS: int
NOTHING: int
NETWORK: int
FAMILIES: tuple[bytes, ...]

class Shapeless(ValueError): ...

@final
class Place:
    def __init__(self, told: int | dict[bytes, Any]) -> None: ...

def of_msgpack(value: bytes, place: Place, strict: bool = False) -> tuple[bytes, list[bytes]]: ...
def of_json(body: bytes, place: Place) -> tuple[bytes, list[bytes]]: ...
def fits(kind: int, text: bytes) -> bool: ...
def pattern(contents: list[bytes]) -> bytes | None: ...

@final
class Form:
    def __init__(self, value: bytes, place: Place, contents: list[bytes]) -> None: ...
    def fill(self, contents: list[bytes]) -> bytes: ...

@final
class End:
    uid: str
    is_held: bool
    deleted_at: str | None
    grace_s: int
    def __init__(self, value: bytes) -> None: ...
    def terminating(self, deleted_at: bytes, grace_s: int) -> bytes: ...
