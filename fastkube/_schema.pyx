"""The structural-schema walker: makes of what a client sent what the API server holds, in place, in one pass.

A walk does to an object of a built-in kind what Go does when it decodes JSON into a struct and encodes it again:
  1. A field that the schema does not know is removed and told as `unknown field "spec.foo"`, in document order.
  2. A value of the wrong type ends the walk with `WrongType`, in the words of Go's encoding/json.
  3. `null` is the same as absent. Zero values ("", 0, false, [], {}) are removed unless the field keeps them (`KEEP`).
  4. Fields that Go always writes are there afterwards (`ALWAYS`, and `NULL` for those written as null when empty).
  5. Quantities, times and base64 become canonical through the node's `parse`; its ValueErrors end the walk.

Objects of custom kinds (the node kinds OBJECT, ARRAY, ANY) are only pruned: their values are judged by validation.

Paths are built only when there is something to tell: each level puts its own part before what its children told.
Written in Cython's pure-Python syntax; runs interpreted under FASTKUBE_PURE=1 with equal results.
"""

import cython

COMPILED = cython.compiled

_STRING = cython.declare(cython.int, 1)
_BOOL = cython.declare(cython.int, 2)
_INT32 = cython.declare(cython.int, 3)
_INT64 = cython.declare(cython.int, 4)
_DOUBLE = cython.declare(cython.int, 5)
_PARSED = cython.declare(cython.int, 6)
_INT_OR_STRING = cython.declare(cython.int, 7)
_ANY = cython.declare(cython.int, 8)
_STRUCT = cython.declare(cython.int, 9)
_MAP = cython.declare(cython.int, 10)
_LIST = cython.declare(cython.int, 11)
_UNION = cython.declare(cython.int, 12)
_OBJECT = cython.declare(cython.int, 13)
_ARRAY = cython.declare(cython.int, 14)

_DROP = cython.declare(cython.int, 0)
_KEEP = cython.declare(cython.int, 1)
_ALWAYS = cython.declare(cython.int, 2)
_NULL = cython.declare(cython.int, 3)

_INT32_MAX = cython.declare(object, 2**31 - 1)
_INT32_MIN = cython.declare(object, -(2**31))
_INT64_MAX = cython.declare(object, 2**63 - 1)
_INT64_MIN = cython.declare(object, -(2**63))

_KINDS = {
    "string": 1,
    "bool": 2,
    "int32": 3,
    "int64": 4,
    "double": 5,
    "parsed": 6,
    "intOrString": 7,
    "any": 8,
    "struct": 9,
    "map": 10,
    "list": 11,
    "union": 12,
    "object": 13,
    "array": 14,
}


_met_empty = cython.declare(cython.bint, False)


class WrongType(ValueError):
    """A JSON value that Go could not put into its field: `value` into `go_type`, at `path` in `struct`."""

    def __init__(self, value, go_type):
        super().__init__()
        self.value = value
        self.go_type = go_type
        self.path = []
        self.struct = ""

    def __str__(self):
        into = f"struct field {self.struct}.{'.'.join(self.path)}" if self.path else "value"
        return f"json: cannot unmarshal {self.value} into Go {into} of type {self.go_type}"


@cython.cclass
class Node:
    """One type in its place: the type itself, and as a field its name and what happens when it is empty."""

    kind = cython.declare(cython.int, visibility="readonly")
    keep = cython.declare(cython.int, visibility="readonly")
    preserve = cython.declare(cython.bint, visibility="public")
    name = cython.declare(object, visibility="readonly")
    go_type = cython.declare(object, visibility="readonly")
    zero = cython.declare(object, visibility="readonly")
    parse = cython.declare(object, visibility="readonly")
    items = cython.declare(object, visibility="public")
    _fields = cython.declare(dict)
    _always = cython.declare(list)
    _load = cython.declare(object)

    def __init__(self, kind, name="", keep=0, go_type="", zero=None, parse=None, items=None, load=None):
        """`load` gives the fields of a struct, {name: Node}, when they are first needed (types may be recursive)."""
        self.kind = _KINDS[kind]
        self.keep = keep
        self.preserve = False
        self.name = name
        self.go_type = go_type
        self.zero = zero
        self.parse = parse
        self.items = items
        self._fields = None
        self._always = None
        self._load = load

    @property
    def fields(self):
        """The fields by name; empty for what has none."""
        if self._fields is None:
            self._resolve()
        return self._fields

    @cython.cfunc
    def _resolve(self):
        self._always = []
        self._fields = self._load() if self._load is not None else {}
        node: Node
        for node in self._fields.values():
            if node.keep >= _ALWAYS:
                self._always.append(node)


def walk(node: Node, obj: dict) -> list:
    """Bring `obj` in line with the schema, in place; the list tells of its unknown fields. Raises ValueError."""
    problems: list = []
    if node.kind == _STRUCT:
        _walk_struct(node, obj, problems)
    else:
        _prune(node, obj, problems)
    if not problems:
        return problems
    return [f'unknown field "{path.removeprefix(".")}"' for path in problems]


