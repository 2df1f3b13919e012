"""Objects with their types, as server-side apply sees them: which fields there are, what changed, what merges how.

A `Type` says of one place whether it is a leaf (a scalar, or a list or map that has one owner as a whole), a granular
map or struct, or a list whose items are known by their keys or, in a set, by their values. Types are made from the
schema when they are first needed.

    everything   the fields of a value that is new as a whole
    made         the fields that a new object sets, beyond those that Go writes for an empty one
    applied      the fields that an applied configuration names
    compare      the fields that were added, modified and removed between two objects
    merged       a configuration laid over a live object
    pruned       an object without some of its fields

What is absent and what is null differ here, as in upstream's structured-merge-diff, whose rules these are.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from fastkube.api.fieldsets import LEAF, FieldSet, is_member, key_element, keys_element, path_text, value_element
from fastkube.api.patch import clone
from fastkube.api.schema import Schema
from fastkube.api.strategic import go_text

SCALAR, LIST, MAP, DEDUCED = range(4)

_ABSENT: Any = object()
_ALWAYS_KEPT = 2  # Node.keep of the fields that Go writes even when they are empty

# Defaults of list keys that only Go's types tell: an item without the field has this value.
_KEY_DEFAULTS = {("core.v1.ContainerPort", "protocol"): "TCP", ("core.v1.ServicePort", "protocol"): "TCP"}

_SCALARS = {"string": "string", "boolean": "boolean", "integer": "numeric", "number": "numeric"}
_UNTYPED_CODES = "tuqxD"  # times, quantities, int-or-string: scalars of any type


class Type:
    """One place in an object. `element` is its path element as a field; `leaf`: it is owned as a whole; `always`: Go
    writes it even when it is empty; `fixed`: it is of a built-in kind, so its schema never changes."""

    __slots__ = ("_schema", "always", "element", "fields", "fixed", "items", "keys", "kind", "leaf", "scalar", "struct")

    fields: dict[str, Type]

    def __init__(self, schema: Schema, name: str = "", required: bool = False) -> None:
        self._schema = schema
        self.element = f"f:{name}"
        self.fixed = schema.code != ""
        self.kind, self.scalar = _kind(schema)
        self.leaf = _is_leaf(schema, self.kind)
        self.keys = _keys(schema) if schema.list_type == "map" else {}
        self.struct = self.kind == MAP and schema.type == "object"
        self.always = schema.keep >= _ALWAYS_KEPT or (required and self.kind in (LIST, MAP) and not self.struct)
        self.items = Type(schema.items) if schema.items is not None else None

    def __getattr__(self, name: str) -> dict[str, Type]:
        """`fields`, made when they are first asked for, because types may hold themselves."""
        if name != "fields":
            raise AttributeError(name)
        required = self._schema.required
        self.fields = {name: Type(child, name, name in required) for name, child in self._schema.fields.items()}
        return self.fields

    def child(self, key: str) -> Type | None:
        """The type under a key: a field, else that of any value."""
        return self.fields.get(key) or self.items or (_DEDUCED if self._schema.preserve else None)


def _kind(schema: Schema) -> tuple[int, str]:
    if schema.int_or_string or (schema.code and schema.code[0] in _UNTYPED_CODES):
        return SCALAR, "untyped"
    if schema.type in _SCALARS:
        return SCALAR, _SCALARS[schema.type]
    if schema.type in ("object", "map"):
        return MAP, ""
    return (LIST if schema.type == "array" else DEDUCED), ""


def _is_leaf(schema: Schema, kind: int) -> bool:
    if kind == LIST:
        return schema.list_type not in ("map", "set")
    if kind == MAP:
        return schema.map_type == "atomic"
    return kind == SCALAR or schema.code != ""  # untyped parts of built-in kinds have one owner


def _keys(schema: Schema) -> dict[str, Any]:
    """The keys of a list's items with their defaults (None for those without), in the order of their names."""
    items = schema.items
    defaults: dict[str, Any] = {}
    for key in sorted(schema.list_keys):
        field = items.field(key) if items is not None else None
        told = field.default if field is not None else None
        struct = items.struct_name if items is not None else ""
        defaults[key] = told if told is not None else _KEY_DEFAULTS.get((struct, key))
    return defaults


