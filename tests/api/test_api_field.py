"""Field errors read as Go prints them."""

import pytest

from fastkube import errors
from fastkube.api import field
from fastkube.errors import Cause


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a", '"a"'),
        ('say "hi"\\', r'"say \"hi\"\\"'),
        ("line\nbreak\ttab", r'"line\nbreak\ttab"'),
        ("bell\a null\x00 del\x7f", r'"bell\a null\x00 del\x7f"'),
        ("ünï – ☃", '"ünï – ☃"'),
        ("\u200b \U000e0001", r'"\u200b \U000e0001"'),
        (None, "null"),
        (True, "true"),
        (-1, "-1"),
        (["v9"], '["v9"]'),
        ({"b": "<x>", "a": 1}, '{"a":1,"b":"\\u003cx\\u003e"}'),
        (field.struct({"kind": "Pod", "a": 1}), '{"kind":"Pod","a":1}'),
    ],
)
def test_bad_values_are_shown_as_go_shows_them(value, shown):
    assert field.invalid("spec.x", value, "no").message == f"Invalid value: {shown}: no"


def test_each_kind_of_fault_has_its_reason_and_phrase():
    assert field.required("a") == Cause("FieldValueRequired", "Required value", "a")
    assert field.required("a", "why").message == "Required value: why"
    assert field.not_supported("p", "X", ["SCTP", "TCP"]) == Cause(
        "FieldValueNotSupported", 'Unsupported value: "X": supported values: "SCTP", "TCP"', "p"
    )
    assert field.forbidden("a", "not here") == Cause("FieldValueForbidden", "Forbidden: not here", "a")
    assert field.duplicate("a[1]", "p") == Cause("FieldValueDuplicate", 'Duplicate value: "p"', "a[1]")
    assert field.not_found("a", "w") == Cause("FieldValueNotFound", 'Not found: "w"', "a")
    assert field.too_long("a", 5) == Cause("FieldValueTooLong", "Too long: may not be more than 5 bytes", "a")
    assert field.too_many("a", 3, 2) == Cause("FieldValueTooMany", "Too many: 3: must have at most 2 items", "a")
    assert field.too_many("a", 2, 1).message == "Too many: 2: must have at most 1 item"
    assert field.type_invalid("a", "s", "d") == Cause("FieldValueTypeInvalid", 'Invalid value: "s": d', "a")
    assert field.internal("a", "oops") == Cause("InternalError", "Internal error: oops", "a")
    assert field.non_negative("a", 0) == []
    assert field.non_negative("a", -1) == [field.invalid("a", -1, "must be greater than or equal to 0")]


def test_paths():
    assert field.child("", "spec") == "spec"
    assert field.at(field.child("spec", "template", "containers"), 0) == "spec.template.containers[0]"
    assert field.at("metadata.labels", "example.com/x") == "metadata.labels[example.com/x]"


def test_causes_make_a_status():
    error = errors.invalid("apps", "Deployment", "a", [field.required("spec.selector")])
    assert error.to_status() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'Deployment.apps "a" is invalid: spec.selector: Required value',
        "reason": "Invalid",
        "details": {
            "name": "a",
            "group": "apps",
            "kind": "Deployment",
            "causes": [{"reason": "FieldValueRequired", "message": "Required value", "field": "spec.selector"}],
        },
        "code": 422,
    }
