"""The catalog of resources: what is built in, and how custom resources come and go."""

from __future__ import annotations

import dataclasses

import pytest

from fastkube.api.catalog import Catalog, ResourceType, api_version, split_api_version


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog.builtin()


def found(catalog: Catalog, group: str, version: str, resource: str) -> ResourceType:
    rtype = catalog.lookup(group, version, resource)
    assert rtype is not None
    return rtype


def test_pods(catalog: Catalog) -> None:
    pods = found(catalog, "", "v1", "pods")
    assert (pods.kind, pods.list_kind, pods.singular) == ("Pod", "PodList", "pod")
    assert pods.namespaced and pods.persisted
    assert pods.short_names == ("po",) and pods.categories == ("all",)
    assert {"status", "binding", "eviction", "ephemeralcontainers", "resize", "log", "exec"} <= set(pods.subresources)
    assert "spec.nodeName" in pods.selectable
    assert pods.columns["v1"][:2] == (("Name", "string", "name", 0), ("Ready", "string", "", 0))


def test_keys_are_those_of_upstream(catalog: Catalog) -> None:
    assert found(catalog, "", "v1", "pods").key("default", "a") == b"/registry/pods/default/a"
    assert found(catalog, "", "v1", "nodes").key("ignored", "n") == b"/registry/nodes/n"
    assert found(catalog, "apps", "v1", "deployments").key("x", "y") == b"/registry/apps/deployments/x/y"


def test_both_groups_of_events_share_their_objects(catalog: Catalog) -> None:
    core, events = found(catalog, "", "v1", "events"), found(catalog, "events.k8s.io", "v1", "events")
    assert core.key_prefix == events.key_prefix == b"/registry/events/"
    assert core.storage_api_version == events.storage_api_version == "v1"
    assert events.api_version("v1") == "events.k8s.io/v1"


def test_versions_in_order_of_preference(catalog: Catalog) -> None:
    scalers = found(catalog, "autoscaling", "v1", "horizontalpodautoscalers")
    assert scalers.versions == ("v2", "v1")
    assert scalers.storage_api_version == "autoscaling/v2"
    assert found(catalog, "autoscaling", "v2", "horizontalpodautoscalers") is scalers


def test_a_subresource_may_be_of_another_kind(catalog: Catalog) -> None:
    scale = found(catalog, "apps", "v1", "deployments").subresources["scale"]
    assert (scale.group, scale.version, scale.kind) == ("autoscaling", "v1", "Scale")
    eviction = found(catalog, "", "v1", "pods").subresources["eviction"]
    assert (eviction.group, eviction.version, eviction.kind) == ("policy", "v1", "Eviction")
    status = found(catalog, "apps", "v1", "deployments").subresources["status"]
    assert (status.group, status.version, status.kind) == ("apps", "v1", "Deployment")


@pytest.mark.parametrize(
    ("group", "resource"),
    [
        ("", "bindings"),
        ("", "componentstatuses"),
        ("authentication.k8s.io", "tokenreviews"),
        ("authorization.k8s.io", "subjectaccessreviews"),
    ],
)
def test_what_is_not_kept(catalog: Catalog, group: str, resource: str) -> None:
    assert not found(catalog, group, "v1", resource).persisted


def test_unknown_names_are_none(catalog: Catalog) -> None:
    assert catalog.lookup("apps", "v1beta1", "deployments") is None
    assert catalog.lookup("", "v1", "widgets") is None
    assert catalog.by_kind("v1", "Widget") is None


def test_by_kind(catalog: Catalog) -> None:
    assert catalog.by_kind("apps/v1", "Deployment") is found(catalog, "apps", "v1", "deployments")
    assert catalog.by_kind("v1", "Pod") is found(catalog, "", "v1", "pods")


def widget(kind: str = "Widget", versions: tuple[str, ...] = ("v1",)) -> ResourceType:
    base = found(Catalog.builtin(), "", "v1", "configmaps")
    return dataclasses.replace(
        base, group="example.com", resource="widgets", kind=kind, versions=versions, key_prefix=b"/registry/w/"
    )


def test_custom_resources_come_change_and_go() -> None:
    catalog = Catalog.builtin()
    start = catalog.generation
    first = widget(versions=("v1", "v1beta1"))
    catalog.add(first)
    assert catalog.lookup("example.com", "v1beta1", "widgets") is first
    assert catalog.groups()[-1] == "example.com"

    second = widget(kind="Gadget")
    catalog.add(second)
    assert catalog.lookup("example.com", "v1beta1", "widgets") is None
    assert catalog.by_kind("example.com/v1", "Widget") is None
    assert catalog.by_kind("example.com/v1", "Gadget") is second

    catalog.remove(first)  # an old one: nothing happens
    assert catalog.get("example.com", "widgets") is second
    catalog.remove(second)
    assert catalog.get("example.com", "widgets") is None
    assert catalog.generation == start + 3


def test_catalogs_do_not_share_changes() -> None:
    one, two = Catalog.builtin(), Catalog.builtin()
    one.add(widget())
    assert two.get("example.com", "widgets") is None


def test_api_version_and_back() -> None:
    assert [api_version(*split_api_version(text)) for text in ("v1", "apps/v1")] == ["v1", "apps/v1"]