@lru_cache(maxsize=512)
def type_of(schema: Schema) -> Type:
    """The type of whole objects of this schema."""
    return Type(schema)


_DEDUCED = Type(Schema("any"))


# ---------------------------------------------------------------- items of lists


class _Nameless(ValueError):
    """An item of a list cannot be named by its keys or value."""


def _element(kind: Type, item: Any) -> str:
    """The path element of an item of a list whose items are known by keys or by value."""
    if isinstance(item, dict) and len(kind.keys) == 1:
        for key in kind.keys:
            if isinstance(told := item.get(key), str):
                return key_element(key, told)
    if not kind.keys:
        if isinstance(item, dict):
            raise _Nameless("associative list without keys has an element that's a map type")
        if isinstance(item, list):
            raise _Nameless("not supported: associative list with lists as elements")
        if item is None:
            raise _Nameless("associative list without keys has an element that's an explicit null")
        return value_element(item)
    if item is None:
        raise _Nameless("associative list with keys may not have a null element")
    if not isinstance(item, dict):
        raise _Nameless("associative list with keys may not have non-map elements")
    found = {key: item.get(key, default) for key, default in kind.keys.items() if key in item or default is not None}
    if not found:
        names = " ".join(f'"{key}"' for key in kind.keys)
        raise _Nameless(
            f"associative list with keys has an element that omits all key fields [{names}] "
            "(and doesn't have default values for any key fields)"
        )
    return keys_element(found)


def _element_or_none(kind: Type, item: Any) -> str | None:
    try:
        return _element(kind, item)
    except _Nameless:
        return None


def _indexed(kind: Type, items: Any) -> dict[str, list[Any]]:
    """The items by their path elements; more than one item under an element are duplicates."""
    found: dict[str, list[Any]] = {}
    for item in items if isinstance(items, list) else ():
        element = _element_or_none(kind, item)
        if element is not None:
            found.setdefault(element, []).append(item)
    return found


# ---------------------------------------------------------------- fields of one object


def everything(kind: Type, value: Any) -> FieldSet:
    """A value that was not there before: it and all that is in it."""
    if kind.leaf or not value:
        return LEAF
    if isinstance(value, dict) and kind.kind in (MAP, DEDUCED):
        node = {".": LEAF}
        fields, items = kind.fields, kind.items or _DEDUCED
        for key, part in value.items():
            child = fields.get(key)
            if child is None:
                node["f:" + key] = LEAF if items.leaf else everything(items, part)
            else:
                node[child.element] = LEAF if child.leaf or not part else everything(child, part)
        return node
    if kind.kind == LIST and kind.items is not None:
        node = {".": LEAF}
        for item in value if isinstance(value, list) else ():
            element = _element_or_none(kind, item)
            if element is not None:
                node[element] = LEAF if element in node else everything(kind.items, item)
        return node
    return LEAF


def made(kind: Type, value: Any) -> FieldSet:
    """What a new object sets: all but what Go writes of an empty one."""
    node: FieldSet = {}
    if not isinstance(value, dict):
        return node
    fields, items = kind.fields, kind.items or _DEDUCED
    for key, part in value.items():
        child = fields.get(key)
        if child is None:
            node["f:" + key] = everything(items, part)
        elif not child.always:
            node[child.element] = LEAF if child.leaf or not part else everything(child, part)
        elif child.struct and not child.leaf:
            if found := made(child, part):
                node[child.element] = found
        elif part:
            node[child.element] = LEAF if child.leaf else _inside(child, part)
    return node


def _inside(kind: Type, value: Any) -> FieldSet:
    """What is in a value that is not itself new."""
    return {key: node for key, node in everything(kind, value).items() if key != "."}


