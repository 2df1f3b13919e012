"""Label and field selectors: grammar, words of refusal, matching."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastkube.api import selectors
from fastkube.api.selectors import from_labels, from_object, parse_field_selector, parse_label_selector
from fastkube.errors import ApiError

COMMON = frozenset(("metadata.name", "metadata.namespace"))
A, B, D, E = {"app": "x", "tier": "1"}, {"app": "y"}, {"app": "x", "tier": "2"}, {}


@pytest.mark.parametrize(
    ("text", "matched"),
    [
        ("app=x", [A, D]),
        ("app==x", [A, D]),
        ("app!=x", [B, E]),
        ("app", [A, B, D]),
        ("!app", [E]),
        ("app in (x,y)", [A, B, D]),
        ("app notin (x)", [B, E]),
        ("app=x,tier=2", [D]),
        (" tier  in ( 1 , 2 ) , app ", [A, D]),
        ("tier>1", [D]),
        ("tier<2", [A]),
        ("app>0", []),
        ("app=", []),
        ("app in ()", []),
        ("app notin (,x)", [B, E]),
        ("!tier,app", [B]),
        ("", [A, B, D, E]),
    ],
)
def test_label_selectors(text, matched):
    selector = parse_label_selector(text)
    assert [labels for labels in (A, B, D, E) if selector.matches(labels)] == matched
    stored = [msgpack.packb({"metadata": {"labels": labels} if labels else {}}) for labels in (A, B, D, E)]
    assert [value for value in stored if selector.matches_bytes(value)] == [
        msgpack.packb({"metadata": {"labels": labels} if labels else {}}) for labels in matched
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("app in x", "unable to parse requirement: found 'x' expected: '('"),
        ("=x", "found '=', expected: !, identifier, or 'end of string'"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("app=x y", "found 'y', expected: ',' or 'end of string'"),
        ("!app in (x)", "found 'in', expected: ',' or 'end of string'"),
        (
            "app>1a",
            "unable to parse requirement: values[0]: Invalid value: \"1a\": for 'Gt', 'Lt' operators, "
            "the value must be an integer",
        ),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("app,,b", "found ',', expected: identifier after ','"),
        ("app,", "found '', expected: identifier after ','"),
        ("app in (a", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("app in (a b)", "unable to parse requirement: found 'b', expected: ',' or ')'"),
        ("app in (=)", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
        ("app in (a,=)", "unable to parse requirement: found '=', expected: ',', or identifier"),
        ("app==(", "unable to parse requirement: found '(', expected: identifier"),
    ],
)
def test_label_selectors_refused(text, message):
    with pytest.raises(ApiError) as caught:
        parse_label_selector(text)
    assert (caught.value.code, caught.value.reason, caught.value.message) == (400, "BadRequest", message)


def test_keys_and_values_of_label_selectors_are_checked():
    with pytest.raises(ApiError) as caught:
        parse_label_selector("-a=b")
    assert caught.value.message.startswith(
        'unable to parse requirement: <nil>: Invalid value: "-a": name part must consist of alphanumeric characters'
    )
    with pytest.raises(ApiError) as caught:
        parse_label_selector("app=" + "x" * 64)
    assert caught.value.message == (
        f'unable to parse requirement: values[0][app]: Invalid value: "{"x" * 64}": must be no more than 63 bytes'
    )


def test_keywords_serve_as_keys_and_values():
    assert parse_label_selector("in in (in,notin)").matches({"in": "notin"})
    assert str(parse_label_selector("notin=in")) == "notin=in"


def test_selectors_of_objects():
    selector = from_object(
        {
            "matchLabels": {"app": "x"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["2", "1"]},
                {"key": "gone", "operator": "DoesNotExist"},
                {"key": "app", "operator": "Exists"},
                {"key": "env", "operator": "NotIn", "values": ["dev"]},
            ],
        }
    )
    assert str(selector) == "app=x,app,env notin (dev),!gone,tier in (1,2)"
    assert selector.matches({"app": "x", "tier": "1"})
    assert not selector.matches({"app": "x", "tier": "1", "gone": ""})
    assert not selector.matches({"app": "x", "tier": "1", "env": "dev"})
    assert from_object({}).matches({}) and not from_object({})
    assert not from_object(None).matches({}) and from_object(None)
    assert from_labels({"app": "x"}).matches(A) and not from_labels({"app": "x"}).matches(None)
    with pytest.raises(ValueError, match='"Odd" is not a valid label selector operator'):
        from_object({"matchExpressions": [{"key": "a", "operator": "Odd"}]})


def test_selectors_of_objects_are_validated():
    selector = {
        "matchLabels": {"a": "b c"},
        "matchExpressions": [
            {"key": "a", "operator": "Odd"},
            {"key": "a", "operator": "In"},
            {"key": "-", "operator": "Exists", "values": ["x"]},
        ],
    }
    causes = selectors.validate_label_selector(selector, "spec.selector")
    assert [(cause.reason, cause.field) for cause in causes] == [
        ("FieldValueInvalid", "spec.selector.matchLabels"),
        ("FieldValueInvalid", "spec.selector.matchExpressions[0].operator"),
        ("FieldValueRequired", "spec.selector.matchExpressions[1].values"),
        ("FieldValueForbidden", "spec.selector.matchExpressions[2].values"),
        ("FieldValueInvalid", "spec.selector.matchExpressions[2].key"),
    ]
    assert causes[1].message == 'Invalid value: "Odd": not a valid selector operator'
    assert selectors.validate_label_selector(None, "spec.selector") == []


POD = {
    "metadata": {"name": "a", "namespace": "n"},
    "spec": {"nodeName": "n1", "hostNetwork": True},
    "status": {"phase": "Pending", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
}
POD_FIELDS = COMMON | {"spec.nodeName", "spec.hostNetwork", "status.phase", "status.podIP", "status.podIPs"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("metadata.name=a", True),
        ("metadata.name==a", True),
        ("metadata.name!=a", False),
        ("metadata.name=a,metadata.name=b", False),
        ("metadata.namespace=n,,spec.nodeName=n1", True),
        ("spec.nodeName=", False),
        ("status.podIP=", True),
        ("spec.hostNetwork=true", True),
        ("status.podIPs=10.0.0.1\\,fd00::1", True),
        ("", True),
    ],
)
def test_field_selectors(text, matches):
    selector = parse_field_selector(text, POD_FIELDS)
    assert selector.matches(POD) is matches
    assert selector.matches_bytes(msgpack.packb(POD)) is matches


def test_absent_fields_read_as_zero_values():
    assert parse_field_selector("spec.hostNetwork=false", POD_FIELDS).matches({"spec": {}})
    jobs = COMMON | {"status.successful"}
    assert parse_field_selector("status.successful=0", jobs).matches({"status": {}})
    assert parse_field_selector("status.successful=2", jobs).matches({"status": {"succeeded": 2}})


def test_events_are_selected_by_the_fields_of_both_apis():
    event = {"involvedObject": {"kind": "Pod"}, "source": {"component": "kubelet"}, "reportingComponent": "r"}
    allowed = COMMON | {"involvedObject.kind", "regarding.kind", "source", "reportingController"}
    for text in ("involvedObject.kind=Pod", "regarding.kind=Pod", "source=kubelet", "reportingController=r"):
        assert parse_field_selector(text, allowed).matches(event)
    assert parse_field_selector("source=r", allowed).matches({"source": {}, "reportingComponent": "r"})


def test_the_exact_value_of_a_field():
    selector = parse_field_selector("metadata.name=a,metadata.namespace!=n", COMMON)
    assert selector.exact("metadata.name") == "a"
    assert selector.exact("metadata.namespace") is None
    assert str(selector) == "metadata.name=a,metadata.namespace!=n"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            "data.x=y",
            {"allowed": COMMON},
            '"data.x" is not a known field selector: only "metadata.name", "metadata.namespace"',
        ),
        ("spec.x=y", {"allowed": POD_FIELDS}, "field label not supported: spec.x"),
        ("spec.x=y", {"allowed": COMMON, "custom": True}, "field label not supported: spec.x"),
        ("spec.x=y", {"allowed": COMMON, "kind": "Job"}, 'field label "spec.x" not supported for Job'),
        ("metadata.name", {"allowed": COMMON}, "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
        (
            "metadata.name=a=b",
            {"allowed": COMMON},
            "invalid field selector: unescaped character in value: 61",
        ),
        (
            "metadata.name=a\\b",
            {"allowed": COMMON},
            "invalid field selector: invalid escape sequence: \\b",
        ),
        ("metadata.name=a\\", {"allowed": COMMON}, "invalid field selector: invalid escape sequence: \\"),
    ],
)
def test_field_selectors_refused(text, options, message):
    with pytest.raises(ApiError) as caught:
        parse_field_selector(text, **options)
    assert (caught.value.code, caught.value.message) == (400, message)


keys = st.sampled_from(["a", "b", "in", "example.com/c"])
values = st.sampled_from(["", "1", "2", "x", "notin"])
texts = st.one_of(
    st.builds("{}{}{}".format, keys, st.sampled_from(["=", "==", "!="]), values),
    st.builds("{}{}{}".format, keys, st.sampled_from("<>"), st.sampled_from(["1", "5"])),
    st.builds(
        lambda key, op, told: f"{key} {op} ({','.join(told)})", keys, st.sampled_from(["in", "notin"]), st.lists(values)
    ),
    keys,
    keys.map("!{}".format),
)


@given(st.lists(texts, max_size=4), st.lists(st.dictionaries(keys, values), min_size=1))
def test_a_printed_label_selector_parses_to_itself(parts, objects):
    selector = parse_label_selector(",".join(parts))
    again = parse_label_selector(str(selector))
    assert str(again) == str(selector)
    assert [selector.matches(labels) for labels in objects] == [again.matches(labels) for labels in objects]
    assert [selector.matches(labels) for labels in objects] == [
        all(parse_label_selector(part).matches(labels) for part in parts) for labels in objects
    ]


@given(st.text(alphabet="ab =!(),<>in\t", max_size=20))
def test_any_text_parses_or_is_refused_with_400(text):
    try:
        selector = parse_label_selector(text)
    except ApiError as error:
        assert error.code == 400
    else:
        assert str(parse_label_selector(str(selector))) == str(selector)


@given(st.text(max_size=20), st.sampled_from(["=", "!="]))
def test_a_printed_field_selector_parses_to_itself(told, operator):
    selector = selectors.FieldSelector((selectors.FieldTerm("metadata.name", operator, told),))
    assert parse_field_selector(str(selector), COMMON).terms == selector.terms
    assert selector.matches({"metadata": {"name": told}}) is (operator == "=")


def test_labels_that_come_again_are_matched_as_before() -> None:
    """A list asks one selector about thousands of objects, most of which have the labels of another."""
    selector = parse_label_selector("app=web,tier!=test")
    labels: list[dict[str, str] | None] = [{"app": "web"}, {"app": "web", "tier": "test"}, {"app": "db"}, {}, None]
    labels += [{"app": "web", "number": str(number)} for number in range(600)]
    for _ in range(2):
        for number, own in enumerate(labels):
            metadata = {"name": f"pod-{number}"} | ({} if own is None else {"labels": own})
            value = msgpack.packb({"apiVersion": "v1", "kind": "Pod", "metadata": metadata})
            assert selector.matches_bytes(value) is selector.matches(own)


@pytest.mark.parametrize("found", ["text", "", "5", "true", None, True, False, 5, -3, 2.5])
@pytest.mark.parametrize("told", ["text", "", "5", "true", "false", "-3", "2.5", "None"])
@pytest.mark.parametrize("operator", ["=", "!="])
def test_fields_read_the_same_in_objects_and_in_their_bytes(found: object, told: str, operator: str) -> None:
    selector = parse_field_selector(f"spec.it{operator}{told}", frozenset({"spec.it"}))
    for obj in ({"spec": {"it": found}}, {"spec": {"other": 1}}, {}):
        assert selector.matches(obj) == selector.matches_bytes(msgpack.packb(obj))
