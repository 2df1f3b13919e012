from typing import final

COMPILED: bool
NAME: int
UID: int
TIME: int
VOLUME: int
VERSION: int

def new_uid() -> bytes: ...
def suffix() -> bytes: ...
def packed(name: bytes) -> bytes: ...
def part(
    about: tuple[str, ...], body: bytes, is_msgpack: bool
) -> tuple[tuple[tuple[str, ...], bytes, bytes], bytes]: ...

@final
class Numbers:
    def __init__(self, start: bytes, first: int) -> None: ...
    def draw(self) -> bytes: ...

@final
class Form:
    def __init__(self, pieces: tuple[bytes, ...], holes: bytes) -> None: ...
    def fill(self, contents: tuple[bytes, ...]) -> bytes: ...

@final
class Mould:
    @property
    def constancy(self) -> int: ...
    @property
    def warnings(self) -> list[str]: ...
    def __init__(
        self,
        constancy: int,
        key_prefix: bytes,
        base: str,
        stored: Form,
        shown: Form,
        warnings: list[str],
        volume: bytes,
    ) -> None: ...

@final
class Cast:
    name: bytes
    @property
    def base(self) -> str: ...
    @property
    def key(self) -> bytes: ...
    @property
    def value(self) -> bytes: ...
    def __init__(self, mould: Mould, name: bytes, stamp: bytes) -> None: ...
    def json(self, revision: int) -> bytes: ...
