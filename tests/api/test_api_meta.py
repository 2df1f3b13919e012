"""ObjectMeta: what is refused and in which words, what the server makes up, owners and finalizers."""

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastkube.api import meta, names

SUBDOMAIN_FAULT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
LABEL_FAULT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
KEY_FAULT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)


def pod(**metadata):
    return {"metadata": {"name": "a", "namespace": "default", **metadata}}


def faults(obj, **options):
    return [
        (cause.field, cause.message)
        for cause in meta.validate_object_meta(obj, True, meta.dns1123_subdomain, **options)
    ]


def update_faults(new, old):
    return [(cause.field, cause.message) for cause in meta.validate_object_meta_update(new, old)]


@pytest.mark.parametrize(
    ("check", "name", "expected"),
    [
        (names.dns1123_subdomain, "a.b-c.d", []),
        (names.dns1123_subdomain, "A_b", [SUBDOMAIN_FAULT]),
        (names.dns1123_subdomain, "a" * 254, ["must be no more than 253 characters"]),
        (names.dns1123_subdomain, "", [SUBDOMAIN_FAULT]),
        (names.dns1123_subdomain, "a\n", [SUBDOMAIN_FAULT]),
        (names.dns1123_label, "a", []),
        (names.dns1123_label, "a.b", ["must not contain dots"]),
        (names.dns1123_label, "A", [LABEL_FAULT]),
        (names.dns1123_label, "a" * 64, ["must be no more than 63 characters"]),
        (names.dns1035_label, "a1", []),
        (names.path_segment, "system:x", []),
        (names.path_segment, "..", ["may not be '..'"]),
        (names.path_segment, "a/b%c", ["may not contain '/'", "may not contain '%'"]),
        (names.label_key, "example.com/a_B.c", []),
        (names.label_key, "", ["name part must be non-empty", KEY_FAULT]),
        (names.label_key, "/a", ["prefix part must be non-empty"]),
        (names.label_key, "bad name/x", ["prefix part " + SUBDOMAIN_FAULT]),
        (names.label_key, "x/y~z", [KEY_FAULT]),
        (names.label_key, "a" * 64, ["name part must be no more than 63 bytes"]),
        (names.label_value, "", []),
        (names.label_value, "x" * 64, ["must be no more than 63 bytes"]),
        (names.config_map_key, "..", ["must not be '..'"]),
        (names.config_map_key, "..a", ["must not start with '..'"]),
        (names.port_name, "http", []),
        (names.port_name, "80", ["must contain at least one letter (a-z)"]),
        (names.port_name, "a--b", ["must not contain consecutive hyphens"]),
        (names.port_name, "-a", ["must not begin or end with a hyphen"]),
        (names.env_var_name, "1.x-Y", []),
        (names.wildcard_dns1123_subdomain, "*.example.com", []),
        (names.c_identifier, "my_name", []),
        (names.percent, "10%", []),
        (names.http_header_name, "X-A", []),
        (names.port_number, 0, ["must be between 1 and 65535, inclusive"]),
    ],
)
def test_formats(check, name, expected):
    assert check(name) == expected


def test_formats_that_name_their_pattern():
    assert "regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?'" in names.dns1035_label("1a")[0]
    assert r"'\*\.[a-z0-9]" in names.wildcard_dns1123_subdomain("a.b")[0]
    assert "with an optional DNS subdomain prefix and '/'" in names.label_key("a/b/c")[0]
    assert names.label_value("b c")[0].startswith("a valid label must be an empty string or consist of")
    assert names.env_var_name("a=b") == [
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
    ]
    assert "'[-._a-zA-Z0-9]+'" in names.config_map_key("a b")[0]
    assert "'[0-9]+%'" in names.percent("1")[0]
    assert "'[-A-Za-z0-9]+'" in names.http_header_name("a:b")[0]
    assert "'[A-Za-z_][A-Za-z0-9_]*'" in names.c_identifier("1a")[0]


