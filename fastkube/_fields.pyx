"""Which fields a new object sets, an update changes and a configuration names, and how the latter is laid over an
object: what every write and every server-side apply pays for.

Sets of fields are FieldsV1 trees (see api/fieldsets.py, which explains them): dicts whose keys are path elements
("f:spec", 'k:{"name":"c"}', 'v:"x"'), "." being the node itself; a node without entries is `LEAF`.

What is absent and what is null differ: a value that takes the place of nothing is new with all that is in it, one that
takes the place of null only sets what is in it. Leaves (scalars, atomic lists and maps) are compared as wholes.

Written in Cython's pure-Python syntax; runs interpreted under FASTKUBE_PURE=1 with equal results.
"""

import cython
import orjson

COMPILED = cython.compiled

SCALAR, LIST, MAP, DEDUCED = range(4)

_SCALAR = cython.declare(cython.int, 0)
_LIST = cython.declare(cython.int, 1)
_MAP = cython.declare(cython.int, 2)
_DEDUCED = cython.declare(cython.int, 3)

LEAF = {}
_LEAF = cython.declare(dict, LEAF)
_ABSENT = cython.declare(object, object())


_SCALARS = {"string": 1, "boolean": 2, "numeric": 3, "untyped": 4}


class Nameless(ValueError):
    """An item of a list cannot be named by its keys or value."""


@cython.cclass
class Type:
    """One place in an object: a scalar, a list, a map or struct, or what the value itself shows (DEDUCED).

    `element` is its path element as a field. `leaf`: it is owned as a whole. `struct`: it has fields rather than any
    keys. `always`: Go writes it even when it is empty. `keys` are those of a list's items with their defaults.
    `scalar` says of which type a scalar must be; `open`: fields that the schema does not name may stand here; `fixed`:
    the schema never changes.
    """

    kind = cython.declare(cython.int, visibility="readonly")
    leaf = cython.declare(cython.bint, visibility="readonly")
    struct = cython.declare(cython.bint, visibility="readonly")
    always = cython.declare(cython.bint, visibility="readonly")
    open = cython.declare(cython.bint, visibility="readonly")
    fixed = cython.declare(cython.bint, visibility="readonly")
    element = cython.declare(object, visibility="readonly")
    scalar = cython.declare(object, visibility="readonly")
    keys = cython.declare(dict, visibility="readonly")
    items = cython.declare(object, visibility="readonly")
    _fields = cython.declare(dict)
    _load = cython.declare(object)
    _one_key = cython.declare(object)
    _scalar = cython.declare(cython.int)

    def __init__(
        self,
        kind,
        *,
        element="",
        leaf=False,
        struct=False,
        always=False,
        open=False,
        fixed=False,
        scalar="",
        keys=None,
        items=None,
        load=None,
    ):
        """`load` gives the fields, {name: Type}, when they are first needed (types may hold themselves)."""
        self.kind = kind
        self.leaf = leaf
        self.struct = struct
        self.always = always
        self.open = open
        self.fixed = fixed
        self.element = element
        self.scalar = scalar
        self.keys = keys if keys is not None else {}
        self.items = items
        self._fields = None
        self._load = load
        self._one_key = next(iter(self.keys)) if len(self.keys) == 1 else None
        self._scalar = _SCALARS.get(scalar, 0)

    @property
    def fields(self):
        """The fields of a struct by name; empty for what has none."""
        if self._fields is None:
            self._resolve()
        return self._fields

    @cython.cfunc
    def _resolve(self):
        self._fields = self._load() if self._load is not None else {}


ANYTHING = Type(DEDUCED, open=True)
_ANYTHING = cython.declare(Type, ANYTHING)


@cython.cfunc
def _items(kind: Type) -> Type:
    """The type of a map's values or a list's items."""
    return kind.items if kind.items is not None else _ANYTHING


# ---------------------------------------------------------------- path elements

_MARKUP = cython.declare(tuple, (("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e")))


@cython.cfunc
def _go_text(json: bytes) -> str:
    """JSON as Go writes it: what could be markup is escaped."""
    text: str = json.decode()
    for sign, escaped in _MARKUP:
        if sign in text:
            text = text.replace(sign, escaped)
    return text


def value_element(value):
    """The path element of a scalar in a list."""
    return "v:" + _go_text(orjson.dumps(value))


def keys_element(keys: dict):
    """The path element of an item by its keys."""
    return "k:" + _go_text(orjson.dumps(keys, option=orjson.OPT_SORT_KEYS))