def applied(kind: Type, value: Any) -> FieldSet:
    """What a configuration names: its leaves, and the items of lists and maps."""
    node: FieldSet = {}
    if isinstance(value, dict):
        fields = kind.fields
        for key, part in value.items():
            child = fields.get(key)
            found = _applied_entry(child or kind.items or _DEDUCED, part, child is not None)
            if found is not None:
                node["f:" + key] = found
    elif isinstance(value, list) and kind.kind == LIST and kind.items is not None:
        for element, same in _indexed(kind, value).items():
            found = _applied_entry(kind.items, same[0], False) if len(same) == 1 else LEAF
            node[element] = LEAF if found is None else found
    return node


def _applied_entry(kind: Type, value: Any, named: bool) -> FieldSet | None:
    """The node of a field (`named`), or of an item, which is always in the set itself."""
    if kind.leaf or value is None or value == {} or not isinstance(value, (dict, list)):
        return LEAF
    if isinstance(value, list) and kind.kind != LIST:
        return LEAF
    found = applied(kind, value)
    if named:
        return found or None
    return {".": LEAF, **found} if found else LEAF


# ---------------------------------------------------------------- comparing


class Comparison(NamedTuple):
    added: FieldSet
    modified: FieldSet
    removed: FieldSet


def compare(kind: Type, left: Any, right: Any) -> Comparison:
    """What `right` adds to, changes in and removes from `left`; both are whole objects."""
    found = Comparison({}, {}, {})
    _compare(kind, left, right, found)
    return found


def _compare(kind: Type, left: Any, right: Any, found: Comparison) -> None:
    """Compares what is in two granular values, of which one or the other may be null."""
    if kind.kind == LIST:
        _compare_lists(kind, left, right, found)
        return
    left, right = left or {}, right or {}
    fields, items = kind.fields, kind.items or _DEDUCED
    for key, part in left.items():
        other = right.get(key, _ABSENT)
        if other is part or (other is not _ABSENT and other == part):
            continue
        _compare_entry(fields.get(key) or items, "f:" + key, part, other, found)
    for key, part in right.items():
        if key not in left:
            found.added["f:" + key] = everything(fields.get(key) or items, part)


def _compare_entry(kind: Type, element: str, left: Any, right: Any, found: Comparison) -> None:
    if left is _ABSENT:
        found.added[element] = everything(kind, right)
    elif right is _ABSENT:
        found.removed[element] = everything(kind, left)
    elif left == right:
        return
    elif kind.leaf or (not left and not right) or not _both_fit(kind, left, right):
        found.modified[element] = LEAF
    else:
        inner = Comparison({}, {}, {})
        _compare(kind, left, right, inner)
        for whole, part in zip(found, inner, strict=True):
            if part:
                whole[element] = part


def _both_fit(kind: Type, left: Any, right: Any) -> bool:
    """Whether both values can be looked into as what the type says."""
    if kind.kind == LIST:
        return all(value is None or isinstance(value, list) for value in (left, right))
    if kind.kind == MAP:
        return all(value is None or isinstance(value, dict) for value in (left, right))
    return isinstance(left or right, dict) and all(value is None or isinstance(value, dict) for value in (left, right))


def _compare_lists(kind: Type, left: Any, right: Any, found: Comparison) -> None:
    """Item by item; the items of one name, if there are several, count as one leaf."""
    before, after = _indexed(kind, left), _indexed(kind, right)
    items = kind.items or _DEDUCED
    for element in dict.fromkeys((*before, *after)):
        was, now = before.get(element, []), after.get(element, [])
        if len(was) <= 1 and len(now) <= 1:
            _compare_entry(items, element, was[0] if was else _ABSENT, now[0] if now else _ABSENT, found)
        elif len(was) > 1 and len(now) > 1:
            if was != now:
                found.modified[element] = LEAF
        elif len(was) > 1:
            found.removed[element] = LEAF
            if now:
                found.added[element] = everything(items, now[0])
        else:
            found.added[element] = LEAF
            if was:
                found.removed[element] = everything(items, was[0])