def met_empty() -> bool:
    """Whether, since this was asked last, a walk left an empty list where null is written (`nullify`)."""
    global _met_empty
    met = _met_empty
    _met_empty = False
    return met


def nullify(node: Node, obj: dict) -> None:
    """Put null for the empty lists and maps that are written so. A walk leaves them: their sender owns the fields."""
    field: Node
    for key, value in obj.items():
        found = node.fields.get(key)
        if found is None or value is None:
            continue
        field = found
        if not value:
            if field.keep == _NULL and type(value) in (list, dict):
                obj[key] = None
        elif field.kind == _STRUCT:
            nullify(field, value)
        elif (field.kind == _LIST or field.kind == _MAP) and field.items.kind == _STRUCT:
            for item in value if type(value) is list else value.values():
                nullify(field.items, item)


def zero(node: Node):
    """What Go writes for an empty value of this type: for a struct its fields that are always written."""
    return _zero(node)


@cython.cfunc
def _zero(node: Node):
    if node.kind != _STRUCT or node.keep == _NULL:
        return node.zero
    made: dict = {}
    _fill(node, made)
    return made


@cython.cfunc
def _fill(node: Node, obj: dict):
    if node._fields is None:
        node._resolve()
    field: Node
    for field in node._always:
        if field.name not in obj:
            obj[field.name] = _zero(field)


@cython.cfunc
def _prefix(problems: list, start: cython.Py_ssize_t, part: str):
    index: cython.Py_ssize_t
    for index in range(start, len(problems)):
        problems[index] = part + problems[index]


@cython.cfunc
def _walk_struct(node: Node, obj: dict, problems: list):
    if node._fields is None:
        node._resolve()
    fields: dict = node._fields
    dropped: list = None
    field: Node
    kind: cython.int
    drop: cython.bint
    key = None
    try:
        for key, value in obj.items():
            found = fields.get(key)
            if found is None:
                problems.append("." + key)
                drop = True
            else:
                field = found
                kind = field.kind
                if value is None:
                    drop = field.keep != _NULL
                elif kind == _STRING:
                    if type(value) is not str:
                        raise _wrong(value, field)
                    drop = field.keep == _DROP and not value
                elif kind >= _STRUCT:
                    drop = _walk_nested(field, obj, key, value, problems)
                else:
                    drop = _walk_scalar(field, obj, key, value)
            if drop:
                if dropped is None:
                    dropped = []
                dropped.append(key)
    except WrongType as wrong:
        wrong.path[0:0] = (*getattr(fields[key], "via", ()), key)
        if not wrong.struct:
            wrong.struct = node.go_type.rpartition(".")[2]
        raise
    if dropped is not None:
        for key in dropped:
            del obj[key]
    for field in node._always:
        if field.name not in obj:
            obj[field.name] = _zero(field)


@cython.cfunc
@cython.exceptval(check=True)
def _walk_scalar(field: Node, obj: dict, key, value) -> cython.bint:
    """Whether the field is to be dropped."""
    kind: cython.int = field.kind
    if kind == _BOOL:
        if type(value) is not bool:
            raise _wrong(value, field)
        return field.keep == _DROP and value is False
    if kind == _INT32 or kind == _INT64:  # noqa: SIM109  (two comparisons of C ints)
        if type(value) is not int:
            raise _wrong(value, field)
        if kind == _INT32:
            if not _INT32_MIN <= value <= _INT32_MAX:
                raise WrongType(f"number {value}", field.go_type)
        elif not _INT64_MIN <= value <= _INT64_MAX:
            raise WrongType(f"number {value}", field.go_type)
        return field.keep == _DROP and value == 0
    if kind == _PARSED:
        parsed = field.parse(value)
        if parsed is not value:
            obj[key] = parsed
        return field.keep == _DROP and not parsed
    if kind == _INT_OR_STRING:
        if type(value) is not str:
            if type(value) is not int:
                raise _wrong(value, field)
            if not _INT32_MIN <= value <= _INT32_MAX:
                raise WrongType(f"number {value}", field.go_type)
        return False
    if kind == _DOUBLE:
        if type(value) is not float and type(value) is not int:
            raise _wrong(value, field)
        return field.keep == _DROP and value == 0
    return False