@cython.cfunc
def _is_plain(value: str) -> cython.bint:
    return '"' not in value and "\\" not in value and "<" not in value and ">" not in value and "&" not in value


def key_element(key: str, value: str):
    """The path element of an item that is known by one text."""
    if value.isascii() and value.isprintable() and _is_plain(value):
        return 'k:{"' + key + '":"' + value + '"}'
    return keys_element({key: value})


def element(kind: Type, item):
    """The path element of an item of a list whose items are known by keys or by value. Raises Nameless."""
    if type(item) is dict and kind._one_key is not None:
        told = item.get(kind._one_key)
        if type(told) is str:
            return key_element(kind._one_key, told)
    if not kind.keys:
        if isinstance(item, dict):
            raise Nameless("associative list without keys has an element that's a map type")
        if isinstance(item, list):
            raise Nameless("not supported: associative list with lists as elements")
        if item is None:
            raise Nameless("associative list without keys has an element that's an explicit null")
        return value_element(item)
    if item is None:
        raise Nameless("associative list with keys may not have a null element")
    if not isinstance(item, dict):
        raise Nameless("associative list with keys may not have non-map elements")
    found = {}
    for key, default in kind.keys.items():
        told = item.get(key, default)
        if told is not None or key in item:
            found[key] = told
    if not found:
        names = " ".join(f'"{key}"' for key in kind.keys)
        raise Nameless(
            f"associative list with keys has an element that omits all key fields [{names}] "
            "(and doesn't have default values for any key fields)"
        )
    return keys_element(found)


def indexed(kind: Type, items) -> dict:
    """The items by their path elements, leaving out nameless ones; several under one element are duplicates."""
    found: dict = {}
    if type(items) is not list:
        return found
    for item in items:
        try:
            name = element(kind, item)
        except Nameless:
            continue
        if name in found:
            found[name].append(item)
        else:
            found[name] = [item]
    return found


# ---------------------------------------------------------------- the fields of a new object


def everything(kind: Type, value) -> dict:
    """A value that was not there before: it and all that is in it."""
    return _everything(kind, value)


@cython.cfunc
def _everything(kind: Type, value) -> dict:
    if kind.leaf or not value:
        return _LEAF
    if type(value) is dict:
        return _everything_in_map(kind, value) if kind.kind >= _MAP else _LEAF
    if type(value) is list and kind.kind == _LIST:
        return _everything_in_list(kind, value)
    return _LEAF


@cython.cfunc
def _everything_in_map(kind: Type, value: dict) -> dict:
    if kind._fields is None:
        kind._resolve()
    fields: dict = kind._fields
    items: Type = _items(kind)
    child: Type
    node: dict = {".": _LEAF}
    for key, part in value.items():
        found = fields.get(key)
        if found is None:
            node["f:" + key] = _LEAF if items.leaf else _everything(items, part)
        else:
            child = found
            if part or not _is_left_out(child, part):
                node[child.element] = _LEAF if child.leaf or not part else _everything(child, part)
    return node


@cython.cfunc
def _is_left_out(kind: Type, value) -> cython.bint:
    """Whether Go leaves out this empty value of a built-in kind's field: a list that is kept only to compare it."""
    return kind.fixed and not kind.always and type(value) is list


@cython.cfunc
def _everything_in_list(kind: Type, value: list) -> dict:
    items: Type = _items(kind)
    node: dict = {".": _LEAF}
    for item in value:
        try:
            name = element(kind, item)
        except Nameless:
            continue
        node[name] = _LEAF if name in node else _everything(items, item)
    return node


def made(kind: Type, value: dict) -> dict:
    """What a new object sets: all but what Go writes of an empty one."""
    return _made(kind, value)


@cython.cfunc
def _made(kind: Type, value: dict) -> dict:
    if kind._fields is None:
        kind._resolve()
    fields: dict = kind._fields
    child: Type
    node: dict = {}
    for key, part in value.items():
        found = fields.get(key)
        if found is None:
            node["f:" + key] = _everything(_items(kind), part)
            continue
        child = found
        if not child.always:
            if not part and _is_left_out(child, part):
                continue
            node[child.element] = _LEAF if child.leaf or not part else _everything(child, part)
        elif child.struct and not child.leaf:
            inner = _made(child, part) if type(part) is dict else None
            if inner:
                node[child.element] = inner
        elif part or (not child.struct and (type(part) is list or type(part) is dict)):
            inner = _everything(child, part)
            if inner:
                del inner["."]  # the list or map itself was there, as null
            node[child.element] = inner
    return node


