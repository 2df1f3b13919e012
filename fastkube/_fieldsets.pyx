"""The algebra of sets of fields (fastkube.api.fieldsets explains their form): what every update of a tracked object
computes, once for each of its managers.

Sets are never changed in place and may share their parts.
Written in Cython's pure-Python syntax; runs interpreted under FASTKUBE_PURE=1 with equal results.
"""

import cython

from fastkube._fields import LEAF

COMPILED = cython.compiled

_LEAF = cython.declare(dict, LEAF)
_SELF = cython.declare(str, ".")


@cython.cfunc
def _is_member(node: dict) -> cython.bint:
    """Whether the node itself is in the set."""
    return not node or _SELF in node


@cython.cfunc
def _whole(children: dict, member: cython.bint):
    """A node of these children, None if there is nothing in it."""
    children.pop(_SELF, None)
    if not children:
        return _LEAF if member else None
    if member:
        children[_SELF] = _LEAF
    return children


def difference(left: dict, right: dict) -> dict:
    """The paths of `left` that are not in `right`."""
    out: dict = {}
    for key, node in left.items():
        rest = _minus(node, right.get(key))
        if rest is not None:
            out[key] = rest
    return out


@cython.cfunc
def _minus(left: dict, right):
    if right is None:
        return left
    other: dict = right
    out: dict = {}
    for key, node in left.items():
        if key != _SELF:
            rest = _minus(node, other.get(key))
            if rest is not None:
                out[key] = rest
    if not _is_member(left) or _is_member(other):
        return out if out else None
    if out:
        out[_SELF] = _LEAF
        return out
    return _LEAF


def without(left: dict, right: dict) -> dict:
    """The paths of `left` that are neither in `right` nor below anything in it."""
    out: dict = {}
    for key, node in left.items():
        rest = _cut(node, right.get(key))
        if rest is not None:
            out[key] = rest
    return out


@cython.cfunc
def _cut(left: dict, right):
    if right is None:
        return left
    other: dict = right
    if _is_member(other):
        return None
    out: dict = {}
    for key, node in left.items():
        rest = _cut(node, other.get(key))
        if rest is not None:
            out[key] = rest
    return _whole(out, _is_member(left))


def intersection(left: dict, right: dict) -> dict:
    """The paths in both."""
    out: dict = {}
    for key, node in left.items():
        if key in right:
            both = _common(node, right[key])
            if both is not None:
                out[key] = both
    return out


@cython.cfunc
def _common(left: dict, right: dict):
    out: dict = {}
    for key, node in left.items():
        if key != _SELF and key in right:
            both = _common(node, right[key])
            if both is not None:
                out[key] = both
    return _whole(out, _is_member(left) and _is_member(right))


def union(left: dict, right: dict) -> dict:
    """The paths in either."""
    return _union(left, right)


@cython.cfunc
def _union(left: dict, right: dict) -> dict:
    if not left or not right:
        return left or right
    out: dict = dict(left)
    for key, node in right.items():
        out[key] = _joined(out[key], node) if key in out else node
    return out


@cython.cfunc
def _joined(left: dict, right: dict) -> dict:
    if left is right:
        return left
    out: dict = _union(left, right)
    if not (left and right) and out and _SELF not in out:  # one of them is the node itself
        return {_SELF: _LEAF, **out}
    return out
