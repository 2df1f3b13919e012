"""CEL's macros: calls that bind variables, or that test for presence, known by name and number of arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastkube.cel.ast import Bind, Fold, Ident, Node, Select

if TYPE_CHECKING:
    from fastkube.cel.parser import _Parser

_NOT_SIMPLE = "argument must be a simple name"
_DECIDING = frozenset(("all", "exists", "exists_one", "existsOne"))
_TRANSFORMING = frozenset(("transformList", "transformMap", "transformMapEntry"))


def expand_function(parser: _Parser, name: str, args: list[Node], pos: int) -> Node | None:
    """The macro of a call without a target; None if it is a function's call."""
    if name != "has" or len(args) != 1:
        return None
    arg = args[0]
    if not isinstance(arg, Select):
        parser.complain(arg.pos, "invalid argument to has() macro")
        return arg
    arg.test = True
    arg.pos = pos  # what is wrong with it is told of the macro
    return arg


def expand_method(parser: _Parser, name: str, target: Node, args: list[Node], pos: int) -> Node | None:
    """The macro of a call on a target; None if it is a method's call."""
    count = len(args)
    if name in _DECIDING and count in (2, 3):
        names = _names(parser, args[: count - 1])
        return Fold(pos, "exists_one" if name == "existsOne" else name, target, names, args[-1], None)
    if name == "filter" and count == 2:
        return Fold(pos, name, target, _names(parser, args[:1]), args[1], None)
    if name == "map" and count in (2, 3):
        return Fold(pos, name, target, _names(parser, args[:1]), args[1] if count == 3 else None, args[-1])
    if name in _TRANSFORMING and count in (3, 4):
        return Fold(pos, name, target, _names(parser, args[:2]), args[2] if count == 4 else None, args[-1])
    if name in ("optMap", "optFlatMap") and count == 2:
        return Bind(pos, name, _names(parser, args[:1])[0], target, args[1])
    if name == "bind" and count == 3 and isinstance(target, Ident) and target.name == "cel":
        return Bind(pos, name, _names(parser, args[:1])[0], args[1], args[2])
    return None


def _names(parser: _Parser, args: list[Node]) -> list[str]:
    names = []
    for arg in args:
        if isinstance(arg, Ident):
            names.append(arg.name)
        else:
            parser.complain(arg.pos, _NOT_SIMPLE)
            names.append("")
    return names