@cython.cfunc
@cython.exceptval(check=True)
def _walk_nested(field: Node, obj: dict, key, value, problems: list) -> cython.bint:
    """Whether the field is to be dropped."""
    global _met_empty
    told: cython.Py_ssize_t = len(problems)
    kind: cython.int = field.kind
    if kind == _STRUCT:
        if type(value) is not dict:
            raise _wrong(value, field)
        _walk_struct(field, value, problems)
    elif kind == _LIST:
        if type(value) is not list:
            raise _wrong(value, field)
        if not value:
            if field.keep == _NULL:
                _met_empty = True
            return field.keep == _DROP
        _walk_list(field, value, problems)
    elif kind == _MAP:
        if type(value) is not dict:
            raise _wrong(value, field)
        if not value:
            if field.keep == _NULL:
                _met_empty = True
            return field.keep == _DROP
        _walk_map(field, value, problems)
    elif kind == _UNION:
        _walk_union(field, value)
    else:
        _prune(field, value, problems)
    if len(problems) != told:
        _prefix(problems, told, "." + key)
    return False


@cython.cfunc
def _walk_list(field: Node, values: list, problems: list):
    items: Node = field.items
    index: cython.Py_ssize_t
    told: cython.Py_ssize_t
    if items.kind == _STRING:
        for index in range(len(values)):
            value = values[index]
            if type(value) is not str:
                if value is not None:
                    raise _wrong(value, items)
                values[index] = ""
        return
    for index in range(len(values)):
        told = len(problems)
        value = values[index]
        if value is None:
            values[index] = _zero(items)
        elif items.kind == _STRUCT:
            if type(value) is not dict:
                raise _wrong(value, items)
            _walk_struct(items, value, problems)
        else:
            values[index] = _walk_item(items, value, problems)
        if len(problems) != told:
            _prefix(problems, told, f"[{index}]")


@cython.cfunc
def _walk_map(field: Node, values: dict, problems: list):
    items: Node = field.items
    told: cython.Py_ssize_t
    for key, value in values.items():
        if items.kind == _STRING and type(value) is str:
            continue
        told = len(problems)
        if value is None:
            values[key] = _zero(items)
        else:
            new = _walk_item(items, value, problems)
            if new is not value:
                values[key] = new
        if len(problems) != told:
            _prefix(problems, told, "." + key)


@cython.cfunc
def _walk_item(items: Node, value, problems: list):
    """An item of a list or map, which is never dropped; the value that takes its place."""
    kind: cython.int = items.kind
    if kind == _STRUCT:
        if type(value) is not dict:
            raise _wrong(value, items)
        _walk_struct(items, value, problems)
        return value
    if kind == _STRING:
        if type(value) is not str:
            raise _wrong(value, items)
        return value
    if kind == _PARSED:
        return items.parse(value)
    holder: dict = {"": value}
    if kind >= _STRUCT:
        told: cython.Py_ssize_t = len(problems)
        _walk_nested(items, holder, "", value, problems)
        if len(problems) != told:  # it put ".": take that away again
            for index in range(told, len(problems)):
                problems[index] = problems[index][1:]
    else:
        _walk_scalar(items, holder, "", value)
    return holder[""]


@cython.cfunc
def _walk_union(field: Node, value):
    """A JSON schema in a place that also takes a bool or a list. Go reads it apart, so unknown fields are not told."""
    if type(value) is dict:
        _walk_struct(field.items, value, [])
    elif type(value) is list:
        for item in value:
            if type(item) is dict:
                _walk_struct(field.items, item, [])
    field.parse(value)


@cython.cfunc
def _prune(node: Node, value, problems: list):
    """Custom kinds: remove what the schema does not know. Values of another shape are left for validation to refuse."""
    told: cython.Py_ssize_t
    child: Node
    if node.kind == _ARRAY:
        if type(value) is list and node.items is not None:
            for index in range(len(value)):
                told = len(problems)
                _prune(node.items, value[index], problems)
                if len(problems) != told:
                    _prefix(problems, told, f"[{index}]")
        return
    if node.kind == _STRUCT:  # the metadata of an embedded resource
        if type(value) is dict:
            _walk_struct(node, value, problems)
        return
    if node.kind != _OBJECT or type(value) is not dict:
        return
    if node._fields is None:
        node._resolve()
    dropped: list = None
    for key, item in value.items():
        found = node._fields.get(key)
        if found is None:
            found = node.items
        if found is None:
            if not node.preserve:
                problems.append("." + key)
                if dropped is None:
                    dropped = []
                dropped.append(key)
            continue
        child = found
        if child.kind == _ANY:
            continue
        told = len(problems)
        try:
            _prune(child, item, problems)
        except WrongType as wrong:  # in metadata, the one part that has fixed types
            wrong.path.insert(0, key)
            raise
        if len(problems) != told:
            _prefix(problems, told, "." + key)
    if dropped is not None:
        for key in dropped:
            del value[key]


@cython.cfunc
def _wrong(value, field: Node):
    return WrongType(describe(value, field.kind in (_INT32, _INT64, _INT_OR_STRING)), field.go_type)


def describe(value, whole=False) -> str:
    """What Go's encoding/json calls a value; `whole`: an integer was wanted, so a number is shown."""
    if isinstance(value, str):
        return "string"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, dict):
        return "object"
    if isinstance(value, list):
        return "array"
    if value is None:
        return "null"
    return f"number {value}" if whole else "number"
