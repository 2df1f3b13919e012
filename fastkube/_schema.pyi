from collections.abc import Callable
from typing import Any

COMPILED: bool

class WrongType(ValueError):
    value: str
    go_type: str
    path: list[str]
    struct: str
    def __init__(self, value: str, go_type: str) -> None: ...

class Node:
    kind: int
    keep: int
    preserve: bool
    name: str
    go_type: str
    zero: Any
    parse: Callable[[Any], Any] | None
    items: Any
    def __init__(
        self,
        kind: str,
        name: str = "",
        keep: int = 0,
        go_type: str = "",
        zero: Any = None,
        parse: Callable[[Any], Any] | None = None,
        items: Node | None = None,
        load: Callable[[], dict[str, Any]] | None = None,
    ) -> None: ...
    @property
    def fields(self) -> dict[str, Any]: ...

def walk(node: Node, obj: dict[str, Any]) -> list[str]: ...
def met_empty() -> bool: ...
def nullify(node: Node, obj: dict[str, Any]) -> None: ...
def zero(node: Node) -> Any: ...
def describe(value: Any, whole: bool = False) -> str: ...