# ---------------------------------------------------------------- merging and pruning


def merged(kind: Type, live: Any, config: Any) -> Any:
    """The configuration laid over the live value. Shares parts with `live`, nothing with `config`."""
    if kind.leaf or not _both_fit(kind, live, config) or (not live and not config):
        return clone(config)
    if kind.kind == LIST:
        return _merged_list(kind, live or [], config or [])
    live, config = live or {}, config or {}
    out = dict(live)
    for key, part in config.items():
        child = kind.fields.get(key) or kind.items or _DEDUCED
        out[key] = merged(child, out[key], part) if key in out else clone(part)
    return out


def _merged_list(kind: Type, live: list[Any], config: list[Any]) -> list[Any]:
    """The items of both. Those that both have come in the configuration's order; the others keep their places."""
    items = kind.items or _DEDUCED
    names_live, names = [_element(kind, item) for item in live], [_element(kind, item) for item in config]
    wanted = set(names)
    present = {name: item for name, item in zip(names_live, live, strict=True) if names_live.count(name) == 1}
    known = set(names_live)
    shared = iter([name for name in names if name in known])
    next_shared = next(shared, None)
    out: list[Any] = []
    done: set[str] = set()
    at = 0
    for place, name in enumerate(names):
        # Live items that stand before the place of this one: the configuration's own ones wait for their turn.
        while at < len(live) and names_live[at] != name:
            other = names_live[at]
            if other not in wanted:
                out.append(live[at])
            elif other not in done and (next_shared is None or other == next_shared):
                break
            at += 1
        out.append(merged(items, present[name], config[place]) if name in present else clone(config[place]))
        done.add(name)
        if name == next_shared:
            next_shared = next(shared, None)
        if at < len(live) and names_live[at] == name:
            at += 1
    return out + [item for name, item in zip(names_live[at:], live[at:], strict=True) if name not in wanted]


def pruned(kind: Type, value: Any, gone: FieldSet) -> Any:
    """The value without these fields; None where nothing is left of it. Shares parts with `value`."""
    if not value or not isinstance(value, (dict, list)):
        return value if not isinstance(value, (dict, list)) else None
    if kind.leaf or (isinstance(value, list) and kind.kind != LIST):
        return None
    if isinstance(value, list):
        return _pruned_list(kind, value, gone) or None
    out: dict[str, Any] = {}
    for key, part in value.items():
        node = gone.get("f:" + key)
        if node is None:
            out[key] = part
        elif not is_member(node):
            out[key] = pruned(kind.fields.get(key) or kind.items or _DEDUCED, part, node)
    return out or None


def _pruned_list(kind: Type, value: list[Any], gone: FieldSet) -> list[Any]:
    out: list[Any] = []
    for item in value:
        element = _element_or_none(kind, item)
        node = gone.get(element) if element is not None else None
        if node is None:
            out.append(item)
        elif not is_member(node):
            out.append(pruned(kind.items or _DEDUCED, item, node))
    return out


def with_named_fields(kind: Type, fields: FieldSet) -> FieldSet:
    """The set, and in it also each struct field that something in the set is below."""
    out: FieldSet = {}
    for key, node in fields.items():
        if key == ".":
            out[key] = node
            continue
        named = False
        child: Type | None = None
        if key[0] == "f" and kind.kind == MAP:
            child = kind.fields.get(key[2:])
            named = child is not None
            child = child or kind.items
        elif key[0] in "kv" and kind.kind == LIST:
            child = kind.items
        inner = with_named_fields(child or _DEDUCED, node) if node else node
        out[key] = {".": LEAF, **inner} if named and inner and "." not in inner else inner
    return out


