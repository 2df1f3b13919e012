"""The core of managedFields computes the same compiled and interpreted."""

import pytest
from api_builds import builds
from hypothesis import given
from hypothesis import strategies as st

BUILDS = builds("_fields")
SETS = builds("_fieldsets")


def shapes(core):
    """A type with all there is, made by one build."""
    text = core.Type(core.SCALAR, element="f:text", leaf=True, scalar="string")
    number = core.Type(core.SCALAR, element="f:number", leaf=True, always=True)
    item = core.Type(core.MAP, struct=True, load=lambda: {"name": text, "port": number, "inner": item})
    return core.Type(
        core.MAP,
        struct=True,
        load=lambda: {
            "text": text,
            "number": number,
            "words": core.Type(core.LIST, element="f:words", leaf=True, items=text),
            "tags": core.Type(core.LIST, element="f:tags", items=text, always=True),
            "items": core.Type(core.LIST, element="f:items", items=item, keys={"name": None}),
            "ports": core.Type(core.LIST, element="f:ports", items=item, keys={"port": None, "protocol": "TCP"}),
            "labels": core.Type(core.MAP, element="f:labels", items=text),
            "struct": core.Type(core.MAP, element="f:struct", struct=True, always=True, load=lambda: {"text": text}),
            "free": core.Type(core.DEDUCED, element="f:free", open=True),
        },
    )


def _with_leaf_self(node):
    return {key: {} if key == "." else value for key, value in node.items()}


texts = st.sampled_from(["", "a", "b", 'say "c"', "ü"])
items = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {}, optional={"name": texts, "port": st.integers(0, 2), "inner": st.dictionaries(texts, texts)}
    ),
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(0, 2), texts),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.fixed_dictionaries(
    {},
    optional={
        "text": texts,
        "number": st.integers(0, 2),
        "words": st.lists(texts),
        "tags": st.one_of(st.none(), st.lists(texts)),
        "items": st.one_of(st.none(), st.lists(items)),
        "ports": st.lists(items),
        "labels": st.one_of(st.none(), st.dictionaries(texts, texts)),
        "struct": st.one_of(st.none(), st.fixed_dictionaries({}, optional={"text": texts})),
        "free": anything,
        "unknown": anything,
    },
)


@given(objects, objects)
def test_both_builds_find_the_same_fields(left, right):
    found = [
        (
            core.made(kind, left),
            core.everything(kind, left),
            core.compare(kind, left, right),
            core.applied(kind, left),
            core.fits(kind, left),
            core.merged(kind, left, right) if core.fits(kind, left) and core.fits(kind, right) else None,
        )
        for core, kind in ((core, shapes(core)) for core in BUILDS.values())
    ]
    assert found[0] == found[-1]


elements = st.sampled_from(["f:a", "f:b", 'k:{"name":"a"}', "v:1", "."])
fields = st.recursive(
    st.just({}), lambda inner: st.dictionaries(elements, inner, max_size=3).map(_with_leaf_self), max_leaves=8
).map(lambda node: {key: value for key, value in node.items() if key != "."})


@given(fields, fields)
def test_both_builds_compute_the_same_sets(left, right):
    found = [
        (
            core.union(left, right),
            core.difference(left, right),
            core.without(left, right),
            core.intersection(left, right),
        )
        for core in SETS.values()
    ]
    assert found[0] == found[-1]


@pytest.mark.parametrize("core", BUILDS.values(), ids=BUILDS)
def test_a_type_may_hold_itself(core):
    kind = shapes(core)
    inner = kind.fields["items"].items.fields["inner"]
    assert inner.fields["inner"] is not None
    assert core.everything(kind, {"items": [{"name": "a", "inner": {"inner": {"name": "b"}}}]})["f:items"]


@pytest.mark.parametrize("core", BUILDS.values(), ids=BUILDS)
def test_nameless_items_are_left_out(core):
    kind = shapes(core)
    assert core.everything(kind, {"items": [None, {"port": 1}, "x", {"name": "a"}]})["f:items"].keys() == {
        ".",
        'k:{"name":"a"}',
    }
    with pytest.raises(core.Nameless, match="omits all key fields"):
        core.element(kind.fields["items"], {"port": 1})
    assert core.element(kind.fields["ports"], {}) == 'k:{"protocol":"TCP"}'