def test_a_generate_name_may_end_in_a_dash():
    assert names.dns1123_subdomain("web-", True) == []
    assert names.dns1123_subdomain("web-", False) == [SUBDOMAIN_FAULT]
    assert faults(pod(generateName="Web-")) == [
        ("metadata.generateName", f'Invalid value: "Web-": {SUBDOMAIN_FAULT}'),
    ]


def test_good_metadata_has_no_fault():
    labels = {"app": "web", "example.com/tier": ""}
    owners = [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": True}]
    finalizers = ["kubernetes", "example.com/x"]
    assert faults(pod(labels=labels, annotations={"A.b/C": "any\nthing"}, ownerReferences=owners)) == []
    assert faults(pod(finalizers=finalizers, generation=1)) == []


def test_names_and_namespaces():
    assert faults({"metadata": {"namespace": "default"}}) == [
        ("metadata.name", "Required value: name or generateName is required")
    ]
    assert faults({"metadata": {"name": "a"}}) == [("metadata.namespace", "Required value")]
    assert faults(pod(namespace="A")) == [("metadata.namespace", f'Invalid value: "A": {LABEL_FAULT}')]
    cluster_wide = meta.validate_object_meta(pod(), False, meta.path_segment)
    assert [(cause.reason, cause.field) for cause in cluster_wide] == [("FieldValueForbidden", "metadata.namespace")]


def test_labels_and_annotations():
    assert faults(pod(labels={"x/y~z": "b c"})) == [
        ("metadata.labels", f'Invalid value: "x/y~z": {KEY_FAULT}'),
        ("metadata.labels", f'Invalid value: "b c": {names.label_value("b c")[0]}'),
    ]
    assert faults(pod(annotations={"A B": "x"})) == [("metadata.annotations", f'Invalid value: "A B": {KEY_FAULT}')]


@pytest.mark.parametrize("char", ["x", "é", "☃"])
def test_annotations_are_limited_in_bytes(char):
    most = (256 * 1024 - 1) // len(char.encode())
    assert faults(pod(annotations={"k": char * most})) == []
    assert faults(pod(annotations={"k": char * (most + 1)})) == [
        ("metadata.annotations", "Too long: may not be more than 262144 bytes")
    ]


def test_owner_references():
    ref = {"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "u", "controller": True}
    assert faults(pod(ownerReferences=[{"apiVersion": "v1", "kind": "Pod"}])) == [
        ("metadata.ownerReferences.name", 'Invalid value: "": must not be empty'),
        ("metadata.ownerReferences.uid", 'Invalid value: "": must not be empty'),
    ]
    shown = '{"apiVersion":"v1","kind":"Pod","name":"x","uid":"u","controller":true}'
    assert faults(pod(ownerReferences=[ref, ref])) == [
        (
            "metadata.ownerReferences",
            f"Invalid value: [{shown},{shown}]: Only one reference can have Controller set to true. "
            'Found "true" in references for Pod/x and Pod/x',
        )
    ]
    event = {"kind": "Event", "name": "e", "uid": "u", "apiVersion": "v1"}
    assert faults(pod(ownerReferences=[event])) == [
        (
            "metadata.ownerReferences",
            'Invalid value: {"apiVersion":"v1","kind":"Event","name":"e","uid":"u"}: '
            "/v1, Kind=Event is disallowed from being an owner",
        )
    ]


def test_finalizers():
    plain = 'Invalid value: "plain": name is neither a standard finalizer name nor is it fully qualified'
    assert faults(pod(finalizers=["a.b/c", "plain"])) == [("metadata.finalizers[1]", plain)]
    assert faults(pod(finalizers=["plain"]), kube_finalizers=False) == []
    assert faults(pod(finalizers=["bad name/x"])) == [
        ("metadata.finalizers", f'Invalid value: "bad name/x": prefix part {SUBDOMAIN_FAULT}')
    ]
    assert faults(pod(finalizers=["orphan", "foregroundDeletion"])) == [
        (
            "metadata.finalizers",
            'Invalid value: ["orphan","foregroundDeletion"]: '
            "finalizer orphan and foregroundDeletion cannot be both set",
        )
    ]


def test_managed_fields():
    entry = {"manager": "a\nb", "operation": "Merge", "fieldsType": "FieldsV2", "subresource": "s" * 257}
    assert faults(pod(managedFields=[entry])) == [
        ("metadata.managedFields[0].operation", 'Invalid value: "Merge": must be `Apply` or `Update`'),
        ("metadata.managedFields[0].fieldsType", 'Invalid value: "FieldsV2": must be `FieldsV1`'),
        ("metadata.managedFields[0].manager", r'Invalid value: "a\nb": invalid character U+000A (at position 1)'),
        ("metadata.managedFields[0].subresource", "Too long: may not be more than 256 bytes"),
    ]
    assert meta.validate_field_manager("m" * 129, "fieldManager")[0].message.startswith("Too long")
    assert meta.validate_field_manager("m" * 128, "fieldManager") == []


def test_what_may_not_change():
    old = pod(uid="u", creationTimestamp="2026-01-01T00:00:00Z", generation=2)
    new = {"metadata": {"name": "b", "uid": "v", "creationTimestamp": "2027-01-01T00:00:00Z", "generation": 1}}
    assert update_faults(new, old) == [
        ("metadata.generation", "Invalid value: 1: must not be decremented"),
        ("metadata.name", 'Invalid value: "b": field is immutable'),
        ("metadata.namespace", 'Invalid value: "": field is immutable'),
        ("metadata.uid", 'Invalid value: "v": field is immutable'),
        ("metadata.creationTimestamp", 'Invalid value: "2027-01-01T00:00:00Z": field is immutable'),
    ]
    assert update_faults(pod(deletionGracePeriodSeconds=5), pod()) == [
        ("metadata.deletionGracePeriodSeconds", "Invalid value: 5: field is immutable")
    ]


def test_a_dying_object_takes_no_new_finalizers():
    dying = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    assert update_faults(pod(**dying, finalizers=["a.b/c"]), pod(**dying, finalizers=["a.b/c", "d.e/f"])) == []
    assert update_faults(pod(**dying, finalizers=["x.y/z"]), pod(**dying, finalizers=["a.b/c"])) == [
        (
            "metadata.finalizers",
            "Forbidden: no new finalizers can be added if the object is being deleted, "
            'found new finalizers []string{"x.y/z"}',
        )
    ]


def test_generated_names():
    made = {meta.generate_name("web-") for _ in range(200)}
    assert len(made) > 190
    assert all(re.fullmatch("web-[bcdfghjklmnpqrstvwxz2456789]{5}", name) for name in made)
    assert re.fullmatch("a{58}[bcdfghjklmnpqrstvwxz2456789]{5}", meta.generate_name("a" * 80))


def test_uids_are_random_uuids():
    made = [uuid.UUID(meta.new_uid()) for _ in range(200)]
    assert len(set(made)) == 200
    assert all(uid.version == 4 and uid.variant == uuid.RFC_4122 for uid in made)


def test_owners():
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r", "uid": "u"}}
    plain = meta.owner_reference(owner, controller=False)
    assert plain == {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u"}
    controlling = meta.owner_reference(owner)
    assert controlling == {**plain, "controller": True, "blockOwnerDeletion": True}
    assert meta.controller_of(pod(ownerReferences=[plain, controlling])) == controlling
    assert meta.controller_of(pod(ownerReferences=[plain])) is None
    assert meta.controller_of(pod()) is None


def test_finalizers_are_added_once_and_removed_with_their_field():
    obj = pod()
    assert meta.add_finalizer(obj, "a.b/c")
    assert not meta.add_finalizer(obj, "a.b/c")
    assert obj["metadata"]["finalizers"] == ["a.b/c"]
    assert meta.remove_finalizer(obj, "a.b/c")
    assert not meta.remove_finalizer(obj, "a.b/c")
    assert "finalizers" not in obj["metadata"]


@given(st.text(max_size=80))
def test_the_quick_checks_agree_with_the_full_ones(text):
    assert names.is_label_key(text) == (names.label_key(text) == [])
    assert names.is_label_value(text) == (names.label_value(text) == [])