def reconciled(kind: Type, fields: FieldSet, value: Any) -> FieldSet:
    """The set after the schema of a custom kind changed: parts that are leaves now are owned whole, and of parts that
    are no longer, all that is there now."""
    out: FieldSet = {}
    for key, node in fields.items():
        child = _type_under(kind, key)
        if key == "." or child is None:
            out[key] = node
        elif child.leaf:
            out[key] = LEAF
        elif node:
            out[key] = reconciled(child, node, _under(kind, key, value))
        else:
            told = _applied_entry(child, _under(kind, key, value), False)
            out[key] = LEAF if told is None else told
    return out


def _type_under(kind: Type, key: str) -> Type | None:
    if key[0] == "f":
        return kind.child(key[2:]) if kind.kind == MAP else None
    return kind.items if kind.kind == LIST else None


def _under(kind: Type, key: str, value: Any) -> Any:
    if key[0] == "f":
        return value.get(key[2:]) if isinstance(value, dict) else None
    return next(iter(_indexed(kind, value).get(key, ())), None)


# ---------------------------------------------------------------- validation


class Fault(NamedTuple):
    path: str
    message: str


def faults(kind: Type, value: Any, path: str = "") -> Iterator[Fault]:
    """What is wrong with an applied configuration: unknown fields, wrong types, items without keys or given twice."""
    if value is None:
        return
    if kind.kind == SCALAR:
        yield from _scalar_faults(kind, value, path)
    elif kind.kind == LIST:
        if not isinstance(value, list):
            yield Fault(path, f"expected list, got &{{{go_text(value)}}}")
        else:
            yield from _list_faults(kind, value, path)
    elif kind.kind == MAP:
        if not isinstance(value, dict):
            yield Fault(path, f"expected map, got &{{{go_text(value)}}}")
        else:
            yield from _map_faults(kind, value, path)


def _map_faults(kind: Type, value: dict[str, Any], path: str) -> Iterator[Fault]:
    for key, part in value.items():
        child = kind.child(key)
        if child is None:
            yield Fault(f"{path}.{key}", "field not declared in schema")
            return
        yield from faults(child, part, f"{path}.{key}")


def _list_faults(kind: Type, value: list[Any], path: str) -> Iterator[Fault]:
    seen: set[str] = set()
    for number, item in enumerate(value):
        if kind.leaf:
            yield from faults(kind.items or _DEDUCED, item, f"{path}[{number}]")
            continue
        try:
            element = _element(kind, item)
        except _Nameless as problem:
            yield Fault(path, f"element {number}: {problem}")
            return
        name = path_text((element,))
        if element in seen:
            yield Fault(path, f"duplicate entries for key {name}")
        seen.add(element)
        yield from faults(kind.items or _DEDUCED, item, path + name)


_GO_TYPES = {str: "string", bool: "bool", dict: "map[string]interface {}", list: "[]interface {}"}


def _scalar_faults(kind: Type, value: Any, path: str) -> Iterator[Fault]:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind.scalar == "numeric" and not is_number:
        yield Fault(path, f"expected numeric (int or float), got {_GO_TYPES[type(value)]}")
    elif kind.scalar == "string" and not isinstance(value, str):
        yield Fault(path, f"expected string, got &value.valueUnstructured{{Value:{_go_syntax(value)}}}")
    elif kind.scalar == "boolean" and not isinstance(value, bool):
        yield Fault(path, f"expected boolean, got &{{{go_text(value)}}}")
    elif kind.scalar == "untyped" and isinstance(value, (dict, list)):
        yield Fault(path, f"expected any scalar, got &{{{go_text(value)}}}")


def _go_syntax(value: Any) -> str:
    """%#v of JSON data."""
    if isinstance(value, dict):
        told = ", ".join(f'"{key}":{_go_syntax(value[key])}' for key in sorted(value))
        return f"map[string]interface {{}}{{{told}}}"
    if isinstance(value, list):
        return "[]interface {}{" + ", ".join(map(_go_syntax, value)) + "}"
    return f'"{value}"' if isinstance(value, str) else go_text(value)