# ---------------------------------------------------------------- comparing


def compare(kind: Type, left, right) -> tuple:
    """(added, modified, removed): what makes `right` of `left`; both are whole objects."""
    added: dict = {}
    modified: dict = {}
    removed: dict = {}
    _compare(kind, left, right, added, modified, removed)
    return added, modified, removed


@cython.cfunc
def _compare(kind: Type, left, right, added: dict, modified: dict, removed: dict):
    """Compares what is in two granular values, of which one or the other may be null."""
    if kind.kind == _LIST:
        _compare_lists(kind, left, right, added, modified, removed)
        return
    before: dict = left if left is not None else _LEAF
    after: dict = right if right is not None else _LEAF
    fields: dict = kind.fields
    for key, part in before.items():
        other = after.get(key, _ABSENT)
        if other is not part and (other is _ABSENT or other != part):
            _compare_entry(_child(kind, fields, key), "f:" + key, part, other, added, modified, removed)
    for key, part in after.items():
        if key not in before:
            added["f:" + key] = _everything(_child(kind, fields, key), part)


@cython.cfunc
def _child(kind: Type, fields: dict, key) -> Type:
    found = fields.get(key)
    return found if found is not None else _items(kind)


@cython.cfunc
def _compare_entry(kind: Type, name, left, right, added: dict, modified: dict, removed: dict):
    if left is _ABSENT:
        added[name] = _everything(kind, right)
    elif right is _ABSENT:
        removed[name] = _everything(kind, left)
    elif left == right:
        return
    elif kind.leaf or (not left and not right) or not both_fit(kind, left, right):
        modified[name] = _LEAF
    else:
        inner_added: dict = {}
        inner_modified: dict = {}
        inner_removed: dict = {}
        _compare(kind, left, right, inner_added, inner_modified, inner_removed)
        if inner_added:
            added[name] = inner_added
        if inner_modified:
            modified[name] = inner_modified
        if inner_removed:
            removed[name] = inner_removed


def both_fit(kind: Type, left, right) -> bool:
    """Whether both values can be looked into as what the type says; null can always."""
    if kind.kind == _LIST:
        return (left is None or type(left) is list) and (right is None or type(right) is list)
    fit = (left is None or type(left) is dict) and (right is None or type(right) is dict)
    return fit and (kind.kind == _MAP or left is not None or right is not None)


@cython.cfunc
def _compare_lists(kind: Type, left, right, added: dict, modified: dict, removed: dict):
    """Item by item; the items of one name, if there are several, count as one leaf."""
    before: dict = indexed(kind, left)
    after: dict = indexed(kind, right)
    items: Type = _items(kind)
    for name in {**before, **after}:
        was: list = before.get(name, [])
        now: list = after.get(name, [])
        if len(was) <= 1 and len(now) <= 1:
            old = was[0] if was else _ABSENT
            new = now[0] if now else _ABSENT
            _compare_entry(items, name, old, new, added, modified, removed)
        elif len(was) > 1 and len(now) > 1:
            if was != now:
                modified[name] = _LEAF
        elif len(was) > 1:
            removed[name] = _LEAF
            if now:
                added[name] = _everything(items, now[0])
        else:
            added[name] = _LEAF
            if was:
                removed[name] = _everything(items, was[0])


# ---------------------------------------------------------------- configurations


def fits(kind: Type, value) -> bool:
    """Whether a configuration has no faults: known fields, right types, items that their keys tell apart."""
    return _fits(kind, value)


@cython.cfunc
def _fits(kind: Type, value) -> cython.bint:
    if value is None or kind.kind == _DEDUCED:
        return True
    if kind.kind == _SCALAR:
        return _scalar_fits(kind._scalar, value)
    if kind.kind == _LIST:
        return type(value) is list and _list_fits(kind, value)
    return type(value) is dict and _map_fits(kind, value)


@cython.cfunc
def _scalar_fits(scalar: cython.int, value) -> cython.bint:
    if scalar == 1:
        return type(value) is str
    if scalar == 2:
        return type(value) is bool
    if scalar == 3:
        return type(value) is int or type(value) is float
    return scalar != 4 or (type(value) is not dict and type(value) is not list)


