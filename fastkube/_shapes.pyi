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
FAMILIES: tuple[bytes, ...]

class Shapeless(ValueError): ...

def of_msgpack(value: bytes, places: dict[bytes, Any], strict: bool = False) -> tuple[bytes, list[bytes]]: ...
def of_json(body: bytes, places: dict[bytes, Any]) -> tuple[bytes, list[bytes]]: ...
def fits(kind: int, text: bytes) -> bool: ...
def pattern(contents: list[bytes]) -> bytes | None: ...

@final
class Form:
    def __init__(self, value: bytes, places: dict[bytes, Any], contents: list[bytes]) -> None: ...
    def fill(self, contents: list[bytes]) -> bytes: ...
