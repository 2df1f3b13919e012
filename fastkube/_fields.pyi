from collections.abc import Callable
from typing import Any

COMPILED: bool
SCALAR: int
LIST: int
MAP: int
DEDUCED: int
LEAF: dict[str, Any]
ANYTHING: Type

class Nameless(ValueError): ...

class Type:
    kind: int
    leaf: bool
    struct: bool
    always: bool
    open: bool
    fixed: bool
    element: str
    scalar: str
    keys: dict[str, Any]
    items: Type | None
    def __init__(
        self,
        kind: int,
        *,
        element: str = "",
        leaf: bool = False,
        struct: bool = False,
        always: bool = False,
        open: bool = False,
        fixed: bool = False,
        scalar: str = "",
        keys: dict[str, Any] | None = None,
        items: Type | None = None,
        load: Callable[[], dict[str, Type]] | None = None,
    ) -> None: ...
    @property
    def fields(self) -> dict[str, Type]: ...

def value_element(value: Any) -> str: ...
def keys_element(keys: dict[str, Any]) -> str: ...
def key_element(key: str, value: str) -> str: ...
def element(kind: Type, item: Any) -> str: ...
def indexed(kind: Type, items: Any) -> dict[str, list[Any]]: ...
def everything(kind: Type, value: Any) -> dict[str, Any]: ...
def made(kind: Type, value: dict[str, Any]) -> dict[str, Any]: ...
def compare(kind: Type, left: Any, right: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]: ...
def both_fit(kind: Type, left: Any, right: Any) -> bool: ...