@cython.cfunc
def _map_fits(kind: Type, value: dict) -> cython.bint:
    fields: dict = kind.fields
    for key, part in value.items():
        found = fields.get(key)
        if found is None:
            found = kind.items
            if found is None:
                if not kind.open:
                    return False
                continue
        if not _fits(found, part):
            return False
    return True


@cython.cfunc
def _list_fits(kind: Type, value: list) -> cython.bint:
    items: Type = _items(kind)
    seen: set = set()
    for item in value:
        if not kind.leaf:
            try:
                name = element(kind, item)
            except Nameless:
                return False
            if name in seen:
                return False
            seen.add(name)
        if not _fits(items, item):
            return False
    return True


def applied(kind: Type, value) -> dict:
    """What a configuration names: its leaves, and the items of lists and maps."""
    return _applied(kind, value)


@cython.cfunc
def _applied(kind: Type, value) -> dict:
    node: dict = {}
    if type(value) is dict:
        fields: dict = kind.fields
        items: Type = _items(kind)
        for key, part in value.items():
            child = fields.get(key)
            if child is not None:
                found = _applied_entry(child, part, True)
                if found is not None:
                    node["f:" + key] = found
            else:
                node["f:" + key] = _applied_entry(items, part, False)
    elif type(value) is list and kind.kind == _LIST and kind.items is not None:
        for name, same in indexed(kind, value).items():
            node[name] = _applied_entry(kind.items, same[0], False) if len(same) == 1 else _LEAF
    return node


def applied_entry(kind: Type, value) -> dict:
    """The node of an item or of the value of a map."""
    return _applied_entry(kind, value, False)


@cython.cfunc
def _applied_entry(kind: Type, value, named: cython.bint):
    """The node of a field (`named`; None if there is none), or of an item, which is always in the set itself."""
    if kind.leaf or not value:
        if type(value) is list and kind.kind == _LIST and not kind.leaf and named:
            return None
        return _LEAF
    if type(value) is not dict and (type(value) is not list or kind.kind != _LIST):
        return _LEAF
    found: dict = _applied(kind, value)
    if named:
        return found if found else None
    if not found:
        return _LEAF
    found["."] = _LEAF
    return found


# ---------------------------------------------------------------- merging


def clone(value):
    """A copy of JSON data that shares nothing with the original."""
    return _clone(value)


@cython.cfunc
def _clone(value):
    if type(value) is dict:
        whole: dict = value
        return {key: _clone(part) for key, part in whole.items()}
    if type(value) is list:
        items: list = value
        return [_clone(part) for part in items]
    return value


def merged(kind: Type, live, config):
    """The configuration laid over the live value. Shares parts with `live`, nothing with `config`."""
    return _merged(kind, live, config)


@cython.cfunc
def _merged(kind: Type, live, config):
    if kind.leaf or not both_fit(kind, live, config) or (not live and not config):
        return _clone(config)
    if kind.kind == _LIST:
        return _merged_list(kind, live or [], config or [])
    out: dict = dict(live or {})
    fields: dict = kind.fields
    if config:
        for key, part in config.items():
            out[key] = _merged(_child(kind, fields, key), out[key], part) if key in out else _clone(part)
    return out


@cython.cfunc
def _merged_list(kind: Type, live: list, config: list) -> list:
    """The items of both. Those that both have come in the configuration's order; the others keep their places."""
    items: Type = _items(kind)
    names_live: list = [element(kind, item) for item in live]
    names: list = [element(kind, item) for item in config]
    wanted: set = set(names)
    present: dict = {}
    known: set = set()
    for name, item in zip(names_live, live, strict=True):
        if name not in known:
            present[name] = item
        elif name in present:  # items of one name cannot be told apart
            del present[name]
        known.add(name)
    shared = iter([name for name in names if name in known])
    next_shared = next(shared, None)
    out: list = []
    done: set = set()
    at: cython.Py_ssize_t = 0
    place: cython.Py_ssize_t
    for place in range(len(names)):
        name = names[place]
        # Live items that stand before the place of this one: the configuration's own ones wait for their turn.
        while at < len(live) and names_live[at] != name:
            other = names_live[at]
            if other not in wanted:
                out.append(live[at])
            elif other not in done and (next_shared is None or other == next_shared):
                break
            at += 1
        out.append(_merged(items, present[name], config[place]) if name in present else _clone(config[place]))
        done.add(name)
        if name == next_shared:
            next_shared = next(shared, None)
        if at < len(live) and names_live[at] == name:
            at += 1
    return out + [item for name, item in zip(names_live[at:], live[at:], strict=True) if name not in wanted]
